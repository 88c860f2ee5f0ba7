package dataplane

import (
	"fmt"
	"net/netip"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

var (
	away  = netip.MustParseAddrPort("203.0.113.7:61000")
	away2 = netip.MustParseAddrPort("203.0.113.8:4500")
)

// gram is a datagram from there.
func gram(from netip.AddrPort, p []byte) packet.Datagram {
	return packet.Datagram{Mem: p, Len: len(p), Addr: from}
}

// changedRig is a rig whose SAs have parameters that options do not know.
func changedRig(t *testing.T, o options, change func(*sad.Params)) *rig {
	t.Helper()
	o.noSA = true
	r := newRig(t, o)
	out, in := r.params(sad.Outbound), r.params(sad.Inbound)
	change(&out)
	change(&in)
	if err := r.gw.Install(out, in); err != nil {
		t.Fatal(err)
	}
	return r
}

// at fails unless the gateway sends to the peer there.
func (r *rig) at(want netip.AddrPort) {
	r.t.Helper()
	if got := r.send(fromA("x")); len(got) != 1 || got[0].Addr != want {
		r.t.Errorf("expected one packet to %s, saw %+v", want, got)
	}
}

// roamed fails unless exactly so many moves and strays have been counted.
func (r *rig) roamed(moves, strays uint64) {
	r.t.Helper()
	s := r.gw.Stats()
	if m, e := s.Counter("InPeerMoves"), s.Counter("InPeerElsewhere"); m != moves || e != strays {
		r.t.Errorf("expected %d moves and %d strays, saw %d and %d", moves, strays, m, e)
	}
}

// RFC 7296 2.23: a host "SHOULD send all packets (including retransmission
// packets) to the IP address and port in the validated packet".
func TestRFC7296_2_23_PeerIsWhereItsNewestPacketCameFrom(t *testing.T) {
	for name, p := range map[string][]byte{"data": fromB("x"), "a dummy": nil, "what the policy refuses": inner{src: hostA, dst: hostB}.udp()} {
		r := newRig(t, options{})
		next := uint8(packet.ProtoIPv4)
		if p == nil {
			next = packet.ProtoNone
		}
		r.receive(wireUDP, gram(away, r.sealed(1, next, p)))
		if r.at(away); t.Failed() {
			t.Fatal(name)
		}
		want := Event{Kind: PeerMoved, Peer: "b", SPI: inSPI, From: away, Old: gwB4}
		if list := r.events(); len(list) != 1 || list[0] != want {
			t.Errorf("%s: expected %+v, saw %+v", name, want, list)
		}
		r.roamed(1, 0)
		if got := r.outSA().Stats().Remote; got != away {
			t.Errorf("%s: Stats: expected %s, saw %s", name, away, got)
		}
	}
	r := newRig(t, options{})
	port := netip.AddrPortFrom(gwB4.Addr(), 61000)
	r.receive(wireUDP, gram(port, r.good(1)), gram(away, r.good(2)))
	r.at(away)
	r.receive(wireUDP, gram(port, r.good(3)))
	r.at(port)
	r.roamed(2, 1)
	v6, other := newRig(t, options{remote: gwB6}), netip.MustParseAddrPort("[2001:db8:9::9]:1024")
	v6.receive(wireUDP, gram(other, v6.good(1)))
	v6.at(other)
	// A gateway on any address follows into the other family too.
	v6.receive(wireUDP, gram(away, v6.good(2)))
	v6.at(away)
}

// "otherwise, an attacker can revert the addresses with old replayed packets": an
// old packet from another address never moves the peer, seen before or not.
func TestRFC7296_2_23_OldPacketsNeverMoveThePeer(t *testing.T) {
	r := newRig(t, options{})
	held := r.good(8) // authentic, and the gateway has not seen it
	r.delivers(2, r.arrive(r.good(7), r.good(9)))
	r.delivers(1, r.receive(wireUDP, gram(away, held)))
	r.at(gwB4)
	r.roamed(0, 1)
	want := Event{Kind: PeerElsewhere, Peer: "b", SPI: inSPI, From: away, Old: gwB4, Why: stayOlder}
	if list := r.events(); len(list) != 1 || list[0] != want {
		t.Errorf("expected %+v, saw %+v", want, list)
	}
	for _, seq := range []uint64{7, 8, 9} {
		r.dropped(InReplay, func() { r.delivers(0, r.receive(wireUDP, gram(away, r.good(seq)))) })
	}
	r.dropped(InAuth, func() { r.delivers(0, r.receive(wireUDP, gram(away, flip(r.good(10), 300)))) })
	r.at(gwB4)
	r.roamed(0, 1)
	if list := r.events(); len(list) != 0 {
		t.Errorf("replays and forgeries: expected no event, saw %+v", list)
	}
	// After the peer has moved, what it sent before does not move it back.
	r.delivers(1, r.receive(wireUDP, gram(away, r.good(12))))
	r.delivers(1, r.receive(wireUDP, gram(gwB4, r.good(11))))
	r.at(away)
}

// Of a run that came from two places, its newest packet decides, wherever it
// stands in the batch.
func TestRoamTheNewestOfARunDecides(t *testing.T) {
	type from struct {
		seq uint64
		at  netip.AddrPort
	}
	for name, c := range map[string]struct {
		run           []from
		want          netip.AddrPort
		moves, strays uint64
	}{
		"moved, in order":            {[]from{{5, gwB4}, {6, away}, {7, away}}, away, 1, 1},
		"moved, newest first":        {[]from{{7, away}, {6, away}, {5, gwB4}}, away, 1, 1},
		"old packets from away":      {[]from{{5, away}, {6, away}, {7, gwB4}}, gwB4, 0, 2},
		"the same, newest first":     {[]from{{7, gwB4}, {5, away}, {6, away}}, gwB4, 0, 2},
		"two other places":           {[]from{{7, away2}, {5, gwB4}, {6, away}}, away2, 1, 2},
		"one number from two ends":   {[]from{{5, away}, {5, gwB4}}, away, 1, 0},
		"a whole run from elsewhere": {[]from{{5, away}, {6, away}, {7, away}}, away, 1, 0},
	} {
		r := newRig(t, options{})
		var grams []packet.Datagram
		for _, f := range c.run {
			grams = append(grams, gram(f.at, r.good(f.seq)))
		}
		r.receive(wireUDP, grams...)
		r.at(c.want)
		if r.roamed(c.moves, c.strays); t.Failed() {
			t.Fatal(name)
		}
	}
}

func TestRoamWhatIsNeverFollowed(t *testing.T) {
	own := netip.MustParseAddrPort("192.0.2.1:4500")
	none := func(*sad.Params) {}
	port := func(a string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(a), 4500) }
	for name, c := range map[string]struct {
		o      options
		change func(*sad.Params)
		from   netip.AddrPort
		why    string
	}{
		"static peer":       {options{}, func(p *sad.Params) { p.Static = true }, away, stayStatic},
		"behind a NAT":      {options{}, func(p *sad.Params) { p.BehindNAT = true }, away, stayBehindNAT},
		"no UDP":            {options{encap: sad.EncapNone}, none, away, stayNoUDP},
		"no window":         {options{window: noWindow, noESN: true}, none, away, stayNoWindow},
		"port 0":            {options{}, none, netip.AddrPortFrom(away.Addr(), 0), stayAddress},
		"multicast":         {options{}, none, port("224.0.0.1"), stayAddress},
		"IPv6 multicast":    {options{remote: gwB6}, none, port("ff02::1"), stayAddress},
		"broadcast":         {options{}, none, port("255.255.255.255"), stayAddress},
		"unspecified":       {options{}, none, port("0.0.0.0"), stayAddress},
		"IPv6 unspecified":  {options{remote: gwB6}, none, port("::"), stayAddress},
		"the SA's own":      {options{local: own}, none, netip.AddrPortFrom(own.Addr(), 9), stayAddress},
		"the other family":  {options{local: own}, none, gwB6, stayFamily},
		"where it was sent": {options{}, none, port("192.0.2.9"), stayAddress},
	} {
		r := changedRig(t, c.o, c.change)
		d := gram(c.from, r.good(1))
		if name == "where it was sent" {
			d.Local = d.Addr.Addr()
		}
		r.delivers(1, r.receive(wireUDP, d))
		if got := r.send(fromA("x")); len(got) != 1 || got[0].Addr != r.opts.remote {
			t.Errorf("%s: expected a packet to %s, saw %+v", name, r.opts.remote, got)
		}
		if list := r.events(); len(list) != 1 || list[0].Kind != PeerElsewhere || list[0].Why != c.why || list[0].From != c.from {
			t.Errorf("%s: expected one PeerElsewhere because %q, saw %+v", name, c.why, list)
		}
		if r.roamed(0, 1); t.Failed() {
			t.Fatal(name)
		}
	}
}

