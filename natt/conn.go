package natt

import (
	"fmt"
	"net/netip"

	"github.com/adit-ipsec/adit/internal/mmsg"
)

// Config says where a Conn listens.
type Config struct {
	Address netip.Addr // this end's address; invalid: any, both families
	Port    uint16     // UDP port; 0: the kernel's choice, see LocalPort
	Mark    uint32     // SO_MARK of every datagram sent; 0: none (needs CAP_NET_ADMIN)

	// Socket buffers in bytes; 0: DefaultBuffer. Past the system's limit
	// they need CAP_NET_ADMIN; without it they are as large as allowed.
	ReceiveBuffer, SendBuffer int
}

// DefaultBuffer is the size asked for each socket buffer, in bytes.
const DefaultBuffer = mmsg.DefaultBuffer

// Conn is a UDP socket that reads and writes batches. One goroutine may read
// while others write; each direction locks once per batch.
//
// With no address it is one dual-stack socket, or IPv4 alone where the host
// has no IPv6. It never sets UDP_ENCAP: the kernel would take the ESP.
//
// Deviation. RFC 3948 2.1: "the IPv4 UDP Checksum SHOULD be transmitted as a
// zero value, and receivers MUST NOT depend upon the UDP checksum being a zero
// value." This socket sends computed checksums: a zero one (SO_NO_CHECK)
// switches off segmentation offload here and the receiver's GRO. It is safe by
// the sentence's second half, and both kinds are received.
type Conn struct {
	socket *mmsg.Socket
}

// Listen opens the socket. A port below 1024 and a Mark need privileges.
func Listen(cfg Config) (*Conn, error) {
	s, err := mmsg.ListenUDP(mmsg.Config{Address: cfg.Address, Port: cfg.Port, Mark: cfg.Mark,
		ReceiveBuffer: cfg.ReceiveBuffer, SendBuffer: cfg.SendBuffer})
	if err != nil {
		return nil, fmt.Errorf("UDP socket for ESP and IKE: %w", err)
	}
	return &Conn{socket: s}, nil
}

// ReadBatch blocks until at least one datagram is there, fills Off, Len, Addr,
// Local and TOS of the first n messages and returns n. Each slot needs more
// than packet.Headroom+packet.Tailroom bytes; a datagram that does not fit is
// skipped and counted. Slots may change places in m. After Close the error is
// net.ErrClosed; any other is passing: count it and read on.
func (c *Conn) ReadBatch(m []Message) (int, error) { return c.socket.ReadBatch(m) }

// WriteBatch sends m in order and returns how many were sent. With an error,
// the datagram that failed is m[sent]: count it and go on with m[sent+1:]. The
// error is a syscall.Errno such as EPERM, ENOBUFS, ENETUNREACH or EMSGSIZE, or
// net.ErrClosed. It honours Addr, Local, TOS, DF and SegmentSize, waits while
// the socket's buffer is full, and may be called by many goroutines at once.
//
// DF is an option of the whole socket: a change of DF inside a batch costs a
// system call or two, so batches are best sorted by it.
func (c *Conn) WriteBatch(m []Message) (sent int, err error) { return c.socket.WriteBatch(m) }

// LocalPort is the UDP port that the socket is bound to.
func (c *Conn) LocalPort() uint16 { return c.socket.LocalPort() }

// Skipped is how many received datagrams were not handed on: longer than a slot
// or than their own header says, or fragments that the kernel should have
// reassembled.
func (c *Conn) Skipped() uint64 {
	skips := c.socket.Skips()
	return skips.Truncated + skips.Fragments
}

// Skips counts received datagrams that were not handed on.
func (c *Conn) Skips() mmsg.Skips { return c.socket.Skips() }

// Close ends the socket, wakes its readers and writers, and returns once they
// have left.
func (c *Conn) Close() error { return c.socket.Close() }
