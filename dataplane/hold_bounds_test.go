package dataplane

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// The bounds, each with its count: the flow's, the hold's in packets and in bytes.
func TestHoldIsBounded(t *testing.T) {
	one := int64(len(numbered(1000, 0)))
	for name, tt := range map[string]struct {
		h     Hold
		flows int
		want  int
	}{
		"of one flow":      {Hold{}, 1, holdPerFlow},
		"set for one flow": {Hold{PerFlow: 3}, 1, 3},
		"packets":          {Hold{Packets: 20}, 40, 10},
		"bytes":            {Hold{Bytes: int(20 * one)}, 40, 10},
	} {
		t.Run(name, func(t *testing.T) {
			r := holdingRig(t, options{}, tt.h)
			var list [][]byte
			for i := range 40 {
				list = append(list, numbered(1000+i%tt.flows, i/10%10))
			}
			r.counts(map[DropReason]uint64{OutHoldFull: uint64(40 - tt.want)}, func() { none(t, r.send(list...)) })
			r.holds(tt.want)
			r.install()
			same(t, r.mirrored().carried(r.tended()), list[:tt.want])
		})
	}
	for _, h := range []Hold{{Packets: -1}, {Bytes: -1}, {PerFlow: -1}, {Deadline: -1}} {
		if err := h.check(); err == nil || !strings.Contains(err.Error(), "Config.Hold") {
			t.Errorf("%+v: expected an error, saw %v", h, err)
		}
	}
}

// onNet is a policy of its own for 10.2.n.0/24, with its own peer.
func onNet(n int) spd.Policy {
	p := protectAll()[0]
	p.Name, p.Peer, p.Selector.Remote = fmt.Sprint("net", n), fmt.Sprint("peer", n), mustRanges(fmt.Sprintf("10.2.%d.0/24", n))
	return p
}

// toNet is a packet for the policy.
func toNet(n, flow int) []byte {
	return inner{src: hostA, dst: netip.AddrFrom4([4]byte{10, 2, byte(n), byte(1 + flow%200)}), sport: uint16(1 + flow), dport: 5000, payload: "x"}.udp()
}

// However much is sent to peers that are away, another policy's first packets find
// room.
func TestAPeerThatIsAwayLeavesRoomForOthers(t *testing.T) {
	var policies []spd.Policy
	for n := range 6 {
		policies = append(policies, onNet(n))
	}
	r := holdingRig(t, options{policies: policies}, Hold{Packets: 600})
	for n := range 5 {
		for flow := range 700 {
			none(t, r.send(toNet(n, flow)))
		}
	}
	if free := 600 - r.gw.Stats().HeldPackets; free < 10 {
		t.Errorf("expected room for more, saw %d", free)
	}
	r.counts(nil, func() { none(t, r.send(toNet(5, 1))) })
	saw := map[string]bool{}
	for _, e := range r.events() {
		saw[e.Peer] = saw[e.Peer] || e.Kind == Acquire
	}
	if len(saw) != 6 {
		t.Errorf("expected an Acquire for each of 6 peers, saw %v", saw)
	}
}

// A packet waits until its deadline and not longer, and its sender is told: RFC 4301
// 5.1, the peer "could not be contacted": IPv4 3/1, IPv6 1/3.
func TestRFC4301_5_1_AHeldPacketExpires(t *testing.T) {
	for _, p := range [][]byte{fromA("x"), inner{src: host6, dst: hostS, payload: "x"}.udp()} {
		r := holdingRig(t, options{}, Hold{})
		r.gw.out[0].answers = newAnswers(&ICMP{Unreachable: true})
		none(t, r.send(p))
		r.now += holdDeadline - 1
		r.counts(nil, func() { none(t, r.tended()) })
		none(t, r.send(p))
		r.now++
		r.dropped(OutHoldExpired, func() { r.now += holdTick; none(t, r.tended()) })
		r.holds(1)
		r.icmp(3, 1, 1, 3)
		r.install()
		same(t, r.mirrored().carried(r.tended()), [][]byte{p})
	}
}

