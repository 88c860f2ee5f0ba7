package site

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

func pings(t *testing.T, p *gatewaytest.Pair, dst netip.Addr, count int) {
	t.Helper()
	ping, err := netlab.Ping(root(t), p.A.Host, netlab.PingOptions{Dst: dst, Count: count})
	if err != nil || ping.Lost() != 0 {
		t.Errorf("ping %s: expected %d answers, saw %s, %v\nA: %v\nB: %v", dst, count, ping, err, p.GatewayA.Counters(), p.GatewayB.Counters())
	}
}

// The gateway's own outer packets never loop into the TUN: not when the peer's
// address lies inside a protected prefix, not when everything is protected.
func TestRootOuterPacketsNeverLoopIntoTheTUN(t *testing.T) {
	for _, c := range []struct{ name, local, remote string }{
		{"peer inside a protected prefix", `10.1.0.0/24, 192.0.2.0/24, "2001:db8:a::/64", "2001:db8:1::/64"`, `10.2.0.0/24, 198.51.100.0/24, "2001:db8:b::/64", "2001:db8:2::/64"`},
		{"default route protected", `10.1.0.0/24, "2001:db8:a::/64"`, `0.0.0.0/0, "::/0"`},
	} {
		for _, o := range []gatewaytest.Options{{}, {Raw: true}, {OuterV6: true}, {OuterV6: true, Raw: true}} {
			t.Run(fmt.Sprintf("%s raw=%v outer6=%v", c.name, o.Raw, o.OuterV6), func(t *testing.T) {
				root(t)
				o.Local, o.Remote = c.local, c.remote
				p := gatewaytest.NewPair(t, o)
				p.Start()
				pings(t, p, p.B.Host4, 3)
				pings(t, p, p.B.Host6, 3)
				counters := p.GatewayA.Counters()
				if counters["OutPackets"] > 20 || counters["OutTooBig"] != 0 {
					t.Errorf("6 pings became %d packets out: a loop (%v)", counters["OutPackets"], counters)
				}
			})
		}
	}
}

// RFC 4301 5.1.2.1: both gateways forward, so the inner TTL falls by two; the
// outer TTL is the gateway's own.
func TestRootTTLFallsByTwoAndTheOuterOneIsFresh(t *testing.T) {
	root(t)
	for _, raw := range []bool{false, true} {
		p := gatewaytest.NewPair(t, gatewaytest.Options{Raw: raw})
		p.Start()
		for _, host := range []*netlab.Node{p.A.Host, p.B.Host} {
			if err := host.Sysctl("net.ipv4.ip_default_ttl", "17"); err != nil {
				t.Fatal(err)
			}
		}
		lan, err := p.B.Gateway.Capture(netlab.CaptureOptions{Iface: netlab.InsideIface})
		if err != nil {
			t.Fatal(err)
		}
		wire, err := p.Router.Capture(netlab.CaptureOptions{Iface: p.A.RouterIface})
		if err != nil {
			t.Fatal(err)
		}
		pings(t, p, p.B.Host4, 1)
		request := 0
		for _, ip := range lan.IPPackets() {
			var h packet.Header
			var f packet.Flow
			if packet.Parse(ip, &h, &f) == nil && f.SrcAddr() == p.A.Host4 {
				request++
				if h.TTL != 15 {
					t.Errorf("raw=%v: inner TTL at the far LAN: expected 17-2, saw %d", raw, h.TTL)
				}
			}
		}
		outer := 0
		for _, ip := range wire.IPPackets() {
			var h packet.Header
			var f packet.Flow
			if packet.Parse(ip, &h, &f) == nil && f.SrcAddr() == p.A.Outside4 {
				outer++
				if h.TTL != 64 {
					t.Errorf("raw=%v: outer TTL: expected 64, saw %d", raw, h.TTL)
				}
			}
		}
		if request != 1 || outer != 1 {
			t.Errorf("raw=%v: expected one request on the LAN and one on the wire, saw %d and %d", raw, request, outer)
		}
		_ = lan.Close()
		_ = wire.Close()
	}
}

// A firewall that refuses our packets (EPERM) and a route that is gone
// (ENETUNREACH) are counted; the gateway goes on when they heal.
func TestRootSendErrorsAreCountedAndHeal(t *testing.T) {
	root(t)
	p := gatewaytest.NewPair(t, gatewaytest.Options{})
	p.Start()
	pings(t, p, p.B.Host4, 1)
	gw := p.A.Gateway
	lost := func(what string) {
		t.Helper()
		before := p.GatewayA.Counters()["OutSendError"]
		ping, err := netlab.Ping(root(t), p.A.Host, netlab.PingOptions{Dst: p.B.Host4, Count: 3, Timeout: 200 * time.Millisecond})
		if err != nil || ping.Received != 0 {
			t.Fatalf("%s: expected no answer, saw %s, %v", what, ping, err)
		}
		if after := p.GatewayA.Counters()["OutSendError"]; after-before != 3 {
			t.Errorf("%s: OutSendError: expected +3, saw +%d", what, after-before)
		}
	}
	if err := gw.DropOutput("udp dport 4500"); err != nil {
		t.Fatal(err)
	}
	lost("EPERM")
	if err := gw.Heal("output"); err != nil {
		t.Fatal(err)
	}
	pings(t, p, p.B.Host4, 3)
	if err := gw.Down(netlab.OutsideIface); err != nil {
		t.Fatal(err)
	}
	lost("ENETUNREACH")
	if err := gw.Up(netlab.OutsideIface); err != nil {
		t.Fatal(err)
	}
	if err := gw.AddDefault(p.A.Router4); err != nil {
		t.Fatal(err)
	}
	pings(t, p, p.B.Host4, 3)
}

