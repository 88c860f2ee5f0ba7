package sad

import (
	"errors"
	"fmt"
)

// ReservationBlock is how many numbers are made durable at a time: about a
// second of packets at a million a second, and the most that a restart skips.
const ReservationBlock = 1 << 20

// Why an outbound SA is refused or stops.
var (
	// ErrNoStore: a counter mode, and nothing keeps its numbers from being
	// used again after a restart.
	ErrNoStore = errors.New("no durable sequence numbers")
	// ErrExhausted: every sequence number of the key is used or reserved.
	ErrExhausted = errors.New("the sequence numbers of this key are used up: change the keys at both ends")
)

// initSequence sets where the numbers start. RFC 4303 3.3.3: "The sender's
// counter is initialized to 0 when an SA is established. [...] Thus, the first
// packet sent using a given SA will contain a sequence number of 1." With a store
// they go on behind the last reserved block.
func (sa *SA) initSequence(store SequenceStore) error {
	if store == nil {
		sa.initEnd(0)
		sa.bound.Store(sa.end)
		return nil
	}
	sa.sequence = store
	return sa.reserveBlock()
}

// Reserve takes up to n numbers for a run of packets: first and the granted-1
// behind it. No number is ever granted twice, whoever asks at the same time, and
// granted numbers that are not sent are lost. granted < n at the end of the
// space, of the durable block or of the lifetime; Exhausted and Expired tell which.
//
// RFC 4303 3.3.3: "the sender MUST NOT send a packet on an SA if doing so would
// cause the sequence number to cycle."
//
// It is lock-free: one compare-and-swap for the run, repeated only when another
// worker came between.
func (sa *SA) Reserve(n int) (first uint64, granted int) {
	if n <= 0 {
		return 0, 0
	}
	for {
		// The bound only grows, so an old one is only too strict.
		bound, last := sa.bound.Load(), sa.last.Load()
		if last >= bound || sa.expired.Load() != 0 {
			return 0, 0
		}
		take := min(uint64(n), bound-last)
		if sa.last.CompareAndSwap(last, last+take) {
			return last + 1, int(take)
		}
	}
}

// Exhausted tells that the space itself is at its end (SeqOverflow): only a new
// SA helps. A durable block at its end is another matter: see NeedsReservation.
func (sa *SA) Exhausted() bool {
	return sa.Direction == Outbound && sa.last.Load() >= sa.space
}

// NeedsReservation tells that half of the durable block is used, and that there
// is more space to reserve. It is cheap: workers may ask once per batch.
func (sa *SA) NeedsReservation() bool {
	if sa.sequence == nil {
		return false
	}
	bound, last := sa.bound.Load(), sa.last.Load()
	return bound < sa.end && (last >= bound || bound-last <= ReservationBlock/2)
}

// ExtendReservation makes the next block durable when one is needed, and only
// then lets Reserve use it. It waits for the disk: call it off the packet path.
// After an error nothing more is granted than before.
func (sa *SA) ExtendReservation() error {
	sa.extendMu.Lock()
	defer sa.extendMu.Unlock()
	if !sa.NeedsReservation() {
		return nil
	}
	if err := sa.reserveBlock(); err != nil {
		return fmt.Errorf("sad: %s: %w", sa.ID(), err)
	}
	return nil
}

// reserveBlock makes the block behind what the store holds durable and moves the
// bound there. Usually what the store holds is the bound. It is more after a
// restart, after a reservation that failed half way, or when another SA with
// this key has reserved: those numbers are not ours, and are skipped.
func (sa *SA) reserveBlock() error {
	reserved, err := sa.sequence.Reserved(sa.keyID)
	if err != nil {
		return fmt.Errorf("read the reserved sequence numbers: %w", err)
	}
	bound := sa.bound.Load()
	if reserved < bound {
		return fmt.Errorf("the sequence store went back from %d to %d: it was changed or replaced under the gateway: change the keys at both ends", bound, reserved)
	}
	if reserved >= sa.space {
		sa.skipTo(sa.space)
		sa.bound.Store(sa.space)
		return ErrExhausted
	}
	until := sa.space
	if until-reserved > ReservationBlock {
		until = reserved + ReservationBlock
	}
	if err := sa.sequence.Reserve(sa.keyID, until); err != nil {
		return fmt.Errorf("reserve sequence numbers up to %d: %w", until, err)
	}
	if reserved > bound {
		sa.skipTo(reserved)
	}
	if bound == 0 { // the first block
		sa.first = reserved
		sa.initEnd(reserved)
	}
	sa.bound.Store(min(until, sa.end))
	return nil
}

// skipTo gives up all numbers up to and with seq. Until the bound follows,
// Reserve grants nothing.
func (sa *SA) skipTo(seq uint64) {
	for {
		last := sa.last.Load()
		if last >= seq || sa.last.CompareAndSwap(last, seq) {
			return
		}
	}
}
