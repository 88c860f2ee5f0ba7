package auth

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"
)

// askOCSP is what one response (RFC 6960) says of a certificate.
func (r Revocation) askOCSP(der []byte, c, issuer *x509.Certificate, now time.Time) (answer, string) {
	said, err := ocsp.ParseResponseForCert(der, c, issuer)
	if err != nil || !r.mayAnswer(said.Certificate, issuer, now) {
		return unknown, "a response that its issuer has not signed"
	}
	if !about(said, c, issuer) {
		return unknown, "a response about another issuer's certificate, or with a critical extension"
	}
	switch said.Status {
	case ocsp.Revoked:
		return revoked, "OCSP response of " + said.ThisUpdate.UTC().Format(time.RFC3339)
	case ocsp.Good:
		return current("OCSP response", said.ThisUpdate, said.NextUpdate, now)
	}
	return unknown, "an OCSP response that says unknown"
}

// mayAnswer holds RFC 6960 4.2.2.2, which x/crypto/ocsp does not: a delegated
// responder's certificate "MUST" have id-kp-OCSPSigning. Without this every
// certificate of an authority could vouch for every other. Its key is held to what
// all keys are held to, and a list that revokes it takes its word away (4.2.2.2.1
// leaves that to this end).
func (r Revocation) mayAnswer(responder, issuer *x509.Certificate, now time.Time) bool {
	if responder == nil || same(responder.Raw, issuer.Raw) {
		return true
	}
	if _, err := familyOf(responder.PublicKey); err != nil || checkTime(responder, now) != nil ||
		!same(responder.RawIssuer, issuer.RawSubject) || !slices.Contains(responder.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) {
		return false
	}
	return !slices.ContainsFunc(r.CRLs, func(list *x509.RevocationList) bool {
		a, _ := r.askCRL(list, responder, issuer, now)
		return a == revoked
	})
}

// What about reads of a response (RFC 6960 4.2.1); what stands behind the members
// that are named here is left alone.
type (
	responseData struct {
		Version    int `asn1:"optional,default:0,explicit,tag:0"`
		Responder  asn1.RawValue
		Produced   time.Time `asn1:"generalized"`
		Statuses   []singleResponse
		Extensions []pkix.Extension `asn1:"optional,explicit,tag:1"`
	}
	singleResponse struct{ ID certID }
	certID         struct {
		Hash              pkix.AlgorithmIdentifier
		NameHash, KeyHash []byte
		Serial            *big.Int
	}
)

// IsOCSP tells whether der is a response that says something of a certificate: its form
// alone, and neither of whom nor whether it is signed. What is none is never believed.
func IsOCSP(der []byte) bool {
	var whole struct {
		Status   asn1.Enumerated
		Response struct {
			Type  asn1.ObjectIdentifier
			Basic []byte
		} `asn1:"explicit,tag:0"`
	}
	var basic struct {
		Data      responseData
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	if rest, err := asn1.Unmarshal(der, &whole); err != nil || len(rest) > 0 || whole.Status != asn1.Enumerated(ocsp.Success) {
		return false
	}
	rest, err := asn1.Unmarshal(whole.Response.Basic, &basic)
	return err == nil && len(rest) == 0 && len(basic.Data.Statuses) > 0
}

// about tells whether the status that x/crypto/ocsp has picked, the first one of
// this serial number, is that of this certificate. RFC 6960 3.2: "The certificate
// identified in a received response corresponds to the certificate that was
// identified in the corresponding request". A serial number alone does not identify
// it: a responder that answers for two authorities by one key says good of a number
// of the one, and that must not be taken for the same number of the other. Nor does
// x/crypto/ocsp look at the extensions of the response as a whole.
func about(said *ocsp.Response, c, issuer *x509.Certificate) bool {
	var data responseData
	var key struct {
		Algorithm pkix.AlgorithmIdentifier
		Bits      asn1.BitString
	}
	if _, err := asn1.Unmarshal(said.TBSResponseData, &data); err != nil || !said.IssuerHash.Available() {
		return false
	}
	if _, err := asn1.Unmarshal(issuer.RawSubjectPublicKeyInfo, &key); err != nil {
		return false
	}
	if slices.ContainsFunc(data.Extensions, func(e pkix.Extension) bool { return e.Critical }) {
		return false
	}
	i := slices.IndexFunc(data.Statuses, func(s singleResponse) bool { return s.ID.Serial.Cmp(c.SerialNumber) == 0 })
	if i < 0 {
		return false
	}
	by, id := scheme{digest: said.IssuerHash}, data.Statuses[i].ID
	return same(id.NameHash, by.digestOf(issuer.RawSubject)) && same(id.KeyHash, by.digestOf(key.Bits.RightAlign()))
}
