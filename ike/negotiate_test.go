package ike

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// selectorsOf are those of the end's outbound SA of a policy, as text.
func (e *end) selectorsOf(policy string) string {
	out := e.newestOutbound(policy)
	if out == nil || len(out.Selectors) != 1 {
		return ""
	}
	return out.Selectors[0].String()
}

func TestRFC7296_2_9_TheResponderNarrows(t *testing.T) {
	change := func(a, b *Peer) {
		a.Children[0].Selectors = selectors(t, "local=10.1.0.0/16 remote=10.0.0.0/8")
		b.Children[0].Selectors = selectors(t, "local=10.2.0.0/24 remote=10.1.0.0/24 protocol=tcp local_ports=80-90")
	}
	r, a, b := up(t, change)
	want := "local=10.1.0.0/24 remote=10.2.0.0/24 protocol=tcp remote_ports=80-90"
	if got := a.selectorsOf("lan"); got != want {
		t.Errorf("A: %s", got)
	}
	if got := b.selectorsOf("lan"); got != "local=10.2.0.0/24 remote=10.1.0.0/24 protocol=tcp local_ports=80-90" {
		t.Errorf("B: %s", got)
	}
	// RFC 7296 2.9.2: a rekey has the same selectors or wider ones, from either end.
	for _, e := range []*end{a, b} {
		e.expire("lan", true)
		r.run(settle)
		r.wantSettled(a, b, 1)
		if got := a.selectorsOf("lan"); got != want {
			t.Errorf("rekeyed by %s: %s", e.name, got)
		}
	}
	r.wantNoFailures()
}

func TestTSUnacceptable(t *testing.T) {
	r, a, b := pair(t, func(_, b *Peer) {
		b.Children[0].Selectors = selectors(t, "local=10.9.0.0/24 remote=10.8.0.0/24")
	})
	a.step(Acquire{Peer: "B", Policy: "lan"})
	r.run(time.Second)
	r.wantSettled(a, b, 0)
	if f := a.failures(); len(f) != 1 || f[0].Reason != "ts_unacceptable" || f[0].Fix == "" {
		t.Errorf("%v", a.log)
	}
	if f := b.failures(); len(f) != 1 || f[0].Theirs == "" || f[0].Ours == "" || f[0].Fix == "" {
		t.Errorf("%v", b.log)
	}
	if len(a.refused) != 1 || a.refused[0].Policy != "lan" {
		t.Errorf("%v", a.refused)
	}
}

func TestAcquireOfTwoPolicies(t *testing.T) {
	r, a, b := pair(t, twoPolicies)
	flow := packet.Flow{Version: 4, Protocol: 17, Src: netip.MustParseAddr("10.1.0.4").As16(), Dst: netip.MustParseAddr("10.2.0.4").As16(), SrcPort: 9, DstPort: 10}
	a.step(Acquire{Peer: "B", Policy: "lan", Flow: flow})
	a.step(Acquire{Peer: "B", Policy: "dmz"})
	a.step(Acquire{Peer: "B", Policy: "dmz"})
	r.run(settle)
	r.wantSettled(a, b, 2)
	r.wantNoFailures()
	if got := a.selectorsOf("lan"); got != "local=10.1.0.0/24 remote=10.2.0.0/24 protocol=any" {
		t.Errorf("not as wide as the policies: %s", got)
	}
	if len(a.m.peers["B"].flows) != 0 {
		t.Error("the packet is kept")
	}
}

