package ike

import (
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
)

// Whether the peer is there. RFC 7296 2.4: "If there has only been outgoing traffic
// on all of the SAs associated with an IKE SA, it is essential to confirm liveness of
// the other endpoint to avoid black holes. If no cryptographically protected messages
// have been received on an IKE SA or any of its Child SAs recently, the system needs
// to perform a liveness check in order to prevent sending messages to a dead peer."
//
//	startLiveness  Peer.DPD behind the last sign of life: look
//	look           have packets come on the Child SAs?  AskHeard -> Heard -> heardOn
//	check          an empty INFORMATIONAL; without an answer the window ends the SA
//
// The machine does not see packets, so that it asks when it has to know: once in
// Peer.DPD, and nothing for each packet. What it hears is when the newest one came,
// so a peer that dies is asked Peer.DPD behind its last packet, and no later.

// heardWait is how long an AskHeard may be without its Heard, which the driver steps
// at once: one that does not know the question has the peer asked.
const heardWait = time.Second

// startLiveness sets when the peer is looked after.
func (m *Machine) startLiveness(sa *ikeSA) {
	p := sa.peer
	if p.DPD <= 0 || p.Role == Passive {
		return
	}
	sa.timers.liveness.stop()
	sa.timers.liveness = m.at(max(sa.heard+p.DPD, m.now), func() { m.lookAlive(sa) })
}

// lookAlive finds out whether anything has come of the peer.
func (m *Machine) lookAlive(sa *ikeSA) {
	if sa.state != established {
		return
	}
	if m.now-sa.heard < sa.peer.DPD {
		m.startLiveness(sa) // an IKE message has come meanwhile
		return
	}
	ids := sa.listening()
	if len(ids) == 0 {
		m.checkLiveness(sa)
		return
	}
	sa.timers.liveness = m.after(heardWait, func() { m.checkLiveness(sa) })
	m.do(AskHeard{SPI: uint64(sa.spi), IDs: ids})
}

// listening are the inbound SAs whose packets say that the peer is there. RFC 7296
// 2.4: "Receipt of a fresh cryptographically protected message on an IKE SA or any of
// its Child SAs ensures liveness of the IKE SA and all of its Child SAs." Without a
// replay window nothing is known to be fresh: an old packet could be sent again by
// anybody, for ever.
func (sa *ikeSA) listening() (ids []sad.ID) {
	for _, c := range sa.children {
		if c.receives && c.child.Template.ReplayWindow > 0 {
			ids = append(ids, c.in)
		}
	}
	return ids
}

// heardOn takes the answer to an AskHeard.
func (m *Machine) heardOn(in Heard) {
	sa := m.sas[wire.SPI(in.SPI)]
	if sa == nil || sa.state != established || sa.peer.DPD <= 0 || sa.peer.Role == Passive {
		return
	}
	if !in.Never {
		sa.heard = max(sa.heard, m.now-in.Ago)
	}
	if m.now-sa.heard < sa.peer.DPD {
		m.startLiveness(sa)
		return
	}
	m.checkLiveness(sa)
}

// checkLiveness asks the peer itself, unless it is being asked something: that is a
// check, too.
func (m *Machine) checkLiveness(sa *ikeSA) {
	if sa.state == established && sa.ours.task == nil {
		m.enqueue(sa, sa.liveness())
	}
	if sa.state != established {
		return
	}
	sa.timers.liveness.stop()
	sa.timers.liveness = m.after(sa.peer.DPD, func() { m.startLiveness(sa) })
}

// livenessTask is an empty INFORMATIONAL.
type livenessTask struct{}

func (livenessTask) kind() wire.ExchangeType { return wire.Informational }

func (livenessTask) request(m *Machine, sa *ikeSA) ([]wire.Payload, error) {
	m.count("liveness_checks")
	return nil, nil
}

func (livenessTask) response(*Machine, *ikeSA, []wire.Payload) {} // that it came says all

func (livenessTask) failed(*Machine, *ikeSA, failure) {} // the window ends the SA

// askHeard is the driver's part.
func (d *Driver) askHeard(a AskHeard) Heard {
	ago, ok := d.cfg.SAD.Heard(a.IDs...)
	return Heard{SPI: a.SPI, Ago: ago, Never: !ok}
}
