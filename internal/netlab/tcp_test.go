package netlab

import (
	"bytes"
	"crypto/sha256"
	"testing"
)

// The receiver finds the byte at which a stream is not what was sent, however
// the stream is cut up on its way.
func TestSinkFindsTheFirstDifference(t *testing.T) {
	o := TransferOptions{Key: [16]byte{1}, Marker: marker}
	sent := make([]byte, 3*noiseLen)
	for src, at := newNoise(o.Key, o.Marker), 0; at < len(sent); at += noiseLen {
		src.fill(sent[at : at+noiseLen])
	}
	short := len(sent) - 1000 // ends inside a block, as most streams do
	for _, at := range []int{-1, 0, 1, 511, noiseLen - 1, noiseLen, noiseLen + 12345, short - 1} {
		read := bytes.Clone(sent[:short])
		if at >= 0 {
			read[at] ^= 0x10
			read[short-1] ^= 1 // not the first, unless it is
		}
		for _, chunk := range []int{1, 1448, noiseLen, 256 << 10} {
			s := newSink(o)
			for rest := read; len(rest) > 0; rest = rest[min(chunk, len(rest)):] {
				if n, err := s.Write(rest[:min(chunk, len(rest))]); n == 0 || err != nil {
					t.Fatal(n, err)
				}
			}
			if at < 0 && s.difference != nil || at >= 0 && (s.difference == nil || s.difference.Offset != int64(at)) {
				t.Errorf("chunks of %d, byte %d changed: saw %v", chunk, at, s.difference)
			}
			if d := s.difference; d != nil && (d.Want[0] != sent[at] || d.Got[0] != read[at]) {
				t.Errorf("chunks of %d, byte %d changed from %x to %x: saw %v", chunk, at, sent[at], read[at], d)
			}
			if got, want := [32]byte(s.hash.Sum(nil)), sha256.Sum256(read); got != want || s.n != int64(short) || s.progress.Load() != int64(short) {
				t.Errorf("chunks of %d: %d bytes with SHA-256 %x, expected %d with %x", chunk, s.n, got, short, want)
			}
		}
	}
}

// What one connection's bytes look like in another's place is a difference.
func TestStreamsOfTwoKeysDiffer(t *testing.T) {
	a, b := make([]byte, noiseLen), make([]byte, noiseLen)
	newNoise([16]byte{1}, nil).fill(a)
	s := newSink(TransferOptions{Key: [16]byte{2}})
	if _, err := s.Write(a); err != nil || s.difference == nil || s.difference.Offset != 0 {
		t.Errorf("the stream of another key: saw %v", s.difference)
	}
	src := newNoise([16]byte{1}, nil)
	src.fill(b)
	src.fill(b)
	if bytes.Equal(a, b) {
		t.Error("the second block of a stream is the first again")
	}
}
