package tun

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	wgtun "golang.zx2c4.com/wireguard/tun"

	"github.com/adit-ipsec/adit/internal/packet"
)

// Adapter is a Queue over a wireguard device. It drains the device's Events,
// which would otherwise block the device's own goroutines; whoever needs them
// reads the link by other means.
type Adapter struct {
	dev Device

	closed    atomic.Bool
	truncated atomic.Uint64

	readMu sync.Mutex // guards in and sizes; held while ReadBatch waits
	in     [][]byte
	sizes  []int

	writeMu sync.Mutex // guards out
	out     [][]byte
}

// Adapt makes a Queue of any wireguard device. Nothing is allocated per batch.
func Adapt(dev Device) *Adapter {
	n := max(dev.BatchSize(), 1)
	a := &Adapter{dev: dev, in: make([][]byte, n), sizes: make([]int, n), out: make([][]byte, n)}
	if events := dev.Events(); events != nil {
		go func() {
			for range events {
			}
		}()
	}
	return a
}

var _ Queue = (*Adapter)(nil)

// BatchSize is the device's, in packets.
func (a *Adapter) BatchSize() int { return len(a.in) }

// Truncated counts reads of a superpacket that had more segments than the
// batch had buffers. Give ReadBatch BatchSize buffers and it stays 0.
func (a *Adapter) Truncated() uint64 { return a.truncated.Load() }

// Close closes the device and wakes the reader.
func (a *Adapter) Close() error {
	if a.closed.Swap(true) {
		return os.ErrClosed
	}
	return closeDevice(a.dev)
}

// closeDevice closes a device for the first and only time. Wireguard's Close
// wakes the device's own listener and then writes to a pipe that the listener
// closes on its way out: "file already closed" and "broken pipe" tell that the
// listener was quicker, not that the device is still open.
func closeDevice(dev Device) error {
	err := dev.Close()
	if errors.Is(err, os.ErrClosed) || errors.Is(err, unix.EPIPE) {
		return nil
	}
	return err
}

var errSlot = errors.New("tun: a buffer needs more than packet.Headroom+packet.Tailroom bytes")

// ReadBatch is Queue's ReadBatch. SegmentSize is always 0: a wireguard device
// splits superpackets itself. Buffers may change places in bufs.
func (a *Adapter) ReadBatch(bufs []packet.Buffer) (int, error) {
	if len(bufs) == 0 {
		return 0, nil
	}
	a.readMu.Lock()
	defer a.readMu.Unlock()
	n := min(len(bufs), len(a.in))
	for {
		for i := range n {
			mem := bufs[i].Mem
			if len(mem) <= packet.Headroom+packet.Tailroom {
				return 0, errSlot
			}
			a.in[i], a.sizes[i] = mem[:len(mem)-packet.Tailroom], 0
		}
		got, err := a.dev.Read(a.in[:n], a.sizes[:n], packet.Headroom)
		if errors.Is(err, wgtun.ErrTooManySegments) {
			// The segments that fitted are whole. Devices disagree on
			// whether the returned number counts the last of them.
			a.truncated.Add(1)
			got, err = n, nil
		}
		if err != nil {
			return 0, a.closedError(err)
		}
		if kept := a.take(bufs[:min(max(got, 0), n)]); kept > 0 {
			return kept, nil
		}
	}
}

// take fills the buffers that the device filled, and moves those without a
// packet, or with an impossible size, behind the first n, which it returns.
func (a *Adapter) take(bufs []packet.Buffer) (n int) {
	for i := range bufs {
		size := a.sizes[i]
		if size < 1 || size > len(a.in[i])-packet.Headroom {
			continue
		}
		b := &bufs[i]
		b.Off, b.Len, b.SegmentSize = packet.Headroom, size, 0
		if n != i {
			bufs[n], bufs[i] = bufs[i], bufs[n]
		}
		n++
	}
	return n
}

// closedError is os.ErrClosed when err means that the device is gone for good,
// else err.
func (a *Adapter) closedError(err error) error {
	if a.closed.Load() || errors.Is(err, os.ErrClosed) || errors.Is(err, io.EOF) || detached(a.dev.File()) {
		return os.ErrClosed
	}
	return err
}

// detached tells whether file is closed, or a TUN descriptor whose interface was
// deleted. Its reads fail in several ways (EBADFD, or the poller's "not
// pollable" and "use of closed file"), none of which passes.
func detached(file *os.File) bool {
	if file == nil {
		return false
	}
	conn, err := file.SyscallConn()
	if err != nil {
		return false
	}
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return false
	}
	var errno error
	err = conn.Control(func(fd uintptr) { errno = unix.IoctlIfreq(int(fd), unix.TUNGETIFF, ifr) })
	return err != nil || errors.Is(errno, unix.EBADFD)
}

// Why a buffer is not handed to the device.
var (
	ErrNoHeadroom  = errors.New("tun: a packet to be written needs 16 bytes in front of it")
	ErrSuperpacket = errors.New("tun: a wireguard device takes no superpacket")
	ErrEmpty       = errors.New("tun: empty packet")
)

// WriteBatch is Queue's WriteBatch. One bad buffer does not keep back the
// others. When the device refuses a part, written is the most that it can have
// taken: devices report bytes, and one failure may stand for several packets
// that were coalesced. A device that took nothing at all is told apart.
func (a *Adapter) WriteBatch(bufs []*packet.Buffer) (written int, err error) {
	a.writeMu.Lock()
	defer a.writeMu.Unlock()
	var errs error
	for len(bufs) > 0 {
		k, used := 0, 0
		for k < len(a.out) && used < len(bufs) {
			b := bufs[used]
			used++
			if err := writable(b); err != nil {
				errs = errors.Join(errs, err)
				continue
			}
			// The packet starts WriteHeadroom bytes into its slice. The
			// device may put a header there, and may append the segments
			// that it coalesces up to the capacity: so that ends with the
			// buffer's own slot, whatever Mem was cut from, and never
			// leaves room for more than an IP packet can hold. Wireguard's
			// device asks the capacity alone and would write a superpacket
			// whose length field has wrapped.
			start := b.Off - WriteHeadroom
			limit := min(len(b.Mem), b.Off+packet.MaxLen)
			a.out[k] = b.Mem[start : b.Off+b.Len : limit]
			k++
		}
		bufs = bufs[used:]
		if k == 0 {
			continue
		}
		n, err := a.dev.Write(a.out[:k], WriteHeadroom)
		if err == nil {
			written += k
			continue
		}
		if errors.Is(a.closedError(err), os.ErrClosed) {
			return written, os.ErrClosed
		}
		errs = errors.Join(errs, fmt.Errorf("write to the TUN device: %w", err))
		if n > 0 {
			written += max(0, k-failures(err))
		}
	}
	return written, errs
}

func writable(b *packet.Buffer) error {
	switch {
	case b.Len < 1:
		return ErrEmpty
	case b.Off < WriteHeadroom:
		return ErrNoHeadroom
	case b.SegmentSize > 0:
		return ErrSuperpacket
	}
	return nil
}

// failures is how many packets err tells of: the number of errors joined in it.
func failures(err error) int {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return 1
	}
	n := 0
	for _, e := range joined.Unwrap() {
		n += failures(e)
	}
	return n
}
