package netlab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// BurstOptions describe a run of numbered UDP datagrams.
type BurstOptions struct {
	To       netip.AddrPort // where the receiver listens; port 0: the kernel's choice
	From     netip.AddrPort // invalid: the kernel's choice
	Count    int            // datagrams; 0: 1000
	Size     int            // UDP payload bytes, at least 24; 0: 512
	Interval time.Duration  // between datagrams; 0: as fast as the sender can
	Quiet    time.Duration  // what is not there after so long without any arrival is lost; 0: 500 ms
	Marker   []byte         // repeated through the payload behind the first 24 bytes
	// Stop ends the sending before Count, when it is closed; nil: never.
	Stop <-chan struct{}
}

// BurstResult is what came of it.
type BurstResult struct {
	Sent       int   // that the sender's kernel took
	SendErrors int   // that it refused
	LastError  error // the last refusal
	Received   int   // different ones
	Duplicated int   // arrivals beyond the first of their number
	Reordered  int   // arrivals behind a higher number (RFC 4737 3.3)
	Mismatched int   // arrivals that are not what was sent
	MaxGap     int   // longest run of consecutive numbers that never came
	Duration   time.Duration
	Sending    time.Duration // from the first datagram to the sender's end
	Span       time.Duration // from the first datagram to the last arrival
	// One-way delay, on the one clock that sender and receiver share.
	MinDelay, MeanDelay, MaxDelay time.Duration
}

// Lost is the number of datagrams that were sent and never came.
func (r BurstResult) Lost() int { return r.Sent - r.Received }

// String is one line.
func (r BurstResult) String() string {
	return fmt.Sprintf("%d sent, %d received, %d lost, %d duplicated, %d reordered, %d mismatched, delay min/mean/max %v/%v/%v",
		r.Sent, r.Received, r.Lost(), r.Duplicated, r.Reordered, r.Mismatched, r.MinDelay, r.MeanDelay, r.MaxDelay)
}

// A datagram of a burst: 64-bit number, 64-bit time of sending in ns, 64-bit
// run, then the marker or a pattern. All big endian.
const burstHeaderLen = 24

// burstBuffer is the receiver's socket buffer, in bytes: a burst at full speed
// is to be lost by the network under test, not by the receiver.
const burstBuffer = 64 << 20

// UDPBurst sends numbered datagrams from one node to another and accounts for
// each of them.
func UDPBurst(ctx context.Context, from, to *Node, o BurstOptions) (BurstResult, error) {
	fail := func(err error) (BurstResult, error) {
		return BurstResult{}, fmt.Errorf("netlab: udp from %s to %s %s: %w", from.name, to.name, o.To, err)
	}
	if err := o.check(); err != nil {
		return fail(err)
	}
	rx, err := to.ListenPacket(o.To)
	if err != nil {
		return fail(err)
	}
	defer rx.Close()
	if err := forceReadBuffer(rx, burstBuffer); err != nil {
		return fail(err)
	}
	tx, err := from.ListenPacket(o.source())
	if err != nil {
		return fail(err)
	}
	defer tx.Close()
	o.To = netip.AddrPortFrom(o.To.Addr(), uint16(rx.LocalAddr().(*net.UDPAddr).Port))
	defer context.AfterFunc(ctx, func() { tx.Close(); rx.Close() })()

	b := newBurst(o, uint64(time.Now().UnixNano()))
	done := make(chan error, 1)
	start := time.Now()
	go func() { done <- b.receive(rx) }()
	b.send(tx)
	if err := <-done; err != nil && ctx.Err() == nil {
		return fail(err)
	}
	b.r.Duration = time.Since(start)
	b.finish()
	return b.r, context.Cause(ctx)
}

func (o *BurstOptions) check() error {
	if o.Count == 0 {
		o.Count = 1000
	}
	if o.Size == 0 {
		o.Size = 512
	}
	if o.Quiet == 0 {
		o.Quiet = 500 * time.Millisecond
	}
	if o.Size < burstHeaderLen || o.Count < 0 {
		return fmt.Errorf("%d datagrams of %d bytes: the payload's header takes %d", o.Count, o.Size, burstHeaderLen)
	}
	return nil
}

// source binds the sender to the receiver's family.
func (o *BurstOptions) source() netip.AddrPort {
	if o.From.IsValid() {
		return o.From
	}
	if o.To.Addr().Is6() {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
}

func forceReadBuffer(c *net.UDPConn, bytes int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var e error
	if err := raw.Control(func(fd uintptr) {
		e = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes)
	}); err != nil {
		return err
	}
	return e
}

