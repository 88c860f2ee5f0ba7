package dataplane

import (
	"net/netip"
	"sync"
	"time"

	"github.com/adit-ipsec/adit/sad"
)

// A peer behind a NAT gets another port, or another address, when its NAT
// forgets the binding or the peer changes networks. RFC 7296 2.23: when a packet
// "whose integrity protection validates" comes from elsewhere, "a host that does
// not support other methods of recovery such as [...] MOBIKE [...], and that is
// not behind a NAT, SHOULD send all packets (including retransmission packets) to
// the IP address and port in the validated packet". So roam looks at each opened
// run, behind Mark, and moves the peer to where the newest packet came from.
//
// What keeps others from moving a peer:
//
//   - "dynamic address update should only be done in response to a new packet;
//     otherwise, an attacker can revert the addresses with old replayed packets."
//     New means here: no replay, and the highest number of its SA so far. A
//     packet that was held back, or took a longer way, does not move the peer.
//   - "dynamic updates can only be done safely if replay protection is enabled":
//     an SA without a window does not follow.
//   - "A host behind a NAT SHOULD NOT do this type of dynamic address update":
//     BehindNAT. Static is for MOBIKE, which has its own way, and for the file.
//   - Who sits on the path can pass packets on from any address. A peer moves
//     roamBurst times at once and then once every roamInterval; beyond that it is
//     left where it is, and the next packet is looked at again.
//
// Deviation: the numbers of two SAs of one peer cannot be compared. Who has held
// back the last packet of an SA that is idle since can move the peer with it,
// once; the peer's next packet moves it back.

// The flap limit, per peer.
const (
	roamBurst    = 10
	roamInterval = 500 * time.Millisecond
)

// Why a packet from elsewhere did not move its peer, as PeerElsewhere events say
// it.
const (
	stayStatic    = "the peer is static"
	stayBehindNAT = "this end is behind a NAT, so the peer is not"
	stayNoUDP     = "the peer's SAs are not in UDP"
	stayNoWindow  = "the SA has no replay window"
	stayAddress   = "no peer can be reached there"
	stayOlder     = "a newer packet came from where the peer is"
	stayTooOften  = "the peer moves too often"
	stayFamily    = "the SA's own address is of another family"
	stayTransport = "in transport mode the peer's address is that of its packets"
)

// roaming is what a gateway knows about the moves of its peers. Only slow paths
// come here.
type roaming struct {
	mu sync.Mutex
	// spent is, by peer, the time at which all its moves are forgotten: a
	// token bucket in one number. A peer that has never moved has none.
	spent map[string]time.Duration
}

// roam looks where the packets of an opened run came from, and lets the newest
// decide. It is one comparison a packet for a peer that stays.
func (w *inboundWorker) roam(r *inboundRun) {
	at := r.sa.Endpoint()
	newest, strays := -1, 0
	for i := range r.jobs { // in the order of their numbers
		if r.jobs[i].Err == nil {
			newest = i
			if moved(r.sa, at, r.from[i].gram.Addr) {
				strays++
			}
		}
	}
	if strays > 0 {
		w.elsewhere(r, newest)
	}
}

// moved tells whether UDP from there is not from where the SA's peer is. The
// port counts only where the SA's own packets are in UDP.
func moved(sa *sad.SA, at, from netip.AddrPort) bool {
	if !at.Addr().IsValid() {
		return false
	}
	return from.Addr() != at.Addr() || sa.Encap == sad.EncapUDP && from.Port() != at.Port()
}

