package ike

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/adit-ipsec/adit/ike/keys"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
)

// Additional key exchanges behind CREATE_CHILD_SA (RFC 9370 2.2.4):
//
//	HDR(CREATE_CHILD_SA), SK {SA, Ni, KEi, ...} -->
//	        <-- HDR(CREATE_CHILD_SA), SK {SA, Nr, KEr, ..., N(ADDITIONAL_KEY_EXCHANGE)(link1)}
//	HDR(IKE_FOLLOWUP_KE), SK {KEi(1), N(ADDITIONAL_KEY_EXCHANGE)(link1)} -->
//	        <-- HDR(IKE_FOLLOWUP_KE), SK {KEr(1), N(ADDITIONAL_KEY_EXCHANGE)(link2)}
//	...
//	        <-- HDR(IKE_FOLLOWUP_KE), SK {KEr(n)}
//
// Only the last answer makes the SAs. The link says which of several such exchanges
// a message goes on with.

// followTask is one IKE_FOLLOWUP_KE from this end, and those behind it.
type followTask struct {
	of       task // what began it
	link     []byte
	methods  []proposal.KE // to come; the first is that of exchange
	secrets  [][]byte
	exchange keys.Exchange
	done     func(secrets [][]byte)
	refused  func(r *refusal)
}

// followUp goes on with the additional key exchanges of a choice; false: there are
// none.
func (m *Machine) followUp(sa *ikeSA, choice proposal.Choice, payloads []wire.Payload, f *followTask) bool {
	f.methods = choice.AKEs()
	if len(f.methods) == 0 {
		return false
	}
	if !f.linked(payloads) {
		f.end(&refusal{failure: failure{Reason: "bad_answer", Text: "the peer chose additional key exchanges and says not how to go on"}})
		return true
	}
	m.enqueueFirst(sa, f)
	return true
}

// linked takes the link of an answer.
func (f *followTask) linked(payloads []wire.Payload) bool {
	n := wire.FindNotify(payloads, wire.NotifyAdditionalKeyExchange)
	if n != nil {
		f.link = bytes.Clone(n.Data)
	}
	return n != nil
}

// enqueueFirst has a task be the next one.
func (m *Machine) enqueueFirst(sa *ikeSA, t task) {
	sa.ours.queue = slices.Insert(sa.ours.queue, 0, t)
	m.pump(sa)
}

func (*followTask) kind() wire.ExchangeType { return wire.IKEFollowupKE }

func (f *followTask) request(m *Machine, sa *ikeSA) ([]wire.Payload, error) {
	x, err := keys.Begin(f.methods[0], m.rand)
	if err != nil {
		f.end(&refusal{failure: failure{Reason: "configuration", Text: err.Error()}})
		return nil, err
	}
	f.exchange = x
	return []wire.Payload{
		&wire.KE{Method: uint16(f.methods[0]), Data: x.Public()},
		&wire.Notify{Kind: wire.NotifyAdditionalKeyExchange, Data: f.link},
	}, nil
}

func (f *followTask) response(m *Machine, sa *ikeSA, payloads []wire.Payload) {
	if err := f.finish(payloads); err != nil {
		r := refusedBy(payloads, "")
		if r == nil {
			r = &refusal{failure: failure{Reason: "bad_key_exchange", Text: err.Error()}}
		}
		f.end(r)
		m.countLost(sa, r)
		return
	}
	sa.linksLost = 0
	f.methods = f.methods[1:]
	switch {
	case len(f.methods) == 0:
		f.done(f.secrets)
	case !f.linked(payloads):
		f.end(&refusal{failure: failure{Reason: "bad_answer", Text: "the peer says not how to go on with the additional key exchanges"}})
	default:
		m.enqueueFirst(sa, f)
	}
}

// maxLinksLost is how often in a row the peer may have forgotten an exchange of ours.
const maxLinksLost = 3

// countLost ends an IKE SA on which no IKE_FOLLOWUP_KE succeeds. RFC 9370 2.2.4 has the
// initiator try anew after STATE_NOT_FOUND, and delete the IKE SA when that is the
// answer again after several tries.
func (m *Machine) countLost(sa *ikeSA, r *refusal) {
	if r.notify != wire.NotifyStateNotFound {
		return
	}
	if sa.linksLost++; sa.linksLost >= maxLinksLost && sa.state == established {
		r.Text += ", again and again"
		m.failedEvent(sa, StageMessage, r.failure, nil)
		m.deleteIKE(sa, r.Reason)
		m.startAgain(sa.peer)
	}
}

