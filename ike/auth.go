package ike

import (
	"errors"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/keys"
	"github.com/adit-ipsec/adit/ike/wire"
)

// IKE_AUTH, RFC 7296 1.2 and 2.15: the initiator's side; authresponder.go has the
// other.

// authTask is our IKE_AUTH.
type authTask struct {
	offer  *childOffer // the first Child SA; nil: none
	policy string
	ppk    *keys.SK // the keys with the PPK in them; nil: there is none
}

func (*authTask) kind() wire.ExchangeType { return wire.IKEAuth }

func (t *authTask) request(m *Machine, sa *ikeSA) ([]wire.Payload, error) {
	f, p := sa.first, sa.peer
	idi := p.Auth.Identity().Wire(false)
	f.intOctets = keys.IntAuthOctets(f.intAuth.initiator, f.intAuth.responder, sa.ours.next)
	own := auth.Octets{Message: f.sent, PeerNonce: sa.nr, ID: idi.Body(), IntAuth: f.intOctets, PRF: sa.keys.PRF()}
	notifies, err := t.prove(m, sa, &own)
	if err != nil {
		m.ended(sa, StageAuth, authFailure(err))
		return nil, err
	}
	proof, certs, err := p.Auth.Sign(own, f.hashes, m.rand)
	if err != nil {
		m.ended(sa, StageAuth, authFailure(err))
		return nil, err
	}
	out := append([]wire.Payload{idi}, certs...)
	if len(p.sas) == 1 {
		// RFC 7296 2.4: INITIAL_CONTACT "asserts that this IKE SA is the only
		// IKE SA currently active between the authenticated identities", so
		// that what a restart has left at the peer goes.
		out = append(out, &wire.Notify{Kind: wire.NotifyInitialContact})
	}
	var trusts auth.Remote
	addTrust(&trusts, p.Remotely)
	out = append(out, trusts.Requests()...)
	if !p.Remotely.ID.IsZero() {
		out = append(out, p.Remotely.ID.Wire(true))
	}
	out = append(out, proof)
	child, err := t.child(m, sa)
	if err != nil {
		t.abandon(m, sa, failure{})
		return nil, err
	}
	out = append(out, child...)
	if p.Mobike {
		out = append(out, &wire.Notify{Kind: wire.NotifyMobikeSupported})
	}
	return append(out, notifies...), nil
}

// prove sets the key of our own AUTH: with a PPK (RFC 8784 3) the one that has it,
// and where the PPK is not required NO_PPK_AUTH beside it, for a peer that has it
// not.
func (t *authTask) prove(m *Machine, sa *ikeSA, own *auth.Octets) ([]wire.Payload, error) {
	own.SKp = sa.keys.AuthKey(true)
	p := sa.peer
	if !sa.first.usePPK {
		return nil, nil
	}
	out := []wire.Payload{&wire.Notify{Kind: wire.NotifyPPKIdentity, Data: append([]byte{ppkFixed}, p.PPK.ID...)}}
	if !p.PPK.Required {
		plain, _, err := p.Auth.Sign(*own, sa.first.hashes, m.rand)
		if err != nil {
			return nil, err
		}
		out = append(out, &wire.Notify{Kind: wire.NotifyNoPPKAuth, Data: plain.Data})
	}
	t.ppk = sa.keys.WithPPK(p.PPK.Key)
	own.SKp = t.ppk.AuthKey(true)
	return out, nil
}

// ppkFixed is PPK_ID_FIXED of RFC 8784 5.1: the identifier is as configured.
const ppkFixed = 2

// child is the offer of the first Child SA, of the first policy that is wanted.
// Without one the IKE SA comes up childless (RFC 6023), which the peer has to have
// said that it can.
func (t *authTask) child(m *Machine, sa *ikeSA) ([]wire.Payload, error) {
	p := sa.peer
	c := p.firstWanted()
	if c == nil {
		if sa.childless {
			return nil, nil
		}
		if len(p.Children) == 0 {
			why := failure{Reason: "no_policy", Text: "the peer has no policy, and the other end cannot do without a Child SA (RFC 6023)"}
			m.ended(sa, StageAuth, why)
			return nil, errors.New(why.Reason)
		}
		c = &p.Children[0]
	}
	offer, payloads, err := m.offerChild(sa, c)
	if err != nil {
		why := failure{Reason: "child_offer", Text: err.Error()}
		m.ended(sa, StageAuth, why)
		return nil, err
	}
	t.offer, t.policy = offer, c.Policy
	return payloads, nil
}

// firstWanted is the first policy that waits for a Child SA.
func (p *peer) firstWanted() *Child {
	for i := range p.Children {
		if p.wanted[p.Children[i].Policy] {
			return &p.Children[i]
		}
	}
	return nil
}

