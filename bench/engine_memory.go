package bench

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	wgtun "golang.zx2c4.com/wireguard/tun"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/tun"
)

// memory is a TUN and a wire without system calls. Packets come from the one,
// by turns, and what leaves by the other is counted.
type memory struct {
	tun    *memoryTUN
	wire   *memoryWire
	feed   *feed
	closed chan struct{}
	once   sync.Once
}

func newMemory(d packet.Direction, clock *threadClock) *memory {
	m := &memory{closed: make(chan struct{})}
	m.feed = &feed{turns: make(chan *turn), closed: m.closed, clock: clock}
	idle := &feed{turns: make(chan *turn), closed: m.closed}
	m.tun = &memoryTUN{feed: idle, memory: m, events: make(chan wgtun.Event)}
	m.wire = &memoryWire{feed: idle, memory: m}
	if d == packet.Outbound {
		m.tun.feed = m.feed
	} else {
		m.wire.feed = m.feed
	}
	return m
}

func (m *memory) close() {
	m.once.Do(func() { close(m.closed) })
}

// carry has one turn carried, by whoever reads.
func (m *memory) carry(t *turn) (engineMeasure, error) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	timeout := time.NewTimer(time.Minute)
	defer timeout.Stop()
	select {
	case m.feed.turns <- t:
	case <-timeout.C:
		return engineMeasure{}, fmt.Errorf("bench: nobody read in a minute")
	}
	select {
	case <-t.done:
	case <-timeout.C:
		return engineMeasure{}, fmt.Errorf("bench: a turn did not end in a minute")
	}
	runtime.ReadMemStats(&after)
	if t.err != nil {
		return engineMeasure{}, t.err
	}
	if t.out != t.count {
		return engineMeasure{}, fmt.Errorf("bench: %d of %d packets came through", t.out, t.count)
	}
	return engineMeasure{
		packets: t.count, took: t.ended.wall - t.began.wall, cpu: t.ended.cpu - t.began.cpu,
		cycles: t.ended.cycles - t.began.cycles, allocations: after.Mallocs - before.Mallocs,
	}, nil
}

// relay is a gateway that does nothing: what it takes is the harness's own
// share of a walk.
func (m *memory) relay(d packet.Direction) {
	queue := tun.Adapt(m.tun)
	defer func() { _ = queue.Close() }()
	grams := packet.NewDatagrams(engineBatch)
	if d == packet.Outbound {
		bufs := packet.NewBuffers(engineBatch)
		for {
			n, err := queue.ReadBatch(bufs)
			if err != nil {
				return
			}
			_, _ = m.wire.WriteBatch(grams[:n])
		}
	}
	bufs := make([]packet.Buffer, engineBatch)
	out := make([]*packet.Buffer, engineBatch)
	for i := range bufs {
		out[i] = &bufs[i]
	}
	for {
		n, err := m.wire.ReadBatch(grams)
		if err != nil {
			return
		}
		for i, d := range grams[:n] {
			bufs[i] = packet.Buffer{Mem: d.Mem, Off: d.Off, Len: d.Len}
		}
		_, _ = queue.WriteBatch(out[:n])
	}
}

// engineMeasure is what turns took.
type engineMeasure struct {
	packets     int
	took, cpu   time.Duration
	allocations uint64
	cycles      uint64
}

func (m *engineMeasure) add(other engineMeasure) {
	m.packets, m.took, m.cpu = m.packets+other.packets, m.took+other.took, m.cpu+other.cpu
	m.allocations, m.cycles = m.allocations+other.allocations, m.cycles+other.cycles
}

// turn is packets that are handed out one after the other. What it took is
// written by the goroutine that carries them, from the first one that it asks
// for until it asks for more than there are.
type turn struct {
	packets [][]byte // begin again behind the last
	first   int
	count   int
	done    chan struct{} // closed at the end; what follows is the worker's until then

	out          int // that came out at the other side
	began, ended stamp
	err          error
}

// stamp is a moment of a worker.
type stamp struct {
	wall   time.Duration // monotonic
	cpu    time.Duration // of the worker's thread, user and system
	cycles uint64        // of the process, in user mode
}

