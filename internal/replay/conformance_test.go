package replay

import (
	"fmt"
	"math"
	"testing"
)

// sizes are those of the catalogue, and some that are no power of two.
var sizes = []int{32, 33, 64, 100, 128, 1000, 1024, 4096, MaxSize - 1, MaxSize}

// newWindow makes a window whose edge is at edge; nothing but edge is marked.
func newWindow(t testing.TB, size int, esn bool, edge uint64) *Window {
	t.Helper()
	w, err := New(size, esn)
	if err != nil {
		t.Fatalf("New(%d, %v): %v", size, esn, err)
	}
	if edge > 0 {
		if v := w.Mark(edge); v != Fresh {
			t.Fatalf("Mark(%#x) on an empty window: expected fresh, seen %s", edge, v)
		}
	}
	return w
}

// region is one part of the number line of RFC 4303 figures 1 and 2.
type region struct {
	name string
	low  uint32
	full uint64 // what Infer must say
	want Verdict
}

// verify checks every region against its own window: Infer, Check, that Check
// changed nothing, Mark, and the edge behind it.
func verify(t *testing.T, build func() *Window, regions []region) {
	t.Helper()
	for _, r := range regions {
		w := build()
		edge := w.Edge()
		if got := w.Infer(r.low); got != r.full {
			t.Errorf("region %s: Infer(%#x): expected %#x, seen %#x", r.name, r.low, r.full, got)
			continue
		}
		for range 2 {
			if got := w.Check(r.full); got != r.want {
				t.Errorf("region %s: Check(%#x): expected %s, seen %s", r.name, r.full, r.want, got)
			}
		}
		if w.Edge() != edge {
			t.Errorf("region %s: Check moved the edge: expected %#x, seen %#x", r.name, edge, w.Edge())
		}
		if got := w.Mark(r.full); got != r.want {
			t.Errorf("region %s: Mark(%#x): expected %s, seen %s", r.name, r.full, r.want, got)
		}
		if r.want == Fresh {
			edge = max(edge, r.full)
			if got := w.Check(r.full); got != Seen {
				t.Errorf("region %s: Check(%#x) after Mark: expected seen, seen %s", r.name, r.full, got)
			}
		}
		if w.Edge() != edge {
			t.Errorf("region %s: edge after Mark: expected %#x, seen %#x", r.name, edge, w.Edge())
		}
	}
}

func TestCR01_CaseA_ESN(t *testing.T) {
	const subspace = 1 << 32
	for _, size := range sizes {
		for _, th := range []uint64{0, 1, 7, math.MaxUint32 - 1} {
			// Tl at its least, where the window just fits the subspace,
			// one above, and well inside.
			for _, tl := range []uint32{uint32(size) - 1, uint32(size), 3<<30 + 5} {
				edge := th<<32 | uint64(tl)
				bl := tl - uint32(size) + 1
				mid := bl + uint32(size)/2
				build := func() *Window {
					w := newWindow(t, size, true, edge)
					w.Mark(edge - 3)
					return w
				}
				regions := []region{
					{"e: inside, not seen", mid, th<<32 | uint64(mid), Fresh},
					{"f: inside, seen", tl - 3, edge - 3, Seen},
					{"g: the edge", tl, edge, Seen},
					{"h: one ahead", tl + 1, edge + 1, Fresh},
					{"i: the last of the subspace", math.MaxUint32, th<<32 | math.MaxUint32, Fresh},
				}
				if bl > 0 {
					regions = append(regions,
						region{"a: the first of the next subspace", 0, (th + 1) << 32, Fresh},
						region{"b: in the next subspace", bl / 2, (th+1)<<32 | uint64(bl/2), Fresh},
						region{"c: one below the window is the next subspace", bl - 1, edge - uint64(size) + subspace, Fresh},
					)
				}
				if edge >= uint64(size) {
					regions = append(regions, region{"d: the bottom", bl, edge - uint64(size) + 1, Fresh})
				} else {
					// The bottom of the first window is number 0.
					regions = append(regions, region{"d: the bottom is 0", 0, 0, Zero})
				}
				t.Run(fmt.Sprintf("W=%d/T=%#x", size, edge), func(t *testing.T) { verify(t, build, regions) })
			}
		}
	}
}

