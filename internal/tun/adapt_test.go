package tun

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	wgtun "golang.zx2c4.com/wireguard/tun"

	"github.com/adit-ipsec/adit/internal/packet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what must not take long; a test that reaches it has failed.
const patience = 10 * time.Second

// script is a device whose Read and Write are the test's.
type script struct {
	batch  int
	read   func(bufs [][]byte, sizes []int, offset int) (int, error)
	write  func(bufs [][]byte, offset int) (int, error)
	events chan wgtun.Event
}

func (s *script) File() *os.File             { return nil }
func (s *script) MTU() (int, error)          { return 1400, nil }
func (s *script) Name() (string, error)      { return "script", nil }
func (s *script) Events() <-chan wgtun.Event { return s.events }
func (s *script) Close() error               { return nil }
func (s *script) BatchSize() int             { return s.batch }
func (s *script) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	return s.read(bufs, sizes, offset)
}
func (s *script) Write(bufs [][]byte, offset int) (int, error) { return s.write(bufs, offset) }

func buffer(p ...byte) *packet.Buffer {
	b := &packet.NewBuffers(1)[0]
	b.Set(p)
	return b
}

func TestReadTakesOnlyWhatTheDeviceFilled(t *testing.T) {
	calls := 0
	dev := &script{batch: 8, read: func(bufs [][]byte, sizes []int, offset int) (int, error) {
		if offset != packet.Headroom {
			t.Errorf("offset = %d, want %d", offset, packet.Headroom)
		}
		if len(bufs) != 6 || len(sizes) != 6 {
			t.Errorf("%d buffers and %d sizes, want 6: as many as the caller gave", len(bufs), len(sizes))
		}
		if calls++; calls == 1 {
			return 0, nil // nothing: not the reader's business
		}
		for i := range bufs {
			bufs[i][offset] = byte(i + 1)
		}
		copy(sizes, []int{1, 0, 1, 1 << 20, -1, 1})
		return 5, nil // the sixth is not told of
	}}
	bufs := packet.NewBuffers(6)
	bufs[0].SegmentSize = 99
	n, err := Adapt(dev).ReadBatch(bufs)
	if n != 2 || err != nil {
		t.Fatalf("ReadBatch = %d, %v; want 2, nil", n, err)
	}
	for i, want := range []byte{1, 3} {
		b := &bufs[i]
		if b.Off != packet.Headroom || b.Len != 1 || b.SegmentSize != 0 || b.Bytes()[0] != want {
			t.Errorf("buffer %d: off %d, len %d, segment size %d, byte %d; want %d, 1, 0, %d", i, b.Off, b.Len, b.SegmentSize, b.Mem[b.Off], packet.Headroom, want)
		}
	}
	// No slot got lost or doubled when the empty ones were moved away.
	seen := map[*byte]bool{}
	for i := range bufs {
		seen[&bufs[i].Mem[0]] = true
	}
	if len(seen) != len(bufs) {
		t.Errorf("%d slots are in the batch, want %d", len(seen), len(bufs))
	}
}

func TestReadSurvivesTooManySegments(t *testing.T) {
	for _, told := range []int{2, 3} { // what devices say of three whole segments
		dev := &script{batch: 8, read: func(bufs [][]byte, sizes []int, _ int) (int, error) {
			for i := range bufs {
				sizes[i] = 1
			}
			return told, wgtun.ErrTooManySegments
		}}
		a := Adapt(dev)
		n, err := a.ReadBatch(packet.NewBuffers(3))
		if n != 3 || err != nil {
			t.Errorf("device says %d: ReadBatch = %d, %v; want 3, nil", told, n, err)
		}
		if a.Truncated() != 1 {
			t.Errorf("device says %d: Truncated = %d, want 1", told, a.Truncated())
		}
	}
}

