package spd

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
)

// flowOf is a flow between two addresses of one family.
func flowOf(src, dst string, protocol uint8) packet.Flow {
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	f := packet.Flow{Src: s.As16(), Dst: d.As16(), Protocol: protocol, Version: 6}
	if s.Is4() {
		f.Version = 4
	}
	return f
}

// withPorts is a TCP, UDP or SCTP flow.
func withPorts(src string, sport uint16, dst string, dport uint16, protocol uint8) packet.Flow {
	f := flowOf(src, dst, protocol)
	f.SrcPort, f.DstPort = sport, dport
	return f
}

// icmpFlow is a flow of ICMP, or of ICMPv6 between IPv6 addresses.
func icmpFlow(src, dst string, typ, code uint8) packet.Flow {
	f := flowOf(src, dst, packet.ProtoICMP)
	if f.Version == 6 {
		f.Protocol = packet.ProtoICMPv6
	}
	f.SrcPort = uint16(typ)<<8 | uint16(code)
	f.DstPort = f.SrcPort
	return f
}

// fragment is f as a non-initial fragment: its ports are not to be had.
func fragment(f packet.Flow) packet.Flow {
	f.SrcPort, f.DstPort, f.PortsOpaque = 0, 0, true
	return f
}

func mustSelector(t testing.TB, text string) Selector {
	t.Helper()
	s, err := ParseSelector(text)
	if err != nil {
		t.Fatalf("ParseSelector(%q): %v", text, err)
	}
	return s
}

// mustTable reads one policy a line: NAME ACTION[:PEER] SELECTOR.
func mustTable(t testing.TB, lines ...string) *Table {
	t.Helper()
	var policies []Policy
	for _, line := range lines {
		part := strings.SplitN(line, " ", 3)
		action, peer, _ := strings.Cut(part[1], ":")
		a, err := ParseAction(action)
		if err != nil {
			t.Fatal(err)
		}
		policies = append(policies, Policy{Name: part[0], Action: a, Peer: peer, Selector: mustSelector(t, part[2])})
	}
	table, err := NewTable(policies)
	if err != nil {
		t.Fatalf("NewTable: %v", err)
	}
	return table
}

// nameOf is the policy's name, "-" for none.
func nameOf(p *Policy) string {
	if p == nil {
		return "-"
	}
	return p.Name
}

// check looks one flow up in both ways and reports what differs from want, a
// policy's name or "-".
func check(t testing.TB, table *Table, dir Direction, f packet.Flow, want string) {
	t.Helper()
	if got := nameOf(table.Lookup(dir, &f)); got != want {
		t.Errorf("Lookup(%v, %v, opaque ports %v) = %s, want %s", dir, f, f.PortsOpaque, got, want)
	}
	if got := nameOf(table.LookupLinear(dir, &f)); got != want {
		t.Errorf("LookupLinear(%v, %v, opaque ports %v) = %s, want %s", dir, f, f.PortsOpaque, got, want)
	}
}

// checkBoth checks an outbound flow and the inbound flow that answers it.
func checkBoth(t testing.TB, table *Table, f packet.Flow, want string) {
	t.Helper()
	check(t, table, Outbound, f, want)
	check(t, table, Inbound, f.Reverse(), want)
}
