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
	"github.com/adit-ipsec/adit/sad"
)

// The hooks of strongSwan's conftest (src/conftest/hooks), by their names. log_id,
// log_ke, log_proposals and log_ts only look on; TestVerboseTouchesNothing holds that
// of our own log. reset_seq is about the sequence numbers of ESP: the window of
// package sad has it.

// eachKnown sets bits of the second byte of every generic header: 0x80 is Critical,
// the others are reserved.
func eachKnown(bits byte) func(*letter) bool {
	return func(l *letter) bool {
		return l.bytesOf(func(b []byte, _ wire.PayloadType, at, _ int) { b[at+1] |= bits })
	}
}

// setReserved sets every reserved byte that a payload has behind its generic header.
func setReserved(b []byte, t wire.PayloadType, at, length int) {
	switch t {
	case wire.PayloadSA:
		reservedInSA(b, t, at, length)
	case wire.PayloadKE:
		b[at+6], b[at+7] = 0xff, 0xff
	case wire.PayloadAUTH, wire.PayloadTSi, wire.PayloadTSr:
		b[at+5], b[at+6], b[at+7] = 0xff, 0xff, 0xff
	}
}

// lengthOf sets the length field of the payloads of a type.
func lengthOf(kind wire.PayloadType, set func(length int) int) func(*letter) bool {
	return func(l *letter) bool {
		return l.bytesOf(func(b []byte, t wire.PayloadType, at, length int) {
			if t == kind {
				binary.BigEndian.PutUint16(b[at+2:], uint16(set(length)))
			}
		})
	}
}

func reversed(l *letter) bool {
	slices.Reverse(l.Payloads)
	return true
}

// numbered sets the numbers of proposals: the first is n, and so on.
func numbered(n uint8, step uint8) func(*letter) bool {
	return func(l *letter) bool {
		sa := wire.First[*wire.SA](l.Payloads)
		if sa == nil {
			return false
		}
		for i := range sa.Proposals {
			sa.Proposals[i].Number = n
			n += step
		}
		return true
	}
}

func version(major, minor uint8) func(*letter) bool {
	return func(l *letter) bool { l.Major, l.Minor = major, minor; return true }
}

func flags(f func(wire.Flags) wire.Flags) func(*letter) bool {
	return func(l *letter) bool { l.Flags = f(l.Flags); return true }
}

