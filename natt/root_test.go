package natt

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/packet"
)

// newNamespace puts the test's own thread into a new network namespace. The
// thread is never unlocked, so it ends with the test, and the namespace with
// the last socket in it.
func newNamespace(t *testing.T) {
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
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatalf("set lo up: %v", err)
	}
}

var unresolved = netip.MustParseAddr("192.0.2.9")

// newNeighbourless makes a link on which nobody answers ARP, so that datagrams
// to unresolved wait in the kernel and fill the sender's buffer.
func newNeighbourless(t *testing.T) netlink.Link {
	t.Helper()
	newNamespace(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "left"
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "right"}); err != nil {
		t.Fatalf("add veth: %v", err)
	}
	var left netlink.Link
	for _, name := range []string{"right", "left"} {
		link, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		if err != nil {
			t.Fatalf("set %s up: %v", name, err)
		}
		left = link
	}
	addr, _ := netlink.ParseAddr("192.0.2.1/24")
	if err := netlink.AddrAdd(left, addr); err != nil {
		t.Fatalf("add address: %v", err)
	}
	return left
}

// startWriting writes more than the socket's buffer holds and returns once the
// writer waits for room, or fails.
func startWriting(t *testing.T, c *Conn, total int) chan error {
	t.Helper()
	batch := packet.NewDatagrams(total)
	for i := range batch {
		batch[i].Addr, batch[i].Len = netip.AddrPortFrom(unresolved, 4500), 1000
	}
	done := make(chan error, 1)
	go func() {
		n, err := c.WriteBatch(batch)
		if err == nil && n != total {
			err = errors.New("short write without an error")
		}
		done <- err
	}()
	for deadline := time.Now().Add(patience); !full(t, c); {
		if time.Now().After(deadline) {
			t.Fatal("the send buffer never filled")
		}
		runtime.Gosched()
	}
	return done
}

// full tells whether poll says that the socket takes nothing more.
func full(t *testing.T, c *Conn) bool {
	t.Helper()
	queued, err := c.socket.Option(unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err != nil {
		t.Fatal(err)
	}
	used, err := c.socket.Queued()
	if err != nil {
		t.Fatal(err)
	}
	return used > queued/2
}

func TestRootFullSendBufferIsWaitedFor(t *testing.T) {
	left := newNeighbourless(t)
	c := listen(t, Config{SendBuffer: 8192})
	done := startWriting(t, c, 64)
	select {
	case err := <-done:
		t.Fatalf("WriteBatch returned with a full buffer: %v", err)
	default:
	}
	// Now somebody is there: the kernel sends what waits.
	neigh := &netlink.Neigh{LinkIndex: left.Attrs().Index, IP: unresolved.AsSlice(), State: netlink.NUD_PERMANENT,
		HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9}}
	if err := netlink.NeighSet(neigh); err != nil {
		t.Fatalf("set neighbour: %v", err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("WriteBatch: %v, want all sent", err)
		}
	case <-time.After(patience):
		t.Error("WriteBatch still waits though the buffer is empty")
	}
}

func TestRootCloseWakesWriter(t *testing.T) {
	newNeighbourless(t)
	c := listen(t, Config{SendBuffer: 8192})
	done := startWriting(t, c, 64)
	c.Close()
	select {
	case err := <-done:
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("WriteBatch after Close: %v, want net.ErrClosed", err)
		}
	case <-time.After(patience):
		t.Error("a writer still waits after Close")
	}
}

// TestRootDFDecidesOverTheMTU sends what is longer than the link: with DF it
// fails, and others of the batch do not; without DF it is fragmented.
func TestRootDFDecidesOverTheMTU(t *testing.T) {
	for _, tt := range families {
		t.Run(tt.name, func(t *testing.T) {
			newNamespace(t)
			lo, err := netlink.LinkByName("lo")
			if err == nil {
				err = netlink.LinkSetMTU(lo, 1400)
			}
			if err != nil {
				t.Fatal(err)
			}
			a, b := listen(t, Config{Address: tt.listen}), listen(t, Config{Address: tt.listen})
			fits, long := message(b.at(tt.loopback), make([]byte, 1300)), message(b.at(tt.loopback), make([]byte, 1500))
			send(t, a, fits, long)
			for i, want := range []int{1300, 1500} {
				if got := receive(t, b, 1)[0].Len; got != want {
					t.Errorf("without DF, datagram %d has %d bytes, want %d", i, got, want)
				}
			}
			fits.DF, long.DF = true, true
			n, err := a.WriteBatch([]Message{fits, long, fits})
			if n != 1 || !errors.Is(err, syscall.EMSGSIZE) {
				t.Errorf("with DF: WriteBatch = %d, %v; want 1, EMSGSIZE", n, err)
			}
			long.DF = false
			send(t, a, fits, long)
			for i, want := range []int{1300, 1300, 1500} {
				if got := receive(t, b, 1)[0].Len; got != want {
					t.Errorf("DF only where it fits: datagram %d has %d bytes, want %d", i, got, want)
				}
			}
		})
	}
}

func TestRootMarkAndBuffers(t *testing.T) {
	newNamespace(t)
	c := listen(t, Config{Mark: 0xad17})
	if got, err := c.socket.Option(unix.SOL_SOCKET, unix.SO_MARK); got != 0xad17 || err != nil {
		t.Errorf("SO_MARK = %#x, %v; want 0xad17", got, err)
	}
	for _, option := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF} {
		// The kernel doubles what is asked.
		if got, err := c.socket.Option(unix.SOL_SOCKET, option); got != 2*DefaultBuffer || err != nil {
			t.Errorf("buffer option %d = %d, %v; want %d", option, got, err, 2*DefaultBuffer)
		}
	}
}

func TestRootUnreachableNetworkIsTheDatagramsError(t *testing.T) {
	newNamespace(t)
	c := listen(t, Config{})
	good, bad := message(c.at(loop4), []byte("good")), message(netip.MustParseAddrPort("203.0.113.1:4500"), []byte("bad"))
	n, err := c.WriteBatch([]Message{good, bad, good})
	if n != 1 || !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("WriteBatch = %d, %v; want 1, ENETUNREACH", n, err)
	}
	send(t, c, good)
	receive(t, c, 2)
}
