package main

import (
	"fmt"
	"slices"

	"github.com/adit-ipsec/adit/ike"
)

// comesToNothing tells why a change that names what there is would change nothing:
// whoever asked must not be told that it has begun. nil: it will.
func (p *provider) comesToNothing(s *ike.PeerStatus, action, policy string) error {
	begins := s.Role == ike.Both.String() || s.Role == ike.NeverRekey.String()
	switch {
	case action == ikeInitiate && !begins:
		return fmt.Errorf("this end begins nothing with %q (`responder_only: %s` in its profile): begin at the peer", s.Name, s.Role)
	case action == ikeInitiate && !s.Up() && !p.reachable(s.Name):
		return fmt.Errorf("%q has `address: any`: only the peer can begin, or give it an address in the file", s.Name)
	case action == ikeRenew && !renews(s.Role):
		return fmt.Errorf("this end renews nothing with %q (`responder_only: %s` in its profile): renew at the peer", s.Name, s.Role)
	case action != ikeRenew:
		return nil
	}
	begin := "the peer has to begin"
	if begins {
		begin = "`adit ike initiate " + s.Name + "` makes one"
	}
	missing := s.Missing()
	switch {
	case !s.Up():
		return fmt.Errorf("there is no IKE SA with %q to renew: %s", s.Name, begin)
	case policy == "*" && len(missing) == len(s.Policies):
		return fmt.Errorf("there is no Child SA with %q to renew: %s", s.Name, begin)
	case slices.Contains(missing, policy):
		return fmt.Errorf("policy %q of %q has no Child SA to renew: %s", policy, s.Name, begin)
	}
	return nil
}

// reachable tells whether the file says where the peer is.
func (p *provider) reachable(name string) bool {
	cfg := (*gateway)(p).config()
	for i := range cfg.Peers {
		if cfg.Peers[i].Name == name {
			return cfg.Peers[i].Address.IsValid()
		}
	}
	return false
}
