package tun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
)

// That segments are right to the bit is fuzz/superpacket_test.go's: it compares
// with a plain twin. Here: what is refused, and that nothing is allocated.

// shape is a packet to be made.
type shape struct {
	v6, udp   bool
	ipOptions int // bytes of IPv4 options or of an IPv6 destination options header
	options   int // bytes of TCP options
	flags     byte
	seq       uint32
	id        uint16
	payload   int
	partial   bool
}

// make builds the packet, with right checksums.
func (s shape) make() []byte {
	protocol, t := byte(packet.ProtoTCP), make([]byte, 20+s.options)
	t[12], t[tcpFlags] = byte(len(t)/4)<<4, s.flags
	for i := range s.options {
		t[20+i] = 1
	}
	binary.BigEndian.PutUint32(t[tcpSeq:], s.seq)
	sum := tcpSum
	if s.udp {
		protocol, t, sum = packet.ProtoUDP, make([]byte, 8), udpSum
		binary.BigEndian.PutUint16(t[udpLen:], uint16(8+s.payload))
	}
	copy(t, []byte{0x10, 0x92, 0, 80})
	for i := range s.payload {
		t = append(t, byte(i)+byte(s.seq))
	}
	p := make([]byte, 20+s.ipOptions)
	if s.v6 {
		p = make([]byte, 40+s.ipOptions)
		p[0], p[6], p[7], p[23], p[39] = 0x60, protocol, 64, 1, 2
		binary.BigEndian.PutUint16(p[4:], uint16(s.ipOptions+len(t)))
		if s.ipOptions > 0 {
			p[6] = packet.ProtoDestination
			copy(p[40:], []byte{protocol, byte(s.ipOptions/8 - 1), 1, byte(s.ipOptions - 4)})
		}
	} else {
		p[0], p[6], p[8], p[9], p[15], p[19] = 0x40|byte(len(p)/4), 0x40, 64, protocol, 1, 2
		for i := range s.ipOptions {
			p[20+i] = 1
		}
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)+len(t)))
		binary.BigEndian.PutUint16(p[4:], s.id)
		binary.BigEndian.PutUint16(p[10:], ^packet.Checksum(p, 0))
	}
	p = append(p, t...)
	var h packet.Header
	var f packet.Flow
	if err := packet.Parse(p, &h, &f); err != nil {
		panic(err)
	}
	total := packet.PseudoChecksum(&f, protocol, len(t))
	if !s.partial {
		total = ^packet.Checksum(t, total)
	}
	binary.BigEndian.PutUint16(p[len(p)-len(t)+sum:], total)
	return p
}

func super(s shape, size int) *packet.Buffer {
	s.partial = true
	b := buffer(s.make()...)
	b.SegmentSize = size
	return b
}

func TestSegmenterRefusesWithAReason(t *testing.T) {
	for _, tt := range []struct {
		name   string
		shape  shape
		size   int
		change func(b *packet.Buffer)
		room   int
		want   error
	}{
		{"no segment size", shape{payload: 300}, 0, nil, 0, ErrSegmentSize},
		{"negative segment size", shape{payload: 300}, -1, nil, 0, ErrSegmentSize},
		{"ICMP", shape{payload: 300}, 100, func(b *packet.Buffer) { b.Bytes()[9] = packet.ProtoICMP }, 0, ErrSegmentProtocol},
		{"fragment", shape{payload: 300}, 100, func(b *packet.Buffer) { b.Bytes()[6] |= 0x20 }, 0, ErrSegmentFragment},
		{"TCP header of 16 bytes", shape{payload: 300}, 100, func(b *packet.Buffer) { b.Bytes()[32] = 4 << 4 }, 0, ErrSegmentHeader},
		{"TCP header beyond the packet", shape{payload: 30}, 10, func(b *packet.Buffer) { b.Bytes()[32] = 15 << 4 }, 0, ErrSegmentHeader},
		{"UDP length too short", shape{udp: true, payload: 300}, 100, func(b *packet.Buffer) { b.Bytes()[25]-- }, 0, ErrSegmentLength},
		{"UDP length too long", shape{udp: true, payload: 300}, 100, func(b *packet.Buffer) { b.Bytes()[25]++ }, 0, ErrSegmentLength},
		{"SYN", shape{flags: flagSYN, payload: 300}, 100, nil, 0, ErrSegmentFlags},
		{"RST", shape{flags: flagRST, v6: true, payload: 300}, 100, nil, 0, ErrSegmentFlags},
		{"pseudo header of another address", shape{v6: true, ipOptions: 8, payload: 300}, 100, func(b *packet.Buffer) { b.Bytes()[64]++ }, 0, ErrSegmentAddress},
		{"total length beyond the packet", shape{payload: 300}, 100, func(b *packet.Buffer) { b.Bytes()[3]++ }, 0, packet.ErrTotalLen},
		{"no room for the trailer", shape{payload: 300}, 100, func(b *packet.Buffer) { b.Mem = b.Mem[:b.Off+b.Len+20] }, 21, ErrSegmentRoom},
		{"trailer that is too long", shape{payload: 300}, 100, nil, packet.Tailroom + 1, ErrSegmentRoom},
		{"trailer below zero", shape{payload: 300}, 100, nil, -1, ErrSegmentRoom},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := super(tt.shape, tt.size)
			if tt.change != nil {
				tt.change(b)
			}
			before := b.Clone()
			var s Segmenter
			if err := s.Init(b, tt.room); err != tt.want {
				t.Errorf("Init = %v, want %v", err, tt.want)
			}
			if string(before.Bytes()) != string(b.Bytes()) {
				t.Error("the refused packet was changed")
			}
			if seg, ok := s.Next(); ok || s.Segments() != 0 {
				t.Errorf("%d segments after a refusal, Next gives %x", s.Segments(), seg)
			}
		})
	}
}

