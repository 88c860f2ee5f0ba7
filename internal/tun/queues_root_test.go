package tun

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/packet"
)

// upQueues makes adit0 with address 10.9.0.1/24 and so many queues, and sets it
// up. The queues are closed when the test ends.
func upQueues(t testing.TB, n int, offload bool) []Queue {
	t.Helper()
	newNamespace(t)
	dev, err := CreateQueues("adit0", 1400, n)
	must(t, "create", err)
	setUp(t)
	if name, err := dev.Name(); name != "adit0" || err != nil {
		t.Errorf("Name = %q, %v; want adit0, nil", name, err)
	}
	if mtu, err := dev.MTU(); mtu != 1400 || err != nil {
		t.Errorf("MTU = %d, %v; want 1400, nil", mtu, err)
	}
	if dev.File() == nil {
		t.Error("File is nil")
	}
	queues, why := Queues(dev, offload)
	must(t, "Queues", why)
	if len(queues) != n {
		t.Fatalf("%d queues, want %d", len(queues), n)
	}
	t.Cleanup(func() {
		for _, q := range queues {
			if err := q.Close(); err != nil && err != os.ErrClosed {
				t.Errorf("Close: %v", err)
			}
		}
	})
	return queues
}

// sendFlows has the kernel send rounds of one numbered UDP datagram of each of
// n sockets to port 4711 of the peer.
func sendFlows(t testing.TB, n, rounds int) {
	t.Helper()
	fds := make([]int, n)
	for i := range fds {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		must(t, "socket", err)
		defer unix.Close(fd)
		must(t, "connect", unix.Connect(fd, &unix.SockaddrInet4{Addr: peerAddr.As4(), Port: 4711}))
		fds[i] = fd
	}
	for round := range rounds {
		for _, fd := range fds {
			_, err := unix.Write(fd, binary.BigEndian.AppendUint32(nil, uint32(round)))
			must(t, "send", err)
		}
	}
}

// seen is a packet that one of several queues handed over.
type seen struct {
	queue int
	port  uint16 // of the sender
	round uint32
}

// watch reads all queues until they close, and tells of the packets of sendFlows
// and of echo replies, whose id it takes for the round.
func watch(queues []Queue) <-chan seen {
	all := make(chan seen, 4096)
	for i, q := range queues {
		go func() {
			bufs := packet.NewBuffers(q.BatchSize())
			for {
				n, err := q.ReadBatch(bufs)
				if err != nil {
					return
				}
				for k := range bufs[:n] {
					b := &bufs[k]
					switch {
					case b.Parse() != nil:
					case b.Flow.Protocol == packet.ProtoUDP && b.Flow.DstPort == 4711:
						all <- seen{i, b.Flow.SrcPort, binary.BigEndian.Uint32(b.Bytes()[b.Header.PayloadOffset:])}
					case b.Flow.Protocol == packet.ProtoICMP:
						all <- seen{queue: i, round: uint32(binary.BigEndian.Uint16(b.Bytes()[24:]))}
					}
				}
			}
		}()
	}
	return all
}

// expectFlows takes the packets of sendFlows, each flow in order on one queue,
// and returns how many flows each queue had.
func expectFlows(t *testing.T, all <-chan seen, queues, n, rounds int) []int {
	t.Helper()
	next, home := map[uint16]uint32{}, map[uint16]int{}
	late := time.After(patience)
	for range n * rounds {
		select {
		case s := <-all:
			if s.round != next[s.port] {
				t.Errorf("port %d: packet %d came, want %d", s.port, s.round, next[s.port])
			}
			if at, known := home[s.port]; known && at != s.queue {
				t.Errorf("port %d: queues %d and %d", s.port, at, s.queue)
			}
			next[s.port], home[s.port] = s.round+1, s.queue
		case <-late:
			t.Fatalf("packets are missing: %d flows so far", len(next))
		}
	}
	if len(next) != n {
		t.Errorf("%d flows, want %d", len(next), n)
	}
	flows := make([]int, queues)
	for _, at := range home {
		flows[at]++
	}
	return flows
}

