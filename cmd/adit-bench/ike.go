package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/adit-ipsec/adit/bench"
)

func newIKECommand() *cobra.Command {
	var o bench.IKEOptions
	var out outputs
	var seconds float64
	cmd := &cobra.Command{
		Use:   "ike",
		Short: "IKEv2: handshakes, rekeys, cookies, memory; without system calls",
		Long: strings.TrimSpace(`
Has two IKE machines negotiate with each other in one thread, without sockets:
IKE_SA_INIT and IKE_AUTH with the first Child SA, rekeys of Child SAs with and
without PFS and of IKE SAs, cookies for strangers while a gateway is flooded, and
what an established IKE SA costs to have. Prints CPU time by end, the median of the
rounds, with the lowest and the highest, and what one core does in a second.

Every group is measured with the first authentication, every authentication with
the first group; rekeys, cookies and memory with the first of both. The defaults
take about a minute.`),
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
			report, err := bench.RunIKE(cmd.Context(), o)
			if err != nil {
				return err
			}
			return out.write(cmd.OutOrStdout(), report, ikeTable(report), ikeChart(report))
		}),
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.Groups, "groups", bench.IKEGroups(), "`groups` of the key exchange, with commas between them")
	f.StringSliceVar(&o.Auths, "auths", bench.IKEAuths(), "ways of `authentication`: psk, or the kind of key of all certificates")
	f.IntSliceVar(&o.SAs, "sas", []int{1000}, "`numbers` of IKE SAs whose memory is measured")
	f.IntVar(&o.Rounds, "rounds", 5, "`number` of rounds")
	f.Float64Var(&seconds, "seconds", 0.2, "`seconds` of CPU time that each row takes in each round")
	out.flags(cmd)
	return cmd
}

// ikePart is a table of some rows, and the column that says which each is.
type ikePart struct {
	title func(first *bench.IKERow) string
	head  string
	of    func(first, r *bench.IKERow) bool
	cell  func(*bench.IKERow) string
}

var ikeParts = []ikePart{
	{
		func(first *bench.IKERow) string { return "Handshakes, by group; " + first.Auth }, "group",
		func(first, r *bench.IKERow) bool { return r.Work == bench.IKEHandshake && r.Auth == first.Auth },
		func(r *bench.IKERow) string { return r.Group },
	},
	{
		func(first *bench.IKERow) string { return "Handshakes, by authentication; " + first.Group }, "authentication",
		func(first, r *bench.IKERow) bool { return r.Work == bench.IKEHandshake && r.Group == first.Group },
		func(r *bench.IKERow) string { return r.Auth },
	},
	{
		func(first *bench.IKERow) string {
			return "Rekeys, and cookies under a flood; " + first.Group + ", " + first.Auth
		}, "what",
		func(_, r *bench.IKERow) bool { return r.Work != bench.IKEHandshake },
		func(r *bench.IKERow) string { return r.Work },
	},
}

// ikeTable is the report as a terminal shows it.
func ikeTable(r *bench.IKEReport) string {
	var b strings.Builder
	machineLines(&b, r.Machine)
	fmt.Fprintf(&b, "adit      %s\n", r.Version)
	fmt.Fprintf(&b, "settings  %s of at least %g s of CPU time per row\n", count(r.Settings.Rounds, "round", "rounds"), r.Settings.Seconds)
	for _, part := range ikeParts {
		part.write(&b, r.Rows)
	}
	if len(r.Memory) > 0 {
		fmt.Fprintf(&b, "\nMemory of established IKE SAs, each with one Child SA; %s, %s\n", r.Memory[0].Group, r.Memory[0].Auth)
		var t table
		t.row("IKE SAs", "heap bytes/IKE SA")
		for _, m := range r.Memory {
			t.row(fmt.Sprint(m.SAs), ranged(m.Bytes))
		}
		t.write(&b)
	}
	b.WriteString("\nEach figure is the median of the rounds (lowest - highest).\n")
	notes(&b, r.Notes)
	return b.String()
}

func (p *ikePart) write(b *strings.Builder, rows []bench.IKERow) {
	var t table
	for i := range rows {
		row := &rows[i]
		if !p.of(&rows[0], row) {
			continue
		}
		if len(t.rows) == 0 {
			fmt.Fprintf(b, "\n%s\n", p.title(&rows[0]))
			t.row(p.head, "initiator CPU µs", "responder CPU µs", "process CPU µs", "per s and core: responder", "both ends", "messages", "bytes")
		}
		initiator := ranged(row.Initiator)
		if row.Initiator.Max == 0 {
			initiator = "-"
		}
		t.row(p.cell(row), initiator, ranged(row.Responder), ranged(row.Process), ranged(row.Gateway), ranged(row.Both), fmt.Sprintf("%.4g", row.Messages), fmt.Sprintf("%.0f", row.Bytes))
	}
	t.write(b)
}

// ikeChart is one panel for each table: the processor time of each end.
func ikeChart(r *bench.IKEReport) chart {
	c := chart{Title: "adit: IKEv2 alone, without system calls", Subtitle: chartSubtitle(r.Machine, r.Settings.Rounds)}
	for _, part := range ikeParts {
		var p panel
		for i := range r.Rows {
			row := &r.Rows[i]
			if !part.of(&r.Rows[0], row) {
				continue
			}
			p.Title = part.title(&r.Rows[0]) + ": µs of CPU (lower is better)"
			if row.Initiator.Max > 0 {
				p.Bars = append(p.Bars, bar{Group: part.cell(row), Series: "initiator", Value: row.Initiator})
			}
			p.Bars = append(p.Bars, bar{Group: part.cell(row), Series: "responder", Colour: 1, Value: row.Responder})
		}
		if len(p.Bars) > 0 {
			c.Panels = append(c.Panels, p)
		}
	}
	return c
}
