package dataplane

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// probePair is two gateways whose probes meet over a path of a width, in virtual
// time: A's outbound SA is B's inbound one, and the other way round.
type probePair struct {
	t    *testing.T
	a, b *rig
	mtu  int
	mute bool // B's answers are lost
}

func newProbePair(t *testing.T, o options, mtu int) *probePair {
	t.Helper()
	p := &probePair{t: t, mtu: mtu}
	o.noSA = true
	p.a, p.b = newRig(t, o), newRig(t, o)
	for _, r := range []*rig{p.a, p.b} {
		r.now = time.Hour
	}
	install := func(r *rig, out, in string) {
		o, i := r.params(sad.Outbound), r.params(sad.Inbound)
		o.EncryptionKey, i.EncryptionKey = key(out, len(o.EncryptionKey)), key(in, len(i.EncryptionKey))
		o.IntegrityKey, i.IntegrityKey = key(out+"i", len(o.IntegrityKey)), key(in+"i", len(i.IntegrityKey))
		i.SPI = o.SPI
		if err := r.gw.Install(o, i); err != nil {
			t.Fatal(err)
		}
	}
	install(p.a, "a to b", "b to a")
	install(p.b, "b to a", "a to b")
	return p
}

// in is the inbound SA of one of the two.
func (p *probePair) in(r *rig) *sad.SA { return r.gw.sas.Load().Inbound(outSPI) }

// carry takes what one gateway has sent to the other, as far as the path allows,
// and lets the other's prober hear it.
func (p *probePair) carry(from, to *rig) {
	sa := from.outSA()
	for kind, wire := range from.wires {
		for _, d := range wire.take() {
			if sa.OuterLen(0)-sa.Suite.SealedLen(0)+d.Len > p.mtu && d.DF {
				continue
			}
			if from == p.b && p.mute {
				continue
			}
			to.receive(wireKind(kind), d)
			for drained := false; !drained; {
				select {
				case h := <-to.gw.path.prober.heard:
					to.gw.path.prober.now = to.now
					to.gw.path.prober.hear(h)
				default:
					drained = true
				}
			}
		}
	}
}

// run lets A's SA be used for that long, a long packet every tick.
func (p *probePair) run(d time.Duration) {
	for end := p.a.now + d; p.a.now < end; {
		p.a.now += probeTick
		p.b.now = p.a.now
		p.a.outSA().Touch(int64(p.a.now), 1, 1400)
		p.a.gw.path.prober.round()
		p.carry(p.a, p.b)
		p.carry(p.b, p.a)
	}
}

// Two gateways find what is between them, in every suite's and outer packet's
// lengths, and a black hole later; nothing of it reaches a TUN, and SAs' and
// gateways' drops do not move.
func TestRFC8899_TwoGatewaysFindTheirPath(t *testing.T) {
	for _, o := range []options{
		{}, {remote: gwB6}, {encap: sad.EncapNone}, {encap: sad.EncapNone, remote: gwB6},
		{suite: "aes256-sha512"}, {suite: "chacha20poly1305"}, {suite: "null-sha256"}, {noESN: true},
	} {
		p := newProbePair(t, o, 1500)
		sa := p.a.outSA()
		sa.SetPathMTU(1500, sad.MTULink, 0)
		p.run(3 * time.Second)
		if is := sa.PathMTU(); is.MTU != 1500 || is.Source != sad.MTUProbe {
			t.Errorf("%+v: on a wide path: %v", o, is)
		}
		p.mtu = 1337
		p.run(1200 * time.Millisecond)
		if is := sa.PathMTU(); is.MTU > 1337 {
			t.Errorf("%+v: 1.2 s behind the black hole: %v", o, is)
		}
		p.run(20 * time.Second)
		if is := sa.PathMTU(); is.MTU > 1337+15 || is.MTU < 1337-16 || sa.OuterLen(is.Inner) > 1337 {
			t.Errorf("%+v: %v; expected about 1337", o, is)
		}
		for _, r := range []*rig{p.a, p.b} {
			if got := r.tun.take(); len(got) != 0 {
				t.Errorf("%+v: %d packets at a TUN: %x", o, len(got), got)
			}
			for _, c := range r.gw.Stats().Drops {
				if c.Value > 0 {
					t.Errorf("%+v: %s is %d", o, c.Name, c.Value)
				}
			}
			if n := p.in(r).Stats().OtherDrops; n != 0 {
				t.Errorf("%+v: probes count as the SA's drops: %d", o, n)
			}
		}
		s := p.a.gw.Stats()
		if sent, answers := s.Counter("OutProbes"), s.Counter("InProbeAnswers"); answers == 0 || sent <= answers || s.Counter("PathsNarrowed") == 0 {
			t.Errorf("%+v: %d probes and %d answers", o, sent, answers)
		}
		if n := p.b.gw.Stats().Counter("OutProbeAnswers"); n != s.Counter("InProbeAnswers") {
			t.Errorf("%+v: B answered %d", o, n)
		}
	}
}

