package dataplane

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// holdingRig is a rig without SAs that holds packets.
func holdingRig(t testing.TB, o options, h Hold) *rig {
	t.Helper()
	o.noSA = true
	r := newRig(t, o)
	r.gw.holding.use(&h)
	return r
}

// tended is what leaves when the holder has its turn.
func (r *rig) tended() []sent {
	r.gw.tendHolds()
	return r.send()
}

// holds fails unless so many packets are held.
func (r *rig) holds(packets int) {
	r.t.Helper()
	if s := r.gw.Stats(); s.HeldPackets != int64(packets) || packets == 0 && s.HeldBytes != 0 || packets > 0 && s.HeldBytes == 0 {
		r.t.Errorf("held: expected %d packets, saw %d of %d bytes", packets, s.HeldPackets, s.HeldBytes)
	}
}

// same fails unless the packets are these, in this order.
func same(t testing.TB, got, want [][]byte) {
	t.Helper()
	if !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("expected %d packets in order, saw %d", len(want), len(got))
		for i := range min(len(got), len(want)) {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("the first that differs is %d: expected %x, saw %x", i, want[i], got[i])
			}
		}
	}
}

// numbered is packet n of a flow by its source port.
func numbered(port, n int) []byte {
	return inner{src: hostA, dst: hostB, sport: uint16(port), dport: 5000, payload: fmt.Sprint(port, " ", n)}.udp()
}

// applied puts policies in force.
func (r *rig) applied(policies ...spd.Policy) {
	r.t.Helper()
	table, err := spd.NewTable(policies)
	if err != nil {
		r.t.Fatal(err)
	}
	r.gw.ApplyPolicy(table)
}

// RFC 4301 5.1 lets a packet without an SA wait for one. What was held leaves once,
// in order, whoever comes first: the holder, or the worker with the next batch.
func TestHeldPacketsLeaveInOrderWhenTheSAIsThere(t *testing.T) {
	for _, byWorker := range []bool{false, true} {
		r := holdingRig(t, options{}, Hold{})
		var want [][]byte
		r.counts(nil, func() {
			for n := range 3 {
				for port := range 100 {
					want = append(want, numbered(1000+port, n))
				}
			}
			none(t, r.send(want...))
			none(t, r.tended())
		})
		r.holds(300)
		r.install()
		var got []sent
		if byWorker {
			want = append(want, numbered(1000, 3), numbered(1099, 3))
			got = r.send(want[300:]...)
		} else {
			got = r.tended()
		}
		same(t, r.mirrored().carried(got), want)
		r.holds(0)
		none(t, r.tended())
		if s := r.gw.Stats(); s.Counter("OutHeld") != 300 || s.Counter("OutReleased") != 300 || s.Counter("OutPackets") != uint64(len(want)) {
			t.Errorf("OutHeld and OutReleased: expected 300 of %d, saw %d, %d of %d", len(want), s.Counter("OutHeld"), s.Counter("OutReleased"), s.Counter("OutPackets"))
		}
	}
}

// The SA comes between a worker's look at the databases and the end of its batch,
// when the holder cannot have its turn: the worker looks once more.
func TestASAThatComesDuringABatchReleasesWhatTheBatchHeld(t *testing.T) {
	r := holdingRig(t, options{}, Hold{})
	w := r.gw.out[0]
	w.begin()
	w.bufs[0].Set(fromA("x"))
	if reason := w.outbound(&w.bufs[0]); reason != forwarded {
		t.Fatal(reason)
	}
	r.install()
	r.gw.tendHolds() // the worker's memory is not its own to touch
	r.holds(1)
	w.end()
	same(t, r.mirrored().carried(r.send()), [][]byte{fromA("x")})
	if w.using.Load() != 0 {
		t.Error("the worker still has a batch in hand")
	}
}

