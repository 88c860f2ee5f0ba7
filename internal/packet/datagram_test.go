package packet

import (
	"encoding/binary"
	"testing"
)

// withID6 sets the identification of the fragment header at off.
func withID6(b []byte, off int, id uint32) []byte {
	binary.BigEndian.PutUint32(b[off+4:], id)
	return b
}

func TestRFC791_RFC8200_4_5_ReadFragment(t *testing.T) {
	id4 := func(b []byte, id uint16) []byte {
		binary.BigEndian.PutUint16(b[4:], id)
		return b
	}
	tests := []struct {
		name       string
		in         []byte
		start, end int
		more       bool
		nested     bool
		id         uint32
		protocol   uint8
	}{
		{"v4 first", id4(ipv4(ProtoUDP, 0, 0x2000, make([]byte, 16)), 7), 0, 16, true, false, 7, ProtoUDP},
		{"v4 first, options", id4(ipv4(ProtoTCP, 40, 0x2000, make([]byte, 24)), 0xffff), 0, 24, true, false, 0xffff, ProtoTCP},
		{"v4 middle", id4(ipv4(ProtoUDP, 0, 0x2002, make([]byte, 8)), 9), 16, 24, true, false, 9, ProtoUDP},
		{"v4 last", id4(ipv4(ProtoGRE, 0, 0x0002, make([]byte, 3)), 9), 16, 19, false, false, 9, ProtoGRE},
		{"v4 beyond 65535, which Parse refuses", id4(ipv4(ProtoUDP, 0, 0x1fff, make([]byte, 16)), 9), 65528, 65544, false, false, 9, ProtoUDP},
		{"v6 first", withID6(ipv6(ProtoUDP, make([]byte, 16), fragment6(0, true)), 40, 1<<31), 0, 16, true, false, 1 << 31, 0},
		{"v6 last", withID6(ipv6(ProtoUDP, make([]byte, 5), fragment6(1448, false)), 40, 3), 1448, 1453, false, false, 3, 0},
		{"v6 behind another header", withID6(ipv6(ProtoUDP, make([]byte, 8), options(ProtoHopByHop, 16), fragment6(8, true)), 56, 3), 8, 16, true, false, 3, 0},
		{"v6 first, headers behind it count", withID6(ipv6(ProtoUDP, make([]byte, 8), fragment6(0, true), options(ProtoDestination, 24)), 40, 3), 0, 32, true, false, 3, 0},
		{"v6 TCP at 8, which Parse refuses", withID6(ipv6(ProtoTCP, make([]byte, 8), fragment6(8, true)), 40, 3), 8, 16, true, false, 3, 0},
		{"v6 two fragment headers", withID6(ipv6(ProtoUDP, make([]byte, 8), fragment6(0, true), fragment6(8, true)), 40, 3), 0, 16, true, true, 3, 0},
		{"v6 atomic, then one that fragments", withID6(ipv6(ProtoUDP, make([]byte, 8), fragment6(0, false), fragment6(8, true)), 48, 4), 8, 16, true, true, 4, 0},
	}
	for _, tt := range tests {
		for _, padding := range []int{0, 13} {
			f, ok := ReadFragment(append(append([]byte(nil), tt.in...), make([]byte, padding)...))
			d := f.Datagram
			if !ok || f.Start != tt.start || f.End != tt.end || f.More != tt.more || f.Nested != tt.nested || d.Identification != tt.id || d.Protocol != tt.protocol {
				t.Errorf("%s: read %+v, %v", tt.name, f, ok)
			}
			var h Header
			var flow Flow
			_ = Parse(tt.in, &h, &flow)
			if d.Src != flow.Src || d.Dst != flow.Dst || d.Version != flow.Version {
				t.Errorf("%s: addresses %v, %v of version %d, and Parse says %v", tt.name, d.Src, d.Dst, d.Version, flow)
			}
		}
	}
}

// Errata 133 and 134 of RFC 4301 and RFC 6946: offset 0 and no more fragments is
// a whole packet.
func TestRFC6946_AtomicFragmentsAreNoFragments(t *testing.T) {
	whole := map[string][]byte{
		"v4":                      ipv4(ProtoUDP, 0, 0x4000, make([]byte, 16)),
		"v6":                      ipv6(ProtoUDP, ports(1, 2, 8)),
		"v6 atomic":               ipv6(ProtoUDP, ports(1, 2, 8), fragment6(0, false)),
		"v6 atomic, twice":        ipv6(ProtoUDP, ports(1, 2, 8), fragment6(0, false), fragment6(0, false)),
		"v6 atomic, option after": ipv6(ProtoUDP, ports(1, 2, 8), fragment6(0, false), options(ProtoDestination, 8)),
	}
	for name, b := range whole {
		var h Header
		var f Flow
		if err := Parse(b, &h, &f); err != nil || h.Fragment || f.PortsOpaque || f.ProtocolOpaque || f.Protocol != ProtoUDP {
			t.Errorf("%s: Parse: %+v %+v %v", name, h, f, err)
		}
		if got, ok := ReadFragment(b); ok {
			t.Errorf("%s: read as the fragment %+v", name, got)
		}
	}
}
