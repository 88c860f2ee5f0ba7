package natt_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/natt"
)

// Two machines on one link; their addresses by family.
var (
	left  = map[string]netip.Prefix{"v4": netip.MustParsePrefix("192.0.2.1/24"), "v6": netip.MustParsePrefix("2001:db8::1/64")}
	right = map[string]netip.Prefix{"v4": netip.MustParsePrefix("192.0.2.2/24"), "v6": netip.MustParsePrefix("2001:db8::2/64")}
)

type link struct {
	a, b       *netlab.Node
	send, recv *natt.Conn
	from, to   netip.Addr
}

func newLink(t *testing.T, family string) *link {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: namespaces")
	}
	lab, err := netlab.New(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	l := &link{from: left[family].Addr(), to: right[family].Addr()}
	l.a, err = lab.Node("a")
	if err == nil {
		l.b, err = lab.Node("b")
	}
	if err == nil {
		err = lab.Link(l.a, "eth0", l.b, "eth0", 1500)
	}
	if err == nil {
		err = errors.Join(l.a.AddAddr("eth0", left[family]), l.b.AddAddr("eth0", right[family]))
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// open makes the sockets, once the link is as the test wants it.
func (l *link) open(t *testing.T) {
	t.Helper()
	err := errors.Join(
		l.a.Do(func() (err error) { l.send, err = natt.Listen(natt.Config{}); return err }),
		l.b.Do(func() (err error) { l.recv, err = natt.Listen(natt.Config{}); return err }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.send.Close(); l.recv.Close() })
}

// batch is n datagrams of that many bytes, the last with one.
func (l *link) batch(n, size int, df bool) []natt.Message {
	m := make([]natt.Message, n)
	for i := range m {
		mem := make([]byte, packet.Headroom+size)
		binary.BigEndian.PutUint32(mem[packet.Headroom:], uint32(i)+1)
		m[i] = natt.Message{Mem: mem, Off: packet.Headroom, Len: size, Addr: netip.AddrPortFrom(l.to, l.recv.LocalPort()), TOS: 2, DF: df}
	}
	m[n-1].Len = 4
	return m
}

// carry sends the batch and expects all of it, in order.
func (l *link) carry(t *testing.T, m []natt.Message) {
	t.Helper()
	if n, err := l.send.WriteBatch(m); n != len(m) || err != nil {
		t.Fatalf("WriteBatch = %d, %v; want %d, nil", n, err, len(m))
	}
	timer := time.AfterFunc(20*time.Second, func() { l.recv.Close() })
	defer timer.Stop()
	in := packet.NewDatagrams(50)
	for got := 0; got < len(m); {
		n, err := l.recv.ReadBatch(in)
		if err != nil {
			t.Fatalf("ReadBatch after %d of %d: %v", got, len(m), err)
		}
		for _, d := range in[:n] {
			got += l.expect(t, d, m[got:])
		}
	}
}

// expect compares what the slot d holds with the first of want, and returns how
// many datagrams that are.
func (l *link) expect(t *testing.T, d natt.Message, want []natt.Message) (n int) {
	t.Helper()
	if d.TOS != 2 || d.Addr != netip.AddrPortFrom(l.from, l.send.LocalPort()) || d.Local != l.to {
		t.Fatalf("class %d, from %v to %v; want class 2, from %v to %v", d.TOS, d.Addr, d.Local, l.from, l.to)
	}
	size := d.SegmentSize
	if size == 0 {
		size = d.Len
	}
	for b := range slices.Chunk(d.Bytes(), size) {
		if n == len(want) || !bytes.Equal(b, want[n].Bytes()) {
			t.Fatalf("datagram %d of %d bytes in segments of %d is not the next of the %d expected", n, d.Len, d.SegmentSize, len(want))
		}
		n++
	}
	return n
}

// TestRootSuperpacketsCrossVeth has the far end take superpackets whole, and,
// with segmentation in the sender's stack, the datagrams that a wire has.
func TestRootSuperpacketsCrossVeth(t *testing.T) {
	for family := range left {
		for _, features := range [][]string{nil, {"tx-udp-segmentation"}, {"tx-udp-segmentation", "tx-generic-segmentation"}, {"tx-checksum-ip-generic"}} {
			t.Run(family+" without "+join(features), func(t *testing.T) {
				l := newLink(t, family)
				if features != nil {
					if err := l.a.SetOffload("eth0", false, features...); err != nil {
						t.Fatal(err)
					}
				}
				l.open(t)
				for range 3 {
					l.carry(t, l.batch(128, 1400, true))
				}
				sent, recv := l.send.Offloads(), l.recv.Offloads()
				// Before Linux 6.11 a device without checksums means EIO.
				eio := len(features) == 1 && features[0] == "tx-checksum-ip-generic" && sent.FallbackEIO == 1 && !sent.GSO
				if !eio && (sent.SentSegments != 3*128 || !sent.GSO) {
					t.Errorf("sent: %+v, want %d segments", sent, 3*128)
				}
				if features == nil && recv.ReceivedSegments != 3*128 {
					t.Errorf("received: %+v, want %d segments", recv, 3*128)
				}
			})
		}
	}
}

func join(features []string) string {
	if features == nil {
		return "nothing"
	}
	return features[len(features)-1]
}

// TestRootSegmentsOverTheMTU has a path too small for the segments: without DF
// all are carried in fragments, with DF each is refused by itself.
func TestRootSegmentsOverTheMTU(t *testing.T) {
	for family := range left {
		t.Run(family, func(t *testing.T) {
			l := newLink(t, family)
			if err := l.a.SetMTU("eth0", 1300); err != nil {
				t.Fatal(err)
			}
			l.open(t)
			for range 5 {
				l.carry(t, l.batch(20, 1400, false))
			}
			o := l.send.Offloads()
			if n := o.FallbackEINVAL + o.FallbackEMSGSIZE; n < 1 || n > 3 || !o.GSO {
				t.Errorf("%+v, want one to three fallbacks in five batches", o)
			}
			m := l.batch(20, 1400, true)
			for i := range m[:19] {
				if n, err := l.send.WriteBatch(m[i:]); n != 0 || !errors.Is(err, syscall.EMSGSIZE) {
					t.Fatalf("with DF, datagram %d: WriteBatch = %d, %v; want 0, EMSGSIZE", i, n, err)
				}
			}
			l.carry(t, m[19:])
			// Once the path has room again, so have superpackets.
			if err := l.a.SetMTU("eth0", 1500); err != nil {
				t.Fatal(err)
			}
			for range 300 {
				l.carry(t, l.batch(2, 1400, true))
			}
			if o := l.send.Offloads(); o.SentSuperpackets == 0 {
				t.Errorf("%+v, want superpackets again", o)
			}
		})
	}
}
