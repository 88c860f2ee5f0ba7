package dataplane

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// Dummy packets: RFC 4303 2.6, "the protocol value 59 (which means "no next
// header") MUST be used to designate a "dummy" packet. A transmitter MUST be
// capable of generating dummy packets marked with this value in the next
// protocol field". They are sent off the packet path, one at a time; the other
// end's part is decapsulate's.

// dummies is what sending them needs.
type dummies struct {
	sent atomic.Uint64

	mu      sync.Mutex // held for one packet; guards what follows
	scratch *esp.Scratch
	grams   []packet.Datagram // one, made with the first dummy
	job     [1]esp.Packet
}

// SendDummy sends a dummy packet on an outbound ESP SA: it looks like one that
// carries an inner packet of length bytes, TFC padding included where the SA has
// it, and the peer drops it without a word. It uses a sequence number up and
// counts as use of the SA, so that no keepalive is due, and nowhere as a packet
// carried. It may block as long as the socket does.
//
// The error says why nothing was sent: there is no such SA, its sequence
// numbers are used up (sad.ErrExhausted), the packet is too long, or what the
// socket says, wrapped.
//
// How many to send, and when, is the caller's matter. A burst longer than the
// peer's replay window can overtake packets that a worker has numbered and not
// sent yet.
func (g *Gateway) SendDummy(id sad.ID, length int) error {
	sa := g.outboundESP(id)
	switch {
	case sa == nil:
		return fmt.Errorf("dataplane: dummy packet: there is no outbound ESP SA %s", id)
	case length < 0 || length > packet.MaxLen:
		return fmt.Errorf("dataplane: dummy packet of %d bytes: use 0 to %d", length, packet.MaxLen)
	}
	// RFC 4303 2.6: "the plaintext portion of the payload, other than this
	// Next Header field, need not be well-formed, e.g., the rest of the
	// Payload Data may consist of only random bytes." Zeros serve as well:
	// encrypted they look the same, and without encryption the next header
	// tells what this is anyway. DF is as most inner packets have it.
	err := g.sendDummy(sa, make([]byte, g.tfcLen(sa, length)), sa.Tunnel.DF != sad.DFClear)
	if err == nil {
		g.dummies.sent.Add(1)
	}
	return err
}

func (g *Gateway) outboundESP(id sad.ID) *sad.SA {
	for sa := range g.sas.Load().All() {
		if sa.Direction == sad.Outbound && sa.Protocol == sad.ESP && sa.ID() == id {
			return sa
		}
	}
	return nil
}

// sendDummy sends a dummy packet with that plaintext, of exactly that length,
// on sa's wire. An error of the socket is wrapped; the sequence number is used
// up then too.
func (g *Gateway) sendDummy(sa *sad.SA, plaintext []byte, df bool) error {
	to, longest := g.out[0].wires[wireOf(sa)].to, maxESP(sa)
	switch {
	case g.stopping():
		return fmt.Errorf("dataplane: dummy packet on %s: %w", sa.ID(), net.ErrClosed)
	case to == nil:
		return fmt.Errorf("dataplane: dummy packet on %s: no socket for encapsulation %s to %s", sa.ID(), sa.Encap, sa.Endpoint().Addr())
	case sa.Bundle:
		return fmt.Errorf("dataplane: dummy packet on %s: inside AH there are none in this version", sa.ID())
	case sa.Suite.SealedLen(len(plaintext)) > longest:
		return fmt.Errorf("dataplane: dummy packet on %s: %d bytes are longer than one outer packet holds: use %d at most", sa.ID(), len(plaintext), sa.Suite.MaxPayload(longest))
	}
	d := &g.dummies
	d.mu.Lock()
	defer d.mu.Unlock()
	gram, err := d.seal(sa, plaintext)
	if err != nil {
		return fmt.Errorf("dataplane: dummy packet on %s: %w", sa.ID(), err)
	}
	gram.Addr, gram.Local = sa.Endpoint(), sa.Ends().Local.Addr()
	gram.TOS, gram.DF, gram.SegmentSize = sa.Tunnel.DSCP.Outer(dummyDSCP(sa))<<2, df, 0 // Not-ECT: there is no transport
	if sent, err := to.WriteBatch(d.grams); sent != 1 {
		return fmt.Errorf("dataplane: dummy packet on %s: %d bytes were not sent: %w", sa.ID(), gram.Len, err)
	}
	sa.Touch(int64(g.clock()), 0, 0)
	return nil
}

// dummyDSCP is the code point of a dummy packet: that of the SA's class, if it has
// one, for in another queue of the path it would fall out of the peer's window
// (RFC 4301 4.1).
func dummyDSCP(sa *sad.SA) uint8 {
	if len(sa.DSCPs) > 0 {
		return sa.DSCPs[0]
	}
	return 0
}

// errReservation: the durable block of numbers is used up, and housekeeping has
// not extended it yet.
var errReservation = errors.New("waiting for the next durable block of sequence numbers")

// seal makes the ESP packet in the one datagram.
func (d *dummies) seal(sa *sad.SA, plaintext []byte) (*packet.Datagram, error) {
	if d.grams == nil {
		d.scratch, d.grams = esp.NewScratch(), packet.NewDatagrams(1)
	}
	// RFC 4303 2.6: "All other ESP header and trailer fields (SPI, Sequence
	// Number, Padding, Pad Length, Next Header, and ICV) MUST be present in
	// dummy packets".
	seq, granted := sa.Reserve(1)
	switch {
	case granted == 1:
	case sa.Exhausted():
		return nil, sad.ErrExhausted
	case sa.Expired() != sad.NoLimit:
		return nil, sad.ErrExpired
	default:
		return nil, errReservation
	}
	gram, j := &d.grams[0], &d.job[0]
	gram.Off, gram.Len = packet.Headroom, sa.Suite.SealedLen(len(plaintext))
	start := gram.Off + esp.HeaderLen + sa.Suite.IVLen()
	j.Seq, j.NextHeader, j.Wire = seq, packet.ProtoNone, gram.Bytes()
	j.Payload = gram.Mem[start : start+copy(gram.Mem[start:], plaintext)]
	sa.Transform.Seal(d.scratch, sa.SPI, d.job[:])
	return gram, j.Err
}

// Longest payload of an outer packet: 65535 less a UDP header, and over IPv4
// less an IP header without options too (RFC 768, RFC 791, RFC 8200).
const (
	maxPayload4 = packet.MaxLen - ipv4Header
	maxPayload6 = packet.MaxLen
)

// maxESP is the longest ESP packet in bytes that an outer packet of sa holds.
func maxESP(sa *sad.SA) int {
	longest := maxPayload4
	if !sa.Endpoint().Addr().Is4() {
		longest = maxPayload6
	}
	if sa.Encap == sad.EncapUDP {
		longest -= udpHeader
	}
	return longest
}
