package ike

import (
	"crypto/x509"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/pki"
	"github.com/adit-ipsec/adit/sad"
)

// wantUp fails unless both ends have one established IKE SA and n pairs, and no
// failure.
func (r *rig) wantUp(a, b *end, n int) {
	r.t.Helper()
	for _, e := range []*end{a, b} {
		if len(e.establishedSAs()) != 1 || len(e.failures()) != 0 || len(e.refused) != 0 {
			r.t.Errorf("%s: %d established, %d refused, stats %v, log:\n%s", e.name, len(e.establishedSAs()), len(e.refused), e.m.Stats(), lines(e.log))
		}
	}
	r.wantPairs(a, b, n)
}

func lines(log []string) (text string) {
	for _, l := range log {
		text += "  " + l + "\n"
	}
	return text
}

// TestRFC7296_1_2_HandshakePSK: four messages make an IKE SA and a pair of Child
// SAs with the same keys on both ends.
func TestRFC7296_1_2_HandshakePSK(t *testing.T) {
	r, a, b := pair(t, nil)
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	r.wantUp(a, b, 1)
	if len(r.sent) != 4 {
		t.Errorf("%d messages, want 4", len(r.sent))
	}
}

// TestHandshakeProposals goes through every key exchange and every way to protect
// messages, additional key exchanges included (RFC 9370).
func TestHandshakeProposals(t *testing.T) {
	for _, k := range []string{
		"aes128gcm16-prfsha256-x25519", "aes256gcm16-prfsha384-ecp384", "chacha20poly1305-prfsha512-x448",
		"aes128-sha256-ecp256", "aes256-sha384-ecp521", "aes256-sha512-modp2048", "aes128gcm16-prfsha256-modp3072",
		"aes128ctr-sha256-x25519", "aes128ccm16-prfsha256-x25519",
		"aes256gcm16-prfsha384-x25519-ke1_mlkem768", "aes256gcm16-prfsha384-x25519-ke1_mlkem1024-ke2_ecp256",
	} {
		t.Run(k, func(t *testing.T) {
			r, a, b := pair(t, func(pa, pb *Peer) {
				pa.Proposals = proposals(t, wire.ProtocolIKE, k)
				pb.Proposals = pa.Proposals
			})
			a.step(Initiate{Peer: "B"})
			r.run(time.Second)
			r.wantUp(a, b, 1)
			if got := a.establishedSAs()[0].choice.Keyword(); got != k {
				t.Errorf("agreed on %s", got)
			}
		})
	}
}

