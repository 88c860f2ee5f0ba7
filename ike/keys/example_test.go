package keys_test

import (
	"fmt"

	"github.com/adit-ipsec/adit/ike/keys"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
)

// What IKE_SA_INIT gives both ends, and the first message that it protects.
func Example() {
	ours, err := proposal.Parse(wire.ProtocolIKE, "aes256gcm16-prfsha384-x25519", false)
	if err != nil {
		fmt.Println(err)
		return
	}
	choice, err := proposal.Choose([]proposal.Proposal{ours}, []wire.Proposal{ours.Wire(1, nil)})
	if err != nil {
		fmt.Println(err)
		return
	}

	// The initiator sends its public value, the responder answers with its own.
	half, err := keys.Begin(choice.KE(), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	public, secret, err := keys.Respond(choice.KE(), nil, half.Public())
	if err != nil {
		fmt.Println(err)
		return
	}
	shared, err := half.Finish(public)
	if err != nil {
		fmt.Println(err)
		return
	}

	// Each makes the keys of the IKE SA.
	ni, _ := keys.Nonce(nil)
	nr, _ := keys.Nonce(nil)
	initiator, err := keys.Derive(choice, shared, ni, nr, 0x1111, 0x2222)
	if err != nil {
		fmt.Println(err)
		return
	}
	responder, err := keys.Derive(choice, secret, ni, nr, 0x1111, 0x2222)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer initiator.Wipe()
	defer responder.Wipe()

	// One seals, the other opens.
	first, inner := wire.AppendPayloads(nil, &wire.Notify{Kind: wire.NotifyInitialContact})
	header := wire.Header{Initiator: 0x1111, Responder: 0x2222, Major: 2, Exchange: wire.Informational, Flags: wire.FlagInitiator, MessageID: 2}
	message := wire.BeginProtected(header, nil, wire.Protected{First: first}, initiator.SealedLen(len(inner)))
	message = initiator.Seal(true, message, inner, nil)

	m, err := wire.Parse(message)
	if err != nil {
		fmt.Println(err)
		return
	}
	opened, err := responder.Open(true, m)
	if err != nil {
		fmt.Println(err)
		return
	}
	payloads, err := wire.ParsePayloads(m.Protected.First, opened)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(message), "bytes:", payloads[0].(*wire.Notify).Kind)
	fmt.Println("keys:", initiator, initiator.AuthKey(true))
	// Output:
	// 65 bytes: INITIAL_CONTACT
	// keys: [redacted] [redacted 48 bytes]
}
