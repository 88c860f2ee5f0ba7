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
// SA is exhausted or under attack, and keeps NAT bindings open.
type housekeeper struct {
	gateway *Gateway
	said    map[sad.ID]notes
	grams   []packet.Datagram
	now     time.Duration
}

// notes is what was said about an SA already.
type notes struct {
	exhausted     bool
	authDrops     uint64
	authSaid      time.Duration
	lastKeepalive time.Duration
}

// housekeep runs until the gateway stops.
func (g *Gateway) housekeep() {
	h := housekeeper{gateway: g, said: map[sad.ID]notes{}, grams: packet.NewDatagrams(1)}
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

func (h *housekeeper) round() {
	h.now = h.gateway.clock()
	snapshot := h.gateway.sas.Load()
	for sa := range snapshot.All() {
		id := sa.ID()
		before := h.said[id]
		after := before
		if sa.Direction == packet.Outbound {
			h.reserve(sa, &after)
			h.keepalive(sa, &after)
		} else {
			h.authFailures(sa, &after)
		}
		if after != before {
			h.said[id] = after
		}
	}
	if len(h.said) > 2*snapshot.Len()+16 {
		clear(h.said) // SAs come and go; what is repeated once is no harm
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
		n.exhausted = h.emit(Event{Kind: SeqOverflow, Peer: sa.Peer, Policy: sa.Policy, SPI: sa.SPI})
	}
}

// keepalive is RFC 3948 4: a keepalive is sent "if no other packet to the peer
// has been sent in M seconds".
func (h *housekeeper) keepalive(sa *sad.SA, n *notes) {
	if sa.Keepalive == 0 || sa.Encap != sad.EncapUDP || h.gateway.udp == nil {
		return
	}
	last := max(time.Duration(sa.Stats().LastUsed), n.lastKeepalive)
	if h.now-last < sa.Keepalive {
		return
	}
	n.lastKeepalive = h.now
	natt.FillKeepalive(&h.grams[0], sa.Local.Addr(), sa.Remote)
	if sent, _ := h.gateway.udp.WriteBatch(h.grams); sent == 1 {
		h.gateway.keepalives.Add(1)
	}
}

// authFailures reports, at most once per eventInterval and SA, how many packets
// failed since the last report.
func (h *housekeeper) authFailures(sa *sad.SA, n *notes) {
	drops := sa.Stats().AuthDrops
	if drops == n.authDrops || n.authSaid != 0 && h.now-n.authSaid < eventInterval {
		return
	}
	if h.emit(Event{Kind: AuthFailures, Peer: sa.Peer, Policy: sa.Policy, SPI: sa.SPI, Count: drops - n.authDrops}) {
		n.authDrops, n.authSaid = drops, max(h.now, 1)
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
