package ah

import (
	"strings"
	"testing"
)

// Every suite's name leads back to it, through text too.
func TestSuiteNames(t *testing.T) {
	var names []string
	for _, s := range Suites() {
		names = append(names, s.String())
		text, err := s.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back Suite
		if err := back.UnmarshalText(text); err != nil || back != s || !s.Valid() {
			t.Errorf("%s: came back as %s, %v", s, back, err)
		}
	}
	if got, want := strings.Join(names, " "), "sha256 sha384 sha512 sha1 aes128gmac aes192gmac aes256gmac"; got != want {
		t.Errorf("expected %s, saw %s", want, got)
	}
	if _, err := Suite(0).MarshalText(); err == nil || Suite(200).Valid() {
		t.Error("an invalid suite has a text")
	}
	if _, err := New(0, nil, false); err == nil {
		t.Error("an invalid suite has a transform")
	}
}

// What is refused says why and what to write.
func TestParseSuiteRefusals(t *testing.T) {
	for name, want := range map[string]string{
		"md5": "use sha256", "hmac-md5": "use sha256", "null": "use sha256",
		"null-sha256": "for AH write sha256", "aes128-sha512": "for AH write sha512",
		"sha224": "names: sha256, sha384", "": "unknown suite",
	} {
		if s, err := ParseSuite(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: expected an error with %q, saw %v, %v", name, want, s, err)
		}
	}
}

// What callers decide by.
func TestSuiteProperties(t *testing.T) {
	for _, s := range Suites() {
		gmac := strings.HasSuffix(s.String(), "gmac")
		if s.CounterMode() != gmac || (s.IVLen() == 8) != gmac || s.Legacy() != (s.String() == "sha1") {
			t.Errorf("%s: counter mode %t, IV of %d bytes, legacy %t", s, s.CounterMode(), s.IVLen(), s.Legacy())
		}
	}
}