func conftestInit() []impairment {
	add := func(p ...wire.Payload) func(*letter) bool { return func(l *letter) bool { return l.add(p...) } }
	more := func(n int) int { return n + 1 }
	huge := func(int) int { return 65535 }
	zero := func(int) int { return 0 }
	toggleI := flags(func(f wire.Flags) wire.Flags { return f ^ wire.FlagInitiator })
	toggleR := flags(func(f wire.Flags) wire.Flags { return f ^ wire.FlagResponse })
	return []impairment{
		{name: "add_notify status in IKE_SA_INIT", by: "A", rule: onInit(add(&wire.Notify{Kind: 40500, Data: []byte("x")})), up: true},
		{name: "add_notify status in IKE_SA_INIT", by: "B", rule: onInitAnswer(add(&wire.Notify{Kind: 40500, Data: []byte("x")})), up: true},
		{name: "add_notify error in IKE_SA_INIT", by: "A", rule: onInit(add(&wire.Notify{Kind: 4242})), up: true},
		{name: "add_notify error in IKE_SA_INIT", by: "B", rule: onInitAnswer(add(&wire.Notify{Kind: 4242})), reason: "unknown_error"},
		{name: "add_payload vendor", rule: func(l *letter) bool { return l.add(&wire.Vendor{Data: []byte("conftest")}) }, up: true},
		{name: "add_payload 128", rule: func(l *letter) bool { return l.add(&wire.Unknown{Kind: 128, Data: []byte("conftest")}) }, up: true},
		{name: "set_critical", rule: eachKnown(0x80), up: true},
		{name: "set_reserved bits of generic headers", rule: eachKnown(0x7f), up: true},
		{name: "set_reserved bytes", rule: func(l *letter) bool { return l.bytesOf(setReserved) }, up: true},
		{name: "unsort_message", rule: func(l *letter) bool { return reversed(l) }, up: true},
		{name: "set_ike_version 2.15", rule: version(2, 15), up: true},
		{name: "set_ike_version 1.0", by: "A", rule: onInit(version(1, 0)), stat: "lower_version"},
		{name: "set_ike_version 3.0", by: "A", rule: onInit(version(3, 0)), stat: "higher_version"},
		{name: "set_ike_version 15.15", by: "B", rule: onInitAnswer(version(15, 15)), stat: "higher_version", reason: "timeout"},
		{name: "set_ike_version 3.0 in IKE_AUTH", by: "A", rule: onAuth(version(3, 0)), stat: "higher_version", reason: "half_open_expired"},
		{name: "set_ike_initiator in IKE_SA_INIT", by: "A", rule: onInit(toggleI), stat: "init_header"},
		{name: "set_ike_initiator in IKE_SA_INIT", by: "B", rule: onInitAnswer(toggleI), reason: "timeout"},
		{name: "set_ike_initiator in IKE_AUTH", by: "A", rule: onAuth(toggleI), reason: "half_open_expired"},
		{name: "set_ike_initiator in IKE_AUTH", by: "B", rule: onAuthAnswer(toggleI), reason: "timeout"},
		{name: "set_ike_request in IKE_SA_INIT", by: "A", rule: onInit(toggleR), stat: "no_ike_sa"},
		{name: "set_ike_request in IKE_SA_INIT", by: "B", rule: onInitAnswer(toggleR), stat: "init_header", reason: "timeout"},
		{name: "set_ike_request in IKE_AUTH", by: "A", rule: onAuth(toggleR), stat: "stale_response", reason: "half_open_expired"},
		{name: "set_ike_request in IKE_AUTH", by: "B", rule: onAuthAnswer(toggleR), reason: "timeout"},
		{name: "set_ike_spi", by: "A", rule: onAuth(func(l *letter) bool { l.Initiator, l.Responder = 1, 2; return true }), stat: "no_ike_sa", reason: "half_open_expired"},
		{name: "set_length SA more", by: "A", rule: onInit(lengthOf(wire.PayloadSA, more)), stat: "malformed"},
		{name: "set_length nonce 65535", by: "A", rule: onInit(lengthOf(wire.PayloadNonce, huge)), stat: "malformed"},
		{name: "set_length KE 0", by: "A", rule: onInit(lengthOf(wire.PayloadKE, zero)), stat: "malformed"},
		{name: "set_length KE 0", by: "B", rule: onInitAnswer(lengthOf(wire.PayloadKE, zero)), stat: "malformed", reason: "bad_answer"},
		{name: "set_length AUTH more", by: "A", rule: onAuth(lengthOf(wire.PayloadAUTH, more)), stat: "bad_requests", reason: "invalid_syntax"},
		{name: "set_length IDi 0", by: "A", rule: onAuth(lengthOf(wire.PayloadIDi, zero)), stat: "bad_requests", reason: "invalid_syntax"},
		{name: "set_length TSr 65535", by: "A", rule: onAuth(lengthOf(wire.PayloadTSr, huge)), stat: "bad_requests", reason: "invalid_syntax"},
		{name: "set_length AUTH more", by: "B", rule: onAuthAnswer(lengthOf(wire.PayloadAUTH, more)), stat: "bad_answers", reason: "invalid_syntax"},
		{name: "set_proposal_number 0", by: "A", rule: onInit(numbered(0, 1)), reason: "", stat: "init_schema"},
		{name: "set_proposal_number 5", by: "A", rule: onInit(numbered(5, 1)), stat: "init_schema"},
		{name: "set_proposal_number 2", by: "B", rule: onInitAnswer(numbered(2, 1)), stat: "init_answer_rubbish", reason: "bad_answer"},
		{name: "set_proposal_number 2 in IKE_AUTH", by: "B", rule: onAuthAnswer(numbered(2, 1)), reason: "bad_proposal", childless: true},
		{name: "unencrypted_notify in IKE_AUTH", by: "B", rule: onAuthAnswer(func(l *letter) bool {
			l.sealed, l.Payloads = false, []wire.Payload{&wire.Notify{Kind: wire.NotifyAuthenticationFailed}}
			return true
		}), stat: "unprotected", reason: "timeout"},
		{name: "unencrypted_notify in IKE_AUTH", by: "A", rule: onAuth(func(l *letter) bool { l.sealed = false; return true }), stat: "unprotected", reason: "half_open_expired"},
	}
}

