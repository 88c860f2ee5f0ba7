package proposal

import (
	"reflect"
	"strings"
	"testing"

	ahsuite "github.com/adit-ipsec/adit/ah"
	espsuite "github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/ike/wire"
)

// mustParse reads a proposal, legacy allowed.
func mustParse(t testing.TB, protocol wire.ProtocolID, keyword string) Proposal {
	t.Helper()
	p, err := Parse(protocol, keyword, true)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestParseWritesWhatItReads(t *testing.T) {
	for _, c := range []struct {
		protocol  wire.ProtocolID
		in, short string
	}{
		{protoIKE, "aes128-sha256-modp2048", ""},
		{protoIKE, "aes256gcm16-prfsha384-x25519-ke1_mlkem768", ""},
		{protoIKE, "aes128gcm-curve25519", "aes128gcm16-prfsha256-x25519"},
		{protoIKE, "aes256gcm16-sha384-ecp384", "aes256gcm16-prfsha384-ecp384"},
		{protoIKE, "aes-sha2_256-prfsha512-x448", "aes128-sha256-prfsha512-x448"},
		{protoIKE, "modp2048-sha512-sha256-aes256-aes128", "aes256-aes128-sha512-sha256-modp2048"},
		{protoIKE, "aes128-sha256-sha512-prfsha512-prfsha256-ecp256", ""},
		{protoIKE, "chacha20poly1305-aes128ccm64-prfsha512-x25519-ke2_mlkem1024-ke2_none-ke1_ecp384", "chacha20poly1305-aes128ccm8-prfsha512-x25519-ke1_ecp384-ke2_mlkem1024-ke2_none"},
		{protoIKE, "aes128-sha1-modp2048", ""},
		{protoESP, "aes128gcm16-x25519-esn", ""},
		{protoESP, "aes128gcm16", "aes128gcm16-noesn"},
		{protoESP, "null-sha256-esn-noesn", ""},
		{protoESP, "aes256gmac-none-esn", ""},
		{protoESP, "aes128gcm16-mlkem768-noesn", ""},
		{protoAH, "aes128gmac-noesn", ""},
		{protoAH, "sha256-x25519-ke1_mlkem768-ke1_none-esn", ""},
	} {
		want := c.short
		if want == "" {
			want = c.in
		}
		p := mustParse(t, c.protocol, c.in)
		if got := p.String(); got != want {
			t.Errorf("%s: expected %s, saw %s", c.in, want, got)
		}
		if again := mustParse(t, c.protocol, p.String()); !reflect.DeepEqual(again, p) {
			t.Errorf("%s: read again it is %v, not %v", c.in, again, p)
		}
	}
}

func TestParseTransforms(t *testing.T) {
	got := mustParse(t, protoIKE, "x25519-aes256gcm16-ke3_mlkem768-prfsha384")
	want := []wire.Transform{
		{Type: wire.ENCR, ID: 20, KeyBits: 256}, {Type: wire.PRF, ID: 6}, {Type: wire.KEX, ID: 31}, {Type: wire.ADDKE3, ID: 36},
	}
	if !reflect.DeepEqual(got.Transforms, want) {
		t.Errorf("expected %v, saw %v", want, got.Transforms)
	}
}

// Each refusal says why, and what instead.
func TestParseRefusals(t *testing.T) {
	for _, c := range []struct {
		protocol  wire.ProtocolID
		in, wants string
	}{
		{protoIKE, "des-sha256-modp2048", `"des" is refused: RFC 8247 2.1`},
		{protoIKE, "3des-sha256-modp2048", "RFC 8221 5"},
		{protoIKE, "aes128-md5-modp2048", "RFC 8247 2.3"},
		{protoIKE, "aes128-sha256-prfmd5-modp2048", "RFC 8247 2.2"},
		{protoIKE, "aes128-sha256-modp768", "RFC 8247 2.4: group 1 MUST NOT"},
		{protoIKE, "aes128-sha256-modp1024", "RFC 8247 2.4: group 2 is SHOULD NOT"},
		{protoIKE, "aes128-sha256-modp1536", "RFC 8247 2.4: group 5 is SHOULD NOT"},
		{protoIKE, "aes128-sha256-modp1024s160", "RFC 8247 2.4: group 22 MUST NOT"},
		{protoIKE, "aes128-sha256-modp2048s256", "RFC 8247 2.4: group 24 is SHOULD NOT"},
		{protoIKE, "aes128-sha256-ecp192", "RFC 8247 2.4"},
		{protoIKE, "aes128-sha256-ecp256bp", "not in this gateway; use x25519"},
		{protoIKE, "aes128-aesxcbc-modp2048", "not in this gateway"},
		{protoIKE, "aes128-sha256-x25519-ke1_mlkem512", "use mlkem768"},
		{protoIKE, "aes128-sha256-mlkem768", "x25519-ke1_mlkem768 (RFC 9370)"},
		{protoIKE, "aes128-sha256-x25519-mlkem1024", "RFC 7383"},
		{protoIKE, "null-sha256-modp2048", `"null" is not for IKE`},
		{protoIKE, "aes128gmac-prfsha256-modp2048", "is not for IKE"},
		{protoIKE, "aes128-sha256-modp2048-esn", `"esn" is not for IKE`},
		{protoIKE, "aes128-sha256", "the key exchange is missing: add x25519"},
		{protoIKE, "aes128-sha256-none", "needs a key exchange (RFC 7296 3.3.3)"},
		{protoIKE, "aes128-modp2048", "integrity is missing: add sha256"},
		{protoIKE, "sha256-modp2048", "encryption is missing"},
		{protoIKE, "aes128-aes128gcm16-sha256-x25519", "need a proposal each (RFC 7296 3.3)"},
		{protoIKE, "aes128gcm16-sha256-prfsha256-x25519", "leave out sha256"},
		{protoIKE, "aes128-sha256-x25519-ke8_mlkem768", "ke1_ to ke7_ (RFC 9370 2.2.1)"},
		{protoIKE, "aes128-sha256-x25519-ke0_mlkem768", "ke1_ to ke7_"},
		{protoIKE, "aes128-sha256-x25519-ke1_aes128", "only a key exchange"},
		{protoIKE, "aes128-sha256-x25519-ke1_modp1024", "RFC 8247 2.4"},
		{protoIKE, "aes128-sha256-x25519-ke1_x25519", "each method once, as RFC 9370 2.2.1"},
		{protoIKE, "aes128-sha256-x25519-ke1_mlkem768-ke2_mlkem768", "RFC 9370 2.2.1"},
		{protoIKE, "aes128-aes128-sha256-x25519", `"aes128" is named twice`},
		{protoIKE, "aes128-aes-sha256-x25519", `"aes" is named twice`},
		{protoIKE, "aes128-sha265-x25519", "near ones: sha256"},
		{protoIKE, "", `unknown keyword ""`},
		{protoIKE, "aes128--x25519", `unknown keyword ""`},
		{protoIKE, "AES128-SHA256-X25519", `near ones: aes`},
		{protoESP, "aes128", "RFC 8221 4"},
		{protoESP, "sha256", "encryption is missing"},
		{protoESP, "null", "RFC 8221 4"},
		{protoESP, "aes128gcm16-sha256", "RFC 8221 4"},
		{protoESP, "aes128gcm16-prfsha256", `"prfsha256" is not for ESP`},
		{protoESP, "3des-sha256", "RFC 8221 5"},
		{protoESP, "aes128-md5", "RFC 8221 6"},
		{protoESP, "aes128gcm16-ke1_mlkem768", "there is none: add x25519"},
		{protoESP, "aes128gcm16-none-ke1_mlkem768", "RFC 9370 2.2.1"},
		{protoAH, "esn", "integrity is missing"},
		{protoAH, "aes128-sha256", `"aes128" is not for AH`},
		{protoAH, "md5", "RFC 8221 6"},
		{0, "aes128", "protocol 0"},
	} {
		_, err := Parse(c.protocol, c.in, true)
		if err == nil || !strings.Contains(err.Error(), c.wants) || !strings.HasPrefix(err.Error(), "proposal") {
			t.Errorf("%s: expected %q in the error, saw %v", c.in, c.wants, err)
		}
	}
}

func TestParseLegacyNeedsTheOperatorsWord(t *testing.T) {
	for _, c := range []struct {
		protocol wire.ProtocolID
		in       string
	}{
		{protoIKE, "aes128-sha1-modp2048"}, {protoIKE, "aes128-sha256-prfsha1-modp2048"}, {protoESP, "aes128-sha1"}, {protoAH, "sha1"},
	} {
		if _, err := Parse(c.protocol, c.in, true); err != nil {
			t.Errorf("%s: %v", c.in, err)
		}
		_, err := Parse(c.protocol, c.in, false)
		if err == nil || !strings.Contains(err.Error(), "allow_legacy: true") || !strings.Contains(err.Error(), "RFC 8247") {
			t.Errorf("%s: expected an error with allow_legacy and the RFC, saw %v", c.in, err)
		}
	}
}

func TestParseBoundsWhatItRepeats(t *testing.T) {
	_, err := Parse(protoIKE, strings.Repeat("x", 1<<20), false)
	if err == nil || len(err.Error()) > 1000 {
		t.Errorf("expected a short error, saw %d bytes", len(err.Error()))
	}
}

// RFC 8247 2, RFC 8221 5 and 6: nothing but MUST and SHOULD by default, and X25519.
func TestDefaultIsWhatTheRFCsRecommend(t *testing.T) {
	recommended := map[string]bool{
		"aes128": true, "aes256": true, "aes128gcm16": true, "aes256gcm16": true, "chacha20poly1305": true,
		"prfsha256": true, "prfsha512": true, "sha256": true, "sha512": true, "modp2048": true, "ecp256": true, "x25519": true,
		"esn": true, "noesn": true,
	}
	for _, p := range []wire.ProtocolID{protoIKE, protoAH, protoESP} {
		list := Default(p)
		if len(list) == 0 || len(list) != len(defaults[p]) {
			t.Errorf("%s: expected %d proposals by default, saw %d", protocolName(p), len(defaults[p]), len(list))
		}
		for _, proposal := range list {
			for _, tr := range proposal.Transforms {
				if !recommended[nameOf(p, tr)] {
					t.Errorf("%s by default: %s", protocolName(p), nameOf(p, tr))
				}
			}
			if again := mustParse(t, p, proposal.String()); !reflect.DeepEqual(again, proposal) {
				t.Errorf("%v is not what its keywords say", proposal)
			}
		}
	}
	if Default(9) != nil {
		t.Error("expected no default of a protocol that is none")
	}
}

// Every suite of the dataplane has transforms, and they lead back to it.
func TestSuitesAndTransforms(t *testing.T) {
	for _, esn := range []bool{false, true} {
		for _, s := range espsuite.Suites() {
			p := ESP([]espsuite.Suite{s}, esn, []KE{KEX25519})[0]
			c, err := Choose([]Proposal{p}, []wire.Proposal{p.Wire(1, []byte{1, 2, 3, 4})})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := c.Suite(); err != nil || got != s || c.ESN() != esn || c.KE() != KEX25519 {
				t.Errorf("%s: led to %v, ESN %t, %s, %v", s, got, c.ESN(), c.KE(), err)
			}
		}
		for _, s := range ahsuite.Suites() {
			p := AH([]ahsuite.Suite{s}, esn, nil)[0]
			c, err := Choose([]Proposal{p}, []wire.Proposal{p.Wire(1, []byte{1, 2, 3, 4})})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := c.AHSuite(); err != nil || got != s || c.ESN() != esn || c.KE() != KENone {
				t.Errorf("%s: led to %v, ESN %t, %s, %v", s, got, c.ESN(), c.KE(), err)
			}
		}
	}
	if s, err := (Choice{Transforms: []wire.Transform{{Type: wire.ENCR, ID: 3}}}).Suite(); err == nil {
		t.Errorf("3DES led to %s", s)
	}
	if s, err := (Choice{}).AHSuite(); err == nil {
		t.Errorf("nothing led to %s", s)
	}
}

func TestESPOffersBothSequenceNumbers(t *testing.T) {
	suites := []espsuite.Suite{mustSuite(t, "aes128gcm16"), mustSuite(t, "aes256-sha512")}
	got := ESP(suites, true, []KE{KEX25519, KEModp2048})
	if len(got) != 2 || got[0].String() != "aes128gcm16-x25519-modp2048-esn-noesn" || got[1].String() != "aes256-sha512-x25519-modp2048-esn-noesn" {
		t.Errorf("saw %v", got)
	}
	if got := ESP(suites[:1], false, nil); got[0].String() != "aes128gcm16-noesn" {
		t.Errorf("saw %v", got)
	}
	if got := ESP([]espsuite.Suite{0, 255}, false, nil); len(got) != 0 {
		t.Errorf("no suites: saw %v", got)
	}
	if got := WithoutKEs(got); got[0].String() != "aes128gcm16-esn-noesn" || got[1].String() != "aes256-sha512-esn-noesn" {
		t.Errorf("without key exchange: saw %v", got)
	}
}

func TestParseExchanges(t *testing.T) {
	exchanges, err := ParseExchanges("x25519-none-ke1_mlkem768-ke1_none")
	if err != nil {
		t.Fatal(err)
	}
	p := mustParse(t, protoESP, "aes128gcm16-ecp521-esn").WithExchanges(exchanges)
	if got := p.String(); got != "aes128gcm16-x25519-none-ke1_mlkem768-ke1_none-esn" {
		t.Errorf("saw %s", got)
	}
	if again := mustParse(t, protoESP, p.String()); !reflect.DeepEqual(again, p) {
		t.Errorf("read again it is %v, not %v", again, p)
	}
	for in, want := range map[string]string{
		"aes128": "is no key exchange", "modp1024": "RFC 8247 2.4", "x25519-x25519": "named twice", "x25519-ke1_x25519": "RFC 9370 2.2.1",
		"ke1_mlkem768": "there is none", "": "unknown keyword", "esn": "is no key exchange",
	} {
		if _, err := ParseExchanges(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: expected %q in the error, saw %v", in, want, err)
		}
	}
}

func mustSuite(t *testing.T, name string) espsuite.Suite {
	t.Helper()
	s, err := espsuite.ParseSuite(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestProposalAccessors(t *testing.T) {
	p := mustParse(t, protoIKE, "aes128-sha256-x25519-ecp256-ke1_mlkem768-ke1_none")
	if got := p.KEs(); !reflect.DeepEqual(got, []KE{KEX25519, KEECP256}) {
		t.Errorf("key exchanges: saw %v", got)
	}
	if !p.Additional() || mustParse(t, protoIKE, "aes128-sha256-x25519-ke1_none").Additional() {
		t.Error("additional key exchanges: NONE is none")
	}
	if got := p.WithoutKE().String(); got != "aes128-sha256" {
		t.Errorf("without key exchange: saw %s", got)
	}
	offer := Offer([]Proposal{p, p}, []byte{1})
	if len(offer) != 2 || offer[0].Number != 1 || offer[1].Number != 2 || offer[1].Protocol != protoIKE || len(offer[1].SPI) != 1 {
		t.Errorf("offer: saw %+v", offer)
	}
	if n := len(Offer(make([]Proposal, 300), nil)); n != 255 {
		t.Errorf("expected 255 numbers, saw %d", n)
	}
}
