//go:build !race

package ah

import "testing"

// Not under the race detector, which makes it many times slower and sees nothing
// new in one goroutine.

// The packet path allocates nothing, in any suite, whatever the header.
func TestSignAndVerifyAllocateNothing(t *testing.T) {
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		sc := NewScratch()
		for name, header := range headers {
			start := unsigned(tr.suite, 1, header, make([]byte, 1400))
			out, in := make([]Packet, 8), make([]Packet, 8)
			seq := testSeq(tr)
			failed := false
			allocs := testing.AllocsPerRun(20, func() {
				for k := range out {
					seq++
					out[k] = start
					out[k].Seq = seq
				}
				tr.Sign(sc, testSPI, out)
				for k := range in {
					in[k] = Packet{Seq: out[k].Seq, Wire: out[k].Wire}
				}
				tr.Verify(sc, in)
				// All lie in the same memory: the last one is what stands there.
				failed = failed || in[7].Err != nil || in[0].Err == nil
			})
			if allocs != 0 || failed {
				t.Errorf("%s: expected 0 allocations, saw %v; failed %t", name, allocs, failed)
			}
		}
	})
}
