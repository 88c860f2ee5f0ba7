package fuzz

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/adit-ipsec/adit/config"
	"github.com/adit-ipsec/adit/sad"
)

// FuzzConfigParse: whatever the file says, Parse does not panic. What it
// accepts is accepted by those who get it: the table compiles, every SA is made.
// What it refuses has a place inside the file, and neither refusal nor warning
// repeats key material.
func FuzzConfigParse(f *testing.F) {
	for _, pattern := range []string{"*.yaml", "good/*.yaml", "bad/*.yaml"} {
		paths, err := filepath.Glob(filepath.Join("..", "config", "testdata", pattern))
		if err != nil || len(paths) == 0 {
			f.Fatalf("no seeds match %s (%v)", pattern, err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse("fuzz.yaml", data, config.WithSecrets(fuzzSecrets))
		if (c == nil) == (err == nil) {
			t.Fatalf("both or neither: %v, %v", c, err)
		}
		if err != nil {
			checkConfigErrors(t, data, err)
			return
		}
		checkConfig(t, data, c)
	})
}

func fuzzSecrets(path string) ([]byte, fs.FileMode, error) {
	switch {
	case strings.Contains(path, "mode"):
		return []byte("00"), 0o644, nil
	case strings.Contains(path, "psk"), strings.Contains(path, "ppk"):
		return []byte("ZcUe5ro0kT7wXhQyP1mSdJvA8bLn3FgR"), 0o600, nil
	case strings.Contains(path, "pki"):
		return fuzzPEM, 0o600, nil
	case strings.Contains(path, "encryption"):
		return []byte("5ca1ab1e5ca1ab1e0ddba11facade005"), 0o600, nil
	case strings.Contains(path, "integrity"):
		return []byte("5ca1ab1e5ca1ab1e0ddba11facade0055ca1ab1e5ca1ab1e0ddba11facade006"), 0o600, nil
	}
	return nil, 0, fs.ErrNotExist
}

// fuzzPEM is a private key: who wants certificates refuses it.
var fuzzPEM = makeFuzzPEM()

func makeFuzzPEM() []byte {
	der, err := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		return nil
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func checkConfigErrors(t *testing.T, data []byte, err error) {
	var list *config.Errors
	if !errors.As(err, &list) || len(list.List) == 0 {
		t.Fatalf("%T is no *config.Errors with entries", err)
	}
	lines := strings.Split(string(data), "\n")
	for _, e := range list.List {
		if e.Line < 1 || e.Line > len(lines) || e.Column < 1 || e.Column > utf8.RuneCountInString(lines[e.Line-1])+1 {
			t.Errorf("%v lies outside the file", e)
		}
		if e.Problem == "" || e.Fix == "" || strings.Contains(e.Error(), "\n") || !utf8.ValidString(e.Error()) {
			t.Errorf("%q: expected one line that says what was found and what would be right", e.Error())
		}
	}
	noKeyIn(t, data, err.Error())
}

func checkConfig(t *testing.T, data []byte, c *config.Config) {
	if _, err := c.Table(); err != nil {
		t.Errorf("accepted, and Table says: %v", err)
	}
	counter := false
	for _, p := range c.SAParams() {
		if p.Direction == sad.Outbound && (p.Suite.CounterMode() || p.AHSuite.CounterMode()) {
			counter = true
			p.Sequence = forgetful{}
		}
		if _, err := sad.New(p); err != nil {
			t.Errorf("accepted, and sad.New says: %v", err)
		}
	}
	if counter != c.NeedsSequenceStore() {
		t.Errorf("a counter mode among the SAs: %t, NeedsSequenceStore: %t", counter, c.NeedsSequenceStore())
	}
	for _, w := range c.Warnings {
		noKeyIn(t, data, w.String())
	}
	if d := config.Mirror(c, c); len(c.Peers) == 0 && len(d) > 1 {
		t.Errorf("a file without peers differs from itself: %v", d)
	}
	for _, p := range c.SAParams() {
		for _, k := range []sad.Key{p.EncryptionKey, p.IntegrityKey} {
			if len(k) > 0 && strings.Contains(strings.ToLower(c.Path+c.Name+c.StateDir+c.Control+c.TUN.Name), hex.EncodeToString([]byte(k))) {
				t.Error("a key stands in a field that is printed")
			}
		}
	}
}

// noKeyIn looks for a piece of a hex run of the file that is long enough to be
// a key (20 bytes or more) in what is said about the file.
func noKeyIn(t *testing.T, data []byte, said string) {
	said = strings.ToLower(said)
	for _, run := range strings.FieldsFunc(strings.ToLower(string(data)), func(r rune) bool { return !strings.ContainsRune("0123456789abcdef", r) }) {
		if len(run) >= 32 && (strings.Contains(said, run[:16]) || strings.Contains(said, run[len(run)-16:])) {
			t.Errorf("a piece of %s stands in\n%s", run, said)
		}
	}
}

// forgetful is a SequenceStore that has seen no key.
type forgetful struct{}

func (forgetful) Reserved(sad.KeyID) (uint64, error) { return 0, nil }
func (forgetful) Reserve(sad.KeyID, uint64) error    { return nil }
