package spd

import (
	"fmt"
	"slices"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
)

func TestCP01_FirstMatchDecidesAmongProtectBypassDiscard(t *testing.T) {
	table := mustTable(t,
		"ssh bypass local=10.1.0.0/24 remote=10.2.0.0/24 protocol=tcp remote_ports=22",
		"bad discard local=10.1.0.66 remote=any protocol=any",
		"lan protect:b local=10.1.0.0/24 remote=10.2.0.0/24 protocol=any",
		"late discard local=10.1.0.0/24 remote=10.2.0.0/24 protocol=any",
		"rest bypass local=any remote=192.0.2.0/24 protocol=any",
	)
	for _, c := range []struct {
		f      packet.Flow
		want   string
		action Action
	}{
		{withPorts("10.1.0.1", 40000, "10.2.0.1", 22, packet.ProtoTCP), "ssh", Bypass},
		{withPorts("10.1.0.66", 40000, "10.2.0.1", 22, packet.ProtoTCP), "ssh", Bypass},
		{withPorts("10.1.0.66", 40000, "10.2.0.1", 23, packet.ProtoTCP), "bad", Discard},
		{withPorts("10.1.0.1", 40000, "10.2.0.1", 23, packet.ProtoTCP), "lan", Protect},
		{withPorts("10.1.0.1", 22, "10.2.0.1", 40000, packet.ProtoTCP), "lan", Protect},
		{icmpFlow("10.1.0.1", "10.2.0.1", 8, 0), "lan", Protect},
		{withPorts("10.1.0.1", 1, "192.0.2.7", 1, packet.ProtoUDP), "rest", Bypass},
	} {
		checkBoth(t, table, c.f, c.want)
		if got := table.Lookup(Outbound, &c.f).Action; got != c.action {
			t.Errorf("%v: action %v, want %v", c.f, got, c.action)
		}
	}
	checkBoth(t, table, withPorts("10.9.0.1", 1, "10.2.0.1", 1, packet.ProtoUDP), "-")
}

func TestCP01_TheReversedOrderGivesTheOtherAnswer(t *testing.T) {
	a := "a protect:b local=10.1.0.0/24 remote=any protocol=any"
	b := "b bypass local=10.1.0.0/24 remote=any protocol=any"
	f := flowOf("10.1.0.1", "10.2.0.1", packet.ProtoGRE)
	checkBoth(t, mustTable(t, a, b), f, "a")
	checkBoth(t, mustTable(t, b, a), f, "b")
}

func TestCP02_DirectPolicyInFrontBeatsTheException(t *testing.T) {
	table := mustTable(t,
		"direct protect:b local=10.0.1.2 remote=10.0.2.2 protocol=any",
		"exception bypass local=10.0.1.0/24 remote=10.0.2.0/24 protocol=any",
		"wide protect:c local=10.0.0.0/16 remote=10.0.0.0/16 protocol=any",
	)
	checkBoth(t, table, icmpFlow("10.0.1.2", "10.0.2.2", 8, 0), "direct")
	checkBoth(t, table, icmpFlow("10.0.1.2", "10.0.2.3", 8, 0), "exception")
	checkBoth(t, table, icmpFlow("10.0.1.3", "10.0.2.2", 8, 0), "exception")
	checkBoth(t, table, icmpFlow("10.0.3.3", "10.0.2.2", 8, 0), "wide")
	checkBoth(t, table, icmpFlow("10.1.3.3", "10.0.2.2", 8, 0), "-")
}

