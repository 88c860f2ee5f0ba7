package dataplane

import (
	"time"

	"github.com/adit-ipsec/adit/sad"
)

// Heard is how long ago the newest packet came on these inbound SAs, of those that
// were authentic and no replay; it may be off by one batch. False: none has come. IDs
// that are not installed, or outbound, mean nothing.
//
// It is for key sources that must know whether a peer is there (RFC 7296 2.4), and
// not for the packet path: it locks.
func (g *Gateway) Heard(ids ...sad.ID) (ago time.Duration, ok bool) {
	var last int64
	for _, id := range ids {
		if sa := g.sas.Find(id); sa != nil && id.Direction == sad.Inbound {
			last = max(last, sa.Stats().LastUsed)
		}
	}
	if last == 0 {
		return 0, false
	}
	return max(0, g.clock()-time.Duration(last)), true
}
