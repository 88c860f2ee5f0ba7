package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/adit-ipsec/adit/bench"
)

func newEngineCommand() *cobra.Command {
	var o bench.EngineOptions
	var out outputs
	var seconds float64
	cmd := &cobra.Command{
		Use:   "engine",
		Short: "the engine alone, without system calls",
		Long: strings.TrimSpace(`
Carries packets through one gateway whose TUN and wire are memory that is always
ready: each walk (out: TUN to wire, in: wire to TUN) on one core, and one copy
of each packet into the gateway's buffers. Prints the median of the rounds, with
the lowest and the highest.

Every suite is measured with every size. Policies and SA pairs are then varied
one at a time, with the first suite and the first size. Beside the walks there
are the policy lookup alone, without the flow cache, and the memory of SA pairs.
The defaults take about two minutes.

CPU cycles are counted in user mode, where kernel and machine let them be read;
elsewhere that column is left out.`),
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command) error {
			if err := checkRounds(o.Rounds, seconds); err != nil {
				return err
			}
			if err := o.Check(); err != nil {
				return &failure{exitUsage, err}
			}
			if err := out.check(); err != nil {
				return err
			}
			o.Duration = time.Duration(seconds * float64(time.Second))
			o.Progress = func(line string) { fmt.Fprintln(cmd.ErrOrStderr(), line) }
			report, err := bench.RunEngine(cmd.Context(), o)
			if err != nil {
				return err
			}
			return out.write(cmd.OutOrStdout(), report, engineTable(report), engineChart(report))
		}),
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.Suites, "suites", []string{"aes128gcm16", "aes256gcm16", "chacha20poly1305", "aes128-sha256"}, "cipher `suites`, with commas between them")
	f.StringSliceVar(&o.Sizes, "sizes", []string{"64", "512", "1408", "imix"}, "`bytes` of the inner packet; imix: 7 of 64, 4 of 576 and 1 of 1408 by turns")
	f.IntSliceVar(&o.Policies, "policies", []int{1, 100, 10000}, "`numbers` of policies; the packets' own is the last")
	f.IntSliceVar(&o.SAs, "sas", []int{1, 1000, 10000}, "`numbers` of SA pairs that take turns, each with a peer and a policy of its own")
	f.IntVar(&o.Rounds, "rounds", 5, "`number` of rounds")
	f.Float64Var(&seconds, "seconds", 0.1, "`seconds` that each walk takes in each round")
	out.flags(cmd)
	return cmd
}

// checkRounds are the limits that every benchmark has.
func checkRounds(rounds int, seconds float64) error {
	if rounds < 1 || rounds > 1000 {
		return usage("--rounds %d: write a number from 1 to 1000", rounds)
	}
	if !(seconds >= 0.01 && seconds <= 3600) { // NaN is neither
		return usage("--seconds %v: write a number from 0.01 to 3600", seconds)
	}
	return nil
}

// engineTable is the report as a terminal shows it.
func engineTable(r *bench.EngineReport) string {
	var b strings.Builder
	machineLines(&b, r.Machine)
	fmt.Fprintf(&b, "adit      %s\n", r.Version)
	fmt.Fprintf(&b, "settings  %s of at least %g s of walk per row\n", count(r.Settings.Rounds, "round", "rounds"), r.Settings.Seconds)
	for _, part := range engineParts {
		part.write(&b, r)
	}
	lookupTable(&b, r.Lookups)
	memoryTable(&b, r.Memory)
	b.WriteString("\nEach figure is the median of the rounds (lowest - highest); allocations: the median.\n")
	notes(&b, r.Notes)
	return b.String()
}

// enginePart is a table of the rows that vary one thing, and the columns that
// say what.
type enginePart struct {
	varies string
	title  func(first bench.EngineRow) string
	head   []string
	cells  func(bench.EngineRow) []string
}

var engineParts = []enginePart{
	{bench.VarySize, func(bench.EngineRow) string { return "Walks, by suite and size; 1 SA pair, 1 policy" },
		[]string{"suite", "bytes", "walk"},
		func(r bench.EngineRow) []string { return []string{r.Suite, r.Size, r.Walk} }},
	{bench.VaryPolicies, func(r bench.EngineRow) string {
		return "Walks, by policies and flow cache; " + r.Suite + ", " + sizeName(r.Size) + ", 1 SA pair"
	},
		[]string{"policies", "flows", "walk"},
		func(r bench.EngineRow) []string {
			return []string{fmt.Sprint(r.Policies), fmt.Sprintf("%d, %s", r.Flows, cached(r)), r.Walk}
		}},
	{bench.VarySAs, func(r bench.EngineRow) string {
		return "Walks, by SA pairs that take turns; " + r.Suite + ", " + sizeName(r.Size) + ", 1 policy for each pair"
	},
		[]string{"SA pairs", "in a row", "walk"},
		func(r bench.EngineRow) []string { return []string{fmt.Sprint(r.SAs), fmt.Sprint(r.Run), r.Walk} }},
}

