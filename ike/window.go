package ike

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
)

// The windows of an IKE SA.
//
//	ours    enqueue -> pump -> task.request -> ask -> transmit ... transmit
//	                                              answered -> task.response -> pump
//	                                              or silence -> unanswered
//	theirs  asked -> handler -> answer -> the datagrams are kept, for who asks again
//
// RFC 7296 2.3: both windows are 1, which is what a peer has to assume. RFC 7296
// 2.1: "For every pair of IKE messages, the initiator is responsible for
// retransmission in the event of a timeout. The responder MUST never retransmit a
// response unless it receives a retransmission of the request."

// lastMessageID is never used, so that none comes twice. RFC 7296 2.2: "In the
// unlikely event that Message IDs grow too large to fit in 32 bits, the IKE SA MUST
// be closed or rekeyed." With the rekeys of any configuration it does not happen.
const lastMessageID = math.MaxUint32

// task is one exchange that this end starts. The window calls request when its
// turn comes, and then exactly one of response and failed.
type task interface {
	// kind is the exchange that it is.
	kind() wire.ExchangeType
	// request makes the payloads inside SK. An error drops the task, nothing
	// is sent and neither response nor failed is called: whatever it was for is
	// gone, or is done already.
	request(m *Machine, sa *ikeSA) ([]wire.Payload, error)
	// response takes the answer: authenticated, and checked by wire.Check. The
	// window is free again: it may enqueue.
	response(m *Machine, sa *ikeSA, payloads []wire.Payload)
	// failed says that there will be no answer: the peer is silent, or the IKE
	// SA has gone, also while the task still waited for its turn. It starts
	// nothing on sa.
	failed(m *Machine, sa *ikeSA, why failure)
}

// handler takes a request of the peer: authenticated, and checked by wire.Check.
// It calls answer exactly once, perhaps only after Installed. The answer is sent
// within the call of answer: actions that are to follow it come behind.
type handler func(m *Machine, sa *ikeSA, payloads []wire.Payload, answer func(...wire.Payload))

// failure is why something did not work, for the one event and the Refuses.
type failure struct {
	Reason            string // a short word: "timeout", "no_proposal_chosen"
	Text              string // a sentence
	Theirs, Ours, Fix string // what the ends differ in
}

// ourWindow is what this end asks.
type ourWindow struct {
	next  uint32 // the message ID of the next request
	task  task   // on its way; nil: none
	id    uint32 // its message ID
	sent  [][]byte
	tries int
	began time.Duration
	timer *timer
	queue []task
	parts reassembly // of the answer
}

// theirWindow is what the peer asks.
type theirWindow struct {
	next   uint32     // the message ID of the request that comes next
	answer [][]byte   // the datagrams of the last answer, to be said again; nil: there is none (yet)
	asked  digest     // of the last request, or of its first fragment
	parts  reassembly // of the request
	// elsewhere is where else that request has come from.
	elsewhere elsewhere
}

// enqueue starts an exchange, or has it wait for its turn.
func (m *Machine) enqueue(sa *ikeSA, t task) {
	sa.ours.queue = append(sa.ours.queue, t)
	m.pump(sa)
}

// pump starts the next exchange, if none is on its way.
func (m *Machine) pump(sa *ikeSA) {
	w := &sa.ours
	for w.task == nil && len(w.queue) > 0 && sa.state != dead {
		if w.next == lastMessageID {
			m.ended(sa, StageMessage, failure{Reason: "message_ids_spent", Text: "the IKE SA has used all message IDs"})
			return
		}
		t := w.queue[0]
		w.queue = w.queue[1:]
		payloads, err := t.request(m, sa)
		if err != nil {
			m.detail(sa, StageMessage, func() string { return fmt.Sprintf("%s is not sent: %v", t.kind(), err) })
			continue
		}
		m.ask(sa, t, payloads)
	}
}

