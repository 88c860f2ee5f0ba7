package ike

import (
	"net/netip"
	"time"
)

// PeerStatus is what there is with one peer, without a key.
type PeerStatus struct {
	Name     string
	Role     string
	Start    Start
	Verbose  bool     // the verbose log is on
	Policies []string // those that are to have a Child SA
	SAs      []SAStatus
	Wanted   []string      // policies that wait for a Child SA
	Failures int           // attempts in a row that have failed
	RetryIn  time.Duration // to the next attempt; 0: none is set
	Trouble  *Trouble      // what went wrong last; nil: nothing, or it went well since
}

// Trouble is a failed Event, and how long ago it was.
type Trouble struct {
	Event
	Ago time.Duration
}

// SAStatus is one IKE SA.
type SAStatus struct {
	SPIi, SPIr      uint64
	State           string
	Initiator       bool
	Local, Remote   netip.AddrPort
	LocalID, PeerID string
	Authentication  string // how the peer has proved itself
	Suite           string
	Age             time.Duration // since it was established, or began
	Heard           time.Duration // since the last sign of life: an authentic message, or a packet that was asked for
	RekeyIn, EndIn  time.Duration // 0: never
	BehindNAT       bool          // this end is
	PeerBehindNAT   bool
	Fragmentation   bool
	Mobike          bool
	Waiting         int // exchanges of ours on their way or waiting
	// Asking is the exchange that waits for its answer, and how often its request
	// was sent; "": none waits.
	Asking        string
	Transmissions int
	ChildSAs      []ChildStatus
}

// ChildStatus is one pair of Child SAs.
type ChildStatus struct {
	Policy        string
	SPIIn, SPIOut uint32
	Suite         string
	State         string
	Selectors     string // what was agreed on: "local === remote"
}

// Status is what there is with each peer, in the order of the configuration.
func (m *Machine) Status() []PeerStatus {
	out := make([]PeerStatus, 0, len(m.names))
	for _, name := range m.names {
		p := m.peers[name]
		s := PeerStatus{Name: p.Name, Role: p.Role.String(), Start: p.Start, Verbose: p.verbose, Failures: p.failures, RetryIn: m.until(p.retry), Trouble: m.troubleOf(p)}
		for i := range p.Children {
			policy := p.Children[i].Policy
			s.Policies = append(s.Policies, policy)
			if p.wanted[policy] {
				s.Wanted = append(s.Wanted, policy)
			}
		}
		for _, sa := range p.sas {
			s.SAs = append(s.SAs, m.saStatus(sa))
		}
		out = append(out, s)
	}
	return out
}

// HalfOpen is how many IKE SAs of strangers there are.
func (m *Machine) HalfOpen() int { return m.strange.open }

func (m *Machine) saStatus(sa *ikeSA) SAStatus {
	i, r := sa.spis()
	s := SAStatus{
		SPIi: uint64(i), SPIr: uint64(r), State: sa.state.String(), Initiator: sa.initiator,
		Local: sa.path.local, Remote: sa.path.remote, LocalID: sa.peer.Auth.Identity().String(),
		Age: m.now - max(sa.born, sa.up), Heard: m.now - sa.heard,
		RekeyIn: m.until(sa.timers.rekey), EndIn: m.until(sa.timers.hard),
		BehindNAT: sa.behindNAT, PeerBehindNAT: sa.peerBehindNAT, Fragmentation: sa.fragmentation, Mobike: sa.mobike,
		Waiting: len(sa.ours.queue),
	}
	if sa.ours.task != nil {
		s.Waiting++
		s.Asking, s.Transmissions = sa.ours.task.kind().String(), sa.ours.tries
	}
	if sa.proved.Valid() {
		s.PeerID, s.Authentication = sa.proved.ID().String(), sa.proved.Method()
	}
	if sa.keys != nil {
		s.Suite = sa.choice.Keyword()
	}
	for _, c := range sa.children {
		s.ChildSAs = append(s.ChildSAs, ChildStatus{Policy: c.child.Policy, SPIIn: c.spiIn, SPIOut: c.spiOut, Suite: c.suite, State: c.state.String(), Selectors: c.ts.String()})
	}
	return s
}

// until is how long a timer has to go; 0 if it is not set.
func (m *Machine) until(t *timer) time.Duration {
	if t == nil || t.index < 0 {
		return 0
	}
	return max(0, t.at-m.now)
}
