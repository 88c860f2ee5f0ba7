package proposal

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/adit-ipsec/adit/ike/wire"
)

// words draws keywords of a protocol, in any order, good together or not.
func words(protocol wire.ProtocolID) *rapid.Generator[string] {
	var all []string
	for _, r := range table {
		if !r.in.has(protocol) {
			continue
		}
		all = append(append(all, r.name), r.aliases...)
		if r.kind == typeKE {
			all = append(all, "ke1_"+r.name, "ke4_"+r.name)
		}
	}
	return rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(rapid.SampledFrom(all), 1, 8).Draw(t, "words"), "-")
	})
}

// proposals draws valid proposals.
func proposals(protocol wire.ProtocolID) *rapid.Generator[Proposal] {
	return rapid.Custom(func(t *rapid.T) Proposal {
		// A base makes most draws valid.
		base := map[wire.ProtocolID][]string{
			protoIKE: {"aes128-sha256-x25519", "aes256gcm16-x25519", "aes128-aes256-sha256-sha512-modp2048-ecp256", "chacha20poly1305-prfsha512-x448-ke1_mlkem768"},
			protoESP: {"aes128gcm16", "aes128-sha256-esn", "null-sha256-x25519"},
			protoAH:  {"sha256", "aes128gmac-esn", "sha512-x25519"},
		}[protocol]
		keyword := rapid.SampledFrom(base).Draw(t, "base")
		if more, err := Parse(protocol, keyword+"-"+words(protocol).Draw(t, "more"), true); err == nil {
			return more
		}
		p, err := Parse(protocol, keyword, true)
		if err != nil {
			t.Fatal(err)
		}
		return p
	})
}

// offers draws what a stranger may offer: proposals of ours with transforms added,
// taken away, repeated and made unknown.
func offers(protocol wire.ProtocolID) *rapid.Generator[[]wire.Proposal] {
	transform := rapid.Custom(func(t *rapid.T) wire.Transform {
		return wire.Transform{
			Type:    wire.TransformType(rapid.IntRange(0, 14).Draw(t, "type")),
			ID:      uint16(rapid.IntRange(0, 40).Draw(t, "id")),
			KeyBits: rapid.SampledFrom([]uint16{0, 0, 128, 256}).Draw(t, "bits"),
			Unknown: rapid.IntRange(0, 9).Draw(t, "unknown") == 0,
		}
	})
	return rapid.Custom(func(t *rapid.T) []wire.Proposal {
		offer := Offer(rapid.SliceOfN(proposals(protocol), 0, 4).Draw(t, "offer"), spi)
		for i := range offer {
			tr := &offer[i].Transforms
			switch rapid.IntRange(0, 4).Draw(t, "change") {
			case 1:
				*tr = append(*tr, rapid.SliceOfN(transform, 1, 4).Draw(t, "added")...)
			case 2:
				at := rapid.IntRange(0, len(*tr)-1).Draw(t, "at")
				*tr = slices.Delete(*tr, at, at+1)
			case 3:
				*tr = rapid.Permutation(*tr).Draw(t, "order")
			}
		}
		return offer
	})
}

func protocolsDrawn() *rapid.Generator[wire.ProtocolID] {
	return rapid.SampledFrom([]wire.ProtocolID{protoIKE, protoAH, protoESP})
}

func TestPropertyParseReadsWhatItWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		protocol := protocolsDrawn().Draw(t, "protocol")
		p := proposals(protocol).Draw(t, "proposal")
		again, err := Parse(protocol, p.String(), true)
		if err != nil || !reflect.DeepEqual(again, p) {
			t.Fatalf("%s: read again %v, %v", p, again, err)
		}
	})
}

