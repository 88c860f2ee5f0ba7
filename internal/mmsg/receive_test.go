package mmsg

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/packet"
)

// TestSuperpacketsAreReadWhole has 63, 63 and 24 datagrams arrive in as many
// slots as the sender's offload and the number of slots make of them.
func TestSuperpacketsAreReadWhole(t *testing.T) {
	for _, addr := range []netip.Addr{loop4, loop6} {
		for _, send := range []Offload{OffloadAuto, OffloadOff} {
			for _, slots := range []int{1, 2, 7, 200} {
				a, b := listenUDP(t, Config{Offload: send}), listenUDP(t, Config{})
				m := equalBatch(b.at(addr), 150)
				m[149].Len = 7 // the short last
				for i := range m {
					m[i].TOS, m[i].Local = 0xb9, addr
				}
				if n, err := a.WriteBatch(m); n != len(m) || err != nil {
					t.Fatalf("WriteBatch = %d, %v", n, err)
				}
				got := readAll(t, b, len(m), slots)
				for i, d := range got {
					if !bytes.Equal(d.Bytes(), m[i].Bytes()) {
						t.Fatalf("%d slots: datagram %d is %d bytes, want the %d that were sent", slots, i, d.Len, m[i].Len)
					}
					if d.Addr != a.at(addr) || d.Local != addr || d.TOS != 0xb9 {
						t.Fatalf("%d slots: datagram %d from %v to %v, class %#x", slots, i, d.Addr, d.Local, d.TOS)
					}
				}
				o, packets, segments := b.Offloads(), uint64(3), uint64(150)
				if send == OffloadOff {
					packets, segments = 0, 0
				}
				if o.ReceivedSuperpackets != packets || o.ReceivedSegments != segments || a.Offloads().SentSegments != segments {
					t.Errorf("received: %+v, sent: %+v; want %d datagrams in %d superpackets", o, a.Offloads(), segments, packets)
				}
			}
		}
	}
}

// TestSegmentSizeTellsSeveralFromOne reads what slots hold.
func TestSegmentSizeTellsSeveralFromOne(t *testing.T) {
	a, b := listenUDP(t, Config{Address: loop4}), listenUDP(t, Config{Address: loop4})
	var m []packet.Datagram
	for _, n := range []int{100, 100, 100, 200, 200, 1, 9, 32500, 32500, 0} {
		m = append(m, gram(b.at(loop4), n, uint32(n)))
	}
	if n, err := a.WriteBatch(m); n != len(m) || err != nil {
		t.Fatalf("WriteBatch = %d, %v", n, err)
	}
	in := packet.NewDatagrams(8)
	for i := range in {
		in[i].SegmentSize = 77 // what an earlier use has left
	}
	n, err := b.ReadBatch(in)
	got := ""
	for _, d := range in[:n] {
		got += fmt.Sprintf(" %d/%d", d.Len, d.SegmentSize)
	}
	if want := " 300/100 401/200 9/0 65000/32500 0/0"; got != want || err != nil {
		t.Errorf("slots of length/segment size%s, %v; want%s", got, err, want)
	}
}

// TestUselessSegmentSizeIsCleared has control messages of which the kernel
// makes none, and the least that it does make.
func TestUselessSegmentSizeIsCleared(t *testing.T) {
	for _, tt := range []struct{ length, size, want, n int }{
		{0, 0, 0, 1}, {0, 5, 0, 1}, {10, -1, 0, 1}, {10, 11, 0, 1}, {10, 10, 0, 1},
		{11, 10, 10, 2}, {20, 10, 10, 2}, {21, 10, 10, 3}, {10, 1, 1, 10},
	} {
		d := packet.Datagram{Len: tt.length, SegmentSize: tt.size}
		if n := datagrams(&d); n != tt.n || d.SegmentSize != tt.want {
			t.Errorf("%d bytes by %d: %d datagrams by %d, want %d by %d", tt.length, tt.size, n, d.SegmentSize, tt.n, tt.want)
		}
	}
}

