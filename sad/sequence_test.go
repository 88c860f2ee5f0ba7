package sad

import (
	"cmp"
	"errors"
	"math"
	"slices"
	"sync"
	"testing"
)

// wantReserve expects Reserve(n) to grant this run.
func wantReserve(t *testing.T, sa *SA, n int, first uint64, granted int) {
	t.Helper()
	if f, g := sa.Reserve(n); f != first || g != granted {
		t.Fatalf("Reserve(%d): expected %d from %#x, seen %d from %#x", n, granted, first, g, f)
	}
}

func TestCS01_FirstPacketIs1AndEachIsOneMore(t *testing.T) {
	for _, esn := range []bool{false, true} {
		p := outbound(t)
		p.ESN = esn
		sa := newSA(t, p)
		for want := uint64(1); want <= 1000; want++ {
			wantReserve(t, sa, 1, want, 1)
		}
		wantReserve(t, sa, 44, 1001, 44)
		wantReserve(t, sa, 1, 1045, 1)
		wantReserve(t, sa, 0, 0, 0)
		wantReserve(t, sa, -5, 0, 0)
		if s := sa.Stats(); s.Seq != 1045 || s.Exhausted {
			t.Errorf("Stats: expected 1045 and not exhausted, seen %d, %v", s.Seq, s.Exhausted)
		}
	}
}

// RFC 4303 3.3.3: "the sender MUST NOT send a packet on an SA if doing so would
// cause the sequence number to cycle."
func TestCS02_NoPacketAfterTheLastNumber(t *testing.T) {
	for _, c := range []struct {
		esn   bool
		space uint64
	}{{false, math.MaxUint32}, {true, math.MaxUint64}} {
		p := outbound(t)
		p.ESN = c.esn
		sa := newSA(t, p)
		sa.skipTo(c.space - 10)
		wantReserve(t, sa, 4, c.space-9, 4)
		if sa.Exhausted() {
			t.Fatalf("ESN %v: exhausted with 6 numbers left", c.esn)
		}
		wantReserve(t, sa, 100, c.space-5, 6)
		for range 1000 {
			wantReserve(t, sa, 1, 0, 0)
			wantReserve(t, sa, math.MaxInt, 0, 0)
		}
		if !sa.Exhausted() || !sa.Stats().Exhausted || sa.Stats().Seq != c.space {
			t.Errorf("ESN %v: expected exhausted at %#x, seen %+v", c.esn, c.space, sa.Stats())
		}
		if sa.NeedsReservation() || sa.ExtendReservation() != nil {
			t.Errorf("ESN %v: an SA without a store asks for a reservation", c.esn)
		}
	}
}

func TestESNPasses32Bits(t *testing.T) {
	p := outbound(t)
	p.ESN = true
	sa := newSA(t, p)
	sa.skipTo(math.MaxUint32 - 2)
	wantReserve(t, sa, 10, math.MaxUint32-1, 10)
	wantReserve(t, sa, 1, 1<<32+8, 1)
}

func TestInboundIsNeverExhausted(t *testing.T) {
	if sa := newSA(t, inbound(t)); sa.Exhausted() || sa.NeedsReservation() {
		t.Error("an inbound SA is exhausted or asks for numbers")
	}
}

// Many workers at once: the union of what they get is exactly 1..N, none twice.
func TestReserveGrantsEveryNumberOnce(t *testing.T) {
	const workers, calls = 8, 100_000
	sa := newSA(t, outbound(t))
	type run struct {
		first uint64
		n     int
	}
	runs := make([][]run, workers)
	start := make(chan struct{})
	var ready, done sync.WaitGroup
	for w := range workers {
		runs[w] = make([]run, calls)
		ready.Add(1)
		done.Go(func() {
			ready.Done()
			<-start // all at once: a few calls end before a goroutine starts
			for i := range calls {
				first, n := sa.Reserve(1 + (w+i)%45)
				runs[w][i] = run{first, n}
			}
		})
	}
	ready.Wait()
	close(start)
	done.Wait()
	all := slices.Concat(runs...)
	slices.SortFunc(all, func(a, b run) int { return cmp.Compare(a.first, b.first) })
	next := uint64(1)
	for _, r := range all {
		if r.first != next {
			t.Fatalf("expected a run from %d, seen one from %d", next, r.first)
		}
		next += uint64(r.n)
	}
	if sa.Stats().Seq != next-1 {
		t.Errorf("last number: expected %d, seen %d", next-1, sa.Stats().Seq)
	}
}

// The end of the space under concurrency: exactly what is left is granted.
func TestReserveAtTheEndUnderConcurrency(t *testing.T) {
	const left = 10_000
	sa := newSA(t, outbound(t))
	sa.skipTo(math.MaxUint32 - left)
	var wg sync.WaitGroup
	seen := make([]map[uint64]bool, 8)
	for w := range seen {
		seen[w] = map[uint64]bool{}
		wg.Go(func() {
			for {
				first, n := sa.Reserve(7)
				if n == 0 {
					return
				}
				for i := range uint64(n) {
					seen[w][first+i] = true
				}
			}
		})
	}
	wg.Wait()
	all := map[uint64]bool{}
	for _, part := range seen {
		for seq := range part {
			if all[seq] {
				t.Fatalf("%#x granted twice", seq)
			}
			all[seq] = true
		}
	}
	if len(all) != left || !all[math.MaxUint32] || !all[math.MaxUint32-left+1] {
		t.Errorf("expected the last %d numbers, seen %d", left, len(all))
	}
}

