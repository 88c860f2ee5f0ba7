package tun

import (
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/packet"
)

// TestRootReadBatchTakesAllThatIsThere: one call returns what the kernel has
// queued, up to a batch.
func TestRootReadBatchTakesAllThatIsThere(t *testing.T) {
	for name, offload := range map[string]bool{"offload": true, "no offload": false} {
		t.Run(name, func(t *testing.T) {
			q := upQueues(t, 1, offload)[0]
			sendFlows(t, 1, 100)
			bufs, found := packet.NewBuffers(q.BatchSize()), 0
			n, err := q.ReadBatch(bufs)
			must(t, "ReadBatch", err)
			for i := range bufs[:n] { // the kernel may have sent a few of its own
				if bufs[i].Parse() == nil && bufs[i].Flow.DstPort == 4711 {
					found++
				}
			}
			if found != 100 {
				t.Errorf("the first ReadBatch has %d packets, %d of them sent by the test, want 100", n, found)
			}
		})
	}
}

// BenchmarkRootReadBatch reads batches of 100 queued datagrams of 64 bytes; the
// kernel's part of sending them is not counted.
func BenchmarkRootReadBatch(b *testing.B) {
	for name, offload := range map[string]bool{"offload": true, "no-offload": false} {
		b.Run(name, func(b *testing.B) {
			q := upQueues(b, 1, offload)[0]
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			must(b, "socket", err)
			defer unix.Close(fd)
			must(b, "connect", unix.Connect(fd, &unix.SockaddrInet4{Addr: peerAddr.As4(), Port: 4711}))
			bufs, payload, packets := packet.NewBuffers(q.BatchSize()), make([]byte, 64), 0
			for b.Loop() {
				b.StopTimer()
				for range 100 {
					_, err := unix.Write(fd, payload)
					must(b, "send", err)
				}
				b.StartTimer()
				n, err := q.ReadBatch(bufs)
				must(b, "ReadBatch", err)
				packets += n
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(packets), "ns/packet")
		})
	}
}

// BenchmarkRootWriteBatch writes 64 datagrams of 64 bytes of one flow, merged or
// one by one, and with them does what the kernel does before a write returns:
// bring them to a socket's queue, or out by another interface.
func BenchmarkRootWriteBatch(b *testing.B) {
	for _, to := range []string{"socket", "GRO-socket", "forward", "forward-USO"} {
		for name, single := range map[string]bool{"merged": false, "singly": true} {
			b.Run(to+"/"+name, func(b *testing.B) { benchmarkWrite(b, to, single) })
		}
	}
}

func benchmarkWrite(b *testing.B, to string, single bool) {
	q := upQueues(b, 1, true)[0].(*Vnet)
	q.noUDP.Store(single || q.noUDP.Load())
	dst := hostAddr
	var receive func() int
	switch to {
	case "forward", "forward-USO":
		dst, receive = forwarded(b, to == "forward-USO")
	default:
		receive = receiver(b, to == "GRO-socket")
	}
	list := stream(shape{udp: true, payload: 64}, 64)
	for _, p := range list {
		h := p.Bytes()
		copy(h[12:], peerAddr.AsSlice())
		copy(h[16:], dst.AsSlice())
		h[22], h[23] = 4711>>8, 4711&0xff
		fixUDP(h)
		fixIPv4(h)
	}
	list = inSlots(list)
	packets, received := 0, 0
	for b.Loop() {
		n, err := q.WriteBatch(list)
		must(b, "WriteBatch", err)
		packets += n
		b.StopTimer()
		q.plan.Undo()
		received += receive()
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(packets), "ns/packet")
	if received != packets || q.Fallbacks() != 0 {
		b.Errorf("%d packets were written, %d came, %d fallbacks", packets, received, q.Fallbacks())
	}
}

// receiver makes a socket at port 4711 of the host, and a function that empties
// it and returns the number of datagrams of 64 bytes.
func receiver(b *testing.B, gro bool) func() int {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	must(b, "socket", err)
	b.Cleanup(func() { unix.Close(fd) })
	must(b, "bind", unix.Bind(fd, &unix.SockaddrInet4{Addr: hostAddr.As4(), Port: 4711}))
	must(b, "SO_RCVBUFFORCE", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20))
	if gro {
		must(b, "UDP_GRO", unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1))
	}
	sink := make([]byte, packet.MaxLen)
	return func() (n int) {
		for {
			bytes, err := unix.Read(fd, sink)
			if errors.Is(err, unix.EAGAIN) {
				return n
			}
			must(b, "receive", err)
			n += bytes / 64
		}
	}
}

// forwarded makes the namespace a router to an address behind a second TUN
// device, which takes superpackets or not, and a function that empties it and
// returns the number of datagrams.
func forwarded(b *testing.B, offload bool) (netip.Addr, func() int) {
	dev, err := Create("lan0", 1500)
	must(b, "create lan0", err)
	queues, why := Queues(dev, offload)
	must(b, "Queues", why)
	b.Cleanup(func() { queues[0].Close() })
	lan, err := netlink.LinkByName("lan0")
	must(b, "find lan0", err)
	addr, _ := netlink.ParseAddr("10.10.0.1/24")
	must(b, "address", netlink.AddrAdd(lan, addr))
	must(b, "up", netlink.LinkSetUp(lan))
	must(b, "forward", os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644))
	bufs := packet.NewBuffers(queues[0].BatchSize())
	return netip.MustParseAddr("10.10.0.2"), func() (datagrams int) {
		for datagrams < 64 {
			n, err := queues[0].ReadBatch(bufs)
			must(b, "read lan0", err)
			for i := range bufs[:n] {
				if p := &bufs[i]; p.Parse() == nil && p.Flow.DstPort == 4711 {
					datagrams += p.Segments()
				}
			}
		}
		return datagrams
	}
}
