package dataplane

import (
	"net/netip"
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/tun"
)

// discard ends a packet that policy discards, and answers it if it may.
func (w *outboundWorker) discard(p *packet.Buffer) DropReason {
	if w.answers != nil {
		w.answers.prohibited(w.queue, p, w.now)
	}
	return OutDiscard
}

// answers are a worker's ICMP errors to the hosts behind the gateway.
type answers struct {
	from4, from6 netip.Addr // not valid: the offending packet's destination
	bucket       bucket
	buf          packet.Buffer
	batch        [1]*packet.Buffer
}

// newAnswers is nil where nothing is to be answered.
func newAnswers(c *ICMP) *answers {
	if !c.Unreachable {
		return nil
	}
	a := &answers{from4: c.From4, from6: c.From6}
	a.buf.Mem = make([]byte, packet.Headroom+packet.MaxICMPError+packet.Tailroom)
	a.batch[0] = &a.buf
	return a
}

// prohibited is unreachable, for a policy's reasons.
func (a *answers) prohibited(q tun.Queue, p *packet.Buffer, now time.Duration) {
	a.unreachable(q, p, now, packet.ICMPCodeProhibited, packet.ICMPv6CodeProhibited)
}

// unreachable writes the answer to p into the TUN. One that is not to be made, is
// one too many, or is refused by the TUN, is missed by nobody: the packet that it
// is about is counted.
func (a *answers) unreachable(q tun.Queue, p *packet.Buffer, now time.Duration, code4, code6 uint8) {
	if !a.bucket.has(now) {
		return
	}
	from, code := a.from4, code4
	if p.Header.Version == 6 {
		from, code = a.from6, code6
	}
	if !from.IsValid() {
		from = p.Flow.DstAddr()
	}
	n, ok := packet.Unreachable(a.buf.Mem[packet.Headroom:], p.Bytes(), from, code)
	if !ok {
		return
	}
	a.bucket.take(now)
	a.buf.Off, a.buf.Len = packet.Headroom, n
	_, _ = q.WriteBatch(a.batch[:])
}

// What a bucket holds, and how often it gets one more.
const (
	answerBurst    = 10
	answerInterval = 10 * time.Millisecond
)

// bucket is a token bucket. RFC 4443 2.4 (f): "the recommended method for
// implementing the rate-limiting function is a token bucket".
type bucket struct {
	full time.Duration // when it is full, if nothing is taken until then
}

func (b *bucket) has(now time.Duration) bool {
	return b.full-now <= (answerBurst-1)*answerInterval
}

func (b *bucket) take(now time.Duration) { b.full = max(b.full, now) + answerInterval }
