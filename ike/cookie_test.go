package ike

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
)

// first makes IKE_SA_INIT requests as a stranger would: from any address, with any
// SPI and nonce.
func first(t testing.TB, spi wire.SPI, change func([]wire.Payload) []wire.Payload) []byte {
	t.Helper()
	nonce := make([]byte, 64)
	copy(nonce, spi.Bytes())
	payloads := []wire.Payload{
		&wire.SA{Proposals: []wire.Proposal{proposals(t, wire.ProtocolIKE, "aes128gcm16-prfsha256-x25519")[0].Wire(1, nil)}},
		&wire.KE{Method: 31, Data: append(make([]byte, 31), 9)},
		&wire.Nonce{Data: nonce},
	}
	if change != nil {
		payloads = change(payloads)
	}
	return wire.Append(nil, wire.Header{Initiator: spi, Major: 2, Exchange: wire.IKESAInit, Flags: wire.FlagInitiator}, payloads...)
}

// stranger hands a message to e as from an address, and gives the answer.
func (e *end) stranger(from string, data []byte) []byte {
	remote := netip.AddrPortFrom(netip.MustParseAddr(from), 500)
	var answer []byte
	for _, a := range e.m.Step(e.r.now, Packet{Local: netip.AddrPortFrom(e.addrs[0], 500), Remote: remote, Data: data}) {
		if s, ok := a.(Send); ok {
			answer = s.Data
		}
		if ev, ok := a.(Event); ok {
			e.events = append(e.events, ev)
		}
	}
	return answer
}

func notifyIn(t testing.TB, data []byte, kind wire.NotifyType) *wire.Notify {
	t.Helper()
	if data == nil {
		return nil
	}
	msg, err := wire.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return wire.FindNotify(msg.Payloads, kind)
}

func withCookie(cookie []byte) func([]wire.Payload) []wire.Payload {
	return func(p []wire.Payload) []wire.Payload {
		return append([]wire.Payload{&wire.Notify{Kind: wire.NotifyCookie, Data: cookie}}, p...)
	}
}

// anyB is a B that takes peers from any address.
func anyB(t testing.TB, l Limits) (*rig, *end) {
	r := newRig(t)
	p := peerAt(t, "B")
	p.Remote = netip.Addr{}
	return r, r.add("B", Config{Peers: []Peer{p}, Limits: l}, addrB.String())
}

// TestCK05_RFC7296_2_6_Thresholds: beyond 3 half-open IKE SAs of one address, or 30
// in all, cookies are asked for, and nothing is kept of who has none.
func TestCK05_RFC7296_2_6_Thresholds(t *testing.T) {
	_, b := anyB(t, Limits{})
	spi := wire.SPI(1)
	for i := range 4 {
		answer := b.stranger("198.51.100.7", first(t, spi, nil))
		if got := notifyIn(t, answer, wire.NotifyCookie) != nil; got != (i == 3) {
			t.Errorf("one address, message %d: cookie %t", i, got)
		}
		spi++
	}
	for i := range 40 {
		answer := b.stranger(fmt.Sprintf("198.51.%d.8", i), first(t, spi, nil))
		if got := notifyIn(t, answer, wire.NotifyCookie) != nil; got != (i >= 27) {
			t.Errorf("many addresses, message %d: cookie %t", i, got)
		}
		spi++
	}
	if b.m.HalfOpen() != 30 || len(b.m.sas) != 30 {
		t.Errorf("%d half-open, %d IKE SAs", b.m.HalfOpen(), len(b.m.sas))
	}
}

