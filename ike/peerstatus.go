package ike

// Established tells whether both ends have proved themselves and the SA is in use.
func (s *SAStatus) Established() bool { return s.State == established.String() }

// Up tells whether the peer has an IKE SA that works.
func (p *PeerStatus) Up() bool {
	for i := range p.SAs {
		if p.SAs[i].Established() {
			return true
		}
	}
	return false
}

// Missing are the policies that have no Child SA.
func (p *PeerStatus) Missing() (list []string) {
	have := map[string]bool{}
	for i := range p.SAs {
		for j := range p.SAs[i].ChildSAs {
			have[p.SAs[i].ChildSAs[j].Policy] = true
		}
	}
	for _, name := range p.Policies {
		if !have[name] {
			list = append(list, name)
		}
	}
	return list
}
