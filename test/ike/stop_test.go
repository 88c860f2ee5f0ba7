package ike

import (
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

// stateOf is all that a gateway may have put into the kernel of its node.
func stateOf(t *testing.T, n *netlab.Node) map[string]string {
	t.Helper()
	out := map[string]string{}
	for name, command := range map[string][]string{
		"rules":       {"ip", "rule", "show"},
		"IPv6 rules":  {"ip", "-6", "rule", "show"},
		"routes":      {"ip", "route", "show", "table", "all"},
		"IPv6 routes": {"ip", "-6", "route", "show", "table", "all"},
		"links":       {"ip", "-o", "link", "show"},
		"nftables":    {"nft", "list", "ruleset"},
		"sockets":     {"ss", "-Hlunwx"},
	} {
		text, err := n.Run(command[0], command[1:]...)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out[name] = strings.TrimSpace(text)
	}
	return out
}

func wantState(t *testing.T, n *netlab.Node, when string, want map[string]string) {
	t.Helper()
	for name, got := range stateOf(t, n) {
		if got != want[name] {
			t.Errorf("%s: %s of %s:\n%s\nwant\n%s", when, name, n.Name(), got, want[name])
		}
	}
}

// TestRootIKEStopWithADeadPeerIsShort: a peer that never answers holds a stop up for two
// seconds, and the log says whom it waits for, and who has not answered.
func TestRootIKEStopWithADeadPeerIsShort(t *testing.T) {
	ctx := root(t)
	p := gatewaytest.NewIKEPair(t, gatewaytest.IKEOptions{})
	before := stateOf(t, p.A.Gateway)
	start(p)
	if got := ping(ctx, t, p, 1); got.Lost() != 0 {
		t.Fatalf("ping: %s", got)
	}
	p.GatewayB.Kill()
	began := time.Now()
	p.GatewayA.Stop()
	if took := time.Since(began); took < 1500*time.Millisecond || took > 5*time.Second {
		t.Errorf("the stop took %s, want two seconds and what the rest takes", took)
	}
	wantState(t, p.A.Gateway, "after SIGTERM", before)
	log := p.GatewayA.Log()
	for _, want := range []string{"waits for their answers", "peers=[site-b]", "stops without the peer's answer to its Delete"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %q:\n%s", want, log)
		}
	}
}

// TestRootCK10_NothingIsLeftAfterTheEnd: a gateway keyed by IKE, under traffic, leaves
// no route, rule, nftables table, interface or socket behind when it is told to stop,
// its peer hears of the end, and one that was killed leaves nothing once it has been
// started and stopped again.
func TestRootCK10_NothingIsLeftAfterTheEnd(t *testing.T) {
	ctx := root(t)
	p := gatewaytest.NewIKEPair(t, gatewaytest.IKEOptions{})
	before := stateOf(t, p.A.Gateway)
	start(p)
	reach := func(when string) {
		t.Helper()
		stats, err := netlab.Ping(ctx, p.A.Host, netlab.PingOptions{Dst: p.B.Host4, Count: 3})
		if err != nil || stats.Lost() != 0 {
			t.Fatalf("%s: ping: %s, %v\n%s", when, stats, err, p.GatewayA.Log())
		}
	}
	reach("at first")
	if during := stateOf(t, p.A.Gateway); during["links"] == before["links"] || during["routes"] == before["routes"] {
		t.Fatal("the gateway has put nothing into the kernel: this test would hold nothing")
	}
	p.GatewayA.Stop()
	wantState(t, p.A.Gateway, "after SIGTERM", before)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		list, err := p.GatewayB.Command("ike", "list")
		if err == nil && !strings.Contains(list, "established") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("B has not heard of A's end: %v\n%s", err, list)
		}
	}
	p.GatewayA.Start()
	reach("started again")
	p.GatewayA.Kill()
	p.GatewayA.Start()
	reach("started again after a kill")
	p.GatewayA.Kill()
	p.GatewayA.Start()
	p.GatewayA.Stop()
	wantState(t, p.A.Gateway, "after a kill, a start and SIGTERM", before)
	p.GatewayB.Stop()
}
