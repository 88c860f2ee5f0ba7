package spd

import (
	"net/netip"
	"strings"
	"testing"
)

func TestSelectorValidateSaysWhatWouldBeRight(t *testing.T) {
	addr := netip.MustParseAddr
	some := Ports{Ranges: []PortRange{{80, 80}}}
	opaque := Ports{Opaque: true}
	for name, c := range map[string]struct {
		spoil func(s *Selector)
		want  string // part of the error; "": valid
	}{
		"untouched":              {func(s *Selector) {}, ""},
		"local empty":            {func(s *Selector) { s.Local = nil }, `local is empty: write "any"`},
		"remote empty":           {func(s *Selector) { s.Remote = []AddrRange{} }, `remote is empty: write "any"`},
		"no address":             {func(s *Selector) { s.Local = []AddrRange{{}} }, "local: an address range lacks an end: give both"},
		"half a range":           {func(s *Selector) { s.Remote = []AddrRange{{From: addr("10.0.0.1")}} }, "remote: an address range lacks an end"},
		"reversed":               {func(s *Selector) { s.Local = []AddrRange{{addr("10.0.0.2"), addr("10.0.0.1")}} }, "local: 10.0.0.2-10.0.0.1 ends before it begins: write 10.0.0.1-10.0.0.2"},
		"mixed families":         {func(s *Selector) { s.Local = []AddrRange{{addr("10.0.0.2"), addr("2001:db8::1")}} }, "write one range for each"},
		"zone":                   {func(s *Selector) { s.Local = []AddrRange{{addr("fe80::1%eth0"), addr("fe80::2%eth0")}} }, "write fe80::1"},
		"mapped":                 {func(s *Selector) { s.Local = []AddrRange{{addr("::ffff:10.0.0.1"), addr("::ffff:10.0.0.1")}} }, "write 10.0.0.1"},
		"second range":           {func(s *Selector) { s.Local = append(s.Local, AddrRange{}) }, "lacks an end"},
		"no family in common":    {func(s *Selector) { s.Local, s.Remote = []AddrRange{any4}, []AddrRange{any6} }, "no address family in common"},
		"protocol below":         {func(s *Selector) { s.Protocol = -3 }, "write a name, a number 0..255, any or opaque"},
		"protocol above":         {func(s *Selector) { s.Protocol = 256 }, "write a name, a number 0..255"},
		"ports with any":         {func(s *Selector) { s.RemotePorts = some }, "remote_ports: ports need a protocol that has them, and it is any: use protocol tcp"},
		"ports with opaque":      {func(s *Selector) { s.Protocol, s.LocalPorts = ProtocolOpaque, some }, "local_ports: ports need a protocol"},
		"ports with gre":         {func(s *Selector) { s.Protocol, s.LocalPorts = 47, some }, "protocol gre has no ports: leave local_ports as any"},
		"opaque ports with gre":  {func(s *Selector) { s.Protocol, s.LocalPorts = 47, opaque }, "protocol gre has no ports"},
		"ports with icmp":        {func(s *Selector) { s.Protocol, s.LocalPorts = 1, some }, "use icmp for its types and codes"},
		"opaque ports with icmp": {func(s *Selector) { s.Protocol, s.RemotePorts = 58, opaque }, "icmpv6 has no ports"},
		"icmp with any":          {func(s *Selector) { s.ICMP = some }, "types and codes need protocol icmp or icmpv6, and it is any"},
		"icmp with tcp":          {func(s *Selector) { s.Protocol, s.ICMP = 6, opaque }, "and it is tcp"},
		"ports reversed":         {func(s *Selector) { s.Protocol, s.LocalPorts = 6, Ports{Ranges: []PortRange{{9, 8}}} }, "local_ports: 9-8 ends before it begins: write 8-9"},
		"icmp reversed":          {func(s *Selector) { s.Protocol, s.ICMP = 1, Ports{Ranges: []PortRange{{9, 8}}} }, "icmp: 9-8 ends before it begins"},
		"any and ports":          {func(s *Selector) { s.Protocol, s.LocalPorts = 6, Ports{Any: true, Ranges: some.Ranges} }, "local_ports: any already holds every value"},
		"any and opaque":         {func(s *Selector) { s.ICMP = Ports{Any: true, Opaque: true} }, "icmp: any already holds every value"},
		"one port of two":        {func(s *Selector) { s.Protocol, s.LocalPorts, s.RemotePorts = 6, some, opaque }, "a packet has both ports or neither"},
		"the other port of two":  {func(s *Selector) { s.Protocol, s.LocalPorts, s.RemotePorts = 17, opaque, some }, "a packet has both ports or neither"},
		"ports with tcp":         {func(s *Selector) { s.Protocol, s.LocalPorts, s.RemotePorts = 6, some, some }, ""},
		"ports with udplite":     {func(s *Selector) { s.Protocol, s.LocalPorts = 136, some }, ""},
		"ports or opaque, and opaque": {func(s *Selector) {
			s.Protocol, s.LocalPorts, s.RemotePorts = 6, Ports{Opaque: true, Ranges: some.Ranges}, opaque
		}, ""},
		"opaque ports with any":    {func(s *Selector) { s.LocalPorts = opaque }, ""},
		"opaque ports with opaque": {func(s *Selector) { s.Protocol, s.LocalPorts, s.RemotePorts = ProtocolOpaque, opaque, opaque }, ""},
		"any ports with gre":       {func(s *Selector) { s.Protocol, s.LocalPorts = 47, Ports{Any: true} }, ""},
		"icmp with icmpv6":         {func(s *Selector) { s.Protocol, s.ICMP = 58, Ports{Opaque: true, Ranges: some.Ranges} }, ""},
		"icmp any with tcp":        {func(s *Selector) { s.Protocol, s.ICMP = 6, Ports{Any: true} }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := Selector{Local: []AddrRange{any4, any6}, Remote: []AddrRange{any4, any6}, Protocol: ProtocolAny}
			c.spoil(&s)
			err := s.Validate()
			switch {
			case c.want == "" && err != nil:
				t.Errorf("Validate: %v, want it valid", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("Validate: %v, want an error with %q", err, c.want)
			}
		})
	}
}
