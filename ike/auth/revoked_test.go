package auth_test

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/pki"
)

// TestNewsOfRevocation: what becomes known behind the proof is held against the chain
// that the peer was believed by, and only "revoked" ends anything.
func TestNewsOfRevocation(t *testing.T) {
	w := theWorld(t)
	leaf, now := w.leaves[pki.P256].Cert, time.Now()
	peer := certified(t, w.leaves[pki.P256]).sign(t).wantPeer(t, "ecdsa")
	psk := shared(t).sign(t).wantPeer(t, "psk")
	response := must[[]byte](t)(w.mid.OCSP(leaf, w.mid.Cert, pki.Revoked, now, now.Add(time.Hour)))
	twin := must[*pki.Entity](t)(pki.New(pki.Options{Name: "between"}))
	for _, c := range []struct {
		name    string
		r       auth.Revocation
		revoked bool
	}{
		{"nothing", auth.Revocation{}, false},
		{"the leaf", auth.Revocation{CRLs: crls(t, w.mid, now, time.Hour, leaf)}, true},
		{"the leaf, by a stale list", auth.Revocation{CRLs: crls(t, w.mid, now.Add(-2*time.Hour), time.Hour, leaf)}, true},
		{"the authority between", auth.Revocation{CRLs: crls(t, w.root, now, time.Hour, w.mid.Cert)}, true},
		{"the leaf, by a response", auth.Revocation{OCSP: [][]byte{response}}, true},
		{"another leaf", auth.Revocation{CRLs: crls(t, w.mid, now, time.Hour, w.leaves[pki.P384].Cert)}, false},
		{"a stale list without it", auth.Revocation{CRLs: crls(t, w.mid, now.Add(-2*time.Hour), time.Hour)}, false},
		{"a list of somebody of the same name", auth.Revocation{CRLs: crls(t, twin, now, time.Hour, leaf)}, false},
		{"a list of somebody else", auth.Revocation{CRLs: crls(t, w.stranger, now, time.Hour, leaf)}, false},
	} {
		for _, c.r.Policy = range []auth.Policy{auth.RevocationOff, auth.RevocationRelaxed, auth.RevocationStrict} {
			err := peer.Revoked(c.r, now)
			if c.revoked && c.r.Policy != auth.RevocationOff {
				wantReason(t, err, auth.Revoked)
			} else if err != nil {
				t.Errorf("%s, %v: %v", c.name, c.r.Policy, err)
			}
			for _, p := range []auth.Peer{psk, {}} {
				if err := p.Revoked(c.r, now); err != nil {
					t.Errorf("%s: %v has no certificate: %v", c.name, p, err)
				}
			}
		}
	}
}

// TestNewsOfOneWayUp: a peer that was believed by two ways stays while one is open,
// and a way that was closed when it came does not keep it.
func TestNewsOfOneWayUp(t *testing.T) {
	w := theWorld(t)
	cross := must[*pki.Entity](t)(w.stranger.Authority(pki.Options{Name: "between", Signer: w.mid.Key}))
	x := certified(t, w.leaves[pki.P256]).sign(t)
	x.certs = append(x.certs, cert(wire.CertX509Signature, cross.Cert.Raw))
	x.remote.Trust = append(x.remote.Trust, w.stranger.Cert)
	closed := crls(t, w.root, x.now, time.Hour, w.mid.Cert)
	news := auth.Revocation{Policy: auth.RevocationRelaxed, CRLs: closed}
	if err := x.wantPeer(t, "ecdsa").Revoked(news, x.now); err != nil {
		t.Errorf("one of two ways is revoked: %v", err)
	}
	x.remote.Revocation = news
	peer := x.wantPeer(t, "ecdsa")
	news.CRLs = crls(t, w.stranger, x.now, time.Hour, cross.Cert)
	wantReason(t, peer.Revoked(news, x.now), auth.Revoked)
}

// TestListsAreReadBehindTheSignature: lists are long, and whoever has seen a peer's
// certificate can show it: who cannot sign has no list read for it.
func TestListsAreReadBehindTheSignature(t *testing.T) {
	w := theWorld(t)
	x := certified(t, w.leaves[pki.P256])
	x.local.Signer = w.leaves[pki.RSA2048].Key
	x.local.Chain = []*x509.Certificate{w.leaves[pki.P256].Cert, w.mid.Cert}
	x.remote.Revocation = auth.Revocation{Policy: auth.RevocationRelaxed, CRLs: crls(t, w.mid, x.now, time.Hour, w.leaves[pki.P256].Cert)}
	x.sign(t).wantRefused(t, auth.UnsupportedMethod)
	x.local.Signer = must[*pki.Entity](t)(w.mid.Issue(named())).Key
	x.sign(t).wantRefused(t, auth.AuthFailed)
	x.local.Signer = w.leaves[pki.P256].Key
	x.sign(t).wantRefused(t, auth.Revoked)
}