// icmp fails unless the TUN got one ICMP error of that type and code, by family.
func (r *rig) icmp(type4, code4, type6, code6 uint8) {
	r.t.Helper()
	got := r.tun.take()
	if len(got) != 1 {
		r.t.Fatalf("answers: expected 1, saw %d", len(got))
	}
	at, want := 20, [2]uint8{type4, code4}
	if got[0][0]>>4 == 6 {
		at, want = 40, [2]uint8{type6, code6}
	}
	if saw := [2]uint8(got[0][at:]); saw != want {
		r.t.Errorf("answer: expected type and code %d, saw %d", want, saw)
	}
}

// Refuse drops what is held for the policy, or for all of the peer's, tells the
// senders (RFC 4301 5.1: 3/13, 1/1), and means nothing that comes later.
func TestRFC4301_5_1_RefusedPacketsEnd(t *testing.T) {
	a, b, c := onNet(0), onNet(1), onNet(2)
	b.Peer = a.Peer
	r := holdingRig(t, options{policies: []spd.Policy{a, b, c}}, Hold{})
	r.gw.out[0].answers = newAnswers(&ICMP{Unreachable: true})
	r.gw.Refuse(a.Peer, "") // nothing is held
	none(t, r.send(toNet(0, 1), toNet(0, 2), toNet(1, 1), toNet(2, 1)))
	r.gw.Refuse(b.Peer, b.Name)
	r.gw.Refuse(b.Peer, b.Name)
	r.gw.Refuse(c.Peer, "another policy")
	r.gw.Refuse("another peer", "")
	r.dropped(OutRefused, func() { none(t, r.tended()) })
	r.icmp(3, 13, 1, 1)
	r.holds(3)
	r.gw.Refuse(a.Peer, "")
	r.now++
	none(t, r.send(toNet(0, 3)))
	r.counts(map[DropReason]uint64{OutRefused: 2}, func() { none(t, r.tended()) })
	r.holds(2)
}

// K1: responder-only, no SA, 100 packets: 100 drops of that reason, no Acquire,
// nothing held and nothing in clear; also when the policies are loaded again, and
// also without a hold.
func TestK1_ResponderOnlyAcquiresNothing(t *testing.T) {
	for _, hold := range []*Hold{nil, {}} {
		r := newRig(t, options{noSA: true})
		r.gw.holding.use(hold)
		r.gw.ResponderOnly("lan")
		for range 2 {
			r.counts(map[DropReason]uint64{OutResponderOnly: 100}, func() {
				for i := range 100 {
					none(t, r.send(numbered(1000+i, 0)))
				}
				none(t, r.tended())
			})
			r.applied(protectAll()...)
			r.now += time.Minute
		}
		r.holds(0)
		if list := r.events(); len(list) != 0 {
			t.Errorf("expected no event, saw %+v", list)
		}
		r.install() // the peer has begun
		if got := r.send(fromA("x")); len(got) != 1 {
			t.Errorf("with an SA: expected 1 packet, saw %d", len(got))
		}
		r.gw.ResponderOnly()
		r.gw.Remove(r.outSA().ID())
		none(t, r.send(fromA("x")))
		if list := r.events(); len(list) != 1 || list[0].Kind != Acquire {
			t.Errorf("not responder-only any more: expected an Acquire, saw %+v", list)
		}
	}
}

// A responder installs its outbound SA behind its answer, and a packet that answers the
// peer's first one may come in between: it waits for that SA, and asks for none.
func TestK4_ResponderOnlyAnswersFirstPackets(t *testing.T) {
	for _, outbound := range []bool{true, false} {
		r := holdingRig(t, options{}, Hold{})
		r.gw.ResponderOnly("lan")
		in, out := r.params(sad.Inbound), r.params(sad.Outbound)
		in.Policy, out.Policy = "lan", "lan"
		if err := r.gw.Install(in); err != nil {
			t.Fatal(err)
		}
		none(t, r.send(fromA("x")))
		r.holds(1)
		r.now += holdTick
		none(t, r.tended())
		if outbound {
			if err := r.gw.Install(out); err != nil {
				t.Fatal(err)
			}
			if got := r.tended(); len(got) != 1 {
				t.Errorf("with both SAs: expected 1 packet, saw %d", len(got))
			}
		} else {
			r.now += comingTime
			r.dropped(OutResponderOnly, func() { none(t, r.tended()) })
			r.dropped(OutResponderOnly, func() { none(t, r.send(fromA("x"))) })
		}
		r.holds(0)
		if list := r.events(); len(list) != 0 {
			t.Errorf("expected no event, saw %+v", list)
		}
	}
}

