package netsim

import (
	"fmt"
	"net/netip"
	"sync"

	"github.com/adit-ipsec/adit/internal/packet"
)

// Message is one datagram: natt's Message.
type Message = packet.Datagram

// Hold is Impair's answer that keeps a datagram back until Release.
const Hold = -1

// Network connects endpoints. Its methods may be called from any goroutine,
// though not from inside its hooks, which run while it is locked.
type Network struct {
	mu      sync.Mutex // guards all below and every Endpoint's state
	ends    map[netip.AddrPort]*Endpoint
	observe func(d *Message)
	impair  func(d *Message) int
	nat     func(from, to netip.AddrPort) (netip.AddrPort, netip.AddrPort)
	mtu     int
	queue   int
	held    []transit
	stats   Stats

	// What the hooks see. It lives here so that sending allocates nothing.
	view Message
}

// transit is a datagram on its way, in memory of its own.
type transit struct {
	from, to netip.AddrPort
	tos      uint8
	payload  []byte
}

// Stats counts what happened to datagrams.
type Stats struct {
	Sent       uint64 // taken from a WriteBatch, segments counted one by one
	Delivered  uint64 // put into an endpoint's queue, copies included
	Impaired   uint64 // dropped by the Impair hook
	QueueFull  uint64 // dropped for want of room
	NoEndpoint uint64 // dropped because no endpoint has the address
	Truncated  uint64 // dropped because the reader's slot was too small
}

// DefaultQueue is how many datagrams wait for each endpoint's reader.
const DefaultQueue = 1024

// NewNetwork returns a network without endpoints.
func NewNetwork() *Network {
	return &Network{ends: make(map[netip.AddrPort]*Endpoint), queue: DefaultQueue}
}

// Impair sets the hook that decides on each datagram before it is delivered:
// 0 drops it, 1 delivers it, more doubles it, Hold keeps it back. It may change
// the bytes, Len, TOS, Local (the source) and Addr (the destination) of d,
// which is a copy and borrowed until the hook returns. nil removes it.
func (n *Network) Impair(hook func(d *Message) (deliver int)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.impair = hook
}

// Observe sets the tap that sees each datagram as it was sent, in front of
// Impair and of Translate: Local is the source, Addr the destination. d is
// borrowed until the tap returns, and not to be changed. nil removes it.
func (n *Network) Observe(tap func(d *Message)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.observe = tap
}

// Translate sets a NAT, which sees each datagram's source and destination
// after Impair and returns what they become. nil removes it.
func (n *Network) Translate(nat func(from, to netip.AddrPort) (netip.AddrPort, netip.AddrPort)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nat = nat
}

// SetMTU bounds the network's IP packets, in bytes; 0: no bound. As on a link,
// a datagram with DF, or over IPv6, that would be longer fails with EMSGSIZE;
// without DF it passes, as if fragmented and reassembled.
func (n *Network) SetMTU(mtu int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mtu = mtu
}

// SetQueue bounds the queue of each endpoint that is added afterwards, in
// datagrams.
func (n *Network) SetQueue(datagrams int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.queue = max(datagrams, 1)
}

// Stats returns the counters.
func (n *Network) Stats() Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stats
}

// Held is the number of datagrams kept back.
func (n *Network) Held() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.held)
}

// Release delivers datagrams kept back, in the given order of their indices,
// and forgets those not named; without any index it delivers all in the order
// in which they were sent. An index that is not held is an error, and then
// nothing is delivered.
func (n *Network) Release(order ...int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, i := range order {
		if i < 0 || i >= len(n.held) {
			return fmt.Errorf("netsim: release of datagram %d, but %d are held", i, len(n.held))
		}
	}
	held := n.held
	n.held = nil
	if len(order) == 0 {
		for i := range held {
			n.deliverLocked(&held[i])
		}
	}
	for _, i := range order {
		n.deliverLocked(&held[i])
	}
	return nil
}

// Inject delivers a datagram that no endpoint sent: an attacker's, or a
// recorded one. No hook sees it.
func (n *Network) Inject(from, to netip.AddrPort, tos uint8, payload []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.deliverLocked(&transit{from: from, to: to, tos: tos, payload: payload})
}

// sendLocked takes one datagram through observer, impairment and translation.
func (n *Network) sendLocked(from, to netip.AddrPort, tos uint8, df bool, payload []byte) {
	n.stats.Sent++
	copies := 1
	if n.observe != nil || n.impair != nil {
		n.loadView(from, to, tos, df, payload)
		if n.observe != nil {
			n.observe(&n.view)
		}
		if n.impair != nil {
			copies = n.impair(&n.view)
			from = netip.AddrPortFrom(n.view.Local, from.Port())
			to, tos, payload = n.view.Addr, n.view.TOS, n.view.Bytes()
		}
	}
	if n.nat != nil {
		from, to = n.nat(from, to)
	}
	t := transit{from: from, to: to, tos: tos, payload: payload}
	switch {
	case copies == Hold:
		t.payload = append([]byte(nil), payload...)
		n.held = append(n.held, t)
	case copies <= 0:
		n.stats.Impaired++
	default:
		for range copies {
			n.deliverLocked(&t)
		}
	}
}

func (n *Network) loadView(from, to netip.AddrPort, tos uint8, df bool, payload []byte) {
	if n.view.Mem == nil {
		n.view.Mem = make([]byte, packet.SlotLen)
	}
	n.view.Off, n.view.Len = packet.Headroom, copy(n.view.Mem[packet.Headroom:], payload)
	n.view.Local, n.view.Addr, n.view.TOS, n.view.DF = from.Addr(), to, tos, df
	n.view.SegmentSize = 0
}

func (n *Network) deliverLocked(t *transit) {
	end := n.ends[t.to]
	if end == nil {
		n.stats.NoEndpoint++
		return
	}
	if !end.pushLocked(t) {
		n.stats.QueueFull++
		return
	}
	n.stats.Delivered++
}
