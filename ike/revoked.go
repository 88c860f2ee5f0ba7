package ike

import "slices"

// endRevoked holds the IKE SAs of a peer against what its new settings know of revoked
// certificates, the one thing in which they may differ from the old ones ([Peer.Equal]).
// RFC 7296 has the certificate looked at in IKE_AUTH alone; without this one that is
// revoked would be good for as long as the IKE SA is rekeyed.
//
// Whose certificate is revoked loses its IKE SA, and the Child SAs with it, and is told
// by a delete. Who comes by the same settings under another name (remote_id: any) keeps
// its own.
func (m *Machine) endRevoked(p *peer) {
	ended := false
	for _, sa := range slices.Clone(p.sas) {
		if sa.state != established {
			continue
		}
		err := sa.proved.Revoked(p.Remotely.Revocation, m.wall(m.now))
		if err == nil {
			continue
		}
		why := authFailure(err)
		m.failedEvent(sa, StageDelete, why, nil)
		m.deleteIKE(sa, why.Reason)
		ended = true
	}
	if ended {
		m.startAgain(p) // it may have another certificate already
	}
}
