package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/internal/tun"
)

// countersPage is the page that the explanations are printed to.
const countersPage = "../../docs/counters.md"

// TestEveryDropReasonIsExplained: names and order are the dataplane's.
func TestEveryDropReasonIsExplained(t *testing.T) {
	var want, got []string
	for _, r := range dataplane.DropReasons() {
		want = append(want, r.String())
	}
	for _, e := range dropCounters {
		got = append(got, e.name)
		if e.meaning == "" || e.todo == "" {
			t.Errorf("%s has no meaning, or nothing to do", e.name)
		}
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("explained: %v\nthe dataplane's: %v", got, want)
	}
}

// TestExplanationsSayWhatIsAudited: *audit* stands where the log has the drop too.
func TestExplanationsSayWhatIsAudited(t *testing.T) {
	for _, r := range dataplane.DropReasons() {
		if said := strings.Contains(explain(r.String()).meaning, ", audit"); said != r.Auditable() {
			t.Errorf("%s: auditable is %v, and the explanation says %v", r, r.Auditable(), said)
		}
	}
}

// TestEveryTrafficCounterIsExplained: names and order are the dataplane's.
func TestEveryTrafficCounterIsExplained(t *testing.T) {
	device, _ := tun.NewMemory("t", 1500)
	g, err := dataplane.New(dataplane.Config{TUN: device, Wire: silentWire{make(chan struct{})}})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	var want, got []string
	for _, c := range g.Stats().Traffic {
		want = append(want, c.Name)
	}
	for _, e := range trafficCounters {
		got = append(got, e.name)
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("explained: %v\nthe dataplane's: %v", got, want)
	}
}

// TestCountersPageSaysWhatTheCommandSays: docs/counters.md is printed from the
// explanations; `go test ./cmd/adit -run CountersPage -update` writes it.
func TestCountersPageSaysWhatTheCommandSays(t *testing.T) {
	want := countersMarkdown()
	if *update {
		if err := os.WriteFile(countersPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(countersPage)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("docs/counters.md and cmd/adit/explain.go differ: write it in explain.go, then go test ./cmd/adit -run CountersPage -update\n%s", firstDifference(string(got), want))
	}
}

// TestCountersPageHasARowForEveryDropReason reads the page as an operator does.
func TestCountersPageHasARowForEveryDropReason(t *testing.T) {
	page, err := os.ReadFile(countersPage)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range dataplane.DropReasons() {
		if n := strings.Count(string(page), "\n| `"+r.String()+"` | "); n != 1 {
			t.Errorf("docs/counters.md has %d rows for %s, want 1", n, r)
		}
	}
}

func countersMarkdown() string {
	var b strings.Builder
	b.WriteString(strings.TrimSpace(`
# Counters

`+"`adit counters`"+` prints them, `+"`adit counters --json`"+` for programs. They only grow, from 0 at the start of the gateway. A packet that is
not forwarded has exactly one drop reason and is counted once. *Outbound* is from the protected network towards the
peer, *inbound* from the peer towards the protected network. `+"`adit status`"+` lists the drops that are not zero, with what to do.

*Audit* marks what RFC 4301 and 4303 call auditable events; the log has them too, thinned out.

This page is printed from cmd/adit/explain.go; a test holds that every drop reason has its row.
`) + "\n")
	for _, section := range []struct {
		heading string
		rows    []explanation
		prefix  string
	}{{"Traffic", trafficCounters, ""}, {"Dropped outbound", dropCounters, "Out"}, {"Dropped inbound", dropCounters, "In"}, {"IKE", ikeCounters, ""}, {"IKE, by reason", ikeFamilies, ""}} {
		fmt.Fprintf(&b, "\n## %s\n\n| counter | what happened | what to do |\n|---|---|---|\n", section.heading)
		for _, e := range section.rows {
			if strings.HasPrefix(e.name, section.prefix) {
				fmt.Fprintf(&b, "| `%s` | %s | %s |\n", e.name, e.meaning, e.todo)
			}
		}
	}
	return b.String()
}

// TestEveryIKECounterIsExplained: by the names in the machine's source, for a counter
// that has not moved has no name yet.
func TestEveryIKECounterIsExplained(t *testing.T) {
	files, err := filepath.Glob("../../ike/*.go")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files of ike, %v", len(files), err)
	}
	counted := regexp.MustCompile(`\bcount\("([a-z_]+)"|counts\["([a-z_]+)"\]|^\t+return "([a-z]+_[a-z_]+|malformed|unprotected)"`)
	names := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			for _, m := range counted.FindAllStringSubmatch(line, -1) {
				names[ikeCounterName(m[1]+m[2]+m[3])] = true
			}
		}
	}
	if len(names) < 40 {
		t.Errorf("only %d names found: %v", len(names), names)
	}
	for name := range names {
		if strings.Contains(explainIKE(name).meaning, "not known") {
			t.Errorf("%s is not explained: see ikeCounters", name)
		}
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d\ngot:  %s\nwant: %s", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}
