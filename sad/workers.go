package sad

// Several workers may seal with one SA: each reserves numbers for a run, seals
// it and sends it. A worker that is held up between Reserve and the send lets
// the others overtake it, and what it sends late would fall out of the peer's
// replay window. So each says which numbers it has in hand, and none goes
// further than MaxLag beyond the lowest of them.

// MaxWorkers is how many workers may send with one SA. Each has an index of its
// own, from 0.
const MaxWorkers = 16

// MaxLag is the most, in numbers, that a packet may leave behind a higher one of
// the same SA: a quarter of the default replay window of 4096 packets.
const MaxLag = 1024

// ReserveAs is Reserve for one worker of several. The numbers are in that
// worker's hand until SentAs.
func (sa *SA) ReserveAs(worker, n int) (first uint64, granted int) {
	hand := &sa.hands[worker]
	if hand.Load() == 0 {
		// Before the numbers are taken: whoever is granted higher ones
		// must see this. Lower ones may still go to others in between,
		// so it is only a lower bound.
		hand.Store(sa.last.Load() + 1)
	}
	return sa.Reserve(n)
}

// Ahead tells that number seq, in the worker's hand, has to wait: another worker
// has one in hand that is more than MaxLag lower.
func (sa *SA) Ahead(worker int, seq uint64) bool {
	for i := range sa.hands {
		if low := sa.hands[i].Load(); i != worker && low != 0 && seq > low && seq-low > MaxLag {
			return true
		}
	}
	return false
}

// HoldAs says that the worker has sent all it reserved below first.
//
// A worker that waits until it is no longer Ahead has nothing of any SA in hand
// but the run that waits. Then the one with the lowest number of an SA never
// waits for one of that SA, and no two can wait for each other.
func (sa *SA) HoldAs(worker int, first uint64) { sa.hands[worker].Store(first) }

// SentAs says that the worker has nothing in hand any more.
func (sa *SA) SentAs(worker int) { sa.hands[worker].Store(0) }
