package ike

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/adit-ipsec/adit/ike/keys"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
)

// IKE_SA_INIT, RFC 7296 1.2 and 2.6: the responder's side. Everything in it may be
// forged. What is cheap comes first, and nothing is kept before the last step:
//
//	1 the same message again       the same answer
//	2 header and schema            drop
//	3 room                         drop
//	4 loaded and no good cookie    COOKIE, stateless
//	5 peers at that address        NO_PROPOSAL_CHOSEN
//	6 proposal                     NO_PROPOSAL_CHOSEN
//	7 key exchange method          INVALID_KE_PAYLOAD, stateless
//	8 longer than the request      COOKIE, stateless
//	9 dear, and much was computed  COOKIE, stateless; then drop
//	10 key exchange, keys, answer  a half-open IKE SA
func (m *Machine) initRequest(in Packet, msg *wire.Message) string {
	key := messageKey(in.Remote, msg.Raw)
	back := path{local: in.Local, remote: in.Remote, natt: in.NATT}
	if sa := m.strange.byMessage[key]; sa != nil {
		m.count("duplicate_requests")
		m.sendAll(back, sa.first0)
		return ""
	}
	if m.stopping {
		return "stopping"
	}
	if !msg.FromInitiator() || msg.Initiator == 0 || msg.Responder != 0 || msg.MessageID != 0 || msg.Protected != nil {
		return "init_header"
	}
	if len(msg.Raw) > maxFirst {
		return "init_too_long"
	}
	if err := wire.Check(wire.IKESAInit, false, msg.Payloads); err != nil {
		return m.initBad(back, msg, err)
	}
	if why := m.full(in.Remote.Addr()); why != "" {
		return why
	}
	nonce := wire.First[*wire.Nonce](msg.Payloads).Data
	verified := m.cookieIn(msg.Payloads, nonce, in.Remote, msg.Initiator)
	if !verified && m.loaded(in.Remote.Addr()) {
		m.sendCookie(back, msg, nonce)
		return "cookie_demanded"
	}
	r := &initRequested{back: back, msg: msg, key: key, nonce: nonce, verified: verified}
	if why := m.initChoose(r); why != "" {
		return why
	}
	return m.initAnswer(r)
}

// initRequested is an IKE_SA_INIT request on its way through the steps.
type initRequested struct {
	back       path
	msg        *wire.Message
	key        [32]byte
	nonce      []byte
	verified   bool // a cookie has shown that the address is the sender's
	candidates []*kind
	choice     proposal.Choice
}

// initBad answers what makes no sense. RFC 7296 2.5: an unknown critical payload
// is told; the rest is dropped, since INVALID_SYNTAX "may only be returned for and
// in an encrypted packet" (3.10.1).
func (m *Machine) initBad(back path, msg *wire.Message, err error) string {
	var critical *wire.CriticalError
	if errors.As(err, &critical) {
		m.sayInit(back, msg, &wire.Notify{Kind: wire.NotifyUnsupportedCriticalPayload, Data: []byte{byte(critical.Type)}})
		return "init_critical"
	}
	return "init_schema"
}

// sayInit answers an IKE_SA_INIT in one notification and keeps nothing of it.
// RFC 7296 2.6: the responder's SPI is 0 in such an answer.
func (m *Machine) sayInit(back path, msg *wire.Message, n *wire.Notify) {
	h := wire.Header{Initiator: msg.Initiator, Major: wire.Version, Exchange: wire.IKESAInit, Flags: wire.FlagResponse}
	m.sayStranger(back, len(msg.Raw), wire.Append(nil, h, n))
}

// sayStranger says something to whoever may be nobody, unless that would be more
// than came from there.
func (m *Machine) sayStranger(back path, came int, data []byte) {
	if len(data) > came {
		m.count("too_short_to_answer")
		return
	}
	m.sendAll(back, [][]byte{data})
}

// cookieIn tells whether the request has a cookie of ours. RFC 7296 2.6: it is the
// first payload. One that is not good is as none.
func (m *Machine) cookieIn(payloads []wire.Payload, nonce []byte, from netip.AddrPort, spi wire.SPI) bool {
	n, ok := payloads[0].(*wire.Notify)
	return ok && n.Kind == wire.NotifyCookie && m.goodCookie(n.Data, nonce, from.Addr(), spi)
}

func (m *Machine) sendCookie(back path, msg *wire.Message, nonce []byte) {
	cookie := m.makeCookie(nonce, back.remote.Addr(), msg.Initiator)
	m.sayInit(back, msg, &wire.Notify{Kind: wire.NotifyCookie, Data: cookie})
}