// TestRFC7296_2_8_1_BothAskForAChildSA: K6 of the responder-only note, where neither
// end is responder-only: the duplicate is found and closed.
func TestRFC7296_2_8_1_BothAskForAChildSA(t *testing.T) {
	ask := func(a, b *end) {
		a.step(Acquire{Peer: "B", Policy: "dmz"})
		b.step(Acquire{Peer: "A", Policy: "dmz"})
	}
	for _, salt := range []string{"", "1", "2", "3"} {
		r, a, b := saltedPair(t, salt, twoPolicies)
		a.step(Initiate{Peer: "B", Policy: "lan"})
		r.run(time.Second)
		r.wantSettled(a, b, 1)
		r.wantNoLoss(a, b, true, "lan")
		ask(a, b)
		r.run(settle)
		r.wantSettled(a, b, 2)
		r.wantNoFailures()
		if a.m.stats["sa_duplicates"]+b.m.stats["sa_duplicates"] == 0 {
			t.Error("not counted")
		}
	}
}

func TestRFC7296_2_25_ChildSANotFound(t *testing.T) {
	r, a, b := up(t, nil)
	// B has lost it without a word.
	c, spi := b.child("lan"), a.child("lan").spiIn
	b.m.dropChild(c.sa, c, "test", "")
	b.step(Tick{})
	// The SA "is indicated by the SPI field in the Notify payload, which is copied
	// from the SPI field in the REKEY_SA notification."
	var said *wire.Notify
	r.impair(b, func(l *letter) bool {
		if n := wire.FindNotify(l.Payloads, wire.NotifyChildSANotFound); n != nil {
			said = n
		}
		return false
	})
	a.expire("lan", true)
	r.run(settle)
	r.wantSettled(a, b, 1)
	if said == nil || said.Protocol != wire.ProtocolESP || !bytes.Equal(said.SPI, binary.BigEndian.AppendUint32(nil, spi)) {
		t.Errorf("B said %+v, want CHILD_SA_NOT_FOUND of ESP and A's SPI %08x", said, spi)
	}
}

// TestRFC7296_2_25_ChildSANotFoundOfAPairThatWasTooYoung: B asks to rekey the pair that
// it has just made for A, whose answer A does not have. A cannot find it, and says so
// again to every retry of B's, when it has it long since: B does not drop it for that.
func TestRFC7296_2_25_ChildSANotFoundOfAPairThatWasTooYoung(t *testing.T) {
	r, a, b := up(t, nil)
	r.wantNoLoss(a, b, true, "lan")
	start := r.now
	r.fate = func(d *datagram) []time.Duration {
		h := d.header()
		switch since := r.now - start; {
		case d.by == b && h.Response() && since < 400*time.Millisecond:
			return nil // to A's rekey
		case d.by == a && h.Response() && h.Exchange == wire.CreateChildSA && since < 20*time.Second:
			return nil // to B's
		}
		return []time.Duration{r.latency}
	}
	a.expire("lan", true)
	r.run(100 * time.Millisecond)
	young := b.child("lan")
	b.expire("lan", true)
	r.run(15 * time.Second)
	if c := a.child("lan"); c == nil || c.spiOut != young.spiIn {
		t.Fatalf("A has not the pair that B made for it:\n%s", lines(a.log))
	}
	r.run(2 * time.Minute)
	r.wantSettled(a, b, 1)
	for _, e := range b.find(StageDelete, Done) {
		if e.Reason == "child_sa_not_found" {
			t.Errorf("B has dropped a pair that A has:\n%s", lines(b.log))
		}
	}
}

// TestRFC9370_2_2_4_StateNotFoundAgainAndAgain: a peer that forgets each exchange of
// ours before its end has us make a new IKE SA, and not try for ever.
func TestRFC9370_2_2_4_StateNotFoundAgainAndAgain(t *testing.T) {
	r, a, b := up(t, moreKEs)
	forget := true
	r.impair(a, func(l *letter) bool {
		if n := wire.FindNotify(l.Payloads, wire.NotifyAdditionalKeyExchange); forget && n != nil && l.is(wire.IKEFollowupKE, false) {
			n.Data = []byte("not that one")
			return true
		}
		return false
	})
	before := a.m.peers["B"].sas[0]
	a.expire("lan", true)
	r.run(time.Hour / 4)
	if before.state == established {
		t.Errorf("the IKE SA is still there, %d answers STATE_NOT_FOUND; log:\n%s", before.linksLost, lines(a.log))
	}
	if f := a.find(StageMessage, Failed); len(f) != 1 || f[0].Reason != "state_not_found" {
		t.Errorf("log:\n%s", lines(a.log))
	}
	forget = false
	a.step(Initiate{Peer: "B"})
	r.run(time.Minute)
	r.wantPairs(a, b, 1)
}

