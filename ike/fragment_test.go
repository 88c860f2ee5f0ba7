package ike

import (
	"bytes"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
)

// fragmented is an established pair, and what makes fragments of A's next request.
type fragmented struct {
	t    *testing.T
	r    *rig
	a, b *end
	sa   *ikeSA // A's
	path datagram
}

func newFragmented(t *testing.T) *fragmented {
	r, a, b := pair(t, nil)
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	r.wantUp(a, b, 1)
	f := &fragmented{t: t, r: r, a: a, b: b, sa: a.establishedSAs()[0]}
	f.path = r.sent[len(r.sent)-2]
	return f
}

// seal makes one fragment, authentic whatever it says.
func (f *fragmented) seal(number, total int, first wire.PayloadType, inner []byte) []byte {
	h := f.a.m.header(f.sa, wire.Informational, f.sa.ours.next, false)
	p := wire.Protected{First: first, Fragment: uint16(number), Total: uint16(total)}
	return f.a.m.sealOne(f.sa, h, p, inner)
}

// give hands a message to B, and tells the drop that it was, and whether B
// answered.
func (f *fragmented) give(data []byte) (drop string, answered bool) {
	before := f.b.m.Stats()
	sent := len(f.r.sent)
	f.b.step(Packet{Local: f.path.to, Remote: f.path.from, NATT: f.path.natt, Data: data})
	for name, n := range f.b.m.Stats() {
		if n > before[name] {
			drop = name
		}
	}
	return drop, len(f.r.sent) > sent
}

func (f *fragmented) want(data []byte, drop string, answered bool) {
	f.t.Helper()
	if d, a := f.give(data); d != drop || a != answered {
		f.t.Errorf("got drop %q and an answer: %t; want %q and %t", d, a, drop, answered)
	}
}

// inside is the inside of an INFORMATIONAL with a vendor payload of n bytes.
func inside(n int) (wire.PayloadType, []byte) {
	return wire.AppendPayloads(nil, &wire.Vendor{Data: make([]byte, n)})
}

// TestCK07_RFC7383_FragmentsInAnyOrder: they come backwards and twice, and the
// answer to the whole comes again for the first fragment alone.
func TestCK07_RFC7383_FragmentsInAnyOrder(t *testing.T) {
	f := newFragmented(t)
	kind, inner := inside(300)
	parts := [][]byte{f.seal(1, 3, kind, inner[:100]), f.seal(2, 3, 0, inner[100:200]), f.seal(3, 3, 0, inner[200:])}
	f.want(parts[2], "", false)
	f.want(parts[2], "fragment_duplicate", false)
	f.want(parts[1], "", false)
	f.want(parts[0], "", true)
	f.want(parts[1], "duplicate_fragment", false)
	f.want(parts[2], "duplicate_fragment", false)
	f.want(parts[0], "duplicate_requests", true)
	// RFC 7383 2.5.2: the retransmission may be cut anew.
	f.want(f.seal(1, 4, kind, inner[:50]), "duplicate_requests", true)
}

// TestCK07_FragmentAbuse: each of these is dropped, and the message comes together
// all the same.
func TestCK07_FragmentAbuse(t *testing.T) {
	f := newFragmented(t)
	kind, inner := inside(300)
	good := [][]byte{f.seal(1, 3, kind, inner[:100]), f.seal(2, 3, 0, inner[100:200]), f.seal(3, 3, 0, inner[200:])}
	f.want(good[0], "", false)
	number := func(n, total byte) []byte {
		data := bytes.Clone(good[1])
		data[33], data[35] = n, total // behind the header and the generic header
		return data
	}
	f.want(number(0, 3), "malformed", false)
	f.want(number(4, 3), "malformed", false)
	f.want(number(1, 0), "malformed", false)
	f.want(number(3, 3), "not_authentic", false)
	f.want(f.seal(2, 2, 0, inner[100:200]), "fragment_of_fewer", false)
	f.want(f.seal(2, 3, wire.PayloadV, inner[100:200]), "fragment_next_payload", false)
	f.want(f.seal(2, 3, 0, nil), "fragment_empty", false)
	f.want(f.seal(2, 257, 0, inner[100:200]), "fragment_too_many", false)
	f.want(f.seal(2, 65535, 0, inner[100:200]), "fragment_too_many", false)
	f.want(f.seal(1, 3, kind, inner[:50]), "fragment_duplicate", false)
	begin := wire.BeginProtected(f.a.m.header(f.sa, wire.Informational, f.sa.ours.next, false),
		[]wire.Payload{&wire.Unknown{Kind: 200, Data: []byte{1}}}, wire.Protected{Fragment: 2, Total: 3}, f.sa.keys.SealedLen(100))
	f.want(f.sa.keys.Seal(true, begin, inner[100:200], nil), "payloads_outside", false)
	f.want(good[2], "", false)
	f.want(good[1], "", true)
}

