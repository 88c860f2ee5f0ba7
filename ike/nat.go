package ike

import (
	"crypto/sha1" //nolint:gosec // RFC 7296 2.23 has SHA-1, against no adversary
	"encoding/binary"
	"net/netip"

	"github.com/adit-ipsec/adit/ike/wire"
)

// NAT traversal, RFC 7296 2.23.

// natHash is a "SHA-1 digest of the SPIs (in the order they appear in the header), IP
// address, and port from which this packet was sent", or to which.
func natHash(initiator, responder wire.SPI, a netip.AddrPort) []byte {
	h := sha1.New() //nolint:gosec // see above
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], uint64(initiator))
	binary.BigEndian.PutUint64(b[8:], uint64(responder))
	h.Write(b[:])
	h.Write(a.Addr().Unmap().AsSlice())
	h.Write(binary.BigEndian.AppendUint16(nil, a.Port()))
	return h.Sum(nil)
}

// localTo is the address that a peer is spoken to from; invalid: the kernel's choice.
func (m *Machine) localTo(p *peer) netip.Addr {
	if p.Local.IsValid() || m.source == nil {
		return p.Local
	}
	return m.source(p.Remote)
}

// natNotifies are the two notifications of this end's message from local to
// remote. To pretend a NAT, the source is one that nobody has.
func (m *Machine) natNotifies(initiator, responder wire.SPI, p path, pretend bool) []wire.Payload {
	source := natHash(initiator, responder, p.local)
	if pretend {
		source = m.random(len(source))
	}
	return []wire.Payload{
		&wire.Notify{Kind: wire.NotifyNATDetectionSourceIP, Data: source},
		&wire.Notify{Kind: wire.NotifyNATDetectionDestinationIP, Data: natHash(initiator, responder, p.remote)},
	}
}

// detectNAT reads the peer's notifications. found is false where there are none:
// the peer cannot traverse NATs.
//
// RFC 7296 2.23: the other end is behind a NAT if none of its source hashes is that
// of the packet; this end is, if the destination hash is not.
func detectNAT(payloads []wire.Payload, initiator, responder wire.SPI, local, remote netip.AddrPort) (here, there, found bool) {
	theirs, ours := natHash(initiator, responder, remote), natHash(initiator, responder, local)
	here, there = true, true
	var source, destination bool
	for _, n := range wire.All[*wire.Notify](payloads) {
		switch n.Kind {
		case wire.NotifyNATDetectionSourceIP:
			source = true
			there = there && string(n.Data) != string(theirs)
		case wire.NotifyNATDetectionDestinationIP:
			destination = true
			here = here && string(n.Data) != string(ours)
		}
	}
	return here && destination, there && source, source || destination
}

// float moves the initiator to the ports of NAT traversal. RFC 7296 2.23: "The
// IKE initiator MUST check the NAT_DETECTION_SOURCE_IP or
// NAT_DETECTION_DESTINATION_IP payloads if present, and if they do not match the
// addresses in the outer packet, MUST tunnel all future IKE and ESP packets
// associated with this IKE SA over UDP port 4500." RFC 4555 3.3 has those that can
// do MOBIKE move always.
func (m *Machine) float(sa *ikeSA) {
	if sa.path.natt {
		return
	}
	sa.path.natt = true
	sa.path.local = netip.AddrPortFrom(sa.path.local.Addr(), m.natt)
	sa.path.remote = netip.AddrPortFrom(sa.path.remote.Addr(), natPort(sa.peer))
}

func natPort(p *peer) uint16 {
	if p != nil && p.NATTPort != 0 {
		return p.NATTPort
	}
	return 4500
}

// hear notes an authentic message that is no retransmission, and where it came
// from.
//
// RFC 7296 2.23: "a host that does not support other methods of recovery such as IKEv2
// Mobility and Multihoming (MOBIKE) [MOBIKE], and that is not behind a NAT, SHOULD send
// all packets (including retransmission packets) to the IP address and port in the
// validated packet"; "A host behind a NAT SHOULD NOT do this type of dynamic address
// update if a validated packet has different port and/or address values because it
// opens a possible DoS attack"; "Also, dynamic address update should only be done in
// response to a new packet; otherwise, an attacker can revert the addresses". Before
// anybody is authenticated the responder answers where the request came from anyway,
// and that is where the SA is: so the initiator moves to port 4500 (2.23).
func (m *Machine) hear(sa *ikeSA, in Packet) {
	sa.heard = m.now
	now := path{local: in.Local, remote: in.Remote, natt: in.NATT}
	switch {
	case now == sa.path:
		return
	case sa.state == halfOpen:
		sa.path = now
	case sa.mobike || sa.behindNAT || !sa.peerBehindNAT:
		// RFC 4555 3.8: with MOBIKE the initiator says where it is.
		return
	case !now.natt:
		return
	default:
		m.follow(sa, now)
	}
}

// follow moves an IKE SA and its Child SAs to where the peer is now.
func (m *Machine) follow(sa *ikeSA, to path) {
	sa.path, sa.carried = to, to
	m.count("moved")
	m.event(sa, Event{Stage: StageMobility, Outcome: Done, Reason: "moved", Text: "the peer's NAT gave it another address or port"})
	if ids := sa.sadIDs(); len(ids) > 0 {
		m.do(Move{Peer: sa.peer.Name, IDs: ids, Local: to.local, Remote: to.remote})
	}
}

// moved follows the dataplane, which has seen authentic ESP from elsewhere.
func (m *Machine) moved(in Moved) {
	p := m.peers[in.Peer]
	if p == nil {
		return
	}
	for _, sa := range p.sas {
		if sa.path.natt && sa.path.remote == in.Old && !sa.mobike && !sa.behindNAT {
			sa.path.remote, sa.carried.remote = in.New, in.New
			m.event(sa, Event{Stage: StageMobility, Outcome: Done, Reason: "moved", Text: "the dataplane follows the peer to another address or port"})
		}
	}
}
