package esp

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
)

const testSPI = 0x1001

// guardLen is how many bytes around a buffer the tests watch.
const guardLen = 64

// scratches spares tests of many packets a Scratch for each.
var scratches = sync.Pool{New: func() any { return NewScratch() }}

// forEverySuite runs f for every suite, with and without ESN.
func forEverySuite(t *testing.T, f func(t *testing.T, tr *Transform)) {
	t.Helper()
	suites := Suites()
	if len(suites) != 50 {
		t.Fatalf("expected 50 suites, saw %d", len(suites))
	}
	for _, s := range suites {
		for _, esn := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/esn=%t", s, esn), func(t *testing.T) {
				f(t, testTransform(t, s, esn))
			})
		}
	}
}

// testTransform has keys that follow from the suite.
func testTransform(t testing.TB, s Suite, esn bool) *Transform {
	t.Helper()
	encryption, integrity := testKeys(s)
	tr, err := New(s, encryption, integrity, esn)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func testKeys(s Suite) (encryption, integrity []byte) {
	e, i := s.KeyLen()
	keys := randomBytes(uint64(s), e+i)
	return keys[:e:e], keys[e:]
}

// randomBytes are the same for the same seed.
func randomBytes(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 42))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// testSeq is a number whose high half is not zero where there is ESN.
func testSeq(tr *Transform, low uint32) uint64 {
	if tr.esn {
		return 3<<32 | uint64(low)
	}
	return uint64(low)
}

// sealed returns the packet of one payload.
func sealed(t testing.TB, tr *Transform, seq uint64, payload []byte) []byte {
	t.Helper()
	wire := make([]byte, tr.suite.SealedLen(len(payload)))
	start := HeaderLen + tr.suite.IVLen()
	copy(wire[start:], payload)
	batch := []Packet{{Seq: seq, NextHeader: 4, Payload: wire[start : start+len(payload)], Wire: wire}}
	sc := scratches.Get().(*Scratch)
	defer scratches.Put(sc)
	tr.Seal(sc, testSPI, batch)
	if batch[0].Err != nil {
		t.Fatalf("seal: %v", batch[0].Err)
	}
	return batch[0].Wire
}

// sealedText returns an authentic packet of a text that need not have a right
// trailer, as a hostile peer with the keys would make it.
func sealedText(tr *Transform, seq uint64, text []byte) []byte {
	start := HeaderLen + tr.suite.IVLen()
	wire := make([]byte, start+len(text)+tr.suite.ICVLen())
	copy(wire, []byte{0, 0, testSPI >> 8, testSPI & 0xff, byte(seq >> 24), byte(seq >> 16), byte(seq >> 8), byte(seq)})
	sc := scratches.Get().(*Scratch)
	defer scratches.Put(sc)
	tr.codec.seal(sc, []job{{seq: seq, wire: wire, text: bytes.Clone(text)}})
	return wire
}

// openedText returns the whole text of an authentic packet, trailer included.
func openedText(t testing.TB, tr *Transform, seq uint64, wire []byte) []byte {
	t.Helper()
	wire = bytes.Clone(wire)
	j := job{seq: seq, wire: wire, text: wire[HeaderLen+tr.suite.IVLen() : len(wire)-tr.suite.ICVLen()]}
	run := []job{j}
	sc := scratches.Get().(*Scratch)
	defer scratches.Put(sc)
	tr.codec.open(sc, run)
	if !run[0].ok {
		t.Fatal("expected an authentic packet, saw a wrong ICV")
	}
	return j.text
}

// opened opens a copy of wire.
func opened(tr *Transform, sc *Scratch, seq uint64, wire []byte) Packet {
	batch := []Packet{{Seq: seq, Wire: bytes.Clone(wire)}}
	tr.Open(sc, batch)
	return batch[0]
}

// refused fails the test unless p ended in want and released nothing.
func refused(t testing.TB, p Packet, want error, what string) {
	t.Helper()
	if !errors.Is(p.Err, want) {
		t.Errorf("%s: expected %v, saw %v", what, want, p.Err)
	}
	if p.Payload != nil || p.NextHeader != 0 {
		t.Errorf("%s: expected no payload of a refused packet, saw %d bytes, next header %d", what, len(p.Payload), p.NextHeader)
	}
}

// guarded returns n bytes with watched memory on both sides, and a check that
// it is untouched.
func guarded(t testing.TB, n int) (middle []byte, check func(what string)) {
	t.Helper()
	all := bytes.Repeat([]byte{0xa5}, n+2*guardLen)
	guard := bytes.Repeat([]byte{0xa5}, guardLen)
	return all[guardLen : guardLen+n], func(what string) {
		t.Helper()
		if !bytes.Equal(all[:guardLen], guard) || !bytes.Equal(all[guardLen+n:], guard) {
			t.Errorf("%s: wrote outside its buffer", what)
		}
	}
}
