package replay

import (
	"fmt"
	"testing"
)

func BenchmarkInferCheckMark(b *testing.B) {
	for _, size := range []int{64, 4096, MaxSize} {
		b.Run(fmt.Sprintf("W=%d", size), func(b *testing.B) {
			w := newWindow(b, size, true, 0)
			seq := uint64(1<<32 - 1000)
			for b.Loop() {
				seq++
				full := w.Infer(uint32(seq))
				if w.Check(full) != Fresh || w.Mark(full) != Fresh {
					b.Fatalf("%#x refused", seq)
				}
			}
		})
	}
}

func BenchmarkCheckReplay(b *testing.B) {
	w := newWindow(b, 4096, true, 1<<20)
	for b.Loop() {
		if w.Check(1<<20) != Seen {
			b.Fatal("replay accepted")
		}
	}
}

// A forged number far ahead costs no more than clearing the ring, and that only
// when it is authentic.
func BenchmarkJump(b *testing.B) {
	for _, size := range []int{4096, MaxSize} {
		b.Run(fmt.Sprintf("W=%d", size), func(b *testing.B) {
			w := newWindow(b, size, true, 0)
			seq := uint64(0)
			for b.Loop() {
				seq += 1 << 30
				w.Mark(seq)
			}
		})
	}
}
