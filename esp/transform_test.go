package esp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// What is sealed is opened again: any suite, payload, number, batch, in place
// or not.
func TestWhatIsSealedOpensAgain(t *testing.T) {
	sc := NewScratch()
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.SampledFrom(Suites()).Draw(t, "suite")
		esn := rapid.Bool().Draw(t, "esn")
		e, i := s.KeyLen()
		encryption := rapid.SliceOfN(rapid.Byte(), e, e).Draw(t, "encryption key")
		integrity := rapid.SliceOfN(rapid.Byte(), i, i).Draw(t, "integrity key")
		sender, err := New(s, encryption, integrity, esn)
		if err != nil {
			t.Fatal(err)
		}
		receiver, err := New(s, encryption, integrity, esn)
		if err != nil {
			t.Fatal(err)
		}
		spi := rapid.Uint32().Draw(t, "spi")
		highest := uint64(1<<32 - 1)
		if esn {
			highest = 1<<64 - 1
		}
		n := rapid.IntRange(1, 40).Draw(t, "packets")
		batch := make([]Packet, n)
		payloads := make([][]byte, n)
		start := HeaderLen + s.IVLen()
		for k := range batch {
			p := &batch[k]
			payloads[k] = rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "payload")
			p.Seq = rapid.Uint64Range(1, highest).Draw(t, "seq")
			p.NextHeader = rapid.Byte().Draw(t, "next header")
			size := len(payloads[k])
			p.Wire = make([]byte, s.SealedLen(size)+rapid.IntRange(0, 50).Draw(t, "more room"))
			if rapid.Bool().Draw(t, "in place") {
				copy(p.Wire[start:], payloads[k])
				p.Payload = p.Wire[start : start+size]
			} else {
				p.Payload = append(make([]byte, 0, size+s.TrailerLen(size)), payloads[k]...)
			}
		}
		want := append([]Packet(nil), batch...)
		sender.Seal(sc, spi, batch)
		for k := range batch {
			p := &batch[k]
			if p.Err != nil || len(p.Wire) != s.SealedLen(len(payloads[k])) {
				t.Fatalf("%s: sealed to %d bytes, %v", s, len(p.Wire), p.Err)
			}
			if gotSPI, low, ok := ParseHeader(p.Wire); !ok || gotSPI != spi || low != uint32(want[k].Seq) {
				t.Fatalf("%s: header %x %x %t", s, gotSPI, low, ok)
			}
			p.NextHeader, p.Payload = 0, nil
		}
		receiver.Open(sc, batch)
		for k := range batch {
			p := &batch[k]
			if p.Err != nil || !bytes.Equal(p.Payload, payloads[k]) || p.NextHeader != want[k].NextHeader {
				t.Fatalf("%s packet %d: expected %x, next header %d, saw %x, %d, %v", s, k, payloads[k], want[k].NextHeader, p.Payload, p.NextHeader, p.Err)
			}
		}
	})
}

// In place and not in place give the same packet, write nothing outside the
// packet, and what is not in place stays in clear.
func TestSealInPlaceAndApartAgree(t *testing.T) {
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		sc := NewScratch()
		s := tr.suite
		start := HeaderLen + s.IVLen()
		for _, n := range []int{0, 1, 2, 15, 47, 48, 127, 128, 129, 143, 144, 145, 1408} {
			payload := randomBytes(uint64(n), n)
			inPlace, checkInPlace := guarded(t, s.SealedLen(n))
			copy(inPlace[start:], payload)
			apart, checkApart := guarded(t, s.SealedLen(n))
			source, checkSource := guarded(t, n+s.TrailerLen(n))
			copy(source, payload)
			batch := []Packet{
				{Seq: 5, NextHeader: 6, Wire: inPlace, Payload: inPlace[start : start+n]},
				{Seq: 5, NextHeader: 6, Wire: apart, Payload: source[:n]},
			}
			tr.Seal(sc, testSPI, batch)
			checkInPlace(fmt.Sprintf("in place, %d", n))
			checkApart(fmt.Sprintf("apart, %d", n))
			checkSource(fmt.Sprintf("payload apart, %d", n))
			if batch[0].Err != nil || batch[1].Err != nil {
				t.Fatalf("%d bytes: %v, %v", n, batch[0].Err, batch[1].Err)
			}
			if !bytes.Equal(batch[0].Wire, batch[1].Wire) {
				t.Errorf("%d bytes: expected the same packet in place and apart, saw\n%x\n%x", n, batch[0].Wire, batch[1].Wire)
			}
			if !bytes.Equal(source[:n], payload) {
				t.Errorf("%d bytes: payload apart was changed", n)
			}
			tr.Open(sc, []Packet{{Seq: 5, Wire: batch[0].Wire}})
			checkInPlace(fmt.Sprintf("open, %d", n))
		}
	})
}

