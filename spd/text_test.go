package spd

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func TestParseAddrRange(t *testing.T) {
	for text, want := range map[string][2]string{
		"10.1.0.1":                  {"10.1.0.1", "10.1.0.1"},
		"10.1.0.0/24":               {"10.1.0.0", "10.1.0.255"},
		"10.1.0.1/32":               {"10.1.0.1", "10.1.0.1"},
		"10.1.0.0/31":               {"10.1.0.0", "10.1.0.1"},
		"0.0.0.0/0":                 {"0.0.0.0", "255.255.255.255"},
		"10.1.8.10-10.1.8.99":       {"10.1.8.10", "10.1.8.99"},
		"10.1.8.10-10.1.8.10":       {"10.1.8.10", "10.1.8.10"},
		"2001:db8::/32":             {"2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"},
		"2001:db8::/127":            {"2001:db8::", "2001:db8::1"},
		"::/0":                      {"::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		"2001:db8::1-2001:db8::2:0": {"2001:db8::1", "2001:db8::2:0"},
	} {
		got, err := ParseAddrRange(text)
		want := AddrRange{netip.MustParseAddr(want[0]), netip.MustParseAddr(want[1])}
		if err != nil || got != want {
			t.Errorf("ParseAddrRange(%q) = %v-%v, %v, want %v-%v", text, got.From, got.To, err, want.From, want.To)
		}
		if list, err := ParseAddrRanges(text); err != nil || !reflect.DeepEqual(list, []AddrRange{want}) {
			t.Errorf("ParseAddrRanges(%q) = %v, %v, want %v", text, list, err, want)
		}
	}
}

func TestAddrRangePrintsTheShortestForm(t *testing.T) {
	for text, want := range map[string]string{
		"10.1.0.0-10.1.0.255":       "10.1.0.0/24",
		"10.1.0.1-10.1.0.1":         "10.1.0.1",
		"10.1.0.1/32":               "10.1.0.1",
		"10.1.0.0-10.1.0.254":       "10.1.0.0-10.1.0.254",
		"10.1.0.1-10.1.0.255":       "10.1.0.1-10.1.0.255",
		"0.0.0.0-255.255.255.255":   "0.0.0.0/0",
		"2001:db8::-2001:db8::ffff": "2001:db8::/112",
	} {
		r, err := ParseAddrRange(text)
		if err != nil || r.String() != want {
			t.Errorf("%q prints as %q, %v, want %q", text, r, err, want)
		}
	}
}

func TestAnyAddressIsBothFamilies(t *testing.T) {
	got, err := ParseAddrRanges("any")
	if err != nil || len(got) != 2 || got[0].String() != "0.0.0.0/0" || got[1].String() != "::/0" {
		t.Errorf("ParseAddrRanges(any) = %v, %v, want 0.0.0.0/0 and ::/0", got, err)
	}
	if text := FormatAddrRanges(got); text != "any" {
		t.Errorf("both families print as %q, want any", text)
	}
	if text := FormatAddrRanges(append(got, got[0])); text != "any,0.0.0.0/0" {
		t.Errorf("both families and one more print as %q, want any,0.0.0.0/0", text)
	}
}

// Each error says what would be right.
func TestParseErrorsSayWhatWouldBeRight(t *testing.T) {
	addr := func(s string) error { _, err := ParseAddrRange(s); return err }
	port := func(s string) error { _, err := ParsePortRange(s); return err }
	ports := func(s string) error { _, err := ParsePorts(strings.Split(s, ",")...); return err }
	icmp := func(s string) error { _, err := ParseICMP(s); return err }
	protocol := func(s string) error { _, err := ParseProtocol(s); return err }
	action := func(s string) error { _, err := ParseAction(s); return err }
	selector := func(s string) error { _, err := ParseSelector(s); return err }
	for _, c := range []struct {
		parse func(string) error
		text  string
		want  string
	}{
		{addr, "any", "write 0.0.0.0/0 or ::/0"},
		{addr, "", "write an address (10.1.0.1), a prefix (10.1.0.0/24)"},
		{addr, "10.1.0", "write an address"},
		{addr, "10.1.0.1-", "write an address"},
		{addr, "10.1.0.1-10.1.0.2-10.1.0.3", "write an address"},
		{addr, " 10.1.0.1", "write an address"},
		{addr, "host.example.net", "write an address"},
		{addr, "10.1.0.0/33", "as in 10.1.0.0/24"},
		{addr, "10.1.0.0/255.255.255.0", "as in 10.1.0.0/24"},
		{addr, "10.1.0.5/24", "write 10.1.0.0/24 for the prefix or 10.1.0.5 for the one address"},
		{addr, "2001:db8::1/64", "write 2001:db8::/64 for the prefix"},
		{addr, "10.1.0.9-10.1.0.3", "write 10.1.0.3-10.1.0.9"},
		{addr, "10.1.0.1-2001:db8::1", "mixes the address families: write one range for each"},
		{addr, "fe80::1%eth0", "write fe80::1"},
		{addr, "fe80::%eth0/64", "without a zone"},
		{addr, "::ffff:10.1.0.1", "write 10.1.0.1 for the IPv4 address"},
		{addr, "::ffff:10.1.0.0/120", "IPv4-mapped"},
		{addr, "::-::ffff:10.1.0.1", "write 10.1.0.1 for the IPv4 address"},
		{port, "", "write a number 0..65535"},
		{port, "65536", "write a number 0..65535"},
		{port, "-1", "write a number 0..65535"},
		{port, "+1", "write a number 0..65535"},
		{port, "080", "write a number 0..65535"},
		{port, "http", "write a number 0..65535"},
		{port, "1-2-3", "write a number 0..65535"},
		{port, "9-3", "write 3-9"},
		{ports, "any,80", "write any alone"},
		{ports, "opaque,any", "write any alone"},
		{ports, "any,any", "write any alone"},
		{ports, "80,x", "write a number 0..65535"},
		{icmp, "256", "each 0..255"},
		{icmp, "3/256", "each 0..255"},
		{icmp, "3/", "write a type (8)"},
		{icmp, "/4", "write a type (8)"},
		{icmp, "3/4/5", "write a type (8)"},
		{icmp, "echo", "write a type (8)"},
		{icmp, "3/0-4", "write both ends with a code, such as 3/0-4/255"},
		{icmp, "3-4/5", "write both ends with a code, such as 3/0-4/5"},
		{icmp, "8-0", "write the lower type and code first"},
		{protocol, "tpc", "write one of any, tcp, udp, icmp, icmpv6, sctp"},
		{protocol, "256", "or a number 0..255"},
		{protocol, "-1", "or a number 0..255"},
		{protocol, "TCP", "write one of any, tcp"},
		{action, "allow", "write protect, bypass or discard"},
		{action, "", "write protect, bypass or discard"},
		{selector, "remote=any", `local is empty: write "any"`},
		{selector, "local=any remote=any local=any", "write one local with commas"},
		{selector, "local=any remote=any port=5", "use local, remote, protocol"},
		{selector, "local=any remote", "write name=value"},
		{selector, "local=any remote=any protocol=tcp remote_ports=x", "remote_ports: "},
	} {
		err := c.parse(c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want an error with %q", c.text, err, c.want)
		}
	}
}

func TestParsePorts(t *testing.T) {
	for text, want := range map[string]Ports{
		"any":              {Any: true},
		"opaque":           {Opaque: true},
		"80":               {Ranges: []PortRange{{80, 80}}},
		"0,65535":          {Ranges: []PortRange{{0, 0}, {65535, 65535}}},
		"0-65535":          {Ranges: []PortRange{{0, 65535}}},
		"5060-5070,opaque": {Ranges: []PortRange{{5060, 5070}}, Opaque: true},
	} {
		got, err := ParsePorts(strings.Split(text, ",")...)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("ParsePorts(%q) = %+v, %v, want %+v", text, got, err, want)
		}
		if got.String() != text {
			t.Errorf("ParsePorts(%q) prints as %q", text, got)
		}
	}
	if got, err := ParsePorts(); err != nil || !got.IsAny() || got.String() != "any" {
		t.Errorf("ParsePorts() = %v, %v, want any", got, err)
	}
}

