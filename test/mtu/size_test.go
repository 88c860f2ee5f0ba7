package mtu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

// told sends UDP with DF from host A until its kernel refuses it, and returns what
// that has learned of the path.
func told(ctx context.Context, t *testing.T, p *gatewaytest.Pair, to netip.Addr, size int) int {
	t.Helper()
	c, err := p.A.Host.Dial(ctx, "udp", netip.AddrPortFrom(to, 9999))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	level, discover, option, mode := unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_MTU, unix.IP_PMTUDISC_DO
	if to.Is6() {
		level, discover, option, mode = unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_MTU, unix.IPV6_PMTUDISC_DO
	}
	mtu := 0
	control := func(f func(fd int) error) {
		t.Helper()
		var failed error
		if err := raw.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil || failed != nil {
			t.Fatal(err, failed)
		}
	}
	control(func(fd int) error { return unix.SetsockoptInt(fd, level, discover, mode) })
	for deadline := time.Now().Add(10 * time.Second); ; {
		if _, err := c.Write(make([]byte, size)); errors.Is(err, syscall.EMSGSIZE) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes to %s: nobody says that they are too long\n%v", size, to, p.GatewayA.Counters())
		}
		time.Sleep(10 * time.Millisecond)
	}
	control(func(fd int) (err error) { mtu, err = unix.GetsockoptInt(fd, level, option); return err })
	return mtu
}

// A sender of UDP hears the MTU that is left for it when the path becomes narrow:
// the path's less what the SA adds, exactly.
func TestRootUDPSenderHearsTheInnerMTU(t *testing.T) {
	for _, o := range []gatewaytest.Options{{}, {Raw: true, Suite: "aes256-sha256"}, {OuterV6: true}} {
		t.Run(fmt.Sprintf("raw=%v outer6=%v", o.Raw, o.OuterV6), func(t *testing.T) {
			ctx := root(t)
			p := gatewaytest.NewPair(t, o)
			p.Start()
			if err := narrow(p, 1400); err != nil {
				t.Fatal(err)
			}
			mtu := told(ctx, t, p, p.B.Host4, 1380)
			is := pathOf(t, p.GatewayA)
			if is.PathMtu != 1400 || mtu != is.InnerMtu {
				t.Errorf("IPv4 heard %d; the path: %+v", mtu, is)
			}
			if mtu := told(ctx, t, p, p.B.Host6, 1380-40); mtu != is.InnerMtu {
				t.Errorf("IPv6 heard %d; the path: %+v", mtu, is)
			}
			for _, size := range []int{is.InnerMtu, is.InnerMtu - 1} {
				ping, err := netlab.Ping(ctx, p.A.Host, netlab.PingOptions{Dst: p.B.Host4, Count: 3, Size: size - 28, DF: true})
				if err != nil || ping.Lost() != 0 {
					t.Errorf("%d bytes with DF: %s, %v", size, ping, err)
				}
			}
		})
	}
}