// A superpacket is held whole, with its segment size, and is cut when it goes on;
// it may be longer than a flow's share.
func TestASuperpacketIsHeldWhole(t *testing.T) {
	big := fromASuper(40*1000, 1000)
	big.udp = true
	r := holdingRig(t, options{}, Hold{})
	first, last := fromA("first"), fromA("last")
	none(t, r.send(numbered(1, 0)))
	none(t, r.sendMixed(big))
	r.holds(41)
	r.counts(map[DropReason]uint64{OutHoldFull: 41}, func() { // the flow has had its share
		none(t, r.sendMixed(first, big))
	})
	r.install()
	got := r.send(last)
	same(t, r.mirrored().carried(got), slices.Concat([][]byte{numbered(1, 0)}, big.segments(), [][]byte{last}))
}

// Fragments are held as what they are, and go the way of their initial one.
func TestFragmentsAreHeld(t *testing.T) {
	for name, f := range families() {
		t.Run(name, func(t *testing.T) {
			r := holdingRig(t, options{policies: byPort(spd.Discard)}, Hold{})
			list := pieces(f.datagramTo(80, 4000), 7, 1000)
			none(t, r.send(list...))
			r.holds(len(list))
			r.install()
			got := r.tended()
			if len(got) != len(list) {
				t.Errorf("expected %d fragments, saw %d", len(list), len(got))
			}
		})
	}
}

// While no policy had an SA, a fragment without ports could be held under the first
// of several; when one of them has an SA and another has none, nobody can tell whose
// it is, and it ends.
func TestAHeldFragmentNeverTakesAnSAThatMayNotBeIts(t *testing.T) {
	policies := protectAll()
	policies = append(policies, policies[0])
	policies[0].Name, policies[0].Selector.Protocol = "p0", packet.ProtoUDP
	policies[0].Selector.RemotePorts = spd.Ports{Ranges: []spd.PortRange{{From: 80, To: 80}}}
	r := holdingRig(t, options{policies: policies}, Hold{})
	later := pieces(fromA(strings.Repeat("f", 3000)), 9, 1000)[1]
	none(t, r.send(later))
	r.holds(1)
	p := r.params(sad.Outbound)
	p.Policy = "p0"
	if err := r.gw.Install(p); err != nil {
		t.Fatal(err)
	}
	r.dropped(OutFragment, func() { none(t, r.tended()) })
	r.holds(0)
}

// holdingEnd is A of a pair, without its outbound SAs, and params for new ones.
func holdingEnd(t *testing.T, s wholeSet) (a *end, fresh []sad.Params) {
	t.Helper()
	a, b := newWholePair(t, s)
	a.gw.holding.use(&Hold{})
	for _, p := range s.params(t, "a", a.addr, b.addr) {
		if p.Direction != sad.Outbound {
			continue
		}
		a.gw.Remove(p.ID())
		p.SPI++
		if p.Protocol == sad.ESP {
			p.EncryptionKey = key("fresh enc", len(p.EncryptionKey))
		}
		p.IntegrityKey = key("fresh "+p.Protocol.String(), len(p.IntegrityKey))
		fresh = append(fresh, p)
	}
	return a, fresh
}

// AH, bundles and transport mode have walks of their own behind step 3.
func TestPacketsForWholeWalksAreHeld(t *testing.T) {
	for _, s := range wholeSets() {
		if s.esn || s.ah != "" && s.ah != "sha256" || s.esp != "" && s.esp != "aes128gcm16" {
			continue
		}
		a, fresh := holdingEnd(t, s)
		want := s.between(hostA, hostB)
		if s.mode == sad.TransportMode {
			want = s.between(a.addr, fresh[0].Remote.Addr())
		}
		if got := a.send(want...); len(got) != 0 {
			t.Fatalf("%s: without an SA: expected no packet, saw %d", s, len(got))
		}
		if err := a.gw.Install(fresh...); err != nil {
			t.Fatal(err)
		}
		a.gw.tendHolds()
		got := a.send()
		if len(got) != len(want) || a.gw.Stats().HeldPackets != 0 {
			t.Errorf("%s: expected %d packets, saw %d; drops %v", s, len(want), len(got), nonzero(a.gw))
		}
		whole := wireWhole
		if s.encap == sad.EncapUDP {
			whole = wireUDP
		}
		for _, d := range got {
			if d.wire != whole {
				t.Errorf("%s: expected wire %d, saw %d", s, whole, d.wire)
			}
		}
	}
}

