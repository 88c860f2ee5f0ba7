package fuzz

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/adit-ipsec/adit/internal/packet"
)

// icmpSeeds are packets of both families: TCP SYN with options, UDP, ICMP errors,
// fragments, IPv4 options, extension headers.
func icmpSeeds() [][]byte {
	v4 := func(protocol, options byte, field uint16, payload ...byte) []byte {
		b := append(make([]byte, 20, 80), []byte{0x94, 4, 0, 0, 1, 7, 7, 4, 0, 0, 0, 0}[:options]...)
		b[0], b[8], b[9] = 0x45+options/4, 64, protocol
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)+len(payload)))
		binary.BigEndian.PutUint16(b[6:], field)
		copy(b[12:], []byte{192, 0, 2, 1, 198, 51, 100, 2})
		return append(b, payload...)
	}
	v6 := func(next byte, payload ...byte) []byte {
		b := make([]byte, 40, 80)
		b[0], b[6], b[7] = 0x60, next, 64
		binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
		b[8], b[9], b[23], b[24], b[25], b[39] = 0x20, 1, 1, 0x20, 1, 2
		return append(b, payload...)
	}
	syn := []byte{0, 80, 0, 90, 0, 0, 0, 1, 0, 0, 0, 0, 0x70, 2, 255, 255, 0, 0, 0, 0, 1, 2, 4, 5, 180, 4, 2, 0}
	udp := append([]byte{0, 53, 17, 148, 0, 72, 0, 0}, make([]byte, 64)...)
	unreachable := append([]byte{3, 4, 0, 0, 0, 0, 5, 220}, v4(17, 0, 0, udp[:8]...)...)
	tooBig := append([]byte{2, 0, 0, 0, 0, 0, 5, 0}, v6(6, syn...)...)
	hop := []byte{17, 0, 1, 4, 0, 0, 0, 0}
	fragment := []byte{17, 0, 0, 0x81, 1, 2, 3, 4}
	return [][]byte{
		v4(6, 0, 0, syn...), v4(17, 12, 0, udp...), v4(1, 0, 0, unreachable...), v4(17, 4, 0x2003, udp...), v4(1, 0, 0, 8, 0, 0, 0),
		v6(6, syn...), v6(0, append(hop, udp...)...), v6(58, tooBig...), v6(44, append(fragment, udp...)...), v6(50, udp...),
	}
}

// icmpMessage is where the ICMP message in an IP packet starts that has one.
func icmpMessage(b []byte) (message []byte, version int) {
	var h packet.Header
	var flow packet.Flow
	if packet.Parse(b, &h, &flow) != nil || flow.ProtocolOpaque || h.FragmentOffset > 0 {
		return nil, 0
	}
	if h.Version == 4 && flow.Protocol == packet.ProtoICMP || h.Version == 6 && flow.Protocol == packet.ProtoICMPv6 {
		return b[h.TransportOffset:h.TotalLen], h.Version
	}
	return nil, 0
}

// FuzzICMPError holds of any bytes: an error that TooBig or Unreachable makes
// about them is a packet that gopacket reads, with right checksums, of bounded
// length, to whom sent the packet; ParseICMPError reads it back; and it gets no
// answer itself. The bytes as a message are read inside their bounds.
func FuzzICMPError(f *testing.F) {
	for _, seed := range icmpSeeds() {
		f.Add(seed, 1400, uint8(1))
	}
	f.Fuzz(func(t *testing.T, b []byte, mtu int, code uint8) {
		dst := make([]byte, packet.MaxICMPError)
		for _, from := range []netip.Addr{netip.AddrFrom4([4]byte{203, 0, 113, 7}), netip.MustParseAddr("2001:db8::7")} {
			if n, ok := packet.TooBig(dst, b, from, mtu); ok {
				checkICMPError(t, dst[:n], b, from, true)
			}
			if n, ok := packet.Unreachable(dst, b, from, code); ok {
				checkICMPError(t, dst[:n], b, from, false)
			}
		}
		for _, version := range []int{4, 6} {
			e, ok := packet.ParseICMPError(b, version)
			if ok && (len(e.Quoted) > len(b)-8 || !bytes.HasPrefix(b[8:], e.Quoted) || e.MTU < 0 || e.Type != b[0] || e.Code != b[1]) {
				t.Fatalf("version %d: %+v of %x", version, e, b)
			}
		}
	})
}

