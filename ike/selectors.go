package ike

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/spd"
)

// Traffic selectors: spd.Selector on one side, TSi and TSr (RFC 7296 3.13) on the
// other. A Child SA carries the packets that match one traffic selector of each of
// its two lists: the lists are independent, so that a pair of lists is a product.
// What a policy says is a sum of products; see offerable.

// tsPair is the two lists of a Child SA, seen from this end. Its order counts:
// the first of each may be the packet that the SA was asked for.
type tsPair struct{ local, remote []wire.Selector }

// tsPorts is what one traffic selector says of a port field.
type tsPorts struct {
	from, to uint16
}

// RFC 7296 3.13.1: "Systems that are complying with [IPSECARCH] that wish to
// indicate "ANY" ports MUST set the start port to 0 and the end port to 65535;
// note that according to [IPSECARCH], "ANY" includes "OPAQUE". Systems working
// with [IPSECARCH] that wish to indicate "OPAQUE" ports, but not "ANY" ports, MUST
// set the start port to 65535 and the end port to 0."
var (
	portsAny    = tsPorts{0, 65535}
	portsOpaque = tsPorts{65535, 0}
)

// maxTS is how many traffic selectors one payload has room for (RFC 7296 3.13:
// the number of them is one byte).
const maxTS = 255

var (
	errTSOpaque  = errors.New("protocol opaque cannot be negotiated: IKEv2 has no traffic selector for it (RFC 7296 3.13.1): make a policy with protocol any")
	errTSProduct = errors.New("its selectors cannot be one Child SA: traffic selectors are two independent lists (RFC 7296 3.13), and each local one would reach each remote one: make a policy of each selector")
	errTSMany    = errors.New("too many traffic selectors: a Child SA takes 255 for each side (RFC 7296 3.13): use fewer, wider ranges")
	errTSEmpty   = errors.New("no selectors")
)

// offerTS is what this end proposes for a policy. A known flow comes first:
// RFC 7296 2.9: "if the initiator has requested the SA due to a data packet, the
// initiator SHOULD include as the first Traffic Selector in each of TSi and TSr a
// very specific Traffic Selector including the addresses in the packet triggering
// the request."
func offerTS(policy []spd.Selector, flow packet.Flow) (tsPair, error) {
	p, err := policyTS(policy)
	if err != nil || flow.Version == 0 || !matchesAny(policy, &flow) {
		return p, err
	}
	local, remote := flowTS(&flow, p)
	p.local = prepend(local, p.local)
	p.remote = prepend(remote, p.remote)
	return p, nil
}

func prepend(first wire.Selector, rest []wire.Selector) []wire.Selector {
	if len(rest) > 0 && rest[0] == first {
		return rest
	}
	rest = slices.DeleteFunc(slices.Clone(rest), func(s wire.Selector) bool { return s == first })
	return append([]wire.Selector{first}, rest[:min(len(rest), maxTS-1)]...)
}

func matchesAny(policy []spd.Selector, flow *packet.Flow) bool {
	return slices.ContainsFunc(policy, func(s spd.Selector) bool { return s.Match(spd.Outbound, flow) })
}

// flowTS is the pair of traffic selectors of one packet, outbound.
func flowTS(f *packet.Flow, within tsPair) (local, remote wire.Selector) {
	local = wire.Selector{Protocol: f.Protocol, From: f.SrcAddr(), To: f.SrcAddr(), ToPort: 65535}
	remote = wire.Selector{Protocol: f.Protocol, From: f.DstAddr(), To: f.DstAddr(), ToPort: 65535}
	switch {
	case f.ProtocolOpaque:
		local.Protocol, remote.Protocol = 0, 0
	case f.HasPorts() && !f.PortsOpaque:
		local.FromPort, local.ToPort = f.SrcPort, f.SrcPort
		remote.FromPort, remote.ToPort = f.DstPort, f.DstPort
	}
	// A packet without ports matches a policy that says any, or opaque.
	for i, list := range [][]wire.Selector{within.local, within.remote} {
		one := []*wire.Selector{&local, &remote}[i]
		if !tsCovers(list, *one) {
			one.FromPort, one.ToPort = portsOpaque.from, portsOpaque.to
		}
	}
	return local, remote
}

// policyTS is the whole policy as one pair of lists, if it is a product.
func policyTS(policy []spd.Selector) (tsPair, error) {
	var sum tsPair
	for i := range policy {
		p, err := selectorTS(&policy[i])
		if err != nil {
			return tsPair{}, err
		}
		sum.local = append(sum.local, p.local...)
		sum.remote = append(sum.remote, p.remote...)
	}
	sum.local, sum.remote = widest(sum.local), widest(sum.remote)
	switch {
	case len(policy) == 0:
		return tsPair{}, errTSEmpty
	case len(sum.local) > maxTS || len(sum.remote) > maxTS:
		return tsPair{}, errTSMany
	case !offerable(policy, sum):
		return tsPair{}, errTSProduct
	}
	return sum, nil
}

