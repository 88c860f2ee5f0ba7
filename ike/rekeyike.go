package ike

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/adit-ipsec/adit/ike/keys"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
)

// A new IKE SA in the place of one (RFC 7296 1.3.2, 2.18):
//
//	HDR, SK {SA, Ni, KEi} -->
//	                            <--  HDR, SK {SA, Nr, KEr}
//
// It "inherits all of the original IKE SA's Child SAs" (2.8), its message IDs begin at
// 0, and whoever asked closes the old one. If both ends have asked at once there are
// two new ones, and the one with the lowest of the four nonces goes (2.8.2): the Child
// SAs stay where they are until an end knows which.

// rekeyIKETask is the exchange from this end.
type rekeyIKETask struct {
	spi      wire.SPI // of the new IKE SA
	offered  []wire.Proposal
	ni       []byte
	method   proposal.KE // of exchange; 0: not chosen yet
	wrong    int         // INVALID_KE_PAYLOADs so far
	exchange keys.Exchange
	trouble  backoff
}

// rekeyIKE asks for a new IKE SA in the place of sa, if this end may.
func (m *Machine) rekeyIKE(sa *ikeSA) { m.rekeyIKEAgain(sa, backoff{}) }

func (m *Machine) rekeyIKEAgain(sa *ikeSA, trouble backoff) {
	if sa.state != established || sa.heir != nil || !sa.peer.Role.rekeys() || sa.rekeying() {
		return
	}
	m.enqueue(sa, &rekeyIKETask{trouble: trouble})
}

// rekeying tells whether our request for a new IKE SA waits, or is on its way.
func (sa *ikeSA) rekeying() bool {
	is := func(t task) bool { _, ok := t.(*rekeyIKETask); return ok }
	return is(sa.doing()) || slices.ContainsFunc(sa.ours.queue, is)
}

func (t *rekeyIKETask) kind() wire.ExchangeType { return wire.CreateChildSA }

func (t *rekeyIKETask) request(m *Machine, sa *ikeSA) ([]wire.Payload, error) {
	if sa.state != established || sa.heir != nil {
		return nil, errDone
	}
	t.spi = m.newSPI()
	proposals := sa.peer.Proposals
	t.offered = proposal.Offer(proposals, t.spi.Bytes())
	if t.method == 0 {
		t.method = sa.choice.KE()
		for _, p := range proposals {
			if methods := p.KEs(); !offers(t.offered, t.method) && len(methods) > 0 {
				t.method = methods[0]
			}
		}
	}
	t.discard()
	var err error
	if t.exchange, err = keys.Begin(t.method, m.rand); err != nil {
		m.failedEvent(sa, StageRekeyIKE, failure{Reason: "configuration", Text: err.Error()}, nil)
		return nil, err
	}
	t.ni = m.random(nonceLen)
	return []wire.Payload{
		&wire.SA{Proposals: t.offered}, &wire.Nonce{Data: t.ni}, &wire.KE{Method: uint16(t.method), Data: t.exchange.Public()},
	}, nil
}

func (t *rekeyIKETask) discard() {
	if t.exchange != nil {
		t.exchange.Discard()
		t.exchange = nil
	}
}

func (t *rekeyIKETask) response(m *Machine, sa *ikeSA, payloads []wire.Payload) {
	n, secret, r := t.accepted(m, sa, payloads)
	t.discard()
	if r != nil {
		t.refused(m, sa, r)
		return
	}
	more := m.followUp(sa, n.choice, payloads, &followTask{
		of: t, secrets: [][]byte{secret},
		done:    func(secrets [][]byte) { t.made(m, sa, n, secrets) },
		refused: func(r *refusal) { t.refused(m, sa, r) },
	})
	if !more {
		t.made(m, sa, n, [][]byte{secret})
	}
}

