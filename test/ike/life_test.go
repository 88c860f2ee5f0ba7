package ike

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

// view is what `adit ike list --json` says of the one peer.
type view struct {
	Name    string   `json:"name"`
	State   string   `json:"state"`
	Verbose bool     `json:"verbose"`
	Missing []string `json:"missing"`
	SAs     []struct {
		SPII      string `json:"spi_i"`
		State     string `json:"state"`
		Initiator bool   `json:"initiator"`
		Local     string `json:"local"`
		Remote    string `json:"remote"`
		BehindNAT bool   `json:"behind_nat"`
		PeerNAT   bool   `json:"peer_behind_nat"`
		Children  []struct {
			Policy string `json:"policy"`
			SPIIn  uint32 `json:"spi_in"`
			SPIOut uint32 `json:"spi_out"`
		} `json:"children"`
	} `json:"sas"`
}

func look(t *testing.T, g *gatewaytest.Gateway) view {
	t.Helper()
	var list struct {
		Peers []view `json:"peers"`
	}
	out := must[string](t)(g.Command("ike", "list", "--json"))
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list.Peers) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	return list.Peers[0]
}

// spis are those of the one IKE SA and its one Child SA; "": there is not one of each.
func (v view) spis() (ike, child string) {
	if len(v.SAs) != 1 || len(v.SAs[0].Children) != 1 || v.State != "up" {
		return "", ""
	}
	c := v.SAs[0].Children[0]
	return v.SAs[0].SPII, fmt.Sprint(min(c.SPIIn, c.SPIOut), max(c.SPIIn, c.SPIOut))
}

// until waits until holds is true of what both ends say.
func until(t *testing.T, p *gatewaytest.IKEPair, what string, holds func(a, b view) bool) (a, b view) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		a, b = look(t, p.GatewayA), look(t, p.GatewayB)
		if holds(a, b) {
			return a, b
		}
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s\nA: %+v\nB: %+v\nlog of A:\n%s\nlog of B:\n%s", what, a, b, p.GatewayA.Log(), p.GatewayB.Log())
		}
	}
}

// onePair: both ends have one IKE SA and one Child SA, and they are the same.
func onePair(a, b view) bool {
	ikeA, childA := a.spis()
	ikeB, childB := b.spis()
	return ikeA != "" && ikeA == ikeB && childA == childB
}

func ping(ctx context.Context, t *testing.T, p *gatewaytest.IKEPair, count int) netlab.PingStats {
	t.Helper()
	return must[netlab.PingStats](t)(netlab.Ping(ctx, p.A.Host, netlab.PingOptions{Dst: p.B.Host4, Count: count}))
}

func command(t *testing.T, g *gatewaytest.Gateway, args ...string) {
	t.Helper()
	if out, err := g.Command(args...); err != nil {
		t.Fatalf("adit %v: %v: %s", args, err, out)
	}
}

// noSAs waits until no SA is installed.
func noSAs(t *testing.T, g *gatewaytest.Gateway) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		list := must[string](t)(g.Command("sa", "list"))
		if strings.Contains(list, "No SA is installed") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("there is still:\n%s\n%s", list, g.Log())
		}
	}
}

// TestRootIKEStartsAtOnceAndWaitWaitsForIt: with `start: now` the tunnel is up without
// a packet, and `adit status --wait` says when. Both ends may begin: what is left is
// one IKE SA and one pair.
func TestRootIKEStartsAtOnceAndWaitWaitsForIt(t *testing.T) {
	ctx := root(t)
	p := gatewaytest.NewIKEPair(t, gatewaytest.IKEOptions{IKE: "start: now"})
	p.GatewayA.Launch()
	p.GatewayB.Launch()
	for _, g := range []*gatewaytest.Gateway{p.GatewayA, p.GatewayB} {
		if out, err := g.Command("status", "--wait", "20s"); err != nil || !strings.Contains(out, "2 of 2") {
			t.Fatalf("%v: %s\n%s", err, out, g.Log())
		}
	}
	until(t, p, "one IKE SA and one pair", onePair)
	if got := ping(ctx, t, p, 3); got.Lost() != 0 {
		t.Errorf("ping: %s", got)
	}
	if list := must[string](t)(p.GatewayA.Command("sa", "list")); strings.Count(list, " ike ") != 2 {
		t.Errorf("adit sa list does not say who made the SAs:\n%s", list)
	}
}

