package packet

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

var (
	router4 = netip.MustParseAddr("203.0.113.7")
	router6 = netip.MustParseAddr("2001:db8:7::7")
)

// icmpMessage is what gopacket reads of an ICMP error: addresses, type, code, the
// second word of the header, and the quote. It fails on a wrong checksum.
func icmpMessage(t testing.TB, b []byte) (src, dst netip.Addr, typ, code uint8, word uint32, quoted []byte) {
	t.Helper()
	first, proto := layers.LayerTypeIPv4, layers.LayerTypeICMPv4
	if b[0]>>4 == 6 {
		first, proto = layers.LayerTypeIPv6, layers.LayerTypeICMPv6
	}
	p := gopacket.NewPacket(b, first, gopacket.Default)
	if p.ErrorLayer() != nil && p.Layer(proto) == nil || p.Metadata().Truncated {
		t.Fatalf("gopacket refuses % x: %v", b, p.ErrorLayer())
	}
	msg := append(slices.Clone(p.Layer(proto).LayerContents()), p.Layer(proto).LayerPayload()...)
	sum := uint16(0)
	switch ip := p.Layer(first).(type) {
	case *layers.IPv4:
		if plainChecksum(b[:20], 0) != 0xffff || ip.IHL != 5 || int(ip.Length) != len(b) || ip.TTL == 0 || ip.FragOffset != 0 {
			t.Fatalf("IPv4 header: %+v", ip)
		}
		src, _ = netip.AddrFromSlice(ip.SrcIP)
		dst, _ = netip.AddrFromSlice(ip.DstIP)
	case *layers.IPv6:
		if int(ip.Length) != len(b)-40 || ip.HopLimit == 0 {
			t.Fatalf("IPv6 header: %+v", ip)
		}
		src, _ = netip.AddrFromSlice(ip.SrcIP)
		dst, _ = netip.AddrFromSlice(ip.DstIP)
		pseudo := append(append(slices.Clone(b[8:40]), 0, 0, 0, 58), 0, 0, byte(len(msg)>>8), byte(len(msg)))
		sum = plainChecksum(pseudo, 0)
	}
	src, dst = src.Unmap(), dst.Unmap()
	if got := plainChecksum(msg, sum); got != 0xffff {
		t.Fatalf("ICMP message adds to %#x, want 0xffff", got)
	}
	return src, dst, msg[0], msg[1], binary.BigEndian.Uint32(msg[4:]), msg[8:]
}

