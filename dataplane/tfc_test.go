package dataplane

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// mirrored is the gateway at the other end: it receives what r sends.
func (r *rig) mirrored() *rig {
	r.t.Helper()
	m := newRig(r.t, options{suite: r.opts.suite, noSA: true, policies: []spd.Policy{{
		Name: "lan", Selector: spd.Selector{Local: lanB, Remote: lanA, Protocol: spd.ProtocolAny}, Action: spd.Protect, Peer: "b",
	}}})
	p := r.params(sad.Outbound)
	p.Direction, p.TFC = sad.Inbound, sad.TFCOff
	if p.ReplayWindow < 4096 {
		p.ReplayWindow = 4096
	}
	if err := m.gw.Install(p); err != nil {
		r.t.Fatal(err)
	}
	return m
}

// carried is what this end's TUN gets of what the other end sent.
func (r *rig) carried(list []sent) (all [][]byte) {
	for batch := range slices.Chunk(list, inboundBatch) {
		grams := make([]packet.Datagram, len(batch))
		for i, s := range batch {
			grams[i] = s.Datagram
			grams[i].Addr, grams[i].Local, grams[i].SegmentSize = gwB4, gwB4.Addr(), 0
		}
		all = append(all, r.receive(wireUDP, grams...)...)
	}
	return all
}

// sizes are inner packets of both families, from the shortest on.
func sizes(longest int) (list [][]byte) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{28, 29, 31, 40, 44, 48, 49, 100, 576, 1000, 1001, 1279, longest - 1, longest} {
		b := make([]byte, max(n-28, 0))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		list = append(list, inner{src: hostA, dst: hostB, payload: string(b)}.udp())
		if n >= 48 {
			list = append(list, inner{src: host6, dst: hostS, payload: string(b[:n-48])}.udp())
		}
	}
	return append(list, empty(4), empty(6))
}

// empty is an IP header and nothing behind it, from A to B.
func empty(version int) []byte {
	if version == 4 {
		return serialize(&layers.IPv4{Version: 4, TTL: 9, Protocol: 253, SrcIP: hostA.AsSlice(), DstIP: hostB.AsSlice()}, gopacket.Payload(nil))
	}
	return serialize(&layers.IPv6{Version: 6, HopLimit: 9, NextHeader: 253, SrcIP: host6.AsSlice(), DstIP: hostS.AsSlice()}, gopacket.Payload(nil))
}

// oneSize fails unless all datagrams have the length of an inner packet of that
// many bytes.
func (r *rig) oneSize(list []sent, length int) {
	r.t.Helper()
	want := r.suite().SealedLen(length)
	for i, s := range list {
		if s.Len != want {
			r.t.Errorf("%s: datagram %d: %d bytes, expected %d", r.opts.suite, i, s.Len, want)
			return
		}
	}
}

// In every suite, whatever is inside, plain packets and superpackets of both
// families: every outer packet has one size, the peer's gateway delivers exactly
// what went in, and both ends count the same.
func TestRFC4303_2_7_EveryPacketHasOneSize(t *testing.T) {
	for _, suite := range esp.Suites() {
		r := newRig(t, options{suite: suite.String(), tfc: sad.TFCMTU})
		m, length := r.mirrored(), r.gw.longestInner(r.outSA())
		var want [][]byte
		var in []any
		for _, p := range sizes(length) {
			want, in = append(want, p), append(in, p)
		}
		for _, s := range []super{
			{src: hostA, dst: hostB, payload: 9*(length-40) + 123, size: length - 40},
			{src: host6, dst: hostS, payload: 9*1000 + 1, size: 1000},
			{src: hostA, dst: hostB, udp: true, payload: 40*33 + 1, size: 33},
			{src: host6, dst: hostS, udp: true, payload: 10 * 700, size: 700},
		} {
			want, in = append(want, s.segments()...), append(in, s)
		}
		var list []sent
		r.counts(nil, func() {
			for batch := range slices.Chunk(in, len(r.gw.out[0].bufs)) {
				list = append(list, r.sendMixed(batch...)...)
			}
		})
		r.oneSize(list, length)
		var got [][]byte
		m.counts(nil, func() { got = m.carried(list) })
		if !slices.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("%s: %d packets came, not the %d that went in", suite, len(got), len(want))
		}
		size := 0
		for _, p := range want {
			size += len(p)
		}
		out, arrived := r.outSA().Stats(), m.inSAOf(outSPI).Stats()
		if out.Bytes != uint64(size) || arrived.Bytes != uint64(size) || r.gw.Stats().Counter("OutBytes") != uint64(size) {
			t.Errorf("%s: %d bytes inside: the sender's SA counts %d, its gateway %d, the receiver's SA %d", suite, size, out.Bytes, r.gw.Stats().Counter("OutBytes"), arrived.Bytes)
		}
	}
}

