package tun

import (
	"bytes"
	"encoding/binary"

	"github.com/adit-ipsec/adit/internal/crypt"
	"github.com/adit-ipsec/adit/internal/packet"
)

// outline is what the Coalescer asks of a packet's headers. For what may be
// merged, TCP and UDP without IP options, extension headers or fragments, it is
// read without packet.Parse.
type outline struct {
	flow      flowKey
	transport int // where TCP or UDP starts
	payload   int // where its payload starts
	total     int // the packet's length by its own header
	mergeable bool
}

// flowKey is a flow of TCP or UDP: addresses, ports and protocol. The zero value
// is the flow of no packet.
type flowKey struct {
	tail  uint64    // ports, protocol, version
	addrs [4]uint64 // source and destination; those of IPv4 in the first
}

func flowTail(ports uint32, protocol, version uint8) uint64 {
	return uint64(ports)<<32 | uint64(protocol)<<8 | uint64(version)
}

// read fills o from the packet p, which may have padding behind it. false: p is
// no IP packet, and nothing of o is to be used.
func (o *outline) read(p []byte) bool {
	o.mergeable = false
	if len(p) >= ipv4HeaderLen+udpHeaderLen && p[0] == 0x45 {
		o.transport, o.total = ipv4HeaderLen, int(binary.BigEndian.Uint16(p[2:]))
		const fragmented = 0x3fff // more fragments, or an offset
		if o.fits(p, p[9]) && binary.BigEndian.Uint16(p[6:])&fragmented == 0 {
			o.flow.addrs = [4]uint64{binary.BigEndian.Uint64(p[12:])}
			o.readTransport(p[:o.total], p[9], 4)
			return true
		}
	} else if len(p) >= ipv6HeaderLen+udpHeaderLen && p[0]>>4 == 6 {
		o.transport, o.total = ipv6HeaderLen, ipv6HeaderLen+int(binary.BigEndian.Uint16(p[4:]))
		if o.fits(p, p[6]) {
			for i := range o.flow.addrs {
				o.flow.addrs[i] = binary.BigEndian.Uint64(p[8+8*i:])
			}
			o.readTransport(p[:o.total], p[6], 6)
			return true
		}
	}
	return o.parse(p)
}

// fits tells whether p is of TCP or UDP and holds at least their ports.
func (o *outline) fits(p []byte, protocol uint8) bool {
	return (protocol == packet.ProtoTCP || protocol == packet.ProtoUDP) &&
		o.total >= o.transport+udpHeaderLen && o.total <= min(len(p), packet.MaxLen)
}

// readTransport reads the TCP or UDP header of the whole packet p. Whether it
// may be merged depends on no checksum yet.
func (o *outline) readTransport(p []byte, protocol, version uint8) {
	t := p[o.transport:]
	o.flow.tail = flowTail(binary.BigEndian.Uint32(t), protocol, version)
	if protocol == packet.ProtoUDP {
		o.payload = o.transport + udpHeaderLen
		// A zero checksum says that there is none; the kernel would make one.
		o.mergeable = len(t) > udpHeaderLen &&
			int(binary.BigEndian.Uint16(t[udpLen:])) == len(t) && binary.BigEndian.Uint16(t[udpSum:]) != 0
		return
	}
	if len(t) < tcpHeaderLen {
		return
	}
	header := int(t[tcpOffset]>>4) * 4
	o.payload = o.transport + header
	const plain = flagACK | flagPSH | flagFIN | flagECE
	o.mergeable = header >= tcpHeaderLen && header < len(t) && t[tcpFlags]&flagACK != 0 && t[tcpFlags]&^plain == 0
}

