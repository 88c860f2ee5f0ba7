package ike

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/adit-ipsec/adit/ike/keys"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/packet"
)

// CREATE_CHILD_SA from this end, for a new pair or in the place of one
// (RFC 7296 1.3.1, 1.3.3):
//
//	HDR, SK {[N(REKEY_SA),] SA, Ni, [KEi,] TSi, TSr}  -->
//	                            <--  HDR, SK {SA, Nr, [KEr,] TSi, TSr}

// nonceLen is the length of our nonces in bytes. RFC 7296 2.10: "at least 128 bits
// in size, and MUST be at least half the key size of the negotiated pseudorandom
// function": 32 for PRF_HMAC_SHA2_512, the largest.
const nonceLen = 32

var errDone = errors.New("it is done already")

// createTask is the exchange.
type createTask struct {
	child  *Child
	flow   packet.Flow // of the packet that wants it; the zero value: not known
	rekeys *childSA    // nil: a new pair
	own    bool        // also where another IKE SA, which is to go, has one
	// method is the key exchange method that the peer wants; 0: our first.
	method proposal.KE
	wrong  int // INVALID_KE_PAYLOADs so far
	// rival is a pair of the same policy that the peer has asked for while our
	// request was on its way.
	rival *childSA
	// early: the peer need not have known the pair that is to be replaced when it was
	// first asked. Whatever it says of that, the same answer comes to every retry.
	early bool
	// cancelled: nobody wants it any more. What is made is closed.
	cancelled bool
	// gone are SPIs that the peer has deleted and nobody here knows, while our
	// request was on its way: the answer may be late that made them.
	gone []uint32

	trouble  backoff
	offer    *childOffer
	ni       []byte
	exchange keys.Exchange // nil: none
	sent     proposal.KE   // its method
}

// wantChild asks for a new pair on an established IKE SA, unless there is one or
// it is being made.
func (m *Machine) wantChild(sa *ikeSA, policy string) {
	m.wantChildFor(sa, policy, sa.peer.flows[policy])
}

// wantChildFor is wantChild with the packet that wants it.
func (m *Machine) wantChildFor(sa *ikeSA, policy string, flow packet.Flow) {
	child := sa.peer.child(policy)
	if child == nil || m.asking(sa, policy) {
		return
	}
	m.enqueue(sa, &createTask{child: child, flow: flow})
}

// asking tells whether a new pair of the policy is being asked for.
func (m *Machine) asking(sa *ikeSA, policy string) bool {
	is := func(t task) bool {
		c, ok := t.(*createTask)
		return ok && c.rekeys == nil && !c.cancelled && c.child.Policy == policy
	}
	for _, t := range sa.ours.queue {
		if is(t) {
			return true
		}
	}
	return is(sa.doing())
}

// cancelChildren has nothing come of the exchanges for a policy that wait, or are on
// their way.
func (m *Machine) cancelChildren(sa *ikeSA, policy string) {
	for _, t := range append([]task{sa.doing()}, sa.ours.queue...) {
		if c, ok := t.(*createTask); ok && c.child.Policy == policy {
			c.cancelled = true
		}
	}
}

// rekeyChild asks for a pair in the place of c, if this end may.
func (m *Machine) rekeyChild(sa *ikeSA, c *childSA) {
	if c.state != childUp || !sa.alive() || !sa.peer.Role.rekeys() {
		return
	}
	c.retry.stop()
	c.state = childRekeying
	m.enqueue(sa, &createTask{child: c.child, rekeys: c, trouble: c.trouble})
}

func (t *createTask) kind() wire.ExchangeType { return wire.CreateChildSA }

func (t *createTask) stage() Stage {
	if t.rekeys != nil {
		return StageRekeyChild
	}
	return StageChild
}

