package tun

import (
	"context"
	"crypto/sha256"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/internal/packet"
)

func bytesOf(v unix.Iovec) []byte { return unsafe.Slice(v.Base, v.Len) }

// bridge is two machines whose TUN devices are each other's wire: what one's
// kernel hands over is cut, merged again and given to the other's.
type bridge struct {
	from, to *netlab.Node
	queues   [2]*Vnet
	supers   atomic.Uint64 // superpackets read
	segments atomic.Uint64 // what they became
	merged   atomic.Uint64 // writes of several packets
	failed   atomic.Pointer[error]
	running  sync.WaitGroup
}

var (
	from4, to4 = netip.MustParseAddr("10.7.0.1"), netip.MustParseAddr("10.7.0.2")
	from6, to6 = netip.MustParseAddr("fd07::1"), netip.MustParseAddr("fd07::2")
)

func newBridge(t *testing.T) *bridge {
	t.Helper()
	lab, err := netlab.New("vnet")
	if errors.Is(err, netlab.ErrRoot) {
		t.Skip("needs root: namespaces")
	}
	must(t, "lab", err)
	t.Cleanup(func() { lab.Close() })
	b := &bridge{}
	for i, addrs := range [][2]netip.Addr{{from4, from6}, {to4, to6}} {
		node, err := lab.Node(addrs[0].String())
		must(t, "node", err)
		var dev Device
		must(t, "create", node.Do(func() (err error) { dev, err = Create("adit0", 1400); return err }))
		must(t, "up", node.Up("adit0")) // first: AddAddr waits until packets to the address are taken
		must(t, "address", node.AddAddr("adit0", netip.PrefixFrom(addrs[0], 24)))
		must(t, "address", node.AddAddr("adit0", netip.PrefixFrom(addrs[1], 64)))
		b.queues[i], err = Offload(dev)
		must(t, "Offload", err)
		if i == 0 {
			b.from = node
		} else {
			b.to = node
		}
		b.queues[i].write = func(fd uintptr, iovs []unix.Iovec) (int, error) {
			if len(iovs) > 1 {
				b.merged.Add(1)
			}
			return writev(fd, iovs)
		}
	}
	for i := range b.queues {
		b.running.Go(func() { b.carry(b.queues[i], b.queues[1-i]) })
	}
	t.Cleanup(func() {
		b.queues[0].Close()
		b.queues[1].Close()
		b.running.Wait()
	})
	return b
}

func (b *bridge) fail(err error) { b.failed.CompareAndSwap(nil, &err) }

// carry is what the dataplane does, with a copy in place of the seal, the wire
// and the opening.
func (b *bridge) carry(from, to *Vnet) {
	in, slots := packet.NewBuffers(from.BatchSize()), packet.NewBuffers(512)
	out := make([]*packet.Buffer, 0, len(slots))
	put := func(p []byte) {
		slot := &slots[len(out)]
		slot.Set(p)
		out = append(out, slot)
	}
	for {
		n, err := from.ReadBatch(in)
		if err != nil {
			if err != os.ErrClosed {
				b.fail(err)
			}
			return
		}
		out = out[:0]
		for i := range in[:n] {
			p := &in[i]
			if p.SegmentSize == 0 {
				put(p.Bytes())
				continue
			}
			b.supers.Add(1)
			var s Segmenter
			if err := s.Init(p, 34); err != nil {
				b.fail(err)
				continue
			}
			b.segments.Add(uint64(s.Segments()))
			for seg, ok := s.Next(); ok; seg, ok = s.Next() {
				put(seg)
				clear(seg[len(seg):cap(seg)])
			}
		}
		if _, err := to.WriteBatch(out); err != nil && err != os.ErrClosed {
			b.fail(err)
		}
	}
}

// check holds that superpackets went both ways through the bridge.
func (b *bridge) check(t *testing.T) {
	t.Helper()
	if err := b.failed.Load(); err != nil {
		t.Errorf("the bridge: %v", *err)
	}
	supers, segments, merged := b.supers.Load(), b.segments.Load(), b.merged.Load()
	t.Logf("%d superpackets read, cut into %d packets, %d superpackets written", supers, segments, merged)
	if supers == 0 || segments < 2*supers || merged == 0 {
		t.Errorf("%d superpackets, %d segments, %d merged writes: want all of them, and two segments each", supers, segments, merged)
	}
	for _, q := range b.queues {
		if q.Malformed() != 0 || q.Fallbacks() != 0 {
			t.Errorf("%d malformed reads, %d fallbacks, want none", q.Malformed(), q.Fallbacks())
		}
	}
}

