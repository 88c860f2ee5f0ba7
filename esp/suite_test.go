package esp

import (
	"fmt"
	"strings"
	"testing"
)

// What the RFCs say of each family, written once more and apart from the
// table: RFC 4106, 4309, 4543, 7634, 3602, 3686, 2410, 4868, 2404.
func TestSuiteLengthsAreThoseOfTheRFCs(t *testing.T) {
	type lengths struct{ encryption, integrity, iv, icv, block int }
	want := map[string]lengths{"chacha20poly1305": {36, 0, 8, 16, 4}}
	hashes := map[string]lengths{"sha256": {integrity: 32, icv: 16}, "sha384": {integrity: 48, icv: 24}, "sha512": {integrity: 64, icv: 32}, "sha1": {integrity: 20, icv: 12}}
	for name, h := range hashes {
		want["null-"+name] = lengths{0, h.integrity, 0, h.icv, 4}
	}
	for _, key := range []int{16, 24, 32} {
		aes := fmt.Sprintf("aes%d", key*8)
		for _, icv := range []int{16, 12, 8} {
			want[fmt.Sprintf("%sgcm%d", aes, icv)] = lengths{key + 4, 0, 8, icv, 4}
			want[fmt.Sprintf("%sccm%d", aes, icv)] = lengths{key + 3, 0, 8, icv, 4}
		}
		want[aes+"gmac"] = lengths{key + 4, 0, 8, 16, 4}
		for name, h := range hashes {
			want[aes+"-"+name] = lengths{key, h.integrity, 16, h.icv, 16}
			want[aes+"ctr-"+name] = lengths{key + 4, h.integrity, 8, h.icv, 4}
		}
	}
	if len(want) != len(Suites()) {
		t.Errorf("expected %d suites, saw %d", len(want), len(Suites()))
	}
	for name, w := range want {
		s, err := ParseSuite(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got lengths
		got.encryption, got.integrity = s.KeyLen()
		got.iv, got.icv, got.block = s.IVLen(), s.ICVLen(), s.BlockSize()
		if got != w {
			t.Errorf("%s: expected %+v, saw %+v", name, w, got)
		}
		if s.String() != name {
			t.Errorf("%s: its name prints as %q", name, s)
		}
		if legacy := strings.HasSuffix(name, "sha1"); s.Legacy() != legacy {
			t.Errorf("%s: expected legacy %t, saw %t", name, legacy, s.Legacy())
		}
		if counter := w.iv == 8; s.CounterMode() != counter {
			t.Errorf("%s: expected counter mode %t, saw %t", name, counter, s.CounterMode())
		}
	}
}

// RFC 8221: what must not be used is refused by name, with the reason.
func TestRFC8221_WeakSuitesAreRefusedWithTheReason(t *testing.T) {
	for name, want := range map[string]string{
		"des-sha256":              "RFC 8221 5",
		"3des-sha1":               "RFC 8221 5",
		"3DES":                    "RFC 8221 5",
		"blowfish-sha256":         "RFC 8221 5",
		"cast128-sha1":            "RFC 9395",
		"aes128-md5":              "RFC 8221 6",
		"null-md5":                "RFC 8221 6",
		"null":                    "RFC 8221 5",
		"null-none":               "RFC 8221 5",
		"null-null":               "RFC 8221 5",
		"aes128":                  "RFC 8221 4",
		"aes256-none":             "RFC 8221 4",
		"aes128ctr":               "RFC 8221 4",
		"aes128-null":             "RFC 8221 4",
		"aes128gcm16-sha256":      "RFC 8221 4",
		"chacha20poly1305-sha256": "RFC 8221 4",
		"sha256":                  "null-sha256",
	} {
		s, err := ParseSuite(name)
		if err == nil || s != 0 {
			t.Errorf("%s: expected a refusal, saw suite %v", name, s)
			continue
		}
		if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: expected a refusal that names %s, saw %q", name, want, err)
		}
	}
}

func TestParseSuiteOfAnUnknownNameListsNearOnes(t *testing.T) {
	for name, want := range map[string]string{
		"aes128gcm":         "aes128gcm16",
		"aes-128-gcm-16":    "aes128gcm16",
		"aes256-sha2":       "aes256-sha256",
		"chacha20-poly1305": "chacha20poly1305",
		"aes256gmac16":      "aes256gmac",
		"":                  "",
	} {
		s, err := ParseSuite(name)
		if err == nil || s != 0 || !strings.Contains(err.Error(), "unknown") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: expected an error that offers %q, saw suite %v, %v", name, want, s, err)
		}
	}
	long := strings.Repeat("x", 1<<16)
	if _, err := ParseSuite(long); err == nil {
		t.Error("a name of 64 KiB: expected an error")
	}
}

