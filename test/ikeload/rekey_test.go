package ikeload

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/test/gatewaytest"
)

// window is how far apart the two ends begin, where both do.
const window = 10 * time.Millisecond

// maxRate bounds the load where the machine does other things too: packets per
// second, each way.
const maxRate = 2_000

// rekeys is what TestRootRekeysUnderLoadLoseNothing measures.
type rekeys struct {
	Child          int     `json:"child_rekeys_begun"`
	IKE            int     `json:"ike_rekeys_begun"`
	ByBoth         int     `json:"begun_by_both_ends"`
	ChildDone      int     `json:"child_rekeys_done"` // collisions may make two of one
	IKEDone        int     `json:"ike_rekeys_done"`
	Collisions     uint64  `json:"collisions_seen"` // most of them by both ends
	Retransmitted  uint64  `json:"retransmissions"`
	Seconds        float64 `json:"seconds"`
	Carries        int     `json:"carries_packets_per_second"`
	Rate           int     `json:"load_packets_per_second"`
	Sent           [2]int  `json:"sent"`
	Lost           [2]int  `json:"lost"`
	Duplicated     [2]int  `json:"duplicated"`
	LongestSettled float64 `json:"longest_until_settled_ms"`
}

// RFC 7296 2.8, make before break, and its collisions: under load both ways, Child SAs
// and IKE SAs are replaced by one end or, each second time, by both within 10 ms. Every
// datagram arrives once, and each time one tunnel is left that both ends agree on.
func TestRootRekeysUnderLoadLoseNothing(t *testing.T) {
	ctx := root(t, 5*time.Minute, 2*time.Hour)
	p := newPair(t, gatewaytest.IKEOptions{IKE: "dpd: off"})
	p.start()
	p.first(ctx, t)
	r := rekeys{Child: scaled(200, 10_000), IKE: scaled(40, 1_000)}
	r.Carries = p.calibrate(ctx, t)
	r.Rate = r.Carries / 2
	if !*full {
		r.Rate = min(r.Rate, maxRate)
	}
	if *rate > 0 {
		r.Rate = *rate
	}
	before := map[*end]map[string]uint64{p.a: p.a.counters(ctx), p.b: p.b.counters(ctx)}
	load := p.bothWays(ctx, maxDatagrams, r.Rate)
	start := time.Now()
	p.rekey(ctx, t, &r)
	r.Seconds = time.Since(start).Seconds()
	p.intact(ctx, t, load)
	for i, d := range load.results {
		r.Sent[i], r.Lost[i], r.Duplicated[i] = d.Sent, d.Lost(), d.Duplicated
	}
	for _, e := range []*end{p.a, p.b} {
		c := e.counters(ctx)
		r.Collisions += c["IKERekeyCollisions"]
		r.Retransmitted += c["IKERetransmissions"]
		for _, name := range []string{"InNoSA", "InAuth", "InReplay", "OutNoSA", "OutHoldFull", "OutHoldExpired", "IKEPanicRecovered", "IKEInstallErrors"} {
			if n := c[name] - before[e][name]; n != 0 {
				t.Errorf("%s: %s: %d more", e.side.Gateway.Name(), name, n)
			}
		}
		if !eventually(ctx, slack, func() bool { return e.installed(ctx) == 2 }) {
			t.Errorf("SAs in the end: expected 2, saw %d", e.installed(ctx))
		}
	}
	r.ChildDone = p.a.logged(`stage="rekey CHILD_SA"`, "outcome=done")
	r.IKEDone = p.a.logged(`stage="rekey IKE_SA"`, "outcome=done")
	if r.Collisions == 0 {
		t.Error("no rekeys have collided: nothing is proved about those that do")
	}
	figures(t, r)
}

// calibrate is how many packets per second the pair carries each way, both ways at
// once; some of them may be lost.
func (p *pair) calibrate(ctx context.Context, t *testing.T) int {
	t.Helper()
	most := 0
	burst := p.bothWays(ctx, 20_000, 0)
	burst.all.Wait()
	for _, r := range burst.end(t) {
		if each := int(float64(r.Received) / r.Span.Seconds()); most == 0 || each < most {
			most = each
		}
	}
	if most < 500 {
		t.Fatalf("the machine carries %d packets per second: too few to prove anything", most)
	}
	return most
}

// rekey does all of them, one after the other.
func (p *pair) rekey(ctx context.Context, t *testing.T, r *rekeys) {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	now, ok := p.settle(ctx, slack, nil)
	if !ok {
		t.Fatalf("no tunnel:\n%s", p.describe(ctx))
	}
	each := r.Child / r.IKE
	total := r.Child + r.IKE
	var done atomic.Int64
	var longest time.Duration
	say(ctx, t, func() string { return progressOf(int(done.Load()), total) })
	for i := range total {
		policy := "*"
		if i%(each+1) == each {
			policy = "" // the IKE SA
		}
		began := time.Now()
		err := p.begin(ctx, i, policy, random)
		before := now
		replaced := func(n tunnel) bool {
			if policy == "" {
				return n.spiI != before.spiI && n.spiR != before.spiR
			}
			return n.in != before.in && n.out != before.out
		}
		if err == nil {
			now, ok = p.settle(ctx, slack, replaced)
		}
		if err != nil || !ok {
			t.Errorf("rekey %d of %d, of %q: %v; before: %+v, now:\n%s", i, total, policy, err, before, p.describe(ctx))
			return
		}
		longest = max(longest, time.Since(began))
		done.Add(1)
		if i%2 == 1 {
			r.ByBoth++
		}
	}
	r.LongestSettled = milliseconds(longest)
}

// begin asks for the i-th rekey: one end does, in turns, or both within the window.
func (p *pair) begin(ctx context.Context, i int, policy string, random *rand.Rand) error {
	ends := [2]*end{p.a, p.b}
	if i%2 == 0 {
		return ends[i/2%2].change(ctx, "renew", policy)
	}
	var both sync.WaitGroup
	var errs [2]error
	for j, e := range ends {
		// Half of them at the same instant, where most collisions are.
		var wait time.Duration
		if i%4 == 1 {
			wait = time.Duration(random.Int64N(int64(window)))
		}
		both.Go(func() {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
			errs[j] = e.change(ctx, "renew", policy)
		})
	}
	both.Wait()
	return errors.Join(errs[:]...)
}
