package bench

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
)

// tunnelTest is a piece of work and the figures that come of it.
type tunnelTest struct {
	name    string
	rate    int // datagrams a second unless told otherwise; 0: no test of a fixed rate
	metrics []metricSpec
	run     func(ctx context.Context, c *tunnelCell, d time.Duration) ([]float64, error)
}

type metricSpec struct {
	name, unit, better string
	ratio              bool
}

func (m metricSpec) label() string { return strings.TrimSpace(m.unit + " " + m.name) }

// digits is how many digits behind the point are worth showing.
func (m metricSpec) digits(v float64) int {
	switch {
	case v >= 100 || v == float64(int64(v)):
		return 0
	case v >= 10:
		return 1
	}
	return 2
}

var (
	tcpMetrics = []metricSpec{
		{"goodput", "Gbit/s", "higher", true}, {"CPU", "s/GB", "lower", true}, {"retransmits", "", "lower", false},
	}
	udpMetrics = []metricSpec{
		{"delivered", "kpps", "higher", true}, {"CPU", "s/Mpacket", "lower", true},
		{"goodput", "Gbit/s", "higher", true}, {"loss", "%", "lower", false}, {"offered", "kpps", "higher", false},
	}
	// The same at a fixed rate: what everybody delivers is the rate.
	fixedMetrics = []metricSpec{
		{"CPU", "s/Mpacket", "lower", true}, {"loss", "%", "lower", false},
		{"delivered", "kpps", "higher", false}, {"offered", "kpps", "higher", false},
	}
	pingMetrics = []metricSpec{
		{"median", "µs", "lower", true}, {"p99", "µs", "lower", true}, {"lost", "", "lower", false},
	}
)

// The fixed rates are such that all systems carry them on two cores.
var tunnelTests = []tunnelTest{
	{"tcp1", 0, tcpMetrics, tcpTest(1, 0)},
	{"tcp4", 0, tcpMetrics, tcpTest(4, 0)},
	{"tcp-both", 0, tcpMetrics, tcpTest(1, 1)},
	{"udp64", 0, udpMetrics, udpTest(64)},
	{"udp512", 0, udpMetrics, udpTest(512)},
	{"udp1372", 0, udpMetrics, udpTest(1372)},
	{"udp64-fixed", 20000, fixedMetrics, fixedTest(64)},
	{"udp512-fixed", 20000, fixedMetrics, fixedTest(512)},
	{"udp1372-fixed", 10000, fixedMetrics, fixedTest(1372)},
	{"ping", 0, pingMetrics, pingTest},
}

// TunnelTests names the tests: TCP of one flow, of four, of one in each
// direction at once; UDP with so many bytes of payload, as fast as one sender
// can and at a fixed rate; pings 20 ms apart.
func TunnelTests() (names []string) {
	for _, t := range tunnelTests {
		names = append(names, t.name)
	}
	return names
}

// tunnelTestNamed is the test of that name, nil where there is none.
func tunnelTestNamed(name string) *tunnelTest {
	for i := range tunnelTests {
		if tunnelTests[i].name == name {
			return &tunnelTests[i]
		}
	}
	return nil
}

// rates are the datagrams a second of the tests of a fixed rate.
func (o *TunnelOptions) rates() map[string]int {
	rates := make(map[string]int)
	for _, name := range o.Tests {
		if rate := tunnelTestNamed(name).rate; rate > 0 {
			rates[name] = cmp.Or(o.Rate, rate)
		}
	}
	return rates
}

func tcpTest(forward, backward int) func(context.Context, *tunnelCell, time.Duration) ([]float64, error) {
	return func(ctx context.Context, c *tunnelCell, d time.Duration) ([]float64, error) {
		m, err := c.net.Streams(ctx, forward, backward, d)
		if err != nil {
			return nil, err
		}
		return []float64{m.BitsPerSecond() / 1e9, m.CPUSecondsPerGB(), float64(m.Retransmits)}, nil
	}
}

func udpTest(size int) func(context.Context, *tunnelCell, time.Duration) ([]float64, error) {
	return func(ctx context.Context, c *tunnelCell, d time.Duration) ([]float64, error) {
		m, err := c.net.UDP(ctx, UDPLoad{Size: size, Duration: d})
		if err != nil {
			return nil, err
		}
		return []float64{m.Delivered() / 1e3, m.CPUSecondsPerMillion(), m.BitsPerSecond() / 1e9, m.Loss() * 100, m.Offered() / 1e3}, nil
	}
}

func fixedTest(size int) func(context.Context, *tunnelCell, time.Duration) ([]float64, error) {
	return func(ctx context.Context, c *tunnelCell, d time.Duration) ([]float64, error) {
		m, err := c.net.UDP(ctx, UDPLoad{Size: size, Rate: c.rate, Duration: d})
		if err != nil {
			return nil, err
		}
		return []float64{m.CPUSecondsPerMillion(), m.Loss() * 100, m.Delivered() / 1e3, m.Offered() / 1e3}, nil
	}
}

// pingInterval is long enough for everything to fall asleep in between.
const pingInterval = 20 * time.Millisecond

func pingTest(ctx context.Context, c *tunnelCell, d time.Duration) ([]float64, error) {
	count := min(max(10, int(d/pingInterval)), 1<<16)
	s, err := netlab.Ping(ctx, c.net.net.A.Host, netlab.PingOptions{Dst: c.net.net.B.Host4, Count: count, Interval: pingInterval})
	if err != nil {
		return nil, err
	}
	if s.Received == 0 {
		return nil, fmt.Errorf("bench: ping: %s", s)
	}
	return []float64{us(s.Median), us(s.P99), float64(s.Lost())}, nil
}

func us(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