// TestCK03_StrongSwanConftest goes through what the hooks of strongSwan's conftest do
// to messages: see TestCK02_LibreswanImpair for what is held.
func TestCK03_StrongSwanConftest(t *testing.T) {
	all := conftestInit()
	uniqueNames(t, all)
	for i := range all {
		all[i].run(t)
	}
}

// TestCK03_StrongSwanCustomProposal: custom_proposal. Whatever is offered, what comes of
// it is what this end has itself, or nothing.
func TestCK03_StrongSwanCustomProposal(t *testing.T) {
	for _, c := range []struct {
		name       string
		transforms []wire.Transform
		up         bool
	}{
		{"nothing", nil, false},
		{"all of it twice", []wire.Transform{{Type: wire.ENCR, ID: 20, KeyBits: 128}, {Type: wire.ENCR, ID: 20, KeyBits: 128}, {Type: wire.PRF, ID: 5}, {Type: wire.PRF, ID: 5}, {Type: wire.KEX, ID: 31}}, true},
		{"the right one last", []wire.Transform{{Type: wire.ENCR, ID: 3}, {Type: wire.ENCR, ID: 20, KeyBits: 128}, {Type: wire.PRF, ID: 2}, {Type: wire.PRF, ID: 5}, {Type: wire.KEX, ID: 2}, {Type: wire.KEX, ID: 31}}, true},
		{"DES", []wire.Transform{{Type: wire.ENCR, ID: 2}, {Type: wire.INTEG, ID: 1}, {Type: wire.PRF, ID: 1}, {Type: wire.KEX, ID: 1}}, false},
		{"no cipher", []wire.Transform{{Type: wire.PRF, ID: 5}, {Type: wire.KEX, ID: 31}}, false},
		{"no PRF", []wire.Transform{{Type: wire.ENCR, ID: 20, KeyBits: 128}, {Type: wire.KEX, ID: 31}}, false},
		{"an attribute that nobody knows", []wire.Transform{{Type: wire.ENCR, ID: 20, KeyBits: 128, Unknown: true}, {Type: wire.PRF, ID: 5}, {Type: wire.KEX, ID: 31}}, false},
		{"integrity beside an AEAD cipher", []wire.Transform{{Type: wire.ENCR, ID: 20, KeyBits: 128}, {Type: wire.INTEG, ID: 12}, {Type: wire.PRF, ID: 5}, {Type: wire.KEX, ID: 31}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, a, b := pair(t, nil)
			r.impair(a, onInit(func(l *letter) bool {
				return l.transforms(func([]wire.Transform) []wire.Transform { return c.transforms })
			}))
			a.step(Initiate{Peer: "B"})
			r.run(2 * time.Second)
			if up := len(b.establishedSAs()) == 1; up != c.up {
				t.Errorf("up: %t; stats %v, log:\n%s", up, b.m.Stats(), lines(b.log))
			}
		})
	}
}

// TestCK03_StrongSwanForceCookie: force_cookie. The initiator brings it back.
func TestCK03_StrongSwanForceCookie(t *testing.T) {
	for _, n := range []int{1, 8, 64} {
		r, a, b := pair(t, nil)
		asked := false
		r.impair(b, onInitAnswer(func(l *letter) bool {
			if asked {
				return false
			}
			asked = true
			l.Responder, l.Payloads = 0, []wire.Payload{&wire.Notify{Kind: wire.NotifyCookie, Data: make([]byte, n)}}
			return true
		}))
		a.step(Initiate{Peer: "B"})
		r.run(2 * time.Second)
		r.wantUp(a, b, 1)
		if a.m.Stats()["init_again_cookie"] != 1 {
			t.Errorf("stats %v", a.m.Stats())
		}
	}
}

