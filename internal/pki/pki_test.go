package pki_test

import (
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/netip"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/pki"
	"golang.org/x/crypto/ocsp"
)

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestChainOfEveryKind: a root, an authority below it and a leaf, of every kind of
// key, hold for crypto/x509, and what is written as PEM is read as a pair.
func TestChainOfEveryKind(t *testing.T) {
	for _, kind := range pki.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			entity := must[*pki.Entity](t)
			root := entity(pki.New(pki.Options{Name: "root", Key: kind}))
			mid := entity(root.Authority(pki.Options{Name: "mid", Key: pki.P256}))
			leaf := entity(mid.Issue(pki.Options{Name: "leaf", Key: kind, DNS: []string{"a.example.net"}, IPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}))
			roots, mids := x509.NewCertPool(), x509.NewCertPool()
			roots.AddCert(leaf.Root)
			for _, c := range leaf.Issuers {
				mids.AddCert(c)
			}
			for _, host := range []string{"a.example.net", "192.0.2.1"} {
				if _, err := leaf.Cert.Verify(x509.VerifyOptions{Roots: roots, Intermediates: mids, DNSName: host, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
					t.Errorf("%s: %v", host, err)
				}
			}
			if leaf.Root != root.Cert || len(leaf.Chain()) != 2 || len(mid.Chain()) != 1 {
				t.Errorf("chain of %d below %v", len(leaf.Chain()), leaf.Root.Subject)
			}
			pair := must[tls.Certificate](t)(tls.X509KeyPair(leaf.ChainPEM(), must[[]byte](t)(leaf.KeyPEM())))
			if len(pair.Certificate) != 2 {
				t.Errorf("%d certificates in the PEM", len(pair.Certificate))
			}
			b, _ := pem.Decode(leaf.PublicPEM())
			if _, err := x509.ParsePKIXPublicKey(b.Bytes); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestWhatIsAskedFor: validity, purposes, a weak public key without a private one.
func TestWhatIsAskedFor(t *testing.T) {
	entity := must[*pki.Entity](t)
	root := entity(pki.New(pki.Options{Name: "root"}))
	from := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	weak := &rsa.PublicKey{N: new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 1023), big.NewInt(1)), E: 3}
	leaf := entity(root.Issue(pki.Options{Name: "leaf", Public: weak, From: from, Until: from.Add(time.Hour), Unknown: []pki.Purpose{pki.IPsecIKE}, NoUsage: true}))
	switch c := leaf.Cert; {
	case !c.NotBefore.Equal(from), !c.NotAfter.Equal(from.Add(time.Hour)):
		t.Errorf("valid from %v until %v", c.NotBefore, c.NotAfter)
	case len(c.UnknownExtKeyUsage) != 1, c.KeyUsage != 0, leaf.Key != nil, c.PublicKey.(*rsa.PublicKey).E != 3:
		t.Errorf("purposes %v, usage %v, key %v", c.UnknownExtKeyUsage, c.KeyUsage, c.PublicKey)
	}
	if _, err := leaf.KeyPEM(); err == nil {
		t.Error("a private key where there is none")
	}
	if _, err := root.Issue(pki.Options{Key: "rsa512"}); err == nil {
		t.Error("a key of a kind that does not exist")
	}
	if _, err := (*pki.Entity)(nil).Issue(pki.Options{}); err == nil {
		t.Error("a certificate without an issuer")
	}
}

// TestRevocation: lists and responses carry the issuer's signature and say what
// was asked for.
func TestRevocation(t *testing.T) {
	entity := must[*pki.Entity](t)
	root := entity(pki.New(pki.Options{Name: "root"}))
	good, bad := entity(root.Issue(pki.Options{Name: "good"})), entity(root.Issue(pki.Options{Name: "bad"}))
	now := time.Now().Truncate(time.Second)
	list := must[*x509.RevocationList](t)(root.CRL(now, now.Add(time.Hour), bad.Cert))
	if err := list.CheckSignatureFrom(root.Cert); err != nil {
		t.Error(err)
	}
	if n := list.RevokedCertificateEntries; len(n) != 1 || n[0].SerialNumber.Cmp(bad.Cert.SerialNumber) != 0 {
		t.Errorf("revoked: %v", n)
	}
	if b, _ := pem.Decode(pki.CRLPEM(list)); b == nil || b.Type != "X509 CRL" {
		t.Error("no PEM of the list")
	}
	delegate := entity(root.Issue(pki.Options{Name: "ocsp", Extended: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}}))
	for _, by := range []*pki.Entity{root, delegate} {
		for _, c := range []struct {
			about  *pki.Entity
			status pki.OCSPStatus
		}{{good, pki.Good}, {bad, pki.Revoked}, {good, pki.Unknown}} {
			der := must[[]byte](t)(by.OCSP(c.about.Cert, root.Cert, c.status, now, now.Add(time.Hour)))
			r := must[*ocsp.Response](t)(ocsp.ParseResponseForCert(der, c.about.Cert, root.Cert))
			if r.Status != int(c.status) {
				t.Errorf("status %d, want %d", r.Status, c.status)
			}
		}
	}
}
