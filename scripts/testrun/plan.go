package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// lanes is how many tiers run side by side.
const lanes = 2

// tier is one step of the run.
type tier struct {
	name  string
	about string
	lanes int  // how many lanes it takes; all of them: nothing runs beside it
	gate  bool // when it fails, no later tier starts
	tests []string
	run   func(ctx context.Context, j *job) result
}

// plan is what this run does and what it leaves out.
type plan struct {
	tiers          []tier
	leftOut        []string // "tier: reason"
	checkLeftovers bool
}

// How a test's name says where it runs. CONTRIBUTING.md tells developers.
func needsRoot(t testFunc) bool {
	return strings.Contains(t.name, "Root") || inTestDir(t)
}
func measures(t testFunc) bool  { return !needsRoot(t) && strings.Contains(t.name, "Measure") }
func plainTest(t testFunc) bool { return !needsRoot(t) && !measures(t) }
func fuzzes(t testFunc) bool    { return strings.HasPrefix(t.name, "Fuzz") }

// makePlan reads the tree at root and lays out the tiers, in the order in which
// they take their lanes.
func makePlan(root string, opt *options) (*plan, error) {
	tests, err := scan(root)
	if err != nil {
		return nil, err
	}
	p := &plan{}
	all := []tier{
		{name: "build", about: "every package, vet, static programs", lanes: lanes, gate: true, run: opt.build},
		goTestTier(opt, "unit", "all packages, without root", tests, plainTest),
		{name: "lint", about: "gofmt, golangci-lint", lanes: 1, run: opt.lint},
		rootTier(opt, tests),
		raceTier(opt, tests),
		{name: "fuzz-short", about: opt.fuzzTime.String() + " for each target", lanes: lanes, tests: names(tests, fuzzes), run: opt.fuzz(tests)},
	}
	if alone := names(tests, measures); len(alone) > 0 {
		all = append(all, tier{name: "measure", about: "tests that measure, alone", lanes: lanes, tests: alone,
			run: opt.goTest("-run", exactly(alone), "-p", "1").in(dirs(tests, measures))})
	}
	for _, t := range all {
		switch {
		case opt.tiers != nil && !opt.tiers[t.name]:
		case t.name == "root" && opt.unprivileged != "":
			p.leftOut = append(p.leftOut, "root: "+opt.unprivileged)
		default:
			p.tiers = append(p.tiers, t)
		}
	}
	for name := range opt.tiers {
		if !slices.ContainsFunc(all, func(t tier) bool { return t.name == name }) {
			return nil, fmt.Errorf("no tier %q; there are %s", name, tierNames(all))
		}
	}
	p.checkLeftovers = slices.ContainsFunc(p.tiers, func(t tier) bool { return t.name == "root" })
	return p, nil
}

// goTestTier runs the tests that keep says yes to, in every folder that has one.
func goTestTier(opt *options, name, about string, tests []testFunc, keep func(testFunc) bool, args ...string) tier {
	skip := exactly(names(tests, func(t testFunc) bool { return !keep(t) && strings.HasPrefix(t.name, "Test") && !inTestDir(t) }))
	args = append(args, "-skip", skip, "-p", strconv.Itoa(max(2, runtime.NumCPU()/lanes)))
	return tier{name: name, about: about, lanes: 1, tests: names(tests, keep),
		run: opt.goTest(args...).in(dirs(tests, keep))}
}

// raceTier runs the unit tests under the race detector, and with root the
// packages' own root tests too. What is in test/ starts programs: there the
// detector would only watch the tests.
func raceTier(opt *options, tests []testFunc) tier {
	t := goTestTier(opt, "race", "the same under the race detector", tests, plainTest, "-race")
	if opt.unprivileged != "" {
		return t
	}
	rooted := func(t testFunc) bool { return needsRoot(t) && !inTestDir(t) }
	named := names(tests, rooted)
	if len(named) == 0 {
		return t
	}
	plain := t.run
	t.tests = append(t.tests, named...)
	t.run = func(ctx context.Context, j *job) result {
		r := plain(ctx, j)
		r.add(opt.goTest("-race", "-run", exactly(named), "-p", "1").in(dirs(tests, rooted))(ctx, j))
		return r
	}
	return t
}

