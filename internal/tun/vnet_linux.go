package tun

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/crypt"
	"github.com/adit-ipsec/adit/internal/packet"
)

const (
	// vnetBatch is the packets of one batch.
	vnetBatch = 128
	// vnetBatchBytes ends a batch of reads: one superpacket, or some dozens
	// of packets, which stay in the core's own cache until they are sealed.
	vnetBatchBytes = packet.MaxLen
)

// What is asked of the kernel: checksums and TCP segmentation left to us, also
// of packets with CWR; and the same for UDP (USO), from Linux 6.2 on.
const (
	tcpOffloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	udpOffloads = unix.TUN_F_USO4 | unix.TUN_F_USO6
)

// ErrNoOffload says that a device cannot be a Vnet: use Adapt.
var ErrNoOffload = errors.New("no virtio-net offload")

// Vnet is a Queue over a TUN descriptor with virtio-net headers: it reads
// superpackets whole, with SegmentSize set, and writes packets merged. One
// goroutine may read while another writes. Nothing is allocated per batch.
type Vnet struct {
	conn  syscall.RawConn
	file  *os.File
	shut  func() error
	tcp   bool // offloads were asked for and granted
	udp   bool // and USO
	write func(fd uintptr, iovs []unix.Iovec) (int, error)

	closed    atomic.Bool
	malformed atomic.Uint64
	fallbacks atomic.Uint64
	noTCP     atomic.Bool
	noUDP     atomic.Bool

	readMu   sync.Mutex // guards what follows; held while ReadBatch waits
	in       []packet.Buffer
	got      int
	readErr  error
	readStep func(fd uintptr) bool // readReady, bound once

	writeMu   sync.Mutex // guards what follows
	plan      *Coalescer
	out       []*packet.Buffer
	iovs      []unix.Iovec
	writeErr  error
	writeStep func(fd uintptr) bool // writeReady, bound once
}

var _ Queue = (*Vnet)(nil)

// NewVnet makes a Vnet of a TUN descriptor that is attached to its interface
// (TUNSETIFF with IFF_VNET_HDR) and does not block. Close closes file. The error
// is ErrNoOffload with the reason, and file is then as it was.
func NewVnet(file *os.File) (*Vnet, error) { return openVnet(file, true) }

// openVnet is NewVnet, or without offload a Vnet that reads and writes every
// packet by itself.
func openVnet(file *os.File, offload bool) (*Vnet, error) {
	q, err := newVnet(file)
	if err != nil {
		return nil, err
	}
	var refused error
	if err := q.conn.Control(func(fd uintptr) { refused = q.negotiate(int(fd), offload) }); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoOffload, err)
	}
	if refused != nil {
		return nil, refused
	}
	q.noTCP.Store(!q.tcp)
	q.noUDP.Store(!q.udp)
	return q, nil
}

// newVnet makes the queue without asking anything of the kernel.
func newVnet(file *os.File) (*Vnet, error) {
	conn, err := file.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoOffload, err)
	}
	q := &Vnet{conn: conn, file: file, shut: file.Close, write: writev, plan: NewCoalescer(vnetBatch),
		out: make([]*packet.Buffer, 0, vnetBatch), iovs: make([]unix.Iovec, 0, vnetBatch)}
	q.readStep, q.writeStep = q.readReady, q.writeReady
	return q, nil
}

// negotiate sets the offloads, the ones that may be refused first, or none. The
// kernel keeps them for the device, whichever of its queues sets them.
func (q *Vnet) negotiate(fd int, offload bool) error {
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoOffload, err)
	}
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr); err != nil {
		return fmt.Errorf("%w: not an attached TUN descriptor: %w", ErrNoOffload, err)
	}
	// readNow would keep its processor until a packet comes: the next garbage
	// collection would wait for that, and every goroutine for the collection.
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		return fmt.Errorf("%w: reads of the descriptor block: set O_NONBLOCK before os.NewFile", ErrNoOffload)
	}
	if ifr.Uint16()&unix.IFF_VNET_HDR == 0 {
		return fmt.Errorf("%w: the device was made without virtio-net headers (IFF_VNET_HDR)", ErrNoOffload)
	}
	switch size, err := unix.IoctlGetInt(fd, unix.TUNGETVNETHDRSZ); {
	case err != nil:
		return fmt.Errorf("%w: length of the virtio-net header: %w", ErrNoOffload, err)
	case size != vnetLen:
		return fmt.Errorf("%w: virtio-net headers have %d bytes, want %d", ErrNoOffload, size, vnetLen)
	}
	if !offload {
		if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, 0); err != nil {
			return fmt.Errorf("%w: switch the offloads off: %w", ErrNoOffload, err)
		}
		return nil
	}
	q.tcp = true
	q.udp = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcpOffloads|udpOffloads) == nil
	if q.udp {
		return nil
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcpOffloads); err != nil {
		return fmt.Errorf("%w: this kernel refuses TCP segmentation on TUN devices: %w", ErrNoOffload, err)
	}
	return nil
}

