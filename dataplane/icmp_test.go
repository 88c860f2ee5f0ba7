package dataplane

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// Routers that no selector names, behind either gateway.
var (
	router4 = netip.MustParseAddr("10.99.0.1")
	router6 = netip.MustParseAddr("2001:db8:99::1")
)

// icmp is an ICMP message from src to dst with body behind its eight bytes.
func icmp(src, dst netip.Addr, typ, code uint8, body []byte) []byte {
	if src.Is4() {
		ip := &layers.IPv4{Version: 4, TTL: 60, Protocol: layers.IPProtocolICMPv4, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
		return serialize(ip, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(typ, code)}, gopacket.Payload(body))
	}
	ip := &layers.IPv6{Version: 6, HopLimit: 60, NextHeader: layers.IPProtocolICMPv6, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	message := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(typ, code)}
	_ = message.SetNetworkLayerForChecksum(ip)
	return serialize(ip, message, gopacket.Payload(append(make([]byte, 4), body...)))
}

// exceeded is what a router says about a packet whose time is up.
func exceeded(router, dst netip.Addr, quote []byte) []byte {
	if router.Is4() {
		return icmp(router, dst, packet.ICMPTimeExceeded, 0, quote)
	}
	return icmp(router, dst, packet.ICMPv6TimeExceeded, 0, quote)
}

// carriesBack fails unless one packet left, in ESP, and it is p.
func (r *rig) carriesBack(p []byte, got []sent) {
	r.t.Helper()
	if len(got) != 1 || got[0].wire != wireUDP {
		r.t.Fatalf("expected one ESP packet, saw %+v", got)
	}
	seq := uint64(binary.BigEndian.Uint32(got[0].Bytes()[4:]))
	if j, err := r.opened(got[0], seq); err != nil || !bytes.Equal(j.Payload, p) {
		r.t.Fatalf("the peer reads %x, %v; want %x", j.Payload, err, p)
	}
}

// inside seals p as the peer does, with the next number.
func (r *rig) inside(p []byte) []byte {
	r.t.Helper()
	next := uint8(packet.ProtoIPv4)
	if p[0]>>4 == 6 {
		next = packet.ProtoIPv6
	}
	return r.sealed(r.edge()+1, next, p)
}

// from6 is what host S behind B sends to the host behind A, to6 the other way.
func from6() []byte {
	return inner{src: hostS, dst: host6, sport: 53, dport: 999, payload: "six"}.udp()
}
func to6() []byte { return inner{src: host6, dst: hostS, sport: 999, dport: 53, payload: "six"}.udp() }

// A router behind this gateway reports on what came out of the SA: its message
// goes back through the SA of the return traffic, whatever its own address.
func TestRFC4301_6_2_OutboundErrorTakesTheSAOfTheReturnTraffic(t *testing.T) {
	r := newRig(t, options{})
	for _, p := range [][]byte{
		icmp(router4, hostB, 3, 1, fromB("x")),
		icmp(router4, hostB, 3, 4, fromB("x")),
		icmp(router4, hostB, 11, 0, fromB("x")),
		icmp(router4, hostB, 12, 0, fromB("x")),
		exceeded(router4, hostB, fromB("x")[:28]),               // RFC 792: 64 bits of the datagram
		exceeded(router4, hostB, fromB("x")[:20]),               // no ports at all: the policy asks for none
		exceeded(router4, hostB, icmp(hostB, hostA, 8, 0, nil)), // about a ping
		icmp(router6, hostS, 1, 0, from6()),
		icmp(router6, hostS, 2, 0, from6()),
		icmp(router6, hostS, 3, 0, from6()),
		icmp(router6, hostS, 4, 1, from6()),
		exceeded(router6, hostS, from6()[:40]),
	} {
		r.counts(nil, func() { r.carriesBack(p, r.send(p)) })
	}
	if list := r.events(); len(list) != 0 {
		t.Errorf("expected no event, saw %+v", list)
	}
	// In one batch with what the policy carries: the SA's run goes on.
	if got := r.send(fromA("1"), exceeded(router4, hostB, fromB("x")), fromA("2")); len(got) != 3 {
		t.Errorf("expected three packets, saw %d", len(got))
	}
}

