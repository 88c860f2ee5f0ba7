package packet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// piece is one fragment as gopacket reads it.
type piece struct {
	offset int
	more   bool
	data   []byte
}

// pieceOf reads one fragment: its header in front, and the rest.
func pieceOf(t testing.TB, b []byte) (header []byte, p piece) {
	t.Helper()
	first := layers.LayerTypeIPv4
	if b[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	}
	pkt := gopacket.NewPacket(b, first, gopacket.NoCopy)
	if ip, ok := pkt.Layer(first).(*layers.IPv4); ok {
		if int(ip.Length) != len(b) || plainChecksum(ip.Contents, 0) != 0xffff {
			t.Fatalf("IPv4 header of %d bytes: %+v", len(b), ip)
		}
		return ip.Contents, piece{int(ip.FragOffset) * 8, ip.Flags&layers.IPv4MoreFragments != 0, ip.Payload}
	}
	if int(binary.BigEndian.Uint16(b[4:])) != len(b)-40 {
		t.Fatalf("IPv6 payload length %d of %d bytes", binary.BigEndian.Uint16(b[4:]), len(b))
	}
	l, ok := pkt.Layer(layers.LayerTypeIPv6Fragment).(*layers.IPv6Fragment)
	if !ok {
		return nil, piece{data: b}
	}
	at := len(b) - len(l.Payload)
	return b[:at], piece{int(l.FragmentOffset) * 8, l.MoreFragments, l.Payload}
}

// cutAll cuts p, and holds what is true of any fragments: none is longer than
// the MTU, each but the last carries a multiple of eight bytes, Remaining counts
// them, and neither p nor what lies behind a fragment is written to.
func cutAll(t testing.TB, p []byte, mtu int, id uint32) [][]byte {
	t.Helper()
	var cut Fragments
	before := slices.Clone(p)
	if err := cut.Init(p, mtu, id); err != nil {
		t.Fatalf("Init with an MTU of %d: %v", mtu, err)
	}
	var all [][]byte
	for {
		left := cut.Remaining()
		dst := bytes.Repeat([]byte{0xa5}, min(mtu, len(p))+8)
		n, ok := cut.Next(dst)
		if ok != (left > 0) {
			t.Fatalf("%d fragments remain, Next says %v", left, ok)
		}
		if !ok {
			break
		}
		if n > mtu || cut.Remaining() != left-1 {
			t.Fatalf("%d bytes with an MTU of %d; %d fragments remain of %d", n, mtu, cut.Remaining(), left)
		}
		if rest := dst[n:]; len(bytes.Trim(rest, "\xa5")) != 0 {
			t.Fatalf("bytes behind the fragment are written")
		}
		all = append(all, dst[:n])
	}
	if !bytes.Equal(p, before) {
		t.Fatal("the packet was changed")
	}
	return all
}

// reassemble is RFC 791 3.2 and RFC 8200 4.5 without hurry: the data of all
// fragments, whose first and last must be there.
func reassemble(t testing.TB, all [][]byte, offset int, more bool) []byte {
	t.Helper()
	var data []byte
	for i, b := range all {
		_, p := pieceOf(t, b)
		if p.offset != offset+len(data) {
			t.Fatalf("fragment %d at %d, want %d", i, p.offset, offset+len(data))
		}
		last := i == len(all)-1
		if p.more != (!last || more) {
			t.Fatalf("fragment %d of %d: more %v", i, len(all), p.more)
		}
		if !last && (len(p.data)%8 != 0 || len(p.data) == 0) {
			t.Fatalf("fragment %d carries %d bytes", i, len(p.data))
		}
		data = append(data, p.data...)
	}
	return data
}