// ask sends the request of t.
func (m *Machine) ask(sa *ikeSA, t task, payloads []wire.Payload) {
	w := &sa.ours
	w.task, w.id, w.tries, w.began = t, w.next, 0, m.now
	w.parts = reassembly{}
	h := m.header(sa, t.kind(), w.id, false)
	if t.kind() == wire.IKESAInit {
		w.sent = [][]byte{wire.Append(nil, h, payloads...)}
	} else {
		w.sent = m.seal(sa, h, payloads)
	}
	m.detail(sa, StageMessage, func() string { return "send " + t.kind().String() + " request: " + summary(payloads) })
	m.transmit(sa)
}

// header is that of a message on the SA.
func (m *Machine) header(sa *ikeSA, x wire.ExchangeType, id uint32, response bool) wire.Header {
	h := wire.Header{Major: wire.Version, Exchange: x, MessageID: id}
	h.Initiator, h.Responder = sa.spis()
	if sa.initiator {
		h.Flags |= wire.FlagInitiator
	}
	if response {
		h.Flags |= wire.FlagResponse
	}
	return h
}

// transmit sends the request that is on its way, for the first time or again, and
// sets the time at which to do so again, or to give up.
func (m *Machine) transmit(sa *ikeSA) {
	w := &sa.ours
	if w.tries > 0 {
		m.count("retransmissions")
	}
	w.tries++
	m.sendAll(sa.path, w.sent)
	w.timer.stop()
	wait := min(m.timing.Retransmit<<min(w.tries-1, 16), m.timing.MaxRetransmit)
	w.timer = m.after(wait, func() {
		if w.tries >= m.timing.Tries {
			m.unanswered(sa)
			return
		}
		m.transmit(sa)
	})
}

// sendAll sends the datagrams of a message.
func (m *Machine) sendAll(p path, datagrams [][]byte) {
	for _, d := range datagrams {
		m.do(Send{Local: p.local, Remote: p.remote, NATT: p.natt, Data: d})
	}
}

// free says that nothing is on its way any more, and what was.
func (w *ourWindow) free() task {
	t := w.task
	w.timer.stop()
	w.task, w.sent, w.timer, w.parts = nil, nil, nil, reassembly{}
	return t
}

// unanswered is the end of an exchange that the peer never answered, and with it of
// the IKE SA and all that was negotiated through it. Deviation: RFC 7296 2.4 suggests
// "that messages be retransmitted at least a dozen times over a period of at least
// several minutes before giving up on an SA, but different environments may require
// different rules": by default it is eight in forty seconds, since a gateway that
// finds out sooner begins again sooner. Timing has both.
func (m *Machine) unanswered(sa *ikeSA) {
	w := &sa.ours
	kind := w.task.kind()
	why := failure{
		Reason: "timeout",
		Text:   fmt.Sprintf("no answer from %s to %d transmissions of %s", sa.path.remote, w.tries, kind),
		Fix:    "see that the peer runs, and that UDP 500 and 4500 pass between the two",
	}
	if sa.first != nil && sa.first.rubbish != "" {
		why.Reason, why.Theirs = "bad_answer", sa.first.rubbish
		why.Text = fmt.Sprintf("%s answers %s, but with nothing of use", sa.path.remote, kind)
		why.Fix = ""
	}
	m.ended(sa, stageOf(sa, kind), why)
}

// stageOf is the stage that an exchange belongs to, seen from its failure.
func stageOf(sa *ikeSA, x wire.ExchangeType) Stage {
	switch x {
	case wire.IKESAInit:
		return StageInit
	case wire.IKEIntermediate:
		return StageIntermediate
	case wire.IKEAuth:
		return StageAuth
	}
	if sa.state == deleting || sa.state == replaced {
		return StageDelete
	}
	return StageLiveness
}

