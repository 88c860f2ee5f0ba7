package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/tun"
)

// Names of the systems in a TunnelReport.
const (
	SystemAdit       = "adit"
	SystemWireGuard  = "wireguard-go"
	SystemStrongSwan = "strongswan"
)

// TunnelOptions say what RunTunnel measures.
type TunnelOptions struct {
	Adit         string // the program
	Suite        string // adit's, and strongSwan's
	WireGuard    string // the rival's program; "": not measured
	StrongSwan   *StrongSwan
	Tests        []string
	Rate         int           // of the tests of a fixed rate, datagrams a second; 0: each test's own
	Segmentation []string      // of UDP on the outside links: "on", "off", or both
	Rounds       int           // each goes through all tests, and in each test through all systems
	Duration     time.Duration // of one measurement, about
	Progress     func(line string)
}

// Check says what is wrong with the options.
func (o *TunnelOptions) Check() error {
	if _, err := esp.ParseSuite(o.Suite); err != nil {
		return err
	}
	if len(o.Tests) == 0 {
		return fmt.Errorf("no tests: name some of %s", strings.Join(TunnelTests(), ","))
	}
	for i, name := range o.Tests {
		if !slices.Contains(TunnelTests(), name) {
			return fmt.Errorf("test %q: there are %s", name, strings.Join(TunnelTests(), ","))
		}
		if slices.Contains(o.Tests[:i], name) {
			return fmt.Errorf("test %q is named twice", name)
		}
	}
	if o.Rate < 0 || o.Rate > maxRate {
		return fmt.Errorf("rate %d: write datagrams a second from 1 to %d, or 0 for each test's own", o.Rate, maxRate)
	}
	return nil
}

// maxRate is more than one sender can, in datagrams a second.
const maxRate = 10_000_000

// enoughRounds is how many rounds a ratio needs to say something.
const enoughRounds = 5

// TunnelReport is what RunTunnel measured.
type TunnelReport struct {
	Kind     string         `json:"kind"` // "tunnel"
	Started  time.Time      `json:"started"`
	Machine  Machine        `json:"machine"`
	Settings TunnelSettings `json:"settings"`
	Systems  []System       `json:"systems"`
	Notes    []string       `json:"notes"`
	Results  []TunnelResult `json:"results"`
}

// TunnelSettings are the options that the results do not show.
type TunnelSettings struct {
	Rounds  int     `json:"rounds"`
	Seconds float64 `json:"seconds"` // of one measurement, about
	// Rates are the datagrams a second of each test of a fixed rate.
	Rates map[string]int `json:"rates,omitempty"`
}

// System is one of those compared.
type System struct {
	Name     string `json:"name"`
	Version  string `json:"version"`
	Settings string `json:"settings"`
}

// TunnelResult is one test in one kind of network.
type TunnelResult struct {
	Test         string   `json:"test"`
	Segmentation string   `json:"tx_udp_segmentation"` // on or off
	Metrics      []Metric `json:"metrics"`
}

// Metric is one figure of a test, for each system.
type Metric struct {
	Name    string             `json:"name"`
	Unit    string             `json:"unit"`
	Better  string             `json:"better"` // higher or lower
	Systems map[string]Summary `json:"systems"`
	// Ratios are adit's figure by that of each rival, round by round. Absent
	// where there is no rival, or a ratio would say nothing.
	Ratios map[string]Summary `json:"ratios,omitempty"`
}

var tunnelNotes = []string{
	"Two gateways, two hosts and a router share this machine's cores. Systems take turns, one measurement each, round by round, each on a network of its own of the same kind. A ratio is adit's figure by the rival's of the same round.",
	"CPU counts user and system time of both gateway processes, over payload that arrived. What the kernel does for them in others' time is not in it.",
	"TCP is not hashed and repeats one block, so that the hosts cost little: that data arrives intact is for the tests to show.",
	"UDP datagrams enter the sender's kernel one by one (sendmmsg without UDP_SEGMENT). As fast as one sender can is more than gateways carry: the loss says how far beyond the limit that was. At a fixed rate, offered says how well the sender kept it.",
	"A veth hands UDP segments on unsegmented (segmentation on), as only some network cards do: segmentation off is the row of the others.",
	"Figures of one machine are proportions, not promises.",
}

