package auth_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"go/ast"
	"go/parser"
	"go/token"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/pki"
	"github.com/adit-ipsec/adit/sad"
)

// refusal is one way to be refused: what is changed about a good exchange by an
// ECDSA certificate, before or after it is signed.
type refusal struct {
	name   string
	reason auth.Reason
	leaf   func(o *pki.Options) // what is odd about the certificate; nil: nothing
	before func(x *exchange)
	after  func(x *exchange)
	theirs string // stands in Theirs
}

func refusals(t *testing.T) []refusal {
	w := theWorld(t)
	long := time.Now()
	return []refusal{
		{name: "somebody else", reason: auth.WrongIdentity, theirs: peerName, before: func(x *exchange) { x.remote.ID = identity(t, "c.example.net") }},
		{name: "an identity that the certificate does not hold", reason: auth.WrongIdentity, theirs: "other.example.net",
			before: func(x *exchange) {
				x.id = identity(t, "evil.example.net")
				x.local.ID, x.remote.ID, x.octets = x.id, auth.Identity{}, octetsOf(x.id)
			}},
		{name: "no identity", reason: auth.BadIdentity, before: func(x *exchange) { x.id = auth.Identity{} }},
		{name: "ID_NULL", reason: auth.BadIdentity, before: func(x *exchange) { x.id = auth.Identity{Kind: wire.IDNull} }},
		{name: "another end's AUTH", reason: auth.AuthFailed, after: func(x *exchange) { x.octets.PeerNonce = []byte("other nonce of 16") }},
		{name: "no AUTH", reason: auth.AuthFailed, after: func(x *exchange) { x.auth = nil }},
		{name: "an exchange that is not complete", reason: auth.AuthFailed, after: func(x *exchange) { x.octets.SKp = nil }},
		{name: "an unknown PRF", reason: auth.AuthFailed, after: func(x *exchange) { x.octets.PRF = 4711 }},
		{name: "AUTH over another identity than the one asked about", reason: auth.AuthFailed,
			before: func(x *exchange) { x.remote.ID = auth.Identity{} },
			after:  func(x *exchange) { x.id = identity(t, "other.example.net") }},
		{name: "a wrong pre-shared key", reason: auth.AuthFailed, before: func(x *exchange) {
			x.local.Signer, x.local.PSK, x.remote.PSK = nil, secret, append(sad.Key{' '}, secret...)
		}},
		{name: "a pre-shared key where there is none", reason: auth.UnsupportedMethod, before: func(x *exchange) { x.local.Signer, x.local.PSK = nil, secret }},
		{name: "a certificate where a pre-shared key is meant", reason: auth.UnsupportedMethod, before: func(x *exchange) { x.remote = auth.Remote{PSK: secret} }},
		{name: "DSS", reason: auth.UnsupportedMethod, after: func(x *exchange) { x.auth.Method = wire.AuthDSS }},
		{name: "NULL", reason: auth.UnsupportedMethod, after: func(x *exchange) { x.auth.Method = wire.AuthNull }},
		{name: "an algorithm that is not on the list", reason: auth.UnsupportedMethod, theirs: "0500", after: func(x *exchange) {
			// ecdsa-with-SHA256 with a NULL behind it
			x.auth.Data = append([]byte{14, 0x30, 12, 0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2, 5, 0}, x.auth.Data[13:]...)
		}},
		{name: "SHA-1", reason: auth.HashNotOffered, after: func(x *exchange) {
			x.auth.Data = append([]byte{11, 0x30, 9, 0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1}, x.auth.Data[13:]...)
		}},
		{name: "RSA of 1024 bits", reason: auth.WeakKey, leaf: func(o *pki.Options) { o.Public = rsaKey(1024, 65537) }},
		{name: "RSA with e = 3", reason: auth.WeakKey, leaf: func(o *pki.Options) { o.Public = rsaKey(2048, 3) }},
		{name: "RSA of 9000 bits", reason: auth.WeakKey, leaf: func(o *pki.Options) { o.Public = rsaKey(9000, 65537) }},
		{name: "no certificate", reason: auth.NoCertificate, after: func(x *exchange) { x.certs = nil }},
		{name: "rubbish for a certificate", reason: auth.BadCertificate, after: func(x *exchange) { x.certs[0] = cert(wire.CertX509Signature, []byte("rubbish")) }},
		{name: "rubbish behind the certificate", reason: auth.BadCertificate, after: func(x *exchange) { x.certs[1] = cert(wire.CertX509Signature, []byte{0x30, 0}) }},
		{name: "rubbish for a raw key", reason: auth.BadCertificate, after: func(x *exchange) { x.certs = []*wire.Cert{cert(wire.CertRawPublicKey, []byte("rubbish"))} }},
		{name: "two raw keys", reason: auth.BadCertificate, after: func(x *exchange) {
			c := cert(wire.CertRawPublicKey, w.root.Cert.RawSubjectPublicKeyInfo)
			x.certs = []*wire.Cert{c, c}
		}},
		{name: "too many certificates", reason: auth.BadCertificate, after: func(x *exchange) {
			for len(x.certs) < 17 {
				x.certs = append(x.certs, x.certs[0])
			}
		}},
		{name: "hash and URL", reason: auth.CertificateEncoding, theirs: "hash and URL", after: func(x *exchange) { x.certs[1] = cert(wire.CertHashURL, []byte("http://127.0.0.1/x")) }},
		{name: "PKCS #7", reason: auth.CertificateEncoding, after: func(x *exchange) { x.certs[0] = cert(wire.CertPKCS7, x.certs[0].Data) }},
		{name: "for encryption only", reason: auth.WrongUsage, leaf: func(o *pki.Options) { o.Usage = x509.KeyUsageKeyEncipherment }},
		{name: "for code", reason: auth.WrongUsage, leaf: func(o *pki.Options) { o.Extended = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }},
		{name: "of somebody else's authority", reason: auth.UnknownCA, theirs: "CN=root", before: func(x *exchange) { x.remote.Trust = []*x509.Certificate{w.stranger.Cert} }},
		{name: "without the authority between", reason: auth.UnknownCA, theirs: "CN=between", after: func(x *exchange) { x.certs = x.certs[:1] }},
		{name: "a certificate where a raw key is meant", reason: auth.UnknownCA, before: func(x *exchange) {
			x.remote.Trust, x.remote.Keys = nil, []crypto.PublicKey{w.root.Key.Public()}
		}},
		{name: "an unknown raw key", reason: auth.UnknownKey, after: func(x *exchange) {
			x.certs = []*wire.Cert{cert(wire.CertRawPublicKey, w.root.Cert.RawSubjectPublicKeyInfo)}
		}},
		{name: "expired", reason: auth.Expired, theirs: "valid until 2021", leaf: func(o *pki.Options) { o.From = time.Date(2020, 6, 1, 0, 0, 0, 0, time.UTC) }},
		{name: "a clock that is years ahead", reason: auth.Expired, after: func(x *exchange) { x.now = long.AddDate(9, 0, 0) }},
		{name: "not valid yet", reason: auth.NotYetValid, leaf: func(o *pki.Options) { o.From = long.AddDate(0, 1, 0) }},
		{name: "a clock at the epoch", reason: auth.NotYetValid, theirs: "valid from " + strconv.Itoa(w.root.Cert.NotBefore.Year()), after: func(x *exchange) { x.now = time.Unix(0, 0) }},
		{name: "nothing known, strictly", reason: auth.RevocationUnknown, before: func(x *exchange) { x.remote.Revocation.Policy = auth.RevocationStrict }},
		{name: "the authority between is revoked", reason: auth.Revoked, before: func(x *exchange) {
			x.remote.Revocation = auth.Revocation{Policy: auth.RevocationRelaxed, CRLs: crls(t, w.root, x.now, time.Hour, w.mid.Cert)}
		}},
	}
}

