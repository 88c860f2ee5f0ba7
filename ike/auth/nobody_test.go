package auth_test

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"testing"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/pki"
)

// refusedWith is what Verify says to an exchange whose AUTH does not hold. A signature
// that "does not hold", by a kind of key, was verified with such a key: nothing else
// says so.
func refusedWith(t *testing.T, x *exchange, r auth.Remote) auth.Error {
	t.Helper()
	peer, err := r.Verify(x.id, x.certs, x.auth, x.octets, x.now)
	var e *auth.Error
	if peer.Valid() || !errors.As(err, &e) {
		t.Fatalf("%v, %v", peer, err)
	}
	return *e
}

// TestNobodyIsVerifiedWithTheSamePrimitive: to a stranger that does not know a secret,
// or signs with a key of its own, a name that is configured and one that is not say the
// same, by the same kind of key: the same was computed.
func TestNobodyIsVerifiedWithTheSamePrimitive(t *testing.T) {
	w := theWorld(t)
	for _, c := range schemesToTry() {
		x := certified(t, w.leaves[c.kind])
		x.hashes, x.local.PKCS1, x.local.Legacy = c.hashes, c.pkcs1, true
		x.sign(t)
		x.octets.PeerNonce = []byte("another nonce of 32 bytes or so.")
		anchors := []*x509.Certificate{w.root.Cert}
		nobody := auth.Nobody(x.auth, anchors)
		shown := x.certs
		for name, certs := range map[string][]*wire.Cert{"certificate": shown, "no CERT": nil} {
			t.Run(fmt.Sprintf("%s/%v/%v/%s", c.kind, c.method, c.hashes, name), func(t *testing.T) {
				known := auth.Remote{ID: x.id, Trust: anchors}
				if x.certs = certs; certs == nil {
					// What the stranger signs with is not shown: this end has its own.
					known = auth.Remote{ID: x.id, Keys: []crypto.PublicKey{w.leaves[c.kind].Key.Public()}}
				}
				want, got := refusedWith(t, x, known), refusedWith(t, x, nobody)
				if want.Reason != auth.AuthFailed || got.Reason != want.Reason || got.Theirs != want.Theirs || got.Early || want.Early {
					t.Errorf("the peer: %s (early %t); nobody: %s (early %t)", want.Error(), want.Early, got.Error(), got.Early)
				}
			})
		}
	}
	x := shared(t)
	x.local.PSK = append([]byte("not "), secret...)
	x.sign(t)
	for _, r := range []auth.Remote{{PSK: secret}, auth.Nobody(x.auth, nil)} {
		if e := refusedWith(t, x, r); e.Reason != auth.AuthFailed || e.Early {
			t.Errorf("%v by pre-shared key: %s", r, e.Error())
		}
	}
}

// TestNobodyGoesUpToTheAnchors: certificates of a stranger's own making are held
// against the same anchors, and a good one is good for nobody as well.
func TestNobodyGoesUpToTheAnchors(t *testing.T) {
	w := theWorld(t)
	anchors := []*x509.Certificate{w.root.Cert}
	own := must[*pki.Entity](t)(w.stranger.Issue(named()))
	x := certified(t, own).sign(t)
	known := auth.Remote{ID: x.id, Trust: anchors}
	if want, got := refusedWith(t, x, known), refusedWith(t, x, auth.Nobody(x.auth, anchors)); got.Error() != want.Error() || want.Early || got.Early {
		t.Errorf("the peer: %s; nobody: %s", want.Error(), got.Error())
	}
	x = certified(t, w.leaves[pki.P256]).sign(t)
	x.octets.SKp = []byte("another key of the exchange")
	if e := refusedWith(t, x, auth.Nobody(x.auth, anchors)); e.Reason != auth.AuthFailed {
		t.Errorf("a good certificate, and somebody else's signature: %s", e.Error())
	}
}

// TestEarlyRefusals: whoever proves itself by what is not configured is refused before
// anything is computed, and that is said, so that it can be made up for.
func TestEarlyRefusals(t *testing.T) {
	w := theWorld(t)
	root := []*x509.Certificate{w.root.Cert}
	rsaKey := []crypto.PublicKey{w.leaves[pki.RSA2048].Key.Public()}
	signed, mac := certified(t, w.leaves[pki.P256]).sign(t), shared(t).sign(t)
	unshown := certified(t, w.leaves[pki.P256]).sign(t)
	unshown.certs = nil
	for _, c := range []struct {
		name string
		x    *exchange
		r    auth.Remote
	}{
		{"a signature for a secret", signed, auth.Remote{PSK: secret}},
		{"a MAC for a certificate", mac, auth.Remote{Trust: root}},
		{"a certificate for a raw key", signed, auth.Remote{Keys: rsaKey}},
		{"no certificate", unshown, auth.Remote{Trust: root}},
		{"another kind of key", unshown, auth.Remote{Keys: rsaKey}},
	} {
		if e := refusedWith(t, c.x, c.r); !e.Early {
			t.Errorf("%s: %s is not early", c.name, e.Error())
		}
		if e := refusedWith(t, c.x, auth.Nobody(c.x.auth, nil)); e.Early && c.x != signed {
			t.Errorf("%s: nobody refuses early, too: %s", c.name, e.Error())
		}
	}
}
