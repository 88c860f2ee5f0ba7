package ike

import (
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
)

// on makes a rule for one message only.
func on(x wire.ExchangeType, response bool, f func(*letter) bool) func(*letter) bool {
	return func(l *letter) bool { return l.is(x, response) && f(l) }
}

// The messages of a handshake.
func onInit(f func(*letter) bool) func(*letter) bool { return on(wire.IKESAInit, false, f) }

func onInitAnswer(f func(*letter) bool) func(*letter) bool { return on(wire.IKESAInit, true, f) }

func onAuth(f func(*letter) bool) func(*letter) bool { return on(wire.IKEAuth, false, f) }

func onAuthAnswer(f func(*letter) bool) func(*letter) bool { return on(wire.IKEAuth, true, f) }

// transforms changes the transforms of every proposal.
func (l *letter) transforms(f func([]wire.Transform) []wire.Transform) bool {
	sa := wire.First[*wire.SA](l.Payloads)
	if sa == nil {
		return false
	}
	for i := range sa.Proposals {
		sa.Proposals[i].Transforms = f(sa.Proposals[i].Transforms)
	}
	return true
}

func without(kind wire.TransformType) func(*letter) bool {
	return func(l *letter) bool {
		return l.transforms(func(all []wire.Transform) (out []wire.Transform) {
			for _, t := range all {
				if t.Type != kind {
					out = append(out, t)
				}
			}
			return out
		})
	}
}

func with(more ...wire.Transform) func(*letter) bool {
	return func(l *letter) bool {
		return l.transforms(func(all []wire.Transform) []wire.Transform { return append(all, more...) })
	}
}

// keyBits sets the Key Length attribute of every cipher; 0 leaves it out.
func keyBits(n uint16) func(*letter) bool {
	return func(l *letter) bool {
		return l.transforms(func(all []wire.Transform) []wire.Transform {
			for i := range all {
				if all[i].Type == wire.ENCR {
					all[i].KeyBits = n
				}
			}
			return all
		})
	}
}

// ke changes the KE payload.
func ke(f func(*wire.KE)) func(*letter) bool {
	return func(l *letter) bool {
		k := wire.First[*wire.KE](l.Payloads)
		if k == nil {
			return false
		}
		f(k)
		return true
	}
}

func fill(n byte) func(*letter) bool {
	return ke(func(k *wire.KE) {
		for i := range k.Data {
			k.Data[i] = n
		}
	})
}

// cbc has both ends agree on a cipher with an integrity algorithm.
func cbc(t testing.TB) func(a, b *Peer) {
	return func(a, b *Peer) {
		a.Proposals = proposals(t, wire.ProtocolIKE, "aes128-sha256-x25519")
		b.Proposals = a.Proposals
		a.Children[0].Proposals = proposals(t, wire.ProtocolESP, "aes128-sha256-esn")
		b.Children[0].Proposals = a.Children[0].Proposals
	}
}

const unknownPayload = 200

