package crypt

import (
	"crypto/cipher"
	"crypto/fips140"
	"encoding/binary"
	"fmt"
	"io"
	"unsafe"

	"golang.org/x/sys/cpu"
)

// GCMKernels lists what AES-GCM can run on here, Plain first, the fastest last.
// Where FIPS 140 mode is asked for, it is Plain alone, whose code is validated.
func GCMKernels() []Kernel {
	list := []Kernel{Plain}
	x := &cpu.X86
	if x.HasAES && x.HasBMI2 && x.HasAVX512 && x.HasAVX512F && x.HasAVX512BW && x.HasAVX512VL && x.HasAVX512DQ &&
		x.HasAVX512VAES && x.HasAVX512VPCLMULQDQ && !fips140.Enabled() {
		list = append(list, VAES)
	}
	return list
}

const (
	gcmPowers = 20 // of H; the longest tail takes 16 blocks and the lengths
	gcmKeys   = 15 // round keys of AES-256
)

// gcmVAES is the key of AES-GCM as the kernel wants it, all of it derived when
// the SA is made. The kernel knows where the fields lie. There are no pointers
// in it, so the allocator puts its 576 bytes at a multiple of 64.
type gcmVAES struct {
	powers [gcmPowers][16]byte // H^20 to H^1, each times x^-1, little endian
	keys   [gcmKeys][16]byte   // the round keys, of which the last one stands last
	first  int64               // bytes from AES-128's first round key to this one's
	tag    uint32              // length of the tag in bytes
	mask   uint32              // a bit for each of its bytes
}

// newVAES derives everything from a key, whose length block proves right.
func newVAES(key []byte, block cipher.Block, tagSize int) *gcmVAES {
	g := &gcmVAES{tag: uint32(tagSize), mask: 1<<tagSize - 1}
	g.expand(key)
	var h [16]byte
	block.Encrypt(h[:], h[:])
	g.raise(element{binary.BigEndian.Uint64(h[:]), binary.BigEndian.Uint64(h[8:])})
	return g
}

// expand writes the round keys: FIPS 197 5.2. The S-box is the processor's: no
// table is looked up.
func (g *gcmVAES) expand(key []byte) {
	nk := len(key) / 4
	g.first = int64(4-nk) * 16
	w := make([]uint32, 4*(nk+7))
	for i := range nk {
		w[i] = binary.BigEndian.Uint32(key[4*i:])
	}
	rcon := uint32(1)
	for i := nk; i < len(w); i++ {
		t := w[i-1]
		switch {
		case i%nk == 0:
			t = subWord(t<<8|t>>24) ^ rcon<<24
			rcon = rcon<<1 ^ rcon>>7*0x11b
		case nk > 6 && i%nk == 4:
			t = subWord(t)
		}
		w[i] = w[i-nk] ^ t
	}
	last := g.keys[gcmKeys-len(w)/4:]
	for i, word := range w {
		binary.BigEndian.PutUint32(last[i/4][i%4*4:], word)
	}
	clear(w)
}

// raise writes the powers of h. Each is multiplied by x^-1, which takes away
// the bit by which the product of two reflected numbers of 128 bits is short
// of 256.
func (g *gcmVAES) raise(h element) {
	power := h
	for i := gcmPowers - 1; i >= 0; i-- {
		// x^-1 = 1 + x + x^6 + x^127
		carry := -(power.hi >> 63)
		binary.LittleEndian.PutUint64(g.powers[i][:], power.lo<<1^carry&1)
		binary.LittleEndian.PutUint64(g.powers[i][8:], power.hi<<1^power.lo>>63^carry&0xc2<<56)
		power = power.times(h)
	}
}

// element is an element of GCM's field. Bit 63 of hi is the coefficient of x^0.
type element struct{ hi, lo uint64 }

// times is SP 800-38D 6.3, algorithm 1, in constant time.
func (e element) times(f element) (z element) {
	for _, word := range [2]uint64{e.hi, e.lo} {
		for range 64 {
			bit := -(word >> 63)
			word <<= 1
			z.hi ^= f.hi & bit
			z.lo ^= f.lo & bit
			carry := -(f.lo & 1)
			f.lo = f.lo>>1 | f.hi<<63
			f.hi = f.hi>>1 ^ carry&0xe1<<56
		}
	}
	return z
}

// Format prints a name for every verb: keys never reach a log.
func (g *gcmVAES) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "crypt.AES-GCM") }

// NonceSize is part of cipher.AEAD.
func (g *gcmVAES) NonceSize() int { return gcmNonceLen }

// Overhead is part of cipher.AEAD.
func (g *gcmVAES) Overhead() int { return int(g.tag) }

// Seal is part of cipher.AEAD.
func (g *gcmVAES) Seal(dst, nonce, plaintext, additionalData []byte) []byte {
	if len(plaintext) > gcmMaxLen {
		panic("crypt: AES-GCM: text too long") //nolint:forbidigo // as in panicGCM
	}
	all, out := extend(dst, len(plaintext)+int(g.tag))
	if len(nonce) != gcmNonceLen || misplaced(out, plaintext) || overlap(out, additionalData) {
		panicGCM(out, nonce, plaintext)
	}
	sealVAES(g, unsafe.SliceData(out), unsafe.SliceData(plaintext), len(plaintext),
		unsafe.SliceData(nonce), unsafe.SliceData(additionalData), len(additionalData))
	return all
}

// Open is part of cipher.AEAD.
func (g *gcmVAES) Open(dst, nonce, ciphertext, additionalData []byte) ([]byte, error) {
	n := len(ciphertext) - int(g.tag)
	if n < 0 || n > gcmMaxLen {
		return nil, errGCMOpen
	}
	all, out := extend(dst, n)
	if len(nonce) != gcmNonceLen || misplaced(out, ciphertext) || overlap(out, additionalData) {
		panicGCM(out, nonce, ciphertext)
	}
	if !openVAES(g, unsafe.SliceData(out), unsafe.SliceData(ciphertext), n,
		unsafe.SliceData(nonce), unsafe.SliceData(additionalData), len(additionalData)) {
		clear(out)
		return nil, errGCMOpen
	}
	return all, nil
}

// sealVAES encrypts n bytes from src to dst and writes the tag behind them.
//
//go:noescape
func sealVAES(key *gcmVAES, dst, src *byte, n int, nonce, aad *byte, aadLen int)

// openVAES decrypts n bytes from src, behind which the tag lies, to dst and
// tells whether the tag is right.
//
//go:noescape
func openVAES(key *gcmVAES, dst, src *byte, n int, nonce, aad *byte, aadLen int) bool

// subWord is SubWord of FIPS 197 5.2.
func subWord(w uint32) uint32