// A path of 1280 bytes has no room for 1280 bytes in a tunnel: IPv6 passes all the
// same, IPv4 hears of less, and what may be cut is.
func TestRootTunnelOver1280Bytes(t *testing.T) {
	for _, o := range []gatewaytest.Options{{}, {OuterV6: true}, {Raw: true, Profile: "fragment: after"}} {
		t.Run(fmt.Sprintf("raw=%v outer6=%v %s", o.Raw, o.OuterV6, o.Profile), func(t *testing.T) {
			ctx := root(t)
			o.Topology = netlab.Options{MTU: 1280}
			p := gatewaytest.NewPair(t, o)
			p.Start()
			is := eventually(t, p.GatewayA, "1280", func(is path) bool { return is.PathMtu == 1280 })
			for _, to := range inners(p) {
				r, err := netlab.TCPTransfer(ctx, p.A.Host, p.B.Host, netlab.TransferOptions{To: netip.AddrPortFrom(to, 0), Bytes: 4 << 20})
				if err != nil || !r.Intact() {
					t.Errorf("TCP to %s: %v\nA: %v", to, err, p.GatewayA.Counters())
				}
				// The hosts' own kernels cut IPv6, and have to hear first.
				long := netlab.PingOptions{Dst: to, Count: 3, Size: 3000}
				_, _ = netlab.Ping(ctx, p.A.Host, long)
				ping, err := netlab.Ping(ctx, p.A.Host, long)
				if err != nil || ping.Lost() != 0 {
					t.Errorf("3000 bytes to %s: %s, %v\nA: %v", to, ping, err, p.GatewayA.Counters())
				}
			}
			if mtu := told(ctx, t, p, p.B.Host4, 1240); mtu != is.InnerMtu {
				t.Errorf("IPv4 heard %d; the path: %+v", mtu, is)
			}
			full, err := netlab.Ping(ctx, p.A.Host, netlab.PingOptions{Dst: p.B.Host6, Count: 3, Size: 1280 - 48, DF: true})
			if err != nil || full.Lost() != 0 {
				t.Errorf("1280 bytes of IPv6: %s, %v", full, err)
			}
			if n := p.GatewayA.Counters()["OutSendError"]; n != 0 {
				t.Errorf("OutSendError: %d", n)
			}
		})
	}
}

// A path of jumbo frames is used to its last byte.
func TestRootJumboPath(t *testing.T) {
	for _, outer6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("outer6=%v", outer6), func(t *testing.T) {
			ctx := root(t)
			p := gatewaytest.NewPair(t, gatewaytest.Options{OuterV6: outer6, Topology: netlab.Options{MTU: 9000, LANMTU: 9000}})
			p.Start()
			for _, to := range inners(p) {
				r, err := netlab.TCPTransfer(ctx, p.A.Host, p.B.Host, netlab.TransferOptions{To: netip.AddrPortFrom(to, 0), Bytes: 8 << 20})
				if err != nil || !r.Intact() {
					t.Errorf("TCP to %s: %v\nA: %v", to, err, p.GatewayA.Counters())
				}
			}
			is := pathOf(t, p.GatewayA)
			if is.PathMtu != 9000 || is.InnerMtu < 8900 {
				t.Errorf("the path: %+v", is)
			}
			ping, err := netlab.Ping(ctx, p.A.Host, netlab.PingOptions{Dst: p.B.Host4, Count: 3, Size: is.InnerMtu - 28, DF: true})
			if err != nil || ping.Lost() != 0 {
				t.Errorf("%d bytes with DF: %s, %v", is.InnerMtu, ping, err)
			}
			if mtu := told(ctx, t, p, p.B.Host4, 8972); mtu != is.InnerMtu {
				t.Errorf("heard %d; the path: %+v", mtu, is)
			}
		})
	}
}

// What outsiders say about packets that they have not seen changes nothing; nor
// does a router's word that a host cannot be reached.
func TestRootForgedICMPChangesNothing(t *testing.T) {
	ctx := root(t)
	p := gatewaytest.NewPair(t, gatewaytest.Options{})
	p.Start()
	ping := func() {
		t.Helper()
		stats, err := netlab.Ping(ctx, p.A.Host, netlab.PingOptions{Dst: p.B.Host4, Count: 3, Size: 1300})
		if err != nil || stats.Lost() != 0 {
			t.Errorf("ping: %s, %v", stats, err)
		}
	}
	ping()
	before := pathOf(t, p.GatewayA)
	for _, spi := range []uint32{gatewaytest.SPIAtoB, 0x7777} {
		forge(t, p, spi)
	}
	deadline := time.Now().Add(10 * time.Second)
	for p.GatewayA.Counters()["InICMPRefused"] < 2 {
		if time.Now().After(deadline) {
			t.Fatalf("the forged messages did not come: %v", p.GatewayA.Counters())
		}
		time.Sleep(10 * time.Millisecond)
	}
	if is := pathOf(t, p.GatewayA); is.PathMtu != before.PathMtu {
		t.Errorf("the path: %+v; expected %+v", is, before)
	}
	ping()
}
