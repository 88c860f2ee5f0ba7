package dataplane

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/sad"
)

// mortal is a rig whose two SAs have a lifetime, and a housekeeper.
func mortal(t *testing.T, l sad.Lifetime, change ...func(*sad.Params)) (*rig, *housekeeper) {
	t.Helper()
	r := newRig(t, options{noSA: true})
	r.gw.jitter = func() float64 { return 0 }
	r.now = time.Hour // an SA's life starts when it is installed, not with the gateway
	for _, d := range []sad.Direction{sad.Outbound, sad.Inbound} {
		p := r.params(d)
		p.Lifetime = l
		for _, f := range change {
			f(&p)
		}
		if err := r.gw.Install(p); err != nil {
			t.Fatal(err)
		}
	}
	return r, &housekeeper{gateway: r.gw}
}

// expiries is each event as "Kind direction limit", sorted.
func expiries(list []Event) (all []string) {
	for _, e := range list {
		all = append(all, fmt.Sprintf("%s %s %s", e.Kind, e.Direction, e.Limit))
	}
	slices.Sort(all)
	return all
}

func (r *rig) says(when string, want ...string) {
	r.t.Helper()
	if got := expiries(r.events()); !slices.Equal(got, want) {
		r.t.Errorf("%s: expected %q, saw %q", when, want, got)
	}
}

// RFC 4301 4.4.2.1: soft, then hard, at both ends of a tunnel; the soft one once;
// behind the hard one the SA is gone.
func TestCS10_RFC4301_4_4_2_1_SoftThenHardByTime(t *testing.T) {
	r, house := mortal(t, sad.Lifetime{Soft: 50 * time.Minute, Hard: time.Hour})
	step := func(at time.Duration) { r.now = time.Hour + at; house.round() }
	step(50*time.Minute - 1)
	r.says("before the soft limit")
	step(50 * time.Minute)
	r.says("at the soft limit", "SoftExpire in time", "SoftExpire out time")
	step(time.Hour - 1)
	r.says("between the limits: it is said once")
	r.delivers(1, r.arrive(r.good(1)))
	if got := r.send(fromA("x")); len(got) != 1 {
		t.Errorf("between the limits: expected the packet to pass, saw %d", len(got))
	}
	step(time.Hour)
	r.says("at the hard limit", "HardExpire in time", "HardExpire out time")
	r.dropped(InNoSA, func() { r.delivers(0, r.arrive(r.good(2))) })
	r.dropped(OutNoSA, func() { r.send(fromA("x")) })
	if n := r.gw.sas.Load().Len(); n != 0 {
		t.Errorf("SAs left: expected 0, saw %d", n)
	}
	step(2 * time.Hour)
	if got := expiries(r.events()); len(got) != 2 { // for the two packets that found none
		t.Errorf("later: expected Acquire and BadSPI, saw %q", got)
	}
}

// Not one packet more than the hard limit leaves, whatever the batches: the
// housekeeper has not looked.
func TestCS10_HardPacketsOutboundToTheLast(t *testing.T) {
	r, house := mortal(t, sad.Lifetime{SoftPackets: 15, HardPackets: 20})
	packets := make([][]byte, 16)
	for i := range packets {
		packets[i] = fromA("x")
	}
	if n := len(r.send(packets...)); n != 16 {
		t.Fatalf("below the limit: expected 16 packets, saw %d", n)
	}
	house.round()
	r.says("at the soft limit", "SoftExpire out packets")
	r.counts(map[DropReason]uint64{OutExpired: 12}, func() {
		if n := len(r.send(packets...)); n != 4 {
			t.Errorf("across the limit: expected 4 packets, saw %d", n)
		}
	})
	r.counts(map[DropReason]uint64{OutExpired: 16}, func() {
		if n := len(r.send(packets...)); n != 0 {
			t.Errorf("beyond the limit: expected 0 packets, saw %d", n)
		}
	})
	house.round()
	r.says("at the hard limit", "HardExpire out packets")
	if r.outSA() != nil || r.inSA() == nil {
		t.Error("expected the outbound SA gone, and the inbound one there: each counts for itself")
	}
}

// A superpacket stops at the last number too.
func TestHardPacketsStopInsideASuperpacket(t *testing.T) {
	r, _ := mortal(t, sad.Lifetime{HardPackets: 3})
	s := fromASuper(5*1000, 1000)
	r.counts(map[DropReason]uint64{OutExpired: 2}, func() {
		r.gw.out[0].bufs[0].Set(s.bytes())
		r.gw.out[0].bufs[0].SegmentSize = s.size
		r.gw.out[0].walk(1)
	})
	if n := len(r.wires[wireUDP].take()); n != 3 {
		t.Errorf("segments: expected 3, saw %d", n)
	}
}