// An empty payload without memory of its own is a packet like any other: the
// dummy of RFC 4303 2.6 may look so.
func TestSealOfANilPayload(t *testing.T) {
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		wire := make([]byte, tr.suite.SealedLen(0))
		batch := []Packet{{Seq: 1, NextHeader: 59, Wire: wire}}
		tr.Seal(NewScratch(), testSPI, batch)
		if batch[0].Err != nil {
			t.Fatal(batch[0].Err)
		}
		p := opened(tr, NewScratch(), 1, batch[0].Wire)
		if p.Err != nil || p.Payload == nil || len(p.Payload) != 0 || p.NextHeader != 59 {
			t.Errorf("expected an empty payload, next header 59, saw %v, %d, %v", p.Payload, p.NextHeader, p.Err)
		}
	})
}

// Too little room, and overlaps that the rule forbids, seal nothing.
func TestSealRefusesMissingRoomAndOverlap(t *testing.T) {
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		s := tr.suite
		const n = 40
		need, trailer, start := s.SealedLen(n), s.TrailerLen(n), HeaderLen+s.IVLen()
		mem := make([]byte, 4096)
		for _, c := range []struct {
			name          string
			wire, payload []byte
			want          error
		}{
			{"one byte of wire missing", mem[:need-1], mem[2000 : 2000+n], ErrRoom},
			{"no wire", nil, mem[2000 : 2000+n], ErrRoom},
			{"one byte of trailer room missing", mem[:need], mem[2000 : 2000+n : 2000+n+trailer-1], ErrRoom},
			{"no trailer room", mem[:need], mem[2000 : 2000+n : 2000+n], ErrRoom},
			{"one byte too early", mem[:need], mem[start-1 : start-1+n], ErrRoom},
			{"one byte too late", mem[:need], mem[start+1 : start+1+n], ErrRoom},
			{"at the header", mem[:need], mem[:n], ErrRoom},
			{"trailer room reaches into wire", mem[1000 : 1000+need], mem[1001-n-trailer : 1001-trailer], ErrRoom},
			{"starts in wire's last byte", mem[:need], mem[need-1 : need-1+n], ErrRoom},
			{"directly in front of wire", mem[1000 : 1000+need], mem[1000-n-trailer : 1000-trailer], nil},
			{"directly behind wire", mem[:need], mem[need : need+n], nil},
			{"in place", mem[:need], mem[start : start+n], nil},
			{"in place, capacity cut", mem[:need], mem[start : start+n : start+n], nil},
		} {
			clear(mem)
			batch := []Packet{{Seq: 1, Wire: c.wire, Payload: c.payload}}
			tr.Seal(NewScratch(), testSPI, batch)
			p := batch[0]
			if !errors.Is(p.Err, c.want) {
				t.Errorf("%s: expected %v, saw %v", c.name, c.want, p.Err)
			}
			if p.Err != nil && (len(p.Wire) != 0 || !bytes.Equal(mem, make([]byte, len(mem)))) {
				t.Errorf("%s: expected nothing written, saw %d bytes of packet", c.name, len(p.Wire))
			}
			if p.Err == nil && opened(tr, NewScratch(), 1, p.Wire).Err != nil {
				t.Errorf("%s: does not open", c.name)
			}
		}
	})
}

