package rawip

import (
	"net/netip"

	"github.com/adit-ipsec/adit/internal/mmsg"
	"github.com/adit-ipsec/adit/internal/packet"
)

// Config says what a Conn receives.
type Config struct {
	Family   int        // 4 or 6
	Protocol int        // IP protocol: 50
	Address  netip.Addr // this end's address; invalid: any
	Mark     uint32     // SO_MARK of every packet sent; 0: none
}

// Conn is a raw IP socket that reads and writes batches of payloads; the
// kernel makes the IP headers. Ports are 0.
type Conn struct {
	socket *mmsg.Socket
}

// Listen opens the socket. It needs CAP_NET_RAW.
func Listen(cfg Config) (*Conn, error) {
	s, err := mmsg.ListenRaw(mmsg.Config{Address: cfg.Address, IPv6: cfg.Family == 6, Protocol: cfg.Protocol, Mark: cfg.Mark})
	if err != nil {
		return nil, err
	}
	return &Conn{socket: s}, nil
}

// ReadBatch is natt.Conn's ReadBatch.
func (c *Conn) ReadBatch(m []packet.Datagram) (int, error) { return c.socket.ReadBatch(m) }

// WriteBatch is natt.Conn's WriteBatch.
func (c *Conn) WriteBatch(m []packet.Datagram) (sent int, err error) { return c.socket.WriteBatch(m) }

// LocalPort is 0: raw IP has no ports.
func (c *Conn) LocalPort() uint16 { return 0 }

// Close ends the socket and wakes its readers and writers.
func (c *Conn) Close() error { return c.socket.Close() }