func TestReadErrors(t *testing.T) {
	passing := errors.New("unsupported virtio GSO type: 77")
	for _, tt := range []struct{ device, want error }{
		{os.ErrClosed, os.ErrClosed},
		{&os.PathError{Op: "read", Path: "/dev/net/tun", Err: os.ErrClosed}, os.ErrClosed},
		{io.EOF, os.ErrClosed},
		{passing, passing},
	} {
		dev := &script{batch: 1, read: func([][]byte, []int, int) (int, error) { return 0, tt.device }}
		if n, err := Adapt(dev).ReadBatch(packet.NewBuffers(1)); n != 0 || err != tt.want {
			t.Errorf("device's error %v: ReadBatch = %d, %v; want 0, %v", tt.device, n, err, tt.want)
		}
	}
	small := []packet.Buffer{{Mem: make([]byte, packet.Headroom+packet.Tailroom)}}
	if _, err := Adapt(&script{batch: 1}).ReadBatch(small); err == nil {
		t.Error("ReadBatch into a slot without room for a packet: no error")
	}
}

// TestWriteNeverReachesForeignMemory has a device that appends as far as the
// capacity goes, as coalescing does, over slots cut from one piece of memory
// without a capacity of their own.
func TestWriteNeverReachesForeignMemory(t *testing.T) {
	const slot = packet.Headroom + 100 + packet.Tailroom
	arena := make([]byte, 4*slot)
	bufs := make([]*packet.Buffer, 3)
	for i := range bufs {
		bufs[i] = &packet.Buffer{Mem: arena[i*slot : (i+1)*slot], Off: packet.Headroom + i, Len: 20 + i}
		for j := range bufs[i].Bytes() {
			bufs[i].Bytes()[j] = byte(0x10 + i)
		}
	}
	var got [][]byte
	dev := &script{batch: 2, write: func(out [][]byte, offset int) (int, error) {
		if offset < 10 {
			t.Errorf("offset = %d, want room for a virtio-net header", offset)
		}
		for i := range out {
			got = append(got, bytes.Clone(out[i][offset:]))
		}
		if len(out) == 2 {
			first := out[0]
			clear(first[len(first):cap(first)])
			clear(first[:offset])
			first = first[:cap(first)]
			for j := offset + 20; j < len(first); j++ {
				first[j] = 0xee
			}
			if !bytes.Equal(out[1][offset:], bytes.Repeat([]byte{0x11}, 21)) {
				t.Error("filling the first packet's capacity changed the second packet")
			}
		}
		return 12345, nil // bytes, packets: nobody knows
	}}
	n, err := Adapt(dev).WriteBatch(bufs)
	if n != 3 || err != nil {
		t.Errorf("WriteBatch = %d, %v; want 3, nil", n, err)
	}
	for i := range bufs {
		if want := bytes.Repeat([]byte{byte(0x10 + i)}, 20+i); !bytes.Equal(got[i], want) {
			t.Errorf("packet %d reached the device as %x, want %x", i, got[i], want)
		}
	}
	if !bytes.Equal(arena[3*slot:], make([]byte, slot)) {
		t.Error("memory behind the last slot was written")
	}
}

// Wireguard's device coalesces as far as the capacity goes and lets the length
// field wrap; whole superpackets were lost so.
func TestWriteLeavesNoRoomForMoreThanAnIPPacket(t *testing.T) {
	b := buffer(make([]byte, 928)...)
	dev := &script{batch: 1, write: func(out [][]byte, offset int) (int, error) {
		if room := cap(out[0]) - offset; room != packet.MaxLen {
			t.Errorf("room for a coalesced packet: expected %d bytes, saw %d", packet.MaxLen, room)
		}
		return 0, nil
	}}
	if _, err := Adapt(dev).WriteBatch([]*packet.Buffer{b}); err != nil {
		t.Error(err)
	}
}

func TestWriteKeepsBadBuffersFromTheDevice(t *testing.T) {
	calls := 0
	dev := &script{batch: 16, write: func(out [][]byte, offset int) (int, error) {
		calls += len(out)
		return 0, nil
	}}
	empty, near, super := buffer(), buffer(2), buffer(3)
	near.Off = WriteHeadroom - 1
	super.SegmentSize = 1
	n, err := Adapt(dev).WriteBatch([]*packet.Buffer{buffer(1), empty, near, super, buffer(4)})
	if n != 2 || calls != 2 {
		t.Errorf("WriteBatch = %d and the device saw %d; want 2 and 2", n, calls)
	}
	for _, want := range []error{ErrEmpty, ErrNoHeadroom, ErrSuperpacket} {
		if !errors.Is(err, want) {
			t.Errorf("error %v does not tell of %v", err, want)
		}
	}
	if n, err := Adapt(dev).WriteBatch([]*packet.Buffer{empty}); n != 0 || err == nil || calls != 2 {
		t.Errorf("a batch of nothing: %d, %v, %d calls; want 0, an error, no further call", n, err, calls)
	}
}

