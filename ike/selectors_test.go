package ike

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/spd"
)

func selectors(t testing.TB, lines ...string) []spd.Selector {
	t.Helper()
	var out []spd.Selector
	for _, line := range lines {
		s, err := spd.ParseSelector(line)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		out = append(out, s)
	}
	return out
}

// pairOf is what the selectors are on the wire, from this end.
func pairOf(t *testing.T, lines ...string) tsPair {
	t.Helper()
	p, err := policyTS(selectors(t, lines...))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// tsMatch is what RFC 7296 3.13.1 says of one traffic selector, and no more.
func tsMatch(s wire.Selector, addr netip.Addr, port uint16, f *packet.Flow) bool {
	if s.Protocol != 0 && (f.ProtocolOpaque || s.Protocol != f.Protocol) {
		return false
	}
	if s.From.Compare(addr) > 0 || addr.Compare(s.To) > 0 {
		return false
	}
	// Of any protocol it speaks of ports, which ICMP has none of.
	opaque := f.ProtocolOpaque || f.PortsOpaque || !f.HasPorts() || s.Protocol == 0 && f.Protocol == 1
	switch (tsPorts{s.FromPort, s.ToPort}) {
	case portsAny:
		return true
	case portsOpaque:
		return opaque
	}
	return !opaque && s.FromPort <= port && port <= s.ToPort
}

func (p tsPair) match(f *packet.Flow) bool {
	return slices.ContainsFunc(p.local, func(s wire.Selector) bool { return tsMatch(s, f.SrcAddr(), f.SrcPort, f) }) &&
		slices.ContainsFunc(p.remote, func(s wire.Selector) bool { return tsMatch(s, f.DstAddr(), f.DstPort, f) })
}

func TestRFC7296_3_13_PolicyOnTheWire(t *testing.T) {
	for _, c := range []struct{ selectors, local, remote string }{
		{"local=10.1.0.0/24 remote=any", "10.1.0.0/24", "0.0.0.0/0, ::/0"},
		{"local=10.1.8.10-10.1.8.99 remote=10.2.0.1 protocol=tcp remote_ports=80,443-450", "10.1.8.10-10.1.8.99[tcp]", "10.2.0.1[tcp/80-80], 10.2.0.1[tcp/443-450]"},
		{"local=10.1.0.0/24 remote=10.2.0.0/24 protocol=udp local_ports=opaque remote_ports=opaque", "10.1.0.0/24[udp/opaque]", "10.2.0.0/24[udp/opaque]"},
		{"local=10.1.0.0/24 remote=10.2.0.0/24 protocol=icmp icmp=8", "10.1.0.0/24[icmp/2048-2303]", "10.2.0.0/24[icmp/2048-2303]"},
		{"local=10.1.0.0/24 remote=10.2.0.0/24 protocol=gre", "10.1.0.0/24[gre]", "10.2.0.0/24[gre]"},
		{"local=10.1.0.0/24 remote=10.2.0.0/24 protocol=any local_ports=opaque", "10.1.0.0/24[any/opaque]", "10.2.0.0/24"},
	} {
		p := pairOf(t, c.selectors)
		if tsText(p.local) != c.local || tsText(p.remote) != c.remote {
			t.Errorf("%s: %s", c.selectors, p)
		}
		back, err := saSelectors(p)
		if err != nil || len(back) != 1 {
			t.Errorf("%s: back %v %v", c.selectors, back, err)
		}
	}
}

func TestWhatTrafficSelectorsCannotSayIsRefused(t *testing.T) {
	for want, lines := range map[error][]string{
		errTSOpaque:  {"local=10.1.0.0/24 remote=any protocol=opaque"},
		errTSProduct: {"local=10.1.0.0/24 remote=10.2.0.0/24", "local=10.3.0.0/24 remote=10.4.0.0/24"},
	} {
		if _, err := policyTS(selectors(t, lines...)); err != want {
			t.Errorf("%v: %v", lines, err)
		}
	}
	if _, err := policyTS(selectors(t, "local=10.1.0.0/24 remote=10.2.0.0/24", "local=10.3.0.0/24 remote=10.2.0.0/24")); err != nil {
		t.Errorf("a product in two selectors: %v", err)
	}
	if _, err := policyTS(selectors(t, "local=10.1.0.0/24 remote=10.2.0.0/24 protocol=tcp", "local=10.1.0.0/24 remote=10.4.0.0/24 protocol=udp")); err != nil {
		t.Errorf("two protocols keep the lists apart: %v", err)
	}
}

func TestRFC7296_2_9_TheFirstSelectorIsThePacket(t *testing.T) {
	policy := selectors(t, "local=10.1.0.0/16 remote=10.2.0.0/16")
	flow := packet.Flow{Src: netip.MustParseAddr("10.1.0.7").As16(), Dst: netip.MustParseAddr("10.2.0.9").As16(), Version: 4, Protocol: 6, SrcPort: 4000, DstPort: 80}
	p, err := offerTS(policy, flow)
	if want := "10.1.0.7[tcp/4000-4000], 10.1.0.0/16 === 10.2.0.9[tcp/80-80], 10.2.0.0/16"; err != nil || p.String() != want {
		t.Errorf("%s %v, want %s", p, err, want)
	}
	flow.PortsOpaque = true
	if p, _ = offerTS(policy, flow); p.String() != "10.1.0.7[tcp], 10.1.0.0/16 === 10.2.0.9[tcp], 10.2.0.0/16" {
		t.Errorf("a fragment: %s", p)
	}
	flow.Dst = netip.MustParseAddr("10.3.0.9").As16()
	if p, _ = offerTS(policy, flow); p.String() != "10.1.0.0/16 === 10.2.0.0/16" {
		t.Errorf("a packet of another policy: %s", p)
	}
}

func TestRFC7296_2_9_Narrow(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy []string
		theirs tsPair
		want   string // "": nothing in common
		more   bool
	}{
		{"all", []string{"local=10.2.0.0/16 remote=10.1.0.0/16"}, pairOf(t, "local=10.2.0.0/16 remote=10.1.0.0/16"), "10.2.0.0/16 === 10.1.0.0/16", false},
		{"a part", []string{"local=10.2.4.0/24 remote=10.1.0.0/16"}, pairOf(t, "local=10.2.0.0/16 remote=10.1.9.0/24"), "10.2.4.0/24 === 10.1.9.0/24", false},
		{"of any", []string{"local=10.2.0.0/16 remote=10.1.0.0/16 protocol=tcp local_ports=443"}, pairOf(t, "local=any remote=any"), "10.2.0.0/16[tcp/443-443] === 10.1.0.0/16[tcp]", false},
		{"nothing", []string{"local=10.2.0.0/16 remote=10.1.0.0/16"}, pairOf(t, "local=10.3.0.0/16 remote=10.1.0.0/16"), "", false},
		{"other protocols", []string{"local=10.2.0.0/16 remote=10.1.0.0/16 protocol=tcp"}, pairOf(t, "local=10.2.0.0/16 remote=10.1.0.0/16 protocol=udp"), "", false},
		{"the packet's part", []string{"local=10.2.0.0/16 remote=10.1.0.0/16", "local=10.4.0.0/16 remote=10.3.0.0/16"},
			tsPair{slices.Concat(pairOf(t, "local=10.4.0.9 remote=any").local, pairOf(t, "local=10.0.0.0/8 remote=any").local), pairOf(t, "local=any remote=10.3.0.7 protocol=tcp remote_ports=99").remote},
			"10.4.0.0/16 === 10.3.0.7[tcp/99-99]", false},
		{"one of two", []string{"local=10.2.0.0/16 remote=10.1.0.0/16", "local=10.4.0.0/16 remote=10.3.0.0/16"}, pairOf(t, "local=any remote=any"), "10.2.0.0/16 === 10.1.0.0/16", true},
	} {
		got, more, ok := narrowTS(selectors(t, c.policy...), c.theirs)
		if text := got.String(); ok != (c.want != "") || ok && text != c.want || more != c.more {
			t.Errorf("%s: %s more=%v ok=%v, want %s more=%v", c.name, text, more, ok, c.want, c.more)
		}
		if ok && !tsWithin(got, c.theirs) {
			t.Errorf("%s: %s is not in %s", c.name, got, c.theirs)
		}
	}
}