func manual(t testing.TB, store SequenceStore) Params {
	p := outbound(t)
	p.FreshKeys, p.Sequence = false, store
	return p
}

func TestCS05_NumbersStayBehindWhatIsDurable(t *testing.T) {
	store := newMemoryStore()
	sa := newSA(t, manual(t, store))
	id := sa.KeyID()
	if store.reserved[id] != ReservationBlock {
		t.Fatalf("New made %d numbers durable, expected %d", store.reserved[id], ReservationBlock)
	}
	half := ReservationBlock/2 - 1
	wantReserve(t, sa, half, 1, half)
	if sa.NeedsReservation() {
		t.Error("NeedsReservation with more than half a block left")
	}
	wantReserve(t, sa, 1, uint64(half)+1, 1)
	if !sa.NeedsReservation() {
		t.Error("NeedsReservation is false with half a block left")
	}
	wantReserve(t, sa, ReservationBlock, ReservationBlock/2+1, ReservationBlock/2)
	wantReserve(t, sa, 1, 0, 0)
	if sa.Exhausted() {
		t.Error("exhausted while it only waits for a reservation")
	}
	if err := sa.ExtendReservation(); err != nil {
		t.Fatal(err)
	}
	if store.reserved[id] != 2*ReservationBlock {
		t.Fatalf("reserved: expected two blocks, seen %d", store.reserved[id])
	}
	wantReserve(t, sa, 1, ReservationBlock+1, 1)
	calls := store.calls
	if err := sa.ExtendReservation(); err != nil || store.calls != calls {
		t.Errorf("ExtendReservation without need: %v, or it wrote", err)
	}
}

func TestCS05_ARestartResumesBehindTheBlock(t *testing.T) {
	store := newMemoryStore()
	next := uint64(1)
	for restart := range 5 {
		sa := newSA(t, manual(t, store))
		wantReserve(t, sa, 3, next, 3)
		if s := sa.Stats(); s.Seq != next+2 {
			t.Errorf("restart %d: Seq: expected %d, seen %d", restart, next+2, s.Seq)
		}
		next += ReservationBlock
	}
	// Another SPI, peer or ICV length: the same key goes on in the same space.
	p := manual(t, store)
	p.SPI, p.Peer, p.Suite = 0x7777, "other", suite(t, "aes128gcm8")
	wantReserve(t, newSA(t, p), 1, next, 1)
}

func TestReservationEndsAtTheEndOfTheSpace(t *testing.T) {
	for _, c := range []struct {
		esn   bool
		space uint64
	}{{false, math.MaxUint32}, {true, math.MaxUint64}} {
		store := newMemoryStore()
		p := manual(t, store)
		p.ESN = c.esn
		id := p.KeyID()
		store.reserved[id] = c.space - ReservationBlock - 5
		sa := newSA(t, p)
		wantReserve(t, sa, ReservationBlock, c.space-ReservationBlock-4, ReservationBlock)
		if sa.Exhausted() {
			t.Fatal("exhausted with 5 numbers to reserve")
		}
		if err := sa.ExtendReservation(); err != nil {
			t.Fatal(err)
		}
		if store.reserved[id] != c.space {
			t.Errorf("reserved: expected the end of the space, seen %#x", store.reserved[id])
		}
		wantReserve(t, sa, 10, c.space-4, 5)
		wantReserve(t, sa, 10, 0, 0)
		if !sa.Exhausted() || sa.NeedsReservation() {
			t.Errorf("expected exhausted and nothing to reserve, seen %v and %v", sa.Exhausted(), sa.NeedsReservation())
		}
		// A restart: New says what to do.
		sa, err := New(p)
		if sa != nil || !errors.Is(err, ErrExhausted) {
			t.Errorf("New on a used up key: expected ErrExhausted, seen %v", err)
		}
		wantError(t, err, "change the keys at both ends", `out SA 0x2001 of peer "site-b"`)
	}
	// A key that was used beyond 2^32 with ESN has nothing left without.
	store := newMemoryStore()
	p := manual(t, store)
	store.reserved[p.KeyID()] = 1 << 40
	if _, err := New(p); !errors.Is(err, ErrExhausted) {
		t.Errorf("New: expected ErrExhausted, seen %v", err)
	}
}

