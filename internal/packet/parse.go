package packet

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// Why a packet is not an IP packet that this gateway carries. They are values,
// not built per packet.
var (
	ErrTooShort   = errors.New("packet: shorter than its header says")
	ErrVersion    = errors.New("packet: IP version is neither 4 nor 6")
	ErrHeaderLen  = errors.New("packet: IPv4 header length below 20 bytes or beyond the packet")
	ErrTotalLen   = errors.New("packet: total length shorter than the header or beyond the packet")
	ErrExtensions = errors.New("packet: IPv6 extension header chain too long or cut short")
	ErrFragment   = errors.New("packet: fragment that overlaps a transport header or reaches past 65535 bytes")
)

// Header is what the walks need of a packet's IP header besides its Flow.
type Header struct {
	Version int
	// TransportOffset is where the next layer header starts, in bytes from
	// the packet's first; for a non-initial fragment, where its data starts.
	TransportOffset int
	// PayloadOffset is where the payload of TCP or UDP starts; for anything
	// else it equals TransportOffset. Segments of a superpacket repeat
	// everything in front of it.
	PayloadOffset int
	// TotalLen is the packet's length by its own header: what lies behind
	// is padding (RFC 4303 2.7, traffic flow confidentiality).
	TotalLen       int
	TrafficClass   uint8 // DSCP and ECN
	TTL            uint8 // or hop limit
	DF             bool  // IPv4 Don't Fragment
	Fragment       bool  // part of a fragmented datagram: offset not 0, or more fragments
	FragmentOffset int   // bytes
}

// extension headers walked before giving up; RFC 8200 section 4 recommends an
// order with at most seven.
const maxExtensionHeaders = 10

// Parse reads the IP header at the start of b into h and f. b may be longer
// than the packet (h.TotalLen says where it ends), never shorter. The error is
// one of this package's values and nothing of h and f is then to be used.
func Parse(b []byte, h *Header, f *Flow) error {
	if len(b) == 0 {
		return ErrTooShort
	}
	*h, *f = Header{}, Flow{}
	switch b[0] >> 4 {
	case 4:
		return parseIPv4(b, h, f)
	case 6:
		return parseIPv6(b, h, f)
	}
	return ErrVersion
}

// Parse reads the buffer's packet into b.Header and b.Flow and cuts b.Len to
// the length that the header gives.
func (b *Buffer) Parse() error {
	if err := Parse(b.Bytes(), &b.Header, &b.Flow); err != nil {
		return err
	}
	b.Len = b.Header.TotalLen
	return nil
}

func parseIPv4(b []byte, h *Header, f *Flow) error {
	if len(b) < 20 {
		return ErrTooShort
	}
	headerLen := int(b[0]&0x0f) * 4
	if headerLen < 20 || headerLen > len(b) {
		return ErrHeaderLen
	}
	total := int(binary.BigEndian.Uint16(b[2:]))
	if total < headerLen || total > len(b) {
		return ErrTotalLen
	}
	frag := binary.BigEndian.Uint16(b[6:])
	h.Version = 4
	h.TransportOffset, h.PayloadOffset = headerLen, headerLen
	h.TotalLen = total
	h.TrafficClass = b[1]
	h.TTL = b[8]
	h.DF = frag&0x4000 != 0
	h.FragmentOffset = int(frag&0x1fff) * 8
	h.Fragment = frag&0x3fff != 0
	f.Version = 4
	mapIPv4(&f.Src, b[12:16])
	mapIPv4(&f.Dst, b[16:20])
	f.Protocol = b[9]
	if h.FragmentOffset+total-headerLen > MaxLen {
		return ErrFragment
	}
	return parseTransport(b[:total], h, f)
}

