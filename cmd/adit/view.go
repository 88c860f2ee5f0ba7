package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/adit-ipsec/adit/ah"
	"github.com/adit-ipsec/adit/config"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/ctl/controlv1"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// Postures: what an observer on the wire can do with the traffic.
const (
	postureEncrypted     = "encrypted"     // neither read nor change it
	postureAuthenticated = "authenticated" // read it, and not change it
	postureClear         = "clear"         // both
	postureDiscarded     = "discarded"     // there is nothing to see
	postureDown          = "down"          // the same, until there is an SA
)

// postureOf is the posture of traffic under one SA. AH encrypts nothing (RFC 4302
// 1).
func postureOf(protocol sad.Protocol, s esp.Suite) string {
	// Of ESP the two families that do not encrypt: NULL with an HMAC (RFC 2410)
	// and ENCR_NULL_AUTH_AES_GMAC (RFC 4543).
	if name := s.String(); protocol == sad.AH || strings.HasPrefix(name, "null-") || strings.HasSuffix(name, "gmac") {
		return postureAuthenticated
	}
	return postureEncrypted
}

// saKind is what a peer's view asks of an SA beyond its ID.
type saKind struct {
	suite   string
	posture string
	bundle  bool
}

// peerPosture is the weakest posture of a peer's SAs; in a bundle the SA of ESP
// says it, as AH stands around it. A peer that lacks either direction, or one SA of a
// bundle, is down.
func peerPosture(sas map[sad.ID]saKind) string {
	type role struct {
		direction packet.Direction
		protocol  sad.Protocol
	}
	have := map[role]bool{}
	bundle, posture := false, postureEncrypted
	for id, sa := range sas {
		have[role{id.Direction, id.Protocol}] = true
		bundle = bundle || sa.bundle
		if sa.posture == postureAuthenticated && !(sa.bundle && id.Protocol == sad.AH) {
			posture = postureAuthenticated
		}
	}
	for _, direction := range []packet.Direction{packet.Outbound, packet.Inbound} {
		esp, ah := have[role{direction, sad.ESP}], have[role{direction, sad.AH}]
		if !esp && !ah || bundle && !(esp && ah) {
			return postureDown
		}
	}
	return posture
}

// viewPeers describes the peers of a configuration, given the SAs that are
// installed and those that should be.
func viewPeers(cfg *config.Config, installed, expected map[sad.ID]saKind) []*controlv1.Peer {
	var list []*controlv1.Peer
	for i := range cfg.Peers {
		p := &cfg.Peers[i]
		profile := cfg.Profiles[p.Profile]
		view := &controlv1.Peer{
			Name: p.Name, Encapsulation: profile.Encap.String(), Protocol: profile.Protocol.String(), Mode: profile.Mode.String(),
			Fragment: profile.Fragment.String(), Tfc: profile.TFC.String(), Static: p.Static, BehindNat: p.BehindNAT,
		}
		if p.Address.IsValid() {
			view.Address = p.Address.String()
		}
		if profile.Encap == sad.EncapUDP {
			view.Port = uint32(p.Port)
			if p.Port == 0 {
				view.Port = uint32(cfg.Listen.NATTPort)
			}
		}
		mine := map[sad.ID]saKind{}
		for id, sa := range installed {
			if id.Peer == p.Name {
				view.SasInstalled++
				mine[id] = sa
				if !slices.Contains(view.Suites, sa.suite) {
					view.Suites = append(view.Suites, sa.suite)
				}
			}
		}
		slices.Sort(view.Suites)
		for id := range expected {
			if id.Peer == p.Name {
				view.SasExpected++
			}
		}
		view.Posture = peerPosture(mine)
		for j := range cfg.Policies {
			if cfg.Policies[j].Peer == p.Name {
				view.Policies = append(view.Policies, cfg.Policies[j].Name)
			}
		}
		list = append(list, view)
	}
	return list
}

// viewPolicies describes policies; postures are those of the peers by name.
func viewPolicies(policies []spd.Policy, postures map[string]string) []*controlv1.Policy {
	var list []*controlv1.Policy
	for i := range policies {
		p := &policies[i]
		view := &controlv1.Policy{
			Name: p.Name, Action: p.Action.String(), Peer: p.Peer,
			Local:      strings.Split(spd.FormatAddrRanges(p.Selector.Local), ","),
			Remote:     strings.Split(spd.FormatAddrRanges(p.Selector.Remote), ","),
			Protocol:   p.Selector.Protocol.String(),
			LocalPorts: p.Selector.LocalPorts.String(), RemotePorts: p.Selector.RemotePorts.String(),
			Icmp: spd.FormatICMPs(p.Selector.ICMP),
		}
		switch p.Action {
		case spd.Protect:
			view.Posture = postures[p.Peer]
		case spd.Bypass:
			view.Posture = postureClear
		default:
			view.Posture = postureDiscarded
		}
		list = append(list, view)
	}
	return list
}

