package auth_test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/pki"
	"golang.org/x/crypto/ocsp"
)

// asked is the world seen by somebody who asks about revocation: a good word of the
// root about the authority between is there always.
type asked struct {
	*exchange
	w *pkiWorld
}

func ask(t *testing.T, policy auth.Policy) asked {
	t.Helper()
	w := theWorld(t)
	x := certified(t, w.leaves[pki.P256]).sign(t)
	x.remote.Revocation = auth.Revocation{Policy: policy, CRLs: crls(t, w.root, x.now, time.Hour)}
	return asked{x, w}
}

// want: "" for authenticated.
func (a asked) want(t *testing.T, what string, reason auth.Reason) {
	t.Helper()
	t.Run(what+"/"+a.remote.Revocation.Policy.String(), func(t *testing.T) {
		t.Helper()
		if reason == "" {
			a.wantPeer(t, "ecdsa")
			return
		}
		a.wantRefused(t, reason)
	})
}

// wantUnknown: strict refuses what is not known, relaxed lets it pass.
func wantUnknown(t *testing.T, what string, change func(a asked)) {
	t.Helper()
	for policy, reason := range map[auth.Policy]auth.Reason{auth.RevocationRelaxed: "", auth.RevocationStrict: auth.RevocationUnknown} {
		a := ask(t, policy)
		change(a)
		a.want(t, what, reason)
	}
}

// wantRevoked: it is refused wherever anybody asks.
func wantRevoked(t *testing.T, what string, change func(a asked)) {
	t.Helper()
	for policy, reason := range map[auth.Policy]auth.Reason{auth.RevocationOff: "", auth.RevocationRelaxed: auth.Revoked, auth.RevocationStrict: auth.Revoked} {
		a := ask(t, policy)
		change(a)
		a.want(t, what, reason)
	}
}

func (a asked) crl(t *testing.T, of *pki.Entity, from time.Time, valid time.Duration, revoked ...*x509.Certificate) {
	t.Helper()
	a.remote.Revocation.CRLs = append(a.remote.Revocation.CRLs, crls(t, of, from, valid, revoked...)...)
}

// TestRevocationByLists: RFC 5280 5 and 6.3, as far as lists of the issuer go.
func TestRevocationByLists(t *testing.T) {
	w := theWorld(t)
	leaf, now := w.leaves[pki.P256].Cert, time.Now()
	for _, policy := range []auth.Policy{auth.RevocationOff, auth.RevocationRelaxed, auth.RevocationStrict} {
		a := ask(t, policy)
		a.crl(t, w.mid, now, time.Hour, w.leaves[pki.P384].Cert)
		a.want(t, "a list without it", "")
	}
	wantUnknown(t, "no list", func(asked) {})
	wantUnknown(t, "a stale list", func(a asked) { a.crl(t, w.mid, now.Add(-2*time.Hour), time.Hour) })
	wantUnknown(t, "a list of tomorrow", func(a asked) { a.crl(t, w.mid, now.Add(24*time.Hour), time.Hour) })
	wantUnknown(t, "a list of somebody else", func(a asked) { a.crl(t, w.stranger, now, time.Hour, leaf) })
	wantUnknown(t, "a list of somebody of the same name", func(a asked) {
		twin := must[*pki.Entity](t)(pki.New(pki.Options{Name: "between"}))
		a.crl(t, twin, now, time.Hour, leaf)
	})
	wantUnknown(t, "a list of a part", func(a asked) {
		a.remote.Revocation.CRLs = append(a.remote.Revocation.CRLs, partial(t, w.mid, now, leaf))
	})
	wantUnknown(t, "a list without a next one", func(a asked) { a.remote.Revocation.CRLs = append(a.remote.Revocation.CRLs, endless(t, w.mid, now)) })
	wantRevoked(t, "a list with it", func(a asked) { a.crl(t, w.mid, now, time.Hour, w.leaves[pki.P384].Cert, leaf) })
	wantRevoked(t, "a stale list with it", func(a asked) { a.crl(t, w.mid, now.Add(-2*time.Hour), time.Hour, leaf) })
	wantRevoked(t, "one list with it and one without", func(a asked) {
		a.crl(t, w.mid, now.Add(-time.Minute), time.Hour, leaf)
		a.crl(t, w.mid, now, time.Hour)
	})
	wantRevoked(t, "a list with the authority between", func(a asked) {
		a.crl(t, w.mid, now, time.Hour)
		a.crl(t, w.root, now, time.Hour, w.mid.Cert)
	})
}

