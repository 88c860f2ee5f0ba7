package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/spd"
)

// policy builds "action local remote [protocol]"; ranges with commas.
func policy(t *testing.T, text string) spd.Policy {
	t.Helper()
	fields := strings.Fields(text)
	p := spd.Policy{Name: text, Selector: spd.Selector{Protocol: spd.ProtocolAny}}
	var err error
	if p.Action, err = spd.ParseAction(fields[0]); err != nil {
		t.Fatal(err)
	}
	for i, to := range []*[]spd.AddrRange{&p.Selector.Local, &p.Selector.Remote} {
		for _, one := range strings.Split(fields[1+i], ",") {
			ranges, err := spd.ParseAddrRanges(one)
			if err != nil {
				t.Fatal(err)
			}
			*to = append(*to, ranges...)
		}
	}
	if len(fields) > 3 {
		if p.Selector.Protocol, err = spd.ParseProtocol(fields[3]); err != nil {
			t.Fatal(err)
		}
	}
	if p.Action == spd.Protect {
		p.Peer = "peer"
	}
	return p
}

// TestRoutesLeadEveryDoubtIntoTheTUN: what is thrown past the TUN is never
// something that a policy protects or discards.
func TestRoutesLeadEveryDoubtIntoTheTUN(t *testing.T) {
	for _, c := range []struct {
		name      string
		policies  []string
		connected string
		into      string
		throw     string
	}{
		{"a site", []string{"protect 10.1.0.0/24 10.2.0.0/24"}, "10.1.0.0/24 192.0.2.0/24", "10.2.0.0/24", ""},
		{"discard alone is led in: a reload from protect to discard lets nothing out", []string{"discard 10.1.0.0/24 10.2.0.0/24"}, "10.1.0.0/24", "10.2.0.0/24", ""},
		{"discard around the LAN", []string{"discard 10.1.0.0/24 10.0.0.0/8"}, "10.1.0.0/24 192.0.2.0/24", "10.0.0.0/8", "10.1.0.0/24"},
		{"discard of everything names no network", []string{"protect 10.1.0.0/24 10.2.0.0/24", "discard any any"}, "10.1.0.0/24", "10.2.0.0/24", ""},
		{"both families", []string{"protect 10.1.0.0/24,2001:db8:a::/64 10.2.0.0/24,2001:db8:b::/64"}, "", "10.2.0.0/24 2001:db8:b::/64", ""},
		{"a range", []string{"protect 10.1.0.0/24 10.2.0.8-10.2.0.11"}, "", "10.2.0.8/30", ""},
		{"the LAN inside the remote prefix", []string{"protect 10.1.0.0/24 10.0.0.0/8"}, "", "10.0.0.0/8", "10.1.0.0/24"},
		{"everything is remote", []string{"protect 10.1.0.0/24 0.0.0.0/0"}, "192.0.2.0/24", "0.0.0.0/0", "10.1.0.0/24"},
		{"any to any: no network is named", []string{"protect any any"}, "10.1.0.0/24", "0.0.0.0/0 ::/0", ""},
		{"two LANs", []string{"protect 10.1.0.0/24 10.0.0.0/8", "protect 10.1.1.0/24 10.0.0.0/8"}, "", "10.0.0.0/8", "10.1.0.0/24 10.1.1.0/24"},
		{"a hub: local to one peer is remote to another", []string{"protect 10.2.0.0/24 10.1.0.0/24", "protect 10.1.0.0/24 10.2.0.0/24"}, "", "10.1.0.0/24 10.2.0.0/24", ""},
		{"a hub, wider remote", []string{"protect 10.2.0.0/24 10.1.0.0/24", "protect 10.1.0.0/24 10.2.0.0/16"}, "", "10.1.0.0/24 10.2.0.0/16", ""},
		{"more precisely remote elsewhere", []string{"protect 10.2.0.0/24 10.0.0.0/8", "protect 10.1.0.0/24 10.2.0.0/16"}, "", "10.0.0.0/8 10.2.0.0/16", ""},
		{"in doubt, but the host stands in it", []string{"protect 10.2.0.0/24 10.1.0.0/24", "protect 10.1.0.0/24 10.2.0.0/16"}, "10.2.0.0/24", "10.1.0.0/24 10.2.0.0/16", "10.2.0.0/24"},
		{"the host stands in a part", []string{"protect 10.2.0.0/16 10.1.0.0/24", "protect 10.1.0.0/24 10.2.0.0/15"}, "10.2.3.0/24", "10.1.0.0/24 10.2.0.0/15", "10.2.3.0/24"},
		{"bypassed whole, inside", []string{"bypass any 10.2.7.0/24", "protect 10.1.0.0/24 10.2.0.0/16"}, "", "10.2.0.0/16", "10.2.7.0/24"},
		{"bypassed outside all protected prefixes", []string{"bypass any 10.3.0.0/24", "protect 10.1.0.0/24 10.2.0.0/16"}, "", "10.2.0.0/16", ""},
		{"bypassed after it is protected", []string{"protect 10.1.0.0/24 10.2.0.0/16", "bypass any 10.2.7.0/24"}, "", "10.2.0.0/16", ""},
		{"bypassed after it is discarded", []string{"discard any 10.2.7.9", "bypass any 10.2.7.0/24", "protect 10.1.0.0/24 10.2.0.0/16"}, "", "10.2.0.0/16 10.2.7.9/32", ""},
		{"bypassed for one protocol", []string{"bypass any 10.2.7.0/24 icmp", "protect 10.1.0.0/24 10.2.0.0/16"}, "", "10.2.0.0/16", ""},
		{"bypassed for one host", []string{"bypass 10.1.0.9 10.2.7.0/24", "protect 10.1.0.0/24 10.2.0.0/16"}, "", "10.2.0.0/16", ""},
		{"bypassed for the other family's any", []string{"bypass ::/0,10.1.0.9 10.2.7.0/24,2001:db8::/32", "protect 10.1.0.0/24 10.2.0.0/16"}, "", "10.2.0.0/16", ""},
		{"bypassed before it is discarded", []string{"bypass any 10.2.7.0/24", "discard any 10.2.0.0/16"}, "", "10.2.0.0/16", "10.2.7.0/24"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var policies []spd.Policy
			for _, text := range c.policies {
				policies = append(policies, policy(t, text))
			}
			var connected []netip.Prefix
			for _, text := range strings.Fields(c.connected) {
				connected = append(connected, netip.MustParsePrefix(text))
			}
			plan := planRoutes(policies, connected)
			if got := list(plan.into); got != c.into {
				t.Errorf("into the TUN: got %q, want %q", got, c.into)
			}
			if got := list(plan.throw); got != c.throw {
				t.Errorf("past the TUN: got %q, want %q", got, c.throw)
			}
		})
	}
}

func list(prefixes []netip.Prefix) string {
	return strings.Trim(fmt.Sprint(prefixes), "[]")
}
