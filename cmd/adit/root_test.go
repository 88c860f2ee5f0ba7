package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/netlab"
)

// sites is a lab with a configuration for each gateway.
type sites struct {
	*netlab.Topology
	dir  string
	a, b demoSite
}

func newSites(t *testing.T, suite, encap string) *sites {
	t.Helper()
	return newSitesOn(t, netlab.Options{}, suite, encap)
}

func newSitesOn(t *testing.T, options netlab.Options, suite, encap string) *sites {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: run the unprivileged tier with -skip Root")
	}
	options.Name = t.Name()
	network, err := netlab.SiteToSite(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := network.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &sites{Topology: network, dir: t.TempDir()}
	if s.a, s.b, err = demoSites(s.dir, suite, encap); err != nil {
		t.Fatal(err)
	}
	place(&s.a, &network.A, &network.B)
	place(&s.b, &network.B, &network.A)
	for _, site := range []*demoSite{&s.a, &s.b} {
		if err := site.write(); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// running is `adit run` in a node.
type running struct {
	*netlab.Process
	log *lockedBuffer
}

// start starts a gateway and waits with `adit status --wait` until it is up.
func (s *sites) start(t *testing.T, node *netlab.Node, site *demoSite) *running {
	t.Helper()
	r := s.launch(t, node, "run", "-c", site.File, "--log-level", "debug")
	stdout, stderr, code := adit(t, "status", "--wait", "20s", "-c", site.File)
	if code != exitDone {
		t.Fatalf("gateway %s is not up: %s%s\nits log:\n%s", site.Name, stdout, stderr, r.log)
	}
	return r
}

func (s *sites) launch(t *testing.T, node *netlab.Node, args ...string) *running {
	t.Helper()
	r := &running{log: &lockedBuffer{}}
	cmd := program(t, args...)
	cmd.Stdout, cmd.Stderr = r.log, r.log
	var err error
	if r.Process, err = node.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Kill()
		<-r.Done()
	})
	return r
}

// stop ends the gateway with SIGTERM.
func (r *running) stop(t *testing.T) {
	t.Helper()
	if err := r.Stop(10 * time.Second); err != nil {
		t.Errorf("after SIGTERM: %v\nlog:\n%s", err, r.log)
	}
}

