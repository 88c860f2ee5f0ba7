package ike

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
)

// The hooks of libreswan's impair.c about messages as a whole, and about what comes
// behind the first exchanges.

// life is a handshake, a rekey of each kind by each end, and liveness.
func life(r *rig, a, b *end) {
	a.step(Initiate{Peer: "B"})
	r.run(2 * time.Second)
	a.step(Rekey{Peer: "B", Policy: "lan"})
	r.run(20 * time.Second)
	b.step(Rekey{Peer: "A", Policy: "lan"})
	r.run(20 * time.Second)
	a.step(Rekey{Peer: "B"})
	r.run(20 * time.Second)
	b.step(Rekey{Peer: "A"})
	r.run(40 * time.Second)
}

// TestCK02_LibreswanDatagrams: jacob-two-two, drop-incoming, drop-outgoing, drop-i2,
// replay-duplicates, replay-encrypted, replay-forward and replay-backward. Each leaves
// the two ends with one IKE SA and one pair, and nobody fails.
func TestCK02_LibreswanDatagrams(t *testing.T) {
	type fates map[string]func(r *rig) func(*datagram) []time.Duration
	all := fates{
		"jacob-two-two": func(r *rig) func(*datagram) []time.Duration {
			return func(*datagram) []time.Duration { return []time.Duration{r.latency, r.latency} }
		},
		"replay-duplicates": func(r *rig) func(*datagram) []time.Duration {
			return func(*datagram) []time.Duration { return []time.Duration{r.latency, r.latency, r.latency + 1} }
		},
		"replay-forward":  func(r *rig) func(*datagram) []time.Duration { return replay(r, false, false) },
		"replay-backward": func(r *rig) func(*datagram) []time.Duration { return replay(r, true, false) },
		"replay-encrypted": func(r *rig) func(*datagram) []time.Duration {
			return replay(r, false, true)
		},
	}
	for n := range 12 {
		all[fmt.Sprintf("drop-outgoing %d", n)] = func(r *rig) func(*datagram) []time.Duration {
			count := 0
			return func(*datagram) []time.Duration {
				if count++; count == n+1 {
					return nil
				}
				return []time.Duration{r.latency}
			}
		}
	}
	for name, fate := range all {
		t.Run(name, func(t *testing.T) {
			r, a, b := pair(t, nil)
			r.fate = fate(r)
			life(r, a, b)
			r.wantUp(a, b, 1)
			r.wantSettled(a, b, 1)
			if n := len(a.find(StageRekeyIKE, Done)); n != 2 {
				t.Errorf("%d rekeys of the IKE SA, want 2; log:\n%s", n, lines(a.log))
			}
		})
	}
}

// replay sends every message that was sent so far again behind each new one: of the
// last hundred.
func replay(r *rig, backward, encrypted bool) func(*datagram) []time.Duration {
	var seen []datagram
	return func(d *datagram) []time.Duration {
		again := slices.Clone(seen)
		if backward {
			slices.Reverse(again)
		}
		for i, old := range again {
			if !encrypted || old.header().Exchange != wire.IKESAInit {
				old.at = r.now + r.latency + time.Duration(i+1)*time.Microsecond
				r.flying = append(r.flying, old)
			}
		}
		if seen = append(seen, *d); len(seen) > 100 {
			seen = seen[1:]
		}
		return []time.Duration{r.latency}
	}
}

// mute loses what an end sends, as long as lost says so.
func (r *rig) mute(e *end, lost func(*datagram) bool) {
	r.fate = func(d *datagram) []time.Duration {
		if d.by == e && lost(d) {
			return nil
		}
		return []time.Duration{r.latency}
	}
}

