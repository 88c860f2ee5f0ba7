package spd

import (
	"encoding/binary"
	"errors"
	"math/bits"

	"github.com/adit-ipsec/adit/internal/packet"
)

// The compiled form of a policy table: aggregated bit vectors, after
//
//	T. V. Lakshman, D. Stiliadis: High-Speed Policy-based Packet Forwarding
//	Using Efficient Multi-dimensional Range Matching. SIGCOMM 1998.
//	F. Baboescu, G. Varghese: Scalable Packet Classification. SIGCOMM 2001.
//
// Each field of a flow is one axis: local address and remote address (each
// once per family), protocol, local port, remote port, ICMP type and code. The
// ends of all policies' ranges cut an axis into elementary intervals; inside
// one interval the set of policies that match on this axis is the same for
// every value. So a lookup finds one set per axis by binary search, and the
// first policy in all of them is the first policy that matches.
//
// A set is a bit per policy, in table order, in words of 64, stored as the
// summary (bit i: word i is not zero) followed by the non-zero words alone. A
// word's place is the number of summary bits below its own. The lookup ANDs
// summaries first and touches words only where every axis has one, in order,
// and the first bit that is left ends it. Where the summaries agree and the
// words do not, it has looked in vain (Baboescu and Varghese call it a false
// match); that costs a few loads and is the reason why the worst case grows
// with policies/64. Equal sets are stored once, across all axes, so
// an axis that a table does not use is one interval with the set of all
// policies, and that set is left out of the AND.
//
// How protocol and ports go together. A flow has ports (TCP, UDP, SCTP,
// UDP-Lite), or an ICMP type and code, or neither, and fields that are not to
// be had are OPAQUE (RFC 4301 4.4.1): each port axis and the ICMP axis have one
// more value, 65536, and the protocol axis has 256. A policy lies on an axis
// at its ranges, at that extra value if it is OPAQUE, and everywhere if it is
// ANY.
//   - A flow with an ICMP protocol is looked up on the ICMP axis, at its type
//     and code or at OPAQUE, and not on the port axes: Selector.Validate allows
//     port ranges only with protocols that have ports, so every policy left by
//     the protocol axis has ports ANY, or OPAQUE with protocol ANY; ICMP has no
//     ports, and both match.
//   - Any other flow is looked up on both port axes, at OPAQUE if it has none,
//     and not on the ICMP axis: Selector.Validate allows types and codes only
//     with the ICMP protocols, and the protocol axis has excluded those.
//
// So no policy is asked about a field that its protocol does not have, and at
// most five sets are ANDed.
//
// Not chosen: see docs/adr/0002-classifier.md.

const (
	opaqueProtocol = 256
	opaquePort     = 65536
)

// maxArena bounds the sets of one table, in 64-bit words (1 GiB). Ten thousand
// policies whose ranges all overlap at random stay below a tenth of it.
const maxArena = 1 << 27

var errTooManyOverlaps = errors.New("too many policies whose ranges overlap: the compiled table would need more than 1 GiB; merge policies or use fewer ranges")

// A classifier answers which policies of a table match a flow. Immutable.
type classifier struct {
	policies              int
	summaryWords          int    // words of a set's summary
	all                   uint32 // the set of all policies
	local4, remote4       axis32
	local6, remote6       axis128
	protocol              [opaqueProtocol + 1]uint32
	localPort, remotePort axis32
	icmp                  axis32
	arena                 []uint64 // sets; a set is named by its offset
}

// key is a value on an axis, 128 bits wide.
type key struct{ hi, lo uint64 }

// axis128 is one field's elementary intervals: interval i is starts[i] up to,
// not with, starts[i+1], and sets[i] is its set. starts[0] is zero.
type axis128 struct {
	starts []key
	sets   []uint32
}

// axis32 is the same for a field of 32 bits or less: a quarter of the memory,
// and so more of it in the cache.
type axis32 struct {
	starts []uint32
	sets   []uint32
}

