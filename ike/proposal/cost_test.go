package proposal

import (
	"testing"

	"github.com/adit-ipsec/adit/ike/wire"
)

// TestAStrangersOfferCostsLittle: an IKE_SA_INIT with the most proposals that a message
// holds, none of them of use, to a gateway with a hundred peers that propose the same.
// It is refused before a cookie is asked for, so it must not cost more than the key
// exchange that it saves; work is measured by what it allocates.
func TestAStrangersOfferCostsLittle(t *testing.T) {
	var ours []Proposal
	for range 100 {
		ours = append(ours, Default(wire.ProtocolIKE)...)
	}
	var theirs []wire.Proposal
	for i := range wire.MaxProposals {
		theirs = append(theirs, wire.Proposal{Number: uint8(i + 1), Protocol: wire.ProtocolIKE, Transforms: []wire.Transform{
			{Type: wire.ENCR, ID: uint16(EncrAESGCM8), KeyBits: 128}, {Type: wire.PRF, ID: uint16(PRFSHA384)},
			{Type: wire.KEX, ID: uint16(KEECP521)}, {Type: wire.ADDKE1, ID: uint16(KEMLKEM768)},
		}})
	}
	if n := testing.AllocsPerRun(1, func() {
		if _, err := Choose(ours, theirs); err == nil {
			t.Error("something was chosen")
		}
	}); n > 5_000 {
		t.Errorf("%.0f allocations for one refused offer", n)
	}
}

// TestAgrees: it says of a choice what Choose says of it as an offer.
func TestAgrees(t *testing.T) {
	parse := func(keyword string) []Proposal {
		p, err := Parse(wire.ProtocolIKE, keyword, false)
		if err != nil {
			t.Fatal(err)
		}
		return []Proposal{p}
	}
	choice, err := Choose(parse("aes128gcm16-aes256gcm16-x25519"), []wire.Proposal{parse("aes256gcm16-x25519")[0].Wire(1, nil)})
	if err != nil {
		t.Fatal(err)
	}
	for keyword, want := range map[string]bool{"aes256gcm16-ecp256-x25519": true, "aes128gcm16-x25519": false, "aes256gcm16-ecp256": false} {
		if got := Agrees(parse(keyword), choice); got != want {
			t.Errorf("%s agrees with %s: %v, want %v", keyword, choice.Keyword(), got, want)
		}
	}
	if Agrees(nil, choice) {
		t.Error("nothing agrees")
	}
}
