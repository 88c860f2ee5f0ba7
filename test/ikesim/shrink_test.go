package ikesim

import (
	"fmt"
	"slices"
	"strings"

	"github.com/adit-ipsec/adit/ike"
)

var terminateAll = ike.Terminate{}

// shrink leaves out events as long as something is still violated.
func shrink(s setup, plan []event) []event {
	for again := true; again; {
		again = false
		for i := range plan {
			fewer := slices.Delete(slices.Clone(plan), i, i+1)
			if len(runPlan(s, fewer, false).problems) > 0 {
				plan, again = fewer, true
				break
			}
		}
	}
	return plan
}

// head and tail are how many lines of a transcript are shown.
const head, tail = 90, 20

// explain is what there is to say about a seed that has failed.
func explain(seed uint64, r *world) string {
	s := makeSetup(seed)
	plan := shrink(s, makePlan(&s))
	small := runPlan(s, plan, true)
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d:\n  %s\nwhat is left of its plan:\n", seed, strings.Join(r.problems, "\n  "))
	for _, e := range plan {
		fmt.Fprintf(&b, "  %s\n", e)
	}
	lines := small.log.lines
	fmt.Fprintf(&b, "its transcript (-first %d -seeds 1 -whole for all of it):\n", seed)
	if len(lines) > head+tail && !*whole {
		lines = slices.Concat(lines[:head], []string{"..."}, lines[len(lines)-tail:])
	}
	for _, line := range lines {
		fmt.Fprintf(&b, "  %s\n", line)
	}
	return b.String()
}
