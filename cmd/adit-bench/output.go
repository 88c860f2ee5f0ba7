package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/adit-ipsec/adit/bench"
)

// outputs are the files that a benchmark writes beside its table.
type outputs struct{ json, svg string }

func (o *outputs) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.json, "json", "", "write everything that was measured to this `file`, as JSON")
	cmd.Flags().StringVar(&o.svg, "svg", "", "write a plot of the medians to this `file`")
}

// check finds out before a long run that a file could not be written after it.
func (o *outputs) check() error {
	for flag, path := range map[string]string{"--json": o.json, "--svg": o.svg} {
		if path == "" {
			continue
		}
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			return usage("%s %s is a folder: name a file", flag, path)
		}
		if info, err := os.Stat(filepath.Dir(path)); err != nil || !info.IsDir() {
			return usage("%s %s: there is no folder %s: make it first", flag, path, filepath.Dir(path))
		}
	}
	if o.json != "" && o.json == o.svg {
		return usage("--json and --svg name the same file")
	}
	return nil
}

// write prints the table and writes the files that were asked for.
func (o *outputs) write(stdout io.Writer, report any, table string, c chart) error {
	_, err := io.WriteString(stdout, table)
	if o.json != "" {
		text, e := reportJSON(report)
		if e == nil {
			e = os.WriteFile(o.json, text, 0o644) //nolint:gosec // a report is for everybody to read
		}
		err = errors.Join(err, e)
	}
	if o.svg != "" {
		err = errors.Join(err, os.WriteFile(o.svg, []byte(c.svg()), 0o644)) //nolint:gosec // a plot is for everybody to read
	}
	return err
}

func reportJSON(report any) ([]byte, error) {
	text, err := json.MarshalIndent(report, "", "  ")
	return append(text, '\n'), err
}

// table prints rows in columns. The first row is the heading.
type table struct{ rows [][]string }

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) write(b *strings.Builder) {
	var text strings.Builder
	tab := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, cells := range t.rows {
		fmt.Fprintln(tab, strings.Join(cells, "\t"))
	}
	_ = tab.Flush() // into memory
	for line := range strings.Lines(text.String()) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
}

// figure is a number with three or four digits that count.
func figure(v float64) string {
	switch {
	case v >= 100 || v == 0:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// ranged is a summary as the tables show it: the median, the lowest and the
// highest.
func ranged(s bench.Summary) string {
	return fmt.Sprintf("%s (%s - %s)", figure(s.Median), figure(s.Min), figure(s.Max))
}

// counted is ranged for whole numbers, whose median may lie between two.
func counted(s bench.Summary) string {
	return fmt.Sprintf("%.7g (%.7g - %.7g)", s.Median, s.Min, s.Max)
}

// ratio is ranged for ratios.
func ratio(s bench.Summary) string {
	return fmt.Sprintf("%.2f× (%.2f - %.2f)", s.Median, s.Min, s.Max)
}

func machineLines(b *strings.Builder, m bench.Machine) {
	fmt.Fprintf(b, "machine   %s, %s (%s)\n", m.CPU, count(m.Cores, "core", "cores"), strings.Join(m.Features, " "))
	fmt.Fprintf(b, "          %s, %s; load before the first round %s\n", m.Kernel, m.Go, m.Load)
}

func notes(b *strings.Builder, lines []string) {
	for _, line := range lines {
		b.WriteString("* " + line + "\n")
	}
}

// count is "1 round", "2 rounds".
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func chartSubtitle(m bench.Machine, rounds int) string {
	return fmt.Sprintf("%s, %s, %s, %s; median of %s, whiskers: lowest and highest",
		m.CPU, count(m.Cores, "core", "cores"), m.Kernel, m.Go, count(rounds, "round", "rounds"))
}
