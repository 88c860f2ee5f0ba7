package config

import (
	"fmt"
	"net/netip"

	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// checkOriginals: the addresses in front of the NATs are for transport mode over
// UDP. RFC 3948 section 3.1.2: the checksums inside were made over them.
func (d *decoder) checkOriginals(key string, p *Peer, profile Profile) {
	for _, o := range []struct {
		name, other string
		is, beside  netip.Addr
	}{
		{"original_local", "original_remote", p.OriginalLocal, p.OriginalRemote},
		{"original_remote", "original_local", p.OriginalRemote, p.OriginalLocal},
	} {
		at := key + "." + o.name
		switch {
		case !o.is.IsValid():
		case profile.Mode != sad.TransportMode:
			d.fail(at, fmt.Sprintf("found %s, and profile %q has `mode: tunnel`, where the addresses inside pass a NAT as they are", o.is, profile.Name), "remove it, or use a profile with `mode: transport`")
		case profile.Encap != sad.EncapUDP:
			d.fail(at, fmt.Sprintf("found %s, and profile %q %s passes no NAT", o.is, profile.Name, profile.onRaw()), "remove it, or use "+profile.udpInstead())
		case p.Address.IsValid() && o.is.Is4() != p.Address.Is4():
			d.fail(at, fmt.Sprintf("found %s, and the peer's address is %s: the families cannot meet", o.is, p.Address), "write an address of the peer's family")
		case !o.beside.IsValid() && !d.written(key+"."+o.other):
			d.fail(at, fmt.Sprintf("found %s without %s: a checksum covers both addresses", o.is, o.other), fmt.Sprintf("add `%s`; where there is no NAT at that end, it is the end's address", o.other))
		}
	}
}

func (d *decoder) written(key string) bool {
	_, ok := d.positions[key]
	return ok
}

// needsAddress: some profiles need this end's address to be known, whatever
// socket a packet leaves by. One mistake is one error.
func (d *decoder) needsAddress() {
	if d.Listen.Address.IsValid() {
		return
	}
	for i := range d.Peers {
		profile := d.Profiles[d.Peers[i].Profile]
		why := ""
		switch {
		case profile.Protocol.Uses(sad.AH):
			why = "`protocol: " + profile.Protocol.String() + "`, and AH covers this gateway's own address"
		case profile.Mode == sad.TransportMode:
			why = "`mode: transport`, which protects this gateway's own address"
		default:
			continue
		}
		d.fail("listen.address", fmt.Sprintf("no address, and peer %q has a profile with %s", d.Peers[i].Name, why), "add this gateway's outside address to `listen`, as in `address: 192.0.2.1`")
		return
	}
}

// checkTransport: transport mode is between the two ends themselves. RFC 4301
// section 4.1: "A transport mode SA is an SA typically employed between a pair of
// hosts to provide end-to-end security services." So its policies select the two
// outer addresses, which the file has to name.
func (d *decoder) checkTransport() {
	for i := range d.Peers {
		p := &d.Peers[i]
		if d.Profiles[p.Profile].Mode != sad.TransportMode {
			continue
		}
		for j := range d.Policies {
			if policy := &d.Policies[j]; policy.Action == spd.Protect && policy.Peer == p.Name {
				key := fmt.Sprintf("policies[%d]", j)
				d.transportEnd(key+".local", policy.Selector.Local, p, d.Listen.Address, p.OriginalLocal)
				d.transportEnd(key+".remote", policy.Selector.Remote, p, p.Address, p.OriginalRemote)
			}
		}
		if p.IKE == nil && p.BehindNAT && !p.OriginalLocal.IsValid() && d.Profiles[p.Profile].Encap == sad.EncapUDP {
			d.warn(fmt.Sprintf("peers[%d].behind_nat", i), "in transport mode the NAT changes addresses that checksums cover: give `original_local` and `original_remote` (RFC 3948 section 3.1.2)")
		}
	}
}

// transportEnd holds one side of a policy to the address of that end as packets
// have it here. That is not the one in front of the end's NAT: RFC 7296 section
// 2.23.1 has this end put the address that it sees in that one's place before it
// asks the SPD.
func (d *decoder) transportEnd(key string, found []spd.AddrRange, p *Peer, outer, original netip.Addr) {
	if !outer.IsValid() || len(found) == 0 {
		return // refused already
	}
	one := found[0]
	if len(found) == 1 && one.From == one.To && one.From == outer {
		return
	}
	why := "which protects only what the two gateways send each other"
	if original.IsValid() && len(found) == 1 && one.From == one.To && one.From == original {
		why = fmt.Sprintf("and behind the NAT packets have %s in the place of the original address", outer)
	}
	d.fail(key, fmt.Sprintf("found [%s], and peer %q has a profile with `mode: transport`, %s", spd.FormatAddrRanges(found), p.Name, why),
		fmt.Sprintf("write [%s], or use a profile with `mode: tunnel`", outer))
}

// seenHere is the other end's policies with the addresses that this end knows the
// two by. In transport mode the selectors are the ends themselves, and a NAT
// changes what an end is called at the other one.
func (m *mirror) seenHere(list []indexed, pa, pb *Peer) []indexed {
	if m.a.Profiles[pa.Profile].Mode != sad.TransportMode || m.b.Profiles[pb.Profile].Mode != sad.TransportMode {
		return list
	}
	for i := range list {
		p := *list[i].p // the file stays as it is
		if pb.BehindNAT {
			p.Selector.Local = renamed(p.Selector.Local, m.b.Listen.Address, pa.Address)
		}
		if pa.BehindNAT {
			p.Selector.Remote = renamed(p.Selector.Remote, pb.Address, m.a.Listen.Address)
		}
		list[i].p = &p
	}
	return list
}

// renamed is ranges, or to alone where they are from alone.
func renamed(ranges []spd.AddrRange, from, to netip.Addr) []spd.AddrRange {
	if to.IsValid() && len(ranges) == 1 && ranges[0].From == from && ranges[0].To == from {
		return []spd.AddrRange{{From: to, To: to}}
	}
	return ranges
}
