package proposal

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/ike/wire"
)

var spi = []byte{0, 0, 1, 1}

// list reads proposals, spaces between.
func list(t testing.TB, protocol wire.ProtocolID, keywords string) (all []Proposal) {
	t.Helper()
	for _, k := range strings.Fields(keywords) {
		all = append(all, mustParse(t, protocol, k))
	}
	return all
}

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		name               string
		protocol           wire.ProtocolID
		ours, theirs, want string // want "": no choice
		number             uint8
	}{
		{"the same", protoIKE, "aes128-sha256-x25519", "aes128-sha256-x25519", "aes128-sha256-x25519", 1},
		{"the order of theirs decides between proposals", protoIKE, "aes128-sha256-x25519 aes256-sha512-x448", "aes256-sha512-x448 aes128-sha256-x25519", "aes256-sha512-x448", 1},
		{"and inside one", protoIKE, "aes128-aes256-sha256-sha512-x25519-ecp256", "aes256-aes128-sha512-sha256-ecp256-x25519", "aes256-sha512-ecp256", 1},
		{"the second of theirs", protoIKE, "aes128gcm16-x25519", "aes128-sha256-x25519 aes128gcm16-x25519", "aes128gcm16-prfsha256-x25519", 2},
		{"a key length is part of the algorithm", protoIKE, "aes128-sha256-x25519", "aes256-sha256-x25519", "", 0},
		{"the PRF has to be common", protoIKE, "aes128-sha256-x25519", "aes128-sha256-prfsha512-x25519", "", 0},
		{"the integrity too", protoIKE, "aes128-sha256-x25519", "aes128-sha512-prfsha256-x25519", "", 0},
		{"the group too", protoIKE, "aes128-sha256-x25519", "aes128-sha256-ecp256", "", 0},
		{"combined and not", protoIKE, "aes128-sha256-x25519", "aes128gcm16-prfsha256-x25519", "", 0},

		{"additional exchange", protoIKE, "aes128-sha256-x25519-ke1_mlkem768", "aes128-sha256-x25519-ke1_mlkem1024-ke1_mlkem768", "aes128-sha256-x25519-ke1_mlkem768", 1},
		{"ours insists on it", protoIKE, "aes128-sha256-x25519-ke1_mlkem768", "aes128-sha256-x25519", "", 0},
		{"theirs insists on it", protoIKE, "aes128-sha256-x25519", "aes128-sha256-x25519-ke1_mlkem768", "", 0},
		{"ours does without", protoIKE, "aes128-sha256-x25519-ke1_mlkem768-ke1_none", "aes128-sha256-x25519", "aes128-sha256-x25519", 1},
		{"theirs does without", protoIKE, "aes128-sha256-x25519", "aes128-sha256-x25519-ke1_mlkem768-ke1_none", "aes128-sha256-x25519", 1},
		{"gaps are allowed", protoIKE, "aes128-sha256-x25519-ke5_mlkem768", "aes128-sha256-x25519-ke5_mlkem768", "aes128-sha256-x25519-ke5_mlkem768", 1},
		{"another round is another type", protoIKE, "aes128-sha256-x25519-ke2_mlkem768", "aes128-sha256-x25519-ke1_mlkem768", "", 0},
		{"no method twice: the second wish", protoIKE, "aes128-sha256-x25519-ecp256-ke1_x25519-ke1_ecp256", "aes128-sha256-x25519-ecp256-ke1_x25519-ke1_ecp256", "aes128-sha256-x25519-ke1_ecp256", 1},
		{"no method twice: going back", protoIKE, "aes128-sha256-x25519-ecp256-ke1_x25519", "aes128-sha256-x25519-ecp256-ke1_x25519", "aes128-sha256-ecp256-ke1_x25519", 1},
		{"no method twice: not at all", protoIKE, "aes128-sha256-x25519-ecp256-ke1_x25519", "aes128-sha256-x25519-ecp521-ke1_x25519", "", 0},

		{"ESP", protoESP, "aes128gcm16 aes128-sha256", "aes128-sha256", "aes128-sha256-noesn", 1},
		{"ESN: ours decides the order", protoESP, "aes128gcm16-esn-noesn", "aes128gcm16-noesn-esn", "aes128gcm16-esn", 1},
		{"ESN: what both have", protoESP, "aes128gcm16-esn-noesn", "aes128gcm16-noesn", "aes128gcm16-noesn", 1},
		{"ESN: nothing in common", protoESP, "aes128gcm16-esn", "aes128gcm16-noesn", "", 0},
		{"forward secrecy", protoESP, "aes128gcm16-x25519-ecp256", "aes128gcm16-ecp256", "aes128gcm16-ecp256-noesn", 1},
		{"ours insists on it", protoESP, "aes128gcm16-x25519", "aes128gcm16", "", 0},
		{"theirs insists on it", protoESP, "aes128gcm16", "aes128gcm16-x25519", "", 0},
		{"NONE is absence: theirs", protoESP, "aes128gcm16", "aes128gcm16-x25519-none", "aes128gcm16-noesn", 1},
		{"NONE is absence: ours", protoESP, "aes128gcm16-x25519-none", "aes128gcm16", "aes128gcm16-noesn", 1},
		{"NONE and an additional exchange", protoESP, "aes128gcm16-none-x25519-ke1_mlkem768", "aes128gcm16-none-x25519-ke1_mlkem768", "aes128gcm16-x25519-ke1_mlkem768-noesn", 1},
		{"AH", protoAH, "sha512 sha256-esn", "sha256-esn", "sha256-esn", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			theirs := Offer(list(t, c.protocol, c.theirs), spi)
			got, err := Choose(list(t, c.protocol, c.ours), theirs)
			if c.want == "" {
				var m *Mismatch
				if !errors.As(err, &m) || m.Theirs == "" || m.Ours == "" || m.Nearest == "" {
					t.Errorf("expected a mismatch, saw %s, %v", got.Keyword(), err)
				}
				return
			}
			if err != nil || got.Keyword() != c.want || got.Number != c.number || got.Protocol != c.protocol {
				t.Fatalf("expected %s of proposal %d, saw %s of %d, %v", c.want, c.number, got.Keyword(), got.Number, err)
			}
			// The initiator takes what the responder chose.
			again, err := Accept(theirs, got.Wire())
			if err != nil || !reflect.DeepEqual(again, got) {
				t.Errorf("accepted %+v, %v; chosen %+v", again, err, got)
			}
		})
	}
}

