package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/adit-ipsec/adit/spd"
)

func (d *decoder) readPolicies(root *object) {
	v, ok := d.get(root, "policies")
	if !ok {
		return
	}
	items, ok := v.list("policies: `- name: …`")
	if !ok {
		return
	}
	names := map[string]bool{}
	for _, item := range items {
		p := d.policy(d.mark(item))
		if p.Name != "" && names[p.Name] {
			d.fail(item.key+".name", fmt.Sprintf("a second policy is called %q", p.Name), "give each policy a name of its own")
		}
		names[p.Name] = true
		d.Policies = append(d.Policies, p)
	}
}

func (d *decoder) policy(v value) (p spd.Policy) {
	o, ok := v.object("name", "local", "remote", "protocol", "local_ports", "remote_ports", "icmp", "action", "peer")
	if !ok {
		return p
	}
	before := len(d.s.errs.List)
	if v, ok := o.need("name", "add `name: …`; counters and logs use it"); ok {
		p.Name, _ = d.mark(v).name()
	}
	p.Selector.Local = d.addresses(o, "local", "on this gateway's side")
	p.Selector.Remote = d.addresses(o, "remote", "on the peer's side")
	p.Selector.Protocol = spd.ProtocolAny
	if v, ok := d.get(o, "protocol"); ok {
		p.Selector.Protocol = d.protocol(v)
	}
	d.ports(o, &p.Selector)
	d.action(o, &p)
	if len(d.s.errs.List) == before {
		d.validatePolicy(v.key, &p)
	}
	return p
}

// validatePolicy is spd's own judgment, at the policy's place. What config
// checks itself, with a better place, does not come this far.
func (d *decoder) validatePolicy(key string, p *spd.Policy) {
	s := &p.Selector
	if !both(*s, netip.Addr.Is4) && !both(*s, netip.Addr.Is6) {
		d.fail(key+".remote", "local and remote have no address family in common, so that nothing can match", "write IPv4 on both sides, IPv6 on both sides, or both on both")
		return
	}
	if err := p.Validate(); err != nil {
		problem, fix, _ := strings.Cut(err.Error(), ": ")
		d.fail(key, problem, fix)
		return
	}
	only4, only6 := !both(*s, netip.Addr.Is6), !both(*s, netip.Addr.Is4)
	if name := s.Protocol.String(); name == "icmp" && only6 || name == "icmpv6" && only4 {
		d.warn(key+".protocol", fmt.Sprintf("%s never runs over the addresses of this policy; over IPv4 it is icmp, over IPv6 icmpv6", name))
	}
}

// both tells whether local and remote each have a range of a family.
func both(s spd.Selector, family func(netip.Addr) bool) bool {
	has := func(list []spd.AddrRange) bool {
		return slices.ContainsFunc(list, func(r spd.AddrRange) bool { return family(r.From) })
	}
	return has(s.Local) && has(s.Remote)
}

// addresses reads a list of addresses, prefixes and ranges.
func (d *decoder) addresses(o *object, name, side string) []spd.AddrRange {
	const form = "such as [10.1.0.0/24], or [any]"
	v, ok := o.need(name, fmt.Sprintf("add `%s: [...]`, the addresses %s, %s", name, side, form))
	if !ok {
		return nil
	}
	items, ok := d.mark(v).list("addresses, " + form)
	if !ok {
		return nil
	}
	if len(items) == 0 {
		v.fail("the list is empty", "name the addresses, "+form)
	}
	var list []spd.AddrRange
	for _, item := range items {
		text, ok := d.mark(item).word("write an address, a prefix, a range in quotes, or any")
		if !ok {
			continue
		}
		ranges, err := spd.ParseAddrRanges(text)
		if err != nil {
			item.foreign(err, text)
			continue
		}
		list = append(list, ranges...)
	}
	return list
}

// foreign reports the error of another package's parser, which quotes text.
func (v value) foreign(err error, text string) {
	problem, fix, _ := strings.Cut(err.Error(), ": write ")
	if !showable(text) || strings.Contains(problem, "\n") {
		v.wrong("check the value")
		return
	}
	if fix != "" {
		fix = "write " + fix
	}
	v.fail(problem, fix)
}

// selectorText reads a scalar that selectors accept with or without quotes.
func (v value) selectorText(fix string) (string, bool) {
	s, kind := v.scalar()
	if kind != text && kind != number {
		v.wrong(fix)
		return "", false
	}
	return s, v.oneLine()
}

