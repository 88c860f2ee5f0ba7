package dataplane

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// Bounds of what is remembered about datagrams that come in fragments, for each
// direction.
const (
	maxDatagrams = 1024 // a power of two; beyond that the oldest is forgotten

	// fragmentTimeout is how long a datagram is remembered from its first
	// fragment to arrive on. Hosts give up after 15 to 60 seconds (RFC 791
	// 3.2, RFC 1122 3.3.2, RFC 8200 4.5); a fragment that comes later than
	// this is one whose initial fragment is not known.
	fragmentTimeout = 30 * time.Second

	// maxHoles bounds the holes in one datagram: fragments that follow on
	// each other are one range.
	maxHoles = 16

	// share is how many datagrams the SAs of one of the owners below may have
	// before they push out their own, and patience how many of others are
	// passed over for one: so that a peer that floods its SA does not take what the
	// few fragments of the others ride on.
	owners   = 64
	share    = maxDatagrams / 4
	patience = 128
)

const _ = uint(-(maxDatagrams & (maxDatagrams - 1))) // a power of two, or this does not compile

// datagramKey tells the datagrams of one direction apart. Inbound the SA belongs
// to it, so that one SA's fragments never ride on another's.
type datagramKey struct {
	packet.DatagramID
	sa sad.ID // zero outbound
}

// datagram is what is remembered of one.
type datagram struct {
	key      datagramKey
	born     time.Duration
	flow     packet.Flow // of the initial fragment, ports included
	known    bool        // flow is set
	poisoned bool        // something was wrong with it: nothing more of it passes
	ended    bool        // the last fragment has passed, and length is set
	ranges   uint8
	length   uint16
	covered  [maxHoles]byteRange // what has passed: sorted, neither overlapping nor touching
	older    uint16              // by age, and in the list of free ones
	newer    uint16
	next     uint16 // in its bucket
}

// byteRange is start up to, not with, end.
type byteRange struct{ start, end uint16 }

// datagrams remembers the datagrams of one direction of which some fragments
// have passed and others have not: RFC 4301 7.3 and 7.4, stateful fragment
// checking. Its memory is fixed. Fragments are few, so one lock serves all
// workers of the direction; packets that are no fragments never come here.
type datagrams struct {
	seed uint64

	mu      sync.Mutex
	list    [maxDatagrams + 1]datagram // 0 is the head of the list by age
	buckets [maxDatagrams]uint16       // 0: none
	free    uint16                     // the first of the free ones, 0: none
	held    [owners]uint16             // by owner
}

func newDatagrams() *datagrams {
	t := &datagrams{seed: rand.Uint64()} //nolint:gosec // G404: as newFlowCache
	for i := uint16(1); i <= maxDatagrams; i++ {
		t.list[i].older, t.free = t.free, i
	}
	return t
}

// first copies the flow of the datagram's initial fragment to flow. known is false
// where that has not come; poisoned says that nothing more may pass.
func (t *datagrams) first(now time.Duration, key *datagramKey, flow *packet.Flow) (known, poisoned bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expire(now)
	i := t.lookup(key)
	if i == 0 {
		return false, false
	}
	d := &t.list[i]
	*flow = d.flow
	return d.known, d.poisoned
}

// admit records a fragment that is going to pass, unless some of it passed before
// or something was wrong with its datagram: then it answers false. initial is the
// flow of an initial fragment, nil for another one.
func (t *datagrams) admit(now time.Duration, key *datagramKey, f *packet.Fragment, initial *packet.Flow) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := t.find(now, key)
	d := &t.list[i]
	// Fragments that passed behind one initial fragment are not another's.
	second := initial != nil && d.behind(initial)
	if d.poisoned || !d.add(f) {
		return false
	}
	if second {
		d.poisoned = true
		return false
	}
	if initial != nil {
		d.flow, d.known = *initial, true
	}
	if d.whole() { // its identification may be used again
		t.remove(i)
	}
	return true
}

// discarded records an initial fragment that policy does not let pass, for those
// behind it.
func (t *datagrams) discarded(now time.Duration, key *datagramKey, initial *packet.Flow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d := &t.list[t.find(now, key)]; !d.behind(initial) {
		d.flow, d.known = *initial, true
	}
}

// poison lets nothing more of the datagram pass.
func (t *datagrams) poison(now time.Duration, key *datagramKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list[t.find(now, key)].poisoned = true
}

// behind tells whether fragments have passed behind an initial one of another
// flow.
func (d *datagram) behind(initial *packet.Flow) bool {
	return d.known && d.ranges > 0 && d.flow != *initial
}

