package ike

import (
	"testing"
	"time"

	"github.com/adit-ipsec/adit/sad"
)

// asRole is a pair in which B has a role.
func asRole(t testing.TB, role Role, change func(pa, pb *Peer)) (*rig, *end, *end) {
	return pair(t, func(pa, pb *Peer) {
		pb.Role = role
		if change != nil {
			change(pa, pb)
		}
	})
}

// TestK1_NeverInitiates: whatever is asked of a responder, no message leaves it;
// each packet that waits is refused.
func TestK1_NeverInitiates(t *testing.T) {
	for _, role := range []Role{NeverInitiate, ResponderOnly, Passive} {
		r, a, b := asRole(t, role, func(_, pb *Peer) { pb.Start = AtOnce })
		for range 100 {
			b.step(Acquire{Peer: "A", Policy: "lan"})
		}
		b.step(Initiate{Peer: "A"})
		r.run(30 * time.Second)
		if len(r.sent) != 0 || len(b.refused) != 100 {
			t.Errorf("%s: %d messages, %d refused", role, len(r.sent), len(b.refused))
		}
		_ = a
	}
}

// TestK2_NoChildSAEither: with an IKE SA up it asks for no Child SA.
func TestK2_NoChildSAEither(t *testing.T) {
	r, a, b := asRole(t, ResponderOnly, func(pa, pb *Peer) {
		c := pb.Children[0]
		c.Policy = "second"
		pb.Children = append(pb.Children, c)
	})
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	sent := len(r.sent)
	b.step(Acquire{Peer: "A", Policy: "second"})
	r.run(10 * time.Second)
	if len(r.sent) != sent || len(b.refused) != 1 {
		t.Errorf("%d messages more, refused %v", len(r.sent)-sent, b.refused)
	}
}

// TestK3_NeverRekeys: soft limits ask for nothing; at the hard lifetime the SAs go.
func TestK3_NeverRekeys(t *testing.T) {
	for _, role := range []Role{NeverRekey, ResponderOnly, Passive} {
		r, a, b := asRole(t, role, func(_, pb *Peer) { pb.Rekey, pb.Hard = 50*time.Second, 100*time.Second })
		a.step(Initiate{Peer: "B"})
		r.run(time.Second)
		r.wantUp(a, b, 1)
		sent := len(r.sent)
		for id := range b.sad {
			b.step(Expired{ID: id, Soft: true})
		}
		r.run(90 * time.Second)
		if len(r.sent) != sent {
			t.Errorf("%s: %d messages for a soft limit", role, len(r.sent)-sent)
		}
		r.run(20 * time.Second)
		if len(b.establishedSAs()) != 0 || len(b.sad) != 0 {
			t.Errorf("%s: still up behind its hard lifetime", role)
		}
		if deleted := len(a.sad) == 0; deleted != (role != Passive) {
			t.Errorf("%s: the peer was told: %t", role, deleted)
		}
	}
	// The same without the role: rekeyed, and up.
	r, a, b := asRole(t, Both, func(_, pb *Peer) { pb.Rekey, pb.Hard = 50*time.Second, 100*time.Second })
	a.step(Initiate{Peer: "B"})
	r.run(5 * time.Minute)
	r.wantPairs(a, b, 1)
	if len(b.find(StageRekeyIKE, Done)) < 4 {
		t.Errorf("log:\n%s", lines(b.log))
	}
}

// TestK4_AnswersRekeys: a responder answers all that its peer begins.
func TestK4_AnswersRekeys(t *testing.T) {
	for _, role := range []Role{NeverInitiate, NeverRekey, ResponderOnly, Passive} {
		r, a, b := asRole(t, role, nil)
		a.step(Initiate{Peer: "B"})
		r.run(time.Second)
		for range 20 {
			a.step(Rekey{Peer: "B", Policy: "lan"})
			r.run(time.Second)
			a.step(Rekey{Peer: "B"})
			r.run(time.Second)
		}
		r.run(20 * time.Second)
		r.wantUp(a, b, 1)
		if n := len(b.find(StageRekeyChild, Done)); n != 20 {
			t.Errorf("%s: %d rekeys of the Child SA", role, n)
		}
		if n := len(b.find(StageRekeyIKE, Done)); n != 20 {
			t.Errorf("%s: %d rekeys of the IKE SA", role, n)
		}
	}
}

// TestK6_BothEndsTriggeredAtOnce: with a responder on one side there is one IKE SA
// and one pair; without it the second is found, counted, and goes.
func TestK6_BothEndsTriggeredAtOnce(t *testing.T) {
	for _, role := range []Role{Both, ResponderOnly} {
		r, a, b := asRole(t, role, nil)
		a.step(Acquire{Peer: "B", Policy: "lan"})
		b.step(Acquire{Peer: "A", Policy: "lan"})
		r.run(time.Minute)
		if len(a.establishedSAs()) != 1 || len(b.establishedSAs()) != 1 {
			t.Errorf("%s: %d and %d IKE SAs", role, len(a.establishedSAs()), len(b.establishedSAs()))
		}
		r.wantPairs(a, b, 1)
		if n := a.m.Stats()["sa_duplicate"]; n != map[Role]uint64{Both: 1, ResponderOnly: 0}[role] {
			t.Errorf("%s: %d duplicates", role, n)
		}
	}
}

// TestK8_FiftyFlaps: traffic that comes and goes makes one pair, and leaks none.
func TestK8_FiftyFlaps(t *testing.T) {
	r, a, b := asRole(t, ResponderOnly, nil)
	for range 50 {
		a.step(Acquire{Peer: "B", Policy: "lan"})
		b.step(Acquire{Peer: "A", Policy: "lan"})
		r.run(100 * time.Millisecond)
	}
	r.wantPairs(a, b, 1)
	if len(a.m.sas) != 1 || len(b.m.sas) != 1 {
		t.Errorf("%d and %d IKE SAs", len(a.m.sas), len(b.m.sas))
	}
}

// TestPassiveSaysNothing: no liveness check, no delete, nothing unsolicited at all.
func TestPassiveSaysNothing(t *testing.T) {
	r, a, b := asRole(t, Passive, func(_, pb *Peer) { pb.DPD = time.Second })
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	sent := len(r.sent)
	r.run(time.Minute)
	for id := range b.sad {
		if id.Direction == sad.Inbound {
			delete(b.sad, id) // the dataplane has taken it out
			b.step(Expired{ID: id})
		}
	}
	b.step(Terminate{})
	r.run(time.Minute)
	if len(r.sent) != sent {
		t.Errorf("%d messages that nobody asked for", len(r.sent)-sent)
	}
	b.wantNothingLeft()
}
