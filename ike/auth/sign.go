package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"io"
	"math/big"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/adit-ipsec/adit/ike/wire"
)

func (l Local) sign(octets []byte, hashes []HashAlgorithm, rand io.Reader) (*wire.Auth, error) {
	kind, err := familyOf(l.Signer.Public())
	if err != nil {
		return nil, err
	}
	if s, ok := l.choose(kind, hashes); ok {
		signature, err := l.signWith(s, octets, rand)
		if err != nil {
			return nil, err
		}
		// RFC 7427 3: the length of the AlgorithmIdentifier in one byte, the
		// AlgorithmIdentifier, and the signature.
		algorithm := s.encodings[0]
		data := append([]byte{byte(len(algorithm))}, algorithm...)
		return &wire.Auth{Method: wire.AuthDigitalSignature, Data: append(data, signature...)}, nil
	}
	return l.signClassic(kind, octets, hashes, rand)
}

// choose picks the scheme for a key, of those whose hash the peer has offered:
// for ECDSA the hash of the curve's length first, for RSA as the list stands.
func (l Local) choose(kind family, hashes []HashAlgorithm) (best scheme, found bool) {
	for _, s := range schemes {
		if s.family != kind || kind == familyRSA && s.pss == l.PKCS1 || !slices.Contains(hashes, s.hash) {
			continue
		}
		if key, ok := l.Signer.Public().(*ecdsa.PublicKey); ok && s.digest == curveOf(key).hash {
			return s, true
		}
		if !found {
			best, found = s, true
		}
	}
	return best, found
}

// signClassic signs by the methods 1, 9, 10 and 11, for a peer without RFC 7427, or
// one with no hash that fits. RFC 7427 3: "the peer is only allowed to use this
// authentication method if the Notify payload of type SIGNATURE_HASH_ALGORITHMS has
// been sent and received by each peer", and where it has, it "MUST be used". To sign
// with ECDSA for a peer that offers nothing but SHA-1 is a deviation from the second:
// safe, since the curve's own SHA-2 is stronger than what was asked for.
func (l Local) signClassic(kind family, octets []byte, hashes []HashAlgorithm, rand io.Reader) (*wire.Auth, error) {
	switch {
	case kind == familyECDSA:
		key, _ := l.Signer.Public().(*ecdsa.PublicKey)
		c := curveOf(key)
		der, err := l.signWith(scheme{name: "ecdsa", digest: c.hash}, octets, rand)
		if err != nil {
			return nil, err
		}
		fixed, ok := fixedECDSA(der, c.bytes)
		if !ok {
			return nil, &Error{Reason: AuthFailed, Text: "this end's signer returned no ECDSA signature"}
		}
		return &wire.Auth{Method: c.method, Data: fixed}, nil
	case kind == familyRSA && l.Legacy:
		// RFC 7296 3.8: implementations "SHOULD use SHA-1 as the default hash function
		// when generating signatures" with this method.
		signature, err := l.signWith(scheme{name: "rsa-sha1", digest: crypto.SHA1}, octets, rand)
		return &wire.Auth{Method: wire.AuthRSA, Data: signature}, err
	}
	return nil, &Error{
		Reason: HashNotOffered, Text: "the peer offers no hash algorithm that this end's key signs with",
		Theirs: hashNames(hashes), Ours: keyName(l.Signer.Public()) + " with " + hashNames(hashesOf(kind)),
		Fix: "enable RFC 7427 signatures with SHA-2 on the peer, or use an ECDSA key",
	}
}

func hashesOf(kind family) (hashes []HashAlgorithm) {
	for _, s := range schemes {
		if s.family == kind && !slices.Contains(hashes, s.hash) {
			hashes = append(hashes, s.hash)
		}
	}
	return hashes
}

func (l Local) signWith(s scheme, octets []byte, rand io.Reader) ([]byte, error) {
	var opts crypto.SignerOpts = s.digest
	if s.pss {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: s.digest}
	}
	signature, err := l.Signer.Sign(rand, s.digestOf(octets), opts)
	if err != nil {
		return nil, &Error{Reason: AuthFailed, Text: "this end's signer failed with " + s.name + ": " + err.Error()}
	}
	return signature, nil
}

// digestOf is what is signed: the hash, or the octets themselves.
func (s scheme) digestOf(octets []byte) []byte {
	if s.digest == 0 {
		return octets
	}
	h := s.digest.New()
	h.Write(octets)
	return h.Sum(nil)
}

// curve is what RFC 4754 says of an ECDSA key.
type curve struct {
	method wire.AuthMethod
	hash   crypto.Hash
	bytes  int // of r, and of s
}

// curveOf is the curve of a key that familyOf has passed.
func curveOf(key *ecdsa.PublicKey) curve {
	switch key.Curve.Params().BitSize {
	case 384:
		return curve{wire.AuthECDSA384, crypto.SHA384, 48}
	case 521:
		return curve{wire.AuthECDSA521, crypto.SHA512, 66}
	}
	return curve{wire.AuthECDSA256, crypto.SHA256, 32}
}

// fixedECDSA turns a signature of this end from DER into r and s of fixed length,
// one behind the other (RFC 4754 7).
func fixedECDSA(der []byte, length int) ([]byte, bool) {
	var r, s big.Int
	var inner cryptobyte.String
	input := cryptobyte.String(der)
	if !input.ReadASN1(&inner, cbasn1.SEQUENCE) || !inner.ReadASN1Integer(&r) || !inner.ReadASN1Integer(&s) ||
		r.Sign() <= 0 || s.Sign() <= 0 || r.BitLen() > 8*length || s.BitLen() > 8*length {
		return nil, false
	}
	fixed := make([]byte, 2*length)
	r.FillBytes(fixed[:length])
	s.FillBytes(fixed[length:])
	return fixed, true
}
