package dataplane

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/tun"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// audits is the Audit events since the last call.
func (r *rig) audits() []Event {
	r.events()
	list := r.audited
	r.audited = nil
	return list
}

var (
	ownAddr  = netip.MustParseAddrPort("192.0.2.1:4500")
	attacker = netip.MustParseAddrPort("203.0.113.66:1234")
)

// labelled sets the flow label of an IPv6 packet.
func labelled(p []byte, label uint32) []byte {
	binary.BigEndian.PutUint32(p, binary.BigEndian.Uint32(p)&^0xfffff|label)
	return p
}

// arriving is a datagram from b that came to our own address.
func arriving(b []byte, from netip.AddrPort) packet.Datagram {
	return packet.Datagram{Mem: b, Len: len(b), Addr: from, Local: ownAddr.Addr()}
}

// auditCase makes one packet end for the reason; want is the event without Kind,
// Reason, At and Count. inner is the packet whose flow the event has, nil: none.
type auditCase struct {
	name   string
	reason DropReason
	o      options
	make   func(r *rig)
	want   Event
	inner  []byte
}

func auditCases() []auditCase {
	six := func(payload string) []byte {
		return labelled(inner{src: hostS, dst: host6, payload: payload}.udp(), 0xabcde)
	}
	stranger := inner{src: hostB, dst: gwB4.Addr(), payload: "x"}.udp()
	stranger6 := labelled(inner{src: hostS, dst: gwB6.Addr(), payload: "x"}.udp(), 0xabcde)
	congested := inner{src: hostB, dst: hostA, payload: "x"}.udp()
	elsewhere := serialize(
		&layers.IPv4{Version: 4, TTL: 63, Protocol: layers.IPProtocolICMPv4, SrcIP: gwB4.Addr().AsSlice(), DstIP: hostA.AsSlice()},
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 1)},
		gopacket.Payload(inner{src: hostA, dst: gwB4.Addr(), payload: "x"}.udp()))
	nobody := inner{src: hostA, dst: gwB4.Addr(), payload: "x"}.udp()
	nobody6 := labelled(inner{src: host6, dst: gwB6.Addr(), payload: "x"}.udp(), 0x12345)
	exhaust := func(r *rig) {
		for {
			if _, granted := r.outSA().Reserve(1 << 30); granted == 0 {
				return
			}
		}
	}
	raw := func(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), 0) }
	in := Event{Peer: "b", SPI: inSPI, Src: gwB4, Dst: raw(ownAddr)}
	seq := func(e Event, n uint64) Event { e.Seq = n; return e }
	return []auditCase{
		{name: "RFC 4301 5.1, no policy", reason: OutDiscard, make: func(r *rig) { r.send(nobody) }, inner: nobody},
		{name: "RFC 4301 5.1, no policy, IPv6", reason: OutDiscard, make: func(r *rig) { r.send(nobody6) }, inner: nobody6, want: Event{FlowLabel: 0x12345}},
		{
			name: "RFC 4303 3.3.3, sequence number overflow", reason: OutSeqExhausted, o: options{noESN: true, local: ownAddr},
			make: func(r *rig) { exhaust(r); r.send(fromA("x")) }, inner: fromA("x"),
			want: Event{Peer: "b", SPI: outSPI, Seq: 1<<32 - 1, Src: ownAddr, Dst: gwB4},
		},
		{
			name: "RFC 4303 3.4.2, no SA", reason: InNoSA,
			make: func(r *rig) {
				p := r.good(7)
				binary.BigEndian.PutUint32(p, 0xdead)
				r.receive(wireUDP, arriving(p, attacker))
			},
			want: Event{SPI: 0xdead, Seq: 7, Src: attacker, Dst: raw(ownAddr)},
		},
		{
			name: "RFC 4303 3.4.2, an SA of another peer", reason: InEndpoint, o: options{encap: sad.EncapNone},
			make: func(r *rig) { r.receive(wireRaw4, arriving(r.good(7), raw(attacker))) },
			want: Event{SPI: inSPI, Seq: 7, Src: raw(attacker), Dst: raw(ownAddr)},
		},
		{
			name: "RFC 4301 5.2, one half of a bundle", reason: InBundle,
			make: func(r *rig) {
				p := r.params(sad.Inbound)
				p.SPI, p.Bundle, p.Encap, p.EncryptionKey = 0x1111, true, sad.EncapNone, key("half", len(p.EncryptionKey))
				if err := r.gw.Install(p); err != nil {
					r.t.Fatal(err)
				}
				r.receive(wireUDP, arriving(binary.BigEndian.AppendUint64(nil, 0x1111<<32|9), gwB4))
			},
			want: Event{SPI: 0x1111, Seq: 9, Src: gwB4, Dst: raw(ownAddr)},
		},
		{
			name: "RFC 4301 6.2, an ICMP error about a packet of another SA", reason: InICMP,
			make: func(r *rig) { r.receive(wireUDP, arriving(r.sealed(5, packet.ProtoIPv4, elsewhere), gwB4)) }, inner: elsewhere,
			want: seq(in, 5),
		},
		{
			name: "RFC 4303 3.4.3, replay", reason: InReplay, o: options{edge: 3<<32 | 100},
			make: func(r *rig) { r.receive(wireUDP, arriving(r.good(3<<32|100), gwB4)) },
			want: seq(in, 3<<32|100),
		},
		{
			name: "RFC 4303 3.4.4, ICV", reason: InAuth,
			make: func(r *rig) { r.receive(wireUDP, arriving(flip(r.good(5), 300), attacker)) },
			want: Event{Peer: "b", SPI: inSPI, Seq: 5, Src: attacker, Dst: raw(ownAddr)},
		},
		{
			name: "RFC 6040 4.2, congestion that nobody hears of", reason: InECN,
			make: func(r *rig) {
				d := arriving(r.sealed(6, packet.ProtoIPv4, congested), gwB4)
				d.TOS = packet.CE
				r.receive(wireUDP, d)
			},
			want: seq(in, 6), inner: congested,
		},
		{
			name: "RFC 4301 5.2, selectors", reason: InSelector,
			make: func(r *rig) { r.receive(wireUDP, arriving(r.sealed(8, packet.ProtoIPv4, stranger), gwB4)) },
			want: seq(in, 8), inner: stranger,
		},
		{
			name: "RFC 4301 5.2, selectors, IPv6 behind a good one", reason: InSelector,
			make: func(r *rig) {
				r.receive(wireUDP, arriving(r.sealed(8, packet.ProtoIPv6, six("good")), gwB4), arriving(r.sealed(9, packet.ProtoIPv6, stranger6), gwB4))
			},
			want: func() Event { e := seq(in, 9); e.FlowLabel = 0xabcde; return e }(), inner: stranger6,
		},
	}
}

