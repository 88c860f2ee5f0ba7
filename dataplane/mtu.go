package dataplane

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"syscall"
	"time"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// What becomes of an inner packet that is longer than the SA's path takes in one
// piece (RFC 4301 8.2, RFC 791, RFC 8200 5). Rows: what the packet is; columns:
// the SA's DF mode.
//
//	                          copy             set              clear
//	IPv4 with DF              PTB              PTB              outer fragments
//	IPv4, fragment before     cut              cut              cut
//	IPv4, fragment after      outer fragments  cut (1)          outer fragments
//	IPv6 over 1280 bytes      PTB              PTB              outer fragments
//	IPv6 up to 1280 bytes     outer fragments  outer fragments  outer fragments
//
// PTB: ICMP 3/4 or ICMPv6 type 2 to the sender with the inner MTU, and the packet
// is dropped. Cut: the inner packet becomes fragments that fit, each protected by
// itself. Outer fragments: the packet leaves whole with DF clear, and this host's
// kernel or a router cuts it. (1) Deviation: an outer packet with DF cannot be cut
// after encryption, so that set makes it "before".

// minIPv6 is the length in bytes that IPv6 carries everywhere (RFC 8200 5).
const minIPv6 = 1280

// tooBigBurst is how many PTB messages a worker sends in an eventInterval at the
// most. RFC 4443 2.4 (f): "an IPv6 node MUST limit the rate of ICMPv6 error
// messages it originates". What is not sent now is sent when the sender tries
// again.
const tooBigBurst = 200

// pathWork is an outbound worker's memory for packets that are too long.
type pathWork struct {
	fragments packet.Fragments
	segment   []byte // one segment of a superpacket; made when first needed
	reply     [1]*packet.Buffer
	replies   limiter
	refusals  limiter
}

func (m *pathWork) init() {
	m.reply[0] = &packet.Buffer{Mem: make([]byte, packet.Headroom+packet.MaxICMPError+packet.Tailroom)}
}

// tooBig decides about a packet, or a superpacket with segments, of that many
// bytes, more than the SA's path takes in one piece. done: it has left, or was
// dropped as reason says; else it goes on as it is, for outer fragments.
func (w *outboundWorker) tooBig(p *packet.Buffer, sa *sad.SA, wire wireKind, length int) (done bool, reason DropReason) {
	whole := length <= sa.LongestInner()
	mayCut := p.Header.Version == 4 && !p.Header.DF
	switch {
	case mayCut && (sa.Fragment == sad.FragmentBefore || sa.Tunnel.DF == sad.DFSet || !whole):
		return true, w.cut(p, sa, wire)
	case whole && (mayCut || sa.Tunnel.DF == sad.DFClear):
		return false, forwarded
	case whole && p.Header.Version == 6 && length <= minIPv6:
		return false, forwarded
	}
	w.sayTooBig(p, sa.InnerMTU())
	return true, OutTooBig
}

// sayTooBig tells the sender of p, or of its segments, to send packets of at most
// mtu bytes. The message goes into the TUN as if the destination had sent it.
// Deviation from RFC 1812 4.3.2.4, which wants an address of the router's own:
// the kernel drops what arrives from one of its own addresses as martian, and any
// other might be filtered by reverse path. The destination lies behind the TUN.
func (w *outboundWorker) sayTooBig(p *packet.Buffer, mtu int) {
	if !w.mtu.replies.allow(w.now, tooBigBurst) {
		return
	}
	offending := p.Bytes()
	if p.SegmentSize > 0 {
		offending = w.nextSegment()
	}
	from := p.Flow.DstAddr()
	if from.IsMulticast() { // no source address; RFC 4443 2.4 (e.3) would allow the message
		return
	}
	b := w.mtu.reply[0]
	n, ok := packet.TooBig(b.Mem[packet.Headroom:packet.Headroom+packet.MaxICMPError], offending, from, mtu)
	if !ok {
		return
	}
	b.Off, b.Len, b.SegmentSize = packet.Headroom, n, 0
	if b.Parse() != nil {
		return
	}
	if _, err := w.queue.WriteBatch(w.mtu.reply[:]); err == nil {
		w.tooBigSent.Add(1)
	}
}

// nextSegment copies the next segment of the superpacket that fits has cut.
func (w *outboundWorker) nextSegment() []byte {
	if w.mtu.segment == nil {
		w.mtu.segment = make([]byte, packet.MaxLen)
	}
	n, _ := w.segmenter.CopyNext(w.mtu.segment)
	return w.mtu.segment[:n]
}

// cut sends p, or each of its segments, in fragments that fit the path.
func (w *outboundWorker) cut(p *packet.Buffer, sa *sad.SA, wire wireKind) DropReason {
	w.sealRun() // what came before leaves before
	mtu := sa.InnerMTU()
	if p.SegmentSize == 0 {
		return w.cutOne(p, p.Bytes(), sa, wire, mtu)
	}
	for w.segmenter.Segments() > 0 {
		if reason := w.cutOne(p, w.nextSegment(), sa, wire, mtu); reason != forwarded {
			w.drop(reason, 1)
		}
	}
	return forwarded
}

