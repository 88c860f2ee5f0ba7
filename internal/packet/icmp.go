package packet

import (
	"encoding/binary"
	"net/netip"
)

// ICMP and ICMPv6 error messages: types (RFC 792, RFC 4443 3), and the codes of
// Destination Unreachable that a security gateway answers with.
const (
	ICMPUnreachable      = 3
	ICMPTimeExceeded     = 11
	ICMPParameterProblem = 12

	ICMPv6Unreachable      = 1
	ICMPv6TooBig           = 2
	ICMPv6TimeExceeded     = 3
	ICMPv6ParameterProblem = 4

	// RFC 4301 5.1: policy discards the packet, or the peer cannot be reached.
	ICMPCodeHost         = 1  // 3/1, host unreachable
	ICMPCodeTooBig       = 4  // 3/4, fragmentation needed and DF set
	ICMPCodeProhibited   = 13 // 3/13, communication administratively prohibited
	ICMPv6CodeProhibited = 1  // 1/1, administratively prohibited
	ICMPv6CodeAddress    = 3  // 1/3, address unreachable
)

// Lengths of whole IP packets, in bytes.
const (
	// MaxICMPError is the longest packet that TooBig and Unreachable make:
	// what their dst has to hold.
	MaxICMPError = minMTU6
	// RFC 1812 4.3.2.3: "the ICMP datagram SHOULD contain as much of the
	// original datagram as possible without the length of the ICMP datagram
	// exceeding 576 bytes".
	maxICMPError4 = 576
	minMTU4       = 68   // RFC 791: "every internet module must be able to forward"
	minMTU6       = 1280 // RFC 8200 5
	icmpHeader    = 8
	icmpHops      = 64
	// RFC 1812 4.3.2.5: ICMP errors "SHOULD have their precedence value set
	// to 6 (INTERNETWORK CONTROL)".
	icmpTOS = 6 << 5
)

// TooBig makes in dst the IP packet that tells the sender of offending to send
// packets of at most mtu bytes: ICMPv4 3/4 (RFC 1191) or ICMPv6 type 2 (RFC 4443
// 3.2), from the given address of the same family. offending is a valid IP packet,
// not overlapping dst. n is the length in bytes, at most MaxICMPError.
//
// The MTU is never below what every link of its family must take, 68 or 1280
// bytes: hosts ignore less (RFC 8201 4), and 0 is a router that does not know
// RFC 1191. ok is false when no answer may be given (mayAnswer), or when dst is
// too short.
func TooBig(dst, offending []byte, from netip.Addr, mtu int) (n int, ok bool) {
	var h Header
	var f Flow
	if Parse(offending, &h, &f) != nil || !mayAnswer(offending, &h, &f, true) {
		return 0, false
	}
	if h.Version == 4 {
		mtu = min(max(mtu, minMTU4), MaxLen)
		return icmpError(dst, offending[:h.TotalLen], from, ICMPUnreachable, ICMPCodeTooBig, uint32(mtu))
	}
	return icmpError(dst, offending[:h.TotalLen], from, ICMPv6TooBig, 0, uint32(max(mtu, minMTU6)))
}

// Unreachable makes in dst the IP packet that tells the sender of offending
// that it was not forwarded: ICMPv4 type 3 or ICMPv6 type 1, with a code of that
// family (RFC 4301 5.1). Otherwise it is as TooBig.
func Unreachable(dst, offending []byte, from netip.Addr, code uint8) (n int, ok bool) {
	var h Header
	var f Flow
	if Parse(offending, &h, &f) != nil || !mayAnswer(offending, &h, &f, false) {
		return 0, false
	}
	typ := uint8(ICMPUnreachable)
	if h.Version == 6 {
		typ = ICMPv6Unreachable
	}
	return icmpError(dst, offending[:h.TotalLen], from, typ, code, 0)
}

// mayAnswer tells whether an ICMP error may be sent about p.
func mayAnswer(p []byte, h *Header, f *Flow, tooBig bool) bool {
	// RFC 1122 3.2.2: "An ICMP error message MUST NOT be sent as the result
	// of receiving: an ICMP error message". RFC 4443 2.4 (e.1) says the same,
	// and (e.2) adds redirects. What may be one, and cannot be seen, counts as
	// one: a later fragment of ICMP, or a header chain that is cut.
	if f.ProtocolOpaque || f.isICMP() && f.PortsOpaque || f.IsICMPError() {
		return false
	}
	if h.Version == 4 {
		return mayAnswer4(p, h)
	}
	src, dst := f.SrcAddr(), f.DstAddr()
	// RFC 4443 2.4 (e.3): "A packet destined to an IPv6 multicast address",
	// but for "the Packet Too Big Message (Section 3.2) to allow Path MTU
	// discovery to work for IPv6 multicast".
	if dst.IsMulticast() && !tooBig {
		return false
	}
	// (e.6): "A packet whose source address does not uniquely identify a
	// single node".
	return !src.IsUnspecified() && !src.IsMulticast() && !src.IsLoopback() && !dst.IsUnspecified()
}

// mayAnswer4 is the rest of RFC 1122 3.2.2's list, for addresses and fragments:
// "a datagram destined to an IP broadcast or IP multicast address", "a
// non-initial fragment", "a datagram whose source address does not define a
// single host -- e.g., a zero address, a loopback address, a broadcast address,
// a multicast address, or a Class E address". Broadcasts of a subnet cannot be
// told from other addresses here.
func mayAnswer4(p []byte, h *Header) bool {
	src, dst := p[12], p[16]
	return h.FragmentOffset == 0 &&
		src != 0 && src != 127 && src < 224 &&
		dst != 0 && dst < 224
}

