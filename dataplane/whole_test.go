package dataplane

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/adit-ipsec/adit/ah"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/tun"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// wholeSet is how two gateways protect what is between them.
type wholeSet struct {
	protocol  string // esp, ah, ah+esp
	mode      sad.Mode
	encap     sad.Encapsulation
	ah, esp   string // suites
	v6        bool   // outside
	esn       bool
	fragment  sad.FragmentMode
	df        sad.DFMode
	originals [2]netip.Addr // at B: what A's packets had, source and destination
}

func (s wholeSet) String() string {
	family := 4
	if s.v6 {
		family = 6
	}
	return fmt.Sprintf("%s %s %s %s %s IPv%d esn=%v", s.protocol, s.mode, s.encap, s.ah, s.esp, family, s.esn)
}

// end is one of the two: a gateway whose walks a test calls, its outer address
// and what it sends and hands to its TUN.
type end struct {
	t     testing.TB
	gw    *Gateway
	addr  netip.Addr
	tun   *captureQueue
	wires [wireKinds]*captureWire
	in    map[wireKind]*inboundWorker // wireWhole: the one for AH
}

var outerA, outerB = [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8:1::1")},
	[2]netip.Addr{netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("2001:db8:2::2")}

func index6(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}

// newWholePair makes A and B, who protect by s.
func newWholePair(t testing.TB, s wholeSet) (a, b *end) {
	t.Helper()
	i := index6(s.v6)
	return newEnd(t, s, "a", outerA[i], outerB[i]), newEnd(t, s, "b", outerB[i], outerA[i])
}

func newEnd(t testing.TB, s wholeSet, name string, local, remote netip.Addr) *end {
	t.Helper()
	e := &end{t: t, addr: local, tun: &captureQueue{}, in: map[wireKind]*inboundWorker{}}
	for i := range e.wires {
		e.wires[i] = &captureWire{}
	}
	dev, _ := tun.NewMemory("test0", 1500)
	t.Cleanup(func() { _ = dev.Close() })
	gw, err := build(Config{
		TUN: dev, Wire: e.wires[wireUDP], Raw4: e.wires[wireRaw4], Raw6: e.wires[wireRaw6],
		AH4: &captureWire{}, Whole: e.wires[wireWhole], Clock: func() time.Duration { return time.Second },
	})
	if err != nil {
		t.Fatal(err)
	}
	gw.useQueue(e.tun)
	e.gw, e.in[wireUDP], e.in[wireRaw4], e.in[wireRaw6], e.in[wireWhole] = gw, gw.in[0], gw.in[1], gw.in[2], gw.in[3]
	local4, remote4 := mustRanges("10.1.0.0/24", "2001:db8:a::/64"), mustRanges("10.2.0.0/24", "2001:db8:b::/64")
	if name == "b" {
		local4, remote4 = remote4, local4
	}
	if s.mode == sad.TransportMode {
		local4, remote4 = mustRanges(local.String()), mustRanges(remote.String())
	}
	table, err := spd.NewTable([]spd.Policy{{Name: "p", Selector: spd.Selector{Local: local4, Remote: remote4, Protocol: spd.ProtocolAny}, Action: spd.Protect, Peer: "peer"}})
	if err != nil {
		t.Fatal(err)
	}
	gw.ApplyPolicy(table)
	if err := gw.Install(s.params(t, name, local, remote)...); err != nil {
		t.Fatal(err)
	}
	return e
}

// params are the SAs of one end: keys and SPIs are named by who sends.
func (s wholeSet) params(t testing.TB, name string, local, remote netip.Addr) (list []sad.Params) {
	t.Helper()
	for _, dir := range []sad.Direction{sad.Outbound, sad.Inbound} {
		sender, spi := name, uint32(0x3000)
		if dir == sad.Inbound {
			sender = map[string]string{"a": "b", "b": "a"}[name]
		}
		if sender == "b" {
			spi = 0x4000
		}
		base := sad.Params{
			Direction: dir, Mode: s.mode, SPI: spi, Peer: "peer", Bundle: s.protocol == "ah+esp", ESN: s.esn, ReplayWindow: 64, FreshKeys: true,
			Fragment: s.fragment, Tunnel: sad.Tunnel{DF: s.df},
			Encap: s.encap, Local: netip.AddrPortFrom(local, 4500), Remote: netip.AddrPortFrom(remote, 4500),
		}
		if dir == sad.Inbound && name == "b" && s.originals[0].IsValid() {
			base.OriginalRemote, base.OriginalLocal = s.originals[0], s.originals[1]
		}
		if s.protocol != "ah" {
			p := base
			suite, err := esp.ParseSuite(s.esp)
			if err != nil {
				t.Fatal(err)
			}
			enc, integ := suite.KeyLen()
			p.Suite, p.EncryptionKey, p.IntegrityKey = suite, key(sender+" enc", enc), key(sender+" int", integ)
			list = append(list, p)
		}
		if s.protocol != "esp" {
			p := base
			suite, err := ah.ParseSuite(s.ah)
			if err != nil {
				t.Fatal(err)
			}
			p.Protocol, p.AHSuite, p.IntegrityKey = sad.AH, suite, key(sender+" ah", suite.KeyLen())
			list = append(list, p)
		}
	}
	return list
}

// send takes packets through the outbound walk.
func (e *end) send(packets ...[]byte) (out []sent) {
	for i, p := range packets {
		e.gw.out[0].bufs[i].Set(p)
	}
	e.gw.out[0].walk(len(packets))
	for kind, wire := range e.wires {
		for _, d := range wire.take() {
			out = append(out, sent{d, wireKind(kind)})
		}
	}
	return out
}

// receive does to what the other end sent what kernel and wire do, and takes it
// through the inbound walk.
func (e *end) receive(grams ...sent) [][]byte {
	for _, g := range grams {
		kind, d := arrival(g)
		w := e.in[kind]
		slot := &w.grams[0]
		*slot = packet.Datagram{Mem: slot.Mem, Off: packet.Headroom + d.Off, Len: d.Len, Addr: d.Addr, Local: d.Local, TOS: d.TOS}
		copy(slot.Mem[packet.Headroom:], d.Mem)
		w.walk(1)
	}
	return e.tun.take()
}

// arrival is the wire that a datagram arrives on, as its receiver sees it: Mem
// starts with the IP header where the socket leaves it there.
func arrival(g sent) (wireKind, packet.Datagram) {
	d := g.Datagram
	d.Mem = bytes.Clone(d.Bytes())
	d.Off = 0
	if g.wire != wireWhole {
		// Addr of what arrives is who sent it.
		to := d.Addr
		d.Addr, d.Local = netip.AddrPortFrom(d.Local, 4500), to.Addr()
		return g.wire, d
	}
	b := d.Mem
	if b[0]>>4 == 4 {
		b[8]-- // a router
		packet.SetChecksum(b[:int(b[0]&15)*4])
		d.Addr, d.Local, d.TOS = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:])), 0), netip.AddrFrom4([4]byte(b[16:])), b[1]
		if b[9] == packet.ProtoESP {
			d.Off = int(b[0]&15) * 4
			d.Len -= d.Off
			return wireRaw4, d
		}
		return wireWhole, d
	}
	b[7]--
	d.Addr, d.Local, d.TOS = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:])), 0), netip.AddrFrom16([16]byte(b[24:])), b[0]<<4|b[1]>>4
	h, f := packet.Header{}, packet.Flow{}
	if err := packet.Parse(b, &h, &f); err == nil && f.Protocol == packet.ProtoESP {
		d.Mem, d.Len = b[h.TransportOffset:], d.Len-h.TransportOffset // IPv6 raw sockets give no header
		return wireRaw6, d
	}
	return wireWhole, d
}