// impairInit are the hooks of libreswan's impair.c about IKE_SA_INIT.
func impairInit(t testing.TB) []impairment {
	bogus := wire.Transform{Type: wire.ENCR, ID: 65000}
	unknownType := wire.Transform{Type: 241, ID: 1}
	x := func(p ...wire.Payload) func(*letter) bool { return func(l *letter) bool { return l.add(p...) } }
	flag := func(at int, bits byte) func(*letter) bool {
		return func(l *letter) bool {
			l.whole = func(b []byte) []byte { b[at] |= bits; return b }
			return true
		}
	}
	return []impairment{
		{name: "ike-key-length-attribute omit", by: "A", rule: onInit(keyBits(0)), stat: "init_no_proposal", reason: "no_proposal_chosen"},
		{name: "ike-key-length-attribute 129", by: "A", rule: onInit(keyBits(129)), stat: "init_no_proposal", reason: "no_proposal_chosen"},
		{name: "ike-key-length-attribute 65535", by: "A", rule: onInit(keyBits(65535)), stat: "init_no_proposal", reason: "no_proposal_chosen"},
		{name: "ike-key-length-attribute omit", by: "B", rule: onInitAnswer(keyBits(0)), stat: "init_answer_rubbish", reason: "bad_answer"},
		{name: "ike-key-length-attribute 256", by: "B", rule: onInitAnswer(keyBits(256)), stat: "init_answer_rubbish", reason: "bad_answer"},
		{name: "v2-proposal-integ allow-none", by: "A", rule: onInit(with(wire.Transform{Type: wire.INTEG})), up: true},
		{name: "v2-proposal-integ omit", by: "A", change: cbc(t), rule: onInit(without(wire.INTEG)), stat: "init_no_proposal", reason: "no_proposal_chosen"},
		{name: "v2-proposal-integ omit", by: "B", change: cbc(t), rule: onInitAnswer(without(wire.INTEG)), stat: "init_answer_rubbish", reason: "bad_answer"},
		{name: "v2-proposal-dh omit", by: "A", rule: onInit(without(wire.KEX)), stat: "init_no_proposal", reason: "no_proposal_chosen"},
		{name: "v2-proposal-dh none", by: "A", rule: onInit(func(l *letter) bool {
			return without(wire.KEX)(l) && with(wire.Transform{Type: wire.KEX})(l)
		}), stat: "init_no_proposal", reason: "no_proposal_chosen"},
		{name: "v2-proposal-dh omit", by: "B", rule: onInitAnswer(without(wire.KEX)), stat: "init_answer_rubbish", reason: "bad_answer"},
		{name: "ikev2-add-ike-transform", by: "A", rule: onInit(with(bogus)), up: true},
		{name: "ikev2-add-ike-transform of an unknown type", by: "A", rule: onInit(with(unknownType)), stat: "init_no_proposal", reason: "no_proposal_chosen"},
		{name: "ikev2-add-ike-transform", by: "B", rule: onInitAnswer(with(bogus)), stat: "init_answer_rubbish", reason: "bad_answer"},
		{name: "ke-payload omit", by: "A", rule: onInit(func(l *letter) bool { return l.drop(wire.PayloadKE) }), stat: "init_schema"},
		{name: "ke-payload omit", by: "B", rule: onInitAnswer(func(l *letter) bool { return l.drop(wire.PayloadKE) }), stat: "init_answer_rubbish", reason: "bad_answer"},
		{name: "ke-payload empty", by: "A", rule: onInit(ke(func(k *wire.KE) { k.Data = nil })), stat: "malformed"},
		{name: "ke-payload empty", by: "B", rule: onInitAnswer(ke(func(k *wire.KE) { k.Data = nil })), stat: "malformed", reason: "bad_answer"},
		{name: "ke-payload duplicate", by: "A", rule: onInit(func(l *letter) bool { return l.twice(wire.PayloadKE) }), stat: "init_schema"},
		{name: "ke-payload duplicate", by: "B", rule: onInitAnswer(func(l *letter) bool { return l.twice(wire.PayloadKE) }), reason: "bad_answer"},
		{name: "ke-payload 0", by: "A", rule: onInit(fill(0)), stat: "init_bad_ke", reason: "key_exchange"},
		{name: "ke-payload 0", by: "B", rule: onInitAnswer(fill(0)), stat: "init_answer_rubbish", reason: "bad_answer"},
		{name: "ke-payload 255", by: "A", rule: onInit(fill(255)), stat: "not_authentic", reason: "half_open_expired"},
		{name: "ke-payload of another group", by: "A", rule: onInit(ke(func(k *wire.KE) { k.Method = 19 })), stat: "init_invalid_ke"},
		{name: "ke-payload of another group", by: "B", rule: onInitAnswer(ke(func(k *wire.KE) { k.Method = 19 })), stat: "init_answer_rubbish", reason: "bad_answer"},
		{name: "nonce too short", by: "A", rule: onInit(nonceOf(15)), stat: "malformed"},
		{name: "nonce too long", by: "A", rule: onInit(nonceOf(257)), stat: "malformed"},
		{name: "nonce of 16", by: "A", rule: onInit(nonceOf(16)), up: true},
		{name: "nonce of 256", by: "A", rule: onInit(nonceOf(256)), up: true},
		{name: "nonce too short", by: "B", rule: onInitAnswer(nonceOf(15)), stat: "malformed", reason: "bad_answer"},
		{name: "major-version-bump", by: "A", rule: onInit(func(l *letter) bool { l.Major = 3; return true }), stat: "higher_version"},
		{name: "major-version-bump", by: "B", rule: onInitAnswer(func(l *letter) bool { l.Major = 3; return true }), stat: "higher_version", reason: "timeout"},
		{name: "minor-version-bump", rule: func(l *letter) bool { l.Minor = 1; return true }, up: true},
		{name: "send-bogus-isakmp-flag", rule: func(l *letter) bool { l.Flags |= 0x80 | 1; return true }, up: true},
		{name: "send-bogus-payload-flag", by: "A", rule: onInit(flag(wire.HeaderLen+1, 0x40)), up: true},
		{name: "send-bogus-payload-flag", by: "B", rule: onInitAnswer(flag(wire.HeaderLen+1, 0x40)), up: true},
		{name: "ike-initiator-spi", by: "A", rule: onInit(func(l *letter) bool { l.Initiator = 0; return true }), stat: "init_header"},
		{name: "ike-responder-spi", by: "A", rule: onInit(func(l *letter) bool { l.Responder = 7; return true }), stat: "init_header"},
		{name: "ike-initiator-spi", by: "B", rule: onInitAnswer(func(l *letter) bool { l.Initiator++; return true }), stat: "no_ike_sa", reason: "timeout"},
		{name: "ike-responder-spi", by: "B", rule: onInitAnswer(func(l *letter) bool { l.Responder = 0; return true }), stat: "init_answer_rubbish", reason: "bad_answer"},
		{name: "add-unknown-v2-payload-to IKE_SA_INIT", by: "A", rule: onInit(x(&wire.Unknown{Kind: unknownPayload, Data: []byte{1}})), up: true},
		{name: "add-unknown-v2-payload-to IKE_SA_INIT", by: "B", rule: onInitAnswer(x(&wire.Unknown{Kind: unknownPayload, Data: []byte{1}})), up: true},
		{name: "unknown-v2-payload-critical IKE_SA_INIT", by: "A", rule: onInit(x(&wire.Unknown{Kind: unknownPayload, Critical: true})), stat: "init_critical"},
		{name: "unknown-v2-payload-critical IKE_SA_INIT", by: "B", rule: onInitAnswer(x(&wire.Unknown{Kind: unknownPayload, Critical: true})), reason: "bad_answer"},
		{name: "omit-hash-notify", by: "A", rule: onInit(dropNotify(wire.NotifySignatureHashAlgorithms)), up: true},
		{name: "ignore-hash-notify-resp", by: "B", rule: onInitAnswer(dropNotify(wire.NotifySignatureHashAlgorithms)), up: true},
		{name: "childless-ikev2-supported omit", by: "B", rule: onInitAnswer(dropNotify(wire.NotifyChildlessIKEv2Supported)), change: func(_, b *Peer) { b.Childless = true }, up: true},
		{name: "omit-v2-notification NAT_DETECTION", rule: func(l *letter) bool {
			return l.Exchange == wire.IKESAInit && dropNotify(wire.NotifyNATDetectionSourceIP)(l) && dropNotify(wire.NotifyNATDetectionDestinationIP)(l)
		}, up: true},
		{name: "omit-v2-notification IKEV2_FRAGMENTATION_SUPPORTED", rule: func(l *letter) bool {
			return l.Exchange == wire.IKESAInit && dropNotify(wire.NotifyFragmentationSupported)(l)
		}, up: true},
		{name: "send-bogus-dcookie", by: "A", rule: onInit(func(l *letter) bool {
			l.Payloads = append([]wire.Payload{&wire.Notify{Kind: wire.NotifyCookie, Data: []byte("bogus")}}, l.Payloads...)
			return true
		}), up: true},
		{name: "send-bogus-dcookie too long", by: "B", rule: onInitAnswer(func(l *letter) bool {
			l.Payloads = []wire.Payload{&wire.Notify{Kind: wire.NotifyCookie, Data: make([]byte, 65)}}
			return true
		}), reason: "bad_answer"},
	}
}

