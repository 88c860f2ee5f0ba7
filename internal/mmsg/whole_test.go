package mmsg

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/packet"
)

// told is one control message of the kernel.
type told struct {
	typ  int32
	data []byte
}

func number(typ int32, v uint32) told { return told{typ, binary.NativeEndian.AppendUint32(nil, v)} }

func messages(list ...told) []byte {
	var c wideControl
	b := c.bytes()
	rest := b
	for _, m := range list {
		var data []byte
		data, rest = putControl(rest, unix.SOL_IPV6, m.typ, len(m.data))
		copy(data, m.data)
	}
	return b[:len(b)-len(rest)]
}

var (
	wholeSrc, wholeDst = netip.MustParseAddr("2001:db8::5"), netip.MustParseAddr("2001:db8::7")

	toldInfo  = told{unix.IPV6_PKTINFO, append(wholeDst.AsSlice(), 0, 0, 0, 0)}
	toldBasic = []told{toldInfo, number(unix.IPV6_HOPLIMIT, 61), number(unix.IPV6_TCLASS, 0xb9), {ipv6FlowInfo, []byte{0x0b, 0x9a, 0xbc, 0xde}}}
)

// extension is a header of 8 bytes and more, with the number of 8s.
func extension(next uint8, eights int) []byte {
	h := bytes.Repeat([]byte{0x1e}, 8*eights)
	h[0], h[1] = next, byte(eights-1)
	return h
}

// TestRFC4302_3_3_3_1_2_IPv6HeadersAreMadeAgain: RFC 4302 covers the headers in
// front of AH, so each byte of them must be the sender's.
func TestRFC4302_3_3_3_1_2_IPv6HeadersAreMadeAgain(t *testing.T) {
	hop, routing, destination := int32(unix.IPV6_HOPOPTS), int32(unix.IPV6_RTHDR), int32(unix.IPV6_DSTOPTS)
	for _, tt := range []struct {
		name  string
		in    []told
		first uint8
		want  []byte // the extension headers
		ok    bool
	}{
		{"none", nil, 51, nil, true},
		{"hop-by-hop", []told{{hop, extension(51, 2)}}, 0, extension(51, 2), true},
		{
			"all, in the wire's order",
			[]told{{hop, extension(60, 1)}, {destination, extension(43, 1)}, {routing, extension(60, 3)}, {destination, extension(51, 2)}},
			0, slices.Concat(extension(60, 1), extension(43, 1), extension(60, 3), extension(51, 2)), true,
		},
		{"all of the headroom", []told{{destination, extension(51, 11)}}, 60, extension(51, 11), true},
		{"the most headers", slices.Concat(slices.Repeat([]told{{destination, extension(60, 1)}}, 10), []told{{destination, extension(51, 1)}}),
			60, append(bytes.Repeat(extension(60, 1), 10), extension(51, 1)...), true},
		{"a fragment header that cut nothing, at the end", []told{{hop, extension(44, 1)}}, 0, extension(51, 1), true},
		{"the same in the middle", []told{{hop, extension(44, 1)}, {destination, extension(51, 1)}}, 0, append(extension(60, 1), extension(51, 1)...), true},
		{"more than the headroom", []told{{destination, extension(51, 12)}}, 0, nil, false},
		{"more than the headroom in two", []told{{hop, extension(60, 6)}, {destination, extension(51, 6)}}, 0, nil, false},
		{"leads elsewhere", []told{{hop, extension(50, 1)}}, 0, nil, false},
		{"the next is another", []told{{hop, extension(43, 1)}, {destination, extension(51, 1)}}, 0, nil, false},
		{"one that nobody tells lies between", []told{{hop, extension(135, 1)}, {destination, extension(51, 1)}}, 0, nil, false},
		{"cut", []told{{hop, extension(51, 2)[:8]}}, 0, nil, false},
		{"longer than it says", []told{{hop, append(extension(51, 1), 0, 0, 0, 0, 0, 0, 0, 0)}}, 0, nil, false},
		{"nothing in it", []told{{hop, nil}}, 0, nil, false},
	} {
		d := packet.NewDatagrams(1)[0]
		d.Addr = netip.AddrPortFrom(wholeSrc, 0)
		d.Len = copy(d.Mem[d.Off:], "AH and payload")
		before := bytes.Clone(d.Mem)
		if got := PrependIPv6(messages(append(slices.Clone(toldBasic), tt.in...)...), packet.ProtoAH, &d); got != tt.ok {
			t.Errorf("%s: PrependIPv6 = %v, want %v", tt.name, got, tt.ok)
			continue
		}
		if !tt.ok {
			if d.Off != packet.Headroom || !bytes.Equal(d.Mem, before) {
				t.Errorf("%s: refused, and the slot is changed", tt.name)
			}
			continue
		}
		want := []byte{0x6b, 0x9a, 0xbc, 0xde, 0, byte(len(tt.want) + 14), tt.first, 61}
		want = slices.Concat(want, wholeSrc.AsSlice(), wholeDst.AsSlice(), tt.want, []byte("AH and payload"))
		if !bytes.Equal(d.Bytes(), want) {
			t.Errorf("%s: packet\n%x, want\n%x", tt.name, d.Bytes(), want)
		}
		if d.TOS != 0xb9 || d.TTL != 61 || d.Local != wholeDst {
			t.Errorf("%s: class %#x, hop limit %d, local %v", tt.name, d.TOS, d.TTL, d.Local)
		}
	}
}

func TestWholeIPv6NeedsItsDestinationAndALengthThatFits(t *testing.T) {
	for _, tt := range []struct {
		name   string
		in     []told
		length int
		ok     bool
	}{
		{"the longest", []told{toldInfo, {unix.IPV6_HOPOPTS, extension(51, 1)}}, packet.MaxLen - 8, true},
		{"one more", []told{toldInfo, {unix.IPV6_HOPOPTS, extension(51, 1)}}, packet.MaxLen - 7, false},
		{"no destination", []told{number(unix.IPV6_HOPLIMIT, 61)}, 9, false},
		{"nothing told", nil, 9, false},
	} {
		d := packet.NewDatagrams(1)[0]
		d.Addr, d.Len = netip.AddrPortFrom(wholeSrc, 0), tt.length
		if got := PrependIPv6(messages(tt.in...), packet.ProtoAH, &d); got != tt.ok {
			t.Errorf("%s: PrependIPv6 = %v, want %v", tt.name, got, tt.ok)
		}
	}
}

// TestWholeIPv4KeepsItsHeader has the packets of TestRawIPv4HeaderIsStripped that
// are accepted.
func TestWholeIPv4KeepsItsHeader(t *testing.T) {
	for _, options := range []int{0, 4, 40} {
		s := &Socket{kind: kindRaw, ipv4: true, whole: true}
		in := ipv4(options, 0x4000, "payload", 9)
		in[8] = 17
		d := packet.NewDatagrams(1)[0]
		d.Len = copy(d.Mem[packet.Headroom:], in)
		if !s.acceptIPv4(&d) || d.Off != packet.Headroom || !bytes.Equal(d.Bytes(), in[:20+options+7]) || d.TTL != 17 {
			t.Errorf("%d bytes of options: packet %x at %d, TTL %d; want %x at %d, 17", options, d.Bytes(), d.Off, d.TTL, in[:20+options+7], packet.Headroom)
		}
	}
}
