package fuzz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/adit-ipsec/adit/internal/packet"
)

// FuzzPacketParse holds of any bytes: Parse does not panic; what it takes has
// its offsets in order and inside the packet; bytes behind the packet change
// nothing; the header's fields are those that golang.org/x/net reads, and the
// next layer is the one that gopacket finds; what gopacket decodes without
// complaint, and Parse has no stated reason against, is taken.
func FuzzPacketParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		var h packet.Header
		var flow packet.Flow
		err := packet.Parse(b, &h, &flow)
		if err != nil {
			checkRefusal(t, b, err)
			return
		}
		checkOffsets(t, b, &h, &flow)
		b = b[:h.TotalLen:h.TotalLen]
		var cutHeader packet.Header
		var cutFlow packet.Flow
		if err := packet.Parse(b, &cutHeader, &cutFlow); err != nil || cutHeader != h || cutFlow != flow {
			t.Fatalf("without the bytes behind it: %v, %+v %+v; want nil, %+v %+v", err, cutHeader, cutFlow, h, flow)
		}
		checkNetHeader(t, b, &h, &flow)
		checkNextLayer(t, b, &h, &flow)
		checkSetECN(t, b, &h, &flow)
	})
}

func checkOffsets(t *testing.T, b []byte, h *packet.Header, flow *packet.Flow) {
	header := 20
	if h.Version == 6 {
		header = 40
	}
	inOrder := header <= h.TransportOffset && h.TransportOffset <= h.PayloadOffset && h.PayloadOffset <= h.TotalLen && h.TotalLen <= len(b)
	if !inOrder || h.TotalLen > packet.MaxLen {
		t.Fatalf("offsets out of order or bounds: %+v of %d bytes", h, len(b))
	}
	if h.FragmentOffset%8 != 0 || h.FragmentOffset < 0 || h.FragmentOffset > 65528 || h.FragmentOffset > 0 && (!h.Fragment || !flow.PortsOpaque) {
		t.Fatalf("fragment offset %d, fragment %v, ports opaque %v", h.FragmentOffset, h.Fragment, flow.PortsOpaque)
	}
	if flow.ProtocolOpaque && (!flow.PortsOpaque || flow.Protocol != 0) {
		t.Fatalf("protocol opaque, but ports or a protocol are told: %+v", flow)
	}
	if flow.PortsOpaque && (flow.SrcPort != 0 || flow.DstPort != 0) {
		t.Fatalf("opaque ports are %d and %d, want 0: equal flows must be equal values", flow.SrcPort, flow.DstPort)
	}
}

// checkNetHeader compares the IP header with golang.org/x/net's view of it.
func checkNetHeader(t *testing.T, b []byte, h *packet.Header, flow *packet.Flow) {
	type fields struct {
		version, class, ttl, total int
		src, dst                   string
	}
	got := fields{h.Version, int(h.TrafficClass), int(h.TTL), h.TotalLen, flow.SrcAddr().String(), flow.DstAddr().String()}
	if h.Version == 6 {
		n, err := ipv6.ParseHeader(b)
		if err != nil {
			t.Fatalf("x/net refuses what Parse took: %v", err)
		}
		// netip writes a mapped address as net does not.
		src, dst := flow.SrcAddr().As16(), flow.DstAddr().As16()
		got.src, got.dst = net.IP(src[:]).String(), net.IP(dst[:]).String()
		if want := (fields{n.Version, n.TrafficClass, n.HopLimit, 40 + n.PayloadLen, n.Src.String(), n.Dst.String()}); got != want {
			t.Fatalf("Parse %+v, x/net %+v", got, want)
		}
		return
	}
	n, err := ipv4.ParseHeader(b)
	if err != nil {
		t.Fatalf("x/net refuses what Parse took: %v", err)
	}
	if want := (fields{n.Version, n.TOS, n.TTL, n.TotalLen, n.Src.String(), n.Dst.String()}); got != want {
		t.Fatalf("Parse %+v, x/net %+v", got, want)
	}
	if h.TransportOffset != n.Len || int(flow.Protocol) != n.Protocol || h.FragmentOffset != 8*n.FragOff {
		t.Fatalf("Parse: header %d, protocol %d, offset %d; x/net: %d, %d, %d", h.TransportOffset, flow.Protocol, h.FragmentOffset, n.Len, n.Protocol, 8*n.FragOff)
	}
	if h.DF != (n.Flags&ipv4.DontFragment != 0) || h.Fragment != (n.FragOff != 0 || n.Flags&ipv4.MoreFragments != 0) {
		t.Fatalf("Parse: DF %v, fragment %v; x/net: flags %v, offset %d", h.DF, h.Fragment, n.Flags, n.FragOff)
	}
}

