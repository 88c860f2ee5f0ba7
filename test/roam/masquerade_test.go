package roam

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

// client is a gateway behind a NAT, with one inner address of its own.
type client struct {
	name    string
	inner   netip.Addr
	remote  string // what B's policy gives it
	spi     uint32 // towards B; 0x1000 more from B
	out, in string // keys
	node    *netlab.Node
	behind  int // which NAT
	gateway *gatewaytest.Gateway
}

func hexKey() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

// insideB is the one inner address behind B.
var insideB = netip.MustParseAddr("10.2.0.1")

// nats is the network of these tests: B at 198.51.100.1, and NATs at .2 and .3 of
// the same network, with the clients behind them.
type nats struct {
	*netlab.Lab
	b       *netlab.Node
	nodes   []*netlab.Node
	clients []*client
	gateway *gatewaytest.Gateway
}

func outside(nat int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(2 + nat)}) }

// newNATs builds the network and starts B and the clients.
func newNATs(t *testing.T, clients ...*client) *nats {
	t.Helper()
	lab, err := netlab.New("nats")
	check(t, err)
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Errorf("closing the network: %v", err)
		}
	})
	n := &nats{Lab: lab, clients: clients}
	node := func(name string, router bool) *netlab.Node {
		node, err := lab.Node(name)
		check(t, err)
		check(t, node.Forwarding(router))
		return node
	}
	n.b = node("B", true)
	for _, c := range clients {
		for len(n.nodes) <= c.behind {
			n.addNAT(t, node(fmt.Sprint("nat", len(n.nodes)), true))
		}
		c.node, c.out, c.in = node(c.name, true), hexKey(), hexKey()
		n.addClient(t, c)
	}
	n.gateway = gatewaytest.New(t, n.b, n.configB())
	n.gateway.Start()
	for _, c := range clients {
		c.gateway = gatewaytest.New(t, c.node, c.config())
		c.gateway.Start()
	}
	return n
}

// addNAT links a NAT to B, each with a network of two of its own.
func (n *nats) addNAT(t *testing.T, nat *netlab.Node) {
	t.Helper()
	i := len(n.nodes)
	n.nodes = append(n.nodes, nat)
	iface := fmt.Sprint("n", i)
	check(t, n.Link(nat, "wan0", n.b, iface, 0))
	check(t, nat.AddAddr("wan0", netip.PrefixFrom(outside(i), 32)))
	at := netip.MustParseAddr("198.51.100.1")
	if i == 0 {
		check(t, n.b.AddAddr("lo", netip.PrefixFrom(at, 32)))
	}
	check(t, onLink(nat, at, "wan0"))
	check(t, onLink(n.b, outside(i), iface))
	masquerade(t, nat, "wan0", netip.MustParsePrefix("192.168.0.0/16"))
}

func onLink(n *netlab.Node, to netip.Addr, iface string) error {
	_, err := n.Run("ip", "route", "add", to.String(), "dev", iface)
	return err
}

func (n *nats) addClient(t *testing.T, c *client) {
	t.Helper()
	i := 0
	for _, other := range n.clients {
		if other == c {
			break
		}
		i++
	}
	nat := n.nodes[c.behind]
	iface := fmt.Sprint("c", i)
	subnet := func(last byte) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(i), last}), 24)
	}
	check(t, n.Link(c.node, "wan0", nat, iface, 0))
	check(t, c.node.AddAddr("wan0", subnet(1)))
	check(t, nat.AddAddr(iface, subnet(254)))
	check(t, c.node.AddDefault(subnet(254).Addr()))
}

const head = "version: 1\nstate_dir: $STATE\ncontrol: $CONTROL\n"

func sas(outSPI uint32, out string, inSPI uint32, in string) string {
	return fmt.Sprintf(`    keying: manual
    sas:
      - {direction: out, spi: 0x%x, suite: null-sha256, integrity_key: %q}
      - {direction: in, spi: 0x%x, suite: null-sha256, integrity_key: %q}
`, outSPI, out, inSPI, in)
}

func (c *client) config() string {
	return head + fmt.Sprintf("tun: {addresses: [%s/32]}\npeers:\n  - name: b\n    address: 198.51.100.1\n    nat_keepalive: 1s\n", c.inner) +
		sas(c.spi, c.out, c.spi+0x1000, c.in) +
		fmt.Sprintf("policies:\n  - {name: b, local: [%s], remote: [%s], action: protect, peer: b}\n", c.inner, insideB)
}

