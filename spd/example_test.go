package spd_test

import (
	"fmt"
	"net/netip"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/spd"
)

// A site protects its LAN towards the other site, except that SSH stays in
// clear. Everything else is discarded.
func Example() {
	var policies []spd.Policy
	for _, p := range []struct {
		name, selector string
		action         spd.Action
		peer           string
	}{
		{"ssh", "local=10.1.0.0/24 remote=10.2.0.0/24 protocol=tcp remote_ports=22", spd.Bypass, ""},
		{"lan", "local=10.1.0.0/24,10.1.8.10-10.1.8.99 remote=10.2.0.0/24", spd.Protect, "site-b"},
	} {
		selector, err := spd.ParseSelector(p.selector)
		if err != nil {
			fmt.Println(err)
			return
		}
		policies = append(policies, spd.Policy{Name: p.name, Selector: selector, Action: p.action, Peer: p.peer})
	}
	table, err := spd.NewTable(policies)
	if err != nil {
		fmt.Println(err)
		return
	}

	f := packet.Flow{
		Version: 4, Protocol: packet.ProtoTCP, SrcPort: 40000, DstPort: 443,
		Src: netip.MustParseAddr("10.1.8.20").As16(),
		Dst: netip.MustParseAddr("10.2.0.1").As16(),
	}
	show := func(dir spd.Direction, f packet.Flow) {
		if p := table.Lookup(dir, &f); p != nil {
			fmt.Println(dir, f, "->", p.Action, p.Peer)
			return
		}
		fmt.Println(dir, f, "-> discard: no policy matches")
	}
	show(spd.Outbound, f)
	show(spd.Inbound, f.Reverse())
	show(spd.Inbound, f)
	// Output:
	// out 10.1.8.20:40000 > 10.2.0.1:443 tcp -> protect site-b
	// in 10.2.0.1:443 > 10.1.8.20:40000 tcp -> protect site-b
	// in 10.1.8.20:40000 > 10.2.0.1:443 tcp -> discard: no policy matches
}

func ExampleSelector_Validate() {
	s := spd.Selector{Protocol: spd.ProtocolAny}
	fmt.Println(s.Validate())
	// Output: local is empty: write "any" for every address
}

func ExampleTable_Shadowed() {
	wide, _ := spd.ParseSelector("local=10.1.0.0/16 remote=any")
	narrow, _ := spd.ParseSelector("local=10.1.7.0/24 remote=any protocol=udp remote_ports=53")
	table, _ := spd.NewTable([]spd.Policy{
		{Name: "site", Selector: wide, Action: spd.Discard},
		{Name: "dns", Selector: narrow, Action: spd.Bypass},
	})
	for _, s := range table.Shadowed() {
		fmt.Println(s)
	}
	// Output: policy "dns" never matches: "site" comes before it and matches all that it would; move it up or remove it
}
