package ike

import (
	"net/netip"
	"slices"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
)

// The life of an IKE SA behind its exchanges:
//
//	establish -> adopt -> timers: liveness, rekey, reauth, hard
//	ended     the initiator's attempt failed, or the peer is silent
//	rejected  the responder refused
//	close     over; the last answer is still said again to who asks again
//	forget    gone

// newSPI is an SPI that this end does not use. RFC 7296 3.1: it "MUST NOT be
// zero".
func (m *Machine) newSPI() wire.SPI {
	for {
		var spi wire.SPI
		for _, b := range m.random(8) {
			spi = spi<<8 | wire.SPI(b)
		}
		if spi != 0 && m.sas[spi] == nil {
			return spi
		}
	}
}

// establish makes an IKE SA that of a peer that has proved who it is. It is the
// only way to the state established for one that began with IKE_SA_INIT, and
// proved has no other source than auth.Remote.Verify. duplicates is to follow, at
// the responder behind its answer: the initiator takes no question before that.
func (m *Machine) establish(sa *ikeSA, p *peer, proved auth.Peer, initialContact bool) {
	f := sa.first
	sa.peer, sa.proved, sa.opener, sa.origin = p, proved, sa.initiator, lower(sa.ni, sa.nr)
	sa.carried = sa.path
	sa.work = sa.allowanceOf()
	m.uncount(sa)
	if initialContact {
		m.initialContact(sa)
	}
	p.failures, p.notAgain = 0, 0
	p.retry.stop()
	p.retry = nil
	sa.authAt = m.now
	m.adopt(sa)
	m.count("established")
	m.event(sa, Event{
		Stage: StageAuth, Outcome: Done, Initiator: sa.initiator, Suite: sa.choice.Keyword(),
		Authentication: proved.Method(), Took: m.now - f.began,
	})
	if f.exchange != nil {
		f.exchange.Discard()
	}
	sa.first = nil
	m.replaceByReauth(f.instead)
	m.makeRoom(sa)
}

// maxSAsOfOne bounds the IKE SAs that one identity has: Limits.MaxSAs is what all
// peers share. Reauthentication and collisions need three; the rest is for what a
// peer has left behind and nothing has found out yet.
const maxSAsOfOne = 16

// beside are the IKE SAs of who has proved to be on the other end of sa, oldest
// first, sa included.
func (sa *ikeSA) beside() []*ikeSA {
	return slices.DeleteFunc(slices.Clone(sa.peer.sas), func(other *ikeSA) bool {
		return !other.proved.Valid() || !other.proved.ID().Equal(sa.proved.ID())
	})
}

// makeRoom forgets the oldest IKE SAs of who has just authenticated once more, and
// of a peer that comes by any name: what names it has costs it nothing.
func (m *Machine) makeRoom(sa *ikeSA) {
	all := sa.beside()
	drop := all[:max(0, len(all)-maxSAsOfOne)]
	if n := len(sa.peer.sas); len(drop) == 0 && sa.peer.Remotely.ID.IsZero() && n > max(maxSAsOfOne, m.limits.MaxSAs/2) {
		drop = slices.Clone(sa.peer.sas[:1])
	}
	for _, old := range drop {
		if old != sa {
			m.count("too_many_sas_of_one")
			m.event(old, Event{Stage: StageDelete, Outcome: Done, Reason: "too_many_sas", Text: "the peer has more IKE SAs than one may have: the oldest goes"})
			m.forget(old, failure{Reason: "too_many_sas", Text: "the peer has more IKE SAs than one may have"})
		}
	}
}

// uncount takes an SA out of the count of strangers: its peer is authenticated, or
// nothing is left of it. One that was refused counts until then.
func (m *Machine) uncount(sa *ikeSA) {
	if sa.first != nil && sa.first.counted.IsValid() {
		m.strange.closed(sa.first.counted)
		sa.first.counted = netip.Addr{}
	}
}

// adopt puts an established IKE SA where its peer has its SAs, and starts its
// timers. A rekeyed one is adopted with proved, peer, path, keys and choice set.
func (m *Machine) adopt(sa *ikeSA) {
	p := sa.peer
	sa.state, sa.up, sa.heard = established, m.now, m.now
	if sa.rekeyOf != nil {
		sa.authAt = sa.rekeyOf.authAt
	}
	m.sas[sa.spi] = sa
	if !slices.Contains(p.sas, sa) {
		p.sas = append(p.sas, sa)
	}
	m.startLifetimes(sa)
	m.startLiveness(sa)
}

// hardShare: without Peer.Hard an IKE SA lives a tenth longer than Peer.Rekey.
const hardShare = 10

