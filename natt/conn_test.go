package natt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/packet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	loop4 = netip.MustParseAddr("127.0.0.1")
	loop6 = netip.MustParseAddr("::1")
)

// patience bounds what must not take long; a test that reaches it has failed.
const patience = 10 * time.Second

func listen(t testing.TB, cfg Config) *Conn {
	t.Helper()
	c, err := Listen(cfg)
	if err != nil {
		t.Fatalf("Listen(%+v): %v", cfg, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// message is a datagram with a payload in a slot of its own.
func message(to netip.AddrPort, payload []byte) Message {
	m := packet.NewDatagrams(1)[0]
	m.Addr = to
	m.Len = copy(m.Mem[m.Off:], payload)
	return m
}

func (c *Conn) at(addr netip.Addr) netip.AddrPort { return netip.AddrPortFrom(addr, c.LocalPort()) }

// receive reads n datagrams, or fails when they do not come.
func receive(t testing.TB, c *Conn, n int) []Message {
	t.Helper()
	type result struct {
		m   []Message
		err error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		for len(r.m) < n && r.err == nil {
			batch := packet.NewDatagrams(min(n-len(r.m), 32))
			var k int
			k, r.err = c.ReadBatch(batch)
			for _, m := range batch[:k] {
				r.m = append(r.m, apart(m)...)
			}
		}
		done <- r
	}()
	select {
	case r := <-done:
		if r.err != nil {
			t.Fatalf("ReadBatch: %v", r.err)
		}
		return r.m
	case <-time.After(patience):
		c.Close()
		t.Fatalf("%d datagrams did not come, have %d", n, len((<-done).m))
	}
	return nil
}

// apart is what a slot holds, as datagrams in the same memory.
func apart(m Message) (all []Message) {
	size, rest := m.SegmentSize, m.Len
	if size == 0 {
		return []Message{m}
	}
	for m.SegmentSize = 0; rest > 0; m.Off += m.Len {
		m.Len = min(size, rest)
		rest -= m.Len
		all = append(all, m)
	}
	return all
}

func send(t testing.TB, c *Conn, m ...Message) {
	t.Helper()
	if n, err := c.WriteBatch(m); n != len(m) || err != nil {
		t.Fatalf("WriteBatch = %d, %v; want %d, nil", n, err, len(m))
	}
}

// families are the ways in which a datagram may reach a socket.
var families = []struct {
	name     string
	listen   netip.Addr
	loopback netip.Addr
}{
	{"v4", loop4, loop4},
	{"v6", loop6, loop6},
	{"v4 on dual stack", netip.Addr{}, loop4},
	{"v6 on dual stack", netip.Addr{}, loop6},
}

func TestRoundTripTellsPeerLocalAndTrafficClass(t *testing.T) {
	for _, tt := range families {
		t.Run(tt.name, func(t *testing.T) {
			a, b := listen(t, Config{Address: tt.listen}), listen(t, Config{Address: tt.listen})
			for _, tos := range []uint8{0, 0x03, 0xb8, 0xb9, 0x01, 0xff} {
				for _, df := range []bool{false, true} {
					m := message(b.at(tt.loopback), []byte("hello"))
					m.Local, m.TOS, m.DF = tt.loopback, tos, df
					send(t, a, m)
					got := receive(t, b, 1)[0]
					if string(got.Bytes()) != "hello" || got.Off != packet.Headroom || got.SegmentSize != 0 {
						t.Errorf("payload %q at %d, segment size %d; want \"hello\" at %d, 0", got.Bytes(), got.Off, got.SegmentSize, packet.Headroom)
					}
					if got.Addr != a.at(tt.loopback) {
						t.Errorf("peer is %v, want %v", got.Addr, a.at(tt.loopback))
					}
					if got.Local != tt.loopback {
						t.Errorf("local address is %v, want %v", got.Local, tt.loopback)
					}
					if got.TOS != tos {
						t.Errorf("traffic class is %#x, want %#x", got.TOS, tos)
					}
				}
			}
		})
	}
}

// TestLocalChoosesTheSource sends from an address that the kernel would not
// have chosen.
func TestLocalChoosesTheSource(t *testing.T) {
	other := netip.MustParseAddr("127.0.0.77")
	for _, address := range []netip.Addr{{}, netip.IPv4Unspecified()} {
		a, b := listen(t, Config{Address: address}), listen(t, Config{Address: loop4})
		m := message(b.at(loop4), []byte{1})
		m.Local = other
		send(t, a, m)
		if got := receive(t, b, 1)[0].Addr; got != a.at(other) {
			t.Errorf("listening on %v: source is %v, want %v", address, got, a.at(other))
		}
	}
}

func TestMappedAddressesAreIPv4(t *testing.T) {
	a, b := listen(t, Config{}), listen(t, Config{Address: loop4})
	mapped := netip.AddrFrom16(loop4.As16())
	m := message(netip.AddrPortFrom(mapped, b.LocalPort()), []byte{1})
	m.Local = mapped
	send(t, a, m)
	if got := receive(t, b, 1)[0].Addr; got != a.at(loop4) {
		t.Errorf("source is %v, want %v", got, a.at(loop4))
	}
}

func TestBigBatchArrivesWholeAndInOrder(t *testing.T) {
	for _, tt := range families {
		t.Run(tt.name, func(t *testing.T) {
			a, b := listen(t, Config{Address: tt.listen}), listen(t, Config{Address: tt.listen})
			const n = 400 // more than three system calls move, less than the default receive buffer holds
			batch := make([]Message, n)
			for i := range batch {
				mem := make([]byte, packet.Headroom+64)
				binary.BigEndian.PutUint32(mem[packet.Headroom:], uint32(i))
				batch[i] = Message{Mem: mem, Off: packet.Headroom, Len: 4 + i%60, Addr: b.at(tt.loopback)}
			}
			send(t, a, batch...)
			for i, got := range receive(t, b, n) {
				if !bytes.Equal(got.Bytes(), batch[i].Bytes()) {
					t.Fatalf("datagram %d is %x, want %x", i, got.Bytes(), batch[i].Bytes())
				}
			}
		})
	}
}

// TestSegmentSizeBecomesDatagrams holds the type's promise without GSO, also
// across the end of one system call's batch.
func TestSegmentSizeBecomesDatagrams(t *testing.T) {
	for _, tt := range []struct{ total, segment int }{
		{1000, 100}, {1001, 100}, {99, 100}, {100, 100}, {1, 1}, {0, 5}, {3000, 10}, {65000, 1400},
	} {
		a, b := listen(t, Config{Address: loop4}), listen(t, Config{Address: loop4})
		payload := make([]byte, tt.total)
		for i := range payload {
			payload[i] = byte(i * 7)
		}
		first, last := message(b.at(loop4), []byte("first")), message(b.at(loop4), []byte("last"))
		m := message(b.at(loop4), payload)
		m.SegmentSize = tt.segment
		send(t, a, first, m, last)
		segments := max(1, (tt.total+tt.segment-1)/tt.segment)
		got := receive(t, b, segments+2)
		var joined []byte
		for i, g := range got[1 : segments+1] {
			if want := min(tt.segment, tt.total-i*tt.segment); g.Len != want {
				t.Errorf("%d in %d: segment %d has %d bytes, want %d", tt.total, tt.segment, i, g.Len, want)
			}
			joined = append(joined, g.Bytes()...)
		}
		if !bytes.Equal(joined, payload) {
			t.Errorf("%d in %d: the segments do not join to the payload", tt.total, tt.segment)
		}
		if l := got[segments+1]; string(l.Bytes()) != "last" {
			t.Errorf("%d in %d: after the segments came %q, want \"last\"", tt.total, tt.segment, l.Bytes())
		}
	}
}

// socketDF is the socket's DF option as the kernel holds it.
func socketDF(t *testing.T, c *Conn, level, option int) int {
	t.Helper()
	v, err := c.socket.Option(level, option)
	if err != nil {
		t.Fatalf("getsockopt: %v", err)
	}
	return v
}

func TestDFSwitchesTheSocketOnlyForItsRun(t *testing.T) {
	for _, tt := range families {
		t.Run(tt.name, func(t *testing.T) {
			a, b := listen(t, Config{Address: tt.listen}), listen(t, Config{Address: tt.listen})
			level, option := unix.SOL_IP, unix.IP_MTU_DISCOVER
			if tt.loopback.Is6() {
				level, option = unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER
			}
			for _, step := range []struct {
				df   []bool
				want int
			}{
				{[]bool{false}, unix.IP_PMTUDISC_DONT},
				{[]bool{true}, unix.IP_PMTUDISC_PROBE},
				{[]bool{true, false, true, true, false}, unix.IP_PMTUDISC_DONT},
				{[]bool{false, true}, unix.IP_PMTUDISC_PROBE},
			} {
				var batch []Message
				for i, df := range step.df {
					m := message(b.at(tt.loopback), []byte{byte(i)})
					m.DF = df
					batch = append(batch, m)
				}
				send(t, a, batch...)
				for i, got := range receive(t, b, len(batch)) {
					if got.Bytes()[0] != byte(i) {
						t.Errorf("DF %v: datagram %d is number %d", step.df, i, got.Bytes()[0])
					}
				}
				if got := socketDF(t, a, level, option); got != step.want {
					t.Errorf("DF %v leaves the option at %d, want %d", step.df, got, step.want)
				}
			}
		})
	}
}

// TestWriteErrorNamesTheDatagram has one datagram that is too long in the
// middle: those in front are sent, the index is its own, those behind go with
// the next call.
func TestWriteErrorNamesTheDatagram(t *testing.T) {
	for _, tt := range families {
		t.Run(tt.name, func(t *testing.T) {
			for _, bad := range []int{0, 1, 7, 127, 128, 129, 299} {
				a, b := listen(t, Config{Address: tt.listen}), listen(t, Config{Address: tt.listen})
				batch := make([]Message, 300)
				for i := range batch {
					mem := make([]byte, packet.Headroom+4)
					binary.BigEndian.PutUint32(mem[packet.Headroom:], uint32(i))
					batch[i] = Message{Mem: mem, Off: packet.Headroom, Len: 4, Addr: b.at(tt.loopback)}
				}
				batch[bad].Mem = make([]byte, packet.SlotLen)
				batch[bad].Len = packet.MaxLen
				n, err := a.WriteBatch(batch)
				if n != bad || !errors.Is(err, syscall.EMSGSIZE) {
					t.Fatalf("WriteBatch = %d, %v; want %d, EMSGSIZE", n, err, bad)
				}
				if bad+1 < len(batch) {
					send(t, a, batch[bad+1:]...)
				}
				want := 0
				for _, got := range receive(t, b, len(batch)-1) {
					if want == bad {
						want++
					}
					if i := binary.BigEndian.Uint32(got.Bytes()); int(i) != want {
						t.Fatalf("bad %d: received number %d, want %d", bad, i, want)
					}
					want++
				}
			}
		})
	}
}

func TestWriteRefusesWhatCannotBeSent(t *testing.T) {
	v4, v6, dual := listen(t, Config{Address: loop4}), listen(t, Config{Address: loop6}), listen(t, Config{})
	to4, to6 := netip.AddrPortFrom(loop4, 9), netip.AddrPortFrom(loop6, 9)
	tests := []struct {
		name  string
		c     *Conn
		to    netip.AddrPort
		local netip.Addr
		want  syscall.Errno
	}{
		{"no destination", v4, netip.AddrPort{}, netip.Addr{}, syscall.EDESTADDRREQ},
		{"IPv6 on an IPv4 socket", v4, to6, netip.Addr{}, syscall.EAFNOSUPPORT},
		{"IPv4 on an IPv6 socket", v6, to4, netip.Addr{}, syscall.EAFNOSUPPORT},
		{"families mixed", dual, to4, loop6, syscall.EINVAL},
		{"zone", dual, netip.AddrPortFrom(netip.MustParseAddr("fe80::1%lo"), 9), netip.Addr{}, syscall.EINVAL},
		{"foreign source", v4, to4, netip.MustParseAddr("203.0.113.9"), 0}, // EINVAL or ENETUNREACH, by the kernel's version
	}
	for _, tt := range tests {
		good := message(tt.c.at(loop4), []byte{1})
		if tt.c == v6 {
			good = message(tt.c.at(loop6), []byte{1})
		}
		bad := message(tt.to, []byte{2})
		bad.Local = tt.local
		n, err := tt.c.WriteBatch([]Message{good, bad, good})
		if n != 1 || err == nil || tt.want != 0 && !errors.Is(err, tt.want) {
			t.Errorf("%s: WriteBatch = %d, %v; want 1, %v", tt.name, n, err, tt.want)
		}
	}
}

func TestUnreachablePortDoesNotStopReading(t *testing.T) {
	for _, tt := range families {
		t.Run(tt.name, func(t *testing.T) {
			a, b := listen(t, Config{Address: tt.listen}), listen(t, Config{Address: tt.listen})
			gone := listen(t, Config{Address: tt.listen})
			nobody := gone.at(tt.loopback)
			gone.Close()
			// With this option the kernel queues each ICMP error on the
			// socket, and the next read meets it.
			if err := a.socket.SetOption(unix.SOL_IP, unix.IP_RECVERR, 1); tt.loopback.Is4() && err != nil {
				t.Fatal(err)
			}
			if err := a.socket.SetOption(unix.SOL_IPV6, unix.IPV6_RECVERR, 1); tt.loopback.Is6() && err != nil {
				t.Fatal(err)
			}
			send(t, a, message(nobody, []byte("to nobody")))
			send(t, b, message(a.at(tt.loopback), []byte("hello")))
			if got := receive(t, a, 1)[0]; string(got.Bytes()) != "hello" {
				t.Errorf("received %q, want \"hello\"", got.Bytes())
			}
		})
	}
}

func TestCloseWakesReaders(t *testing.T) {
	c := listen(t, Config{})
	const readers = 3
	errs := make(chan error, readers)
	for range readers {
		go func() {
			_, err := c.ReadBatch(packet.NewDatagrams(1))
			errs <- err
		}()
	}
	if err := c.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	for range readers {
		select {
		case err := <-errs:
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("ReadBatch after Close: %v, want net.ErrClosed", err)
			}
		case <-time.After(patience):
			t.Fatal("a reader still waits after Close")
		}
	}
	if n, err := c.WriteBatch([]Message{message(netip.AddrPortFrom(loop4, 9), []byte{1})}); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("WriteBatch after Close = %d, %v; want 0, net.ErrClosed", n, err)
	}
	if err := c.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v, want net.ErrClosed", err)
	}
}

