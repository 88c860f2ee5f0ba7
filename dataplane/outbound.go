package dataplane

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/tun"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// One packet outbound: from the TUN towards the wire.
//
//	runOutbound            loop: queue.ReadBatch -> outbound(p) for each -> sealRun -> flush
//	 1 p.Parse             header valid, Flow filled                      drop OutMalformed
//	   fragment            rides on its initial one's ports, no overlap   drop OutFragment                          RFC 4301 7
//	 2 cache.lookup        flow cache, else spd.Table.Lookup; no match = discard
//	                       drop OutDiscard                                RFC 4301 5.1
//	   returnDecision      an ICMP error: the SA of what it quotes        RFC 4301 6.2
//	   bypass              never steps 3-8                                drop OutNoBypass
//	 3 decision.sa         by DSCP where there are several                RFC 4301 4.1
//	   withoutSA           none: Acquire; held until there is one, then sent in order (hold.go)
//	                       drop OutNoSA, OutResponderOnly, OutHoldFull, OutHoldExpired, OutRefused
//	   whole               AH, bundles, transport mode: outbound_whole.go, never what follows
//	 4 fits                the path's MTU: PTB inward, or cut into fragments (mtu.go)
//	                       drop OutTooBig, OutNoWire, OutSegment          RFC 4301 8.2
//	   - p joins the run: consecutive packets of one SA; a superpacket is a run of its own -
//	 5 sa.Reserve(n)       one atomic step for the whole run; refused at the end of the space
//	                       or lifetime: drop OutSeqExhausted, OutExpired, OutSeqReservation   RFC 4303 3.3.3
//	 6 encapsulate         outer addresses, DSCP, ECN, DF                 RFC 4301 5.1.2, 6040, 3948
//	 7 transform.Seal      TFC padding and trailer, in place, the whole run in one call
//	                       drop OutSeal                                   RFC 4303 2.7, 3.3.2
//	 8 tx.commit           into the wire's send batch; flush = one WriteBatch
//
// A packet's bytes stay in the buffer that the TUN read filled: headers and
// trailers grow into its head- and tailroom, and the send batch points there. A
// superpacket, many TCP or UDP packets of one flow in one read, takes steps 1 to
// 5 as one; then each segment is sealed from where it lies into the arena, back
// to back, as the kernel's segmentation of UDP wants them.

// outboundWorker owns one TUN queue's reads and everything below it; nothing
// of it is shared but the counters, which others may read.
type outboundWorker struct {
	counters
	gateway *Gateway
	queue   tun.Queue
	index   int // among the outbound workers
	bufs    []packet.Buffer
	cache   *flowCache
	scratch *esp.Scratch
	now     time.Duration // read once per batch

	run   outboundRun
	clear sendBatch // bypassed packets
	wires [wireKinds]sendBatch

	segmenter tun.Segmenter
	segment   [1]esp.Packet // the one being sealed
	arena     []byte        // segments that the send batches point to
	used      int           // bytes of it

	maker   wholeMaker
	mtu     pathWork // what packets that are too long need
	answers *answers // about discarded packets; nil: none

	inHand []*sad.SA // with numbers that are not sent yet, where there are other workers

	using  atomic.Uint64 // generation of the snapshot that the batch in hand uses; 0: no batch
	audits auditor
	hold   holdList // packets without an SA
}

// wireKind is where an SA's packets leave.
type wireKind uint8

const (
	wireUDP wireKind = iota
	wireRaw4
	wireRaw6
	wireWhole // whole packets: AH, and transport mode without UDP
	wireKinds
)

// outboundRun is a run of consecutive packets of one SA.
type outboundRun struct {
	sa   *sad.SA
	wire wireKind
	bufs []*packet.Buffer
	jobs []esp.Packet
}

