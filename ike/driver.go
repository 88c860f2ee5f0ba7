package ike

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/adit-ipsec/adit/sad"
)

// Transport sends messages. An error is the kernel's and costs that message: it is
// said again when its time comes. It is called by one goroutine.
type Transport interface {
	Send(Send) error
	// Keepalive sends a NAT keepalive (RFC 3948 2.3) on the port of NAT traversal.
	Keepalive(local netip.Addr, remote netip.AddrPort) error
}

// SAD is where the driver puts SAs; dataplane.Gateway is one, but for the words.
// Keys in params are overwritten behind the call: what is to live longer is copied.
type SAD interface {
	// Install makes SAs, all or none.
	Install(params ...sad.Params) error
	// Replace makes SAs, all or none, in the place of old ones, which stay for
	// grace: inbound ones to take what is on its way. IDs that are not there
	// mean nothing. Without params it takes old away after grace.
	Replace(old []sad.ID, grace time.Duration, params ...sad.Params) error
	// Remove takes SAs out at once, and tells how many there were.
	Remove(ids ...sad.ID) int
	// Move sets the outer endpoints of a peer's SAs.
	Move(Move)
	// Heard is how long ago the newest packet came on inbound SAs that was
	// authentic and no replay; false: none has. IDs that are not there mean nothing.
	Heard(ids ...sad.ID) (ago time.Duration, ok bool)
}

// DriverConfig is what a Driver is made of.
type DriverConfig struct {
	Machine   *Machine
	Inbox     *Inbox
	Transport Transport
	SAD       SAD

	// Log takes each event of the machine, Refused each policy that gets no SA;
	// nil: nobody. They are called by the driver's goroutine and return soon.
	Log     func(Event)
	Refused func(Refuse)

	// Clock is the time since some start, monotonic; nil: since NewDriver.
	Clock func() time.Duration
	// Keepalive is how often a NAT in front of this end is kept open for an IKE SA
	// that has no Child SA, whose packets would do it; 0: 20 s (RFC 3948 4).
	Keepalive time.Duration
	// Stop is how long an orderly stop waits for the answers to its deletes; 0:
	// 2 s.
	Stop time.Duration
}

// Driver gives a Machine its goroutine, its clock, its messages and its actions. All
// that it does is done by Run; the other methods hand things to it, and may be called
// by any goroutine.
type Driver struct {
	cfg     DriverConfig
	machine stepper
	calls   chan call
	done    chan struct{} // closed when Run has ended
	running sync.Once

	// Owned by Run's goroutine.
	packet Packet
	pause  time.Duration // no tick before this: the last one panicked, or Deadline

	panics, sendErrors, installErrors atomic.Uint64
}

// stepper is what the driver needs of a Machine.
type stepper interface {
	Step(now time.Duration, in Input) []Action
	Deadline() (time.Duration, bool)
	Status() []PeerStatus
	Idle() bool
	Stats() map[string]uint64
}

// call is something to be done between two steps; done is closed behind it.
type call struct {
	do   func()
	done chan struct{}
}

// ErrStopped: the driver does not run any more.
var ErrStopped = errors.New("ike: the driver has stopped")

// The defaults of DriverConfig.
const (
	stopWait      = 2 * time.Second
	keepaliveTime = 20 * time.Second
)

// NewDriver makes a driver. Nothing happens before Run.
func NewDriver(cfg DriverConfig) (*Driver, error) {
	if cfg.Machine == nil || cfg.Inbox == nil || cfg.Transport == nil || cfg.SAD == nil {
		return nil, errors.New("ike: a driver needs Machine, Inbox, Transport and SAD")
	}
	return newDriver(cfg, cfg.Machine), nil
}

func newDriver(cfg DriverConfig, machine stepper) *Driver {
	if cfg.Clock == nil {
		start := time.Now()
		cfg.Clock = func() time.Duration { return time.Since(start) }
	}
	if cfg.Log == nil {
		cfg.Log = func(Event) {}
	}
	if cfg.Refused == nil {
		cfg.Refused = func(Refuse) {}
	}
	if cfg.Keepalive == 0 {
		cfg.Keepalive = keepaliveTime
	}
	if cfg.Stop == 0 {
		cfg.Stop = stopWait
	}
	return &Driver{cfg: cfg, machine: machine, calls: make(chan call), done: make(chan struct{})}
}

// Run drives the machine until ctx ends, and then stops it in order: it terminates
// every peer, begins nothing any more, and goes on until their answers are there, at
// most DriverConfig.Stop. It is called once.
func (d *Driver) Run(ctx context.Context) {
	d.running.Do(func() {
		defer close(d.done)
		d.step(Tick{}) // the peers that are to be up at once
		d.loop(ctx.Done(), func() bool { return false })
		d.finish(ctx)
	})
}

// Done is closed when Run has ended.
func (d *Driver) Done() <-chan struct{} { return d.done }