func TestUnusableTrafficSelectorsAreLeftOut(t *testing.T) {
	addr := netip.MustParseAddr
	bad := []wire.Selector{
		{Unknown: true},
		{From: addr("10.0.0.2"), To: addr("10.0.0.1"), ToPort: 65535},
		{From: addr("10.0.0.0"), To: addr("::1"), ToPort: 65535},
		{From: addr("10.0.0.0"), To: addr("10.0.0.1"), FromPort: 80, ToPort: 80},               // ports of any protocol
		{Protocol: 47, From: addr("10.0.0.0"), To: addr("10.0.0.1"), FromPort: 80, ToPort: 80}, // ports of GRE
		{Protocol: 6, From: addr("10.0.0.0"), To: addr("10.0.0.1"), FromPort: 81, ToPort: 80},
	}
	good := pairOf(t, "local=10.0.0.0/24 remote=10.0.0.0/24")
	if _, _, ok := narrowTS(selectors(t, "local=any remote=any"), tsPair{bad, good.remote}); ok {
		t.Error("agreed to selectors that say nothing")
	}
	got, _, ok := narrowTS(selectors(t, "local=any remote=any"), tsPair{append(bad, good.local...), good.remote})
	if !ok || got.String() != good.String() {
		t.Errorf("%s %v", got, ok)
	}
}

