package config

import (
	"crypto/subtle"
	"fmt"
	"net/netip"
	"slices"

	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// Difference is a field in which two ends of a tunnel do not mirror each
// other. It holds no key.
type Difference struct {
	Key  string   // key path in the first file
	A, B Position // where each file says its part, or where it would stand
	Text string   // what each end says
}

// String is the difference on one line, with both places.
func (d Difference) String() string {
	return fmt.Sprintf("%s: %s: %s (other end: %s)", d.A, d.Key, d.Text, d.B)
}

// Mirror holds two files against each other, as the two ends of one or more
// tunnels: what a sends must be what b expects, and the other way round. It
// returns every field that does not fit, peer by peer of a; nothing: the ends
// mirror each other. Peers of either file that are some third gateway are left
// alone.
func Mirror(a, b *Config) []Difference {
	m := &mirror{a: a, b: b}
	for _, p := range m.pair() {
		m.peers(p[0], p[1])
	}
	return m.list
}

type mirror struct {
	a, b *Config
	list []Difference
}

// differ notes that keyA in a and keyB in b do not fit.
func (m *mirror) differ(keyA, keyB, format string, args ...any) {
	m.list = append(m.list, Difference{
		Key: keyA, A: m.a.Position(keyA), B: m.b.Position(keyB), Text: fmt.Sprintf(format, args...),
	})
}

// pair finds which peer of a stands for which peer of b: the pair with most in
// common first, addresses and SPIs counted. Two lone peers are a pair whatever
// they say, so that each of their mistakes is named.
func (m *mirror) pair() (pairs [][2]int) {
	type candidate struct{ i, j, score int }
	var all []candidate
	for i := range m.a.Peers {
		for j := range m.b.Peers {
			if s := m.score(&m.a.Peers[i], &m.b.Peers[j]); s > 0 {
				all = append(all, candidate{i, j, s})
			}
		}
	}
	slices.SortStableFunc(all, func(x, y candidate) int { return y.score - x.score })
	usedA, usedB := map[int]bool{}, map[int]bool{}
	for _, c := range all {
		if !usedA[c.i] && !usedB[c.j] {
			usedA[c.i], usedB[c.j] = true, true
			pairs = append(pairs, [2]int{c.i, c.j})
		}
	}
	slices.SortFunc(pairs, func(x, y [2]int) int { return x[0] - y[0] })
	switch {
	case len(pairs) > 0:
		m.unpaired(usedA, usedB)
	case len(m.a.Peers) == 1 && len(m.b.Peers) == 1:
		return [][2]int{{0, 0}}
	default:
		m.differ("peers", "peers", "no peer of %s is the other end of a peer of %s: neither addresses, SPIs nor identities meet", m.a.Path, m.b.Path)
	}
	return pairs
}

// unpaired notes peers that have the other end's address and no counterpart.
func (m *mirror) unpaired(usedA, usedB map[int]bool) {
	for i := range m.a.Peers {
		if p := &m.a.Peers[i]; !usedA[i] && p.Address.IsValid() && p.Address == m.b.Listen.Address {
			m.differ(fmt.Sprintf("peers[%d]", i), "peers", "peer %q has no counterpart at the other end", p.Name)
		}
	}
	for j := range m.b.Peers {
		if p := &m.b.Peers[j]; !usedB[j] && p.Address.IsValid() && p.Address == m.a.Listen.Address {
			m.differ("peers", fmt.Sprintf("peers[%d]", j), "the other end's peer %q has no counterpart here", p.Name)
		}
	}
}

// score counts what speaks for pa and pb being the two ends of one tunnel.
func (m *mirror) score(pa, pb *Peer) (n int) {
	if pa.Address.IsValid() && pa.Address == m.b.Listen.Address {
		n += 2
	}
	if pb.Address.IsValid() && pb.Address == m.a.Listen.Address {
		n += 2
	}
	n += ikeScore(pa, pb)
	for _, sa := range pa.SAs {
		for _, sb := range pb.SAs {
			if sa.SPI == sb.SPI && sa.Direction != sb.Direction && sa.Protocol == sb.Protocol {
				n++
			}
		}
	}
	return n
}

// peers compares peer i of a with peer j of b.
func (m *mirror) peers(i, j int) {
	pa, pb := &m.a.Peers[i], &m.b.Peers[j]
	fa, fb := m.a.Profiles[pa.Profile], m.b.Profiles[pb.Profile]
	keyA, keyB := fmt.Sprintf("peers[%d]", i), fmt.Sprintf("peers[%d]", j)
	profileA, profileB := profileKey(pa.Profile), profileKey(pb.Profile)

	if !m.keyings(keyA, keyB, pa, pb) {
		return
	}
	m.addresses(keyA, keyB, pa, pb)
	if fa.Protocol != fb.Protocol {
		m.differ(profileA+".protocol", profileB+".protocol", "%s here, %s at the other end", fa.Protocol, fb.Protocol)
	}
	if fa.Mode != fb.Mode {
		m.differ(profileA+".mode", profileB+".mode", "%s here, %s at the other end", fa.Mode, fb.Mode)
	}
	if fa.Encap != fb.Encap {
		m.differ(profileA+".encap", profileB+".encap", "%s here, %s at the other end", fa.Encap, fb.Encap)
	} else if fa.Encap == sad.EncapUDP {
		m.ports(keyA, keyB, pa, pb, fa, fb)
	}
	if fa.ESN != fb.ESN {
		m.differ(profileA+".esn", profileB+".esn", "%t here, %t at the other end", fa.ESN, fb.ESN)
	}
	if fa.ReplayWindow != fb.ReplayWindow {
		m.differ(profileA+".replay_window", profileB+".replay_window", "%d here, %d at the other end", fa.ReplayWindow, fb.ReplayWindow)
	}
	if fa.Protocol == fb.Protocol {
		m.sas(keyA, keyB, pa, pb)
	}
	m.policies(pa, pb)
}

// addresses: each end sends to where the other one listens, unless a NAT stands
// in front of that one. Both behind one cannot be: with fixed addresses nobody
// would open the way. In front of the NATs there is one pair of addresses.
func (m *mirror) addresses(keyA, keyB string, pa, pb *Peer) {
	if at := m.b.Listen.Address; at.IsValid() && at != pa.Address && !pb.BehindNAT && !pa.anywhere() {
		m.differ(keyA+".address", "listen.address", "the peer is %s here, and the other end listens on %s", pa.Address, at)
	}
	if at := m.a.Listen.Address; at.IsValid() && at != pb.Address && !pa.BehindNAT && !pb.anywhere() {
		m.differ("listen.address", keyB+".address", "this end listens on %s, and the other end's peer is %s", at, pb.Address)
	}
	if pa.BehindNAT && pb.BehindNAT {
		m.differ(keyA+".behind_nat", keyB+".behind_nat", "true at both ends: neither can reach the other first")
	}
	if a, b := pa.OriginalLocal, pb.OriginalRemote; a != b {
		m.differ(keyA+".original_local", keyB+".original_remote", "original_local is %s here, original_remote is %s at the other end", addressOrNone(a), addressOrNone(b))
	}
	if a, b := pa.OriginalRemote, pb.OriginalLocal; a != b {
		m.differ(keyA+".original_remote", keyB+".original_local", "original_remote is %s here, original_local is %s at the other end", addressOrNone(a), addressOrNone(b))
	}
}

func addressOrNone(a netip.Addr) string {
	if !a.IsValid() {
		return "none"
	}
	return a.String()
}

// ports: each end sends to the port on which the other one listens, unless a NAT
// gives that one another.
func (m *mirror) ports(keyA, keyB string, pa, pb *Peer, fa, fb Profile) {
	portKey := func(c *Config, peer string, p *Peer) string {
		if p.Port == 0 {
			return "listen.natt_port"
		}
		return peer + ".port"
	}
	if to, at := m.a.remotePort(pa, fa), m.b.localPort(fb); to != at && !pb.BehindNAT {
		m.differ(portKey(m.a, keyA, pa), "listen.natt_port", "this end sends to port %d, the other end listens on %d", to, at)
	}
	if to, at := m.b.remotePort(pb, fb), m.a.localPort(fa); to != at && !pa.BehindNAT {
		m.differ("listen.natt_port", portKey(m.b, keyB, pb), "this end listens on port %d, the other end sends to %d", at, to)
	}
}

// secretKey is the key path under which the SA at sa names a key.
func (c *Config) secretKey(sa, name string) string {
	if _, file := c.positions[sa+"."+name+"_file"]; file {
		return sa + "." + name + "_file"
	}
	return sa + "." + name
}

func equalKeys(a, b sad.Key) bool { return subtle.ConstantTimeCompare(a, b) == 1 }

// indexed is a protect policy with its place in the file.
type indexed struct {
	key string
	p   *spd.Policy
}

func (c *Config) policiesOf(peer string) (list []indexed) {
	for i := range c.Policies {
		if p := &c.Policies[i]; p.Action == spd.Protect && p.Peer == peer {
			list = append(list, indexed{fmt.Sprintf("policies[%d]", i), p})
		}
	}
	return list
}

// policies compares what the two ends protect. Exact mirror images go first;
// of the rest, policies of one name belong together, then those left over in
// their order.
func (m *mirror) policies(pa, pb *Peer) {
	m.bypasses(pa, pb)
	as, bs := m.a.policiesOf(pa.Name), m.seenHere(m.b.policiesOf(pb.Name), pa, pb)
	take := func(same func(a, b indexed) bool, found func(a, b indexed)) {
		as = slices.DeleteFunc(as, func(a indexed) bool {
			j := slices.IndexFunc(bs, func(b indexed) bool { return same(a, b) })
			if j < 0 {
				return false
			}
			found(a, bs[j])
			bs = slices.Delete(bs, j, j+1)
			return true
		})
	}
	take(func(a, b indexed) bool { return len(selectorDifferences(a.p, b.p)) == 0 }, func(_, _ indexed) {})
	take(func(a, b indexed) bool { return a.p.Name == b.p.Name }, m.policy)
	take(func(_, _ indexed) bool { return true }, m.policy)
	for _, a := range as {
		m.differ(a.key, "policies", "policy %q has no counterpart at the other end", a.p.Name)
	}
	for _, b := range bs {
		m.differ("policies", b.key, "the other end's policy %q has no counterpart here", b.p.Name)
	}
}

// bypasses compares what passes in clear though a later policy would protect it:
// the first match wins, so that the other end must let it pass in clear too.
// Discard policies are not compared: each end may be the stricter one.
func (m *mirror) bypasses(pa, pb *Peer) {
	as, bs := m.a.bypassesBefore(pa.Name), m.seenHere(m.b.bypassesBefore(pb.Name), pa, pb)
	mirrored := func(p *spd.Policy, list []indexed) bool {
		return slices.ContainsFunc(list, func(q indexed) bool { return len(selectorDifferences(p, q.p)) == 0 })
	}
	for _, a := range as {
		if !mirrored(a.p, bs) {
			m.differ(a.key, "policies", "policy %q bypasses what a later one would protect, and does not at the other end", a.p.Name)
		}
	}
	for _, b := range bs {
		if !mirrored(b.p, as) {
			m.differ("policies", b.key, "the other end's policy %q bypasses what a later one would protect, and does not here", b.p.Name)
		}
	}
}

// bypassesBefore is the bypass policies that take packets from a later policy
// that protects to peer.
func (c *Config) bypassesBefore(peer string) (list []indexed) {
	for i := range c.Policies {
		p := &c.Policies[i]
		takes := func(later spd.Policy) bool {
			return later.Action == spd.Protect && later.Peer == peer && overlap(&p.Selector, &later.Selector)
		}
		if p.Action == spd.Bypass && slices.ContainsFunc(c.Policies[i+1:], takes) {
			list = append(list, indexed{fmt.Sprintf("policies[%d]", i), p})
		}
	}
	return list
}

// overlap tells whether some packet matches both selectors.
func overlap(a, b *spd.Selector) bool {
	if a.Protocol != b.Protocol && a.Protocol != spd.ProtocolAny && b.Protocol != spd.ProtocolAny {
		return false
	}
	for _, family := range []func(netip.Addr) bool{netip.Addr.Is4, netip.Addr.Is6} {
		if meet(a.Local, b.Local, family) && meet(a.Remote, b.Remote, family) {
			return portsMeet(a.LocalPorts, b.LocalPorts) && portsMeet(a.RemotePorts, b.RemotePorts) && portsMeet(a.ICMP, b.ICMP)
		}
	}
	return false
}

func meet(a, b []spd.AddrRange, family func(netip.Addr) bool) bool {
	return slices.ContainsFunc(a, func(x spd.AddrRange) bool {
		return family(x.From) && slices.ContainsFunc(b, func(y spd.AddrRange) bool { return x.Contains(y.From) || y.Contains(x.From) })
	})
}

func portsMeet(a, b spd.Ports) bool {
	if a.IsAny() || b.IsAny() || a.Opaque && b.Opaque {
		return true
	}
	return slices.ContainsFunc(a.Ranges, func(x spd.PortRange) bool {
		return slices.ContainsFunc(b.Ranges, func(y spd.PortRange) bool { return x.Contains(y.From) || y.Contains(x.From) })
	})
}

func (m *mirror) policy(a, b indexed) {
	for _, d := range selectorDifferences(a.p, b.p) {
		m.differ(a.key+"."+d.fieldA, b.key+"."+d.fieldB, "%s is %s here, %s is %s at the other end", d.fieldA, d.a, d.fieldB, d.b)
	}
}

type selectorDifference struct{ fieldA, fieldB, a, b string }

// selectorDifferences compares one end's selectors with the mirror image of the
// other's: local is the other's remote. Lists that say the same in another
// order, or in other ranges, are equal.
func selectorDifferences(pa, pb *spd.Policy) (list []selectorDifference) {
	a, b := &pa.Selector, &pb.Selector
	for _, f := range []selectorDifference{
		{"local", "remote", addressText(a.Local), addressText(b.Remote)},
		{"remote", "local", addressText(a.Remote), addressText(b.Local)},
		{"protocol", "protocol", a.Protocol.String(), b.Protocol.String()},
		{"local_ports", "remote_ports", portText(a.LocalPorts, spd.PortRange.String), portText(b.RemotePorts, spd.PortRange.String)},
		{"remote_ports", "local_ports", portText(a.RemotePorts, spd.PortRange.String), portText(b.LocalPorts, spd.PortRange.String)},
		{"icmp", "icmp", portText(a.ICMP, spd.FormatICMP), portText(b.ICMP, spd.FormatICMP)},
	} {
		if f.a != f.b {
			list = append(list, f)
		}
	}
	return list
}

// addressText is a list of ranges in one form: sorted, joined where they touch.
func addressText(ranges []spd.AddrRange) string {
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(x, y spd.AddrRange) int { return x.From.Compare(y.From) })
	var merged []spd.AddrRange
	for _, r := range sorted {
		if n := len(merged); n > 0 && touches(merged[n-1].To, r.From) {
			if merged[n-1].To.Less(r.To) {
				merged[n-1].To = r.To
			}
			continue
		}
		merged = append(merged, r)
	}
	return fmt.Sprint(merged)
}

// touches tells whether a range that starts at from continues one that ends at
// to, in the same family.
func touches(to, from netip.Addr) bool {
	if to.Is4() != from.Is4() {
		return false
	}
	return !to.Less(from) || to.Next() == from
}

// portText is a list of ports in one form.
func portText(p spd.Ports, text func(spd.PortRange) string) string {
	if p.IsAny() {
		return "[any]"
	}
	sorted := slices.Clone(p.Ranges)
	slices.SortFunc(sorted, func(x, y spd.PortRange) int { return int(x.From) - int(y.From) })
	var merged []spd.PortRange
	for _, r := range sorted {
		if n := len(merged); n > 0 && uint32(r.From) <= uint32(merged[n-1].To)+1 {
			merged[n-1].To = max(merged[n-1].To, r.To)
			continue
		}
		merged = append(merged, r)
	}
	parts := make([]string, 0, len(merged)+1)
	for _, r := range merged {
		parts = append(parts, text(r))
	}
	if p.Opaque {
		parts = append(parts, "opaque")
	}
	return fmt.Sprint(parts)
}
