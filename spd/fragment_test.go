package spd

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/adit-ipsec/adit/internal/packet"
)

// claimsOf is all that Claims says, in words: a policy that is certain has a
// star.
func claimsOf(t *Table, dir Direction, f *packet.Flow) (list []string) {
	c := t.Claims(dir, f)
	for p, certain := c.Next(); p != nil; p, certain = c.Next() {
		name := p.Name
		if certain {
			name += "*"
		}
		list = append(list, name)
	}
	return list
}

func TestRFC4301_7_ClaimsOnAFragmentWithoutPorts(t *testing.T) {
	table := mustTable(t,
		"web protect:b local=any remote=10.2.0.0/16 protocol=tcp remote_ports=80",
		"other discard local=any remote=10.3.0.0/16 protocol=tcp remote_ports=80",
		"dns bypass local=any remote=any protocol=udp remote_ports=53",
		"mail protect:b local=any remote=10.2.0.0/16 protocol=tcp remote_ports=25,opaque",
		"gre bypass local=any remote=any protocol=gre",
		"hidden discard local=any remote=2001:db8::/32 protocol=opaque",
		"rest bypass local=any remote=any protocol=any",
	)
	for _, c := range []struct {
		flow packet.Flow
		want []string
	}{
		{fragment(withPorts("10.1.0.1", 0, "10.2.0.1", 0, packet.ProtoTCP)), []string{"web", "mail*", "rest*"}},
		{fragment(withPorts("10.1.0.1", 0, "10.2.0.1", 0, packet.ProtoUDP)), []string{"dns", "rest*"}},
		{flowOf("10.1.0.1", "10.2.0.1", packet.ProtoGRE), []string{"gre*", "rest*"}},
		{packet.Flow{Version: 6, ProtocolOpaque: true, PortsOpaque: true}, []string{"dns", "gre", "rest*"}},
		{packet.Flow{Version: 5, PortsOpaque: true}, nil},
	} {
		if got := claimsOf(table, Outbound, &c.flow); !slices.Equal(got, c.want) {
			t.Errorf("%v: expected %v, saw %v", c.flow, c.want, got)
		}
	}
	six := flowOf("2001:db9::1", "2001:db8::1", 0)
	six.ProtocolOpaque, six.PortsOpaque = true, true
	if got, want := claimsOf(table, Outbound, &six), []string{"dns", "gre", "hidden*", "rest*"}; !slices.Equal(got, want) {
		t.Errorf("%v: expected %v, saw %v", six, want, got)
	}
	back := fragment(withPorts("10.2.0.1", 0, "10.1.0.1", 0, packet.ProtoTCP))
	if got, want := claimsOf(table, Inbound, &back), []string{"web", "mail*", "rest*"}; !slices.Equal(got, want) {
		t.Errorf("inbound: expected %v, saw %v", want, got)
	}
	if got := claimsOf(mustTable(t), Outbound, &back); got != nil {
		t.Errorf("the empty table: expected nothing, saw %v", got)
	}
}

// Whatever the fields that a flow lacks turn out to be, the policy that then
// matches is among the claims up to the first certain one; and that one is
// Lookup's.
func TestRFC4301_7_ClaimsMissNoPolicy(t *testing.T) {
	hidden := 0
	rapid.Check(t, func(t *rapid.T) {
		policies := make([]Policy, rapid.OneOf(rapid.IntRange(0, 8), rapid.IntRange(60, 140)).Draw(t, "policies"))
		for i := range policies {
			policies[i] = Policy{Name: fmt.Sprint(i), Selector: genSelector.Draw(t, "selector")}
		}
		table, err := NewTable(policies)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			dir := Direction(rapid.IntRange(0, 1).Draw(t, "direction"))
			whole := genFlow.Draw(t, "flow")
			if whole.PortsOpaque || whole.ProtocolOpaque {
				continue
			}
			part := whole
			part.SrcPort, part.DstPort, part.PortsOpaque = 0, 0, true
			if rapid.Bool().Draw(t, "no protocol") {
				part.Protocol, part.ProtocolOpaque = 0, true
			}
			before := map[*Policy]bool{}
			c := table.Claims(dir, &part)
			p, certain := c.Next()
			for ; p != nil && !certain; p, certain = c.Next() {
				before[p] = true
			}
			if got := table.LookupLinear(dir, &part); got != p {
				t.Fatalf("%v: the first certain claim is %v, Lookup says %v", part, nameOf(p), nameOf(got))
			}
			actual := table.LookupLinear(dir, &whole)
			if actual == nil || before[actual] || actual == p || p != nil && actual.Index() > p.Index() {
				hidden += len(before)
				continue
			}
			t.Fatalf("%v matches %s; without its fields nobody claims it for that one, but %s", whole, nameOf(actual), nameOf(p))
		}
	})
	if hidden == 0 {
		t.Error("no flow had a claim that its fields decide")
	}
}

func TestClaimsAllocateNothing(t *testing.T) {
	table := mustTable(t,
		"web protect:b local=any remote=10.2.0.0/16 protocol=tcp remote_ports=80",
		"rest bypass local=any remote=any protocol=any",
	)
	f := fragment(withPorts("10.1.0.1", 0, "10.2.0.1", 0, packet.ProtoTCP))
	n := testing.AllocsPerRun(100, func() {
		c := table.Claims(Outbound, &f)
		for p, _ := c.Next(); p != nil; p, _ = c.Next() {
		}
	})
	if n != 0 {
		t.Errorf("expected 0 allocations, saw %v", n)
	}
}
