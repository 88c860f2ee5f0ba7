package sad

import (
	"encoding/binary"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/adit-ipsec/adit/esp"
)

// batch is packets whose headers carry these low halves.
func batch(lows ...uint32) []esp.Packet {
	b := make([]esp.Packet, len(lows))
	for i, low := range lows {
		b[i].Seq = uint64(low)
	}
	return b
}

// receive is Check and Mark of packets that all pass the ICV.
func receive(sa *SA, lows ...uint32) []esp.Packet {
	b := batch(lows...)
	sa.Check(b)
	sa.Mark(b)
	return b
}

func errs(b []esp.Packet) (out []error) {
	for i := range b {
		out = append(out, b[i].Err)
	}
	return out
}

func wantErrs(t *testing.T, b []esp.Packet, want ...error) {
	t.Helper()
	if got := errs(b); !slices.Equal(got, want) {
		t.Fatalf("expected %v, seen %v", want, got)
	}
}

func wantStats(t *testing.T, sa *SA, edge, replayDrops, authDrops uint64) {
	t.Helper()
	if s := sa.Stats(); s.Seq != edge || s.ReplayDrops != replayDrops || s.AuthDrops != authDrops {
		t.Fatalf("expected edge %#x, %d replays, %d failures; seen %#x, %d, %d", edge, replayDrops, authDrops, s.Seq, s.ReplayDrops, s.AuthDrops)
	}
}

func withESN(t *testing.T, esn bool) *SA {
	p := inbound(t)
	p.ESN = esn
	return newSA(t, p)
}

func TestCR05_SameNumberEightTimesInABatch(t *testing.T) {
	for _, esn := range []bool{false, true} {
		sa := withESN(t, esn)
		b := batch(9, 9, 9, 9, 9, 9, 9, 9)
		sa.Check(b)
		wantErrs(t, b, nil, nil, nil, nil, nil, nil, nil, nil)
		wantStats(t, sa, 0, 0, 0) // Check moves nothing
		sa.Mark(b)
		wantErrs(t, b, nil, ErrReplay, ErrReplay, ErrReplay, ErrReplay, ErrReplay, ErrReplay, ErrReplay)
		wantStats(t, sa, 9, 7, 0)
		b = batch(9, 9)
		sa.Check(b)
		wantErrs(t, b, ErrReplay, ErrReplay)
		wantStats(t, sa, 9, 9, 0)
	}
}

func TestCR06_MixedBatch(t *testing.T) {
	sa := withESN(t, false)
	receive(sa, 5000, 4990)
	b := batch(5001, 5000, 904, 905, 4990, 0, 4991, 5001, 7000, 2000)
	b[8].Err = esp.ErrMalformed // not ours to judge
	sa.Check(b)
	wantErrs(t, b, nil, ErrReplay, ErrReplay, nil, ErrReplay, ErrReplay, nil, nil, esp.ErrMalformed, nil)
	wantStats(t, sa, 5000, 4, 0)
	b[9].Err = esp.ErrAuth // the ICV is computed here
	sa.Mark(b)
	// 905 was the bottom of the window until 5001 was marked before it.
	wantErrs(t, b, nil, ErrReplay, ErrReplay, ErrReplay, ErrReplay, ErrReplay, nil, ErrReplay, esp.ErrMalformed, esp.ErrAuth)
	wantStats(t, sa, 5001, 6, 1)
	if b[8].Seq != 7000 {
		t.Errorf("Check touched a packet that had an error: Seq %d", b[8].Seq)
	}
	// The forged 2000 was not marked: the real one may still come.
	wantErrs(t, receive(sa, 2000, 7000), nil, nil)
}

func TestCR07_ForgedPacketDoesNotMoveWindow(t *testing.T) {
	for _, esn := range []bool{false, true} {
		sa := withESN(t, esn)
		receive(sa, 100)
		for i := range uint32(17) {
			b := batch(1<<30 + i)
			sa.Check(b)
			wantErrs(t, b, nil)
			b[0].Err = esp.ErrAuth
			sa.Mark(b)
			wantErrs(t, b, esp.ErrAuth)
			wantStats(t, sa, 100, 0, uint64(i)+1)
		}
		wantErrs(t, receive(sa, 101, 99, 100), nil, nil, ErrReplay)
		wantStats(t, sa, 101, 1, 17)
	}
}

