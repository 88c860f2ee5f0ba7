package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/netlab"
)

// MeasuredStreams is what came of TCP connections that carried as much as they
// could.
type MeasuredStreams struct {
	Measured
	Retransmits int // segments that the senders sent again
}

// Streams carries as much as it can for about d: over forward connections from
// host A to host B and backward ones the other way, all at once. The clock runs
// from when all are connected until the last receiver has everything. Nothing
// is hashed, and a sender repeats one block: the ends are to cost little.
func (n *Namespaces) Streams(ctx context.Context, forward, backward int, d time.Duration) (m MeasuredStreams, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var streams []*stream
	defer func() {
		for _, s := range streams {
			s.close()
		}
	}()
	a, b := &n.net.A, &n.net.B
	for i := range forward + backward {
		from, to := a, b
		if i >= forward {
			from, to = b, a
		}
		s, err := openStream(ctx, from.Host, to.Host, to.Host4)
		if err != nil {
			return m, err
		}
		streams = append(streams, s)
	}
	// What goes on ends with ctx, and with the first stream that fails.
	defer context.AfterFunc(ctx, func() {
		for _, s := range streams {
			s.close()
		}
	})()
	m.CPU, err = n.gatewayTime(func() error {
		start := time.Now()
		errs := runStreams(streams, start.Add(d), cancel)
		m.Took = time.Since(start)
		return errs
	})
	for _, s := range streams {
		m.Bytes += s.received
		m.Retransmits += s.retransmits
	}
	if err == nil && m.Bytes == 0 {
		err = errors.New("bench: tcp: no byte arrived")
	}
	return m, err
}

func runStreams(streams []*stream, deadline time.Time, failed func()) error {
	errs := make([]error, 2*len(streams))
	var wg sync.WaitGroup
	side := func(i int, f func() error) {
		wg.Go(func() {
			if errs[i] = f(); errs[i] != nil {
				failed()
			}
		})
	}
	for i, s := range streams {
		side(2*i, func() error { return s.send(deadline) })
		side(2*i+1, s.receive)
	}
	wg.Wait()
	return errors.Join(errs...)
}

// stream is one TCP connection: both of its ends.
type stream struct {
	tx, rx      *net.TCPConn
	received    int64 // receive's
	retransmits int   // send's
}

func openStream(ctx context.Context, from, to *netlab.Node, addr netip.Addr) (*stream, error) {
	fail := func(err error) (*stream, error) {
		return nil, fmt.Errorf("bench: tcp from %s to %s: %w", from.Name(), to.Name(), err)
	}
	l, err := to.Listen(netip.AddrPortFrom(addr, 0))
	if err != nil {
		return fail(err)
	}
	defer l.Close()
	tx, err := from.Dial(ctx, "tcp", netip.AddrPortFrom(addr, uint16(l.Addr().(*net.TCPAddr).Port)))
	if err != nil {
		return fail(err)
	}
	s := &stream{tx: tx.(*net.TCPConn)}
	// The connection is in the queue already, or a moment away from it.
	if err = l.SetDeadline(time.Now().Add(10 * time.Second)); err == nil {
		s.rx, err = l.AcceptTCP()
	}
	if err != nil {
		s.close()
		return fail(err)
	}
	return s, nil
}

func (s *stream) close() {
	s.tx.Close()
	if s.rx != nil {
		s.rx.Close()
	}
}

// streamBlock is what a sender writes at a time, and streamRead what a receiver
// reads at the most, in bytes.
const (
	streamBlock = 64 << 10
	streamRead  = 256 << 10
)

// send writes until the deadline, ends its half, and waits for the receiver to
// have all.
func (s *stream) send(deadline time.Time) error {
	block := make([]byte, streamBlock)
	for time.Now().Before(deadline) {
		if _, err := s.tx.Write(block); err != nil {
			return err
		}
	}
	if err := s.tx.CloseWrite(); err != nil {
		return err
	}
	if _, err := s.tx.Read(block[:1]); !errors.Is(err, io.EOF) {
		return fmt.Errorf("bench: end of a tcp connection: %v, expected EOF", err) //nolint:errorlint // nil when bytes came instead of an end
	}
	raw, err := s.tx.SyscallConn()
	if err != nil {
		return err
	}
	var info *unix.TCPInfo
	if e := raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}); e != nil || err != nil {
		return errors.Join(e, err)
	}
	s.retransmits = int(info.Total_retrans)
	return nil
}

// receive reads to the end and closes.
func (s *stream) receive() (err error) {
	// The wrappers hide the methods by which io.Copy would read less at a time.
	s.received, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{s.rx}, make([]byte, streamRead))
	return errors.Join(err, s.rx.Close())
}