// decode is gopacket's list of layers; ok means that it has no complaint.
func decode(b []byte) (list []gopacket.Layer, ok bool) {
	first := layers.LayerTypeIPv4
	if b[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	}
	p := gopacket.NewPacket(b, first, gopacket.NoCopy)
	return p.Layers(), p.ErrorLayer() == nil && !p.Metadata().Truncated
}

// nextLayer is the first layer behind the IP header and its extensions, with
// its distance from the end of the packet; nil where gopacket found none, or a
// fragment, which it does not look into.
func nextLayer(list []gopacket.Layer) (gopacket.Layer, int) {
	for _, l := range list[min(1, len(list)):] {
		switch l.LayerType() {
		case layers.LayerTypeIPv6HopByHop, layers.LayerTypeIPv6Routing, layers.LayerTypeIPv6Destination:
			continue
		case layers.LayerTypeIPv6Fragment, gopacket.LayerTypeFragment, gopacket.LayerTypeDecodeFailure:
			return nil, 0
		}
		if len(l.LayerContents()) == 0 {
			return nil, 0 // listed, though its header did not fit
		}
		return l, len(l.LayerContents()) + len(l.LayerPayload())
	}
	return nil, 0
}

// checkNextLayer compares protocol, ports and place with gopacket's.
func checkNextLayer(t *testing.T, b []byte, h *packet.Header, flow *packet.Flow) {
	list, _ := decode(b)
	next, rest := nextLayer(list)
	if next == nil || h.Fragment {
		return
	}
	if flow.Version == 4 && flow.Protocol == 0 {
		return // gopacket reads IPv6's hop-by-hop options behind an IPv4 header
	}
	var protocol int
	var sport, dport uint16
	switch l := next.(type) {
	case *layers.TCP:
		protocol, sport, dport = packet.ProtoTCP, uint16(l.SrcPort), uint16(l.DstPort)
	case *layers.UDP:
		protocol, sport, dport = packet.ProtoUDP, uint16(l.SrcPort), uint16(l.DstPort)
		rest = h.TotalLen - h.TransportOffset // gopacket cuts it to the UDP length
	case *layers.UDPLite:
		protocol, sport, dport = packet.ProtoUDPLite, uint16(l.SrcPort), uint16(l.DstPort)
	case *layers.SCTP:
		protocol, sport, dport = packet.ProtoSCTP, uint16(l.SrcPort), uint16(l.DstPort)
	case *layers.ICMPv4:
		protocol, sport, dport = packet.ProtoICMP, uint16(l.TypeCode), uint16(l.TypeCode)
	case *layers.ICMPv6:
		protocol, sport, dport = packet.ProtoICMPv6, uint16(l.TypeCode), uint16(l.TypeCode)
	default:
		return
	}
	if int(flow.Protocol) != protocol || flow.ProtocolOpaque || flow.PortsOpaque || flow.SrcPort != sport || flow.DstPort != dport {
		t.Fatalf("Parse: %+v; gopacket: protocol %d, ports %d and %d", flow, protocol, sport, dport)
	}
	if h.TransportOffset != h.TotalLen-rest {
		t.Fatalf("Parse: next layer at %d; gopacket: at %d", h.TransportOffset, h.TotalLen-rest)
	}
	if tcp, ok := next.(*layers.TCP); ok {
		payload := h.TransportOffset + 4*int(tcp.DataOffset)
		if tcp.DataOffset < 5 || payload > h.TotalLen {
			payload = h.TransportOffset // the header's length is not to be believed
		}
		if h.PayloadOffset != payload {
			t.Fatalf("Parse: TCP payload at %d, want %d by gopacket's data offset %d", h.PayloadOffset, payload, tcp.DataOffset)
		}
	}
}

