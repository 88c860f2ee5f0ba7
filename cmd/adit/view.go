package main

import (
	"net/netip"
	"slices"
	"strings"

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

// postureOf is the posture of traffic under a suite.
func postureOf(s esp.Suite) string {
	// The two families that do not encrypt: NULL with an HMAC (RFC 2410)
	// and ENCR_NULL_AUTH_AES_GMAC (RFC 4543).
	if name := s.String(); strings.HasPrefix(name, "null-") || strings.HasSuffix(name, "gmac") {
		return postureAuthenticated
	}
	return postureEncrypted
}

// peerPosture is the weakest posture of a peer's SAs. A peer that lacks either
// direction is down.
func peerPosture(sas []suiteOf) string {
	var out, in bool
	posture := postureEncrypted
	for _, sa := range sas {
		out = out || sa.direction == packet.Outbound
		in = in || sa.direction == packet.Inbound
		if postureOf(sa.suite) == postureAuthenticated {
			posture = postureAuthenticated
		}
	}
	if !out || !in {
		return postureDown
	}
	return posture
}

// suiteOf is what peerPosture asks of an SA.
type suiteOf struct {
	direction packet.Direction
	suite     esp.Suite
}

// viewPeers describes the peers of a configuration, given the SAs that are
// installed and those that should be.
func viewPeers(cfg *config.Config, installed, expected map[sad.ID]esp.Suite) []*controlv1.Peer {
	var list []*controlv1.Peer
	for i := range cfg.Peers {
		p := &cfg.Peers[i]
		profile := cfg.Profiles[p.Profile]
		view := &controlv1.Peer{Name: p.Name, Encapsulation: profile.Encap.String()}
		if p.Address.IsValid() {
			view.Address = p.Address.String()
		}
		if profile.Encap == sad.EncapUDP {
			view.Port = uint32(p.Port)
			if p.Port == 0 {
				view.Port = uint32(cfg.Listen.NATTPort)
			}
		}
		var mine []suiteOf
		for id, suite := range installed {
			if id.Peer == p.Name {
				view.SasInstalled++
				mine = append(mine, suiteOf{id.Direction, suite})
				if name := suite.String(); !slices.Contains(view.Suites, name) {
					view.Suites = append(view.Suites, name)
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
		Suite: s.Suite.String(), Esn: s.ESN, ReplayWindow: uint32(s.ReplayWindow),
		Encapsulation: s.Encap.String(), Local: endpoint(s.Local), Remote: endpoint(s.Remote),
		Packets: s.Packets, Bytes: s.Bytes, ReplayDrops: s.ReplayDrops, AuthDrops: s.AuthDrops,
		Sequence: s.Seq, Exhausted: s.Exhausted, IdleSeconds: -1,
	}
	if s.LastUsed != 0 {
		view.IdleSeconds = float64(max(now-s.LastUsed, 0)) / 1e9
	}
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

// suitesOf lists SAs by ID with their suite.
func suitesOf(params []sad.Params) map[sad.ID]esp.Suite {
	list := make(map[sad.ID]esp.Suite, len(params))
	for i := range params {
		list[params[i].ID()] = params[i].Suite
	}
	return list
}