// initChoose finds the peers that it may be, and what they agree on.
func (m *Machine) initChoose(r *initRequested) string {
	all := m.origins.from(r.back.remote.Addr())
	if len(all) == 0 {
		m.initRefuse(r, failure{
			Reason: "unknown_peer", Text: "no peer is configured at this address",
			Theirs: r.back.remote.Addr().String(), Fix: "configure a peer with this address, or with any",
		})
		return "init_unknown_peer"
	}
	var ours []proposal.Proposal
	for _, k := range all {
		ours = append(ours, k.proposals...)
	}
	theirs := wire.First[*wire.SA](r.msg.Payloads).Proposals
	canMore := wire.FindNotify(r.msg.Payloads, wire.NotifyIntermediateExchangeSupported) != nil
	if !canMore {
		// RFC 9370 2.2.1: additional key exchanges need IKE_INTERMEDIATE.
		ours = slices.DeleteFunc(ours, needsMore)
	}
	choice, err := proposal.Choose(ours, theirs)
	if err != nil {
		m.initRefuseAs(r, mismatchFailure(err), onlyName(all))
		return "init_no_proposal"
	}
	r.choice = choice
	r.candidates = m.candidatesFor(r.back.remote.Addr(), choice)
	return m.initMethod(r)
}

// needsMore tells whether a proposal cannot do without IKE_INTERMEDIATE.
func needsMore(p proposal.Proposal) bool {
	for kind := wire.ADDKE1; kind <= wire.ADDKE7; kind++ {
		any, none := false, false
		for _, t := range p.Transforms {
			if t.Type == kind {
				any, none = true, none || t.ID == 0
			}
		}
		if any && !none {
			return true
		}
	}
	return false
}

// initMethod looks whether the KE payload is of the method that was chosen. RFC
// 7296 1.2: if not, "the responder will respond with a Notify payload of type
// INVALID_KE_PAYLOAD indicating the selected group".
func (m *Machine) initMethod(r *initRequested) string {
	ke := wire.First[*wire.KE](r.msg.Payloads)
	if proposal.KE(ke.Method) == r.choice.KE() {
		return ""
	}
	m.sayInit(r.back, r.msg, &wire.Notify{
		Kind: wire.NotifyInvalidKEPayload,
		Data: binary.BigEndian.AppendUint16(nil, uint16(r.choice.KE())),
	})
	return "init_invalid_ke"
}

// initRefuse refuses somebody, with NO_PROPOSAL_CHOSEN whatever the reason.
func (m *Machine) initRefuse(r *initRequested, why failure) { m.initRefuseAs(r, why, "") }

func (m *Machine) initRefuseAs(r *initRequested, why failure, peer string) {
	m.sayInit(r.back, r.msg, &wire.Notify{Kind: wire.NotifyNoProposalChosen})
	m.count("failed_" + why.Reason)
	e := why.event(StageInit)
	e.Peer, e.Local, e.Remote, e.SPIi = peer, r.back.local, r.back.remote, uint64(r.msg.Initiator)
	m.strangerEvent(e)
}

// initAnswer does the key exchange and answers.
func (m *Machine) initAnswer(r *initRequested) string {
	sa := m.newResponder(r)
	answer := m.initPayloads(sa, r, make([]byte, len(wire.First[*wire.KE](r.msg.Payloads).Data)))
	// Bytes to an address that nobody has verified never exceed those from it.
	if !r.verified && len(m.initBytes(sa, answer)) > len(r.msg.Raw) {
		m.sendCookie(r.back, r.msg, r.nonce)
		return "cookie_for_length"
	}
	if why := m.affordsFirst(r); why != "" {
		return why
	}
	ke := wire.First[*wire.KE](r.msg.Payloads)
	public, secret, err := keys.Respond(r.choice.KE(), m.rand, ke.Data)
	if err != nil {
		m.initRefuse(r, failure{Reason: "key_exchange", Text: fmt.Sprintf("the peer's public value is refused: %v", err)})
		return "init_bad_ke"
	}
	defer clear(secret)
	sk, err := keys.Derive(r.choice, secret, sa.ni, sa.nr, sa.spiR, sa.spi)
	if err != nil {
		return "init_keys"
	}
	sa.keys = sk
	wire.First[*wire.KE](answer).Data = public
	m.openHalf(sa, r, m.initBytes(sa, answer))
	return ""
}