// What is no error about the SA's traffic is discarded as before, and asks for no
// SA: "If no such SA exists, no SA will be created".
func TestRFC4301_6_2_OutboundErrorAboutOtherTrafficIsDiscarded(t *testing.T) {
	stranger := netip.MustParseAddr("10.8.0.1")
	about := func(src, dst netip.Addr) []byte { return inner{src: src, dst: dst, payload: "x"}.udp() }
	fragment := exceeded(router4, hostB, fromB("1234"))
	fragment[6] |= 0x20
	for name, p := range map[string][]byte{
		"about a stranger's packet":   exceeded(router4, stranger, about(stranger, hostA)),
		"about a packet to elsewhere": exceeded(router4, hostB, about(hostB, stranger)),
		"quote not reversed":          exceeded(router4, hostB, fromA("x")),
		"not to the quoted source":    exceeded(router4, netip.MustParseAddr("10.2.0.99"), fromB("x")),
		"about an error":              exceeded(router4, hostB, icmp(hostB, hostA, 3, 1, fromA("x"))),
		"about a redirect":            exceeded(router4, hostB, icmp(hostB, hostA, 5, 1, fromA("x"))),
		"quote of 19 bytes":           exceeded(router4, hostB, fromB("x")[:19]),
		"no quote":                    exceeded(router4, hostB, nil),
		"quote of another family":     exceeded(router4, hostB, from6()),
		"v6 to the quoted v4 source":  exceeded(router6, netip.AddrFrom16(hostB.As16()), fromB("x")),
		"redirect":                    icmp(router4, hostB, 5, 1, fromB("x")),
		"source quench":               icmp(router4, hostB, 4, 0, fromB("x")),
		"echo":                        icmp(router4, hostB, 8, 0, fromB("x")),
		"fragment":                    fragment,
		"UDP":                         about(router4, hostB),
		"v6 about a stranger's":       exceeded(router6, hostS, about(hostS, router6)),
		"v6 quote of 39 bytes":        exceeded(router6, hostS, from6()[:39]),
		"v6 about an error":           exceeded(router6, hostS, icmp(hostS, host6, 1, 0, to6())),
		"v6 type 5":                   icmp(router6, hostS, 5, 0, from6()),
	} {
		r := newRig(t, options{})
		r.dropped(OutDiscard, func() { none(t, r.send(p)) })
		if list := r.events(); len(list) != 0 {
			t.Errorf("expected no event, saw %+v", list)
		}
		if t.Failed() {
			t.Fatal(name)
		}
	}
	r := newRig(t, options{noSA: true})
	r.dropped(OutDiscard, func() { none(t, r.send(exceeded(router4, hostB, fromB("x")))) })
	if list := r.events(); len(list) != 0 {
		t.Errorf("an error asks for an SA: %+v", list)
	}
}

// The reversed ports count, "if accessible": a policy with ports takes no quote
// without them.
func TestRFC4301_6_2_QuotedPortsAreReversed(t *testing.T) {
	sel := selector("10.1.0.0/24", "10.2.0.0/24")
	sel.Protocol = packet.ProtoUDP
	sel.LocalPorts = spd.Ports{Ranges: []spd.PortRange{{From: 5060, To: 5060}}}
	r := newRig(t, options{policies: []spd.Policy{{Name: "lan", Selector: sel, Action: spd.Protect, Peer: "b"}}})
	came := func(port uint16) []byte { return inner{src: hostB, dst: hostA, sport: 9, dport: port}.udp() }
	went := func(port uint16) []byte { return inner{src: hostA, dst: hostB, sport: port, dport: 9}.udp() }
	p := exceeded(router4, hostB, came(5060))
	r.counts(nil, func() { r.carriesBack(p, r.send(p)) })
	r.counts(nil, func() { r.delivers(1, r.arrive(r.inside(exceeded(router4, hostA, went(5060))))) })
	for _, quote := range [][]byte{came(5061), came(5060)[:23], came(5060)[:20], inner{src: hostB, dst: hostA, sport: 5060, dport: 9}.udp()} {
		r.dropped(OutDiscard, func() { none(t, r.send(exceeded(router4, hostB, quote))) })
	}
	for _, quote := range [][]byte{went(5061), went(5060)[:23], inner{src: hostA, dst: hostB, sport: 9, dport: 5060}.udp()} {
		r.dropped(InICMP, func() { r.delivers(0, r.arrive(r.inside(exceeded(router4, hostA, quote)))) })
	}
}

