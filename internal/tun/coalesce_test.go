package tun

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
)

// That superpackets stand for their packets to the bit is
// fuzz/superpacket_test.go's. Here: what is merged at all, and what never is.

// stream makes n packets that follow each other.
func stream(s shape, n int) []*packet.Buffer {
	list := make([]*packet.Buffer, 0, n)
	for range n {
		list = append(list, buffer(s.make()...))
		s.seq += uint32(s.payload)
		s.id++
	}
	return list
}

// sizes is the number of packets in each group of the plan.
func sizes(c *Coalescer, bufs []*packet.Buffer) (list []int) {
	for i := range c.Plan(bufs) {
		_, n := c.Group(i)
		list = append(list, n)
	}
	return list
}

func expectSizes(t *testing.T, what string, got []int, want ...int) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: groups of %v packets, want %v", what, got, want)
	}
}

func TestCoalescerMergesWhatFollows(t *testing.T) {
	c := NewCoalescer(128)
	for _, s := range []shape{
		{flags: flagACK, payload: 1400},
		{flags: flagACK, payload: 1400, options: 40},
		{flags: flagACK | flagECE, payload: 1, v6: true, seq: 0xffffffff},
		{udp: true, payload: 1200},
		{udp: true, payload: 64, v6: true},
		{flags: flagACK, payload: 100, id: 0xffff},
	} {
		expectSizes(t, fmt.Sprintf("%+v", s), sizes(c, stream(s, 40)), 40)
	}
	// 65535 bytes hold 46 packets of 1400 and their headers, 64 datagrams at most.
	expectSizes(t, "TCP beyond 64 KiB", sizes(c, stream(shape{flags: flagACK, payload: 1400}, 50)), 46, 4)
	expectSizes(t, "UDP beyond the kernel's segments", sizes(c, stream(shape{udp: true, payload: 64}, 100)), 64, 36)
}