func TestRFC7296_2_25_TemporaryFailureForMinutes(t *testing.T) {
	r, a, b := up(t, nil)
	sa := b.m.peers["A"].sas[0]
	sa.heir = &ikeSA{} // B believes that it is rekeying for ever
	a.expire("lan", true)
	r.run(30 * time.Second)
	if n := len(a.find(StageRekeyChild, Failed)); n != 0 || a.child("lan") == nil {
		t.Errorf("%d failures in 30 s", n)
	}
	r.run(patience + 2*time.Minute)
	if f := a.find(StageRekeyChild, Failed); len(f) != 1 || f[0].Reason != "temporary_failure" {
		t.Errorf("%v", a.log)
	}
	if len(a.m.sas) != 0 {
		t.Error("the IKE SA is still there")
	}
	sa.heir = nil
}

func TestLimitOfChildSAs(t *testing.T) {
	r := newRig(t)
	pa, pb := peerAt(t, "A"), peerAt(t, "B")
	twoPolicies(&pa, &pb)
	a := r.add("A", Config{Peers: []Peer{pa}}, addrA.String())
	b := r.add("B", Config{Peers: []Peer{pb}, Limits: Limits{MaxChildren: 1}}, addrB.String())
	a.step(Acquire{Peer: "B", Policy: "lan"})
	a.step(Acquire{Peer: "B", Policy: "dmz"})
	r.run(time.Second)
	r.wantSettled(a, b, 1)
	if len(a.refused) != 1 || a.refused[0].Policy != "dmz" || len(a.find(StageChild, Failed)) != 1 {
		t.Errorf("%v\n%v", a.refused, a.log)
	}
	a.expire("lan", true)
	r.run(settle)
	r.wantSettled(a, b, 1)
	if n := len(a.find(StageRekeyChild, Done)); n != 1 {
		t.Errorf("%d rekeys at the limit", n)
	}
}

func transport(t testing.TB) func(a, b *Peer) {
	return func(a, b *Peer) {
		for _, p := range []*Peer{a, b} {
			p.Children[0].Mode = sad.TransportMode
		}
		a.Children[0].Selectors = selectors(t, "local=192.0.2.1 remote=192.0.2.2 protocol=udp remote_ports=1701")
		b.Children[0].Selectors = selectors(t, "local=192.0.2.2 remote=any protocol=udp local_ports=1701")
	}
}

func TestRFC7296_1_3_1_TransportMode(t *testing.T) {
	r, a, b := up(t, transport(t))
	for _, e := range []*end{a, b} {
		for _, p := range e.sad {
			if p.Mode != sad.TransportMode || p.OriginalLocal.IsValid() || p.Encap != sad.EncapNone {
				t.Errorf("%s: %v", e.name, p)
			}
		}
	}
	if got := b.selectorsOf("lan"); got != "local=192.0.2.2 remote=192.0.2.1 protocol=udp local_ports=1701" {
		t.Errorf("B: %s", got)
	}
	r.wantNoFailures()
}

func TestRFC7296_1_3_1_TransportModeDeclined(t *testing.T) {
	r, a, b := pair(t, func(pa, pb *Peer) {
		transport(t)(pa, pb)
		pb.Children[0].Mode = sad.TunnelMode
	})
	a.step(Initiate{Peer: "B"})
	r.run(settle)
	r.wantSettled(a, b, 0)
	if f := a.find(StageChild, Failed); len(f) != 1 || f[0].Reason != "mode" {
		t.Errorf("%v", a.log)
	}
}

