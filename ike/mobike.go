package ike

import (
	"crypto/hmac"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
)

// MOBIKE, RFC 4555: an IKE SA and its Child SAs go with an end whose address
// changes. Section 2.1: "the party that initiated the IKE_SA [...] is responsible for
// deciding which address pair is used for the IPsec SAs", of the first of a series that
// was rekeyed (ikeSA.opener). The other end only says which addresses it has.
//
//	initiator  pathChanged -> HDR, SK {N(UPDATE_SA_ADDRESSES), N(NAT_DETECTION...)} -->
//	responder                 <-- HDR, SK {N(NAT_DETECTION...)}
//	                          <-- HDR, SK {N(COOKIE2)}, if the address is a new one
//
// Not here: going to another address of the peer's because its present one does not
// answer. The peer's list is taken and not used: dead paths end by liveness.

// pathChanged: addresses of this host have come or gone.
func (m *Machine) pathChanged(in PathChanged) {
	for _, name := range m.names {
		p := m.peers[name]
		for _, sa := range slices.Clone(p.sas) {
			if sa.state != established || !sa.mobike || p.Role == Passive {
				continue
			}
			if sa.opener {
				m.moveAway(sa, in)
			} else {
				m.enqueue(sa, &addressesTask{addrs: in.Addrs})
			}
		}
	}
}

// moveAgain is how long an IKE SA waits that has lost its address and has no way to
// its peer: routes come after addresses.
const moveAgain = time.Second

// moveAway gives an IKE SA another address of this end, if it has lost its own.
// RFC 4555 3.5: the addresses of the IKE SA change at once, so that what is on its
// way is sent again from the new one; those of the Child SAs with the answer.
func (m *Machine) moveAway(sa *ikeSA, in PathChanged) {
	now := sa.path.local.Addr().Unmap()
	sa.timers.move.stop()
	if slices.Contains(in.Addrs, now) {
		return
	}
	to := in.source(sa.peer.Local.Unmap(), sa.path.remote.Addr().Unmap())
	if !to.IsValid() {
		sa.timers.move = m.after(moveAgain, func() { m.moveAway(sa, in) })
		return
	}
	m.float(sa) // 3.3: with MOBIKE, port 4500
	sa.path.local = netip.AddrPortFrom(to, sa.path.local.Port())
	m.event(sa, Event{Stage: StageMobility, Outcome: Began, Initiator: true, Reason: "address_gone", Text: fmt.Sprintf("%s has gone: from %s now", now, to)})
	m.enqueue(sa, &moveTask{path: sa.path})
}

// source is the address to speak to remote from: the configured one, where it is
// there; invalid: there is none now.
func (in *PathChanged) source(configured, remote netip.Addr) netip.Addr {
	if slices.Contains(in.Addrs, configured) {
		return configured
	}
	if in.Source != nil {
		if a := in.Source(remote); slices.Contains(in.Addrs, a) {
			return a
		}
		return netip.Addr{}
	}
	for _, a := range in.Addrs {
		if a.Is4() == remote.Is4() && !a.IsLoopback() && !a.IsLinkLocalUnicast() {
			return a
		}
	}
	return netip.Addr{}
}

// moveTask tells the peer that this end has moved.
type moveTask struct{ path path }

func (*moveTask) kind() wire.ExchangeType { return wire.Informational }

func (t *moveTask) request(m *Machine, sa *ikeSA) ([]wire.Payload, error) {
	if sa.path != t.path {
		return nil, errDone // moved again: another task says so
	}
	i, r := sa.spis()
	update := []wire.Payload{&wire.Notify{Kind: wire.NotifyUpdateSAAddresses}}
	return append(update, m.natNotifies(i, r, sa.path, sa.peer.ForceUDP)...), nil
}

// response: RFC 4555 3.5: "If a new address change occurs while waiting for the
// response, [the initiator] starts again from the first step (and ignores responses to
// this UPDATE_SA_ADDRESSES request)."
func (t *moveTask) response(m *Machine, sa *ikeSA, payloads []wire.Payload) {
	if sa.path != t.path {
		return
	}
	if r := refusedBy(payloads, sa.path.local.String()); r != nil {
		r.Fix = "the peer must take this address: see its policy, and NATs between the two"
		m.ended(sa, StageMobility, r.failure)
		return
	}
	sa.seenAs = seenAs(payloads)
	m.moveChildren(sa, payloads)
}

func (*moveTask) failed(*Machine, *ikeSA, failure) {} // the window ends the SA

