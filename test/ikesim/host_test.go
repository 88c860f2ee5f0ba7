package ikesim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/adit-ipsec/adit/ike"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
)

// host is one gateway: a machine, a SAD that is a map, and a clock.
type host struct {
	hostSetup
	w     *world
	index int
	nat   *natBox

	m           *ike.Machine
	incarnation int
	skew        time.Duration // its clock is ahead of the world's
	wall        time.Duration // and its date
	sad         map[sad.ID]*entry
	installs    int
	spis        map[wire.SPI]bool // of IKE SAs that it has said in headers, in any life
	version     int               // of the SAD: each change makes it another, in all lives
	traffic     map[flowKey]*flow
	flows       []*flow // all of traffic, in the order of the policies
	changed     bool    // the SAD, in the step that runs
	depth       int

	failInstalls int             // how many of the next installs fail
	crashIn      int             // the gateway stops behind so many actions; 0: it does not
	excused      []time.Duration // by peer: until then packets may be refused
}

// entry is an SA in the SAD.
type entry struct {
	sad.Params
	order  int
	first  bool          // there was no other of its direction and policy when it came
	gone   time.Duration // when its grace is over; 0: it stays
	newest uint64        // number of the newest packet that it took
	heard  time.Duration // when it took the last packet; 0: it has taken none

	key      string     // both keys
	src, dst netip.Addr // of packets inside, where it is an outbound SA

	// twin is the SA at host twinOf that takes its packets, as it was at a version
	// of that host's SAD; nil: there is none.
	twin        *entry
	twinOf      *host
	twinVersion int
}

// keyUse is where a key was installed.
type keyUse struct {
	host, incarnation int
	id                sad.ID
}

// boot starts the gateway, with a memory of nothing.
func (h *host) boot() {
	h.incarnation++
	h.sad = map[sad.ID]*entry{}
	h.version++
	h.traffic, h.flows = map[flowKey]*flow{}, nil
	if h.spis == nil {
		h.spis = map[wire.SPI]bool{}
	}
	if h.excused == nil {
		h.excused = make([]time.Duration, len(h.w.s.hosts))
	}
	var key [32]byte
	copy(key[:], fmt.Sprintf("%s %d %d %t", h.name, h.incarnation, h.w.s.seed, h == h.w.rogue))
	m, err := ike.New(ike.Config{
		Peers: h.peers, Rand: rand.NewChaCha8(key), Limits: h.limits, Timing: h.w.s.timing,
		Wall: func(now time.Duration) time.Time { return epoch.Add(now - h.skew + h.wall) },
	})
	if err != nil {
		h.w.fail("%s cannot be started: %v", h.name, err)
		return
	}
	h.m = m
	// A process that starts again has a clock that starts again.
	h.skew = -h.w.now
	if h.w.log.verbose {
		h.step(ike.Verbose{On: true})
	}
}

// restart loses all that the gateway knows.
func (h *host) restart() {
	h.w.log.note(h.w.now, "%s restarts", h.name)
	h.crashIn, h.failInstalls = 0, 0
	h.excuseAll(time.Minute)
	h.boot()
}

// excuseAll excuses packets that this end or its peers refuse.
func (h *host) excuseAll(d time.Duration) {
	for i := range h.excused {
		h.excuse(i, d)
	}
}

// excuse excuses them between this end and another.
func (h *host) excuse(peer int, d time.Duration) {
	if peer < 0 || peer == h.index || h == h.w.rogue {
		return
	}
	until := h.w.now + d
	h.excused[peer] = max(h.excused[peer], until)
	other := h.w.hosts[peer]
	other.excused[h.index] = max(other.excused[h.index], until)
}

func (h *host) clock() time.Duration { return h.w.now + h.skew }

// tick steps the machine for its deadline, which is to be a later one then.
func (h *host) tick() {
	m := h.m
	h.step(ike.Tick{})
	if due, set := h.m.Deadline(); set && h.m == m && due <= h.clock() {
		h.w.fail("%s wants to be stepped at %s again, at %s", h.name, due, h.clock())
	}
}

// step hands an input to the machine and does what it says.
func (h *host) step(in ike.Input) {
	h.w.steps++
	h.depth++
	h.perform(h.m.Step(h.clock(), in))
	h.depth--
	if h.depth == 0 && h.changed {
		h.changed = false
		h.checkOwners()
		h.w.probe()
	}
}

func (h *host) perform(actions []ike.Action) {
	life := h.incarnation
	for _, a := range actions {
		if h.crashIn > 0 {
			if h.crashIn--; h.crashIn == 0 {
				h.restart()
			}
		}
		if h.incarnation != life {
			return // this process is no more
		}
		switch a := a.(type) {
		case ike.Send:
			h.send(a)
		case ike.Install:
			h.step(ike.Installed{Token: a.Token, Err: h.install(a)})
		case ike.Remove:
			h.remove(a.IDs, a.Grace)
		case ike.Move:
			h.move(a)
		case ike.AskHeard:
			h.step(h.heard(a))
		case ike.Refuse:
			h.refused(a)
		case ike.Event:
			h.event(a)
		}
	}
}

