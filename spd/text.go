package spd

import (
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"

	"github.com/adit-ipsec/adit/internal/packet"
)

// The text forms are those of the configuration file. Each Parse function
// reads what the matching String prints.

var (
	any4 = AddrRange{netip.IPv4Unspecified(), netip.AddrFrom4([4]byte{255, 255, 255, 255})}
	any6 = AddrRange{netip.IPv6Unspecified(), lastAddr(netip.PrefixFrom(netip.IPv6Unspecified(), 0))}
)

// ParseAddrRanges reads what ParseAddrRange reads and "any", which is both
// families: it returns one range or two.
func ParseAddrRanges(s string) ([]AddrRange, error) {
	if s == "any" {
		return []AddrRange{any4, any6}, nil
	}
	r, err := ParseAddrRange(s)
	if err != nil {
		return nil, err
	}
	return []AddrRange{r}, nil
}

// ParseAddrRange reads an address "10.1.0.1", a prefix "10.1.0.0/24" or a range
// "10.1.8.10-10.1.8.99", of either family. The error says what would be right.
func ParseAddrRange(s string) (AddrRange, error) {
	if s == "any" {
		return AddrRange{}, fmt.Errorf("any is two ranges, one of each family: write 0.0.0.0/0 or ::/0 for one")
	}
	var r AddrRange
	var err error
	if from, to, ok := strings.Cut(s, "-"); ok {
		if r.From, err = parseAddr(from); err == nil {
			r.To, err = parseAddr(to)
		}
	} else if strings.Contains(s, "/") {
		r, err = parsePrefix(s)
	} else {
		r.From, err = parseAddr(s)
		r.To = r.From
	}
	if err != nil {
		return AddrRange{}, err
	}
	if err := r.validate(); err != nil {
		return AddrRange{}, err
	}
	return r, nil
}

func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%q is no address: write an address (10.1.0.1), a prefix (10.1.0.0/24), a range (10.1.8.10-10.1.8.99) or any", s)
	}
	return a, nil
}

func parsePrefix(s string) (AddrRange, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return AddrRange{}, fmt.Errorf("%q is no prefix: write an address, a slash and the prefix length, as in 10.1.0.0/24 or 2001:db8::/32, without a zone", s)
	}
	if m := p.Masked(); m != p {
		return AddrRange{}, fmt.Errorf("%q has bits set behind its prefix length: write %v for the prefix or %v for the one address", s, m, p.Addr())
	}
	return AddrRange{p.Addr(), lastAddr(p)}, nil
}