// moveChildren has the Child SAs follow their IKE SA. RFC 4555 3.5: "If NAT Traversal
// is supported and NAT detection payloads were included, enables or disables NAT
// Traversal"; how ESP is carried belongs to an SA for its life here, so that another
// way takes new ones.
func (m *Machine) moveChildren(sa *ikeSA, payloads []wire.Payload) {
	before := sa.encapsulation()
	sa.carried = sa.path
	i, r := sa.spis()
	if here, there, found := detectNAT(payloads, i, r, sa.path.local, sa.path.remote); found {
		sa.behindNAT, sa.peerBehindNAT = here, there
	}
	m.count("moved")
	m.event(sa, Event{Stage: StageMobility, Outcome: Done, Initiator: sa.opener, Reason: "moved"})
	local, remote := m.espPath(sa)
	if ids := sa.sadIDs(); len(ids) > 0 {
		m.do(Move{Peer: sa.peer.Name, IDs: ids, Local: local, Remote: remote})
	}
	for _, c := range slices.Clone(sa.children) {
		if w := c.waiting; w != nil {
			w.params.Local, w.params.Remote = local, remote
		}
		if sa.opener && sa.encapsulation() != before {
			m.rekeyChild(sa, c)
		}
	}
}

// addressesTask tells the initiator which other addresses this end has (RFC 4555
// 3.6).
type addressesTask struct{ addrs []netip.Addr }

func (*addressesTask) kind() wire.ExchangeType { return wire.Informational }

func (t *addressesTask) request(_ *Machine, sa *ikeSA) ([]wire.Payload, error) {
	var out []wire.Payload
	for _, a := range t.addrs {
		if a == sa.path.local.Addr().Unmap() || a.IsLoopback() || a.IsLinkLocalUnicast() {
			continue
		}
		kind := wire.NotifyAdditionalIP6Address
		if a.Is4() {
			kind = wire.NotifyAdditionalIP4Address
		}
		out = append(out, &wire.Notify{Kind: kind, Data: a.AsSlice()})
	}
	if len(out) == 0 {
		out = append(out, &wire.Notify{Kind: wire.NotifyNoAdditionalAddresses})
	}
	return out[:min(len(out), maxAddresses)], nil
}

// maxAddresses bounds how many addresses are told.
const maxAddresses = 32

func (*addressesTask) response(*Machine, *ikeSA, []wire.Payload) {}

func (*addressesTask) failed(*Machine, *ikeSA, failure) {}

// mobikeRequest takes what an INFORMATIONAL has of MOBIKE, and gives what its answer
// has.
func (m *Machine) mobikeRequest(sa *ikeSA, payloads []wire.Payload) (answer []wire.Payload) {
	if !sa.mobike {
		return nil
	}
	switch {
	case wire.FindNotify(payloads, wire.NotifyUpdateSAAddresses) != nil:
		answer = m.peerMoved(sa, payloads)
	case wire.FindNotify(payloads, wire.NotifyNATDetectionSourceIP) != nil:
		// RFC 4555 3.8: "if the request includes them, the responder MUST also
		// include them in the response (but no other action is taken, unless
		// otherwise specified)."
		i, r := sa.spis()
		answer = m.natNotifies(i, r, sa.askedBy, sa.peer.ForceUDP)
	}
	// RFC 4555 3.7: "the recipient of an INFORMATIONAL request MUST copy the
	// notification as-is to the response."
	if n := wire.FindNotify(payloads, wire.NotifyCookie2); n != nil {
		answer = append(answer, &wire.Notify{Kind: wire.NotifyCookie2, Data: slices.Clone(n.Data)})
	}
	return answer
}

// peerMoved takes UPDATE_SA_ADDRESSES.
func (m *Machine) peerMoved(sa *ikeSA, payloads []wire.Payload) []wire.Payload {
	to := sa.askedBy
	if sa.opener {
		// Only the initiator moves an IKE SA.
		return []wire.Payload{&wire.Notify{Kind: wire.NotifyUnacceptableAddresses}}
	}
	if n := wire.FindNotify(payloads, wire.NotifyNoNATsAllowed); n != nil && !slices.Equal(n.Data, unchanged(to)) {
		// RFC 4555 3.9: "The exchange responder MUST verify that the contents of the
		// NO_NATS_ALLOWED notification match the addresses in the IP header." If not,
		// it answers UNEXPECTED_NAT_DETECTED and changes nothing.
		return []wire.Payload{&wire.Notify{Kind: wire.NotifyUnexpectedNATDetected}}
	}
	i, r := sa.spis()
	var answer []wire.Payload
	if wire.FindNotify(payloads, wire.NotifyNATDetectionSourceIP) != nil {
		answer = m.natNotifies(i, r, to, sa.peer.ForceUDP)
	}
	sa.path = to
	if sa.carried.remote.Addr() == to.remote.Addr() || sa.peer.Role == Passive {
		m.moveChildren(sa, payloads)
		return answer
	}
	// RFC 4555 3.7: the responder can "verify that the other party can actually receive
	// packets at the claimed address", before it sends its traffic there: else one that
	// is believed could have it flood somebody else. A passive end asks nothing: a
	// deviation from the SHOULD there. Of one that moves on without an answer only the
	// last address is asked.
	sa.ours.queue = slices.DeleteFunc(sa.ours.queue, func(t task) bool { _, is := t.(*routabilityTask); return is })
	m.enqueue(sa, &routabilityTask{path: to, payloads: payloads, cookie: m.random(cookie2Len)})
	return answer
}