// TestRootIKERekeyAndTerminateByCommand: new keys for the Child SA and for the IKE SA
// while packets cross, none lost; the end of it; and the next packet begins anew.
func TestRootIKERekeyAndTerminateByCommand(t *testing.T) {
	ctx := root(t)
	p := gatewaytest.NewIKEPair(t, gatewaytest.IKEOptions{})
	start(p)
	if got := ping(ctx, t, p, 1); got.Lost() != 0 {
		t.Fatalf("ping: %s", got)
	}
	a, _ := until(t, p, "one pair", onePair)
	ikeBefore, childBefore := a.spis()
	done := make(chan error, 1)
	go func() {
		s, err := netlab.Ping(ctx, p.A.Host, netlab.PingOptions{Dst: p.B.Host4, Count: 300, Interval: 10 * time.Millisecond})
		if err == nil && s.Lost() != 0 {
			err = fmt.Errorf("ping under rekeys: %s", s)
		}
		done <- err
	}()
	command(t, p.GatewayA, "ike", "rekey", "--children", "site-b")
	until(t, p, "another Child SA", func(a, b view) bool {
		_, child := a.spis()
		return onePair(a, b) && child != childBefore
	})
	command(t, p.GatewayB, "ike", "rekey", "site-a")
	until(t, p, "another IKE SA", func(a, b view) bool {
		ike, _ := a.spis()
		return onePair(a, b) && ike != ikeBefore
	})
	if err := <-done; err != nil {
		t.Error(err)
	}
	command(t, p.GatewayA, "ike", "terminate", "site-b")
	until(t, p, "both down", func(a, b view) bool { return a.State == "down" && b.State == "down" })
	for _, g := range []*gatewaytest.Gateway{p.GatewayA, p.GatewayB} {
		noSAs(t, g) // once the grace of what was rekeyed is over
	}
	if got := ping(ctx, t, p, 2); got.Lost() != 0 {
		t.Errorf("ping behind the end: %s", got)
	}
	zeros(t, p, "InAuth", "InNoSA", "OutNoSA", "OutRefused", "IKEPanicRecovered")
}

// TestRootIKEStopSaysGoodbye: SIGTERM deletes the SAs at both ends; a gateway that is
// killed and comes back announces that it has forgotten all (INITIAL_CONTACT).
func TestRootIKEStopSaysGoodbye(t *testing.T) {
	ctx := root(t)
	p := gatewaytest.NewIKEPair(t, gatewaytest.IKEOptions{})
	start(p)
	ping(ctx, t, p, 1)
	until(t, p, "one pair", onePair)
	p.GatewayA.Kill()
	p.GatewayA.Start()
	if got := ping(ctx, t, p, 2); got.Lost() != 0 {
		t.Errorf("ping behind a kill: %s", got)
	}
	until(t, p, "one pair again, and nothing of the old one", onePair)
	p.GatewayA.Stop()
	noSAs(t, p.GatewayB)
	if b := look(t, p.GatewayB); b.State != "down" {
		t.Errorf("B: %+v", b)
	}
}

