package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"time"

	"github.com/adit-ipsec/adit/esp"
)

// PlanOptions say what RunPlan measures.
type PlanOptions struct {
	Adit     string // the program
	Suite    string
	Peers    int // SA pairs, each with a policy and a host of its own
	Calls    int // at once, by turns over the peers
	Load     int // percent of one core that a gateway is to be used to
	Rounds   int // each without a tunnel and with it
	Duration time.Duration
	Progress func(line string)
}

// Limits of a plan.
const (
	maxPlanPeers = 2000
	maxPlanCalls = 20000
)

// Check says what is wrong with the options.
func (o *PlanOptions) Check() error {
	if _, err := esp.ParseSuite(o.Suite); err != nil {
		return err
	}
	if o.Peers < 1 || o.Peers > maxPlanPeers {
		return fmt.Errorf("%d peers: write a number from 1 to %d", o.Peers, maxPlanPeers)
	}
	if o.Calls < 1 || o.Calls > maxPlanCalls {
		return fmt.Errorf("%d calls: write a number from 1 to %d", o.Calls, maxPlanCalls)
	}
	if o.Load < 1 || o.Load > 100 {
		return fmt.Errorf("a load of %d percent: write a number from 1 to 100", o.Load)
	}
	if o.Duration < time.Second || o.Duration > 10*time.Minute {
		return fmt.Errorf("%g seconds: write a number from 1 to 600", o.Duration.Seconds())
	}
	if packets := float64(o.Calls) * o.Duration.Seconds() * callRate; packets > maxPlanPackets {
		return fmt.Errorf("%d calls of %g seconds are %.0f packets in each direction, more than the %d that one run keeps account of: fewer calls, or fewer seconds",
			o.Calls, o.Duration.Seconds(), packets, maxPlanPackets)
	}
	return nil
}

// maxPlanPackets bounds a run's memory: 16 bytes for each packet.
const maxPlanPackets = 20_000_000

// PlanReport is what RunPlan measured and what follows from it.
type PlanReport struct {
	Kind      string        `json:"kind"` // "plan"
	Started   time.Time     `json:"started"`
	Machine   Machine       `json:"machine"`
	Version   string        `json:"adit"`
	Settings  PlanSettings  `json:"settings"`
	Notes     []string      `json:"notes"`
	Bandwidth PlanBandwidth `json:"bandwidth"`
	Clear     PlanRun       `json:"clear"`
	Tunnel    PlanRun       `json:"tunnel"`
	Added     PlanDelays    `json:"added"` // tunnel less clear, round by round
	Capacity  PlanCapacity  `json:"capacity"`
}

// PlanSettings are what the plan was asked for.
type PlanSettings struct {
	Suite   string  `json:"suite"`
	Peers   int     `json:"peers"`
	Calls   int     `json:"calls"`
	Load    int     `json:"load_percent"`
	Rounds  int     `json:"rounds"`
	Seconds float64 `json:"seconds"` // of one run
}

// PlanBandwidth is computed from the suite, not measured: bytes of IP packets,
// without what Ethernet adds.
type PlanBandwidth struct {
	InnerBytes int     `json:"inner_bytes_per_packet"`
	OuterBytes int     `json:"outer_bytes_per_packet"`
	InnerKbit  float64 `json:"inner_kbit_per_second_per_call_and_direction"`
	OuterKbit  float64 `json:"outer_kbit_per_second_per_call_and_direction"`
	InnerMbit  float64 `json:"inner_mbit_per_second_all_calls_per_direction"`
	OuterMbit  float64 `json:"outer_mbit_per_second_all_calls_per_direction"`
}

// PlanDelays are one-way delays and jitters of all packets of both directions,
// in microseconds.
type PlanDelays struct {
	DelayMedian  Summary `json:"delay_median_us"`
	DelayP99     Summary `json:"delay_p99_us"`
	JitterMedian Summary `json:"jitter_median_us"` // RFC 3550 6.4.1, of every call once a second
	JitterP99    Summary `json:"jitter_p99_us"`
}

