package esp

import (
	"cmp"
	"slices"
	"strings"

	"github.com/adit-ipsec/adit/internal/crypt"
)

// refusal says why a name that is no suite here is none on purpose; "" if it
// is merely unknown.
func refusal(name string) string {
	parts := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return r == '-' || r == '_' })
	if len(parts) == 0 {
		return ""
	}
	encryption, integrity := parts[0], parts[1:]
	switch {
	case strings.HasPrefix(encryption, "des"):
		return "RFC 8221 5: DES MUST NOT be used; use aes128gcm16 or aes128-sha256"
	case strings.HasPrefix(encryption, "3des"):
		return "RFC 8221 5: 3DES is SHOULD NOT, its 64-bit block leaks after little traffic; use aes128gcm16 or aes128-sha256"
	case strings.HasPrefix(encryption, "blowfish"):
		return "RFC 8221 5: Blowfish MUST NOT be used; use aes128gcm16 or aes128-sha256"
	case strings.HasPrefix(encryption, "cast"), strings.HasPrefix(encryption, "idea"), strings.HasPrefix(encryption, "rc5"):
		return "RFC 9395 deprecates that cipher; use aes128gcm16 or aes128-sha256"
	case slices.Contains(parts, "md5"):
		return "RFC 8221 6: HMAC-MD5 MUST NOT be used; use sha256"
	case encryption == "null" && (len(integrity) == 0 || isNone(integrity[0])):
		return "RFC 8221 5: ENCR_NULL and AUTH_NONE together MUST NOT be used; use null-sha256 or aes128gmac"
	case isHash(encryption):
		return "integrity alone names an AH suite; for ESP without encryption write null-" + encryption
	case isAES(encryption, "", "ctr") && (len(integrity) == 0 || isNone(integrity[0])):
		return "RFC 8221 4: encryption without authentication MUST NOT be used; name an integrity algorithm, as in aes128-sha256, or use aes128gcm16"
	case isCombined(encryption) && len(integrity) > 0:
		return "RFC 8221 4: a combined mode MUST NOT have a separate integrity algorithm; write " + encryption
	}
	return ""
}

func isNone(s string) bool { return s == "none" || s == "null" }

func isHash(s string) bool {
	return slices.ContainsFunc(crypt.HMACHashes(), func(m crypt.HMACHash) bool { return m.Params().Name == s })
}

func isAES(s string, kinds ...string) bool {
	for _, key := range []string{"aes", "aes128", "aes192", "aes256"} {
		for _, kind := range kinds {
			if s == key+kind || kind == "" && s == key+"cbc" {
				return true
			}
		}
	}
	return false
}

func isCombined(s string) bool {
	return slices.ContainsFunc(table[1:], func(d description) bool { return d.name == s && d.mac == crypt.NoHash })
}

// near returns the n suite names closest to name by edit distance.
func near(name string, n int) []string {
	names := make([]string, 0, len(table)-1)
	for _, d := range table[1:] {
		names = append(names, d.name)
	}
	slices.SortStableFunc(names, func(a, b string) int {
		return cmp.Compare(distance(name, a), distance(name, b))
	})
	return names[:n]
}

// distance is the Levenshtein distance of the first 32 bytes of a and of b.
func distance(a, b string) int {
	a, b = a[:min(len(a), 32)], b[:min(len(b), 32)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		left := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := left
			if a[i] != b[j] {
				cost++
			}
			left = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
