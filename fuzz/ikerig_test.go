package fuzz

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike"
	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/keys"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// What the targets of package ike share: machines that repeat themselves, and a peer
// of theirs that has the secret and says what it likes.

var (
	ikeA = netip.MustParseAddrPort("192.0.2.1:500")
	ikeB = netip.MustParseAddrPort("192.0.2.2:500")
)

const ikeSecret = "6c3f0a97d1b84e25f07a9c46138d5eb2"

// ikePeer is how the end here knows the end there: its policies protect each of nets,
// against the same of the other end.
func ikePeer(here, there string, secret string, nets int) ike.Peer {
	known := func(name string) auth.Identity {
		id, err := auth.ParseIdentity(name + ".example.net")
		if err != nil {
			panic(err)
		}
		return id
	}
	keyword := func(protocol wire.ProtocolID, text string) []proposal.Proposal {
		p, err := proposal.Parse(protocol, text, false)
		if err != nil {
			panic(err)
		}
		return []proposal.Proposal{p}
	}
	p := ike.Peer{
		Name: there, Fragmentation: true,
		Auth: auth.Local{ID: known(here), PSK: sad.Key(secret)}, Remotely: auth.Remote{ID: known(there), PSK: sad.Key(secret)},
		Proposals: keyword(wire.ProtocolIKE, "aes128gcm16-prfsha256-x25519"),
		Children:  []ike.Child{{Policy: "lan", Proposals: keyword(wire.ProtocolESP, "aes128gcm16-esn"), Template: sad.Params{ReplayWindow: 1024}}},
	}
	p.Local, p.Remote = ikeA.Addr(), ikeB.Addr()
	if here == "b" {
		p.Local, p.Remote = p.Remote, p.Local
	}
	for i := range nets {
		p.Children[0].Selectors = append(p.Children[0].Selectors, spd.Selector{
			Local: []spd.AddrRange{ikeNet(here, i)}, Remote: []spd.AddrRange{ikeNet(there, i)}, Protocol: spd.ProtocolAny,
		})
	}
	return p
}

// ikeNet is 10.1.i.0/24 of A, 10.2.i.0/24 of B.
func ikeNet(who string, i int) spd.AddrRange {
	second := byte(1)
	if who == "b" {
		second = 2
	}
	return spd.AddrRange{From: netip.AddrFrom4([4]byte{10, second, byte(i), 0}), To: netip.AddrFrom4([4]byte{10, second, byte(i), 255})}
}

func ikeSeed(name string) *rand.ChaCha8 {
	var seed [32]byte
	copy(seed[:], name)
	return rand.NewChaCha8(seed)
}

// ikeEnd is a machine with its SAD.
type ikeEnd struct {
	t    *testing.T
	name string
	m    *ike.Machine
	sas  map[sad.ID]sad.Params
	last []sad.ID // as they were installed
	fail bool     // the next Install
	sent []ike.Send
	up   int // IKE SAs that were established
}

