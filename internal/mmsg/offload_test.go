package mmsg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
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

// patience bounds what must not take long.
const patience = 20 * time.Second

func listenUDP(t testing.TB, cfg Config) *Socket {
	t.Helper()
	s, err := ListenUDP(cfg)
	if err != nil {
		t.Fatalf("ListenUDP(%+v): %v", cfg, err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func (s *Socket) at(addr netip.Addr) netip.AddrPort { return netip.AddrPortFrom(addr, s.port) }

// gram is a datagram of n bytes in memory of its own, with a number in front
// where there is room.
func gram(to netip.AddrPort, n int, number uint32) packet.Datagram {
	d := packet.Datagram{Mem: make([]byte, packet.Headroom+max(n, 4)), Off: packet.Headroom, Len: n, Addr: to}
	for i := range d.Mem {
		d.Mem[i] = byte(uint32(i) * (number + 3))
	}
	binary.BigEndian.PutUint32(d.Mem[d.Off:], number)
	return d
}

// readAll reads n datagrams in batches of at most batch slots, superpackets
// taken apart, and closes the socket when they do not come.
func readAll(t testing.TB, s *Socket, n, batch int) []packet.Datagram {
	t.Helper()
	timer := time.AfterFunc(patience, func() { s.Close() })
	defer timer.Stop()
	in := packet.NewDatagrams(batch)
	var all []packet.Datagram
	for len(all) < n {
		k, err := s.ReadBatch(in)
		if err != nil {
			t.Fatalf("ReadBatch after %d of %d datagrams: %v", len(all), n, err)
		}
		for _, d := range in[:k] {
			d.Mem = bytes.Clone(d.Mem[:d.Off+d.Len])
			all = append(all, segmentsOf(d)...)
		}
	}
	if len(all) > n {
		t.Fatalf("ReadBatch gave %d datagrams, want %d", len(all), n)
	}
	return all
}

// TestSuperpacketsTakeEqualNeighbours lists datagrams as length, peer, class,
// source and DF, and the segments of each header that they become.
func TestSuperpacketsTakeEqualNeighbours(t *testing.T) {
	s := listenUDP(t, Config{})
	type g struct {
		n     int
		port  uint16
		tos   uint8
		local bool
		df    bool
	}
	many := func(n, count int) []g { return slices.Repeat([]g{{n: n}}, count) }
	for _, tt := range []struct {
		name     string
		in       []g
		segments string
	}{
		{"one", []g{{n: 5}}, "1"},
		{"equal", many(5, 4), "4"},
		{"short last ends it", []g{{n: 5}, {n: 5}, {n: 3}, {n: 3}, {n: 5}}, "3 1 1"},
		{"longer begins another", []g{{n: 5}, {n: 6}, {n: 6}}, "1 2"},
		{"empty ones travel alone", []g{{n: 5}, {n: 0}, {n: 0}, {n: 5}}, "1 1 1 1"},
		{"peer", []g{{n: 5}, {n: 5, port: 1}, {n: 5, port: 1}, {n: 5}}, "1 2 1"},
		{"class", []g{{n: 5}, {n: 5, tos: 2}, {n: 5, tos: 2}}, "1 2"},
		{"source", []g{{n: 5}, {n: 5, local: true}, {n: 5, local: true}}, "1 2"},
		{"DF is another fill", []g{{n: 5}, {n: 5}, {n: 5, df: true}, {n: 5, df: true}, {n: 5, df: true}}, "2 | 3"},
		{"most segments", many(5, 130), "63 63 4"},
		{"most bytes", many(1400, 63), "46 17"},
		{"longest", many(65507, 2), "1 1"},
		{"half of the most", many(32500, 3), "2 1"},
		{"more than half", many(32501, 2), "1 1"},
	} {
		m := make([]packet.Datagram, len(tt.in))
		for i, g := range tt.in {
			m[i] = gram(netip.AddrPortFrom(loop4, 1000+g.port), g.n, uint32(i))
			m[i].TOS, m[i].DF = g.tos, g.df
			if g.local {
				m[i].Local = loop4
			}
		}
		var fills []string
		for at := (cursor{}); at.index < len(m); {
			var errno syscall.Errno
			if at, errno = s.fill(m, at, true); errno != 0 {
				t.Fatalf("%s: %v", tt.name, errno)
			}
			for i, n := range s.tx.segments[:s.tx.end] {
				d := m[s.tx.start[i].index]
				if control := s.tx.hdrs[i].hdr.Controllen > 0; control != (n > 1 || d.TOS > 0 || d.Local.IsValid()) {
					t.Errorf("%s: header %d of %d segments has control messages: %v", tt.name, i, n, control)
				}
			}
			fills = append(fills, strings.Trim(fmt.Sprint(s.tx.segments[:s.tx.end]), "[]"))
		}
		if got := strings.Join(fills, " | "); got != tt.segments {
			t.Errorf("%s: headers of %s segments, want %s", tt.name, got, tt.segments)
		}
	}
}

// refusing asks errno about each superpacket and lets it fail, after the
// headers in front of it are out, as the kernel does it.
func refusing(t *sender, errno func() syscall.Errno) {
	t.sendmmsg = func(fd uintptr, hdrs []mmsghdr) (int, syscall.Errno) {
		for i := range hdrs {
			if t.segments[t.next+i] < 2 {
				continue
			}
			if e := errno(); e != 0 {
				if i == 0 {
					return 0, e
				}
				return sendmmsg(fd, hdrs[:i])
			}
		}
		return sendmmsg(fd, hdrs)
	}
}

func equalBatch(to netip.AddrPort, n int) []packet.Datagram {
	m := make([]packet.Datagram, n)
	for i := range m {
		m[i] = gram(to, 100, uint32(i))
	}
	return m
}

func expectNumbers(t *testing.T, what string, got []packet.Datagram) {
	t.Helper()
	for i, d := range got {
		if n := binary.BigEndian.Uint32(d.Bytes()); int(n) != i {
			t.Fatalf("%s: datagram %d is number %d", what, i, n)
		}
	}
}

func TestFallbackAfterEIOIsForGood(t *testing.T) {
	a, b := listenUDP(t, Config{Address: loop4}), listenUDP(t, Config{Address: loop4})
	refusing(&a.tx, func() syscall.Errno { return unix.EIO })
	for range 3 {
		if n, err := a.WriteBatch(equalBatch(b.at(loop4), 100)); n != 100 || err != nil {
			t.Fatalf("WriteBatch = %d, %v; want 100, nil", n, err)
		}
		expectNumbers(t, "EIO", readAll(t, b, 100, 128))
	}
	if o := a.Offloads(); o.GSO || o.FallbackEIO != 1 || o.SentSuperpackets != 0 {
		t.Errorf("after three batches: %+v, want one EIO and no GSO", o)
	}
}

// TestFallbackPausesAreDoubled counts the attempts in 2000 batches: 1, then one
// after pauses of 1, 2, 4 … 256 batches.
func TestFallbackPausesAreDoubled(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.EINVAL, unix.EMSGSIZE} {
		a, b := listenUDP(t, Config{Address: loop4}), listenUDP(t, Config{Address: loop4})
		refused, fail := 0, errno
		refusing(&a.tx, func() syscall.Errno { refused++; return fail })
		batch := equalBatch(b.at(loop4), 3)
		want, next, pause := 0, 0, 1
		for i := range 2000 {
			if i == next {
				want, next, pause = want+1, i+pause+1, min(2*pause, maxPause)
			}
			if n, err := a.WriteBatch(batch); n != 3 || err != nil {
				t.Fatalf("%v: WriteBatch = %d, %v; want 3, nil", errno, n, err)
			}
			expectNumbers(t, errno.Error(), readAll(t, b, 3, 8))
			if refused != want {
				t.Fatalf("%v: %d attempts after %d batches, want %d", errno, refused, i+1, want)
			}
		}
		o := a.Offloads()
		if !o.GSO || o.FallbackEINVAL+o.FallbackEMSGSIZE != uint64(want) || o.FallbackEIO != 0 {
			t.Errorf("%v: %+v, want %d fallbacks", errno, o, want)
		}
		// One that is sent takes the pauses back.
		fail = 0
		for range maxPause + 1 {
			if _, err := a.WriteBatch(batch); err != nil {
				t.Fatal(err)
			}
			readAll(t, b, 3, 8)
		}
		if a.Offloads().SentSuperpackets == 0 || a.tx.nextPause != 0 {
			t.Errorf("%v: %+v, next pause %d; want superpackets again, and 0", errno, a.Offloads(), a.tx.nextPause)
		}
	}
}

// TestOtherErrorsAreTheFirstDatagrams has the second superpacket fail.
func TestOtherErrorsAreTheFirstDatagrams(t *testing.T) {
	a, b := listenUDP(t, Config{Address: loop4}), listenUDP(t, Config{Address: loop4})
	calls := 0
	refusing(&a.tx, func() syscall.Errno {
		if calls++; calls == 2 || calls == 3 {
			return unix.ENETUNREACH
		}
		return 0
	})
	m := equalBatch(b.at(loop4), 100)
	n, err := a.WriteBatch(m)
	if n != maxSegments || !errors.Is(err, unix.ENETUNREACH) {
		t.Fatalf("WriteBatch = %d, %v; want %d, ENETUNREACH", n, err, maxSegments)
	}
	if n, err := a.WriteBatch(m[n+1:]); n != 100-maxSegments-1 || err != nil {
		t.Fatalf("WriteBatch of the rest = %d, %v; want %d, nil", n, err, 100-maxSegments-1)
	}
	for i, d := range readAll(t, b, 99, 128) {
		want := uint32(i)
		if i >= maxSegments {
			want++
		}
		if got := binary.BigEndian.Uint32(d.Bytes()); got != want {
			t.Fatalf("datagram %d is number %d, want %d", i, got, want)
		}
	}
	if o := a.Offloads(); !o.GSO || o.FallbackEINVAL+o.FallbackEIO+o.FallbackEMSGSIZE != 0 {
		t.Errorf("%+v, want no fallback", o)
	}
}

// TestAnyBatchArrives is the property: whatever is in a batch and whichever
// superpackets the kernel refuses, each peer gets its datagrams, once and in
// order, as they were sent.
func TestAnyBatchArrives(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		a := listenUDP(t, Config{})
		if seed%3 > 0 {
			errnos := []syscall.Errno{unix.EINVAL, unix.EMSGSIZE, 0, 0, unix.EIO}[:4+seed%2]
			refusing(&a.tx, func() syscall.Errno { return errnos[rng.IntN(len(errnos))] })
		}
		peers := []*Socket{listenUDP(t, Config{}), listenUDP(t, Config{Offload: OffloadOff}), listenUDP(t, Config{Address: loop4})}
		for range 4 {
			want := make([][]packet.Datagram, len(peers))
			batch := randomBatch(rng, peers, want)
			if n, err := a.WriteBatch(batch); n != len(batch) || err != nil {
				t.Fatalf("seed %d: WriteBatch = %d of %d, %v", seed, n, len(batch), err)
			}
			for p, peer := range peers {
				expectAll(t, fmt.Sprintf("seed %d, peer %d", seed, p), a.port, readAll(t, peer, len(want[p]), 1+rng.IntN(100)), want[p])
			}
		}
		for _, s := range append(peers, a) {
			s.Close() // not later: sixty tests' worth of memory
		}
	}
}

func expectAll(t *testing.T, what string, port uint16, got, want []packet.Datagram) {
	t.Helper()
	for i, d := range got {
		w := want[i]
		if !bytes.Equal(d.Bytes(), w.Bytes()) || d.TOS != w.TOS || d.Local != w.Addr.Addr() || d.Addr.Port() != port {
			t.Fatalf("%s, datagram %d: %d bytes, class %#x, from %v to %v; want %d bytes, class %#x, to %v",
				what, i, d.Len, d.TOS, d.Addr, d.Local, w.Len, w.TOS, w.Addr)
		}
	}
}

// randomBatch mixes runs of equal datagrams, segmented ones and single ones, in
// memory of their own and back to back, and adds what each peer is to get to want.
func randomBatch(rng *rand.Rand, peers []*Socket, want [][]packet.Datagram) []packet.Datagram {
	var batch []packet.Datagram
	for range 1 + rng.IntN(8) {
		p, addr, n := rng.IntN(len(peers)), loop4, 1+rng.IntN(300)
		if peers[p].ipv6 && rng.IntN(2) == 0 {
			addr = loop6
		}
		tos, df := []uint8{0, 1, 0xb8}[rng.IntN(3)], rng.IntN(4) == 0
		d := gram(peers[p].at(addr), 0, 0)
		for range 1 + rng.IntN(1+rng.IntN(70)) {
			last := d
			d = gram(d.Addr, n, rng.Uint32())
			d.TOS, d.DF = tos, df
			if rng.IntN(10) == 0 {
				d.Len = rng.IntN(n + 1)
			}
			if end := last.Off + last.Len; rng.IntN(4) > 0 && end+d.Len <= len(last.Mem) {
				copy(last.Mem[end:], d.Bytes())
				d.Mem, d.Off = last.Mem, end
			} else {
				d.Mem = append(d.Mem, make([]byte, 10*n)...)
			}
			if rng.IntN(8) == 0 {
				d.SegmentSize = 1 + n/8 + rng.IntN(n)
			}
			batch = append(batch, d)
			want[p] = append(want[p], segmentsOf(d)...)
		}
	}
	return batch
}

func segmentsOf(d packet.Datagram) (out []packet.Datagram) {
	if d.SegmentSize == 0 || d.Len <= d.SegmentSize {
		return []packet.Datagram{d}
	}
	for off := 0; off < d.Len; off += d.SegmentSize {
		s := d
		s.Off, s.Len = d.Off+off, min(d.SegmentSize, d.Len-off)
		out = append(out, s)
	}
	return out
}

func countAll(m []packet.Datagram) (n int) {
	for i := range m {
		n += datagrams(&m[i])
	}
	return n
}

func TestSuperpacketsAllocateNothing(t *testing.T) {
	for _, o := range []Offload{OffloadAuto, OffloadOff} {
		a, b := listenUDP(t, Config{Offload: o}), listenUDP(t, Config{Offload: o})
		out, in := equalBatch(b.at(loop6), 128), packet.NewDatagrams(100)
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
			t.Errorf("offload %d: %v allocations per batch, want 0", o, got)
		}
	}
}