func (d *decoder) protocol(v value) spd.Protocol {
	text, ok := v.selectorText("write a protocol's name or its number, 0 to 255, or any")
	if !ok {
		return spd.ProtocolAny
	}
	p, err := spd.ParseProtocol(text)
	if err != nil {
		v.foreign(err, text)
		return spd.ProtocolAny
	}
	return p
}

// ports reads the three port fields. A port on a protocol without ports is an
// impossible combination, named at the list that holds it.
func (d *decoder) ports(o *object, s *spd.Selector) {
	for _, f := range []struct {
		name  string
		to    *spd.Ports
		parse func(...string) (spd.Ports, error)
		form  string
	}{
		{"local_ports", &s.LocalPorts, spd.ParsePorts, `such as [80, "5060-5070"], [opaque] or [any]`},
		{"remote_ports", &s.RemotePorts, spd.ParsePorts, `such as [80, "5060-5070"], [opaque] or [any]`},
		{"icmp", &s.ICMP, spd.ParseICMPs, `such as ["8", "3/4", "0-8"] or [any]`},
	} {
		v, ok := d.get(o, f.name)
		if !ok {
			continue
		}
		*f.to, ok = d.portList(v, f.parse, f.form)
		if !ok || f.to.IsAny() {
			continue
		}
		only := *s
		only.Local, only.Remote = []spd.AddrRange{{From: netip.IPv6Loopback(), To: netip.IPv6Loopback()}}, []spd.AddrRange{{From: netip.IPv6Loopback(), To: netip.IPv6Loopback()}}
		only.LocalPorts, only.RemotePorts, only.ICMP = spd.Ports{}, spd.Ports{}, spd.Ports{}
		switch f.name {
		case "local_ports":
			only.LocalPorts = *f.to
		case "remote_ports":
			only.RemotePorts = *f.to
		default:
			only.ICMP = *f.to
		}
		if err := only.Validate(); err != nil {
			problem, fix, _ := strings.Cut(strings.TrimPrefix(err.Error(), f.name+": "), ": ")
			v.fail(problem, fix)
		}
	}
}

// portList reads a list of ports or of ICMP types.
func (d *decoder) portList(v value, parse func(...string) (spd.Ports, error), form string) (p spd.Ports, ok bool) {
	items, ok := v.list("values " + form)
	if !ok {
		return p, false
	}
	if len(items) == 0 {
		v.fail("the list is empty", "write a list "+form+", or leave the key out")
		return p, false
	}
	var texts []string
	for _, item := range items {
		text, read := d.mark(item).selectorText("write a value " + form)
		if !read {
			ok = false
			continue
		}
		if _, err := parse(text); err != nil {
			item.foreign(err, text)
			ok = false
		}
		texts = append(texts, text)
	}
	if !ok {
		return p, false
	}
	if p, err := parse(texts...); err == nil {
		return p, true
	}
	v.fail("any stands beside other values", "write [any] alone, or leave any out")
	return p, false
}

// action reads what becomes of the packets, and who protects them.
func (d *decoder) action(o *object, p *spd.Policy) {
	v, ok := o.need("action", "add `action: protect`, `bypass` or `discard`")
	if !ok {
		return
	}
	word, ok := d.mark(v).choice("protect", "bypass", "discard")
	if !ok {
		return
	}
	p.Action, _ = spd.ParseAction(word)
	peer, named := d.get(o, "peer")
	switch {
	case p.Action == spd.Protect && !named:
		o.s.fail(o.at, o.key+".peer", "the key is missing, and `action: protect` needs it", "add `peer: …`, the peer that has the SAs")
	case p.Action != spd.Protect && named:
		peer.fail(fmt.Sprintf("a peer with `action: %s`, which sends nothing to a peer", word), "remove it, or write `action: protect`")
	case named:
		name, ok := peer.word("write the name of a peer")
		if !ok {
			return
		}
		p.Peer = name
		if !slices.ContainsFunc(d.Peers, func(p Peer) bool { return p.Name == name }) {
			d.unknownName(peer, "peer", name, d.peerNames())
		}
	}
}

func (d *decoder) peerNames() []string {
	names := make([]string, len(d.Peers))
	for i := range d.Peers {
		names[i] = d.Peers[i].Name
	}
	return names
}
