package rawip

import (
	"bytes"
	"encoding/binary"
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
	"go.uber.org/goleak"

	"github.com/adit-ipsec/adit/internal/mmsg"
	"github.com/adit-ipsec/adit/internal/packet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what must not take long; a test that reaches it has failed.
const patience = 10 * time.Second

// newNamespace puts the test's own thread into a new network namespace with lo
// up and an MTU of 1400. The thread is never unlocked, so it ends with the
// test.
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
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = errors.Join(netlink.LinkSetMTU(lo, 1400), netlink.LinkSetUp(lo))
	}
	if err != nil {
		t.Fatalf("set lo up: %v", err)
	}
}

func listen(t testing.TB, cfg Config) *Conn {
	t.Helper()
	c, err := Listen(cfg)
	if err != nil {
		t.Fatalf("Listen(%+v): %v", cfg, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

type reader interface {
	ReadBatch(m []packet.Datagram) (int, error)
	Close() error
}

func receive(t testing.TB, c reader) packet.Datagram {
	t.Helper()
	type result struct {
		d   packet.Datagram
		err error
	}
	done := make(chan result, 1)
	go func() {
		d := packet.NewDatagrams(1)
		_, err := c.ReadBatch(d)
		done <- result{d[0], err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			t.Fatalf("ReadBatch: %v", r.err)
		}
		return r.d
	case <-time.After(patience):
		c.Close()
		t.Fatal("nothing came")
	}
	return packet.Datagram{}
}

func datagram(to netip.Addr, payload []byte) packet.Datagram {
	d := packet.NewDatagrams(1)[0]
	d.Addr = netip.AddrPortFrom(to, 0)
	d.Len = copy(d.Mem[d.Off:], payload)
	return d
}

var families = []struct {
	name   string
	family int
	loop   netip.Addr
}{
	{"v4", 4, netip.MustParseAddr("127.0.0.1")},
	{"v6", 6, netip.MustParseAddr("::1")},
}

func TestRootRoundTripTellsPeerLocalAndTrafficClass(t *testing.T) {
	for _, tt := range families {
		t.Run(tt.name, func(t *testing.T) {
			newNamespace(t)
			c := listen(t, Config{Family: tt.family, Protocol: packet.ProtoESP})
			for _, tos := range []uint8{0, 0xb8, 0xb9, 0xff} {
				for _, df := range []bool{false, true} {
					d := datagram(tt.loop, []byte("hello"))
					d.Local, d.TOS, d.DF = tt.loop, tos, df
					d.Addr = netip.AddrPortFrom(tt.loop, 4500) // raw IP has no ports: not to be sent
					if n, err := c.WriteBatch([]packet.Datagram{d}); n != 1 || err != nil {
						t.Fatalf("WriteBatch = %d, %v; want 1, nil", n, err)
					}
					got := receive(t, c)
					if string(got.Bytes()) != "hello" || got.Addr != netip.AddrPortFrom(tt.loop, 0) || got.Local != tt.loop || got.TOS != tos {
						t.Errorf("received %q from %v to %v, class %#x; want \"hello\" from %v port 0 to it, %#x",
							got.Bytes(), got.Addr, got.Local, got.TOS, tt.loop, tos)
					}
				}
			}
			if c.LocalPort() != 0 {
				t.Errorf("LocalPort = %d, want 0", c.LocalPort())
			}
		})
	}
}

// TestRootCR24_FragmentsAreReassembledFirst holds that what the outer network
// fragments arrives whole.
func TestRootCR24_FragmentsAreReassembledFirst(t *testing.T) {
	for _, tt := range families {
		t.Run(tt.name, func(t *testing.T) {
			newNamespace(t)
			c := listen(t, Config{Family: tt.family, Protocol: packet.ProtoESP})
			payload := make([]byte, 5000)
			for i := range payload {
				payload[i] = byte(i * 31 >> 3)
			}
			d := datagram(tt.loop, payload)
			if n, err := c.WriteBatch([]packet.Datagram{d}); n != 1 || err != nil {
				t.Fatalf("WriteBatch = %d, %v; want 1, nil", n, err)
			}
			if got := receive(t, c); !bytes.Equal(got.Bytes(), payload) {
				t.Errorf("received %d bytes, want the %d sent", got.Len, len(payload))
			}
			if got := c.Skips(); got != (mmsg.Skips{}) {
				t.Errorf("skips = %+v, want none", got)
			}
			small := datagram(tt.loop, []byte("small"))
			d.DF = true
			n, err := c.WriteBatch([]packet.Datagram{small, d, small})
			if n != 1 || !errors.Is(err, syscall.EMSGSIZE) {
				t.Errorf("with DF: WriteBatch = %d, %v; want 1, EMSGSIZE", n, err)
			}
			if got := receive(t, c); string(got.Bytes()) != "small" {
				t.Errorf("received %q, want \"small\"", got.Bytes())
			}
		})
	}
}

func TestRootCloseWakesReader(t *testing.T) {
	for _, tt := range families {
		t.Run(tt.name, func(t *testing.T) {
			newNamespace(t)
			c := listen(t, Config{Family: tt.family, Protocol: packet.ProtoESP, Address: tt.loop})
			done := make(chan error, 1)
			go func() {
				_, err := c.ReadBatch(packet.NewDatagrams(1))
				done <- err
			}()
			if err := c.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			select {
			case err := <-done:
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("ReadBatch after Close: %v, want net.ErrClosed", err)
				}
			case <-time.After(patience):
				t.Fatal("the reader still waits after Close")
			}
		})
	}
}

func TestListenRefusesWrongConfig(t *testing.T) {
	for _, cfg := range []Config{
		{Family: 0, Protocol: 50},
		{Family: 4, Protocol: 0},
		{Family: 4, Protocol: 255},
		{Family: 4, Protocol: 50, Address: netip.MustParseAddr("::1")},
		{Family: 6, Protocol: 50, Address: netip.MustParseAddr("127.0.0.1")},
	} {
		if c, err := Listen(cfg); err == nil {
			c.Close()
			t.Errorf("Listen(%+v): no error", cfg)
		}
	}
}

// ipPacket is a whole UDP packet with what a router could have put in it.
func ipPacket(src, dst netip.Addr, options int, protocol uint8, payload []byte) []byte {
	if src.Is6() {
		b := make([]byte, 40, 40+len(payload))
		b[0], b[1], b[6], b[7] = 0x6b, 0x90, protocol, 33 // class 0xb9
		binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
		copy(b[8:], src.AsSlice())
		copy(b[24:], dst.AsSlice())
		return append(b, payload...)
	}
	b := make([]byte, 20+options, 20+options+len(payload))
	b[0], b[1], b[8], b[9] = 0x40|byte(5+options/4), 0xb9, 33, protocol
	for i := 20; i < len(b); i++ {
		b[i] = 1 // no operation
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)+len(payload)))
	binary.BigEndian.PutUint16(b[4:], 0x7777)
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	return append(b, payload...)
}

