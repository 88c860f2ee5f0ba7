package mmsg

// ReadBatch, in this order: prepare the headers, recvmmsg (in the poller's
// callback), adapt the next call's limit, accept each datagram or skip it.

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/packet"
)

// receiver is the state of one batch being received.
type receiver struct {
	mu sync.Mutex // guards all below; held for a whole batch

	hdrs  [MaxBatch]mmsghdr
	iovs  [MaxBatch]unix.Iovec
	names [MaxBatch]unix.RawSockaddrInet6
	ctls  [MaxBatch]control
	wide  []wideControl // of MaxBatch, in place of ctls, on a socket for whole packets; else nil

	room  int  // bytes for the control messages of each
	limit int  // most headers that the next call prepares
	want  int  // headers prepared
	small bool // one of them has a slot too small for GRO
	got   int  // headers that the kernel has filled
	errno syscall.Errno
	step  func(fd uintptr) bool // receiveStep, bound once
}

const (
	// readBudget bounds the bytes that one call reads: they are to be in the
	// cache still when they are looked at. A slot takes from a few bytes to a
	// superpacket, so each call reads as many as would fit if all were as long
	// as the longest of the call before: 128 single datagrams, 4 of the longest
	// superpackets. It reads at most twice as many as that call got: headers
	// cost time to prepare, and a few short ones promise nothing.
	readBudget = 256 << 10
	minReads   = 4
)

func (r *receiver) init(s *Socket) {
	r.step, r.limit = s.receiveStep, MaxBatch
	for i := range r.hdrs {
		h := &r.hdrs[i].hdr
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Control = (*byte)(unsafe.Pointer(&r.ctls[i]))
	}
	r.room = int(unsafe.Sizeof(r.ctls[0]))
	if s.whole && s.ipv6 {
		r.widen()
	}
}

var errSlot = errors.New("mmsg: a slot needs more than packet.Headroom+packet.Tailroom bytes")

// ReadBatch blocks until at least one datagram is there, fills Off, Len, Addr,
// Local, TOS and SegmentSize, on raw sockets TTL, of the first n of m and returns
// n. Slots may change places in m. After Close the error is net.ErrClosed; any
// other is passing.
//
// With SegmentSize set, the slot holds several datagrams of one peer. That takes
// slots of packet.SlotLen bytes; smaller ones end GRO on the socket for good.
func (s *Socket) ReadBatch(m []packet.Datagram) (int, error) {
	if len(m) == 0 {
		return 0, nil
	}
	r := &s.rx
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if !r.prepare(m) {
			return 0, errSlot
		}
		if err := s.conn.Read(r.step); err != nil {
			return 0, s.pollError(err)
		}
		if r.errno != 0 {
			return 0, r.errno
		}
		r.adapt()
		if n := s.acceptAll(m[:r.got]); n > 0 {
			return n, nil
		}
	}
}

// prepare points the headers at the slots, keeping head- and tailroom.
func (r *receiver) prepare(m []packet.Datagram) bool {
	r.want, r.small, r.got, r.errno = min(len(m), r.limit), false, 0, 0
	for i := range r.want {
		mem := m[i].Mem
		room := len(mem) - packet.Headroom - packet.Tailroom
		if room <= 0 {
			return false
		}
		if room < packet.MaxLen {
			r.small = true
		}
		r.iovs[i].Base = &mem[packet.Headroom]
		r.iovs[i].SetLen(room)
		h := &r.hdrs[i].hdr
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(r.room)
	}
	return true
}

// adapt sets the next call's limit by readBudget.
func (r *receiver) adapt() {
	longest := 1
	for i := range r.hdrs[:r.got] {
		longest = max(longest, int(r.hdrs[i].n))
	}
	r.limit = max(min(readBudget/longest, 2*r.got, MaxBatch), minReads)
}

// receiveStep runs in the poller: false means wait until the socket is readable.
// MSG_TRUNC has the kernel give a datagram's whole length where it is cut.
func (s *Socket) receiveStep(fd uintptr) bool {
	r := &s.rx
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.hdrs[0])), uintptr(r.want), unix.MSG_TRUNC, 0, 0)
		switch {
		case errno == 0:
			r.got = int(n)
			return true
		case errno == unix.EAGAIN:
			if r.small {
				s.endGRO(fd)
			}
			return false
		case errno == unix.EINTR || queuedByICMP(errno):
			// Reading the error has taken it off the socket.
		default:
			r.errno = errno
			return true
		}
	}
}

// queuedByICMP tells whether errno is what an ICMP message about an earlier
// datagram leaves behind on a socket: nothing about this read is wrong.
func queuedByICMP(errno syscall.Errno) bool {
	switch errno {
	case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENONET,
		unix.ENOPROTOOPT, unix.EOPNOTSUPP, unix.EPROTO, unix.EACCES, unix.EMSGSIZE, unix.ECONNRESET:
		return true
	}
	return false
}

// acceptAll fills the datagrams and moves those that are skipped behind the
// first n, which it returns.
func (s *Socket) acceptAll(m []packet.Datagram) (n int) {
	for i := range m {
		if !s.accept(i, &m[i]) {
			continue
		}
		if n != i {
			m[n], m[i] = m[i], m[n]
		}
		n++
	}
	return n
}

func (s *Socket) accept(i int, d *packet.Datagram) bool {
	r := &s.rx
	h := &r.hdrs[i]
	d.Off, d.Len = packet.Headroom, int(h.n)
	d.Local, d.TOS, d.TTL, d.DF, d.SegmentSize = netip.Addr{}, 0, 0, false, 0
	control := unsafe.Slice(h.hdr.Control, h.hdr.Controllen)
	readControl(control, d, nil)
	n := datagrams(d)
	if h.hdr.Flags&unix.MSG_TRUNC != 0 {
		s.truncated.Add(uint64(n))
		d.Len, d.SegmentSize = 0, 0 // Len was beyond the slot
		return false
	}
	if s.kind == kindRaw && !s.ipv6 {
		return s.acceptIPv4(d)
	}
	d.Addr = s.readAddr(&r.names[i])
	if s.kind == kindRaw {
		return s.acceptIPv6(h, control, d)
	}
	if n > 1 {
		s.offloads.received.Add(1)
		s.offloads.receivedSegments.Add(uint64(n))
	}
	return true
}

// acceptIPv4 takes from the IP header that a raw IPv4 socket delivers what a
// control message says elsewhere, and strips it, with its options, unless the
// socket is for whole packets. It stays in the slot all the same, right in front
// of d.Off.
func (s *Socket) acceptIPv4(d *packet.Datagram) bool {
	b := d.Bytes()
	if len(b) < 20 {
		return skip(&s.truncated)
	}
	headerLen := int(b[0]&0x0f) * 4
	total := int(binary.BigEndian.Uint16(b[2:]))
	if b[0]>>4 != 4 || headerLen < 20 || total < headerLen || total > len(b) {
		return skip(&s.truncated)
	}
	// ip(7): raw sockets get packets after reassembly. An offset or more
	// fragments to come would mean half a packet.
	if binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
		return skip(&s.fragmented)
	}
	d.TOS, d.TTL = b[1], b[8]
	d.Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:16])), 0)
	d.Local = netip.AddrFrom4([4]byte(b[16:20]))
	d.Len = total
	if s.whole {
		return true
	}
	d.Off += headerLen
	d.Len -= headerLen
	return !s.icmp || tellsOfOurPackets(d.Bytes(), false)
}

func skip(counter *atomic.Uint64) bool {
	counter.Add(1)
	return false
}
