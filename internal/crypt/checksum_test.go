package crypt

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
)

// reference is RFC 1071 byte by byte.
func reference(b []byte, initial uint16) uint16 {
	sums := references(b)
	return folded(sums[len(b)], initial)
}

// references holds at n the sum of b[:n], unfolded.
func references(b []byte) []uint64 {
	sums := make([]uint64, 1, len(b)+1)
	for i, c := range b {
		word := uint64(c)
		if i%2 == 0 {
			word <<= 8
		}
		sums = append(sums, sums[i]+word)
	}
	return sums
}

func folded(sum uint64, initial uint16) uint16 {
	sum += uint64(initial)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

var initials = []uint16{0, 1, 0x00ff, 0x7fff, 0x8000, 0xfffe, 0xffff, 0x1234}

// fills are the contents that bring carries to their edges, and random ones.
func fills(n int) map[string][]byte {
	random := rand.New(rand.NewPCG(1, uint64(n)))
	list := map[string][]byte{"random": make([]byte, n), "00": make([]byte, n), "ff": make([]byte, n)}
	for i := range n {
		list["random"][i] = byte(random.Uint32())
		list["ff"][i] = 0xff
	}
	return list
}

// TestRFC1071_EveryLengthAtEveryAlignment: 0 to 2048 bytes at 0 to 63 bytes
// behind a 64-byte boundary, by each kernel. The slice is cut from longer
// memory, so that a byte behind it that was added would show.
func TestRFC1071_EveryLengthAtEveryAlignment(t *testing.T) {
	const longest, alignments = 2048, 64
	for name, memory := range fills(longest + alignments + 64) {
		for at := 0; at < alignments; at += sweep {
			sums := references(memory[at : at+longest])
			for n := range longest + 1 {
				b := memory[at : at+n]
				initial := initials[(at+n)%len(initials)]
				want := folded(sums[n], initial)
				for _, k := range Kernels() {
					if got := k.Checksum(b, initial); got != want {
						t.Fatalf("%v: %d bytes of %s at %d, initial %#x: %#x, want %#x", k, n, name, at, initial, got, want)
					}
				}
			}
		}
	}
}

// TestChecksumOfEveryInitial goes over all values where a sum is at its edge.
func TestChecksumOfEveryInitial(t *testing.T) {
	for name, b := range fills(300) {
		for _, n := range []int{0, 1, 2, 8, 64, 128, 191, 256, 300} {
			sums := references(b[:n])
			for initial := range 1 << 16 {
				want := folded(sums[n], uint16(initial))
				for _, k := range Kernels() {
					if got := k.Checksum(b[:n], uint16(initial)); got != want {
						t.Fatalf("%v: %d bytes of %s, initial %#x: %#x, want %#x", k, n, name, initial, got, want)
					}
				}
			}
		}
	}
}

// TestChecksumIsZeroOnlyForZeros: one's complement has two zeros, and the
// meaning of packet.Checksum is that a sum of something is never the first.
func TestChecksumIsZeroOnlyForZeros(t *testing.T) {
	for _, k := range Kernels() {
		for n := 4; n <= 600; n++ {
			b := make([]byte, n)
			if got := k.Checksum(b, 0); got != 0 {
				t.Fatalf("%v: %d zeros: %#x, want 0", k, n, got)
			}
			b[0], b[1], b[n&^1-1] = 0xff, 0xfe, 1
			if got := k.Checksum(b, 0); got != 0xffff {
				t.Fatalf("%v: 0xfffe and 1 in %d bytes: %#x, want 0xffff", k, n, got)
			}
		}
	}
}

// TestChecksumOfLongOnes fills every lane as far as 16 MiB can.
func TestChecksumOfLongOnes(t *testing.T) {
	b := make([]byte, 16<<20+1)
	for i := range b {
		b[i] = 0xff
	}
	want := reference(b, 0xffff)
	for _, k := range Kernels() {
		if got := k.Checksum(b, 0xffff); got != want {
			t.Errorf("%v: %#x, want %#x", k, got, want)
		}
	}
}

func TestChecksumEqualsPackets(t *testing.T) {
	for name, b := range fills(65535) {
		for n := 0; n <= len(b); n += 1 + n/16 {
			for _, initial := range initials {
				if got, want := Checksum(b[:n], initial), packet.Checksum(b[:n], initial); got != want {
					t.Fatalf("%d bytes of %s, initial %#x: %#x, internal/packet: %#x", n, name, initial, got, want)
				}
			}
		}
	}
}

func TestChecksumAllocatesNothing(t *testing.T) {
	b := make([]byte, 1500)
	for _, n := range []int{20, 1408} {
		got := testing.AllocsPerRun(100, func() {
			var local [64]byte // must stay on the stack
			local[n%64] = byte(n)
			Checksum(b[:n], Checksum(local[:], 0))
		})
		if got != 0 {
			t.Errorf("%d bytes: %v allocations, want 0", n, got)
		}
	}
}

func TestKernelsBeginWithPlainAndEndWithTheChosen(t *testing.T) {
	list := Kernels()
	if list[0] != Plain || chosen != list[len(list)-1] {
		t.Errorf("kernels %v, chosen %v; want plain first and the last one chosen", list, chosen)
	}
	for i, k := range list {
		if k.String() == "unknown" || i > 0 && k <= list[i-1] {
			t.Errorf("kernels %v: want names, each once, in the order of width", list)
		}
	}
}

var sink uint16

// BenchmarkChecksum compares each kernel with what internal/packet has.
func BenchmarkChecksum(b *testing.B) {
	data := fills(65535)["random"]
	for _, n := range []int{20, 40, 64, 128, 576, 1408, 9000, 65535} {
		run := func(name string, sum func([]byte, uint16) uint16) {
			b.Run(fmt.Sprintf("%d/%s", n, name), func(b *testing.B) {
				b.SetBytes(int64(n))
				for b.Loop() {
					sink = sum(data[:n], 0)
				}
			})
		}
		run("packet", packet.Checksum)
		for _, k := range Kernels() {
			run(k.String(), k.Checksum)
		}
		run("chosen", Checksum)
	}
}
