package replay

import "math"

// The resynchronization of RFC 4303 appendix A3: local parameters.
const (
	// resyncThreshold is how many packets in a row must fail the ICV before
	// Infer tries other subspaces. A3.1: "The value used to trigger the re-
	// synchronization process is a local parameter."
	resyncThreshold = 1024
	// resyncStride: while resynchronizing, one number in so many is a probe.
	resyncStride = 16
	// resyncSubspaces is how far above the normal guess probes reach. A3.2:
	// "The number of retries should be limited, in case this is a packet from
	// the "past" or a bogus packet."
	resyncSubspaces = 4
)

// Infer returns the full number of a packet whose header carries low. Without
// ESN that is low itself. It changes nothing.
func (w *Window) Infer(low uint32) uint64 {
	if !w.esn {
		return uint64(low)
	}
	high := w.subspace(low)
	if w.failures >= resyncThreshold && low%resyncStride == 0 {
		high = probe(high, low)
	}
	return uint64(high)<<32 | uint64(low)
}

// subspace is Seqh of RFC 4303 A2.2, with Th and Tl the halves of the edge, W
// the size and Bl the low half of the window's bottom.
func (w *Window) subspace(low uint32) uint32 {
	th, tl := uint32(w.edge>>32), uint32(w.edge)
	bl := tl - uint32(w.size) + 1 // modulo 2^32
	if uint64(tl) >= w.size-1 {
		// Case A: the window lies in one subspace.
		// "If Seql >= Bl (where Bl = Tl - W + 1), then Seqh = Th"
		if low >= bl {
			return th
		}
		// "If Seql < Bl (where Bl = Tl - W + 1), then Seqh = Th + 1"
		// At the very last subspace this is 0, a number far behind the
		// window: refused, the 64-bit space does not wrap.
		return th + 1
	}
	// Case B: the window spans two subspaces.
	// "If Seql >= Bl (where Bl = Tl - W + 1), then Seqh = Th - 1"
	// The first window of an SA (Th = 0) reaches below number 1, and there is
	// no subspace below the first: such a number can only be ahead.
	if low >= bl && th > 0 {
		return th - 1
	}
	// "If Seql < Bl (where Bl = Tl - W + 1), then Seqh = Th"
	return th
}

// probe picks a subspace above the normal guess: "authentication is retried
// using successively larger values for the upper half of the sequence number"
// (A3.2). Which numbers probe, and how far, hangs on the packet's own number
// alone: who floods an SA with forged packets sets probing off, but costs at
// most one good packet in resyncStride, and cannot choose which.
func probe(high, low uint32) uint32 {
	step := low/resyncStride%resyncSubspaces + 1
	if high > math.MaxUint32-step {
		return high
	}
	return high + step
}

// AuthFailed tells the window that a packet it let pass failed the ICV. RFC 4303
// A3: "If there is an undetected packet loss of 2^32 or more consecutive packets
// on a single SA, then the transmitter and receiver will lose synchronization of
// the high-order bits"; A3.1: "the receiver records the number of consecutive
// packets that fail authentication." From resyncThreshold on Infer answers one
// number in resyncStride with one of the next subspaces, until a packet is
// marked.
//
// Deviation: A3.2 retries one stored packet. Here each probe is a new packet,
// because a packet that failed was opened in place and is gone; the sender's
// next packets do as well.
func (w *Window) AuthFailed() {
	if w.failures < math.MaxUint32 {
		w.failures++
	}
}