func TestWriteErrors(t *testing.T) {
	for _, tt := range []struct {
		name    string
		took    int // what the device says it took of the first two
		device  error
		written int
		want    error
	}{
		{"closed", 0, os.ErrClosed, 0, os.ErrClosed},
		{"one refused", 40, syscall.EINVAL, 4, syscall.EINVAL},
		{"two refused", 0, errors.Join(errors.Join(nil, syscall.EIO), syscall.EIO), 3, syscall.EIO},
		{"two coalesced and refused as one", 0, syscall.EIO, 3, syscall.EIO},
		{"more than there were", 0, errors.Join(io.ErrNoProgress, io.ErrNoProgress, io.ErrNoProgress), 3, io.ErrNoProgress},
	} {
		calls := 0
		dev := &script{batch: 2, write: func(out [][]byte, _ int) (int, error) {
			if calls++; calls == 1 {
				return tt.took, tt.device
			}
			return 0, nil
		}}
		bufs := []*packet.Buffer{buffer(1), buffer(2), buffer(3), buffer(4), buffer(5)}
		n, err := Adapt(dev).WriteBatch(bufs)
		if n != tt.written || !errors.Is(err, tt.want) {
			t.Errorf("%s: WriteBatch = %d, %v; want %d, %v", tt.name, n, err, tt.written, tt.want)
		}
	}
}

// TestEventsAreDrained holds that a device which reports more than its channel
// holds is not blocked by the adapter.
func TestEventsAreDrained(t *testing.T) {
	dev := &script{batch: 1, events: make(chan wgtun.Event)}
	Adapt(dev)
	for range 100 {
		select {
		case dev.events <- wgtun.EventMTUUpdate:
		case <-time.After(patience):
			t.Fatal("nobody reads the device's events")
		}
	}
	close(dev.events)
}

func ctx(t testing.TB) context.Context {
	c, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return c
}

func TestMemoryDeviceCarriesBothWays(t *testing.T) {
	dev, host := NewMemory("adit0", 1400)
	q := Adapt(dev)
	defer q.Close()
	if name, _ := dev.Name(); name != "adit0" {
		t.Errorf("Name = %q, want adit0", name)
	}
	if mtu, _ := dev.MTU(); mtu != 1400 {
		t.Errorf("MTU = %d, want 1400", mtu)
	}
	const total = 40
	for i := range total {
		if err := host.Send(ctx(t), binary.BigEndian.AppendUint32(nil, uint32(i))); err != nil {
			t.Fatal(err)
		}
	}
	bufs, seen := packet.NewBuffers(64), 0
	for seen < total {
		n, err := q.ReadBatch(bufs)
		if err != nil || n > q.BatchSize() {
			t.Fatalf("ReadBatch = %d, %v; want at most %d", n, err, q.BatchSize())
		}
		out := make([]*packet.Buffer, n)
		for i := range n {
			if got := binary.BigEndian.Uint32(bufs[i].Bytes()); int(got) != seen+i {
				t.Fatalf("packet %d is number %d", seen+i, got)
			}
			out[i] = &bufs[i]
		}
		if w, err := q.WriteBatch(out); w != n || err != nil {
			t.Fatalf("WriteBatch = %d, %v; want %d, nil", w, err, n)
		}
		seen += n
	}
	for i := range total {
		pkt, err := host.Receive(ctx(t))
		if err != nil || int(binary.BigEndian.Uint32(pkt)) != i {
			t.Fatalf("Receive %d = %x, %v", i, pkt, err)
		}
	}
}

func TestMemoryDeviceDropsWhatTheHostDoesNotTake(t *testing.T) {
	dev, host := NewMemory("adit0", 1400)
	q := Adapt(dev)
	defer q.Close()
	const extra = 7
	for i := range memoryQueue + extra {
		if _, err := q.WriteBatch([]*packet.Buffer{buffer(byte(i))}); err != nil {
			t.Fatal(err)
		}
	}
	if got := host.Dropped(); got != extra {
		t.Errorf("Dropped = %d, want %d", got, extra)
	}
	next := byte(0)
	n := host.Drain(func(pkt []byte) {
		if pkt[0] != next {
			t.Errorf("drained packet %d is number %d", next, pkt[0])
		}
		next++
	})
	if n != memoryQueue {
		t.Errorf("Drain = %d, want %d", n, memoryQueue)
	}
}

