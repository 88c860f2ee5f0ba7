package ike

import (
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/pki"
	"github.com/adit-ipsec/adit/sad"
)

// TestStrangersAreVerifiedAsNobody: whoever is refused before anything was computed,
// for a name that nobody has, or for a kind of proof that who has the name does not
// give, is verified as nobody; and who has been verified is not once more.
func TestStrangersAreVerifiedAsNobody(t *testing.T) {
	root, other := newRoot(t), newRoot(t)
	leaf := func(by *pki.Entity, name string) auth.Local {
		e, err := by.Issue(pki.Options{Name: name, DNS: []string{name}, From: epoch.Add(-time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		return auth.Local{Chain: e.Chain(), Signer: e.Key}
	}
	guess := auth.Local{PSK: sad.Key("a guess that is long enough, and wrong")}
	certs := func(pa, pb *Peer) { certify(t, pa, pb, root, pki.P256) }
	for _, c := range []struct {
		name   string
		change func(a, b *Peer)
		as     string
		with   auth.Local
		nobody uint64
		reason string
	}{
		{"a name that nobody has, a secret", nil, "x.example.net", guess, 1, "wrong_identity"},
		{"a name that nobody has, a certificate", certs, "x.example.net", leaf(other, "x.example.net"), 1, "wrong_identity"},
		{"a name that nobody has, a good certificate", certs, "x.example.net", leaf(root, "x.example.net"), 1, "wrong_identity"},
		{"a secret for a secret", nil, "a.example.net", guess, 0, "auth_failed"},
		{"a certificate for a certificate", certs, "a.example.net", leaf(other, "a.example.net"), 0, "unknown_ca"},
		{"a certificate for a secret", nil, "a.example.net", leaf(other, "a.example.net"), 1, "unsupported_method"},
		{"a secret for a certificate", certs, "a.example.net", guess, 1, "unsupported_method"},
		{"no PPK", func(_, b *Peer) { b.PPK = auth.PPK{ID: []byte("x"), Key: sad.Key(testPSK), Required: true} }, "a.example.net", guess, 1, "ppk_required"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, a, b := pair(t, c.change)
			r.impair(a, onAuth(func(l *letter) bool {
				id := wire.FindID(l.Payloads, false)
				id.Data = []byte(c.as)
				l.drop(wire.PayloadCERT)
				for _, shown := range c.with.Chain {
					l.add(&wire.Cert{Encoding: wire.CertX509Signature, Data: shown.Raw})
				}
				return l.sign(c.with, id.Body())
			}))
			a.step(Initiate{Peer: "B"})
			r.run(2 * time.Second)
			b.wantFailure(StageAuth, c.reason)
			if n := b.m.Stats()["verified_as_nobody"]; n != c.nobody || len(b.establishedSAs()) != 0 {
				t.Errorf("verified as nobody %d times, want %d; %d IKE SAs", n, c.nobody, len(b.establishedSAs()))
			}
		})
	}
}

// TestNobodyIsWorkedFor: verifyNobody goes as far as a signature, by a key of the kind
// that the stranger claims, or up to the anchors of who could be at its address: "does
// not hold" is said behind that alone.
func TestNobodyIsWorkedFor(t *testing.T) {
	root := newRoot(t)
	r, a, b := pair(t, func(pa, pb *Peer) { certify(t, pa, pb, root, pki.P256) })
	a.step(Initiate{Peer: "B"})
	r.run(15 * time.Millisecond)
	var sa *ikeSA
	for _, s := range b.m.sas {
		sa = s
	}
	if sa == nil || sa.state != halfOpen {
		t.Fatal("no half-open IKE SA")
	}
	sa.first.candidates = b.m.candidatesFor(addrA, sa.choice)
	r0 := &authRequested{id: identity(t, "x.example.net")}
	r0.idi = r0.id.Wire(false)
	ask := func(with auth.Local, shown ...*x509.Certificate) auth.Error {
		t.Helper()
		o := b.m.peerOctets(sa, r0, sa.keys)
		o.PeerNonce = []byte("of another exchange altogether..")
		proof, _, err := with.Sign(o, auth.Hashes(), seeded("nobody"))
		if err != nil {
			t.Fatal(err)
		}
		r0.proof, r0.payloads = proof, nil
		for _, c := range shown {
			r0.payloads = append(r0.payloads, &wire.Cert{Encoding: wire.CertX509Signature, Data: c.Raw})
		}
		var e *auth.Error
		if err := b.m.verifyNobody(sa, r0); !errors.As(err, &e) {
			t.Fatalf("%v", err)
		}
		return *e
	}
	if e := ask(auth.Local{PSK: sad.Key(testPSK)}); e.Reason != auth.AuthFailed {
		t.Errorf("a secret: %s", e.Error())
	}
	for kind, by := range map[pki.Kind]string{pki.RSA2048: "rsa", pki.P256: "ecdsa", pki.Ed25519: "ed25519"} {
		e, err := root.Issue(pki.Options{Name: "x", DNS: []string{"x.example.net"}, Key: kind, From: epoch.Add(-time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		with := auth.Local{Chain: e.Chain(), Signer: e.Key}
		for what, shown := range map[string][]*x509.Certificate{"nothing shown": nil, "a good certificate": e.Chain()} {
			if got := ask(with, shown...); got.Reason != auth.AuthFailed || !strings.HasSuffix(got.Theirs, " by "+by) {
				t.Errorf("%s, %s: %s", kind, what, got.Error())
			}
		}
	}
	other, err := newRoot(t).Issue(pki.Options{Name: "x", DNS: []string{"x.example.net"}, From: epoch.Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if e := ask(auth.Local{Chain: other.Chain(), Signer: other.Key}, other.Cert); e.Reason != auth.UnknownCA {
		t.Errorf("a certificate of somebody else's: %s", e.Error())
	}
}