// inTestDir tells whether a test starts programs. The simulator of IKE is the one
// in test/ that starts nothing.
func inTestDir(t testFunc) bool {
	return t.dir == "test" || strings.HasPrefix(t.dir, "test/") && t.dir != "test/ikesim"
}

// rootTier runs what needs namespaces: one package at a time, since each of
// them moves real packets on these cores.
func rootTier(opt *options, tests []testFunc) tier {
	rooted := func(t testFunc) bool { return needsRoot(t) && !inTestDir(t) }
	named := names(tests, rooted)
	return tier{name: "root", about: "namespaces, TUN, interoperation", lanes: 1, tests: names(tests, needsRoot),
		run: func(ctx context.Context, j *job) result {
			if err := canMakeNamespaces(ctx); err != nil {
				return failure("root, but " + err.Error() + "; give the container what it needs, or run with -unprivileged")
			}
			var r result
			if len(named) > 0 {
				r = opt.goTest("-run", exactly(named), "-p", "1").in(dirs(tests, rooted))(ctx, j)
			}
			if in := dirs(tests, inTestDir); len(in) > 0 {
				r.add(opt.goTest("-p", "1").in(in)(ctx, j))
			}
			return r
		}}
}

func (o *options) build(ctx context.Context, j *job) result {
	r := j.check(ctx, "go", "build", "./...")
	r.add(j.check(ctx, "go", "vet", "./..."))
	if fileExists("cmd") {
		r.add(j.checkEnv(ctx, []string{"CGO_ENABLED=0"}, "go", "build", "-trimpath", "-o", "bin/", "./cmd/..."))
	}
	return r
}

func (o *options) lint(ctx context.Context, j *job) result {
	r := j.checkSilent(ctx, "gofmt", "-l", ".")
	tools := j.check(ctx, filepath.Join("scripts", "install-tools.sh"), "--lint")
	r.add(tools)
	if tools.failed == 0 {
		// A cache of its own: the user's is shared by all clones, and hands out
		// findings about files of another one.
		cache, err := filepath.Abs(filepath.Join("build", "tools", "lint-cache"))
		if err != nil {
			return failure(err.Error())
		}
		r.add(j.checkEnv(ctx, []string{"GOLANGCI_LINT_CACHE=" + cache}, filepath.Join("build", "tools", "bin", "golangci-lint"), "run", "--allow-parallel-runners", "./..."))
	}
	return r
}

// canMakeNamespaces tries what the root tier lives on.
func canMakeNamespaces(ctx context.Context) error {
	if _, err := os.Stat("/dev/net/tun"); errors.Is(err, fs.ErrNotExist) {
		return errors.New("there is no /dev/net/tun")
	}
	name := "adit-probe-" + strconv.Itoa(os.Getpid())
	if out, err := command(ctx, nil, "ip", "netns", "add", name).CombinedOutput(); err != nil {
		return fmt.Errorf("no network namespace can be made: %s", strings.TrimSpace(string(out)))
	}
	return command(ctx, nil, "ip", "netns", "delete", name).Run()
}

func (p *plan) list(w io.Writer) {
	for _, t := range p.tiers {
		fmt.Fprintf(w, "%-10s %s\n", t.name, t.about)
		for _, name := range t.tests {
			fmt.Fprintf(w, "           %s\n", name)
		}
	}
	for _, l := range p.leftOut {
		fmt.Fprintln(w, "left out:", l)
	}
}

func tierNames(tiers []tier) string {
	list := make([]string, len(tiers))
	for i, t := range tiers {
		list[i] = t.name
	}
	return strings.Join(list, ", ")
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
