package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"math/big"
	"sync"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
)

// Nobody is whom a stranger is verified as that says to be somebody who is not
// configured, or proves itself by a kind of credential that who it says to be does not
// have. Verify then does what it does for everybody else: the MAC by a secret, the way
// up to the anchors of trust, or the signature by a key of the kind that a is of; so
// that the time of the answer does not tell who is configured, and by what.
//
// What remains: keys of one kind differ in length, and a certificate that names one of
// the anchors as its issuer costs one signature more.
//
// The secret and the private keys are nobody's. What Verify proves for Nobody (the
// certificate of a peer may be good, and who it says to be not be configured) is worth
// nothing, and is to be dropped.
func Nobody(a *wire.Auth, trust []*x509.Certificate) Remote {
	r := Remote{PSK: nobodysSecret(), Trust: trust}
	if key := nobodysKey(a); key != nil {
		r.Keys = []crypto.PublicKey{key}
	}
	return r
}

// nobodysKey is a key that AUTH would be verified with if it were somebody's; nil:
// nothing would be.
func nobodysKey(a *wire.Auth) crypto.PublicKey {
	switch a.Method {
	case wire.AuthRSA:
		return nobodysRSA()
	case wire.AuthECDSA256:
		return nobodysP256()
	case wire.AuthECDSA384:
		return nobodysP384()
	case wire.AuthECDSA521:
		return nobodysP521()
	case wire.AuthDigitalSignature:
		s, _, err := splitSignature(a.Data)
		switch {
		case err != nil:
			return nil
		case s.family == familyRSA:
			return nobodysRSA()
		case s.family == familyECDSA:
			return nobodysP256()
		}
		return nobodysEd25519()
	}
	return nil
}

// The keys are made when they are first asked for, anew in each process.
var (
	nobodysSecret  = sync.OnceValue(func() sad.Key { return randomBytes(32) })
	nobodysRSA     = sync.OnceValue(makeNobodysRSA)
	nobodysP256    = sync.OnceValue(func() crypto.PublicKey { return onCurve(elliptic.P256()) })
	nobodysP384    = sync.OnceValue(func() crypto.PublicKey { return onCurve(elliptic.P384()) })
	nobodysP521    = sync.OnceValue(func() crypto.PublicKey { return onCurve(elliptic.P521()) })
	nobodysEd25519 = sync.OnceValue(func() crypto.PublicKey {
		return ed25519.NewKeyFromSeed(randomBytes(ed25519.SeedSize)).Public()
	})
)

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // it never fails
	return b
}

// makeNobodysRSA is a random odd number in the place of a product of two primes: to
// verify with it takes as long, and to make it takes no time.
func makeNobodysRSA() crypto.PublicKey {
	b := randomBytes(minRSABits / 8)
	b[0] |= 0x80
	b[len(b)-1] |= 1
	return &rsa.PublicKey{N: new(big.Int).SetBytes(b), E: minRSAExponent}
}

func onCurve(c elliptic.Curve) crypto.PublicKey {
	key, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		return nil // not reached: the curves are the library's, and so is the reader
	}
	return key.Public()
}
