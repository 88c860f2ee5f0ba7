package proposal

import (
	"errors"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/ike/wire"
)

// RFC 7296 3.3.6: "The initiator of an exchange MUST check that the accepted offer
// is consistent with one of its proposals, and if not MUST terminate the exchange."
func TestRFC7296_3_3_6_AcceptTakesNothingThatWasNotOffered(t *testing.T) {
	offered := append(Offer(list(t, protoIKE, "aes128-aes256-sha256-x25519-ecp256-ke1_mlkem768-ke1_none aes128gcm16-x25519"), nil),
		Offer(list(t, protoESP, "aes128gcm16-x25519-esn-noesn"), spi)...)
	mlkem := wire.Transform{Type: wire.ADDKE1, ID: 36}
	esn := wire.Transform{Type: wire.ESN, ID: 1}
	for _, c := range []struct {
		name   string
		answer wire.Proposal
		wants  string // in the error; "": accepted
	}{
		{"all of it", wire.Proposal{Number: 1, Protocol: protoIKE, Transforms: []wire.Transform{aes128, prf256, int256, x25519, mlkem}}, ""},
		{"in any order", wire.Proposal{Number: 1, Protocol: protoIKE, Transforms: []wire.Transform{mlkem, x25519, int256, prf256, aes128}}, ""},
		{"NONE", wire.Proposal{Number: 1, Protocol: protoIKE, Transforms: []wire.Transform{aes128, prf256, int256, x25519, {Type: wire.ADDKE1}}}, ""},
		{"NONE left out", wire.Proposal{Number: 1, Protocol: protoIKE, Transforms: []wire.Transform{aes128, prf256, int256, x25519}}, ""},
		{"NONE for what was not offered", wire.Proposal{Number: 2, Protocol: protoIKE, Transforms: []wire.Transform{gcm128, prf256, noInteg, x25519, {Type: wire.ADDKE2}}}, ""},
		{"ESP", wire.Proposal{Number: 1, Protocol: protoESP, Transforms: []wire.Transform{gcm128, x25519, esn}}, ""},

		{"a number that was not offered", wire.Proposal{Number: 3, Protocol: protoIKE, Transforms: []wire.Transform{gcm128, prf256, x25519}}, "a number that was not offered"},
		{"another protocol", wire.Proposal{Number: 1, Protocol: protoAH, Transforms: []wire.Transform{int256, esn}}, "a number that was not offered"},
		{"the transforms of another proposal", wire.Proposal{Number: 1, Protocol: protoIKE, Transforms: []wire.Transform{gcm128, prf256, x25519}}, "aes128gcm16, which was not offered"},
		{"a weaker group", wire.Proposal{Number: 1, Protocol: protoIKE, Transforms: []wire.Transform{aes128, prf256, int256, {Type: wire.KEX, ID: 2}}}, "modp1024, which was not offered"},
		{"another key length", wire.Proposal{Number: 1, Protocol: protoIKE, Transforms: []wire.Transform{{Type: wire.ENCR, ID: 12, KeyBits: 192}, prf256, int256, x25519}}, "aes192, which was not offered"},
		{"the key length left out", wire.Proposal{Number: 1, Protocol: protoIKE, Transforms: []wire.Transform{{Type: wire.ENCR, ID: 12}, prf256, int256, x25519}}, "not offered"},
		{"an attribute more", wire.Proposal{Number: 1, Protocol: protoIKE, Transforms: []wire.Transform{unknown(aes128), prf256, int256, x25519}}, "not offered"},
		{"an attribute more on NONE", wire.Proposal{Number: 1, Protocol: protoIKE, Transforms: []wire.Transform{aes128, prf256, int256, x25519, unknown(wire.Transform{Type: wire.ADDKE1})}}, "not offered"},
		{"two of a type", wire.Proposal{Number: 1, Protocol: protoIKE, Transforms: []wire.Transform{aes128, {Type: wire.ENCR, ID: 12, KeyBits: 256}, prf256, int256, x25519}}, "more than one encr"},
		{"one twice", wire.Proposal{Number: 1, Protocol: protoIKE, Transforms: []wire.Transform{aes128, prf256, prf256, int256, x25519}}, "more than one prf"},
		{"encryption left out", wire.Proposal{Number: 1, Protocol: protoIKE, Transforms: []wire.Transform{prf256, int256, x25519}}, "no encr"},
		{"integrity left out", wire.Proposal{Number: 1, Protocol: protoIKE, Transforms: []wire.Transform{aes128, prf256, x25519}}, "no integ"},
		{"integrity NONE where some was offered", wire.Proposal{Number: 1, Protocol: protoIKE, Transforms: []wire.Transform{aes128, prf256, noInteg, x25519}}, "not offered"},
		{"the key exchange left out", wire.Proposal{Number: 1, Protocol: protoIKE, Transforms: []wire.Transform{aes128, prf256, int256}}, "no ke"},
		{"forward secrecy left out", wire.Proposal{Number: 1, Protocol: protoESP, Transforms: []wire.Transform{gcm128, esn}}, "no ke"},
		{"forward secrecy NONE", wire.Proposal{Number: 1, Protocol: protoESP, Transforms: []wire.Transform{gcm128, {Type: wire.KEX}, esn}}, "not offered"},
		{"ESN left out", wire.Proposal{Number: 1, Protocol: protoESP, Transforms: []wire.Transform{gcm128, x25519}}, "no esn"},
		{"a type that was not offered", wire.Proposal{Number: 2, Protocol: protoIKE, Transforms: []wire.Transform{gcm128, prf256, x25519, {Type: 241, ID: 0}}}, "type241-0, which was not offered"},
		{"nothing", wire.Proposal{Number: 1, Protocol: protoIKE}, "no encr"},
	} {
		got, err := Accept(offered, c.answer)
		if c.wants == "" {
			if err != nil || len(got.Transforms) != len(c.answer.Transforms) {
				t.Errorf("%s: saw %s, %v", c.name, got.Keyword(), err)
			}
			continue
		}
		var m *Mismatch
		if !errors.As(err, &m) || !strings.Contains(m.Nearest, c.wants) {
			t.Errorf("%s: expected %q in the error, saw %v", c.name, c.wants, err)
		}
	}
}

