package mmsg

import (
	"errors"
	"net/netip"

	"github.com/adit-ipsec/adit/internal/packet"
)

// Config says where a Socket listens.
type Config struct {
	Address                   netip.Addr // invalid: any
	Port                      uint16     // UDP
	Protocol                  int        // raw IP
	IPv6                      bool       // raw IP: the family when Address is invalid
	Mark                      uint32     // SO_MARK; 0: none
	ReceiveBuffer, SendBuffer int        // bytes; 0: DefaultBuffer
}

// Socket is a datagram socket that moves batches.
type Socket struct{}

// ListenUDP opens a UDP socket.
func ListenUDP(cfg Config) (*Socket, error) { return nil, errors.ErrUnsupported }

// ListenRaw opens a raw IP socket.
func ListenRaw(cfg Config) (*Socket, error) { return nil, errors.ErrUnsupported }

// ReadBatch reads at least one datagram.
func (s *Socket) ReadBatch(m []packet.Datagram) (int, error) { return 0, errors.ErrUnsupported }

// WriteBatch sends m in order.
func (s *Socket) WriteBatch(m []packet.Datagram) (int, error) { return 0, errors.ErrUnsupported }

// LocalPort is the UDP port, 0 on raw IP.
func (s *Socket) LocalPort() uint16 { return 0 }

// Close ends the socket.
func (s *Socket) Close() error { return nil }
