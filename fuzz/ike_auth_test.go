package fuzz

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/pki"
	"github.com/adit-ipsec/adit/sad"
)

// ikeAuthRemotes are ends that believe by everything there is: without the private
// keys and secrets behind them nobody is authenticated.
func ikeAuthRemotes(f *testing.F) (leaf *pki.Entity, all []auth.Remote) {
	f.Helper()
	root, err := pki.New(pki.Options{Name: "root"})
	if err != nil {
		f.Fatal(err)
	}
	if leaf, err = root.Issue(pki.Options{Name: "leaf", DNS: []string{"a.example.net"}}); err != nil {
		f.Fatal(err)
	}
	policy := auth.Revocation{Policy: auth.RevocationRelaxed}
	return leaf, []auth.Remote{
		{PSK: sad.Key("a secret that nobody in here knows")},
		{Trust: []*x509.Certificate{root.Cert}, Revocation: policy},
		{Trust: []*x509.Certificate{leaf.Cert}, Keys: []crypto.PublicKey{leaf.Key.Public()}, Legacy: true},
		{},
	}
}

// FuzzIKEAuthPayload: for any AUTH, CERT and ID bytes nothing panics, nobody is
// authenticated who does not have the key, an error is always an *auth.Error, and
// its text could end no line of a log.
func FuzzIKEAuthPayload(f *testing.F) {
	leaf, remotes := ikeAuthRemotes(f)
	octets := auth.Octets{Message: []byte("message"), PeerNonce: []byte("nonce of sixteen"), SKp: bytes.Repeat([]byte{1}, 32), PRF: proposal.PRFSHA256}
	id := auth.Identity{Kind: wire.IDFQDN, Data: []byte("a.example.net")}
	for _, l := range []auth.Local{{PSK: sad.Key("another secret")}, {Signer: leaf.Key, Chain: leaf.Chain()}, {Signer: leaf.Key, RawKey: true}} {
		signed := octets
		signed.ID, signed.PeerNonce = id.Wire(false).Body(), []byte("another exchange")
		a, certs, err := l.Sign(signed, auth.Hashes(), rand.Reader)
		if err != nil {
			f.Fatal(err)
		}
		shown := []byte("nothing")
		for _, c := range wire.All[*wire.Cert](certs) {
			f.Add(uint8(id.Kind), id.Data, uint8(a.Method), a.Data, uint8(c.Encoding), c.Data, []byte(nil))
			shown = c.Data
		}
		for method := range uint8(15) {
			f.Add(uint8(id.Kind), id.Data, method, a.Data, uint8(4), shown, leaf.Root.Raw)
		}
	}
	now := leaf.Cert.NotBefore.Add(time.Hour)
	f.Fuzz(func(t *testing.T, kind uint8, name []byte, method uint8, proof []byte, encoding uint8, shown, behind []byte) {
		payload := &wire.ID{Kind: wire.IDType(kind), Data: name}
		certs := []*wire.Cert{{Encoding: wire.CertEncoding(encoding), Data: shown}, {Encoding: wire.CertX509Signature, Data: behind}}
		o := octets
		o.ID = payload.Body()
		id, err := auth.FromWire(payload)
		ikeAuthError(t, err)
		a := &wire.Auth{Method: wire.AuthMethod(method), Data: proof}
		for _, r := range append(remotes[:len(remotes):len(remotes)], auth.Nobody(a, []*x509.Certificate{leaf.Root})) {
			for _, some := range [][]*wire.Cert{nil, certs[:1], certs} {
				peer, err := r.Verify(id, some, a, o, now)
				if peer.Valid() || err == nil {
					t.Fatalf("%v is authenticated", peer)
				}
				ikeAuthError(t, err)
			}
		}
	})
}

// ikeAuthError: an error is an *auth.Error of printable text.
func ikeAuthError(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	var e *auth.Error
	if !errors.As(err, &e) || e.Reason == "" {
		t.Fatalf("%v is no *auth.Error with a reason", err)
	}
	if strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Fatalf("%q cannot be printed", err.Error())
	}
}

// FuzzIdentity: what is read as an identity is written so that it is read as the
// same one; so is every identity of a peer.
func FuzzIdentity(f *testing.F) {
	for _, text := range []string{
		"a.example.net", "user@host", "192.0.2.1", "2001:db8::1", "C=CH, O=a\\, b, CN=c+E=d", "/C=CH/CN=a", "keyid:0102", "@#00",
		"{2}:#41", "asn1dn:#300c310a300806035504030c0161", "CN=#040161", "fqdn:a b", "%any", "1.2.3=a", `O="x, y"`, "email:#4140", "fqdn:%any",
	} {
		f.Add(text, uint8(0))
		for kind := range uint8(14) {
			f.Add(text, kind)
		}
	}
	f.Fuzz(func(t *testing.T, text string, kind uint8) {
		ids := make([]auth.Identity, 0, 2)
		if id, err := auth.ParseIdentity(text); err == nil {
			ids = append(ids, id)
		}
		if id, err := auth.FromWire(&wire.ID{Kind: wire.IDType(kind), Data: []byte(text)}); err == nil {
			ids = append(ids, id)
		}
		for _, id := range ids {
			written := id.String()
			if strings.ContainsFunc(written, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Fatalf("%q cannot be printed", written)
			}
			back, err := auth.ParseIdentity(written)
			if err != nil || !back.Equal(id) || !id.Equal(back) {
				t.Fatalf("%v %x is written as %q and read as %v %x, %v", id.Kind, id.Data, written, back.Kind, back.Data, err)
			}
			if again := back.String(); again != written {
				t.Fatalf("%q is written the second time as %q", written, again)
			}
		}
	})
}
