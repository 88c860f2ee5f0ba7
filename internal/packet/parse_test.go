package packet

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
)

var (
	src4, dst4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	src6, dst6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:ffff::2")
)

// ipv4 is a packet with options (bytes, a multiple of 4) and a fragment field.
func ipv4(protocol uint8, options int, fragment uint16, payload []byte) []byte {
	b := make([]byte, 20+options)
	b[0], b[1], b[8], b[9] = 0x40|byte(5+options/4), 0xb9, 63, protocol
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)+len(payload)))
	binary.BigEndian.PutUint16(b[6:], fragment)
	copy(b[12:], src4.AsSlice())
	copy(b[16:], dst4.AsSlice())
	binary.BigEndian.PutUint16(b[10:], ^Checksum(b, 0))
	return append(b, payload...)
}

// ext is one IPv6 extension header: its number and its bytes behind "next".
type ext struct {
	number uint8
	body   []byte
}

func options(number uint8, length int) ext {
	body := make([]byte, length-1)
	body[0] = byte(length/8 - 1)
	return ext{number, body}
}

func fragment6(offset int, more bool) ext {
	body := make([]byte, 7)
	field := uint16(offset)
	if more {
		field |= 1
	}
	binary.BigEndian.PutUint16(body[1:], field)
	return ext{ProtoFragment, body}
}

// ipv6 is a packet with a chain of extension headers in front of protocol.
func ipv6(protocol uint8, payload []byte, chain ...ext) []byte {
	b := make([]byte, 40)
	b[0], b[1], b[7] = 0x6b, 0x90, 62 // class 0xb9
	copy(b[8:], src6.AsSlice())
	copy(b[24:], dst6.AsSlice())
	next := &b[6]
	for _, e := range chain {
		*next = e.number
		at := len(b)
		b = append(append(b, 0), e.body...)
		next = &b[at]
	}
	*next = protocol
	b = append(b, payload...)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	return b
}

// cut keeps the first n bytes behind an IPv6 header, and says so in it.
func cut(b []byte, n int) []byte {
	b = b[:40+n]
	binary.BigEndian.PutUint16(b[4:], uint16(n))
	return b
}

func ports(src, dst uint16, total int) []byte {
	b := make([]byte, total)
	binary.BigEndian.PutUint16(b, src)
	binary.BigEndian.PutUint16(b[2:], dst)
	return b
}

// tcp is a TCP header of the given length by its own field, and payload.
func tcp(headerLen, payload int) []byte {
	b := ports(1000, 2000, max(headerLen, 20)+payload)
	b[12] = byte(headerLen/4) << 4
	return b
}

type want struct {
	transport, payload int
	protocol           uint8
	sport, dport       uint16
	portsOpaque        bool
	protoOpaque        bool
	fragment           bool
	fragOffset         int
	df                 bool
}

func repeat(e ext, n int) (chain []ext) {
	for range n {
		chain = append(chain, e)
	}
	return chain
}

var hop, dest, routing = options(ProtoHopByHop, 8), options(ProtoDestination, 24), options(ProtoRouting, 16)

