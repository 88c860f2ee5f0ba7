//go:build !amd64

package crypt

import "crypto/cipher"

// GCMKernels lists what AES-GCM can run on here.
func GCMKernels() []Kernel { return []Kernel{Plain} }

func newVAES([]byte, cipher.Block, int) cipher.AEAD {
	panic("crypt: this machine has the plain kernel only")
}
