package dataplane

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// What arrives in transport mode, and what arrives in clear, against the policies.

var espTransport = wholeSet{protocol: "esp", mode: sad.TransportMode, encap: sad.EncapUDP, esp: "aes128gcm16"}

// sealedBy is a datagram of ESP over UDP with those keys, of what a sender says
// that its next header is.
func sealedBy(t *testing.T, p sad.Params, next uint8, payload []byte) sent {
	t.Helper()
	tr, err := esp.New(p.Suite, p.EncryptionKey, p.IntegrityKey, p.ESN)
	if err != nil {
		t.Fatal(err)
	}
	wire := make([]byte, p.Suite.SealedLen(len(payload)))
	batch := []esp.Packet{{Seq: 1, NextHeader: next, Payload: append(make([]byte, 0, len(wire)), payload...), Wire: wire}}
	tr.Seal(esp.NewScratch(), p.SPI, batch)
	if batch[0].Err != nil {
		t.Fatal(batch[0].Err)
	}
	return sent{packet.Datagram{Mem: wire, Len: len(wire), Addr: p.Local, Local: p.Remote.Addr()}, wireUDP}
}

// inboundOf is the inbound SA of ESP among an end's.
func inboundOf(t *testing.T, list []sad.Params) sad.Params {
	t.Helper()
	for _, p := range list {
		if p.Direction == sad.Inbound && p.Protocol == sad.ESP {
			return p
		}
	}
	t.Fatal("no inbound SA")
	return sad.Params{}
}

func (e *end) apply(list ...spd.Policy) {
	e.t.Helper()
	table, err := spd.NewTable(list)
	if err != nil {
		e.t.Fatal(err)
	}
	e.gw.ApplyPolicy(table)
}

// Next header 4 on a transport mode SA (C-R17, the other way round) is an IP in IP
// packet of its two ends: policy decides whether they may, and what is inside it
// is never taken for a packet of its own.
func TestCR17_TunnelNextHeaderOnATransportSA(t *testing.T) {
	smuggled := fromA("of a network behind")
	ends := spd.Selector{Local: mustRanges(outerB[0].String()), Remote: mustRanges(outerA[0].String())}
	for protocol, passes := range map[spd.Protocol]bool{spd.ProtocolAny: true, packet.ProtoIPv4: true, packet.ProtoUDP: false, packet.ProtoTCP: false} {
		_, b := newWholePair(t, espTransport)
		ends.Protocol = protocol
		b.apply(spd.Policy{Name: "p", Selector: ends, Action: spd.Protect, Peer: "peer"})
		g := sealedBy(t, inboundOf(t, espTransport.params(t, "b", outerB[0], outerA[0])), packet.ProtoIPv4, smuggled)
		if !passes {
			b.dropped(InSelector, func() int { return len(b.receive(g)) })
			continue
		}
		got := b.receive(g)
		if len(got) != 1 || got[0][9] != packet.ProtoIPv4 || !bytes.Equal(got[0][12:20], append(outerA[0].AsSlice(), outerB[0].AsSlice()...)) || !bytes.Equal(got[0][20:], smuggled) {
			t.Errorf("protocol %v: expected IP in IP between the two ends, saw %x; drops %v", protocol, got, nonzero(b.gw))
		}
	}
}

// RFC 4301 5.2: the next header that the peer names is a selector like the others.
func TestRFC4301_5_2_TransportNextHeaderMustFitTheSelectors(t *testing.T) {
	_, b := newWholePair(t, espTransport)
	b.apply(spd.Policy{Name: "p", Selector: spd.Selector{Local: mustRanges(outerB[0].String()), Remote: mustRanges(outerA[0].String()), Protocol: packet.ProtoUDP}, Action: spd.Protect, Peer: "peer"})
	udp := inner{src: outerA[0], dst: outerB[0], payload: "x"}.udp()[20:]
	sa := inboundOf(t, espTransport.params(t, "b", outerB[0], outerA[0]))
	b.dropped(InSelector, func() int { return len(b.receive(sealedBy(t, sa, packet.ProtoGRE, udp))) })
	_, b = newWholePair(t, espTransport)
	if got := b.receive(sealedBy(t, sa, packet.ProtoUDP, udp)); len(got) != 1 {
		t.Errorf("UDP: expected it delivered, saw %d; drops %v", len(got), nonzero(b.gw))
	}
}

