package config

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

func mustParse(t *testing.T, path string) *Config {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse(filepath.Base(path), data, WithSecrets(testSecrets))
	if err != nil {
		t.Fatalf("%s is refused:\n%v", path, err)
	}
	return c
}

// describe is all that a Config says, for golden files.
func describe(c *Config) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("name %s state_dir %s control %s", c.Name, c.StateDir, c.Control)
	p("allow_legacy %t allow_manual_aead %t needs_sequence_store %t", c.AllowLegacy, c.AllowManualAEAD, c.NeedsSequenceStore())
	p("tun %+v", c.TUN)
	p("listen %+v", c.Listen)
	p("uses_ah %t uses_raw_esp %t icmp %+v", c.UsesAH(), c.UsesRawESP(), c.ICMP)
	for _, name := range sortedKeys(c.Profiles) {
		p("profile %+v", c.Profiles[name])
	}
	for _, peer := range c.Peers {
		p("peer %s %s port %d profile %s nat_keepalive %s static %t behind_nat %t original %s %s", peer.Name, peer.Address, peer.Port, peer.Profile,
			peer.NATKeepalive, peer.Static, peer.BehindNAT, peer.OriginalLocal, peer.OriginalRemote)
		describeIKE(p, peer.IKE)
	}
	for _, sa := range c.SAParams() {
		suite := sa.Suite.String()
		if sa.Protocol == sad.AH {
			suite = sa.AHSuite.String()
		}
		p("sa %s %s %s %s bundle %t: local %s remote %s keepalive %s encap %s esn %t window %d tunnel %+v fragment %s tfc %s dscp %v static %t behind_nat %t original %s %s keys %s %s",
			sa.ID(), sa.Protocol, sa.Mode, suite, sa.Bundle, sa.Local, sa.Remote, sa.Keepalive, sa.Encap, sa.ESN, sa.ReplayWindow, sa.Tunnel,
			sa.Fragment, sa.TFC, sa.DSCPs, sa.Static, sa.BehindNAT, sa.OriginalLocal, sa.OriginalRemote, sa.EncryptionKey, sa.IntegrityKey)
	}
	for _, policy := range c.Policies {
		s := policy.Selector
		p("policy %s %s %q: local %v remote %v protocol %s ports %s > %s icmp %s", policy.Name, policy.Action, policy.Peer,
			s.Local, s.Remote, s.Protocol, s.LocalPorts, s.RemotePorts, portText(s.ICMP, func(r spd.PortRange) string { return fmt.Sprintf("%#x-%#x", r.From, r.To) }))
	}
	for _, w := range c.Warnings {
		p("warning %s", w)
	}
	return b.String()
}

// usable holds that what Parse accepts is accepted by those who get it.
func usable(t *testing.T, c *Config) {
	t.Helper()
	if _, err := c.Table(); err != nil {
		t.Errorf("Table: %v", err)
	}
	for _, p := range c.SAParams() {
		p.Sequence = memoryStore{}
		if _, err := sad.New(p); err != nil {
			t.Errorf("sad.New: %v", err)
		}
	}
}

// memoryStore is a SequenceStore that forgets.
type memoryStore struct{}

func (memoryStore) Reserved(sad.KeyID) (uint64, error) { return 0, nil }
func (memoryStore) Reserve(sad.KeyID, uint64) error    { return nil }

func TestGoodFilesAreReadAsTheyAreMeant(t *testing.T) {
	for path := range readTestdata(t, "testdata/good/*.yaml") {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			c := mustParse(t, path)
			usable(t, c)
			golden(t, strings.TrimSuffix(path, ".yaml")+".out", describe(c))
		})
	}
}

func TestKeysAreTheBytesOfTheFile(t *testing.T) {
	c := mustParse(t, "testdata/good/secret-files.yaml")
	sas := c.SAParams()
	if got, want := hex.EncodeToString([]byte(sas[0].EncryptionKey)), "5ca1ab1e5ca1ab1e0ddba11facade005"; got != want {
		t.Errorf("encryption key from a file: expected %s, seen %s", want, got)
	}
	if got, want := hex.EncodeToString([]byte(sas[0].IntegrityKey)), "5ca1ab1e5ca1ab1e0ddba11facade0055ca1ab1e5ca1ab1e0ddba11facade006"; got != want {
		t.Errorf("integrity key from a file: expected %s, seen %s", want, got)
	}
	data, err := os.ReadFile("testdata/good/secret-files.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString([]byte(sas[1].EncryptionKey)); !strings.Contains(string(data), `encryption_key: "`+got+`"`) {
		t.Errorf("inline key %s does not stand in the file", got)
	}
}

