package hostnet

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/vishvananda/netlink"
)

// kill forgets the plan and closes the TUN, as SIGKILL does.
func (h *host) kill(a *Applied) {
	a.nl.Close()
	h.closeTUN()
}

func TestRootKilledGatewayLeaksNothingAndIsTakenOver(t *testing.T) {
	h := newHost(t)
	before := h.dump()
	h.kill(h.mustApply(full()))
	h.ways("killed", map[string]string{
		"203.0.113.9": unreachable, "10.2.0.10": unreachable, "2001:db8:b::1": unreachable,
		"203.0.113.9 marked": netlab.OutsideIface, "10.1.0.10": netlab.InsideIface,
	})
	h.openTUN()
	p := full()
	p.Routes, p.Throw, p.Mark = prefixes("10.2.0.0/24"), nil, mark+1
	// A new gateway that fails to start leaves the old one's refusals.
	failing := p
	failing.Addresses = append(failing.Addresses, netip.MustParsePrefix("ff02::1/128"))
	if _, err := h.apply(failing); err == nil {
		t.Fatal("the kernel took ff02::1 for an address")
	}
	h.ways("restart failed", map[string]string{"10.2.0.10": unreachable, "203.0.113.9": unreachable})
	a := h.mustApply(p)
	h.ways("taken over", map[string]string{
		"10.2.0.10": device, "203.0.113.9": netlab.OutsideIface, "2001:db8:b::1": netlab.OutsideIface,
	})
	stale := func(line string) bool {
		return strings.Contains(line, "mark 0xad17 ") || strings.Contains(line, "type 9")
	}
	if i := slices.IndexFunc(h.dump(), stale); i >= 0 {
		t.Errorf("left of the killed gateway: %s", h.dump()[i])
	}
	check(t, a.Remove())
	// The device is a new one: its interface index, and nothing else, differs.
	difference(t, "after Remove", before, h.dump())
}

func TestRootRemoveAfterTheDeviceIsGone(t *testing.T) {
	h := newHost(t)
	a := h.mustApply(full())
	h.closeTUN()
	withoutDevice := h.dump()
	check(t, a.Remove())
	for _, l := range h.dump() {
		if strings.Contains(l, "proto 173") {
			t.Errorf("left behind: %s", l)
		}
	}
	if len(withoutDevice) == len(h.dump()) {
		t.Error("the refusals went with the device: nothing was left to remove")
	}
}

func TestRootSecondApplyOfTheSameDevice(t *testing.T) {
	h := newHost(t)
	before := h.dump()
	first := h.mustApply(full())
	p := full()
	p.Routes = prefixes("10.2.0.0/24")
	second := h.mustApply(p)
	h.ways("second plan", map[string]string{"10.2.0.10": device, "203.0.113.9": netlab.OutsideIface})
	check(t, second.Remove())
	h.ways("second removed", map[string]string{"10.2.0.10": netlab.OutsideIface})
	check(t, first.Remove())
	difference(t, "both removed", before, h.dump())
}

// While plans change into each other, what all of them protect is looked up
// again and again: it leads to the TUN every time.
func TestRootUpdateHasNoGap(t *testing.T) {
	h := newHost(t)
	wide, narrow := full(), full()
	narrow.Routes, narrow.Throw, narrow.Mark, narrow.Priority = prefixes("10.2.0.0/24", "2001:db8:b::/64"), nil, mark+1, 300
	split := full()
	split.Routes = prefixes("10.2.0.0/25", "10.2.0.0/16", "2001:db8::/32")
	a := h.mustApply(wide)
	stop, result := make(chan struct{}), make(chan map[string]int)
	go func() {
		wrong := make(map[string]int)
		for {
			select {
			case <-stop:
				result <- wrong
				return
			default:
			}
			for _, dst := range []string{"10.2.0.10", "2001:db8:b::10"} {
				if got := h.way(dst, 0); got != device {
					wrong[dst+" through "+got]++
				}
			}
		}
	}()
	for range 20 {
		for _, p := range []Plan{narrow, split, wide} {
			check(t, a.Update(p))
		}
	}
	close(stop)
	if wrong := <-result; len(wrong) != 0 {
		t.Errorf("lookups that did not lead to the TUN: %v", wrong)
	}
	check(t, a.Remove())
}

func TestRootForeignTableIsRefused(t *testing.T) {
	h := newHost(t)
	dst := ipNet(netip.MustParsePrefix("10.5.0.0/16"))
	route := &netlink.Route{Dst: dst, Gw: h.A.Router4.AsSlice(), Table: int(TableFor(device))}
	check(t, h.gw.Netlink(func(nl *netlink.Handle) error { return nl.RouteAdd(route) }))
	before := h.dump()
	if _, err := h.apply(full()); err == nil || !strings.Contains(err.Error(), "another program") {
		t.Errorf("error %v, expected one about another program's route", err)
	}
	difference(t, "after a refused Apply", before, h.dump())
	route.Protocol = Protocol
	check(t, h.gw.Netlink(func(nl *netlink.Handle) error { return nl.RouteReplace(route) }))
	if _, err := h.apply(full()); err == nil || !strings.Contains(err.Error(), "another gateway") {
		t.Errorf("error %v, expected one about another gateway", err)
	}
	p := full()
	p.Table = 5000
	check(t, h.mustApply(p).Remove())
}