func newIKEEnd(t *testing.T, name string, peers ...ike.Peer) *ikeEnd {
	m, err := ike.New(ike.Config{
		Peers: peers, Rand: ikeSeed(name), Wall: func(now time.Duration) time.Time { return time.Unix(1_800_000_000, 0).Add(now) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return &ikeEnd{t: t, name: name, m: m, sas: map[sad.ID]sad.Params{}}
}

// step does an input, and fails if the machine takes long, panics, or does what no
// driver could do.
func (e *ikeEnd) step(now time.Duration, in ike.Input) (sent []ike.Send) {
	e.t.Helper()
	began := time.Now()
	actions := e.m.Step(now, in)
	if took := time.Since(began); took > 5*time.Second {
		e.t.Fatalf("a step with %T takes %s", in, took)
	}
	if e.m.Stats()["panic_recovered"] != 0 {
		for _, a := range actions {
			if ev, ok := a.(ike.Event); ok {
				e.t.Logf("%+v", ev)
			}
		}
		e.t.Fatalf("a step with %T panics", in)
	}
	for _, a := range actions {
		switch a := a.(type) {
		case ike.Send:
			e.sent = append(e.sent, a)
			sent = append(sent, a)
		case ike.Install:
			sent = append(sent, e.step(now, ike.Installed{Token: a.Token, Err: e.install(a)})...)
		case ike.Remove:
			for _, id := range a.IDs {
				if _, ok := e.sas[id]; !ok {
					e.t.Fatalf("%s removes %s, which it does not have", e.name, id)
				}
				delete(e.sas, id)
			}
		case ike.Event:
			if a.Stage == ike.StageAuth && a.Outcome == ike.Done {
				e.up++
			}
		}
	}
	return sent
}

var errIKEInstall = errors.New("no room")

func (e *ikeEnd) install(a ike.Install) error {
	if e.fail {
		e.fail = false
		return errIKEInstall
	}
	for i := range a.Params {
		p := a.Params[i]
		if err := p.Validate(); err != nil {
			e.t.Fatalf("%s installs what is not valid: %v", e.name, err)
		}
		if _, ok := e.sas[p.ID()]; ok {
			e.t.Fatalf("%s installs %s twice", e.name, p.ID())
		}
		p.EncryptionKey = append(sad.Key(nil), p.EncryptionKey...)
		e.sas[p.ID()] = p
		e.last = append(e.last, p.ID())
	}
	for _, id := range a.Old {
		delete(e.sas, id)
	}
	return nil
}

// ikeStranger is an initiator that has the secret, and speaks to a machine without
// being one.
type ikeStranger struct {
	end    *ikeEnd
	local  netip.AddrPort // of the machine
	remote netip.AddrPort // its own
	sk     *keys.SK
	i, r   wire.SPI
	first  []byte
	nr     []byte
	id     uint32
	now    time.Duration
}

// newIKEStranger goes through IKE_SA_INIT, with more payloads in the request.
func newIKEStranger(t *testing.T, e *ikeEnd, remote netip.AddrPort, more ...wire.Payload) *ikeStranger {
	s := &ikeStranger{end: e, local: ikeB, remote: remote, i: 7, id: 1}
	random := ikeSeed("stranger")
	x, err := keys.Begin(proposal.KEX25519, random)
	if err != nil {
		t.Fatal(err)
	}
	offered := proposal.Offer(ikePeer("a", "b", ikeSecret, 1).Proposals, nil)
	ni := make([]byte, 64)
	_, _ = random.Read(ni)
	payloads := append([]wire.Payload{
		&wire.SA{Proposals: offered}, &wire.KE{Method: uint16(proposal.KEX25519), Data: x.Public()}, &wire.Nonce{Data: ni},
		&wire.Notify{Kind: wire.NotifyFragmentationSupported},
	}, more...)
	s.first = wire.Append(nil, wire.Header{Initiator: s.i, Major: wire.Version, Exchange: wire.IKESAInit, Flags: wire.FlagInitiator}, payloads...)
	sent := s.put(s.first)
	if len(sent) != 1 {
		return nil
	}
	m, err := wire.Parse(sent[0].Data)
	if err != nil {
		t.Fatalf("the answer cannot be read: %v", err)
	}
	ke, nonce, sa := wire.First[*wire.KE](m.Payloads), wire.First[*wire.Nonce](m.Payloads), wire.First[*wire.SA](m.Payloads)
	if ke == nil || nonce == nil || sa == nil {
		return nil
	}
	choice, err := proposal.Accept(offered, sa.Proposals[0])
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x.Finish(ke.Data)
	if err != nil {
		t.Fatal(err)
	}
	s.r, s.nr = m.Responder, nonce.Data
	if s.sk, err = keys.Derive(choice, secret, ni, s.nr, s.i, s.r); err != nil {
		t.Fatal(err)
	}
	return s
}

// put hands a datagram to the machine.
func (s *ikeStranger) put(data []byte) []ike.Send {
	return s.end.step(s.now, ike.Packet{Local: s.local, Remote: s.remote, NATT: s.local.Port() == 4500, Data: data})
}

// seal protects what stands inside SK, or in a fragment.
func (s *ikeStranger) seal(x wire.ExchangeType, p wire.Protected, inner []byte) []byte {
	h := wire.Header{Initiator: s.i, Responder: s.r, Major: wire.Version, Exchange: x, Flags: wire.FlagInitiator, MessageID: s.id}
	return s.sk.Seal(true, wire.BeginProtected(h, nil, p, s.sk.SealedLen(len(inner))), inner, nil)
}

// auth are the payloads that prove it, without a Child SA.
func (s *ikeStranger) auth(t *testing.T) []wire.Payload {
	me := ikePeer("a", "b", ikeSecret, 1)
	id := me.Auth.Identity().Wire(false)
	proof, _, err := me.Auth.Sign(auth.Octets{
		Message: s.first, PeerNonce: s.nr, SKp: s.sk.AuthKey(true), ID: id.Body(), PRF: s.sk.PRF(),
	}, nil, ikeSeed("sign"))
	if err != nil {
		t.Fatal(err)
	}
	return []wire.Payload{id, proof}
}

// childSA is its offer of a Child SA.
func ikeChildSA(spi uint32) *wire.SA {
	offered := proposal.Offer(ikePeer("a", "b", ikeSecret, 1).Children[0].Proposals, binary.BigEndian.AppendUint32(nil, spi))
	return &wire.SA{Proposals: offered}
}

// open reads an answer.
func (s *ikeStranger) open(t *testing.T, data []byte) []wire.Payload {
	m, err := wire.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if m.Protected == nil || m.Protected.Total != 0 {
		return nil
	}
	inner, err := s.sk.Open(false, m)
	if err != nil {
		t.Fatalf("the answer does not open: %v", err)
	}
	payloads, err := wire.ParsePayloads(m.Protected.First, inner)
	if err != nil {
		t.Fatalf("the answer makes no sense: %v", err)
	}
	return payloads
}