func TestRFC1191_RFC4443_3_2_TooBig(t *testing.T) {
	for _, tt := range []struct {
		name     string
		in       []byte
		from     netip.Addr
		mtu      int
		typ      uint8
		code     uint8
		word     uint32
		quoteLen int
	}{
		{"v4 long", ipv4(ProtoUDP, 0, 0x4000, ports(1, 2, 1472)), router4, 1400, 3, 4, 1400, 548},
		{"v4 with options", ipv4(ProtoTCP, 12, 0x4000, tcp(20, 900)), router4, 700, 3, 4, 700, 548},
		{"v4 short", ipv4(ProtoUDP, 0, 0x4000, ports(1, 2, 100)), router4, 100, 3, 4, 100, 120},
		{"v4 MTU of 0", ipv4(ProtoUDP, 0, 0x4000, ports(1, 2, 100)), router4, 0, 3, 4, 68, 120},
		{"v4 MTU beyond its field", ipv4(ProtoUDP, 0, 0x4000, ports(1, 2, 100)), router4, 65536, 3, 4, 65535, 120},
		{"v4 mapped router", ipv4(ProtoUDP, 0, 0x4000, ports(1, 2, 100)), netip.AddrFrom16(router4.As16()), 100, 3, 4, 100, 120},
		{"v6 long", ipv6(ProtoUDP, ports(1, 2, 1460)), router6, 1400, 2, 0, 1400, 1232},
		{"v6 short", ipv6(ProtoUDP, ports(1, 2, 1259)), router6, 1280, 2, 0, 1280, 1232},
		{"v6 MTU below the least", ipv6(ProtoUDP, ports(1, 2, 101)), router6, 68, 2, 0, 1280, 141},
		{"v6 later fragment", ipv6(ProtoUDP, make([]byte, 800), fragment6(1448, true)), router6, 1300, 2, 0, 1300, 848},
		{"v4 echo", ipv4(ProtoICMP, 0, 0x4000, []byte{8, 0, 0, 0, 0, 0, 0, 0}), router4, 1300, 3, 4, 1300, 28},
	} {
		dst := bytes.Repeat([]byte{0xee}, MaxICMPError)
		padded := append(slices.Clone(tt.in), 1, 2, 3)
		n, ok := TooBig(dst, padded, tt.from, tt.mtu)
		if !ok {
			t.Errorf("%s: refused", tt.name)
			continue
		}
		src, to, typ, code, word, quoted := icmpMessage(t, dst[:n])
		f := flowOf(t, tt.in)
		if src != tt.from.Unmap() || to != f.SrcAddr() {
			t.Errorf("%s: from %v to %v, want %v to %v", tt.name, src, to, tt.from, f.SrcAddr())
		}
		if typ != tt.typ || code != tt.code || word != tt.word {
			t.Errorf("%s: type %d code %d word %d, want %d, %d, %d", tt.name, typ, code, word, tt.typ, tt.code, tt.word)
		}
		if len(quoted) != tt.quoteLen || !bytes.HasPrefix(tt.in, quoted) {
			t.Errorf("%s: quotes %d bytes, want the first %d", tt.name, len(quoted), tt.quoteLen)
		}
		if n, ok := TooBig(dst[:n-1], tt.in, tt.from, tt.mtu); ok {
			t.Errorf("%s: %d bytes were written into %d", tt.name, n, n-1)
		}
		if !tt.from.Is4In6() {
			// The message is an error: nobody answers it with another.
			if _, ok := Unreachable(make([]byte, MaxICMPError), dst[:n], tt.from, 1); ok {
				t.Errorf("%s: an answer to the answer", tt.name)
			}
		}
	}
}

func TestRFC4301_5_1_Unreachable(t *testing.T) {
	for _, tt := range []struct {
		in        []byte
		from      netip.Addr
		code, typ uint8
	}{
		{ipv4(ProtoUDP, 0, 0, ports(1, 2, 8)), router4, ICMPCodeProhibited, 3},
		{ipv4(ProtoTCP, 0, 0x2000, tcp(20, 4)), router4, ICMPCodeHost, 3},
		{ipv6(ProtoUDP, ports(1, 2, 9)), router6, ICMPv6CodeProhibited, 1},
		{ipv6(ProtoTCP, tcp(20, 1401), hop), router6, ICMPv6CodeAddress, 1},
	} {
		dst := bytes.Repeat([]byte{0xee}, MaxICMPError)
		n, ok := Unreachable(dst, tt.in, tt.from, tt.code)
		if !ok {
			t.Errorf("%x: refused", tt.in[:40])
			continue
		}
		_, _, typ, code, word, quoted := icmpMessage(t, dst[:n])
		if typ != tt.typ || code != tt.code || word != 0 || !bytes.HasPrefix(tt.in, quoted) {
			t.Errorf("type %d code %d word %#x, want %d, %d, 0", typ, code, word, tt.typ, tt.code)
		}
	}
}

// readdress puts another address into a packet.
func readdress(b []byte, at int, addr string) []byte {
	a := netip.MustParseAddr(addr)
	copy(b[at:], a.AsSlice())
	if a.Is4() {
		b[10], b[11] = 0, 0
		binary.BigEndian.PutUint16(b[10:], ^Checksum(b[:20], 0))
	}
	return b
}

