package auth

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// Policy is what is asked of revocation.
type Policy uint8

// The policies.
const (
	RevocationOff     Policy = iota // nothing is asked
	RevocationRelaxed               // revoked is refused, unknown passes
	RevocationStrict                // unknown is refused, too
)

// ParsePolicy reads "off", "relaxed" or "strict".
func ParsePolicy(text string) (Policy, error) {
	for p := RevocationOff; p <= RevocationStrict; p++ {
		if p.String() == text {
			return p, nil
		}
	}
	return 0, fmt.Errorf("revocation is off, relaxed or strict, and not %s", shown(text))
}

// String is the policy as ParsePolicy reads it.
func (p Policy) String() string {
	switch p {
	case RevocationOff:
		return "off"
	case RevocationRelaxed:
		return "relaxed"
	}
	return "strict"
}

// Revocation is what is known of revoked certificates, and what is made of not
// knowing. Nothing is fetched: whoever makes a Remote gives lists and responses,
// and peers may send responses in CERT payloads (RFC 4806).
//
// Every certificate below the trust anchor is asked about, by lists and responses
// of its issuer. A word that is stale, or not signed by the issuer, or that has a
// critical extension, does not count; only "revoked" outlives its date.
type Revocation struct {
	Policy Policy
	CRLs   []*x509.RevocationList
	OCSP   [][]byte // responses in DER

	// onlyRevoked: nobody asks what else a list says, and so not who has signed one
	// that does not name the certificate.
	onlyRevoked bool
}

// skew is how far an issuer's clock may be ahead of this one.
const skew = 5 * time.Minute

// answer is what is known of one certificate.
type answer uint8

const (
	unknown answer = iota
	good
	revoked
)

// standing are those of the ways up that are open. If none is, the error is that of
// the first.
func (r Revocation) standing(chains [][]*x509.Certificate, stapled [][]byte, now time.Time) (open [][]*x509.Certificate, first error) {
	for _, chain := range chains {
		switch err := r.check(chain, stapled, now); {
		case err == nil:
			open = append(open, chain)
		case first == nil:
			first = err
		}
	}
	if len(open) > 0 {
		return open, nil
	}
	return nil, first
}

// Revoked tells whether what is known now closes every way up by which the peer was
// believed: an *Error with the reason Revoked, or nil. That nothing is known any more
// ends nothing that was proved while something was.
func (p Peer) Revoked(r Revocation, now time.Time) error {
	if p.proof == nil || r.Policy == RevocationOff {
		return nil
	}
	r.Policy, r.onlyRevoked = RevocationRelaxed, true
	_, err := r.standing(p.proof.chains, nil, now)
	return err
}

// check asks about a chain, leaf first, anchor last.
func (r Revocation) check(chain []*x509.Certificate, stapled [][]byte, now time.Time) error {
	if r.Policy == RevocationOff {
		return nil
	}
	for i := range len(chain) - 1 {
		c, issuer := chain[i], chain[i+1]
		switch known, why := r.ask(c, issuer, stapled, now); {
		case known == revoked:
			return &Error{Reason: Revoked, Text: "certificate " + certName(c) + " is revoked by its issuer", Theirs: why, Fix: "issue a new certificate to the peer"}
		case known == unknown && r.Policy == RevocationStrict:
			return &Error{Reason: RevocationUnknown, Text: "whether certificate " + certName(c) + " is revoked is not known", Theirs: why, Ours: "revocation: strict", Fix: "give a current CRL or OCSP response of " + certName(issuer)}
		}
	}
	return nil
}

// ask puts all answers about a certificate together: revoked beats good beats
// unknown.
func (r Revocation) ask(c, issuer *x509.Certificate, stapled [][]byte, now time.Time) (best answer, why string) {
	why = "no list and no response of its issuer"
	note := func(a answer, text string) {
		if a > best || a == unknown && best == unknown && text != "" {
			best, why = a, text
		}
	}
	for _, list := range r.CRLs {
		note(r.askCRL(list, c, issuer, now))
	}
	for _, responses := range [][][]byte{r.OCSP, stapled} {
		for _, der := range responses {
			note(r.askOCSP(der, c, issuer, now))
		}
	}
	return best, why
}

func (r Revocation) askCRL(list *x509.RevocationList, c, issuer *x509.Certificate, now time.Time) (answer, string) {
	if !same(list.RawIssuer, issuer.RawSubject) {
		return unknown, ""
	}
	listed := slices.ContainsFunc(list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(c.SerialNumber) == 0 })
	switch {
	case !listed && r.onlyRevoked:
		return unknown, ""
	case criticalIn(list):
		return unknown, "a list with a critical extension"
	case list.CheckSignatureFrom(issuer) != nil:
		return unknown, "a list that its issuer has not signed"
	case listed:
		return revoked, "list of " + list.ThisUpdate.UTC().Format(time.RFC3339)
	}
	return current("list", list.ThisUpdate, list.NextUpdate, now)
}

// criticalIn: RFC 5280 5.2: "If a CRL contains a critical extension that the
// application cannot process, then the application MUST NOT use that CRL to
// determine the status of certificates." 5.3 says the same of entries. So lists of
// a part (issuingDistributionPoint) and of changes (deltaCRLIndicator) do not count.
func criticalIn(list *x509.RevocationList) bool {
	for _, e := range list.Extensions {
		if e.Critical {
			return true
		}
	}
	for _, entry := range list.RevokedCertificateEntries {
		for _, e := range entry.Extensions {
			if e.Critical {
				return true
			}
		}
	}
	return false
}

// current: good, if the word is of now. One that promises no next word is stale
// from the start (RFC 5280 5.1.2.5: conforming issuers "MUST include the nextUpdate
// field in all CRLs").
func current(what string, from, until, now time.Time) (answer, string) {
	switch {
	case from.After(now.Add(skew)):
		return unknown, fmt.Sprintf("a %s of the future, %s", what, from.UTC().Format(time.RFC3339))
	case until.IsZero() || now.After(until):
		return unknown, fmt.Sprintf("a stale %s, of %s", what, from.UTC().Format(time.RFC3339))
	}
	return good, ""
}
