package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/netlab"
)

// UDP between the hosts. A flow is a sender and a receiver:
//
//	send     sendmmsg, udpBatch datagrams in a call, or what is due in this millisecond
//	receive  recvmmsg, counts each number once
//	settle   waits until all that left is there, or nothing comes any more
//
// UDP_SEGMENT is not used: every datagram enters the sender's kernel as a packet
// of its own, so that a gateway sees single small packets, as those of many
// senders.

// udpBatch is how many datagrams one system call moves at the most.
const udpBatch = 64

// A datagram of a flow: 64-bit number, 64-bit flow, both big endian, then a
// pattern.
const udpHeaderLen = 16

// udpLargest is a number that no flow comes to.
const udpLargest = 1 << 40

// udpReadBuffer is the receiver's socket buffer in bytes: what is lost is to be
// lost between the hosts, not behind them.
const udpReadBuffer = 64 << 20

// UDPLoad is what a sender offers.
type UDPLoad struct {
	Size     int           // bytes of payload, at least 16
	Rate     int           // datagrams a second; 0: as many as one sender can
	Duration time.Duration // of sending
}

// MeasuredUDP is what came of a UDPLoad.
type MeasuredUDP struct {
	Measured
	Sent, Received int
	Sending        time.Duration // that the sender took
}

// Offered is how many datagrams a second the sender sent.
func (m MeasuredUDP) Offered() float64 { return float64(m.Sent) / m.Sending.Seconds() }

// Delivered is how many datagrams a second arrived.
func (m MeasuredUDP) Delivered() float64 { return float64(m.Received) / m.Took.Seconds() }

// Loss is the share of datagrams that never arrived, 0 to 1.
func (m MeasuredUDP) Loss() float64 { return 1 - float64(m.Received)/float64(m.Sent) }

// CPUSecondsPerMillion is the processor time of both gateways for 10^6 datagrams
// that arrived.
func (m MeasuredUDP) CPUSecondsPerMillion() float64 {
	return m.CPU.Seconds() * 1e6 / float64(m.Received)
}

// UDP sends datagrams from host A to host B.
func (n *Namespaces) UDP(ctx context.Context, l UDPLoad) (m MeasuredUDP, err error) {
	f, err := openUDPFlow(n.net.A.Host, n.net.B.Host, n.net.B.Host4, l)
	if err != nil {
		return m, fmt.Errorf("bench: udp: %w", err)
	}
	defer f.close()
	defer context.AfterFunc(ctx, f.close)()
	m.CPU, err = n.gatewayTime(f.run)
	m.Sent, m.Received, m.Sending = f.sent, int(f.received.Load()), f.sending
	m.Took = max(f.sending, f.last.Sub(f.first)) // a sender with a rate ends after its last datagram
	m.Bytes = int64(m.Received) * int64(l.Size)
	if err == nil && (m.Received == 0 || f.wrong > 0) {
		err = fmt.Errorf("%d datagrams of %d arrived, %d more that were not sent, or not twice", m.Received, m.Sent, f.wrong)
	}
	if err != nil {
		return m, fmt.Errorf("bench: udp of %d bytes: %w", l.Size, errors.Join(err, context.Cause(ctx)))
	}
	return m, nil
}

// udpFlow is a UDPLoad under way. send and receive run at the same time, each on
// fields of its own; received tells settle how receive gets on.
type udpFlow struct {
	load   UDPLoad
	id     uint64
	tx, rx *net.UDPConn

	first   time.Time // send's
	sending time.Duration
	sent    int

	received atomic.Int64 // receive's: different numbers
	last     time.Time    // when it read the last of them
	seen     []uint64     // one bit for each number
	wrong    int          // what arrived besides
	pattern  []byte
}

func openUDPFlow(from, to *netlab.Node, addr netip.Addr, l UDPLoad) (f *udpFlow, err error) {
	f = newUDPFlow(l)
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	if f.rx, err = to.ListenPacket(netip.AddrPortFrom(addr, 0)); err != nil {
		return f, err
	}
	if err = forceReadBuffer(f.rx); err != nil {
		return f, err
	}
	tx, err := from.Dial(context.Background(), "udp", f.rx.LocalAddr().(*net.UDPAddr).AddrPort())
	if err != nil {
		return f, err
	}
	f.tx = tx.(*net.UDPConn)
	return f, nil
}

func newUDPFlow(l UDPLoad) *udpFlow {
	f := &udpFlow{load: l, id: uint64(time.Now().UnixNano()), pattern: make([]byte, l.Size-udpHeaderLen)}
	for i := range f.pattern {
		f.pattern[i] = byte(i)
	}
	return f
}

func (f *udpFlow) close() {
	for _, c := range []*net.UDPConn{f.tx, f.rx} {
		if c != nil {
			c.Close()
		}
	}
}

func forceReadBuffer(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var e error
	err = raw.Control(func(fd uintptr) {
		e = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, udpReadBuffer)
	})
	return errors.Join(err, e)
}

// run sends the load and returns when the last datagram is there or lost.
func (f *udpFlow) run() error {
	received := make(chan error, 1)
	go func() { received <- f.receive() }()
	err := f.send()
	f.settle()
	return errors.Join(err, f.rx.SetReadDeadline(time.Now()), <-received)
}

