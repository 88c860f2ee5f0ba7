package ike

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/wire"
)

// A peer that does something wrong, as libreswan's impair and strongSwan's conftest
// make one: it is a machine of ours whose messages a rule changes in the moment they
// leave, inside SK too, since the test has its keys.

// letter is a message of the impaired peer, open.
type letter struct {
	wire.Header
	Payloads []wire.Payload
	by       *end
	sa       *ikeSA // the sender's; nil: the message is of none
	sealed   bool   // Payloads stood inside SK
	// What the rule may set besides: payloads in front of SK, the first payload's
	// type whatever it is, bytes inside SK, bytes of the datagram.
	outer []wire.Payload
	next  wire.PayloadType
	inner func([]byte) []byte
	whole func([]byte) []byte
}

// is tells what message it is.
func (l *letter) is(x wire.ExchangeType, response bool) bool {
	return l.Exchange == x && l.Response() == response
}

// drop takes out the payloads of a type.
func (l *letter) drop(t wire.PayloadType) bool {
	n := len(l.Payloads)
	l.Payloads = slices.DeleteFunc(l.Payloads, func(p wire.Payload) bool { return p.Type() == t })
	return len(l.Payloads) != n
}

// add puts a payload at the end.
func (l *letter) add(p ...wire.Payload) bool {
	l.Payloads = append(l.Payloads, p...)
	return true
}

// twice repeats the payloads of a type.
func (l *letter) twice(t wire.PayloadType) bool {
	var out []wire.Payload
	for _, p := range l.Payloads {
		out = append(out, p)
		if p.Type() == t {
			out = append(out, p)
		}
	}
	changed := len(out) != len(l.Payloads)
	l.Payloads = out
	return changed
}

// impair has a rule change what an end sends; it says whether it did. The same
// datagram is changed the same way when it is sent again.
func (r *rig) impair(e *end, rule func(*letter) bool) {
	done := map[digest][]byte{}
	r.fate = func(d *datagram) []time.Duration {
		if d.by == e {
			key := digestOf(d.data)
			if _, ok := done[key]; !ok {
				done[key] = d.data
				if l := r.unseal(d); l != nil && rule(l) {
					done[key] = r.reseal(l)
				}
			}
			d.data = done[key]
		}
		return []time.Duration{r.latency}
	}
}

func (r *rig) unseal(d *datagram) *letter {
	msg, err := wire.Parse(slices.Clone(d.data))
	if err != nil {
		r.t.Fatalf("%s sends what cannot be read: %v", d.by.name, err)
	}
	l := &letter{Header: msg.Header, Payloads: msg.Payloads, by: d.by}
	spi := msg.Initiator
	if !msg.FromInitiator() {
		spi = msg.Responder
	}
	l.sa = d.by.m.sas[spi]
	if msg.Protected == nil {
		return l
	}
	if msg.Protected.Total != 0 || l.sa == nil || l.sa.keys == nil {
		return nil
	}
	inner, err := l.sa.keys.Open(l.sa.initiator, msg)
	if err != nil {
		return nil // the sender has other keys already
	}
	l.sealed = true
	if l.Payloads, err = wire.ParsePayloads(msg.Protected.First, inner); err != nil {
		r.t.Fatal(err)
	}
	return l
}

// reseal makes the datagram. What the sender signs in IKE_AUTH is what it has sent.
func (r *rig) reseal(l *letter) []byte {
	var out []byte
	if l.sealed {
		first, inner := wire.AppendPayloads(nil, l.Payloads...)
		if l.inner != nil {
			inner = l.inner(inner)
		}
		if l.next != wire.PayloadNone {
			first = l.next
		}
		begin := wire.BeginProtected(l.Header, l.outer, wire.Protected{First: first}, l.sa.keys.SealedLen(len(inner)))
		out = l.sa.keys.Seal(l.sa.initiator, begin, inner, seeded("sealed again"))
	} else {
		out = wire.Append(nil, l.Header, l.Payloads...)
	}
	if l.whole != nil {
		out = l.whole(out)
	}
	if !l.sealed && l.sa != nil && l.sa.first != nil {
		l.sa.first.sent = slices.Clone(out)
		if n := wire.First[*wire.Nonce](l.Payloads); n != nil && l.sa.initiator {
			l.sa.ni = slices.Clone(n.Data)
		}
	}
	return out
}

// sign makes the initiator's AUTH anew, for an identity and by credentials of the
// rule's choice.
func (l *letter) sign(with auth.Local, id []byte) bool {
	f := l.sa.first
	proof, _, err := with.Sign(auth.Octets{
		Message: f.sent, PeerNonce: l.sa.nr, SKp: l.sa.keys.AuthKey(true), ID: id, IntAuth: f.intOctets, PRF: l.sa.keys.PRF(),
	}, f.hashes, seeded("signed again"))
	if err != nil {
		l.by.r.t.Fatal(err)
	}
	for i, p := range l.Payloads {
		if p.Type() == wire.PayloadAUTH {
			l.Payloads[i] = proof
		}
	}
	return true
}

