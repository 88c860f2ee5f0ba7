package gatewaytest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
)

var binary struct {
	once sync.Once
	dir  string
	err  error
}

// Main runs a package's tests and removes the binary at the end: call it as
// os.Exit(gatewaytest.Main(m)) from TestMain.
func Main(m *testing.M) int {
	defer func() {
		if binary.dir != "" {
			_ = os.RemoveAll(binary.dir)
		}
	}()
	return m.Run()
}

// Root skips a test that needs namespaces and may not make any, and otherwise
// bounds it: the context ends after limit, or with the test.
func Root(t testing.TB, limit time.Duration) context.Context {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: namespaces")
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

// Binary is the path of the adit binary, built on first use.
func Binary(t testing.TB) string {
	t.Helper()
	binary.once.Do(func() {
		if binary.dir, binary.err = os.MkdirTemp("", "adit-test-"); binary.err != nil {
			return
		}
		out, err := exec.Command("go", "build", "-o", filepath.Join(binary.dir, "adit"), "github.com/adit-ipsec/adit/cmd/adit").CombinedOutput()
		if err != nil {
			binary.err = fmt.Errorf("%w: %s", err, out)
		}
	})
	if binary.err != nil {
		t.Fatalf("building adit: %v", binary.err)
	}
	return filepath.Join(binary.dir, "adit")
}

// Gateway is one `adit run` in a node.
type Gateway struct {
	t       testing.TB
	node    *netlab.Node
	binary  string
	config  string
	Control string // the control socket
	State   string // the state directory
	process *netlab.Process
	log     *LogBuffer
}

// New writes the configuration text, in which $STATE and $CONTROL stand for the
// state directory and the control socket, into a directory of its own. Nothing
// runs before Start.
func New(t testing.TB, node *netlab.Node, text string) *Gateway {
	t.Helper()
	dir := t.TempDir()
	g := &Gateway{
		t: t, node: node, binary: Binary(t),
		config: filepath.Join(dir, "adit.yaml"), Control: filepath.Join(dir, "adit.sock"), State: filepath.Join(dir, "state"),
	}
	g.Configure(text)
	return g
}

// Configure replaces the configuration file; a running gateway reads it again
// at SIGHUP.
func (g *Gateway) Configure(text string) {
	g.t.Helper()
	text = strings.NewReplacer("$STATE", g.State, "$CONTROL", g.Control).Replace(text)
	if err := os.WriteFile(g.config, []byte(text), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

// Start runs the gateway until the test ends, and waits until it is up.
func (g *Gateway) Start() {
	g.t.Helper()
	g.Launch()
	if out, err := g.Command("status", "--wait", "20s"); err != nil {
		g.t.Fatalf("the gateway in %s did not come up: %v\n%s\nits log:\n%s", g.node.Name(), err, out, g.Log())
	}
}

// Launch is Start without waiting.
func (g *Gateway) Launch() {
	g.t.Helper()
	g.log = &LogBuffer{}
	cmd := exec.Command(g.binary, "run", "-c", g.config, "--log-level", "debug")
	cmd.Stdout, cmd.Stderr = g.log, g.log
	process, err := g.node.Start(cmd)
	if err != nil {
		g.t.Fatal(err)
	}
	g.process = process
	log := g.log
	g.t.Cleanup(func() {
		process.Kill()
		<-process.Done()
		if strings.Contains(log.String(), "panic_recovered") {
			g.t.Errorf("the gateway in %s has recovered from a panic; its log:\n%s", g.node.Name(), log)
		}
	})
}

// Process is the running process.
func (g *Gateway) Process() *netlab.Process { return g.process }

// Log is what the gateway has written so far.
func (g *Gateway) Log() string { return g.log.String() }

// Kill ends the gateway with SIGKILL and waits until it is gone.
func (g *Gateway) Kill() {
	g.process.Kill()
	<-g.process.Done()
}

// Stop ends the gateway with SIGTERM and fails the test unless it exits with 0.
func (g *Gateway) Stop() {
	g.t.Helper()
	if err := g.process.Stop(20 * time.Second); err != nil {
		g.t.Errorf("the gateway in %s: exit after SIGTERM: expected 0, saw %v\nits log:\n%s", g.node.Name(), err, g.Log())
	}
}

// Command runs an adit command against this gateway and returns what it
// printed.
func (g *Gateway) Command(args ...string) (string, error) {
	cmd := exec.Command(g.binary, append(args, "--control", g.Control)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Counters are the gateway's counters by their JSON names.
func (g *Gateway) Counters() map[string]uint64 {
	g.t.Helper()
	out, err := g.Command("counters", "--json")
	if err != nil {
		g.t.Fatalf("adit counters: %v: %s", err, out)
	}
	counters, err := flatten([]byte(out))
	if err != nil {
		g.t.Fatalf("adit counters --json: %v: %s", err, out)
	}
	return counters
}

// flatten collects every number of a JSON document under its own key, and every
// {name, value} object under its name.
func flatten(doc []byte) (map[string]uint64, error) {
	var v any
	decoder := json.NewDecoder(bytes.NewReader(doc))
	decoder.UseNumber()
	if err := decoder.Decode(&v); err != nil {
		return nil, err
	}
	all := map[string]uint64{}
	var walk func(key string, v any)
	number := func(v any) (n uint64, ok bool) {
		text := fmt.Sprint(v)
		_, err := fmt.Sscan(text, &n)
		return n, err == nil
	}
	walk = func(key string, v any) {
		switch v := v.(type) {
		case map[string]any:
			if name, ok := v["name"].(string); ok {
				if n, ok := number(v["value"]); ok {
					all[name] = n
				}
			}
			for k, inner := range v {
				walk(k, inner)
			}
		case []any:
			for _, inner := range v {
				walk(key, inner)
			}
		default:
			if n, ok := number(v); ok && key != "value" {
				all[key] = n
			}
		}
	}
	walk("", v)
	return all, nil
}

// LogBuffer is what a process writes and a test reads meanwhile.
type LogBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write is for the process.
func (l *LogBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// String is all that was written.
func (l *LogBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