func TestCR02_CaseB_ESN(t *testing.T) {
	for _, size := range sizes {
		for _, th := range []uint64{1, 2, math.MaxUint32} {
			for _, tl := range []uint32{0, 5, uint32(size) / 2, uint32(size) - 2} {
				edge := th<<32 | uint64(tl)
				bl := tl - uint32(size) + 1 // modulo 2^32: above Tl
				build := func() *Window {
					w := newWindow(t, size, true, edge)
					w.Mark(edge - uint64(tl) - 1) // the last of the subspace below
					return w
				}
				regions := []region{
					{"c: the edge", tl, edge, Seen},
					{"d: one ahead", tl + 1, edge + 1, Fresh},
					{"e: ahead, same subspace", 1 << 31, th<<32 | 1<<31, Fresh},
					{"f: one below the window is ahead", bl - 1, th<<32 | uint64(bl-1), Fresh},
					{"h: the subspace below, seen", math.MaxUint32, (th-1)<<32 | math.MaxUint32, Seen},
				}
				if tl > 0 {
					regions = append(regions, region{"a: the first of the subspace", 0, th << 32, Fresh})
				}
				if tl > 1 {
					regions = append(regions, region{"b: inside, this subspace", tl / 2, th<<32 | uint64(tl/2), Fresh})
				}
				if bl < math.MaxUint32 {
					regions = append(regions, region{"g: the bottom, the subspace below", bl, edge - uint64(size) + 1, Fresh})
				}
				t.Run(fmt.Sprintf("W=%d/T=%#x", size, edge), func(t *testing.T) { verify(t, build, regions) })
			}
		}
	}
}

func TestCR03_NoESN(t *testing.T) {
	for _, size := range sizes {
		w := uint64(size)
		t.Run(fmt.Sprintf("W=%d/case A", size), func(t *testing.T) {
			for _, edge := range []uint64{w + 10, 1 << 31, math.MaxUint32 - 1} {
				bottom := edge - w + 1
				verify(t, func() *Window { return newWindow(t, size, false, edge) }, []region{
					{"a: one behind the window", uint32(bottom - 1), bottom - 1, Old},
					{"a: far behind", 1, 1, Old},
					{"b: the bottom", uint32(bottom), bottom, Fresh},
					{"b: inside", uint32(edge - w/2), edge - w/2, Fresh},
					{"b: the edge", uint32(edge), edge, Seen},
					{"c: one ahead", uint32(edge + 1), edge + 1, Fresh},
					{"c: the end of the space", math.MaxUint32, math.MaxUint32, Fresh},
				})
			}
		})
		t.Run(fmt.Sprintf("W=%d/case B", size), func(t *testing.T) {
			for _, edge := range []uint64{2, w / 2, w - 2} {
				verify(t, func() *Window { return newWindow(t, size, false, edge) }, []region{
					{"a: inside", 1, 1, Fresh},
					{"a: the edge", uint32(edge), edge, Seen},
					{"b: one ahead", uint32(edge + 1), edge + 1, Fresh},
					{"b: would be below 1 with ESN", math.MaxUint32 - 2, math.MaxUint32 - 2, Fresh},
				})
			}
		})
	}
}

// The first window of an SA reaches below 1. There is no subspace below the
// first, so a high number can only be ahead.
func TestRFC4303_A2_2_FirstWindowHasNoNegativeSubspace(t *testing.T) {
	for _, size := range sizes {
		for _, edge := range []uint64{0, 1, uint64(size) / 2, uint64(size) - 2} {
			verify(t, func() *Window { return newWindow(t, size, true, edge) }, []region{
				{"the end of the first subspace", math.MaxUint32, math.MaxUint32, Fresh},
				{"one below the window, modulo 2^32", uint32(edge) - uint32(size), uint64(uint32(edge) - uint32(size)), Fresh},
				{"the bottom, modulo 2^32", uint32(edge) - uint32(size) + 1, uint64(uint32(edge) - uint32(size) + 1), Fresh},
				{"one ahead", uint32(edge) + 1, edge + 1, Fresh},
			})
		}
	}
}