func newOutboundWorker(g *Gateway, q tun.Queue, index int, wires [wireKinds]Sender, clear Sender) *outboundWorker {
	n := q.BatchSize()
	w := &outboundWorker{
		gateway: g,
		queue:   q,
		index:   index,
		bufs:    packet.NewBuffers(n),
		cache:   newFlowCache(spd.Outbound),
		scratch: esp.NewScratch(),
		arena:   make([]byte, arenaLen),
		maker:   newWholeMaker(),
		inHand:  make([]*sad.SA, 0, n),
		answers: newAnswers(&g.icmp),
	}
	w.run.bufs = make([]*packet.Buffer, 0, n)
	w.run.jobs = make([]esp.Packet, 0, n)
	w.mtu.init()
	w.clear = newSendBatch(clear)
	for kind, wire := range wires {
		if wire != nil {
			w.wires[kind] = newSendBatch(wire)
			w.wires[kind].whole = wireKind(kind) == wireWhole
		}
	}
	return w
}

// runOutbound carries packets until the TUN is closed. Its error is why it had to give
// up; nil after Close.
func (w *outboundWorker) runOutbound() error {
	failures := 0
	for {
		n, err := w.queue.ReadBatch(w.bufs)
		switch {
		case err == nil:
			failures = 0
			w.walk(n)
		case w.gateway.stopping():
			return nil
		case errors.Is(err, os.ErrClosed):
			return fmt.Errorf("dataplane: the TUN device is gone: %w", err)
		default:
			// One packet whose virtio-net header the kernel or the
			// device cannot make sense of fails a read, and passes.
			if failures++; !w.gateway.readAgain(failures) {
				return fmt.Errorf("dataplane: reading the TUN device failed %d times in a row: %w", failures, err)
			}
		}
	}
}

// walk takes the first n buffers through the walk and out.
func (w *outboundWorker) walk(n int) {
	w.begin()
	if len(w.hold.list) > 0 {
		w.tend()
	}
	for i := range n {
		p := &w.bufs[i]
		if reason := w.outbound(p); reason != forwarded {
			w.drop(reason, p.Segments())
			w.audit(reason, nil, p, p.Segments())
		}
	}
	w.sealRun()
	w.flush()
	w.handOut(nil)
	w.end()
}

// begin does what is done once per batch.
func (w *outboundWorker) begin() {
	w.takeSnapshot()
	w.load()
}

// outbound decides about one packet and adds it to the run of its SA.
func (w *outboundWorker) outbound(p *packet.Buffer) DropReason {
	if err := p.Parse(); err != nil {
		return w.malformed(p, err)
	}
	var d decision
	if !p.Header.Fragment {
		d = w.cache.lookup(&p.Flow)
	} else if d = w.fragment(p); d.policy == undecided {
		return OutFragment
	}
	if d.classes != nil {
		w.choose(&d, p, &p.Flow)
	}
	switch {
	case d.policy == nil || d.policy.Action == spd.Discard:
		if d = w.returnDecision(p); d.sa == nil {
			return w.discard(p)
		}
	case d.policy.Action == spd.Bypass:
		return w.bypass(p)
	case d.sa == nil:
		return w.withoutSA(d.policy, p)
	}
	return w.carry(p, &d)
}

// carry is step 4, for a packet that has its SA.
func (w *outboundWorker) carry(p *packet.Buffer, d *decision) DropReason {
	if d.sa.Whole() {
		return w.whole(p, d)
	}
	wire, length, reason := w.fits(p, d.sa)
	if reason != forwarded {
		return reason
	}
	if length > d.sa.InnerMTU() {
		if done, reason := w.tooBig(p, d.sa, wire, length); done {
			return reason
		}
	}
	if isSYN(p) {
		clampMSS(p, d.sa)
	}
	if r := &w.run; r.sa != d.sa || p.SegmentSize > 0 {
		w.sealRun()
		r.sa, r.wire = d.sa, wire
	}
	if p.SegmentSize > 0 {
		w.sealSegments(p)
		return forwarded
	}
	w.run.bufs = append(w.run.bufs, p)
	return forwarded
}

// bypass sends the packet as it is, in clear.
func (w *outboundWorker) bypass(p *packet.Buffer) DropReason {
	if w.clear.to == nil {
		return OutNoBypass
	}
	if p.SegmentSize > 0 {
		return w.bypassSegments(p)
	}
	w.room(&w.clear, 0)
	d := w.clear.commit(p.Len, false)
	*d = packet.Datagram{Mem: p.Mem, Off: p.Off, Len: p.Len}
	return forwarded
}

