package ike

import (
	"fmt"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
)

// The negotiation log: one Event when a stage begins, and one when it is done or
// has failed. What a stranger can cause is bounded by strangerEvents, and what a peer
// can by peerEvents; all of it is counted.
const (
	strangerEvents = 20 // events that unauthenticated messages cause, per strangerPeriod
	strangerPeriod = time.Second
	peerEvents     = 5000 // events of one identity, per peerPeriod
	peerPeriod     = 10 * time.Second
)

// emit gives an event as it is.
func (m *Machine) emit(e Event) { m.do(e) }

// event gives an event of an IKE SA, and fills in what the SA knows.
func (m *Machine) event(sa *ikeSA, e Event) {
	if sa.work != nil && !sa.work.mayLog(m.now) {
		m.count("peer_events_suppressed")
		return
	}
	if sa.peer != nil {
		e.Peer = sa.peer.Name
		e.LocalID = sa.peer.Auth.Identity().String()
	}
	e.Local, e.Remote = sa.path.local, sa.path.remote
	i, r := sa.spis()
	e.SPIi, e.SPIr = uint64(i), uint64(r)
	if sa.proved.Valid() && (sa.state == established || sa.state == replaced || sa.state == deleting) {
		e.RemoteID = sa.proved.ID().String()
	}
	m.emit(e)
}

// failedEvent is the one event of a stage that has failed. more adds what else is
// known; it may be nil.
func (m *Machine) failedEvent(sa *ikeSA, stage Stage, why failure, more func(*Event)) {
	e := why.event(stage)
	if more != nil {
		more(&e)
	}
	m.count("failed_" + why.Reason)
	m.event(sa, e)
}

// event is the failure as an event.
func (f failure) event(stage Stage) Event {
	return Event{
		Stage: stage, Outcome: Failed, Reason: f.Reason, Text: f.Text,
		Theirs: f.Theirs, Ours: f.Ours, Fix: f.Fix,
	}
}

// String is the failure as one line, for a Refuse.
func (f failure) String() string {
	if f.Text == "" {
		return f.Reason
	}
	return f.Reason + ": " + f.Text
}

// detail gives a line of the verbose log; text is only made where it is on.
func (m *Machine) detail(sa *ikeSA, stage Stage, text func() string) {
	if sa.peer == nil || !sa.peer.verbose {
		return
	}
	m.event(sa, Event{Stage: stage, Outcome: Detail, Text: text()})
}

// strangerEvent gives an event that somebody has caused who is not authenticated,
// as long as there are not too many of them.
func (m *Machine) strangerEvent(e Event) {
	if m.strange.mayLog(m.now) {
		m.emit(e)
		return
	}
	m.count("stranger_events_suppressed")
}

// verbose switches the verbose log.
func (m *Machine) verbose(in Verbose) {
	for _, name := range m.names {
		if in.Peer == "" || in.Peer == name {
			m.peers[name].verbose = in.On
		}
	}
}

// refuse says that a policy gets no SA now, if anything waits for it.
func (m *Machine) refuse(p *peer, policy, why string) {
	if !p.wanted[policy] {
		return
	}
	delete(p.wanted, policy)
	delete(p.flows, policy)
	m.do(Refuse{Peer: p.Name, Policy: policy, Why: why})
}

// refuseAll refuses whatever waits for the peer, in the order of its policies.
func (m *Machine) refuseAll(p *peer, why string) {
	for i := range p.Children {
		m.refuse(p, p.Children[i].Policy, why)
	}
}

// summary names the payloads of a message, for the verbose log.
func summary(payloads []wire.Payload) string {
	text := ""
	for i, p := range payloads {
		if i > 0 {
			text += " "
		}
		if n, ok := p.(*wire.Notify); ok {
			text += fmt.Sprintf("N(%s)", n.Kind)
			continue
		}
		text += p.Type().String()
	}
	return text
}
