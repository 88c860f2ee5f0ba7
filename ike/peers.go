package ike

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/internal/packet"
)

// What the operator and the dataplane ask for: peers are set, initiated to, asked
// for SAs, and terminated.

// Equal tells whether two peers are configured the same, but for what is known of
// revoked certificates, which may change without a negotiation.
func (p *Peer) Equal(q *Peer) bool {
	return sameSigner(p.Auth.Signer, q.Auth.Signer) &&
		slices.EqualFunc(p.Auth.Chain, q.Auth.Chain, sameCertificate) &&
		slices.EqualFunc(p.Remotely.Trust, q.Remotely.Trust, sameCertificate) &&
		slices.EqualFunc(p.Remotely.Keys, q.Remotely.Keys, samePublic) &&
		reflect.DeepEqual(p.plain(), q.plain())
}

// plain is p without what has an equality of its own.
func (p *Peer) plain() Peer {
	c := *p
	c.Auth.Signer, c.Auth.Chain = nil, nil
	c.Remotely.Trust, c.Remotely.Keys, c.Remotely.Revocation = nil, nil, auth.Revocation{}
	return c
}

func sameSigner(a, b crypto.Signer) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return samePublic(a.Public(), b.Public())
}

func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(x crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

func sameCertificate(a, b *x509.Certificate) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Equal(b)
}

// check tells what a machine could not do with a peer.
func (p *Peer) check() error {
	switch {
	case p.Name == "":
		return fmt.Errorf("a peer without a name")
	case len(p.Proposals) == 0:
		return fmt.Errorf("peer %q has no IKE proposals", p.Name)
	case p.Start == AtOnce && p.Role.initiates() && !p.Remote.IsValid():
		return fmt.Errorf("peer %q is to be initiated to and has no address", p.Name)
	}
	seen := map[string]bool{}
	for i := range p.Children {
		c := &p.Children[i]
		if seen[c.Policy] {
			return fmt.Errorf("peer %q has the policy %q twice", p.Name, c.Policy)
		}
		seen[c.Policy] = true
	}
	return nil
}

// configure sets the peers anew: those that are the same keep their SAs, the
// others lose them. An error changes nothing.
func (m *Machine) configure(peers []Peer) error {
	fresh := make(map[string]*Peer, len(peers))
	for i := range peers {
		p := peers[i]
		if err := p.check(); err != nil {
			return err
		}
		if fresh[p.Name] != nil {
			return fmt.Errorf("two peers are called %q", p.Name)
		}
		fresh[p.Name] = &p
	}
	for _, name := range m.names {
		if old := m.peers[name]; fresh[name] == nil || !fresh[name].Equal(old.Peer) {
			m.end(old, "configuration")
			delete(m.peers, name)
		}
	}
	m.names = nil
	for i := range peers {
		name := peers[i].Name
		m.names = append(m.names, name)
		if old := m.peers[name]; old != nil {
			old.Peer = fresh[name]
			m.endRevoked(old)
		} else {
			p := &peer{Peer: fresh[name], wanted: map[string]bool{}}
			m.peers[name] = p
			m.startAgain(p)
		}
	}
	old := m.origins
	m.origins = newOrigins(m.names, m.peers)
	m.origins.keep(&old)
	return nil
}

// mayConnect tells why this end cannot initiate to a peer; nil: it can.
func (m *Machine) mayConnect(p *peer) *failure {
	var why failure
	switch {
	case m.stopping:
		why = failure{Reason: "terminated", Text: "this end is stopping"}
	case !p.Role.initiates():
		why = responderOnly(p)
	case !p.Remote.IsValid():
		why = failure{Reason: "no_address", Text: "the peer has no address to initiate to", Fix: "configure one, or have the peer initiate"}
	case len(m.sas) >= m.limits.MaxSAs:
		why = failure{Reason: "too_many_sas", Text: "there are as many IKE SAs as there may be"}
	default:
		return nil
	}
	return &why
}

// mayBegin tells why this end cannot have an SA made with a peer; nil: it can.
func (m *Machine) mayBegin(p *peer) *failure {
	if p.current() != nil && p.Role.initiates() {
		return nil // the IKE SA is there: no address is needed, and no other IKE SA
	}
	return m.mayConnect(p)
}

