package config

import (
	"fmt"
	"time"

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
	o, ok := v.object("name", "address", "port", "profile", "keying", "sas", "ike", "nat_keepalive",
		"static", "behind_nat", "original_local", "original_remote")
	if !ok {
		return p
	}
	if v, ok := o.need("name", "add `name: …`; policies refer to it"); ok {
		p.Name, _ = d.mark(v).name()
	}
	keying := d.keying(o)
	if ike, ok := o.get("ike"); ok && keying != "ike" {
		d.s.hide(ike.node)
	}
	d.peerAddress(o, &p, keying == "manual")
	if v, ok := d.get(o, "port"); ok {
		n, _ := v.integer(0, 65535, "write the peer's UDP port, 1 to 65535, or 0 for listen.natt_port")
		p.Port = uint16(n)
	}
	p.Profile = "default"
	if v, ok := d.get(o, "profile"); ok {
		p.Profile = d.profileName(v)
	}
	if keying == "ike" {
		d.ikePeer(o, &p)
		return p
	}
	d.readNAT(o, &p)
	if keying != "manual" {
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
		p.SAs = d.sas(d.mark(v), d.Profiles[p.Profile])
	}
	return p
}

// readNAT reads what address translation on the way changes. Manual keys detect
// no NAT: who asks for keepalives is behind one. RFC 3948 section 4 has them sent by
// that end, and by default by no other.
func (d *decoder) readNAT(o *object, p *Peer) {
	p.Static = d.flag(o, "static", false)
	p.BehindNAT = d.flag(o, "behind_nat", false)
	if v, ok := d.get(o, "nat_keepalive"); ok {
		if !v.isWord("off") {
			p.NATKeepalive, _ = v.duration(minKeepalive, maxKeepalive, "off, or ")
		}
	} else if p.BehindNAT && d.Profiles[p.Profile].Encap == sad.EncapUDP {
		p.NATKeepalive = DefaultNATKeepalive
	}
	if v, ok := o.get("behind_nat"); ok && !p.BehindNAT && p.NATKeepalive != 0 {
		v.fail(fmt.Sprintf("found false, and nat_keepalive is %s, which only the end behind a NAT sends", clock(p.NATKeepalive)), "write true, or `nat_keepalive: off`")
	}
	p.BehindNAT = p.BehindNAT || p.NATKeepalive != 0
	if v, ok := d.get(o, "original_local"); ok {
		p.OriginalLocal, _ = v.address("write this end's own address in front of its NAT, such as 10.0.0.5")
	}
	if v, ok := d.get(o, "original_remote"); ok {
		p.OriginalRemote, _ = v.address("write the peer's own address in front of its NAT, such as 10.9.0.7")
	}
}

// keying reads where the peer's keys come from; "": not known, or refused.
func (d *decoder) keying(o *object) string {
	v, ok := o.need("keying", "add `keying: manual` or `keying: ike`")
	if !ok {
		if _, sas := o.get("sas"); sas {
			return "manual"
		}
		return ""
	}
	d.mark(v)
	if v.isWord("server") {
		v.notHere("`keying: server`", "write `keying: ike`, or `keying: manual` and list the SAs under `sas`")
		return ""
	}
	word, _ := v.choice("manual", "ike")
	return word
}

func (d *decoder) peerAddress(o *object, p *Peer, manual bool) {
	v, ok := o.need("address", "add `address: …`, the peer's outside address")
	if !ok {
		return
	}
	d.mark(v)
	if v.isWord("any") {
		d.anywhere[o.key] = true
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
