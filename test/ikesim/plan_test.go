package ikesim

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/adit-ipsec/adit/ike"
	"github.com/adit-ipsec/adit/sad"
)

// kind is what kind of event it is.
type kind string

// The events of a plan. What operators do is as likely as what breaks.
const (
	initiate     kind = "initiate"      // the host is told to
	initiateBoth kind = "initiate-both" // both ends, within For
	rekeyIKE     kind = "rekey-ike"
	rekeyChild   kind = "rekey-child"
	bothIKE      kind = "rekey-ike-both" // both ends, within For
	bothChild    kind = "rekey-child-both"
	mixed        kind = "rekey-mixed" // one the IKE SA, the other the Child SAs
	softExpiry   kind = "soft-expiry"
	hardExpiry   kind = "hard-expiry"
	terminate    kind = "terminate"
	closeChild   kind = "terminate-policy"
	reconfigure  kind = "reconfigure" // a peer's settings change
	sameConfig   kind = "configure-same"
	failInstalls kind = "fail-installs" // the next N
	restart      kind = "restart"
	crash        kind = "crash" // behind the Nth action from here
	clockStep    kind = "clock-step"
	wallStep     kind = "wall-step"
	rebind       kind = "nat-rebind"
	loss         kind = "loss" // of N percent, for For
	double       kind = "double"
	jitter       kind = "jitter"
	corrupt      kind = "corrupt"
	outage       kind = "outage"
	replay       kind = "attack-replay"
	mutate       kind = "attack-mutate"
	forge        kind = "attack-forge"
	spoof        kind = "attack-spoof"
	impersonate  kind = "attack-impersonate" // the attacker has the host's address, for For
)

// event is one thing that happens to the network. A run is a setup and a list of
// them.
type event struct {
	at   time.Duration
	kind kind
	host int // whom
	peer int // which of its peers
	n    int
	dur  time.Duration
}

func (e event) String() string {
	return fmt.Sprintf("%9s %s host %c peer %d n %d for %s", e.at, e.kind, 'A'+e.host, e.peer, e.n, e.dur)
}

// faultsEnd is when the last fault is over.
const faultsEnd = 45 * time.Second

// profiles are kinds of runs: some have only what must cost no packet.
var profiles = [][]kind{
	{rekeyIKE, rekeyChild, bothIKE, bothIKE, bothChild, bothChild, mixed, softExpiry, loss, double, jitter, sameConfig, rebind},
	{
		initiateBoth, rekeyIKE, rekeyChild, bothIKE, bothChild, mixed, softExpiry, hardExpiry, terminate, closeChild, reconfigure,
		sameConfig, failInstalls, restart, restart, crash, crash, clockStep, wallStep, rebind, loss, loss, double, jitter, corrupt, outage,
	},
	{initiateBoth, rekeyIKE, bothChild, restart, terminate, initiate, replay, replay, mutate, mutate, forge, forge, spoof, impersonate, impersonate, loss, double},
	{initiateBoth, initiateBoth, initiate, restart, crash, crash, crash, terminate, loss, double, jitter},
}

// unsaid is what a passive end may not tell its peer of: one pair fewer. The peer
// would send on it until its own lifetime ends.
var unsaid = []kind{hardExpiry, closeChild, failInstalls}

