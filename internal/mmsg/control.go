package mmsg

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/packet"
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32 // bytes of the datagram
}

// control is the room for one datagram's control messages, aligned as struct
// cmsghdr wants it. The most that comes is IPV6_PKTINFO, IPV6_TCLASS,
// IP_TOS and UDP_GRO; the most that goes is one of each kind. What a socket for
// whole packets receives takes a wideControl.
type control [16]uint64

func (c *control) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(c)), unsafe.Sizeof(*c))
}

const (
	pktinfo4Len = 12 // struct in_pktinfo: interface, local address, header's destination
	pktinfo6Len = 20 // struct in6_pktinfo: address, interface
	intLen      = 4
)

// putControl makes the header of one control message at the start of b and
// returns its zeroed data and what follows it.
func putControl(b []byte, level, typ int32, dataLen int) (data, rest []byte) {
	space := unix.CmsgSpace(dataLen)
	for i := range b[:space] {
		b[i] = 0
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.SetLen(unix.CmsgLen(dataLen))
	h.Level, h.Type = level, typ
	start := unix.CmsgLen(0)
	return b[start : start+dataLen], b[space:]
}

// putLocal adds the source address, whose family is the destination's: the
// SOL_IP form also on a dual-stack socket.
func putLocal(b []byte, local netip.Addr) []byte {
	if local.Is4() {
		data, rest := putControl(b, unix.SOL_IP, unix.IP_PKTINFO, pktinfo4Len)
		a := local.As4()
		copy(data[4:], a[:])
		return rest
	}
	data, rest := putControl(b, unix.SOL_IPV6, unix.IPV6_PKTINFO, pktinfo6Len)
	a := local.As16()
	copy(data, a[:])
	return rest
}

// putTrafficClass adds the traffic class for a destination of the family.
func putTrafficClass(b []byte, ipv4 bool, tos uint8) []byte {
	level, typ := int32(unix.SOL_IPV6), int32(unix.IPV6_TCLASS)
	if ipv4 {
		level, typ = unix.SOL_IP, unix.IP_TOS
	}
	data, rest := putControl(b, level, typ, intLen)
	binary.NativeEndian.PutUint32(data, uint32(tos))
	return rest
}

// readControl fills d's Local, TOS, TTL and SegmentSize (UDP_GRO) from the control
// messages in b, which the kernel wrote. What tells of headers in front of a raw
// IPv6 packet goes to front, which may be nil.
func readControl(b []byte, d *packet.Datagram, front *ipv6Front) {
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		n := int(h.Len)
		if n < unix.CmsgLen(0) || n > len(b) {
			return
		}
		readControlMessage(h.Level, h.Type, b[unix.CmsgLen(0):n], d, front)
		next := unix.CmsgSpace(n - unix.CmsgLen(0))
		if next >= len(b) {
			return
		}
		b = b[next:]
	}
}

func readControlMessage(level, typ int32, data []byte, d *packet.Datagram, front *ipv6Front) {
	switch {
	case level == unix.SOL_IP && typ == unix.IP_PKTINFO && len(data) >= pktinfo4Len:
		d.Local = netip.AddrFrom4([4]byte(data[8:12]))
	case level == unix.SOL_IPV6 && typ == unix.IPV6_PKTINFO && len(data) >= pktinfo6Len:
		d.Local = netip.AddrFrom16([16]byte(data[:16])).Unmap()
	case level == unix.SOL_IP && typ == unix.IP_TOS && len(data) >= 1:
		d.TOS = data[0] // one byte, unlike what is sent
	case level == unix.SOL_IPV6 && typ == unix.IPV6_TCLASS && len(data) >= intLen:
		d.TOS = uint8(binary.NativeEndian.Uint32(data))
	case level == unix.SOL_UDP && typ == unix.UDP_GRO && len(data) >= intLen:
		d.SegmentSize = int(binary.NativeEndian.Uint32(data))
	case level == unix.SOL_IPV6 && typ == unix.IPV6_HOPLIMIT && len(data) >= intLen:
		d.TTL = uint8(binary.NativeEndian.Uint32(data))
	case level == unix.SOL_IPV6 && front != nil:
		front.add(typ, data)
	}
}

// putAddr writes to as the socket's family wants it, and returns its length.
func (s *Socket) putAddr(sa *unix.RawSockaddrInet6, to netip.Addr, port uint16) uint32 {
	if s.kind != kindUDP {
		port = 0 // a raw IPv6 socket reads a protocol from it
	}
	if s.ipv6 {
		*sa = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: to.As16()}
		putPort(&sa.Port, port)
		return unix.SizeofSockaddrInet6
	}
	sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
	*sa4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.As4()}
	putPort(&sa4.Port, port)
	return unix.SizeofSockaddrInet4
}

// readAddr is the peer's address that the kernel wrote.
func (s *Socket) readAddr(sa *unix.RawSockaddrInet6) netip.AddrPort {
	if s.ipv6 {
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), readPort(&sa.Port))
	}
	sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
	return netip.AddrPortFrom(netip.AddrFrom4(sa4.Addr), readPort(&sa4.Port))
}

func putPort(p *uint16, port uint16) {
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(p))[:], port)
}

func readPort(p *uint16) uint16 {
	return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(p))[:])
}