// startLifetimes sets when the SA is rekeyed, reauthenticated and deleted.
func (m *Machine) startLifetimes(sa *ikeSA) {
	p := sa.peer
	soft, hard := p.Rekey, p.Hard
	if hard == 0 && soft > 0 {
		hard = soft + soft/hardShare
	}
	if soft > 0 && p.Role.rekeys() {
		// RFC 7296 2.8.1: "To reduce the probability of this happening", that both ends
		// rekey at once, "the timing of rekeying requests SHOULD be jittered".
		early := m.jitter(soft * jitterPercent / 100)
		sa.timers.rekey = m.after(soft-early, func() { m.rekeyIKE(sa) })
	}
	if hard > 0 {
		sa.timers.hard = m.after(hard, func() { m.hardLifetime(sa) })
	}
	if p.Reauth > 0 && sa.opener && p.Role.initiates() {
		sa.timers.reauth = m.at(max(m.now, sa.authAt+p.Reauth), func() { m.reauthenticate(sa) })
	}
}

// jitterPercent is how much of Rekey is taken off at random, at most.
const jitterPercent = 10

// hardLifetime is the end of an SA that nobody has replaced in time.
func (m *Machine) hardLifetime(sa *ikeSA) {
	if sa.state != established {
		return
	}
	if sa.heir != nil && sa.heir.state == established {
		// The peer has replaced it, and our own rekey is on its way: the end of that
		// says which of the two has the pairs.
		sa.timers.hard = m.after(m.timing.Grace, func() { m.hardLifetime(sa) })
		return
	}
	p := sa.peer
	m.event(sa, Event{Stage: StageDelete, Outcome: Began, Reason: "lifetime", Text: "the IKE SA has reached its hard lifetime"})
	m.deleteIKE(sa, "lifetime")
	m.startAgain(p)
}

// reauthenticate makes a new IKE SA beside this one, which goes once that is up.
// RFC 7296 2.8.3: "Reauthentication is done by creating a new IKE SA from scratch
// [...], creating new Child SAs within the new IKE SA [...], and finally deleting the
// old IKE SA".
func (m *Machine) reauthenticate(sa *ikeSA) {
	if sa.state != established {
		return
	}
	p := sa.peer
	if p.connecting() {
		// One at a time: a peer that answers none, and rekeys what is there, would
		// have any number of them begun.
		sa.timers.reauth = m.after(m.timing.HalfOpen, func() { m.reauthenticate(sa) })
		return
	}
	for _, c := range sa.children {
		p.wanted[c.child.Policy] = true
	}
	m.connect(p, sa)
}

// replaceByReauth lets the old IKE SA go once its Child SAs have had time to be made
// anew on the other. One that was made on the old one meanwhile is asked for.
func (m *Machine) replaceByReauth(old *ikeSA) {
	if old == nil || old.state != established {
		return
	}
	old.retiring = true
	m.retireOnceCopied(old, surplusTries)
}

func (m *Machine) retireOnceCopied(old *ikeSA, tries int) {
	m.after(m.timing.Grace, func() {
		if old.state != established {
			return
		}
		if to := old.peer.current(); tries > 0 && to != nil && to != old && m.copyPairs(old, to) {
			m.retireOnceCopied(old, tries-1)
			return
		}
		m.deleteReplaced(old, "reauthenticated")
	})
}

// initialContact forgets what a peer that has restarted has forgotten. RFC 7296
// 2.4, of INITIAL_CONTACT: "the recipient MAY use this information to delete any
// other IKE SAs it has to the same authenticated identity without waiting for a
// timeout." One that came up
// while this one was being made is no leftover: both ends began at once.
func (m *Machine) initialContact(sa *ikeSA) {
	for _, other := range slices.Clone(sa.peer.sas) {
		if other == sa || !other.proved.ID().Equal(sa.proved.ID()) || other.up >= sa.born {
			continue
		}
		if other.state == established || other.state == replaced || other.state == deleting {
			m.count("initial_contact")
			m.event(other, Event{Stage: StageDelete, Outcome: Done, Reason: "initial_contact", Text: "the peer has restarted"})
			m.forget(other, failure{Reason: "initial_contact", Text: "the peer has restarted"})
		}
	}
}

// ended is the end of an IKE SA that this end did not want: one failed event, and
// what is to be tried next. stage is where it stood.
func (m *Machine) ended(sa *ikeSA, stage Stage, why failure) {
	m.yieldAndAsk(sa)
	switch sa.state {
	case dead, closed:
		return
	case deleting, replaced:
		m.event(sa, Event{Stage: StageDelete, Outcome: Done, Reason: why.Reason, Text: "gone, without the peer's answer"})
		m.forget(sa, why)
		return
	}
	p, wasUp := sa.peer, sa.state == established
	m.failedEvent(sa, stage, why, func(e *Event) {
		e.Initiator = !wasUp
		e.Took = m.now - sa.born
		if sa.ours.task != nil {
			e.Retransmits = sa.ours.tries - 1
		}
	})
	m.forget(sa, why)
	if wasUp {
		m.startAgain(p)
		return
	}
	m.attemptFailed(p, why)
}

