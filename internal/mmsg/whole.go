package mmsg

// Whole packets from raw IPv6 sockets. The kernel hands over what follows the
// headers and tells the headers in control messages, each extension header
// whole and in its place on the wire; PrependIPv6 puts them together again.

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/packet"
)

const (
	ipv6Len = 40

	// maxFront is how many bytes of extension headers go in front of a payload.
	maxFront = packet.Headroom - ipv6Len

	ipv6FlowInfo = 11 // IPV6_FLOWINFO of linux/in6.h
)

// wideControl is the room for the control messages of one whole IPv6 packet:
// IPV6_PKTINFO (40 bytes with its header), IPV6_HOPLIMIT, IPV6_TCLASS and
// IPV6_FLOWINFO (24 each), and as many extension headers as go into maxFront,
// in messages of their own (24 for each 8).
type wideControl [48]uint64

func (c *wideControl) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(c)), unsafe.Sizeof(*c))
}

const _ = uint(unsafe.Sizeof(wideControl{}) - (40 + 3*24 + maxFront/8*24))

// widen gives the headers room for what the kernel tells of a whole packet.
func (r *receiver) widen() {
	r.wide = make([]wideControl, MaxBatch)
	r.room = int(unsafe.Sizeof(r.wide[0]))
	for i := range r.hdrs {
		r.hdrs[i].hdr.Control = &r.wide[i].bytes()[0]
	}
}

// setRawOptions asks for the header fields of raw IPv6 packets that are not in
// what the kernel hands over, and filters ICMP.
func (s *Socket) setRawOptions(fd int, set func(what string, level, option, value int) error) error {
	if s.icmp {
		if err := s.filterICMP(fd); err != nil {
			return err
		}
	}
	if !s.ipv6 {
		return nil
	}
	if err := set("IPV6_RECVHOPLIMIT", unix.SOL_IPV6, unix.IPV6_RECVHOPLIMIT, 1); err != nil || !s.whole {
		return err
	}
	for _, o := range []struct {
		what   string
		option int
	}{
		{"IPV6_FLOWINFO", ipv6FlowInfo},
		{"IPV6_RECVHOPOPTS", unix.IPV6_RECVHOPOPTS},
		{"IPV6_RECVRTHDR", unix.IPV6_RECVRTHDR},
		{"IPV6_RECVDSTOPTS", unix.IPV6_RECVDSTOPTS},
	} {
		if err := set(o.what, unix.SOL_IPV6, o.option, 1); err != nil {
			return err
		}
	}
	return nil
}

// acceptIPv6 is acceptIPv4's twin: nothing is there to strip, and for a whole
// packet the headers go in front.
func (s *Socket) acceptIPv6(h *mmsghdr, control []byte, d *packet.Datagram) bool {
	if s.icmp {
		return tellsOfOurPackets(d.Bytes(), true)
	}
	if s.whole && (h.hdr.Flags&unix.MSG_CTRUNC != 0 || !PrependIPv6(control, s.protocol, d)) {
		return skip(&s.unbuilt)
	}
	return true
}

// PrependIPv6 makes a whole IPv6 packet of the protocol's payload d, in the
// memory in front of d.Off, from the control messages that a raw socket got with
// it: destination, traffic class, hop limit, flow label (0 where the kernel did
// not tell it) and extension headers in their order on the wire; the source is
// d.Addr. It sets d.Off, d.Len, d.Local, d.TOS and d.TTL.
//
// Every byte is the wire's, with one exception. A fragment header is not there:
// the kernel has reassembled the packet, or, where nothing was cut (RFC 6946), it
// is taken out here, as by reassembly.
//
// It returns false, and leaves the packet where it is, if the messages do not
// tell a whole chain of headers or one that does not fit packet.Headroom.
func PrependIPv6(control []byte, protocol uint8, d *packet.Datagram) bool {
	front := ipv6Front{last: -1}
	readControl(control, d, &front)
	if !front.link(protocol) || !d.Local.Is6() || !d.Addr.Addr().Is6() {
		return false
	}
	payloadLen := front.n + d.Len
	if payloadLen > packet.MaxLen || d.Off < ipv6Len+front.n {
		return false
	}
	d.Off -= ipv6Len + front.n
	d.Len += ipv6Len + front.n
	h := d.Mem[d.Off:][:ipv6Len+front.n]
	binary.BigEndian.PutUint32(h, 6<<28|uint32(d.TOS)<<20|front.flowLabel)
	binary.BigEndian.PutUint16(h[4:], uint16(payloadLen))
	h[6], h[7] = front.first, d.TTL
	src, dst := d.Addr.Addr().As16(), d.Local.As16()
	copy(h[8:], src[:])
	copy(h[24:], dst[:])
	copy(h[ipv6Len:], front.mem[:front.n])
	return true
}

// ipv6Front is what control messages tell of the headers in front of a payload.
type ipv6Front struct {
	flowLabel uint32
	first     uint8 // protocol of the first header behind IPv6's own
	last      int   // where the last of them starts in mem; -1: there is none
	n         int   // bytes in mem
	broken    bool
	mem       [maxFront]byte
}

func (f *ipv6Front) add(typ int32, data []byte) {
	switch typ {
	case ipv6FlowInfo:
		if len(data) >= intLen {
			f.flowLabel = binary.BigEndian.Uint32(data) & 0xfffff // traffic class in front
		}
	case unix.IPV6_HOPOPTS:
		f.append(packet.ProtoHopByHop, data)
	case unix.IPV6_RTHDR:
		f.append(packet.ProtoRouting, data)
	case unix.IPV6_DSTOPTS:
		f.append(packet.ProtoDestination, data)
	}
}

// append takes one extension header of the protocol.
func (f *ipv6Front) append(protocol uint8, header []byte) {
	// RFC 8200 4.3: Hdr Ext Len is the "Length of the ... header in 8-octet
	// units, not including the first 8 octets".
	if len(header) < 8 || len(header) != 8+8*int(header[1]) || len(header) > len(f.mem)-f.n || !f.link(protocol) {
		f.broken = true
		return
	}
	f.last = f.n
	f.n += copy(f.mem[f.n:], header)
}

// link tells whether the headers so far lead to the protocol.
func (f *ipv6Front) link(protocol uint8) bool {
	if f.last < 0 {
		f.first = protocol
		return !f.broken
	}
	next := &f.mem[f.last]
	if *next == packet.ProtoFragment {
		*next = protocol // the fragment header that stood between them is out
	}
	return !f.broken && *next == protocol
}
