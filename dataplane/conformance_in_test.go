package dataplane

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// The receiving half of the conformance catalogue, at the whole inbound walk:
// bytes out, the exact counter moved, the window's state. Each id is a line of
// the catalogue; the sources are RFC 4303 and the projects that its brackets
// name.

// region is one number and what must become of it.
type region struct {
	name string
	seq  uint64
	ok   bool
}

// windows are the sizes that the catalogue asks for, and two odd ones.
var windows = []int{32, 64, 128, 1024, 4096, 100, 1000}

// regions sends each number to a fresh rig whose window's edge is at edge: a
// number that must pass is delivered once and then refused, one that must not
// is dropped as reason and moves nothing.
func regions(t *testing.T, o options, edge uint64, reason DropReason, list []region) {
	t.Helper()
	for _, c := range list {
		o := o
		o.edge = edge
		r := newRig(t, o)
		p := r.good(c.seq)
		if !c.ok {
			r.windowStays(func() { r.dropped(reason, func() { r.delivers(0, r.arrive(p)) }) })
		} else {
			r.counts(nil, func() { r.delivers(1, r.arrive(p)) })
			if want := max(edge, c.seq); r.edge() != want {
				t.Errorf("%s: edge: expected %#x, saw %#x", c.name, want, r.edge())
			}
			r.dropped(InReplay, func() { r.delivers(0, r.arrive(p)) })
		}
		if t.Failed() {
			t.Fatalf("region %s: W %d edge %#x seq %#x", c.name, o.window, edge, c.seq)
		}
	}
}

// RFC 4303 A2.1 case A: Tl >= W-1, the window lies in one subspace.
func TestCR01_ESNCaseA(t *testing.T) {
	for _, w := range windows {
		const th, tl = uint64(5) << 32, uint64(1 << 31)
		size, edge := uint64(w), th|tl
		regions(t, options{window: w}, edge, InReplay, []region{
			{"a: the edge's neighbour above", edge + 1, true},
			{"b: far above in the same subspace", th | 0xffffffff, true},
			{"c: the window's bottom", edge - size + 1, true},
			{"d: inside the window", edge - size/2, true},
			{"e: just below the edge", edge - 1, true},
		})
		// Below the bottom the number is taken for one of the next
		// subspace, which it is not: the ICV says so and nothing moves.
		regions(t, options{window: w}, edge, InAuth, []region{
			{"f: one below the bottom", edge - size, false},
			{"g: far below the bottom", th | 1, false},
		})
		regions(t, options{window: w}, edge, InReplay, []region{
			{"h: next subspace, low numbers", th + 1<<32 | 1, true},
			{"i: next subspace, just below the bottom's low half", th + 1<<32 | (tl - size), true},
			{"the edge itself", edge, false},
		})
	}
}

// RFC 4303 A2.1 case B: Tl < W-1, the window spans two subspaces.
func TestCR02_ESNCaseB(t *testing.T) {
	for _, w := range windows {
		const th = uint64(5) << 32
		size := uint64(w)
		edge := th | size/2
		bottom := edge - size + 1
		regions(t, options{window: w}, edge, InReplay, []region{
			{"a: above the edge", edge + 1, true},
			{"b: far above the edge", th | 0x7fffffff, true},
			{"c: the window's bottom, old subspace", bottom, true},
			{"d: the last number of the old subspace", th - 1, true},
			{"e: the first number of the new subspace", th, true},
			{"f: just below the edge", edge - 1, true},
			{"the edge itself", edge, false},
		})
		regions(t, options{window: w}, edge, InAuth, []region{
			{"g: one below the bottom", bottom - 1, false},
			{"h: far below, old subspace", th - 1<<31, false},
		})
	}
}

func TestCR03_WithoutESN(t *testing.T) {
	for _, w := range windows {
		size := uint64(w)
		const edge = uint64(1 << 31)
		regions(t, options{window: w, noESN: true}, edge, InReplay, []region{
			{"A a: above the edge", edge + 1, true},
			{"A b: inside the window", edge - size + 1, true},
			{"A c: below the window", edge - size, false},
			{"the edge itself", edge, false},
			{"the last number of the space", 1<<32 - 1, true},
		})
		regions(t, options{window: w, noESN: true}, size/2, InReplay, []region{
			{"B a: above the edge", size/2 + 1, true},
			{"B b: inside the first window", 1, true},
			{"the edge itself", size / 2, false},
		})
	}
}

