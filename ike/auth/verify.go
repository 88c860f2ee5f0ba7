package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"math/big"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
)

// verifySignature proves a peer by its certificate, or by a raw public key.
func (r Remote) verifySignature(id Identity, certs []*wire.Cert, a *wire.Auth, octets []byte, now time.Time) (Peer, error) {
	if len(r.Trust) == 0 && len(r.Keys) == 0 {
		return Peer{}, r.notByThis(a.Method)
	}
	shown, err := readCerts(certs)
	if err != nil {
		return Peer{}, err
	}
	switch {
	case shown.raw != nil:
		return r.verifyRaw(id, shown.raw, a, octets)
	case shown.leaf != nil:
		return r.verifyCertified(id, shown, a, octets, now)
	}
	return r.verifyUnshown(id, a, octets, now)
}

// verifyRaw: the peer shows a key, and it must be one that is configured.
func (r Remote) verifyRaw(id Identity, key crypto.PublicKey, a *wire.Auth, octets []byte) (Peer, error) {
	for _, ours := range r.Keys {
		if samePublic(ours, key) {
			return r.verifyKey(id, key, a, octets)
		}
	}
	return Peer{}, &Error{Reason: UnknownKey, Text: "the peer's raw public key is not one that is configured for it", Theirs: id.String() + " with " + keyName(key), Ours: r.ways(), Fix: "configure the peer's public key"}
}

func (r Remote) verifyKey(id Identity, key crypto.PublicKey, a *wire.Auth, octets []byte) (Peer, error) {
	if err := r.verifyWith(key, a, octets); err != nil {
		return Peer{}, err
	}
	return Peer{&proof{id: id, method: keyName(key)}}, nil
}

func (r Remote) verifyCertified(id Identity, shown *presented, a *wire.Auth, octets []byte, now time.Time) (Peer, error) {
	if len(r.Trust) == 0 {
		return Peer{}, &Error{Early: true, Reason: UnknownCA, Text: "the peer shows a certificate, and no trust anchor is configured for it", Theirs: certName(shown.leaf), Ours: r.ways(), Fix: "configure the authority's certificate"}
	}
	chains, err := r.checkCertificate(id, shown, now)
	if err != nil {
		return Peer{}, err
	}
	if err := r.verifyWith(shown.leaf.PublicKey, a, octets); err != nil {
		return Peer{}, err
	}
	// Lists come last: they are long, and whoever has seen a certificate can show it.
	if chains, err = r.Revocation.standing(chains, shown.ocsp, now); err != nil {
		return Peer{}, err
	}
	return Peer{&proof{id: id, method: keyName(shown.leaf.PublicKey), cert: shown.leaf, chains: chains}}, nil
}

// verifyUnshown: the peer sends no CERT, since it takes it that its key is known
// here. RFC 7296 3.6: CERT payloads "SHOULD be included in an exchange if
// certificates are available to the sender". Raw keys are tried in turn, and
// certificates of the peer itself that stand among the trust anchors.
func (r Remote) verifyUnshown(id Identity, a *wire.Auth, octets []byte, now time.Time) (Peer, error) {
	var first *Error
	early := true
	note := func(err error) {
		var e *Error
		if errors.As(err, &e) {
			early = early && e.Reason == UnsupportedMethod
			if first == nil {
				first = e
			}
		}
	}
	for _, key := range r.Keys {
		peer, err := r.verifyKey(id, key, a, octets)
		if err == nil {
			return peer, nil
		}
		note(err)
	}
	for _, anchor := range r.Trust {
		if anchor.IsCA || checkHolds(anchor, id) != nil {
			continue
		}
		peer, err := r.verifyCertified(id, &presented{leaf: anchor}, a, octets, now)
		if err == nil {
			return peer, nil
		}
		note(err)
	}
	if first != nil {
		with := *first
		with.Early = early
		return Peer{}, &with
	}
	return Peer{}, &Error{Early: true, Reason: NoCertificate, Text: "the peer signs and sends no certificate", Theirs: a.Method.String(), Ours: r.ways(), Fix: "have the peer send its certificate (with strongSwan: send_cert = always)"}
}

