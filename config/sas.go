package config

import (
	"fmt"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// role is what a peer needs an SA for.
type role struct {
	direction packet.Direction
	protocol  sad.Protocol
}

// text names the role the way the file does; the protocol where there are two.
func (r role) text(p Protocols) string {
	text := fmt.Sprintf("`direction: %s`", word(r.direction))
	if p == ProtocolAHESP {
		text += fmt.Sprintf(" and `protocol: %s`", r.protocol)
	}
	return text
}

// sas reads the SAs of one peer: at least one out and one in, of each protocol.
func (d *decoder) sas(v value, profile Profile) []SA {
	items, ok := v.list("SAs: one with `direction: out`, one with `direction: in`")
	if !ok {
		return nil
	}
	var list []SA
	have := map[role]int{}
	whole := true
	classes := classes{decoder: d, first: map[code]string{}, rest: map[sad.Protocol]string{}}
	for _, item := range items {
		sa, known := d.sa(d.mark(item), profile)
		list = append(list, sa)
		whole = whole && known
		if !known {
			continue
		}
		r := role{sa.Direction, sa.Protocol}
		have[r]++
		switch {
		case profile.Protocol == ProtocolAHESP && have[r] > 1:
			d.fail(item.key+".direction", "a second SA with "+r.text(profile.Protocol), "with ah+esp a peer has one SA for each direction and protocol; remove one")
		case sa.Direction == packet.Outbound:
			classes.add(item.key, &sa)
		}
	}
	if !whole {
		return list
	}
	for _, direction := range []packet.Direction{packet.Outbound, packet.Inbound} {
		for _, protocol := range profile.Protocol.all() {
			if r := (role{direction, protocol}); have[r] == 0 {
				v.fail("no SA with "+r.text(profile.Protocol), neededSAs(profile))
			}
		}
	}
	classes.warn(v.key, have)
	return list
}

func neededSAs(p Profile) string {
	switch {
	case p.Protocol == ProtocolAHESP:
		return fmt.Sprintf("profile %q has `protocol: ah+esp`: list four SAs, one of each protocol for each direction", p.Name)
	case p.Mode == sad.TransportMode:
		return "transport mode needs one SA for each direction"
	}
	return "a tunnel needs one SA for each direction"
}

// code is a code point of an outbound SA's class.
type code struct {
	protocol sad.Protocol
	point    uint8
}

// classes is what the outbound SAs of one peer carry. RFC 4301 section 4.1: "the
// IPsec implementation MUST permit establishment and maintenance of multiple SAs
// between a given sender and receiver, with the same selectors. Distribution of
// traffic among these parallel SAs to support QoS is locally determined by the
// sender".
type classes struct {
	*decoder
	first map[code]string         // where a code point stands
	rest  map[sad.Protocol]string // the SA that carries what no other names
}

// add takes one outbound SA; no packet may be for two.
func (c *classes) add(key string, sa *SA) {
	if _, written := c.positions[key+".dscp"]; !written {
		if other, twice := c.rest[sa.Protocol]; twice {
			c.fail(key+".direction", fmt.Sprintf("a second SA with direction out and no `dscp`, besides %s", other), "remove one, make it the other direction, or say with `dscp: [46]` which code points it is for")
		}
		c.rest[sa.Protocol] = key
		return
	}
	for i, point := range sa.DSCPs {
		if other, twice := c.first[code{sa.Protocol, point}]; twice {
			c.fail(fmt.Sprintf("%s.dscp[%d]", key, i), fmt.Sprintf("code point %d stands at %s already", point, other), "name each code point once: it selects one SA")
			continue
		}
		c.first[code{sa.Protocol, point}] = fmt.Sprintf("%s.dscp[%d]", key, i)
	}
}

// warn warns of code points that no SA carries.
func (c *classes) warn(key string, have map[role]int) {
	for r := range have {
		if _, rest := c.rest[r.protocol]; r.direction == packet.Outbound && !rest {
			c.decoder.warn(key, "every SA with direction out has `dscp`: packets with other code points are dropped as OutNoSA; leave `dscp` out of one")
		}
	}
}

func word(d packet.Direction) string {
	if d == packet.Inbound {
		return "in"
	}
	return "out"
}

// sa reads one SA; known tells whether its direction and protocol were readable.
func (d *decoder) sa(v value, profile Profile) (sa SA, known bool) {
	o, ok := v.object("direction", "spi", "suite", "encryption_key", "encryption_key_file", "integrity_key", "integrity_key_file", "protocol", "dscp")
	if !ok {
		return sa, false
	}
	if v, ok := o.need("direction", "add `direction: out` or `direction: in`"); ok {
		var word string
		word, known = d.mark(v).choice("out", "in")
		sa.Direction = packet.Outbound
		if word == "in" {
			sa.Direction = packet.Inbound
		}
	}
	if v, ok := d.get(o, "dscp"); ok {
		sa.DSCPs = d.dscps(v, known && sa.Direction == packet.Inbound, profile)
	}
	if v, ok := o.need("spi", "add `spi: 0x1001`, the same number as at the other end"); ok {
		sa.SPI = d.spi(d.mark(v))
	}
	if sa.Protocol, ok = d.saProtocol(o, profile); !ok {
		return sa, false
	}
	if d.saSuite(o, &sa) {
		d.saKeys(o, &sa)
	}
	return sa, known
}

// saProtocol reads the protocol of one SA, which its profile allows.
func (d *decoder) saProtocol(o *object, profile Profile) (sad.Protocol, bool) {
	v, written := d.get(o, "protocol")
	if !written {
		if profile.Protocol == ProtocolAHESP {
			o.s.fail(o.at, o.key+".protocol", fmt.Sprintf("the key is missing, and profile %q has `protocol: ah+esp`", profile.Name), "add `protocol: esp` or `protocol: ah`: a peer has an SA of each for each direction")
			return 0, false
		}
		return profile.Protocol.all()[0], true
	}
	word, ok := v.choice("esp", "ah")
	protocol := sad.ESP
	if word == "ah" {
		protocol = sad.AH
	}
	if ok && !profile.Protocol.Uses(protocol) {
		v.fail(fmt.Sprintf("found %s, and profile %q has `protocol: %s`", word, profile.Name, profile.Protocol), fmt.Sprintf("write `protocol: %s`, leave the key out, or use a profile with `protocol: %s` or `protocol: ah+esp`", profile.Protocol, word))
		return protocol, false
	}
	return protocol, ok
}

// saSuite reads the suite of one SA.
func (d *decoder) saSuite(o *object, sa *SA) bool {
	example, instead := "aes128-sha256", "aes128-sha256 or the like"
	if sa.Protocol == sad.AH {
		example, instead = "sha256", "sha256 or the like"
	}
	v, ok := o.need("suite", fmt.Sprintf("add `suite: %s`, the same as at the other end", example))
	if !ok {
		return false
	}
	name := ""
	if d.mark(v); sa.Protocol == sad.AH {
		sa.AHSuite, ok = d.ahSuite(v)
		name = sa.AHSuite.String()
	} else {
		sa.Suite, ok = d.espSuite(v)
		name = sa.Suite.String()
	}
	if !ok {
		return false
	}
	if sa.counterMode() && !d.AllowManualAEAD {
		// RFC 8221 section 3: with manual keys, "Counter Mode algorithms such
		// as ENCR_AES_CTR, ENCR_AES_CCM, ENCR_AES_GCM, and
		// ENCR_CHACHA20_POLY1305 MUST NOT be used". GMAC has the same nonce.
		v.fail(fmt.Sprintf("%s is a counter mode, which RFC 8221 section 3 forbids with manual keys (\"MUST NOT be used\")", name),
			"use "+instead+"; for laboratories and interoperability tests, add `allow_manual_aead: true` at the top level")
	}
	return true
}

// dscps reads the code points that an SA is for.
func (d *decoder) dscps(v value, inbound bool, profile Profile) []uint8 {
	const form = "such as [46, 34]"
	items, ok := v.list("code points, 0 to 63, " + form)
	if !ok {
		return nil
	}
	switch {
	case len(items) == 0:
		v.fail("the list is empty", "name the code points, "+form+", or leave the key out")
		return nil
	case inbound:
		// RFC 4301 section 4.1: "The receiver MUST process the packets from
		// the different SAs without prejudice."
		v.fail("code points of an SA with `direction: in`: a receiver takes what comes (RFC 4301 section 4.1)", "remove the key; the other end's SA with `direction: out` has it")
		return nil
	case profile.Protocol == ProtocolAHESP:
		v.fail(fmt.Sprintf("profile %q has `protocol: ah+esp`, where one AH and one ESP carry all code points", profile.Name), "remove the key, or use a profile with `protocol: esp`")
		return nil
	}
	var list []uint8
	for _, item := range items {
		if n, ok := d.mark(item).integer(0, 63, "write a code point, 0 to 63"); ok {
			list = append(list, uint8(n))
		}
	}
	return list
}

// spi reads an SPI. RFC 4303 section 2.1: "The set of SPI values in the range 1
// through 255 are reserved by the Internet Assigned Numbers Authority"; RFC 4302
// section 2.4 says so of AH.
func (d *decoder) spi(v value) uint32 {
	s, kind := v.scalar()
	fix := "write an SPI from 0x100 to 0xffffffff, such as 0x1001, without quotes"
	n, ok := parseUint(s)
	switch {
	case kind != number:
		v.wrong(fix)
	case !ok || n > 1<<32-1:
		v.fail("found "+v.found(), fix)
	case n < sad.MinSPI:
		v.fail(fmt.Sprintf("found %s, and RFC 4303 section 2.1 reserves 0 to 255", s), fix)
	default:
		return uint32(n)
	}
	return 0
}
