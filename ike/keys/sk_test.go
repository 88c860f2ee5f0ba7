package keys

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/vectors"
	"github.com/adit-ipsec/adit/sad"
)

// allKeys is the seven keys in the order of RFC 7296 2.14.
func allKeys(k *SK) []byte {
	s := k.live()
	i, r := s.messages.initiator, s.messages.responder
	return join(s.d, i.integ, r.integ, i.encr, r.encr, s.pi, s.pr)
}

func same(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) || len(want) == 0 {
		t.Errorf("%s: expected\n%x, saw\n%x", what, want, got)
	}
}

// vectorSK is the SK of a vector of made.txt.
func vectorSK(t *testing.T, v *vectors.Stanza) *SK {
	t.Helper()
	c := choice(proposal.PRF(v.Uint("prf")), proposal.Encr(v.Uint("encr")), int(v.Uint("bits")), proposal.Integ(v.Uint("integ")))
	spii, spir := vectorSPIs(v.Hex("spis"))
	k, err := Derive(c, v.Hex("shared"), v.Hex("ni"), v.Hex("nr"), spii, spir)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func vectorSPIs(b []byte) (i, r wire.SPI) {
	return wire.SPI(binary.BigEndian.Uint64(b)), wire.SPI(binary.BigEndian.Uint64(b[8:]))
}

// Every key and every message of every suite, as an implementation of its own in
// Python makes them: RFC 7296 2.14, 2.17, 2.18, 3.14, RFC 7383, 8784, 9242, 9370.
func TestVectors_EverySuiteAgreesWithPython(t *testing.T) {
	seen := map[string]bool{}
	forEveryVector(t, "made.txt", 43, func(t *testing.T, v *vectors.Stanza) {
		k := vectorSK(t, v)
		seen[suiteName(k.Choice())] = true
		same(t, "keys", allKeys(k), v.Hex("keys"))
		vectorDerived(t, v, k)
		mixed := vectorMixed(t, v, k)
		vectorIntAuth(t, v, k, mixed)
		vectorMessages(t, v, k)
	})
	if len(seen) != len(choices()) {
		t.Errorf("expected vectors for %d suites, saw %d", len(choices()), len(seen))
	}
}

func vectorMixed(t *testing.T, v *vectors.Stanza, k *SK) *SK {
	t.Helper()
	spii, spir := vectorSPIs(v.Hex("spis"))
	mixed, err := k.Mixed(v.Hex("mix"), v.Hex("ni"), v.Hex("nr"), spii, spir)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "RFC 9370 2.2.2", allKeys(mixed), v.Hex("mixed"))
	return mixed
}

func vectorDerived(t *testing.T, v *vectors.Stanza, k *SK) {
	t.Helper()
	encr, bits := k.Choice().Encr()
	c := choice(proposal.PRF(v.Uint("rekey-prf")), encr, bits, k.Choice().Integ())
	spii, spir := vectorSPIs(v.Hex("rekey-spis"))
	ni, nr, shared, more := v.Hex("rekey-ni"), v.Hex("rekey-nr"), v.Hex("rekey-shared"), v.Hex("rekey-more")
	for key, extra := range map[string][][]byte{"rekeyed": nil, "rekeyed-more": {more, v.Hex("mix")}} {
		again, err := k.Rekeyed(c, shared, ni, nr, spii, spir, extra...)
		if err != nil {
			t.Fatal(err)
		}
		same(t, key, allKeys(again), v.Hex(key))
	}
	with := k.WithPPK(v.Hex("ppk"))
	same(t, "RFC 8784 SK_d", with.live().d, v.Hex("ppk-d"))
	same(t, "RFC 8784 SK_pi", with.AuthKey(true), v.Hex("ppk-pi"))
	same(t, "RFC 8784 SK_pr", with.AuthKey(false), v.Hex("ppk-pr"))
	for key, secrets := range map[string][][]byte{"child": nil, "child-ke": {shared}, "child-more": {shared, more, v.Hex("mix")}} {
		i, r := k.ChildKeys(36, 32, ni, nr, secrets...)
		same(t, key, join(i.Encryption, i.Integrity, r.Encryption, r.Integrity), v.Hex(key))
	}
}