// "If an SA exists that accommodates an outbound ICMP error message, then the
// message is mapped to the SA": its own policy comes first, and the quote is not
// looked at.
func TestRFC4301_6_2_OwnPolicyComesFirst(t *testing.T) {
	protect, open := protectAll()[0], selector("10.99.0.1", "10.2.0.0/24")
	p := exceeded(router4, hostB, fromB("x"))
	bypass := newRig(t, options{policies: []spd.Policy{protect, {Name: "open", Selector: open, Action: spd.Bypass}}})
	got := bypass.send(p)
	if len(got) != 1 || got[0].wire != wireKinds || !bytes.Equal(got[0].Bytes(), p) {
		t.Errorf("a bypass policy of its own: expected it in clear, saw %+v", got)
	}
	other := newRig(t, options{policies: []spd.Policy{protect, {Name: "c", Selector: open, Action: spd.Protect, Peer: "c"}}})
	other.dropped(OutNoSA, func() { none(t, other.send(p)) })
	if list := other.events(); len(list) != 1 || list[0].Kind != Acquire || list[0].Peer != "c" {
		t.Errorf("expected an Acquire for peer c, saw %+v", list)
	}
	// "no SPD entry would allow carriage": a policy that discards does not.
	discard := newRig(t, options{policies: []spd.Policy{protect, {Name: "no", Selector: open, Action: spd.Discard}}})
	discard.counts(nil, func() { discard.carriesBack(p, discard.send(p)) })
}

// The far end: an error from a router behind the peer comes in by what it quotes.
func TestRFC4301_6_2_InboundErrorIsTakenByItsQuote(t *testing.T) {
	r := newRig(t, options{})
	for _, p := range [][]byte{
		icmp(router4, hostA, 3, 0, fromA("x")),
		icmp(router4, hostA, 3, 4, fromA("x")),
		icmp(router4, hostA, 11, 0, fromA("x")),
		icmp(router4, hostA, 12, 0, fromA("x")),
		exceeded(router4, hostA, fromA("x")[:28]),
		exceeded(router4, hostA, fromA("x")[:20]),
		icmp(router6, host6, 1, 0, to6()),
		icmp(router6, host6, 2, 0, to6()),
		icmp(router6, host6, 3, 0, to6()[:44]),
		icmp(router6, host6, 4, 0, to6()),
	} {
		r.counts(nil, func() {
			if got := r.arrive(r.inside(p)); len(got) != 1 || !bytes.Equal(got[0], p) {
				t.Errorf("expected %x, saw %x", p, got)
			}
		})
	}
}