// connecting tells whether an IKE SA of ours with the peer is being made.
func (p *peer) connecting() bool {
	return slices.ContainsFunc(p.sas, func(sa *ikeSA) bool { return sa.state == starting || sa.state == proving })
}

// acquire is a packet that wants an SA.
func (m *Machine) acquire(in Acquire) {
	p := m.peers[in.Peer]
	if p == nil || p.child(in.Policy) == nil {
		// Nothing is refused: the dataplane may have a new policy before Configure is
		// here, and the packet that waits asks again.
		m.count("acquire_unknown")
		return
	}
	if p.wanted[in.Policy] && m.making(p, in.Policy) {
		return
	}
	if p.carries(in.Policy, in.Flow) {
		m.count("acquire_late") // it was made while the packet's word was on its way
		return
	}
	if why := m.mayBegin(p); why != nil {
		m.count("acquire_" + why.Reason)
		m.do(Refuse{Peer: in.Peer, Policy: in.Policy, Why: why.String()})
		return
	}
	if p.current() == nil && !p.connecting() && m.now < p.notAgain {
		m.count("acquire_too_soon")
		m.do(Refuse{Peer: in.Peer, Policy: in.Policy, Why: "the last negotiation has failed: the next is in " + (p.notAgain - m.now).Round(time.Millisecond).String()})
		return
	}
	p.noteFlow(in.Policy, in.Flow)
	m.want(p, in.Policy)
}

// making tells whether a Child SA of the policy is being made, or an IKE SA which comes
// first, or is to be asked for again in a while. What waits for nothing is lost: then
// the next packet begins anew.
func (m *Machine) making(p *peer, policy string) bool {
	return p.connecting() || p.again[policy] != nil ||
		slices.ContainsFunc(p.sas, func(sa *ikeSA) bool { return m.asking(sa, policy) })
}

// carries tells whether a Child SA of the policy that is in use would take the packet;
// a flow that is not known is taken by any.
func (p *peer) carries(policy string, flow packet.Flow) bool {
	for _, sa := range p.sas {
		for _, c := range sa.children {
			if c.child.Policy != policy || !c.sends || !c.live() {
				continue
			}
			if flow.Version == 0 {
				return true
			}
			if selectors, err := saSelectors(c.ts); err == nil && matchesAny(selectors, &flow) {
				return true
			}
		}
	}
	return false
}

// want has an SA made for a policy, with an IKE SA if there is none.
func (m *Machine) want(p *peer, policy string) {
	if m.useWaiting(p, policy) {
		return
	}
	p.wanted[policy] = true
	p.halted = false
	if sa := p.current(); sa != nil {
		m.wantChild(sa, policy)
		return
	}
	if !p.connecting() {
		p.retry.stop()
		p.retry = nil
		m.connect(p, nil)
	}
}

// wantMore asks for what else waits, once an IKE SA is up, but for one policy.
func (m *Machine) wantMore(sa *ikeSA, except string) {
	for i := range sa.peer.Children {
		if policy := sa.peer.Children[i].Policy; policy != except && sa.peer.wanted[policy] && !sa.has(policy) {
			m.wantChild(sa, policy)
		}
	}
}

// has tells whether the SA has a Child SA for a policy.
func (sa *ikeSA) has(policy string) bool {
	return slices.ContainsFunc(sa.children, func(c *childSA) bool { return c.child.Policy == policy })
}

// initiate is the operator's word.
func (m *Machine) initiate(in Initiate) {
	p := m.peers[in.Peer]
	if p == nil {
		m.emit(failure{Reason: "no_such_peer", Text: "no such peer: " + in.Peer}.event(StageConfigure))
		return
	}
	if why := m.mayBegin(p); why != nil {
		e := why.event(StageInit)
		e.Peer, e.Initiator = p.Name, true
		m.emit(e)
		return
	}
	m.wantAll(p, in.Policy)
}

