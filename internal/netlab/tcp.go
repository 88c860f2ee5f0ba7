package netlab

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// TransferOptions describe one TCP connection that carries data one way.
type TransferOptions struct {
	To     netip.AddrPort // where the receiver listens; port 0: the kernel's choice
	Bytes  int64          // 0: 1 MiB
	Marker []byte         // placed at every 512th byte, so that captures can be searched
	Key    [16]byte       // of the generator: each key makes another stream
	// Progress, unless nil, grows by the bytes that the receiver has read.
	Progress *atomic.Int64
	// NoHash sends one block over and over and hashes nothing, so that the two
	// ends cost little: for measurements. Only the length is then compared.
	NoHash bool
}

// TransferResult is what came of it.
type TransferResult struct {
	Bytes          int64 // that the receiver read
	SentSHA256     [32]byte
	ReceivedSHA256 [32]byte
	Duration       time.Duration // from dialling until the sender knew the receiver had all
	Retransmits    uint32        // segments the sender sent again
	ReorderingSeen uint32        // times the sender's TCP found that segments had overtaken others
	// Difference is the first place at which the receiver read something else
	// than the generator makes, nil where there is none.
	Difference *Difference
}

// Difference is a place at which a stream is not what was sent.
type Difference struct {
	Offset    int64  // bytes from the start of the stream
	Want, Got []byte // up to 64 bytes from there on
}

// String is one line.
func (d *Difference) String() string {
	return fmt.Sprintf("first difference at byte %d: expected %x, read %x", d.Offset, d.Want, d.Got)
}

// Intact tells whether the receiver read what was sent. With NoHash nobody
// knows: false.
func (r TransferResult) Intact() bool {
	return r.Difference == nil && r.SentSHA256 == r.ReceivedSHA256 && r.SentSHA256 != [32]byte{}
}

// BitsPerSecond is the goodput.
func (r TransferResult) BitsPerSecond() float64 {
	return float64(r.Bytes) * 8 / r.Duration.Seconds()
}

// TCPTransfer sends o.Bytes bytes that look random from one node to another.
func TCPTransfer(ctx context.Context, from, to *Node, o TransferOptions) (r TransferResult, err error) {
	if o.Bytes == 0 {
		o.Bytes = 1 << 20
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("netlab: tcp from %s to %s %s: %w", from.name, to.name, o.To, errors.Join(err, context.Cause(ctx)))
		}
	}()
	l, err := to.Listen(o.To)
	if err != nil {
		return r, err
	}
	defer l.Close()
	o.To = netip.AddrPortFrom(o.To.Addr(), uint16(l.Addr().(*net.TCPAddr).Port))

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sink := newSink(o)
	received := make(chan error, 1)
	go func() { received <- receiveTCP(ctx, l, sink) }()
	start := time.Now()
	err = sendTCP(ctx, from, o, &r)
	r.Duration = time.Since(start)
	if err != nil {
		cancel() // the receiver may wait for a connection that never comes
	}
	if e := <-received; err == nil {
		err = e
	}
	r.Bytes, r.Difference = sink.n, sink.difference
	if !o.NoHash {
		r.ReceivedSHA256 = [32]byte(sink.hash.Sum(nil))
	}
	return r, err
}

// receiveTCP takes one connection, reads it to its end into the sink and closes
// it.
func receiveTCP(ctx context.Context, l *net.TCPListener, sink *sink) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	conn, err := l.AcceptTCP()
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	// The wrapper hides the method by which io.Copy would read less at a time.
	_, err = io.CopyBuffer(sink, struct{ io.Reader }{conn}, make([]byte, 256<<10))
	return err
}

// sendTCP sends, ends its half, and waits for the receiver to close.
func sendTCP(ctx context.Context, from *Node, o TransferOptions, r *TransferResult) error {
	c, err := from.Dial(ctx, "tcp", o.To)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	conn := c.(*net.TCPConn)
	defer r.readTCPInfo(conn)
	h := sha256.New()
	src := newNoise(o.Key, o.Marker)
	buf := make([]byte, noiseLen)
	if o.NoHash {
		src.fill(buf)
	}
	for left := o.Bytes; left > 0; {
		b := buf[:min(left, int64(len(buf)))]
		if !o.NoHash {
			src.fill(b)
			h.Write(b)
		}
		if _, err := conn.Write(b); err != nil {
			return err
		}
		left -= int64(len(b))
	}
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	if _, err := conn.Read(buf[:1]); !errors.Is(err, io.EOF) {
		return fmt.Errorf("end of the connection: %v, expected EOF", err) //nolint:errorlint // nil when bytes came instead of an end
	}
	if !o.NoHash {
		r.SentSHA256 = [32]byte(h.Sum(nil))
	}
	return nil
}

// readTCPInfo reads what the kernel counted for the sender.
func (r *TransferResult) readTCPInfo(conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			r.Retransmits, r.ReorderingSeen = info.Total_retrans, info.Reord_seen
		}
	})
}

// sink reads a stream: it makes the stream once more and compares. Behind the
// first difference, and what is too much, it only hashes.
type sink struct {
	hash       hash.Hash // nil: count only
	src        *noise
	block      [noiseLen]byte
	want       []byte // the rest of block
	n          int64
	progress   *atomic.Int64
	difference *Difference
}

func newSink(o TransferOptions) *sink {
	s := &sink{progress: o.Progress}
	if s.progress == nil {
		s.progress = new(atomic.Int64)
	}
	if !o.NoHash {
		s.hash, s.src = sha256.New(), newNoise(o.Key, o.Marker)
	}
	return s
}

// Write never fails: whether the stream is right is asked at its end.
func (s *sink) Write(b []byte) (int, error) {
	if s.hash != nil {
		s.hash.Write(b)
		s.compare(b)
	}
	s.n += int64(len(b))
	s.progress.Add(int64(len(b)))
	return len(b), nil
}

func (s *sink) compare(b []byte) {
	const shown = 64
	for at := 0; at < len(b) && s.difference == nil; {
		if len(s.want) == 0 {
			s.src.fill(s.block[:])
			s.want = s.block[:]
		}
		got := b[at:min(at+len(s.want), len(b))]
		if want := s.want[:len(got)]; !bytes.Equal(got, want) {
			i := 0
			for got[i] == want[i] {
				i++
			}
			s.difference = &Difference{
				Offset: s.n + int64(at+i),
				Want:   bytes.Clone(s.want[i:min(i+shown, len(s.want))]),
				Got:    bytes.Clone(b[at+i : min(at+i+shown, len(b))]),
			}
		}
		s.want = s.want[len(got):]
		at += len(got)
	}
}

// noise is test data: the same for the same key, and like random data to
// whoever compresses or compares it. A stream of it is made noiseLen bytes at a
// time, so that markers stand at the same places for whoever makes it.
type noise struct {
	stream cipher.Stream
	marker []byte
}

const (
	noiseLen      = 64 << 10 // bytes
	markerSpacing = 512      // bytes
)

func newNoise(key [16]byte, marker []byte) *noise {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) //nolint:forbidigo // cannot be: 16 is a key length
	}
	return &noise{cipher.NewCTR(block, make([]byte, 16)), marker}
}

func (n *noise) fill(b []byte) {
	clear(b)
	n.stream.XORKeyStream(b, b)
	if len(n.marker) == 0 {
		return
	}
	for i := 0; i < len(b); i += markerSpacing {
		copy(b[i:], n.marker)
	}
}
