package mmsg

import (
	"net/netip"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
)

// arena is count datagrams of n bytes that lie back to back in one memory.
func arena(to netip.AddrPort, count, n int) []packet.Datagram {
	mem := make([]byte, packet.Headroom+count*n)
	for i := range mem {
		mem[i] = byte(i * 7)
	}
	m := make([]packet.Datagram, count)
	for i := range m {
		m[i] = packet.Datagram{Mem: mem, Off: packet.Headroom + i*n, Len: n, Addr: to, Local: loop4, TOS: 2, DF: true}
	}
	return m
}

// BenchmarkFill is what WriteBatch does outside the kernel, for 63 datagrams of
// 64 bytes: the cost of each.
func BenchmarkFill(b *testing.B) {
	to := netip.AddrPortFrom(loop4, 4500)
	apart := arena(to, 63, 64)
	for i := range apart {
		apart[i].Mem = make([]byte, packet.SlotLen)
		apart[i].Off = packet.Headroom
	}
	whole := arena(to, 1, 63*64)
	whole[0].SegmentSize = 64
	for _, tt := range []struct {
		name  string
		m     []packet.Datagram
		super bool
	}{
		{"joined/back to back", arena(to, 63, 64), true},
		{"joined/apart", apart, true},
		{"joined/by SegmentSize", whole, true},
		{"plain", apart, false},
	} {
		b.Run(tt.name, func(b *testing.B) {
			s := listenUDP(b, Config{})
			for b.Loop() {
				if at, errno := s.fill(tt.m, cursor{}, tt.super); at.index != len(tt.m) || errno != 0 {
					b.Fatalf("fill = %v, %v", at, errno)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*63), "ns/datagram")
		})
	}
}

// BenchmarkPieces sends the same superpacket of 63 times 64 bytes on the loopback
// interface from one piece of memory and from 63, and reads it.
func BenchmarkPieces(b *testing.B) {
	for _, name := range []string{"back to back", "apart"} {
		b.Run(name, func(b *testing.B) {
			from, to := listenUDP(b, Config{}), listenUDP(b, Config{})
			m, in := arena(to.at(loop4), 63, 64), packet.NewDatagrams(1)
			for i := range m {
				if name == "apart" {
					m[i].Mem, m[i].Off = make([]byte, packet.SlotLen), packet.Headroom
				}
			}
			for b.Loop() {
				if _, err := from.WriteBatch(m); err != nil {
					b.Fatal(err)
				}
				if n, err := to.ReadBatch(in); err != nil || in[0].Len != 63*64 {
					b.Fatalf("ReadBatch = %d, %v", n, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*63), "ns/datagram")
		})
	}
}
