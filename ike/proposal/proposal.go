package proposal

import (
	"cmp"
	"slices"
	"strings"

	ahsuite "github.com/adit-ipsec/adit/ah"
	espsuite "github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/ike/wire"
)

// Proposal is what this end is ready to use for one protocol: of every transform
// type one of those listed, the first the most wanted. Transforms stand in the
// order of their types. Parse, ESP, AH and Default make valid ones.
type Proposal struct {
	Protocol   wire.ProtocolID
	Transforms []wire.Transform
}

// String writes a proposal as Parse reads it: encryption, integrity, PRF unless
// integrity implies it, key exchanges, ESN. What nobody knows is written by its
// number.
func (p Proposal) String() string { return format(p.Protocol, p.Transforms) }

func format(protocol wire.ProtocolID, transforms []wire.Transform) string {
	if slices.Equal(impliedPRFs(transforms), ofType(transforms, typePRF)) {
		transforms = slices.DeleteFunc(slices.Clone(transforms), func(t wire.Transform) bool { return t.Type == typePRF })
	}
	var words []string
	add := func(kind func(wire.TransformType) bool) {
		for _, t := range transforms {
			if kind(t.Type) {
				words = append(words, nameOf(protocol, t))
			}
		}
	}
	is := func(want wire.TransformType) func(wire.TransformType) bool {
		return func(t wire.TransformType) bool { return t == want }
	}
	add(is(typeEncr))
	add(is(typeInteg))
	add(is(typePRF))
	add(is(typeKE))
	add(additional)
	add(is(typeESN))
	add(func(t wire.TransformType) bool { return t == 0 || t > typeAddKE7 })
	if len(words) == 0 {
		return "nothing"
	}
	return strings.Join(words, "-")
}

// Wire is the proposal as it is offered, with this end's SPI. RFC 7296 3.3.1:
// "When a proposal is made, the first proposal in an SA payload MUST be 1, and
// subsequent proposals MUST be one more than the previous proposal".
func (p Proposal) Wire(number uint8, spi []byte) wire.Proposal {
	return wire.Proposal{Number: number, Protocol: p.Protocol, SPI: spi, Transforms: slices.Clone(p.Transforms)}
}

// Offer is the SA payload's list: all proposals, numbered from 1, with one SPI.
// Beyond 255 there are no numbers left: those are not offered.
func Offer(proposals []Proposal, spi []byte) []wire.Proposal {
	var offer []wire.Proposal
	for i, p := range proposals[:min(len(proposals), 255)] {
		offer = append(offer, p.Wire(uint8(i+1), spi))
	}
	return offer
}

// KEs lists the methods of the key exchange proper, in order. The first of the
// first proposal is the one to send a KE payload of.
func (p Proposal) KEs() []KE {
	var methods []KE
	for _, t := range p.of(typeKE) {
		methods = append(methods, KE(t.ID))
	}
	return methods
}

// Additional tells whether there are additional key exchanges, which need
// IKE_INTERMEDIATE or IKE_FOLLOWUP_KE (RFC 9370).
func (p Proposal) Additional() bool {
	return slices.ContainsFunc(p.Transforms, func(t wire.Transform) bool { return additional(t.Type) && t.ID != 0 })
}

// WithoutKE is the proposal of a Child SA that comes with IKE_AUTH. RFC 7296 1.2:
// "IKE_AUTH exchange cannot contain Transform Type 4 (Diffie-Hellman group) with
// any value other than NONE. Implementations SHOULD omit the whole transform
// substructure instead of sending value NONE."
func (p Proposal) WithoutKE() Proposal {
	p.Transforms = slices.DeleteFunc(slices.Clone(p.Transforms), func(t wire.Transform) bool {
		return t.Type == typeKE || additional(t.Type)
	})
	return p
}

// WithoutKEs is WithoutKE of each.
func WithoutKEs(proposals []Proposal) []Proposal {
	all := make([]Proposal, 0, len(proposals))
	for _, p := range proposals {
		all = append(all, p.WithoutKE())
	}
	return all
}

// WithExchanges is p with these key exchanges in the place of its own.
func (p Proposal) WithExchanges(exchanges []wire.Transform) Proposal {
	p = p.WithoutKE()
	p.Transforms = append(p.Transforms, exchanges...)
	slices.SortStableFunc(p.Transforms, func(a, b wire.Transform) int { return cmp.Compare(a.Type, b.Type) })
	return p
}

// ESP is one proposal for each suite, in their order. With esn both kinds of
// sequence numbers are offered, the long ones first (RFC 7296 3.3.2: "an initiator
// who supports ESNs will usually include two ESN transforms"); without it only
// short ones. kes are the key exchange methods of a Child SA of its own (perfect
// forward secrecy), a choice; none: no key exchange. A suite that is none is left
// out.
func ESP(suites []espsuite.Suite, esn bool, kes []KE) []Proposal {
	var all []Proposal
	for _, s := range suites {
		all = appendChild(all, protoESP, s.String(), esn, kes)
	}
	return all
}

// AH is ESP for suites of AH.
func AH(suites []ahsuite.Suite, esn bool, kes []KE) []Proposal {
	var all []Proposal
	for _, s := range suites {
		all = appendChild(all, protoAH, s.String(), esn, kes)
	}
	return all
}

func appendChild(all []Proposal, protocol wire.ProtocolID, suite string, esn bool, kes []KE) []Proposal {
	// Legacy was asked for where the suite was read.
	p, err := Parse(protocol, suite, true)
	if err != nil {
		return all
	}
	p.drop(typeESN)
	for _, method := range kes {
		p.Transforms = append(p.Transforms, wire.Transform{Type: typeKE, ID: uint16(method)})
	}
	if esn {
		p.Transforms = append(p.Transforms, wire.Transform{Type: typeESN, ID: 1})
	}
	p.Transforms = append(p.Transforms, wire.Transform{Type: typeESN})
	return append(all, p)
}

// Default is what is proposed where nothing is configured: what RFC 8247 2 (IKE)
// and RFC 8221 5 and 6 (ESP, AH) call MUST and SHOULD, and X25519; combined modes
// first.
func Default(protocol wire.ProtocolID) []Proposal {
	var all []Proposal
	for _, keyword := range defaults[protocol] {
		// A test holds that each can be read.
		if p, err := Parse(protocol, keyword, false); err == nil {
			all = append(all, p)
		}
	}
	return all
}

var defaults = map[wire.ProtocolID][]string{
	protoIKE: {
		"aes128gcm16-aes256gcm16-chacha20poly1305-prfsha256-prfsha512-x25519-ecp256-modp2048",
		"aes128-aes256-sha256-sha512-x25519-ecp256-modp2048",
	},
	protoESP: {
		"aes128gcm16-aes256gcm16-chacha20poly1305-esn-noesn",
		"aes128-aes256-sha256-sha512-esn-noesn",
	},
	protoAH: {"sha256-sha512-esn-noesn"},
}
