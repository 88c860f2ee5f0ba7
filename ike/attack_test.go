package ike

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
)

// attacker is somebody on the path who knows everything but the pre-shared key: it
// drops, repeats, delays, changes, turns back and makes up messages, and has a
// machine of its own that says to be A to B, and B to A.
type attacker struct {
	rand *rand.Rand
	seen []datagram
	r    *rig
}

// fate is what it does to a datagram.
func (x *attacker) fate(d *datagram) []time.Duration {
	x.seen = append(x.seen, *d)
	switch x.rand.IntN(12) {
	case 0:
		return nil
	case 1:
		return []time.Duration{x.r.latency, x.r.latency + time.Duration(x.rand.IntN(3000))*time.Millisecond}
	case 2:
		x.change(d)
	case 3:
		d.from, d.to = d.to, d.from // back to who sent it
	case 4:
		x.inject()
	}
	return []time.Duration{time.Duration(x.rand.IntN(60)) * time.Millisecond}
}

// change changes a field that stands in clear, or any byte.
func (x *attacker) change(d *datagram) {
	d.data = slices.Clone(d.data)
	at := []int{17, 18, 19, 23, 28, 29, x.rand.IntN(len(d.data))}[x.rand.IntN(7)]
	if at < len(d.data) {
		d.data[at] ^= 1 << x.rand.IntN(8)
	}
}

// inject sends an old message again, or one with another's header on it.
func (x *attacker) inject() {
	d := x.seen[x.rand.IntN(len(x.seen))]
	other := x.seen[x.rand.IntN(len(x.seen))]
	d.data = slices.Clone(d.data)
	if x.rand.IntN(2) == 0 {
		copy(d.data[:wire.HeaderLen-8], other.data)
	}
	d.at = x.r.now + x.r.latency
	x.r.flying = append(x.r.flying, d)
}

// TestF3_NobodyIsEstablishedWithoutAUTH runs attackers from seeds, and after every
// event looks at every IKE SA of both honest ends: one that is established has a
// proof, and the other end has made the same keys. Nothing of the attacker's own
// handshakes comes through, and no Child SA has keys that the other end has not.
func TestF3_NobodyIsEstablishedWithoutAUTH(t *testing.T) {
	seeds := 150
	if testing.Short() {
		seeds = 20
	}
	up := 0
	for seed := range seeds {
		up += attackRun(t, uint64(seed))
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if up < seeds/2 {
		t.Errorf("of %d runs only %d came up in spite of the attacker: it is too strong to show anything", seeds, up)
	}
}

func attackRun(t *testing.T, seed uint64) (up int) {
	r := newRig(t)
	pa, pb := peerAt(t, "A"), peerAt(t, "B")
	pb.Remote, pa.DPD = netip.Addr{}, 5*time.Second
	a := r.add("A", Config{Rand: seeded(fmt.Sprint("A", seed)), Peers: []Peer{pa}}, addrA.String())
	b := r.add("B", Config{Rand: seeded(fmt.Sprint("B", seed)), Peers: []Peer{pb}}, addrB.String())
	evil := peerAt(t, "A")
	evil.Name, evil.Local = "B", netip.MustParseAddr("192.0.2.66")
	evil.Auth.PSK, evil.Remotely.PSK = sad.Key("what the attacker guesses"), sad.Key("what the attacker guesses")
	evil.Start = AtOnce
	r.add("M", Config{Rand: seeded(fmt.Sprint("M", seed)), Peers: []Peer{evil}}, "192.0.2.66")
	x := &attacker{rand: rand.New(rand.NewPCG(seed, 1)), r: r}
	r.fate = x.fate
	// A change may bring up a datagram's own checks of ports: the attacker keeps
	// to port 500.
	for range 40 {
		switch x.rand.IntN(6) {
		case 0:
			a.step(Initiate{Peer: "B"})
		case 1:
			a.step(Rekey{Peer: "B", Policy: "lan"})
		case 2:
			b.step(Rekey{Peer: "A"})
		case 3:
			b.step(Rekey{Peer: "A", Policy: "*"})
		}
		r.run(time.Duration(x.rand.IntN(2000)) * time.Millisecond)
		checkProved(t, a, b)
		checkProved(t, b, a)
		up = max(up, min(1, len(a.establishedSAs())))
	}
	return up
}

// checkProved holds every established IKE SA of e against those of the other end.
func checkProved(t *testing.T, e, other *end) {
	t.Helper()
	for _, sa := range e.establishedSAs() {
		if !sa.proved.Valid() || sa.peer == nil || sa.keys == nil {
			t.Errorf("%s: an established IKE SA without a proof, a peer or keys", e.name)
		}
		twin := other.m.sas[sa.spiR]
		if twin == nil {
			continue // gone there already: liveness finds out
		}
		mine, theirs := sa.keys, twin.keys
		if mine == nil || theirs == nil || string(mine.AuthKey(true)) != string(theirs.AuthKey(true)) || string(mine.AuthKey(false)) != string(theirs.AuthKey(false)) {
			t.Errorf("%s: an established IKE SA with keys that %s has not", e.name, other.name)
		}
	}
	for _, sa := range e.m.sas {
		if len(sa.children) > 0 && sa.state != established {
			t.Errorf("%s: a Child SA of an IKE SA that is %s", e.name, sa.state)
		}
	}
	for id, p := range e.sad {
		if id.Direction == sad.Outbound {
			if in, ok := other.sad[sad.ID{Direction: sad.Inbound, SPI: id.SPI, Peer: e.name, Protocol: id.Protocol}]; ok && string(in.EncryptionKey) != string(p.EncryptionKey) {
				t.Errorf("%s: %s has another key than at %s", e.name, id, other.name)
			}
		}
	}
}
