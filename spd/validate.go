package spd

import (
	"errors"
	"fmt"
	"net/netip"
)

var errAnyStandsAlone = errors.New("any already holds every value and opaque: write any alone, or leave it out")

// Validate reports what is wrong with the selector. The error says what would
// be right.
func (s *Selector) Validate() error {
	if err := validateAddrs("local", s.Local); err != nil {
		return err
	}
	if err := validateAddrs("remote", s.Remote); err != nil {
		return err
	}
	if !s.hasFamily(true) && !s.hasFamily(false) {
		return errors.New("local and remote have no address family in common, so no packet can match: write ranges of one family on both sides, or any")
	}
	if s.Protocol < ProtocolOpaque || s.Protocol > 255 {
		return fmt.Errorf("protocol %d does not exist: write a name, a number 0..255, any or opaque", int(s.Protocol))
	}
	if err := s.validatePorts("local_ports", &s.LocalPorts); err != nil {
		return err
	}
	if err := s.validatePorts("remote_ports", &s.RemotePorts); err != nil {
		return err
	}
	if s.LocalPorts.onlyOpaque() && s.RemotePorts.onlyRanges() || s.LocalPorts.onlyRanges() && s.RemotePorts.onlyOpaque() {
		return errors.New("local_ports and remote_ports: a packet has both ports or neither, and this asks for one without the other: write opaque on both sides, or ports or any beside ports")
	}
	return s.validateICMP()
}

func (p *Ports) onlyOpaque() bool { return p.Opaque && len(p.Ranges) == 0 }
func (p *Ports) onlyRanges() bool { return !p.MatchOpaque() }

// hasFamily tells whether both ends have a range of IPv4 (v4) or of IPv6.
func (s *Selector) hasFamily(v4 bool) bool {
	has := func(ranges []AddrRange) bool {
		for _, r := range ranges {
			if r.From.Is4() == v4 {
				return true
			}
		}
		return false
	}
	return has(s.Local) && has(s.Remote)
}

func validateAddrs(field string, ranges []AddrRange) error {
	if len(ranges) == 0 {
		return fmt.Errorf("%s is empty: write \"any\" for every address", field)
	}
	for _, r := range ranges {
		if err := r.validate(); err != nil {
			return fmt.Errorf("%s: %w", field, err)
		}
	}
	return nil
}

func (r AddrRange) validate() error {
	for _, a := range [...]netip.Addr{r.From, r.To} {
		switch {
		case !a.IsValid():
			return errors.New("an address range lacks an end: give both, the same address twice for one host")
		case a.Zone() != "":
			return fmt.Errorf("%v has a zone, which packets do not carry: write %v", a, a.WithZone(""))
		case a.Is4In6():
			return fmt.Errorf("%v is an IPv4-mapped IPv6 address: write %v for the IPv4 address", a, a.Unmap())
		}
	}
	switch {
	case r.From.Is4() != r.To.Is4():
		return fmt.Errorf("%v-%v mixes the address families: write one range for each", r.From, r.To)
	case r.To.Less(r.From):
		return fmt.Errorf("%v-%v ends before it begins: write %v-%v", r.From, r.To, r.To, r.From)
	}
	return nil
}

func (r PortRange) validate() error {
	if r.From > r.To {
		return fmt.Errorf("%d-%d ends before it begins: write %d-%d", r.From, r.To, r.To, r.From)
	}
	return nil
}

func (p *Ports) validate(field string) error {
	if p.Any && (p.Opaque || len(p.Ranges) > 0) {
		return fmt.Errorf("%s: %w", field, errAnyStandsAlone)
	}
	for _, r := range p.Ranges {
		if err := r.validate(); err != nil {
			return fmt.Errorf("%s: %w", field, err)
		}
	}
	return nil
}

// validatePorts holds ports to protocols that have them. OPAQUE alone is also
// right where the protocol is any or opaque: it then says "without ports".
func (s *Selector) validatePorts(field string, p *Ports) error {
	if err := p.validate(field); err != nil {
		return err
	}
	switch {
	case p.IsAny(), s.Protocol.HasPorts():
		return nil
	case s.Protocol.IsICMP():
		return fmt.Errorf("%s: %v has no ports: use icmp for its types and codes, or leave %s as any", field, s.Protocol, field)
	case s.Protocol >= 0:
		return fmt.Errorf("%s: protocol %v has no ports: leave %s as any, or use protocol tcp, udp, sctp or udplite", field, s.Protocol, field)
	case len(p.Ranges) > 0:
		return fmt.Errorf("%s: ports need a protocol that has them, and it is %v: use protocol tcp, udp, sctp or udplite, one policy for each", field, s.Protocol)
	}
	return nil
}

func (s *Selector) validateICMP() error {
	if err := s.ICMP.validate("icmp"); err != nil {
		return err
	}
	if !s.ICMP.IsAny() && !s.Protocol.IsICMP() {
		return fmt.Errorf("icmp: types and codes need protocol icmp or icmpv6, and it is %v: change the protocol, or leave icmp as any", s.Protocol)
	}
	return nil
}
