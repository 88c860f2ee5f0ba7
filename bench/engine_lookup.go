package bench

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/spd"
)

// EngineLookup is the policy lookup alone, without a flow cache.
type EngineLookup struct {
	Policies    int     `json:"policies"`
	Flow        string  `json:"flow"` // which policy it finds, or a table of its own
	Nanoseconds Summary `json:"ns_per_lookup"`
	CPU         Summary `json:"cpu_ns_per_lookup"`
}

// The flows of an EngineLookup. All but the last two are looked up in the table
// of a hub with branches: each policy a /24 on both sides, every fourth with
// ports.
const (
	lookupFirst   = "first policy"
	lookupMiddle  = "middle policy"
	lookupLast    = "last policy"
	lookupRandom  = "another each time"
	lookupNone    = "no policy"
	lookupOverlap = "random overlaps" // policies whose ranges overlap at random on every field, another flow each time
	lookupWorst   = "the worst found" // every policy but the last fails the flow in one field of five, each word of 64 policies in all of them
)

var lookupFlows = []string{lookupFirst, lookupMiddle, lookupLast, lookupRandom, lookupNone, lookupOverlap, lookupWorst}

// engineLookup gathers the rounds of an EngineLookup.
type engineLookup struct {
	policies         int
	name             string
	nanoseconds, cpu []float64
}

func (o *EngineOptions) lookups() (all []*engineLookup) {
	for _, n := range o.Policies {
		for _, name := range lookupFlows {
			if n == 1 && name != lookupFirst && name != lookupNone {
				continue // the same again
			}
			all = append(all, &engineLookup{policies: n, name: name})
		}
	}
	return all
}

func (l *engineLookup) title() string {
	return fmt.Sprintf("lookup among policies %d, %s", l.policies, l.name)
}

func (l *engineLookup) report() EngineLookup {
	return EngineLookup{l.policies, l.name, Summarize(l.nanoseconds), Summarize(l.cpu)}
}

// lookupBatch is how many lookups there are between two looks at the clock.
const lookupBatch = 1 << 12

// measure is one round.
func (l *engineLookup) measure(duration time.Duration) error {
	policies, flows := l.load()
	table, err := spd.NewTable(policies)
	if err != nil {
		return err
	}
	for i := range flows {
		if found := table.Lookup(spd.Outbound, &flows[i]); (found == nil) != (l.name == lookupNone) && l.name != lookupOverlap {
			return fmt.Errorf("the flow %s finds %v", &flows[i], found)
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var used [2]unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &used[0]); err != nil {
		return err
	}
	start, n, found := time.Now(), 0, 0
	for time.Since(start) < duration {
		for i := range lookupBatch {
			if table.Lookup(spd.Outbound, &flows[i%len(flows)]) != nil {
				found++
			}
		}
		n += lookupBatch
	}
	took := time.Since(start)
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &used[1]); err != nil {
		return err
	}
	if found > n { // the result is used
		return errors.New("more found than looked up")
	}
	l.nanoseconds = append(l.nanoseconds, float64(took.Nanoseconds())/float64(n))
	l.cpu = append(l.cpu, float64(used[1].Nano()-used[0].Nano())/float64(n))
	return nil
}

// load is the policies, and flows that take turns; their number is a power of
// two.
func (l *engineLookup) load() ([]spd.Policy, []packet.Flow) {
	n := l.policies
	switch l.name {
	case lookupOverlap:
		return overlappingPolicies(n)
	case lookupWorst:
		return crossedPolicies(n)
	}
	rng := rand.New(rand.NewPCG(3, 4)) // the same in every run
	flows := make([]packet.Flow, 1)
	for i := range flows {
		flows[i] = branchFlow(map[string]int{lookupMiddle: n / 2, lookupLast: n - 1, lookupNone: n}[l.name])
	}
	if l.name == lookupRandom {
		for range lookupBatch - 1 {
			flows = append(flows, branchFlow(rng.IntN(n)))
		}
	}
	return branchPolicies(n), flows
}

// branch is the i-th /24 of 10.0.0.0/8 or of 20.0.0.0/8, and on.
func branch(first, i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(first + i>>16), byte(i >> 8), byte(i), 0}), 24)
}

