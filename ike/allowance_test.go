package ike

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/keys"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/spd"
)

// What others may have this end compute.

// pfsOf gives the Child SAs of both ends a key exchange.
func pfsOf(method string) func(a, b *Peer) {
	return func(a, b *Peer) {
		change(a, b, "aes128gcm16-prfsha256-x25519", "aes128gcm16-"+method+"-esn", "aes128gcm16-"+method+"-esn")
	}
}

// childRequest is a CREATE_CHILD_SA request of a policy of the end's, and our half of its key
// exchange, which is not finished.
func (e *end) childRequest(policy string) []wire.Payload {
	e.r.t.Helper()
	sa := e.establishedSAs()[0]
	c := sa.peer.child(policy)
	offer, err := e.m.newOffer(sa, c, packet.Flow{}, false)
	if err != nil {
		e.r.t.Fatal(err)
	}
	proposals, rest := offer.parts()
	out := []wire.Payload{proposals, &wire.Nonce{Data: e.m.random(32)}}
	if methods := c.Proposals[0].KEs(); len(methods) > 0 {
		x, err := keys.Begin(methods[0], e.m.rand)
		if err != nil {
			e.r.t.Fatal(err)
		}
		out = append(out, &wire.KE{Method: uint16(methods[0]), Data: x.Public()})
	}
	return append(out, rest...)
}

// floods sends n requests for Child SAs, one after the other in no time, and deletes
// what they make.
func (e *end) floods(to *end, n int) {
	request := e.childRequest("lan")
	from := e.establishedSAs()[0].path.local
	for range n {
		e.says(to, from, wire.CreateChildSA, request...)
		if len(to.establishedSAs()) == 0 {
			e.r.t.Fatal("the IKE SA is gone")
		}
		for _, c := range slices.Clone(to.establishedSAs()[0].children) {
			e.says(to, from, wire.Informational, &wire.Delete{Protocol: c.protocol, SPIs: []uint32{c.spiOut}})
		}
	}
}

// TestRFC7296_2_25_DearKeyExchangesAreBounded: a peer that is authenticated cannot have
// this end compute key exchanges of a dear group without end: TEMPORARY_FAILURE, which
// passes with time. What it is refused costs nothing, and other peers are not told so.
func TestRFC7296_2_25_DearKeyExchangesAreBounded(t *testing.T) {
	r, a, b := up(t, pfsOf("ecp521"))
	refused := func() uint64 { return b.m.Stats()["too_much_work"] }
	work := &b.m.peers["A"].work
	each := requestWork + 2*selectorWork + exchangeWork[proposal.KEECP521]
	work.take(r.now, allowanceMost-20*each)
	a.floods(b, 50)
	first := refused()
	if first != 30 {
		t.Fatalf("%d of 50 are refused", first)
	}
	r.run(time.Minute)
	a.floods(b, 20)
	if n := refused(); n != first {
		t.Errorf("a minute later %d are refused", n-first)
	}
	if got := work.owes(r.now); got != 20*each {
		t.Errorf("it owes %s, want %s", got, 20*each)
	}
	// A new IKE SA is no cheaper.
	work.take(r.now, allowanceMost)
	a.says(b, a.establishedSAs()[0].path.local, wire.CreateChildSA,
		&wire.SA{Proposals: proposal.Offer(a.m.peers["B"].Proposals, wire.SPI(7).Bytes())}, &wire.Nonce{Data: make([]byte, 32)},
		&wire.KE{Method: uint16(proposal.KEX25519), Data: append(make([]byte, 31), 9)})
	if n := refused(); n != first+1 || len(b.establishedSAs()) != 1 {
		t.Errorf("%d are refused, %d IKE SAs", n-first, len(b.establishedSAs()))
	}
}

// TestRFC7296_2_25_CheapRekeysAreNotRefused: ten thousand in a row of the usual groups
// are within the allowance.
func TestRFC7296_2_25_CheapRekeysAreNotRefused(t *testing.T) {
	for _, method := range []proposal.KE{proposal.KENone, proposal.KEX25519, proposal.KEECP256, proposal.KEMLKEM768} {
		var a allowance
		choice := proposal.Choice{Transforms: []wire.Transform{{Type: wire.KEX, ID: uint16(method)}}}
		for i := range 10_000 {
			if !a.take(0, requestWork+2*selectorWork+workOf(choice)) {
				t.Errorf("%s: number %d is refused", method, i)
				break
			}
		}
	}
}

// TestAllowance: it is paid back by time, and what is dearer than all of it is still to
// be had.
func TestAllowance(t *testing.T) {
	var a allowance
	now := time.Hour
	if !a.take(now, 10*allowanceMost) || a.take(now, 1) {
		t.Error("the dearest is to be had once")
	}
	now += 9 * allowanceMost * allowanceShare
	if a.take(now, 1) {
		t.Error("paid back too soon")
	}
	if now++; !a.take(now+allowanceShare, 1) {
		t.Error("not paid back")
	}
	for _, method := range keys.Methods() {
		if exchangeWork[method] == 0 {
			t.Errorf("%s costs nothing", method)
		}
	}
}

