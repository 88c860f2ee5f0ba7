package ike

import (
	"fmt"
	"slices"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/spd"
)

// tsGroup is the traffic selectors of one list that have a protocol and an address
// range set in common: one side of an spd.Selector.
type tsGroup struct {
	protocol uint8
	addrs    []spd.AddrRange
	ports    []tsPorts
}

// groups puts a list together: first what has the same protocol and ports, then
// what has the same protocol and addresses.
func groups(list []wire.Selector) []tsGroup {
	var byPorts []tsGroup
	for _, s := range list {
		ports := tsPorts{s.FromPort, s.ToPort}
		i := slices.IndexFunc(byPorts, func(g tsGroup) bool { return g.protocol == s.Protocol && g.ports[0] == ports })
		if i < 0 {
			byPorts = append(byPorts, tsGroup{protocol: s.Protocol, ports: []tsPorts{ports}})
			i = len(byPorts) - 1
		}
		byPorts[i].addrs = append(byPorts[i].addrs, spd.AddrRange{From: s.From, To: s.To})
	}
	var out []tsGroup
	for _, g := range byPorts {
		i := slices.IndexFunc(out, func(o tsGroup) bool { return o.protocol == g.protocol && slices.Equal(o.addrs, g.addrs) })
		if i < 0 {
			out = append(out, g)
			continue
		}
		out[i].ports = append(out[i].ports, g.ports...)
	}
	return out
}

// saSelectors are the selectors of an SA with these two lists: they match the
// packets that match one of each list, and no others.
func saSelectors(p tsPair) ([]spd.Selector, error) {
	var out []spd.Selector
	for _, l := range groups(p.local) {
		for _, r := range groups(p.remote) {
			s, ok := pairSelector(l, r)
			if !ok {
				continue
			}
			if len(out) == maxSASelectors {
				return nil, fmt.Errorf("the traffic selectors make more than %d pairs: use fewer", maxSASelectors)
			}
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		return nil, errTSEmpty
	}
	return out, nil
}

// pairSelector is false where no packet matches both.
func pairSelector(l, r tsGroup) (spd.Selector, bool) {
	if l.protocol != 0 && r.protocol != 0 && l.protocol != r.protocol {
		return spd.Selector{}, false
	}
	s := spd.Selector{Local: l.addrs, Remote: r.addrs, Protocol: spd.ProtocolAny}
	if protocol := max(l.protocol, r.protocol); protocol != 0 {
		s.Protocol = spd.Protocol(protocol)
	}
	switch {
	case s.Protocol.IsICMP():
		both := meetPortLists(icmpPorts(l), icmpPorts(r))
		if len(both) == 0 {
			return spd.Selector{}, false
		}
		s.ICMP = spdPorts(both)
	case s.Protocol == spd.ProtocolAny || s.Protocol.HasPorts():
		s.LocalPorts, s.RemotePorts = spdPorts(l.ports), spdPorts(r.ports)
	}
	return s, s.Validate() == nil
}

// icmpPorts is what a group says of ICMP's type and code. What it says of ports of
// any protocol is nothing of theirs.
func icmpPorts(g tsGroup) []tsPorts {
	if g.protocol == 0 {
		return []tsPorts{portsAny}
	}
	return g.ports
}

func meetPortLists(a, b []tsPorts) []tsPorts {
	var out []tsPorts
	for _, x := range a {
		for _, y := range b {
			if m, ok := meetPorts(x, y); ok {
				out = append(out, m)
			}
		}
	}
	return out
}

func spdPorts(list []tsPorts) spd.Ports {
	if slices.Contains(list, portsAny) {
		return spd.Ports{}
	}
	var p spd.Ports
	for _, r := range list {
		if r == portsOpaque {
			p.Opaque = true
			continue
		}
		p.Ranges = append(p.Ranges, spd.PortRange{From: r.from, To: r.to})
	}
	return p
}