// ---- properties: small worlds, so that things meet often

func drawAddrs(t *rapid.T, name string) []spd.AddrRange {
	var out []spd.AddrRange
	for i := range rapid.IntRange(1, 3).Draw(t, name) {
		from := rapid.IntRange(0, 15).Draw(t, fmt.Sprint(name, "from", i))
		to := rapid.IntRange(from, 15).Draw(t, fmt.Sprint(name, "to", i))
		at := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}) }
		if rapid.IntRange(0, 7).Draw(t, "v6") == 0 {
			at = func(n int) netip.Addr { return netip.AddrFrom16([16]byte{0x20, 15: byte(n)}) }
		}
		out = append(out, spd.AddrRange{From: at(from), To: at(to)})
	}
	return out
}

func drawPorts(t *rapid.T, name string) spd.Ports {
	var p spd.Ports
	switch rapid.IntRange(0, 4).Draw(t, name) {
	case 0, 1:
		return p
	case 2:
		p.Opaque = true
	}
	for i := range rapid.IntRange(0, 2).Draw(t, name+"n") {
		from := rapid.IntRange(0, 7).Draw(t, fmt.Sprint(name, "from", i))
		p.Ranges = append(p.Ranges, spd.PortRange{From: uint16(from), To: uint16(rapid.IntRange(from, 7).Draw(t, "to"))})
	}
	return p
}

func drawSelector(t *rapid.T) spd.Selector {
	for {
		s := spd.Selector{Local: drawAddrs(t, "local"), Remote: drawAddrs(t, "remote")}
		s.Protocol = rapid.SampledFrom([]spd.Protocol{spd.ProtocolAny, 6, 17, 1, 47}).Draw(t, "protocol")
		switch {
		case s.Protocol.HasPorts():
			s.LocalPorts, s.RemotePorts = drawPorts(t, "lp"), drawPorts(t, "rp")
		case s.Protocol.IsICMP():
			s.ICMP = drawPorts(t, "icmp")
		case s.Protocol == spd.ProtocolAny && rapid.Bool().Draw(t, "opaque"):
			s.LocalPorts.Opaque = true
		}
		if s.Validate() == nil {
			return s
		}
	}
}

