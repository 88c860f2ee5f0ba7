package spd

import (
	"fmt"
	"sync/atomic"

	"github.com/adit-ipsec/adit/internal/packet"
)

// Table is an ordered list of policies, compiled for lookups. It is immutable
// and safe for concurrent use. The zero Table is not usable; NewTable(nil) is
// the empty table, which discards everything.
type Table struct {
	policies   []Policy
	byName     map[string]*Policy
	classifier *classifier
	generation uint64
}

// generations counts the tables of this process.
var generations atomic.Uint64

// NewTable compiles policies, in the order in which they are to be tried: "The
// SPD is an ordered database" (RFC 4301 4.4.1). It copies what it keeps. The
// error names the first policy that is invalid or whose name is used twice.
func NewTable(policies []Policy) (*Table, error) {
	t := &Table{
		policies:   make([]Policy, len(policies)),
		byName:     make(map[string]*Policy, len(policies)),
		generation: generations.Add(1),
	}
	for i := range policies {
		p := &t.policies[i]
		*p = policies[i].clone()
		p.position = i + 1
		if err := p.Validate(); err != nil {
			return nil, fmt.Errorf("policy %d %q: %w", i+1, p.Name, err)
		}
		if first, ok := t.byName[p.Name]; ok {
			return nil, fmt.Errorf("policy %d %q: policy %d has this name already: names are unique", i+1, p.Name, first.position)
		}
		t.byName[p.Name] = p
	}
	var err error
	if t.classifier, err = compile(t.policies, maxArena); err != nil {
		return nil, err
	}
	return t, nil
}

// Lookup returns the first policy that matches the flow, nil when none does:
// "If no policy is found in the SPD that matches a packet (for either inbound
// or outbound traffic), the packet MUST be discarded" (RFC 4301 5). It does not
// allocate.
func (t *Table) Lookup(dir Direction, f *packet.Flow) *Policy {
	if f.Version != 4 && f.Version != 6 {
		return nil
	}
	var p point
	t.classifier.locate(dir, f, &p)
	if i := t.classifier.first(&p); i >= 0 {
		return &t.policies[i]
	}
	return nil
}

// LookupLinear is Lookup by asking one policy after the other: the reference
// that tests hold Lookup equal to.
func (t *Table) LookupLinear(dir Direction, f *packet.Flow) *Policy {
	for i := range t.policies {
		if t.policies[i].Selector.Match(dir, f) {
			return &t.policies[i]
		}
	}
	return nil
}

// Len is the number of policies.
func (t *Table) Len() int { return len(t.policies) }

// Policies returns a copy of the policies, in order.
func (t *Table) Policies() []Policy {
	out := make([]Policy, len(t.policies))
	for i := range t.policies {
		out[i] = t.policies[i].clone()
	}
	return out
}

// Policy returns the policy of that name, nil if there is none.
func (t *Table) Policy(name string) *Policy { return t.byName[name] }

// Generation is a number that no other table of this process has, above 0. A
// cache of Lookup's answers is good for one generation.
func (t *Table) Generation() uint64 { return t.generation }