// notes are what a reader of the figures has to know.
func (o *TunnelOptions) notes() []string {
	if o.Rounds >= enoughRounds {
		return tunnelNotes
	}
	return append([]string{fmt.Sprintf("WARNING: rounds %d. That shows how things work and is no measurement: a ratio needs at least %d rounds.", o.Rounds, enoughRounds)}, tunnelNotes...)
}

// RunTunnel raises a network for every system and kind of segmentation, and
// measures all of them by turns. It needs root. Everything that it started has
// ended when it returns.
func RunTunnel(ctx context.Context, o TunnelOptions) (report *TunnelReport, err error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	report = &TunnelReport{Kind: "tunnel", Started: time.Now().UTC().Truncate(time.Second), Machine: ThisMachine(),
		Settings: TunnelSettings{o.Rounds, o.Duration.Seconds(), o.rates()}, Notes: o.notes()}
	run := tunnelRun{o: o}
	defer func() {
		if e := run.close(); e != nil {
			report, err = nil, errors.Join(err, e)
		}
	}()
	if report.Systems, err = run.raise(ctx); err != nil {
		return nil, errors.Join(context.Cause(ctx), err)
	}
	if o.Rounds < enoughRounds {
		o.Progress(report.Notes[0])
	}
	o.Progress(fmt.Sprintf("measuring: rounds %d, measurements in each %d, about %v", o.Rounds, len(run.cells),
		(time.Duration(o.Rounds*len(run.cells)) * (o.Duration + time.Second/2)).Round(time.Second)))
	for round := range o.Rounds {
		for _, c := range run.cells {
			if err := run.measure(ctx, round, c); err != nil {
				return nil, errors.Join(context.Cause(ctx), err)
			}
		}
	}
	report.Results = run.results()
	return report, nil
}

// tunnelRun is a RunTunnel under way.
type tunnelRun struct {
	o     TunnelOptions
	cells []*tunnelCell // in the order in which they are measured
	nets  []*Namespaces
}

// tunnelCell is one system in one test and kind of network.
type tunnelCell struct {
	test         tunnelTest
	segmentation string
	system       string
	net          *Namespaces
	rate         int // of a test of a fixed rate
	warm         bool
	values       [][]float64 // of each metric, round by round
}

// tunnelSystem is a System and how its network is made.
type tunnelSystem struct {
	System
	network NamespaceOptions
}

// systems are those to compare, adit first.
func (o *TunnelOptions) systems() ([]tunnelSystem, error) {
	version, err := ProgramVersion(o.Adit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Adit, err)
	}
	all := []tunnelSystem{{System{SystemAdit, version, fmt.Sprintf(
		"%s over UDP 4500 with ESN and a replay window; its defaults, among them a TUN queue of %d packets", o.Suite, tun.QueueLen)},
		NamespaceOptions{Binary: o.Adit, Suite: o.Suite}}}
	if o.WireGuard != "" {
		if version, err = ProgramVersion(o.WireGuard); err != nil {
			return nil, fmt.Errorf("%s: %w", o.WireGuard, err)
		}
		all = append(all, tunnelSystem{System{SystemWireGuard, version, wireGuardSettings}, NamespaceOptions{WireGuard: o.WireGuard}})
	}
	if o.StrongSwan != nil {
		all = append(all, tunnelSystem{System{SystemStrongSwan, o.StrongSwan.Version, strongSwanSettings(o.Suite)},
			NamespaceOptions{StrongSwan: o.StrongSwan, Suite: o.Suite}})
	}
	return all, nil
}

