package hostnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	device = "adit0"
	mark   = 0xad17
)

// host is gateway A of a site-to-site network, with a TUN.
type host struct {
	*netlab.Topology
	t   *testing.T
	gw  *netlab.Node
	tun tun.Device
}

func newHost(t *testing.T) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	net, err := netlab.SiteToSite(netlab.Options{Name: t.Name()})
	check(t, err)
	h := &host{Topology: net, t: t, gw: net.A.Gateway}
	t.Cleanup(func() {
		h.closeTUN()
		check(t, net.Close())
	})
	h.openTUN()
	return h
}

func (h *host) openTUN() {
	h.t.Helper()
	check(h.t, h.gw.Do(func() (err error) {
		h.tun, err = tun.CreateTUN(device, 1420)
		return err
	}))
}

// closeTUN makes the device vanish, as the death of its owner does.
func (h *host) closeTUN() {
	if h.tun != nil {
		check(h.t, h.tun.Close())
		for range h.tun.Events() { // until its goroutines have ended
		}
		h.tun = nil
	}
}

func (h *host) apply(p Plan) (a *Applied, err error) {
	err = h.gw.Do(func() (err error) {
		a, err = Apply(p)
		return err
	})
	return a, err
}

func (h *host) mustApply(p Plan) *Applied {
	h.t.Helper()
	a, err := h.apply(p)
	check(h.t, err)
	h.settle(a)
	return a
}