func TestRFC1122_3_2_2_RFC4443_2_4e_NoErrorAbout(t *testing.T) {
	udp4 := func() []byte { return ipv4(ProtoUDP, 0, 0, ports(1, 2, 8)) }
	udp6 := func() []byte { return ipv6(ProtoUDP, ports(1, 2, 8)) }
	icmp4 := func(typ byte) []byte { return ipv4(ProtoICMP, 0, 0, []byte{typ, 0, 0, 0, 0, 0, 0, 0}) }
	icmp6 := func(typ byte) []byte { return ipv6(ProtoICMPv6, []byte{typ, 0, 0, 0, 0, 0, 0, 0}) }
	tests := []struct {
		name   string
		in     []byte
		tooBig bool // TooBig may answer
		other  bool // Unreachable may answer
	}{
		{"v4 UDP", udp4(), true, true},
		{"v6 UDP", udp6(), true, true},
		{"v4 echo", icmp4(8), true, true},
		{"v4 echo reply", icmp4(0), true, true},
		{"v6 echo", icmp6(128), true, true},
		{"v4 unreachable", icmp4(3), false, false},
		{"v4 source quench", icmp4(4), false, false},
		{"v4 redirect", icmp4(5), false, false},
		{"v4 time exceeded", icmp4(11), false, false},
		{"v4 parameter problem", icmp4(12), false, false},
		{"v4 ICMP of tomorrow", icmp4(200), false, false},
		{"v4 ICMP cut", ipv4(ProtoICMP, 0, 0, []byte{8}), false, false},
		{"v6 unreachable", icmp6(1), false, false},
		{"v6 error of tomorrow", icmp6(127), false, false},
		{"v6 redirect", icmp6(137), false, false},
		{"v6 later fragment of ICMPv6", ipv6(ProtoICMPv6, make([]byte, 8), fragment6(16, false)), false, false},
		{"v6 chain in another fragment", ipv6(ProtoDestination, make([]byte, 8), fragment6(16, false)), false, false},
		{"v6 later fragment of UDP", ipv6(ProtoUDP, make([]byte, 8), fragment6(16, false)), true, true},
		{"v4 first fragment", ipv4(ProtoUDP, 0, 0x2000, ports(1, 2, 8)), true, true},
		{"v4 later fragment", ipv4(ProtoUDP, 0, 0x2002, ports(1, 2, 8)), false, false},
		{"v4 last fragment", ipv4(ProtoUDP, 0, 2, ports(1, 2, 8)), false, false},
		{"v4 to multicast", readdress(udp4(), 16, "224.0.0.5"), false, false},
		{"v4 to broadcast", readdress(udp4(), 16, "255.255.255.255"), false, false},
		{"v4 to class E", readdress(udp4(), 16, "240.0.0.1"), false, false},
		{"v4 to 0.0.0.0", readdress(udp4(), 16, "0.0.0.0"), false, false},
		{"v4 from 0.0.0.0", readdress(udp4(), 12, "0.0.0.0"), false, false},
		{"v4 from 0.1.2.3", readdress(udp4(), 12, "0.1.2.3"), false, false},
		{"v4 from loopback", readdress(udp4(), 12, "127.0.0.1"), false, false},
		{"v4 from multicast", readdress(udp4(), 12, "239.1.1.1"), false, false},
		{"v4 from class E", readdress(udp4(), 12, "250.0.0.1"), false, false},
		{"v4 from broadcast", readdress(udp4(), 12, "255.255.255.255"), false, false},
		{"v6 to multicast", readdress(udp6(), 24, "ff0e::1"), true, false},
		{"v6 to ::", readdress(udp6(), 24, "::"), false, false},
		{"v6 from ::", readdress(udp6(), 8, "::"), false, false},
		{"v6 from ::1", readdress(udp6(), 8, "::1"), false, false},
		{"v6 from multicast", readdress(udp6(), 8, "ff02::1"), false, false},
		{"v4 broken", udp4()[:27], false, false},
		{"nothing", nil, false, false},
	}
	dst := make([]byte, MaxICMPError)
	for _, tt := range tests {
		from, other := router4, router6
		if len(tt.in) > 0 && tt.in[0]>>4 == 6 {
			from, other = router6, router4
		}
		if _, ok := TooBig(dst, tt.in, from, 1300); ok != tt.tooBig {
			t.Errorf("%s: TooBig %v, want %v", tt.name, ok, tt.tooBig)
		}
		if _, ok := Unreachable(dst, tt.in, from, 1); ok != tt.other {
			t.Errorf("%s: Unreachable %v, want %v", tt.name, ok, tt.other)
		}
		for _, wrong := range []netip.Addr{other, {}} {
			if _, ok := TooBig(dst, tt.in, wrong, 1300); ok {
				t.Errorf("%s: an answer from %v", tt.name, wrong)
			}
		}
	}
}

