package ike

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/keys"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
)

// IKE_SA_INIT, RFC 7296 1.2 and 2.6: the initiator's side. initresponder.go has
// the other.
//
//	connect -> initTask.request -> ... -> initResponse -> COOKIE, INVALID_KE_PAYLOAD: once more
//	                                                   -> keys -> IKE_INTERMEDIATE or IKE_AUTH
//
// Nothing in it is authenticated: what makes no sense is dropped, and the true
// answer may still come.

// Lengths of nonces in bytes (RFC 7296 2.10: at least 16, and half the key of the
// PRF). The initiator's is the longer one, so that the responder's answer is no
// longer than what it answers.
const (
	nonceLength          = 32
	initiatorNonceLength = 64
)

// maxAgain is how often IKE_SA_INIT starts over for a cookie or another group.
const maxAgain = 4

// initTask is our IKE_SA_INIT.
type initTask struct{}

func (initTask) kind() wire.ExchangeType { return wire.IKESAInit }

func (initTask) request(m *Machine, sa *ikeSA) ([]wire.Payload, error) {
	f, p := sa.first, sa.peer
	var out []wire.Payload
	if f.cookie != nil {
		// RFC 7296 2.6: "the initiator MUST then retry the IKE_SA_INIT request, and
		// include the COOKIE notification containing the received data as the first
		// payload, and all other payloads unchanged."
		out = append(out, &wire.Notify{Kind: wire.NotifyCookie, Data: f.cookie})
	}
	f.offered = proposal.Offer(p.Proposals, nil)
	out = append(out,
		&wire.SA{Proposals: f.offered},
		&wire.KE{Method: uint16(f.method), Data: f.exchange.Public()},
		&wire.Nonce{Data: sa.ni})
	out = append(out, f.natSent...)
	if p.Fragmentation {
		out = append(out, &wire.Notify{Kind: wire.NotifyFragmentationSupported})
	}
	out = append(out, signatureHashes())
	if slices.ContainsFunc(p.Proposals, proposal.Proposal.Additional) {
		out = append(out, &wire.Notify{Kind: wire.NotifyIntermediateExchangeSupported})
	}
	if len(p.PPK.ID) > 0 {
		out = append(out, &wire.Notify{Kind: wire.NotifyUsePPK})
	}
	f.sent = wire.Append(nil, m.header(sa, wire.IKESAInit, sa.ours.next, false), out...)
	return out, nil
}

func (initTask) response(*Machine, *ikeSA, []wire.Payload) {} // initResponse has it

func (initTask) failed(*Machine, *ikeSA, failure) {} // ended has it

// signatureHashes is SIGNATURE_HASH_ALGORITHMS (RFC 7427 4).
func signatureHashes() *wire.Notify {
	return &wire.Notify{Kind: wire.NotifySignatureHashAlgorithms, Data: auth.HashData(auth.Hashes())}
}

// hashesOf are the peer's; nil: it does not know RFC 7427.
func hashesOf(payloads []wire.Payload) []auth.HashAlgorithm {
	n := wire.FindNotify(payloads, wire.NotifySignatureHashAlgorithms)
	if n == nil {
		return nil
	}
	return auth.ParseHashes(n.Data)
}

// connect begins an IKE SA with a peer. instead is the one that it is to replace
// by authenticating anew; nil: none.
func (m *Machine) connect(p *peer, instead *ikeSA) *ikeSA {
	local := netip.AddrPortFrom(m.localTo(p), m.port)
	port := p.Port
	if port == 0 {
		port = 500
	}
	sa := &ikeSA{
		initiator: true, born: m.now, state: starting, peer: p,
		path: path{local: local, remote: netip.AddrPortFrom(p.Remote, port)},
		ni:   m.random(initiatorNonceLength),
	}
	sa.spi = m.newSPI()
	if p.StartNATT {
		m.float(sa)
	}
	f := &handshake{began: m.now, instead: instead}
	sa.first = f
	// RFC 7296 2.6 wants "all other payloads unchanged" behind a cookie.
	f.natSent = m.natNotifies(sa.spi, 0, sa.path, p.ForceUDP)
	m.sas[sa.spi] = sa
	p.sas = append(p.sas, sa)
	m.event(sa, Event{Stage: StageInit, Outcome: Began, Initiator: true, Text: "initiating to " + sa.path.remote.String()})
	if err := m.beginExchange(sa, firstMethod(p.Proposals)); err != nil {
		m.ended(sa, StageInit, failure{Reason: "key_exchange", Text: err.Error()})
		return sa
	}
	m.enqueue(sa, initTask{})
	return sa
}

