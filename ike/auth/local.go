package auth

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"io"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
)

// Local is who this end is, and what it proves it by: a pre-shared key, or a
// private key with a certificate, or with a raw public key.
type Local struct {
	ID  Identity // zero: the subject of the certificate
	PSK sad.Key
	// Chain is this end's certificate and those above it, the leaf first, as they
	// are sent; the trust anchor is not needed in it.
	Chain  []*x509.Certificate
	Signer crypto.Signer
	RawKey bool // sends the public key itself (RFC 7670), not Chain
	// PKCS1 signs with RSASSA-PKCS1-v1_5 where the default is RSASSA-PSS.
	PKCS1 bool
	// Legacy allows the RSA method of RFC 7296 with SHA-1, for peers that do not
	// know RFC 7427.
	Legacy bool
}

// Identity is what this end says in IDi or IDr: ID, where that is a distinguished
// name the certificate's own bytes, since peers compare them (RFC 4945 3.1.5);
// without ID the subject of the certificate.
func (l Local) Identity() Identity {
	if len(l.Chain) > 0 {
		subject := Identity{Kind: wire.IDDERASN1DN, Data: l.Chain[0].RawSubject}
		if l.ID.IsZero() && subject.check() == nil || l.ID.Equal(subject) {
			return subject
		}
	}
	return l.ID
}

// Check tells what a peer would find wrong with this end, before it is asked: a
// signer that is not the certificate's, a weak key, an identity that the
// certificate does not hold, no credential at all. The error is an *Error.
func (l Local) Check() error {
	if l.Identity().IsZero() {
		return &Error{Reason: BadIdentity, Text: "this end has no identity", Fix: "name one, or give a certificate"}
	}
	if l.Signer == nil {
		if len(l.PSK) == 0 {
			return &Error{Reason: NoCredentials, Text: "this end has neither a pre-shared key nor a private key"}
		}
		return nil
	}
	if _, err := familyOf(l.Signer.Public()); err != nil {
		return err
	}
	if l.RawKey {
		return nil
	}
	if len(l.Chain) == 0 {
		return &Error{Reason: NoCertificate, Text: "this end has a private key without a certificate", Fix: "give the certificate, or say that the raw key is to be used"}
	}
	if !samePublic(l.Signer.Public(), l.Chain[0].PublicKey) {
		return &Error{Reason: BadCertificate, Text: "the private key is not that of the certificate", Ours: certName(l.Chain[0]), Fix: "give the key that belongs to the first certificate"}
	}
	return checkHolds(l.Chain[0], l.Identity())
}

// method names what this end proves itself by, for the log: "psk", "ecdsa", ...
func (l Local) method() string {
	if l.Signer == nil {
		return "psk"
	}
	return keyName(l.Signer.Public())
}

// Sign makes this end's AUTH payload, and the CERT payloads in front of it. hashes
// are what the peer said in SIGNATURE_HASH_ALGORITHMS; none means that it does not
// know RFC 7427. With a private key the pre-shared key is not used.
//
// RFC 7296 3.6 has the leaf first: "If multiple certificates are sent, the first
// certificate MUST contain the public key associated with the private key used to
// sign the AUTH payload."
func (l Local) Sign(o Octets, hashes []HashAlgorithm, rand io.Reader) (*wire.Auth, []wire.Payload, error) {
	octets, err := o.octets()
	if err != nil {
		return nil, nil, err
	}
	if l.Signer == nil {
		if len(l.PSK) == 0 {
			return nil, nil, &Error{Reason: NoCredentials, Text: "this end has neither a pre-shared key nor a private key"}
		}
		return &wire.Auth{Method: wire.AuthSharedKey, Data: sharedKeyMAC(l.PSK, o.PRF, octets)}, nil, nil
	}
	certs, err := l.payloads()
	if err != nil {
		return nil, nil, err
	}
	a, err := l.sign(octets, hashes, rand)
	return a, certs, err
}

// payloads are the CERT payloads.
func (l Local) payloads() ([]wire.Payload, error) {
	if l.RawKey {
		der, err := x509.MarshalPKIXPublicKey(l.Signer.Public())
		if err != nil {
			return nil, &Error{Reason: UnsupportedMethod, Text: fmt.Sprintf("this end's public key: %v", err)}
		}
		return []wire.Payload{&wire.Cert{Encoding: wire.CertRawPublicKey, Data: der}}, nil
	}
	if len(l.Chain) == 0 {
		return nil, &Error{Reason: NoCertificate, Text: "this end has a private key without a certificate"}
	}
	var certs []wire.Payload
	for _, c := range l.Chain {
		certs = append(certs, &wire.Cert{Encoding: wire.CertX509Signature, Data: c.Raw})
	}
	return certs, nil
}

// Format prints no secret, for any verb.
func (l Local) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, l.String()) }

// String is the identity and the method.
func (l Local) String() string { return l.Identity().String() + " by " + l.method() }

// MarshalText is String.
func (l Local) MarshalText() ([]byte, error) { return []byte(l.String()), nil }
