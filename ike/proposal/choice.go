package proposal

import (
	"slices"

	ahsuite "github.com/adit-ipsec/adit/ah"
	espsuite "github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/ike/wire"
)

// Choice is what two ends agreed on: one transform of every type. Number and SPI
// are those of the peer's proposal: of the offer at the responder, of the answer
// at the initiator. Choose and Accept make them.
type Choice struct {
	Protocol   wire.ProtocolID
	Number     uint8
	SPI        []byte
	Transforms []wire.Transform
}

// get is the transform of a type; the zero value, which is NONE, without one.
func (c Choice) get(kind wire.TransformType) wire.Transform {
	i := slices.IndexFunc(c.Transforms, func(t wire.Transform) bool { return t.Type == kind })
	if i < 0 {
		return wire.Transform{Type: kind}
	}
	return c.Transforms[i]
}

// Encr is the encryption and its key length in bits; ChaCha20's is 256, NULL's 0.
func (c Choice) Encr() (e Encr, keyBits int) {
	t := c.get(typeEncr)
	if Encr(t.ID) == EncrChaCha20 {
		return EncrChaCha20, 256
	}
	return Encr(t.ID), int(t.KeyBits)
}

// PRF is the pseudorandom function of an IKE SA.
func (c Choice) PRF() PRF { return PRF(c.get(typePRF).ID) }

// Integ is the integrity algorithm; IntegNone with a combined mode.
func (c Choice) Integ() Integ { return Integ(c.get(typeInteg).ID) }

// KE is the key exchange method; KENone without one.
func (c Choice) KE() KE { return KE(c.get(typeKE).ID) }

// AKE is the method of the additional key exchange i, 1 to 7; KENone without one.
func (c Choice) AKE(i int) KE {
	if i < 1 || i > 7 {
		return KENone
	}
	return KE(c.get(typeAddKE1 + wire.TransformType(i-1)).ID)
}

// AKEs lists the additional key exchanges that take place, in their order.
func (c Choice) AKEs() []KE {
	var methods []KE
	for i := 1; i <= 7; i++ {
		if method := c.AKE(i); method != KENone {
			methods = append(methods, method)
		}
	}
	return methods
}

// ESN tells whether sequence numbers have 64 bits.
func (c Choice) ESN() bool { return c.get(typeESN).ID == 1 }

// Suite is the ESP suite of a Child SA.
func (c Choice) Suite() (espsuite.Suite, error) {
	name := nameOf(protoESP, c.get(typeEncr))
	if i := c.get(typeInteg); i.ID != 0 {
		name += "-" + nameOf(protoESP, i)
	}
	return espsuite.ParseSuite(name)
}

// AHSuite is the AH suite of a Child SA.
func (c Choice) AHSuite() (ahsuite.Suite, error) {
	return ahsuite.ParseSuite(nameOf(protoAH, c.get(typeInteg)))
}

// Keyword is the choice as a proposal: "aes256gcm16-prfsha384-x25519".
func (c Choice) Keyword() string {
	chosen := slices.DeleteFunc(slices.Clone(c.Transforms), func(t wire.Transform) bool {
		return t.ID == 0 && t.Type != typeESN
	})
	return format(c.Protocol, chosen)
}

// Wire is the answer: the proposal that was chosen, with its number and every
// chosen transform as it was offered. Its SPI is the peer's: the answer carries
// this end's, which the caller sets.
func (c Choice) Wire() wire.Proposal {
	return wire.Proposal{Number: c.Number, Protocol: c.Protocol, SPI: c.SPI, Transforms: slices.Clone(c.Transforms)}
}