// TestSegmenterTakesOddHeaders: up to 40 bytes of IP and of TCP options, and
// superpackets of one segment, also with SYN.
func TestSegmenterTakesOddHeaders(t *testing.T) {
	for _, tt := range []struct {
		shape shape
		size  int
		want  int
	}{
		{shape{ipOptions: 40, options: 40, payload: 250}, 100, 3},
		{shape{v6: true, ipOptions: 264, options: 40, payload: 250}, 100, 3},
		{shape{v6: true, udp: true, ipOptions: 8, payload: 3}, 1, 3},
		{shape{flags: flagSYN, payload: 100}, 100, 1},
		{shape{payload: 0}, 100, 1},
		{shape{udp: true, payload: 0}, 100, 1},
		{shape{payload: 65495}, 1448, 46},
		{shape{v6: true, payload: 65475}, 1, 65475},
	} {
		b := super(tt.shape, tt.size)
		var s Segmenter
		if err := s.Init(b, packet.Tailroom); err != nil {
			t.Errorf("%+v: Init = %v", tt.shape, err)
			continue
		}
		n := 0
		for seg, ok := s.Next(); ok; seg, ok = s.Next() {
			n++
			var h packet.Header
			var f packet.Flow
			if err := packet.Parse(seg, &h, &f); err != nil || h.TotalLen != len(seg) {
				t.Fatalf("%+v: segment %d of %d bytes: %v, %+v", tt.shape, n, len(seg), err, h)
			}
			next := seg[h.TransportOffset:]
			if sum := packet.Checksum(next, packet.PseudoChecksum(&f, f.Protocol, len(next))); sum != 0xffff {
				t.Fatalf("%+v: segment %d: checksum adds to %#x, want 0xffff", tt.shape, n, sum)
			}
			clear(seg[len(seg):cap(seg)])
		}
		if n != tt.want {
			t.Errorf("%+v: %d segments of %d, want %d", tt.shape, n, tt.size, tt.want)
		}
	}
}

// TestSegmenterFormsTakeTurns: what Next gave to the caller's trailer is back
// in place for CopyNext, and put there once only.
func TestSegmenterFormsTakeTurns(t *testing.T) {
	var plain, mixed Segmenter
	if err := errors.Join(plain.Init(super(shape{payload: 1000}, 100), 0), mixed.Init(super(shape{payload: 1000}, 100), 30)); err != nil {
		t.Fatal(err)
	}
	dst := make([]byte, plain.Longest())
	for i := range 10 {
		want, _ := plain.Next()
		if i%3 == 0 {
			got, ok := mixed.Next()
			if !ok || !bytes.Equal(got, want) {
				t.Fatalf("Next gives segment %d (%v) as\n%x, want\n%x", i, ok, got, want)
			}
			clear(got[len(got):cap(got)])
		} else if n, ok := mixed.CopyNext(dst); !ok || !bytes.Equal(dst[:n], want) {
			t.Fatalf("CopyNext gives segment %d (%v) as\n%x, want\n%x", i, ok, dst[:n], want)
		}
	}
}