// settle waits for the routes in the local table that belong to the IPv6
// addresses in force: the kernel adds them in a work queue, the address's own
// and, on a router, the subnet's anycast address.
func (h *host) settle(a *Applied) {
	h.t.Helper()
	for _, addr := range a.Plan().Addresses {
		if !addr.Addr().Is6() || !a.v6.device() {
			continue
		}
		for _, local := range []netip.Addr{addr.Addr(), addr.Masked().Addr()} {
			for deadline := time.Now().Add(10 * time.Second); h.way(local.String(), 0) != "lo"; time.Sleep(100 * time.Microsecond) {
				if time.Now().After(deadline) {
					h.t.Fatalf("no local route for %s", local)
				}
			}
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// full is a plan that uses everything.
func full() Plan {
	return Plan{
		Device: device, MTU: 1380, Mark: mark,
		Addresses: prefixes("10.1.0.1/32", "10.9.0.1/24", "2001:db8:9::1/64"),
		Routes:    prefixes("0.0.0.0/0", "10.2.0.0/24", "::/0", "2001:db8:b::/64"),
		Throw:     prefixes("10.1.0.0/24", "2001:db8:a::/64"),
	}
}

// dump is everything that a plan may touch, one line each, sorted.
func (h *host) dump() (lines []string) {
	h.t.Helper()
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	check(h.t, h.gw.Netlink(func(nl *netlink.Handle) error {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			rules, err := nl.RuleList(family)
			check(h.t, err)
			for _, r := range rules {
				add("rule %d: invert %v mark %#x table %d priority %d proto %d", family, r.Invert, r.Mark, r.Table, r.Priority, r.Protocol)
			}
			routes, err := nl.RouteListFiltered(family, &netlink.Route{}, netlink.RT_FILTER_TABLE)
			check(h.t, err)
			for _, r := range routes {
				add("route %d: %v via %v dev %d table %d type %d proto %d scope %d metric %d src %v", family, r.Dst, r.Gw, r.LinkIndex, r.Table, r.Type, r.Protocol, r.Scope, r.Priority, r.Src)
			}
		}
		links, err := nl.LinkList()
		check(h.t, err)
		for _, l := range links {
			a := l.Attrs()
			add("link %s: mtu %d up %v state %v", a.Name, a.MTU, a.Flags&net.FlagUp != 0, a.OperState)
			addrs, err := nl.AddrList(l, netlink.FAMILY_ALL)
			check(h.t, err)
			for _, addr := range addrs {
				add("addr %s: %v flags %#x scope %d", a.Name, addr.IPNet, addr.Flags, addr.Scope)
			}
		}
		return nil
	}))
	check(h.t, h.gw.Do(func() error { add("genmode %d", genMode(device)); return nil }))
	slices.Sort(lines)
	return lines
}

func difference(t *testing.T, what string, before, after []string) {
	t.Helper()
	for _, l := range before {
		if !slices.Contains(after, l) {
			t.Errorf("%s: gone: %s", what, l)
		}
	}
	for _, l := range after {
		if !slices.Contains(before, l) {
			t.Errorf("%s: new: %s", what, l)
		}
	}
}

// way is the interface that a packet of the gateway's own leaves through, or the
// kernel's error.
func (h *host) way(dst string, mark uint32) (iface string) {
	h.t.Helper()
	check(h.t, h.gw.Netlink(func(nl *netlink.Handle) error {
		routes, err := nl.RouteGetWithOptions(netip.MustParseAddr(dst).AsSlice(), &netlink.RouteGetOptions{Mark: mark})
		if err != nil {
			iface = err.Error()
			return nil
		}
		link, err := nl.LinkByIndex(routes[0].LinkIndex)
		if err == nil {
			iface = link.Attrs().Name
		}
		return err
	}))
	return iface
}

func (h *host) ways(what string, want map[string]string) {
	h.t.Helper()
	for dst, iface := range want {
		dst, marked := strings.CutSuffix(dst, " marked")
		m := uint32(0)
		if marked {
			m = mark
		}
		if got := h.way(dst, m); got != iface {
			h.t.Errorf("%s: %s (marked %v) leaves through %q, expected %q", what, dst, marked, got, iface)
		}
	}
}

const unreachable = "no route to host"

func TestRootRemoveReturnsTheHostToWhatItWas(t *testing.T) {
	for name, prepare := range map[string]func(*host){
		"a new device": func(*host) {},
		"a device that is up and has an address": func(h *host) {
			check(t, h.gw.Sysctl("net.ipv6.conf."+device+".addr_gen_mode", "1"))
			check(t, h.gw.AddAddr(device, netip.MustParsePrefix("10.9.0.1/24")))
			check(t, h.gw.Up(device))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			prepare(h)
			before := h.dump()
			a := h.mustApply(full())
			if len(a.Notes()) != 0 {
				t.Errorf("notes %q, expected none", a.Notes())
			}
			during := h.dump()
			if n := len(during) - len(before); n < 15 {
				t.Errorf("the plan added %d lines, expected at least 15:\n%s", n, strings.Join(during, "\n"))
			}
			check(t, a.Remove())
			difference(t, "after Remove", before, h.dump())
			check(t, a.Remove())
			if err := a.Update(full()); err == nil {
				t.Error("Update of a removed plan succeeded")
			}
		})
	}
}

func TestRootPeerInsideTheProtectedPrefix(t *testing.T) {
	h := newHost(t)
	p := full()
	p.Routes = append(prefixes("10.2.0.0/24", "2001:db8:b::/64"), h.B.WAN4, h.B.WAN6)
	a := h.mustApply(p)
	h.ways("peer protected", map[string]string{
		"198.51.100.1": device, "198.51.100.1 marked": netlab.OutsideIface,
		"2001:db8:2::1": device, "2001:db8:2::1 marked": netlab.OutsideIface,
		"10.2.0.10": device, "192.0.2.254": netlab.OutsideIface, "10.1.0.10": netlab.InsideIface,
	})
	// The same with packets: marked ones reach the peer, the others the TUN.
	for _, c := range []struct{ local, peer netip.Addr }{{h.A.Outside4, h.B.Outside4}, {h.A.Outside6, h.B.Outside6}} {
		h.exchange(c.local, c.peer)
	}
	check(t, a.Remove())
}

// exchange sends one unmarked and one marked datagram to the peer, and expects
// the first in the TUN and the second at the peer.
func (h *host) exchange(local, peer netip.Addr) {
	h.t.Helper()
	rx, err := h.B.Gateway.ListenPacket(netip.AddrPortFrom(peer, 4500))
	check(h.t, err)
	defer rx.Close()
	tx, err := h.gw.ListenPacket(netip.AddrPortFrom(local, 4500))
	check(h.t, err)
	defer tx.Close()
	to := netip.AddrPortFrom(peer, 4500)
	_, err = tx.WriteToUDPAddrPort([]byte("inner packet"), to)
	check(h.t, err)
	raw, err := tx.SyscallConn()
	check(h.t, err)
	check(h.t, raw.Control(func(fd uintptr) {
		check(h.t, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark))
	}))
	_, err = tx.WriteToUDPAddrPort([]byte("outer packet"), to)
	check(h.t, err)
	buf := make([]byte, 100)
	n, _, err := rx.ReadFromUDPAddrPort(buf)
	check(h.t, err)
	if string(buf[:n]) != "outer packet" {
		h.t.Errorf("the peer %s got %q, expected the outer packet alone", peer, buf[:n])
	}
	for { // the kernel also sends multicast reports into the TUN
		sizes, bufs := []int{0}, [][]byte{make([]byte, 2000)}
		_, err := h.tun.Read(bufs, sizes, 16)
		check(h.t, err)
		if got := string(bufs[0][16:][:sizes[0]]); strings.HasSuffix(got, "inner packet") {
			return
		} else if strings.HasSuffix(got, "outer packet") {
			h.t.Fatal("the outer packet entered the TUN")
		}
	}
}