// The window's edges under bulk traffic: forwards, backwards, gaps, far jumps.
func TestCR04_WindowEdges(t *testing.T) {
	const w = 128
	expect := func(r *rig, seq uint64, ok bool) {
		t.Helper()
		n, want := 1, map[DropReason]uint64(nil)
		if !ok {
			n, want = 0, map[DropReason]uint64{InReplay: 1}
		}
		r.counts(want, func() { r.delivers(n, r.arrive(r.good(seq))) })
		if t.Failed() {
			t.Fatalf("number %d: expected accepted %v", seq, ok)
		}
	}
	r := newRig(t, options{window: w, noESN: true})
	for _, c := range []region{
		{"", 1, true}, {"", 1, false}, {"", 9, true}, {"", 8, true}, {"", 7, true}, {"", 7, false}, {"", 8, false},
		{"", w, true}, {"", w, false}, {"", w - 1, true}, {"", w + 1, true}, {"", 2, true}, {"", 2, false},
		{"", w + 16, true}, {"", 3, false}, {"", 17, true}, {"", 16, false}, {"", w + 16, false},
		{"", 4 * w, true}, {"", 4*w - (w - 1), true}, {"", 10, false}, {"", 4*w - w, false}, {"", 4*w - (w + 1), false},
		{"", 4*w - (w - 2), true}, {"", 4*w + 1 - w, false}, {"", 0xfffff, true}, {"", 0xfffff - w, false},
		{"", 0xfffff - w + 1, true}, {"", 0xfffff - w + 1, false}, {"", 1 << 31, true}, {"", 1<<32 - 1, true},
		{"", 1<<32 - 1, false}, {"", 1<<32 - 2, true}, {"", 1<<32 - w, true}, {"", 1<<32 - w - 1, false},
	} {
		expect(r, c.seq, c.ok)
	}
	bulk := func(name string, first, last, step int, ok func(int) bool) {
		r := newRig(t, options{window: w, noESN: true})
		for i := first; i != last+step; i += step {
			expect(r, uint64(i), ok(i))
		}
		t.Log(name)
	}
	always := func(int) bool { return true }
	bulk("forwards", 1, 3*w, 1, always)
	bulk("backwards over one window", w, 1, -1, always)
	bulk("backwards over more than one", w+9, 1, -1, func(i int) bool { return i > 9 })
	bulk("every second, then all", 2, 4*w, 2, always)
	bulk("jumps of half a window", 1, 1+16*w/2, w/2, always)
	bulk("jumps of more than a window", 1, 1+16*(w+7), w+7, always)
}

func TestCR05_OneNumberEightTimesInABatch(t *testing.T) {
	r := newRig(t, options{})
	p := r.good(7)
	r.counts(map[DropReason]uint64{InReplay: 7}, func() { r.delivers(1, r.arrive(p, p, p, p, p, p, p, p)) })
	if r.edge() != 7 {
		t.Errorf("edge: expected 7, saw %d", r.edge())
	}
}

func TestCR06_BatchOfReplayedOldAndGood(t *testing.T) {
	r := newRig(t, options{window: 64, edge: 1000})
	r.counts(map[DropReason]uint64{InReplay: 2, InAuth: 2}, func() {
		got := r.arrive(
			r.good(1001), r.good(1000), // good, replayed
			r.good(900), // behind the window: with ESN that reads as the next subspace
			r.good(1003), r.good(1003), r.good(1002),
			flip(r.good(1005), 100),
		)
		r.delivers(3, got)
	})
	if r.edge() != 1003 {
		t.Errorf("edge: expected 1003, saw %d", r.edge())
	}
}

// flip returns p with one bit changed.
func flip(p []byte, bit int) []byte {
	p = bytes.Clone(p)
	p[bit/8] ^= 1 << (bit % 8)
	return p
}

