package proposal

import (
	"fmt"
	"slices"
	"strings"

	"github.com/adit-ipsec/adit/ike/wire"
)

// Mismatch is the error of Choose and Accept: what the peer has, what this end
// has, both as keywords, and what would most nearly make them agree.
type Mismatch struct{ Theirs, Ours, Nearest string }

// Error is one line.
func (m *Mismatch) Error() string {
	return fmt.Sprintf("no common proposal: theirs %s; ours %s; nearest fix: %s", m.Theirs, m.Ours, m.Nearest)
}

// maxText bounds what a stranger's offer makes of a line of the log, in bytes.
const maxText = 1000

func mismatch(ours []Proposal, theirs []wire.Proposal) *Mismatch {
	all := make([]wire.Proposal, 0, len(ours))
	for _, o := range ours {
		all = append(all, o.Wire(0, nil))
	}
	return &Mismatch{Theirs: formatOffer(theirs), Ours: formatOffer(all), Nearest: nearest(ours, theirs)}
}

// formatOffer writes proposals with commas between.
func formatOffer(offer []wire.Proposal) string {
	if len(offer) == 0 {
		return "nothing"
	}
	var b strings.Builder
	for i, p := range offer {
		if i > 0 {
			b.WriteString(", ")
		}
		if i > 0 && p.Protocol != offer[0].Protocol {
			b.WriteString(protocolName(p.Protocol) + ":")
		}
		b.WriteString(format(p.Protocol, p.Transforms))
		if b.Len() > maxText {
			return b.String()[:maxText] + "..."
		}
	}
	return b.String()
}

// maxPairs bounds the pairs of proposals that are held against each other for a
// sentence in the log: whoever sends an IKE_SA_INIT decides how many there are, before
// a cookie was asked for.
const maxPairs = 16

// nearest looks at pairs of proposals, of the first of both ends, for the one with the
// fewest transform types in which they differ, and says what to do about it.
func nearest(ours []Proposal, theirs []wire.Proposal) string {
	if len(ours) == 0 || len(theirs) == 0 {
		return "one end proposes nothing"
	}
	best, fix, pairs := -1, "", 0
	for _, t := range theirs {
		for _, o := range ours {
			if o.Protocol != t.Protocol {
				continue
			}
			if pairs++; pairs > maxPairs {
				return fix
			}
			if n, f := compare(o, t); best < 0 || n < best {
				best, fix = n, f
			}
		}
	}
	if best < 0 {
		return fmt.Sprintf("theirs is %s, ours is %s: make them the same", protocolName(theirs[0].Protocol), protocolName(ours[0].Protocol))
	}
	return fix
}

// gap is a transform type in which two proposals have nothing in common.
type gap struct {
	kind   wire.TransformType
	usable []wire.Transform // of theirs, the first that this end could have too
	why    string           // or why there is none
}

// compare weighs what two proposals differ in and says how to mend it. What the
// peer would have to change weighs more than what can be changed here.
func compare(ours Proposal, theirs wire.Proposal) (int, string) {
	if kind, ok := foreign(theirs); ok {
		return 100, fmt.Sprintf("theirs has %s, which is not for %s: let the peer propose %s", typeName(kind), protocolName(ours.Protocol), ours)
	}
	gaps := gapsBetween(ours, theirs.Transforms)
	var add []wire.Transform
	var why []string
	for _, g := range gaps {
		if add = append(add, g.usable...); g.why != "" {
			why = append(why, g.why)
		}
	}
	apart := fmt.Sprintf("transforms of theirs do not go together: let the peer propose %s", ours)
	switch {
	case len(gaps) == 0:
		return 50, apart
	case len(why) == 1 && len(gaps) == 1:
		return 11, why[0] + ": " + letThePeerAdd(ours, gaps[0].kind)
	case len(why) > 0:
		return len(gaps) + 10*len(why), fmt.Sprintf("%s: let the peer propose %s", strings.Join(why, "; "), ours)
	}
	// What is suggested has to work: more than one thing may be wrong.
	combined, _ := ours.ciphers()
	if wider := (Proposal{ours.Protocol, slices.Concat(ours.Transforms, add)}); len(gaps) == 1 && combinedFirst(gaps) == (combined && gaps[0].kind == typeEncr) {
		if _, ok := match(wider, theirs); ok {
			return 1, fmt.Sprintf("add %s to ours", describe(ours.Protocol, add[0]))
		}
	}
	suggestion := whole(ours, theirs, add)
	if p, err := Parse(ours.Protocol, suggestion.String(), true); err == nil {
		if _, ok := match(p, theirs); ok {
			return len(add), fmt.Sprintf("add the proposal %s to ours", suggestion)
		}
	}
	return 40, apart
}

