package ah

import (
	"fmt"
	"slices"
	"strings"

	"github.com/adit-ipsec/adit/internal/crypt"
)

// Suite names an integrity algorithm with its ICV length. Values compare with
// ==; the zero value is no suite. All that is known of a suite is its row in
// the table.
type Suite uint8

// description is a suite's row; all lengths in bytes.
type description struct {
	name    string
	mac     crypt.HMACHash // crypt.NoHash: GMAC
	keyLen  int
	saltLen int // what follows GMAC's cipher key in the integrity key
	ivLen   int // what stands in the ICV field before the ICV
	icvLen  int
}

// table is indexed by Suite; row 0 is the invalid suite.
var table = makeTable()

func makeTable() []description {
	t := []description{{}}
	for _, m := range crypt.HMACHashes() {
		t = append(t, description{name: m.Params().Name, mac: m, keyLen: m.Params().KeyLen, icvLen: m.Params().ICVLen})
	}
	for _, key := range []int{16, 24, 32} {
		// RFC 4543 3.2, 4: salt of four octets, IV of eight; 5: the ICV has
		// 16 octets and is never truncated.
		t = append(t, description{name: fmt.Sprintf("aes%dgmac", key*8), keyLen: key, saltLen: 4, ivLen: 8, icvLen: 16})
	}
	return t
}

// Suites returns all suites, in a fixed order.
func Suites() []Suite {
	all := make([]Suite, len(table)-1)
	for i := range all {
		all[i] = Suite(i + 1)
	}
	return all
}

// ParseSuite returns the suite of that name. The error lists all names, or says
// why what was asked for is refused.
func ParseSuite(name string) (Suite, error) {
	i := slices.IndexFunc(table, func(d description) bool { return d.name == name })
	if i > 0 {
		return Suite(i), nil
	}
	if why := refusal(name); why != "" {
		return 0, fmt.Errorf("ah: suite %q is refused: %s", name, why)
	}
	names := make([]string, 0, len(table)-1)
	for _, d := range table[1:] {
		names = append(names, d.name)
	}
	return 0, fmt.Errorf("ah: unknown suite %q; names: %s", name, strings.Join(names, ", "))
}

// refusal says why a name that is no suite here is none on purpose; "" if it
// is merely unknown.
func refusal(name string) string {
	name = strings.ToLower(name)
	if strings.Contains(name, "md5") {
		return "RFC 8221 6: HMAC-MD5 MUST NOT be used; use sha256"
	}
	if name == "null" || name == "none" {
		return "AH is integrity and nothing else; use sha256 or aes128gmac"
	}
	for _, d := range table[1:] {
		if strings.HasSuffix(name, "-"+d.name) {
			return "AH does not encrypt, and that is an ESP suite; for AH write " + d.name
		}
	}
	return ""
}

func (s Suite) row() *description {
	if int(s) >= len(table) {
		return &table[0]
	}
	return &table[s]
}

// Valid tells whether s is one of Suites.
func (s Suite) Valid() bool { return s != 0 && int(s) < len(table) }

// String is the name that ParseSuite takes.
func (s Suite) String() string {
	if !s.Valid() {
		return fmt.Sprintf("invalid suite %d", uint8(s))
	}
	return s.row().name
}

// MarshalText is String for encoders; the invalid suite is an error.
func (s Suite) MarshalText() ([]byte, error) {
	if !s.Valid() {
		return nil, fmt.Errorf("ah: %s", s)
	}
	return []byte(s.String()), nil
}

// UnmarshalText is ParseSuite for decoders.
func (s *Suite) UnmarshalText(text []byte) error {
	parsed, err := ParseSuite(string(text))
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}

// KeyLen returns the exact length of the integrity key in bytes. It includes
// GMAC's four-byte salt.
func (s Suite) KeyLen() int { return s.row().keyLen + s.row().saltLen }

// IVLen is the length in bytes of the IV at the start of the ICV field: 8 for
// GMAC, else 0.
func (s Suite) IVLen() int { return s.row().ivLen }

// ICVLen is the length of the integrity check value in bytes.
func (s Suite) ICVLen() int { return s.row().icvLen }

// CounterMode tells whether a nonce used twice under one key breaks the suite.
func (s Suite) CounterMode() bool { return s.row().saltLen > 0 }

// Legacy tells whether the suite is kept for old peers only: SHA-1.
func (s Suite) Legacy() bool { return s.row().mac == crypt.SHA1 }

// HeaderLen is the length of AH in bytes behind an IP header of that version, 4
// or 6. RFC 4302 2.6: padding makes it "an integral multiple of 32 bits (IPv4)
// or 64 bits (IPv6)"; erratum 3643 to RFC 4543 says so of GMAC.
func (s Suite) HeaderLen(version int) int {
	d := s.row()
	n := fixedLen + d.ivLen + d.icvLen
	if version == 6 {
		return (n + 7) &^ 7
	}
	return n
}

// takes tells whether Verify takes an AH of n bytes. RFC 4302 2.6: a sender
// MUST "insert only enough padding" for the alignment. Deviation: behind IPv4
// the padding of IPv6 is taken too, which Linux sends there unless told
// otherwise; it is under the ICV like the rest.
func (s Suite) takes(version, n int) bool {
	return n == s.HeaderLen(version) || n == s.HeaderLen(6)
}
