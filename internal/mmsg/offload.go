package mmsg

// UDP superpackets: what is sent by GSO, what is received by GRO, and how a
// socket finds out that one of them does not work here.
//
// Sending. Consecutive datagrams of one batch with the same Addr, Local, TOS
// and DF and the same length, the last may be shorter, become one header with a
// UDP_SEGMENT control message and an iovec for each piece of memory: one in all
// where they lie back to back. The kernel gathers them, and nothing is copied
// here. It takes such a header whole or not at all, so one that fails can be
// sent again without sending anything twice. By errno:
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
// Receiving. The kernel reads a superpacket into one slot, and UDP_GRO says how
// long its datagrams are. What is longer than the slot is lost, many datagrams at
// once, so slots that do not hold the longest superpacket end GRO: the kernel
// then cuts superpackets up itself. See endGRO.

import (
	"encoding/binary"
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

	segmentLen = 2 // the data of UDP_SEGMENT
)

// Offloads is what became of superpackets on a socket. Counters count from its
// opening.
type Offloads struct {
	GSO bool // sending superpackets: configured, known to the kernel, not ended by EIO
	GRO bool // receiving superpackets: configured, known to the kernel, not ended by small slots

	SentSuperpackets, SentSegments         uint64 // superpackets, and the datagrams in them
	ReceivedSuperpackets, ReceivedSegments uint64

	// Superpackets that the kernel refused and that were sent one by one.
	FallbackEIO, FallbackEINVAL, FallbackEMSGSIZE uint64
}

// offloads is the state behind Offloads.
type offloads struct {
	gso atomic.Bool // cleared by EIO
	gro atomic.Bool // cleared by endGRO

	sent, sentSegments         atomic.Uint64
	received, receivedSegments atomic.Uint64
	eio, einval, emsgsize      atomic.Uint64
}

// Offloads returns the socket's state and counters. It takes no lock.
func (s *Socket) Offloads() Offloads {
	o := &s.offloads
	return Offloads{
		GSO: o.gso.Load(), GRO: o.gro.Load(),
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
	s.offloads.gro.Store(unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) == nil)
}

// putSegmentSize adds UDP_SEGMENT to a header's control messages.
func putSegmentSize(b []byte, size int) []byte {
	data, rest := putControl(b, unix.SOL_UDP, unix.UDP_SEGMENT, segmentLen)
	binary.NativeEndian.PutUint16(data, uint16(size))
	return rest
}

// extend makes the header made last, which holds size bytes of first, a
// superpacket of all from at on that may ride in it, and returns the place
// behind them.
func (t *sender) extend(m []packet.Datagram, at cursor, first *packet.Datagram, size int) cursor {
	before := t.vecs
	vec := &t.iovs[before-1]
	end := address(vec.Base) + uintptr(size)
	total, most := size, min(maxSegments*size, maxSuperpacket)
	for n := size; n == size && at.index < len(m) && t.vecs < len(t.iovs); {
		d := &m[at.index]
		segment := at.segment(d)
		n = len(segment)
		if n == 0 || n > size || total+n > most || at.off == 0 && !sameHeader(d, first) {
			break
		}
		base := unsafe.SliceData(segment)
		if address(base) != end {
			vec = &t.iovs[t.vecs]
			vec.Base = base
			vec.SetLen(0)
			t.vecs++
		}
		// What begins where the last one ends is the same piece of memory.
		// Were it another allocation's by chance, the bytes would be right
		// all the same; WriteBatch keeps both.
		vec.SetLen(int(vec.Len) + n)
		end = address(base) + uintptr(n)
		total += n
		at = at.past(d, n)
	}
	if total > size {
		i := t.end - 1
		h, room := &t.hdrs[i].hdr, t.ctls[i].bytes()
		rest := putSegmentSize(room[h.Controllen:], size)
		h.Control = &room[0]
		h.SetControllen(len(room) - len(rest))
		h.SetIovlen(1 + t.vecs - before)
		t.segments[i] = (total + size - 1) / size
	}
	return at
}

// sameHeader tells whether all is equal that one header says.
func sameHeader(a, b *packet.Datagram) bool {
	return a.DF == b.DF && a.TOS == b.TOS && a.Addr == b.Addr && a.Local == b.Local
}

func address(p *byte) uintptr { return uintptr(unsafe.Pointer(p)) }

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

// endGRO switches UDP_GRO off for good, because the slots are too small for it.
// The kernel tells the length of the datagrams only while the option is set: a
// superpacket still queued without it would look like one datagram. So this is
// for when the queue was just found empty; what comes in between is the loss.
func (s *Socket) endGRO(fd uintptr) {
	if s.offloads.gro.Load() {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, 0) // cannot fail where 1 did not
		s.offloads.gro.Store(false)
	}
}

// datagrams is how many datagrams d's slot holds. A SegmentSize that leaves it
// whole is cleared.
func datagrams(d *packet.Datagram) int {
	if d.SegmentSize <= 0 || d.SegmentSize >= d.Len {
		d.SegmentSize = 0
		return 1
	}
	return (d.Len + d.SegmentSize - 1) / d.SegmentSize
}
