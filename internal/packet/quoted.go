package packet

import "encoding/binary"

// QuotedFlow is the flow of the packet that an ICMP error quotes, as the quoted
// packet's sender addressed it. Of the packet only its beginning is there: its IP
// header and, of IPv4, 64 bits more (RFC 792), or as much as fits (RFC 1812
// 4.3.2.3, RFC 4443 2.4). So the packet's own length is not demanded, where Parse
// does.
//
// What the quote does not show is opaque: ports where the transport header's first
// four bytes (ICMP: two) are not there, the protocol where an IPv6 header chain is
// cut. ok is false when the addresses and, of IPv4, the header's end are not there.
func QuotedFlow(quoted []byte) (f Flow, ok bool) {
	if len(quoted) == 0 {
		return Flow{}, false
	}
	switch quoted[0] >> 4 {
	case 4:
		ok = quotedIPv4(quoted, &f)
	case 6:
		ok = quotedIPv6(quoted, &f)
	}
	if !ok {
		return Flow{}, false
	}
	return f, true
}

func quotedIPv4(b []byte, f *Flow) bool {
	if len(b) < 20 {
		return false
	}
	headerLen := int(b[0]&0x0f) * 4
	if headerLen < 20 || headerLen > len(b) {
		return false
	}
	total := int(binary.BigEndian.Uint16(b[2:]))
	if total < headerLen {
		return false
	}
	f.Version = 4
	mapIPv4(&f.Src, b[12:16])
	mapIPv4(&f.Dst, b[16:20])
	f.Protocol = b[9]
	// What lies behind the packet's end is padding (RFC 4884 3), no ports.
	quotedPorts(b[headerLen:min(total, len(b))], binary.BigEndian.Uint16(b[6:])&0x1fff != 0, f)
	return true
}

func quotedIPv6(b []byte, f *Flow) bool {
	if len(b) < 40 {
		return false
	}
	f.Version = 6
	copy(f.Src[:], b[8:24])
	copy(f.Dst[:], b[24:40])
	b = b[:min(40+int(binary.BigEndian.Uint16(b[4:])), len(b))]
	next, off, later := b[6], 40, false
	for range maxExtensionHeaders + 1 { // and the header behind them
		headerLen := 8
		switch next {
		case ProtoHopByHop, ProtoRouting, ProtoDestination:
			if later {
				return quotedOpaque(f)
			}
			if off+2 <= len(b) {
				headerLen = (int(b[off+1]) + 1) * 8
			}
		case ProtoFragment:
			if later {
				return quotedOpaque(f)
			}
			if off+8 <= len(b) {
				later = binary.BigEndian.Uint16(b[off+2:])&^7 != 0
			}
		default:
			f.Protocol = next
			quotedPorts(b[off:], later, f)
			return true
		}
		if off+headerLen > len(b) {
			return quotedOpaque(f)
		}
		next, off = b[off], off+headerLen
	}
	return quotedOpaque(f)
}

// quotedOpaque ends the walk where the chain goes on and the quote does not.
func quotedOpaque(f *Flow) bool {
	f.ProtocolOpaque, f.PortsOpaque = true, true
	return true
}

// quotedPorts fills ports, or ICMP type and code, from the transport header t, as
// far as it is there; later says that t is data of a later fragment.
func quotedPorts(t []byte, later bool, f *Flow) {
	switch {
	case later:
		f.PortsOpaque = true
	case protocolHasPorts(f.Protocol):
		if len(t) < 4 {
			f.PortsOpaque = true
			return
		}
		f.SrcPort = binary.BigEndian.Uint16(t)
		f.DstPort = binary.BigEndian.Uint16(t[2:])
	case f.isICMP():
		if len(t) < 2 {
			f.PortsOpaque = true
			return
		}
		f.SrcPort = binary.BigEndian.Uint16(t)
		f.DstPort = f.SrcPort
	}
}