// RFC 4303 3.4.3: the window moves only after the ICV.
func TestCR07_RFC4303_3_4_3_WindowMovesOnlyAfterICV(t *testing.T) {
	for _, suite := range []string{"aes128gcm16", "chacha20poly1305", "aes128-sha256", "null-sha256", "aes128gmac"} {
		r := newRig(t, options{suite: suite, edge: 10})
		forged := flip(r.good(1_000_000), 8*30)
		r.windowStays(func() {
			r.counts(map[DropReason]uint64{InAuth: 17}, func() {
				for range 17 {
					r.delivers(0, r.arrive(forged))
				}
			})
		})
		r.counts(nil, func() { r.delivers(2, r.arrive(r.good(11), r.good(9))) })
	}
}

func TestCR08_SequenceNumberZeroIsRefused(t *testing.T) {
	r := newRig(t, options{noESN: true})
	p := r.good(1)
	binary.BigEndian.PutUint32(p[4:], 0)
	r.windowStays(func() { r.dropped(InReplay, func() { r.delivers(0, r.arrive(p)) }) })
}

// ESN over the end of a subspace: forward, a late packet of the old one, and a
// jump of two subspaces, which cannot be told from the next one and fails.
func TestCR09_ESNWraps(t *testing.T) {
	r := newRig(t, options{window: 64, edge: 0xfffffff0})
	r.counts(nil, func() { r.delivers(1, r.arrive(r.good(1<<32|5))) })
	r.counts(nil, func() { r.delivers(1, r.arrive(r.good(0xfffffffe))) })
	r.dropped(InReplay, func() { r.delivers(0, r.arrive(r.good(0xfffffffe))) })
	r.counts(nil, func() { r.delivers(2, r.arrive(r.good(1<<32), r.good(0xffffffff))) })
	r.windowStays(func() { r.dropped(InAuth, func() { r.delivers(0, r.arrive(r.good(3<<32|7))) }) })
	r.counts(nil, func() { r.delivers(1, r.arrive(r.good(1<<32|1<<31))) })
	r.counts(nil, func() { r.delivers(1, r.arrive(r.good(2<<32|1))) })
	if want := uint64(2<<32 | 1); r.edge() != want {
		t.Errorf("edge: expected %#x, saw %#x", want, r.edge())
	}
}