// cutOne seals inner, which has the header of p, in fragments of at most mtu
// bytes: steps 5 to 8 of the walk for each of them.
func (w *outboundWorker) cutOne(p *packet.Buffer, inner []byte, sa *sad.SA, wire wireKind, mtu int) DropReason {
	f, tx := &w.mtu.fragments, &w.wires[wire]
	if f.Init(inner, mtu, 0) != nil { // IPv4 options that are broken
		return OutTooBig
	}
	packets, bytes := 0, 0
	for f.Remaining() > 0 {
		want := min(f.Remaining(), reserveLen)
		first, granted := w.reserve(sa, want)
		for i := range granted {
			if n := w.sealFragment(tx, p, sa, first+uint64(i), mtu); n > 0 {
				packets, bytes = packets+1, bytes+n
			}
		}
		if granted < want {
			w.refuse(sa, p, f.Remaining())
			break
		}
	}
	if packets > 0 {
		sa.Touch(int64(w.now), packets, bytes)
	}
	return forwarded
}

// sealFragment makes the next fragment where its payload lies in the arena, seals
// it there and returns its length in bytes, 0 when it could not be sealed.
func (w *outboundWorker) sealFragment(tx *sendBatch, p *packet.Buffer, sa *sad.SA, seq uint64, mtu int) int {
	start := esp.HeaderLen + sa.Suite.IVLen()
	slot := w.room(tx, sa.Suite.SealedLen(mtu))
	n, _ := w.mtu.fragments.Next(slot[start:])
	end := start + n
	if padded := min(w.gateway.tfcLen(sa, n), mtu); padded > n { // mtu: what the slot has room for
		end = start + padded
		clear(slot[start+n : end])
	}
	j := &w.segment[0]
	j.Seq, j.NextHeader, j.Payload, j.Wire = seq, packet.ProtoIPv4, slot[start:end], slot
	sa.Transform.Seal(w.scratch, sa.SPI, w.segment[:])
	if j.Err != nil {
		w.drop(OutSeal, 1)
		return 0
	}
	d := tx.commit(n, sa.Tunnel.DF == sad.DFCopy)
	w.fill(d, len(j.Wire))
	encapsulate(d, p, n, sa)
	return n
}

// tcpFlags is where the flags lie in a TCP header, tcpSYN the one of a new
// connection (RFC 9293 3.1).
const (
	tcpFlags = 13
	tcpSYN   = 2
)

// isSYN tells whether p is TCP's first word in either direction. A superpacket is
// not asked: it carries data.
func isSYN(p *packet.Buffer) bool {
	return p.Flow.Protocol == packet.ProtoTCP && p.SegmentSize == 0 && p.Header.PayloadOffset > p.Header.TransportOffset &&
		p.Mem[p.Off+p.Header.TransportOffset+tcpFlags]&tcpSYN != 0
}

// clampMSS keeps TCP from sending packets that the SA's path does not take in one
// piece: RFC 9293 3.7.1, the MSS is the MTU less the fixed headers of IP and TCP.
func clampMSS(p *packet.Buffer, sa *sad.SA) { clampMSSTo(p, sa.InnerMTU()) }

// clampMSSTo is clampMSS for a path that takes inner packets of that many bytes.
func clampMSSTo(p *packet.Buffer, inner int) {
	headers := 20 + 20
	if p.Header.Version == 6 {
		headers = 40 + 20
	}
	mss := min(inner-headers, packet.MaxLen)
	if mss > 0 {
		packet.ClampMSS(p.Bytes(), &p.Header, &p.Flow, uint16(mss))
	}
}

// clampMSS does so with a packet that has arrived: what answers it goes out by the
// SA of the reverse direction.
func (w *inboundWorker) clampMSS(p *packet.Buffer) {
	policy := w.cache.lookup(&p.Flow).policy
	if policy == nil { // selected has found one
		return
	}
	if sa := w.cache.sas.Outbound(policy.Peer, policy.Name); sa != nil {
		clampMSS(p, sa)
	}
}

// refusal is an outer packet that this host's kernel refused as too long.
type refusal struct {
	to  netip.AddrPort
	spi uint32
	len int // bytes of the datagram; 0: there was none
}

// note remembers d if err says that it is too long for the link. Without DF the
// kernel would have cut it, but for a whole packet, which nobody cuts here.
func (r *refusal) note(d *packet.Datagram, err error, whole bool) {
	if (d.DF || whole) && d.Len >= esp.HeaderLen && errors.Is(err, syscall.EMSGSIZE) {
		r.to, r.spi, r.len = d.Addr, binary.BigEndian.Uint32(d.Bytes()), d.Len
	}
}

