package spd

import (
	"net/netip"
	"slices"

	"github.com/adit-ipsec/adit/internal/packet"
)

// AddrRange is the addresses From..To, both included: "a list of ranges of IP
// addresses" (RFC 4301 4.4.1.1). Both are of one family, From <= To, without
// zones, and an IPv4 address is never written as an IPv4-mapped IPv6 one.
type AddrRange struct{ From, To netip.Addr }

// Contains tells whether a lies in the range. Addresses of the other family
// never do: netip orders all of IPv4 below all of IPv6.
func (r AddrRange) Contains(a netip.Addr) bool {
	return r.From.Compare(a) <= 0 && a.Compare(r.To) <= 0
}

// PortRange is the ports From..To, both included. In Selector.ICMP it holds
// ICMP types and codes as type*256+code.
type PortRange struct{ From, To uint16 }

// Contains tells whether port lies in the range.
func (r PortRange) Contains(port uint16) bool { return r.From <= port && port <= r.To }

// Ports is a selector for a port field, or for ICMP type and code. The zero
// value is ANY.
//
// RFC 4301 4.4.1: "ANY is a wildcard that matches any value in the
// corresponding field of the packet, or that matches packets where that field
// is not present or is obscured. OPAQUE indicates that the corresponding
// selector field is not available for examination because it may not be
// present in a fragment, it does not exist for the given Next Layer Protocol,
// or prior application of IPsec may have encrypted the value. The ANY value
// encompasses the OPAQUE value."
type Ports struct {
	Any    bool        // the same as the zero value, said aloud; stands alone
	Opaque bool        // matches where the field is not to be had
	Ranges []PortRange // matches where the field is to be had and in one of these
}

// IsAny tells whether p matches everything: Any is set, or p is zero.
func (p *Ports) IsAny() bool { return p.Any || !p.Opaque && len(p.Ranges) == 0 }

// MatchPort tells whether p matches a field that holds port.
func (p *Ports) MatchPort(port uint16) bool {
	if p.IsAny() {
		return true
	}
	for _, r := range p.Ranges {
		if r.Contains(port) {
			return true
		}
	}
	return false
}

// MatchOpaque tells whether p matches a field that is not to be had. Ranges
// never do: "If a port selector specifies a value other than ANY or OPAQUE, it
// cannot match packets that are non-initial fragments" (RFC 4301 4.4.1.1).
func (p *Ports) MatchOpaque() bool { return p.Opaque || p.IsAny() }

// Protocol is a selector for the next layer protocol: a number 0..255,
// ProtocolAny or ProtocolOpaque. Mind that its zero value is protocol 0 and
// not ANY.
type Protocol int16

// The protocols that are no numbers.
const (
	ProtocolAny    Protocol = -1
	ProtocolOpaque Protocol = -2
)

// HasPorts tells whether packets of the protocol have a local and a remote
// port. It is false for ProtocolAny and ProtocolOpaque.
func (p Protocol) HasPorts() bool {
	if p < 0 || p > 255 || p.IsICMP() {
		return false
	}
	f := packet.Flow{Protocol: uint8(p)}
	return f.HasPorts()
}

// IsICMP tells whether packets of the protocol have an ICMP type and code.
func (p Protocol) IsICMP() bool { return p == packet.ProtoICMP || p == packet.ProtoICMPv6 }

// match tells whether p matches the flow's protocol. OPAQUE matches only a
// protocol that is not to be had, ANY matches that as well.
func (p Protocol) match(f *packet.Flow) bool {
	switch {
	case p == ProtocolAny:
		return true
	case f.ProtocolOpaque:
		return p == ProtocolOpaque
	}
	return p == Protocol(f.Protocol)
}

// Selector is one set of the selectors of RFC 4301 4.4.1.1: a flow matches
// when every field does. Local is this gateway's side: the source of outbound
// and the destination of inbound packets. Both address families may stand in
// one selector; a flow matches with both ends in ranges of its own family.
//
// Not here: the Name selector (4.4.1.1), which stands for identities of key
// management, and the Mobility Header type, which packet.Flow does not have:
// a mobility header (135) is matched by its protocol number alone.
type Selector struct {
	Local, Remote           []AddrRange // never empty; "any" is both whole families
	Protocol                Protocol
	LocalPorts, RemotePorts Ports // ranges only with a protocol that HasPorts
	ICMP                    Ports // only with a protocol that IsICMP
}

// Clone returns a copy that shares no memory with s.
func (s *Selector) Clone() Selector {
	c := *s
	c.Local, c.Remote = slices.Clone(s.Local), slices.Clone(s.Remote)
	c.LocalPorts.Ranges = slices.Clone(s.LocalPorts.Ranges)
	c.RemotePorts.Ranges = slices.Clone(s.RemotePorts.Ranges)
	c.ICMP.Ranges = slices.Clone(s.ICMP.Ranges)
	return c
}

// Match tells whether the flow matches the selector in this direction. It is
// the linear reference for the compiled Table, and what is asked of an SA's own
// selectors. It does not allocate. The selector is taken to be valid.
func (s *Selector) Match(dir Direction, f *packet.Flow) bool {
	if f.Version != 4 && f.Version != 6 {
		return false
	}
	local, remote := f.SrcAddr(), f.DstAddr()
	localPort, remotePort := f.SrcPort, f.DstPort
	if dir != Outbound {
		local, remote = remote, local
		localPort, remotePort = remotePort, localPort
	}
	return s.Protocol.match(f) &&
		containsAddr(s.Local, local) &&
		containsAddr(s.Remote, remote) &&
		s.matchPorts(f, localPort, remotePort)
}

// matchPorts asks each of the three port fields for what the flow has: its
// value, or that it is not to be had. A flow has ports, or an ICMP type and
// code, or neither; never both.
func (s *Selector) matchPorts(f *packet.Flow, localPort, remotePort uint16) bool {
	switch {
	case f.ProtocolOpaque, f.PortsOpaque, !f.HasPorts():
		return s.LocalPorts.MatchOpaque() && s.RemotePorts.MatchOpaque() && s.ICMP.MatchOpaque()
	case Protocol(f.Protocol).IsICMP():
		return s.LocalPorts.MatchOpaque() && s.RemotePorts.MatchOpaque() && s.ICMP.MatchPort(f.SrcPort)
	}
	return s.LocalPorts.MatchPort(localPort) && s.RemotePorts.MatchPort(remotePort) && s.ICMP.MatchOpaque()
}

func containsAddr(ranges []AddrRange, a netip.Addr) bool {
	for i := range ranges {
		if ranges[i].Contains(a) {
			return true
		}
	}
	return false
}