// TestCK02_LibreswanSilence: send-no-ikev2-auth, suppress-retransmits,
// delete-on-retransmit, timeout-on-retransmit, send-no-delete and a peer that answers
// nothing more. The honest end finds out in its time, says so once, and is free of it.
func TestCK02_LibreswanSilence(t *testing.T) {
	t.Run("send-no-ikev2-auth", func(t *testing.T) {
		r, a, b := pair(t, nil)
		r.mute(a, func(d *datagram) bool { return d.header().Exchange == wire.IKEAuth })
		a.step(Initiate{Peer: "B"})
		r.run(2 * time.Minute)
		a.wantFailure(StageAuth, "timeout")
		b.wantFailure(StageAuth, "half_open_expired")
		a.wantNothingLeft()
		b.wantNothingLeft()
	})
	t.Run("suppress-retransmits", func(t *testing.T) {
		r, a, b := pair(t, nil)
		seen := map[digest]bool{}
		count := 0
		r.fate = func(d *datagram) []time.Duration {
			key := digestOf(d.data)
			again := seen[key]
			seen[key] = true
			if count++; count == 3 || d.by == a && again {
				return nil
			}
			return []time.Duration{r.latency}
		}
		a.step(Initiate{Peer: "B"})
		r.run(2 * time.Minute)
		a.wantFailure(StageAuth, "timeout")
		b.wantFailure(StageAuth, "half_open_expired")
		a.wantNothingLeft()
		b.wantNothingLeft()
	})
	for _, name := range []string{"delete-on-retransmit", "timeout-on-retransmit"} {
		t.Run(name, func(t *testing.T) {
			r, a, b := pair(t, nil)
			r.mute(b, func(d *datagram) bool { return d.header().Exchange == wire.IKEAuth })
			a.step(Initiate{Peer: "B"})
			r.run(300 * time.Millisecond)
			r.fate = nil
			// It gives up where the first retransmission is due, and begins anew.
			a.restart(Config{Peers: []Peer{peerAt(t, "A")}})
			a.step(Initiate{Peer: "B"})
			r.run(2 * time.Minute)
			r.wantPairs(a, b, 1)
			if len(a.establishedSAs()) != 1 || len(b.establishedSAs()) != 1 {
				t.Errorf("%d and %d IKE SAs; log:\n%s", len(a.establishedSAs()), len(b.establishedSAs()), lines(b.log))
			}
		})
	}
	t.Run("send-no-delete", func(t *testing.T) {
		r, a, b := up(t, func(_, pb *Peer) { pb.DPD = 10 * time.Second })
		r.mute(a, func(*datagram) bool { return true })
		a.step(Terminate{})
		r.run(3 * time.Minute)
		b.wantFailure(StageLiveness, "timeout")
		a.wantNothingLeft()
		b.wantNothingLeft()
	})
}

// everything is all IPv4 addresses.
var everything = []wire.Selector{{ToPort: 65535, From: netip.MustParseAddr("0.0.0.0"), To: netip.MustParseAddr("255.255.255.255")}}

// one is one address out of the selectors that are there.
func oneOf(ts *wire.TS) []wire.Selector {
	s := ts.Selectors[0]
	s.To = s.From
	return []wire.Selector{s}
}

func rekeyTS(response bool, change func(*wire.TS) []wire.Selector) func(*letter) bool {
	return on(wire.CreateChildSA, response, func(l *letter) bool {
		for _, ts := range wire.All[*wire.TS](l.Payloads) {
			ts.Selectors = change(ts)
		}
		return wire.First[*wire.TS](l.Payloads) != nil
	})
}

