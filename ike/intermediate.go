package ike

import (
	"fmt"

	"github.com/adit-ipsec/adit/ike/keys"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
)

// IKE_INTERMEDIATE (RFC 9242) with the additional key exchanges of RFC 9370: one
// exchange for each, in the order of ADDKE1 to ADDKE7, and new keys behind each.
//
// RFC 9242 3.3: all of their messages are authenticated in IKE_AUTH, by the chain
// of IntAuth, each link by the keys that protected its message.

// flagsAt is where the flags stand in a message (RFC 7296 3.1).
const flagsAt = 19

// intAuth are the two chains.
type intAuth struct{ initiator, responder []byte }

// sentIntermediate adds our message to the chain.
func (f *handshake) sentIntermediate(sa *ikeSA, h wire.Header, first wire.PayloadType, inner []byte) {
	f.link(sa.keys, sa.initiator, h, first, inner)
}

// gotIntermediate adds the peer's.
func (f *handshake) gotIntermediate(sa *ikeSA, msg *wire.Message, got *opened) {
	h := msg.Header
	// Reserved flags are not looked at, but what was sent is what is authenticated.
	h.Flags = wire.Flags(msg.Raw[flagsAt])
	f.link(sa.keys, !sa.initiator, h, got.first, got.inner)
}

func (f *handshake) link(sk *keys.SK, initiator bool, h wire.Header, first wire.PayloadType, inner []byte) {
	chain := &f.intAuth.initiator
	if !initiator {
		chain = &f.intAuth.responder
	}
	*chain = sk.IntAuth(initiator, *chain, h, nil, first, inner)
}

// intermediateTask is our part of one additional key exchange.
type intermediateTask struct{}

func (intermediateTask) kind() wire.ExchangeType { return wire.IKEIntermediate }

func (intermediateTask) request(m *Machine, sa *ikeSA) ([]wire.Payload, error) {
	if err := m.beginExchange(sa, sa.first.pending[0]); err != nil {
		m.ended(sa, StageIntermediate, failure{Reason: "key_exchange", Text: err.Error()})
		return nil, err
	}
	return []wire.Payload{&wire.KE{Method: uint16(sa.first.method), Data: sa.first.exchange.Public()}}, nil
}

func (intermediateTask) response(m *Machine, sa *ikeSA, payloads []wire.Payload) {
	if n := firstError(payloads); n != nil {
		m.ended(sa, StageIntermediate, m.refusedByPeer(sa, n))
		return
	}
	f := sa.first
	ke := wire.First[*wire.KE](payloads)
	if ke == nil || proposal.KE(ke.Method) != f.method {
		m.ended(sa, StageIntermediate, failure{Reason: "invalid_syntax", Text: "the peer's answer has no key exchange of " + f.method.String()})
		return
	}
	secret, err := f.exchange.Finish(ke.Data)
	if err != nil {
		m.ended(sa, StageIntermediate, failure{Reason: "key_exchange", Text: err.Error()})
		return
	}
	if err := m.mix(sa, secret); err != nil {
		m.ended(sa, StageIntermediate, failure{Reason: "key_exchange", Text: err.Error()})
		return
	}
	m.event(sa, Event{Stage: StageIntermediate, Outcome: Done, Initiator: true, Suite: f.method.String()})
	m.proceed(sa)
}

func (intermediateTask) failed(*Machine, *ikeSA, failure) {} // ended has it

// mix puts the secret of an additional key exchange into the keys, and goes on to
// the next. It wipes the secret.
func (m *Machine) mix(sa *ikeSA, secret []byte) error {
	defer clear(secret)
	spii, spir := sa.spis()
	mixed, err := sa.keys.Mixed(secret, sa.ni, sa.nr, spii, spir)
	if err != nil {
		return err
	}
	sa.keys.Wipe()
	sa.keys = mixed
	sa.first.pending = sa.first.pending[1:]
	return nil
}

// intermediateRequest is the responder's side. Keys change behind the answer.
func intermediateRequest(m *Machine, sa *ikeSA, payloads []wire.Payload, answer func(...wire.Payload)) {
	f := sa.first
	ke := wire.First[*wire.KE](payloads)
	if len(f.pending) == 0 || ke == nil || proposal.KE(ke.Method) != f.pending[0] {
		answer(&wire.Notify{Kind: wire.NotifyInvalidSyntax})
		m.rejected(sa, StageIntermediate, failure{Reason: "invalid_syntax", Text: "the peer's IKE_INTERMEDIATE has not the key exchange that is to come next"})
		return
	}
	public, secret, err := keys.Respond(f.pending[0], m.rand, ke.Data)
	if err != nil {
		answer(&wire.Notify{Kind: wire.NotifyInvalidSyntax})
		m.rejected(sa, StageIntermediate, failure{Reason: "key_exchange", Text: fmt.Sprintf("the peer's public value is refused: %v", err)})
		return
	}
	method := f.pending[0]
	answer(&wire.KE{Method: ke.Method, Data: public})
	if err := m.mix(sa, secret); err != nil {
		m.rejected(sa, StageIntermediate, failure{Reason: "key_exchange", Text: err.Error()})
		return
	}
	m.strangerEvent(Event{
		Peer: onlyName(f.candidates), Stage: StageIntermediate, Outcome: Done, Local: sa.path.local, Remote: sa.path.remote,
		SPIi: uint64(sa.spiR), SPIr: uint64(sa.spi), Suite: method.String(),
	})
}