// TestCoalescerNeverMerges changes one thing in the second of three packets,
// and keeps its checksums right.
func TestCoalescerNeverMerges(t *testing.T) {
	tcp, udp := shape{flags: flagACK, payload: 100, options: 12}, shape{udp: true, payload: 100}
	tcp6 := shape{flags: flagACK, payload: 100, v6: true}
	for _, tt := range []struct {
		name   string
		shape  shape
		change func(s *shape)
		raw    func(p []byte) // after the checksums
		want   []int
	}{
		{"gap", tcp, func(s *shape) { s.seq++ }, nil, []int{1, 1, 1}},
		{"overlap", tcp, func(s *shape) { s.seq-- }, nil, []int{1, 1, 1}},
		{"the same again", tcp, func(s *shape) { s.seq -= 100 }, nil, []int{1, 1, 1}},
		{"longer payload", tcp, func(s *shape) { s.payload++ }, nil, []int{1, 1, 1}},
		{"shorter payload", udp, func(s *shape) { s.payload-- }, nil, []int{2, 1}},
		{"no payload", tcp, func(s *shape) { s.payload = 0 }, nil, []int{1, 1, 1}},
		{"no payload in UDP", udp, func(s *shape) { s.payload = 0 }, nil, []int{1, 1, 1}},
		{"PSH", tcp, func(s *shape) { s.flags |= flagPSH }, nil, []int{2, 1}},
		{"FIN", tcp, func(s *shape) { s.flags |= flagFIN }, nil, []int{2, 1}},
		{"SYN", tcp, func(s *shape) { s.flags |= flagSYN }, nil, []int{1, 1, 1}},
		{"RST", tcp, func(s *shape) { s.flags |= flagRST }, nil, []int{1, 1, 1}},
		{"URG", tcp, func(s *shape) { s.flags |= flagURG }, nil, []int{1, 1, 1}},
		{"CWR", tcp, func(s *shape) { s.flags |= flagCWR }, nil, []int{1, 1, 1}},
		{"ECE", tcp, func(s *shape) { s.flags |= flagECE }, nil, []int{1, 1, 1}},
		{"no ACK", tcp, func(s *shape) { s.flags = 0 }, nil, []int{1, 1, 1}},
		{"other options length", tcp, func(s *shape) { s.options = 8 }, nil, []int{1, 1, 1}},
		{"IPv4 options", tcp, func(s *shape) { s.ipOptions = 4 }, nil, []int{1, 1, 1}},
		{"IPv6 extension header", tcp6, func(s *shape) { s.ipOptions = 8 }, nil, []int{1, 1, 1}},
		{"identification", tcp, func(s *shape) { s.id += 5 }, nil, []int{1, 1, 1}},
		{"TOS", tcp, nil, func(p []byte) { p[1] = 4; fixIPv4(p) }, []int{1, 1, 1}},
		{"ECN", tcp, nil, func(p []byte) { packet.SetECN(p, packet.CE) }, []int{1, 1, 1}},
		{"TTL", tcp, nil, func(p []byte) { p[8]--; fixIPv4(p) }, []int{1, 1, 1}},
		{"DF", tcp, nil, func(p []byte) { p[6] = 0; fixIPv4(p) }, []int{1, 1, 1}},
		{"reserved flag", tcp, nil, func(p []byte) { p[6] |= 0x80; fixIPv4(p) }, []int{1, 1, 1}},
		{"fragment", udp, nil, func(p []byte) { p[6] |= 0x20; fixIPv4(p) }, []int{1, 1, 1}},
		{"traffic class", tcp6, nil, func(p []byte) { p[1] |= 0x10 }, []int{1, 1, 1}},
		{"flow label", tcp6, nil, func(p []byte) { p[3]++ }, []int{1, 1, 1}},
		{"hop limit", tcp6, nil, func(p []byte) { p[7]-- }, []int{1, 1, 1}},
		{"ACK number", tcp, nil, func(p []byte) { p[31] ^= 1; fixTCP(p) }, []int{1, 1, 1}},
		{"window", tcp, nil, func(p []byte) { p[35] ^= 1; fixTCP(p) }, []int{1, 1, 1}},
		{"urgent pointer", tcp, nil, func(p []byte) { p[39] ^= 1; fixTCP(p) }, []int{1, 1, 1}},
		{"reserved TCP bits", tcp, nil, func(p []byte) { p[32] |= 1; fixTCP(p) }, []int{1, 1, 1}},
		{"option value", tcp, nil, func(p []byte) { p[40] ^= 2; fixTCP(p) }, []int{1, 1, 1}},
		{"bad TCP checksum", tcp, nil, func(p []byte) { p[len(p)-1]++ }, []int{1, 1, 1}},
		{"bad UDP checksum", udp, nil, func(p []byte) { p[len(p)-1]++ }, []int{1, 1, 1}},
		{"no UDP checksum", udp, nil, func(p []byte) { p[26], p[27] = 0, 0 }, []int{1, 1, 1}},
		{"bad IPv4 checksum", tcp, nil, func(p []byte) { p[10]++ }, []int{1, 1, 1}},
		{"UDP length", udp, nil, func(p []byte) { p[25]--; fixUDP(p) }, []int{1, 1, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			first, second, third := tt.shape, tt.shape, tt.shape
			second.seq, second.id = uint32(first.payload), 1
			third.seq, third.id = second.seq, 5 // follows neither
			if tt.change != nil {
				tt.change(&second)
			}
			list := []*packet.Buffer{buffer(first.make()...), buffer(second.make()...), buffer(third.make()...)}
			if tt.raw != nil {
				tt.raw(list[1].Bytes())
			}
			expectSizes(t, tt.name, sizes(NewCoalescer(3), list), tt.want...)
		})
	}
}

func fixIPv4(p []byte) {
	n := int(p[0]&15) * 4
	p[10], p[11] = 0, 0
	binary.BigEndian.PutUint16(p[10:], ^packet.Checksum(p[:n], 0))
}

