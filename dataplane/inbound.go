package dataplane

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sort"
	"time"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/tun"
	"github.com/adit-ipsec/adit/natt"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// One packet inbound: from the wire towards the TUN.
//
//	runInbound             loop: wire.ReadBatch -> split -> inbound for each -> openRun -> flush
//	 0 classify            ESP | IKE (four zero bytes) -> copied to the IKE inbox | keepalive (one 0xFF)
//	                       drop InMalformed, InNoIKE, InIKEFull           RFC 3948 2
//	 1 esp.ParseHeader     SPI, low 32 bits of the sequence number        drop InMalformed
//	 2 sas.Inbound         SA by SPI, and its endpoint                    drop InNoSA, InEndpoint, InBundle   RFC 4303 3.4.2
//	   - it joins the run: consecutive packets of one SA -
//	 3 sa.Check            lifetime; 64-bit sequence number, cheap reject drop InExpired, InReplay   3.4.3, app. A
//	 4 transform.Open      ICV, decrypt in place, padding, next header    drop InMalformed, InAuth, InPadding   3.4.4
//	 5 sa.Mark             only now; re-checked, two workers may race     drop InReplay
//	   - roam: the peer is where the newest packet of the run came from -  RFC 7296 2.23
//	 6 decapsulate         strip, ECN combine, dummies end silently       drop InDummy, InNextHeader, InInner, InECN   2.6, RFC 6040
//	 7 selectors           the inner packet is what this SA may carry     drop InSelector           RFC 4301 5.2
//	   quoted              an ICMP error: or what it quotes is            drop InICMP               6.2
//	   fragment            rides on its initial one's ports, no overlap   drop InFragment           RFC 4301 7
//	 8 sa.Touch            usage
//	 9 rx.commit           into the TUN batch; flush = one WriteBatch     drop InTUNError
//
// Steps 3 to 5 are taken by the whole run at once, so that the window is locked
// twice a run; behind them the run is in the order of its sequence numbers. A
// packet's bytes stay in the slot that the wire filled, which may hold many
// datagrams of one sender (the kernel's coalescing of UDP).

// inboundBatch is the number of slots read from a wire at once, and the longest
// run.
const inboundBatch = 128

// inboundWorker owns one wire's reads; nothing of it is shared but the
// counters, which others may read.
type inboundWorker struct {
	counters
	gateway *Gateway
	wire    Wire
	queue   tun.Queue // where packets go; other workers may write to it too
	udp     bool      // UDP 4500, where IKE and keepalives arrive too
	covered bool      // protocol 51: whole packets
	grams   []packet.Datagram
	cache   *flowCache
	scratch *esp.Scratch
	now     time.Duration // read once per batch

	run   inboundRun
	taker wholeTaker
	rx    []*packet.Buffer // committed to the TUN
	out   []packet.Buffer  // what rx points to

	badSPI, strayPeer limiter
	audits            auditor
}

// inboundRun is a run of consecutive packets of one SA.
type inboundRun struct {
	sa   *sad.SA
	jobs []esp.Packet
	from []origin // jobs[i] lies in from[i]
}

// origin is where one datagram lies: in gram.Mem, from start to end.
type origin struct {
	gram       *packet.Datagram
	start, end int
	header     int // of ESP inside AH: the length of the IP header at gram.Off; else 0
}

func newInboundWorker(g *Gateway, wire Wire, q tun.Queue, udp, covered bool) *inboundWorker {
	w := &inboundWorker{
		gateway: g,
		wire:    wire,
		queue:   q,
		udp:     udp,
		covered: covered,
		taker:   newWholeTaker(covered),
		grams:   packet.NewDatagrams(inboundBatch),
		cache:   newFlowCache(spd.Inbound),
		scratch: esp.NewScratch(),
		rx:      make([]*packet.Buffer, 0, 2*inboundBatch),
		out:     make([]packet.Buffer, 0, 2*inboundBatch),
	}
	w.run.jobs = make([]esp.Packet, 0, inboundBatch)
	w.run.from = make([]origin, 0, inboundBatch)
	return w
}

