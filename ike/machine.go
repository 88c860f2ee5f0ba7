package ike

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
)

// Machine is the IKEv2 daemon without its sockets and its clock: see the package
// comment. It is for one goroutine.
type Machine struct {
	limits Limits
	timing Timing
	port   uint16
	natt   uint16
	rand   io.Reader
	wall   func(time.Duration) time.Time
	source func(netip.Addr) netip.Addr // nil: not known

	now     time.Duration // of the Step that runs
	actions []Action      // of the Step that runs
	timers  timerHeap
	tokens  map[uint64]func(error) // Installs that are not answered yet
	token   uint64

	peers   map[string]*peer
	names   []string            // of the peers, in the order of the configuration
	sas     map[wire.SPI]*ikeSA // by our SPI
	strange strangers           // half-open SAs and cookies
	origins origins             // of the peers

	childSPIs spiTable // inbound SPIs that are taken
	panicked  string   // where a message made this end panic, for tests
	stopping  bool     // the last Terminate was there

	stats map[string]uint64
}

// New makes a machine, and at the first Step it initiates to the peers that are to
// be up at once.
func New(c Config) (*Machine, error) {
	m := &Machine{
		limits: c.Limits.defaults(), timing: c.Timing.defaults(),
		port: cmp.Or(c.Port, 500), natt: cmp.Or(c.NATTPort, 4500),
		rand: c.Rand, wall: c.Wall, source: c.Source,
		tokens: map[uint64]func(error){},
		peers:  map[string]*peer{},
		sas:    map[wire.SPI]*ikeSA{},
		stats:  map[string]uint64{},
	}
	if m.rand == nil {
		m.rand = rand.Reader
	}
	if m.wall == nil {
		m.wall = func(time.Duration) time.Time { return time.Now() }
	}
	m.strange.init()
	if err := m.configure(c.Peers); err != nil {
		return nil, err
	}
	return m, nil
}

// defaults fills what is zero.
func (l Limits) defaults() Limits {
	return Limits{
		CookieHalfOpen:  cmp.Or(l.CookieHalfOpen, 30),
		CookieAddress:   cmp.Or(l.CookieAddress, 3),
		MaxHalfOpen:     cmp.Or(l.MaxHalfOpen, 4096),
		MaxSAs:          cmp.Or(l.MaxSAs, 20000),
		MaxChildren:     cmp.Or(l.MaxChildren, 256),
		FragmentMessage: cmp.Or(l.FragmentMessage, 64<<10),
	}
}

func (t Timing) defaults() Timing {
	return Timing{
		Retransmit:    cmp.Or(t.Retransmit, 500*time.Millisecond),
		MaxRetransmit: cmp.Or(t.MaxRetransmit, 8*time.Second),
		Tries:         cmp.Or(t.Tries, 8),
		HalfOpen:      cmp.Or(t.HalfOpen, 30*time.Second),
		Grace:         cmp.Or(t.Grace, 5*time.Second),
		Retry:         cmp.Or(t.Retry, time.Second),
		CookieSecret:  cmp.Or(t.CookieSecret, time.Minute),
	}
}

// Step takes what happened at now, which never goes back, and says what is to be
// done. The actions are the caller's.
func (m *Machine) Step(now time.Duration, in Input) []Action {
	// Of a Step that panics nothing is done, with the next one neither.
	defer func() { m.actions = nil }()
	m.now = max(m.now, now)
	// What was installed has its place before a timer can end what it is for.
	if done, is := in.(Installed); is {
		m.installed(done)
	}
	m.timers.run(m.now)
	m.take(in)
	return m.actions
}

// Deadline is when the machine wants to be stepped, with a Tick if nothing else;
// false: never.
func (m *Machine) Deadline() (time.Duration, bool) { return m.timers.next() }

// Stats counts, by name: messages that were dropped and why, and what was done.
func (m *Machine) Stats() map[string]uint64 {
	out := make(map[string]uint64, len(m.stats))
	for k, v := range m.stats {
		out[k] = v
	}
	return out
}

func (m *Machine) take(in Input) {
	switch in := in.(type) {
	case Packet:
		if why := m.guarded(in); why != "" {
			m.count(why)
		}
	case Tick, Installed:
	case Heard:
		m.heardOn(in)
	case Acquire:
		m.acquire(in)
	case Expired:
		m.expired(in)
	case Moved:
		m.moved(in)
	case Initiate:
		m.initiate(in)
	case Rekey:
		m.rekey(in)
	case Terminate:
		if in.Last {
			m.stop()
			return
		}
		m.terminate(in)
	case Configure:
		if err := m.configure(in.Peers); err != nil {
			m.emit(Event{Stage: StageConfigure, Outcome: Failed, Reason: "configuration", Text: err.Error()})
		}
	case PathChanged:
		m.pathChanged(in)
	case Verbose:
		m.verbose(in)
	}
}

// guarded takes a message. One that makes this end panic is a fault of this
// package's: it is counted, told of, and ends nothing else. Tests fail on it.
func (m *Machine) guarded(in Packet) (why string) {
	defer func() {
		if r := recover(); r != nil {
			why = "panic_recovered"
			e := panicEvent(in, r)
			m.panicked = fmt.Sprintf("%v\n%s", r, e.Stack)
			m.strangerEvent(e)
		}
	}()
	return m.packet(in)
}

// count counts one thing that happened, by name.
func (m *Machine) count(name string) { m.stats[name]++ }

// do adds an action to those of this Step.
func (m *Machine) do(a Action) {
	m.actions = append(m.actions, a)
	if e, is := a.(Event); is {
		m.note(&e)
	}
}

// install asks for SAs in the place of old. done is called with the answer, in a
// Step of its own before any other input.
func (m *Machine) install(params []sad.Params, old []sad.ID, grace time.Duration, done func(error)) {
	m.token++
	m.tokens[m.token] = done
	m.do(Install{Token: m.token, Params: params, Old: old, Grace: grace})
}

func (m *Machine) installed(in Installed) {
	done := m.tokens[in.Token]
	if done == nil {
		m.count("unknown_token")
		return
	}
	delete(m.tokens, in.Token)
	done(in.Err)
}

// random fills n bytes. Where Config.Rand fails crypto/rand stands in, which never
// does.
func (m *Machine) random(n int) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(m.rand, b); err != nil {
		m.count("rand_failed")
		_, _ = rand.Read(b)
	}
	return b
}

// jitter is a random share of d, 0 to d.
func (m *Machine) jitter(d time.Duration) time.Duration {
	b := m.random(2)
	return time.Duration(float64(d) * float64(uint16(b[0])<<8|uint16(b[1])) / 65536)
}
