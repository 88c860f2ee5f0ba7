package spd

import (
	"encoding/binary"
	"math/bits"

	"github.com/adit-ipsec/adit/internal/packet"
)

// Claims walks the policies that a flow could match, in order, were the fields
// that it lacks to be had: one for whose opaque ports some value would match,
// and one that matches as the flow stands. A fragment that is not the first of
// its datagram has ports, in another packet; this says which policies could
// mean it. Use as:
//
//	for c := table.Claims(dir, &flow); ; {
//		p, certain := c.Next()
//		if p == nil || certain { break }
//	}
type Claims struct {
	table *Table
	flow  *packet.Flow
	dir   Direction
	point point  // the flow's addresses, and its protocol where that is to be had
	index int    // of the word of policies that is being walked
	word  uint64 // what is left of it
}

// Claims starts the walk for the flow, which is borrowed for it.
func (t *Table) Claims(dir Direction, f *packet.Flow) Claims {
	c := Claims{table: t, flow: f, dir: dir, index: -1}
	if f.Version != 4 && f.Version != 6 {
		c.index = t.words()
		return c
	}
	t.classifier.locateAddrs(dir, f, &c.point)
	if !f.ProtocolOpaque {
		t.classifier.add(&c.point, t.classifier.protocol[f.Protocol])
	}
	return c
}

// Next returns the next policy, nil behind the last. certain: the policy matches
// the flow as it stands, whatever the missing fields are; Lookup would return it
// if it is the first such.
func (c *Claims) Next() (p *Policy, certain bool) {
	for c.word == 0 {
		if c.index++; c.index >= c.table.words() {
			c.index = c.table.words()
			return nil, false
		}
		c.word = c.table.classifier.word(&c.point, c.index)
		if left := len(c.table.policies) - c.index*64; left < 64 {
			c.word &= 1<<left - 1
		}
	}
	i := c.index*64 + bits.TrailingZeros64(c.word)
	c.word &= c.word - 1
	p = &c.table.policies[i]
	return p, p.Selector.Match(c.dir, c.flow)
}

// locateAddrs is the part of locate that looks at addresses.
func (c *classifier) locateAddrs(dir Direction, f *packet.Flow, p *point) {
	local, remote := &f.Src, &f.Dst
	if dir != Outbound {
		local, remote = remote, local
	}
	if f.Version == 4 {
		c.add(p, c.local4.find(binary.BigEndian.Uint32(local[12:])))
		c.add(p, c.remote4.find(binary.BigEndian.Uint32(remote[12:])))
		return
	}
	c.add(p, c.local6.find(key128(local)))
	c.add(p, c.remote6.find(key128(remote)))
}

func (t *Table) words() int { return (len(t.policies) + 63) / 64 }