// Bytes: the run that reaches the limit passes, nothing behind it does, before the
// housekeeper looks; the same inbound, for bytes and for packets.
func TestCS10_HardBytesAtBothEnds(t *testing.T) {
	size := uint64(len(fromA("payload")))
	r, house := mortal(t, sad.Lifetime{HardBytes: 3 * size})
	if n := len(r.send(fromA("payload"), fromA("payload"), fromA("payload"), fromA("payload"))); n != 4 {
		t.Errorf("the run that reaches the limit: expected 4 packets, saw %d", n)
	}
	r.dropped(OutExpired, func() { r.send(fromA("payload")) })
	r.delivers(2, r.arrive(r.good(1), r.good(2)))
	r.delivers(1, r.arrive(r.good(3)))
	r.counts(map[DropReason]uint64{InExpired: 2}, func() { r.delivers(0, r.arrive(r.good(4), r.good(5))) })
	r.windowStays(func() { r.arrive(r.good(6)) })
	house.round()
	r.says("both", "HardExpire in bytes", "HardExpire out bytes")

	r, house = mortal(t, sad.Lifetime{HardPackets: 2})
	r.delivers(2, r.arrive(r.good(1), r.good(2)))
	r.dropped(InExpired, func() { r.delivers(0, r.arrive(r.good(3))) })
	house.round()
	r.says("inbound packets", "HardExpire in packets")
}

// Idle SAs end, used ones stay; what is not authentic is no use.
func TestIdleSAsEnd(t *testing.T) {
	r, house := mortal(t, sad.Lifetime{Idle: time.Minute})
	r.now += 59 * time.Second
	r.delivers(1, r.arrive(r.good(1)))
	r.send(fromA("x"))
	r.now += 59 * time.Second
	house.round()
	r.says("59 s after a packet each")
	r.arrive(flip(r.good(2), 300), r.good(1))
	r.send(fromA("x"))
	r.now += time.Second
	house.round()
	r.says("60 s after the last authentic packet", "AuthFailures out none", "HardExpire in idle")
}

// Jitter comes from the configuration, one number for each SA.
func TestRFC7296_2_8_JitterSpreadsSoftExpire(t *testing.T) {
	r, house := mortal(t, sad.Lifetime{})
	draws := []float64{0.2, 0.6}
	r.gw.jitter = func() (j float64) { j, draws = draws[0], draws[1:]; return j }
	for i, d := range []sad.Direction{sad.Outbound, sad.Inbound} {
		p := r.params(d)
		p.SPI, p.EncryptionKey, p.Lifetime.Soft = uint32(0x5000+i), key(fmt.Sprint("jitter", i), len(p.EncryptionKey)), 1000*time.Second
		if err := r.gw.Install(p); err != nil {
			t.Fatal(err)
		}
	}
	born := r.now
	for _, c := range []struct {
		at   time.Duration
		want []string
	}{{940*time.Second - 1, nil}, {940 * time.Second, []string{"SoftExpire in time"}}, {980*time.Second - 1, nil}, {980 * time.Second, []string{"SoftExpire out time"}}} {
		r.now = born + c.at
		house.round()
		r.says(c.at.String(), c.want...)
	}
}

// A SoftExpire that found no room is said later; a HardExpire removes all the same.
func TestExpiryWithAFullQueueOfEvents(t *testing.T) {
	r, house := mortal(t, sad.Lifetime{Soft: time.Minute, Hard: time.Hour})
	for r.gw.emit(Event{Kind: Acquire}) { // until it is full
	}
	r.now += time.Minute
	house.round()
	if got := r.gw.Stats().Counter("EventsLost"); got != 2 {
		t.Errorf("EventsLost: expected 2, saw %d", got)
	}
	r.events()
	house.round()
	r.says("room again", "SoftExpire in time", "SoftExpire out time")
	for r.gw.emit(Event{Kind: Acquire}) { // until it is full
	}
	r.now += time.Hour
	house.round()
	if n := r.gw.sas.Load().Len(); n != 0 {
		t.Errorf("SAs behind their hard limit: expected 0, saw %d", n)
	}
}

// An older SA serves again when the newer one ends before it.
func TestTheOlderSAServesWhenTheNewerEnds(t *testing.T) {
	r, house := mortal(t, sad.Lifetime{})
	p := r.params(sad.Outbound)
	p.SPI, p.EncryptionKey, p.Lifetime.HardPackets = 0x5000, key("newer", len(p.EncryptionKey)), 1
	if err := r.gw.Install(p); err != nil {
		t.Fatal(err)
	}
	for _, want := range []uint32{0x5000, outSPI} {
		got := r.send(fromA("x"))
		if len(got) != 1 || wireSPI(got[0].Bytes()) != want {
			t.Fatalf("expected SPI %#x, saw %+v", want, got)
		}
		house.round()
	}
	r.says("the newer one", "HardExpire out packets")
}

// SAs of AH keep their lifetimes as those of ESP do.
func TestCS10_LifetimesOfAH(t *testing.T) {
	set := wholeSet{protocol: "ah", encap: sad.EncapNone, ah: "sha256"}
	a, b := newWholePair(t, set)
	for name, e := range map[string]*end{"a": a, "b": b} {
		local, remote := outerA[0], outerB[0]
		if name == "b" {
			local, remote = remote, local
		}
		for _, p := range set.params(t, name, local, remote) {
			e.gw.Remove(p.ID())
			p.Lifetime.HardPackets = 3
			if name == "b" { // its own limit comes first
				p.Lifetime.HardPackets = 2
			}
			if err := e.gw.Install(p); err != nil {
				t.Fatal(err)
			}
		}
	}
	var got []sent
	for range 3 {
		got = append(got, a.send(fromA("x"))...)
	}
	a.dropped(OutExpired, func() int { return len(a.send(fromA("x"))) })
	if n := len(b.receive(got[:2]...)); n != 2 {
		t.Fatalf("up to the limit: expected 2 packets, saw %d", n)
	}
	b.dropped(InExpired, func() int { return len(b.receive(got[2])) })
}