func TestParseICMPError(t *testing.T) {
	quote := ipv4(ProtoUDP, 0, 0, ports(53, 4500, 8))
	message := func(header ...byte) []byte { return append(header, quote...) }
	for _, tt := range []struct {
		name    string
		in      []byte
		version int
		ok      bool
		want    ICMPError
	}{
		{"v4 3/4", message(3, 4, 0, 0, 0, 0, 5, 0xdc), 4, true, ICMPError{3, 4, 1500, quote}},
		{"v4 3/4 without MTU", message(3, 4, 0, 0, 0, 0, 0, 0), 4, true, ICMPError{3, 4, 0, quote}},
		{"v4 3/1 with something in the MTU's place", message(3, 1, 0, 0, 0, 0, 5, 0xdc), 4, true, ICMPError{3, 1, 0, quote}},
		{"v4 11/0", message(11, 0, 0, 0, 0, 0, 0, 0), 4, true, ICMPError{11, 0, 0, quote}},
		{"v4 12/0, pointer", message(12, 0, 0, 0, 9, 0, 0, 0), 4, true, ICMPError{12, 0, 0, quote}},
		{"v4 RFC 4884 length", message(11, 0, 0, 0, 0, 6, 0, 0), 4, true, ICMPError{11, 0, 0, quote[:24]}},
		{"v4 RFC 4884 length beyond the message", message(11, 0, 0, 0, 0, 200, 0, 0), 4, true, ICMPError{11, 0, 0, quote}},
		{"v4 redirect", message(5, 0, 0, 0, 1, 2, 3, 4), 4, false, ICMPError{}},
		{"v4 source quench", message(4, 0, 0, 0, 0, 0, 0, 0), 4, false, ICMPError{}},
		{"v4 echo", message(8, 0, 0, 0, 0, 0, 0, 0), 4, false, ICMPError{}},
		{"v4 seven bytes", []byte{3, 0, 0, 0, 0, 0, 0}, 4, false, ICMPError{}},
		{"v4 without quote", []byte{3, 0, 0, 0, 0, 0, 0, 0}, 4, true, ICMPError{3, 0, 0, []byte{}}},
		{"v6 1/1", message(1, 1, 0, 0, 0, 0, 0, 0), 6, true, ICMPError{1, 1, 0, quote}},
		{"v6 2/0", message(2, 0, 0, 0, 0, 1, 0, 0), 6, true, ICMPError{2, 0, 65536, quote}},
		{"v6 3/0 with a length", message(3, 0, 0, 0, 3, 0, 0, 0), 6, true, ICMPError{3, 0, 0, quote[:24]}},
		{"v6 4/1, pointer", message(4, 1, 0, 0, 0, 0, 0, 40), 6, true, ICMPError{4, 1, 0, quote}},
		{"v6 type 0", message(0, 0, 0, 0, 0, 0, 0, 0), 6, false, ICMPError{}},
		{"v6 type 5", message(5, 0, 0, 0, 0, 0, 0, 0), 6, false, ICMPError{}},
		{"v6 with v4's type", message(11, 0, 0, 0, 0, 0, 0, 0), 6, false, ICMPError{}},
		{"no version", message(3, 0, 0, 0, 0, 0, 0, 0), 0, false, ICMPError{}},
	} {
		e, ok := ParseICMPError(tt.in, tt.version)
		if ok != tt.ok || e.Type != tt.want.Type || e.Code != tt.want.Code || e.MTU != tt.want.MTU || !bytes.Equal(e.Quoted, tt.want.Quoted) {
			t.Errorf("%s: %+v, %v; want %+v, %v", tt.name, e, ok, tt.want, tt.ok)
		}
	}
}