// finish takes the peer's half.
func (f *followTask) finish(payloads []wire.Payload) error {
	defer f.exchange.Discard()
	ke := wire.First[*wire.KE](payloads)
	if ke == nil || proposal.KE(ke.Method) != f.methods[0] {
		return fmt.Errorf("the peer's answer has no KE payload of %s", f.methods[0])
	}
	secret, err := f.exchange.Finish(ke.Data)
	if err != nil {
		return err
	}
	f.secrets = append(f.secrets, secret)
	return nil
}

func (f *followTask) end(r *refusal) {
	wipeAll(f.secrets)
	f.refused(r)
}

func (f *followTask) failed(m *Machine, sa *ikeSA, why failure) {
	if f.exchange != nil {
		f.exchange.Discard()
	}
	wipeAll(f.secrets)
	f.of.failed(m, sa, why)
}

// doing is our exchange that is on its way: a follow-up is part of what began it.
func (sa *ikeSA) doing() task {
	if f, ok := sa.ours.task.(*followTask); ok {
		return f.of
	}
	return sa.ours.task
}

// expected is an IKE_FOLLOWUP_KE that the peer is to send.
type expected struct {
	link    []byte
	methods []proposal.KE // to come
	secrets [][]byte
	timer   *timer
	// done makes the SAs; ke is the last answer's.
	done func(secrets [][]byte, ke *wire.KE, answer func(...wire.Payload))
	drop func() // gives back what the exchange has taken
}

// maxExpected bounds how many exchanges of the peer's may be unfinished on one IKE
// SA.
const maxExpected = 4

var errManyExpected = errors.New("too many exchanges of the peer's are unfinished")

// expect waits for the additional key exchanges of a choice, and gives the link.
func (m *Machine) expect(sa *ikeSA, e *expected) (*wire.Notify, error) {
	if len(sa.expected) >= maxExpected {
		wipeAll(e.secrets)
		return nil, errManyExpected
	}
	sa.expected = append(sa.expected, e)
	e.timer = m.after(m.timing.HalfOpen, func() { sa.giveUp(e) })
	return m.nextLink(e), nil
}

func (m *Machine) nextLink(e *expected) *wire.Notify {
	e.link = m.random(8)
	return &wire.Notify{Kind: wire.NotifyAdditionalKeyExchange, Data: e.link}
}

func (sa *ikeSA) unexpect(e *expected) {
	e.timer.stop()
	sa.expected = slices.DeleteFunc(sa.expected, func(x *expected) bool { return x == e })
}

// giveUp is the end of one that comes to nothing.
func (sa *ikeSA) giveUp(e *expected) {
	sa.unexpect(e)
	wipeAll(e.secrets)
	e.drop()
}

// followupRequest takes IKE_FOLLOWUP_KE.
func followupRequest(m *Machine, sa *ikeSA, payloads []wire.Payload, answer func(...wire.Payload)) {
	n, ke := wire.FindNotify(payloads, wire.NotifyAdditionalKeyExchange), wire.First[*wire.KE](payloads)
	i := slices.IndexFunc(sa.expected, func(e *expected) bool { return n != nil && slices.Equal(e.link, n.Data) })
	if i < 0 {
		// RFC 9370 2.2.4: a responder that has no state for an IKE_FOLLOWUP_KE to go on
		// with must answer STATE_NOT_FOUND.
		answer(&wire.Notify{Kind: wire.NotifyStateNotFound})
		return
	}
	e := sa.expected[i]
	public, secret, err := keys.Respond(e.methods[0], m.rand, ke.Data)
	if proposal.KE(ke.Method) != e.methods[0] || err != nil {
		sa.giveUp(e)
		answer(&wire.Notify{Kind: wire.NotifyInvalidSyntax})
		m.failedEvent(sa, StageChild, failure{Reason: "bad_key_exchange", Text: fmt.Sprintf("the peer's additional key exchange is not %s, or %v", e.methods[0], err)}, nil)
		return
	}
	out := &wire.KE{Method: ke.Method, Data: public}
	e.secrets = append(e.secrets, secret)
	if e.methods = e.methods[1:]; len(e.methods) > 0 {
		answer(out, m.nextLink(e))
		return
	}
	sa.unexpect(e)
	e.done(e.secrets, out, answer)
}