func TestWriteBatchFromManyGoroutines(t *testing.T) {
	a, b := listen(t, Config{}), listen(t, Config{})
	const writers, each = 4, 100
	errs := make(chan error, writers)
	for w := range writers {
		go func() {
			batch := make([]Message, each)
			for i := range batch {
				mem := make([]byte, packet.Headroom+2)
				mem[packet.Headroom], mem[packet.Headroom+1] = byte(w), byte(i)
				batch[i] = Message{Mem: mem, Off: packet.Headroom, Len: 2, Addr: b.at(loop4), DF: w%2 == 0}
			}
			n, err := a.WriteBatch(batch)
			if n != each {
				err = fmt.Errorf("sent %d, want %d: %w", n, each, err)
			}
			errs <- err
		}()
	}
	next := [writers]byte{}
	for _, m := range receive(t, b, writers*each) {
		w, i := m.Bytes()[0], m.Bytes()[1]
		if i != next[w] {
			t.Fatalf("writer %d: got number %d, want %d", w, i, next[w])
		}
		next[w]++
	}
	for range writers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestTruncatedDatagramIsSkippedAndCounted(t *testing.T) {
	a, b := listen(t, Config{Address: loop4}), listen(t, Config{Address: loop4, Offload: OffloadOff})
	send(t, a, message(b.at(loop4), make([]byte, 100)), message(b.at(loop4), []byte("fits")))
	batch := make([]Message, 4)
	for i := range batch {
		batch[i].Mem = make([]byte, packet.Headroom+50+packet.Tailroom)
	}
	n, err := b.ReadBatch(batch)
	if n != 1 || err != nil || string(batch[0].Bytes()) != "fits" {
		t.Fatalf("ReadBatch = %d, %v, %q; want 1, nil, \"fits\"", n, err, batch[0].Bytes())
	}
	if got := b.Skips().Truncated; got != 1 {
		t.Errorf("Truncated = %d, want 1", got)
	}
}

func TestReadBatchKeepsRoomsAndRefusesSmallSlots(t *testing.T) {
	c := listen(t, Config{Address: loop4})
	send(t, c, message(c.at(loop4), []byte("there to be read")))
	if _, err := c.ReadBatch([]Message{{Mem: make([]byte, packet.Headroom+packet.Tailroom)}}); err == nil {
		t.Error("ReadBatch into a slot without room for a packet: no error")
	}
	if n, err := c.ReadBatch(nil); n != 0 || err != nil {
		t.Errorf("ReadBatch(nil) = %d, %v; want 0, nil", n, err)
	}
	send(t, c, message(c.at(loop4), bytes.Repeat([]byte{0xaa}, 300)))
	got := receive(t, c, 2)[1]
	for i, x := range got.Mem[:packet.Headroom] {
		if x != 0 {
			t.Fatalf("byte %d of the headroom was overwritten", i)
		}
	}
	for i, x := range got.Mem[got.Off+got.Len:] {
		if x != 0 {
			t.Fatalf("byte %d behind the datagram was overwritten", i)
		}
	}
}

// TestRFC3948_2_1_UDPChecksumIsComputed holds the deviation that Conn states:
// SO_NO_CHECK stays off.
func TestRFC3948_2_1_UDPChecksumIsComputed(t *testing.T) {
	for _, address := range []netip.Addr{{}, loop4, loop6} {
		c := listen(t, Config{Address: address})
		v, err := c.socket.Option(unix.SOL_SOCKET, unix.SO_NO_CHECK)
		if err != nil || v != 0 {
			t.Errorf("listening on %v: SO_NO_CHECK = %d, %v; want 0", address, v, err)
		}
	}
}

func TestListenErrorNamesTheAddress(t *testing.T) {
	c := listen(t, Config{Address: loop4})
	_, err := Listen(Config{Address: loop4, Port: c.LocalPort()})
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("second Listen: %v, want EADDRINUSE", err)
	}
	if want := c.at(loop4).String(); !bytes.Contains([]byte(err.Error()), []byte(want)) {
		t.Errorf("error %q does not name %s", err, want)
	}
}

func countAll(m []Message) (n int) {
	for i := range m {
		n++
		if size := m[i].SegmentSize; size > 0 {
			n += (m[i].Len - 1) / size
		}
	}
	return n
}

func TestBatchesAllocateNothing(t *testing.T) {
	for _, tt := range families {
		t.Run(tt.name, func(t *testing.T) {
			a, b := listen(t, Config{Address: tt.listen}), listen(t, Config{Address: tt.listen})
			out, in := packet.NewDatagrams(8), packet.NewDatagrams(8)
			for i := range out {
				out[i].Len, out[i].Addr, out[i].Local, out[i].TOS, out[i].DF = 100, b.at(tt.loopback), tt.loopback, 0xb8, i%2 == 0
			}
			got := testing.AllocsPerRun(50, func() {
				if n, err := a.WriteBatch(out); n != len(out) || err != nil {
					t.Fatalf("WriteBatch = %d, %v", n, err)
				}
				for want := len(out); want > 0; {
					n, err := b.ReadBatch(in)
					if err != nil {
						t.Fatal(err)
					}
					want -= countAll(in[:n])
				}
			})
			if got != 0 {
				t.Errorf("%v allocations per batch, want 0", got)
			}
		})
	}
}
