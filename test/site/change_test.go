package site

import (
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

// A policy that becomes discard at a reload, under traffic: what was protected
// is dropped, and none of it follows the host's routes in clear.
func TestRootReloadFromProtectToDiscardLetsNothingOut(t *testing.T) {
	root(t)
	p := gatewaytest.NewPair(t, gatewaytest.Options{})
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
	p.GatewayA.Configure(strings.Replace(p.ConfigA, "    action: protect\n    peer: peer\n", "    action: discard\n", 1))
	if err := p.GatewayA.Process().Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	discarded := uint64(0)
	for deadline := time.Now().Add(20 * time.Second); discarded < 100 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, err := conn.WriteToUDPAddrPort([]byte("was protected"), netip.AddrPortFrom(p.B.Host4, 9)); err != nil {
			t.Fatal(err)
		}
		if time.Now().UnixMilli()%50 == 0 {
			discarded = p.GatewayA.Counters()["OutDiscard"]
		}
	}
	if discarded < 100 {
		t.Errorf("OutDiscard: expected at least 100, saw %d\n%s", discarded, p.GatewayA.Log())
	}
	clear := 0
	for _, ip := range wire.IPPackets() {
		if len(ip) > 20 && string(ip[12:16]) == string(p.A.Host4.AsSlice()) {
			clear++
		}
	}
	if s := wire.Summary(); clear != 0 || !s.OnlyProtected() {
		t.Error(fmt.Sprintf("in clear on the wire: %d packets: ", clear), s)
	}
}

// A TUN that an operator set down and up again carries as before.
func TestRootTUNDownAndUpCarriesAgain(t *testing.T) {
	root(t)
	p := gatewaytest.NewPair(t, gatewaytest.Options{})
	p.Start()
	pings(t, p, p.B.Host4, 1)
	if err := p.A.Gateway.Down("adit0"); err != nil {
		t.Fatal(err)
	}
	if err := p.A.Gateway.Up("adit0"); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(p.GatewayA.Log(), "its routes are back"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the routes did not come back:\n%s", p.GatewayA.Log())
		}
	}
	pings(t, p, p.B.Host4, 3)
	pings(t, p, p.B.Host6, 3)
	p.GatewayA.Stop()
	p.GatewayB.Stop()
}
