package dataplane

import (
	"math/rand/v2"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// flowCacheSize is the number of flows that a worker remembers; a power of two.
const flowCacheSize = 2048

const _ = uint(-(flowCacheSize & (flowCacheSize - 1))) // a power of two, or this does not compile

// decision is what the databases say about one flow.
type decision struct {
	policy *spd.Policy // nil: no match, discard
	sa     *sad.SA     // outbound, protect: nil while there is none
	around *sad.SA     // outbound, of a bundle: AH, around what sa makes
	// classes are asked for the SA of each packet, where there are several
	// by DSCP; nil: sa it is. The cache knows flows, not their DSCPs.
	classes *sad.Classes
}

// flowCache is a direct-mapped cache of decisions, one per worker and
// direction, valid for one policy table and one SA snapshot. It never grows and
// is never locked: a collision overwrites.
type flowCache struct {
	direction spd.Direction
	seed      uint64
	table     *spd.Table
	sas       *sad.Snapshot
	entries   [flowCacheSize]struct {
		flow  packet.Flow
		valid bool
		decision
	}
}

func newFlowCache(d spd.Direction) *flowCache {
	// The seed only keeps outsiders from aiming at one slot: a collision
	// costs a lookup, never a wrong answer.
	return &flowCache{direction: d, seed: rand.Uint64()} //nolint:gosec // G404: not a secret
}

// use makes the cache speak for these databases; called once per batch. After a
// change every entry is forgotten, so that none can outlive its policy or SA.
func (c *flowCache) use(table *spd.Table, sas *sad.Snapshot) {
	if c.table == table && c.sas == sas {
		return
	}
	c.table, c.sas = table, sas
	clear(c.entries[:])
}

// lookup returns what the databases say about flow.
func (c *flowCache) lookup(flow *packet.Flow) decision {
	e := &c.entries[flow.Hash(c.seed)&(flowCacheSize-1)]
	if e.valid && e.flow == *flow {
		return e.decision
	}
	e.flow, e.valid, e.decision = *flow, true, c.decide(flow)
	return e.decision
}

func (c *flowCache) decide(flow *packet.Flow) decision {
	if c.table == nil {
		return decision{}
	}
	if flow.PortsOpaque || flow.ProtocolOpaque {
		return c.decideOpaque(flow)
	}
	return c.apply(c.table.Lookup(c.direction, flow), flow)
}

// apply is what policy p, nil for none, decides about the flow.
func (c *flowCache) apply(p *spd.Policy, flow *packet.Flow) decision {
	if p == nil || p.Action != spd.Protect || c.direction == spd.Inbound {
		return decision{policy: p}
	}
	sa, classes := c.sas.OutboundClasses(p.Peer, p.Name)
	if classes != nil {
		return decision{policy: p, classes: classes}
	}
	if sa != nil && !sa.Matches(spd.Outbound, flow) {
		sa = nil // negotiated narrower than the policy: not for this packet
	}
	if sa == nil || !sa.Bundle {
		return decision{policy: p, sa: sa}
	}
	around := c.sas.OutboundAH(sa)
	if around == nil || !around.Matches(spd.Outbound, flow) {
		return decision{policy: p} // one half of two is none
	}
	return decision{policy: p, sa: sa, around: around}
}