// cached says what the flow cache does for a row that varies policies.
func cached(r bench.EngineRow) string {
	if r.Flows == 1 {
		return "cached"
	}
	return "uncached"
}

func (p *enginePart) write(b *strings.Builder, r *bench.EngineReport) {
	var t table
	for _, row := range r.Rows {
		if row.Varies != p.varies {
			continue
		}
		if len(t.rows) == 0 {
			fmt.Fprintf(b, "\n%s\n", p.title(row))
			head := append([]string{}, p.head...)
			head = append(head, "ns/packet", "CPU ns", "harness ns")
			if row.Cycles != nil {
				head = append(head, "cycles/packet")
			}
			t.row(append(head, "allocations/packet", "Mpacket/s", "Gbit/s")...)
		}
		cells := append(p.cells(row), ranged(row.Nanoseconds), ranged(row.CPU), figure(row.Harness.Median))
		if row.Cycles != nil {
			cells = append(cells, ranged(*row.Cycles))
		}
		t.row(append(cells, fmt.Sprintf("%.2f", row.Allocations.Median), figure(row.Packets.Median/1e6), figure(row.Gigabits.Median))...)
	}
	t.write(b)
}

func lookupTable(b *strings.Builder, rows []bench.EngineLookup) {
	if len(rows) == 0 {
		return
	}
	b.WriteString("\nPolicy lookup alone, uncached\n")
	var t table
	t.row("policies", "the flow finds", "ns/lookup", "CPU ns")
	for _, l := range rows {
		t.row(fmt.Sprint(l.Policies), l.Flow, ranged(l.Nanoseconds), ranged(l.CPU))
	}
	t.write(b)
}

func memoryTable(b *strings.Builder, rows []bench.EngineMemory) {
	if len(rows) == 0 {
		return
	}
	b.WriteString("\nMemory of SA pairs, " + rows[0].Suite + ", a replay window of 4096 packets\n")
	var t table
	t.row("SA pairs", "heap bytes/pair", "install, µs/pair")
	for _, m := range rows {
		t.row(fmt.Sprint(m.SAs), ranged(m.Bytes), ranged(m.Install))
	}
	t.write(b)
}

func sizeName(size string) string {
	if size == "imix" {
		return "IMIX"
	}
	return size + " bytes"
}

// engineChart is one panel for each suite, and one for each thing else that was
// varied: processor time, which others on the machine disturb least.
func engineChart(r *bench.EngineReport) chart {
	c := chart{Title: "adit: the engine alone, without system calls", Subtitle: chartSubtitle(r.Machine, r.Settings.Rounds)}
	panels := make(map[string]int)
	add := func(title string, b bar) {
		at, ok := panels[title]
		if !ok {
			at = len(c.Panels)
			panels[title] = at
			c.Panels = append(c.Panels, panel{Title: title})
		}
		c.Panels[at].Bars = append(c.Panels[at].Bars, b)
	}
	for _, row := range r.Rows {
		title, group := row.Suite+": ns of one core per packet (lower is better)", sizeName(row.Size)
		switch row.Varies {
		case bench.VaryPolicies:
			title = fmt.Sprintf("Policies, %s, %s: ns of one core per packet", row.Suite, sizeName(row.Size))
			group = count(row.Policies, "policy", "policies") + ", " + cached(row)
		case bench.VarySAs:
			title = fmt.Sprintf("SA pairs by turns, %s, %s: ns of one core per packet", row.Suite, sizeName(row.Size))
			group = fmt.Sprintf("%s, %s in a row", count(row.SAs, "SA pair", "SA pairs"), count(row.Run, "packet", "packets"))
		}
		second := 0
		if row.Walk == "in" {
			second = 1
		}
		add(title, bar{Group: group, Series: row.Walk, Colour: second, Value: row.CPU})
	}
	for _, l := range r.Lookups {
		add("Policy lookup, uncached: ns of one core (lower is better)", bar{Group: count(l.Policies, "policy", "policies"), Series: l.Flow, Value: l.CPU})
	}
	return c
}