// TestRootQueuesShareTheFlows: 32 flows arrive whole over two queues, each in
// order; and over the one that is left when the other is closed.
func TestRootQueuesShareTheFlows(t *testing.T) {
	queues := upQueues(t, 2, true)
	all := watch(queues)
	sendFlows(t, 32, 20)
	// All on one of two queues: once in 2^31.
	if flows := expectFlows(t, all, 2, 32, 20); flows[0] == 0 || flows[1] == 0 {
		t.Errorf("flows of the queues: %v, want some on each", flows)
	}
	must(t, "close the second queue", queues[1].Close())
	sendFlows(t, 32, 20)
	if flows := expectFlows(t, all, 2, 32, 20); flows[1] != 0 {
		t.Errorf("flows of the queues after the second was closed: %v", flows)
	}
	if err := queues[1].Close(); err != os.ErrClosed {
		t.Errorf("second Close: %v, want os.ErrClosed", err)
	}
}

// TestRootQueuesWrite: the kernel answers what each queue writes, with and
// without offloads.
func TestRootQueuesWrite(t *testing.T) {
	for name, offload := range map[string]bool{"offload": true, "no offload": false} {
		t.Run(name, func(t *testing.T) {
			queues := upQueues(t, 2, offload)
			all := watch(queues)
			for i, q := range queues {
				want := Offloads{ReadTCP: offload, ReadUDP: offload, WriteTCP: offload, WriteUDP: offload}
				got := q.(*Vnet).Offloads()
				if offload {
					want.ReadUDP, want.WriteUDP = got.ReadUDP, got.ReadUDP // USO: Linux 6.2
				}
				if got != want {
					t.Errorf("queue %d: %+v, want %+v", i, got, want)
				}
				n, err := q.WriteBatch([]*packet.Buffer{echoRequest(peerAddr, hostAddr, uint16(i+1), nil), echoRequest(peerAddr, hostAddr, uint16(i+1), nil)})
				if n != 2 || err != nil {
					t.Fatalf("queue %d: WriteBatch = %d, %v; want 2, nil", i, n, err)
				}
			}
			// The answers come on the queue that the kernel chooses.
			late := time.After(patience)
			for answers := map[uint32]int{}; answers[1] < 2 || answers[2] < 2; {
				select {
				case s := <-all:
					answers[s.round]++
				case <-late:
					t.Fatalf("answers by id: %v, want two of 1 and of 2", answers)
				}
			}
		})
	}
}

// TestRootQueuesCloseLeavesNothing: closing the first queue wakes the readers of
// all, the link and the files are gone, and other devices can take the name.
func TestRootQueuesCloseLeavesNothing(t *testing.T) {
	newNamespace(t)
	before := openFiles(t)
	for _, n := range []int{2, 3, 1, 2} {
		dev, err := CreateQueues("adit0", 1400, n)
		must(t, "create", err)
		queues, why := Queues(dev, true)
		must(t, "Queues", why)
		var readers []chan error
		for _, q := range queues {
			readers = append(readers, readToTheEnd(q))
		}
		must(t, "Close", queues[0].Close())
		for i, done := range readers {
			select {
			case err := <-done:
				if err != os.ErrClosed {
					t.Errorf("queue %d of %d: ReadBatch: %v, want os.ErrClosed", i, n, err)
				}
			case <-time.After(patience):
				t.Fatalf("the reader of queue %d of %d still waits", i, n)
			}
		}
		for i, q := range queues[1:] {
			if _, err := q.WriteBatch([]*packet.Buffer{echoRequest(peerAddr, hostAddr, 1, nil)}); err != os.ErrClosed {
				t.Errorf("queue %d: WriteBatch after Close: %v, want os.ErrClosed", i+1, err)
			}
			if err := q.Close(); err != nil {
				t.Errorf("queue %d: first Close: %v, want nil", i+1, err)
			}
		}
		for i, q := range queues {
			if err := q.Close(); err != os.ErrClosed {
				t.Errorf("queue %d: second Close: %v, want os.ErrClosed", i, err)
			}
		}
		waitGone(t, before)
	}
}

