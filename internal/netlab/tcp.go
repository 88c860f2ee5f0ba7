package netlab

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// TransferOptions describe one TCP connection that carries data one way.
type TransferOptions struct {
	To     netip.AddrPort // where the receiver listens; port 0: the kernel's choice
	Bytes  int64          // 0: 1 MiB
	Marker []byte         // placed at every 512th byte, so that captures can be searched
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
}

// Intact tells whether the receiver read what was sent. With NoHash nobody
// knows: false.
func (r TransferResult) Intact() bool {
	return r.SentSHA256 == r.ReceivedSHA256 && r.SentSHA256 != [32]byte{}
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
	var n int64
	var sum [32]byte
	received := make(chan error, 1)
	go func() {
		var err error
		n, sum, err = receiveTCP(ctx, l, o.NoHash)
		received <- err
	}()
	start := time.Now()
	r.SentSHA256, r.Retransmits, err = sendTCP(ctx, from, o)
	r.Duration = time.Since(start)
	if err != nil {
		cancel() // the receiver may wait for a connection that never comes
	}
	if e := <-received; err == nil {
		err = e
	}
	r.Bytes, r.ReceivedSHA256 = n, sum
	return r, err
}

// receiveTCP takes one connection, reads it to its end and closes it.
func receiveTCP(ctx context.Context, l *net.TCPListener, noHash bool) (n int64, sum [32]byte, err error) {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	conn, err := l.AcceptTCP()
	if err != nil {
		return 0, sum, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if noHash {
		// The two wrappers hide the methods by which io.Copy would read
		// 8 KiB at a time.
		n, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{conn}, make([]byte, 256<<10))
		return n, sum, err
	}
	h := sha256.New()
	n, err = io.Copy(h, conn)
	return n, [32]byte(h.Sum(nil)), err
}

// sendTCP sends, ends its half, and waits for the receiver to close.
func sendTCP(ctx context.Context, from *Node, o TransferOptions) (sum [32]byte, retransmits uint32, err error) {
	c, err := from.Dial(ctx, "tcp", o.To)
	if err != nil {
		return sum, 0, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	conn := c.(*net.TCPConn)
	h := sha256.New()
	src := newNoise(o.Marker)
	buf := make([]byte, 64<<10)
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
			return sum, 0, err
		}
		left -= int64(len(b))
	}
	if err := conn.CloseWrite(); err != nil {
		return sum, 0, err
	}
	if _, err := conn.Read(buf[:1]); !errors.Is(err, io.EOF) {
		return sum, 0, fmt.Errorf("end of the connection: %v, expected EOF", err) //nolint:errorlint // nil when bytes came instead of an end
	}
	if !o.NoHash {
		sum = [32]byte(h.Sum(nil))
	}
	return sum, tcpRetransmits(conn), nil
}

func tcpRetransmits(conn *net.TCPConn) (n uint32) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = info.Total_retrans
		}
	})
	return n
}

// noise is test data: the same on every run, and like random data to whoever
// compresses or compares it.
type noise struct {
	stream cipher.Stream
	marker []byte
}

const markerSpacing = 512 // bytes

func newNoise(marker []byte) *noise {
	block, err := aes.NewCipher(make([]byte, 16))
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
