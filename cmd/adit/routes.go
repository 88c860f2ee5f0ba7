package main

import (
	"net"
	"net/netip"
	"slices"

	"github.com/adit-ipsec/adit/internal/hostnet"
	"github.com/adit-ipsec/adit/spd"
)

// routePlan is where a policy table wants packets to go.
type routePlan struct {
	into  []netip.Prefix // into the TUN
	throw []netip.Prefix // past the TUN, out of what lies in into
}

// planRoutes derives routes from policies. What a protect or discard policy
// calls remote leads into the TUN, and the gateway decides there, packet by
// packet; only a discard of everything does not, which would cut the host off:
// it speaks of what enters the TUN for other reasons. Past the
// TUN go local networks and what is bypassed whole; a mistake there is a leak,
// and a mistake the other way only a packet that the gateway drops, so that
// every doubt leads into the TUN. connected are the networks that the host's
// interfaces stand in.
func planRoutes(policies []spd.Policy, connected []netip.Prefix) routePlan {
	var plan routePlan
	for i := range policies {
		plan.into = append(plan.into, ledIn(&policies[i])...)
	}
	for i := range policies {
		switch s := &policies[i].Selector; policies[i].Action {
		case spd.Protect:
			for _, local := range prefixes(s.Local) {
				plan.throw = append(plan.throw, localThrows(local, s, policies, connected)...)
			}
		case spd.Bypass:
			plan.throw = append(plan.throw, bypassed(s, policies[:i])...)
		case spd.Discard:
			for _, local := range prefixes(s.Local) {
				plan.throw = append(plan.throw, standsIn(local, connected)...)
			}
		}
	}
	plan.into, plan.throw = tidy(plan.into), tidy(plan.throw)
	// The TUN wins where both say the same prefix, and a throw outside all
	// that leads there changes nothing.
	plan.throw = slices.DeleteFunc(plan.throw, func(t netip.Prefix) bool {
		return !slices.ContainsFunc(plan.into, func(p netip.Prefix) bool { return within(t, p) }) || slices.Contains(plan.into, t)
	})
	return plan
}

// ledIn is the remote prefixes of a policy that lead into the TUN.
func ledIn(p *spd.Policy) []netip.Prefix {
	remote := prefixes(p.Selector.Remote)
	switch p.Action {
	case spd.Protect:
		return remote
	case spd.Discard:
		return slices.DeleteFunc(remote, func(r netip.Prefix) bool { return r.Bits() == 0 })
	}
	return nil
}

// standsIn is the part of local that lies in a network that the host stands in.
func standsIn(local netip.Prefix, connected []netip.Prefix) (list []netip.Prefix) {
	if local.Bits() == 0 {
		return nil // "any" names no network
	}
	for _, c := range connected {
		switch {
		case within(local, c):
			return []netip.Prefix{local}
		case within(c, local):
			list = append(list, c)
		}
	}
	return list
}

// localThrows is the part of local, one of the local prefixes of s, that is
// surely local although a prefix that leads into the TUN holds it: a network
// that the host stands in, or one that s itself names on both sides, as in
// "10.1.0.0/24 to 10.0.0.0/8", unless another policy calls it remote more
// precisely than s.
func localThrows(local netip.Prefix, s *spd.Selector, policies []spd.Policy, connected []netip.Prefix) []netip.Prefix {
	list := standsIn(local, connected)
	if local.Bits() == 0 || slices.Equal(list, []netip.Prefix{local}) {
		return list
	}
	around := -1 // the bits of the narrowest remote prefix of s that holds local
	for _, remote := range prefixes(s.Remote) {
		if within(local, remote) {
			around = max(around, remote.Bits())
		}
	}
	if around < 0 {
		return list
	}
	for i := range policies {
		for _, remote := range ledIn(&policies[i]) {
			if remote.Overlaps(local) && remote.Bits() > around {
				return list
			}
		}
	}
	return append(list, local)
}

// bypassed is the remote prefixes of a bypass policy that may go past the TUN
// by the routing table, which knows destinations only: the policy asks for
// nothing else, and no policy before it decides otherwise about a part of them.
func bypassed(s *spd.Selector, earlier []spd.Policy) []netip.Prefix {
	if s.Protocol != spd.ProtocolAny {
		return nil
	}
	var list []netip.Prefix
	local := prefixes(s.Local)
	for _, remote := range prefixes(s.Remote) {
		everyone := slices.ContainsFunc(local, func(l netip.Prefix) bool {
			return l.Bits() == 0 && l.Addr().Is4() == remote.Addr().Is4()
		})
		if everyone && !decidedBefore(remote, earlier) {
			list = append(list, remote)
		}
	}
	return list
}

func decidedBefore(remote netip.Prefix, earlier []spd.Policy) bool {
	return slices.ContainsFunc(earlier, func(p spd.Policy) bool {
		return p.Action != spd.Bypass && slices.ContainsFunc(prefixes(p.Selector.Remote), remote.Overlaps)
	})
}

// within tells whether every address of a is one of b.
func within(a, b netip.Prefix) bool { return b.Bits() <= a.Bits() && b.Contains(a.Addr()) }

func prefixes(ranges []spd.AddrRange) []netip.Prefix {
	var list []netip.Prefix
	for _, r := range ranges {
		list = append(list, hostnet.Prefixes(r.From, r.To)...)
	}
	return list
}

// tidy sorts and drops what stands twice.
func tidy(list []netip.Prefix) []netip.Prefix {
	slices.SortFunc(list, netip.Prefix.Compare)
	return slices.Compact(list)
}

// connectedNetworks is the networks that the host's interfaces stand in, but
// for the loopback and the TUN.
func connectedNetworks(tun string) ([]netip.Prefix, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var list []netip.Prefix
	for _, one := range interfaces {
		if one.Name == tun || one.Flags&net.FlagLoopback != 0 {
			continue
		}
		addresses, err := one.Addrs()
		if err != nil {
			return nil, err
		}
		for _, a := range addresses {
			if n, ok := a.(*net.IPNet); ok {
				if p, err := netip.ParsePrefix(n.String()); err == nil {
					list = append(list, p.Masked())
				}
			}
		}
	}
	return tidy(list), nil
}