// add records what f covers. It answers false where f is to be dropped.
func (d *datagram) add(f *packet.Fragment) bool {
	r := byteRange{uint16(f.Start), uint16(f.End)} // Parse holds both to 65535
	i := 0
	for i < int(d.ranges) && d.covered[i].end <= r.start {
		i++
	}
	if i < int(d.ranges) && d.covered[i].start < r.end {
		// RFC 8200 4.5: "If any of the fragments being reassembled
		// overlap with any other fragments being reassembled for the
		// same packet, reassembly of that packet must be abandoned". It
		// lets exact duplicates count as overlap, and here they do.
		//
		// IPv4 has no such sentence, and RFC 791 3.2 takes duplicates
		// for granted; what brings no new byte is dropped by itself.
		// Either way no byte is delivered twice (RFC 1858 3, RFC 3128).
		d.poisoned = d.key.Version == 6 || r.start < d.covered[i].start || r.end > d.covered[i].end
		return false
	}
	if !d.fits(f, r.end) || !d.insert(i, r) {
		d.poisoned = true
		return false
	}
	return true
}

// fits holds the last fragment to be the last one.
func (d *datagram) fits(f *packet.Fragment, end uint16) bool {
	switch {
	case f.More:
		return !d.ended || end <= d.length
	case d.ended, d.ranges > 0 && d.covered[d.ranges-1].end > end:
		return false
	}
	d.ended, d.length = true, end
	return true
}

// insert puts r in front of the range i, which it does not overlap.
func (d *datagram) insert(i int, r byteRange) bool {
	n := int(d.ranges)
	before := i > 0 && d.covered[i-1].end == r.start
	after := i < n && d.covered[i].start == r.end
	switch {
	case before && after:
		d.covered[i-1].end = d.covered[i].end
		copy(d.covered[i:n], d.covered[i+1:n])
		d.ranges--
	case before:
		d.covered[i-1].end = r.end
	case after:
		d.covered[i].start = r.start
	case n == maxHoles:
		return false
	default:
		copy(d.covered[i+1:n+1], d.covered[i:n])
		d.covered[i] = r
		d.ranges++
	}
	return true
}

// whole tells whether every fragment has passed.
func (d *datagram) whole() bool {
	return d.ended && !d.poisoned && d.ranges == 1 && d.covered[0] == byteRange{0, d.length}
}

// expire forgets what is too old. Workers read the clock on their own, so the
// order by age may be wrong by a batch.
func (t *datagrams) expire(now time.Duration) {
	for i := t.list[0].newer; i != 0 && now-t.list[i].born >= fragmentTimeout; i = t.list[0].newer {
		t.remove(i)
	}
}

// lookup returns the place of the key's datagram, 0 if there is none.
func (t *datagrams) lookup(key *datagramKey) uint16 {
	i := *t.bucket(key)
	for i != 0 && t.list[i].key != *key {
		i = t.list[i].next
	}
	return i
}

// find returns the place of the key's datagram, a new one if there is none.
func (t *datagrams) find(now time.Duration, key *datagramKey) uint16 {
	t.expire(now)
	if i := t.lookup(key); i != 0 {
		return i
	}
	if t.free == 0 {
		t.remove(t.oldest(owner(&key.sa)))
	}
	i, bucket := t.free, t.bucket(key)
	d := &t.list[i]
	t.free = d.older
	*d = datagram{key: *key, born: now, older: t.list[0].older, next: *bucket}
	t.list[d.older].newer, t.list[0].older = i, i
	*bucket = i
	t.held[owner(&key.sa)]++
	return i
}

// owner is whose share a datagram counts for. Inbound it is the SA's; SAs may share
// one. Outbound there are none, and all is one owner's.
func owner(sa *sad.ID) uint32 { return sa.SPI * 0x9e3779b1 >> 26 }

const _ = uint(owners - 1<<(32-26)) // all that owner returns has its place

// oldest is the place of the one that makes room for one of the owner by: the
// oldest of all, or the oldest of its own where it has more than its share.
func (t *datagrams) oldest(by uint32) uint16 {
	first := t.list[0].newer
	if t.held[by] < share {
		return first
	}
	i := first
	for range patience {
		if i == 0 || owner(&t.list[i].key.sa) == by {
			break
		}
		i = t.list[i].newer
	}
	if i == 0 || owner(&t.list[i].key.sa) != by {
		return first
	}
	return i
}

// remove forgets the datagram at place i.
func (t *datagrams) remove(i uint16) {
	d := &t.list[i]
	t.held[owner(&d.key.sa)]--
	link := t.bucket(&d.key)
	for *link != i {
		link = &t.list[*link].next
	}
	*link = d.next
	t.list[d.older].newer, t.list[d.newer].older = d.newer, d.older
	d.older, t.free = t.free, i
	d.key.sa.Peer = "" // nothing of a removed SA is held
}

func (t *datagrams) bucket(key *datagramKey) *uint16 {
	return &t.buckets[key.Hash(t.seed^uint64(key.sa.SPI))&(maxDatagrams-1)]
}
