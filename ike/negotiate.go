package ike

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// What two ends agree on for a pair of Child SAs: the same in IKE_AUTH and in
// CREATE_CHILD_SA.

// childOffer is what this end has asked for.
type childOffer struct {
	child     *Child
	spi       uint32
	offered   []wire.Proposal
	ts        tsPair
	transport bool
}

// refusal is why there is no pair: what the peer is told, and what the log says.
type refusal struct {
	notify   wire.NotifyType
	protocol wire.ProtocolID // of spi
	spi      []byte          // of the SA that it is about, in CHILD_SA_NOT_FOUND
	data     []byte
	failure
}

func (r *refusal) payload() wire.Payload {
	return &wire.Notify{Kind: r.notify, Protocol: r.protocol, SPI: r.spi, Data: r.data}
}

// newOffer makes an offer for a policy. bare: without key exchanges, as in
// IKE_AUTH. flow is the packet that it is for; the zero value: not known.
func (m *Machine) newOffer(sa *ikeSA, c *Child, flow packet.Flow, bare bool) (*childOffer, error) {
	ts, err := offerTS(c.Selectors, flow)
	if err != nil {
		return nil, err
	}
	if len(c.Proposals) == 0 {
		return nil, fmt.Errorf("policy %s has no proposals", c.Policy)
	}
	o := &childOffer{child: c, ts: ts, transport: c.Mode == sad.TransportMode}
	if o.transport {
		// RFC 7296 2.23.1: "The TSi entries MUST have exactly one IP address, and
		// that MUST match the source address of the IKE SA. The TSr entries MUST
		// have exactly one IP address, and that MUST match the destination
		// address of the IKE SA."
		if o.ts = atAddresses(ts, sa.path); !matching(o.ts) {
			return nil, fmt.Errorf("transport mode between %s and %s: the policy has not both addresses", sa.path.local.Addr(), sa.path.remote.Addr())
		}
	}
	proposals := childProposals(c, bare)
	o.spi = m.newChildSPI()
	o.offered = proposal.Offer(proposals, binary.BigEndian.AppendUint32(nil, o.spi))
	return o, nil
}

// childProposals are those of a policy: bare in IKE_AUTH.
func childProposals(c *Child, bare bool) []proposal.Proposal {
	if bare {
		return proposal.WithoutKEs(c.Proposals)
	}
	return c.Proposals
}

// atAddresses is the part of ts that the two ends of a path may say.
func atAddresses(ts tsPair, p path) tsPair {
	local, remote := p.local.Addr().Unmap(), p.remote.Addr().Unmap()
	if !local.IsValid() || !remote.IsValid() {
		return tsPair{}
	}
	one := func(a netip.Addr) []wire.Selector { return []wire.Selector{{From: a, To: a, ToPort: 65535}} }
	return tsPair{meetLists(ts.local, one(local)), meetLists(ts.remote, one(remote))}
}

// parts are the payloads of the offer: SA, and what comes behind nonces and keys.
func (o *childOffer) parts() (*wire.SA, []wire.Payload) {
	rest := []wire.Payload{&wire.TS{Selectors: o.ts.local}, &wire.TS{Responder: true, Selectors: o.ts.remote}}
	if o.transport {
		rest = append(rest, &wire.Notify{Kind: wire.NotifyUseTransportMode})
	}
	return &wire.SA{Proposals: o.offered}, rest
}

// refusedBy is the error that the peer has answered; nil: none.
func refusedBy(payloads []wire.Payload, ours string) *refusal {
	for _, n := range wire.All[*wire.Notify](payloads) {
		if !n.Kind.IsError() {
			continue
		}
		r := &refusal{notify: n.Kind, data: n.Data, failure: failure{
			Reason: notifyReason(n.Kind), Text: fmt.Sprintf("the peer answers %s", n.Kind), Ours: ours,
		}}
		switch n.Kind {
		case wire.NotifyNoProposalChosen:
			r.Fix = "make the proposals of both ends meet: the peer's log says which it has"
		case wire.NotifyTSUnacceptable:
			r.Fix = "make local and remote of the policy the mirror of the peer's"
		case wire.NotifySinglePairRequired:
			r.Fix = "make a policy for each pair of addresses: the peer takes no ranges (RFC 7296 2.9)"
		}
		return r
	}
	return nil
}

