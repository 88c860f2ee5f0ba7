package ike

import (
	"encoding/binary"
	"fmt"

	"github.com/adit-ipsec/adit/ike/keys"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
)

// Child SAs that the peer asks for, in IKE_AUTH and in CREATE_CHILD_SA.

// createChildRequest takes CREATE_CHILD_SA: a new pair, one in the place of another,
// or a new IKE SA.
func createChildRequest(m *Machine, sa *ikeSA, payloads []wire.Payload, answer func(...wire.Payload)) {
	if r := m.affords(sa, requestWorkOf(sa.peer, payloads)); r != nil {
		answer(r.payload())
		return
	}
	if wire.First[*wire.SA](payloads).Proposals[0].Protocol == wire.ProtocolIKE {
		m.rekeyIKERequest(sa, payloads, answer)
		return
	}
	r := m.createRequested(sa, payloads, answer)
	if r == nil {
		return
	}
	answer(r.payload())
	if r.Reason == "" {
		return // a collision: nothing has gone wrong
	}
	stage := StageChild
	if wire.FindNotify(payloads, wire.NotifyRekeySA) != nil {
		stage = StageRekeyChild
	}
	m.failedEvent(sa, stage, r.failure, nil)
}

// createRequested answers, or says why not.
func (m *Machine) createRequested(sa *ikeSA, payloads []wire.Payload, answer func(...wire.Payload)) *refusal {
	old, r := m.toRekey(sa, payloads)
	if r != nil {
		return r
	}
	limit := m.limits.MaxChildren
	if old != nil {
		limit *= 2 // a rekey adds none in the end
	}
	if len(sa.children) >= limit {
		return &refusal{notify: wire.NotifyNoAdditionalSAs, failure: failure{
			Reason: "no_additional_sas", Text: fmt.Sprintf("the IKE SA has %d Child SAs, which is the limit", len(sa.children)),
		}}
	}
	ni := wire.First[*wire.Nonce](payloads).Data
	if err := keys.CheckNonce(sa.keys.PRF(), ni); err != nil {
		return &refusal{notify: wire.NotifyInvalidSyntax, failure: failure{Reason: "invalid_syntax", Text: err.Error()}}
	}
	a, r := m.agree(sa, payloads, old, false)
	if r != nil {
		return r
	}
	ke, secrets, r := m.respondKE(sa, a.choice, payloads)
	if r != nil {
		return r
	}
	k := childKeying{ni: ni, nr: m.random(nonceLen), secrets: secrets}
	extra := []wire.Payload{&wire.Nonce{Data: k.nr}}
	if ke != nil {
		extra = append(extra, ke)
	}
	m.respondChild(sa, a, k, old, extra, answer)
	return nil
}

// toRekey is the pair that the request is to replace; nil: none. RFC 7296 2.25.1
// says what becomes of a request at the wrong moment, and 2.25.2 while the IKE SA is
// being rekeyed.
func (m *Machine) toRekey(sa *ikeSA, payloads []wire.Payload) (*childSA, *refusal) {
	temporary := &refusal{notify: wire.NotifyTemporaryFailure}
	// "If a peer receives a request to create or rekey a Child SA when it is
	// currently rekeying the IKE SA, it SHOULD reply with TEMPORARY_FAILURE."
	if _, busy := sa.doing().(*rekeyIKETask); busy || sa.heir != nil {
		return nil, temporary
	}
	n := wire.FindNotify(payloads, wire.NotifyRekeySA)
	if n == nil {
		return nil, nil
	}
	var old *childSA
	if len(n.SPI) == 4 {
		old = sa.childByOut(n.Protocol, binary.BigEndian.Uint32(n.SPI))
	}
	switch {
	case old == nil:
		// "If a peer receives a request to rekey a Child SA that does not exist,
		// it SHOULD reply with CHILD_SA_NOT_FOUND." RFC 7296 2.25: the SA "is
		// indicated by the SPI field in the Notify payload, which is copied from
		// the SPI field in the REKEY_SA notification."
		return nil, &refusal{notify: wire.NotifyChildSANotFound, protocol: n.Protocol, spi: n.SPI}
	case old.state == childDeleting, old.state == childRedundant:
		// "If a peer receives a request to rekey a Child SA that it is currently
		// trying to close, it SHOULD reply with TEMPORARY_FAILURE."
		return nil, temporary
	case old.successor != nil:
		return nil, temporary // it has done so before, and is to close it
	}
	// "If a peer receives a request to rekey a Child SA that it is currently
	// rekeying, it SHOULD reply as usual, and SHOULD prepare to close redundant SAs
	// later based on the nonces."
	return old, nil
}

