package crypt

import "golang.org/x/sys/cpu"

// wideMin is the length in bytes from which on the kernels win against plain
// Go: measured. None of them may be given less than 64.
const wideMin = 128

// Kernels lists what can run here, Plain first, the widest last. The flags of
// x/sys/cpu are set only where the operating system saves the registers, too.
func Kernels() []Kernel {
	list := []Kernel{Plain}
	if cpu.X86.HasAVX2 {
		list = append(list, AVX2)
	}
	if cpu.X86.HasAVX2 && cpu.X86.HasAVX512 && cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasBMI2 {
		list = append(list, AVX512)
	}
	return list
}

// sumWide is the sum of b's 32-bit words by kernel k, for len(b) >= wideMin.
func sumWide(k Kernel, b []byte) uint64 {
	if k == AVX512 {
		return sumAVX512(b)
	}
	return sumAVX2(b)
}

// copyWide copies src to dst and returns the sum of sumWide, for
// len(src) >= wideMin and len(dst) >= len(src).
func copyWide(k Kernel, dst, src []byte) uint64 {
	if k == AVX512 {
		return copyAVX512(dst, src)
	}
	return copyAVX2(dst, src)
}

// The sums are of b's little-endian 32-bit words, the last one filled up with
// zeros, without folding: exact below 2^34 bytes. len(b) >= 64.

//go:noescape
func sumAVX2(b []byte) uint64

//go:noescape
func sumAVX512(b []byte) uint64

// The same sums of src, which is copied to dst; len(dst) is not looked at.

//go:noescape
func copyAVX2(dst, src []byte) uint64

//go:noescape
func copyAVX512(dst, src []byte) uint64
