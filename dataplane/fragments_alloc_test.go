//go:build !race

package dataplane

import (
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/spd"
)

// Not under the race detector: as alloc_test.go.

// Zero allocations for fragments too, whatever becomes of them: they ride, come
// too early, are broken, or push each other out.
func TestFragmentsAllocateNothing(t *testing.T) {
	const runs = 30
	for name, f := range families() {
		r := fragmentRig(t, byPort(spd.Bypass))
		for i := range r.wires {
			r.gw.out[0].wires[i].to = discardWire{}
		}
		r.gw.out[0].clear.to = discardWire{}
		r.tun.discard = true
		var list, back [][]byte
		for id := range uint32(4) {
			list = append(list, pieces(f.datagramTo(80, 300), id, 120)...)
			list = append(list, reversed(pieces(f.datagramTo(99, 300), 100+id, 120))...)
			list = append(list, of(64, 96, true)(f.datagramTo(80, 300)))
			back = append(back, pieces(f.datagramFrom(80, 300), id, 120)...)
			back = append(back, of(64, 96, true)(f.datagramFrom(80, 300)))
		}
		out := func() {
			bufs := r.gw.out[0].bufs
			for i, p := range list {
				bufs[i%len(bufs)].Set(p)
				if n := i%len(bufs) + 1; n == len(bufs) || i == len(list)-1 {
					r.gw.out[0].walk(n)
				}
			}
		}
		if n := testing.AllocsPerRun(runs, out); n != 0 {
			t.Errorf("%s outbound: expected 0 allocations per batch, saw %v", name, n)
		}
		var wires [][]byte
		for range runs + 1 {
			wires = append(wires, r.sealedFrom(len(wires)+1, back)...)
		}
		w, at := r.in[wireUDP], 0
		in := func() {
			for i := range back {
				d := &w.grams[i]
				d.Off, d.Addr = packet.Headroom, gwB4
				d.Len = copy(d.Mem[packet.Headroom:], wires[at])
				at++
			}
			w.walk(len(back))
		}
		if n := testing.AllocsPerRun(runs, in); n != 0 {
			t.Errorf("%s inbound: expected 0 allocations per batch, saw %v", name, n)
		}
		if got := r.gw.Stats().Counter("InFragment"); got == 0 || got >= uint64(at) {
			t.Errorf("%s: InFragment: expected some of %d, saw %d", name, at, got)
		}
	}
}
