package packet

import (
	"encoding/binary"
	"errors"
)

// Why a packet cannot be cut into fragments. They are values, not built per
// packet.
var (
	ErrDontFragment = errors.New("packet: longer than the MTU, and not to be fragmented")
	ErrFragmentMTU  = errors.New("packet: the MTU leaves no room for a fragment")
	ErrOptions      = errors.New("packet: IPv4 options that cannot be read")
)

// Fragments cuts one IP packet into fragments. It holds no memory of its own and
// allocates nothing: it reads the packet that Init was given, which must stay as
// it is until the last Next.
type Fragments struct {
	p    []byte // the whole packet
	mtu  int
	next int // where in p the next fragment's data starts
	// first and later are the header lengths, in bytes, of the first fragment
	// and of the others.
	first, later int
	header       [60]byte // IPv4: the header of later fragments
	more         bool     // IPv4: the packet is a fragment with others behind it
	offset       int      // IPv4: of the packet's own data, in bytes
	nextHeader   uint8    // IPv6: what the fragment header names
	nextAt       int      // IPv6: where in the header chain the fragment header is named
	id           uint32   // IPv6
}

// fragmentHeader is the length of IPv6's fragment header, in bytes.
const fragmentHeader = 8

// Init takes the valid IP packet at the start of p, to be cut into fragments of
// at most mtu bytes, IP header included. A packet that fits stays whole.
//
// IPv4 is cut as a router does (RFC 791 2.3, 3.2), a fragment too; id is not used,
// for the packet has its own. IPv6 is cut as its source does (RFC 8200 4.5), with
// id, which the caller does not repeat between two addresses; what has a fragment
// header already is not cut again.
//
// The error is one of Parse's, or ErrDontFragment (IPv4's DF, IPv6's fragment
// header, or an IPv6 header chain that does not fit into the first fragment),
// ErrFragmentMTU, or ErrOptions. Next then makes nothing.
func (f *Fragments) Init(p []byte, mtu int, id uint32) error {
	f.p, f.next = nil, 0
	var h Header
	var flow Flow
	if err := Parse(p, &h, &flow); err != nil {
		return err
	}
	p = p[:h.TotalLen]
	var err error
	if h.TotalLen <= mtu {
		f.first, f.later = 0, 0
	} else if h.Version == 4 {
		err = f.init4(p, mtu, &h)
	} else {
		err = f.init6(p, mtu, &h, id)
	}
	if err != nil {
		return err
	}
	f.p, f.mtu, f.next = p, mtu, f.first
	return nil
}

// Remaining is how many fragments Next is still going to make.
func (f *Fragments) Remaining() int {
	rest := len(f.p) - f.next
	switch {
	case rest <= 0:
		return 0
	case f.first == 0:
		return 1
	}
	n := 0
	if f.next == f.first {
		n, rest = 1, rest-f.room(f.firstLen())
	}
	each := f.room(f.later)
	if last := f.mtu - f.later; rest > last { // the last one's length is free
		more := (rest - last + each - 1) / each
		n, rest = n+more, rest-more*each
	}
	if rest > 0 {
		n++
	}
	return n
}

// Next makes the next fragment in dst, a whole IP packet of n bytes. dst holds the
// MTU or the packet, whichever is shorter, and does not overlap the packet. ok is
// false behind the last one, and when dst is too short.
func (f *Fragments) Next(dst []byte) (n int, ok bool) {
	rest := len(f.p) - f.next
	if rest <= 0 || len(dst) < min(f.mtu, len(f.p)) {
		return 0, false
	}
	if f.first == 0 {
		f.next = len(f.p)
		return copy(dst, f.p), true
	}
	if f.p[0]>>4 == 4 {
		return f.next4(dst, rest), true
	}
	return f.next6(dst, rest), true
}

// firstLen is the length of the first fragment's headers.
func (f *Fragments) firstLen() int {
	if f.p[0]>>4 == 4 {
		return f.first
	}
	return f.first + fragmentHeader
}

// room is what a fragment other than the last carries behind its headers: RFC 791
// 3.2, RFC 8200 4.5, "an integer multiple of 8 octets long".
func (f *Fragments) room(headers int) int { return (f.mtu - headers) &^ 7 }

// take is the length of the next fragment's data, and whether it is the last.
func (f *Fragments) take(headers, rest int) (int, bool) {
	if headers+rest <= f.mtu {
		return rest, true
	}
	return f.room(headers), false
}