// TestRFC7296_2_23_1_TransportModeBehindNAT: the client is behind a NAT, the example
// of the section without its second NAT.
func TestRFC7296_2_23_1_TransportModeBehindNAT(t *testing.T) {
	inside, nat := netip.MustParseAddr("10.9.9.9"), netip.MustParseAddr("198.51.100.7")
	r := newRig(t)
	pa, pb := peerAt(t, "A"), peerAt(t, "B")
	transport(t)(&pa, &pb)
	pa.Local, pb.Remote = inside, netip.Addr{}
	pa.Children[0].Selectors = []spd.Selector{selectors(t, "local=10.9.9.9 remote=192.0.2.2 protocol=udp remote_ports=1701")[0]}
	a := r.add("A", Config{Peers: []Peer{pa}}, inside.String())
	b := r.add("B", Config{Peers: []Peer{pb}}, addrB.String())
	r.nat = func(d *datagram) bool {
		if d.from.Addr() == inside {
			d.from = netip.AddrPortFrom(nat, d.from.Port()+10000)
		} else {
			d.to = netip.AddrPortFrom(inside, d.to.Port()-10000)
		}
		return true
	}
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	r.wantSettled(a, b, 1)
	r.wantNoFailures()
	for _, p := range a.sad {
		if p.OriginalLocal != nat || p.OriginalRemote != addrB || !p.BehindNAT || p.Encap != sad.EncapUDP {
			t.Errorf("A: original %s %s, behind NAT %t, %s", p.OriginalLocal, p.OriginalRemote, p.BehindNAT, p.Encap)
		}
	}
	for _, p := range b.sad {
		if p.OriginalLocal != addrB || p.OriginalRemote != inside || p.BehindNAT || p.Remote.Addr() != nat {
			t.Errorf("B: original %s %s, behind NAT %t, remote %s", p.OriginalLocal, p.OriginalRemote, p.BehindNAT, p.Remote)
		}
	}
	if got := a.selectorsOf("lan"); got != "local=10.9.9.9 remote=192.0.2.2 protocol=udp remote_ports=1701" {
		t.Errorf("A: %s", got)
	}
	if got := b.selectorsOf("lan"); got != "local=192.0.2.2 remote=198.51.100.7 protocol=udp local_ports=1701" {
		t.Errorf("B: %s", got)
	}
	for _, e := range []*end{b, a} {
		e.expire("lan", true)
		r.run(settle)
		r.wantSettled(a, b, 1)
	}
	r.wantNoFailures()
}

func TestAH(t *testing.T) {
	change := func(a, b *Peer) {
		for _, p := range []*Peer{a, b} {
			p.Children[0].Proposals = proposals(t, wire.ProtocolAH, "sha256-esn")
		}
	}
	r, a, b := up(t, change)
	a.expire("lan", true)
	r.run(settle)
	r.wantSettled(a, b, 1)
	for _, p := range b.sad {
		if p.Protocol != sad.AH || !p.AHSuite.Valid() {
			t.Errorf("%v", p)
		}
	}
	r.wantNoFailures()
}

func TestAtOnceRestoresWhatHasExpired(t *testing.T) {
	r, a, b := up(t, func(a, _ *Peer) { a.Start = AtOnce })
	a.expire("lan", false)
	r.run(time.Minute)
	r.wantSettled(a, b, 1)
	b.step(Terminate{Peer: "A", Policy: "lan"})
	r.run(time.Minute)
	r.wantSettled(a, b, 1)
}

