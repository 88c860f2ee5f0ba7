package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/bench"
)

// Reports with fixed figures, and what becomes of them.

var (
	fixedTime    = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	fixedMachine = bench.Machine{CPU: "Some CPU <x>", Features: []string{"aes", "vaes"}, Cores: 2, GOMAXPROCS: 2,
		Kernel: "Linux 6.1 x86_64", Go: "go1.26", Load: "0.10 0.20 0.30"}
)

func fixedEngine() *bench.EngineReport {
	row := func(varies, size, walk string, policies, sas, run, flows int, ns ...float64) bench.EngineRow {
		inverse := make([]float64, len(ns))
		for i, v := range ns {
			inverse[i] = 1e9 / v
		}
		cycles := bench.Summarize([]float64{2100, 2000, 2200})
		return bench.EngineRow{Varies: varies, Suite: "aes128gcm16", Size: size, Policies: policies, SAs: sas, Run: run, Flows: flows, Walk: walk,
			Nanoseconds: bench.Summarize(ns), CPU: bench.Summarize(ns), Harness: bench.Summarize([]float64{20, 21, 22}), Cycles: &cycles,
			Allocations: bench.Summarize([]float64{0, 0.001, 0}), Packets: bench.Summarize(inverse), Gigabits: bench.Summarize([]float64{11.5, 12.5, 9})}
	}
	return &bench.EngineReport{Kind: "engine", Started: fixedTime, Machine: fixedMachine, Version: "adit v1",
		Settings: bench.EngineSettings{Rounds: 3, Seconds: 0.2, IMIX: bench.IMIX}, Notes: []string{"A note."},
		Rows: []bench.EngineRow{
			row(bench.VarySize, "64", "out", 1, 1, 1, 1, 170, 180, 175), row(bench.VarySize, "64", "in", 1, 1, 1, 1, 160, 190, 185),
			row(bench.VarySize, "imix", "out", 1, 1, 1, 1, 300, 310, 305), row(bench.VarySize, "imix", "in", 1, 1, 1, 1, 400, 380, 390),
			row(bench.VaryPolicies, "64", "out", 10000, 1, 1, 1, 171, 180, 175), row(bench.VaryPolicies, "64", "out", 10000, 1, 1, 65536, 370, 380, 375),
			row(bench.VarySAs, "64", "in", 1000, 1000, 1, 1000, 270, 280, 275), row(bench.VarySAs, "64", "in", 1000, 1000, 32, 1000, 190, 200, 195),
		},
		Lookups: []bench.EngineLookup{
			{Policies: 1, Flow: "first policy", Nanoseconds: bench.Summarize([]float64{20, 22, 21}), CPU: bench.Summarize([]float64{20, 21, 21})},
			{Policies: 10000, Flow: "no policy", Nanoseconds: bench.Summarize([]float64{120, 122, 121}), CPU: bench.Summarize([]float64{120, 121, 121})},
		},
		Memory: []bench.EngineMemory{
			{Suite: "aes128gcm16", SAs: 1000, Bytes: bench.Summarize([]float64{4600, 4601, 4602}), Install: bench.Summarize([]float64{4, 5, 4.5})},
		}}
}

