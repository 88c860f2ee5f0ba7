package netlab

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// nodeSysctls make a network in which nothing waits and nothing is dropped
// behind the test's back.
var nodeSysctls = []struct {
	key, value string
	optional   bool
}{
	// Addresses are usable at once: no duplicate address detection.
	{"net.ipv6.conf.all.accept_dad", "0", true},
	{"net.ipv6.conf.default.accept_dad", "0", true},
	{"net.ipv6.conf.default.router_solicitations", "0", true},
	// Asymmetric paths are part of the tests.
	{"net.ipv4.conf.all.rp_filter", "0", false},
	{"net.ipv4.conf.default.rp_filter", "0", false},
	// Echo sockets without a raw socket (Ping).
	{"net.ipv4.ping_group_range", "0 2147483647", false},
	// Every ICMP error is sent: path MTU tests count them.
	{"net.ipv4.icmp_ratelimit", "0", false},
	{"net.ipv6.icmp.ratelimit", "0", true},
}

// Sysctl sets a value of /proc/sys in the node; key with dots, as sysctl(8)
// takes it. An interface name with a dot in it is written with a slash.
func (n *Node) Sysctl(key, value string) error {
	path := sysctlPath(key)
	err := n.Do(func() error { return os.WriteFile(path, []byte(value), 0) })
	if err != nil {
		return fmt.Errorf("netlab: %s: sysctl %s=%s: %w", n.name, key, value, err)
	}
	return nil
}

// SysctlGet reads a value of /proc/sys in the node.
func (n *Node) SysctlGet(key string) (value string, err error) {
	err = n.Do(func() error {
		b, err := os.ReadFile(sysctlPath(key))
		value = strings.TrimSpace(string(b))
		return err
	})
	if err != nil {
		return "", fmt.Errorf("netlab: %s: sysctl %s: %w", n.name, key, err)
	}
	return value, nil
}

func sysctlPath(key string) string {
	swap := strings.NewReplacer(".", "/", "/", ".")
	return filepath.Join("/proc/sys", swap.Replace(key))
}

// Forwarding makes the node a router, or a host again, for both families.
func (n *Node) Forwarding(on bool) error {
	v := "0"
	if on {
		v = "1"
	}
	if err := n.Sysctl("net.ipv4.ip_forward", v); err != nil {
		return err
	}
	if err := n.Sysctl("net.ipv6.conf.all.forwarding", v); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Link joins two nodes with a veth pair, both ends up. mtu in bytes; 0: 1500.
func (l *Lab) Link(a *Node, ifA string, b *Node, ifB string, mtu int) error {
	if mtu == 0 {
		mtu = 1500
	}
	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: ifA, MTU: mtu},
		PeerName:      ifB,
		PeerMTU:       uint32(mtu),
		PeerNamespace: netlink.NsFd(b.ns.Fd()),
	}
	if err := a.nl.LinkAdd(veth); err != nil {
		return fmt.Errorf("netlab: link %s:%s to %s:%s: %w", a.name, ifA, b.name, ifB, err)
	}
	if err := a.Up(ifA); err != nil {
		return err
	}
	return b.Up(ifB)
}

// Netlink gives f the node's rtnetlink handle for what has no helper here.
func (n *Node) Netlink(f func(*netlink.Handle) error) error { return f(n.nl) }

// Up brings an interface up.
func (n *Node) Up(iface string) error {
	return n.withLink(iface, "set up", func(l netlink.Link) error { return n.nl.LinkSetUp(l) })
}

// Down takes an interface down. The kernel forgets its routes and its IPv6
// addresses.
func (n *Node) Down(iface string) error {
	return n.withLink(iface, "set down", func(l netlink.Link) error { return n.nl.LinkSetDown(l) })
}

// SetMTU sets an interface's MTU in bytes.
func (n *Node) SetMTU(iface string, mtu int) error {
	return n.withLink(iface, fmt.Sprintf("set mtu %d", mtu), func(l netlink.Link) error { return n.nl.LinkSetMTU(l, mtu) })
}

// AddAddr gives an interface an address with its prefix length. Where the link
// is up, the address is usable when AddAddr returns.
func (n *Node) AddAddr(iface string, p netip.Prefix) error {
	return n.withLink(iface, "add address "+p.String(), func(l netlink.Link) error {
		a := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := n.nl.AddrAdd(l, a); err != nil || p.Addr().Is4() || !runs(l.Attrs()) {
			return err
		}
		return n.waitLocal(p.Addr())
	})
}

// runs tells whether a link carries packets. A TUN device that is up says
// neither that it does nor that it does not.
func runs(a *netlink.LinkAttrs) bool {
	return a.Flags&net.FlagUp != 0 && (a.OperState == netlink.OperUp || a.OperState == netlink.OperUnknown)
}

// waitLocal waits until the kernel delivers packets for an IPv6 address. It adds
// that route in a work queue, a moment after the address, also where there is no
// duplicate address detection.
func (n *Node) waitLocal(addr netip.Addr) error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Microsecond) {
		routes, err := n.nl.RouteGet(addr.AsSlice())
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the kernel has no local route for it: %w", cmp.Or(err, os.ErrDeadlineExceeded))
		}
	}
}

// DelAddr takes an address away again.
func (n *Node) DelAddr(iface string, p netip.Prefix) error {
	return n.withLink(iface, "remove address "+p.String(), func(l netlink.Link) error {
		return n.nl.AddrDel(l, &netlink.Addr{IPNet: ipNet(p)})
	})
}

// AddRoute sends a prefix to a next hop, in the main table.
func (n *Node) AddRoute(dst netip.Prefix, via netip.Addr) error {
	err := n.nl.RouteReplace(&netlink.Route{Dst: ipNet(dst), Gw: via.AsSlice()})
	if err != nil {
		return fmt.Errorf("netlab: %s: route %s via %s: %w", n.name, dst, via, err)
	}
	return nil
}

// AddDefault sends everything of the next hop's family to it.
func (n *Node) AddDefault(via netip.Addr) error {
	any4, any6 := netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")
	if via.Is6() {
		return n.AddRoute(any6, via)
	}
	return n.AddRoute(any4, via)
}

func (n *Node) withLink(iface, what string, f func(netlink.Link) error) error {
	l, err := n.nl.LinkByName(iface)
	if err == nil {
		err = f(l)
	}
	if err != nil {
		return fmt.Errorf("netlab: %s: %s: %s: %w", n.name, iface, what, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
