package netsim

import (
	"errors"
	"net/netip"

	"github.com/adit-ipsec/adit/internal/packet"
)

// Message is one datagram: natt's Message.
type Message = packet.Datagram

// Hold is Impair's answer that keeps a datagram back until Release.
const Hold = -1

// Network connects endpoints. Its methods may be called from any goroutine.
type Network struct{}

// Stats counts what happened to datagrams.
type Stats struct {
	Sent, Delivered, Impaired, QueueFull, NoEndpoint uint64
}

// NewNetwork returns a network without endpoints.
func NewNetwork() *Network { return &Network{} }

// Impair sets the hook that decides on each datagram, before it is delivered:
// 0 drops it, 1 delivers it, more doubles it, Hold keeps it back. It may change
// the bytes and the addresses of d, which is borrowed until it returns. nil
// removes the hook.
func (n *Network) Impair(hook func(d *Message) (deliver int)) {}

// Observe sets the tap that sees each datagram as it was sent, before Impair.
// d is borrowed until the tap returns.
func (n *Network) Observe(tap func(d *Message)) {}

// Held is the number of datagrams kept back.
func (n *Network) Held() int { return 0 }

// Release delivers the datagrams kept back, in the given order of their
// indices; without any, in the order in which they were sent.
func (n *Network) Release(order ...int) {}

// SetMTU bounds the IP packets of the network, in bytes; 0: no bound.
func (n *Network) SetMTU(mtu int) {}

// Stats returns the counters.
func (n *Network) Stats() Stats { return Stats{} }

// Endpoint is one end of the network, in place of a natt.Conn or rawip.Conn.
type Endpoint struct{}

// Endpoint adds an end that has the given addresses. Port 0 makes it an end of
// raw IP. An address that another end has is an error.
func (n *Network) Endpoint(addrs ...netip.AddrPort) (*Endpoint, error) {
	return nil, errors.ErrUnsupported
}

// ReadBatch is natt.Conn's ReadBatch.
func (e *Endpoint) ReadBatch(m []Message) (int, error) { return 0, errors.ErrUnsupported }

// WriteBatch is natt.Conn's WriteBatch.
func (e *Endpoint) WriteBatch(m []Message) (sent int, err error) { return 0, errors.ErrUnsupported }

// FailSend sets a hook whose error WriteBatch returns for a datagram.
func (e *Endpoint) FailSend(hook func(d *Message) error) {}

// LocalPort is the port of the first address.
func (e *Endpoint) LocalPort() uint16 { return 0 }

// Close ends the endpoint and wakes its reader.
func (e *Endpoint) Close() error { return nil }