func parseIPv6(b []byte, h *Header, f *Flow) error {
	if len(b) < 40 {
		return ErrTooShort
	}
	total := 40 + int(binary.BigEndian.Uint16(b[4:]))
	if total > len(b) || total > MaxLen {
		return ErrTotalLen
	}
	b = b[:total]
	h.Version = 6
	h.TotalLen = total
	h.TrafficClass = b[0]<<4 | b[1]>>4
	h.TTL = b[7]
	f.Version = 6
	copy(f.Src[:], b[8:24])
	copy(f.Dst[:], b[24:40])

	next, off := b[6], 40
	for range maxExtensionHeaders + 1 { // and the header behind them
		headerLen := 0
		switch next {
		case ProtoHopByHop, ProtoRouting, ProtoDestination:
			if off+8 > total {
				return extensionsCut(h, f, off)
			}
			headerLen = (int(b[off+1]) + 1) * 8
		case ProtoFragment:
			if off+8 > total {
				return extensionsCut(h, f, off)
			}
			field := binary.BigEndian.Uint16(b[off+2:])
			// An atomic fragment (offset 0, no more) is whole: RFC 6946.
			h.FragmentOffset = int(field &^ 7)
			h.Fragment = h.Fragment || field&0xfff9 != 0
			headerLen = 8
		default:
			f.Protocol = next
			h.TransportOffset, h.PayloadOffset = off, off
			return parseTransport(b, h, f)
		}
		if off+headerLen > total {
			return extensionsCut(h, f, off)
		}
		next, off = b[off], off+headerLen
		if h.FragmentOffset > 0 {
			return nonInitialIPv6(next, off, total, h, f)
		}
	}
	return ErrExtensions
}

// nonInitialIPv6 ends the walk at a fragment that is not the first: what
// follows is data, and next names the first header of the fragmentable part,
// which is the next layer protocol only when it is no extension header.
func nonInitialIPv6(next uint8, off, total int, h *Header, f *Flow) error {
	if h.FragmentOffset+total-off > MaxLen {
		return ErrFragment
	}
	h.TransportOffset, h.PayloadOffset = off, off
	f.PortsOpaque = true
	switch next {
	case ProtoHopByHop, ProtoRouting, ProtoDestination, ProtoFragment:
		f.ProtocolOpaque = true
		return nil
	}
	f.Protocol = next
	return checkTCPFragment(h, f)
}

// checkTCPFragment refuses a fragment at offset 8 of TCP, in both families: it
// would rewrite the TCP flags that a first fragment was admitted with.
// RFC 1858 section 3.2 gives the rule for IPv4 (its offset of 1 is 8 bytes) and
// RFC 3128 says what happens without it; IPv6 fragments can do the same.
func checkTCPFragment(h *Header, f *Flow) error {
	if f.Protocol == ProtoTCP && h.FragmentOffset == 8 {
		return ErrFragment
	}
	return nil
}

// extensionsCut answers a header chain that ends outside the packet: in a
// first fragment the rest may follow (RFC 7112 forbids it, RFC 4301 calls what
// is not to be had OPAQUE); anywhere else the packet is broken.
func extensionsCut(h *Header, f *Flow, off int) error {
	if !h.Fragment {
		return ErrExtensions
	}
	h.TransportOffset, h.PayloadOffset = off, off
	f.ProtocolOpaque, f.PortsOpaque = true, true
	return nil
}

// parseTransport fills ports, or ICMP type and code, from the whole packet b.
func parseTransport(b []byte, h *Header, f *Flow) error {
	t := b[h.TransportOffset:]
	if h.FragmentOffset > 0 {
		f.PortsOpaque = true
		return checkTCPFragment(h, f)
	}
	switch {
	case protocolHasPorts(f.Protocol):
		if len(t) < 4 {
			f.PortsOpaque = true
			return nil
		}
		f.SrcPort = binary.BigEndian.Uint16(t)
		f.DstPort = binary.BigEndian.Uint16(t[2:])
	case f.isICMP():
		if len(t) < 2 {
			f.PortsOpaque = true
			return nil
		}
		f.SrcPort = binary.BigEndian.Uint16(t)
		f.DstPort = f.SrcPort
	default:
		return nil
	}
	h.PayloadOffset += transportHeaderLen(t, f.Protocol)
	return nil
}

// transportHeaderLen is the length of the TCP or UDP header at the start of t,
// 0 for anything else and for a header that does not fit.
func transportHeaderLen(t []byte, protocol uint8) int {
	switch {
	case protocol == ProtoUDP && len(t) >= 8:
		return 8
	case protocol == ProtoTCP && len(t) >= 20:
		if n := int(t[12]>>4) * 4; n >= 20 && n <= len(t) {
			return n
		}
	}
	return 0
}

func mapIPv4(dst *[16]byte, addr []byte) {
	dst[10], dst[11] = 0xff, 0xff
	copy(dst[12:], addr)
}

// mix folds two words into h by a full 64x64-bit multiplication (wyhash's
// primitive). h is in both factors: with a constant in place of it in either,
// an address could be chosen that makes the product 0 under every seed.
func mix(h, a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^h^0xa0761d6478bd642f, b^bits.RotateLeft64(h, 32)^0xe7037ed1a0b428db)
	return hi ^ lo
}
