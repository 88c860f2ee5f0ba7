package tun

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	wgtun "golang.zx2c4.com/wireguard/tun"
)

const (
	memoryBatch = 16
	// memoryQueue is how many packets wait in each direction.
	memoryQueue = 1024
)

// memory is a device in memory. Buffers go round between two channels each
// way, so the steady state allocates nothing.
type memory struct {
	name string
	mtu  int

	toDevice, toHost pipe
	dropped          atomic.Uint64

	events    chan wgtun.Event
	closeOnce sync.Once
	closed    chan struct{}
}

type pipe struct {
	free, full chan []byte
}

func newPipe() pipe {
	p := pipe{free: make(chan []byte, memoryQueue), full: make(chan []byte, memoryQueue)}
	for range memoryQueue {
		p.free <- nil
	}
	return p
}

// Host is the other side of a memory device: the kernel whose route leads to
// the TUN.
type Host struct {
	m *memory
}

// NewMemory makes a device in memory with an MTU in bytes, and its host side.
// The MTU is told to whoever asks and not enforced, as on a TUN device, where
// the host's kernel keeps to it.
func NewMemory(name string, mtu int) (Device, *Host) {
	m := &memory{name: name, mtu: mtu, toDevice: newPipe(), toHost: newPipe(),
		events: make(chan wgtun.Event, 1), closed: make(chan struct{})}
	m.events <- wgtun.EventUp
	return m, &Host{m: m}
}

func (m *memory) File() *os.File             { return nil }
func (m *memory) MTU() (int, error)          { return m.mtu, nil }
func (m *memory) Name() (string, error)      { return m.name, nil }
func (m *memory) Events() <-chan wgtun.Event { return m.events }
func (m *memory) BatchSize() int             { return memoryBatch }

func (m *memory) Close() error {
	m.closeOnce.Do(func() {
		close(m.closed)
		close(m.events)
	})
	return nil
}

func (m *memory) isClosed() bool {
	select {
	case <-m.closed:
		return true
	default:
		return false
	}
}

// Read waits for one packet and takes what else is there.
func (m *memory) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	if m.isClosed() {
		return 0, os.ErrClosed
	}
	select {
	case <-m.closed:
		return 0, os.ErrClosed
	case pkt := <-m.toDevice.full:
		m.give(pkt, bufs[0], &sizes[0], offset)
	}
	for n := 1; n < min(len(bufs), memoryBatch); n++ {
		select {
		case pkt := <-m.toDevice.full:
			m.give(pkt, bufs[n], &sizes[n], offset)
		default:
			return n, nil
		}
	}
	return min(len(bufs), memoryBatch), nil
}

func (m *memory) give(pkt, buf []byte, size *int, offset int) {
	*size = copy(buf[offset:], pkt)
	m.toDevice.free <- pkt[:0]
}

// Write hands the packets to the host; what its queue cannot hold is dropped
// and counted, as a kernel would. As the interface has it, it returns bytes.
func (m *memory) Write(bufs [][]byte, offset int) (int, error) {
	if m.isClosed() {
		return 0, os.ErrClosed
	}
	total := 0
	for _, buf := range bufs {
		pkt := buf[offset:]
		select {
		case slot := <-m.toHost.free:
			m.toHost.full <- append(slot[:0], pkt...)
			total += len(pkt)
		default:
			m.dropped.Add(1)
		}
	}
	return total, nil
}

// Send hands the device a packet to be read; it waits while the device's queue
// is full. The packet is copied. After the device's Close the error is
// os.ErrClosed.
func (h *Host) Send(ctx context.Context, pkt []byte) error {
	if h.m.isClosed() {
		return os.ErrClosed
	}
	select {
	case slot := <-h.m.toDevice.free:
		h.m.toDevice.full <- append(slot[:0], pkt...)
		return nil
	case <-h.m.closed:
		return os.ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("the gateway does not read from TUN %s: %w", h.m.name, ctx.Err())
	}
}

// Receive returns the next packet that was written to the device; the caller
// owns it. After the device's Close, and once nothing is left, the error is
// os.ErrClosed.
func (h *Host) Receive(ctx context.Context) ([]byte, error) {
	select {
	case slot := <-h.m.toHost.full:
		return h.own(slot), nil
	default:
	}
	select {
	case slot := <-h.m.toHost.full:
		return h.own(slot), nil
	case <-h.m.closed:
		return nil, os.ErrClosed
	case <-ctx.Done():
		return nil, fmt.Errorf("no packet came out of TUN %s: %w", h.m.name, ctx.Err())
	}
}

func (h *Host) own(slot []byte) []byte {
	pkt := append([]byte(nil), slot...)
	h.m.toHost.free <- slot[:0]
	return pkt
}

// Drain calls f for each packet that was written to the device and is waiting,
// and returns how many; it does not wait. A packet is borrowed until f returns.
func (h *Host) Drain(f func(pkt []byte)) int {
	for n := 0; ; n++ {
		select {
		case slot := <-h.m.toHost.full:
			f(slot)
			h.m.toHost.free <- slot[:0]
		default:
			return n
		}
	}
}

// Dropped counts the packets that found the host's queue full.
func (h *Host) Dropped() uint64 { return h.m.dropped.Load() }
