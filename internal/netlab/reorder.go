package netlab

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The second, slow path from the router to gateway B.
const (
	slowRouter  = "b1"
	slowGateway = "wan1"
	slowMark    = 7
	slowTable   = 200
	slowBurst   = 1600  // bytes that pass at once: one full packet
	slowQueue   = 64000 // bytes that wait
)

var (
	slow4 = netip.MustParsePrefix("203.0.113.0/24")
	slow6 = netip.MustParsePrefix("2001:db8:3::/64")
)

// Reorder sends each n-th matching packet from side A to side B over a second
// path, which carries bitsPerSecond: it falls behind those that follow it. match
// is an nftables expression such as "udp dport 4500". How far it falls behind is
// the slow path's queue: more traffic or a lower rate means later. Nothing is
// lost while no more than 64 kB wait. Fault "reorder" of the Router.
func (t *Topology) Reorder(match string, every, bitsPerSecond int) error {
	r, g := t.Router, t.B.Gateway
	router4, router6 := nth(slow4, 254), nth(slow6, 0xfe)
	gateway4, gateway6 := nth(slow4, 1), nth(slow6, 1)
	if err := t.Link(r, slowRouter, g, slowGateway, 0); err != nil {
		return err
	}
	return errors.Join(
		r.addrs(slowRouter, slow4, router4, slow6, router6),
		g.addrs(slowGateway, slow4, gateway4, slow6, gateway6),
		r.OffloadsOff(slowRouter), g.OffloadsOff(slowGateway),
		r.slowDown(slowRouter, bitsPerSecond),
		r.detour(gateway4), r.detour(gateway6),
		r.fault("reorder", "type filter hook prerouting priority mangle; policy accept;",
			in(t.A.RouterIface)+fmt.Sprintf("%s numgen inc mod %d 0 counter meta mark set %d", match, every, slowMark)))
}

// slowDown puts a token bucket on what leaves through iface.
func (n *Node) slowDown(iface string, bitsPerSecond int) error {
	return n.withLink(iface, "limit", func(l netlink.Link) error {
		rate := uint64(bitsPerSecond / 8)
		return n.nl.QdiscReplace(&netlink.Tbf{
			QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
			Rate:       rate, Limit: slowQueue, Buffer: netlink.Xmittime(rate, slowBurst),
		})
	})
}

// detour sends packets with the slow path's mark to via.
func (n *Node) detour(via netip.Addr) error {
	family, every := unix.AF_INET, netip.MustParsePrefix("0.0.0.0/0")
	if via.Is6() {
		family, every = unix.AF_INET6, netip.MustParsePrefix("::/0")
	}
	rule := netlink.NewRule()
	rule.Family, rule.Mark, rule.Table, rule.Priority = family, slowMark, slowTable, 100
	return errors.Join(
		n.nl.RouteReplace(&netlink.Route{Dst: ipNet(every), Gw: via.AsSlice(), Table: slowTable}),
		n.nl.RuleAdd(rule))
}
