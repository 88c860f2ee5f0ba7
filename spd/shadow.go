package spd

import (
	"fmt"
	"slices"

	"github.com/adit-ipsec/adit/internal/packet"
)

// Shadow is a policy that can never match, because one earlier policy matches
// everything that it would.
type Shadow struct {
	Policy *Policy // can never match
	By     *Policy // the first policy that covers all of it
}

// String is the finding as a sentence for the operator.
func (s Shadow) String() string {
	return fmt.Sprintf("policy %q never matches: %q comes before it and matches all that it would; move it up or remove it", s.Policy.Name, s.By.Name)
}

// Shadowed returns the policies that one earlier policy covers wholly, in
// order. It compares pairs: a policy that several earlier ones cover only
// together is not found.
func (t *Table) Shadowed() []Shadow {
	var found []Shadow
	for i := range t.policies {
		// A policy that covers this one matches this sample of it, so
		// the classifier leaves few to compare.
		var p point
		f := t.policies[i].Selector.sample()
		t.classifier.locate(Outbound, &f, &p)
		if by := t.firstCovering(&p, i); by >= 0 {
			found = append(found, Shadow{&t.policies[i], &t.policies[by]})
		}
	}
	return found
}

// firstCovering returns the index of the first policy before i that is in all
// sets of p and covers policy i, -1 if there is none.
func (t *Table) firstCovering(p *point, i int) int {
	for w := range i/64 + 1 {
		word := t.classifier.word(p, w)
		for bit := range 64 {
			j := w*64 + bit
			if j >= i {
				break
			}
			if word>>bit&1 != 0 && t.policies[j].Selector.Covers(&t.policies[i].Selector) {
				return j
			}
		}
	}
	return -1
}

// sample is a flow that the valid selector matches, outbound.
func (s *Selector) sample() packet.Flow {
	v4 := s.hasFamily(true)
	f := packet.Flow{Version: 6}
	if v4 {
		f.Version = 4
	}
	first := func(ranges []AddrRange) [16]byte {
		i := slices.IndexFunc(ranges, func(r AddrRange) bool { return r.From.Is4() == v4 })
		return ranges[i].From.As16()
	}
	f.Src, f.Dst = first(s.Local), first(s.Remote)
	if s.Protocol < 0 {
		f.ProtocolOpaque, f.PortsOpaque = true, true
		return f
	}
	f.Protocol = uint8(s.Protocol)
	if s.LocalPorts.MatchOpaque() && s.RemotePorts.MatchOpaque() && s.ICMP.MatchOpaque() {
		f.PortsOpaque = true
		return f
	}
	lowest := func(p *Ports) uint16 {
		if len(p.Ranges) == 0 {
			return 0
		}
		return p.Ranges[0].From
	}
	f.SrcPort, f.DstPort = lowest(&s.LocalPorts), lowest(&s.RemotePorts)
	if s.Protocol.IsICMP() {
		f.SrcPort = lowest(&s.ICMP)
		f.DstPort = f.SrcPort
	}
	return f
}

// Covers tells whether s matches every flow that x matches. Both are taken to
// be valid.
func (s *Selector) Covers(x *Selector) bool {
	for _, v4 := range [...]bool{true, false} {
		if !x.hasFamily(v4) {
			continue
		}
		if !coversAddrs(s.Local, x.Local, v4) || !coversAddrs(s.Remote, x.Remote, v4) {
			return false
		}
	}
	return s.coversProtocol(x)
}

func coversAddrs(s, x []AddrRange, v4 bool) bool {
	return coversIntervals(addrIntervals(nil, s, v4), addrIntervals(nil, x, v4))
}

// coversProtocol compares protocol and ports, which go together: what ports
// mean depends on the protocol.
func (s *Selector) coversProtocol(x *Selector) bool {
	switch {
	case s.Protocol == x.Protocol && s.Protocol != ProtocolAny:
		return s.coversPorts(x, x.Protocol)
	case s.Protocol != ProtocolAny:
		return false
	case x.Protocol != ProtocolAny:
		return s.coversPorts(x, x.Protocol)
	}
	// Both are ANY: only protocols that have ports can tell ports ANY from
	// ports OPAQUE, and one of them speaks for all.
	return s.coversPorts(x, packet.ProtoTCP)
}

// coversPorts compares ports, or ICMP types and codes, for flows of one
// protocol: first where the fields are to be had, then where they are not.
func (s *Selector) coversPorts(x *Selector, protocol Protocol) bool {
	opaque := func(s *Selector) bool {
		return s.LocalPorts.MatchOpaque() && s.RemotePorts.MatchOpaque() && s.ICMP.MatchOpaque()
	}
	if opaque(x) && !opaque(s) {
		return false
	}
	switch {
	case protocol.HasPorts():
		xl, xr := values(&x.LocalPorts), values(&x.RemotePorts)
		return len(xl) == 0 || len(xr) == 0 ||
			coversIntervals(values(&s.LocalPorts), xl) && coversIntervals(values(&s.RemotePorts), xr)
	case protocol.IsICMP():
		return coversIntervals(values(&s.ICMP), values(&x.ICMP))
	}
	return true
}

// values is the ports that p matches where there are ports.
func values(p *Ports) []interval {
	if p.IsAny() {
		return []interval{{key{}, key{lo: opaquePort - 1}}}
	}
	var out []interval
	for _, r := range p.Ranges {
		out = append(out, interval{key{lo: uint64(r.From)}, key{lo: uint64(r.To)}})
	}
	return out
}

// coversIntervals tells whether every value in x is in s.
func coversIntervals(s, x []interval) bool {
	s, x = mergeIntervals(s), mergeIntervals(x)
	for _, v := range x {
		inside := func(o interval) bool { return o.from.compare(v.from) <= 0 && v.to.compare(o.to) <= 0 }
		if !slices.ContainsFunc(s, inside) {
			return false
		}
	}
	return true
}