// A peer that answers nothing loses three dummies a minute, and nothing changes.
func TestPeerWithoutProbesIsLeftAlone(t *testing.T) {
	p := newProbePair(t, options{}, 1300)
	p.mute = true
	sa := p.a.outSA()
	sa.SetPathMTU(1500, sad.MTULink, 0)
	before := sa.PathMTU()
	p.run(2 * time.Minute)
	if is := sa.PathMTU(); is != before {
		t.Errorf("%v", is)
	}
	if n := p.a.gw.Stats().Counter("OutProbes"); n > 9 {
		t.Errorf("%d probes", n)
	}
}

// An idle SA, and one with short packets alone, is not probed.
func TestIdleSAsAreNotProbed(t *testing.T) {
	p := newProbePair(t, options{}, 1500)
	for range 200 {
		p.a.now += probeTick
		p.a.outSA().Touch(int64(p.a.now), 10, 10*120)
		p.a.gw.path.prober.round()
	}
	if n := p.a.gw.Stats().Counter("OutProbes"); n != 0 {
		t.Errorf("%d probes", n)
	}
	p.run(time.Second)
	before := p.a.gw.Stats().Counter("OutProbes")
	p.a.now += probeUse + 1
	for range 200 {
		p.a.now += probeTick
		p.a.gw.path.prober.round()
	}
	if n := p.a.gw.Stats().Counter("OutProbes") - before; before == 0 || n != 0 {
		t.Errorf("%d probes in use, %d behind it", before, n)
	}
}

// Only what is a probe, whole and authentic, is one; a replayed or forged one is
// dropped in front, and other dummies stay dummies.
func TestRFC4303_2_6_OnlyProbesAreProbes(t *testing.T) {
	probe := make([]byte, 100)
	copy(probe, probeMagic)
	probe[8], probe[9] = probeVersion, probeRequest
	binary.BigEndian.PutUint64(probe[12:], 77)
	change := func(at int) []byte {
		b := bytes.Clone(probe)
		b[at] ^= 0x40
		return b
	}
	r := newRig(t, options{})
	heard := r.gw.path.prober.heard
	for name, text := range map[string][]byte{"magic": change(0), "magic's end": change(7), "version": change(8), "short": probe[:probeLen-1], "nothing": {}} {
		r.dropped(InDummy, func() { r.delivers(0, r.arrive(r.sealed(r.edge()+1, packet.ProtoNone, text))) })
		if len(heard) != 0 {
			t.Errorf("%s: it was heard", name)
		}
	}
	before := r.gw.Stats().Counter("InProbes")
	good := r.sealed(r.edge()+1, packet.ProtoNone, probe)
	r.counts(nil, func() { r.delivers(0, r.arrive(bytes.Clone(good))) })
	if len(heard) != 1 {
		t.Fatal("it was not heard")
	}
	if h := <-heard; h.id != 77 || h.kind != probeRequest || h.sa != r.inSA() {
		t.Errorf("heard %+v", h)
	}
	r.dropped(InReplay, func() { r.arrive(bytes.Clone(good)) })
	forged := r.sealed(r.edge()+1, packet.ProtoNone, probe)
	forged[len(forged)-1]++
	r.dropped(InAuth, func() { r.arrive(forged) })
	if len(heard) != 0 {
		t.Error("a replayed or forged one was heard")
	}
	for range probeQueue + 10 { // nobody reads: the walk goes on
		r.counts(nil, func() { r.arrive(r.sealed(r.edge()+1, packet.ProtoNone, probe)) })
	}
	if n := r.gw.Stats().Counter("InProbes") - before; n != probeQueue+11 {
		t.Errorf("InProbes: +%d", n)
	}
	r.gw.path = pathMTU{}
	r.gw.path.use(r.gw, &Config{NoProbe: true})
	r.dropped(InDummy, func() { r.arrive(r.sealed(r.edge()+1, packet.ProtoNone, probe)) })
}

