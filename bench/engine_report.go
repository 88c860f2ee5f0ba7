package bench

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
)

// EngineOptions say what RunEngine measures: every suite with every size and
// every number of policies, both walks.
type EngineOptions struct {
	Suites   []string
	Sizes    []string // bytes of the inner packet, or "imix"
	Policies []int
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
	for _, n := range o.Policies {
		if n < 1 || n > 1<<20 {
			return fmt.Errorf("%d policies: write numbers from 1 to %d", n, 1<<20)
		}
	}
	if len(o.Suites) == 0 || len(o.Sizes) == 0 || len(o.Policies) == 0 {
		return fmt.Errorf("nothing to measure: name at least one suite, size and number of policies")
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
}

// EngineSettings are the options that the rows do not show.
type EngineSettings struct {
	Rounds  int     `json:"rounds"`
	Seconds float64 `json:"seconds"` // of walk, in one round of one row
	IMIX    []int   `json:"imix"`
}

// EngineRow is one suite, size and number of policies on one walk.
type EngineRow struct {
	Suite       string   `json:"suite"`
	Size        string   `json:"size"`
	Policies    int      `json:"policies"`
	Walk        string   `json:"walk"` // outbound or inbound
	Nanoseconds Summary  `json:"ns_per_packet"`
	CPU         Summary  `json:"cpu_ns_per_packet"`           // processor time of the whole process, all threads
	Cycles      *Summary `json:"cycles_per_packet,omitempty"` // absent where the machine has no counter
	Allocations Summary  `json:"allocations_per_packet"`
	Packets     Summary  `json:"packets_per_second"`
	Gigabits    Summary  `json:"gbit_per_second"` // of inner packets
}

var engineNotes = []string{
	"No system calls: a packet's whole way through one gateway, and one copy into its buffers; one SA; one worker.",
	"The packets' policy is the last of the table; after its first packet the flow cache knows it.",
	"CPU is the processor time of the whole process: where others use the cores too, it is the steadier of the two times.",
	"Gbit/s counts inner packets. Allocations are those of the whole process while the walk runs.",
	"Figures of one machine are proportions, not promises: compare rows of one run.",
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
	rows := o.rows()
	report := &EngineReport{Kind: "engine", Started: time.Now().UTC().Truncate(time.Second), Machine: ThisMachine(), Version: version,
		Settings: EngineSettings{o.Rounds, o.Duration.Seconds(), IMIX}, Notes: engineNotes}
	for round := range o.Rounds {
		for i := range rows {
			if err := ctx.Err(); err != nil {
				return nil, context.Cause(ctx)
			}
			r := &rows[i]
			if err := r.measure(ctx, o.Duration, cycles); err != nil {
				return nil, fmt.Errorf("bench: %s: %w", r.title(), err)
			}
			o.Progress(fmt.Sprintf("round %d/%d  %s: %.0f ns", round+1, o.Rounds, r.title(), r.nanoseconds[round]))
		}
	}
	for i := range rows {
		report.Rows = append(report.Rows, rows[i].report())
	}
	return report, nil
}

// engineRow gathers the rounds of an EngineRow.
type engineRow struct {
	engine Engine
	size   string
	mean   float64 // bytes of an inner packet

	nanoseconds, cpu, cycles, allocations []float64
}

func (o *EngineOptions) rows() (rows []engineRow) {
	for _, suite := range o.Suites {
		for _, size := range o.Sizes {
			mix, _ := parseSize(size) // Check has tried it
			total := 0
			for _, n := range mix {
				total += n
			}
			for _, policies := range o.Policies {
				for _, d := range []packet.Direction{packet.Outbound, packet.Inbound} {
					rows = append(rows, engineRow{size: size, mean: float64(total) / float64(len(mix)),
						engine: Engine{Suite: suite, Mix: mix, Policies: policies, Direction: d}})
				}
			}
		}
	}
	return rows
}

func (r *engineRow) title() string {
	return fmt.Sprintf("%s %s size %s policies %d", r.engine.Direction, r.engine.Suite, r.size, r.engine.Policies)
}

// Packets of one run: inbound ones are sealed beforehand and take memory and
// time. A walk is not shorter than engineFastest, so that more would be too many.
const (
	maxEngineRun   = 1 << 17
	minEngineRun   = 1 << 10
	engineRunBytes = 24 << 20
	engineFastest  = 50 * time.Nanosecond
)

func (r *engineRow) runLength(duration time.Duration) int {
	return max(minEngineRun, min(maxEngineRun, int(engineRunBytes/r.mean), int(duration/engineFastest)))
}

// measure is one round: runs of fresh gateways until the walk has taken long
// enough, behind one that is not counted.
func (r *engineRow) measure(ctx context.Context, duration time.Duration, cycles *cycleCounter) error {
	load, err := r.engine.load(r.runLength(duration))
	if err != nil {
		return err
	}
	var sum engineMeasure
	for warm := false; sum.took < duration; warm = true {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		m, err := load.measure(r.engine.Direction, cycles)
		if err != nil {
			return err
		}
		if warm {
			sum.add(m)
		}
	}
	n := float64(sum.packets)
	r.nanoseconds = append(r.nanoseconds, float64(sum.took.Nanoseconds())/n)
	r.cpu = append(r.cpu, float64(sum.cpu.Nanoseconds())/n)
	r.allocations = append(r.allocations, float64(sum.allocations)/n)
	if cycles != nil {
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
	row := EngineRow{Suite: r.engine.Suite, Size: r.size, Policies: r.engine.Policies, Walk: r.engine.Direction.String(),
		Nanoseconds: Summarize(r.nanoseconds), CPU: Summarize(r.cpu), Allocations: Summarize(r.allocations),
		Packets: Summarize(packets), Gigabits: Summarize(gigabits)}
	if len(r.cycles) > 0 {
		s := Summarize(r.cycles)
		row.Cycles = &s
	}
	return row
}

// engineMeasure is what runs took.
type engineMeasure struct {
	packets     int
	took, cpu   time.Duration
	allocations uint64
	cycles      uint64
}

func (m *engineMeasure) add(other engineMeasure) {
	m.packets, m.took, m.cpu = m.packets+other.packets, m.took+other.took, m.cpu+other.cpu
	m.allocations, m.cycles = m.allocations+other.allocations, m.cycles+other.cycles
}

// measure is one run of a fresh gateway.
func (l *engineLoad) measure(d packet.Direction, cycles *cycleCounter) (engineMeasure, error) {
	run, err := l.prepare(d)
	if err != nil {
		return engineMeasure{}, err
	}
	defer func() { _ = run.gateway.Close() }()
	m := engineMeasure{packets: l.count}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if cycles != nil {
		if m.cycles, err = cycles.read(); err != nil {
			return m, err
		}
	}
	began, err := processTime(os.Getpid())
	if err != nil {
		return m, err
	}
	if m.took, err = run.walk(); err != nil {
		return m, err
	}
	ended, err := processTime(os.Getpid())
	if err != nil {
		return m, err
	}
	m.cpu = ended - began
	if cycles != nil {
		end, err := cycles.read()
		if err != nil {
			return m, err
		}
		m.cycles = end - m.cycles
	}
	runtime.ReadMemStats(&after)
	m.allocations = after.Mallocs - before.Mallocs
	return m, nil
}