func TestSuiteTextFormParsesBack(t *testing.T) {
	for _, s := range Suites() {
		text, err := s.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back Suite
		if err := back.UnmarshalText(text); err != nil || back != s {
			t.Errorf("%s: expected it back, saw %v, %v", s, back, err)
		}
	}
	var back Suite
	if err := back.UnmarshalText([]byte("des")); err == nil {
		t.Error("expected an error for des")
	}
}

func TestTheZeroSuiteIsNone(t *testing.T) {
	for _, s := range []Suite{0, Suite(len(table)), 255} {
		if s.Valid() {
			t.Errorf("suite %d: expected invalid", uint8(s))
		}
		if _, err := New(s, nil, nil, true); err == nil {
			t.Errorf("suite %d: expected New to refuse it", uint8(s))
		}
		if _, err := s.MarshalText(); err == nil {
			t.Errorf("suite %d: expected MarshalText to refuse it", uint8(s))
		}
		if n := s.MaxPayload(1500); n != -1 {
			t.Errorf("suite %d: expected MaxPayload -1, saw %d", uint8(s), n)
		}
		if s.CounterMode() || s.Legacy() || s.SealedLen(0) < HeaderLen {
			t.Errorf("suite %d: has properties", uint8(s))
		}
	}
}

// MaxPayload is the inverse of SealedLen, for every length that fits a packet.
func TestMaxPayloadIsTheLargestThatFits(t *testing.T) {
	for _, s := range Suites() {
		for room := range 2000 {
			n := s.MaxPayload(room)
			if n < 0 {
				if s.SealedLen(0) <= room {
					t.Fatalf("%s: expected an empty payload to fit %d bytes, saw %d", s, room, n)
				}
				continue
			}
			if s.SealedLen(n) > room || s.SealedLen(n+1) <= room {
				t.Fatalf("%s, %d bytes of room: %d bytes of payload make %d, one more makes %d", s, room, n, s.SealedLen(n), s.SealedLen(n+1))
			}
		}
	}
}

// Keys of any other length are refused, and the error does not show them.
func TestKeyLengthsAreExact(t *testing.T) {
	for _, s := range Suites() {
		e, i := s.KeyLen()
		if _, err := New(s, make([]byte, e), make([]byte, i), true); err != nil {
			t.Errorf("%s with keys of %d and %d bytes: %v", s, e, i, err)
		}
		for _, d := range []int{-16, -8, -4, -3, -1, 1, 3, 4, 8, 16} {
			if e+d >= 0 {
				if _, err := New(s, make([]byte, e+d), make([]byte, i), true); err == nil || !strings.Contains(err.Error(), fmt.Sprint(e)) {
					t.Errorf("%s: expected an encryption key of %d bytes to be refused with the right length %d, saw %v", s, e+d, e, err)
				}
			}
			if i+d >= 0 {
				if _, err := New(s, make([]byte, e), make([]byte, i+d), true); err == nil || !strings.Contains(err.Error(), fmt.Sprint(i)) {
					t.Errorf("%s: expected an integrity key of %d bytes to be refused with the right length %d, saw %v", s, i+d, i, err)
				}
			}
		}
	}
	s, _ := ParseSuite("aes128gcm16")
	_, err := New(s, []byte("secret secret secret"+"!"), nil, false)
	if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "736563726574") {
		t.Errorf("expected an error without the key, saw %v", err)
	}
}

// The transform keeps no reference to the keys: wiping them changes nothing.
func TestKeysMayBeWipedAfterNew(t *testing.T) {
	forEverySuite(t, func(t *testing.T, tr *Transform) {
		encryption, integrity := testKeys(tr.suite)
		wiped, err := New(tr.suite, encryption, integrity, tr.esn)
		if err != nil {
			t.Fatal(err)
		}
		clear(encryption)
		clear(integrity)
		wire := sealed(t, wiped, testSeq(tr, 7), []byte("payload"))
		p := opened(tr, NewScratch(), testSeq(tr, 7), wire)
		if p.Err != nil || string(p.Payload) != "payload" {
			t.Errorf("expected the payload, saw %q, %v", p.Payload, p.Err)
		}
	})
}

// No verb prints key schedules, salts or working memory.
func TestTransformAndScratchPrintNothingSecret(t *testing.T) {
	s, _ := ParseSuite("aes128gcm16")
	key := []byte("0123456789abcdefSALT")
	tr, err := New(s, key, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	sc := NewScratch()
	tr.Open(sc, []Packet{{Seq: 1, Wire: make([]byte, 64)}})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if got := fmt.Sprintf(verb, tr); got != "esp.Transform(aes128gcm16)" {
			t.Errorf("%s of a transform: saw %s", verb, got)
		}
		if got := fmt.Sprintf(verb, sc); got != "esp.Scratch" {
			t.Errorf("%s of a scratch: saw %.80s", verb, got)
		}
	}
}