// What is chosen is a subset of both, one of each type that is needed, and the
// initiator accepts it.
func TestPropertyChoiceIsASubsetOfBoth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		protocol := protocolsDrawn().Draw(t, "protocol")
		ours := rapid.SliceOfN(proposals(protocol), 0, 4).Draw(t, "ours")
		theirs := offers(protocol).Draw(t, "theirs")
		c, err := Choose(ours, theirs)
		if err != nil {
			if _, ok := err.(*Mismatch); !ok {
				t.Fatalf("expected a mismatch, saw %v", err)
			}
			return
		}
		at := slices.IndexFunc(theirs, func(p wire.Proposal) bool { return p.Number == c.Number })
		if !subset(c.Transforms, theirs[at].Transforms, false) {
			t.Fatalf("%v is not of theirs %v", c.Transforms, theirs[at])
		}
		if !slices.ContainsFunc(ours, func(p Proposal) bool { return subset(c.Transforms, p.Transforms, true) }) {
			t.Fatalf("%v is not of ours %v", c.Transforms, ours)
		}
		checkWhole(t, c)
		if _, err := Accept(theirs, c.Wire()); err != nil {
			t.Fatalf("the initiator refuses it: %v", err)
		}
	})
}

// subset tells whether all of some are in all; NONE may be left to absence.
func subset(some, all []wire.Transform, none bool) bool {
	return !slices.ContainsFunc(some, func(t wire.Transform) bool {
		return !slices.Contains(all, t) && !(none && t.ID == 0 && noneMeansAbsent(t.Type))
	})
}

// checkWhole holds a choice to what its protocol needs.
func checkWhole(t *rapid.T, c Choice) {
	seen := map[wire.TransformType]wire.Transform{}
	methods := map[uint16]bool{}
	for _, tr := range c.Transforms {
		if _, twice := seen[tr.Type]; twice || tr.Unknown {
			t.Fatalf("two of a type, or one that nobody knows: %v", c.Transforms)
		}
		seen[tr.Type] = tr
		if tr.Type == typeKE || additional(tr.Type) {
			if methods[tr.ID] && tr.ID != 0 {
				t.Fatalf("a method twice: %v", c.Transforms)
			}
			methods[tr.ID] = true
		}
		if r := byNumber(c.Protocol, tr); tr.ID != 0 && (r == nil || r.refuse != "" || !r.in.has(c.Protocol)) {
			t.Fatalf("%s is not for use", nameOf(c.Protocol, tr))
		}
	}
	encr, _ := c.Encr()
	needs := map[wire.ProtocolID][]wire.TransformType{
		protoIKE: {typeEncr, typePRF, typeKE}, protoAH: {typeInteg, typeESN}, protoESP: {typeEncr, typeESN},
	}[c.Protocol]
	for _, kind := range needs {
		if _, ok := seen[kind]; !ok {
			t.Fatalf("no %s: %v", typeName(kind), c.Transforms)
		}
	}
	if c.Protocol != protoAH && encr.Combined() == (c.Integ() != IntegNone) {
		t.Fatalf("combined modes and integrity: %v", c.Transforms)
	}
	if c.Protocol == protoIKE && c.KE() == KENone {
		t.Fatalf("no key exchange: %v", c.Transforms)
	}
}

// What is suggested would work: a fix that begins with "add the proposal" makes a
// common choice.
func TestPropertyTheNearestFixWorks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		protocol := protocolsDrawn().Draw(t, "protocol")
		ours := rapid.SliceOfN(proposals(protocol), 1, 3).Draw(t, "ours")
		theirs := offers(protocol).Draw(t, "theirs")
		_, err := Choose(ours, theirs)
		m, ok := err.(*Mismatch)
		if !ok {
			return
		}
		keyword, ok := strings.CutPrefix(m.Nearest, "add the proposal ")
		if !ok {
			return
		}
		keyword = strings.TrimSuffix(keyword, " to ours")
		p, err := Parse(protocol, keyword, true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Choose([]Proposal{p}, theirs); err != nil {
			t.Fatalf("%q is no help: %v", m.Nearest, err)
		}
	})
}
