package dataplane_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"

	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/netsim"
	"github.com/adit-ipsec/adit/internal/tun"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// A gateway of one's own: any wireguard TUN device, any wire, policies and SAs.
// Here both are memory; tun.CreateTUN and natt.Listen make the real ones.
func Example() {
	wire, _ := netsim.NewNetwork().Endpoint(netip.MustParseAddrPort("192.0.2.1:4500"))
	dev, host := tun.NewMemory("adit0", 1400)
	gw, err := dataplane.New(dataplane.Config{TUN: dev, Wire: wire})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = gw.Close() }()

	local, _ := spd.ParseAddrRange("10.1.0.0/24")
	remote, _ := spd.ParseAddrRange("10.2.0.0/24")
	table, _ := spd.NewTable([]spd.Policy{{
		Name: "lan", Action: spd.Protect, Peer: "site-b",
		Selector: spd.Selector{Local: []spd.AddrRange{local}, Remote: []spd.AddrRange{remote}, Protocol: spd.ProtocolAny},
	}})
	gw.ApplyPolicy(table)

	// A packet that wants protection before there are keys: dropped, and
	// whoever makes keys hears of it.
	_ = host.Send(context.Background(), datagram(1, 2, 1, 64))
	e := <-gw.Events()
	fmt.Println(e.Kind, e.Peer, e.Policy)

	suite, _ := esp.ParseSuite("aes128gcm16")
	err = gw.Install(sad.Params{
		Direction: sad.Outbound, SPI: 0x2001, Peer: e.Peer, Suite: suite,
		EncryptionKey: bytes.Repeat([]byte{1}, 20), ESN: true, FreshKeys: true,
		Remote: netip.MustParseAddrPort("192.0.2.2:4500"),
	})
	s := gw.Stats()
	fmt.Println(err, len(s.SAs), s.SAs[0].ID)
	// Output:
	// Acquire site-b lan
	// <nil> 1 out SA 0x2001 of peer "site-b"
}