// TestAllowance_OneForAnIdentity: new IKE SAs of a peer bring no new allowance; others
// behind the same configured peer have their own.
func TestAllowance_OneForAnIdentity(t *testing.T) {
	r, a, b := up(t, nil)
	was := b.establishedSAs()[0].work
	if was == nil || was != &b.m.peers["A"].work {
		t.Fatal("no allowance, or not the peer's")
	}
	a.step(Rekey{Peer: "B"})
	r.run(settle)
	if sas := b.establishedSAs(); len(sas) != 1 || sas[0].work != was {
		t.Error("a rekeyed IKE SA has another allowance")
	}
	b.m.peers["A"].Remotely.ID.Kind, b.m.peers["A"].Remotely.ID.Data = 0, nil
	sa := b.establishedSAs()[0]
	sa.work = new(allowance)
	next := &ikeSA{peer: sa.peer, proved: sa.proved}
	if next.allowanceOf() != sa.work {
		t.Error("the same identity has another allowance")
	}
	b.m.peers["A"].sas = nil
	if next.allowanceOf() == sa.work {
		t.Error("somebody else shares it")
	}
}

// TestSelectorsAreWork: a long list of traffic selectors against a long policy is paid
// for.
func TestSelectorsAreWork(t *testing.T) {
	p := peerAt(t, "B")
	var list []spd.AddrRange
	for i := range 200 {
		list = append(list, prefixRange(fmt.Sprintf("10.2.%d.0/24", i)))
	}
	p.Children[0].Selectors[0].Local, p.Children[0].Selectors[0].Remote = list, list
	ts := make([]wire.Selector, 255)
	long := requestWorkOf(&peer{Peer: &p}, []wire.Payload{&wire.TS{Selectors: ts}, &wire.TS{Responder: true, Selectors: ts}})
	if short := requestWorkOf(&peer{Peer: &p}, nil); long < 100*time.Millisecond || short != requestWork {
		t.Errorf("%s and %s", long, short)
	}
}

// dearFirst is an IKE_SA_INIT request of a stranger's for MODP-4096.
func dearFirst(t testing.TB, spi wire.SPI, cookie []byte) []byte {
	return first(t, spi, func(p []wire.Payload) []wire.Payload {
		p[0].(*wire.SA).Proposals = []wire.Proposal{proposals(t, wire.ProtocolIKE, "aes128gcm16-prfsha256-modp4096")[0].Wire(1, nil)}
		value := make([]byte, 512)
		value[511] = 9
		p[1] = &wire.KE{Method: uint16(proposal.KEModp4096), Data: value}
		if cookie != nil {
			return withCookie(cookie)(p)
		}
		return p
	})
}

// TestCK05_DearKeyExchangesOfStrangers: half of the allowance is for those whose cookie
// has come back; beyond it there is nothing, but for a peer at its own address.
func TestCK05_DearKeyExchangesOfStrangers(t *testing.T) {
	r := newRig(t)
	roaming, known := peerAt(t, "B"), peerAt(t, "B")
	roaming.Name, roaming.Remote = "roaming", netip.Addr{}
	roaming.Proposals = proposals(t, wire.ProtocolIKE, "aes128gcm16-prfsha256-modp4096", "aes128gcm16-prfsha256-x25519")
	known.Proposals = roaming.Proposals
	b := r.add("B", Config{Peers: []Peer{roaming, known}, Limits: Limits{CookieHalfOpen: 1 << 20, CookieAddress: 1 << 20}}, addrB.String())
	b.m.strange.work.take(0, allowanceMost/2)
	answer := b.stranger("198.51.100.7", dearFirst(t, 1, nil))
	cookie := notifyIn(t, answer, wire.NotifyCookie)
	if cookie == nil || b.m.HalfOpen() != 0 {
		t.Fatalf("no cookie is asked for; %d half-open", b.m.HalfOpen())
	}
	if b.stranger("198.51.100.7", dearFirst(t, 1, cookie.Data)); b.m.HalfOpen() != 1 {
		t.Error("with its cookie a stranger is not answered")
	}
	b.m.strange.work.take(0, allowanceMost)
	n := notifyIn(t, b.stranger("198.51.100.8", dearFirst(t, 2, nil)), wire.NotifyCookie)
	if answer = b.stranger("198.51.100.8", dearFirst(t, 2, n.Data)); answer != nil || b.m.Stats()["init_too_much_work"] != 1 {
		t.Errorf("beyond the allowance: %d bytes, %v", len(answer), b.m.Stats())
	}
	if b.stranger("198.51.100.8", first(t, 3, nil)); b.m.HalfOpen() != 2 {
		t.Error("a cheap key exchange is not answered")
	}
	if b.stranger(addrA.String(), dearFirst(t, 4, nil)); b.m.HalfOpen() != 3 {
		t.Error("a peer at its own address is not answered")
	}
}

// TestF8_APeerDoesNotFillTheLog: requests that are refused have a line each, but not
// without end.
func TestF8_APeerDoesNotFillTheLog(t *testing.T) {
	r, a, b := up(t, nil)
	request := a.childRequest("lan")
	request[0].(*wire.SA).Proposals[0].Transforms[0].ID = 9999
	from := a.establishedSAs()[0].path.local
	before := len(b.events)
	for range peerEvents + 100 {
		b.m.peers["A"].work.spent = 0
		a.says(b, from, wire.CreateChildSA, request...)
	}
	if n := len(b.events) - before; n > peerEvents || n < peerEvents/2 || b.m.Stats()["peer_events_suppressed"] < 100 {
		t.Errorf("%d lines, %d spared", n, b.m.Stats()["peer_events_suppressed"])
	}
	r.flying = nil
	r.run(peerPeriod)
	before = len(b.events)
	if a.says(b, from, wire.CreateChildSA, request...); len(b.events) != before+1 {
		t.Error("no line any more")
	}
}