// TestRootQueuesWithoutOffloadReadPackets: a UDP superpacket of the kernel's
// comes as its packets, with whole checksums, in one batch.
func TestRootQueuesWithoutOffloadReadPackets(t *testing.T) {
	for _, n := range []int{1, 2} {
		queues := upQueues(t, n, false)
		got := make(chan *packet.Buffer, 64)
		for _, q := range queues {
			go func() {
				for {
					bufs := packet.NewBuffers(q.BatchSize())
					n, err := q.ReadBatch(bufs)
					if err != nil {
						return
					}
					for i := range bufs[:n] {
						if bufs[i].Parse() == nil && bufs[i].Flow.DstPort == 4711 {
							got <- &bufs[i]
						}
					}
				}
			}()
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		must(t, "socket", err)
		must(t, "UDP_SEGMENT", unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT, 1000))
		must(t, "send", unix.Sendto(fd, make([]byte, 9500), 0, &unix.SockaddrInet4{Addr: peerAddr.As4(), Port: 4711}))
		unix.Close(fd)
		late := time.After(patience)
		for i := range 10 {
			select {
			case b := <-got:
				want := 1000
				if i == 9 {
					want = 500
				}
				d := b.Bytes()[20:]
				if b.SegmentSize != 0 || len(d) != 8+want || packet.Checksum(d, packet.PseudoChecksum(&b.Flow, packet.ProtoUDP, len(d))) != 0xffff {
					t.Errorf("packet %d: segment size %d, %d bytes, want 0 and %d with a right checksum", i, b.SegmentSize, len(d), 8+want)
				}
			case <-late:
				t.Fatalf("%d packets came, want 10", i)
			}
		}
		must(t, "Close", queues[0].Close())
	}
}

// TestRootQueuesWithoutHeaders: no virtio-net headers, so one Adapter, which has
// every flow, and a reason where something was lost.
func TestRootQueuesWithoutHeaders(t *testing.T) {
	for _, tt := range []struct {
		queues  int
		offload bool
		why     string
	}{
		{1, false, ""},
		{1, true, "without virtio-net headers"},
		{2, false, "one queue in place of 2"},
		{2, true, "one queue in place of 2"},
	} {
		newNamespace(t)
		dev, err := create("adit0", 1400, tt.queues, 0)
		must(t, "create", err)
		setUp(t)
		queues, why := Queues(dev, tt.offload)
		if len(queues) != 1 || (why == nil) != (tt.why == "") || why != nil && (!errors.Is(why, ErrNoOffload) || !strings.Contains(why.Error(), tt.why)) {
			t.Errorf("Queues of %d, offload %v: %d queues, %v; want one, %q", tt.queues, tt.offload, len(queues), why, tt.why)
		}
		if _, ok := queues[0].(*Adapter); !ok {
			t.Errorf("the queue is a %T, want an Adapter", queues[0])
		}
		all := watch(queues)
		sendFlows(t, 8, 5)
		expectFlows(t, all, 1, 8, 5)
		must(t, "Close", queues[0].Close())
	}
}

// TestRootQueuesAreNotSharedWithAnotherGateway: a second CreateQueues of the
// name would steal half of the flows.
func TestRootQueuesAreNotSharedWithAnotherGateway(t *testing.T) {
	upQueues(t, 2, true)
	before := openFiles(t)
	for _, n := range []int{1, 2} {
		if _, err := CreateQueues("adit0", 1400, n); err == nil {
			t.Errorf("CreateQueues of %d took a name that is in use", n)
		} else if n == 2 && !strings.Contains(err.Error(), "another process has it open") {
			t.Errorf("CreateQueues: %v; want what to do", err)
		}
	}
	for _, n := range []int{0, -1, MaxQueues + 1} {
		if _, err := CreateQueues("adit1", 1400, n); err == nil || !strings.Contains(err.Error(), "want 1 to 256") {
			t.Errorf("CreateQueues of %d: %v; want the limits", n, err)
		}
	}
	if after := openFiles(t); after > before {
		t.Errorf("failed calls left %d files open", after-before)
	}
}

// TestQueuesOfAnotherDevice: an embedder's device has one Adapter, which is no
// loss where no offload was asked for.
func TestQueuesOfAnotherDevice(t *testing.T) {
	for _, offload := range []bool{false, true} {
		dev, _ := NewMemory("mem0", 1400)
		queues, why := Queues(dev, offload)
		if len(queues) != 1 || errors.Is(why, ErrNoOffload) != offload {
			t.Errorf("Queues(memory, %v) = %d queues, %v", offload, len(queues), why)
		}
		must(t, "Close", queues[0].Close())
	}
}

// TestRootOffloadRefusesSeveralQueues: it would leave flows unread.
func TestRootOffloadRefusesSeveralQueues(t *testing.T) {
	newNamespace(t)
	dev, err := CreateQueues("adit0", 1400, 2)
	must(t, "create", err)
	if _, err := Offload(dev); !errors.Is(err, ErrNoOffload) || !strings.Contains(err.Error(), "use Queues") {
		t.Errorf("Offload: %v, want ErrNoOffload: use Queues", err)
	}
	must(t, "Close", Adapt(dev).Close())
	if _, err := netlink.LinkByName("adit0"); err == nil {
		t.Error("the link is still there")
	}
}