// TestCK05_RFC7296_2_6_Cookies: a cookie is good for its address, SPI and nonce,
// for as long as its secret and the next are, and no other is.
func TestCK05_RFC7296_2_6_Cookies(t *testing.T) {
	r, b := anyB(t, Limits{CookieHalfOpen: 1, CookieAddress: 1})
	b.stranger("198.51.100.1", first(t, 1, nil))
	n := notifyIn(t, b.stranger("198.51.100.7", first(t, 7, nil)), wire.NotifyCookie)
	if n == nil || len(n.Data) < 1 || len(n.Data) > 64 {
		t.Fatalf("no cookie, or one of a length that may not be: %v", n)
	}
	cookie := slices.Clone(n.Data)
	asked := func(from string, spi wire.SPI, cookie []byte) bool {
		return notifyIn(t, b.stranger(from, first(t, spi, withCookie(cookie))), wire.NotifyCookie) != nil
	}
	for i := range cookie {
		bad := slices.Clone(cookie)
		bad[i] ^= 1
		if !asked("198.51.100.7", 7, bad) {
			t.Fatalf("a cookie with byte %d changed is good", i)
		}
	}
	if !asked("198.51.100.8", 7, cookie) || !asked("198.51.100.7", 8, cookie) || !asked("198.51.100.7", 7, cookie[:16]) || !asked("198.51.100.7", 7, append(cookie[:17:17], 0)) {
		t.Error("a cookie is good for another address, SPI or length")
	}
	sameNonce := first(t, 7, withCookie(cookie))
	sameNonce[0] ^= 1 // another SPI, and all else the same
	if notifyIn(t, b.stranger("198.51.100.7", sameNonce), wire.NotifyCookie) == nil {
		t.Error("a cookie is good for another SPI with the same nonce")
	}
	open := b.m.HalfOpen()
	r.now += 59 * time.Second // the half-open ones expire, but one more comes
	b.step(Tick{})
	b.stranger("198.51.100.1", first(t, 2, nil))
	if asked("198.51.100.7", 7, cookie) {
		t.Error("a cookie of the same secret is not good")
	}
	if open != 1 {
		t.Errorf("%d half-open: cookies that were not good have left something", open)
	}
	n = notifyIn(t, b.stranger("198.51.100.9", first(t, 9, nil)), wire.NotifyCookie)
	cookie = slices.Clone(n.Data)
	r.now += 40 * time.Second // its secret is the one before the current one
	b.step(Tick{})
	b.stranger("198.51.100.1", first(t, 3, nil))
	if asked("198.51.100.9", 9, cookie) {
		t.Error("a cookie of the secret before is not good")
	}
	n = notifyIn(t, b.stranger("198.51.100.10", first(t, 10, nil)), wire.NotifyCookie)
	cookie = slices.Clone(n.Data)
	for range 3 {
		r.now += time.Minute
		b.step(Tick{})
		b.stranger("198.51.100.1", first(t, wire.SPI(r.now), nil))
	}
	if !asked("198.51.100.10", 10, cookie) {
		t.Error("a cookie three minutes old is good")
	}
}

// TestCK05_RFC7296_2_6_1_CookieAndKE: cookie and another group, in all orders that
// responders have them; the initiator keeps its nonce, SPI and cookie.
func TestCK05_RFC7296_2_6_1_CookieAndKE(t *testing.T) {
	for _, threshold := range []int{-1, 1 << 20} {
		r, a, b := pair(t, func(pa, pb *Peer) {
			pa.Proposals = proposals(t, wire.ProtocolIKE, "aes128gcm16-prfsha256-x25519-ecp256")
			pb.Proposals = proposals(t, wire.ProtocolIKE, "aes128gcm16-prfsha256-ecp256")
		})
		b.m.limits.CookieHalfOpen = threshold
		a.step(Initiate{Peer: "B"})
		r.run(time.Second)
		r.wantUp(a, b, 1)
		rounds, cookies := 0, 0
		for _, d := range r.sent {
			if d.header().Exchange == wire.IKESAInit && d.by == a {
				rounds++
				if d.header().MessageID != 0 || d.header().Initiator != r.sent[0].header().Initiator {
					t.Error("IKE_SA_INIT starts over with another message ID or SPI")
				}
			}
			if d.by == b && d.header().Exchange == wire.IKESAInit && notifyIn(t, d.data, wire.NotifyCookie) != nil {
				cookies++
			}
		}
		if want := map[int]int{-1: 3, 1 << 20: 2}[threshold]; rounds != want || cookies != want-2 {
			t.Errorf("threshold %d: %d rounds with %d cookies", threshold, rounds, cookies)
		}
	}
}

// TestCK05_CookieLoop: an initiator does not dance to cookies for ever.
func TestCK05_CookieLoop(t *testing.T) {
	r, a, b := pair(t, nil)
	b.m.limits.CookieHalfOpen = -1
	r.nat = func(d *datagram) bool {
		if d.by == a {
			b.m.strange.made = false // its secrets are new every time
		}
		return true
	}
	a.step(Initiate{Peer: "B"})
	r.run(2 * time.Minute)
	if n := a.m.Stats()["init_again_cookie"]; n != maxAgain {
		t.Errorf("started over %d times", n)
	}
	a.wantFailure(StageInit, "bad_answer")
	a.wantNothingLeft()
	b.wantNothingLeft()
}

