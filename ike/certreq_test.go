package ike

import (
	"crypto/x509"
	"slices"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/pki"
)

// TestRFC7296_3_7_ARequestForAnotherAuthority: a CERTREQ that names no authority of this
// end's, or nothing that there is, does not keep its certificate back. "If no
// certificates exist, then the CERTREQ is ignored. This is not an error condition of the
// protocol. There may be cases where there is a preferred CA sent in the CERTREQ, but an
// alternate might be acceptable".
func TestRFC7296_3_7_ARequestForAnotherAuthority(t *testing.T) {
	for name, change := range map[string]func(*letter) bool{
		"another authority": func(l *letter) bool {
			q := wire.First[*wire.CertReq](l.Payloads)
			if q == nil {
				return false
			}
			q.Authorities = slices.Repeat([]byte{7}, 20)
			return true
		},
		"half an authority": func(l *letter) bool {
			q := wire.First[*wire.CertReq](l.Payloads)
			if q == nil {
				return false
			}
			q.Authorities = q.Authorities[:10]
			return true
		},
		"another encoding": func(l *letter) bool {
			q := wire.First[*wire.CertReq](l.Payloads)
			if q == nil {
				return false
			}
			q.Encoding = wire.CertHashURL
			return true
		},
		"none": func(l *letter) bool { return l.drop(wire.PayloadCERTREQ) },
	} {
		for _, by := range []string{"A", "B"} {
			t.Run(name+"/"+by, func(t *testing.T) {
				r, a, b := pair(t, func(pa, pb *Peer) { certify(t, pa, pb, newRoot(t), pki.P256) })
				bad, changed := a, false
				if by == "B" {
					bad = b
				}
				r.impair(bad, func(l *letter) bool { c := change(l); changed = changed || c; return c })
				a.step(Initiate{Peer: "B"})
				r.run(time.Second)
				r.wantUp(a, b, 1)
				if !changed {
					t.Error("there was no CERTREQ to change")
				}
			})
		}
	}
}

// TestCertRequestsNameEachAuthorityOnce: each peer's authorities are read by
// themselves. Named sixteen times, one would take the place of all others.
func TestCertRequestsNameEachAuthorityOnce(t *testing.T) {
	one, two := newRoot(t), newRoot(t)
	var k kind
	for i := range 40 {
		root := one
		if i == 39 {
			root = two
		}
		again, err := x509.ParseCertificate(root.Cert.Raw)
		if err != nil {
			t.Fatal(err)
		}
		addTrust(&k.trusts, auth.Remote{Trust: []*x509.Certificate{again}})
	}
	q, ok := trustsOf([]*kind{&k, {trusts: k.trusts}}).Requests()[0].(*wire.CertReq)
	if !ok || len(q.Authorities) != 40 {
		t.Errorf("%d bytes of authorities, want 40", len(q.Authorities))
	}
}