// TestCK07_FragmentMemory: a message is not put together beyond its limit, a cut of
// more fragments starts over, and nothing is kept twice.
func TestCK07_FragmentMemory(t *testing.T) {
	f := newFragmented(t)
	f.b.m.limits.FragmentMessage = 10_000
	part := make([]byte, 1000)
	for n := 1; n <= 10; n++ {
		f.want(f.seal(n, 200, 0, part), "", false)
	}
	f.want(f.seal(11, 200, 0, part), "fragment_message_too_long", false)
	w := &f.b.establishedSAs()[0].theirs
	if w.parts.bytes != 0 || w.parts.total != 0 {
		t.Errorf("%d bytes of %d fragments are kept", w.parts.bytes, w.parts.total)
	}
	kind, inner := inside(300)
	f.want(f.seal(1, 2, kind, inner[:100]), "", false)
	f.want(f.seal(1, 3, kind, inner[:100]), "", false) // cut anew: the first cut is forgotten
	f.want(f.seal(2, 2, 0, inner[100:]), "fragment_of_fewer", false)
	f.want(f.seal(2, 3, 0, inner[100:200]), "", false)
	f.want(f.seal(3, 3, 0, inner[200:]), "", true)
}

// TestCK07_RFC7383_NotNegotiated: fragments are only taken where both ends said so.
func TestCK07_RFC7383_NotNegotiated(t *testing.T) {
	f := newFragmented(t)
	f.b.establishedSAs()[0].fragmentation = false
	kind, inner := inside(10)
	f.want(f.seal(1, 1, kind, inner), "fragment_not_negotiated", false)
	r, a, b := pair(t, func(pa, _ *Peer) { pa.Fragmentation = false })
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	r.wantUp(a, b, 1)
	if a.establishedSAs()[0].fragmentation || b.establishedSAs()[0].fragmentation {
		t.Error("fragmentation is on, and A did not offer it")
	}
}

// TestRFC7296_2_21_3_BadSyntax: an authentic request that makes no sense ends the
// IKE SA on both ends.
func TestRFC7296_2_21_3_BadSyntax(t *testing.T) {
	f := newFragmented(t)
	h := f.a.m.header(f.sa, wire.Informational, f.sa.ours.next, false)
	f.b.step(Packet{Local: f.path.to, Remote: f.path.from, NATT: f.path.natt, Data: f.a.m.sealOne(f.sa, h, wire.Protected{First: wire.PayloadSA}, []byte{1, 2, 3})})
	if n := len(f.b.establishedSAs()); n != 0 {
		t.Errorf("%d IKE SAs are left", n)
	}
	if len(f.b.failures()) != 1 || f.b.failures()[0].Reason != "invalid_syntax" {
		t.Errorf("log:\n%s", lines(f.b.log))
	}
}

// TestRFC7296_2_21_3_InvalidSyntaxIsFatalInBothPeers: also where it is not the form of
// the message that makes no sense. Neither end sends a Delete.
func TestRFC7296_2_21_3_InvalidSyntaxIsFatalInBothPeers(t *testing.T) {
	zeros := func(l *letter) bool {
		ke := wire.First[*wire.KE](l.Payloads)
		if ke == nil {
			return false
		}
		ke.Data = make([]byte, len(ke.Data)) // RFC 7748 6.1: the secret would be zero
		return true
	}
	shortNonce := func(l *letter) bool {
		n := wire.First[*wire.Nonce](l.Payloads)
		if n == nil {
			return false
		}
		n.Data = n.Data[:16] // less than half of what the PRF wants
		return true
	}
	for _, c := range []struct {
		name  string
		begin func(a *end)
		rule  func(*letter) bool
		on    wire.ExchangeType
	}{
		{"the KE payload of a rekey of the IKE SA", func(a *end) { a.step(Rekey{Peer: "B"}) }, zeros, wire.CreateChildSA},
		{"the KE payload of a rekey of a Child SA", func(a *end) { a.expire("lan", true) }, zeros, wire.CreateChildSA},
		{"the nonce of a rekey of a Child SA", func(a *end) { a.expire("lan", true) }, shortNonce, wire.CreateChildSA},
		{"the KE payload of IKE_FOLLOWUP_KE", func(a *end) { a.expire("lan", true) }, zeros, wire.IKEFollowupKE},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, a, b := up(t, func(a, b *Peer) {
				esp := "aes128gcm16-x25519-ke1_ecp256-esn"
				change(a, b, "aes256gcm16-prfsha512-x25519", esp, esp)
			})
			changed, deletes := 0, 0
			r.impair(a, func(l *letter) bool {
				if wire.First[*wire.Delete](l.Payloads) != nil {
					deletes++
				}
				if l.is(c.on, false) && c.rule(l) {
					changed++
					return true
				}
				return false
			})
			c.begin(a)
			r.run(200 * time.Millisecond)
			if changed != 1 || deletes != 0 {
				t.Errorf("%d messages changed, %d deletes, want 1 and 0", changed, deletes)
			}
			for _, e := range []*end{a, b} {
				if len(e.establishedSAs()) != 0 || len(e.sad) != 0 {
					t.Errorf("%s has %d IKE SAs and %d SAs, want none", e.name, len(e.establishedSAs()), len(e.sad))
				}
				if len(e.failures()) != 1 {
					t.Errorf("%s, want one failure:\n%s", e.name, lines(e.log))
				}
			}
		})
	}
}

// TestRFC7296_2_5_Critical: a payload that is unknown and critical has its request
// refused, and nothing else.
func TestRFC7296_2_5_Critical(t *testing.T) {
	f := newFragmented(t)
	kind, inner := wire.AppendPayloads(nil, &wire.Unknown{Kind: 200, Critical: true, Data: []byte{1}})
	f.want(f.seal(1, 1, kind, inner), "bad_requests", true)
	f.r.wantUp(f.a, f.b, 1)
}