func (t *createTask) request(m *Machine, sa *ikeSA) ([]wire.Payload, error) {
	if t.overtaken(m, sa) {
		return nil, errDone
	}
	offer, err := m.newOffer(sa, t.child, t.flow, false)
	if err == nil {
		t.offer = offer
		if t.rekeys != nil {
			offer.ts = t.rekeys.first(offer.ts)
		}
		err = t.beginKE(m)
	}
	if err != nil {
		t.gaveUp(m, sa, failure{Reason: "configuration", Text: err.Error()})
		return nil, err
	}
	t.ni = m.random(nonceLen)
	var payloads []wire.Payload
	t.early = t.rekeys != nil && t.rekeys.unanswered()
	if t.rekeys != nil {
		// RFC 7296 1.3.3: "The SA being rekeyed is identified by the SPI field in the
		// Notify payload; this is the SPI the exchange initiator would expect in
		// inbound ESP or AH packets."
		spi := binary.BigEndian.AppendUint32(nil, t.rekeys.spiIn)
		payloads = append(payloads, &wire.Notify{Protocol: t.rekeys.protocol, SPI: spi, Kind: wire.NotifyRekeySA})
	}
	proposals, rest := offer.parts()
	payloads = append(payloads, proposals, &wire.Nonce{Data: t.ni})
	if t.exchange != nil {
		payloads = append(payloads, &wire.KE{Method: uint16(t.sent), Data: t.exchange.Public()})
	}
	return append(payloads, rest...), nil
}

// overtaken tells whether there is nothing to ask for any more.
func (t *createTask) overtaken(m *Machine, sa *ikeSA) bool {
	old := t.rekeys
	switch {
	case t.cancelled:
		return true
	case old == nil && t.own:
		i := slices.IndexFunc(sa.children, func(c *childSA) bool { return c.child.Policy == t.child.Policy && c.live() })
		if i < 0 {
			return false
		}
		m.wantsNoOther(sa.children[i], t.flow)
		return true
	case old == nil:
		c := m.liveChild(sa.peer, t.child.Policy, nil)
		if c == nil || c.sa.retiring {
			return false
		}
		m.wantsNoOther(c, t.flow)
		return true
	case old.state != childRekeying:
		return true
	case old.successor != nil:
		m.lingers(old, childReplaced) // the peer was first
		return true
	}
	return false
}

// wantsNoOther ends the wait for a pair that is there already. The packet that waits
// may be one that the peer has narrowed the pair to be without.
func (m *Machine) wantsNoOther(c *childSA, flow packet.Flow) {
	p, policy := c.sa.peer, c.child.Policy
	if !c.carries(flow) {
		m.count("acquire_outside_pair")
		m.refuse(p, policy, "the peer has narrowed the Child SA of the policy to "+c.ts.String())
	}
	delete(p.wanted, policy)
	delete(p.flows, policy)
}

// beginKE makes our half of the key exchange that the offer begins with.
func (t *createTask) beginKE(m *Machine) (err error) {
	t.discard()
	methods := t.child.Proposals[0].KEs()
	if t.method != 0 {
		methods = []proposal.KE{t.method}
	}
	if len(methods) == 0 || methods[0] == proposal.KENone {
		return nil
	}
	t.sent = methods[0]
	t.exchange, err = keys.Begin(t.sent, m.rand)
	return err
}

func (t *createTask) discard() {
	if t.exchange != nil {
		t.exchange.Discard()
		t.exchange, t.sent = nil, 0
	}
}

// response takes the peer's answer.
func (t *createTask) response(m *Machine, sa *ikeSA, payloads []wire.Payload) {
	if sa.state == deleting {
		// The pair that the peer has made goes with the IKE SA.
		t.failed(m, sa, failure{Reason: "deleted", Text: "the IKE SA is being deleted"})
		return
	}
	a, r, made := t.offer.accepted(sa, payloads)
	var secrets [][]byte
	if r == nil {
		if secrets, r = t.finishKE(a, payloads); r != nil {
			made = true
		}
	}
	if r == nil && !t.rekeys.stays(a.ts) {
		made = true
		r = &refusal{failure: failure{
			Reason: "bad_selectors", Text: "the peer narrows the traffic selectors of a pair that it rekeys (RFC 7296 2.9.2)",
			Theirs: a.ts.String(), Ours: t.rekeys.ts.String(),
		}}
	}
	t.discard()
	if r != nil {
		t.refused(m, sa, r, made)
		return
	}
	nr := wire.First[*wire.Nonce](payloads).Data
	k := childKeying{initiator: true, ni: t.ni, nr: nr, secrets: secrets}
	more := m.followUp(sa, a.choice, payloads, &followTask{
		of: t, secrets: secrets,
		done: func(all [][]byte) {
			k.secrets = all
			t.install(m, sa, a, k)
		},
		refused: func(r *refusal) { t.refused(m, sa, r, false) },
	})
	if !more {
		t.install(m, sa, a, k)
	}
}