func (t *authTask) response(m *Machine, sa *ikeSA, payloads []wire.Payload) {
	idr, proof := wire.FindID(payloads, true), wire.First[*wire.Auth](payloads)
	if sa.state == deleting {
		t.tooLate(m, sa, proof != nil)
		return
	}
	if idr == nil || proof == nil {
		why := failure{Reason: "invalid_syntax", Text: "the peer's answer neither proves who it is nor says why not"}
		if n := firstError(payloads); n != nil {
			why = m.refusedByPeer(sa, n)
		}
		t.fail(m, sa, why)
		return
	}
	proved, err := t.verify(m, sa, idr, proof, payloads)
	if err != nil {
		t.disbelieve(m, sa, authFailure(err))
		return
	}
	p := sa.peer
	sa.mobike = p.Mobike && wire.FindNotify(payloads, wire.NotifyMobikeSupported) != nil
	m.establish(sa, p, proved, false)
	m.duplicates(sa)
	if t.offer == nil {
		m.wantMore(sa, "")
		return
	}
	t.offer.accept(m, sa, payloads, func(why *failure) {
		switch {
		case sa.state != established:
		case why != nil:
			m.wantMore(sa, t.policy) // that one was refused, or is to wait
		default:
			m.wantMore(sa, "")
		}
	})
}

// tooLate is an answer to what is to be deleted already: the delete comes next, if
// the peer has anything to delete.
func (t *authTask) tooLate(m *Machine, sa *ikeSA, up bool) {
	why := failure{Reason: "terminated"}
	t.abandon(m, sa, why)
	if !up {
		m.forget(sa, why)
	}
}

// verify proves who the peer is, and settles which keys hold.
func (t *authTask) verify(m *Machine, sa *ikeSA, idr *wire.ID, proof *wire.Auth, payloads []wire.Payload) (auth.Peer, error) {
	f, p := sa.first, sa.peer
	id, err := auth.FromWire(idr)
	if err != nil {
		return auth.Peer{}, err
	}
	withPPK := t.ppk != nil && wire.FindNotify(payloads, wire.NotifyPPKIdentity) != nil
	if p.PPK.Required && !withPPK {
		return auth.Peer{}, &auth.Error{Reason: "ppk_required", Text: "the peer did not use the PPK, and it is required", Fix: "configure the same PPK at the peer"}
	}
	sk := sa.keys
	if withPPK {
		sk = t.ppk
	}
	proved, err := p.Remotely.Verify(id, wire.All[*wire.Cert](payloads), proof, auth.Octets{
		Message: f.received, PeerNonce: sa.ni, SKp: sk.AuthKey(false), ID: idr.Body(), IntAuth: f.intOctets, PRF: sk.PRF(),
	}, m.wall(m.now))
	if err != nil {
		return auth.Peer{}, err
	}
	if t.ppk != nil {
		other := t.ppk
		if withPPK {
			other, sa.keys = sa.keys, t.ppk
		}
		other.Wipe()
		t.ppk = nil
	}
	return proved, nil
}

// disbelieve tells a peer that believes us that we do not believe it. RFC 7296
// 2.21.2: "If the error occurs on the initiator, the notification MAY be returned
// in a separate INFORMATIONAL exchange, usually with no other payloads."
func (t *authTask) disbelieve(m *Machine, sa *ikeSA, why failure) {
	t.abandon(m, sa, why)
	p := sa.peer
	m.failedEvent(sa, StageAuth, why, func(e *Event) { e.Initiator, e.Took = true, m.now-sa.first.began })
	m.deleteWith(sa, &wire.Notify{Kind: wire.NotifyAuthenticationFailed}, why.Reason)
	m.attemptFailed(p, why)
}

// fail is the end of the attempt.
func (t *authTask) fail(m *Machine, sa *ikeSA, why failure) {
	t.abandon(m, sa, why)
	m.ended(sa, StageAuth, why)
}

func (t *authTask) failed(m *Machine, sa *ikeSA, why failure) { t.abandon(m, sa, why) }

// abandon gives back what the request has taken.
func (t *authTask) abandon(m *Machine, sa *ikeSA, why failure) {
	if t.offer != nil {
		t.offer.abandon(m, sa, why)
		t.offer = nil
	}
	if t.ppk != nil {
		t.ppk.Wipe()
		t.ppk = nil
	}
}

// authFailure is what package auth said, as a failure.
func authFailure(err error) failure {
	var e *auth.Error
	if errors.As(err, &e) {
		return failure{Reason: string(e.Reason), Text: e.Text, Theirs: e.Theirs, Ours: e.Ours, Fix: e.Fix}
	}
	return failure{Reason: "auth_failed", Text: err.Error()}
}
