package ike

import (
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/spd"
)

// The classes F1 to F10 of what has gone wrong in other IKE daemons, at the machine,
// where package wire and auth do not hold them already.

// TestF1_CountsAreBounded: more payloads, proposals, transforms or selectors than any
// peer has use for are refused, in clear and inside SK, at once.
func TestF1_CountsAreBounded(t *testing.T) {
	many := func(n int) func(*letter) bool {
		return func(l *letter) bool {
			for range n {
				l.add(&wire.Vendor{Data: []byte{1}})
			}
			return true
		}
	}
	proposals := func(n int) func(*letter) bool {
		return func(l *letter) bool {
			sa := wire.First[*wire.SA](l.Payloads)
			if sa == nil {
				return false
			}
			for len(sa.Proposals) < n {
				sa.Proposals = append(sa.Proposals, sa.Proposals[0])
			}
			return numbered(1, 1)(l)
		}
	}
	transforms := func(n int) func(*letter) bool {
		return func(l *letter) bool {
			return l.transforms(func(all []wire.Transform) []wire.Transform {
				for len(all) < n {
					all = append(all, wire.Transform{Type: wire.ENCR, ID: uint16(len(all)) + 1000})
				}
				return all
			})
		}
	}
	selectors := func(n int) func(*letter) bool {
		return func(l *letter) bool {
			for _, ts := range wire.All[*wire.TS](l.Payloads) {
				for len(ts.Selectors) < n {
					ts.Selectors = append(ts.Selectors, ts.Selectors[0])
				}
			}
			return true
		}
	}
	all := []impairment{
		{name: "50 payloads", rule: many(50), up: true},
		{name: "65 payloads in IKE_SA_INIT", by: "A", rule: onInit(many(65)), stat: "malformed"},
		{name: "65 payloads in IKE_SA_INIT", by: "B", rule: onInitAnswer(many(65)), stat: "malformed", reason: "bad_answer"},
		{name: "65 payloads in IKE_AUTH", by: "A", rule: onAuth(many(65)), stat: "bad_requests", reason: "invalid_syntax"},
		{name: "60 proposals", by: "A", rule: proposals(60), up: true},
		{name: "65 proposals", by: "A", rule: onInit(proposals(65)), stat: "malformed"},
		{name: "65 proposals in IKE_AUTH", by: "A", rule: onAuth(proposals(65)), stat: "bad_requests", reason: "invalid_syntax"},
		{name: "200 transforms", by: "A", rule: transforms(200), up: true},
		{name: "255 transforms, twice", by: "A", rule: onInit(func(l *letter) bool { return transforms(255)(l) && proposals(2)(l) }), stat: "malformed"},
		{name: "255 selectors", by: "A", rule: onAuth(selectors(255)), up: true},
	}
	uniqueNames(t, all)
	for i := range all {
		all[i].run(t)
	}
}

// TestF2_EachPayloadMissingOrTwiceOrEmpty takes each payload out of each message of the
// first exchanges, doubles it and empties it. Nobody is established without IDi, IDr
// and AUTH, and no Child SA is installed without SA, TSi and TSr.
func TestF2_EachPayloadMissingOrTwiceOrEmpty(t *testing.T) {
	kinds := []wire.PayloadType{
		wire.PayloadSA, wire.PayloadKE, wire.PayloadNonce, wire.PayloadIDi, wire.PayloadIDr, wire.PayloadAUTH, wire.PayloadTSi, wire.PayloadTSr, wire.PayloadN,
	}
	empty := func(kind wire.PayloadType) func(*letter) bool {
		return func(l *letter) bool {
			for i, p := range l.Payloads {
				if p.Type() == kind {
					l.Payloads[i] = &wire.Unknown{Kind: kind}
				}
			}
			return true
		}
	}
	for _, kind := range kinds {
		for _, x := range []wire.ExchangeType{wire.IKESAInit, wire.IKEAuth} {
			for _, response := range []bool{false, true} {
				for name, rule := range map[string]func(*letter) bool{
					"missing": func(l *letter) bool { return l.drop(kind) }, "twice": func(l *letter) bool { return l.twice(kind) }, "empty": empty(kind),
				} {
					r, a, b := pair(t, nil)
					bad, honest := a, b
					if response {
						bad, honest = b, a
					}
					had := false
					r.impair(bad, on(x, response, func(l *letter) bool {
						for _, p := range l.Payloads {
							had = had || p.Type() == kind
						}
						return rule(l)
					}))
					a.step(Initiate{Peer: "B"})
					r.run(time.Second)
					needed := kind != wire.PayloadN && (kind != wire.PayloadIDr || response)
					proves := kind == wire.PayloadIDi || kind == wire.PayloadAUTH || kind == wire.PayloadIDr || x == wire.IKESAInit
					if had && needed && name != "twice" && proves && len(honest.establishedSAs()) != 0 {
						t.Errorf("%s %s response %t, %s: established", x, kind, response, name)
					}
					if had && needed && name != "twice" && len(honest.sad) != 0 {
						t.Errorf("%s %s response %t, %s: %d SAs", x, kind, response, name, len(honest.sad))
					}
					r.fate = func(*datagram) []time.Duration { return nil }
					honest.step(Terminate{})
					r.run(3 * time.Minute)
					honest.wantNothingLeft()
				}
			}
		}
	}
}