func TestCP02_NestedAndOverlappingMasks(t *testing.T) {
	table := mustTable(t,
		"m32 discard local=10.1.1.1/32 remote=any protocol=any",
		"m28 discard local=10.1.1.0/28 remote=any protocol=any",
		"overlap discard local=10.1.1.8-10.1.1.40 remote=any protocol=any",
		"m24 discard local=10.1.1.0/24 remote=any protocol=any",
		"m16 discard local=10.1.0.0/16 remote=any protocol=any",
		"six64 discard local=2001:db8:1::/64 remote=any protocol=any",
		"six48 discard local=2001:db8:1::/48 remote=any protocol=any",
		"m0 discard local=0.0.0.0/0 remote=any protocol=any",
	)
	for addr, want := range map[string]string{
		"10.1.1.0": "m28", "10.1.1.1": "m32", "10.1.1.2": "m28", "10.1.1.15": "m28",
		"10.1.1.16": "overlap", "10.1.1.40": "overlap", "10.1.1.41": "m24", "10.1.1.255": "m24",
		"10.1.2.0": "m16", "10.1.255.255": "m16", "10.1.0.255": "m16",
		"10.0.255.255": "m0", "10.2.0.0": "m0", "0.0.0.0": "m0", "255.255.255.255": "m0",
	} {
		checkBoth(t, table, flowOf(addr, "192.0.2.1", packet.ProtoGRE), want)
	}
	checkBoth(t, table, flowOf("2001:db8:1::ffff", "2001:db8:2::1", packet.ProtoGRE), "six64")
	checkBoth(t, table, flowOf("2001:db8:1:1::", "2001:db8:2::1", packet.ProtoGRE), "six48")
	checkBoth(t, table, flowOf("2001:db8:2::", "2001:db8:2::1", packet.ProtoGRE), "-")
}

func TestCP02_AmongTwoThousandDummyPolicies(t *testing.T) {
	var policies []Policy
	dummies := func(kind string) {
		for i := range 1000 {
			policies = append(policies, Policy{
				Name: fmt.Sprintf("%s%d", kind, i), Action: Discard,
				Selector: mustSelector(t, fmt.Sprintf("local=172.%d.%d.0/24 remote=172.%d.%d.0/24 protocol=any", 16+i/250, i%250, 24+i/250, i%250)),
			})
		}
	}
	dummies("front")
	policies = append(policies, Policy{Name: "direct", Action: Protect, Peer: "b", Selector: mustSelector(t, "local=10.0.1.0/24 remote=10.0.2.0/24 protocol=any")})
	dummies("back")
	policies = append(policies, Policy{Name: "exception", Action: Bypass, Selector: mustSelector(t, "local=10.0.0.0/8 remote=10.0.0.0/8 protocol=any")})
	table, err := NewTable(policies)
	if err != nil {
		t.Fatal(err)
	}
	checkBoth(t, table, flowOf("10.0.1.1", "10.0.2.1", packet.ProtoGRE), "direct")
	checkBoth(t, table, flowOf("10.0.1.1", "10.0.3.1", packet.ProtoGRE), "exception")
	for i := range 1000 {
		// The second thousand repeats the first and never answers.
		f := flowOf(fmt.Sprintf("172.%d.%d.7", 16+i/250, i%250), fmt.Sprintf("172.%d.%d.9", 24+i/250, i%250), packet.ProtoGRE)
		check(t, table, Outbound, f, fmt.Sprintf("front%d", i))
	}
	checkBoth(t, table, flowOf("172.16.0.1", "172.24.1.1", packet.ProtoGRE), "-")
}

func TestCP03_PortRangesAtTheirEdges(t *testing.T) {
	table := mustTable(t,
		"zero discard local=any remote=any protocol=tcp remote_ports=0",
		"low discard local=any remote=any protocol=tcp remote_ports=1-1023",
		"sip discard local=any remote=any protocol=udp local_ports=5060-5070 remote_ports=5060,5062-5064",
		"last discard local=any remote=any protocol=tcp remote_ports=65535",
		"all discard local=any remote=any protocol=sctp remote_ports=0-65535",
	)
	tcp := func(port uint16) packet.Flow { return withPorts("10.1.0.1", 9, "10.2.0.1", port, packet.ProtoTCP) }
	for port, want := range map[uint16]string{0: "zero", 1: "low", 2: "low", 1022: "low", 1023: "low", 1024: "-", 65534: "-", 65535: "last"} {
		checkBoth(t, table, tcp(port), want)
	}
	for _, c := range []struct {
		local, remote uint16
		want          string
	}{
		{5059, 5060, "-"}, {5060, 5060, "sip"}, {5070, 5060, "sip"}, {5071, 5060, "-"},
		{5065, 5059, "-"}, {5065, 5061, "-"}, {5065, 5062, "sip"}, {5065, 5064, "sip"}, {5065, 5065, "-"},
	} {
		f := withPorts("2001:db8::1", c.local, "2001:db8::2", c.remote, packet.ProtoUDP)
		checkBoth(t, table, f, c.want)
		f.Protocol = packet.ProtoTCP
		if c.remote != 0 {
			checkBoth(t, table, f, "-")
		}
	}
	for _, port := range []uint16{0, 1, 65534, 65535} {
		checkBoth(t, table, withPorts("10.1.0.1", 9, "10.2.0.1", port, packet.ProtoSCTP), "all")
	}
}

