package main

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/bench"
)

var regenerate = flag.Bool("update", false, "write golden files anew")

// TestReadmeShowsWhatWasRecorded: README.md's figures are those of
// bench/results, to the letter.
func TestReadmeShowsWhatWasRecorded(t *testing.T) {
	page, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	r, err := load("../results")
	if err != nil {
		t.Fatal(err)
	}
	want, err := replace(string(page), r.section())
	if err != nil {
		t.Fatal(err)
	}
	if string(page) != want {
		t.Errorf("README.md's figures are not those of bench/results: `make figures` writes them anew, by hand they are not changed. They should be:\n%s", r.section())
	}
}

var (
	fixedTime    = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	fixedMachine = bench.Machine{CPU: "Some CPU", Cores: 2, Kernel: "Linux 6.1 x86_64", Go: "go1.26", Load: "0.10 0.20 0.30"}
)

func of(v ...float64) bench.Summary { return bench.Summarize(v) }

func fixedEngine() *bench.EngineReport {
	r := &bench.EngineReport{Started: fixedTime, Machine: fixedMachine, Settings: bench.EngineSettings{Rounds: 3, Seconds: 0.1},
		Lookups: []bench.EngineLookup{
			{Policies: 1, Flow: "first policy", CPU: of(20)}, {Policies: 10000, Flow: "last policy", CPU: of(150)},
			{Policies: 10000, Flow: "no policy", CPU: of(90)}, {Policies: 10000, Flow: "worst case", CPU: of(900)},
		},
		Memory: []bench.EngineMemory{{SAs: 1, Bytes: of(5000)}, {SAs: 10000, Bytes: of(4500)}}}
	for _, suite := range []string{"aes128gcm16", "aes128-sha256"} {
		for i, size := range []string{"64", "512", "1408"} {
			for j, walk := range []string{"out", "in"} {
				ns := float64(100 + 100*i + 10*j)
				r.Rows = append(r.Rows, bench.EngineRow{Varies: bench.VarySize, Suite: suite, Size: size, Walk: walk, SAs: 1, Run: 1,
					CPU: of(ns, ns+2, ns-2), Allocations: of(0, 0.001)})
			}
		}
	}
	for _, flows := range []int{1, 65536} {
		r.Rows = append(r.Rows, bench.EngineRow{Varies: bench.VaryPolicies, Suite: "aes128gcm16", Size: "64", Walk: "in", Policies: 10000, Flows: flows, CPU: of(float64(170 + flows/100))})
	}
	for _, sas := range []int{1, 1000, 10000} {
		r.Rows = append(r.Rows, bench.EngineRow{Varies: bench.VarySAs, Suite: "aes128gcm16", Size: "64", Walk: "out", SAs: sas, Run: 1, CPU: of(float64(170 + sas/100))})
	}
	return r
}

func busyEngine() *bench.EngineReport {
	r := fixedEngine()
	r.Machine.Load = "1.70 0.20 0.30"
	return r
}

func fixedTunnel() *bench.TunnelReport {
	metric := func(name, unit string, adit, rival float64) bench.Metric {
		ratio := of(adit/rival, adit/rival*1.1, adit/rival*0.9)
		return bench.Metric{Name: name, Unit: unit, Systems: map[string]bench.Summary{bench.SystemAdit: of(adit), bench.SystemWireGuard: of(rival)}, Ratios: map[string]bench.Summary{bench.SystemWireGuard: ratio}}
	}
	return &bench.TunnelReport{Started: fixedTime, Machine: fixedMachine, Notes: []string{"WARNING: few rounds.", "Another note."}, Settings: bench.TunnelSettings{Rounds: 5, Seconds: 3},
		Systems: []bench.System{{Name: bench.SystemAdit, Settings: "its suite"}, {Name: bench.SystemWireGuard, Settings: "its defaults"}},
		Results: []bench.TunnelResult{
			{Test: "tcp1", Segmentation: "on", Metrics: []bench.Metric{metric("goodput", "Gbit/s", 4.4, 2.2), metric("CPU", "s/GB", 2, 5), metric("retransmits", "", 1, 2)}},
			{Test: "tcp4", Segmentation: "on", Metrics: []bench.Metric{metric("goodput", "Gbit/s", 9, 3)}},
			{Test: "ping", Segmentation: "on", Metrics: []bench.Metric{metric("median", "µs", 300, 600), metric("p99", "µs", 900, 1000)}},
		}}
}