// posturesOf is the posture of each peer by name.
func posturesOf(peers []*controlv1.Peer) map[string]string {
	postures := map[string]string{}
	for _, p := range peers {
		postures[p.GetName()] = p.GetPosture()
	}
	return postures
}

// clearPolicies names the policies that let traffic through in clear.
func clearPolicies(policies []spd.Policy) []string {
	var names []string
	for i := range policies {
		if policies[i].Action == spd.Bypass {
			names = append(names, policies[i].Name)
		}
	}
	return names
}

// viewSA describes an SA. now is the gateway's clock, in nanoseconds.
func viewSA(s *sad.Stats, now int64) *controlv1.SecurityAssociation {
	view := &controlv1.SecurityAssociation{
		Direction: s.Direction.String(), Spi: s.SPI, Peer: s.Peer, Policy: s.Policy,
		Protocol: s.Protocol.String(), Mode: s.Mode.String(), Bundle: s.Bundle, Posture: postureOf(s.Protocol, s.Suite),
		Suite: suiteName(s.Protocol, s.Suite, s.AHSuite), Esn: s.ESN, ReplayWindow: uint32(s.ReplayWindow),
		Encapsulation: s.Encap.String(), Local: endpoint(s.Local), Remote: endpoint(s.Remote),
		Packets: s.Packets, Bytes: s.Bytes, ReplayDrops: s.ReplayDrops, AuthDrops: s.AuthDrops,
		Sequence: s.Seq, Exhausted: s.Exhausted, IdleSeconds: -1,
	}
	for i := range s.Selectors {
		view.Selectors = append(view.Selectors, s.Selectors[i].String())
	}
	if s.Direction == packet.Outbound {
		view.Fragment, view.Tfc = s.Fragment.String(), s.TFC.String()
		for _, point := range s.DSCPs {
			view.Dscps = append(view.Dscps, uint32(point))
		}
	}
	if s.LastUsed != 0 {
		view.IdleSeconds = float64(max(now-s.LastUsed, 0)) / 1e9
	}
	viewPathMTU(view, s, now)
	return view
}

// endpoint is an outer endpoint as people write it: "" for any, the address
// alone where there are no ports.
func endpoint(a netip.AddrPort) string {
	switch {
	case !a.Addr().IsValid():
		return ""
	case a.Port() == 0:
		return a.Addr().String()
	}
	return a.String()
}

// kindsOf lists SAs by ID with what their peer's view asks of them.
func kindsOf(params []sad.Params) map[sad.ID]saKind {
	list := make(map[sad.ID]saKind, len(params))
	for i := range params {
		p := &params[i]
		list[p.ID()] = saKind{suiteName(p.Protocol, p.Suite, p.AHSuite), postureOf(p.Protocol, p.Suite), p.Bundle}
	}
	return list
}

// suiteName is the name of an SA's suite, of ESP or AH.
func suiteName(protocol sad.Protocol, s esp.Suite, a ah.Suite) string {
	if protocol == sad.AH {
		return a.String()
	}
	return s.String()
}

// carrier is what carries an SA's packets, in words.
func carrier(protocol, encapsulation string, bundle bool) string {
	switch {
	case encapsulation == sad.EncapUDP.String():
		return "udp"
	case protocol == sad.AH.String():
		return "protocol 51"
	case bundle:
		return "inside ah"
	}
	return "protocol 50"
}

// special is what a reader should know of how an SA treats packets: what is not
// the default of its mode.
func special(mode, fragment, tfc string, dscps []uint32) string {
	var list []string
	if len(dscps) > 0 {
		list = append(list, "dscp "+strings.Trim(strings.ReplaceAll(fmt.Sprint(dscps), " ", ","), "[]"))
	}
	if fragment == sad.FragmentAfter.String() && mode == sad.TunnelMode.String() {
		list = append(list, "fragments after")
	}
	if tfc != "" && tfc != sad.TFCOff.String() {
		list = append(list, "tfc "+tfc)
	}
	return strings.Join(list, "; ")
}