func clear(t testing.TB, mark uint32) *Clear {
	t.Helper()
	c, err := NewClear(mark)
	if err != nil {
		t.Fatalf("NewClear(%d): %v", mark, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func whole(b []byte) packet.Datagram { return datagram(netip.Addr{}, b) }

func TestRootClearSendsPacketsAsTheyAre(t *testing.T) {
	newNamespace(t)
	c := clear(t, 0)
	raw4, raw6 := listen(t, Config{Family: 4, Protocol: packet.ProtoESP}), listen(t, Config{Family: 6, Protocol: packet.ProtoESP})
	other, loop4, loop6 := netip.MustParseAddr("127.0.0.5"), families[0].loop, families[1].loop
	batch := []packet.Datagram{
		whole(ipPacket(other, loop4, 0, packet.ProtoESP, []byte("one"))),
		whole(ipPacket(loop6, loop6, 0, packet.ProtoESP, []byte("two"))),
		whole(ipPacket(loop6, loop6, 0, packet.ProtoESP, []byte("three"))),
		whole(ipPacket(other, loop4, 12, packet.ProtoESP, []byte("four"))),
	}
	if n, err := c.WriteBatch(batch); n != len(batch) || err != nil {
		t.Fatalf("WriteBatch = %d, %v; want %d, nil", n, err, len(batch))
	}
	for _, want := range []struct {
		c       *Conn
		payload string
		header  int
		from    netip.Addr
	}{{raw4, "one", 20, other}, {raw4, "four", 32, other}, {raw6, "two", 0, loop6}, {raw6, "three", 0, loop6}} {
		got := receive(t, want.c)
		if string(got.Bytes()) != want.payload || got.Addr.Addr() != want.from || got.TOS != 0xb9 {
			t.Errorf("received %q from %v, class %#x; want %q from %v, 0xb9", got.Bytes(), got.Addr, got.TOS, want.payload, want.from)
		}
		if got.Off != packet.Headroom+want.header {
			t.Errorf("%q starts at %d, want behind a header of %d", want.payload, got.Off, want.header)
		}
		if want.header > 0 {
			h := got.Mem[packet.Headroom:]
			if h[8] != 33 || binary.BigEndian.Uint16(h[4:]) != 0x7777 {
				t.Errorf("%q: TTL %d, id %#x; want 33, 0x7777", want.payload, h[8], h[4:6])
			}
		}
	}
}

func TestRootClearErrorsNameThePacket(t *testing.T) {
	newNamespace(t)
	c := clear(t, 0)
	loop4, loop6 := families[0].loop, families[1].loop
	good4, good6 := whole(ipPacket(loop4, loop4, 0, 50, nil)), whole(ipPacket(loop6, loop6, 0, 50, nil))
	for _, tt := range []struct {
		name string
		bad  packet.Datagram
		want error
	}{
		{"empty", whole(nil), syscall.EINVAL},
		{"neither 4 nor 6", whole([]byte{0xf0, 0, 0, 20}), syscall.EINVAL},
		{"cut IPv4 header", whole(ipPacket(loop4, loop4, 0, 50, nil)[:19]), syscall.EINVAL},
		{"cut IPv6 header", whole(ipPacket(loop6, loop6, 0, 50, nil)[:39]), syscall.EINVAL},
		{"IPv4 over the MTU", whole(ipPacket(loop4, loop4, 0, 50, make([]byte, 1381))), syscall.EMSGSIZE},
		{"IPv6 over the MTU", whole(ipPacket(loop6, loop6, 0, 50, make([]byte, 1361))), syscall.EMSGSIZE},
		{"no route", whole(ipPacket(loop4, netip.MustParseAddr("203.0.113.1"), 0, 50, nil)), syscall.ENETUNREACH},
	} {
		n, err := c.WriteBatch([]packet.Datagram{good4, good6, tt.bad, good4})
		if n != 2 || !errors.Is(err, tt.want) {
			t.Errorf("%s: WriteBatch = %d, %v; want 2, %v", tt.name, n, err, tt.want)
		}
	}
	c.Close()
	if n, err := c.WriteBatch([]packet.Datagram{good4}); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("WriteBatch after Close = %d, %v; want 0, net.ErrClosed", n, err)
	}
}

// TestRootMarkChoosesTheRoute has a route that only marked packets find.
func TestRootMarkChoosesTheRoute(t *testing.T) {
	newNamespace(t)
	const mark, table = 0xad17, 100
	_, dst, _ := net.ParseCIDR("203.0.113.1/32")
	rule := netlink.NewRule()
	rule.Mark, rule.Table, rule.Family = mark, table, netlink.FAMILY_V4
	err := errors.Join(netlink.RuleAdd(rule), netlink.RouteAdd(&netlink.Route{LinkIndex: 1, Dst: dst, Table: table}))
	if err != nil {
		t.Fatalf("add rule and route: %v", err)
	}
	to := netip.MustParseAddr("203.0.113.1")
	bypass := []packet.Datagram{whole(ipPacket(families[0].loop, to, 0, 50, nil))}
	esp := []packet.Datagram{datagram(to, []byte("esp"))}
	for _, tt := range []struct {
		mark uint32
		want error
	}{{mark, nil}, {0, syscall.ENETUNREACH}, {mark + 1, syscall.ENETUNREACH}} {
		if _, err := clear(t, tt.mark).WriteBatch(bypass); !errors.Is(err, tt.want) {
			t.Errorf("Clear with mark %#x: %v, want %v", tt.mark, err, tt.want)
		}
		if _, err := listen(t, Config{Family: 4, Protocol: 50, Mark: tt.mark}).WriteBatch(esp); !errors.Is(err, tt.want) {
			t.Errorf("Conn with mark %#x: %v, want %v", tt.mark, err, tt.want)
		}
	}
}

func TestRootBatchesAllocateNothing(t *testing.T) {
	for _, tt := range families {
		t.Run(tt.name, func(t *testing.T) {
			newNamespace(t)
			c, bypass := listen(t, Config{Family: tt.family, Protocol: packet.ProtoESP}), clear(t, 0)
			out, in := packet.NewDatagrams(4), packet.NewDatagrams(4)
			for i := range out {
				out[i] = datagram(tt.loop, make([]byte, 100))
				out[i].Local, out[i].TOS = tt.loop, 0xb8
			}
			packets := []packet.Datagram{whole(ipPacket(tt.loop, tt.loop, 0, packet.ProtoESP, make([]byte, 100)))}
			got := testing.AllocsPerRun(50, func() {
				n, err := c.WriteBatch(out)
				if err == nil {
					_, err = bypass.WriteBatch(packets)
				}
				for want := n + 1; want > 0 && err == nil; want -= n {
					n, err = c.ReadBatch(in)
				}
				if err != nil {
					t.Fatal(err)
				}
			})
			if got != 0 {
				t.Errorf("%v allocations per batch, want 0", got)
			}
		})
	}
}
