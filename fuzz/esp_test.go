package fuzz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/adit-ipsec/adit/esp"
)

// espTransforms holds a transform of every suite, without and with ESN, by keys
// that stay the same from run to run.
func espTransforms(f *testing.F) [][2]*esp.Transform {
	f.Helper()
	all := make([][2]*esp.Transform, 0, len(esp.Suites()))
	for _, s := range esp.Suites() {
		e, i := s.KeyLen()
		var pair [2]*esp.Transform
		for k, esn := range []bool{false, true} {
			tr, err := esp.New(s, bytes.Repeat([]byte{0x3c}, e), bytes.Repeat([]byte{0xc3}, i), esn)
			if err != nil {
				f.Fatal(err)
			}
			pair[k] = tr
		}
		all = append(all, pair)
	}
	return all
}

// espPick takes a transform and a number that it may seal.
func espPick(all [][2]*esp.Transform, suite uint8, esn bool, seq uint64) (*esp.Transform, uint64) {
	pair := all[int(suite)%len(all)]
	if esn {
		return pair[1], max(seq, 1)
	}
	return pair[0], max(seq&(1<<32-1), 1)
}

const espGuard = 48

// espGuarded copies b between guard bytes; intact tells whether they still are.
func espGuarded(b []byte) (middle []byte, intact func() bool) {
	all := bytes.Repeat([]byte{0xa5}, len(b)+2*espGuard)
	guard := bytes.Repeat([]byte{0xa5}, espGuard)
	middle = all[espGuard : espGuard+len(b)]
	copy(middle, b)
	return middle, func() bool {
		return bytes.Equal(all[:espGuard], guard) && bytes.Equal(all[espGuard+len(b):], guard)
	}
}

// FuzzESPOpen: for every suite, arbitrary bytes never panic and never open, and
// nothing outside the packet is written. A sealed packet with any byte changed,
// bytes cut off or bytes added does not open; unchanged it does.
func FuzzESPOpen(f *testing.F) {
	all := espTransforms(f)
	for i := range all {
		f.Add(uint8(i), true, uint64(1<<32+7), []byte("payload and packet"), uint16(i*3), uint8(1<<(i%8)), int8(0))
		f.Add(uint8(i), false, uint64(9), bytes.Repeat([]byte{0, 0, 0, 9}, 20), uint16(0), uint8(0), int8(i%32-16))
	}
	sc := esp.NewScratch()
	f.Fuzz(func(t *testing.T, suite uint8, esn bool, seq uint64, data []byte, at uint16, mask uint8, resize int8) {
		tr, seq := espPick(all, suite, esn, seq)

		// The bytes as a packet whose number the receiver believes.
		believed := seq
		if _, low, ok := esp.ParseHeader(data); ok {
			believed = seq&^(1<<32-1) | uint64(low)
		}
		espMustRefuse(t, tr, sc, believed, data)

		// The bytes as a payload, the sealed packet changed.
		wire := make([]byte, tr.Suite().SealedLen(len(data)))
		start := esp.HeaderLen + tr.Suite().IVLen()
		copy(wire[start:], data)
		batch := []esp.Packet{{Seq: seq, NextHeader: 4, Payload: wire[start : start+len(data)], Wire: wire}}
		tr.Seal(sc, 0x1001, batch)
		if batch[0].Err != nil {
			t.Fatalf("%s: seal: %v", tr.Suite(), batch[0].Err)
		}
		sealed := batch[0].Wire
		changed := bytes.Clone(sealed)
		changed[int(at)%len(changed)] ^= mask
		if resize >= 0 {
			changed = append(changed, make([]byte, resize)...)
		} else {
			changed = changed[:max(0, len(changed)+int(resize))]
		}
		if !bytes.Equal(changed, sealed) {
			espMustRefuse(t, tr, sc, seq, changed)
			if _, low, ok := esp.ParseHeader(changed); ok {
				espMustRefuse(t, tr, sc, seq&^(1<<32-1)|uint64(low), changed)
			}
			return
		}
		middle, intact := espGuarded(sealed)
		batch = []esp.Packet{{Seq: seq, Wire: middle}}
		tr.Open(sc, batch)
		if p := batch[0]; p.Err != nil || !bytes.Equal(p.Payload, data) || p.NextHeader != 4 || !intact() {
			t.Fatalf("%s: expected %x, saw %x, next header %d, %v, guards intact %t", tr.Suite(), data, p.Payload, p.NextHeader, p.Err, intact())
		}
	})
}