// 2^32 with reorder inside the window: all delivered, each once.
func TestESNPasses2To32WithReorder(t *testing.T) {
	r := newRig(t, options{window: 64, edge: 1<<32 - 200})
	var numbers []uint64
	for seq := uint64(1<<32 - 199); seq < 1<<32+200; seq++ {
		numbers = append(numbers, seq)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for i := 0; i+16 <= len(numbers); i += 16 {
		random.Shuffle(16, func(a, b int) { numbers[i+a], numbers[i+b] = numbers[i+b], numbers[i+a] })
	}
	r.counts(nil, func() {
		for _, seq := range numbers {
			r.delivers(1, r.arrive(r.good(seq)))
		}
	})
	r.counts(map[DropReason]uint64{InReplay: 50}, func() {
		for _, seq := range numbers[len(numbers)-50:] {
			r.delivers(0, r.arrive(r.good(seq)))
		}
	})
}

func TestCR10_Runts(t *testing.T) {
	for _, suite := range esp.Suites() {
		r := newRig(t, options{suite: suite.String(), noESN: true})
		whole := r.sealed(1, packet.ProtoNone, nil) // the shortest packet there is
		for n := range len(whole) {
			p := whole[:n]
			if n == 1 {
				p = []byte{0x01} // one byte 0xFF would be a keepalive
			}
			want := map[DropReason]uint64{InMalformed: 1}
			if n >= esp.HeaderLen && r.aligned(n) {
				want = map[DropReason]uint64{InAuth: 1}
			}
			r.windowStays(func() { r.counts(want, func() { r.delivers(0, r.arrive(p)) }) })
			if t.Failed() {
				t.Fatalf("%s: %d of %d bytes", suite, n, len(whole))
			}
		}
		longer := append(bytes.Clone(whole), 0)
		want := InMalformed
		if r.aligned(len(longer)) {
			want = InAuth
		}
		r.dropped(want, func() { r.arrive(longer) })
		r.dropped(InDummy, func() { r.arrive(whole) })
	}
}

// aligned tells whether an ESP packet of n bytes can be one of the suite's.
func (r *rig) aligned(n int) bool {
	s := r.suite()
	text := n - esp.HeaderLen - s.IVLen() - s.ICVLen()
	return text >= s.BlockSize() && text%s.BlockSize() == 0
}

func TestCR11_LengthsOffTheAlignment(t *testing.T) {
	for _, suite := range []string{"aes128gcm16", "aes256gcm8", "chacha20poly1305", "aes128-sha256", "aes256-sha512", "aes128ctr-sha256", "aes128ccm8", "null-sha256", "aes128gmac"} {
		r := newRig(t, options{suite: suite, noESN: true})
		whole := r.good(1)
		for extra := 1; extra < r.suite().BlockSize(); extra++ {
			p := append(bytes.Clone(whole), make([]byte, extra)...)
			r.windowStays(func() { r.dropped(InMalformed, func() { r.delivers(0, r.arrive(p)) }) })
		}
		r.counts(nil, func() { r.delivers(1, r.arrive(whole)) })
	}
}

// sealTrailer seals a plaintext whose trailer the test made: what a broken peer
// with the right keys can send.
func (r *rig) sealTrailer(seq uint64, payload, pad []byte, padLen, next uint8) []byte {
	r.t.Helper()
	return sealTrailer(r.t, r.params(sad.Inbound), seq, payload, pad, padLen, next)
}

func TestCR12_PadLengthBeyondThePayload(t *testing.T) {
	for _, suite := range trailerSuites {
		for _, padLen := range []uint8{64, 200, 254, 255} {
			r := newRig(t, options{suite: suite})
			p := r.sealTrailer(5, make([]byte, 38), nil, padLen, packet.ProtoIPv4)
			r.dropped(InPadding, func() { r.delivers(0, r.arrive(p)) })
			if r.edge() != 0 {
				t.Errorf("%s: edge after a packet that did not open: expected 0, saw %d", suite, r.edge())
			}
		}
	}
}

func TestCR13_PaddingThatIsNot123(t *testing.T) {
	body := fromB("12345") // 33 bytes
	for _, suite := range trailerSuites {
		for _, c := range []struct {
			pad []byte
			ok  bool
		}{
			{[]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}, true},
			{[]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14}, false},
			{[]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, false},
			{make([]byte, 13), false},
			{[]byte{2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}, false},
		} {
			r := newRig(t, options{suite: suite})
			p := r.sealTrailer(5, body, c.pad, uint8(len(c.pad)), packet.ProtoIPv4)
			if c.ok {
				r.counts(nil, func() { r.delivers(1, r.arrive(p)) })
			} else {
				r.dropped(InPadding, func() { r.delivers(0, r.arrive(p)) })
			}
			if t.Failed() {
				t.Fatalf("%s: padding % x", suite, c.pad)
			}
		}
	}
}

// RFC 4303 2.6: dummy packets end silently, but their number is used.
func TestCR14_NextHeader59IsADummy(t *testing.T) {
	r := newRig(t, options{})
	dummy := r.sealed(9, packet.ProtoNone, []byte("whatever a dummy holds"))
	r.dropped(InDummy, func() { r.delivers(0, r.arrive(dummy)) })
	if r.edge() != 9 {
		t.Errorf("edge: expected 9, saw %d", r.edge())
	}
	r.dropped(InReplay, func() { r.delivers(0, r.arrive(dummy)) })
}

