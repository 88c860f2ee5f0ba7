package tun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/packet"
)

// wire is a Vnet over a socket pair in place of a TUN descriptor: each message
// is what one read or write of the device moves.
func wire(t *testing.T) (*Vnet, int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	must(t, "socket pair", err)
	q, err := newVnet(os.NewFile(uintptr(pair[0]), "wire"))
	must(t, "newVnet", err)
	t.Cleanup(func() {
		q.Close()
		unix.Close(pair[1])
	})
	return q, pair[1]
}

// vnet is a virtio-net header.
func vnet(flags, gso byte, hdrLen, size, start, offset int) []byte {
	b := []byte{flags, gso}
	for _, v := range []int{hdrLen, size, start, offset} {
		b = binary.NativeEndian.AppendUint16(b, uint16(v))
	}
	return b
}

func TestVnetReads(t *testing.T) {
	whole := func(s shape) []byte { s.partial = false; return s.make() }
	tcp, udp := shape{payload: 3000, partial: true, flags: flagACK, options: 12}, shape{udp: true, payload: 3000, partial: true, v6: true}
	zero := shape{udp: true, payload: 2, partial: true} // payload chosen below so that the sum is zero
	zeroed := zero.make()
	sum := ^packet.Checksum(zeroed[20:], 0)
	binary.BigEndian.PutUint16(zeroed[28:], binary.BigEndian.Uint16(zeroed[28:])+sum)
	allOnes := bytes.Clone(zeroed)
	allOnes[26], allOnes[27] = 0xff, 0xff
	garbage := bytes.Repeat([]byte{0xf0}, 40)
	short := tcp.make()
	short[3]-- // total length: one byte of padding behind the packet
	for _, tt := range []struct {
		name string
		vnet []byte
		p    []byte
		want []byte // nil: malformed
		size int
	}{
		{"whole packet", vnet(0, 0, 0, 0, 0, 0), whole(tcp), whole(tcp), 0},
		{"TCP checksum to be completed", vnet(1, 0, 0, 0, 20, 16), tcp.make(), whole(tcp), 0},
		{"UDP checksum to be completed", vnet(1, 0, 0, 0, 40, 6), udp.make(), whole(udp), 0},
		{"UDP checksum that is zero", vnet(1, 0, 0, 0, 20, 6), zeroed, allOnes, 0},
		{"TCP superpacket", vnet(1, 1, 52, 1400, 20, 16), tcp.make(), tcp.make(), 1400},
		{"TCP superpacket with CWR", vnet(1, 1|0x80, 52, 1400, 20, 16), tcp.make(), tcp.make(), 1400},
		{"header length that lies", vnet(1, 1, 9999, 1400, 20, 16), tcp.make(), tcp.make(), 1400},
		{"UDP superpacket", vnet(1, 5, 48, 1000, 40, 6), udp.make(), udp.make(), 1000},
		{"superpacket of one segment", vnet(1, 5, 48, 3000, 40, 6), udp.make(), whole(udp), 0},
		{"superpacket of one segment, checksum whole", vnet(0, 5, 48, 3000, 40, 6), whole(udp), whole(udp), 0},
		{"superpacket with padding", vnet(1, 1, 52, 1400, 20, 16), short, short[:len(short)-1], 1400},
		{"superpacket that is no IP packet", vnet(0, 1, 52, 10, 20, 16), garbage, garbage, 0},
		{"checksum field outside", vnet(1, 0, 0, 0, 3036, 16), tcp.make(), nil, 0},
		{"checksum start outside", vnet(1, 0, 0, 0, 65535, 65535), tcp.make(), nil, 0},
		{"segment size 0", vnet(1, 1, 52, 0, 20, 16), tcp.make(), nil, 0},
		{"UFO", vnet(1, 3, 48, 1000, 20, 16), tcp.make(), nil, 0},
		{"unknown type", vnet(1, 7, 48, 1000, 20, 16), tcp.make(), nil, 0},
		{"no packet", vnet(0, 0, 0, 0, 0, 0), nil, nil, 0},
		{"half a header", vnet(0, 0, 0, 0, 0, 0)[:7], nil, nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q, far := wire(t)
			must(t, "send", unix.Send(far, append(tt.vnet, tt.p...), 0))
			sentinel := append(make([]byte, vnetLen), whole(shape{payload: 1})...)
			must(t, "send", unix.Send(far, sentinel, 0))
			bufs := packet.NewBuffers(3)
			for i := range bufs {
				bufs[i].SegmentSize = 77
			}
			n, err := q.ReadBatch(bufs)
			want := [][]byte{tt.want, sentinel[vnetLen:]}
			malformed := uint64(0)
			if tt.want == nil {
				want, malformed = want[1:], 1
			}
			if n != len(want) || err != nil || q.Malformed() != malformed {
				t.Fatalf("ReadBatch = %d, %v, %d malformed; want %d, nil, %d", n, err, q.Malformed(), len(want), malformed)
			}
			for i, w := range want {
				if b := &bufs[i]; !bytes.Equal(b.Bytes(), w) || b.Off != packet.Headroom {
					t.Errorf("buffer %d at %d is %x, want %x at %d", i, b.Off, b.Bytes(), w, packet.Headroom)
				}
			}
			if got := bufs[0].SegmentSize; tt.want != nil && got != tt.size {
				t.Errorf("segment size %d, want %d", got, tt.size)
			}
		})
	}
}