// TestICMPChecksumOK turns each bit of messages that are right.
func TestICMPChecksumOK(t *testing.T) {
	for _, in := range [][]byte{ipv4(ProtoUDP, 0, 0, ports(1, 2, 9)), ipv6(ProtoUDP, ports(1, 2, 9))} {
		from, header := router4, 20
		if in[0]>>4 == 6 {
			from, header = router6, 40
		}
		dst := make([]byte, MaxICMPError)
		n, _ := Unreachable(dst, in, from, 1)
		f, message := flowOf(t, dst[:n]), dst[header:n]
		if !ICMPChecksumOK(message, &f) {
			t.Fatalf("IPv%d: a right checksum is called wrong", f.Version)
		}
		for bit := range len(message) * 8 {
			message[bit/8] ^= 1 << (bit % 8)
			if ICMPChecksumOK(message, &f) {
				t.Fatalf("IPv%d: bit %d is wrong, and not seen", f.Version, bit)
			}
			message[bit/8] ^= 1 << (bit % 8)
		}
		if ICMPChecksumOK(message[:3], &f) {
			t.Error("three bytes have a right checksum")
		}
	}
}

// TestQuotedFlowOfEveryPrefix takes every packet that Parse takes, and cuts it
// everywhere: the quote says what Parse says of the whole packet, or less.
func TestQuotedFlowOfEveryPrefix(t *testing.T) {
	for _, tt := range headerWalk {
		var h Header
		var whole Flow
		if err := Parse(tt.in, &h, &whole); err != nil {
			t.Fatal(err)
		}
		least := 40
		if h.Version == 4 {
			least = int(tt.in[0]&15) * 4
		}
		for n := range len(tt.in) + 1 {
			f, ok := QuotedFlow(tt.in[:n:n])
			if ok != (n >= least) {
				t.Fatalf("%s, %d bytes: ok %v", tt.name, n, ok)
			}
			if !ok {
				continue
			}
			want := whole
			if n < h.TransportOffset && h.Version == 6 { // the chain's end is not there
				want.Protocol, want.ProtocolOpaque = 0, true
			}
			if needs := quoteNeeds(&whole); needs > 0 && n < h.TransportOffset+needs || want.ProtocolOpaque {
				want.SrcPort, want.DstPort, want.PortsOpaque = 0, 0, true
			}
			if f != want {
				t.Fatalf("%s, %d bytes:\n got %+v\nwant %+v", tt.name, n, f, want)
			}
		}
	}
}

func quoteNeeds(f *Flow) int {
	switch {
	case f.isICMP():
		return 2
	case f.HasPorts():
		return 4
	}
	return 0
}

func TestQuotedFlowRefusesAndPads(t *testing.T) {
	udp := ipv4(ProtoUDP, 0, 0, ports(53, 4500, 8))
	edit := func(at int, v ...byte) []byte {
		b := slices.Clone(udp)
		copy(b[at:], v)
		return b
	}
	for name, in := range map[string][]byte{
		"version 5":                     edit(0, 0x55),
		"header length 16":              edit(0, 0x44),
		"header length beyond":          edit(0, 0x4f),
		"total length below the header": edit(2, 0, 19),
	} {
		if f, ok := QuotedFlow(in); ok || f != (Flow{}) {
			t.Errorf("%s: %v, %v", name, f, ok)
		}
	}
	// RFC 4884 3: the quote is padded with zeros. Those are no ports.
	f, ok := QuotedFlow(append(ipv4(ProtoUDP, 0, 0, nil), make([]byte, 108)...))
	if !ok || !f.PortsOpaque {
		t.Errorf("padding is read as ports: %v, %v", f, ok)
	}
	f, ok = QuotedFlow(append(ipv6(ProtoUDP, nil, dest), make([]byte, 64)...))
	if !ok || !f.PortsOpaque || f.Protocol != ProtoUDP {
		t.Errorf("padding is read as ports: %v, %v", f, ok)
	}
	// A longer chain than Parse walks, or a second fragment header, is opaque.
	for _, in := range [][]byte{
		ipv6(ProtoUDP, ports(1, 2, 8), repeat(dest, maxExtensionHeaders+1)...),
		ipv6(ProtoUDP, ports(1, 2, 8), fragment6(16, true), fragment6(0, true)),
	} {
		if f, ok := QuotedFlow(in); !ok || !f.ProtocolOpaque || !f.PortsOpaque {
			t.Errorf("%+v, %v; want an opaque protocol", f, ok)
		}
	}
}

