package tun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/packet"
)

// newNamespace puts the test's own thread into a new network namespace. The
// thread is never unlocked, so it ends with the test.
func newNamespace(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: namespaces")
	}
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		t.Fatalf("new network namespace: %v", err)
	}
	t.Cleanup(func() { ns.Close() })
}

func must(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// up makes a TUN device with address 10.9.0.1/24 and sets it up.
func up(t *testing.T, flags uint16) (*Adapter, netlink.Link) {
	t.Helper()
	dev, err := create("adit0", 1400, 1, unix.IFF_VNET_HDR&flags)
	must(t, "create", err)
	return Adapt(dev), setUp(t)
}

// setUp gives adit0 its address and sets it up.
func setUp(t testing.TB) netlink.Link {
	t.Helper()
	link, err := netlink.LinkByName("adit0")
	must(t, "find the link", err)
	addr, _ := netlink.ParseAddr("10.9.0.1/24")
	must(t, "add address", netlink.AddrAdd(link, addr))
	must(t, "set up", netlink.LinkSetUp(link))
	return link
}

// read returns the next packets that want takes, or fails.
func read(t *testing.T, q Queue, want func(b *packet.Buffer) bool) *packet.Buffer {
	t.Helper()
	found := make(chan *packet.Buffer, 1)
	go func() {
		defer close(found)
		bufs := packet.NewBuffers(q.BatchSize())
		for {
			n, err := q.ReadBatch(bufs)
			if err != nil {
				return
			}
			for i := range bufs[:n] {
				if bufs[i].Parse() == nil && want(&bufs[i]) {
					found <- &bufs[i]
					return
				}
			}
		}
	}()
	select {
	case b, ok := <-found:
		if !ok {
			t.Fatal("the device was closed")
		}
		return b
	case <-time.After(patience):
		q.Close()
		t.Fatal("the packet did not come")
	}
	return nil
}

// echoRequest is an ICMP echo request from peer to the host.
func echoRequest(peer, host netip.Addr, id uint16, payload []byte) *packet.Buffer {
	p := make([]byte, 28, 28+len(payload))
	p = append(p, payload...)
	p[0], p[8], p[9] = 0x45, 64, packet.ProtoICMP
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:16], peer.AsSlice())
	copy(p[16:20], host.AsSlice())
	binary.BigEndian.PutUint16(p[10:], ^packet.Checksum(p[:20], 0))
	p[20] = 8
	binary.BigEndian.PutUint16(p[24:], id)
	binary.BigEndian.PutUint16(p[22:], ^packet.Checksum(p[20:], 0))
	return buffer(p...)
}

var hostAddr, peerAddr = netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.2")

func TestRootKernelAnswersAPing(t *testing.T) {
	for name, flags := range map[string]uint16{"with virtio-net headers": unix.IFF_VNET_HDR, "without": 0} {
		t.Run(name, func(t *testing.T) {
			newNamespace(t)
			q, _ := up(t, flags)
			defer q.Close()
			payload := bytes.Repeat([]byte("adit"), 300)
			var batch []*packet.Buffer
			for id := range uint16(3) {
				batch = append(batch, echoRequest(peerAddr, hostAddr, id, payload))
			}
			if n, err := q.WriteBatch(batch); n != len(batch) || err != nil {
				t.Fatalf("WriteBatch = %d, %v; want %d, nil", n, err, len(batch))
			}
			for id := range uint16(3) {
				got := read(t, q, func(b *packet.Buffer) bool { return b.Flow.Protocol == packet.ProtoICMP })
				if got.Flow.SrcAddr() != hostAddr || got.Flow.DstAddr() != peerAddr || got.Flow.SrcPort != 0 {
					t.Errorf("answer is %v, want an echo reply from %v to %v", got.Flow, hostAddr, peerAddr)
				}
				icmp := got.Bytes()[20:]
				if gotID := binary.BigEndian.Uint16(icmp[4:]); gotID != id || !bytes.Equal(icmp[8:], payload) {
					t.Errorf("answer %d has id %d and %d bytes, want the request's", id, gotID, len(icmp)-8)
				}
				if got.Off != packet.Headroom {
					t.Errorf("packet starts at %d, want %d", got.Off, packet.Headroom)
				}
			}
		})
	}
}

// TestRootKernelsPacketsAreRead has the kernel send UDP with checksums left to
// the device, and checks that they are complete.
func TestRootKernelsPacketsAreRead(t *testing.T) {
	newNamespace(t)
	q, _ := up(t, unix.IFF_VNET_HDR)
	defer q.Close()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, "socket", err)
	defer unix.Close(fd)
	payload := bytes.Repeat([]byte{0x5a}, 1001)
	must(t, "send", unix.Sendto(fd, payload, 0, &unix.SockaddrInet4{Addr: peerAddr.As4(), Port: 4711}))
	got := read(t, q, func(b *packet.Buffer) bool { return b.Flow.Protocol == packet.ProtoUDP })
	if got.Flow.DstPort != 4711 || got.Flow.SrcAddr() != hostAddr {
		t.Errorf("flow is %v, want from %v to port 4711", got.Flow, hostAddr)
	}
	if data := got.Bytes()[got.Header.PayloadOffset:]; !bytes.Equal(data, payload) {
		t.Errorf("payload has %d bytes, want %d of 5a", len(data), len(payload))
	}
	datagram := got.Bytes()[20:]
	if sum := packet.Checksum(datagram, packet.PseudoChecksum(&got.Flow, packet.ProtoUDP, len(datagram))); sum != 0xffff {
		t.Errorf("UDP checksum adds to %#x, want 0xffff", sum)
	}
}