func (n *nats) configB() string {
	var peers, policies strings.Builder
	for _, c := range n.clients {
		fmt.Fprintf(&peers, "  - name: %s\n    address: %s\n%s", c.name, outside(c.behind), sas(c.spi+0x1000, c.in, c.spi, c.out))
		fmt.Fprintf(&policies, "  - {name: %s, local: [%s], remote: [%s], action: protect, peer: %s}\n", c.name, insideB, c.remote, c.name)
	}
	return head + fmt.Sprintf("tun: {addresses: [%s/32]}\npeers:\n%spolicies:\n%s", insideB, &peers, &policies)
}

func (c *client) ping(ctx context.Context, count int, timeout time.Duration) (netlab.PingStats, error) {
	return netlab.Ping(ctx, c.node, netlab.PingOptions{Src: c.inner, Dst: insideB, Count: count, Interval: 5 * time.Millisecond, Timeout: timeout})
}

// RFC 3948 5: two gateways that one NAT hides behind one address both work, at
// once: inbound the SPI tells them apart, outbound the port. A third, behind
// another NAT, that has the inner address of the first, is refused: the policy
// gives that address to the first (5.1).
func TestRootSeveralGatewaysBehindNATs(t *testing.T) {
	t.Parallel()
	ctx := root(t)
	same := netip.MustParseAddr("10.1.0.1")
	n := newNATs(t,
		&client{name: "first", inner: same, remote: "10.1.0.1", spi: 0x2001},
		&client{name: "second", inner: netip.MustParseAddr("10.1.0.2"), remote: "10.1.0.2", spi: 0x2002},
		&client{name: "third", inner: same, remote: "10.1.0.0/24", spi: 0x2003, behind: 1})
	const count = 200
	stats := make([]netlab.PingStats, len(n.clients))
	errs := make([]error, len(n.clients))
	var all sync.WaitGroup
	for i, c := range n.clients {
		all.Go(func() {
			switch i {
			case 2:
				stats[i], errs[i] = c.ping(ctx, count/10, 20*time.Millisecond)
			default:
				stats[i], errs[i] = c.ping(ctx, count, time.Second)
			}
		})
	}
	all.Wait()
	for i, c := range n.clients {
		switch s := stats[i]; {
		case errs[i] != nil:
			t.Errorf("%s: %v", c.name, errs[i])
		case i < 2 && (s.Lost() != 0 || s.Duplicated != 0 || s.Mismatched != 0):
			t.Errorf("%s: %s\nits counters: %v", c.name, s, c.gateway.Counters())
		case i == 2 && s.Received != 0:
			t.Errorf("%s has another peer's inner address and was answered: %s", c.name, s)
		}
	}
	out, err := n.gateway.Command("sa", "list")
	check(t, err)
	at, remote := map[string]string{}, 0
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if i := slices.Index(f, "REMOTE"); i > 0 {
			remote = i
		}
		if len(f) > remote && remote > 0 && f[1] == "out" {
			at[f[0]] = f[remote]
		}
	}
	first, second := at["first"], at["second"]
	if nat := outside(0).String() + ":"; first == second || !strings.HasPrefix(first, nat) || !strings.HasPrefix(second, nat) {
		t.Errorf("expected two ports of %s, saw first at %s and second at %s", outside(0), first, second)
	}
	c := n.gateway.Counters()
	if c["InSelector"] != count/10 {
		t.Errorf("InSelector: expected the third's %d packets, saw %d", count/10, c["InSelector"])
	}
	if c["InPackets"] != 2*count || c["OutPackets"] != 2*count {
		t.Errorf("expected %d packets each way, saw %d in and %d out: %v", 2*count, c["InPackets"], c["OutPackets"], c)
	}
	// Keepalives arrive, a second after the last packet, and change nothing.
	waitFor(t, n.gateway, "InKeepalives", 3)
	if after := n.gateway.Counters(); after["InPeerMoves"] != c["InPeerMoves"] || after["OutKeepalives"] != 0 {
		t.Errorf("keepalives: B moved %d peers, and sent %d itself", after["InPeerMoves"]-c["InPeerMoves"], after["OutKeepalives"])
	}
}
