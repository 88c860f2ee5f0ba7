package ike

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/pki"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// TestFailures goes through what ends that do not fit each other come to: one event
// on the end that refuses, with the peer, the stage, the reason and what differs;
// one on the end that is refused; a Refuse for the policy that waited; and nothing
// that is left.
func TestFailures(t *testing.T) {
	root, other := newRoot(t), newRoot(t)
	leaf := func(p *Peer, by *pki.Entity, o pki.Options) {
		o.Key = pki.P256
		e, err := by.Issue(o)
		if err != nil {
			t.Fatal(err)
		}
		p.Auth.Chain, p.Auth.Signer = e.Chain(), e.Key
	}
	named := func(name string) pki.Options {
		return pki.Options{Name: name, DNS: []string{name}, From: epoch.Add(-time.Hour)}
	}
	for _, c := range []struct {
		name   string
		change func(a, b *Peer)
		// what A and B say, "" for nothing
		stageA, stageB   Stage
		reasonA, reasonB string
		bothSides        bool // of B's event
	}{
		{"no common proposal", func(_, b *Peer) {
			b.Proposals = proposals(t, wire.ProtocolIKE, "aes256gcm16-prfsha384-ecp384")
		}, StageInit, StageInit, "no_proposal_chosen", "no_proposal_chosen", true},
		{"not configured there", func(_, b *Peer) { b.Remote = addrB }, StageInit, StageInit, "no_proposal_chosen", "unknown_peer", false},
		{"wrong PSK", func(a, _ *Peer) {
			a.Auth.PSK, a.Remotely.PSK = sad.Key("not the same, and long enough"), sad.Key("not the same, and long enough")
		}, StageAuth, StageAuth, "authentication_failed", "auth_failed", false},
		{"wrong PSK of B only", func(a, b *Peer) { b.Auth.PSK = sad.Key("not the same, and long enough") }, StageAuth, StageAuth, "auth_failed", "authentication_failed", false},
		{"A is somebody else", func(a, _ *Peer) { a.Auth.ID = identity(t, "c.example.net") }, StageAuth, StageAuth, "authentication_failed", "wrong_identity", true},
		{"A wants somebody else", func(a, _ *Peer) { a.Remotely.ID = identity(t, "c.example.net") }, StageAuth, StageAuth, "authentication_failed", "wrong_identity", true},
		{"B has no credentials", func(_, b *Peer) { b.Auth.PSK = nil }, StageAuth, StageAuth, "authentication_failed", "no_credentials", false},
		{"PSK against certificate", func(_, b *Peer) {
			b.Remotely.PSK, b.Remotely.Trust = nil, []*x509.Certificate{root.Root}
		}, StageAuth, StageAuth, "authentication_failed", "unsupported_method", true},
		{"unknown authority", func(a, b *Peer) {
			certify(t, a, b, root, pki.P256)
			b.Remotely.Trust = []*x509.Certificate{other.Root}
		}, StageAuth, StageAuth, "authentication_failed", "unknown_ca", false},
		{"expired", func(a, b *Peer) {
			certify(t, a, b, root, pki.P256)
			o := named("a.example.net")
			o.From, o.Until = epoch.Add(-48*time.Hour), epoch.Add(-24*time.Hour)
			leaf(a, root, o)
		}, StageAuth, StageAuth, "authentication_failed", "expired", false},
		{"not yet valid", func(a, b *Peer) {
			certify(t, a, b, root, pki.P256)
			o := named("a.example.net")
			o.From, o.Until = epoch.Add(24*time.Hour), epoch.Add(48*time.Hour)
			leaf(a, root, o)
		}, StageAuth, StageAuth, "authentication_failed", "not_yet_valid", false},
		{"certificate of another name", func(a, b *Peer) {
			certify(t, a, b, root, pki.P256)
			leaf(a, root, named("c.example.net"))
		}, StageAuth, StageAuth, "authentication_failed", "wrong_identity", false},
		{"revoked", func(a, b *Peer) {
			certify(t, a, b, root, pki.P256)
			list, err := root.CRL(epoch.Add(-time.Hour), epoch.Add(24*time.Hour), a.Auth.Chain[0])
			if err != nil {
				t.Fatal(err)
			}
			b.Remotely.Revocation = auth.Revocation{Policy: auth.RevocationStrict, CRLs: []*x509.RevocationList{list}}
		}, StageAuth, StageAuth, "authentication_failed", "revoked", false},
		{"no common child proposal", func(_, b *Peer) {
			b.Children[0].Proposals = proposals(t, wire.ProtocolESP, "aes256gcm16-esn")
		}, StageChild, StageChild, "no_proposal_chosen", "no_proposal_chosen", true},
		{"no common selectors", func(_, b *Peer) {
			b.Children[0].Selectors = []spd.Selector{network("10.9.0.0/24", "10.8.0.0/24")}
		}, StageChild, StageChild, "ts_unacceptable", "ts_unacceptable", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, a, b := pair(t, c.change)
			a.step(Acquire{Peer: "B", Policy: "lan"})
			r.run(2 * time.Second)
			a.wantFailure(c.stageA, c.reasonA)
			b.wantFailure(c.stageB, c.reasonB)
			if f := b.failures(); len(f) == 1 && c.bothSides && (f[0].Theirs == "" || f[0].Ours == "" || f[0].Fix == "") {
				t.Errorf("theirs %q, ours %q, fix %q", f[0].Theirs, f[0].Ours, f[0].Fix)
			}
			if len(a.refused) != 1 || a.refused[0].Policy != "lan" || a.refused[0].Why == "" {
				t.Errorf("refused %v", a.refused)
			}
			if c.stageA == StageChild {
				// RFC 7296 1.2: the failure of the Child SA does not end the IKE SA.
				if len(a.establishedSAs()) != 1 || len(b.establishedSAs()) != 1 {
					t.Error("the IKE SA did not stay up")
				}
				a.step(Terminate{})
			}
			r.run(2 * time.Minute)
			a.wantNothingLeft()
			b.wantNothingLeft()
			for _, e := range []*end{a, b} {
				for _, line := range e.log {
					if strings.Contains(line, testPSK) || strings.Contains(line, "long enough") {
						t.Errorf("a secret in the log: %s", line)
					}
				}
			}
		})
	}
}

