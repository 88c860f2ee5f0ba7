package fuzz

import (
	"bytes"
	"testing"

	"github.com/adit-ipsec/adit/internal/crypt"
)

// FuzzChecksumTwins holds every kernel of internal/crypt that this machine can
// run equal to RFC 1071 word by word: for any bytes, any initial value, any
// alignment, cut in two at any even place; and its copy equal to the bytes,
// with nothing written beside it.
func FuzzChecksumTwins(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte, initial, at uint16) {
		want := checksumReference(b, initial)
		for _, k := range crypt.Kernels() {
			moved := append(make([]byte, at%64), b...)[at%64:]
			if got := k.Checksum(moved, initial); got != want {
				t.Fatalf("%v: Checksum(%x, %#x) moved by %d bytes = %#x, want %#x", k, b, initial, at%64, got, want)
			}
			if len(b) > 0 {
				cut := int(at) % len(b) &^ 1
				if got := k.Checksum(b[cut:], k.Checksum(b[:cut], initial)); got != want {
					t.Fatalf("%v: cut at %d: %#x, want %#x", k, cut, got, want)
				}
			}
			checkCopy(t, k, b, initial, int(at>>6)%64, want)
		}
	})
}

func checkCopy(t *testing.T, k crypt.Kernel, b []byte, initial uint16, to int, want uint16) {
	dst := bytes.Repeat([]byte{0xa5}, to+len(b)+64)
	expect := bytes.Clone(dst)
	copy(expect[to:], b)
	if got := k.Copy(dst[to:], b, initial); got != want {
		t.Fatalf("%v: Copy of %x to %d, initial %#x: %#x, want %#x", k, b, to, initial, got, want)
	}
	if !bytes.Equal(dst, expect) {
		t.Fatalf("%v: Copy of %x to %d left %x", k, b, to, dst)
	}
}
