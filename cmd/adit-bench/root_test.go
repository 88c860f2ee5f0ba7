package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/bench"
)

// built builds a program into a folder of the test.
func built(t *testing.T, name, pkg string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: run the unprivileged tier with -skip Root")
	}
	path := filepath.Join(t.TempDir(), name)
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", path, pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v: %s", pkg, err, out)
	}
	return path
}

func builtAdit(t *testing.T) string {
	t.Helper()
	return built(t, "adit", "github.com/adit-ipsec/adit/cmd/adit")
}

// leftovers are the folders of runs that are there now.
func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// tunnelRun runs `tunnel` and returns its report.
func tunnelRun(t *testing.T, args ...string) (r bench.TunnelReport, stdout string) {
	t.Helper()
	stdout = rootRun(t, &r, append([]string{"tunnel", "--rounds", "1", "--seconds", "0.3"}, args...)...)
	return r, stdout
}

// rootRun runs the program in a temporary folder of its own, reads its report
// and returns its table. Nothing may be left.
func rootRun(t *testing.T, report any, args ...string) (stdout string) {
	t.Helper()
	dir, temp := t.TempDir(), t.TempDir()
	jsonFile, svgFile := filepath.Join(dir, "t.json"), filepath.Join(dir, "t.svg")
	cmd := program(t, append(args, "--json", jsonFile, "--svg", svgFile)...)
	cmd.Env = append(cmd.Env, "TMPDIR="+temp)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s%s", err, out.String(), stderr.String())
	}
	if left := leftovers(t, temp); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
	if !strings.Contains(stderr.String(), "round 1/1") {
		t.Errorf("no progress on standard error: %s", stderr.String())
	}
	decode(t, jsonFile, report)
	wellFormed(t, svgFile)
	return out.String()
}

// holds checks that every test has figures of every system, and ratios where
// there are rivals.
func holds(t *testing.T, r bench.TunnelReport, systems []string, results ...string) {
	t.Helper()
	var got, names []string
	for _, s := range r.Systems {
		names = append(names, s.Name)
		if s.Version == "" || s.Settings == "" {
			t.Errorf("%s: version %q, settings %q", s.Name, s.Version, s.Settings)
		}
	}
	if !slices.Equal(names, systems) {
		t.Errorf("systems %v, want %v", names, systems)
	}
	for _, result := range r.Results {
		got = append(got, result.Test+" "+result.Segmentation)
		main := result.Metrics[0]
		if len(main.Ratios) != len(systems)-1 {
			t.Errorf("%s: ratios %+v with %d systems", result.Test, main.Ratios, len(systems))
		}
		for _, m := range result.Metrics {
			for _, s := range systems {
				v, ok := m.Systems[s]
				if !ok || len(v.Rounds) != 1 || m.Ratios != nil && v.Median <= 0 {
					t.Errorf("%s, %s of %s: %+v", result.Test, m.Name, s, v)
				}
			}
		}
	}
	if !slices.Equal(got, results) {
		t.Errorf("results %v, want %v", got, results)
	}
}

// TestRootTunnelAlone measures adit alone.
func TestRootTunnelAlone(t *testing.T) {
	r, stdout := tunnelRun(t, "--adit", builtAdit(t), "--tests", "tcp1,ping", "--segmentation", "on")
	holds(t, r, []string{bench.SystemAdit}, "tcp1 on", "ping on")
	if strings.Contains(stdout, "ratio to") {
		t.Errorf("a ratio without a rival:\n%s", stdout)
	}
}

// againstStrongSwan are the arguments for that rival, with the daemon that
// scripts/install-tools.sh took out of its package if the system has none.
func againstStrongSwan(t *testing.T, more ...string) []string {
	t.Helper()
	charon, err := filepath.Abs("../../build/tools/charon-systemd/usr/sbin/charon-systemd")
	if err != nil {
		t.Fatal(err)
	}
	args := append(more, "--against", bench.SystemStrongSwan)
	if _, err := os.Stat(charon); err == nil {
		args = append(args, "--charon", charon)
	}
	return args
}

