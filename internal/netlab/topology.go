package netlab

import (
	"errors"
	"net/netip"
)

// Options of a ready-made topology. The zero value is a plain network.
type Options struct {
	Name   string // in errors
	MTU    int    // of the outside links, bytes; 0: 1500
	LANMTU int    // of the inside links, bytes; 0: 1500
	// Offloads leaves segmentation and checksum offload on at every veth, for
	// benchmarks: captures then hold superpackets and partial checksums.
	Offloads bool
}

// Topology is two sites behind gateways, with a router in between:
//
//	hostA -- gwA -- router -- gwB -- hostB
//	    LAN A    WAN A    WAN B    LAN B
//
// The router knows the two outside networks and no LAN: what leaves a gateway
// in clear is seen by a capture there and gets no further.
type Topology struct {
	*Lab
	A, B   Side
	Router *Node
}

// Side is one site. Interfaces are named alike on both: host "eth0", gateway
// "lan0" and "wan0".
type Side struct {
	Host, Gateway *Node

	LAN4, LAN6         netip.Prefix
	Host4, Host6       netip.Addr // the host's
	Inside4, Inside6   netip.Addr // the gateway's on the LAN
	WAN4, WAN6         netip.Prefix
	Outside4, Outside6 netip.Addr // the gateway's on the WAN
	Router4, Router6   netip.Addr // the router's on this WAN
	RouterIface        string     // the router's interface towards this side: "a0" or "b0"
}

// Names of the interfaces in a Topology.
const (
	HostIface    = "eth0"
	InsideIface  = "lan0"
	OutsideIface = "wan0"
)

func side(iface, lan4, lan6, wan4, wan6 string) Side {
	s := Side{
		LAN4: netip.MustParsePrefix(lan4), LAN6: netip.MustParsePrefix(lan6),
		WAN4: netip.MustParsePrefix(wan4), WAN6: netip.MustParsePrefix(wan6),
		RouterIface: iface,
	}
	s.Inside4, s.Inside6 = nth(s.LAN4, 1), nth(s.LAN6, 1)
	s.Host4, s.Host6 = nth(s.LAN4, 10), nth(s.LAN6, 0x10)
	s.Outside4, s.Outside6 = nth(s.WAN4, 1), nth(s.WAN6, 1)
	s.Router4, s.Router6 = nth(s.WAN4, 254), nth(s.WAN6, 0xfe)
	return s
}

// nth is the prefix's address with the given last byte.
func nth(p netip.Prefix, last byte) netip.Addr {
	b := p.Addr().AsSlice()
	b[len(b)-1] = last
	a, _ := netip.AddrFromSlice(b)
	return a
}

// SiteToSite builds the topology. Forwarding is on in the gateways and the
// router; hosts send everything to their gateway, gateways to the router.
func SiteToSite(o Options) (*Topology, error) {
	if o.Name == "" {
		o.Name = "site-to-site"
	}
	l, err := New(o.Name)
	if err != nil {
		return nil, err
	}
	t := &Topology{
		Lab: l,
		A:   side("a0", "10.1.0.0/24", "2001:db8:a::/64", "192.0.2.0/24", "2001:db8:1::/64"),
		B:   side("b0", "10.2.0.0/24", "2001:db8:b::/64", "198.51.100.0/24", "2001:db8:2::/64"),
	}
	if err := t.build(o); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return t, nil
}

func (t *Topology) build(o Options) error {
	for _, n := range []struct {
		node   **Node
		name   string
		router bool
	}{
		{&t.A.Host, "hostA", false}, {&t.A.Gateway, "gwA", true}, {&t.Router, "router", true},
		{&t.B.Gateway, "gwB", true}, {&t.B.Host, "hostB", false},
	} {
		node, err := t.Node(n.name)
		if err != nil {
			return err
		}
		*n.node = node
		if err := node.Forwarding(n.router); err != nil {
			return err
		}
	}
	return errors.Join(t.buildSide(&t.A, o), t.buildSide(&t.B, o))
}

func (t *Topology) buildSide(s *Side, o Options) error {
	if err := errors.Join(
		t.Link(s.Host, HostIface, s.Gateway, InsideIface, o.LANMTU),
		t.Link(s.Gateway, OutsideIface, t.Router, s.RouterIface, o.MTU),
	); err != nil {
		return err
	}
	errs := []error{
		s.Host.addrs(HostIface, s.LAN4, s.Host4, s.LAN6, s.Host6),
		s.Gateway.addrs(InsideIface, s.LAN4, s.Inside4, s.LAN6, s.Inside6),
		s.Gateway.addrs(OutsideIface, s.WAN4, s.Outside4, s.WAN6, s.Outside6),
		t.Router.addrs(s.RouterIface, s.WAN4, s.Router4, s.WAN6, s.Router6),
		s.Host.AddDefault(s.Inside4), s.Host.AddDefault(s.Inside6),
		s.Gateway.AddDefault(s.Router4), s.Gateway.AddDefault(s.Router6),
	}
	if !o.Offloads {
		errs = append(errs,
			s.Host.OffloadsOff(HostIface), s.Gateway.OffloadsOff(InsideIface),
			s.Gateway.OffloadsOff(OutsideIface), t.Router.OffloadsOff(s.RouterIface))
	}
	return errors.Join(errs...)
}

func (n *Node) addrs(iface string, p4 netip.Prefix, a4 netip.Addr, p6 netip.Prefix, a6 netip.Addr) error {
	return errors.Join(
		n.AddAddr(iface, netip.PrefixFrom(a4, p4.Bits())),
		n.AddAddr(iface, netip.PrefixFrom(a6, p6.Bits())))
}