// between is what A says to B under s: UDP, TCP, and where the family allows it
// packets with options or extension headers.
func (s wholeSet) between(from, to netip.Addr) (packets [][]byte) {
	for _, payload := range []string{"", "x", "payload", string(make([]byte, 1200))} {
		packets = append(packets, inner{src: from, dst: to, tos: 0xb8, payload: payload}.udp())
	}
	tcp := &layers.TCP{SrcPort: 1000, DstPort: 2000, Seq: 1, DataOffset: 5, ACK: true, Window: 100}
	if from.Is4() {
		ip := &layers.IPv4{Version: 4, TTL: 64, Id: 0, Flags: layers.IPv4DontFragment, Protocol: layers.IPProtocolTCP, SrcIP: from.AsSlice(), DstIP: to.AsSlice()}
		_ = tcp.SetNetworkLayerForChecksum(ip)
		return append(packets, serialize(ip, tcp, gopacket.Payload("tcp")))
	}
	ip := &layers.IPv6{Version: 6, HopLimit: 64, FlowLabel: 0x12345, NextHeader: layers.IPProtocolTCP, SrcIP: from.AsSlice(), DstIP: to.AsSlice()}
	_ = tcp.SetNetworkLayerForChecksum(ip)
	return append(packets, serialize(ip, tcp, gopacket.Payload("tcp")))
}