// PlanRun is calls on a network. A gateway's load is percent of one core.
type PlanRun struct {
	Calls     int     `json:"calls"`
	Offered   Summary `json:"offered_packets_per_second"` // both directions together
	Delivered Summary `json:"delivered_packets_per_second"`
	Loss      Summary `json:"loss_percent"`
	PlanDelays
	GatewayA   Summary `json:"gateway_a_load_percent"`
	GatewayB   Summary `json:"gateway_b_load_percent"`
	CPU        Summary `json:"gateway_cpu_us_per_packet"`      // of one gateway, the busier one, for one packet in one direction
	PerCall    Summary `json:"gateway_cpu_us_per_call_second"` // of the same, for one call in both directions
	Generator  Summary `json:"generator_load_percent"`         // of one core; with what the kernel does in its system calls
	LateP99    Summary `json:"generator_late_p99_us"`          // behind a packet's time
	Duplicates Summary `json:"duplicated_packets"`
}

// PlanCapacity is how many calls one core of a gateway carries at the load.
type PlanCapacity struct {
	Calls      int     `json:"calls_per_core"`
	MeasuredAt int     `json:"measured_at_calls"` // the calls at which the processor time for it was measured
	Carried    int     `json:"carried_calls"`     // the most that were run here without losing more than planLoss; 0: none
	Factor     float64 `json:"extrapolated_by"`   // Calls by Carried: up to 1 it was run; 0 where nothing was carried
	// Steps are runs with more calls, towards the capacity: as many as this
	// machine can offer beside two gateways.
	Steps []PlanRun `json:"steps"`
}

// planLoss is the percentage of packets that calls may lose and count as
// carried.
const planLoss = 0.1

var planNotes = []string{
	"A call is G.711 both ways (RFC 3551): 50 packets a second in each direction, 160 bytes of voice, 12 RTP, 8 UDP, 20 IP. Calls begin at random within the 20 ms.",
	"All peers are behind one gateway: gateway A has one SA pair, one policy and one route for each peer, gateway B stands for all of them and has the same number. So both do the work of the box that is planned.",
	"Delay is from the sender's system call to the receiving host's kernel, on one clock. Jitter is RFC 3550 6.4.1 of each stream, once a second. Added is tunnel less clear of the same round: the same calls on the same network without gateways' programs.",
	"A gateway's load is user and system time of its process, in percent of one core. What the kernel does for it in others' time (softirqs, which here fall to the generator) is not in it: leave room for it.",
	"The outside links do not segment UDP (tx-udp-segmentation off), as most network cards.",
	"Generator, two gateways and the kernel between them share this machine's cores: where they are busy, delay and jitter are those of waiting for a core.",
	"Figures of one machine are proportions, not promises: measure on the machine that you plan with.",
}

// RunPlan carries calls in clear and through two gateways by turns, and then
// more of them, to find out how many a core carries. It needs root. Everything
// that it started has ended when it returns.
func RunPlan(ctx context.Context, o PlanOptions) (report *PlanReport, err error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	suite, err := esp.ParseSuite(o.Suite)
	if err != nil {
		return nil, err
	}
	version, err := ProgramVersion(o.Adit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Adit, err)
	}
	report = &PlanReport{Kind: "plan", Started: time.Now().UTC().Truncate(time.Second), Machine: ThisMachine(), Version: version,
		Settings: PlanSettings{o.Suite, o.Peers, o.Calls, o.Load, o.Rounds, o.Duration.Seconds()},
		Notes:    planNotes, Bandwidth: bandwidthOf(suite, o.Calls)}
	run := planRun{o: o}
	defer func() {
		if e := run.close(); e != nil {
			report, err = nil, errors.Join(err, e)
		}
	}()
	if err := run.raise(ctx, suite); err != nil {
		return nil, errors.Join(context.Cause(ctx), err)
	}
	if err := run.measure(ctx, report); err != nil {
		return nil, errors.Join(context.Cause(ctx), err)
	}
	return report, nil
}

// bandwidthOf is what calls take on the wire.
func bandwidthOf(suite esp.Suite, calls int) PlanBandwidth {
	outer := ipv4Len + udpLen + suite.SealedLen(callPacket)
	kbit := func(bytes int) float64 { return float64(bytes*8*callRate) / 1e3 }
	return PlanBandwidth{InnerBytes: callPacket, OuterBytes: outer, InnerKbit: kbit(callPacket), OuterKbit: kbit(outer),
		InnerMbit: kbit(callPacket) * float64(calls) / 1e3, OuterMbit: kbit(outer) * float64(calls) / 1e3}
}