// find returns the set of the interval that holds k. The search has no branch
// that depends on k.
func (a *axis128) find(k key) uint32 {
	low, n := 0, len(a.starts)
	for n > 1 {
		half := n / 2
		s := &a.starts[low+half]
		_, below := bits.Sub64(k.lo, s.lo, 0)
		_, below = bits.Sub64(k.hi, s.hi, below) // 1: k < s
		low += half & (int(below) - 1)
		n -= half
	}
	return a.sets[low]
}

// find returns the set of the interval that holds k, without a branch on k.
func (a *axis32) find(k uint32) uint32 {
	low, n := 0, len(a.starts)
	for n > 1 {
		half := n / 2
		below := (int64(k) - int64(a.starts[low+half])) >> 63 // -1: k < start
		low += half &^ int(below)
		n -= half
	}
	return a.sets[low]
}

// maxSets is the number of axes that one flow is looked up on.
const maxSets = 5

// point is a flow's set on each of its axes, without those that hold every
// policy.
type point struct {
	sets [maxSets]uint32
	n    int
}

func (c *classifier) add(p *point, set uint32) {
	if set != c.all {
		p.sets[p.n] = set
		p.n++
	}
}

// locate finds the flow's sets.
func (c *classifier) locate(dir Direction, f *packet.Flow, p *point) {
	local, remote := &f.Src, &f.Dst
	localPort, remotePort := uint32(f.SrcPort), uint32(f.DstPort)
	if dir != Outbound {
		local, remote = remote, local
		localPort, remotePort = remotePort, localPort
	}
	if f.Version == 4 {
		c.add(p, c.local4.find(binary.BigEndian.Uint32(local[12:])))
		c.add(p, c.remote4.find(binary.BigEndian.Uint32(remote[12:])))
	} else {
		c.add(p, c.local6.find(key128(local)))
		c.add(p, c.remote6.find(key128(remote)))
	}
	protocol := int(f.Protocol)
	if f.ProtocolOpaque {
		protocol = opaqueProtocol
	}
	c.add(p, c.protocol[protocol])
	if Protocol(protocol).IsICMP() {
		typeCode := uint32(f.SrcPort)
		if f.PortsOpaque {
			typeCode = opaquePort
		}
		c.add(p, c.icmp.find(typeCode))
		return
	}
	if f.PortsOpaque || f.ProtocolOpaque || !f.HasPorts() {
		localPort, remotePort = opaquePort, opaquePort
	}
	c.add(p, c.localPort.find(localPort))
	c.add(p, c.remotePort.find(remotePort))
}

// key128 is an IPv6 address of a packet.Flow as a value on an axis.
func key128(a *[16]byte) key {
	return key{binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:])}
}

// first returns the index of the first policy in all sets of p, -1 if there is
// none.
func (c *classifier) first(p *point) int {
	if p.n == 0 {
		return min(c.policies, 1) - 1
	}
	var base [maxSets]int // of each set: where the words of this summary word start
	for d := range p.n {
		base[d] = int(p.sets[d]) + c.summaryWords
	}
	for i := range c.summaryWords {
		common := ^uint64(0)
		for d := range p.n {
			common &= c.arena[int(p.sets[d])+i]
		}
		for ; common != 0; common &= common - 1 {
			below := common&-common - 1
			word := ^uint64(0)
			for d := 0; d < p.n && word != 0; d++ {
				rank := bits.OnesCount64(c.arena[int(p.sets[d])+i] & below)
				word &= c.arena[base[d]+rank]
			}
			if word != 0 {
				return (i*64+bits.TrailingZeros64(common))*64 + bits.TrailingZeros64(word)
			}
		}
		for d := range p.n {
			base[d] += bits.OnesCount64(c.arena[int(p.sets[d])+i])
		}
	}
	return -1
}

// word returns the policies w*64 .. w*64+63 that are in all sets of p, as bits.
func (c *classifier) word(p *point, w int) uint64 {
	word := ^uint64(0)
	for _, set := range p.sets[:p.n] {
		at := int(set) + c.summaryWords
		for i := range w / 64 {
			at += bits.OnesCount64(c.arena[int(set)+i])
		}
		summary, bit := c.arena[int(set)+w/64], uint64(1)<<(w%64)
		if summary&bit == 0 {
			return 0
		}
		word &= c.arena[at+bits.OnesCount64(summary&(bit-1))]
	}
	return word
}
