package ike

import (
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/packet"
)

// A peer that is authenticated, and means harm.

// victim is somebody else's address.
var victim = netip.AddrPortFrom(netip.MustParseAddr("203.0.113.99"), 4500)

// says is a request of the peer's, sealed by its own machine, as if it came from an
// address: the sender has no need of the answer.
func (e *end) says(to *end, from netip.AddrPort, x wire.ExchangeType, payloads ...wire.Payload) {
	sa := e.establishedSAs()[0]
	for _, d := range e.m.seal(sa, e.m.header(sa, x, sa.ours.next, false), payloads) {
		to.step(Packet{Local: sa.path.remote, Remote: from, NATT: sa.path.natt, Data: d})
	}
	sa.ours.next++
}

// at counts the SAs of an end that send to an address.
func (e *end) at(a netip.Addr) (n int) {
	for _, p := range e.sad {
		if p.Remote.Addr() == a {
			n++
		}
	}
	return n
}

// TestRFC4555_3_7_SaidTwiceIsNotProved: an address does not become the peer's by
// being claimed again, from another port, or by new SAs.
func TestRFC4555_3_7_SaidTwiceIsNotProved(t *testing.T) {
	_, a, b := up(t, mobile)
	update := &wire.Notify{Kind: wire.NotifyUpdateSAAddresses}
	a.says(b, victim, wire.Informational, update)
	a.says(b, netip.AddrPortFrom(victim.Addr(), 4501), wire.Informational, update)
	a.says(b, victim, wire.Informational, update)
	if n := b.at(victim.Addr()); n != 0 {
		t.Fatalf("%d SAs send to an address that was never asked", n)
	}
	child, err := a.m.newOffer(a.establishedSAs()[0], &a.m.peers["B"].Children[0], packet.Flow{}, false)
	if err != nil {
		t.Fatal(err)
	}
	sa, rest := child.parts()
	a.says(b, victim, wire.CreateChildSA, append([]wire.Payload{sa, &wire.Nonce{Data: make([]byte, 32)}}, rest...)...)
	if len(b.sad) < 3 || b.at(victim.Addr()) != 0 {
		t.Errorf("%d SAs, %d of them to an address that was never asked", len(b.sad), b.at(victim.Addr()))
	}
}

// TestF8_MovesQueueNothing: a peer that moves faster than it answers has one
// question waiting, not one for each move.
func TestF8_MovesQueueNothing(t *testing.T) {
	_, a, b := up(t, mobile)
	for i := range 100 {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 4500)
		a.says(b, from, wire.Informational, &wire.Notify{Kind: wire.NotifyUpdateSAAddresses})
	}
	if n := len(b.establishedSAs()[0].ours.queue); n > 1 {
		t.Errorf("%d exchanges wait", n)
	}
}

// TestF8_OnePeerHasNotAllIKESAs: a peer that rekeys its IKE SA, or authenticates,
// again and again does not use up what all peers share.
func TestF8_OnePeerHasNotAllIKESAs(t *testing.T) {
	for _, deletes := range []bool{true, false} {
		r, a, b := up(t, nil)
		r.fate = func(d *datagram) []time.Duration {
			if h := d.header(); !deletes && d.by == a && h.Exchange == wire.Informational {
				return nil
			}
			return []time.Duration{r.latency}
		}
		for _, again := range []func(){
			func() { a.m.rekeyIKE(a.establishedSAs()[0]) },
			func() { a.m.connect(a.m.peers["B"], nil) },
		} {
			for range 3 * maxSAsOfOne {
				again()
				a.step(Tick{})
				r.run(100 * time.Millisecond)
			}
			if n := len(b.m.sas); n > 2*maxSAsOfOne+1 {
				t.Errorf("deletes %t: %d IKE SAs", deletes, n)
			}
			if len(b.establishedSAs()) == 0 {
				t.Error("none is left")
			}
		}
	}
}

// TestRFC7296_2_2_MessageIDsEnd: they are never used again.
func TestRFC7296_2_2_MessageIDsEnd(t *testing.T) {
	_, a, b := up(t, nil)
	sa, theirs := a.establishedSAs()[0], &b.establishedSAs()[0].theirs
	sa.ours.next, theirs.next = math.MaxUint32-1, math.MaxUint32-1
	for range 3 {
		a.says(b, sa.path.local, wire.Informational)
	}
	if theirs.next != math.MaxUint32 {
		t.Errorf("the next request is %d", theirs.next)
	}
}

// TestF8_TrafficSelectorsAreCheap: a list of which no selector covers another is
// held against policies with bounded work.
func TestF8_TrafficSelectorsAreCheap(t *testing.T) {
	var list []wire.Selector
	for i := range 255 { // a staircase in three dimensions
		from, to := netip.AddrFrom4([4]byte{10, 0, byte(i), 0}), netip.AddrFrom4([4]byte{10, 200, byte(i), 0})
		list = append(list, wire.Selector{Protocol: 6, From: from, To: to, FromPort: uint16(i * 100), ToPort: uint16(i*100 + 30000)})
	}
	wide := wire.Selector{From: netip.MustParseAddr("10.0.0.0"), To: netip.MustParseAddr("10.255.255.255"), ToPort: 65535}
	if n := testing.AllocsPerRun(1, func() { tsCovers(list, wide) }); n > 200 {
		t.Errorf("%.0f allocations for one selector", n)
	}
	if n := testing.AllocsPerRun(1, func() { widest(list) }); n > 20 {
		t.Errorf("%.0f allocations to sort out 255", n)
	}
	if n := testing.AllocsPerRun(1, func() { tsWithin(tsPair{list, list}, tsPair{list, list}) }); n > 20 {
		t.Errorf("%.0f allocations for lists that are the same", n)
	}
}

// TestF10_UnfinishedExchangesEnd: what a peer began and does not finish goes with its
// time and with its IKE SA, and so do its secrets.
func TestF10_UnfinishedExchangesEnd(t *testing.T) {
	for _, gone := range []bool{true, false} {
		r, _, b := up(t, nil)
		sa, secret, dropped := b.establishedSAs()[0], []byte{1, 2, 3}, 0
		if _, err := b.m.expect(sa, &expected{secrets: [][]byte{secret}, drop: func() { dropped++ }}); err != nil {
			t.Fatal(err)
		}
		if gone {
			b.m.forget(sa, failure{})
			b.step(Tick{})
		} else {
			r.run(b.m.timing.HalfOpen)
		}
		if len(sa.expected) != 0 || dropped != 1 || secret[0] != 0 {
			t.Errorf("gone %t: %d unfinished, dropped %d times, secret %v", gone, len(sa.expected), dropped, secret)
		}
	}
}
