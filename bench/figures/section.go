package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/adit-ipsec/adit/bench"
)

// section is the text between the markers.
func (r recorded) section() string {
	var b strings.Builder
	if r.engine == nil && r.tunnel == nil && r.plan == nil && r.ike == nil {
		return "No figures are recorded for this version. `make bench` measures on your machine, `make record` records.\n"
	}
	b.WriteString("Medians of the rounds, with the lowest and the highest. Figures of one machine are proportions, not promises: the ratios are\n" +
		"of systems that took turns on it. `make record` measures anew, on an idle machine; [bench/results](bench/results) has\n" +
		"everything that was measured, and [bench/README.md](bench/README.md) says what each figure means.\n")
	if r.engine != nil {
		engineSection(&b, r.engine)
	}
	if r.ike != nil {
		ikeSection(&b, r.ike)
	}
	if r.tunnel != nil {
		tunnelSection(&b, r.tunnel)
	}
	if r.plan != nil {
		planSection(&b, r.plan)
	}
	return b.String()
}

// heading is a table's title, the command that made it, and the machine.
func heading(b *strings.Builder, title, command string, m bench.Machine, started string) {
	fmt.Fprintf(b, "\n**%s**: `%s`\n", title, command)
	fmt.Fprintf(b, "(%s, %s, %s, %s; load before it %s; %s)\n\n", m.CPU, count(m.Cores, "core", "cores"), m.Kernel, m.Go, m.Load, started)
}

const day = "2006-01-02"

func engineSection(b *strings.Builder, r *bench.EngineReport) {
	heading(b, "One gateway, one core, no system calls", fmt.Sprintf("adit-bench engine --rounds %d --seconds %g", r.Settings.Rounds, r.Settings.Seconds),
		r.Machine, r.Started.Format(day))
	sizes := []string{"64", "1408", "imix"}
	if busy(r.Machine) {
		b.WriteString("No reference run: others were at work on the machine.\n\n")
	}
	head := []string{"ns of one core per packet"}
	for _, size := range sizes {
		for _, walk := range []string{"out", "in"} {
			head = append(head, strings.ToUpper(strings.TrimRight(size, "0123456789"))+strings.TrimLeft(size, "imx")+" "+walk)
		}
	}
	row(b, head...)
	rule(b, len(head))
	var suites []string
	walks := make(map[string]bench.EngineRow)
	allocations := 0.0
	for _, w := range r.Rows {
		allocations = max(allocations, w.Allocations.Median)
		if w.Varies != bench.VarySize {
			continue
		}
		if len(suites) == 0 || suites[len(suites)-1] != w.Suite {
			suites = append(suites, w.Suite)
		}
		walks[w.Suite+w.Size+w.Walk] = w
	}
	for _, suite := range suites {
		cells := []string{suite}
		for _, size := range sizes {
			for _, walk := range []string{"out", "in"} {
				w, ok := walks[suite+size+walk]
				if !ok {
					cells = append(cells, "")
					continue
				}
				cells = append(cells, figure(w.CPU))
			}
		}
		row(b, cells...)
	}
	variedTable(b, r)
	fmt.Fprintf(b, "\nAllocations per packet: %.2f at the most.", allocations)
	lookupSentence(b, r)
	if n := len(r.Memory); n > 0 {
		m := r.Memory[n-1]
		fmt.Fprintf(b, "\n%s: %.0f bytes of heap each.", count(m.SAs, "SA pair", "SA pairs"), m.Bytes.Median)
	}
	b.WriteString("\n")
}

// busy tells whether the machine was not idle before the engine, which `make
// record` measures first.
func busy(m bench.Machine) bool {
	var last float64
	_, err := fmt.Sscan(m.Load, &last)
	return err == nil && last > busyLoad
}

// busyLoad is a load average of the last minute that no build just ended leaves.
const busyLoad = 1.5

