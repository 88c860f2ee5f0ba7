// Command testrun is what `make test` runs: every tier of tests, two lanes side
// by side, one table, and one last line "N passed, N failed, N skipped".
//
// It owns the order of the tiers, what each of them counts, and the verdict. It
// does not own the tests. What a tier prints goes to build/test/<tier>.log and
// is shown only when the tier fails. The run fails when a test fails, when a
// tier runs no test at all, when a test is skipped although the run is
// privileged and scripts/allowed-skips.txt does not name it, and when something
// is left behind: a process, a namespace, a link, a rule, a table.
//
// Usage, from the module's root:
//
//	go run ./scripts/testrun [-tiers unit,lint] [-fuzztime 20s] [-unprivileged] [-list]
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// options are the command line and what was found out about the machine.
type options struct {
	tiers        map[string]bool // nil: all
	fuzzTime     time.Duration
	unprivileged string // why privileged tiers are left out; "": they run
	logDir       string
	allowedSkips string
	marker       string // NAME=VALUE in the environment of every process of this run
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("testrun", flag.ContinueOnError)
	flags.SetOutput(stderr)
	names := flags.String("tiers", "", "comma-separated tiers to run; default: all")
	fuzzTime := flags.Duration("fuzztime", 20*time.Second, "time for each fuzz target")
	unprivileged := flags.Bool("unprivileged", false, "leave out what needs root, also as root")
	listOnly := flags.Bool("list", false, "name the tiers and their tests, and run nothing")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		return 2
	}
	opt := options{fuzzTime: *fuzzTime, logDir: filepath.Join("build", "test"), allowedSkips: filepath.Join("scripts", "allowed-skips.txt")}
	opt.marker = "ADIT_TEST_RUN=" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	if *unprivileged {
		opt.unprivileged = "asked for by -unprivileged"
	} else if os.Geteuid() != 0 {
		opt.unprivileged = "namespaces and TUN need root"
	}
	if *names != "" {
		opt.tiers = map[string]bool{}
		for n := range strings.SplitSeq(*names, ",") {
			opt.tiers[strings.TrimSpace(n)] = true
		}
	}
	plan, err := makePlan(".", &opt)
	if err != nil {
		fmt.Fprintln(stderr, "testrun:", err)
		return 2
	}
	if *listOnly {
		plan.list(stdout)
		return 0
	}
	if err := os.MkdirAll(opt.logDir, 0o755); err != nil {
		fmt.Fprintln(stderr, "testrun:", err)
		return 2
	}
	before := takeInventory(ctx)
	progress := newProgress(stdout, opt.marker)
	results := schedule(ctx, plan.tiers, lanes, progress)
	if plan.checkLeftovers {
		results = append(results, leftovers(ctx, before, opt.marker, 5*time.Second))
	}
	progress.stop()
	return report(stdout, results, plan.leftOut)
}
