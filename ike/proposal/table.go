package proposal

import (
	"fmt"
	"slices"
	"strings"

	"github.com/adit-ipsec/adit/ike/wire"
)

// row is all that is known of one keyword.
type row struct {
	name    string
	aliases []string
	kind    wire.TransformType // typeKE stands for additional key exchanges too
	id      uint16
	bits    uint16
	in      protocols
	refuse  string // why it is never used, with the RFC
	legacy  string // why it needs the operator's word, with the RFC
}

// protocols is a set of what a keyword is for.
type protocols uint8

const (
	inIKE protocols = 1 << iota
	inAH
	inESP
)

func (s protocols) has(p wire.ProtocolID) bool {
	switch p {
	case protoIKE:
		return s&inIKE != 0
	case protoAH:
		return s&inAH != 0
	case protoESP:
		return s&inESP != 0
	}
	return false
}

// transform is the row's transform in a proposal.
func (r *row) transform() wire.Transform {
	return wire.Transform{Type: r.kind, ID: r.id, KeyBits: r.bits}
}

// rule is the RFC that a refusal names, or all of it.
func (r *row) rule() string {
	if rule, _, ok := strings.Cut(r.refuse, ": "); ok {
		return rule
	}
	rule, _, _ := strings.Cut(r.refuse, ";")
	return rule
}

// table holds every keyword. Rows with a refusal are there to be named: in the
// error that an operator reads, and in the log of what a peer offers.
var table = makeTable()

func makeTable() []row {
	var t []row
	t = appendEncryption(t)
	t = appendHashes(t)
	return appendExchanges(t)
}

const (
	useCipher = "; use aes128gcm16, or aes128-sha256"
	useGroup  = "; use x25519, ecp256 or modp2048"
)

func appendEncryption(t []row) []row {
	encr := func(name string, id Encr, bits int, in protocols, aliases ...string) {
		t = append(t, row{name: name, aliases: aliases, kind: typeEncr, id: uint16(id), bits: uint16(bits), in: in})
	}
	for _, bits := range []int{128, 192, 256} {
		var short []string
		if bits == 128 {
			short = []string{"aes"}
		}
		aes := fmt.Sprintf("aes%d", bits)
		encr(aes, EncrAESCBC, bits, inIKE|inESP, short...)
		encr(aes+"ctr", EncrAESCTR, bits, inIKE|inESP)
		encr(aes+"gcm16", EncrAESGCM16, bits, inIKE|inESP, aes+"gcm", aes+"gcm128")
		encr(aes+"gcm12", EncrAESGCM12, bits, inIKE|inESP, aes+"gcm96")
		encr(aes+"gcm8", EncrAESGCM8, bits, inIKE|inESP, aes+"gcm64")
		encr(aes+"ccm16", EncrAESCCM16, bits, inIKE|inESP, aes+"ccm", aes+"ccm128")
		encr(aes+"ccm12", EncrAESCCM12, bits, inIKE|inESP, aes+"ccm96")
		encr(aes+"ccm8", EncrAESCCM8, bits, inIKE|inESP, aes+"ccm64")
		encr(aes+"gmac", EncrAESGMAC, bits, inESP)
	}
	encr("chacha20poly1305", EncrChaCha20, 0, inIKE|inESP)
	encr("null", EncrNull, 0, inESP)
	refuse := func(name string, id, bits uint16, why string) {
		t = append(t, row{name: name, kind: typeEncr, id: id, bits: bits, refuse: why + useCipher})
	}
	refuse("des", 2, 0, "RFC 8247 2.1, RFC 8221 5: DES MUST NOT be used")
	refuse("3des", 3, 0, "RFC 8221 5: 3DES is SHOULD NOT, its 64-bit block leaks after little traffic")
	refuse("rc5", 4, 128, "RFC 9395 deprecates it")
	refuse("idea", 5, 0, "RFC 9395 deprecates it")
	refuse("cast128", 6, 128, "RFC 9395 deprecates it")
	refuse("blowfish128", 7, 128, "RFC 8221 5: Blowfish MUST NOT be used")
	return t
}

func appendHashes(t []row) []row {
	hash := func(name string, integ Integ, prf PRF) {
		alias := strings.Replace(name, "sha", "sha2_", 1)
		t = append(t,
			row{name: name, aliases: []string{alias}, kind: typeInteg, id: uint16(integ), in: inIKE | inAH | inESP},
			row{name: "prf" + name, kind: typePRF, id: uint16(prf), in: inIKE})
	}
	hash("sha256", IntegSHA256, PRFSHA256)
	hash("sha384", IntegSHA384, PRFSHA384)
	hash("sha512", IntegSHA512, PRFSHA512)
	t = append(t,
		row{name: "sha1", aliases: []string{"sha"}, kind: typeInteg, id: uint16(IntegSHA1), in: inIKE | inAH | inESP,
			legacy: "RFC 8247 2.3, RFC 8221 6: HMAC-SHA1-96 is MUST-, kept for old peers only"},
		row{name: "prfsha1", kind: typePRF, id: uint16(PRFSHA1), in: inIKE,
			legacy: "RFC 8247 2.2: PRF_HMAC_SHA1 is MUST-, kept for old peers only"})
	// AH names GMAC as integrity, without a key length (RFC 4543 5.2).
	for i, id := range []Integ{IntegGMAC128, IntegGMAC192, IntegGMAC256} {
		t = append(t, row{name: fmt.Sprintf("aes%dgmac", 128+64*i), kind: typeInteg, id: uint16(id), in: inAH})
	}
	refuse := func(kind wire.TransformType, name string, id uint16, why string) {
		t = append(t, row{name: name, kind: kind, id: id, refuse: why})
	}
	refuse(typeInteg, "md5", 1, "RFC 8247 2.3, RFC 8221 6: HMAC-MD5 MUST NOT be used; use sha256")
	refuse(typeInteg, "aesxcbc", 5, "AES-XCBC is not in this gateway (RFC 8247 2.3 wants it of small devices alone); use sha256")
	refuse(typeInteg, "aescmac", 8, "AES-CMAC is not in this gateway; use sha256")
	refuse(typePRF, "prfmd5", 1, "RFC 8247 2.2: PRF_HMAC_MD5 MUST NOT be used; use prfsha256")
	refuse(typePRF, "prfaesxcbc", 4, "AES-XCBC is not in this gateway (RFC 8247 2.2 wants it of small devices alone); use prfsha256")
	refuse(typePRF, "prfaescmac", 8, "AES-CMAC is not in this gateway; use prfsha256")
	return t
}