// Half a bundle is no SA: what is held waits for the other half.
func TestHeldPacketsWaitForBothSAsOfABundle(t *testing.T) {
	a, fresh := holdingEnd(t, bundle4)
	if got := a.send(fromA("x")); len(got) != 0 {
		t.Fatal("sent without an SA")
	}
	for i, p := range fresh {
		if err := a.gw.Install(p); err != nil {
			t.Fatal(err)
		}
		a.gw.tendHolds()
		if got := a.send(); len(got) != i {
			t.Errorf("with %d of 2 SAs: expected %d packets, saw %d", i+1, i, len(got))
		}
	}
}

// Held packets get all the room of the walk: TFC padding is longer than they are.
func TestHeldPacketsArePadded(t *testing.T) {
	r := holdingRig(t, options{tfc: sad.TFCMTU}, Hold{})
	none(t, r.send(fromA("short"), fromA("short too")))
	r.install()
	got := r.tended()
	if len(got) != 2 || got[0].Len != got[1].Len || got[0].Len < 1300 {
		t.Errorf("expected two packets of the path's length, saw %d", len(got))
	}
	same(t, r.mirrored().carried(got), [][]byte{fromA("short"), fromA("short too")})
}

// An SA may be for a part of the policy (RFC 7296 2.9), or for one class of traffic:
// the rest goes on waiting.
func TestOnlyWhatTheSACarriesIsReleased(t *testing.T) {
	r := holdingRig(t, options{}, Hold{})
	voice, other := inner{src: hostA, dst: hostB, tos: ef << 2, payload: "voice"}.udp(), inner{src: host6, dst: hostS, payload: "x"}.udp()
	none(t, r.send(other, voice, fromA("rest")))
	if err := r.gw.Install(r.classParams(efSPI, ef)); err != nil {
		t.Fatal(err)
	}
	if got := r.tended(); len(got) != 1 || wireSPI(got[0].Bytes()) != efSPI {
		t.Errorf("expected the one packet of the class, saw %d", len(got))
	}
	r.holds(2)
	p := r.params(sad.Outbound)
	p.Selectors = []spd.Selector{{Local: mustRanges("10.1.0.0/24"), Remote: mustRanges("10.2.0.0/24"), Protocol: spd.ProtocolAny}}
	if err := r.gw.Install(p); err != nil {
		t.Fatal(err)
	}
	same(t, r.mirrored().carried(r.tended()), [][]byte{fromA("rest")})
	r.holds(1)
}

// Whatever can give a held packet an SA wakes the holder; without held packets
// nobody is woken.
func TestChangesWakeTheHolder(t *testing.T) {
	r := holdingRig(t, options{}, Hold{})
	woken := func() bool {
		select {
		case <-r.gw.holding.wake:
			return true
		default:
			return false
		}
	}
	r.applied(protectAll()...)
	if woken() {
		t.Error("nothing held: expected no wake-up")
	}
	none(t, r.send(fromA("x")))
	for name, change := range map[string]func(){
		"ApplyPolicy": func() { r.applied(protectAll()...) },
		"Refuse":      func() { r.gw.Refuse("b", "") },
		"Install": func() {
			if err := r.gw.Install(r.params(sad.Inbound)); err != nil {
				t.Fatal(err)
			}
		},
		"Replace": func() {
			if err := r.gw.Replace(nil, 0, r.params(sad.Outbound)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		if change(); !woken() {
			t.Errorf("%s: expected a wake-up", name)
		}
	}
}
