package auth_test

import (
	"bytes"
	"crypto"
	"crypto/sha1"
	"crypto/x509"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/pki"
)

// TestRFC4945_IdentityMatchIsExact: what a certificate holds, and what it only
// seems to.
func TestRFC4945_IdentityMatchIsExact(t *testing.T) {
	w := theWorld(t)
	wild := named()
	wild.DNS = []string{"*.example.net"}
	wildcard := must[*pki.Entity](t)(w.mid.Issue(wild))
	common := must[*pki.Entity](t)(w.mid.Issue(pki.Options{Name: peerName}))
	leaf := w.leaves[pki.P256]
	dn := auth.Identity{Kind: wire.IDDERASN1DN, Data: leaf.Cert.RawSubject}
	for _, c := range []struct {
		name string
		of   *pki.Entity
		id   auth.Identity
		ok   bool
	}{
		{"name", leaf, identity(t, peerName), true},
		{"name in capitals", leaf, identity(t, "B.Example.NET"), true},
		{"second name", leaf, identity(t, "other.example.net"), true},
		{"part of the name", leaf, identity(t, "example.net"), false},
		{"longer name", leaf, identity(t, "a.b.example.net"), false},
		{"name with a dot behind", leaf, identity(t, "b.example.net."), false},
		{"name with a zero behind", leaf, auth.Identity{Kind: wire.IDFQDN, Data: []byte(peerName + "\x00")}, false},
		{"mail", leaf, identity(t, peerMail), true},
		{"mail of somebody else", leaf, identity(t, "root@example.net"), false},
		{"mail in capitals", leaf, identity(t, "GATEWAY@example.net"), false},
		{"IPv4", leaf, identity(t, peerAddr), true},
		{"IPv6", leaf, identity(t, "2001:db8::2"), true},
		{"another IPv4", leaf, identity(t, "192.0.2.3"), false},
		{"IPv4 in IPv6", leaf, identity(t, "::ffff:192.0.2.2"), false},
		{"subject", leaf, dn, true},
		{"subject in other words", leaf, identity(t, "C=CH, O=Example, CN=c"), false},
		{"subject in another order", leaf, identity(t, "CN=b, O=Example, C=CH"), false},
		{"part of the subject", leaf, identity(t, "O=Example, CN=b"), false},
		{"key ID", leaf, identity(t, "keyid:0102"), false},
		{"name under a wildcard", wildcard, identity(t, peerName), false},
		{"the wildcard itself", wildcard, identity(t, "fqdn:*.example.net"), true},
		{"name in the common name", common, identity(t, peerName), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := certified(t, c.of)
			x.id, x.local.ID, x.remote.ID, x.octets = c.id, c.id, auth.Identity{}, octetsOf(c.id)
			x.sign(t)
			if c.ok {
				x.wantPeer(t, "ecdsa")
			} else if peer, err := x.verify(); err == nil || peer.Valid() {
				t.Errorf("%v is authenticated", peer)
			}
		})
	}
}

// TestConfiguredNameOfASubject: a name written by hand means the certificate's own
// bytes, on both ends, whichever string types it has; what is signed is the
// certificate's.
func TestConfiguredNameOfASubject(t *testing.T) {
	w := theWorld(t)
	for _, as := range []byte{0x0c, 0x13} { // UTF8String, PrintableString
		o := named()
		o.RawSubject = recoded(t, peerDN, as)
		e := must[*pki.Entity](t)(w.mid.Issue(o))
		x := certified(t, e)
		x.local.ID, x.remote.ID = identity(t, peerDN), identity(t, "/C=CH/O=Example/CN=b")
		x.id = x.local.Identity()
		if !bytes.Equal(x.id.Data, e.Cert.RawSubject) {
			t.Errorf("string type %#x: %v is sent, not the certificate's bytes", as, x.id)
		}
		x.octets = octetsOf(x.id)
		x.sign(t).wantPeer(t, "ecdsa")
	}
}

