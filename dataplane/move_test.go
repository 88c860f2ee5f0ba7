package dataplane

import (
	"net/netip"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// movable is a rig with SAs as MOBIKE has them: static, and between known ends.
func movable(t *testing.T, encap sad.Encapsulation) *rig {
	r := newRig(t, options{encap: encap, noSA: true, local: netip.MustParseAddrPort("192.0.2.1:4500")})
	out, in := r.params(sad.Outbound), r.params(sad.Inbound)
	out.Static, in.Static = true, true
	if err := r.gw.Install(out, in); err != nil {
		t.Fatal(err)
	}
	return r
}

var (
	movedTo4 = netip.MustParseAddrPort("203.0.113.7:61000")
	ownNew4  = netip.MustParseAddrPort("192.0.2.77:4500")
	ownNew6  = netip.MustParseAddrPort("[2001:db8:1::77]:4500")
)

// RFC 4555: the SAs that were agreed on leave from and go to the new addresses, in
// UDP and without, also in the other family.
func TestRFC4555_SAsMoveToTheNewAddresses(t *testing.T) {
	for _, encap := range []sad.Encapsulation{sad.EncapUDP, sad.EncapNone} {
		r := movable(t, encap)
		for _, to := range []struct {
			local, remote netip.AddrPort
			raw           wireKind
		}{{ownNew4, movedTo4, wireRaw4}, {ownNew6, gwB6, wireRaw6}} {
			if err := r.gw.Move("b", nil, to.local, to.remote); err != nil {
				t.Fatal(err)
			}
			want := to.raw
			if encap == sad.EncapUDP {
				want = wireUDP
			}
			got := r.send(fromA("x"))
			if len(got) != 1 || got[0].wire != want || got[0].Addr != to.remote || got[0].Local != to.local.Addr() {
				t.Errorf("%s: expected from %s to %s on wire %d, saw %+v", encap, to.local.Addr(), to.remote, want, got)
			}
		}
	}
}

// requirements-rfc 43: with MOBIKE an authentic packet from elsewhere moves nothing;
// what was sent to the address before the move still arrives.
func TestRFC4555_OnlyIKEMovesAPeer(t *testing.T) {
	r := movable(t, sad.EncapUDP)
	if err := r.gw.Move("b", []sad.ID{r.inSA().ID(), r.outSA().ID()}, ownNew4, movedTo4); err != nil {
		t.Fatal(err)
	}
	from := func(seq uint64, local netip.Addr, at netip.AddrPort) packet.Datagram {
		b := r.good(seq)
		return packet.Datagram{Mem: b, Len: len(b), Addr: at, Local: local}
	}
	for i, d := range []packet.Datagram{
		from(1, netip.MustParseAddr("192.0.2.1"), gwB4), // was on its way
		from(2, ownNew4.Addr(), movedTo4),
		from(3, ownNew4.Addr(), netip.MustParseAddrPort("203.0.113.99:1")),
	} {
		if got := r.receive(wireUDP, d); len(got) != 1 {
			t.Errorf("packet %d: expected 1 at the TUN, saw %d", i, len(got))
		}
	}
	if got := r.outSA().Endpoint(); got != movedTo4 {
		t.Errorf("the peer: expected %s, saw %s", movedTo4, got)
	}
	r.dropped(InEndpoint, func() {
		r.delivers(0, r.receive(wireUDP, from(4, netip.MustParseAddr("192.0.2.200"), movedTo4)))
	})
	if err := r.gw.Move("b", nil, ownNew6, movedTo4); err == nil {
		t.Error("between two families: expected an error")
	}
}

// AH and the outer headers that are made here follow as well.
func TestRFC4555_AHMoves(t *testing.T) {
	a, _ := newWholePair(t, bundle4)
	if err := a.gw.Move("peer", nil, ownNew4, netip.AddrPortFrom(movedTo4.Addr(), 0)); err != nil {
		t.Fatal(err)
	}
	got := a.send(fromA("x"))
	if len(got) != 1 || got[0].wire != wireWhole {
		t.Fatalf("expected one whole packet, saw %d", len(got))
	}
	b := got[0].Bytes()
	if src, dst := netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:])); src != ownNew4.Addr() || dst != movedTo4.Addr() || got[0].Addr.Addr() != dst {
		t.Errorf("outer header: expected %s to %s, saw %s to %s", ownNew4.Addr(), movedTo4.Addr(), src, dst)
	}
}