// runInbound carries packets until the wire is closed. Its error is why it had
// to give up; nil after Close.
func (w *inboundWorker) runInbound() error {
	failures := 0
	for {
		n, err := w.wire.ReadBatch(w.grams)
		switch {
		case err == nil:
			failures = 0
			w.walk(n)
		case w.gateway.stopping():
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("dataplane: a wire was closed under the gateway: %w", err)
		default:
			// ICMP errors queued on the socket and the like pass.
			if failures++; !w.gateway.readAgain(failures) {
				return fmt.Errorf("dataplane: reading a wire failed %d times in a row: %w", failures, err)
			}
		}
	}
}

// walk takes the first n datagrams through the walk and into the TUN.
func (w *inboundWorker) walk(n int) {
	w.begin()
	for i := range n {
		w.split(&w.grams[i])
	}
	w.openAH()
	w.openRun()
	w.flush()
}

// split takes each datagram that d holds through the walk.
func (w *inboundWorker) split(d *packet.Datagram) {
	size := d.Len
	if d.SegmentSize > 0 {
		size = d.SegmentSize
	}
	limit := d.Off + d.Len
	for start := d.Off; ; start += size {
		end := min(start+size, limit)
		from := origin{gram: d, start: start, end: end}
		if reason := w.inbound(from); reason != forwarded {
			w.drop(reason, 1)
			w.audit(reason, from, nil, nil)
		}
		if end == limit {
			return
		}
	}
}

// begin does what is done once per batch.
func (w *inboundWorker) begin() {
	w.now = w.gateway.clock()
	w.cache.use(w.gateway.policy.Load(), w.gateway.sas.Load())
}

// inbound finds the SA of one datagram and adds it to that SA's run.
func (w *inboundWorker) inbound(from origin) DropReason {
	d := from.gram
	b := d.Mem[from.start:from.end]
	if w.covered {
		return w.inboundAH(from)
	}
	if w.udp {
		switch natt.Classify(b) {
		case natt.ESP:
		case natt.Keepalive:
			// RFC 3948 2.3: "The receiver SHOULD ignore a received
			// NAT-keepalive packet."
			w.keep.Add(1)
			return forwarded
		case natt.IKE:
			return w.ike(b, d.Local, d.Addr)
		default:
			return InMalformed
		}
	}
	spi, low, ok := esp.ParseHeader(b)
	if !ok {
		return InMalformed
	}
	sa := w.run.sa
	if sa == nil || sa.SPI != spi {
		if sa = w.cache.sas.Inbound(spi); sa == nil {
			w.unknownSPI(spi, d.Addr)
			return InNoSA
		}
	}
	if !w.endpoint(sa, d) {
		return InEndpoint
	}
	if sa.Bundle {
		return InBundle // its AH is not there
	}
	w.join(sa, low, from)
	return forwarded
}

// join adds one ESP packet to the run of its SA.
func (w *inboundWorker) join(sa *sad.SA, low uint32, from origin) {
	if r := &w.run; r.sa != sa || len(r.jobs) == cap(r.jobs) {
		w.openRun()
		r.sa = sa
	}
	w.run.add(low, from)
}

// add fills the next job where it lies: one that were made elsewhere and copied
// would cost more than the rest of this. Open sets the other fields.
func (r *inboundRun) add(low uint32, from origin) {
	r.jobs = r.jobs[:len(r.jobs)+1]
	j := &r.jobs[len(r.jobs)-1]
	j.Seq, j.Wire, j.Err = uint64(low), from.gram.Mem[from.start:from.end], nil
	r.from = append(r.from, from)
}

// unknownSPI says so to whoever listens: RFC 4303 3.4.2, "if no valid Security
// Association exists for this packet, the receiver MUST discard the packet;
// this is an auditable event".
func (w *inboundWorker) unknownSPI(spi uint32, from netip.AddrPort) {
	if w.badSPI.allow(w.now, badSPIBurst) {
		w.emit(Event{Kind: BadSPI, SPI: spi, From: from})
	}
}