func TestIsICMPError(t *testing.T) {
	for typ := range 256 {
		v4 := flowOf(t, ipv4(ProtoICMP, 0, 0, []byte{byte(typ), 1}))
		query := slices.Contains([]int{0, 8, 9, 10, 13, 14, 15, 16, 17, 18, 42, 43}, typ)
		if v4.IsICMPError() == query {
			t.Errorf("ICMP type %d: %v", typ, !query)
		}
		v6 := flowOf(t, ipv6(ProtoICMPv6, []byte{byte(typ), 1}))
		if v6.IsICMPError() != (typ < 128 || typ == 137) {
			t.Errorf("ICMPv6 type %d: %v", typ, v6.IsICMPError())
		}
	}
	for _, in := range [][]byte{
		ipv4(ProtoUDP, 0, 0, ports(3<<8, 3<<8, 8)), ipv4(ProtoICMP, 0, 0, []byte{3}), ipv4(ProtoICMP, 0, 2, []byte{3, 1}),
		ipv6(ProtoDestination, make([]byte, 8), fragment6(16, false)),
	} {
		if f := flowOf(t, in); f.IsICMPError() {
			t.Errorf("%v is no ICMP error that can be seen", f)
		}
	}
}

// FuzzClampMSS in fuzz holds the same of any bytes.
func TestClampMSS(t *testing.T) {
	syn := func(flags byte, options ...byte) []byte {
		for len(options)%4 != 0 {
			options = append(options, 0)
		}
		b := tcp(20+len(options), 0)
		b[13] = flags
		copy(b[20:], options)
		return b
	}
	for _, tt := range []struct {
		name    string
		tcp     []byte
		mss     uint16
		changed bool
		want    []byte // options after it
	}{
		{"SYN", syn(0x02, 2, 4, 5, 0xb4), 1300, true, []byte{2, 4, 5, 0x14}},
		{"SYN ACK", syn(0x12, 2, 4, 5, 0xb4), 1300, true, []byte{2, 4, 5, 0x14}},
		{"equal", syn(0x02, 2, 4, 5, 0x14), 1300, false, []byte{2, 4, 5, 0x14}},
		{"smaller is never raised", syn(0x02, 2, 4, 2, 0), 1300, false, []byte{2, 4, 2, 0}},
		{"zero is no limit", syn(0x02, 2, 4, 5, 0xb4), 0, false, []byte{2, 4, 5, 0xb4}},
		{"ACK alone", syn(0x10, 2, 4, 5, 0xb4), 1300, false, []byte{2, 4, 5, 0xb4}},
		{"at an odd place", syn(0x02, 1, 2, 4, 5, 0xb4, 3, 3, 7), 1300, true, []byte{1, 2, 4, 5, 0x14, 3, 3, 7}},
		{"behind others", syn(0x02, 4, 2, 1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4, 0xff, 0xff), 1, true, []byte{4, 2, 1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4, 0, 1, 0, 0}},
		{"twice", syn(0x02, 2, 4, 5, 0xb4, 2, 4, 6, 0), 1300, true, []byte{2, 4, 5, 0x14, 2, 4, 5, 0x14}},
		{"no options", syn(0x02), 1300, false, nil},
		{"no MSS", syn(0x02, 4, 2, 1, 1), 1300, false, []byte{4, 2, 1, 1}},
		{"behind the end", syn(0x02, 0, 0, 0, 0, 2, 4, 5, 0xb4), 1300, false, []byte{0, 0, 0, 0, 2, 4, 5, 0xb4}},
		{"length 0", syn(0x02, 3, 0, 2, 4, 5, 0xb4, 0, 0), 1300, false, []byte{3, 0, 2, 4, 5, 0xb4, 0, 0}},
		{"length 1", syn(0x02, 3, 1, 2, 4, 5, 0xb4, 0, 0), 1300, false, []byte{3, 1, 2, 4, 5, 0xb4, 0, 0}},
		{"length beyond", syn(0x02, 2, 5, 5, 0xb4), 1300, false, []byte{2, 5, 5, 0xb4}},
		{"kind without length", syn(0x02, 1, 1, 1, 2), 1300, false, []byte{1, 1, 1, 2}},
		{"MSS of three bytes", syn(0x02, 2, 3, 0xff, 0), 1300, false, []byte{2, 3, 0xff, 0}},
	} {
		for _, in := range [][]byte{ipv4(ProtoTCP, 8, 0, tt.tcp), ipv6(ProtoTCP, tt.tcp, dest)} {
			var h Header
			var f Flow
			if err := Parse(in, &h, &f); err != nil {
				t.Fatal(err)
			}
			segment := in[h.TransportOffset:]
			pseudo := PseudoChecksum(&f, ProtoTCP, len(segment))
			binary.BigEndian.PutUint16(segment[16:], ^Checksum(segment, pseudo))
			before := slices.Clone(in)
			if got := ClampMSS(in, &h, &f, tt.mss); got != tt.changed || got == bytes.Equal(in, before) {
				t.Errorf("%s, IPv%d: changed %v, want %v", tt.name, h.Version, got, tt.changed)
			}
			if !bytes.Equal(segment[20:], tt.want) {
				t.Errorf("%s, IPv%d: options % x, want % x", tt.name, h.Version, segment[20:], tt.want)
			}
			if got := plainChecksum(segment, pseudo); got != 0xffff {
				t.Errorf("%s, IPv%d: segment adds to %#x, want 0xffff", tt.name, h.Version, got)
			}
		}
	}
}