func (e *end) wantFailure(stage Stage, reason string) {
	e.r.t.Helper()
	f := e.failures()
	if len(f) != 1 || f[0].Stage != stage || f[0].Reason != reason || f[0].Peer == "" && reason != "unknown_peer" {
		e.r.t.Errorf("%s: want one failure %s %s; log:\n%s", e.name, stage, reason, lines(e.log))
	}
}

// TestNoAnswer: a peer that is not there is tried Timing.Tries times, each later
// than the one before, and given up with one event.
func TestNoAnswer(t *testing.T) {
	r, a, b := pair(t, nil)
	r.fate = func(*datagram) []time.Duration { return nil }
	a.step(Acquire{Peer: "B", Policy: "lan"})
	r.run(5 * time.Minute)
	a.wantFailure(StageInit, "timeout")
	if len(r.sent) != 8 || len(a.refused) != 1 {
		t.Errorf("%d transmissions, refused %v", len(r.sent), a.refused)
	}
	for i := 2; i < len(r.sent); i++ {
		if string(r.sent[i].data) != string(r.sent[0].data) || r.sent[i].at-r.sent[i-1].at < r.sent[i-1].at-r.sent[i-2].at {
			t.Error("a retransmission is another message, or comes sooner than the one before")
		}
	}
	a.wantNothingLeft()
	b.wantNothingLeft()
}

// TestStartNow: a peer that is to be up is tried again and again, with longer
// waits, and comes up when it can.
func TestStartNow(t *testing.T) {
	r, a, b := pair(t, func(pa, _ *Peer) { pa.Start = AtOnce })
	down := true
	r.fate = func(*datagram) []time.Duration {
		if down {
			return nil
		}
		return []time.Duration{r.latency}
	}
	r.run(10 * time.Minute)
	if n := len(a.failures()); n < 4 || n > 12 {
		t.Errorf("%d attempts in ten minutes", n)
	}
	down = false
	r.run(3 * time.Minute)
	if len(a.establishedSAs()) != 1 {
		t.Errorf("not up; log:\n%s", lines(a.log))
	}
	r.wantPairs(a, b, 1)
}