// finishKE takes the peer's half of the key exchange, if there was one.
func (t *createTask) finishKE(a *agreement, payloads []wire.Payload) ([][]byte, *refusal) {
	if a.choice.KE() == proposal.KENone {
		return nil, nil
	}
	bad := func(text string) *refusal { return &refusal{failure: failure{Reason: "bad_key_exchange", Text: text}} }
	ke := wire.First[*wire.KE](payloads)
	switch {
	case ke == nil:
		return nil, bad("the peer's answer has no KE payload, but chose " + a.choice.KE().String())
	case t.exchange == nil || a.choice.KE() != t.sent || proposal.KE(ke.Method) != t.sent:
		return nil, bad(fmt.Sprintf("the peer's answer is for %s, but ours was %s", a.choice.KE(), t.sent))
	}
	secret, err := t.exchange.Finish(ke.Data)
	if err != nil {
		return nil, bad(err.Error())
	}
	return [][]byte{secret}, nil
}

// install makes the pair. The initiator may use both its halves at once: the
// responder has had its inbound one before it answered.
func (t *createTask) install(m *Machine, sa *ikeSA, a *agreement, k childKeying) {
	c, params, err := m.newChild(sa, a, t.offer.spi, k)
	wipeAll(k.secrets)
	if err != nil {
		t.refused(m, sa, &refusal{failure: failure{Reason: "parameters", Text: err.Error()}}, true)
		return
	}
	if slices.Contains(t.gone, c.spiOut) {
		wipeParams(params)
		t.refused(m, sa, &refusal{notify: wire.NotifyTemporaryFailure, failure: failure{
			Reason: "deleted_by_peer", Text: "the peer has deleted the pair before its answer was here",
		}}, false)
		return
	}
	lost := t.loses(c)
	use := params
	if lost {
		use = params[:1] // nothing is to be sent on it; what the peer sends arrives
	}
	m.install(use, nil, 0, func(err error) {
		wipeParams(params)
		if err != nil {
			t.refused(m, sa, &refusal{failure: failure{Reason: "install", Text: err.Error()}}, true)
			return
		}
		c.receives, c.sends = true, !lost
		sa.addChild(c)
		m.watchPairs(sa)
		if !lost && !t.cancelled {
			m.childMade(c, t.stage(), a)
		}
		t.settle(m, c, lost)
	})
}

func wipeAll(secrets [][]byte) {
	for _, s := range secrets {
		clear(s)
	}
}

// refused is an answer without a pair. made: the peer has one that this end cannot
// use, and is told to delete it.
func (t *createTask) refused(m *Machine, sa *ikeSA, r *refusal, made bool) {
	if made {
		m.disown(sa, t.child, t.offer)
	} else {
		m.freeChildSPI(t.offer.spi)
	}
	switch {
	case t.settledByPeer(m), t.cancelled:
		return
	case r.notify == wire.NotifyInvalidKEPayload && !made:
		t.otherKE(m, sa, r)
	case r.notify == wire.NotifyTemporaryFailure && !made:
		t.later(m, sa, r.failure)
	case r.notify == wire.NotifyChildSANotFound && t.rekeys != nil && !made:
		if t.early || t.rekeys.unanswered() {
			t.later(m, sa, r.failure)
			return
		}
		t.notFound(m, sa)
	default:
		t.gaveUp(m, sa, r.failure)
	}
}

// settledByPeer tells whether the peer has done what the task was for.
func (t *createTask) settledByPeer(m *Machine) bool {
	old := t.rekeys
	switch {
	case old == nil:
		return t.rival != nil && t.rival.live()
	case old.state != childRekeying:
		return true
	case old.successor != nil && old.successor.state != childGone:
		m.lingers(old, childReplaced)
		return true
	}
	return false
}

// otherKE asks again with the method that the peer wants. RFC 7296 1.3: "the initiator
// will probably retry the exchange with a Diffie-Hellman proposal and KEi in the group
// that the responder gave".
func (t *createTask) otherKE(m *Machine, sa *ikeSA, r *refusal) {
	var method proposal.KE
	if len(r.data) == 2 {
		method = proposal.KE(binary.BigEndian.Uint16(r.data))
	}
	if !offers(t.offer.offered, method) || t.wrong > 1 {
		r.Text = fmt.Sprintf("the peer wants key exchange %s, which was not offered, or again another", method)
		t.gaveUp(m, sa, r.failure)
		return
	}
	t.method = method
	t.wrong++
	m.enqueue(sa, t)
}