// rejected is the end of a half-open IKE SA: the answer, which is sent already, is
// all that is left of it for a while.
func (m *Machine) rejected(sa *ikeSA, stage Stage, why failure) {
	e := why.event(stage)
	m.count("failed_" + why.Reason)
	if f := sa.first; f != nil {
		e.Peer = onlyName(f.candidates)
		if f.suspect != nil {
			e.Peer = f.suspect.Name
		}
		e.Took = m.now - f.began
	}
	e.Local, e.Remote, e.SPIi, e.SPIr = sa.path.local, sa.path.remote, uint64(sa.spiR), uint64(sa.spi)
	m.strangerEvent(e)
	m.close(sa, why)
}

// close ends an IKE SA but for its last answer, which the peer may not have got.
func (m *Machine) close(sa *ikeSA, why failure) {
	if sa.state == dead || sa.state == closed {
		return
	}
	m.retire(sa, why)
	sa.state = closed
	if p := sa.peer; p != nil {
		p.over = append(p.over, sa)
		if len(p.over) > maxSAsOfOne {
			m.forget(p.over[0], why)
		}
	}
	sa.timers.closed = m.after(m.timing.HalfOpen, func() { m.forget(sa, why) })
}

// forget ends an IKE SA. Nothing is left of it.
func (m *Machine) forget(sa *ikeSA, why failure) {
	if sa.state == dead {
		return
	}
	if sa.state != closed {
		m.retire(sa, why)
	} else if p := sa.peer; p != nil {
		p.over = slices.DeleteFunc(p.over, func(s *ikeSA) bool { return s == sa })
	}
	sa.timers.stop()
	m.forgetFirst(sa)
	m.uncount(sa)
	sa.state = dead
	delete(m.sas, sa.spi)
	if sa.keys != nil {
		sa.keys.Wipe()
		sa.keys = nil
	}
}

// retire takes an IKE SA away from its peer: its tasks fail, its Child SAs go, its
// timers stop.
func (m *Machine) retire(sa *ikeSA, why failure) {
	sa.timers.stop()
	sa.unlinkHeirs()
	if f := sa.first; f != nil {
		if f.exchange != nil {
			f.exchange.Discard()
		}
	}
	m.failTasks(sa, why)
	for _, e := range slices.Clone(sa.expected) {
		sa.giveUp(e)
	}
	for _, c := range slices.Clone(sa.children) {
		m.dropChild(sa, c, why.Reason, why.Text)
	}
	if p := sa.peer; p != nil {
		p.sas = slices.DeleteFunc(p.sas, func(s *ikeSA) bool { return s == sa })
	}
}

// unlinkHeirs lets an IKE SA go out of its succession: what it was to replace may be
// replaced by another, and what was to replace it waits for nothing any more.
func (sa *ikeSA) unlinkHeirs() {
	if old := sa.rekeyOf; old != nil && old.heir == sa && old.state == established {
		old.heir = nil
	}
	if sa.heir != nil && sa.heir.rekeyOf == sa {
		sa.heir.untried = false
	}
}

// failTasks fails the exchange on its way and all that wait.
func (m *Machine) failTasks(sa *ikeSA, why failure) {
	w := &sa.ours
	waiting := w.queue
	w.queue = nil
	if t := w.free(); t != nil {
		t.failed(m, sa, why)
	}
	for _, t := range waiting {
		t.failed(m, sa, why)
	}
}

// stop stops them all.
func (t *saTimers) stop() {
	for _, tm := range []*timer{t.halfOpen, t.rekey, t.reauth, t.hard, t.liveness, t.closed, t.move} {
		tm.stop()
	}
	*t = saTimers{}
}

// addChild adds a Child SA.
func (sa *ikeSA) addChild(c *childSA) { sa.children = append(sa.children, c) }

// removeChild takes a Child SA out.
func (sa *ikeSA) removeChild(c *childSA) {
	sa.children = slices.DeleteFunc(sa.children, func(x *childSA) bool { return x == c })
}

// childByOut is the Child SA with this outbound SPI, which is how the peer names
// it; nil: none has.
func (sa *ikeSA) childByOut(protocol wire.ProtocolID, spi uint32) *childSA {
	for _, c := range sa.children {
		if c.protocol == protocol && c.spiOut == spi {
			return c
		}
	}
	return nil
}

// sadIDs are the SAs of all its Child SAs that the dataplane has.
func (sa *ikeSA) sadIDs() []sad.ID {
	var ids []sad.ID
	for _, c := range sa.children {
		if c.receives {
			ids = append(ids, c.in)
		}
		if c.sends {
			ids = append(ids, c.out)
		}
	}
	return ids
}
