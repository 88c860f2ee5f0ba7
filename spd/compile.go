package spd

import (
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
	"slices"
)

// interval is the values from..to of an axis, both included.
type interval struct{ from, to key }

// edge is where policy's membership changes as values of an axis go up.
type edge struct {
	at     key
	policy int
}

// compiler builds a classifier: it walks each axis from its lowest value to
// its highest and keeps the set of policies that match there.
type compiler struct {
	c        *classifier
	current  []uint64 // a bit per policy
	summary  []uint64 // a bit per word of current that is not zero
	interned map[uint64][]uint32
	scratch  []interval
	limit    int  // words that the arena may have
	full     bool // it has more: what was built is not to be used
}

// compile builds the classifier of valid policies. It refuses a table whose
// sets take more than limit words.
func compile(policies []Policy, limit int) (*classifier, error) {
	words := (len(policies) + 63) / 64
	b := &compiler{
		c:        &classifier{policies: len(policies), summaryWords: (words + 63) / 64},
		current:  make([]uint64, words),
		summary:  make([]uint64, (words+63)/64),
		interned: map[uint64][]uint32{},
		limit:    limit,
	}
	c := b.c
	c.all = b.setOfAll(len(policies))
	addrs := func(v4 bool, side func(s *Selector) []AddrRange) axis128 {
		return b.axis(policies, func(s *Selector, out []interval) []interval {
			return addrIntervals(out, side(s), v4)
		})
	}
	local := func(s *Selector) []AddrRange { return s.Local }
	remote := func(s *Selector) []AddrRange { return s.Remote }
	c.local4, c.remote4 = addrs(true, local).narrow(), addrs(true, remote).narrow()
	c.local6, c.remote6 = addrs(false, local), addrs(false, remote)
	protocols := b.axis(policies, protocolIntervals)
	for i := range c.protocol {
		c.protocol[i] = protocols.find(key{lo: uint64(i)})
	}
	ports := func(field func(s *Selector) *Ports) axis32 {
		a := b.axis(policies, func(s *Selector, out []interval) []interval {
			return portIntervals(out, field(s))
		})
		return a.narrow()
	}
	c.localPort = ports(func(s *Selector) *Ports { return &s.LocalPorts })
	c.remotePort = ports(func(s *Selector) *Ports { return &s.RemotePorts })
	c.icmp = ports(func(s *Selector) *Ports { return &s.ICMP })
	if b.full {
		return nil, errTooManyOverlaps
	}
	c.arena = slices.Clone(c.arena)
	return c, nil
}

// axis cuts one field into elementary intervals. intervals appends to out the
// values that a selector matches.
func (b *compiler) axis(policies []Policy, intervals func(s *Selector, out []interval) []interval) axis128 {
	var edges []edge
	for i := range policies {
		b.scratch = mergeIntervals(intervals(&policies[i].Selector, b.scratch[:0]))
		for _, v := range b.scratch {
			edges = append(edges, edge{v.from, i})
			if after, ok := v.to.next(); ok {
				edges = append(edges, edge{after, i})
			}
		}
	}
	slices.SortFunc(edges, func(x, y edge) int { return x.at.compare(y.at) })

	clear(b.current)
	clear(b.summary)
	var a axis128
	for at := (key{}); ; at = edges[0].at {
		for len(edges) > 0 && edges[0].at == at {
			b.toggle(edges[0].policy)
			edges = edges[1:]
		}
		a.starts, a.sets = append(a.starts, at), append(a.sets, b.intern())
		if len(edges) == 0 || b.full {
			break
		}
	}
	return axis128{slices.Clone(a.starts), slices.Clone(a.sets)}
}

// narrow is the axis for values of 32 bits. What starts beyond them (the edge
// after 255.255.255.255) is never looked up and is left out.
func (a axis128) narrow() axis32 {
	var out axis32
	for i, s := range a.starts {
		if s.hi == 0 && s.lo <= math.MaxUint32 {
			out.starts, out.sets = append(out.starts, uint32(s.lo)), append(out.sets, a.sets[i])
		}
	}
	return axis32{slices.Clone(out.starts), slices.Clone(out.sets)}
}

