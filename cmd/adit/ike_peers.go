package main

import (
	"github.com/adit-ipsec/adit/config"
	"github.com/adit-ipsec/adit/ike"
)

// ikePeers is the peers of cfg that are keyed by IKE, as the machine takes them.
func (g *gateway) ikePeers(cfg *config.Config) []ike.Peer {
	var list []ike.Peer
	for i := range cfg.Peers {
		if p := &cfg.Peers[i]; p.IKE != nil {
			list = append(list, g.ikePeer(cfg, p))
		}
	}
	return list
}

func (g *gateway) ikePeer(cfg *config.Config, p *config.Peer) ike.Peer {
	c := p.IKE
	peer := ike.Peer{
		Name: p.Name, Local: cfg.Listen.Address, Remote: p.Address,
		Port: c.Port, NATTPort: c.NATTPort, StartNATT: c.StartNATT,
		Auth: c.Local, Remotely: c.Remote, Proposals: c.Proposals, PPK: c.PPK,
		Role: ikeRoles[c.Responder], Start: ikeStarts[c.Start],
		Rekey: c.Rekey, Reauth: c.Reauth, DPD: c.DPD,
		Mobike: c.MOBIKE, Fragmentation: c.Fragmentation, FragmentSize: c.FragmentSize, Childless: c.Childless,
		ForceUDP: c.ForceUDP || !c.NoUDP && !g.mayBeRaw(p), NoUDP: c.NoUDP,
	}
	for i := range c.Children {
		child := &c.Children[i]
		peer.Children = append(peer.Children, ike.Child{
			Policy: child.Policy, Selectors: child.Selectors, Mode: child.Mode, Proposals: child.Proposals, Template: child.Template,
		})
	}
	return peer
}

// mayBeRaw tells whether there is a socket for protocol 50 towards the peer: without
// one everything is in UDP (RFC 7296 2.23 lets an end pretend a NAT).
func (g *gateway) mayBeRaw(p *config.Peer) bool {
	if g.ike == nil || !p.Address.IsValid() {
		return g.ike != nil && (g.ike.raw4 || g.ike.raw6)
	}
	return p.Address.Is4() && g.ike.raw4 || p.Address.Is6() && g.ike.raw6
}

var ikeRoles = map[config.ResponderOnly]ike.Role{
	config.ResponderOff: ike.Both, config.NeverInitiate: ike.NeverInitiate, config.NeverRekey: ike.NeverRekey,
	config.ResponderFull: ike.ResponderOnly, config.Passive: ike.Passive,
}

var ikeStarts = map[config.Start]ike.Start{config.StartTraffic: ike.OnTraffic, config.StartNow: ike.AtOnce}

// responders are the policies whose SAs only the peer may begin.
func responders(peers []ike.Peer) (policies []string) {
	for i := range peers {
		if p := &peers[i]; p.Role != ike.Both && p.Role != ike.NeverRekey {
			for j := range p.Children {
				policies = append(policies, p.Children[j].Policy)
			}
		}
	}
	return policies
}
