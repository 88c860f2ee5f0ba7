package auth

import (
	"crypto/sha1" //nolint:gosec // RFC 7296 3.7 names trust anchors by SHA-1; nothing is believed by it
	"crypto/x509"
	"slices"

	"github.com/adit-ipsec/adit/ike/wire"
)

// Requests are the CERTREQ payloads that say what the peer is believed by; none
// with a pre-shared key alone. RFC 7296 3.7: the field "is a concatenated list of
// SHA-1 hashes of the public keys of trusted Certification Authorities (CAs). Each is
// encoded as the SHA-1 hash of the Subject Public Key Info element". For raw public
// keys (RFC 7670 3) there is no authority to name.
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

// Answers tells whether these CERTREQ payloads ask for what l has: an authority
// above its certificate, or a raw key. No request at all asks for anything.
func (l Local) Answers(requests []*wire.CertReq) bool {
	if len(requests) == 0 || l.Signer == nil {
		return true
	}
	return slices.ContainsFunc(requests, func(q *wire.CertReq) bool {
		if l.RawKey || q.Encoding != wire.CertX509Signature {
			return l.RawKey && q.Encoding == wire.CertRawPublicKey
		}
		for rest := q.Authorities; len(rest) >= sha1.Size; rest = rest[sha1.Size:] {
			if l.below(rest[:sha1.Size]) {
				return true
			}
		}
		return false
	})
}

// below: the authority of this hash stands above the leaf, or is the leaf itself.
func (l Local) below(hash []byte) bool {
	above := l.Chain
	if l.Anchor != nil {
		above = append(slices.Clone(above), l.Anchor)
	}
	return slices.ContainsFunc(above, func(c *x509.Certificate) bool {
		h := authorityHash(c)
		return same(h[:], hash)
	})
}

// Choose is the first of several credentials that the peer asks for; where it asks
// for none of them, the first: to RFC 7296 3.7 a request is a hint of what would be
// preferred, and no reason to fail.
func Choose(have []Local, requests []*wire.CertReq) (Local, bool) {
	for _, l := range have {
		if l.Answers(requests) {
			return l, true
		}
	}
	if len(have) == 0 {
		return Local{}, false
	}
	return have[0], true
}
