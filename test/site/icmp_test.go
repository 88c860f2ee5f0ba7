package site

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

// routerBehindB is a router between gateway B and two networks of site B. Its own
// addresses are in no policy:
//
//	hostA -- gwA -- router -- gwB -- inner (10.99.0.2) -- 10.22.0.0/24, to which it has no route
//	                                                   -- 10.22.1.0/24, which it sends back: a loop
func routerBehindB(t *testing.T) (p *gatewaytest.Pair, inner4, inner6 netip.Addr) {
	t.Helper()
	root(t)
	p = gatewaytest.NewPair(t, gatewaytest.Options{Remote: `10.22.0.0/16, "2001:db8:22::/48"`})
	router := must[*netlab.Node](t)(p.Node("inner"))
	near4, near6 := netip.MustParsePrefix("10.99.0.1/24"), netip.MustParsePrefix("2001:db8:99::1/64")
	own4, own6 := netip.MustParsePrefix("10.99.0.2/24"), netip.MustParsePrefix("2001:db8:99::2/64")
	if err := errors.Join(
		router.Forwarding(true),
		p.Link(p.B.Gateway, "inner0", router, "gw0", 0),
		p.B.Gateway.AddAddr("inner0", near4), p.B.Gateway.AddAddr("inner0", near6),
		router.AddAddr("gw0", own4), router.AddAddr("gw0", own6),
		p.B.Gateway.AddRoute(netip.MustParsePrefix("10.22.0.0/16"), own4.Addr()),
		p.B.Gateway.AddRoute(netip.MustParsePrefix("2001:db8:22::/48"), own6.Addr()),
		router.AddRoute(p.A.LAN4, near4.Addr()), router.AddRoute(p.A.LAN6, near6.Addr()),
		router.AddRoute(netip.MustParsePrefix("10.22.1.0/24"), near4.Addr()),
		router.AddRoute(netip.MustParsePrefix("2001:db8:22:1::/64"), near6.Addr()),
	); err != nil {
		t.Fatal(err)
	}
	p.Start()
	return p, own4.Addr(), own6.Addr()
}

// RFC 4301 6.2, both ends of it in the built program: what a router that is in no
// policy says about host A's packets arrives at host A, and through the SA.
func TestRootRFC4301_6_2_ErrorsOfARouterOutsideThePolicyCrossTheTunnel(t *testing.T) {
	p, inner4, inner6 := routerBehindB(t)
	// Both gateways take one, and nothing is left for the router.
	for key, value := range map[string]string{"net.ipv4.ip_default_ttl": "3", "net.ipv6.conf." + netlab.HostIface + ".hop_limit": "3"} {
		if err := p.A.Host.Sysctl(key, value); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		dst, from netip.Addr
		typ       uint8
	}{
		{netip.MustParseAddr("10.22.0.9"), inner4, packet.ICMPUnreachable},
		{netip.MustParseAddr("10.22.1.9"), inner4, packet.ICMPTimeExceeded},
		{netip.MustParseAddr("2001:db8:22::9"), inner6, packet.ICMPv6Unreachable},
		{netip.MustParseAddr("2001:db8:22:1::9"), inner6, packet.ICMPv6TimeExceeded},
	} {
		capture := func(n *netlab.Node, iface string) *netlab.Capture {
			c := must[*netlab.Capture](t)(n.Capture(netlab.CaptureOptions{Iface: iface}))
			t.Cleanup(func() { _ = c.Close() })
			return c
		}
		host, wire := capture(p.A.Host, netlab.HostIface), capture(p.Router, p.A.RouterIface)
		ping, err := netlab.Ping(root(t), p.A.Host, netlab.PingOptions{Dst: tt.dst, Timeout: 300 * time.Millisecond})
		if err != nil || ping.Received != 0 {
			t.Fatalf("ping %s: %s, %v", tt.dst, ping, err)
		}
		seen := waitForError(host, tt.from, tt.dst, tt.typ)
		if seen != nil {
			t.Errorf("ping %s (%s): %v\nA: %v\nB: %v", tt.dst, ping, seen, p.GatewayA.Counters(), p.GatewayB.Counters())
		}
		if s := wire.Summary(); !s.OnlyProtected() {
			t.Errorf("the wire: %s", s)
		}
	}
	for name, gw := range map[string]*gatewaytest.Gateway{"A": p.GatewayA, "B": p.GatewayB} {
		c := gw.Counters()
		if c["InICMP"] != 0 || c["InSelector"] != 0 {
			t.Errorf("gateway %s: InICMP %d, InSelector %d", name, c["InICMP"], c["InSelector"])
		}
	}
}

// waitForError waits until a capture holds an ICMP error of that type from there,
// which quotes a packet to dst.
func waitForError(c *netlab.Capture, from, dst netip.Addr, typ uint8) error {
	deadline := time.Now().Add(3 * time.Second)
	for {
		for _, ip := range c.IPPackets() {
			var h packet.Header
			var f packet.Flow
			if packet.Parse(ip, &h, &f) != nil || f.SrcAddr() != from || !f.IsICMPError() {
				continue
			}
			message := ip[h.TransportOffset:h.TotalLen]
			e, ok := packet.ParseICMPError(message, h.Version)
			quoted, quotes := packet.QuotedFlow(e.Quoted)
			if ok && quotes && e.Type == typ && quoted.DstAddr() == dst && quoted.SrcAddr() == f.DstAddr() && packet.ICMPChecksumOK(message, &f) {
				return nil
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no ICMP error of type %d from %s about %s arrived", typ, from, dst)
		}
		time.Sleep(10 * time.Millisecond) // between two looks
	}
}
