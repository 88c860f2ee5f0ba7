package adit_test

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/config"
	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/netsim"
	"github.com/adit-ipsec/adit/internal/tun"
)

// TestDocsQuickStartIsValid runs the two files of README.md through config: both
// are valid without a warning, and mirror each other.
func TestDocsQuickStartIsValid(t *testing.T) {
	a := loadExample(t, "README.md", "yaml a.yaml")
	b := loadExample(t, "README.md", "yaml b.yaml")
	for _, c := range []*config.Config{a, b} {
		for _, w := range c.Warnings {
			t.Errorf("%s warns: %v", c.Path, w)
		}
	}
	for _, d := range config.Mirror(a, b) {
		t.Errorf("the two ends do not mirror each other: %+v", d)
	}
}

// TestDocsConfigurationIsValidAndWhole: the file of docs/configuration.md is
// taken, and every key that config knows stands in the page.
func TestDocsConfigurationIsValidAndWhole(t *testing.T) {
	loadExample(t, "docs/configuration.md", "yaml")
	for _, block := range []string{"yaml ah.yaml", "yaml transport.yaml", "yaml ah+esp.yaml", "yaml ike.yaml"} {
		for _, w := range loadExample(t, "docs/configuration.md", block).Warnings {
			t.Errorf("%s warns: %v", block, w)
		}
	}
	page := readText(t, "docs/configuration.md")
	sources, err := filepath.Glob("config/*.go")
	if err != nil || len(sources) == 0 {
		t.Fatalf("config's sources: %v, %v", sources, err)
	}
	calls, found := regexp.MustCompile(`\.object\(([^)]*)\)`), 0
	for _, source := range sources {
		for _, call := range calls.FindAllStringSubmatch(readText(t, source), -1) {
			for _, key := range regexp.MustCompile(`"(\w+)"`).FindAllStringSubmatch(call[1], -1) {
				found++
				if !regexp.MustCompile(`\b` + key[1] + `\b`).MatchString(page) {
					t.Errorf("docs/configuration.md does not name the key %s of %s", key[1], source)
				}
			}
		}
	}
	if found < 40 {
		t.Errorf("found %d keys in config's sources, want at least 40: does the page still get compared with anything?", found)
	}
}

// TestDocsListEverySuite: README.md's list is esp's, no more and no less.
func TestDocsListEverySuite(t *testing.T) {
	listed := strings.Fields(fencedBlock(t, "README.md", "suites"))
	var have []string
	for _, s := range esp.Suites() {
		have = append(have, s.String())
	}
	slices.Sort(listed)
	slices.Sort(have)
	if !slices.Equal(listed, have) {
		t.Errorf("README.md lists %d suites:\n%v\nesp has %d:\n%v", len(listed), listed, len(have), have)
	}
}

// TestDocsCountersNamesEveryCounter: docs/counters.md has every counter of a
// gateway, and none that no gateway has.
func TestDocsCountersNamesEveryCounter(t *testing.T) {
	dev, _ := tun.NewMemory("adit0", 1400)
	wire, err := netsim.NewNetwork().Endpoint(netip.MustParseAddrPort("192.0.2.1:4500"))
	if err != nil {
		t.Fatal(err)
	}
	gw, err := dataplane.New(dataplane.Config{TUN: dev, Wire: wire})
	if err != nil {
		t.Fatal(err)
	}
	stats := gw.Stats()
	if err := gw.Close(); err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, c := range slices.Concat(stats.Traffic, stats.Drops) {
		have = append(have, c.Name)
	}
	page := readText(t, "docs/counters.md")
	for _, name := range have {
		if !strings.Contains(page, "`"+name+"`") {
			t.Errorf("docs/counters.md does not say what %s means and what to do", name)
		}
	}
	for _, m := range regexp.MustCompile("`((?:Out|In)[A-Z]\\w+)`").FindAllStringSubmatch(page, -1) {
		if !slices.Contains(have, m[1]) {
			t.Errorf("docs/counters.md speaks of %s, which no gateway counts", m[1])
		}
	}
}

// TestDocsLinksLead: every relative link of a page leads to a file.
func TestDocsLinksLead(t *testing.T) {
	links := regexp.MustCompile(`\]\(([^)#\s]+)`)
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		pages, err := filepath.Glob(pattern)
		if err != nil || len(pages) == 0 {
			t.Fatalf("%s: %v, %v", pattern, pages, err)
		}
		for _, page := range pages {
			for _, link := range links.FindAllStringSubmatch(readText(t, page), -1) {
				target := filepath.Join(filepath.Dir(page), link[1])
				if _, err := os.Stat(target); errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s links to %s, which is not there", page, link[1])
				}
			}
		}
	}
}

// loadExample takes a page's configuration as an operator would: the block as a
// file, and the key files that it names, with keys of the right lengths.
func loadExample(t *testing.T, page, block string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	text := strings.ReplaceAll(fencedBlock(t, page, block), "/etc/adit", dir)
	for _, m := range regexp.MustCompile(`(\S+)_key_file: ([^,}\s]+)`).FindAllStringSubmatch(text, -1) {
		// Every key of its own: the name fills it. ".key" is an AEAD's, 16+4 bytes.
		size := 32
		if filepath.Ext(m[2]) == ".key" {
			size = 20
		}
		key := strings.Repeat(hexOf(filepath.Base(m[2])), size)[:2*size]
		if err := os.WriteFile(m[2], []byte(key), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range regexp.MustCompile(`psk_file: ([^,}\s]+)`).FindAllStringSubmatch(text, -1) {
		if err := os.WriteFile(m[1], []byte("ZcUe5ro0kT7wXhQyP1mSdJvA8bLn3FgR\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "adit.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(file)
	if err != nil {
		t.Fatalf("%s, block %q: %v", page, block, err)
	}
	return c
}

func hexOf(s string) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	for i := range len(s) {
		b.WriteByte(digits[s[i]>>4])
		b.WriteByte(digits[s[i]&15])
	}
	return b.String()
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