// firstMethod is the method to guess: the first of the first proposal.
func firstMethod(proposals []proposal.Proposal) proposal.KE {
	for _, p := range proposals {
		for _, k := range p.KEs() {
			return k
		}
	}
	return proposal.KENone
}

// beginExchange makes our half of a key exchange.
func (m *Machine) beginExchange(sa *ikeSA, method proposal.KE) error {
	x, err := keys.Begin(method, m.rand)
	if err != nil {
		return err
	}
	if sa.first.exchange != nil {
		sa.first.exchange.Discard()
	}
	sa.first.exchange, sa.first.method = x, method
	return nil
}

// initResponse takes an answer to our IKE_SA_INIT. It returns the name of the
// drop.
func (m *Machine) initResponse(sa *ikeSA, in Packet, msg *wire.Message) string {
	if msg.Protected != nil {
		return "init_protected"
	}
	f := sa.first
	if n := wire.FindNotify(msg.Payloads, wire.NotifyCookie); n != nil {
		// RFC 7296 2.6: "between 1 and 64 octets in length (inclusive)".
		if len(n.Data) < 1 || len(n.Data) > 64 {
			return m.rubbish(sa, "a cookie of %d bytes", len(n.Data))
		}
		if string(n.Data) == string(f.cookie) {
			return "init_answer_again"
		}
		f.cookie = bytes.Clone(n.Data)
		return m.initAgain(sa, "cookie")
	}
	if n := wire.FindNotify(msg.Payloads, wire.NotifyInvalidKEPayload); n != nil {
		return m.otherMethod(sa, n)
	}
	if n := firstError(msg.Payloads); n != nil {
		return m.initRefused(sa, n)
	}
	if err := wire.Check(wire.IKESAInit, true, msg.Payloads); err != nil {
		return m.rubbish(sa, "%v", err)
	}
	return m.initAccepted(sa, in, msg)
}

// refusalWait is how long a refusal waits for another answer.
const refusalWait = time.Second

// initRefused ends the attempt, but not at once. RFC 7296 2.21.1: "Because all error
// notifications are completely unauthenticated, the recipient should continue trying
// for some time before giving up." Nothing is sent again meanwhile: a true refusal
// would be said, and logged, once more each time.
func (m *Machine) initRefused(sa *ikeSA, n *wire.Notify) string {
	f := sa.first
	if f.refused {
		return "init_refused_again"
	}
	f.refused = true
	why := m.refusedByPeer(sa, n)
	sa.ours.timer.stop()
	sa.ours.timer = m.after(refusalWait, func() { m.ended(sa, StageInit, why) })
	return ""
}

// firstError is the first notification of an error.
func firstError(payloads []wire.Payload) *wire.Notify {
	for _, n := range wire.All[*wire.Notify](payloads) {
		if n.Kind.IsError() {
			return n
		}
	}
	return nil
}

// rubbish drops an answer to IKE_SA_INIT that makes no sense; if no other comes,
// the timeout tells of it.
func (m *Machine) rubbish(sa *ikeSA, format string, args ...any) string {
	sa.first.rubbish = fmt.Sprintf(format, args...)
	m.detail(sa, StageInit, func() string { return "an answer is dropped: " + sa.first.rubbish })
	return "init_answer_rubbish"
}

// malformedAnswer remembers that an answer to our IKE_SA_INIT cannot even be read: a
// peer that is at fault must not look like one that is not there.
func (m *Machine) malformedAnswer(h wire.Header, err error) {
	if sa := m.sas[h.Initiator]; sa != nil && sa.state == starting && h.Exchange == wire.IKESAInit && h.Response() {
		m.rubbish(sa, "%v", err)
	}
}

