package dataplane

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// BenchmarkFlowCache is one lookup through a worker's flow cache, in front of so
// many policies: of flows that it knows, and of more flows by turns than it has
// entries, which it never knows.
func BenchmarkFlowCache(b *testing.B) {
	for _, policies := range []int{1, 100, 10000} {
		table := hostTable(b, policies)
		sas := sad.NewDatabase().Load()
		for _, load := range []struct {
			name  string
			flows int
		}{
			{"cached/flows=1", 1},
			{"cached/flows=256", 256},
			{"uncached/flows=65536", 1 << 16},
		} {
			b.Run(fmt.Sprintf("policies=%d/%s", policies, load.name), func(b *testing.B) {
				cache := newFlowCache(spd.Outbound)
				cache.seed = 1 // the same collisions in every run
				cache.use(table, sas)
				flows := hostFlows(load.flows, policies)
				if load.flows <= flowCacheSize {
					flows = cachedTogether(cache, flows)
				}
				i, mask := 0, len(flows)-1
				b.ReportAllocs()
				for b.Loop() {
					if cache.lookup(&flows[i&mask]).policy == nil {
						b.Fatal("no policy")
					}
					i++
				}
			})
		}
	}
}

// hostTable protects so many hosts, each by a policy of its own.
func hostTable(b *testing.B, n int) *spd.Table {
	b.Helper()
	local, err := spd.ParseAddrRange("10.1.0.0/24")
	if err != nil {
		b.Fatal(err)
	}
	policies := make([]spd.Policy, n)
	for i := range policies {
		host := hostOf(i)
		policies[i] = spd.Policy{Name: host.String(), Action: spd.Protect, Peer: "peer", Selector: spd.Selector{
			Local: []spd.AddrRange{local}, Remote: []spd.AddrRange{{From: host, To: host}}, Protocol: spd.ProtocolAny}}
	}
	table, err := spd.NewTable(policies)
	if err != nil {
		b.Fatal(err)
	}
	return table
}

func hostOf(i int) netip.Addr {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 10<<24|64<<16|uint32(i))
	return netip.AddrFrom4(a)
}

// hostFlows is n flows, a power of two, to the hosts by turns.
func hostFlows(n, hosts int) []packet.Flow {
	flows := make([]packet.Flow, n)
	for i := range flows {
		flows[i] = packet.Flow{Src: netip.MustParseAddr("10.1.0.10").As16(), Dst: hostOf(i % hosts).As16(),
			SrcPort: uint16(i), DstPort: 9, Protocol: packet.ProtoUDP, Version: 4}
	}
	return flows
}

// cachedTogether replaces a flow that would share an entry by the flow that has
// it, so that all are found.
func cachedTogether(c *flowCache, flows []packet.Flow) []packet.Flow {
	taken := make(map[uint64]packet.Flow)
	for i := range flows {
		slot := flows[i].Hash(c.seed) & (flowCacheSize - 1)
		if _, ok := taken[slot]; ok {
			flows[i] = taken[slot]
		}
		taken[slot] = flows[i]
	}
	return flows
}
