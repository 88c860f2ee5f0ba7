package dataplane

import (
	"bytes"
	"runtime"
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// Step 3 of the outbound walk where a policy protects and there is no SA: the key
// sources are asked for one (Acquire), and the packet waits for it.
//
//	withoutSA     responder-only, and none is being made; Acquire  drop OutResponderOnly, OutNoSA
//	keep          a copy, at the end of this worker's list         drop OutHoldFull
//	tend          databases that have changed: each packet of the list is looked up again, in the
//	              order in which they came, and goes on with step 4 if there is an SA now
//	                                                               drop OutHoldExpired, OutRefused, OutResponderOnly, OutDiscard, OutFragment
//
// Nothing is lost without a count: OutHeld is OutReleased, these reasons, and what
// is held now.
//
// # Order
//
// The packets of a flow leave in the order in which they came, also those that
// come while the SA is being installed, and no lock is on the way of packets that
// have an SA:
//
//   - A list is one worker's, as its flow cache is. Whoever has taken the worker's
//     using from 0 (takeSnapshot) owns all of the worker's memory until
//     releaseSnapshot: the worker itself, for a batch, or the gateway's holder,
//     while the worker waits in ReadBatch.
//   - An owner with packets on the list calls tend first, under the snapshot that
//     it has just loaded, and tend flushes. So a packet of a batch that sees the SA
//     leaves behind every packet of its flow that was held, and what comes without
//     an SA goes to the end of the list.
//   - No packet is forgotten. Install publishes the new SAs and then wakes the
//     holder, which tries to own each worker. If it cannot, the owner looks at the
//     databases once more behind its release (end): either that look sees the new
//     SAs, or it came before they were published, and then the worker was free for
//     the holder. It is the argument of takeSnapshot the other way round; Go's
//     atomics are one order for all.
//
// With several TUN queues the kernel keeps a flow on one of them, by its hash, until
// there are packets the other way; those come after the SA. A flow that does change
// queues is ordered no less than without a hold.
//
// # Fairness
//
// A policy whose peer is away must not cost another its first packets. A worker
// holds no more for one policy than the hold has free: alone it gets one half, the
// second a third each, and there is always room for one more. The reminder of
// Acquires goes to each policy, and in it to the flow that was named least recently,
// for an SA may be negotiated for one flow of several.

// holdTick is how often held packets are looked at when nothing has changed: for
// their deadline, and to ask once more.
const holdTick = 50 * time.Millisecond

// acquireAgain is when an Acquire is tried again that found the channel full.
const acquireAgain = 10 * time.Millisecond

// heldPacket is a packet that waits for an SA. Its memory is a copy without room
// around it.
type heldPacket struct {
	packet.Buffer
	policy   *spd.Policy
	since    time.Duration
	asked    time.Duration // when an Acquire last named it; 0: never
	segments int
}

// holdList is an outbound worker's part of step 3.
type holdList struct {
	list  []*heldPacket // in the order in which they came
	flows map[packet.Flow]int
	of    map[*spd.Policy]*holdUse
	table *spd.Table    // as of the last tend
	sas   *sad.Snapshot // as of the last tend
	look  time.Duration // not looked at before, unless the databases change

	slots []packet.Buffer // with all the room of the walk, for those that go on
	used  int

	mayAsk []time.Duration // per policy of asked: when the next Acquire may be said
	asked  *spd.Table
}

// holdUse is what is held for one policy.
type holdUse struct{ packets, bytes int }

// withoutSA ends or keeps a packet that is to be protected and has no SA.
func (w *outboundWorker) withoutSA(policy *spd.Policy, p *packet.Buffer) DropReason {
	g := w.gateway
	asked := false
	if !g.holding.isResponderOnly(policy.Name) {
		asked = w.acquire(policy, p)
	} else if !g.holding.isComing(policy.Name, w.now) {
		return OutResponderOnly
	}
	if !g.holding.on {
		return OutNoSA
	}
	held := &heldPacket{Buffer: *p, policy: policy, since: w.now, segments: p.Segments()}
	if asked {
		held.asked = max(w.now, 1)
	}
	return w.keep(held)
}

// acquire asks the key sources for an SA, once per policy and eventInterval. It
// tells whether it has.
func (w *outboundWorker) acquire(policy *spd.Policy, p *packet.Buffer) bool {
	if !w.mayAcquire(policy) {
		return false
	}
	next := &w.hold.mayAsk[policy.Index()]
	if !w.emit(Event{Kind: Acquire, Peer: policy.Peer, Policy: policy.Name, Flow: p.Flow, DSCP: p.Header.TrafficClass >> 2}) {
		*next = w.now + acquireAgain
		return false
	}
	*next = w.now + eventInterval
	return true
}

func (w *outboundWorker) mayAcquire(policy *spd.Policy) bool {
	if w.gateway.holding.isResponderOnly(policy.Name) {
		return false
	}
	h := &w.hold
	if h.asked != w.cache.table { // another table, other policies: each may ask at once
		h.asked, h.mayAsk = w.cache.table, make([]time.Duration, w.cache.table.Len())
	}
	return w.now >= h.mayAsk[policy.Index()]
}

// keep puts a packet at the end of the list, if there is room: in a copy, for the
// bytes are borrowed.
func (w *outboundWorker) keep(held *heldPacket) DropReason {
	h, all := &w.hold, &w.gateway.holding
	if h.of == nil {
		h.of, h.flows = map[*spd.Policy]*holdUse{}, map[packet.Flow]int{}
	}
	// One superpacket is always held: it is what its sender sent at once.
	if n := h.flows[held.Flow]; n > 0 && n+held.segments > all.PerFlow {
		return OutHoldFull
	}
	use := h.of[held.policy]
	if use == nil {
		use = &holdUse{}
	}
	packets, bytesHeld := all.packets.Add(int64(held.segments)), all.bytes.Add(int64(held.Len))
	if use.packets+held.segments > all.Packets-int(packets) || use.bytes+held.Len > all.Bytes-int(bytesHeld) {
		all.packets.Add(-int64(held.segments))
		all.bytes.Add(-int64(held.Len))
		return OutHoldFull
	}
	if len(h.list) == 0 {
		h.table, h.sas, h.look = w.cache.table, w.cache.sas, w.now+holdTick
	}
	held.Mem, held.Off = bytes.Clone(held.Bytes()), 0
	h.list = append(h.list, held)
	h.flows[held.Flow] += held.segments
	h.of[held.policy] = use
	use.packets += held.segments
	use.bytes += held.Len
	w.heldPackets.Add(uint64(held.segments))
	return forwarded
}

// forget takes a packet off the tallies.
func (w *outboundWorker) forget(held *heldPacket) {
	h, all := &w.hold, &w.gateway.holding
	all.packets.Add(-int64(held.segments))
	all.bytes.Add(-int64(held.Len))
	if h.flows[held.Flow] -= held.segments; h.flows[held.Flow] == 0 {
		delete(h.flows, held.Flow)
	}
	h.leave(held)
}

func (h *holdList) leave(held *heldPacket) {
	use := h.of[held.policy]
	use.packets -= held.segments
	use.bytes -= held.Len
	if use.packets == 0 {
		delete(h.of, held.policy)
	}
}

// under makes the packet another policy's: the table is another.
func (h *holdList) under(held *heldPacket, policy *spd.Policy) {
	if held.policy == policy {
		return
	}
	h.leave(held)
	held.policy = policy
	use := h.of[policy]
	if use == nil {
		use = &holdUse{}
		h.of[policy] = use
	}
	use.packets += held.segments
	use.bytes += held.Len
}

// tend looks at what is held: everything once when the databases have changed, and
// else for what time does. What it sends has left when it returns.
func (w *outboundWorker) tend() {
	h := &w.hold
	changed := h.table != w.cache.table || h.sas != w.cache.sas
	if !changed && w.now < h.look {
		return
	}
	h.table, h.sas, h.look = w.cache.table, w.cache.sas, w.now+holdTick
	w.sift(func(held *heldPacket) (d decision, reason DropReason) {
		switch {
		case w.now-held.since >= w.gateway.holding.Deadline:
			return d, OutHoldExpired
		case changed:
			if d, reason = w.again(held); reason != forwarded || d.sa != nil {
				return d, reason
			}
		}
		if all := &w.gateway.holding; all.isResponderOnly(held.policy.Name) && !all.isComing(held.policy.Name, w.now) {
			return d, OutResponderOnly
		}
		return d, forwarded
	})
	w.sealRun()
	w.flush()
	w.hold.used = 0
	w.remind()
}

// sift asks for a decision about each packet of the list, in order. Without an SA
// and without a reason it stays.
func (w *outboundWorker) sift(decide func(*heldPacket) (decision, DropReason)) {
	h := &w.hold
	kept := h.list[:0]
	for _, held := range h.list {
		d, reason := decide(held)
		if reason == forwarded && d.sa == nil {
			kept = append(kept, held)
			continue
		}
		w.forget(held)
		if reason == forwarded {
			w.released.Add(uint64(held.segments))
			reason = w.release(held, &d)
		} else {
			w.answerHeld(held, reason)
		}
		if reason != forwarded {
			w.drop(reason, held.segments)
			w.audit(reason, nil, &held.Buffer, held.segments)
		}
	}
	clear(h.list[len(kept):])
	h.list = kept
	if len(kept) == 0 { // it was the largest that it will be for long
		h.list, h.flows, h.of = nil, nil, nil
	}
}

// again is steps 2 and 3 for a held packet. Its flow is the one that was decided
// about: of a fragment, the flow of its initial one where that was known.
//
// A packet that came to be protected never leaves in clear: where another table
// bypasses its like, it is dropped.
func (w *outboundWorker) again(held *heldPacket) (decision, DropReason) {
	d := w.cache.lookup(&held.Flow)
	switch {
	case d.policy == undecided:
		return d, OutFragment
	case d.policy == nil || d.policy.Action != spd.Protect:
		return d, OutDiscard
	}
	if d.classes != nil {
		w.choose(&d, &held.Buffer, &held.Flow)
	}
	w.hold.under(held, d.policy)
	return d, forwarded
}

// release takes a held packet on to step 4, in a slot with the room that the walk
// needs.
func (w *outboundWorker) release(held *heldPacket, d *decision) DropReason {
	h := &w.hold
	if h.slots == nil {
		h.slots = packet.NewBuffers(cap(w.run.bufs))
	}
	if h.used == len(h.slots) {
		w.sealRun()
		w.flush()
		h.used = 0
	}
	p := &h.slots[h.used]
	h.used++
	p.Set(held.Mem)
	p.SegmentSize, p.Header, p.Flow = held.SegmentSize, held.Header, held.Flow
	return w.carry(p, d)
}

// remind asks once more for what is still held: each policy once an eventInterval,
// for the packet that was named least recently.
func (w *outboundWorker) remind() {
	var due map[*spd.Policy]*heldPacket
	for _, held := range w.hold.list {
		if !w.mayAcquire(held.policy) {
			continue
		}
		if due == nil {
			due = map[*spd.Policy]*heldPacket{}
		}
		if other := due[held.policy]; other == nil || held.asked < other.asked {
			due[held.policy] = held
		}
	}
	if due == nil {
		return
	}
	for _, held := range w.hold.list {
		if due[held.policy] == held && w.acquire(held.policy, &held.Buffer) {
			held.asked = max(w.now, 1)
		}
	}
}

// answerHeld tells the sender of a held packet that it was dropped, where answers
// are wanted. RFC 4301 5.1: 3/13 or 1/1 where the SA was refused, and 3/1 or 1/3
// where the peer "could not be contacted".
func (w *outboundWorker) answerHeld(held *heldPacket, reason DropReason) {
	if w.answers == nil {
		return
	}
	switch reason {
	case OutRefused, OutDiscard:
		w.answers.prohibited(w.queue, &held.Buffer, w.now)
	case OutHoldExpired:
		w.answers.unreachable(w.queue, &held.Buffer, w.now, packet.ICMPCodeHost, packet.ICMPv6CodeAddress)
	}
}

// own waits until the worker's memory is the caller's.
//
//go:noinline
func (w *outboundWorker) own() {
	for tries := 0; !w.using.CompareAndSwap(0, anySnapshot); tries++ {
		if tries < 100 {
			runtime.Gosched()
		} else {
			w.gateway.pause(waitPause)
		}
	}
}

// end gives the worker's memory back. With packets on the list it looks behind
// itself for SAs that were installed meanwhile.
func (w *outboundWorker) end() {
	for len(w.hold.list) > 0 {
		g, table, sas := w.gateway, w.cache.table, w.cache.sas
		w.releaseSnapshot()
		if g.policy.Load() == table && g.sas.Load() == sas {
			return
		}
		if !w.using.CompareAndSwap(0, anySnapshot) {
			return // whoever has it comes here too
		}
		w.load()
		w.tend()
		w.handOut(nil)
	}
	w.releaseSnapshot()
}
