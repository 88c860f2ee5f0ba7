package mmsg

// UDP superpackets: what is sent by GSO, what is received by GRO, and how a
// socket finds out that one of them does not work here.
//
// Sending. Consecutive datagrams of one batch with the same Addr, Local, TOS
// and DF and the same length, the last may be shorter, become one header with a
// UDP_SEGMENT control message and one iovec each: the kernel gathers them, and
// nothing is copied here. The kernel takes such a header whole or not at all,
// so one that fails can be sent again without sending anything twice. By errno:
//
//	EIO       an IPsec policy of the kernel's covers the route, or (before Linux
//	          6.11) the device makes no checksums: no superpackets on this socket
//	          any more. It serves all peers, so this errs towards plain sending.
//	EINVAL    a segment exceeds the MTU (before Linux 6.14), or the kernel knows
//	EMSGSIZE  a reason of its own. Where DF is clear, the datagram alone is
//	          fragmented, so both are no verdict on it. The rest of the batch goes
//	          out plain, and each failure without a superpacket sent since doubles
//	          the number of further batches that do: 1, 2, 4 … maxPause. It is
//	          never for good, because one peer with a short path must not take
//	          superpackets from all others.
//	others    say nothing about superpackets: the first datagram has failed, and
//	          the caller goes on with the next.
//
// Receiving. A coalesced read has to be split over many slots, and the caller's
// slots may not suffice. So the socket reads into coalesceBuffers buffers of its
// own and copies each datagram into a slot; what is left over waits there for
// the next ReadBatch.

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/packet"
)

// Offload says whether a UDP socket uses superpackets.
type Offload uint8

// OffloadAuto uses superpackets where the kernel can. OffloadOff never does: one
// datagram at a time, as on old kernels.
const (
	OffloadAuto Offload = iota
	OffloadOff
)

const (
	// maxSegments of one superpacket: the kernel takes 128 since 6.9 and 64
	// before, and some paths one less.
	maxSegments = 63
	// maxSuperpacket is the payload of one superpacket in bytes: with its IP
	// and UDP headers it has to stay below 65536.
	maxSuperpacket = 65000
	// maxPause is the most batches that go out plain after EINVAL or EMSGSIZE.
	maxPause = 256
	// coalesceBuffers bounds the memory for received superpackets: 2 MiB of
	// addresses, of which the kernel backs what was ever written.
	coalesceBuffers = 32
	coalesceLen     = packet.MaxLen + 1

	segmentLen = 2 // the data of UDP_SEGMENT
)

// Offloads is what became of superpackets on a socket. Counters count from its
// opening.
type Offloads struct {
	GSO bool // sending superpackets: configured, known to the kernel, not ended by EIO
	GRO bool // receiving superpackets: configured and known to the kernel

	SentSuperpackets, SentSegments         uint64 // superpackets, and the datagrams in them
	ReceivedSuperpackets, ReceivedSegments uint64

	// Superpackets that the kernel refused and that were sent one by one.
	FallbackEIO, FallbackEINVAL, FallbackEMSGSIZE uint64
}

// offloads is the state behind Offloads.
type offloads struct {
	gso atomic.Bool // cleared by EIO
	gro bool        // immutable after opening

	sent, sentSegments         atomic.Uint64
	received, receivedSegments atomic.Uint64
	eio, einval, emsgsize      atomic.Uint64
}

// Offloads returns the socket's state and counters. It takes no lock.
func (s *Socket) Offloads() Offloads {
	o := &s.offloads
	return Offloads{
		GSO: o.gso.Load(), GRO: o.gro,
		SentSuperpackets: o.sent.Load(), SentSegments: o.sentSegments.Load(),
		ReceivedSuperpackets: o.received.Load(), ReceivedSegments: o.receivedSegments.Load(),
		FallbackEIO: o.eio.Load(), FallbackEINVAL: o.einval.Load(), FallbackEMSGSIZE: o.emsgsize.Load(),
	}
}

