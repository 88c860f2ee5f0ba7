package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// result is what came of a tier.
type result struct {
	name                    string
	passed, failed, skipped int
	elapsed                 time.Duration
	note                    string
	breakdown               []string // lines under the tier's row
	problems                []string // what to show when it failed, each with its own text
	log                     string   // path
	notRun                  bool
}

func failure(text string) result { return result{failed: 1, problems: []string{text}} }

// add takes another part of the same tier in.
func (r *result) add(o result) {
	r.passed, r.failed, r.skipped = r.passed+o.passed, r.failed+o.failed, r.skipped+o.skipped
	r.problems = append(r.problems, o.problems...)
	r.breakdown = append(r.breakdown, o.breakdown...)
	if o.note != "" {
		r.note = strings.TrimPrefix(r.note+", "+o.note, ", ")
	}
}

// job is one tier under way: its log, and where it tells how far it is.
type job struct {
	name   string
	marker string
	mu     sync.Mutex
	log    io.Writer // mu
	status func(string)
}

func (j *job) logf(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	fmt.Fprintf(j.log, format, args...)
}

// check runs one command as one test: it passes when it exits with 0.
func (j *job) check(ctx context.Context, name string, args ...string) result {
	return j.checkEnv(ctx, nil, name, args...)
}

func (j *job) checkEnv(ctx context.Context, env []string, name string, args ...string) result {
	text, err := j.output(ctx, env, name, args...)
	if err != nil {
		return failure(fmt.Sprintf("%s %s: %v\n%s", name, strings.Join(args, " "), err, tail(text, 400)))
	}
	return result{passed: 1}
}

// checkSilent is check for a command that complains by printing.
func (j *job) checkSilent(ctx context.Context, name string, args ...string) result {
	text, err := j.output(ctx, nil, name, args...)
	if err != nil || strings.TrimSpace(text) != "" {
		return failure(fmt.Sprintf("%s %s: %v\n%s", name, strings.Join(args, " "), err, tail(text, 400)))
	}
	return result{passed: 1}
}

// output runs a command, copies what it prints into the log and returns it.
func (j *job) output(ctx context.Context, env []string, name string, args ...string) (string, error) {
	j.status(name + " " + strings.Join(args, " "))
	j.logf("$ %s %s\n", name, strings.Join(args, " "))
	var text bytes.Buffer
	cmd := command(ctx, append(env, j.marker), name, args...)
	cmd.Stdout, cmd.Stderr = &text, &text
	err := cmd.Run()
	j.logf("%s", text.String())
	return text.String(), err
}

// command is a command in a process group of its own, without standard input,
// whose whole group is ended with ctx. Version control is not asked for a stamp:
// a clone may belong to another user.
func command(ctx context.Context, env []string, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...) // #nosec G204 -- the tiers' own commands
	cmd.Env = append(os.Environ(), "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -buildvcs=false"))
	cmd.Env = append(cmd.Env, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 10 * time.Second
	cmd.Cancel = func() error {
		group := -cmd.Process.Pid
		time.AfterFunc(cmd.WaitDelay, func() { _ = syscall.Kill(group, syscall.SIGKILL) })
		// Not SIGINT: a shell's background processes ignore it.
		return syscall.Kill(group, syscall.SIGTERM)
	}
	return cmd
}

// tail is the last n lines of text.
func tail(text string, n int) string {
	lines := strings.SplitAfter(text, "\n")
	if len(lines) <= n {
		return text
	}
	return fmt.Sprintf("[%d lines before this are in the log]\n", len(lines)-n) + strings.Join(lines[len(lines)-n:], "")
}