// What was captured on the wire and is sent again delivers nothing.
func TestRootReplayedCaptureDeliversNothing(t *testing.T) {
	for _, raw := range []bool{false, true} {
		ctx := root(t)
		p := gatewaytest.NewPair(t, gatewaytest.Options{Raw: raw})
		p.Start()
		wire, err := p.Router.Capture(netlab.CaptureOptions{Iface: p.B.RouterIface})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := netlab.UDPBurst(ctx, p.A.Host, p.B.Host, netlab.BurstOptions{To: netip.AddrPortFrom(p.B.Host4, 0), Count: 200, Size: 100}); err != nil {
			t.Fatal(err)
		}
		var frames [][]byte
		for _, f := range wire.Packets() {
			if len(f.Data) > 14+20 && string(f.Data[26:30]) == string(p.A.Outside4.AsSlice()) {
				frames = append(frames, f.Data)
			}
		}
		_ = wire.Close()
		if len(frames) < 200 {
			t.Fatalf("raw=%v: expected at least 200 frames of A on the wire, saw %d", raw, len(frames))
		}
		lan, err := p.B.Gateway.Capture(netlab.CaptureOptions{Iface: netlab.InsideIface})
		if err != nil {
			t.Fatal(err)
		}
		before := p.GatewayB.Counters()
		send(t, p.Router, p.B.RouterIface, frames)
		var after map[string]uint64
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if after = p.GatewayB.Counters(); after["InReplay"]-before["InReplay"] >= uint64(len(frames)) {
				break
			}
		}
		if got := after["InReplay"] - before["InReplay"]; got != uint64(len(frames)) {
			t.Errorf("raw=%v: InReplay: expected +%d, saw +%d", raw, len(frames), got)
		}
		if after["InPackets"] != before["InPackets"] {
			t.Errorf("raw=%v: %d packets delivered", raw, after["InPackets"]-before["InPackets"])
		}
		for _, ip := range lan.IPPackets() {
			if len(ip) > 20 && string(ip[12:16]) == string(p.A.Host4.AsSlice()) {
				t.Errorf("raw=%v: a replayed packet reached the LAN", raw)
			}
		}
		_ = lan.Close()
	}
}

// send puts link level frames on an interface.
func send(t *testing.T, n *netlab.Node, iface string, frames [][]byte) {
	t.Helper()
	err := n.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		ifr, err := unix.NewIfreq(iface)
		if err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
			return err
		}
		to := &unix.SockaddrLinklayer{Ifindex: int(ifr.Uint32())}
		for _, f := range frames {
			if err := unix.Sendto(fd, f, 0, to); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A bypass policy inside a protected prefix sends its packets in clear and
// nothing else does.
func TestRootBypassInsideAProtectedPrefix(t *testing.T) {
	ctx := root(t)
	p := gatewaytest.NewPair(t, gatewaytest.Options{})
	p.GatewayA.Configure(strings.Replace(p.ConfigA, "policies:\n", `policies:
  - name: open
    local: [10.1.0.0/24]
    remote: [10.2.0.0/24]
    protocol: udp
    remote_ports: [7]
    action: bypass
`, 1))
	p.Start()
	wire, err := p.Router.Capture(netlab.CaptureOptions{Iface: p.A.RouterIface})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = wire.Close() }()
	pings(t, p, p.B.Host4, 2)
	conn, err := p.A.Host.ListenPacket(netip.AddrPortFrom(p.A.Host4, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for _, port := range []uint16{7, 8, 7} {
		if _, err := conn.WriteToUDPAddrPort([]byte("clear?"), netip.AddrPortFrom(p.B.Host4, port)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := netlab.Ping(ctx, p.A.Host, netlab.PingOptions{Dst: p.B.Host4, Count: 2}); err != nil {
		t.Fatal(err)
	}
	clear := map[uint16]int{}
	for _, ip := range wire.IPPackets() {
		if len(ip) >= 28 && ip[9] == packet.ProtoUDP && string(ip[12:16]) == string(p.A.Host4.AsSlice()) {
			clear[binary.BigEndian.Uint16(ip[22:])]++
		}
	}
	if len(clear) != 1 || clear[7] != 2 {
		t.Errorf("in clear on the wire by port: expected 2 to port 7 and no others, saw %v", clear)
	}
	if got := p.GatewayA.Counters()["OutBypass"]; got != 2 {
		t.Errorf("OutBypass: expected 2, saw %d", got)
	}
}