// TestRootIKEWrongSecretSaysSo: one clear line at each end, what was sent is refused
// and never leaves in clear, and nothing stays behind.
func TestRootIKEWrongSecretSaysSo(t *testing.T) {
	ctx := root(t)
	p := gatewaytest.NewIKEPair(t, gatewaytest.IKEOptions{SecretB: gatewaytest.RandomSecret()})
	start(p)
	wire := must[*netlab.Capture](t)(p.Router.Capture(netlab.CaptureOptions{Iface: p.A.RouterIface}))
	t.Cleanup(func() { _ = wire.Close() })
	if got, err := netlab.Ping(ctx, p.A.Host, netlab.PingOptions{Dst: p.B.Host4, Count: 3}); err == nil && got.Lost() != 3 {
		t.Errorf("ping with the wrong secret: %s", got)
	}
	until(t, p, "both down", func(a, b view) bool { return a.State == "down" && len(b.SAs) == 0 })
	for side, g := range map[string]*gatewaytest.Gateway{"A": p.GatewayA, "B": p.GatewayB} {
		failed := ""
		for line := range strings.Lines(g.Log()) {
			if strings.Contains(line, "outcome=failed") && strings.Contains(line, "stage=IKE_AUTH") {
				failed = line
			}
		}
		if !strings.Contains(failed, "reason=auth_failed") && !strings.Contains(failed, "reason=authentication_failed") || !strings.Contains(failed, "peer=site-") {
			t.Errorf("the log of %s has no line with peer, stage and reason: %q\n%s", side, failed, g.Log())
		}
	}
	if s := wire.Summary(); !s.OnlyProtected() || s.Packets[netlab.KindESP] != 0 {
		t.Errorf("the wire: %s", s)
	}
	if c := p.GatewayA.Counters(); c["OutRefused"] == 0 || c["OutPackets"] != 0 {
		t.Errorf("OutRefused %d, OutPackets %d; want some and none", c["OutRefused"], c["OutPackets"])
	}
}

// TestRootIKEReloadLeavesOtherTunnelsAlone: a reload that changes another policy, or
// nothing, touches no SA; one that changes the peer makes them anew; and the verbose
// log is switched without touching any.
func TestRootIKEReloadLeavesOtherTunnelsAlone(t *testing.T) {
	ctx := root(t)
	p := gatewaytest.NewIKEPair(t, gatewaytest.IKEOptions{})
	start(p)
	ping(ctx, t, p, 1)
	a, _ := until(t, p, "one pair", onePair)
	ikeBefore, childBefore := a.spis()
	same := func(what string) {
		t.Helper()
		a, _ := until(t, p, what, onePair)
		if ike, child := a.spis(); ike != ikeBefore || child != childBefore {
			t.Errorf("%s: other SAs than before", what)
		}
	}
	reload := func(text string) {
		t.Helper()
		before := strings.Count(p.GatewayA.Log(), "the file is applied again")
		p.GatewayA.Configure(text)
		if err := p.GatewayA.Process().Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); strings.Count(p.GatewayA.Log(), "the file is applied again") == before; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the reload did not come:\n%s", p.GatewayA.Log())
			}
		}
	}
	reload(p.ConfigA)
	same("a reload of the same file")
	reload(p.ConfigA + "  - name: never\n    local: [10.1.0.0/24]\n    remote: [10.77.0.0/24]\n    action: discard\n")
	same("a reload with another policy")
	if got := ping(ctx, t, p, 2); got.Lost() != 0 {
		t.Errorf("ping behind it: %s", got)
	}
	command(t, p.GatewayA, "ike", "log", "--verbose", "on", "site-b")
	if a := look(t, p.GatewayA); !a.Verbose {
		t.Error("the verbose log is not on")
	}
	command(t, p.GatewayA, "ike", "log", "--verbose", "off")
	same("switching the verbose log")
	reload(strings.Replace(p.ConfigA, "}}", "}, dpd: 77s}", 1))
	until(t, p, "the changed peer is down, or made anew", func(a, b view) bool {
		ike, _ := a.spis()
		return ike != ikeBefore
	})
	if got := ping(ctx, t, p, 2); got.Lost() != 0 {
		t.Errorf("ping behind a changed peer: %s", got)
	}
	until(t, p, "one pair of the changed peer", onePair)
}

