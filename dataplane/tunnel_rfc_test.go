package dataplane

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// One test for each rule of RFC 4301 5.1.2, 6040 and 6438 on the outer headers
// that adit makes itself: those of AH, whole packets.

var ahTunnel = wholeSet{protocol: "ah", encap: sad.EncapNone, ah: "sha256"}

// over is s over IPv6, or over IPv4.
func (s wholeSet) over(v6 bool) wholeSet {
	s.v6 = v6
	return s
}

// outer takes one packet through the outbound walk and returns what left.
func (e *end) outer(p []byte) []byte {
	e.t.Helper()
	got := e.send(p)
	if len(got) != 1 || got[0].wire != wireWhole {
		e.t.Fatalf("expected one whole packet, saw %+v; drops %v", got, nonzero(e.gw))
	}
	return got[0].Bytes()
}

// RFC 6438 3: the outer flow label is chosen by the flow of the inner packet: the
// same for all packets of a flow, and others for others, so that they spread.
func TestRFC6438_3_OuterFlowLabelIsOfTheInnerFlow(t *testing.T) {
	a, _ := newWholePair(t, ahTunnel.over(true))
	label := func(p []byte) uint32 { return binary.BigEndian.Uint32(a.outer(p)) & 0xfffff }
	for _, six := range []bool{false, true} {
		seen := map[uint32]bool{}
		for port := range uint16(64) {
			in := inner{src: hostA, dst: hostB, sport: 1000 + port, dport: 80, payload: "x"}
			if six {
				in.src, in.dst = host6, hostS
			}
			first := label(in.udp())
			in.payload, in.tos, in.ttl = "another", 46<<2, 7
			if second := label(in.udp()); second != first {
				t.Errorf("port %d: two packets of one flow have labels %#x and %#x", port, first, second)
			}
			seen[first] = true
		}
		if len(seen) < 60 { // of 2^20: two that meet are one run in 500
			t.Errorf("64 flows over IPv6 %v: expected as many flow labels, saw %d", six, len(seen))
		}
	}
}

// RFC 4301 8.1: "it MUST be possible to configure the implementation's treatment
// of the DF bit (set, clear, copy from inner header) for each SA." Of ESP the
// socket is told, of AH it is in the header made here.
func TestRFC4301_8_1_DFOfEveryModeAndInnerPacket(t *testing.T) {
	none := inner{src: hostA, dst: hostB, payload: "x"}
	df, six := none, inner{src: host6, dst: hostS, payload: "x"}
	df.df = true
	for _, c := range []struct {
		mode sad.DFMode
		want [3]bool // inner IPv4 with DF, without, IPv6
	}{
		{sad.DFCopy, [3]bool{true, false, false}},
		{sad.DFSet, [3]bool{true, true, true}},
		{sad.DFClear, [3]bool{false, false, false}},
	} {
		s := ahTunnel
		s.df = c.mode
		r := newRig(t, options{tunnel: sad.Tunnel{DF: c.mode}})
		a, _ := newWholePair(t, s)
		for i, p := range []inner{df, none, six} {
			if got := r.send(p.udp()); len(got) != 1 || got[0].DF != c.want[i] {
				t.Errorf("ESP, %v, packet %d: expected DF %v, saw %+v", c.mode, i, c.want[i], got)
			}
			if got := a.outer(p.udp())[6]&0x40 != 0; got != c.want[i] {
				t.Errorf("AH, %v, packet %d: expected DF %v, saw %v", c.mode, i, c.want[i], got)
			}
		}
	}
}

// RFC 4301 5.1.2.1: the outer header is "constructed", its options are "never
// copied", its addresses, TTL and protocol are the SA's, and the inner header is
// "no change".
func TestRFC4301_5_1_2_OuterHeaderIsConstructed(t *testing.T) {
	udp := inner{src: hostA, dst: hostB, ttl: 1, payload: "x"}.udp()
	options := bytes.Clone(udp[:20])
	options[0] = 0x46
	options = append(append(options, 0x94, 4, 0, 0), udp[20:]...) // router alert
	packet.SetLength(options[:24], len(options))
	ip6 := &layers.IPv6{Version: 6, HopLimit: 1, NextHeader: layers.IPProtocolIPv6HopByHop, SrcIP: host6.AsSlice(), DstIP: hostS.AsSlice()}
	hop := gopacket.Payload(append([]byte{packet.ProtoUDP, 0, 5, 2, 0, 0, 1, 0}, inner{src: host6, dst: hostS}.udp()[40:]...))
	for name, p := range map[string][]byte{"IPv4": udp, "IPv4 with an option": options, "IPv6 with an option": serialize(ip6, hop)} {
		for _, v6 := range []bool{false, true} {
			a, b := newWholePair(t, ahTunnel.over(v6))
			wire := a.outer(p)
			var want []byte // the outer header, but for identification, DF and flow label
			if v6 {
				want = []byte{0x60, 0, 0, 0, 0, 0, packet.ProtoAH, outerTTL}
				wire[1], wire[2], wire[3] = wire[1]&0xf0, 0, 0
			} else {
				want = []byte{0x45, 0, 0, 0, 0, 0, 0, 0, outerTTL, packet.ProtoAH, 0, 0}
				wire[4], wire[5] = 0, 0
			}
			want = append(append(want, a.addr.AsSlice()...), b.addr.AsSlice()...)
			packet.SetLength(want, len(wire))
			if !bytes.Equal(wire[:len(want)], want) {
				t.Errorf("%s, outside IPv6 %v: outer header: expected %x, saw %x", name, v6, want, wire[:len(want)])
			}
			if !bytes.HasSuffix(wire, p) {
				t.Errorf("%s, outside IPv6 %v: the inner packet was changed: expected %x, saw %x", name, v6, p, wire)
			}
		}
	}
}

