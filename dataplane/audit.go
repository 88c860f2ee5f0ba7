package dataplane

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"time"

	"github.com/adit-ipsec/adit/ah"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// Auditable events. RFC 4303 4: "several auditable events are identified in this
// specification and for each of these events a minimum set of information that
// SHOULD be included in an audit log is defined": the SPI, the time, the
// addresses, the sequence number and the flow label. RFC 4302 4 says the same of
// AH, and RFC 4301 5.2 of selectors. Each becomes an Audit event: the first of
// its reason at once, and then, so that a flood on the wire is none in the log,
// one a second and worker with the count of those behind it. Every dropped packet is in one event's Count.
//
// Nothing is ever sent because of one: RFC 4303 4, "there is no requirement for
// the receiver to transmit any message to the purported sender in response to
// the detection of an auditable event, because of the potential to induce denial
// of service via such action."
//
// Only the ends of packets come here. The lock is for the housekeeper, which
// says what is left of a flood when it is over.

// auditable are the reasons whose drops are audited.
var auditable = [reasons]bool{
	OutDiscard:      true, // no policy: RFC 4301 5.1; what a policy discards is not audited
	OutSeqExhausted: true, // RFC 4303 3.3.3
	InNoSA:          true, // RFC 4303 3.4.2
	InEndpoint:      true, // RFC 4303 3.4.2: no SA for a packet between these addresses
	InBundle:        true, // RFC 4301 5.2: the packet is not protected as its SA wants it
	InReplay:        true, // RFC 4303 3.4.3
	InAuth:          true, // RFC 4303 3.4.3 and 3.4.4
	InECN:           true, // RFC 6040 4.2, "SHOULD log the event"
	InSelector:      true, // RFC 4301 5.2
	InICMP:          true, // RFC 4301 6.2
}

// Auditable tells whether drops for this reason become Audit events.
func (r DropReason) Auditable() bool { return r < reasons && auditable[r] }

// auditor is what one worker has to say of its drops.
type auditor struct {
	mu    sync.Mutex // never held for longer than it takes to copy an Event
	notes [reasons]auditNote
}

// auditNote is about the drops for one reason.
type auditNote struct {
	first Event  // the first of those that no event has told of
	count uint64 // how many those are
	said  bool   // there was an event
	at    time.Duration
}

// note counts n packets for a reason, and returns the event for the caller to
// fill in if the first of them is the one to tell of; else nil.
func (a *auditor) note(reason DropReason, now time.Duration, n int) *Event {
	x := &a.notes[reason]
	x.count += uint64(n)
	if x.count > uint64(n) {
		return nil
	}
	x.first = Event{Kind: Audit, Reason: reason, At: now}
	return &x.first
}

// report emits what is due at now, and with all whatever there is. What the
// channel has no room for is told later, with its count.
func (x *auditNote) report(g *Gateway, c *counters, now time.Duration, all bool) {
	if x.count == 0 || !all && x.said && now-x.at < eventInterval {
		return
	}
	x.said, x.at = true, now
	x.first.Count = x.count
	if g.emit(x.first) {
		x.count = 0
	} else {
		c.lost.Add(1)
	}
}

// audits tells what is left of every worker's drops.
func (g *Gateway) audits(now time.Duration, all bool) {
	for _, w := range g.in {
		w.audits.report(g, &w.counters, now, all)
	}
	for _, w := range g.out {
		w.audits.report(g, &w.counters, now, all)
	}
}

func (a *auditor) report(g *Gateway, c *counters, now time.Duration, all bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.notes {
		a.notes[i].report(g, c, now, all)
	}
}

// audit takes a note of n packets that ended for the reason, p the first of them;
// sa may be nil.
func (w *outboundWorker) audit(reason DropReason, sa *sad.SA, p *packet.Buffer, n int) {
	// What a policy discards is as its administrator wants it.
	if !auditable[reason] || reason == OutDiscard && w.cache.lookup(&p.Flow).policy != nil {
		return
	}
	w.audits.mu.Lock()
	defer w.audits.mu.Unlock()
	if e := w.audits.note(reason, w.now, n); e != nil {
		e.Flow, e.FlowLabel = p.Flow, flowLabel(p.Bytes())
		if sa != nil {
			e.Peer, e.Policy, e.SPI, e.Seq = sa.Peer, sa.Policy, sa.SPI, sa.Stats().Seq
			e.Src, e.Dst = sa.Ends().Local, sa.Endpoint()
		}
	}
	w.audits.notes[reason].report(w.gateway, &w.counters, w.now, false)
}

// refuse ends n packets of sa for which there are no sequence numbers, p the
// first of them. RFC 4303 3.3.3: "An attempt to transmit a packet that would
// result in sequence number overflow is an auditable event."
func (w *outboundWorker) refuse(sa *sad.SA, p *packet.Buffer, n int) {
	reason := w.refusal(sa)
	w.drop(reason, n)
	w.audit(reason, sa, p, n)
}

// audit takes a note of one datagram that ended for the reason. sa and job are
// nil where it did not come as far as an SA's run.
//
// Deviation from RFC 4303 3.4: the flow label of the outer IPv6 header is not in
// the event, for the sockets do not tell it; FlowLabel is the inner packet's.
func (w *inboundWorker) audit(reason DropReason, from origin, sa *sad.SA, job *esp.Packet) {
	if !auditable[reason] {
		return
	}
	w.audits.mu.Lock()
	defer w.audits.mu.Unlock()
	if e := w.audits.note(reason, w.now, 1); e != nil {
		d := from.gram
		e.Src, e.Dst = d.Addr, netip.AddrPortFrom(d.Local, w.localPort())
		if sa == nil {
			parse := esp.ParseHeader
			if w.covered && from.header == 0 {
				parse = ah.ParseHeader
			}
			spi, low, _ := parse(d.Mem[from.start:from.end])
			e.SPI, e.Seq = spi, uint64(low)
		} else {
			describeOpened(e, sa, job)
		}
	}
	w.audits.notes[reason].report(w.gateway, &w.counters, w.now, false)
}

// describeOpened fills in what an SA's packet says, and what is inside where
// that is authentic. RFC 4301 5.2 wants "any other selector values of the packet
// that are available, and the selector values from the relevant SAD entry": the
// former are in Flow, and for the latter stand the names of peer and policy.
func describeOpened(e *Event, sa *sad.SA, job *esp.Packet) {
	e.Peer, e.Policy, e.SPI, e.Seq = sa.Peer, sa.Policy, sa.SPI, job.Seq
	if job.Err != nil || sa.Mode != sad.TunnelMode {
		return
	}
	var h packet.Header
	var f packet.Flow
	if packet.Parse(job.Payload, &h, &f) == nil {
		e.Flow, e.FlowLabel = f, flowLabel(job.Payload)
	}
}

// localPort is the port of a UDP wire, 0 where it has none or does not say.
func (w *inboundWorker) localPort() uint16 {
	if wire, ok := w.wire.(interface{ LocalPort() uint16 }); ok && w.udp {
		return wire.LocalPort()
	}
	return 0
}

// flowLabel is the flow label of the valid IP packet at the start of b; 0 for
// IPv4.
func flowLabel(b []byte) uint32 {
	if b[0]>>4 != 6 {
		return 0
	}
	return binary.BigEndian.Uint32(b) & 0xfffff
}
