package proposal

import (
	"cmp"
	"slices"

	"github.com/adit-ipsec/adit/ike/wire"
)

// Choose is the responder's choice: the first of theirs that one of ours accepts.
// Inside a proposal the order of theirs decides as well (so that the KE payload
// that came with it is of use), but for ESN, where that of ours does.
//
// What is not understood is never chosen. RFC 7296 3.3.6: "If the responder
// receives a proposal that contains a Transform Type it does not understand, or a
// proposal that is missing a mandatory Transform Type, it MUST consider this
// proposal unacceptable [...]. Similarly, if the responder receives a transform
// that it does not understand, or one that contains a Transform Attribute it does
// not understand, it MUST consider this transform unacceptable".
//
// The error is a *Mismatch.
func Choose(ours []Proposal, theirs []wire.Proposal) (Choice, error) {
	ours = once(ours)
	for _, t := range theirs {
		for _, o := range ours {
			if chosen, ok := match(o, t); ok {
				return Choice{Protocol: t.Protocol, Number: t.Number, SPI: slices.Clone(t.SPI), Transforms: chosen}, nil
			}
		}
	}
	return Choice{}, mismatch(ours, theirs)
}

// Agrees tells whether Choose would take c for an offer, without saying why not.
func Agrees(ours []Proposal, c Choice) bool {
	return slices.ContainsFunc(ours, func(o Proposal) bool {
		_, ok := match(o, c.Wire())
		return ok
	})
}

// once is every proposal one time: a responder asks with those of all peers that it may
// be, most of which propose the same.
func once(proposals []Proposal) (list []Proposal) {
	for _, p := range proposals {
		if !slices.ContainsFunc(list, func(q Proposal) bool {
			return p.Protocol == q.Protocol && slices.Equal(p.Transforms, q.Transforms)
		}) {
			list = append(list, p)
		}
	}
	return list
}

// match picks one transform of each type of theirs that ours has too.
func match(ours Proposal, theirs wire.Proposal) ([]wire.Transform, bool) {
	if _, ok := foreign(theirs); ok || ours.Protocol != theirs.Protocol {
		return nil, false
	}
	var chosen []wire.Transform
	for _, pick := range []func(Proposal, []wire.Transform) ([]wire.Transform, bool){
		pickCipher, pickPRF, pickESN, pickExchanges,
	} {
		picked, ok := pick(ours, theirs.Transforms)
		if !ok {
			return nil, false
		}
		chosen = append(chosen, picked...)
	}
	slices.SortStableFunc(chosen, func(a, b wire.Transform) int { return cmp.Compare(a.Type, b.Type) })
	return chosen, true
}

// foreign is the first transform type that has no place in the proposal; not ok if
// all have one.
func foreign(p wire.Proposal) (kind wire.TransformType, ok bool) {
	for _, t := range p.Transforms {
		switch {
		case t.Type == typeInteg, t.Type == typeKE, additional(t.Type):
		case t.Type == typeEncr && p.Protocol != protoAH:
		case t.Type == typePRF && p.Protocol == protoIKE:
		case t.Type == typeESN && p.Protocol != protoIKE:
		default:
			return t.Type, true
		}
	}
	return 0, false
}

// common lists the transforms of a type that both have, in the order of theirs.
func common(kind wire.TransformType, ours Proposal, theirs []wire.Transform) []wire.Transform {
	return slices.DeleteFunc(ofType(theirs, kind), func(t wire.Transform) bool {
		return t.Unknown || !slices.Contains(ours.Transforms, t)
	})
}

// first is the first common transform of a type.
func first(kind wire.TransformType, ours Proposal, theirs []wire.Transform) ([]wire.Transform, bool) {
	c := common(kind, ours, theirs)
	return c[:min(len(c), 1)], len(c) > 0
}

// pickCipher picks encryption and integrity. RFC 7296 3.3: "Combined-mode ciphers
// include both integrity and encryption in a single encryption algorithm, and MUST
// either offer no integrity algorithm or a single integrity algorithm of 'NONE'".
// So a combined mode is not taken out of a proposal that has integrity, and no
// other cipher out of one that has none.
func pickCipher(ours Proposal, theirs []wire.Transform) ([]wire.Transform, bool) {
	if ours.Protocol == protoAH {
		return first(typeInteg, ours, theirs)
	}
	offered := ofType(theirs, typeInteg)
	none := wire.Transform{Type: typeInteg}
	for _, encr := range common(typeEncr, ours, theirs) {
		switch integ, ok := first(typeInteg, ours, theirs); {
		case !Encr(encr.ID).Combined():
			if ok {
				return append(integ, encr), true
			}
		case len(offered) == 0:
			return []wire.Transform{encr}, true
		case len(offered) == 1 && offered[0] == none:
			return []wire.Transform{encr, none}, true
		}
	}
	return nil, false
}

func pickPRF(ours Proposal, theirs []wire.Transform) ([]wire.Transform, bool) {
	if ours.Protocol != protoIKE {
		return nil, true
	}
	return first(typePRF, ours, theirs)
}

// pickESN prefers what ours does: peers write both in the order of their numbers,
// not of their wishes.
func pickESN(ours Proposal, theirs []wire.Transform) ([]wire.Transform, bool) {
	if ours.Protocol == protoIKE {
		return nil, true
	}
	for _, t := range ours.of(typeESN) {
		if slices.Contains(theirs, t) {
			return []wire.Transform{t}, true
		}
	}
	return nil, false
}

