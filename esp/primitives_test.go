package esp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"math"
	"math/bits"
	"testing"
)

// CBC in both directions is crypto/cipher's, in place and apart.
func TestCBCIsThatOfTheStandardLibrary(t *testing.T) {
	for _, keyLen := range []int{16, 24, 32} {
		block, err := aes.NewCipher(randomBytes(3, keyLen))
		if err != nil {
			t.Fatal(err)
		}
		iv := randomBytes(4, blockLen)
		for n := blockLen; n <= 20*blockLen; n += blockLen {
			text := randomBytes(uint64(n), n)
			want := make([]byte, n)
			cipher.NewCBCEncrypter(block, iv).CryptBlocks(want, text)
			apart := make([]byte, n)
			encryptCBC(block, iv, apart, text)
			inPlace := bytes.Clone(text)
			encryptCBC(block, iv, inPlace, inPlace)
			if !bytes.Equal(apart, want) || !bytes.Equal(inPlace, want) {
				t.Fatalf("encrypting %d bytes: expected %x, saw %x apart, %x in place", n, want, apart, inPlace)
			}
			decryptCBC(block, make([]byte, blockLen), iv, inPlace)
			if !bytes.Equal(inPlace, text) {
				t.Fatalf("decrypting %d bytes: expected %x, saw %x", n, text, inPlace)
			}
		}
	}
}

// Counter mode is crypto/cipher's at every length, by blocks and by GCM, in
// place and apart, and writes nothing behind its text.
func TestCTRIsThatOfTheStandardLibrary(t *testing.T) {
	sc := NewScratch()
	for _, keyLen := range []int{16, 24, 32} {
		block, err := aes.NewCipher(randomBytes(5, keyLen))
		if err != nil {
			t.Fatal(err)
		}
		c, err := newCTRStream(block)
		if err != nil {
			t.Fatal(err)
		}
		prefix := randomBytes(6, 12)
		copy(sc.nonce[:], prefix)
		for n := range 500 {
			text := randomBytes(uint64(n), n)
			want := make([]byte, n)
			cipher.NewCTR(block, binary.BigEndian.AppendUint32(bytes.Clone(prefix), 1)).XORKeyStream(want, text)
			for name, xor := range map[string]func(dst, src []byte){
				"blocks": func(dst, src []byte) { c.xorBlocks(sc, dst, src, 1) },
				"gcm":    func(dst, src []byte) { c.xorByGCM(sc, dst, src) },
				"xor":    func(dst, src []byte) { c.xor(sc, dst, src) },
			} {
				if name == "gcm" && n < 3*blockLen {
					continue
				}
				apart, check := guarded(t, n)
				xor(apart, text)
				check(name)
				inPlace, check := guarded(t, n)
				copy(inPlace, text)
				xor(inPlace, inPlace)
				check(name)
				if !bytes.Equal(apart, want) || !bytes.Equal(inPlace, want) {
					t.Fatalf("%s, %d bytes: expected %x, saw %x apart, %x in place", name, n, want, apart, inPlace)
				}
			}
		}
	}
}

// RFC 3610 2.2 with associated data of every form of length; the reference
// builds the whole CBC-MAC input as one string.
func TestCCMTagIsThatOfRFC3610(t *testing.T) {
	sc := NewScratch()
	block, err := aes.NewCipher(randomBytes(7, 16))
	if err != nil {
		t.Fatal(err)
	}
	nonce := randomBytes(8, ccmNonceLen)
	for _, tagLen := range []int{4, 6, 8, 10, 12, 14, 16} {
		c, err := newCCM(block, tagLen)
		if err != nil {
			t.Fatal(err)
		}
		for _, aadLen := range []int{0, 1, 8, 12, 13, 14, 15, 16, 30, 31, 0xfeff, 0xff00, 0x10001} {
			for _, n := range []int{0, 1, 15, 16, 17, 200} {
				text, aad := randomBytes(uint64(n), n), randomBytes(9, aadLen)
				want := referenceCCM(block, nonce, text, aad, tagLen)
				got := make([]byte, n+tagLen)
				c.putNonce(sc, nonce)
				c.seal(sc, got, text, aad)
				if !bytes.Equal(got, want) {
					t.Fatalf("tag of %d, %d bytes of associated data, %d of text: expected %x, saw %x", tagLen, aadLen, n, want, got)
				}
				c.putNonce(sc, nonce)
				if !c.open(sc, got[:n], got[n:], aad) || !bytes.Equal(got[:n], text) {
					t.Fatalf("tag of %d, %d bytes of associated data, %d of text: does not open", tagLen, aadLen, n)
				}
			}
		}
	}
	for _, tagLen := range []int{0, 2, 3, 5, 15, 17, 18} {
		if _, err := newCCM(block, tagLen); err == nil {
			t.Errorf("expected a tag of %d bytes to be refused", tagLen)
		}
	}
}