// Offloads is what a Vnet does at present.
type Offloads struct {
	ReadTCP, ReadUDP   bool // the kernel hands over superpackets (TSO, USO)
	WriteTCP, WriteUDP bool // packets are merged before they are written
}

// Offloads says what the kernel was found to take.
func (q *Vnet) Offloads() Offloads {
	return Offloads{ReadTCP: q.tcp, ReadUDP: q.udp, WriteTCP: !q.noTCP.Load(), WriteUDP: !q.noUDP.Load()}
}

// Malformed counts reads whose virtio-net header made no sense.
func (q *Vnet) Malformed() uint64 { return q.malformed.Load() }

// Fallbacks counts superpackets that the kernel refused (EINVAL) and whose
// packets it then took one by one. The protocol is not merged any more.
func (q *Vnet) Fallbacks() uint64 { return q.fallbacks.Load() }

// BatchSize is the largest batch, in packets.
func (q *Vnet) BatchSize() int { return vnetBatch }

// Close closes the device and wakes the reader.
func (q *Vnet) Close() error {
	if q.closed.Swap(true) {
		return os.ErrClosed
	}
	return q.shut()
}

// gone is os.ErrClosed when err means that the device is gone for good, else
// err.
func (q *Vnet) gone(err error) error {
	if q.closed.Load() || errors.Is(err, os.ErrClosed) || errors.Is(err, io.EOF) || detached(q.file) {
		return os.ErrClosed
	}
	return err
}

// ReadBatch is Queue's ReadBatch. A buffer is filled by one read: a packet with
// complete checksums, or a superpacket of at least two segments with SegmentSize
// set and a partial checksum, for a Segmenter. Header and Flow are not to be
// relied on: Parse. Buffers may hold less than bufs has room for, so that what
// was read is still in the cache.
func (q *Vnet) ReadBatch(bufs []packet.Buffer) (int, error) {
	if len(bufs) == 0 {
		return 0, nil
	}
	q.readMu.Lock()
	defer q.readMu.Unlock()
	q.in, q.got, q.readErr = bufs, 0, nil
	err := q.conn.Read(q.readStep)
	q.in = nil
	switch {
	case q.got > 0:
		return q.got, nil
	case err == nil:
		err = q.readErr
	}
	return 0, q.gone(err)
}

// readReady reads until nothing is left, the buffers are full, or there is
// enough to go on with. false: there is nothing, wait.
func (q *Vnet) readReady(fd uintptr) bool {
	for bytes := 0; q.got < len(q.in) && bytes < vnetBatchBytes; {
		b := &q.in[q.got]
		if len(b.Mem) <= packet.Headroom+packet.Tailroom {
			q.readErr = errSlot
			return true
		}
		n, err := readNow(fd, b.Mem[packet.Headroom-vnetLen:len(b.Mem)-packet.Tailroom])
		switch {
		case err == nil && n == 0:
			q.readErr = io.EOF
			return true
		case err == nil && received(b, n-vnetLen):
			bytes += b.Len
			q.got++
		case err == nil:
			q.malformed.Add(1)
		case errors.Is(err, unix.EAGAIN):
			return q.got > 0
		case !errors.Is(err, unix.EINTR):
			q.readErr = err
			return true
		}
	}
	return true
}

