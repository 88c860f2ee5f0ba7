package dataplane

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"unsafe"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/tun"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// super is a TCP or UDP packet from host to host as virtio-net hands it over,
// to be cut into segments of size payload bytes.
type super struct {
	src, dst netip.Addr
	udp      bool
	payload  int
	size     int
	noDF     bool
	flags    func(*layers.TCP)
}

func fromASuper(payload, size int) super {
	return super{src: hostA, dst: hostB, payload: payload, size: size}
}

// data is the payload: no two places alike.
func (s super) data() []byte {
	b := make([]byte, s.payload)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// bytes is the packet with its partial checksum.
func (s super) bytes() []byte {
	var ip gopacket.SerializableLayer
	var network gopacket.NetworkLayer
	proto := layers.IPProtocolTCP
	if s.udp {
		proto = layers.IPProtocolUDP
	}
	if s.src.Is4() {
		h := &layers.IPv4{Version: 4, TTL: 63, TOS: 0x2a, Id: 100, Flags: layers.IPv4DontFragment, Protocol: proto, SrcIP: s.src.AsSlice(), DstIP: s.dst.AsSlice()}
		if s.noDF {
			h.Flags = 0
		}
		ip, network = h, h
	} else {
		h := &layers.IPv6{Version: 6, HopLimit: 63, TrafficClass: 0x2a, NextHeader: proto, SrcIP: s.src.AsSlice(), DstIP: s.dst.AsSlice()}
		ip, network = h, h
	}
	var b []byte
	sum := 16
	if s.udp {
		u := &layers.UDP{SrcPort: 4000, DstPort: 5000}
		_ = u.SetNetworkLayerForChecksum(network)
		b = serialize(ip, u, gopacket.Payload(s.data()))
		sum = 6
	} else {
		t := &layers.TCP{SrcPort: 4000, DstPort: 5000, Seq: 1000, Ack: 1, ACK: true, Window: 500, DataOffset: 5}
		if s.flags != nil {
			s.flags(t)
		}
		_ = t.SetNetworkLayerForChecksum(network)
		b = serialize(ip, t, gopacket.Payload(s.data()))
	}
	p := packet.Buffer{Mem: b, Len: len(b)}
	if err := p.Parse(); err != nil {
		panic(err)
	}
	at := p.Header.TransportOffset
	binary.BigEndian.PutUint16(b[at+sum:], packet.PseudoChecksum(&p.Flow, p.Flow.Protocol, len(b)-at))
	return b
}

// segments is what the packet stands for.
func (s super) segments() (list [][]byte) {
	p := packet.NewBuffers(1)[0]
	p.Set(s.bytes())
	p.SegmentSize = s.size
	var seg tun.Segmenter
	if err := seg.Init(&p, 0); err != nil {
		panic(err)
	}
	for seg.Segments() > 0 {
		b := make([]byte, seg.Longest())
		seg.CopyNext(b)
		list = append(list, b)
	}
	return list
}

// sendMixed is send for plain packets ([]byte) and superpackets.
func (r *rig) sendMixed(packets ...any) []sent {
	r.t.Helper()
	w := r.gw.out[0]
	for i, p := range packets {
		switch p := p.(type) {
		case []byte:
			w.bufs[i].Set(p)
		case super:
			w.bufs[i].Set(p.bytes())
			w.bufs[i].SegmentSize = p.size
		default:
			r.t.Fatalf("neither a packet nor a superpacket: %T", p)
		}
	}
	w.walk(len(packets))
	return r.send()
}

// opens fails unless the datagrams are these inner packets, numbered from first.
func (r *rig) opens(got []sent, first uint64, want [][]byte) {
	r.t.Helper()
	if len(got) != len(want) {
		r.t.Fatalf("datagrams: expected %d, saw %d", len(want), len(got))
	}
	for i := range got {
		open, err := r.opened(got[i], first+uint64(i))
		if err != nil || !bytes.Equal(open.Payload, want[i]) {
			r.t.Fatalf("datagram %d: expected % x, saw % x, %v", i, want[i], open.Payload, err)
		}
	}
}

// Every suite, both families, TCP and UDP: each segment is an ESP packet of its
// own with the next number, and what the peer opens is the segment.
func TestSuperpacketBecomesESPPacketsInOrder(t *testing.T) {
	for _, suite := range esp.Suites() {
		for _, s := range []super{
			{src: hostA, dst: hostB, payload: 30*1400 + 123, size: 1400},
			{src: host6, dst: hostS, payload: 30*1400 + 1400, size: 1400},
			{src: hostA, dst: hostB, udp: true, payload: 40*100 + 1, size: 100},
			{src: host6, dst: hostS, udp: true, payload: 40 * 33, size: 33},
		} {
			r := newRig(t, options{suite: suite.String()})
			want := s.segments()
			r.counts(nil, func() { r.opens(r.sendMixed(s), 1, want) })
			bytes := 0
			for _, p := range want {
				bytes += len(p)
			}
			st, sa := r.gw.Stats(), r.outSA().Stats()
			if n := uint64(len(want)); st.Counter("OutPackets") != n || st.Counter("OutBytes") != uint64(bytes) || sa.Packets != n || sa.Bytes != uint64(bytes) {
				t.Errorf("%s: expected %d packets of %d bytes everywhere, saw %d, %d, the SA %d, %d", suite, n, bytes,
					st.Counter("OutPackets"), st.Counter("OutBytes"), sa.Packets, sa.Bytes)
			}
		}
	}
}

// Plain packets and superpackets of one SA, in one batch: numbers go up in the
// order in which the TUN gave them, and so do they leave.
func TestSuperpacketsAndPacketsKeepTheirOrder(t *testing.T) {
	r := newRig(t, options{})
	s := fromASuper(5000, 1000)
	want := slices.Concat([][]byte{fromA("1"), fromA("2")}, s.segments(), [][]byte{fromA("3")}, s.segments(), s.segments(), [][]byte{fromA("4")})
	r.counts(nil, func() {
		r.opens(r.sendMixed(fromA("1"), fromA("2"), s, fromA("3"), s, s, fromA("4")), 1, want)
	})
	for _, d := range r.sendMixed(s) {
		if d.TOS != 0x2a || !d.DF || d.Addr != gwB4 {
			t.Errorf("outer header: TOS %#x, DF %v, to %s; expected 0x2a, true, %s", d.TOS, d.DF, d.Addr, gwB4)
		}
	}
}

// gso_size 1 and the longest packet: more segments than the arena and the send
// batch hold at once.
func TestSuperpacketOfOneByteSegments(t *testing.T) {
	r := newRig(t, options{})
	s := fromASuper(65000, 1)
	want := s.segments()
	r.counts(nil, func() { r.opens(r.sendMixed(fromA("1"), s), 1, slices.Concat([][]byte{fromA("1")}, want)) })
}

// layout keeps where the datagrams of each WriteBatch lay.
type layout struct {
	captureWire
	batches [][]packet.Datagram
}

func (l *layout) WriteBatch(grams []packet.Datagram) (int, error) {
	l.batches = append(l.batches, slices.Clone(grams))
	return len(grams), nil
}

// The kernel's segmentation wants the segments back to back: one piece of
// memory for each system call's superpacket.
func TestSealedSegmentsLieBackToBack(t *testing.T) {
	r := newRig(t, options{})
	l := &layout{}
	r.gw.out[0].wires[wireUDP].to = l
	r.sendMixed(fromASuper(40*1400, 1400))
	if len(l.batches) != 1 || len(l.batches[0]) != 40 {
		t.Fatalf("expected one batch of 40, saw %d batches", len(l.batches))
	}
	for i, d := range l.batches[0][1:] {
		last := l.batches[0][i]
		if &d.Mem[0] != &last.Mem[0] || d.Off != last.Off+last.Len || d.Len != last.Len {
			t.Errorf("datagram %d: %d bytes at %d; expected %d at %d", i+1, d.Len, d.Off, last.Len, last.Off+last.Len)
		}
	}
}

func bypassAll() []spd.Policy {
	p := protectAll()
	p[0].Action, p[0].Peer = spd.Bypass, ""
	return p
}

func TestBypassedSuperpacketLeavesInSegments(t *testing.T) {
	r := newRig(t, options{policies: bypassAll(), noSA: true})
	s := fromASuper(60000, 100)
	want := s.segments()
	r.counts(nil, func() {
		got := r.sendMixed(s, fromA("plain"))
		if len(got) != len(want)+1 {
			t.Fatalf("expected %d packets in clear, saw %d", len(want)+1, len(got))
		}
		for i, p := range append(want, fromA("plain")) {
			if got[i].wire != wireKinds || !bytes.Equal(got[i].Bytes(), p) {
				t.Fatalf("packet %d: expected % x in clear, saw % x on wire %d", i, p, got[i].Bytes(), got[i].wire)
			}
		}
	})
	if n := r.gw.Stats().Counter("OutBypass"); n != uint64(len(want)+1) {
		t.Errorf("OutBypass: expected %d, saw %d", len(want)+1, n)
	}
}

// A drop counts the packets that the superpacket stood for.
func TestDroppedSuperpacketCountsItsSegments(t *testing.T) {
	s := fromASuper(5*1000, 1000)
	stranger := s
	stranger.dst = gwB4.Addr()
	syn := s
	syn.flags = func(t *layers.TCP) { t.SYN = true }
	for name, c := range map[string]struct {
		reason DropReason
		s      super
		o      options
	}{
		"no policy":                       {OutDiscard, stranger, options{}},
		"no SA":                           {OutNoSA, s, options{noSA: true}},
		"no socket":                       {OutNoWire, s, options{encap: sad.EncapNone}},
		"no bypass socket":                {OutNoBypass, s, options{policies: bypassAll()}},
		"SYN":                             {OutSegment, syn, options{}},
		"SYN to be bypassed":              {OutSegment, syn, options{policies: bypassAll()}},
		"longer segments than a datagram": {OutTooBig, super{src: host6, dst: hostS, payload: 65535 - 60, size: 65500 - 60}, options{}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, c.o)
			r.gw.out[0].wires[wireRaw4].to = nil
			if c.reason == OutNoBypass {
				r.gw.out[0].clear.to = nil
			}
			n := uint64((c.s.payload + c.s.size - 1) / c.s.size)
			r.counts(map[DropReason]uint64{c.reason: n}, func() {
				if got := r.sendMixed(c.s); len(got) != 0 {
					t.Errorf("expected nothing to leave, saw %d datagrams", len(got))
				}
			})
		})
	}
}

