package dataplane

import (
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
)

// The walks with superpackets, per packet on the wire. The walk with plain
// packets is in package bench.

func BenchmarkOutboundSuperpacket(b *testing.B) {
	r := newRig(b, options{})
	r.gw.out[0].wires[wireUDP].to = discardWire{}
	s := fromASuper(45*1348, 1348)
	whole := s.bytes()
	b.SetBytes(1388)
	b.ResetTimer()
	for n := 0; n < b.N; n += 45 {
		r.gw.out[0].bufs[0].Set(whole) // as a read of the TUN would
		r.gw.out[0].bufs[0].SegmentSize = s.size
		r.gw.out[0].walk(1)
	}
}

// BenchmarkInboundCoalesced has no replay window, so that one read serves again
// and again.
func BenchmarkInboundCoalesced(b *testing.B) {
	r := newRig(b, options{window: noWindow, noESN: true})
	r.tun.discard = true
	w := r.in[wireUDP]
	p := inner{src: hostB, dst: hostA, payload: string(make([]byte, 1360))}.udp()
	var wires [][]byte
	for i := range 45 {
		wires = append(wires, r.sealed(uint64(i+1), packet.ProtoIPv4, p))
	}
	read := glued(wires...)
	b.SetBytes(1388)
	b.ResetTimer()
	for n := 0; n < b.N; n += 45 {
		d := &w.grams[0]
		d.Off, d.Addr, d.SegmentSize = packet.Headroom, gwB4, read.SegmentSize
		d.Len = copy(d.Mem[packet.Headroom:], read.Mem) // as a read of the socket would
		w.walk(1)
	}
	if got := r.gw.Stats().Counter("InPackets"); got < uint64(b.N) {
		b.Fatalf("delivered %d packets, expected %d", got, b.N)
	}
}
