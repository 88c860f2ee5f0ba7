package ike

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
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

// TestRFC7296_2_8_ADeleteThatIsLostLosesNoPacket: an IKE SA that is one too many goes, and
// so do its pairs; what the peer sends on them until it hears of that is taken, however
// often the delete is lost.
func TestRFC7296_2_8_ADeleteThatIsLostLosesNoPacket(t *testing.T) {
	for salt := range 8 {
		r, a, b := saltedPair(t, fmt.Sprint("lost", salt), nil)
		b.step(Acquire{Peer: "A", Policy: "lan"})
		r.run(15 * time.Millisecond) // what A makes comes later, and B uses it
		a.step(Acquire{Peer: "B", Policy: "lan"})
		r.run(4 * time.Second)
		r.wantNoLoss(a, b, true, "lan")
		lost := 0
		r.fate = func(d *datagram) []time.Duration {
			if d.header().Exchange == wire.Informational && r.now < 25*time.Second {
				lost++
				return nil
			}
			return []time.Duration{r.latency}
		}
		r.run(2 * time.Minute)
		if n := len(a.establishedSAs()) + len(b.establishedSAs()); n != 2 || lost == 0 {
			t.Errorf("%d IKE SAs at the two ends, %d messages lost", n, lost)
		}
	}
}

// TestTerminateEndsWhatAwaitsItsDelete: a pair that only receives until the delete of its
// IKE SA is over goes with everything else.
func TestTerminateEndsWhatAwaitsItsDelete(t *testing.T) {
	r, a, b := pair(t, nil)
	b.step(Acquire{Peer: "A", Policy: "lan"})
	r.run(15 * time.Millisecond)
	a.step(Acquire{Peer: "B", Policy: "lan"})
	r.run(4 * time.Second)
	r.fate = func(*datagram) []time.Duration { return nil }
	r.run(5 * time.Second)
	awaits := 0
	for _, e := range []*end{a, b} {
		awaits += len(e.sad)
		e.step(Terminate{})
		if len(e.sad) != 0 {
			t.Errorf("%s has %d SAs", e.name, len(e.sad))
		}
	}
	if awaits != 7 {
		t.Errorf("%d SAs, want two pairs at one end, and at the other two of which one only receives", awaits)
	}
	r.fate = nil
	r.run(3 * time.Minute)
	a.wantNothingLeft()
	b.wantNothingLeft()
}

// TestRFC7296_2_8_3_ALostDeleteLosesNoPacket: the same where an IKE SA goes because it was
// authenticated anew.
func TestRFC7296_2_8_3_ALostDeleteLosesNoPacket(t *testing.T) {
	r, a, b := up(t, func(pa, _ *Peer) { pa.Reauth = time.Minute })
	r.run(58 * time.Second)
	r.wantNoLoss(a, b, true, "lan")
	lost := 0
	r.fate = func(d *datagram) []time.Duration {
		if d.header().Exchange == wire.Informational && r.now < 85*time.Second {
			lost++
			return nil
		}
		return []time.Duration{r.latency}
	}
	r.run(45 * time.Second)
	if n := len(a.establishedSAs()); n != 1 || lost < 3 {
		t.Errorf("%d IKE SAs, %d messages lost", n, lost)
	}
}

// waitingPair has B make a pair that A has asked for in the place of the one there is, on
// which B does not send yet.
func waitingPair(t *testing.T, before func(r *rig, a *end)) (r *rig, a, b *end, c *childSA) {
	t.Helper()
	for salt := 0; ; salt++ {
		r, a, b = saltedUp(t, fmt.Sprint("waiting", salt), nil)
		before(r, a)
		if a.establishedSAs()[0] == a.m.peers["B"].sas[0] {
			break // the one that says speaks on
		}
	}
	old := a.child("lan")
	rekey := &wire.Notify{Protocol: old.protocol, SPI: binary.BigEndian.AppendUint32(nil, old.spiIn), Kind: wire.NotifyRekeySA}
	a.says(b, a.establishedSAs()[0].path.local, wire.CreateChildSA, append([]wire.Payload{rekey}, a.childRequest("lan")...)...)
	for _, sa := range b.establishedSAs() {
		for _, one := range sa.children {
			if one.waiting != nil {
				c = one
			}
		}
	}
	if c == nil {
		t.Fatal("no pair waits")
	}
	return r, a, b, c
}

// TestOutboundThatIsInstalledTooLate: an SA to send on that comes in the very step in which
// its pair is closed is gone behind it.
func TestOutboundThatIsInstalledTooLate(t *testing.T) {
	_, _, b, c := waitingPair(t, func(*rig, *end) {})
	b.m.switchOutbound(c)
	b.m.closeChild(c, "test", "")
	b.step(Tick{})
	if _, there := b.sad[c.out]; there {
		t.Error("packets leave on a pair that is closed")
	}
}

// TestNothingIsSentOnAPairThatGoesToo: of an IKE SA that is replaced no pair is begun to
// be used because another one goes.
func TestNothingIsSentOnAPairThatGoesToo(t *testing.T) {
	_, _, b, c := waitingPair(t, func(r *rig, a *end) {
		a.m.connect(a.m.peers["B"], nil)
		a.step(Tick{})
		r.run(time.Second)
	})
	if len(b.establishedSAs()) != 2 {
		t.Fatalf("%d IKE SAs", len(b.establishedSAs()))
	}
	b.heard = func(what string) {
		if strings.HasPrefix(what, "install") {
			t.Error(what)
		}
	}
	b.m.deleteReplaced(c.sa, "test")
	b.step(Tick{})
}
