package dataplane

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// EventKind names what a key source hears from the dataplane.
type EventKind uint8

// The events.
const (
	Acquire       EventKind = iota + 1 // a packet wants protection and there is no SA
	SeqOverflow                        // an SA has used up its sequence numbers (RFC 4303 3.3.3, auditable)
	BadSPI                             // a packet for no SA of ours (RFC 4303 3.4.2, auditable)
	PeerMoved                          // a peer was followed to another address or port (RFC 7296 2.23)
	AuthFailures                       // an SA's packets fail authentication
	PeerElsewhere                      // an authenticated packet came from another address or port, and was not followed
	SoftExpire                         // an SA should be replaced (RFC 4301 4.4.2.1); said once
	HardExpire                         // an SA has ended and is removed (RFC 4301 4.4.2.1)
	Audit                              // packets were dropped for a reason that RFC 4301 and 4303 want audited
)

// String is the event's name, as logs write it.
func (k EventKind) String() string {
	switch k {
	case Acquire:
		return "Acquire"
	case SeqOverflow:
		return "SeqOverflow"
	case BadSPI:
		return "BadSPI"
	case PeerMoved:
		return "PeerMoved"
	case AuthFailures:
		return "AuthFailures"
	case PeerElsewhere:
		return "PeerElsewhere"
	case SoftExpire:
		return "SoftExpire"
	case HardExpire:
		return "HardExpire"
	case Audit:
		return "Audit"
	}
	return fmt.Sprintf("EventKind(%d)", uint8(k))
}

// Event is something that a key source or an operator should know. Fields that
// mean nothing for a kind are zero.
type Event struct {
	Kind   EventKind
	At     time.Duration // since the gateway was made, on its clock
	Peer   string
	Policy string
	SPI    uint32
	Flow   packet.Flow    // Acquire: the packet that asked; Audit: the inner packet, where it is known
	From   netip.AddrPort // BadSPI, PeerMoved, PeerElsewhere: where the packet came from
	Old    netip.AddrPort // PeerMoved: where the peer was; PeerElsewhere: where it is
	Why    string         // PeerElsewhere: why it is not followed
	Count  uint64         // AuthFailures, Audit: how many since the last such event
	DSCP   uint8          // Acquire: of the packet that asked

	Direction sad.Direction // SoftExpire, HardExpire: of the SA
	Protocol  sad.Protocol  // SoftExpire, HardExpire, SeqOverflow: of the SA
	Limit     sad.Limit     // SoftExpire, HardExpire: which limit was reached

	// Audit: of the first of the Count packets.
	Reason    DropReason     // why it was dropped; Reason.Auditable
	Seq       uint64         // sequence number: 64 bits where there is an SA; outbound the last that was used
	Src, Dst  netip.AddrPort // of the outer packet; port 0: none, or not known
	FlowLabel uint32         // of the inner packet, if that is IPv6 and known
}

// eventQueue is how many events wait for a slow reader before more are lost,
// and counted as EventsLost.
const eventQueue = 1024

// Repeated events are thinned at their source, so that a flood on the wire is
// no flood of events: one Acquire a policy, one PeerElsewhere, one Audit a
// reason and at most badSPIBurst BadSPI a worker in this time. A PeerMoved comes
// with each move, which roamInterval thins.
const (
	eventInterval = time.Second
	badSPIBurst   = 10
)

// Events is where every kind of event arrives: Audit is for the log, the others
// are for key sources. The channel is closed by Close. A
// gateway whose events nobody reads works on and counts EventsLost.
func (g *Gateway) Events() <-chan Event { return g.events }

// emit hands e over without ever blocking a walk.
func (g *Gateway) emit(e Event) bool {
	select {
	case g.events <- e:
		return true
	default:
		return false
	}
}

// limiter lets burst events through per eventInterval.
type limiter struct {
	since time.Duration
	used  int
}

func (l *limiter) allow(now time.Duration, burst int) bool {
	if now-l.since >= eventInterval || l.used == 0 {
		l.since, l.used = now, 0
	}
	l.used++
	return l.used <= burst
}
