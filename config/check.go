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

// checkWhole holds the sections against each other.
func (d *decoder) checkWhole() {
	needsRaw, over, instead := "", "", ""
	for i := range d.Peers {
		p := &d.Peers[i]
		key := fmt.Sprintf("peers[%d]", i)
		profile := d.Profiles[p.Profile]
		if profile.Encap == sad.EncapNone && needsRaw == "" {
			needsRaw = p.Name
			over, instead = profile.rawText()
		}
		d.checkAddresses(key, p)
		d.checkEncap(key, p, profile)
		d.checkOriginals(key, p, profile)
		d.checkKeying(key, p, profile)
	}
	if needsRaw != "" && !d.Listen.Raw {
		d.fail("listen.raw", fmt.Sprintf("found off, and peer %q is reached by %s", needsRaw, over), "write `raw: auto`, or "+instead+" in the peer's profile")
	}
	d.RawAllowed, d.Listen.Raw = d.Listen.Raw, d.Listen.Raw && (needsRaw != "" || d.mayBeRaw())
	d.needsAddress()
	d.checkTransport()
	d.checkSPIs()
	d.checkIdentities()
	d.checkUse()
}

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

// checkEncap: raw protocols have no ports and no NAT to keep alive.
func (d *decoder) checkEncap(key string, p *Peer, profile Profile) {
	if profile.Encap != sad.EncapNone {
		return
	}
	on, instead := profile.onRaw(), profile.udpInstead()
	if p.Port != 0 {
		d.fail(key+".port", fmt.Sprintf("found %d, and profile %q %s has no ports", p.Port, profile.Name, on), "remove the port, or use "+instead)
	}
	if p.NATKeepalive != 0 {
		d.fail(key+".nat_keepalive", fmt.Sprintf("found %s, and profile %q %s passes no NAT", clock(p.NATKeepalive), profile.Name, on), "write off, or use "+instead)
	}
	if p.BehindNAT && d.written(key+".behind_nat") {
		d.fail(key+".behind_nat", fmt.Sprintf("found true, and profile %q %s passes no NAT", profile.Name, on), "write false, or use "+instead)
	}
}

// checkSPIs: SPI and protocol select one SA. RFC 4301 section 4.1: "as a local
// matter, an implementation may choose to use the SPI in conjunction with the
// IPsec protocol type (AH or ESP) for SA identification." Outbound they do so at
// the peer, which is one address.
func (d *decoder) checkSPIs() {
	type place struct {
		protocol sad.Protocol
		spi      uint32
		address  netip.Addr
		port     uint16
	}
	first := map[place]string{}
	for i := range d.Peers {
		p := &d.Peers[i]
		for j, sa := range p.SAs {
			key := fmt.Sprintf("peers[%d].sas[%d].spi", i, j)
			if sa.SPI == 0 {
				continue // refused already
			}
			at := place{protocol: sa.Protocol, spi: sa.SPI}
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
	if d.Listen.IKEPort != DefaultIKEPort && !d.UsesIKE() {
		d.warn("listen.ike_port", "no peer has `keying: ike`: nothing listens on it")
	}
	said, manual := map[string]bool{}, map[string]bool{}
	for i := range d.Peers {
		p := &d.Peers[i]
		if !used[p.Name] {
			d.warn(fmt.Sprintf("peers[%d].name", i), fmt.Sprintf("no policy protects anything to peer %q: its SAs carry nothing", p.Name))
		}
		if !said[p.Profile] {
			d.warnWindow(p.Profile)
		}
		if said[p.Profile] = true; p.IKE != nil || manual[p.Profile] {
			continue
		}
		manual[p.Profile] = true
		for key, instead := range map[string]string{
			"lifetime": "the gateway never replaces them; change them at both ends in time",
			"suites":   "each SA names its own suite",
			"pfs":      "manual keys have no key exchange",
		} {
			full := profileKey(p.Profile) + "." + key
			if _, written := d.positions[full]; written {
				d.warn(full, fmt.Sprintf("binds automatic keying only, and peer %q has manual keys: %s", p.Name, instead))
			}
		}
	}
	if d.inlineKeys && d.mode.Perm()&0o044 != 0 {
		d.warn("peers", fmt.Sprintf("the file holds keys, and its mode %04o lets others read it: chmod 0600 it, or put them into files of their own, as with encryption_key_file and psk_file", d.mode.Perm()))
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
