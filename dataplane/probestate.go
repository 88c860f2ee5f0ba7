package dataplane

import "time"

// Path MTU discovery by probes, for one path: RFC 8899's search without sockets,
// packets and clocks. Sizes are bytes of the outer packet.
//
//	silent    does the peer answer at all? A small probe now and then; nothing
//	          else happens until one is answered (RFC 8899 5.2: Disabled, Base)
//	confirm   a probe of the size in use every interval, while the SA is in use
//	          (Search Complete). Three lost while a small one is answered: the
//	          path swallows what is long, and the size falls at once
//	search    ever closer between what was answered and what was lost (Searching)
//
// Deviation from RFC 8899 5.1.1, whose PROBE_TIMER "MUST NOT be smaller than 1
// second": a lost probe is noticed after twice the round trip that was measured and
// 50 ms, 150 ms at the least. A TCP connection through the tunnel shall go on
// within two seconds of its path becoming narrow; and a verdict needs three lost
// probes and a small one answered, so that a delay or an outage of the whole path
// is none.

const (
	probeBase = 1280 // RFC 8899 5.1.2: BASE_PLPMTU; 1200 there, IPv6's 1280 here
	// probeTop is as far as a search goes where nobody knows the link's MTU.
	probeTop = 1500
	// probeStep is how close a search comes.
	probeStep = 8

	maxProbes    = 3                      // RFC 8899 5.1.2: MAX_PROBES
	probeTimeout = 150 * time.Millisecond // the least; PROBE_TIMER
	probeWait    = 3 * time.Second        // for a first answer
	// probeInterval is between two confirmations, RFC 8899 5.1.1's
	// CONFIRMATION_TIMER.
	probeInterval = 250 * time.Millisecond
	// silentInterval is between two attempts at a peer that has not answered.
	silentInterval = time.Minute
	// raiseInterval is PMTU_RAISE_TIMER, RFC 8899 5.1.1.
	raiseInterval = 600 * time.Second
	// goneProbes is how many lost in a row, small ones too, say that the peer
	// answers no more. What was found stays, and ages.
	goneProbes = 16
)

type probeState uint8

const (
	probeSilent probeState = iota
	probeConfirm
	probeSearch
)

// probeFlight is a probe that was sent; id 0: none.
type probeFlight struct {
	id   uint64
	size int
	sent time.Duration
}

// pathProbe is the machine. Its methods take the time as an argument.
type pathProbe struct {
	floor, top int // the least and the most that it tries
	state      probeState
	size       int // what the SA is to use
	good       int // search: the longest that was answered
	bad        int // search: the shortest that was lost
	trial      int // search: what is asked

	small, large probeFlight
	lost         int           // large ones in a row
	up           bool          // a small one was answered since the first of them was lost
	tries        int           // silent: small ones in a row
	next         time.Duration // no probe that can wait before
	raise        time.Duration // the next search upward
	rtt          time.Duration // 0: not measured
}

// told says what the SA knows of its path, from wherever: its path MTU, and the
// link's; 0 for unknown.
func (p *pathProbe) told(mtu, link int, now time.Duration) {
	if link == 0 {
		link = max(probeTop, mtu)
	}
	if link != p.top {
		p.top, p.raise = link, now
	}
	if mtu == 0 {
		mtu = p.top
	}
	if mtu == p.size {
		return
	}
	// A router or the link has said so, or it was forgotten: see whether it
	// holds.
	p.size = mtu
	p.large, p.lost, p.up = probeFlight{}, 0, false
	if p.state != probeSilent {
		p.confirm(now)
		p.next = now
	}
}

