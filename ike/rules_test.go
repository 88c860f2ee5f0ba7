package ike

import (
	"net/netip"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
)

// TestInitialContactThatCrosses: both ends begin at once, and one's INITIAL_CONTACT
// comes so late that the other IKE SA is up by then. It was made meanwhile: it is
// no leftover, and does not go for that.
func TestInitialContactThatCrosses(t *testing.T) {
	r, a, b := pair(t, nil)
	r.fate = func(d *datagram) []time.Duration {
		if h := d.header(); d.by == b && h.Exchange == wire.IKEAuth && !h.Response() {
			return []time.Duration{50 * time.Millisecond}
		}
		return []time.Duration{r.latency}
	}
	a.step(Acquire{Peer: "B", Policy: "lan"})
	r.run(9 * time.Millisecond)
	b.step(Acquire{Peer: "A", Policy: "lan"})
	r.run(time.Minute)
	if n := a.m.Stats()["initial_contact"] + b.m.Stats()["initial_contact"]; n != 0 {
		t.Errorf("INITIAL_CONTACT has ended %d IKE SAs", n)
	}
	if len(a.establishedSAs()) != 1 || len(b.establishedSAs()) != 1 {
		t.Errorf("%d and %d IKE SAs", len(a.establishedSAs()), len(b.establishedSAs()))
	}
	r.wantPairs(a, b, 1)
}

// TestRFC7296_2_23_NoNATNobodyFollows: without a NAT a peer stays where it is,
// whatever its authentic messages come from; they are answered there.
func TestRFC7296_2_23_NoNATNobodyFollows(t *testing.T) {
	r, a, b := pair(t, func(pa, _ *Peer) { pa.StartNATT, pa.DPD = true, 5*time.Second })
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	r.wantUp(a, b, 1)
	was := b.establishedSAs()[0].path
	elsewhere := netip.MustParseAddrPort("203.0.113.9:4500")
	answered := false
	r.nat = func(d *datagram) bool {
		if d.by == a {
			d.from = elsewhere
		}
		answered = answered || d.to == elsewhere
		return true
	}
	r.run(8 * time.Second)
	if now := b.establishedSAs()[0].path; now != was || len(b.moved) != 0 {
		t.Errorf("B follows to %s", now.remote)
	}
	if !answered {
		t.Error("the message is not answered where it came from")
	}
}

// TestRFC9370_AuthTooEarly: IKE_AUTH in front of the additional key exchanges that
// were agreed on is refused.
func TestRFC9370_AuthTooEarly(t *testing.T) {
	r, a, b := pair(t, func(pa, pb *Peer) {
		pa.Proposals = proposals(t, wire.ProtocolIKE, "aes128gcm16-prfsha256-x25519-ke1_ecp256")
		pb.Proposals = pa.Proposals
	})
	r.fate = func(d *datagram) []time.Duration {
		if d.header().Exchange == wire.IKEIntermediate {
			return nil
		}
		return []time.Duration{r.latency}
	}
	a.step(Initiate{Peer: "B"})
	r.run(25 * time.Millisecond)
	sa := a.m.peers["B"].sas[0]
	sa.ours.free()
	sa.first.pending, sa.first.intAuth = nil, intAuth{}
	a.m.enqueue(sa, &authTask{})
	a.step(Tick{})
	r.run(time.Second)
	b.wantFailure(StageAuth, "invalid_syntax")
	if b.m.Stats()["established"] != 0 {
		t.Error("B has an IKE SA without the additional key exchange")
	}
}

// TestRFC9242_3_3_IntAuth: IKE_AUTH covers what IKE_INTERMEDIATE has said: ends that
// have it otherwise do not believe each other.
func TestRFC9242_3_3_IntAuth(t *testing.T) {
	for _, chain := range []func(*intAuth) []byte{
		func(i *intAuth) []byte { return i.initiator },
		func(i *intAuth) []byte { return i.responder },
	} {
		r, a, b := pair(t, func(pa, pb *Peer) {
			pa.Proposals = proposals(t, wire.ProtocolIKE, "aes128gcm16-prfsha256-x25519-ke1_ecp256")
			pb.Proposals = pa.Proposals
		})
		a.step(Initiate{Peer: "B"})
		r.run(35 * time.Millisecond)
		for _, sa := range b.m.sas {
			if len(chain(&sa.first.intAuth)) == 0 {
				t.Fatal("there is no chain yet")
			}
			chain(&sa.first.intAuth)[0] ^= 1
		}
		r.run(time.Second)
		b.wantFailure(StageAuth, "auth_failed")
	}
}

// TestAcquireAfterAFailure: behind a failed negotiation packets are refused without
// another one, until its time has come.
func TestAcquireAfterAFailure(t *testing.T) {
	r, a, _ := pair(t, func(_, pb *Peer) {
		pb.Proposals = proposals(t, wire.ProtocolIKE, "aes256gcm16-prfsha384-ecp384")
	})
	for range 600 {
		a.step(Acquire{Peer: "B", Policy: "lan"})
		r.run(100 * time.Millisecond)
	}
	if n := len(a.failures()); n < 5 || n > 8 {
		t.Errorf("%d negotiations in a minute of packets, each to be later than the one before", n)
	}
	if n := a.m.Stats()["acquire_too_soon"]; n < 500 {
		t.Errorf("%d packets were refused in between", n)
	}
}
