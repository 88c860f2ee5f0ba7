package ah

import (
	"crypto/sha1" //nolint:gosec // SHA-1 only in HMAC, behind allow_legacy
	"crypto/sha256"
	"crypto/sha512"
	"encoding"
	"fmt"
	"hash"
)

// macKind is an HMAC of RFC 4868 or RFC 2404.
type macKind uint8

const (
	macNone macKind = iota
	macSHA256
	macSHA384
	macSHA512
	macSHA1
	macKinds
)

// macDescription is an HMAC's row; lengths in bytes.
type macDescription struct {
	name     string
	new      func() hash.Hash
	keyLen   int // RFC 4868 2.1.1: the key is as long as the hash's output
	icvLen   int // RFC 4868 2.3: half the output; RFC 2404: 96 bits
	blockLen int
}

var macs = [macKinds]macDescription{
	macSHA256: {"sha256", sha256.New, 32, 16, sha256.BlockSize},
	macSHA384: {"sha384", sha512.New384, 48, 24, sha512.BlockSize},
	macSHA512: {"sha512", sha512.New, 64, 32, sha512.BlockSize},
	macSHA1:   {"sha1", sha1.New, 20, 12, sha1.BlockSize},
}

// digest is a hash with the restoring of a saved state, the type assertion
// done once.
type digest struct {
	hash.Hash
	restore encoding.BinaryUnmarshaler
}

func newDigest(k macKind) digest {
	h := macs[k].new()
	return digest{h, h.(encoding.BinaryUnmarshaler)}
}

// mac is a keyed HMAC (RFC 2104): the two states of the hash after the first
// block of either pass. Immutable; the hash itself is the caller's.
type mac struct {
	kind         macKind
	icvLen       int
	inner, outer []byte
}

// newMAC keeps no reference to key, which is at most a block of the hash long:
// RFC 2104 2 hashes longer ones first, and AH has none.
func newMAC(k macKind, key []byte) (mac, error) {
	d := &macs[k]
	if len(key) > d.blockLen {
		return mac{}, fmt.Errorf("ah: HMAC-%s key of %d bytes is longer than the hash's block", d.name, len(key))
	}
	m := mac{kind: k, icvLen: d.icvLen}
	for _, pass := range []struct {
		pad   byte
		state *[]byte
	}{{0x36, &m.inner}, {0x5c, &m.outer}} {
		block := make([]byte, d.blockLen)
		copy(block, key)
		for i := range block {
			block[i] ^= pass.pad
		}
		h := d.new()
		h.Write(block)
		clear(block)
		state, err := h.(encoding.BinaryMarshaler).MarshalBinary()
		if err != nil {
			return mac{}, fmt.Errorf("ah: %s cannot save its state: %w", d.name, err)
		}
		// What a fresh hash takes here, one in a Scratch takes for good: only
		// the state's form is checked.
		if err := newDigest(k).restore.UnmarshalBinary(state); err != nil {
			return mac{}, fmt.Errorf("ah: %s cannot restore its state: %w", d.name, err)
		}
		*pass.state = state
	}
	return m, nil
}

// sum returns the truncated HMAC of the three parts. The result lies in sc
// until its next use. It is empty, which no ICV equals, if the hash should
// refuse a state that newMAC saw it take.
func (m *mac) sum(sc *Scratch, header, payload, high []byte) []byte {
	h := &sc.digests[m.kind]
	if h.restore.UnmarshalBinary(m.inner) != nil {
		return nil
	}
	h.Write(header)
	h.Write(payload)
	h.Write(high)
	inner := h.Sum(sc.mac[:0])
	if h.restore.UnmarshalBinary(m.outer) != nil {
		return nil
	}
	h.Write(inner)
	return h.Sum(sc.mac[:0])[:m.icvLen]
}
