package ike

import (
	"slices"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
)

// When the responder starts to send. RFC 7296 2.8: "the responder MAY begin
// sending on an SA as soon as it sends its response to the CREATE_CHILD_SA request. In
// some situations, however, this could result in packets unnecessarily being dropped,
// so an implementation MAY defer such sending. The responder can be assured that the
// initiator is prepared to receive messages on an SA if either (1) it has received a
// cryptographically valid message on the other half of the SA pair, or (2) the new SA
// rekeys an existing SA and it receives an IKE request to close the replaced SA. When
// rekeying an SA, the responder continues to send traffic on the old SA until one of
// those events occurs."
//
// Here the events are: the old SA is closed, by either end; or the peer asks for
// anything else on the IKE SA, which it does only once it has our answer, its
// window being 1; or, where IKE_AUTH made the pair, the peer answers anything on the
// IKE SA, which it has only once it has that answer. No clock is among them as long
// as there is another pair that works: an answer may be lost for longer than any
// grace.

// deferOutbound keeps the outbound SA of a pair that the peer has asked for, until
// the peer is known to have its side. after is the pair that it replaces; nil, with
// some other pair of the policy in use: after a grace in which that has gone it is
// used in any case.
func (m *Machine) deferOutbound(c *childSA, params sad.Params, after *childSA) {
	w := &waitingOutbound{params: params, after: after, sa: c.sa, id: c.sa.theirs.next - 1}
	c.waiting = w
	if after == nil {
		m.switchWhenAlone(c)
	}
}

// switchWhenAlone has packets use a pair at the end of a grace with no other one of
// its policy. RFC 7296 2.8: "When establishing a new SA, the responder MAY defer
// sending messages on a new SA until either it receives one or a timeout has
// occurred." The timeout is not for where the new SA stands beside one that works,
// as in a reauthentication: our answer may be lost, and the peer ask again for
// longer than the grace.
func (m *Machine) switchWhenAlone(c *childSA) {
	c.waiting.timer = m.after(m.timing.Grace, func() {
		if m.works(c.sa.peer, c.child.Policy) {
			m.switchWhenAlone(c)
			return
		}
		m.switchOutbound(c)
	})
}

// works tells whether a pair of the policy sends and receives.
func (m *Machine) works(p *peer, policy string) bool {
	for _, sa := range p.sas {
		for _, c := range sa.children {
			if c.child.Policy == policy && c.sends && c.receives {
				return true
			}
		}
	}
	return false
}

// answeredOn says that the peer has answered a request of ours on the IKE SA: it has
// our IKE_AUTH, with what that made.
func (m *Machine) answeredOn(sa *ikeSA) {
	for _, c := range slices.Clone(sa.children) {
		if w := c.waiting; w != nil && w.sa == sa && sa.authID != 0 && w.id == sa.authID && c.live() {
			m.switchOutbound(c)
		}
	}
}

// switchFrom has packets use what is to come behind c: its successor, or another
// pair of the policy that waits, as after reauthentication.
func (m *Machine) switchFrom(c *childSA) {
	if c.successor != nil {
		m.switchOutbound(c.successor)
		return
	}
	if other := m.liveChild(c.sa.peer, c.child.Policy, c); !c.sends || other != nil && other.sends {
		return // packets are on another one
	}
	for _, sa := range c.sa.peer.sas {
		for _, other := range sa.children {
			if other != c && other.child.Policy == c.child.Policy && other.live() {
				m.switchOutbound(other)
			}
		}
	}
}

// switchOutbound has packets use the pair from now on.
func (m *Machine) switchOutbound(c *childSA) {
	w := c.waiting
	if w == nil || c.state == childGone {
		return
	}
	c.waiting = nil
	w.timer.stop()
	params := []sad.Params{w.params}
	m.install(params, nil, time.Duration(0), func(err error) {
		wipeParams(params)
		c.sends = err == nil
		if c.state == childGone || c.state == childRedundant || c.state == childDeleting {
			m.removeOutbound(c) // it went in the same step
		}
		if err != nil {
			m.childEvent(c, Event{Stage: StageChild, Outcome: Failed, Reason: "install", Text: err.Error()})
			m.closeChild(c, "install", "its outbound SA could not be installed")
		}
	})
}

// useWaiting has packets use a pair of the policy that waits for the peer, and tells
// whether there is one: it is called where there is nothing else to send on.
func (m *Machine) useWaiting(p *peer, policy string) bool {
	for _, sa := range p.sas {
		for _, c := range sa.children {
			if c.child.Policy == policy && c.live() && c.waiting != nil && c.waiting.after == nil {
				m.switchOutbound(c)
				return true
			}
		}
	}
	return false
}

// heardOf says that the peer asks with message id: it has our answers to what it
// asked before.
func (m *Machine) heardOf(sa *ikeSA, id uint32, payloads []wire.Payload) {
	if sa.peer == nil || deletesIKE(payloads) {
		return
	}
	m.inherit(sa)
	for _, other := range sa.peer.sas {
		for _, c := range slices.Clone(other.children) {
			if c.waiting.proved(sa, id, c) && !deletes(payloads, c) {
				m.switchOutbound(c)
			}
		}
	}
}

// proved tells whether a request says that the peer has the answer that made c.
func (w *waitingOutbound) proved(sa *ikeSA, id uint32, c *childSA) bool {
	switch {
	case w == nil || !c.live():
		return false
	case w.after != nil && w.after.state == childRekeying:
		return false // who wins a collision is not known before our own answer is here
	case w.sa == sa:
		return id > w.id
	}
	return c.sa == sa // the IKE SA has been rekeyed since
}

func deletesIKE(payloads []wire.Payload) bool {
	return slices.ContainsFunc(wire.All[*wire.Delete](payloads), func(d *wire.Delete) bool { return d.Protocol == wire.ProtocolIKE })
}

// deletes tells whether the peer deletes the pair.
func deletes(payloads []wire.Payload, c *childSA) bool {
	return slices.ContainsFunc(wire.All[*wire.Delete](payloads), func(d *wire.Delete) bool {
		return d.Protocol == c.protocol && slices.Contains(d.SPIs, c.spiOut)
	})
}