// lastAddr is the highest address of a valid prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	a := p.Addr().AsSlice()
	for i := p.Bits(); i < len(a)*8; i++ {
		a[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(a)
	return last
}

// String is the range as an address, a prefix, or "FROM-TO".
func (r AddrRange) String() string {
	if r.From == r.To {
		return r.From.String()
	}
	p := netip.PrefixFrom(r.From, commonBits(r.From.AsSlice(), r.To.AsSlice()))
	if p.Masked() == p && lastAddr(p) == r.To {
		return p.String()
	}
	return r.From.String() + "-" + r.To.String()
}

// commonBits is the number of leading bits that a and b, of one length, share.
func commonBits(a, b []byte) int {
	for i := range a {
		if x := a[i] ^ b[i]; x != 0 {
			return i*8 + bits.LeadingZeros8(x)
		}
	}
	return len(a) * 8
}

// ParsePortRange reads a port "80" or a range "5060-5070".
func ParsePortRange(s string) (PortRange, error) {
	from, to, isRange := strings.Cut(s, "-")
	if !isRange {
		to = from
	}
	a, okA := parseNumber(from, 65535)
	b, okB := parseNumber(to, 65535)
	if !okA || !okB {
		return PortRange{}, fmt.Errorf("%q is no port: write a number 0..65535, a range such as 5060-5070, any or opaque", s)
	}
	r := PortRange{uint16(a), uint16(b)}
	return r, r.validate()
}

// String is the range as "80" or "5060-5070".
func (r PortRange) String() string {
	if r.From == r.To {
		return strconv.Itoa(int(r.From))
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}

// ParseICMP reads an ICMP type with all its codes "8", a type and code "3/4", a
// range of types "0-8", or a range of types and codes "3/0-3/4". In the result
// each end is type*256+code.
func ParseICMP(s string) (PortRange, error) {
	from, to, isRange := strings.Cut(s, "-")
	if !isRange {
		to = from
	}
	a, okA := parseTypeCode(from)
	b, okB := parseTypeCode(to)
	if !okA || !okB {
		return PortRange{}, fmt.Errorf("%q is no ICMP type: write a type (8), a type and code (3/4), a range of types (0-8) or of both (3/0-3/4), each 0..255, or any or opaque", s)
	}
	if strings.Contains(from, "/") != strings.Contains(to, "/") {
		return PortRange{}, fmt.Errorf("%q can be read in two ways: write both ends with a code, such as %d/%d-%d/%d, or both without", s, a.From>>8, a.From&0xff, b.To>>8, b.To&0xff)
	}
	r := PortRange{a.From, b.To}
	if r.From > r.To {
		return PortRange{}, fmt.Errorf("%q ends before it begins: write the lower type and code first", s)
	}
	return r, nil
}

// parseTypeCode reads "8" as 8/0..8/255 and "3/4" as 3/4..3/4.
func parseTypeCode(s string) (PortRange, bool) {
	typ, code, hasCode := strings.Cut(s, "/")
	t, ok := parseNumber(typ, 255)
	if !ok {
		return PortRange{}, false
	}
	if !hasCode {
		return PortRange{uint16(t << 8), uint16(t<<8 | 0xff)}, true
	}
	c, ok := parseNumber(code, 255)
	return PortRange{uint16(t<<8 | c), uint16(t<<8 | c)}, ok
}

// FormatICMP is the text of a range of ICMP types and codes, as ParseICMP reads
// it.
func FormatICMP(r PortRange) string {
	wholeTypes := r.From&0xff == 0 && r.To&0xff == 0xff
	switch {
	case wholeTypes && r.From>>8 == r.To>>8:
		return strconv.Itoa(int(r.From >> 8))
	case wholeTypes:
		return fmt.Sprintf("%d-%d", r.From>>8, r.To>>8)
	case r.From == r.To:
		return fmt.Sprintf("%d/%d", r.From>>8, r.From&0xff)
	}
	return fmt.Sprintf("%d/%d-%d/%d", r.From>>8, r.From&0xff, r.To>>8, r.To&0xff)
}

// ParsePorts reads a list of what ParsePortRange reads and "opaque", or "any"
// alone. An empty list is any.
func ParsePorts(list ...string) (Ports, error) { return parsePorts(list, ParsePortRange) }

// ParseICMPs reads a list of what ParseICMP reads and "opaque", or "any" alone.
// An empty list is any.
func ParseICMPs(list ...string) (Ports, error) { return parsePorts(list, ParseICMP) }

func parsePorts(list []string, parse func(string) (PortRange, error)) (Ports, error) {
	var p Ports
	for _, s := range list {
		switch s {
		case "any":
			p.Any = true
		case "opaque":
			p.Opaque = true
		default:
			r, err := parse(s)
			if err != nil {
				return Ports{}, err
			}
			p.Ranges = append(p.Ranges, r)
		}
	}
	if p.Any && len(list) > 1 {
		return Ports{}, errAnyStandsAlone
	}
	return p, nil
}

// String is the list with commas, as port numbers.
func (p Ports) String() string { return p.format(PortRange.String) }

func (p Ports) format(one func(PortRange) string) string {
	if p.IsAny() {
		return "any"
	}
	var parts []string
	for _, r := range p.Ranges {
		parts = append(parts, one(r))
	}
	if p.Opaque {
		parts = append(parts, "opaque")
	}
	return strings.Join(parts, ",")
}

// protocolNames are the names that are read and printed, in the order in which
// an error lists them.
var protocolNames = []struct {
	protocol Protocol
	name     string
}{
	{ProtocolAny, "any"}, {packet.ProtoTCP, "tcp"}, {packet.ProtoUDP, "udp"},
	{packet.ProtoICMP, "icmp"}, {packet.ProtoICMPv6, "icmpv6"}, {packet.ProtoSCTP, "sctp"},
	{packet.ProtoUDPLite, "udplite"}, {packet.ProtoGRE, "gre"}, {packet.ProtoESP, "esp"},
	{packet.ProtoAH, "ah"}, {ProtocolOpaque, "opaque"},
}

// ParseProtocol reads a protocol's name or a number 0..255.
func ParseProtocol(s string) (Protocol, error) {
	for _, p := range protocolNames {
		if s == p.name {
			return p.protocol, nil
		}
	}
	if n, ok := parseNumber(s, 255); ok {
		return Protocol(n), nil
	}
	var names []string
	for _, p := range protocolNames {
		names = append(names, p.name)
	}
	return 0, fmt.Errorf("unknown protocol %q: write one of %s, or a number 0..255", s, strings.Join(names, ", "))
}

// String is the protocol's name where it has one, else its number.
func (p Protocol) String() string {
	for _, n := range protocolNames {
		if p == n.protocol {
			return n.name
		}
	}
	return strconv.Itoa(int(p))
}

// parseNumber reads a decimal number 0..max in its one canonical form: digits
// only, no sign, no leading zero.
func parseNumber(s string, max int) (int, bool) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > max || strconv.Itoa(n) != s {
		return 0, false
	}
	return n, true
}