// made is the end of the exchange: of this new IKE SA, or of the one that the peer
// has made, only one stays.
func (t *rekeyIKETask) made(m *Machine, sa, n *ikeSA, secrets [][]byte) {
	if err := n.rekeyed(sa, secrets); err != nil {
		t.refused(m, sa, &refusal{failure: failure{Reason: "bad_answer", Text: err.Error()}})
		return
	}
	rival := sa.heir
	if rival != nil && rival.state != established {
		rival = nil // the peer has closed it: it knows that it lost
	}
	ending := sa.state == deleting
	m.adopt(n)
	if ending {
		m.deleteIKE(n, "deleted") // as the one that it was to replace
		return
	}
	m.event(n, Event{Stage: StageRekeyIKE, Outcome: Done, Initiator: true, Suite: n.choice.Keyword()})
	switch {
	case rival == nil:
		m.handOver(sa, n)
		m.deleteIKE(sa, "rekeyed")
	case lowerNonces(n, rival):
		m.count("rekey_collisions")
		m.handOver(sa, rival) // the peer closes the old one
		m.deleteIKE(n, "redundant")
	case sa.state == replaced:
		// The peer has asked on its own one meanwhile, which has the Child SAs.
		m.count("rekey_collisions")
		m.handOver(rival, n)
		m.deleteIKE(sa, "rekeyed")
	default:
		m.count("rekey_collisions")
		m.setAside(rival)
		m.handOver(sa, n)
		m.deleteIKE(sa, "rekeyed")
	}
}

// accepted makes the new IKE SA of the peer's answer, still without keys, and the
// secret of the key exchange.
func (t *rekeyIKETask) accepted(m *Machine, sa *ikeSA, payloads []wire.Payload) (*ikeSA, []byte, *refusal) {
	answer := wire.First[*wire.SA](payloads)
	if answer == nil {
		r := refusedBy(payloads, offerText(t.offered))
		if r == nil {
			r = &refusal{failure: failure{Reason: "invalid_syntax", Text: "the peer's answer has no SA, and no reason"}}
		}
		return nil, nil, r
	}
	bad := func(err error) (*ikeSA, []byte, *refusal) {
		return nil, nil, &refusal{notify: wire.NotifyInvalidSyntax, failure: failure{Reason: "bad_answer", Text: err.Error()}}
	}
	choice, err := proposal.Accept(t.offered, answer.Proposals[0])
	if err != nil {
		return bad(err)
	}
	ke := wire.First[*wire.KE](payloads)
	if ke == nil || choice.KE() != t.method || proposal.KE(ke.Method) != t.method || len(choice.SPI) != 8 {
		return bad(fmt.Errorf("the peer's answer is for %s, but ours was %s", choice.KE(), t.method))
	}
	secret, err := t.exchange.Finish(ke.Data)
	if err != nil {
		return bad(err)
	}
	n := m.successorOf(sa, t.spi, choice)
	n.initiator, n.ni, n.nr = true, t.ni, bytes.Clone(wire.First[*wire.Nonce](payloads).Data)
	return n, secret, nil
}

// successorOf is an IKE SA with all that sa knows of the peer. It has no keys yet.
func (m *Machine) successorOf(sa *ikeSA, spi wire.SPI, choice proposal.Choice) *ikeSA {
	return &ikeSA{
		spi: spi, spiR: wire.SPI(binary.BigEndian.Uint64(choice.SPI)), born: m.now, rekeyOf: sa, opener: sa.opener, origin: sa.origin,
		peer: sa.peer, proved: sa.proved, path: sa.path, carried: sa.carried, choice: choice,
		behindNAT: sa.behindNAT, peerBehindNAT: sa.peerBehindNAT, forcedUDP: sa.forcedUDP,
		fragmentation: sa.fragmentation, mobike: sa.mobike, childless: sa.childless, work: sa.work,
	}
}

// rekeyed makes the keys (RFC 7296 2.18, RFC 9370 2.2.4) and wipes the secrets. Either
// end may have moved since the exchange began.
func (sa *ikeSA) rekeyed(old *ikeSA, secrets [][]byte) (err error) {
	defer wipeAll(secrets)
	sa.path, sa.carried = old.path, old.carried
	sa.behindNAT, sa.peerBehindNAT = old.behindNAT, old.peerBehindNAT
	i, r := sa.spis()
	sa.keys, err = old.keys.Rekeyed(sa.choice, secrets[0], sa.ni, sa.nr, i, r, secrets[1:]...)
	return err
}