// TestAmplification: whatever a stranger sends, it gets no more bytes than it has
// sent, and no datagram that it did not ask for; with a cookie the answer may be
// longer.
func TestAmplification(t *testing.T) {
	r, b := anyB(t, Limits{})
	b.m.peers["A"].Childless = true
	short := first(t, 1, func(p []wire.Payload) []wire.Payload {
		p[2].(*wire.Nonce).Data = p[2].(*wire.Nonce).Data[:16]
		return p
	})
	answer := b.stranger("198.51.100.1", short)
	n := notifyIn(t, answer, wire.NotifyCookie)
	if n == nil || len(answer) > len(short) || len(b.m.sas) != 0 {
		t.Fatalf("a request of %d bytes is answered by %d without a cookie, and leaves %d IKE SAs", len(short), len(answer), len(b.m.sas))
	}
	again := first(t, 1, func(p []wire.Payload) []wire.Payload {
		p[2].(*wire.Nonce).Data = p[2].(*wire.Nonce).Data[:16]
		return withCookie(n.Data)(p)
	})
	if answer = b.stranger("198.51.100.1", again); len(answer) < len(short) || len(b.m.sas) != 1 {
		t.Errorf("with its cookie: %d bytes, %d IKE SAs", len(answer), len(b.m.sas))
	}
	before := len(r.sent)
	r.run(time.Minute)
	if len(r.sent) != before {
		t.Error("the responder sends again by itself")
	}
	// Everything else is answered by less.
	for name, data := range map[string][]byte{
		"bad proposal": first(t, 5, func(p []wire.Payload) []wire.Payload {
			p[0].(*wire.SA).Proposals[0].Transforms[0].ID = 9999
			return p
		}),
		"bad group": first(t, 6, func(p []wire.Payload) []wire.Payload {
			p[1].(*wire.KE).Method = 19
			return p
		}),
		"bad value": first(t, 7, func(p []wire.Payload) []wire.Payload {
			clear(p[1].(*wire.KE).Data)
			return p
		}),
		"critical": first(t, 8, func(p []wire.Payload) []wire.Payload {
			return append(p, &wire.Unknown{Kind: 200, Critical: true})
		}),
	} {
		if answer := b.stranger("198.51.100.1", data); len(answer) == 0 || len(answer) > len(data) {
			t.Errorf("%s: %d bytes for %d", name, len(answer), len(data))
		}
	}
}

// TestFloodIsBounded: a flood that answers cookies fills its own prefix only, and
// MaxHalfOpen is the end.
func TestFloodIsBounded(t *testing.T) {
	r, b := anyB(t, Limits{MaxHalfOpen: 64, CookieHalfOpen: 1 << 20, CookieAddress: 1 << 20})
	b.m.limits.CookieAddress = 3
	spi := wire.SPI(100)
	for i := range 300 {
		from := fmt.Sprintf("198.51.100.%d", i%256)
		data := first(t, spi, nil)
		if n := notifyIn(t, b.stranger(from, data), wire.NotifyCookie); n != nil {
			b.stranger(from, first(t, spi, withCookie(n.Data)))
		}
		spi++
	}
	if n := b.m.HalfOpen(); n > 4 {
		t.Errorf("one /24 has %d half-open of 64", n)
	}
	for i := range 300 {
		b.stranger(fmt.Sprintf("203.0.%d.1", i%256), first(t, spi, nil))
		spi++
	}
	if n := b.m.HalfOpen(); n != 64 {
		t.Errorf("%d half-open of 64", n)
	}
	if len(b.events) > 3*strangerEvents {
		t.Errorf("%d events for a flood in no time", len(b.events))
	}
	r.run(time.Minute)
	b.wantNothingLeft()
}

// BenchmarkCookie is what a spoofed IKE_SA_INIT costs under load.
func BenchmarkCookie(b *testing.B) {
	_, e := anyB(b, Limits{})
	e.m.limits.CookieHalfOpen = -1
	data := first(b, 1, nil)
	from := netip.MustParseAddrPort("198.51.100.7:500")
	for b.Loop() {
		e.m.Step(0, Packet{Local: netip.AddrPortFrom(addrB, 500), Remote: from, Data: data})
	}
}
