package replay

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

func TestNewRefusesSizesOutOfRange(t *testing.T) {
	for _, size := range []int{-1, 0, 1, MinSize - 1, MaxSize + 1, math.MaxInt} {
		if w, err := New(size, true); err == nil || w != nil || !strings.Contains(err.Error(), "use 32 to 1048576") {
			t.Errorf("New(%d): expected an error that names the limits, seen %v", size, err)
		}
	}
	for _, size := range sizes {
		if w := newWindow(t, size, false, 0); w.Size() != size || w.Edge() != 0 {
			t.Errorf("New(%d): expected this size and edge 0, seen %d and %d", size, w.Size(), w.Edge())
		}
	}
}

func TestVerdictStrings(t *testing.T) {
	for v, want := range map[Verdict]string{Fresh: "fresh", Zero: "zero", Old: "old", Seen: "seen", 0: "verdict(0)", 9: "verdict(9)"} {
		if got := v.String(); got != want {
			t.Errorf("Verdict(%d): expected %q, seen %q", uint8(v), want, got)
		}
	}
}

// The window is exactly size wide wherever its edge lies in a word.
func TestWindowIsExactlyItsSize(t *testing.T) {
	for _, size := range []int{32, 33, 63, 64, 65, 66, 127, 128, 129, 1000, 4096, 4097} {
		for edge := uint64(size) + 1; edge < uint64(size)+140; edge++ {
			w := newWindow(t, size, false, edge)
			bottom := edge - uint64(size) + 1
			for seq := bottom; seq < edge; seq++ {
				if got := w.Check(seq); got != Fresh {
					t.Fatalf("W=%d, edge %d: Check(%d) inside: expected fresh, seen %s", size, edge, seq, got)
				}
			}
			if got := w.Check(bottom - 1); got != Old {
				t.Fatalf("W=%d, edge %d: Check(%d) one behind: expected old, seen %s", size, edge, bottom-1, got)
			}
			// A bit at the bottom does not shine through at the top.
			if got := w.Mark(bottom); got != Fresh {
				t.Fatalf("W=%d, edge %d: Mark(%d) at the bottom: expected fresh, seen %s", size, edge, bottom, got)
			}
			if got := w.Check(edge + 1); got != Fresh {
				t.Fatalf("W=%d, edge %d: Check(%d) one ahead: expected fresh, seen %s", size, edge, edge+1, got)
			}
		}
	}
}

// One window of 128, one number after another: what each step must say follows
// from all before it.
func TestCR04_EdgeTable(t *testing.T) {
	const size = 128
	const far = 1 << 20
	steps := []struct {
		seq  uint64
		want Verdict
	}{
		{0, Zero}, {1, Fresh}, {1, Seen}, {3, Fresh}, {2, Fresh}, {2, Seen}, {3, Seen}, {0, Zero},
		{63, Fresh}, {64, Fresh}, {65, Fresh}, {64, Seen}, {4, Fresh}, // word boundary
		{size, Fresh}, {size, Seen}, {5, Fresh}, {1, Seen}, // the first window is full
		{size + 1, Fresh}, {1, Old}, {2, Seen}, // 1 falls out, 2 is the bottom
		{size + 2, Fresh}, {2, Old}, {3, Seen}, {6, Fresh},
		{3*size - 1, Fresh}, {size + 2, Old}, {2 * size, Fresh}, {2*size - 1, Old}, // nearly a whole window on
		{far, Fresh}, {far, Seen}, {far - size, Old}, {far - size + 1, Fresh}, {far - size + 1, Seen}, // a jump over many windows
		{far - 1, Fresh}, {3*size - 1, Old}, {far + size, Fresh}, {far, Old}, {far + 1, Fresh},
		{math.MaxUint32, Fresh}, {math.MaxUint32 - 1, Fresh}, {math.MaxUint32 - size + 1, Fresh}, {math.MaxUint32 - size, Old},
		{far + size, Old}, {math.MaxUint32, Seen}, {0, Zero}, {1 << 32, Old},
	}
	w := newWindow(t, size, false, 0)
	for i, s := range steps {
		if got := w.Check(s.seq); got != s.want {
			t.Fatalf("step %d: Check(%d): expected %s, seen %s", i, s.seq, s.want, got)
		}
		if got := w.Mark(s.seq); got != s.want {
			t.Fatalf("step %d: Mark(%d): expected %s, seen %s", i, s.seq, s.want, got)
		}
	}
}

// mark expects one verdict for a run of numbers.
func mark(t *testing.T, w *Window, from, to uint64, step int64, want Verdict) {
	t.Helper()
	for seq := from; ; seq += uint64(step) {
		if got := w.Mark(seq); got != want {
			t.Fatalf("W=%d: Mark(%d) in the pass %d..%d: expected %s, seen %s", w.size, seq, from, to, want, got)
		}
		if seq == to {
			return
		}
	}
}

