// Package mtu holds what becomes of long packets in namespaces: the real binary,
// the kernel's TUN and routers, and paths that take less than was thought.
package mtu

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

func TestMain(m *testing.M) { os.Exit(gatewaytest.Main(m)) }

func root(t *testing.T) context.Context {
	t.Helper()
	return gatewaytest.Root(t, 60*time.Second)
}

// path is what a gateway says of its outbound SA's path.
type path struct {
	Direction     string `json:"direction"`
	PathMtu       int    `json:"path_mtu"`
	PathMtuSource string `json:"path_mtu_source"`
	InnerMtu      int    `json:"inner_mtu"`
	LinkMtu       int    `json:"link_mtu"`
}

func pathOf(t *testing.T, gw *gatewaytest.Gateway) path {
	t.Helper()
	out, err := gw.Command("sa", "list", "--json")
	if err != nil {
		t.Fatalf("adit sa list: %v: %s", err, out)
	}
	var list struct{ Sas []path }
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, sa := range list.Sas {
		if sa.Direction == "out" {
			return sa
		}
	}
	t.Fatalf("no outbound SA: %s", out)
	return path{}
}

// eventually waits until the path is as wanted.
func eventually(t *testing.T, gw *gatewaytest.Gateway, want string, ok func(path) bool) path {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		is := pathOf(t, gw)
		if ok(is) {
			return is
		}
		if time.Now().After(deadline) {
			t.Fatalf("the path: expected %s, saw %+v\n%v", want, is, gw.Counters())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// swallow makes the router drop what is longer, and say nothing.
func swallow(p *gatewaytest.Pair, mtu int) error {
	return p.Router.NFT(fmt.Sprintf("table inet swallow {\n chain c {\n type filter hook forward priority 0; policy accept;\n meta length > %d drop\n }\n}\n", mtu))
}

// mute makes the router send no ICMP errors.
func mute(p *gatewaytest.Pair) error {
	return p.Router.NFT("table inet mute {\n chain c {\n type filter hook output priority 0; policy accept;\n icmp type destination-unreachable drop\n icmpv6 type packet-too-big drop\n }\n}\n")
}

// narrow lowers the MTU of the link from the router to site B.
func narrow(p *gatewaytest.Pair, mtu int) error {
	return p.Router.SetMTU(p.B.RouterIface, mtu)
}

// goesOn sends TCP from A to B, lets change happen in the middle, and returns the
// longest time in which nothing arrived from then on, until much more has.
func goesOn(ctx context.Context, t *testing.T, p *gatewaytest.Pair, to netip.Addr, change func() error) time.Duration {
	t.Helper()
	const before, behind = 4 << 20, 12 << 20
	ctx, enough := context.WithCancel(ctx)
	defer enough()
	var progress atomic.Int64
	type outcome struct {
		r   netlab.TransferResult
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		r, err := netlab.TCPTransfer(ctx, p.A.Host, p.B.Host, netlab.TransferOptions{To: netip.AddrPortFrom(to, 0), Bytes: 64 << 30, Progress: &progress})
		done <- outcome{r, err}
	}()
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	var worst time.Duration
	last, goal := int64(0), int64(0)
	var since time.Time
	for goal == 0 || last < goal {
		select {
		case o := <-done:
			t.Fatalf("to %s: over after %d bytes: %v", to, o.r.Bytes, o.err)
		case <-poll.C:
		}
		n := progress.Load()
		if goal == 0 && n >= before {
			if err := change(); err != nil {
				t.Fatal(err)
			}
			n = progress.Load()
			last, goal, since = n, n+behind, time.Now()
		}
		if goal > 0 {
			worst = max(worst, time.Since(since))
			if n != last {
				last, since = n, time.Now()
			}
		}
	}
	enough()
	if o := <-done; o.r.Difference != nil {
		t.Errorf("to %s: %s", to, o.r.Difference)
	}
	return worst
}

// stall is how long TCP may stand still when its path becomes narrow.
const stall = 2 * time.Second

// inners are the two hosts of site B.
func inners(p *gatewaytest.Pair) map[string]netip.Addr {
	return map[string]netip.Addr{"IPv4": p.B.Host4, "IPv6": p.B.Host6}
}

// A router says so when the path becomes narrow in the middle of a transfer: both
// families inside and outside, both encapsulations.
func TestRootTCPGoesOnWhenThePathBecomesNarrow(t *testing.T) {
	for _, o := range []gatewaytest.Options{{}, {Raw: true}, {OuterV6: true}} {
		for _, inner := range []string{"IPv4", "IPv6"} {
			t.Run(fmt.Sprintf("raw=%v outer6=%v %s", o.Raw, o.OuterV6, inner), func(t *testing.T) {
				ctx := root(t)
				p := gatewaytest.NewPair(t, o)
				p.Start()
				worst := goesOn(ctx, t, p, inners(p)[inner], func() error { return narrow(p, 1300) })
				if worst > stall {
					t.Errorf("nothing for %s\nA: %v", worst, p.GatewayA.Counters())
				}
				// IPv6 over IPv4 goes on in fragments at once, and nobody says
				// so until something with DF is sent: a probe, beside long
				// packets.
				is := eventually(t, p.GatewayA, "1280 to 1300", func(is path) bool {
					_, _ = netlab.Ping(ctx, p.A.Host, netlab.PingOptions{Dst: inners(p)[inner], Size: 1000})
					return is.PathMtu >= 1280 && is.PathMtu <= 1300
				})
				if n := p.GatewayA.Counters()["InICMPTooBig"]; n == 0 {
					t.Errorf("no ICMP was believed: %v", p.GatewayA.Counters())
				}
				t.Logf("stood still for %s; %+v", worst, is)
			})
		}
	}
}

// The same where nobody says so: all ICMP is dropped, or the router swallows what
// is long, with DF or without; and where what is said is not believed.
func TestRootTCPGoesOnInABlackHole(t *testing.T) {
	const ignored = "ignored ICMP"
	for _, c := range []struct {
		name   string
		inner  string
		o      gatewaytest.Options
		change func(*gatewaytest.Pair) error
	}{
		{"swallowed", "IPv4", gatewaytest.Options{}, func(p *gatewaytest.Pair) error { return swallow(p, 1300) }},
		{"swallowed, raw", "IPv4", gatewaytest.Options{Raw: true}, func(p *gatewaytest.Pair) error { return swallow(p, 1300) }},
		{"swallowed, over IPv6", "IPv4", gatewaytest.Options{OuterV6: true}, func(p *gatewaytest.Pair) error { return swallow(p, 1300) }},
		{"no ICMP", "IPv4", gatewaytest.Options{}, func(p *gatewaytest.Pair) error { return narrow(p, 1300) }},
		{"no ICMP", "IPv6", gatewaytest.Options{}, func(p *gatewaytest.Pair) error { return narrow(p, 1300) }},
		{ignored, "IPv4", gatewaytest.Options{Top: "icmp: {path_mtu: ignore}"}, func(p *gatewaytest.Pair) error { return narrow(p, 1300) }},
	} {
		t.Run(c.name+" "+c.inner, func(t *testing.T) {
			ctx := root(t)
			p := gatewaytest.NewPair(t, c.o)
			if c.name != ignored {
				if err := mute(p); err != nil {
					t.Fatal(err)
				}
			}
			p.Start()
			worst := goesOn(ctx, t, p, inners(p)[c.inner], func() error { return c.change(p) })
			if worst > stall {
				t.Errorf("nothing for %s\nA: %v", worst, p.GatewayA.Counters())
			}
			is := pathOf(t, p.GatewayA)
			// IPv6 leaves with DF clear: it goes on in fragments at once, and the
			// transfer may be over before the probes have found out.
			if c.inner == "IPv4" && (is.PathMtu > 1300 || is.PathMtu < 1280 || is.PathMtuSource != "probe") {
				t.Errorf("the path: %+v\n%v", is, p.GatewayA.Counters())
			}
			if n := p.GatewayA.Counters()["InICMPTooBig"]; n != 0 {
				t.Errorf("%d ICMP messages were believed", n)
			}
			t.Logf("stood still for %s; %+v", worst, is)
		})
	}
}
