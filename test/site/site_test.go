// Package site holds what two gateways in namespaces carry: the real binary,
// the kernel's TUN, sockets and routes, and what the wire saw.
package site

import (
	"context"
	"fmt"
	"net/netip"
	"os"
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

// Ping, TCP and UDP cross both ways, over both encapsulations and both outer
// families, IPv4 and IPv6 inside: intact at the far end, and the wire saw ESP
// and nothing of the payload.
func TestRootTrafficCrossesAndTheWireSeesOnlyESP(t *testing.T) {
	for _, o := range []gatewaytest.Options{
		{Suite: "aes128gcm16"},
		{Suite: "aes256-sha256", Raw: true},
		{Suite: "chacha20poly1305", OuterV6: true},
		{Suite: "aes256gcm16", OuterV6: true, Raw: true},
	} {
		t.Run(fmt.Sprintf("%s raw=%v outer6=%v", o.Suite, o.Raw, o.OuterV6), func(t *testing.T) {
			ctx := root(t)
			p := gatewaytest.NewPair(t, o)
			p.Start()
			marker := []byte("adit-payload-marker-7f3a")
			capture := func(n *netlab.Node, iface string) *netlab.Capture {
				c := must[*netlab.Capture](t)(n.Capture(netlab.CaptureOptions{Iface: iface, Marker: marker}))
				t.Cleanup(func() { _ = c.Close() })
				return c
			}
			wire, lan := capture(p.Router, p.A.RouterIface), capture(p.B.Gateway, netlab.InsideIface)
			for _, dst := range []netip.Addr{p.B.Host4, p.B.Host6} {
				ping := must[netlab.PingStats](t)(netlab.Ping(ctx, p.A.Host, netlab.PingOptions{Dst: dst, Count: 5, Marker: marker}))
				if ping.Lost() != 0 {
					t.Errorf("ping %s: %s", dst, ping)
				}
				tcp := must[netlab.TransferResult](t)(netlab.TCPTransfer(ctx, p.A.Host, p.B.Host, netlab.TransferOptions{To: netip.AddrPortFrom(dst, 0), Bytes: 4 << 20, Marker: marker}))
				if !tcp.Intact() {
					t.Errorf("TCP to %s: SHA-256 differs", dst)
				}
				udp := must[netlab.BurstResult](t)(netlab.UDPBurst(ctx, p.A.Host, p.B.Host, netlab.BurstOptions{To: netip.AddrPortFrom(dst, 0), Count: 500, Size: 900, Marker: marker}))
				if udp.Lost() != 0 || udp.Duplicated != 0 || udp.Mismatched != 0 {
					t.Errorf("UDP to %s: %s", dst, udp)
				}
			}
			if s := wire.Summary(); !s.OnlyProtected() || s.Total() < 1000 {
				t.Errorf("the wire: %s", s)
			}
			if s := lan.Summary(); s.Marked == 0 {
				t.Errorf("the LAN never saw the marker: %s", s)
			}
			for name, gw := range map[string]*gatewaytest.Gateway{"A": p.GatewayA, "B": p.GatewayB} {
				c := gw.Counters()
				for _, zero := range []string{"InAuth", "InReplay", "InNoSA", "InSelector", "InInner", "OutSendError", "OutNoSA"} {
					if n, ok := c[zero]; !ok || n != 0 {
						t.Errorf("gateway %s: %s: expected 0, saw %d (known: %v)", name, zero, n, ok)
					}
				}
				if c["OutPackets"] < 500 || c["InPackets"] < 500 {
					t.Errorf("gateway %s carried %d out and %d in", name, c["OutPackets"], c["InPackets"])
				}
			}
			p.GatewayA.Stop()
			p.GatewayB.Stop()
		})
	}
}