func TestRootVnetCarriesTCP(t *testing.T) {
	for name, to := range map[string]netip.Addr{"IPv4": to4, "IPv6": to6} {
		t.Run(name, func(t *testing.T) {
			b := newBridge(t)
			ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
			defer cancel()
			r, err := netlab.TCPTransfer(ctx, b.from, b.to, netlab.TransferOptions{To: netip.AddrPortFrom(to, 0), Bytes: 64 << 20})
			must(t, "transfer", err)
			if !r.Intact() {
				t.Errorf("sent %x, received %x (%d bytes)", r.SentSHA256, r.ReceivedSHA256, r.Bytes)
			}
			b.check(t)
		})
	}
}

// TestRootVnetCarriesUDPSegments sends with UDP_SEGMENT: USO hands the
// superpacket over whole, and the receiver has every datagram as it was sent.
func TestRootVnetCarriesUDPSegments(t *testing.T) {
	for name, to := range map[string]netip.Addr{"IPv4": to4, "IPv6": to6} {
		t.Run(name, func(t *testing.T) {
			b := newBridge(t)
			if !b.queues[0].Offloads().ReadUDP {
				t.Skip("this kernel has no USO on TUN devices (Linux 6.2)")
			}
			receiver, err := b.to.ListenPacket(netip.AddrPortFrom(to, 0))
			must(t, "listen", err)
			defer receiver.Close()
			must(t, "deadline", receiver.SetReadDeadline(time.Now().Add(patience)))
			dialled, err := b.from.Dial(t.Context(), "udp", receiver.LocalAddr().(*net.UDPAddr).AddrPort())
			must(t, "dial", err)
			sender := dialled.(*net.UDPConn)
			defer sender.Close()
			raw, err := sender.SyscallConn()
			must(t, "raw", err)
			must(t, "control", raw.Control(func(fd uintptr) {
				must(t, "UDP_SEGMENT", unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, 1000))
			}))
			message := make([]byte, 40*1000+123)
			received := make([]byte, 2000)
			for round := range 50 {
				for i := range message {
					message[i] = byte(i*7 + round)
				}
				_, err := sender.Write(message)
				must(t, "send", err)
				sum, total := sha256.New(), 0
				for total < len(message) {
					n, err := receiver.Read(received)
					must(t, "receive", err)
					if want := min(1000, len(message)-total); n != want {
						t.Fatalf("round %d: a datagram of %d bytes, want %d", round, n, want)
					}
					sum.Write(received[:n])
					total += n
				}
				if want := sha256.Sum256(message); [32]byte(sum.Sum(nil)) != want {
					t.Fatalf("round %d: SHA-256 is %x, want %x", round, sum.Sum(nil), want)
				}
			}
			b.check(t)
		})
	}
}

// TestRootVnetRefusesADeviceWithoutHeaders: the device is left to Adapt.
func TestRootVnetRefusesADeviceWithoutHeaders(t *testing.T) {
	newNamespace(t)
	dev, err := create("adit0", 1400, 1, 0)
	must(t, "create", err)
	if _, err := Offload(dev); !errors.Is(err, ErrNoOffload) {
		t.Errorf("Offload = %v, want ErrNoOffload", err)
	}
	must(t, "Close", Adapt(dev).Close())
}

// TestRootVnetCloseLeavesNothing: Close wakes the reader, and another device
// takes the name.
func TestRootVnetCloseLeavesNothing(t *testing.T) {
	newNamespace(t)
	for range 2 {
		dev, err := Create("adit0", 1400)
		must(t, "create", err)
		q, err := Offload(dev)
		must(t, "Offload", err)
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
	}
}

// TestRootQueuesOfABlockingDescriptor: a read that blocks is not for readNow,
// so Queues gives the device to Adapt, whose reads the scheduler knows of.
func TestRootQueuesOfABlockingDescriptor(t *testing.T) {
	newNamespace(t)
	dev, err := Create("adit0", 1400)
	must(t, "create", err)
	conn, err := dev.File().SyscallConn()
	must(t, "SyscallConn", err)
	must(t, "control", conn.Control(func(fd uintptr) { err = unix.SetNonblock(int(fd), false) }))
	must(t, "let reads block", err)
	queues, why := Queues(dev, true)
	defer func() { must(t, "close", queues[0].Close()) }()
	if _, ok := queues[0].(*Adapter); !ok || !errors.Is(why, ErrNoOffload) {
		t.Errorf("Queues: a %T, %v; want an Adapter, ErrNoOffload", queues[0], why)
	}
}