func TestRootProtectedDefaultRoute(t *testing.T) {
	h := newHost(t)
	a := h.mustApply(full())
	h.ways("everything protected", map[string]string{
		"203.0.113.9": device, "203.0.113.9 marked": netlab.OutsideIface,
		"2001:db8:ffff::9": device, "2001:db8:ffff::9 marked": netlab.OutsideIface,
		"10.2.0.10": device, "10.2.0.10 marked": netlab.OutsideIface,
		"192.0.2.254": device, // the outside network is no exception
		"10.1.0.10":   netlab.InsideIface, "2001:db8:a::10": netlab.InsideIface,
		"10.1.0.1": "lo", "192.0.2.1": "lo", "2001:db8:1::1": "lo", "127.0.0.1": "lo",
	})
	check(t, a.Remove())
	h.ways("removed", map[string]string{
		"203.0.113.9": netlab.OutsideIface, "2001:db8:ffff::9": netlab.OutsideIface,
	})
}

func TestRootLinkLocalAndMulticastAreLeftAlone(t *testing.T) {
	h := newHost(t)
	neighbour := ""
	check(t, h.A.Host.Netlink(func(nl *netlink.Handle) error {
		link, err := nl.LinkByName(netlab.HostIface)
		check(t, err)
		addrs, err := nl.AddrList(link, netlink.FAMILY_V6)
		for _, a := range addrs {
			if a.IP.IsLinkLocalUnicast() {
				neighbour = a.IP.String()
			}
		}
		return err
	}))
	a := h.mustApply(full())
	for _, dst := range []string{neighbour, "ff02::1"} {
		addr := netip.AddrPortFrom(netip.MustParseAddr(dst).WithZone(netlab.InsideIface), 9)
		check(t, h.gw.Do(func() error {
			c, err := net.DialUDP("udp6", nil, net.UDPAddrFromAddrPort(addr))
			if err != nil {
				return fmt.Errorf("%s: %w", dst, err)
			}
			defer c.Close()
			if local := c.LocalAddr().(*net.UDPAddr); local.Zone != netlab.InsideIface {
				return fmt.Errorf("%s: sent from %v, expected a link-local address of %s", dst, local, netlab.InsideIface)
			}
			_, err = c.Write([]byte("x"))
			return err
		}))
	}
	check(t, a.Remove())
}