// RFC 4303 3.3.3: the first number is 1, and without ESN the last is 2^32-1.
func TestRFC4303_3_3_3_SealRefusesNumbersOutsideTheSpace(t *testing.T) {
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		for seq, want := range map[uint64]bool{0: false, 1: true, 1<<32 - 1: true, 1 << 32: tr.esn, 1<<32 + 1: tr.esn, 1<<64 - 1: tr.esn} {
			batch := []Packet{{Seq: seq, Wire: make([]byte, 200), Err: ErrAuth}}
			tr.Seal(NewScratch(), testSPI, batch)
			if want && batch[0].Err != nil {
				t.Errorf("number %#x: expected it sealed, saw %v", seq, batch[0].Err)
			}
			if !want && (!errors.Is(batch[0].Err, ErrSequence) || len(batch[0].Wire) != 0) {
				t.Errorf("number %#x: expected %v and no packet, saw %v, %d bytes", seq, ErrSequence, batch[0].Err, len(batch[0].Wire))
			}
		}
	})
}

// A packet that fails does not touch its neighbours, on either side.
func TestOneBadPacketLeavesTheBatchAlone(t *testing.T) {
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		sc := NewScratch()
		const n = 37 // more than two runs
		batch := make([]Packet, n)
		for k := range batch {
			batch[k] = Packet{Seq: uint64(k + 1), NextHeader: 4, Wire: make([]byte, 300),
				Payload: append(make([]byte, 0, 200), byte(k), byte(k))}
			if k%5 == 2 {
				batch[k].Wire = batch[k].Wire[:10]
			}
		}
		tr.Seal(sc, testSPI, batch)
		for k := range batch {
			if bad := k%5 == 2; bad != (batch[k].Err != nil) {
				t.Fatalf("sealing packet %d: %v", k, batch[k].Err)
			}
			batch[k].Payload = nil
			if k%7 == 3 && batch[k].Err == nil {
				batch[k].Wire[len(batch[k].Wire)-1] ^= 1
			}
		}
		tr.Open(sc, batch)
		for k := range batch {
			p := &batch[k]
			switch {
			case k%5 == 2:
				refused(t, Packet{Err: p.Err, Payload: p.Payload}, ErrRoom, fmt.Sprintf("packet %d, skipped", k))
			case k%7 == 3:
				if !errors.Is(p.Err, ErrAuth) || p.Payload != nil {
					t.Errorf("packet %d: expected %v, saw %v", k, ErrAuth, p.Err)
				}
			case p.Err != nil || !bytes.Equal(p.Payload, []byte{byte(k), byte(k)}):
				t.Errorf("packet %d: saw %x, %v", k, p.Payload, p.Err)
			}
		}
	})
}

// Open skips packets whose Err is set: they are neither read nor written.
func TestOpenSkipsPacketsWithAnError(t *testing.T) {
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		wire := sealed(t, tr, 1, []byte("payload"))
		before := bytes.Clone(wire)
		own := errors.New("replay")
		kept := []byte("kept")
		batch := []Packet{{Seq: 1, Wire: wire, Err: own, Payload: kept, NextHeader: 9}, {Err: own}}
		tr.Open(NewScratch(), batch)
		if p := batch[0]; !errors.Is(p.Err, own) || !bytes.Equal(p.Payload, kept) || p.NextHeader != 9 || !bytes.Equal(wire, before) {
			t.Errorf("expected the packet untouched, saw %+v", p)
		}
	})
}

// What is authenticated is the number that the window will mark: a caller that
// mixes up packets and numbers opens nothing.
func TestOpenRefusesANumberThatIsNotTheHeaders(t *testing.T) {
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		sc := NewScratch()
		wire := sealed(t, tr, 7, []byte("payload"))
		for _, seq := range []uint64{0, 6, 8, 7 << 32, 1<<32 | 7} {
			refused(t, opened(tr, sc, seq, wire), ErrAuth, fmt.Sprintf("number %#x", seq))
		}
	})
}

