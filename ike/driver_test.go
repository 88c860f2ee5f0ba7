package ike

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// scripted is a machine that says what a test wants: the driver's work is what is
// between it and the world.
type scripted struct {
	steps    []string // what it was given, with the time
	answer   func(now time.Duration, in Input) []Action
	deadline time.Duration // 0: none
	status   []PeerStatus
	statuses int // how often it was asked for
}

func (s *scripted) Step(now time.Duration, in Input) []Action {
	what := strings.TrimPrefix(fmt.Sprintf("%T", in), "ike.")
	switch in := in.(type) {
	case Packet:
		what = fmt.Sprintf("Packet %x", in.Data[28:])
	case Installed:
		what = fmt.Sprintf("Installed %d %v", in.Token, in.Err)
	case Heard:
		what = fmt.Sprintf("Heard %d %v %v", in.SPI, in.Ago, in.Never)
	}
	s.steps = append(s.steps, fmt.Sprintf("%v %s", now, what))
	if s.deadline != 0 && now >= s.deadline {
		s.deadline = 0
	}
	if s.answer == nil {
		return nil
	}
	return s.answer(now, in)
}

func (s *scripted) Deadline() (time.Duration, bool) { return s.deadline, s.deadline != 0 }
func (s *scripted) Status() []PeerStatus {
	s.statuses++
	return s.status
}
func (s *scripted) Idle() bool {
	return !slices.ContainsFunc(s.status, func(p PeerStatus) bool { return len(p.SAs) > 0 })
}
func (s *scripted) Stats() map[string]uint64 { return map[string]uint64{"dropped": 3} }

// world is a driver's transport and SAD, which write down what they are asked.
type world struct {
	done    []string
	keys    []sad.Params // as they were in the call, shared
	install error
	send    error
}

func (w *world) note(format string, args ...any) {
	w.done = append(w.done, fmt.Sprintf(format, args...))
}

func (w *world) Send(s Send) error {
	w.note("send %x to %s natt %v", s.Data, s.Remote, s.NATT)
	return w.send
}

func (w *world) Keepalive(_ netip.Addr, remote netip.AddrPort) error {
	w.note("keepalive to %s", remote)
	return nil
}

func (w *world) Install(params ...sad.Params) error {
	w.keys = append(w.keys, params...)
	w.note("install %d", len(params))
	return w.install
}

func (w *world) Replace(old []sad.ID, grace time.Duration, params ...sad.Params) error {
	w.keys = append(w.keys, params...)
	w.note("replace %d after %v by %d", len(old), grace, len(params))
	return w.install
}

func (w *world) Remove(ids ...sad.ID) int {
	w.note("remove %d", len(ids))
	return len(ids)
}

func (w *world) Move(m Move) { w.note("move %s to %s", m.Peer, m.Remote) }

func (w *world) Heard(ids ...sad.ID) (time.Duration, bool) {
	w.note("heard on %d", len(ids))
	return 3 * time.Second, len(ids) > 1
}

// rig is a driver around a script, in virtual time.
type driverRig struct {
	*world
	*scripted
	driver *Driver
	inbox  *Inbox
	stop   context.CancelFunc
}

func newDriverRig(t *testing.T) *driverRig {
	t.Helper()
	r := &driverRig{world: &world{}, scripted: &scripted{}, inbox: NewInbox()}
	r.driver = newDriver(DriverConfig{
		Inbox: r.inbox, Transport: r.world, SAD: r.world,
		Log:     func(e Event) { r.note("event %s %s", e.Stage, e.Reason) },
		Refused: func(f Refuse) { r.note("refused %s", f.Policy) },
	}, r.scripted)
	return r
}

// start runs the driver until the test ends, and fails if a step has panicked that
// the test has not reckoned with.
func (r *driverRig) start(t *testing.T, panics uint64) {
	ctx, cancel := context.WithCancel(t.Context())
	r.stop = cancel
	go r.driver.Run(ctx)
	t.Cleanup(func() {
		cancel()
		<-r.driver.Done()
		if got := r.driver.panics.Load(); got != panics {
			t.Errorf("panic_recovered: %d, want %d: %q", got, panics, r.done)
		}
	})
	synctest.Wait()
}

// after lets that much time pass, and all that happens in it.
func (r *driverRig) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

var (
	hereIKE  = netip.MustParseAddrPort("192.0.2.1:500")
	thereIKE = netip.MustParseAddrPort("192.0.2.2:500")
)

