// Package replay owns the arithmetic of the anti-replay window: which sequence
// numbers were seen (RFC 4303 3.4.3, in the ring form of RFC 6479), and what the
// high half of an extended sequence number must be (RFC 4303 appendix A).
//
// It does not own the order of things (check, verify the ICV, mark), locks or
// counters: package sad does.
package replay

import (
	"fmt"
	"math/bits"
)

// Sizes of a window in packets. RFC 4303 3.4.3: "A minimum window size of 32
// packets MUST be supported when 32-bit sequence numbers are employed; a window
// size of 64 is preferred and SHOULD be employed as the default." Appendix A2.1
// allows up to 2^32 - 1; the maximum here is for memory.
const (
	MinSize = 32
	MaxSize = 1 << 20
)

const wordBits = 64

// Verdict is what the window says about one sequence number.
type Verdict uint8

// The verdicts. Only Fresh lets a packet pass.
const (
	_     Verdict = iota
	Fresh         // not seen so far, inside the window or ahead of it: accept
	Zero          // number 0, which no sender uses
	Old           // behind the window, or outside the number space
	Seen          // inside the window and marked before
)

// String returns the verdict in one word.
func (v Verdict) String() string {
	switch v {
	case Fresh:
		return "fresh"
	case Zero:
		return "zero"
	case Old:
		return "old"
	case Seen:
		return "seen"
	}
	return fmt.Sprintf("verdict(%d)", uint8(v))
}

// Window remembers which of the last Size sequence numbers were seen. It is not
// safe for concurrent use: its owner locks.
//
// The bits lie in a ring of words that is never shifted (RFC 6479): number n has
// bit n%64 of word n/64 modulo the ring. The ring has at least one word more
// than Size needs, so that the window is exactly Size wherever its edge lies in
// a word.
type Window struct {
	edge     uint64 // T of RFC 4303 appendix A: the highest number marked, 0 = none
	size     uint64 // W
	last     uint64 // the last number of the space: 2^32-1, or 2^64-1 with ESN
	mask     uint64 // words in the ring, a power of two, less one
	ring     []uint64
	esn      bool
	failures uint32 // packets in a row that failed the ICV, see AuthFailed
}

// New makes an empty window of size packets, MinSize to MaxSize, not only
// powers of two. With esn the numbers are 64 bits wide, else 32.
func New(size int, esn bool) (*Window, error) {
	if size < MinSize || size > MaxSize {
		return nil, fmt.Errorf("replay: window of %d packets: use %d to %d", size, MinSize, MaxSize)
	}
	// size numbers in a row touch at most this many words.
	touched := uint((size-2)/wordBits + 2)
	words := uint64(1) << bits.Len(touched-1)
	w := &Window{size: uint64(size), last: 1<<32 - 1, mask: words - 1, ring: make([]uint64, words), esn: esn}
	if esn {
		w.last = 1<<64 - 1
	}
	return w, nil
}

// Size is the window's size in packets.
func (w *Window) Size() int { return int(w.size) }

// Edge is the highest number marked; 0 before the first.
func (w *Window) Edge() uint64 { return w.edge }

// SkipTo makes every number up to and with edge count as seen, for a window that
// goes on where an earlier one of the same key ended. It never goes back.
func (w *Window) SkipTo(edge uint64) {
	edge = min(edge, w.last)
	if edge <= w.edge {
		return
	}
	for i := range w.ring {
		w.ring[i] = ^uint64(0)
	}
	// The numbers ahead of the edge that share its word are not seen.
	w.ring[edge/wordBits&w.mask] >>= wordBits - 1 - edge%wordBits
	w.edge = edge
}

// Check tells what Mark would say, and changes nothing. It is the cheap look
// before the ICV is verified.
func (w *Window) Check(seq uint64) Verdict {
	switch {
	// RFC 4303 3.3.3: "Thus, the first packet sent using a given SA will
	// contain a sequence number of 1", and "the sender MUST NOT send a packet
	// on an SA if doing so would cause the sequence number to cycle": nobody
	// sends 0.
	case seq == 0:
		return Zero
	case seq > w.last:
		return Old
	case seq > w.edge:
		return Fresh
	case w.edge-seq >= w.size:
		return Old
	case w.ring[seq/wordBits&w.mask]&(1<<(seq%wordBits)) != 0:
		return Seen
	}
	return Fresh
}

// Mark records seq as seen and moves the window when seq lies ahead of it. It
// is called only after the ICV was verified, RFC 4303 3.4.3: "The receive window
// is updated only if the integrity verification succeeds." It checks again,
// because another worker may have marked the same number since Check; any verdict
// but Fresh changes nothing.
func (w *Window) Mark(seq uint64) Verdict {
	if v := w.Check(seq); v != Fresh {
		return v
	}
	// RFC 4303 A3.1: "Receipt of a valid packet on the SA resets the counter
	// to zero."
	w.failures = 0
	if seq > w.edge {
		w.advance(seq)
	}
	w.ring[seq/wordBits&w.mask] |= 1 << (seq % wordBits)
	return Fresh
}

// advance moves the edge up to seq and empties the words that come into use:
// all of them at most once, however far the jump.
func (w *Window) advance(seq uint64) {
	from, to := w.edge/wordBits, seq/wordBits
	if to-from > w.mask {
		clear(w.ring)
	} else {
		for i := from + 1; i <= to; i++ {
			w.ring[i&w.mask] = 0
		}
	}
	w.edge = seq
}