// letThePeerAdd is the fix where the peer lacks what ours wants.
func letThePeerAdd(ours Proposal, kind wire.TransformType) string {
	fix := "let the peer add " + format(ours.Protocol, ours.of(kind))
	if additional(kind) || kind == typeKE && ours.Protocol != protoIKE {
		fix += ", or take it out of ours"
	}
	return fix
}

// whole is a proposal that takes up what theirs has, of each type one.
func whole(ours Proposal, theirs wire.Proposal, add []wire.Transform) Proposal {
	p := Proposal{Protocol: ours.Protocol, Transforms: slices.Clone(add)}
	for _, kind := range append([]wire.TransformType{typeEncr, typePRF, typeInteg, typeESN}, exchangeTypes()...) {
		if len(p.of(kind)) == 0 {
			c, _ := first(kind, ours, theirs.Transforms)
			p.Transforms = append(p.Transforms, c...)
		}
	}
	return p
}

// gapsBetween lists the types in which theirs has nothing that ours has.
func gapsBetween(ours Proposal, theirs []wire.Transform) []gap {
	var gaps []gap
	kinds := append([]wire.TransformType{typeEncr, typePRF, typeInteg, typeESN}, exchangeTypes()...)
	for _, kind := range kinds {
		if matches(kind, ours, theirs) {
			continue
		}
		g := gapOf(kind, ours, theirs)
		// With a combined mode comes no integrity: no gap of its own.
		if kind == typeInteg && len(ofType(theirs, kind)) == 0 && combinedFirst(gaps) {
			continue
		}
		gaps = append(gaps, g)
	}
	return gaps
}

func combinedFirst(gaps []gap) bool {
	return len(gaps) > 0 && gaps[0].kind == typeEncr && len(gaps[0].usable) > 0 && Encr(gaps[0].usable[0].ID).Combined()
}

// matches tells whether one type alone would not stand in the way.
func matches(kind wire.TransformType, ours Proposal, theirs []wire.Transform) bool {
	none := wire.Transform{Type: kind}
	offered, wanted := ofType(theirs, kind), ours.of(kind)
	optional := noneMeansAbsent(kind)
	switch {
	case len(offered) == 0 && len(wanted) == 0:
		return true
	case optional && len(offered) == 0:
		return slices.Contains(wanted, none)
	case optional && len(wanted) == 0:
		return slices.Contains(offered, none)
	}
	return len(common(kind, ours, theirs)) > 0
}

func gapOf(kind wire.TransformType, ours Proposal, theirs []wire.Transform) gap {
	g := gap{kind: kind}
	var why []string
	for _, t := range ofType(theirs, kind) {
		r := byNumber(ours.Protocol, t)
		switch {
		case r == nil || t.Unknown || (r.refuse == "" && !r.in.has(ours.Protocol)):
			why = append(why, "theirs has "+nameOf(ours.Protocol, t)+", which is unknown here")
		case r.refuse != "":
			why = append(why, "theirs has "+r.name+", which is refused ("+r.rule()+")")
		case t.ID == 0 && kind != typeESN:
		default:
			g.usable = []wire.Transform{t}
			return g
		}
	}
	if g.why = strings.Join(why[:min(len(why), 2)], "; "); g.why == "" {
		g.why = "theirs has no " + typeName(kind)
	}
	return g
}

// describe is a keyword with what using it takes.
func describe(p wire.ProtocolID, t wire.Transform) string {
	if r := byNumber(p, t); r != nil && r.legacy != "" {
		return nameOf(p, t) + " (with allow_legacy: true; " + r.legacy + ")"
	}
	return nameOf(p, t)
}
