package packet

import "encoding/binary"

// SetProtocol makes protocol what follows the IP header h, which ends where h
// does: in IPv6 behind its extension headers, if there are any. h is valid, as
// Parse has found it.
func SetProtocol(h []byte, protocol uint8) {
	if h[0]>>4 == 4 {
		h[9] = protocol
		return
	}
	next, at := &h[6], 40
	for at < len(h) {
		size := 8
		if *next != ProtoFragment {
			size += 8 * int(h[at+1])
		}
		next, at = &h[at], at+size
	}
	*next = protocol
}

// SetLength makes total the length of the packet that IP header h begins, in
// bytes with the header. It leaves the IPv4 checksum as it is: SetChecksum.
func SetLength(h []byte, total int) {
	if h[0]>>4 == 4 {
		binary.BigEndian.PutUint16(h[2:], uint16(total))
		return
	}
	binary.BigEndian.PutUint16(h[4:], uint16(total-40))
}

// SetChecksum computes the checksum of an IPv4 header with its options; an IPv6
// header has none.
func SetChecksum(h []byte) {
	if h[0]>>4 != 4 {
		return
	}
	h[10], h[11] = 0, 0
	binary.BigEndian.PutUint16(h[10:], ^Checksum(h, 0))
}

// ReplaceInChecksum changes the checksum at field for bytes of the sum that went
// from old to new, of one even length: RFC 1624, equation 3.
func ReplaceInChecksum(field, old, new []byte) {
	for i := 0; i+1 < len(old); i += 2 {
		updateChecksum(field, binary.BigEndian.Uint16(old[i:]), binary.BigEndian.Uint16(new[i:]))
	}
}
