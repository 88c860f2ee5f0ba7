package dataplane

import (
	"testing"
	"time"

	"github.com/adit-ipsec/adit/sad"
)

// An old outbound SA stays while a worker may be using it: a batch in hand, or one
// that is just being begun. The grace time is the most that it stays.
func TestAnOldOutboundSAStaysWhileAWorkerUsesIt(t *testing.T) {
	r := newRig(t, options{})
	house := &housekeeper{gateway: r.gw}
	w := r.gw.out[0]
	next := func(spi uint32) sad.Params {
		p := r.classParams(spi)
		p.Lifetime.Soft = time.Nanosecond
		return p
	}
	there := func(when string, id sad.ID, want bool) {
		t.Helper()
		house.round()
		if got := r.gw.sas.Find(id) != nil; got != want {
			t.Errorf("%s: the old SA is there: expected %v, saw %v", when, want, got)
		}
	}
	replace := func(spi uint32) (old sad.ID) {
		t.Helper()
		old = r.outSA().ID()
		if err := r.gw.Replace([]sad.ID{old}, time.Minute, next(spi)); err != nil {
			t.Fatal(err)
		}
		return old
	}
	w.begin() // a batch in hand
	old := replace(0x7001)
	there("a batch of the old snapshot", old, true)
	w.releaseSnapshot()
	w.begin() // the next batch
	there("a batch of the new snapshot", old, false)

	old = replace(0x7002)
	w.using.Store(anySnapshot) // has begun, and may have loaded either
	there("a batch that is being begun", old, true)
	w.releaseSnapshot()
	w.walk(0)
	there("no batch in hand", old, false)

	w.begin()
	old = replace(0x7003)
	r.now += time.Minute - 1
	there("a batch that lasts", old, true)
	r.now++
	there("the grace time is over", old, false)
	w.releaseSnapshot()

	// What somebody else removes is forgotten, and is not replaced twice.
	w.begin()
	old = replace(0x7004)
	if n := r.gw.Remove(old); n != 1 {
		t.Fatalf("Remove: expected 1, saw %d", n)
	}
	house.round()
	if n := len(r.gw.replacements.retiring); n != 0 {
		t.Errorf("retiring: expected 0, saw %d", n)
	}
	w.releaseSnapshot()
	for _, e := range r.events() {
		if e.Kind != SoftExpire || e.SPI < 0x7001 {
			t.Errorf("a removal is no event, saw %+v", e)
		}
	}
}

// An SA that has been replaced does not ask to be replaced again.
func TestAReplacedSAReachesNoSoftLimit(t *testing.T) {
	r, house := mortal(t, sad.Lifetime{Soft: time.Minute, Hard: time.Hour})
	in := r.params(sad.Inbound)
	in.SPI, in.EncryptionKey = 0x7100, key("next", len(in.EncryptionKey))
	if err := r.gw.Replace([]sad.ID{r.inSA().ID(), r.outSA().ID()}, 2*time.Minute, in, r.classParams(0x7101)); err != nil {
		t.Fatal(err)
	}
	r.now += time.Minute
	house.round()
	r.says("the old SAs' soft limit")
	r.delivers(1, r.arrive(r.good(1)))
	r.now += time.Minute
	house.round()
	r.dropped(InNoSA, func() { r.arrive(r.good(2)) })
}
