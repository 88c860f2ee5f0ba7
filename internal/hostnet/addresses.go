package hostnet

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// SourceTo is the address that the kernel would send from, towards peer, a packet
// with the mark; invalid: there is no route. It looks at the network namespace of the
// calling thread.
func SourceTo(peer netip.Addr, mark uint32) netip.Addr {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return netip.Addr{}
	}
	defer nl.Close()
	routes, err := nl.RouteGetWithOptions(peer.AsSlice(), &netlink.RouteGetOptions{Mark: mark})
	if err != nil {
		return netip.Addr{}
	}
	for _, r := range routes {
		if a, ok := netip.AddrFromSlice(r.Src); ok {
			return a.Unmap()
		}
	}
	return netip.Addr{}
}

// Addresses lists the addresses of the host that others can answer to, sorted: of
// devices that are up, but for the one named not and loopback, and none that
// duplicate address detection (RFC 4862 5.4) has not passed. It looks at the network
// namespace of the calling thread.
func Addresses(not string) ([]netip.Addr, error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("hostnet: list addresses: %w", err)
	}
	defer nl.Close()
	return addresses(nl, not)
}

func addresses(nl *netlink.Handle, not string) (list []netip.Addr, err error) {
	links, err := dump(func() ([]netlink.Link, error) { return nl.LinkList() })
	if err != nil {
		return nil, fmt.Errorf("hostnet: list devices: %w", err)
	}
	up := map[int]bool{}
	for _, l := range links {
		a := l.Attrs()
		up[a.Index] = a.Flags&net.FlagUp != 0 && a.Flags&net.FlagLoopback == 0 && a.Name != not
	}
	all, err := dump(func() ([]netlink.Addr, error) { return nl.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("hostnet: list addresses: %w", err)
	}
	for _, x := range all {
		a, ok := netip.AddrFromSlice(x.IP)
		a = a.Unmap()
		if ok && up[x.LinkIndex] && x.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 && a.IsGlobalUnicast() {
			list = append(list, a)
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return slices.Compact(list), nil
}

// WatchAddresses calls changed with Addresses(not) each time they are others than
// before; the first time is the first change. It is called in the namespace that it
// is about; stop ends it and waits. A watch that ends by itself says so, once, with
// an error.
func WatchAddresses(not string, changed func([]netip.Addr, error)) (stop func() error, err error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("hostnet: watch addresses: %w", err)
	}
	addrs, links, done := make(chan netlink.AddrUpdate), make(chan netlink.LinkUpdate), make(chan struct{})
	failed := func(err error) {
		select {
		case <-done: // stop closed the socket
		default:
			changed(nil, fmt.Errorf("hostnet: watching addresses: %w", err))
		}
	}
	if err := netlink.AddrSubscribeWithOptions(addrs, done, netlink.AddrSubscribeOptions{ErrorCallback: failed}); err != nil {
		nl.Close()
		return nil, fmt.Errorf("hostnet: watch addresses: %w", err)
	}
	ended := make(chan struct{})
	// A device that is set down keeps its addresses, and nobody can answer to them.
	if err := netlink.LinkSubscribeWithOptions(links, done, netlink.LinkSubscribeOptions{ErrorCallback: failed}); err != nil {
		links = nil
	}
	before, err := addresses(nl, not)
	if err != nil {
		before = nil
	}
	go func() {
		defer close(ended)
		defer nl.Close()
		for addrs != nil || links != nil {
			ok := false
			select {
			case _, ok = <-addrs:
				if !ok {
					addrs = nil
				}
			case _, ok = <-links:
				if !ok {
					links = nil
				}
			}
			if !ok {
				continue
			}
			if now, err := addresses(nl, not); err == nil && !slices.Equal(now, before) {
				before = now
				changed(now, nil)
			}
		}
	}()
	return func() error {
		close(done)
		<-ended
		return nil
	}, nil
}
