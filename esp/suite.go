package esp

import (
	"fmt"
	"slices"
	"strings"

	"github.com/adit-ipsec/adit/internal/crypt"
)

// Suite names a pair of encryption and integrity algorithms, or a combined
// mode, with its ICV length. Values compare with ==; the zero value is no
// suite. All that is known of a suite is its row in the table.
type Suite uint8

// mode says how a suite protects a packet; each has one codec.
type mode uint8

const (
	modeGCM      mode = iota // RFC 4106, ICV of 16 or 12 bytes
	modeGCM8                 // RFC 4106, ICV of 8 bytes
	modeChaCha20             // RFC 7634
	modeCCM                  // RFC 4309
	modeGMAC                 // RFC 4543, ENCR_NULL_AUTH_AES_GMAC
	modeCBC                  // RFC 3602 with HMAC
	modeCTR                  // RFC 3686 with HMAC
	modeNull                 // RFC 2410 with HMAC
)

// description is a suite's row; all lengths in bytes.
type description struct {
	name    string
	mode    mode
	keyLen  int // cipher key
	saltLen int // what follows the cipher key in the encryption key: salt, or CTR's nonce
	ivLen   int
	icvLen  int
	align   int // IV apart, what the encrypted text's length is a multiple of
	mac     crypt.HMACHash
	counter bool // a nonce used twice breaks it
}

// table is indexed by Suite; row 0 is the invalid suite.
var table = makeTable()

func makeTable() []description {
	t := []description{{}}
	aes := []int{16, 24, 32}
	for _, key := range aes {
		// RFC 4106 4: the salt has four octets; 6: the ICV has 16, 12 or 8.
		for _, icv := range []int{16, 12, 8} {
			m := modeGCM
			if icv == 8 {
				m = modeGCM8
			}
			t = append(t, description{name: fmt.Sprintf("aes%dgcm%d", key*8, icv), mode: m,
				keyLen: key, saltLen: 4, ivLen: 8, icvLen: icv, align: 4, counter: true})
		}
	}
	t = append(t, description{name: "chacha20poly1305", mode: modeChaCha20,
		keyLen: 32, saltLen: 4, ivLen: 8, icvLen: 16, align: 4, counter: true})
	for _, key := range aes {
		for _, m := range crypt.HMACHashes() {
			t = append(t, description{name: fmt.Sprintf("aes%d-%s", key*8, m.Params().Name), mode: modeCBC,
				keyLen: key, ivLen: 16, icvLen: m.Params().ICVLen, align: 16, mac: m})
		}
	}
	for _, key := range aes {
		for _, m := range crypt.HMACHashes() {
			t = append(t, description{name: fmt.Sprintf("aes%dctr-%s", key*8, m.Params().Name), mode: modeCTR,
				keyLen: key, saltLen: 4, ivLen: 8, icvLen: m.Params().ICVLen, align: 4, mac: m, counter: true})
		}
	}
	for _, key := range aes {
		// RFC 4309 4: the salt has three octets; the ICV has 16, 12 or 8.
		for _, icv := range []int{16, 12, 8} {
			t = append(t, description{name: fmt.Sprintf("aes%dccm%d", key*8, icv), mode: modeCCM,
				keyLen: key, saltLen: 3, ivLen: 8, icvLen: icv, align: 4, counter: true})
		}
	}
	for _, m := range crypt.HMACHashes() {
		t = append(t, description{name: "null-" + m.Params().Name, mode: modeNull,
			icvLen: m.Params().ICVLen, align: 4, mac: m})
	}
	for _, key := range aes {
		// RFC 4543 3: the ICV has 16 octets and is never truncated.
		t = append(t, description{name: fmt.Sprintf("aes%dgmac", key*8), mode: modeGMAC,
			keyLen: key, saltLen: 4, ivLen: 8, icvLen: 16, align: 4, counter: true})
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

// ParseSuite returns the suite of that name. The error lists near names, or
// says which RFC forbids what was asked for.
func ParseSuite(name string) (Suite, error) {
	i := slices.IndexFunc(table, func(d description) bool { return d.name == name })
	if i > 0 {
		return Suite(i), nil
	}
	if why := refusal(name); why != "" {
		return 0, fmt.Errorf("esp: suite %q is refused: %s", name, why)
	}
	return 0, fmt.Errorf("esp: unknown suite %q; near names: %s", name, strings.Join(near(name, 5), ", "))
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
		return nil, fmt.Errorf("esp: %s", s)
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

// KeyLen returns the exact lengths of the keys in bytes. The encryption key
// includes what follows the cipher's own key: GCM's, GMAC's and ChaCha20's
// four-byte salt, CCM's three-byte salt, CTR's four-byte nonce.
func (s Suite) KeyLen() (encryption, integrity int) {
	d := s.row()
	return d.keyLen + d.saltLen, d.mac.Params().KeyLen
}

// IVLen is the length of the IV on the wire in bytes.
func (s Suite) IVLen() int { return s.row().ivLen }

// ICVLen is the length of the integrity check value in bytes.
func (s Suite) ICVLen() int { return s.row().icvLen }

// BlockSize is what padding aligns payload, padding and the two trailer bytes
// to: the larger of the cipher's block and 4 bytes (RFC 4303 2.4).
func (s Suite) BlockSize() int { return s.row().align }

// CounterMode tells whether a nonce used twice under one key breaks the suite.
func (s Suite) CounterMode() bool { return s.row().counter }

// Legacy tells whether the suite is kept for old peers only: SHA-1.
func (s Suite) Legacy() bool { return s.row().mac == crypt.SHA1 }

// SealedLen is the length in bytes of the ESP packet that carries payload
// bytes: header, IV, payload, padding, two trailer bytes, ICV.
func (s Suite) SealedLen(payload int) int {
	return HeaderLen + s.row().ivLen + payload + s.TrailerLen(payload)
}

// TrailerLen is the length in bytes of what stands behind the payload: padding,
// two trailer bytes, ICV.
func (s Suite) TrailerLen(payload int) int {
	d := s.row()
	return d.padLen(payload) + 2 + d.icvLen
}

// MaxPayload is the largest payload in bytes whose SealedLen is at most sealed,
// or -1 if not even an empty one fits.
func (s Suite) MaxPayload(sealed int) int {
	d := s.row()
	if d.align == 0 {
		return -1
	}
	room := sealed - HeaderLen - d.ivLen - d.icvLen
	if room < d.align {
		return -1
	}
	return room - room%d.align - 2
}

// padLen is the shortest padding for a payload. The invalid suite has none.
func (d *description) padLen(payload int) int {
	if d.align == 0 {
		return 0
	}
	return -(payload + 2) & (d.align - 1)
}