// headerWalk is the table of what Parse says of packets that it takes.
var headerWalk = []struct {
	name string
	in   []byte
	want want
}{
	{"v4 UDP", ipv4(ProtoUDP, 0, 0, ports(53, 4500, 20)), want{transport: 20, payload: 28, protocol: ProtoUDP, sport: 53, dport: 4500}},
	{"v4 UDP with DF", ipv4(ProtoUDP, 0, 0x4000, ports(53, 4500, 20)), want{transport: 20, payload: 28, protocol: ProtoUDP, sport: 53, dport: 4500, df: true}},
	{"v4 TCP", ipv4(ProtoTCP, 0, 0, tcp(20, 9)), want{transport: 20, payload: 40, protocol: ProtoTCP, sport: 1000, dport: 2000}},
	{"v4 TCP behind most options, with its own", ipv4(ProtoTCP, 40, 0, tcp(60, 9)), want{transport: 60, payload: 120, protocol: ProtoTCP, sport: 1000, dport: 2000}},
	{"v4 TCP whose header length lies", ipv4(ProtoTCP, 4, 0, tcp(16, 9)), want{transport: 24, payload: 24, protocol: ProtoTCP, sport: 1000, dport: 2000}},
	{"v4 TCP whose header does not fit", ipv4(ProtoTCP, 4, 0, tcp(60, 0)[:24]), want{transport: 24, payload: 24, protocol: ProtoTCP, sport: 1000, dport: 2000}},
	{"v4 UDP too short for its header", ipv4(ProtoUDP, 0, 0, ports(53, 4500, 7)), want{transport: 20, payload: 20, protocol: ProtoUDP, sport: 53, dport: 4500}},
	{"v4 UDP too short for ports", ipv4(ProtoUDP, 0, 0, ports(53, 4500, 4)[:3]), want{transport: 20, payload: 20, protocol: ProtoUDP, portsOpaque: true}},
	{"v4 SCTP", ipv4(ProtoSCTP, 0, 0, ports(53, 4500, 12)), want{transport: 20, payload: 20, protocol: ProtoSCTP, sport: 53, dport: 4500}},
	{"v4 UDP-Lite", ipv4(ProtoUDPLite, 0, 0, ports(53, 4500, 12)), want{transport: 20, payload: 20, protocol: ProtoUDPLite, sport: 53, dport: 4500}},
	{"v4 ICMP type 3 code 4", ipv4(ProtoICMP, 0, 0, []byte{3, 4, 0, 0}), want{transport: 20, payload: 20, protocol: ProtoICMP, sport: 0x304, dport: 0x304}},
	{"v4 ICMP of one byte", ipv4(ProtoICMP, 0, 0, []byte{3}), want{transport: 20, payload: 20, protocol: ProtoICMP, portsOpaque: true}},
	{"v4 GRE", ipv4(ProtoGRE, 0, 0, make([]byte, 8)), want{transport: 20, payload: 20, protocol: ProtoGRE}},
	{"v4 without payload", ipv4(ProtoNone, 0, 0, nil), want{transport: 20, payload: 20, protocol: ProtoNone}},
	{"v4 first fragment", ipv4(ProtoUDP, 0, 0x2000, ports(53, 4500, 16)), want{transport: 20, payload: 28, protocol: ProtoUDP, sport: 53, dport: 4500, fragment: true}},
	{"v4 later fragment", ipv4(ProtoUDP, 0, 0x2002, ports(53, 4500, 16)), want{transport: 20, payload: 20, protocol: ProtoUDP, portsOpaque: true, fragment: true, fragOffset: 16}},
	{"v4 last fragment", ipv4(ProtoTCP, 8, 2, ports(53, 4500, 16)), want{transport: 28, payload: 28, protocol: ProtoTCP, portsOpaque: true, fragment: true, fragOffset: 16}},
	{"v4 UDP fragment at 8", ipv4(ProtoUDP, 0, 1, make([]byte, 8)), want{transport: 20, payload: 20, protocol: ProtoUDP, portsOpaque: true, fragment: true, fragOffset: 8}},
	{"v4 fragment that ends at 65535", ipv4(ProtoUDP, 0, 0x1fff, make([]byte, 7)), want{transport: 20, payload: 20, protocol: ProtoUDP, portsOpaque: true, fragment: true, fragOffset: 65528}},

	{"v6 UDP", ipv6(ProtoUDP, ports(53, 4500, 20)), want{transport: 40, payload: 48, protocol: ProtoUDP, sport: 53, dport: 4500}},
	{"v6 ICMPv6", ipv6(ProtoICMPv6, []byte{135, 0}), want{transport: 40, payload: 40, protocol: ProtoICMPv6, sport: 135 << 8, dport: 135 << 8}},
	{"v6 hop-by-hop, destination, routing", ipv6(ProtoTCP, tcp(24, 1), hop, dest, routing), want{transport: 88, payload: 112, protocol: ProtoTCP, sport: 1000, dport: 2000}},
	{"v6 as many headers as are walked", ipv6(ProtoUDP, ports(1, 2, 8), repeat(dest, maxExtensionHeaders)...), want{transport: 280, payload: 288, protocol: ProtoUDP, sport: 1, dport: 2}},
	{"v6 longest header", ipv6(ProtoUDP, ports(1, 2, 8), options(ProtoDestination, 2048)), want{transport: 2088, payload: 2096, protocol: ProtoUDP, sport: 1, dport: 2}},
	{"v6 no next header", ipv6(ProtoNone, nil, dest), want{transport: 64, payload: 64, protocol: ProtoNone}},
	{"v6 ESP inside", ipv6(ProtoESP, make([]byte, 16), hop), want{transport: 48, payload: 48, protocol: ProtoESP}},
	{"v6 atomic fragment (RFC 6946)", ipv6(ProtoUDP, ports(53, 4500, 8), fragment6(0, false)), want{transport: 48, payload: 56, protocol: ProtoUDP, sport: 53, dport: 4500}},
	{"v6 atomic fragment, options behind it", ipv6(ProtoUDP, ports(53, 4500, 8), hop, fragment6(0, false), dest), want{transport: 80, payload: 88, protocol: ProtoUDP, sport: 53, dport: 4500}},
	{"v6 first fragment", ipv6(ProtoUDP, ports(53, 4500, 16), fragment6(0, true)), want{transport: 48, payload: 56, protocol: ProtoUDP, sport: 53, dport: 4500, fragment: true}},
	{"v6 later fragment", ipv6(ProtoUDP, ports(53, 4500, 16), fragment6(1448, true)), want{transport: 48, payload: 48, protocol: ProtoUDP, portsOpaque: true, fragment: true, fragOffset: 1448}},
	{"v6 later fragment of a chain", ipv6(ProtoDestination, make([]byte, 16), fragment6(1448, false)), want{transport: 48, payload: 48, portsOpaque: true, protoOpaque: true, fragment: true, fragOffset: 1448}},
	{"v6 later fragment that names no next header", ipv6(ProtoNone, make([]byte, 16), routing, fragment6(16, false)), want{transport: 64, payload: 64, protocol: ProtoNone, portsOpaque: true, fragment: true, fragOffset: 16}},
	{"v6 first fragment, chain ends outside", cut(ipv6(ProtoUDP, ports(1, 2, 8), fragment6(0, true), dest), 16), want{transport: 48, payload: 48, portsOpaque: true, protoOpaque: true, fragment: true}},
	{"v6 first fragment, chain ends at the packet's end", cut(ipv6(ProtoUDP, ports(1, 2, 8), fragment6(0, true), dest), 8), want{transport: 48, payload: 48, portsOpaque: true, protoOpaque: true, fragment: true}},
	{"v6 first fragment, ports outside", cut(ipv6(ProtoUDP, ports(1, 2, 8), fragment6(0, true)), 11), want{transport: 48, payload: 48, protocol: ProtoUDP, portsOpaque: true, fragment: true}},
}

