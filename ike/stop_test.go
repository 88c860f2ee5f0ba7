package ike

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
)

// TestWhoStopsBeginsNothing: the peer, told goodbye, comes again at once, and a packet
// wants an SA; neither brings up what this end would leave behind without a word.
func TestWhoStopsBeginsNothing(t *testing.T) {
	r, a, b := pair(t, func(_, b *Peer) { b.Start = AtOnce })
	r.run(3 * time.Second)
	r.wantPairs(a, b, 1)
	a.step(Terminate{Last: true})
	sent := len(r.sent)
	a.step(Acquire{Peer: "B", Policy: "lan", Flow: flowOf("10.1.0.5", "10.2.0.5")})
	a.step(Initiate{Peer: "B"})
	r.run(5 * time.Second)
	came := 0
	for _, d := range r.sent[sent:] {
		if h := d.header(); h.Exchange == wire.IKESAInit && d.by == b {
			came++
		} else if d.by == a && h.Exchange == wire.IKESAInit {
			t.Error("A begins, or answers who begins")
		}
	}
	if came == 0 {
		t.Error("B did not come again: this test holds nothing")
	}
	if len(a.establishedSAs()) != 0 || len(b.establishedSAs()) != 0 || len(a.sad) != 0 {
		t.Errorf("%d and %d IKE SAs, %d SAs are left", len(a.establishedSAs()), len(b.establishedSAs()), len(a.sad))
	}
	if len(a.refused) != 1 || a.m.stats["stopping"] == 0 {
		t.Errorf("refused %v, %d first messages counted", a.refused, a.m.stats["stopping"])
	}
}

// TestAHalfOpenPeerIsNotLetInAtTheEnd: its IKE_AUTH is on its way when this end stops.
func TestAHalfOpenPeerIsNotLetInAtTheEnd(t *testing.T) {
	r, a, b := pair(t, nil)
	b.step(Initiate{Peer: "A"})
	r.run(r.latency + r.latency/2)
	if a.m.HalfOpen() != 1 {
		t.Fatalf("%d half-open IKE SAs", a.m.HalfOpen())
	}
	a.step(Terminate{Last: true})
	r.run(5 * time.Second)
	if len(a.establishedSAs()) != 0 || len(b.establishedSAs()) != 0 {
		t.Errorf("A has %d IKE SAs and B %d", len(a.establishedSAs()), len(b.establishedSAs()))
	}
	a.wantNothingLeft()
}

// An operator's Terminate is no end: what comes later begins anew.
func TestTerminateIsNotTheEnd(t *testing.T) {
	r, a, b := pair(t, nil)
	b.step(Initiate{Peer: "A"})
	r.run(time.Second)
	a.step(Terminate{})
	r.run(time.Second)
	r.wantPairs(a, b, 0)
	b.step(Initiate{Peer: "A"})
	r.run(time.Second)
	r.wantPairs(a, b, 1)
}

// TestDriverSaysWhoDidNotAnswerItsEnd: one line for each IKE SA, behind DriverConfig.Stop.
func TestDriverSaysWhoDidNotAnswerItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newDriverRig(t)
		r.status = []PeerStatus{{Name: "site-b", SAs: []SAStatus{{Remote: thereIKE}}}, {Name: "site-c"}}
		var said []Event
		r.driver.cfg.Log = func(e Event) { said = append(said, e) }
		r.start(t, 0)
		began := time.Now()
		r.stop()
		<-r.driver.Done()
		if took := time.Since(began); took != stopWait {
			t.Errorf("stopping took %s, want %s", took, stopWait)
		}
		if len(said) != 1 || said[0].Peer != "site-b" || said[0].Remote != thereIKE || said[0].Outcome != Failed || said[0].Reason != "timeout" ||
			said[0].Stage != StageDelete || !strings.Contains(said[0].Text, "after 2s") {
			t.Errorf("said %+v", said)
		}
	})
}

// TestAStopWithManyPeersMakesNoStatus: what is behind each of a thousand answers must not
// cost what a status of a thousand peers costs.
func TestAStopWithManyPeersMakesNoStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newDriverRig(t)
		r.status = []PeerStatus{{SAs: make([]SAStatus, 1)}}
		r.answer = func(_ time.Duration, in Input) []Action {
			if p, ok := in.(Packet); ok && p.Data[ikeHeaderLen] == 99 {
				r.status = nil
			}
			return nil
		}
		r.start(t, 0)
		r.stop()
		synctest.Wait()
		for n := range 100 {
			r.put(t, 5, byte(n))
			synctest.Wait()
		}
		<-r.driver.Done()
		if r.statuses != 0 {
			t.Errorf("%d times a status was made", r.statuses)
		}
	})
}
