package ike

import (
	"crypto/x509"
	"testing"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/wire"
)

// TestCertRequestsNameEachAuthorityOnce: each peer's authorities are read by
// themselves. Named sixteen times, one would take the place of all others.
func TestCertRequestsNameEachAuthorityOnce(t *testing.T) {
	one, two := newRoot(t), newRoot(t)
	var peers []*peer
	for i := range 40 {
		root := one
		if i == 39 {
			root = two
		}
		again, err := x509.ParseCertificate(root.Cert.Raw)
		if err != nil {
			t.Fatal(err)
		}
		peers = append(peers, &peer{Peer: &Peer{Remotely: auth.Remote{Trust: []*x509.Certificate{again}}}})
	}
	q, ok := certRequests(peers)[0].(*wire.CertReq)
	if !ok || len(q.Authorities) != 40 {
		t.Errorf("%d bytes of authorities, want 40", len(q.Authorities))
	}
}
