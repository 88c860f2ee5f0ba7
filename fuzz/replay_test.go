package fuzz

import (
	"math/big"
	"testing"

	"github.com/adit-ipsec/adit/internal/replay"
)

// replayModel is an anti-replay window on a set of 64-bit numbers: RFC 4303 3.4.3
// without a ring.
type replayModel struct {
	size, last, edge uint64
	seen             map[uint64]bool
}

func (m *replayModel) check(seq uint64) replay.Verdict {
	switch {
	case seq == 0:
		return replay.Zero
	case seq > m.last, seq <= m.edge && m.edge-seq >= m.size:
		return replay.Old
	case m.seen[seq]:
		return replay.Seen
	}
	return replay.Fresh
}

func (m *replayModel) mark(seq uint64) replay.Verdict {
	v := m.check(seq)
	if v == replay.Fresh {
		m.seen[seq] = true
		m.edge = max(m.edge, seq)
	}
	return v
}

// FuzzReplayAgainstMap holds the window equal to the model. Property: after any
// steps, Check and Mark give the model's verdict for every number, Check and
// AuthFailed change nothing, and the edge is the highest number accepted.
//
// Input: size, then the first edge, then steps of an operation byte and an
// operand: numbers near the edge, near the bottom, near a wrap, or anywhere.
func FuzzReplayAgainstMap(f *testing.F) {
	f.Add(uint32(64), true, uint64(0), []byte{0, 1, 0, 1, 1, 3, 0, 1})
	f.Add(uint32(33), true, uint64(1<<32-3), []byte{0, 5, 1, 4, 1, 4, 2, 0, 2, 1, 3, 1, 4, 200, 5, 9})
	f.Add(uint32(4096), false, uint64(1<<32-2), []byte{0, 1, 0, 1, 0, 1, 6, 0, 1, 0})
	f.Add(uint32(1000), true, uint64(1<<64-2), []byte{0, 1, 0, 1, 0, 255, 2, 0, 1, 7})
	f.Fuzz(func(t *testing.T, size uint32, esn bool, edge uint64, steps []byte) {
		w, err := replay.New(int(size), esn)
		if (err == nil) != (size >= replay.MinSize && size <= replay.MaxSize) {
			t.Fatalf("New(%d): %v", size, err)
		}
		if err != nil {
			return
		}
		m := &replayModel{size: uint64(size), last: 1<<32 - 1, seen: map[uint64]bool{}}
		if esn {
			m.last = 1<<64 - 1
		}
		if got, want := w.Mark(edge), m.mark(edge); got != want {
			t.Fatalf("first Mark(%#x): expected %s, seen %s", edge, want, got)
		}
		for at := 0; at+2 <= len(steps); at += 2 {
			seq := replayStep(steps[at], uint64(steps[at+1]), m)
			if got, want := w.Check(seq), m.check(seq); got != want {
				t.Fatalf("step %d, edge %#x: Check(%#x): expected %s, seen %s", at/2, m.edge, seq, want, got)
			}
			if steps[at]&0x80 != 0 {
				w.AuthFailed()
			} else if got, want := w.Mark(seq), m.mark(seq); got != want {
				t.Fatalf("step %d, edge %#x: Mark(%#x): expected %s, seen %s", at/2, m.edge, seq, want, got)
			}
			if w.Edge() != m.edge {
				t.Fatalf("step %d: edge: expected %#x, seen %#x", at/2, m.edge, w.Edge())
			}
		}
	})
}

// replayStep is the number that a step asks about. All arithmetic wraps.
func replayStep(op byte, x uint64, m *replayModel) uint64 {
	switch op & 0x7f % 9 {
	case 0:
		return m.edge + x
	case 1:
		return m.edge - x
	case 2:
		return m.edge - m.size + x - 128
	case 3:
		return m.edge>>32<<32 + x - 128
	case 4:
		return m.edge + x*m.size/64
	case 5:
		return m.edge - x*m.size/128
	case 6:
		return x
	case 7:
		return m.edge + x<<26
	}
	return m.edge | (1<<32 - 1) - x
}

// FuzzESNInference holds Infer to RFC 4303 A2.2 said in whole numbers. Property:
// the number inferred is the lowest one not below the window, and not below 0,
// that ends in the low half; behind the last number of the 64-bit space it is one
// that is refused. Without ESN it is the low half. Inference changes nothing.
func FuzzESNInference(f *testing.F) {
	f.Add(uint32(64), true, uint64(0), uint32(1))
	f.Add(uint32(64), true, uint64(5), uint32(0xffffffff))
	f.Add(uint32(4096), true, uint64(1<<32+100), uint32(0xffffff00))
	f.Add(uint32(4096), true, uint64(7<<32|4095), uint32(0))
	f.Add(uint32(33), true, uint64(1<<64-1), uint32(3))
	f.Add(uint32(100), false, uint64(1<<32-1), uint32(7))
	f.Fuzz(func(t *testing.T, size uint32, esn bool, edge uint64, low uint32) {
		w, err := replay.New(int(size), esn)
		if err != nil {
			return
		}
		w.Mark(edge)
		edge = w.Edge()
		got := w.Infer(low)
		if w.Edge() != edge || w.Infer(low) != got {
			t.Fatalf("W=%d, edge %#x: Infer(%#x) changed the window", size, edge, low)
		}
		if uint32(got) != low {
			t.Fatalf("W=%d, edge %#x: Infer(%#x): %#x ends otherwise", size, edge, low, got)
		}
		if !esn {
			if got != uint64(low) {
				t.Fatalf("no ESN: Infer(%#x): seen %#x", low, got)
			}
			return
		}
		want := lowestNotBelow(edge, size, low)
		if !want.IsUint64() {
			if v := w.Check(got); v != replay.Old && v != replay.Zero {
				t.Fatalf("W=%d, edge %#x: Infer(%#x) = %#x beyond the space: %s", size, edge, low, got, v)
			}
			return
		}
		if got != want.Uint64() {
			t.Fatalf("W=%d, edge %#x: Infer(%#x): expected %#x, seen %#x", size, edge, low, want, got)
		}
	})
}

// lowestNotBelow is the lowest number n >= max(0, edge-size+1) with n = low modulo
// 2^32.
func lowestNotBelow(edge uint64, size, low uint32) *big.Int {
	bottom := new(big.Int).SetUint64(edge)
	bottom.Sub(bottom, big.NewInt(int64(size)-1))
	if bottom.Sign() < 0 {
		bottom.SetInt64(0)
	}
	subspace := new(big.Int).Lsh(big.NewInt(1), 32)
	gap := new(big.Int).Sub(big.NewInt(int64(low)), bottom)
	gap.Mod(gap, subspace) // 0..2^32-1, also for a negative difference
	return bottom.Add(bottom, gap)
}