// ikeBytes is a message whose only bytes of note are the responder's SPI and the last.
func ikeBytes(responder uint64, last byte) []byte {
	b := make([]byte, ikeHeaderLen+1)
	binary.BigEndian.PutUint64(b[8:], responder)
	b[ikeHeaderLen] = last
	return b
}

func (r *driverRig) put(t *testing.T, responder uint64, last byte) {
	t.Helper()
	if !r.inbox.Put(hereIKE, thereIKE, false, ikeBytes(responder, last)) {
		t.Fatal("the inbox has no room")
	}
}

func wantLines(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

// TestDriverDoesActionsInOrder: each action in its place, and Installed is stepped
// right behind its Install, in front of what follows. The keys are gone then.
func TestDriverDoesActionsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newDriverRig(t)
		id := sad.ID{Direction: sad.Inbound, SPI: 0x1000, Peer: "b"}
		key := sad.Key{1, 2, 3, 4}
		r.answer = func(_ time.Duration, in Input) []Action {
			switch in := in.(type) {
			case Packet:
				return []Action{
					Install{Token: 7, Params: []sad.Params{{SPI: 0x2000, EncryptionKey: key, IntegrityKey: key[2:]}}},
					Install{Token: 8, Params: []sad.Params{{SPI: 0x2001}}, Old: []sad.ID{id}, Grace: time.Second},
					Send{Local: hereIKE, Remote: thereIKE, NATT: true, Data: []byte{0xdd}},
					Remove{IDs: []sad.ID{id, id}, Grace: 5 * time.Second},
					Remove{IDs: []sad.ID{id}},
					Move{Peer: "b", Remote: thereIKE},
					Refuse{Peer: "b", Policy: "lan"},
				}
			case Installed:
				return []Action{Send{Remote: thereIKE, Data: []byte{byte(in.Token)}}, Event{Stage: StageChild}}
			}
			return nil
		}
		r.start(t, 0)
		r.put(t, 1, 0xaa)
		synctest.Wait()
		to := " to 192.0.2.2:500 natt "
		wantLines(t, "done", r.done, []string{
			"install 1", "send 07" + to + "false", "event CHILD_SA ",
			"replace 1 after 1s by 1", "send 08" + to + "false", "event CHILD_SA ",
			"send dd" + to + "true", "replace 2 after 5s by 0", "remove 1", "move b to 192.0.2.2:500", "refused lan",
		})
		wantLines(t, "steps", r.steps, []string{"0s Tick", "0s Packet aa", "0s Installed 7 <nil>", "0s Installed 8 <nil>"})
		if !slices.Equal(key, sad.Key{0, 0, 0, 0}) {
			t.Error("the keys are still there behind the Install")
		}
	})
}

// TestDriverAsksWhatWasHeard: the answer is stepped right behind its question.
func TestDriverAsksWhatWasHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newDriverRig(t)
		id := sad.ID{Direction: sad.Inbound, SPI: 0x1000, Peer: "b"}
		r.answer = func(_ time.Duration, in Input) []Action {
			if _, ok := in.(Packet); ok {
				return []Action{AskHeard{SPI: 7, IDs: []sad.ID{id, id}}, AskHeard{SPI: 8, IDs: []sad.ID{id}}, Refuse{Policy: "lan"}}
			}
			return nil
		}
		r.start(t, 0)
		r.put(t, 1, 0xaa)
		synctest.Wait()
		wantLines(t, "done", r.done, []string{"heard on 2", "heard on 1", "refused lan"})
		wantLines(t, "steps", r.steps, []string{"0s Tick", "0s Packet aa", "0s Heard 7 3s false", "0s Heard 8 3s true"})
	})
}

// TestDriverStatusIsOfNow: nothing has happened for an hour, and the ages are an hour.
func TestDriverStatusIsOfNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newDriverRig(t)
		r.start(t, 0)
		r.after(time.Hour)
		if _, err := r.driver.Status(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantLines(t, "steps", r.steps, []string{"0s Tick", "1h0m0s Tick"})
	})
}

