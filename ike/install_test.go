package ike

import (
	"testing"
	"time"

	"github.com/adit-ipsec/adit/sad"
)

// TestCK08_InstallFailures lets each Install fail in turn, on each end, while
// everything that two ends do happens: each failure is told of, both ends agree on
// what there is afterwards, and nothing is left at the end.
func TestCK08_InstallFailures(t *testing.T) {
	for _, who := range []string{"A", "B"} {
		for n := 1; n <= 12; n++ {
			r, a, b := scenarioPair(t)
			victim, count, failed := a, 0, false
			if who == "B" {
				victim = b
			}
			victim.install = func(Install) error {
				count++
				if count == n {
					failed = true
					return errInstall
				}
				return nil
			}
			a.step(Initiate{Peer: "B"})
			r.run(10 * time.Second)
			a.step(Rekey{Peer: "B", Policy: "lan"})
			r.run(20 * time.Second)
			b.step(Rekey{Peer: "A", Policy: "lan"})
			r.run(20 * time.Second)
			if !failed {
				continue
			}
			if len(victim.failures()) == 0 {
				t.Errorf("%s, install %d: nothing is said of it; log:\n%s", who, n, lines(victim.log))
			}
			if len(a.establishedSAs()) != 1 || len(b.establishedSAs()) != 1 {
				t.Errorf("%s, install %d: the IKE SA is gone", who, n)
			}
			r.run(5 * time.Minute)
			inOut := func(e *end) (in, out int) {
				for id := range e.sad {
					if id.Direction == sad.Inbound {
						in++
					} else {
						out++
					}
				}
				return in, out
			}
			ai, ao := inOut(a)
			bi, bo := inOut(b)
			if ai != ao || bi != bo || ai != bi || ai > 1 {
				t.Errorf("%s, install %d: A has %d in and %d out, B %d and %d\nA:\n%sB:\n%s", who, n, ai, ao, bi, bo, lines(a.log), lines(b.log))
			}
			a.step(Terminate{})
			r.run(5 * time.Minute)
			a.wantNothingLeft()
			b.wantNothingLeft()
		}
	}
}

// TestInstallBeforeAnswer: the responder's inbound SA is there before its answer
// leaves, so that no packet of the initiator's comes too early.
func TestInstallBeforeAnswer(t *testing.T) {
	r, a, b := pair(t, nil)
	b.install = func(i Install) error {
		for _, d := range r.sent {
			if d.by == b && d.header().MessageID == 1 && i.Params[0].Direction == sad.Inbound {
				t.Error("IKE_AUTH is answered before the inbound SA is installed")
			}
		}
		return nil
	}
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	r.wantUp(a, b, 1)
}