// bypassSegments is bypass for a superpacket: no route takes it whole.
func (w *outboundWorker) bypassSegments(p *packet.Buffer) DropReason {
	if w.segmenter.Init(p, 0) != nil {
		return OutSegment
	}
	for w.segmenter.Segments() > 0 {
		slot := w.room(&w.clear, w.segmenter.Longest())
		n, _ := w.segmenter.CopyNext(slot)
		d := w.clear.commit(n, false)
		*d = packet.Datagram{}
		w.fill(d, n)
	}
	return forwarded
}

// fits chooses the wire of the SA and tells how long p is, or the longest of its
// segments.
func (w *outboundWorker) fits(p *packet.Buffer, sa *sad.SA) (wire wireKind, length int, reason DropReason) {
	wire = wireOf(sa)
	if w.wires[wire].to == nil {
		return wire, 0, OutNoWire
	}
	if p.SegmentSize == 0 {
		return wire, p.Len, forwarded
	}
	if w.segmenter.Init(p, maxTrailer) != nil {
		return wire, 0, OutSegment
	}
	return wire, w.segmenter.Longest(), forwarded
}

// wireOf is where the SA's packets leave.
func wireOf(sa *sad.SA) wireKind {
	switch {
	case sa.Encap == sad.EncapUDP:
		return wireUDP
	case sa.Endpoint().Addr().Is4():
		return wireRaw4
	}
	return wireRaw6
}

// sealRun takes the collected run of one SA's packets through steps 5 to 8.
func (w *outboundWorker) sealRun() {
	r := &w.run
	if len(r.bufs) == 0 {
		return
	}
	first, granted := w.reserve(r.sa, len(r.bufs))
	if refused := len(r.bufs) - granted; refused > 0 {
		w.refuse(r.sa, r.bufs[granted], refused)
	}
	r.jobs = r.jobs[:granted]
	for i, p := range r.bufs[:granted] {
		r.jobs[i].Seq = first + uint64(i)
		job(&r.jobs[i], p, r.sa)
	}
	if r.sa.TFC != sad.TFCOff {
		w.padRun()
	}
	r.sa.Transform.Seal(w.scratch, r.sa.SPI, r.jobs)
	tx := &w.wires[r.wire]
	packets, bytes := 0, 0
	for i, p := range r.bufs[:granted] {
		if r.jobs[i].Err != nil {
			w.drop(OutSeal, 1)
			continue
		}
		w.room(tx, 0)
		d := tx.commit(p.Len, r.sa.Tunnel.DF == sad.DFCopy)
		d.Mem, d.Off, d.Len = p.Mem, p.Off-esp.HeaderLen-r.sa.Suite.IVLen(), len(r.jobs[i].Wire)
		encapsulate(d, p, p.Len, r.sa)
		packets++
		bytes += p.Len
	}
	if packets > 0 { // an SA that sends nothing is idle: keepalives go on
		r.sa.Touch(int64(w.now), packets, bytes)
	}
	r.bufs, r.sa = r.bufs[:0], nil
}

// reserveLen is the most numbers that a run takes at once. It bounds how far
// several workers can be apart.
const reserveLen = 128

// sealSegments takes the superpacket that fits has cut, a run of its own,
// through steps 5 to 8.
func (w *outboundWorker) sealSegments(p *packet.Buffer) {
	sa, tx := w.run.sa, &w.wires[w.run.wire]
	next := nextHeader(p)
	packets, bytes := 0, 0
	for w.segmenter.Segments() > 0 {
		want := min(w.segmenter.Segments(), reserveLen)
		first, granted := w.reserve(sa, want)
		for i := range granted {
			n := w.gateway.tfcLen(sa, w.segmenter.Longest())
			slot := w.room(tx, sa.Suite.SealedLen(n))
			inner, _ := w.segmenter.Next()
			j := &w.segment[0]
			j.Seq, j.NextHeader, j.Payload, j.Wire = first+uint64(i), next, inner, slot
			if n > len(inner) {
				padSegment(j, sa, n)
			}
			sa.Transform.Seal(w.scratch, sa.SPI, w.segment[:])
			if j.Err != nil {
				w.drop(OutSeal, 1)
				continue
			}
			d := tx.commit(len(inner), sa.Tunnel.DF == sad.DFCopy)
			w.fill(d, len(j.Wire))
			encapsulate(d, p, len(inner), sa)
			packets++
			bytes += len(inner)
		}
		if granted < want {
			w.refuse(sa, p, w.segmenter.Segments())
			break
		}
	}
	if packets > 0 {
		sa.Touch(int64(w.now), packets, bytes)
	}
	w.run.sa = nil
}

