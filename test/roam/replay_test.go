package roam

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

// The attacker is beside the path: it has a network of its own at the router.
var (
	attackerNet = netip.MustParsePrefix("203.0.113.0/24")
	attackerAt  = netip.MustParseAddr("203.0.113.66")
)

// attacker is a node that sends to B from another address than A's.
func attacker(t *testing.T, p *gatewaytest.Pair) net.Conn {
	t.Helper()
	node, err := p.Node("attacker")
	check(t, err)
	check(t, p.Link(node, "eth0", p.Router, "x0", 0))
	gateway := netip.MustParseAddr("203.0.113.254")
	check(t, p.Router.AddAddr("x0", netip.PrefixFrom(gateway, attackerNet.Bits())))
	check(t, node.AddAddr("eth0", netip.PrefixFrom(attackerAt, attackerNet.Bits())))
	check(t, node.AddDefault(gateway))
	var conn net.Conn
	check(t, node.Do(func() (err error) {
		conn, err = net.Dial("udp", netip.AddrPortFrom(p.B.Outside4, 4500).String())
		return err
	}))
	t.Cleanup(func() { _ = conn.Close() })
	withoutChecksum(t, conn) // RFC 3948 2.1: "SHOULD be transmitted as a zero value"
	return conn
}

// espFromA are the ESP packets in UDP that the capture saw on their way to B.
func espFromA(c *netlab.Capture) (list [][]byte) {
	for _, ip := range c.IPPackets() {
		if len(ip) > 28+8 && ip[0] == 0x45 && ip[9] == 17 && binary.BigEndian.Uint32(ip[28:]) == gatewaytest.SPIAtoB {
			list = append(list, ip[28:])
		}
	}
	return list
}

// waitFor polls until the gateway's counter is at least n.
func waitFor(t *testing.T, g *gatewaytest.Gateway, name string, n uint64) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c := g.Counters()
		if c[name] >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: expected %d, saw %d; all: %v\n%s", name, n, c[name], c, g.Log())
		}
	}
}

// RFC 7296 2.23: "otherwise, an attacker can revert the addresses with old
// replayed packets". Neither a packet that B has seen, nor one that was kept from
// it and is older than what it has seen, moves A when it comes from another
// address.
func TestRootOffPathReplayNeverMovesThePeer(t *testing.T) {
	t.Parallel()
	ctx := root(t)
	p := behindNAT(t)
	from := attacker(t, p)
	capture, err := p.Router.Capture(netlab.CaptureOptions{Iface: p.A.RouterIface})
	check(t, err)
	t.Cleanup(func() { _ = capture.Close() })
	ping := func(count int, timeout time.Duration) netlab.PingStats {
		stats, err := netlab.Ping(ctx, p.A.Host, netlab.PingOptions{Dst: p.B.Host4, Count: count, Timeout: timeout})
		check(t, err)
		return stats
	}
	if s := ping(20, time.Second); s.Lost() > 1 {
		t.Fatalf("before: %s\n%s", s, p.GatewayB.Log())
	}
	seen := espFromA(capture)
	// What A sends now is captured, and never reaches B …
	check(t, p.Router.Drop(p.A.RouterIface, "udp dport 4500"))
	if s := ping(5, 50*time.Millisecond); s.Received != 0 {
		t.Fatalf("while the path is cut: %s", s)
	}
	held := espFromA(capture)[len(seen):]
	check(t, p.Router.Heal("drop"))
	// … and B has seen newer ones when it arrives.
	if s := ping(5, time.Second); s.Lost() != 0 {
		t.Fatalf("after the path is back: %s", s)
	}
	if len(seen) < 19 || len(held) != 5 {
		t.Fatalf("captured %d packets and held back %d, expected 20 and 5", len(seen), len(held))
	}
	before := p.GatewayB.Counters()
	where := remoteOf(t, p.GatewayB)
	for _, esp := range seen {
		_, err := from.Write(esp)
		check(t, err)
	}
	waitFor(t, p.GatewayB, "InReplay", before["InReplay"]+uint64(len(seen)))
	for _, esp := range held {
		_, err := from.Write(esp)
		check(t, err)
	}
	waitFor(t, p.GatewayB, "InPeerElsewhere", before["InPeerElsewhere"]+uint64(len(held)))
	if got := remoteOf(t, p.GatewayB); got != where || strings.Contains(got, attackerAt.String()) {
		t.Errorf("A was at %s, and is at %s now", where, got)
	}
	if s := ping(20, time.Second); s.Lost() != 0 {
		t.Errorf("afterwards: %s", s)
	}
	if n := p.GatewayB.Counters()["InPeerMoves"]; n != before["InPeerMoves"] {
		t.Errorf("B followed %d times more", n-before["InPeerMoves"])
	}
	if log := p.GatewayB.Log(); !strings.Contains(log, "PeerElsewhere") || !strings.Contains(log, attackerAt.String()) {
		t.Errorf("the log does not say that packets came from %s:\n%s", attackerAt, log)
	}
}

// remoteOf is where the gateway's outbound SA sends to, as `adit sa list` says.
func remoteOf(t *testing.T, g *gatewaytest.Gateway) string {
	t.Helper()
	out, err := g.Command("sa", "list")
	check(t, err)
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 5 && f[1] == "out" {
			return f[5]
		}
	}
	t.Fatalf("no outbound SA:\n%s", out)
	return ""
}