// Who asks too much is not answered: the answers are bounded, and shorter than what
// was asked.
func TestProbeRepliesAreLimited(t *testing.T) {
	r := newRig(t, options{})
	p := r.gw.path.prober
	p.now = time.Hour
	for id := range uint64(2 * probeReplies) {
		p.hear(heardProbe{sa: r.inSA(), kind: probeRequest, id: id + 1})
	}
	got := r.wires[wireUDP].take()
	if len(got) != probeReplies {
		t.Errorf("%d replies; expected %d", len(got), probeReplies)
	}
	open, err := r.opened(sent{Datagram: got[0]}, 1)
	if err != nil || open.NextHeader != packet.ProtoNone || len(open.Payload) != probeLen || open.Payload[9] != probeReply || got[0].DF {
		t.Errorf("%+v, %v", open, err)
	}
}

// An answer counts only from the peer that was asked, and only once.
func TestProbeAnswersAreTheAskedPeers(t *testing.T) {
	p := newProbePair(t, options{}, 1500)
	prober := p.a.gw.path.prober
	p.a.now += probeTick
	p.a.outSA().Touch(int64(p.a.now), 1, 1400)
	prober.round()
	if len(prober.flights) != 1 {
		t.Fatalf("%d in flight", len(prober.flights))
	}
	var id uint64
	for id = range prober.flights {
	}
	params := p.a.params(sad.Inbound)
	params.Peer = "c"
	other, err := sad.New(params)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []heardProbe{{sa: other, kind: probeReply, id: id}, {sa: p.in(p.a), kind: probeReply, id: id + 2}, {sa: p.in(p.a), kind: 3, id: id}} {
		prober.hear(h)
	}
	if n := p.a.gw.Stats().Counter("InProbeAnswers"); n != 0 || prober.paths[p.a.outSA()].state != probeSilent {
		t.Errorf("%d answers counted", n)
	}
	prober.hear(heardProbe{sa: p.in(p.a), kind: probeReply, id: id})
	prober.hear(heardProbe{sa: p.in(p.a), kind: probeReply, id: id})
	if n := p.a.gw.Stats().Counter("InProbeAnswers"); n != 1 || prober.paths[p.a.outSA()].state != probeConfirm {
		t.Errorf("%d answers counted", n)
	}
}

// Machines and names go with their SAs.
func TestProberForgetsSAsThatAreGone(t *testing.T) {
	p := newProbePair(t, options{}, 1500)
	p.run(time.Second)
	prober := p.a.gw.path.prober
	if len(prober.paths) != 1 {
		t.Fatalf("%d paths", len(prober.paths))
	}
	p.a.gw.Remove(p.a.outSA().ID())
	prober.round()
	if len(prober.paths) != 0 || len(prober.flights) != 0 {
		t.Errorf("%d paths and %d flights are left", len(prober.paths), len(prober.flights))
	}
}