// "If the packet fails this check, the IPsec implementation MUST NOT forwarded the
// ICMP message to the destination. This is an auditable event."
func TestRFC4301_6_2_InboundErrorAboutOtherTrafficIsDropped(t *testing.T) {
	peerC := selector("10.1.0.0/24", "10.3.0.0/24")
	hostC := netip.MustParseAddr("10.3.0.30")
	policies := append(protectAll(), spd.Policy{Name: "c", Selector: peerC, Action: spd.Protect, Peer: "c"},
		spd.Policy{Name: "open", Selector: selector("10.1.0.0/24", "10.4.0.0/24"), Action: spd.Bypass})
	about := func(src, dst netip.Addr) []byte { return inner{src: src, dst: dst, payload: "x"}.udp() }
	fragment := exceeded(router4, hostA, fromA("1234"))
	fragment[6] |= 0x20
	for name, tt := range map[string]struct {
		p    []byte
		want DropReason
	}{
		"about what went to another peer":   {exceeded(router4, hostA, about(hostA, hostC)), InICMP},
		"about what went in clear":          {exceeded(router4, hostA, about(hostA, netip.MustParseAddr("10.4.0.4"))), InICMP},
		"about what is in no policy":        {exceeded(router4, hostA, about(hostA, router4)), InICMP},
		"quote not reversed":                {exceeded(router4, hostA, fromB("x")), InICMP},
		"to a host that is in no policy":    {exceeded(router4, netip.MustParseAddr("10.9.0.1"), fromA("x")), InICMP},
		"to another host than it quotes":    {exceeded(router4, netip.MustParseAddr("10.1.0.11"), fromA("x")), InICMP},
		"about an error":                    {exceeded(router4, hostA, icmp(hostA, hostB, 3, 1, fromB("x"))), InICMP},
		"quote of 19 bytes":                 {exceeded(router4, hostA, fromA("x")[:19]), InICMP},
		"no quote":                          {exceeded(router4, hostA, nil), InICMP},
		"quote of another family":           {exceeded(router4, hostA, to6()), InICMP},
		"redirect":                          {icmp(router4, hostA, 5, 1, fromA("x")), InICMP},
		"source quench":                     {icmp(router4, hostA, 4, 0, fromA("x")), InICMP},
		"first fragment":                    {fragment, InICMP},
		"echo reply with a packet as data":  {icmp(router4, hostA, 0, 0, fromA("x")), InSelector},
		"UDP":                               {about(router4, hostA), InSelector},
		"v6 about what is in no policy":     {exceeded(router6, host6, about(host6, router6)), InICMP},
		"v6 quote of 39 bytes":              {exceeded(router6, host6, to6()[:39]), InICMP},
		"v6 type 100":                       {icmp(router6, host6, 100, 0, to6()), InICMP},
		"v6 router advertisement with data": {icmp(router6, host6, 134, 0, to6()), InSelector},
	} {
		r := newRig(t, options{policies: policies})
		r.dropped(tt.want, func() { r.delivers(0, r.arrive(r.inside(tt.p))) })
		if n := r.inSA().Stats().OtherDrops; n != 1 {
			t.Errorf("the SA counts %d drops, want 1", n)
		}
		if t.Failed() {
			t.Fatal(name)
		}
	}
}

// An SA that was negotiated narrower than its policy is asked for its own
// selectors, in both directions.
func TestRFC4301_6_2_TheSAsOwnSelectorsCount(t *testing.T) {
	r := newRig(t, options{noSA: true})
	out, in := r.params(sad.Outbound), r.params(sad.Inbound)
	narrow := []spd.Selector{selector("10.1.0.10", "10.2.0.20")}
	out.Selectors, in.Selectors = narrow, narrow
	if err := r.gw.Install(out, in); err != nil {
		t.Fatal(err)
	}
	other := netip.MustParseAddr("10.2.0.21")
	p := exceeded(router4, hostB, fromB("x"))
	r.counts(nil, func() { r.carriesBack(p, r.send(p)) })
	r.dropped(OutDiscard, func() {
		none(t, r.send(exceeded(router4, other, inner{src: other, dst: hostA, payload: "x"}.udp())))
	})
	r.counts(nil, func() { r.delivers(1, r.arrive(r.inside(exceeded(router4, hostA, fromA("x"))))) })
	r.dropped(InICMP, func() {
		r.delivers(0, r.arrive(r.inside(exceeded(router4, hostA, inner{src: hostA, dst: other, payload: "x"}.udp()))))
	})
}

