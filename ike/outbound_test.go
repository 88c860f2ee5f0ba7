package ike

import (
	"slices"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
)

// TestRFC7296_2_8_NoSwitchBesideAPairThatWorks: the answer to IKE_AUTH of a
// reauthentication is lost for longer than any grace, and the peer asks again. Until
// it has the answer it is sent nothing on the new SA, and everything on the old one.
func TestRFC7296_2_8_NoSwitchBesideAPairThatWorks(t *testing.T) {
	r, a, b := up(t, func(a, _ *Peer) { a.Reauth = time.Hour })
	r.wantNoLoss(a, b, true, "lan")
	lost, until := 0, time.Hour+20*time.Second
	r.fate = func(d *datagram) []time.Duration {
		if h := d.header(); r.now < until && d.by == b && h.Exchange == wire.IKEAuth && h.Response() {
			lost++
			return nil
		}
		return []time.Duration{r.latency}
	}
	r.run(time.Hour + 5*time.Minute)
	if lost < 4 {
		t.Errorf("%d answers were lost", lost)
	}
	r.wantSettled(a, b, 1)
	r.wantNoFailures()
}

// TestSwitchByAnAnswer: the peer of a reauthentication sends no request behind its
// IKE_AUTH, its delete is lost; it answers ours, and is sent packets on the new SA.
func TestSwitchByAnAnswer(t *testing.T) {
	r, a, b := up(t, func(a, _ *Peer) { a.Reauth = time.Hour })
	r.wantNoLoss(a, b, true, "lan")
	r.fate = func(d *datagram) []time.Duration {
		if h := d.header(); r.now > time.Hour && d.by == a && h.Exchange == wire.Informational && !h.Response() {
			return nil
		}
		return []time.Duration{r.latency}
	}
	r.run(time.Hour + 2*time.Second)
	sas := b.establishedSAs()
	i := slices.IndexFunc(sas, func(sa *ikeSA) bool { return sa.authAt > time.Hour })
	if i < 0 || len(sas[i].children) != 1 || !sas[i].children[0].sends {
		t.Errorf("not switched:\n%s", lines(b.log))
	}
}

// TestWaitingPairIsUsedOnceAlone: a pair that waits is used at the end of a grace in
// which the only other one has gone without a word.
func TestWaitingPairIsUsedOnceAlone(t *testing.T) {
	r, _, b := up(t, func(a, _ *Peer) { a.Reauth = time.Hour })
	r.fate = func(d *datagram) []time.Duration {
		if r.now > time.Hour+100*time.Millisecond || d.by == b && d.header().Exchange == wire.IKEAuth {
			return nil
		}
		return []time.Duration{r.latency}
	}
	r.run(time.Hour + 10*time.Second)
	old := b.child("lan")
	if old == nil || !old.sends {
		t.Fatalf("the old pair is not in use:\n%s", lines(b.log))
	}
	delete(b.sad, old.out)
	b.step(Expired{ID: old.out})
	r.run(6 * time.Second)
	if out := b.newestOutbound("lan"); out == nil {
		t.Errorf("nothing to send on:\n%s", lines(b.log))
	}
}

// TestRFC7296_2_8_NoSwitchBesideAPairThatIsBeingReplaced: the peer has no answer yet to
// its rekey of the pair that is in use, and makes a new IKE SA, whose IKE_AUTH answer
// comes late as well. What works meanwhile is the pair that is being replaced.
func TestRFC7296_2_8_NoSwitchBesideAPairThatIsBeingReplaced(t *testing.T) {
	r, a, b := up(t, func(a, _ *Peer) { a.Reauth = time.Hour })
	r.wantNoLoss(a, b, true, "lan")
	r.run(time.Hour - 2*time.Second - r.now)
	r.fate = func(d *datagram) []time.Duration {
		if h := d.header(); r.now < time.Hour+20*time.Second && d.by == b && h.Response() && h.Exchange != wire.IKESAInit {
			return nil
		}
		return []time.Duration{r.latency}
	}
	a.expire("lan", true)
	r.run(10 * time.Second)
	if n := len(b.establishedSAs()); n != 2 {
		t.Fatalf("B has %d IKE SAs, want that of the reauthentication too:\n%s", n, lines(b.log))
	}
	r.run(5 * time.Minute)
	r.wantSettled(a, b, 1)
}
