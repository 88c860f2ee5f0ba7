package rawip

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/adit-ipsec/adit/internal/mmsg"
	"github.com/adit-ipsec/adit/internal/packet"
)

// front is a packet's header with options, or with extension headers that lead
// to the protocol.
func front(loop netip.Addr, protocol uint8, extra []byte) []byte {
	if loop.Is4() {
		h := ipPacket(loop, loop, len(extra), protocol, nil)
		copy(h[20:], extra)
		h[6] = 0x40 // Don't Fragment
		return h
	}
	h := ipPacket(loop, loop, 0, protocol, nil)
	h[1], h[2], h[3] = 0x9a, 0xbc, 0xde // flow label
	if len(extra) > 0 {
		h[6] = extra[0]
		extra = extra[1:]
	}
	return append(h, extra...)
}

// finish puts a payload behind the header and sets the lengths.
func finish(header, payload []byte) []byte {
	b := slices.Concat(header, payload)
	if b[0]>>4 == 4 {
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	} else {
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	}
	return b
}

func send(t testing.TB, packets ...[]byte) {
	t.Helper()
	m := make([]packet.Datagram, 0, len(packets))
	for _, b := range packets {
		m = append(m, whole(b))
	}
	if n, err := clear(t, 0).WriteBatch(m); n != len(m) || err != nil {
		t.Fatalf("WriteBatch = %d, %v; want %d, nil", n, err, len(m))
	}
}

// extension is an IPv6 extension header of 8 bytes and more with an option that
// fills it: of no meaning to the kernel, and to be skipped over.
func extension(next uint8, eights int) []byte {
	h := make([]byte, 8*eights)
	h[0], h[1], h[2], h[3] = next, byte(eights-1), 0x1e, byte(8*eights-4)
	for i := range h[4:] {
		h[4+i] = byte(i + 1)
	}
	return h
}

// headers are options and extension headers that Linux takes: for IPv6 the first
// byte is the first header's protocol.
func headers(loop netip.Addr, protocol uint8) map[string][]byte {
	if loop.Is4() {
		return map[string][]byte{
			"plain":        nil,
			"router alert": {148, 4, 0, 0},
			"unknown":      {94, 6, 1, 2, 3, 4, 1, 0},
			"most options": append(bytes.Repeat([]byte{1}, 36), 94, 3, 7, 0),
		}
	}
	routing := make([]byte, 24) // type 0, at its end
	routing[0], routing[1], routing[8] = packet.ProtoDestination, 2, 0xfd
	return map[string][]byte{
		"plain":               nil,
		"hop-by-hop":          append([]byte{0}, extension(protocol, 1)...),
		"destination options": append([]byte{60}, extension(protocol, 11)...),
		"all":                 slices.Concat([]byte{0}, extension(60, 2), extension(43, 1), routing, extension(protocol, 1)),
	}
}

// withoutChecksum is an IPv4 packet as it was before the kernel filled in the
// checksum.
func withoutChecksum(b []byte) []byte {
	b = bytes.Clone(b)
	if b[0]>>4 == 4 {
		b[10], b[11] = 0, 0
	}
	return b
}

func TestRootWholeIsThePacketOfTheWire(t *testing.T) {
	for _, tt := range families {
		for _, protocol := range []int{packet.ProtoESP, packet.ProtoAH} {
			t.Run(fmt.Sprintf("%s/protocol %d", tt.name, protocol), func(t *testing.T) {
				newNamespace(t)
				c := listen(t, Config{Family: tt.family, Protocol: protocol, Whole: true})
				for name, extra := range headers(tt.loop, uint8(protocol)) {
					want := finish(front(tt.loop, uint8(protocol), extra), []byte("payload of "+name))
					send(t, want)
					got := receive(t, c)
					if !bytes.Equal(withoutChecksum(got.Bytes()), want) {
						t.Errorf("%s: received\n%x, want\n%x", name, got.Bytes(), want)
					}
					if got.TTL != 33 || got.TOS != 0xb9 || got.Local != tt.loop || got.Addr != netip.AddrPortFrom(tt.loop, 0) {
						t.Errorf("%s: TTL %d, class %#x, from %v to %v", name, got.TTL, got.TOS, got.Addr, got.Local)
					}
				}
				if got := c.Skips(); got != (mmsg.Skips{}) {
					t.Errorf("skips = %+v, want none", got)
				}
			})
		}
	}
}

func TestRootStrippedIPv4HeaderLiesInFront(t *testing.T) {
	newNamespace(t)
	loop := families[0].loop
	c := listen(t, Config{Family: 4, Protocol: packet.ProtoESP})
	for name, extra := range headers(loop, packet.ProtoESP) {
		want := finish(front(loop, packet.ProtoESP, extra), []byte("payload"))
		send(t, want)
		got := receive(t, c)
		if string(got.Bytes()) != "payload" || got.TTL != 33 {
			t.Errorf("%s: received %q, TTL %d; want \"payload\", 33", name, got.Bytes(), got.TTL)
		}
		if got := got.Mem[packet.Headroom : got.Off+got.Len]; !bytes.Equal(withoutChecksum(got), want) {
			t.Errorf("%s: from the headroom on %x, want %x", name, got, want)
		}
	}
}

