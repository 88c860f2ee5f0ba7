package dataplane

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/adit-ipsec/adit/ah"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// One packet outbound that is made with its IP header: AH, which covers the
// header, transport mode, which keeps it, and bundles of AH around ESP. It comes
// from step 4 of the walk (outbound.go):
//
//	whole                  each segment of a superpacket by itself       drop OutSegment
//	 4 plan                lengths, the wire; transport mode is between the SA's own ends, whole datagrams
//	                       drop OutTransport, OutNoWire                  RFC 4303 3.3.4
//	   tooBig              the path's MTU: PTB inward, or cut: tunnel mode before or after, else after
//	                       drop OutTooBig                                RFC 4301 7, 8.2
//	 5 sa.Reserve          of each SA                                    drop OutSeqExhausted, OutExpired, OutSeqReservation
//	 6 header              the packet's own, or an outer one             RFC 4301 5.1.2, 6040
//	 7 seal, sign          ESP behind the header, AH between them        drop OutSeal   RFC 4303 3.1, 4302 3.1
//	 8 tx.commit           to the wire for whole packets, in fragments made here where it is too long and
//	                       may be; ESP over UDP to the UDP socket, without the header
//
// The packet is copied into the arena once and made there in place.

// wholeMaker is what an outbound worker needs for whole packets.
type wholeMaker struct {
	segment packet.Buffer // one of a superpacket, cut out
	piece   packet.Buffer // one fragment of an inner packet
	inner   packet.Fragments
	outer   packet.Fragments
	uncut   []byte // an outer packet that outer cuts
	seal    [1]esp.Packet
	sign    [1]ah.Packet
	scratch *ah.Scratch
	ident   uint16 // IPv4 identification, never 0: the kernel would replace it
	ident6  uint32 // of IPv6 fragments made here
}

func newWholeMaker() wholeMaker {
	bufs := packet.NewBuffers(3)
	return wholeMaker{segment: bufs[0], piece: bufs[1], uncut: bufs[2].Mem, scratch: ah.NewScratch(), ident: uint16(rand.Uint32()), ident6: rand.Uint32()} //nolint:gosec // G404: not a secret
}

// wholePlan is where the parts of one packet go.
type wholePlan struct {
	sa, around *sad.SA   // around: of AH, around sa's packet; nil: none
	ends       *sad.Ends // of sa, for all of the packet
	wire       wireKind
	version    int
	header     int // bytes of IP header in front
	ahLen      int // bytes of AH; 0: none
	payload    int // where in the packet what is protected starts
	length     int // of that, in bytes
	next       uint8
	total      int  // bytes, with the IP header
	cut        bool // it leaves in fragments made here
}

// mtu is the longest outer packet that the path takes, in bytes; without the
// headers that the UDP socket makes.
func (plan *wholePlan) mtu() int {
	mtu := plan.sa.OuterMTU()
	if plan.around != nil {
		mtu = min(mtu, plan.around.OuterMTU())
	}
	if plan.wire != wireUDP {
		return mtu
	}
	if plan.version == 4 {
		return mtu - ipv4Header - udpHeader
	}
	return mtu - ipv6Header - udpHeader
}

// longest is the longest outer packet that there can be, as mtu counts it.
func (plan *wholePlan) longest() int {
	if plan.wire == wireUDP {
		return packet.MaxLen - udpHeader - ipv4Header
	}
	return packet.MaxLen
}

// inner is the longest inner packet, with an IP header as this one's, that an outer
// packet of so many bytes holds.
func (plan *wholePlan) inner(outer int) int {
	room := outer - plan.header - plan.ahLen
	if plan.sa.Protocol == sad.ESP {
		room = plan.sa.Suite.MaxPayload(room)
	}
	return plan.payload + room
}