// The same with real packets: sealed by one SA, forged on the way, opened by the
// other.
func TestCR07_ForgedCiphertext(t *testing.T) {
	for _, name := range []string{"aes128gcm16", "aes128-sha256", "chacha20poly1305"} {
		p := params(t, Outbound, 0x1001, name, 7)
		p.ESN = true
		out := newSA(t, p)
		p.Direction = Inbound
		in := newSA(t, p)
		sc := esp.NewScratch()
		seal := func(seq uint64) esp.Packet {
			b := []esp.Packet{{Seq: seq, NextHeader: 4, Payload: make([]byte, 64, 512), Wire: make([]byte, 512)}}
			out.Transform.Seal(sc, out.SPI, b)
			if b[0].Err != nil {
				t.Fatal(b[0].Err)
			}
			return esp.Packet{Seq: seq & math.MaxUint32, Wire: b[0].Wire}
		}
		first, _ := out.Reserve(1)
		b := []esp.Packet{seal(first)}
		open := func() { in.Check(b); in.Transform.Open(sc, b); in.Mark(b) }
		open()
		wantErrs(t, b, nil)
		for range 17 {
			forged := seal(1 << 31)
			forged.Wire[len(forged.Wire)-1] ^= 1
			b = []esp.Packet{forged}
			open()
			wantErrs(t, b, esp.ErrAuth)
		}
		wantStats(t, in, first, 0, 17)
		// A number changed in the header fails the ICV as well.
		moved := seal(2)
		binary.BigEndian.PutUint32(moved.Wire[4:], 77)
		moved.Seq = 77
		b = []esp.Packet{moved, seal(2)}
		open()
		wantErrs(t, b, esp.ErrAuth, nil)
		wantStats(t, in, 2, 0, 18)
	}
}

func TestCR08_ZeroIsRefusedWithAndWithoutWindow(t *testing.T) {
	for _, window := range []int{0, 64} {
		p := inbound(t)
		p.ReplayWindow = window
		sa := newSA(t, p)
		b := batch(0, 1, 0)
		sa.Check(b)
		wantErrs(t, b, ErrReplay, nil, ErrReplay)
		if s := sa.Stats(); s.ReplayDrops != 2 {
			t.Errorf("window %d: replays: expected 2, seen %d", window, s.ReplayDrops)
		}
	}
}

// RFC 4303 3.4.3: "If the receiver does not enable anti-replay for an SA, no
// inbound checks are performed on the Sequence Number."
func TestWithoutWindowOnlyZeroIsRefused(t *testing.T) {
	p := inbound(t)
	p.ReplayWindow = 0
	sa := newSA(t, p)
	wantErrs(t, receive(sa, 7, 7, 1, math.MaxUint32, 1), nil, nil, nil, nil, nil)
	b := batch(5)
	b[0].Err = esp.ErrAuth
	sa.Check(b)
	sa.Mark(b)
	wantStats(t, sa, 0, 0, 1)
}

func TestCR09_ESNWrapWithReorder(t *testing.T) {
	sa := withESN(t, true)
	receive(sa, math.MaxUint32-3)
	b := receive(sa, 2, math.MaxUint32, 0, math.MaxUint32-1, 1, math.MaxUint32)
	wantErrs(t, b, nil, nil, nil, nil, nil, ErrReplay)
	for i, want := range []uint64{1<<32 + 2, math.MaxUint32, 1 << 32, math.MaxUint32 - 1, 1<<32 + 1} {
		if b[i].Seq != want {
			t.Errorf("packet %d: Seq expected %#x, seen %#x", i, want, b[i].Seq)
		}
	}
	wantStats(t, sa, 1<<32+2, 1, 0)
	// Behind the window the guess is the next subspace: forged or stale, it
	// fails the ICV and nothing moves.
	b = batch(100_000, uint32(1<<32-5000))
	sa.Check(b)
	if b[0].Seq != 1<<32+100_000 || b[1].Seq != 2<<32-5000 {
		t.Errorf("Seq: expected numbers ahead, seen %#x and %#x", b[0].Seq, b[1].Seq)
	}
	// Without ESN the same is the end.
	sa = withESN(t, false)
	receive(sa, math.MaxUint32)
	wantErrs(t, receive(sa, 0, 1, 2), ErrReplay, ErrReplay, ErrReplay)
}