// IsICMPError tells whether the flow is one of ICMP or ICMPv6 messages that are
// errors or redirects. An ICMP type that nobody here knows may be an error of
// tomorrow; ICMPv6 has a bit for it (RFC 4443 2.1: error messages have "a zero in
// the high-order bit"). Where the type is not to be had it is false.
func (f *Flow) IsICMPError() bool {
	if !f.isICMP() || f.PortsOpaque || f.ProtocolOpaque {
		return false
	}
	typ := f.SrcPort >> 8
	if f.Protocol == ProtoICMPv6 {
		return typ < 128 || typ == 137
	}
	switch typ {
	case 0, 8, 9, 10, 13, 14, 15, 16, 17, 18, 42, 43: // echo, router, timestamp, information, mask, extended echo
		return false
	}
	return true
}

// icmpError writes an error message around as much of p, a whole packet that may
// be answered, as fits. word is the second word of the ICMP header.
func icmpError(dst, p []byte, from netip.Addr, typ, code uint8, word uint32) (int, bool) {
	header, limit, from := 20, maxICMPError4, from.Unmap()
	is6 := p[0]>>4 == 6
	if is6 {
		header, limit = 40, minMTU6
	}
	if !from.IsValid() || from.Is6() != is6 {
		return 0, false
	}
	n := min(header+icmpHeader+len(p), limit)
	if len(dst) < n {
		return 0, false
	}
	dst = dst[:n]
	icmp := dst[header:]
	icmp[0], icmp[1], icmp[2], icmp[3] = typ, code, 0, 0
	binary.BigEndian.PutUint32(icmp[4:], word)
	copy(icmp[icmpHeader:], p)
	if is6 {
		icmpHeader6(dst, p[8:24], from.As16())
	} else {
		icmpHeader4(dst, p[12:16], from.As4())
	}
	return n, true
}

// icmpHeader4 writes the IPv4 header and the ICMP checksum of the message in b.
// The datagram is atomic, so that its identification needs no care (RFC 6864 4.1).
func icmpHeader4(b, to []byte, from [4]byte) {
	icmp := b[20:]
	binary.BigEndian.PutUint16(icmp[2:], ^Checksum(icmp, 0))
	clear(b[:20])
	b[0], b[1], b[6], b[8], b[9] = 0x45, icmpTOS, 0x40, icmpHops, ProtoICMP
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:16], from[:])
	copy(b[16:20], to)
	binary.BigEndian.PutUint16(b[10:], ^Checksum(b[:20], 0))
}

// icmpHeader6 is icmpHeader4 for IPv6.
func icmpHeader6(b, to []byte, from [16]byte) {
	clear(b[:8])
	b[0], b[6], b[7] = 0x60, ProtoICMPv6, icmpHops
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	copy(b[8:24], from[:])
	copy(b[24:40], to)
	// Behind the addresses the pseudo header has length and protocol.
	sum := Checksum(b[8:40], Checksum([]byte{0, ProtoICMPv6, b[4], b[5]}, 0))
	binary.BigEndian.PutUint16(b[42:], ^Checksum(b[40:], sum))
}

// ICMPError is an ICMP or ICMPv6 error message that quotes a packet.
type ICMPError struct {
	Type, Code uint8
	// MTU is what a Packet Too Big message (ICMPv4 3/4, ICMPv6 type 2) says, in
	// bytes; 0 in others, and from a router that does not know RFC 1191.
	MTU int
	// Quoted is the quoted packet as far as the message holds it, in the
	// message's memory. QuotedFlow reads it.
	Quoted []byte
}

// ParseICMPError reads message, what an IP packet of the given version (4 or 6)
// carries as ICMP or ICMPv6. ok is false for anything that is no error which
// routers send to hosts that are not their neighbours: v4 types 3, 11, 12, v6
// types 1 to 4. Redirects end on the link, and RFC 6633 deprecates Source Quench.
// It does not look at the checksum: ICMPChecksumOK does.
func ParseICMPError(message []byte, version int) (e ICMPError, ok bool) {
	if len(message) < icmpHeader {
		return ICMPError{}, false
	}
	e = ICMPError{Type: message[0], Code: message[1], Quoted: message[icmpHeader:]}
	quoted := 0 // RFC 4884 4, 5: length of the quote, 0 for all there is
	switch {
	case version == 4 && (e.Type == ICMPUnreachable || e.Type == ICMPTimeExceeded || e.Type == ICMPParameterProblem):
		quoted = int(message[5]) * 4
		if e.Type == ICMPUnreachable && e.Code == ICMPCodeTooBig {
			e.MTU = int(binary.BigEndian.Uint16(message[6:]))
		}
	case version == 6 && (e.Type == ICMPv6Unreachable || e.Type == ICMPv6TimeExceeded):
		quoted = int(message[4]) * 8
	case version == 6 && e.Type == ICMPv6TooBig:
		e.MTU = int(binary.BigEndian.Uint32(message[4:]))
	case version == 6 && e.Type == ICMPv6ParameterProblem:
	default:
		return ICMPError{}, false
	}
	if quoted > 0 && quoted < len(e.Quoted) {
		e.Quoted = e.Quoted[:quoted]
	}
	return e, true
}

// ICMPChecksumOK tells whether the checksum of a whole ICMP or ICMPv6 message is
// right. f is the flow of the packet that carries it (ICMPv6 sums its addresses);
// a fragment's message is not whole.
func ICMPChecksumOK(message []byte, f *Flow) bool {
	if len(message) < 4 {
		return false
	}
	initial := uint16(0)
	if f.Version == 6 {
		initial = PseudoChecksum(f, ProtoICMPv6, len(message))
	}
	return Checksum(message, initial) == 0xffff
}
