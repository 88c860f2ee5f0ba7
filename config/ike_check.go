package config

import (
	"crypto/x509"
	"fmt"
	"slices"

	"github.com/adit-ipsec/adit/ah"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// What is proposed for Child SAs where a profile names no suites: what RFC 8221
// sections 5 and 6 call MUST and SHOULD, combined modes first.
var (
	defaultSuites   = []string{"aes128gcm16", "aes256gcm16", "chacha20poly1305", "aes128-sha256", "aes256-sha256", "aes256-sha512"}
	defaultAHSuites = []string{"sha256", "sha512"}
)

// mayBeRaw tells whether NAT detection may leave a peer's ESP without UDP.
func (c *Config) mayBeRaw() bool {
	return slices.ContainsFunc(c.Peers, func(p Peer) bool { return p.IKE != nil && c.Profiles[p.Profile].EncapAuto })
}

// checkKeying holds a peer against the way in which its keys come.
func (d *decoder) checkKeying(key string, p *Peer, profile Profile) {
	if p.IKE == nil {
		if profile.Responder != ResponderOff && len(p.SAs) > 0 {
			d.fail(profileKey(profile.Name)+".responder_only", fmt.Sprintf("found %s, and peer %q has manual keys, which negotiate nothing", profile.Responder, p.Name), "write off, or give the peer `keying: ike`")
		}
		return
	}
	if profile.Protocol == ProtocolAHESP {
		d.fail(key+".profile", fmt.Sprintf("profile %q has `protocol: ah+esp`, and IKE negotiates one protocol for a Child SA: RFC 7296 has no bundles", profile.Name), "use a profile with `protocol: esp` or `ah`, or `keying: manual`")
	}
	d.checkResponder(key, p, profile)
	if d.anywhere[key] {
		d.checkAnywhere(key, p, profile)
	}
	d.checkSelectors(p)
}

// checkResponder: who waits for the peer can be reached, and is told to start
// nothing.
func (d *decoder) checkResponder(key string, p *Peer, profile Profile) {
	role := profile.Responder
	if role == ResponderOff {
		return
	}
	if p.BehindNAT && !role.initiates() {
		d.fail(key+".behind_nat", fmt.Sprintf("found true, and profile %q has `responder_only: %s`: nobody would open the way through the NAT for the peer", profile.Name, role), "use a profile with `responder_only: off`; or forward the ports to this end, and leave behind_nat out")
	}
	if p.IKE.Start == StartNow && !role.initiates() {
		d.fail(key+".ike.start", fmt.Sprintf("found now, and profile %q has `responder_only: %s`, which starts nothing", profile.Name, role), "write traffic, or use a profile with `responder_only: off`")
	}
	if p.IKE.Reauth != 0 {
		d.fail(key+".ike.lifetime.reauth", fmt.Sprintf("found %s, and profile %q has `responder_only: %s`: the peer starts anew, or nobody does", clock(p.IKE.Reauth), profile.Name, role), "write off; set reauth at the other end")
	}
}

// checkAnywhere: with `address: any` it is the peer that finds this end.
func (d *decoder) checkAnywhere(key string, p *Peer, profile Profile) {
	if p.IKE.Start == StartNow {
		d.fail(key+".ike.start", "found now, and the peer has `address: any`: there is no address to start with", "write traffic, or the peer's address")
	}
	if profile.Mode == sad.TransportMode {
		d.fail(key+".address", fmt.Sprintf("found any, and profile %q has `mode: transport`, whose policies name the peer's address", profile.Name), "write the peer's outside address, or use a profile with `mode: tunnel`")
	}
	d.warnAnybody(key, p)
}

// warnAnybody: what is behind a peer the peer says itself, within the policy (RFC 7296
// 2.9), and of several SAs of one policy the newest carries its packets. Where any
// number of clients may come as one peer, each of them can have what is sent to the
// others, and the one that comes last does. One client that is somewhere is right, and
// so is a policy to one address.
func (d *decoder) warnAnybody(key string, p *Peer) {
	if !p.IKE.Remote.ID.IsZero() || !d.written(key+".ike.remote_id") {
		return
	}
	who := "whoever is under an authority of `trust`"
	switch {
	case len(p.IKE.Remote.PSK) > 0:
		who = "whoever has the pre-shared key"
	case !slices.ContainsFunc(p.IKE.Remote.Trust, func(c *x509.Certificate) bool { return c.IsCA }):
		return // it is the peer's very certificate
	}
	for i := range d.Policies {
		policy := &d.Policies[i]
		remote := policy.Selector.Remote
		if policy.Action != spd.Protect || policy.Peer != p.Name || len(remote) == 1 && remote[0].From == remote[0].To {
			continue
		}
		d.warn(key+".ike.remote_id", fmt.Sprintf("any, with `address: any`: %s can say that all of policy %q's remote addresses are behind it, and of several such clients "+
			"the last one gets what is sent there; if there may be several, give each a peer with its own remote_id and policies", who, policy.Name))
		return
	}
}

// maxTrafficSelectors is how many a TS payload has room for: their number is one
// byte (RFC 7296 section 3.13).
const maxTrafficSelectors = 255

// checkSelectors: a policy becomes one Child SA with all its selectors.
func (d *decoder) checkSelectors(p *Peer) {
	for i := range d.Policies {
		policy := &d.Policies[i]
		if policy.Action != spd.Protect || policy.Peer != p.Name {
			continue
		}
		s := &policy.Selector
		for _, side := range []struct {
			name  string
			addrs []spd.AddrRange
			ports spd.Ports
		}{{"local", s.Local, s.LocalPorts}, {"remote", s.Remote, s.RemotePorts}} {
			n := len(side.addrs) * max(len(side.ports.Ranges), len(s.ICMP.Ranges), 1)
			if n > maxTrafficSelectors {
				d.fail(fmt.Sprintf("policies[%d].%s", i, side.name), fmt.Sprintf("%d ranges of addresses, with their ports %d traffic selectors, and a Child SA has at most %d (RFC 7296 section 3.13)", len(side.addrs), n, maxTrafficSelectors), "join ranges, or make it several policies")
			}
		}
	}
}

// checkIdentities: what a peer says of itself has to tell which of several it is.
func (d *decoder) checkIdentities() {
	for j := range d.Peers {
		b := &d.Peers[j]
		if b.IKE == nil || !d.written(fmt.Sprintf("peers[%d].ike.remote_id", j)) {
			continue
		}
		for i := range d.Peers[:j] {
			a := &d.Peers[i]
			if a.IKE == nil || a.Address != b.Address || !d.written(fmt.Sprintf("peers[%d].ike.remote_id", i)) {
				continue
			}
			x, y := a.IKE.Remote.ID, b.IKE.Remote.ID
			if x.IsZero() || y.IsZero() || x.Equal(y) {
				d.fail(fmt.Sprintf("peers[%d].ike.remote_id", j), fmt.Sprintf("peer %q has the same address, and the same remote_id or any: which of the two it is cannot be told", a.Name), "give each its own remote_id, or its own address")
				break
			}
		}
	}
}

// sealIKE fills what hangs on the rest of a file that is right.
func (d *decoder) sealIKE() {
	for i := range d.Peers {
		p := &d.Peers[i]
		if p.IKE == nil {
			continue
		}
		profile := d.Profiles[p.Profile]
		p.IKE.NoUDP = profile.Encap == sad.EncapNone
		p.IKE.ForceUDP = profile.Encap == sad.EncapUDP && (!profile.EncapAuto || !d.RawAllowed)
		proposals := childProposals(profile, p.IKE.Proposals)
		for j := range d.Policies {
			if policy := &d.Policies[j]; policy.Action == spd.Protect && policy.Peer == p.Name {
				p.IKE.Children = append(p.IKE.Children, childOf(p, profile, policy, proposals))
			}
		}
	}
}

func childOf(p *Peer, profile Profile, policy *spd.Policy, proposals []proposal.Proposal) Child {
	c := Child{
		Policy: policy.Name, Selectors: []spd.Selector{policy.Selector}, Mode: profile.Mode, Proposals: proposals,
		Template: sad.Params{
			Mode: profile.Mode, Peer: p.Name, Policy: policy.Name,
			ReplayWindow: profile.ReplayWindow, Tunnel: profile.Tunnel, Fragment: profile.Fragment, Lifetime: profile.Lifetime,
			Keepalive: p.NATKeepalive, Static: p.Static,
		},
	}
	if profile.Protocol == ProtocolAH {
		c.Template.Protocol = sad.AH
	} else {
		c.Template.TFC = profile.TFC
	}
	return c
}

// Proposed is the suites that a profile proposes for Child SAs: its own, or what is
// proposed where it names none.
func (p Profile) Proposed() (esps []esp.Suite, ahs []ah.Suite) {
	switch {
	case p.Protocol == ProtocolAH && len(p.AHSuites) == 0:
		return nil, parsed(defaultAHSuites, ah.ParseSuite)
	case p.Protocol == ProtocolAH:
		return nil, p.AHSuites
	case len(p.Suites) == 0:
		return parsed(defaultSuites, esp.ParseSuite), nil
	}
	return p.Suites, nil
}

// childProposals is what a profile proposes for Child SAs.
func childProposals(profile Profile, ikeProposals []proposal.Proposal) []proposal.Proposal {
	esps, ahs := profile.Proposed()
	list := append(proposal.ESP(esps, profile.ESN, nil), proposal.AH(ahs, profile.ESN, nil)...)
	exchanges := profile.PFS.Exchanges
	if profile.PFS.Auto {
		exchanges = autoPFS(ikeProposals)
	}
	for i := range list {
		list[i] = list[i].WithExchanges(exchanges)
	}
	return list
}

// autoPFS is the key exchange methods of the IKE SA, and none for a peer that has
// none.
func autoPFS(ikeProposals []proposal.Proposal) (exchanges []wire.Transform) {
	for _, p := range ikeProposals {
		for _, method := range p.KEs() {
			if t := (wire.Transform{Type: wire.KEX, ID: uint16(method)}); !slices.Contains(exchanges, t) {
				exchanges = append(exchanges, t)
			}
		}
	}
	return append(exchanges, wire.Transform{Type: wire.KEX})
}

// parsed is suites by their names; a test holds that they are names.
func parsed[S any](names []string, parse func(string) (S, error)) (suites []S) {
	for _, name := range names {
		if s, err := parse(name); err == nil {
			suites = append(suites, s)
		}
	}
	return suites
}