func TestRootTTLOfStrippedPackets(t *testing.T) {
	for _, tt := range families {
		t.Run(tt.name, func(t *testing.T) {
			newNamespace(t)
			c := listen(t, Config{Family: tt.family, Protocol: packet.ProtoESP})
			send(t, finish(front(tt.loop, packet.ProtoESP, nil), []byte("x")))
			if got := receive(t, c); got.TTL != 33 {
				t.Errorf("TTL = %d, want 33", got.TTL)
			}
		})
	}
}

// cut makes IP fragments of a packet: fragmentable is where the part starts that
// is cut, size the bytes of each piece.
func cut(b []byte, fragmentable, next, size int) (fragments [][]byte) {
	body := b[fragmentable:]
	for at := 0; at < len(body); at += size {
		end := min(at+size, len(body))
		field := uint16(at)
		header := bytes.Clone(b[:fragmentable])
		if b[0]>>4 == 4 {
			field /= 8
			if end < len(body) {
				field |= 0x2000
			}
			binary.BigEndian.PutUint16(header[6:], field)
			fragments = append(fragments, finish(header, body[at:end]))
			continue
		}
		if end < len(body) {
			field |= 1
		}
		fragment := []byte{header[next], 0, byte(field >> 8), byte(field), 0, 0, 0x77, 0x77}
		header[next] = packet.ProtoFragment
		fragments = append(fragments, finish(header, append(fragment, body[at:end]...)))
	}
	return fragments
}

// TestRootRFC4302_3_4_1_WholePacketsAreReassembled: "prior to AH processing".
// The last one's fragment header cuts nothing (RFC 6946).
func TestRootRFC4302_3_4_1_WholePacketsAreReassembled(t *testing.T) {
	payload := bytes.Repeat([]byte("0123456789abcdef"), 64)
	payload[0], payload[1] = packet.ProtoIPv4, 4 // as in AH: Linux looks for the upper layer in a first fragment
	for _, tt := range families {
		t.Run(tt.name, func(t *testing.T) {
			newNamespace(t)
			c := listen(t, Config{Family: tt.family, Protocol: packet.ProtoAH, Whole: true})
			for name, extra := range headers(tt.loop, packet.ProtoAH) {
				header := front(tt.loop, packet.ProtoAH, extra)
				if tt.loop.Is4() {
					header[6] = 0
				}
				want := finish(header, payload)
				at, next := len(header), 0
				if tt.loop.Is6() {
					// Destination options for the end alone lie behind the fragment header.
					at, next = 40, 6
					if name == "hop-by-hop" || name == "all" {
						at, next = at+8+8*int(want[41]), 40
					}
				}
				for _, size := range []int{256, 8 * 200} {
					if size > len(payload) && tt.loop.Is4() {
						continue // not a fragment
					}
					fragments := cut(want, at, next, size)
					slices.Reverse(fragments)
					send(t, fragments...)
					if got := receive(t, c); !bytes.Equal(withoutChecksum(got.Bytes()), want) {
						t.Errorf("%s in %d: received\n%x, want\n%x", name, len(fragments), got.Bytes(), want)
					}
				}
			}
			if got := c.Skips(); got != (mmsg.Skips{}) {
				t.Errorf("skips = %+v, want none", got)
			}
		})
	}
}

func TestRootWholeHeadersBeyondTheHeadroomAreSkipped(t *testing.T) {
	newNamespace(t)
	loop := families[1].loop
	c := listen(t, Config{Family: 6, Protocol: packet.ProtoAH, Whole: true})
	long := func(first uint8, extra []byte) []byte {
		return finish(front(loop, packet.ProtoAH, append([]byte{first}, extra...)), []byte("too long in front"))
	}
	send(t,
		long(60, extension(packet.ProtoAH, 12)),
		long(0, append(extension(60, 6), extension(packet.ProtoAH, 6)...)),
		long(60, append(extension(60, 32), extension(packet.ProtoAH, 32)...)), // more than the control messages' room
		long(60, append(bytes.Repeat(extension(60, 1), 30), extension(packet.ProtoAH, 1)...)),
		finish(front(loop, packet.ProtoAH, nil), []byte("behind them")))
	if got := receive(t, c); string(got.Bytes()[40:]) != "behind them" {
		t.Errorf("received %q, want \"behind them\"", got.Bytes()[40:])
	}
	if got, want := c.Skips(), (mmsg.Skips{Headers: 4}); got != want || c.Skipped() != 4 {
		t.Errorf("skips = %+v, %d in all; want %+v, 4", got, c.Skipped(), want)
	}
}

func TestRootWholeAllocatesNothing(t *testing.T) {
	for _, tt := range families {
		t.Run(tt.name, func(t *testing.T) {
			newNamespace(t)
			c, out := listen(t, Config{Family: tt.family, Protocol: packet.ProtoAH, Whole: true}), clear(t, 0)
			all := headers(tt.loop, packet.ProtoAH)
			m := []packet.Datagram{whole(finish(front(tt.loop, packet.ProtoAH, all["all"]), []byte("payload")))}
			in := packet.NewDatagrams(4)
			if got := testing.AllocsPerRun(50, func() {
				if _, err := out.WriteBatch(m); err != nil {
					t.Fatal(err)
				}
				if _, err := c.ReadBatch(in); err != nil {
					t.Fatal(err)
				}
			}); got != 0 {
				t.Errorf("%v allocations per batch, want 0", got)
			}
		})
	}
}