func TestCR08_ZeroIsRefused(t *testing.T) {
	for _, esn := range []bool{false, true} {
		for _, edge := range []uint64{0, 1, 31, 32, 5000} {
			w := newWindow(t, 64, esn, edge)
			if got := w.Check(0); got != Zero {
				t.Errorf("esn %v, edge %d: Check(0): expected zero, seen %s", esn, edge, got)
			}
			if got := w.Mark(0); got != Zero {
				t.Errorf("esn %v, edge %d: Mark(0): expected zero, seen %s", esn, edge, got)
			}
			if w.Edge() != edge {
				t.Errorf("esn %v: edge after Mark(0): expected %d, seen %d", esn, edge, w.Edge())
			}
		}
	}
	// The low half may be 0 in any later subspace.
	w := newWindow(t, 64, true, math.MaxUint32)
	if full := w.Infer(0); full != 1<<32 || w.Mark(full) != Fresh {
		t.Errorf("Infer(0) behind 2^32-1: expected 0x100000000 and fresh, seen %#x", full)
	}
}

func TestCR09_ESNWrap(t *testing.T) {
	for _, size := range sizes {
		t.Run(fmt.Sprintf("W=%d", size), func(t *testing.T) {
			const wrap = 1 << 32
			w := newWindow(t, size, true, wrap-3)
			steps := []region{
				{"forward over the wrap", 2, wrap + 2, Fresh},
				{"late, of the old subspace", math.MaxUint32, wrap - 1, Fresh},
				{"the same again", math.MaxUint32, wrap - 1, Seen},
				{"late, of the new subspace", 0, wrap, Fresh},
				{"seen before the wrap", wrap - 3, wrap - 3, Seen},
				{"on", 3, wrap + 3, Fresh},
				{"the last late one", wrap - 2, wrap - 2, Fresh},
			}
			for _, s := range steps {
				if full := w.Infer(s.low); full != s.full {
					t.Fatalf("%s: Infer(%#x): expected %#x, seen %#x", s.name, s.low, s.full, full)
				}
				if got := w.Mark(s.full); got != s.want {
					t.Fatalf("%s: Mark(%#x): expected %s, seen %s", s.name, s.full, s.want, got)
				}
			}
			// A second wrap needs 2^32 numbers to pass: what is behind the
			// window now is a guess two subspaces up, never accepted as old.
			behind := uint32(wrap + 3 - uint64(size))
			if full := w.Infer(behind); full>>32 == 0 {
				t.Errorf("Infer(%#x) behind the window: seen %#x of the old subspace", behind, full)
			}
			if got := w.Mark(wrap + 3 - uint64(size)); got != Old {
				t.Errorf("one behind the window: expected old, seen %s", got)
			}
		})
	}
}

// The 64-bit space ends: nothing comes behind its last number, and the guess one
// subspace up wraps to numbers long gone, which are refused.
func TestCR09_DoubleWrapIsRefused(t *testing.T) {
	for _, size := range sizes {
		w := newWindow(t, size, true, math.MaxUint64)
		for _, low := range []uint32{0, 1, 1 << 31, uint32(1<<32 - size - 1)} {
			full := w.Infer(low)
			if got := w.Mark(full); got != Old && got != Zero {
				t.Errorf("W=%d: Infer(%#x) = %#x after the last number: expected old or zero, seen %s", size, low, full, got)
			}
		}
		if got := w.Mark(math.MaxUint64 - 1); got != Fresh {
			t.Errorf("W=%d: late packet at the end of the space: expected fresh, seen %s", size, got)
		}
		if w.Edge() != math.MaxUint64 {
			t.Errorf("W=%d: edge: expected the last number, seen %#x", size, w.Edge())
		}
	}
}

// Without ESN the space ends at 2^32-1: nothing wraps, and no caller can push the
// window above it.
func TestNoESN_SpaceEndsAt32Bits(t *testing.T) {
	w := newWindow(t, 64, false, math.MaxUint32)
	for _, low := range []uint32{0, 1, 2, 1 << 31} {
		full := w.Infer(low)
		if full != uint64(low) {
			t.Errorf("Infer(%#x): expected it as it is, seen %#x", low, full)
		}
		if got := w.Mark(full); got != Old && got != Zero {
			t.Errorf("Mark(%#x) after the last number: expected old or zero, seen %s", full, got)
		}
	}
	if got := w.Mark(1 << 32); got != Old {
		t.Errorf("Mark(2^32): expected old, seen %s", got)
	}
	if w.Edge() != math.MaxUint32 {
		t.Errorf("edge: expected %#x, seen %#x", uint64(math.MaxUint32), w.Edge())
	}
}