// loop takes one thing after the other, until end is closed or enough says so.
func (d *Driver) loop(end <-chan struct{}, enough func() bool) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	keepalive := time.NewTicker(d.cfg.Keepalive)
	defer keepalive.Stop()
	for !enough() {
		var due <-chan time.Time
		if at, ok := d.deadline(); ok {
			timer.Reset(max(at, d.pause) - d.cfg.Clock())
			due = timer.C
		}
		select {
		case <-end:
			return
		case <-due:
			d.step(Tick{})
		case <-keepalive.C:
			d.keepalive()
		case c := <-d.calls:
			c.do()
			close(c.done)
		case <-d.cfg.Inbox.ready:
			d.messages()
		}
	}
}

// keepalive keeps the NAT open in front of IKE SAs that would be idle: those with a
// Child SA have the dataplane's keepalives, on the same pair of ports.
func (d *Driver) keepalive() {
	list, _ := d.status()
	for _, peer := range list {
		for i := range peer.SAs {
			if sa := &peer.SAs[i]; sa.Established() && sa.BehindNAT && len(sa.ChildSAs) == 0 {
				_ = d.cfg.Transport.Keepalive(sa.Local.Addr(), sa.Remote) // lost like any; the next is soon
			}
		}
	}
}

// messageBatch is how many messages are taken before timers and calls have a turn.
const messageBatch = 2 * fairness

// messages steps the machine with what is in the inbox.
func (d *Driver) messages() {
	for range messageBatch {
		if !d.cfg.Inbox.next(&d.packet) {
			return
		}
		d.step(d.packet)
	}
	d.cfg.Inbox.wake() // there may be more
}

// step steps the machine and does what it says.
func (d *Driver) step(in Input) { d.act(d.guarded(in)) }

// act does the actions of one step in their order.
func (d *Driver) act(actions []Action) {
	for _, a := range actions {
		switch a := a.(type) {
		case Send:
			if err := d.cfg.Transport.Send(a); err != nil {
				d.sendErrors.Add(1)
			}
		case Install:
			d.step(Installed{Token: a.Token, Err: d.install(a)})
		case Remove:
			d.remove(a)
		case Move:
			d.cfg.SAD.Move(a)
		case AskHeard:
			d.step(d.askHeard(a))
		case Refuse:
			d.cfg.Refused(a)
		case Event:
			d.cfg.Log(a)
		}
	}
}

// remove takes SAs out. Without a grace time they are gone when it returns: what is
// sent next waits for another SA, and does not leave with one that the peer has
// forgotten.
func (d *Driver) remove(a Remove) {
	if a.Grace <= 0 {
		d.cfg.SAD.Remove(a.IDs...)
		return
	}
	_ = d.cfg.SAD.Replace(a.IDs, a.Grace) // without params nothing can be refused
}

// install puts SAs into the SAD. Their keys are nowhere else from then on.
func (d *Driver) install(a Install) (err error) {
	if len(a.Old) > 0 {
		err = d.cfg.SAD.Replace(a.Old, a.Grace, a.Params...)
	} else {
		err = d.cfg.SAD.Install(a.Params...)
	}
	for i := range a.Params {
		a.Params[i].EncryptionKey.Wipe()
		a.Params[i].IntegrityKey.Wipe()
	}
	if err != nil {
		d.installErrors.Add(1)
	}
	return err
}

// Do hands an input to the machine and returns once its actions are done. It is for
// all but packets, which go through the inbox.
func (d *Driver) Do(ctx context.Context, in Input) error {
	return d.call(ctx, func() { d.step(in) })
}

// Status is the state of every configured peer.
func (d *Driver) Status(ctx context.Context) (list []PeerStatus, err error) {
	ok := false
	err = d.call(ctx, func() {
		d.step(Tick{}) // its ages are of now, and not of the last message
		list, ok = d.status()
	})
	if err == nil && !ok {
		err = errFault
	}
	return list, err
}

// Stats is what was counted, by name: by the machine, and by the driver itself
// (received, inbox_full, send_errors, install_errors, panic_recovered).
func (d *Driver) Stats(ctx context.Context) (counts map[string]uint64, err error) {
	ask := func() { d.safely("the counters", func() { counts = d.machine.Stats() }) }
	if err = d.call(ctx, ask); err != nil {
		return nil, err
	}
	if counts == nil {
		counts = map[string]uint64{}
	}
	counts["received"], counts["inbox_full"] = d.cfg.Inbox.counts()
	counts["send_errors"] = d.sendErrors.Load()
	counts["install_errors"] = d.installErrors.Load()
	counts["panic_recovered"] += d.panics.Load() // the machine counts those that it saw itself
	return counts, nil
}

// call has do done by Run's goroutine, and waits for it.
func (d *Driver) call(ctx context.Context, do func()) error {
	c := call{do, make(chan struct{})}
	select {
	case d.calls <- c:
		<-c.done
		return nil
	case <-d.done:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}
