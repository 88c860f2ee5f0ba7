package fuzz

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/spd"
)

// spdBytes hands out the fuzzer's bytes one by one, then zeros.
type spdBytes struct{ data []byte }

func (b *spdBytes) next() byte {
	if len(b.data) == 0 {
		return 0
	}
	v := b.data[0]
	b.data = b.data[1:]
	return v
}

// below is a number 0..n-1, n <= 256.
func (b *spdBytes) below(n int) int { return int(b.next()) % n }

// addr is one of 16 addresses in the middle of a family's space, or its last
// one, so that ranges meet all the time.
func (b *spdBytes) addr(v4 bool) netip.Addr {
	n := b.next()
	switch {
	case n >= 0xf0 && v4:
		return netip.AddrFrom4([4]byte{255, 255, 255, 255})
	case n >= 0xf0:
		return netip.AddrFrom16([16]byte{0: 0xff, 1: 0xff, 15: 0xff})
	case v4:
		return netip.AddrFrom4([4]byte{10, 0, 0, n % 16})
	}
	return netip.AddrFrom16([16]byte{0: 0x20, 1: 0x01, 7: n >> 6, 15: n % 16})
}

func (b *spdBytes) addrs(families int) []spd.AddrRange {
	var out []spd.AddrRange
	for family, v4 := range []bool{true, false} {
		if families>>family&1 == 0 {
			continue
		}
		for range 1 + b.below(2) {
			r := spd.AddrRange{From: b.addr(v4), To: b.addr(v4)}
			if r.To.Less(r.From) {
				r.From, r.To = r.To, r.From
			}
			out = append(out, r)
		}
	}
	return out
}

// port is a number that is also an ICMP type and code, with both ends.
func (b *spdBytes) port() uint16 {
	n := b.next()
	if n >= 0xf8 {
		return 65535 - uint16(n-0xf8)
	}
	return uint16(n)
}

func (b *spdBytes) ports() spd.Ports {
	n := b.next()
	p := spd.Ports{Opaque: n&1 != 0}
	for range n >> 1 & 3 {
		from, to := b.port(), b.port()
		p.Ranges = append(p.Ranges, spd.PortRange{From: min(from, to), To: max(from, to)})
	}
	return p
}

var spdProtocols = []spd.Protocol{
	packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoICMPv6, packet.ProtoSCTP,
	packet.ProtoUDPLite, packet.ProtoGRE, 0, 255, spd.ProtocolAny, spd.ProtocolOpaque,
}

func (b *spdBytes) selector() spd.Selector {
	families := 1 + b.below(3)
	s := spd.Selector{Local: b.addrs(families), Remote: b.addrs(families), Protocol: spdProtocols[b.below(len(spdProtocols))]}
	switch {
	case s.Protocol.HasPorts():
		s.LocalPorts, s.RemotePorts = b.ports(), b.ports()
	case s.Protocol.IsICMP():
		s.ICMP = b.ports()
	case s.Protocol < 0:
		s.LocalPorts.Opaque = b.next()&1 != 0
	}
	return s
}

func (b *spdBytes) flow() packet.Flow {
	n := b.next()
	v4 := n&1 == 0
	f := packet.Flow{Version: 6, ProtocolOpaque: n&2 != 0 && n&4 != 0, PortsOpaque: n&2 != 0}
	if v4 && n&8 == 0 { // with bit 3: IPv4-mapped addresses in an IPv6 packet
		f.Version = 4
	}
	f.Src, f.Dst = b.addr(v4).As16(), b.addr(v4).As16()
	if p := spdProtocols[b.below(len(spdProtocols))]; p >= 0 {
		f.Protocol = uint8(p)
	}
	f.SrcPort, f.DstPort = b.port(), b.port()
	if spd.Protocol(f.Protocol).IsICMP() {
		f.DstPort = f.SrcPort
	}
	return f
}

// Property: NewTable accepts every list of valid policies; for every flow and
// either direction, Lookup returns the very policy that LookupLinear returns; a flow
// and its reverse in the other direction get the same policy; and no policy
// that Shadowed names is ever the answer.
func FuzzSPDAgainstLinear(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		b := &spdBytes{data}
		var flows [8]packet.Flow
		for i := range flows {
			flows[i] = b.flow()
		}
		var policies []spd.Policy
		for len(b.data) > 0 && len(policies) < 200 {
			p := spd.Policy{Name: fmt.Sprint(len(policies)), Selector: b.selector()}
			if p.Validate() == nil {
				policies = append(policies, p)
			}
		}
		table, err := spd.NewTable(policies)
		if err != nil {
			t.Fatalf("each policy is valid and the table is not: %v", err)
		}
		shadowed := map[*spd.Policy]bool{}
		for _, s := range table.Shadowed() {
			shadowed[s.Policy] = true
		}
		for _, flow := range flows {
			for _, dir := range []spd.Direction{spd.Outbound, spd.Inbound} {
				got, want := table.Lookup(dir, &flow), table.LookupLinear(dir, &flow)
				if got != want {
					t.Fatalf("%v %+v: Lookup gives %+v, LookupLinear gives %+v", dir, flow, got, want)
				}
				if shadowed[got] {
					t.Fatalf("%v %+v: policy %s is the answer and is said to be shadowed", dir, flow, got.Name)
				}
				reverse := flow.Reverse()
				if back := table.Lookup(1-dir, &reverse); back != got {
					t.Fatalf("%v %+v: %+v, and its reverse gets %+v", dir, flow, got, back)
				}
			}
		}
	})
}

// Property: a text that ParseSelector accepts gives a valid selector, whose
// text parses again to a selector with the same text and the same meaning; no
// text makes it panic.
func FuzzSelectorText(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		s, err := spd.ParseSelector(text)
		if err != nil {
			return
		}
		if err := s.Validate(); err != nil {
			t.Fatalf("ParseSelector(%q) gave an invalid selector: %v", text, err)
		}
		printed := s.String()
		again, err := spd.ParseSelector(printed)
		if err != nil {
			t.Fatalf("%q printed as %q, which does not parse: %v", text, printed, err)
		}
		if twice := again.String(); twice != printed {
			t.Fatalf("%q printed as %q, then as %q", text, printed, twice)
		}
		if !s.Covers(&again) || !again.Covers(&s) {
			t.Fatalf("%q and %q do not mean the same", text, printed)
		}
	})
}
