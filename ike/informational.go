package ike

import (
	"slices"

	"github.com/adit-ipsec/adit/ike/wire"
)

// INFORMATIONAL, RFC 7296 1.4: deletes and errors; liveness is in liveness.go, MOBIKE in
// mobike.go.

// deleteIKE deletes an IKE SA: nothing else is asked on it, its Child SAs go at
// once, and it goes itself when the peer has answered, or does not.
func (m *Machine) deleteIKE(sa *ikeSA, reason string) {
	m.deleteWith(sa, nil, reason)
}

// deleteReplaced is deleteIKE for an IKE SA whose pairs are made anew on another one.
func (m *Machine) deleteReplaced(sa *ikeSA, reason string) {
	m.yield(sa)
	// First those that nothing is sent on yet: they are no place to switch to.
	for _, waiting := range []bool{true, false} {
		for _, c := range sa.children {
			if waiting == (c.waiting != nil) {
				m.awaitsDelete(c)
			}
		}
	}
	m.deleteIKE(sa, reason)
}

// deleteWith is deleteIKE, with a notification in place of the Delete payload.
func (m *Machine) deleteWith(sa *ikeSA, n *wire.Notify, reason string) {
	if sa.state == dead || sa.state == closed {
		return
	}
	if sa.state == deleting {
		for _, c := range slices.Clone(sa.children) {
			m.dropChild(sa, c, reason, "the IKE SA is deleted") // what awaits the end of it
		}
		return
	}
	if sa.state == established {
		m.yield(sa)
	}
	why := failure{Reason: reason, Text: "the IKE SA is deleted"}
	// The peer has nothing to delete before it has our IKE_AUTH.
	early := sa.state == starting || sa.state == halfOpen || sa.ours.task != nil && sa.ours.task.kind() == wire.IKEIntermediate
	silent := early || sa.keys == nil || sa.peer == nil || sa.peer.Role == Passive
	if silent {
		m.deleted(sa, reason)
		return
	}
	waiting := sa.ours.queue
	sa.ours.queue = nil
	for _, t := range waiting {
		t.failed(m, sa, why)
	}
	for _, c := range slices.Clone(sa.children) {
		if !c.awaits {
			m.dropChild(sa, c, reason, why.Text)
		}
	}
	sa.state = deleting
	sa.timers.stop()
	m.enqueue(sa, &deleteIKETask{reason: reason, notify: n})
}

// deleted is the end of an IKE SA that this end wanted.
func (m *Machine) deleted(sa *ikeSA, reason string) {
	m.event(sa, Event{Stage: StageDelete, Outcome: Done, Reason: reason})
	m.forget(sa, failure{Reason: reason, Text: "the IKE SA was deleted"})
}

// deleteIKETask is the INFORMATIONAL that deletes the IKE SA.
type deleteIKETask struct {
	reason string
	notify *wire.Notify
}

func (*deleteIKETask) kind() wire.ExchangeType { return wire.Informational }

func (t *deleteIKETask) request(*Machine, *ikeSA) ([]wire.Payload, error) {
	if t.notify != nil {
		return []wire.Payload{t.notify}, nil
	}
	return []wire.Payload{&wire.Delete{Protocol: wire.ProtocolIKE}}, nil
}

func (t *deleteIKETask) response(m *Machine, sa *ikeSA, _ []wire.Payload) { m.deleted(sa, t.reason) }

func (*deleteIKETask) failed(*Machine, *ikeSA, failure) {}

// informationalRequest takes the peer's INFORMATIONAL.
func informationalRequest(m *Machine, sa *ikeSA, payloads []wire.Payload, answer func(...wire.Payload)) {
	deletes := wire.All[*wire.Delete](payloads)
	if slices.ContainsFunc(deletes, func(d *wire.Delete) bool { return d.Protocol == wire.ProtocolIKE }) {
		// RFC 7296 1.4.1: "Deleting an IKE SA implicitly closes any remaining
		// Child SAs negotiated under it. The response to a request that deletes
		// the IKE SA is an empty INFORMATIONAL response."
		answer()
		m.deletedByPeer(sa, StageDelete, failure{Reason: "deleted_by_peer", Text: "the peer has deleted the IKE SA"})
		return
	}
	if n := wire.FindNotify(payloads, wire.NotifyAuthenticationFailed); n != nil {
		answer()
		m.deletedByPeer(sa, StageAuth, failure{
			Reason: "authentication_failed", Text: "the peer does not believe this end",
			Theirs: n.Kind.String(), Ours: sa.peer.Auth.Identity().String(),
			Fix: "compare identities, secrets and certificates on both; the peer's log says which",
		})
		return
	}
	var out []wire.Payload
	if sa.state == established {
		out = m.mobikeRequest(sa, payloads)
	}
	answer(append(out, m.deletedChildren(sa, payloads)...)...)
}

// deletedByPeer is the end of an IKE SA that the peer wanted.
func (m *Machine) deletedByPeer(sa *ikeSA, stage Stage, why failure) {
	m.yield(sa)
	p := sa.peer
	if stage == StageDelete {
		m.event(sa, Event{Stage: stage, Outcome: Done, Reason: why.Reason, Text: why.Text})
	} else {
		m.failedEvent(sa, stage, why, nil)
	}
	wasUp := sa.state == established
	m.close(sa, why)
	switch {
	case !wasUp:
	case stage == StageAuth:
		m.attemptFailed(p, why)
	default:
		m.startAgain(p)
	}
}
