package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/adit-ipsec/adit/internal/ctl"
	"github.com/adit-ipsec/adit/internal/ctl/controlv1"
)

func newCountersCommand() *cobra.Command {
	return newShowCommand("counters", "every counter, the reasons for drops by name",
		"Every counter since the gateway started. docs/counters.md tells of each what it means and what to do.",
		(*ctl.Client).Counters, printCounters)
}

func printCounters(w io.Writer, c *controlv1.CountersResponse) error {
	fmt.Fprintf(w, "Since the start %s ago.\n\n", lasted(c.GetUptimeSeconds()))
	for _, list := range []struct {
		heading  string
		counters []*controlv1.Counter
	}{{"CARRIED", c.GetTraffic()}, {"DROPPED", c.GetDrops()}, {"IKE", c.GetIke()}} {
		if len(list.counters) == 0 {
			continue // no IKE here
		}
		var t table
		t.row(list.heading, "COUNT", "MEANING")
		for _, counter := range list.counters {
			t.row(counter.GetName(), grouped(counter.GetValue()), explain(counter.GetName()).meaning)
		}
		if err := t.write(w, ""); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	if c.GetHeld().GetPackets() > 0 {
		_, err := fmt.Fprintf(w, "Held now: %s.\n", heldText(c.GetHeld()))
		return err
	}
	return nil
}

// heldText is what waits for its SA, in words.
func heldText(h *controlv1.Held) string {
	return fmt.Sprintf("%s packets, %s, wait for their SA", grouped(h.GetPackets()), sized(h.GetBytes()))
}