func nonceOf(n int) func(*letter) bool {
	return func(l *letter) bool {
		p := wire.First[*wire.Nonce](l.Payloads)
		p.Data = append(make([]byte, 0, n), p.Data[:min(n, len(p.Data))]...)
		p.Data = p.Data[:n:n]
		return true
	}
}

func dropNotify(kind wire.NotifyType) func(*letter) bool {
	return func(l *letter) bool {
		var out []wire.Payload
		for _, p := range l.Payloads {
			if n, ok := p.(*wire.Notify); !ok || n.Kind != kind {
				out = append(out, p)
			}
		}
		changed := len(out) != len(l.Payloads)
		l.Payloads = out
		return changed
	}
}

// impairAuth are those about IKE_AUTH.
func impairAuth(t testing.TB) []impairment {
	add := func(p ...wire.Payload) func(*letter) bool { return func(l *letter) bool { return l.add(p...) } }
	corrupt := func(l *letter) bool {
		l.whole = func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
		return true
	}
	exchange := func(x wire.ExchangeType) func(*letter) bool {
		return func(l *letter) bool { l.Exchange = x; return true }
	}
	null := func(l *letter) bool {
		return l.transforms(func([]wire.Transform) []wire.Transform {
			return []wire.Transform{{Type: wire.ENCR, ID: 11}, {Type: wire.ESN, ID: 1}}
		})
	}
	noChild := func(l *letter) bool {
		return l.drop(wire.PayloadSA) && l.drop(wire.PayloadTSi) && l.drop(wire.PayloadTSr)
	}
	return []impairment{
		{name: "bad-ikev2-auth-xchg", by: "B", rule: onAuthAnswer(exchange(wire.Informational)), stat: "response_of_another_exchange", reason: "timeout"},
		{name: "bad-ikev2-auth-xchg", by: "A", rule: onAuth(exchange(wire.Informational)), stat: "request_in_wrong_state", reason: "half_open_expired"},
		{name: "bad-ikev2-auth-xchg unknown", by: "A", rule: onAuth(exchange(250)), stat: "request_in_wrong_state", reason: "half_open_expired"},
		{name: "corrupt-encrypted", by: "A", rule: onAuth(corrupt), stat: "not_authentic", reason: "half_open_expired"},
		{name: "corrupt-encrypted", by: "B", rule: onAuthAnswer(corrupt), stat: "not_authentic", reason: "timeout"},
		{name: "allow-null-none", by: "A", rule: onAuth(null), reason: "no_proposal_chosen", childless: true},
		{name: "allow-null-none", by: "B", rule: onAuthAnswer(null), reason: "bad_proposal", childless: true},
		{name: "child-key-length-attribute omit", by: "A", rule: onAuth(keyBits(0)), reason: "no_proposal_chosen", childless: true},
		{name: "child-key-length-attribute 129", by: "A", rule: onAuth(keyBits(129)), reason: "no_proposal_chosen", childless: true},
		{name: "child-key-length-attribute 256", by: "B", rule: onAuthAnswer(keyBits(256)), reason: "bad_proposal", childless: true},
		{name: "ikev2-add-child-transform", by: "A", rule: onAuth(with(wire.Transform{Type: wire.ENCR, ID: 65000})), up: true},
		{name: "ikev2-add-child-transform", by: "B", rule: onAuthAnswer(with(wire.Transform{Type: wire.ENCR, ID: 65000})), reason: "bad_proposal", childless: true},
		{name: "v2-proposal-dh none in IKE_AUTH", by: "A", rule: onAuth(with(wire.Transform{Type: wire.KEX})), up: true},
		{name: "add-unknown-v2-payload-to-sk", by: "A", rule: onAuth(add(&wire.Unknown{Kind: unknownPayload, Data: []byte{1}})), up: true},
		{name: "add-unknown-v2-payload-to-sk", by: "B", rule: onAuthAnswer(add(&wire.Unknown{Kind: unknownPayload, Data: []byte{1}})), up: true},
		{name: "unknown-v2-payload-critical", by: "A", rule: onAuth(add(&wire.Unknown{Kind: unknownPayload, Critical: true})), stat: "bad_requests", reason: "unsupported_critical_payload"},
		{name: "unknown-v2-payload-critical", by: "B", rule: onAuthAnswer(add(&wire.Unknown{Kind: unknownPayload, Critical: true})), stat: "bad_answers", reason: "invalid_syntax"},
		{name: "add-unknown-v2-payload-to IKE_AUTH", by: "A", rule: onAuth(func(l *letter) bool {
			l.outer = []wire.Payload{&wire.Unknown{Kind: unknownPayload}}
			return true
		}), stat: "payloads_outside", reason: "half_open_expired"},
		{name: "add-unknown-v2-payload-to IKE_AUTH", by: "B", rule: onAuthAnswer(func(l *letter) bool {
			l.outer = []wire.Payload{&wire.Unknown{Kind: unknownPayload}}
			return true
		}), stat: "payloads_outside", reason: "timeout"},
		{name: "emitting: EAP in IKE_AUTH", by: "A", rule: onAuth(add(&wire.EAP{Data: []byte{1, 1, 0, 4}})), reason: "invalid_syntax", stat: "bad_requests"},
		{name: "emitting: KE in IKE_AUTH", by: "A", rule: onAuth(add(&wire.KE{Method: 31, Data: make([]byte, 32)})), reason: "invalid_syntax", stat: "bad_requests"},
		{name: "emitting: KE in IKE_AUTH", by: "B", rule: onAuthAnswer(add(&wire.KE{Method: 31, Data: make([]byte, 32)})), reason: "invalid_syntax", stat: "bad_answers"},
		{name: "emitting: two AUTH", by: "A", rule: onAuth(func(l *letter) bool { return l.twice(wire.PayloadAUTH) }), reason: "invalid_syntax", stat: "bad_requests"},
		{name: "emitting: two IDi", by: "A", rule: onAuth(func(l *letter) bool { return l.twice(wire.PayloadIDi) }), reason: "invalid_syntax", stat: "bad_requests"},
		{name: "emitting: no AUTH", by: "A", rule: onAuth(func(l *letter) bool { return l.drop(wire.PayloadAUTH) }), reason: "unsupported_method"},
		{name: "emitting: no AUTH", by: "B", rule: onAuthAnswer(func(l *letter) bool { return l.drop(wire.PayloadAUTH) }), reason: "invalid_syntax"},
		{name: "emitting: no IDi", by: "A", rule: onAuth(func(l *letter) bool { return l.drop(wire.PayloadIDi) }), reason: "invalid_syntax"},
		{name: "emitting: no IDr", by: "B", rule: onAuthAnswer(func(l *letter) bool { return l.drop(wire.PayloadIDr) }), reason: "invalid_syntax"},
		{name: "emitting: nothing in IKE_AUTH", by: "A", rule: onAuth(func(l *letter) bool { l.Payloads = nil; return true }), reason: "invalid_syntax"},
		{name: "emitting: nothing in IKE_AUTH", by: "B", rule: onAuthAnswer(func(l *letter) bool { l.Payloads = nil; return true }), reason: "invalid_syntax"},
		{name: "send-no-idr", by: "A", rule: onAuth(func(l *letter) bool { return l.drop(wire.PayloadIDr) }), up: true},
		{name: "omit-v2-ike-auth-child", by: "A", rule: onAuth(noChild), childless: true},
		{name: "ignore-v2-ike-auth-child", by: "B", rule: onAuthAnswer(noChild), reason: "no_child_sa", childless: true},
		{name: "omit-v2-notification INITIAL_CONTACT", by: "A", rule: onAuth(dropNotify(wire.NotifyInitialContact)), up: true},
		{name: "ike-initiator-spi in IKE_AUTH", by: "A", rule: onAuth(func(l *letter) bool { l.Initiator++; return true }), stat: "wrong_peer_spi", reason: "half_open_expired"},
		{name: "ike-responder-spi in IKE_AUTH", by: "A", rule: onAuth(func(l *letter) bool { l.Responder++; return true }), stat: "no_ike_sa", reason: "half_open_expired"},
		{name: "send-nonzero-reserved", rule: func(l *letter) bool { return l.bytesOf(reservedInSA) }, up: true},
		{name: "send-pkcs7-thingie", by: "A", rule: onAuth(add(&wire.Cert{Encoding: 1, Data: []byte{0x30, 0}})), up: true},
	}
}

