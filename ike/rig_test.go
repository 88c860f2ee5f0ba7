package ike

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// rig is a network of machines in virtual time.
type rig struct {
	t       testing.TB
	now     time.Duration
	latency time.Duration
	ends    []*end
	flying  []datagram
	seq     int
	// fate says what becomes of a datagram: the copies of it that arrive, each
	// after its delay. nil: one, after latency.
	fate func(d *datagram) []time.Duration
	// nat may change where a datagram comes from and where it goes; false: it is
	// lost.
	nat func(d *datagram) bool
	// watch looks on behind every action; nil: nobody does.
	watch func()
	// gapless: an inbound SA takes what is on its way when it goes.
	gapless bool
	// sent is every datagram that was sent, those that were lost too.
	sent []datagram
}

// datagram is one message on its way.
type datagram struct {
	from, to netip.AddrPort
	natt     bool
	data     []byte
	at       time.Duration
	seq      int
	by       *end
}

// header is the header of the datagram.
func (d *datagram) header() wire.Header {
	h, _ := wire.ParseHeader(d.data)
	return h
}

// leaving is an SA that goes at a time.
type leaving struct {
	sad.Params
	until time.Duration
}

// end is one machine with its SAD.
type end struct {
	r       *rig
	name    string
	m       *Machine
	addrs   []netip.Addr
	sad     map[sad.ID]sad.Params
	events  []Event
	refused []Refuse
	moved   []Move
	install func(Install) error // nil: it always works
	// order are the SAs as they were installed; leaving those that are in their
	// Grace, and until when.
	order   []sad.ID
	leaving map[sad.ID]leaving
	log     []string
	heard   func(what string) // what the end does, as it does it; nil: nobody listens
	packets packetsIn
}

func newRig(t testing.TB) *rig { return &rig{t: t, latency: 10 * time.Millisecond} }

// seeded is a source of random bytes that repeats itself.
func seeded(name string) io.Reader {
	var seed [32]byte
	copy(seed[:], name)
	return rand.NewChaCha8(seed)
}

// epoch is the date at time 0.
var epoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func (r *rig) add(name string, c Config, addrs ...string) *end {
	r.t.Helper()
	e := &end{r: r, name: name, sad: map[sad.ID]sad.Params{}, leaving: map[sad.ID]leaving{}}
	for _, a := range addrs {
		e.addrs = append(e.addrs, netip.MustParseAddr(a))
	}
	if c.Rand == nil {
		c.Rand = seeded(name)
	}
	if c.Wall == nil {
		c.Wall = func(now time.Duration) time.Time { return epoch.Add(now) }
	}
	m, err := New(c)
	if err != nil {
		r.t.Fatal(err)
	}
	e.m = m
	r.ends = append(r.ends, e)
	return e
}

// restart gives the end a new machine, which knows nothing.
func (e *end) restart(c Config) {
	c.Rand = seeded(e.name + "again")
	c.Wall = e.m.wall
	m, err := New(c)
	if err != nil {
		e.r.t.Fatal(err)
	}
	e.m, e.sad = m, map[sad.ID]sad.Params{}
}

// step hands an input to the machine and does what it says.
func (e *end) step(in Input) {
	e.perform(e.m.Step(e.r.now, in))
	if e.m.panicked != "" {
		e.r.t.Fatalf("%s panics: %s", e.name, e.m.panicked)
	}
}

func (e *end) perform(actions []Action) {
	for _, a := range actions {
		e.tell(a)
		switch a := a.(type) {
		case Send:
			e.send(a)
		case Install:
			err := e.doInstall(a)
			e.perform(e.m.Step(e.r.now, Installed{Token: a.Token, Err: err}))
		case Remove:
			for _, id := range a.IDs {
				if _, ok := e.sad[id]; !ok {
					e.r.t.Errorf("%s: %s removes %s, which it does not have", e.r.now, e.name, id)
				}
				if e.r.gapless && id.Direction == sad.Inbound && a.Grace == 0 {
					e.r.t.Errorf("%s: %s removes %s at once: what is on its way is lost", e.r.now, e.name, id)
				}
				e.leaving[id] = leaving{e.sad[id], e.r.now + a.Grace}
				delete(e.sad, id)
			}
		case Move:
			e.moved = append(e.moved, a)
			for _, id := range a.IDs {
				p, ok := e.sad[id]
				if !ok {
					e.r.t.Errorf("%s moves %s, which it does not have", e.name, id)
				}
				p.Local, p.Remote = a.Local, a.Remote
				e.sad[id] = p
			}
		case Refuse:
			e.refused = append(e.refused, a)
		case AskHeard:
			e.askHeard(a)
		case Event:
			e.events = append(e.events, a)
			e.log = append(e.log, eventLine(a))
		}
		if e.r.watch != nil {
			e.r.watch()
		}
	}
}