func (h *host) send(a ike.Send) {
	local := a.Local
	if !local.Addr().IsValid() || local.Addr().IsUnspecified() {
		local = netip.AddrPortFrom(h.addr, local.Port())
	}
	d := datagram{from: local, to: a.Remote, data: slices.Clone(a.Data)}
	switch {
	case local.Addr() != h.addr:
		h.w.fail("%s sends from %s, which is not its own", h.name, local)
	case a.NATT != (local.Port() == 4500):
		h.w.fail("%s sends from %s, NATT %t", h.name, local, a.NATT)
	}
	x := d.header()
	if x.FromInitiator() {
		h.spis[x.Initiator] = true
	} else {
		h.spis[x.Responder] = true
	}
	if !x.Response() {
		h.checkRole(x)
	}
	h.w.log.sent(h, d)
	h.w.send(h, d)
}

// receive takes a datagram off the wire.
func (h *host) receive(d datagram) {
	if d.packet.set() {
		h.receiveData(d)
		return
	}
	if t := h.w.spoofed[d.from.Addr()]; t != nil {
		t.in += len(d.data)
	}
	h.step(ike.Packet{Local: d.to, Remote: d.from, NATT: d.to.Port() == 4500, Data: slices.Clone(d.data)})
}

var errInjected = errors.New("no room in the SAD (injected)")

// install puts SAs into the SAD, all or none.
func (h *host) install(a ike.Install) error {
	if len(a.Params) == 0 {
		h.w.fail("%s installs nothing", h.name)
	}
	if h.failInstalls > 0 {
		h.failInstalls--
		h.w.log.note(h.w.now, "%s: the install fails", h.name)
		for _, p := range a.Params {
			h.excuse(h.indexOf(p.Peer), time.Minute)
		}
		return errInjected
	}
	for i := range a.Params {
		p := &a.Params[i]
		if err := p.Validate(); err != nil {
			h.w.fail("%s installs what is not valid: %v", h.name, err)
			return err
		}
		if len(p.Selectors) == 0 || !p.FreshKeys {
			h.w.fail("%s installs %s without selectors, or without fresh keys", h.name, p.ID())
		}
		if e := h.sad[p.ID()]; e != nil {
			h.w.fail("%s installs %s, which is there already", h.name, p.ID())
		}
	}
	for i := range a.Params {
		p := a.Params[i]
		p.EncryptionKey, p.IntegrityKey = slices.Clone(p.EncryptionKey), slices.Clone(p.IntegrityKey)
		h.installs++
		e := &entry{
			Params: p, order: h.installs, first: h.newest(p.Peer, p.Policy, p.Direction) == nil,
			key: string(p.EncryptionKey) + string(p.IntegrityKey), src: p.Selectors[0].Local[0].From, dst: p.Selectors[0].Remote[0].To,
		}
		h.sad[p.ID()] = e
		h.version++
		h.checkKey(e)
		h.w.log.sa(h, "install", p.ID(), p.Policy, 0)
	}
	h.remove(a.Old, a.Grace)
	h.changed = true
	return nil
}

// remove takes SAs out after a grace.
func (h *host) remove(ids []sad.ID, grace time.Duration) {
	h.changed = h.changed || len(ids) > 0
	h.version++
	for _, id := range ids {
		e := h.sad[id]
		if e == nil {
			h.w.fail("%s removes %s, which it does not have", h.name, id)
			continue
		}
		h.w.log.sa(h, "remove", id, e.Policy, grace)
		if grace <= 0 {
			delete(h.sad, id)
			continue
		}
		e.gone = h.w.now + grace
		sad, life := h.sad, h.incarnation
		h.w.after(grace, func() {
			if h.incarnation == life && sad[id] == e {
				delete(sad, id)
				h.version++
			}
		})
	}
}

func (h *host) move(a ike.Move) {
	for _, id := range a.IDs {
		if e := h.sad[id]; e != nil {
			e.Local, e.Remote = a.Local, a.Remote
		} else {
			h.w.fail("%s moves %s, which it does not have", h.name, id)
		}
	}
}

// newest is the newest SA of a policy that is not on its way out; nil: none.
func (h *host) newest(peer, policy string, dir sad.Direction) (out *entry) {
	for id, e := range h.sad {
		if id.Peer == peer && id.Direction == dir && e.Policy == policy && e.gone == 0 && (out == nil || e.order > out.order) {
			out = e
		}
	}
	return out
}

// indexOf is which host a peer is; -1: none.
func (h *host) indexOf(peer string) int {
	return slices.IndexFunc(h.w.s.hosts, func(s hostSetup) bool { return s.name == peer })
}

// peer is this host's configuration of a peer; nil: none.
func (h *host) peer(name string) *ike.Peer {
	for i := range h.peers {
		if h.peers[i].Name == name {
			return &h.peers[i]
		}
	}
	return nil
}
