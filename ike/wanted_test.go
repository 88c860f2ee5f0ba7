package ike

import (
	"net/netip"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/spd"
)

// What waits for a Child SA gets it, or is refused, whatever happens between.

// TestWanted_FailedReauthentication: reauthentication that comes to nothing leaves
// no policy waiting.
func TestWanted_FailedReauthentication(t *testing.T) {
	r, a, _ := up(t, func(pa, _ *Peer) { pa.Reauth = time.Minute })
	r.fate = func(d *datagram) []time.Duration {
		if x := d.header().Exchange; x == wire.IKESAInit {
			return nil
		}
		return []time.Duration{r.latency}
	}
	r.run(3 * time.Minute)
	r.fate = nil // else the next attempt may just be on its way
	r.run(3 * time.Minute)
	if p := a.m.peers["B"]; len(p.wanted) != 0 || len(a.establishedSAs()) != 1 {
		t.Errorf("%d IKE SAs, and it wants %v", len(a.establishedSAs()), p.wanted)
	}
}

// TestWanted_BadAnswer: an answer that this end cannot use refuses what waits.
func TestWanted_BadAnswer(t *testing.T) {
	r, a, b := pair(t, nil)
	b.m.peers["A"].Children[0].Selectors[0].Local[0] = prefixRange("10.2.0.0/16")
	a.step(Acquire{Peer: "B", Policy: "lan"})
	r.run(time.Second)
	a.step(Terminate{Peer: "B", Policy: "lan"})
	r.run(time.Second)
	a.refused = nil
	// B answers with more than A has asked for.
	a.m.peers["B"].wanted["lan"] = true
	sa := a.establishedSAs()[0]
	task := &createTask{child: &sa.peer.Children[0]}
	a.m.enqueue(sa, task)
	task.offer.ts.remote[0].To = task.offer.ts.remote[0].From
	a.step(Tick{})
	r.run(time.Minute)
	if len(a.refused) != 1 || len(a.sad) != 0 || len(b.sad) != 0 {
		t.Errorf("refused %v; %d and %d SAs are left", a.refused, len(a.sad), len(b.sad))
	}
}

// TestWanted_AfterTerminate: what is wanted anew is not taken for what was
// cancelled.
func TestWanted_AfterTerminate(t *testing.T) {
	r, a, b := up(t, nil)
	a.step(Terminate{Peer: "B", Policy: "lan"})
	r.run(10 * time.Millisecond)
	a.step(Acquire{Peer: "B", Policy: "lan"}) // waits behind the delete
	a.step(Terminate{Peer: "B", Policy: "lan"})
	a.step(Acquire{Peer: "B", Policy: "lan"})
	r.run(settle)
	r.wantSettled(a, b, 1)
}

// TestWanted_OutsideTheNarrowedPair: a packet that the pair is without is refused.
func TestWanted_OutsideTheNarrowedPair(t *testing.T) {
	r, a, b := up(t, func(_, pb *Peer) { pb.Children[0].Selectors = []spd.Selector{network("10.2.0.0/28", "10.1.0.0/24")} })
	for host, n := range map[string]int{"10.2.0.200": 1, "10.2.0.4": 0} {
		a.refused = nil
		a.step(Acquire{Peer: "B", Policy: "lan", Flow: packet.Flow{
			Version: 4, Protocol: 17, Src: netip.MustParseAddr("10.1.0.4").As16(), Dst: netip.MustParseAddr(host).As16(), SrcPort: 9, DstPort: 10,
		}})
		r.run(time.Second)
		if len(a.refused) != n {
			t.Errorf("%s: refused %v", host, a.refused)
		}
	}
	r.wantSettled(a, b, 1)
}