func TestFailedReservationGrantsNothing(t *testing.T) {
	disk := errors.New("disk is gone")
	store := newMemoryStore()
	store.fail = disk
	if _, err := New(manual(t, store)); !errors.Is(err, disk) {
		t.Fatalf("New: expected the disk's error, seen %v", err)
	}
	sa := newSA(t, manual(t, store))
	wantReserve(t, sa, ReservationBlock+1, 1, ReservationBlock)
	store.fail = disk
	err := sa.ExtendReservation()
	if !errors.Is(err, disk) {
		t.Fatalf("ExtendReservation: expected the disk's error, seen %v", err)
	}
	wantError(t, err, `out SA 0x2001 of peer "site-b"`)
	wantReserve(t, sa, 1, 0, 0)
	if !sa.NeedsReservation() {
		t.Error("NeedsReservation is false after a failure")
	}
	if err := sa.ExtendReservation(); err != nil {
		t.Fatal(err)
	}
	wantReserve(t, sa, 1, ReservationBlock+1, 1)
}

// The number was recorded, but Reserve could not promise it: it is skipped.
func TestHalfDoneReservationIsSkipped(t *testing.T) {
	store := newMemoryStore()
	sa := newSA(t, manual(t, store))
	wantReserve(t, sa, ReservationBlock-3, 1, ReservationBlock-3)
	store.fail, store.written = errors.New("directory not synced"), true
	if err := sa.ExtendReservation(); err == nil {
		t.Fatal("expected the store's error")
	}
	if err := sa.ExtendReservation(); err != nil {
		t.Fatal(err)
	}
	wantReserve(t, sa, 1, 2*ReservationBlock+1, 1)
}

// A reload builds the new SA while the old one still runs: the two never share a
// number, whichever reserves first.
func TestTwoSAsWithOneKeyShareNoNumber(t *testing.T) {
	store := newMemoryStore()
	p := manual(t, store)
	p.ESN = true
	sas := []*SA{newSA(t, p), newSA(t, p), newSA(t, p)}
	type run struct{ first, last uint64 }
	var runs []run
	for turn := range 60 {
		i := turn % len(sas)
		first, n := sas[i].Reserve(ReservationBlock / 3)
		if n > 0 {
			r := run{first, first + uint64(n) - 1}
			for _, other := range runs {
				if r.first <= other.last && other.first <= r.last {
					t.Fatalf("turn %d: SA %d got %d..%d, %d..%d was granted before", turn, i, r.first, r.last, other.first, other.last)
				}
			}
			runs = append(runs, r)
		}
		if sas[i].NeedsReservation() {
			if err := sas[i].ExtendReservation(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestStoreThatWentBackIsRefused(t *testing.T) {
	store := newMemoryStore()
	sa := newSA(t, manual(t, store))
	wantReserve(t, sa, ReservationBlock, 1, ReservationBlock)
	store.reserved[sa.KeyID()] = 5
	wantError(t, sa.ExtendReservation(), "went back", "change the keys")
	wantReserve(t, sa, 1, 0, 0)
}

// Workers reserve while a housekeeping goroutine extends: every number once, no
// gaps, and none above what the store holds at that moment.
func TestExtendReservationConcurrentWithReserve(t *testing.T) {
	store := newMemoryStore()
	sa := newSA(t, manual(t, store))
	const workers, want = 4, 3 * ReservationBlock
	stop := make(chan struct{})
	var house, work sync.WaitGroup
	for range 2 {
		house.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if sa.NeedsReservation() {
					if err := sa.ExtendReservation(); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	granted := make([]uint64, workers)
	highest := make([]uint64, workers)
	for w := range workers {
		work.Go(func() {
			for highest[w] < want {
				first, n := sa.Reserve(64)
				if n == 0 {
					if t.Failed() {
						return
					}
					continue
				}
				last := first + uint64(n) - 1
				if first <= highest[w] {
					t.Errorf("%d granted after %d", first, highest[w])
					return
				}
				highest[w] = last
				granted[w] += uint64(n)
				if first%1024 < 64 {
					if bound, _ := store.Reserved(sa.KeyID()); last > bound {
						t.Errorf("%d granted, durable up to %d", last, bound)
						return
					}
				}
			}
		})
	}
	work.Wait()
	close(stop)
	house.Wait()
	sum := uint64(0)
	for _, n := range granted {
		sum += n
	}
	if sum != sa.Stats().Seq {
		t.Errorf("granted %d numbers up to %d: expected as many", sum, sa.Stats().Seq)
	}
}

// Another SA with the key took all numbers: this one ends, and asks no more.
func TestNumbersTakenByAnotherEndTheSA(t *testing.T) {
	store := newMemoryStore()
	p := manual(t, store)
	sa := newSA(t, p)
	wantReserve(t, sa, ReservationBlock, 1, ReservationBlock)
	store.reserved[p.KeyID()] = 1<<32 - 1
	if err := sa.ExtendReservation(); !errors.Is(err, ErrExhausted) {
		t.Errorf("ExtendReservation: expected ErrExhausted, seen %v", err)
	}
	wantReserve(t, sa, 1, 0, 0)
	if !sa.Exhausted() || sa.NeedsReservation() {
		t.Errorf("expected exhausted and nothing to reserve, seen %v and %v", sa.Exhausted(), sa.NeedsReservation())
	}
}
