package dataplane

import (
	"sync/atomic"
	"time"

	"github.com/adit-ipsec/adit/sad"
)

// counters are one worker's. Only that worker writes them, so the atomics are
// never contended; they are padded apart from the next worker's.
type counters struct {
	_       [64]byte
	drops   [reasons]atomic.Uint64
	packets atomic.Uint64 // forwarded: outbound sealed and sent, inbound written to the TUN
	bytes   atomic.Uint64 // their inner lengths
	bypass  atomic.Uint64 // sent in clear because a policy says so
	keep    atomic.Uint64 // NAT keepalives received
	iked    atomic.Uint64 // IKE messages handed to the inbox
	moves   atomic.Uint64 // peers that were followed to another endpoint
	strays  atomic.Uint64 // authentic packets from elsewhere, not followed
	lost    atomic.Uint64 // events that found the channel full

	tooBigSent atomic.Uint64 // PTB messages into the TUN

	heldPackets atomic.Uint64 // that have waited, or do, for an SA
	released    atomic.Uint64 // of those, that went on with one

	_ [64]byte
}

// drop counts packets that a walk ended. The loops that called the walk are
// its only callers.
func (c *counters) drop(reason DropReason, n int) {
	if n > 0 {
		c.drops[reason].Add(uint64(n))
	}
}

// Counter is one named figure that only grows while the gateway lives.
type Counter struct {
	Name  string
	Value uint64
}

// Stats is a snapshot of a gateway's figures. Counters of different workers
// are read one after the other, so that sums may be off by packets in flight.
type Stats struct {
	Uptime   time.Duration
	Traffic  []Counter   // OutPackets, OutBytes, … InPackets, InBytes, … EventsLost
	Drops    []Counter   // every DropReason by name, zero or not, in the order of the walks
	SAs      []sad.Stats // every SA, in no order
	Offloads []Offload
	Policies int

	// HeldPackets and HeldBytes wait for an SA now.
	HeldPackets, HeldBytes int64
}

// Counter returns a figure by name from Traffic or Drops, 0 for no such name.
func (s Stats) Counter(name string) uint64 {
	for _, list := range [][]Counter{s.Drops, s.Traffic} {
		for _, c := range list {
			if c.Name == name {
				return c.Value
			}
		}
	}
	return 0
}

// Stats returns a snapshot. It may be called at any time, also after Close.
func (g *Gateway) Stats() Stats {
	s := Stats{Uptime: g.clock(), Offloads: g.offloads(), HeldPackets: g.holding.packets.Load(), HeldBytes: g.holding.bytes.Load()}
	if table := g.policy.Load(); table != nil {
		s.Policies = len(table.Policies())
	}
	sum := func(pick func(*counters) uint64, of ...*counters) (total uint64) {
		for _, c := range of {
			total += pick(c)
		}
		return total
	}
	out, in := g.outCounters(), g.inCounters()
	all := append(append([]*counters{}, out...), in...)
	packets := func(c *counters) uint64 { return c.packets.Load() }
	bytes := func(c *counters) uint64 { return c.bytes.Load() }
	s.Traffic = []Counter{
		{"OutPackets", sum(packets, out...)},
		{"OutBytes", sum(bytes, out...)},
		{"OutBypass", sum(func(c *counters) uint64 { return c.bypass.Load() }, out...)},
		{"OutKeepalives", g.keepalives.Load()},
		{"OutDummies", g.dummies.sent.Load()},
		{"OutTruncated", g.truncated()},
		{"OutTooBigSent", sum(func(c *counters) uint64 { return c.tooBigSent.Load() }, out...)},
		{"OutHeld", sum(func(c *counters) uint64 { return c.heldPackets.Load() }, out...)},
		{"OutReleased", sum(func(c *counters) uint64 { return c.released.Load() }, out...)},
		{"InPackets", sum(packets, in...)},
		{"InBytes", sum(bytes, in...)},
		{"InKeepalives", sum(func(c *counters) uint64 { return c.keep.Load() }, in...)},
		{"InIKE", sum(func(c *counters) uint64 { return c.iked.Load() }, in...)},
		{"InPeerMoves", sum(func(c *counters) uint64 { return c.moves.Load() }, in...)},
		{"InPeerElsewhere", sum(func(c *counters) uint64 { return c.strays.Load() }, in...)},
		{"InSkipped", g.skipped()},
		{"OffloadFallbacks", fallbacks(s.Offloads)},
		{"EventsLost", sum(func(c *counters) uint64 { return c.lost.Load() }, all...) + g.eventsLost.Load()},
	}
	s.Traffic = append(s.Traffic, g.path.counters()...)
	s.Traffic = append(s.Traffic, Counter{"InProbes", sum(func(c *counters) uint64 { return c.drops[probed].Load() }, in...)})
	for _, reason := range DropReasons() {
		n := sum(func(c *counters) uint64 { return c.drops[reason].Load() }, all...)
		if reason == OutMalformed {
			n += g.malformed()
		}
		s.Drops = append(s.Drops, Counter{reason.String(), n})
	}
	for sa := range g.sas.Load().All() {
		s.SAs = append(s.SAs, sa.Stats())
	}
	return s
}

// fallbacks is how many superpackets the kernel refused, of all offloads.
func fallbacks(list []Offload) (total uint64) {
	for _, o := range list {
		total += o.Fallbacks
	}
	return total
}

// truncated is how often the TUN queue had more segments of a superpacket than
// a batch holds, and lost the rest. Queues that cannot say count none.
func (g *Gateway) truncated() (total uint64) {
	for _, q := range g.queues {
		if q, ok := q.(interface{ Truncated() uint64 }); ok {
			total += q.Truncated()
		}
	}
	return total
}

// malformed is how many reads of the TUN had a virtio-net header that made no
// sense. Queues without such headers count none.
func (g *Gateway) malformed() (total uint64) {
	for _, q := range g.queues {
		if q, ok := q.(interface{ Malformed() uint64 }); ok {
			total += q.Malformed()
		}
	}
	return total
}

// skipped is how many datagrams the wires received and did not hand on. Wires
// that cannot say count none.
func (g *Gateway) skipped() (total uint64) {
	for _, wire := range g.wires {
		if w, ok := wire.(interface{ Skipped() uint64 }); ok {
			total += w.Skipped()
		}
	}
	return total
}
