package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/hex"
	"fmt"
	"strings"
)

// HashAlgorithm is one of the hash algorithms of RFC 7427 section 7.
type HashAlgorithm uint16

// The hash algorithms. HashIdentity is no hash: Ed25519 signs the octets as they
// are (RFC 8420).
const (
	HashSHA1     HashAlgorithm = 1 // never offered, never accepted
	HashSHA256   HashAlgorithm = 2
	HashSHA384   HashAlgorithm = 3
	HashSHA512   HashAlgorithm = 4
	HashIdentity HashAlgorithm = 5
)

// String is the name of the hash algorithm.
func (h HashAlgorithm) String() string {
	switch h {
	case HashSHA1:
		return "sha1"
	case HashSHA256:
		return "sha256"
	case HashSHA384:
		return "sha384"
	case HashSHA512:
		return "sha512"
	case HashIdentity:
		return "identity"
	}
	return fmt.Sprintf("hash %d", uint16(h))
}

// Hashes are those that this end verifies signatures with: what it says in
// SIGNATURE_HASH_ALGORITHMS.
func Hashes() []HashAlgorithm {
	return []HashAlgorithm{HashSHA256, HashSHA384, HashSHA512, HashIdentity}
}

// HashData is the data of a SIGNATURE_HASH_ALGORITHMS notification (RFC 7427 4).
func HashData(hashes []HashAlgorithm) []byte {
	data := make([]byte, 0, 2*len(hashes))
	for _, h := range hashes {
		data = append(data, byte(h>>8), byte(h))
	}
	return data
}

// ParseHashes reads what HashData writes. Numbers that nobody knows stay in the
// list; an odd byte at the end is left out.
func ParseHashes(data []byte) []HashAlgorithm {
	hashes := make([]HashAlgorithm, 0, len(data)/2)
	for ; len(data) >= 2; data = data[2:] {
		hashes = append(hashes, HashAlgorithm(data[0])<<8|HashAlgorithm(data[1]))
	}
	return hashes
}

// family is what a key can do.
type family uint8

const (
	familyRSA family = iota + 1
	familyECDSA
	familyEd25519
)

// scheme is one signature algorithm of the digital signature method.
type scheme struct {
	name   string
	family family
	hash   HashAlgorithm
	digest crypto.Hash // 0: none, the octets are signed as they are
	pss    bool
	// encodings are AlgorithmIdentifiers in DER, the first is the one that is
	// sent. RFC 4055 2.1, of the hash algorithms: "All implementations MUST accept
	// both NULL and absent parameters as legal and equivalent encodings."
	encodings []string
}

// schemes is the allow-list, in the order in which they are preferred. The bytes
// are those of RFC 7427 appendix A and RFC 8420 appendix A.
var schemes = []scheme{
	pssScheme(HashSHA256, crypto.SHA256, "01", "20"),
	pssScheme(HashSHA384, crypto.SHA384, "02", "30"),
	pssScheme(HashSHA512, crypto.SHA512, "03", "40"),
	{"rsa-sha256", familyRSA, HashSHA256, crypto.SHA256, false, raw("300d06092a864886f70d01010b0500", "300b06092a864886f70d01010b")},
	{"rsa-sha384", familyRSA, HashSHA384, crypto.SHA384, false, raw("300d06092a864886f70d01010c0500", "300b06092a864886f70d01010c")},
	{"rsa-sha512", familyRSA, HashSHA512, crypto.SHA512, false, raw("300d06092a864886f70d01010d0500", "300b06092a864886f70d01010d")},
	{"ecdsa-sha256", familyECDSA, HashSHA256, crypto.SHA256, false, raw("300a06082a8648ce3d040302")},
	{"ecdsa-sha384", familyECDSA, HashSHA384, crypto.SHA384, false, raw("300a06082a8648ce3d040303")},
	{"ecdsa-sha512", familyECDSA, HashSHA512, crypto.SHA512, false, raw("300a06082a8648ce3d040304")},
	{"ed25519", familyEd25519, HashIdentity, 0, false, raw("300506032b6570")},
}