// RFC 4303 3.3.3: at the end of the numbers, the segments that have one leave,
// and the others do not.
func TestSuperpacketAtTheEndOfTheNumbers(t *testing.T) {
	r := newRig(t, options{noESN: true})
	sa := r.outSA()
	for left := uint64(1<<32 - 1 - 3); left > 0; {
		n := min(left, 1<<30)
		_, granted := sa.Reserve(int(n))
		left -= uint64(granted)
	}
	s := fromASuper(10*500, 500)
	r.counts(map[DropReason]uint64{OutSeqExhausted: 7}, func() {
		r.opens(r.sendMixed(s), 1<<32-3, s.segments()[:3])
	})
	r.counts(map[DropReason]uint64{OutSeqExhausted: 10}, func() {
		if got := r.sendMixed(s); len(got) != 0 {
			t.Errorf("expected nothing to leave, saw %d datagrams", len(got))
		}
	})
}

// glued is datagrams in one slot, as the kernel's coalescing of UDP makes them.
func glued(payloads ...[]byte) packet.Datagram {
	d := packet.Datagram{SegmentSize: len(payloads[0])}
	for _, p := range payloads {
		d.Mem = append(d.Mem, p...)
	}
	d.Len = len(d.Mem)
	return d
}

// Every suite: the datagrams of one slot are opened where they lie, none touches
// its neighbour, and the TUN's headers in front of them neither.
func TestCoalescedDatagramsAreOpenedInPlace(t *testing.T) {
	for _, suite := range esp.Suites() {
		r := newRig(t, options{suite: suite.String(), window: 256})
		r.tun.scribble = true
		var wires, want [][]byte
		for i := range 200 {
			p := fromB(fmt.Sprintf("%03d", i))
			want = append(want, p)
			wires = append(wires, r.sealed(uint64(i+1), packet.ProtoIPv4, p))
		}
		last := fromB("") // shorter, as the last may be
		want, wires = append(want, last), append(wires, r.sealed(201, packet.ProtoIPv4, last))
		r.counts(nil, func() {
			got := r.receive(wireUDP, glued(wires[:90]...), glued(wires[90:]...))
			if len(got) != len(want) {
				t.Fatalf("%s: expected %d packets, saw %d", suite, len(want), len(got))
			}
			for i := range got {
				if !bytes.Equal(got[i], want[i]) {
					t.Fatalf("%s: packet %d: expected % x, saw % x", suite, i, want[i], got[i])
				}
			}
		})
	}
}

