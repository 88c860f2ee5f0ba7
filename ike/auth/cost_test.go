package auth_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"math/big"
	"testing"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/pki"
)

// send puts these certificates in the place of the exchange's own.
func (x *exchange) send(certs ...*x509.Certificate) *exchange {
	x.certs = nil
	for _, c := range certs {
		x.certs = append(x.certs, &wire.Cert{Encoding: wire.CertX509Signature, Data: c.Raw})
	}
	return x
}

// longRSA is a public key that takes long to verify with.
func longRSA(t testing.TB, bits int) *rsa.PublicKey {
	t.Helper()
	n := must[*big.Int](t)(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(bits-1))))
	n.SetBit(n.SetBit(n, bits-1, 1), 0, 1)
	return &rsa.PublicKey{N: n, E: 1<<31 - 1}
}

// TestALongKeyBetweenIsNotVerifiedWith: whoever sends an authority with a key of
// 16384 bits is refused for the key, in front of the arithmetic: half a second of one
// core for each such certificate, from a stranger.
func TestALongKeyBetweenIsNotVerifiedWith(t *testing.T) {
	w := theWorld(t)
	x := certified(t, w.leaves[pki.P256]).sign(t)
	long := must[*pki.Entity](t)(w.stranger.Authority(pki.Options{Name: "between", Public: longRSA(t, 16384)}))
	x.send(w.leaves[pki.P256].Cert, long.Cert).wantRefused(t, auth.WeakKey)
}

// crossed are n authorities of one name, each signed by the next one.
func crossed(t testing.TB, n int) (all []*x509.Certificate, first *pki.Entity) {
	t.Helper()
	made := make([]*pki.Entity, n)
	for i := range made {
		made[i] = must[*pki.Entity](t)(pki.New(pki.Options{Name: "crossed"}))
	}
	for i, e := range made {
		by := made[(i+1)%n]
		der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, e.Cert, by.Cert, e.Key.Public(), by.Key))
		all = append(all, must[*x509.Certificate](t)(x509.ParseCertificate(der)))
	}
	return all, made[0]
}

// TestAuthoritiesOfOneNameAreFew: a ring of authorities that sign each other is not
// walked round: crypto/x509 would verify a hundred signatures and then complain of it.
func TestAuthoritiesOfOneNameAreFew(t *testing.T) {
	w := theWorld(t)
	x := certified(t, w.leaves[pki.P256]).sign(t)
	ring, first := crossed(t, 15)
	leaf := must[*pki.Entity](t)(first.Issue(named()))
	x.send(append([]*x509.Certificate{leaf.Cert}, ring...)...).wantRefused(t, auth.UnknownCA)
}

// TestALongWayUp: six authorities lie between leaf and anchor, sent from the top
// down and among others that have nothing to do with it; seven are too many.
func TestALongWayUp(t *testing.T) {
	w := theWorld(t)
	others, _ := crossed(t, 3)
	at := w.root
	for i := range 7 {
		at = must[*pki.Entity](t)(at.Authority(pki.Options{Name: string(rune('a' + i))}))
		leaf := must[*pki.Entity](t)(at.Issue(named()))
		x := certified(t, leaf).sign(t)
		certs := []*x509.Certificate{leaf.Cert}
		certs = append(certs, others...)
		for k := range at.Chain() {
			certs = append(certs, at.Chain()[len(at.Chain())-1-k])
		}
		if x.send(certs...); i < 6 {
			x.wantPeer(t, "ecdsa")
		} else {
			x.wantRefused(t, auth.UnknownCA)
		}
	}
}
