package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
)

// TestRootOuterPacketsNeverLoopIntoTheTUN: the peer lies inside the protected
// prefix, or everything is protected.
func TestRootOuterPacketsNeverLoopIntoTheTUN(t *testing.T) {
	for name, remote := range map[string][]string{
		"the peer's network is protected": {"10.2.0.0/24", "2001:db8:b::/64", "198.51.100.0/24"},
		"everything is protected":         {"0.0.0.0/0", "::/0"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSites(t, "aes256-sha256", "udp")
			before := hostState(t, s.A.Gateway)
			s.a.Remote, s.b.Local = remote, remote
			for _, site := range []*demoSite{&s.a, &s.b} {
				if err := site.write(); err != nil {
					t.Fatal(err)
				}
			}
			wire, err := s.Router.Capture(netlab.CaptureOptions{Iface: s.A.RouterIface, Keep: -1})
			if err != nil {
				t.Fatal(err)
			}
			defer wire.Close()
			a, b := s.start(t, s.A.Gateway, &s.a), s.start(t, s.B.Gateway, &s.b)
			s.mustPing(t, name, a, b)
			if stats := s.ping(t, s.B.Outside4); stats.Received != stats.Sent {
				t.Errorf("ping the peer's own outside address through the tunnel: %s", stats)
			}
			a.stop(t)
			b.stop(t)
			if summary := wire.Summary(); !summary.OnlyProtected() {
				t.Errorf("the wire saw %s", summary)
			}
			if after := hostState(t, s.A.Gateway); after != before {
				t.Errorf("the host before:\n%s\nand after:\n%s", before, after)
			}
		})
	}
}

// TestRootBypassLeavesInClearAndIsCounted: a policy says so, status says so too.
func TestRootBypassLeavesInClearAndIsCounted(t *testing.T) {
	s := newSites(t, "aes128gcm16", "udp")
	s.a.Remote = append(s.a.Remote, "198.51.100.0/24")
	if err := s.a.write(); err != nil {
		t.Fatal(err)
	}
	rewrite(t, s.a.File, "policies:\n", "policies:\n  - {name: echo, local: [any], remote: [198.51.100.0/24], protocol: icmp, action: bypass}\n")
	a := s.start(t, s.A.Gateway, &s.a)
	stats, err := netlab.Ping(t.Context(), s.A.Gateway, netlab.PingOptions{Dst: s.B.Outside4, Src: s.A.Outside4, Count: 3})
	if err != nil || stats.Received != 3 {
		t.Errorf("ping in clear: %s, %v\n%s", stats, err, a.log)
	}
	stdout, _, _ := adit(t, "status", "-c", s.a.File)
	for _, want := range []string{"of which in CLEAR by bypass: echo", "3 packets out in clear by bypass"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("status does not say %q:\n%s", want, stdout)
		}
	}
	a.stop(t)
}

// TestRootSystemdHearsReadyReloadWatchdogAndStop listens where systemd would.
func TestRootSystemdHearsReadyReloadWatchdogAndStop(t *testing.T) {
	s := newSites(t, "aes128gcm16", "udp")
	path := filepath.Join(s.dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := &running{log: &lockedBuffer{}}
	cmd := program(t, "run", "-c", s.a.File)
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=100000")
	cmd.Stdout, cmd.Stderr = r.log, r.log
	if r.Process, err = s.A.Gateway.Start(cmd); err != nil {
		t.Fatal(err)
	}
	hear := func(want string) {
		t.Helper()
		buf := make([]byte, 1024)
		if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		for {
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatalf("waiting for %s: %v\n%s", want, err, r.log)
			}
			if got := string(buf[:n]); strings.HasPrefix(got, want) {
				return
			} else if got != notifyWatchdog {
				t.Fatalf("heard %q, want %s", got, want)
			}
		}
	}
	hear("READY=1")
	// Ready means ready: the gateway answers, and all its SAs are up.
	if stdout, stderr, _ := adit(t, "status", "--json", "-c", s.a.File); !strings.Contains(stdout, `"ready": true`) {
		t.Errorf("READY=1, and status says %s%s", stdout, stderr)
	}
	hear("WATCHDOG=1")
	if err := r.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	hear("RELOADING=1\nMONOTONIC_USEC=")
	hear("READY=1")
	if err := r.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	hear("STOPPING=1")
	if err := r.Wait(); err != nil {
		t.Errorf("%v\n%s", err, r.log)
	}
}

// TestSecondSignalEndsAtOnce: the orderly stop hangs, and the operator insists.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	g := &gateway{log: slog.New(slog.DiscardHandler)}
	g.defers(func() error { <-hang; return nil })
	signals := make(chan os.Signal, 2)
	signals <- syscall.SIGHUP // not a second stop
	signals <- syscall.SIGINT
	if err := g.orderlyStop("terminated", signals); err == nil || !strings.Contains(err.Error(), "second interrupt") {
		t.Errorf("got %v", err)
	}
}

// TestStopUndoesInReverseAndOnce holds gateway.stop.
func TestStopUndoesInReverseAndOnce(t *testing.T) {
	var order []int
	g := &gateway{}
	for i := range 3 {
		g.defers(func() error {
			order = append(order, i)
			if i == 1 {
				return errors.New("one fails")
			}
			return nil
		})
	}
	if err := g.stop(); err == nil || fmt.Sprint(order) != "[2 1 0]" {
		t.Errorf("order %v, error %v", order, err)
	}
	if err := g.stop(); err != nil || len(order) != 3 {
		t.Errorf("the second stop: order %v, error %v", order, err)
	}
}