// pssScheme is RSASSA-PSS (RFC 7427 A.4): hash, mask generation by the same hash,
// and a salt as long as the hash, all of them explicit. Every other salt length is
// another encoding, and so is refused.
func pssScheme(hash HashAlgorithm, digest crypto.Hash, oid, salt string) scheme {
	s := scheme{name: "rsa-pss-" + hash.String(), family: familyRSA, hash: hash, digest: digest, pss: true}
	with, without := "300d06096086480165030402"+oid+"0500", "300b06096086480165030402"+oid
	for _, of := range [][2]string{{with, with}, {without, without}, {with, without}, {without, with}} {
		mask := element("30", "06092a864886f70d010108"+of[1])
		parameters := element("a0", of[0]) + element("a1", mask) + "a2030201" + salt
		s.encodings = append(s.encodings, raw(element("30", "06092a864886f70d01010a"+element("30", parameters)))...)
	}
	return s
}

// element is tag, length and content in hexadecimal, content below 128 bytes.
func element(tag, content string) string { return tag + fmt.Sprintf("%02x", len(content)/2) + content }

// raw turns hexadecimal constants into bytes.
func raw(texts ...string) []string {
	for i, text := range texts {
		b, err := hex.DecodeString(text)
		if err != nil || len(b) > 127 {
			panic("auth: a constant is wrong: " + text) //nolint:forbidigo // a programmer's mistake, at start
		}
		texts[i] = string(b)
	}
	return texts
}

// schemeOf finds the scheme whose encoding is exactly these bytes.
func schemeOf(algorithm []byte) (scheme, bool) {
	for _, s := range schemes {
		for _, e := range s.encodings {
			if e == string(algorithm) {
				return s, true
			}
		}
	}
	return scheme{}, false
}

// familyOf is what the key can do, or why it may not be used.
func familyOf(key crypto.PublicKey) (family, error) {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return familyRSA, checkRSA(key)
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return familyECDSA, nil
		}
		return 0, &Error{Reason: WeakKey, Text: "an ECDSA key on another curve than P-256, P-384 and P-521", Fix: "make a key on one of these"}
	case ed25519.PublicKey:
		if len(key) == ed25519.PublicKeySize {
			return familyEd25519, nil
		}
	}
	return 0, &Error{Reason: UnsupportedMethod, Text: "a key that is neither RSA, nor ECDSA, nor Ed25519", Fix: "make a key of one of these"}
}

// The bounds of RSA keys. Below 2048 bits they can be factored before long; small
// exponents are what forgeries against lenient parsers lived on; above 8192 bits
// one verification costs a stranger nothing and this end much.
const (
	minRSABits     = 2048
	maxRSABits     = 8192
	minRSAExponent = 65537
)

func checkRSA(key *rsa.PublicKey) error {
	switch bits := key.N.BitLen(); {
	case bits < minRSABits:
		return &Error{Reason: WeakKey, Text: fmt.Sprintf("an RSA key of %d bits", bits), Ours: fmt.Sprintf("at least %d", minRSABits), Fix: "make a key of 3072 bits, or an ECDSA one"}
	case bits > maxRSABits:
		return &Error{Reason: WeakKey, Text: fmt.Sprintf("an RSA key of %d bits", bits), Ours: fmt.Sprintf("at most %d", maxRSABits), Fix: "make a key of 3072 bits, or an ECDSA one"}
	case key.E < minRSAExponent:
		return &Error{Reason: WeakKey, Text: fmt.Sprintf("an RSA key with the exponent %d", key.E), Ours: fmt.Sprintf("at least %d", minRSAExponent), Fix: "make a key with the usual exponent, 65537"}
	}
	return nil
}

func hashNames(hashes []HashAlgorithm) string {
	names := make([]string, 0, len(hashes))
	for _, h := range hashes[:min(len(hashes), 16)] {
		names = append(names, h.String())
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