// referenceCCM is RFC 3610 read straight through, with crypto/cipher's CBC and
// CTR.
func referenceCCM(block cipher.Block, nonce, text, aad []byte, tagLen int) []byte {
	pad := func(b []byte) []byte { return append(b, make([]byte, -len(b)&15)...) }
	flags := byte((tagLen-2)/2*8 + 3)
	var prefix []byte
	if len(aad) > 0 {
		flags |= 64
		if len(aad) < 0xff00 {
			prefix = binary.BigEndian.AppendUint16(nil, uint16(len(aad)))
		} else {
			prefix = binary.BigEndian.AppendUint32([]byte{0xff, 0xfe}, uint32(len(aad)))
		}
	}
	input := binary.BigEndian.AppendUint32(append([]byte{flags}, nonce...), uint32(len(text)))
	input = append(input, pad(append(prefix, aad...))...)
	input = append(input, pad(bytes.Clone(text))...)
	cipher.NewCBCEncrypter(block, make([]byte, 16)).CryptBlocks(input, input)
	tag := input[len(input)-16:]
	counter := append([]byte{3}, nonce...)
	stream := cipher.NewCTR(block, append(counter, 0, 0, 0, 0))
	stream.XORKeyStream(tag, tag)
	out := make([]byte, len(text))
	stream.XORKeyStream(out, text)
	return append(out, tag[:tagLen]...)
}

// CVE-2022-46397 was a CBC IV that followed the sequence number. Over 10^6
// packets: none equals its number, none repeats, every bit is set about half of
// the time, and so is every bit of the difference to the one before.
func TestCS06_CBCIVsAreUnpredictable(t *testing.T) {
	const n = 1_000_000
	s, _ := ParseSuite("aes128-sha256")
	tr := testTransform(t, s, true)
	sc := NewScratch()
	const batchSize = 16
	batch := make([]Packet, batchSize)
	wires := make([]byte, batchSize*64)
	seen := make(map[[blockLen]byte]bool, n)
	var set, changed [8 * blockLen]int
	var last [blockLen]byte
	for first := uint64(1); first <= n; first += batchSize {
		for k := range batch {
			batch[k] = Packet{Seq: first + uint64(k), Wire: wires[k*64 : (k+1)*64]}
		}
		tr.Seal(sc, testSPI, batch)
		for k := range batch {
			iv := [blockLen]byte(batch[k].Wire[HeaderLen:])
			seq := binary.BigEndian.AppendUint64(nil, batch[k].Seq)
			if seen[iv] || bytes.Contains(iv[:], seq) {
				t.Fatalf("number %d: IV %x repeats or holds the number", batch[k].Seq, iv)
			}
			seen[iv] = true
			countBits(&set, iv, [blockLen]byte{})
			countBits(&changed, iv, last)
			last = iv
		}
	}
	if len(seen) != n {
		t.Fatalf("expected %d IVs, saw %d", n, len(seen))
	}
	// Six standard deviations: one false alarm in two million runs.
	limit := 6 * math.Sqrt(n) / 2
	for bit := range set {
		if math.Abs(float64(set[bit]-n/2)) > limit {
			t.Errorf("bit %d set in %d of %d IVs", bit, set[bit], n)
		}
		if math.Abs(float64(changed[bit]-n/2)) > limit {
			t.Errorf("bit %d changed in %d of %d IVs", bit, changed[bit], n)
		}
	}
}

// countBits counts the set bits of a XOR b by position.
func countBits(counts *[8 * blockLen]int, a, b [blockLen]byte) {
	for half := range 2 {
		x := binary.BigEndian.Uint64(a[half*8:]) ^ binary.BigEndian.Uint64(b[half*8:])
		for ; x != 0; x &= x - 1 {
			counts[half*64+63-bits.TrailingZeros64(x)]++
		}
	}
}

// Two transforms of the same keys, as after a restart, make different IVs for
// the same numbers.
func TestCS06_CBCIVsDifferBetweenTransforms(t *testing.T) {
	s, _ := ParseSuite("aes256-sha512")
	a, b := testTransform(t, s, false), testTransform(t, s, false)
	seen := map[string]bool{}
	for seq := uint64(1); seq <= 1000; seq++ {
		for _, tr := range []*Transform{a, b} {
			seen[string(sealed(t, tr, seq, nil)[HeaderLen:HeaderLen+blockLen])] = true
		}
	}
	if len(seen) != 2000 {
		t.Errorf("expected 2000 IVs, saw %d", len(seen))
	}
}
