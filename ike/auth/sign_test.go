package auth_test

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/pki"
)

// TestRFC7296_2_15_SharedKey: AUTH by pre-shared key is what the RFC's formula
// gives, computed here a second time from crypto/hmac alone.
func TestRFC7296_2_15_SharedKey(t *testing.T) {
	x := shared(t).sign(t)
	prf := func(key []byte, data ...[]byte) []byte {
		m := hmac.New(sha256.New, key)
		for _, d := range data {
			m.Write(d)
		}
		return m.Sum(nil)
	}
	id := append([]byte{2, 0, 0, 0}, peerName...)
	want := prf(prf(secret, []byte("Key Pad for IKEv2")), x.octets.Message, x.octets.PeerNonce, prf(x.octets.SKp, id), x.octets.IntAuth)
	if x.auth.Method != wire.AuthSharedKey || !bytes.Equal(x.auth.Data, want) {
		t.Errorf("method %v, AUTH %x, want %x", x.auth.Method, x.auth.Data, want)
	}
	if len(x.certs) != 0 {
		t.Error("certificates with a pre-shared key")
	}
	if peer := x.wantPeer(t, "psk"); peer.Certificate() != nil {
		t.Error("a certificate of a peer that has none")
	}
}

// schemesToTry is every way to sign: kind of key, hashes that the peer offers (nil:
// it does not know RFC 7427), and the method that comes of it.
func schemesToTry() (all []struct {
	kind   pki.Kind
	hashes []auth.HashAlgorithm
	pkcs1  bool
	method wire.AuthMethod
}) {
	add := func(kind pki.Kind, method wire.AuthMethod, pkcs1 bool, hashes ...auth.HashAlgorithm) {
		all = append(all, struct {
			kind   pki.Kind
			hashes []auth.HashAlgorithm
			pkcs1  bool
			method wire.AuthMethod
		}{kind, hashes, pkcs1, method})
	}
	for _, h := range []auth.HashAlgorithm{auth.HashSHA256, auth.HashSHA384, auth.HashSHA512} {
		for _, kind := range []pki.Kind{pki.RSA2048, pki.RSA3072} {
			add(kind, wire.AuthDigitalSignature, false, h)
			add(kind, wire.AuthDigitalSignature, true, h)
		}
		for _, kind := range []pki.Kind{pki.P256, pki.P384, pki.P521} {
			add(kind, wire.AuthDigitalSignature, false, h)
		}
	}
	add(pki.Ed25519, wire.AuthDigitalSignature, false, auth.HashIdentity)
	add(pki.P256, wire.AuthECDSA256, false)
	add(pki.P384, wire.AuthECDSA384, false)
	add(pki.P521, wire.AuthECDSA521, false)
	add(pki.RSA2048, wire.AuthRSA, false) // with Legacy
	return all
}

func methodName(kind pki.Kind) string {
	switch kind {
	case pki.RSA2048, pki.RSA3072:
		return "rsa"
	case pki.Ed25519:
		return "ed25519"
	}
	return "ecdsa"
}