func TestCloseUnderLoad(t *testing.T) {
	a, b := listenUDP(t, Config{}), listenUDP(t, Config{})
	const writers, readers = 3, 2
	var got atomic.Uint64
	enough := make(chan struct{})
	errs := make(chan error, writers+readers)
	for range writers {
		go func() {
			batch := equalBatch(b.at(loop4), 100)
			for {
				if n, err := a.WriteBatch(batch); err != nil || n != len(batch) {
					errs <- err
					return
				}
			}
		}()
	}
	for range readers {
		go func() {
			in := packet.NewDatagrams(50)
			for {
				k, err := b.ReadBatch(in)
				if err != nil {
					errs <- err
					return
				}
				n := uint64(countAll(in[:k]))
				if sum := got.Add(n); sum > 20000 && sum-n <= 20000 {
					close(enough)
				}
			}
		}()
	}
	select {
	case <-enough:
	case <-time.After(patience):
		t.Errorf("%d datagrams came, want 20000", got.Load())
	}
	a.Close()
	b.Close()
	for range writers + readers {
		select {
		case err := <-errs:
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("ended with %v, want net.ErrClosed", err)
			}
		case <-time.After(patience):
			t.Fatal("Close does not end all readers and writers")
		}
	}
}

func TestOffloadOffIsPlain(t *testing.T) {
	a := listenUDP(t, Config{Address: loop4, Offload: OffloadOff})
	if v, err := a.Option(unix.SOL_UDP, unix.UDP_GRO); v != 0 || err != nil {
		t.Errorf("UDP_GRO = %d, %v; want 0", v, err)
	}
	if _, err := a.WriteBatch(equalBatch(a.at(loop4), 10)); err != nil {
		t.Fatal(err)
	}
	readAll(t, a, 10, 3)
	if got := a.Offloads(); got != (Offloads{}) {
		t.Errorf("Offloads = %+v, want nothing", got)
	}
	if got := listenUDP(t, Config{}).Offloads(); !got.GSO || !got.GRO {
		t.Errorf("Offloads of a new socket = %+v, want both", got)
	}
}
