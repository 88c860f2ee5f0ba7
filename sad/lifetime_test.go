package sad

import (
	"errors"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/esp"
)

// living is an SA with that lifetime, born at birth without jitter.
func living(t testing.TB, d Direction, l Lifetime) *SA {
	t.Helper()
	p := outbound(t)
	if d == Inbound {
		p = inbound(t)
	}
	p.Lifetime = l
	sa := newSA(t, p)
	sa.Begin(birth, 0)
	return sa
}

const birth = int64(1000 * time.Second)

// RFC 4301 4.4.2.1: time and bytes, both at once, the first to expire taking
// precedence; soft before hard; and the same at both ends.
func TestRFC4301_4_4_2_1_EveryLimitAloneAndTheFirstOfSeveral(t *testing.T) {
	at := func(d time.Duration) int64 { return birth + int64(d) }
	for _, dir := range []Direction{Outbound, Inbound} {
		for name, c := range map[string]struct {
			life                Lifetime
			packets, bytes      int
			now                 int64
			soft, hard          Limit
			softSoon, hardAfter Limit // at the same use one nanosecond earlier
		}{
			"none":            {Lifetime{}, 1 << 40, 1 << 60, math.MaxInt64, NoLimit, NoLimit, NoLimit, NoLimit},
			"soft time":       {Lifetime{Soft: time.Hour}, 0, 0, at(time.Hour), LimitTime, NoLimit, NoLimit, NoLimit},
			"hard time":       {Lifetime{Hard: time.Hour}, 0, 0, at(time.Hour), NoLimit, LimitTime, NoLimit, NoLimit},
			"idle from birth": {Lifetime{Idle: time.Minute}, 0, 0, at(time.Minute), NoLimit, LimitIdle, NoLimit, NoLimit},
			"soft bytes":      {Lifetime{SoftBytes: 100}, 1, 100, at(0), LimitBytes, NoLimit, LimitBytes, NoLimit},
			"below bytes":     {Lifetime{SoftBytes: 100, HardBytes: 101}, 1, 99, at(0), NoLimit, NoLimit, NoLimit, NoLimit},
			"hard bytes":      {Lifetime{HardBytes: 100}, 1, 100, at(0), NoLimit, LimitBytes, NoLimit, LimitBytes},
			"soft packets":    {Lifetime{SoftPackets: 3}, 3, 3, at(0), LimitPackets, NoLimit, LimitPackets, NoLimit},
			"hard packets":    {Lifetime{HardPackets: 3}, 3, 3, at(0), NoLimit, LimitPackets, NoLimit, LimitPackets},
			"bytes first":     {Lifetime{Soft: time.Hour, Hard: 2 * time.Hour, HardBytes: 9}, 1, 9, at(0), NoLimit, LimitBytes, NoLimit, LimitBytes},
			"time first":      {Lifetime{Hard: time.Hour, HardBytes: 9}, 1, 8, at(time.Hour), NoLimit, LimitTime, NoLimit, NoLimit},
		} {
			for _, early := range []bool{true, false} {
				sa := living(t, dir, c.life)
				now, soft, hard := c.now, c.soft, c.hard
				if early {
					now, soft, hard = now-1, c.softSoon, c.hardAfter
				}
				if c.packets > 0 {
					sa.Touch(birth, c.packets, c.bytes)
				}
				if got := sa.Soft(now); got != soft {
					t.Errorf("%s, %s, early %v: soft: expected %s, seen %s", dir, name, early, soft, got)
				}
				if got := sa.Expire(now); got != hard || sa.Stats().Life.Expired != hard {
					t.Errorf("%s, %s, early %v: hard: expected %s, seen %s", dir, name, early, hard, got)
				}
			}
		}
	}
}

// Use keeps an SA from being idle; the limit that ended it stays the one.
func TestIdleEndsAnSAThatCarriesNothing(t *testing.T) {
	sa := living(t, Inbound, Lifetime{Idle: time.Minute, Hard: time.Hour})
	sa.Touch(birth+int64(50*time.Second), 1, 100)
	if got := sa.Expire(birth + int64(109*time.Second)); got != NoLimit {
		t.Errorf("59 s after a packet: seen %s", got)
	}
	if got := sa.Expire(birth + int64(110*time.Second)); got != LimitIdle {
		t.Errorf("60 s after a packet: expected idle, seen %s", got)
	}
	if got := sa.Expire(birth + int64(2*time.Hour)); got != LimitIdle {
		t.Errorf("what ended it first: expected idle, seen %s", got)
	}
}

