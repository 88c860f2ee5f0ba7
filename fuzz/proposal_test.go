package fuzz

import (
	"errors"
	"slices"
	"testing"

	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
)

// FuzzIKEProposal: whatever a peer's SA payload says, a choice is made of what
// both have and of nothing else, the peer would accept it as the answer, and the
// dataplane has its suite; no choice is a short, whole error.
func FuzzIKEProposal(f *testing.F) {
	everything := map[wire.ProtocolID][]proposal.Proposal{}
	for protocol, keywords := range map[wire.ProtocolID][]string{
		wire.ProtocolIKE: {"aes128gcm16-aes256gcm16-chacha20poly1305-aes128ccm16-prfsha256-prfsha384-x25519-ecp256-modp2048-ke1_mlkem768-ke1_none-ke2_x448-ke2_ecp256-ke2_none", "aes128-aes256-sha256-sha1-x25519-modp2048"},
		wire.ProtocolESP: {"aes128gcm16-aes256gmac-x25519-none-ke1_mlkem768-ke1_none-esn-noesn", "aes128-null-aes256ctr-sha256-sha1-noesn"},
		wire.ProtocolAH:  {"sha256-aes128gmac-esn-noesn"},
	} {
		for _, keyword := range keywords {
			p, err := proposal.Parse(protocol, keyword, true)
			if err != nil {
				f.Fatal(err)
			}
			everything[protocol] = append(everything[protocol], p)
		}
		offer := proposal.Offer(append(proposal.Default(protocol), everything[protocol]...), make([]byte, protocol.SPILen()))
		_, body := wire.AppendPayloads(nil, &wire.SA{Proposals: offer})
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		payloads, err := wire.ParsePayloads(wire.PayloadSA, body)
		if err != nil {
			return
		}
		for _, sa := range wire.All[*wire.SA](payloads) {
			for _, ours := range everything {
				fuzzChoice(t, ours, sa.Proposals)
			}
		}
	})
}

func fuzzChoice(t *testing.T, ours []proposal.Proposal, theirs []wire.Proposal) {
	c, err := proposal.Choose(ours, theirs)
	if err != nil {
		var m *proposal.Mismatch
		if !errors.As(err, &m) || m.Theirs == "" || m.Ours == "" || m.Nearest == "" || len(err.Error()) > 10_000 {
			t.Fatalf("an error that is no mismatch, or too long a one: %v", err)
		}
		return
	}
	for _, tr := range c.Transforms {
		had := func(p proposal.Proposal) bool { return slices.Contains(p.Transforms, tr) }
		if tr.Unknown || tr.ID != 0 && !slices.ContainsFunc(ours, had) {
			t.Fatalf("%+v is not of ours", tr)
		}
	}
	// Numbers that a peer gives twice are its own trouble: the answer is then
	// held to the first.
	first := slices.IndexFunc(theirs, func(p wire.Proposal) bool { return p.Number == c.Number && p.Protocol == c.Protocol })
	if again, err := proposal.Choose(ours, theirs[first:first+1]); err == nil {
		if _, err := proposal.Accept(theirs, again.Wire()); err != nil {
			t.Fatalf("the peer would refuse %s: %v", again.Keyword(), err)
		}
	}
	switch c.Protocol {
	case wire.ProtocolESP:
		if _, err := c.Suite(); err != nil {
			t.Fatal(err)
		}
	case wire.ProtocolAH:
		if _, err := c.AHSuite(); err != nil {
			t.Fatal(err)
		}
	default:
		if e, _ := c.Encr(); c.KE() == proposal.KENone || c.PRF() == 0 || e == 0 {
			t.Fatalf("an IKE SA without an algorithm: %s", c.Keyword())
		}
	}
}
