package hostnet

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// state is what the host's tables hold of ours.
type state struct {
	routes map[routeKey]routeTarget
	rules  map[ruleKey]bool
}

// routeKey tells routes of one table apart, as the kernel does.
type routeKey struct {
	dst    netip.Prefix
	metric int
}

// routeTarget is where a route leads: kind is an RTN_ number, link the device
// and source the preferred source address, where there is one, of a unicast
// route.
type routeTarget struct {
	kind, link int
	source     netip.Addr
}

// ruleKey is one rule "not fwmark MARK lookup TABLE".
type ruleKey struct {
	family   int
	priority int
	mark     uint32
}

// state is the plan's share of the tables.
func (p *Plan) state(link int, v6 ipv6Mode) state {
	s := state{routes: make(map[routeKey]routeTarget), rules: make(map[ruleKey]bool)}
	for _, dst := range p.Routes {
		if dst.Addr().Is6() && !v6.tables() {
			continue
		}
		s.routes[routeKey{dst, metricUnreachable}] = routeTarget{kind: unix.RTN_UNREACHABLE}
		if dst.Addr().Is4() || v6.device() {
			s.routes[routeKey{dst, metricTUN}] = routeTarget{unix.RTN_UNICAST, link, p.source(dst)}
		}
	}
	for _, dst := range p.Throw {
		if dst.Addr().Is4() || v6.tables() {
			s.routes[routeKey{dst, metricTUN}] = routeTarget{kind: unix.RTN_THROW}
		}
	}
	s.rules[ruleKey{unix.AF_INET, p.Priority, p.Mark}] = true
	if v6.tables() {
		s.rules[ruleKey{unix.AF_INET6, p.Priority, p.Mark}] = true
	}
	return s
}

