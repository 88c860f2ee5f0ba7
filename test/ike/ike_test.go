// Package ike holds what two gateways negotiate in namespaces: the real binary, its
// sockets and its TUN, and what the wire saw.
package ike

import (
	"context"
	"maps"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

func TestMain(m *testing.M) { os.Exit(gatewaytest.Main(m)) }

func root(t *testing.T) context.Context {
	t.Helper()
	return gatewaytest.Root(t, 90*time.Second)
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func start(p *gatewaytest.IKEPair) {
	p.GatewayA.Start()
	p.GatewayB.Start()
}

// moving are the counters that are not zero.
func moving(g *gatewaytest.Gateway) map[string]uint64 {
	c := g.Counters()
	maps.DeleteFunc(c, func(_ string, n uint64) bool { return n == 0 })
	return c
}

// zeros fails for each of these counters that has moved, or is not known.
func zeros(t *testing.T, p *gatewaytest.IKEPair, names ...string) {
	t.Helper()
	for side, g := range map[string]*gatewaytest.Gateway{"A": p.GatewayA, "B": p.GatewayB} {
		c := g.Counters()
		for _, name := range names {
			if n, ok := c[name]; !ok || n != 0 {
				t.Errorf("gateway %s: %s: expected 0, saw %d (known: %v)", side, name, n, ok)
			}
		}
	}
}

// TestRootIKEFirstPacketsBringTheTunnelUp: nothing is configured but who the peers are.
// The first packet waits for its SA, and none is lost; TCP, UDP and ping cross both
// ways, and the wire saw IKE and ESP alone.
func TestRootIKEFirstPacketsBringTheTunnelUp(t *testing.T) {
	for _, o := range []struct {
		name string
		gatewaytest.IKEOptions
	}{
		{"protocol 50", gatewaytest.IKEOptions{}},
		{"in UDP", gatewaytest.IKEOptions{Profile: "encap: udp"}},
		{"over IPv6", gatewaytest.IKEOptions{OuterV6: true}},
	} {
		t.Run(o.name, func(t *testing.T) {
			ctx := root(t)
			p := gatewaytest.NewIKEPair(t, o.IKEOptions)
			start(p)
			marker := []byte("adit-payload-marker-7f3a")
			wire := must[*netlab.Capture](t)(p.Router.Capture(netlab.CaptureOptions{Iface: p.A.RouterIface, Marker: marker}))
			t.Cleanup(func() { _ = wire.Close() })
			for _, dst := range gatewaytest.Hosts(&p.B) {
				ping := must[netlab.PingStats](t)(netlab.Ping(ctx, p.A.Host, netlab.PingOptions{Dst: dst, Count: 5, Marker: marker}))
				if ping.Lost() != 0 {
					t.Errorf("ping %s: %s", dst, ping)
				}
				tcp := must[netlab.TransferResult](t)(netlab.TCPTransfer(ctx, p.A.Host, p.B.Host, netlab.TransferOptions{To: netip.AddrPortFrom(dst, 0), Bytes: 1 << 20, Marker: marker}))
				if !tcp.Intact() {
					t.Errorf("TCP to %s: SHA-256 differs", dst)
				}
			}
			udp := must[netlab.BurstResult](t)(netlab.UDPBurst(ctx, p.B.Host, p.A.Host, netlab.BurstOptions{To: netip.AddrPortFrom(p.A.Host4, 0), Count: 500, Size: 900, Marker: marker}))
			if udp.Lost() != 0 || udp.Duplicated != 0 || udp.Mismatched != 0 {
				t.Errorf("UDP back: %s", udp)
			}
			if s := wire.Summary(); !s.OnlyProtected() || s.Total() < 500 {
				t.Errorf("the wire: %s", s)
			}
			zeros(t, p, "InAuth", "InReplay", "InNoSA", "InSelector", "InInner", "OutSendError", "OutNoSA", "OutHoldFull", "OutHoldExpired", "OutRefused",
				"IKEPanicRecovered", "IKESendErrors", "IKEInstallErrors", "IKEInboxFull")
			list := must[string](t)(p.GatewayA.Command("ike", "list"))
			if !strings.Contains(list, "established") || !strings.Contains(list, "site-b.example.net") || !strings.Contains(list, "1 (1 of 1 policies)") {
				t.Errorf("adit ike list:\n%s", list)
			}
			p.GatewayA.Stop()
			p.GatewayB.Stop()
		})
	}
}