// TestDriverTellsFailures: a SAD that refuses is told to the machine, and a socket
// that does costs one message.
func TestDriverTellsFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newDriverRig(t)
		r.install, r.send = errors.New("no room"), errors.New("no route")
		r.answer = func(_ time.Duration, in Input) []Action {
			if _, ok := in.(Acquire); ok {
				return []Action{Send{Remote: thereIKE}, Install{Token: 1, Params: []sad.Params{{}}}, Send{Remote: thereIKE}}
			}
			return nil
		}
		r.start(t, 0)
		if err := r.driver.Do(t.Context(), Acquire{Peer: "b", Policy: "lan"}); err != nil {
			t.Fatal(err)
		}
		wantLines(t, "steps", r.steps, []string{"0s Tick", "0s Acquire", "0s Installed 1 no room"})
		stats, err := r.driver.Stats(t.Context())
		if err != nil || stats["send_errors"] != 2 || stats["install_errors"] != 1 || stats["dropped"] != 3 || stats["panic_recovered"] != 0 {
			t.Errorf("%v, %v", stats, err)
		}
	})
}

// TestDriverTicksAtTheDeadline: at the time that the machine says, and at no other.
func TestDriverTicksAtTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newDriverRig(t)
		r.deadline = 90 * time.Second
		r.answer = func(now time.Duration, in Input) []Action {
			if now == 90*time.Second {
				r.deadline = 91 * time.Second
			}
			return nil
		}
		r.start(t, 0)
		r.after(time.Hour)
		wantLines(t, "steps", r.steps, []string{"0s Tick", "1m30s Tick", "1m31s Tick"})
		// An input can bring a deadline nearer.
		r.deadline = 3 * time.Hour
		r.answer = func(_ time.Duration, in Input) []Action {
			if _, ok := in.(Initiate); ok {
				r.deadline = time.Hour + time.Minute
			}
			return nil
		}
		r.steps = nil
		if err := r.driver.Do(t.Context(), Initiate{Peer: "b"}); err != nil {
			t.Fatal(err)
		}
		r.after(4 * time.Hour)
		wantLines(t, "steps", r.steps, []string{"1h0m0s Initiate", "1h1m0s Tick"})
	})
}

// TestF5_PanicCostsOnePacket: recover at the packet boundary, count it, say where it
// was and nothing that the packet said, and go on with the next one.
func TestF5_PanicCostsOnePacket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newDriverRig(t)
		var events []Event
		r.driver.cfg.Log = func(e Event) { events = append(events, e) }
		r.answer = func(_ time.Duration, in Input) []Action {
			if p, ok := in.(Packet); ok {
				switch p.Data[28] {
				case 1:
					_ = p.Data[len(p.Data)+int(p.Data[28])]
				case 2:
					panic(string(p.Data))
				}
				return []Action{Send{Remote: thereIKE, Data: p.Data[28:29]}}
			}
			return nil
		}
		r.start(t, 3)
		for _, last := range []byte{0, 1, 2, 9} {
			r.put(t, 5, last)
		}
		synctest.Wait()
		wantLines(t, "done", r.done, []string{"send 00 to 192.0.2.2:500 natt false", "send 09 to 192.0.2.2:500 natt false"})
		if len(events) != 2 {
			t.Fatalf("%d events, want 2: %+v", len(events), events)
		}
		for i, want := range []string{"index out of range", "string"} {
			e := events[i]
			if e.Reason != "panic_recovered" || e.Outcome != Failed || e.Remote != thereIKE || !strings.Contains(e.Text, want) ||
				!strings.Contains(e.Stack, "TestF5") || !strings.Contains(e.Stack, " driver_test.go:") || strings.ContainsRune(e.Text+e.Stack, 0) {
				t.Errorf("event %d: %+v", i, e)
			}
		}
		// A tick that panics is not taken again at once.
		r.answer = func(_ time.Duration, in Input) []Action {
			if _, ok := in.(Tick); ok && len(r.steps) < 100 {
				r.deadline = 1
				panic("always")
			}
			return nil
		}
		r.steps, r.deadline = nil, time.Minute
		r.put(t, 5, 9) // the loop looks at the deadline again
		r.after(time.Minute + 100*time.Millisecond)
		if err := r.driver.call(t.Context(), func() { r.answer = nil }); err != nil {
			t.Fatal(err)
		}
		r.after(time.Minute)
		wantLines(t, "steps", r.steps, []string{"0s Packet 09", "1m0s Tick", "1m1s Tick"})
	})
}

