package ike

import (
	"errors"
	"slices"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/keys"
	"github.com/adit-ipsec/adit/ike/wire"
)

// IKE_AUTH, the responder's side:
//
//	candidates by address and proposal -> by IDi and IDr -> AUTH -> established
//	    -> our AUTH and the first Child SA, whose failure leaves the IKE SA up
//
// Whatever is wrong, the peer is told AUTHENTICATION_FAILED, with the same work
// done for a name that nobody has: it cannot ask who is configured here.

// authRequested is an IKE_AUTH request.
type authRequested struct {
	payloads []wire.Payload
	idi, idr *wire.ID
	proof    *wire.Auth
	id       auth.Identity
}

func authRequest(m *Machine, sa *ikeSA, payloads []wire.Payload, answer func(...wire.Payload)) {
	f := sa.first
	if len(f.pending) > 0 {
		answer(&wire.Notify{Kind: wire.NotifyInvalidSyntax})
		m.rejected(sa, StageAuth, failure{Reason: "invalid_syntax", Text: "IKE_AUTH came in front of the additional key exchanges that were agreed on"})
		return
	}
	// The peers may be others than when IKE_SA_INIT was answered.
	f.candidates, f.suspect = m.candidatesFor(sa.path.remote.Addr(), sa.choice), nil
	r := &authRequested{
		payloads: payloads, idi: wire.FindID(payloads, false), idr: wire.FindID(payloads, true), proof: wire.First[*wire.Auth](payloads),
	}
	p, proved, ppk, err := m.authenticate(sa, r)
	if err != nil {
		answer(&wire.Notify{Kind: wire.NotifyAuthenticationFailed})
		m.rejected(sa, StageAuth, authFailure(err))
		return
	}
	m.authAnswer(sa, r, p, proved, ppk, answer)
}

// authenticate finds out which configured peer it is. The last result is the SK
// with the PPK in it, if that was used.
func (m *Machine) authenticate(sa *ikeSA, r *authRequested) (*peer, auth.Peer, *keys.SK, error) {
	f := sa.first
	f.intOctets = keys.IntAuthOctets(f.intAuth.initiator, f.intAuth.responder, sa.theirs.next-1)
	if r.proof == nil {
		return nil, auth.Peer{}, nil, f.wantsEAP(r)
	}
	id, err := auth.FromWire(r.idi)
	if err != nil {
		return nil, auth.Peer{}, nil, err
	}
	r.id = id
	candidates, first := f.authCandidates(r)
	worked := false
	for _, p := range candidates {
		proved, ppk, err := m.verifyAs(sa, r, p)
		if err == nil {
			sa.peer = p
			return p, proved, ppk, nil
		}
		worked = worked || !early(err)
		if first == nil {
			first, f.suspect = err, p
		}
	}
	if !worked {
		_ = m.verifyNobody(sa, r)
	}
	return nil, auth.Peer{}, nil, first
}

// asksForEAP tells whether a request cannot be taken for want of an AUTH payload alone.
func asksForEAP(err error) bool {
	var schema *wire.SchemaError
	return errors.As(err, &schema) && schema.Answer() == wire.NotifyAuthenticationFailed
}

// wantsEAP is what becomes of a peer without an AUTH payload. RFC 7296 2.16: "An
// initiator indicates a desire to use EAP by leaving out the AUTH payload from the
// first message in the IKE_AUTH exchange." Who it says to be nobody has proved.
func (f *handshake) wantsEAP(r *authRequested) error {
	e := &auth.Error{
		Reason: auth.UnsupportedMethod, Text: "the peer wants to prove itself by EAP, which is not spoken: it sent no AUTH payload",
		Theirs: "EAP", Ours: "pre-shared keys, certificates and raw keys",
		Fix: "have the peer prove itself by a pre-shared key, a certificate or a raw key",
	}
	id, err := auth.FromWire(r.idi)
	if err != nil {
		return e
	}
	r.id = id
	e.Theirs = id.String() + " by EAP"
	if all, _ := f.authCandidates(r); len(all) > 0 {
		f.suspect = all[0]
		e.Ours = all[0].Remotely.String()
	}
	return e
}

// authCandidates are the peers that it may be by IDi and IDr: those of that very
// identity, then those of any. If there is none, the error says so.
func (f *handshake) authCandidates(r *authRequested) ([]*peer, error) {
	asked := asksFor(r.idr)
	all := slices.DeleteFunc(identified(f.candidates, r.id), func(p *peer) bool { return !asked(p) })
	if len(all) > 0 {
		return all, nil
	}
	f.suspect = onlyPeer(f.candidates)
	wanted, ours := f.expectations(asked)
	if ours != "" {
		asked, _ := auth.FromWire(r.idr)
		return nil, &auth.Error{
			Reason: auth.WrongIdentity, Text: "the peer asks for another identity than this end has",
			Theirs: r.id.String() + " asks for " + asked.String(), Ours: ours, Fix: "make the peer's idea of this end's identity equal to local_id",
		}
	}
	return nil, &auth.Error{
		Reason: auth.WrongIdentity, Text: "no peer with this identity is configured at this address",
		Theirs: r.id.String(), Ours: wanted, Fix: "set remote_id to the identity that the peer sends, or the peer's identity to remote_id",
	}
}