// A batch that was checked before the window moved on is marked with the number
// it was opened under.
func TestMarkTakesTheNumberThatWasAuthenticated(t *testing.T) {
	sa := withESN(t, true)
	receive(sa, 1<<31)
	late := batch(1<<31 + 1)
	sa.Check(late)
	receive(sa, math.MaxUint32)
	receive(sa, 1<<31-1) // far on: the next subspace
	if edge := sa.Stats().Seq; edge != 1<<32+1<<31-1 {
		t.Fatalf("edge: seen %#x", edge)
	}
	sa.Mark(late)
	wantErrs(t, late, ErrReplay) // far behind by now
}

// After too many failures the window tries other subspaces (RFC 4303 A3), and
// batches are what tells it.
func TestRFC4303_A3_MarkFeedsResynchronization(t *testing.T) {
	sa := withESN(t, true)
	receive(sa, 1000)
	seq := uint64(3<<32 + 5000) // the sender, after a loss of three subspaces
	for range 10_000 {
		b := make([]esp.Packet, 32)
		for i := range b {
			b[i].Seq = uint64(uint32(seq) + uint32(i))
		}
		sa.Check(b)
		for i := range b {
			if b[i].Err == nil && b[i].Seq != seq+uint64(i) {
				b[i].Err = esp.ErrAuth
			}
		}
		sa.Mark(b)
		if sa.Stats().Seq > 3<<32 {
			return
		}
		seq += uint64(len(b))
	}
	t.Errorf("edge: expected to reach subspace 3, seen %#x", sa.Stats().Seq)
}

// Workers share an SA: each number is delivered once, whoever has it.
func TestConcurrentWorkersDeliverEachNumberOnce(t *testing.T) {
	const numbers, workers, size = 20_000, 4, 16
	sa := withESN(t, false) // a worker left behind sees old numbers, not new subspaces
	var delivered [numbers + 1]atomic.Int32
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for at := 1; at+size <= numbers+1; at += size {
				b := make([]esp.Packet, size)
				for i := range b {
					b[i].Seq = uint64(at + (i+w*5)%size)
				}
				sa.Check(b)
				sa.Mark(b)
				for i := range b {
					if b[i].Err == nil {
						delivered[b[i].Seq].Add(1)
					}
				}
			}
		})
	}
	wg.Wait()
	count := uint64(0)
	for seq := range delivered {
		n := delivered[seq].Load()
		if n > 1 {
			t.Fatalf("number %d: delivered %d times", seq, n)
		}
		count += uint64(n)
	}
	if s := sa.Stats(); count+s.ReplayDrops != workers*numbers || count == 0 {
		t.Errorf("delivered %d and dropped %d: expected %d together", count, s.ReplayDrops, workers*numbers)
	}
}

func TestTouchAndDropsAreCounted(t *testing.T) {
	sa := newSA(t, inbound(t))
	if s := sa.Stats(); s.LastUsed != 0 || s.Packets != 0 || s.ReplayWindow != 4096 || s.ID != sa.ID() {
		t.Errorf("Stats of a new SA: seen %+v", s)
	}
	sa.Touch(12345, 3, 4200)
	sa.Touch(12346, 1, 100)
	sa.CountDrop(2)
	if s := sa.Stats(); s.Packets != 4 || s.Bytes != 4300 || s.LastUsed != 12346 || s.OtherDrops != 2 {
		t.Errorf("Stats: expected 4 packets, 4300 bytes, 12346, 2 drops; seen %+v", s)
	}
}

func TestPacketPathDoesNotAllocate(t *testing.T) {
	in, out := withESN(t, true), newSA(t, outbound(t))
	db := NewDatabase()
	if err := db.Install(in, out); err != nil {
		t.Fatal(err)
	}
	f := flow("10.2.0.1", "10.1.0.1")
	b := make([]esp.Packet, 32)
	next := uint32(0)
	if allocs := testing.AllocsPerRun(1000, func() {
		for i := range b {
			next++
			b[i] = esp.Packet{Seq: uint64(next)}
		}
		s := db.Load()
		sa := s.Inbound(0x1001)
		sa.Check(b)
		b[3].Err = esp.ErrAuth
		sa.Mark(b)
		sa.Touch(1, 31, 1000)
		o := s.Outbound("site-b", "lan")
		o.Reserve(32)
		if o.Exhausted() || o.NeedsReservation() || !o.Matches(Outbound, f) || s.Inbound(99) != nil || s.Outbound("x", "y") != nil {
			t.Error("unexpected")
		}
	}); allocs != 0 {
		t.Errorf("allocations per batch: expected 0, seen %v", allocs)
	}
}
