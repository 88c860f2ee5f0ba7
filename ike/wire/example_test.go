package wire_test

import (
	"errors"
	"fmt"

	"github.com/adit-ipsec/adit/ike/wire"
)

// A responder asks for a cookie; the initiator reads its answer.
func Example() {
	answer := wire.Append(nil, wire.Header{Initiator: 0xa1, Exchange: wire.IKESAInit, Flags: wire.FlagResponse},
		&wire.Notify{Kind: wire.NotifyCookie, Data: []byte("a secret hash")})

	m, err := wire.Parse(answer)
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := wire.Check(m.Exchange, m.Response(), m.Payloads); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m.Summary())
	fmt.Printf("%s\n", wire.FindNotify(m.Payloads, wire.NotifyCookie).Data)
	// Output:
	// IKE_SA_INIT response 0 [N(COOKIE)]
	// a secret hash
}

// A protected message: the inside is written first, then what is authenticated
// around it; whoever has the keys appends the sealed body.
func ExampleBeginProtected() {
	first, inside := wire.AppendPayloads(nil, &wire.Delete{Protocol: wire.ProtocolESP, SPIs: []uint32{0xc0010203}})
	sealed := inside // a real one has an IV, ciphertext and an ICV
	h := wire.Header{Initiator: 0xa1, Responder: 0xb2, Exchange: wire.Informational, MessageID: 2}
	message := append(wire.BeginProtected(h, nil, wire.Protected{First: first}, len(sealed)), sealed...)

	m, err := wire.Parse(message)
	if err != nil {
		fmt.Println(err)
		return
	}
	opened, err := wire.ParsePayloads(m.Protected.First, m.Protected.Body)
	fmt.Println(m.Summary())
	fmt.Println(wire.Describe(m.Header, opened, nil), err)
	// Output:
	// INFORMATIONAL request 2 [SK]
	// INFORMATIONAL request 2 [D(ESP)] <nil>
}

// What is missing is named.
func ExampleCheck() {
	err := wire.Check(wire.IKEAuth, false, []wire.Payload{&wire.ID{Kind: wire.IDFQDN, Data: []byte("a.example.net")}})
	var schema *wire.SchemaError
	if errors.As(err, &schema) {
		fmt.Println(err, "->", schema.Answer())
	}
	// Output:
	// IKE_AUTH request: AUTH missing -> AUTHENTICATION_FAILED
}