// eachPayload walks the generic headers of payloads.
func eachPayload(first wire.PayloadType, b []byte, at int, f func(t wire.PayloadType, at, length int)) {
	for first != wire.PayloadNone && at+4 <= len(b) {
		next, length := wire.PayloadType(b[at]), int(binary.BigEndian.Uint16(b[at+2:]))
		if length < 4 || at+length > len(b) {
			return
		}
		f(first, at, length)
		first, at = next, at+length
	}
}

// bytesOf has f change the bytes of every payload, wherever they stand: in clear, or
// inside SK.
func (l *letter) bytesOf(f func(b []byte, t wire.PayloadType, at, length int)) bool {
	first := wire.PayloadNone
	if len(l.Payloads) > 0 {
		first = l.Payloads[0].Type()
	}
	if l.sealed {
		l.inner = func(b []byte) []byte {
			eachPayload(first, b, 0, func(t wire.PayloadType, at, length int) { f(b, t, at, length) })
			return b
		}
		return true
	}
	l.whole = func(b []byte) []byte {
		eachPayload(first, b, wire.HeaderLen, func(t wire.PayloadType, at, length int) { f(b, t, at, length) })
		return b
	}
	return true
}

// impairment is one way to be wrong, and what the honest end is to make of it.
type impairment struct {
	name   string
	by     string // who is impaired: "A", which initiates, or "B"; "": each in turn
	change func(a, b *Peer)
	rule   func(*letter) bool
	then   func(r *rig, a, b *end) // behind the handshake; nil: nothing
	// What comes of it. up: both ends have one IKE SA and one pair, and nothing has
	// failed. Else the honest end has none, says why in one event, and keeps nothing.
	up     bool
	reason string // of that event; "": there is none
	stat   string // a counter of the honest end that has moved; "": none has to
	// childless: of what is not up the IKE SA is, and the pair is not.
	childless bool
}

func (i *impairment) run(t *testing.T) {
	for _, by := range []string{"A", "B"} {
		if i.by == "" || i.by == by {
			t.Run(strings.ReplaceAll(i.name, " ", "_")+"/by_"+by, func(t *testing.T) { i.runBy(t, by) })
		}
	}
}

func (i *impairment) runBy(t *testing.T, by string) {
	r, a, b := pair(t, i.change)
	bad, honest := a, b
	if by == "B" {
		bad, honest = b, a
	}
	if i.rule != nil {
		r.impair(bad, i.rule)
	}
	a.step(Initiate{Peer: "B"})
	r.run(2 * time.Second)
	if i.then != nil {
		i.then(r, a, b)
	}
	r.run(90 * time.Second)
	switch {
	case i.up:
		r.wantUp(a, b, 1)
	case i.childless:
		if len(honest.establishedSAs()) != 1 || len(honest.sad) != 0 {
			t.Errorf("%d IKE SAs, %d SAs; want the IKE SA alone", len(honest.establishedSAs()), len(honest.sad))
		}
	default:
		if n := len(honest.establishedSAs()); n != 0 || len(honest.sad) != 0 {
			t.Errorf("%d IKE SAs are established, %d SAs installed", n, len(honest.sad))
		}
	}
	i.wantSaid(t, honest)
	r.fate = nil
	bad.step(Terminate{})
	honest.step(Terminate{})
	r.run(5 * time.Minute)
	honest.wantNothingLeft()
	for _, line := range append(honest.log, bad.log...) {
		if strings.Contains(line, testPSK) {
			t.Errorf("a secret in the log: %s", line)
		}
	}
}

// wantSaid holds the honest end's failures and counters.
func (i *impairment) wantSaid(t *testing.T, honest *end) {
	t.Helper()
	f := honest.failures()
	switch {
	case i.up:
	case i.reason == "" && len(f) != 0, i.reason != "" && len(f) != 1, i.reason != "" && f[0].Reason != i.reason:
		t.Errorf("want one failure %q; stats %v, log:\n%s", i.reason, honest.m.Stats(), lines(honest.log))
	}
	if i.stat != "" && honest.m.Stats()[i.stat] == 0 {
		t.Errorf("%s has not moved; stats %v, log:\n%s", i.stat, honest.m.Stats(), lines(honest.log))
	}
}

// uniqueNames fails on two impairments of one name.
func uniqueNames(t *testing.T, all []impairment) {
	seen := map[string]bool{}
	for _, i := range all {
		if key := fmt.Sprint(i.name, i.by); seen[key] {
			t.Errorf("two impairments are called %s", i.name)
		} else {
			seen[key] = true
		}
	}
}
