package keys

import (
	"crypto/hkdf"
	"crypto/hmac"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/internal/crypt"
)

// NonceLen is the length in bytes of the nonces that Nonce makes: enough for every
// PRF here, since an initiator sends its nonce before it knows which is chosen.
const NonceLen = 32

// RFC 7296 3.9: "The size of the Nonce Data MUST be between 16 and 256 octets,
// inclusive."
const (
	minNonceLen = 16
	maxNonceLen = 256
)

// newHash is the hash of an HMAC PRF (RFC 4868 2.1.2; SHA-1, RFC 2104, for legacy
// peers), or nil.
func newHash(p proposal.PRF) func() hash.Hash {
	switch p {
	case proposal.PRFSHA256:
		return crypt.SHA256.Params().New
	case proposal.PRFSHA384:
		return crypt.SHA384.Params().New
	case proposal.PRFSHA512:
		return crypt.SHA512.Params().New
	case proposal.PRFSHA1:
		return crypt.SHA1.Params().New
	}
	return nil
}

// mustHash is newHash where the PRF was chosen among those that there are.
func mustHash(p proposal.PRF) func() hash.Hash {
	h := newHash(p)
	if h == nil {
		panic(fmt.Sprintf("ike/keys: no PRF %s", p)) //nolint:forbidigo // a caller's mistake: what peers say passes Derive and proposal.Choose before, and an empty PRF output would authenticate anybody
	}
	return h
}

// PRFLen is the length in bytes of the PRF's output and, for HMAC, of its
// preferred key; 0 for a PRF that is not here.
func PRFLen(p proposal.PRF) int {
	h := newHash(p)
	if h == nil {
		return 0
	}
	return h().Size()
}

// PRF is prf(key, data[0] | data[1] | ...) of RFC 7296 2.13. The key may have any
// length. A PRF for which PRFLen is 0 is a caller's mistake, and panics.
func PRF(p proposal.PRF, key []byte, data ...[]byte) []byte {
	m := hmac.New(mustHash(p), key)
	for _, d := range data {
		m.Write(d)
	}
	return m.Sum(nil)
}

// errTooLong cannot be seen: no keys here are longer than some hundred bytes.
var errTooLong = errors.New("ike/keys: RFC 7296 2.13: prf+ ends after 255 outputs")

// PRFPlus is the first n bytes of prf+(key, data[0] | data[1] | ...), RFC 7296
// 2.13:
//
//	prf+ (K,S) = T1 | T2 | T3 | T4 | ...
//	T1 = prf (K, S | 0x01)
//	T2 = prf (K, T1 | S | 0x02)
//
// which is HKDF-Expand (RFC 5869 2.3) to the letter. n is at most 255 outputs of
// the PRF.
func PRFPlus(p proposal.PRF, n int, key []byte, data ...[]byte) ([]byte, error) {
	info := join(data...)
	defer clear(info)
	out, err := hkdf.Expand(mustHash(p), key, string(info), n)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errTooLong, err)
	}
	return out, nil
}

// extract is prf(salt, secret): HKDF-Extract, of which it is one call.
func extract(p proposal.PRF, salt, secret []byte) ([]byte, error) {
	return hkdf.Extract(mustHash(p), secret, salt)
}

// Nonce draws a nonce of NonceLen bytes.
func Nonce(rand io.Reader) ([]byte, error) { return draw(rand, NonceLen) }

// CheckNonce tells whether a nonce may be used with a PRF. RFC 7296 2.10: nonces
// "MUST be at least 128 bits in size, and MUST be at least half the key size of
// the negotiated pseudorandom function (PRF)".
func CheckNonce(p proposal.PRF, nonce []byte) error {
	switch half := PRFLen(p) / 2; {
	case len(nonce) < minNonceLen || len(nonce) > maxNonceLen:
		return fmt.Errorf("ike/keys: a nonce of %d bytes: RFC 7296 3.9 has 16 to 256", len(nonce))
	case len(nonce) < half:
		return fmt.Errorf("ike/keys: a nonce of %d bytes: RFC 7296 2.10 wants half the key of %s, %d", len(nonce), p, half)
	}
	return nil
}

// join is its parts, one behind the other, in a new buffer.
func join(parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	b := make([]byte, 0, n)
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// mustExpand is PRFPlus for lengths that this package gives itself or that a suite
// has.
func mustExpand(p proposal.PRF, n int, key []byte, data ...[]byte) []byte {
	b, err := PRFPlus(p, n, key, data...)
	if err != nil {
		panic(err.Error()) //nolint:forbidigo // a caller's mistake: no suite has keys of 255 outputs
	}
	return b
}
