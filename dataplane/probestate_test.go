package dataplane

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// simPath is a path in virtual time that swallows what is longer than mtu.
type simPath struct {
	mtu    int
	rtt    time.Duration
	loss   int // percent
	silent bool
	dead   bool
	// resting: no long packet is sent, but was a moment ago.
	resting bool
	rng     *rand.Rand

	now     time.Duration
	probe   pathProbe
	link    int
	ids     uint64
	answers []probeFlight // on their way back; sent is when they arrive
	sizes   []int         // what was sent, of the confirming and searching kind
	history []string      // size, whenever it changed
}

const simTick = 50 * time.Millisecond

func newSim(mtu, link, floor int) *simPath {
	return &simPath{mtu: mtu, rtt: 10 * time.Millisecond, link: link, probe: pathProbe{floor: floor}, rng: rand.New(rand.NewPCG(1, 2))}
}

func (s *simPath) note() {
	text := fmt.Sprint(s.probe.size)
	if n := len(s.history); n == 0 || s.history[n-1] != text {
		s.history = append(s.history, text)
	}
}

// run lets the SA be used for that long.
func (s *simPath) run(d time.Duration) {
	for end := s.now + d; s.now < end; s.now += simTick {
		for i := 0; i < len(s.answers); {
			if a := s.answers[i]; a.sent <= s.now {
				s.answers = append(s.answers[:i], s.answers[i+1:]...)
				s.probe.answered(a.id, a.sent)
				continue
			}
			i++
		}
		s.probe.told(s.probe.size, s.link, s.now)
		ask, n, _ := s.probe.poll(s.now, probeInterval, !s.resting, func() uint64 { s.ids++; return s.ids })
		for _, f := range ask[:n] {
			if f.size > s.probe.floor {
				s.sizes = append(s.sizes, f.size)
			}
			if !s.silent && !s.dead && f.size <= s.mtu && s.rng.IntN(100) >= s.loss {
				f.sent += s.rtt
				s.answers = append(s.answers, f)
			}
		}
		s.note()
	}
}

// start is an SA in use whose peer answers, on a path that was never narrow.
func start(link, floor int) *simPath {
	s := newSim(link, link, floor)
	s.run(3 * time.Second)
	return s
}

// Whatever a path takes, that is found, within probeStep, and nothing longer is
// used then.
func TestRFC8899_5_EveryPathIsFound(t *testing.T) {
	for _, link := range []int{1500, 9000} {
		for mtu := 576; mtu <= link; mtu += 31 {
			for _, floor := range []int{576, 1280} {
				if mtu < floor {
					continue
				}
				s := start(link, floor)
				s.mtu = mtu
				s.run(30 * time.Second)
				if got := s.probe.size; got > mtu || got <= mtu-probeStep || s.probe.state != probeConfirm {
					t.Fatalf("link %d, path %d, floor %d: %d in state %d; %v", link, mtu, floor, got, s.probe.state, s.history)
				}
			}
		}
	}
}

// A path that becomes narrow is noticed within 1.2 seconds, at any moment of the
// interval, with round trips up to 100 ms.
func TestRFC8899_4_3_BlackHoleIsNoticedInTime(t *testing.T) {
	for _, rtt := range []time.Duration{time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond} {
		for phase := range 10 {
			s := newSim(1500, 1500, 576)
			s.rtt = rtt
			s.run(3*time.Second + time.Duration(phase)*simTick)
			s.mtu = 1300
			s.run(1200 * time.Millisecond)
			if s.probe.size > 1300 {
				t.Errorf("round trip %s, phase %d: still %d", rtt, phase, s.probe.size)
			}
		}
	}
}

// RFC 8899 5.1.1: PMTU_RAISE_TIMER. A path that becomes wide again is used again.
func TestRFC8899_5_1_1_TheSizeRises(t *testing.T) {
	s := start(1500, 576)
	s.mtu = 1300
	s.run(20 * time.Second)
	s.mtu = 1500
	s.run(raiseInterval - 25*time.Second)
	if s.probe.size > 1300 {
		t.Errorf("before the timer: %d", s.probe.size)
	}
	s.run(20 * time.Second)
	if s.probe.size != 1500 {
		t.Errorf("after the timer: %d; %v", s.probe.size, s.history)
	}
}

// On a path that stays narrow the attempts to rise change nothing.
func TestAttemptsToRiseAreHarmless(t *testing.T) {
	s := start(1500, 576)
	s.mtu = 1300
	s.run(20 * time.Second)
	found := s.probe.size
	s.history = nil
	s.run(3 * raiseInterval)
	for _, size := range s.history {
		if size < fmt.Sprint(found) || size > "1300" {
			t.Errorf("sizes: %v; expected %d to 1300", s.history, found)
		}
	}
}