func TestCR04_BulkPasses(t *testing.T) {
	for _, size := range []int{32, 33, 64, 128, 1000, 4096} {
		n := uint64(size)
		t.Run(fmt.Sprintf("W=%d", size), func(t *testing.T) {
			w := newWindow(t, size, false, 0)
			mark(t, w, 1, 3*n, 1, Fresh)        // forwards
			mark(t, w, 3*n, 2*n+1, -1, Seen)    // the window, backwards
			mark(t, w, 2*n, 1, -1, Old)         // what lies behind it
			mark(t, w, 4*n, 4*n, 1, Fresh)      // one window ahead
			mark(t, w, 4*n-1, 3*n+1, -1, Fresh) // backwards into it
			mark(t, w, 3*n+1, 4*n, 1, Seen)

			w = newWindow(t, size, false, 0)
			mark(t, w, n, 1, -1, Fresh) // the first window backwards
			mark(t, w, 1, n, 1, Seen)

			w = newWindow(t, size, false, 0)
			mark(t, w, 2, 10*n, 2, Fresh)            // every other one
			mark(t, w, 10*n-1, (9*n+1)|1, -2, Fresh) // the gaps that are inside
			mark(t, w, 9*n-1, 9*n-1, 1, Old)         // and one that is not
			mark(t, w, 9*n+1, 10*n, 1, Seen)

			w = newWindow(t, size, false, 0)
			mark(t, w, 1, n, 1, Fresh)
			for edge := 2*n - 1; edge < 20*n; edge += n - 1 { // sliding by a window less one
				mark(t, w, edge, edge, 1, Fresh)
				mark(t, w, edge-n+1, edge-n+1, 1, Seen) // the edge before
				mark(t, w, edge-n, edge-n, 1, Old)
				mark(t, w, edge-1, edge-n+2, -1, Fresh)
			}
		})
	}
}

// However far the edge jumps, no bit of the past stays in the ring.
func TestJumpsLeaveNothingBehind(t *testing.T) {
	for _, size := range []int{32, 64, 100, 4096} {
		n := uint64(size)
		for _, jump := range []uint64{1, 31, 63, 64, 65, n - 1, n, n + 1, 2 * n, 4 * n, 1 << 16, 1<<32 + 1, 1 << 40} {
			w := newWindow(t, size, true, 0)
			mark(t, w, 1, 2*n, 1, Fresh)
			edge := 2*n + jump
			mark(t, w, edge, edge, 1, Fresh)
			for seq := edge - n + 1; seq < edge; seq++ {
				want := Fresh
				if seq <= 2*n {
					want = Seen
				}
				if got := w.Check(seq); got != want {
					t.Fatalf("W=%d, jump %d: Check(%d): expected %s, seen %s", size, jump, seq, want, got)
				}
			}
		}
	}
}

func TestWindowDoesNotAllocate(t *testing.T) {
	w := newWindow(t, 4096, true, 1<<32-100)
	seq := w.Edge()
	allocs := testing.AllocsPerRun(1000, func() {
		seq += 3
		full := w.Infer(uint32(seq))
		w.Check(full)
		w.Mark(full)
		w.Mark(full - 1)
		w.AuthFailed()
	})
	if allocs != 0 {
		t.Errorf("allocations per run: expected 0, seen %v", allocs)
	}
	if w.Edge() != seq {
		t.Errorf("edge: expected %#x, seen %#x", seq, w.Edge())
	}
}

// SkipTo is the same as marking every number up to the edge.
func TestSkipToIsMarkingEveryNumber(t *testing.T) {
	for _, size := range []int{32, 64, 65, 100, 128} {
		for edge := uint64(1); edge < 400; edge++ {
			marked, skipped := newWindow(t, size, false, 0), newWindow(t, size, false, 0)
			for n := uint64(1); n <= edge; n++ {
				marked.Mark(n)
			}
			skipped.SkipTo(edge)
			skipped.SkipTo(edge - 1) // never back
			for _, ahead := range []uint64{0, 3, 70} {
				if ahead > 0 {
					marked.Mark(edge + ahead)
					skipped.Mark(edge + ahead)
				}
				for n := uint64(0); n < edge+ahead+80; n++ {
					if got, want := skipped.Check(n), marked.Check(n); got != want {
						t.Fatalf("size %d, skipped to %d, then %d ahead: number %d is %v, want %v", size, edge, ahead, n, got, want)
					}
				}
			}
		}
	}
	w := newWindow(t, 64, false, 0)
	w.SkipTo(1 << 40)
	if v := w.Check(1<<32 - 1); w.Edge() != 1<<32-1 || v != Seen {
		t.Errorf("skipped beyond the space: edge %#x, last number %v; want 0xffffffff, seen", w.Edge(), v)
	}
}
