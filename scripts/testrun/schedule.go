package main

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// schedule runs the tiers in their order, at most width lanes at once, and
// returns their results in the same order. A tier starts when the one before it
// has started and enough lanes are free; so a tier that takes all lanes runs
// alone. After a failed gate nothing else starts.
func schedule(ctx context.Context, tiers []tier, width int, p *progress) []result {
	results := make([]result, len(tiers))
	var mu sync.Mutex
	free, stopped := width, false
	changed := sync.NewCond(&mu)
	var wg sync.WaitGroup
	for i, t := range tiers {
		need := min(t.lanes, width)
		mu.Lock()
		for free < need {
			changed.Wait()
		}
		if stopped || ctx.Err() != nil {
			results[i] = result{name: t.name, notRun: true, note: "not run"}
			mu.Unlock()
			continue
		}
		free -= need
		mu.Unlock()
		wg.Go(func() {
			results[i] = runTier(ctx, t, p)
			mu.Lock()
			defer mu.Unlock()
			free += need
			stopped = stopped || t.gate && results[i].failed > 0
			changed.Broadcast()
		})
	}
	wg.Wait()
	return results
}

// runTier runs one tier with its log, and refuses to believe one that ran nothing.
func runTier(ctx context.Context, t tier, p *progress) (r result) {
	path := filepath.Join("build", "test", t.name+".log")
	started := time.Now()
	p.started(t.name)
	log, err := os.Create(path) // #nosec G304 -- named after a tier
	if err != nil {
		r = failure(err.Error())
	} else {
		r = t.run(ctx, &job{name: t.name, marker: p.marker, log: log, status: func(s string) { p.status(t.name, s) }})
		if err := log.Close(); err != nil {
			r.add(failure(err.Error()))
		}
	}
	switch {
	case ctx.Err() != nil:
		r.add(failure("stopped before it was through"))
	case r.passed+r.failed == 0:
		r.add(failure("ran no test at all"))
	}
	r.name, r.log, r.elapsed = t.name, path, time.Since(started)
	p.finished(r)
	return r
}
