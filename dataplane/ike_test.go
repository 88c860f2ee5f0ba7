package dataplane

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/natt"
)

// ikeMessage is n bytes behind a non-ESP marker.
func ikeMessage(fill byte, n int) []byte {
	return slices.Concat(make([]byte, natt.NonESPMarkerLen), bytes.Repeat([]byte{fill}, n))
}

// heard is one message that an inbox was given.
type heard struct {
	local  netip.Addr
	remote netip.AddrPort
	data   []byte
}

// TestRFC3948_2_2_IKEGoesToItsInbox: "The Non-ESP Marker is 4 zero-valued octets
// aligning with the SPI field of an ESP packet", and it is not part of the message.
// The inbox hears where a message came from and which address it was sent to, for
// what answers it leaves from there. ESP beside it, also in one slot, is not
// disturbed.
func TestRFC3948_2_2_IKEGoesToItsInbox(t *testing.T) {
	r := newRig(t, options{})
	var got []heard
	r.gw.inbox = func(local netip.Addr, remote netip.AddrPort, message []byte) bool {
		got = append(got, heard{local, remote, bytes.Clone(message)})
		return true
	}
	second := netip.MustParseAddr("192.0.2.77")
	nat := netip.MustParseAddrPort("203.0.113.9:61234")
	coalesced := slices.Concat(ikeMessage(3, 40), ikeMessage(4, 28))
	r.counts(nil, func() {
		r.delivers(2, r.receive(wireUDP,
			packet.Datagram{Mem: r.good(1), Len: len(r.good(1))},
			packet.Datagram{Mem: ikeMessage(1, 28), Len: 32, Local: second, Addr: nat},
			packet.Datagram{Mem: ikeMessage(2, 300), Len: 304},
			packet.Datagram{Mem: coalesced, Len: len(coalesced), SegmentSize: 44},
			packet.Datagram{Mem: r.good(2), Len: len(r.good(2))},
		))
	})
	want := []heard{
		{second, nat, bytes.Repeat([]byte{1}, 28)}, {netip.Addr{}, gwB4, bytes.Repeat([]byte{2}, 300)},
		{netip.Addr{}, gwB4, bytes.Repeat([]byte{3}, 40)}, {netip.Addr{}, gwB4, bytes.Repeat([]byte{4}, 28)},
	}
	if !slices.EqualFunc(got, want, func(a, b heard) bool {
		return a.local == b.local && a.remote == b.remote && bytes.Equal(a.data, b.data)
	}) {
		t.Errorf("the inbox heard %+v, want %+v", got, want)
	}
	if n := r.gw.Stats().Counter("InIKE"); n != 4 {
		t.Errorf("InIKE: expected 4, saw %d", n)
	}
}

// A full inbox costs the message and nothing else; on protocol 50 nothing is IKE.
func TestFullIKEInboxIsCounted(t *testing.T) {
	r := newRig(t, options{})
	asked := 0
	r.gw.inbox = func(netip.Addr, netip.AddrPort, []byte) bool { asked++; return false }
	r.windowStays(func() { r.dropped(InIKEFull, func() { r.delivers(0, r.arrive(ikeMessage(0, 28))) }) })
	r.counts(nil, func() { r.delivers(1, r.arrive(r.good(1))) })
	r.dropped(InMalformed, func() { r.delivers(0, r.arrive(ikeMessage(0, 27))) })
	m := ikeMessage(0, 28)
	r.dropped(InNoSA, func() { r.delivers(0, r.receive(wireRaw4, packet.Datagram{Mem: m, Len: len(m)})) })
	if asked != 1 {
		t.Errorf("the inbox was asked %d times, want once", asked)
	}
	if n := r.gw.Stats().Counter("InIKE"); n != 0 {
		t.Errorf("InIKE: expected 0, saw %d", n)
	}
}
