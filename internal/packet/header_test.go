package packet

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
)

// plainChecksum is RFC 1071 word by word.
func plainChecksum(b []byte, initial uint16) uint16 {
	sum := uint64(initial)
	for i := 0; i < len(b); i += 2 {
		word := uint64(b[i]) << 8
		if i+1 < len(b) {
			word |= uint64(b[i+1])
		}
		sum += word
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func TestRFC1071_ChecksumEqualsThePlainOne(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for n := range 200 {
		for _, fill := range []string{"random", "00", "ff"} {
			b := make([]byte, n)
			for i := range b {
				switch fill {
				case "random":
					b[i] = byte(random.Uint32())
				case "ff":
					b[i] = 0xff
				}
			}
			for _, initial := range []uint16{0, 1, 0x7fff, 0x8000, 0xfffe, 0xffff, uint16(random.Uint32())} {
				if got, want := Checksum(b, initial), plainChecksum(b, initial); got != want {
					t.Fatalf("%d bytes of %s, initial %#x: %#x, want %#x", n, fill, initial, got, want)
				}
			}
		}
	}
	// RFC 1071 section 3 gives this sum.
	if got := Checksum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}, 0); got != 0xddf2 {
		t.Errorf("RFC 1071's example: %#x, want 0xddf2", got)
	}
}

// TestChecksumOfEveryInitial samples one value in 13, which takes in every
// carry, over a buffer whose sum is at the edge.
func TestChecksumOfEveryInitial(t *testing.T) {
	for _, b := range [][]byte{nil, {0xff, 0xff}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, {1, 2, 3, 4, 5, 6, 7, 8, 9}} {
		for initial := 0; initial <= 0xffff; initial += 13 {
			if got, want := Checksum(b, uint16(initial)), plainChecksum(b, uint16(initial)); got != want {
				t.Fatalf("%x, initial %#x: %#x, want %#x", b, initial, got, want)
			}
		}
	}
}

func TestChecksumChainsOverEvenPieces(t *testing.T) {
	b := make([]byte, 97)
	for i := range b {
		b[i] = byte(i * 37)
	}
	for at := 0; at < len(b); at += 2 {
		if got, want := Checksum(b[at:], Checksum(b[:at], 0)), Checksum(b, 0); got != want {
			t.Fatalf("cut at %d: %#x, want %#x", at, got, want)
		}
	}
}

// TestPseudoChecksumEqualsThePlainOne writes the pseudo headers out.
func TestPseudoChecksumEqualsThePlainOne(t *testing.T) {
	for _, in := range [][]byte{ipv4(ProtoUDP, 0, 0, ports(1, 2, 9)), ipv6(ProtoTCP, tcp(20, 0))} {
		var h Header
		var f Flow
		if err := Parse(in, &h, &f); err != nil {
			t.Fatal(err)
		}
		pseudo := append(f.SrcAddr().AsSlice(), f.DstAddr().AsSlice()...)
		length := h.TotalLen - h.TransportOffset
		if h.Version == 4 {
			pseudo = append(pseudo, 0, f.Protocol)
			pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(length))
		} else {
			pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(length))
			pseudo = append(pseudo, 0, 0, 0, f.Protocol)
		}
		if got, want := PseudoChecksum(&f, f.Protocol, length), plainChecksum(pseudo, 0); got != want {
			t.Errorf("IPv%d: %#x, want %#x", h.Version, got, want)
		}
	}
}

// TestSetECNKeepsEverythingElse sets each codepoint over each traffic class,
// with identifications that bring the checksum to its edges.
func TestSetECNKeepsEverythingElse(t *testing.T) {
	for class := range 256 {
		for ecn := range uint8(4) {
			for _, id := range []uint16{0, 1, 0x1234, 0xfffe, 0xffff} {
				b := ipv4(ProtoUDP, 4, 0, ports(1, 2, 8))
				b[1] = byte(class)
				binary.BigEndian.PutUint16(b[4:], id)
				b[10], b[11] = 0, 0
				binary.BigEndian.PutUint16(b[10:], ^Checksum(b[:24], 0))
				expect := append([]byte(nil), b...)
				expect[1] = byte(class)&0xfc | ecn
				SetECN(b, ecn)
				if sum := plainChecksum(b[:24], 0); sum != 0xffff {
					t.Fatalf("class %#x, ECN %d, id %#x: header adds to %#x, want 0xffff", class, ecn, id, sum)
				}
				copy(expect[10:12], b[10:12])
				if string(b) != string(expect) {
					t.Fatalf("class %#x, ECN %d: %x, want %x", class, ecn, b, expect)
				}
			}
			b := ipv6(ProtoUDP, ports(1, 2, 8))
			b[0], b[1], b[2] = 0x60|byte(class>>4), byte(class<<4)|0x0d, 0xef // flow label 0xdef..
			expect := append([]byte(nil), b...)
			expect[1] = expect[1]&0xcf | ecn<<4
			SetECN(b, ecn)
			if string(b) != string(expect) {
				t.Fatalf("IPv6 class %#x, ECN %d: %x, want %x", class, ecn, b, expect)
			}
			var h Header
			var f Flow
			if err := Parse(b, &h, &f); err != nil || h.TrafficClass != byte(class)&0xfc|ecn {
				t.Fatalf("IPv6 class %#x, ECN %d: %v, class %#x", class, ecn, err, h.TrafficClass)
			}
		}
	}
}

// TestSetECNKeepsABrokenChecksumBroken: the receiver shall see the damage.
func TestSetECNKeepsABrokenChecksumBroken(t *testing.T) {
	b := ipv4(ProtoUDP, 0, 0, ports(1, 2, 8))
	b[11] ^= 0x40
	SetECN(b, NotECT)
	if sum := plainChecksum(b[:20], 0); sum == 0xffff {
		t.Error("a wrong header checksum became right")
	}
}

func TestHeaderWorkAllocatesNothing(t *testing.T) {
	b := ipv4(ProtoUDP, 0, 0, ports(1, 2, 1400))
	f := Flow{Version: 6}
	sum := uint16(0)
	if n := testing.AllocsPerRun(100, func() {
		SetECN(b, CE)
		sum += Checksum(b, PseudoChecksum(&f, ProtoUDP, len(b)))
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkChecksum(b *testing.B) {
	for _, n := range []int{20, 64, 1408, 65535} {
		b.Run(fmt.Sprintf("bytes=%d", n), func(b *testing.B) {
			in := make([]byte, n)
			b.SetBytes(int64(n))
			sum := uint16(0)
			for b.Loop() {
				sum += Checksum(in, 0)
			}
			_ = sum
		})
	}
}
