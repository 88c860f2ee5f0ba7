package sad

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/adit-ipsec/adit/esp"
)

// Lifetimes. RFC 4301 4.4.2.1: a lifetime "may be expressed as a time or byte
// count, or a simultaneous use of both with the first lifetime to expire taking
// precedence. A compliant implementation MUST support both types of lifetimes,
// and MUST support a simultaneous use of both." A soft limit "warns the
// implementation to initiate action such as setting up a replacement SA", at a
// hard one "the current SA ends and is destroyed".
//
// What no packet may pass by is held where packets pass, not by who looks now
// and then: outbound packets by the bound of Reserve, exactly; bytes, and inbound
// packets, by a mark that Touch sets and that Reserve and Check look at, so that
// what passes over the limit is at most the one run that each worker has in hand.
// Time and idleness end an SA when somebody asks Expire.
//
// Deviation: RFC 4301 4.4.2.1 says that bytes SHOULD be those "to which the IPsec
// cryptographic algorithm is applied", padding included. Counted here is the
// packet inside, which is what an operator can compare with anything else. The
// ends may differ: "implementations MUST be able to handle having the counters at
// the ends of an SA get out of synch".

// Limit is what made an SA expire.
type Limit uint8

// The limits, in the order in which they are looked at.
const (
	NoLimit       Limit = iota
	LimitTime           // Soft, Hard
	LimitBytes          // SoftBytes, HardBytes
	LimitPackets        // SoftPackets, HardPackets
	LimitIdle           // Idle; always hard
	LimitSequence       // three quarters of the sequence numbers are used; always soft
)

// String is the limit in one word, for events and logs.
func (l Limit) String() string {
	return word(l, "none", "time", "bytes", "packets", "idle", "sequence")
}

// MarshalText is String.
func (l Limit) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// ErrExpired is the Err of a packet on an SA whose hard lifetime is over. It is a
// value, not built per packet.
var ErrExpired = errors.New("sad: the SA's lifetime is over")

// sequenceAlarm is the share of the sequence numbers that is used when a new SA is
// to be made. RFC 4303 3.3.3: at the end of the space a sender "MUST NOT send", so
// the replacement has to come long before.
const sequenceAlarm = 0.75

// maxJitter is how much earlier than its limit an SA may ask to be replaced.
const maxJitter = 0.1

// What has no limit has one that is never reached.
const (
	neverTime  time.Duration = math.MaxInt64
	neverCount uint64        = math.MaxUint64
)

// limits are the numbers that an SA compares with.
type limits struct {
	soft, hard               time.Duration // since born
	softBytes, hardBytes     uint64
	softPackets, hardPackets uint64
	idle                     time.Duration
	alarm                    uint64 // of the sequence numbers; outbound
}

func (p *Params) checkLifetime() error {
	l := &p.Lifetime
	if l.Soft < 0 || l.Hard < 0 || l.Idle < 0 {
		return errors.New("a lifetime is negative: use 0 for no limit")
	}
	for _, pair := range []struct {
		what       string
		soft, hard uint64
	}{
		{"time", uint64(l.Soft), uint64(l.Hard)},
		{"bytes", l.SoftBytes, l.HardBytes},
		{"packets", l.SoftPackets, l.HardPackets},
	} {
		if pair.hard != 0 && pair.soft >= pair.hard {
			return fmt.Errorf("soft lifetime (%s) is not below the hard one: there would be no time to replace the SA", pair.what)
		}
	}
	return nil
}

// initLifetime makes the limits, and the end of the numbers that the SA may
// grant: those of its space, or of its packets where they are fewer. A number that
// is granted and not sent counts as a packet.
func (sa *SA) initLifetime() {
	l := &sa.Lifetime
	sa.limits = limits{
		soft: cmp.Or(l.Soft, neverTime), hard: cmp.Or(l.Hard, neverTime), idle: cmp.Or(l.Idle, neverTime),
		softBytes: cmp.Or(l.SoftBytes, neverCount), hardBytes: cmp.Or(l.HardBytes, neverCount),
		softPackets: cmp.Or(l.SoftPackets, neverCount), hardPackets: cmp.Or(l.HardPackets, neverCount),
		alarm: uint64(sequenceAlarm * float64(sa.space)),
	}
	sa.end = sa.space
}

// initEnd is for outbound SAs, once the first number is known.
func (sa *SA) initEnd(first uint64) {
	if left := sa.space - first; sa.limits.hardPackets < left {
		sa.end = first + sa.limits.hardPackets
	}
}

