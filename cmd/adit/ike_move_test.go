package main

import (
	"net/netip"
	"testing"

	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/ike"
	"github.com/adit-ipsec/adit/internal/netsim"
	"github.com/adit-ipsec/adit/internal/tun"
	"github.com/adit-ipsec/adit/sad"
)

// TestASAThatIsGoneKeepsNoOtherBack: the peer has moved, and one of its SAs has expired
// a moment before the machine heard of it. The others move all the same.
func TestASAThatIsGoneKeepsNoOtherBack(t *testing.T) {
	device, _ := tun.NewMemory("adit0", 1400)
	wire, err := netsim.NewNetwork().Endpoint(netip.MustParseAddrPort("192.0.2.1:4500"))
	if err != nil {
		t.Fatal(err)
	}
	engine, err := dataplane.New(dataplane.Config{TUN: device, Wire: wire})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = engine.Close() }()
	suite, err := esp.ParseSuite("aes128gcm16")
	if err != nil {
		t.Fatal(err)
	}
	there := sad.Params{
		Direction: sad.Outbound, SPI: 0x2001, Peer: "b", Suite: suite, EncryptionKey: make(sad.Key, 20), FreshKeys: true,
		Encap: sad.EncapUDP, Remote: netip.MustParseAddrPort("192.0.2.2:4500"),
	}
	if err := engine.Install(there); err != nil {
		t.Fatal(err)
	}
	gone := sad.ID{Direction: sad.Outbound, SPI: 0x2002, Peer: "b"}
	local, to := netip.MustParseAddrPort("192.0.2.1:4500"), netip.MustParseAddrPort("203.0.113.7:4500")
	engineSAD{engine}.Move(ike.Move{Peer: "b", IDs: []sad.ID{gone, there.ID()}, Local: local, Remote: to})
	if sas := engine.Stats().SAs; len(sas) != 1 || sas[0].Remote != to {
		t.Errorf("the SA that is there: %+v, want it at %s", sas, to)
	}
}