// accepted reads the peer's answer to an offer. If there is none to be had although
// the peer has made its SAs, made is true: they are to be deleted.
func (o *childOffer) accepted(sa *ikeSA, payloads []wire.Payload) (a *agreement, r *refusal, made bool) {
	answer := wire.First[*wire.SA](payloads)
	if answer == nil {
		if r = refusedBy(payloads, o.ts.String()); r == nil {
			r = &refusal{failure: failure{Reason: "no_child_sa", Text: "the peer's answer has no Child SA, and no reason"}}
		}
		if r.notify == wire.NotifyNoProposalChosen {
			r.Ours = offerText(o.offered)
		}
		return nil, r, false
	}
	bad := func(reason, text, theirs, ours string) (*agreement, *refusal, bool) {
		return nil, &refusal{notify: wire.NotifyInvalidSyntax, failure: failure{Reason: reason, Text: text, Theirs: theirs, Ours: ours}}, true
	}
	choice, err := proposal.Accept(o.offered, answer.Proposals[0])
	if err != nil {
		return bad("bad_proposal", err.Error(), "", offerText(o.offered))
	}
	a = &agreement{child: o.child, choice: choice, noTFC: wire.FindNotify(payloads, wire.NotifyESPTFCPaddingNotSupported) != nil}
	tsi, tsr := wire.FindTS(payloads, false), wire.FindTS(payloads, true)
	if tsi == nil || tsr == nil {
		return bad("bad_selectors", "the peer's answer has no traffic selectors", "", o.ts.String())
	}
	a.ts = tsPair{tsi.Selectors, tsr.Selectors}
	a.transport = o.transport && wire.FindNotify(payloads, wire.NotifyUseTransportMode) != nil
	if a.transport {
		a.ts = a.substituted(sa)
	}
	if o.transport && !a.transport {
		// RFC 7296 1.3.1: "If the responder declines the request, the Child SA
		// will be established in tunnel mode. If this is unacceptable to the
		// initiator, the initiator MUST delete the SA."
		return bad("mode", "the peer declines transport mode", "tunnel", "transport")
	}
	// RFC 7296 2.9: the responder chooses a subset.
	if !tsWithin(a.ts, o.ts) {
		return bad("bad_selectors", "the peer's traffic selectors are not within what was asked for", a.ts.String(), o.ts.String())
	}
	a.more = wire.FindNotify(payloads, wire.NotifyAdditionalTSPossible) != nil
	return a, nil, false
}

func offerText(offered []wire.Proposal) string {
	var all []string
	for _, p := range offered {
		all = append(all, proposal.Proposal{Protocol: p.Protocol, Transforms: p.Transforms}.String())
	}
	return strings.Join(all, ", ")
}

// substituted puts the addresses of the IKE SA in the place of those that NATs have
// changed, and keeps the originals. RFC 7296 2.23.1, for the initiator: "Store the
// original Traffic Selectors as the received source and destination address"; "If the
// server is behind a NAT, substitute the IP address in the TSr entries with the remote
// address of the IKE SA. If the client is behind a NAT, substitute the IP address in
// the TSi entries with the local address of the IKE SA"; and the same the other way
// round for the responder. Seen from this end both are one: behind a NAT of our own our
// address, behind one of the peer's the peer's.
func (a *agreement) substituted(sa *ikeSA) tsPair {
	local, lok := oneAddress(a.ts.local)
	remote, rok := oneAddress(a.ts.remote)
	if !lok || !rok || !sa.behindNAT && !sa.peerBehindNAT {
		return a.ts
	}
	a.originalLocal, a.originalRemote = local, remote
	ts := a.ts
	if sa.behindNAT {
		ts.local = withAddress(ts.local, sa.path.local.Addr().Unmap())
	}
	if sa.peerBehindNAT {
		ts.remote = withAddress(ts.remote, sa.path.remote.Addr().Unmap())
	}
	return ts
}