// TestLiveness: a peer that dies is missed, its SAs go, and it is started again.
func TestLiveness(t *testing.T) {
	r, a, b := pair(t, func(pa, pb *Peer) {
		pa.Start, pa.DPD = AtOnce, 30*time.Second
	})
	r.run(10 * time.Second)
	r.wantUp(a, b, 1)
	dead := true
	r.fate = func(*datagram) []time.Duration {
		if dead {
			return nil
		}
		return []time.Duration{r.latency}
	}
	r.run(2 * time.Minute)
	if len(a.establishedSAs()) != 0 || len(a.sad) != 0 {
		t.Errorf("not missed; log:\n%s", lines(a.log))
	}
	if f := a.find(StageLiveness, Failed); len(f) != 1 || f[0].Reason != "timeout" || f[0].Peer != "B" {
		t.Errorf("liveness events %v", f)
	}
	b.restart(Config{Peers: []Peer{peerAt(t, "B")}})
	dead = false
	r.run(3 * time.Minute)
	if len(a.establishedSAs()) != 1 {
		t.Errorf("not up again; log:\n%s", lines(a.log))
	}
	r.wantPairs(a, b, 1)
	checks := a.m.Stats()["liveness_checks"]
	r.run(10 * time.Minute)
	if n := a.m.Stats()["liveness_checks"] - checks; n < 15 || n > 21 {
		t.Errorf("%d liveness checks in ten minutes of 30s", n)
	}
}

// TestRubbishAnswers: a peer that answers with rubbish is named for it.
func TestRubbishAnswers(t *testing.T) {
	r, a, _ := pair(t, nil)
	r.nat = func(d *datagram) bool {
		if d.header().Response() {
			h := d.header()
			d.data = wire.Append(nil, h, &wire.Nonce{Data: make([]byte, 32)})
		}
		return true
	}
	a.step(Acquire{Peer: "B", Policy: "lan"})
	r.run(5 * time.Minute)
	a.wantFailure(StageInit, "bad_answer")
	a.wantNothingLeft()
}

// TestHalfOpenExpires: somebody who goes no further than IKE_SA_INIT is forgotten,
// and told of once.
func TestHalfOpenExpires(t *testing.T) {
	r, a, b := pair(t, nil)
	r.fate = func(d *datagram) []time.Duration {
		if d.by.name == "A" && d.header().Exchange == wire.IKEAuth {
			return nil
		}
		return []time.Duration{r.latency}
	}
	a.step(Acquire{Peer: "B", Policy: "lan"})
	r.run(29 * time.Second)
	if b.m.HalfOpen() != 1 {
		t.Errorf("%d half-open", b.m.HalfOpen())
	}
	r.run(2 * time.Minute)
	b.wantFailure(StageAuth, "half_open_expired")
	a.wantFailure(StageAuth, "timeout")
	a.wantNothingLeft()
	b.wantNothingLeft()
}

// TestRFC7296_2_16_APeerThatWantsEAP: "An initiator indicates a desire to use EAP by
// leaving out the AUTH payload from the first message in the IKE_AUTH exchange": it is
// told AUTHENTICATION_FAILED, the log says what it wanted, and nothing is left of it.
func TestRFC7296_2_16_APeerThatWantsEAP(t *testing.T) {
	for _, who := range []string{"a.example.net", "z.example.net"} {
		r, a, b := pair(t, nil)
		r.fate = func(d *datagram) []time.Duration {
			if h := d.header(); h.Exchange == wire.IKEAuth && !h.Response() {
				return nil
			}
			return []time.Duration{r.latency}
		}
		a.step(Acquire{Peer: "B", Policy: "lan"})
		r.run(100 * time.Millisecond)
		sa := a.m.peers["B"].sas[0]
		offer, err := a.m.newOffer(sa, &sa.peer.Children[0], packet.Flow{}, true)
		if err != nil {
			t.Fatal(err)
		}
		child, rest := offer.parts()
		payloads := append([]wire.Payload{identity(t, who).Wire(false), child}, rest...)
		for _, d := range a.m.seal(sa, a.m.header(sa, wire.IKEAuth, sa.ours.id, false), payloads) {
			b.step(Packet{Local: sa.path.remote, Remote: sa.path.local, NATT: sa.path.natt, Data: d})
		}
		f := b.failures()
		if len(f) != 1 || f[0].Stage != StageAuth || f[0].Reason != "unsupported_method" || f[0].Theirs != who+" by EAP" || f[0].Fix == "" {
			t.Fatalf("want one failure that names EAP; log:\n%s", lines(b.log))
		}
		if known := who == "a.example.net"; known && (f[0].Peer != "A" || f[0].Ours != "a.example.net by pre-shared key") || f[0].Ours == "" {
			t.Errorf("peer %q, ours %q", f[0].Peer, f[0].Ours)
		}
		r.run(time.Second)
		a.wantFailure(StageAuth, "authentication_failed")
		r.run(2 * time.Minute)
		a.wantNothingLeft()
		b.wantNothingLeft()
	}
}
