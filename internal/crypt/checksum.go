package crypt

import (
	"encoding/binary"
	"math/bits"
)

// Kernel is one implementation of this package's functions. Only those that
// Kernels or, for AES-GCM, GCMKernels lists may be called; the others end the
// program by an instruction that the processor does not know.
type Kernel uint8

// The kernels. Plain is there on every machine.
const (
	Plain Kernel = iota
	AVX2
	AVX512
	VAES // AES-GCM alone, with VAES and VPCLMULQDQ on AVX-512's registers
)

// chosen is set once, before main, and never again.
var chosen = Chosen()

// Chosen is the kernel that Checksum and Copy use: the last of Kernels.
func Chosen() Kernel {
	list := Kernels()
	return list[len(list)-1]
}

// String is the kernel's name as benchmarks and reports print it.
func (k Kernel) String() string {
	switch k {
	case Plain:
		return "plain"
	case AVX2:
		return "avx2"
	case AVX512:
		return "avx512"
	case VAES:
		return "vaes"
	}
	return "unknown"
}

// Checksum is the one's complement sum of b in network byte order, folded to
// 16 bits and not inverted, with initial added in: the internet checksum of
// RFC 1071 without its last step. It is 0 only where b and initial are all
// zeros. A sum over pieces chains through initial where every piece but the
// last has an even length. b may be of any length below 2^34 bytes, and of any
// alignment; nothing behind it is read.
func Checksum(b []byte, initial uint16) uint16 {
	return checksum(chosen, b, initial)
}

// Checksum is the function of that name by this kernel.
func (k Kernel) Checksum(b []byte, initial uint16) uint16 {
	return checksum(k, b, initial)
}

// checksum adds in little-endian order and swaps the bytes at the end. RFC
// 1071 2 (B): "The sum of 16-bit integers can be computed in either byte
// order." It adds eight bytes a step, as 2 (C) has it: "Instead we can add them
// in "parallel" by exploiting the larger word size."
func checksum(k Kernel, b []byte, initial uint16) uint16 {
	sum := uint64(bits.ReverseBytes16(initial))
	if k != Plain && len(b) >= wideMin {
		return fold(sumWide(k, b), sum)
	}
	var carry uint64
	for len(b) >= 64 {
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[0:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[8:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[16:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[24:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[32:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[40:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[48:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[56:]), carry)
		b = b[64:]
	}
	if len(b) >= 32 {
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[0:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[8:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[16:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[24:]), carry)
		b = b[32:]
	}
	if len(b) >= 16 {
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[0:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[8:]), carry)
		b = b[16:]
	}
	if len(b) >= 8 {
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b), carry)
		b = b[8:]
	}
	// Up to seven bytes are left, at an even place. A last odd byte is the upper
	// half of its 16-bit word, which here, in the swapped order, is the lower.
	if len(b) >= 4 {
		sum, carry = bits.Add64(sum, uint64(binary.LittleEndian.Uint32(b)), carry)
		b = b[4:]
	}
	if len(b) >= 2 {
		sum, carry = bits.Add64(sum, uint64(binary.LittleEndian.Uint16(b)), carry)
		b = b[2:]
	}
	if len(b) == 1 {
		sum, carry = bits.Add64(sum, uint64(b[0]), carry)
	}
	return fold(sum, carry)
}

// Copy copies src to the front of dst and returns Checksum(src, initial): one
// pass over the memory where the machine has a kernel for it. dst and src are
// the same bytes or share none. It panics where dst is shorter than src;
// nothing of dst from len(src) on is written.
func Copy(dst, src []byte, initial uint16) uint16 {
	return copySum(chosen, dst, src, initial)
}

// Copy is the function of that name by this kernel.
func (k Kernel) Copy(dst, src []byte, initial uint16) uint16 {
	return copySum(k, dst, src, initial)
}

func copySum(k Kernel, dst, src []byte, initial uint16) uint16 {
	dst = dst[:len(src)]
	if k != Plain && len(src) >= wideMin {
		return fold(copyWide(k, dst, src), uint64(bits.ReverseBytes16(initial)))
	}
	copy(dst, src)
	return checksum(k, src, initial)
}

// fold adds a, b and the carries of that down to 16 bits, in network byte
// order. A word added to itself turned by half its width has the one's
// complement sum of its halves on top. The result is 0 only for a = b = 0.
func fold(a, b uint64) uint16 {
	sum, carry := bits.Add64(a, b, 0)
	sum += carry // no carry comes of it: a + b is below 2^65-1
	half := uint32((sum + bits.RotateLeft64(sum, 32)) >> 32)
	half += bits.RotateLeft32(half, 16)
	return bits.ReverseBytes16(uint16(half >> 16))
}