// A peer that answers nothing: a few small probes, and nothing else, ever.
func TestPeerThatDoesNotAnswerChangesNothing(t *testing.T) {
	s := newSim(1300, 1500, 576)
	s.silent = true
	s.run(10 * time.Minute)
	if len(s.history) != 1 || s.history[0] != "1500" || len(s.sizes) != 0 || s.ids > 40 {
		t.Errorf("sizes %v, %d probes, of them long: %v", s.history, s.ids, s.sizes)
	}
	s.silent = false
	s.run(silentInterval + 10*time.Second)
	if s.probe.size > 1300 {
		t.Errorf("it answers now: %d", s.probe.size)
	}
}

// When nothing at all comes through, the path's width is not to blame; afterwards
// all is as before.
func TestOutageIsNoBlackHole(t *testing.T) {
	s := start(1500, 576)
	s.dead = true
	s.run(2 * time.Minute)
	s.dead = false
	s.run(2 * silentInterval)
	if len(s.history) != 1 || s.probe.state != probeConfirm {
		t.Errorf("sizes %v, state %d", s.history, s.probe.state)
	}
}

// Loss of every twentieth packet is no black hole for long, and does not keep the
// size from coming back.
func TestLossIsNoBlackHole(t *testing.T) {
	s := start(1500, 576)
	s.loss = 5
	s.run(10 * time.Minute)
	if len(s.history) > 1 {
		t.Logf("sizes: %v", s.history)
	}
	if s.probe.size < probeBase {
		t.Errorf("5 %% loss made it %d: %v", s.probe.size, s.history)
	}
}

// A path with a long round trip is probed too, and one that gets slow is not taken
// for a narrow one.
func TestLongRoundTrips(t *testing.T) {
	s := newSim(1400, 1500, 576)
	s.rtt = 1500 * time.Millisecond
	s.run(3 * time.Minute)
	if s.probe.size > 1400 || s.probe.size <= 1400-probeStep {
		t.Errorf("1.5 s: %d; %v", s.probe.size, s.history)
	}
	s = start(1500, 576)
	s.rtt = 800 * time.Millisecond // from 10 ms
	s.run(3 * time.Minute)
	if len(s.history) != 1 {
		t.Errorf("it became slow: %v", s.history)
	}
}

// A router's word is taken up, tried, and left again after the raise timer; so is
// the link's.
func TestWordFromOutsideIsTried(t *testing.T) {
	s := start(1500, 576)
	s.probe.told(1300, 1500, s.now)
	if s.probe.size != 1300 {
		t.Fatalf("told 1300: %d", s.probe.size)
	}
	s.sizes = nil
	s.run(time.Second)
	if len(s.sizes) == 0 || s.sizes[0] != 1300 || s.probe.size != 1300 {
		t.Errorf("asked %v", s.sizes)
	}
	s.run(raiseInterval + 5*time.Second)
	if s.probe.size != 1500 {
		t.Errorf("the forged word still holds: %d", s.probe.size)
	}
	s.link, s.mtu = 9000, 4000
	s.run(30 * time.Second)
	if s.probe.size > 4000 || s.probe.size <= 4000-probeStep {
		t.Errorf("the link became wide: %d; %v", s.probe.size, s.history)
	}
}

// Where nothing long is sent any more nothing is asked, unless there was a doubt:
// then it is pursued.
func TestOnlyADoubtIsPursuedAtRest(t *testing.T) {
	s := start(1500, 576)
	s.resting = true
	s.run(simTick * 2) // the answer to the last one
	asked := s.ids
	s.run(10 * time.Second)
	if s.ids != asked {
		t.Errorf("%d probes at rest", s.ids-asked)
	}
	s.resting, s.mtu = false, 1300
	s.run(probeInterval + probeTimeout + 2*simTick)
	s.resting = true
	s.run(20 * time.Second)
	if s.probe.size > 1300 || s.probe.size <= 1300-probeStep {
		t.Errorf("the doubt ended at %d", s.probe.size)
	}
}

// An answer to nothing, or that comes twice or late, means nothing.
func TestStrayAnswersMeanNothing(t *testing.T) {
	s := start(1500, 576)
	before := s.probe
	for _, id := range []uint64{0, 1, 99999} {
		if s.probe.answered(id, s.now) || s.probe != before {
			t.Errorf("the answer to %d changed something", id)
		}
	}
}
