package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"time"
)

// Options say what a certificate holds. The zero value is a P-256 key, valid from
// an hour ago for a year, with no name in it at all.
type Options struct {
	// Key is the kind of key that is made. Signer is a key that exists already;
	// Public is a key of which the private part is nowhere (weak keys in tests),
	// the certificate then has no Key.
	Key    Kind
	Signer crypto.Signer
	Public crypto.PublicKey

	// Name is the common name. Subject replaces it by a whole name; RawSubject
	// replaces both by the DER of one (as auth.ParseIdentity makes it).
	Name       string
	Subject    pkix.Name
	RawSubject []byte

	// What stands in the subject alternative name.
	DNS, Emails []string
	IPs         []netip.Addr

	// From and Until bound the validity; zero: an hour ago, and a year after From.
	From, Until time.Time

	// Usage is the key usage; 0: digitalSignature, for authorities keyCertSign and
	// cRLSign. NoUsage leaves the extension out. Extended lists purposes; empty:
	// no extension. Unknown are purposes by number, such as ipsecIKE.
	Usage    x509.KeyUsage
	NoUsage  bool
	Extended []x509.ExtKeyUsage
	Unknown  []Purpose

	// Signature is the algorithm that the issuer signs with; 0: the usual one of
	// its key. Responder names the OCSP responder in the certificate.
	Signature x509.SignatureAlgorithm
	Responder string
}

// Purpose is an extended key usage by its object identifier.
type Purpose = []int

// IPsecIKE is id-kp-ipsecIKE (RFC 4945 5.1.3.12).
var IPsecIKE = Purpose{1, 3, 6, 1, 5, 5, 7, 3, 17}

// Entity is a certificate with its private key, and the certificates above it.
type Entity struct {
	Cert *x509.Certificate
	Key  crypto.Signer
	// Issuers are the certificates above Cert, the next one first, without the
	// root: what is sent behind the leaf.
	Issuers []*x509.Certificate
	// Root is the trust anchor above all of them; Cert itself for a root.
	Root *x509.Certificate
}

// New makes a root: an authority that signed itself.
func New(o Options) (*Entity, error) { return (*Entity)(nil).issue(o, true) }

// Authority makes an authority below e.
func (e *Entity) Authority(o Options) (*Entity, error) {
	if e == nil {
		return nil, errors.New("pki: no issuer")
	}
	return e.issue(o, true)
}

// Issue makes a certificate of an end entity below e.
func (e *Entity) Issue(o Options) (*Entity, error) {
	if e == nil {
		return nil, errors.New("pki: no issuer")
	}
	return e.issue(o, false)
}

// SelfSigned makes a certificate of an end entity that signed itself.
func SelfSigned(o Options) (*Entity, error) { return (*Entity)(nil).issue(o, false) }

// Chain is Cert with the certificates above it, without the root.
func (e *Entity) Chain() []*x509.Certificate {
	return append([]*x509.Certificate{e.Cert}, e.Issuers...)
}

func (e *Entity) issue(o Options, authority bool) (*Entity, error) {
	signer, public, err := o.key()
	if err != nil {
		return nil, err
	}
	t, err := o.template(authority)
	if err != nil {
		return nil, err
	}
	parent, by := t, signer
	if e != nil {
		parent, by = e.Cert, e.Key
	}
	if by == nil {
		return nil, errors.New("pki: the issuer has no private key")
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, public, by)
	if err != nil {
		return nil, fmt.Errorf("pki: sign a certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("pki: read the certificate that was made: %w", err)
	}
	made := &Entity{Cert: cert, Key: signer, Root: cert}
	if e != nil {
		made.Root = e.Root
		if e.Cert != e.Root {
			made.Issuers = e.Chain()
		}
	}
	return made, nil
}

func (o Options) key() (crypto.Signer, crypto.PublicKey, error) {
	switch {
	case o.Public != nil:
		return nil, o.Public, nil
	case o.Signer != nil:
		return o.Signer, o.Signer.Public(), nil
	}
	signer, err := NewKey(o.Key)
	if err != nil {
		return nil, nil, err
	}
	return signer, signer.Public(), nil
}

func (o Options) template(authority bool) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, fmt.Errorf("pki: serial number: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)), Subject: o.Subject, RawSubject: o.RawSubject,
		NotBefore: o.From, NotAfter: o.Until,
		DNSNames: o.DNS, EmailAddresses: o.Emails,
		ExtKeyUsage: o.Extended, SignatureAlgorithm: o.Signature,
		BasicConstraintsValid: true, IsCA: authority,
	}
	if o.Name != "" {
		t.Subject = pkix.Name{CommonName: o.Name}
	}
	if t.NotBefore.IsZero() {
		t.NotBefore = time.Now().Add(-time.Hour)
	}
	if t.NotAfter.IsZero() {
		t.NotAfter = t.NotBefore.AddDate(1, 0, 0)
	}
	for _, ip := range o.IPs {
		t.IPAddresses = append(t.IPAddresses, net.IP(ip.AsSlice()))
	}
	for _, p := range o.Unknown {
		t.UnknownExtKeyUsage = append(t.UnknownExtKeyUsage, p)
	}
	if o.Responder != "" {
		t.OCSPServer = []string{o.Responder}
	}
	switch {
	case o.NoUsage:
	case o.Usage != 0:
		t.KeyUsage = o.Usage
	case authority:
		t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	default:
		t.KeyUsage = x509.KeyUsageDigitalSignature
	}
	return t, nil
}

// CertPEM is Cert alone.
func (e *Entity) CertPEM() []byte { return block("CERTIFICATE", e.Cert.Raw) }

// ChainPEM is Cert and the certificates above it, without the root.
func (e *Entity) ChainPEM() (out []byte) {
	for _, c := range e.Chain() {
		out = append(out, block("CERTIFICATE", c.Raw)...)
	}
	return out
}

// RootPEM is the trust anchor.
func (e *Entity) RootPEM() []byte { return block("CERTIFICATE", e.Root.Raw) }

// KeyPEM is the private key, as PKCS #8 in clear.
func (e *Entity) KeyPEM() ([]byte, error) {
	if e.Key == nil {
		return nil, errors.New("pki: the certificate has no private key here")
	}
	der, err := x509.MarshalPKCS8PrivateKey(e.Key)
	if err != nil {
		return nil, fmt.Errorf("pki: write the private key: %w", err)
	}
	return block("PRIVATE KEY", der), nil
}

// PublicPEM is the public key, as SubjectPublicKeyInfo.
func (e *Entity) PublicPEM() []byte { return block("PUBLIC KEY", e.Cert.RawSubjectPublicKeyInfo) }

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
