package ike

import (
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
)

// TestRFC9242_IntAuthCoversReservedBits: bits of the header that mean nothing are
// ignored, and authenticated as they were sent.
func TestRFC9242_IntAuthCoversReservedBits(t *testing.T) {
	r, a, b := pair(t, func(pa, pb *Peer) {
		pa.Proposals = proposals(t, wire.ProtocolIKE, "aes128gcm16-prfsha256-x25519-ke1_ecp256")
		pb.Proposals = pa.Proposals
	})
	r.impair(a, on(wire.IKEIntermediate, false, func(l *letter) bool {
		l.Flags |= 0x81
		first, inner := wire.AppendPayloads(nil, l.Payloads...)
		l.sa.first.intAuth.initiator = l.sa.keys.IntAuth(true, nil, l.Header, nil, first, inner)
		return true
	}))
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	r.wantUp(a, b, 1)
}
