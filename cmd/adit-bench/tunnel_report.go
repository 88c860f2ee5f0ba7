package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/adit-ipsec/adit/bench"
)

// tunnelTable is the report as a terminal shows it: a block for each test.
func tunnelTable(r *bench.TunnelReport) string {
	var b strings.Builder
	machineLines(&b, r.Machine)
	for _, s := range r.Systems {
		fmt.Fprintf(&b, "%s: %s; %s\n", s.Name, s.Version, s.Settings)
	}
	fmt.Fprintf(&b, "settings  %s of about %g s per measurement\n", count(r.Settings.Rounds, "round", "rounds"), r.Settings.Seconds)
	for _, test := range slices.Sorted(maps.Keys(r.Settings.Rates)) {
		fmt.Fprintf(&b, "          %s at %d datagrams a second\n", test, r.Settings.Rates[test])
	}
	for _, result := range r.Results {
		fmt.Fprintf(&b, "\n%s, segmentation %s\n", result.Test, result.Segmentation)
		var t table
		head := []string{""}
		for _, m := range result.Metrics {
			head = append(head, metricTitle(m.Name, m.Unit))
		}
		t.row(head...)
		for _, s := range r.Systems {
			cells := []string{"  " + s.Name}
			for _, m := range result.Metrics {
				if m.Unit == "" {
					cells = append(cells, counted(m.Systems[s.Name]))
					continue
				}
				cells = append(cells, ranged(m.Systems[s.Name]))
			}
			t.row(cells...)
		}
		for _, rival := range r.Systems[1:] {
			cells := []string{"  ratio to " + rival.Name}
			for _, m := range result.Metrics {
				of, ok := m.Ratios[rival.Name]
				if !ok {
					cells = append(cells, "")
					continue
				}
				cells = append(cells, ratio(of)+" "+verdict(m.Better, of))
			}
			t.row(cells...)
		}
		t.write(&b)
	}
	b.WriteString("\nEach figure is the median of the rounds (lowest - highest).\n")
	notes(&b, r.Notes)
	return b.String()
}

func metricTitle(name, unit string) string {
	if unit == "" {
		return name
	}
	return name + ", " + unit
}

// verdict says for whom a ratio speaks: nobody where the rounds disagree.
func verdict(better string, of bench.Summary) string {
	low, high := of.Min, of.Max
	if better == "lower" {
		low, high = 1/high, 1/low
	}
	switch {
	case low > 1:
		return "better"
	case high < 1:
		return "worse"
	}
	return "undecided"
}

// tunnelChart has one panel for each kind of figure.
func tunnelChart(r *bench.TunnelReport) chart {
	var names []string
	for _, s := range r.Systems {
		names = append(names, s.Name)
	}
	title := strings.Join(names, ", ") + ": two gateways on one machine"
	if len(names) > 1 {
		title += ", by turns"
	}
	c := chart{Title: title, Subtitle: chartSubtitle(r.Machine, r.Settings.Rounds)}
	panels := make(map[string]int)
	for _, result := range r.Results {
		kind := strings.ToUpper(strings.TrimRight(strings.SplitN(result.Test, "-", 2)[0], "0123456789"))
		for _, m := range result.Metrics {
			name := m.Name
			if kind == "PING" {
				name = "round trip"
			}
			if !plotted(kind, m) {
				continue
			}
			title := fmt.Sprintf("%s %s (%s is better)", kind, metricTitle(name, m.Unit), m.Better)
			at, ok := panels[title]
			if !ok {
				at = len(c.Panels)
				panels[title] = at
				c.Panels = append(c.Panels, panel{Title: title})
			}
			group := fmt.Sprintf("%s, segmentation %s", result.Test, result.Segmentation)
			if kind == "PING" {
				group = fmt.Sprintf("%s, segmentation %s", m.Name, result.Segmentation)
			}
			for i, s := range r.Systems {
				c.Panels[at].Bars = append(c.Panels[at].Bars, bar{Group: group, Series: s.Name, Colour: i, Value: m.Systems[s.Name]})
			}
		}
	}
	return c
}

// plotted: figures that say how well a system does. UDP's goodput says the same
// as its packets, and the others say how the measurement was.
func plotted(kind string, m bench.Metric) bool {
	switch m.Name {
	case "goodput":
		return kind == "TCP"
	case "CPU", "delivered", "loss", "retransmits", "median", "p99":
		return true
	}
	return false
}