func (r *rig) inSAOf(spi uint32) *sad.SA { return r.gw.sas.Load().Inbound(spi) }

// What is sealed is the inner packet, unchanged, and zeros behind it, also where
// the slot held something before.
func TestRFC4303_2_7_ZerosBehindTheUnchangedPacket(t *testing.T) {
	r := newRig(t, options{tfc: 1200})
	for i := range r.gw.out[0].bufs[:8] {
		mem := r.gw.out[0].bufs[i].Mem
		for j := range mem {
			mem[j] = 0xee
		}
	}
	for j := range r.gw.out[0].arena {
		r.gw.out[0].arena[j] = 0xee
	}
	s := super{src: hostA, dst: hostB, payload: 3 * 500, size: 500}
	want := slices.Concat([][]byte{fromA("x"), empty(6), empty(4)}, s.segments())
	list := r.sendMixed(fromA("x"), empty(6), empty(4), s)
	if len(list) != len(want) {
		t.Fatalf("datagrams: expected %d, saw %d", len(want), len(list))
	}
	for i := range list {
		open, err := r.opened(list[i], uint64(i+1))
		expect := append(bytes.Clone(want[i]), make([]byte, 1200-len(want[i]))...)
		if err != nil || !bytes.Equal(open.Payload, expect) {
			t.Errorf("packet %d: expected % x, saw % x, %v", i, expect, open.Payload, err)
		}
	}
}

// Packets beyond the TFC length are sent as they are; a length beyond the path
// is the path's; the TUN's MTU bounds it too.
func TestTFCLength(t *testing.T) {
	for _, c := range []struct {
		tfc    sad.TFC
		o      options
		tunMTU int
		inner  int
		want   int
	}{
		{tfc: sad.TFCOff, inner: 100, want: 100},
		{tfc: 500, inner: 28, want: 500},
		{tfc: 500, inner: 500, want: 500},
		{tfc: 500, inner: 501, want: 501},
		{tfc: 1, inner: 28, want: 28},
		// 1500 less 20 IPv4, 8 UDP, 8 ESP, 8 IV, 16 ICV: 1440, less 2.
		{tfc: sad.TFCMTU, inner: 28, want: 1438},
		{tfc: 1439, inner: 28, want: 1438},
		{tfc: 65535, inner: 28, want: 1438},
		{tfc: sad.TFCMTU, inner: 9000, want: 9000},
		{tfc: sad.TFCMTU, o: options{remote: gwB6}, inner: 28, want: 1418},
		{tfc: sad.TFCMTU, o: options{encap: sad.EncapNone}, inner: 28, want: 1446},
		{tfc: sad.TFCMTU, o: options{encap: sad.EncapNone, remote: gwB6}, inner: 28, want: 1426},
		{tfc: sad.TFCMTU, tunMTU: 1280, inner: 28, want: 1280},
		{tfc: 1400, tunMTU: 1280, inner: 28, want: 1280},
		{tfc: 1200, tunMTU: 1280, inner: 1300, want: 1300},
	} {
		c.o.tfc = c.tfc
		r := newRig(t, c.o)
		if c.tunMTU != 0 {
			r.gw.tunMTU = c.tunMTU
		}
		if got := r.gw.tfcLen(r.outSA(), c.inner); got != c.want {
			t.Errorf("tfc %s, %+v, a packet of %d: expected %d, saw %d", c.tfc, c.o, c.inner, c.want, got)
		}
		p := inner{src: hostA, dst: hostB, payload: string(make([]byte, c.inner-28))}.udp()
		r.counts(nil, func() { r.oneSize(r.send(p), c.want) })
	}
}