// TestStart_AgainBehindRubbish: a peer that is to be up comes up again behind an
// answer that made no sense.
func TestStart_AgainBehindRubbish(t *testing.T) {
	r, a, b := up(t, func(pa, _ *Peer) { pa.Start = AtOnce })
	sa := a.establishedSAs()[0]
	a.m.enqueue(sa, &createTask{child: &sa.peer.Children[0]})
	a.m.badAnswer(sa, livenessTask{}, &wire.ParseError{})
	a.step(Tick{})
	r.run(time.Minute)
	r.wantSettled(a, b, 1)
	a.m.outOfSync(a.establishedSAs()[0], StageChild, failure{Reason: "temporary_failure"})
	a.step(Tick{})
	r.run(time.Minute)
	r.wantSettled(a, b, 1)
}

// TestInstalled_BeforeTimers: an IKE SA whose time is up while the dataplane
// installs leaves nothing there.
func TestInstalled_BeforeTimers(t *testing.T) {
	r, a, b := up(t, func(_, pb *Peer) { pb.Hard = time.Minute })
	b.install = func(Install) error {
		r.now, b.install = r.now+2*time.Minute, nil
		return nil
	}
	a.expire("lan", true)
	r.run(10 * time.Minute)
	a.wantNothingLeft()
	b.wantNothingLeft()
}

// TestWanted_ByNothing: a policy that waits and that nothing is being done for is asked
// for with the next packet.
func TestWanted_ByNothing(t *testing.T) {
	r, a, b := up(t, withSecond)
	a.step(Terminate{Peer: "B", Policy: "second"})
	r.run(time.Second)
	a.m.peers["B"].wanted["second"] = true
	a.step(Acquire{Peer: "B", Policy: "second"})
	r.run(time.Second)
	r.wantPairs(a, b, 2)
}

// TestWanted_WhileAPairIsCopied: a pair that is to be made beside another IKE SA's is
// what a packet waits for as well.
func TestWanted_WhileAPairIsCopied(t *testing.T) {
	r, a, _ := up(t, withSecond)
	sa := a.establishedSAs()[0]
	a.m.peers["B"].wanted["second"] = true
	a.m.enqueue(sa, &createTask{child: sa.peer.child("second"), own: true})
	a.step(Tick{})
	if len(a.m.peers["B"].wanted) != 0 {
		t.Error("it waits for what is there")
	}
	// One that the peer is to delete is none.
	a.child("second").state = childRedundant
	a.m.peers["B"].wanted["second"] = true
	a.m.enqueue(sa, &createTask{child: sa.peer.child("second"), own: true})
	a.step(Tick{})
	r.run(time.Second)
	if a.child("second") == nil || len(a.m.peers["B"].wanted) != 0 {
		t.Errorf("no pair, and it wants %v", a.m.peers["B"].wanted)
	}
}

// TestStart_WhenThereIsRoomAgain: a peer that is to be up comes up although there were
// as many IKE SAs as there may be when it was to be tried again.
func TestStart_WhenThereIsRoomAgain(t *testing.T) {
	r := newRig(t)
	pb, pc := peerAt(t, "A"), peerAt(t, "A")
	pb.Start, pc.Start = AtOnce, AtOnce
	pc.Name, pc.Remote, pc.Remotely.ID = "C", netip.MustParseAddr("192.0.2.3"), identity(t, "c.example.net")
	a := r.add("A", Config{Peers: []Peer{pb, pc}, Limits: Limits{MaxSAs: 1}}, addrA.String())
	r.add("B", Config{Peers: []Peer{peerAt(t, "B")}}, addrB.String())
	r.run(3 * time.Minute) // C is not there
	if n := len(a.establishedSAs()); n != 1 {
		t.Fatalf("%d established", n)
	}
	atC := peerAt(t, "B")
	atC.Local, atC.Auth.ID = pc.Remote, pc.Remotely.ID
	r.add("C", Config{Peers: []Peer{atC}}, pc.Remote.String())
	a.step(Terminate{Peer: "B"})
	r.run(3 * time.Minute)
	if sas := a.establishedSAs(); len(sas) != 1 || sas[0].peer.Name != "C" {
		t.Errorf("%d established; log:\n%s", len(sas), lines(a.log))
	}
}