// TestEverySchemeBothWays: what each kind of key signs with each hash, verifies,
// by RFC 7427 and by the older methods; and whatever of the exchange is not the
// same on the other end, it does not.
func TestEverySchemeBothWays(t *testing.T) {
	w := theWorld(t)
	for _, c := range schemesToTry() {
		t.Run(fmt.Sprintf("%s/%v/%v/pkcs1=%v", c.kind, c.method, c.hashes, c.pkcs1), func(t *testing.T) {
			x := certified(t, w.leaves[c.kind])
			x.hashes, x.local.PKCS1, x.local.Legacy, x.remote.Legacy = c.hashes, c.pkcs1, true, true
			x.sign(t)
			if x.auth.Method != c.method {
				t.Fatalf("method %v, want %v", x.auth.Method, c.method)
			}
			if len(x.certs) != 2 || x.certs[0].Encoding != wire.CertX509Signature || !bytes.Equal(x.certs[0].Data, w.leaves[c.kind].Cert.Raw) {
				t.Fatal("the leaf is not first of two certificates")
			}
			if peer := x.wantPeer(t, methodName(c.kind)); !peer.Certificate().Equal(w.leaves[c.kind].Cert) {
				t.Error("another certificate")
			}
			good := x.octets
			x.remote.Trust = x.local.Chain[:1] // chains are not what is asked here
			for what, change := range map[string]func(*auth.Octets){
				"message":          func(o *auth.Octets) { o.Message = append(bytes.Clone(o.Message), 0) },
				"nonce":            func(o *auth.Octets) { o.PeerNonce = flipped(o.PeerNonce, 3) },
				"key":              func(o *auth.Octets) { o.SKp = flipped(o.SKp, 8) },
				"intermediate":     func(o *auth.Octets) { o.IntAuth = nil },
				"PRF":              func(o *auth.Octets) { o.PRF = proposal.PRFSHA384 },
				"identity payload": func(o *auth.Octets) { o.ID = identity(t, "other.example.net").Wire(false).Body() },
			} {
				x.octets = good
				change(&x.octets)
				if peer, err := x.verify(); err == nil || peer.Valid() {
					t.Errorf("%s differs, and %v is authenticated", what, peer)
				}
			}
		})
	}
}

func flipped(b []byte, bit int) []byte {
	b = bytes.Clone(b)
	b[bit/8] ^= 1 << (bit % 8)
	return b
}

// TestEveryFlippedBitFails: no bit of an AUTH payload is there for nothing.
func TestEveryFlippedBitFails(t *testing.T) {
	w := theWorld(t)
	all := []*exchange{shared(t).sign(t)}
	for _, c := range schemesToTry() {
		if c.kind == pki.RSA3072 || len(c.hashes) > 0 && (c.hashes[0] == auth.HashSHA384 || c.kind == pki.P384 || c.kind == pki.P521) {
			continue // the same code, and these are slow
		}
		x := certified(t, w.leaves[c.kind])
		x.hashes, x.local.PKCS1, x.local.Legacy, x.remote.Legacy = c.hashes, c.pkcs1, true, true
		// The very key is trusted: chains are not what is asked here.
		x.remote = auth.Remote{ID: x.id, Keys: []crypto.PublicKey{x.local.Signer.Public()}, Legacy: true}
		x.sign(t).certs = nil
		all = append(all, x)
	}
	for i, x := range all {
		good := x.auth
		for bit := range 8 * len(good.Data) {
			if bit%29 != 0 && (bit >= 8*16 || good.Method != wire.AuthDigitalSignature) {
				continue // all of the algorithm's, of the signatures some
			}
			x.auth = &wire.Auth{Method: good.Method, Data: flipped(good.Data, bit)}
			if peer, err := x.verify(); err == nil || peer.Valid() {
				t.Errorf("exchange %d, %v: bit %d flipped, and %v is authenticated", i, good.Method, bit, peer)
			}
		}
		for cut := range min(len(good.Data), 20) {
			x.auth = &wire.Auth{Method: good.Method, Data: good.Data[:cut]}
			if peer, err := x.verify(); err == nil || peer.Valid() {
				t.Errorf("exchange %d, %v: %d bytes of %d, and %v is authenticated", i, good.Method, cut, len(good.Data), peer)
			}
		}
		for m := range 20 {
			x.auth = &wire.Auth{Method: wire.AuthMethod(m), Data: good.Data}
			if peer, err := x.verify(); wire.AuthMethod(m) != good.Method && (err == nil || peer.Valid()) {
				t.Errorf("exchange %d, %v as %v, and %v is authenticated", i, good.Method, x.auth.Method, peer)
			}
		}
	}
}