// reservedInSA sets the reserved bytes of proposals and transforms (RFC 7296 3.3.1,
// 3.3.2).
func reservedInSA(b []byte, t wire.PayloadType, at, length int) {
	if t != wire.PayloadSA {
		return
	}
	for p := at + 4; p < at+length; p += int(b[p+2])<<8 | int(b[p+3]) {
		b[p+1] = 0xff
		x := p + 8 + int(b[p+6])
		for range b[p+7] {
			b[x+1], b[x+5] = 0xff, 0xff
			x += int(b[x+2])<<8 | int(b[x+3])
		}
	}
}

// TestCK02_LibreswanImpair goes through what libreswan's impair makes a peer do wrong
// in the first exchanges. Each has one outcome: the peer is understood all the same
// where the RFC says to ignore the fault, or nobody is authenticated, the honest end
// says one thing, and nothing is left.
func TestCK02_LibreswanImpair(t *testing.T) {
	all := append(impairInit(t), impairAuth(t)...)
	uniqueNames(t, all)
	for i := range all {
		all[i].run(t)
	}
}

// TestCK02_LibreswanForceAuthMethod: force-v2-auth-method. Whatever method AUTH says
// to be of, only the one that the peer is believed by is taken.
func TestCK02_LibreswanForceAuthMethod(t *testing.T) {
	for method := range 256 {
		r, a, b := pair(t, nil)
		r.impair(a, onAuth(func(l *letter) bool {
			wire.First[*wire.Auth](l.Payloads).Method = wire.AuthMethod(method)
			return true
		}))
		a.step(Initiate{Peer: "B"})
		r.run(time.Second)
		if got, want := len(b.establishedSAs()), map[bool]int{true: 1}[method == int(wire.AuthSharedKey)]; got != want {
			t.Errorf("method %d: %d established, want %d; log:\n%s", method, got, want, lines(b.log))
		}
		if want := map[bool]int{false: 1}[method == int(wire.AuthSharedKey)]; len(b.failures()) != want {
			t.Errorf("method %d: %d failures; log:\n%s", method, len(b.failures()), lines(b.log))
		}
	}
}
