package ike

import (
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
)

// packetsIn is what an end's dataplane knows of packets that came.
type packetsIn struct {
	last map[sad.ID]time.Duration
	deaf bool // it answers no question
}

// come has a packet come on each inbound SA.
func (e *end) come() {
	if e.packets.last == nil {
		e.packets.last = map[sad.ID]time.Duration{}
	}
	for id := range e.sad {
		if id.Direction == sad.Inbound {
			e.packets.last[id] = e.r.now
		}
	}
}

func (e *end) askHeard(a AskHeard) {
	if e.packets.deaf {
		return
	}
	h := Heard{SPI: a.SPI, Never: true}
	for _, id := range a.IDs {
		if _, there := e.sad[id]; !there || id.Direction != sad.Inbound {
			e.r.t.Errorf("%s asks what came on %s, which it does not have", e.name, id)
		}
		if at, any := e.packets.last[id]; any && (h.Never || e.r.now-at < h.Ago) {
			h = Heard{SPI: a.SPI, Ago: e.r.now - at}
		}
	}
	e.step(h)
}

// oneWay is a pair that is up, with packets from B to A every three seconds for so
// long.
func oneWay(t *testing.T, long time.Duration, change func(a, b *Peer)) (r *rig, a, b *end) {
	t.Helper()
	r, a, b = pair(t, change)
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	for until := r.now + long; r.now < until; r.run(3 * time.Second) {
		a.come()
	}
	r.wantPairs(a, b, 1)
	return r, a, b
}

const someDPD = 10 * time.Second

// RFC 7296 2.4: "Receipt of a fresh cryptographically protected message on an IKE SA
// or any of its Child SAs ensures liveness of the IKE SA and all of its Child SAs."
func TestRFC7296_2_4_PacketsThatComeInAreLiveness(t *testing.T) {
	_, a, b := oneWay(t, 10*time.Minute, func(a, _ *Peer) { a.DPD = someDPD })
	if n := a.m.stats["liveness_checks"]; n != 0 {
		t.Errorf("%d checks of a peer whose packets came all the time", n)
	}
	if len(a.failures())+len(b.failures()) != 0 {
		t.Errorf("failures: %v %v", a.failures(), b.failures())
	}
}

// RFC 7296 2.4: "If there has only been outgoing traffic on all of the SAs associated
// with an IKE SA, it is essential to confirm liveness of the other endpoint".
func TestRFC7296_2_4_WhatOnlyGoesOutIsNoLiveness(t *testing.T) {
	_, _, b := oneWay(t, 100*time.Second, func(_, b *Peer) { b.DPD = someDPD })
	if n := b.m.stats["liveness_checks"]; n < 9 || n > 11 {
		t.Errorf("%d checks in 100 s, want one in 10 s", n)
	}
}

// A peer that dies is asked Peer.DPD behind its last packet, wherever that fell, and
// not later; the retransmissions end what there is with it.
func TestRFC7296_2_4_APeerThatDiesIsFoundInTime(t *testing.T) {
	for _, last := range []time.Duration{0, 100 * time.Millisecond, 5 * time.Second, 9900 * time.Millisecond} {
		r := newRig(t)
		pa, pb := peerAt(t, "A"), peerAt(t, "B")
		pa.DPD = someDPD
		timing := Timing{Retransmit: 500 * time.Millisecond, Tries: 3}
		a := r.add("A", Config{Peers: []Peer{pa}, Timing: timing}, addrA.String())
		b := r.add("B", Config{Peers: []Peer{pb}, Timing: timing}, addrB.String())
		a.step(Initiate{Peer: "B"})
		r.run(time.Second)
		r.wantPairs(a, b, 1)
		for range 4 {
			a.come()
			r.run(8 * time.Second)
		}
		a.come()
		r.run(last)
		a.come()
		died, before := r.now, len(r.sent)
		r.fate = func(*datagram) []time.Duration { return nil }
		for len(a.find(StageLiveness, Failed)) == 0 && r.now < died+time.Minute {
			r.run(100 * time.Millisecond)
		}
		if len(r.sent) == before || r.sent[before].at != died+someDPD || r.sent[before].header().Exchange != wire.Informational {
			t.Fatalf("%s: the peer died at %s and was asked: %+v", last, died, r.sent[before:])
		}
		if took := r.now - died; took > someDPD+4*time.Second || len(a.sad) != 0 {
			t.Errorf("%s: found after %s, and %d SAs are left", last, took, len(a.sad))
		}
	}
}

// Without a replay window an old packet is as good as a new one, and nothing that
// comes says that the peer is there.
func TestRFC7296_2_4_OnlyFreshPacketsAreLiveness(t *testing.T) {
	_, a, _ := oneWay(t, 100*time.Second, func(a, b *Peer) {
		a.DPD = someDPD
		a.Children[0].Template.ReplayWindow = 0 // ESN needs one
		a.Children[0].Proposals = proposals(t, wire.ProtocolESP, "aes128gcm16")
		b.Children[0].Proposals = a.Children[0].Proposals
	})
	if n := a.m.stats["liveness_checks"]; n < 9 {
		t.Errorf("%d checks in 100 s, want one in 10 s", n)
	}
}

// A driver that does not know the question costs a second, and no dead peer is missed.
func TestAQuestionWithoutAnAnswerHasThePeerAsked(t *testing.T) {
	r, a, _ := pair(t, func(a, _ *Peer) { a.DPD = someDPD })
	a.packets.deaf = true
	a.step(Initiate{Peer: "B"})
	r.run(time.Second + someDPD + heardWait)
	if n := a.m.stats["liveness_checks"]; n != 1 {
		t.Errorf("%d checks, want one", n)
	}
}

// What nobody has asked changes nothing.
func TestAnAnswerWithoutAQuestionIsNothing(t *testing.T) {
	r, a, b := pair(t, nil)
	a.step(Heard{SPI: 77})
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	sent := len(r.sent)
	a.step(Heard{SPI: uint64(a.establishedSAs()[0].spi), Never: true})
	r.run(time.Minute)
	r.wantPairs(a, b, 1)
	if len(r.sent) != sent {
		t.Errorf("%d messages behind it", len(r.sent)-sent)
	}
}