// startOffloads asks the kernel what it knows. One that does not know
// UDP_SEGMENT would ignore the control message and send one long datagram.
func (s *Socket) startOffloads(fd int, want Offload) {
	if s.kind != kindUDP || want == OffloadOff {
		return
	}
	s.offloads.gso.Store(unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT, 0) == nil)
	s.offloads.gro = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) == nil
}

// putSegmentSize adds UDP_SEGMENT to a header's control messages.
func putSegmentSize(b []byte, size int) []byte {
	data, rest := putControl(b, unix.SOL_UDP, unix.UDP_SEGMENT, segmentLen)
	binary.NativeEndian.PutUint16(data, uint16(size))
	return rest
}

// segmentRun is the header being filled, as long as more segments may join it.
type segmentRun struct {
	size  int // length of each segment but the last, in bytes
	bytes int // of all segments so far
	vecs  int // iovecs of all headers so far
	open  bool
}

// joins tells whether a segment of d with n bytes may ride in the header made
// last, whose last segment is from last. DF is the same in the whole fill.
func (t *sender) joins(d, last *packet.Datagram, n int) bool {
	r := &t.run
	return r.open && n > 0 && n <= r.size && r.bytes+n <= maxSuperpacket && r.vecs < len(t.iovs) &&
		t.segments[t.end-1] < maxSegments && d.Addr == last.Addr && d.Local == last.Local && d.TOS == last.TOS
}

// join adds a segment to the header made last; continued tells that it follows
// the last one in the same datagram's memory.
func (t *sender) join(payload []byte, continued bool) {
	r, i := &t.run, t.end-1
	h := &t.hdrs[i].hdr
	if t.segments[i] == 1 {
		room := t.ctls[i].bytes()
		rest := putSegmentSize(room[h.Controllen:], r.size)
		h.Control = &room[0]
		h.SetControllen(len(room) - len(rest))
	}
	t.segments[i]++
	r.bytes += len(payload)
	r.open = len(payload) == r.size
	if continued {
		vec := &t.iovs[r.vecs-1]
		vec.SetLen(int(vec.Len) + len(payload))
		return
	}
	t.iovs[r.vecs].Base = unsafe.SliceData(payload)
	t.iovs[r.vecs].SetLen(len(payload))
	r.vecs++
	h.SetIovlen(int(h.Iovlen) + 1)
}

// superpacketsNow tells whether this batch may have superpackets, and counts
// the batches of a pause down.
func (s *Socket) superpacketsNow() bool {
	t := &s.tx
	if !s.offloads.gso.Load() {
		return false
	}
	if t.pause > 0 {
		t.pause--
		return false
	}
	return true
}

// countSent counts the superpackets among the headers in front of t.next.
func (s *Socket) countSent() {
	t := &s.tx
	packets, segments := 0, 0
	for _, n := range t.segments[:t.next] {
		if n > 1 {
			packets++
			segments += n
		}
	}
	if packets > 0 {
		t.nextPause = 0
		s.offloads.sent.Add(uint64(packets))
		s.offloads.sentSegments.Add(uint64(segments))
	}
}

// fallBack tells whether the header that failed was a superpacket whose
// datagrams are to be sent one by one, and remembers it.
func (s *Socket) fallBack() bool {
	t, o := &s.tx, &s.offloads
	if t.segments[t.next] < 2 {
		return false
	}
	switch t.errno {
	case unix.EIO:
		o.gso.Store(false)
		o.eio.Add(1)
		return true
	case unix.EINVAL:
		o.einval.Add(1)
	case unix.EMSGSIZE:
		o.emsgsize.Add(1)
	default:
		return false
	}
	t.nextPause = min(max(1, 2*t.nextPause), maxPause)
	t.pause = t.nextPause
	return true
}

// coalesced holds what was read and is not handed on yet.
type coalesced struct {
	mem   []byte // coalesceBuffers × coalesceLen; nil: no GRO
	index int    // buffer that is being split
	off   int    // bytes of it that are split off
	begun bool   // size and from hold for it
	size  int    // of its segments
	from  packet.Datagram
}