// tell says what an action is, without what is random.
func (e *end) tell(a Action) {
	if e.heard == nil {
		return
	}
	switch a := a.(type) {
	case Send:
		h, _ := wire.ParseHeader(a.Data)
		e.heard(fmt.Sprintf("-> %s %s %d, %s to %s", h.Exchange, map[bool]string{true: "response", false: "request"}[h.Response()], h.MessageID, a.Local, a.Remote))
	case Install:
		for i := range a.Params {
			p := &a.Params[i]
			e.heard(fmt.Sprintf("install %s %s %s, %s to %s", p.Direction, p.Policy, p.Encap, p.Local, p.Remote))
		}
	case Remove:
		for _, id := range a.IDs {
			e.heard(fmt.Sprintf("remove %s after %s", id.Direction, a.Grace))
		}
	case Move:
		e.heard(fmt.Sprintf("move %d SAs to %s, %s", len(a.IDs), a.Local, a.Remote))
	case Refuse:
		e.heard(fmt.Sprintf("refuse %s: %s", a.Policy, a.Why))
	case Event:
		e.heard(eventLine(a))
	}
}

func (e *end) doInstall(a Install) error {
	if e.install != nil {
		if err := e.install(a); err != nil {
			return err
		}
	}
	for i := range a.Params {
		p := a.Params[i]
		if err := p.Validate(); err != nil {
			e.r.t.Errorf("%s installs what is not valid: %v", e.name, err)
			return err
		}
		if _, ok := e.sad[p.ID()]; ok {
			return fmt.Errorf("%s is there already", p.ID())
		}
	}
	for i := range a.Params {
		p := a.Params[i]
		p.EncryptionKey, p.IntegrityKey = slices.Clone(p.EncryptionKey), slices.Clone(p.IntegrityKey)
		e.sad[p.ID()] = p
		e.order = append(e.order, p.ID())
	}
	for _, id := range a.Old {
		delete(e.sad, id)
	}
	return nil
}

func (e *end) send(a Send) {
	r := e.r
	local := a.Local
	if !local.Addr().IsValid() {
		local = netip.AddrPortFrom(e.addrs[0], local.Port())
	}
	if !slices.Contains(e.addrs, local.Addr()) {
		r.t.Errorf("%s sends from %s, which is not its own", e.name, local)
	}
	r.seq++
	d := datagram{from: local, to: a.Remote, natt: a.NATT, data: slices.Clone(a.Data), at: r.now, seq: r.seq, by: e}
	if a.NATT != (local.Port() == 4500) {
		r.t.Errorf("%s sends from %s with NATT %t", e.name, local, a.NATT)
	}
	r.sent = append(r.sent, d)
	delays := []time.Duration{r.latency}
	if r.fate != nil {
		delays = r.fate(&d)
	}
	for _, wait := range delays {
		copied := d
		copied.at = r.now + wait
		r.flying = append(r.flying, copied)
	}
}

// next is what happens next: the index of a datagram, or an end whose deadline it
// is.
func (r *rig) next() (at time.Duration, fly int, e *end, ok bool) {
	fly = -1
	for i := range r.flying {
		d := &r.flying[i]
		if !ok || d.at < at || d.at == at && d.seq < r.flying[fly].seq {
			at, fly, ok = d.at, i, true
		}
	}
	for _, one := range r.ends {
		if due, set := one.m.Deadline(); set && (!ok || due < at) {
			at, fly, e, ok = due, -1, one, true
		}
	}
	return max(at, r.now), fly, e, ok
}

