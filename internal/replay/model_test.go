package replay

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// model is the window as RFC 4303 3.4.3 describes it, on a set of numbers.
type model struct {
	size, last, edge uint64
	seen             map[uint64]struct{}
}

func newModel(size int, esn bool) *model {
	m := &model{size: uint64(size), last: 1<<32 - 1, seen: map[uint64]struct{}{}}
	if esn {
		m.last = 1<<64 - 1
	}
	return m
}

func (m *model) check(seq uint64) Verdict {
	_, seen := m.seen[seq]
	switch {
	case seq == 0:
		return Zero
	case seq > m.last, seq <= m.edge && m.edge-seq >= m.size:
		return Old
	case seen:
		return Seen
	}
	return Fresh
}

func (m *model) mark(seq uint64) Verdict {
	v := m.check(seq)
	if v != Fresh {
		return v
	}
	m.seen[seq] = struct{}{}
	m.edge = max(m.edge, seq)
	if uint64(len(m.seen)) > 4*m.size {
		for s := range m.seen {
			if m.edge-s >= m.size {
				delete(m.seen, s)
			}
		}
	}
	return Fresh
}

// infer is the lowest number not below the window that ends in low; below 0
// there is nothing. It is A2.2 without its cases, in whole numbers.
func (m *model) infer(low uint32) *big.Int {
	full := new(big.Int).SetUint64(m.edge)
	bottom := new(big.Int).Sub(full, new(big.Int).SetUint64(m.size-1))
	subspace := new(big.Int).Lsh(big.NewInt(1), 32)
	full.Rsh(full, 32).Lsh(full, 32).Add(full, big.NewInt(int64(low)))
	for full.Cmp(bottom) >= 0 {
		full.Sub(full, subspace)
	}
	for full.Cmp(bottom) < 0 || full.Sign() < 0 {
		full.Add(full, subspace)
	}
	return full
}

// steps is how many the random walks take; ADIT_REPLAY_STEPS asks for more.
func steps(t *testing.T, normal int) int {
	s := os.Getenv("ADIT_REPLAY_STEPS")
	if s == "" {
		return normal
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("ADIT_REPLAY_STEPS=%q: give a number", s)
	}
	return n
}

// next draws the number of the next packet: in order, reordered, duplicated,
// around the window's bottom, around a wrap, or after a loss.
func next(r *rand.Rand, edge, size uint64) uint64 {
	switch r.IntN(16) {
	case 0, 1, 2, 3, 4, 5:
		return edge + 1
	case 6, 7, 8:
		return edge - r.Uint64N(size)
	case 9:
		return edge - size + r.Uint64N(5) - 2
	case 10:
		return edge - r.Uint64N(3*size)
	case 11:
		return edge + r.Uint64N(2*size)
	case 12:
		return edge + r.Uint64N(70)
	case 13:
		return edge>>32<<32 + r.Uint64N(2*size) - size
	case 14:
		if r.IntN(1000) == 0 {
			return edge + r.Uint64N(1<<31) // a long loss
		}
		return r.Uint64N(size)
	}
	if r.IntN(1000) == 0 {
		return edge | (1<<32 - 1) - r.Uint64N(2*size) // just before the wrap
	}
	return edge
}

// The ring says at every step what the set says: a long walk with reorder,
// duplicates, losses and wraps.
func TestWindowAgainstMap(t *testing.T) {
	const seed = 4303
	for _, esn := range []bool{true, false} {
		for _, size := range []int{32, 33, 64, 100, 1024, 4096} {
			t.Run(fmt.Sprintf("esn=%v/W=%d", esn, size), func(t *testing.T) {
				t.Parallel()
				r := rand.New(rand.NewPCG(seed, uint64(size)))
				w, m := newWindow(t, size, esn, 0), newModel(size, esn)
				for step := range steps(t, 300_000) {
					seq := next(r, m.edge, m.size)
					if got, want := w.Check(seq), m.check(seq); got != want {
						t.Fatalf("step %d, edge %#x: Check(%#x): expected %s, seen %s", step, m.edge, seq, want, got)
					}
					if r.IntN(20) == 0 {
						w.AuthFailed() // forged: must not change anything
						continue
					}
					if got, want := w.Mark(seq), m.mark(seq); got != want {
						t.Fatalf("step %d, edge %#x: Mark(%#x): expected %s, seen %s", step, m.edge, seq, want, got)
					}
					if w.Edge() != m.edge {
						t.Fatalf("step %d: edge: expected %#x, seen %#x", step, m.edge, w.Edge())
					}
					if m.edge == m.last { // the space is at its end: begin again
						w, m = newWindow(t, size, esn, 0), newModel(size, esn)
					}
				}
			})
		}
	}
}

// A receiver that sees only the low halves finds the sender's numbers, over many
// wraps, as long as no packet is later than the window or lost for a subspace.
func TestInferFindsTheSendersNumbers(t *testing.T) {
	for _, size := range []int{32, 100, 4096, MaxSize} {
		r := rand.New(rand.NewPCG(4303, uint64(size)))
		w, m := newWindow(t, size, true, 0), newModel(size, true)
		wraps := uint64(0)
		for step := range steps(t, 200_000) {
			seq := m.edge + 1 + r.Uint64N(1<<24)
			if late := r.Uint64N(uint64(size)); r.IntN(3) == 0 && late < m.edge {
				seq = m.edge - late
			}
			got := w.Infer(uint32(seq))
			if want := m.infer(uint32(seq)); got != seq || !want.IsUint64() || want.Uint64() != seq {
				t.Fatalf("W=%d, step %d, edge %#x: Infer(%#x): expected %#x, seen %#x, reference %#x", size, step, m.edge, uint32(seq), seq, got, want)
			}
			w.Mark(seq)
			m.edge = max(m.edge, seq)
			wraps = m.edge >> 32
		}
		if wraps < 100 {
			t.Errorf("W=%d: the walk passed %d wraps, expected hundreds", size, wraps)
		}
	}
}

// Every number around 2^32 once, each delayed by less than the window: all are
// accepted with ESN, once.
func TestReorderAcrossTheWrap(t *testing.T) {
	for _, size := range []int{32, 100, 4096} {
		r := rand.New(rand.NewPCG(1, uint64(size)))
		var order []uint64
		for seq := uint64(1<<32 - 10_000); seq < 1<<32+10_000; seq++ {
			order = append(order, seq)
		}
		for at := 0; at+size/2 <= len(order); at += size / 2 {
			part := order[at : at+size/2]
			r.Shuffle(len(part), func(i, j int) { part[i], part[j] = part[j], part[i] })
		}
		w := newWindow(t, size, true, 1<<32-10_001)
		for _, seq := range order {
			if full := w.Infer(uint32(seq)); full != seq {
				t.Fatalf("W=%d: Infer(%#x): expected %#x, seen %#x", size, uint32(seq), seq, full)
			}
			if v := w.Mark(seq); v != Fresh {
				t.Fatalf("W=%d: Mark(%#x): expected fresh, seen %s", size, seq, v)
			}
			if v := w.Mark(seq); v != Seen {
				t.Fatalf("W=%d: second Mark(%#x): expected seen, seen %s", size, seq, v)
			}
		}
	}
}
