package fuzz

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"testing"

	"github.com/adit-ipsec/adit/internal/crypt"
)

// FuzzGCM holds every AES-GCM kernel of internal/crypt that this machine can
// run equal to crypto/cipher: sealed and opened, in place and apart, at any
// alignment; and what a flipped bit makes of it, refused by both, with no
// cleartext left.
func FuzzGCM(f *testing.F) {
	f.Add([]byte("text"), []byte("spi+numb"), []byte("keykeykeykeykey!nonce678901"), uint16(0), uint32(0))
	f.Add([]byte("text of some groups of blocks"), []byte("longer data"), []byte("key"), uint16(0x7654), uint32(0xffff<<16+12345))
	f.Fuzz(func(t *testing.T, text, data, secret []byte, at uint16, flip uint32) {
		key := make([]byte, 16+8*(int(at>>6)%3))
		nonce := make([]byte, 12)
		copy(nonce, secret[copy(key, secret):])
		tagSize := 12 + int(at>>8)%5

		block, err := aes.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		reference, err := cipher.NewGCMWithTagSize(block, tagSize)
		if err != nil {
			t.Fatal(err)
		}
		// Fuzzing likes short inputs, the kernels have more to do on long ones.
		text = bytes.Repeat(text, 1+int(flip>>26))
		data = bytes.Repeat(data, 1+int(flip>>20)%64)
		sealed := reference.Seal(nil, nonce, text, data)
		for _, k := range crypt.GCMKernels() {
			aead, err := k.NewGCM(key, tagSize)
			if err != nil {
				t.Fatal(err)
			}
			checkGCM(t, k, aead, nonce, text, sealed, data, int(at)%64)
			bad := bytes.Clone(sealed)
			bad[int(flip>>3)%len(bad)] ^= 1 << (flip & 7)
			changed := bytes.Clone(bad)
			if got, err := aead.Open(bad[:0], nonce, bad, data); err == nil {
				t.Fatalf("%v: bit %d flipped: opened %x", k, flip, got)
			}
			// NewGCM: "the memory of the cleartext is zeros or as before".
			n := len(text)
			if left := bad[:n]; !bytes.Equal(left, make([]byte, n)) && !bytes.Equal(left, changed[:n]) {
				t.Fatalf("%v: bit %d flipped: %x is left", k, flip, left)
			}
			if !bytes.Equal(bad[n:], changed[n:]) {
				t.Fatalf("%v: bit %d flipped: the tag was written", k, flip)
			}
		}
	})
}

func checkGCM(t *testing.T, k crypt.Kernel, aead cipher.AEAD, nonce, text, sealed, data []byte, at int) {
	n := len(text)
	wire := bytes.Repeat([]byte{0xa5}, at+len(sealed)+64)
	place := wire[at : at+len(sealed) : at+len(sealed)]
	apart := aead.Seal(place[:0], nonce, text, data)
	if !bytes.Equal(apart, sealed) {
		t.Fatalf("%v: sealed %x, want %x", k, apart, sealed)
	}
	opened, err := aead.Open(make([]byte, 0, n), nonce, sealed, data)
	if err != nil || !bytes.Equal(opened, text) {
		t.Fatalf("%v: opened %x, %v; want %x", k, opened, err, text)
	}
	copy(place, text)
	if got := aead.Seal(place[:0], nonce, place[:n], data); !bytes.Equal(got, sealed) {
		t.Fatalf("%v: sealed in place %x, want %x", k, got, sealed)
	}
	if got, err := aead.Open(place[:0], nonce, place, data); err != nil || !bytes.Equal(got, text) {
		t.Fatalf("%v: opened in place %x, %v; want %x", k, got, err, text)
	}
	beside := append(bytes.Clone(wire[:at]), wire[at+max(len(sealed), n+16):]...)
	if !bytes.Equal(beside, bytes.Repeat([]byte{0xa5}, len(beside))) {
		t.Fatalf("%v: %d bytes at %d: written outside", k, n, at)
	}
}