// variedTable is the walks with the most policies and the most SA pairs.
func variedTable(b *strings.Builder, r *bench.EngineReport) {
	most := make(map[string]int)
	for _, w := range r.Rows {
		most[w.Varies] = max(most[w.Varies], numberOf(w))
	}
	var names []string
	cells := make(map[string]map[string]string)
	for _, w := range r.Rows {
		if w.Varies == bench.VarySize || numberOf(w) != most[w.Varies] {
			continue
		}
		name := fmt.Sprintf("%s, %s, ", w.Suite, w.Size)
		switch {
		case w.Varies == bench.VarySAs:
			name += fmt.Sprintf("%s by turns, %s in a row", count(w.SAs, "SA pair", "SA pairs"), count(w.Run, "packet", "packets"))
		case w.Flows == 1:
			name += count(w.Policies, "policy", "policies") + ", flow cached"
		default:
			name += count(w.Policies, "policy", "policies") + ", flow uncached"
		}
		if cells[name] == nil {
			names = append(names, name)
			cells[name] = make(map[string]string)
		}
		cells[name][w.Walk] = figure(w.CPU)
	}
	if len(names) == 0 {
		return
	}
	b.WriteString("\n")
	row(b, "ns of one core per packet", "out", "in")
	rule(b, 3)
	for _, name := range names {
		row(b, name, cells[name]["out"], cells[name]["in"])
	}
}

// numberOf is the number that a row varies.
func numberOf(w bench.EngineRow) int {
	if w.Varies == bench.VarySAs {
		return w.SAs
	}
	return w.Policies
}

// lookupSentence is the lookups among the most policies, the slowest last.
func lookupSentence(b *strings.Builder, r *bench.EngineReport) {
	most := 0
	for _, l := range r.Lookups {
		most = max(most, l.Policies)
	}
	var among []bench.EngineLookup
	for _, l := range r.Lookups {
		if l.Policies == most {
			among = append(among, l)
		}
	}
	if len(among) == 0 {
		return
	}
	slices.SortStableFunc(among, func(a, b bench.EngineLookup) int { return cmp.Compare(a.CPU.Median, b.CPU.Median) })
	var texts []string
	for _, l := range among {
		texts = append(texts, fmt.Sprintf("%s %.0f", l.Flow, l.CPU.Median))
	}
	fmt.Fprintf(b, "\nPolicy lookup alone among %s, uncached, in ns, by what the flow finds: %s.", count(most, "policy", "policies"), strings.Join(texts, "; "))
}

// tunnelLines are the figures that the page shows, of all that are measured.
var tunnelLines = []struct{ test, segmentation, metric, title string }{
	{"tcp1", "on", "goodput", "TCP, one flow, Gbit/s"},
	{"tcp1", "on", "CPU", "TCP, one flow, CPU s/GB of both gateways"},
	{"tcp1", "off", "goodput", "the same, segmentation off, Gbit/s"},
	{"tcp1", "off", "CPU", "the same, segmentation off, CPU s/GB"},
	{"tcp4", "on", "goodput", "TCP, four flows, Gbit/s"},
	{"tcp-both", "on", "goodput", "TCP, one flow in each direction, Gbit/s"},
	{"udp64", "on", "delivered", "UDP, 64 bytes, delivered kpps"},
	{"udp64", "on", "CPU", "UDP, 64 bytes, CPU s/Mpacket"},
	{"udp64-fixed", "on", "CPU", "the same at a fixed rate, CPU s/Mpacket"},
	{"ping", "on", "median", "ping, median, µs"},
	{"ping", "on", "p99", "ping, 99th percentile, µs"},
}