func vectorIntAuth(t *testing.T, v *vectors.Stanza, k, mixed *SK) {
	t.Helper()
	spii, spir := vectorSPIs(v.Hex("spis"))
	inner := v.Hex("inner")
	h := wire.Header{Initiator: spii, Responder: spir, Major: 2, Exchange: wire.IKEIntermediate, Flags: wire.FlagInitiator, MessageID: 1, Length: 99, Next: 77}
	answer := h
	answer.Flags = wire.FlagResponse
	i := k.IntAuth(true, nil, h, nil, wire.PayloadKE, inner)
	r := k.IntAuth(false, nil, answer, nil, wire.PayloadKE, inner[:3])
	h.MessageID, answer.MessageID = 2, 2
	i = mixed.IntAuth(true, i, h, nil, wire.PayloadKE, nil)
	r = mixed.IntAuth(false, r, answer, nil, wire.PayloadKE, inner)
	same(t, "IntAuth", IntAuthOctets(i, r, 3), v.Hex("intauth"))
}

func vectorMessages(t *testing.T, v *vectors.Stanza, k *SK) {
	t.Helper()
	spii, spir := vectorSPIs(v.Hex("spis"))
	h := wire.Header{Initiator: spii, Responder: spir, Major: 2, Exchange: wire.IKEAuth, Flags: wire.FlagInitiator, MessageID: 1}
	answer := h
	answer.Flags = wire.FlagResponse
	for _, m := range []struct {
		key   string
		h     wire.Header
		p     wire.Protected
		inner []byte
	}{
		{"request", h, wire.Protected{First: wire.PayloadIDi}, v.Hex("inner")},
		{"fragment1", answer, wire.Protected{First: wire.PayloadIDr, Fragment: 1, Total: 2}, v.Hex("inner")},
		{"fragment2", answer, wire.Protected{Fragment: 2, Total: 2}, []byte{}},
	} {
		initiator, want := m.key == "request", v.Hex(m.key)
		begin := wire.BeginProtected(m.h, nil, m.p, k.SealedLen(len(m.inner)))
		same(t, m.key, k.Seal(initiator, begin, m.inner, bytes.NewReader(v.Hex("random"))), want)
		parsed, err := wire.Parse(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := k.Open(initiator, parsed)
		if err != nil || !bytes.Equal(got, m.inner) {
			t.Errorf("%s: expected %x, saw %x, %v", m.key, m.inner, got, err)
		}
	}
}

// The vector of NIST's ACVP for the KDF of IKEv2 (SP 800-135 4.1.2) that Libreswan
// carries, COUNT 0 of SHA-1 with nonces of 8 bytes; those are too short for Derive,
// so the steps are taken one by one.
func TestVectors_ACVP_IKEv2KDF(t *testing.T) {
	ni, nr := unhex(t, "32b50d5f4a3763f3"), unhex(t, "9206a04b26564cb1")
	spis := unhex(t, "34c9e7c1888687853ff77d760d2b2199")
	gir := unhex(t, "4b2c1f971981a8ad8d0abeafabf38cf75fc8349c148142465ed9c8b516b8be52")
	girNew := unhex(t, "863f3c9d06efd39d2b907b97f8699e5dd5251ef64a2a176f36ee40c87d4f9330")
	const p = proposal.PRFSHA1
	skeyseed, err := extract(p, join(ni, nr), gir)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "SKEYSEED", skeyseed, unhex(t, "a9a7b222b59f8f48645f28a1db5b5f5d7479cba7"))
	dkm := mustExpand(p, 132, skeyseed, ni, nr, spis)
	same(t, "DKM", dkm, unhex(t, `a14293677cc80ff8f9cc0eee30d895da9d8f405666e30ef0dfcb63c634a46002a2a63080e514a062
		768b76606f9fa5e992204fc5a670bde3f10d6b027113936a5c55b648a194ae587b0088d52204b702c979fa280870d2ed41efa9c549fd11198
		af1670b143d384bd275c5f594cf266b05ebadca855e4249520a441a81157435a7a56cc4`))
	d := dkm[:20]
	same(t, "DKM(Child SA)", mustExpand(p, 132, d, ni, nr), unhex(t, `8059e3ee8810e6c3a91bc8bcd2a7a41151b8d0e6ae239c7b38093ad85ef4c5811a8e7b5d1cdabd95
		60b2d5e092d1f24e2d4b85eccdf0ad0dc9abd94b51ee71814ca6dbc8bb51b6309f5b9545c7eb35cf5580b1e521a8fe20754a2d883ba0c2cf28
		5f524aea6545b33106bc03e614296d319d41d4b50b3f510b1c0a22f3e664994d234cb4`))
	same(t, "DKM(Child SA D-H)", mustExpand(p, 132, d, girNew, ni, nr), unhex(t, `bb43244c1860ad65ee1e211ffe8bb3661750c8f89cb9f547df7f4fa61d37301628190e38c66232ea
		b4b3ab14c400a5197dd3730ed4820a8a10394d51e1c0400052f63ebd36b0e7ef53aaed31eba4a5080d7d4b5666023a8bbb5ffb7857240f9a05
		884d1b7d2f933708450b7b3288f1fc863ab49fa901227cffc06e27899c7054d56fd74c`))
	same(t, "SKEYSEED(Rekey)", PRF(p, d, girNew, ni, nr), unhex(t, "63e81194946ebd05df7df5ebf5d8750056bf1f1d"))
}

