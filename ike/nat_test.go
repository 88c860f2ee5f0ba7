package ike

import (
	"net/netip"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
)

// napt is a NAT in front of an end: its datagrams leave from outside, from ports
// that begin at base.
type napt struct {
	inside  netip.Addr
	outside netip.Addr
	base    uint16
}

func (n *napt) translate(d *datagram) bool {
	switch {
	case d.from.Addr() == n.inside:
		d.from = netip.AddrPortFrom(n.outside, n.base+d.from.Port())
	case d.to.Addr() == n.outside:
		d.to = netip.AddrPortFrom(n.inside, d.to.Port()-n.base)
		d.natt = d.to.Port() == 4500
	}
	return true
}

// behindNAT is a pair with a NAT in front of A. Datagrams to A's outside know
// their port: the rig's own check of ports is for ends without NATs.
func behindNAT(t testing.TB, change func(a, b *Peer)) (*rig, *end, *end, *napt) {
	r, a, b := pair(t, func(pa, pb *Peer) {
		pb.Remote = netip.Addr{}
		if change != nil {
			change(pa, pb)
		}
	})
	n := &napt{inside: addrA, outside: netip.MustParseAddr("198.51.100.99"), base: 20000}
	r.nat = n.translate
	return r, a, b, n
}

// TestRFC7296_2_23_NATInFrontOfInitiator: both ends find the NAT, IKE moves to port
// 4500 with IKE_AUTH, and ESP goes in UDP to where the NAT is.
func TestRFC7296_2_23_NATInFrontOfInitiator(t *testing.T) {
	r, a, b, n := behindNAT(t, nil)
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	r.wantUp(a, b, 1)
	sa, sb := a.establishedSAs()[0], b.establishedSAs()[0]
	if !sa.behindNAT || sa.peerBehindNAT || sb.behindNAT || !sb.peerBehindNAT {
		t.Errorf("A: here %t, there %t; B: here %t, there %t", sa.behindNAT, sa.peerBehindNAT, sb.behindNAT, sb.peerBehindNAT)
	}
	outside := netip.AddrPortFrom(n.outside, n.base+4500)
	for id, p := range b.sad {
		if p.Encap != sad.EncapUDP || id.Direction == sad.Outbound && p.Remote != outside || p.BehindNAT {
			t.Errorf("B: %s: encap %s to %s, behind NAT %t", id, p.Encap, p.Remote, p.BehindNAT)
		}
	}
	for id, p := range a.sad {
		if p.Encap != sad.EncapUDP || !p.BehindNAT {
			t.Errorf("A: %s: encap %s, behind NAT %t", id, p.Encap, p.BehindNAT)
		}
	}
	for _, d := range r.sent {
		if h := d.header(); h.Exchange == wire.IKEAuth && d.from.Port() != 4500 {
			t.Errorf("IKE_AUTH from %s", d.from)
		}
	}
}

// TestRFC7296_2_23_NATInFrontOfResponder: the same from the other side.
func TestRFC7296_2_23_NATInFrontOfResponder(t *testing.T) {
	r, a, b, n := behindNAT(t, func(_, pb *Peer) {})
	// A reaches B at the NAT's outside.
	n.inside, n.base = addrB, 0
	p := peerAt(t, "A")
	p.Remote = n.outside
	a.step(Configure{Peers: []Peer{p}})
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	r.wantUp(a, b, 1)
	sa, sb := a.establishedSAs()[0], b.establishedSAs()[0]
	if sa.behindNAT || !sa.peerBehindNAT || !sb.behindNAT || sb.peerBehindNAT || !sa.path.natt || !sb.path.natt {
		t.Errorf("A: here %t, there %t; B: here %t, there %t", sa.behindNAT, sa.peerBehindNAT, sb.behindNAT, sb.peerBehindNAT)
	}
}

// TestRFC7296_2_23_NATRebinds: the NAT gives A another port; B follows the first
// new message that is authentic, and no other.
func TestRFC7296_2_23_NATRebinds(t *testing.T) {
	r, a, b, n := behindNAT(t, func(pa, _ *Peer) { pa.DPD = 20 * time.Second })
	a.step(Initiate{Peer: "B"})
	r.run(10 * time.Second)
	r.wantUp(a, b, 1)
	sb := b.establishedSAs()[0]
	was := sb.path.remote
	// A message that was there before, from somewhere else: answered, not followed.
	var old datagram
	for _, d := range r.sent {
		if d.by == a && d.header().Exchange == wire.IKEAuth {
			old = d
		}
	}
	thief := netip.MustParseAddrPort("203.0.113.66:4500")
	b.step(Packet{Local: old.to, Remote: thief, NATT: true, Data: old.data})
	if sb.path.remote != was {
		t.Error("B follows a replay")
	}
	n.base = 30000
	r.run(30 * time.Second)
	want := netip.AddrPortFrom(n.outside, 34500)
	if sb.path.remote != want || len(b.moved) != 1 || b.moved[0].Remote != want || len(b.moved[0].IDs) != 2 {
		t.Errorf("B is at %s, moved %v", sb.path.remote, b.moved)
	}
	// The dataplane sees the next one first.
	b.step(Moved{Peer: "A", Old: want, New: netip.AddrPortFrom(n.outside, 35500)})
	if sb.path.remote.Port() != 35500 {
		t.Errorf("B is at %s", sb.path.remote)
	}
}

// TestForceUDP: an end that wants UDP has both use it, without any NAT.
func TestForceUDP(t *testing.T) {
	for _, who := range []string{"A", "B"} {
		r, a, b := pair(t, func(pa, pb *Peer) {
			pa.ForceUDP, pb.ForceUDP = who == "A", who == "B"
		})
		a.step(Initiate{Peer: "B"})
		r.run(time.Second)
		r.wantUp(a, b, 1)
		for _, e := range []*end{a, b} {
			for id, p := range e.sad {
				if p.Encap != sad.EncapUDP {
					t.Errorf("%s forces UDP: %s of %s is %s", who, id, e.name, p.Encap)
				}
			}
		}
	}
}

// TestK7_AnswersLeaveFromWhereTheyWereSentTo: behind one virtual address a hub has
// others of its own, and uses none of them, for its own exchanges neither.
func TestK7_AnswersLeaveFromWhereTheyWereSentTo(t *testing.T) {
	r := newRig(t)
	pa, pb := peerAt(t, "A"), peerAt(t, "B")
	pb.Local, pb.Role, pb.DPD = netip.Addr{}, NeverRekey, 5*time.Second
	a := r.add("A", Config{Peers: []Peer{pa}}, addrA.String())
	b := r.add("B", Config{Peers: []Peer{pb}}, "192.0.2.77", addrB.String())
	a.step(Initiate{Peer: "B"})
	r.run(time.Minute)
	r.wantUp(a, b, 1)
	for _, d := range r.sent {
		if d.by == b && d.from.Addr() != addrB {
			t.Errorf("the hub sends %s from %s", d.header().Exchange, d.from)
		}
	}
	for id, p := range b.sad {
		if p.Local.Addr() != addrB {
			t.Errorf("%s is at %s", id, p.Local)
		}
	}
}
