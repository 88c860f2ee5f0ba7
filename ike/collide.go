package ike

import (
	"bytes"
	"slices"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
)

// Both ends at once.
//
// Two ends that rekey one Child SA at the same time make two pairs out of it. Both
// answer as usual; both then see the same four nonces, and come to the same end.
// RFC 7296 2.8.1: "If redundant SAs are created through such a collision, the SA
// created with the lowest of the four nonces used in the two exchanges SHOULD be
// closed by the endpoint that created it"; and the one that made the pair that
// stays closes the old one. An end that has its answer before it hears of the
// other's request does not know of a collision: it closes the old pair, and the
// other's request finds it being closed (2.25.1, TEMPORARY_FAILURE) or gone
// (CHILD_SA_NOT_FOUND).

// lower is the lower of two nonces. RFC 7296 2.8.1: ""Lowest" means an
// octet-by-octet comparison (instead of, for instance, comparing the nonces as large
// integers). In other words, start by comparing the first octet; if they're equal,
// move to the next octet, and so on. If you reach the end of one nonce, that nonce is
// the lower one."
func lower(a, b []byte) []byte {
	if slices.Compare(a, b) <= 0 { // nonces are no secrets
		return bytes.Clone(a)
	}
	return bytes.Clone(b)
}

// against is the pair that the peer has made while our request was on its way; nil:
// none, or it is gone.
func (t *createTask) against() *childSA {
	rival := t.rival
	if t.rekeys != nil {
		rival = t.rekeys.successor
	}
	if rival == nil || rival.state == childGone || rival.state == childDeleting {
		return nil
	}
	return rival
}

// loses tells whether our new pair is the one to be closed.
func (t *createTask) loses(c *childSA) bool {
	rival := t.against()
	return rival != nil && slices.Compare(c.lowest, rival.lowest) < 0
}

// settle is the end of an exchange of ours that made c: who closes what.
func (t *createTask) settle(m *Machine, c *childSA, lost bool) {
	old, rival := t.rekeys, t.against()
	if lost {
		if old != nil && old.state == childRekeying {
			m.lingers(old, childReplaced) // it is the peer's to close
		}
		m.closeChild(c, "redundant", "both ends asked at once: the peer's stays")
		return
	}
	if rival != nil {
		m.redundant(rival)
	}
	if old != nil && old.state != childGone {
		if rival != nil {
			old.successor, rival.replaces = nil, nil
		}
		m.closeChild(old, "rekeyed", "")
	}
	if t.cancelled {
		m.closeChild(c, "terminated", "")
	}
}

// redundant sets a pair of the peer's aside, which it is to close: nothing is sent
// on it.
func (m *Machine) redundant(c *childSA) {
	if w := c.waiting; w != nil {
		w.timer.stop()
		wipeParams([]sad.Params{w.params})
		c.waiting = nil
	}
	m.removeOutbound(c)
	m.lingers(c, childRedundant)
}

// maxGone bounds how many SPIs a task remembers that nobody knows.
const maxGone = 16

// deletedChildren takes the peer's Delete payloads for AH and ESP, and gives those
// of the answer.
func (m *Machine) deletedChildren(sa *ikeSA, payloads []wire.Payload) (answer []wire.Payload) {
	for _, d := range wire.All[*wire.Delete](payloads) {
		if d.Protocol == wire.ProtocolIKE {
			continue
		}
		var spis []uint32
		for _, spi := range d.SPIs {
			c := sa.childByOut(d.Protocol, spi)
			if c != nil && m.deletedChild(sa, c) {
				spis = append(spis, c.spiIn)
			}
			if t, ok := sa.doing().(*createTask); ok && c == nil && len(t.gone) < maxGone {
				t.gone = append(t.gone, spi)
			}
		}
		if len(spis) > 0 {
			answer = append(answer, &wire.Delete{Protocol: d.Protocol, SPIs: spis})
		}
	}
	return answer
}

// deletedChild takes the peer's delete of one pair, and tells whether the answer
// has ours. RFC 7296 2.25.1: "If a peer receives a request to close a Child SA that
// it is currently trying to close, it SHOULD reply without a Delete payload. If a
// peer receives a request to close a Child SA that it is currently rekeying, it
// SHOULD reply as usual, with a Delete payload. If a peer receives a request to
// close a Child SA that does not exist, it SHOULD reply without a Delete payload."
func (m *Machine) deletedChild(sa *ikeSA, c *childSA) bool {
	switch c.state {
	case childDeleting:
		// Gone at both ends: our request may still be on its way.
		m.dropChild(sa, c, "", "")
		return false
	case childReplaced, childRedundant:
		m.dropChild(sa, c, "", "")
		return true
	}
	if c.successor != nil {
		// Our own rekey of it is on its way, and will settle what it makes.
		m.dropChild(sa, c, "", "")
		return true
	}
	m.dropChild(sa, c, "deleted_by_peer", "the peer has deleted it")
	m.restoreLater(sa, c)
	return true
}

// restoreLater asks for a pair again in a while where the policy is to be up always:
// the peer has had its reasons.
func (m *Machine) restoreLater(sa *ikeSA, c *childSA) {
	if sa.peer.Start != AtOnce || !sa.peer.Role.initiates() {
		return
	}
	wait, _ := c.trouble.next(m)
	m.again(sa.peer, c.child.Policy, wait, func(now *ikeSA) {
		if !sa.peer.hasPair(c.child.Policy) {
			m.wantChild(now, c.child.Policy)
		}
	})
}
