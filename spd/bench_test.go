package spd

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
)

// benchTable is n disjoint policies: each its own /24 on both sides, as a hub
// with n branches has them, with ports in every fourth.
func benchTable(t testing.TB, n int) *Table {
	t.Helper()
	table, err := NewTable(benchPolicies(n))
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func benchPolicies(n int) []Policy {
	policies := make([]Policy, n)
	for i := range policies {
		p := &policies[i]
		p.Name, p.Action, p.Peer = fmt.Sprintf("p%d", i), Protect, "b"
		p.Selector = Selector{
			Local:    []AddrRange{net24(10, i)},
			Remote:   []AddrRange{net24(20, i)},
			Protocol: ProtocolAny,
		}
		if i%4 == 3 {
			p.Selector.Protocol = packet.ProtoTCP
			p.Selector.RemotePorts.Ranges = []PortRange{{1, 1023}, {uint16(2000 + i%1000), 65535}}
		}
	}
	return policies
}

func net24(first byte, i int) AddrRange {
	p := netip.PrefixFrom(netip.AddrFrom4([4]byte{first, byte(i >> 8), byte(i), 0}), 24)
	return AddrRange{p.Addr(), lastAddr(p)}
}

// benchFlows is one flow that hits each of benchTable's policies.
func benchFlows(n int) []packet.Flow {
	flows := make([]packet.Flow, n)
	for i := range flows {
		flows[i] = flowAt(i)
	}
	return flows
}

func flowAt(i int) packet.Flow {
	return withPorts(
		fmt.Sprintf("10.%d.%d.7", i>>8, i&0xff), 40000,
		fmt.Sprintf("20.%d.%d.9", i>>8, i&0xff), 443, packet.ProtoTCP)
}

// crossTable is the classifier's worst case: with n policies, a flow from one
// local to one remote address finds in every word of 64 a policy for the one
// and a policy for the other, and none for both.
func crossTable(t testing.TB, n int) *Table {
	t.Helper()
	policies := make([]Policy, n)
	for i := range policies {
		local, remote := "10.0.0.1", "20.0.0.2"
		if i%2 == 1 {
			local, remote = "10.0.0.2", "20.0.0.1"
		}
		policies[i] = Policy{Name: fmt.Sprintf("p%d", i), Selector: mustSelector(t, fmt.Sprintf("local=%s remote=%s protocol=any", local, remote))}
	}
	table, err := NewTable(policies)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// crossTable5 is the same on all five axes: each policy fails the flow on one
// axis, so that four sets of five always agree.
func crossTable5(t testing.TB, n int) *Table {
	t.Helper()
	policies := make([]Policy, n)
	for i := range policies {
		v := [5]any{"10.0.0.1", "20.0.0.1", "udp", 1, 1}
		v[i%5] = [5]any{"10.0.0.2", "20.0.0.2", "tcp", 2, 2}[i%5]
		policies[i] = Policy{Name: fmt.Sprintf("p%d", i), Selector: mustSelector(t, fmt.Sprintf("local=%v remote=%v protocol=%v local_ports=%v remote_ports=%v", v[:]...))}
	}
	table, err := NewTable(policies)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// overlapPolicies is n policies whose ranges all overlap at random on every
// axis: the most memory.
func overlapPolicies(n int) []Policy {
	rng := rand.New(rand.NewPCG(1, 2))
	addrs := func() []AddrRange {
		a, b := rng.Uint32(), rng.Uint32()
		if a > b {
			a, b = b, a
		}
		four := func(v uint32) netip.Addr {
			return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
		}
		return []AddrRange{{four(a), four(b)}}
	}
	ports := func() Ports {
		a, b := uint16(rng.Uint32()), uint16(rng.Uint32())
		return Ports{Ranges: []PortRange{{min(a, b), max(a, b)}}}
	}
	policies := make([]Policy, n)
	for i := range policies {
		policies[i] = Policy{Name: fmt.Sprintf("p%d", i), Selector: Selector{
			Local: addrs(), Remote: addrs(), Protocol: packet.ProtoTCP, LocalPorts: ports(), RemotePorts: ports(),
		}}
	}
	return policies
}

var sinkPolicy *Policy

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10000} {
		table := benchTable(b, n)
		for _, at := range []struct {
			name string
			flow packet.Flow
			hit  bool
		}{
			{"first", flowAt(0), true},
			{"middle", flowAt(n / 2), true},
			{"last", flowAt(n - 1), true},
			{"none", flowAt(n), false},
		} {
			b.Run(fmt.Sprintf("policies=%d/%s", n, at.name), func(b *testing.B) {
				for b.Loop() {
					sinkPolicy = table.Lookup(Outbound, &at.flow)
				}
				if sinkPolicy != nil != at.hit {
					b.Fatalf("hit %v, want %v", sinkPolicy != nil, at.hit)
				}
			})
		}
		// A different flow every time, so that neither the branch
		// predictor nor the first-level cache knows the way.
		flows := benchFlows(n)
		rand.New(rand.NewPCG(3, 4)).Shuffle(n, func(i, j int) { flows[i], flows[j] = flows[j], flows[i] })
		b.Run(fmt.Sprintf("policies=%d/random", n), func(b *testing.B) {
			i := 0
			for b.Loop() {
				sinkPolicy = table.Lookup(Outbound, &flows[i])
				if i++; i == n {
					i = 0
				}
			}
		})
	}
}

func BenchmarkLookupWorstCase(b *testing.B) {
	f := withPorts("10.0.0.1", 1, "20.0.0.1", 1, packet.ProtoUDP)
	for name, table := range map[string]*Table{"cross=2": crossTable(b, 10000), "cross=5": crossTable5(b, 10000)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				sinkPolicy = table.Lookup(Outbound, &f)
			}
			if sinkPolicy != nil {
				b.Fatalf("%s matches", sinkPolicy.Name)
			}
		})
	}
	overlap, err := NewTable(overlapPolicies(10000))
	if err != nil {
		b.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	flows := make([]packet.Flow, 4096)
	for i := range flows {
		flows[i] = withPorts(net24(byte(rng.Uint32()), int(rng.Uint32())).From.String(), uint16(rng.Uint32()),
			net24(byte(rng.Uint32()), int(rng.Uint32())).From.String(), uint16(rng.Uint32()), packet.ProtoTCP)
	}
	b.Run("overlap", func(b *testing.B) {
		i := 0
		for b.Loop() {
			sinkPolicy = overlap.Lookup(Outbound, &flows[i&4095])
			i++
		}
	})
}

