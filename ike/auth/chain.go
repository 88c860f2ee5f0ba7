package auth

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
)

// checkCertificate holds a certificate against the trust anchors, the date, what
// it may be used for, and the identity. It returns the ways up.
func (r Remote) checkCertificate(id Identity, shown *presented, now time.Time) ([][]*x509.Certificate, error) {
	leaf := shown.leaf
	if _, err := familyOf(leaf.PublicKey); err != nil {
		return nil, named(err, leaf)
	}
	if err := checkTime(leaf, now); err != nil {
		return nil, err
	}
	chains, err := r.chains(shown, now)
	if err != nil {
		return nil, err
	}
	if err := checkUsage(leaf); err != nil {
		return nil, err
	}
	if err := checkHolds(leaf, id); err != nil {
		return nil, err
	}
	// One good way up is enough: a peer may send a cross-signed authority, too.
	var sound [][]*x509.Certificate
	var first error
	for _, chain := range chains {
		switch err := checkKeys(chain); {
		case err == nil:
			sound = append(sound, chain)
		case first == nil:
			first = err
		}
	}
	if len(sound) == 0 {
		return nil, first
	}
	return sound, nil
}

// chains are the ways from the leaf up to a trust anchor. What a certificate is
// for is asked in checkUsage: the purposes of crypto/x509 are those of TLS.
func (r Remote) chains(shown *presented, now time.Time) ([][]*x509.Certificate, error) {
	roots, others := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range r.Trust {
		roots.AddCert(c)
	}
	between := shown.between()
	for _, c := range between {
		if key, ok := c.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSABits {
			return nil, named(checkRSA(key), c)
		}
		others.AddCert(c)
	}
	chains, err := shown.leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: others, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err == nil {
		return chains, nil
	}
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		if late := checkTime(invalid.Cert, now); late != nil {
			return nil, late
		}
	case errors.As(err, &unknown):
		return nil, &Error{
			Reason: UnknownCA, Text: "no trust anchor stands above the peer's certificate " + certName(shown.leaf) + hint(err),
			Theirs: "issued by " + dnText(topOf(shown).RawIssuer), Ours: anchorNames(r.Trust),
			Fix: "configure that authority's certificate, or have the peer send the authorities between",
		}
	}
	return nil, &Error{Reason: BadCertificate, Text: "the peer's certificate " + certName(shown.leaf) + " is not valid: " + cut(err.Error())}
}

// What a stranger can make this end verify: it sends certificates of its own making,
// in which each authority may be signed by each other, before anybody has asked who
// it is. crypto/x509 alone would give up behind a hundred signatures.
const (
	maxBetween     = 6 // authorities between leaf and anchor
	maxSameSubject = 2 // of one name: an authority, and the same one cross-signed
)

// between are the authorities above the leaf, by their names, the nearest first.
func (p *presented) between() (list []*x509.Certificate) {
	of := map[string]int{}
	for name, i := p.leaf.RawIssuer, 0; ; i++ {
		for _, c := range p.others {
			if same(c.RawSubject, name) && of[string(name)] < maxSameSubject && len(list) < maxBetween && !slices.ContainsFunc(list, c.Equal) {
				of[string(name)]++
				list = append(list, c)
			}
		}
		if i == len(list) {
			return list
		}
		name = list[i].RawIssuer
	}
}

// hint is what crypto/x509 found wrong with an authority that would have fitted.
func hint(err error) string {
	_, why, ok := strings.Cut(err.Error(), "(possibly ")
	if !ok {
		return ""
	}
	return " (possibly " + cut(why)
}

// topOf is the highest certificate that the peer sent above its leaf.
func topOf(shown *presented) *x509.Certificate {
	top := shown.leaf
	for range shown.others {
		i := slices.IndexFunc(shown.others, func(c *x509.Certificate) bool {
			return same(c.RawSubject, top.RawIssuer) && !same(c.Raw, top.Raw)
		})
		if i < 0 {
			break
		}
		top = shown.others[i]
	}
	return top
}

func anchorNames(anchors []*x509.Certificate) string {
	names := make([]string, 0, 4)
	for i, c := range anchors {
		if i == 3 {
			names = append(names, fmt.Sprintf("and %d more", len(anchors)-3))
			break
		}
		names = append(names, certName(c))
	}
	return strings.Join(names, " | ")
}

// checkTime says both times: a clock that is far off is the usual reason.
func checkTime(c *x509.Certificate, now time.Time) error {
	const form = time.RFC3339
	clock := "clock " + now.UTC().Format(form)
	if now.Before(c.NotBefore) {
		return &Error{Reason: NotYetValid, Text: "certificate " + certName(c) + " is not valid yet", Theirs: "valid from " + c.NotBefore.UTC().Format(form), Ours: clock, Fix: "set this end's clock, or wait"}
	}
	if now.After(c.NotAfter) {
		return &Error{Reason: Expired, Text: "certificate " + certName(c) + " has expired", Theirs: "valid until " + c.NotAfter.UTC().Format(form), Ours: clock, Fix: "renew the certificate, or set this end's clock"}
	}
	return nil
}