func TestParseICMP(t *testing.T) {
	for text, want := range map[string]PortRange{
		"0":           {0, 255},
		"8":           {8 << 8, 8<<8 | 255},
		"255":         {255 << 8, 65535},
		"3/4":         {3<<8 | 4, 3<<8 | 4},
		"0/0":         {0, 0},
		"255/255":     {65535, 65535},
		"0-8":         {0, 8<<8 | 255},
		"0-255":       {0, 65535},
		"3/0-3/4":     {3 << 8, 3<<8 | 4},
		"3/1-255/255": {3<<8 | 1, 65535},
	} {
		got, err := ParseICMP(text)
		if err != nil || got != want {
			t.Errorf("ParseICMP(%q) = %v, %v, want %v", text, got, err, want)
		}
		if back := FormatICMP(got); back != text {
			t.Errorf("ParseICMP(%q) prints as %q", text, back)
		}
	}
}

func TestEveryProtocolAndActionRoundTrips(t *testing.T) {
	for p := ProtocolOpaque; p <= 255; p++ {
		if got, err := ParseProtocol(p.String()); err != nil || got != p {
			t.Errorf("protocol %d prints as %q, which parses as %d, %v", int(p), p, int(got), err)
		}
	}
	// Numbers are read for protocols that have names too.
	if got, err := ParseProtocol("6"); err != nil || got != 6 {
		t.Errorf(`ParseProtocol("6") = %v, %v, want tcp`, got, err)
	}
	for a := Discard; a <= Protect; a++ {
		if got, err := ParseAction(a.String()); err != nil || got != a {
			t.Errorf("action %d prints as %q, which parses as %d, %v", uint8(a), a, uint8(got), err)
		}
	}
	if got := Action(9).String(); got != "action(9)" {
		t.Errorf("Action(9) prints as %q", got)
	}
	var zero Action
	if zero != Discard {
		t.Error("the zero Action does not discard")
	}
}