// partial is a list with a critical issuingDistributionPoint.
func partial(t *testing.T, of *pki.Entity, from time.Time, revoked *x509.Certificate) *x509.RevocationList {
	t.Helper()
	idp := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 3, 0x81, 1, 0xff}}
	list := &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: from, NextUpdate: from.Add(time.Hour), ExtraExtensions: []pkix.Extension{idp},
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: revoked.SerialNumber, RevocationTime: from}},
	}
	der := must[[]byte](t)(x509.CreateRevocationList(rand.Reader, list, of.Cert, of.Key))
	return must[*x509.RevocationList](t)(x509.ParseRevocationList(der))
}

// endless is a list that promises no next one. crypto/x509 makes none, and
// signatures over the parsed values are not asked for again.
func endless(t *testing.T, of *pki.Entity, from time.Time) *x509.RevocationList {
	t.Helper()
	list := crls(t, of, from, time.Hour)[0]
	list.NextUpdate = time.Time{}
	return list
}

// TestRevocationByOCSP: responses from a file and in CERT payloads (RFC 4806), of
// the issuer and of whom it has delegated to.
func TestRevocationByOCSP(t *testing.T) {
	w := theWorld(t)
	leaf, now := w.leaves[pki.P256].Cert, time.Now()
	entity := must[*pki.Entity](t)
	delegate := entity(w.mid.Issue(pki.Options{Name: "ocsp", Extended: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}}))
	former := entity(w.mid.Issue(pki.Options{Name: "ocsp", From: now.AddDate(-3, 0, 0), Extended: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}}))
	strangers := entity(w.stranger.Issue(pki.Options{Name: "ocsp", Extended: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}}))
	says := func(by *pki.Entity, about *x509.Certificate, status pki.OCSPStatus, from time.Time) func(a asked) {
		return func(a asked) {
			der := must[[]byte](t)(by.OCSP(about, w.mid.Cert, status, from, from.Add(time.Hour)))
			if by == delegate {
				a.certs = append(a.certs, cert(wire.CertOCSPContent, der))
			} else {
				a.remote.Revocation.OCSP = append(a.remote.Revocation.OCSP, der)
			}
		}
	}
	for _, by := range []*pki.Entity{w.mid, delegate} {
		a := ask(t, auth.RevocationStrict)
		says(by, leaf, pki.Good, now)(a)
		a.want(t, "good by "+by.Cert.Subject.CommonName, "")
		wantRevoked(t, "revoked by "+by.Cert.Subject.CommonName, says(by, leaf, pki.Revoked, now))
	}
	wantUnknown(t, "unknown", says(w.mid, leaf, pki.Unknown, now))
	wantUnknown(t, "stale", says(w.mid, leaf, pki.Good, now.Add(-2*time.Hour)))
	wantUnknown(t, "of tomorrow", says(w.mid, leaf, pki.Good, now.Add(24*time.Hour)))
	wantUnknown(t, "about another", says(w.mid, w.leaves[pki.P384].Cert, pki.Good, now))
	wantUnknown(t, "by the peer itself", says(w.leaves[pki.P384], leaf, pki.Good, now))
	wantUnknown(t, "by a delegate that has expired", says(former, leaf, pki.Good, now))
	wantUnknown(t, "by the delegate of somebody else", says(strangers, leaf, pki.Good, now))
	wantUnknown(t, "about the same number of another issuer", func(a asked) {
		der := must[[]byte](t)(delegate.OCSP(leaf, w.root.Cert, pki.Good, now, now.Add(time.Hour)))
		a.remote.Revocation.OCSP = append(a.remote.Revocation.OCSP, der)
	})
	wantUnknown(t, "with a critical extension", func(a asked) {
		a.remote.Revocation.OCSP = append(a.remote.Revocation.OCSP, withExtension(t, w.mid, leaf, now, true))
	})
	a := ask(t, auth.RevocationStrict)
	a.remote.Revocation.OCSP = append(a.remote.Revocation.OCSP, withExtension(t, w.mid, leaf, now, false))
	a.want(t, "good with an extension, such as a nonce", "")
	wantUnknown(t, "by a delegate that is revoked", func(a asked) {
		says(delegate, leaf, pki.Good, now)(a)
		a.crl(t, w.mid, now.Add(-2*time.Hour), time.Hour, delegate.Cert)
	})
	wantUnknown(t, "by a delegate with a weak key", func(a asked) {
		weak := entity(w.mid.Issue(pki.Options{Name: "ocsp", Signer: p224(t), Extended: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}}))
		says(weak, leaf, pki.Good, now)(a)
	})
	wantUnknown(t, "rubbish", func(a asked) { a.certs = append(a.certs, cert(wire.CertOCSPContent, []byte("rubbish"))) })
}

