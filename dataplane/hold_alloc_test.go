//go:build !race

package dataplane

import "testing"

// A gateway that holds packets allocates nothing for those that have an SA, also
// while others wait.
func TestHoldCostsOthersNoAllocation(t *testing.T) {
	r := newRig(t, options{policies: append(protectAll(), onNet(7))})
	r.gw.holding.use(&Hold{})
	none(t, r.send(toNet(7, 1)))
	for i := range r.wires {
		r.gw.out[0].wires[i].to = discardWire{}
	}
	p := fromA(string(make([]byte, 1300)))
	r.now = eventInterval // the reminder is due, and is not again
	for _, held := range []int{1, 0} {
		r.holds(held)
		if n := testing.AllocsPerRun(30, func() {
			r.now += holdTick / 2
			for i := range 8 {
				r.gw.out[0].bufs[i].Set(p)
			}
			r.gw.out[0].walk(8)
		}); n != 0 {
			t.Errorf("%d held: expected 0 allocations per batch, saw %v", held, n)
		}
		r.now += holdDeadline
		r.gw.tendHolds()
	}
}