// threadClock reads the clocks of the calling thread.
type threadClock struct {
	started time.Time
	cycles  *cycleCounter // nil: none
}

func newThreadClock(cycles *cycleCounter) *threadClock {
	return &threadClock{started: time.Now(), cycles: cycles}
}

func (c *threadClock) read() (s stamp, err error) {
	if c.cycles != nil {
		if s.cycles, err = c.cycles.read(); err != nil {
			return s, err
		}
	}
	var ts unix.Timespec
	if err = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return s, err
	}
	s.cpu, s.wall = time.Duration(ts.Nano()), time.Since(c.started)
	return s, nil
}

// feed hands out turns. All of it but the channels belongs to the one goroutine
// that reads.
type feed struct {
	turns  chan *turn
	closed chan struct{}
	clock  *threadClock
	turn   *turn
	next   int
	left   int
	locked bool
}

// take copies up to n packets by calling put, and returns how many; 0 means
// closed. Between turns it waits.
func (f *feed) take(n int, put func(i int, p []byte)) int {
	if f.turn != nil && f.left == 0 {
		f.end()
	}
	if f.turn == nil && !f.begin() {
		return 0
	}
	n = min(n, f.left)
	for i := range n {
		put(i, f.turn.packets[f.next])
		if f.next++; f.next == len(f.turn.packets) {
			f.next = 0
		}
	}
	f.left -= n
	return n
}

func (f *feed) begin() bool {
	select {
	case f.turn = <-f.turns:
	case <-f.closed:
		return false
	}
	if !f.locked { // so that the thread's time is this goroutine's
		runtime.LockOSThread()
		f.locked = true
	}
	f.next, f.left = f.turn.first, f.turn.count
	f.turn.began, f.turn.err = f.clock.read()
	return true
}

func (f *feed) end() {
	t := f.turn
	var err error
	if t.ended, err = f.clock.read(); t.err == nil {
		t.err = err
	}
	f.turn = nil
	close(t.done)
}

const engineBatch = 128

// memoryTUN is a tun.Device: it reads from a feed, and counts what is written.
type memoryTUN struct {
	*feed
	memory *memory
	events chan wgtun.Event
	once   sync.Once
	bufs   [][]byte
	sizes  []int
	offset int
}

func (t *memoryTUN) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	t.bufs, t.sizes, t.offset = bufs, sizes, offset
	if n := t.take(min(len(bufs), engineBatch), t.put); n > 0 {
		return n, nil
	}
	return 0, os.ErrClosed
}

func (t *memoryTUN) put(i int, p []byte) { t.sizes[i] = copy(t.bufs[i][t.offset:], p) }

func (t *memoryTUN) Write(bufs [][]byte, _ int) (int, error) {
	t.memory.feed.turn.out += len(bufs)
	return len(bufs), nil
}

func (t *memoryTUN) File() *os.File             { return nil }
func (t *memoryTUN) MTU() (int, error)          { return 1500, nil }
func (t *memoryTUN) Name() (string, error)      { return "bench", nil }
func (t *memoryTUN) Events() <-chan wgtun.Event { return t.events }
func (t *memoryTUN) BatchSize() int             { return engineBatch }
func (t *memoryTUN) Close() error {
	t.once.Do(func() { close(t.events) })
	t.memory.close()
	return nil
}

// memoryWire is a dataplane.Wire: it reads from a feed, and counts what is
// written.
type memoryWire struct {
	*feed
	memory *memory
	grams  []packet.Datagram
}

func (w *memoryWire) ReadBatch(grams []packet.Datagram) (int, error) {
	w.grams = grams
	if n := w.take(min(len(grams), engineBatch), w.put); n > 0 {
		return n, nil
	}
	return 0, net.ErrClosed
}

func (w *memoryWire) put(i int, p []byte) {
	d := &w.grams[i]
	d.Off, d.Addr, d.TOS = packet.Headroom, enginePeer, 0
	d.Len = copy(d.Mem[packet.Headroom:], p)
}

func (w *memoryWire) WriteBatch(grams []packet.Datagram) (int, error) {
	w.memory.feed.turn.out += len(grams)
	return len(grams), nil
}

func (w *memoryWire) Close() error {
	w.memory.close()
	return nil
}
