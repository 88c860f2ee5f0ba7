package mmsg

// WriteBatch, in this order: fill headers for a run of equal DF, switch the
// socket's DF where it changes, sendmmsg until the run is out (in the poller's
// callback).

import (
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/packet"
)

// sender is the state of one batch being sent.
type sender struct {
	mu sync.Mutex // guards all below; held for a whole batch

	hdrs  [MaxBatch]mmsghdr
	iovs  [maxVectors]unix.Iovec
	names [MaxBatch]unix.RawSockaddrInet6
	ctls  [MaxBatch]control
	start [MaxBatch]cursor // where each header begins

	segments [MaxBatch]int // datagrams that each header makes
	vecs     int           // iovecs of all headers

	pause     int // batches to come that are sent plain
	nextPause int // the pause in force or the last one; 0 since a superpacket was sent

	next, end int // headers [next, end) are to be sent
	errno     syscall.Errno

	df      bool // what the headers ask for
	dfSet   bool // what the socket does
	dfKnown bool // dfSet holds

	step func(fd uintptr) bool // sendStep, bound once

	// sendmmsg is the system call; tests put others here.
	sendmmsg func(fd uintptr, hdrs []mmsghdr) (int, syscall.Errno)
}

// maxVectors is how many pieces of memory one system call sends.
const maxVectors = 4 * MaxBatch

func (t *sender) init(s *Socket) {
	t.step, t.sendmmsg = s.sendStep, sendmmsg
	for i := range t.hdrs {
		h := &t.hdrs[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&t.names[i]))
	}
}

// WriteBatch sends m in order and returns how many were sent. With an error,
// the datagram that failed is m[sent]: go on with m[sent+1:]. A full socket
// buffer is waited for. A datagram with SegmentSize set is sent as that many
// datagrams; when it fails, segments in front of the failing one are out.
// After Close the error is net.ErrClosed, else it is a syscall.Errno.
func (s *Socket) WriteBatch(m []packet.Datagram) (sent int, err error) {
	t := &s.tx
	t.mu.Lock()
	defer t.mu.Unlock()
	at, super := cursor{}, s.superpacketsNow()
	for at.index < len(m) {
		var unfit syscall.Errno
		at, unfit = s.fill(m, at, super)
		if t.end > 0 {
			if err := s.conn.Write(t.step); err != nil {
				return t.start[t.next].index, s.pollError(err)
			}
			if super {
				s.countSent()
			}
			if t.errno != 0 {
				if !s.fallBack() {
					return t.start[t.next].index, t.errno
				}
				at, super = t.start[t.next], false
				continue
			}
		}
		if unfit != 0 {
			return at.index, unfit
		}
	}
	runtime.KeepAlive(m) // an iovec may span the memory of two datagrams, and names that of one
	return len(m), nil
}

// cursor is a place in a batch: a datagram, and a byte in it.
type cursor struct{ index, off int }

// segment is what is sent from c on, of the datagram d there.
func (c cursor) segment(d *packet.Datagram) []byte {
	b := d.Bytes()[c.off:]
	if d.SegmentSize > 0 && len(b) > d.SegmentSize {
		b = b[:d.SegmentSize]
	}
	return b
}

// past is the place n bytes behind c, which is in d.
func (c cursor) past(d *packet.Datagram, n int) cursor {
	if c.off+n < d.Len {
		return cursor{index: c.index, off: c.off + n}
	}
	return cursor{index: c.index + 1}
}

// fill makes headers from at on, until they are used up, DF changes, or a
// datagram cannot be sent: then its errno is returned with its place. With
// super, datagrams share a header where they can.
func (s *Socket) fill(m []packet.Datagram, at cursor, super bool) (cursor, syscall.Errno) {
	t := &s.tx
	t.next, t.end, t.errno, t.vecs = 0, 0, 0, 0
	t.df = m[at.index].DF
	for at.index < len(m) && m[at.index].DF == t.df && t.end < MaxBatch && t.vecs < len(t.iovs) {
		d := &m[at.index]
		to, errno := s.destination(d)
		if errno != 0 {
			return at, errno
		}
		segment := at.segment(d)
		s.fillHeader(d, to, segment, at)
		at = at.past(d, len(segment))
		if super && len(segment) > 0 {
			at = t.extend(m, at, d, len(segment))
		}
	}
	return at, 0
}