// Requirement 62: one event for each auditable drop, at once, with the fields
// that the RFC names; and every auditable reason has its case here.
func TestRFC4303_4_AuditEventsHaveTheirFields(t *testing.T) {
	covered := map[DropReason]bool{}
	for _, c := range auditCases() {
		covered[c.reason] = true
		r := newRig(t, c.o)
		r.now = 5 * time.Second
		r.dropped(c.reason, func() { c.make(r) })
		want := c.want
		want.Kind, want.Reason, want.At, want.Count = Audit, c.reason, r.now, 1
		if c.inner != nil {
			p := packet.Buffer{Mem: c.inner, Len: len(c.inner)}
			if err := p.Parse(); err != nil {
				t.Fatal(err)
			}
			want.Flow = p.Flow
		}
		if list := r.audits(); len(list) != 1 || list[0] != want {
			t.Errorf("%s: expected\n%+v, saw\n%+v", c.name, want, list)
		}
		for i, wire := range r.wires {
			if n := len(wire.take()); n != 0 {
				t.Errorf("%s: %d datagrams left by wire %d: an auditable event is never answered", c.name, n, i)
			}
		}
	}
	for _, reason := range DropReasons() {
		if reason.Auditable() != covered[reason] {
			t.Errorf("%s: auditable is %v, and there is a case for it: %v", reason, reason.Auditable(), covered[reason])
		}
	}
	if DropReason(200).Auditable() || forwarded.Auditable() {
		t.Error("what is no drop is auditable")
	}
}

