package dataplane

import (
	"fmt"
	"net/netip"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// ICMP errors. A router behind a gateway that is in no selector reports on
// packets that are: RFC 4301 6.2 sends its message through the SA of the traffic
// that it reports on, and lets it in at the other end by the packet that it
// quotes. And this gateway reports on packets that its policy discards: 5.1.
//
// All of it is off the fast path: the walks come here with packets that no
// policy carries, or that a check is asked for.

// ICMP is what a gateway does about ICMP errors. Whatever it says, an ICMP error
// that no policy carries goes by the packet that it quotes, in both directions
// (RFC 4301 6.2).
type ICMP struct {
	// CheckQuoted looks at the quoted packet of inbound ICMP errors that fit
	// their SA's selectors, too. RFC 4301 6.2: "an IPsec implementation MUST be
	// configurable to check that this payload header information is consistent
	// with the SA via which it arrives". What cannot be checked, a fragment or a
	// type that routers do not send, is then dropped as InICMP.
	CheckQuoted bool

	// Unreachable answers the outbound packets that policy discards with
	// Destination Unreachable, administratively prohibited: v4 3/13, v6 1/1
	// (RFC 4301 5.1), at most 100 a second for each outbound worker, with a burst
	// of 10 (RFC 4443 2.4 (f)). The answers are written into the TUN.
	Unreachable bool

	// From4 and From6 are the addresses that these answers come from, which
	// must not be the host's own: Linux drops a packet that comes out of the
	// TUN with its own IPv4 address as source. Not valid: the answer has the
	// destination of the discarded packet as its source, as that of a host that
	// refuses for itself; so it also passes a reverse path filter.
	From4, From6 netip.Addr
}

// check tells what is wrong with the addresses.
func (c *ICMP) check() error {
	if c.From4.IsValid() && !c.From4.Is4() {
		return fmt.Errorf("dataplane: Config.ICMP.From4 is %v: give an IPv4 address, or none", c.From4)
	}
	if c.From6.IsValid() && (!c.From6.Is6() || c.From6.Is4In6()) {
		return fmt.Errorf("dataplane: Config.ICMP.From6 is %v: give an IPv6 address, or none", c.From6)
	}
	return nil
}

// returnFlow is the flow of the traffic in p's direction that an ICMP error p
// belongs to: what it quotes went the other way. RFC 4301 6.2: "The implementation
// extracts the header for the packet that triggered the error (from the ICMP
// message payload), reverses the source and destination IP address fields,
// extracts the protocol field, and reverses the port fields (if accessible)."
//
// ok is false where p is no such message: a fragment, whose other parts would not
// find their way; an error about an error, which RFC 1122 3.2.2 and RFC 4443 2.4
// (e.1) forbid; or, stricter than RFC 4301, one that does not go to whom it quotes
// (RFC 792: "the source network and address from the original datagram's data"):
// otherwise a quote would open the way to any destination.
func returnFlow(p *packet.Buffer) (f packet.Flow, ok bool) {
	if !p.Flow.IsICMPError() || p.Header.Fragment {
		return f, false
	}
	e, ok := packet.ParseICMPError(p.Bytes()[p.Header.TransportOffset:], p.Header.Version)
	if !ok {
		return f, false
	}
	quoted, ok := packet.QuotedFlow(e.Quoted)
	if !ok || quoted.Version != p.Flow.Version || quoted.Src != p.Flow.Dst || quoted.IsICMPError() {
		return f, false
	}
	return quoted.Reverse(), true
}

// returnDecision is about an ICMP error that no policy carries; its sa is nil where
// there is none. RFC 4301 6.2: "If no SA exists that would carry the outbound ICMP message
// in question, and if no SPD entry would allow carriage of this outbound ICMP error
// message, then an IPsec implementation MUST map the message to the SA that would
// carry the return traffic associated with the packet that triggered the ICMP error
// message." A policy that discards it is one that does not allow carriage. "If no
// such SA exists, no SA will be created, and this is an auditable event": there is
// no Acquire, and the packet is one of OutDiscard.
//
// The flow that it looks for is a real one between the same hosts, so that the
// flow cache has it, or will need it.
func (w *outboundWorker) returnDecision(p *packet.Buffer) decision {
	flow, ok := returnFlow(p)
	if !ok {
		return decision{}
	}
	d := w.cache.lookup(&flow)
	if d.policy == nil || d.policy.Action != spd.Protect {
		return decision{}
	}
	if d.classes != nil {
		w.choose(&d, p, &flow)
	}
	return d
}

// quoted is the rest of step 7, for a packet that carries has taken for the SA's
// or not. RFC 4301 6.2: "If an IPsec implementation receives an inbound ICMP error
// message on an SA, and the IP and ICMP headers of the message do not match the
// traffic selectors for the SA, the receiver MUST process the received message in a
// special fashion. Specifically, the receiver must extract the header of the
// triggering packet from the ICMP payload, and reverse fields as described above to
// determine if the packet is consistent with the selectors for the SA via which the
// ICMP error message was received. If the packet fails this check, the IPsec
// implementation MUST NOT forwarded the ICMP message to the destination. This is
// an auditable event."
func (w *inboundWorker) quoted(sa *sad.SA, p *packet.Buffer, selected bool) DropReason {
	if !p.Flow.IsICMPError() {
		if selected {
			return forwarded
		}
		return InSelector
	}
	if flow, ok := returnFlow(p); ok && carries(sa, w.cache.lookup(&flow).policy, &flow) {
		return forwarded
	}
	return InICMP
}
