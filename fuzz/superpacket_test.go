package fuzz

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/tun"
)

// superPseudo is the sum of the pseudo header of the IP packet p, whose next
// layer of the given protocol and length has the addresses of its IP header.
func superPseudo(p []byte, protocol uint8, length int) uint16 {
	var b []byte
	if p[0]>>4 == 4 {
		b = append(b, p[12:20]...)
	} else {
		b = append(b, p[8:40]...)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(length))
	return checksumReference(append(b, 0, 0, 0, protocol), 0)
}

// superSums fills in the checksums of the IP packet p, in full, or in part as a
// host leaves them to its device.
func superSums(p []byte, transport int, protocol uint8, partial bool) {
	if p[0]>>4 == 4 {
		p[10], p[11] = 0, 0
		binary.BigEndian.PutUint16(p[10:], ^checksumReference(p[:int(p[0]&15)*4], 0))
	}
	t := p[transport:]
	at := 16
	if protocol == packet.ProtoUDP {
		at = 6
	}
	field := t[at:]
	field[0], field[1] = 0, 0
	sum := superPseudo(p, protocol, len(t))
	if !partial {
		sum = ^checksumReference(t, sum)
		if sum == 0 && protocol == packet.ProtoUDP {
			sum = 0xffff
		}
	}
	binary.BigEndian.PutUint16(field, sum)
}

// superSegments is the plain twin of tun.Segmenter: each segment built anew.
func superSegments(p []byte, transport, payload, size int, protocol uint8) [][]byte {
	data, urgentEnd := p[payload:], 0
	flags := byte(0)
	if protocol == packet.ProtoTCP {
		flags = p[transport+13]
		urgentEnd = int(binary.BigEndian.Uint16(p[transport+18:]))
	}
	var all [][]byte
	for off := 0; off < max(len(data), 1); off += size {
		end := min(off+size, len(data))
		last := end == len(data)
		seg := append(bytes.Clone(p[:payload]), data[off:end]...)
		if p[0]>>4 == 4 {
			binary.BigEndian.PutUint16(seg[2:], uint16(len(seg)))
			binary.BigEndian.PutUint16(seg[4:], binary.BigEndian.Uint16(p[4:])+uint16(len(all)))
		} else {
			binary.BigEndian.PutUint16(seg[4:], uint16(len(seg)-40))
		}
		t := seg[transport:]
		if protocol == packet.ProtoUDP {
			binary.BigEndian.PutUint16(t[4:], uint16(len(t)))
		} else {
			binary.BigEndian.PutUint32(t[4:], binary.BigEndian.Uint32(t[4:])+uint32(off))
			if !last {
				t[13] &^= 0x09 // PSH, FIN
			}
			if off > 0 {
				t[13] &^= 0x80 // CWR
			}
			if flags&0x20 != 0 && off > 0 {
				left := max(urgentEnd-off, 0)
				binary.BigEndian.PutUint16(t[18:], uint16(left))
				if left == 0 {
					t[13] &^= 0x20
				}
			}
		}
		superSums(seg, transport, protocol, false)
		all = append(all, seg)
	}
	return all
}

// FuzzSuperpacketSegment holds of any bytes and any segment size: the Segmenter
// does not panic and writes nothing but the packet and the trailers; what it
// takes becomes, in place and by copying, what the plain twin makes of it,
// though the caller overwrites every trailer; and it takes all that it has no
// stated reason against.
func FuzzSuperpacketSegment(f *testing.F) {
	f.Fuzz(func(t *testing.T, p []byte, size, trailer uint16, raw bool) {
		if len(p) > packet.MaxLen {
			return
		}
		p = bytes.Clone(p)
		var h packet.Header
		var flow packet.Flow
		parsed := packet.Parse(p, &h, &flow) == nil
		good := parsed && h.PayloadOffset > h.TransportOffset && !h.Fragment && size > 0 &&
			(flow.Protocol == packet.ProtoTCP || flow.Protocol == packet.ProtoUDP)
		if good && !raw {
			p = p[:h.TotalLen]
			if flow.Protocol == packet.ProtoUDP {
				binary.BigEndian.PutUint16(p[h.TransportOffset+4:], uint16(len(p)-h.TransportOffset))
			} else if h.TotalLen-h.PayloadOffset > int(size) {
				p[h.TransportOffset+13] &^= 0x06 // SYN, RST
			}
			superSums(p, h.TransportOffset, flow.Protocol, true)
		}
		room := int(trailer) % (packet.Tailroom + 1)
		var s tun.Segmenter
		b, intact := superBuffer(p, room, int(size))
		if err := s.Init(b, room); err != nil {
			if good && !raw {
				t.Fatalf("Init: %v, for a packet without fault", err)
			}
			if !bytes.Equal(b.Mem[b.Off:b.Off+len(p)], p) || !intact() {
				t.Fatal("a refused superpacket was written to")
			}
			return
		}
		if !good {
			t.Fatalf("Init took %+v %+v with segment size %d", h, flow, size)
		}
		want := superSegments(p[:h.TotalLen], h.TransportOffset, h.PayloadOffset, int(size), flow.Protocol)
		superCheckInPlace(t, &s, want, room)
		if !intact() {
			t.Fatal("bytes outside the slot were written")
		}
		if !bytes.Equal(b.Mem[:b.Off], make([]byte, b.Off)) {
			t.Fatal("the headroom was written to")
		}
		b, intact = superBuffer(p, room, int(size))
		if err := s.Init(b, room); err != nil {
			t.Fatalf("Init for the second time: %v", err)
		}
		superCheckCopies(t, &s, want)
		if !intact() || !bytes.Equal(b.Mem[b.Off+h.PayloadOffset:b.Off+h.TotalLen], p[h.PayloadOffset:h.TotalLen]) {
			t.Fatal("CopyNext wrote to the payload or outside the slot")
		}
	})
}