// What is not named is not audited: what a policy discards, a dummy, a packet
// without an SA, noise.
func TestOtherDropsAreNotAudited(t *testing.T) {
	discard := append([]spd.Policy{{Name: "no", Selector: spd.Selector{Local: lanA, Remote: mustRanges("198.51.100.0/24"), Protocol: spd.ProtocolAny}, Action: spd.Discard}}, protectAll()...)
	r := newRig(t, options{policies: discard})
	r.counts(map[DropReason]uint64{OutDiscard: 1, OutMalformed: 1, InDummy: 1, InMalformed: 1, InInner: 1}, func() {
		r.send(inner{src: hostA, dst: gwB4.Addr(), payload: "x"}.udp(), []byte{0x45})
		r.arrive(r.sealed(1, packet.ProtoNone, nil), []byte{1, 2, 3, 4, 5}, r.sealed(2, packet.ProtoIPv4, []byte{0x45}))
	})
	if list := r.audits(); len(list) != 0 {
		t.Errorf("expected no audit events, saw %+v", list)
	}
}

// A transport mode payload is no IP packet, whatever it looks like.
func TestAuditReadsNoFlowOutOfATransportPayload(t *testing.T) {
	for mode, want := range map[sad.Mode]uint8{sad.TunnelMode: 4, sad.TransportMode: 0} {
		var e Event
		describeOpened(&e, &sad.SA{Mode: mode, SPI: inSPI}, &esp.Packet{Seq: 3, Payload: fromB("x")})
		if e.Flow.Version != want || e.SPI != inSPI || e.Seq != 3 {
			t.Errorf("%s: saw %+v", mode, e)
		}
	}
}

// flood has ten thousand bad packets arrive within 1.5 s, and returns how many.
func flood(r *rig, reason DropReason) int {
	const batches, batch = 100, 100
	p := r.good(1)
	switch reason {
	case InNoSA:
		binary.BigEndian.PutUint32(p, 0xdead)
	case InAuth:
		p = flip(r.good(1000), 300)
	}
	grams := make([]packet.Datagram, batch)
	for i := range grams {
		grams[i] = arriving(p, gwB4)
	}
	for range batches {
		r.receive(wireUDP, grams...)
		r.now += 15 * time.Millisecond
	}
	return batches * batch
}

// Ten thousand bad packets in 1.5 s are two events, and when it is over one more
// from housekeeping; the counts add up to the counter.
func TestFloodIsAFewAuditEvents(t *testing.T) {
	for _, reason := range []DropReason{InNoSA, InAuth, InReplay} {
		r := newRig(t, options{})
		r.arrive(r.good(1))
		r.now = time.Second
		house := housekeeper{gateway: r.gw, grams: packet.NewDatagrams(1)}
		n := flood(r, reason)
		list := r.audits()
		if len(list) != 2 || list[0].Count != 1 || list[0].At != time.Second {
			t.Errorf("%s: after the flood: expected 2 events, the first at once with count 1, saw %+v", reason, list)
		}
		house.round()
		if early := r.audits(); len(early) != 0 {
			t.Errorf("%s: housekeeping before the second is over: saw %+v", reason, early)
		}
		r.now += eventInterval
		house.round()
		list = append(list, r.audits()...)
		house.round()
		list = append(list, r.audits()...)
		if len(list) != 3 {
			t.Errorf("%s: expected 3 events, saw %d", reason, len(list))
		}
		sum := uint64(0)
		for _, e := range list {
			if e.Kind != Audit || e.Reason != reason || e.Src != gwB4 {
				t.Errorf("%s: saw %+v", reason, e)
			}
			sum += e.Count
		}
		if got := r.gw.Stats().Counter(reason.String()); sum != got || got != uint64(n) {
			t.Errorf("%s: %d packets, counter %d, the events' counts add up to %d", reason, n, got, sum)
		}
	}
}

