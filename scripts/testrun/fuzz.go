package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// fuzz runs every target for opt.fuzzTime, as many at once as there are lanes,
// each with one worker. A target is one test.
func (o *options) fuzz(tests []testFunc) func(context.Context, *job) result {
	return func(ctx context.Context, j *job) result {
		todo := make(chan testFunc)
		var mu sync.Mutex
		var total result
		var execs uint64
		var done int
		var wg sync.WaitGroup
		for range lanes {
			wg.Go(func() {
				for t := range todo {
					r, n := o.fuzzOne(ctx, j, t)
					mu.Lock()
					total.add(r)
					execs, done = execs+n, done+1
					j.status(fmt.Sprintf("%d targets, %s executions", done, thousands(execs)))
					mu.Unlock()
				}
			})
		}
		for _, t := range tests {
			if fuzzes(t) {
				todo <- t
			}
		}
		close(todo)
		wg.Wait()
		total.note = thousands(execs) + " executions"
		return total
	}
}

func (o *options) fuzzOne(ctx context.Context, j *job, t testFunc) (result, uint64) {
	limit := o.fuzzTime + 3*time.Minute // the build and the corpus come on top
	ctx, cancel := context.WithTimeout(ctx, limit+time.Minute)
	defer cancel()
	// An input that is only interesting is not made smaller, which may take all the time
	// and ends in the middle of it at the bell; one that fails is small enough to read.
	args := []string{"test", "-run=^$", "-fuzz=^" + t.name + "$", "-fuzztime=" + o.fuzzTime.String(), "-fuzzminimizetime=1x", "-parallel=1", "-timeout=" + limit.String(), "./" + t.dir}
	text, err := j.output(ctx, nil, "go", args...)
	if err != nil && stoppedAtTheBell(text) {
		j.logf("the fuzzer was stopped in the middle of an input when its time was over; once more\n")
		text, err = j.output(ctx, nil, "go", args...)
	}
	n := executions(text)
	switch {
	case err != nil:
		return failure(fmt.Sprintf("%s in %s: %v\n%s", t.name, t.dir, err, tail(text, 200))), n
	case n == 0:
		return failure(fmt.Sprintf("%s in %s executed nothing\n%s", t.name, t.dir, tail(text, 200))), n
	}
	return result{passed: 1}, n
}

// stoppedAtTheBell: the only thing wrong is the go command's own deadline, which
// sometimes ends a worker inside an input (go.dev/issue/75804, until Go 1.27): no failing
// input was found.
func stoppedAtTheBell(text string) bool {
	return strings.Contains(text, "context deadline exceeded") && !strings.Contains(text, "Failing input written")
}

var execsLine = regexp.MustCompile(`execs: (\d+)`)

// executions is the last count that the fuzzer printed.
func executions(text string) uint64 {
	all := execsLine.FindAllStringSubmatch(text, -1)
	if len(all) == 0 {
		return 0
	}
	n, err := strconv.ParseUint(all[len(all)-1][1], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// thousands writes 1234567 as 1 234 567.
func thousands(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}
