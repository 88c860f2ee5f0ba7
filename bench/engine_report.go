package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
)

// EngineOptions say what RunEngine measures. Every suite is measured with every
// size; numbers of policies and of SAs are then varied one at a time, with the
// first suite and the first size.
type EngineOptions struct {
	Suites   []string
	Sizes    []string // bytes of the inner packet, or "imix"
	Policies []int
	SAs      []int // pairs
	Rounds   int
	Duration time.Duration // that the walk takes in one round of one row, at the least
	Progress func(line string)
}

// IMIX is the mix of packet sizes that "imix" stands for: 7 short ones to 4 of
// medium length and 1 long one, in bytes of the inner packet, 347 on average.
// They take turns in this order.
var IMIX = []int{64, 576, 64, 64, 576, 64, 1408, 64, 576, 64, 64, 576}

// Limits of --sizes: an IPv4 header with a UDP header, and an Ethernet's MTU.
const (
	minEngineSize = 28
	maxEngineSize = 1500
)

// maxEngineNumber is the limit of policies and SA pairs.
const maxEngineNumber = 1 << 17

// Check says what is wrong with the options.
func (o *EngineOptions) Check() error {
	for _, s := range o.Suites {
		if _, err := esp.ParseSuite(s); err != nil {
			return err
		}
	}
	for _, s := range o.Sizes {
		if _, err := parseSize(s); err != nil {
			return err
		}
	}
	for what, numbers := range map[string][]int{"policies": o.Policies, "SA pairs": o.SAs} {
		for _, n := range numbers {
			if n < 1 || n > maxEngineNumber {
				return fmt.Errorf("%d %s: write numbers from 1 to %d", n, what, maxEngineNumber)
			}
		}
	}
	if len(o.Suites) == 0 || len(o.Sizes) == 0 {
		return fmt.Errorf("nothing to measure: name at least one suite and one size")
	}
	return nil
}