// checkRefusal finds packets refused though gopacket takes them whole.
func checkRefusal(t *testing.T, b []byte, err error) {
	for _, stated := range []error{packet.ErrTooShort, packet.ErrVersion, packet.ErrHeaderLen, packet.ErrTotalLen, packet.ErrExtensions, packet.ErrFragment} {
		if err == stated {
			checkRefusalReason(t, b, err)
			return
		}
	}
	t.Fatalf("error %v is none of the package's values", err)
}

func checkRefusalReason(t *testing.T, b []byte, err error) {
	if len(b) < 20 || errors.Is(err, packet.ErrFragment) {
		return
	}
	list, ok := decode(b)
	if !ok || len(list) == 0 {
		return
	}
	switch l := list[0].(type) {
	case *layers.IPv4:
		// gopacket reads a total length of 0 as "all there is" (TSO).
		if l.Version == 4 && binary.BigEndian.Uint16(b[2:]) != 0 {
			t.Fatalf("refused (%v), gopacket takes it: %v", err, l)
		}
	case *layers.IPv6:
		// gopacket follows extension headers beyond the payload length.
		chain := 0
		next, _ := nextLayer(list)
		for _, h := range list[1:] {
			if h == next {
				break
			}
			chain += len(h.LayerContents())
		}
		if next != nil && chain <= int(l.Length) && len(list) < 10 && 40+int(l.Length) <= packet.MaxLen {
			t.Fatalf("refused (%v), gopacket takes it: %v", err, list)
		}
	}
}

// checkSetECN holds that a right header checksum stays right, a wrong one
// wrong, and nothing else of the packet changes.
func checkSetECN(t *testing.T, b []byte, h *packet.Header, flow *packet.Flow) {
	for ecn := range uint8(4) {
		c := bytes.Clone(b)
		packet.SetECN(c, ecn)
		var after packet.Header
		var afterFlow packet.Flow
		if err := packet.Parse(c, &after, &afterFlow); err != nil {
			t.Fatalf("after SetECN(%d): %v", ecn, err)
		}
		want := *h
		want.TrafficClass = h.TrafficClass&^3 | ecn
		if after != want || afterFlow != *flow {
			t.Fatalf("after SetECN(%d): %+v %+v, want %+v %+v", ecn, after, afterFlow, want, flow)
		}
		if h.Version != 4 {
			continue
		}
		header := h.TransportOffset
		if before, now := sumsUp(b[:header]), sumsUp(c[:header]); before != now {
			t.Fatalf("SetECN(%d): header checksum right before: %v, after: %v", ecn, before, now)
		}
	}
}

func sumsUp(b []byte) bool { return checksumReference(b, 0) == 0xffff }

// checksumReference is RFC 1071 word by word.
func checksumReference(b []byte, initial uint16) uint16 {
	sum := uint64(initial)
	for ; len(b) >= 2; b = b[2:] {
		sum += uint64(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint64(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// FuzzChecksum holds the checksum equal to the plain one, for any bytes, any
// initial value, any alignment, and cut in two at any even place.
func FuzzChecksum(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte, initial, at uint16) {
		want := checksumReference(b, initial)
		if got := packet.Checksum(b, initial); got != want {
			t.Fatalf("Checksum(%x, %#x) = %#x, want %#x", b, initial, got, want)
		}
		moved := append(make([]byte, at%8), b...)[at%8:]
		if got := packet.Checksum(moved, initial); got != want {
			t.Fatalf("moved by %d bytes: %#x, want %#x", at%8, got, want)
		}
		if len(b) > 0 {
			cut := int(at) % len(b) &^ 1
			if got := packet.Checksum(b[cut:], packet.Checksum(b[:cut], initial)); got != want {
				t.Fatalf("cut at %d: %#x, want %#x", cut, got, want)
			}
		}
	})
}