func fixedIKE() *bench.IKEReport {
	work := func(work, group, auth string, initiator, responder float64) bench.IKERow {
		return bench.IKERow{Work: work, Group: group, Auth: auth, Initiator: of(initiator), Responder: of(responder), Gateway: of(1e6 / responder), Both: of(1e6 / (initiator + responder))}
	}
	return &bench.IKEReport{Started: fixedTime, Machine: fixedMachine, Settings: bench.IKESettings{Rounds: 5, Seconds: 0.2},
		Rows: []bench.IKERow{
			work(bench.IKEHandshake, "x25519", "ecdsa-p256", 700, 600), work(bench.IKEHandshake, "x25519", "psk", 300, 310),
			work(bench.IKERekeyChild, "x25519", "ecdsa-p256", 40, 50), work(bench.IKECookie, "x25519", "ecdsa-p256", 0, 6),
		},
		Memory: []bench.IKEMemory{{SAs: 1000, Bytes: of(9000)}}}
}

func fixedPlan() *bench.PlanReport {
	delays := bench.PlanDelays{DelayMedian: of(10), DelayP99: of(20), JitterMedian: of(3), JitterP99: of(4)}
	return &bench.PlanReport{Started: fixedTime, Machine: fixedMachine,
		Settings:  bench.PlanSettings{Suite: "aes128gcm16", Peers: 50, Calls: 200, Load: 70, Rounds: 3, Seconds: 10},
		Bandwidth: bench.PlanBandwidth{InnerKbit: 80, OuterKbit: 105.6},
		Clear:     bench.PlanRun{PlanDelays: delays, Loss: of(0)},
		Tunnel:    bench.PlanRun{PlanDelays: delays, Loss: of(0.001), GatewayA: of(9), GatewayB: of(10)},
		Added:     bench.PlanDelays{DelayMedian: of(-1), DelayP99: of(0), JitterMedian: of(0.5), JitterP99: of(100)},
		Capacity:  bench.PlanCapacity{Calls: 1400, MeasuredAt: 800, Carried: 700, Factor: 2}}
}

func TestGoldenSections(t *testing.T) {
	for name, r := range map[string]recorded{
		"all.md":    {fixedEngine(), fixedTunnel(), fixedPlan(), fixedIKE()},
		"engine.md": {engine: busyEngine()},
		"none.md":   {},
	} {
		file := filepath.Join("testdata", name)
		text := r.section()
		if *regenerate {
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if text != string(want) {
			t.Errorf("%s (go test -update writes it anew):\n%s\nwant:\n%s", name, text, want)
		}
	}
}

// TestUpdateReplacesOnlyTheSection: a page keeps what stands around the markers,
// and writing twice changes nothing more.
func TestUpdateReplacesOnlyTheSection(t *testing.T) {
	dir := t.TempDir()
	page := filepath.Join(dir, "page.md")
	text, err := json.Marshal(fixedEngine())
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{"engine.json": string(text), "page.md": "before\n" + beginMarker + "old\n" + endMarker + "behind\n"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := "before\n" + beginMarker + recorded{engine: fixedEngine()}.section() + endMarker + "behind\n"
	for range 2 {
		if err := update(page, dir); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(page); err != nil || string(got) != want {
			t.Fatalf("%v:\n%s\nwant:\n%s", err, got, want)
		}
	}
}

// TestUpdateRefuses what it cannot do, and leaves the page alone.
func TestUpdateRefuses(t *testing.T) {
	for want, files := range map[string]map[string]string{
		"record it again": {"page.md": beginMarker + endMarker, "tunnel.json": `{"kind": "tunnel", "nonsense": 1}`},
		"unexpected EOF":  {"page.md": beginMarker + endMarker, "plan.json": `{`},
		"are not there":   {"page.md": beginMarker},
		"no such file":    {},
	} {
		dir := t.TempDir()
		for file, text := range files {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		page := filepath.Join(dir, "page.md")
		if err := update(page, dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		if got, _ := os.ReadFile(page); string(got) != files["page.md"] {
			t.Errorf("%s: the page is now %q", want, got)
		}
	}
}
