package bench

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/ike"
)

// ikePair is two IKE machines in one thread: what one sends is the other's next
// input, SAs are taken without a SAD, and time passes only where pass says so.
// Which end's time it is, is read at each step.
type ikePair struct {
	load  IKELoad
	ends  [2]ikeEnd // the initiator, the responder
	now   time.Duration
	clock *threadClock

	messages, bytes int // that were sent, by both
}

// ikeEnd is one of the two machines.
type ikeEnd struct {
	machine   *ike.Machine
	cpu       time.Duration // of all steps so far
	inbox     []ike.Packet
	installed int               // SAs
	done      map[ike.Stage]int // negotiations that went well
}

// The ends of an ikePair.
const (
	ikeInitiator = iota
	ikeResponder
)

func newIKEPair(l IKELoad) (*ikePair, error) {
	a, b, err := l.peers()
	if err != nil {
		return nil, err
	}
	p := &ikePair{load: l, clock: newThreadClock(nil)}
	for i, peers := range [][]ike.Peer{a, b} {
		machine, err := ike.New(ike.Config{Peers: peers})
		if err != nil {
			return nil, err
		}
		p.ends[i] = ikeEnd{machine: machine, done: make(map[ike.Stage]int)}
	}
	return p, nil
}

// step hands an input to one end and does what it says; CPU time is taken around
// the machine alone.
func (p *ikePair) step(end int, in ike.Input) error {
	e := &p.ends[end]
	before, err := p.clock.read()
	if err != nil {
		return err
	}
	actions := e.machine.Step(p.now, in)
	after, err := p.clock.read()
	if err != nil {
		return err
	}
	e.cpu += after.cpu - before.cpu
	for _, a := range actions {
		switch a := a.(type) {
		case ike.Send:
			p.messages, p.bytes = p.messages+1, p.bytes+len(a.Data)
			to := &p.ends[1-end]
			to.inbox = append(to.inbox, ike.Packet{Local: a.Remote, Remote: a.Local, NATT: a.NATT, Data: a.Data})
		case ike.Install:
			e.installed += len(a.Params)
			if err := p.step(end, ike.Installed{Token: a.Token}); err != nil {
				return err
			}
		case ike.Event:
			if a.Outcome == ike.Failed && a.Reason != ikeExpired {
				return fmt.Errorf("bench: %s with %s: %s: %s", a.Stage, a.Peer, a.Reason, a.Text)
			}
			if a.Outcome == ike.Done {
				e.done[a.Stage]++
			}
		}
	}
	return nil
}

// run carries messages until there are none.
func (p *ikePair) run() error {
	for {
		quiet := true
		for i := range p.ends {
			e := &p.ends[i]
			inbox := e.inbox
			e.inbox = nil
			for _, m := range inbox {
				quiet = false
				if err := p.step(i, m); err != nil {
					return err
				}
			}
		}
		if quiet {
			return nil
		}
	}
}

// each has the initiator do something with every peer, one after the other.
func (p *ikePair) each(in func(peer string) ike.Input) error {
	for i := range p.load.Pairs {
		if err := p.step(ikeInitiator, in(peerOf(i))); err != nil {
			return err
		}
		if err := p.run(); err != nil {
			return err
		}
	}
	return nil
}

// pass lets time pass, so that what waits for its end ends.
func (p *ikePair) pass(d time.Duration) error {
	p.now += d
	for i := range p.ends {
		if err := p.step(i, ike.Tick{}); err != nil {
			return err
		}
	}
	return p.run()
}

// children is how many Child SAs an end has, each on an established IKE SA.
func (p *ikePair) children(end int) (n int) {
	for _, peer := range p.ends[end].machine.Status() {
		for i := range peer.SAs {
			if peer.SAs[i].State == "established" {
				n += len(peer.SAs[i].ChildSAs)
			}
		}
	}
	return n
}