func fixedTunnel() *bench.TunnelReport {
	metric := func(name, unit, better string, ratio bool, adit, wireGuard, strongSwan []float64) bench.Metric {
		m := bench.Metric{Name: name, Unit: unit, Better: better, Systems: map[string]bench.Summary{
			bench.SystemAdit: bench.Summarize(adit), bench.SystemWireGuard: bench.Summarize(wireGuard), bench.SystemStrongSwan: bench.Summarize(strongSwan)}}
		if ratio {
			m.Ratios = map[string]bench.Summary{
				bench.SystemWireGuard:  bench.Summarize([]float64{adit[0] / wireGuard[0], adit[1] / wireGuard[1]}),
				bench.SystemStrongSwan: bench.Summarize([]float64{adit[0] / strongSwan[0], adit[1] / strongSwan[1]})}
		}
		return m
	}
	return &bench.TunnelReport{Kind: "tunnel", Started: fixedTime, Machine: fixedMachine,
		Settings: bench.TunnelSettings{Rounds: 2, Seconds: 3, Rates: map[string]int{"udp64-fixed": 20000}}, Notes: []string{"A note.", "Another."},
		Systems: []bench.System{{Name: bench.SystemAdit, Version: "adit v1", Settings: "s"}, {Name: bench.SystemWireGuard, Version: "wg v2", Settings: "its defaults"},
			{Name: bench.SystemStrongSwan, Version: "charon 3", Settings: "OpenSSL"}},
		Results: []bench.TunnelResult{
			{Test: "tcp1", Segmentation: "on", Metrics: []bench.Metric{
				metric("goodput", "Gbit/s", "higher", true, []float64{4.4, 4}, []float64{2.2, 2.5}, []float64{0.5, 0.6}),
				metric("CPU", "s/GB", "lower", true, []float64{2, 2.2}, []float64{5, 4}, []float64{30, 32}),
				metric("retransmits", "", "lower", false, []float64{0, 3}, []float64{12, 1}, []float64{0, 1}),
			}},
			{Test: "udp64", Segmentation: "off", Metrics: []bench.Metric{
				metric("delivered", "kpps", "higher", true, []float64{150, 140}, []float64{60, 200}, []float64{40, 30}),
				metric("CPU", "s/Mpacket", "lower", true, []float64{8, 9}, []float64{20, 18}, []float64{50, 60}),
				metric("goodput", "Gbit/s", "higher", true, []float64{0.08, 0.07}, []float64{0.03, 0.1}, []float64{0.02, 0.015}),
				metric("loss", "%", "lower", false, []float64{40.5, 42}, []float64{80, 70}, []float64{90, 95}),
			}},
			{Test: "udp64-fixed", Segmentation: "off", Metrics: []bench.Metric{
				metric("CPU", "s/Mpacket", "lower", true, []float64{10, 11}, []float64{22, 21}, []float64{50, 55}),
				metric("loss", "%", "lower", false, []float64{0, 0.01}, []float64{0, 0}, []float64{0.5, 3}),
				metric("delivered", "kpps", "higher", false, []float64{20, 19.9}, []float64{20, 20}, []float64{19.9, 19.5}),
			}},
			{Test: "ping", Segmentation: "on", Metrics: []bench.Metric{
				metric("median", "µs", "lower", true, []float64{310, 330}, []float64{610, 605}, []float64{700, 710}),
				metric("p99", "µs", "lower", true, []float64{900, 950}, []float64{800, 700}, []float64{1400, 1500}),
				metric("lost", "", "lower", false, []float64{0, 0}, []float64{0, 1}, []float64{0, 0}),
			}},
		}}
}

func fixedIKE() *bench.IKEReport {
	row := func(work, group, auth string, messages, bytes float64, initiator, responder []float64) bench.IKERow {
		process, gateway, both := make([]float64, len(responder)), make([]float64, len(responder)), make([]float64, len(responder))
		for i := range responder {
			process[i] = initiator[i] + responder[i] + 100
			gateway[i], both[i] = 1e6/responder[i], 1e6/process[i]
		}
		return bench.IKERow{Work: work, Group: group, Auth: auth, Messages: messages, Bytes: bytes, Initiator: bench.Summarize(initiator),
			Responder: bench.Summarize(responder), Process: bench.Summarize(process), Gateway: bench.Summarize(gateway), Both: bench.Summarize(both)}
	}
	times := func(v ...float64) []float64 { return v }
	return &bench.IKEReport{Kind: "ike", Started: fixedTime, Machine: fixedMachine, Version: "adit v1",
		Settings: bench.IKESettings{Rounds: 3, Seconds: 0.2}, Notes: []string{"A note."},
		Rows: []bench.IKERow{
			row(bench.IKEHandshake, "x25519", "ecdsa-p256", 4, 2900, times(700, 710, 690), times(600, 620, 610)),
			row(bench.IKEHandshake, "modp2048", "ecdsa-p256", 4, 3300, times(5000, 5100, 5200), times(4900, 5000, 5100)),
			row(bench.IKEHandshake, "x25519", "psk", 4, 900, times(300, 310, 320), times(290, 280, 285)),
			row(bench.IKERekeyChild, "x25519", "ecdsa-p256", 4, 700, times(100, 110, 120), times(90, 80, 85)),
			row(bench.IKECookie, "x25519", "ecdsa-p256", 1, 53, times(0, 0, 0), times(7, 6, 6.5)),
		},
		Memory: []bench.IKEMemory{{Group: "x25519", Auth: "ecdsa-p256", SAs: 1000, Bytes: bench.Summarize(times(9000, 9010, 9020))}}}
}