// In transport mode another port is followed, and no other address.
func TestRoamInTransportModeIsOfThePort(t *testing.T) {
	own := netip.MustParseAddrPort("192.0.2.1:4500")
	r := changedRig(t, options{local: own}, func(p *sad.Params) { p.Mode = sad.TransportMode })
	r.receive(wireUDP, gram(away, r.good(1)))
	if list := r.events(); len(list) != 1 || list[0].Kind != PeerElsewhere || list[0].Why != stayTransport {
		t.Errorf("another address: expected one PeerElsewhere because %q, saw %+v", stayTransport, list)
	}
	port := netip.AddrPortFrom(gwB4.Addr(), 61000)
	r.receive(wireUDP, gram(port, r.good(2)))
	if got := r.outSA().Endpoint(); got != port {
		t.Errorf("another port: expected %s, saw %s", port, got)
	}
	r.roamed(1, 1)
}

// A NAT that rebinds every five seconds is always followed; somebody who makes
// the peer flap is not.
func TestRoamFlapLimit(t *testing.T) {
	r := newRig(t, options{window: 4096})
	seq := uint64(0)
	to := func(n uint64) netip.AddrPort { return netip.AddrPortFrom(away.Addr(), uint16(1024+n%60000)) }
	move := func() bool {
		seq++
		r.receive(wireUDP, gram(to(seq), r.good(seq)))
		return r.outSA().Endpoint() == to(seq)
	}
	for range 1000 {
		r.now += 5 * time.Second
		if !move() {
			t.Fatalf("rebinding %d, after 5 s, was not followed", seq)
		}
	}
	r.now += time.Minute
	r.events()
	for n := range roamBurst + 5 {
		if got := move(); got != (n < roamBurst) {
			t.Fatalf("move %d at once: followed %v", n+1, got)
		}
	}
	r.roamed(1000+roamBurst, 5)
	moved, refused := 0, 0
	for _, e := range r.events() {
		switch {
		case e.Kind == PeerMoved:
			moved++
		case e.Kind == PeerElsewhere && e.Why == stayTooOften:
			refused++
		}
	}
	if moved != roamBurst || refused != 1 {
		t.Errorf("events: expected %d PeerMoved and 1 PeerElsewhere, saw %d and %d", roamBurst, moved, refused)
	}
	r.now += roamInterval - 1
	if move() {
		t.Error("followed before its time")
	}
	r.now++
	if !move() || move() {
		t.Error("expected one move after the interval, and no more")
	}
	// Whoever is left behind is found at the next packet after the limit.
	r.now += roamInterval
	if !move() {
		t.Error("not followed after the limit")
	}
}

