package packet

import (
	"encoding/binary"
	"testing"
)

func TestSetProtocolFollowsTheExtensionHeaders(t *testing.T) {
	chain := ipv6(ProtoHopByHop, append([]byte{ProtoDestination, 0, 1, 4, 0, 0, 0, 0}, // one hop-by-hop option
		append([]byte{ProtoFragment, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, // 16 bytes of destination options
			append([]byte{ProtoTCP, 7, 0, 0, 0, 0, 0, 1}, tcp(20, 0)...)...)...))
	var h Header
	var f Flow
	if err := Parse(chain, &h, &f); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		header []byte
		at     int
	}{
		"IPv4":             {ipv4(ProtoTCP, 0, 0, tcp(20, 0))[:20], 9},
		"IPv6":             {ipv6(ProtoTCP, tcp(20, 0))[:40], 6},
		"three extensions": {chain[:h.TransportOffset], 40 + 8 + 16},
	} {
		before := append([]byte{}, c.header...)
		SetProtocol(c.header, ProtoAH)
		for i := range before {
			if changed := before[i] != c.header[i]; changed != (i == c.at) {
				t.Errorf("%s: byte %d: changed %v; expected byte %d alone to change", name, i, changed, c.at)
			}
		}
		if c.header[c.at] != ProtoAH {
			t.Errorf("%s: expected protocol 51 at byte %d, saw %d", name, c.at, c.header[c.at])
		}
	}
}

func TestSetLengthAndChecksum(t *testing.T) {
	four := ipv4(ProtoTCP, 0, 0, tcp(20, 0))
	SetLength(four[:20], 1234)
	SetChecksum(four[:20])
	if got := binary.BigEndian.Uint16(four[2:]); got != 1234 {
		t.Errorf("IPv4: expected a total length of 1234, saw %d", got)
	}
	if sum := Checksum(four[:20], 0); sum != 0xffff {
		t.Errorf("IPv4: expected the header to sum up to 0xffff, saw %#x", sum)
	}
	six := ipv6(ProtoTCP, tcp(20, 0))
	before := append([]byte{}, six...)
	SetLength(six[:40], 1234)
	SetChecksum(six[:40])
	if got := binary.BigEndian.Uint16(six[4:]); got != 1194 {
		t.Errorf("IPv6: expected a payload length of 1194, saw %d", got)
	}
	copy(six[4:6], before[4:6])
	if string(six) != string(before) {
		t.Error("IPv6: expected nothing but the length to change")
	}
}

// RFC 1624: the sum that was changed in place is the sum made anew.
func TestRFC1624_ReplaceInChecksum(t *testing.T) {
	b := make([]byte, 40)
	for i := range b {
		b[i] = byte(i * 37)
	}
	for round := range 1000 {
		b[0], b[1] = 0, 0
		binary.BigEndian.PutUint16(b, ^Checksum(b, 0))
		old := append([]byte{}, b[8:24]...)
		for i := range 16 {
			b[8+i] = byte(round*7 + i*round*13)
		}
		field := append([]byte{}, b[:2]...)
		ReplaceInChecksum(field, old, b[8:24])
		if sum := Checksum(b[2:], binary.BigEndian.Uint16(field)); sum != 0xffff {
			t.Fatalf("round %d: expected the whole to sum up to 0xffff, saw %#x", round, sum)
		}
	}
}