// Begin starts the SA's life at now, nanoseconds on the gateway's monotonic
// clock. earlier, 0 to 1, is how much of a tenth the soft limits come early: RFC
// 7296 2.8 has two ends with the same lifetimes rekey at the same time, so that
// "the timing of rekeying requests SHOULD be jittered (delayed by a random amount
// of time after the need for rekeying is noticed)". Earlier rather than later, so
// that the time to the hard limit never shrinks. Call it before Install, once;
// without it the SA was born at 0.
func (sa *SA) Begin(now int64, earlier float64) {
	sa.born = now
	share := maxJitter * min(max(earlier, 0), 1)
	l := &sa.limits
	l.soft = sooner(l.soft, neverTime, share)
	l.softBytes = sooner(l.softBytes, neverCount, share)
	l.softPackets = sooner(l.softPackets, neverCount, share)
	l.alarm = sooner(l.alarm, neverCount, share)
}

// sooner is the limit less that share of it; never stays never.
func sooner[T time.Duration | uint64](limit, never T, share float64) T {
	if limit == never {
		return never
	}
	return limit - T(float64(limit)*share)
}

// Soft is the soft limit that is reached, if any, at now. An SA that has a
// replacement (Replaced) needs no other, and reaches none.
func (sa *SA) Soft(now int64) Limit {
	l := &sa.limits
	switch {
	case sa.replaced.Load():
		return NoLimit
	case time.Duration(now-sa.born) >= l.soft:
		return LimitTime
	case sa.bytes.Load() >= l.softBytes:
		return LimitBytes
	case sa.packets.Load() >= l.softPackets || sa.granted() >= l.softPackets:
		return LimitPackets
	case sa.Direction == Outbound && sa.last.Load() >= l.alarm:
		return LimitSequence
	}
	return NoLimit
}

// granted is how many packets an outbound SA has numbered; 0 inbound.
func (sa *SA) granted() uint64 {
	last := sa.last.Load()
	if last <= sa.first {
		return 0
	}
	return last - sa.first
}

// Expire is the hard limit that is reached, if any, at now; from then on nothing
// passes on the SA, whichever Snapshot a worker holds. The limit that was reached
// first stays.
func (sa *SA) Expire(now int64) Limit {
	if limit := sa.Expired(); limit != NoLimit {
		return limit
	}
	l := &sa.limits
	switch {
	case time.Duration(now-sa.born) >= l.hard:
		sa.expire(LimitTime)
	case time.Duration(now-max(sa.born, sa.lastUsed.Load())) >= l.idle:
		sa.expire(LimitIdle)
	}
	return sa.Expired()
}

// Expired is the hard limit that the SA has reached; NoLimit while it lives.
func (sa *SA) Expired() Limit {
	if limit := Limit(sa.expired.Load()); limit != NoLimit {
		return limit
	}
	// The end of the packets is no mark but the end of the numbers.
	if sa.Direction == Outbound && sa.end < sa.space && sa.last.Load() >= sa.end {
		return LimitPackets
	}
	return NoLimit
}

func (sa *SA) expire(limit Limit) { sa.expired.CompareAndSwap(uint32(NoLimit), uint32(limit)) }

// spent is Touch's look at the limits, once per run.
func (sa *SA) spent(packets, bytes uint64) {
	if bytes >= sa.limits.hardBytes {
		sa.expire(LimitBytes)
	} else if packets >= sa.limits.hardPackets {
		sa.expire(LimitPackets)
	}
}

// refuseExpired is Check when the SA has ended.
func (sa *SA) refuseExpired(batch []esp.Packet) {
	for i := range batch {
		if batch[i].Err == nil {
			batch[i].Err = ErrExpired
		}
	}
}

// Replaced says that another SA has taken over: this one serves what is still on
// its way, and does not ask to be replaced any more.
func (sa *SA) Replaced() { sa.replaced.Store(true) }

// Life is how old an SA is beside its limits.
type Life struct {
	Limits   Lifetime // as in Params; 0 is no limit
	Born     int64    // when it was installed, nanoseconds on the gateway's clock
	Expired  Limit    // the hard limit that ended it
	Replaced bool     // another SA has taken over, and this one goes after a grace time
}

func (sa *SA) life() Life {
	return Life{Limits: sa.Lifetime, Born: sa.born, Expired: sa.Expired(), Replaced: sa.replaced.Load()}
}

// Left is what remains of each limit at now, and 0 where nothing does or there is
// no limit. Soft limits are those without jitter.
func (s *Stats) Left(now int64) Lifetime {
	l := &s.Life.Limits
	age := time.Duration(now - s.Life.Born)
	idle := time.Duration(now - max(s.Life.Born, s.LastUsed))
	return Lifetime{
		Soft: max(0, l.Soft-age), Hard: max(0, l.Hard-age), Idle: max(0, l.Idle-idle),
		SoftBytes: minus(l.SoftBytes, s.Bytes), HardBytes: minus(l.HardBytes, s.Bytes),
		SoftPackets: minus(l.SoftPackets, s.Packets), HardPackets: minus(l.HardPackets, s.Packets),
	}
}

func minus(limit, used uint64) uint64 {
	if used >= limit {
		return 0
	}
	return limit - used
}
