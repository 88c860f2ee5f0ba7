package dataplane

import (
	"errors"
	"syscall"

	"github.com/adit-ipsec/adit/internal/packet"
)

// sendBatch collects what a worker sends to one wire in one call. It points
// into the worker's buffers and must be flushed before the next ReadBatch.
type sendBatch struct {
	to     Sender // nil: there is no such wire
	grams  []packet.Datagram
	inner  []int  // the inner packet's length of each, in bytes
	copied []bool // of each: DF is set because the inner packet has it set
	whole  bool   // they are whole packets, with their IP headers

	refused refusal // the last one that was too long for the link, since it was looked at
}

// minTunnelMTU is the least MTU, in bytes, that adit chooses for a TUN, whatever
// the path has room for (RFC 8200 5). So an inner packet of this length must be
// carried, also where the outside cannot take it in one piece.
const minTunnelMTU = 1280

// sendBatchLen is how many datagrams wait for one WriteBatch at the most.
const sendBatchLen = 256

func newSendBatch(to Sender) sendBatch {
	return sendBatch{to: to, grams: make([]packet.Datagram, 0, sendBatchLen), inner: make([]int, 0, sendBatchLen), copied: make([]bool, 0, sendBatchLen)}
}

// full tells that nothing can be added before a flush.
func (b *sendBatch) full() bool { return len(b.grams) == cap(b.grams) }

// commit adds a datagram, for the caller to fill, which carries an inner packet
// of that many bytes. copied tells that its DF is the inner packet's and no
// one's wish. The datagram is filled where it lies: one that were made elsewhere
// and copied here would cost more than the rest of this.
func (b *sendBatch) commit(inner int, copied bool) *packet.Datagram {
	b.copied = append(b.copied, copied)
	b.inner = append(b.inner, inner)
	b.grams = b.grams[:len(b.grams)+1]
	return &b.grams[len(b.grams)-1]
}

// flush sends everything and says what became of it. An error of the kernel
// (EPERM, ENOBUFS, ENETUNREACH, EMSGSIZE …) costs the datagram that it belongs
// to and never stops the worker. Deviation from RFC 4301 8.1: where a copied DF
// is all that keeps such a packet here, it leaves with DF clear.
func (b *sendBatch) flush() (packets, bytes uint64, failed int) {
	grams, inner, copied := b.grams, b.inner, b.copied
	for len(grams) > 0 {
		sent, err := b.to.WriteBatch(grams)
		for _, n := range inner[:sent] {
			bytes += uint64(n)
		}
		packets += uint64(sent)
		if err != nil && sent < len(grams) {
			b.refused.note(&grams[sent], err, b.whole)
			if errors.Is(err, syscall.EMSGSIZE) && clearDF(grams[sent:], inner[sent:], copied[sent:]) {
				grams, inner, copied = grams[sent:], inner[sent:], copied[sent:]
				continue
			}
			failed++
			sent++
		} else if sent == 0 {
			// A Sender that makes no progress and names no error breaks
			// its contract; do not spin.
			failed += len(grams)
			sent = len(grams)
		}
		grams, inner, copied = grams[sent:], inner[sent:], copied[sent:]
	}
	b.grams, b.inner, b.copied = b.grams[:0], b.inner[:0], b.copied[:0]
	return packets, bytes, failed
}

// clearDF takes a copied DF from the first of grams, which is too long for its
// path with it, and from those behind it that go the same way and are no
// shorter. false: the first one's DF is not to be taken.
func clearDF(grams []packet.Datagram, inner []int, copied []bool) bool {
	// Whoever sent an inner packet this short keeps to the TUN's MTU and hears
	// of no smaller one: it leaves in fragments.
	may := func(i int) bool { return grams[i].DF && copied[i] && inner[i] <= minTunnelMTU }
	if !may(0) {
		return false
	}
	first := grams[0]
	for i := range grams {
		if d := &grams[i]; d.Len >= first.Len && d.Addr == first.Addr && d.Local == first.Local && may(i) {
			d.DF = false
		}
	}
	return true
}