// TestRFC7427_4_NoNotifyNoDigitalSignature: where no SIGNATURE_HASH_ALGORITHMS was
// received there is no method 14 (RFC 7427 3); keys that have no other method say so.
func TestRFC7427_4_NoNotifyNoDigitalSignature(t *testing.T) {
	w := theWorld(t)
	for kind, want := range map[pki.Kind]wire.AuthMethod{pki.P256: wire.AuthECDSA256, pki.P384: wire.AuthECDSA384, pki.P521: wire.AuthECDSA521} {
		x := certified(t, w.leaves[kind])
		for _, x.hashes = range [][]auth.HashAlgorithm{nil, {auth.HashSHA1}, {auth.HashIdentity}, {77}} {
			if x.sign(t); x.auth.Method != want {
				t.Errorf("%s with %v: %v, want %v", kind, x.hashes, x.auth.Method, want)
			}
		}
	}
	for _, kind := range []pki.Kind{pki.Ed25519, pki.RSA2048} {
		x := certified(t, w.leaves[kind])
		for _, hashes := range [][]auth.HashAlgorithm{nil, {auth.HashSHA1}} {
			_, _, err := x.local.Sign(x.octets, hashes, rand.Reader)
			wantReason(t, err, auth.HashNotOffered)
		}
	}
}

// TestHashOfTheCurve: of the hashes that a peer offers the one of the curve's
// length is taken, else any.
func TestHashOfTheCurve(t *testing.T) {
	w := theWorld(t)
	for _, c := range []struct {
		kind   pki.Kind
		hashes []auth.HashAlgorithm
		oid    byte // the last one of ecdsa-with-SHA256, 384, 512
	}{
		{pki.P256, auth.Hashes(), 2},
		{pki.P384, auth.Hashes(), 3},
		{pki.P521, auth.Hashes(), 4},
		{pki.P384, []auth.HashAlgorithm{auth.HashSHA512, auth.HashSHA256}, 2},
	} {
		x := certified(t, w.leaves[c.kind])
		x.hashes = c.hashes
		if x.sign(t); x.auth.Data[0] != 12 || x.auth.Data[12] != c.oid {
			t.Errorf("%s with %v: algorithm % x", c.kind, c.hashes, x.auth.Data[:13])
		}
		x.wantPeer(t, "ecdsa")
	}
}

// TestHashListsOnTheWire: numbers of two bytes; those that nobody knows do no harm.
func TestHashListsOnTheWire(t *testing.T) {
	data := auth.HashData(auth.Hashes())
	if want := []byte{0, 2, 0, 3, 0, 4, 0, 5}; !bytes.Equal(data, want) {
		t.Errorf("% x, want % x", data, want)
	}
	got := auth.ParseHashes([]byte{0, 2, 0x12, 0x34, 0})
	if len(got) != 2 || got[0] != auth.HashSHA256 || got[1] != 0x1234 {
		t.Errorf("%v", got)
	}
}

// TestSHA1OnlyWithLegacy: RFC 7296's RSA method signs with SHA-1; it is believed
// only where the operator has allowed it. SHA-2 inside the same method passes.
func TestSHA1OnlyWithLegacy(t *testing.T) {
	x := certified(t, theWorld(t).leaves[pki.RSA2048])
	x.hashes, x.local.Legacy = nil, true
	x.sign(t)
	x.wantRefused(t, auth.HashNotOffered)
	x.remote.Legacy = true
	x.wantPeer(t, "rsa")
}

// TestRawKeysRFC7670: the key itself is sent, or is known already.
func TestRawKeysRFC7670(t *testing.T) {
	w := theWorld(t)
	for _, kind := range pki.Kinds() {
		x := certified(t, w.leaves[kind])
		x.local.RawKey, x.local.Chain = true, nil
		x.remote = auth.Remote{ID: x.id}
		for _, k := range []pki.Kind{pki.P521, pki.Ed25519, pki.RSA3072, kind} {
			x.remote.Keys = append(x.remote.Keys, w.leaves[k].Key.Public())
		}
		x.sign(t)
		if len(x.certs) != 1 || x.certs[0].Encoding != wire.CertRawPublicKey || !bytes.Equal(x.certs[0].Data, w.leaves[kind].Cert.RawSubjectPublicKeyInfo) {
			t.Fatalf("%s: not one raw key in CERT", kind)
		}
		x.wantPeer(t, methodName(kind))
		shown := x.certs
		x.certs = nil
		x.wantPeer(t, methodName(kind))
		x.certs, x.remote.Keys = shown, x.remote.Keys[:1]
		if kind != pki.P521 {
			x.wantRefused(t, auth.UnknownKey)
		}
	}
}
