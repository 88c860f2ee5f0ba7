package spd

import (
	"fmt"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

func shadows(table *Table) map[string]string {
	out := map[string]string{}
	for _, s := range table.Shadowed() {
		out[s.Policy.Name] = s.By.Name
	}
	return out
}

func TestShadowedNamesTheFirstPolicyThatCoversAll(t *testing.T) {
	table := mustTable(t,
		"web discard local=10.1.0.0/24 remote=10.2.0.0/24 protocol=tcp remote_ports=80,443",
		"lan protect:b local=10.1.0.0/24 remote=10.2.0.0/24 protocol=any",
		"ssh bypass local=10.1.0.0/25 remote=10.2.0.0/24 protocol=tcp remote_ports=22", // under lan
		"web2 discard local=10.1.0.7 remote=10.2.0.9 protocol=tcp remote_ports=443",    // under web and lan
		"wider bypass local=10.1.0.0/23 remote=10.2.0.0/24 protocol=any",               // not covered
		"half4 bypass local=10.1.0.0/24,2001:db8::/64 remote=any protocol=any",         // IPv6 not covered
		"joint bypass local=10.1.0.0/24,10.1.1.0/24 remote=10.2.0.0/24 protocol=tcp",   // under wider: its ranges touch
		"again protect:b local=10.1.0.0/24 remote=10.2.0.0/24 protocol=any",            // the same as lan
		"obscured bypass local=10.1.0.0/24 remote=10.2.0.0/24 protocol=opaque",         // under lan
		"half bypass local=10.1.0.5,2001:db8::1 remote=10.2.0.0/24 protocol=udp",       // under lan: its IPv6 has no remote end
		"other bypass local=10.7.0.0/24 remote=10.2.0.0/24 protocol=any",
		"pair bypass local=10.8.1.0/24,10.8.0.0/24 remote=any protocol=any",
		"whole bypass local=10.8.0.0/23 remote=any protocol=any", // under pair, whose ranges touch
	)
	want := map[string]string{"ssh": "lan", "web2": "web", "joint": "wider", "again": "lan", "obscured": "lan", "whole": "pair", "half": "lan"}
	if got := shadows(table); !reflect.DeepEqual(got, want) {
		t.Errorf("shadowed: %v, want %v", got, want)
	}
	const sentence = `policy "ssh" never matches: "lan" comes before it and matches all that it would; move it up or remove it`
	if got := table.Shadowed()[0].String(); got != sentence {
		t.Errorf("String: %s, want %s", got, sentence)
	}
}

func TestShadowedTellsOpaqueFromPorts(t *testing.T) {
	table := mustTable(t,
		"ports discard local=any remote=any protocol=tcp remote_ports=0-65535",
		"fragments discard local=any remote=any protocol=tcp remote_ports=opaque", // not covered
		"one discard local=any remote=any protocol=tcp remote_ports=80",           // under ports
		"both discard local=any remote=any protocol=tcp remote_ports=80,opaque",   // under neither alone
		"local discard local=any remote=any protocol=tcp local_ports=7",           // under ports: a packet with one port has both
		"types discard local=any remote=any protocol=icmp icmp=0-8",
		"echo discard local=any remote=any protocol=icmp icmp=8/0", // under types
		"icmp discard local=any remote=any protocol=icmp",          // not covered
		"nine discard local=any remote=any protocol=icmp icmp=9",   // under icmp
		"portless discard local=any remote=any protocol=any remote_ports=opaque",
		"obscured discard local=any remote=any protocol=opaque", // under portless
		"gre discard local=any remote=any protocol=gre",         // under portless
		"udp discard local=any remote=any protocol=udp",         // not covered
		"any discard local=any remote=any protocol=any",         // not covered
		"portless2 discard local=any remote=any protocol=any local_ports=opaque",
	)
	want := map[string]string{"one": "ports", "local": "ports", "echo": "types", "nine": "icmp", "obscured": "portless", "gre": "portless", "portless2": "portless"}
	if got := shadows(table); !reflect.DeepEqual(got, want) {
		t.Errorf("shadowed: %v, want %v", got, want)
	}
}

func TestShadowedInALongTable(t *testing.T) {
	policies := benchPolicies(9000)
	for late, early := range map[int]int{8999: 0, 8998: 8997, 4097: 4095, 5000: 64} {
		policies[late].Selector = policies[early].Selector
	}
	// One end in common is not enough, wherever it stands.
	policies[3].Selector.Local = policies[8997].Selector.Local
	table, err := NewTable(policies)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"p8999": "p0", "p8998": "p8997", "p4097": "p4095", "p5000": "p64"}
	if got := shadows(table); !reflect.DeepEqual(got, want) {
		t.Errorf("shadowed: %v, want %v", got, want)
	}
}

// Shadowed asks the classifier for candidates; this asks every pair.
func TestShadowedFindsWhatEveryPairSays(t *testing.T) {
	found := 0
	rapid.Check(t, func(t *rapid.T) {
		policies := make([]Policy, rapid.IntRange(0, 90).Draw(t, "policies"))
		for i := range policies {
			policies[i] = Policy{Name: fmt.Sprint(i), Selector: genSelector.Draw(t, "selector")}
		}
		table, err := NewTable(policies)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{}
		for i := range policies {
			for j := range i {
				if policies[j].Selector.Covers(&policies[i].Selector) {
					want[policies[i].Name] = policies[j].Name
					break
				}
			}
		}
		found += len(want)
		if got := shadows(table); !reflect.DeepEqual(got, want) {
			t.Fatalf("shadowed: %v, want %v", got, want)
		}
	})
	if found == 0 {
		t.Error("no table had a shadowed policy")
	}
}
