package proposal_test

import (
	"fmt"

	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
)

// A responder that has two proposals answers an initiator that has one.
func Example() {
	var ours []proposal.Proposal
	for _, keyword := range []string{"aes256gcm16-prfsha384-x25519-ke1_mlkem768", "aes128-sha256-modp2048"} {
		p, err := proposal.Parse(wire.ProtocolIKE, keyword, false)
		if err != nil {
			fmt.Println(err)
			return
		}
		ours = append(ours, p)
	}
	theirs, err := proposal.Parse(wire.ProtocolIKE, "aes256-aes128-sha512-sha256-modp2048", false)
	if err != nil {
		fmt.Println(err)
		return
	}
	offer := proposal.Offer([]proposal.Proposal{theirs}, nil)
	chosen, err := proposal.Choose(ours, offer)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(chosen.Keyword(), "with", chosen.PRF(), "and", chosen.KE())

	// The initiator holds the answer to what it offered.
	_, err = proposal.Accept(offer, chosen.Wire())
	fmt.Println(err)

	// Output:
	// aes128-sha256-modp2048 with prfsha256 and modp2048
	// <nil>
}

// What two ends differ in is named, and what would most nearly mend it.
func ExampleMismatch() {
	ours, _ := proposal.Parse(wire.ProtocolIKE, "aes128-sha256-x25519", false)
	theirs, _ := proposal.Parse(wire.ProtocolIKE, "aes128-sha256-modp2048", false)
	_, err := proposal.Choose([]proposal.Proposal{ours}, proposal.Offer([]proposal.Proposal{theirs}, nil))
	fmt.Println(err)
	_, err = proposal.Parse(wire.ProtocolIKE, "3des-sha1-modp1024", false)
	fmt.Println(err)
	// Output:
	// no common proposal: theirs aes128-sha256-modp2048; ours aes128-sha256-x25519; nearest fix: add modp2048 to ours
	// proposal "3des-sha1-modp1024": "3des" is refused: RFC 8221 5: 3DES is SHOULD NOT, its 64-bit block leaks after little traffic; use aes128gcm16, or aes128-sha256
}