// wantAll has an SA made for each policy that has none, or for one of them.
func (m *Machine) wantAll(p *peer, only string) {
	p.halted = false
	sa := p.current()
	any := false
	for i := range p.Children {
		policy := p.Children[i].Policy
		if only != "" && only != policy || p.wanted[policy] || sa != nil && sa.has(policy) {
			continue
		}
		any = true
		p.wanted[policy] = true
		if sa != nil {
			m.wantChild(sa, policy)
		}
	}
	if sa == nil && !p.connecting() && (any || only == "") {
		p.retry.stop()
		p.retry = nil
		m.connect(p, nil)
	}
}

// rekey is the operator's word. A Role that never rekeys does not for it either.
func (m *Machine) rekey(in Rekey) {
	p := m.peers[in.Peer]
	if p == nil {
		return
	}
	sa := p.current()
	if sa == nil {
		return
	}
	if in.Policy == "" {
		m.rekeyIKE(sa)
		return
	}
	for _, c := range slices.Clone(sa.children) {
		if in.Policy == "*" || in.Policy == c.child.Policy {
			m.rekeyChild(sa, c)
		}
	}
}

// terminate is the operator's word.
func (m *Machine) terminate(in Terminate) {
	for _, name := range m.names {
		if in.Peer != "" && in.Peer != name {
			continue
		}
		p := m.peers[name]
		if in.Policy == "" {
			m.end(p, "terminated")
			continue
		}
		m.refuse(p, in.Policy, "terminated")
		p.notAgainFor(in.Policy)
		for _, sa := range slices.Clone(p.sas) {
			m.cancelChildren(sa, in.Policy)
			for _, c := range slices.Clone(sa.children) {
				if c.child.Policy == in.Policy {
					m.closeChild(c, "terminated", "")
				}
			}
		}
	}
}

// end deletes all that there is with a peer. It is not up again by itself.
func (m *Machine) end(p *peer, reason string) {
	p.halted = true
	p.retry.stop()
	p.retry = nil
	p.failures, p.notAgain = 0, 0
	m.refuseAll(p, reason)
	for policy := range p.again {
		p.notAgainFor(policy)
	}
	for _, sa := range slices.Clone(p.sas) {
		m.deleteIKE(sa, reason)
	}
}

// attemptFailed counts a failed negotiation, refuses what waited, and sets when
// the next may be.
func (m *Machine) attemptFailed(p *peer, why failure) {
	wait := time.Minute
	if p.failures < 6 {
		wait = min(wait, m.timing.Retry<<p.failures)
	}
	p.failures++
	p.notAgain = m.now + wait
	switch sa := p.current(); {
	case p.connecting():
	case sa != nil:
		m.stayWith(sa, wait)
	default:
		m.refuseAll(p, why.String())
		m.startLater(p, wait)
	}
}

// stayWith makes do with an IKE SA that a failed reauthentication was to replace, and
// tries that again after a time.
func (m *Machine) stayWith(sa *ikeSA, wait time.Duration) {
	p := sa.peer
	for i := range p.Children {
		policy := p.Children[i].Policy
		switch {
		case !p.wanted[policy]:
		case m.liveChild(p, policy, nil) != nil:
			delete(p.wanted, policy)
			delete(p.flows, policy)
		default:
			m.wantChild(sa, policy)
		}
	}
	if t := sa.timers.reauth; t != nil && t.index < 0 {
		sa.timers.reauth = m.after(wait, func() { m.reauthenticate(sa) })
	}
}

// startAgain initiates to a peer that is to be up, now that it is down. A share of
// Timing.Retry at random keeps a hundred peers from doing so at once.
func (m *Machine) startAgain(p *peer) {
	if p.current() != nil || p.connecting() {
		return
	}
	m.refuseAll(p, "the IKE SA has gone")
	m.startLater(p, m.jitter(m.timing.Retry))
}

// startLater initiates after a time, if the peer is one to be up at once.
func (m *Machine) startLater(p *peer, wait time.Duration) {
	if p.Start != AtOnce || p.halted || !p.Role.initiates() || !p.Remote.IsValid() || m.peers[p.Name] != p {
		return
	}
	p.retry.stop()
	p.retry = m.after(wait, func() {
		p.retry = nil
		switch {
		case m.peers[p.Name] != p || p.halted || p.current() != nil || p.connecting():
		case m.mayConnect(p) != nil: // there are too many IKE SAs now
			m.startLater(p, max(wait, m.timing.Retry))
		default:
			m.wantAll(p, "")
		}
	})
}