func BenchmarkLookupLinear(b *testing.B) {
	table := benchTable(b, 10000)
	f := flowAt(9999)
	for b.Loop() {
		sinkPolicy = table.LookupLinear(Outbound, &f)
	}
}

func BenchmarkLookupIPv6(b *testing.B) {
	const n = 10000
	policies := make([]Policy, n)
	flows := make([]packet.Flow, n)
	for i := range policies {
		policies[i] = Policy{Name: fmt.Sprintf("p%d", i), Selector: mustSelector(b, fmt.Sprintf("local=2001:db8:1:%x::/64 remote=2001:db8:2:%x::/64", i, i))}
		flows[i] = withPorts(fmt.Sprintf("2001:db8:1:%x::1", i), 1, fmt.Sprintf("2001:db8:2:%x::1", i), 2, packet.ProtoTCP)
	}
	table, err := NewTable(policies)
	if err != nil {
		b.Fatal(err)
	}
	rand.New(rand.NewPCG(3, 4)).Shuffle(n, func(i, j int) { flows[i], flows[j] = flows[j], flows[i] })
	i := 0
	for b.Loop() {
		if sinkPolicy = table.Lookup(Outbound, &flows[i]); sinkPolicy == nil {
			b.Fatal("no match")
		}
		if i++; i == n {
			i = 0
		}
	}
}

// BenchmarkNewTable also reports the table's memory, after garbage collection,
// and the classifier's part of it.
func BenchmarkNewTable(b *testing.B) {
	for _, c := range []struct {
		name     string
		policies []Policy
	}{
		{"disjoint=10", benchPolicies(10)},
		{"disjoint=1000", benchPolicies(1000)},
		{"disjoint=10000", benchPolicies(10000)},
		{"overlap=10000", overlapPolicies(10000)},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := NewTable(c.policies); err != nil {
					b.Fatal(err)
				}
			}
			before := heap()
			table, err := NewTable(c.policies)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(heap()-before), "table-bytes")
			b.ReportMetric(float64(table.classifier.size()), "classifier-bytes")
		})
	}
}

func BenchmarkShadowed(b *testing.B) {
	table := benchTable(b, 10000)
	for b.Loop() {
		if s := table.Shadowed(); s != nil {
			b.Fatal(s[0])
		}
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// size is the bytes of the classifier's tables.
func (c *classifier) size() int {
	n := len(c.arena)*8 + len(c.protocol)*4 + (len(c.local6.starts)+len(c.remote6.starts))*(16+4)
	for _, a := range []*axis32{&c.local4, &c.remote4, &c.localPort, &c.remotePort, &c.icmp} {
		n += len(a.starts) * (4 + 4)
	}
	return n
}

func TestMemoryOfTenThousandPolicies(t *testing.T) {
	const limit = 1 << 20
	if got := benchTable(t, 10000).classifier.size(); got > limit {
		t.Errorf("the classifier of 10,000 disjoint policies takes %d bytes, want %d at the most", got, limit)
	}
}