// TestF4_NumbersFromTheWireSelectNothing: every number of a cipher, an integrity
// algorithm, a PRF and a key exchange, and every type of exchange: nothing but what
// this end has itself is agreed on, and nothing that has no handler is taken.
func TestF4_NumbersFromTheWireSelectNothing(t *testing.T) {
	_, b := anyB(t, Limits{CookieHalfOpen: math.MaxInt, CookieAddress: math.MaxInt})
	ours := map[wire.TransformType]uint16{wire.ENCR: 20, wire.PRF: 5, wire.KEX: 31}
	for kind, right := range ours {
		for id := range 1 << 16 {
			if id > 1200 && id%97 != 0 && id < 65000 {
				continue
			}
			b.stranger("198.51.100.1", first(t, wire.SPI(id+1), func(p []wire.Payload) []wire.Payload {
				for i, x := range p[0].(*wire.SA).Proposals[0].Transforms {
					if x.Type == kind {
						p[0].(*wire.SA).Proposals[0].Transforms[i].ID = uint16(id)
					}
				}
				return p
			}))
			if n := len(b.m.sas); (n == 1) != (uint16(id) == right) || n > 1 {
				t.Fatalf("%s %d: %d IKE SAs", kind, id, n)
			}
			for _, sa := range b.m.sas {
				b.m.forget(sa, failure{})
				b.m.forgetFirst(sa)
			}
		}
	}
	for x := range 256 {
		f := newFragmented(t)
		sent := len(f.r.sent)
		h := f.a.m.header(f.sa, wire.ExchangeType(x), f.sa.ours.next, false)
		kind, inner := wire.AppendPayloads(nil)
		f.b.step(Packet{Local: f.path.to, Remote: f.path.from, NATT: f.path.natt, Data: f.a.m.sealOne(f.sa, h, wire.Protected{First: kind}, inner)})
		known := x == int(wire.CreateChildSA) || x == int(wire.Informational) || x == int(wire.IKEFollowupKE)
		if answered := len(f.r.sent) > sent; answered != known {
			t.Errorf("exchange %d: answered %t", x, answered)
		}
	}
}

// TestF5_NothingPanicsWhileEverythingIsLogged goes through what impaired peers do once
// more, with the verbose log of both ends on: all that is printed of what they send is
// printed. The rig ends at the first panic.
func TestF5_NothingPanicsWhileEverythingIsLogged(t *testing.T) {
	for _, i := range append(append(impairInit(t), impairAuth(t)...), conftestInit()...) {
		r, a, b := pair(t, i.change)
		a.step(Verbose{On: true})
		b.step(Verbose{On: true})
		if i.rule != nil {
			r.impair(map[bool]*end{true: b, false: a}[i.by == "B"], i.rule)
		}
		a.step(Initiate{Peer: "B"})
		r.run(time.Second)
		if len(a.find(StageMessage, Detail)) == 0 {
			t.Errorf("%s: nothing is told", i.name)
		}
	}
}

// TestF7_MessageIDsDoNotCycle: with the last of its message IDs an IKE SA is at its end
// (RFC 7296 2.2), on the end that asks and on the one that answers.
func TestF7_MessageIDsDoNotCycle(t *testing.T) {
	r, a, b := up(t, nil)
	sa, sb := a.establishedSAs()[0], b.establishedSAs()[0]
	sa.ours.next, sb.theirs.next = math.MaxUint32-1, math.MaxUint32-1
	for range 3 {
		a.step(Rekey{Peer: "B", Policy: "lan"})
		r.run(2 * time.Second)
	}
	for _, d := range r.sent[4:] {
		if h := d.header(); h.MessageID < 5 && h.Exchange != wire.IKESAInit && h.Initiator == r.sent[0].header().Initiator {
			t.Errorf("message ID %d once more: %s", h.MessageID, h.Exchange)
		}
	}
	a.wantFailure(StageMessage, "message_ids_spent")
	f := newFragmented(t)
	f.sa.ours.next = math.MaxUint32
	kind, inner := inside(10)
	for _, next := range []uint32{0, 7, math.MaxUint32} {
		f.b.establishedSAs()[0].theirs.next = next
		h := f.a.m.header(f.sa, wire.Informational, f.sa.ours.next, false)
		f.want(f.a.m.sealOne(f.sa, h, wire.Protected{First: kind}, inner), "message_ids_spent", false)
	}
}

// TestF8_AnAuthenticatedPeerIsBoundedToo: a peer that has the secret, and opens IKE SAs
// one after the other without ever closing one, has MaxSAs of them at most.
func TestF8_AnAuthenticatedPeerIsBoundedToo(t *testing.T) {
	r, a, b := pair(t, nil)
	b.m.limits.MaxSAs = 8
	for i := range 40 {
		r.impair(a, onAuth(dropNotify(wire.NotifyInitialContact)))
		a.step(Initiate{Peer: "B"})
		r.run(time.Second)
		if n := len(b.m.sas); n > 8 {
			t.Fatalf("round %d: %d IKE SAs of 8", i, n)
		}
		p := peerAt(t, "A")
		a.restart(Config{Peers: []Peer{p}, Rand: nil})
		a.m.rand = seeded(string(rune('a' + i)))
	}
	if n := b.m.timers.Len(); n > 100 {
		t.Errorf("%d timers", n)
	}
}

