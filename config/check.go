package config

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// checkAddresses: the two ends must be able to meet.
func (d *decoder) checkAddresses(key string, p *Peer) {
	local := d.Listen.Address
	if !local.IsValid() || !p.Address.IsValid() {
		return
	}
	switch {
	case local.Is4() != p.Address.Is4():
		d.fail(key+".address", fmt.Sprintf("found %s, and listen.address is %s: the families cannot meet", p.Address, local), "use addresses of one family, or leave listen.address out")
	case local == p.Address:
		d.fail(key+".address", fmt.Sprintf("found %s, which is listen.address: the gateway would be its own peer", local), "write the address of the other end")
	}
}

// checkEncap: raw protocol 50 has no ports and no NAT to keep alive.
func (d *decoder) checkEncap(key string, p *Peer, profile Profile) {
	if profile.Encap != sad.EncapNone {
		return
	}
	if p.Port != 0 {
		d.fail(key+".port", fmt.Sprintf("found %d, and profile %q has `encap: none`: raw protocol 50 has no ports", p.Port, profile.Name), "remove the port, or use a profile with `encap: udp`")
	}
	if p.NATKeepalive != 0 {
		d.fail(key+".nat_keepalive", fmt.Sprintf("found %s, and profile %q has `encap: none`: raw protocol 50 passes no NAT", clock(p.NATKeepalive), profile.Name), "write off, or use a profile with `encap: udp`")
	}
}

// checkSPIs: an SPI selects one SA. Inbound it does so alone (RFC 4301 section
// 4.1); outbound it does at the peer, which is one address.
func (d *decoder) checkSPIs() {
	type place struct {
		spi     uint32
		address netip.Addr
		port    uint16
	}
	first := map[place]string{}
	for i := range d.Peers {
		p := &d.Peers[i]
		for j, sa := range p.SAs {
			key := fmt.Sprintf("peers[%d].sas[%d].spi", i, j)
			if sa.SPI == 0 {
				continue // refused already
			}
			at := place{spi: sa.SPI}
			if sa.Direction == packet.Outbound {
				at.address, at.port = p.Address, d.remotePort(p, d.Profiles[p.Profile])
			}
			other, twice := first[at]
			switch {
			case !twice:
				first[at] = key
			case sa.Direction == packet.Inbound:
				d.fail(key, fmt.Sprintf("the inbound SPI 0x%x stands at %s already", sa.SPI, other), "give every inbound SA an SPI of its own: it alone tells them apart")
			default:
				d.fail(key, fmt.Sprintf("the SPI 0x%x to %s stands at %s already", sa.SPI, p.Address, other), "give every SA to one address an SPI of its own")
			}
		}
	}
}

// checkUse warns of what has no effect.
func (d *decoder) checkUse() {
	used := map[string]bool{}
	for i := range d.Policies {
		used[d.Policies[i].Peer] = true
	}
	if len(d.Policies) == 0 {
		d.warn("policies", "there are no policies: every packet is discarded, in both directions")
	}
	if d.Listen.IKEPort != DefaultIKEPort {
		d.warn("listen.ike_port", "binds automatic keying only, which is not in this version: nothing listens on it")
	}
	said := map[string]bool{}
	for i := range d.Peers {
		p := &d.Peers[i]
		if !used[p.Name] {
			d.warn(fmt.Sprintf("peers[%d].name", i), fmt.Sprintf("no policy protects anything to peer %q: its SAs carry nothing", p.Name))
		}
		if said[p.Profile] {
			continue
		}
		said[p.Profile] = true
		d.warnWindow(p.Profile)
		for key, instead := range map[string]string{
			"lifetime": "the gateway never replaces them; change them at both ends in time",
			"suites":   "each SA names its own suite",
		} {
			full := profileKey(p.Profile) + "." + key
			if _, written := d.positions[full]; written {
				d.warn(full, fmt.Sprintf("binds automatic keying only, and peer %q has manual keys: %s", p.Name, instead))
			}
		}
	}
	if d.inlineKeys && d.mode.Perm()&0o044 != 0 {
		d.warn("peers", fmt.Sprintf("the file holds keys, and its mode %04o lets others read it: chmod 0600 it, or use encryption_key_file", d.mode.Perm()))
	}
}

// warnWindow: several workers send numbers of one SA up to sad.MaxLag out of
// order. The window of the other end is not known here, but the two ends' mirror
// each other.
func (d *decoder) warnWindow(name string) {
	profile := d.Profiles[name]
	if n := profile.ReplayWindow; d.TUN.Queues > 1 && n > 0 && n < 2*sad.MaxLag {
		d.warn(profileKey(name)+".replay_window", fmt.Sprintf("with several TUN queues the other end sees packets up to %d numbers out of order: give both ends a window of %d or more", sad.MaxLag, 2*sad.MaxLag))
	}
}

// warnShadowed warns of policies that nothing ever reaches.
func (d *decoder) warnShadowed(t *spd.Table) {
	for _, s := range t.Shadowed() {
		d.warn(fmt.Sprintf("policies[%d]", s.Policy.Index()), s.String())
	}
}

func sortWarnings(list []Warning) {
	slices.SortStableFunc(list, func(a, b Warning) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// parseUint reads what isNumber accepts.
func parseUint(s string) (uint64, bool) {
	n, err := strconv.ParseUint(s, 0, 64)
	return n, err == nil
}