// RFC 3948 5.2, two clients behind one NAT in transport mode, who have the NAT's
// address and so the same selectors: "Implementations MUST handle this situation,
// either by disallowing conflicting connections, or by other means." The first
// policy has them; the other's packets are refused, and no answer goes to it.
func TestRFC3948_5_2_TwoTransportModePeersBehindOneNAT(t *testing.T) {
	nat, server := outerA[0], outerB[0]
	_, b := newWholePair(t, espTransport)
	ends := spd.Selector{Local: mustRanges(server.String()), Remote: mustRanges(nat.String()), Protocol: spd.ProtocolAny}
	policies := []spd.Policy{{Name: "p", Selector: ends, Action: spd.Protect, Peer: "peer"}, {Name: "q", Selector: ends, Action: spd.Protect, Peer: "other"}}
	b.apply(policies...)
	list := espTransport.params(t, "b", server, nat)
	for i := range list {
		p := &list[i]
		enc, _ := p.Suite.KeyLen()
		p.Peer, p.SPI, p.EncryptionKey = "other", p.SPI+1, key("other "+p.Direction.String(), enc)
		p.Remote = netip.AddrPortFrom(nat, 20001)
	}
	if err := b.gw.Install(list...); err != nil {
		t.Fatal(err)
	}
	udp := inner{src: nat, dst: server, payload: "x"}.udp()[20:]
	b.dropped(InSelector, func() int { return len(b.receive(sealedBy(t, inboundOf(t, list), packet.ProtoUDP, udp))) })
	first := inboundOf(t, espTransport.params(t, "b", server, nat))
	if got := b.receive(sealedBy(t, first, packet.ProtoUDP, udp)); len(got) != 1 {
		t.Errorf("the first one's: expected it delivered, saw %d; drops %v", len(got), nonzero(b.gw))
	}
	if got := b.send(inner{src: server, dst: nat, payload: "answer"}.udp()); len(got) != 1 || got[0].Addr != netip.AddrPortFrom(nat, 4500) {
		t.Errorf("the answer: expected it at the first one's port, saw %+v", got)
	}
	table, err := spd.NewTable(policies)
	if err != nil {
		t.Fatal(err)
	}
	if shadows := table.Shadowed(); len(shadows) != 1 {
		t.Errorf("expected the second policy to be told of, saw %+v", shadows)
	}
}

// C-R23, as far as packets in clear reach a gateway: whatever arrives on its
// sockets and is no ESP or AH of an SA is dropped, also where it looks like what
// policy protects.
func TestCR23_ClearPacketsOnTheWireAreNeverDelivered(t *testing.T) {
	clear4, clear6 := fromB("clear"), inner{src: hostS, dst: host6, payload: "clear"}.udp()
	for _, p := range [][]byte{clear4, clear6} {
		r := newRig(t, options{})
		for _, wire := range []wireKind{wireUDP, wireRaw4, wireRaw6} {
			g := packet.Datagram{Mem: p, Len: len(p)}
			r.windowStays(func() { r.dropped(InNoSA, func() { r.delivers(0, r.receive(wire, g)) }) })
		}
	}
	_, b := newWholePair(t, ahTunnel)
	for _, p := range [][]byte{fromA("clear"), inner{src: host6, dst: hostS, payload: "clear"}.udp()} {
		b.dropped(InMalformed, func() int {
			slot := &b.in[wireWhole].grams[0]
			*slot = packet.Datagram{Mem: slot.Mem, Off: packet.Headroom, Len: copy(slot.Mem[packet.Headroom:], p), Addr: netip.AddrPortFrom(outerA[0], 0), Local: outerB[0]}
			b.in[wireWhole].walk(1)
			return len(b.tun.take())
		})
	}
}

// RFC 4301 5.2 step 4: what comes out of an SA must be what policy protects with
// this peer. What policy sends in clear, discards, or protects with another one
// is not, though the packet is authentic.
func TestRFC4301_5_2_AnSACarriesOnlyWhatItsPeersPoliciesProtect(t *testing.T) {
	lan := spd.Selector{Local: lanA, Remote: lanB, Protocol: spd.ProtocolAny}
	for _, first := range []spd.Policy{
		{Name: "clear", Selector: lan, Action: spd.Bypass},
		{Name: "none", Selector: lan, Action: spd.Discard},
		{Name: "c", Selector: lan, Action: spd.Protect, Peer: "c"},
	} {
		r := newRig(t, options{policies: append([]spd.Policy{first}, protectAll()...)})
		r.dropped(InSelector, func() { r.delivers(0, r.arrive(r.good(1))) })
		r.dropped(InSelector, func() {
			r.delivers(0, r.arrive(r.sealed(2, packet.ProtoIPv6, inner{src: hostS, dst: host6, payload: "x"}.udp())))
		})
	}
}

// RFC 3948 3.1.2 leaves tunnel mode's inner sums alone, and so do both walks: a
// TCP or UDP sum that was wrong arrives wrong, for the end host to see.
func TestRFC3948_3_1_2_BrokenInnerChecksumsStayBroken(t *testing.T) {
	for _, in := range []inner{{src: hostB, dst: hostA, tos: packet.ECT0, payload: "broken"}, {src: hostS, dst: host6, tos: packet.ECT0, payload: "broken"}} {
		p, next, at := in.udp(), uint8(packet.ProtoIPv4), 26
		if !in.src.Is4() {
			next, at = packet.ProtoIPv6, 46
		}
		p[at] ^= 0x55
		r := newRig(t, options{})
		wire := r.sealed(1, next, p)
		got := r.receive(wireUDP, packet.Datagram{Mem: wire, Len: len(wire), TOS: packet.CE}) // the IP header is changed
		if len(got) != 1 || !bytes.Equal(got[0][at-6:], p[at-6:]) {
			t.Errorf("inbound: expected % x with its sum as it was, saw % x", p, got)
		}
		in.src, in.dst = in.dst, in.src
		p = in.udp()
		p[at] ^= 0x55
		out := r.send(p)
		if open, err := r.opened(out[0], 1); err != nil || !bytes.Equal(open.Payload, p) {
			t.Errorf("outbound: expected % x, saw % x, %v", p, open.Payload, err)
		}
	}
}