// unchanged is the data of NO_NATS_ALLOWED as it has to be for a request that came
// by a path (RFC 4555 4.2.6): source and destination address, and both ports.
func unchanged(p path) []byte {
	out := slices.Concat(p.remote.Addr().Unmap().AsSlice(), p.local.Addr().Unmap().AsSlice())
	for _, port := range []uint16{p.remote.Port(), p.local.Port()} {
		out = append(out, byte(port>>8), byte(port))
	}
	return out
}

// cookie2Len is how long our COOKIE2 is. RFC 4555 4.2.5: "between 8 and 64 octets in
// length (inclusive)".
const cookie2Len = 16

// routabilityTask asks whether the peer is where it says.
type routabilityTask struct {
	path     path
	payloads []wire.Payload // of the peer's UPDATE_SA_ADDRESSES
	cookie   []byte
}

func (*routabilityTask) kind() wire.ExchangeType { return wire.Informational }

func (t *routabilityTask) request(_ *Machine, sa *ikeSA) ([]wire.Payload, error) {
	if sa.path != t.path {
		return nil, errDone // it has moved on
	}
	return []wire.Payload{&wire.Notify{Kind: wire.NotifyCookie2, Data: t.cookie}}, nil
}

// response: RFC 4555 3.7: "When processing the response, the original sender MUST
// verify that the value is the same one as sent. If the values do not match, the
// IKE_SA MUST be closed."
func (t *routabilityTask) response(m *Machine, sa *ikeSA, payloads []wire.Payload) {
	n := wire.FindNotify(payloads, wire.NotifyCookie2)
	if n == nil || !hmac.Equal(n.Data, t.cookie) {
		m.failedEvent(sa, StageMobility, failure{Reason: "cookie2", Text: "the peer does not give back the cookie that its new address was asked with"}, nil)
		m.deleteIKE(sa, "cookie2")
		m.startAgain(sa.peer)
		return
	}
	if sa.path == t.path {
		m.moveChildren(sa, t.payloads)
	}
}

func (*routabilityTask) failed(*Machine, *ikeSA, failure) {}

// liveness is the question whether the peer lives. RFC 4555 3.8: "When the initiator
// is behind a NAT (as detected earlier using the NAT_DETECTION_SOURCE_IP and
// NAT_DETECTION_DESTINATION_IP notifications), it SHOULD include these notifications
// in DPD messages and compare the received NAT_DETECTION_DESTINATION_IP notifications
// with the value from the previous UPDATE_SA_ADDRESSES response".
func (sa *ikeSA) liveness() task {
	if sa.mobike && sa.opener && sa.behindNAT {
		return &mappingTask{path: sa.path}
	}
	return livenessTask{}
}

// mappingTask is a liveness check that asks as what the peer sees this end.
type mappingTask struct {
	livenessTask
	path path
}

func (t *mappingTask) request(m *Machine, sa *ikeSA) ([]wire.Payload, error) {
	if _, err := t.livenessTask.request(m, sa); err != nil {
		return nil, err
	}
	i, r := sa.spis()
	return m.natNotifies(i, r, sa.path, false), nil
}

// response: "If the values do not match, the IP address and/or port seen by the
// responder has changed, and the initiator SHOULD send UPDATE_SA_ADDRESSES". What
// the first answer of an IKE SA says is taken as it is: there is nothing to compare.
func (t *mappingTask) response(m *Machine, sa *ikeSA, payloads []wire.Payload) {
	now := seenAs(payloads)
	before := sa.seenAs
	if now != "" {
		sa.seenAs = now
	}
	if before != "" && now != "" && before != now && sa.path == t.path {
		m.enqueue(sa, &moveTask{path: sa.path})
	}
}

// seenAs is the hash of this end's address as the peer sees it; "": it says none.
func seenAs(payloads []wire.Payload) string {
	n := wire.FindNotify(payloads, wire.NotifyNATDetectionDestinationIP)
	if n == nil {
		return ""
	}
	return string(n.Data)
}