// answered takes a response. It returns the name of the drop, "" if there is none.
func (m *Machine) answered(sa *ikeSA, in Packet, msg *wire.Message) string {
	w := &sa.ours
	switch {
	case w.task == nil || msg.MessageID != w.id:
		return "stale_response"
	case msg.Exchange != w.task.kind():
		return "response_of_another_exchange"
	case msg.Exchange == wire.IKESAInit:
		return m.initResponse(sa, in, msg)
	}
	got, why := m.open(sa, msg, &w.parts)
	if got == nil {
		return why
	}
	m.hear(sa, in)
	payloads, err := got.parse(msg.Exchange, true)
	m.answeredOn(sa)
	t := w.free()
	w.next++
	if err != nil {
		m.badAnswer(sa, t, err)
		return ""
	}
	m.detail(sa, StageMessage, func() string { return "take " + msg.Exchange.String() + " response: " + summary(payloads) })
	if msg.Exchange == wire.IKEIntermediate {
		sa.first.gotIntermediate(sa, msg, got)
	}
	if wire.FindNotify(payloads, wire.NotifyInvalidSyntax) != nil && (sa.state == established || sa.state == replaced) {
		why := failure{Reason: "invalid_syntax", Text: fmt.Sprintf("the peer answers %s with INVALID_SYNTAX: to it that made no sense", t.kind())}
		t.failed(m, sa, why)
		m.failedEvent(sa, stageOf(sa, t.kind()), why, nil)
		m.senseless(sa, why)
		return ""
	}
	t.response(m, sa, payloads)
	m.pump(sa)
	return ""
}

// badAnswer is an answer that the peer has authenticated, and that makes no sense.
// There is no way to tell the peer but to end the IKE SA (RFC 7296 2.21.3).
func (m *Machine) badAnswer(sa *ikeSA, t task, err error) {
	m.count("bad_answers")
	stage := stageOf(sa, t.kind())
	why := failure{Reason: "invalid_syntax", Text: fmt.Sprintf("the peer's answer to %s makes no sense: %v", t.kind(), err)}
	t.failed(m, sa, why)
	if sa.state == established || sa.state == replaced {
		m.failedEvent(sa, StageMessage, why, nil)
		m.deleteIKE(sa, why.Reason)
		m.startAgain(sa.peer)
		return
	}
	m.ended(sa, stage, why)
}

// asked takes a request. It returns the name of the drop, "" if there is none.
func (m *Machine) asked(sa *ikeSA, in Packet, msg *wire.Message) string {
	w := &sa.theirs
	if msg.MessageID == lastMessageID {
		return "message_ids_spent"
	}
	if msg.MessageID+1 == w.next {
		return m.askedAgain(sa, in, msg)
	}
	if msg.MessageID != w.next || w.next == math.MaxUint32 {
		// RFC 7296 2.2: message IDs are never used again; who has used up all of
		// them has to rekey.
		return "request_outside_window"
	}
	handle := table[sa.state][msg.Exchange]
	if handle == nil || sa.state == deleting && !sa.proved.Valid() {
		// The latter has not authenticated the peer, and has told it so: an answer
		// would say that the IKE SA is up.
		return "request_in_wrong_state"
	}
	got, why := m.open(sa, msg, &w.parts)
	if got == nil {
		return why
	}
	m.hear(sa, in)
	w.next++
	w.answer, w.parts = nil, reassembly{}
	w.asked = got.firstDatagram
	back := path{local: in.Local, remote: in.Remote, natt: in.NATT}
	senseless := false
	answer := func(payloads ...wire.Payload) {
		senseless = wire.FindNotify(payloads, wire.NotifyInvalidSyntax) != nil
		m.answer(sa, back, msg.Exchange, msg.MessageID, payloads)
	}
	payloads, err := got.parse(msg.Exchange, false)
	if err != nil && !asksForEAP(err) {
		m.badRequest(sa, err, answer)
		return ""
	}
	m.detail(sa, StageMessage, func() string { return "take " + msg.Exchange.String() + " request: " + summary(payloads) })
	if msg.Exchange == wire.IKEIntermediate {
		sa.first.gotIntermediate(sa, msg, got)
	}
	sa.askedBy = back
	m.heardOf(sa, msg.MessageID, payloads)
	handle(m, sa, payloads, answer)
	if senseless {
		m.senseless(sa, failure{Reason: "invalid_syntax", Text: "the peer's request makes no sense"})
	}
	return ""
}

// answer sends the answer to a request, and keeps it for who asks again.
func (m *Machine) answer(sa *ikeSA, back path, x wire.ExchangeType, id uint32, payloads []wire.Payload) {
	if sa.state == dead && sa.keys == nil {
		return
	}
	m.detail(sa, StageMessage, func() string { return "send " + x.String() + " response: " + summary(payloads) })
	sa.theirs.answer = m.seal(sa, m.header(sa, x, id, true), payloads)
	m.sendAll(back, sa.theirs.answer)
}

