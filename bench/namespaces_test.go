package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// measured is how long one measurement of the namespaces rung is meant to take.
// How much work that is, a short run before it finds out.
const measured = 2 * time.Second

// BenchmarkTwoGatewaysInNamespaces carries TCP, UDP and pings from host to host
// through two real gateways, and through clear routes for comparison. It needs
// root. One iteration is one measurement of about two seconds, so that
// -benchtime=1x is enough.
func BenchmarkTwoGatewaysInNamespaces(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root: namespaces")
	}
	binary := buildGateway(b)
	for _, v := range []struct {
		name string
		o    NamespaceOptions
	}{
		{"clear", NamespaceOptions{}},
		{"clear/offloads=off", NamespaceOptions{NoOffloads: true}},
		{"aes128gcm16/over=udp", NamespaceOptions{Binary: binary, Suite: "aes128gcm16"}},
		{"aes128gcm16/over=udp/segmentation=off", NamespaceOptions{Binary: binary, Suite: "aes128gcm16", NoUDPSegmentation: true}},
		{"aes128gcm16/over=50", NamespaceOptions{Binary: binary, Suite: "aes128gcm16", Raw: true}},
		{"aes128-sha256/over=udp", NamespaceOptions{Binary: binary, Suite: "aes128-sha256"}},
	} {
		b.Run(v.name, func(b *testing.B) { benchmarkNamespaces(b, v.o) })
	}
}

func benchmarkNamespaces(b *testing.B, o NamespaceOptions) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	b.Cleanup(cancel)
	n := namespaces(ctx, b, o)
	b.Run("tcp", func(b *testing.B) { benchmarkTCP(ctx, b, n) })
	for _, size := range []int{64, 1372} {
		b.Run(fmt.Sprintf("udp%d", size), func(b *testing.B) { benchmarkUDP(ctx, b, n, size) })
	}
	b.Run("ping", func(b *testing.B) { benchmarkPing(ctx, b, n) })
}

func namespaces(ctx context.Context, t testing.TB, o NamespaceOptions) *Namespaces {
	t.Helper()
	n, err := NewNamespaces(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("closing the network: %v", err)
		}
	})
	return n
}

// buildGateway builds the adit program as `make build` does.
func buildGateway(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "adit")
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", path, "github.com/adit-ipsec/adit/cmd/adit")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building adit: %v: %s", err, out)
	}
	return path
}

func benchmarkTCP(ctx context.Context, b *testing.B, n *Namespaces) {
	const probe = 32 << 20
	m, err := n.TCP(ctx, probe)
	if err != nil {
		b.Fatal(err)
	}
	bytes := max(probe, int64(m.BitsPerSecond()/8*measured.Seconds()))
	var sum Measured
	for b.Loop() {
		m, err := n.TCP(ctx, bytes)
		if err != nil {
			b.Fatal(err)
		}
		sum.add(m)
	}
	sum.report(b, n)
	b.ReportMetric(sum.BitsPerSecond()/1e9, "Gbit/s")
}

func benchmarkUDP(ctx context.Context, b *testing.B, n *Namespaces, size int) {
	var sum MeasuredUDP
	for b.Loop() {
		m, err := n.UDP(ctx, UDPLoad{Size: size, Duration: measured})
		if err != nil {
			b.Fatal(err)
		}
		sum.add(m.Measured)
		sum.Sent, sum.Received, sum.Sending = sum.Sent+m.Sent, sum.Received+m.Received, sum.Sending+m.Sending
	}
	sum.report(b, n)
	b.ReportMetric(sum.BitsPerSecond()/1e9, "Gbit/s")
	b.ReportMetric(sum.Offered()/1e3, "offered-kpps")
	b.ReportMetric(sum.Delivered()/1e3, "delivered-kpps")
	b.ReportMetric(sum.Loss()*100, "loss-%")
}

func benchmarkPing(ctx context.Context, b *testing.B, n *Namespaces) {
	const count = 5000
	var median, p99 time.Duration
	rounds := 0
	for b.Loop() {
		s, err := n.Ping(ctx, count)
		if err != nil {
			b.Fatal(err)
		}
		median, p99, rounds = median+s.Median, p99+s.P99, rounds+1
	}
	us := func(d time.Duration) float64 { return float64(d) / float64(rounds) / 1e3 }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(us(median), "median-µs")
	b.ReportMetric(us(p99), "p99-µs")
}

func (m *Measured) add(other Measured) {
	m.Bytes, m.Took, m.CPU = m.Bytes+other.Bytes, m.Took+other.Took, m.CPU+other.CPU
}

// report leaves out the time of an iteration, which says how much work the
// measurement chose.
func (m *Measured) report(b *testing.B, n *Namespaces) {
	b.ReportMetric(0, "ns/op")
	if len(n.gateways) > 0 {
		b.ReportMetric(m.CPUSecondsPerGB(), "CPU-s/GB")
	}
}

// The rung's own test: each kind of network carries each kind of traffic, the
// gateways' processor time is seen, and nothing is left.
func TestRootNamespacesCarryAndCountProcessorTime(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: namespaces")
	}
	binary := buildGateway(t)
	for name, o := range map[string]NamespaceOptions{
		"clear":    {},
		"udp":      {Binary: binary, Suite: "aes128gcm16", NoUDPSegmentation: true},
		"protocol": {Binary: binary, Suite: "aes128-sha256", Raw: true, NoOffloads: true},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			n := namespaces(ctx, t, o)
			tcp, err := n.TCP(ctx, 8<<20)
			if err != nil || tcp.Bytes != 8<<20 || tcp.Took <= 0 || (tcp.CPU > 0) != (o.Binary != "") {
				t.Errorf("TCP: %v, %+v: expected %d bytes, processor time %v", err, tcp, 8<<20, o.Binary != "")
			}
			udp, err := n.UDP(ctx, UDPLoad{Size: 1372, Rate: 5000, Duration: 100 * time.Millisecond})
			if err != nil || udp.Sent == 0 || udp.Sent > 500 || udp.Received == 0 || udp.Bytes != int64(udp.Received)*1372 {
				t.Errorf("UDP: %v, %+v: expected at most 500 sent", err, udp)
			}
			if ping, err := n.Ping(ctx, 5); err != nil || ping.Median <= 0 {
				t.Errorf("ping: %v, %s", err, ping)
			}
			dir := n.dir
			if err := n.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			if _, err := os.Stat(dir); dir != "" && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left: %v", dir, err)
			}
		})
	}
}
