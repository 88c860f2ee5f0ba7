package auth

import "strings"

// Reason says in one word why somebody is not authenticated: for counters and
// scripts. What goes to the peer is AUTHENTICATION_FAILED in every case.
type Reason string

// The reasons.
const (
	// WrongIdentity: the peer is not who it must be, or its certificate does not
	// hold the identity that it claims.
	WrongIdentity Reason = "wrong_identity"
	// BadIdentity: the identity is none: wrong length, or a type that is not known.
	BadIdentity Reason = "bad_identity"
	// AuthFailed: the proof does not hold. A wrong secret and a wrong key look alike.
	AuthFailed Reason = "auth_failed"
	// UnsupportedMethod: a method or an algorithm that this end does not know, does
	// not allow, or is not configured for.
	UnsupportedMethod Reason = "unsupported_method"
	// HashNotOffered: the ends have no hash algorithm for signatures in common.
	HashNotOffered Reason = "hash_not_offered"
	// WeakKey: RSA below 2048 bits or with an exponent below 65537, or a weak PSK.
	WeakKey Reason = "weak_key"
	// NoCertificate: one is needed and there is none.
	NoCertificate Reason = "no_certificate"
	// BadCertificate: it cannot be read, or breaks a rule of RFC 5280.
	BadCertificate Reason = "bad_certificate"
	// CertificateEncoding: a CERT payload that is neither X.509, nor a raw key, nor
	// OCSP.
	CertificateEncoding Reason = "certificate_encoding"
	// WrongUsage: the certificate is for something else (RFC 4945 5.1.3).
	WrongUsage Reason = "wrong_usage"
	// UnknownCA: no trust anchor stands above the certificate.
	UnknownCA Reason = "unknown_ca"
	// UnknownKey: a raw public key that is not configured.
	UnknownKey Reason = "unknown_key"
	// Expired and NotYetValid: a certificate's time, by this end's clock.
	Expired     Reason = "expired"
	NotYetValid Reason = "not_yet_valid"
	// Revoked: its issuer says so. RevocationUnknown: nobody says anything, and the
	// policy is strict.
	Revoked           Reason = "revoked"
	RevocationUnknown Reason = "revocation_unknown"
	// NoCredentials: this end has nothing to prove itself by.
	NoCredentials Reason = "no_credentials"
)

// Error is why somebody is not authenticated. It holds names of algorithms,
// identities and certificate names; never a secret, and no byte of a key.
type Error struct {
	Reason Reason
	Text   string // a sentence
	// What the ends differ in, and what would most nearly fix it; may be "".
	Theirs, Ours, Fix string
	// Early: the proof is of a kind that is not configured, and nothing was computed.
	// Who must not find out by the time of the answer who is configured goes on with
	// [Nobody].
	Early bool
}

// Error is one line: reason, text, both sides, the fix.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(string(e.Reason) + ": " + e.Text)
	if e.Theirs != "" {
		b.WriteString("; theirs " + e.Theirs)
	}
	if e.Ours != "" {
		b.WriteString("; ours " + e.Ours)
	}
	if e.Fix != "" {
		b.WriteString("; " + e.Fix)
	}
	return b.String()
}