// RFC 9370 2.2.1: no method twice, and no additional exchange without a first one.
func TestRFC9370_2_2_1_AcceptWantsDifferentMethods(t *testing.T) {
	offered := Offer(list(t, protoIKE, "aes128-sha256-x25519-ecp256-ke1_x25519-ke1_ecp256-ke1_none"), nil)
	answer := func(ke, additional uint16) wire.Proposal {
		return wire.Proposal{Number: 1, Protocol: protoIKE, Transforms: []wire.Transform{
			aes128, prf256, int256, {Type: wire.KEX, ID: ke}, {Type: wire.ADDKE1, ID: additional},
		}}
	}
	if _, err := Accept(offered, answer(31, 19)); err != nil {
		t.Error(err)
	}
	if _, err := Accept(offered, answer(31, 31)); err == nil || !strings.Contains(err.Error(), "x25519 twice") {
		t.Errorf("the same method twice: saw %v", err)
	}
	esp := Offer(list(t, protoESP, "aes128gcm16-x25519-none-ke1_mlkem768"), spi)
	alone := wire.Proposal{Number: 1, Protocol: protoESP, Transforms: []wire.Transform{gcm128, {Type: wire.KEX}, {Type: wire.ESN}, {Type: wire.ADDKE1, ID: 36}}}
	if _, err := Accept(esp, alone); err == nil || !strings.Contains(err.Error(), "without a first one") {
		t.Errorf("an additional exchange alone: saw %v", err)
	}
}