// TestVnetReadsNoMoreThanTheCacheHolds: a batch ends behind 64 KiB.
func TestVnetReadsNoMoreThanTheCacheHolds(t *testing.T) {
	q, far := wire(t)
	big := append(make([]byte, vnetLen), shape{payload: 40000}.make()...)
	for range 3 {
		must(t, "send", unix.Send(far, big, 0))
	}
	bufs := packet.NewBuffers(8)
	for _, want := range []int{2, 1} {
		if n, err := q.ReadBatch(bufs); n != want || err != nil {
			t.Fatalf("ReadBatch = %d, %v; want %d, nil", n, err, want)
		}
	}
	if n, err := q.ReadBatch(nil); n != 0 || err != nil {
		t.Errorf("ReadBatch of nothing = %d, %v; want 0, nil", n, err)
	}
	bufs[0].Mem = bufs[0].Mem[:packet.Headroom+packet.Tailroom]
	must(t, "send", unix.Send(far, big, 0))
	if _, err := q.ReadBatch(bufs); !errors.Is(err, errSlot) {
		t.Errorf("ReadBatch into a slot without room: %v, want %v", err, errSlot)
	}
}

func TestVnetCloseWakesTheReader(t *testing.T) {
	q, _ := wire(t)
	done := readToTheEnd(q)
	must(t, "Close", q.Close())
	select {
	case err := <-done:
		if err != os.ErrClosed {
			t.Errorf("ReadBatch: %v, want os.ErrClosed", err)
		}
	case <-time.After(patience):
		t.Fatal("the reader still waits after Close")
	}
	if _, err := q.WriteBatch([]*packet.Buffer{buffer(1)}); err != os.ErrClosed {
		t.Errorf("WriteBatch after Close: %v, want os.ErrClosed", err)
	}
	if err := q.Close(); err != os.ErrClosed {
		t.Errorf("second Close: %v, want os.ErrClosed", err)
	}
	q, far := wire(t)
	must(t, "shut down", unix.Shutdown(far, unix.SHUT_RDWR))
	if _, err := q.ReadBatch(packet.NewBuffers(1)); err != os.ErrClosed {
		t.Errorf("ReadBatch at the end of the file: %v, want os.ErrClosed", err)
	}
}

// TestVnetWrites: one message per group, bad buffers left out and told of.
func TestVnetWrites(t *testing.T) {
	q, far := wire(t)
	list := stream(shape{flags: flagACK, payload: 1400}, 10)
	var want []byte
	for _, b := range list {
		want = append(want, b.Bytes()[40:]...)
	}
	super := buffer(1)
	super.SegmentSize = 10
	list = append(list, super, buffer(shape{udp: true, payload: 10}.make()...))
	n, err := q.WriteBatch(list)
	if n != 11 || err != ErrSuperpacket {
		t.Errorf("WriteBatch = %d, %v; want 11, %v", n, err, ErrSuperpacket)
	}
	got := make([]byte, 70000)
	size, err := unix.Read(far, got)
	must(t, "read the first message", err)
	if p := got[:size]; !bytes.Equal(p[:vnetLen], vnet(1, 1, 40, 1400, 20, 16)) || !bytes.Equal(p[vnetLen+40:], want) {
		t.Errorf("first message: %d bytes, header %x; want %d, %x", size, p[:vnetLen], vnetLen+40+len(want), vnet(1, 1, 40, 1400, 20, 16))
	}
	size, err = unix.Read(far, got)
	must(t, "read the second message", err)
	if size != vnetLen+38 || !bytes.Equal(got[:vnetLen], make([]byte, vnetLen)) {
		t.Errorf("second message: %d bytes, header %x; want %d, zeros", size, got[:vnetLen], vnetLen+38)
	}
}

