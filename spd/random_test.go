package spd

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/adit-ipsec/adit/internal/packet"
)

// The universe of random tests is small and dense, so that ranges overlap,
// nest and touch all the time, and holds the ends of every axis.

var (
	universe4     = addrs("0.0.0.0", "10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.255", "10.0.1.0", "255.255.255.255")
	universe6     = addrs("::", "2001:db8::", "2001:db8::1", "2001:db8::2", "2001:db8::ffff:ffff:ffff:ffff", "2001:db8:0:1::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
	universePorts = []uint16{0, 1, 2, 3, 0x0300, 0x0304, 0x0800, 0x08ff, 65534, 65535}
	flowProtocols = []uint8{0, packet.ProtoICMP, packet.ProtoTCP, packet.ProtoUDP, packet.ProtoGRE, packet.ProtoICMPv6, packet.ProtoSCTP, packet.ProtoUDPLite, 255}
)

func addrs(text ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range text {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func genAddrRange(v4 bool) *rapid.Generator[AddrRange] {
	universe := universe6
	if v4 {
		universe = universe4
	}
	return rapid.Custom(func(t *rapid.T) AddrRange {
		from := rapid.IntRange(0, len(universe)-1).Draw(t, "from")
		to := rapid.IntRange(from, len(universe)-1).Draw(t, "to")
		return AddrRange{universe[from], universe[to]}
	})
}

// genAddrs gives the families in families (1: IPv4, 2: IPv6, 3: both) a range
// or two each.
func genAddrs(t *rapid.T, families int, label string) []AddrRange {
	var out []AddrRange
	if families&1 != 0 {
		out = rapid.SliceOfN(genAddrRange(true), 1, 3).Draw(t, label+"4")
	}
	if families&2 != 0 {
		out = append(out, rapid.SliceOfN(genAddrRange(false), 1, 2).Draw(t, label+"6")...)
	}
	return out
}

var genPorts = rapid.Custom(func(t *rapid.T) Ports {
	p := Ports{Opaque: rapid.Bool().Draw(t, "opaque")}
	for range rapid.IntRange(0, 3).Draw(t, "ranges") {
		from := rapid.IntRange(0, len(universePorts)-1).Draw(t, "from")
		to := rapid.IntRange(from, len(universePorts)-1).Draw(t, "to")
		p.Ranges = append(p.Ranges, PortRange{universePorts[from], universePorts[to]})
	}
	return p
})

// genSelector makes valid selectors.
var genSelector = rapid.Custom(func(t *rapid.T) Selector {
	families := rapid.IntRange(1, 3).Draw(t, "families")
	s := Selector{Local: genAddrs(t, families, "local"), Remote: genAddrs(t, families, "remote"), Protocol: ProtocolAny}
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0, 1, 2, 3:
		s.Protocol = rapid.SampledFrom([]Protocol{packet.ProtoTCP, packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP}).Draw(t, "protocol")
		s.LocalPorts, s.RemotePorts = genPorts.Draw(t, "local ports"), genPorts.Draw(t, "remote ports")
		if s.Validate() != nil { // opaque on one side, ports on the other
			s.LocalPorts = Ports{}
		}
	case 4, 5:
		s.Protocol = rapid.SampledFrom([]Protocol{packet.ProtoICMP, packet.ProtoICMPv6}).Draw(t, "protocol")
		s.ICMP = genPorts.Draw(t, "icmp")
	case 6:
		s.Protocol = Protocol(rapid.SampledFrom(flowProtocols).Draw(t, "protocol"))
	case 7:
		s.Protocol = ProtocolOpaque
	case 8:
		s.RemotePorts.Opaque = true
	}
	if err := s.Validate(); err != nil {
		t.Fatalf("the generator made %v: %v", &s, err)
	}
	return s
})

var genFlow = rapid.Custom(func(t *rapid.T) packet.Flow {
	f := packet.Flow{Version: 4}
	universe := universe4
	switch rapid.IntRange(0, 4).Draw(t, "family") {
	case 0, 1:
		f.Version, universe = 6, universe6
	case 2:
		f.Version = 6 // IPv4-mapped addresses in an IPv6 packet
	}
	addr := func(label string) [16]byte {
		b := rapid.SampledFrom(universe).Draw(t, label).As16()
		b[15] += uint8(rapid.IntRange(0, 1).Draw(t, label+" off by"))
		return b
	}
	f.Src, f.Dst = addr("src"), addr("dst")
	if rapid.IntRange(0, 9).Draw(t, "obscured") == 0 {
		f.ProtocolOpaque, f.PortsOpaque = true, true
		return f
	}
	f.Protocol = rapid.SampledFrom(flowProtocols).Draw(t, "protocol")
	if rapid.IntRange(0, 4).Draw(t, "fragment") == 0 {
		f.PortsOpaque = true
		return f
	}
	if f.HasPorts() {
		f.SrcPort = rapid.SampledFrom(universePorts).Draw(t, "sport") + uint16(rapid.IntRange(0, 1).Draw(t, "sport off by"))
		f.DstPort = rapid.SampledFrom(universePorts).Draw(t, "dport") + uint16(rapid.IntRange(0, 1).Draw(t, "dport off by"))
		if Protocol(f.Protocol).IsICMP() {
			f.DstPort = f.SrcPort
		}
	}
	return f
})

func TestCP05_RandomTablesAnswerLikeTheLinearScan(t *testing.T) {
	var hits, misses int
	rapid.Check(t, func(t *rapid.T) {
		policies := make([]Policy, rapid.OneOf(rapid.IntRange(0, 8), rapid.IntRange(60, 200)).Draw(t, "policies"))
		for i := range policies {
			policies[i] = Policy{Name: fmt.Sprint(i), Selector: genSelector.Draw(t, "selector")}
		}
		table, err := NewTable(policies)
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			f := genFlow.Draw(t, "flow")
			for _, dir := range []Direction{Outbound, Inbound} {
				got, want := table.Lookup(dir, &f), table.LookupLinear(dir, &f)
				if got != want {
					t.Fatalf("%v %+v: policy %s, want %s", dir, f, nameOf(got), nameOf(want))
				}
				if got != nil {
					hits++
				} else {
					misses++
				}
			}
		}
	})
	// A generator that never hits, or always does, would prove nothing.
	if hits < misses/20 || misses < hits/20 {
		t.Errorf("%d hits and %d misses: the generator is out of balance", hits, misses)
	}
}

// Past 4,096 policies a set's summary is more than one word.
func TestCP05_LargeRandomTablesAnswerLikeTheLinearScan(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	four := func(v uint32) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(v >> 8), byte(v)}) }
	policies := make([]Policy, 9000)
	for i := range policies {
		p := &policies[i]
		addr := func() []AddrRange {
			// The narrower the range, the further back the first match.
			from := rng.Uint32N(1 << 16)
			return []AddrRange{{four(from), four(min(from+rng.Uint32N(1<<10), 1<<16-1))}}
		}
		p.Name = fmt.Sprint(i)
		p.Selector = Selector{Local: addr(), Remote: addr(), Protocol: ProtocolAny}
		if i%3 != 0 {
			p.Selector.Protocol = packet.ProtoTCP
			from := uint16(rng.Uint32())
			p.Selector.RemotePorts.Ranges = []PortRange{{from, max(from, from+uint16(rng.Uint32N(1<<14)))}}
		}
	}
	table, err := NewTable(policies)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]int{} // by summary word, -1 for no match
	for range 1500 {
		f := withPorts(four(rng.Uint32N(1<<16)).String(), uint16(rng.Uint32()), four(rng.Uint32N(1<<16)).String(), uint16(rng.Uint32()), packet.ProtoTCP)
		dir := Direction(rng.IntN(2))
		got, want := table.Lookup(dir, &f), table.LookupLinear(dir, &f)
		if got != want {
			t.Fatalf("%v %v: policy %s, want %s", dir, f, nameOf(got), nameOf(want))
		}
		if got == nil {
			seen[-1]++
		} else {
			seen[got.Index()/4096]++
		}
	}
	for word := -1; word <= 2; word++ {
		if seen[word] == 0 {
			t.Errorf("no flow was decided in summary word %d (-1: by no policy): %v", word, seen)
		}
	}
}

func TestSelectorTextRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSelector.Draw(t, "selector")
		text := s.String()
		back, err := ParseSelector(text)
		if err != nil {
			t.Fatalf("%q does not parse: %v", text, err)
		}
		if again := back.String(); again != text {
			t.Fatalf("printed %q, then %q", text, again)
		}
		if !s.Covers(&back) || !back.Covers(&s) {
			t.Fatalf("%q does not mean the same after parsing", text)
		}
	})
}

func TestAddrRangeTextRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom([]int{4, 16}).Draw(t, "size")
		b := rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "address")
		a, _ := netip.AddrFromSlice(b)
		p, err := a.Prefix(rapid.IntRange(0, size*8).Draw(t, "bits"))
		if err != nil {
			t.Fatal(err)
		}
		r := AddrRange{p.Addr(), lastAddr(p)}
		if rapid.Bool().Draw(t, "narrower") {
			r.From = a
		}
		if r.validate() != nil {
			return // an IPv4-mapped end
		}
		back, err := ParseAddrRange(r.String())
		if err != nil || back != r {
			t.Fatalf("%v-%v: printed %q, parsed as %v-%v, %v", r.From, r.To, r, back.From, back.To, err)
		}
	})
}

func TestPortAndICMPTextRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		end := rapid.OneOf(rapid.Uint16(), rapid.SampledFrom([]uint16{0, 255, 256, 0x08ff, 0xff00, 65535}))
		a, b := end.Draw(t, "a"), end.Draw(t, "b")
		r := PortRange{min(a, b), max(a, b)}
		if back, err := ParsePortRange(r.String()); err != nil || back != r {
			t.Fatalf("port %q parsed as %v, %v", r, back, err)
		}
		if back, err := ParseICMP(FormatICMP(r)); err != nil || back != r {
			t.Fatalf("ICMP %q parsed as %v, %v", FormatICMP(r), back, err)
		}
	})
}