func TestHeaderWalk(t *testing.T) {
	for _, tt := range headerWalk {
		for _, padding := range []int{0, 13} { // RFC 4303 2.7: bytes behind the packet
			b := append(append([]byte(nil), tt.in...), make([]byte, padding)...)
			var h Header
			var f Flow
			if err := Parse(b, &h, &f); err != nil {
				t.Errorf("%s: %v", tt.name, err)
				continue
			}
			got := want{h.TransportOffset, h.PayloadOffset, f.Protocol, f.SrcPort, f.DstPort, f.PortsOpaque, f.ProtocolOpaque, h.Fragment, h.FragmentOffset, h.DF}
			if got != tt.want {
				t.Errorf("%s:\n got %+v\nwant %+v", tt.name, got, tt.want)
			}
			src, dst, version, ttl := src4, dst4, 4, uint8(63)
			if b[0]>>4 == 6 {
				src, dst, version, ttl = src6, dst6, 6, 62
			}
			if f.SrcAddr() != src || f.DstAddr() != dst || int(f.Version) != version || h.Version != version {
				t.Errorf("%s: version %d and %d, %v to %v; want %d, %v to %v", tt.name, h.Version, f.Version, f.SrcAddr(), f.DstAddr(), version, src, dst)
			}
			if h.TotalLen != len(tt.in) || h.TrafficClass != 0xb9 || h.TTL != ttl {
				t.Errorf("%s: length %d, class %#x, TTL %d; want %d, 0xb9, %d", tt.name, h.TotalLen, h.TrafficClass, h.TTL, len(tt.in), ttl)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	edit := func(b []byte, at int, v ...byte) []byte {
		copy(b[at:], v)
		return b
	}
	udp4, udp6 := func() []byte { return ipv4(ProtoUDP, 0, 0, ports(1, 2, 8)) }, func() []byte { return ipv6(ProtoUDP, ports(1, 2, 8)) }
	tests := []struct {
		name string
		in   []byte
		want error
	}{
		{"nothing", nil, ErrTooShort},
		{"version 0", make([]byte, 40), ErrVersion},
		{"version 5", edit(udp4(), 0, 0x55), ErrVersion},
		{"version 15", edit(udp4(), 0, 0xff), ErrVersion},
		{"v4 of 19 bytes", udp4()[:19], ErrTooShort},
		{"v4 header length 16", edit(udp4(), 0, 0x44), ErrHeaderLen},
		{"v4 header length beyond the packet", edit(udp4(), 0, 0x4f), ErrHeaderLen},
		{"v4 total length below the header", edit(udp4(), 2, 0, 19), ErrTotalLen},
		{"v4 total length zero", edit(udp4(), 2, 0, 0), ErrTotalLen},
		{"v4 total length beyond the packet", edit(udp4(), 2, 0, 29), ErrTotalLen},
		{"v4 RFC 3128 fragment", ipv4(ProtoTCP, 0, 1, make([]byte, 20)), ErrFragment},
		{"v4 RFC 3128 fragment, more to come", ipv4(ProtoTCP, 4, 0x2001, make([]byte, 24)), ErrFragment},
		{"v4 fragment past 65535", ipv4(ProtoUDP, 0, 0x1fff, make([]byte, 8)), ErrFragment},
		{"v6 of 39 bytes", udp6()[:39], ErrTooShort},
		{"v6 payload length beyond the packet", edit(udp6(), 4, 0, 9), ErrTotalLen},
		{"v6 longer than this gateway carries", append(edit(udp6(), 4, 0xff, 0xff), make([]byte, 65535)...), ErrTotalLen},
		{"v6 one header too many", ipv6(ProtoUDP, ports(1, 2, 8), repeat(dest, maxExtensionHeaders+1)...), ErrExtensions},
		{"v6 chain cut in front of a header", cut(ipv6(ProtoUDP, nil, dest, hop), 24), ErrExtensions},
		{"v6 chain cut inside a header's first 8 bytes", cut(ipv6(ProtoUDP, nil, hop), 7), ErrExtensions},
		{"v6 chain cut inside a header", cut(ipv6(ProtoUDP, nil, dest), 16), ErrExtensions},
		{"v6 fragment header cut", cut(ipv6(ProtoUDP, nil, fragment6(0, true)), 7), ErrExtensions},
		{"v6 atomic fragment, chain cut behind it", cut(ipv6(ProtoUDP, nil, fragment6(0, false), dest), 16), ErrExtensions},
		{"v6 jumbogram (payload length 0)", cut(ipv6(ProtoUDP, nil, hop), 0), ErrExtensions},
		{"v6 RFC 3128 fragment", ipv6(ProtoTCP, make([]byte, 20), fragment6(8, false)), ErrFragment},
		{"v6 RFC 3128 fragment behind options", ipv6(ProtoTCP, make([]byte, 24), hop, fragment6(8, true)), ErrFragment},
		{"v6 fragment past 65535", ipv6(ProtoUDP, make([]byte, 8), fragment6(65528, false)), ErrFragment},
	}
	for _, tt := range tests {
		var h Header
		var f Flow
		if err := Parse(tt.in, &h, &f); !errors.Is(err, tt.want) {
			t.Errorf("%s: error is %v, want %v", tt.name, err, tt.want)
		}
	}
}

// TestParseForgetsWhatWasThere holds that nothing of an earlier packet stays.
func TestParseForgetsWhatWasThere(t *testing.T) {
	for _, before := range headerWalk {
		for _, after := range headerWalk {
			var h, fresh Header
			var f, freshFlow Flow
			if err := errors.Join(Parse(before.in, &h, &f), Parse(after.in, &h, &f), Parse(after.in, &fresh, &freshFlow)); err != nil {
				t.Fatal(err)
			}
			if h != fresh || f != freshFlow {
				t.Fatalf("%s, then %s: %+v %+v, want %+v %+v", before.name, after.name, h, f, fresh, freshFlow)
			}
		}
	}
}

// TestParseOfEveryPrefix holds that no length panics, and that what is taken
// lies inside what was given.
func TestParseOfEveryPrefix(t *testing.T) {
	for _, tt := range headerWalk {
		for n := range len(tt.in) {
			var h Header
			var f Flow
			if err := Parse(tt.in[:n:n], &h, &f); err == nil {
				t.Fatalf("%s: the first %d of %d bytes were taken for a packet", tt.name, n, len(tt.in))
			}
		}
	}
}

func TestParseAllocatesNothing(t *testing.T) {
	b := ipv6(ProtoTCP, tcp(24, 1), hop, dest, routing)
	var h Header
	var f Flow
	bad := b[:30]
	if n := testing.AllocsPerRun(100, func() {
		_ = Parse(b, &h, &f)
		_ = f.Hash(1)
		_ = Parse(bad, &h, &f)
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkParse(b *testing.B) {
	for _, tt := range []struct {
		name string
		in   []byte
	}{
		{"v4-tcp", ipv4(ProtoTCP, 0, 0, tcp(32, 1388))},
		{"v6-tcp", ipv6(ProtoTCP, tcp(32, 1388))},
		{"v6-tcp-3-extensions", ipv6(ProtoTCP, tcp(32, 1388), hop, dest, routing)},
	} {
		b.Run(tt.name, func(b *testing.B) {
			var h Header
			var f Flow
			for b.Loop() {
				if err := Parse(tt.in, &h, &f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