// initAgain sends IKE_SA_INIT once more, with the same message ID. RFC 7296 2.2: it "is
// zero for the IKE_SA_INIT messages (including retries of the message due to responses
// such as COOKIE and INVALID_KE_PAYLOAD)".
func (m *Machine) initAgain(sa *ikeSA, why string) string {
	f := sa.first
	if f.again++; f.again > maxAgain {
		return m.rubbish(sa, "IKE_SA_INIT would start over for the %dth time (%s)", f.again, why)
	}
	f.refused = false
	m.count("init_again_" + why)
	m.detail(sa, StageInit, func() string { return "IKE_SA_INIT once more: " + why })
	sa.ours.free()
	m.enqueue(sa, initTask{})
	return ""
}

// otherMethod is INVALID_KE_PAYLOAD. RFC 7296 1.2: "the initiator MUST retry the
// IKE_SA_INIT with the corrected Diffie-Hellman group. The initiator MUST again
// propose its full set of acceptable cryptographic suites because the rejection
// message was unauthenticated". The cookie stays with it (RFC 7296 2.6.1).
func (m *Machine) otherMethod(sa *ikeSA, n *wire.Notify) string {
	if len(n.Data) != 2 {
		return m.rubbish(sa, "INVALID_KE_PAYLOAD with %d bytes", len(n.Data))
	}
	method := proposal.KE(binary.BigEndian.Uint16(n.Data))
	offered := slices.ContainsFunc(sa.peer.Proposals, func(p proposal.Proposal) bool { return slices.Contains(p.KEs(), method) })
	if !offered || method == sa.first.method {
		return m.rubbish(sa, "INVALID_KE_PAYLOAD wants %s, which is not another one of those offered", method)
	}
	if sa.first.again >= maxAgain {
		return m.initAgain(sa, "group")
	}
	if err := m.beginExchange(sa, method); err != nil {
		return m.rubbish(sa, "%v", err)
	}
	return m.initAgain(sa, "group")
}

// initAccepted takes the answer that accepts.
func (m *Machine) initAccepted(sa *ikeSA, in Packet, msg *wire.Message) string {
	f, payloads := sa.first, msg.Payloads
	answer := wire.First[*wire.SA](payloads).Proposals
	ke, nonce := wire.First[*wire.KE](payloads), wire.First[*wire.Nonce](payloads)
	switch {
	case msg.Responder == 0:
		return m.rubbish(sa, "the responder's SPI is 0")
	case len(answer) != 1:
		return m.rubbish(sa, "%d proposals are accepted, not one", len(answer))
	case proposal.KE(ke.Method) != f.method:
		return m.rubbish(sa, "a key exchange of %s answers one of %s", proposal.KE(ke.Method), f.method)
	}
	choice, err := proposal.Accept(f.offered, answer[0])
	if err != nil {
		return m.rubbish(sa, "%v", err)
	}
	switch {
	case choice.KE() != f.method:
		return m.rubbish(sa, "%s is chosen, and %s was exchanged", choice.KE(), f.method)
	case len(choice.AKEs()) > 0 && wire.FindNotify(payloads, wire.NotifyIntermediateExchangeSupported) == nil:
		return m.rubbish(sa, "additional key exchanges without INTERMEDIATE_EXCHANGE_SUPPORTED (RFC 9370 2.2.1)")
	}
	nr := bytes.Clone(nonce.Data)
	secret, err := f.exchange.Finish(ke.Data)
	if err != nil {
		return m.rubbish(sa, "%v", err)
	}
	defer clear(secret)
	sk, err := keys.Derive(choice, secret, sa.ni, nr, sa.spi, msg.Responder)
	if err != nil {
		return m.rubbish(sa, "%v", err)
	}
	sa.spiR, sa.keys, sa.choice, sa.nr = msg.Responder, sk, choice, nr
	f.received = bytes.Clone(msg.Raw)
	sa.ours.free()
	sa.ours.next++
	m.initLearn(sa, in, payloads)
	m.count("init_done")
	m.event(sa, Event{Stage: StageInit, Outcome: Done, Initiator: true, Suite: choice.Keyword(), Took: m.now - f.began})
	sa.state = proving
	f.pending = choice.AKEs()
	m.proceed(sa)
	return ""
}