// oneAddress is the one address of all of the list; false if there are more.
func oneAddress(list []wire.Selector) (netip.Addr, bool) {
	for _, s := range list {
		if s.From != s.To || s.From != list[0].From || !s.From.IsValid() {
			return netip.Addr{}, false
		}
	}
	return list[0].From, true
}

func withAddress(list []wire.Selector, a netip.Addr) []wire.Selector {
	list = slices.Clone(list)
	for i := range list {
		list[i].From, list[i].To = a, a
	}
	return list
}

// candidate is a policy that has something of what the peer asks for.
type candidate struct {
	agreement
	asked tsPair
	rank  int
}

// agree is the responder's choice for a request with SA, TSi and TSr: of the peer's
// policies the one that fits best. old is the pair that is rekeyed: only its policy
// fits; nil: there is none.
func (m *Machine) agree(sa *ikeSA, payloads []wire.Payload, old *childSA, bare bool) (*agreement, *refusal) {
	ask := &agreement{
		ts:        tsPair{local: wire.FindTS(payloads, true).Selectors, remote: wire.FindTS(payloads, false).Selectors},
		transport: wire.FindNotify(payloads, wire.NotifyUseTransportMode) != nil,
		noTFC:     wire.FindNotify(payloads, wire.NotifyESPTFCPaddingNotSupported) != nil,
	}
	candidates := m.candidates(sa, ask, old)
	if len(candidates) == 0 {
		return nil, &refusal{notify: wire.NotifyTSUnacceptable, failure: failure{
			Reason: "ts_unacceptable", Text: "no policy has any of the peer's traffic selectors",
			Theirs: ask.ts.String(), Ours: policiesText(sa.peer), Fix: "make local and remote of a policy the mirror of the peer's",
		}}
	}
	theirs := wire.First[*wire.SA](payloads).Proposals
	var why error
	for _, c := range candidates {
		var err error
		if c.choice, err = proposal.Choose(childProposals(c.child, bare), theirs); err == nil {
			return &c.agreement, nil
		}
		if why == nil {
			why = err
		}
	}
	r := &refusal{notify: wire.NotifyNoProposalChosen, failure: failure{Reason: "no_proposal_chosen", Text: why.Error()}}
	var mismatch *proposal.Mismatch
	if errors.As(why, &mismatch) {
		r.Text, r.Theirs, r.Ours, r.Fix = "no proposal of the peer's is acceptable", mismatch.Theirs, mismatch.Ours, mismatch.Nearest
	}
	return nil, r
}

// candidates are the policies that fit, the best first.
func (m *Machine) candidates(sa *ikeSA, ask *agreement, old *childSA) []candidate {
	var all []candidate
	for i := range sa.peer.Children {
		child := &sa.peer.Children[i]
		if old != nil && child.Policy != old.child.Policy {
			continue
		}
		c := candidate{agreement: *ask}
		c.child = child
		if child.Mode == sad.TransportMode {
			if !ask.transport {
				continue // nothing but transport mode will do for it
			}
			c.ts = atAddresses(c.substituted(sa), sa.path)
		} else {
			c.transport = false // "if the responder declines, the Child SA will be established in tunnel mode"
		}
		if old != nil {
			c.ts = old.first(c.ts)
		}
		theirs := c.ts
		var ok bool
		if c.ts, c.more, ok = narrowTS(child.Selectors, theirs); !ok || !old.stays(c.ts) {
			continue
		}
		c.asked = theirs
		all = append(all, c)
	}
	if len(all) > 1 {
		for i := range all {
			all[i].rank = rankOf(all[i].child.Selectors, all[i].ts, all[i].asked)
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return b.rank - a.rank })
	return all
}

// first is ts with what the pair has in front, which a responder then keeps
// (RFC 7296 2.9).
func (c *childSA) first(ts tsPair) tsPair {
	if c.transport || !tsWithin(c.ts, ts) {
		return ts
	}
	return tsPair{prepend(c.ts.local[0], ts.local), prepend(c.ts.remote[0], ts.remote)}
}