// ikeOffer is one IKE proposal of theirs, as the wire has it.
func ikeOffer(transforms ...wire.Transform) []wire.Proposal {
	return []wire.Proposal{{Number: 1, Protocol: protoIKE, Transforms: transforms}}
}

var (
	aes128  = wire.Transform{Type: wire.ENCR, ID: 12, KeyBits: 128}
	gcm128  = wire.Transform{Type: wire.ENCR, ID: 20, KeyBits: 128}
	prf256  = wire.Transform{Type: wire.PRF, ID: 5}
	int256  = wire.Transform{Type: wire.INTEG, ID: 12}
	noInteg = wire.Transform{Type: wire.INTEG}
	x25519  = wire.Transform{Type: wire.KEX, ID: 31}
)

func unknown(t wire.Transform) wire.Transform {
	t.Unknown = true
	return t
}

func TestRFC7296_3_3_6_WhatIsNotUnderstood(t *testing.T) {
	ours := list(t, protoIKE, "aes128gcm16-aes256gcm16-prfsha256-x25519 aes128-sha256-x25519")
	for _, c := range []struct {
		name   string
		theirs []wire.Proposal
		want   string
	}{
		{"a transform with an unknown attribute is skipped", ikeOffer(unknown(aes128), aes128, prf256, int256, x25519), "aes128-sha256-x25519"},
		{"and is never chosen", ikeOffer(unknown(aes128), prf256, int256, x25519), ""},
		{"an unknown transform is skipped", ikeOffer(wire.Transform{Type: wire.ENCR, ID: 4711}, aes128, prf256, int256, wire.Transform{Type: wire.KEX, ID: 1000}, x25519), "aes128-sha256-x25519"},
		{"an unknown type spoils its proposal", ikeOffer(aes128, prf256, int256, x25519, wire.Transform{Type: 241, ID: 1}), ""},
		{"type 0 too", ikeOffer(aes128, prf256, int256, x25519, wire.Transform{}), ""},
		{"a type of another protocol too", ikeOffer(aes128, prf256, int256, x25519, wire.Transform{Type: wire.ESN}), ""},
		{"others are processed as usual", append(ikeOffer(aes128, prf256, int256, x25519, wire.Transform{Type: 241, ID: 1}),
			wire.Proposal{Number: 2, Protocol: protoIKE, Transforms: []wire.Transform{gcm128, prf256, x25519}}), "aes128gcm16-prfsha256-x25519"},
		{"a missing mandatory type: encryption", ikeOffer(prf256, int256, x25519), ""},
		{"a missing mandatory type: PRF", ikeOffer(aes128, int256, x25519), ""},
		{"a missing mandatory type: integrity", ikeOffer(aes128, prf256, x25519), ""},
		{"a missing mandatory type: key exchange", ikeOffer(aes128, prf256, int256), ""},
		{"AES without a key length", ikeOffer(wire.Transform{Type: wire.ENCR, ID: 12}, prf256, int256, x25519), ""},
		{"a key length where there is none", ikeOffer(aes128, prf256, wire.Transform{Type: wire.INTEG, ID: 12, KeyBits: 256}, x25519), ""},
		{"another protocol", []wire.Proposal{{Number: 1, Protocol: protoESP, SPI: spi, Transforms: []wire.Transform{aes128, int256}}}, ""},
		{"nothing", nil, ""},
		{"no transforms", ikeOffer(), ""},
	} {
		got, err := Choose(ours, c.theirs)
		if (err == nil) != (c.want != "") || err == nil && got.Keyword() != c.want {
			t.Errorf("%s: expected %q, saw %s, %v", c.name, c.want, got.Keyword(), err)
		}
	}
}