// readNow is a read of a descriptor that does not block. It is raw: to tell the
// scheduler of each takes half as long as the way into the kernel and back.
func readNow(fd uintptr, p []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// received makes a packet of the n bytes that were read behind the virtio-net
// header in b's headroom. false: the header lies.
func received(b *packet.Buffer, n int) bool {
	if n < 1 || n > packet.MaxLen {
		return false
	}
	b.Off, b.Len, b.SegmentSize = packet.Headroom, n, 0
	vnet := b.Mem[packet.Headroom-vnetLen : packet.Headroom]
	size := int(binary.NativeEndian.Uint16(vnet[vnetSize:]))
	switch vnet[vnetType] &^ gsoECN {
	case gsoNone:
	case gsoTCPv4, gsoTCPv6, gsoUDP:
		if size == 0 {
			return false
		}
		// The kernel's hdr_len is not to be believed: how many segments
		// these are is a matter of the packet's own headers. What Parse
		// refuses is told by the dataplane.
		if b.Parse() == nil {
			b.SegmentSize = size
		}
		if b.Segments() > 1 {
			return true
		}
		b.SegmentSize = 0
	default:
		return false
	}
	return vnet[vnetFlags]&vnetNeedsCsum == 0 || complete(b.Bytes(),
		int(binary.NativeEndian.Uint16(vnet[vnetCsumStart:])), int(binary.NativeEndian.Uint16(vnet[vnetCsumOffset:])))
}

// complete makes a partial checksum whole: the field, offset bytes behind start,
// holds the pseudo header's sum. false: it lies outside the packet.
func complete(p []byte, start, offset int) bool {
	if start+offset+2 > len(p) {
		return false
	}
	sum := ^crypt.Checksum(p[start:], 0)
	if sum == 0 && offset == udpSum {
		sum = 0xffff // RFC 768: zero would mean that there is none
	}
	binary.BigEndian.PutUint16(p[start+offset:], sum)
	return true
}

// WriteBatch is Queue's WriteBatch. Packets of one flow keep their order. One
// bad buffer does not keep back the others; the error is the first one.
func (q *Vnet) WriteBatch(bufs []*packet.Buffer) (written int, err error) {
	q.writeMu.Lock()
	defer q.writeMu.Unlock()
	for len(bufs) > 0 {
		q.out = q.out[:0]
		for len(bufs) > 0 && len(q.out) < vnetBatch {
			b := bufs[0]
			bufs = bufs[1:]
			if bad := writable(b); bad == nil {
				q.out = append(q.out, b)
			} else if err == nil {
				err = bad
			}
		}
		q.plan.NoTCP, q.plan.NoUDP = q.noTCP.Load(), q.noUDP.Load()
		for i := range q.plan.Plan(q.out) {
			n, bad := q.writeGroup(i)
			written += n
			if bad == nil {
				continue
			}
			if errors.Is(q.gone(bad), os.ErrClosed) {
				return written, os.ErrClosed
			}
			if err == nil {
				err = fmt.Errorf("write to the TUN device: %w", bad)
			}
		}
	}
	return written, err
}

// writeGroup writes one group of the plan, as one superpacket where it can.
func (q *Vnet) writeGroup(i int) (written int, err error) {
	pieces, packets := q.plan.Group(i)
	q.iovs = q.iovs[:0]
	for _, p := range pieces {
		q.iovs = append(q.iovs, iovec(p))
	}
	err = q.writeOut()
	if err == nil {
		return packets, nil
	}
	if packets == 1 || !errors.Is(err, unix.EINVAL) {
		return 0, err
	}
	q.plan.Undo()
	return q.writeSingly(i)
}

// writeSingly writes the packets of a group that was refused one by one, and
// remembers, if the kernel takes them so.
func (q *Vnet) writeSingly(i int) (written int, err error) {
	q.plan.Packets(i, func(b *packet.Buffer) bool {
		framed := b.Mem[b.Off-vnetLen : b.Off+b.Len]
		clear(framed[:vnetLen])
		q.iovs = append(q.iovs[:0], iovec(framed))
		if bad := q.writeOut(); bad != nil {
			err = bad
			return true
		}
		written++
		return true
	})
	if written > 0 {
		q.fallbacks.Add(1)
		if q.plan.Protocol(i) == packet.ProtoUDP {
			q.noUDP.Store(true)
		} else {
			q.noTCP.Store(true)
		}
	}
	return written, err
}

// writeOut writes what iovs says.
func (q *Vnet) writeOut() error {
	q.writeErr = nil
	if err := q.conn.Write(q.writeStep); err != nil {
		return err
	}
	return q.writeErr
}

// writeReady is one write. false: the device is full, wait.
func (q *Vnet) writeReady(fd uintptr) bool {
	for {
		_, err := q.write(fd, q.iovs)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		q.writeErr = err
		return !errors.Is(err, unix.EAGAIN)
	}
}

func iovec(b []byte) (v unix.Iovec) {
	v.Base = unsafe.SliceData(b)
	v.SetLen(len(b))
	return v
}

// writev is the system call; unix.Writev would allocate for so many pieces.
func writev(fd uintptr, iovs []unix.Iovec) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(unsafe.SliceData(iovs))), uintptr(len(iovs)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
