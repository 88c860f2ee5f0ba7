package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
)

// event is one line of `go test -json` (go doc test2json).
type event struct {
	Action, Package, ImportPath, Test, Output string
}

// testState is one test as its events tell it.
type testState struct {
	status string // "", pass, fail, skip
	parent bool   // has subtests
	output []string
}

// packageState is one package's tests.
type packageState struct {
	failed bool
	output []string // what no test said: build errors, panics
	tests  map[string]*testState
	order  []string
}

// collector turns the events of one `go test -json` into counts. A test with
// subtests counts through them; a fuzz target's seeds count as one.
type collector struct {
	packages map[string]*packageState
	order    []string
	builds   []string // what failed builds printed
	done     int
}

func newCollector() *collector { return &collector{packages: map[string]*packageState{}} }

// read takes events until r ends. Lines that are not JSON (the go command's own
// complaints) are kept as build output. each is called with every line of text.
func (c *collector) read(r io.Reader, each func(string)) error {
	lines := bufio.NewReaderSize(r, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				e = event{Action: "build-output", Output: string(line)}
			}
			if e.Output != "" {
				each(e.Output)
			}
			c.take(e)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (c *collector) take(e event) {
	if e.Action == "build-output" {
		c.builds = append(c.builds, e.Output)
	}
	if e.Package == "" {
		return
	}
	p := c.packages[e.Package]
	if p == nil {
		p = &packageState{tests: map[string]*testState{}}
		c.packages[e.Package] = p
		c.order = append(c.order, e.Package)
	}
	if e.Test == "" {
		p.output = append(p.output, e.Output)
		p.failed = p.failed || e.Action == "fail"
		return
	}
	t := p.test(e.Test)
	switch e.Action {
	case "output":
		t.output = append(t.output, e.Output)
	case "pass", "fail", "skip":
		t.status = e.Action
		c.done++
		if e.Action == "pass" {
			t.output = nil
		}
	}
}

// test finds or makes the state of a test and marks those above it as parents.
func (p *packageState) test(name string) *testState {
	if t := p.tests[name]; t != nil {
		return t
	}
	t := &testState{}
	p.tests[name] = t
	p.order = append(p.order, name)
	for above := name; ; {
		i := strings.LastIndexByte(above, '/')
		if i < 0 {
			return t
		}
		above = above[:i]
		if up := p.tests[above]; up != nil {
			up.parent = true
		}
	}
}

// skipped is one test that did not run and the reason it gave.
type skipped struct{ pkg, test, reason string }

// counts adds everything up.
func (c *collector) counts() (r result, skips []skipped) {
	for _, pkg := range c.order {
		p := c.packages[pkg]
		failedBefore := r.failed
		for _, name := range p.order {
			c.countTest(&r, &skips, pkg, name, p)
		}
		if p.failed && r.failed == failedBefore {
			r.failed++
			r.problems = append(r.problems, pkg+" failed outside its tests\n"+strings.Join(p.output, ""))
		} else if p.failed {
			r.problems = append(r.problems, strings.Join(p.output, ""))
		}
	}
	if len(c.builds) > 0 {
		r.problems = append(r.problems, strings.Join(c.builds, ""))
	}
	return r, skips
}

func (c *collector) countTest(r *result, skips *[]skipped, pkg, name string, p *packageState) {
	t := p.tests[name]
	target, isSeed, _ := strings.Cut(name, "/")
	seed := isSeed != "" && strings.HasPrefix(target, "Fuzz")
	counts := !seed && (!t.parent || strings.HasPrefix(name, "Fuzz"))
	switch t.status {
	case "pass":
		if counts {
			r.passed++
		}
	case "skip":
		if counts {
			r.skipped++
			*skips = append(*skips, skipped{pkg, name, skipReason(t.output)})
		}
	default: // failed, or never ended: a panic, a time-out
		if counts || t.parent && !p.anyFailedBelow(name) {
			r.failed++
		}
		r.problems = append(r.problems, pkg+" "+name+"\n"+strings.Join(t.output, ""))
	}
}

func (p *packageState) anyFailedBelow(name string) bool {
	return slices.ContainsFunc(p.order, func(n string) bool {
		s := p.tests[n].status
		return strings.HasPrefix(n, name+"/") && s != "pass" && s != "skip"
	})
}

// skipReason is what the test said before it was skipped.
func skipReason(output []string) string {
	var said []string
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "===") && !strings.HasPrefix(line, "---") {
			said = append(said, line)
		}
	}
	return strings.Join(said, " ")
}

