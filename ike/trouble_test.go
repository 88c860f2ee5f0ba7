package ike

import (
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
)

// wantTrouble fails unless the end's one peer has trouble of that reason; "": none.
func (e *end) wantTrouble(what string, stage Stage, reason string, ago time.Duration) {
	e.r.t.Helper()
	got := e.m.Status()[0].Trouble
	switch {
	case reason == "" && got == nil:
	case got == nil || got.Stage != stage || got.Reason != reason || got.Ago > ago:
		e.r.t.Errorf("%s: the trouble of %s is %+v, want %s %s", what, e.name, got, stage, reason)
	}
}

// TestStatusHasTheLastFailure: with what both ends said, at the end that was refused
// and at the one that refused, until it has gone well.
func TestStatusHasTheLastFailure(t *testing.T) {
	r, a, b := pair(t, func(_, b *Peer) { b.Proposals = proposals(t, wire.ProtocolIKE, "aes256gcm16-prfsha384-ecp384") })
	a.wantTrouble("at first", "", "", 0)
	a.step(Initiate{Peer: "B"})
	r.run(3 * time.Second)
	a.wantTrouble("no proposal", StageInit, "no_proposal_chosen", 3*time.Second)
	b.wantTrouble("no proposal", StageInit, "no_proposal_chosen", 3*time.Second)
	if got := b.m.Status()[0].Trouble; got == nil || got.Theirs == "" || got.Ours == "" {
		t.Errorf("nothing to compare: %+v", got)
	}
	b.step(Configure{Peers: []Peer{peerAt(t, "B")}})
	b.wantTrouble("another configuration", "", "", 0)
	r.run(time.Minute)
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	r.wantPairs(a, b, 1)
	a.wantTrouble("up", "", "", 0)
}

// TestTroubleOfOnePolicyIsNotOverByAnother: the IKE SA is up, one Child SA of two is
// not.
func TestTroubleOfOnePolicyIsNotOverByAnother(t *testing.T) {
	r, a, b := pair(t, func(pa, pb *Peer) {
		withSecond(pa, pb)
		pb.Children[1].Proposals = proposals(t, wire.ProtocolESP, "aes256-sha512")
		pb.Children[1].Template = sad.Params{ReplayWindow: 1024}
	})
	a.step(Initiate{Peer: "B"})
	r.run(5 * time.Second)
	r.wantPairs(a, b, 1)
	a.wantTrouble("the second", StageChild, "no_proposal_chosen", 5*time.Second)
	a.step(Rekey{Peer: "B", Policy: "lan"})
	r.run(time.Second)
	a.wantTrouble("the first is renewed", StageChild, "no_proposal_chosen", 7*time.Second)
}

// TestStatusSaysWhatIsNotAnswered: a peer that is not there is seen long before its
// negotiation has failed.
func TestStatusSaysWhatIsNotAnswered(t *testing.T) {
	r, a, b := pair(t, nil)
	r.fate = func(*datagram) []time.Duration { return nil }
	a.step(Initiate{Peer: "B"})
	r.run(2 * time.Second)
	if sa := a.m.Status()[0].SAs[0]; sa.Asking != "IKE_SA_INIT" || sa.Transmissions != 3 {
		t.Errorf("asking %q, %d transmissions, want 3 of IKE_SA_INIT", sa.Asking, sa.Transmissions)
	}
	r.fate = nil
	r.run(time.Minute)
	r.wantPairs(a, b, 1)
	if sa := a.m.Status()[0].SAs[0]; sa.Asking != "" || sa.Transmissions != 0 {
		t.Errorf("asking %q, %d transmissions, want none", sa.Asking, sa.Transmissions)
	}
}

// TestNobodyIsNamedWhoHasNotProvedIt: this end does not believe the peer, and deletes
// the IKE SA that the peer believes in. The line says no identity, and not "%any".
func TestNobodyIsNamedWhoHasNotProvedIt(t *testing.T) {
	r, a, _ := pair(t, func(a, _ *Peer) { a.Remotely.PSK = sad.Key("another secret that is long enough") })
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	gone := a.find(StageDelete, Done)
	if len(gone) != 1 || gone[0].RemoteID != "" {
		t.Errorf("deleted: %+v, want one IKE SA of nobody", gone)
	}
}
