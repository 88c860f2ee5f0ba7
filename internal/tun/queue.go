package tun

import (
	wgtun "golang.zx2c4.com/wireguard/tun"

	"github.com/adit-ipsec/adit/internal/packet"
)

// Device is wireguard's portable TUN device, which embedders pass in.
type Device = wgtun.Device

// WriteHeadroom is how many bytes WriteBatch may overwrite in front of each
// packet: a virtio-net header goes there.
const WriteHeadroom = 16

// Queue is what a dataplane worker reads from and writes to. One goroutine may
// read while another writes.
type Queue interface {
	// ReadBatch blocks until at least one packet is there and fills Mem,
	// Off (packet.Headroom), Len and SegmentSize of the first n buffers.
	// After Close the error is os.ErrClosed; any other error is passing.
	ReadBatch(bufs []packet.Buffer) (int, error)
	// WriteBatch writes the packets; each needs WriteHeadroom bytes in
	// front of Off, and they and the bytes behind the packet, to the end
	// of Mem, are overwritten. It returns how many were taken; the error
	// tells of those that were not.
	WriteBatch(bufs []*packet.Buffer) (written int, err error)
	// BatchSize is the largest batch that moves in one call.
	BatchSize() int
	// Close ends the device and wakes the reader.
	Close() error
}
