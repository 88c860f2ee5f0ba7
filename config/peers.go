package config

import (
	"fmt"
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// The bounds of nat_keepalive; RFC 3948 section 4 recommends 20 s.
const (
	minKeepalive = time.Second
	maxKeepalive = time.Hour
)

func (d *decoder) readPeers(root *object) {
	v, ok := d.get(root, "peers")
	if !ok {
		return
	}
	items, ok := v.list("peers: `- name: …`")
	if !ok {
		return
	}
	names := map[string]bool{}
	for _, item := range items {
		p := d.peer(d.mark(item))
		if p.Name != "" && names[p.Name] {
			d.fail(item.key+".name", fmt.Sprintf("a second peer is called %q", p.Name), "give each peer a name of its own")
		}
		names[p.Name] = true
		d.Peers = append(d.Peers, p)
	}
}

func (d *decoder) peer(v value) (p Peer) {
	o, ok := v.object("name", "address", "port", "profile", "keying", "sas", "ike", "nat_keepalive", "static")
	if !ok {
		return p
	}
	if v, ok := o.need("name", "add `name: …`; policies refer to it"); ok {
		p.Name, _ = d.mark(v).name()
	}
	if ike, ok := o.get("ike"); ok {
		d.s.hide(ike.node)
	}
	manual := d.keying(o)
	d.peerAddress(o, &p, manual)
	if v, ok := d.get(o, "port"); ok {
		n, _ := v.integer(0, 65535, "write the peer's UDP port, 1 to 65535, or 0 for listen.natt_port")
		p.Port = uint16(n)
	}
	p.Profile = "default"
	if v, ok := d.get(o, "profile"); ok {
		p.Profile = d.profileName(v)
	}
	if v, ok := d.get(o, "nat_keepalive"); ok && !v.isWord("off") {
		p.NATKeepalive, _ = v.duration(minKeepalive, maxKeepalive, "off, or ")
	}
	p.Static = d.flag(o, "static", false)
	if !manual {
		// The rest is about a way of keying that was refused already.
		if sas, ok := o.get("sas"); ok {
			d.s.hide(sas.node)
		}
		return p
	}
	if v, ok := o.get("ike"); ok {
		v.fail("an `ike` section together with `keying: manual`", "remove it: manual keys negotiate nothing")
	}
	if v, ok := o.need("sas", "add `sas:` with one SA for each direction"); ok {
		p.SAs = d.sas(d.mark(v))
	}
	return p
}

// keying tells whether the peer has manual keys, the one way of this version.
func (d *decoder) keying(o *object) bool {
	v, ok := o.need("keying", "add `keying: manual`")
	if !ok {
		_, sas := o.get("sas")
		return sas
	}
	d.mark(v)
	if v.isWord("ike") || v.isWord("server") {
		v.notHere("`keying: "+v.node.GetToken().Value+"`", "write `keying: manual` and list the SAs under `sas`")
		return false
	}
	word, _ := v.choice("manual")
	return word == "manual"
}

func (d *decoder) peerAddress(o *object, p *Peer, manual bool) {
	v, ok := o.need("address", "add `address: …`, the peer's outside address")
	if !ok {
		return
	}
	d.mark(v)
	if v.isWord("any") {
		if manual {
			v.notHere("`address: any` with manual keys", "write the peer's outside address")
		}
		return
	}
	p.Address, _ = v.address("write the peer's outside address, such as 192.0.2.2; host names are not looked up")
}

// profileName reads a reference to a profile.
func (d *decoder) profileName(v value) string {
	s, ok := v.word("write the name of a profile")
	if !ok {
		return "default"
	}
	if _, known := d.Profiles[s]; known {
		return s
	}
	d.unknownName(v, "profile", s, sortedKeys(d.Profiles))
	return "default"
}

// unknownName reports a reference to something that the file does not define.
func (d *decoder) unknownName(v value, what, name string, known []string) {
	fix := fmt.Sprintf("define it under %ss", what)
	if near := nearest(name, known); near != "" {
		fix = fmt.Sprintf("did you mean %q? Otherwise %s", near, fix)
	}
	v.fail(fmt.Sprintf("found %s, and no %s is called that", v.found(), what), fix)
}

// sas reads the SAs of one peer: one out, one in.
func (d *decoder) sas(v value) []SA {
	items, ok := v.list("SAs: one with `direction: out`, one with `direction: in`")
	if !ok {
		return nil
	}
	var list []SA
	var have [2]bool
	known := true
	for _, item := range items {
		sa, direction := d.sa(d.mark(item))
		list = append(list, sa)
		if !direction {
			known = false
			continue
		}
		if have[sa.Direction] {
			d.fail(item.key+".direction", fmt.Sprintf("a second SA with direction %s", word(sa.Direction)), "a peer has one SA for each direction in this version; remove one, or make it the other direction")
		}
		have[sa.Direction] = true
	}
	for _, direction := range []packet.Direction{packet.Outbound, packet.Inbound} {
		if known && !have[direction] {
			v.fail(fmt.Sprintf("no SA with `direction: %s`", word(direction)), "a tunnel needs one SA for each direction")
		}
	}
	return list
}

func word(d packet.Direction) string {
	if d == packet.Inbound {
		return "in"
	}
	return "out"
}

// sa reads one SA; known tells whether its direction was readable.
func (d *decoder) sa(v value) (sa SA, known bool) {
	o, ok := v.object("direction", "spi", "suite", "encryption_key", "encryption_key_file", "integrity_key", "integrity_key_file", "protocol")
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
	if v, ok := d.get(o, "protocol"); ok && !v.isWord("esp") {
		if v.isWord("ah") {
			v.notHere("`protocol: ah`", "write `protocol: esp`, or leave the key out")
		} else {
			v.choice("esp")
		}
	}
	if v, ok := o.need("spi", "add `spi: 0x1001`, the same number as at the other end"); ok {
		sa.SPI = d.spi(d.mark(v))
	}
	v, ok = o.need("suite", "add `suite: aes128-sha256`, the same as at the other end")
	if !ok {
		return sa, known
	}
	if sa.Suite, ok = d.suite(d.mark(v)); !ok {
		return sa, known
	}
	if sa.Suite.CounterMode() && !d.AllowManualAEAD {
		// RFC 8221 section 3: with manual keys, "Counter Mode algorithms such
		// as ENCR_AES_CTR, ENCR_AES_CCM, ENCR_AES_GCM, and
		// ENCR_CHACHA20_POLY1305 MUST NOT be used". GMAC has the same nonce.
		v.fail(fmt.Sprintf("%s is a counter mode, which RFC 8221 section 3 forbids with manual keys (\"MUST NOT be used\")", sa.Suite),
			"use aes128-sha256 or the like; for laboratories and interoperability tests, add `allow_manual_aead: true` at the top level")
	}
	d.saKeys(o, &sa)
	return sa, known
}

// spi reads an SPI. RFC 4303 section 2.1: "The set of SPI values in the range 1
// through 255 are reserved by the Internet Assigned Numbers Authority".
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
