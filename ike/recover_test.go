package ike

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
)

// TestNothingIsDoneOfAStepThatPanics: not with the next step either, which is about
// something else.
func TestNothingIsDoneOfAStepThatPanics(t *testing.T) {
	m, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	m.tokens[1] = func(error) {
		m.do(Send{Data: []byte("half done")})
		panic("a fault")
	}
	logged := 0
	d := newDriver(DriverConfig{Machine: m, Clock: func() time.Duration { return time.Second }, Log: func(Event) { logged++ }}, m)
	if actions := d.guarded(Installed{Token: 1}); actions != nil || logged != 1 || d.panics.Load() != 1 {
		t.Errorf("the step that panics: %d actions, %d lines, %d counted", len(actions), logged, d.panics.Load())
	}
	if actions := d.guarded(Tick{}); len(actions) != 0 {
		t.Errorf("the step behind it does %v", actions)
	}
}

// TestTheStackOfAPanicIsTold: of a message that panics inside the machine the log says
// where, by function, file and line, the innermost first; and no argument, which could
// be a word of a key.
func TestTheStackOfAPanicIsTold(t *testing.T) {
	m, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	m.sas[1] = &ikeSA{initiator: true, spi: 1, spiR: 2, state: states} // a state that cannot be
	h := wire.Header{Initiator: 1, Responder: 2, Major: wire.Version, Exchange: wire.Informational}
	message := append(wire.BeginProtected(h, nil, wire.Protected{}, 64), make([]byte, 64)...)
	var told []Event
	for _, a := range m.Step(time.Second, Packet{Remote: thereIKE, Data: message}) {
		if e, ok := a.(Event); ok {
			told = append(told, e)
		}
	}
	if len(told) != 1 || m.stats["panic_recovered"] != 1 {
		t.Fatalf("%d events, counted %v: %+v", len(told), m.stats, told)
	}
	e := told[0]
	frames := strings.Split(e.Stack, " < ")
	if e.Reason != "panic_recovered" || e.Remote != thereIKE || len(frames) < 4 || !strings.HasPrefix(frames[0], "ike.(*Machine).asked window.go:") ||
		!strings.Contains(e.Stack, "ike.(*Machine).packet table.go:") || !strings.Contains(e.Stack, "TestTheStackOfAPanicIsTold recover_test.go:") {
		t.Errorf("%+v", e)
	}
	if strings.Contains(e.Stack+m.panicked, "0x") || strings.Contains(e.Stack, "/") {
		t.Errorf("arguments, or paths of the machine that built it: %q", e.Stack+m.panicked)
	}
}

// TestAMessageThatPanicsDelaysNoTimer: who has found a fault must not be able to hold
// up everybody's retransmissions and rekeys with one message a second.
func TestAMessageThatPanicsDelaysNoTimer(t *testing.T) {
	s := faulty{}
	d := newDriver(DriverConfig{Clock: func() time.Duration { return time.Second }}, s)
	d.guarded(Packet{})
	if d.panics.Load() != 1 || d.pause != 0 {
		t.Errorf("a message: %d counted, no tick before %s", d.panics.Load(), d.pause)
	}
	d.guarded(Tick{})
	if d.panics.Load() != 2 || d.pause != time.Second+tickPause {
		t.Errorf("a tick: %d counted, no tick before %s", d.panics.Load(), d.pause)
	}
}

// faulty panics in every step.
type faulty struct{}

func (faulty) Step(time.Duration, Input) []Action { panic("a fault") }
func (faulty) Deadline() (time.Duration, bool)    { return 0, false }
func (faulty) Status() []PeerStatus               { return nil }
func (faulty) Idle() bool                         { return true }
func (faulty) Stats() map[string]uint64           { return nil }

// mute answers no question.
type mute struct{}

func (mute) Step(time.Duration, Input) []Action { return nil }
func (mute) Deadline() (time.Duration, bool)    { panic("a fault") }
func (mute) Status() []PeerStatus               { panic("a fault") }
func (mute) Idle() bool                         { panic("a fault") }
func (mute) Stats() map[string]uint64           { panic("a fault") }

// TestAQuestionThatPanicsEndsNothing: neither when the machine wants to be stepped nor
// what its state is; it is asked again, but not at once.
func TestAQuestionThatPanicsEndsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logged := 0
		d := newDriver(DriverConfig{Inbox: NewInbox(), Keepalive: time.Minute, Log: func(e Event) {
			logged++
			if e.Reason != "panic_recovered" || e.Text == "" {
				t.Errorf("%+v", e)
			}
		}}, mute{})
		ctx, cancel := context.WithCancel(t.Context())
		go d.Run(ctx)
		time.Sleep(9*time.Second + time.Millisecond)
		synctest.Wait()
		if n := d.panics.Load(); n != 10 || logged != 10 {
			t.Errorf("%d in nine seconds, %d lines", n, logged)
		}
		if list, err := d.Status(t.Context()); list != nil || !errors.Is(err, errFault) {
			t.Errorf("%v, %v", list, err)
		}
		if counts, err := d.Stats(t.Context()); err != nil || counts["panic_recovered"] != 12 {
			t.Errorf("%v, %v", counts, err)
		}
		time.Sleep(2 * time.Minute) // keepalives ask as well
		if err := d.Do(t.Context(), Tick{}); err != nil {
			t.Errorf("the driver has ended: %v", err)
		}
		cancel()
		<-d.Done()
	})
}
