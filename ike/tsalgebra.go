package ike

import (
	"net/netip"
	"slices"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/spd"
)

// What traffic selectors mean as sets: to meet, to cover, to narrow, and to become
// the selectors of an SA.

// maxBoxes bounds the work of tsCovers, in pieces that are cut. A list that takes more
// than that to cover a selector is taken not to.
const maxBoxes = 1 << 14

// maxSASelectors bounds how many selectors an SA gets: each packet is held to them
// one after another (RFC 4301 5.2).
const maxSASelectors = 256

// tsBox is a traffic selector as a box: each dimension from..to. Protocols are
// 0..256 and ports 0..65536, of which the last is "not to be had".
type tsBox struct {
	number [2][2]int // protocols and ports
	addr   [2]netip.Addr
}

// The dimensions of tsBox.number.
const (
	protocols = iota
	ports
)

const (
	boxProtocols = 256
	boxOpaque    = 65536
)

func boxOf(s wire.Selector) tsBox {
	b := tsBox{addr: [2]netip.Addr{s.From, s.To}}
	b.number[protocols] = [2]int{int(s.Protocol), int(s.Protocol)}
	if s.Protocol == 0 {
		b.number[protocols][1] = boxProtocols
	}
	switch (tsPorts{s.FromPort, s.ToPort}) {
	case portsAny:
		b.number[ports] = [2]int{0, boxOpaque}
	case portsOpaque:
		b.number[ports] = [2]int{boxOpaque, boxOpaque}
	default:
		b.number[ports] = [2]int{int(s.FromPort), int(s.ToPort)}
	}
	return b
}

// minus appends what of b is not in c to rest.
func (b tsBox) minus(c tsBox, rest []tsBox) []tsBox {
	if b.number[protocols][1] < c.number[protocols][0] || c.number[protocols][1] < b.number[protocols][0] ||
		b.number[ports][1] < c.number[ports][0] || c.number[ports][1] < b.number[ports][0] ||
		b.addr[1].Less(c.addr[0]) || c.addr[1].Less(b.addr[0]) {
		return append(rest, b)
	}
	for d := range b.number { // what lies below and above in one dimension goes
		if b.number[d][0] < c.number[d][0] {
			below := b
			below.number[d][1] = c.number[d][0] - 1
			rest = append(rest, below)
			b.number[d][0] = c.number[d][0]
		}
		if b.number[d][1] > c.number[d][1] {
			above := b
			above.number[d][0] = c.number[d][1] + 1
			rest = append(rest, above)
			b.number[d][1] = c.number[d][1]
		}
	}
	if b.addr[0].Less(c.addr[0]) {
		below := b
		below.addr[1] = c.addr[0].Prev()
		rest = append(rest, below)
	}
	if c.addr[1].Less(b.addr[1]) {
		above := b
		above.addr[0] = c.addr[1].Next()
		rest = append(rest, above)
	}
	return rest
}

// within tells whether all of b is in c.
func (b tsBox) within(c tsBox) bool {
	return c.number[protocols][0] <= b.number[protocols][0] && b.number[protocols][1] <= c.number[protocols][1] &&
		c.number[ports][0] <= b.number[ports][0] && b.number[ports][1] <= c.number[ports][1] &&
		!b.addr[0].Less(c.addr[0]) && !c.addr[1].Less(b.addr[1])
}

// tsCoversAlone is tsCovers with a list of one.
func tsCoversAlone(c, s wire.Selector) bool {
	if !tsUsable(s) || !tsUsable(c) {
		return false
	}
	if portless(s.Protocol) {
		c = openPorts(c)
	}
	return boxOf(s).within(boxOf(c))
}

// tsCovers tells whether each packet that matches s matches one of list.
func tsCovers(list []wire.Selector, s wire.Selector) bool {
	if !tsUsable(s) {
		return false
	}
	// Mostly one alone does. A peer's list can be made to cost a hundred times as
	// much to take apart.
	if slices.ContainsFunc(list, func(c wire.Selector) bool { return tsCoversAlone(c, s) }) {
		return true
	}
	rest, next, work := []tsBox{boxOf(s)}, []tsBox(nil), 0
	for _, c := range list {
		if !tsUsable(c) {
			continue
		}
		if portless(s.Protocol) {
			c = openPorts(c)
		}
		next = next[:0]
		for _, b := range rest {
			next = b.minus(boxOf(c), next)
		}
		work += len(rest)
		if rest, next = next, rest; work > maxBoxes {
			return false
		}
	}
	return len(rest) == 0
}

// tsWithin tells whether all of part is in whole, list by list.
func tsWithin(part, whole tsPair) bool {
	in := func(list, of []wire.Selector) bool {
		return len(list) > 0 && !slices.ContainsFunc(list, func(s wire.Selector) bool { return !tsCovers(of, s) })
	}
	return in(part.local, whole.local) && in(part.remote, whole.remote)
}

// tsApart tells whether no packet can match both, one at each end.
func tsApart(local, remote wire.Selector) bool {
	return local.Protocol != 0 && remote.Protocol != 0 && local.Protocol != remote.Protocol ||
		local.From.Is4() != remote.From.Is4()
}

