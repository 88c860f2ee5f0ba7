package crypt

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"unsafe"
)

// chosenGCM is set once, before main, and never again.
var chosenGCM = GCMKernel()

// GCMKernel is the kernel that NewGCM uses: the last of GCMKernels.
func GCMKernel() Kernel {
	list := GCMKernels()
	return list[len(list)-1]
}

// NewGCM returns AES-GCM (SP 800-38D) for a key of 16, 24 or 32 bytes, with
// nonces of 12 bytes and tags of tagSize, 12 to 16, by the fastest kernel that
// the machine has. What it returns is that of crypto/cipher's
// NewGCMWithTagSize, and so is its behaviour: the result overlaps the input
// exactly or not at all, and the additional data not at all, or Seal and Open
// panic; after a failed Open, the memory of the cleartext is zeros or as
// before. It is immutable and safe for concurrent use; the slice of the key is not kept.
func NewGCM(key []byte, tagSize int) (cipher.AEAD, error) {
	return chosenGCM.NewGCM(key, tagSize)
}

// NewGCM is the function of that name by this kernel, one of GCMKernels. Plain
// is crypto/cipher's own.
func (k Kernel) NewGCM(key []byte, tagSize int) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("crypt: AES-GCM takes a key of 16, 24 or 32 bytes, not %d", len(key))
	}
	if tagSize < 12 || tagSize > 16 {
		return nil, fmt.Errorf("crypt: AES-GCM takes tags of 12 to 16 bytes, not %d", tagSize)
	}
	if k == VAES {
		return newVAES(key, block, tagSize), nil
	}
	return cipher.NewGCMWithTagSize(block, tagSize)
}

const (
	gcmNonceLen = 12
	// gcmMaxLen is the longest text in bytes. SP 800-38D 5.2.1.1:
	// "len(P) <= 2^39-256", in bits.
	gcmMaxLen = 1<<36 - 32
)

// errGCMOpen does not say which of nonce, text, data and tag is wrong: nobody
// can know.
var errGCMOpen = errors.New("crypt: AES-GCM: message authentication failed")

// panicGCM says which of NewGCM's rules a caller broke; out is what was to be
// written. cipher.AEAD asks for panics, and no packet's bytes lead to one.
func panicGCM(out, nonce, text []byte) {
	switch {
	case len(nonce) != gcmNonceLen:
		panic("crypt: AES-GCM takes a nonce of 12 bytes") //nolint:forbidigo // as above
	case misplaced(out, text):
		panic("crypt: AES-GCM: result and input overlap elsewhere than at their start") //nolint:forbidigo // as above
	}
	panic("crypt: AES-GCM: result and additional data overlap") //nolint:forbidigo // as above
}

// misplaced tells whether out and text overlap, and do not start together.
func misplaced(out, text []byte) bool {
	return unsafe.SliceData(out) != unsafe.SliceData(text) && overlap(out, text)
}

// overlap tells whether a and b share a byte.
func overlap(a, b []byte) bool {
	p, q := uintptr(unsafe.Pointer(unsafe.SliceData(a))), uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	return p < q+uintptr(len(b)) && q < p+uintptr(len(a)) && len(a) > 0 && len(b) > 0
}

// extend makes dst n bytes longer, in its own memory if that is long enough.
// out is what was added.
func extend(dst []byte, n int) (all, out []byte) {
	total := len(dst) + n
	if total <= cap(dst) {
		all = dst[:total]
	} else {
		all = make([]byte, total)
		copy(all, dst)
	}
	return all, all[len(dst):]
}
