package natt

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// ikeHeard is one message that an IKEConn has handed on.
type ikeHeard struct {
	local, remote netip.AddrPort
	data          []byte
}

// listenIKE is an IKEConn whose messages arrive in a channel of that room.
func listenIKE(t testing.TB, cfg Config, encapsulated *Conn, room int) (*IKEConn, chan ikeHeard) {
	t.Helper()
	heard := make(chan ikeHeard, room)
	c, err := ListenIKE(cfg, encapsulated, func(local, remote netip.AddrPort, message []byte) bool {
		select {
		case heard <- ikeHeard{local, remote, bytes.Clone(message)}:
			return true
		default:
			return false
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, heard
}

func next(t testing.TB, heard chan ikeHeard) ikeHeard {
	t.Helper()
	select {
	case m := <-heard:
		return m
	case <-time.After(patience):
		t.Fatal("no message came")
		return ikeHeard{}
	}
}

// eventually waits until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestRFC7296_2_11_AnswersLeaveWhereTheRequestCame: an implementation "MUST respond to
// the address and port from which the request was received. It MUST specify the address
// and port at which the request was received as the source address and port in the
// response", also on a host with several addresses.
func TestRFC7296_2_11_AnswersLeaveWhereTheRequestCame(t *testing.T) {
	addresses := []netip.Addr{loop4, netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.77"), loop6}
	encapsulated := listen(t, Config{})
	c, heard := listenIKE(t, Config{}, encapsulated, 8)
	for _, to := range addresses {
		from := loop4
		if to == loop6 {
			from = loop6
		}
		peer := listen(t, Config{Address: from})
		request := bytes.Repeat([]byte{7}, 100)
		send(t, peer, message(netip.AddrPortFrom(to, c.Port()), request))
		m := next(t, heard)
		if want := netip.AddrPortFrom(to, c.Port()); m.local != want || m.remote != peer.at(from) || !bytes.Equal(m.data, request) {
			t.Errorf("heard %d bytes at %v from %v, want %d at %v from %v", len(m.data), m.local, m.remote, len(request), want, peer.at(from))
		}
		for _, encap := range []bool{false, true} {
			answer := bytes.Repeat([]byte{9}, 28)
			port := c.Port()
			if encap {
				port = c.NATTPort()
			}
			if err := c.Send(m.local.Addr(), m.remote, encap, answer); err != nil {
				t.Fatal(err)
			}
			if encap {
				answer = append(make([]byte, NonESPMarkerLen), answer...)
			}
			got := receive(t, peer, 1)[0]
			if got.Addr != netip.AddrPortFrom(to, port) || !bytes.Equal(got.Bytes(), answer) {
				t.Errorf("encapsulated %v: the answer %x came from %v, want %x from %v:%d", encap, got.Bytes(), got.Addr, answer, to, port)
			}
		}
	}
	if s := c.Stats(); s.Received != uint64(len(addresses)) || s.Sent != 2*uint64(len(addresses)) || s.SendErrors+s.Full+s.Malformed != 0 {
		t.Errorf("%+v", s)
	}
}

// A message as long as UDP takes comes whole: in fragments where the path is narrow
// (see TestRootDFDecidesOverTheMTU). One byte more is refused, and nothing else is.
func TestIKEMessagesOfAnyLength(t *testing.T) {
	a, _ := listenIKE(t, Config{Address: loop4}, nil, 1)
	b, heard := listenIKE(t, Config{Address: loop4}, nil, 1)
	to := netip.AddrPortFrom(loop4, b.Port())
	for _, n := range []int{IKEHeaderLen, 1280, 3000, 20000, 65507} {
		long := bytes.Repeat([]byte{byte(n)}, n)
		if err := a.Send(netip.Addr{}, to, false, long); err != nil {
			t.Fatal(err)
		}
		if m := next(t, heard); !bytes.Equal(m.data, long) {
			t.Errorf("%d bytes came as %d, or others", n, len(m.data))
		}
	}
	for _, n := range []int{65508, 65536, 100000} {
		if err := a.Send(netip.Addr{}, to, false, make([]byte, n)); !errors.Is(err, syscall.EMSGSIZE) {
			t.Errorf("%d bytes: %v, want EMSGSIZE", n, err)
		}
	}
	if err := a.Send(loop4, to, true, make([]byte, 28)); !errors.Is(err, ErrNoNATT) {
		t.Errorf("encapsulated without a socket: %v, want ErrNoNATT", err)
	}
	if err := a.Keepalive(loop4, to); !errors.Is(err, ErrNoNATT) {
		t.Errorf("keepalive without a socket: %v, want ErrNoNATT", err)
	}
	if s := a.Stats(); s.Sent != 5 || s.SendErrors != 3 {
		t.Errorf("%+v, want 5 sent and 3 refused", s)
	}
}

// What is no message, or finds no room, is counted and moves nothing else.
func TestIKEConnCountsWhatItLoses(t *testing.T) {
	c, heard := listenIKE(t, Config{Address: loop4}, nil, 2)
	peer := listen(t, Config{Address: loop4, Offload: OffloadOff})
	to := netip.AddrPortFrom(loop4, c.Port())
	for _, n := range []int{0, 1, IKEHeaderLen - 1} {
		send(t, peer, message(to, make([]byte, n)))
	}
	for range 5 {
		send(t, peer, message(to, make([]byte, IKEHeaderLen)))
	}
	eventually(t, "3 malformed, 2 received, 3 without room", func() bool {
		s := c.Stats()
		return s.Malformed == 3 && s.Received == 2 && s.Full == 3
	})
	next(t, heard)
	send(t, peer, message(to, make([]byte, IKEHeaderLen)))
	next(t, heard)
	next(t, heard)
}

// Keepalives leave the port of NAT traversal, one byte without a marker.
func TestRFC3948_2_3_IKEKeepalive(t *testing.T) {
	encapsulated := listen(t, Config{Address: loop4})
	c, _ := listenIKE(t, Config{Address: loop4}, encapsulated, 1)
	peer := listen(t, Config{Address: loop4})
	// The slot's last use leaves nothing behind.
	if err := c.Send(loop4, peer.at(loop4), true, bytes.Repeat([]byte{1}, 500)); err != nil {
		t.Fatal(err)
	}
	if err := c.Keepalive(loop4, peer.at(loop4)); err != nil {
		t.Fatal(err)
	}
	got := receive(t, peer, 2)
	if !bytes.Equal(got[1].Bytes(), []byte{0xff}) || got[1].Addr != encapsulated.at(loop4) {
		t.Errorf("keepalive %x from %v, want ff from %v", got[1].Bytes(), got[1].Addr, encapsulated.at(loop4))
	}
}

// Closing ends the reader and not the socket that was lent; goleak holds the first.
func TestIKEConnClose(t *testing.T) {
	encapsulated := listen(t, Config{Address: loop4})
	c, _ := listenIKE(t, Config{Address: loop4}, encapsulated, 1)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	_ = c.Close() // again, and nothing hangs
	if err := c.Send(loop4, encapsulated.at(loop4), false, make([]byte, 28)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Send after Close: %v, want net.ErrClosed", err)
	}
	send(t, encapsulated, message(encapsulated.at(loop4), []byte("still open")))
	receive(t, encapsulated, 1)
	if _, err := ListenIKE(Config{Address: netip.MustParseAddr("192.0.2.200")}, nil, nil); err == nil {
		t.Error("listening on an address of somebody else: no error")
	}
}
