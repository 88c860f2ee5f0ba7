package config

import (
	"bytes"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/pki"
)

// withFile is the files of the tests, and one more.
func withFile(name string, data []byte) Option {
	return WithSecrets(func(path string) ([]byte, fs.FileMode, error) {
		if path == name {
			return data, 0o644, nil
		}
		return testSecrets(path)
	})
}

// twoLists are the revocation lists of two authorities, in PEM.
func twoLists(t *testing.T) (one, two []byte) {
	t.Helper()
	var lists [][]byte
	for _, name := range []string{"one", "two"} {
		ca, err := pki.New(pki.Options{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		list, err := ca.CRL(time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		lists = append(lists, pki.CRLPEM(list))
	}
	return lists[0], lists[1]
}

const crlAuth = "{certificate: /pki/a.pem, private_key: /pki/a.key, trust: [/pki/ca.pem], revocation: relaxed, crls: [/pki/lists]}"

// TestIKEBrokenListsAreRefused: of a file of lists none is passed over because it is
// broken: with `revocation: relaxed` what it revokes would be let in.
func TestIKEBrokenListsAreRefused(t *testing.T) {
	one, two := twoLists(t)
	broken := bytes.Replace(one, []byte("\n"), []byte("\n*"), 2)
	text := strings.Replace(smallestIKE, "{psk_file: /pki/psk}", crlAuth, 1)
	for name, c := range map[string]struct {
		data []byte
		n    int // lists; 0: refused
	}{
		"two":                 {append(bytes.Clone(one), two...), 2},
		"text in between":     {bytes.Join([][]byte{one, two}, []byte("of authority two:\n")), 2},
		"the first broken":    {append(bytes.Clone(broken), two...), 0},
		"the last broken":     {append(bytes.Clone(two), broken...), 0},
		"the last cut":        {append(bytes.Clone(two), one[:len(one)/2]...), 0},
		"one of them rubbish": {append(bytes.Clone(two), "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n"...), 0},
	} {
		c2, err := Parse("a.yaml", []byte(text), withFile("/pki/lists", c.data))
		switch {
		case c.n == 0 && (err == nil || !strings.Contains(err.Error(), "auth.crls[0]: the file holds none")):
			t.Errorf("%s: expected a refusal, seen %v", name, err)
		case c.n != 0 && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.n != 0 && len(c2.Peers[0].IKE.Remote.Revocation.CRLs) != c.n:
			t.Errorf("%s: expected %d lists, seen %d", name, c.n, len(c2.Peers[0].IKE.Remote.Revocation.CRLs))
		}
	}
}

// TestIKEBrokenResponsesAreRefused: so it is with responses.
func TestIKEBrokenResponsesAreRefused(t *testing.T) {
	good, _, err := testSecrets("/pki/b.ocsp")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(smallestIKE, "{psk_file: /pki/psk}", strings.Replace(crlAuth, "crls:", "ocsp:", 1), 1)
	for name, c := range map[string]struct {
		data []byte
		ok   bool
	}{
		"whole":          {good, true},
		"cut":            {good[:len(good)-1], false},
		"the beginning":  {good[:12], false},
		"more behind":    {append(bytes.Clone(good), 0), false},
		"an error":       {[]byte{0x30, 3, 0x0a, 1, 6}, false},
		"a good status":  {[]byte{0x30, 3, 0x0a, 1, 0}, false},
		"other content":  {bytes.Replace(good, []byte{0x0a, 1, 0, 0xa0}, []byte{0x0a, 1, 0, 0xa1}, 1), false},
		"another status": {bytes.Replace(good, []byte{0x0a, 1, 0, 0xa0}, []byte{0x0a, 1, 3, 0xa0}, 1), false},
	} {
		if _, err := Parse("a.yaml", []byte(text), withFile("/pki/lists", c.data)); c.ok != (err == nil) || err != nil && !strings.Contains(err.Error(), "auth.ocsp[0]: the file holds none") {
			t.Errorf("%s: seen %v", name, err)
		}
	}
}

// TestIKEListsAreKeptOnce: a list has as many entries as its authority has revoked
// certificates. A thousand peers that name it do not hold it a thousand times.
func TestIKEListsAreKeptOnce(t *testing.T) {
	one, _ := twoLists(t)
	text := strings.Replace(smallestIKE, "{psk_file: /pki/psk}", crlAuth, 1)
	second := strings.NewReplacer("name: b", "name: c", "192.0.2.2", "192.0.2.3", "b.example.net", "c.example.net").Replace(
		text[strings.Index(text, "  - name: b"):strings.Index(text, "policies:")])
	text = strings.Replace(text, "policies:", second+"policies:", 1)
	c, err := Parse("a.yaml", []byte(text), withFile("/pki/lists", one))
	if err != nil {
		t.Fatal(err)
	}
	if a, b := c.Peers[0].IKE.Remote.Revocation.CRLs, c.Peers[1].IKE.Remote.Revocation.CRLs; len(a) != 1 || len(b) != 1 || a[0] != b[0] {
		t.Errorf("%d and %d lists, the same: %t", len(a), len(b), len(a) == 1 && len(b) == 1 && a[0] == b[0])
	}
}
