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

	Offload Offload // OffloadAuto unless set
}

// DefaultBuffer is the size asked for each socket buffer, in bytes.
const DefaultBuffer = mmsg.DefaultBuffer

// Offload says whether a Conn uses superpackets: many datagrams in one buffer
// to and from the kernel (UDP GSO and GRO). Datagrams on the wire are the same.
type Offload = mmsg.Offload

// OffloadAuto uses superpackets where the kernel can, OffloadOff never.
const (
	OffloadAuto = mmsg.OffloadAuto
	OffloadOff  = mmsg.OffloadOff
)

// Offloads is what became of superpackets on a Conn.
type Offloads = mmsg.Offloads

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
	cfg    Config
	socket *mmsg.Socket
}

// Listen opens the socket. A port below 1024 and a Mark need privileges.
func Listen(cfg Config) (*Conn, error) { return open(cfg, false) }

func open(cfg Config, share bool) (*Conn, error) {
	s, err := mmsg.ListenUDP(mmsg.Config{Address: cfg.Address, Port: cfg.Port, Mark: cfg.Mark,
		ReceiveBuffer: cfg.ReceiveBuffer, SendBuffer: cfg.SendBuffer, Offload: cfg.Offload, Share: share})
	if err != nil {
		return nil, fmt.Errorf("UDP socket for ESP and IKE: %w", err)
	}
	return &Conn{cfg, s}, nil
}

// Sibling opens one more socket with c's address and port, for one more worker.
// The kernel spreads peers over the siblings by address and port (SO_REUSEPORT):
// one peer's datagrams all come to one of them, in order.
func (c *Conn) Sibling() (*Conn, error) {
	if err := c.socket.Share(); err != nil {
		return nil, fmt.Errorf("share the UDP port: %w", err)
	}
	cfg := c.cfg
	cfg.Port = c.LocalPort()
	return open(cfg, true)
}

// ReadBatch blocks until at least one datagram is there, fills Off, Len, Addr,
// Local, TOS and SegmentSize of the first n messages and returns n. Slots may
// change places in m. After Close the error is net.ErrClosed; any other is
// passing: count it and read on.
//
// A message may hold several datagrams of one peer, back to back (UDP GRO):
// each has SegmentSize bytes, the last one perhaps fewer. SegmentSize 0 means
// one datagram of Len bytes. One call reads about 256 KiB, so that it is
// in the cache still when the caller looks at it.
//
// Each slot needs more than packet.Headroom+packet.Tailroom bytes; a datagram
// that does not fit is skipped and counted. With UDP GRO slots need
// packet.SlotLen bytes (65,984): smaller ones switch it off for good, and of
// what is queued then, coalesced datagrams that do not fit are lost and counted.
func (c *Conn) ReadBatch(m []Message) (int, error) { return c.socket.ReadBatch(m) }

// WriteBatch sends m in order and returns how many were sent. With an error,
// the datagram that failed is m[sent]: count it and go on with m[sent+1:]. The
// error is a syscall.Errno such as EPERM, ENOBUFS, ENETUNREACH or EMSGSIZE, or
// net.ErrClosed. It honours Addr, Local, TOS, DF and SegmentSize, waits while
// the socket's buffer is full, and may be called by many goroutines at once.
//
// Neighbours with the same Addr, Local, TOS and DF and the same length, the last
// may be shorter, go to the kernel as one superpacket, so batches are best
// sorted by them, and best lie back to back in memory. DF is an option of the
// whole socket: a change of DF inside a batch costs a system call or two more.
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

// Offloads is what became of superpackets on this socket: whether they are
// sent and received, how many were, and what made it fall back.
func (c *Conn) Offloads() Offloads { return c.socket.Offloads() }

// Close ends the socket, wakes its readers and writers, and returns once they
// have left.
func (c *Conn) Close() error { return c.socket.Close() }