// superBuffer is p in a slot with so much room behind it, between guards.
func superBuffer(p []byte, room, size int) (b *packet.Buffer, intact func() bool) {
	mem, intact := espGuarded(make([]byte, packet.Headroom+len(p)+room))
	copy(mem[packet.Headroom:], p)
	return &packet.Buffer{Mem: mem, Off: packet.Headroom, Len: len(p), SegmentSize: size}, intact
}

func superCheckInPlace(t *testing.T, s *tun.Segmenter, want [][]byte, room int) {
	if s.Segments() != len(want) {
		t.Fatalf("Segments = %d, want %d", s.Segments(), len(want))
	}
	for i := range want {
		if longest := s.Longest(); longest != len(want[i]) {
			t.Fatalf("Longest = %d before segment %d of %d bytes", longest, i, len(want[i]))
		}
		got, ok := s.Next()
		if !ok || !bytes.Equal(got, want[i]) {
			t.Fatalf("segment %d of %d (%v):\n got %x\nwant %x", i, len(want), ok, got, want[i])
		}
		if cap(got)-len(got) != room {
			t.Fatalf("segment %d has %d bytes behind it, want %d", i, cap(got)-len(got), room)
		}
		tail := got[len(got):cap(got)]
		for k := range tail {
			tail[k] = 0xee // as a seal builds its trailer
		}
	}
	if got, ok := s.Next(); ok {
		t.Fatalf("a segment behind the last: %x", got)
	}
}

func superCheckCopies(t *testing.T, s *tun.Segmenter, want [][]byte) {
	dst := make([]byte, s.Longest())
	if n, ok := s.CopyNext(dst[:len(want[0])-1]); ok {
		t.Fatalf("CopyNext = %d into less than the segment", n)
	}
	for i := range want {
		if n, ok := s.CopyNext(dst); !ok || !bytes.Equal(dst[:n], want[i]) {
			t.Fatalf("copy %d of %d (%v):\n got %x\nwant %x", i, len(want), ok, dst[:n], want[i])
		}
	}
	if n, ok := s.CopyNext(dst); ok {
		t.Fatalf("a copy of %d bytes behind the last", n)
	}
}

// superSource is one sender's next packet.
type superSource struct {
	v6, udp, df, sameID bool
	port, id, window    uint16
	seq, ack            uint32
	tos, ttl            uint8
	stamp               uint32 // TCP timestamp; 0: no options
}

// superFault is what is wrong with, or special about, one packet.
type superFault uint8

const (
	faultPSH superFault = iota + 1
	faultFIN
	faultSYN
	faultURG
	faultCWR
	faultNoACK
	faultGap
	faultAgain
	faultTTL
	faultTOS
	faultWindow
	faultAck
	faultOptions
	faultStamp
	faultSum
	faultIPSum
	faultFragment
	faultIPOptions
	faultEmpty
	faultSameID
	faultDF
	faultJumpID
	faultNoSum
	faultPadding
	faultLast
)

