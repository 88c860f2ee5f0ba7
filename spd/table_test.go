package spd

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
)

func TestNewTableRefuses(t *testing.T) {
	any := mustSelector(t, "local=any remote=any protocol=any")
	for name, c := range map[string]struct {
		policies []Policy
		want     string // part of the error
	}{
		"empty name":           {[]Policy{{Selector: any}}, "has no name"},
		"duplicate name":       {[]Policy{{Name: "a", Selector: any}, {Name: "b", Selector: any}, {Name: "a", Selector: any}}, `policy 3 "a": policy 1 has this name already`},
		"protect without peer": {[]Policy{{Name: "a", Selector: any, Action: Protect}}, "needs a peer"},
		"bypass with peer":     {[]Policy{{Name: "a", Selector: any, Action: Bypass, Peer: "x"}}, "takes no peer"},
		"discard with peer":    {[]Policy{{Name: "a", Selector: any, Action: Discard, Peer: "x"}}, "takes no peer"},
		"unknown action":       {[]Policy{{Name: "a", Selector: any, Action: 3}}, "action(3) is no action"},
		"invalid selector":     {[]Policy{{Name: "ok", Selector: any}, {Name: "a", Action: Bypass}}, `policy 2 "a": local is empty: write "any"`},
	} {
		t.Run(name, func(t *testing.T) {
			table, err := NewTable(c.policies)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("NewTable: %v, want an error with %q", err, c.want)
			}
			if table != nil {
				t.Error("a table was returned beside the error")
			}
		})
	}
}

func TestNewTableCopies(t *testing.T) {
	mine := []Policy{{
		Name: "web", Action: Protect, Peer: "b",
		Selector: mustSelector(t, "local=10.1.0.0/24 remote=10.2.0.0/24 protocol=tcp local_ports=1-9 remote_ports=80"),
	}, {
		Name: "ping", Action: Bypass,
		Selector: mustSelector(t, "local=any remote=any protocol=icmp icmp=8"),
	}}
	table, err := NewTable(mine)
	if err != nil {
		t.Fatal(err)
	}
	before := table.Policies()
	spoil := func(policies []Policy) {
		for i := range policies {
			p := &policies[i]
			p.Name, p.Action, p.Peer = "spoilt", Discard, ""
			for _, r := range [][]PortRange{p.Selector.LocalPorts.Ranges, p.Selector.RemotePorts.Ranges, p.Selector.ICMP.Ranges} {
				for i := range r {
					r[i] = PortRange{1000, 1000}
				}
			}
			p.Selector.Local[0], p.Selector.Remote[0] = any6, any6
			p.Selector.Protocol = 99
		}
	}
	spoil(mine)
	spoil(table.Policies())
	if after := table.Policies(); !reflect.DeepEqual(before, after) {
		t.Errorf("the table changed:\nbefore %v\nafter  %v", before, after)
	}
	checkBoth(t, table, withPorts("10.1.0.1", 9, "10.2.0.1", 80, packet.ProtoTCP), "web")
	checkBoth(t, table, icmpFlow("10.1.0.1", "10.2.0.1", 8, 0), "ping")
	if table.Policy("spoilt") != nil || table.Policy("web") == nil {
		t.Error("the names changed")
	}
}

func TestIndexPolicyAndGeneration(t *testing.T) {
	table := mustTable(t,
		"a discard local=any remote=any protocol=tcp",
		"b discard local=any remote=any protocol=any")
	for i, name := range []string{"a", "b"} {
		p := table.Policy(name)
		if p == nil || p.Name != name || p.Index() != i {
			t.Fatalf("Policy(%q) = %v, want index %d", name, p, i)
		}
	}
	f := flowOf("10.1.0.1", "10.2.0.1", packet.ProtoGRE)
	if got, want := table.Lookup(Outbound, &f), table.Policy("b"); got != want {
		t.Errorf("Lookup gives %p, Policy gives %p", got, want)
	}
	if table.Policy("c") != nil {
		t.Error("a policy of an unknown name")
	}
	if free := (&Policy{Name: "a"}); free.Index() != -1 {
		t.Errorf("Index of a policy in no table is %d, want -1", free.Index())
	}
	again, err := NewTable(table.Policies())
	if err != nil {
		t.Fatal(err)
	}
	if table.Generation() == 0 || again.Generation() <= table.Generation() {
		t.Errorf("generations %d, then %d: want each above 0 and new", table.Generation(), again.Generation())
	}
}

func TestLookupAndMatchDoNotAllocate(t *testing.T) {
	table := benchTable(t, 1000)
	flows := benchFlows(1000)
	s := mustSelector(t, "local=10.1.0.0/24,2001:db8::/32 remote=any protocol=tcp remote_ports=80")
	six := withPorts("2001:db8::1", 1, "2001:db8::2", 80, packet.ProtoTCP)
	matched := 0
	allocs := testing.AllocsPerRun(100, func() {
		for i := range flows {
			if table.Lookup(Outbound, &flows[i]) != nil {
				matched++
			}
			if table.Lookup(Inbound, &flows[i]) != nil {
				matched++
			}
			s.Match(Outbound, &flows[i])
		}
		if s.Match(Outbound, &six) {
			matched++
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}
	if matched == 0 {
		t.Error("nothing matched")
	}
}

func TestConcurrentLookups(t *testing.T) {
	table := benchTable(t, 300)
	flows := benchFlows(300)
	var want []*Policy
	for i := range flows {
		want = append(want, table.LookupLinear(Outbound, &flows[i]))
	}
	var wg sync.WaitGroup
	errs := make(chan string, 4)
	for range 4 {
		wg.Go(func() {
			for i := range flows {
				if got := table.Lookup(Outbound, &flows[i]); got != want[i] {
					errs <- fmt.Sprintf("%v: %s, want %s", flows[i], nameOf(got), nameOf(want[i]))
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for e := range errs {
		t.Error(e)
	}
}

func TestCompileRefusesWhatWouldNotFitInMemory(t *testing.T) {
	policies := overlapPolicies(100)
	c, err := compile(policies, maxArena)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := compile(policies, len(c.arena)); err != nil || c == nil {
		t.Errorf("a table at its limit: %v", err)
	}
	for _, limit := range []int{0, 1, len(c.arena) / 2, len(c.arena) - 1} {
		if c, err := compile(policies, limit); c != nil || err == nil || !strings.Contains(err.Error(), "merge policies or use fewer ranges") {
			t.Errorf("limit of %d words: %v, want an error that says what to do", limit, err)
		}
	}
}
