package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// workplace is a directory with the test configurations, mode 0600, as an
// operator keeps them: a clone of the repository does not keep the mode.
func workplace(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test configurations: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestCheckGolden runs `adit check` on the test configurations and holds exit
// code and output to testdata/*.golden; -update writes them.
func TestCheckGolden(t *testing.T) {
	for _, c := range []struct {
		golden string
		args   []string
		code   int
	}{
		{"valid", []string{"site-a.yaml"}, exitDone},
		{"broken", []string{"broken.yaml"}, exitUsage},
		{"whole", []string{"whole-a.yaml"}, exitDone},
		{"whole-json", []string{"whole-a.yaml", "--json"}, exitDone},
		{"mirror", []string{"site-a.yaml", "--peer", "site-b.yaml"}, exitDone},
		{"mirror-wrong", []string{"site-a.yaml", "--peer", "site-b-wrong.yaml"}, exitNegative},
		{"mirror-broken", []string{"site-a.yaml", "--peer", "broken.yaml"}, exitUsage},
		{"missing", []string{"no-such-file.yaml"}, exitUsage},
		{"valid-json", []string{"site-a.yaml", "--json"}, exitDone},
		{"mirror-wrong-json", []string{"site-a.yaml", "--peer", "site-b-wrong.yaml", "--json"}, exitNegative},
		{"broken-json", []string{"broken.yaml", "--json"}, exitUsage},
	} {
		t.Run(c.golden, func(t *testing.T) {
			stdout, stderr, code := aditIn(t, workplace(t), append([]string{"check"}, c.args...)...)
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			golden(t, "testdata/check-"+c.golden+".golden", "--- stdout\n"+stdout+"--- stderr\n"+stderr)
		})
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("not as in %s (-update writes it): %s", path, firstDifference(got, string(want)))
	}
}

// TestCheckErrorsNameFileLineColumn: editors jump to what begins a line.
func TestCheckErrorsNameFileLineColumn(t *testing.T) {
	_, stderr, _ := aditIn(t, workplace(t), "check", "broken.yaml")
	places := regexp.MustCompile(`(?m)^broken\.yaml:\d+:\d+: \S+: .+`).FindAllString(stderr, -1)
	if len(places) != 4 {
		t.Errorf("%d errors with their place, want 4:\n%s", len(places), stderr)
	}
}

// TestCheckJSONDecodes: the names that programs rely on.
func TestCheckJSONDecodes(t *testing.T) {
	dir := workplace(t)
	stdout, _, _ := aditIn(t, dir, "check", "site-a.yaml", "--peer", "site-b-wrong.yaml", "--json")
	var report struct {
		Valid       *bool
		Errors      []map[string]any
		Differences []struct{ Key, Here, Peer, Text string }
		Meaning     struct {
			MTU    int
			Routes []string
			SAs    []struct {
				Peer    string
				SPI     uint32
				Posture string
			} `json:"sas"`
		}
	}
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatalf("%v in %s", err, stdout)
	}
	switch {
	case report.Valid == nil || !*report.Valid || report.Errors == nil:
		t.Errorf("valid, errors: got %v, %v", report.Valid, report.Errors)
	case len(report.Differences) != 2 || report.Differences[0].Here != "site-a.yaml:15:31":
		t.Errorf("differences: got %+v", report.Differences)
	case len(report.Meaning.SAs) != 4 || report.Meaning.SAs[0].SPI != 0x2001 || report.Meaning.SAs[2].Posture != "authenticated":
		t.Errorf("SAs: got %+v", report.Meaning.SAs)
	}
	stdout, stderr, _ := aditIn(t, dir, "check", "broken.yaml", "--json")
	var broken struct {
		Valid  bool
		Errors []struct {
			File         string
			Line, Column int
			Key          string
		}
	}
	if err := json.Unmarshal([]byte(stdout), &broken); err != nil {
		t.Fatalf("%v in %s", err, stdout)
	}
	if broken.Valid || len(broken.Errors) != 4 || broken.Errors[1].Line != 6 || broken.Errors[1].Key != "peers[0].address" {
		t.Errorf("broken: got %+v", broken)
	}
	if stderr != "" {
		t.Errorf("with --json everything is said on stdout, and stderr has %q", stderr)
	}
}

// TestCheckNeverShowsAKey: all keys of the test configurations start alike.
func TestCheckNeverShowsAKey(t *testing.T) {
	dir := workplace(t)
	for _, args := range [][]string{
		{"check", "site-a.yaml"}, {"check", "site-a.yaml", "--json"},
		{"check", "whole-a.yaml"}, {"check", "whole-a.yaml", "--json"},
		{"check", "site-a.yaml", "--peer", "site-b-wrong.yaml"},
	} {
		stdout, stderr, _ := aditIn(t, dir, args...)
		if out := strings.ToLower(stdout + stderr); strings.Contains(out, "c0ffee") {
			t.Errorf("%v shows a key:\n%s", args, out)
		}
	}
}