// TestRFC7296_2_9_2_ARekeyKeepsWhatIsInUse: a policy that is no product has one part
// of it in a Child SA, the one of the packet, and rekeys from either end keep that.
func TestRFC7296_2_9_2_ARekeyKeepsWhatIsInUse(t *testing.T) {
	change := func(a, b *Peer) {
		a.Children[0].Selectors = selectors(t, "local=10.1.0.0/16 remote=10.2.0.0/16")
		b.Children[0].Selectors = selectors(t, "local=10.2.1.0/24 remote=10.1.1.0/24", "local=10.2.2.0/24 remote=10.1.2.0/24")
	}
	r, a, b := pair(t, change)
	a.step(Acquire{Peer: "B", Policy: "lan", Flow: packet.Flow{
		Version: 4, Protocol: 17, Src: netip.MustParseAddr("10.1.2.4").As16(), Dst: netip.MustParseAddr("10.2.2.4").As16(), SrcPort: 9, DstPort: 10,
	}})
	r.run(time.Second)
	for range 3 {
		r.wantSettled(a, b, 1)
		if got := a.selectorsOf("lan"); got != "local=10.1.2.0/24 remote=10.2.2.0/24 protocol=any" {
			t.Errorf("%s", got)
		}
		a.expire("lan", true)
		r.run(settle)
	}
	// The other end cannot offer its policy, which is no product.
	b.expire("lan", true)
	r.run(time.Second)
	r.wantSettled(a, b, 1)
	if f := b.find(StageRekeyChild, Failed); len(f) == 0 {
		t.Error("no event")
	}
}

func TestReauthenticationLosesNothing(t *testing.T) {
	r, a, b := up(t, func(a, b *Peer) {
		twoPolicies(a, b)
		a.Reauth = time.Hour
	})
	r.wantNoLoss(a, b, true, "lan", "dmz")
	old := a.m.peers["B"].sas[0].spi
	r.run(time.Hour + time.Minute)
	r.wantSettled(a, b, 2)
	r.wantNoFailures()
	if a.m.peers["B"].sas[0].spi == old {
		t.Error("it is the same IKE SA")
	}
}

// TestRFC7296_2_25_TemporaryFailureInIKEAuth: a first Child SA that the peer cannot make
// for the time being is not asked for again at once.
func TestRFC7296_2_25_TemporaryFailureInIKEAuth(t *testing.T) {
	r, a, b := pair(t, withSecond)
	b.install = func(Install) error {
		b.install = nil
		return errInstall
	}
	a.step(Initiate{Peer: "B"})
	asked := func() (n int) {
		for _, d := range r.sent {
			if h := d.header(); d.by == a && h.Exchange == wire.CreateChildSA && !h.Response() {
				n++
			}
		}
		return n
	}
	r.run(900 * time.Millisecond)
	if n := asked(); n != 1 {
		t.Errorf("%d are asked for at once, want the second policy's", n)
	}
	r.run(5 * time.Second)
	if n := asked(); n != 2 {
		t.Errorf("%d are asked for", n)
	}
	r.wantPairs(a, b, 2)
}

// TestWanted_TerminatedWhileItWaits: what the operator has ended is not asked for again
// because it had been refused for the time being, or deleted by the peer.
func TestWanted_TerminatedWhileItWaits(t *testing.T) {
	r, a, b := up(t, func(pa, _ *Peer) { pa.Start = AtOnce })
	b.step(Terminate{Peer: "A", Policy: "lan"})
	r.run(100 * time.Millisecond)
	a.step(Terminate{Peer: "B", Policy: "lan"})
	r.run(time.Minute)
	if len(a.sad) != 0 {
		t.Error("what the peer has deleted is there again")
	}
	b.install = func(Install) error { return errInstall }
	a.step(Acquire{Peer: "B", Policy: "lan"})
	r.run(100 * time.Millisecond)
	b.install = nil
	a.step(Terminate{Peer: "B", Policy: "lan"})
	r.run(time.Minute)
	if len(a.sad) != 0 || len(a.refused) != 1 || len(a.m.peers["B"].again) != 0 {
		t.Errorf("%d SAs, refused %v, %d wait", len(a.sad), a.refused, len(a.m.peers["B"].again))
	}
}
