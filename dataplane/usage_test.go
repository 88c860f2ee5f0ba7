package dataplane

import (
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// What an SA's own figures say, and the keepalives that hang on them.

// Forged and replayed packets do not make an SA look used: nothing that an
// unauthenticated packet says moves any state.
func TestOnlyCarriedPacketsTouchAnSA(t *testing.T) {
	r := newRig(t, options{})
	r.now = time.Second
	r.delivers(1, r.arrive(r.good(1)))
	r.now = 2 * time.Second
	r.delivers(0, r.arrive(flip(r.good(2), 300), r.good(1)))
	if s := r.inSA().Stats(); s.LastUsed != int64(time.Second) || s.Packets != 1 || s.AuthDrops != 1 || s.ReplayDrops != 1 || s.OtherDrops != 0 {
		t.Errorf("after a good, a forged and a replayed packet: used at 1s, 1 packet, 1 auth, 1 replay, 0 others: saw %s, %d, %d, %d, %d",
			time.Duration(s.LastUsed), s.Packets, s.AuthDrops, s.ReplayDrops, s.OtherDrops)
	}
	r.now = 3 * time.Second
	stranger := inner{src: hostB, dst: gwB4.Addr(), payload: "x"}.udp()
	r.delivers(1, r.arrive(r.sealed(3, packet.ProtoIPv4, stranger), r.sealed(4, packet.ProtoNone, nil), r.good(5)))
	if s := r.inSA().Stats(); s.LastUsed != int64(3*time.Second) || s.Packets != 2 || s.OtherDrops != 1 {
		t.Errorf("after a packet outside the selectors, a dummy and a good one: used at 3s, 2 packets, 1 other: saw %s, %d, %d",
			time.Duration(s.LastUsed), s.Packets, s.OtherDrops)
	}
}

// RFC 3948 4: a keepalive is sent "if no other packet to the peer has been sent
// in M seconds". A packet that found no sequence number has not been sent.
func TestKeepalivesOfIdleSAs(t *testing.T) {
	r := newRig(t, options{noSA: true, noESN: true})
	p := r.params(sad.Outbound)
	p.Keepalive, p.BehindNAT = 20*time.Second, true
	if err := r.gw.Install(p); err != nil {
		t.Fatal(err)
	}
	house := housekeeper{gateway: r.gw, grams: packet.NewDatagrams(1)}
	sent := func() (n int) {
		house.round()
		for _, d := range r.wires[wireUDP].take() {
			if b := d.Bytes(); len(b) == 1 && b[0] == 0xff && d.Addr == gwB4 {
				n++
			}
		}
		return n
	}
	step := func(what string, at time.Duration, want int, packets ...[]byte) {
		t.Helper()
		r.now = at
		if len(packets) > 0 {
			r.send(packets...)
		}
		if got := sent(); got != want {
			t.Errorf("%s, at %s: expected %d keepalives, saw %d", what, at, want, got)
		}
	}
	step("idle, not yet due", 19*time.Second, 0)
	step("idle", 20*time.Second, 1)
	step("just sent", 20*time.Second+housekeepInterval, 0)
	step("a packet", 39*time.Second, 0, fromA("x"))
	step("20 s after the keepalive, 1 s after the packet", 40*time.Second, 0)
	step("20 s after the packet", 59*time.Second, 1)
	for {
		if _, granted := r.outSA().Reserve(1 << 30); granted == 0 {
			break
		}
	}
	r.dropped(OutSeqExhausted, func() { step("a packet without a number", 78*time.Second, 0, fromA("x")) })
	step("20 s after the keepalive", 79*time.Second, 1)
	if got := r.gw.Stats().Counter("OutKeepalives"); got != 3 {
		t.Errorf("OutKeepalives: expected 3, saw %d", got)
	}
}