// TestNothingPrintsAKey formats whole Configs in every way that a log or a
// status answer might, and looks for the keys of the file.
func TestNothingPrintsAKey(t *testing.T) {
	for path, data := range readTestdata(t, "testdata/good/*.yaml") {
		c := mustParse(t, path)
		keys := hexRuns(string(data), 24)
		var prints []string
		for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%X", "%s", "%q", "%d"} {
			prints = append(prints, fmt.Sprintf(verb, c), fmt.Sprintf(verb, *c), fmt.Sprintf(verb, c.SAParams()), fmt.Sprintf(verb, c.Peers))
		}
		text, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		prints = append(prints, string(text), describe(c))
		for _, sa := range c.SAParams() {
			for _, k := range []sad.Key{sa.EncryptionKey, sa.IntegrityKey} {
				if len(k) > 0 {
					keys = append(keys, hex.EncodeToString([]byte(k)), strings.Trim(fmt.Sprintf("%d", []byte(k)), "[]"), strings.Trim(fmt.Sprintf("%#v", []byte(k)), "[]byte{}"))
				}
			}
		}
		for _, key := range keys {
			for _, p := range prints {
				if strings.Contains(strings.ToLower(p), strings.ToLower(key)) {
					t.Errorf("%s: %s is printed in %.200s", path, key, p)
				}
			}
		}
	}
}

// hexRuns is every run of at least n hex digits in s.
func hexRuns(s string, n int) (runs []string) {
	for _, run := range strings.FieldsFunc(s, func(r rune) bool { return !isHex(r) }) {
		if len(run) >= n {
			runs = append(runs, run)
		}
	}
	return runs
}

// TestNoErrorPrintsAKey cuts, doubles and misnames things around keys in every
// way of testdata/bad, and looks for any piece of a key in what is said.
func TestNoErrorPrintsAKey(t *testing.T) {
	for path, data := range readTestdata(t, "testdata/bad/*.yaml") {
		_, err := Parse("x", data, WithSecrets(testSecrets))
		said := strings.ToLower(err.Error())
		for _, run := range hexRuns(string(data), 16) {
			if strings.Contains(said, strings.ToLower(run[:12])) || strings.Contains(said, strings.ToLower(run[len(run)-12:])) {
				t.Errorf("%s: a piece of %s stands in\n%s", path, run, err)
			}
		}
		for _, secret := range []string{"correct horse", "battery"} {
			if strings.Contains(said, secret) {
				t.Errorf("%s: %q stands in\n%s", path, secret, err)
			}
		}
	}
}

// TestAKeyWithASlipIsNotPrinted damages one good file near its keys at every
// offset, and looks for any piece of a key in what is said.
func TestAKeyWithASlipIsNotPrinted(t *testing.T) {
	data, err := os.ReadFile("testdata/cbc-a.yaml")
	if err != nil {
		t.Fatal(err)
	}
	from := strings.Index(string(data), "aes128-sha256, encryption_key")
	keys := hexRuns(string(data), 32)
	for at := from; at < from+110; at++ {
		for _, slip := range []string{"", "x", " ", ": ", "\"", "'", ",", "}", "\n", "\n  ", "#", "\t", "&", "*a", "|", "\\"} {
			bad := string(data[:at]) + slip + string(data[at+1:])
			_, err := Parse("x", []byte(bad))
			if err == nil {
				continue
			}
			checkErrors(t, []byte(bad), err)
			for _, run := range hexRuns(strings.ToLower(err.Error()), 8) {
				for _, key := range keys {
					if strings.Contains(key, run) || strings.Contains(run, key[:8]) {
						t.Fatalf("byte %d made %q: %s of a key stands in\n%s", at, slip, run, err)
					}
				}
			}
		}
	}
}

// A secret in place of the file's name is not printed, hexadecimal or not.
func TestASecretInPlaceOfItsFileIsNotPrinted(t *testing.T) {
	data, err := os.ReadFile("testdata/cbc-a.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"correct horse", "SGVsbG9Xb3JsZA==", "5ca1ab1e", "12345678"} {
		line := `{direction: out, spi: 0x2001, suite: aes128-sha256, encryption_key_file: ` + secret + "}\n      - {"
		bad := strings.Replace(string(data), "{direction: out, ", line, 1)
		if _, err := Parse("x", []byte(bad)); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("expected an error without %q, seen\n%v", secret, err)
		}
	}
}

func TestLoadReadsSecretsOfMode0600Only(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		_ = os.Remove(path) // without root, a file of mode 0400 is not written again
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, err := os.ReadFile("testdata/good/secret-files.yaml")
	if err != nil {
		t.Fatal(err)
	}
	integrity, _, _ := testSecrets("/secrets/good-integrity")
	for mode, want := range map[fs.FileMode]string{0o600: "", 0o400: "", 0o640: "mode 0640", 0o604: "mode 0604", 0o620: "mode 0620", 0o666: "mode 0666"} {
		e := write("e", "5ca1ab1e5ca1ab1e0ddba11facade005", mode)
		i := write("i", string(integrity), 0o600)
		text := strings.NewReplacer("/secrets/good-encryption", e, "/secrets/good-integrity", i).Replace(string(good))
		_, err := Load(write("adit.yaml", text, 0o600))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("secret of mode %04o: expected %q, seen %v", mode, want, err)
		}
	}
}

func TestLoadRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{
		filepath.Join(dir, "absent.yaml"): "no such file",
		dir:                               "a directory",
		"/dev/zero":                       "a device",
	} {
		c, err := Load(path)
		var list *Errors
		if c != nil || !errors.As(err, &list) || !strings.Contains(err.Error(), want) || list.List[0].Line != 1 {
			t.Errorf("Load(%s): expected an *Errors with %q, seen %v, %v", path, want, c, err)
		}
	}
}

func TestLoadRefusesAFileBeyondItsLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "large.yaml")
	if err := os.WriteFile(path, []byte("version: 1\n"+strings.Repeat("#\n", maxFile/2)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "4 MiB") {
		t.Errorf("expected the limit of 4 MiB to be named, seen %v", err)
	}
}

func TestLoadWarnsOfKeysThatOthersCanRead(t *testing.T) {
	data, err := os.ReadFile("testdata/cbc-a.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[fs.FileMode]bool{0o600: false, 0o640: true, 0o644: true} {
		path := filepath.Join(t.TempDir(), "adit.yaml")
		if err := os.WriteFile(path, data, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		c, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		seen := slices.ContainsFunc(c.Warnings, func(w Warning) bool { return strings.Contains(w.Text, "chmod 0600") })
		if seen != want {
			t.Errorf("mode %04o: expected a warning: %t, seen %v", mode, want, c.Warnings)
		}
	}
}

func TestParseOpensNoFile(t *testing.T) {
	data, err := os.ReadFile("testdata/good/secret-files.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse("x", data); err == nil || !strings.Contains(err.Error(), "not read here") {
		t.Errorf("expected a refusal of secret files, seen %v", err)
	}
}

func TestSAParamsFollowTheEncapsulation(t *testing.T) {
	c := mustParse(t, "testdata/good/mixed-families.yaml")
	var got []string
	for _, p := range c.SAParams() {
		if p.Direction == packet.Outbound {
			got = append(got, p.Remote.String(), p.Keepalive.String())
		} else if p.Remote.String() != got[len(got)-2] || p.Keepalive != 0 {
			t.Errorf("inbound SA of %s: expected the same remote and no keepalive, seen %s, %s", p.Peer, p.Remote, p.Keepalive)
		}
	}
	want := []string{"[2001:db8:2::1]:0", "0s", "192.0.2.2:4501", "20s"}
	if !slices.Equal(got, want) {
		t.Errorf("expected %v, seen %v", want, got)
	}
	if !c.Listen.Raw {
		t.Error("a peer uses raw protocol 50: expected Listen.Raw, seen false")
	}
}

func TestPositionFallsBackToTheKeyAbove(t *testing.T) {
	c := mustParse(t, "testdata/cbc-a.yaml")
	for key, line := range map[string]int{"peers[0].sas[1].spi": 12, "peers[0].nat_keepalive": 7, "peers[7]": 7, "tun.mtu": 1, "listen.natt_port": 5} {
		if p := c.Position(key); p.Line != line || p.File != "cbc-a.yaml" || p.Column < 1 {
			t.Errorf("%s: expected line %d, seen %s", key, line, p)
		}
	}
}

func TestErrorsAreBounded(t *testing.T) {
	_, err := Parse("x", []byte("version: 1\ntun: {"+strings.Repeat("zebra: 1, ", 10000)+"}\n"))
	var list *Errors
	if !errors.As(err, &list) || len(list.List) != maxErrors || list.More != 10000-maxErrors {
		t.Fatalf("expected %d errors and %d more, seen %d and %d", maxErrors, 10000-maxErrors, len(list.List), list.More)
	}
	if !strings.HasSuffix(err.Error(), "9950 more errors") {
		t.Errorf("expected the count of the rest, seen …%s", err.Error()[len(err.Error())-40:])
	}
	var one Error
	if !errors.As(err, &one) || one.Line != 2 {
		t.Errorf("expected errors.As to find the first Error on line 2, seen %v", one)
	}
}

// TestParseTimeGrowsWithTheFile holds the bounds that keep the YAML parser off
// its quadratic paths: each of these took up to 95 s without them. The limit is wide,
// for slow machines under the race detector.
func TestParseTimeGrowsWithTheFile(t *testing.T) {
	const size = 200_000
	deep := func(n int) (s string) {
		for i := range n {
			s += strings.Repeat(" ", i) + "a:\n"
		}
		return s
	}
	for name, text := range map[string]string{
		"keys of one section": strings.Repeat("a: 1\n", size/5),
		"directives":          strings.Repeat("%", size),
		"complex keys":        strings.Repeat("? ", size/2),
		"anchors":             strings.Repeat("&a ", size/3),
		"colons":              strings.Repeat(": ", size/2),
		"open brackets":       strings.Repeat("[", size),
		"dashes":              strings.Repeat("- ", size/2),
		"indentation":         deep(700),
	} {
		start := time.Now()
		_, err := Parse("x", []byte(text))
		if err == nil {
			t.Errorf("%s: expected a refusal", name)
			continue
		}
		checkErrors(t, []byte(text), err)
		if took := time.Since(start); took > time.Minute {
			t.Errorf("%s: expected a second or so, took %s", name, took)
		}
	}
}
