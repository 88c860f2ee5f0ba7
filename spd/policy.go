package spd

import (
	"fmt"

	"github.com/adit-ipsec/adit/internal/packet"
)

// Direction is a packet's way through the gateway.
type Direction = packet.Direction

// The two directions: outbound is from the TUN towards the wire.
const (
	Outbound = packet.Outbound
	Inbound  = packet.Inbound
)

// Action is what a policy does with the packets that it matches: "three
// processing choices are possible: DISCARD, BYPASS IPsec, or PROTECT using
// IPsec" (RFC 4301 4.4.1). The zero value discards, so that a forgotten action
// fails closed.
type Action uint8

// The three processing choices.
const (
	Discard Action = iota
	Bypass
	Protect
)

var actionNames = [...]string{Discard: "discard", Bypass: "bypass", Protect: "protect"}

// String is the action's word in the configuration file.
func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return fmt.Sprintf("action(%d)", uint8(a))
}

// ParseAction reads "protect", "bypass" or "discard".
func ParseAction(s string) (Action, error) {
	for a, name := range actionNames {
		if s == name {
			return Action(a), nil
		}
	}
	return Discard, fmt.Errorf("unknown action %q: write protect, bypass or discard", s)
}

// Policy is one entry of the SPD. A *Policy that a Table hands out belongs to
// the table and is not to be changed.
type Policy struct {
	Name     string // unique in its table, not empty
	Selector Selector
	Action   Action
	Peer     string // who protects it; only and always with Protect

	position int // index in its table + 1; 0: in no table
}

// Index is the policy's place in its table, 0 first, and -1 for a policy that
// came from no table.
func (p *Policy) Index() int { return p.position - 1 }

// Validate reports what is wrong with the policy by itself. The error says
// what would be right.
func (p *Policy) Validate() error {
	switch {
	case p.Name == "":
		return fmt.Errorf("a policy has no name: give each policy a name of its own")
	case p.Action > Protect:
		return fmt.Errorf("%v is no action: use protect, bypass or discard", p.Action)
	case p.Action == Protect && p.Peer == "":
		return fmt.Errorf("action protect needs a peer: name the peer that has the SAs")
	case p.Action != Protect && p.Peer != "":
		return fmt.Errorf("action %v takes no peer, and %q is named: remove the peer or use action protect", p.Action, p.Peer)
	}
	return p.Selector.Validate()
}

// clone returns a copy that shares no memory with p.
func (p *Policy) clone() Policy {
	c := *p
	c.Selector = p.Selector.Clone()
	return c
}