func (s *sites) ping(t *testing.T, dst netip.Addr) netlab.PingStats {
	t.Helper()
	stats, err := netlab.Ping(t.Context(), s.A.Host, netlab.PingOptions{Dst: dst, Count: 2, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return stats
}

func (s *sites) mustPing(t *testing.T, when string, logs ...*running) {
	t.Helper()
	for _, dst := range []netip.Addr{s.B.Host4, s.B.Host6} {
		if stats := s.ping(t, dst); stats.Received != stats.Sent {
			t.Errorf("%s: ping %s: %s", when, dst, stats)
			for _, r := range logs {
				t.Logf("log:\n%s", r.log)
			}
		}
	}
}

// hostState is everything that a gateway could leave behind in a node: links
// with their state, addresses, rules and routes of every table.
func hostState(t *testing.T, node *netlab.Node) string {
	t.Helper()
	var b strings.Builder
	err := node.Netlink(func(nl *netlink.Handle) error {
		links, err := nl.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			fmt.Fprintf(&b, "link %s mtu %d flags %s\n", l.Attrs().Name, l.Attrs().MTU, l.Attrs().Flags)
			addresses, err := nl.AddrList(l, unix.AF_UNSPEC)
			if err != nil {
				return err
			}
			for _, a := range addresses {
				fmt.Fprintf(&b, "address %s %s\n", l.Attrs().Name, a.IPNet)
			}
		}
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			rules, err := nl.RuleList(family)
			if err != nil {
				return err
			}
			for _, r := range rules {
				fmt.Fprintf(&b, "rule %s\n", r)
			}
			routes, err := nl.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
			if err != nil {
				return err
			}
			for _, r := range routes {
				if r.Type == unix.RTN_UNICAST || r.Table != unix.RT_TABLE_LOCAL {
					fmt.Fprintf(&b, "route table %d type %d dst %s gw %s dev %d metric %d\n", r.Table, r.Type, r.Dst, r.Gw, r.LinkIndex, r.Priority)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestRootRunCarriesAndTakesEverythingBack: two gateways, status --wait, ping
// through, the lists, SIGTERM; the host is then as it was.
func TestRootRunCarriesAndTakesEverythingBack(t *testing.T) {
	for _, c := range []struct{ suite, encap string }{{"aes128gcm16", "udp"}, {"aes256-sha256", "none"}, {"chacha20poly1305", "none"}} {
		t.Run(c.suite+" "+c.encap, func(t *testing.T) {
			s := newSites(t, c.suite, c.encap)
			before := hostState(t, s.A.Gateway)
			a, b := s.start(t, s.A.Gateway, &s.a), s.start(t, s.B.Gateway, &s.b)
			s.mustPing(t, "both up", a, b)
			s.checkJSON(t)
			s.checkNoKeys(t, a, b)
			a.stop(t)
			b.stop(t)
			if after := hostState(t, s.A.Gateway); after != before {
				t.Errorf("the host before:\n%s\nand after:\n%s", before, after)
			}
			for _, path := range []string{s.a.Control, s.b.Control} {
				if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s is left: %v", path, err)
				}
			}
		})
	}
}

// checkJSON decodes what the commands print of gateway A.
func (s *sites) checkJSON(t *testing.T) {
	t.Helper()
	decode := func(v any, args ...string) {
		t.Helper()
		stdout, stderr, code := adit(t, append(args, "--json", "--control", s.a.Control)...)
		if err := json.Unmarshal([]byte(stdout), v); code != exitDone || err != nil {
			t.Fatalf("%v: exit code %d, %v: %s%s", args, code, err, stdout, stderr)
		}
	}
	var status struct {
		Name, Tun, Guard string
		TunMTU           int `json:"tun_mtu"`
		Ready            bool
		Routes, Listen   []string
		Peers            []struct {
			Name, Posture string
			SAsInstalled  int `json:"sas_installed"`
		}
	}
	decode(&status, "status")
	if status.Name != "site-a" || !status.Ready || status.TunMTU < 1280 || len(status.Routes) != 2 || len(status.Listen) == 0 ||
		status.Peers[0].Posture != "encrypted" || status.Peers[0].SAsInstalled != 2 || status.Guard != guardState {
		t.Errorf("status: got %+v", status)
	}
	var counters struct {
		Traffic, Drops []struct {
			Name  string
			Value uint64
		}
	}
	decode(&counters, "counters")
	if len(counters.Drops) != len(dropCounters) || counters.Traffic[0].Name != "OutPackets" || counters.Traffic[0].Value < 4 {
		t.Errorf("counters: got %+v", counters)
	}
	var sas struct {
		SAs []struct {
			Direction string
			SPI       uint32
			Packets   uint64
			Idle      float64 `json:"idle_seconds"`
		} `json:"sas"`
	}
	decode(&sas, "sa", "list")
	if len(sas.SAs) != 2 || sas.SAs[0].Direction != "out" || sas.SAs[0].SPI != 0x2001 || sas.SAs[0].Packets < 4 || sas.SAs[1].Packets < 4 || sas.SAs[1].Idle < 0 {
		t.Errorf("sa list: got %+v", sas)
	}
	var policies struct {
		Policies []struct{ Name, Action, Posture string }
	}
	decode(&policies, "policy", "list")
	if len(policies.Policies) != 1 || policies.Policies[0].Posture != "encrypted" {
		t.Errorf("policy list: got %+v", policies)
	}
}

// checkNoKeys looks for both sites' keys in everything that was said: the logs
// at level debug, and every command's output in both forms.
func (s *sites) checkNoKeys(t *testing.T, gateways ...*running) {
	t.Helper()
	said := ""
	for _, g := range gateways {
		said += g.log.String()
	}
	for _, args := range [][]string{{"status"}, {"counters"}, {"sa", "list"}, {"policy", "list"}} {
		for _, more := range [][]string{nil, {"--json"}} {
			stdout, stderr, _ := adit(t, append(append(args, more...), "-c", s.a.File)...)
			said += stdout + stderr
		}
	}
	for _, keys := range []demoKeys{s.a.OutKeys, s.a.InKeys} {
		for _, key := range []string{keys.Encryption, keys.Integrity} {
			if key == "" {
				continue
			}
			raw, err := hex.DecodeString(key)
			if err != nil {
				t.Fatal(err)
			}
			// Sixteen hex digits of it are too many, and so is the key as
			// Go prints bytes.
			for _, form := range []string{key[:16], strings.ToUpper(key[:16]), fmt.Sprint(raw[:6]), string(raw[:8])} {
				if strings.Contains(said, strings.Trim(form, "[]")) {
					t.Errorf("a key is shown, as %q", form)
				}
			}
		}
	}
}

// TestRootKilledGatewayLeavesNothingInClear: kill -9 leaves the stale socket,
// routes and rules; what was protected is refused, and a new gateway carries on.
func TestRootKilledGatewayLeavesNothingInClear(t *testing.T) {
	for _, suite := range []string{"aes128gcm16", "aes256-sha256"} {
		t.Run(suite, func(t *testing.T) {
			s := newSites(t, suite, "udp")
			before := hostState(t, s.A.Gateway)
			wire, err := s.Router.Capture(netlab.CaptureOptions{Iface: s.A.RouterIface, Keep: -1})
			if err != nil {
				t.Fatal(err)
			}
			defer wire.Close()
			a, b := s.start(t, s.A.Gateway, &s.a), s.start(t, s.B.Gateway, &s.b)
			for round := range 3 {
				s.mustPing(t, fmt.Sprintf("round %d", round), a, b)
				a.Kill()
				<-a.Done()
				if stats, err := netlab.Ping(t.Context(), s.A.Host, netlab.PingOptions{Dst: s.B.Host4, Timeout: 100 * time.Millisecond}); err != nil || stats.Received != 0 {
					t.Errorf("dead gateway: %s, %v", stats, err)
				}
				a = s.start(t, s.A.Gateway, &s.a)
			}
			// Numbers went on where the last block ended: the peer's
			// replay window takes them.
			s.mustPing(t, "after three kills", a, b)
			a.stop(t)
			b.stop(t)
			if summary := wire.Summary(); !summary.OnlyProtected() || summary.Count(netlab.KindUDPESP) == 0 {
				t.Errorf("the wire saw %s", summary)
			}
			if after := hostState(t, s.A.Gateway); after != before {
				t.Errorf("the host before:\n%s\nand after:\n%s", before, after)
			}
		})
	}
}

// TestRootSecondGatewayIsRefused: on the same socket, and on the same state_dir
// under another.
func TestRootSecondGatewayIsRefused(t *testing.T) {
	s := newSites(t, "aes128gcm16", "udp")
	a, b := s.start(t, s.A.Gateway, &s.a), s.start(t, s.B.Gateway, &s.b)
	other := filepath.Join(s.dir, "other.yaml")
	text, err := os.ReadFile(s.a.File)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(other, text, 0o600); err != nil {
		t.Fatal(err)
	}
	rewrite(t, other, s.a.Control, filepath.Join(s.dir, "other.sock"))
	for file, want := range map[string]string{
		s.a.File: "another gateway answers on this socket",
		other:    "another gateway uses this directory",
	} {
		second := s.launch(t, s.A.Gateway, "run", "-c", file)
		var exit *exec.ExitError
		if err := second.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitFailed || !strings.Contains(second.log.String(), want) {
			t.Errorf("second gateway: %v, want exit code 1 and %q:\n%s", err, want, second.log)
		}
	}
	s.mustPing(t, "after a second gateway was refused", a, b)
}

// TestRootGatewayThatEndsByItselfSaysWhy: its TUN is deleted under it. What was
// protected is refused then, as after kill -9, and a new gateway carries on.
func TestRootGatewayThatEndsByItselfSaysWhy(t *testing.T) {
	s := newSites(t, "aes128gcm16", "udp")
	before := hostState(t, s.A.Gateway)
	wire, err := s.Router.Capture(netlab.CaptureOptions{Iface: s.A.RouterIface, Keep: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer wire.Close()
	a, b := s.start(t, s.A.Gateway, &s.a), s.start(t, s.B.Gateway, &s.b)
	err = s.A.Gateway.Netlink(func(nl *netlink.Handle) error {
		link, err := nl.LinkByName("adit0")
		if err != nil {
			return err
		}
		return nl.LinkDel(link)
	})
	if err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := a.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitFailed || !strings.Contains(a.log.String(), "ended by itself") {
		t.Errorf("got %v, want exit code 1 and the reason:\n%s", err, a.log)
	}
	stats, err := netlab.Ping(t.Context(), s.A.Host, netlab.PingOptions{Dst: s.B.Host4, Timeout: 100 * time.Millisecond})
	if err != nil || stats.Received != 0 {
		t.Errorf("no gateway: %s, %v", stats, err)
	}
	a = s.start(t, s.A.Gateway, &s.a)
	s.mustPing(t, "started again", a, b)
	a.stop(t)
	if summary := wire.Summary(); !summary.OnlyProtected() {
		t.Errorf("the wire saw %s", summary)
	}
	if after := hostState(t, s.A.Gateway); after != before {
		t.Errorf("the host before:\n%s\nand after:\n%s", before, after)
	}
}

// TestRootStatusWaitNamesWhatIsMissing: an end that never comes up is told, in
// the time that was given.
func TestRootStatusWaitNamesWhatIsMissing(t *testing.T) {
	s := newSites(t, "aes128gcm16", "udp")
	start := time.Now()
	_, stderr, code := adit(t, "status", "--wait", "200ms", "-c", s.a.File)
	if took := time.Since(start); code != exitFailed || took < 200*time.Millisecond || !strings.Contains(stderr, "no gateway answers on "+s.a.Control) {
		t.Errorf("after %s: exit code %d, %q", took, code, stderr)
	}
}

// TestRootDemoHolds: the demonstration as `make demo` runs it, and with manual keys.
func TestRootDemoHolds(t *testing.T) {
	for _, keying := range []string{madeByIKE, madeByHand} {
		t.Run(keying, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir()) // other demonstrations may run beside this one
			stdout, stderr, code := adit(t, append([]string{"demo", "--seconds", "1", "--json"}, demoFlags[keying]...)...)
			checkDemoJSON(t, "namespaces", keying, stdout, stderr, code)
			var report demoReport
			if err := json.Unmarshal([]byte(stdout), &report); err != nil || report.Kill == nil || report.Kill.judge() != nil || (report.Kill.Wire.IKE > 0) != (keying == madeByIKE) {
				t.Errorf("kill: got %+v, %v", report.Kill, err)
			}
			leftovers, err := filepath.Glob(filepath.Join(os.TempDir(), "adit-demo-*"))
			if err != nil || len(leftovers) != 0 {
				t.Errorf("left behind: %v, %v", leftovers, err)
			}
		})
	}
}