// respondKE is the responder's half of the key exchange of a choice, if it has one. The
// peer pays for additional ones now, which are still to come.
func (m *Machine) respondKE(sa *ikeSA, choice proposal.Choice, payloads []wire.Payload) (*wire.KE, [][]byte, *refusal) {
	method := choice.KE()
	if method == proposal.KENone {
		return nil, nil, nil
	}
	ke := wire.First[*wire.KE](payloads)
	if ke == nil || proposal.KE(ke.Method) != method {
		// RFC 7296 1.3: "the responder MUST reject the request and indicate its
		// preferred Diffie-Hellman group in the INVALID_KE_PAYLOAD Notify
		// payload. There are two octets of data associated with this notification:
		// the accepted Diffie-Hellman group number in big endian order."
		return nil, nil, &refusal{notify: wire.NotifyInvalidKEPayload, data: binary.BigEndian.AppendUint16(nil, uint16(method))}
	}
	if r := m.affords(sa, workOf(choice)); r != nil {
		return nil, nil, r
	}
	public, secret, err := keys.Respond(method, m.rand, ke.Data)
	if err != nil {
		return nil, nil, &refusal{notify: wire.NotifyInvalidSyntax, failure: failure{Reason: "bad_key_exchange", Text: err.Error()}}
	}
	return &wire.KE{Method: uint16(method), Data: public}, [][]byte{secret}, nil
}

// answerChild is the responder's part of a Child SA in IKE_AUTH: answer gets SA, TSi,
// TSr and notifications, or one notification why there is none.
func (m *Machine) answerChild(sa *ikeSA, payloads []wire.Payload, answer func(...wire.Payload)) {
	a, r := m.agree(sa, payloads, nil, true)
	if r != nil {
		answer(r.payload())
		m.failedEvent(sa, StageChild, r.failure, nil)
		return
	}
	m.respondChild(sa, a, childKeying{ni: sa.ni, nr: sa.nr}, nil, nil, answer)
}

// respondChild answers a request for a pair. old is the pair that it replaces; extra
// goes into the answer behind SA. With additional key exchanges the pair itself has to
// wait for them.
func (m *Machine) respondChild(sa *ikeSA, a *agreement, k childKeying, old *childSA, extra []wire.Payload, answer func(...wire.Payload)) {
	spi := m.newChildSPI()
	proposals, rest := a.answerParts(spi)
	payloads := append(append([]wire.Payload{proposals}, extra...), rest...)
	more := a.choice.AKEs()
	if len(more) == 0 {
		m.makeResponded(sa, a, spi, k, old, payloads, answer)
		return
	}
	link, err := m.expect(sa, &expected{
		methods: more, secrets: k.secrets,
		done: func(secrets [][]byte, ke *wire.KE, answer func(...wire.Payload)) {
			k.secrets = secrets
			m.makeResponded(sa, a, spi, k, old, []wire.Payload{ke}, answer)
		},
		drop: func() { m.freeChildSPI(spi) },
	})
	if err != nil {
		m.freeChildSPI(spi)
		answer(&wire.Notify{Kind: wire.NotifyTemporaryFailure})
		return
	}
	answer(append(payloads, link)...)
}

// makeResponded makes a pair that the peer has asked for: inbound, answer, outbound.
func (m *Machine) makeResponded(sa *ikeSA, a *agreement, spi uint32, k childKeying, old *childSA, payloads []wire.Payload, answer func(...wire.Payload)) {
	stage := StageChild
	if old != nil {
		stage = StageRekeyChild
	}
	fail := func(reason string, err error) {
		m.freeChildSPI(spi)
		answer(&wire.Notify{Kind: wire.NotifyTemporaryFailure})
		if reason != "" {
			m.failedEvent(sa, stage, failure{Reason: reason, Text: err.Error()}, func(e *Event) { e.Policy = a.child.Policy })
		}
	}
	if old != nil && (old.state == childGone || old.state == childDeleting || old.successor != nil) {
		fail("", nil) // closed while key exchanges were still to come
		return
	}
	c, params, err := m.newChild(sa, a, spi, k)
	wipeAll(k.secrets)
	if err != nil {
		fail("parameters", err)
		return
	}
	m.install(params[:1], nil, 0, func(err error) {
		wipeParams(params[:1])
		if err != nil {
			wipeParams(params)
			fail("install", err)
			return
		}
		c.receives = true
		answer(payloads...)
		m.responded(sa, c, old, params[1])
		m.childMade(c, stage, a)
	})
}

// responded finds the place of a pair whose answer is on its way.
func (m *Machine) responded(sa *ikeSA, c, old *childSA, outbound sad.Params) {
	c.askedBy, c.askedID = sa, sa.theirs.next-1
	sa.addChild(c)
	m.watchPairs(sa)
	m.deferOutbound(c, outbound, old)
	if old == nil {
		if t := m.askingNow(sa, c.child.Policy); t != nil {
			t.rival = c
			m.count("sa_duplicates")
		}
		if !m.works(sa.peer, c.child.Policy) {
			m.switchOutbound(c) // there is nothing else to send on
		}
		return
	}
	old.successor, c.replaces = c, old
	if old.state != childRekeying {
		m.lingers(old, childReplaced)
		return
	}
	m.count("rekey_collisions")
}

// askingNow is our request for a new pair of the policy that is on its way.
func (m *Machine) askingNow(sa *ikeSA, policy string) *createTask {
	t, ok := sa.doing().(*createTask)
	if !ok || t.rekeys != nil || t.child.Policy != policy {
		return nil
	}
	return t
}