// stays tells whether a rekey leaves the pair all that it has. RFC 7296 2.9.2: "The
// responder MUST NOT narrow down the Traffic Selectors narrower than the scope
// currently in use." In transport mode they follow the addresses of the IKE SA.
func (c *childSA) stays(ts tsPair) bool { return c == nil || c.transport || tsWithin(c.ts, ts) }

// carries tells whether the pair takes a packet; one that is not known it does.
func (c *childSA) carries(f packet.Flow) bool {
	if f.Version == 0 {
		return true
	}
	local, remote := flowTS(&f, c.ts)
	return tsCovers(c.ts.local, local) && tsCovers(c.ts.remote, remote)
}

// rankOf says how well a policy fits: it has the packet that was first, it has all
// that is asked for, and none that is not.
func rankOf(policy []spd.Selector, agreed, theirs tsPair) (rank int) {
	if hasFirst(agreed, theirs) {
		rank += 4
	}
	if tsWithin(theirs, agreed) {
		rank += 2
	}
	if whole, err := policyTS(policy); err == nil && tsWithin(whole, agreed) {
		rank++
	}
	return rank
}

func policiesText(p *peer) string {
	var all []string
	for i := range p.Children {
		c := &p.Children[i]
		text := c.Policy + ": "
		if ts, err := policyTS(c.Selectors); err == nil {
			text += ts.String()
		}
		all = append(all, text)
	}
	return strings.Join(all, "; ")
}

// answerParts are the payloads of the responder's answer, as parts.
func (a *agreement) answerParts(spi uint32) (*wire.SA, []wire.Payload) {
	p := a.choice.Wire()
	p.SPI = binary.BigEndian.AppendUint32(nil, spi)
	rest := []wire.Payload{&wire.TS{Selectors: a.ts.remote}, &wire.TS{Responder: true, Selectors: a.ts.local}}
	if a.transport {
		rest = append(rest, &wire.Notify{Kind: wire.NotifyUseTransportMode})
	}
	if a.more {
		rest = append(rest, &wire.Notify{Kind: wire.NotifyAdditionalTSPossible})
	}
	return &wire.SA{Proposals: []wire.Proposal{p}}, rest
}

// offerChild makes the offer of the first Child SA, for IKE_AUTH.
func (m *Machine) offerChild(sa *ikeSA, c *Child) (*childOffer, []wire.Payload, error) {
	o, err := m.newOffer(sa, c, sa.peer.flows[c.Policy], true)
	if err != nil {
		return nil, nil, err
	}
	proposals, rest := o.parts()
	return o, append([]wire.Payload{proposals}, rest...), nil
}

// accept takes the answer of IKE_AUTH. done gets why there is no pair, of which the
// event and the Refuse are given already.
func (o *childOffer) accept(m *Machine, sa *ikeSA, payloads []wire.Payload, done func(*failure)) {
	t := &createTask{child: o.child, offer: o}
	fail := func(r *refusal, made bool) {
		t.refused(m, sa, r, made)
		done(&r.failure)
	}
	a, r, made := o.accepted(sa, payloads)
	if r != nil {
		fail(r, made)
		return
	}
	k := childKeying{initiator: true, ni: sa.ni, nr: sa.nr}
	c, params, err := m.newChild(sa, a, o.spi, k)
	if err != nil {
		fail(&refusal{failure: failure{Reason: "parameters", Text: err.Error()}}, true)
		return
	}
	m.install(params, nil, 0, func(err error) {
		wipeParams(params)
		if err != nil {
			fail(&refusal{failure: failure{Reason: "install", Text: err.Error()}}, true)
			return
		}
		c.receives, c.sends = true, true
		sa.addChild(c)
		m.childMade(c, StageChild, a)
		done(nil)
	})
}

// abandon gives back what the offer has taken: IKE_AUTH has come to nothing.
func (o *childOffer) abandon(m *Machine, _ *ikeSA, _ failure) { m.freeChildSPI(o.spi) }

// noteFlow keeps the packet that a policy is wanted for.
func (p *peer) noteFlow(policy string, flow packet.Flow) {
	if p.flows == nil {
		p.flows = map[string]packet.Flow{}
	}
	p.flows[policy] = flow
}
