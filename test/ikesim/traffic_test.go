package ikesim

import (
	"net/netip"
	"slices"
	"time"

	"github.com/adit-ipsec/adit/ike"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// The dataplane of a gateway, as far as a machine can tell: it asks for SAs where
// it has packets and no SA, sends each packet on the newest outbound SA of its
// policy, and follows peers behind NATs.

// packet is a data packet: the SA by which it was protected. The SA is the sender's:
// the receiver has only its SPI to find its own by, and all else is compared.
type packet struct {
	from   *host
	sa     *entry
	number uint64
}

// set tells whether there is a packet.
func (p *packet) set() bool { return p.from != nil }

// dataFigures count data packets of a run.
type dataFigures struct{ sent, taken, excused, fresh uint64 }

type flowKey struct{ peer, policy string }

// flow is what the dataplane knows of one policy.
type flow struct {
	flowKey
	// newest is the SA to send on, as it was at a version of the SAD; nil: none.
	newest  *entry
	version int

	asked   bool // an Acquire waits for an SA or a Refuse
	since   time.Duration
	lastAsk time.Duration
}

// patience is how long an Acquire may wait for its SA or its Refuse.
const patience = 4 * time.Minute

// startTraffic sends packets at a pace, more or less, until the end of the run.
func (w *world) startTraffic() {
	w.after(between(w.rng, w.pace/2, w.pace*3/2), func() {
		if w.stop {
			return
		}
		for _, h := range w.hosts {
			h.sendAll()
		}
		w.startTraffic()
	})
}

// probe sends packets at once, and again when those that are on their way have
// arrived: a SAD has changed.
func (w *world) probe() {
	if w.probing || w.stop {
		return
	}
	w.probing = true
	for i, wait := range []time.Duration{0, w.s.latency / 2, w.s.latency} {
		w.after(wait, func() {
			w.probing = w.probing && i < 2
			if w.stop {
				return // an Acquire behind Terminate would have all up again
			}
			for _, h := range w.hosts {
				h.sendAll()
			}
		})
	}
}

// sendAll sends a packet of each policy.
func (h *host) sendAll() {
	if h.flows == nil {
		for i := range h.peers {
			for j := range h.peers[i].Children {
				h.flows = append(h.flows, h.flow(h.peers[i].Name, h.peers[i].Children[j].Policy))
			}
		}
	}
	for _, f := range h.flows {
		h.sendData(f)
	}
}

func (h *host) flow(peer, policy string) *flow {
	k := flowKey{peer, policy}
	if h.traffic[k] == nil {
		h.traffic[k] = &flow{flowKey: k, lastAsk: -time.Hour}
	}
	return h.traffic[k]
}

// outbound is the SA to send on; nil: none.
func (f *flow) outbound(h *host) *entry {
	if f.version != h.version {
		f.newest, f.version = h.newest(f.peer, f.policy, sad.Outbound), h.version
	}
	return f.newest
}

// sendData sends a packet, or asks for an SA.
func (h *host) sendData(f *flow) {
	w, e := h.w, f.outbound(h)
	if e == nil {
		switch {
		case f.asked && w.now-f.since > patience:
			w.fail("%s: the Acquire of %s %s has no answer for %s", h.name, f.peer, f.policy, patience)
		case !f.asked && w.now-f.lastAsk > time.Second:
			f.asked, f.since, f.lastAsk = true, w.now, w.now
			h.step(ike.Acquire{Peer: f.peer, Policy: f.policy})
		}
		return
	}
	f.asked = false
	w.data.sent++
	local := e.Local
	if !local.Addr().IsValid() {
		local = netip.AddrPortFrom(h.addr, 4500)
	}
	w.send(h, datagram{from: local, to: e.Remote, packet: packet{h, e, w.data.sent}})
}

// refused answers an Acquire.
func (h *host) refused(a ike.Refuse) {
	h.w.log.note(h.w.now, "%s refuses %s %s", h.name, a.Peer, a.Policy)
	h.flow(a.Peer, a.Policy).asked = false
}

// receiveData takes a packet by the SA that it names. Where there is none, or one
// with other keys, something has gone wrong that faults do not excuse.
func (h *host) receiveData(d datagram) {
	w, p := h.w, &d.packet
	e := h.inbound(p.sa)
	switch {
	case e != nil && e.key != p.sa.key:
		w.fail("%s takes a packet of %s by other keys than it was sent with", h.name, w.log.spi(p.sa.SPI))
	case e != nil && !carries(e.Selectors, p.sa):
		w.fail("%s: the selectors of %s do not take a packet from %s to %s", h.name, w.log.spi(p.sa.SPI), p.sa.src, p.sa.dst)
	case e != nil && e.Encap != p.sa.Encap && !w.relayed:
		w.fail("%s: %s came in %s and is %s here", h.name, w.log.spi(p.sa.SPI), p.sa.Encap, e.Encap)
	case e != nil:
		w.data.taken++
		e.heard = w.now
		h.follow(e, d)
	case w.now <= h.excused[p.from.index]:
		w.data.excused++
	case p.sa.first:
		// The very first pair: the responder may send before its answer is there
		// (RFC 7296 2.8), and that may be lost.
		w.data.fresh++
	default:
		w.fail("%s has no SA %s for a packet of %s, whose SA it is", h.name, w.log.spi(p.sa.SPI), p.from.name)
	}
}

// heard says when packets last came on inbound SAs.
func (h *host) heard(a ike.AskHeard) ike.Heard {
	answer := ike.Heard{SPI: a.SPI, Never: true}
	last := time.Duration(0)
	for _, id := range a.IDs {
		e := h.sad[id]
		switch {
		case e == nil || id.Direction != sad.Inbound:
			h.w.fail("%s asks what came on %s, which it does not have", h.name, id)
		case e.heard > last:
			last = e.heard
			answer.Ago, answer.Never = h.w.now-last, false
		}
	}
	return answer
}

// inbound is the inbound SA that a packet of a peer's outbound one is for; nil:
// there is none.
func (h *host) inbound(out *entry) *entry {
	if out.twinVersion != h.version || out.twinOf != h {
		out.twin, out.twinOf, out.twinVersion = nil, h, h.version
		for id, x := range h.sad {
			if id.Direction == sad.Inbound && id.SPI == out.SPI && id.Protocol == out.Protocol {
				out.twin = x
			}
		}
	}
	return out.twin
}

// carries tells whether one of the selectors is for a packet that comes in.
func carries(selectors []spd.Selector, p *entry) bool {
	has := func(ranges []spd.AddrRange, a netip.Addr) bool {
		return slices.ContainsFunc(ranges, func(r spd.AddrRange) bool { return r.Contains(a) })
	}
	return slices.ContainsFunc(selectors, func(s spd.Selector) bool { return has(s.Local, p.dst) && has(s.Remote, p.src) })
}

// follow follows a peer to where its newest packet came from (RFC 7296 2.23).
func (h *host) follow(e *entry, d datagram) {
	if d.packet.number <= e.newest {
		return
	}
	e.newest = d.packet.number
	if e.Encap != sad.EncapUDP || e.BehindNAT || e.Static || d.from == e.Remote {
		return
	}
	old := e.Remote
	for _, x := range h.sad {
		if x.Peer == e.Peer && x.Remote == old {
			x.Remote = d.from
		}
	}
	h.step(ike.Moved{Peer: e.Peer, Old: old, New: d.from})
}
