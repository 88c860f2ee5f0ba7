//go:build !race

package esp

import "testing"

// Not under the race detector, which makes it many times slower and sees nothing
// new in one goroutine.

// The packet path allocates nothing, in any suite.
func TestSealAndOpenAllocateNothing(t *testing.T) {
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		sc := NewScratch()
		s := tr.suite
		start := HeaderLen + s.IVLen()
		for _, n := range []int{1, 8} {
			for _, inPlace := range []bool{true, false} {
				batch, received, wires := make([]Packet, n), make([]Packet, n), make([][]byte, n)
				payloads := make([][]byte, n)
				const size = 1408
				for k := range batch {
					wires[k] = make([]byte, s.SealedLen(size))
					payloads[k] = make([]byte, size, size+s.TrailerLen(size))
					if inPlace {
						payloads[k] = wires[k][start : start+size]
					}
				}
				seq := uint64(0)
				failed := false
				allocs := testing.AllocsPerRun(20, func() {
					for k := range batch {
						seq++
						batch[k] = Packet{Seq: seq, NextHeader: 4, Payload: payloads[k], Wire: wires[k]}
					}
					tr.Seal(sc, testSPI, batch)
					for k := range batch {
						received[k] = Packet{Seq: batch[k].Seq, Wire: batch[k].Wire}
					}
					received[n-1].Wire[start] ^= byte(seq & 1) // every other one forged
					tr.Open(sc, received)
					failed = failed || n > 1 && received[0].Err != nil
				})
				if allocs != 0 || failed {
					t.Errorf("batch of %d, in place %t: expected 0 allocations, saw %v; failed %t", n, inPlace, allocs, failed)
				}
			}
		}
	})
}
