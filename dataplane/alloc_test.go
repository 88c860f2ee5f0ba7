//go:build !race

package dataplane

import (
	"testing"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
)

// Not under the race detector, which makes it a hundred times slower and sees
// nothing new in one goroutine.

// Zero allocations per packet on both walks, in every suite.
func TestWalksAllocateNothing(t *testing.T) {
	const batchLen, runs = 8, 30
	for _, suite := range esp.Suites() {
		r := newRig(t, options{suite: suite.String(), noESN: true})
		for i := range r.wires {
			r.gw.out[0].wires[i].to = discardWire{}
		}
		p := fromA(string(make([]byte, 1300)))
		out := func() {
			for i := range batchLen {
				r.gw.out[0].bufs[i].Set(p)
			}
			r.gw.out[0].walk(batchLen)
		}
		if n := testing.AllocsPerRun(runs, out); n != 0 {
			t.Errorf("%s outbound: expected 0 allocations per batch, saw %v", suite, n)
		}
		big := fromASuper(20*1300, 1300)
		superpacket := big.bytes()
		cut := func() {
			r.gw.out[0].bufs[0].Set(superpacket)
			r.gw.out[0].bufs[0].SegmentSize = big.size
			r.gw.out[0].walk(1)
		}
		if n := testing.AllocsPerRun(runs, cut); n != 0 {
			t.Errorf("%s outbound: expected 0 allocations per superpacket, saw %v", suite, n)
		}
		r.tun.discard = true
		r.narrow(1280)
		long := [][]byte{udpOf(false, false, 1300), udpOf(false, true, 1300), tcpOf(hostA, hostB, "SYN", 1460)}
		slow := func() {
			for i, p := range long {
				r.gw.out[0].bufs[i].Set(p)
			}
			r.gw.out[0].walk(len(long))
		}
		if n := testing.AllocsPerRun(runs, slow); n != 0 {
			t.Errorf("%s outbound: expected 0 allocations for packets that are too long, saw %v", suite, n)
		}
		w, seq := r.in[wireUDP], uint64(0)
		wires := make([][]byte, (runs+1)*2*batchLen)
		for i := range wires {
			wires[i] = r.sealed(uint64(i+1), packet.ProtoIPv4, fromB(string(make([]byte, 1300))))
		}
		in := func() {
			for i := range batchLen {
				d := &w.grams[i]
				d.Off, d.Addr = packet.Headroom, gwB4
				d.Len = copy(d.Mem[packet.Headroom:], wires[seq])
				seq++
			}
			w.walk(batchLen)
			// The other half of them, in one slot and out of order.
			d := &w.grams[0]
			d.Len, d.SegmentSize = 0, len(wires[seq])
			for i := range batchLen {
				d.Len += copy(d.Mem[packet.Headroom+d.Len:], wires[seq+uint64(batchLen-1-i)])
			}
			seq += batchLen
			w.walk(1)
			d.SegmentSize = 0
		}
		if n := testing.AllocsPerRun(runs, in); n != 0 {
			t.Errorf("%s inbound: expected 0 allocations per batch, saw %v", suite, n)
		}
		if got := r.gw.Stats().Counter("InPackets"); got != seq {
			t.Errorf("%s: delivered: expected %d, saw %d", suite, seq, got)
		}
	}
}