// wantChildren fails unless both ends have so many Child SAs.
func (p *ikePair) wantChildren(n int) error {
	for i := range p.ends {
		if got := p.children(i); got != n {
			return fmt.Errorf("bench: end %d has %d Child SAs, want %d", i, got, n)
		}
	}
	return nil
}

// ikeMeasure is what so many negotiations took.
type ikeMeasure struct {
	count                         int
	initiator, responder, process time.Duration // CPU; of the process: all threads, garbage collection too
	messages, bytes               int
}

func (m *ikeMeasure) add(o ikeMeasure) {
	m.count += o.count
	m.initiator, m.responder, m.process = m.initiator+o.initiator, m.responder+o.responder, m.process+o.process
	m.messages, m.bytes = m.messages+o.messages, m.bytes+o.bytes
}

// measured is what do took.
func (p *ikePair) measured(count int, do func() error) (m ikeMeasure, err error) {
	a, b, messages, bytes := p.ends[ikeInitiator].cpu, p.ends[ikeResponder].cpu, p.messages, p.bytes
	before, err := threadsTime()
	if err != nil {
		return m, err
	}
	if err = do(); err != nil {
		return m, err
	}
	after, err := threadsTime()
	return ikeMeasure{
		count: count, process: after - before, messages: p.messages - messages, bytes: p.bytes - bytes,
		initiator: p.ends[ikeInitiator].cpu - a, responder: p.ends[ikeResponder].cpu - b,
	}, err
}

// threadsTime is the CPU time of all threads, user and system.
func threadsTime() (time.Duration, error) {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts)
	return time.Duration(ts.Nano()), err
}

// ikeExpired is why a stranger's half-open IKE SA ends: as the flood wants it.
const ikeExpired = "half_open_expired"

// ikeRest is longer than anything of a closed IKE SA stays.
const ikeRest = 5 * time.Minute

// handshakes is an IKE SA with its Child SA for every peer, and their end, which is
// not measured.
func (p *ikePair) handshakes() (m ikeMeasure, err error) {
	m, err = p.measured(p.load.Pairs, p.establish)
	if err == nil {
		err = p.wantChildren(p.load.Pairs)
	}
	if err != nil {
		return m, err
	}
	err = errors.Join(p.step(ikeInitiator, ike.Terminate{}), p.run(), p.pass(ikeRest), p.wantChildren(0))
	return m, err
}

func (p *ikePair) establish() error {
	return p.each(func(peer string) ike.Input { return ike.Initiate{Peer: peer} })
}

// rekeys is one rekey with every peer, of the Child SA or of the IKE SA, with the
// delete of the old one. The IKE SAs are there.
func (p *ikePair) rekeys(stage ike.Stage) (m ikeMeasure, err error) {
	policy := ""
	if stage == ike.StageRekeyChild {
		policy = ikeChild
	}
	before := p.ends[ikeInitiator].done[stage]
	m, err = p.measured(p.load.Pairs, func() error {
		return p.each(func(peer string) ike.Input { return ike.Rekey{Peer: peer, Policy: policy} })
	})
	if err == nil {
		err = p.pass(ikeRest)
	}
	if got := p.ends[ikeInitiator].done[stage] - before; err == nil && got != p.load.Pairs {
		err = fmt.Errorf("bench: %d of %d peers: %s", got, p.load.Pairs, stage)
	}
	return m, errors.Join(err, p.wantChildren(p.load.Pairs))
}

// stranger hands a message from an address to the responder, and takes its answers
// out of the network.
func (p *ikePair) stranger(from netip.Addr, message []byte) ([]ike.Packet, error) {
	to := ikeAddress(203, 0)
	err := p.step(ikeResponder, ike.Packet{Local: netip.AddrPortFrom(to, 500), Remote: netip.AddrPortFrom(from, 500), Data: message})
	answers := p.ends[ikeInitiator].inbox
	p.ends[ikeInitiator].inbox = nil
	return answers, err
}