// After a wrong ICV no decrypted byte is left in the packet's memory.
func TestRefusedPacketsReleaseNoCleartext(t *testing.T) {
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		if mode := tr.d.mode; mode == modeNull || mode == modeGMAC {
			return // never encrypted
		}
		payload := bytes.Repeat([]byte("cleartext marker"), 20)
		wire := sealed(t, tr, 1, payload)
		wire[len(wire)-1] ^= 1
		batch := []Packet{{Seq: 1, Wire: wire}}
		tr.Open(NewScratch(), batch)
		refused(t, batch[0], ErrAuth, "ICV changed")
		for at := range len(payload) - 8 {
			if bytes.Contains(wire, payload[at:at+8]) {
				t.Fatalf("cleartext left in the packet: %x", wire)
			}
		}
	})
}

// Workers share a transform, each with its own Scratch. C-S05: over all of them
// no IV of a counter mode repeats.
func TestCS05_WorkersShareATransformAndNoIVRepeats(t *testing.T) {
	const workers, rounds, batchSize = 4, 30, 8
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		ivs := make([][]string, workers)
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				sc := NewScratch()
				batch := make([]Packet, batchSize)
				for r := range rounds {
					for k := range batch {
						seq := uint64(1 + (r*workers+w)*batchSize + k)
						if tr.esn && r%2 == 1 { // the same low halves, another subspace
							seq = seq - workers*batchSize + 1<<32
						}
						payload := binary.BigEndian.AppendUint64(make([]byte, 0, 200), seq)
						batch[k] = Packet{Seq: seq, NextHeader: 4, Payload: payload, Wire: make([]byte, 200)}
					}
					tr.Seal(sc, testSPI, batch)
					for k := range batch {
						p := &batch[k]
						ivs[w] = append(ivs[w], string(p.Wire[HeaderLen:HeaderLen+tr.suite.IVLen()]))
						p.Payload = nil
					}
					tr.Open(sc, batch)
					for k := range batch {
						p := &batch[k]
						if p.Err != nil || binary.BigEndian.Uint64(p.Payload) != p.Seq {
							t.Errorf("worker %d, number %#x: saw %x, %v", w, p.Seq, p.Payload, p.Err)
						}
					}
				}
			})
		}
		wg.Wait()
		if tr.suite.IVLen() == 0 {
			return
		}
		seen := map[string]bool{}
		for _, of := range ivs {
			for _, iv := range of {
				if seen[iv] {
					t.Fatalf("IV %x twice", iv)
				}
				seen[iv] = true
			}
		}
		if len(seen) != workers*rounds*batchSize {
			t.Errorf("expected %d IVs, saw %d", workers*rounds*batchSize, len(seen))
		}
	})
}

// The IV of every counter mode is the 64-bit sequence number.
func TestCS05_CounterIVIsTheSequenceNumber(t *testing.T) {
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		if !tr.suite.CounterMode() {
			return
		}
		seq := testSeq(tr, 0xfffffffe)
		wire := sealed(t, tr, seq, nil)
		if got := binary.BigEndian.Uint64(wire[HeaderLen:]); got != seq {
			t.Errorf("expected IV %016x, saw %016x", seq, got)
		}
	})
}

func TestParseHeaderOfEveryLength(t *testing.T) {
	b := []byte{0, 0, 0x10, 1, 0xff, 0xff, 0xff, 0xfe, 9}
	for n := range len(b) + 1 {
		spi, low, ok := ParseHeader(b[:n])
		if want := n >= HeaderLen; ok != want {
			t.Errorf("%d bytes: expected %t, saw %t", n, want, ok)
		}
		if ok && (spi != 0x1001 || low != 0xfffffffe) {
			t.Errorf("%d bytes: saw SPI %#x, number %#x", n, spi, low)
		}
	}
}