// burst is one run. send and receive work on different fields, but for sent,
// which tells the receiver how many left.
type burst struct {
	o    BurstOptions
	run  uint64
	sent chan int

	tried   int // send's: numbers used
	errors  int
	lastErr error
	first   time.Time
	took    time.Duration

	r        BurstResult // receive's
	want     []byte      // what follows the header
	last     time.Time   // the last arrival
	seen     []uint64    // one bit per number
	highest  int64
	delaySum time.Duration
}

func newBurst(o BurstOptions, run uint64) *burst {
	want := make([]byte, o.Size-burstHeaderLen+8)
	fillMarked(want, o.Marker, 0)
	return &burst{o: o, run: run, tried: o.Count, want: want[8:], seen: make([]uint64, (o.Count+63)/64), sent: make(chan int, 1), highest: -1}
}

func (b *burst) send(c *net.UDPConn) {
	msg := make([]byte, b.o.Size)
	fillMarked(msg[burstHeaderLen-8:], b.o.Marker, 0)
	binary.BigEndian.PutUint64(msg[16:], b.run)
	ok, next := 0, time.Now()
	b.first = next
	for i := range b.o.Count {
		if b.stopped() {
			b.tried = i
			break
		}
		if b.o.Interval > 0 {
			if wait := time.Until(next); wait > 0 {
				time.Sleep(wait)
			}
			next = next.Add(b.o.Interval)
		}
		binary.BigEndian.PutUint64(msg, uint64(i))
		binary.BigEndian.PutUint64(msg[8:], uint64(time.Now().UnixNano()))
		if _, err := c.WriteToUDPAddrPort(msg, b.o.To); err != nil {
			b.errors, b.lastErr = b.errors+1, err
			if errors.Is(err, net.ErrClosed) {
				break
			}
			continue
		}
		ok++
	}
	b.took = time.Since(b.first)
	b.sent <- ok
}

func (b *burst) stopped() bool {
	select {
	case <-b.o.Stop: // nil: never
		return true
	default:
		return false
	}
}

// receive reads until everything that left is there, or nothing has come for
// the quiet time after the sender ended.
func (b *burst) receive(c *net.UDPConn) error {
	buf := make([]byte, b.o.Size+1)
	sent, idle := -1, time.Now()
	for sent < 0 || b.r.Received < sent {
		// The deadline is short while the sender runs, to hear that it ended.
		if err := c.SetReadDeadline(time.Now().Add(min(b.o.Quiet, 20*time.Millisecond))); err != nil {
			return err
		}
		n, _, err := c.ReadFromUDPAddrPort(buf)
		if err == nil {
			idle = time.Now()
			b.arrived(buf[:n], idle)
		} else if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		select {
		case sent = <-b.sent:
			b.r.Sent = sent
			idle = time.Now()
		default:
		}
		if sent >= 0 && time.Since(idle) > b.o.Quiet {
			return nil
		}
	}
	return b.late(c, buf)
}

// late takes what is in the socket after the last number came: duplicates.
func (b *burst) late(c *net.UDPConn, buf []byte) error {
	for {
		if err := c.SetReadDeadline(time.Now().Add(5 * time.Millisecond)); err != nil {
			return err
		}
		n, _, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return nil
			}
			return err
		}
		b.arrived(buf[:n], time.Now())
	}
}

func (b *burst) arrived(p []byte, now time.Time) {
	if len(p) != b.o.Size || binary.BigEndian.Uint64(p[16:]) != b.run || !bytes.Equal(p[burstHeaderLen:], b.want) {
		b.r.Mismatched++
		return
	}
	number := binary.BigEndian.Uint64(p)
	if number >= uint64(b.o.Count) {
		b.r.Mismatched++
		return
	}
	word, bit := &b.seen[number/64], uint64(1)<<(number%64)
	if *word&bit != 0 {
		b.r.Duplicated++
		return
	}
	*word |= bit
	b.last = now
	b.r.Received++
	if int64(number) < b.highest {
		b.r.Reordered++
	}
	b.highest = max(b.highest, int64(number))
	delay := now.Sub(time.Unix(0, int64(binary.BigEndian.Uint64(p[8:]))))
	b.delaySum += delay
	b.r.MaxDelay = max(b.r.MaxDelay, delay)
	if b.r.MinDelay == 0 || delay < b.r.MinDelay {
		b.r.MinDelay = delay
	}
}

func (b *burst) finish() {
	b.r.SendErrors, b.r.LastError, b.r.Sending = b.errors, b.lastErr, b.took
	if b.r.Received > 0 {
		b.r.Span = b.last.Sub(b.first)
		b.r.MeanDelay = b.delaySum / time.Duration(b.r.Received)
	}
	gap := 0
	for i := range b.tried {
		gap++
		if b.seen[i/64]>>(i%64)&1 == 1 {
			gap = 0
		}
		b.r.MaxGap = max(b.r.MaxGap, gap)
	}
}