func wholeSets() (all []wholeSet) {
	for _, v6 := range []bool{false, true} {
		for _, mode := range []sad.Mode{sad.TunnelMode, sad.TransportMode} {
			for _, esn := range []bool{false, true} {
				for _, suite := range ah.Suites() {
					all = append(all, wholeSet{protocol: "ah", mode: mode, encap: sad.EncapNone, ah: suite.String(), v6: v6, esn: esn})
				}
				for _, suite := range []string{"aes128gcm16", "aes128-sha256", "null-sha256", "chacha20poly1305"} {
					all = append(all, wholeSet{protocol: "ah+esp", mode: mode, encap: sad.EncapNone, ah: "sha256", esp: suite, v6: v6, esn: esn})
					if mode == sad.TransportMode {
						all = append(all, wholeSet{protocol: "esp", mode: mode, encap: sad.EncapNone, esp: suite, v6: v6, esn: esn},
							wholeSet{protocol: "esp", mode: mode, encap: sad.EncapUDP, esp: suite, v6: v6, esn: esn})
					}
				}
			}
		}
	}
	return all
}

// Every protocol, mode and family: what A's TUN gave is what B's TUN gets.
func TestWholePacketsArriveAsTheyWere(t *testing.T) {
	for _, s := range wholeSets() {
		t.Run(s.String(), func(t *testing.T) {
			a, b := newWholePair(t, s)
			pairs := [][2]netip.Addr{{hostA, hostB}, {host6, hostS}}
			if s.mode == sad.TransportMode {
				pairs = [][2]netip.Addr{{a.addr, b.addr}}
			}
			for _, pair := range pairs {
				for _, want := range s.between(pair[0], pair[1]) {
					out := a.send(want)
					if len(out) != 1 {
						t.Fatalf("expected one packet on the wire, saw %d; drops %v", len(out), nonzero(a.gw))
					}
					got := b.receive(out...)
					if len(got) != 1 {
						t.Fatalf("expected one packet at the TUN, saw %d; drops %v", len(got), nonzero(b.gw))
					}
					if !sameButMutable(s, want, got[0]) {
						t.Fatalf("expected %x\nsaw      %x", want, got[0])
					}
				}
			}
		})
	}
}

// sameButMutable compares, but for what the router of arrival changes in
// transport mode, and what the sockets do not tell: TTL, and over UDP and of
// ESP in IPv6 the identification, DF and flow label.
func sameButMutable(s wholeSet, want, got []byte) bool {
	if s.mode == sad.TunnelMode {
		return bytes.Equal(want, got)
	}
	want, got = bytes.Clone(want), bytes.Clone(got)
	for _, b := range [][]byte{want, got} {
		if b[0]>>4 == 4 {
			b[8] = 0
			if s.encap == sad.EncapUDP || binary.BigEndian.Uint16(want[4:]) == 0 {
				b[4], b[5] = 0, 0
			}
			if s.encap == sad.EncapUDP {
				b[6] = 0
			}
			packet.SetChecksum(b[:20])
			continue
		}
		b[7] = 0
		if s.protocol == "esp" {
			b[1], b[2], b[3] = b[1]&0xf0, 0, 0
		}
	}
	return bytes.Equal(want, got)
}

// nonzero are the drop counters that moved.
func nonzero(g *Gateway) (list []Counter) {
	for _, c := range g.Stats().Drops {
		if c.Value > 0 {
			list = append(list, c)
		}
	}
	return list
}

