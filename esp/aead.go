package esp

import (
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
)

// The combined modes with an eight-byte IV on the wire. RFC 4106 3.1: "For a
// given key, the IV MUST NOT repeat"; the sender's is the 64-bit sequence
// number, which the SA never gives out twice.
const (
	counterIVLen = 8
	counterStart = HeaderLen + counterIVLen // where the text starts
)

// salt is what the nonce starts with.
type salt [4]byte

// putCounterIV writes the IV of a packet to be sealed.
func putCounterIV(j *job) { binary.BigEndian.PutUint64(j.wire[HeaderLen:], j.seq) }

// nonceOf returns salt and the packet's IV. RFC 4106 4, RFC 7634 2, RFC 4543
// 3.2: the nonce is the salt, then the IV. The salt is in place already.
func (sc *Scratch) nonceOf(j *job) []byte {
	copy(sc.nonce[4:12], j.wire[HeaderLen:counterStart])
	return sc.nonce[:12]
}

// aeadCodec is AES-GCM (RFC 4106) with an ICV of 16 or 12 bytes, or
// ChaCha20-Poly1305 (RFC 7634).
type aeadCodec struct {
	aead cipher.AEAD
	salt salt
	esn  bool
}

func newAEADCodec(aead cipher.AEAD, s []byte, esn bool) *aeadCodec {
	return &aeadCodec{aead, salt(s), esn}
}

func (c *aeadCodec) seal(sc *Scratch, run []job) {
	copy(sc.nonce[:], c.salt[:])
	for i := range run {
		j := &run[i]
		putCounterIV(j)
		c.aead.Seal(j.wire[counterStart:counterStart], sc.nonceOf(j), j.text, sc.putAAD(j, c.esn))
	}
}

func (c *aeadCodec) open(sc *Scratch, run []job) {
	copy(sc.nonce[:], c.salt[:])
	for i := range run {
		j := &run[i]
		_, err := c.aead.Open(j.text[:0], sc.nonceOf(j), j.wire[counterStart:], sc.putAAD(j, c.esn))
		j.ok = err == nil
	}
}

// gcm8Codec is AES-GCM with an ICV of 8 bytes, which crypto/cipher does not
// offer: its shortest tag is 12 bytes (SP 800-38D 5.2.1.2 allows 8 for certain
// applications, RFC 4106 6 has them for ESP).
//
// Sealing cuts the 16-byte tag. To open, GCM's encryption being a XOR with a
// keystream, Seal of the encrypted text gives the cleartext, with a tag that
// means nothing; Seal of that cleartext gives the encrypted text again and with
// it the true tag, whose first 8 bytes are compared in constant time. Both
// results lie in Scratch: nothing is released to the packet before. It costs
// twice what the longer ICVs cost.
type gcm8Codec struct {
	gcm  cipher.AEAD
	salt salt
	esn  bool
}

const gcm8ICVLen = 8

func newGCM8Codec(gcm cipher.AEAD, s []byte, esn bool) *gcm8Codec {
	return &gcm8Codec{gcm, salt(s), esn}
}

func (c *gcm8Codec) seal(sc *Scratch, run []job) {
	copy(sc.nonce[:], c.salt[:])
	for i := range run {
		j := &run[i]
		putCounterIV(j)
		sealed, _ := sc.room(len(j.text) + c.gcm.Overhead())
		c.gcm.Seal(sealed[:0], sc.nonceOf(j), j.text, sc.putAAD(j, c.esn))
		copy(j.wire[counterStart:], sealed[:len(j.text)+gcm8ICVLen])
	}
}

func (c *gcm8Codec) open(sc *Scratch, run []job) {
	copy(sc.nonce[:], c.salt[:])
	for i := range run {
		j := &run[i]
		j.ok = openGCM8(c.gcm, sc, sc.nonceOf(j), j.text, j.wire[counterStart+len(j.text):], sc.putAAD(j, c.esn))
	}
}

// openGCM8 decrypts text in place if icv, 8 bytes, is right, and else leaves it
// alone.
func openGCM8(gcm cipher.AEAD, sc *Scratch, nonce, text, icv, aad []byte) bool {
	n := len(text)
	clearText, sealed := sc.room(n + gcm.Overhead())
	gcm.Seal(clearText[:0], nonce, text, aad)
	gcm.Seal(sealed[:0], nonce, clearText[:n], aad)
	if subtle.ConstantTimeCompare(sealed[n:n+gcm8ICVLen], icv) != 1 {
		return false
	}
	copy(text, clearText)
	return true
}

// gmacCodec is ENCR_NULL_AUTH_AES_GMAC (RFC 4543): the text in clear, all of
// the packet authenticated. RFC 4543 3.3: the associated data is SPI, sequence
// number (64 bits with ESN), IV, and the text with padding and trailer; the
// plaintext of GCM is empty.
type gmacCodec struct {
	gcm  cipher.AEAD
	salt salt
	esn  bool
}

func newGMACCodec(gcm cipher.AEAD, s []byte, esn bool) *gmacCodec {
	return &gmacCodec{gcm, salt(s), esn}
}

func (c *gmacCodec) seal(sc *Scratch, run []job) {
	copy(sc.nonce[:], c.salt[:])
	for i := range run {
		j := &run[i]
		putCounterIV(j)
		end := counterStart + len(j.text)
		copyText(j.wire[counterStart:end], j.text)
		// No text, but at a place: a kernel loads slowly from nowhere.
		none := j.wire[end:end]
		c.gcm.Seal(none, sc.nonceOf(j), none, c.input(sc, j, end))
	}
}

func (c *gmacCodec) open(sc *Scratch, run []job) {
	copy(sc.nonce[:], c.salt[:])
	for i := range run {
		j := &run[i]
		end := counterStart + len(j.text)
		_, err := c.gcm.Open(sc.mac[:0], sc.nonceOf(j), j.wire[end:], c.input(sc, j, end))
		j.ok = err == nil
	}
}

// input is the packet as far as end; with ESN a copy that has the sequence
// number's high half between SPI and low half.
func (c *gmacCodec) input(sc *Scratch, j *job, end int) []byte {
	if !c.esn {
		return j.wire[:end]
	}
	b, _ := sc.room(end + 4)
	copy(b, j.wire[:4])
	copy(b[4:], sc.putHigh(j.seq))
	copy(b[8:], j.wire[4:end])
	return b
}

// copyText puts text at its place, if it is not there already.
func copyText(place, text []byte) {
	if !samePlace(text, place) {
		copy(place, text)
	}
}
