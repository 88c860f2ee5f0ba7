package ike

import (
	"net/netip"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
)

// What the simulator in test/ikesim has found, each in the fewest steps.

// losing drops what is asked or answered by an end in an exchange, as long as while
// says so.
func (r *rig) losing(by *end, x wire.ExchangeType, response bool, while func() bool) {
	before := r.fate
	r.fate = func(d *datagram) []time.Duration {
		if h := d.header(); d.by == by && h.Exchange == x && h.Response() == response && while() {
			return nil
		}
		if before != nil {
			return before(d)
		}
		return []time.Duration{r.latency}
	}
}

// TestReauthenticationTakesWhatIsRekeyedMeanwhile: the peer rekeys a pair on the old
// IKE SA after the new one was begun. The new one has it in the end, without a gap.
func TestReauthenticationTakesWhatIsRekeyedMeanwhile(t *testing.T) {
	r, a, b := up(t, func(a, b *Peer) {
		twoPolicies(a, b)
		a.Reauth = time.Hour
	})
	r.wantNoLoss(a, b, true, "lan", "dmz")
	r.run(time.Hour - r.now + 45*time.Millisecond)
	b.step(Rekey{Peer: "A", Policy: "dmz"})
	r.run(time.Minute)
	r.wantSettled(a, b, 2)
}

// TestNoPairIsAskedForBesideOneThatWaits: the peer has deleted a pair, which is to be
// up always, and made another, and rekeys that: its delete of the old one is late.
func TestNoPairIsAskedForBesideOneThatWaits(t *testing.T) {
	r, a, b := up(t, func(_, b *Peer) { b.Start = AtOnce })
	a.step(Terminate{Peer: "B", Policy: "lan"})
	r.run(100 * time.Millisecond)
	a.step(Acquire{Peer: "B", Policy: "lan"})
	r.run(100 * time.Millisecond)
	a.expire("lan", true)
	until := r.now + 20*time.Second
	r.losing(a, wire.Informational, false, func() bool { return r.now < until })
	r.run(time.Minute)
	r.wantSettled(a, b, 1)
	for _, ev := range b.find(StageChild, Done) {
		if ev.Initiator {
			t.Errorf("B has asked: %s", eventLine(ev))
		}
	}
}

// TestNothingIsAnsweredToWhoIsNotAuthenticated: an initiator that has refused the
// peer's AUTH answers no request on the IKE SA, which only the peer takes for one.
func TestNothingIsAnsweredToWhoIsNotAuthenticated(t *testing.T) {
	r, a, b := pair(t, func(_, b *Peer) {
		b.Auth.PSK, b.DPD = sad.Key("not the same, and long enough"), time.Second
	})
	r.losing(a, wire.Informational, false, func() bool { return true }) // B is not told
	a.step(Initiate{Peer: "B"})
	r.run(5 * time.Second)
	asked := false
	for i := range r.sent {
		h := r.sent[i].header()
		asked = asked || r.sent[i].by == b && h.Exchange == wire.Informational
		if r.sent[i].by == a && h.Exchange == wire.Informational && h.Response() {
			t.Fatal("A answers")
		}
	}
	if !asked {
		t.Error("B has not asked")
	}
}

// TestADuplicateFromElsewhereIsNotAmplified: an answer that is larger than the request
// goes to an address that the request has not come from at first only for as many
// bytes as came from there.
func TestADuplicateFromElsewhereIsNotAmplified(t *testing.T) {
	f := newFragmented(t)
	kind, inner := inside(10)
	request := f.seal(1, 1, kind, inner)
	f.want(request, "", true)
	f.b.establishedSAs()[0].theirs.answer = [][]byte{make([]byte, len(request)), make([]byte, len(request)/2)}
	f.want(request, "duplicate_requests", true)
	f.path.from = netip.AddrPortFrom(netip.MustParseAddr("198.51.100.1"), 500)
	f.want(request, "duplicate_from_elsewhere", false)
	f.want(request, "duplicate_requests", true)
	f.path.from = netip.AddrPortFrom(netip.MustParseAddr("198.51.100.2"), 500)
	f.want(request, "duplicate_from_elsewhere", false)
}