// wholeTooBig is tooBig for a whole packet: the same table, but that the socket
// for whole packets cuts nothing, so that it is done here. In transport mode an
// inner packet is never cut: RFC 4303 3.3.4, "If necessary, fragmentation is
// performed after ESP processing within an IPsec implementation"; RFC 4302 3.3.4
// says so of AH.
func (w *outboundWorker) wholeTooBig(p *packet.Buffer, d *decision, plan *wholePlan, mtu int) (done bool, reason DropReason) {
	whole := plan.total <= plan.longest()
	mayCut := p.Header.Version == 4 && !p.Header.DF
	tunnel := d.sa.Mode == sad.TunnelMode
	switch {
	case tunnel && mayCut && (d.sa.Fragment == sad.FragmentBefore || d.sa.Tunnel.DF == sad.DFSet || !whole):
		return true, w.cutWhole(p, d, plan.inner(mtu))
	case whole && (mayCut || tunnel && d.sa.Tunnel.DF == sad.DFClear || p.Header.Version == 6 && p.Len <= minIPv6):
		plan.cut = plan.wire == wireWhole
		return false, forwarded
	case mayCut:
		return true, OutTooBig // transport mode, and nothing could put it together again
	}
	inner := plan.inner(mtu)
	if p.Header.Version == 6 {
		inner = max(inner, minIPv6)
	}
	w.sayTooBig(p, inner)
	return true, OutTooBig
}

// cutWhole sends an inner packet in fragments of at most mtu bytes, each protected
// by itself. None is cut again: should the path have become narrower since, the
// next packet sees it.
func (w *outboundWorker) cutWhole(p *packet.Buffer, d *decision, mtu int) DropReason {
	f, one := &w.maker.inner, &w.maker.piece
	if f.Init(p.Bytes(), mtu, 0) != nil {
		return OutTooBig
	}
	for {
		n, ok := f.Next(one.Mem[packet.Headroom : packet.Headroom+packet.MaxLen])
		if !ok {
			return forwarded
		}
		one.Off, one.Len = packet.Headroom, n
		if one.Parse() != nil || n > mtu {
			return OutTooBig
		}
		plan, reason := w.plan(one, d)
		if reason == forwarded {
			reason = w.sendWhole(one, d, &plan)
		}
		if reason != forwarded {
			w.drop(reason, 1)
		}
	}
}

// commitFragments hands a protected packet over in fragments, which the socket for
// whole packets does not make.
func (w *outboundWorker) commitFragments(tx *sendBatch, p *packet.Buffer, plan *wholePlan) DropReason {
	f, mtu := &w.maker.outer, plan.mtu()
	w.maker.ident6++
	whole := w.maker.uncut[:plan.total]
	if plan.version == 4 {
		whole[6] &^= 0x40 // copied, and overruled by wholeTooBig
	}
	if f.Init(whole, mtu, w.maker.ident6) != nil {
		return OutTooBig
	}
	for first := true; ; first = false {
		slot := w.room(tx, mtu)
		n, ok := f.Next(slot)
		if !ok {
			return forwarded
		}
		inner := 0
		if first {
			inner = p.Len
		}
		w.commitDatagram(tx, p, plan, inner, n)
	}
}

// whole takes a packet, or each segment of a superpacket, through steps 4 to 8.
func (w *outboundWorker) whole(p *packet.Buffer, d *decision) DropReason {
	if p.SegmentSize == 0 {
		return w.wholeOne(p, d)
	}
	if w.segmenter.Init(p, 0) != nil {
		return OutSegment
	}
	one := &w.maker.segment
	for w.segmenter.Segments() > 0 {
		n, _ := w.segmenter.CopyNext(one.Mem[packet.Headroom:])
		one.Off, one.Len = packet.Headroom, n
		if one.Parse() != nil {
			return OutSegment // not of what Init took
		}
		if reason := w.wholeOne(one, d); reason != forwarded {
			w.drop(reason, 1)
		}
	}
	return forwarded
}

// wholeOne takes one packet through steps 4 to 8. What found no sequence number is
// counted in there, with its SA.
func (w *outboundWorker) wholeOne(p *packet.Buffer, d *decision) DropReason {
	plan, reason := w.plan(p, d)
	if reason != forwarded {
		return reason
	}
	mtu := min(plan.mtu(), plan.longest())
	if plan.total > mtu {
		if done, reason := w.wholeTooBig(p, d, &plan, mtu); done {
			return reason
		}
	}
	if isSYN(p) {
		clampMSSTo(p, plan.inner(mtu))
	}
	return w.sendWhole(p, d, &plan)
}