// initLearn takes what the peer says about itself.
func (m *Machine) initLearn(sa *ikeSA, in Packet, payloads []wire.Payload) {
	f, p := sa.first, sa.peer
	f.hashes = hashesOf(payloads)
	sa.fragmentation = p.Fragmentation && wire.FindNotify(payloads, wire.NotifyFragmentationSupported) != nil
	sa.childless = wire.FindNotify(payloads, wire.NotifyChildlessIKEv2Supported) != nil
	f.usePPK = len(p.PPK.ID) > 0 && wire.FindNotify(payloads, wire.NotifyUsePPK) != nil
	if !sa.path.local.Addr().IsValid() || sa.path.local.Addr().IsUnspecified() {
		sa.path.local = netip.AddrPortFrom(in.Local.Addr(), sa.path.local.Port())
	}
	here, there, found := detectNAT(payloads, sa.spi, sa.spiR, in.Local, in.Remote)
	sa.behindNAT, sa.peerBehindNAT = here, there
	if found && (here || there || p.ForceUDP || p.Mobike) {
		m.float(sa)
	}
}

// proceed goes on behind IKE_SA_INIT, and behind each IKE_INTERMEDIATE.
func (m *Machine) proceed(sa *ikeSA) {
	if !sa.first.usePPK && sa.peer.PPK.Required {
		m.ended(sa, StageInit, failure{
			Reason: "ppk_required", Text: "the peer does not know PPKs (RFC 8784), and one is required",
			Ours: "required", Fix: "configure the PPK at the peer, or do not require it",
		})
		return
	}
	if len(sa.first.pending) > 0 {
		m.enqueue(sa, intermediateTask{})
		return
	}
	m.enqueue(sa, &authTask{})
}

// refusedByPeer is what the peer's notification of an error means.
func (m *Machine) refusedByPeer(sa *ikeSA, n *wire.Notify) failure {
	f := failure{Reason: notifyReason(n.Kind), Text: fmt.Sprintf("%s answers %s", sa.path.remote, n.Kind), Theirs: n.Kind.String()}
	switch n.Kind {
	case wire.NotifyNoProposalChosen:
		f.Ours = proposalsText(sa.peer.Proposals)
		f.Fix = "give both ends one proposal in common, and see in the peer's log what it wants"
	case wire.NotifyAuthenticationFailed:
		f.Ours = sa.peer.Auth.ID.String() + " to " + sa.peer.Remotely.ID.String()
		f.Fix = "the peer does not believe this end: compare identities, secrets and certificates on both; its log says which"
	}
	return f
}

func proposalsText(proposals []proposal.Proposal) string {
	text := ""
	for i, p := range proposals {
		if i > 0 {
			text += ", "
		}
		text += p.String()
	}
	return text
}

// notifyReason is a notification's name as a Reason.
// What has none is the peer's number, of which no counter is to be named.
func notifyReason(k wire.NotifyType) string {
	name := lowerCase(k.String())
	if strings.HasPrefix(name, "notification_") {
		return "unknown_error"
	}
	return name
}

// lowerCase makes NO_PROPOSAL_CHOSEN no_proposal_chosen.
func lowerCase(s string) string {
	b := []byte(s)
	for i, c := range b {
		switch {
		case 'A' <= c && c <= 'Z':
			b[i] = c + 'a' - 'A'
		case c == ' ' || c == '-':
			b[i] = '_'
		}
	}
	return string(b)
}

// mismatchFailure is what proposal.Choose said, as a failure.
func mismatchFailure(err error) failure {
	f := failure{Reason: "no_proposal_chosen", Text: "there is no proposal that both ends have"}
	var mm *proposal.Mismatch
	if errors.As(err, &mm) {
		f.Theirs, f.Ours, f.Fix = mm.Theirs, mm.Ours, mm.Nearest
	} else {
		f.Text = err.Error()
	}
	return f
}
