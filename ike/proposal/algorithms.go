package proposal

import (
	"fmt"

	"github.com/adit-ipsec/adit/ike/wire"
)

// The algorithms of the transform types, by their IANA numbers ("IKEv2
// Parameters", Transform Type Values 1 to 4).
type (
	Encr  uint16 // transform type 1; the key length is apart
	PRF   uint16 // transform type 2
	Integ uint16 // transform type 3
	KE    uint16 // transform type 4, and 6 to 12 for additional key exchanges
)

// Encryption.
const (
	EncrNull     Encr = 11 // RFC 2410
	EncrAESCBC   Encr = 12 // RFC 3602
	EncrAESCTR   Encr = 13 // RFC 3686, 5930
	EncrAESCCM8  Encr = 14 // RFC 4309, 5282
	EncrAESCCM12 Encr = 15
	EncrAESCCM16 Encr = 16
	EncrAESGCM8  Encr = 18 // RFC 4106, 5282
	EncrAESGCM12 Encr = 19
	EncrAESGCM16 Encr = 20
	EncrAESGMAC  Encr = 21 // ENCR_NULL_AUTH_AES_GMAC, RFC 4543
	EncrChaCha20 Encr = 28 // with Poly1305, RFC 7634
)

// Pseudorandom functions.
const (
	PRFSHA1   PRF = 2 // RFC 2104
	PRFSHA256 PRF = 5 // RFC 4868
	PRFSHA384 PRF = 6
	PRFSHA512 PRF = 7
)

// Integrity.
const (
	IntegNone    Integ = 0
	IntegSHA1    Integ = 2 // HMAC-SHA1-96, RFC 2404
	IntegGMAC128 Integ = 9 // of AH, RFC 4543
	IntegGMAC192 Integ = 10
	IntegGMAC256 Integ = 11
	IntegSHA256  Integ = 12 // HMAC-SHA2-256-128, RFC 4868
	IntegSHA384  Integ = 13 // HMAC-SHA2-384-192
	IntegSHA512  Integ = 14 // HMAC-SHA2-512-256
)

// Key exchange methods.
const (
	KENone      KE = 0
	KEModp2048  KE = 14 // RFC 3526
	KEModp3072  KE = 15
	KEModp4096  KE = 16
	KEModp6144  KE = 17
	KEModp8192  KE = 18
	KEECP256    KE = 19 // RFC 5903
	KEECP384    KE = 20
	KEECP521    KE = 21
	KEX25519    KE = 31 // RFC 8031
	KEX448      KE = 32
	KEMLKEM768  KE = 36 // draft-ietf-ipsecme-ikev2-mlkem
	KEMLKEM1024 KE = 37
)

// Short names of the wire's numbers.
const (
	protoIKE = wire.ProtocolIKE
	protoAH  = wire.ProtocolAH
	protoESP = wire.ProtocolESP

	typeEncr   = wire.ENCR
	typePRF    = wire.PRF
	typeInteg  = wire.INTEG
	typeKE     = wire.KEX
	typeESN    = wire.ESN
	typeAddKE1 = wire.ADDKE1
	typeAddKE7 = wire.ADDKE7
)

// String is the family's keyword, without the key length: "aesgcm16".
func (e Encr) String() string {
	if name, ok := encrFamilies[e]; ok {
		return name
	}
	return fmt.Sprintf("encr-%d", uint16(e))
}

var encrFamilies = map[Encr]string{
	EncrNull: "null", EncrAESCBC: "aes", EncrAESCTR: "aesctr",
	EncrAESCCM8: "aesccm8", EncrAESCCM12: "aesccm12", EncrAESCCM16: "aesccm16",
	EncrAESGCM8: "aesgcm8", EncrAESGCM12: "aesgcm12", EncrAESGCM16: "aesgcm16",
	EncrAESGMAC: "aesgmac", EncrChaCha20: "chacha20poly1305",
}

// Keyword is the proposal keyword with a key of that many bits: "aes128gcm16".
// Algorithms of one key length take 0.
func (e Encr) Keyword(bits int) string {
	return nameOf(0, wire.Transform{Type: typeEncr, ID: uint16(e), KeyBits: uint16(bits)})
}

// Combined tells whether e is a combined mode, which has its integrity in itself
// (RFC 7296 3.3.3, RFC 5282).
func (e Encr) Combined() bool {
	switch e {
	case EncrAESCCM8, EncrAESCCM12, EncrAESCCM16, EncrAESGCM8, EncrAESGCM12, EncrAESGCM16, EncrAESGMAC, EncrChaCha20:
		return true
	}
	return false
}

// String is the proposal keyword: "prfsha256".
func (p PRF) String() string { return nameOf(0, wire.Transform{Type: typePRF, ID: uint16(p)}) }

// String is the proposal keyword: "sha256".
func (i Integ) String() string { return nameOf(0, wire.Transform{Type: typeInteg, ID: uint16(i)}) }

// String is the proposal keyword: "x25519".
func (k KE) String() string { return nameOf(0, wire.Transform{Type: typeKE, ID: uint16(k)}) }
