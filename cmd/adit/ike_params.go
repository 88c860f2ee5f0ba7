package main

import (
	"net/netip"

	"github.com/adit-ipsec/adit/config"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// allParams are the SAs of the file and those that IKE may make.
func allParams(cfg *config.Config) []sad.Params { return append(cfg.SAParams(), ikeParams(cfg)...) }

// ikeParams stand for the outbound SAs that IKE may make, one for each suite of each
// policy: what sockets and TUN have to be ready for. Where a NAT decides about UDP
// they are in UDP, which takes more room.
func ikeParams(cfg *config.Config) (list []sad.Params) {
	for i := range cfg.Peers {
		p := &cfg.Peers[i]
		if p.IKE == nil {
			continue
		}
		for j := range p.IKE.Children {
			child := &p.IKE.Children[j]
			params := child.Template
			params.Direction, params.Peer, params.Policy, params.Mode = packet.Outbound, p.Name, child.Policy, child.Mode
			params.Remote, params.Encap = netip.AddrPortFrom(peerOrFamily(cfg, p), 0), sad.EncapUDP
			if p.IKE.NoUDP {
				params.Encap = sad.EncapNone
			}
			for k := range child.Proposals {
				list = append(list, suitesOf(&child.Proposals[k], params)...)
			}
		}
	}
	return list
}

// peerOrFamily is a peer's address, or one of the family that it must be of; invalid:
// it may be of either.
func peerOrFamily(cfg *config.Config, p *config.Peer) netip.Addr {
	if p.Address.IsValid() {
		return p.Address
	}
	return cfg.Listen.Address
}

// suitesOf makes an SA like params for each suite that a proposal can come to.
func suitesOf(p *proposal.Proposal, params sad.Params) (list []sad.Params) {
	of := func(kind wire.TransformType) (found []wire.Transform) {
		for _, t := range p.Transforms {
			if t.Type == kind {
				found = append(found, t)
			}
		}
		if found == nil {
			found = []wire.Transform{{Type: kind}}
		}
		return found
	}
	for _, integrity := range of(wire.INTEG) {
		if p.Protocol == wire.ProtocolAH {
			suite, err := proposal.Choice{Protocol: p.Protocol, Transforms: []wire.Transform{integrity}}.AHSuite()
			if params.Protocol, params.Encap, params.AHSuite = sad.AH, sad.EncapNone, suite; err == nil {
				list = append(list, params)
			}
			continue
		}
		for _, encryption := range of(wire.ENCR) {
			suite, err := proposal.Choice{Protocol: p.Protocol, Transforms: []wire.Transform{encryption, integrity}}.Suite()
			if params.Suite = suite; err == nil {
				list = append(list, params)
			}
		}
	}
	return list
}
