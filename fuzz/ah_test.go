package fuzz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/adit-ipsec/adit/ah"
	"github.com/adit-ipsec/adit/internal/packet"
)

// ahTransforms holds a transform of every suite, without and with ESN, by keys
// that stay the same from run to run.
func ahTransforms(f *testing.F) [][2]*ah.Transform {
	f.Helper()
	all := make([][2]*ah.Transform, 0, len(ah.Suites()))
	for _, s := range ah.Suites() {
		var pair [2]*ah.Transform
		for k, esn := range []bool{false, true} {
			tr, err := ah.New(s, bytes.Repeat([]byte{0x3c}, s.KeyLen()), esn)
			if err != nil {
				f.Fatal(err)
			}
			pair[k] = tr
		}
		all = append(all, pair)
	}
	return all
}

func ahPick(all [][2]*ah.Transform, suite uint8, esn bool, seq uint64) (*ah.Transform, uint64) {
	pair := all[int(suite)%len(all)]
	if esn {
		return pair[1], max(seq, 1)
	}
	return pair[0], max(seq&(1<<32-1), 1)
}

// ahHeader is an IP header with these bytes as options (IPv4) or as extension
// headers (IPv6), whatever they say.
func ahHeader(six bool, first uint8, extra []byte) []byte {
	if six {
		h := append(bytes.Repeat([]byte{7}, 40), extra[:min(len(extra), 4096)&^7]...)
		h[0], h[6] = 0x60, packet.ProtoAH
		if len(h) > 40 {
			h[6] = first
		}
		return h
	}
	h := append(bytes.Repeat([]byte{7}, 20), extra[:min(len(extra), 40)&^3]...)
	h[0], h[6], h[7], h[9] = 0x40|byte(len(h)/4), 0x40, 0, packet.ProtoAH
	return h
}

func ahSetLength(wire []byte) {
	if wire[0]>>4 == 4 {
		binary.BigEndian.PutUint16(wire[2:], uint16(len(wire)))
	} else {
		binary.BigEndian.PutUint16(wire[4:], uint16(len(wire)-40))
	}
}

// FuzzAHVerify: for every suite, arbitrary bytes never panic and never verify,
// and nothing is written.
func FuzzAHVerify(f *testing.F) {
	all := ahTransforms(f)
	for i := range all {
		f.Add(uint8(i), true, uint64(7), append(ahHeader(false, 0, []byte{148, 4, 0, 0}), bytes.Repeat([]byte{17, 5, 0, 0}, 12)...))
		f.Add(uint8(i), false, uint64(7), append(ahHeader(true, 60, []byte{51, 0, 0x3e, 4, 1, 2, 3, 4}), bytes.Repeat([]byte{17, 6, 0, 0}, 12)...))
	}
	sc := ah.NewScratch()
	f.Fuzz(func(t *testing.T, suite uint8, esn bool, seq uint64, wire []byte) {
		tr, seq := ahPick(all, suite, esn, seq)
		if len(wire) >= 40 && len(wire) < 60000 {
			ahSetLength(wire)
		}
		if _, low, ok := ah.ParseHeader(wire); ok {
			seq = seq&^(1<<32-1) | uint64(low)
		}
		middle, intact := espGuarded(wire)
		batch := []ah.Packet{{Seq: seq, Wire: middle}}
		tr.Verify(sc, batch)
		p := batch[0]
		if p.Err == nil || p.Payload != nil || p.NextHeader != 0 {
			t.Fatalf("%s, number %#x, packet %x: expected it refused, saw payload %x, next header %d", tr.Suite(), seq, wire, p.Payload, p.NextHeader)
		}
		if !intact() || !bytes.Equal(middle, wire) {
			t.Fatalf("%s: Verify wrote", tr.Suite())
		}
	})
}

// FuzzAHRoundTrip: for every suite, behind any options and extension headers
// that Sign takes, Sign writes AH and nothing else, and Verify takes the packet.
// With any byte behind the IP header changed, and under another number, it does
// not.
func FuzzAHRoundTrip(f *testing.F) {
	all := ahTransforms(f)
	seeds := []struct {
		six   bool
		first uint8
		extra []byte
	}{
		{false, 0, nil},
		{false, 0, []byte{1, 131, 7, 4, 10, 0, 0, 1, 148, 4, 0, 0, 68, 8, 5, 0, 1, 2, 3, 4}},
		{true, 0, []byte{60, 0, 0x3e, 4, 1, 2, 3, 4, 51, 0, 0x1e, 4, 1, 2, 3, 4}},
		{true, 43, append([]byte{51, 2, 0, 1, 0, 0, 0, 0}, bytes.Repeat([]byte{9}, 16)...)},
		{true, 44, []byte{51, 0, 0, 0, 0, 0, 0, 0}},
	}
	for i := range all {
		for k, s := range seeds {
			f.Add(uint8(i), k%2 == 0, uint64(k)<<31+1, s.six, s.first, s.extra, []byte("payload"), uint16(k*9), uint8(1<<i))
		}
	}
	sc := ah.NewScratch()
	f.Fuzz(func(t *testing.T, suite uint8, esn bool, seq uint64, six bool, first uint8, extra, payload []byte, at uint16, mask uint8) {
		tr, seq := ahPick(all, suite, esn, seq)
		header := ahHeader(six, first, extra)
		start := len(header) + tr.Suite().HeaderLen(int(header[0]>>4))
		payload = payload[:min(len(payload), 50000)]
		wire := slices.Concat(header, make([]byte, start-len(header)), payload)
		ahSetLength(wire)
		before := bytes.Clone(wire)
		middle, intact := espGuarded(wire)
		batch := []ah.Packet{{Seq: seq, NextHeader: 4, Payload: middle[start:], Wire: middle}}
		tr.Sign(sc, 0x1001, batch)
		if !intact() {
			t.Fatalf("%s: Sign wrote outside the packet", tr.Suite())
		}
		if err := batch[0].Err; err != nil {
			if !errors.Is(err, ah.ErrMalformed) && !errors.Is(err, ah.ErrFragment) || len(batch[0].Wire) != 0 {
				t.Fatalf("%s, header %x: %v", tr.Suite(), header, err)
			}
			return
		}
		signed := batch[0].Wire
		if !bytes.Equal(signed[:len(header)], before[:len(header)]) || !bytes.Equal(signed[start:], payload) {
			t.Fatalf("%s, header %x: Sign wrote more than AH", tr.Suite(), header)
		}
		verify := func(seq uint64, wire []byte) ah.Packet {
			one := []ah.Packet{{Seq: seq, Wire: wire}}
			tr.Verify(sc, one)
			return one[0]
		}
		if p := verify(seq, signed); p.Err != nil || !bytes.Equal(p.Payload, payload) || p.NextHeader != 4 {
			t.Fatalf("%s, packet %x: saw %x, next header %d, %v", tr.Suite(), signed, p.Payload, p.NextHeader, p.Err)
		}
		if p := verify(seq^1<<40, signed); p.Err == nil {
			t.Fatalf("%s: verifies under another number", tr.Suite())
		}
		if mask == 0 {
			return
		}
		signed[len(header)+int(at)%(len(signed)-len(header))] ^= mask
		if p := verify(seq, signed); p.Err == nil {
			t.Fatalf("%s: verifies with byte %d of AH and payload changed", tr.Suite(), at)
		}
	})
}