// sendWhole takes a packet that fits, or is to be cut, through steps 5 to 8.
func (w *outboundWorker) sendWhole(p *packet.Buffer, d *decision, plan *wholePlan) DropReason {
	first, granted := w.reserve(d.sa, 1)
	if granted == 0 {
		return w.refuseWhole(d.sa, p)
	}
	number := first
	if plan.around != nil && plan.around != d.sa {
		if number, granted = w.reserve(plan.around, 1); granted == 0 {
			return w.refuseWhole(plan.around, p)
		}
	}
	tx := &w.wires[plan.wire]
	slot := w.maker.uncut
	if !plan.cut {
		slot = w.room(tx, plan.total)
	}
	w.copyWhole(slot, p, plan)
	if !w.protect(slot, plan, first, number) {
		return OutSeal
	}
	if plan.cut {
		if reason := w.commitFragments(tx, p, plan); reason != forwarded {
			return reason
		}
	} else {
		w.commitDatagram(tx, p, plan, p.Len, plan.total)
	}
	d.sa.Touch(int64(w.now), 1, p.Len)
	if plan.around != nil && plan.around != d.sa {
		plan.around.Touch(int64(w.now), 1, plan.total-plan.header-plan.ahLen)
	}
	return forwarded
}

// refuseWhole ends a packet for which sa has no number, and has counted it.
func (w *outboundWorker) refuseWhole(sa *sad.SA, p *packet.Buffer) DropReason {
	w.refuse(sa, p, 1)
	return forwarded
}

// plan measures a packet's parts, or says why it cannot go.
func (w *outboundWorker) plan(p *packet.Buffer, d *decision) (wholePlan, DropReason) {
	sa := d.sa
	ends := sa.Ends() // once: they may move
	plan := wholePlan{sa: sa, ends: ends, around: d.around, wire: wireWhole, version: 4, header: ipv4Header, next: nextHeader(p)}
	if !ends.Remote.Addr().Is4() {
		plan.version, plan.header = 6, ipv6Header
	}
	switch {
	case sa.Protocol == sad.AH:
		plan.around = sa
	case sa.Bundle && plan.around == nil:
		return plan, OutNoSA // one half of two is none
	}
	if sa.Mode == sad.TransportMode {
		if !transportEnds(sa, p) {
			return plan, OutTransport
		}
		plan.header, plan.payload, plan.next = p.Header.TransportOffset, p.Header.TransportOffset, p.Flow.Protocol
	}
	if sa.Encap == sad.EncapUDP {
		// The socket makes the headers, and knows nothing of options.
		if plan.payload > ipv4Header && plan.version == 4 || plan.payload > ipv6Header {
			return plan, OutTransport
		}
		plan.wire, plan.header = wireUDP, 0
	}
	if w.wires[plan.wire].to == nil {
		return plan, OutNoWire
	}
	plan.length = p.Len - plan.payload
	protected := plan.length
	if sa.Protocol == sad.ESP {
		protected = sa.Suite.SealedLen(protected)
	}
	if plan.around != nil {
		plan.ahLen = plan.around.AHSuite.HeaderLen(plan.version)
	}
	plan.total = plan.header + plan.ahLen + protected
	return plan, forwarded
}

// transportEnds tells whether a packet may go through a transport mode SA. RFC
// 4303 3.3.4: "transport mode ESP is applied only to whole IP datagrams (not to
// IP fragments)"; and it reaches from the SA's one end to the other, whoever's the
// packet is.
func transportEnds(sa *sad.SA, p *packet.Buffer) bool {
	return !p.Header.Fragment && !p.Flow.ProtocolOpaque &&
		p.Flow.DstAddr() == sa.Endpoint().Addr() && p.Flow.SrcAddr() == sa.Ends().Local.Addr()
}

