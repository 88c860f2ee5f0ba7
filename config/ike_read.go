package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
)

// The bounds of the times of an IKE SA, and of fragments. RFC 7383 2.5.1 has 576
// bytes as the least for IPv4; 1280 is that of IPv6.
const (
	minIKELifetime = time.Second
	minDPD         = time.Second
	maxDPD         = time.Hour
	minFragment    = 576
	maxFragment    = 65535
)

// ikePeer reads what a peer with `keying: ike` has besides its name, address and
// profile.
func (d *decoder) ikePeer(o *object, p *Peer) {
	if v, ok := o.get("sas"); ok {
		d.s.hide(v.node)
		v.fail("a list of SAs together with `keying: ike`", "remove it: IKE makes the SAs and their keys")
	}
	d.notNegotiated(o)
	p.Static = d.flag(o, "static", false)
	p.BehindNAT = d.flag(o, "behind_nat", false)
	if d.Profiles[p.Profile].Encap == sad.EncapUDP {
		p.NATKeepalive = DefaultNATKeepalive
	}
	if v, ok := d.get(o, "nat_keepalive"); ok {
		p.NATKeepalive = 0
		if !v.isWord("off") {
			p.NATKeepalive, _ = v.duration(minKeepalive, maxKeepalive, "off, or ")
		}
	}
	// Even a section that is wrong makes an IKE peer: what else is said of it
	// would be about manual keys.
	p.IKE = &IKE{}
	v, ok := o.need("ike", "add `ike:` with `local_id`, `remote_id` and `auth`")
	if !ok {
		return
	}
	d.ike(d.mark(v), p.IKE)
	p.IKE.Responder = d.Profiles[p.Profile].Responder
}

// notNegotiated refuses keys that say what IKE finds out.
func (d *decoder) notNegotiated(o *object) {
	if v, ok := d.get(o, "port"); ok {
		v.fail("a port together with `keying: ike`", "write `port` or `natt_port` below `ike`, if the peer does not listen on 500 and 4500")
	}
	for _, name := range []string{"original_local", "original_remote"} {
		if v, ok := d.get(o, name); ok {
			v.fail(name+" together with `keying: ike`", "remove it: IKE finds NATs, and what is in front of them (RFC 7296 section 2.23.1)")
		}
	}
}

// ike reads the section `ike` of a peer.
func (d *decoder) ike(v value, k *IKE) {
	o, ok := v.object("local_id", "remote_id", "auth", "proposals", "start", "start_natt", "port", "natt_port", "lifetime", "dpd",
		"mobike", "fragmentation", "fragment_size", "childless", "ppk")
	if !ok {
		return
	}
	k.Port = d.port(o, "port", DefaultIKEPort)
	k.NATTPort = d.port(o, "natt_port", DefaultNATTPort)
	k.StartNATT = d.flag(o, "start_natt", false)
	k.MOBIKE = d.flag(o, "mobike", true)
	k.Fragmentation = d.flag(o, "fragmentation", true)
	k.Childless = d.flag(o, "childless", false)
	if v, ok := d.get(o, "start"); ok {
		if word, _ := v.choice("traffic", "now"); word == "now" {
			k.Start = StartNow
		}
	}
	k.Proposals = d.ikeProposals(o)
	d.ikeTimes(o, k)
	if v, ok := d.get(o, "fragment_size"); ok && !v.isWord("auto") {
		n, _ := v.integer(minFragment, maxFragment, "write auto, or the size of an IP packet in bytes, 576 to 65535")
		k.FragmentSize = int(n)
	}
	d.identities(o, k)
	if v, ok := d.get(o, "ppk"); ok {
		k.PPK = d.ppk(v)
	}
	if v, ok := o.need("auth", "add `auth:` with `psk_file`, or with `certificate`, `private_key` and `trust`"); ok {
		d.auth(d.mark(v), k)
		d.checkLocal(v.key, k)
	}
}

// ikeProposals reads the algorithms of the IKE SA.
func (d *decoder) ikeProposals(o *object) []proposal.Proposal {
	v, ok := d.get(o, "proposals")
	if !ok {
		return proposal.Default(wire.ProtocolIKE)
	}
	const form = "such as [aes256gcm16-prfsha384-x25519, aes128-sha256-modp2048]"
	items, ok := v.list("proposals, " + form)
	if !ok {
		return nil
	}
	if len(items) == 0 {
		v.fail("the list is empty", "write proposals, "+form+", or leave the key out")
	}
	var list []proposal.Proposal
	seen := map[string]bool{}
	for _, item := range items {
		text, ok := d.mark(item).word("write a proposal, " + form)
		if !ok {
			continue
		}
		p, err := proposal.Parse(wire.ProtocolIKE, text, d.AllowLegacy)
		switch {
		case err != nil:
			d.algorithms(item, err, text, form)
		case seen[p.String()]:
			item.fail(fmt.Sprintf("%s stands in the list twice", p), "name each proposal once")
		default:
			seen[p.String()] = true
			list = append(list, p)
		}
	}
	return list
}

