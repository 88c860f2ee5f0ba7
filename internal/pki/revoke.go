package pki

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/ocsp"
)

// CRL makes a revocation list of e, issued at `from` and promised anew by `until`
// (zero: none is promised), with these certificates in it. More than one of e
// have rising numbers, by the second.
func (e *Entity) CRL(from, until time.Time, revoked ...*x509.Certificate) (*x509.RevocationList, error) {
	t := &x509.RevocationList{Number: big.NewInt(from.Unix()), ThisUpdate: from, NextUpdate: until}
	for _, c := range revoked {
		t.RevokedCertificateEntries = append(t.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: from})
	}
	der, err := x509.CreateRevocationList(rand.Reader, t, e.Cert, e.Key)
	if err != nil {
		return nil, fmt.Errorf("pki: sign a revocation list: %w", err)
	}
	return x509.ParseRevocationList(der)
}

// CRLPEM is a revocation list as PEM.
func CRLPEM(list *x509.RevocationList) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: list.Raw})
}

// OCSPStatus is what an OCSP response says of a certificate.
type OCSPStatus int

// The answers (RFC 6960 2.2).
const (
	Good    OCSPStatus = ocsp.Good
	Revoked OCSPStatus = ocsp.Revoked
	Unknown OCSPStatus = ocsp.Unknown
)

// OCSP makes a response of e about a certificate, in DER. e is the issuer itself,
// or a responder that issuer has delegated to (its certificate has the purpose
// OCSPSigning); e's key is RSA or ECDSA.
func (e *Entity) OCSP(about, issuer *x509.Certificate, status OCSPStatus, from, until time.Time) ([]byte, error) {
	t := ocsp.Response{
		Status: int(status), SerialNumber: about.SerialNumber,
		ThisUpdate: from, NextUpdate: until, RevokedAt: from,
	}
	if !e.Cert.Equal(issuer) {
		t.Certificate = e.Cert
	}
	der, err := ocsp.CreateResponse(issuer, e.Cert, t, e.Key)
	if err != nil {
		return nil, fmt.Errorf("pki: sign an OCSP response: %w", err)
	}
	return der, nil
}