func TestRFC7296_2_10_NoncesAreOfTheRightLength(t *testing.T) {
	for _, c := range []struct {
		prf proposal.PRF
		n   int
		ok  bool
	}{
		{proposal.PRFSHA256, 15, false}, {proposal.PRFSHA256, 16, true}, {proposal.PRFSHA256, 256, true}, {proposal.PRFSHA256, 257, false},
		{proposal.PRFSHA384, 23, false}, {proposal.PRFSHA384, 24, true},
		{proposal.PRFSHA512, 31, false}, {proposal.PRFSHA512, 32, true}, {proposal.PRFSHA512, 0, false},
	} {
		nonce, good := make([]byte, c.n), make([]byte, NonceLen)
		if err := CheckNonce(c.prf, nonce); (err == nil) != c.ok {
			t.Errorf("%s, %d bytes: saw %v", c.prf, c.n, err)
		}
		cc := choice(c.prf, proposal.EncrAESGCM16, 256, 0)
		for _, pair := range [][2][]byte{{nonce, good}, {good, nonce}} {
			if _, err := Derive(cc, []byte{1}, pair[0], pair[1], 1, 2); (err == nil) != c.ok {
				t.Errorf("Derive: %s, %d bytes: saw %v", c.prf, c.n, err)
			}
		}
	}
	a, errA := Nonce(seeded(1))
	b, errB := Nonce(seeded(1))
	c, errC := Nonce(nil)
	if errA != nil || errB != nil || errC != nil || len(c) != NonceLen || !bytes.Equal(a, b) || bytes.Equal(a, c) {
		t.Errorf("nonces: saw %x, %x, %x", a, b, c)
	}
}

func TestDeriveRefusesWhatItDoesNotHave(t *testing.T) {
	for _, c := range []proposal.Choice{
		{},
		choice(4, proposal.EncrAESGCM16, 128, 0),
		choice(proposal.PRFSHA256, proposal.EncrNull, 0, proposal.IntegSHA256),
		choice(proposal.PRFSHA256, proposal.EncrAESGMAC, 128, 0),
		choice(proposal.PRFSHA256, proposal.EncrAESGCM16, 0, 0),
		choice(proposal.PRFSHA256, proposal.EncrAESGCM16, 129, 0),
		choice(proposal.PRFSHA256, proposal.EncrAESGCM16, 128, proposal.IntegSHA256), // both
		choice(proposal.PRFSHA256, proposal.EncrAESCBC, 128, 0),                      // neither
		choice(proposal.PRFSHA256, proposal.EncrAESCBC, 128, proposal.IntegGMAC128),
	} {
		_, err := Derive(c, []byte{1}, make([]byte, 32), make([]byte, 32), 1, 2)
		if unsupported := new(UnsupportedError); !errors.As(err, &unsupported) {
			t.Errorf("%s: expected an UnsupportedError, saw %v", suiteName(c), err)
		}
	}
}

func TestWipeLeavesNothing(t *testing.T) {
	k := derived(t, choice(proposal.PRFSHA256, proposal.EncrAESCBC, 128, proposal.IntegSHA256))
	s, i := k.live(), k.live().messages.initiator
	kept := []sad.Key{s.d, s.pi, s.pr, i.encr, i.integ, s.messages.responder.encr, s.messages.responder.integ}
	sealed := sealedMessage(t, k, true, []byte("x"))
	k.Wipe()
	k.Wipe()
	for n, key := range kept {
		if len(key) == 0 || !bytes.Equal(key, make([]byte, len(key))) {
			t.Errorf("key %d of %d bytes is still there", n, len(key))
		}
	}
	for name, k := range map[string]*SK{"wiped": k, "nil": nil, "zero": {}, "PPK of a wiped one": k.WithPPK([]byte("p"))} {
		if _, err := k.Open(true, sealed); !errors.Is(err, ErrOpen) {
			t.Errorf("%s: Open: expected ErrOpen, saw %v", name, err)
		}
		if got := k.Seal(true, []byte("header"), []byte("clear"), nil); got != nil {
			t.Errorf("%s: Seal: saw %x", name, got)
		}
		if k.AuthKey(true) != nil || k.AuthKey(false) != nil || k.PRF() != 0 || k.SealedLen(1) != 0 || k.MaxInner(100) != -1 {
			t.Errorf("%s: it tells something", name)
		}
		if k.IntAuth(true, nil, wire.Header{}, nil, 0, nil) != nil {
			t.Errorf("%s: IntAuth gave a value", name)
		}
		if i, r := k.ChildKeys(16, 16, nil, nil); len(i.Encryption)+len(r.Encryption)+len(i.Integrity)+len(r.Integrity) != 0 {
			t.Errorf("%s: ChildKeys gave keys", name)
		}
		if _, err := k.Mixed([]byte("s"), make([]byte, 32), make([]byte, 32), 1, 2); err == nil {
			t.Errorf("%s: Mixed gave keys", name)
		}
		if _, err := k.Rekeyed(choices()[0], []byte("s"), make([]byte, 32), make([]byte, 32), 1, 2); err == nil {
			t.Errorf("%s: Rekeyed gave keys", name)
		}
	}
}