// ownMemory is a queue that wants what it may overwrite to be one packet's only.
type ownMemory struct {
	captureQueue
	shared bool
}

func (q *ownMemory) WriteBatch(bufs []*packet.Buffer) (int, error) {
	end := uintptr(0)
	for _, b := range bufs { // as they lie in the slot
		mine := b.Mem[b.Off-tun.WriteHeadroom : cap(b.Mem)]
		q.shared = q.shared || uintptr(unsafe.Pointer(&mine[0])) < end
		end = uintptr(unsafe.Pointer(&mine[0])) + uintptr(len(mine))
	}
	return q.captureQueue.WriteBatch(bufs)
}

// Every suite: a queue may write in front of one packet while it still needs
// what it has put behind another.
func TestCoalescedDatagramsShareNoMemoryInTheTUNBatch(t *testing.T) {
	for _, suite := range esp.Suites() {
		r := newRig(t, options{suite: suite.String()})
		q := &ownMemory{}
		r.gw.useQueue(q)
		var wires [][]byte
		for i := range 4 {
			wires = append(wires, r.good(uint64(i+1)))
		}
		r.receive(wireUDP, glued(wires...))
		if q.shared || len(q.packets) != len(wires) {
			t.Errorf("%s: %d packets, memory shared: %v; expected %d and no", suite, len(q.packets), q.shared, len(wires))
		}
	}
}