// refused is an answer without a new IKE SA.
func (t *rekeyIKETask) refused(m *Machine, sa *ikeSA, r *refusal) {
	if sa.heir != nil && sa.heir.state == established {
		// The peer had its answer before it heard of our request: the new IKE SA
		// is the one that it has asked for.
		m.handOver(sa, sa.heir)
		return
	}
	switch r.notify {
	case wire.NotifyInvalidKEPayload:
		if len(r.data) == 2 && t.wrong < 2 {
			if method := proposal.KE(binary.BigEndian.Uint16(r.data)); offers(t.offered, method) {
				t.method = method
				t.wrong++
				m.enqueue(sa, t)
				return
			}
		}
	case wire.NotifyTemporaryFailure:
		if wait, ok := t.trouble.next(m); ok {
			m.after(wait, func() { m.rekeyIKEAgain(sa, t.trouble) })
			return
		}
		m.outOfSync(sa, StageRekeyIKE, r.failure)
		return
	}
	m.failedEvent(sa, StageRekeyIKE, r.failure, func(e *Event) { e.Initiator = true })
	wait, _ := t.trouble.next(m)
	m.after(wait, func() { m.rekeyIKEAgain(sa, t.trouble) })
}

// failed: RFC 7296 2.25.2: "If a peer receives a request to close an IKE SA that it
// is currently rekeying, it SHOULD reply as usual, and forget its own rekeying
// request."
func (t *rekeyIKETask) failed(*Machine, *ikeSA, failure) { t.discard() }

// rekeyIKERequest is the exchange from the peer.
func (m *Machine) rekeyIKERequest(sa *ikeSA, payloads []wire.Payload, answer func(...wire.Payload)) {
	n, ke, secrets, r := m.rekeyIKEAsked(sa, payloads)
	if r != nil {
		answer(r.payload())
		if r.Reason != "" {
			m.failedEvent(sa, StageRekeyIKE, r.failure, nil)
		}
		return
	}
	chosen := n.choice.Wire()
	chosen.SPI = n.spi.Bytes()
	out := []wire.Payload{&wire.SA{Proposals: []wire.Proposal{chosen}}, &wire.Nonce{Data: n.nr}, ke}
	more := n.choice.AKEs()
	if len(more) == 0 {
		m.rekeyIKEMade(sa, n, secrets, out, answer)
		return
	}
	link, err := m.expect(sa, &expected{
		methods: more, secrets: secrets,
		done: func(secrets [][]byte, ke *wire.KE, answer func(...wire.Payload)) {
			m.rekeyIKEMade(sa, n, secrets, []wire.Payload{ke}, answer)
		},
		drop: func() {},
	})
	if err != nil {
		answer(&wire.Notify{Kind: wire.NotifyTemporaryFailure})
		return
	}
	answer(append(out, link)...)
}

// rekeyIKEMade is the responder's end of the exchange.
func (m *Machine) rekeyIKEMade(sa, n *ikeSA, secrets [][]byte, out []wire.Payload, answer func(...wire.Payload)) {
	if sa.heir != nil || busyForRekey(sa.doing()) {
		wipeAll(secrets)
		answer(&wire.Notify{Kind: wire.NotifyTemporaryFailure})
		return
	}
	if err := n.rekeyed(sa, secrets); err != nil {
		answer(&wire.Notify{Kind: wire.NotifyInvalidSyntax})
		m.failedEvent(sa, StageRekeyIKE, failure{Reason: "bad_key_exchange", Text: err.Error()}, nil)
		return
	}
	answer(out...)
	_, ours := sa.doing().(*rekeyIKETask)
	n.untried = ours
	sa.heir = n
	m.adopt(n)
	m.event(n, Event{Stage: StageRekeyIKE, Outcome: Done, Suite: n.choice.Keyword()})
	if ours {
		// RFC 7296 2.25.2: "If a peer receives a request to rekey an IKE SA that
		// it is currently rekeying, it SHOULD reply as usual, and SHOULD prepare to
		// close redundant SAs and move inherited Child SAs later based on the
		// nonces".
		return
	}
	m.handOver(sa, n)
}

