package sad

import (
	"errors"
	"fmt"
	"slices"

	"github.com/adit-ipsec/adit/internal/packet"
)

// Classes of traffic. RFC 4301 4.1: "If different classes of traffic
// (distinguished by Differentiated Services Code Point (DSCP) bits [...]) are
// sent on the same SA, and if the receiver is employing the optional anti-replay
// feature available in both AH and ESP, this could result in inappropriate
// discarding of lower priority packets due to the windowing mechanism used by
// this feature. Therefore, a sender SHOULD put traffic of different classes, but
// with the same selector values, on different SAs to support Quality of Service
// (QoS) appropriately. To permit this, the IPsec implementation MUST permit
// establishment and maintenance of multiple SAs between a given sender and
// receiver, with the same selectors. Distribution of traffic among these parallel
// SAs to support QoS is locally determined by the sender and is not negotiated by
// IKE. The receiver MUST process the packets from the different SAs without
// prejudice." So there is nothing here for inbound SAs.

// codePoints is how many values a DSCP has (RFC 2474 3).
const codePoints = 64

// Classes says which of several SAs with the same selectors carries a packet, by
// the DSCP of its inner header. Immutable, and a Snapshot's.
type Classes struct {
	peer, policy string
	// sa is the SA of each code point, nil where there is none; the last is
	// the one without a class.
	sa [codePoints + 1]*SA
}

// SA is the SA for a packet of that traffic class (DSCP and ECN) and flow: of
// those that name its DSCP the one installed last, else of those without DSCPs the
// one installed last, else nil.
//
// nil although the policy has SAs: whoever named classes and none for the rest
// said what these SAs are for. RFC 4301 leaves the distribution to the sender. To
// send other classes on them would bring back what they were made against, so that
// the packet finds no SA, as RFC 4301 5.1 has it, and one is asked for.
func (c *Classes) SA(trafficClass uint8, flow *packet.Flow) *SA {
	sa := c.sa[trafficClass>>2]
	if sa == nil {
		sa = c.other()
	}
	if sa != nil && !sa.Matches(Outbound, flow) {
		return nil
	}
	return sa
}

// other is the SA for what no class names.
func (c *Classes) other() *SA { return c.sa[codePoints] }

// OutboundClasses is what carries the policy's packets to the peer: one SA, or,
// where the SAs carry classes of traffic, those; both nil where there is none. The
// policy's own SAs decide alone if it has any, else those for every policy of the
// peer.
func (s *Snapshot) OutboundClasses(peer, policy string) (*SA, *Classes) {
	hash := peerHash(peer)
	if policy != "" {
		own := hash ^ policyHash(policy)
		names := s.outbound[outboundShard(own)][own]
		if sa, classes := names.newest(peer, policy); sa != nil {
			return sa, classes
		}
	}
	hash ^= noPolicy
	names := s.outbound[outboundShard(hash)][hash]
	return names.newest(peer, "")
}

func (n *namesakes) classesOf(peer, policy string) *Classes {
	for _, c := range n.classes {
		if c.peer == peer && c.policy == policy {
			return c
		}
	}
	return nil
}

// reclass is n with new classes for one name, whose SAs have changed. The slices
// of n are shared with older snapshots and stay as they are.
func (n *namesakes) reclass(peer, policy string) namesakes {
	others := n.classes
	if old := n.classesOf(peer, policy); old != nil {
		others = slices.DeleteFunc(slices.Clone(others), func(c *Classes) bool { return c == old })
	}
	if c := newClasses(n.sas, peer, policy); c != nil {
		others = append(slices.Clip(others), c)
	}
	return namesakes{n.sas, others}
}

// newClasses makes the classes of one name out of SAs in order of installation;
// nil where none of them names a class.
func newClasses(sas []*SA, peer, policy string) *Classes {
	c := &Classes{peer: peer, policy: policy}
	classes := false
	for _, sa := range sas {
		if sa.Peer != peer || sa.Policy != policy || sa.around() {
			continue
		}
		for _, dscp := range sa.DSCPs {
			c.sa[dscp], classes = sa, true
		}
		if len(sa.DSCPs) == 0 {
			c.sa[codePoints] = sa
		}
	}
	if !classes {
		return nil
	}
	return c
}

func (p *Params) checkDSCPs() error {
	if p.Direction == Inbound && len(p.DSCPs) > 0 {
		return errors.New("DSCPs on an inbound SA: a receiver takes every class (RFC 4301 4.1): give them to the outbound SA")
	}
	// All of them would share the replay window of the one AH SA around them.
	if p.Bundle && len(p.DSCPs) > 0 {
		return errors.New("DSCPs on an SA of a bundle: classes need SAs of their own, whole: use ESP or AH alone")
	}
	var seen [codePoints]bool
	for _, dscp := range p.DSCPs {
		if dscp >= codePoints {
			return fmt.Errorf("DSCP %d: code points are 0 to %d", dscp, codePoints-1)
		}
		if seen[dscp] {
			return fmt.Errorf("DSCP %d stands there twice", dscp)
		}
		seen[dscp] = true
	}
	return nil
}