// makePlan makes the events of a seed.
func makePlan(s *setup) []event {
	r := stream(s.seed, "plan")
	kinds := profiles[pick(r, 0, 0, 1, 1, 1, 2, 2, 3)]
	var plan []event
	if chance(r, 70) {
		plan = append(plan, event{at: 0, kind: pick(r, initiate, initiateBoth), host: r.IntN(len(s.hosts)), dur: between(r, 0, 50*time.Millisecond)})
	}
	for range 2 + r.IntN(8) {
		e := event{at: between(r, 0, 40*time.Second), kind: pick(r, kinds...), host: r.IntN(len(s.hosts)), n: 1 + r.IntN(12)}
		e.peer = r.IntN(len(s.hosts[e.host].peers))
		e.dur = between(r, 0, 10*time.Millisecond)
		switch e.kind {
		case loss, double, jitter, corrupt, outage, impersonate:
			e.n = pick(r, 5, 10, 20, 40, 60)
			e.dur = min(between(r, 200*time.Millisecond, 15*time.Second), faultsEnd-e.at)
		case initiateBoth:
			e.dur = between(r, 0, 3*s.latency)
		case clockStep, wallStep:
			e.dur = between(r, time.Second, 3*time.Minute)
		}
		if s.hosts[e.host].peers[e.peer].Role == ike.Passive && slices.Contains(unsaid, e.kind) {
			continue
		}
		plan = append(plan, e)
	}
	slices.SortStableFunc(plan, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	return plan
}

// schedule has the events of a plan happen.
func (w *world) schedule(plan []event) {
	for i := range plan {
		e := plan[i]
		w.at(e.at, func() {
			w.log.note(w.now, "event %s", e)
			w.happen(e)
		})
	}
}

// otherEnd is the host that a peer of a host is, and that host's peer for it.
func (w *world) otherEnd(e *event) (h, other *host, there, here string) {
	h = w.hosts[e.host]
	there = h.peers[e.peer].Name
	other = w.hosts[h.indexOf(there)]
	return h, other, there, h.name
}

func (w *world) happen(e event) {
	h, other, there, here := w.otherEnd(&e)
	both := func(a, b ike.Input) {
		h.step(a)
		w.after(e.dur, func() { other.step(b) })
	}
	switch e.kind {
	case initiate:
		h.step(ike.Initiate{Peer: there})
	case initiateBoth:
		both(ike.Initiate{Peer: there}, ike.Initiate{Peer: here})
	case rekeyIKE:
		h.step(ike.Rekey{Peer: there})
	case rekeyChild:
		h.step(ike.Rekey{Peer: there, Policy: "*"})
	case bothIKE:
		both(ike.Rekey{Peer: there}, ike.Rekey{Peer: here})
	case bothChild:
		both(ike.Rekey{Peer: there, Policy: "*"}, ike.Rekey{Peer: here, Policy: "*"})
	case mixed:
		both(ike.Rekey{Peer: there}, ike.Rekey{Peer: here, Policy: "*"})
	case softExpiry, hardExpiry:
		h.expire(w.evil, there, e.kind == softExpiry)
	case terminate:
		h.excuse(other.index, time.Minute)
		h.step(ike.Terminate{Peer: there})
	case closeChild:
		h.excuse(other.index, time.Minute)
		h.step(ike.Terminate{Peer: there, Policy: "net0"})
	case reconfigure, sameConfig:
		w.configure(h, other, e)
	default:
		w.fault(h, e)
	}
}

// configure sets a host's peers anew: the same, or one of them changed.
func (w *world) configure(h, other *host, e event) {
	h.peers = slices.Clone(h.peers)
	if e.kind == reconfigure {
		h.excuse(other.index, time.Minute)
		h.peers[e.peer].Rekey += time.Hour
	}
	h.step(ike.Configure{Peers: h.peers})
}

// expire has the dataplane say that an SA with a peer has reached a limit.
func (h *host) expire(r *rand.Rand, peer string, soft bool) {
	var ids []sad.ID
	for _, id := range slices.SortedFunc(maps.Keys(h.sad), func(a, b sad.ID) int { return cmp.Compare(h.sad[a].order, h.sad[b].order) }) {
		if h.sad[id].gone == 0 && id.Peer == peer {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return
	}
	id := pick(r, ids...)
	if !soft {
		h.excuse(h.indexOf(id.Peer), time.Minute)
		delete(h.sad, id)
		h.version++
	}
	h.step(ike.Expired{ID: id, Soft: soft})
}

// fault breaks something.
func (w *world) fault(h *host, e event) {
	switch e.kind {
	case failInstalls:
		h.failInstalls = 1 + e.n%3
		w.after(10*time.Second, func() { h.failInstalls = 0 })
	case restart:
		h.restart()
	case crash:
		h.crashIn = e.n
		w.after(10*time.Second, func() { h.crashIn = 0 })
	case clockStep:
		h.excuseAll(time.Minute)
		h.skew += e.dur
	case wallStep:
		h.wall += e.dur
	case rebind:
		for _, x := range w.hosts {
			if x.nat != nil {
				x.nat.rebind()
			}
		}
	case loss, double, jitter, corrupt, outage:
		w.breakNetwork(e)
	default:
		w.attack(h, e)
	}
}

// breakNetwork is bad to all datagrams for a time.
func (w *world) breakNetwork(e event) {
	share := float64(e.n) / 100
	w.lossy = max(w.lossy, w.now+e.dur+time.Minute)
	set := map[kind]func(on float64){
		loss:    func(on float64) { w.net.loss = share * on },
		double:  func(on float64) { w.net.double = share * on },
		corrupt: func(on float64) { w.net.corrupt = share * on },
		jitter:  func(on float64) { w.net.jitter = time.Duration(on * share * float64(time.Second)) },
		outage:  func(on float64) { w.net.down = on > 0 },
	}[e.kind]
	set(1)
	w.after(e.dur, func() { set(0) })
}
