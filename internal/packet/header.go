package packet

import (
	"encoding/binary"
	"math/bits"
)

// ECN codepoints, the lower two bits of the traffic class (RFC 3168 5).
const (
	NotECT = 0
	ECT1   = 1
	ECT0   = 2
	CE     = 3
)

// SetECN replaces the ECN field of the valid IP header at the start of b and
// keeps the IPv4 header checksum right (RFC 1624).
func SetECN(b []byte, ecn uint8) {
	if b[0]>>4 == 6 {
		b[1] = b[1]&^0x30 | ecn<<4
		return
	}
	old := binary.BigEndian.Uint16(b[0:])
	b[1] = b[1]&^0x03 | ecn
	updateChecksum(b[10:12], old, binary.BigEndian.Uint16(b[0:]))
}

// updateChecksum changes the checksum at field for one 16-bit word of the sum
// that went from old to new: RFC 1624 equation 3, HC' = ~(~HC + ~m + m').
func updateChecksum(field []byte, old, new uint16) {
	sum := uint32(^binary.BigEndian.Uint16(field)) + uint32(^old) + uint32(new)
	sum = sum&0xffff + sum>>16
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(field, ^uint16(sum))
}

// Checksum is the one's complement sum of b in network byte order, folded to
// 16 bits and not inverted, with initial added in: the internet checksum of
// RFC 1071 without its last step.
//
// It adds eight bytes at a time in little-endian order, and swaps the result:
// RFC 1071 2 (B), (C). It is for headers: internal/crypt sums payloads.
func Checksum(b []byte, initial uint16) uint16 {
	sum := uint64(bits.ReverseBytes16(initial))
	var carry uint64
	for len(b) >= 8 {
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

// fold adds carry to sum and brings it down to 16 bits, in network byte order.
// A word added to itself turned by half its width has the one's complement sum
// of its halves on top. The result is 0 only for zeros.
func fold(sum, carry uint64) uint16 {
	sum, carry = bits.Add64(sum, carry, 0)
	sum += carry
	half := uint32((sum + bits.RotateLeft64(sum, 32)) >> 32)
	half += bits.RotateLeft32(half, 16)
	return bits.ReverseBytes16(uint16(half >> 16))
}

// PseudoChecksum is the sum of the pseudo header of f with protocol and length
// in bytes (RFC 793, RFC 8200 8.1), to be handed to Checksum as initial.
func PseudoChecksum(f *Flow, protocol uint8, length int) uint16 {
	sum := Checksum([]byte{0, protocol, byte(length >> 8), byte(length)}, 0)
	if f.Version == 4 {
		return Checksum(f.Dst[12:], Checksum(f.Src[12:], sum))
	}
	return Checksum(f.Dst[:], Checksum(f.Src[:], sum))
}
