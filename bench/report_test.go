package bench

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestWireGuardIsTheVersionOfGoMod: the rival is the version whose tun package
// adit uses.
func TestWireGuardIsTheVersionOfGoMod(t *testing.T) {
	text, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if want := WireGuardModule + " " + WireGuardVersion; !strings.Contains(string(text), want) {
		t.Errorf("go.mod does not require %s", want)
	}
}

// TestResultsPutSystemsSideBySide: ratios are of the same round, and only where
// they say something.
func TestResultsPutSystemsSideBySide(t *testing.T) {
	run := tunnelRun{}
	for _, segmentation := range []string{"on", "off"} {
		for _, system := range []string{SystemAdit, SystemWireGuard, SystemStrongSwan} {
			c := &tunnelCell{test: tunnelTests[0], segmentation: segmentation, system: system}
			c.values = [][]float64{{6, 8, 40}, {1, 2, 3}, {0, 0, 4}}
			switch system {
			case SystemWireGuard:
				c.values = [][]float64{{3, 2, 4}, {4, 4, 4}, {1, 0, 0}}
			case SystemStrongSwan:
				c.values = [][]float64{{1, 0.5, 0.5}, {40, 40, 40}, {0, 0, 0}}
			}
			run.cells = append(run.cells, c)
		}
	}
	results := run.results()
	if len(results) != 2 || results[0].Segmentation != "on" || results[1].Segmentation != "off" || results[0].Test != "tcp1" {
		t.Fatalf("got %+v", results)
	}
	goodput, retransmits := results[1].Metrics[0], results[1].Metrics[2]
	if r := goodput.Ratios[SystemWireGuard]; r.Min != 2 || r.Median != 4 || r.Max != 10 {
		t.Errorf("ratio of goodput to wireguard-go: %+v, want 2, 4, 10", r)
	}
	if r := goodput.Ratios[SystemStrongSwan]; r.Min != 6 || r.Median != 16 || r.Max != 80 || len(goodput.Ratios) != 2 {
		t.Errorf("ratios of goodput: %+v, want 6, 16, 80 to strongswan, and none to others", goodput.Ratios)
	}
	if s := goodput.Systems[SystemWireGuard]; s.Median != 3 || s.Max != 4 {
		t.Errorf("the rival's goodput: %+v", s)
	}
	if retransmits.Ratios != nil {
		t.Errorf("a ratio of retransmits: %+v", retransmits.Ratios)
	}
}

// buildWireGuard builds the rival from the module of go.mod, so that tests need
// no network.
func buildWireGuard(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "wireguard-go")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", path, WireGuardModule)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building wireguard-go: %v: %s", err, out)
	}
	return path
}

// TestRootRivalsCarry: a rival's network carries every kind of traffic, its
// processor time is seen, and nothing is left.
func TestRootRivalsCarry(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root: run the unprivileged tier with -skip Root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	t.Run("wireguard-go", func(t *testing.T) {
		rivalCarries(ctx, t, NamespaceOptions{WireGuard: buildWireGuard(t), NoUDPSegmentation: true}, 2)
	})
	strongSwan := installedStrongSwan(ctx, t)
	for _, suite := range []string{"aes128gcm16", "aes128-sha256"} {
		t.Run("strongswan/"+suite, func(t *testing.T) {
			rivalCarries(ctx, t, NamespaceOptions{StrongSwan: strongSwan, Suite: suite, NoUDPSegmentation: true}, 0)
		})
	}
}

func rivalCarries(ctx context.Context, t *testing.T, o NamespaceOptions, leaves int) {
	n := namespaces(ctx, t, o)
	if p, err := n.Ping(ctx, 3); err != nil || p.Received != 3 {
		t.Errorf("ping: %s, %v", p, err)
	}
	if s, err := n.Streams(ctx, 2, 1, 100*time.Millisecond); err != nil || s.Bytes == 0 || s.CPU <= 0 || s.Took < 100*time.Millisecond {
		t.Errorf("TCP: %+v, %v", s, err)
	}
	if u, err := n.UDP(ctx, UDPLoad{Size: 1372, Rate: 5000, Duration: 100 * time.Millisecond}); err != nil || u.Received == 0 || u.CPU <= 0 {
		t.Errorf("UDP: %+v, %v", u, err)
	}
	dir, sockets := n.dir, n.sockets
	if err := n.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if len(sockets) != leaves {
		t.Errorf("sockets: %v, want %d", sockets, leaves)
	}
	for _, path := range append(sockets, dir) {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
}

// TestRootStreamsEndWithTheirContext: an interrupt does not wait for TCP.
func TestRootStreamsEndWithTheirContext(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root: run the unprivileged tier with -skip Root")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	n := namespaces(t.Context(), t, NamespaceOptions{})
	if m, err := n.Streams(ctx, 1, 1, time.Hour); err == nil {
		t.Errorf("got %+v without an error", m)
	}
}

// TestRootEndedGatewayIsNamed: where a gateway dies, the error says which, and
// what it said last.
func TestRootEndedGatewayIsNamed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root: run the unprivileged tier with -skip Root")
	}
	n, err := NewNamespaces(t.Context(), NamespaceOptions{Binary: buildGateway(t), Suite: "aes128gcm16"})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.ended(); err != nil {
		t.Errorf("both gateways run, and it says: %v", err)
	}
	n.gateways[1].Kill()
	<-n.gateways[1].Done()
	if err := n.ended(); err == nil || !strings.Contains(err.Error(), "the gateway in gwB has ended by itself (signal: killed)") || !strings.Contains(err.Error(), "ready") {
		t.Errorf("got %v", err)
	}
	if err := n.Close(); err == nil {
		t.Error("closing says nothing of the gateway that was killed")
	}
}