func TestCP03_PortsFollowTheDirection(t *testing.T) {
	table := mustTable(t, "web discard local=10.1.0.0/24 remote=10.2.0.0/24 protocol=tcp remote_ports=80")
	f := withPorts("10.1.0.1", 1234, "10.2.0.1", 80, packet.ProtoTCP)
	check(t, table, Outbound, f, "web")
	check(t, table, Inbound, f.Reverse(), "web")
	check(t, table, Inbound, f, "-")
	check(t, table, Outbound, f.Reverse(), "-")
	// The local end on port 80 is not the remote end on port 80.
	check(t, table, Outbound, withPorts("10.1.0.1", 80, "10.2.0.1", 1234, packet.ProtoTCP), "-")
}

func TestCP03_ProtocolNumbers(t *testing.T) {
	table := mustTable(t,
		"hopopt discard local=any remote=any protocol=0",
		"gre discard local=any remote=any protocol=gre",
		"last discard local=any remote=any protocol=255",
		"udp discard local=any remote=any protocol=udp",
	)
	for protocol, want := range map[uint8]string{0: "hopopt", 1: "-", 6: "-", 17: "udp", 46: "-", 47: "gre", 48: "-", 254: "-", 255: "last"} {
		checkBoth(t, table, flowOf("10.1.0.1", "10.2.0.1", protocol), want)
	}
}

func TestCP03_ICMPTypeAndCodeRanges(t *testing.T) {
	table := mustTable(t,
		"echo discard local=any remote=any protocol=icmp icmp=8",
		"first discard local=any remote=any protocol=icmp icmp=0/0",
		"toobig discard local=any remote=any protocol=icmp icmp=3/4",
		"unreachable discard local=any remote=any protocol=icmp icmp=3/0-3/15",
		"types discard local=any remote=any protocol=icmp icmp=11-12",
		"last discard local=any remote=any protocol=icmp icmp=255/255",
		"six discard local=any remote=any protocol=icmpv6 icmp=128-129",
	)
	for _, c := range []struct {
		typ, code uint8
		want      string
	}{
		{7, 255, "-"}, {8, 0, "echo"}, {8, 255, "echo"}, {9, 0, "-"},
		{0, 0, "first"}, {0, 1, "-"},
		{2, 255, "-"}, {3, 0, "unreachable"}, {3, 4, "toobig"}, {3, 15, "unreachable"}, {3, 16, "-"},
		{10, 255, "-"}, {11, 0, "types"}, {11, 255, "types"}, {12, 0, "types"}, {12, 255, "types"}, {13, 0, "-"},
		{255, 254, "-"}, {255, 255, "last"},
	} {
		checkBoth(t, table, icmpFlow("10.1.0.1", "10.2.0.1", c.typ, c.code), c.want)
	}
	checkBoth(t, table, icmpFlow("2001:db8::1", "2001:db8::2", 127, 255), "-")
	checkBoth(t, table, icmpFlow("2001:db8::1", "2001:db8::2", 128, 0), "six")
	checkBoth(t, table, icmpFlow("2001:db8::1", "2001:db8::2", 129, 255), "six")
	checkBoth(t, table, icmpFlow("2001:db8::1", "2001:db8::2", 8, 0), "-")
	// Type 8 code 0 is 2048; a port of that number is no ICMP type.
	checkBoth(t, table, withPorts("10.1.0.1", 2048, "10.2.0.1", 2048, packet.ProtoUDP), "-")
}

