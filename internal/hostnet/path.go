package hostnet

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	ethernetMTU = 1500 // bytes
	ipv6MinMTU  = 1280 // RFC 8200 5: every link that carries IPv6 takes so much
)

// DefaultMTU proposes an MTU for the TUN, in bytes: the smallest of the
// interfaces named outside and of the routes towards the peers, less overhead,
// the bytes that the outer packet adds at the most. With neither to be found it
// starts from 1500. why says in one sentence how it came about. It looks at the
// network namespace of the calling thread.
//
// Below 1280 the kernel would take IPv6 off the TUN, so that is the least; outer
// packets may then need fragments.
func DefaultMTU(outside []string, peers []netip.Addr, overhead int) (mtu int, why string) {
	path, why := pathMTU(outside, peers)
	why = fmt.Sprintf("%s, less %d for the outer packet", why, overhead)
	if path-overhead < ipv6MinMTU {
		return ipv6MinMTU, fmt.Sprintf("%s, but at least %d, which IPv6 needs (RFC 8200 5): full packets are fragmented on the outside", why, ipv6MinMTU)
	}
	return path - overhead, why
}

// LinkMTU is the MTU in bytes of the route towards the peer: of several ways the
// smallest; 0 where there is no route. It looks at the network namespace of the
// calling thread.
func LinkMTU(peer netip.Addr) int {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return 0
	}
	defer nl.Close()
	mtu := 0
	for _, hop := range hops(nl, peer) {
		if mtu == 0 || hop.mtu < mtu {
			mtu = hop.mtu
		}
	}
	return mtu
}

func pathMTU(outside []string, peers []netip.Addr) (mtu int, why string) {
	mtu, why = ethernetMTU, fmt.Sprintf("no outside interface and no route to a peer is known: %d as on Ethernet", ethernetMTU)
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return mtu, why
	}
	defer nl.Close()
	found := false
	consider := func(m int, what string) {
		if m > 0 && (!found || m < mtu) {
			mtu, why, found = m, fmt.Sprintf("%s has MTU %d", what, m), true
		}
	}
	for _, name := range outside {
		if link, err := nl.LinkByName(name); err == nil {
			consider(link.Attrs().MTU, name)
		}
	}
	for _, peer := range peers {
		for _, hop := range hops(nl, peer) {
			consider(hop.mtu, hop.iface+" towards "+peer.String())
		}
	}
	return mtu, why
}

type hop struct {
	iface string
	mtu   int // bytes
}

// hops are the interfaces that outer packets to the peer may leave through.
func hops(nl *netlink.Handle, peer netip.Addr) (found []hop) {
	if !peer.IsValid() || peer.IsUnspecified() {
		return nil
	}
	// The route itself (FIBMatch), not what the kernel learned for this one
	// destination a moment ago.
	routes, err := nl.RouteGetWithOptions(peer.AsSlice(), &netlink.RouteGetOptions{Mark: ownMark(nl, peer), FIBMatch: true})
	if err != nil {
		return nil
	}
	for _, r := range routes {
		indexes := []int{r.LinkIndex}
		for _, n := range r.MultiPath {
			indexes = append(indexes, n.LinkIndex)
		}
		for _, i := range indexes {
			link, err := nl.LinkByIndex(i)
			if i == 0 || err != nil {
				continue
			}
			mtu := link.Attrs().MTU
			if r.MTU > 0 {
				mtu = min(mtu, r.MTU)
			}
			found = append(found, hop{link.Attrs().Name, mtu})
		}
	}
	return found
}

// ownMark is the mark of a rule of this package that is in force, perhaps left
// behind: the peer's route is to be looked up as the gateway's sockets will.
func ownMark(nl *netlink.Handle, peer netip.Addr) uint32 {
	family := unix.AF_INET
	if peer.Is6() {
		family = unix.AF_INET6
	}
	rules, err := nl.RuleList(family)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return 0
	}
	for _, r := range rules {
		if r.Protocol == Protocol && r.Invert {
			return r.Mark
		}
	}
	return 0
}

// reversePathNotes names the outside interfaces on which strict reverse path
// filtering would drop what protected peers send (see the package comment).
func (a *Applied) reversePathNotes(p Plan) (notes []string) {
	const conf = "/proc/sys/net/ipv4/conf"
	seen := make(map[string]bool)
	for _, peer := range p.Peers {
		if !peer.Is4() || !p.protects(peer) {
			continue
		}
		for _, h := range hops(a.nl, peer) {
			// The larger of both values holds (ip-sysctl.rst).
			if max(sysctl(conf, "all", "rp_filter"), sysctl(conf, h.iface, "rp_filter")) != 1 || seen[h.iface] {
				continue
			}
			seen[h.iface] = true
			notes = append(notes, fmt.Sprintf("rp_filter is strict on %[1]s and the peer %[2]s lies inside a protected prefix: the kernel drops what it sends; set net.ipv4.conf.%[1]s.rp_filter=2", h.iface, peer))
		}
	}
	return notes
}

// protects tells whether the table leads the address into the TUN: the longest
// prefix that holds it is a protected one.
func (p *Plan) protects(addr netip.Addr) bool {
	best, protected := -1, false
	for _, r := range p.Routes {
		if r.Contains(addr) && r.Bits() > best {
			best, protected = r.Bits(), true
		}
	}
	for _, t := range p.Throw {
		if t.Contains(addr) && t.Bits() > best {
			best, protected = t.Bits(), false
		}
	}
	return protected
}