// run lets time pass.
func (r *rig) run(d time.Duration) {
	r.t.Helper()
	until := r.now + d
	for steps := 0; ; steps++ {
		at, fly, e, ok := r.next()
		if !ok || at > until {
			break
		}
		if steps > 200_000 {
			r.t.Fatal("no end of it")
		}
		r.now = at
		if e != nil {
			e.step(Tick{})
			continue
		}
		d := r.flying[fly]
		r.flying = slices.Delete(r.flying, fly, fly+1)
		r.deliver(d)
	}
	r.now = until
}

func (r *rig) deliver(d datagram) {
	if r.nat != nil && !r.nat(&d) {
		return
	}
	for _, e := range r.ends {
		if slices.Contains(e.addrs, d.to.Addr()) {
			if d.natt != (d.to.Port() == 4500) {
				r.t.Errorf("a message with NATT %t for port %d", d.natt, d.to.Port())
			}
			e.step(Packet{Local: d.to, Remote: d.from, NATT: d.natt, Data: slices.Clone(d.data)})
			return
		}
	}
}

// eventLine is an event in the form of golden files: nothing random.
func eventLine(e Event) string {
	outcome := map[Outcome]string{Began: "began", Done: "done", Failed: "FAILED", Detail: "detail"}[e.Outcome]
	parts := []string{fmt.Sprintf("%s %s", e.Stage, outcome)}
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+"="+value)
		}
	}
	add("peer", e.Peer)
	add("reason", e.Reason)
	add("policy", e.Policy)
	add("suite", e.Suite)
	add("remote_id", e.RemoteID)
	add("by", e.Authentication)
	add("text", e.Text)
	add("theirs", e.Theirs)
	add("ours", e.Ours)
	add("fix", e.Fix)
	return strings.Join(parts, " | ")
}

// find gives the events of a stage with an outcome.
func (e *end) find(s Stage, o Outcome) []Event {
	var out []Event
	for _, ev := range e.events {
		if ev.Stage == s && ev.Outcome == o {
			out = append(out, ev)
		}
	}
	return out
}

// failures are all failed events.
func (e *end) failures() []Event {
	var out []Event
	for _, ev := range e.events {
		if ev.Outcome == Failed {
			out = append(out, ev)
		}
	}
	return out
}

// establishedSAs are the established IKE SAs of the end.
func (e *end) establishedSAs() []*ikeSA {
	var out []*ikeSA
	for _, spi := range slices.Sorted(maps.Keys(e.m.sas)) {
		if sa := e.m.sas[spi]; sa.state == established {
			out = append(out, sa)
		}
	}
	return out
}

// wantNothingLeft fails unless the machine has forgotten all.
func (e *end) wantNothingLeft() {
	e.r.t.Helper()
	m := e.m
	if len(m.sas) != 0 || m.strange.open != 0 || len(m.strange.byMessage) != 0 || len(m.strange.perAddress) != 0 || len(m.tokens) != 0 || len(e.sad) != 0 {
		e.r.t.Errorf("%s: %d IKE SAs, %d half-open, %d first messages, %d addresses, %d tokens, %d SAs are left",
			e.name, len(m.sas), m.strange.open, len(m.strange.byMessage), len(m.strange.perAddress), len(m.tokens), len(e.sad))
	}
	for name, p := range m.peers {
		if len(p.sas) != 0 || len(p.wanted) != 0 {
			e.r.t.Errorf("%s: peer %s has %d IKE SAs and wants %v", e.name, name, len(p.sas), p.wanted)
		}
	}
}

// wantPairs fails unless both ends have n pairs of Child SAs that fit each other:
// what one sends the other can open, by the same keys.
func (r *rig) wantPairs(a, b *end, n int) {
	r.t.Helper()
	if len(a.sad) != 2*n || len(b.sad) != 2*n {
		r.t.Errorf("%s has %d SAs and %s %d, want %d each", a.name, len(a.sad), b.name, len(b.sad), 2*n)
	}
	for _, way := range [][2]*end{{a, b}, {b, a}} {
		for id, p := range way[0].sad {
			if id.Direction == sad.Outbound && !hasTwin(way[1], &p) {
				r.t.Errorf("%s has no inbound SA for %s of %s", way[1].name, id, way[0].name)
			}
		}
	}
}