func (e *end) dropped(reason DropReason, f func() int) {
	e.t.Helper()
	before := e.gw.Stats()
	if n := f(); n != 0 {
		e.t.Errorf("%s: expected nothing to come through, saw %d packets", reason, n)
	}
	after := e.gw.Stats()
	for _, r := range DropReasons() {
		got := after.Counter(r.String()) - before.Counter(r.String())
		if want := map[bool]uint64{true: 1}[r == reason]; got != want {
			e.t.Errorf("counter %s: expected +%d, saw +%d", r, want, got)
		}
	}
}

var bundle4 = wholeSet{protocol: "ah+esp", encap: sad.EncapNone, ah: "sha256", esp: "aes128gcm16"}

// A bundle is both: a packet that lacks one of the two is dropped, whichever it
// is.
func TestABundleLacksNeitherHalf(t *testing.T) {
	a, b := newWholePair(t, bundle4)
	out := a.send(fromA("both"))[0]
	bare := out
	bare.Mem = bytes.Clone(out.Bytes())
	bare.Off = 0
	ahLen := (int(bare.Mem[21]) + 2) * 4
	bare.Mem = append(bare.Mem[:20:20], bare.Mem[20+ahLen:]...)
	bare.Len = len(bare.Mem)
	packet.SetProtocol(bare.Mem[:20], packet.ProtoESP)
	packet.SetLength(bare.Mem[:20], bare.Len)
	b.dropped(InBundle, func() int { return len(b.receive(bare)) })
	if got := b.receive(out); len(got) != 1 {
		t.Errorf("the packet with both: expected it delivered, saw %d; drops %v", len(got), nonzero(b.gw))
	}
	// AH alone, made with the bundle's own key around a bare packet.
	alone := wholeSet{protocol: "ah", encap: sad.EncapNone, ah: "sha256"}
	onlyAH, _ := newWholePair(t, alone)
	onlyAH.send(fromA("number 1 is used"))
	b.dropped(InBundle, func() int { return len(b.receive(onlyAH.send(fromA("number 2"))...)) })
	// ESP alone towards the peer never leaves.
	a.gw.Remove(sad.ID{Direction: sad.Outbound, SPI: 0x3000, Peer: "peer", Protocol: sad.AH})
	a.dropped(OutNoSA, func() int { return len(a.send(fromA("half"))) })
}

// The SA of ESP must be the bundle's own: AH of one peer does not vouch for ESP
// of another.
func TestABundleIsOfOnePeer(t *testing.T) {
	a, b := newWholePair(t, bundle4)
	out := a.send(fromA("both"))
	b.gw.Remove(sad.ID{Direction: sad.Inbound, SPI: 0x3000, Peer: "peer"})
	p := bundle4.params(t, "b", outerB[0], outerA[0])[2]
	if p.Direction != sad.Inbound || p.Protocol != sad.ESP {
		t.Fatal("the third of the params is to be inbound ESP")
	}
	p.Peer = "another"
	if err := b.gw.Install(p); err != nil {
		t.Fatal(err)
	}
	b.dropped(InBundle, func() int { return len(b.receive(out...)) })
}

func TestRFC4302_3_4_WhatAHRefuses(t *testing.T) {
	s := wholeSet{protocol: "ah", encap: sad.EncapNone, ah: "sha256"}
	change := func(f func(b []byte)) func(sent) sent {
		return func(g sent) sent {
			g.Mem, g.Off = bytes.Clone(g.Bytes()), 0
			f(g.Mem)
			return g
		}
	}
	for name, c := range map[string]struct {
		change func(sent) sent
		want   DropReason
	}{
		"3.4.2 unknown SPI":           {change(func(b []byte) { b[24]++ }), InNoSA},
		"3.4.4 a bit of the payload":  {change(func(b []byte) { b[len(b)-1] ^= 1 }), InAuth},
		"3.4.4 the source address":    {change(func(b []byte) { b[15] ^= 1 }), InEndpoint},
		"3.4.4 the identification":    {change(func(b []byte) { b[5] ^= 1 }), InAuth},
		"3.4.4 the sequence number":   {change(func(b []byte) { b[31] ^= 1 }), InReplay},
		"2.2 a length of another AH":  {change(func(b []byte) { b[21] += 2 }), InMalformed},
		"cut in the middle of the AH": {func(g sent) sent { g = change(func(b []byte) { packet.SetLength(b, 30) })(g); g.Len = 30; return g }, InMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newWholePair(t, s)
			out := a.send(fromA("payload"))[0]
			b.dropped(c.want, func() int { return len(b.receive(c.change(out))) })
			if got := b.receive(out); len(got) != 1 {
				t.Errorf("afterwards the packet as it was: expected it delivered, saw %d; drops %v", len(got), nonzero(b.gw))
			}
			b.dropped(InReplay, func() int { return len(b.receive(out)) })
		})
	}
}