// algorithms reports an error of package proposal at its place. What it says behind
// the last semicolon or colon is the fix.
func (d *decoder) algorithms(v value, err error, text, form string) {
	if !showable(text) {
		v.wrong("write keywords, " + form)
		return
	}
	whole := strings.TrimPrefix(err.Error(), "proposal: ")
	for _, separator := range []string{"; use ", "; near ones: ", ": add ", ": leave out ", ": make it ", " needs allow_legacy: true"} {
		problem, fix, ok := strings.Cut(whole, separator)
		if !ok {
			continue
		}
		switch separator {
		case "; near ones: ":
			fix = "near ones: " + fix
		case " needs allow_legacy: true":
			problem += fix
			fix = "use a keyword without sha1, or add `allow_legacy: true` at the top level for a peer that knows nothing else"
		default:
			fix = strings.TrimLeft(separator, ";: ") + fix
		}
		v.fail(problem, fix)
		return
	}
	v.fail(whole, "write keywords, "+form)
}

// ikeTimes reads lifetime and dpd.
func (d *decoder) ikeTimes(o *object, k *IKE) {
	k.Rekey, k.DPD = DefaultIKERekey, DefaultDPD
	if v, ok := d.get(o, "dpd"); ok {
		k.DPD = 0
		if !v.isWord("off") {
			k.DPD, _ = v.duration(minDPD, maxDPD, "off, or ")
		}
	}
	v, ok := d.get(o, "lifetime")
	if !ok {
		return
	}
	l, ok := v.object("rekey", "reauth")
	if !ok {
		return
	}
	if v, ok := d.get(l, "rekey"); ok {
		if n, ok := v.duration(minIKELifetime, maxLifetime, ""); ok {
			k.Rekey = n
		}
	}
	if v, ok := d.get(l, "reauth"); ok && !v.isWord("off") {
		k.Reauth, _ = v.duration(minIKELifetime, maxLifetime, "off, or ")
	}
}

// identities reads who the two ends are.
func (d *decoder) identities(o *object, k *IKE) {
	if v, ok := d.get(o, "local_id"); ok {
		k.Local.ID, _ = d.identity(v, false)
	}
	if v, ok := o.need("remote_id", "add `remote_id: …`, as the peer calls itself, or `remote_id: any`"); ok {
		k.Remote.ID, _ = d.identity(d.mark(v), true)
	}
	if !k.Local.ID.IsZero() && k.Local.ID.Equal(k.Remote.ID) {
		d.fail(o.key+".remote_id", fmt.Sprintf("found %s, which is local_id", k.Remote.ID), "each end has an identity of its own: write that of the peer")
	}
}

// identity reads an identity; any, where anyone may be meant, is the zero one.
func (d *decoder) identity(v value, anyone bool) (auth.Identity, bool) {
	const fix = "write an identity, such as b.example.net, admin@example.net, 192.0.2.2 or \"C=CH, O=example, CN=b\""
	text, ok := v.word(fix)
	if !ok {
		return auth.Identity{}, false
	}
	if text == "any" || text == "%any" {
		if !anyone {
			v.fail("found any, and this end has to say who it is", fix)
		}
		return auth.Identity{}, anyone
	}
	id, err := auth.ParseIdentity(text)
	switch {
	case err != nil && !showable(text):
		v.wrong(fix)
	case err != nil:
		d.authError(v, err, fix)
	case id.IsZero():
		v.wrong(fix)
	default:
		return id, true
	}
	return auth.Identity{}, false
}

// ppk reads a post-quantum pre-shared key (RFC 8784).
func (d *decoder) ppk(v value) (p auth.PPK) {
	o, ok := v.object("id", "key_file", "required")
	if !ok {
		return p
	}
	if v, ok := o.need("id", "add `id: …`, the name of the key at both ends"); ok {
		if text, ok := d.mark(v).word("write the name of the key at both ends, such as ppk-2026"); ok {
			p.ID = []byte(text)
		}
	}
	p.Required = d.flag(o, "required", true)
	if v, ok := o.need("key_file", "add `key_file: …`, a file with the key, made with: openssl rand -hex 32"); ok {
		if text, ok := d.secretFile(d.mark(v)); ok {
			p.Key, _ = d.strongSecret(v, text)
		}
	}
	return p
}

// pfs reads the key exchanges of Child SAs.
func (d *decoder) pfs(o *object) PFS {
	v, ok := d.get(o, "pfs")
	if !ok || v.isWord("auto") {
		return PFS{Auto: true}
	}
	if v.isWord("off") {
		return PFS{}
	}
	const form = "such as [x25519, modp2048]"
	items, ok := v.list("key exchanges, " + form + ", or auto, or off")
	if !ok {
		return PFS{}
	}
	var words []string
	for _, item := range items {
		text, ok := d.mark(item).word("write a key exchange, " + form)
		if !ok {
			return PFS{}
		}
		words = append(words, text)
	}
	if len(words) == 0 {
		v.fail("the list is empty", "write key exchanges, "+form+", or auto, or off")
		return PFS{}
	}
	keyword := strings.Join(words, "-")
	exchanges, err := proposal.ParseExchanges(keyword)
	if err != nil {
		d.algorithms(v, err, keyword, form)
	}
	return PFS{Exchanges: exchanges}
}

// responderOnly reads what this end leaves to the peer.
func (d *decoder) responderOnly(v value) ResponderOnly {
	word, _ := v.choice(responderWords...)
	for i, w := range responderWords {
		if w == word {
			return ResponderOnly(i)
		}
	}
	return ResponderOff
}