// TestReadsStayInTheBudget looks at how many slots each call offers, by what
// the calls before it have read.
func TestReadsStayInTheBudget(t *testing.T) {
	plain, super := listenUDP(t, Config{Address: loop4, Offload: OffloadOff}), listenUDP(t, Config{Address: loop4})
	to := listenUDP(t, Config{Address: loop4})
	in := packet.NewDatagrams(200)
	for _, tt := range []struct {
		what   string
		from   *Socket
		length int
		count  int
		wants  []int
	}{
		{"single ones, from the first call on", plain, 64, 300, []int{128, 128, 128}},
		{"a superpacket of 64400 bytes, after 44 single ones", super, 1400, 46, []int{88}},
		{"20 superpackets", super, 1400, 20 * 46, []int{4, 4, 4, 4, 4}},
		{"single ones after the superpackets", plain, 1400, 200, []int{4, 8, 16, 32, 64, 128}},
		{"long ones after 76", plain, 20000, 60, []int{128}},
		{"longest ones after 60 long ones", plain, 65507, 15, []int{13, 4}},
		{"empty ones after the longest", plain, 0, 6, []int{4, 8}},
		{"one after two", plain, 9, 1, []int{4}},
	} {
		m := slices.Repeat([]packet.Datagram{gram(to.at(loop4), tt.length, 0)}, tt.count)
		for part := range slices.Chunk(m, 46) {
			if n, err := tt.from.WriteBatch(part); n != len(part) || err != nil {
				t.Fatalf("WriteBatch = %d, %v", n, err)
			}
		}
		var wants []int
		for got := 0; got < len(m); wants = append(wants, to.rx.want) {
			n, err := to.ReadBatch(in)
			if err != nil {
				t.Fatal(err)
			}
			got += countAll(in[:n])
		}
		if !slices.Equal(wants, tt.wants) {
			t.Errorf("%s: the calls offer %v slots, want %v", tt.what, wants, tt.wants)
		}
	}
	if !to.rx.prepare(in[:3]) || to.rx.want != 3 {
		t.Errorf("a batch of 3: %d slots offered", to.rx.want)
	}
}

// slot has room for a datagram of that many bytes.
func slot(room int) packet.Datagram {
	return packet.Datagram{Mem: make([]byte, packet.Headroom+room+packet.Tailroom)}
}

// readEmpty takes the step of a read from the empty socket, which would wait.
func readEmpty(t *testing.T, s *Socket, slots ...packet.Datagram) {
	t.Helper()
	done := !s.rx.prepare(slots)
	err := s.conn.Control(func(fd uintptr) { done = done || s.receiveStep(fd) })
	if done || err != nil {
		t.Fatalf("a read from an empty socket does not wait, %v", err)
	}
}

// TestSmallSlotsEndGRO loses what was coalesced before the first read, knows
// how much that was, and from the empty queue on reads one datagram to a slot.
func TestSmallSlotsEndGRO(t *testing.T) {
	for _, addr := range []netip.Addr{loop4, loop6} {
		a, b := listenUDP(t, Config{}), listenUDP(t, Config{})
		write := func(m []packet.Datagram) {
			if n, err := a.WriteBatch(m); n != len(m) || err != nil {
				t.Fatalf("WriteBatch = %d, %v; want %d, nil", n, err, len(m))
			}
		}
		m := equalBatch(b.at(addr), 5)
		m[4].Len = 50
		write(m)
		write(m[4:])
		in := []packet.Datagram{slot(100), slot(100)}
		n, err := b.ReadBatch(in)
		if n != 1 || err != nil || in[0].Len != 50 || b.Skips().Truncated != 5 {
			t.Fatalf("ReadBatch = %d, %v, %d bytes, %d lost; want 1, nil, 50, 5", n, err, in[0].Len, b.Skips().Truncated)
		}
		if in[1].Len != 0 || in[1].SegmentSize != 0 {
			t.Errorf("the slot that was too small has %d bytes by %d, want nothing", in[1].Len, in[1].SegmentSize)
		}
		readEmpty(t, b, slot(packet.MaxLen), slot(packet.MaxLen))
		if v, err := b.Option(unix.SOL_UDP, unix.UDP_GRO); v != 1 || err != nil || !b.Offloads().GRO {
			t.Errorf("UDP_GRO = %d, %v, %+v; want 1: the slots were large, or the queue not empty", v, err, b.Offloads())
		}
		readEmpty(t, b, slot(packet.MaxLen), slot(packet.MaxLen-1), slot(packet.MaxLen))
		if v, err := b.Option(unix.SOL_UDP, unix.UDP_GRO); v != 0 || err != nil || b.Offloads().GRO {
			t.Errorf("UDP_GRO = %d, %v, %+v; want 0", v, err, b.Offloads())
		}
		write(m)
		for i, d := range readAll(t, b, 5, 1) {
			if d.Len != m[i].Len || d.SegmentSize != 0 {
				t.Errorf("after GRO: %d bytes in segments of %d; want %d, 0", d.Len, d.SegmentSize, m[i].Len)
			}
		}
		if b.Skips().Truncated != 5 || b.Offloads().ReceivedSuperpackets != 0 {
			t.Errorf("after GRO: %+v, %+v; want no more lost, no superpackets", b.Skips(), b.Offloads())
		}
	}
}

func TestCloseDropsWhatIsQueued(t *testing.T) {
	a, b := listenUDP(t, Config{Address: loop4}), listenUDP(t, Config{Address: loop4})
	if _, err := a.WriteBatch(equalBatch(b.at(loop4), 5)); err != nil {
		t.Fatal(err)
	}
	b.Close()
	if n, err := b.ReadBatch(packet.NewDatagrams(2)); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("ReadBatch after Close = %d, %v; want 0, net.ErrClosed", n, err)
	}
}
