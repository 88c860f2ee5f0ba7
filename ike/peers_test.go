package ike

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/internal/pki"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// withSecond gives both ends a second policy.
func withSecond(pa, pb *Peer) {
	for i, p := range []*Peer{pa, pb} {
		c := p.Children[0]
		c.Policy = "second"
		nets := []string{"10.3.0.0/24", "10.4.0.0/24"}
		c.Selectors = []spd.Selector{network(nets[i], nets[1-i])}
		p.Children = append(p.Children, c)
	}
}

// TestConfigure: a peer whose settings are the same keeps its SAs, however its keys
// were read again; one that has changed, or is gone, loses them.
func TestConfigure(t *testing.T) {
	root := newRoot(t)
	var mine Peer
	r, a, b := pair(t, func(pa, pb *Peer) {
		certify(t, pa, pb, root, pki.P256)
		mine = *pa
	})
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	r.wantUp(a, b, 1)
	was := a.establishedSAs()[0]
	same := mine
	same.Auth.Chain = slices.Clone(mine.Auth.Chain)
	same.Remotely.Revocation = auth.Revocation{Policy: auth.RevocationRelaxed}
	a.step(Configure{Peers: []Peer{same}})
	r.run(time.Minute)
	if now := a.establishedSAs(); len(now) != 1 || now[0] != was {
		t.Error("a peer that is the same has lost its IKE SA")
	}
	if a.m.peers["B"].Remotely.Revocation.Policy != auth.RevocationRelaxed {
		t.Error("the news of revoked certificates has not come through")
	}
	a.step(Configure{Peers: []Peer{same, same}})
	if f := a.find(StageConfigure, Failed); len(f) != 1 || len(a.establishedSAs()) != 1 {
		t.Errorf("two peers of one name: %v", f)
	}
	changed := same
	changed.DPD, changed.Start = time.Minute, AtOnce
	a.step(Configure{Peers: []Peer{changed}})
	r.run(10 * time.Second)
	if now := a.establishedSAs(); len(now) != 1 || now[0] == was {
		t.Errorf("a peer that has changed: %d IKE SAs; log:\n%s", len(now), lines(a.log))
	}
	r.wantPairs(a, b, 1)
	a.step(Configure{})
	r.run(time.Minute)
	a.wantNothingLeft()
	b.wantNothingLeft()
}