func fixedPlan() *bench.PlanReport {
	one := func(v ...float64) bench.Summary { return bench.Summarize(v) }
	delays := func(by float64) bench.PlanDelays {
		return bench.PlanDelays{DelayMedian: one(10*by, 11*by), DelayP99: one(40*by, 50*by), JitterMedian: one(5*by, 6*by), JitterP99: one(20*by, 21*by)}
	}
	run := func(calls int, load, loss float64) bench.PlanRun {
		n := float64(calls)
		return bench.PlanRun{Calls: calls, Offered: one(100*n, 100*n), Delivered: one(100*n*(1-loss/100), 100*n*(1-loss/100)), Loss: one(loss, loss), PlanDelays: delays(3),
			GatewayA: one(load, load+1), GatewayB: one(load, load+2), CPU: one(5, 6), PerCall: one(500, 600), Generator: one(30, 31), LateP99: one(90, 95), Duplicates: one(0, 0)}
	}
	clear := run(100, 0, 0)
	clear.PlanDelays, clear.CPU, clear.PerCall = delays(1), one(0, 0), one(0, 0)
	return &bench.PlanReport{Kind: "plan", Started: fixedTime, Machine: fixedMachine, Version: "adit v1", Notes: []string{"A note."},
		Settings:  bench.PlanSettings{Suite: "aes128gcm16", Peers: 10, Calls: 100, Load: 70, Rounds: 2, Seconds: 10},
		Bandwidth: bench.PlanBandwidth{InnerBytes: 200, OuterBytes: 264, InnerKbit: 80, OuterKbit: 105.6, InnerMbit: 8, OuterMbit: 10.56},
		Clear:     clear, Tunnel: run(100, 5, 0), Added: delays(2),
		Capacity: bench.PlanCapacity{Calls: 1400, MeasuredAt: 800, Carried: 800, Factor: 1.75,
			Steps: []bench.PlanRun{run(800, 40, 0), run(1390, 68, 3.2)}}}
}

func TestGoldenReports(t *testing.T) {
	engine, tunnel := fixedEngine(), fixedTunnel()
	engineChart, tunnelChart := engineChart(engine), tunnelChart(tunnel)
	alone := fixedTunnel()
	alone.Systems = alone.Systems[:1]
	noCycles := fixedEngine()
	for i := range noCycles.Rows {
		noCycles.Rows[i].Cycles = nil
	}
	plan, carried, lossy := fixedPlan(), fixedPlan(), fixedPlan()
	planChart := planChart(plan)
	carried.Settings.Calls, carried.Settings.Peers, carried.Capacity = 1, 1, bench.PlanCapacity{Calls: 90, MeasuredAt: 100, Carried: 100, Factor: 0.9}
	lossy.Capacity = bench.PlanCapacity{Calls: 90, MeasuredAt: 100}
	ike, handshakes := fixedIKE(), fixedIKE()
	ikeChart := ikeChart(ike)
	handshakes.Rows, handshakes.Memory = handshakes.Rows[:1], nil
	for name, text := range map[string]string{
		"ike.txt":              ikeTable(ike),
		"ike-alone.txt":        ikeTable(handshakes),
		"ike.svg":              ikeChart.svg(),
		"ike.json":             jsonText(t, ike),
		"plan.txt":             planTable(plan),
		"plan.svg":             planChart.svg(),
		"plan.json":            jsonText(t, plan),
		"plan-carried.txt":     planSummary(carried),
		"plan-lossy.txt":       planSummary(lossy),
		"engine.txt":           engineTable(engine),
		"engine-no-cycles.txt": engineTable(noCycles),
		"engine.svg":           engineChart.svg(),
		"engine.json":          jsonText(t, engine),
		"tunnel.txt":           tunnelTable(tunnel),
		"tunnel-alone.txt":     tunnelTable(alone),
		"tunnel.svg":           tunnelChart.svg(),
		"tunnel.json":          jsonText(t, tunnel),
	} {
		file := filepath.Join("testdata", name)
		if *update {
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
		if filepath.Ext(name) == ".svg" {
			wellFormed(t, file)
		}
	}
}

func jsonText(t *testing.T, v any) string {
	t.Helper()
	text, err := reportJSON(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
