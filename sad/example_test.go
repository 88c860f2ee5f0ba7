package sad_test

import (
	"bytes"
	"fmt"
	"net/netip"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/sad"
)

// One packet from an outbound SA to the inbound SA of the peer, and the same
// packet a second time.
func Example() {
	suite, err := esp.ParseSuite("aes128gcm16")
	if err != nil {
		panic(err)
	}
	p := sad.Params{
		Direction: sad.Outbound, SPI: 0x1001, Peer: "site-b",
		Suite: suite, EncryptionKey: bytes.Repeat([]byte{7}, 20), ESN: true, FreshKeys: true,
		Remote: netip.MustParseAddrPort("192.0.2.2:4500"),
	}
	out, err := sad.New(p)
	if err != nil {
		panic(err)
	}
	p.Direction, p.Peer, p.ReplayWindow = sad.Inbound, "site-a", 4096
	in, err := sad.New(p)
	if err != nil {
		panic(err)
	}
	here, there := sad.NewDatabase(), sad.NewDatabase()
	if err := here.Install(out); err != nil {
		panic(err)
	}
	if err := there.Install(in); err != nil {
		panic(err)
	}

	scratch := esp.NewScratch()
	sa := here.Load().Outbound("site-b", "lan")
	first, _ := sa.Reserve(1)
	batch := []esp.Packet{{
		Seq: first, NextHeader: 4,
		Payload: append(make([]byte, 0, 256), "hello"...),
		Wire:    make([]byte, suite.SealedLen(5)),
	}}
	sa.Transform.Seal(scratch, sa.SPI, batch)
	wire := batch[0].Wire

	for range 2 {
		spi, low, _ := esp.ParseHeader(wire)
		sa = there.Load().Inbound(spi)
		batch = []esp.Packet{{Seq: uint64(low), Wire: bytes.Clone(wire)}}
		sa.Check(batch)
		sa.Transform.Open(scratch, batch)
		sa.Mark(batch)
		fmt.Printf("%s: %q, %v\n", sa.ID(), batch[0].Payload, batch[0].Err)
	}
	fmt.Println("key:", p.EncryptionKey)
	// Output:
	// in SA 0x1001 of peer "site-a": "hello", <nil>
	// in SA 0x1001 of peer "site-a": "", sad: sequence number seen before, behind the window, or 0
	// key: [redacted 20 bytes]
}
