package ike

import (
	"errors"

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
	nobody := auth.Nobody(r.proof, trustsOf(sa.first.candidates).Trust)
	_, err := nobody.Verify(r.id, wire.All[*wire.Cert](r.payloads), r.proof, m.peerOctets(sa, r, sa.keys), m.wall(m.now))
	return err
}