func espMustRefuse(t *testing.T, tr *esp.Transform, sc *esp.Scratch, seq uint64, wire []byte) {
	t.Helper()
	middle, intact := espGuarded(wire)
	batch := []esp.Packet{{Seq: seq, Wire: middle}}
	tr.Open(sc, batch)
	if p := batch[0]; !errors.Is(p.Err, esp.ErrAuth) && !errors.Is(p.Err, esp.ErrMalformed) || p.Payload != nil || p.NextHeader != 0 {
		t.Fatalf("%s, number %#x, packet %x: expected it refused, saw payload %x, next header %d, %v", tr.Suite(), seq, wire, p.Payload, p.NextHeader, p.Err)
	}
	if !intact() {
		t.Fatalf("%s: Open wrote outside the packet", tr.Suite())
	}
}

// FuzzESPRoundTrip: for every suite, what is sealed, in place or apart, is one
// and the same packet of SealedLen bytes, with the header asked for, opens to
// what went in, and nothing outside the given memory is written. Under another
// number it does not open.
func FuzzESPRoundTrip(f *testing.F) {
	all := espTransforms(f)
	for i := range all {
		f.Add(uint8(i), i%2 == 0, uint64(i)<<31+1, uint32(0x1001), uint8(4), bytes.Repeat([]byte{byte(i)}, i*5))
	}
	sc := esp.NewScratch()
	f.Fuzz(func(t *testing.T, suite uint8, esn bool, seq uint64, spi uint32, next uint8, payload []byte) {
		tr, seq := espPick(all, suite, esn, seq)
		s := tr.Suite()
		n, start := len(payload), esp.HeaderLen+s.IVLen()

		inPlace, inPlaceIntact := espGuarded(make([]byte, s.SealedLen(n)))
		copy(inPlace[start:], payload)
		apart, apartIntact := espGuarded(make([]byte, s.SealedLen(n)))
		source, sourceIntact := espGuarded(append(bytes.Clone(payload), make([]byte, s.TrailerLen(n))...))
		batch := []esp.Packet{
			{Seq: seq, NextHeader: next, Payload: inPlace[start : start+n], Wire: inPlace},
			{Seq: seq, NextHeader: next, Payload: source[:n], Wire: apart},
		}
		tr.Seal(sc, spi, batch)
		a, b := batch[0], batch[1]
		if a.Err != nil || b.Err != nil || !bytes.Equal(a.Wire, b.Wire) || len(a.Wire) != s.SealedLen(n) {
			t.Fatalf("%s: in place %x, %v; apart %x, %v", s, a.Wire, a.Err, b.Wire, b.Err)
		}
		if !inPlaceIntact() || !apartIntact() || !sourceIntact() || !bytes.Equal(source[:n], payload) {
			t.Fatalf("%s: Seal wrote where it must not", s)
		}
		if got := binary.BigEndian.Uint64(a.Wire); got != uint64(spi)<<32|seq&(1<<32-1) {
			t.Fatalf("%s: header %016x", s, got)
		}
		other := seq ^ 1
		if esn {
			other = seq ^ 1<<40
		}
		espMustRefuse(t, tr, sc, other, a.Wire)
		batch = []esp.Packet{{Seq: seq, Wire: a.Wire}}
		tr.Open(sc, batch)
		if p := batch[0]; p.Err != nil || !bytes.Equal(p.Payload, payload) || p.NextHeader != next || !inPlaceIntact() {
			t.Fatalf("%s: expected %x, next header %d, saw %x, %d, %v", s, payload, next, p.Payload, p.NextHeader, p.Err)
		}
	})
}