// fillHeader makes a header with one datagram.
func (s *Socket) fillHeader(d *packet.Datagram, to netip.Addr, payload []byte, at cursor) {
	t := &s.tx
	i := t.end
	t.end++
	t.start[i], t.segments[i] = at, 1
	h := &t.hdrs[i].hdr
	h.Namelen = s.putAddr(&t.names[i], to, d.Addr.Port())
	h.Iov = &t.iovs[t.vecs]
	h.SetIovlen(1)
	h.Iov.Base = unsafe.SliceData(payload)
	h.Iov.SetLen(len(payload))
	t.vecs++
	room := t.ctls[i].bytes()
	rest := room
	if s.kind != kindClear {
		if d.Local.IsValid() {
			rest = putLocal(rest, d.Local.Unmap())
		}
		if d.TOS != 0 {
			rest = putTrafficClass(rest, to.Is4(), d.TOS)
		}
	}
	h.Control = nil
	if len(rest) < len(room) {
		h.Control = &room[0]
	}
	h.SetControllen(len(room) - len(rest))
}

// destination is where d goes, or why it cannot go anywhere from this socket.
func (s *Socket) destination(d *packet.Datagram) (netip.Addr, syscall.Errno) {
	if s.kind == kindClear {
		return s.headerDestination(d.Bytes())
	}
	to := d.Addr.Addr().Unmap()
	switch {
	case !to.IsValid():
		return to, unix.EDESTADDRREQ
	case to.Is4() && !s.ipv4, to.Is6() && !s.ipv6:
		return to, unix.EAFNOSUPPORT
	case to.Is6() && to.Zone() != "":
		return to, unix.EINVAL
	}
	if local := d.Local.Unmap(); local.IsValid() && local.Is4() != to.Is4() {
		return to, unix.EINVAL
	}
	return to, 0
}

// headerDestination is where the whole IP packet b goes by its own header.
func (s *Socket) headerDestination(b []byte) (netip.Addr, syscall.Errno) {
	switch {
	case !s.ipv6 && len(b) >= 20 && b[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(b[16:20])), 0
	case s.ipv6 && len(b) >= 40 && b[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(b[24:40])), 0
	}
	return netip.Addr{}, unix.EINVAL
}

// sendStep runs in the poller: false means wait until the socket is writable.
func (s *Socket) sendStep(fd uintptr) bool {
	t := &s.tx
	if t.errno = s.switchDF(int(fd)); t.errno != 0 {
		return true
	}
	for t.next < t.end {
		// It returns how many went out before the first that failed, and an
		// errno only when that is none.
		n, errno := t.sendmmsg(fd, t.hdrs[t.next:t.end])
		switch errno {
		case 0:
			t.next += n
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			t.errno = errno
			return true
		}
	}
	return true
}

func sendmmsg(fd uintptr, hdrs []mmsghdr) (int, syscall.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&hdrs[0])), uintptr(len(hdrs)), 0, 0, 0)
	return int(n), errno
}

// switchDF makes the socket do what the headers ask for. The option holds for
// the whole socket, and for both families: IP_PMTUDISC_PROBE sets Don't
// Fragment and leaves the path MTU to the gateway; IP_PMTUDISC_DONT clears it
// and lets the kernel fragment. The kernel reads it while sendmmsg runs, so a
// later change does not touch what is out.
func (s *Socket) switchDF(fd int) syscall.Errno {
	t := &s.tx
	if s.kind == kindClear || t.dfKnown && t.df == t.dfSet {
		return 0
	}
	t.dfKnown = false
	mode := unix.IP_PMTUDISC_DONT
	if t.df {
		mode = unix.IP_PMTUDISC_PROBE
	}
	if s.ipv4 {
		if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_MTU_DISCOVER, mode); err != nil {
			return errnoOf(err)
		}
	}
	if s.ipv6 {
		if err := unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, mode); err != nil {
			return errnoOf(err)
		}
	}
	t.dfSet, t.dfKnown = t.df, true
	return 0
}

func errnoOf(err error) syscall.Errno {
	if errno, ok := err.(syscall.Errno); ok { //nolint:errorlint // x/sys hands it over bare
		return errno
	}
	return unix.EINVAL
}

// The values that switchDF gives to both families are the same in both.
const (
	_ = uint(unix.IP_PMTUDISC_DONT - unix.IPV6_PMTUDISC_DONT)
	_ = uint(unix.IPV6_PMTUDISC_DONT - unix.IP_PMTUDISC_DONT)
	_ = uint(unix.IP_PMTUDISC_PROBE - unix.IPV6_PMTUDISC_PROBE)
	_ = uint(unix.IPV6_PMTUDISC_PROBE - unix.IP_PMTUDISC_PROBE)
)