// rekeyIKEAsked makes the new IKE SA of the peer's request, still without keys, our
// KE payload, and the secret of the key exchange.
func (m *Machine) rekeyIKEAsked(sa *ikeSA, payloads []wire.Payload) (*ikeSA, *wire.KE, [][]byte, *refusal) {
	no := func(n wire.NotifyType, reason, text string) (*ikeSA, *wire.KE, [][]byte, *refusal) {
		return nil, nil, nil, &refusal{notify: n, failure: failure{Reason: reason, Text: text}}
	}
	if sa.heir != nil || busyForRekey(sa.doing()) {
		return no(wire.NotifyTemporaryFailure, "", "")
	}
	if len(sa.beside()) >= maxSAsOfOne {
		return no(wire.NotifyTemporaryFailure, "too_many_sas", "the peer does not delete the IKE SAs that it has rekeyed")
	}
	if len(m.sas) >= m.limits.MaxSAs {
		return no(wire.NotifyNoAdditionalSAs, "no_additional_sas", "there are as many IKE SAs as there may be")
	}
	choice, err := proposal.Choose(sa.peer.Proposals, wire.First[*wire.SA](payloads).Proposals)
	if err != nil {
		return no(wire.NotifyNoProposalChosen, "no_proposal_chosen", err.Error())
	}
	ni := bytes.Clone(wire.First[*wire.Nonce](payloads).Data)
	if err := keys.CheckNonce(choice.PRF(), ni); err != nil {
		return no(wire.NotifyInvalidSyntax, "invalid_syntax", err.Error())
	}
	ke, secrets, r := m.respondKE(sa, choice, payloads)
	if r != nil {
		return nil, nil, nil, r
	}
	if ke == nil || len(choice.SPI) != 8 {
		return no(wire.NotifyInvalidSyntax, "invalid_syntax", "a new IKE SA without a key exchange or an SPI")
	}
	n := m.successorOf(sa, m.newSPI(), choice)
	n.ni, n.nr = ni, m.random(nonceLen)
	return n, ke, secrets, nil
}

// busyForRekey: RFC 7296 2.25.1: an end that is asked to rekey the IKE SA while it
// creates, rekeys or closes a Child SA of it "SHOULD reply with TEMPORARY_FAILURE".
func busyForRekey(t task) bool {
	switch t.(type) {
	case nil, *rekeyIKETask, livenessTask, *mappingTask:
		return false
	}
	return true
}

// handOver gives the Child SAs of an IKE SA to the one that takes its place, and
// what is still to be asked. The old one only takes its delete any more.
func (m *Machine) handOver(from, to *ikeSA) {
	if from.state != established {
		return
	}
	to.untried = false
	from.heir, from.state = to, replaced
	from.rekeyOf = nil // no chain of those that were
	for _, c := range from.children {
		c.sa = to
	}
	to.children = append(from.children, to.children...)
	from.children = nil
	waiting := from.ours.queue
	from.ours.queue = nil
	from.timers.stop()
	from.timers.closed = m.after(lingering, func() {
		m.forget(from, failure{Reason: "lingering", Text: "the peer has not deleted the IKE SA that it has replaced"})
	})
	for _, t := range waiting {
		if _, again := t.(*rekeyIKETask); !again {
			m.enqueue(to, t)
		}
	}
}

// setAside is for an IKE SA of the peer's making that lost a collision. It is the
// peer's to delete.
func (m *Machine) setAside(sa *ikeSA) {
	sa.state = replaced
	sa.timers.stop()
	sa.timers.closed = m.after(lingering, func() {
		m.forget(sa, failure{Reason: "lingering", Text: "the peer has not deleted its redundant IKE SA"})
	})
}

// lowerNonces tells whether the exchange that made a had the lowest of the four
// nonces of both. RFC 7296 2.8.2: "the new IKE SA containing the lowest nonce
// SHOULD be deleted by the node that created it, and the other surviving new IKE SA
// MUST inherit all the Child SAs."
func lowerNonces(a, b *ikeSA) bool {
	return slices.Compare(lower(a.ni, a.nr), lower(b.ni, b.nr)) < 0
}

// inherit settles a collision by what the peer does: it asks on a new IKE SA, or
// closes the old one, so that the new one it is.
func (m *Machine) inherit(sa *ikeSA) {
	if old := sa.rekeyOf; sa.untried && old != nil && old.heir == sa {
		m.handOver(old, sa)
	}
}

// yieldAndAsk is yield where the peer may be gone: nothing has come of what was asked on
// the IKE SA that goes, and the other one is asked at once whether it is any better.
func (m *Machine) yieldAndAsk(sa *ikeSA) {
	heir := sa.heir
	if sa.state != established || heir == nil || heir.state != established {
		return
	}
	m.handOver(sa, heir)
	if heir.ours.task == nil && heir.peer.Role != Passive {
		m.enqueue(heir, heir.liveness())
	}
}

// yield hands the Child SAs on before an IKE SA goes, if the peer has made another
// in its place.
func (m *Machine) yield(sa *ikeSA) {
	if heir := sa.heir; heir != nil && heir.state == established {
		m.handOver(sa, heir)
	}
}
