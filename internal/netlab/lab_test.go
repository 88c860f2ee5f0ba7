package netlab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// root skips a test that needs privileges: the one reason to skip here.
func root(t *testing.T) context.Context {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func siteToSite(t *testing.T, o Options) *Topology {
	t.Helper()
	net, err := SiteToSite(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := net.Close(); err != nil {
			t.Error(err)
		}
	})
	return net
}

// pair is two nodes on one link, with 192.0.2.1 and .2, 2001:db8::1 and ::2.
func pair(t *testing.T) (a, b *Node) {
	t.Helper()
	l, err := New(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	a, b = must(l.Node("a"))(t), must(l.Node("b"))(t)
	check(t, l.Link(a, "eth0", b, "eth0", 0))
	for i, n := range []*Node{a, b} {
		check(t, n.AddAddr("eth0", netip.MustParsePrefix(fmt.Sprintf("192.0.2.%d/24", i+1))))
		check(t, n.AddAddr("eth0", netip.MustParsePrefix(fmt.Sprintf("2001:db8::%d/64", i+1))))
		check(t, n.OffloadsOff("eth0"))
	}
	return a, b
}

var (
	b4 = netip.MustParseAddr("192.0.2.2")
	b6 = netip.MustParseAddr("2001:db8::2")
)

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		check(t, err)
		return v
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// namespaces lists the network namespaces that the process's threads are in and
// that its descriptors hold.
func namespaces(t *testing.T) map[string]int {
	t.Helper()
	seen := make(map[string]int)
	for _, pattern := range []string{"/proc/self/task/*/ns/net", "/proc/self/fd/*"} {
		paths, err := filepath.Glob(pattern)
		check(t, err)
		for _, p := range paths {
			if target, err := os.Readlink(p); err == nil && strings.HasPrefix(target, "net:[") {
				seen[target]++
			}
		}
	}
	return seen
}

func TestRootNothingIsLeftAfterClose(t *testing.T) {
	root(t)
	before := namespaces(t)
	if len(before) != 1 {
		t.Fatalf("network namespaces before: %v, expected this process's own only", before)
	}
	net, err := SiteToSite(Options{})
	check(t, err)
	p, err := net.A.Gateway.Start(exec.Command("sleep", "600"))
	check(t, err)
	if n := len(namespaces(t)); n != 6 {
		t.Errorf("%d network namespaces with the lab open, expected 6", n)
	}
	check(t, net.Close())
	check(t, net.Close())
	after := namespaces(t)
	if len(after) != 1 {
		t.Errorf("network namespaces after: %v, before: %v", after, before)
	}
	if err := syscall.Kill(p.Pid(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d after Close: %v, expected %v", p.Pid(), err, syscall.ESRCH)
	}
	if _, err := net.Node("late"); err == nil {
		t.Error("a closed lab made a node")
	}
	if _, err := net.A.Gateway.Start(exec.Command("true")); err == nil {
		t.Error("a closed lab started a process")
	}
}

func TestRootDoComesBackAfterPanicAndNesting(t *testing.T) {
	root(t)
	a, b := pair(t)
	here := func() string { return must(os.Readlink(threadNamespace))(t) }
	home := here()
	var inA, inB, inAgain string
	check(t, a.Do(func() error {
		inA = here()
		err := b.Do(func() error { inB = here(); return nil })
		inAgain = here()
		return err
	}))
	if inA == home || inB == home || inA == inB || inA != inAgain {
		t.Errorf("namespaces: home %s, a %s, b inside a %s, a again %s", home, inA, inB, inAgain)
	}
	func() {
		defer func() { _ = recover() }()
		_ = a.Do(func() error { panic("on purpose") })
	}()
	if now := here(); now != home {
		t.Errorf("after a panic in %s, expected %s", now, home)
	}
	want := errors.New("on purpose")
	if err := a.Do(func() error { return want }); err != want {
		t.Errorf("Do returned %v, expected %v", err, want)
	}
}

func TestRootProcessesRunInsideTheNode(t *testing.T) {
	root(t)
	a, _ := pair(t)
	got := must(a.Run("readlink", "/proc/self/ns/net"))(t)
	var want string
	check(t, a.Do(func() error { want = must(os.Readlink(threadNamespace))(t); return nil }))
	if strings.TrimSpace(got) != want {
		t.Errorf("process in %s, expected %s", got, want)
	}
	if out := must(a.RunInput("words", "cat"))(t); out != "words" {
		t.Errorf("cat printed %q, expected %q", out, "words")
	}
	if _, err := a.Run("sh", "-c", "echo why >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "why") {
		t.Errorf("error %v, expected the program's words", err)
	}
	p, err := a.Start(exec.Command("sleep", "600"))
	check(t, err)
	if err := p.Stop(10 * time.Second); err == nil || !strings.Contains(err.Error(), "terminated") {
		t.Errorf("Stop: %v, expected terminated", err)
	}
}

func TestRootSiteToSiteReachesTheOtherGatewayAndNoLAN(t *testing.T) {
	ctx := root(t)
	net := siteToSite(t, Options{})
	for _, c := range []struct {
		name     string
		from     *Node
		dst      netip.Addr
		received int
		wait     time.Duration // silence takes it all
	}{
		{"host to its gateway", net.A.Host, net.A.Inside4, 2, 10 * time.Second},
		{"host to its gateway", net.A.Host, net.A.Inside6, 2, 10 * time.Second},
		{"gateway to gateway", net.A.Gateway, net.B.Outside4, 2, 10 * time.Second},
		{"gateway to gateway", net.B.Gateway, net.A.Outside6, 2, 10 * time.Second},
		{"host to host, in clear", net.A.Host, net.B.Host4, 0, 100 * time.Millisecond},
		{"host to host, in clear", net.A.Host, net.B.Host6, 0, 100 * time.Millisecond},
	} {
		s, err := Ping(ctx, c.from, PingOptions{Dst: c.dst, Count: 2, Timeout: c.wait})
		check(t, err)
		if s.Received != c.received || s.Sent != 2 || s.Mismatched != 0 {
			t.Errorf("%s, %s: %v; expected %d of 2", c.name, c.dst, s, c.received)
		}
	}
}

func TestRootMTUIsMet(t *testing.T) {
	ctx := root(t)
	net := siteToSite(t, Options{MTU: 1400})
	for _, dst := range []netip.Addr{net.B.Outside4, net.B.Outside6} {
		header := 28
		if dst.Is6() {
			header = 48
		}
		fits := must(Ping(ctx, net.A.Gateway, PingOptions{Dst: dst, Size: 1400 - header, DF: true}))(t)
		over := must(Ping(ctx, net.A.Gateway, PingOptions{Dst: dst, Size: 1401 - header, DF: true}))(t)
		if fits.Received != 1 {
			t.Errorf("%s, 1400 bytes: %v, expected an answer", dst, fits)
		}
		if over.Received != 0 || !errors.Is(over.LastError, syscall.EMSGSIZE) {
			t.Errorf("%s, 1401 bytes: %v, expected EMSGSIZE", dst, over)
		}
	}
	// From the host the LAN takes 1500 bytes and the gateway says "too big".
	check(t, net.Router.AddRoute(net.A.LAN4, net.A.Outside4))
	s := must(Ping(ctx, net.A.Host, PingOptions{Dst: net.B.Outside4, Size: 1400, DF: true, Count: 2, Timeout: 5 * time.Second}))(t)
	if s.Received != 0 || !errors.Is(s.LastError, syscall.EMSGSIZE) {
		t.Errorf("path MTU: %v, expected EMSGSIZE from the gateway's ICMP", s)
	}
}
