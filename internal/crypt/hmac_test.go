package crypt

import (
	"bytes"
	"crypto/hmac"
	"math/rand/v2"
	"testing"
)

// The HMAC from saved states is crypto/hmac's, at every length around the block
// boundaries, and of parts as of the whole.
func TestHMACIsThatOfTheStandardLibrary(t *testing.T) {
	digests, rng := NewDigests(), rand.New(rand.NewPCG(1, 2))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	for _, h := range HMACHashes() {
		p := h.Params()
		key := random(p.KeyLen)
		m, err := NewHMAC(h, key)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 3*p.BlockLen + 2 {
			data, high := random(n), []byte{0, 0, 0, 9}
			std := hmac.New(p.New, key)
			std.Write(data)
			if want, got := std.Sum(nil)[:p.ICVLen], m.Sum(digests, data, nil, nil); !bytes.Equal(got, want) {
				t.Fatalf("%s of %d bytes: expected %x, saw %x", p.Name, n, want, got)
			}
			std.Write(high)
			want := std.Sum(nil)[:p.ICVLen]
			for cut := 0; cut <= n; cut += 1 + n/3 {
				if got := m.Sum(digests, data[:cut], data[cut:], high); !bytes.Equal(got, want) {
					t.Fatalf("%s of %d bytes, cut at %d: expected %x, saw %x", p.Name, n, cut, want, got)
				}
			}
		}
		if _, err := NewHMAC(h, make([]byte, p.BlockLen+1)); err == nil {
			t.Errorf("%s: expected a key longer than the block to be refused", p.Name)
		}
	}
	for _, h := range []HMACHash{NoHash, hashes} {
		if _, err := NewHMAC(h, nil); err == nil {
			t.Errorf("hash %d: expected to be refused", h)
		}
	}
}
