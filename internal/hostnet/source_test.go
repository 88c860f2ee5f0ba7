package hostnet

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/vishvananda/netlink"
)

func TestPlanSourcesAreChecked(t *testing.T) {
	a4, b4, c4 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("192.0.2.9")
	a6, b6 := netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:2::1")
	routes := prefixes("198.51.100.1/32", "2001:db8:2::1/128", "10.0.0.0/8")
	for _, c := range []struct {
		sources []Source
		want    string // of the error; "": none
	}{
		{nil, ""},
		{[]Source{{b6, a6}, {b4, a4}, {b4, a4}}, ""},
		{[]Source{{}}, "not an IPv4 or IPv6 host address"},
		{[]Source{{To: b4}}, "not an IPv4 or IPv6 host address"},
		{[]Source{{b4, netip.IPv4Unspecified()}}, "not an IPv4 or IPv6 host address"},
		{[]Source{{b4, netip.MustParseAddr("::ffff:192.0.2.1")}}, "not an IPv4 or IPv6 host address"},
		{[]Source{{b6, netip.MustParseAddr("fe80::1%wan0")}}, "not an IPv4 or IPv6 host address"},
		{[]Source{{b6, netip.MustParseAddr("ff02::1")}}, "not an IPv4 or IPv6 host address"},
		{[]Source{{b4, a6}}, "one family"},
		{[]Source{{netip.MustParseAddr("10.0.0.1"), a4}}, "add the route 10.0.0.1/32"},
		{[]Source{{b4, a4}, {b6, a6}, {b4, c4}}, "both to speak with 198.51.100.1"},
	} {
		p, err := Plan{Device: device, Mark: 1, Routes: routes, Sources: c.sources}.withDefaults()
		switch {
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%v: error %v, expected one with %q", c.sources, err, c.want)
		case c.want == "" && (err != nil || len(c.sources) > 0 && !slices.Equal(p.Sources, []Source{{b4, a4}, {b6, a6}})):
			t.Errorf("%v: got %v, %v", c.sources, p.Sources, err)
		}
	}
}

// transport is the plan of a gateway that protects its peer's own address.
func (h *host) transport() Plan {
	peer4, peer6 := h.B.Outside4, h.B.Outside6
	return Plan{
		Device: device, MTU: 1380, Mark: mark,
		Addresses: prefixes("10.9.0.1/32", "2001:db8:9::1/128"),
		Routes:    append(prefixes("10.2.0.0/24", "10.3.0.1/32"), hostPrefix(peer4), hostPrefix(peer6)),
		Sources:   []Source{{peer4, h.A.Outside4}, {peer6, h.A.Outside6}},
		Peers:     []netip.Addr{peer4, peer6},
	}
}

// from is the interface and the source address of a packet for which a program
// has chosen none.
func (h *host) from(dst netip.Addr, mark uint32) (iface, source string) {
	h.t.Helper()
	check(h.t, h.gw.Netlink(func(nl *netlink.Handle) error {
		routes, err := nl.RouteGetWithOptions(dst.AsSlice(), &netlink.RouteGetOptions{Mark: mark})
		if err != nil {
			return err
		}
		link, err := nl.LinkByIndex(routes[0].LinkIndex)
		if err == nil {
			iface, source = link.Attrs().Name, routes[0].Src.String()
		}
		return err
	}))
	return iface, source
}

func (h *host) wantFrom(what string, dst netip.Addr, mark uint32, iface string, source netip.Addr) {
	h.t.Helper()
	if i, s := h.from(dst, mark); i != iface || s != source.String() {
		h.t.Errorf("%s: %s (mark %#x) through %s from %s, expected %s from %s", what, dst, mark, i, s, iface, source)
	}
}

func TestRootTransportModePeerIsSpokenWithFromTheOutsideAddress(t *testing.T) {
	h := newHost(t)
	before := h.dump()
	a, err := h.apply(h.transport())
	check(t, err)
	h.settle(a)
	if notes := a.Notes(); len(notes) != 0 {
		t.Errorf("notes %q, expected none", notes)
	}
	tunnel4 := netip.MustParseAddr("10.9.0.1")
	for _, s := range a.Plan().Sources {
		h.wantFrom("in force", s.To, 0, device, s.From)
		h.wantFrom("in force", s.To, mark, netlab.OutsideIface, s.From)
		h.fromTUN(s.To, s.From)
		h.intoTUN(s.To, s.From)
		h.exchange(s.From, s.To)
	}
	for _, other := range []string{"10.2.0.10", "10.3.0.1"} {
		h.wantFrom("without a source", netip.MustParseAddr(other), 0, device, tunnel4)
	}
	p := h.transport()
	p.Sources = p.Sources[1:]
	check(t, a.Update(p))
	h.wantFrom("without IPv4's source", h.B.Outside4, 0, device, tunnel4)
	h.wantFrom("without IPv4's source", h.B.Outside6, 0, device, h.A.Outside6)
	p = h.transport()
	p.Sources[0].From, p.Sources[1].From = h.A.Inside4, h.A.Inside6
	check(t, a.Update(p))
	h.wantFrom("another source", h.B.Outside4, 0, device, h.A.Inside4)
	h.wantFrom("another source", h.B.Outside6, 0, device, h.A.Inside6)
	check(t, a.Remove())
	difference(t, "after Remove", before, h.dump())
}