func branchPolicies(n int) []spd.Policy {
	policies := make([]spd.Policy, n)
	for i := range policies {
		policies[i] = spd.Policy{Name: fmt.Sprintf("branch%d", i), Action: spd.Protect, Peer: "hub", Selector: spd.Selector{
			Local: []spd.AddrRange{rangeOf(branch(10, i))}, Remote: []spd.AddrRange{rangeOf(branch(20, i))}, Protocol: spd.ProtocolAny}}
		if i%4 == 3 {
			s := &policies[i].Selector
			s.Protocol = packet.ProtoTCP
			s.RemotePorts.Ranges = []spd.PortRange{{From: 1, To: 1023}, {From: uint16(2000 + i%1000), To: 65535}}
		}
	}
	return policies
}

// branchFlow is one that branchPolicies[i] protects.
func branchFlow(i int) packet.Flow {
	return flowOf(branch(10, i).Addr().Next(), 40000, branch(20, i).Addr().Next(), 443, packet.ProtoTCP)
}

func flowOf(src netip.Addr, sport uint16, dst netip.Addr, dport uint16, protocol uint8) packet.Flow {
	return packet.Flow{Src: src.As16(), Dst: dst.As16(), SrcPort: sport, DstPort: dport, Protocol: protocol, Version: 4}
}

// crossedPolicies is the classifier's worst case: each policy fails the flow on
// another of the five fields, so that every word of 64 policies holds some that
// match on any four, and none that matches on all but in the last.
func crossedPolicies(n int) ([]spd.Policy, []packet.Flow) {
	a, b := netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("10.0.0.2/32")
	c, d := netip.MustParsePrefix("20.0.0.1/32"), netip.MustParsePrefix("20.0.0.2/32")
	policies := make([]spd.Policy, n)
	for i := range policies {
		local, remote, protocol, sport, dport := a, c, uint16(packet.ProtoUDP), uint16(1), uint16(1)
		if i < n-1 {
			switch i % 5 {
			case 0:
				local = b
			case 1:
				remote = d
			case 2:
				protocol = packet.ProtoTCP
			case 3:
				sport = 2
			case 4:
				dport = 2
			}
		}
		policies[i] = spd.Policy{Name: fmt.Sprintf("crossed%d", i), Action: spd.Discard, Selector: spd.Selector{
			Local: []spd.AddrRange{rangeOf(local)}, Remote: []spd.AddrRange{rangeOf(remote)}, Protocol: spd.Protocol(protocol),
			LocalPorts:  spd.Ports{Ranges: []spd.PortRange{{From: sport, To: sport}}},
			RemotePorts: spd.Ports{Ranges: []spd.PortRange{{From: dport, To: dport}}}}}
	}
	return policies, []packet.Flow{flowOf(a.Addr(), 1, c.Addr(), 1, packet.ProtoUDP)}
}

// overlappingPolicies have ranges that overlap at random on every field.
func overlappingPolicies(n int) ([]spd.Policy, []packet.Flow) {
	rng := rand.New(rand.NewPCG(1, 2)) // the same in every run
	addr := func() netip.Addr {
		v := rng.Uint32()
		return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
	}
	addrs := func() []spd.AddrRange {
		a, b := addr(), addr()
		if b.Less(a) {
			a, b = b, a
		}
		return []spd.AddrRange{{From: a, To: b}}
	}
	ports := func() spd.Ports {
		a, b := uint16(rng.Uint32()), uint16(rng.Uint32())
		return spd.Ports{Ranges: []spd.PortRange{{From: min(a, b), To: max(a, b)}}}
	}
	policies := make([]spd.Policy, n)
	for i := range policies {
		policies[i] = spd.Policy{Name: fmt.Sprintf("overlap%d", i), Action: spd.Discard, Selector: spd.Selector{
			Local: addrs(), Remote: addrs(), Protocol: packet.ProtoTCP, LocalPorts: ports(), RemotePorts: ports()}}
	}
	flows := make([]packet.Flow, lookupBatch)
	for i := range flows {
		flows[i] = flowOf(addr(), uint16(rng.Uint32()), addr(), uint16(rng.Uint32()), packet.ProtoTCP)
	}
	return policies, flows
}
