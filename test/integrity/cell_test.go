package integrity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

// faults of the faulty path, on single outer packets, in both directions.
var faults = netlab.PathFaults{LossPercent: 1, LatePercent: 10}

// lateWindow is the replay window on the faulty path, in packets: more than may
// pass while late ones wait for a busy machine. What is older than the window is
// taken for one of the next 2^32 numbers (RFC 4303 A2.2) and fails authentication:
// with the default of 4096 a machine under load counts InAuth.
const lateWindow = 1 << 20

// stalled is how long no byte may arrive before a cell is given up: longer than
// TCP's longest retransmission pauses at this loss.
const stalled = 2 * time.Minute

func (c cell) options() gatewaytest.Options {
	o := gatewaytest.Options{OuterV6: c.outer == 6, Topology: netlab.Options{Offloads: c.offload}}
	if c.faults {
		o.Profile = fmt.Sprintf("replay_window: %d", lateWindow)
	}
	if !c.offload {
		o.Top = "tun: {offload: off}"
	}
	return o
}

// run moves bytes through the cell, half of them each way, writes what came of
// them into r, and fails the test for everything that is not as it must be.
func (c cell) run(ctx context.Context, t *testing.T, out io.Writer, bytes int64, r *result) {
	*r = result{Name: c.name(), Inner: c.inner, Outer: c.outer, Offload: onOff(c.offload), Path: c.path()}
	t.Cleanup(func() { r.Failed = t.Failed() })
	p := gatewaytest.NewPair(t, c.options())
	path, err := c.network(p, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := path.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("again: -full -cells %q -bytes %d -seed %s\nthe path: %+v\nA's log ends:\n%s\nB's log ends:\n%s",
				c.name(), bytes, *seed, r.Wire, tail(p.GatewayA.Log()), tail(p.GatewayB.Log()))
		}
	})
	p.Start()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var arrived atomic.Int64
	done := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		watch{out: out, name: c.name(), bytes: bytes, arrived: &arrived, p: p}.until(done, cancel)
	}()
	start := time.Now()
	r.Streams = c.streams(ctx, p, bytes, &arrived)
	r.Seconds, r.Bytes = time.Since(start).Seconds(), arrived.Load()
	close(done)
	<-watched

	c.check(t, p, path, r)
	if !t.Failed() {
		p.GatewayA.Stop()
		p.GatewayB.Stop()
	}
}

// network sets offloads, faults and the hosts' congestion control.
func (c cell) network(p *gatewaytest.Pair, r *result) (*netlab.Path, error) {
	const congestion = "net.ipv4.tcp_congestion_control" // of IPv6 too
	want := "reno"                                       // every kernel has it, for every namespace
	if c.faults {
		want = "bbr" // takes loss for no congestion
	}
	var errs []error
	for _, s := range []*netlab.Side{&p.A, &p.B} {
		if c.offload {
			errs = append(errs, s.Gateway.SetOffload(netlab.OutsideIface, true, "rx-gro"))
		}
		_ = s.Host.Sysctl(congestion, want) // without it the kernel's own choice is only slower
	}
	var err error
	r.Congestion, err = p.A.Host.SysctlGet(congestion)
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	if c.faults {
		return p.Disturb(faults)
	}
	return p.Disturb(netlab.PathFaults{})
}

// streams moves the bytes and says of each stream what came of it.
func (c cell) streams(ctx context.Context, p *gatewaytest.Pair, bytes int64, arrived *atomic.Int64) []stream {
	all := make([]stream, 2**perWay)
	var wg sync.WaitGroup
	for i := range all {
		from, to, way := &p.A, &p.B, "A to B"
		if i%2 == 1 {
			from, to, way = to, from, "B to A"
		}
		dst := to.Host4
		if c.inner == 6 {
			dst = to.Host6
		}
		s := &all[i]
		s.Name = fmt.Sprintf("%s %d", way, i/2)
		s.Expected = bytes / int64(len(all))
		wg.Go(func() {
			r, err := netlab.TCPTransfer(ctx, from.Host, to.Host, netlab.TransferOptions{
				To: netip.AddrPortFrom(dst, 0), Bytes: s.Expected, Key: c.key(s.Name), Progress: arrived})
			s.set(r, err)
		})
	}
	wg.Wait()
	return all
}