// SK_e and SK_a are the same without and with a PPK (RFC 8784 3): were the counters
// two, a nonce would be used twice.
func TestRFC8784_TheTwoShareTheIVs(t *testing.T) {
	k := derived(t, choice(proposal.PRFSHA256, proposal.EncrAESGCM16, 256, 0))
	with := k.WithPPK([]byte("a preshared key"))
	seen := map[string]bool{}
	for n := range 6 {
		m := sealedMessage(t, []*SK{k, with}[n%2], true, []byte("x"))
		seen[string(m.Protected.Body[:8])] = true
	}
	if len(seen) != 6 {
		t.Errorf("6 messages have %d IVs", len(seen))
	}
	k.Wipe()
	m := sealedMessage(t, with, true, []byte("still"))
	if got, err := with.Open(true, m); err != nil || string(got) != "still" {
		t.Errorf("after Wipe of the other: saw %q, %v", got, err)
	}
	encr := with.live().messages.initiator.encr
	with.Wipe()
	if !bytes.Equal(encr, make([]byte, len(encr))) {
		t.Error("the keys of messages outlive the last Wipe")
	}
}

func TestIntAuthOctetsAreNothingWithoutIntermediate(t *testing.T) {
	if got := IntAuthOctets(nil, nil, 1); got != nil {
		t.Errorf("RFC 7296 signs nothing more, saw %x", got)
	}
}

// Payloads in clear in front of the Encrypted payload are covered by IntAuth_xA.
func TestRFC9242_IntAuthCoversPayloadsInClear(t *testing.T) {
	k := derived(t, choices()[0])
	h := wire.Header{Major: 2, Exchange: wire.IKEIntermediate}
	a := k.IntAuth(true, nil, h, nil, wire.PayloadKE, []byte("inner"))
	b := k.IntAuth(true, nil, h, []wire.Payload{&wire.Vendor{Data: []byte("v")}}, wire.PayloadKE, []byte("inner"))
	if bytes.Equal(a, b) {
		t.Error("a payload in clear changed nothing")
	}
}

func TestNoSecretIsPrinted(t *testing.T) {
	k := derived(t, choices()[0])
	x, err := Begin(proposal.KEX448, bytes.NewReader(bytes.Repeat([]byte{0xAB}, 56)))
	if err != nil {
		t.Fatal(err)
	}
	modp, err := Begin(proposal.KEModp2048, bytes.NewReader(bytes.Repeat([]byte{0xAB}, 64)))
	if err != nil {
		t.Fatal(err)
	}
	i, _ := k.ChildKeys(16, 16, make([]byte, 32), make([]byte, 32))
	secret := []string{fmt.Sprintf("%x", []byte(k.live().d[:4])), fmt.Sprint([]byte(k.live().d[:4])), fmt.Sprint([]byte(i.Encryption[:4])), "abab", "171 171", "ABAB"}
	type nested struct {
		k *SK
		K SK
		v SK
		x Exchange
	}
	for _, v := range []any{k, *k, x, modp, i, nested{k: k, K: *k, v: *k, x: x}, &nested{k: k, K: *k, v: *k, x: modp}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%s", "%d"} {
			out := strings.Trim(fmt.Sprintf(verb, v), "[]{}")
			for _, s := range secret {
				if strings.Contains(out, strings.Trim(s, "[]")) {
					t.Errorf("%s of %T tells a secret: %s", verb, v, out)
				}
			}
		}
		if out, err := json.Marshal(v); err == nil && strings.Contains(string(out), "q6ur") {
			t.Errorf("JSON of %T tells a secret: %s", v, out)
		}
	}
}