// RFC 6864 4.3: "Sources emitting non-atomic datagrams MUST NOT repeat IPv4 ID
// values"; and 0 would be replaced by the kernel, behind the ICV's back.
func TestRFC6864_OuterPacketsThatMayBeCutHaveIdentifications(t *testing.T) {
	a, _ := newWholePair(t, ahTunnel)
	a.gw.out[0].maker.ident = 0xfff0 // over the end of the 16 bits
	seen := map[uint16]bool{0: true}
	for i := range 100 {
		wire := a.outer(fromA("x"))
		if id := binary.BigEndian.Uint16(wire[4:]); wire[6]&0x40 != 0 || seen[id] {
			t.Fatalf("packet %d: DF or identification %d, 0 or used before", i, id)
		} else {
			seen[id] = true
		}
	}
}

// RFC 6040 4.1: normal mode copies the ECN field outward, compatibility mode
// clears it, whatever it is.
func TestRFC6040_4_1_EncapsulationOfEveryCodepoint(t *testing.T) {
	for _, mode := range []sad.ECNMode{sad.ECNNormal, sad.ECNCompat} {
		for ecn := range uint8(4) {
			want := ecn
			if mode == sad.ECNCompat {
				want = packet.NotECT
			}
			for _, in := range []inner{{src: hostA, dst: hostB, tos: ecn}, {src: host6, dst: hostS, tos: ecn}} {
				r := newRig(t, options{tunnel: sad.Tunnel{ECN: mode}})
				if got := r.send(in.udp()); len(got) != 1 || got[0].TOS != want {
					t.Errorf("ESP, %v: inner %d: expected %d outside, saw %+v", mode, ecn, want, got)
				}
				for _, v6 := range []bool{false, true} {
					a, _ := newWholePair(t, ahTunnel.over(v6))
					a.gw.sas.Load().Outbound("peer", "p").Tunnel.ECN = mode
					wire := a.outer(in.udp())
					class := wire[1]
					if v6 {
						class = wire[0]<<4 | wire[1]>>4
					}
					if class != want {
						t.Errorf("AH, %v, outside IPv6 %v: inner %d: expected %d outside, saw %d", mode, v6, ecn, want, class)
					}
				}
			}
		}
	}
}

// RFC 6040 4.2, all sixteen cells of figure 4 again, for what AH carries, where
// the field is the outer header's own; and RFC 4301 5.1.2.1: the DSCP of the
// outer header, which anybody on the way can set, is not taken over.
func TestRFC6040_4_2_DecapsulationUnderAH(t *testing.T) {
	for in := range uint8(4) {
		for out := range uint8(4) {
			want, ok := [4][4]uint8{ // [inner][outer], in the order Not-ECT, ECT(1), ECT(0), CE
				{0, 0, 0, 0}, {1, 1, 1, 3}, {2, 1, 2, 3}, {3, 3, 3, 3},
			}[in][out], in != packet.NotECT || out != packet.CE
			for _, v6 := range []bool{false, true} {
				t.Run(fmt.Sprintf("inner %d outer %d IPv6 %v", in, out, v6), func(t *testing.T) {
					a, b := newWholePair(t, ahTunnel.over(v6))
					g := a.send(inner{src: hostA, dst: hostB, tos: 46<<2 | in}.udp())[0]
					g.Mem = bytes.Clone(g.Bytes())
					g.Off = 0
					class := 10<<2 | out // another DSCP
					if v6 {
						g.Mem[0], g.Mem[1] = 0x60|class>>4, class<<4
					} else {
						g.Mem[1] = class
					}
					if !ok {
						b.dropped(InECN, func() int { return len(b.receive(g)) })
						return
					}
					if got := b.receive(g); len(got) != 1 || got[0][1] != 46<<2|want {
						t.Errorf("expected traffic class %#x inside, saw %x; drops %v", 46<<2|want, got, nonzero(b.gw))
					}
				})
			}
		}
	}
}
