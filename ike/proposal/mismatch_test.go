package proposal

import (
	"errors"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/ike/wire"
)

// The error names both lists and what would most nearly make them agree.
func TestMismatchNamesTheNearestFix(t *testing.T) {
	for _, c := range []struct {
		name         string
		protocol     wire.ProtocolID
		ours, theirs string
		fix          string
	}{
		{"one group", protoIKE, "aes128-sha256-modp2048", "aes128-sha256-x25519", "add x25519 to ours"},
		{"one cipher", protoIKE, "aes128-sha256-modp2048", "aes256-sha256-modp2048", "add aes256 to ours"},
		{"one PRF", protoIKE, "aes256gcm16-prfsha256-x25519", "aes256gcm16-prfsha384-x25519", "add prfsha384 to ours"},
		{"the pair with the fewest differences", protoIKE, "aes256gcm16-prfsha384-x448 aes128-sha256-modp2048", "aes256-sha512-ecp521 aes128-sha256-ecp256", "add ecp256 to ours"},
		{"a whole proposal", protoIKE, "aes128-sha256-modp2048", "aes256-sha512-modp2048", "add the proposal aes256-sha512-modp2048 to ours"},
		{"a combined mode", protoIKE, "aes128-sha256-modp2048", "aes256gcm16-prfsha384-x25519", "add the proposal aes256gcm16-prfsha384-x25519 to ours"},
		{"a combined mode, the rest alike", protoIKE, "aes128-sha256-x25519", "aes128gcm16-prfsha256-x25519", "add the proposal aes128gcm16-prfsha256-x25519 to ours"},
		{"no combined mode", protoIKE, "aes128gcm16-x25519", "aes128-sha256-x25519", "add the proposal aes128-sha256-x25519 to ours"},
		{"legacy takes the operator's word", protoIKE, "aes128-sha256-x25519", "aes128-sha1-prfsha256-x25519", "add sha1 (with allow_legacy: true; RFC 8247 2.3, RFC 8221 6: HMAC-SHA1-96 is MUST-, kept for old peers only) to ours"},
		{"an additional exchange that ours lacks", protoIKE, "aes128-sha256-x25519", "aes128-sha256-x25519-ke1_mlkem768", "add ke1_mlkem768 to ours"},
		{"an additional exchange that theirs lacks", protoIKE, "aes128-sha256-x25519-ke1_mlkem768", "aes128-sha256-x25519", "theirs has no ke1_: let the peer add ke1_mlkem768, or take it out of ours"},
		{"ESN", protoESP, "aes128gcm16-esn", "aes128gcm16-noesn", "add noesn to ours"},
		{"forward secrecy that ours lacks", protoESP, "aes128gcm16", "aes128gcm16-x25519", "add x25519 to ours"},
		{"forward secrecy that theirs lacks", protoESP, "aes128gcm16-x25519", "aes128gcm16", "theirs has no ke: let the peer add x25519, or take it out of ours"},
		{"a suite", protoESP, "aes128gcm16", "aes256gcm16", "add aes256gcm16 to ours"},
		{"AH", protoAH, "sha256", "sha512", "add sha512 to ours"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ours, theirs := list(t, c.protocol, c.ours), list(t, c.protocol, c.theirs)
			_, err := Choose(ours, Offer(theirs, spi))
			var m *Mismatch
			if !errors.As(err, &m) || m.Nearest != c.fix {
				t.Fatalf("expected %q, saw %v", c.fix, err)
			}
			for i, p := range ours {
				if !strings.Contains(m.Ours, p.String()) || !strings.Contains(m.Theirs, theirs[min(i, len(theirs)-1)].String()) {
					t.Errorf("a proposal is missing in %v", m)
				}
			}
		})
	}
}

func TestMismatchSaysWhyTheirsIsRefused(t *testing.T) {
	ours := list(t, protoIKE, "aes128-sha256-modp2048")
	for _, c := range []struct {
		name   string
		theirs []wire.Proposal
		wants  []string
	}{
		{"a weak group", ikeOffer(aes128, prf256, int256, wire.Transform{Type: wire.KEX, ID: 2}),
			[]string{"theirs aes128-sha256-modp1024;", "theirs has modp1024, which is refused (RFC 8247 2.4): let the peer add modp2048"}},
		{"nothing that is fit", ikeOffer(wire.Transform{Type: wire.ENCR, ID: 3}, wire.Transform{Type: wire.PRF, ID: 1}, wire.Transform{Type: wire.INTEG, ID: 1}, wire.Transform{Type: wire.KEX, ID: 2}),
			[]string{"theirs 3des-md5-prfmd5-modp1024;", "3des, which is refused (RFC 8221 5)", "let the peer propose aes128-sha256-modp2048"}},
		{"what nobody knows", ikeOffer(wire.Transform{Type: wire.ENCR, ID: 999, KeyBits: 128}, prf256, int256, wire.Transform{Type: wire.KEX, ID: 14}),
			[]string{"theirs encr-999/128-sha256-modp2048;", "encr-999/128, which is unknown here: let the peer add aes128"}},
		{"a type that nobody knows", ikeOffer(aes128, prf256, int256, wire.Transform{Type: wire.KEX, ID: 14}, wire.Transform{Type: 241, ID: 7}),
			[]string{"theirs has type241, which is not for IKE: let the peer propose aes128-sha256-modp2048"}},
		{"integrity is missing", ikeOffer(aes128, prf256, wire.Transform{Type: wire.KEX, ID: 14}),
			[]string{"theirs has no integ: let the peer add sha256"}},
		{"combined mode with integrity", ikeOffer(gcm128, prf256, int256, wire.Transform{Type: wire.KEX, ID: 14}),
			[]string{"let the peer propose aes128-sha256-modp2048"}},
		{"mixed", ikeOffer(aes128, gcm128, prf256, noInteg, wire.Transform{Type: wire.KEX, ID: 14}),
			[]string{"theirs aes128-aes128gcm16-nointeg-prfsha256-modp2048;", "let the peer"}},
		{"another protocol", []wire.Proposal{{Number: 1, Protocol: protoESP, SPI: spi, Transforms: []wire.Transform{gcm128}}},
			[]string{"theirs is ESP, ours is IKE"}},
		{"nothing", nil, []string{"theirs nothing;", "one end proposes nothing"}},
	} {
		_, err := Choose(ours, c.theirs)
		for _, want := range c.wants {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: expected %q, saw %v", c.name, want, err)
			}
		}
	}
}

// What a stranger offers does not fill the log.
func TestMismatchIsBounded(t *testing.T) {
	var theirs []wire.Proposal
	for i := range 64 {
		p := wire.Proposal{Number: uint8(i + 1), Protocol: protoIKE}
		for j := range 64 {
			p.Transforms = append(p.Transforms, wire.Transform{Type: wire.TransformType(j), ID: 65535, KeyBits: 65535, Unknown: true})
		}
		theirs = append(theirs, p)
	}
	if _, err := Choose(Default(protoIKE), theirs); len(err.Error()) > 3*maxText {
		t.Errorf("the error has %d bytes", len(err.Error()))
	}
}