func tunnelSection(b *strings.Builder, r *bench.TunnelReport) {
	var rivals []string
	for _, s := range r.Systems {
		if s.Name != bench.SystemAdit {
			rivals = append(rivals, s.Name)
		}
	}
	command := "adit-bench tunnel"
	if len(rivals) > 0 {
		command += " --against " + strings.Join(rivals, ",")
	}
	heading(b, "Two gateways on one machine", fmt.Sprintf("%s --rounds %d --seconds %g", command, r.Settings.Rounds, r.Settings.Seconds),
		r.Machine, r.Started.Format(day))
	head := []string{"", "adit"}
	for _, rival := range rivals {
		head = append(head, rival, "ratio")
	}
	row(b, head...)
	rule(b, len(head))
	for _, line := range tunnelLines {
		m := metricOf(r, line.test, line.segmentation, line.metric)
		if m == nil {
			continue
		}
		cells := []string{line.title, figure(m.Systems[bench.SystemAdit])}
		for _, rival := range rivals {
			ratio := ""
			if of, ok := m.Ratios[rival]; ok {
				ratio = fmt.Sprintf("**%.2f×** (%.2f – %.2f)", of.Median, of.Min, of.Max)
			}
			cells = append(cells, figure(m.Systems[rival]), ratio)
		}
		row(b, cells...)
	}
	b.WriteString("\n")
	for _, note := range r.Notes {
		if strings.HasPrefix(note, "WARNING") {
			b.WriteString(note + "\n")
		}
	}
	b.WriteString("A ratio is adit's figure by the rival's of the same round. Segmentation off: the outside links do not segment UDP\n(`tx-udp-segmentation`), as network cards without USO.\n")
	for _, s := range r.Systems {
		fmt.Fprintf(b, "%s: %s.\n", s.Name, s.Settings)
	}
}

func metricOf(r *bench.TunnelReport, test, segmentation, name string) *bench.Metric {
	for _, result := range r.Results {
		if result.Test != test || result.Segmentation != segmentation {
			continue
		}
		for i := range result.Metrics {
			if result.Metrics[i].Name == name {
				return &result.Metrics[i]
			}
		}
	}
	return nil
}

func planSection(b *strings.Builder, r *bench.PlanReport) {
	s := &r.Settings
	heading(b, "G.711 calls through two gateways", fmt.Sprintf("adit-bench plan --peers %d --calls %d --suite %s --load %d --rounds %d --seconds %g",
		s.Peers, s.Calls, s.Suite, s.Load, s.Rounds, s.Seconds), r.Machine, r.Started.Format(day))
	row(b, fmt.Sprintf("%s, %s", count(s.Calls, "call", "calls"), count(s.Peers, "peer", "peers")),
		"delay, median, µs", "delay, p99, µs", "jitter, median, µs", "jitter, p99, µs", "loss, %", "gateway, % of a core")
	rule(b, 7)
	line := func(name string, d *bench.PlanDelays, loss, load string) {
		row(b, name, figure(d.DelayMedian), figure(d.DelayP99), figure(d.JitterMedian), figure(d.JitterP99), loss, load)
	}
	line("clear", &r.Clear.PlanDelays, fmt.Sprintf("%.3f", r.Clear.Loss.Median), "")
	busier := r.Tunnel.GatewayA
	if r.Tunnel.GatewayB.Median > busier.Median {
		busier = r.Tunnel.GatewayB
	}
	line("tunnel", &r.Tunnel.PlanDelays, fmt.Sprintf("%.3f", r.Tunnel.Loss.Median), figure(busier))
	line("added", &r.Added, "", "")
	c := &r.Capacity
	fmt.Fprintf(b, "\nOne core carries about %s at %d %% load, by the processor time at %d; %d were run with at most 0.1 %% lost", count(c.Calls, "call", "calls"), s.Load, c.MeasuredAt, c.Carried)
	if c.Factor > 1 {
		fmt.Fprintf(b, ", the rest is extrapolated by %.1f", c.Factor)
	}
	fmt.Fprintf(b, ".\nA call takes %.1f kbit/s of IP packets in each direction, %.1f in clear.\n", r.Bandwidth.OuterKbit, r.Bandwidth.InnerKbit)
}

func row(b *strings.Builder, cells ...string) {
	b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

func rule(b *strings.Builder, columns int) {
	b.WriteString("|" + strings.Repeat("---|", columns) + "\n")
}

// figure is a summary with the digits that count.
func figure(s bench.Summary) string {
	digits := func(v float64) string {
		switch size := max(v, -v); {
		case size >= 100 || v == 0:
			return fmt.Sprintf("%.0f", v)
		case size >= 10:
			return fmt.Sprintf("%.1f", v)
		}
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%s (%s – %s)", digits(s.Median), digits(s.Min), digits(s.Max))
}

// count is "1 call", "2 calls".
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