// A sender with a rate sends what is due since it began, then sleeps for udpTick.
// Where the machine let it sleep longer than udpCatchUp, what is due for the
// time beyond stays unsent, rather than burst into somebody's queue.
const (
	udpTick    = 500 * time.Microsecond
	udpCatchUp = 4 * time.Millisecond
)

func (f *udpFlow) send() error {
	raw, err := f.tx.SyscallConn()
	if err != nil {
		return err
	}
	b := newMmsg(f.load.Size)
	for i := range b.hdrs {
		binary.BigEndian.PutUint64(b.payload(i)[8:], f.id)
		copy(b.payload(i)[udpHeaderLen:], f.pattern)
	}
	f.first = time.Now()
	defer func() { f.sending = time.Since(f.first) }()
	left := 0 // datagrams that were due and stay unsent
	for elapsed := time.Duration(0); elapsed < f.load.Duration; {
		elapsed = min(time.Since(f.first), f.load.Duration)
		due := udpBatch
		if rate := float64(f.load.Rate); rate > 0 {
			due = int(elapsed.Seconds()*rate) - f.sent - left
			most := max(1, int(udpCatchUp.Seconds()*rate))
			left += max(0, due-most)
			due = min(due, most)
		}
		for ; due > 0; due -= udpBatch {
			if err := f.sendBatch(raw, b, min(due, udpBatch)); err != nil {
				return err
			}
		}
		if f.load.Rate > 0 && elapsed < f.load.Duration {
			time.Sleep(udpTick)
		}
	}
	return nil
}

// sendBatch sends count datagrams.
func (f *udpFlow) sendBatch(raw syscall.RawConn, b *mmsg, count int) error {
	for i := range count {
		binary.BigEndian.PutUint64(b.payload(i), uint64(f.sent+i))
	}
	for done := 0; done < count; {
		n, err := b.call(raw.Write, unix.SYS_SENDMMSG, done, count)
		if err != nil {
			return err
		}
		done += n
	}
	f.sent += count
	return nil
}

// receive reads until the socket's deadline passes.
func (f *udpFlow) receive() error {
	raw, err := f.rx.SyscallConn()
	if err != nil {
		return err
	}
	b := newMmsg(f.load.Size + 1) // to know a datagram that is too long
	for {
		n, err := b.call(raw.Read, unix.SYS_RECVMMSG, 0, udpBatch)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		f.last = time.Now()
		for i := range n {
			f.arrived(b.payload(i)[:b.hdrs[i].n])
		}
	}
}

// arrived counts one datagram.
func (f *udpFlow) arrived(p []byte) {
	if len(p) != f.load.Size || binary.BigEndian.Uint64(p[8:]) != f.id || !bytes.Equal(p[udpHeaderLen:], f.pattern) {
		f.wrong++
		return
	}
	number := binary.BigEndian.Uint64(p)
	if number > udpLargest {
		f.wrong++
		return
	}
	for number/64 >= uint64(len(f.seen)) {
		f.seen = append(f.seen, 0)
	}
	word, bit := &f.seen[number/64], uint64(1)<<(number%64)
	if *word&bit != 0 {
		f.wrong++
		return
	}
	*word |= bit
	f.received.Add(1)
}

// udpQuiet is the time without an arrival after which what is not there is lost.
const udpQuiet = 500 * time.Millisecond

// settle waits until everything that was sent is there or lost.
func (f *udpFlow) settle() {
	const step = 10 * time.Millisecond
	before := int64(-1)
	for quiet := time.Duration(0); quiet < udpQuiet; quiet += step {
		now := f.received.Load()
		if now == int64(f.sent) {
			return
		}
		if now != before {
			before, quiet = now, 0
		}
		time.Sleep(step)
	}
}

// mmsg is the memory of one sendmmsg(2) or recvmmsg(2): a buffer for each of
// udpBatch datagrams.
type mmsg struct {
	size int
	buf  []byte
	iovs [udpBatch]unix.Iovec
	hdrs [udpBatch]mmsghdr
}

// mmsghdr is struct mmsghdr.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32 // bytes of the datagram
}

func newMmsg(size int) *mmsg {
	b := &mmsg{size: size, buf: make([]byte, size*udpBatch)}
	for i := range b.hdrs {
		b.iovs[i].Base = &b.buf[i*size]
		b.iovs[i].SetLen(size)
		b.hdrs[i].hdr.Iov = &b.iovs[i]
		b.hdrs[i].hdr.SetIovlen(1)
	}
	return b
}

// payload is the buffer of datagram i.
func (b *mmsg) payload(i int) []byte { return b.buf[i*b.size : (i+1)*b.size] }

// call makes the system call for datagrams from to end as soon as the socket is
// ready, and returns how many it moved. wait is the Read or Write of a
// syscall.RawConn.
func (b *mmsg) call(wait func(func(uintptr) bool) error, trap uintptr, from, end int) (n int, err error) {
	var errno syscall.Errno
	if err := wait(func(fd uintptr) bool {
		r, _, e := unix.Syscall6(trap, fd, uintptr(unsafe.Pointer(&b.hdrs[from])), uintptr(end-from), unix.MSG_DONTWAIT, 0, 0)
		n, errno = int(r), e
		return errno != unix.EAGAIN
	}); err != nil {
		return 0, err
	}
	if errno != 0 {
		return 0, errno
	}
	return n, nil
}