func parseSize(s string) ([]int, error) {
	if s == "imix" {
		return IMIX, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < minEngineSize || n > maxEngineSize {
		return nil, fmt.Errorf("size %q: write bytes of the inner packet from %d to %d, or imix", s, minEngineSize, maxEngineSize)
	}
	return []int{n}, nil
}

// EngineReport is what RunEngine measured.
type EngineReport struct {
	Kind     string         `json:"kind"` // "engine"
	Started  time.Time      `json:"started"`
	Machine  Machine        `json:"machine"`
	Version  string         `json:"adit"`
	Settings EngineSettings `json:"settings"`
	Notes    []string       `json:"notes"`
	Rows     []EngineRow    `json:"rows"`
	Lookups  []EngineLookup `json:"lookups"`
	Memory   []EngineMemory `json:"memory"`
}

// EngineSettings are the options that the rows do not show.
type EngineSettings struct {
	Rounds  int     `json:"rounds"`
	Seconds float64 `json:"seconds"` // of walk, in one round of one row
	IMIX    []int   `json:"imix"`
}

// What the rows of an EngineReport vary.
const (
	VarySize     = "size"
	VaryPolicies = "policies"
	VarySAs      = "sas"
)

// EngineRow is one load on one walk.
type EngineRow struct {
	Varies      string   `json:"varies"` // size, policies or sas
	Suite       string   `json:"suite"`
	Size        string   `json:"size"`
	Policies    int      `json:"policies"`
	SAs         int      `json:"sa_pairs"`
	Run         int      `json:"packets_in_a_row"` // of one SA
	Flows       int      `json:"flows"`            // of all SAs together
	Walk        string   `json:"walk"`             // out or in
	Nanoseconds Summary  `json:"ns_per_packet"`
	CPU         Summary  `json:"cpu_ns_per_packet"`           // processor time of the worker's thread
	Harness     Summary  `json:"harness_ns_per_packet"`       // of the same packets through feed and sink without a gateway
	Cycles      *Summary `json:"cycles_per_packet,omitempty"` // absent where the machine has no counter
	Allocations Summary  `json:"allocations_per_packet"`
	Packets     Summary  `json:"packets_per_second"`
	Gigabits    Summary  `json:"gbit_per_second"` // of inner packets
}

var engineNotes = []string{
	"No system calls: a packet's whole way through one gateway on one core, from when the worker asks for packets until it asks for more. One copy of each packet into the gateway's buffers is in it, as a read makes one.",
	"Harness is what feed, copy and sink take without a gateway for the same packets in the same round. Nothing is subtracted: ns/packet less harness is the gateway's own.",
	"CPU is the processor time of the worker's thread: where others use the cores too, it is the steadier of the two times. Allocations are those of the whole process.",
	"The packets' own policies are the last of the table. The flow cache has 2048 entries: one flow is always in it, 65536 flows by turns never are.",
	"SA pairs: each has a peer and a policy of its own; 1 or 32 packets of one SA follow each other before the next SA's turn.",
	"Gbit/s counts inner packets. Figures of one machine are proportions, not promises: compare rows of one run.",
}

// RunEngine measures. Every round goes through all rows, so that a machine that
// is slower for a while is slower for all of them.
func RunEngine(ctx context.Context, o EngineOptions) (*EngineReport, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	cycles, err := newCycleCounter()
	if err == nil {
		defer cycles.close()
	} else {
		o.Progress(fmt.Sprintf("cycles cannot be counted here (%v): that column is left out", err))
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	version, err := ProgramVersion(self)
	if err != nil {
		return nil, err
	}
	report := &EngineReport{Kind: "engine", Started: time.Now().UTC().Truncate(time.Second), Machine: ThisMachine(), Version: version,
		Settings: EngineSettings{o.Rounds, o.Duration.Seconds(), IMIX}, Notes: engineNotes}
	clock := newThreadClock(cycles)
	jobs, collect := o.jobs(report, clock)
	for round := range o.Rounds {
		for i, j := range jobs {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			said, err := j.measure(ctx)
			if err != nil {
				return nil, fmt.Errorf("bench: %s: %w", j.title, err)
			}
			o.Progress(fmt.Sprintf("round %d/%d  %d/%d  %s: %s", round+1, o.Rounds, i+1, len(jobs), j.title, said))
		}
	}
	collect()
	return report, nil
}

// engineJob is one measurement of a round.
type engineJob struct {
	title   string
	measure func(context.Context) (said string, err error)
}

// jobs are the measurements of one round; collect puts what they found into the
// report.
func (o *EngineOptions) jobs(report *EngineReport, clock *threadClock) (jobs []engineJob, collect func()) {
	rows, lookups, memories := o.rows(), o.lookups(), o.memories()
	for _, r := range rows {
		jobs = append(jobs, engineJob{r.title(), func(ctx context.Context) (string, error) {
			err := r.measure(ctx, o.Duration, clock)
			return lastOf(r.nanoseconds, "%.0f ns"), err
		}})
	}
	for _, l := range lookups {
		jobs = append(jobs, engineJob{l.title(), func(context.Context) (string, error) {
			err := l.measure(o.Duration / 4)
			return lastOf(l.nanoseconds, "%.0f ns"), err
		}})
	}
	for _, m := range memories {
		jobs = append(jobs, engineJob{m.title(), func(context.Context) (string, error) {
			err := m.measure()
			return lastOf(m.bytes, "%.0f bytes each"), err
		}})
	}
	return jobs, func() {
		for _, r := range rows {
			report.Rows = append(report.Rows, r.report())
		}
		for _, l := range lookups {
			report.Lookups = append(report.Lookups, l.report())
		}
		for _, m := range memories {
			report.Memory = append(report.Memory, m.report())
		}
	}
}

func lastOf(values []float64, format string) string {
	if len(values) == 0 {
		return ""
	}
	return fmt.Sprintf(format, values[len(values)-1])
}

// engineRow gathers the rounds of an EngineRow.
type engineRow struct {
	engine Engine
	varies string
	size   string
	mean   float64 // bytes of an inner packet

	nanoseconds, cpu, harness, cycles, allocations []float64
}

// More flows than the flow cache has entries, taken by turns: none is in it
// when its packet comes.
const uncachedFlows = 1 << 16

// engineRuns are how many packets of one SA follow each other where there are
// several SAs.
var engineRuns = []int{1, 32}

func (o *EngineOptions) rows() (rows []*engineRow) {
	add := func(varies, size string, e Engine) {
		e.Mix, _ = parseSize(size) // Check has tried it
		total := 0
		for _, n := range e.Mix {
			total += n
		}
		for _, d := range []packet.Direction{packet.Outbound, packet.Inbound} {
			e.Direction = d
			rows = append(rows, &engineRow{engine: e.normal(), varies: varies, size: size, mean: float64(total) / float64(len(e.Mix))})
		}
	}
	for _, suite := range o.Suites {
		for _, size := range o.Sizes {
			add(VarySize, size, Engine{Suite: suite})
		}
	}
	for _, policies := range o.Policies {
		for _, flows := range []int{1, uncachedFlows} {
			add(VaryPolicies, o.Sizes[0], Engine{Suite: o.Suites[0], Policies: policies, Flows: flows})
		}
	}
	for _, sas := range o.SAs {
		for _, run := range engineRuns {
			if sas > 1 || run == 1 {
				add(VarySAs, o.Sizes[0], Engine{Suite: o.Suites[0], SAs: sas, Run: run})
			}
		}
	}
	return rows
}

func (r *engineRow) title() string {
	e := &r.engine
	text := fmt.Sprintf("%s %s size %s", e.Direction, e.Suite, r.size)
	switch r.varies {
	case VaryPolicies:
		text += fmt.Sprintf(" policies %d flows %d", e.Policies, e.Flows)
	case VarySAs:
		text += fmt.Sprintf(" SA pairs %d in a row %d", e.SAs, e.Run)
	}
	return text
}

// Packets of one turn: inbound ones are sealed beforehand and take memory and
// time. A walk is not shorter than engineFastest, so that more would be too many.
const (
	maxEngineTurn   = 1 << 17
	minEngineTurn   = 1 << 10
	engineTurnBytes = 24 << 20
	engineFastest   = 50 * time.Nanosecond
)

func (r *engineRow) turnLength(duration time.Duration) int {
	return max(minEngineTurn, min(maxEngineTurn, int(engineTurnBytes/r.mean), int(duration/engineFastest)))
}

// measure is one round: a fresh gateway, and turns until the walk has taken long
// enough, behind one that is not counted.
func (r *engineRow) measure(ctx context.Context, duration time.Duration, clock *threadClock) (err error) {
	run, err := r.engine.prepare(clock)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, run.close()) }()
	count := r.turnLength(duration)
	var sum, own engineMeasure
	for warm := false; sum.took < duration; warm = true {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		walk, harness, err := run.carry(count)
		if err != nil {
			return err
		}
		if warm {
			sum.add(walk)
			own.add(harness)
		}
	}
	n := float64(sum.packets)
	r.nanoseconds = append(r.nanoseconds, float64(sum.took.Nanoseconds())/n)
	r.cpu = append(r.cpu, float64(sum.cpu.Nanoseconds())/n)
	r.harness = append(r.harness, float64(own.took.Nanoseconds())/n)
	r.allocations = append(r.allocations, float64(sum.allocations)/n)
	if clock.cycles != nil {
		r.cycles = append(r.cycles, float64(sum.cycles)/n)
	}
	return nil
}

func (r *engineRow) report() EngineRow {
	var packets, gigabits []float64
	for _, ns := range r.nanoseconds {
		packets = append(packets, 1e9/ns)
		gigabits = append(gigabits, r.mean*8/ns)
	}
	e := &r.engine
	row := EngineRow{Varies: r.varies, Suite: e.Suite, Size: r.size, Policies: e.Policies, SAs: e.SAs, Run: e.Run, Flows: e.SAs * e.Flows,
		Walk: e.Direction.String(), Nanoseconds: Summarize(r.nanoseconds), CPU: Summarize(r.cpu), Harness: Summarize(r.harness),
		Allocations: Summarize(r.allocations), Packets: Summarize(packets), Gigabits: Summarize(gigabits)}
	if len(r.cycles) > 0 {
		s := Summarize(r.cycles)
		row.Cycles = &s
	}
	return row
}