// fixTCP makes the TCP checksum of an IPv4 packet without options right.
func fixTCP(p []byte) {
	var h packet.Header
	var f packet.Flow
	if err := packet.Parse(p, &h, &f); err != nil {
		panic(err)
	}
	t := p[20:]
	t[tcpSum], t[tcpSum+1] = 0, 0
	binary.BigEndian.PutUint16(t[tcpSum:], ^packet.Checksum(t, packet.PseudoChecksum(&f, packet.ProtoTCP, len(t))))
}

// TestCoalescerBadFirstPacketIsLeftAlone: what is wrong with the first packet
// must not be put right by merging.
func TestCoalescerBadFirstPacketIsLeftAlone(t *testing.T) {
	for _, s := range []shape{{flags: flagACK, payload: 100}, {udp: true, payload: 100}, {flags: flagACK, payload: 100, v6: true}} {
		list := stream(s, 3)
		list[0].Mem[list[0].Off+list[0].Len-1]++
		expectSizes(t, fmt.Sprintf("%+v", s), sizes(NewCoalescer(3), list), 1, 2)
	}
}

// TestCoalescerIdentification: counting up, or the same in all of a group with
// DF (RFC 6864), and not a mixture.
func TestCoalescerIdentification(t *testing.T) {
	for _, tt := range []struct {
		ids  []uint16
		df   bool
		want []int
	}{
		{[]uint16{7, 7, 7, 7}, true, []int{4}},
		{[]uint16{0, 0, 0, 0}, true, []int{4}},
		{[]uint16{7, 7, 7, 7}, false, []int{1, 1, 1, 1}},
		{[]uint16{7, 8, 9, 10}, false, []int{4}},
		{[]uint16{7, 8, 8, 9}, true, []int{2, 2}},
		{[]uint16{7, 7, 8, 9}, true, []int{2, 2}},
		{[]uint16{7, 7, 9, 10}, true, []int{2, 2}},
		{[]uint16{7, 8, 9, 7}, true, []int{3, 1}},
	} {
		list := stream(shape{flags: flagACK, payload: 100}, len(tt.ids))
		for i, b := range list {
			p := b.Bytes()
			if !tt.df {
				p[6] = 0
			}
			binary.BigEndian.PutUint16(p[4:], tt.ids[i])
			fixIPv4(p)
		}
		expectSizes(t, fmt.Sprint(tt.ids, " DF ", tt.df), sizes(NewCoalescer(4), list), tt.want...)
	}
}

// flows are rounds of one IPv4 UDP packet of each of n senders.
func flows(s shape, n, rounds int) (list []*packet.Buffer) {
	for r := range rounds {
		for f := range n {
			s.id = uint16(r)
			p := s.make()
			p[15] = byte(f)
			fixUDP(p)
			fixIPv4(p)
			list = append(list, buffer(p...))
		}
	}
	return list
}

// TestCoalescerInterleavedFlows: each flow has its group, flows beyond
// openGroups put the oldest out, and nothing is merged over a packet of the
// same flow that stands between.
func TestCoalescerInterleavedFlows(t *testing.T) {
	udp := shape{udp: true, payload: 100}
	expectSizes(t, "eight flows", sizes(NewCoalescer(24), flows(udp, 8, 3)), 3, 3, 3, 3, 3, 3, 3, 3)
	if got := sizes(NewCoalescer(24), flows(udp, 9, 2)); len(got) <= 9 {
		t.Errorf("nine flows: %d groups, want more: only %d may be open", len(got), openGroups)
	}
	tcp := stream(shape{flags: flagACK, payload: 100}, 3)
	ack := buffer(shape{flags: flagACK, seq: 100, id: 9}.make()...)
	expectSizes(t, "an ACK between", sizes(NewCoalescer(4), []*packet.Buffer{tcp[0], ack, tcp[1], tcp[2]}), 1, 1, 2)
}

