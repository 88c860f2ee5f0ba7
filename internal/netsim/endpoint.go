package netsim

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"github.com/adit-ipsec/adit/internal/packet"
)

// Endpoint is one end of a network, in place of a natt.Conn or rawip.Conn: its
// methods keep their contracts.
type Endpoint struct {
	net   *Network
	addrs []netip.AddrPort // immutable

	// Guarded by net.mu.
	wake   sync.Cond
	ring   []transit // received datagrams; slots keep their memory
	head   int
	count  int
	fail   func(d *Message) error
	closed bool
}

// Endpoint adds an end that has the given addresses. Port 0 makes it an end of
// raw IP. An address that another end has is an error.
func (n *Network) Endpoint(addrs ...netip.AddrPort) (*Endpoint, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(addrs) == 0 {
		return nil, errors.New("netsim: an endpoint needs an address")
	}
	e := &Endpoint{net: n, ring: make([]transit, n.queue)}
	e.wake.L = &n.mu
	for _, a := range addrs {
		a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
		if !a.Addr().IsValid() {
			return nil, errors.New("netsim: an endpoint's address is not valid")
		}
		if n.ends[a] != nil {
			return nil, fmt.Errorf("netsim: address %s is taken", a)
		}
		e.addrs = append(e.addrs, a)
	}
	for _, a := range e.addrs {
		n.ends[a] = e
	}
	return e, nil
}

// LocalPort is the port of the first address.
func (e *Endpoint) LocalPort() uint16 { return e.addrs[0].Port() }

// FailSend sets a hook whose error WriteBatch returns in place of sending a
// datagram, as a kernel returns EPERM or ENOBUFS. nil removes it.
func (e *Endpoint) FailSend(hook func(d *Message) error) {
	e.net.mu.Lock()
	defer e.net.mu.Unlock()
	e.fail = hook
}

// Waiting is how many datagrams wait for the reader.
func (e *Endpoint) Waiting() int {
	e.net.mu.Lock()
	defer e.net.mu.Unlock()
	return e.count
}

// ReadBatch is natt.Conn's ReadBatch.
func (e *Endpoint) ReadBatch(m []Message) (int, error) {
	if len(m) == 0 {
		return 0, nil
	}
	e.net.mu.Lock()
	defer e.net.mu.Unlock()
	for {
		for e.count == 0 && !e.closed {
			e.wake.Wait()
		}
		if e.closed {
			return 0, net.ErrClosed
		}
		n := 0
		for n < len(m) && e.count > 0 {
			if e.popLocked(&m[n]) {
				n++
			}
		}
		if n > 0 {
			return n, nil
		}
	}
}

// popLocked moves the oldest datagram into d; false means that it was longer
// than the slot and is gone.
func (e *Endpoint) popLocked(d *Message) bool {
	t := &e.ring[e.head]
	e.head = (e.head + 1) % len(e.ring)
	e.count--
	if len(d.Mem) < packet.Headroom+len(t.payload)+packet.Tailroom {
		e.net.stats.Truncated++
		return false
	}
	d.Off, d.Len = packet.Headroom, copy(d.Mem[packet.Headroom:], t.payload)
	d.Addr, d.Local, d.TOS = t.from, t.to.Addr(), t.tos
	d.DF, d.SegmentSize = false, 0
	return true
}

// WriteBatch is natt.Conn's WriteBatch.
func (e *Endpoint) WriteBatch(m []Message) (sent int, err error) {
	e.net.mu.Lock()
	defer e.net.mu.Unlock()
	for i := range m {
		if err := e.writeLocked(&m[i]); err != nil {
			return i, err
		}
	}
	return len(m), nil
}

func (e *Endpoint) writeLocked(d *Message) error {
	if e.closed {
		return net.ErrClosed
	}
	if e.fail != nil {
		if err := e.fail(d); err != nil {
			return err
		}
	}
	to := netip.AddrPortFrom(d.Addr.Addr().Unmap(), d.Addr.Port())
	if !to.Addr().IsValid() {
		return syscall.EDESTADDRREQ
	}
	from, err := e.source(d.Local.Unmap(), to.Addr())
	if err != nil {
		return err
	}
	b := d.Bytes()
	for {
		segment := b
		if d.SegmentSize > 0 && len(b) > d.SegmentSize {
			segment = b[:d.SegmentSize]
		}
		if e.tooBig(len(segment), to, d.DF) {
			return syscall.EMSGSIZE
		}
		e.net.sendLocked(from, to, d.TOS, d.DF, segment)
		if b = b[len(segment):]; len(b) == 0 {
			return nil
		}
	}
}

// source is the address and port that a datagram for to leaves from.
func (e *Endpoint) source(local, to netip.Addr) (netip.AddrPort, error) {
	for _, a := range e.addrs {
		if a.Addr() == local || !local.IsValid() && a.Addr().Is4() == to.Is4() {
			if a.Addr().Is4() != to.Is4() {
				return netip.AddrPort{}, syscall.EINVAL
			}
			return a, nil
		}
	}
	if local.IsValid() {
		return netip.AddrPort{}, syscall.EINVAL
	}
	return netip.AddrPort{}, syscall.ENETUNREACH
}

func (e *Endpoint) tooBig(payload int, to netip.AddrPort, df bool) bool {
	headers := 20
	if to.Addr().Is6() {
		headers = 40
	}
	if to.Port() != 0 {
		headers += 8
	}
	if payload+headers > packet.MaxLen {
		return true
	}
	return e.net.mtu > 0 && payload+headers > e.net.mtu && (df || to.Addr().Is6())
}

// pushLocked copies t into the queue; false means there is no room.
func (e *Endpoint) pushLocked(t *transit) bool {
	if e.count == len(e.ring) {
		return false
	}
	slot := &e.ring[(e.head+e.count)%len(e.ring)]
	slot.from, slot.to, slot.tos = t.from, t.to, t.tos
	slot.payload = append(slot.payload[:0], t.payload...)
	e.count++
	e.wake.Signal()
	return true
}

// Close ends the endpoint, wakes its reader and frees its addresses.
func (e *Endpoint) Close() error {
	e.net.mu.Lock()
	defer e.net.mu.Unlock()
	if e.closed {
		return net.ErrClosed
	}
	e.closed = true
	for _, a := range e.addrs {
		delete(e.net.ends, a)
	}
	e.wake.Broadcast()
	return nil
}