// RFC 4302 3.3.3.1.1.1: what routers change does not count; the mark of
// congestion reaches the inner packet (RFC 6040).
func TestRFC4302_3_3_3_MutableFieldsMayChange(t *testing.T) {
	a, b := newWholePair(t, wholeSet{protocol: "ah", encap: sad.EncapNone, ah: "sha256"})
	out := a.send(inner{src: hostA, dst: hostB, tos: packet.ECT0, payload: "x"}.udp())[0]
	out.Mem, out.Off = bytes.Clone(out.Bytes()), 0
	out.Mem[1] = 0x28 | packet.CE
	out.Mem[6] ^= 0x40
	got := b.receive(out)
	if len(got) != 1 || got[0][1] != packet.CE {
		t.Fatalf("expected the packet with CE inside, saw %x; drops %v", got, nonzero(b.gw))
	}
}

// RFC 4303 3.3.4: "transport mode ESP is applied only to whole IP datagrams (not
// to IP fragments)"; and it ends at its two ends.
func TestRFC4303_3_3_4_TransportModeTakesWholeDatagramsOfItsEnds(t *testing.T) {
	for _, protocol := range []string{"esp", "ah", "ah+esp"} {
		s := wholeSet{protocol: protocol, mode: sad.TransportMode, encap: sad.EncapNone, ah: "sha256", esp: "aes128gcm16"}
		a, _ := newWholePair(t, s)
		fragment := inner{src: a.addr, dst: outerB[0], payload: "12345678"}.udp()
		fragment[6] |= 0x20
		packet.SetChecksum(fragment[:20])
		a.dropped(OutTransport, func() int { return len(a.send(fragment)) })
		wide, err := spd.NewTable([]spd.Policy{{Name: "p", Selector: spd.Selector{Local: mustRanges("10.1.0.0/24"), Remote: lanB, Protocol: spd.ProtocolAny}, Action: spd.Protect, Peer: "peer"}})
		if err != nil {
			t.Fatal(err)
		}
		a.gw.ApplyPolicy(wide)
		a.dropped(OutTransport, func() int { return len(a.send(fromA("of a network behind"))) })
	}
}

// RFC 3948 3.1.2: behind NATs, TCP and UDP sums are made right from the addresses
// that the peer sent from and to; a UDP sum of zero stays.
func TestRFC3948_3_1_2_ChecksumsBehindNAT(t *testing.T) {
	private, public := [2]netip.Addr{netip.MustParseAddr("10.9.0.7"), netip.MustParseAddr("2001:db8:99::7")}, outerA
	for i := range 2 {
		s := wholeSet{protocol: "esp", mode: sad.TransportMode, encap: sad.EncapUDP, esp: "aes128gcm16", v6: i == 1, originals: [2]netip.Addr{private[i], outerB[i]}}
		a := newEnd(t, s, "a", private[i], outerB[i])
		b := newEnd(t, s, "b", outerB[i], public[i])
		for n, p := range s.between(private[i], outerB[i]) {
			out := a.send(p)
			for k := range out {
				out[k].Local = public[i] // the NAT
			}
			got := b.receive(out...)
			if len(got) != 1 {
				t.Fatalf("packet %d: expected it delivered, saw %d; drops %v", n, len(got), nonzero(b.gw))
			}
			var h packet.Header
			var f packet.Flow
			if err := packet.Parse(got[0], &h, &f); err != nil {
				t.Fatal(err)
			}
			if f.SrcAddr() != public[i] {
				t.Errorf("source: expected %s, saw %s", public[i], f.SrcAddr())
			}
			sum := packet.Checksum(got[0][h.TransportOffset:], packet.PseudoChecksum(&f, f.Protocol, len(got[0])-h.TransportOffset))
			if sum != 0xffff {
				t.Errorf("packet %d, protocol %d: the sum over packet and pseudo header: expected 0xffff, saw %#x", n, f.Protocol, sum)
			}
		}
		if i == 1 {
			continue
		}
		none := inner{src: private[i], dst: outerB[i], payload: "no sum"}.udp()
		none[26], none[27] = 0, 0
		out := a.send(none)
		out[0].Local = public[i]
		if got := b.receive(out...); len(got) != 1 || got[0][26]|got[0][27] != 0 {
			t.Errorf("a UDP sum of zero: expected it to stay, saw %x", got)
		}
	}
}