// planRun is a RunPlan under way.
type planRun struct {
	o             PlanOptions
	clear, tunnel *Namespaces
}

func (r *planRun) raise(ctx context.Context, suite esp.Suite) (err error) {
	r.o.Progress("raising the network without a tunnel")
	if r.clear, err = planNamespaces(ctx, "", suite, r.o.Peers); err != nil {
		return err
	}
	r.o.Progress(fmt.Sprintf("raising the network with two gateways and %d SA pairs", r.o.Peers))
	r.tunnel, err = planNamespaces(ctx, r.o.Adit, suite, r.o.Peers)
	return err
}

func (r *planRun) close() error {
	var errs []error
	for _, n := range []*Namespaces{r.clear, r.tunnel} {
		if n != nil {
			errs = append(errs, n.Close())
		}
	}
	return errors.Join(errs...)
}

// planSteps is how many runs there are at the most on the way to the capacity.
const planSteps = 3

// planNear is the factor within which two numbers of calls count as the same.
const planNear = 1.1

func (r *planRun) measure(ctx context.Context, report *PlanReport) error {
	o := &r.o
	o.Progress(fmt.Sprintf("measuring: %d rounds without and with the tunnel, then up to %d runs with more calls; about %v", o.Rounds, planSteps,
		(time.Duration(2*o.Rounds+planSteps)*(o.Duration+time.Second) + 2*time.Second).Round(time.Second)))
	for _, n := range []*Namespaces{r.clear, r.tunnel} { // routes, caches and neighbours are known behind this
		if _, err := r.carry(ctx, n, o.Calls, time.Second); err != nil {
			return err
		}
	}
	var inClear, inTunnel []callResult
	for round := range o.Rounds {
		for _, side := range []struct {
			name string
			net  *Namespaces
			all  *[]callResult
		}{{"clear", r.clear, &inClear}, {"tunnel", r.tunnel, &inTunnel}} {
			c, err := r.carry(ctx, side.net, o.Calls, o.Duration)
			if err != nil {
				return err
			}
			*side.all = append(*side.all, c)
			o.Progress(fmt.Sprintf("round %d/%d  %-6s  %s", round+1, o.Rounds, side.name, c.line()))
		}
	}
	report.Clear, report.Tunnel = planRunOf(o.Calls, inClear), planRunOf(o.Calls, inTunnel)
	report.Added = report.Tunnel.less(report.Clear.PlanDelays)
	return r.findCapacity(ctx, &report.Capacity, report.Tunnel)
}

// carry is calls on one network for about d.
func (r *planRun) carry(ctx context.Context, n *Namespaces, calls int, d time.Duration) (callResult, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 3*d+measureGrace, errors.New("bench: the calls do not come to an end"))
	defer cancel()
	c, err := n.calls(ctx, &callLoad{calls: calls, peers: r.o.Peers, packets: max(1, int(d/callInterval))})
	if err == nil && c.delivered == 0 {
		err = errors.New("bench: not one packet of the calls arrived")
	}
	if err != nil {
		err = errors.Join(err, n.ended())
	}
	return c, err
}

// findCapacity goes towards as many calls as a core carries: processor time for
// a call falls where more packets are read at once, so what was measured near
// the load counts for more than what was measured far below it.
func (r *planRun) findCapacity(ctx context.Context, c *PlanCapacity, at PlanRun) error {
	c.take(&at, r.o.Load)
	for range planSteps {
		next := min(c.Calls, r.offerable(&at), maxPlanCalls)
		if off := float64(next) / float64(at.Calls); next < 1 || off > 1/planNear && off < planNear {
			break
		}
		result, err := r.carry(ctx, r.tunnel, next, r.o.Duration)
		if err != nil {
			return err
		}
		r.o.Progress(fmt.Sprintf("capacity  %d calls  %s", next, result.line()))
		at = planRunOf(next, []callResult{result})
		c.Steps = append(c.Steps, at)
		if at.Loss.Median > planLoss {
			break
		}
		c.take(&at, r.o.Load)
	}
	if c.Carried > 0 {
		c.Factor = float64(c.Calls) / float64(c.Carried)
	}
	return nil
}