// meetTS is what two traffic selectors of one side have in common.
func meetTS(a, b wire.Selector) (wire.Selector, bool) {
	if a.Protocol != 0 && b.Protocol != 0 && a.Protocol != b.Protocol || a.From.Is4() != b.From.Is4() {
		return wire.Selector{}, false
	}
	m := wire.Selector{Protocol: max(a.Protocol, b.Protocol), From: a.From, To: a.To}
	if m.From.Less(b.From) {
		m.From = b.From
	}
	if b.To.Less(m.To) {
		m.To = b.To
	}
	if portless(m.Protocol) {
		a, b = openPorts(a), openPorts(b)
	}
	ports, ok := meetPorts(tsPorts{a.FromPort, a.ToPort}, tsPorts{b.FromPort, b.ToPort})
	m.FromPort, m.ToPort = ports.from, ports.to
	return m, ok && !m.To.Less(m.From)
}

// portless tells whether packets of the protocol have no ports: ICMP's type and
// code are none.
func portless(protocol uint8) bool { return protocol != 0 && !spd.Protocol(protocol).HasPorts() }

// openPorts is s for a protocol that has no ports: where s says OPAQUE of any
// protocol, or of one that has no such field at all, this is all of that protocol.
func openPorts(s wire.Selector) wire.Selector {
	opaque := tsPorts{s.FromPort, s.ToPort} == portsOpaque
	if opaque && !spd.Protocol(s.Protocol).IsICMP() {
		s.FromPort, s.ToPort = portsAny.from, portsAny.to
	}
	return s
}

func meetPorts(a, b tsPorts) (tsPorts, bool) {
	switch {
	case a == portsAny:
		return b, true
	case b == portsAny:
		return a, true
	case a == portsOpaque || b == portsOpaque:
		return a, a == b
	}
	m := tsPorts{max(a.from, b.from), min(a.to, b.to)}
	return m, m.from <= m.to
}

// widest leaves out what another of the list covers. The order stays.
func widest(list []wire.Selector) []wire.Selector {
	var out []wire.Selector
	for _, s := range list {
		out = addWidest(out, s)
	}
	return out
}

func addWidest(list []wire.Selector, s wire.Selector) []wire.Selector {
	for _, other := range list {
		if tsCoversAlone(other, s) {
			return list
		}
	}
	list = slices.DeleteFunc(list, func(other wire.Selector) bool { return tsCoversAlone(s, other) })
	return append(list, s)
}

// meetLists is what two lists have in common: at most maxTS of it.
func meetLists(a, b []wire.Selector) []wire.Selector {
	var out []wire.Selector
	for _, x := range a {
		for _, y := range b {
			m, ok := meetTS(x, y)
			if !ok {
				continue
			}
			if wide := addWidest(out, m); len(wide) <= maxTS {
				out = wide
			}
		}
	}
	return out
}

// narrowTS is the responder's choice (RFC 7296 2.9): of what the initiator asks
// for, all that the policy has. more: the policy has more of it, which one Child SA
// cannot carry. ok false: there is nothing in common.
func narrowTS(policy []spd.Selector, theirs tsPair) (answer tsPair, more, ok bool) {
	theirs = tsPair{slices.DeleteFunc(slices.Clone(theirs.local), unusable), slices.DeleteFunc(slices.Clone(theirs.remote), unusable)}
	var parts []tsPair
	for i := range policy {
		one, err := selectorTS(&policy[i])
		if err != nil {
			continue
		}
		part := tsPair{meetLists(theirs.local, one.local), meetLists(theirs.remote, one.remote)}
		if matching(part) {
			parts = append(parts, part)
		}
	}
	if len(parts) == 0 {
		return tsPair{}, false, false
	}
	// RFC 7296 2.9: "If the responder's policy allows it to accept the first selector
	// of TSi and TSr, then the responder MUST narrow the Traffic Selectors to a subset
	// that includes the initiator's first choices."
	first := 0
	for i, part := range parts {
		if hasFirst(part, theirs) {
			first = i
			break
		}
	}
	answer = parts[first]
	for i, part := range parts {
		if i == first {
			continue
		}
		sum := tsPair{widest(slices.Concat(answer.local, part.local)), widest(slices.Concat(answer.remote, part.remote))}
		if len(sum.local) > maxTS || len(sum.remote) > maxTS || !offerable(policy, sum) {
			more = true
			continue
		}
		answer = sum
	}
	return answer, more, true
}

func unusable(s wire.Selector) bool { return !tsUsable(s) }

// matching tells whether some packet matches the pair.
func matching(p tsPair) bool {
	for _, l := range p.local {
		for _, r := range p.remote {
			if !tsApart(l, r) {
				return true
			}
		}
	}
	return false
}

// hasFirst tells whether the part has something of the first selector of each
// list.
func hasFirst(part, theirs tsPair) bool {
	meets := func(list []wire.Selector, first wire.Selector) bool {
		return slices.ContainsFunc(list, func(s wire.Selector) bool { _, ok := meetTS(s, first); return ok })
	}
	return len(theirs.local) > 0 && len(theirs.remote) > 0 &&
		meets(part.local, theirs.local[0]) && meets(part.remote, theirs.remote[0])
}
