package packet

import (
	"encoding/binary"
	"math/bits"
)

// ClampMSS lowers the maximum segment size option of a TCP SYN, or SYN and ACK,
// to mss bytes where it is larger, and keeps the TCP checksum right. p is the
// packet that Parse filled h and flow from. It tells whether it changed p.
//
// It never raises the option and never adds one: without it a sender takes 536
// or 1220 bytes (RFC 9293 3.7.1). Options that cannot be read to their end are
// left alone from there on, and so is the packet when mss is 0.
func ClampMSS(p []byte, h *Header, flow *Flow, mss uint16) bool {
	if flow.Protocol != ProtoTCP || flow.ProtocolOpaque || h.FragmentOffset != 0 || mss == 0 {
		return false
	}
	t := p[h.TransportOffset:h.TotalLen]
	const syn = 0x02
	if len(t) < 20 || t[13]&syn == 0 {
		return false
	}
	headerLen := int(t[12]>>4) * 4
	if headerLen < 20 || headerLen > len(t) {
		return false
	}
	changed := false
	for at := 20; at < headerLen; {
		kind, n := t[at], 1
		switch {
		case kind == tcpOptionEnd:
			return changed
		case kind == tcpOptionNone:
		case at+2 > headerLen || t[at+1] < 2 || at+int(t[at+1]) > headerLen:
			return changed
		default:
			n = int(t[at+1])
		}
		if kind == tcpOptionMSS && n == 4 {
			changed = lowerWord(t, at+2, mss) || changed
		}
		at += n
	}
	return changed
}

// TCP options (RFC 9293 3.2).
const (
	tcpOptionEnd  = 0
	tcpOptionNone = 1
	tcpOptionMSS  = 2
)

// lowerWord sets the 16-bit number at t[at:] to limit if it is larger, and
// updates the TCP checksum of t. At an odd place its bytes lie in two words of
// the sum, the first in the lower half of one: as in a word with its bytes
// swapped (RFC 1071 2 (B)).
func lowerWord(t []byte, at int, limit uint16) bool {
	old := binary.BigEndian.Uint16(t[at:])
	if old <= limit {
		return false
	}
	binary.BigEndian.PutUint16(t[at:], limit)
	if at%2 != 0 {
		old, limit = bits.ReverseBytes16(old), bits.ReverseBytes16(limit)
	}
	updateChecksum(t[16:18], old, limit)
	return true
}
