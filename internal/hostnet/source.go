package hostnet

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// checkSources returns the sources sorted and without duplicates. routes are
// canonical.
func checkSources(in []Source, routes []netip.Prefix) ([]Source, error) {
	out := slices.Clone(in)
	slices.SortFunc(out, func(x, y Source) int { return cmp.Or(x.To.Compare(y.To), x.From.Compare(y.From)) })
	out = slices.Compact(out)
	for i, s := range out {
		switch {
		case !usableHost(s.To) || !usableHost(s.From):
			return nil, fmt.Errorf("%q towards %q is not an IPv4 or IPv6 host address each", s.From, s.To)
		case s.To.Is4() != s.From.Is4():
			return nil, fmt.Errorf("%s and %s are not of one family", s.From, s.To)
		case !slices.Contains(routes, hostPrefix(s.To)):
			return nil, fmt.Errorf("%s is to speak with %s, which no route protects by itself: add the route %s", s.From, s.To, hostPrefix(s.To))
		case i > 0 && out[i-1].To == s.To:
			return nil, fmt.Errorf("%s and %s are both to speak with %s", out[i-1].From, s.From, s.To)
		}
	}
	return out, nil
}

func usableHost(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && a.Zone() == "" && !a.IsUnspecified() && !a.IsMulticast()
}

func hostPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// source is the preferred source of the route to dst; invalid: the kernel's
// choice.
func (p *Plan) source(dst netip.Prefix) netip.Addr {
	for _, s := range p.Sources {
		if hostPrefix(s.To) == dst {
			return s.From
		}
	}
	return netip.Addr{}
}

// explainSource says why the kernel refused a route with this source: err is
// EINVAL for a source that is not, or not yet, an address of the host.
func (a *Applied) explainSource(source netip.Addr, err error) error {
	if !source.IsValid() || !errors.Is(err, syscall.EINVAL) {
		return err
	}
	addrs, listErr := dump(func() ([]netlink.Addr, error) { return a.nl.AddrList(nil, netlink.FAMILY_ALL) })
	if listErr != nil {
		return err
	}
	i := slices.IndexFunc(addrs, func(x netlink.Addr) bool { return x.IP.Equal(net.IP(source.AsSlice())) })
	switch {
	case i < 0:
		return fmt.Errorf("%w: its source %s is not an address of this host", err, source)
	case addrs[i].Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0:
		return fmt.Errorf("%w: its source %s is not usable yet, or never: duplicate address detection (RFC 4862 5.4) has not passed", err, source)
	}
	return err
}
