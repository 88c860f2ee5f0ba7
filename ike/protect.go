package ike

import (
	"crypto/sha256"
	"errors"

	"github.com/adit-ipsec/adit/ike/wire"
)

// Between messages and payloads: SK, and the fragments of RFC 7383.

// maxFragments is how many fragments one message may come in. 64 KiB in packets
// of 576 bytes take 131; RFC 7383 2.5 leaves the limit to the receiver.
const maxFragments = 256

// Bytes of the headers in front of an IKE message, and the size of packets that
// fragments are cut for where Peer.FragmentSize is 0. RFC 7383 2.5.1 recommends IP
// datagrams of at most 1280 bytes for IPv6 and 576 for IPv4; larger where it is known
// that they pass. Deviation: 1280 for both, as strongSwan does, since IPv4 paths below
// that are rare and FragmentSize is there for them.
const (
	ipv4Header      = 20
	ipv6Header      = 40
	udpHeader       = 8
	nonESPMarker    = 4
	fragmentPacket  = 1280
	skHeader        = 4 // the generic header of SK
	skfHeader       = 8
	minFragmentSize = 576
)

// digest names a datagram.
type digest [sha256.Size]byte

func digestOf(b []byte) digest { return sha256.Sum256(b) }

// opened is what stood inside SK, put together where it came in fragments.
type opened struct {
	first         wire.PayloadType
	inner         []byte // in a buffer of its own
	firstDatagram digest // what a retransmission is known by
}

// parse reads the payloads, and holds them against the schema of their exchange.
func (o *opened) parse(x wire.ExchangeType, response bool) ([]wire.Payload, error) {
	payloads, err := wire.ParsePayloads(o.first, o.inner)
	if err != nil {
		return nil, err
	}
	return payloads, wire.Check(x, response, payloads)
}

// asCritical is the type of the payload that was critical and unknown.
func asCritical(err error) (wire.PayloadType, bool) {
	var c *wire.CriticalError
	if errors.As(err, &c) {
		return c.Type, true
	}
	return 0, false
}

// seal makes the datagrams of a message: one, or fragments of it.
func (m *Machine) seal(sa *ikeSA, h wire.Header, payloads []wire.Payload) [][]byte {
	first, inner := wire.AppendPayloads(nil, payloads...)
	if h.Exchange == wire.IKEIntermediate {
		sa.first.sentIntermediate(sa, h, first, inner)
	}
	limit := sa.datagramLimit()
	if bodyLen := sa.keys.SealedLen(len(inner)); !sa.fragmentation || wire.HeaderLen+skHeader+bodyLen <= limit {
		return [][]byte{m.sealOne(sa, h, wire.Protected{First: first}, inner)}
	}
	room := sa.keys.MaxInner(limit - wire.HeaderLen - skfHeader)
	total := (len(inner) + room - 1) / room
	var all [][]byte
	for n := 1; n <= total; n++ {
		part := inner[:min(room, len(inner))]
		inner = inner[len(part):]
		// RFC 7383 2.5: the Next Payload field of the first fragment is the type
		// of the first payload, that of the others "MUST be set to zero".
		all = append(all, m.sealOne(sa, h, wire.Protected{First: first, Fragment: uint16(n), Total: uint16(total)}, part))
		first = wire.PayloadNone
	}
	m.count("fragmented_messages")
	return all
}

func (m *Machine) sealOne(sa *ikeSA, h wire.Header, p wire.Protected, inner []byte) []byte {
	begin := wire.BeginProtected(h, nil, p, sa.keys.SealedLen(len(inner)))
	return sa.keys.Seal(sa.initiator, begin, inner, m.rand)
}

// datagramLimit is how long an IKE message may be on its path before it is cut.
func (sa *ikeSA) datagramLimit() int {
	size := fragmentPacket
	if sa.peer != nil && sa.peer.FragmentSize != 0 {
		size = max(sa.peer.FragmentSize, minFragmentSize)
	}
	size -= udpHeader + ipv6Header
	if sa.path.remote.Addr().Unmap().Is4() {
		size += ipv6Header - ipv4Header
	}
	if sa.path.natt {
		size -= nonESPMarker
	}
	return size
}

// reassembly is a message that comes in fragments. It only ever holds fragments
// that were authentic, of the one message ID that its window expects.
type reassembly struct {
	total int
	have  int
	bytes int
	parts [][]byte
	first wire.PayloadType
	key   digest // of fragment 1
}

// open authenticates a message, and gives what is inside once all of it is there:
// nil and "" mean that more is to come, nil and the name of a drop that it is not
// for us.
func (m *Machine) open(sa *ikeSA, msg *wire.Message, r *reassembly) (*opened, string) {
	p := msg.Protected
	switch {
	case p == nil:
		return nil, "unprotected"
	case len(msg.Payloads) > 0:
		// Nothing that this end speaks has payloads in front of SK.
		return nil, "payloads_outside"
	case sa.keys == nil:
		return nil, "no_keys"
	case p.Total == 0:
		inner, err := sa.keys.Open(!sa.initiator, msg)
		if err != nil {
			return nil, "not_authentic"
		}
		return &opened{first: p.First, inner: inner, firstDatagram: digestOf(msg.Raw)}, ""
	case !sa.fragmentation:
		return nil, "fragment_not_negotiated"
	}
	return m.openFragment(sa, msg, r)
}

// openFragment takes one fragment, as RFC 7383 2.6 has it: one that is there
// already, or of fewer fragments than are known of, is dropped before anything is
// computed; then it is authenticated; one of more fragments starts all over.
func (m *Machine) openFragment(sa *ikeSA, msg *wire.Message, r *reassembly) (*opened, string) {
	number, total := int(msg.Protected.Fragment), int(msg.Protected.Total)
	switch {
	case total > maxFragments:
		return nil, "fragment_too_many"
	case number < 1 || number > total:
		return nil, "fragment_number"
	case total < r.total:
		return nil, "fragment_of_fewer"
	case total == r.total && r.parts[number-1] != nil:
		return nil, "fragment_duplicate"
	case number != 1 && msg.Protected.First != wire.PayloadNone:
		return nil, "fragment_next_payload"
	}
	inner, err := sa.keys.Open(!sa.initiator, msg)
	switch {
	case err != nil:
		return nil, "not_authentic"
	case len(inner) == 0:
		return nil, "fragment_empty"
	}
	if total > r.total {
		*r = reassembly{total: total, parts: make([][]byte, total)}
	}
	limit := m.limits.FragmentMessage
	if sa.state == halfOpen {
		limit = min(limit, maxUnproved)
	}
	if r.bytes+len(inner) > limit {
		*r = reassembly{}
		return nil, "fragment_message_too_long"
	}
	r.parts[number-1] = inner
	r.have++
	r.bytes += len(inner)
	if number == 1 {
		r.first, r.key = msg.Protected.First, digestOf(msg.Raw)
	}
	if r.have < r.total {
		return nil, ""
	}
	return r.whole(), ""
}

// whole is the message of all its fragments.
func (r *reassembly) whole() *opened {
	out := &opened{first: r.first, firstDatagram: r.key, inner: make([]byte, 0, r.bytes)}
	for _, p := range r.parts {
		out.inner = append(out.inner, p...)
	}
	return out
}
