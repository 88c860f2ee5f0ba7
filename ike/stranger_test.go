package ike

import (
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
)

// Somebody who is not authenticated: a stranger, or one in the middle.

// TestStranger_IsNotAnsweredWithMore: what is said to whoever may be nobody is not
// longer than what it answers.
func TestStranger_IsNotAnsweredWithMore(t *testing.T) {
	_, _, b := pair(t, nil)
	newer := wire.Append(nil, wire.Header{Initiator: 1, Major: 3, Exchange: wire.IKESAInit, Flags: wire.FlagInitiator})
	critical := wire.Append(nil, wire.Header{Initiator: 1, Major: 2, Exchange: wire.IKESAInit, Flags: wire.FlagInitiator}, &wire.Unknown{Kind: 200, Critical: true})
	for _, data := range [][]byte{newer, critical} {
		for _, a := range b.m.Step(0, Packet{Local: victim, Remote: victim, Data: data}) {
			if s, ok := a.(Send); ok && len(s.Data) > len(data) {
				t.Errorf("%d bytes for %d", len(s.Data), len(data))
			}
		}
	}
}

// TestStranger_SaysAgainFromElsewhere: the first fragment of a stranger's request,
// said again as from somebody else, does not have the whole answer sent there.
func TestStranger_SaysAgainFromElsewhere(t *testing.T) {
	r, a, b := pair(t, func(pa, pb *Peer) {
		for _, p := range []*Peer{pa, pb} {
			p.Proposals = proposals(t, wire.ProtocolIKE, "aes128gcm16-prfsha256-x25519-ke1_mlkem1024")
		}
		pa.FragmentSize = minFragmentSize
	})
	var first datagram
	r.fate = func(d *datagram) []time.Duration {
		switch x := d.header().Exchange; {
		case x == wire.IKEAuth:
			return nil
		case x == wire.IKEIntermediate && first.data == nil:
			first = *d
		}
		return []time.Duration{r.latency}
	}
	a.step(Acquire{Peer: "B", Policy: "lan"})
	r.run(200 * time.Millisecond)
	said := 0
	for _, action := range b.m.Step(r.now, Packet{Local: first.to, Remote: victim, NATT: first.natt, Data: first.data}) {
		if s, ok := action.(Send); ok && s.Remote == victim {
			said += len(s.Data)
		}
	}
	if first.data == nil || said > len(first.data) {
		t.Errorf("%d bytes for %d", said, len(first.data))
	}
}

// TestStranger_NamesNoStatistics: numbers that somebody else chooses do not become
// names of counters.
func TestStranger_NamesNoStatistics(t *testing.T) {
	r, a, _ := pair(t, nil)
	r.nat = func(d *datagram) bool {
		if h := d.header(); h.Response() {
			d.data = wire.Append(nil, h, &wire.Notify{Kind: 9999})
		}
		return true
	}
	a.step(Acquire{Peer: "B", Policy: "lan"})
	r.run(5 * time.Second)
	for name := range a.m.Stats() {
		if strings.Contains(name, "9999") {
			t.Error(name)
		}
	}
	if f := a.failures(); len(f) != 1 || !strings.Contains(f[0].Theirs, "9999") {
		t.Errorf("%v", f)
	}
}

// TestRFC7296_2_21_1_ForgedRefusal: "Because all error notifications are completely
// unauthenticated, the recipient should continue trying for some time before giving
// up."
func TestRFC7296_2_21_1_ForgedRefusal(t *testing.T) {
	for _, kind := range []wire.NotifyType{wire.NotifyNoProposalChosen, wire.NotifyInvalidMajorVersion, wire.NotifyInvalidSyntax} {
		r, a, b := pair(t, nil)
		r.fate = func(d *datagram) []time.Duration {
			if h := d.header(); d.by == b && h.Exchange == wire.IKESAInit {
				h.Responder = 0
				r.flying = append(r.flying, datagram{
					from: d.from, to: d.to, at: r.now + time.Millisecond, by: b,
					data: wire.Append(nil, h, &wire.Notify{Kind: kind}),
				})
			}
			return []time.Duration{r.latency}
		}
		a.step(Acquire{Peer: "B", Policy: "lan"})
		r.run(settle)
		r.wantSettled(a, b, 1)
		r.wantNoFailures()
	}
}

// TestStranger_LongFirstMessage: what is kept of a stranger's first message is
// bounded.
func TestStranger_LongFirstMessage(t *testing.T) {
	r, a, b := pair(t, nil)
	r.nat = func(d *datagram) bool {
		if h := d.header(); h.Exchange == wire.IKESAInit && !h.Response() {
			msg, err := wire.Parse(d.data)
			if err != nil {
				t.Fatal(err)
			}
			d.data = wire.Append(nil, h, append(msg.Payloads, &wire.Vendor{Data: make([]byte, maxFirst)})...)
		}
		return true
	}
	a.step(Acquire{Peer: "B", Policy: "lan"})
	r.run(time.Second)
	if b.m.HalfOpen() != 0 || b.m.Stats()["init_too_long"] == 0 {
		t.Errorf("%d half-open: %v", b.m.HalfOpen(), b.m.Stats())
	}
}