// mayMove are the counters that are no drops.
var mayMove = map[string]bool{
	"OutPackets": true, "OutBytes": true, "OutKeepalives": true, "InPackets": true, "InBytes": true, "InKeepalives": true,
	"OutProbes": true, "InProbes": true, "OutProbeAnswers": true, "InProbeAnswers": true,
}

// chatter is how many packets the kernel may send of its own on a TUN that is
// up, and the policies discard: router solicitations, group membership.
const chatter = 30

func (c cell) check(t *testing.T, p *gatewaytest.Pair, path *netlab.Path, r *result) {
	t.Helper()
	for i := range r.Streams {
		if s := &r.Streams[i]; !s.Intact {
			t.Errorf("stream %s: %s", s.Name, s)
		}
	}
	var err error
	if r.Wire, err = path.Counts(); err != nil {
		t.Error(err)
	}
	c.checkPath(t, r.Wire)
	for name, gw := range map[string]*gatewaytest.Gateway{"A": p.GatewayA, "B": p.GatewayB} {
		counters := gw.Counters()
		for _, known := range []string{"InAuth", "InMalformed", "InReplay", "InInner", "InTUNError", "OutSendError", "OutTooBig"} {
			if _, ok := counters[known]; !ok {
				t.Errorf("gateway %s has no counter %s", name, known)
			}
		}
		for counter, n := range counters {
			if n == 0 || !isTraffic(counter) || mayMove[counter] {
				continue
			}
			r.drop(name+" "+counter, n)
			if counter == "OutDiscard" && n <= chatter {
				continue
			}
			t.Errorf("gateway %s: %s: expected 0, saw %d", name, counter, n)
		}
	}
}

// checkPath holds the faults to their rates, and superpackets to where they
// belong.
func (c cell) checkPath(t *testing.T, wire netlab.PathCounts) {
	t.Helper()
	if want := c.offload && !c.faults; (wire.Long > 0) != want {
		t.Errorf("%d of %d packets on the path were superpackets: expected some: %v", wire.Long, wire.Packets, want)
	}
	if (wire.LongIn > 0) != c.offload {
		t.Errorf("the gateways were handed %d superpackets: expected some: %v", wire.LongIn, c.offload)
	}
	if !c.faults {
		return
	}
	rate := func(what string, got, of uint64, percent float64) {
		mean, share := float64(of)*percent/100, percent/100
		if slack := 6 * math.Sqrt(mean*(1-share)); got == 0 || math.Abs(float64(got)-mean) > slack {
			t.Errorf("%d of %d packets were %s: expected %.0f, give or take %.0f", got, of, what, mean, slack)
		}
	}
	rate("lost", wire.Lost, wire.Packets, faults.LossPercent)
	rate("late", wire.Late, wire.Packets-wire.Lost, faults.LatePercent)
}

// watch writes progress, and ends a cell in which nothing moves any more.
type watch struct {
	out     io.Writer
	name    string
	bytes   int64
	arrived *atomic.Int64
	p       *gatewaytest.Pair
}

func (w watch) until(done <-chan struct{}, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	last, moved, said, start := int64(0), time.Now(), time.Now(), time.Now()
	for {
		select {
		case <-done:
			return
		case <-w.p.GatewayA.Process().Done():
			cancel(errors.New("gateway A ended"))
			return
		case <-w.p.GatewayB.Process().Done():
			cancel(errors.New("gateway B ended"))
			return
		case now := <-tick.C:
			n := w.arrived.Load()
			if n != last {
				last, moved = n, now
			}
			if now.Sub(moved) > stalled {
				cancel(fmt.Errorf("no byte arrived for %v", stalled))
				return
			}
			if *progress > 0 && now.Sub(said) >= *progress {
				said = now
				fmt.Fprintf(w.out, "%s: %s of %s, %.2f Gbit/s\n", w.name, bytesText(n), bytesText(w.bytes), gigabits(n, now.Sub(start).Seconds()))
			}
		}
	}
}
