package crypt

import (
	"bytes"
	"fmt"
	"testing"
)

// TestCopyOfEveryLengthAtEveryAlignment: the sum is Checksum's, the copy is
// whole, and no byte around it changes. The source's place runs through 0 to
// 63 while the destination's takes another one each time.
func TestCopyOfEveryLengthAtEveryAlignment(t *testing.T) {
	const longest, alignments = 2048, 64
	dst := make([]byte, longest+alignments+64)
	canary := bytes.Repeat([]byte{0xa5}, len(dst))
	for name, memory := range fills(longest + alignments + 64) {
		for from := 0; from < alignments; from += sweep {
			sums := references(memory[from : from+longest])
			for n := range longest + 1 {
				src := memory[from : from+n]
				initial, to := initials[(from+n)%len(initials)], (from*7+n*5)%alignments
				want := folded(sums[n], initial)
				for _, k := range Kernels() {
					copy(dst, canary)
					if got := k.Copy(dst[to:], src, initial); got != want {
						t.Fatalf("%v: %d bytes of %s from %d to %d: sum %#x, want %#x", k, n, name, from, to, got, want)
					}
					if !bytes.Equal(dst[to:to+n], src) {
						t.Fatalf("%v: %d bytes of %s from %d to %d: the copy differs", k, n, name, from, to)
					}
					if !bytes.Equal(dst[:to], canary[:to]) || !bytes.Equal(dst[to+n:], canary[to+n:]) {
						t.Fatalf("%v: %d bytes of %s from %d to %d: written outside", k, n, name, from, to)
					}
				}
			}
		}
	}
}

func TestCopyOntoItself(t *testing.T) {
	for _, k := range Kernels() {
		for n := range 600 {
			b := fills(n)["random"]
			before := bytes.Clone(b)
			if got, want := k.Copy(b, b, 7), reference(before, 7); got != want || !bytes.Equal(b, before) {
				t.Fatalf("%v: %d bytes: sum %#x, want %#x; bytes unchanged: %v", k, n, got, want, bytes.Equal(b, before))
			}
		}
	}
}

func TestCopyPanicsWhereTheDestinationIsShort(t *testing.T) {
	for _, k := range Kernels() {
		for _, n := range []int{1, 127, 128, 1408} {
			func() {
				memory := make([]byte, 2*n)
				defer func() {
					if recover() == nil {
						t.Errorf("%v: %d bytes into %d: no panic", k, n, n-1)
					}
				}()
				k.Copy(memory[:n-1:n-1], memory[n:], 0)
			}()
		}
	}
}

func TestCopyAllocatesNothing(t *testing.T) {
	src := make([]byte, 1408)
	got := testing.AllocsPerRun(100, func() {
		var local [1408]byte // must stay on the stack
		Copy(local[:], src, 0)
	})
	if got != 0 {
		t.Errorf("%v allocations, want 0", got)
	}
}

// BenchmarkCopy compares each kernel with copy and Checksum one after the
// other: warm, over the same bytes, and cold, over 32 MiB in turn.
func BenchmarkCopy(b *testing.B) {
	const big = 32 << 20
	src, dst := make([]byte, big), make([]byte, big)
	for i := range src {
		src[i], dst[i] = byte(i*7), 1
	}
	for _, n := range []int{64, 128, 576, 1408, 9000, 65535} {
		for _, place := range []struct {
			name  string
			bytes int
		}{{"warm", n}, {"cold", big}} {
			run := func(name string, f func(dst, src []byte, initial uint16) uint16) {
				b.Run(fmt.Sprintf("%s/%d/%s", place.name, n, name), func(b *testing.B) {
					b.SetBytes(int64(n))
					at := 0
					for b.Loop() {
						if at+n > place.bytes {
							at = 0
						}
						sink = f(dst[at:at+n], src[at:at+n], 0)
						at += n
					}
				})
			}
			run("apart", func(dst, src []byte, initial uint16) uint16 {
				copy(dst, src)
				return Checksum(dst, initial)
			})
			for _, k := range Kernels() {
				run(k.String(), k.Copy)
			}
			run("chosen", Copy)
		}
	}
}
