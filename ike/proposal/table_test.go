package proposal

import (
	"fmt"
	"slices"
	"testing"

	"github.com/adit-ipsec/adit/ike/wire"
)

// The numbers of IANA's registry "Internet Key Exchange Version 2 (IKEv2)
// Parameters", written once more and apart from the table: type, number, key bits.
var registry = map[string][3]int{
	"prfsha1": {2, 2, 0}, "prfsha256": {2, 5, 0}, "prfsha384": {2, 6, 0}, "prfsha512": {2, 7, 0},
	"sha1": {3, 2, 0}, "sha256": {3, 12, 0}, "sha384": {3, 13, 0}, "sha512": {3, 14, 0},
	"none": {4, 0, 0}, "modp2048": {4, 14, 0}, "modp3072": {4, 15, 0}, "modp4096": {4, 16, 0}, "modp6144": {4, 17, 0}, "modp8192": {4, 18, 0},
	"ecp256": {4, 19, 0}, "ecp384": {4, 20, 0}, "ecp521": {4, 21, 0}, "x25519": {4, 31, 0}, "x448": {4, 32, 0},
	"mlkem768": {4, 36, 0}, "mlkem1024": {4, 37, 0},
	"noesn": {5, 0, 0}, "esn": {5, 1, 0},
	"null": {1, 11, 0}, "chacha20poly1305": {1, 28, 0},
}

// gmac is ENCR_NULL_AUTH_AES_GMAC in ESP, and AUTH_AES_*_GMAC in AH.
var gmac = map[string][2][3]int{
	"aes128gmac": {{1, 21, 128}, {3, 9, 0}}, "aes192gmac": {{1, 21, 192}, {3, 10, 0}}, "aes256gmac": {{1, 21, 256}, {3, 11, 0}},
}

func init() {
	for _, bits := range []int{128, 192, 256} {
		for suffix, id := range map[string]int{
			"": 12, "ctr": 13, "ccm8": 14, "ccm12": 15, "ccm16": 16, "gcm8": 18, "gcm12": 19, "gcm16": 20,
		} {
			registry[fmt.Sprintf("aes%d%s", bits, suffix)] = [3]int{1, id, bits}
		}
	}
}

func TestKeywordsAreTheNumbersOfIANA(t *testing.T) {
	known := map[string]bool{}
	for _, r := range table {
		if r.refuse != "" {
			continue
		}
		known[r.name] = true
		want, ok := registry[r.name]
		if numbers := gmac[r.name]; r.in == inAH {
			want, ok = numbers[1], true
		} else if r.in == inESP && !ok {
			want, ok = numbers[0], true
		}
		if got := [3]int{int(r.kind), int(r.id), int(r.bits)}; !ok || got != want {
			t.Errorf("%s: expected type, number, bits %v, saw %v", r.name, want, got)
		}
	}
	for name := range registry {
		if !known[name] {
			t.Errorf("%s is not in the table", name)
		}
	}
}

// What is refused has its number too: it is how the log names what a peer offers.
func TestRefusedKeywordsAreTheNumbersOfIANA(t *testing.T) {
	for name, want := range map[string]wire.Transform{
		"des": {Type: 1, ID: 2}, "3des": {Type: 1, ID: 3}, "idea": {Type: 1, ID: 5}, "cast128": {Type: 1, ID: 6, KeyBits: 128}, "blowfish128": {Type: 1, ID: 7, KeyBits: 128},
		"md5": {Type: 3, ID: 1}, "aesxcbc": {Type: 3, ID: 5}, "aescmac": {Type: 3, ID: 8},
		"prfmd5": {Type: 2, ID: 1}, "prfaesxcbc": {Type: 2, ID: 4}, "prfaescmac": {Type: 2, ID: 8},
		"modp768": {Type: 4, ID: 1}, "modp1024": {Type: 4, ID: 2}, "modp1536": {Type: 4, ID: 5},
		"modp1024s160": {Type: 4, ID: 22}, "modp2048s224": {Type: 4, ID: 23}, "modp2048s256": {Type: 4, ID: 24},
		"ecp192": {Type: 4, ID: 25}, "ecp224": {Type: 4, ID: 26}, "ecp224bp": {Type: 4, ID: 27}, "ecp256bp": {Type: 4, ID: 28},
		"ecp384bp": {Type: 4, ID: 29}, "ecp512bp": {Type: 4, ID: 30}, "mlkem512": {Type: 4, ID: 35},
	} {
		if got := nameOf(protoIKE, want); got != name {
			t.Errorf("%+v: expected %s, saw %s", want, name, got)
		}
	}
}