// TestRootIKEAnswersFromTheAddressItWasAskedAt: behind a load balancer, and on a host
// with several addresses, every packet leaves from the address that the peer spoke to:
// IKE and ESP.
func TestRootIKEAnswersFromTheAddressItWasAskedAt(t *testing.T) {
	for _, encap := range []string{"auto", "udp"} {
		t.Run(encap, func(t *testing.T) {
			ctx := root(t)
			p := gatewaytest.NewIKEPair(t, gatewaytest.IKEOptions{Profile: "encap: " + encap})
			// One more address of B, behind the first.
			second := netip.PrefixFrom(nextTo(p.B.Outside4), p.B.WAN4.Bits())
			if err := p.B.Gateway.AddAddr(netlab.OutsideIface, second); err != nil {
				t.Fatal(err)
			}
			p.GatewayA.Configure(strings.Replace(p.ConfigA, fmt.Sprintf("address: %q\n    keying", p.B.Outside4), fmt.Sprintf("address: %q\n    keying", second.Addr()), 1))
			p.GatewayB.Configure(strings.Replace(p.ConfigB, fmt.Sprintf("address: %q, ", p.B.Outside4), "", 1))
			start(p)
			if got := ping(ctx, t, p, 3); got.Lost() != 0 {
				t.Fatalf("ping: %s\n%s", got, p.GatewayB.Log())
			}
			a, b := until(t, p, "one pair", onePair)
			if at := must[netip.AddrPort](t)(netip.ParseAddrPort(a.SAs[0].Remote)); at.Addr() != second.Addr() {
				t.Errorf("A speaks to %s, want %s", at, second.Addr())
			}
			if at := must[netip.AddrPort](t)(netip.ParseAddrPort(b.SAs[0].Local)); at.Addr() != second.Addr() {
				t.Errorf("B speaks from %s, want %s", at, second.Addr())
			}
			if b.SAs[0].BehindNAT || b.SAs[0].PeerNAT != (encap == "udp") { // which pretends one
				t.Errorf("there is no NAT: %+v", b.SAs[0])
			}
			var sas struct {
				SAs []struct{ Direction, Local, Remote string } `json:"sas"`
			}
			if err := json.Unmarshal([]byte(must[string](t)(p.GatewayB.Command("sa", "list", "--json"))), &sas); err != nil {
				t.Fatal(err)
			}
			if i := slices.IndexFunc(sas.SAs, func(s struct{ Direction, Local, Remote string }) bool {
				return s.Direction == "out" && strings.HasPrefix(s.Local, second.Addr().String())
			}); i < 0 {
				t.Errorf("B's outbound SA does not leave from %s: %+v", second.Addr(), sas.SAs)
			}
		})
	}
}

func nextTo(a netip.Addr) netip.Addr {
	b := a.As4()
	b[3] += 50
	return netip.AddrFrom4(b)
}

// TestRootIKEPassesBesideADefaultRouteIntoTheTunnel: everything is protected, the
// peer's own address too, and IKE and ESP still leave beside the TUN, by their mark.
func TestRootIKEPassesBesideADefaultRouteIntoTheTunnel(t *testing.T) {
	for _, encap := range []string{"auto", "udp"} {
		t.Run(encap, func(t *testing.T) {
			ctx := root(t)
			p := gatewaytest.NewIKEPair(t, gatewaytest.IKEOptions{Profile: "encap: " + encap})
			for _, end := range []struct {
				g          *gatewaytest.Gateway
				text       string
				wide, lan  string // keys of the policy
				far, inner *netlab.Side
			}{{p.GatewayA, p.ConfigA, "remote", "local", &p.B, &p.A}, {p.GatewayB, p.ConfigB, "local", "remote", &p.B, &p.A}} {
				text := strings.Replace(end.text, fmt.Sprintf("%s: [%s, %q]", end.wide, end.far.LAN4, end.far.LAN6), end.wide+": [0.0.0.0/0]", 1)
				end.g.Configure(strings.Replace(text, fmt.Sprintf("%s: [%s, %q]", end.lan, end.inner.LAN4, end.inner.LAN6), fmt.Sprintf("%s: [%s]", end.lan, end.inner.LAN4), 1))
			}
			start(p)
			if got := ping(ctx, t, p, 3); got.Lost() != 0 {
				t.Fatalf("ping: %s\nA: %v\n%s", got, moving(p.GatewayA), p.GatewayA.Log())
			}
			command(t, p.GatewayA, "ike", "rekey", "--children", "site-b")
			until(t, p, "one pair behind a rekey", onePair)
			if got := ping(ctx, t, p, 3); got.Lost() != 0 {
				t.Errorf("ping: %s", got)
			}
			zeros(t, p, "IKESendErrors", "IKEPanicRecovered", "OutSendError")
		})
	}
}
