package ike

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
)

// Every order in which the messages of a collision can come, C-K01. A run is one
// sequence of decisions: of what is on its way, which arrives next, or is lost, or
// is doubled, or comes later than a retransmission. All sequences of a depth are
// run, with a bounded number of faults in each; what is on its way then arrives in
// order, and both ends must come to the same end.

var (
	collisionDepth  = flag.Int("collisions.depth", 8, "decisions in each run of the collision tests")
	collisionFaults = flag.Int("collisions.faults", 0, "messages lost, doubled or late in each run of the collision tests")
	collisionSalts  = flag.Int("collisions.salts", 2, "in how many ways the nonces of the collision tests are drawn")
)

// collision is one thing that both ends begin.
type collision struct {
	name   string
	change func(a, b *Peer)
	begin  func(a, b *end)
	// pairs is how many pairs of Child SAs there are in the end; -1: as many as
	// both say, none or one.
	pairs   int
	gapless bool // no packet may be lost, and neither end may ever be without an outbound SA
	none    bool // no IKE SA may be left
	fresh   bool // only the policy lan is up
}

// script is a sequence of decisions: those that are given, and behind them the
// first of each.
type script struct {
	given []int
	taken []int // what was decided
	of    []int // out of how many
}

func (s *script) choose(n int) int {
	i := len(s.taken)
	c := 0
	if i < len(s.given) {
		c = s.given[i]
	}
	s.taken, s.of = append(s.taken, c), append(s.of, n)
	return c
}

// next is the script of the next run; nil: all have been.
func (s *script) next() *script {
	for i := len(s.taken) - 1; i >= 0; i-- {
		if s.taken[i]+1 < s.of[i] {
			given := append(slices.Clone(s.taken[:i]), s.taken[i]+1)
			return &script{given: given}
		}
	}
	return nil
}

// explore runs a collision in every order.
func explore(t *testing.T, c collision, salt string, depth, faults int) (runs int) {
	for s := new(script); s != nil; s = s.next() {
		runs++
		run := &collisionRun{TB: t, script: s, depth: depth, faults: faults}
		run.play(c, salt)
		if run.failed {
			t.Fatalf("%s, salt %q, decisions %v of %v:\n%s\n--- wrong:\n%s", c.name, salt, s.taken, s.of, strings.Join(run.story, "\n"), strings.Join(run.wrong, "\n"))
		}
	}
	return runs
}

// collisionRun is one run. It takes what the rig complains of.
type collisionRun struct {
	testing.TB
	script *script
	depth  int
	faults int
	story  []string
	wrong  []string
	failed bool
	held   []datagram
}

// Errorf is what the rig calls.
func (c *collisionRun) Errorf(format string, args ...any) {
	c.failed = true
	if len(c.wrong) < 20 {
		c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
	}
}

// Failed tells whether this run has.
func (c *collisionRun) Failed() bool { return c.failed }

func (c *collisionRun) tell(r *rig, what string, d *datagram) {
	h := d.header()
	kind := "request"
	if h.Response() {
		kind = "response"
	}
	c.story = append(c.story, fmt.Sprintf("%s %s: %s's %s %s %d of %s", r.now, what, d.by.name, h.Exchange, kind, h.MessageID, h.Initiator))
}

func (c *collisionRun) play(k collision, salt string) {
	r, a, b := saltedPair(c, salt, k.change)
	wanted := "" // all
	if k.fresh {
		wanted = "lan"
	}
	a.step(Initiate{Peer: "B", Policy: wanted})
	r.run(time.Second)
	if k.gapless {
		r.wantNoLoss(a, b, true, "lan")
	}
	r.fate = func(d *datagram) []time.Duration {
		c.held = append(c.held, *d)
		return nil
	}
	k.begin(a, b)
	for range c.depth {
		if len(c.held) == 0 {
			break
		}
		c.decide(r)
	}
	r.fate = nil
	for len(c.held) > 0 {
		d := c.take(0)
		c.tell(r, "then", &d)
		r.deliver(d)
	}
	r.run(settle)
	c.judge(r, a, b, k)
	for _, e := range r.ends {
		for _, line := range e.log {
			c.story = append(c.story, e.name+": "+line)
		}
	}
}