func checkICMPError(t *testing.T, made, about []byte, from netip.Addr, tooBig bool) {
	var h, aboutHeader packet.Header
	var flow, aboutFlow packet.Flow
	if packet.Parse(made, &h, &flow) != nil || packet.Parse(about, &aboutHeader, &aboutFlow) != nil {
		t.Fatalf("%x about %x: one of them is no packet", made, about)
	}
	if flow.SrcAddr() != from || flow.Dst != aboutFlow.Src || h.Fragment || h.TotalLen != len(made) {
		t.Fatalf("%v, %+v about %v", flow, h, aboutFlow)
	}
	if h.Version == 4 && (len(made) > 576 || !sumsUp(made[:20])) {
		t.Fatalf("%d bytes with IPv4 header % x", len(made), made[:20])
	}
	first := layers.LayerTypeIPv4
	if h.Version == 6 {
		first = layers.LayerTypeIPv6
	}
	p := gopacket.NewPacket(made, first, gopacket.NoCopy)
	if p.Layer(layers.LayerTypeICMPv4) == nil && p.Layer(layers.LayerTypeICMPv6) == nil || p.Metadata().Truncated && h.Version == 4 {
		t.Fatalf("gopacket finds no ICMP in %x", made)
	}
	message, version := icmpMessage(made)
	if !packet.ICMPChecksumOK(message, &flow) {
		t.Fatalf("wrong checksum: %x", made)
	}
	e, ok := packet.ParseICMPError(message, version)
	if !ok || !bytes.HasPrefix(about, e.Quoted) || tooBig && e.MTU < 68 {
		t.Fatalf("%+v, %v about %x", e, ok, about)
	}
	quoted, ok := packet.QuotedFlow(e.Quoted)
	if !ok || quoted.Src != aboutFlow.Src || quoted.Dst != aboutFlow.Dst {
		t.Fatalf("quoted %v, %v; want %v", quoted, ok, aboutFlow)
	}
	if _, ok := packet.TooBig(make([]byte, packet.MaxICMPError), made, from, 1300); ok {
		t.Fatalf("an answer to %x", made)
	}
}

// FuzzQuotedFlow holds of any bytes: a quote of what Parse takes has Parse's flow;
// cut anywhere it tells the same or less; opaque fields are zero.
func FuzzQuotedFlow(f *testing.F) {
	for _, seed := range icmpSeeds() {
		f.Add(seed, uint16(len(seed)))
		f.Add(seed, uint16(44))
	}
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) {
		flow, ok := packet.QuotedFlow(b)
		if !ok && flow != (packet.Flow{}) {
			t.Fatalf("refused, but %+v", flow)
		}
		var h packet.Header
		var parsed packet.Flow
		if err := packet.Parse(b, &h, &parsed); err == nil && (!ok || flow != parsed) && !quoteIsStricter(&flow, &parsed) {
			t.Fatalf("quoted %+v, %v; parsed %+v", flow, ok, parsed)
		}
		less, lessOK := packet.QuotedFlow(b[:min(int(cut), len(b))])
		if !lessOK {
			return
		}
		if !ok || less.Src != flow.Src || less.Dst != flow.Dst || less.Version != flow.Version {
			t.Fatalf("cut at %d: %+v; whole: %+v, %v", cut, less, flow, ok)
		}
		if !less.ProtocolOpaque && (flow.ProtocolOpaque || less.Protocol != flow.Protocol) || less.ProtocolOpaque && less.Protocol != 0 {
			t.Fatalf("cut at %d: %+v; whole: %+v", cut, less, flow)
		}
		if !less.PortsOpaque && (flow.PortsOpaque || less.SrcPort != flow.SrcPort || less.DstPort != flow.DstPort) ||
			less.PortsOpaque && (less.SrcPort != 0 || less.DstPort != 0) {
			t.Fatalf("cut at %d: %+v; whole: %+v", cut, less, flow)
		}
	})
}

// quoteIsStricter allows a quote to call opaque what Parse ended a later
// fragment's walk at: neither knows a protocol.
func quoteIsStricter(quoted, parsed *packet.Flow) bool {
	return quoted.ProtocolOpaque && parsed.ProtocolOpaque && quoted.Src == parsed.Src && quoted.Dst == parsed.Dst
}

// FuzzClampMSS holds of any packet: nothing but MSS options of a SYN and its
// checksum changes, no option grows, none is left above the limit that a plain
// reading finds, and a right checksum stays right.
func FuzzClampMSS(f *testing.F) {
	for _, seed := range icmpSeeds() {
		f.Add(seed, uint16(1300))
	}
	f.Fuzz(func(t *testing.T, b []byte, mss uint16) {
		var h packet.Header
		var flow packet.Flow
		if packet.Parse(b, &h, &flow) != nil {
			return
		}
		after := bytes.Clone(b)
		changed := packet.ClampMSS(after, &h, &flow, mss)
		want := bytes.Clone(b)
		if flow.Protocol == packet.ProtoTCP && !flow.ProtocolOpaque && h.FragmentOffset == 0 && mss > 0 {
			plainClamp(want[h.TransportOffset:h.TotalLen], mss)
		}
		if changed == bytes.Equal(after, b) {
			t.Fatalf("says %v\nbefore %x\nafter  %x", changed, b, after)
		}
		if !changed {
			if !bytes.Equal(want, b) {
				t.Fatalf("left alone: %x, want %x", b, want)
			}
			return
		}
		at := h.TransportOffset
		before, now := checksumReference(b[at:h.TotalLen], 0), checksumReference(after[at:h.TotalLen], 0)
		if before%0xffff != now%0xffff {
			t.Fatalf("segment adds to %#x, then to %#x", before, now)
		}
		copy(want[at+16:at+18], after[at+16:at+18])
		if !bytes.Equal(after, want) {
			t.Fatalf("\n got %x\nwant %x", after, want)
		}
	})
}

