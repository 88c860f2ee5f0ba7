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
