package ike

import (
	"container/heap"
	"time"
)

// timer is something to be done at a time. The nil timer is one that is not set.
type timer struct {
	at    time.Duration
	seq   uint64 // those of one time run in the order in which they were set
	do    func()
	index int // in the heap; -1: it has run, or was stopped
	heap  *timerHeap
}

// at sets a timer; do runs in the first Step at or behind t.
func (m *Machine) at(t time.Duration, do func()) *timer {
	h := &m.timers
	h.seq++
	tm := &timer{at: t, seq: h.seq, do: do, heap: h}
	heap.Push(h, tm)
	return tm
}

// after is at, from now on.
func (m *Machine) after(d time.Duration, do func()) *timer { return m.at(m.now+d, do) }

// stop takes the timer out. Stopping twice, or what has run, or nil, is nothing.
func (t *timer) stop() {
	if t == nil || t.index < 0 {
		return
	}
	heap.Remove(t.heap, t.index)
}

// timerHeap are the timers of a machine, the next one first.
type timerHeap struct {
	all []*timer
	seq uint64
}

// run does what is due at now, what that sets for now included.
func (h *timerHeap) run(now time.Duration) {
	for len(h.all) > 0 && h.all[0].at <= now {
		t := heap.Pop(h).(*timer)
		t.do()
	}
}

func (h *timerHeap) next() (time.Duration, bool) {
	if len(h.all) == 0 {
		return 0, false
	}
	return h.all[0].at, true
}

// Len and the rest are heap.Interface.
func (h *timerHeap) Len() int { return len(h.all) }

func (h *timerHeap) Less(i, j int) bool {
	a, b := h.all[i], h.all[j]
	return a.at < b.at || a.at == b.at && a.seq < b.seq
}

func (h *timerHeap) Swap(i, j int) {
	h.all[i], h.all[j] = h.all[j], h.all[i]
	h.all[i].index, h.all[j].index = i, j
}

// Push is heap.Interface.
func (h *timerHeap) Push(x any) {
	t := x.(*timer)
	t.index = len(h.all)
	h.all = append(h.all, t)
}

// Pop is heap.Interface.
func (h *timerHeap) Pop() any {
	last := len(h.all) - 1
	t := h.all[last]
	h.all[last] = nil
	h.all = h.all[:last]
	t.index = -1
	return t
}
