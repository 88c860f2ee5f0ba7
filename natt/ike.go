package natt

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
)

// IKEConn is IKE's way to the wire: the UDP port 500, which it owns and reads, and
// the port of NAT traversal, which belongs to a Conn that somebody else reads (who
// carries its ESP hands over its IKE) and on which it only sends.
type IKEConn struct {
	plain   *Conn
	natt    *Conn // nil: there is none
	deliver Deliver
	done    chan struct{} // closed when the reader has ended

	mu   sync.Mutex
	slot []packet.Datagram // one; guarded by mu

	received, malformed, full, sent, sendErrors atomic.Uint64
}

// Deliver takes one IKE message that came on port 500: message is borrowed for the
// call, local is the address and port that it was sent to. It must not block. False:
// there was no room for it.
type Deliver func(local, remote netip.AddrPort, message []byte) bool

// IKEStats counts what an IKEConn has read and sent. Messages that arrived on the
// port of NAT traversal are not among them.
type IKEStats struct {
	Received   uint64 // handed on
	Malformed  uint64 // shorter than an IKE header
	Full       uint64 // nobody had room for them
	Sent       uint64 // on both ports
	SendErrors uint64 // refused by the kernel
}

// ikeBatch is how many datagrams are read at once; ikeReadPause is the wait behind
// a read that failed, for what makes it fail may last.
const (
	ikeBatch     = 16
	ikeReadPause = time.Millisecond
)

// ErrNoNATT: a message for the port of NAT traversal, and no socket there.
var ErrNoNATT = errors.New("no socket on the port of NAT traversal")

// ListenIKE opens the socket of port 500 (cfg.Port says which) and reads it until
// Close. encapsulated is the socket of NAT traversal to send on; nil: none. It is
// not closed with the IKEConn.
func ListenIKE(cfg Config, encapsulated *Conn, deliver Deliver) (*IKEConn, error) {
	cfg.Offload = OffloadOff // messages are few, and each is its own
	plain, err := Listen(cfg)
	if err != nil {
		return nil, err
	}
	c := &IKEConn{plain: plain, natt: encapsulated, deliver: deliver, done: make(chan struct{}), slot: packet.NewDatagrams(1)}
	go c.read()
	return c, nil
}

// Port is the UDP port that is read.
func (c *IKEConn) Port() uint16 { return c.plain.LocalPort() }

// NATTPort is the UDP port of NAT traversal; 0: none.
func (c *IKEConn) NATTPort() uint16 {
	if c.natt == nil {
		return 0
	}
	return c.natt.LocalPort()
}

// read hands on what comes, until Close.
func (c *IKEConn) read() {
	defer close(c.done)
	grams := packet.NewDatagrams(ikeBatch)
	for {
		n, err := c.plain.ReadBatch(grams)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(ikeReadPause)
			continue
		}
		for i := range grams[:n] {
			c.take(&grams[i])
		}
	}
}

// take hands on one datagram. RFC 7296 2.23: on port 500 there is no non-ESP marker;
// what is shorter than an IKE header (3.1) is no message.
func (c *IKEConn) take(d *packet.Datagram) {
	switch {
	case d.Len < IKEHeaderLen:
		c.malformed.Add(1)
	case !c.deliver(netip.AddrPortFrom(d.Local, c.plain.LocalPort()), d.Addr, d.Bytes()):
		c.full.Add(1)
	default:
		c.received.Add(1)
	}
}

// Send sends one message from local's address, and from the port of NAT traversal
// if encapsulated says so: there it puts the non-ESP marker in front (RFC 3948 2.2).
// Without a local address the kernel chooses. The port of local means nothing.
//
// It never sets DF: RFC 7296 2, "all IKEv2 implementations MUST be able to send,
// receive, and process IKE messages that are up to 1280 octets long", and a message
// that is longer than the path takes has to go in IP fragments, or not at all.
//
// The error is the kernel's, a syscall.Errno, or net.ErrClosed, or ErrNoNATT: the
// message is lost as on any wire, and is said again when its time comes.
func (c *IKEConn) Send(local netip.Addr, remote netip.AddrPort, encapsulated bool, message []byte) error {
	conn := c.plain
	if encapsulated {
		conn = c.natt
	}
	if conn == nil {
		return ErrNoNATT
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	d := &c.slot[0]
	d.Off, d.Len = packet.Headroom, 0
	d.Local, d.Addr, d.TOS, d.DF, d.SegmentSize = local, remote, 0, false, 0
	room := d.Mem[d.Off:]
	if encapsulated {
		d.Len = copy(room, make([]byte, NonESPMarkerLen))
	}
	if len(message) > len(room)-d.Len {
		c.sendErrors.Add(1)
		return syscall.EMSGSIZE
	}
	d.Len += copy(room[d.Len:], message)
	return c.write(conn)
}

// Keepalive sends a NAT keepalive from the port of NAT traversal (RFC 3948 2.3).
func (c *IKEConn) Keepalive(local netip.Addr, remote netip.AddrPort) error {
	if c.natt == nil {
		return ErrNoNATT
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	FillKeepalive(&c.slot[0], local, remote)
	return c.write(c.natt)
}

// write sends the slot; c.mu is held.
func (c *IKEConn) write(conn *Conn) error {
	if _, err := conn.WriteBatch(c.slot); err != nil {
		c.sendErrors.Add(1)
		return err
	}
	c.sent.Add(1)
	return nil
}

// Stats returns the counters.
func (c *IKEConn) Stats() IKEStats {
	return IKEStats{
		Received: c.received.Load(), Malformed: c.malformed.Load() + c.plain.Skipped(), Full: c.full.Load(),
		Sent: c.sent.Load(), SendErrors: c.sendErrors.Load(),
	}
}

// Close ends the socket of port 500 and returns once its reader has left.
func (c *IKEConn) Close() error {
	err := c.plain.Close()
	<-c.done
	return err
}