func TestCP06_NonInitialFragmentsMatchNoPorts(t *testing.T) {
	table := mustTable(t,
		"web discard local=any remote=any protocol=tcp remote_ports=80",
		"whole discard local=any remote=any protocol=tcp remote_ports=0-65535",
		"dns discard local=any remote=any protocol=udp remote_ports=53,opaque",
		"fragments discard local=any remote=any protocol=tcp local_ports=opaque remote_ports=opaque",
		"echo discard local=any remote=any protocol=icmp icmp=8",
		"pieces discard local=any remote=any protocol=icmp icmp=opaque",
		"sctp discard local=any remote=any protocol=sctp",
	)
	web := withPorts("10.1.0.1", 1234, "10.2.0.1", 80, packet.ProtoTCP)
	checkBoth(t, table, web, "web")
	checkBoth(t, table, fragment(web), "fragments")
	dns := withPorts("10.1.0.1", 1234, "10.2.0.1", 53, packet.ProtoUDP)
	checkBoth(t, table, dns, "dns")
	checkBoth(t, table, fragment(dns), "dns")
	checkBoth(t, table, withPorts("10.1.0.1", 1234, "10.2.0.1", 54, packet.ProtoUDP), "-")
	echo := icmpFlow("10.1.0.1", "10.2.0.1", 8, 0)
	checkBoth(t, table, echo, "echo")
	checkBoth(t, table, fragment(echo), "pieces")
	checkBoth(t, table, icmpFlow("10.1.0.1", "10.2.0.1", 9, 0), "-")
	sctp := withPorts("10.1.0.1", 1, "10.2.0.1", 2, packet.ProtoSCTP)
	checkBoth(t, table, sctp, "sctp")
	checkBoth(t, table, fragment(sctp), "sctp")
}

func TestRFC4301_4_4_1_AnyEncompassesOpaque(t *testing.T) {
	table := mustTable(t,
		"hidden discard local=any remote=any protocol=opaque",
		"portless discard local=any remote=any protocol=any local_ports=opaque",
		"any discard local=any remote=any protocol=any",
	)
	obscured := packet.Flow{Version: 6, ProtocolOpaque: true, PortsOpaque: true}
	checkBoth(t, table, obscured, "hidden")
	tcp := withPorts("2001:db8::1", 0, "2001:db8::2", 0, packet.ProtoTCP)
	checkBoth(t, table, tcp, "any")
	checkBoth(t, table, fragment(tcp), "portless")
	// "it does not exist for the given Next Layer Protocol"
	checkBoth(t, table, flowOf("10.1.0.1", "10.2.0.1", packet.ProtoESP), "portless")
	checkBoth(t, table, icmpFlow("10.1.0.1", "10.2.0.1", 8, 0), "portless")

	checkBoth(t, mustTable(t, "any discard local=any remote=any protocol=any"), obscured, "any")
	// What the fields behind an opaque protocol would say is not to be believed.
	obscured.Protocol, obscured.PortsOpaque = packet.ProtoTCP, false
	checkBoth(t, mustTable(t, "tcp discard local=any remote=any protocol=tcp"), obscured, "-")
	checkBoth(t, mustTable(t, "portless discard local=any remote=any protocol=any remote_ports=opaque"), obscured, "portless")
}

func TestVersionDecidesTheFamily(t *testing.T) {
	four := mustTable(t, "four discard local=10.1.0.0/24 remote=0.0.0.0/0 protocol=any")
	six := mustTable(t, "six discard local=::/0 remote=::/0 protocol=any")
	f := flowOf("10.1.0.1", "10.2.0.1", packet.ProtoGRE)
	checkBoth(t, four, f, "four")
	checkBoth(t, six, f, "-")
	f.Version = 6 // the packet ::ffff:10.1.0.1 > ::ffff:10.2.0.1
	checkBoth(t, four, f, "-")
	checkBoth(t, six, f, "six")
	for _, version := range []uint8{0, 5, 255} {
		f.Version = version
		checkBoth(t, mustTable(t, "any bypass local=any remote=any protocol=any"), f, "-")
	}
}

func TestOnePolicyHoldsBothFamilies(t *testing.T) {
	table := mustTable(t, "lan discard local=10.1.0.0/24,2001:db8:1::/64 remote=2001:db8:2::/64,10.2.0.0/24,10.4.0.0/24 protocol=any")
	checkBoth(t, table, flowOf("10.1.0.1", "10.2.0.1", packet.ProtoGRE), "lan")
	checkBoth(t, table, flowOf("10.1.0.1", "10.4.0.1", packet.ProtoGRE), "lan")
	checkBoth(t, table, flowOf("10.1.0.1", "10.3.0.1", packet.ProtoGRE), "-")
	checkBoth(t, table, flowOf("2001:db8:1::1", "2001:db8:2::1", packet.ProtoGRE), "lan")
	checkBoth(t, table, flowOf("2001:db8:2::1", "2001:db8:1::1", packet.ProtoGRE), "-")
}

