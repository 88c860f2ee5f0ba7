package dataplane

import (
	"github.com/adit-ipsec/adit/sad"
)

// Lifetimes, as far as they need no packet: what a worker may not pass by is held
// in sad, where it passes. The housekeeper says that an SA should be replaced, and
// takes away what has ended, inbound and outbound: RFC 4301 4.4.2.1 keeps a
// lifetime in every SAD entry, at both ends.

// lifetime looks at one SA's limits. A SoftExpire is said once; one that found no
// room among the events is said again at the next look. With a hard limit the SA
// is marked at once, so that nothing passes on it from here on.
func (h *housekeeper) lifetime(sa *sad.SA, n *notes) {
	now := int64(h.now)
	if sa.Expire(now) != sad.NoLimit {
		h.ended = append(h.ended, sa)
		return
	}
	if n.softExpired {
		return
	}
	if limit := sa.Soft(now); limit != sad.NoLimit {
		n.softExpired = h.emit(expired(SoftExpire, sa, limit))
	}
}

// destroy removes what has ended, all in one change, and says so. A HardExpire
// that finds no room among the events is lost, and counted: the next packet that
// wants protection asks for an SA (Acquire).
func (h *housekeeper) destroy() {
	if len(h.ended) == 0 {
		return
	}
	h.gateway.sas.Retire(h.ended...)
	for _, sa := range h.ended {
		h.emit(expired(HardExpire, sa, sa.Expired()))
	}
	clear(h.ended)
	h.ended = h.ended[:0]
}

func expired(kind EventKind, sa *sad.SA, limit sad.Limit) Event {
	return Event{Kind: kind, Peer: sa.Peer, Policy: sa.Policy, SPI: sa.SPI, Direction: sa.Direction, Protocol: sa.Protocol, Limit: limit}
}