// TestRootTunnelAgainstRivals measures all by turns, in both kinds of network.
func TestRootTunnelAgainstRivals(t *testing.T) {
	r, stdout := tunnelRun(t, againstStrongSwan(t, "--adit", builtAdit(t), "--against", bench.SystemWireGuard,
		"--wireguard-go", built(t, "wireguard-go", bench.WireGuardModule), "--tests", "tcp1,udp64-fixed,ping", "--rate", "2000")...)
	holds(t, r, []string{bench.SystemAdit, bench.SystemWireGuard, bench.SystemStrongSwan},
		"tcp1 on", "udp64-fixed on", "ping on", "tcp1 off", "udp64-fixed off", "ping off")
	if r.Settings.Rates["udp64-fixed"] != 2000 {
		t.Errorf("settings: %+v, want 2000 datagrams a second of udp64-fixed", r.Settings)
	}
	for _, want := range []string{"ratio to wireguard-go", "ratio to strongswan", bench.WireGuardVersion, "strongSwan ", "WARNING: rounds 1"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the table lacks %q:\n%s", want, stdout)
		}
	}
}

// TestRootInterruptTakesEverythingDown: SIGINT in the middle of a run.
func TestRootInterruptTakesEverythingDown(t *testing.T) {
	temp := t.TempDir()
	cmd := program(t, againstStrongSwan(t, "tunnel", "--adit", builtAdit(t), "--tests", "tcp1", "--seconds", "3600")...)
	cmd.Env = append(cmd.Env, "TMPDIR="+temp)
	interruptedRun(t, cmd, "measuring")
	if left := leftovers(t, temp); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
}

// TestRootPlanMeasuresCalls: a short plan loses nothing, and has a figure for
// everything.
func TestRootPlanMeasuresCalls(t *testing.T) {
	var r bench.PlanReport
	stdout := rootRun(t, &r, "plan", "--adit", builtAdit(t), "--peers", "3", "--calls", "20", "--rounds", "1", "--seconds", "1")
	for _, p := range []bench.PlanRun{r.Clear, r.Tunnel} {
		if p.Calls != 20 || p.Loss.Max != 0 || p.Offered.Median < 100 || p.Duplicates.Max != 0 || p.DelayMedian.Median <= 0 ||
			p.DelayP99.Median < p.DelayMedian.Median || p.JitterMedian.Median <= 0 || p.JitterP99.Median < p.JitterMedian.Median || p.Generator.Median <= 0 {
			t.Errorf("%+v", p)
		}
	}
	if c := r.Clear; c.GatewayA.Max != 0 || c.GatewayB.Max != 0 {
		t.Errorf("gateways in clear: %+v", c)
	}
	if p := r.Tunnel; p.GatewayA.Median <= 0 || p.GatewayB.Median <= 0 || p.CPU.Median <= 0 || p.PerCall.Median < p.CPU.Median {
		t.Errorf("no processor time: %+v", p)
	}
	if d := r.Tunnel.DelayMedian.Median - r.Clear.DelayMedian.Median; r.Added.DelayMedian.Median != d {
		t.Errorf("added %v, want %v", r.Added.DelayMedian.Median, d)
	}
	if c := r.Capacity; c.Calls < 1 || c.Carried < 20 || c.MeasuredAt < 1 || c.Factor <= 0 {
		t.Errorf("capacity %+v", c)
	}
	if r.Kind != "plan" || r.Settings.Peers != 3 || r.Bandwidth.OuterBytes != 264 || !strings.Contains(stdout, "One core carries about") {
		t.Errorf("%+v:\n%s", r, stdout)
	}
}

// TestRootInterruptedPlanTakesEverythingDown: SIGINT in the middle of calls.
func TestRootInterruptedPlanTakesEverythingDown(t *testing.T) {
	temp := t.TempDir()
	cmd := program(t, "plan", "--adit", builtAdit(t), "--calls", "10", "--seconds", "600")
	cmd.Env = append(cmd.Env, "TMPDIR="+temp)
	interruptedRun(t, cmd, "measuring")
	if left := leftovers(t, temp); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
}