func TestCR15_InnerVersionAndLength(t *testing.T) {
	whole := fromB("payload")
	six := inner{src: hostS, dst: host6, payload: "payload"}.udp()
	change := func(p []byte, at int, v byte) []byte {
		p = bytes.Clone(p)
		p[at] = v
		return p
	}
	for _, c := range []struct {
		name   string
		inner  []byte
		next   uint8
		want   []byte
		reason DropReason
	}{
		{"version 5", change(whole, 0, 0x55), packet.ProtoIPv4, nil, InInner},
		{"version 0", change(whole, 0, 0x05), packet.ProtoIPv4, nil, InInner},
		{"IPv6 announced as IPv4", six, packet.ProtoIPv4, nil, InInner},
		{"IPv4 announced as IPv6", whole, packet.ProtoIPv6, nil, InInner},
		{"total length beyond the plaintext", change(whole, 3, byte(len(whole)+1)), packet.ProtoIPv4, nil, InInner},
		{"total length below the header", change(whole, 3, 19), packet.ProtoIPv4, nil, InInner},
		{"IPv6 payload length beyond the plaintext", change(six, 5, 200), packet.ProtoIPv6, nil, InInner},
		{"TFC tail behind IPv4", append(bytes.Clone(whole), make([]byte, 77)...), packet.ProtoIPv4, whole, forwarded},
		{"TFC tail behind IPv6", append(bytes.Clone(six), make([]byte, 77)...), packet.ProtoIPv6, six, forwarded},
	} {
		r := newRig(t, options{})
		var got [][]byte
		if c.reason == forwarded {
			r.counts(nil, func() { got = r.arrive(r.sealed(3, c.next, c.inner)) })
			if len(got) != 1 || !bytes.Equal(got[0], c.want) {
				t.Errorf("%s: expected % x, saw % x", c.name, c.want, got)
			}
		} else {
			r.dropped(c.reason, func() { r.delivers(0, r.arrive(r.sealed(3, c.next, c.inner))) })
		}
		if r.edge() != 3 {
			t.Errorf("%s: edge of an authentic packet: expected 3, saw %d", c.name, r.edge())
		}
		if t.Failed() {
			t.Fatal(c.name)
		}
	}
}

func TestCR16_InnerHeaderTooShort(t *testing.T) {
	four, six := fromB("payload"), inner{src: hostS, dst: host6}.udp()
	ihl := bytes.Clone(four)
	ihl[0] = 0x44
	ihlBeyond := bytes.Clone(four)
	ihlBeyond[0] = 0x4f
	for name, c := range map[string]struct {
		inner []byte
		next  uint8
	}{
		"empty":                     {nil, packet.ProtoIPv4},
		"one byte":                  {four[:1], packet.ProtoIPv4},
		"19 bytes":                  {four[:19], packet.ProtoIPv4},
		"39 bytes of IPv6":          {six[:39], packet.ProtoIPv6},
		"header length 16":          {ihl, packet.ProtoIPv4},
		"header length beyond it":   {ihlBeyond, packet.ProtoIPv4},
		"IPv6 payload not all here": {six[:44], packet.ProtoIPv6},
	} {
		r := newRig(t, options{})
		r.dropped(InInner, func() { r.delivers(0, r.arrive(r.sealed(3, c.next, c.inner))) })
		if t.Failed() {
			t.Fatal(name)
		}
	}
}

// A tunnel mode SA carries IP and nothing else (RFC 4303 2.6); the other way round
// is in transport_rfc_test.go.
func TestCR17_TransportNextHeaderOnATunnelSA(t *testing.T) {
	for _, next := range []uint8{packet.ProtoUDP, packet.ProtoTCP, packet.ProtoICMP, packet.ProtoICMPv6, packet.ProtoESP, packet.ProtoAH, 0, 255} {
		r := newRig(t, options{})
		r.dropped(InNextHeader, func() { r.delivers(0, r.arrive(r.sealed(3, next, fromB("x")))) })
		if r.edge() != 3 {
			t.Errorf("next header %d: edge: expected 3, saw %d", next, r.edge())
		}
	}
}

// Every single bit of a packet: no delivery, the window unmoved, one counter.
// Bits of the SPI lead to no SA; all others fail the ICV, or, where the number
// becomes 0 or one seen before, the replay check.
func TestCR18_EveryBitFlipIsDropped(t *testing.T) {
	for _, suite := range esp.Suites() {
		r := newRig(t, options{suite: suite.String(), edge: 4})
		whole := r.good(6)
		for bit := range len(whole) * 8 {
			want := InAuth
			switch {
			case bit < 32:
				want = InNoSA
			case bit/8 == 7 && bit%8 == 1: // 6 -> 4: the edge, seen before
				want = InReplay
			}
			r.windowStays(func() { r.dropped(want, func() { r.delivers(0, r.arrive(flip(whole, bit))) }) })
			if t.Failed() {
				t.Fatalf("%s: bit %d", suite, bit)
			}
		}
		r.counts(nil, func() { r.delivers(1, r.arrive(whole)) })
	}
}