func (f *Fragments) init4(p []byte, mtu int, h *Header) error {
	if h.DF {
		return ErrDontFragment
	}
	if mtu < h.TransportOffset+8 {
		return ErrFragmentMTU
	}
	f.first = h.TransportOffset
	f.offset = h.FragmentOffset
	f.more = p[6]&0x20 != 0
	copy(f.header[:20], p)
	n, ok := copiedOptions(f.header[20:], p[20:h.TransportOffset])
	if !ok {
		return ErrOptions
	}
	f.later = 20 + n
	f.header[0] = 0x40 | byte(f.later/4)
	return nil
}

// copiedOptions writes those of the IPv4 options that go into every fragment, and
// padding to a multiple of 4 bytes. RFC 791 3.1: "The copied flag indicates that
// this option is copied into all fragments on fragmentation".
func copiedOptions(dst, options []byte) (n int, ok bool) {
	for at := 0; at < len(options); {
		kind, length := options[at], 1
		if kind == 0 { // end of the list
			break
		}
		if kind != 1 { // not "no operation", which is one byte long
			if at+2 > len(options) {
				return 0, false
			}
			length = int(options[at+1])
			if length < 2 || at+length > len(options) {
				return 0, false
			}
		}
		if kind&0x80 != 0 {
			n += copy(dst[n:], options[at:at+length])
		}
		at += length
	}
	for n%4 != 0 {
		dst[n] = 0
		n++
	}
	return n, true
}

func (f *Fragments) next4(dst []byte, rest int) int {
	header := f.header[:f.later]
	if f.next == f.first {
		header = f.p[:f.first]
	}
	length, last := f.take(len(header), rest)
	n := copy(dst, header)
	n += copy(dst[n:], f.p[f.next:f.next+length])
	binary.BigEndian.PutUint16(dst[2:], uint16(n))
	// RFC 791 3.2: "The more-fragments flag is set" in all but the last, which
	// keeps what the packet said.
	field := uint16((f.offset + f.next - f.first) / 8)
	if !last || f.more {
		field |= 0x2000
	}
	binary.BigEndian.PutUint16(dst[6:], field|uint16(f.p[6]&0x80)<<8)
	dst[10], dst[11] = 0, 0
	binary.BigEndian.PutUint16(dst[10:], ^Checksum(dst[:len(header)], 0))
	f.next += length
	return n
}

func (f *Fragments) init6(p []byte, mtu int, h *Header, id uint32) error {
	if !f.perFragment(p, h.TransportOffset) {
		return ErrDontFragment
	}
	f.later, f.id = f.first+fragmentHeader, id
	f.nextHeader = p[f.nextAt]
	if mtu < f.later+8 {
		return ErrFragmentMTU
	}
	// RFC 8200 4.5: "Extension headers, if any, and the Upper-Layer header.
	// These headers must be in the first fragment." Of an upper layer that
	// Parse does not measure, ESP for one, eight bytes are its header.
	headers := max(h.PayloadOffset, min(h.TransportOffset+8, len(p)))
	if f.first+(mtu-f.later)&^7 < headers {
		return ErrDontFragment
	}
	return nil
}

// perFragment finds the end of the per-fragment headers: RFC 8200 4.5, "all
// headers up to and including the Routing header if present, else the Hop-by-Hop
// Options header if present, else no extension headers". end is where the upper
// layer starts. It is false where there is a fragment header already.
func (f *Fragments) perFragment(p []byte, end int) bool {
	f.first, f.nextAt = 40, 6
	for at, off := 6, 40; off < end; {
		next := p[at]
		if next == ProtoFragment {
			return false
		}
		at, off = off, off+(int(p[off+1])+1)*8
		if next == ProtoHopByHop && at == 40 || next == ProtoRouting {
			f.first, f.nextAt = off, at
		}
	}
	return true
}

func (f *Fragments) next6(dst []byte, rest int) int {
	length, last := f.take(f.later, rest)
	n := copy(dst, f.p[:f.first])
	dst[f.nextAt] = ProtoFragment
	field := uint16(f.next - f.first)
	if !last {
		field |= 1
	}
	dst[n], dst[n+1] = f.nextHeader, 0
	binary.BigEndian.PutUint16(dst[n+2:], field)
	binary.BigEndian.PutUint32(dst[n+4:], f.id)
	n += fragmentHeader
	n += copy(dst[n:], f.p[f.next:f.next+length])
	binary.BigEndian.PutUint16(dst[4:], uint16(n-40))
	f.next += length
	return n
}
