package packet

import "encoding/binary"

// DatagramID is what the fragments of one datagram share: "The internet
// identification field (ID) is used together with the source and destination
// address, and the protocol fields, to identify datagram fragments for
// reassembly" (RFC 791 3.2); in IPv6 the addresses and the Identification alone
// (RFC 8200 4.5). It is comparable and has no pointers.
type DatagramID struct {
	Src, Dst       [16]byte // as in Flow
	Identification uint32   // 16 bits in IPv4
	Protocol       uint8    // IPv4: the next layer protocol; IPv6: 0
	Version        uint8    // 4 or 6
}

// Hash mixes the ID with seed, as Flow.Hash does.
func (d *DatagramID) Hash(seed uint64) uint64 {
	f := Flow{
		Src: d.Src, Dst: d.Dst, Protocol: d.Protocol, Version: d.Version,
		SrcPort: uint16(d.Identification >> 16), DstPort: uint16(d.Identification),
	}
	return f.Hash(seed)
}

// Fragment is the place of one fragment in its datagram.
type Fragment struct {
	Datagram   DatagramID
	Start, End int  // bytes of the datagram's fragmentable part: Start included, End not
	More       bool // more fragments follow
	// Nested: IPv6, and one more fragment header stands behind the first.
	// No node makes such a packet; whoever reassembles it starts twice.
	Nested bool
}

// ReadFragment reads b, a whole packet, for its place in a datagram. b may be
// longer than the packet. It is also for packets that Parse refuses with
// ErrFragment. ok is false for what is no fragment, and for no packet at all; an
// atomic fragment (RFC 6946) is no fragment.
func ReadFragment(b []byte) (f Fragment, ok bool) {
	if len(b) < 20 {
		return f, false
	}
	switch b[0] >> 4 {
	case 4:
		return readFragment4(b)
	case 6:
		return readFragment6(b)
	}
	return f, false
}

func readFragment4(b []byte) (f Fragment, ok bool) {
	field := binary.BigEndian.Uint16(b[6:])
	length := int(binary.BigEndian.Uint16(b[2:])) - int(b[0]&0x0f)*4
	if field&0x3fff == 0 || length < 0 {
		return f, false
	}
	d := &f.Datagram
	mapIPv4(&d.Src, b[12:16])
	mapIPv4(&d.Dst, b[16:20])
	d.Version, d.Protocol = 4, b[9]
	d.Identification = uint32(binary.BigEndian.Uint16(b[4:]))
	f.Start, f.More = int(field&0x1fff)*8, field&0x2000 != 0
	f.End = f.Start + length
	return f, true
}

func readFragment6(b []byte) (f Fragment, ok bool) {
	if len(b) < 40 {
		return f, false
	}
	total := min(40+int(binary.BigEndian.Uint16(b[4:])), len(b))
	headers := 0
	next, off := b[6], 40
	for range maxExtensionHeaders + 1 {
		if off+8 > total {
			break
		}
		headerLen := 8
		switch next {
		case ProtoHopByHop, ProtoRouting, ProtoDestination:
			headerLen = (int(b[off+1]) + 1) * 8
		case ProtoFragment:
			if headers++; !ok {
				ok = f.read6(b, off, total)
			}
		default:
			headerLen = 0
		}
		if headerLen == 0 || f.Start > 0 { // what follows is data
			break
		}
		next, off = b[off], off+headerLen
	}
	f.Nested = headers > 1
	return f, ok
}

// read6 reads the IPv6 fragment header at off; false: it fragments nothing.
func (f *Fragment) read6(b []byte, off, total int) bool {
	field := binary.BigEndian.Uint16(b[off+2:])
	if field&0xfff9 == 0 {
		return false
	}
	d := &f.Datagram
	copy(d.Src[:], b[8:24])
	copy(d.Dst[:], b[24:40])
	d.Version, d.Identification = 6, binary.BigEndian.Uint32(b[off+4:])
	f.Start, f.More = int(field&^7), field&1 != 0
	f.End = f.Start + total - off - 8
	return true
}
