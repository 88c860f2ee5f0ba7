package ikesim

import "time"

// due is something that happens at a time; those of one time in the order in which
// they were asked for.
type due struct {
	at     time.Duration
	seq    uint64
	do     func() // nil: a datagram arrives
	flight int    // which
}

func (d *due) before(e *due) bool { return d.at < e.at || d.at == e.at && d.seq < e.seq }

// queue is what happens later. Most of it are datagrams, a thousand in a run: they
// are kept aside, and their places used again.
type queue struct {
	heap    []due
	flights []datagram
	free    []int
}

// keep puts a datagram aside, and says where.
func (q *queue) keep(d *datagram) int {
	if n := len(q.free); n > 0 {
		i := q.free[n-1]
		q.free = q.free[:n-1]
		q.flights[i] = *d
		return i
	}
	q.flights = append(q.flights, *d)
	return len(q.flights) - 1
}

// take gives a datagram, and its place back.
func (q *queue) take(i int) datagram {
	d := q.flights[i]
	q.flights[i] = datagram{}
	q.free = append(q.free, i)
	return d
}

func (q *queue) push(d due) {
	q.heap = append(q.heap, d)
	h, i := q.heap, len(q.heap)-1
	for i > 0 {
		up := (i - 1) / 2
		if !d.before(&h[up]) {
			break
		}
		h[i], i = h[up], up
	}
	h[i] = d
}

func (q *queue) pop() due {
	h := q.heap
	top, last := h[0], h[len(h)-1]
	h[len(h)-1] = due{}
	h = h[:len(h)-1]
	q.heap = h
	if len(h) == 0 {
		return top
	}
	i := 0
	for {
		down := 2*i + 1
		if down >= len(h) {
			break
		}
		if down+1 < len(h) && h[down+1].before(&h[down]) {
			down++
		}
		if !h[down].before(&last) {
			break
		}
		h[i], i = h[down], down
	}
	h[i] = last
	return top
}