// fromTUN sends a datagram from a socket that is bound to no address, and expects
// it in the TUN with the source.
func (h *host) fromTUN(peer, source netip.Addr) {
	h.t.Helper()
	tx, err := h.gw.ListenPacket(netip.AddrPortFrom(unspecified(peer), 0))
	check(h.t, err)
	defer tx.Close()
	_, err = tx.WriteToUDPAddrPort([]byte("local program"), netip.AddrPortFrom(peer, 9))
	check(h.t, err)
	for { // the kernel also sends multicast reports into the TUN
		sizes, bufs := []int{0}, [][]byte{make([]byte, 2000)}
		_, err := h.tun.Read(bufs, sizes, 16)
		check(h.t, err)
		b := bufs[0][16:][:sizes[0]]
		if !strings.HasSuffix(string(b), "local program") {
			continue
		}
		got, _ := netip.AddrFromSlice(b[12:16])
		if peer.Is6() {
			got, _ = netip.AddrFromSlice(b[8:24])
		}
		if got != source {
			h.t.Errorf("the packet to %s comes from %s, expected %s", peer, got, source)
		}
		return
	}
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// intoTUN writes what the gateway has received from the peer into the TUN, with
// strict reverse path filtering there, and expects it at a local program.
func (h *host) intoTUN(peer, local netip.Addr) {
	h.t.Helper()
	check(h.t, h.gw.Sysctl("net.ipv4.conf."+device+".rp_filter", "1"))
	rx, err := h.gw.ListenPacket(netip.AddrPortFrom(local, 4600))
	check(h.t, err)
	defer rx.Close()
	b := append(make([]byte, 16), udpPacket(peer, local, 4600, "from the peer")...)
	_, err = h.tun.Write([][]byte{b}, 16)
	check(h.t, err)
	buf := make([]byte, 100)
	n, from, err := rx.ReadFromUDPAddrPort(buf)
	if err != nil || string(buf[:n]) != "from the peer" || from.Addr() != peer {
		h.t.Errorf("received %q from %s, %v; expected \"from the peer\" from %s", buf[:n], from, err, peer)
	}
}

func udpPacket(src, dst netip.Addr, port uint16, payload string) []byte {
	udp := append([]byte{0x11, 0x94, byte(port >> 8), byte(port), 0, byte(8 + len(payload)), 0, 0}, payload...)
	sum := func(parts ...[]byte) uint16 {
		total := uint32(0)
		for _, b := range parts { // each but the last of even length
			for i := range b {
				total += uint32(b[i]) << (8 * (1 - i&1))
			}
		}
		return ^uint16(total % 0xffff) // one's complement addition is modulo 2^16-1
	}
	pseudo := []byte{0, 17, 0, byte(len(udp))}
	binary.BigEndian.PutUint16(udp[6:], sum(src.AsSlice(), dst.AsSlice(), pseudo, udp))
	if src.Is6() {
		h := append([]byte{0x60, 0, 0, 0, 0, byte(len(udp)), 17, 64}, src.AsSlice()...)
		return append(append(h, dst.AsSlice()...), udp...)
	}
	h := append([]byte{0x45, 0, 0, byte(20 + len(udp)), 0, 1, 0, 0, 64, 17, 0, 0}, src.AsSlice()...)
	h = append(h, dst.AsSlice()...)
	binary.BigEndian.PutUint16(h[10:], sum(h))
	return append(h, udp...)
}

func TestRootSourceThatTheHostDoesNotHave(t *testing.T) {
	h := newHost(t)
	before := h.dump()
	for _, foreign := range []string{"192.0.2.77", "2001:db8:1::77"} {
		p, addr := h.transport(), netip.MustParseAddr(foreign)
		p.Sources = []Source{{h.B.Outside4, addr}}
		if addr.Is6() {
			p.Sources[0].To = h.B.Outside6
		}
		if _, err := h.apply(p); err == nil || !strings.Contains(err.Error(), foreign+" is not an address of this host") {
			t.Errorf("error %v, expected one about %s", err, foreign)
		}
		difference(t, "after a refused Apply", before, h.dump())
		// An address that the plan itself brings is the host's.
		p.Addresses = append(p.Addresses, hostPrefix(addr))
		a := h.mustApply(p)
		h.wantFrom("the TUN's own", p.Sources[0].To, 0, device, addr)
		check(t, a.Remove())
		difference(t, "after Remove", before, h.dump())
	}
}

func TestRootSourceUpdateFailingHalfwayKeepsThePlanInForce(t *testing.T) {
	h := newHost(t)
	a := h.mustApply(h.transport())
	before := h.dump()
	other := h.transport()
	other.Sources = []Source{{h.B.Outside4, h.A.Inside4}, {h.B.Outside6, h.A.Inside6}}
	steps := h.failAtEachStep(func() error {
		err := a.Update(other)
		if err != nil {
			difference(t, "after a failed Update", before, h.dump())
		}
		return err
	})
	if steps != 2 {
		t.Errorf("the change took %d steps, expected the two routes", steps)
	}
	check(t, a.Remove())
}

// What becomes of a route whose source goes away: the package comment says it.
func TestRootSourceThatGoesAwayLater(t *testing.T) {
	h := newHost(t)
	a := h.mustApply(h.transport())
	for _, s := range a.Plan().Sources {
		wan := netip.PrefixFrom(s.From, h.A.WAN4.Bits())
		if s.From.Is6() {
			wan = netip.PrefixFrom(s.From, h.A.WAN6.Bits())
		}
		check(t, h.gw.DelAddr(netlab.OutsideIface, wan))
		h.ways("source gone", map[string]string{s.To.String(): device})
		// The IPv4 route is as it was: nothing is left to do.
		if err := a.Update(a.Plan()); (err != nil) != s.From.Is6() {
			t.Errorf("Update without the address %s: %v", s.From, err)
		}
		check(t, h.gw.AddAddr(netlab.OutsideIface, wan))
		check(t, a.Update(a.Plan()))
		h.wantFrom("source back", s.To, 0, device, s.From)
	}
	check(t, a.Remove())
}