// The hard packets of an outbound SA are the end of its numbers: whoever asks, and
// whoever asks at the same time, not one more is granted; nor behind a durable
// block, where numbers do not start at 1.
func TestCS10_HardPacketsHoldByConstruction(t *testing.T) {
	const limit = 10_007
	for name, reserved := range map[string]uint64{"from 1": 0, "behind a block": 1 << 20, "without a store": math.MaxUint64} {
		p := outbound(t)
		p.Lifetime.HardPackets = limit
		first := uint64(1)
		if reserved != math.MaxUint64 {
			store := newMemoryStore()
			store.reserved[p.KeyID()] = reserved
			p.Sequence, first = store, reserved+1
		}
		sa := newSA(t, p)
		var total sync.Map
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range 2000 {
					_ = sa.ExtendReservation()
					start, granted := sa.Reserve(3)
					for i := range uint64(granted) {
						total.Store(start+i, true)
					}
				}
			})
		}
		all.Wait()
		n := uint64(0)
		total.Range(func(seq, _ any) bool {
			if seq := seq.(uint64); seq < first || seq >= first+limit {
				t.Errorf("%s: number %d granted, expected %d to %d", name, seq, first, first+limit-1)
			}
			n++
			return true
		})
		if n != limit {
			t.Errorf("%s: expected %d numbers granted, seen %d", name, limit, n)
		}
		if sa.Expired() != LimitPackets || sa.Exhausted() || sa.NeedsReservation() {
			t.Errorf("%s: at the end: expired %s, exhausted %v, needs a reservation %v", name, sa.Expired(), sa.Exhausted(), sa.NeedsReservation())
		}
	}
}

// A short space ends an SA before many packets do.
func TestHardPacketsBeyondTheSpaceChangeNothing(t *testing.T) {
	p := outbound(t)
	p.ESN, p.Lifetime.HardPackets = false, 1<<40
	sa := newSA(t, p)
	sa.skipTo(1<<32 - 2)
	wantReserve(t, sa, 5, 1<<32-1, 1)
	if !sa.Exhausted() || sa.Expired() != NoLimit {
		t.Errorf("at the end of the space: exhausted %v, expired %s", sa.Exhausted(), sa.Expired())
	}
}

// Behind the run in which the bytes ran out nothing is numbered and nothing is
// opened; inbound packets the same.
func TestCS10_HardBytesRefuseTheNextRun(t *testing.T) {
	out := living(t, Outbound, Lifetime{HardBytes: 1000})
	wantReserve(t, out, 4, 1, 4)
	out.Touch(birth, 4, 1000)
	wantReserve(t, out, 1, 0, 0)
	if got := out.Stats().Life.Expired; got != LimitBytes {
		t.Errorf("outbound: expected bytes, seen %s", got)
	}
	for what, life := range map[string]Lifetime{"bytes": {HardBytes: 1000}, "packets": {HardPackets: 4}} {
		in := living(t, Inbound, life)
		other := errors.New("other")
		batch := []esp.Packet{{Seq: 1}, {Seq: 2, Err: other}}
		in.Check(batch)
		if batch[0].Err != nil {
			t.Errorf("%s: before the limit: seen %v", what, batch[0].Err)
		}
		in.Touch(birth, 4, 1000)
		in.Check(batch)
		if !errors.Is(batch[0].Err, ErrExpired) || !errors.Is(batch[1].Err, other) {
			t.Errorf("%s: behind the limit: expected ErrExpired and what was there, seen %v and %v", what, batch[0].Err, batch[1].Err)
		}
		if s := in.Stats(); s.ReplayDrops != 0 {
			t.Errorf("%s: an expired SA counts %d replays", what, s.ReplayDrops)
		}
	}
}