// toggle changes the membership of policy i: a policy's merged intervals never
// touch, so each edge is either its start or its end.
func (b *compiler) toggle(i int) {
	w := i / 64
	b.current[w] ^= 1 << (i % 64)
	b.summary[w/64] &^= 1 << (w % 64)
	if b.current[w] != 0 {
		b.summary[w/64] |= 1 << (w % 64)
	}
}

// setOfAll interns the set of all n policies.
func (b *compiler) setOfAll(n int) uint32 {
	for i := range n {
		b.toggle(i)
	}
	return b.intern()
}

// intern stores the current set, or finds it where it is stored already, and
// returns its offset in the arena.
func (b *compiler) intern() uint32 {
	start := len(b.c.arena)
	arena := append(b.c.arena, b.summary...)
	for i, s := range b.summary {
		for ; s != 0; s &= s - 1 {
			arena = append(arena, b.current[i*64+bits.TrailingZeros64(s)])
		}
	}
	encoded := arena[start:]
	h := uint64(len(encoded))
	for _, w := range encoded {
		hi, lo := bits.Mul64(h^w^0xa0761d6478bd642f, 0xe7037ed1a0b428db)
		h = hi ^ lo
	}
	for _, at := range b.interned[h] {
		// A set's length follows from its summary, so a set that starts
		// with the same words is the same set.
		if end := int(at) + len(encoded); end <= start && slices.Equal(arena[at:end], encoded) {
			b.c.arena = arena[:start]
			return at
		}
	}
	b.c.arena = arena
	b.full = b.full || len(arena) > b.limit
	b.interned[h] = append(b.interned[h], uint32(start))
	return uint32(start)
}

// mergeIntervals sorts v and joins what overlaps or touches.
func mergeIntervals(v []interval) []interval {
	slices.SortFunc(v, func(x, y interval) int { return x.from.compare(y.from) })
	out := v[:0]
	for _, x := range v {
		if n := len(out) - 1; n >= 0 {
			after, ok := out[n].to.next()
			if !ok || x.from.compare(after) <= 0 {
				if x.to.compare(out[n].to) > 0 {
					out[n].to = x.to
				}
				continue
			}
		}
		out = append(out, x)
	}
	return out
}

func addrIntervals(out []interval, ranges []AddrRange, v4 bool) []interval {
	for _, r := range ranges {
		if r.From.Is4() == v4 {
			out = append(out, interval{addrKey(r.From), addrKey(r.To)})
		}
	}
	return out
}

func protocolIntervals(s *Selector, out []interval) []interval {
	switch s.Protocol {
	case ProtocolAny:
		return append(out, interval{key{}, key{lo: opaqueProtocol}})
	case ProtocolOpaque:
		return append(out, interval{key{lo: opaqueProtocol}, key{lo: opaqueProtocol}})
	}
	k := key{lo: uint64(s.Protocol)}
	return append(out, interval{k, k})
}

func portIntervals(out []interval, p *Ports) []interval {
	if p.IsAny() {
		return append(out, interval{key{}, key{lo: opaquePort}})
	}
	for _, r := range p.Ranges {
		out = append(out, interval{key{lo: uint64(r.From)}, key{lo: uint64(r.To)}})
	}
	if p.Opaque {
		out = append(out, interval{key{lo: opaquePort}, key{lo: opaquePort}})
	}
	return out
}

func (k key) compare(x key) int {
	_, below := bits.Sub64(k.lo, x.lo, 0)
	_, below = bits.Sub64(k.hi, x.hi, below)
	switch {
	case below == 1:
		return -1
	case k == x:
		return 0
	}
	return 1
}

// next is the value after k; ok is false behind the last one.
func (k key) next() (after key, ok bool) {
	lo, carry := bits.Add64(k.lo, 1, 0)
	hi, carry := bits.Add64(k.hi, 0, carry)
	return key{hi, lo}, carry == 0
}

// addrKey is the address as a value on its family's axis.
func addrKey(a netip.Addr) key {
	b := a.As16()
	if a.Is4() {
		return key{lo: uint64(binary.BigEndian.Uint32(b[12:]))}
	}
	return key128(&b)
}