// TestDriverStopsInOrder: everything is terminated, and the answers are waited for.
func TestDriverStopsInOrder(t *testing.T) {
	for _, answered := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			r := newDriverRig(t)
			r.driver.cfg.Log = func(Event) {} // who has not answered: TestDriverSaysWhoDidNotAnswerItsEnd
			r.status = []PeerStatus{{SAs: make([]SAStatus, 1)}}
			r.answer = func(_ time.Duration, in Input) []Action {
				switch in.(type) {
				case Terminate:
					return []Action{Send{Remote: thereIKE, Data: []byte{1}}}
				case Packet:
					r.status = nil
				}
				return nil
			}
			r.start(t, 0)
			began := time.Now()
			r.stop()
			synctest.Wait()
			wantLines(t, "done", r.done, []string{"send 01 to 192.0.2.2:500 natt false"})
			want := 2 * time.Second
			if answered {
				time.Sleep(time.Second)
				want = time.Second
				r.put(t, 5, 3)
			}
			<-r.driver.Done()
			if took := time.Since(began); took != want {
				t.Errorf("answered %v: stopping took %v, want %v", answered, took, want)
			}
			if err := r.driver.Do(t.Context(), Tick{}); !errors.Is(err, ErrStopped) {
				t.Errorf("Do behind the end: %v, want ErrStopped", err)
			}
			if _, err := r.driver.Status(t.Context()); !errors.Is(err, ErrStopped) {
				t.Errorf("Status behind the end: %v, want ErrStopped", err)
			}
		})
	}
}

// TestRFC3948_4_IdleIKESAKeepsItsNATOpen: behind a NAT, and only there, an IKE SA
// without a Child SA sends a keepalive every 20 s.
func TestRFC3948_4_IdleIKESAKeepsItsNATOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newDriverRig(t)
		up := established.String()
		behind := SAStatus{State: up, BehindNAT: true, Local: hereIKE, Remote: thereIKE}
		carries := behind
		carries.ChildSAs = make([]ChildStatus, 1)
		half := behind
		half.State = starting.String()
		r.status = []PeerStatus{{SAs: []SAStatus{behind}}, {SAs: []SAStatus{carries, half, {State: up, PeerBehindNAT: true}}}}
		r.start(t, 0)
		r.after(45 * time.Second)
		wantLines(t, "done", r.done, []string{"keepalive to 192.0.2.2:500", "keepalive to 192.0.2.2:500"})
		r.status = nil // nothing is left to wait for at the end
	})
}

// Who asks and gives up is not kept, and the driver is not either.
func TestDriverCallsEndWithTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newDriverRig(t) // does not run
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.driver.Do(ctx, Tick{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want DeadlineExceeded", err)
		}
		if len(r.steps) != 0 {
			t.Errorf("steps %q", r.steps)
		}
	})
}

// TestAcquireThatComesLateChangesNothing: the word of a packet that wanted an SA can
// reach the machine when the SA is there. It is no second Child SA, and no Refuse, which
// would drop what is about to leave; also with a peer that only begins itself.
func TestAcquireThatComesLateChangesNothing(t *testing.T) {
	r, a, b := pair(t, func(_, b *Peer) { b.Remote = netip.Addr{} })
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	r.wantPairs(a, b, 1)
	sent := len(r.sent)
	inside := flowOf("10.2.0.5", "10.1.0.5")
	b.step(Acquire{Peer: "A", Policy: "lan", Flow: inside})
	b.step(Acquire{Peer: "A", Policy: "lan"})
	a.step(Acquire{Peer: "B", Policy: "lan"})
	r.run(2 * time.Second)
	r.wantPairs(a, b, 1)
	if len(r.sent) != sent || len(a.refused)+len(b.refused) != 0 {
		t.Errorf("%d messages and %d refusals behind it, want none", len(r.sent)-sent, len(a.refused)+len(b.refused))
	}
	// The IKE SA is there: a policy that has lost its pair needs no address of the peer.
	b.step(Terminate{Peer: "A", Policy: "lan"})
	r.run(3 * time.Second)
	r.wantPairs(a, b, 0)
	b.step(Acquire{Peer: "A", Policy: "lan", Flow: inside})
	r.run(4 * time.Second)
	r.wantPairs(a, b, 1)
	if len(b.refused) != 0 {
		t.Errorf("refused: %v", b.refused)
	}
}

// flowOf is a UDP packet's flow.
func flowOf(src, dst string) packet.Flow {
	return packet.Flow{
		Src: netip.MustParseAddr(src).As16(), Dst: netip.MustParseAddr(dst).As16(), Version: 4,
		Protocol: packet.ProtoUDP, SrcPort: 1000, DstPort: 2000,
	}
}
