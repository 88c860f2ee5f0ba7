package ike

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

// masquerade gives what comes from the network and leaves through iface that
// interface's address and a random port.
func masquerade(t *testing.T, n *netlab.Node, iface string, from netip.Prefix) {
	t.Helper()
	if err := n.NFT(fmt.Sprintf(`table ip ike_test {
 chain c {
  type nat hook postrouting priority 100; policy accept;
  oifname %q ip saddr %s masquerade random
 }
}
`, iface, from)); err != nil {
		t.Fatal(err)
	}
}

// TestRootRFC7296_2_23_NATIsFoundAndKeptOpen: A is behind a NAT that nobody was told
// of. Both ends find it, IKE and ESP move to port 4500, A keeps the binding open, and
// B, which does not know where A is, takes it from its identity. When the NAT forgets
// the binding, B follows A's next authentic packet.
func TestRootRFC7296_2_23_NATIsFoundAndKeptOpen(t *testing.T) {
	ctx := root(t)
	p := gatewaytest.NewIKEPair(t, gatewaytest.IKEOptions{AddressA: "any"})
	masquerade(t, p.Router, p.B.RouterIface, p.A.WAN4)
	keepalive := strings.NewReplacer("    keying: ike", "    nat_keepalive: 1s\n    keying: ike")
	p.GatewayA.Configure(keepalive.Replace(p.ConfigA))
	start(p)
	wire := must[*netlab.Capture](t)(p.Router.Capture(netlab.CaptureOptions{Iface: p.B.RouterIface}))
	t.Cleanup(func() { _ = wire.Close() })
	if got := ping(ctx, t, p, 3); got.Lost() != 0 {
		t.Fatalf("ping: %s\nA: %v\nB: %v\n%s\n%s", got, moving(p.GatewayA), moving(p.GatewayB), p.GatewayA.Log(), p.GatewayB.Log())
	}
	a, b := until(t, p, "one pair", onePair)
	if !a.SAs[0].BehindNAT || a.SAs[0].PeerNAT || b.SAs[0].BehindNAT || !b.SAs[0].PeerNAT {
		t.Errorf("A: %+v\nB: %+v", a.SAs[0], b.SAs[0])
	}
	for side, at := range map[string]string{"A's own": a.SAs[0].Local, "A's peer": a.SAs[0].Remote, "B's own": b.SAs[0].Local} {
		if !strings.HasSuffix(at, ":4500") {
			t.Errorf("%s end is %s, want port 4500", side, at)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); p.GatewayA.Counters()["OutKeepalives"] < 2; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no keepalives: %v", p.GatewayA.Counters()["OutKeepalives"])
		}
	}
	if n := p.GatewayB.Counters()["OutKeepalives"]; n != 0 {
		t.Errorf("B, which is behind no NAT, sent %d keepalives", n)
	}
	if err := p.Router.FlushNAT(); err != nil {
		t.Fatal(err)
	}
	if got := ping(ctx, t, p, 3); got.Lost() != 0 {
		t.Errorf("ping behind a NAT that has forgotten its binding: %s", got)
	}
	if s := wire.Summary(); !s.OnlyProtected() {
		t.Errorf("the wire: %s", s)
	}
	zeros(t, p, "InAuth", "InNoSA", "OutNoSA", "InNoIKE", "IKEPanicRecovered")
}
