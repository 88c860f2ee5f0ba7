package esp

import (
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
)

const blockLen = 16

// ctrStream is counter mode with counter blocks of a 12-byte prefix and a
// 32-bit block number that starts at 1: those of RFC 3686 4 and, the prefix
// being flags and nonce, those of CCM (RFC 3610 2.3).
//
// cipher.NewCTR allocates per packet, and one call of cipher.Block per block is
// slow. But GCM with that prefix as its nonce encrypts with the very blocks
// that start at number 2 (SP 800-38D 7.1: J0 has number 1), many at a time. So
// the middle of a longer text goes through GCM, whose tag is thrown away; the
// first block, and an end that is longer than that tag, go by hand.
type ctrStream struct {
	block cipher.Block
	gcm   cipher.AEAD
}

// shortestByGCM is the text length in bytes from which GCM is the faster way
// (measured: BenchmarkCTRThreshold).
const shortestByGCM = 128

// gcmShortTag is the shortest tag of crypto/cipher. The tag must find room in
// the end of the text.
const gcmShortTag = 12

const _ = uint(blockLen - gcmShortTag)
const _ = uint(shortestByGCM - 3*blockLen)

func newCTRStream(block cipher.Block) (ctrStream, error) {
	gcm, err := cipher.NewGCMWithTagSize(block, gcmShortTag)
	return ctrStream{block, gcm}, err
}

// xor encrypts or decrypts src to dst, which start at the same byte or share
// none. The prefix is sc.nonce[:12].
func (c *ctrStream) xor(sc *Scratch, dst, src []byte) {
	if len(src) < shortestByGCM {
		c.xorBlocks(sc, dst, src, 1)
		return
	}
	c.xorByGCM(sc, dst, src)
}

// xorByGCM is xor for texts of three blocks and more.
func (c *ctrStream) xorByGCM(sc *Scratch, dst, src []byte) {
	n := len(src)
	c.xorBlocks(sc, dst[:blockLen], src[:blockLen], 1)
	cut := n - n%blockLen - blockLen // the end: 16 to 31 bytes
	tail := sc.tail[:n-cut]
	c.xorBlocks(sc, tail, src[cut:], uint32(1+cut/blockLen))
	c.gcm.Seal(dst[blockLen:blockLen], sc.nonce[:12], src[blockLen:cut], nil)
	copy(dst[cut:n], tail)
}

// xorBlocks goes block by block from block number first.
func (c *ctrStream) xorBlocks(sc *Scratch, dst, src []byte, first uint32) {
	copy(sc.counter[:12], sc.nonce[:])
	for len(src) > 0 {
		n := min(len(src), len(sc.stream))
		for at := 0; at < n; at += blockLen {
			binary.BigEndian.PutUint32(sc.counter[12:], first)
			c.block.Encrypt(sc.stream[at:at+blockLen], sc.counter[:])
			first++
		}
		subtle.XORBytes(dst[:n], src[:n], sc.stream[:n])
		dst, src = dst[n:], src[n:]
	}
}

// ctrCipher is AES-CTR (RFC 3686). Its counter block is nonce, IV and a block
// number that starts at one.
type ctrCipher struct {
	stream ctrStream
	nonce  salt
}

func (c *ctrCipher) encrypt(sc *Scratch, run []job) {
	copy(sc.nonce[:], c.nonce[:])
	for i := range run {
		j := &run[i]
		putCounterIV(j)
		sc.nonceOf(j)
		c.stream.xor(sc, j.wire[counterStart:counterStart+len(j.text)], j.text)
	}
}

func (c *ctrCipher) decrypt(sc *Scratch, run []job) {
	copy(sc.nonce[:], c.nonce[:])
	for i := range run {
		j := &run[i]
		if !j.ok {
			continue
		}
		sc.nonceOf(j)
		c.stream.xor(sc, j.text, j.text)
	}
}