// newResponder is a half-open IKE SA that nobody knows of yet.
func (m *Machine) newResponder(r *initRequested) *ikeSA {
	payloads := r.msg.Payloads
	sa := &ikeSA{
		born: m.now, state: halfOpen, spi: m.newSPI(), spiR: r.msg.Initiator, path: r.back,
		choice: r.choice, ni: bytes.Clone(r.nonce), nr: m.random(nonceLength), heard: m.now,
	}
	f := &handshake{began: m.now, candidates: r.candidates, hashes: hashesOf(payloads), pending: r.choice.AKEs()}
	sa.first = f
	sa.fragmentation = anyOf(r.candidates, func(k *kind) bool { return k.fragmentation }) && wire.FindNotify(payloads, wire.NotifyFragmentationSupported) != nil
	f.usePPK = anyOf(r.candidates, func(k *kind) bool { return k.ppk }) && wire.FindNotify(payloads, wire.NotifyUsePPK) != nil
	sa.behindNAT, sa.peerBehindNAT, f.natFound = detectNAT(payloads, r.msg.Initiator, 0, r.back.local, r.back.remote)
	return sa
}

// initPayloads are those of the answer. What the initiator did not ask for it does
// not get: CHILDLESS_IKEV2_SUPPORTED (RFC 6023) and CERTREQ excepted.
func (m *Machine) initPayloads(sa *ikeSA, r *initRequested, public []byte) []wire.Payload {
	answer := r.choice.Wire()
	answer.SPI = nil
	out := []wire.Payload{
		&wire.SA{Proposals: []wire.Proposal{answer}},
		&wire.KE{Method: uint16(r.choice.KE()), Data: public},
		&wire.Nonce{Data: sa.nr},
	}
	asked := func(k wire.NotifyType) bool { return wire.FindNotify(r.msg.Payloads, k) != nil }
	if sa.first.natFound {
		pretend := anyOf(r.candidates, func(k *kind) bool { return k.forceUDP })
		sa.forcedUDP = pretend // the initiator sees a NAT, whichever of them it is
		out = append(out, m.natNotifies(r.msg.Initiator, sa.spi, sa.path, pretend)...)
	}
	if sa.fragmentation {
		out = append(out, &wire.Notify{Kind: wire.NotifyFragmentationSupported})
	}
	if asked(wire.NotifySignatureHashAlgorithms) {
		out = append(out, signatureHashes())
	}
	if len(sa.first.pending) > 0 {
		out = append(out, &wire.Notify{Kind: wire.NotifyIntermediateExchangeSupported})
	}
	if sa.first.usePPK {
		out = append(out, &wire.Notify{Kind: wire.NotifyUsePPK})
	}
	if anyOf(r.candidates, func(k *kind) bool { return k.childless }) {
		out = append(out, &wire.Notify{Kind: wire.NotifyChildlessIKEv2Supported})
	}
	return append(out, trustsOf(r.candidates).Requests()...)
}

func (m *Machine) initBytes(sa *ikeSA, payloads []wire.Payload) []byte {
	return wire.Append(nil, m.header(sa, wire.IKESAInit, 0, true), payloads...)
}

// openHalf keeps the half-open SA, and answers.
func (m *Machine) openHalf(sa *ikeSA, r *initRequested, answer []byte) {
	f := sa.first
	f.received, f.sent = bytes.Clone(r.msg.Raw), answer
	sa.first0 = [][]byte{answer}
	sa.theirs.next = 1
	m.sas[sa.spi] = sa
	m.strange.opened(r.back.remote.Addr())
	f.counted = r.back.remote.Addr()
	m.strange.byMessage[r.key] = sa
	sa.firstKey = r.key
	sa.timers.halfOpen = m.after(m.timing.HalfOpen, func() { m.halfOpenOver(sa) })
	m.count("init_answered")
	m.strangerEvent(Event{
		Peer: onlyName(r.candidates), Stage: StageInit, Outcome: Done, Local: r.back.local, Remote: r.back.remote,
		SPIi: uint64(sa.spiR), SPIr: uint64(sa.spi), Suite: r.choice.Keyword(),
	})
	m.sendAll(r.back, sa.first0)
}

// halfOpenOver ends the time in which the first message is remembered, and with it
// an SA that is still half-open.
func (m *Machine) halfOpenOver(sa *ikeSA) {
	m.forgetFirst(sa)
	if sa.state != halfOpen {
		return
	}
	m.count("half_open_expired")
	m.rejected(sa, StageAuth, failure{
		Reason: "half_open_expired",
		Text:   fmt.Sprintf("the peer began, and did not go on with %s within %s", wire.IKEAuth, m.timing.HalfOpen),
		Fix:    "see in the peer's log why it went no further; large messages that are lost on the way need fragmentation",
	})
	m.forget(sa, failure{Reason: "half_open_expired"})
}

// forgetFirst forgets the first message and its answer.
func (m *Machine) forgetFirst(sa *ikeSA) {
	if sa.first0 != nil {
		delete(m.strange.byMessage, sa.firstKey)
		sa.first0 = nil
	}
}