// TestSegmenterZeroUDPChecksumIsAllOnes has a first segment whose sum is zero.
func TestSegmenterZeroUDPChecksumIsAllOnes(t *testing.T) {
	b := super(shape{udp: true, payload: 300}, 100)
	first := shape{udp: true, payload: 100}.make()
	p := b.Bytes()
	word := uint32(binary.BigEndian.Uint16(p[28:])) + uint32(binary.BigEndian.Uint16(first[26:]))
	binary.BigEndian.PutUint16(p[28:], fold(word))
	var s Segmenter
	if err := s.Init(b, 0); err != nil {
		t.Fatal(err)
	}
	seg, _ := s.Next()
	if got := binary.BigEndian.Uint16(seg[26:]); got != 0xffff {
		t.Errorf("UDP checksum is %#x, want 0xffff", got)
	}
}

func TestSegmenterZeroValueHasNoSegments(t *testing.T) {
	var s Segmenter
	if seg, ok := s.Next(); ok || s.Segments() != 0 || s.Longest() != 0 {
		t.Errorf("Next = %x, %v; Segments %d, Longest %d; want nothing", seg, ok, s.Segments(), s.Longest())
	}
	if n, ok := s.CopyNext(make([]byte, 100)); ok {
		t.Errorf("CopyNext = %d, true; want false", n)
	}
}

func TestSegmenterAllocatesNothing(t *testing.T) {
	template := super(shape{options: 12, payload: 64000}, 1448)
	b := template.Clone()
	var s Segmenter
	refused := errors.New("")
	allocs := testing.AllocsPerRun(20, func() {
		copy(b.Mem, template.Mem[:packet.Headroom+200])
		if refused = s.Init(&b, 34); refused != nil {
			return
		}
		for _, ok := s.Next(); ok; _, ok = s.Next() {
		}
	})
	if refused != nil || allocs != 0 {
		t.Errorf("Init: %v; %v allocations for a superpacket, want 0", refused, allocs)
	}
}

func BenchmarkSegment(b *testing.B) {
	for _, bb := range []struct {
		name    string
		shape   shape
		size    int
		trailer int
	}{
		{"TCPv4-1448", shape{options: 12, payload: 45 * 1448}, 1448, 34},
		{"TCPv6-1428", shape{v6: true, options: 12, payload: 45 * 1428}, 1428, 34},
		{"UDPv4-64", shape{udp: true, payload: 64 * 64}, 64, 34},
	} {
		for _, form := range []string{"Next", "CopyNext"} {
			b.Run(bb.name+"/"+form, func(b *testing.B) {
				template := super(bb.shape, bb.size)
				p := template.Clone()
				dst := make([]byte, 1600)
				segments := 0
				b.ReportAllocs()
				for b.Loop() {
					// Not the payload: its bytes do not matter here.
					copy(p.Mem[packet.Headroom:], template.Mem[packet.Headroom:packet.Headroom+80])
					var s Segmenter
					if err := s.Init(&p, bb.trailer); err != nil {
						b.Fatal(err)
					}
					segments += s.Segments()
					if form == "Next" {
						for _, ok := s.Next(); ok; _, ok = s.Next() {
						}
						continue
					}
					for _, ok := s.CopyNext(dst); ok; _, ok = s.CopyNext(dst) {
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(segments), "ns/segment")
			})
		}
	}
}

func ExampleSegmenter() {
	b := packet.NewBuffers(1)[0]
	b.Set(shape{udp: true, payload: 250, partial: true}.make())
	b.SegmentSize = 100 // ReadBatch has set it
	const trailer = 34
	var s Segmenter
	if err := s.Init(&b, trailer); err != nil {
		fmt.Println(err) // count it, drop b
	}
	for segment, ok := s.Next(); ok; segment, ok = s.Next() {
		// Seal segment into a send slot; its trailer is built in the
		// spare capacity, on the next payload, which Next restores.
		fmt.Println(len(segment), cap(segment)-len(segment))
	}
	// Output:
	// 128 34
	// 128 34
	// 78 34
}
