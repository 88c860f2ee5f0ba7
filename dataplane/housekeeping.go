package dataplane

import (
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/natt"
	"github.com/adit-ipsec/adit/sad"
)

// housekeepInterval is how often everything that needs no packet is looked at.
// A block of reserved sequence numbers must outlast its second half's worth of
// it: 2^19 packets in 50 ms would be ten million packets per second.
const housekeepInterval = 50 * time.Millisecond

const _ = uint(sad.ReservationBlock/2 - 10_000_000/int(time.Second/housekeepInterval))

// housekeeper does what needs no packet: it extends reservations, says that an
// SA is exhausted or under attack, keeps NAT bindings open, and takes away what
// has expired or been replaced.
type housekeeper struct {
	gateway  *Gateway
	snapshot *sad.Snapshot // the one that watched was made of
	watched  []watched
	grams    []packet.Datagram
	now      time.Duration

	linkLooks int       // left in this round
	ended     []*sad.SA // this round
}

// watched is an SA and what was said about it. It is the SA itself that was
// spoken of, not its ID: a new SA may come under the name of an old one, and
// starts with counters and numbers of its own.
type watched struct {
	sa *sad.SA
	notes
}

// notes is what was said about an SA already.
type notes struct {
	exhausted     bool
	softExpired   bool
	authDrops     uint64
	authLook      time.Duration // not looked at again before
	lastKeepalive time.Duration
	keepaliveLook time.Duration // not due before, whatever is sent until then
	linkLook      time.Duration // not looked at again before
}

// housekeep runs until the gateway stops.
func (g *Gateway) housekeep() {
	h := housekeeper{gateway: g, grams: packet.NewDatagrams(1)}
	ticker := time.NewTicker(housekeepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-g.stop:
			return
		case <-ticker.C:
			h.round()
		}
	}
}

// probe runs the prober until the gateway stops.
func (g *Gateway) probe() {
	ticker := time.NewTicker(probeTick)
	defer ticker.Stop()
	g.path.prober.run(ticker.C)
}

// holder sends what is held while its worker waits in ReadBatch, until the gateway
// stops. It is a goroutine of its own, for sockets may block it.
func (g *Gateway) holder() {
	ticker := time.NewTicker(holdTick)
	defer ticker.Stop()
	for {
		select {
		case <-g.stop:
			return
		case <-g.holding.wake:
		case <-ticker.C:
		}
		g.tendHolds()
	}
}

func (h *housekeeper) round() {
	h.now = h.gateway.clock()
	h.linkLooks = linkLooks
	if s := h.gateway.sas.Load(); s != h.snapshot {
		h.watch(s)
	}
	for i := range h.watched {
		w := &h.watched[i]
		h.lifetime(w.sa, &w.notes)
		if w.sa.Direction == packet.Outbound {
			h.reserve(w.sa, &w.notes)
			h.keepalive(w.sa, &w.notes)
			h.pathMTU(w.sa, &w.notes)
		} else {
			h.authFailures(w.sa, &w.notes)
		}
	}
	h.destroy()
	h.gateway.retire(h.now)
	h.gateway.audits(h.now, false)
}

// watch turns to the SAs of s. What was said about those that stay is kept, and
// nothing is kept of those that are gone.
func (h *housekeeper) watch(s *sad.Snapshot) {
	said := make(map[*sad.SA]notes, len(h.watched))
	for _, w := range h.watched {
		said[w.sa] = w.notes
	}
	h.snapshot, h.watched = s, make([]watched, 0, s.Len())
	for sa := range s.All() {
		h.watched = append(h.watched, watched{sa, said[sa]})
	}
}

// reserve extends an SA's durable reservation in good time. When that fails
// the SA goes on to the end of what is reserved, and then its packets are
// dropped as OutSeqReservation: never a number that might be used again.
func (h *housekeeper) reserve(sa *sad.SA, n *notes) {
	if sa.NeedsReservation() {
		_ = sa.ExtendReservation() // seen by its effect: the counter, and the next round
	}
	if !n.exhausted && sa.Exhausted() {
		n.exhausted = h.emit(Event{Kind: SeqOverflow, Peer: sa.Peer, Policy: sa.Policy, SPI: sa.SPI, Protocol: sa.Protocol})
	}
}

// keepalive is RFC 3948 4: a keepalive is sent "if no other packet to the peer
// has been sent in M seconds", by the end that is behind the NAT, to where the
// peer is. "Reception of NAT-keepalive packets MUST NOT be used to detect whether
// a connection is live": neither sending nor receiving one touches an SA.
func (h *housekeeper) keepalive(sa *sad.SA, n *notes) {
	if sa.Keepalive == 0 || !sa.BehindNAT || sa.Encap != sad.EncapUDP || h.gateway.udp == nil {
		return
	}
	if h.now < n.keepaliveLook {
		return
	}
	due := max(time.Duration(sa.Stats().LastUsed), n.lastKeepalive) + sa.Keepalive
	if h.now < due {
		n.keepaliveLook = due
		return
	}
	n.lastKeepalive = h.now
	natt.FillKeepalive(&h.grams[0], sa.Ends().Local.Addr(), sa.Endpoint())
	if sent, _ := h.gateway.udp.WriteBatch(h.grams); sent == 1 {
		h.gateway.keepalives.Add(1)
	}
}

// authFailures reports, at most once per eventInterval and SA, how many packets
// failed since the last report.
func (h *housekeeper) authFailures(sa *sad.SA, n *notes) {
	if h.now < n.authLook {
		return
	}
	n.authLook = h.now + eventInterval
	drops := sa.Stats().AuthDrops
	if drops == n.authDrops {
		return
	}
	if h.emit(Event{Kind: AuthFailures, Peer: sa.Peer, Policy: sa.Policy, SPI: sa.SPI, Count: drops - n.authDrops}) {
		n.authDrops = drops
	}
}

func (h *housekeeper) emit(e Event) bool {
	e.At = h.now
	if h.gateway.emit(e) {
		return true
	}
	h.gateway.eventsLost.Add(1)
	return false
}