// poll is called often while the SA is in use, and returns what is to be sent now:
// at most two probes. fresh: long packets were sent a moment ago; without it only
// a doubt is pursued. news: size is to be told to the SA.
func (p *pathProbe) poll(now, interval time.Duration, fresh bool, id func() uint64) (ask [2]probeFlight, n int, news bool) {
	send := func(f *probeFlight, size int) {
		*f = probeFlight{id: id(), size: size, sent: now}
		ask[n] = *f
		n++
	}
	if p.state == probeSilent {
		if p.expired(&p.small, probeWait, now) {
			if p.tries++; p.tries == maxProbes {
				p.tries, p.next = 0, now+silentInterval
			}
		}
		if p.small.id == 0 && now >= p.next && fresh {
			send(&p.small, p.floor)
		}
		return ask, n, false
	}
	timeout := max(probeTimeout, 2*p.rtt+50*time.Millisecond)
	p.expired(&p.small, timeout, now)
	if p.expired(&p.large, timeout, now) {
		p.lost++
		news = p.judge(now)
	}
	if p.state == probeSilent {
		return ask, n, news
	}
	if p.large.id == 0 {
		switch {
		case p.state == probeSearch:
			send(&p.large, p.trial)
		case p.lost == 0 && !fresh:
		case p.lost == 0 && now >= p.raise && p.size < p.top:
			// RFC 8899 5.2: "PMTU_RAISE_TIMER": the link's MTU first.
			p.state, p.good, p.bad, p.trial = probeSearch, p.size, p.top+1, p.top
			send(&p.large, p.trial)
		case p.lost > 0 || now >= p.next:
			p.next = now + interval
			send(&p.large, p.size)
		}
	}
	if p.lost > 0 && !p.up && p.small.id == 0 {
		send(&p.small, p.floor)
	}
	return ask, n, news
}

// expired forgets a probe that is not going to be answered any more.
func (p *pathProbe) expired(f *probeFlight, timeout, now time.Duration) bool {
	if f.id == 0 || now-f.sent < timeout {
		return false
	}
	*f = probeFlight{}
	return true
}

// judge looks at how many were lost, and whether that is the path's width or the
// path. It tells whether size has changed.
func (p *pathProbe) judge(now time.Duration) bool {
	switch {
	case p.lost >= maxProbes && p.up:
		return p.tooLong(now)
	case p.lost >= goneProbes:
		p.state, p.lost, p.tries, p.next = probeSilent, 0, 0, now
	}
	return false
}

// tooLong is the verdict over the size that was asked. It tells whether size has
// changed.
func (p *pathProbe) tooLong(now time.Duration) bool {
	p.lost, p.up = 0, false
	before := p.size
	if p.state == probeSearch {
		p.bad = p.trial
		if p.size >= p.bad { // the base, which was used untried
			p.size = p.good
		}
		p.near(now)
		return p.size != before
	}
	if p.size <= p.floor {
		return false // there is nothing below
	}
	// RFC 8899 4.3: a black hole. Down to the base, and from there as near as
	// the path allows; to the floor where the base does not pass.
	p.state, p.good, p.bad, p.size = probeSearch, p.floor, p.size, p.floor
	if before > probeBase && probeBase > p.floor {
		p.size, p.trial = probeBase, probeBase
		return true
	}
	p.near(now)
	return true
}

// near chooses the next trial, or ends the search.
func (p *pathProbe) near(now time.Duration) {
	if p.bad-p.good <= probeStep {
		p.confirm(now)
		return
	}
	p.trial = p.good + (p.bad-p.good)/2
}

// confirm is the state after a search.
func (p *pathProbe) confirm(now time.Duration) {
	p.state, p.next, p.raise = probeConfirm, now+probeInterval, now+raiseInterval
}

// answered says that the peer has answered the probe of that id. news: size holds,
// and is to be told to the SA.
func (p *pathProbe) answered(id uint64, now time.Duration) (news bool) {
	switch {
	case id == 0:
	case id == p.small.id:
		p.measure(now - p.small.sent)
		p.small = probeFlight{}
		if p.state == probeSilent {
			p.confirm(now)
			p.next = now
			return false
		}
		p.up = p.lost > 0
		return p.judge(now)
	case id == p.large.id:
		p.measure(now - p.large.sent)
		size := p.large.size
		p.large, p.lost, p.up = probeFlight{}, 0, false
		if p.state == probeSearch {
			p.good, p.size = size, size
			p.near(now)
		}
		return true
	}
	return false
}

// measure keeps the round trip: up at once, down slowly.
func (p *pathProbe) measure(rtt time.Duration) {
	if rtt >= p.rtt {
		p.rtt = rtt
		return
	}
	p.rtt = (7*p.rtt + rtt) / 8
}
