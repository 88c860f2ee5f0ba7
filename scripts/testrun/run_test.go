package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// inTempDir runs the test where build/test/ may be written.
func inTempDir(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.MkdirAll("build/test", 0o750); err != nil {
		t.Fatal(err)
	}
}

func passing(n int) func(context.Context, *job) result {
	return func(context.Context, *job) result { return result{passed: n} }
}

func scheduleQuietly(t *testing.T, tiers []tier) []result {
	t.Helper()
	p := newProgress(io.Discard, "A=B")
	defer p.stop()
	return schedule(t.Context(), tiers, lanes, p)
}

func TestTheLastLineIsWhatTheCIReads(t *testing.T) {
	var out bytes.Buffer
	code := report(&out, []result{{name: "unit", passed: 12, skipped: 1}, {name: "race", passed: 3}}, []string{"root: no root"})
	lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
	if got, want := lines[len(lines)-1], "15 passed, 0 failed, 1 skipped"; got != want {
		t.Errorf("the last line is %q, want %q", got, want)
	}
	if code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if !strings.Contains(out.String(), "left out: root: no root") {
		t.Errorf("the report does not say what was left out:\n%s", out.String())
	}
}

func TestTheRunFails(t *testing.T) {
	for name, results := range map[string][]result{
		"with a failed test":      {{name: "unit", passed: 5, failed: 1, problems: []string{"the reason"}}},
		"when a tier did not run": {{name: "build", passed: 1}, {name: "unit", notRun: true}},
		"when nothing ran":        nil,
	} {
		var out bytes.Buffer
		if code := report(&out, results, nil); code != 1 {
			t.Errorf("%s: exit code %d, want 1", name, code)
		}
		if name == "with a failed test" && !strings.Contains(out.String(), "the reason") {
			t.Errorf("the report does not show the failure:\n%s", out.String())
		}
	}
}

func TestATierThatRanNothingFails(t *testing.T) {
	inTempDir(t)
	r := scheduleQuietly(t, []tier{{name: "empty", lanes: 1, run: passing(0)}})
	wantCounts(t, r[0], 0, 1, 0)
}

func TestAFailedGateStopsTheRest(t *testing.T) {
	inTempDir(t)
	r := scheduleQuietly(t, []tier{
		{name: "build", lanes: lanes, gate: true, run: func(context.Context, *job) result { return failure("does not build") }},
		{name: "unit", lanes: 1, run: passing(1)},
	})
	if !r[1].notRun {
		t.Errorf("unit ran behind a failed build: %+v", r[1])
	}
}

func TestATierThatTakesAllLanesRunsAlone(t *testing.T) {
	inTempDir(t)
	var running, most, besideAlone atomic.Int32
	work := func(context.Context, *job) result {
		now := running.Add(1)
		defer running.Add(-1)
		most.Store(max(most.Load(), now))
		time.Sleep(20 * time.Millisecond)
		return result{passed: 1}
	}
	alone := func(ctx context.Context, j *job) result {
		besideAlone.Add(running.Load())
		return work(ctx, j)
	}
	var tiers []tier
	for _, name := range []string{"a", "b", "alone", "c", "d", "e"} {
		t := tier{name: name, lanes: 1, run: work}
		if name == "alone" {
			t.lanes, t.run = lanes, alone
		}
		tiers = append(tiers, t)
	}
	for i, r := range scheduleQuietly(t, tiers) {
		if r.name != tiers[i].name || r.passed != 1 {
			t.Errorf("result %d is %+v, want %s passed", i, r, tiers[i].name)
		}
	}
	if most.Load() > lanes || besideAlone.Load() != 0 {
		t.Errorf("%d at once, want at most %d; %d beside the one that runs alone", most.Load(), lanes, besideAlone.Load())
	}
}

func TestLeftoversFindsAMarkedProcess(t *testing.T) {
	marker := "ADIT_TEST_RUN=leftovers-" + t.Name()
	before := takeInventory(t.Context())
	cmd := command(t.Context(), []string{marker}, "sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	found := strings.Join(marked(marker), "\n")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("a killed process ended well")
	}
	if !strings.Contains(found, "sleep 60") {
		t.Errorf("the process that carries the marker was not found; found: %q", found)
	}
	if left := marked(marker); len(left) != 0 {
		t.Errorf("found after its end: %q", left)
	}
	if before == nil {
		t.Error("the inventory is empty: not even the loopback link")
	}
}

func TestACommandEndsWithItsGroup(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	marker := "ADIT_TEST_RUN=group-" + t.Name()
	cmd := command(ctx, []string{marker}, "sh", "-c", "sleep 60 & wait")
	if err := cmd.Run(); err == nil {
		t.Error("an interrupted command ended well")
	}
	for range 100 { // the kernel has a moment to take them away
		if len(marked(marker)) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("left behind: %q", marked(marker))
}

func TestExecutionsAndTheBell(t *testing.T) {
	text := "fuzz: elapsed: 3s, execs: 100 (33/sec)\nfuzz: elapsed: 6s, execs: 1234567 (9/sec), new interesting: 1 (total: 2)\n"
	if got := executions(text); got != 1234567 {
		t.Errorf("executions are %d, want 1234567", got)
	}
	if got := thousands(1234567); got != "1 234 567" {
		t.Errorf("thousands wrote %q", got)
	}
	bell := "--- FAIL: FuzzX (20.09s)\n    context deadline exceeded\nFAIL\n"
	if !stoppedAtTheBell(bell) || stoppedAtTheBell(bell+"Failing input written to testdata") || stoppedAtTheBell("--- FAIL: FuzzX\n    want 1") {
		t.Error("stoppedAtTheBell takes a finding for the end of the time, or the other way round")
	}
}

func TestUnknownTiersAndArgumentsAreRefused(t *testing.T) {
	t.Chdir("../..")
	for _, args := range [][]string{{"-tiers", "unti", "-list"}, {"-nonsense"}, {"extra"}} {
		var out bytes.Buffer
		if code := run(t.Context(), args, &out, &out); code != 2 {
			t.Errorf("%q: exit code %d, want 2; it said %s", args, code, out.String())
		}
	}
}
