package ike

import (
	"testing"
	"time"
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
func (faulty) Stats() map[string]uint64           { return nil }