// TestAPairIsDeletedBeforeItsAnswerComes: the answer to a rekey is lost, its pair goes
// by a limit at the peer, and the answer comes again. Both ends have the same then.
func TestAPairIsDeletedBeforeItsAnswerComes(t *testing.T) {
	r, a, b := up(t, nil)
	old := b.child("lan")
	lost := false
	r.losing(b, wire.CreateChildSA, true, func() bool { first := !lost; lost = true; return first })
	a.expire("lan", true)
	r.run(50 * time.Millisecond)
	made := old.successor
	if made == nil {
		t.Fatalf("B has made nothing:\n%s", lines(b.log))
	}
	delete(b.sad, made.in)
	b.step(Expired{ID: made.in})
	r.run(2 * time.Minute)
	r.wantSettled(a, b, 1)
}

// TestOnePairOfTwo: both ends ask for one, and one request is late: there are two
// pairs, and one of them is rekeyed before it is closed as redundant.
func TestOnePairOfTwo(t *testing.T) {
	for _, salt := range []string{"", "1", "2", "3", "4", "5"} {
		r, a, b := saltedUp(t, salt, nil)
		a.step(Terminate{Peer: "B", Policy: "lan"})
		r.run(time.Second)
		lost := false
		r.losing(a, wire.CreateChildSA, false, func() bool { first := !lost; lost = true; return first })
		a.step(Acquire{Peer: "B", Policy: "lan"})
		b.step(Acquire{Peer: "A", Policy: "lan"})
		r.run(100 * time.Millisecond)
		a.expire("lan", true)
		r.run(time.Minute)
		r.wantSettled(a, b, 1)
		if t.Failed() {
			t.Fatalf("salt %q:\nA:\n%sB:\n%s", salt, lines(a.log), lines(b.log))
		}
	}
}

// TestTheHardLifetimeOfAnIKESAThatThePeerHasReplaced: both ends rekey it at once, and
// ours waits for its answer when the lifetime ends: to a request that is late, which
// the peer's has overtaken, or to one that may win.
func TestTheHardLifetimeOfAnIKESAThatThePeerHasReplaced(t *testing.T) {
	for _, response := range []bool{false, true} {
		for _, salt := range []string{"", "1", "2", "3"} {
			r, a, b := saltedUp(t, salt, func(a, _ *Peer) { a.Hard = 10 * time.Second })
			r.wantNoLoss(a, b, true, "lan")
			r.run(9900*time.Millisecond - r.now)
			late := func() bool { return r.now < 12*time.Second }
			if response {
				r.losing(a, wire.CreateChildSA, true, late)
				r.losing(b, wire.CreateChildSA, true, late)
			} else {
				r.losing(a, wire.CreateChildSA, false, late)
				r.losing(b, wire.Informational, false, late)
			}
			a.step(Rekey{Peer: "B"})
			b.step(Rekey{Peer: "A"})
			r.run(18*time.Second - r.now)
			r.wantPairs(a, b, 1)
			if len(a.establishedSAs()) != 1 || len(b.establishedSAs()) != 1 {
				t.Errorf("%d and %d IKE SAs are up", len(a.establishedSAs()), len(b.establishedSAs()))
			}
			if t.Failed() {
				t.Fatalf("responses %t, salt %q:\nA:\n%sB:\n%s", response, salt, lines(a.log), lines(b.log))
			}
		}
	}
}

// TestWhatIsTerminatedStaysDown: an end that was told to end it all, and to whom the
// peer has come again since, does not begin by itself once the peer ends that.
func TestWhatIsTerminatedStaysDown(t *testing.T) {
	r, a, b := up(t, func(_, b *Peer) { b.Start = AtOnce })
	b.step(Terminate{})
	r.run(time.Second)
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	r.wantPairs(a, b, 1)
	a.step(Terminate{})
	r.run(5 * time.Minute)
	a.wantNothingLeft()
	b.wantNothingLeft()
}
