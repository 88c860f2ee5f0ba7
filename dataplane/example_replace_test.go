package dataplane_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"time"

	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/netsim"
	"github.com/adit-ipsec/adit/internal/tun"
	"github.com/adit-ipsec/adit/sad"
)

// An SA with a lifetime asks to be replaced, and a key source replaces it without
// a gap: the new SA carries traffic before the old one goes.
func ExampleGateway_Replace() {
	wire, _ := netsim.NewNetwork().Endpoint(netip.MustParseAddrPort("192.0.2.1:4500"))
	dev, _ := tun.NewMemory("adit0", 1400)
	gw, err := dataplane.New(dataplane.Config{TUN: dev, Wire: wire})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = gw.Close() }()

	suite, _ := esp.ParseSuite("aes128gcm16")
	params := func(spi uint32, key byte) sad.Params {
		return sad.Params{
			Direction: sad.Outbound, SPI: spi, Peer: "site-b", Suite: suite,
			EncryptionKey: bytes.Repeat([]byte{key}, 20), ESN: true, FreshKeys: true,
			Remote: netip.MustParseAddrPort("192.0.2.2:4500"),
		}
	}
	first := params(0x2001, 1)
	first.Lifetime = sad.Lifetime{Soft: 10 * time.Millisecond, Hard: time.Hour}
	if err := gw.Install(first); err != nil {
		fmt.Println(err)
		return
	}
	e := <-gw.Events()
	fmt.Printf("%s: %s SA 0x%x of %s, limit %s\n", e.Kind, e.Direction, e.SPI, e.Peer, e.Limit)

	old := sad.ID{Direction: e.Direction, SPI: e.SPI, Peer: e.Peer, Protocol: e.Protocol}
	fmt.Println(gw.Replace([]sad.ID{old}, 30*time.Second, params(0x2002, 2)))
	// Output:
	// SoftExpire: out SA 0x2001 of site-b, limit time
	// <nil>
}