// checkKeys refuses weak keys anywhere between leaf and anchor.
func checkKeys(chain []*x509.Certificate) error {
	for _, c := range chain {
		if _, err := familyOf(c.PublicKey); err != nil {
			return named(err, c)
		}
	}
	return nil
}

func named(err error, c *x509.Certificate) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	with := *e
	with.Text = "certificate " + certName(c) + " has " + e.Text
	return &with
}

// purposes that make a certificate one for IKE besides anyExtendedKeyUsage:
// ipsecIKE, its retired relatives, and "IKE intermediate" of Microsoft.
var purposes = []asn1.ObjectIdentifier{
	{1, 3, 6, 1, 5, 5, 7, 3, 17}, {1, 3, 6, 1, 5, 5, 7, 3, 5}, {1, 3, 6, 1, 5, 5, 7, 3, 6}, {1, 3, 6, 1, 5, 5, 7, 3, 7}, {1, 3, 6, 1, 5, 5, 8, 2, 2},
}

// checkUsage holds RFC 4945 5.1.3.2: "If KU present and doesn't mention
// digitalSignature or nonRepudiation (both, in addition to other KUs, is also
// fine), reject cert", and 5.1.3.12, which rejects an extended key usage without
// ipsecIKE and anyExtendedKeyUsage. Here a certificate for TLS servers or clients
// passes too: a deviation, since most authorities issue nothing else, and safe,
// because the identity must be in it and the anchor be configured for this peer.
func checkUsage(c *x509.Certificate) error {
	if c.KeyUsage != 0 && c.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) == 0 {
		return &Error{Reason: WrongUsage, Text: "certificate " + certName(c) + " is not for signatures", Fix: "issue it with the key usage digitalSignature"}
	}
	if len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 0 {
		return nil
	}
	for _, u := range c.ExtKeyUsage {
		switch u {
		case x509.ExtKeyUsageAny, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth,
			x509.ExtKeyUsageIPSECEndSystem, x509.ExtKeyUsageIPSECTunnel, x509.ExtKeyUsageIPSECUser:
			return nil
		}
	}
	for _, u := range c.UnknownExtKeyUsage {
		if slices.ContainsFunc(purposes, u.Equal) {
			return nil
		}
	}
	return &Error{Reason: WrongUsage, Text: "certificate " + certName(c) + " is for another purpose than IKE", Fix: "issue it with the extended key usage ipsecIKE or serverAuth, or without one"}
}

// checkHolds holds the identity against the certificate: exactly, without
// wildcards, and never against the common name alone (RFC 4945 3.1).
func checkHolds(c *x509.Certificate, id Identity) error {
	if holds(c, id) {
		return nil
	}
	return &Error{
		Reason: WrongIdentity, Text: "the certificate does not hold the identity " + id.String(),
		Theirs: heldNames(c), Ours: id.String(),
		Fix: "put the identity into the certificate's subject alternative name, or use one that is there",
	}
}

func holds(c *x509.Certificate, id Identity) bool {
	switch id.Kind {
	case wire.IDFQDN:
		return slices.ContainsFunc(c.DNSNames, func(name string) bool { return foldASCII([]byte(name)) == foldASCII(id.Data) })
	case wire.IDRFC822Addr:
		return slices.Contains(c.EmailAddresses, string(id.Data))
	case wire.IDIPv4Addr, wire.IDIPv6Addr:
		for _, ip := range c.IPAddresses {
			if same(ip, id.Data) {
				return true
			}
		}
	case wire.IDDERASN1DN:
		// RFC 4945 3.1.5: the name in the ID is the Subject of the certificate, such
		// that a comparison of their bytes succeeds.
		return same(c.RawSubject, id.Data)
	}
	return false
}

// heldNames lists the identities that a certificate holds, as text.
func heldNames(c *x509.Certificate) string {
	var ids []Identity
	if n, ok := readDN(c.RawSubject); ok && len(n) > 0 {
		ids = append(ids, Identity{Kind: wire.IDDERASN1DN, Data: c.RawSubject})
	}
	for _, name := range c.DNSNames {
		ids = append(ids, Identity{Kind: wire.IDFQDN, Data: []byte(name)})
	}
	for _, name := range c.EmailAddresses {
		ids = append(ids, Identity{Kind: wire.IDRFC822Addr, Data: []byte(name)})
	}
	for _, ip := range c.IPAddresses {
		kind := wire.IDIPv6Addr
		if len(ip) == 4 {
			kind = wire.IDIPv4Addr
		}
		ids = append(ids, Identity{Kind: kind, Data: ip})
	}
	names := make([]string, 0, 8)
	for _, id := range ids[:min(len(ids), 8)] {
		names = append(names, cut(id.String()))
	}
	if len(names) == 0 {
		return "no name"
	}
	return strings.Join(names, " | ")
}

// certName is the subject, or where that is empty the first alternative name.
func certName(c *x509.Certificate) string {
	name, _, _ := strings.Cut(heldNames(c), " | ")
	return strconv.Quote(name)
}

func dnText(der []byte) string {
	return strconv.Quote(cut(Identity{Kind: wire.IDDERASN1DN, Data: der}.String()))
}
