package replay

import "testing"

// fail makes n packets in a row fail their ICV.
func fail(w *Window, n int) {
	for range n {
		w.AuthFailed()
	}
}

// A receiver that lost more than 2^32 packets guesses a subspace too low, every
// packet fails, and within a few packets behind the threshold one is guessed
// right, however many of the subspaces within reach were lost.
func TestRFC4303_A3_ResynchronizesAfterLoss(t *testing.T) {
	for lost := uint64(1); lost <= resyncSubspaces; lost++ {
		w := newWindow(t, 64, true, 5<<32|1000)
		fails, tries := 0, 0
		for seq := (5+lost)<<32 | 5000; ; seq++ {
			if tries++; tries > resyncThreshold+resyncStride*resyncSubspaces {
				t.Fatalf("%d subspaces lost: not synchronous after %d packets", lost, tries)
			}
			full := w.Infer(uint32(seq))
			if full != seq {
				w.AuthFailed()
				fails++
				continue
			}
			if v := w.Mark(full); v != Fresh {
				t.Fatalf("%d subspaces lost: Mark(%#x): expected fresh, seen %s", lost, full, v)
			}
			break
		}
		if fails < resyncThreshold {
			t.Errorf("%d subspaces lost: tried other subspaces after %d failures, expected not before %d", lost, fails, resyncThreshold)
		}
		if w.Edge()>>32 != 5+lost {
			t.Errorf("%d subspaces lost: edge %#x, expected it in subspace %d", lost, w.Edge(), 5+lost)
		}
		for low := uint32(10000); low < 10100; low++ {
			if full := w.Infer(low); full != (5+lost)<<32|uint64(low) {
				t.Fatalf("%d subspaces lost: Infer(%d) after it: seen %#x", lost, low, full)
			}
		}
	}
}

// Below the threshold, and after any packet that was marked, guesses are normal.
func TestRFC4303_A3_1_ValidPacketResetsTheCount(t *testing.T) {
	normal := func(w *Window, when string) {
		t.Helper()
		for low := uint32(2000); low < 2000+4*resyncStride; low++ {
			if full := w.Infer(low); full != 5<<32|uint64(low) {
				t.Fatalf("%s: Infer(%d): expected subspace 5, seen %#x", when, low, full)
			}
		}
	}
	w := newWindow(t, 64, true, 5<<32|1000)
	fail(w, resyncThreshold-1)
	normal(w, "one below the threshold")
	w.Mark(5<<32 | 1001)
	fail(w, resyncThreshold-1)
	normal(w, "after a reset and one below the threshold")
	fail(w, 1)
	if full := w.Infer(2000); full == 5<<32|2000 {
		t.Fatalf("at the threshold: Infer(2000) is no probe: %#x", full)
	}
	// A packet that is refused is no valid packet.
	w.Mark(5<<32 | 1001)
	if full := w.Infer(2000); full == 5<<32|2000 {
		t.Fatalf("after a replay: Infer(2000) is no probe: %#x", full)
	}
	w.Mark(5<<32 | 1002)
	normal(w, "after a valid packet")
}

// A flood of forged packets sets probing off. What it costs good packets is
// bounded: A3 wants to "avoid creating an opportunity for a new denial of service
// attack".
func TestRFC4303_A3_FloodCostsFewGoodPackets(t *testing.T) {
	w := newWindow(t, 64, true, 5<<32|1000)
	lost, sent := 0, 0
	for seq := uint64(5<<32 | 1001); sent < 10000; seq++ {
		fail(w, resyncThreshold+int(seq%7))
		sent++
		full := w.Infer(uint32(seq))
		if full != seq {
			lost++
			continue
		}
		if v := w.Mark(full); v != Fresh {
			t.Fatalf("Mark(%#x): expected fresh, seen %s", full, v)
		}
	}
	if limit := sent/resyncStride + 1; lost > limit {
		t.Errorf("lost %d of %d good packets under a flood, expected at most %d", lost, sent, limit)
	}
}

// Probes never point behind the window, nor beyond the 64-bit space.
func TestRFC4303_A3_ProbesOnlyGoUp(t *testing.T) {
	for _, th := range []uint64{0, 1, 1<<32 - 5, 1<<32 - 2, 1<<32 - 1} {
		w := newWindow(t, 64, true, th<<32|1<<20)
		for low := uint32(1 << 21); low < 1<<21+1000; low++ {
			normal := w.Infer(low)
			fail(w, resyncThreshold)
			probe := w.Infer(low)
			w.failures = 0
			if probe < normal {
				t.Fatalf("edge %#x: Infer(%#x): probe %#x below the normal guess %#x", w.Edge(), low, probe, normal)
			}
		}
	}
	// Without ESN there is nothing to guess.
	w := newWindow(t, 64, false, 1000)
	fail(w, 10*resyncThreshold)
	for low := uint32(1001); low < 1100; low++ {
		if full := w.Infer(low); full != uint64(low) {
			t.Fatalf("no ESN: Infer(%d): seen %#x", low, full)
		}
	}
}

func TestAuthFailedDoesNotMoveTheWindow(t *testing.T) {
	w := newWindow(t, 64, true, 1000)
	before := *w
	fail(w, 100)
	if w.Edge() != before.edge || w.Check(999) != Fresh || w.Check(1000) != Seen {
		t.Errorf("window after failures: edge expected %d, seen %d", before.edge, w.Edge())
	}
	w.failures = 1<<32 - 1
	w.AuthFailed()
	if w.failures != 1<<32-1 {
		t.Errorf("the count of failures wrapped to %d", w.failures)
	}
}