// kinds are the lines under the unit tier's row: how many of its tests hold what.
var kinds = []struct {
	name string
	is   *regexp.Regexp
}{
	{"conformance (C-…)", regexp.MustCompile(`^TestC[RSPAIK]\d\d`)},
	{"RFC sentences", regexp.MustCompile(`^TestRFC\d+`)},
	{"vectors", regexp.MustCompile(`^Test\w*(Vector|Wycheproof|KAT)`)},
	{"fuzz seeds", regexp.MustCompile(`^Fuzz[^/]*/`)},
	{"examples", regexp.MustCompile(`^Example`)},
}

func (c *collector) breakdown() (lines []string) {
	for _, k := range kinds {
		n := 0
		for _, p := range c.packages {
			for name, t := range p.tests {
				if t.status == "pass" && !t.parent && k.is.MatchString(name) {
					n++
				}
			}
		}
		if n > 0 {
			lines = append(lines, fmt.Sprintf("%-20s %d", k.name, n))
		}
	}
	return lines
}

// goTestRun is a `go test -json` with its arguments.
type goTestRun struct {
	opt  *options
	args []string
}

func (o *options) goTest(args ...string) goTestRun {
	return goTestRun{o, append([]string{"test", "-json", "-count=1", "-vet=off", "-timeout=10m"}, args...)}
}

// in runs it over these folders.
func (g goTestRun) in(folders []string) func(context.Context, *job) result {
	return func(ctx context.Context, j *job) result {
		cmd := command(ctx, []string{j.marker}, "go", append(g.args, folders...)...)
		j.logf("$ %s\n", strings.Join(cmd.Args, " "))
		out, err := cmd.StdoutPipe()
		if err != nil {
			return failure(err.Error())
		}
		var complaints strings.Builder
		cmd.Stderr = &complaints
		if err := cmd.Start(); err != nil {
			return failure(err.Error())
		}
		c := newCollector()
		readErr := c.read(out, func(text string) {
			j.logf("%s", text)
			j.status(fmt.Sprintf("%d tests", c.done))
		})
		err = cmd.Wait()
		r, skips := c.counts()
		if s := complaints.String(); s != "" {
			j.logf("%s", s)
		}
		if r.failed == 0 && (err != nil || readErr != nil) {
			r.failed++
			r.problems = append(r.problems, fmt.Sprintf("go test: %v %v\n%s", err, readErr, complaints.String()))
		}
		if j.name == "unit" {
			r.breakdown = c.breakdown()
		}
		g.opt.judgeSkips(&r, skips)
		return r
	}
}

// judgeSkips makes a failure of every skip in a privileged run that
// scripts/allowed-skips.txt does not name: a test that skips itself for want of
// a tool would hide that it never ran.
func (o *options) judgeSkips(r *result, skips []skipped) {
	if o.unprivileged != "" {
		return
	}
	allowed, err := readAllowedSkips(o.allowedSkips)
	if err != nil {
		r.add(failure(err.Error()))
		return
	}
	for _, s := range skips {
		if !allowed[s.pkg[strings.LastIndexByte(s.pkg, '/')+1:]+"."+s.test] {
			r.add(failure(fmt.Sprintf("%s %s was skipped, and %s does not name it: %s", s.pkg, s.test, o.allowedSkips, s.reason)))
		}
	}
}

// readAllowedSkips reads lines "package.Test reason"; "#" begins a comment. A
// line without a reason is an error.
func readAllowedSkips(path string) (map[string]bool, error) {
	text, err := os.ReadFile(path) // #nosec G304 -- a file of this repository
	if err != nil {
		return nil, err
	}
	allowed := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		switch len(fields) {
		case 0:
		case 1:
			return nil, fmt.Errorf("%s: %s has no reason beside it", path, fields[0])
		default:
			allowed[fields[0]] = true
		}
	}
	return allowed, nil
}