// take computes the capacity from what a run took.
func (c *PlanCapacity) take(at *PlanRun, load int) {
	c.Calls, c.MeasuredAt = int(float64(load)/100*1e6/at.PerCall.Median), at.Calls
	if at.Loss.Median <= planLoss {
		c.Carried = max(c.Carried, at.Calls)
	}
}

// offerable is how many calls this machine can offer to two gateways that it
// has to run as well, with a fifth of its cores to spare.
func (r *planRun) offerable(at *PlanRun) int {
	perCall := (at.Generator.Median + at.GatewayA.Median + at.GatewayB.Median) / float64(at.Calls)
	return int(math.Min(0.8*100*float64(runtime.NumCPU())/perCall, maxPlanPackets/(r.o.Duration.Seconds()*callRate)))
}

// line is a run as progress shows it.
func (c *callResult) line() string {
	return fmt.Sprintf("%d packets, loss %.3f %%, delay median %.0f µs, p99 %.0f µs, jitter median %.0f µs, gateway load %.1f %% of a core",
		c.offered, c.loss(), percentile(c.delays, 0.5)/1e3, percentile(c.delays, 0.99)/1e3, percentile(c.jitters, 0.5)/1e3, c.busier().Seconds()*100/c.took.Seconds())
}

// loss is percent of the packets that were offered.
func (c *callResult) loss() float64 { return 100 * (1 - float64(c.delivered)/float64(c.offered)) }

func (c *callResult) busier() time.Duration { return max(c.gatewayCPU[0], c.gatewayCPU[1]) }

// planRunOf sums up rounds.
func planRunOf(calls int, rounds []callResult) PlanRun {
	of := func(f func(c *callResult) float64) Summary {
		var values []float64
		for i := range rounds {
			values = append(values, f(&rounds[i]))
		}
		return Summarize(values)
	}
	percent := func(pick func(*callResult) time.Duration) Summary {
		return of(func(c *callResult) float64 { return 100 * pick(c).Seconds() / c.took.Seconds() })
	}
	return PlanRun{
		Calls:     calls,
		Offered:   of(func(c *callResult) float64 { return float64(c.offered) / c.took.Seconds() }),
		Delivered: of(func(c *callResult) float64 { return float64(c.delivered) / c.took.Seconds() }),
		Loss:      of((*callResult).loss),
		PlanDelays: PlanDelays{
			DelayMedian:  of(func(c *callResult) float64 { return percentile(c.delays, 0.5) / 1e3 }),
			DelayP99:     of(func(c *callResult) float64 { return percentile(c.delays, 0.99) / 1e3 }),
			JitterMedian: of(func(c *callResult) float64 { return percentile(c.jitters, 0.5) / 1e3 }),
			JitterP99:    of(func(c *callResult) float64 { return percentile(c.jitters, 0.99) / 1e3 }),
		},
		GatewayA: percent(func(c *callResult) time.Duration { return c.gatewayCPU[0] }),
		GatewayB: percent(func(c *callResult) time.Duration { return c.gatewayCPU[1] }),
		CPU:      of(func(c *callResult) float64 { return us(c.busier()) / float64(c.delivered) }),
		// A call's second is its packets of both directions.
		PerCall:    of(func(c *callResult) float64 { return us(c.busier()) / float64(c.delivered) * 2 * callRate }),
		Generator:  percent(func(c *callResult) time.Duration { return c.generator }),
		LateP99:    of(func(c *callResult) float64 { return percentile(c.late, 0.99) / 1e3 }),
		Duplicates: of(func(c *callResult) float64 { return float64(c.duplicated) }),
	}
}

// less is d less base, round by round.
func (d PlanDelays) less(base PlanDelays) PlanDelays {
	minus := func(a, b Summary) Summary {
		values := make([]float64, len(a.Rounds))
		for i := range values {
			values[i] = a.Rounds[i] - b.Rounds[i]
		}
		return Summarize(values)
	}
	return PlanDelays{minus(d.DelayMedian, base.DelayMedian), minus(d.DelayP99, base.DelayP99),
		minus(d.JitterMedian, base.JitterMedian), minus(d.JitterP99, base.JitterP99)}
}
