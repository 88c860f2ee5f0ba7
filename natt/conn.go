package natt

import (
	"net/netip"

	"github.com/adit-ipsec/adit/internal/mmsg"
)

// Config says where a Conn listens.
type Config struct {
	Address netip.Addr // this end's address; invalid: any, both families
	Port    uint16     // UDP port; 0: the kernel's choice, see LocalPort
	Mark    uint32     // SO_MARK of every datagram sent; 0: none (needs CAP_NET_ADMIN)

	// Socket buffers in bytes; 0: DefaultBuffer.
	ReceiveBuffer, SendBuffer int
}

// DefaultBuffer is the size asked for each socket buffer, in bytes.
const DefaultBuffer = 7 << 20

// Conn is a UDP socket that reads and writes batches. One goroutine may read
// while others write; each direction locks once per batch.
type Conn struct {
	socket *mmsg.Socket
}

// Listen opens the socket.
func Listen(cfg Config) (*Conn, error) {
	s, err := mmsg.ListenUDP(mmsg.Config{Address: cfg.Address, Port: cfg.Port, Mark: cfg.Mark,
		ReceiveBuffer: cfg.ReceiveBuffer, SendBuffer: cfg.SendBuffer})
	if err != nil {
		return nil, err
	}
	return &Conn{socket: s}, nil
}

// ReadBatch blocks until at least one datagram is there, fills Off, Len, Addr,
// Local and TOS of the first n messages and returns n. After Close the error
// is net.ErrClosed; any other error is passing: count it and read on.
func (c *Conn) ReadBatch(m []Message) (int, error) { return c.socket.ReadBatch(m) }

// WriteBatch sends m in order and returns how many were sent. With an error,
// the datagram that failed is m[sent]: count it and go on with m[sent+1:].
// It honours Addr, Local, TOS, DF and SegmentSize, waits while the socket's
// buffer is full, and may be called by many goroutines at once.
func (c *Conn) WriteBatch(m []Message) (sent int, err error) { return c.socket.WriteBatch(m) }

// LocalPort is the UDP port that the socket is bound to.
func (c *Conn) LocalPort() uint16 { return c.socket.LocalPort() }

// Close ends the socket and wakes its readers and writers.
func (c *Conn) Close() error { return c.socket.Close() }
