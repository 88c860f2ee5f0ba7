package ike

import (
	"slices"
	"time"

	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
)

// What others may have this end compute. Whoever is authenticated can ask for Child
// SAs and new IKE SAs as fast as it likes, each with a key exchange of its choice, and
// all peers share one goroutine: so everybody has an allowance of work, and what is
// beyond it is refused before anything is computed. The work is estimated and the time
// is the machine's own, so that the same inputs always have the same end.

// An allowance is paid back by a share of the time that passes. Thousands of cheap key
// exchanges in a row are within it; the dearest group, a few.
const (
	allowanceMost  = 3 * time.Second
	allowanceShare = 5 // one of so many seconds
)

// allowance is what somebody has had computed and time has not paid back yet. The zero
// value is one that nothing was taken of.
type allowance struct {
	spent, at time.Duration

	logged   int // events since logSince
	logSince time.Duration
}

// mayLog tells whether one more event may be of whose allowance it is: a disk fills
// sooner than a processor is worn out.
func (a *allowance) mayLog(now time.Duration) bool {
	if now-a.logSince >= peerPeriod {
		a.logged, a.logSince = 0, now
	}
	a.logged++
	return a.logged <= peerEvents
}

// owes is what is still to be paid back.
func (a *allowance) owes(now time.Duration) time.Duration {
	a.spent -= min(a.spent, (now-a.at)/allowanceShare)
	a.at = now
	return a.spent
}

// take takes work, or says that there is nothing left of the allowance. The last that
// is taken may be more than is left: else the dearest would never be.
func (a *allowance) take(now, work time.Duration) bool {
	if a.owes(now) >= allowanceMost {
		return false
	}
	a.spent += work
	return true
}

// exchangeWork is about what the responder's half of a key exchange takes on one core
// of a small machine. A method that is not here is as dear as the dearest.
var exchangeWork = map[proposal.KE]time.Duration{
	proposal.KENone:      0,
	proposal.KEX25519:    200 * time.Microsecond,
	proposal.KEECP256:    200 * time.Microsecond,
	proposal.KEMLKEM768:  200 * time.Microsecond,
	proposal.KEMLKEM1024: 300 * time.Microsecond,
	proposal.KEX448:      800 * time.Microsecond,
	proposal.KEECP384:    2 * time.Millisecond,
	proposal.KEECP521:    4 * time.Millisecond,
	proposal.KEModp2048:  3 * time.Millisecond,
	proposal.KEModp3072:  12 * time.Millisecond,
	proposal.KEModp4096:  40 * time.Millisecond,
	proposal.KEModp6144:  100 * time.Millisecond,
	proposal.KEModp8192:  200 * time.Millisecond,
}

// workOf is the work of all key exchanges of a choice, additional ones included.
func workOf(choice proposal.Choice) time.Duration {
	work := time.Duration(0)
	for _, method := range append(choice.AKEs(), choice.KE()) {
		one, known := exchangeWork[method]
		if !known {
			one = exchangeWork[proposal.KEModp8192]
		}
		work += one
	}
	return work
}

// The work of a request itself: to open, read and answer it, and to hold one traffic
// selector of the peer's against one of a policy.
const (
	requestWork  = 50 * time.Microsecond
	selectorWork = 5 * time.Microsecond
)

// requestWorkOf is the work of a CREATE_CHILD_SA request without its key exchanges.
func requestWorkOf(p *peer, payloads []wire.Payload) time.Duration {
	tsi, tsr := wire.FindTS(payloads, false), wire.FindTS(payloads, true)
	if tsi == nil || tsr == nil {
		return requestWork // a new IKE SA
	}
	pairs := 0
	for i := range p.Children {
		for j := range p.Children[i].Selectors {
			s := &p.Children[i].Selectors[j]
			pairs += len(tsi.Selectors)*len(s.Remote) + len(tsr.Selectors)*len(s.Local)
		}
	}
	return requestWork + time.Duration(pairs)*selectorWork
}

// allowanceOf is the allowance of who has proved to be on the other end of sa: one for
// a configured identity. Where a peer may have any, those that are there share that of
// their own identity.
func (sa *ikeSA) allowanceOf() *allowance {
	if !sa.peer.Remotely.ID.IsZero() {
		return &sa.peer.work
	}
	all := sa.beside()
	if i := slices.IndexFunc(all, func(other *ikeSA) bool { return other.work != nil }); i >= 0 {
		return all[i].work
	}
	return new(allowance)
}

// affords takes work of the peer's allowance. RFC 7296 2.25 has TEMPORARY_FAILURE for
// what cannot be done now and may be asked for again: who gets it "MUST NOT immediately
// retry the operation; it MUST wait".
func (m *Machine) affords(sa *ikeSA, work time.Duration) *refusal {
	if sa.work == nil || sa.work.take(m.now, work) {
		return nil
	}
	m.count("too_much_work")
	return &refusal{notify: wire.NotifyTemporaryFailure}
}

// dear is the work from which a stranger's key exchange is taken of an allowance. That
// of cheaper ones is bounded by how many half-open IKE SAs there may be.
const dear = 5 * time.Millisecond

// affordsFirst takes the work of a stranger's key exchanges of the allowance that the
// peers of its address have, or all strangers together. It returns the name of the drop.
// Half of it is for those that have shown by a cookie that their address is their own.
func (m *Machine) affordsFirst(r *initRequested) string {
	work := workOf(r.choice)
	if work < dear {
		return ""
	}
	a := &m.strange.work
	if known := m.origins.at[r.back.remote.Addr().Unmap()]; known != nil {
		a = &known.work
	}
	if !r.verified && a.owes(m.now) >= allowanceMost/2 {
		m.sendCookie(r.back, r.msg, r.nonce)
		return "cookie_demanded"
	}
	if !a.take(m.now, work) {
		return "init_too_much_work"
	}
	return ""
}