// One reason's flood does not silence another, and a superpacket counts its
// packets.
func TestAuditReasonsAreThinnedApart(t *testing.T) {
	r := newRig(t, options{})
	r.now = time.Second
	flood(r, InNoSA)
	r.audits()
	r.dropped(InAuth, func() { r.receive(wireUDP, arriving(flip(r.good(5), 300), gwB4)) })
	if list := r.audits(); len(list) != 1 || list[0].Reason != InAuth {
		t.Errorf("expected InAuth, saw %+v", list)
	}
	s := fromASuper(5000, 1000)
	s.dst = gwB4.Addr()
	r.counts(map[DropReason]uint64{OutDiscard: 5}, func() { r.sendMixed(s) })
	if list := r.audits(); len(list) != 1 || list[0].Reason != OutDiscard || list[0].Count != 5 {
		t.Errorf("expected OutDiscard of 5 packets, saw %+v", list)
	}
}

// At the end of the numbers, in a run and in the middle of a superpacket.
func TestRFC4303_3_3_3_OverflowIsAuditedWithItsCount(t *testing.T) {
	for _, super := range []bool{false, true} {
		r := newRig(t, options{store: &startAt{1<<32 - 1 - 3}, noESN: true, local: ownAddr})
		var list []sent
		r.counts(map[DropReason]uint64{OutSeqExhausted: 4}, func() {
			if super {
				list = r.sendMixed(fromASuper(7*1000, 1000))
				return
			}
			list = r.send(fromA("1"), fromA("2"), fromA("3"), fromA("4"), fromA("5"), fromA("6"), fromA("7"))
		})
		if len(list) != 3 {
			t.Errorf("superpacket %v: %d datagrams left, expected 3", super, len(list))
		}
		if list := r.audits(); len(list) != 1 || list[0].Reason != OutSeqExhausted || list[0].Count != 4 || list[0].SPI != outSPI || list[0].Flow.SrcAddr() != hostA {
			t.Errorf("superpacket %v: saw %+v", super, list)
		}
	}
}

// Nobody reads the events: nothing blocks, what found no room is counted as
// lost, and told with its count once there is room.
func TestAuditNeverBlocksAndKeepsTheCount(t *testing.T) {
	r := newRig(t, options{})
	r.now = time.Second
	for r.gw.emit(Event{Kind: PeerMoved}) {
		continue
	}
	n := flood(r, InNoSA)
	if got := r.gw.Stats().Counter("EventsLost"); got == 0 {
		t.Error("EventsLost: expected some")
	}
	if list := r.audits(); len(list) != 0 {
		t.Errorf("a full channel took %+v", list)
	}
	r.now += eventInterval
	(&housekeeper{gateway: r.gw}).round()
	if list := r.audits(); len(list) != 1 || list[0].Count != uint64(n) {
		t.Errorf("expected one event for %d packets, saw %+v", n, list)
	}
}

// What is left when the gateway ends is said before the channel is closed.
func TestCloseTellsOfTheLastAudits(t *testing.T) {
	dev, host := tun.NewMemory("test0", 1500)
	wire := &blockedWire{done: make(chan struct{})}
	gw, err := New(Config{TUN: dev, Wire: wire})
	if err != nil {
		t.Fatal(err)
	}
	table, err := spd.NewTable(protectAll())
	if err != nil {
		t.Fatal(err)
	}
	gw.ApplyPolicy(table)
	const n = 50
	for range n {
		if err := host.Send(t.Context(), inner{src: hostA, dst: gwB4.Addr(), payload: "x"}.udp()); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); gw.Stats().Counter("OutDiscard") < n; {
		if time.Now().After(deadline) {
			t.Fatal("the packets were not walked")
		}
		<-time.After(time.Millisecond)
	}
	if err := gw.Close(); err != nil {
		t.Fatal(err)
	}
	sum := uint64(0)
	for e := range gw.Events() {
		if e.Kind != Audit || e.Reason != OutDiscard {
			t.Errorf("saw %+v", e)
		}
		sum += e.Count
	}
	if sum != n {
		t.Errorf("the events' counts add up to %d, expected %d", sum, n)
	}
}