// TestCK02_LibreswanRekeySelectors: rekey-initiate-supernet, rekey-initiate-subnet,
// rekey-respond-supernet, rekey-respond-subnet. A rekey never makes an SA of the honest
// end wider than its policy and what it asked for, and never narrower than what is in
// use (RFC 7296 2.9.2): the old pair stays where the new one is refused.
func TestCK02_LibreswanRekeySelectors(t *testing.T) {
	for _, c := range []struct {
		name   string
		bad    string // who rekeys is always A
		rule   func(*letter) bool
		failed string // of the honest end; "": it works
	}{
		{"rekey-initiate-supernet", "A", rekeyTS(false, func(*wire.TS) []wire.Selector { return everything }), ""},
		{"rekey-initiate-subnet", "A", rekeyTS(false, oneOf), "ts_unacceptable"},
		{"rekey-respond-supernet", "B", rekeyTS(true, func(*wire.TS) []wire.Selector { return everything }), "bad_selectors"},
		{"rekey-respond-subnet", "B", rekeyTS(true, oneOf), "bad_selectors"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, a, b := up(t, nil)
			bad, honest := a, b
			if c.bad == "B" {
				bad, honest = b, a
			}
			was := network("10.1.0.0/24", "10.2.0.0/24")
			if honest == b {
				was = network("10.2.0.0/24", "10.1.0.0/24")
			}
			honest.heard = func(string) {
				for _, p := range honest.sad {
					checkWithin(t, &p, was.Local[0].From, was.Remote[0].From)
				}
			}
			r.impair(bad, c.rule)
			a.step(Rekey{Peer: "B", Policy: "lan"})
			r.run(30 * time.Second)
			if f := honest.failures(); (c.failed != "") != (len(f) > 0) || len(f) > 0 && f[0].Reason != c.failed {
				t.Errorf("want the failure %q; log:\n%s", c.failed, lines(honest.log))
			}
			if len(a.establishedSAs()) != 1 || len(b.establishedSAs()) != 1 {
				t.Errorf("%d and %d IKE SAs; log:\n%s", len(a.establishedSAs()), len(b.establishedSAs()), lines(honest.log))
			}
			r.wantPairs(a, b, 1)
			r.fate = nil
			a.step(Terminate{})
			r.run(3 * time.Minute)
			a.wantNothingLeft()
			b.wantNothingLeft()
		})
	}
}

// checkWithin fails for an SA of other networks than the two /24 that begin there.
func checkWithin(t *testing.T, p *sad.Params, local, remote netip.Addr) {
	t.Helper()
	if len(p.Selectors) == 0 {
		t.Errorf("%s takes everything", p.ID())
	}
	for _, s := range p.Selectors {
		for i, ranges := range [][]netip.Addr{{s.Local[0].From, s.Local[0].To}, {s.Remote[0].From, s.Remote[0].To}} {
			in := netip.PrefixFrom([]netip.Addr{local, remote}[i], 24)
			if !in.Contains(ranges[0]) || !in.Contains(ranges[1]) {
				t.Errorf("%s takes %v, outside %s", p.ID(), ranges, in)
			}
		}
	}
}

// TestCK02_LibreswanTriggers: event-v2-rekey, event-v2-reauth, event-sa-replace,
// initiate-v2-liveness and event-v2-liveness, while the peer is busy with the same.
func TestCK02_LibreswanTriggers(t *testing.T) {
	r, a, b := up(t, func(pa, pb *Peer) {
		pa.DPD, pb.DPD = time.Second, time.Second
		pa.Reauth, pa.Rekey = 40*time.Second, 15*time.Second
		pb.Rekey = 15 * time.Second
	})
	for range 20 {
		a.step(Rekey{Peer: "B"})
		b.step(Rekey{Peer: "A"})
		r.run(700 * time.Millisecond)
		b.step(Rekey{Peer: "A", Policy: "*"})
		a.step(Rekey{Peer: "B", Policy: "*"})
		r.run(5300 * time.Millisecond)
	}
	r.wantNoFailures()
	// Something always begins anew: there is a moment when nothing is under way.
	settled := func(e *end) bool { return len(e.establishedSAs()) == 1 && len(e.sad) == 2 }
	for range 100 {
		if r.run(100 * time.Millisecond); settled(a) && settled(b) {
			r.wantPairs(a, b, 1)
			return
		}
	}
	t.Errorf("never at rest: %d and %d IKE SAs, %d and %d SAs", len(a.establishedSAs()), len(b.establishedSAs()), len(a.sad), len(b.sad))
}