func TestCR19_TruncatedOrExtendedICV(t *testing.T) {
	for _, suite := range esp.Suites() {
		r := newRig(t, options{suite: suite.String()})
		whole := r.good(1)
		for n := 1; n <= r.suite().ICVLen(); n++ {
			for _, p := range [][]byte{whole[:len(whole)-n], append(bytes.Clone(whole), make([]byte, n)...)} {
				want := InMalformed
				if r.aligned(len(p)) {
					want = InAuth
				}
				r.windowStays(func() { r.dropped(want, func() { r.delivers(0, r.arrive(p)) }) })
			}
		}
	}
}

func TestCR20_UnknownAndReservedSPI(t *testing.T) {
	for _, spi := range []uint32{1, 2, 255, 256, outSPI, 0xffffffff} {
		r := newRig(t, options{})
		p := r.good(1)
		binary.BigEndian.PutUint32(p, spi)
		r.windowStays(func() { r.dropped(InNoSA, func() { r.delivers(0, r.arrive(p)) }) })
		if list := r.events(); len(list) != 1 || list[0].Kind != BadSPI || list[0].SPI != spi || list[0].From != gwB4 {
			t.Errorf("SPI %#x: expected one BadSPI event from %s, saw %+v", spi, gwB4, list)
		}
	}
	// SPI 0 on UDP 4500 is the non-ESP marker: IKE, and nobody here takes it.
	r := newRig(t, options{})
	p := r.good(1)
	binary.BigEndian.PutUint32(p, 0)
	r.dropped(InNoIKE, func() { r.delivers(0, r.arrive(p)) })
	// On protocol 50 it is just no SA.
	r.dropped(InNoSA, func() { r.delivers(0, r.receive(wireRaw4, packet.Datagram{Mem: p, Len: len(p)})) })
}

// A flood of unknown SPIs is no flood of events.
func TestBadSPIEventsAreThinned(t *testing.T) {
	r := newRig(t, options{})
	p := r.good(1)
	binary.BigEndian.PutUint32(p, 0xdead)
	for range 100 {
		r.arrive(p)
	}
	if n := len(r.events()); n != badSPIBurst {
		t.Errorf("events: expected %d, saw %d", badSPIBurst, n)
	}
	r.now += eventInterval
	r.arrive(p)
	if n := len(r.events()); n != 1 {
		t.Errorf("events after the interval: expected 1, saw %d", n)
	}
}

func TestCR21_WrongOuterAddresses(t *testing.T) {
	local := netip.MustParseAddrPort("192.0.2.1:4500")
	elsewhere := netip.MustParseAddrPort("203.0.113.9:4500")
	t.Run("raw ESP from another source", func(t *testing.T) {
		r := newRig(t, options{encap: sad.EncapNone})
		p := r.good(1)
		d := packet.Datagram{Mem: p, Len: len(p), Addr: netip.AddrPortFrom(elsewhere.Addr(), 0)}
		r.windowStays(func() { r.dropped(InEndpoint, func() { r.delivers(0, r.receive(wireRaw4, d)) }) })
		d.Addr = netip.AddrPortFrom(gwB4.Addr(), 0)
		r.counts(nil, func() { r.delivers(1, r.receive(wireRaw4, d)) })
	})
	t.Run("sent to another address of ours", func(t *testing.T) {
		r := newRig(t, options{local: local})
		p := r.good(1)
		d := packet.Datagram{Mem: p, Len: len(p), Local: netip.MustParseAddr("192.0.2.99")}
		r.windowStays(func() { r.dropped(InEndpoint, func() { r.delivers(0, r.receive(wireUDP, d)) }) })
		d.Local = local.Addr()
		r.counts(nil, func() { r.delivers(1, r.receive(wireUDP, d)) })
	})
	t.Run("UDP from another port: authentic, so delivered and followed", func(t *testing.T) {
		r := newRig(t, options{})
		p := r.good(1)
		d := packet.Datagram{Mem: p, Len: len(p), Addr: elsewhere}
		r.counts(nil, func() { r.delivers(1, r.receive(wireUDP, d)) })
		if list := r.events(); len(list) != 1 || list[0].Kind != PeerMoved || list[0].From != elsewhere {
			t.Errorf("expected one PeerMoved from %s, saw %+v", elsewhere, list)
		}
		if got := r.send(fromA("x")); len(got) != 1 || got[0].Addr != elsewhere {
			t.Errorf("our packets must go to %s, saw %+v", elsewhere, got)
		}
	})
	t.Run("UDP from another port, forged: no event", func(t *testing.T) {
		r := newRig(t, options{})
		p := flip(r.good(1), 200)
		d := packet.Datagram{Mem: p, Len: len(p), Addr: elsewhere}
		r.dropped(InAuth, func() { r.delivers(0, r.receive(wireUDP, d)) })
		if list := r.events(); len(list) != 0 {
			t.Errorf("expected no event, saw %+v", list)
		}
	})
}

