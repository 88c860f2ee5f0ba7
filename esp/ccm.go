package esp

import (
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
)

// ccm is CCM (RFC 3610) over AES with an 11-byte nonce, so that lengths and
// block numbers have four bytes (L = 4), as RFC 4309 3 wants it.
type ccm struct {
	stream ctrStream
	tagLen int
}

const (
	ccmNonceLen = 11
	ccmL        = 15 - ccmNonceLen
)

func newCCM(block cipher.Block, tagLen int) (ccm, error) {
	if tagLen < 4 || tagLen > 16 || tagLen%2 != 0 {
		return ccm{}, fmt.Errorf("CCM tag of %d bytes: RFC 3610 2 has 4, 6, 8, 10, 12, 14 and 16", tagLen)
	}
	s, err := newCTRStream(block)
	return ccm{s, tagLen}, err
}

// putNonce sets the prefix of all counter blocks. RFC 3610 2.3: flags (L-1),
// then the nonce.
func (c *ccm) putNonce(sc *Scratch, nonce []byte) {
	sc.nonce[0] = ccmL - 1
	copy(sc.nonce[1:1+ccmNonceLen], nonce)
}

// seal encrypts text to dst, which starts at the same byte or shares none, and
// appends the tag: dst has len(text)+tagLen bytes. The nonce is in sc.nonce.
func (c *ccm) seal(sc *Scratch, dst, text, aad []byte) {
	tag := c.tag(sc, text, aad)
	copy(sc.mac[:], tag)
	c.stream.xor(sc, dst[:len(text)], text)
	copy(dst[len(text):], sc.mac[:c.tagLen])
}

// open decrypts text in place and tells whether it and aad belong to the tag;
// if not, text is cleared.
func (c *ccm) open(sc *Scratch, text, tag, aad []byte) bool {
	c.stream.xor(sc, text, text)
	if subtle.ConstantTimeCompare(c.tag(sc, text, aad), tag) == 1 {
		return true
	}
	clear(text)
	return false
}

// tag returns the encrypted tag of a cleartext. RFC 3610 2.2: T is the CBC-MAC
// of B_0, the length-prefixed associated data and the text, each padded with
// zeroes; 2.3: it is encrypted with S_0, the block number 0.
func (c *ccm) tag(sc *Scratch, text, aad []byte) []byte {
	x := sc.chain[:]
	copy(x, sc.nonce[:12])
	// B_0: flags 64*Adata + 8*M' + L', nonce, length of the text.
	x[0] = byte(8*((c.tagLen-2)/2) + ccmL - 1)
	if len(aad) > 0 {
		x[0] |= 64
	}
	binary.BigEndian.PutUint32(x[12:], uint32(len(text)))
	c.stream.block.Encrypt(x, x)
	if len(aad) > 0 {
		c.absorb(sc, c.aadHead(sc, &aad))
		c.absorb(sc, aad)
	}
	c.absorb(sc, text)
	copy(sc.counter[:12], sc.nonce[:])
	clear(sc.counter[12:])
	c.stream.block.Encrypt(sc.counter[:], sc.counter[:])
	subtle.XORBytes(x, x, sc.counter[:])
	return x[:c.tagLen]
}

// aadHead returns the first block of the associated data, its length in front,
// and takes what it holds off aad. RFC 3610 2.2: two bytes of length below
// 2^16-2^8, else 0xfffe and four bytes.
func (c *ccm) aadHead(sc *Scratch, aad *[]byte) []byte {
	head := sc.stream[:blockLen]
	clear(head)
	at := 2
	if len(*aad) < 1<<16-1<<8 {
		binary.BigEndian.PutUint16(head, uint16(len(*aad)))
	} else {
		binary.BigEndian.PutUint16(head, 0xfffe)
		binary.BigEndian.PutUint32(head[2:], uint32(len(*aad)))
		at = 6
	}
	n := copy(head[at:], *aad)
	*aad = (*aad)[n:]
	return head
}

// absorb goes on with the CBC-MAC in sc.chain, b padded with zeroes.
func (c *ccm) absorb(sc *Scratch, b []byte) {
	x := sc.chain[:]
	for len(b) >= blockLen {
		xorBlock(x, x, b)
		c.stream.block.Encrypt(x, x)
		b = b[blockLen:]
	}
	if len(b) > 0 {
		subtle.XORBytes(x, x, b)
		c.stream.block.Encrypt(x, x)
	}
}

// ccmCodec is AES-CCM in ESP (RFC 4309).
type ccmCodec struct {
	ccm  ccm
	salt [3]byte
	esn  bool
}

func newCCMCodec(block cipher.Block, s []byte, icvLen int, esn bool) (*ccmCodec, error) {
	c, err := newCCM(block, icvLen)
	return &ccmCodec{c, [3]byte(s), esn}, err
}

// putNonce sets the nonce: RFC 4309 4, salt then IV.
func (c *ccmCodec) putNonce(sc *Scratch, j *job) {
	var nonce [ccmNonceLen]byte
	copy(nonce[:], c.salt[:])
	copy(nonce[3:], j.wire[HeaderLen:counterStart])
	c.ccm.putNonce(sc, nonce[:])
}

func (c *ccmCodec) seal(sc *Scratch, run []job) {
	for i := range run {
		j := &run[i]
		putCounterIV(j)
		c.putNonce(sc, j)
		c.ccm.seal(sc, j.wire[counterStart:], j.text, sc.putAAD(j, c.esn))
	}
}

func (c *ccmCodec) open(sc *Scratch, run []job) {
	for i := range run {
		j := &run[i]
		c.putNonce(sc, j)
		j.ok = c.ccm.open(sc, j.text, j.wire[counterStart+len(j.text):], sc.putAAD(j, c.esn))
	}
}