// TestCoalescerKeepsTheOrderOfAFlow: what cannot be merged ends its own flow's
// group, however its headers are read, and no other's.
func TestCoalescerKeepsTheOrderOfAFlow(t *testing.T) {
	tcp, tcp6 := shape{flags: flagACK, payload: 100}, shape{flags: flagACK, payload: 100, v6: true}
	udp := shape{udp: true, payload: 100}
	port := func(at int) func(p []byte) { return func(p []byte) { p[at] ^= 1 } }
	for _, tt := range []struct {
		name     string
		flow     shape
		between  shape
		change   func(p []byte)
		endGroup bool
	}{
		{"pure ACK", tcp, shape{flags: flagACK}, nil, true},
		{"SYN", tcp6, shape{flags: flagSYN, v6: true}, nil, true},
		{"IPv4 options", tcp, shape{flags: flagACK, ipOptions: 4}, nil, true},
		{"IPv6 extension header", tcp6, shape{flags: flagACK, v6: true, ipOptions: 8}, nil, true},
		{"first fragment", udp, udp, func(p []byte) { p[6] |= 0x20 }, true},
		{"cut TCP header", tcp, tcp, func(p []byte) { p[32] = 4 << 4 }, true},
		{"UDP without checksum", udp, udp, func(p []byte) { p[26], p[27] = 0, 0 }, true},
		{"other fragment", udp, udp, func(p []byte) { p[7] = 1 }, false},
		{"another source port", tcp, shape{flags: flagACK}, port(21), false},
		{"another destination port", tcp, shape{flags: flagACK}, port(23), false},
		{"IPv4 options, another port", tcp, shape{flags: flagACK, ipOptions: 4}, port(27), false},
		{"another source", tcp6, shape{flags: flagACK, v6: true}, port(8), false},
		{"another destination", tcp6, shape{flags: flagACK, v6: true}, port(39), false},
		{"extension header, another source", tcp6, shape{flags: flagACK, v6: true, ipOptions: 8}, port(23), false},
		{"extension header, another destination", tcp6, shape{flags: flagACK, v6: true, ipOptions: 8}, port(24), false},
		{"the other protocol", tcp, udp, nil, false},
		{"the other version", tcp, tcp6, nil, false},
		{"ICMP", tcp, tcp, func(p []byte) { p[9] = packet.ProtoICMP }, false},
		{"garbage", tcp, tcp, func(p []byte) { p[0] = 0xf0 }, false},
	} {
		list := stream(tt.flow, 2)
		between := tt.between.make()
		if tt.change != nil {
			tt.change(between)
		}
		want := []int{2, 1}
		if tt.endGroup {
			want = []int{1, 1, 1}
		}
		expectSizes(t, tt.name, sizes(NewCoalescer(3), []*packet.Buffer{list[0], buffer(between...), list[1]}), want...)
	}
}

// TestCoalescerCutsPadding: what lies behind the IP packet is not written, and
// Header and Flow need not have been filled.
func TestCoalescerCutsPadding(t *testing.T) {
	for _, s := range []shape{{flags: flagACK, payload: 100}, {flags: flagACK, payload: 100, v6: true}, {udp: true, payload: 100}, {payload: 0, ipOptions: 8}} {
		list := stream(s, 3)
		want := list[0].Len
		for i, b := range list {
			b.Len += i + 1 // padding; the memory behind is zero
			b.Header, b.Flow = packet.Header{TransportOffset: 77, PayloadOffset: 99}, packet.Flow{Version: 9}
		}
		groups := len(sizes(NewCoalescer(3), list))
		if merged := s.payload > 0; merged != (groups == 1) {
			t.Errorf("%+v: %d groups", s, groups)
		}
		for i, b := range list {
			if b.Len != want {
				t.Errorf("%+v: packet %d has %d bytes, want %d", s, i, b.Len, want)
			}
		}
	}
}

