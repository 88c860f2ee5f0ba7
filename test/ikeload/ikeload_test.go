// Package ikeload holds what two gateways that negotiate keep up under load: rekeys
// by the thousand, first packets of a thousand flows at once, responder-only ends,
// kills, and floods of strangers. They are the real binary, with its sockets and its
// TUN in namespaces, asked over its control socket.
//
// The root tier runs each in seconds. `make ikeload` runs the whole figures:
//
//	go test ./test/ikeload -full -progress 10s -report ikeload.json -timeout 2h
package ikeload

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/test/gatewaytest"
)

var (
	full     = flag.Bool("full", false, "the whole figures: an hour of an idle machine at most")
	progress = flag.Duration("progress", 0, "write a line to standard error this often; 0: none")
	report   = flag.String("report", "", "write the results to this file, as JSON")
	rate     = flag.Int("rate", 0, "datagrams a second, each way, under rekeys; 0: half of what the pair carries")
)

// results is what -report writes: by test, each with figures of its own.
var results = struct {
	sync.Mutex
	Full  bool           `json:"full"`
	Tests map[string]any `json:"tests"`
}{Tests: map[string]any{}}

func TestMain(m *testing.M) {
	flag.Parse()
	code := gatewaytest.Main(m)
	if *report != "" {
		results.Full = *full
		b, err := json.MarshalIndent(&results, "", "  ")
		if err == nil {
			err = os.WriteFile(*report, append(b, '\n'), 0o644)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// figures prints what a test has measured, and keeps it for the report.
func figures(t *testing.T, of any) {
	t.Helper()
	b, err := json.Marshal(of)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", b)
	results.Lock()
	defer results.Unlock()
	results.Tests[t.Name()] = of
}

// scaled is the short figure, or with -full the whole one.
func scaled[T any](short, whole T) T {
	if *full {
		return whole
	}
	return short
}

// root bounds a test that needs namespaces; an interrupt ends it too, and what it
// has built goes.
func root(t *testing.T, short, whole time.Duration) context.Context {
	t.Helper()
	if os.Geteuid() != 0 && *progress > 0 { // asked for by a person
		t.Fatal("needs root: namespaces")
	}
	ctx, stop := signal.NotifyContext(gatewaytest.Root(t, scaled(short, whole)), syscall.SIGINT, syscall.SIGTERM)
	t.Cleanup(stop)
	return ctx
}

// say writes how a test goes on, every -progress.
func say(ctx context.Context, t *testing.T, line func() string) {
	if *progress == 0 {
		return
	}
	go func() {
		var out io.Writer = os.Stderr
		tick := time.NewTicker(*progress)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				_, _ = fmt.Fprintf(out, "%s: %s\n", t.Name(), line())
			}
		}
	}()
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// eventually polls until f holds, or limit is over.
func eventually(ctx context.Context, limit time.Duration, f func() bool) bool {
	for deadline := time.Now().Add(limit); ; time.Sleep(2 * time.Millisecond) {
		switch {
		case f():
			return true
		case ctx.Err() != nil || time.Now().After(deadline):
			return false
		}
	}
}

// milliseconds is a duration as the report has it.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func progressOf(done, total int) string { return fmt.Sprintf("%d of %d", done, total) }