// RFC 7296 2.8: rekeying SHOULD be jittered. At most a tenth earlier, never later,
// and hard limits not at all.
func TestRFC7296_2_8_SoftLimitsAreJittered(t *testing.T) {
	l := Lifetime{Soft: 1000 * time.Second, Hard: 2000 * time.Second, SoftBytes: 1000, HardBytes: 2000, SoftPackets: 1000, HardPackets: 2000}
	for _, c := range []struct {
		earlier float64
		want    uint64
	}{{0, 1000}, {0.5, 950}, {1, 900}, {-3, 1000}, {7, 900}} {
		p := outbound(t)
		p.ESN, p.Lifetime = false, l
		sa := newSA(t, p)
		sa.Begin(birth, c.earlier)
		seconds := uint64(sa.limits.soft / time.Second)
		if seconds != c.want || sa.limits.softBytes != c.want || sa.limits.softPackets != c.want {
			t.Errorf("earlier %v: expected %d s, bytes and packets, seen %s, %d and %d", c.earlier, c.want, sa.limits.soft, sa.limits.softBytes, sa.limits.softPackets)
		}
		if want := 0.75 * float64(c.want) / 1000 * (1 << 32); math.Abs(float64(sa.limits.alarm)-want) > 2 {
			t.Errorf("earlier %v: the sequence alarm: expected %.0f, seen %d", c.earlier, want, sa.limits.alarm)
		}
		if sa.limits.hard != l.Hard || sa.limits.hardBytes != 2000 || sa.limits.hardPackets != 2000 {
			t.Errorf("earlier %v: hard limits changed", c.earlier)
		}
	}
	none := newSA(t, outbound(t))
	none.Begin(birth, 1)
	if none.Soft(math.MaxInt64) != NoLimit {
		t.Error("no limit: jitter made one")
	}
}

// RFC 4303 3.3.3, long before the end: three quarters of the space; with ESN that
// is never seen in practice.
func TestTheSequenceSpaceAsksForAReplacementInTime(t *testing.T) {
	p := outbound(t)
	p.ESN = false
	short := newSA(t, p)
	short.skipTo(3<<30 - 2)
	if got := short.Soft(0); got != NoLimit {
		t.Errorf("below three quarters: seen %s", got)
	}
	short.skipTo(3 << 30)
	if got := short.Soft(0); got != LimitSequence {
		t.Errorf("at three quarters: expected sequence, seen %s", got)
	}
	short.Replaced()
	if got := short.Soft(0); got != NoLimit {
		t.Errorf("replaced: seen %s", got)
	}
	p.ESN = true
	long := newSA(t, p)
	long.skipTo(1 << 63)
	if got := long.Soft(0); got != NoLimit {
		t.Errorf("ESN at 2^63: seen %s", got)
	}
}

func TestLifetimesThatMakeNoSenseAreRefused(t *testing.T) {
	for want, l := range map[string]Lifetime{
		"negative":                           {Idle: -1},
		"use 0 for no limit":                 {Soft: -time.Second},
		"soft lifetime (time) is not below":  {Soft: time.Hour, Hard: time.Hour},
		"(bytes) is not below the hard one":  {SoftBytes: 11, HardBytes: 10},
		"(packets) is not below the hard":    {SoftPackets: 10, HardPackets: 10},
		"no time to replace the SA":          {Soft: 2, Hard: 1},
		"a lifetime is negative: use 0 for ": {Hard: -1, Soft: -2},
	} {
		p := outbound(t)
		p.Lifetime = l
		wantError(t, p.Validate(), want, "out SA 0x2001")
	}
	for _, l := range []Lifetime{{}, {Soft: 1}, {Hard: 1}, {Soft: 1, Hard: 2}, {SoftBytes: 5}, {HardPackets: 1}, {Idle: 1}} {
		p := inbound(t)
		p.Lifetime = l
		if err := p.Validate(); err != nil {
			t.Errorf("%+v: %v", l, err)
		}
	}
}

func TestStatsSayWhatIsLeft(t *testing.T) {
	sa := living(t, Inbound, Lifetime{Soft: 50, Hard: 100, SoftBytes: 50, HardBytes: 100, SoftPackets: 5, HardPackets: 10, Idle: 40})
	sa.Touch(birth+20, 6, 60)
	s := sa.Stats()
	want := Lifetime{Soft: 20, Hard: 70, HardBytes: 40, HardPackets: 4, Idle: 30}
	if got := s.Left(birth + 30); got != want {
		t.Errorf("Left: expected %+v, seen %+v", want, got)
	}
	if s.Life.Born != birth || s.Life.Limits != sa.Lifetime || s.Life.Replaced {
		t.Errorf("Life: seen %+v", s.Life)
	}
	plain := newSA(t, outbound(t)).Stats()
	if got := plain.Left(birth); got != (Lifetime{}) {
		t.Errorf("no limits: seen %+v left", got)
	}
}
