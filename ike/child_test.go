package ike

import (
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// settle lets all exchanges and graces end, and an SA linger.
const settle = 2*lingering + time.Minute

// eitherEnd runs a test with A, who began the IKE SA, and with B as the one who acts.
func eitherEnd(t *testing.T, change func(a, b *Peer), test func(t *testing.T, r *rig, acts, answers *end)) {
	for _, name := range []string{"A", "B"} {
		t.Run(name, func(t *testing.T) {
			r, a, b := up(t, change)
			if name == "B" {
				a, b = b, a
			}
			test(t, r, a, b)
		})
	}
}

func twoPolicies(a, b *Peer) {
	more := func(p *Peer, local, remote string) {
		c := p.Children[0]
		c.Policy, c.Selectors = "dmz", []spd.Selector{network(local, remote)}
		p.Children = append(p.Children, c)
	}
	more(a, "10.1.9.0/24", "10.2.9.0/24")
	more(b, "10.2.9.0/24", "10.1.9.0/24")
}

func pfs(t testing.TB, keywords ...string) func(a, b *Peer) {
	return func(a, b *Peer) {
		for _, p := range []*Peer{a, b} {
			p.Children[0].Proposals = proposals(t, wire.ProtocolESP, keywords...)
		}
	}
}

func TestRFC7296_1_3_1_AnotherChildSA(t *testing.T) {
	r, a, b := up(t, twoPolicies)
	if a.child("dmz") == nil || b.child("dmz") == nil {
		t.Fatal("one policy has no Child SA")
	}
	r.wantNoFailures()
	for _, e := range []*end{a, b} {
		for _, p := range e.sad {
			if len(p.Selectors) != 1 || !p.FreshKeys || p.Policy == "" {
				t.Errorf("%s: %v", e.name, p)
			}
		}
	}
}

func TestRFC7296_1_3_3_RekeyChild(t *testing.T) {
	for name, change := range map[string]func(a, b *Peer){
		"without key exchange": nil,
		"x25519":               pfs(t, "aes128gcm16-x25519-esn"),
		"mlkem":                pfs(t, "aes128gcm16-mlkem768-esn"),
		"cbc":                  pfs(t, "aes128-sha256-ecp256-noesn"),
	} {
		t.Run(name, func(t *testing.T) {
			eitherEnd(t, change, func(t *testing.T, r *rig, a, b *end) {
				old := a.child("lan")
				r.wantNoLoss(a, b, true, "lan")
				a.expire("lan", true)
				a.step(Expired{ID: old.in, Soft: true})
				r.run(settle)
				r.wantSettled(a, b, 1)
				r.wantNoFailures()
				if c := a.child("lan"); c == nil || c == old || c.spiIn == old.spiIn {
					t.Error("it was not replaced")
				}
				if n := len(a.find(StageRekeyChild, Done)); n != 1 {
					t.Errorf("%d rekeys", n)
				}
			})
		})
	}
}

func TestRekeyChildAgainAndAgain(t *testing.T) {
	r, a, b := up(t, nil)
	r.wantNoLoss(a, b, true, "lan")
	for i := range 50 {
		[]*end{a, b}[i%2].expire("lan", true)
		r.run(10 * time.Second)
	}
	r.run(settle)
	r.wantSettled(a, b, 1)
	r.wantNoFailures()
	for _, e := range []*end{a, b} {
		if len(e.m.childSPIs) != 1 {
			t.Errorf("%s: %d SPIs are taken", e.name, len(e.m.childSPIs))
		}
	}
}

// The peer renews what has just been made before it hears that the old pair goes: what
// it has sent on the old one meanwhile still arrives.
func TestRFC7296_2_8_OldInboundHasItsGraceWhileTheNewOneIsRekeyed(t *testing.T) {
	eitherEnd(t, nil, func(t *testing.T, r *rig, a, b *end) {
		old := a.child("lan")
		r.wantNoLoss(a, b, true, "lan")
		a.expire("lan", true)
		r.run(r.latency) // B has answered
		b.expire("lan", true)
		r.run(4 * r.latency)
		gone, ok := a.leaving[old.in]
		if !ok || gone.until < r.now+a.m.timing.Grace-r.latency {
			t.Errorf("%s: the old inbound SA has gone, leaving %t, until %s", r.now, ok, gone.until)
		}
		r.run(settle)
		r.wantSettled(a, b, 1)
		r.wantNoFailures()
	})
}

func TestRFC7296_1_3_InvalidKEPayload(t *testing.T) {
	change := func(a, b *Peer) {
		a.Children[0].Proposals = proposals(t, wire.ProtocolESP, "aes128gcm16-x25519-ecp256-esn")
		b.Children[0].Proposals = proposals(t, wire.ProtocolESP, "aes128gcm16-ecp256-esn")
	}
	r, a, b := up(t, change)
	r.wantNoLoss(a, b, true, "lan")
	sent := len(r.sent)
	a.expire("lan", true)
	r.run(settle)
	r.wantSettled(a, b, 1)
	r.wantNoFailures()
	if n := len(r.sent) - sent; n != 6 {
		t.Errorf("%d messages, want 6: refused, made, deleted", n)
	}
}

func TestRekeyThatIsRefusedLeavesTheOldOne(t *testing.T) {
	change := func(a, b *Peer) {
		a.Children[0].Proposals = proposals(t, wire.ProtocolESP, "aes128gcm16-x25519-esn")
		b.Children[0].Proposals = proposals(t, wire.ProtocolESP, "aes128gcm16-ecp256-esn")
	}
	r, a, b := up(t, change)
	r.wantNoLoss(a, b, true, "lan")
	a.expire("lan", true)
	r.run(time.Second)
	r.wantSettled(a, b, 1)
	failed := a.find(StageRekeyChild, Failed)
	if len(failed) == 0 || failed[0].Reason != "no_proposal_chosen" || failed[0].Policy != "lan" {
		t.Errorf("%v", a.log)
	}
	if failed := b.find(StageRekeyChild, Failed); len(failed) == 0 || failed[0].Theirs == "" || failed[0].Ours == "" {
		t.Errorf("%v", b.log)
	}
}

func TestRFC7296_1_4_1_DeleteChild(t *testing.T) {
	eitherEnd(t, nil, func(t *testing.T, r *rig, a, b *end) {
		a.step(Terminate{Peer: a.other(), Policy: "lan"})
		r.run(settle)
		r.wantSettled(a, b, 0)
		r.wantNoFailures()
	})
}

func TestRFC7296_2_25_1_BothDelete(t *testing.T) {
	r, a, b := up(t, nil)
	a.step(Terminate{Peer: "B", Policy: "lan"})
	b.step(Terminate{Peer: "A", Policy: "lan"})
	r.run(settle)
	r.wantSettled(a, b, 0)
	r.wantNoFailures()
}

func TestHardLifetimeDeletes(t *testing.T) {
	eitherEnd(t, nil, func(t *testing.T, r *rig, a, b *end) {
		a.expire("lan", false)
		r.run(settle)
		r.wantSettled(a, b, 0)
		r.wantNoFailures()
	})
}

func TestHardLifetimeWhileTheRekeyIsOnItsWay(t *testing.T) {
	r, a, b := up(t, nil)
	a.expire("lan", true)
	a.expire("lan", false)
	r.run(settle)
	r.wantSettled(a, b, 1)
}

func TestRoleNeverRekey(t *testing.T) {
	for _, role := range []Role{NeverRekey, ResponderOnly, Passive} {
		r, a, b := up(t, func(_, b *Peer) { b.Role = role })
		sent := len(r.sent)
		b.expire("lan", true)
		b.step(Rekey{Peer: "A"})
		r.run(settle)
		if n := len(r.sent) - sent; n != 0 {
			t.Errorf("%s: %d messages", role, n)
		}
		// It answers a rekey, K4, and what has expired goes, K3.
		a.expire("lan", true)
		a.step(Rekey{Peer: "B"})
		r.run(settle)
		r.wantSettled(a, b, 1)
		b.expire("lan", false)
		r.run(settle)
		if len(b.sad) != 0 || role != Passive && len(a.sad) != 0 {
			t.Errorf("%s: hard lifetime leaves %d and %d SAs", role, len(b.sad), len(a.sad))
		}
	}
}

func TestInstallFailureLeavesNothing(t *testing.T) {
	for _, at := range []string{"A", "B"} {
		for _, direction := range []sad.Direction{sad.Inbound, sad.Outbound} {
			t.Run(at+" "+direction.String(), func(t *testing.T) {
				r, a, b := up(t, nil)
				e := a
				if at == "B" {
					e = b
				}
				e.install = func(i Install) error {
					for _, p := range i.Params {
						if p.Direction == direction {
							return errInstall
						}
					}
					return nil
				}
				r.wantNoLoss(a, b, false, "lan")
				a.expire("lan", true)
				r.run(10 * time.Second)
				e.install = nil
				r.run(settle)
				if len(e.failures()) == 0 {
					t.Error("no event")
				}
				if len(a.sad) != len(b.sad) || len(a.sad) > 2 {
					t.Errorf("%d and %d SAs", len(a.sad), len(b.sad))
				}
				r.wantSettled(a, b, len(a.sad)/2)
			})
		}
	}
}

func TestRFC7296_1_3_2_RekeyIKE(t *testing.T) {
	eitherEnd(t, twoPolicies, func(t *testing.T, r *rig, a, b *end) {
		old := a.m.peers[a.other()].sas[0].spi
		r.wantNoLoss(a, b, true, "lan", "dmz")
		a.step(Rekey{Peer: a.other()})
		r.run(settle)
		r.wantSettled(a, b, 2)
		r.wantNoFailures()
		sa := a.m.peers[a.other()].sas[0]
		if sa.spi == old || !sa.initiator {
			t.Errorf("not replaced by %s", a.name)
		}
		// And all goes on: message IDs begin at 0, keys are new.
		for _, e := range []*end{b, a} {
			e.expire("lan", true)
			r.run(settle)
			e.step(Rekey{Peer: e.other()})
			r.run(settle)
		}
		r.wantSettled(a, b, 2)
		r.wantNoFailures()
	})
}

// TestRFC9370_2_2_4_FollowUps: additional key exchanges behind CREATE_CHILD_SA.
func TestRFC9370_2_2_4_FollowUps(t *testing.T) {
	change := func(a, b *Peer) {
		for _, p := range []*Peer{a, b} {
			p.Proposals = proposals(t, wire.ProtocolIKE, "aes128gcm16-prfsha256-x25519-ke1_mlkem768-ke2_ecp256")
			p.Children[0].Proposals = proposals(t, wire.ProtocolESP, "aes128gcm16-x25519-ke1_mlkem768-ke2_ecp384-esn")
		}
	}
	eitherEnd(t, change, func(t *testing.T, r *rig, a, b *end) {
		r.wantNoLoss(a, b, true, "lan")
		for range 2 {
			sent := len(r.sent)
			a.expire("lan", true)
			r.run(settle)
			r.wantSettled(a, b, 1)
			if n := len(r.sent) - sent; n != 8+1 {
				t.Errorf("%d messages, want 9 (one in two fragments)", n)
			}
			a.step(Rekey{Peer: a.other()})
			r.run(settle)
			r.wantSettled(a, b, 1)
		}
		r.wantNoFailures()
	})
	// And both ends at once.
	r, a, b := up(t, change)
	r.wantNoLoss(a, b, true, "lan")
	softly(a, b)
	r.run(settle)
	r.wantSettled(a, b, 1)
	rekeyBoth(a, b)
	r.run(settle)
	r.wantSettled(a, b, 1)
	r.wantNoFailures()
}

// TestTheResponderOfARekeyWaitsForTheDelete: what reaches a limit at the responder
// meanwhile does not begin another rekey, and a hard limit ends only the old pair.
func TestTheResponderOfARekeyWaitsForTheDelete(t *testing.T) {
	for _, hard := range []bool{false, true} {
		r, a, b := up(t, nil)
		r.wantNoLoss(a, b, true, "lan")
		old := b.child("lan")
		a.expire("lan", true)
		r.fate = func(d *datagram) []time.Duration {
			if d.by == b {
				return nil // B's answer is lost: A has not its pair yet
			}
			return []time.Duration{r.latency}
		}
		r.run(30 * time.Millisecond)
		if old.state != childReplaced || old.successor == nil || old.successor.waiting == nil {
			t.Fatalf("B's old pair is %s", old.state)
		}
		r.fate = nil
		b.step(Expired{ID: old.out, Soft: true})
		if hard {
			r.watch = nil // this end has nothing else to send on
			delete(b.sad, old.out)
			b.step(Expired{ID: old.out})
		}
		r.run(settle)
		r.wantSettled(a, b, 1)
		r.wantNoFailures()
		if n := len(a.find(StageRekeyChild, Done)) + len(b.find(StageRekeyChild, Done)); n != 2 {
			t.Errorf("hard %t: %d ends have rekeyed, want 2", hard, n)
		}
	}
}

// TestRFC7296_2_8_1_TheLowestNonceLoses: of two pairs that both ends have made at
// once one stays at both, whichever end drew the lowest nonce.
func TestRFC7296_2_8_1_TheLowestNonceLoses(t *testing.T) {
	wins := map[string]int{}
	for _, salt := range []string{"0", "1", "2", "3", "4", "5", "6", "7"} {
		r, a, b := saltedUp(t, salt, nil)
		softly(a, b)
		made := map[*end]*childSA{}
		r.run(15 * time.Millisecond) // both have answered, and nobody has an answer
		for _, e := range []*end{a, b} {
			for _, c := range e.m.peers[e.other()].sas[0].children {
				if c.replaces != nil {
					made[e] = c
				}
			}
		}
		// What B has asked for is at A, and the other way round.
		ofA, ofB := made[b], made[a]
		if ofA == nil || ofB == nil {
			t.Fatal("no collision")
		}
		want := "B"
		if string(ofA.lowest) > string(ofB.lowest) {
			want = "A"
		}
		r.run(settle)
		r.wantSettled(a, b, 1)
		got := "B"
		if a.child("lan").initiator {
			got = "A"
		}
		if got != want || a.child("lan").initiator == b.child("lan").initiator {
			t.Errorf("salt %s: the pair of %s stays, want that of %s", salt, got, want)
		}
		wins[got]++
	}
	if wins["A"] == 0 || wins["B"] == 0 {
		t.Errorf("only one end wins: %v", wins)
	}
}

// TestManyRekeysLeaveNothing: rekeys of Child and IKE SAs from both ends within
// 10 ms, again and again; no packet is lost, and nothing grows.
func TestManyRekeysLeaveNothing(t *testing.T) {
	r, a, b := up(t, nil)
	r.wantNoLoss(a, b, true, "lan")
	for i := range 60 {
		first, second := a, b
		if i%2 == 1 {
			first, second = b, a
		}
		if i%5 == 4 {
			first.step(Rekey{Peer: first.other()})
			r.run(time.Duration(i%11) * time.Millisecond)
			second.step(Rekey{Peer: second.other()})
		} else {
			first.expire("lan", true)
			r.run(time.Duration(i%11) * time.Millisecond)
			second.expire("lan", true)
		}
		r.run(40 * time.Second) // a closed IKE SA answers again for a while
		r.wantSettled(a, b, 1)
		if t.Failed() {
			t.Fatalf("rekey %d", i)
		}
	}
	r.run(settle)
	r.wantNoFailures()
	for _, e := range []*end{a, b} {
		m := e.m
		if len(m.sas) != 1 || len(m.childSPIs) != 1 || len(m.timers.all) > 3 || len(m.tokens) != 0 {
			t.Errorf("%s: %d IKE SAs, %d SPIs, %d timers, %d tokens are left", e.name, len(m.sas), len(m.childSPIs), len(m.timers.all), len(m.tokens))
		}
		depth := 0
		for sa := m.peers[e.other()].sas[0]; sa != nil; sa = sa.rekeyOf {
			depth++
		}
		if depth > 2 {
			t.Errorf("%s: %d IKE SAs hang on each other", e.name, depth)
		}
	}
}
