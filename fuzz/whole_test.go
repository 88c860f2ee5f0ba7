package fuzz

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/mmsg"
	"github.com/adit-ipsec/adit/internal/packet"
)

var wholeSource = netip.MustParseAddr("2001:db8::5")

// wholeReference makes the packet that PrependIPv6 should, header by header. It
// returns nil where it should refuse.
func wholeReference(messages []unix.SocketControlMessage, protocol uint8, payload []byte) []byte {
	h := make([]byte, 40)
	h[0] = 0x60
	chain := [][]byte{h} // IPv6's header, then the extension headers
	next := []*byte{&h[6]}
	protocols := map[int32]byte{unix.IPV6_HOPOPTS: 0, unix.IPV6_RTHDR: 43, unix.IPV6_DSTOPTS: 60}
	room, local := packet.Headroom, netip.Addr{}
	link := func(p byte) bool {
		last := next[len(next)-1]
		if len(next) == 1 || *last == 44 {
			*last = p
		}
		return *last == p
	}
	for _, m := range messages {
		p, extension := protocols[m.Header.Type]
		switch {
		case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= 12:
			local = netip.AddrFrom4([4]byte(m.Data[8:12]))
		case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_TOS && len(m.Data) >= 1:
			h[0], h[1] = 0x60|m.Data[0]>>4, m.Data[0]<<4|h[1]&15
		case m.Header.Level != unix.SOL_IPV6:
		case m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 20:
			copy(h[24:], m.Data[:16])
			local = netip.AddrFrom16([16]byte(m.Data[:16]))
		case m.Header.Type == unix.IPV6_TCLASS && len(m.Data) >= 4:
			class := byte(binary.NativeEndian.Uint32(m.Data))
			h[0], h[1] = 0x60|class>>4, class<<4|h[1]&15
		case m.Header.Type == unix.IPV6_HOPLIMIT && len(m.Data) >= 4:
			h[7] = byte(binary.NativeEndian.Uint32(m.Data))
		case m.Header.Type == 11 && len(m.Data) >= 4: // IPV6_FLOWINFO
			h[1], h[2], h[3] = h[1]&0xf0|m.Data[1]&15, m.Data[2], m.Data[3]
		case extension:
			e := bytes.Clone(m.Data)
			if len(e) < 8 || len(e) != 8*(int(e[1])+1) || !link(p) {
				return nil
			}
			chain, next = append(chain, e), append(next, &e[0])
		}
	}
	if !link(protocol) || !local.Is6() || local.Is4In6() {
		return nil
	}
	b := bytes.Join(chain, nil)
	if len(b) > room || len(b)-40+len(payload) > packet.MaxLen {
		return nil
	}
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40+len(payload)))
	copy(b[8:], wholeSource.AsSlice())
	return append(b, payload...)
}

// FuzzWholeIPv6: from any control messages PrependIPv6 makes the packet of the
// reference or refuses with it, and from any bytes at all it writes nothing but
// headers that lead from the packet's start to the payload.
func FuzzWholeIPv6(f *testing.F) {
	d := packet.NewDatagrams(1)[0]
	f.Fuzz(func(t *testing.T, control []byte, protocol uint8, payload []byte) {
		payload = payload[:min(len(payload), packet.MaxLen)]
		for i := range d.Mem[:packet.Headroom] {
			d.Mem[i] = 0xa5
		}
		d.Off, d.Local, d.TOS, d.TTL = packet.Headroom, netip.Addr{}, 0, 0
		d.Len, d.Addr = copy(d.Mem[d.Off:], payload), netip.AddrPortFrom(wholeSource, 0)
		given := bytes.Clone(control)
		ok := mmsg.PrependIPv6(control, protocol, &d)
		if !bytes.Equal(control, given) || !bytes.Equal(d.Mem[packet.Headroom:][:len(payload)], payload) {
			t.Fatal("PrependIPv6 wrote to the messages or the payload")
		}
		if untouched := d.Mem[:min(d.Off, packet.Headroom)]; !bytes.Equal(untouched, bytes.Repeat([]byte{0xa5}, len(untouched))) {
			t.Fatalf("PrependIPv6 wrote in front of the packet: %x", untouched)
		}
		if messages, err := unix.ParseSocketControlMessage(control); err == nil {
			if want := wholeReference(messages, protocol, payload); ok != (want != nil) || ok && !bytes.Equal(d.Bytes(), want) {
				t.Fatalf("%v, packet\n%x, want\n%x", ok, d.Bytes(), want)
			}
		}
		if !ok {
			if d.Off != packet.Headroom || d.Len != len(payload) {
				t.Fatalf("refused, and the packet is at %d, %d bytes", d.Off, d.Len)
			}
			return
		}
		b := d.Bytes()
		next, at := b[6], 40
		for end := len(b) - len(payload); at < end; at += 8 + 8*int(b[at+1]) {
			if next != 0 && next != 43 && next != 60 {
				t.Fatalf("header %d in front: %x", next, b[:end])
			}
			next = b[at]
		}
		if b[0]>>4 != 6 || int(binary.BigEndian.Uint16(b[4:])) != len(b)-40 || at != len(b)-len(payload) || next != protocol {
			t.Fatalf("the headers do not lead to the payload: %x", b[:len(b)-len(payload)])
		}
	})
}