// One read may hold datagrams of several fates; each has its own.
func TestCoalescedDatagramsOfMixedFates(t *testing.T) {
	r := newRig(t, options{})
	forged := r.good(4)
	forged[len(forged)-1] ^= 1
	unknown := r.good(5)
	unknown[0] ^= 1
	short := []byte{0xff} // a keepalive, at the end
	r.counts(map[DropReason]uint64{InAuth: 1, InNoSA: 1, InReplay: 1}, func() {
		r.delivers(4, r.receive(wireUDP, glued(r.good(1), r.good(2), r.good(2), r.good(3), forged, unknown, r.good(6), short)))
	})
	if n := r.gw.Stats().Counter("InKeepalives"); n != 1 {
		t.Errorf("InKeepalives: expected 1, saw %d", n)
	}
}

// What the path has shuffled reaches the TUN in the order of the numbers, and
// what is not authentic has no place in it.
func TestRunReachesTheTUNInSequence(t *testing.T) {
	r := newRig(t, options{window: 256})
	var wires, want [][]byte
	for i := range 100 {
		p := fromB(fmt.Sprintf("%03d", i))
		want = append(want, p)
		wires = append(wires, r.sealed(uint64(i+1), packet.ProtoIPv4, p))
	}
	forged := bytes.Clone(wires[50])
	forged[20] ^= 1
	wires = append(wires, forged)
	rand.New(rand.NewPCG(3, 4)).Shuffle(len(wires), func(i, j int) { wires[i], wires[j] = wires[j], wires[i] })
	r.counts(map[DropReason]uint64{InAuth: 1}, func() {
		got := r.receive(wireUDP, glued(wires...))
		for i, p := range want {
			if i >= len(got) || !bytes.Equal(got[i], p) {
				t.Fatalf("packet %d of %d is not the one numbered %d", i, len(got), i+1)
			}
		}
	})
}
