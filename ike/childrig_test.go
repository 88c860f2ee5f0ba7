package ike

import (
	"slices"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/sad"
)

// newestOutbound is the SA that carries a policy's packets; nil: none does.
func (e *end) newestOutbound(policy string) *sad.Params {
	for _, id := range slices.Backward(e.order) {
		if p, ok := e.sad[id]; ok && id.Direction == sad.Outbound && p.Policy == policy {
			return &p
		}
	}
	return nil
}

// takes tells whether a packet that was sent on out is taken here now.
func (e *end) takes(out *sad.Params) bool {
	if hasTwin(e, out) {
		return true
	}
	for id, in := range e.leaving {
		if id.Direction == sad.Inbound && id.SPI == out.SPI && slices.Equal(in.EncryptionKey, out.EncryptionKey) && in.until > e.r.now {
			return true
		}
	}
	return false
}

// wantNoLoss fails if a packet that either end sent now were lost: behind every
// action. gapless: each end has something to send on, and no inbound SA goes without a
// grace.
func (r *rig) wantNoLoss(a, b *end, gapless bool, policies ...string) {
	r.gapless = gapless
	r.watch = func() {
		r.t.Helper()
		for _, policy := range policies {
			for _, way := range [][2]*end{{a, b}, {b, a}} {
				out := way[0].newestOutbound(policy)
				if out == nil {
					if gapless {
						r.t.Errorf("%s: %s has no outbound SA for %s", r.now, way[0].name, policy)
					}
					continue
				}
				if !way[1].takes(out) {
					r.t.Errorf("%s: %s sends %s on %s, and %s does not take it", r.now, way[0].name, policy, out.ID(), way[1].name)
				}
			}
		}
	}
}

// up is a rig whose ends have an IKE SA, begun by A, and a pair of Child SAs.
func up(t testing.TB, change func(a, b *Peer)) (*rig, *end, *end) {
	t.Helper()
	return saltedUp(t, "", change)
}

func saltedUp(t testing.TB, salt string, change func(a, b *Peer)) (*rig, *end, *end) {
	t.Helper()
	r, a, b := saltedPair(t, salt, change)
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	r.wantSettled(a, b, len(a.m.peers["B"].Children))
	if t.Failed() {
		t.Fatalf("no start:\n%v\n%v", a.log, b.log)
	}
	return r, a, b
}

// other is the peer of an end of a pair.
func (e *end) other() string {
	if e.name == "A" {
		return "B"
	}
	return "A"
}

// child is the only pair of Child SAs of a policy.
func (e *end) child(policy string) *childSA {
	for _, sa := range e.m.peers[e.other()].sas {
		for _, c := range sa.children {
			if c.child.Policy == policy && c.live() {
				return c
			}
		}
	}
	return nil
}

// expire says that the pair's outbound SA has reached a limit.
func (e *end) expire(policy string, soft bool) {
	c := e.child(policy)
	if !soft {
		delete(e.sad, c.out)
	}
	e.step(Expired{ID: c.out, Soft: soft})
}

// wantSettled fails unless both ends have one IKE SA, the same, and n pairs of Child
// SAs that fit, and nothing is waiting.
func (r *rig) wantSettled(a, b *end, n int) {
	r.t.Helper()
	r.wantPairs(a, b, n)
	for _, e := range []*end{a, b} {
		if len(e.m.sas) != 1 || len(e.m.peers[e.other()].sas) != 1 || len(e.m.tokens) != 0 {
			r.t.Errorf("%s has %d IKE SAs, %d of the peer, %d tokens", e.name, len(e.m.sas), len(e.m.peers[e.other()].sas), len(e.m.tokens))
			return
		}
		sa := e.m.peers[e.other()].sas[0]
		if sa.state != established || sa.untried || sa.ours.task != nil || len(sa.ours.queue) != 0 || len(sa.children) != n {
			r.t.Errorf("%s: the IKE SA is %s, task %T, %d queued, %d children, want %d", e.name, sa.state, sa.ours.task, len(sa.ours.queue), len(sa.children), n)
		}
		for _, c := range sa.children {
			if c.state != childUp || c.waiting != nil || c.sa != sa || !c.sends || !c.receives {
				r.t.Errorf("%s: pair %x/%x of %s is %s, waiting %t, sends %t", e.name, c.spiIn, c.spiOut, c.child.Policy, c.state, c.waiting != nil, c.sends)
			}
		}
		if len(e.m.peers[e.other()].wanted) != 0 {
			r.t.Errorf("%s still wants %v", e.name, e.m.peers[e.other()].wanted)
		}
	}
	ia, ra := a.m.peers[a.other()].sas[0].spis()
	ib, rb := b.m.peers[b.other()].sas[0].spis()
	if ia != ib || ra != rb {
		r.t.Errorf("the ends have two IKE SAs: %s_%s and %s_%s", ia, ra, ib, rb)
	}
}

// wantNoFailures fails if an end has said that something has failed.
func (r *rig) wantNoFailures() {
	r.t.Helper()
	for _, e := range r.ends {
		for _, ev := range e.failures() {
			r.t.Errorf("%s: %s", e.name, eventLine(ev))
		}
	}
}