// TestF9_PolicyBeforeTheAnswer: what a peer may have is asked in IKE_AUTH and again in
// each CREATE_CHILD_SA, of the peer that it has proved to be: it gets nothing of
// another peer's policy, and nothing wider than its own.
func TestF9_PolicyBeforeTheAnswer(t *testing.T) {
	for name, want := range map[string]struct {
		rule   func(*letter) bool
		reason string
	}{
		"everything in IKE_AUTH": {onAuth(selectorsAre(everything, everything)), ""},
		"another's in IKE_AUTH":  {onAuth(selectorsAre(everything, only("10.9.0.0"))), "ts_unacceptable"},
		"everything in a rekey":  {on(wire.CreateChildSA, false, selectorsAre(everything, everything)), ""},
		"another's in a rekey":   {on(wire.CreateChildSA, false, selectorsAre(everything, only("10.9.0.0"))), "ts_unacceptable"},
		"another's as a new pair": {on(wire.CreateChildSA, false, func(l *letter) bool {
			return dropNotify(wire.NotifyRekeySA)(l) && selectorsAre(everything, only("10.9.0.0"))(l)
		}), "ts_unacceptable"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			pa, pb := peerAt(t, "A"), peerAt(t, "B")
			other := peerAt(t, "B")
			other.Name, other.Remotely.ID = "C", identity(t, "c.example.net")
			other.Children[0].Selectors = []spd.Selector{network("10.9.0.0/24", "10.1.0.0/24")}
			a := r.add("A", Config{Peers: []Peer{pa}}, addrA.String())
			b := r.add("B", Config{Peers: []Peer{other, pb}}, addrB.String())
			r.impair(a, want.rule)
			b.heard = func(string) {
				for _, p := range b.sad {
					checkWithin(t, &p, network("10.2.0.0/24", "10.1.0.0/24").Local[0].From, network("10.2.0.0/24", "10.1.0.0/24").Remote[0].From)
				}
			}
			a.step(Initiate{Peer: "B"})
			r.run(time.Second)
			a.step(Rekey{Peer: "B", Policy: "lan"})
			r.run(2 * time.Second)
			f := b.failures()
			if (want.reason == "") != (len(f) == 0) || want.reason != "" && f[0].Reason != want.reason {
				t.Errorf("want %q; log:\n%s", want.reason, lines(b.log))
			}
		})
	}
}

func only(addr string) []wire.Selector {
	p := prefixRange(addr + "/24")
	return []wire.Selector{{ToPort: 65535, From: p.From, To: p.To}}
}

// selectorsAre sets TSi and TSr.
func selectorsAre(i, r []wire.Selector) func(*letter) bool {
	return func(l *letter) bool {
		for _, ts := range wire.All[*wire.TS](l.Payloads) {
			ts.Selectors = i
			if ts.Responder {
				ts.Selectors = r
			}
		}
		return true
	}
}

// TestF10_RekeysLeaveNothing: after a thousand rekeys of Child SAs and two hundred of
// the IKE SA each end has what it had after the first ones: no timers, tokens, SPIs or
// IKE SAs more, and no heap that grows with them.
func TestF10_RekeysLeaveNothing(t *testing.T) {
	r, a, b := up(t, nil)
	r.sent = nil
	round := func(n int) {
		for i := range n {
			e := []*end{a, b}[i%2]
			e.step(Rekey{Peer: e.other(), Policy: "lan"})
			r.run(2 * time.Second)
			if i%5 == 0 {
				e.step(Rekey{Peer: e.other()})
				r.run(2 * time.Second)
			}
			r.sent, e.events, e.log, e.order = nil, nil, nil, nil
			clear(e.leaving)
		}
		for _, e := range []*end{a, b} {
			e.events, e.log, e.order = nil, nil, nil
			clear(e.leaving)
		}
		r.run(2 * time.Minute)
		r.sent = nil
	}
	type left struct{ sas, timers, tokens, spis int }
	of := func(e *end) left {
		return left{len(e.m.sas), e.m.timers.Len(), len(e.m.tokens), len(e.m.childSPIs)}
	}
	heap := func() int64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	round(100)
	wantA, wantB, was := of(a), of(b), heap()
	round(1000)
	if gotA, gotB := of(a), of(b); gotA != wantA || gotB != wantB {
		t.Errorf("A has %+v, had %+v; B has %+v, had %+v", gotA, wantA, gotB, wantB)
	}
	if grown := heap() - was; grown > 1<<20 {
		t.Errorf("the heap has grown by %d bytes in 1200 rekeys", grown)
	}
	r.wantSettled(a, b, 1)
	r.wantNoFailures()
}