// copyWhole puts the IP header and what is to be protected into their places in
// slot. The header's protocol and lengths are final.
func (w *outboundWorker) copyWhole(slot []byte, p *packet.Buffer, plan *wholePlan) {
	at := plan.header + plan.ahLen
	if plan.sa.Protocol == sad.ESP {
		at += esp.HeaderLen + plan.sa.Suite.IVLen()
	}
	copy(slot[at:], p.Bytes()[plan.payload:])
	if plan.header == 0 {
		return
	}
	if plan.sa.Mode == sad.TransportMode {
		copy(slot, p.Bytes()[:plan.header])
	} else {
		w.outerHeader(slot, p, plan)
	}
	protocol := uint8(packet.ProtoESP)
	if plan.ahLen > 0 {
		protocol = packet.ProtoAH
	}
	packet.SetProtocol(slot[:plan.header], protocol)
	packet.SetLength(slot[:plan.header], plan.total)
	if plan.version == 4 && binary.BigEndian.Uint16(slot[4:]) == 0 {
		// RFC 6864 4.1: an atomic datagram's ID means nothing, so any value
		// will do; 0 the kernel would replace, behind the ICV's back.
		binary.BigEndian.PutUint16(slot[4:], w.maker.nextIdent())
	}
}

// nextIdent is the next IPv4 identification: never 0.
func (m *wholeMaker) nextIdent() uint16 {
	if m.ident++; m.ident == 0 {
		m.ident = 1
	}
	return m.ident
}

// outerTTL is the TTL and hop limit of outer headers made here; RFC 4301 5.1.2.1
// leaves it to configuration, and 64 is what the kernel puts on those that it
// makes.
const outerTTL = 64

// outerHeader makes the outer header of tunnel mode: RFC 4301 5.1.2.
func (w *outboundWorker) outerHeader(slot []byte, p *packet.Buffer, plan *wholePlan) {
	sa, class := plan.sa, outerTrafficClass(&plan.sa.Tunnel, &p.Header)
	local, remote := plan.ends.Local.Addr(), plan.ends.Remote.Addr()
	if plan.version == 6 {
		// RFC 6438 3: a tunnel's flow label comes from a hash of the inner
		// flow, so that its flows are spread over equal paths.
		label := uint32(p.Flow.Hash(w.cache.seed)) & 0xfffff
		binary.BigEndian.PutUint32(slot, 6<<28|uint32(class)<<20|label)
		slot[7] = outerTTL
		a, b := local.As16(), remote.As16()
		copy(slot[8:], a[:])
		copy(slot[24:], b[:])
		return
	}
	h := slot[:ipv4Header]
	clear(h)
	h[0], h[1], h[8] = 0x45, class, outerTTL
	if outerDF(sa, &p.Header, p.Len) {
		h[6] = 0x40
	}
	a, b := local.As4(), remote.As4()
	copy(h[12:], a[:])
	copy(h[16:], b[:])
}

// protect seals and signs what copyWhole has laid out.
func (w *outboundWorker) protect(slot []byte, plan *wholePlan, seal, sign uint64) bool {
	at := plan.header + plan.ahLen
	next := plan.next
	if plan.sa.Protocol == sad.ESP {
		j := &w.maker.seal[0]
		start := esp.HeaderLen + plan.sa.Suite.IVLen()
		wire := slot[at:plan.total]
		j.Seq, j.NextHeader, j.Wire = seal, next, wire
		j.Payload = wire[start : start+plan.length]
		next = packet.ProtoESP
		plan.sa.Transform.Seal(w.scratch, plan.sa.SPI, w.maker.seal[:])
		if j.Err != nil {
			return false
		}
	}
	if plan.ahLen == 0 {
		return true
	}
	j := &w.maker.sign[0]
	j.Seq, j.NextHeader, j.Payload, j.Wire = sign, next, slot[at:plan.total], slot[:plan.total]
	plan.around.AHTransform.Sign(w.maker.scratch, plan.around.SPI, w.maker.sign[:])
	return j.Err == nil
}

// commitDatagram hands over the next n bytes of the arena, which carry that much
// of the inner packet.
func (w *outboundWorker) commitDatagram(tx *sendBatch, p *packet.Buffer, plan *wholePlan, inner, n int) {
	d := tx.commit(inner, false)
	w.fill(d, n)
	d.Addr, d.Local, d.SegmentSize = plan.ends.Remote, plan.ends.Local.Addr(), 0
	d.TOS, d.DF = p.Header.TrafficClass, p.Header.DF
}
