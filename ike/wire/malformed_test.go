package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"testing"

	"github.com/adit-ipsec/adit/ike/wire"
)

// again writes a message that was read.
func again(m *wire.Message) []byte {
	if m.Protected == nil {
		return wire.Append(nil, m.Header, m.Payloads...)
	}
	return append(wire.BeginProtected(m.Header, m.Payloads, *m.Protected, len(m.Protected.Body)), m.Protected.Body...)
}

// comparable is m without what depends on how it was written: a length that counts
// an attribute that was skipped.
func comparable(m *wire.Message) wire.Message {
	c := *m
	c.Length, c.Raw = 0, nil
	if c.Protected != nil {
		p := *c.Protected
		p.AAD = 0
		c.Protected = &p
	}
	return c
}

// survives parses b. Either that is a *ParseError, or what was read is the same when
// it is written and read once more. Whatever it is, Check and Summary take it.
func survives(t *testing.T, b []byte) (ok bool) {
	t.Helper()
	m, err := wire.Parse(b)
	if err != nil {
		var parse *wire.ParseError
		if !errors.As(err, &parse) || parse.Offset < 0 || parse.Offset > len(b) || m != nil {
			t.Fatalf("%x: %v is no *ParseError inside the message", b, err)
		}
		return false
	}
	back, err := wire.Parse(again(m))
	if err != nil || !reflect.DeepEqual(comparable(m), comparable(back)) {
		t.Fatalf("%x: read %+v\nand once more %+v, %v", b, m, back, err)
	}
	for _, response := range []bool{false, true} {
		_ = wire.Check(m.Exchange, response, m.Payloads)
	}
	_ = wire.CheckOuter(m)
	if m.Summary() == "" {
		t.Fatal("no summary")
	}
	return true
}

// lengthField is where a length, a size or a count stands, and of how many bytes.
type lengthField struct{ at, size int }

// lengthFields walks a valid message, by the figures of RFC 7296 section 3 and apart
// from the parser, to every length, size and count in it.
func lengthFields(b []byte) (all []lengthField) {
	add := func(at, size int) { all = append(all, lengthField{at, size}) }
	u16 := func(at int) int { return int(binary.BigEndian.Uint16(b[at:])) }
	add(24, 4)
	for kind, at := b[16], wire.HeaderLen; kind != 0; {
		body, end := at+4, at+u16(at+2)
		add(at+2, 2)
		switch wire.PayloadType(kind) {
		case wire.PayloadSA:
			for p := body; p < end; p += u16(p + 2) {
				add(p+2, 2)
				add(p+6, 1)
				add(p+7, 1)
				for tr := p + 8 + int(b[p+6]); tr < p+u16(p+2); tr += u16(tr + 2) {
					add(tr+2, 2)
				}
			}
		case wire.PayloadN:
			add(body+1, 1)
		case wire.PayloadD:
			add(body+1, 1)
			add(body+2, 2)
		case wire.PayloadTSi, wire.PayloadTSr:
			add(body, 1)
			for s := body + 4; s < end; s += u16(s + 2) {
				add(s+2, 2)
			}
		case wire.PayloadCP:
			for a := body + 4; a < end; a += 4 + u16(a+2) {
				add(a+2, 2)
			}
		case wire.PayloadEAP:
			add(body+2, 2)
		case wire.PayloadSK, wire.PayloadSKF:
			return all
		}
		kind, at = b[at], end
	}
	return all
}

// wires are the messages, and one in SK, and one in SKF.
func wires() (all [][]byte) {
	for _, m := range messages() {
		all = append(all, m.bytes())
	}
	h := wire.Header{Initiator: 1, Responder: 2, Exchange: wire.IKEAuth, MessageID: 1}
	all = append(all, append(wire.BeginProtected(h, nil, wire.Protected{First: wire.PayloadIDi}, 30), fill(30)...),
		append(wire.BeginProtected(h, payloads(vendor), wire.Protected{First: wire.PayloadIDi, Fragment: 1, Total: 2}, 30), fill(30)...),
		wire.Append(nil, h, &wire.EAP{Data: []byte{1, 2, 0, 6, 1, 2}}, cp))
	return all
}

// TestCK04_MalformedLengths sets every byte of every length, size and count of every
// message to its 255 other values.
func TestCK04_MalformedLengths(t *testing.T) {
	fields, accepted := 0, 0
	for _, b := range wires() {
		for _, f := range lengthFields(b) {
			fields++
			for at := f.at; at < f.at+f.size; at++ {
				original := b[at]
				for value := range 256 {
					b[at] = byte(value)
					if ok := survives(t, b); ok && value != int(original) {
						accepted++
					}
				}
				b[at] = original
			}
		}
	}
	if fields < 290 {
		t.Errorf("%d lengths found, expected more: does the walk miss some?", fields)
	}
	// What may change and leave a message: the size of the SPI of a notification
	// whose protocol is not known moves the border between it and the data.
	t.Logf("%d fields, %d wrong values give another message", fields, accepted)
}

// TestCK04_OtherBytes sets each byte to values that are likely to hurt.
func TestCK04_OtherBytes(t *testing.T) {
	for _, b := range wires() {
		for at, original := range b {
			for _, value := range []byte{0, 0xff, original + 1, ^original, byte(wire.PayloadSK)} {
				b[at] = value
				survives(t, b)
			}
			b[at] = original
		}
	}
}

// TestCK04_Truncated cuts every message at every byte: as it is, and with a header
// that says so.
func TestCK04_Truncated(t *testing.T) {
	for _, b := range wires() {
		for n := range b {
			cut := bytes.Clone(b[:n])
			if survives(t, cut) {
				t.Fatalf("%d of %d bytes are a message", n, len(b))
			}
			if n < wire.HeaderLen {
				continue
			}
			binary.BigEndian.PutUint32(cut[24:], uint32(n))
			if p := wire.PayloadType(b[16]); survives(t, cut) && p != wire.PayloadNone {
				t.Fatalf("%d of %d bytes, with a header that says so, are a message", n, len(b))
			}
		}
	}
}

// TestF7_HugeLengths: lengths near the ends of their ranges, where sums overflow.
func TestF7_HugeLengths(t *testing.T) {
	for _, b := range wires() {
		for _, f := range lengthFields(b) {
			original := bytes.Clone(b[f.at : f.at+f.size])
			for _, value := range []uint32{0, 1, 3, 4, 5, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xfffb, 0xfffc, 0xffff, 0x7fffffff, 0x80000000, 0xfffffffc, 0xffffffff} {
				var wide [4]byte
				binary.BigEndian.PutUint32(wide[:], value)
				copy(b[f.at:f.at+f.size], wide[4-f.size:])
				survives(t, b)
			}
			copy(b[f.at:], original)
		}
	}
}

// TestParseBorrows: what is read lies in what was read from, and capacity does not
// reach into what follows.
func TestParseBorrows(t *testing.T) {
	b := message{exchange: wire.IKESAInit, payloads: payloads(nonce, ke)}.bytes()
	m, err := wire.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	got := wire.First[*wire.Nonce](m.Payloads)
	if cap(got.Data) != len(got.Data) {
		t.Error("appending to a payload writes over the next one")
	}
	b[wire.HeaderLen+4] ^= 0xff
	if got.Data[0] != nonce.Data[0]^0xff {
		t.Error("the nonce was copied: package documentation says that it is borrowed")
	}
}