// asksFor tells of a peer whether it is at the end that IDr asks for.
func asksFor(idr *wire.ID) func(*peer) bool {
	if idr == nil || len(idr.Data) == 0 {
		return func(*peer) bool { return true }
	}
	asked, err := auth.FromWire(idr)
	return func(p *peer) bool { return err == nil && asked.Equal(p.Auth.Identity()) }
}

// longList is about how many bytes of names one line has.
const longList = 200

// expectations are the identities that would have been taken, and those of this end
// that were not asked for: as many of them as a line has room for.
func (f *handshake) expectations(asked func(*peer) bool) (wanted, ours string) {
	for _, k := range f.candidates {
		for _, p := range k.peers {
			if len(wanted) > longList {
				return wanted, ours
			}
			wanted = join(wanted, p.Remotely.ID.String())
			if !asked(p) {
				ours = join(ours, p.Auth.Identity().String())
			}
		}
	}
	return wanted, ours
}

// join puts the names of several peers on one line.
func join(list, one string) string {
	switch {
	case list == "":
		return one
	case len(list) > longList:
		return list
	}
	return list + ", " + one
}

// peerOctets are what the peer's AUTH covers.
func (m *Machine) peerOctets(sa *ikeSA, r *authRequested, sk *keys.SK) auth.Octets {
	f := sa.first
	return auth.Octets{Message: f.received, PeerNonce: sa.nr, SKp: sk.AuthKey(true), ID: r.idi.Body(), IntAuth: f.intOctets, PRF: sk.PRF()}
}

// verifyAs verifies that it is this peer. RFC 8784 3 is about the PPK: with one
// that both ends have it goes into the keys; without it NO_PPK_AUTH stands for
// AUTH, unless it is required.
func (m *Machine) verifyAs(sa *ikeSA, r *authRequested, p *peer) (auth.Peer, *keys.SK, error) {
	certs := wire.All[*wire.Cert](r.payloads)
	now := m.wall(m.now)
	named := wire.FindNotify(r.payloads, wire.NotifyPPKIdentity)
	known := sa.first.usePPK && named != nil && len(named.Data) > 1 && len(p.PPK.ID) > 0 && string(named.Data[1:]) == string(p.PPK.ID)
	if known {
		sk := sa.keys.WithPPK(p.PPK.Key)
		proved, err := p.Remotely.Verify(r.id, certs, r.proof, m.peerOctets(sa, r, sk), now)
		if err != nil {
			sk.Wipe()
			return auth.Peer{}, nil, err
		}
		return proved, sk, nil
	}
	if p.PPK.Required {
		return auth.Peer{}, nil, &auth.Error{Early: true, Reason: "ppk_required", Text: "the peer does not use the PPK, and it is required", Theirs: r.id.String(), Fix: "configure the same PPK, with the same ID, at the peer"}
	}
	proof := r.proof
	if n := wire.FindNotify(r.payloads, wire.NotifyNoPPKAuth); sa.first.usePPK && named != nil && n != nil {
		proof = &wire.Auth{Method: r.proof.Method, Data: n.Data}
	}
	proved, err := p.Remotely.Verify(r.id, certs, proof, m.peerOctets(sa, r, sa.keys), now)
	return proved, nil, err
}

// authAnswer proves us to a peer that is authenticated, and answers its first
// Child SA.
func (m *Machine) authAnswer(sa *ikeSA, r *authRequested, p *peer, proved auth.Peer, ppk *keys.SK, answer func(...wire.Payload)) {
	f := sa.first
	sk := sa.keys
	if ppk != nil {
		sk = ppk
	}
	idr := p.Auth.Identity().Wire(true)
	proof, certs, err := p.Auth.Sign(auth.Octets{
		Message: f.sent, PeerNonce: sa.ni, SKp: sk.AuthKey(false), ID: idr.Body(), IntAuth: f.intOctets, PRF: sk.PRF(),
	}, f.hashes, m.rand)
	if err != nil {
		if ppk != nil {
			ppk.Wipe()
		}
		answer(&wire.Notify{Kind: wire.NotifyAuthenticationFailed})
		m.rejected(sa, StageAuth, authFailure(err))
		return
	}
	out := append([]wire.Payload{idr}, certs...)
	out = append(out, proof)
	if ppk != nil {
		sa.keys.Wipe()
		sa.keys = ppk
		out = append(out, &wire.Notify{Kind: wire.NotifyPPKIdentity})
	}
	sa.mobike = p.Mobike && wire.FindNotify(r.payloads, wire.NotifyMobikeSupported) != nil
	if sa.mobike {
		out = append(out, &wire.Notify{Kind: wire.NotifyMobikeSupported})
	}
	sa.fragmentation = sa.fragmentation && p.Fragmentation
	sa.authID = sa.theirs.next - 1
	m.establish(sa, p, proved, wire.FindNotify(r.payloads, wire.NotifyInitialContact) != nil)
	if wire.First[*wire.SA](r.payloads) == nil {
		answer(out...) // RFC 6023
		m.duplicates(sa)
		return
	}
	m.answerChild(sa, r.payloads, func(child ...wire.Payload) {
		answer(append(out, child...)...)
		m.duplicates(sa)
	})
}