func fixUDP(p []byte) {
	var h packet.Header
	var f packet.Flow
	if err := packet.Parse(p, &h, &f); err != nil {
		panic(err)
	}
	t := p[20:]
	t[udpSum], t[udpSum+1] = 0, 0
	binary.BigEndian.PutUint16(t[udpSum:], ^packet.Checksum(t, packet.PseudoChecksum(&f, packet.ProtoUDP, len(t))))
}

func TestCoalescerSwitchedOff(t *testing.T) {
	c := NewCoalescer(4)
	c.NoTCP = true
	expectSizes(t, "TCP", sizes(c, stream(shape{flags: flagACK, payload: 100}, 2)), 1, 1)
	expectSizes(t, "UDP", sizes(c, stream(shape{udp: true, payload: 100}, 2)), 2)
	c.NoTCP, c.NoUDP = false, true
	expectSizes(t, "TCP", sizes(c, stream(shape{flags: flagACK, payload: 100}, 2)), 2)
	expectSizes(t, "UDP", sizes(c, stream(shape{udp: true, payload: 100}, 2)), 1, 1)
}

// TestCoalescerLeavesGarbageToTheKernel: what is no IP packet goes out as it is.
func TestCoalescerLeavesGarbageToTheKernel(t *testing.T) {
	c := NewCoalescer(1) // and grows
	list := []*packet.Buffer{buffer(0xf0), buffer(0x45, 0, 0), buffer(bytes.Repeat([]byte{0x60}, 40)...)}
	for i := range c.Plan(list) {
		pieces, n := c.Group(i)
		if n != 1 || len(pieces) != 1 || !bytes.Equal(pieces[0][vnetLen:], list[i].Bytes()) || !bytes.Equal(pieces[0][:vnetLen], make([]byte, vnetLen)) {
			t.Errorf("group %d: %d packets, %x; want %x behind zeros", i, n, pieces, list[i].Bytes())
		}
	}
}

func TestCoalescerAllocatesNothing(t *testing.T) {
	c := NewCoalescer(64)
	list := append(stream(shape{flags: flagACK, payload: 1400}, 40), stream(shape{udp: true, payload: 100, v6: true}, 24)...)
	packets := 0
	allocs := testing.AllocsPerRun(50, func() {
		packets = 0
		for i := range c.Plan(list) {
			_, n := c.Group(i)
			packets += n
			c.Undo()
		}
	})
	if packets != 64 || allocs != 0 {
		t.Errorf("%d packets and %v allocations for a batch, want 64 and 0", packets, allocs)
	}
}

// inSlots moves the packets into one worker's slots, as they lie in a gateway:
// in buffers of their own they would fight for the same lines of the cache.
func inSlots(list []*packet.Buffer) []*packet.Buffer {
	slots := packet.NewBuffers(len(list))
	for i := range list {
		slots[i].Set(list[i].Bytes())
		list[i] = &slots[i]
	}
	return list
}

func BenchmarkCoalesce(b *testing.B) {
	for _, bb := range []struct {
		name string
		list []*packet.Buffer
	}{
		{"TCPv4-1448", stream(shape{flags: flagACK, options: 12, payload: 1448}, 44)},
		{"TCPv6-1428", stream(shape{flags: flagACK, v6: true, options: 12, payload: 1428}, 44)},
		{"UDPv4-64", stream(shape{udp: true, payload: 64}, 128)},
		{"UDPv6-64", stream(shape{udp: true, v6: true, payload: 64}, 128)},
		{"UDPv4-64-flows", flows(shape{udp: true, payload: 64}, 128, 1)},
		{"UDPv4-64-8flows", flows(shape{udp: true, payload: 64}, 8, 16)},
		{"ACKs", stream(shape{flags: flagACK, options: 12}, 128)},
	} {
		b.Run(bb.name, func(b *testing.B) {
			c, list, packets := NewCoalescer(128), inSlots(bb.list), 0
			b.ReportAllocs()
			for b.Loop() {
				for i := range c.Plan(list) {
					_, n := c.Group(i)
					packets += n
					c.Undo()
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(packets), "ns/packet")
		})
	}
}
