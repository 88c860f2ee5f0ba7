package ike

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
)

var addrA2 = netip.MustParseAddr("203.0.113.9")

func mobile(a, b *Peer) { a.Mobike, b.Mobike = true, true }

// moves takes an address from A and gives it another.
func (e *end) moves(to netip.Addr) {
	e.addrs = []netip.Addr{to}
	e.step(PathChanged{Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1"), to}})
}

func (e *end) wantAt(local, remote netip.AddrPort) {
	e.r.t.Helper()
	for id, p := range e.sad {
		if p.Local != local || p.Remote != remote {
			e.r.t.Errorf("%s: %s goes from %s to %s, want %s and %s", e.name, id, p.Local, p.Remote, local, remote)
		}
	}
}

func TestRFC4555_3_5_TheInitiatorMoves(t *testing.T) {
	r, a, b := up(t, mobile)
	r.wantNoLoss(a, b, true, "lan")
	sent := len(r.sent)
	a.moves(addrA2)
	r.run(time.Second)
	r.wantSettled(a, b, 1)
	if n := len(r.sent) - sent; n != 4 {
		t.Errorf("%d messages, want UPDATE_SA_ADDRESSES, COOKIE2 and their answers", n)
	}
	here, there := netip.AddrPortFrom(addrA2, 4500), netip.AddrPortFrom(addrB, 4500)
	a.wantAt(here, there)
	b.wantAt(there, here)
	if len(a.moved) != 1 || len(b.moved) != 1 || len(a.moved[0].IDs) != 2 {
		t.Errorf("%v %v", a.moved, b.moved)
	}
	// And all goes on from there, from both ends, over rekeys and back.
	for _, e := range []*end{b, a} {
		e.expire("lan", true)
		r.run(settle)
		e.step(Rekey{Peer: e.other()})
		r.run(settle)
		r.wantSettled(a, b, 1)
	}
	a.moves(addrA)
	r.run(time.Second)
	a.wantAt(netip.AddrPortFrom(addrA, 4500), there)
	b.wantAt(there, netip.AddrPortFrom(addrA, 4500))
	r.wantNoFailures()
}

func TestRFC4555_3_5_MovesWhileARequestIsOnItsWay(t *testing.T) {
	r, a, b := up(t, mobile)
	r.wantNoLoss(a, b, true, "lan")
	a.expire("lan", true)
	a.moves(addrA2) // the request from the old address is answered there, and lost
	r.run(settle)
	r.wantSettled(a, b, 1)
	a.wantAt(netip.AddrPortFrom(addrA2, 4500), netip.AddrPortFrom(addrB, 4500))
	b.wantAt(netip.AddrPortFrom(addrB, 4500), netip.AddrPortFrom(addrA2, 4500))
	r.wantNoFailures()
}

func TestRFC4555_3_7_NothingGoesToAnUntriedAddress(t *testing.T) {
	r, a, b := up(t, mobile)
	r.fate = func(d *datagram) []time.Duration {
		if d.by == b && !d.header().Response() {
			return nil // the address is not A's: nobody answers COOKIE2
		}
		return []time.Duration{r.latency}
	}
	a.moves(addrA2)
	r.run(10 * time.Second)
	b.wantAt(netip.AddrPortFrom(addrB, 4500), netip.AddrPortFrom(addrA, 4500))
	if len(b.moved) != 0 {
		t.Error("B has moved")
	}
}

func TestRFC4555_MoveBehindANAT(t *testing.T) {
	r, a, b := up(t, mobile)
	inside, nat := netip.MustParseAddr("10.9.9.9"), netip.MustParseAddr("198.51.100.7")
	r.nat = func(d *datagram) bool {
		switch {
		case d.from.Addr() == inside:
			d.from = netip.AddrPortFrom(nat, d.from.Port())
		case d.to.Addr() == nat:
			d.to = netip.AddrPortFrom(inside, d.to.Port())
		}
		return true
	}
	a.moves(inside)
	r.run(settle)
	r.wantSettled(a, b, 1)
	a.wantAt(netip.AddrPortFrom(inside, 4500), netip.AddrPortFrom(addrB, 4500))
	b.wantAt(netip.AddrPortFrom(addrB, 4500), netip.AddrPortFrom(nat, 4500))
	for _, e := range []*end{a, b} {
		for _, p := range e.sad {
			if p.Encap != sad.EncapUDP || p.BehindNAT != (e == a) {
				t.Errorf("%s: %s, behind NAT %t", e.name, p.Encap, p.BehindNAT)
			}
		}
	}
	r.wantNoFailures()
}

func TestRFC4555_TheResponderSaysItsAddresses(t *testing.T) {
	r, a, b := up(t, mobile)
	sent := len(r.sent)
	b.addrs = append(b.addrs, addrA2)
	b.step(PathChanged{Addrs: b.addrs})
	r.run(time.Second)
	if n := len(r.sent) - sent; n != 2 {
		t.Errorf("%d messages, want 2", n)
	}
	r.wantSettled(a, b, 1)
	b.wantAt(netip.AddrPortFrom(addrB, 4500), netip.AddrPortFrom(addrA, 4500))
}

func TestRFC4555_OnlyTheInitiatorMoves(t *testing.T) {
	r, a, b := up(t, mobile)
	sa := b.m.peers["A"].sas[0]
	b.m.enqueue(sa, &moveTask{path: sa.path})
	b.step(Tick{})
	r.run(time.Second)
	if len(a.moved) != 0 {
		t.Error("A was moved")
	}
	if f := b.failures(); len(f) != 1 || f[0].Reason != "unacceptable_addresses" {
		t.Errorf("%v", b.log)
	}
}

func TestRFC4555_3_7_WrongCookie(t *testing.T) {
	r, a, b := up(t, mobile)
	sa := b.m.peers["A"].sas[0]
	task := &routabilityTask{path: sa.path, cookie: make([]byte, cookie2Len)}
	task.response(b.m, sa, []wire.Payload{&wire.Notify{Kind: wire.NotifyCookie2, Data: slices.Repeat([]byte{1}, cookie2Len)}})
	b.step(Tick{})
	r.run(time.Minute)
	a.wantNothingLeft()
	b.wantNothingLeft()
}

func TestRFC4555_3_9_NoNATsAllowed(t *testing.T) {
	p := path{local: netip.MustParseAddrPort("192.0.2.2:4500"), remote: netip.MustParseAddrPort("192.0.2.1:500")}
	want := []byte{192, 0, 2, 1, 192, 0, 2, 2, 500 >> 8, 500 & 255, 4500 >> 8, 4500 & 255}
	if got := unchanged(p); !slices.Equal(got, want) {
		t.Errorf("% x, want % x", got, want)
	}
}

func TestRFC4555_3_8_TheNATForgets(t *testing.T) {
	inside, nat := netip.MustParseAddr("10.9.9.9"), netip.MustParseAddr("198.51.100.7")
	r := newRig(t)
	pa, pb := peerAt(t, "A"), peerAt(t, "B")
	mobile(&pa, &pb)
	pa.Local, pa.DPD, pb.Remote = inside, 10*time.Second, netip.Addr{}
	a := r.add("A", Config{Peers: []Peer{pa}}, inside.String())
	b := r.add("B", Config{Peers: []Peer{pb}}, addrB.String())
	shift := uint16(1000)
	r.nat = func(d *datagram) bool {
		if d.from.Addr() == inside {
			d.from = netip.AddrPortFrom(nat, d.from.Port()+shift)
			return true
		}
		d.to = netip.AddrPortFrom(inside, d.to.Port()-shift)
		return true
	}
	a.step(Initiate{Peer: "B"})
	r.run(time.Minute)
	r.wantSettled(a, b, 1)
	b.wantAt(netip.AddrPortFrom(addrB, 4500), netip.AddrPortFrom(nat, 5500))
	shift = 2000 // the NAT has been restarted
	r.run(time.Minute)
	r.wantSettled(a, b, 1)
	b.wantAt(netip.AddrPortFrom(addrB, 4500), netip.AddrPortFrom(nat, 6500))
	r.wantNoFailures()
}

// The host knows from which of its addresses a peer is reached; where there is no way
// yet, the move waits for one.
func TestRFC4555_3_5_TheAddressIsThatOfTheRoute(t *testing.T) {
	r, a, b := up(t, mobile)
	inside, route := netip.MustParseAddr("10.1.0.1"), netip.Addr{}
	a.addrs = []netip.Addr{addrA2}
	a.step(PathChanged{
		Addrs:  []netip.Addr{inside, addrA2},
		Source: func(netip.Addr) netip.Addr { return route },
	})
	r.run(3 * time.Second)
	if len(a.moved) != 0 {
		t.Fatalf("moved without a route: %v", a.moved)
	}
	route = addrA2
	r.run(2 * moveAgain)
	r.wantSettled(a, b, 1)
	a.wantAt(netip.AddrPortFrom(addrA2, 4500), netip.AddrPortFrom(addrB, 4500))
}