// The longest path of every suite, outer family and encapsulation is used to
// its end: one byte more would not fit.
func TestTFCMTUFillsThePath(t *testing.T) {
	r := newRig(t, options{noSA: true})
	for _, suite := range esp.Suites() {
		for remote, header := range map[netip.AddrPort]int{gwB4: 20, gwB6: 40} {
			for encap, udp := range map[sad.Encapsulation]int{sad.EncapUDP: 8, sad.EncapNone: 0} {
				r.opts = options{suite: suite.String(), tfc: sad.TFCMTU, encap: encap, remote: remote}
				sa, err := sad.New(r.params(sad.Outbound))
				if err != nil {
					t.Fatal(err)
				}
				n, outer := r.gw.longestInner(sa), header+udp
				if fits, more := outer+suite.SealedLen(n), outer+suite.SealedLen(n+1); fits > 1500 || more <= 1500 {
					t.Errorf("%s to %s over %s: %d bytes make %d, one more makes %d", suite, remote, encap, n, fits, more)
				}
			}
		}
	}
}

// A device may put a packet anywhere in its slot; in memory that is no slot
// nothing leaves unpadded.
func TestTFCRoomIsChecked(t *testing.T) {
	for _, c := range []struct {
		name    string
		off     int
		mem     int
		dropped bool
	}{
		{"behind the headroom", packet.Headroom, packet.SlotLen, false},
		{"in the middle of the slot", 40000, packet.SlotLen, false},
		{"at its end", packet.SlotLen - 100 - packet.Tailroom, packet.SlotLen, false},
		{"memory that just holds it", packet.Headroom, packet.Headroom + 1438 + 2 + 16, false},
		{"one byte less", packet.Headroom, packet.Headroom + 1438 + 2 + 15, true},
		{"the packet's own rooms", packet.Headroom, packet.Headroom + 100 + packet.Tailroom, true},
	} {
		r := newRig(t, options{tfc: sad.TFCMTU})
		want := fromA(string(make([]byte, 72)))
		b := &r.gw.out[0].bufs[0]
		b.Mem = make([]byte, c.mem)
		b.Off, b.Len, b.SegmentSize = c.off, copy(b.Mem[c.off:], want), 0
		reasons := map[DropReason]uint64{}
		if c.dropped {
			reasons[OutSeal] = 1
		}
		var list []sent
		r.counts(reasons, func() {
			r.gw.out[0].walk(1)
			list = r.send()
		})
		if c.dropped {
			if len(list) != 0 {
				t.Errorf("%s: %d datagrams left", c.name, len(list))
			}
			continue
		}
		if len(list) != 1 {
			t.Fatalf("%s: %d datagrams left", c.name, len(list))
		}
		r.oneSize(list, 1438)
		if open, err := r.opened(list[0], 1); err != nil || !bytes.Equal(open.Payload[:100], want) || len(bytes.Trim(open.Payload[100:], "\x00")) != 0 {
			t.Errorf("%s: saw % x, %v", c.name, open.Payload, err)
		}
	}
}

// Inbound, requirement 11: what lies behind the inner packet is cut, in both
// families and down to a packet without payload; without a next layer too.
func TestRFC4303_2_7_InboundTrimsTFCPadding(t *testing.T) {
	none := serialize(&layers.IPv6{Version: 6, HopLimit: 9, NextHeader: layers.IPProtocolNoNextHeader, SrcIP: hostS.AsSlice(), DstIP: host6.AsSlice()}, gopacket.Payload(nil))
	short := serialize(&layers.IPv4{Version: 4, TTL: 9, Protocol: 253, SrcIP: hostB.AsSlice(), DstIP: hostA.AsSlice()}, gopacket.Payload(nil))
	if len(none) != 40 || none[4] != 0 || none[5] != 0 || len(short) != 20 {
		t.Fatalf("not the packets that this test is about: % x, % x", none, short)
	}
	for _, tail := range []int{0, 1, 2, 3, 255, 256, 1000, 65000} {
		for n, p := range [][]byte{short, none, fromB("x"), inner{src: hostS, dst: host6, payload: "x"}.udp()} {
			t.Run(fmt.Sprintf("tail %d packet %d", tail, n), func(t *testing.T) {
				r := newRig(t, options{})
				next := uint8(packet.ProtoIPv4)
				if p[0]>>4 == 6 {
					next = packet.ProtoIPv6
				}
				padded := append(bytes.Clone(p), bytes.Repeat([]byte{0x5a}, tail)...)
				var got [][]byte
				r.counts(nil, func() { got = r.arrive(r.sealed(1, next, padded)) })
				if len(got) != 1 || !bytes.Equal(got[0], p) {
					t.Errorf("expected % x, saw % x", p, got)
				}
				if s := r.inSA().Stats(); s.Bytes != uint64(len(p)) {
					t.Errorf("bytes carried: expected %d, saw %d", len(p), s.Bytes)
				}
			})
		}
	}
}