// arenaLen holds the longest sealed packet, and the segments of one batch of
// reads where they are of common sizes.
const arenaLen = 256 << 10

// maxTrailer is the most bytes that a suite puts behind an inner packet: 15 of
// padding, pad length and next header, and an ICV of 32.
const maxTrailer = 15 + 2 + 32

const _ = uint(arenaLen - packet.SlotLen)

// room makes room in a send batch for one datagram, and in the arena for n
// bytes, which it returns. It sends what there is when one of them is full.
func (w *outboundWorker) room(tx *sendBatch, n int) []byte {
	if tx.full() || len(w.arena)-w.used < n {
		w.flush()
	}
	return w.arena[w.used : w.used+n]
}

// fill makes the next n bytes of the arena d's.
func (w *outboundWorker) fill(d *packet.Datagram, n int) {
	d.Mem, d.Off, d.Len = w.arena, w.used, n
	w.used += n
}

// refusal is why the SA granted fewer sequence numbers than were asked for.
func (w *outboundWorker) refusal(sa *sad.SA) DropReason {
	// RFC 4303 3.3.3: "the sender checks to ensure that the counter has not
	// cycled before inserting the new value" and "MUST NOT send a packet on
	// an SA if doing so would cause the sequence number to cycle". The
	// event is housekeeping's.
	if sa.Exhausted() {
		return OutSeqExhausted
	}
	if sa.Expired() != sad.NoLimit {
		return OutExpired
	}
	return OutSeqReservation
}

// job describes to esp how p becomes an ESP packet, in place: the payload stays
// where it is and the ESP header and IV grow into the headroom. Seal sets Err.
func job(j *esp.Packet, p *packet.Buffer, sa *sad.SA) {
	start := p.Off - esp.HeaderLen - sa.Suite.IVLen()
	j.NextHeader = nextHeader(p)
	j.Payload = p.Bytes()
	j.Wire = p.Mem[start : start+sa.Suite.SealedLen(p.Len)]
}

// nextHeader is the protocol of a tunnel's payload: IPv4 (4) or IPv6 (41).
func nextHeader(p *packet.Buffer) uint8 {
	if p.Header.Version == 6 {
		return packet.ProtoIPv6
	}
	return packet.ProtoIPv4
}

// encapsulate gives d the outer header for length bytes with the header of p: RFC
// 4301 5.1.2. The bytes of IP and UDP headers are the sockets' work.
func encapsulate(d *packet.Datagram, p *packet.Buffer, length int, sa *sad.SA) {
	ends := sa.Ends()
	d.Addr, d.Local = ends.Remote, ends.Local.Addr()
	d.TOS = outerTrafficClass(&sa.Tunnel, &p.Header)
	d.DF = outerDF(sa, &p.Header, length)
	d.SegmentSize = 0
}

// flush sends what the batch has made: one WriteBatch per wire.
func (w *outboundWorker) flush() {
	for i := range w.wires {
		packets, bytes, failed := w.wires[i].flush()
		w.packets.Add(packets)
		w.bytes.Add(bytes)
		w.drop(OutSendError, failed)
		w.learnRefused(&w.wires[i])
	}
	packets, _, failed := w.clear.flush()
	w.counters.bypass.Add(packets)
	w.drop(OutSendError, failed)
	w.used = 0
}

func (w *outboundWorker) emit(e Event) bool {
	e.At = w.now
	if w.gateway.emit(e) {
		return true
	}
	w.lost.Add(1)
	return false
}