func TestClampMSSLeavesOthersAlone(t *testing.T) {
	segment := tcp(24, 0)
	segment[13] = 0x02
	copy(segment[20:], []byte{2, 4, 5, 0xb4})
	lying := slices.Clone(segment)
	lying[12] = 7 << 4
	short := slices.Clone(segment)
	short[12] = 4 << 4
	for name, in := range map[string][]byte{
		"UDP":                              ipv4(ProtoUDP, 0, 0, segment),
		"later fragment":                   ipv4(ProtoTCP, 0, 2, segment),
		"v6 later fragment":                ipv6(ProtoTCP, segment, fragment6(16, false)),
		"v6 chain in another fragment":     ipv6(ProtoDestination, segment, fragment6(16, false)),
		"header longer than the packet":    ipv4(ProtoTCP, 0, 0, lying),
		"header shorter than TCP's":        ipv4(ProtoTCP, 0, 0, short),
		"first fragment of 16 TCP bytes":   ipv4(ProtoTCP, 0, 0x2000, segment[:16]),
		"v6 first fragment without header": ipv6(ProtoTCP, segment[:8], fragment6(0, true)),
	} {
		var h Header
		var f Flow
		if err := Parse(in, &h, &f); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		before := slices.Clone(in)
		if ClampMSS(in, &h, &f, 100) || !bytes.Equal(in, before) {
			t.Errorf("%s: changed", name)
		}
	}
}

func TestICMPAllocatesNothing(t *testing.T) {
	dst, in4, in6 := make([]byte, MaxLen), ipv4(ProtoUDP, 0, 0, ports(1, 2, 1000)), ipv6(ProtoUDP, ports(1, 2, 1400), hop)
	segment := tcp(24, 0)
	segment[13] = 0x02
	copy(segment[20:], []byte{2, 4, 5, 0xb4})
	syn := ipv4(ProtoTCP, 0, 0, segment)
	var h Header
	var f Flow
	var cut Fragments
	if n := testing.AllocsPerRun(100, func() {
		n, _ := TooBig(dst, in4, router4, 1300)
		e, _ := ParseICMPError(dst[20:n], 4)
		_, _ = QuotedFlow(e.Quoted)
		_, _ = Unreachable(dst, in6, router6, 1)
		_ = Parse(syn, &h, &f)
		_ = ClampMSS(syn, &h, &f, 1300)
		for _, p := range [][]byte{in4, in6} {
			_ = cut.Init(p, 600, 1)
			for ok := true; ok; {
				_, ok = cut.Next(dst)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