func hasTwin(e *end, out *sad.Params) bool {
	for id, in := range e.sad {
		if id.Direction == sad.Inbound && id.SPI == out.SPI && id.Protocol == out.Protocol &&
			slices.Equal(in.EncryptionKey, out.EncryptionKey) && slices.Equal(in.IntegrityKey, out.IntegrityKey) &&
			in.Suite == out.Suite && in.AHSuite == out.AHSuite && in.ESN == out.ESN && in.Mode == out.Mode && in.Encap == out.Encap {
			return true
		}
	}
	return false
}

// ---- Peers.

var (
	addrA = netip.MustParseAddr("192.0.2.1")
	addrB = netip.MustParseAddr("192.0.2.2")
)

func identity(t testing.TB, text string) auth.Identity {
	t.Helper()
	id, err := auth.ParseIdentity(text)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func proposals(t testing.TB, protocol wire.ProtocolID, keywords ...string) []proposal.Proposal {
	t.Helper()
	var out []proposal.Proposal
	for _, k := range keywords {
		p, err := proposal.Parse(protocol, k, false)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

// network is a selector of two networks, any protocol.
func network(local, remote string) spd.Selector {
	return spd.Selector{Local: []spd.AddrRange{prefixRange(local)}, Remote: []spd.AddrRange{prefixRange(remote)}, Protocol: spd.ProtocolAny}
}

func prefixRange(text string) spd.AddrRange {
	p := netip.MustParsePrefix(text)
	last := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(last)*8; bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	to, _ := netip.AddrFromSlice(last)
	return spd.AddrRange{From: p.Addr(), To: to}
}

const testPSK = "f1c3a2ef95b1704e8d6a3cb2907f54e1d8c6b3a4"

// peerAt is the peer that A has of B (at B) or B of A (at A).
func peerAt(t testing.TB, here string) Peer {
	p := Peer{
		Fragmentation: true,
		Proposals:     proposals(t, wire.ProtocolIKE, "aes128gcm16-prfsha256-x25519"),
		Children: []Child{{
			Policy: "lan", Proposals: proposals(t, wire.ProtocolESP, "aes128gcm16-esn"),
			Template: sad.Params{ReplayWindow: 1024},
		}},
	}
	if here == "A" {
		p.Name, p.Local, p.Remote = "B", addrA, addrB
		p.Auth = auth.Local{ID: identity(t, "a.example.net"), PSK: sad.Key(testPSK)}
		p.Remotely = auth.Remote{ID: identity(t, "b.example.net"), PSK: sad.Key(testPSK)}
		p.Children[0].Selectors = []spd.Selector{network("10.1.0.0/24", "10.2.0.0/24")}
		return p
	}
	p.Name, p.Local, p.Remote = "A", addrB, addrA
	p.Auth = auth.Local{ID: identity(t, "b.example.net"), PSK: sad.Key(testPSK)}
	p.Remotely = auth.Remote{ID: identity(t, "a.example.net"), PSK: sad.Key(testPSK)}
	p.Children[0].Selectors = []spd.Selector{network("10.2.0.0/24", "10.1.0.0/24")}
	return p
}

// pair is the two ends A and B, with what change makes of their peers.
func pair(t testing.TB, change func(a, b *Peer)) (*rig, *end, *end) {
	t.Helper()
	return saltedPair(t, "", change)
}

// saltedPair is pair with other random bytes for each salt.
func saltedPair(t testing.TB, salt string, change func(a, b *Peer)) (*rig, *end, *end) {
	t.Helper()
	r := newRig(t)
	pa, pb := peerAt(t, "A"), peerAt(t, "B")
	if change != nil {
		change(&pa, &pb)
	}
	a := r.add("A", Config{Peers: []Peer{pa}, Rand: seeded("A" + salt)}, addrA.String())
	b := r.add("B", Config{Peers: []Peer{pb}, Rand: seeded("B" + salt)}, addrB.String())
	return r, a, b
}

var errInstall = errors.New("no room in the SAD")