func TestRootLANInsideTheProtectedPrefix(t *testing.T) {
	h := newHost(t)
	p := full()
	p.Routes, p.Throw = prefixes("10.0.0.0/8"), prefixes("10.1.0.0/24", "10.0.0.0/8")
	a := h.mustApply(p)
	h.ways("a wide prefix", map[string]string{
		"10.1.0.10": netlab.InsideIface, "10.1.1.10": device, "10.2.0.10": device, "10.255.0.1": device,
		"203.0.113.9": netlab.OutsideIface,
	})
	// A route of main that is more specific than the protected prefix, or as
	// specific, does not lead protected traffic past the TUN.
	check(t, h.gw.AddRoute(netip.MustParsePrefix("10.2.0.0/16"), h.A.Router4))
	h.ways("a route in main", map[string]string{"10.2.0.10": device})
	check(t, a.Remove())
}

func TestRootApplyFailingHalfwayUndoesEverything(t *testing.T) {
	h := newHost(t)
	before := h.dump()
	steps := h.failAtEachStep(func() error {
		a, err := h.apply(full())
		if err != nil {
			difference(t, "after a failed Apply", before, h.dump())
			return err
		}
		defer func() { check(t, a.Remove()) }()
		return nil
	})
	if steps < 15 {
		t.Errorf("the plan took %d steps, expected at least 15", steps)
	}
	difference(t, "in the end", before, h.dump())
}

var errImpaired = errors.New("impaired")

// failAtEachStep runs f with a failure behind step 1, 2, and so on, until it
// succeeds, and returns the number of steps.
func (h *host) failAtEachStep(f func() error) (steps int) {
	h.t.Helper()
	defer func() { impair = nil }()
	for n := 1; n < 100; n++ {
		impair = func(step int) error {
			if step == n {
				return fmt.Errorf("%w behind step %d", errImpaired, n)
			}
			return nil
		}
		err := f()
		if err == nil {
			return n - 1
		}
		if !errors.Is(err, errImpaired) {
			h.t.Fatalf("step %d: %v, expected %v", n, err, errImpaired)
		}
	}
	h.t.Fatal("no end of steps")
	return 0
}

// Without the seam: the kernel itself refuses the last address.
func TestRootApplyRefusedByTheKernelUndoesEverything(t *testing.T) {
	h := newHost(t)
	before := h.dump()
	p := full()
	p.Addresses = append(p.Addresses, netip.MustParsePrefix("ff02::1/128"))
	if _, err := h.apply(p); err == nil || !strings.Contains(err.Error(), "ff02::1/128") {
		t.Errorf("error %v, expected one that names ff02::1/128", err)
	}
	difference(t, "after a refused Apply", before, h.dump())
	p.Device = "adit9"
	if _, err := h.apply(p); err == nil || !strings.Contains(err.Error(), "adit9") {
		t.Errorf("error %v, expected one that names adit9", err)
	}
	difference(t, "after an unknown device", before, h.dump())
}

func TestRootUpdateFailingHalfwayKeepsThePlanInForce(t *testing.T) {
	h := newHost(t)
	start := h.dump()
	a := h.mustApply(full())
	before := h.dump()
	other := Plan{
		MTU: 1300, Mark: mark + 1, Addresses: prefixes("10.9.0.1/24", "10.9.0.2/32"),
		Routes: prefixes("10.0.0.0/8", "10.1.0.0/24", "2001:db8::/32"),
		Throw:  prefixes("10.2.0.0/24", "2001:db8:a::/64"),
	}
	steps := h.failAtEachStep(func() error {
		err := a.Update(other)
		if err != nil {
			h.settle(a)
			difference(t, "after a failed Update", before, h.dump())
		}
		return err
	})
	if steps < 15 {
		t.Errorf("the change took %d steps, expected at least 15", steps)
	}
	h.ways("updated", map[string]string{
		"10.1.0.10": device, "10.2.0.10": netlab.OutsideIface, "203.0.113.9": netlab.OutsideIface, "2001:db8:b::1": device,
	})
	if got := a.Plan(); got.Mark != mark+1 || got.Device != device || got.Table != TableFor(device) {
		t.Errorf("plan in force %+v", got)
	}
	check(t, a.Update(full()))
	h.settle(a)
	difference(t, "back to the first plan", before, h.dump())
	check(t, a.Remove())
	difference(t, "after Remove", start, h.dump())
}