// TestChains: authorities between come in any order behind the leaf, with others
// that nobody needs; the peer's very certificate can be trusted.
func TestChains(t *testing.T) {
	w := theWorld(t)
	low := must[*pki.Entity](t)(w.mid.Authority(pki.Options{Name: "lower"}))
	leaf := must[*pki.Entity](t)(low.Issue(named()))
	x := certified(t, leaf).sign(t)
	leafCert, lowCert, midCert := x.certs[0], x.certs[1], x.certs[2]
	rootCert, strange := cert(wire.CertX509Signature, w.root.Cert.Raw), cert(wire.CertX509Signature, w.stranger.Cert.Raw)
	for _, x.certs = range [][]*wire.Cert{
		{leafCert, lowCert, midCert}, {leafCert, midCert, lowCert}, {leafCert, rootCert, midCert, strange, lowCert, leafCert},
	} {
		x.wantPeer(t, "ecdsa")
	}
	x.certs = []*wire.Cert{lowCert, leafCert, midCert}
	x.wantRefused(t, auth.WrongUsage) // the first one is taken for the leaf, and it is an authority
	for _, x.remote.Trust = range [][]*x509.Certificate{{leaf.Cert}, {low.Cert}, {w.stranger.Cert, w.mid.Cert}} {
		x.certs = []*wire.Cert{leafCert, lowCert, midCert}
		x.wantPeer(t, "ecdsa")
	}
	x.certs, x.remote.Trust = nil, []*x509.Certificate{w.root.Cert, leaf.Cert}
	x.wantPeer(t, "ecdsa") // it is known, and need not be sent
	x.remote.Trust = []*x509.Certificate{w.root.Cert}
	x.wantRefused(t, auth.NoCertificate)
	self := must[*pki.Entity](t)(pki.SelfSigned(named()))
	certified(t, self).sign(t).wantPeer(t, "ecdsa")
}

// TestWeakOrOldBetween: an authority between that is weak or has expired makes the
// chain so.
func TestWeakOrOldBetween(t *testing.T) {
	w := theWorld(t)
	old := must[*pki.Entity](t)(w.root.Authority(pki.Options{Name: "old", From: time.Now().AddDate(-3, 0, 0)}))
	certified(t, must[*pki.Entity](t)(old.Issue(named()))).sign(t).wantRefused(t, auth.Expired)
	// A root on P-224, which signs well enough for crypto/x509.
	weak := must[*pki.Entity](t)(pki.New(pki.Options{Name: "weak", Signer: p224(t)}))
	certified(t, must[*pki.Entity](t)(weak.Issue(named()))).sign(t).wantRefused(t, auth.WeakKey)
	// An end entity is no authority, whatever it signs.
	leaf := w.leaves[pki.P256]
	x := certified(t, must[*pki.Entity](t)(leaf.Issue(named()))).sign(t)
	if e := x.wantRefused(t, auth.UnknownCA); !strings.Contains(e.Text, "possibly") {
		t.Errorf("%s does not say what is wrong with the issuer", e.Error())
	}
}

// TestUsages: what RFC 4945 lets pass, and where this end is more lenient.
func TestUsages(t *testing.T) {
	for name, change := range map[string]func(*pki.Options){
		"none":           func(o *pki.Options) { o.NoUsage = true },
		"non-repudation": func(o *pki.Options) { o.Usage = x509.KeyUsageContentCommitment },
		"ipsecIKE":       func(o *pki.Options) { o.Unknown = []pki.Purpose{pki.IPsecIKE} },
		"any":            func(o *pki.Options) { o.Extended = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} },
		"TLS":            func(o *pki.Options) { o.Extended = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
		"tunnel":         func(o *pki.Options) { o.Extended = []x509.ExtKeyUsage{x509.ExtKeyUsageIPSECTunnel} },
	} {
		t.Run(name, func(t *testing.T) {
			o := named()
			change(&o)
			certified(t, must[*pki.Entity](t)(theWorld(t).mid.Issue(o))).sign(t).wantPeer(t, "ecdsa")
		})
	}
}

// TestCertificateRequests: anchors are named by SHA-1 of their key (RFC 7296 3.7), raw
// keys by an empty request (RFC 7670 3).
func TestCertificateRequests(t *testing.T) {
	w := theWorld(t)
	hash := func(c *x509.Certificate) string {
		sum := sha1.Sum(c.RawSubjectPublicKeyInfo)
		return string(sum[:])
	}
	keys := []crypto.PublicKey{w.leaves[pki.P256].Key.Public(), w.leaves[pki.P384].Key.Public()}
	both := []*x509.Certificate{w.root.Cert, w.stranger.Cert}
	for name, c := range map[string]struct {
		remote auth.Remote
		want   []wire.CertReq
	}{
		"authorities":    {auth.Remote{Trust: both}, []wire.CertReq{{Encoding: wire.CertX509Signature, Authorities: []byte(hash(w.root.Cert) + hash(w.stranger.Cert))}}},
		"raw keys":       {auth.Remote{Keys: keys}, []wire.CertReq{{Encoding: wire.CertRawPublicKey}}},
		"both":           {auth.Remote{Trust: both[:1], Keys: keys}, []wire.CertReq{{Encoding: wire.CertX509Signature, Authorities: []byte(hash(w.root.Cert))}, {Encoding: wire.CertRawPublicKey}}},
		"a shared key":   {auth.Remote{PSK: secret}, nil},
		"nothing at all": {auth.Remote{}, nil},
	} {
		var got []wire.CertReq
		for _, q := range wire.All[*wire.CertReq](c.remote.Requests()) {
			got = append(got, *q)
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
