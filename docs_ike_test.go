package adit_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocsIKEv2NamesEveryReason: every word that a failed negotiation is told by, of
// package ike and of ike/auth, stands in the table of docs/ikev2.md.
func TestDocsIKEv2NamesEveryReason(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("docs", "ikev2.md"))
	if err != nil {
		t.Fatal(err)
	}
	words := map[string]bool{}
	for pattern, re := range map[string]*regexp.Regexp{
		"ike/*.go":       regexp.MustCompile(`Reason:\s+"([a-z_]+)"`),
		"ike/auth/*s.go": regexp.MustCompile(`\bReason = "([a-z_]+)"`),
	} {
		paths, err := filepath.Glob(filepath.FromSlash(pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			source, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, found := range re.FindAllStringSubmatch(string(source), -1) {
				words[found[1]] = true
			}
		}
	}
	if len(words) < 40 {
		t.Errorf("only %d words were found: the patterns do not fit the code", len(words))
	}
	for word := range words {
		if !strings.Contains(string(page), "`"+word+"`") {
			t.Errorf("docs/ikev2.md does not say what %s means", word)
		}
	}
}