// next is the source's next packet, with n bytes of payload.
func (s *superSource) next(fault superFault, n int) []byte {
	flags := byte(0x10)
	switch fault {
	case faultPSH, faultFIN, faultSYN, faultURG, faultCWR, faultNoACK:
		flags = map[superFault]byte{faultPSH: 0x18, faultFIN: 0x11, faultSYN: 0x12, faultURG: 0x30, faultCWR: 0x90}[fault]
	case faultGap:
		s.seq++
	case faultAgain:
		s.seq--
	case faultTTL:
		s.ttl++
	case faultTOS:
		s.tos ^= 3
	case faultWindow:
		s.window++
	case faultAck:
		s.ack++
	case faultStamp:
		s.stamp++
	case faultOptions:
		s.stamp ^= 1 << 31
	case faultSameID:
		s.sameID = !s.sameID
	case faultDF:
		s.df = !s.df
	case faultJumpID:
		s.id += 7
	case faultEmpty:
		n = 0
	}
	var t []byte
	if s.udp {
		t = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, s.port), 4242)
		t = append(t, byte((n+8)>>8), byte(n+8), 0, 0)
	} else {
		t = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, s.port), 80)
		t = binary.BigEndian.AppendUint32(t, s.seq)
		t = binary.BigEndian.AppendUint32(t, s.ack)
		t = append(t, 5<<4, flags, byte(s.window>>8), byte(s.window), 0, 0, 0, 0)
		if s.stamp != 0 {
			t[12] = 8 << 4
			t = binary.BigEndian.AppendUint32(append(t, 1, 1, 8, 10), s.stamp)
			t = append(t, 0, 0, 0, 9)
		}
	}
	for i := range n {
		t = append(t, byte(i)+byte(s.seq))
	}
	s.seq += uint32(n)
	p := s.header(fault, len(t))
	transport := len(p)
	p = append(p, t...)
	protocol := uint8(packet.ProtoTCP)
	if s.udp {
		protocol = packet.ProtoUDP
	}
	superSums(p, transport, protocol, false)
	switch {
	case fault == faultSum:
		p[transport+7] ^= 1
	case fault == faultIPSum && !s.v6:
		p[10] ^= 1
	case fault == faultNoSum && s.udp:
		p[transport+6], p[transport+7] = 0, 0
	case fault == faultPadding:
		p = append(p, 0, 0, 0)
	}
	return p
}

func (s *superSource) header(fault superFault, n int) []byte {
	protocol := byte(packet.ProtoTCP)
	if s.udp {
		protocol = packet.ProtoUDP
	}
	if s.v6 {
		p := []byte{0x60 | s.tos>>4, s.tos << 4, 0, 9, byte(n >> 8), byte(n), protocol, s.ttl}
		p = append(p, bytes.Repeat([]byte{0x20}, 16)...)
		return append(p, bytes.Repeat([]byte{0x21}, 16)...)
	}
	p := make([]byte, 20, 24)
	if fault == faultIPOptions {
		p = append(p, 1, 1, 1, 0)
	}
	p[0], p[1], p[8], p[9] = 0x40|byte(len(p)/4), s.tos, s.ttl, protocol
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)+n))
	binary.BigEndian.PutUint16(p[4:], s.id)
	if !s.sameID {
		s.id++
	}
	if s.df {
		p[6] = 0x40
	}
	if fault == faultFragment {
		p[6] |= 0x20
	}
	copy(p[12:], []byte{10, 1, 0, 1, 10, 2, 0, 1})
	return p
}

// superProgram makes a batch of packets: two bytes of program for each, which
// sender's, what is special about it, and how much it carries.
func superProgram(program []byte) [][]byte {
	var sources [8]superSource
	for i := range sources {
		sources[i] = superSource{v6: i&1 != 0, udp: i&2 != 0, df: i&4 != 0, port: uint16(1000 + i), id: uint16(0xfffe + i),
			window: 500, seq: 0xfffffe00, ack: 77, tos: uint8(i) << 4, ttl: 64, stamp: uint32(i & 4)}
	}
	var batch [][]byte
	for ; len(program) >= 2 && len(batch) < 300; program = program[2:] {
		s := &sources[program[0]&7]
		// Three quarters are ordinary packets, of two sizes mostly.
		fault, n := superFault(program[0]>>3), 100
		if program[1]&3 != 0 || fault >= faultLast {
			fault = 0
		}
		switch program[1] >> 5 {
		case 0:
			n = 1400
		case 1:
			n = int(program[1]>>2&7) + 1
		}
		batch = append(batch, s.next(fault, n))
	}
	return batch
}