func TestEmptyTableDiscardsEverything(t *testing.T) {
	for _, policies := range [][]Policy{nil, {}} {
		table, err := NewTable(policies)
		if err != nil {
			t.Fatal(err)
		}
		checkBoth(t, table, withPorts("10.1.0.1", 1, "10.2.0.1", 2, packet.ProtoTCP), "-")
		checkBoth(t, table, icmpFlow("2001:db8::1", "2001:db8::2", 128, 0), "-")
		checkBoth(t, table, packet.Flow{}, "-")
		if table.Len() != 0 || len(table.Policies()) != 0 || table.Policy("") != nil || table.Shadowed() != nil {
			t.Errorf("empty table: Len %d, Policies %v, Shadowed %v", table.Len(), table.Policies(), table.Shadowed())
		}
	}
}

func TestOnePolicyTables(t *testing.T) {
	flows := map[string]packet.Flow{
		"tcp":       withPorts("10.1.0.1", 1234, "10.2.0.1", 80, packet.ProtoTCP),
		"fragment":  fragment(withPorts("10.1.0.1", 1234, "10.2.0.1", 80, packet.ProtoTCP)),
		"echo":      icmpFlow("10.1.0.1", "10.2.0.1", 8, 0),
		"gre":       flowOf("10.1.0.1", "10.2.0.1", packet.ProtoGRE),
		"tcp6":      withPorts("2001:db8::1", 1234, "2001:db8::2", 80, packet.ProtoTCP),
		"obscured6": {Version: 6, ProtocolOpaque: true, PortsOpaque: true},
	}
	for selector, hits := range map[string][]string{
		"local=any remote=any protocol=any":                                        {"tcp", "fragment", "echo", "gre", "tcp6", "obscured6"},
		"local=0.0.0.0/0 remote=0.0.0.0/0 protocol=any":                            {"tcp", "fragment", "echo", "gre"},
		"local=::/0 remote=::/0 protocol=any":                                      {"tcp6", "obscured6"},
		"local=10.1.0.1 remote=any protocol=any":                                   {"tcp", "fragment", "echo", "gre"},
		"local=any remote=10.2.0.1-10.2.0.2 protocol=any":                          {"tcp", "fragment", "echo", "gre"},
		"local=any remote=10.2.0.2 protocol=any":                                   nil,
		"local=any remote=any protocol=tcp":                                        {"tcp", "fragment", "tcp6"},
		"local=any remote=any protocol=icmp":                                       {"echo"},
		"local=any remote=any protocol=tcp remote_ports=80":                        {"tcp", "tcp6"},
		"local=any remote=any protocol=tcp local_ports=80":                         nil,
		"local=any remote=any protocol=tcp remote_ports=opaque":                    {"fragment"},
		"local=any remote=any protocol=any remote_ports=opaque":                    {"fragment", "echo", "gre", "obscured6"},
		"local=any remote=any protocol=opaque":                                     {"obscured6"},
		"local=any remote=any protocol=tcp local_ports=0-1233,1235-65535,opaque":   {"fragment"},
		"local=any remote=any protocol=icmp icmp=8/0":                              {"echo"},
		"local=any remote=any protocol=icmp icmp=8/1-255/255,opaque":               nil,
		"local=10.1.0.1,2001:db8::1 remote=2001:db8::2,10.2.0.1 protocol=47":       {"gre"},
		"local=10.1.0.1,2001:db8::1 remote=2001:db8::2 protocol=tcp local_ports=1": nil,
	} {
		table := mustTable(t, "only discard "+selector)
		for name, f := range flows {
			want := "-"
			if slices.Contains(hits, name) {
				want = "only"
			}
			checkBoth(t, table, f, want)
		}
		if t.Failed() {
			t.Fatalf("selector %s", selector)
		}
	}
}
