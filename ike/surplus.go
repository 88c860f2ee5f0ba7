package ike

import (
	"cmp"
	"slices"
	"time"
)

// One IKE SA with a peer is enough. There are two where both ends have initiated at
// once, or where one was forgotten by an end only. RFC 7296 does not forbid them; here
// both ends come to the same one that stays:
//
//	of two that one end has opened   the one that was authenticated later
//	of two that each end has opened  the one whose IKE_SA_INIT had the lowest of the
//	                                 four nonces goes, as with rekeys (2.8.1)
//
// What goes is deleted by the end that has opened it, and only once the other is
// known to live and has pairs for the same policies, so that no packet is lost.

// duplicates looks for other IKE SAs of the peer beside one that is new.
func (m *Machine) duplicates(sa *ikeSA) {
	p := sa.peer
	if !p.several() || p.surplus != nil {
		return
	}
	m.count("sa_duplicate")
	m.askRivals(p)
	m.watchSurplus(p, m.now, surplusTries)
}

// surplusTries is how often pairs are asked for before an IKE SA goes without.
const surplusTries = 3

func (m *Machine) watchSurplus(p *peer, since time.Duration, tries int) {
	p.surplus = m.after(m.timing.Grace, func() {
		p.surplus = nil
		if !p.several() || m.peers[p.Name] != p {
			return
		}
		m.askRivals(p)
		if m.dropSurplus(p, since, tries) {
			tries--
		}
		m.watchSurplus(p, since, tries)
	})
}

// several tells whether more than one IKE SA is up, those that are just being
// replaced included.
func (p *peer) several() bool {
	n := 0
	for _, sa := range p.sas {
		if sa.state == established {
			n++
		}
	}
	return n > 1
}

// rivals are the IKE SAs with the peer that are up and that nothing replaces.
func (p *peer) rivals() []*ikeSA {
	var out []*ikeSA
	for _, sa := range p.sas {
		if sa.state == established && !sa.untried && sa.heir == nil {
			out = append(out, sa)
		}
	}
	return out
}

// askRivals asks on each IKE SA whether the peer still has it.
func (m *Machine) askRivals(p *peer) {
	for _, sa := range p.rivals() {
		if p.Role != Passive && sa.ours.task == nil {
			m.enqueue(sa, livenessTask{})
		}
	}
}

// dropSurplus deletes those of ours that are too many, and tells whether it has to
// wait for pairs.
func (m *Machine) dropSurplus(p *peer, since time.Duration, tries int) (waits bool) {
	all := p.rivals()
	if len(all) < 2 {
		return false // one is being rekeyed: later
	}
	keep := slices.MaxFunc(all, byMerit)
	if keep.heard <= since {
		return false
	}
	for _, sa := range all {
		if sa == keep || !sa.opener {
			continue
		}
		if tries > 0 && p.Role.initiates() && m.copyPairs(sa, keep) {
			waits = true
			continue
		}
		m.event(sa, Event{Stage: StageDelete, Outcome: Began, Reason: "duplicate", Text: "there is another IKE SA with the peer: this one is one too many"})
		m.deleteReplaced(sa, "duplicate")
	}
	return waits
}

// byMerit orders IKE SAs of one peer: the last one stays.
func byMerit(a, b *ikeSA) int {
	if a.opener == b.opener {
		return cmp.Compare(a.authAt, b.authAt)
	}
	return slices.Compare(a.origin, b.origin)
}

// copyPairs asks for what one IKE SA has and the other has not, and tells whether
// there is such.
func (m *Machine) copyPairs(from, to *ikeSA) (missing bool) {
	for _, c := range from.children {
		if policy := c.child.Policy; c.live() && !to.has(policy) {
			missing = true
			if !m.asking(to, policy) {
				m.enqueue(to, &createTask{child: c.child, own: true})
			}
		}
	}
	return missing
}
