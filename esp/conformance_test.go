package esp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
)

// Runts of every length from nothing to one byte above the shortest packet.
func TestCR10_RuntsAreMalformed(t *testing.T) {
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		sc := NewScratch()
		shortest := tr.suite.SealedLen(0)
		for n := range shortest + 2 {
			wire, check := guarded(t, n)
			copy(wire, randomBytes(uint64(n), n))
			seq := testSeq(tr, 0)
			if n >= HeaderLen {
				binary.BigEndian.PutUint32(wire[4:], 77)
				seq = testSeq(tr, 77)
			}
			want := ErrMalformed
			if n == shortest {
				want = ErrAuth
			}
			batch := []Packet{{Seq: seq, Wire: wire}}
			tr.Open(sc, batch)
			refused(t, batch[0], want, fmt.Sprintf("%d bytes", n))
			check(fmt.Sprintf("%d bytes", n))
		}
	})
}

// A text that is not a multiple of the alignment is refused before any
// cryptography, also if the ICV is right.
func TestCR11_UnalignedTextIsMalformed(t *testing.T) {
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		sc := NewScratch()
		align := tr.suite.BlockSize()
		for extra := 1; extra < align; extra++ {
			whole := sealed(t, tr, testSeq(tr, 5), make([]byte, 100))
			longer := append(bytes.Clone(whole), make([]byte, extra)...)
			refused(t, opened(tr, sc, testSeq(tr, 5), longer), ErrMalformed, fmt.Sprintf("%d bytes added", extra))
			refused(t, opened(tr, sc, testSeq(tr, 5), whole[:len(whole)-extra]), ErrMalformed, fmt.Sprintf("%d bytes cut", extra))
			if align == 4 { // a block cipher could not even encrypt it
				text := make([]byte, 96+extra)
				wire := sealedText(tr, testSeq(tr, 6), text)
				refused(t, opened(tr, sc, testSeq(tr, 6), wire), ErrMalformed, fmt.Sprintf("authentic, %d bytes over", extra))
			}
		}
	})
}

// A pad length beyond the text, in an authentic packet.
func TestCR12_PadLengthBeyondTheText(t *testing.T) {
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		sc := NewScratch()
		const n = 32
		for pad := n - 2 - 3; pad < 256; pad++ {
			text := make([]byte, n)
			for i := range n - 2 { // right for any pad length that fits
				text[i] = byte(pad - (n - 3 - i))
			}
			text[n-2], text[n-1] = byte(pad), 4
			p := opened(tr, sc, testSeq(tr, 1), sealedText(tr, testSeq(tr, 1), text))
			if pad > n-2 {
				refused(t, p, ErrPadding, fmt.Sprintf("pad length %d in a text of %d", pad, n))
				continue
			}
			if p.Err != nil || len(p.Payload) != n-2-pad || p.NextHeader != 4 {
				t.Errorf("pad length %d in a text of %d: expected %d bytes of payload, saw %d, %v", pad, n, n-2-pad, len(p.Payload), p.Err)
			}
		}
	})
}

// RFC 4303 2.4: padding is 1, 2, 3 and so on. Any other byte is refused.
func TestCR13_PaddingBytesAreChecked(t *testing.T) {
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		sc := NewScratch()
		const n = 64
		for _, pad := range []int{1, 2, 3, 14, 30, 46} {
			good := make([]byte, n)
			copy(good[n-2-pad:], padding[:pad])
			good[n-2], good[n-1] = byte(pad), 17
			p := opened(tr, sc, testSeq(tr, 1), sealedText(tr, testSeq(tr, 1), good))
			if p.Err != nil || len(p.Payload) != n-2-pad || p.NextHeader != 17 {
				t.Errorf("padding of %d: expected it accepted, saw %d bytes, %v", pad, len(p.Payload), p.Err)
			}
			for at := range pad {
				bad := bytes.Clone(good)
				bad[n-2-pad+at] ^= 0x40
				p := opened(tr, sc, testSeq(tr, 1), sealedText(tr, testSeq(tr, 1), bad))
				refused(t, p, ErrPadding, fmt.Sprintf("padding of %d, byte %d changed", pad, at))
			}
			zeroes := make([]byte, n)
			zeroes[n-2] = byte(pad)
			p = opened(tr, sc, testSeq(tr, 1), sealedText(tr, testSeq(tr, 1), zeroes))
			refused(t, p, ErrPadding, fmt.Sprintf("padding of %d zeroes", pad))
		}
	})
}

// A peer may pad more than it must: RFC 4303 2.4, "0-255 bytes".
func TestRFC4303_2_4_AnyPaddingLengthIsAccepted(t *testing.T) {
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		sc := NewScratch()
		for pad := range 256 {
			payload := make([]byte, -(pad+2)&(tr.suite.BlockSize()-1))
			text := append(bytes.Clone(payload), padding[:pad]...)
			text = append(text, byte(pad), 41)
			p := opened(tr, sc, testSeq(tr, 1), sealedText(tr, testSeq(tr, 1), text))
			if p.Err != nil || len(p.Payload) != len(payload) || p.NextHeader != 41 {
				t.Errorf("padding of %d: expected %d bytes of payload, saw %d, %v", pad, len(payload), len(p.Payload), p.Err)
			}
		}
	})
}