// RFC 7296 3.3: "Combined-mode ciphers [...] MUST either offer no integrity
// algorithm or a single integrity algorithm of 'NONE'".
func TestRFC7296_3_3_CombinedModesAndOthersNeverMix(t *testing.T) {
	ours := list(t, protoIKE, "aes128gcm16-x25519 aes128-sha256-x25519")
	for _, c := range []struct {
		name   string
		theirs []wire.Proposal
		want   []wire.Transform
	}{
		{"no integrity", ikeOffer(gcm128, prf256, x25519), []wire.Transform{gcm128, prf256, x25519}},
		{"NONE is answered with NONE", ikeOffer(gcm128, prf256, noInteg, x25519), []wire.Transform{gcm128, prf256, noInteg, x25519}},
		{"with integrity it is not taken", ikeOffer(gcm128, prf256, int256, x25519), nil},
		{"nor with both", ikeOffer(gcm128, prf256, noInteg, int256, x25519), nil},
		{"nor with an integrity that is unknown", ikeOffer(gcm128, prf256, wire.Transform{Type: wire.INTEG, ID: 999}, x25519), nil},
		{"of both, with integrity, the other is taken", ikeOffer(gcm128, aes128, prf256, int256, x25519), []wire.Transform{aes128, prf256, int256, x25519}},
		{"of both, without, the combined one", ikeOffer(aes128, gcm128, prf256, x25519), []wire.Transform{gcm128, prf256, x25519}},
		{"NONE is no integrity of the other", ikeOffer(aes128, prf256, noInteg, x25519), nil},
	} {
		got, err := Choose(ours, c.theirs)
		if !reflect.DeepEqual(got.Transforms, c.want) || (err == nil) != (c.want != nil) {
			t.Errorf("%s: expected %v, saw %v, %v", c.name, c.want, got.Transforms, err)
		}
	}
}