// plainClamp is ClampMSS without the checksum.
func plainClamp(segment []byte, mss uint16) {
	if len(segment) < 20 || segment[13]&2 == 0 || int(segment[12]>>4)*4 > len(segment) || segment[12]>>4 < 5 {
		return
	}
	for o := segment[20 : int(segment[12]>>4)*4]; len(o) > 0 && o[0] != 0; {
		if o[0] == 1 {
			o = o[1:]
			continue
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			return
		}
		if o[0] == 2 && o[1] == 4 && binary.BigEndian.Uint16(o[2:]) > mss {
			binary.BigEndian.PutUint16(o[2:], mss)
		}
		o = o[o[1]:]
	}
}

// FuzzFragments holds of any packet and MTU: what Init takes comes out in as many
// packets as Remaining says, none longer than the MTU, and put together by their
// offsets, as gopacket reads them, they carry the packet's bytes.
func FuzzFragments(f *testing.F) {
	for _, seed := range icmpSeeds() {
		f.Add(seed, uint16(60))
		f.Add(seed, uint16(80))
	}
	f.Fuzz(func(t *testing.T, b []byte, mtu uint16) {
		var cut packet.Fragments
		if cut.Init(b, int(mtu), 0x01020304) != nil {
			return
		}
		var h packet.Header
		var flow packet.Flow
		if packet.Parse(b, &h, &flow) != nil {
			t.Fatalf("cut what is no packet: %x", b)
		}
		b = b[:h.TotalLen]
		count := cut.Remaining()
		all := make([][]byte, 0, 8)
		for {
			dst := make([]byte, mtu)
			n, ok := cut.Next(dst)
			if !ok {
				break
			}
			all = append(all, dst[:n])
		}
		if len(all) != count {
			t.Fatalf("%d fragments, announced were %d", len(all), count)
		}
		if h.TotalLen <= int(mtu) {
			if count != 1 || !bytes.Equal(all[0], b) {
				t.Fatalf("%x fits into %d and became %x", b, mtu, all)
			}
			return
		}
		checkFragments(t, b, all, &h)
	})
}

func checkFragments(t *testing.T, b []byte, all [][]byte, h *packet.Header) {
	header := int(b[0]&15) * 4
	offset, more, step := h.FragmentOffset, h.Version == 4 && b[6]&0x20 != 0, 0
	if h.Version == 6 {
		header, offset, step = perFragment(b, h.TransportOffset), 0, 8
	}
	data := make([]byte, 0, len(b))
	for i, p := range all {
		var fh packet.Header
		var flow packet.Flow
		err := packet.Parse(p, &fh, &flow)
		if err == packet.ErrFragment {
			return // eight bytes of TCP: nobody would take the second fragment
		}
		if err != nil || fh.TotalLen != len(p) {
			t.Fatalf("fragment %d: %v, %+v of %d bytes", i, err, fh, len(p))
		}
		at, wantMore := int(p[0]&15)*4, i < len(all)-1 || more
		gotMore := p[6]&0x20 != 0
		if h.Version == 6 {
			at = header
			gotMore = p[at+3]&1 != 0
		} else if !sumsUp(p[:at]) {
			t.Fatalf("fragment %d: header % x", i, p[:at])
		}
		if fh.FragmentOffset != offset+len(data) || gotMore != wantMore {
			t.Fatalf("fragment %d at %d, more %v; want %d, %v", i, fh.FragmentOffset, gotMore, offset+len(data), wantMore)
		}
		data = append(data, p[at+step:]...)
	}
	if !bytes.Equal(data, b[header:]) {
		t.Fatalf("%x came back as %x", b[header:], data)
	}
}

// perFragment is where the per-fragment headers of an IPv6 packet end: RFC 8200
// 4.5, behind the routing header, or behind the hop-by-hop options, or at once.
func perFragment(b []byte, transport int) int {
	end, next := 40, b[6]
	for off := 40; off < transport; {
		number := next
		next = b[off]
		off += (int(b[off+1]) + 1) * 8
		if number == packet.ProtoRouting || number == packet.ProtoHopByHop && off == 48+8*int(b[41]) {
			end = off
		}
	}
	return end
}