// offerable tells whether each packet of the product p belongs to the policy.
// One selector is always a product. Several are if, for each pair of lists that
// the product puts together, some selector has both.
func offerable(policy []spd.Selector, p tsPair) bool {
	if len(policy) == 1 {
		return true
	}
	products := make([]tsPair, 0, len(policy))
	for i := range policy {
		one, err := selectorTS(&policy[i])
		if err != nil {
			return false
		}
		products = append(products, one)
	}
	for _, l := range p.local {
		// All that the remote side may be for this local one.
		var reach []wire.Selector
		for _, one := range products {
			if tsCovers(one.local, l) {
				reach = append(reach, one.remote...)
			}
		}
		for _, r := range p.remote {
			if !tsApart(l, r) && !tsCovers(reach, r) {
				return false
			}
		}
	}
	return true
}

// selectorTS is one selector as a pair of lists.
func selectorTS(s *spd.Selector) (tsPair, error) {
	if s.Protocol == spd.ProtocolOpaque {
		return tsPair{}, errTSOpaque
	}
	var protocol uint8 // RFC 7296 3.13.1: "A value of zero means that the protocol ID is not relevant to this Traffic Selector"
	if s.Protocol != spd.ProtocolAny {
		// Zero is taken; and no packet that matters is hop-by-hop options
		// alone.
		if s.Protocol == 0 {
			return tsPair{}, errors.New("protocol 0 cannot be negotiated: it means any protocol in a traffic selector (RFC 7296 3.13.1): use any")
		}
		protocol = uint8(s.Protocol)
	}
	local, remote := &s.LocalPorts, &s.RemotePorts
	if s.Protocol.IsICMP() {
		// RFC 4301 4.4.1.3 puts the type and code of ICMP into both lists
		// where they may be sent and received.
		local, remote = &s.ICMP, &s.ICMP
	}
	p := tsPair{tsList(s.Local, protocol, local), tsList(s.Remote, protocol, remote)}
	if len(p.local) > maxTS || len(p.remote) > maxTS {
		return tsPair{}, errTSMany
	}
	return p, nil
}

// tsList is every address range with every port range.
func tsList(addrs []spd.AddrRange, protocol uint8, ports *spd.Ports) []wire.Selector {
	list := make([]wire.Selector, 0, len(addrs))
	for _, a := range addrs {
		for _, p := range portList(ports) {
			list = append(list, wire.Selector{Protocol: protocol, FromPort: p.from, ToPort: p.to, From: a.From, To: a.To})
		}
	}
	return list
}

func portList(p *spd.Ports) []tsPorts {
	if p.IsAny() {
		return []tsPorts{portsAny}
	}
	var list []tsPorts
	if p.Opaque {
		list = append(list, portsOpaque)
	}
	for _, r := range p.Ranges {
		// 0-65535 would mean opaque as well: in two parts it does not.
		if r == (spd.PortRange{From: 0, To: 65535}) {
			list = append(list, tsPorts{0, 32767}, tsPorts{32768, 65535})
			continue
		}
		list = append(list, tsPorts{r.From, r.To})
	}
	return list
}

// tsUsable tells whether this end can tell what a traffic selector matches. The
// others are left out of what is agreed: to narrow is the responder's right.
func tsUsable(s wire.Selector) bool {
	if s.Unknown || !s.From.IsValid() || !s.To.IsValid() || s.From.Is4() != s.To.Is4() || s.To.Less(s.From) {
		return false
	}
	if !plainAddr(s.From) || !plainAddr(s.To) {
		return false
	}
	ports := tsPorts{s.FromPort, s.ToPort}
	if ports == portsAny || ports == portsOpaque {
		return true
	}
	// RFC 7296 3.13.1: "For protocols for which port is undefined (including
	// protocol 0), or if all ports are allowed, this field MUST be zero." A
	// range is therefore for a protocol whose ports the data path knows.
	protocol := spd.Protocol(s.Protocol)
	return s.FromPort <= s.ToPort && (protocol.HasPorts() || protocol.IsICMP())
}

func plainAddr(a netip.Addr) bool { return a.Zone() == "" && !a.Is4In6() }

// tsText is a list for the log.
func tsText(list []wire.Selector) string {
	var out string
	for i, s := range list {
		switch {
		case i == 8:
			return out + fmt.Sprintf(" and %d more", len(list)-i)
		case i > 0:
			out += ", "
		}
		out += tsOneText(s)
	}
	return out
}

func tsOneText(s wire.Selector) string {
	if !s.From.IsValid() || !s.To.IsValid() {
		return "unknown kind"
	}
	text := spd.AddrRange{From: s.From, To: s.To}.String()
	ports, protocol := tsPorts{s.FromPort, s.ToPort}, "any"
	if s.Protocol != 0 {
		protocol = spd.Protocol(s.Protocol).String()
	}
	switch {
	case s.Protocol == 0 && ports == portsAny:
		return text
	case ports == portsAny:
		return fmt.Sprintf("%s[%s]", text, protocol)
	case ports == portsOpaque:
		return fmt.Sprintf("%s[%s/opaque]", text, protocol)
	}
	return fmt.Sprintf("%s[%s/%d-%d]", text, protocol, s.FromPort, s.ToPort)
}

func (p tsPair) String() string { return tsText(p.local) + " === " + tsText(p.remote) }