// raise makes the networks and the list of what to measure.
func (r *tunnelRun) raise(ctx context.Context) (names []System, err error) {
	systems, err := r.o.systems()
	if err != nil {
		return nil, err
	}
	for _, s := range systems {
		names = append(names, s.System)
	}
	nets := make(map[string]*Namespaces)
	for _, segmentation := range r.o.Segmentation {
		for _, s := range systems {
			r.o.Progress(fmt.Sprintf("raising the network for %s, segmentation %s", s.Name, segmentation))
			s.network.NoUDPSegmentation = segmentation == "off"
			if nets[segmentation+s.Name], err = r.network(ctx, s); err != nil {
				return nil, err
			}
		}
	}
	rates := r.o.rates()
	for _, segmentation := range r.o.Segmentation {
		for _, name := range r.o.Tests {
			for _, s := range systems {
				test := tunnelTestNamed(name)
				r.cells = append(r.cells, &tunnelCell{test: *test, segmentation: segmentation, system: s.Name,
					net: nets[segmentation+s.Name], rate: rates[name], values: make([][]float64, len(test.metrics))})
			}
		}
	}
	return names, nil
}

// network is a network with two gateways of a system that carries packets.
func (r *tunnelRun) network(ctx context.Context, s tunnelSystem) (*Namespaces, error) {
	n, err := NewNamespaces(ctx, s.network)
	if err != nil {
		return nil, err
	}
	r.nets = append(r.nets, n)
	if _, err := n.Ping(ctx, 3); err != nil {
		return nil, errors.Join(fmt.Errorf("bench: %s carries nothing: %w", s.Name, err), n.ended())
	}
	return n, nil
}

func (r *tunnelRun) close() error {
	var errs []error
	for _, n := range r.nets {
		errs = append(errs, n.Close())
	}
	return errors.Join(errs...)
}

// measureGrace is what a measurement may take beyond three times its duration.
const measureGrace = 60 * time.Second

// measure is one round of a cell. In front of the first there is a short one
// that is not counted: queues, caches and routes are then what they will be.
func (r *tunnelRun) measure(ctx context.Context, round int, c *tunnelCell) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 3*r.o.Duration+measureGrace, errors.New("bench: the measurement does not come to an end"))
	defer cancel()
	fail := func(err error) error {
		return errors.Join(fmt.Errorf("%s with %s, segmentation %s: %w", c.test.name, c.system, c.segmentation, err), c.net.ended())
	}
	if !c.warm {
		if _, err := c.test.run(ctx, c, min(r.o.Duration, 300*time.Millisecond)); err != nil {
			return fail(err)
		}
		c.warm = true
	}
	values, err := c.test.run(ctx, c, r.o.Duration)
	if err != nil {
		return fail(err)
	}
	line := fmt.Sprintf("round %d/%d  segmentation %-3s  %-13s  %-12s ", round+1, r.o.Rounds, c.segmentation, c.test.name, c.system)
	for i, v := range values {
		c.values[i] = append(c.values[i], v)
		line += fmt.Sprintf("  %.*f %s", c.test.metrics[i].digits(v), v, c.test.metrics[i].label())
	}
	r.o.Progress(line)
	return nil
}

// results puts the systems of each test side by side.
func (r *tunnelRun) results() (all []TunnelResult) {
	for i := 0; i < len(r.cells); {
		first := r.cells[i]
		result := TunnelResult{Test: first.test.name, Segmentation: first.segmentation}
		cells := make(map[string]*tunnelCell)
		for ; i < len(r.cells) && r.cells[i].test.name == first.test.name && r.cells[i].segmentation == first.segmentation; i++ {
			cells[r.cells[i].system] = r.cells[i]
		}
		for m, spec := range first.test.metrics {
			metric := Metric{Name: spec.name, Unit: spec.unit, Better: spec.better, Systems: make(map[string]Summary)}
			for system, c := range cells {
				metric.Systems[system] = Summarize(c.values[m])
			}
			if spec.ratio {
				metric.Ratios = ratiosOf(cells, m)
			}
			result.Metrics = append(result.Metrics, metric)
		}
		all = append(all, result)
	}
	return all
}

// ratiosOf compares a metric of adit with that of each rival.
func ratiosOf(cells map[string]*tunnelCell, metric int) map[string]Summary {
	all := make(map[string]Summary)
	for system, rival := range cells {
		if system == SystemAdit {
			continue
		}
		if of := ratios(cells[SystemAdit].values[metric], rival.values[metric]); len(of) > 0 {
			all[system] = Summarize(of)
		}
	}
	return all
}