// readToTheEnd reads until there is an error, and tells it.
func readToTheEnd(q Queue) chan error {
	done := make(chan error, 1)
	go func() {
		bufs := packet.NewBuffers(q.BatchSize())
		for {
			if _, err := q.ReadBatch(bufs); err != nil {
				done <- err
				return
			}
		}
	}()
	return done
}

func TestRootCloseLeavesNothing(t *testing.T) {
	newNamespace(t)
	before := openFiles(t)
	q, _ := up(t, unix.IFF_VNET_HDR)
	done := readToTheEnd(q)
	must(t, "close", q.Close())
	select {
	case err := <-done:
		if err != os.ErrClosed {
			t.Errorf("ReadBatch after Close: %v, want os.ErrClosed", err)
		}
	case <-time.After(patience):
		t.Fatal("the reader still waits after Close")
	}
	if _, err := q.WriteBatch([]*packet.Buffer{buffer(1)}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("WriteBatch after Close: %v, want os.ErrClosed", err)
	}
	waitGone(t, before)
}

// waitGone waits until adit0 is gone and no more than so many files are open.
func waitGone(t *testing.T, before int) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; runtime.Gosched() {
		_, err := netlink.LinkByName("adit0")
		_, gone := err.(netlink.LinkNotFoundError)
		if gone && openFiles(t) <= before {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after Close: link adit0: %v, open files %d; want it not found and at most %d", err, openFiles(t), before)
		}
	}
}

// TestRootDeviceTakenAway deletes the link under the reader.
func TestRootDeviceTakenAway(t *testing.T) {
	newNamespace(t)
	q, link := up(t, unix.IFF_VNET_HDR)
	defer q.Close()
	done := readToTheEnd(q)
	must(t, "delete link", netlink.LinkDel(link))
	select {
	case err := <-done:
		if err != os.ErrClosed {
			t.Errorf("ReadBatch: %v, want os.ErrClosed", err)
		}
	case <-time.After(patience):
		t.Fatal("the reader still waits for a device that is gone")
	}
}

// TestRootRefusedPacketDoesNotKeepBackOthers writes garbage between two pings.
func TestRootRefusedPacketDoesNotKeepBackOthers(t *testing.T) {
	newNamespace(t)
	q, _ := up(t, unix.IFF_VNET_HDR)
	defer q.Close()
	garbage := buffer(bytes.Repeat([]byte{0xf0}, 40)...)
	n, err := q.WriteBatch([]*packet.Buffer{echoRequest(peerAddr, hostAddr, 1, nil), garbage, echoRequest(peerAddr, hostAddr, 2, nil)})
	if n != 2 || !errors.Is(err, syscall.EINVAL) {
		t.Errorf("WriteBatch = %d, %v; want 2, EINVAL", n, err)
	}
	for id := range uint16(2) {
		got := read(t, q, func(b *packet.Buffer) bool { return b.Flow.Protocol == packet.ProtoICMP })
		if gotID := binary.BigEndian.Uint16(got.Bytes()[24:]); gotID != id+1 {
			t.Errorf("answer has id %d, want %d", gotID, id+1)
		}
	}
}

func TestRootCreateErrorsTellWhatToDo(t *testing.T) {
	newNamespace(t)
	q, _ := up(t, unix.IFF_VNET_HDR)
	defer q.Close()
	before := openFiles(t)
	for _, tt := range []struct {
		name string
		mtu  int
		want string
	}{
		{"adit0", 1400, "choose another"},
		{"a-name-of-16-byte", 1400, "1 to 15 bytes"},
		{"adit1", 67, "want 68 to 65535"},
		{"adit1", 65536, "want 68 to 65535"},
	} {
		if _, err := Create(tt.name, tt.mtu); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Create(%q, %d): %v; want an error with %q", tt.name, tt.mtu, err, tt.want)
		}
	}
	if after := openFiles(t); after > before {
		t.Errorf("failed calls left %d files open", after-before)
	}
	links, err := net.Interfaces()
	must(t, "list interfaces", err)
	for _, l := range links {
		if l.Name == "adit1" {
			t.Error("a failed Create left adit1 behind")
		}
	}
	dev, err := Create("adit1", 1400)
	must(t, "Create", err)
	second := Adapt(dev)
	must(t, "Close", second.Close())
}

func openFiles(t testing.TB) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	must(t, "list open files", err)
	return len(files)
}
