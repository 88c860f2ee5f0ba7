package dataplane

import (
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// The outer header of tunnel mode: RFC 4301 5.1.2 and RFC 6040. The sockets
// write it; these functions decide its fields. Its TTL is the socket's own
// default, and the inner TTL is left alone here: RFC 4301 5.1.2.1 note 2 has
// it "decremented by the encapsulator prior to forwarding", and forwarding
// into and out of the TUN is the kernel's work, which does so.

// outerTrafficClass is the traffic class of the outer header for an inner
// packet with header h.
func outerTrafficClass(t *sad.Tunnel, h *packet.Header) uint8 {
	return t.DSCP.Outer(h.TrafficClass>>2)<<2 | outerECN(t.ECN, h.TrafficClass&3)
}

// outerECN is RFC 6040 4.1: normal mode copies the inner ECN field, and
// compatibility mode, for a peer that does not know it, sends Not-ECT.
func outerECN(mode sad.ECNMode, inner uint8) uint8 {
	if mode == sad.ECNCompat {
		return packet.NotECT
	}
	return inner
}

// innerECN is figure 4 of RFC 6040: the inner ECN field after decapsulation.
// ok is false in the one cell where the packet must be dropped: congestion was
// experienced by a packet whose transport cannot hear of it.
func innerECN(inner, outer uint8) (ecn uint8, ok bool) {
	switch {
	case inner == packet.NotECT:
		return packet.NotECT, outer != packet.CE
	case outer == packet.CE:
		return packet.CE, true
	case inner == packet.ECT0 && outer == packet.ECT1:
		return packet.ECT1, true
	}
	return inner, true
}

// outerDF is whether the outer IPv4 header has Don't Fragment set, over an inner
// packet of that many bytes. Copy speaks of IPv4 in IPv4 (RFC 4301 8.1); over IPv4
// an IPv6 packet travels with it clear, as RFC 4213 3.2.1 has it, and so passes a
// path that is narrower than was learned. Over IPv6, clear lets this host's kernel
// cut the outer packet.
//
// Deviation from set: IPv6 promises its users 1280 bytes (RFC 8200 5), and a
// Packet Too Big message cannot ask for less. Such a packet leaves with DF clear
// where the path is known to take less in one piece.
func outerDF(sa *sad.SA, h *packet.Header, length int) bool {
	switch sa.Tunnel.DF {
	case sad.DFSet:
		return h.Version == 4 || length <= sa.InnerMTU()
	case sad.DFClear:
		return false
	}
	return h.Version == 4 && h.DF
}