// A keyword means one thing in a protocol, and a number has one keyword.
func TestTableIsUnambiguous(t *testing.T) {
	for _, p := range []wire.ProtocolID{protoIKE, protoAH, protoESP} {
		names, numbers := map[string]bool{}, map[wire.Transform]string{}
		for _, r := range table {
			if !r.in.has(p) {
				continue
			}
			for _, name := range append(slices.Clone(r.aliases), r.name) {
				if names[name] {
					t.Errorf("%s: two rows are called %s", protocolName(p), name)
				}
				names[name] = true
			}
			if other, twice := numbers[r.transform()]; twice {
				t.Errorf("%s: %s and %s have one number", protocolName(p), other, r.name)
			}
			numbers[r.transform()] = r.name
			if got := nameOf(p, r.transform()); got != r.name {
				t.Errorf("%s: the number of %s is called %s", protocolName(p), r.name, got)
			}
		}
	}
}

func TestKeywordsOfAlgorithms(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{EncrAESGCM16.Keyword(256), "aes256gcm16"}, {EncrAESCBC.Keyword(128), "aes128"}, {EncrChaCha20.Keyword(0), "chacha20poly1305"},
		{EncrAESGCM16.String(), "aesgcm16"}, {Encr(99).String(), "encr-99"}, {Encr(99).Keyword(128), "encr-99/128"},
		{PRFSHA384.String(), "prfsha384"}, {PRF(99).String(), "prf-99"},
		{IntegSHA512.String(), "sha512"}, {IntegNone.String(), "nointeg"}, {IntegGMAC192.String(), "aes192gmac"}, {Integ(99).String(), "integ-99"},
		{KEX25519.String(), "x25519"}, {KEMLKEM1024.String(), "mlkem1024"}, {KENone.String(), "none"}, {KE(2).String(), "modp1024"}, {KE(4711).String(), "ke-4711"},
	} {
		if c.got != c.want {
			t.Errorf("expected %s, saw %s", c.want, c.got)
		}
	}
	for _, e := range []Encr{EncrAESCBC, EncrAESCTR, EncrNull, 99} {
		if e.Combined() {
			t.Errorf("%s is no combined mode", e)
		}
	}
}

func TestNamesOfTransformsThatNobodyKnows(t *testing.T) {
	for want, tr := range map[string]wire.Transform{
		"encr-99/64":        {Type: 1, ID: 99, KeyBits: 64},
		"aes128+unknown":    {Type: 1, ID: 12, KeyBits: 128, Unknown: true},
		"encr-12":           {Type: 1, ID: 12}, // AES without a key length is no AES
		"ke7_x25519":        {Type: 12, ID: 31},
		"ke1_ke-99":         {Type: 6, ID: 99},
		"type241-1":         {Type: 241, ID: 1},
		"esn-2":             {Type: 5, ID: 2},
		"nointeg":           {Type: 3},
		"chacha20poly1305":  {Type: 1, ID: 28},
		"encr-28/256":       {Type: 1, ID: 28, KeyBits: 256}, // RFC 7634 4: no key length
		"integ-65535/65535": {Type: 3, ID: 65535, KeyBits: 65535},
	} {
		if got := nameOf(protoIKE, tr); got != want {
			t.Errorf("%+v: expected %s, saw %s", tr, want, got)
		}
	}
}
