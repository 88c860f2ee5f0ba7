package packet

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// IP protocol numbers that this project names.
const (
	ProtoHopByHop    = 0
	ProtoICMP        = 1
	ProtoIPv4        = 4
	ProtoTCP         = 6
	ProtoUDP         = 17
	ProtoIPv6        = 41
	ProtoRouting     = 43
	ProtoFragment    = 44
	ProtoGRE         = 47
	ProtoESP         = 50
	ProtoAH          = 51
	ProtoICMPv6      = 58
	ProtoNone        = 59 // "no next header": a dummy packet inside ESP (RFC 4303 2.6)
	ProtoDestination = 60
	ProtoSCTP        = 132
	ProtoUDPLite     = 136
)

// Flow is what selectors see of one packet (RFC 4301 4.4.1.1): comparable,
// without pointers, so that it is the key of flow caches.
type Flow struct {
	// Src and Dst are 16-byte addresses; an IPv4 address is mapped
	// (::ffff:a.b.c.d), and Version tells it from a real IPv6 one.
	Src, Dst [16]byte
	// SrcPort and DstPort are ports; for ICMP and ICMPv6 both hold
	// type*256+code (RFC 4301 4.4.1.1), so that swapping them changes
	// nothing. Meaningless while PortsOpaque.
	SrcPort, DstPort uint16
	// Protocol is the next layer protocol behind all IPv6 extension
	// headers. Meaningless while ProtocolOpaque.
	Protocol uint8
	Version  uint8 // 4 or 6
	// PortsOpaque: the ports are not to be had from this packet: a
	// non-initial fragment, or too short to hold them.
	PortsOpaque bool
	// ProtocolOpaque: the next layer protocol is not to be had: an IPv6
	// fragment whose header chain goes on in another fragment.
	ProtocolOpaque bool
}

// HasPorts tells whether ports (or ICMP type and code) mean something for the
// flow's protocol.
func (f *Flow) HasPorts() bool { return protocolHasPorts(f.Protocol) || f.isICMP() }

func (f *Flow) isICMP() bool { return f.Protocol == ProtoICMP || f.Protocol == ProtoICMPv6 }

func protocolHasPorts(p uint8) bool {
	switch p {
	case ProtoTCP, ProtoUDP, ProtoSCTP, ProtoUDPLite:
		return true
	}
	return false
}

// SrcAddr is the source address in its own family.
func (f *Flow) SrcAddr() netip.Addr { return f.addr(f.Src) }

// DstAddr is the destination address in its own family.
func (f *Flow) DstAddr() netip.Addr { return f.addr(f.Dst) }

func (f *Flow) addr(a [16]byte) netip.Addr {
	if f.Version == 4 {
		return netip.AddrFrom4([4]byte(a[12:]))
	}
	return netip.AddrFrom16(a)
}

// Reverse is the flow of the answer: addresses and ports swapped.
func (f Flow) Reverse() Flow {
	f.Src, f.Dst = f.Dst, f.Src
	f.SrcPort, f.DstPort = f.DstPort, f.SrcPort
	return f
}

// Hash mixes the flow with seed. It is for caches: fast, not for storage and
// not collision resistant beyond the seed's secrecy.
func (f *Flow) Hash(seed uint64) uint64 {
	h := seed
	h = mix(h, binary.LittleEndian.Uint64(f.Src[0:8]), binary.LittleEndian.Uint64(f.Src[8:16]))
	h = mix(h, binary.LittleEndian.Uint64(f.Dst[0:8]), binary.LittleEndian.Uint64(f.Dst[8:16]))
	tail := uint64(f.SrcPort)<<32 | uint64(f.DstPort)<<16 | uint64(f.Protocol)<<8 | uint64(f.Version)
	if f.PortsOpaque {
		tail |= 1 << 48
	}
	if f.ProtocolOpaque {
		tail |= 1 << 49
	}
	return mix(h, tail, 0x9e3779b97f4a7c15)
}

// String is the flow in the words of tcpdump, for logs and events.
func (f Flow) String() string {
	proto := fmt.Sprintf("proto %d", f.Protocol)
	switch f.Protocol {
	case ProtoTCP:
		proto = "tcp"
	case ProtoUDP:
		proto = "udp"
	case ProtoICMP:
		proto = "icmp"
	case ProtoICMPv6:
		proto = "icmpv6"
	}
	switch {
	case f.ProtocolOpaque:
		return fmt.Sprintf("%s > %s proto opaque", f.SrcAddr(), f.DstAddr())
	case f.isICMP() && !f.PortsOpaque:
		return fmt.Sprintf("%s > %s %s type %d code %d", f.SrcAddr(), f.DstAddr(), proto, f.SrcPort>>8, f.SrcPort&0xff)
	case protocolHasPorts(f.Protocol) && !f.PortsOpaque:
		return fmt.Sprintf("%s > %s %s", netip.AddrPortFrom(f.SrcAddr(), f.SrcPort), netip.AddrPortFrom(f.DstAddr(), f.DstPort), proto)
	}
	return fmt.Sprintf("%s > %s %s", f.SrcAddr(), f.DstAddr(), proto)
}
