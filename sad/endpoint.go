package sad

import (
	"net/netip"
	"slices"

	"github.com/adit-ipsec/adit/internal/packet"
)

// An SA is made with the peer's endpoint, Remote, and the peer may turn out to
// be elsewhere: a NAT between the two gave it another address or port. RFC 7296
// 2.23 has the end that is not behind the NAT follow. When that may be done is
// the dataplane's matter; here is what a move does, and what becomes of it when
// SAs come and go.

// Ends is where an SA is now: this end and the peer.
type Ends struct {
	Local, Remote       netip.AddrPort
	oldLocal, oldRemote netip.Addr // before the last move; the zero value: there was none
}

// Here tells whether a packet of the SA may have been sent to that address: to the
// one it has now, to the one before, from which packets are on their way, or to
// any where it has none.
func (e *Ends) Here(local netip.Addr) bool {
	return local == e.Local.Addr() || local == e.oldLocal || !concrete(e.Local.Addr())
}

// There is Here for the address that the packet came from.
func (e *Ends) There(remote netip.Addr) bool {
	return remote == e.Remote.Addr() || remote == e.oldRemote
}

// Ends is where the SA is now, both as of one moment: Local and Remote, until
// Database.Move and MoveEnds. It is one atomic load and allocates nothing. Nobody
// writes to what it points to.
func (sa *SA) Ends() *Ends { return sa.ends.Load() }

// Endpoint is where the peer is now: Ends().Remote.
func (sa *SA) Endpoint() netip.AddrPort { return sa.ends.Load().Remote }

// put makes at the peer's endpoint.
func (sa *SA) put(at netip.AddrPort) { sa.move(sa.Ends().Local, at) }

// move puts the SA between these ends. Behind another address lies another path:
// what routers said of the old one is forgotten.
func (sa *SA) move(local, remote netip.AddrPort) {
	was := sa.Ends()
	if local == was.Local && remote == was.Remote {
		return
	}
	sa.ends.Store(&Ends{local, remote, was.Local.Addr(), was.Remote.Addr()})
	if sa.Direction == packet.Outbound && (remote.Addr() != was.Remote.Addr() || local.Addr() != was.Local.Addr()) {
		sa.path.mu.Lock()
		defer sa.path.mu.Unlock()
		sa.path.learned = 0
		sa.derive()
	}
}

// Follows tells whether the SA's endpoint may change at all: its packets are in
// UDP, it is not Static, and this end is not BehindNAT.
//
// RFC 7296 2.23: "a host behind a NAT SHOULD NOT do this type of dynamic address
// update if a validated packet has different port and/or address values because
// it opens a possible DoS attack". Without UDP there is no NAT to follow:
// protocol 50 passes none.
func (sa *SA) Follows() bool { return sa.Encap == EncapUDP && !sa.Static && !sa.BehindNAT }

// reaches tells whether the SA's peer can be at that address: an SA that knows its
// own address stays in its family, and one in transport mode ends where the
// packets themselves do, so that only the port can be another.
func (sa *SA) reaches(at netip.Addr) bool {
	if sa.Mode == TransportMode {
		return at == sa.Endpoint().Addr()
	}
	local := sa.Ends().Local.Addr()
	return !local.IsValid() || local.IsUnspecified() || local.Is4() == at.Is4()
}

// Newest tells whether seq is the highest number that the inbound SA has
// authenticated. It is false without a replay window: such an SA cannot tell. It
// takes the window's lock: not for every packet.
func (sa *SA) Newest(seq uint64) bool { return sa.window != nil && sa.edge() == seq }

// Move makes to the endpoint of all installed SAs of the peer, both directions,
// except those that do not follow, those whose own address is of another family,
// and in transport mode those at another address. moved is how many outbound SAs send elsewhere from now on, and from is
// where the last of them sent to before. What an older Snapshot holds moves too.
func (d *Database) Move(peer string, to netip.AddrPort) (from netip.AddrPort, moved int) {
	to = unmap(to)
	// Under the lock that Install holds: an SA that is installed at the same
	// time sees the move, or is seen by it.
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, sa := range d.Load().ofPeer(peer) {
		if sa.Peer != peer || !sa.Follows() || !sa.reaches(to.Addr()) {
			continue
		}
		if at := sa.Endpoint(); sa.Direction == packet.Outbound && at != to {
			from, moved = at, moved+1
		}
		sa.put(to)
	}
	return from, moved
}

// ofPeer is the SAs of the peer, and of others whose name has the same hash, in
// the order of installation.
func (s *Snapshot) ofPeer(peer string) []*SA {
	hash := peerHash(peer)
	return s.peers[outboundShard(hash)][hash]
}

// place puts SAs that are being installed where their peers are now.
//
// An outbound SA that was made for the same endpoint as others of its peer goes
// where those have been moved: a reload gives the file's address again, and a
// new generation the one that the keys were negotiated with. One that was made
// for another endpoint stays there: whoever made it knows better.
//
// Inbound SAs take the endpoint from the outbound ones, whichever comes first,
// so that a packet from where the gateway does not send to is seen as a move.
func (s *Snapshot) place(sas []*SA) {
	for _, sa := range sas {
		if !sa.Follows() {
			continue
		}
		if sa.Direction == packet.Inbound {
			if out := s.sibling(sa, func(o *SA) bool { return o.Direction == packet.Outbound }); out != nil {
				sa.put(out.Endpoint())
			}
			continue
		}
		if other := s.sibling(sa, func(o *SA) bool { return o.Remote == sa.Remote && o.Endpoint() != o.Remote }); other != nil {
			sa.put(other.Endpoint())
		}
		for _, in := range s.ofPeer(sa.Peer) {
			if in.Direction == packet.Inbound && in.Peer == sa.Peer && in.Follows() && in.reaches(sa.Endpoint().Addr()) {
				in.put(sa.Endpoint())
			}
		}
	}
}

// sibling is the newest other SA of sa's peer that follows, is where sa reaches,
// and fits; nil: none.
func (s *Snapshot) sibling(sa *SA, fits func(*SA) bool) *SA {
	for _, other := range slices.Backward(s.ofPeer(sa.Peer)) {
		if other != sa && other.Peer == sa.Peer && other.Follows() && sa.reaches(other.Endpoint().Addr()) && fits(other) {
			return other
		}
	}
	return nil
}