// verifyWith verifies the AUTH payload by a key.
func (r Remote) verifyWith(key crypto.PublicKey, a *wire.Auth, octets []byte) error {
	kind, err := familyOf(key)
	if err != nil {
		return err
	}
	ok := false
	switch a.Method {
	case wire.AuthDigitalSignature:
		s, signature, err := splitSignature(a.Data)
		if err != nil {
			return err
		}
		if s.family != kind {
			return &Error{Reason: UnsupportedMethod, Text: "the signature is of another kind than the key", Theirs: s.name, Ours: keyName(key)}
		}
		ok = s.verify(key, s.digestOf(octets), signature)
	case wire.AuthECDSA256, wire.AuthECDSA384, wire.AuthECDSA521:
		k, isECDSA := key.(*ecdsa.PublicKey)
		if !isECDSA || curveOf(k).method != a.Method {
			return &Error{Reason: UnsupportedMethod, Text: "the signature is of another kind than the key", Theirs: a.Method.String(), Ours: keyName(key)}
		}
		ok = verifyFixedECDSA(k, a.Data, octets)
	case wire.AuthRSA:
		k, isRSA := key.(*rsa.PublicKey)
		if !isRSA {
			return &Error{Reason: UnsupportedMethod, Text: "the signature is of another kind than the key", Theirs: a.Method.String(), Ours: keyName(key)}
		}
		if ok, err = r.verifyRSA(k, a.Data, octets); err != nil {
			return err
		}
	default:
		return &Error{Reason: UnsupportedMethod, Text: "an authentication method that is not supported", Theirs: a.Method.String(), Ours: r.ways()}
	}
	if !ok {
		return &Error{Reason: AuthFailed, Text: "the peer's signature does not hold", Theirs: a.Method.String() + " by " + keyName(key), Fix: "check that the peer signs with the key of the certificate that it sends"}
	}
	return nil
}

// sha1Algorithms are known and refused by name.
var sha1Algorithms = raw("300d06092a864886f70d0101050500", "300b06092a864886f70d010105", "300906072a8648ce3d0401", "300d06092a864886f70d01010a3000")

// splitSignature takes the data of method 14 apart (RFC 7427 3): a length byte, an
// AlgorithmIdentifier, the signature.
func splitSignature(data []byte) (scheme, []byte, error) {
	if len(data) == 0 || len(data) <= 1+int(data[0]) {
		return scheme{}, nil, &Error{Reason: AuthFailed, Text: "the AUTH payload is too short for a digital signature"}
	}
	algorithm, signature := data[1:1+int(data[0])], data[1+int(data[0]):]
	if s, ok := schemeOf(algorithm); ok {
		return s, signature, nil
	}
	for _, known := range sha1Algorithms {
		if known == string(algorithm) {
			return scheme{}, nil, &Error{Reason: HashNotOffered, Text: "the peer signs with SHA-1, which was not offered", Theirs: HashSHA1.String(), Ours: hashNames(Hashes()), Fix: "let the peer sign with SHA-2"}
		}
	}
	return scheme{}, nil, &Error{
		Reason: UnsupportedMethod, Text: "a signature algorithm that is not on the list of those that are allowed",
		Theirs: "AlgorithmIdentifier " + hex.EncodeToString(algorithm[:min(len(algorithm), 96)]), Ours: schemeNames(),
		Fix: "RSASSA-PSS needs all its parameters explicit, and a salt as long as the hash",
	}
}

func schemeNames() (names string) {
	for i, s := range schemes {
		if i > 0 {
			names += ", "
		}
		names += s.name
	}
	return names
}

// verify holds a signature against what was signed; the key is of the family.
func (s scheme) verify(key crypto.PublicKey, digest, signature []byte) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if s.pss {
			return rsa.VerifyPSS(key, s.digest, digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
		return rsa.VerifyPKCS1v15(key, s.digest, digest, signature) == nil
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, digest, signature)
	case ed25519.PublicKey:
		return ed25519.Verify(key, digest, signature)
	}
	return false
}

