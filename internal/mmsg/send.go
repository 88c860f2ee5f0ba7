package mmsg

// WriteBatch, in this order: fill headers for a run of equal DF, switch the
// socket's DF where it changes, sendmmsg until the run is out (in the poller's
// callback).

import (
	"net/netip"
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
	iovs  [MaxBatch]unix.Iovec
	names [MaxBatch]unix.RawSockaddrInet6
	ctls  [MaxBatch]control
	owner [MaxBatch]int // index of the datagram that each header is part of

	next, end int // headers [next, end) are to be sent
	errno     syscall.Errno

	df      bool // what the headers ask for
	dfSet   bool // what the socket does
	dfKnown bool // dfSet holds

	step func(fd uintptr) bool // sendStep, bound once
}

func (t *sender) init(s *Socket) {
	t.step = s.sendStep
	for i := range t.hdrs {
		h := &t.hdrs[i].hdr
		h.Iov = &t.iovs[i]
		h.SetIovlen(1)
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
	at := cursor{}
	for at.index < len(m) {
		var unfit syscall.Errno
		at, unfit = s.fill(m, at)
		if t.end > 0 {
			if err := s.conn.Write(t.step); err != nil {
				return t.owner[t.next], s.pollError(err)
			}
			if t.errno != 0 {
				return t.owner[t.next], t.errno
			}
		}
		if unfit != 0 {
			return at.index, unfit
		}
	}
	return len(m), nil
}

// cursor is a place in a batch: a datagram, and a byte in it.
type cursor struct{ index, off int }

// fill makes headers from at on, until they are used up, DF changes, or a
// datagram cannot be sent: then its errno is returned with its place.
func (s *Socket) fill(m []packet.Datagram, at cursor) (cursor, syscall.Errno) {
	t := &s.tx
	t.next, t.end, t.errno = 0, 0, 0
	t.df = m[at.index].DF
	for at.index < len(m) && m[at.index].DF == t.df {
		d := &m[at.index]
		to, errno := s.destination(d)
		if errno != 0 {
			return at, errno
		}
		if at = s.fillDatagram(d, to, at); at.off > 0 {
			return at, 0 // headers used up inside a segmented datagram
		}
		if t.end == MaxBatch {
			return at, 0
		}
	}
	return at, 0
}

// fillDatagram makes the headers of one datagram, or of its segments.
func (s *Socket) fillDatagram(d *packet.Datagram, to netip.Addr, at cursor) cursor {
	t := &s.tx
	b := d.Bytes()
	for {
		if t.end == MaxBatch {
			return at
		}
		segment := b[at.off:]
		if d.SegmentSize > 0 && len(segment) > d.SegmentSize {
			segment = segment[:d.SegmentSize]
		}
		s.fillHeader(d, to, segment)
		t.owner[t.end] = at.index
		t.end++
		at.off += len(segment)
		if at.off >= len(b) {
			return cursor{index: at.index + 1}
		}
	}
}

func (s *Socket) fillHeader(d *packet.Datagram, to netip.Addr, payload []byte) {
	t := &s.tx
	i := t.end
	h := &t.hdrs[i].hdr
	h.Namelen = s.putAddr(&t.names[i], to, d.Addr.Port())
	t.iovs[i].Base = unsafe.SliceData(payload)
	t.iovs[i].SetLen(len(payload))
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
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&t.hdrs[t.next])), uintptr(t.end-t.next), 0, 0, 0)
		switch errno {
		case 0:
			t.next += int(n)
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