// pickExchanges picks the key exchange and the additional ones. To offer none and
// to offer NONE are the same, and either end may want one.
func pickExchanges(ours Proposal, theirs []wire.Transform) ([]wire.Transform, bool) {
	candidates := map[wire.TransformType][]wire.Transform{}
	for _, kind := range exchangeTypes() {
		none := wire.Transform{Type: kind}
		offered, wanted := ofType(theirs, kind), ours.of(kind)
		both := common(kind, ours, theirs)
		switch {
		case len(offered) == 0 && len(wanted) == 0:
			continue
		case len(offered) == 0 && slices.Contains(wanted, none):
			continue
		case len(wanted) == 0 && slices.Contains(offered, none):
			both = []wire.Transform{none}
		case len(both) == 0:
			return nil, false
		}
		candidates[kind] = both
	}
	return distinct(candidates)
}

func exchangeTypes() []wire.TransformType {
	types := []wire.TransformType{typeKE}
	for t := typeAddKE1; t <= typeAddKE7; t++ {
		types = append(types, t)
	}
	return types
}

// distinct picks one of each type's candidates so that no method is there twice,
// NONE apart (RFC 9370 2.2.1), the first that works in the order of candidates;
// and an additional exchange only where there is one to be additional to.
func distinct(candidates map[wire.TransformType][]wire.Transform) ([]wire.Transform, bool) {
	types := exchangeTypes()
	var chosen []wire.Transform
	steps := 0
	var from func(i int) bool
	from = func(i int) bool {
		if i == len(types) {
			return slices.ContainsFunc(chosen, func(t wire.Transform) bool { return t.Type == typeKE && t.ID != 0 }) ||
				!slices.ContainsFunc(chosen, func(t wire.Transform) bool { return t.ID != 0 })
		}
		of, ok := candidates[types[i]]
		if !ok {
			return from(i + 1)
		}
		for _, t := range of {
			// A stranger's list is not worth more than this.
			if steps++; steps > maxSteps {
				return false
			}
			if t.ID != 0 && slices.ContainsFunc(chosen, func(c wire.Transform) bool { return c.ID == t.ID }) {
				continue
			}
			chosen = append(chosen, t)
			if from(i + 1) {
				return true
			}
			chosen = chosen[:len(chosen)-1]
		}
		return false
	}
	if !from(0) {
		return nil, false
	}
	return chosen, true
}

const maxSteps = 10_000

// Accept is the initiator's check of the answer to its offer: a proposal of that
// number, of each type exactly one, all of them offered. RFC 7296 3.3.6: "The
// initiator of an exchange MUST check that the accepted offer is consistent with
// one of its proposals, and if not MUST terminate the exchange." NONE and absence
// are the same. The error is a *Mismatch.
func Accept(offered []wire.Proposal, answer wire.Proposal) (Choice, error) {
	i := slices.IndexFunc(offered, func(p wire.Proposal) bool {
		return p.Number == answer.Number && p.Protocol == answer.Protocol
	})
	why := "the answer has a number that was not offered"
	if i >= 0 {
		if why = deviation(offered[i], answer); why == "" {
			return Choice{Protocol: answer.Protocol, Number: answer.Number, SPI: slices.Clone(answer.SPI), Transforms: slices.Clone(answer.Transforms)}, nil
		}
	}
	return Choice{}, &Mismatch{
		Theirs:  format(answer.Protocol, answer.Transforms),
		Ours:    formatOffer(offered),
		Nearest: why + " (RFC 7296 3.3.6): the peer is at fault",
	}
}

// deviation says what of an answer is not in the offer; "" if all is.
func deviation(offered, answer wire.Proposal) string {
	for i, t := range answer.Transforms {
		switch {
		case t.ID == 0 && noneMeansAbsent(t.Type) && !t.Unknown && t.KeyBits == 0 && absentOr(offered, t):
		case t.Unknown || !slices.Contains(offered.Transforms, t):
			return "the answer has " + nameOf(answer.Protocol, t) + ", which was not offered"
		}
		if len(ofType(answer.Transforms[:i], t.Type)) > 0 {
			return "the answer has more than one " + typeName(t.Type)
		}
	}
	for _, t := range offered.Transforms {
		none := wire.Transform{Type: t.Type}
		if len(ofType(answer.Transforms, t.Type)) == 0 && !(noneMeansAbsent(t.Type) && slices.Contains(offered.Transforms, none)) {
			return "the answer has no " + typeName(t.Type)
		}
	}
	return exchangesDiffer(answer)
}

func noneMeansAbsent(t wire.TransformType) bool {
	return t == typeInteg || t == typeKE || additional(t)
}

func absentOr(offered wire.Proposal, none wire.Transform) bool {
	of := ofType(offered.Transforms, none.Type)
	return len(of) == 0 || slices.Contains(of, none)
}

// exchangesDiffer says what RFC 9370 2.2.1 has against the answer's exchanges.
func exchangesDiffer(answer wire.Proposal) string {
	var seen []wire.Transform
	for _, kind := range exchangeTypes() {
		for _, t := range ofType(answer.Transforms, kind) {
			switch {
			case t.ID == 0:
				continue
			case slices.ContainsFunc(seen, func(s wire.Transform) bool { return s.ID == t.ID }):
				return "the answer has " + KE(t.ID).String() + " twice"
			case kind != typeKE && len(ofType(seen, typeKE)) == 0:
				return "the answer has an additional key exchange without a first one"
			}
			seen = append(seen, t)
		}
	}
	return ""
}