// What is remembered of moves is bounded by the SAs that there are.
func TestRoamMemoryIsBounded(t *testing.T) {
	r := newRig(t, options{})
	sas, roaming := r.gw.sas.Load(), &roaming{}
	for i := range 100 {
		now := time.Duration(i) * roamInterval
		if !roaming.may("anybody", now) {
			t.Fatal("a peer that never moved may move")
		}
		roaming.count(sas, fmt.Sprint(i), now)
		if len(roaming.spent) > sas.Len()+1 {
			t.Fatalf("%d peers remembered, with %d SAs", len(roaming.spent), sas.Len())
		}
	}
}

// Several workers may see the move at once; the newest packet wins.
func TestRoamSeveralWorkersAtOnce(t *testing.T) {
	r := newRig(t, options{window: 4096})
	sa, none := r.inSA(), netip.Addr{}
	for round := range uint64(50) {
		now := time.Duration(round) * time.Minute
		var all sync.WaitGroup
		for n := range uint64(4) {
			all.Go(func() {
				seq := round*4 + n + 1
				sa.Mark([]esp.Packet{{Seq: seq}})
				r.gw.follow(sa, seq, netip.AddrPortFrom(away.Addr(), uint16(seq)), none, now)
				_ = r.outSA().Endpoint()
			})
		}
		all.Wait()
		if want := netip.AddrPortFrom(away.Addr(), uint16(round*4+4)); r.outSA().Endpoint() != want || sa.Endpoint() != want {
			t.Fatalf("round %d: expected %s, saw %s", round, want, r.outSA().Endpoint())
		}
	}
}

