package auth_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"testing"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/pki"
)

// reissued is an authority of the root's with something about it changed, and its leaf,
// shown by an exchange that trusts the root.
func reissued(t *testing.T, change func(c *x509.Certificate), below ...pki.Options) *exchange {
	t.Helper()
	w := theWorld(t)
	made := must[*pki.Entity](t)(w.root.Authority(pki.Options{Name: "constrained"}))
	c := *made.Cert
	c.ExtraExtensions = nil
	change(&c)
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, &c, w.root.Cert, made.Key.Public(), w.root.Key))
	made.Cert = must[*x509.Certificate](t)(x509.ParseCertificate(der))
	at := made
	for _, o := range below {
		at = must[*pki.Entity](t)(at.Authority(o))
	}
	x := certified(t, must[*pki.Entity](t)(at.Issue(named())))
	x.remote.Trust = []*x509.Certificate{w.root.Cert}
	return x
}

// TestRFC5280_WhatAnAuthorityMayNot: an authority signs for the names that it was given,
// over as many others as it was given, and nothing that crypto/x509 does not know and
// that is critical is passed over. The name that the peer says itself is held to the
// same, whichever of the certificate's names it is.
func TestRFC5280_WhatAnAuthorityMayNot(t *testing.T) {
	_, net4, err := net.ParseCIDR("192.0.2.0/24")
	if err != nil {
		t.Fatal(err)
	}
	critical := func(id asn1.ObjectIdentifier, value ...byte) pkix.Extension {
		return pkix.Extension{Id: id, Critical: true, Value: value}
	}
	// nameConstraints with a permitted directoryName of nothing but C=CH.
	directory := []byte{0x30, 0x15, 0xa0, 0x13, 0x30, 0x11, 0xa4, 0x0f, 0x30, 0x0d, 0x31, 0x0b, 0x30, 0x09, 0x06, 0x03, 0x55, 0x04, 0x06, 0x13, 0x02, 'C', 'H'}
	for _, c := range []struct {
		name   string
		change func(c *x509.Certificate)
		below  []pki.Options
		ok     bool
	}{
		{"nothing changed", func(*x509.Certificate) {}, nil, true},
		{"its names permitted", func(c *x509.Certificate) {
			c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"example.net"}
		}, nil, true},
		{"other names permitted", func(c *x509.Certificate) {
			c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"example.org"}
		}, nil, false},
		{"its name excluded", func(c *x509.Certificate) {
			c.PermittedDNSDomainsCritical, c.ExcludedDNSDomains = true, []string{"b.example.net"}
		}, nil, false},
		{"its mail excluded", func(c *x509.Certificate) {
			c.PermittedDNSDomainsCritical, c.ExcludedEmailAddresses = true, []string{"example.net"}
		}, nil, false},
		{"its address excluded", func(c *x509.Certificate) {
			c.PermittedDNSDomainsCritical, c.ExcludedIPRanges = true, []*net.IPNet{net4}
		}, nil, false},
		{"directory names constrained", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{critical(asn1.ObjectIdentifier{2, 5, 29, 30}, directory...)}
		}, nil, false},
		{"a critical extension that nobody knows", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{critical(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 2}, 5, 0)}
		}, nil, false},
		{"path length 1, one below", func(c *x509.Certificate) { c.MaxPathLen = 1 }, []pki.Options{{Name: "lower"}}, true},
		{"path length 0, one below", func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true }, []pki.Options{{Name: "lower"}}, false},
		{"no authority", func(c *x509.Certificate) { c.IsCA, c.MaxPathLen, c.MaxPathLenZero = false, 0, false }, nil, false},
		{"not for signing certificates", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }, nil, false},
	} {
		for _, id := range []auth.Identity{identity(t, peerName), identity(t, peerMail), identity(t, peerAddr), identity(t, peerDN)} {
			x := reissued(t, c.change, c.below...)
			x.id, x.local.ID, x.remote.ID = id, id, id
			if id.Kind == wire.IDDERASN1DN {
				x.id = x.local.Identity()
			}
			x.octets = octetsOf(x.id)
			x.sign(t)
			peer, err := x.verify()
			if c.ok != (err == nil) || peer.Valid() != c.ok {
				t.Errorf("%s, as %v: %v, %v", c.name, id, peer, err)
			}
		}
	}
}