func TestRootIPv6Disabled(t *testing.T) {
	t.Run("on the host", func(t *testing.T) {
		h := newHost(t)
		check(t, h.gw.Sysctl("net.ipv6.conf.all.disable_ipv6", "1"))
		before := h.dump()
		a := h.mustApply(full())
		if notes := a.Notes(); len(notes) != 1 || !strings.Contains(notes[0], "disable_ipv6") {
			t.Errorf("notes %q, expected one about disable_ipv6", notes)
		}
		h.ways("IPv4 alone", map[string]string{"203.0.113.9": device, "203.0.113.9 marked": netlab.OutsideIface})
		check(t, a.Remove())
		difference(t, "after Remove", before, h.dump())
	})
	t.Run("on the TUN alone", func(t *testing.T) {
		h := newHost(t)
		check(t, h.gw.Sysctl("net.ipv6.conf."+device+".disable_ipv6", "1"))
		before := h.dump()
		a := h.mustApply(full())
		if notes := a.Notes(); len(notes) != 1 || !strings.Contains(notes[0], "unreachable") {
			t.Errorf("notes %q, expected one about unreachable prefixes", notes)
		}
		h.ways("refused", map[string]string{
			"203.0.113.9": device, "2001:db8:b::1": unreachable, "2001:db8:a::10": netlab.InsideIface,
			"2001:db8:b::1 marked": netlab.OutsideIface,
		})
		check(t, a.Remove())
		difference(t, "after Remove", before, h.dump())
	})
}

func TestRootStrictReversePathFilterIsNoted(t *testing.T) {
	h := newHost(t)
	check(t, h.gw.Sysctl("net.ipv4.conf."+netlab.OutsideIface+".rp_filter", "1"))
	p := full()
	p.Peers = []netip.Addr{h.B.Outside4, h.B.Outside6, netip.MustParseAddr("198.51.100.2")}
	a := h.mustApply(p)
	if notes := a.Notes(); len(notes) != 1 || !strings.Contains(notes[0], "net.ipv4.conf.wan0.rp_filter=2") {
		t.Errorf("notes %q, expected one about rp_filter on wan0", notes)
	}
	check(t, a.Remove())
	p.Routes = prefixes("10.2.0.0/24")
	a = h.mustApply(p)
	if notes := a.Notes(); len(notes) != 0 {
		t.Errorf("notes %q with the peer outside every protected prefix, expected none", notes)
	}
	check(t, a.Remove())
}

func TestRootDefaultMTU(t *testing.T) {
	h := newHost(t)
	check(t, h.gw.SetMTU(netlab.OutsideIface, 1460))
	lookup := func(outside []string, peers []netip.Addr, overhead int) (mtu int, why string) {
		check(t, h.gw.Do(func() error { mtu, why = DefaultMTU(outside, peers, overhead); return nil }))
		return mtu, why
	}
	peer4, peer6 := h.B.Outside4, h.B.Outside6
	for _, c := range []struct {
		outside  []string
		peers    []netip.Addr
		overhead int
		mtu      int
		why      string
	}{
		{nil, nil, 80, 1420, "1500 as on Ethernet"},
		{[]string{"nosuch0"}, []netip.Addr{{}}, 80, 1420, "1500 as on Ethernet"},
		{[]string{netlab.OutsideIface}, nil, 80, 1380, "wan0 has MTU 1460"},
		{[]string{netlab.InsideIface}, []netip.Addr{peer4}, 80, 1380, "wan0 towards 198.51.100.1 has MTU 1460"},
		{nil, []netip.Addr{peer6}, 100, 1360, "wan0 towards 2001:db8:2::1 has MTU 1460"},
		{[]string{netlab.InsideIface}, nil, 80, 1420, "lan0 has MTU 1500"},
		{nil, []netip.Addr{peer4}, 200, 1280, "fragmented"},
	} {
		mtu, why := lookup(c.outside, c.peers, c.overhead)
		if mtu != c.mtu || !strings.Contains(why, c.why) {
			t.Errorf("%v %v -%d: %d, %q; expected %d, %q", c.outside, c.peers, c.overhead, mtu, why, c.mtu, c.why)
		}
	}
	// With a plan in force, or left behind, the peer's route is still the
	// outside one.
	h.kill(h.mustApply(full()))
	if mtu, why := lookup(nil, []netip.Addr{peer4, peer6}, 80); mtu != 1380 {
		t.Errorf("behind a killed gateway: %d, %q; expected 1380", mtu, why)
	}
}
