package spd

import (
	"fmt"
	"strings"
)

// The text of a whole selector is one line of fields "name=value,value" with
// the names of the configuration file, for listings, events and tests:
//
//	local=10.1.0.0/24,10.1.8.10-10.1.8.99 remote=any protocol=tcp remote_ports=80,443

// String is the selector's text. Ports and icmp are left out where they are
// any.
func (s *Selector) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "local=%s remote=%s protocol=%s", FormatAddrRanges(s.Local), FormatAddrRanges(s.Remote), s.Protocol)
	if !s.LocalPorts.IsAny() {
		fmt.Fprintf(&b, " local_ports=%s", s.LocalPorts)
	}
	if !s.RemotePorts.IsAny() {
		fmt.Fprintf(&b, " remote_ports=%s", s.RemotePorts)
	}
	if !s.ICMP.IsAny() {
		fmt.Fprintf(&b, " icmp=%s", FormatICMPs(s.ICMP))
	}
	return b.String()
}

// FormatAddrRanges is the list with commas; both whole families together are
// "any".
func FormatAddrRanges(ranges []AddrRange) string {
	var parts []string
	for i := 0; i < len(ranges); i++ {
		if ranges[i] == any4 && i+1 < len(ranges) && ranges[i+1] == any6 {
			parts = append(parts, "any")
			i++
			continue
		}
		parts = append(parts, ranges[i].String())
	}
	return strings.Join(parts, ",")
}

// FormatICMPs is a list of ICMP types and codes with commas, as ParseICMPs
// reads its elements.
func FormatICMPs(p Ports) string { return p.format(FormatICMP) }

// ParseSelector reads what Selector.String prints: fields in any order, each at
// most once, local and remote always. The selector that it returns is valid.
func ParseSelector(text string) (Selector, error) {
	s := Selector{Protocol: ProtocolAny}
	seen := map[string]bool{}
	for _, field := range strings.Fields(text) {
		name, value, ok := strings.Cut(field, "=")
		if !ok {
			return Selector{}, fmt.Errorf("%q is no field: write name=value, with commas and no spaces between values", field)
		}
		if seen[name] {
			return Selector{}, fmt.Errorf("%s stands twice: write one %s with commas between its values", name, name)
		}
		seen[name] = true
		if err := s.set(name, strings.Split(value, ",")); err != nil {
			return Selector{}, fmt.Errorf("%s: %w", name, err)
		}
	}
	return s, s.Validate()
}

// set parses the values of one field.
func (s *Selector) set(name string, values []string) (err error) {
	switch name {
	case "local":
		s.Local, err = parseAddrLists(values)
	case "remote":
		s.Remote, err = parseAddrLists(values)
	case "protocol":
		s.Protocol, err = ParseProtocol(strings.Join(values, ","))
	case "local_ports":
		s.LocalPorts, err = ParsePorts(values...)
	case "remote_ports":
		s.RemotePorts, err = ParsePorts(values...)
	case "icmp":
		s.ICMP, err = ParseICMPs(values...)
	default:
		err = fmt.Errorf("unknown field: use local, remote, protocol, local_ports, remote_ports or icmp")
	}
	return err
}

func parseAddrLists(values []string) ([]AddrRange, error) {
	var out []AddrRange
	for _, v := range values {
		r, err := ParseAddrRanges(v)
		if err != nil {
			return nil, err
		}
		out = append(out, r...)
	}
	return out, nil
}
