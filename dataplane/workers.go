package dataplane

import (
	"runtime"
	"slices"
	"time"

	"github.com/adit-ipsec/adit/sad"
)

// Several outbound workers may carry packets of one SA. What each has reserved
// and not sent is in its hand (sad.SA.ReserveAs), and none gets further ahead of
// another than the peer's replay window allows. A single worker has none of it.

// reserve takes n numbers of sa for a run.
func (w *outboundWorker) reserve(sa *sad.SA, n int) (first uint64, granted int) {
	if len(w.gateway.out) == 1 {
		return sa.Reserve(n)
	}
	if !slices.Contains(w.inHand, sa) {
		w.inHand = append(w.inHand, sa)
	}
	first, granted = sa.ReserveAs(w.index, n)
	if last := first + uint64(granted) - 1; granted > 0 && sa.Ahead(w.index, last) {
		w.wait(sa, first, last)
	}
	return first, granted
}

// waitPause is short beside what a full socket takes to drain.
const waitPause = 50 * time.Microsecond

// wait sends everything in hand but the run from first to last, and then waits
// for the workers that are behind.
func (w *outboundWorker) wait(sa *sad.SA, first, last uint64) {
	w.flush()
	w.handOut(sa)
	sa.HoldAs(w.index, first)
	for tries := 0; sa.Ahead(w.index, last) && !w.gateway.stopping(); tries++ {
		if tries < 100 {
			runtime.Gosched()
		} else {
			w.gateway.pause(waitPause) // the other waits for a full socket
		}
	}
}

// handOut says that everything is sent, except what is in hand of keep.
func (w *outboundWorker) handOut(keep *sad.SA) {
	for _, sa := range w.inHand {
		if sa != keep {
			sa.SentAs(w.index)
		}
	}
	w.inHand = w.inHand[:0]
	if keep != nil {
		w.inHand = append(w.inHand, keep)
	}
}