func cert(e wire.CertEncoding, data []byte) *wire.Cert { return &wire.Cert{Encoding: e, Data: data} }

// rsaKey is a public key that nobody has the private one of.
func rsaKey(bits uint, e int) *rsa.PublicKey {
	n := new(big.Int).Lsh(big.NewInt(1), bits-1)
	return &rsa.PublicKey{N: n.Add(n, big.NewInt(1)), E: e}
}

func crls(t testing.TB, of *pki.Entity, from time.Time, valid time.Duration, revoked ...*x509.Certificate) []*x509.RevocationList {
	t.Helper()
	return []*x509.RevocationList{must[*x509.RevocationList](t)(of.CRL(from, from.Add(valid), revoked...))}
}

// TestEveryReason: each is provoked by real certificates, names what differs, and
// comes without a Peer; and no reason is declared that nothing here provokes.
func TestEveryReason(t *testing.T) {
	w := theWorld(t)
	seen := map[string]bool{}
	for _, c := range refusals(t) {
		t.Run(c.name, func(t *testing.T) {
			seen[string(c.reason)] = true
			e := w.leaves[pki.P256]
			if c.leaf != nil {
				o := named()
				c.leaf(&o)
				e = must[*pki.Entity](t)(w.mid.Issue(o))
				if e.Key == nil {
					e.Key = w.leaves[pki.P256].Key // a weak key is refused before anything is verified
				}
			}
			x := certified(t, e)
			if c.before != nil {
				c.before(x)
			}
			x.sign(t)
			if c.after != nil {
				c.after(x)
			}
			got := x.wantRefused(t, c.reason)
			if got.Text == "" || !strings.Contains(got.Theirs, c.theirs) {
				t.Errorf("%v: %q does not stand in theirs", got.Error(), c.theirs)
			}
			if strings.Contains(got.Error(), string(secret)) {
				t.Error("the secret stands in the error")
			}
		})
	}
	for _, r := range []auth.Reason{auth.NoCredentials} { // TestLocalCheck
		seen[string(r)] = true
	}
	for _, reason := range declaredReasons(t) {
		if !seen[reason] {
			t.Errorf("nothing provokes %s", reason)
		}
	}
}