func (c *collisionRun) take(i int) datagram {
	d := c.held[i]
	c.held = slices.Delete(c.held, i, i+1)
	return d
}

// decide lets one thing happen. The time that passes is that of the next
// retransmission, or none: orders are what counts.
func (c *collisionRun) decide(r *rig) {
	n := len(c.held)
	options := n
	if c.faults > 0 {
		options += 2*n + 1
	}
	choice := c.script.choose(options)
	i := choice % n
	switch {
	case choice < n:
		d := c.take(i)
		c.tell(r, "arrives", &d)
		r.deliver(d)
		return
	case choice < 2*n:
		d := c.take(i)
		c.tell(r, "is lost", &d)
	case choice < 3*n:
		d := c.held[i]
		c.tell(r, "arrives, and again later", &d)
		r.deliver(d)
	default:
		at, _, e, ok := r.next()
		if ok && e != nil {
			r.now = at
			c.story = append(c.story, fmt.Sprintf("%s %s waits no longer", r.now, e.name))
			e.step(Tick{})
		}
	}
	c.faults--
}

func (c *collisionRun) judge(r *rig, a, b *end, k collision) {
	pairs := k.pairs
	if pairs < 0 {
		pairs = min(len(a.sad)/2, 1)
	}
	if k.none {
		for _, e := range r.ends {
			e.wantNothingLeft()
		}
		return
	}
	r.wantSettled(a, b, pairs)
}

func softly(a, b *end)    { a.expire("lan", true); b.expire("lan", true) }
func rekeyBoth(a, b *end) { a.step(Rekey{Peer: "B"}); b.step(Rekey{Peer: "A"}) }
func del(e *end)          { e.step(Terminate{Peer: e.other(), Policy: "lan"}) }
func delIKE(e *end)       { e.step(Terminate{Peer: e.other()}) }

// want says that a packet wants the policy.
func (e *end) want(policy string) { e.step(Acquire{Peer: e.other(), Policy: policy}) }

// change sets what both ends propose.
func change(a, b *Peer, ike, espA, espB string) {
	must := func(protocol wire.ProtocolID, keyword string) []proposal.Proposal {
		p, err := proposal.Parse(protocol, keyword, false)
		if err != nil {
			panic(err)
		}
		return []proposal.Proposal{p}
	}
	a.Proposals, b.Proposals = must(wire.ProtocolIKE, ike), must(wire.ProtocolIKE, ike)
	a.Children[0].Proposals, b.Children[0].Proposals = must(wire.ProtocolESP, espA), must(wire.ProtocolESP, espB)
}

func oneKE(a, b *Peer) {
	change(a, b, "aes128gcm16-prfsha256-x25519", "aes128gcm16-x25519-ecp256-esn", "aes128gcm16-ecp256-esn")
}

func moreKEs(a, b *Peer) {
	esp := "aes128gcm16-x25519-ke1_ecp256-esn"
	change(a, b, "aes128gcm16-prfsha256-x25519-ke1_ecp256", esp, esp)
}

