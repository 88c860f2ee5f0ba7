package dataplane

import "github.com/adit-ipsec/adit/internal/packet"

// sendBatch collects what a worker sends to one wire in one call. It points
// into the worker's buffers and must be flushed before the next ReadBatch.
type sendBatch struct {
	to    Sender // nil: there is no such wire
	grams []packet.Datagram
	inner []int // the inner packet's length of each, in bytes
}

func newSendBatch(to Sender, size int) sendBatch {
	return sendBatch{to: to, grams: make([]packet.Datagram, 0, size), inner: make([]int, 0, size)}
}

// commit adds d, which carries an inner packet of that many bytes.
func (b *sendBatch) commit(d packet.Datagram, inner int) {
	b.grams = append(b.grams, d)
	b.inner = append(b.inner, inner)
}

// flush sends everything and says what became of it. An error of the kernel
// (EPERM, ENOBUFS, ENETUNREACH, EMSGSIZE …) costs the datagram that it belongs
// to and never stops the worker.
func (b *sendBatch) flush() (packets, bytes uint64, failed int) {
	grams, inner := b.grams, b.inner
	for len(grams) > 0 {
		sent, err := b.to.WriteBatch(grams)
		for _, n := range inner[:sent] {
			bytes += uint64(n)
		}
		packets += uint64(sent)
		if err != nil && sent < len(grams) {
			failed++
			sent++
		} else if sent == 0 {
			// A Sender that makes no progress and names no error breaks
			// its contract; do not spin.
			failed += len(grams)
			sent = len(grams)
		}
		grams, inner = grams[sent:], inner[sent:]
	}
	b.grams, b.inner = b.grams[:0], b.inner[:0]
	return packets, bytes, failed
}
