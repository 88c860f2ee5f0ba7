package esp

import (
	"bytes"
	"fmt"
	"testing"
)

// benchSuites are the suites whose speed is looked at; the others differ from
// one of them by a key length only.
var benchSuites = []string{
	"aes128gcm16", "aes256gcm16", "aes128gcm8", "chacha20poly1305",
	"aes128-sha256", "aes256-sha512", "aes128ctr-sha256", "aes128ccm16",
	"null-sha256", "null-sha1", "aes128gmac",
}

// batchLen is the number of packets a benchmarked call takes.
const batchLen = 8

func benchTransform(b *testing.B, name string, esn bool) *Transform {
	s, err := ParseSuite(name)
	if err != nil {
		b.Fatal(err)
	}
	encryption, integrity := s.KeyLen()
	t, err := New(s, bytes.Repeat([]byte{7}, encryption), bytes.Repeat([]byte{9}, integrity), esn)
	if err != nil {
		b.Fatal(err)
	}
	return t
}

// benchBatch returns n packets whose payload of size bytes lies at its place.
func benchBatch(t *Transform, n, size int) []Packet {
	batch := make([]Packet, n)
	start := HeaderLen + t.Suite().IVLen()
	for i := range batch {
		wire := make([]byte, t.Suite().SealedLen(size))
		batch[i] = Packet{NextHeader: 4, Wire: wire, Payload: wire[start : start+size]}
	}
	return batch
}

// BenchmarkSeal: one operation is one packet, sealed in place in a batch of 8.
func BenchmarkSeal(b *testing.B) {
	for _, name := range benchSuites {
		for _, size := range []int{64, 1408} {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				t := benchTransform(b, name, true)
				sc := NewScratch()
				batch := benchBatch(t, batchLen, size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.ResetTimer()
				seq := uint64(0)
				for i := 0; i < b.N; i += batchLen {
					for k := range batch {
						seq++
						batch[k].Seq = seq
					}
					t.Seal(sc, 0x1001, batch)
				}
				if batch[0].Err != nil {
					b.Fatal(batch[0].Err)
				}
			})
		}
	}
}

// BenchmarkOpen: one operation is one packet, opened in place in a batch of 8.
// It includes copying the packet back, as the text is decrypted in place.
func BenchmarkOpen(b *testing.B) {
	for _, name := range benchSuites {
		for _, size := range []int{64, 1408} {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				t := benchTransform(b, name, true)
				sc := NewScratch()
				batch := benchBatch(t, batchLen, size)
				sealed := make([][]byte, batchLen)
				for k := range batch {
					batch[k].Seq = uint64(k + 1)
				}
				t.Seal(sc, 0x1001, batch)
				for k := range batch {
					sealed[k] = bytes.Clone(batch[k].Wire)
				}
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.ResetTimer()
				for i := 0; i < b.N; i += batchLen {
					for k := range batch {
						copy(batch[k].Wire, sealed[k])
					}
					t.Open(sc, batch)
				}
				if batch[0].Err != nil {
					b.Fatal(batch[0].Err)
				}
			})
		}
	}
}

// BenchmarkCTRThreshold shows from which length on GCM is the faster way to
// counter mode's keystream; shortestByGCM comes from here.
func BenchmarkCTRThreshold(b *testing.B) {
	for _, size := range []int{64, 96, 128, 192, 256, 1408} {
		text := make([]byte, size)
		sc := NewScratch()
		c := benchTransform(b, "aes128ctr-sha256", false).codec.(*hmacCodec).text.(*ctrCipher).stream
		b.Run(fmt.Sprintf("blocks/%d", size), func(b *testing.B) {
			for b.Loop() {
				c.xorBlocks(sc, text, text, 1)
			}
		})
		b.Run(fmt.Sprintf("gcm/%d", size), func(b *testing.B) {
			for b.Loop() {
				c.xorByGCM(sc, text, text)
			}
		})
	}
}