// FuzzSuperpacketCoalesce holds of any batch: cutting the superpackets that the
// Coalescer plans gives every flow its packets back, in order and to the bit
// (but for the identification of IPv4 packets with DF, RFC 6864), no packet is
// lost or doubled, and Undo gives the packets back as they were.
func FuzzSuperpacketCoalesce(f *testing.F) {
	c := tun.NewCoalescer(64)
	f.Fuzz(func(t *testing.T, program []byte) {
		batch := superProgram(program)
		bufs := make([]*packet.Buffer, len(batch))
		want := map[packet.Flow][][]byte{}
		for i, p := range batch {
			bufs[i], _ = superBuffer(p, 0, 0)
			whole, flow := superFlow(t, p)
			want[flow] = append(want[flow], whole)
		}
		got := map[packet.Flow][][]byte{}
		total := 0
		for i := range c.Plan(bufs) {
			pieces, n := c.Group(i)
			total += n
			super := bytes.Join(pieces, nil)
			for _, p := range superCut(t, super[:10], super[10:], n) {
				_, flow := superFlow(t, p)
				got[flow] = append(got[flow], p)
			}
			c.Undo()
		}
		if total != len(batch) {
			t.Fatalf("%d packets in the groups, want %d", total, len(batch))
		}
		for flow, list := range want {
			superCompare(t, got[flow], list)
		}
		for i, p := range batch {
			if !bytes.Equal(bufs[i].Mem[bufs[i].Off:], p) {
				t.Fatalf("packet %d is not as it was:\n got %x\nwant %x", i, bufs[i].Mem[bufs[i].Off:], p)
			}
		}
	})
}

func superFlow(t *testing.T, p []byte) (whole []byte, flow packet.Flow) {
	var h packet.Header
	if err := packet.Parse(p, &h, &flow); err != nil {
		t.Fatalf("Parse %x: %v", p, err)
	}
	return p[:h.TotalLen], flow
}

// superCut is what a device makes of one write.
func superCut(t *testing.T, vnet, p []byte, packets int) [][]byte {
	if packets == 1 {
		if !bytes.Equal(vnet, make([]byte, 10)) {
			t.Fatalf("a packet alone has the virtio-net header %x", vnet)
		}
		return [][]byte{p}
	}
	b, _ := superBuffer(p, 0, int(binary.NativeEndian.Uint16(vnet[4:])))
	var s tun.Segmenter
	if err := s.Init(b, 0); err != nil {
		t.Fatalf("the superpacket of %d packets cannot be cut: %v\n%x", packets, err, p)
	}
	udp := b.Flow.Protocol == packet.ProtoUDP
	wantType, sum := byte(1), 16
	switch {
	case udp:
		wantType, sum = 5, 6
	case b.Header.Version == 6:
		wantType = 4
	}
	h := &b.Header
	if vnet[0] != 1 || vnet[1] != wantType || int(binary.NativeEndian.Uint16(vnet[2:])) != h.PayloadOffset ||
		int(binary.NativeEndian.Uint16(vnet[6:])) != h.TransportOffset || int(binary.NativeEndian.Uint16(vnet[8:])) != sum {
		t.Fatalf("virtio-net header %x for type %d, header %d, transport %d, checksum at %d", vnet, wantType, h.PayloadOffset, h.TransportOffset, sum)
	}
	if got, want := binary.BigEndian.Uint16(p[h.TransportOffset+sum:]), superPseudo(p, b.Flow.Protocol, len(p)-h.TransportOffset); got != want {
		t.Fatalf("partial checksum %#x, want %#x", got, want)
	}
	if p[0]>>4 == 4 && !sumsUp(p[:20]) {
		t.Fatalf("IPv4 header checksum of the superpacket is wrong: %x", p[:20])
	}
	if s.Segments() != packets {
		t.Fatalf("the superpacket has %d segments, want %d", s.Segments(), packets)
	}
	var list [][]byte
	for {
		seg, ok := s.Next()
		if !ok {
			return list
		}
		list = append(list, bytes.Clone(seg))
	}
}

func superCompare(t *testing.T, got, want [][]byte) {
	if len(got) != len(want) {
		t.Fatalf("a flow has %d packets, want %d", len(got), len(want))
	}
	for i := range want {
		g, w := bytes.Clone(got[i]), bytes.Clone(want[i])
		if len(g) == len(w) && w[0]>>4 == 4 && w[6]&0x60 == 0x40 && sumsUp(g[:20]) && sumsUp(w[:20]) {
			clear(g[4:6])
			clear(w[4:6])
			clear(g[10:12])
			clear(w[10:12])
		}
		if !bytes.Equal(g, w) {
			t.Fatalf("packet %d of %d:\n got %x\nwant %x", i, len(want), g, w)
		}
	}
}
