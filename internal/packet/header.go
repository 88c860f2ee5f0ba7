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
func Checksum(b []byte, initial uint16) uint16 {
	var sum, carry uint64
	for len(b) >= 8 {
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b), carry)
		b = b[8:]
	}
	var tail [8]byte
	copy(tail[:], b)
	sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(tail[:]), carry)
	sum, carry = bits.Add64(sum, uint64(initial), carry)
	sum, carry = bits.Add64(sum, carry, 0)
	sum += carry
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
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
