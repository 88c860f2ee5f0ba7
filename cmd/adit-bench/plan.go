package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/adit-ipsec/adit/bench"
)

func newPlanCommand() *cobra.Command {
	var o bench.PlanOptions
	var out outputs
	var seconds float64
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "how many peers and G.711 calls a gateway carries on this machine (root)",
		Long: strings.TrimSpace(`
Sizes a gateway for voice by measuring on this machine. Raises two networks in
namespaces, one in clear and one with two gateways and an SA pair for each peer,
and carries calls over them by turns: G.711, 20 ms packets, both directions.
Shows what the tunnel adds to delay and jitter (RFC 3550), what a call takes of
bandwidth and of processor time, and how many calls one core carries; then runs
that many calls, or as many as this machine can offer beside two gateways.

The defaults take less than two minutes.`),
		Example: strings.TrimSpace(`
  adit-bench plan --peers 50 --calls 200
  adit-bench plan --peers 500 --calls 1000 --suite aes256gcm16 --load 50 --json plan.json`),
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command) error {
			if o.Rounds < 1 || o.Rounds > 1000 {
				return usage("--rounds %d: write a number from 1 to 1000", o.Rounds)
			}
			if !(seconds >= 1 && seconds <= 600) { // NaN is neither
				return usage("--seconds %v: write a number from 1 to 600", seconds)
			}
			o.Duration = time.Duration(seconds * float64(time.Second))
			if err := o.Check(); err != nil {
				return &failure{exitUsage, err}
			}
			if err := out.check(); err != nil {
				return err
			}
			o.Progress = func(line string) { fmt.Fprintln(cmd.ErrOrStderr(), line) }
			report, err := runPlan(cmd.Context(), o)
			if err != nil {
				return err
			}
			return out.write(cmd.OutOrStdout(), report, planTable(report), planChart(report))
		}),
	}
	f := cmd.Flags()
	f.IntVar(&o.Peers, "peers", 10, "`number` of peers: SA pairs, each with a policy and a host of its own")
	f.IntVar(&o.Calls, "calls", 100, "`number` of calls at once, by turns over the peers")
	f.StringVar(&o.Suite, "suite", "aes128gcm16", "cipher `suite`")
	f.IntVar(&o.Load, "load", 70, "`percent` of one core that a gateway is to be used to")
	f.IntVar(&o.Rounds, "rounds", 3, "`number` of rounds, each without the tunnel and with it")
	f.Float64Var(&seconds, "seconds", 10, "`seconds` of calls in one run")
	f.StringVar(&o.Adit, "adit", "", "`path` of the adit program (default: beside this one, then from PATH)")
	out.flags(cmd)
	return cmd
}

func runPlan(ctx context.Context, o bench.PlanOptions) (_ *bench.PlanReport, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("plan makes network namespaces and TUN devices: run it as root (sudo); `adit-bench engine` needs no privileges")
	}
	if o.Adit, err = findAdit(o.Adit); err != nil {
		return nil, err
	}
	return bench.RunPlan(ctx, o)
}

// planTable is the report as a terminal shows it.
func planTable(r *bench.PlanReport) string {
	var b strings.Builder
	machineLines(&b, r.Machine)
	fmt.Fprintf(&b, "adit      %s\n", r.Version)
	fmt.Fprintf(&b, "plan      %s, %s, %s over UDP 4500; %s of %g s\n", count(r.Settings.Peers, "peer", "peers"),
		count(r.Settings.Calls, "G.711 call", "G.711 calls"), r.Settings.Suite, count(r.Settings.Rounds, "round", "rounds"), r.Settings.Seconds)
	b.WriteString("\n" + planSummary(r))

	b.WriteString("\nBandwidth of IP packets, in each direction (computed)\n")
	var t table
	t.row("", "bytes/packet", "kbit/s per call", fmt.Sprintf("Mbit/s, %s", count(r.Settings.Calls, "call", "calls")))
	w := r.Bandwidth
	t.row("  clear", fmt.Sprint(w.InnerBytes), fmt.Sprintf("%.1f", w.InnerKbit), fmt.Sprintf("%.2f", w.InnerMbit))
	t.row("  tunnel", fmt.Sprint(w.OuterBytes), fmt.Sprintf("%.1f", w.OuterKbit), fmt.Sprintf("%.2f", w.OuterMbit))
	t.write(&b)

	b.WriteString("\nOne-way delay and jitter\n")
	t = table{}
	t.row("", "delay median, µs", "delay p99, µs", "jitter median, µs", "jitter p99, µs")
	for _, row := range []struct {
		name string
		d    bench.PlanDelays
	}{{"  clear", r.Clear.PlanDelays}, {"  tunnel", r.Tunnel.PlanDelays}, {"  added", r.Added}} {
		t.row(row.name, ranged(row.d.DelayMedian), ranged(row.d.DelayP99), ranged(row.d.JitterMedian), ranged(row.d.JitterP99))
	}
	t.write(&b)

	b.WriteString("\nPackets of both directions, and processor time (100 %: one core)\n")
	t = table{}
	t.row("", "calls", "offered, packet/s", "delivered, packet/s", "loss, %", "gateway A, %", "gateway B, %", "gateway, µs/packet", "generator, %", "late p99, µs")
	planRow(&t, "  clear", &r.Clear, false)
	planRow(&t, "  tunnel", &r.Tunnel, true)
	for i := range r.Capacity.Steps {
		planRow(&t, "  tunnel, towards the capacity", &r.Capacity.Steps[i], true)
	}
	t.write(&b)
	b.WriteString("\nEach figure is the median of the rounds (lowest - highest). Late: how far behind its time the generator sent a packet.\n")
	notes(&b, r.Notes)
	return b.String()
}

