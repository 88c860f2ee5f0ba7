package ike

import (
	"crypto/x509"
	"errors"
	"slices"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/wire"
)

// What keeps strangers from asking by the clock who is configured here.

// early tells whether an error of verifyAs has come before anything was computed.
func early(err error) bool {
	var e *auth.Error
	return errors.As(err, &e) && e.Early
}

// verifyNobody does the work of verifying for a name that nobody has, or for one that
// proves itself in another way, so that the time of the answer does not say so.
func (m *Machine) verifyNobody(sa *ikeSA, r *authRequested) error {
	m.count("verified_as_nobody")
	nobody := auth.Nobody(r.proof, anchors(sa.first.candidates))
	_, err := nobody.Verify(r.id, wire.All[*wire.Cert](r.payloads), r.proof, m.peerOctets(sa, r, sa.keys), m.wall(m.now))
	return err
}

// maxAuthorities bounds a CERTREQ, and what a stranger's certificate is held against.
const maxAuthorities = 16

// anchors are the authorities that peers are under, each once.
func anchors(peers []*peer) (all []*x509.Certificate) {
	for _, p := range peers {
		for _, c := range p.Remotely.Trust {
			if len(all) < maxAuthorities && !slices.ContainsFunc(all, c.Equal) {
				all = append(all, c)
			}
		}
	}
	return all
}