// TestCK03_StrongSwanIgnoreMessage: ignore_message, inbound and outbound, for each
// message of the first exchanges and of a rekey: once, and it is said again; for ever,
// and it is given up.
func TestCK03_StrongSwanIgnoreMessage(t *testing.T) {
	for n := 1; n <= 6; n++ {
		for _, always := range []bool{false, true} {
			r, a, b := pair(t, nil)
			count := 0
			lost := map[string]bool{}
			r.fate = func(d *datagram) []time.Duration {
				count++
				h := d.header()
				key := fmt.Sprint(d.by.name, h.Exchange, h.Response(), h.MessageID)
				if lost[key] || count == n {
					lost[key] = always
					return nil
				}
				return []time.Duration{r.latency}
			}
			a.step(Initiate{Peer: "B"})
			r.run(2 * time.Second)
			a.step(Rekey{Peer: "B", Policy: "lan"})
			r.run(5 * time.Minute)
			r.fate = nil
			if !always {
				r.wantUp(a, b, 1)
				continue
			}
			if len(a.failures()) == 0 {
				t.Errorf("message %d is never heard, and A does not say so", n)
			}
			if len(a.establishedSAs()) > 0 || len(a.sad) > 0 {
				t.Errorf("message %d is never heard, and A has %d IKE SAs", n, len(a.establishedSAs()))
			}
		}
	}
}

// TestCK03_StrongSwanIKEAuthFill: ike_auth_fill. IKE_AUTH of any length, in one
// datagram.
func TestCK03_StrongSwanIKEAuthFill(t *testing.T) {
	for _, n := range []int{1000, 1500, 9000, 60000} {
		r, a, b := pair(t, nil)
		r.impair(a, onAuth(func(l *letter) bool { return l.add(&wire.Vendor{Data: make([]byte, n)}) }))
		a.step(Initiate{Peer: "B"})
		r.run(2 * time.Second)
		r.wantUp(a, b, 1)
	}
}

// TestCK03_StrongSwanPretendAuth: pretend_auth. A peer without the secret goes on as if
// it were authenticated: as the initiator with CREATE_CHILD_SA and INFORMATIONAL where
// IKE_AUTH should be, and as a responder that answers IKE_AUTH with AUTH of its own.
func TestCK03_StrongSwanPretendAuth(t *testing.T) {
	for _, x := range []wire.ExchangeType{wire.CreateChildSA, wire.Informational, wire.IKEFollowupKE} {
		r, a, b := pair(t, nil)
		r.impair(a, onAuth(func(l *letter) bool {
			l.Exchange = x
			l.drop(wire.PayloadAUTH)
			l.drop(wire.PayloadIDi)
			l.drop(wire.PayloadIDr)
			return l.add(&wire.Nonce{Data: make([]byte, 32)})
		}))
		a.step(Initiate{Peer: "B"})
		r.run(2 * time.Second)
		if len(b.establishedSAs()) != 0 || len(b.sad) != 0 || b.m.Stats()["request_in_wrong_state"] == 0 {
			t.Errorf("%s: %d established, stats %v", x, len(b.establishedSAs()), b.m.Stats())
		}
	}
	for _, n := range []int{0, 1, 32, 64} {
		r, a, b := pair(t, nil)
		r.impair(b, onAuthAnswer(func(l *letter) bool {
			wire.First[*wire.Auth](l.Payloads).Data = make([]byte, n)
			return true
		}))
		a.step(Initiate{Peer: "B"})
		r.run(2 * time.Second)
		if len(a.establishedSAs()) != 0 || len(a.sad) != 0 {
			t.Errorf("AUTH of %d zeros: established", n)
		}
		a.wantFailure(StageAuth, map[bool]string{true: "invalid_syntax", false: "auth_failed"}[n == 0])
	}
}