// endpoint tells whether d may be the SA's by its outer addresses. A unicast SA
// is found by its SPI alone (RFC 4301 4.1); beyond that, an SA that knows its
// own address is not answered on another one, and protocol 50 must come from
// where the peer is or was said to be. UDP may come from elsewhere, for NATs do
// move: whether that was the peer is seen after authentication, in roam.
//
// Which of the two an SA's own packets travel in does not matter. RFC 7296 2.23:
// "all devices MUST be able to receive and process both UDP-encapsulated ESP and
// non-UDP-encapsulated ESP packets at any time."
func (w *inboundWorker) endpoint(sa *sad.SA, d *packet.Datagram) bool {
	if local := sa.Local.Addr(); local.IsValid() && !local.IsUnspecified() && d.Local.IsValid() && d.Local != local && !sa.Ends().Here(d.Local) {
		return false
	}
	if peer := sa.Remote.Addr(); !w.udp && peer.IsValid() {
		return d.Addr.Addr() == peer || sa.Ends().There(d.Addr.Addr())
	}
	return true
}

// openRun takes the collected run of one SA's packets through steps 3 to 9.
func (w *inboundWorker) openRun() {
	r := &w.run
	if len(r.jobs) == 0 {
		r.sa = nil
		return
	}
	r.sa.Check(r.jobs)
	r.sa.Transform.Open(w.scratch, r.jobs)
	r.sa.Mark(r.jobs)
	r.order()
	if w.udp {
		w.roam(r)
	}
	if len(w.out)+len(r.jobs) > cap(w.out) {
		w.flush()
	}
	packets, bytes, dummies, others := 0, 0, 0, 0
	for i := range r.jobs {
		reason := w.deliver(r.sa, &r.jobs[i], &r.from[i])
		if reason != forwarded {
			w.drop(reason, 1)
			w.audit(reason, r.from[i], r.sa, &r.jobs[i])
			switch reason {
			case InReplay, InAuth: // Check and Mark have counted those
			case InDummy, probed:
				dummies++
			default:
				others++
			}
			continue
		}
		packets++
		bytes += w.out[len(w.out)-1].Len
	}
	// What is not authentic does not make an SA look alive. A dummy does, and
	// is no drop: RFC 4303 2.6, "discarded without prejudice".
	if packets+dummies > 0 {
		r.sa.Touch(int64(w.now), packets, bytes)
	}
	if others > 0 {
		r.sa.CountDrop(others)
	}
	r.jobs, r.from, r.sa = r.jobs[:0], r.from[:0], nil
}

// order sorts a run by sequence number, if what is authentic in it is not
// sorted yet: the path, or workers that share an SA, may have changed the order
// in which the sender numbered them, and packets in order can be merged on their
// way into the TUN.
func (r *inboundRun) order() {
	last := uint64(0)
	for i := range r.jobs {
		switch j := &r.jobs[i]; {
		case j.Err != nil:
		case j.Seq < last:
			sort.Sort(r)
			return
		default:
			last = j.Seq
		}
	}
}

// Len, Less and Swap are sort.Interface.
func (r *inboundRun) Len() int           { return len(r.jobs) }
func (r *inboundRun) Less(i, j int) bool { return r.jobs[i].Seq < r.jobs[j].Seq }
func (r *inboundRun) Swap(i, j int) {
	r.jobs[i], r.jobs[j] = r.jobs[j], r.jobs[i]
	r.from[i], r.from[j] = r.from[j], r.from[i]
}

// deliver takes one opened packet through steps 6 to 9.
func (w *inboundWorker) deliver(sa *sad.SA, job *esp.Packet, from *origin) DropReason {
	if job.Err != nil {
		return refused(job.Err)
	}
	var p *packet.Buffer
	var reason DropReason
	if sa.Mode == sad.TransportMode {
		p, reason = w.transported(sa, job, from)
	} else {
		p, reason = w.decapsulate(sa, job, from)
	}
	if reason != forwarded {
		return reason
	}
	return w.admit(sa, p)
}

// admit takes one inner packet through steps 7 to 9.
func (w *inboundWorker) admit(sa *sad.SA, p *packet.Buffer) DropReason {
	var policy *spd.Policy
	if !p.Header.Fragment {
		policy = w.cache.lookup(&p.Flow).policy
	} else if policy = w.fragment(sa, p).policy; policy == undecided {
		w.out = w.out[:len(w.out)-1]
		return InFragment
	}
	if selected := carries(sa, policy, &p.Flow); !selected || w.gateway.icmp.CheckQuoted {
		if reason := w.quoted(sa, p, selected); reason != forwarded {
			w.out = w.out[:len(w.out)-1]
			return reason
		}
	}
	if isSYN(p) {
		w.clampMSS(p)
	}
	w.rx = append(w.rx, p)
	return forwarded
}

