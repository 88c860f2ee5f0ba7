package ike

import (
	"testing"
	"time"
)

// TestOneIKESAOfSeveral: both ends initiate at once, and one IKE SA is rekeyed
// before either is closed as one too many: both ends keep the same one all the same.
func TestOneIKESAOfSeveral(t *testing.T) {
	for _, which := range []string{"A", "B"} {
		r, a, b := pair(t, nil)
		a.step(Acquire{Peer: "B", Policy: "lan"})
		b.step(Acquire{Peer: "A", Policy: "lan"})
		r.run(time.Second)
		if which == "A" {
			a.step(Rekey{Peer: "B"})
		} else {
			b.step(Rekey{Peer: "A"})
		}
		r.run(time.Minute)
		if len(a.establishedSAs()) != 1 || len(b.establishedSAs()) != 1 {
			t.Errorf("%s rekeys: %d and %d IKE SAs\nA:\n%sB:\n%s", which, len(a.establishedSAs()), len(b.establishedSAs()), lines(a.log), lines(b.log))
		}
		r.wantPairs(a, b, 1)
	}
}

// TestTerminateMeetsOurRekey: a new IKE SA whose answer comes behind Terminate goes
// with the old one, at both ends.
func TestTerminateMeetsOurRekey(t *testing.T) {
	r, a, b := pair(t, nil)
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	a.step(Rekey{Peer: "B"})
	a.step(Terminate{Peer: "B"})
	r.run(4 * time.Minute)
	a.wantNothingLeft()
	b.wantNothingLeft()
}

// TestAcquireIsRefusedWhereItsPairCannotBeInstalled: the Refuse comes although the
// peer's half has to be deleted first.
func TestAcquireIsRefusedWhereItsPairCannotBeInstalled(t *testing.T) {
	r, a, b := pair(t, nil)
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	a.step(Terminate{Peer: "B", Policy: "lan"})
	r.run(time.Second)
	a.install = func(Install) error { return errInstall }
	a.step(Acquire{Peer: "B", Policy: "lan"})
	r.run(time.Second)
	if len(a.refused) != 1 {
		t.Errorf("refused %v", a.refused)
	}
	a.install = nil
	a.step(Acquire{Peer: "B", Policy: "lan"})
	r.run(time.Second)
	r.wantPairs(a, b, 1)
}

// TestRFC7296_1_2_TheAnswerComesBeforeTheFirstQuestion: where both ends initiate at once
// each is asked whether it lives, but on no IKE SA before the answer to IKE_AUTH has been
// sent: the initiator could only drop it.
func TestRFC7296_1_2_TheAnswerComesBeforeTheFirstQuestion(t *testing.T) {
	for _, childless := range []bool{false, true} {
		r, a, b := pair(t, func(pa, pb *Peer) {
			if childless {
				pa.Children, pb.Children, pa.Childless, pb.Childless = nil, nil, true, true
			}
		})
		a.step(Initiate{Peer: "B"})
		r.run(15 * time.Millisecond) // A is up when B proves itself
		b.step(Initiate{Peer: "A"})
		r.run(time.Second)
		checks := uint64(0)
		for _, e := range []*end{a, b} {
			checks += e.m.Stats()["liveness_checks"]
			if n := e.m.Stats()["request_in_wrong_state"]; n != 0 || e.m.Stats()["retransmissions"] != 0 {
				t.Errorf("childless %t: %s has dropped %d requests; %v", childless, e.name, n, e.m.Stats())
			}
		}
		if checks == 0 {
			t.Error("nobody was asked: nothing is proved")
		}
	}
}