// verifyFixedECDSA verifies r | s of RFC 4754 7: each of the curve's length.
func verifyFixedECDSA(key *ecdsa.PublicKey, signature, octets []byte) bool {
	c := curveOf(key)
	if len(signature) != 2*c.bytes {
		return false
	}
	r, s := new(big.Int).SetBytes(signature[:c.bytes]), new(big.Int).SetBytes(signature[c.bytes:])
	return ecdsa.Verify(key, scheme{digest: c.hash}.digestOf(octets), r, s)
}

// verifyRSA verifies method 1. Its hash is named inside the signature (RFC 7296
// 3.8: implementations "SHOULD support signatures that use SHA-1", which are
// believed with Legacy only: a deviation, since SHA-1 is broken). crypto/rsa
// compares the whole padding with the one that each hash would give.
func (r Remote) verifyRSA(key *rsa.PublicKey, signature, octets []byte) (bool, error) {
	for _, h := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512, crypto.SHA1} {
		if rsa.VerifyPKCS1v15(key, h, scheme{digest: h}.digestOf(octets), signature) != nil {
			continue
		}
		if h == crypto.SHA1 && !r.Legacy {
			return false, &Error{Reason: HashNotOffered, Text: "the peer signs with SHA-1", Theirs: "RSA with sha1", Ours: hashNames(Hashes()), Fix: "enable RFC 7427 signatures on the peer, or allow_legacy for it"}
		}
		return true, nil
	}
	return false, nil
}

// presented is what the peer's CERT payloads hold.
type presented struct {
	leaf   *x509.Certificate
	raw    crypto.PublicKey
	others []*x509.Certificate
	ocsp   [][]byte
}

// maxCerts is how many CERT payloads are looked at.
const maxCerts = 16

// readCerts takes the CERT payloads apart: X.509 certificates, the leaf first; or
// one raw public key; and OCSP responses. Everything else is refused: what is named
// by hash and URL is never fetched.
func readCerts(certs []*wire.Cert) (*presented, error) {
	p := &presented{}
	if len(certs) > maxCerts {
		return nil, &Error{Reason: BadCertificate, Text: "the peer sends too many certificates"}
	}
	for _, c := range certs {
		if err := p.add(c); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *presented) add(c *wire.Cert) error {
	switch c.Encoding {
	case wire.CertX509Signature:
		cert, err := x509.ParseCertificate(bytes.Clone(c.Data))
		switch {
		case err != nil:
			return &Error{Reason: BadCertificate, Text: "the peer's certificate cannot be read: " + cut(err.Error())}
		case p.raw != nil:
			return &Error{Reason: BadCertificate, Text: "the peer sends a raw public key and a certificate"}
		case p.leaf == nil:
			p.leaf = cert
		default:
			p.others = append(p.others, cert)
		}
	case wire.CertRawPublicKey:
		key, err := x509.ParsePKIXPublicKey(c.Data)
		switch {
		case err != nil:
			return &Error{Reason: BadCertificate, Text: "the peer's raw public key cannot be read: " + cut(err.Error())}
		case p.raw != nil || p.leaf != nil:
			// RFC 7670 3: one key is what the peer signs with.
			return &Error{Reason: BadCertificate, Text: "the peer sends more than one key"}
		}
		p.raw = key
	case wire.CertOCSPContent:
		p.ocsp = append(p.ocsp, bytes.Clone(c.Data))
	case wire.CertHashURL, wire.CertHashURLBundle:
		return &Error{Reason: CertificateEncoding, Text: "the peer names a certificate by hash and URL, and nothing is ever fetched", Theirs: c.Encoding.String(), Fix: "let the peer send its certificate whole"}
	default:
		return &Error{Reason: CertificateEncoding, Text: "a certificate in an encoding that is not supported", Theirs: c.Encoding.String(), Ours: wire.CertX509Signature.String() + ", " + wire.CertRawPublicKey.String()}
	}
	return nil
}

// samePublic compares public keys.
func samePublic(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(x crypto.PublicKey) bool })
	return ok && b != nil && key.Equal(b)
}

// keyName is the kind of a key, for logs.
func keyName(key crypto.PublicKey) string {
	switch key.(type) {
	case *rsa.PublicKey:
		return "rsa"
	case *ecdsa.PublicKey:
		return "ecdsa"
	case ed25519.PublicKey:
		return "ed25519"
	}
	return "unknown key"
}