// withExtension is a response that says good, with an extension of the whole
// (RFC 6960 4.4): x/crypto/ocsp makes none, so it is put behind the statuses, and all of
// it is signed anew.
func withExtension(t *testing.T, by *pki.Entity, about *x509.Certificate, from time.Time, critical bool) []byte {
	t.Helper()
	der := must[[]byte](t)(by.OCSP(about, by.Cert, pki.Good, from, from.Add(time.Hour)))
	said := must[*ocsp.Response](t)(ocsp.ParseResponse(der, nil))
	var data asn1.RawValue
	if _, err := asn1.Unmarshal(said.TBSResponseData, &data); err != nil {
		t.Fatal(err)
	}
	list := must[[]byte](t)(asn1.Marshal([]pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Critical: critical, Value: []byte{5, 0}}}))
	more := must[[]byte](t)(asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 1, IsCompound: true, Bytes: list}))
	tbs := must[[]byte](t)(asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: append(data.Bytes, more...)}))
	sum := sha512.Sum384(tbs) // the key between is on P-384
	signature := must[[]byte](t)(by.Key.Sign(rand.Reader, sum[:], crypto.SHA384))
	basic := must[[]byte](t)(asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: tbs}, pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}}, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}}))
	type bytesOf struct {
		Type     asn1.ObjectIdentifier
		Response []byte
	}
	whole := must[[]byte](t)(asn1.Marshal(struct {
		Status   asn1.Enumerated
		Response bytesOf `asn1:"explicit,tag:0"`
	}{0, bytesOf{asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}, basic}}))
	if r, err := ocsp.ParseResponseForCert(whole, about, by.Cert); err != nil || r.Status != ocsp.Good {
		t.Fatalf("the response is not what x/crypto/ocsp takes: %v", err)
	}
	return whole
}

// TestRevokedOneWayUp: the way over a revoked authority is closed, another one of
// the same key is open.
func TestRevokedOneWayUp(t *testing.T) {
	w := theWorld(t)
	cross := must[*pki.Entity](t)(w.stranger.Authority(pki.Options{Name: "between", Signer: w.mid.Key}))
	a := ask(t, auth.RevocationRelaxed)
	a.crl(t, w.root, a.now, time.Hour, w.mid.Cert)
	a.want(t, "one way", auth.Revoked)
	a.certs = append(a.certs, cert(wire.CertX509Signature, cross.Cert.Raw))
	a.remote.Trust = append(a.remote.Trust, w.stranger.Cert)
	a.want(t, "another way", "")
}

// TestParsePolicy: the words of the configuration.
func TestParsePolicy(t *testing.T) {
	for _, text := range []string{"off", "relaxed", "strict"} {
		if p, err := auth.ParsePolicy(text); err != nil || p.String() != text {
			t.Errorf("%s: %v, %v", text, p, err)
		}
	}
	if _, err := auth.ParsePolicy("ifuri"); err == nil {
		t.Error("ifuri")
	}
}
