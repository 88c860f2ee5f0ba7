package auth_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/pki"
	"github.com/adit-ipsec/adit/sad"
)

// pkiWorld is a root, an authority below it, and a leaf of every kind of key with
// every kind of name: made once, since RSA keys take their time.
type pkiWorld struct {
	root, mid, stranger *pki.Entity
	leaves              map[pki.Kind]*pki.Entity
}

const (
	peerName = "b.example.net"
	peerMail = "gateway@example.net"
	peerAddr = "192.0.2.2"
	peerDN   = "C=CH, O=Example, CN=b"
)

var world = sync.OnceValues(func() (*pkiWorld, error) {
	w := &pkiWorld{leaves: map[pki.Kind]*pki.Entity{}}
	var err error
	if w.root, err = pki.New(pki.Options{Name: "root"}); err != nil {
		return nil, err
	}
	if w.stranger, err = pki.New(pki.Options{Name: "somebody else's root"}); err != nil {
		return nil, err
	}
	if w.mid, err = w.root.Authority(pki.Options{Name: "between", Key: pki.P384}); err != nil {
		return nil, err
	}
	for _, kind := range pki.Kinds() {
		o := named()
		o.Key = kind
		if w.leaves[kind], err = w.mid.Issue(o); err != nil {
			return nil, err
		}
	}
	return w, nil
})

// named are the names of the peer's certificates.
func named() pki.Options {
	dn, err := auth.ParseIdentity(peerDN)
	if err != nil {
		panic(err)
	}
	return pki.Options{
		RawSubject: dn.Data, DNS: []string{"other.example.net", peerName}, Emails: []string{peerMail},
		IPs: []netip.Addr{netip.MustParseAddr(peerAddr), netip.MustParseAddr("2001:db8::2")},
	}
}

func theWorld(t testing.TB) *pkiWorld {
	t.Helper()
	w, err := world()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func identity(t testing.TB, text string) auth.Identity {
	t.Helper()
	return must[auth.Identity](t)(auth.ParseIdentity(text))
}

// octetsOf is an exchange that somebody of this identity signs.
func octetsOf(id auth.Identity) auth.Octets {
	return auth.Octets{
		Message: bytes.Repeat([]byte("message"), 40), PeerNonce: bytes.Repeat([]byte{5}, 32),
		SKp: bytes.Repeat([]byte{9}, 32), ID: id.Wire(false).Body(),
		IntAuth: []byte("intermediate"), PRF: proposal.PRFSHA256,
	}
}

// secret is a pre-shared key that CheckPSK passes.
var secret = sad.Key("iUnW0SLXZQ9wkT7LJYdFVpZb2oQ4mRgc")

// exchange is one AUTH message on its way: what was signed, and what is compared.
type exchange struct {
	local  auth.Local
	remote auth.Remote
	id     auth.Identity
	octets auth.Octets
	hashes []auth.HashAlgorithm
	now    time.Time
	certs  []*wire.Cert
	auth   *wire.Auth
}

// certified is an exchange by a certificate of the world, trusted by its root.
func certified(t testing.TB, e *pki.Entity) *exchange {
	t.Helper()
	id := identity(t, peerName)
	return &exchange{
		local:  auth.Local{ID: id, Chain: e.Chain(), Signer: e.Key},
		remote: auth.Remote{ID: id, Trust: []*x509.Certificate{e.Root}},
		id:     id, octets: octetsOf(id), hashes: auth.Hashes(), now: time.Now(),
	}
}

// shared is an exchange by pre-shared key.
func shared(t testing.TB) *exchange {
	t.Helper()
	id := identity(t, peerName)
	return &exchange{
		local: auth.Local{ID: id, PSK: secret}, remote: auth.Remote{ID: id, PSK: secret},
		id: id, octets: octetsOf(id), hashes: auth.Hashes(), now: time.Now(),
	}
}

// sign fills in what the local end sends.
func (x *exchange) sign(t testing.TB) *exchange {
	t.Helper()
	a, certs, err := x.local.Sign(x.octets, x.hashes, rand.Reader)
	if err != nil {
		t.Fatalf("sign: %v", err)
	}
	x.auth, x.certs = a, wire.All[*wire.Cert](certs)
	return x
}

func (x *exchange) verify() (auth.Peer, error) {
	return x.remote.Verify(x.id, x.certs, x.auth, x.octets, x.now)
}

// wantPeer: the exchange authenticates the peer, by this method.
func (x *exchange) wantPeer(t testing.TB, method string) auth.Peer {
	t.Helper()
	peer, err := x.verify()
	if err != nil {
		t.Fatalf("verify: %v", err)
	}
	if !peer.Valid() || peer.Method() != method || !peer.ID().Equal(x.id) {
		t.Fatalf("authenticated is %v, valid %v, want %v by %s", peer, peer.Valid(), x.id, method)
	}
	return peer
}

// wantRefused: it does not, for this reason, and there is no Peer.
func (x *exchange) wantRefused(t testing.TB, reason auth.Reason) auth.Error {
	t.Helper()
	peer, err := x.verify()
	if peer.Valid() {
		t.Fatalf("%v was authenticated, want %s", peer, reason)
	}
	return wantReason(t, err, reason)
}

func wantReason(t testing.TB, err error, reason auth.Reason) auth.Error {
	t.Helper()
	var e *auth.Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is no *auth.Error, want %s", err, reason)
	}
	if e.Reason != reason {
		t.Fatalf("%v, want the reason %s", err, reason)
	}
	return *e
}

// recoded is a distinguished name with all its values in one string type.
func recoded(t testing.TB, text string, tag byte) []byte {
	t.Helper()
	der := bytes.Clone(identity(t, text).Data)
	for i := 2; i < len(der); {
		// SET, SEQUENCE, OBJECT IDENTIFIER, then the value's tag; all short.
		oid := i + 4
		der[oid+2+int(der[oid+1])] = tag
		i += 2 + int(der[i+1])
	}
	return der
}

// p224 is a key on a curve that is not good enough.
func p224(t testing.TB) crypto.Signer {
	t.Helper()
	return must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
}