func numbered(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

// TestRFC791_3_2_FragmentsReassemble cuts packets with every MTU and puts them
// together again.
func TestRFC791_3_2_FragmentsReassemble(t *testing.T) {
	for _, tt := range []struct {
		name    string
		options int
		field   uint16
		length  int
	}{
		{"whole", 0, 0, 301}, {"a multiple of 8", 0, 0, 304}, {"with options", 24, 0, 200},
		{"first fragment", 0, 0x2000, 240}, {"middle fragment", 8, 0x2020, 240}, {"last fragment", 0, 0x20, 243},
		{"a flag that nobody uses", 0, 0x8000, 100},
	} {
		in := ipv4(ProtoUDP, tt.options, tt.field, numbered(tt.length))
		binary.BigEndian.PutUint16(in[4:], 0xbeef)
		for i := range tt.options / 4 { // each word an option of four bytes, every other one to be copied
			copy(in[20+4*i:], []byte{byte(i)<<7 | 20, 4, byte(i), 1})
		}
		in[10], in[11] = 0, 0
		binary.BigEndian.PutUint16(in[10:], ^Checksum(in[:20+tt.options], 0))
		for mtu := 20 + tt.options + 8; mtu <= len(in)+1; mtu++ {
			all := cutAll(t, in, mtu, 0)
			data := reassemble(t, all, int(tt.field&0x1fff)*8, tt.field&0x2000 != 0)
			if !bytes.Equal(data, in[20+tt.options:]) {
				t.Fatalf("%s, MTU %d: other data", tt.name, mtu)
			}
			for i, b := range all {
				header, _ := pieceOf(t, b)
				want := slices.Clone(in[:20+tt.options])
				if i > 0 {
					want = want[:20]
					for o := 1; o < tt.options/4; o += 2 {
						want = append(want, in[20+4*o:24+4*o]...)
					}
				}
				// Length, offset and checksum differ; all else is the packet's.
				for _, at := range []int{0, 2, 3, 6, 7, 10, 11} {
					want[at] = header[at]
				}
				if !bytes.Equal(header, want) || header[6]&0xc0 != in[6]&0xc0 {
					t.Fatalf("%s, MTU %d, fragment %d: header\n% x, want\n% x", tt.name, mtu, i, header, want)
				}
			}
		}
	}
}

func TestRFC791_3_1_OnlyCopiedOptionsGoIntoLaterFragments(t *testing.T) {
	for _, tt := range []struct{ options, later []byte }{
		{[]byte{7, 3, 4, 0}, []byte{}},                             // record route: not copied
		{[]byte{0x94, 4, 0, 0}, []byte{0x94, 4, 0, 0}},             // router alert
		{[]byte{1, 1, 1, 0}, []byte{}},                             // no operation
		{[]byte{1, 0x83, 3, 4, 7, 3, 4, 0}, []byte{0x83, 3, 4, 0}}, // loose source route, padded anew
		{[]byte{0x82, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0x44, 5, 5, 0, 0}, []byte{0x82, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0}}, // security; timestamp
		{[]byte{0, 0x94, 4, 0}, []byte{}}, // nothing behind the end
		{[]byte{0x88, 4, 0, 1, 0x94, 4, 0, 0, 7, 4, 4, 0, 1, 1, 1, 1}, []byte{0x88, 4, 0, 1, 0x94, 4, 0, 0}},                                   // stream id, router alert
		{append([]byte{0x94, 4, 0, 0, 7, 35, 4}, make([]byte, 33)...), []byte{0x94, 4, 0, 0}},                                                  // as many as there can be
		{append([]byte{0x83, 39, 4}, make([]byte, 37)...), append(append([]byte{0x83, 39, 4}, make([]byte, 36)...), 0)},                        // one, as long as there can be
		{append([]byte{0x83, 35, 4}, append(make([]byte, 32), 7, 3, 4, 0, 0)...), append(append([]byte{0x83, 35, 4}, make([]byte, 32)...), 0)}, // padding in place of another
	} {
		in := ipv4(ProtoUDP, len(tt.options), 0, numbered(200))
		copy(in[20:], tt.options)
		all := cutAll(t, in, 100, 0)
		for i, b := range all {
			header, _ := pieceOf(t, b)
			want := tt.options
			if i > 0 {
				want = tt.later
			}
			if !bytes.Equal(header[20:], want) {
				t.Errorf("options % x, fragment %d: % x, want % x", tt.options, i, header[20:], want)
			}
		}
		if got := reassemble(t, all, 0, false); !bytes.Equal(got, numbered(200)) {
			t.Errorf("options % x: other data", tt.options)
		}
	}
}

// TestRFC8200_4_5_FragmentsReassemble holds where the fragment header stands, too.
func TestRFC8200_4_5_FragmentsReassemble(t *testing.T) {
	// gopacket wants a routing header with whole addresses.
	hopLong, routing := options(ProtoHopByHop, 16), options(ProtoRouting, 24)
	for _, tt := range []struct {
		name        string
		protocol    uint8
		chain       []ext
		perFragment int // how many of chain
	}{
		{"no extension", ProtoUDP, nil, 0},
		{"ESP", ProtoESP, nil, 0},
		{"hop-by-hop", ProtoUDP, []ext{hopLong}, 1},
		{"routing", ProtoUDP, []ext{routing}, 1},
		{"destination options for the last hop", ProtoUDP, []ext{dest}, 0},
		{"destination options for each of the route", ProtoUDP, []ext{dest, routing}, 2},
		{"all", ProtoESP, []ext{hopLong, dest, routing, dest}, 3},
		{"hop-by-hop, destination options", ProtoTCP, []ext{hop, dest}, 1},
	} {
		payload := numbered(500)
		if tt.protocol == ProtoTCP {
			payload = tcp(40, 460)
		}
		in := ipv6(tt.protocol, payload, tt.chain...)
		per := 40
		for _, e := range tt.chain[:tt.perFragment] {
			per += 1 + len(e.body)
		}
		least := len(in) - len(payload) + 16
		if tt.protocol == ProtoTCP {
			least += 32
		}
		for mtu := least + 8; mtu <= len(in)+1; mtu++ {
			all := cutAll(t, in, mtu, 0xdeadbeef)
			if len(in) <= mtu {
				if len(all) != 1 || !bytes.Equal(all[0], in) {
					t.Fatalf("%s, MTU %d: a packet that fits was changed", tt.name, mtu)
				}
				continue
			}
			if data := reassemble(t, all, 0, false); !bytes.Equal(data, in[per:]) {
				t.Fatalf("%s, MTU %d: other data", tt.name, mtu)
			}
			for i, b := range all {
				header, _ := pieceOf(t, b)
				if len(header) != per+8 || binary.BigEndian.Uint32(header[per+4:]) != 0xdeadbeef || header[per+1] != 0 {
					t.Fatalf("%s, MTU %d, fragment %d: header % x", tt.name, mtu, i, header)
				}
				// Without the fragment header it is the packet's.
				bare := slices.Clone(header[:per])
				at := 6
				for off := 40; off < per; off += (int(in[off+1]) + 1) * 8 {
					at = off
				}
				if bare[at] != ProtoFragment || header[per] != in[at] {
					t.Fatalf("%s: the chain names %d, then %d; want 44, %d", tt.name, bare[at], header[per], in[at])
				}
				bare[at] = in[at]
				copy(bare[4:6], in[4:6])
				if !bytes.Equal(bare, in[:per]) {
					t.Fatalf("%s: per-fragment headers\n% x, want\n% x", tt.name, bare, in[:per])
				}
			}
		}
	}
}

func TestFragmentsRefuse(t *testing.T) {
	withOptions := func(o ...byte) []byte {
		in := ipv4(ProtoUDP, len(o), 0, numbered(100))
		copy(in[20:], o)
		return in
	}
	for _, tt := range []struct {
		name string
		in   []byte
		mtu  int
		want error
	}{
		{"v4 with DF", ipv4(ProtoUDP, 0, 0x4000, numbered(100)), 100, ErrDontFragment},
		{"v4 no room for eight bytes", ipv4(ProtoUDP, 0, 0, numbered(100)), 27, ErrFragmentMTU},
		{"v4 no room behind options", ipv4(ProtoUDP, 40, 0, numbered(100)), 67, ErrFragmentMTU},
		{"v4 MTU of 0", ipv4(ProtoUDP, 0, 0, numbered(100)), 0, ErrFragmentMTU},
		{"v4 MTU below 0", ipv4(ProtoUDP, 0, 0, numbered(100)), -1, ErrFragmentMTU},
		{"v4 option of length 1", withOptions(0x94, 1, 0, 0), 60, ErrOptions},
		{"v4 option of length 0", withOptions(7, 0, 0, 0), 60, ErrOptions},
		{"v4 option beyond the header", withOptions(1, 0x94, 4, 0), 60, ErrOptions},
		{"v4 option without length", withOptions(1, 1, 1, 0x94), 60, ErrOptions},
		{"v6 fragment", ipv6(ProtoUDP, numbered(104), fragment6(0, true)), 100, ErrDontFragment},
		{"v6 atomic fragment", ipv6(ProtoUDP, numbered(104), hop, fragment6(0, false)), 100, ErrDontFragment},
		{"v6 no room", ipv6(ProtoUDP, numbered(100)), 55, ErrFragmentMTU},
		{"v6 no room for the chain", ipv6(ProtoUDP, numbered(100), dest), 79, ErrDontFragment},
		{"v6 no room for the TCP header", ipv6(ProtoTCP, tcp(40, 100)), 87, ErrDontFragment},
		{"cut", ipv4(ProtoUDP, 0, 0, numbered(100))[:119], 100, ErrTotalLen},
	} {
		var cut Fragments
		if err := cut.Init(ipv4(ProtoUDP, 0, 0, numbered(100)), 60, 0); err != nil {
			t.Fatal(err)
		}
		if err := cut.Init(tt.in, tt.mtu, 1); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
			continue
		}
		if n, ok := cut.Next(make([]byte, MaxLen)); ok || n != 0 || cut.Remaining() != 0 {
			t.Errorf("%s: %d bytes, %d remain, though it was refused", tt.name, n, cut.Remaining())
		}
	}
}

// TestFragmentsOfWhatFits holds that DF and broken options matter only to a cut,
// that padding goes, and that a short dst is not written to.
func TestFragmentsOfWhatFits(t *testing.T) {
	in := ipv4(ProtoUDP, 4, 0x4000, numbered(96))
	in[20] = 0x94
	var cut Fragments
	if err := cut.Init(append(slices.Clone(in), 1, 2, 3), 120, 0); err != nil {
		t.Fatal(err)
	}
	dst := make([]byte, 120)
	if _, ok := cut.Next(dst[:119]); ok {
		t.Error("120 bytes went into 119")
	}
	if n, ok := cut.Next(dst); !ok || !bytes.Equal(dst[:n], in) {
		t.Errorf("%d bytes, %v; want the packet", n, ok)
	}
	if _, ok := cut.Next(dst); ok {
		t.Error("a second one")
	}
	var zero Fragments
	if _, ok := zero.Next(dst); ok || zero.Remaining() != 0 {
		t.Error("without Init there is a fragment")
	}
}
