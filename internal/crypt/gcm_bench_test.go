package crypt

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"testing"
)

// benchWires is how many packets take turns: as in a batch, none is touched
// again before what was written last has left the processor's store buffer.
const benchWires = 16

// benchGCM runs f for each key length, text length and kernel. The additional
// data are ESP's 8 bytes, and the nonce is written as esp does.
func benchGCM(b *testing.B, f func(aead cipher.AEAD, nonce, wire, data []byte)) {
	for _, keyLen := range []int{16, 32} {
		for _, n := range []int{16, 64, 256, 576, 1408} {
			for _, k := range GCMKernels() {
				b.Run(fmt.Sprintf("%d/%d/%v", 8*keyLen, n, k), func(b *testing.B) {
					aead, err := k.NewGCM(make([]byte, keyLen), 16)
					if err != nil {
						b.Fatal(err)
					}
					nonce, data := make([]byte, gcmNonceLen), make([]byte, 8)
					wires := make([][]byte, benchWires)
					for i := range wires {
						wires[i] = make([]byte, n+16)
						binary.BigEndian.PutUint64(nonce[4:], uint64(i))
						aead.Seal(wires[i][:0], nonce, wires[i][:n], data)
					}
					b.SetBytes(int64(n))
					i := uint64(0)
					for b.Loop() {
						binary.BigEndian.PutUint64(nonce[4:], i%benchWires)
						f(aead, nonce, wires[i%benchWires], data)
						i++
					}
				})
			}
		}
	}
}

// BenchmarkGCMSeal seals texts in place.
func BenchmarkGCMSeal(b *testing.B) {
	benchGCM(b, func(aead cipher.AEAD, nonce, wire, data []byte) {
		aead.Seal(wire[:0], nonce, wire[:len(wire)-aead.Overhead()], data)
	})
}

// BenchmarkGCMOpen opens texts, each time the same, to another place.
func BenchmarkGCMOpen(b *testing.B) {
	text := make([]byte, 1408)
	benchGCM(b, func(aead cipher.AEAD, nonce, wire, data []byte) {
		if _, err := aead.Open(text[:0], nonce, wire, data); err != nil {
			b.Fatal(err)
		}
	})
}