// coverFlows is every flow that can tell two selectors of genSelector apart in
// what they cover: each address, port and protocol of the universe and the
// value behind it.
func coverFlows() []packet.Flow {
	var ports []uint16
	for _, p := range universePorts {
		ports = append(ports, p, p+1)
	}
	var transports []packet.Flow
	for _, protocol := range flowProtocols {
		f := packet.Flow{Protocol: protocol, PortsOpaque: true}
		transports = append(transports, f)
		f.PortsOpaque = false
		switch {
		case !f.HasPorts():
			transports = append(transports, f)
		case Protocol(protocol).IsICMP():
			for _, p := range ports {
				f.SrcPort, f.DstPort = p, p
				transports = append(transports, f)
			}
		default:
			for _, f.SrcPort = range ports {
				for _, f.DstPort = range ports {
					transports = append(transports, f)
				}
			}
		}
	}
	return append(transports, packet.Flow{ProtocolOpaque: true, PortsOpaque: true})
}

func TestCoversAgreesWithEveryFlow(t *testing.T) {
	transports := coverFlows()
	var yes, no int
	rapid.Check(t, func(t *rapid.T) {
		s, x := genSelector.Draw(t, "s"), genSelector.Draw(t, "x")
		if rapid.Bool().Draw(t, "alike") { // differ in one field only
			local, ports := s.Local, s.RemotePorts
			s = x
			if rapid.Bool().Draw(t, "address") {
				s.Local = local
			} else if s.Protocol.HasPorts() {
				s.RemotePorts = ports
			}
			if s.Validate() != nil {
				return
			}
		}
		want := coversByTrial(&s, &x, transports)
		if got := s.Covers(&x); got != want {
			t.Fatalf("%v\ncovers %v: %v, want %v", &s, &x, got, want)
		}
		if want {
			yes++
		} else {
			no++
		}
	})
	if yes < 5 || no < 5 {
		t.Errorf("%d pairs cover and %d do not: the generator is out of balance", yes, no)
	}
}

// coversByTrial asks both selectors about every flow. Addresses and the rest
// are asked apart, since they do not depend on each other.
func coversByTrial(s, x *Selector, transports []packet.Flow) bool {
	addrOnly := func(s *Selector) *Selector {
		return &Selector{Local: s.Local, Remote: s.Remote, Protocol: ProtocolAny}
	}
	anywhere := []AddrRange{any4, any6}
	rest := func(s *Selector) *Selector {
		c := *s
		c.Local, c.Remote = anywhere, anywhere
		return &c
	}
	holds := func(s, x *Selector, f *packet.Flow) bool { return !x.Match(Outbound, f) || s.Match(Outbound, f) }
	sa, xa, sr, xr := addrOnly(s), addrOnly(x), rest(s), rest(x)
	for _, universe := range [][]netip.Addr{universe4, universe6} {
		var ends []netip.Addr
		for _, a := range universe {
			ends = append(ends, a)
			if a.Next().IsValid() {
				ends = append(ends, a.Next())
			}
		}
		for _, src := range ends {
			for _, dst := range ends {
				f := packet.Flow{Src: src.As16(), Dst: dst.As16(), Version: 6, Protocol: packet.ProtoGRE}
				if src.Is4() {
					f.Version = 4
				}
				if !holds(sa, xa, &f) {
					return false
				}
			}
		}
	}
	for i := range transports {
		f := transports[i]
		f.Version = 6
		if !holds(sr, xr, &f) {
			return false
		}
	}
	return true
}