// TestCK03_StrongSwanRebuildAuth: rebuild_auth. Somebody who has the secret says to be
// somebody else, and signs that: the identity is what decides. The same for another
// secret, with the right identity.
func TestCK03_StrongSwanRebuildAuth(t *testing.T) {
	for _, c := range []struct {
		name, as, secret, reason string
	}{
		{"itself", "a.example.net", testPSK, ""},
		{"reserved bytes that are not zero", "a.example.net", testPSK, ""},
		{"another name", "admin.example.net", testPSK, "wrong_identity"},
		{"our own name", "b.example.net", testPSK, "wrong_identity"},
		{"a name within", "x.a.example.net", testPSK, "wrong_identity"},
		{"a zero byte", "a.example.net\x00.evil.example", testPSK, "bad_identity"},
		{"the address", "192.0.2.1", testPSK, "wrong_identity"},
		{"another secret", "a.example.net", "another secret, of 256 bits or so: 5b1d07", "auth_failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, a, b := pair(t, nil)
			r.impair(a, onAuth(func(l *letter) bool {
				id := wire.FindID(l.Payloads, false)
				id.Data = []byte(c.as)
				if strings.HasPrefix(c.name, "reserved") {
					id.Reserved = [3]byte{1, 2, 3} // libreswan's send-nonzero-reserved-id
				}
				if c.as == "192.0.2.1" {
					id.Kind, id.Data = wire.IDIPv4Addr, addrA.AsSlice()
				}
				local := auth.Local{ID: identity(t, "a.example.net"), PSK: sad.Key(c.secret)}
				return l.sign(local, id.Body())
			}))
			a.step(Initiate{Peer: "B"})
			r.run(2 * time.Second)
			if c.reason == "" {
				r.wantUp(a, b, 1)
				return
			}
			if f := b.failures(); len(f) != 1 || f[0].Stage != StageAuth || len(b.establishedSAs())+len(b.sad) != 0 {
				t.Errorf("log:\n%s", lines(b.log))
			} else if f[0].Reason != c.reason {
				t.Errorf("reason %s, want %s", f[0].Reason, c.reason)
			}
		})
	}
}

// TestCK03_StrongSwanUnencryptedNotify: unencrypted_notify on an established IKE SA.
// Nothing that is not protected changes anything (RFC 7296 2.4: an endpoint "MUST NOT
// conclude that the other endpoint has failed based on any routing information (e.g.,
// ICMP messages) or IKE messages that arrive without cryptographic protection").
func TestCK03_StrongSwanUnencryptedNotify(t *testing.T) {
	for _, kind := range []wire.NotifyType{
		wire.NotifyInvalidIKESPI, wire.NotifyInvalidMajorVersion, wire.NotifyInvalidSyntax, wire.NotifyInvalidMessageID, wire.NotifyInvalidSPI,
		wire.NotifyAuthenticationFailed, wire.NotifyInitialContact, wire.NotifyUpdateSAAddresses, wire.NotifyCookie, wire.NotifyRedirect, 12345,
	} {
		for _, response := range []bool{false, true} {
			r, a, b := up(t, nil)
			sent := len(r.sent)
			sa := a.establishedSAs()[0]
			before := b.m.Stats()
			h := a.m.header(sa, wire.Informational, sa.ours.next, response)
			p := Packet{Local: sa.path.remote, Remote: sa.path.local, NATT: sa.path.natt}
			for _, x := range []wire.ExchangeType{wire.Informational, wire.CreateChildSA, wire.IKEAuth, wire.IKESAInit} {
				h.Exchange = x
				p.Data = wire.Append(nil, h, &wire.Notify{Kind: kind, Data: make([]byte, 4)}, &wire.Delete{Protocol: wire.ProtocolIKE})
				b.step(p)
			}
			after := b.m.Stats()
			if len(r.sent) != sent || after["established"] != before["established"] {
				t.Errorf("%s, response %t: B answers or has changed: %v", kind, response, after)
			}
			r.run(time.Second)
			r.wantSettled(a, b, 1)
			if n := len(b.failures()); n != 0 {
				t.Errorf("%s: %d failures", kind, n)
			}
		}
	}
}
