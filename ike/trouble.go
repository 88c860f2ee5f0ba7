package ike

import "time"

// What went wrong last with a peer, for who asks: the log has it too, and a night later
// it is far up there.

// trouble is the last failure of a peer, as long as nothing has gone well since.
type trouble struct {
	event Event
	at    time.Duration
	there bool
}

// note takes an event to the peer that it is about.
func (m *Machine) note(e *Event) {
	p := m.peers[e.Peer]
	switch {
	case p == nil:
	case e.Outcome == Failed:
		p.trouble = trouble{*e, m.now, true}
	case e.Outcome == Done && p.trouble.overBy(e):
		p.trouble = trouble{}
	}
}

// overBy tells whether a success shows that the trouble is over.
func (t *trouble) overBy(e *Event) bool {
	switch {
	case e.Stage == StageAuth:
		return true
	case e.Stage == StageChild || e.Stage == StageRekeyChild:
		of := t.event.Stage
		return (of == StageChild || of == StageRekeyChild) && (t.event.Policy == "" || t.event.Policy == e.Policy)
	}
	return e.Stage == t.event.Stage && e.Stage != StageDelete
}

// trouble is what went wrong last; nil: nothing, or it is over.
func (m *Machine) troubleOf(p *peer) *Trouble {
	if !p.trouble.there {
		return nil
	}
	return &Trouble{Event: p.trouble.event, Ago: m.now - p.trouble.at}
}
