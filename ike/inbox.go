package ike

import (
	"encoding/binary"
	"net/netip"
	"sync"

	"github.com/adit-ipsec/adit/ike/wire"
)

// Inbox is where IKE messages wait for the driver. Whoever reads a socket puts them
// in, without ever waiting; what finds no room is lost, as on any wire, and is said
// again by its sender.
//
// There are two queues, each with its own bounds. Messages that name a responder SPI
// belong to an exchange that is under way, and so do responses, of which a COOKIE names
// none (RFC 7296 2.6); the others begin one, come from anybody, and cost a key exchange
// to answer. So the first are taken first, and a
// flood of the second fills its own queue and nothing else. Still one message in
// fairness is taken from the second if there is one: whoever invents SPIs must not
// keep all new peers out.
type Inbox struct {
	ready chan struct{} // holds one token while there may be messages

	mu       sync.Mutex
	known    queue // guarded by mu: a response, or the responder SPI is not zero
	first    queue // guarded by mu: neither
	turn     int   // guarded by mu: messages of known in a row
	received uint64
	full     uint64
}

// The bounds of the queues, in messages and in bytes, and of one first message:
// RFC 7296 2 wants 3000 bytes taken, and a key share of 1568 bytes (ML-KEM-1024)
// with a dozen proposals stays below a third of this.
const (
	knownMessages = 1024
	knownBytes    = 4 << 20
	firstMessages = 256
	firstBytes    = 1 << 20
	firstLength   = 16 << 10

	fairness   = 16
	slotReused = 4 << 10 // longer buffers are not kept for the next message
)

// ikeHeaderLen is RFC 7296 3.1's header, the least that a message is.
const ikeHeaderLen = 28

// queue is a ring of messages whose buffers are used again.
type queue struct {
	slots       []Packet
	head, n     int
	bytes, most int
	length      int // of one message
}

// NewInbox makes an empty inbox.
func NewInbox() *Inbox {
	return &Inbox{
		ready: make(chan struct{}, 1),
		known: queue{slots: make([]Packet, knownMessages), most: knownBytes, length: knownBytes},
		first: queue{slots: make([]Packet, firstMessages), most: firstBytes, length: firstLength},
	}
}

// Put copies one message into the inbox; local is the address and port that it was
// sent to, natt tells that this is the port of NAT traversal. False: there is no room,
// or it is no message. It may be called by any goroutine, and never waits for the
// machine.
func (b *Inbox) Put(local, remote netip.AddrPort, natt bool, message []byte) bool {
	if len(message) < ikeHeaderLen {
		return false
	}
	b.mu.Lock()
	q := &b.known
	if binary.BigEndian.Uint64(message[8:]) == 0 && wire.Flags(message[19])&wire.FlagResponse == 0 {
		q = &b.first
	}
	ok := q.put(local, remote, natt, message)
	if ok {
		b.received++
	} else {
		b.full++
	}
	b.mu.Unlock()
	if ok {
		b.wake()
	}
	return ok
}

// next takes a message out, into p, whose buffer goes into the queue in exchange;
// false: there is none.
func (b *Inbox) next(p *Packet) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known.n > 0 && (b.first.n == 0 || b.turn < fairness) {
		b.turn++
		b.known.take(p)
		return true
	}
	b.turn = 0
	if b.first.n == 0 {
		return false
	}
	b.first.take(p)
	return true
}

// wake says that there may be messages.
func (b *Inbox) wake() {
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// counts is how many messages came in and how many found no room.
func (b *Inbox) counts() (received, full uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.received, b.full
}

func (q *queue) put(local, remote netip.AddrPort, natt bool, message []byte) bool {
	if q.n == len(q.slots) || q.bytes+len(message) > q.most || len(message) > q.length {
		return false
	}
	p := &q.slots[(q.head+q.n)%len(q.slots)]
	p.Local, p.Remote, p.NATT = local, remote, natt
	p.Data = append(p.Data[:0], message...)
	q.n++
	q.bytes += len(message)
	return true
}

// take is for a queue that is not empty.
func (q *queue) take(p *Packet) {
	old := p.Data
	if cap(old) > slotReused {
		old = nil
	}
	s := &q.slots[q.head]
	*p, s.Data = *s, old[:0]
	q.head = (q.head + 1) % len(q.slots)
	q.n--
	q.bytes -= len(p.Data)
}
