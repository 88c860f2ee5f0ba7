package hostnet

import (
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestPlanKeepsOnlyThrowsStrictlyInsideAProtectedPrefix(t *testing.T) {
	for _, c := range []struct{ routes, throw, want []netip.Prefix }{
		{prefixes("10.0.0.0/8"), prefixes("10.1.0.0/24", "192.0.2.0/24"), prefixes("10.1.0.0/24")},
		{prefixes("10.0.0.0/8"), prefixes("10.0.0.0/8"), nil},
		{prefixes("10.0.0.0/8", "10.1.0.0/24"), prefixes("10.1.0.0/24"), nil},
		{prefixes("10.2.0.0/16"), prefixes("10.0.0.0/8"), nil},
		{prefixes("0.0.0.0/0", "10.2.0.0/16"), prefixes("10.0.0.0/8"), prefixes("10.0.0.0/8")},
		{prefixes("0.0.0.0/0"), prefixes("2001:db8::/32"), nil},
		{prefixes("::/0"), nil, prefixes("fe80::/10")},
		{prefixes("::/0"), prefixes("2001:db8:a::/64", "2001:db8:a::1/64"), prefixes("2001:db8:a::/64", "fe80::/10")},
		{prefixes("::/0", "fe80::/10"), nil, nil},
	} {
		p, err := Plan{Device: "adit0", Mark: 1, Routes: c.routes, Throw: c.throw}.withDefaults()
		if err != nil || !slices.Equal(p.Throw, c.want) {
			t.Errorf("routes %v, throw %v: got %v, %v; expected %v", c.routes, c.throw, p.Throw, err, c.want)
		}
	}
}

func TestPlanIsCheckedBeforeTheHostIsTouched(t *testing.T) {
	for want, p := range map[string]Plan{
		"names no device": {Mark: 1},
		"mark is 0":       {Device: "adit0"},
		"table 255":       {Device: "adit0", Mark: 1, Table: 255},
		"table 4000000":   {Device: "adit0", Mark: 1, Table: 4_000_000_000},
		"priority 32766":  {Device: "adit0", Mark: 1, Priority: 32766},
		"priority -1":     {Device: "adit0", Mark: 1, Priority: -1},
		"routes":          {Device: "adit0", Mark: 1, Routes: []netip.Prefix{{}}},
		"throw":           {Device: "adit0", Mark: 1, Throw: []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")}},
		"addresses":       {Device: "adit0", Mark: 1, Addresses: []netip.Prefix{{}}},
	} {
		if a, err := Apply(p); err == nil || !strings.Contains(err.Error(), want) || a != nil {
			t.Errorf("plan %+v: error %v, expected one with %q", p, err, want)
		}
	}
}

func TestTableForIsStableAndOutOfTheWay(t *testing.T) {
	for _, name := range []string{"adit0", "adit1", "", "a-long-device-0"} {
		n := TableFor(name)
		if n != TableFor(name) || n>>16 != 0x0ad1 || n > math.MaxInt32 {
			t.Errorf("TableFor(%q) = %#x, expected 0x0ad1....", name, n)
		}
	}
	if TableFor("adit0") == TableFor("adit1") {
		t.Error("adit0 and adit1 share a table")
	}
}

func TestPrefixesCoverTheRangeAndNothingElse(t *testing.T) {
	from, to := netip.MustParseAddr("10.1.8.10"), netip.MustParseAddr("10.1.8.99")
	count := 0
	for _, p := range Prefixes(from, to) {
		for a := p.Addr(); p.Contains(a); a = a.Next() {
			if a.Less(from) || to.Less(a) {
				t.Errorf("%v is outside the range", a)
			}
			count++
		}
	}
	if count != 90 {
		t.Errorf("%d addresses, expected 90", count)
	}
}