// offers tells whether one of the proposals has the method.
func offers(proposals []wire.Proposal, method proposal.KE) bool {
	for _, p := range proposals {
		for _, tr := range p.Transforms {
			if tr.Type == wire.KEX && proposal.KE(tr.ID) == method && method != proposal.KENone {
				return true
			}
		}
	}
	return false
}

// later tries again in a while. RFC 7296 2.25: "When a peer receives a
// TEMPORARY_FAILURE notification, it MUST NOT immediately retry the operation; it MUST
// wait so that the sender may complete whatever operation caused the temporary
// condition."
func (t *createTask) later(m *Machine, sa *ikeSA, why failure) {
	wait, ok := t.trouble.next(m)
	if !ok {
		m.outOfSync(sa, t.stage(), why)
		return
	}
	if old := t.rekeys; old != nil {
		old.state = childUp
		old.trouble = t.trouble
		old.retry = m.after(wait, func() { m.rekeyChild(old.sa, old) })
		return
	}
	m.again(sa.peer, t.child.Policy, wait, func(now *ikeSA) {
		if !m.asking(now, t.child.Policy) {
			m.enqueue(now, &createTask{child: t.child, flow: t.flow, trouble: t.trouble})
		}
	})
}

// notFound: RFC 7296 2.25: "A peer that receives a CHILD_SA_NOT_FOUND notification
// SHOULD silently delete the Child SA (if it still exists) and send a request to create
// a new Child SA from scratch (if the Child SA does not yet exist)."
func (t *createTask) notFound(m *Machine, sa *ikeSA) {
	m.dropChild(sa, t.rekeys, "child_sa_not_found", "the peer does not have it any more")
	if m.liveChild(sa.peer, t.child.Policy, nil) == nil {
		m.wantChild(sa, t.child.Policy)
	}
}

// unanswered tells whether the peer may not have our answer yet that made the pair:
// it has not asked for anything since. Then it cannot find it, but it will.
func (c *childSA) unanswered() bool {
	return c.askedBy != nil && c.askedBy == c.sa && c.sa.theirs.next == c.askedID+1
}

// gaveUp is the end of an exchange that came to nothing.
func (t *createTask) gaveUp(m *Machine, sa *ikeSA, why failure) {
	m.failedEvent(sa, t.stage(), why, func(e *Event) {
		e.Policy, e.Initiator = t.child.Policy, true
		if t.rekeys != nil {
			e.SPIIn, e.SPIOut = t.rekeys.spiIn, t.rekeys.spiOut
		}
	})
	old := t.rekeys
	if old == nil {
		m.refuse(sa.peer, t.child.Policy, why.String())
		return
	}
	if old.state != childRekeying {
		return
	}
	// The old pair goes on until its hard lifetime; until then another try may
	// do better.
	old.state = childUp
	wait, _ := old.trouble.next(m)
	old.retry = m.after(wait, func() { m.rekeyChild(old.sa, old) })
	if why.Reason == "no_additional_sas" && sa.peer.Role.initiates() && !sa.peer.connecting() {
		// RFC 7296 1.3: a responder that will have no more SAs on this IKE SA. A
		// new IKE SA has new Child SAs.
		m.reauthenticate(sa)
	}
}

// failed is the end of the IKE SA: the pair's own end comes with it.
func (t *createTask) failed(m *Machine, sa *ikeSA, why failure) {
	t.discard()
	if t.offer != nil {
		m.freeChildSPI(t.offer.spi)
	}
	if t.rekeys != nil && t.rekeys.state == childRekeying {
		t.rekeys.state = childUp
	}
	if t.rekeys == nil {
		m.refuse(sa.peer, t.child.Policy, why.String())
	}
}

// disown tells the peer to delete what it has made and this end cannot use.
func (m *Machine) disown(sa *ikeSA, child *Child, o *childOffer) {
	c := &childSA{child: child, sa: sa, protocol: o.offered[0].Protocol, spiIn: o.spi}
	if sa.peer.Role == Passive {
		m.freeChildSPI(o.spi)
		return
	}
	sa.children = append(sa.children, c) // it is no answer to what is wanted
	m.closeChild(c, "", "")
}

// outOfSync closes an IKE SA whose two ends do not agree any more.
func (m *Machine) outOfSync(sa *ikeSA, stage Stage, why failure) {
	why.Text += ", for minutes: the two ends are out of step"
	m.failedEvent(sa, stage, why, nil)
	m.deleteIKE(sa, why.Reason)
	m.startAgain(sa.peer)
}