// askedAgain answers a request once more with the same bytes. RFC 7296 2.1: the
// retransmission "MUST be bitwise identical", but for fragments of another size
// (RFC 7383 2.5.2): then it has to be authentic. RFC 7383 2.6.1: of a fragmented
// request only the first fragment has the answer sent again.
func (m *Machine) askedAgain(sa *ikeSA, in Packet, msg *wire.Message) string {
	w := &sa.theirs
	if w.answer == nil {
		return "duplicate_request_unanswered"
	}
	if msg.Protected == nil {
		return "unprotected"
	}
	elsewhere := in.Remote != sa.askedBy.remote
	if elsewhere {
		w.elsewhere.take(in.Remote, len(msg.Raw))
	}
	if msg.Protected.Total > 0 && msg.Protected.Fragment != 1 {
		return "duplicate_fragment"
	}
	if digestOf(msg.Raw) != w.asked {
		if _, err := sa.keys.Open(!sa.initiator, msg); err != nil {
			return "not_authentic"
		}
	}
	if elsewhere && !w.elsewhere.pays(w.answer) {
		return "duplicate_from_elsewhere"
	}
	m.count("duplicate_requests")
	m.sendAll(path{local: in.Local, remote: in.Remote, natt: in.NATT}, w.answer)
	return ""
}

// elsewhere is an address that the last request has come from again, and not at
// first. A NAT may have moved, but anybody can send what was seen on the way: such
// an address is sent no more bytes than came from it (RFC 7296 2.6 has cookies for
// the same fear). A fragmented answer may need a second try of the peer's.
type elsewhere struct {
	from   netip.AddrPort
	credit int // bytes that came from there, less those that were sent there
}

// take takes a duplicate of n bytes.
func (e *elsewhere) take(from netip.AddrPort, n int) {
	if e.from != from {
		*e = elsewhere{from: from}
	}
	e.credit += n
}

// pays tells whether the answer may be sent to where the duplicate came from, and
// counts it as sent.
func (e *elsewhere) pays(answer [][]byte) bool {
	size := 0
	for _, d := range answer {
		size += len(d)
	}
	if size > e.credit {
		return false
	}
	e.credit -= size
	return true
}

// badRequest is a request that the peer has authenticated, and that makes no
// sense.
func (m *Machine) badRequest(sa *ikeSA, err error, answer func(...wire.Payload)) {
	m.count("bad_requests")
	if c, ok := asCritical(err); ok {
		// RFC 7296 2.5: "If the critical flag is set and the payload type is
		// unrecognized, the message MUST be rejected and the response to the IKE
		// request containing that payload MUST include a Notify payload
		// UNSUPPORTED_CRITICAL_PAYLOAD".
		answer(&wire.Notify{Kind: wire.NotifyUnsupportedCriticalPayload, Data: []byte{byte(c)}})
		if sa.state == halfOpen {
			m.rejected(sa, StageAuth, failure{Reason: "unsupported_critical_payload", Text: err.Error()})
		}
		return
	}
	answer(&wire.Notify{Kind: wire.NotifyInvalidSyntax})
	why := failure{Reason: "invalid_syntax", Text: fmt.Sprintf("the peer's request makes no sense: %v", err)}
	if sa.state == halfOpen {
		m.rejected(sa, StageAuth, why)
		return
	}
	m.failedEvent(sa, StageMessage, why, nil)
	m.senseless(sa, why)
}

// senseless ends an IKE SA on which one end has said INVALID_SYNTAX. RFC 7296 2.21.3:
// for what was authenticated it "is considered fatal in both peers, meaning that the
// IKE SA is deleted without needing an explicit Delete payload." One that is not up
// yet has its end where that is found.
func (m *Machine) senseless(sa *ikeSA, why failure) {
	if sa.state != established && sa.state != replaced && sa.state != deleting {
		return
	}
	p := sa.peer
	m.event(sa, Event{Stage: StageDelete, Outcome: Done, Reason: why.Reason, Text: "without a Delete, which both ends know from INVALID_SYNTAX"})
	m.close(sa, why)
	m.startAgain(p)
}