// RFC 4301 5.2: inner addresses outside what the SA may carry are discarded.
func TestCR22_InnerPacketOutsideTheSelectors(t *testing.T) {
	for name, in := range map[string]inner{
		"source outside":      {src: netip.MustParseAddr("10.3.0.1"), dst: hostA},
		"destination outside": {src: hostB, dst: netip.MustParseAddr("10.9.0.1")},
		"both swapped":        {src: hostA, dst: hostB},
		"spoofed own address": {src: hostA, dst: hostA},
	} {
		r := newRig(t, options{})
		r.dropped(InSelector, func() { r.delivers(0, r.arrive(r.sealed(1, packet.ProtoIPv4, in.udp()))) })
		if t.Failed() {
			t.Fatal(name)
		}
	}
}

func TestCR25_WhatArrivesOnPort4500(t *testing.T) {
	r := newRig(t, options{})
	r.counts(nil, func() { r.delivers(0, r.arrive([]byte{0xff})) })
	if got := r.gw.Stats().Counter("InKeepalives"); got != 1 {
		t.Errorf("InKeepalives: expected 1, saw %d", got)
	}
	for _, p := range [][]byte{{}, {0}, {0xfe}, {0xff, 0xff}, {0, 0, 0}, {0xff, 0xff, 0xff}, {0, 0, 0, 0}, make([]byte, 7)} {
		r.windowStays(func() { r.dropped(InMalformed, func() { r.delivers(0, r.arrive(p)) }) })
	}
	ike := make([]byte, 4+28)
	r.dropped(InNoIKE, func() { r.delivers(0, r.arrive(ike)) })
	// UDP-encapsulated ESP is processed also where the SA was made for
	// protocol 50 (RFC 7296 2.23), and the other way round.
	plain := newRig(t, options{encap: sad.EncapNone})
	plain.counts(nil, func() { plain.delivers(1, plain.arrive(plain.good(1))) })
	p := r.good(2)
	r.counts(nil, func() {
		r.delivers(1, r.receive(wireRaw4, packet.Datagram{Mem: p, Len: len(p), Addr: netip.AddrPortFrom(gwB4.Addr(), 0)}))
	})
}

// A replayed capture delivers nothing.
func TestReplayedCaptureDeliversNothing(t *testing.T) {
	r := newRig(t, options{window: 4096})
	var capture [][]byte
	for seq := range uint64(1000) {
		capture = append(capture, r.sealed(seq+1, packet.ProtoIPv4, fromB(fmt.Sprint(seq))))
	}
	delivered := 0
	for _, p := range capture {
		delivered += len(r.arrive(p))
	}
	if delivered != 1000 {
		t.Fatalf("first time: expected 1000, saw %d", delivered)
	}
	r.counts(map[DropReason]uint64{InReplay: 1000}, func() {
		for _, p := range capture {
			r.delivers(0, r.arrive(p))
		}
	})
}
