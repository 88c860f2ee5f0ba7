package hostnet

import (
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// Plan is the state that Apply brings about.
type Plan struct {
	Device    string         // the TUN, which exists
	MTU       int            // bytes; 0: leave it
	Addresses []netip.Prefix // for the TUN

	// Routes are the protected remote prefixes: they lead into the TUN.
	Routes []netip.Prefix
	// Throw lists prefixes that must not fall into a protected route: the
	// local networks, and those that the policy bypasses whole. A prefix of
	// which any part, port or protocol is protected does not belong here:
	// it would leave in clear.
	Throw []netip.Prefix

	// Sources say from which address programs of this host, where they choose
	// none, speak with a host that is a protected prefix by itself: transport
	// mode protects a peer's own outer address, and its SA takes packets from
	// this end's outer address alone. See the package comment.
	Sources []Source

	// Peers are the outer addresses of the peers, where they are known. They
	// change nothing; Notes looks at the routes to them.
	Peers []netip.Addr

	Mark     uint32 // of the gateway's own sockets; not 0
	Table    uint32 // 0: TableFor(Device)
	Priority int    // of the rules; 0: DefaultPriority
}

// Source is the preferred source address of one route into the TUN.
type Source struct {
	To   netip.Addr // one of Routes is this address alone: /32 or /128
	From netip.Addr // an address of this host when the plan is applied
}

const (
	// Protocol marks rules and routes as this package's own (rtm_protocol).
	Protocol = 173
	// DefaultPriority of the rules lies right behind the local table's 0, in
	// front of main (32766) and of what other programs add.
	DefaultPriority = 173

	metricTUN         = 173   // of the unicast routes to the TUN
	metricUnreachable = 44311 // of the routes that are left when the TUN is gone
)

// TableFor derives a routing table's number from a device name. It is positive
// as a 32-bit integer, and far from the numbers that people use.
func TableFor(device string) uint32 {
	return 0x0ad1_0000 | crc32.ChecksumIEEE([]byte(device))&0xffff
}

// Prefixes turns an address range into the fewest prefixes that cover it and
// nothing else.
func Prefixes(from, to netip.Addr) []netip.Prefix {
	return netipx.IPRangeFrom(from, to).Prefixes()
}

var (
	errNoDevice = errors.New("hostnet: the plan names no device")
	errNoMark   = errors.New("hostnet: the plan's mark is 0: outer packets could not be told from others and would loop into the TUN; set a mark")
)

// withDefaults returns a checked copy: prefixes masked, sorted, without
// duplicates, table and priority filled in.
func (p Plan) withDefaults() (Plan, error) {
	if p.Device == "" {
		return p, errNoDevice
	}
	if p.Mark == 0 {
		return p, errNoMark
	}
	if p.Table == 0 {
		p.Table = TableFor(p.Device)
	}
	if p.Table < 256 || p.Table > math.MaxInt32 {
		return p, fmt.Errorf("hostnet: routing table %d: take one between 256 and %d", p.Table, math.MaxInt32)
	}
	if p.Priority == 0 {
		p.Priority = DefaultPriority
	}
	if p.Priority < 1 || p.Priority > 32765 {
		return p, fmt.Errorf("hostnet: rule priority %d: take one between 1 and 32765, in front of the main table", p.Priority)
	}
	var err error
	if p.Routes, err = canonical(p.Routes); err != nil {
		return p, fmt.Errorf("hostnet: routes: %w", err)
	}
	if p.Throw, err = canonical(p.Throw); err != nil {
		return p, fmt.Errorf("hostnet: throw: %w", err)
	}
	for _, a := range p.Addresses {
		if !a.IsValid() {
			return p, errors.New("hostnet: addresses: not a prefix")
		}
	}
	if p.Sources, err = checkSources(p.Sources, p.Routes); err != nil {
		return p, fmt.Errorf("hostnet: sources: %w", err)
	}
	p.Throw = usefulThrows(p.Routes, p.Throw)
	return p, nil
}

// canonical returns the prefixes masked, sorted and without duplicates.
func canonical(in []netip.Prefix) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(in))
	for _, p := range in {
		if !p.IsValid() || p.Addr().Is4In6() || p.Addr().Zone() != "" {
			return nil, fmt.Errorf("%q is not an IPv4 or IPv6 prefix", p)
		}
		out = append(out, p.Masked())
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out), nil
}

var linkLocal6 = netip.MustParsePrefix("fe80::/10")

// usefulThrows keeps the throws that lie strictly inside a protected prefix,
// and adds the link-local one where it does.
func usefulThrows(routes, throws []netip.Prefix) []netip.Prefix {
	var keep []netip.Prefix
	for _, t := range append(slices.Clone(throws), linkLocal6) {
		inside := slices.ContainsFunc(routes, func(r netip.Prefix) bool {
			return r.Bits() < t.Bits() && r.Contains(t.Addr())
		})
		if inside && !slices.Contains(routes, t) && !slices.Contains(keep, t) {
			keep = append(keep, t)
		}
	}
	return keep
}
