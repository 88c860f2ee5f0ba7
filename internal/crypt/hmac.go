package crypt

import (
	"crypto/sha1" //nolint:gosec // SHA-1 only in HMAC, behind allow_legacy
	"crypto/sha256"
	"crypto/sha512"
	"encoding"
	"errors"
	"fmt"
	"hash"
)

// HMACHash is the hash of an HMAC of RFC 4868 or RFC 2404.
type HMACHash uint8

// The hashes. NoHash is the zero value, whose Params are zeros.
const (
	NoHash HMACHash = iota
	SHA256
	SHA384
	SHA512
	SHA1
	hashes
)

// HMACParams is what ESP and AH make of a hash; lengths in bytes.
type HMACParams struct {
	Name     string
	New      func() hash.Hash
	KeyLen   int // RFC 4868 2.1.1: the key is as long as the hash's output
	ICVLen   int // RFC 4868 2.3: half the output; RFC 2404: 96 bits
	BlockLen int
}

var hmacParams = [hashes]HMACParams{
	SHA256: {"sha256", sha256.New, 32, 16, sha256.BlockSize},
	SHA384: {"sha384", sha512.New384, 48, 24, sha512.BlockSize},
	SHA512: {"sha512", sha512.New, 64, 32, sha512.BlockSize},
	SHA1:   {"sha1", sha1.New, 20, 12, sha1.BlockSize},
}

// HMACHashes lists the hashes, the legacy one last.
func HMACHashes() []HMACHash { return []HMACHash{SHA256, SHA384, SHA512, SHA1} }

// Params is the hash's row.
func (h HMACHash) Params() HMACParams { return hmacParams[h] }

// Digests is a worker's hashes: what an HMAC needs for a moment. It serves any
// number of HMACs, one call at a time.
type Digests struct {
	of  [hashes]digest
	out [64]byte
}

// NewDigests makes one of each.
func NewDigests() *Digests {
	d := &Digests{}
	for _, h := range HMACHashes() {
		d.of[h] = newDigest(h)
	}
	return d
}

// digest is a hash with the restoring of a saved state, the type assertion
// done once.
type digest struct {
	hash.Hash
	restore encoding.BinaryUnmarshaler
}

func newDigest(h HMACHash) digest {
	d := hmacParams[h].New()
	return digest{d, d.(encoding.BinaryUnmarshaler)}
}

// HMAC is a keyed HMAC (RFC 2104): the two states of the hash after the first
// block of either pass. Immutable after NewHMAC; the hash itself is the worker's.
type HMAC struct {
	ICVLen int // bytes of the output that Sum returns

	hash         HMACHash
	inner, outer []byte
}

// NewHMAC keeps no reference to key, which is at most a block of the hash long:
// RFC 2104 2 hashes longer ones first, and neither ESP nor AH has any.
func NewHMAC(h HMACHash, key []byte) (HMAC, error) {
	if h == NoHash || h >= hashes {
		return HMAC{}, errors.New("crypt: HMAC without a hash")
	}
	p := &hmacParams[h]
	if len(key) > p.BlockLen {
		return HMAC{}, fmt.Errorf("crypt: HMAC-%s key of %d bytes is longer than the hash's block", p.Name, len(key))
	}
	m := HMAC{hash: h, ICVLen: p.ICVLen}
	for _, pass := range []struct {
		pad   byte
		state *[]byte
	}{{0x36, &m.inner}, {0x5c, &m.outer}} {
		block := make([]byte, p.BlockLen)
		copy(block, key)
		for i := range block {
			block[i] ^= pass.pad
		}
		state := p.New()
		state.Write(block)
		clear(block)
		saved, err := state.(encoding.BinaryMarshaler).MarshalBinary()
		if err != nil {
			return HMAC{}, fmt.Errorf("crypt: %s cannot save its state: %w", p.Name, err)
		}
		// What a fresh hash takes here, one in Digests takes for good: only
		// the state's form is checked.
		if err := newDigest(h).restore.UnmarshalBinary(saved); err != nil {
			return HMAC{}, fmt.Errorf("crypt: %s cannot restore its state: %w", p.Name, err)
		}
		*pass.state = saved
	}
	return m, nil
}

// Sum returns the truncated HMAC of the parts, one behind the other; any of them
// may be empty. The result lies in d until its next use. It is empty, which no
// ICV equals, if the hash should refuse a state that NewHMAC saw it take.
func (m *HMAC) Sum(d *Digests, first, second, third []byte) []byte {
	h := &d.of[m.hash]
	if h.restore.UnmarshalBinary(m.inner) != nil {
		return nil
	}
	h.Write(first)
	h.Write(second)
	h.Write(third)
	inner := h.Sum(d.out[:0])
	if h.restore.UnmarshalBinary(m.outer) != nil {
		return nil
	}
	h.Write(inner)
	return h.Sum(d.out[:0])[:m.ICVLen]
}