// declaredReasons reads the constants of errors.go.
func declaredReasons(t *testing.T) (reasons []string) {
	t.Helper()
	file := must[*ast.File](t)(parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0))
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for _, v := range spec.Values {
			if lit, ok := v.(*ast.BasicLit); ok {
				reasons = append(reasons, must[string](t)(strconv.Unquote(lit.Value)))
			}
		}
		return true
	})
	if len(reasons) < 15 {
		t.Fatalf("only %v", reasons)
	}
	return reasons
}

// TestClockFarOff: the error says both times, so that a wrong clock is seen.
func TestClockFarOff(t *testing.T) {
	x := certified(t, theWorld(t).leaves[pki.P256]).sign(t)
	x.now = time.Date(1970, 1, 1, 0, 1, 2, 0, time.UTC)
	e := x.wantRefused(t, auth.NotYetValid)
	if !strings.Contains(e.Ours, "1970-01-01T00:01:02Z") || !strings.Contains(e.Theirs, theWorld(t).leaves[pki.P256].Cert.NotBefore.UTC().Format(time.RFC3339)) {
		t.Error(e.Error())
	}
}

// TestLocalCheck: what a peer would find wrong, this end finds first.
func TestLocalCheck(t *testing.T) {
	w := theWorld(t)
	leaf := w.leaves[pki.P256]
	good := auth.Local{ID: identity(t, peerName), Chain: leaf.Chain(), Signer: leaf.Key}
	for _, c := range []struct {
		name   string
		reason auth.Reason // "": nothing is wrong
		change func(l *auth.Local)
	}{
		{"good", "", func(*auth.Local) {}},
		{"by subject", "", func(l *auth.Local) { l.ID = auth.Identity{} }},
		{"raw", "", func(l *auth.Local) { l.RawKey, l.Chain = true, nil }},
		{"pre-shared", "", func(l *auth.Local) { l.Signer, l.PSK = nil, secret }},
		{"nothing", auth.NoCredentials, func(l *auth.Local) { l.Signer = nil }},
		{"nobody", auth.BadIdentity, func(l *auth.Local) { *l = auth.Local{PSK: secret} }},
		{"no certificate", auth.NoCertificate, func(l *auth.Local) { l.Chain = nil }},
		{"another key", auth.BadCertificate, func(l *auth.Local) { l.Signer = w.leaves[pki.P384].Key }},
		{"another identity", auth.WrongIdentity, func(l *auth.Local) { l.ID = identity(t, "c.example.net") }},
	} {
		l := good
		c.change(&l)
		if err := l.Check(); c.reason != "" {
			wantReason(t, err, c.reason)
		} else if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for _, l := range []auth.Local{{ID: good.ID}, {ID: good.ID, Signer: leaf.Key}} {
		if _, _, err := l.Sign(octetsOf(good.ID), auth.Hashes(), nil); err == nil {
			t.Errorf("%v signs", l)
		}
	}
}

// TestPeerIsProof: the zero Peer is nobody, and says so.
func TestPeerIsProof(t *testing.T) {
	var p auth.Peer
	if p.Valid() || !p.ID().IsZero() || p.Method() != "" || p.Certificate() != nil || p.String() != "nobody" {
		t.Errorf("the zero Peer is %v", p)
	}
}

// TestEmptyPSKProvesNothing: who is configured without a pre-shared key is not let
// in by the empty one.
func TestEmptyPSKProvesNothing(t *testing.T) {
	x := shared(t)
	x.local.PSK = sad.Key{0} // HMAC pads keys with zeros: this is the empty key's MAC
	x.sign(t)
	for _, x.remote.PSK = range []sad.Key{nil, {}} {
		x.wantRefused(t, auth.UnsupportedMethod)
	}
}