// current reads what is in the tables. A table that others use is refused.
func (a *Applied) current() (state, error) {
	s := state{routes: make(map[routeKey]routeTarget), rules: make(map[ruleKey]bool)}
	families := []int{unix.AF_INET}
	if a.v6.stack {
		families = append(families, unix.AF_INET6)
	}
	for _, family := range families {
		rules, err := dump(func() ([]netlink.Rule, error) { return a.nl.RuleList(family) })
		if err != nil {
			return s, fmt.Errorf("hostnet: list rules: %w", err)
		}
		for _, r := range rules {
			if r.Protocol == Protocol && r.Table == int(a.table) {
				s.rules[ruleKey{family, r.Priority, r.Mark}] = true
			}
		}
		routes, err := dump(func() ([]netlink.Route, error) {
			return a.nl.RouteListFiltered(family, &netlink.Route{Table: int(a.table)}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return s, fmt.Errorf("hostnet: list routes of table %d: %w", a.table, err)
		}
		for _, r := range routes {
			if err := a.sortRoute(&s, r); err != nil {
				return s, err
			}
		}
	}
	return s, nil
}

func (a *Applied) sortRoute(s *state, r netlink.Route) error {
	dst, ok := prefixOf(r)
	if !ok || r.Protocol != Protocol {
		return fmt.Errorf("hostnet: routing table %d holds a route of another program (%s): give the gateway a table of its own", a.table, r.Dst)
	}
	target := routeTarget{kind: r.Type}
	if r.Type == unix.RTN_UNICAST {
		target.link = r.LinkIndex
		if source, ok := netip.AddrFromSlice(r.Src); ok {
			target.source = source.Unmap()
		}
		if r.LinkIndex != a.index {
			return fmt.Errorf("hostnet: routing table %d leads %s to another device than %s: another gateway uses it; give this one a table of its own", a.table, dst, a.device)
		}
	}
	s.routes[routeKey{dst, r.Priority}] = target
	return nil
}

func prefixOf(r netlink.Route) (netip.Prefix, bool) {
	if r.Dst == nil {
		if r.Family == unix.AF_INET6 {
			return netip.PrefixFrom(netip.IPv6Unspecified(), 0), true
		}
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0), true
	}
	addr, ok := netip.AddrFromSlice(r.Dst.IP)
	bits, _ := r.Dst.Mask.Size()
	if r.Family == unix.AF_INET {
		addr = addr.Unmap()
	}
	return netip.PrefixFrom(addr, bits), ok
}

// dump repeats a listing that a change to the tables interrupted.
func dump[T any](list func() ([]T, error)) (out []T, err error) {
	for range 8 {
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
	return out, err
}

func (a *Applied) route(k routeKey, t routeTarget) *netlink.Route {
	r := &netlink.Route{
		Dst: ipNet(k.dst), Table: int(a.table), Protocol: Protocol, Priority: k.metric,
		Type: t.kind, LinkIndex: t.link,
	}
	if t.kind == unix.RTN_UNICAST && k.dst.Addr().Is4() {
		r.Scope = netlink.SCOPE_LINK // no gateway behind it
	}
	if t.source.IsValid() {
		r.Src = t.source.AsSlice()
	}
	return r
}

func (a *Applied) rule(k ruleKey) *netlink.Rule {
	mask := ^uint32(0)
	r := netlink.NewRule()
	r.Family, r.Priority, r.Table, r.Protocol = k.family, k.priority, int(a.table), Protocol
	r.Mark, r.Mask, r.Invert = k.mark, &mask, true
	return r
}

// rank is the order in which routes are added: first what leads to the TUN, then
// what refuses, then what lets past. They are removed the other way round. So
// what an old and a new plan both protect is at no moment refused or let past.
func rank(kind int) int {
	return slices.Index([]int{unix.RTN_UNICAST, unix.RTN_UNREACHABLE, unix.RTN_THROW}, kind)
}

// gainRoutes adds what want has and have has not, or has otherwise.
func (a *Applied) gainRoutes(j *journal, have, want state) error {
	keys := slices.SortedFunc(maps.Keys(want.routes), func(x, y routeKey) int {
		return cmp.Or(rank(want.routes[x].kind)-rank(want.routes[y].kind), x.dst.Compare(y.dst))
	})
	for _, k := range keys {
		to := want.routes[k]
		from, there := have.routes[k]
		if there && from == to {
			continue
		}
		if err := a.nl.RouteReplace(a.route(k, to)); err != nil {
			return fmt.Errorf("hostnet: add route %s: %w", k.dst, a.explainSource(to.source, err))
		}
		undo := func() error { return a.nl.RouteDel(a.route(k, to)) }
		if there {
			undo = func() error { return a.nl.RouteReplace(a.route(k, from)) }
		}
		if err := j.done(undo); err != nil {
			return err
		}
	}
	return nil
}

// loseRoutes removes what have has and want has not.
func (a *Applied) loseRoutes(j *journal, have, want state) error {
	keys := slices.SortedFunc(maps.Keys(have.routes), func(x, y routeKey) int {
		return cmp.Or(rank(have.routes[y].kind)-rank(have.routes[x].kind), x.dst.Compare(y.dst))
	})
	for _, k := range keys {
		if _, keep := want.routes[k]; keep {
			continue
		}
		r := a.route(k, have.routes[k])
		if err := a.nl.RouteDel(r); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("hostnet: remove route %s: %w", k.dst, err)
		}
		if err := j.done(func() error { return a.nl.RouteReplace(r) }); err != nil {
			return err
		}
	}
	return nil
}

func (a *Applied) gainRules(j *journal, have, want state) error {
	for k := range want.rules {
		if have.rules[k] {
			continue
		}
		if err := a.nl.RuleAdd(a.rule(k)); err != nil {
			return fmt.Errorf("hostnet: add rule %d: not fwmark %#x lookup %d: %w", k.priority, k.mark, a.table, err)
		}
		if err := j.done(func() error { return a.nl.RuleDel(a.rule(k)) }); err != nil {
			return err
		}
	}
	return nil
}

func (a *Applied) loseRules(j *journal, have, want state) error {
	for k := range have.rules {
		if want.rules[k] {
			continue
		}
		if err := a.nl.RuleDel(a.rule(k)); err != nil && !errors.Is(err, syscall.ENOENT) {
			return fmt.Errorf("hostnet: remove rule %d: not fwmark %#x lookup %d: %w", k.priority, k.mark, a.table, err)
		}
		if err := j.done(func() error { return a.nl.RuleAdd(a.rule(k)) }); err != nil {
			return err
		}
	}
	return nil
}