// RFC 4301 6.2: "an IPsec implementation MUST be configurable to check that this
// payload header information is consistent with the SA via which it arrives", also
// for a message that fits the selectors itself.
func TestRFC4301_6_2_CheckQuotedOfWhatFitsTheSelectors(t *testing.T) {
	hostC := netip.MustParseAddr("10.3.0.30")
	policies := append(protectAll(), spd.Policy{Name: "c", Selector: selector("10.1.0.0/24", "10.3.0.0/24"), Action: spd.Protect, Peer: "c"})
	toC := inner{src: hostA, dst: hostC, payload: "x"}.udp()
	fragment := icmp(hostB, hostA, 3, 1, fromA("1234"))
	fragment[6] |= 0x20
	for name, tt := range map[string]struct {
		p  []byte
		ok bool // with the check
	}{
		"about traffic to this peer":      {icmp(hostB, hostA, 3, 3, fromA("x")), true},
		"about traffic to another peer":   {icmp(hostB, hostA, 3, 3, toC), false},
		"no quote":                        {icmp(hostB, hostA, 3, 3, nil), false},
		"fragment":                        {fragment, false},
		"redirect":                        {icmp(hostB, hostA, 5, 0, fromA("x")), false},
		"from a router, about this peer":  {exceeded(router4, hostA, fromA("x")), true},
		"echo reply":                      {icmp(hostB, hostA, 0, 0, toC), true},
		"UDP":                             {fromB("x"), true},
		"v6 about traffic to this peer":   {icmp(hostS, host6, 1, 4, to6()), true},
		"v6 about traffic within the LAN": {icmp(hostS, host6, 1, 4, inner{src: host6, dst: host6}.udp()), false},
		"v6 unknown error":                {icmp(hostS, host6, 100, 0, to6()), false},
		"v6 echo reply":                   {icmp(hostS, host6, 129, 0, nil), true},
	} {
		r := newRig(t, options{policies: policies})
		r.counts(nil, func() { r.delivers(1, r.arrive(r.inside(tt.p))) })
		r.gw.icmp.CheckQuoted = true
		if name == "fragment" {
			tt.p[5]++ // of another datagram, which the first one is no part of
		}
		if tt.ok {
			r.counts(nil, func() { r.delivers(1, r.arrive(r.inside(tt.p))) })
		} else {
			r.dropped(InICMP, func() { r.delivers(0, r.arrive(r.inside(tt.p))) })
		}
		if t.Failed() {
			t.Fatal(name)
		}
	}
	r := newRig(t, options{})
	r.gw.icmp.CheckQuoted = true
	r.dropped(InSelector, func() { r.delivers(0, r.arrive(r.inside(inner{src: hostC, dst: hostA}.udp()))) })
}

func TestICMPThroughSAsAllocatesNothing(t *testing.T) {
	r := answering(t, ICMP{})
	r.tun.discard = true
	for i := range r.wires {
		r.gw.out[0].wires[i].to = discardWire{}
	}
	packets := [][]byte{exceeded(router4, hostB, fromB("x")), exceeded(router6, hostS, from6()), inner{src: hostA, dst: router4, payload: "x"}.udp()}
	out := func() {
		r.now += time.Second
		for i, p := range packets {
			r.gw.out[0].bufs[i].Set(p)
		}
		r.gw.out[0].walk(len(packets))
	}
	if n := testing.AllocsPerRun(30, out); n != 0 {
		t.Errorf("outbound: expected 0 allocations per batch, saw %v", n)
	}
	w, seq := r.in[wireUDP], 0
	var wires [][]byte
	for i := range 64 {
		wires = append(wires, r.sealed(uint64(i+1), packet.ProtoIPv4, exceeded(router4, hostA, fromA("x"))))
	}
	in := func() {
		d := &w.grams[0]
		d.Off, d.Addr, d.Len = packet.Headroom, gwB4, copy(d.Mem[packet.Headroom:], wires[seq])
		seq++
		w.walk(1)
	}
	if n := testing.AllocsPerRun(30, in); n != 0 {
		t.Errorf("inbound: expected 0 allocations per packet, saw %v", n)
	}
	if got := r.gw.Stats().Counter("InPackets"); got != uint64(seq) {
		t.Errorf("delivered: expected %d, saw %d", seq, got)
	}
}
