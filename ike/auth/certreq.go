package auth

import (
	"crypto/sha1" //nolint:gosec // RFC 7296 3.7 names trust anchors by SHA-1; nothing is believed by it
	"crypto/x509"

	"github.com/adit-ipsec/adit/ike/wire"
)

// Requests are the CERTREQ payloads that say what the peer is believed by; none
// with a pre-shared key alone. RFC 7296 3.7: the field "is a concatenated list of
// SHA-1 hashes of the public keys of trusted Certification Authorities (CAs). Each is
// encoded as the SHA-1 hash of the Subject Public Key Info element". For raw public
// keys (RFC 7670 3) there is no authority to name.
//
// Of what a peer asks for nothing is read: this end has one credential for it, and that
// is sent. To RFC 7296 3.7 a request is what would be preferred, and no reason to fail.
func (r Remote) Requests() (requests []wire.Payload) {
	if len(r.Trust) > 0 {
		var hashes []byte
		for _, c := range r.Trust {
			h := authorityHash(c)
			hashes = append(hashes, h[:]...)
		}
		requests = append(requests, &wire.CertReq{Encoding: wire.CertX509Signature, Authorities: hashes})
	}
	if len(r.Keys) > 0 {
		requests = append(requests, &wire.CertReq{Encoding: wire.CertRawPublicKey})
	}
	return requests
}

func authorityHash(c *x509.Certificate) [sha1.Size]byte {
	return sha1.Sum(c.RawSubjectPublicKeyInfo) //nolint:gosec // as above
}