func appendExchanges(t []row) []row {
	ke := func(name string, id KE, aliases ...string) {
		t = append(t, row{name: name, aliases: aliases, kind: typeKE, id: uint16(id), in: inIKE | inAH | inESP})
	}
	ke("x25519", KEX25519, "curve25519")
	ke("ecp256", KEECP256)
	ke("ecp384", KEECP384)
	ke("ecp521", KEECP521)
	ke("x448", KEX448, "curve448")
	ke("modp2048", KEModp2048)
	ke("modp3072", KEModp3072)
	ke("modp4096", KEModp4096)
	ke("modp6144", KEModp6144)
	ke("modp8192", KEModp8192)
	ke("mlkem768", KEMLKEM768)
	ke("mlkem1024", KEMLKEM1024)
	ke("none", KENone, "modpnone")
	refuse := func(name string, id uint16, why string) {
		t = append(t, row{name: name, kind: typeKE, id: id, refuse: why + useGroup})
	}
	refuse("modp768", 1, "RFC 8247 2.4: group 1 MUST NOT be used")
	refuse("modp1024", 2, "RFC 8247 2.4: group 2 is SHOULD NOT, states can break it; less than 2048 bits is never used")
	refuse("modp1536", 5, "RFC 8247 2.4: group 5 is SHOULD NOT; less than 2048 bits is never used")
	refuse("modp1024s160", 22, "RFC 8247 2.4: group 22 MUST NOT be used")
	refuse("modp2048s224", 23, "RFC 8247 2.4: group 23 is SHOULD NOT, it has small subgroups")
	refuse("modp2048s256", 24, "RFC 8247 2.4: group 24 is SHOULD NOT, it has small subgroups")
	refuse("ecp192", 25, "a 192-bit curve is weaker than the 2048-bit groups of RFC 8247 2.4")
	refuse("ecp224", 26, "P-224 is not in this gateway")
	for i, name := range []string{"ecp224bp", "ecp256bp", "ecp384bp", "ecp512bp"} {
		refuse(name, uint16(27+i), "Brainpool curves are not in this gateway")
	}
	t = append(t, row{name: "mlkem512", kind: typeKE, id: 35,
		refuse: "ML-KEM-512 is not in this gateway; use mlkem768"})
	for id, name := range []string{"noesn", "esn"} {
		t = append(t, row{name: name, kind: typeESN, id: uint16(id), in: inAH | inESP})
	}
	return t
}

// byKeyword finds the row of a keyword or alias for a protocol; ok is false if
// there is none. A keyword of another protocol is found too, so that it can be
// said what is wrong with it.
func byKeyword(p wire.ProtocolID, keyword string) (*row, bool) {
	var other *row
	for i := range table {
		r := &table[i]
		if r.name != keyword && !slices.Contains(r.aliases, keyword) {
			continue
		}
		if r.in.has(p) || r.refuse != "" {
			return r, true
		}
		other = r
	}
	return other, other != nil
}

// byNumber finds the row of a transform; nil if nobody knows it.
func byNumber(p wire.ProtocolID, t wire.Transform) *row {
	kind := t.Type
	if additional(kind) {
		kind = typeKE // the same registry
	}
	var found *row
	for i := range table {
		r := &table[i]
		if r.kind != kind || r.id != t.ID || r.bits != t.KeyBits {
			continue
		}
		if found == nil || r.in.has(p) {
			found = r
		}
	}
	return found
}

func additional(t wire.TransformType) bool { return t >= typeAddKE1 && t <= typeAddKE7 }

// nameOf is the keyword of a transform, or its type and number where there is
// none: "encr-99". It ends in the log, also for what a stranger sent.
func nameOf(p wire.ProtocolID, t wire.Transform) string {
	if additional(t.Type) {
		prefix := typeName(t.Type)
		t.Type = typeKE
		return prefix + nameOf(p, t)
	}
	name := ""
	switch r := byNumber(p, t); {
	case r != nil:
		name = r.name
	case t.Type == typeInteg && t.ID == 0:
		name = "nointeg"
	case t.KeyBits != 0:
		name = fmt.Sprintf("%s-%d/%d", typeName(t.Type), t.ID, t.KeyBits)
	default:
		name = fmt.Sprintf("%s-%d", typeName(t.Type), t.ID)
	}
	if t.Unknown {
		name += "+unknown"
	}
	return name
}

func typeName(t wire.TransformType) string {
	switch {
	case t == typeEncr:
		return "encr"
	case t == typePRF:
		return "prf"
	case t == typeInteg:
		return "integ"
	case t == typeKE:
		return "ke"
	case additional(t):
		return fmt.Sprintf("ke%d_", t-typeAddKE1+1)
	case t == typeESN:
		return "esn"
	}
	return fmt.Sprintf("type%d", uint8(t))
}