// A superpacket under AH leaves as the packets that it stands for.
func TestSuperpacketsUnderAH(t *testing.T) {
	a, b := newWholePair(t, wholeSet{protocol: "ah", encap: sad.EncapNone, ah: "sha256"})
	super := fromASuper(10*1000+7, 1000)
	w := a.gw.out[0]
	w.bufs[0].Set(super.bytes())
	w.bufs[0].SegmentSize = 1000
	w.walk(1)
	var out []sent
	for _, d := range a.wires[wireWhole].take() {
		out = append(out, sent{d, wireWhole})
	}
	want := super.segments()
	got := b.receive(out...)
	if len(got) != len(want) {
		t.Fatalf("expected %d packets, saw %d; drops %v %v", len(want), len(got), nonzero(a.gw), nonzero(b.gw))
	}
	for i := range want {
		if !bytes.Equal(want[i], got[i]) {
			t.Fatalf("segment %d: expected %x, saw %x", i, want[i], got[i])
		}
	}
}

// A dummy inside transport mode ends as one.
func TestDummyInTransportMode(t *testing.T) {
	s := wholeSet{protocol: "esp", mode: sad.TransportMode, encap: sad.EncapUDP, esp: "aes128gcm16"}
	a, b := newWholePair(t, s)
	sa := a.gw.sas.Load().Outbound("peer", "p")
	wire := make([]byte, sa.Suite.SealedLen(20))
	batch := []esp.Packet{{Seq: 1, NextHeader: packet.ProtoNone, Payload: make([]byte, 20, 400), Wire: wire}}
	sa.Transform.Seal(esp.NewScratch(), sa.SPI, batch)
	g := sent{packet.Datagram{Mem: wire, Len: len(wire), Addr: netip.AddrPortFrom(b.addr, 4500), Local: a.addr}, wireUDP}
	b.dropped(InDummy, func() int { return len(b.receive(g)) })
}

// Neither walk allocates for whole packets.
func TestWholeWalksAllocateNothing(t *testing.T) {
	for _, s := range []wholeSet{
		bundle4,
		{protocol: "ah", encap: sad.EncapNone, ah: "sha256", v6: true},
		{protocol: "ah", mode: sad.TransportMode, encap: sad.EncapNone, ah: "aes128gmac"},
		{protocol: "esp", mode: sad.TransportMode, encap: sad.EncapUDP, esp: "aes128gcm16"},
	} {
		a, b := newWholePair(t, s)
		p := fromA("payload")
		if s.mode == sad.TransportMode {
			p = inner{src: a.addr, dst: b.addr, payload: "payload"}.udp()
		}
		kind := wireWhole
		if s.encap == sad.EncapUDP {
			kind = wireUDP
		}
		out := a.send(p)
		w := a.gw.out[0]
		w.wires[kind].to = &discardWire{}
		if n := testing.AllocsPerRun(100, func() {
			w.bufs[0].Set(p)
			w.walk(1)
		}); n != 0 {
			t.Errorf("%s: outbound: expected no allocation a packet, saw %v", s, n)
		}
		arrives, d := arrival(out[0])
		in := b.in[arrives]
		b.tun.discard = true
		reset := func() {
			slot := &in.grams[0]
			*slot = packet.Datagram{Mem: slot.Mem, Off: packet.Headroom + d.Off, Len: d.Len, Addr: d.Addr, Local: d.Local}
			copy(slot.Mem[packet.Headroom:], d.Mem)
			in.walk(1)
		}
		reset()
		if got := b.gw.Stats().Counter("InPackets"); got != 1 {
			t.Fatalf("%s: expected the packet delivered, saw %d; drops %v", s, got, nonzero(b.gw))
		}
		if n := testing.AllocsPerRun(100, reset); n != 0 {
			t.Errorf("%s: inbound (replays): expected no allocation a packet, saw %v", s, n)
		}
	}
}