var collisions = []collision{
	{name: "rekey child from one end", begin: func(a, _ *end) { a.expire("lan", true) }, pairs: 1, gapless: true},
	{name: "rekey child from both ends", begin: softly, pairs: 1, gapless: true},
	{name: "rekey child and delete it", begin: func(a, b *end) { a.expire("lan", true); del(b) }, pairs: -1},
	{name: "rekey child, the other end has reached its hard lifetime", begin: func(a, b *end) { a.expire("lan", true); b.expire("lan", false) }, pairs: -1},
	{name: "delete child from both ends", begin: func(a, b *end) { del(a); del(b) }},
	{name: "rekey child from both ends, then delete it at one", begin: func(a, b *end) { softly(a, b); del(b) }, pairs: -1},
	{name: "rekey IKE SA from one end", begin: func(a, _ *end) { a.step(Rekey{Peer: "B"}) }, pairs: 1, gapless: true},
	{name: "rekey IKE SA from both ends", begin: rekeyBoth, pairs: 1, gapless: true},
	{name: "rekey IKE SA, rekey child at the other end", begin: func(a, b *end) { a.step(Rekey{Peer: "B"}); b.expire("lan", true) }, pairs: 1, gapless: true},
	{name: "rekey IKE SA and child at one end", begin: func(a, _ *end) { a.expire("lan", true); a.step(Rekey{Peer: "B"}) }, pairs: 1, gapless: true},
	{name: "rekey IKE SA, delete child at the other end", begin: func(a, b *end) { a.step(Rekey{Peer: "B"}); del(b) }},
	{name: "rekey IKE SA, delete it at the other end", begin: func(a, b *end) { a.step(Rekey{Peer: "B"}); delIKE(b) }, none: true},
	{name: "delete IKE SA from both ends", begin: func(a, b *end) { delIKE(a); delIKE(b) }, none: true},
	{name: "delete IKE SA, rekey child at the other end", begin: func(a, b *end) { delIKE(a); b.expire("lan", true) }, none: true},
	{name: "delete IKE SA, delete child at the other end", begin: func(a, b *end) { delIKE(a); del(b) }, none: true},
	{name: "create child at one end, rekey IKE SA at the other", change: twoPolicies, fresh: true, begin: func(a, b *end) { a.want("dmz"); b.step(Rekey{Peer: "A"}) }, pairs: 2, gapless: true},
	{name: "create child at both ends", change: twoPolicies, fresh: true, begin: func(a, b *end) { a.want("dmz"); b.want("dmz") }, pairs: 2, gapless: true},
	{name: "create child at one end, delete IKE SA at the other", change: twoPolicies, fresh: true, begin: func(a, b *end) { a.want("dmz"); delIKE(b) }, none: true},
	{name: "rekey child from both ends, one with a key exchange that the other has not", change: oneKE, begin: softly, pairs: 1, gapless: true},
	{name: "rekey child from both ends with additional key exchanges", change: moreKEs, begin: softly, pairs: 1, gapless: true},
	{name: "rekey IKE SA from both ends with additional key exchanges", change: moreKEs, begin: rekeyBoth, pairs: 1, gapless: true},
	{name: "rekey IKE SA with additional key exchanges, delete child at the other end", change: moreKEs, begin: func(a, b *end) { a.step(Rekey{Peer: "B"}); del(b) }},
	{name: "rekey IKE SA with additional key exchanges, rekey child at the other end", change: moreKEs, begin: func(a, b *end) { a.step(Rekey{Peer: "B"}); b.expire("lan", true) }, pairs: 1, gapless: true},
	{name: "rekey child and delete it at one end", begin: func(a, _ *end) { a.expire("lan", true); del(a) }},
	{name: "rekey child from both ends, delete it at one", begin: func(a, b *end) { softly(a, b); del(a) }},
	{name: "rekey IKE SA and delete it at one end", begin: func(a, _ *end) { a.step(Rekey{Peer: "B"}); delIKE(a) }, none: true},
	{name: "rekey child and delete IKE SA at one end", begin: func(a, _ *end) { a.expire("lan", true); delIKE(a) }, none: true},
	{name: "rekey IKE SA at both ends, delete it at one", begin: func(a, b *end) { rekeyBoth(a, b); delIKE(a) }, none: true},
	{name: "rekey both IKE SA and child at both ends", begin: func(a, b *end) { softly(a, b); rekeyBoth(a, b) }, pairs: 1, gapless: true},
}

// TestCollisions is C-K01: RFC 7296 2.8, 2.8.1, 2.8.2, 2.25, 2.25.1, 2.25.2.
func TestCollisions(t *testing.T) {
	for _, c := range collisions {
		t.Run(c.name, func(t *testing.T) {
			runs := 0
			for salt := range *collisionSalts {
				runs += explore(t, c, fmt.Sprint(salt), *collisionDepth, *collisionFaults)
			}
			t.Log(runs, "runs")
		})
	}
}

// TestCollisionsWithAFault is TestCollisions with one message of the first few lost,
// doubled or late. -collisions.faults has TestCollisions do so at every depth.
func TestCollisionsWithAFault(t *testing.T) {
	for _, c := range collisions {
		t.Run(c.name, func(t *testing.T) {
			t.Log(explore(t, c, "", 3, 1), "runs")
		})
	}
}
