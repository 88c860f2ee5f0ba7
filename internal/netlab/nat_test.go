package netlab

import (
	"net/netip"
	"testing"
)

// A NAT that was flushed gives a flow that goes on another port.
func TestRootFlushNATForgetsBindings(t *testing.T) {
	ctx := root(t)
	net := siteToSite(t, Options{})
	check(t, net.Router.Masquerade(net.B.RouterIface))
	rx := must(net.B.Gateway.ListenPacket(netip.AddrPortFrom(net.B.Outside4, 0)))(t)
	defer rx.Close()
	tx := must(net.A.Gateway.ListenPacket(netip.AddrPortFrom(net.A.Outside4, 4500)))(t)
	defer tx.Close()
	deadline, _ := ctx.Deadline()
	check(t, rx.SetReadDeadline(deadline))
	source := func() uint16 {
		t.Helper()
		must(tx.WriteToUDPAddrPort([]byte("x"), rx.LocalAddr().(interface{ AddrPort() netip.AddrPort }).AddrPort()))(t)
		_, from, err := rx.ReadFromUDPAddrPort(make([]byte, 10))
		check(t, err)
		return from.Port()
	}
	before := source()
	if again := source(); again != before {
		t.Errorf("a second packet of the flow came from port %d, the first from %d", again, before)
	}
	for range 3 { // the same port again is one chance in sixty thousand
		check(t, net.Router.FlushNAT())
		if source() != before {
			return
		}
	}
	t.Errorf("after three flushes the flow still comes from port %d", before)
}