func TestMemoryDeviceClose(t *testing.T) {
	dev, host := NewMemory("adit0", 1400)
	q := Adapt(dev)
	errs := make(chan error, 3)
	go func() {
		_, err := q.ReadBatch(packet.NewBuffers(1))
		errs <- err
	}()
	go func() {
		_, err := host.Receive(ctx(t))
		errs <- err
	}()
	go func() {
		var err error
		for err == nil { // until the queue is full, and then it waits
			err = host.Send(ctx(t), []byte{1})
		}
		errs <- err
	}()
	_ = q.Close()
	for range cap(errs) {
		select {
		case err := <-errs:
			if err != nil && !errors.Is(err, os.ErrClosed) {
				t.Errorf("after Close: %v, want os.ErrClosed", err)
			}
		case <-time.After(patience):
			t.Fatal("somebody still waits after Close")
		}
	}
	if _, err := q.ReadBatch(packet.NewBuffers(1)); err != os.ErrClosed {
		t.Errorf("ReadBatch after Close: %v, want os.ErrClosed", err)
	}
	if _, err := q.WriteBatch([]*packet.Buffer{buffer(1)}); err != os.ErrClosed {
		t.Errorf("WriteBatch after Close: %v, want os.ErrClosed", err)
	}
	if err := q.Close(); err != os.ErrClosed {
		t.Errorf("second Close: %v, want os.ErrClosed", err)
	}
}

func TestMemoryDeviceHonoursContext(t *testing.T) {
	dev, host := NewMemory("adit0", 1400)
	defer dev.Close()
	done, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := host.Receive(done); !errors.Is(err, context.Canceled) {
		t.Errorf("Receive with nothing there: %v, want context.Canceled", err)
	}
	for range memoryQueue {
		if err := host.Send(ctx(t), []byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	err := host.Send(done, []byte{1})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Send into a full queue: %v, want context.Canceled", err)
	}
}

func TestBatchesAllocateNothing(t *testing.T) {
	dev, host := NewMemory("adit0", 1400)
	q := Adapt(dev)
	defer q.Close()
	bufs, out, pkt, c := packet.NewBuffers(8), make([]*packet.Buffer, 0, 8), make([]byte, 1400), ctx(t)
	round := func() {
		for range 4 {
			if err := host.Send(c, pkt); err != nil {
				t.Fatal(err)
			}
		}
		n, err := q.ReadBatch(bufs)
		if err != nil {
			t.Fatal(err)
		}
		out = out[:0]
		for i := range n {
			out = append(out, &bufs[i])
		}
		if _, err := q.WriteBatch(out); err != nil {
			t.Fatal(err)
		}
		host.Drain(func([]byte) {})
	}
	for range memoryQueue { // every slot has its memory now
		round()
	}
	if got := testing.AllocsPerRun(100, round); got != 0 {
		t.Errorf("%v allocations per batch, want 0", got)
	}
}

// closing is a device whose Close answers as wireguard's does when its listener
// has ended first.
type closing struct {
	script
	err error
}

func (c *closing) Close() error { return c.err }

func TestCloseKnowsADeviceWhoseListenerWasQuicker(t *testing.T) {
	raced := &os.PathError{Op: "write", Path: "|1", Err: os.ErrClosed}
	broken := &os.PathError{Op: "write", Path: "|1", Err: unix.EPIPE}
	other := errors.New("another error")
	for _, c := range []struct{ device, want error }{{nil, nil}, {raced, nil}, {broken, nil}, {other, other}} {
		a := Adapt(&closing{script: script{batch: 1}, err: c.device})
		if err := a.Close(); err != c.want {
			t.Errorf("device says %v: expected %v, saw %v", c.device, c.want, err)
		}
		if err := a.Close(); err != os.ErrClosed {
			t.Errorf("the second Close: expected %v, saw %v", os.ErrClosed, err)
		}
	}
}
