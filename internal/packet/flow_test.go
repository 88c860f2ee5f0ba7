package packet

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func flowOf(t testing.TB, b []byte) Flow {
	t.Helper()
	var h Header
	var f Flow
	if err := Parse(b, &h, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestFlowHashDiffersInEveryBit flips each bit of a flow's fields, and of the
// seed, and wants another hash for each.
func TestFlowHashDiffersInEveryBit(t *testing.T) {
	base := flowOf(t, ipv6(ProtoTCP, tcp(20, 0)))
	seen := map[uint64]string{base.Hash(7): "the flow itself"}
	check := func(name string, hash uint64) {
		if other, taken := seen[hash]; taken {
			t.Errorf("%s hashes like %s", name, other)
		}
		seen[hash] = name
	}
	for i := range 128 {
		f := base
		f.Src[i/8] ^= 1 << (i % 8)
		check("source bit", f.Hash(7))
		f = base
		f.Dst[i/8] ^= 1 << (i % 8)
		check("destination bit", f.Hash(7))
	}
	for i := range 16 {
		f := base
		f.SrcPort ^= 1 << i
		check("source port bit", f.Hash(7))
		f = base
		f.DstPort ^= 1 << i
		check("destination port bit", f.Hash(7))
	}
	for i := range 8 {
		f := base
		f.Protocol ^= 1 << i
		check("protocol bit", f.Hash(7))
	}
	f := base
	f.Version = 4
	check("version", f.Hash(7))
	f = base
	f.PortsOpaque = true
	check("ports opaque", f.Hash(7))
	f = base
	f.ProtocolOpaque = true
	check("protocol opaque", f.Hash(7))
	f = base.Reverse()
	check("reverse", f.Hash(7))
	for i := range 64 {
		check("seed bit", base.Hash(7^1<<i))
	}
}

// TestFlowHashOfChosenAddressesDependsOnTheRest has addresses that equal the
// constants of the hash: without the seed nobody may choose what collides.
func TestFlowHashOfChosenAddressesDependsOnTheRest(t *testing.T) {
	var a, b Flow
	binary.LittleEndian.PutUint64(a.Src[8:], 0xe7037ed1a0b428db)
	binary.LittleEndian.PutUint64(a.Src[0:], 0xa0761d6478bd642f)
	b = a
	b.Src[0] ^= 1
	if a.Hash(12345) == b.Hash(12345) {
		t.Error("two flows with a chosen source address collide under a seed that nobody knew")
	}
}

// TestFlowHashSpreads puts 65536 flows that differ in one port into 256 slots
// by the low byte: none may hold twice its share.
func TestFlowHashSpreads(t *testing.T) {
	f := flowOf(t, ipv4(ProtoUDP, 0, 0, ports(1, 2, 8)))
	var slots [256]int
	for port := range 1 << 16 {
		f.SrcPort = uint16(port)
		slots[byte(f.Hash(1))]++
	}
	for i, n := range slots {
		if n == 0 || n > 512 {
			t.Errorf("slot %d holds %d of 65536 flows, want about 256", i, n)
		}
	}
}

func TestFlowReverse(t *testing.T) {
	f := flowOf(t, ipv4(ProtoUDP, 0, 0, ports(1, 2, 8)))
	r := f.Reverse()
	if r.SrcAddr() != dst4 || r.DstAddr() != src4 || r.SrcPort != 2 || r.DstPort != 1 || r.Protocol != ProtoUDP {
		t.Errorf("Reverse of %v is %v", f, r)
	}
	if r.Reverse() != f {
		t.Errorf("Reverse twice is %v, want %v", r.Reverse(), f)
	}
	icmp := flowOf(t, ipv4(ProtoICMP, 0, 0, []byte{8, 0}))
	if r := icmp.Reverse(); r.SrcPort != icmp.SrcPort || r.DstPort != icmp.DstPort {
		t.Errorf("Reverse changed ICMP type and code: %v, want %v", r, icmp)
	}
}

func TestFlowStringAndHasPorts(t *testing.T) {
	for _, tt := range []struct {
		in       []byte
		want     string
		hasPorts bool
	}{
		{ipv4(ProtoUDP, 0, 0, ports(1, 2, 8)), "192.0.2.1:1 > 198.51.100.2:2 udp", true},
		{ipv4(ProtoTCP, 0, 2, make([]byte, 8)), "192.0.2.1 > 198.51.100.2 tcp", true},
		{ipv4(ProtoICMP, 0, 0, []byte{3, 4}), "192.0.2.1 > 198.51.100.2 icmp type 3 code 4", true},
		{ipv4(ProtoGRE, 0, 0, nil), "192.0.2.1 > 198.51.100.2 proto 47", false},
		{ipv6(ProtoTCP, tcp(20, 0)), "[2001:db8::1]:1000 > [2001:db8:ffff::2]:2000 tcp", true},
		{ipv6(ProtoICMPv6, []byte{128, 0}), "2001:db8::1 > 2001:db8:ffff::2 icmpv6 type 128 code 0", true},
		{ipv6(ProtoDestination, make([]byte, 8), fragment6(16, false)), "2001:db8::1 > 2001:db8:ffff::2 proto opaque", false},
	} {
		f := flowOf(t, tt.in)
		if got := f.String(); got != tt.want {
			t.Errorf("String = %q, want %q", got, tt.want)
		}
		if got := f.HasPorts(); got != tt.hasPorts {
			t.Errorf("%v: HasPorts = %v, want %v", f, got, tt.hasPorts)
		}
	}
}

func TestBufferSegments(t *testing.T) {
	for _, tt := range []struct{ payload, size, want int }{
		{0, 0, 1}, {0, 100, 1}, {100, 0, 1}, {99, 100, 1}, {100, 100, 1}, {101, 100, 2}, {200, 100, 2}, {1000, 1, 1000},
	} {
		b := &NewBuffers(1)[0]
		b.Set(ipv4(ProtoTCP, 0, 0, tcp(32, tt.payload)))
		if err := b.Parse(); err != nil {
			t.Fatal(err)
		}
		b.SegmentSize = tt.size
		if got := b.Segments(); got != tt.want {
			t.Errorf("%d bytes in segments of %d: %d, want %d", tt.payload, tt.size, got, tt.want)
		}
	}
}

func TestBufferParseCutsPadding(t *testing.T) {
	p := ipv4(ProtoUDP, 0, 0, ports(1, 2, 8))
	b := &NewBuffers(1)[0]
	b.Set(append(append([]byte(nil), p...), make([]byte, 50)...))
	if err := b.Parse(); err != nil || !bytes.Equal(b.Bytes(), p) {
		t.Errorf("Parse: %v, packet of %d bytes, want %d", err, b.Len, len(p))
	}
	b.Set(p[:10])
	if err := b.Parse(); err != ErrTooShort || b.Len != 10 {
		t.Errorf("Parse of a short packet: %v, length %d; want %v, 10", err, b.Len, ErrTooShort)
	}
}

func TestBufferCloneOwnsItsMemory(t *testing.T) {
	b := &NewBuffers(1)[0]
	b.Set([]byte{1, 2, 3})
	b.SegmentSize = 2
	c := b.Clone()
	copy(b.Bytes(), []byte{9, 9, 9})
	if !bytes.Equal(c.Bytes(), []byte{1, 2, 3}) || c.SegmentSize != 2 {
		t.Errorf("clone is %x, segment size %d; want 010203, 2", c.Bytes(), c.SegmentSize)
	}
	if c.Off != Headroom || len(c.Mem)-c.Off-c.Len != Tailroom {
		t.Errorf("clone has %d bytes in front and %d behind, want %d and %d", c.Off, len(c.Mem)-c.Off-c.Len, Headroom, Tailroom)
	}
}

// TestSlotsDoNotOverlap fills each slot to its capacity.
func TestSlotsDoNotOverlap(t *testing.T) {
	bufs, grams := NewBuffers(3), NewDatagrams(3)
	for i := range 3 {
		for _, mem := range [][]byte{bufs[i].Mem, grams[i].Mem} {
			if len(mem) != SlotLen || cap(mem) != SlotLen {
				t.Fatalf("slot %d: length %d, capacity %d, want %d", i, len(mem), cap(mem), SlotLen)
			}
			for j := range mem {
				mem[j] = byte(i + 1)
			}
		}
	}
	for i := range 3 {
		for _, mem := range [][]byte{bufs[i].Mem, grams[i].Mem} {
			if mem[0] != byte(i+1) || mem[SlotLen-1] != byte(i+1) {
				t.Fatalf("slot %d was written by another", i)
			}
		}
	}
}

func TestDirectionString(t *testing.T) {
	if Outbound.String() != "out" || Inbound.String() != "in" {
		t.Errorf("directions are %q and %q, want out and in", Outbound, Inbound)
	}
}

func BenchmarkFlowHash(b *testing.B) {
	f := flowOf(b, ipv4(ProtoUDP, 0, 0, ports(1, 2, 8)))
	h := uint64(0)
	for b.Loop() {
		h = f.Hash(h)
	}
}