// certify gives both ends certificates of one kind below one root.
func certify(t testing.TB, pa, pb *Peer, root *pki.Entity, kind pki.Kind) {
	t.Helper()
	for name, p := range map[string]*Peer{"a.example.net": pa, "b.example.net": pb} {
		e, err := root.Issue(pki.Options{Key: kind, Name: name, DNS: []string{name}, From: epoch.Add(-time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		p.Auth = auth.Local{ID: identity(t, name), Chain: e.Chain(), Signer: e.Key}
		p.Remotely.PSK, p.Remotely.Trust = nil, []*x509.Certificate{root.Root}
	}
}

func newRoot(t testing.TB) *pki.Entity {
	t.Helper()
	root, err := pki.New(pki.Options{Name: "test root", From: epoch.Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// TestHandshakeCertificates goes through the kinds of keys.
func TestHandshakeCertificates(t *testing.T) {
	root := newRoot(t)
	for _, kind := range []pki.Kind{pki.RSA2048, pki.P256, pki.P384, pki.P521, pki.Ed25519} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			r, a, b := pair(t, func(pa, pb *Peer) { certify(t, pa, pb, root, kind) })
			a.step(Initiate{Peer: "B"})
			r.run(time.Second)
			r.wantUp(a, b, 1)
		})
	}
}

// TestRFC7670_RawKeys: both ends prove themselves by keys without certificates.
func TestRFC7670_RawKeys(t *testing.T) {
	r, a, b := pair(t, func(pa, pb *Peer) {
		certify(t, pa, pb, newRoot(t), pki.Ed25519)
		pa.Auth.RawKey, pb.Auth.RawKey, pa.Auth.Chain, pb.Auth.Chain = true, true, nil, nil
		pa.Remotely.Trust, pb.Remotely.Trust = nil, nil
		pa.Remotely.Keys = append(pa.Remotely.Keys, pb.Auth.Signer.Public())
		pb.Remotely.Keys = append(pb.Remotely.Keys, pa.Auth.Signer.Public())
	})
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	r.wantUp(a, b, 1)
}

// TestRFC7383_LargeChain: an IKE_AUTH of several certificates goes in fragments
// that fit into packets of 1280 bytes, and comes up with half of them lost once.
func TestRFC7383_LargeChain(t *testing.T) {
	root := newRoot(t)
	below := root
	for i := range 3 {
		var err error
		if below, err = below.Authority(pki.Options{Key: pki.RSA3072, Name: fmt.Sprintf("authority %d", i), From: epoch.Add(-time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, loss := range []bool{false, true} {
		r, a, b := pair(t, func(pa, pb *Peer) { certify(t, pa, pb, below, pki.RSA2048) })
		r.fate = func(d *datagram) []time.Duration {
			if loss && d.header().Exchange == wire.IKEAuth && d.seq%2 == 0 && r.now < time.Second {
				return nil
			}
			return []time.Duration{r.latency}
		}
		a.step(Initiate{Peer: "B"})
		r.run(20 * time.Second)
		r.wantUp(a, b, 1)
		for _, d := range r.sent {
			if len(d.data) > 1280-28 {
				t.Errorf("a message of %d bytes", len(d.data))
			}
		}
		if a.m.Stats()["fragmented_messages"] == 0 || b.m.Stats()["fragmented_messages"] == 0 {
			t.Error("nothing was fragmented")
		}
	}
}

// TestRFC7296_1_2_InvalidKE: a group that was guessed wrong costs one round trip.
func TestRFC7296_1_2_InvalidKE(t *testing.T) {
	r, a, b := pair(t, func(pa, pb *Peer) {
		pa.Proposals = proposals(t, wire.ProtocolIKE, "aes128gcm16-prfsha256-x25519-ecp256-modp2048")
		pb.Proposals = proposals(t, wire.ProtocolIKE, "aes128gcm16-prfsha256-ecp256")
	})
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	r.wantUp(a, b, 1)
	if len(r.sent) != 6 {
		t.Errorf("%d messages, want 6", len(r.sent))
	}
}

// TestRFC8784_PPK: with a PPK on both ends, on one that does not require it, and
// with different ones.
func TestRFC8784_PPK(t *testing.T) {
	key := sad.Key("0123456789abcdef0123456789abcdef")
	ppk := func(id string, required bool) auth.PPK { return auth.PPK{ID: []byte(id), Key: key, Required: required} }
	for _, c := range []struct {
		name string
		a, b auth.PPK
		up   bool
		same bool // as without a PPK
	}{
		{"both", ppk("x", false), ppk("x", false), true, false},
		{"both required", ppk("x", true), ppk("x", true), true, false},
		{"only a", ppk("x", false), auth.PPK{}, true, true},
		{"only b", auth.PPK{}, ppk("x", false), true, true},
		{"other id", ppk("x", false), ppk("y", false), true, true},
		{"a requires", ppk("x", true), auth.PPK{}, false, false},
		{"b requires", auth.PPK{}, ppk("x", true), false, false},
		{"other key", ppk("x", false), auth.PPK{ID: []byte("x"), Key: sad.Key("another key that is just as long")}, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, a, b := pair(t, func(pa, pb *Peer) { pa.PPK, pb.PPK = c.a, c.b })
			a.step(Initiate{Peer: "B"})
			r.run(time.Second)
			if c.up {
				r.wantUp(a, b, 1)
				return
			}
			r.run(time.Minute)
			a.wantNothingLeft()
			b.wantNothingLeft()
			if len(a.failures())+len(b.failures()) == 0 {
				t.Error("nobody says why")
			}
		})
	}
}

// TestRFC6023_Childless: an IKE SA without a Child SA, where both ends can.
func TestRFC6023_Childless(t *testing.T) {
	r, a, b := pair(t, func(pa, pb *Peer) {
		pa.Children, pa.Childless, pb.Childless = nil, true, true
	})
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	r.wantUp(a, b, 0)
}

// TestSeveralPolicies: the first is made in IKE_AUTH, the others behind it.
func TestSeveralPolicies(t *testing.T) {
	r, a, b := pair(t, func(pa, pb *Peer) {
		for i := range 3 {
			here, there := fmt.Sprintf("10.3.%d.0/24", i), fmt.Sprintf("10.4.%d.0/24", i)
			for _, p := range []*Peer{pa, pb} {
				c := p.Children[0]
				c.Policy = fmt.Sprintf("net%d", i)
				c.Selectors = slices.Clone(c.Selectors)
				c.Selectors[0] = network(here, there)
				here, there = there, here
				p.Children = append(p.Children, c)
			}
		}
	})
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	r.wantUp(a, b, 4)
}

// TestRFC7296_2_23_StartNATT: IKE may begin on port 4500.
func TestRFC7296_2_23_StartNATT(t *testing.T) {
	r, a, b := pair(t, func(pa, pb *Peer) { pa.StartNATT = true })
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	r.wantUp(a, b, 1)
	for _, d := range r.sent {
		if d.from.Port() != 4500 || d.to.Port() != 4500 {
			t.Errorf("from %s to %s", d.from, d.to)
		}
	}
}

// TestRFC7296_2_4_InitialContact: an end that restarts asks the other to forget.
func TestRFC7296_2_4_InitialContact(t *testing.T) {
	r, a, b := pair(t, nil)
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	a.restart(Config{Peers: []Peer{peerAt(t, "A")}})
	a.step(Initiate{Peer: "B"})
	r.run(time.Minute)
	r.wantPairs(a, b, 1)
	if n := len(b.establishedSAs()); n != 1 {
		t.Errorf("B has %d IKE SAs", n)
	}
}

// TestAcquire: traffic brings up what it needs; what is up is not made again.
func TestAcquire(t *testing.T) {
	r, a, b := pair(t, nil)
	for range 100 {
		a.step(Acquire{Peer: "B", Policy: "lan"})
	}
	r.run(time.Second)
	r.wantUp(a, b, 1)
	if len(r.sent) != 4 {
		t.Errorf("%d messages, want 4", len(r.sent))
	}
	a.step(Acquire{Peer: "B", Policy: "lan"})
	a.step(Acquire{Peer: "nobody", Policy: "lan"})
	r.run(time.Second)
	r.wantPairs(a, b, 1)
	// Nobody knows yet whether that one is still to come: see
	// TestAPacketOfAPeerThatIsStillToComeWaits.
	if len(a.refused) != 0 || a.m.stats["acquire_unknown"] != 1 {
		t.Errorf("refused %v, %d counted", a.refused, a.m.stats["acquire_unknown"])
	}
}

// TestRFC7296_2_5_Versions: a higher major version is told ours, a lower one
// nothing.
func TestRFC7296_2_5_Versions(t *testing.T) {
	r, a, b := pair(t, nil)
	a.step(Initiate{Peer: "B"})
	d := r.sent[0]
	for version, answers := range map[byte]int{0x10: 0, 0x20: 1, 0x2f: 1, 0x30: 1} {
		data := slices.Clone(d.data)
		data[17] = version
		before := len(r.sent)
		b.step(Packet{Local: d.to, Remote: d.from, Data: data})
		if got := len(r.sent) - before; got != answers {
			t.Errorf("version %x: %d answers", version, got)
		}
	}
}

// TestBothInitiateAtOnce: two IKE SAs come up, and one of them goes; the pairs that
// stay fit each other.
func TestBothInitiateAtOnce(t *testing.T) {
	for _, late := range []time.Duration{0, 5 * time.Millisecond, 15 * time.Millisecond, 25 * time.Millisecond} {
		r, a, b := pair(t, nil)
		a.step(Acquire{Peer: "B", Policy: "lan"})
		r.run(late)
		b.step(Acquire{Peer: "A", Policy: "lan"})
		r.run(time.Minute)
		if len(a.establishedSAs()) != 1 || len(b.establishedSAs()) != 1 {
			t.Errorf("%s: %d and %d IKE SAs\nA:\n%sB:\n%s", late, len(a.establishedSAs()), len(b.establishedSAs()), lines(a.log), lines(b.log))
		}
		r.wantPairs(a, b, 1)
		// Neither is a leftover of a restart.
		if n := a.m.Stats()["initial_contact"] + b.m.Stats()["initial_contact"]; n != 0 {
			t.Errorf("%s: INITIAL_CONTACT has ended %d IKE SAs", late, n)
		}
	}
}