func (c *coalesced) buffer(i int) []byte { return c.mem[i*coalesceLen : (i+1)*coalesceLen] }

// readCoalesced is ReadBatch by way of the socket's own buffers.
func (s *Socket) readCoalesced(m []packet.Datagram) (int, error) {
	r := &s.rx
	if !fitSlots(m) {
		return 0, errSlot
	}
	if s.closed.Load() {
		return 0, net.ErrClosed // and what is left over goes with the socket's queue
	}
	n := s.split(m)
	for n == 0 {
		if err := s.receiveCoalesced(false); err != nil {
			return 0, err
		}
		n = s.split(m)
	}
	// A full read may have left something: then a short batch would only mean
	// more of them.
	for n < len(m) && r.got == r.want {
		if s.receiveCoalesced(true) != nil || r.got == 0 {
			break // an error that lasts will be the next call's
		}
		n += s.split(m[n:])
	}
	return n, nil
}

func fitSlots(m []packet.Datagram) bool {
	for i := range m {
		if len(m[i].Mem) <= packet.Headroom+packet.Tailroom {
			return false
		}
	}
	return true
}

// receiveCoalesced fills the buffers anew; all of them are split by now. With
// poll it does not wait, and r.got may be 0.
func (s *Socket) receiveCoalesced(poll bool) error {
	r := &s.rx
	r.want, r.got, r.errno, r.poll = coalesceBuffers, 0, 0, poll
	r.co.index, r.co.off, r.co.begun = 0, 0, false
	for i := range r.want {
		r.iovs[i].Base = &r.co.buffer(i)[0]
		r.iovs[i].SetLen(coalesceLen)
		r.prepareHeader(i)
	}
	if err := s.conn.Read(r.step); err != nil {
		return s.pollError(err)
	}
	if r.errno != 0 {
		return r.errno
	}
	return nil
}

// split moves received datagrams into m, until one of them is used up, and
// returns how many.
func (s *Socket) split(m []packet.Datagram) (n int) {
	r := &s.rx
	c := &r.co
	for n < len(m) && c.index < r.got {
		if !c.begun && !s.beginSplit() {
			c.index++
			continue
		}
		whole := c.buffer(c.index)[:r.hdrs[c.index].n]
		segment := whole[c.off:min(len(whole), c.off+c.size)]
		c.off += len(segment)
		if s.hand(&m[n], segment) {
			n++
		}
		if c.off == len(whole) {
			c.index, c.off, c.begun = c.index+1, 0, false
		}
	}
	return n
}

// beginSplit reads what holds for all segments of the next buffer.
func (s *Socket) beginSplit() bool {
	r := &s.rx
	c := &r.co
	h := &r.hdrs[c.index]
	if h.hdr.Flags&unix.MSG_TRUNC != 0 {
		return skip(&s.truncated)
	}
	c.from.Local, c.from.TOS, c.from.SegmentSize = netip.Addr{}, 0, 0
	c.from.Addr = s.readAddr(&r.names[c.index])
	readControl(r.ctls[c.index].bytes()[:h.hdr.Controllen], &c.from)
	c.begun, c.size = true, int(h.n)
	if size := c.from.SegmentSize; size > 0 && size < c.size {
		c.size = size
		s.offloads.received.Add(1)
		s.offloads.receivedSegments.Add(uint64((int(h.n) + size - 1) / size))
	}
	return true
}

// hand copies one datagram into a slot, if it fits.
func (s *Socket) hand(d *packet.Datagram, segment []byte) bool {
	if len(segment) > len(d.Mem)-packet.Headroom-packet.Tailroom {
		return skip(&s.truncated)
	}
	from := &s.rx.co.from
	d.Off, d.Len = packet.Headroom, copy(d.Mem[packet.Headroom:], segment)
	d.Addr, d.Local, d.TOS, d.DF, d.SegmentSize = from.Addr, from.Local, from.TOS, false, 0
	return true
}
