package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// progress tells how far the run is: on a terminal one line that is written
// over, elsewhere a line when a tier starts and ends, and one a minute.
type progress struct {
	w        io.Writer
	terminal bool
	marker   string
	began    time.Time
	quit     chan struct{}
	ended    sync.WaitGroup

	mu      sync.Mutex
	running []string          // mu: tiers under way, oldest first
	saying  map[string]string // mu: what each of them says
}

func newProgress(w io.Writer, marker string) *progress {
	p := &progress{w: w, marker: marker, began: time.Now(), quit: make(chan struct{}), saying: map[string]string{}}
	every := time.Minute
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	if p.terminal {
		every = 500 * time.Millisecond
	}
	p.ended.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				p.line()
			case <-p.quit:
				return
			}
		}
	})
	return p
}

func (p *progress) stop() {
	close(p.quit)
	p.ended.Wait()
	p.clear()
}

func (p *progress) elapsed() string {
	s := int(time.Since(p.began).Seconds())
	return fmt.Sprintf("%2d:%02d", s/60, s%60)
}

// line writes what is under way.
func (p *progress) line() {
	p.mu.Lock()
	defer p.mu.Unlock()
	var parts []string
	for _, name := range p.running {
		parts = append(parts, strings.TrimSpace(name+" "+p.saying[name]))
	}
	if text := p.elapsed() + "  " + strings.Join(parts, " | "); p.terminal {
		fmt.Fprintf(p.w, "\r%-100.100s", text)
	} else if len(parts) > 0 {
		fmt.Fprintln(p.w, text)
	}
}

func (p *progress) clear() {
	if p.terminal {
		fmt.Fprintf(p.w, "\r%100s\r", "")
	}
}

func (p *progress) started(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = append(p.running, name)
	if !p.terminal {
		fmt.Fprintf(p.w, "%s  %s ...\n", p.elapsed(), name)
	}
}

func (p *progress) status(name, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.saying[name] = text
}

func (p *progress) finished(r result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = slices.DeleteFunc(p.running, func(n string) bool { return n == r.name })
	p.clear()
	fmt.Fprintf(p.w, "%s  %s: %s in %.0f s\n", p.elapsed(), r.name, summaryLine(r.passed, r.failed, r.skipped), r.elapsed.Seconds())
}

// report writes what failed, then the table, then the last line, and returns
// the exit code.
func report(w io.Writer, results []result, leftOut []string) int {
	total, ok := result{}, true
	for _, r := range results {
		total.add(r)
		ok = ok && r.failed == 0 && !r.notRun
		if r.failed > 0 {
			fmt.Fprintf(w, "\n==== %s failed; its log is %s\n", r.name, r.log)
			fmt.Fprintln(w, tail(strings.Join(r.problems, "\n"), 2000))
		}
	}
	fmt.Fprintf(w, "\n%-12s %8s %8s %8s %9s\n", "tier", "passed", "failed", "skipped", "seconds")
	for _, r := range results {
		fmt.Fprintf(w, "%-12s %8d %8d %8d %9.1f  %s\n", r.name, r.passed, r.failed, r.skipped, r.elapsed.Seconds(), r.note)
		for _, line := range r.breakdown {
			fmt.Fprintf(w, "  of these   %s\n", line)
		}
	}
	for _, l := range leftOut {
		fmt.Fprintln(w, "left out:", l)
	}
	if total.passed+total.failed == 0 {
		fmt.Fprintln(w, "nothing ran")
		ok = false
	}
	fmt.Fprintf(w, "\n%s\n", summaryLine(total.passed, total.failed, total.skipped))
	if ok {
		return 0
	}
	return 1
}

// summaryLine has the form that the CI reads.
func summaryLine(passed, failed, skipped int) string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", passed, failed, skipped)
}