func planRow(t *table, name string, p *bench.PlanRun, gateways bool) {
	cells := []string{name, fmt.Sprint(p.Calls), figure(p.Offered.Median), figure(p.Delivered.Median), fmt.Sprintf("%.3f", p.Loss.Median)}
	if gateways {
		cells = append(cells, ranged(p.GatewayA), ranged(p.GatewayB), ranged(p.CPU))
	} else {
		cells = append(cells, "", "", "")
	}
	t.row(append(cells, figure(p.Generator.Median), figure(p.LateP99.Median))...)
}

// planSummary is the answer in words.
func planSummary(r *bench.PlanReport) string {
	var b strings.Builder
	c := &r.Capacity
	fmt.Fprintf(&b, "%s: loss %.3f %%; the tunnel adds %s µs of delay and %s µs of jitter (medians); a gateway uses %s %% of one core.\n",
		count(r.Settings.Calls, "call", "calls"), r.Tunnel.Loss.Median, figure(r.Added.DelayMedian.Median), figure(r.Added.JitterMedian.Median),
		figure(max(r.Tunnel.GatewayA.Median, r.Tunnel.GatewayB.Median)))
	fmt.Fprintf(&b, "One core carries about %d calls at %d %% load, by the processor time at %d calls.\n", c.Calls, r.Settings.Load, c.MeasuredAt)
	switch {
	case c.Carried == 0:
		b.WriteString("This machine did not carry them without loss: its cores are too busy with generator and gateways, or with others.\n")
	case c.Factor > 1:
		fmt.Fprintf(&b, "Carried here with at most 0.1 %% lost: %s. What lies beyond is extrapolated, by a factor of %.1f.\n",
			count(c.Carried, "call", "calls"), c.Factor)
	default:
		fmt.Fprintf(&b, "Carried here with at most 0.1 %% lost: %s.\n", count(c.Carried, "call", "calls"))
	}
	return b.String()
}

// planChart has a panel for delay, one for jitter, and one for the load.
func planChart(r *bench.PlanReport) chart {
	delays := panel{Title: "One-way delay, µs (lower is better)"}
	jitters := panel{Title: "Jitter (RFC 3550 6.4.1), µs (lower is better)"}
	for i, side := range []struct {
		name string
		d    *bench.PlanDelays
	}{{"clear", &r.Clear.PlanDelays}, {"tunnel", &r.Tunnel.PlanDelays}} {
		delays.Bars = append(delays.Bars, bar{Group: side.name, Series: "median", Colour: i, Value: side.d.DelayMedian},
			bar{Group: side.name, Series: "p99", Colour: i, Value: side.d.DelayP99})
		jitters.Bars = append(jitters.Bars, bar{Group: side.name, Series: "median", Colour: i, Value: side.d.JitterMedian},
			bar{Group: side.name, Series: "p99", Colour: i, Value: side.d.JitterP99})
	}
	load := panel{Title: "Load of the busier gateway, % of one core"}
	for _, p := range append([]bench.PlanRun{r.Tunnel}, r.Capacity.Steps...) {
		busier := p.GatewayA
		if p.GatewayB.Median > busier.Median {
			busier = p.GatewayB
		}
		load.Bars = append(load.Bars, bar{Group: count(p.Calls, "call", "calls"), Series: fmt.Sprintf("loss %.2f %%", p.Loss.Median), Value: busier})
	}
	return chart{
		Title: fmt.Sprintf("adit: %s over %s, %s", count(r.Settings.Calls, "G.711 call", "G.711 calls"),
			count(r.Settings.Peers, "peer", "peers"), r.Settings.Suite),
		Subtitle: chartSubtitle(r.Machine, r.Settings.Rounds),
		Panels:   []panel{delays, jitters, load},
	}
}