// blockedWire has nothing to read until it is closed.
type blockedWire struct {
	discardWire
	done chan struct{}
}

func (w *blockedWire) ReadBatch([]packet.Datagram) (int, error) {
	<-w.done
	return 0, net.ErrClosed
}

func (w *blockedWire) Close() error {
	close(w.done)
	return nil
}

// Packets with a header of their own are audited as the others are: with their SA,
// and to the last one of a superpacket.
func TestRFC4302_3_3_2_OverflowOfWholePacketsIsAudited(t *testing.T) {
	for _, super := range []bool{false, true} {
		set := wholeSet{protocol: "ah", encap: sad.EncapNone, ah: "sha256"}
		a, _ := newWholePair(t, set)
		p := set.params(t, "a", outerA[0], outerB[0])[0]
		a.gw.Remove(p.ID())
		p.Sequence = &startAt{1<<32 - 1 - 3}
		if err := a.gw.Install(p); err != nil {
			t.Fatal(err)
		}
		n := 0
		if super {
			s := fromASuper(7*1000, 1000)
			a.gw.out[0].bufs[0].Set(s.bytes())
			a.gw.out[0].bufs[0].SegmentSize = s.size
			a.gw.out[0].walk(1)
			n = len(a.wires[wireWhole].take())
		} else {
			n = len(a.send(fromA("1"), fromA("2"), fromA("3"), fromA("4"), fromA("5"), fromA("6"), fromA("7")))
		}
		if n != 3 {
			t.Fatalf("superpacket %v: %d packets left, expected 3", super, n)
		}
		a.gw.audits(2*eventInterval, true)
		var count uint64
		for len(a.gw.events) > 0 {
			e := <-a.gw.events
			if e.Kind != Audit || e.Reason != OutSeqExhausted {
				continue
			}
			count += e.Count
			if e.SPI != p.SPI || e.Peer != p.Peer || e.Dst.Addr() != outerB[0] || e.Flow.SrcAddr() != hostA {
				t.Errorf("superpacket %v: saw %+v", super, e)
			}
		}
		if count != 4 {
			t.Errorf("superpacket %v: audited %d packets, expected 4", super, count)
		}
	}
}

// Of a bundle whose ESP is for no SA, the audit log has that SPI and number, not
// those of the AH around it, which are right.
func TestRFC4303_3_4_2_UnknownSPIInsideAHIsAudited(t *testing.T) {
	a, b := newWholePair(t, bundle4)
	b.gw.Remove(sad.ID{Direction: sad.Inbound, SPI: 0x3000, Peer: "peer", Protocol: sad.ESP})
	esp := bundle4.params(t, "a", outerA[0], outerB[0])[0]
	a.gw.Remove(esp.ID())
	esp.SPI, esp.EncryptionKey = 0x7777, key("other", len(esp.EncryptionKey))
	if err := a.gw.Install(esp); err != nil {
		t.Fatal(err)
	}
	b.dropped(InNoSA, func() int { return len(b.receive(a.send(fromA("x"))...)) })
	b.gw.audits(2*eventInterval, true)
	for len(b.gw.events) > 0 {
		if e := <-b.gw.events; e.Kind == Audit {
			if e.Reason != InNoSA || e.SPI != esp.SPI || e.Seq != 1 || e.Peer != "" || e.Src.Addr() != outerA[0] {
				t.Errorf("saw %+v", e)
			}
			return
		}
	}
	t.Error("no Audit event")
}