// refused maps the errors of steps 3 to 5 to their counters.
func refused(err error) DropReason {
	//nolint:errorlint // sentinels handed over bare, on the packet path
	switch err {
	case sad.ErrReplay:
		return InReplay
	case sad.ErrExpired:
		return InExpired
	case esp.ErrAuth:
		return InAuth
	case esp.ErrPadding:
		return InPadding
	}
	return InMalformed
}

// decapsulate makes the inner packet of an opened one, in its place.
func (w *inboundWorker) decapsulate(sa *sad.SA, job *esp.Packet, from *origin) (*packet.Buffer, DropReason) {
	// The plaintext lies behind ESP header and IV, where the wire put them,
	// so there is room in front of it for a virtio-net header: with a short
	// header, in the ICV of the datagram in front, which is done with. So Mem
	// ends before the ICV: a queue may overwrite it to its end, and what lies
	// behind is the next one's, which may not be open yet.
	start := from.start + esp.HeaderLen + sa.Suite.IVLen()
	d, end := from.gram, from.end-sa.Suite.ICVLen()
	if from.end == d.Off+d.Len {
		end = len(d.Mem) // the last in its slot
	}
	return w.inner(sa, job.NextHeader, d, start, len(job.Payload), end)
}

// inner makes the inner packet of n bytes that starts in d, at start, and may be
// overwritten up to end.
func (w *inboundWorker) inner(sa *sad.SA, next uint8, d *packet.Datagram, start, n, end int) (*packet.Buffer, DropReason) {
	version := 4
	switch next {
	case packet.ProtoIPv4:
	case packet.ProtoIPv6:
		version = 6
	case packet.ProtoNone:
		// RFC 4303 2.6: a receiver "MUST be prepared to discard such
		// packets without indicating an error".
		return nil, w.dummy(sa, d.Mem[start:start+n])
	default:
		return nil, InNextHeader
	}
	w.out = w.out[:len(w.out)+1] // in place, as in add
	p := &w.out[len(w.out)-1]
	p.Mem, p.Off, p.Len, p.SegmentSize = d.Mem[:end:end], start, n, 0
	// Parse cuts what lies behind the inner packet: RFC 4303 2.7, traffic
	// flow confidentiality padding.
	if err := p.Parse(); err != nil || p.Header.Version != version {
		w.out = w.out[:len(w.out)-1]
		return nil, w.malformed(sa, p, err)
	}
	ecn, ok := innerECN(p.Header.TrafficClass&3, d.TOS&3)
	if !ok {
		w.out = w.out[:len(w.out)-1]
		return nil, InECN
	}
	if ecn != p.Header.TrafficClass&3 {
		packet.SetECN(p.Bytes(), ecn)
	}
	return p, forwarded
}

// carries is RFC 4301 5.2 step 4: the inner packet must match the selectors of
// the SA that it arrived on; if not, it "MUST be discarded". What the SA may
// carry is what the first matching policy protects with this very peer, and
// within that what the SA itself was negotiated for.
func carries(sa *sad.SA, policy *spd.Policy, flow *packet.Flow) bool {
	return policy != nil && policy.Action == spd.Protect && policy.Peer == sa.Peer &&
		(sa.Policy == "" || sa.Policy == policy.Name) &&
		sa.Matches(spd.Inbound, flow)
}

// flush writes the committed packets to the TUN. A TUN that refuses packets
// costs those packets, never the worker.
func (w *inboundWorker) flush() {
	if len(w.rx) == 0 {
		w.taker.used = 0 // what was built again and then refused
		return
	}
	written, err := w.queue.WriteBatch(w.rx)
	if err != nil && !w.gateway.stopping() {
		w.drop(InTUNError, len(w.rx)-written)
	}
	bytes := 0
	for _, p := range w.rx[:written] {
		bytes += p.Len
	}
	w.packets.Add(uint64(written))
	w.bytes.Add(uint64(bytes))
	w.rx, w.out, w.taker.used = w.rx[:0], w.out[:0], 0
}

func (w *inboundWorker) emit(e Event) {
	e.At = w.now
	if !w.gateway.emit(e) {
		w.lost.Add(1)
	}
}