// TestConfigureRefuses what a machine could not work with.
func TestConfigureRefuses(t *testing.T) {
	for name, change := range map[string]func(*Peer){
		"without a name": func(p *Peer) { p.Name = "" },
		"proposals":      func(p *Peer) { p.Proposals = nil },
		"no address":     func(p *Peer) { p.Start, p.Remote = AtOnce, netip.Addr{} },
		"policy \"lan\"": func(p *Peer) { p.Children = append(p.Children, p.Children[0]) },
	} {
		p := peerAt(t, "A")
		change(&p)
		if _, err := New(Config{Peers: []Peer{p}}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRFC7296_2_8_3_Reauthentication: a new IKE SA from scratch, with all Child
// SAs, before the old one goes; only the end that initiated does so.
func TestRFC7296_2_8_3_Reauthentication(t *testing.T) {
	r, a, b := pair(t, func(pa, pb *Peer) {
		withSecond(pa, pb)
		pa.Reauth, pb.Reauth, pb.Rekey = time.Hour, time.Hour, 25*time.Minute
	})
	a.step(Initiate{Peer: "B"})
	r.run(59 * time.Minute)
	r.wantPairs(a, b, 2)
	was := a.m.Stats()["established"]
	r.run(2 * time.Minute)
	if n := a.m.Stats()["established"]; n != was+1 || b.m.Stats()["established"] != n {
		t.Errorf("established %d times before, %d now", was, n)
	}
	if len(a.establishedSAs()) != 1 || len(b.establishedSAs()) != 1 {
		t.Errorf("%d and %d IKE SAs", len(a.establishedSAs()), len(b.establishedSAs()))
	}
	r.wantPairs(a, b, 2)
	for _, e := range []*end{a, b} {
		for _, policy := range []string{"lan", "second"} {
			if !slices.ContainsFunc(a.establishedSAs()[0].children, func(c *childSA) bool { return c.child.Policy == policy }) {
				t.Errorf("%s has no %s any more", e.name, policy)
			}
		}
		if len(e.failures()) != 0 {
			t.Errorf("%s:\n%s", e.name, lines(e.log))
		}
	}
}

// TestTerminateAtEveryMoment ends everything at each millisecond of a handshake:
// nothing is left, and nothing starts again by itself.
func TestTerminateAtEveryMoment(t *testing.T) {
	for at := time.Duration(0); at < 60*time.Millisecond; at += 5 * time.Millisecond {
		for _, who := range []string{"A", "B"} {
			r, a, b := pair(t, func(pa, pb *Peer) { pa.Start = AtOnce })
			a.step(Initiate{Peer: "B"})
			r.run(at)
			e := a
			if who == "B" {
				e = b
			}
			e.step(Terminate{})
			r.run(500 * time.Millisecond)
			a.step(Terminate{})
			r.run(5 * time.Minute)
			a.wantNothingLeft()
			b.wantNothingLeft()
			if t.Failed() {
				t.Fatalf("%s ends it after %s", who, at)
			}
		}
	}
}

// TestTerminateWhileProving: what is to be deleted is never established here, and
// the peer is told.
func TestTerminateWhileProving(t *testing.T) {
	r, a, b := pair(t, nil)
	a.step(Initiate{Peer: "B"})
	r.run(25 * time.Millisecond)
	a.step(Terminate{})
	r.run(time.Second)
	if a.m.Stats()["established"] != 0 || b.m.Stats()["established"] != 1 {
		t.Errorf("established %d and %d times", a.m.Stats()["established"], b.m.Stats()["established"])
	}
	r.run(time.Minute)
	a.wantNothingLeft()
	b.wantNothingLeft()
}

// TestConfigureWhileProving: peers that change between IKE_SA_INIT and IKE_AUTH are
// looked up as they are then.
func TestConfigureWhileProving(t *testing.T) {
	r, a, b := pair(t, nil)
	a.step(Initiate{Peer: "B"})
	r.run(25 * time.Millisecond)
	changed := peerAt(t, "B")
	changed.DPD = time.Minute
	b.step(Configure{Peers: []Peer{changed}})
	r.run(time.Second)
	r.wantUp(a, b, 1)
	if b.establishedSAs()[0].peer != b.m.peers["A"] {
		t.Error("the IKE SA is of a peer that is not there any more")
	}
	b.step(Terminate{})
	r.run(time.Minute)
	a.wantNothingLeft()
	b.wantNothingLeft()

	r, a, b = pair(t, nil)
	a.step(Initiate{Peer: "B"})
	r.run(25 * time.Millisecond)
	b.step(Configure{})
	r.run(2 * time.Minute)
	if len(a.failures()) != 1 {
		t.Errorf("A:\n%s", lines(a.log))
	}
	a.wantNothingLeft()
	b.wantNothingLeft()
}

// TestCK09_RestartAtEveryMoment restarts an end at each step of everything: the
// other end finds out, and both are up again with one IKE SA and one pair.
func TestCK09_RestartAtEveryMoment(t *testing.T) {
	for at := time.Duration(0); at < 200*time.Millisecond; at += 10 * time.Millisecond {
		for _, who := range []string{"A", "B"} {
			r, a, b := pair(t, func(pa, pb *Peer) {
				pa.Start, pa.DPD, pb.DPD = AtOnce, 10*time.Second, 10*time.Second
			})
			a.step(Initiate{Peer: "B"})
			r.run(5 * time.Millisecond)
			b.step(Rekey{Peer: "A"})
			r.run(at)
			a.step(Rekey{Peer: "B", Policy: "lan"})
			r.run(15 * time.Millisecond)
			if who == "A" {
				p := peerAt(t, "A")
				p.Start, p.DPD = AtOnce, 10*time.Second
				a.restart(Config{Peers: []Peer{p}})
			} else {
				p := peerAt(t, "B")
				p.DPD = 10 * time.Second
				b.restart(Config{Peers: []Peer{p}})
			}
			r.run(10 * time.Minute)
			if len(a.establishedSAs()) != 1 || len(b.establishedSAs()) != 1 {
				t.Errorf("%s restarts after %s: %d and %d IKE SAs\nA:\n%sB:\n%s", who, at, len(a.establishedSAs()), len(b.establishedSAs()), lines(a.log), lines(b.log))
			}
			r.wantPairs(a, b, 1)
			if t.Failed() {
				return
			}
		}
	}
}

// TestStatus shows what there is, and no key.
func TestStatus(t *testing.T) {
	r, a, _ := pair(t, func(pa, _ *Peer) { pa.Rekey = time.Hour })
	a.step(Initiate{Peer: "B"})
	r.run(time.Minute)
	s := a.m.Status()
	if len(s) != 1 || len(s[0].SAs) != 1 || len(s[0].SAs[0].ChildSAs) != 1 {
		t.Fatalf("%+v", s)
	}
	sa := s[0].SAs[0]
	if sa.State != "established" || !sa.Initiator || sa.PeerID != "b.example.net" || sa.Authentication != "psk" || sa.Suite != "aes128gcm16-prfsha256-x25519" ||
		sa.RekeyIn < 50*time.Minute || sa.EndIn < sa.RekeyIn || sa.ChildSAs[0].Policy != "lan" {
		t.Errorf("%+v", sa)
	}
	for id, p := range a.sad {
		for _, key := range []sad.Key{p.EncryptionKey} {
			if strings.Contains(fmt.Sprintf("%+v %#v", s, a.m), fmt.Sprintf("%x", []byte(key))) {
				t.Errorf("the key of %s is in the status or the machine", id)
			}
		}
	}
}

// TestVerboseTouchesNothing: the verbose log comes and goes with the SAs up.
func TestVerboseTouchesNothing(t *testing.T) {
	r, a, b := pair(t, func(pa, _ *Peer) { pa.DPD = 5 * time.Second })
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	quiet := len(a.events)
	r.run(10 * time.Second)
	if len(a.events) != quiet {
		t.Error("liveness is in the log that is not verbose")
	}
	a.step(Verbose{Peer: "B", On: true})
	r.run(10 * time.Second)
	loud := len(a.events)
	if loud == quiet {
		t.Error("nothing in the verbose log")
	}
	a.step(Verbose{On: false})
	r.run(10 * time.Second)
	if len(a.events) != loud {
		t.Error("the verbose log does not end")
	}
	r.wantUp(a, b, 1)
}

// TestAPacketOfAPeerThatIsStillToComeWaits: a reload puts policies in force before the
// machine hears of their peers. A packet in between is not refused: it asks again.
func TestAPacketOfAPeerThatIsStillToComeWaits(t *testing.T) {
	r := newRig(t)
	pa := peerAt(t, "A")
	a := r.add("A", Config{}, addrA.String())
	b := r.add("B", Config{Peers: []Peer{peerAt(t, "B")}}, addrB.String())
	a.step(Acquire{Peer: "B", Policy: "lan"})
	r.run(time.Second)
	if len(a.refused) != 0 || a.m.stats["acquire_unknown"] != 1 {
		t.Errorf("refused %v, %d counted", a.refused, a.m.stats["acquire_unknown"])
	}
	a.step(Configure{Peers: []Peer{pa}})
	a.step(Acquire{Peer: "B", Policy: "other"})
	a.step(Acquire{Peer: "B", Policy: "lan"})
	r.run(time.Second)
	r.wantPairs(a, b, 1)
	if len(a.refused) != 0 {
		t.Errorf("refused %v", a.refused)
	}
}

// TestInitiateOnAnIKESAThatIsThere: the operator's word needs no address of the peer
// where the IKE SA is up, as a packet does not.
func TestInitiateOnAnIKESAThatIsThere(t *testing.T) {
	r, a, b := pair(t, func(_, b *Peer) { b.Remote = netip.Addr{} })
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	b.step(Terminate{Peer: "A", Policy: "lan"})
	r.run(time.Second)
	r.wantPairs(a, b, 0)
	b.step(Initiate{Peer: "A", Policy: "lan"})
	r.run(time.Second)
	r.wantPairs(a, b, 1)
	if len(b.failures()) != 0 {
		t.Errorf("failures: %v", b.failures())
	}
}
