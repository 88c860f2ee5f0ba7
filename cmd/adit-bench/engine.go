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
ready: each walk (out: TUN to wire, in: wire to TUN), and one copy of each
packet into the gateway's buffers. Prints the median of the rounds, with the
lowest and the highest.

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
	f.StringSliceVar(&o.Suites, "suite", []string{"aes128gcm16"}, "cipher `suites`, with commas between them")
	f.StringSliceVar(&o.Sizes, "sizes", []string{"64", "512", "1408", "imix"}, "`bytes` of the inner packet; imix: 7 of 64, 4 of 576 and 1 of 1408 by turns")
	f.IntSliceVar(&o.Policies, "policies", []int{1, 100, 10000}, "`numbers` of policies; the packets' own is the last")
	f.IntVar(&o.Rounds, "rounds", 5, "`number` of rounds")
	f.Float64Var(&seconds, "seconds", 0.2, "`seconds` that each walk takes in each round")
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
	fmt.Fprintf(&b, "settings  %s of at least %g s of walk per row\n\n", count(r.Settings.Rounds, "round", "rounds"), r.Settings.Seconds)
	cycles := len(r.Rows) > 0 && r.Rows[0].Cycles != nil
	var t table
	head := []string{"suite", "bytes", "policies", "walk", "ns/packet", "CPU ns"}
	if cycles {
		head = append(head, "cycles/packet")
	}
	t.row(append(head, "allocations", "Mpacket/s", "Gbit/s")...)
	for _, row := range r.Rows {
		cells := []string{row.Suite, row.Size, fmt.Sprint(row.Policies), row.Walk, ranged(row.Nanoseconds), ranged(row.CPU)}
		if cycles {
			cells = append(cells, ranged(*row.Cycles))
		}
		t.row(append(cells, fmt.Sprintf("%.2f", row.Allocations.Median), ranged(scaled(row.Packets, 1e-6)), ranged(row.Gigabits))...)
	}
	t.write(&b)
	b.WriteString("\nEach figure is the median of the rounds (lowest - highest). Allocations are per packet.\n")
	notes(&b, r.Notes)
	return b.String()
}

// engineChart is one panel of times for each suite.
func engineChart(r *bench.EngineReport) chart {
	c := chart{Title: "adit: the engine alone, without system calls", Subtitle: chartSubtitle(r.Machine, r.Settings.Rounds)}
	panels := make(map[string]int)
	for _, row := range r.Rows {
		at, ok := panels[row.Suite]
		if !ok {
			at = len(c.Panels)
			panels[row.Suite] = at
			c.Panels = append(c.Panels, panel{Title: row.Suite + ": ns per packet (lower is better)"})
		}
		size := row.Size + " bytes"
		if row.Size == "imix" {
			size = "IMIX"
		}
		second := 0
		if row.Walk == "in" {
			second = 1
		}
		c.Panels[at].Bars = append(c.Panels[at].Bars, bar{
			Group:  fmt.Sprintf("%s, %s", size, count(row.Policies, "policy", "policies")),
			Series: row.Walk, Colour: second, Value: row.Nanoseconds,
		})
	}
	return c
}