// RFC 7296 2.23: "all devices MUST be able to receive and process both
// UDP-encapsulated ESP and non-UDP-encapsulated ESP packets at any time." Without
// UDP they must come from where the peer is, or from where it was said to be.
func TestRFC7296_2_23_BothEncapsulationsAtAnyTime(t *testing.T) {
	raw := func(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), 0) }
	r := newRig(t, options{})
	r.delivers(1, r.receive(wireRaw4, gram(raw(gwB4), r.good(1))))
	r.delivers(1, r.receive(wireUDP, gram(away, r.good(2))))
	r.delivers(1, r.receive(wireRaw4, gram(raw(gwB4), r.good(3))))
	r.delivers(1, r.receive(wireRaw4, gram(raw(away), r.good(4))))
	r.dropped(InEndpoint, func() { r.delivers(0, r.receive(wireRaw4, gram(raw(away2), r.good(5)))) })
	r.at(away) // what came without UDP moves nobody
	r.roamed(1, 0)
	plain := newRig(t, options{encap: sad.EncapNone})
	plain.delivers(1, plain.receive(wireUDP, gram(gwB4, plain.good(1))))
	plain.delivers(1, plain.receive(wireRaw4, gram(raw(gwB4), plain.good(2))))
	plain.roamed(0, 0)
}

// RFC 3948 4: "Reception of NAT-keepalive packets MUST NOT be used to detect
// whether a connection is live." Nor does one move a peer.
func TestRFC3948_4_KeepaliveIsNoSignOfLife(t *testing.T) {
	r := newRig(t, options{})
	r.now = time.Second
	r.arrive(r.good(1))
	before := [2]sad.Stats{r.inSA().Stats(), r.outSA().Stats()}
	r.now = time.Minute
	r.counts(nil, func() { r.receive(wireUDP, gram(gwB4, []byte{0xff}), gram(away, []byte{0xff})) })
	if after := [2]sad.Stats{r.inSA().Stats(), r.outSA().Stats()}; !reflect.DeepEqual(after, before) {
		t.Errorf("keepalives changed the SAs: before %+v, after %+v", before, after)
	}
	r.at(gwB4)
	r.roamed(0, 0)
	if n := len(r.events()); n != 0 {
		t.Errorf("keepalives made %d events", n)
	}
}

// RFC 3948 4: keepalives are for the end behind the NAT, and do not touch the SA.
func TestRFC3948_4_KeepalivesOnlyFromBehindTheNAT(t *testing.T) {
	for _, behind := range []bool{false, true} {
		r := changedRig(t, options{}, func(p *sad.Params) { p.BehindNAT, p.Keepalive = behind, 20*time.Second })
		house := housekeeper{gateway: r.gw, grams: packet.NewDatagrams(1)}
		r.now = time.Minute
		house.round()
		sent := r.wires[wireUDP].take()
		switch {
		case !behind && len(sent) != 0:
			t.Errorf("not behind a NAT: sent %d", len(sent))
		case behind && (len(sent) != 1 || sent[0].Addr != gwB4 || string(sent[0].Bytes()) != "\xff"):
			t.Errorf("behind a NAT: expected one keepalive to %s, saw %+v", gwB4, sent)
		}
		if s := r.outSA().Stats(); s.LastUsed != 0 {
			t.Errorf("a keepalive made the SA look used: %+v", s)
		}
	}
}

// RFC 3948 5.1, two peers behind different NATs that have the same inner address:
// "Implementors MUST devise ways of preventing this from occurring." The policy
// says whose it is, and the other one's packets are refused.
func TestRFC3948_5_1_SameInnerAddressBehindTwoNATs(t *testing.T) {
	second := protectAll()[0]
	second.Name, second.Peer = "lan-c", "c"
	r := newRig(t, options{policies: append(protectAll(), second)})
	// The second peer's SA, with the keys that this rig seals with.
	if n := r.gw.Remove(sad.ID{Direction: sad.Inbound, SPI: inSPI, Peer: "b"}); n != 1 {
		t.Fatal("the first peer's inbound SA is not there")
	}
	p := r.params(sad.Inbound)
	p.Peer, p.Remote = "c", away
	if err := r.gw.Install(p); err != nil {
		t.Fatal(err)
	}
	r.dropped(InSelector, func() { r.delivers(0, r.receive(wireUDP, gram(away, r.good(1)))) })
	r.at(gwB4) // and what is for that address goes to the first peer
	if policy := r.gw.Policy().Lookup(spd.Inbound, flowOf(t, fromB("x"))); policy == nil || policy.Peer != "b" {
		t.Errorf("the address is the first peer's: saw %+v", policy)
	}
}

func flowOf(t *testing.T, p []byte) *packet.Flow {
	t.Helper()
	b := packet.NewBuffers(1)[0]
	b.Set(p)
	if err := b.Parse(); err != nil {
		t.Fatal(err)
	}
	return &b.Flow
}