// parse is read for all other packets: none is merged, but it may be of a flow
// whose group it must end.
func (o *outline) parse(p []byte) bool {
	var h packet.Header
	var f packet.Flow
	if packet.Parse(p, &h, &f) != nil {
		return false
	}
	o.total, o.flow = h.TotalLen, flowKey{}
	if f.Protocol != packet.ProtoTCP && f.Protocol != packet.ProtoUDP || f.PortsOpaque || f.ProtocolOpaque {
		return true
	}
	o.flow.tail = flowTail(uint32(f.SrcPort)<<16|uint32(f.DstPort), f.Protocol, f.Version)
	if f.Version == 4 {
		o.flow.addrs[0] = uint64(binary.BigEndian.Uint32(f.Src[12:]))<<32 | uint64(binary.BigEndian.Uint32(f.Dst[12:]))
		return true
	}
	for i := range 2 {
		o.flow.addrs[i] = binary.BigEndian.Uint64(f.Src[8*i:])
		o.flow.addrs[2+i] = binary.BigEndian.Uint64(f.Dst[8*i:])
	}
	return true
}

func (k *flowKey) protocol() uint8 { return uint8(k.tail >> 8) }

// follows compares the headers of q with those of p, the first packet of g, of
// whose flow and header length q is, where q comes next. sameID is what
// g.sameID becomes.
func follows(g *group, p, q []byte) (sameID, ok bool) {
	if g.transport == ipv4HeaderLen {
		if sameID, ok = followsIPv4(g, p, q); !ok {
			return false, false
		}
	} else if binary.BigEndian.Uint32(p) != binary.BigEndian.Uint32(q) || p[7] != q[7] { // traffic class, flow label; hop limit
		return false, false
	}
	p, q = p[g.transport:g.payload], q[g.transport:g.payload]
	if len(p) == udpHeaderLen {
		return sameID, g.packets < maxUDPSegments
	}
	const mayDiffer = flagFIN | flagPSH // on the last packet
	next := binary.BigEndian.Uint32(p[tcpSeq:]) + uint32(g.packets*g.size)
	// ACK number, header length, flags and window lie side by side.
	differ := binary.BigEndian.Uint64(p[tcpAck:]) ^ binary.BigEndian.Uint64(q[tcpAck:])
	ok = binary.BigEndian.Uint32(q[tcpSeq:]) == next && differ&^(mayDiffer<<16) == 0 &&
		bytes.Equal(p[tcpUrgent:], q[tcpUrgent:]) // and options
	return sameID, ok
}

// followsIPv4 compares TOS, flags, TTL and identification.
func followsIPv4(g *group, p, q []byte) (sameID, ok bool) {
	if p[1] != q[1] || p[6] != q[6] || p[8] != q[8] {
		return false, false
	}
	step := binary.BigEndian.Uint16(q[4:]) - binary.BigEndian.Uint16(p[4:])
	if step == 0 && p[6]&0x40 != 0 {
		return true, g.packets == 1 || g.sameID
	}
	return false, !g.sameID && step == uint16(g.packets)
}

// sound verifies the checksums of p, a mergeable packet of g's flow. All ones in
// place of zero is right as a sum, but not what cutting would give back; for UDP
// it is the other way round, and readTransport has seen to that.
func sound(g *group, p []byte) bool {
	if g.transport == ipv4HeaderLen && (packet.Checksum(p[:ipv4HeaderLen], 0) != 0xffff || binary.BigEndian.Uint16(p[10:]) == 0xffff) {
		return false
	}
	if g.protocol == packet.ProtoTCP && binary.BigEndian.Uint16(p[g.transport+tcpSum:]) == 0xffff {
		return false
	}
	return crypt.Checksum(p[g.addrs():], g.pseudo(len(p)-g.transport)) == 0xffff
}

// addrs is where the addresses lie: just before the transport header.
func (g *group) addrs() int {
	if g.transport == ipv4HeaderLen {
		return 12
	}
	return 8
}

// pseudo is the sum of the pseudo header for so many bytes of TCP or UDP, but
// for the addresses.
func (g *group) pseudo(length int) uint16 { return fold(uint32(g.protocol) + uint32(length)) }