func TestChooseKeepsNothingOfTheMessage(t *testing.T) {
	ours := list(t, protoESP, "aes128gcm16")
	theirs := Offer(ours, slices.Clone(spi))
	c, err := Choose(ours, theirs)
	if err != nil {
		t.Fatal(err)
	}
	a, err := Accept(theirs, theirs[0])
	if err != nil {
		t.Fatal(err)
	}
	theirs[0].SPI[0], theirs[0].Transforms[0].ID = 99, 99
	if c.SPI[0] == 99 || a.SPI[0] == 99 || c.Transforms[0].ID == 99 || a.Transforms[0].ID == 99 {
		t.Error("the choice changed with the message")
	}
	answer := c.Wire()
	answer.Transforms[0].ID = 99
	if c.Transforms[0].ID == 99 {
		t.Error("the choice changed with the answer")
	}
}

// A hostile list of key exchanges ends in bounded time: eight rounds in which the
// only way out of many is the last.
func TestChooseIsBounded(t *testing.T) {
	groups := "x25519-ecp256-ecp384-ecp521-x448-modp2048-modp3072"
	keyword := "aes128-sha256-" + groups
	for _, round := range []string{"1", "2", "3", "4", "5", "6", "7"} {
		for _, g := range strings.Split(groups, "-") {
			keyword += "-ke" + round + "_" + g
		}
	}
	// Eight rounds, seven methods: there is no choice. Parse finds out as well.
	p := Proposal{Protocol: protoIKE}
	for _, word := range strings.Split(keyword, "-") {
		tr, err := parseWord(protoIKE, word, false)
		if err != nil {
			t.Fatal(err)
		}
		p.Transforms = append(p.Transforms, tr)
	}
	p.Transforms = append(p.Transforms, prf256)
	if _, err := Choose([]Proposal{p}, []wire.Proposal{p.Wire(1, nil)}); err == nil {
		t.Error("a method was chosen twice")
	}
}

func TestChoiceAccessors(t *testing.T) {
	p := mustParse(t, protoIKE, "aes256-sha384-ecp384-ke1_mlkem768-ke7_x448")
	c, err := Choose([]Proposal{p}, []wire.Proposal{p.Wire(3, nil)})
	if err != nil {
		t.Fatal(err)
	}
	if e, bits := c.Encr(); e != EncrAESCBC || bits != 256 {
		t.Errorf("encryption: saw %s, %d", e, bits)
	}
	if c.PRF() != PRFSHA384 || c.Integ() != IntegSHA384 || c.KE() != KEECP384 || c.ESN() || c.Number != 3 {
		t.Errorf("saw %s %s %s", c.PRF(), c.Integ(), c.KE())
	}
	if c.AKE(1) != KEMLKEM768 || c.AKE(2) != KENone || c.AKE(7) != KEX448 || c.AKE(0) != KENone || c.AKE(8) != KENone {
		t.Error("additional key exchanges")
	}
	if got := c.AKEs(); !reflect.DeepEqual(got, []KE{KEMLKEM768, KEX448}) {
		t.Errorf("additional key exchanges: saw %v", got)
	}
	p = mustParse(t, protoIKE, "chacha20poly1305-x25519")
	c, err = Choose([]Proposal{p}, []wire.Proposal{p.Wire(1, nil)})
	if err != nil {
		t.Fatal(err)
	}
	if e, bits := c.Encr(); e != EncrChaCha20 || bits != 256 || c.Integ() != IntegNone {
		t.Errorf("ChaCha20: saw %s, %d", e, bits)
	}
}