// elsewhere moves the peer if the newest packet of the run says so, and counts
// the authentic packets that still came from elsewhere.
func (w *inboundWorker) elsewhere(r *inboundRun, newest int) {
	sa, why := r.sa, stayOlder
	if d := r.from[newest].gram; moved(sa, sa.Endpoint(), d.Addr) {
		var from netip.AddrPort
		if from, why = w.gateway.follow(sa, r.jobs[newest].Seq, d.Addr, d.Local, w.now); why == "" {
			w.moves.Add(1)
			w.emit(Event{Kind: PeerMoved, Peer: sa.Peer, SPI: sa.SPI, From: d.Addr, Old: from})
			why = stayOlder
		}
	}
	at, strays, last := sa.Endpoint(), uint64(0), netip.AddrPort{}
	for i := range r.jobs {
		if from := r.from[i].gram.Addr; r.jobs[i].Err == nil && moved(sa, at, from) {
			strays, last = strays+1, from
		}
	}
	if strays == 0 {
		return
	}
	w.strays.Add(strays)
	if w.strayPeer.allow(w.now, 1) {
		w.emit(Event{Kind: PeerElsewhere, Peer: sa.Peer, SPI: sa.SPI, From: last, Old: at, Why: why})
	}
}

// follow moves the peer of an inbound SA to where its packet seq came from, to,
// or says why not; local is the address that the packet was sent to. from is
// where the peer was.
func (g *Gateway) follow(sa *sad.SA, seq uint64, to netip.AddrPort, local netip.Addr, now time.Duration) (from netip.AddrPort, why string) {
	switch {
	case sa.Static:
		return from, stayStatic
	case sa.BehindNAT:
		return from, stayBehindNAT
	case !sa.Follows():
		return from, stayNoUDP
	case sa.ReplayWindow == 0:
		return from, stayNoWindow
	case sa.Mode == sad.TransportMode && to.Addr() != sa.Endpoint().Addr():
		return from, stayTransport
	case !followable(to) || to.Addr() == local || to.Addr() == sa.Ends().Local.Addr():
		return from, stayAddress
	}
	g.roaming.mu.Lock()
	defer g.roaming.mu.Unlock()
	// Behind the lock: another worker may have opened a newer packet, or moved
	// the peer, in between.
	if from = sa.Endpoint(); !moved(sa, from, to) {
		return from, stayOlder
	}
	if !sa.Newest(seq) {
		return from, stayOlder
	}
	if !g.roaming.may(sa.Peer, now) {
		return from, stayTooOften
	}
	old, n := g.sas.Move(sa.Peer, to)
	if n == 0 && moved(sa, sa.Endpoint(), to) {
		return from, stayFamily
	}
	g.roaming.count(g.sas.Load(), sa.Peer, now)
	if n > 0 {
		from = old
	}
	return from, ""
}

// Move puts SAs of a peer between other addresses, as a key source has agreed with
// it: MOBIKE (RFC 4555). No ids are all of the peer's SAs; they move all or none, see
// sad.Database.MoveEnds. Packets use the new addresses from now on, also those of a
// batch in hand. SAs that move so are Static: an authentic packet from elsewhere
// moves none of them.
func (g *Gateway) Move(peer string, ids []sad.ID, local, remote netip.AddrPort) error {
	return g.sas.MoveEnds(peer, ids, local, remote)
}

// followable tells whether a peer can be at that endpoint: one host, one port.
// A network's own broadcast address looks like any other here: the kernel
// neither delivers from it nor, without SO_BROADCAST, sends to it.
func followable(to netip.AddrPort) bool {
	a := to.Addr()
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255}) && to.Port() != 0
}

// may tells whether the peer may move now.
func (r *roaming) may(peer string, now time.Duration) bool {
	return max(r.spent[peer], now)+roamInterval <= now+roamBurst*roamInterval
}

// count takes one move from what the peer has.
func (r *roaming) count(sas *sad.Snapshot, peer string, now time.Duration) {
	if r.spent == nil {
		r.spent = map[string]time.Duration{}
	}
	if _, known := r.spent[peer]; !known && len(r.spent) >= sas.Len() {
		// No more entries than SAs, whatever peers come and go.
		for name, until := range r.spent {
			if until <= now {
				delete(r.spent, name)
			}
		}
	}
	r.spent[peer] = max(r.spent[peer], now) + roamInterval
}