// What is held when a policy becomes responder-only ends as what comes then.
func TestHeldPacketsEndWhenTheirPolicyBecomesResponderOnly(t *testing.T) {
	r := holdingRig(t, options{}, Hold{})
	none(t, r.send(fromA("x")))
	r.gw.ResponderOnly("lan")
	r.now += holdTick
	r.dropped(OutResponderOnly, func() { none(t, r.tended()) })
}

// Another table decides about what is held; whatever it says, a packet that was to
// be protected does not leave in clear.
func TestHeldPacketsUnderAnotherTable(t *testing.T) {
	bypass, discard, renamed := bypassAll()[0], protectAll()[0], protectAll()[0]
	discard.Action, discard.Peer = spd.Discard, ""
	renamed.Name, renamed.Peer = "other", "b"
	for _, p := range []spd.Policy{bypass, discard} {
		r := holdingRig(t, options{}, Hold{})
		none(t, r.send(fromA("x")))
		r.applied(p)
		r.dropped(OutDiscard, func() { none(t, r.tended()) })
		r.holds(0)
	}
	r := holdingRig(t, options{}, Hold{})
	none(t, r.send(fromA("x"), numbered(1, 1)))
	r.applied(onNet(7), renamed)
	none(t, r.tended())
	r.holds(2)
	list := r.events()
	if len(list) != 2 || list[0].Policy != "lan" || list[1].Policy != "other" {
		t.Errorf("expected an Acquire for each of the policies, saw %+v", list)
	}
	r.install()
	same(t, r.mirrored().carried(r.tended()), [][]byte{fromA("x"), numbered(1, 1)})
	r.holds(0)
}

// One Acquire a second and policy, as long as something is held: for its flows by
// turns, since an SA may be for one of them alone.
func TestAcquireIsSaidAgainForWhatIsHeld(t *testing.T) {
	r := holdingRig(t, options{policies: []spd.Policy{onNet(0), onNet(1)}}, Hold{})
	none(t, r.send(toNet(0, 1), toNet(0, 2), toNet(0, 3), toNet(1, 1)))
	said := func() (list []string) {
		for _, e := range r.events() {
			list = append(list, fmt.Sprintf("%s %d", e.Policy, e.Flow.SrcPort))
		}
		return list
	}
	for second, want := range [][]string{{"net0 2", "net1 2"}, {"net0 3", "net1 2"}, {"net0 4", "net1 2"}, {"net0 2", "net1 2"}} {
		if got := said(); !slices.Equal(got, want) {
			t.Errorf("second %d: expected Acquires for %v, saw %v", second, want, got)
		}
		r.now += eventInterval - 1
		none(t, r.tended())
		if got := said(); got != nil {
			t.Errorf("second %d: expected no more, saw %v", second, got)
		}
		r.now += holdTick
		none(t, r.tended())
	}
}

// A policy's first Acquire is not lost for another's, nor for a full channel, nor
// because a policy that is gone was at its place in the table.
func TestTheFirstAcquireIsNotLost(t *testing.T) {
	r := holdingRig(t, options{policies: []spd.Policy{onNet(0)}}, Hold{})
	for range eventQueue {
		r.gw.events <- Event{Kind: Audit}
	}
	none(t, r.send(toNet(0, 1)))
	if got := r.gw.Stats().Counter("EventsLost"); got != 1 {
		t.Errorf("EventsLost: expected 1, saw %d", got)
	}
	r.events()
	r.now += holdTick
	none(t, r.tended())
	if list := r.events(); len(list) != 1 || list[0].Kind != Acquire || list[0].Policy != "net0" {
		t.Errorf("when there is room: expected the Acquire, saw %+v", list)
	}
	r.applied(onNet(1))
	none(t, r.send(toNet(1, 1)))
	if list := r.events(); len(list) != 1 || list[0].Policy != "net1" {
		t.Errorf("another table: expected an Acquire for net1, saw %+v", list)
	}
}