// Every bit of a packet is authenticated, SPI and sequence number included:
// also for a receiver that takes the changed number for the right one.
func TestCR18_EveryFlippedBitIsRefused(t *testing.T) {
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		sc := NewScratch()
		seq := testSeq(tr, 0x01020304)
		wire := sealed(t, tr, seq, randomBytes(1, 45))
		if p := opened(tr, sc, seq, wire); p.Err != nil {
			t.Fatalf("unchanged: %v", p.Err)
		}
		for bit := range len(wire) * 8 {
			changed := bytes.Clone(wire)
			changed[bit/8] ^= 0x80 >> (bit % 8)
			refused(t, opened(tr, sc, seq, changed), ErrAuth, fmt.Sprintf("bit %d", bit))
			if _, low, _ := ParseHeader(changed); low != uint32(seq) {
				refused(t, opened(tr, sc, seq>>32<<32|uint64(low), changed), ErrAuth, fmt.Sprintf("bit %d, number believed", bit))
			}
		}
		if tr.esn {
			for bit := 32; bit < 64; bit++ {
				refused(t, opened(tr, sc, seq^1<<bit, wire), ErrAuth, fmt.Sprintf("bit %d of the number", bit))
			}
		}
	})
}

// Packets with a cut ICV, and with bytes behind it.
func TestCR19_CutOrLengthenedPacketsAreRefused(t *testing.T) {
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		sc := NewScratch()
		seq := testSeq(tr, 9)
		wire := sealed(t, tr, seq, randomBytes(2, 100))
		for n := 1; n <= tr.suite.ICVLen()+16; n++ {
			for what, b := range map[string][]byte{
				"cut":             wire[:len(wire)-n],
				"added zeroes":    append(bytes.Clone(wire), make([]byte, n)...),
				"added its start": append(bytes.Clone(wire), wire[:n]...),
			} {
				want := ErrAuth
				if n%tr.suite.BlockSize() != 0 {
					want = ErrMalformed
				}
				refused(t, opened(tr, sc, seq, b), want, fmt.Sprintf("%d bytes %s", n, what))
			}
		}
	})
}

// The high half of an extended sequence number is in the ICV and nowhere else.
func TestCS03_HighHalfIsInTheICVOnly(t *testing.T) {
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		if !tr.esn {
			return
		}
		const low = 0x01020304
		payload := make([]byte, 60)
		zero := sealed(t, tr, low, payload)
		one := sealed(t, tr, 0xdeadbeef<<32|low, payload)
		if len(zero) != tr.suite.SealedLen(60) || len(one) != len(zero) {
			t.Errorf("expected %d bytes, saw %d and %d", tr.suite.SealedLen(60), len(zero), len(one))
		}
		if !bytes.Equal(zero[:HeaderLen], one[:HeaderLen]) {
			t.Errorf("expected one header, saw %x and %x", zero[:HeaderLen], one[:HeaderLen])
		}
		if tr.suite.IVLen() == 0 { // NULL: nothing but the ICV may differ
			end := len(zero) - tr.suite.ICVLen()
			if !bytes.Equal(zero[:end], one[:end]) || bytes.Equal(zero[end:], one[end:]) {
				t.Error("expected packets that differ in the ICV only")
			}
		}
		sc := NewScratch()
		refused(t, opened(tr, sc, low, one), ErrAuth, "high half taken for 0")
		refused(t, opened(tr, sc, 0xdeadbeef<<32|low, zero), ErrAuth, "high half 0 taken for another")
		if p := opened(tr, sc, 0xdeadbeef<<32|low, one); p.Err != nil {
			t.Errorf("right number: %v", p.Err)
		}
		// Without ESN nothing of it may count: the same keys, the same low half.
		plain := testTransform(t, tr.suite, false)
		refused(t, opened(plain, sc, low, one), ErrAuth, "ESN packet without ESN")
		refused(t, opened(tr, sc, low, sealed(t, plain, low, payload)), ErrAuth, "packet without ESN with ESN")
	})
}

// Padding is 1, 2, 3 and so on, the shortest that aligns, at every length.
func TestCS04_PaddingAtEveryLength(t *testing.T) {
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		sc := NewScratch()
		align := tr.suite.BlockSize()
		for n := range 301 {
			seq := testSeq(tr, uint32(n+1))
			payload := randomBytes(uint64(n), n)
			wire := sealed(t, tr, seq, payload)
			text := openedText(t, tr, seq, wire)
			pad := int(text[len(text)-2])
			if len(text)%align != 0 || pad >= align || len(text) != n+pad+2 {
				t.Fatalf("payload of %d: text of %d with padding of %d, alignment %d", n, len(text), pad, align)
			}
			if len(wire) != tr.suite.SealedLen(n) || len(wire) != HeaderLen+tr.suite.IVLen()+n+tr.suite.TrailerLen(n) {
				t.Fatalf("payload of %d: packet of %d bytes, SealedLen says %d", n, len(wire), tr.suite.SealedLen(n))
			}
			for i, b := range text[n : n+pad] {
				if int(b) != i+1 {
					t.Fatalf("payload of %d: padding %x", n, text[n:n+pad])
				}
			}
			if !bytes.Equal(text[:n], payload) || text[len(text)-1] != 4 {
				t.Fatalf("payload of %d: changed, or next header %d", n, text[len(text)-1])
			}
			if p := opened(tr, sc, seq, wire); p.Err != nil || !bytes.Equal(p.Payload, payload) || p.NextHeader != 4 {
				t.Fatalf("payload of %d: expected it back, saw %d bytes, %v", n, len(p.Payload), p.Err)
			}
		}
	})
}
