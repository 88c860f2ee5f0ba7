package ike

import "time"

// What was refused for the time being, or taken away by the peer, is asked for again
// in a while, and each time later.

// backoff is how long to wait before a thing is tried again.
type backoff struct {
	tries int
	since time.Duration
}

// patience is how long something may be refused for the time being. RFC 7296 2.25:
// "The recipient MAY retry the request one or more times over a period of several
// minutes. If a peer continues to receive TEMPORARY_FAILURE on the same IKE SA after
// several minutes, it SHOULD conclude that the state information is out of sync and
// close the IKE SA."
const patience = 4 * time.Minute

// next is the time to wait now; false: it has been long enough.
func (b *backoff) next(m *Machine) (time.Duration, bool) {
	if b.tries == 0 {
		b.since = m.now
	}
	wait := min(m.timing.Retry<<min(b.tries, 6), time.Minute)
	b.tries++
	return wait + m.jitter(wait), m.now-b.since < patience
}

// again asks for a pair of a policy in a while, on the IKE SA that the peer then has,
// unless the operator has ended it meanwhile. There is one such wait for each policy.
func (m *Machine) again(p *peer, policy string, wait time.Duration, ask func(now *ikeSA)) {
	if p.again == nil {
		p.again = map[string]*timer{}
	}
	p.again[policy].stop()
	p.again[policy] = m.after(wait, func() {
		delete(p.again, policy)
		if now := p.current(); now != nil {
			ask(now)
		}
	})
}

// notAgainFor ends the wait for a policy.
func (p *peer) notAgainFor(policy string) {
	p.again[policy].stop()
	delete(p.again, policy)
}