// length is how long the outer packet was that was refused, in bytes, if it was
// one of sa's; else 0. A whole packet shows no SPI at its start: the link towards
// its destination counts for all that send such there.
func (r *refusal) length(sa *sad.SA, whole bool) int {
	switch {
	case sa.Direction != sad.Outbound || sa.Endpoint() != r.to:
	case whole && sa.Whole() && sa.Encap == sad.EncapNone:
		return r.len
	case !whole && sa.Protocol == sad.ESP && sa.SPI == r.spi:
		return sa.OuterOfESP(r.len)
	}
	return 0
}

// learnRefused lowers the path MTU of the SA whose packet the kernel refused.
func (w *outboundWorker) learnRefused(b *sendBatch) {
	r := b.refused
	if r.len == 0 {
		return
	}
	b.refused = refusal{}
	if !w.mtu.refusals.allow(w.now, lookBurst) {
		return
	}
	for sa := range w.cache.sas.All() {
		if n := r.length(sa, b.whole); n > 0 {
			w.gateway.path.refused(sa, n, w.now)
		}
	}
}

// lookBurst is how many times in an eventInterval all SAs are walked through for
// one that a message speaks of.
const lookBurst = 100

// plateaus are the MTUs in use, of RFC 1191 7.1, table 7-1: for a router, or a
// kernel, that says "too long" and not how long is right.
var plateaus = [...]int{32000, 17914, 8166, 4352, 2002, 1492, 1280, 1006, 576, 508, 296, 68}

// plateauBelow is the next plateau below a length in bytes: RFC 1191 5, "search for
// the next lower value". 1280 and 576 are added, the least of IPv6 and the least
// that every host takes.
func plateauBelow(length int) int {
	for _, n := range plateaus {
		if n < length {
			return n
		}
	}
	return plateaus[len(plateaus)-1]
}

// defaultPathAge is RFC 1191 6.3's "on the order of 10 minutes", and RFC 8201 4's.
const defaultPathAge = 10 * time.Minute

// pathMTU is a gateway's part in path MTU discovery that no packet takes.
type pathMTU struct {
	link func(netip.Addr) int // nil: nobody knows
	age  time.Duration

	icmpWires  [2]Wire // IPv4, IPv6; nil: none
	ignoreICMP bool
	port       uint16 // of the UDP sockets; 0: unknown
	icmp       icmpCounters

	prober *prober // nil: no probes
	probes probeCounters
}

// use takes over what cfg says.
func (m *pathMTU) use(g *Gateway, cfg *Config) {
	m.link, m.age = cfg.LinkMTU, cfg.PathMTUAge
	if m.age == 0 {
		m.age = defaultPathAge
	}
	m.icmpWires, m.ignoreICMP = [2]Wire{cfg.ICMP4, cfg.ICMP6}, cfg.IgnoreICMP
	if wire, ok := cfg.Wire.(interface{ LocalPort() uint16 }); ok {
		m.port = wire.LocalPort()
	}
	if !cfg.NoProbe {
		m.prober = newProber(g)
	}
}

// counters are the figures of path MTU discovery that no worker counts.
func (m *pathMTU) counters() []Counter {
	return []Counter{
		{"InICMPTooBig", m.icmp.tooBig.Load()},
		{"InICMPNoEffect", m.icmp.unreachable.Load()},
		{"InICMPRefused", m.icmp.refused.Load()},
		{"OutProbes", m.probes.sent.Load()},
		{"InProbeAnswers", m.probes.answers.Load()},
		{"OutProbeAnswers", m.probes.replies.Load()},
		{"PathsNarrowed", m.probes.lost.Load()},
	}
}

// refused is told that the kernel did not take an outer packet of that many bytes:
// the link is narrower than was known.
func (m *pathMTU) refused(sa *sad.SA, length int, now time.Duration) {
	if m.link != nil {
		if mtu := m.link(sa.Endpoint().Addr()); mtu > 0 && mtu < length {
			sa.SetPathMTU(mtu, sad.MTULink, int64(now))
			return
		}
	}
	if length > sa.MinPathMTU() {
		sa.LowerPathMTU(plateauBelow(length), sad.MTUKernel, int64(now))
	}
}

// linkLooks is how many links housekeeping asks for in one round, and linkInterval
// how long the answer holds: asking is a few system calls.
const (
	linkLooks    = 8
	linkInterval = 10 * time.Second
)

// pathMTU asks for the MTU of the SA's link from time to time, and forgets what is
// stale about the path behind it.
func (h *housekeeper) pathMTU(sa *sad.SA, n *notes) {
	m := &h.gateway.path
	if m.link != nil && h.now >= n.linkLook && h.linkLooks > 0 {
		h.linkLooks--
		n.linkLook = h.now + linkInterval
		if mtu := m.link(sa.Endpoint().Addr()); mtu > 0 {
			sa.SetPathMTU(mtu, sad.MTULink, int64(h.now))
		}
	}
	sa.AgePathMTU(int64(h.now), m.age)
}
