package keys

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
)

// ccm is CCM (RFC 3610) over AES with nonces of 11 bytes, so that lengths and block
// numbers have four (L = 4), as RFC 4309 3 wants it and RFC 5282 7.1 with it. The
// one of package esp works in packets' memory and allocates nothing; this one is
// short.
type ccm struct {
	block  cipher.Block
	tagLen int
}

const (
	ccmNonceLen = 11
	ccmL        = 15 - ccmNonceLen
	ccmMaxAAD   = 1<<16 - 1<<8 // what the two-byte length of RFC 3610 2.2 counts up to
)

func newCCM(key []byte, tagLen int) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return ccm{block, tagLen}, nil
}

// NonceSize is 11.
func (ccm) NonceSize() int { return ccmNonceLen }

// Overhead is the length of the tag in bytes.
func (c ccm) Overhead() int { return c.tagLen }

// Seal is cipher.AEAD's. aad is below 64 KiB less 256 bytes: a message's header.
func (c ccm) Seal(dst, nonce, text, aad []byte) []byte {
	stream, s0 := c.stream(nonce)
	tag := c.tag(nonce, text, aad)
	subtle.XORBytes(tag, tag, s0)
	encrypted := make([]byte, len(text))
	stream.XORKeyStream(encrypted, text)
	return append(append(dst, encrypted...), tag...)
}

// Open is cipher.AEAD's.
func (c ccm) Open(dst, nonce, sealed, aad []byte) ([]byte, error) {
	if len(sealed) < c.tagLen || len(aad) >= ccmMaxAAD {
		return nil, ErrOpen
	}
	encrypted, theirs := sealed[:len(sealed)-c.tagLen], sealed[len(sealed)-c.tagLen:]
	stream, s0 := c.stream(nonce)
	text := make([]byte, len(encrypted))
	stream.XORKeyStream(text, encrypted)
	tag := c.tag(nonce, text, aad)
	subtle.XORBytes(tag, tag, s0)
	if subtle.ConstantTimeCompare(tag, theirs) != 1 {
		clear(text)
		return nil, ErrOpen
	}
	return append(dst, text...), nil
}

// stream is the key stream from block number 1 on, and S_0 in front of it. RFC 3610
// 2.3: A_i is the flags L-1, the nonce and the number.
func (c ccm) stream(nonce []byte) (cipher.Stream, []byte) {
	a0 := make([]byte, aes.BlockSize)
	a0[0] = ccmL - 1
	copy(a0[1:], nonce)
	stream := cipher.NewCTR(c.block, a0)
	s0 := make([]byte, aes.BlockSize)
	stream.XORKeyStream(s0, s0)
	return stream, s0[:c.tagLen]
}

// tag is T of RFC 3610 2.2, not yet encrypted: the CBC-MAC of B_0, the associated
// data with its length in front, and the text, each padded with zeros.
func (c ccm) tag(nonce, text, aad []byte) []byte {
	b0 := make([]byte, aes.BlockSize)
	b0[0] = byte(8*((c.tagLen-2)/2) + ccmL - 1)
	copy(b0[1:], nonce)
	binary.BigEndian.PutUint32(b0[1+ccmNonceLen:], uint32(len(text)))
	input := b0
	if len(aad) > 0 {
		b0[0] |= 64
		input = binary.BigEndian.AppendUint16(input, uint16(len(aad)))
		input = zeroPadded(append(input, aad...))
	}
	input = zeroPadded(append(input, text...))
	defer clear(input)
	cipher.NewCBCEncrypter(c.block, make([]byte, aes.BlockSize)).CryptBlocks(input, input)
	return append([]byte(nil), input[len(input)-aes.BlockSize:][:c.tagLen]...)
}

func zeroPadded(b []byte) []byte {
	return append(b, make([]byte, -len(b)&(aes.BlockSize-1))...)
}
