package dataplane

import (
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/tun"
	"github.com/adit-ipsec/adit/sad"
)

// Traffic flow confidentiality padding, outbound: RFC 4303 2.7, "An IPsec
// implementation SHOULD be capable of padding traffic by adding bytes after the
// end of the Payload Data, prior to the beginning of the Padding field." What is
// sealed is the inner packet and zeros behind it: "No requirements for the value
// of this padding are established by this standard", and encryption hides them.
// The inner header says where the packet ends, and "MUST NOT be modified to
// reflect this padding": the peer cuts what lies behind, as decapsulate does.
//
// Whether the peer takes it is the key source's matter: "the SA management
// protocol MUST negotiate this service prior to a transmitter employing it".
//
// Everything is counted by the inner packets' own lengths, as the peer counts it.

// tfcLen is how many bytes are sealed for an inner packet of that many: the SA's
// TFC length, never more than the path takes in one outer packet, and never
// less than the packet. A packet beyond it is sent unpadded.
func (g *Gateway) tfcLen(sa *sad.SA, inner int) int {
	if sa.TFC == sad.TFCOff {
		return inner
	}
	return g.padded(sa, inner)
}

// padded is tfcLen with TFC, apart so that tfcLen without it is a branch.
//
//go:noinline
func (g *Gateway) padded(sa *sad.SA, inner int) int {
	length := g.longestInner(sa)
	if sa.TFC != sad.TFCMTU {
		length = min(length, int(sa.TFC))
	}
	return max(length, inner)
}

// ethernetMTU is what a path is taken to hold as long as nothing is known of it.
const ethernetMTU = 1500

// longestInner is the longest inner packet in bytes that goes to sa's peer in
// one outer packet, and less where the TUN's MTU was set for less at the start.
func (g *Gateway) longestInner(sa *sad.SA) int {
	inner := sa.InnerMTU()
	if inner == sa.LongestInner() { // nothing is known
		inner = sa.MaxInner(ethernetMTU)
	}
	return min(inner, g.tunMTU)
}

// tunMTU is the device's MTU in bytes; an Ethernet's if it cannot say.
func tunMTU(dev tun.Device) int {
	if mtu, err := dev.MTU(); err == nil && mtu > 0 {
		return mtu
	}
	return ethernetMTU
}

// padRun pads the jobs of a run, which lie in the slots of their packets.
func (w *outboundWorker) padRun() {
	r := &w.run
	for i := range r.jobs {
		p := r.bufs[i]
		n := w.gateway.tfcLen(r.sa, p.Len)
		if n == p.Len {
			continue
		}
		start := p.Off - esp.HeaderLen - r.sa.Suite.IVLen()
		end := start + r.sa.Suite.SealedLen(n)
		if end > len(p.Mem) {
			// A device put the packet far behind the headroom; there is
			// room for whatever a path takes right behind that.
			copy(p.Mem[packet.Headroom:], p.Bytes())
			start, end = start-p.Off+packet.Headroom, end-p.Off+packet.Headroom
			p.Off = packet.Headroom
		}
		if end > len(p.Mem) { // no slot at all: it must not leave unpadded
			r.jobs[i].Wire = nil // esp.ErrRoom
			continue
		}
		clear(p.Mem[p.Off+p.Len : p.Off+n])
		r.jobs[i].Payload, r.jobs[i].Wire = p.Mem[p.Off:p.Off+n], p.Mem[start:end]
	}
}

// A slot holds whatever longestInner allows, and its trailer.
const _ = uint(packet.SlotLen - packet.Headroom - ethernetMTU - maxTrailer)

// padSegment moves a segment from its superpacket to its place on the wire and
// pads it to n bytes. Wire holds n bytes sealed.
func padSegment(j *esp.Packet, sa *sad.SA, n int) {
	start := esp.HeaderLen + sa.Suite.IVLen()
	payload := j.Wire[start : start+n]
	clear(payload[copy(payload, j.Payload):])
	j.Payload = payload
}