func drawFlow(t *rapid.T) packet.Flow {
	f := packet.Flow{Version: 4, Protocol: rapid.SampledFrom([]uint8{6, 17, 1, 47, 50}).Draw(t, "proto")}
	at := func(name string) [16]byte {
		return netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(0, 15).Draw(t, name))}).As16()
	}
	if rapid.IntRange(0, 7).Draw(t, "v6") == 0 {
		f.Version = 6
		at = func(name string) [16]byte { return [16]byte{0x20, 15: byte(rapid.IntRange(0, 15).Draw(t, name))} }
	}
	f.Src, f.Dst = at("src"), at("dst")
	f.SrcPort, f.DstPort = uint16(rapid.IntRange(0, 8).Draw(t, "sp")), uint16(rapid.IntRange(0, 8).Draw(t, "dp"))
	if f.Protocol == 1 {
		f.DstPort = f.SrcPort
	}
	f.PortsOpaque = rapid.IntRange(0, 4).Draw(t, "fragment") == 0
	f.ProtocolOpaque = f.Version == 6 && rapid.IntRange(0, 4).Draw(t, "chain") == 0
	return f
}

func TestPropertySelectorsMeanTheSameOnTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSelector(t)
		p, err := policyTS([]spd.Selector{s})
		if err != nil {
			t.Fatalf("%s: %v", s.String(), err)
		}
		back, err := saSelectors(p)
		if err != nil {
			t.Fatalf("%s: %v", s.String(), err)
		}
		for range 20 {
			f := drawFlow(t)
			want := s.Match(spd.Outbound, &f)
			if got := p.match(&f); got != want {
				t.Fatalf("%s: %v: on the wire %v (%s), here %v", s.String(), f, got, p, want)
			}
			if got := matchesAny(back, &f); got != want {
				t.Fatalf("%s: %v: of the SA %v (%v), of the policy %v", s.String(), f, got, back, want)
			}
		}
	})
}

func TestPropertyNarrowing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var policy, theirs []spd.Selector
		for range rapid.IntRange(1, 3).Draw(t, "ours") {
			policy = append(policy, drawSelector(t))
		}
		theirs = append(theirs, drawSelector(t))
		offer, err := policyTS(theirs)
		if err != nil {
			t.Skip()
		}
		if rapid.Bool().Draw(t, "first") {
			offer, err = offerTS(theirs, drawFlow(t))
			if err != nil {
				t.Fatal(err)
			}
		}
		answer, more, ok := narrowTS(policy, offer)
		if ok && !tsWithin(answer, offer) {
			t.Fatalf("%s is not within %s", answer, offer)
		}
		for range 30 {
			f := drawFlow(t)
			both := offer.match(&f) && matchesAny(policy, &f)
			got := ok && answer.match(&f)
			if got && !both {
				t.Fatalf("%v: agreed (%s), but not both ends' (offer %s, policy %v)", f, answer, offer, policy)
			}
			if both && !got && !more {
				t.Fatalf("%v: both ends' (offer %s, policy %v), but not agreed: %s", f, offer, policy, answer)
			}
			if both && len(policy) == 1 && !got {
				t.Fatalf("%v: one selector is not narrowed to the widest: %s", f, answer)
			}
		}
	})
}

func TestPropertyCover(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawSelector(t), drawSelector(t)
		whole, _ := policyTS([]spd.Selector{a})
		part, _ := policyTS([]spd.Selector{b})
		covered := tsCovers(whole.local, part.local[0])
		for range 30 {
			f := drawFlow(t)
			in := slices.ContainsFunc(whole.local, func(s wire.Selector) bool { return tsMatch(s, f.SrcAddr(), f.SrcPort, &f) })
			if covered && !in && tsMatch(part.local[0], f.SrcAddr(), f.SrcPort, &f) {
				t.Fatalf("%v: matches %s, covered by %s", f, tsOneText(part.local[0]), tsText(whole.local))
			}
		}
	})
}