// TestVnetFallsBack: a kernel that refuses superpackets of a protocol is given
// its packets one by one, unchanged, and from then on only so.
func TestVnetFallsBack(t *testing.T) {
	for _, udp := range []bool{false, true} {
		t.Run(fmt.Sprint("udp ", udp), func(t *testing.T) {
			q, _ := wire(t)
			var tried []int
			var wrote [][]byte
			q.write = func(_ uintptr, iovs []unix.Iovec) (int, error) {
				tried = append(tried, len(iovs))
				if len(iovs) > 1 {
					return 0, unix.EINVAL
				}
				wrote = append(wrote, bytes.Clone(bytesOf(iovs[0])))
				return 0, nil
			}
			list := stream(shape{udp: udp, flags: flagACK, payload: 100}, 3)
			var want []string
			for _, b := range list {
				want = append(want, string(append(make([]byte, vnetLen), b.Bytes()...)))
			}
			for round, tries := range []string{"[3 1 1 1]", "[1 1 1]"} {
				tried, wrote = nil, nil
				if n, err := q.WriteBatch(list); n != 3 || err != nil || fmt.Sprint(tried) != tries {
					t.Errorf("round %d: WriteBatch = %d, %v by writes of %v pieces; want 3, nil, %s", round, n, err, tried, tries)
				}
				for i, w := range want {
					if string(wrote[i]) != w {
						t.Errorf("round %d: packet %d is %x, want %x", round, i, wrote[i], w)
					}
				}
			}
			if got, want := q.Offloads(), (Offloads{WriteTCP: udp, WriteUDP: !udp}); got != want || q.Fallbacks() != 1 {
				t.Errorf("%+v after %d fallbacks, want %+v after 1", got, q.Fallbacks(), want)
			}
		})
	}
}

// TestVnetWriteErrors: an error that is not about merging costs the group.
func TestVnetWriteErrors(t *testing.T) {
	q, _ := wire(t)
	q.write = func(_ uintptr, iovs []unix.Iovec) (int, error) {
		if len(iovs) > 1 {
			return 0, unix.EIO
		}
		return 0, nil
	}
	list := append(stream(shape{flags: flagACK, payload: 100}, 3), buffer(shape{udp: true}.make()...))
	n, err := q.WriteBatch(list)
	if n != 1 || !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), "TUN") || q.Fallbacks() != 0 {
		t.Errorf("WriteBatch = %d, %v, %d fallbacks; want 1, EIO, 0", n, err, q.Fallbacks())
	}
}

func TestVnetWritesBatchesBeyondItsSize(t *testing.T) {
	q, _ := wire(t)
	writes := 0
	q.write = func(uintptr, []unix.Iovec) (int, error) { writes++; return 0, nil }
	if n, err := q.WriteBatch(stream(shape{udp: true, payload: 10}, 300)); n != 300 || err != nil || writes != 5 {
		t.Errorf("WriteBatch = %d, %v in %d writes; want 300, nil, 5", n, err, writes)
	}
}

func TestVnetAllocatesNothing(t *testing.T) {
	q, far := wire(t)
	bufs, list := packet.NewBuffers(4), stream(shape{flags: flagACK, payload: 1400}, 40)
	message := append(vnet(1, 1, 40, 1400, 20, 16), super(shape{flags: flagACK, payload: 30000}, 0).Bytes()...)
	sink := make([]byte, 70000)
	var failed error
	allocs := testing.AllocsPerRun(50, func() {
		failed = errors.Join(failed, unix.Send(far, message, 0))
		if n, err := q.ReadBatch(bufs); n != 1 || err != nil {
			failed = fmt.Errorf("ReadBatch = %d, %w", n, err)
		}
		if n, err := q.WriteBatch(list); n != 40 || err != nil {
			failed = fmt.Errorf("WriteBatch = %d, %w", n, err)
		}
		q.plan.Undo() // the list is written again
		for {
			if _, err := unix.Read(far, sink); err != nil {
				break
			}
		}
	})
	if failed != nil || allocs != 0 {
		t.Errorf("%v; %v allocations for a read and a write, want 0", failed, allocs)
	}
}

// TestOffloadRefusesOtherDevices: an embedder's device is for Adapt.
func TestOffloadRefusesOtherDevices(t *testing.T) {
	dev, _ := NewMemory("mem0", 1400)
	defer dev.Close()
	if _, err := Offload(dev); !errors.Is(err, ErrNoOffload) {
		t.Errorf("Offload(memory) = %v, want ErrNoOffload", err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	must(t, "socket pair", err)
	defer unix.Close(pair[1])
	file := os.NewFile(uintptr(pair[0]), "no TUN")
	defer file.Close()
	if _, err := NewVnet(file); !errors.Is(err, ErrNoOffload) || !strings.Contains(err.Error(), "TUN descriptor") {
		t.Errorf("NewVnet(socket) = %v, want ErrNoOffload: not a TUN descriptor", err)
	}
}
