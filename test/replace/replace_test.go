package replace

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/sad"
)

const (
	replacements = 1000
	pace         = 10 * time.Millisecond // between replacements: 10 s for all of them
	grace        = 2 * time.Second       // longer than anything on the way may wait
	payload      = 512                   // bytes of UDP

	// The load takes half of what a short burst shows that the machine
	// carries, and no more than maxRate: packets per second, each way.
	maxRate  = 15_000
	loadTime = 14 * time.Second
)

// RFC 7296 2.8, make before break, with real sockets and TUNs: 1,000 replacements of
// both SAs under load in both directions, and every datagram arrives once.
func TestRootRFC7296_2_8_Replace1000TimesUnderLoadLosesNothing(t *testing.T) {
	ctx := root(t)
	_, a, b := raise(t)
	var old [2][]sad.ID
	replace := func(n uint32) error {
		aOut, bIn := association(t, a, b, 0x10000+2*n)
		bOut, aIn := association(t, b, a, 0x10001+2*n)
		// The order of an exchange: the responder can receive, the
		// initiator switches, the responder follows.
		err := errors.Join(
			b.gw.Replace(nil, 0, bIn),
			a.gw.Replace(old[0], grace, aOut, aIn),
			b.gw.Replace(old[1], grace, bOut))
		old = [2][]sad.ID{{aOut.ID(), aIn.ID()}, {bOut.ID(), bIn.ID()}}
		return err
	}
	if err := replace(0); err != nil {
		t.Fatal(err)
	}
	most := calibrate(ctx, t, a, b)
	rate := min(most/2, maxRate)
	before := [2]map[string]uint64{drops(a), drops(b)} // the burst's
	t.Logf("a burst both ways: %d packets per second each way; the load: %d", most, rate)

	start := time.Now()
	ended := make(chan [2]netlab.BurstResult, 1)
	go func() {
		ended <- bothWays(ctx, t, a, b, rate*int(loadTime/time.Second), time.Second/time.Duration(rate))
	}()
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for n := range uint32(replacements) {
		<-tick.C
		if err := replace(n + 1); err != nil {
			t.Error(err)
			break
		}
	}
	took := time.Since(start)
	for i, r := range <-ended {
		if r.Lost() != 0 || r.Duplicated != 0 || r.Mismatched != 0 || r.SendErrors != 0 {
			t.Errorf("direction %d: %s, longest gap %d\nA:%s\nB:%s", i, r, r.MaxGap, a.counters(), b.counters())
		}
		if r.Sending < took {
			t.Errorf("direction %d: the load ended after %v, the replacements after %v", i, r.Sending, took)
		}
		t.Logf("direction %d: %s", i, r)
	}
	t.Logf("%d replacements in %v", replacements, took.Round(time.Millisecond))
	if took > 30*time.Second {
		t.Errorf("%d replacements took %v", replacements, took)
	}
	for i, s := range []*site{a, b} {
		for name, n := range drops(s) {
			if n != before[i][name] && name != "OutDiscard" { // the kernel's own on the TUN
				t.Errorf("%s: %s is %d more", s.Gateway.Name(), name, n-before[i][name])
			}
		}
		for deadline := time.Now().Add(20 * time.Second); len(s.gw.Stats().SAs) != 2; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("%s: SAs in the end: expected 2, saw %d", s.Gateway.Name(), len(s.gw.Stats().SAs))
				break
			}
		}
	}
}

func drops(s *site) map[string]uint64 {
	all := map[string]uint64{}
	for _, c := range s.gw.Stats().Drops {
		all[c.Name] = c.Value
	}
	return all
}

// calibrate is how many packets per second the machine carries each way, both ways
// at once; some of them may be lost.
func calibrate(ctx context.Context, t *testing.T, a, b *site) int {
	t.Helper()
	most := 0
	for _, r := range bothWays(ctx, t, a, b, 30_000, 0) {
		if each := int(float64(r.Received) / r.Span.Seconds()); most == 0 || each < most {
			most = each
		}
	}
	if most < 1000 {
		t.Fatalf("the machine carries %d packets per second: too few to prove anything", most)
	}
	return most
}

// bothWays sends count datagrams from host to host each way, at the same time.
func bothWays(ctx context.Context, t *testing.T, a, b *site, count int, interval time.Duration) (results [2]netlab.BurstResult) {
	t.Helper()
	var all sync.WaitGroup
	for i, way := range [2][2]*site{{a, b}, {b, a}} {
		all.Go(func() {
			var err error
			results[i], err = netlab.UDPBurst(ctx, way[0].Host, way[1].Host, netlab.BurstOptions{
				To: netip.AddrPortFrom(way[1].Host4, 0), Count: count, Size: payload, Interval: interval, Quiet: 2 * time.Second})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	return results
}
