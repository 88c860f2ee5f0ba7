package ikeload

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

// The hubs' virtual address, which is the router's, and the network behind each.
var (
	virtual = netip.MustParseAddr("198.51.100.100")
	hubLAN  = netip.MustParsePrefix("10.9.0.0/24")
	service = netip.MustParseAddr("10.9.0.10") // at each of the hubs
)

// virtuals is spokes in front of a router and two responder-only hubs behind it, which
// share one address.
//
//	spoke 0, spoke 1 -- router (DNAT of the virtual address) -- hub 0, hub 1
type virtuals struct {
	*netlab.Lab
	router   *netlab.Node
	spokes   [2]*end
	hubs     [2]*end
	captures [2]*netlab.Capture // at the router, towards a spoke
}

func spokeAddress(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, byte(10 + i), 1}) }
func spokeInside(i int) netip.Addr  { return netip.AddrFrom4([4]byte{10, 8, byte(i), 10}) }
func hubAddress(i int) netip.Addr   { return netip.AddrFrom4([4]byte{172, 16, byte(i), 1}) }

// neighbour is the .254 of the address's network.
func neighbour(a netip.Addr) netip.Addr {
	b := a.As4()
	b[3] = 254
	return netip.AddrFrom4(b)
}

func newVirtuals(t *testing.T, lifetime time.Duration) *virtuals {
	t.Helper()
	lab := must(netlab.New("virtual"))(t)
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Errorf("closing the network: %v", err)
		}
	})
	v := &virtuals{Lab: lab, router: must(lab.Node("router"))(t)}
	check(t, v.router.Forwarding(true))
	secrets := [2]string{gatewaytest.RandomSecret(), gatewaytest.RandomSecret()}
	for i := range 2 {
		v.hubs[i] = v.gateway(t, fmt.Sprintf("hub%d", i), hubAddress(i), service, "spoke0", hubConfig(hubAddress(i), secrets, lifetime))
		v.spokes[i] = v.gateway(t, fmt.Sprintf("spoke%d", i), spokeAddress(i), spokeInside(i), "hub", spokeConfig(i, secrets[i], lifetime))
		v.captures[i] = must(v.router.Capture(netlab.CaptureOptions{Iface: fmt.Sprintf("spoke%d", i), Keep: 1 << 30, Marker: marker}))(t)
		t.Cleanup(func() { _ = v.captures[i].Close() })
	}
	v.route(t, 0, 1)
	return v
}

// gateway is a node beyond the router, with an inner address of its own.
func (v *virtuals) gateway(t *testing.T, name string, outer, inner netip.Addr, peer, text string) *end {
	t.Helper()
	node := must(v.Node(name))(t)
	check(t, v.Link(node, netlab.OutsideIface, v.router, name, 0))
	check(t, node.AddAddr(netlab.OutsideIface, netip.PrefixFrom(outer, 24)))
	check(t, v.router.AddAddr(name, netip.PrefixFrom(neighbour(outer), 24)))
	check(t, node.AddDefault(neighbour(outer)))
	check(t, node.AddAddr("lo", netip.PrefixFrom(inner, 32)))
	return newEnd(t, gatewaytest.New(t, node, text), &netlab.Side{Host: node, Gateway: node, Host4: inner}, peer)
}

// route has the load balancer send each spoke to a hub.
func (v *virtuals) route(t *testing.T, hubs ...int) {
	t.Helper()
	var rules []string
	for i, hub := range hubs {
		rules = append(rules, fmt.Sprintf("  ip saddr %s ip daddr %s dnat to %s\n", spokeAddress(i), virtual, hubAddress(hub)))
	}
	check(t, v.router.NFT("table ip balancer\ndelete table ip balancer\ntable ip balancer {\n chain c {\n  type nat hook prerouting priority -100; policy accept;\n"+
		strings.Join(rules, "")+" }\n}\n"))
	// What the other spokes have stays, as with any balancer: their bindings are in use.
	check(t, v.router.Do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		defer h.Close()
		var one netlink.ConntrackFilter
		if err := one.AddIP(netlink.ConntrackOrigSrcIP, spokeAddress(0).AsSlice()); err != nil {
			return err
		}
		_, err = h.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.FAMILY_V4, &one)
		return err
	}))
}

func times(lifetime time.Duration) string {
	return fmt.Sprintf("lifetime: {soft: %s, hard: %s}", (lifetime * 8 / 10).Truncate(time.Second), lifetime)
}

func hubConfig(own netip.Addr, secrets [2]string, lifetime time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\nname: hub\nstate_dir: $STATE\ncontrol: $CONTROL\nlisten: {address: %s, outside: [%s]}\n", own, netlab.OutsideIface)
	fmt.Fprintf(&b, "profiles:\n  default: {responder_only: full, %s}\npeers:\n", times(lifetime))
	for i, secret := range secrets {
		fmt.Fprintf(&b, "  - name: spoke%d\n    address: %s\n    keying: ike\n    ike: {local_id: hub.example.net, remote_id: spoke%[1]d.example.net, auth: {psk: %[3]q}, lifetime: {rekey: %s}}\n",
			i, spokeAddress(i), secret, lifetime)
	}
	b.WriteString("policies:\n")
	for i := range secrets {
		fmt.Fprintf(&b, "  - name: lan%d\n    local: [%s]\n    remote: [%s/32]\n    action: protect\n    peer: spoke%[1]d\n", i, hubLAN, spokeInside(i))
	}
	return b.String()
}

func spokeConfig(i int, secret string, lifetime time.Duration) string {
	return fmt.Sprintf(`version: 1
name: spoke%d
state_dir: $STATE
control: $CONTROL
listen: {address: %s, outside: [%s]}
tun: {addresses: [%s/32]}
profiles:
  default: {%s}
peers:
  - name: hub
    address: %s
    keying: ike
    ike: {local_id: spoke%[1]d.example.net, remote_id: hub.example.net, auth: {psk: %[7]q}, start: now, dpd: 1s, lifetime: {rekey: %[8]s}}
policies:
  - name: lan
    local: [%[4]s/32]
    remote: [%[9]s]
    action: protect
    peer: hub
`, i, spokeAddress(i), netlab.OutsideIface, spokeInside(i), times(lifetime), virtual, secret, lifetime, hubLAN)
}

// strangers counts, in what a spoke has been sent, the packets of IKE and ESP that come
// from another address than the virtual one, and all of those.
func strangers(c *netlab.Capture, spoke netip.Addr) (all, strange int) {
	for _, ip := range c.IPPackets() {
		var h packet.Header
		var f packet.Flow
		if packet.Parse(ip, &h, &f) != nil || f.DstAddr() != spoke {
			continue
		}
		ports := []uint16{500, 4500}
		if f.Protocol == packet.ProtoESP || f.Protocol == packet.ProtoUDP && (slices.Contains(ports, f.SrcPort) || slices.Contains(ports, f.DstPort)) {
			if all++; f.SrcAddr() != virtual {
				strange++
			}
		}
	}
	return all, strange
}

// K7: two responder-only hubs behind one virtual address, with short lifetimes: no packet
// reaches a spoke from another address than that. When a hub is killed, its spoke
// initiates again and is on the other.
func TestRootK7HubsBehindAVirtualAddress(t *testing.T) {
	ctx := root(t, 5*time.Minute, 20*time.Minute)
	lifetime, during := scaled(4*time.Second, 10*time.Second), scaled(15*time.Second, 10*time.Minute)
	v := newVirtuals(t, lifetime)
	for i := range 2 {
		v.hubs[i].start()
		v.spokes[i].start()
	}
	ask, answered := v.pings(ctx, t)
	say(ctx, t, func() string { return fmt.Sprintf("%v answered of %v", answered(), ask()) })
	if !eventually(ctx, slack, func() bool { a := answered(); return a[0] > 0 && a[1] > 0 }) {
		t.Fatalf("no answers: %v of %v\n%s", answered(), ask(), tail(v.spokes[0].Log(), 30))
	}
	before := v.hubs[0].logged("rekey CHILD_SA", "outcome=done")
	wait(ctx, during)
	if n := v.hubs[0].logged("rekey CHILD_SA", "outcome=done") - before; n < int(during/lifetime)/2 {
		t.Errorf("rekeys in %s with a lifetime of %s: %d", during, lifetime, n)
	}
	steady, lost := ask(), answered()
	v.hubs[0].Kill()
	killed := time.Now()
	v.route(t, 1, 1)
	now := answered()[0]
	if !eventually(ctx, 2*time.Minute, func() bool { return answered()[0] > now+3 }) {
		t.Errorf("the spoke of the killed hub is not on the other:\n%s", tail(v.spokes[0].Log(), 40))
	}
	moved := time.Since(killed)
	total, strange := [2]int{}, [2]int{}
	for i, c := range v.captures {
		total[i], strange[i] = strangers(c, spokeAddress(i))
		if s := c.Summary(); strange[i] != 0 || total[i] < 20 || uint64(s.Kept) != s.Total() || !s.OnlyProtected() {
			t.Errorf("spoke %d: %d packets, %d from another address; the wire: %s", i, total[i], strange[i], s)
		}
	}
	figures(t, map[string]any{
		"seconds": during.Seconds(), "lifetime_seconds": lifetime.Seconds(), "packets_to_spokes": total, "from_another_source": strange,
		"pings": steady, "answered": lost, "moved_after_kill_ms": milliseconds(moved),
	})
}

// pings has each spoke ask the service behind the hubs, over and over, until the test
// ends. It gives how many have been asked, and how many answered.
func (v *virtuals) pings(ctx context.Context, t *testing.T) (asked, answered func() [2]int) {
	t.Helper()
	var mu sync.Mutex
	var counts, answers [2]int
	ctx, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	t.Cleanup(func() { stop(); all.Wait() })
	for i, spoke := range v.spokes {
		all.Go(func() {
			for ctx.Err() == nil {
				r, _ := netlab.Ping(ctx, spoke.side.Host, netlab.PingOptions{Dst: service, Src: spokeInside(i), Count: 1, Timeout: time.Second, Marker: marker})
				mu.Lock()
				counts[i]++
				answers[i] += r.Received
				mu.Unlock()
				wait(ctx, 20*time.Millisecond)
			}
		})
	}
	read := func(of *[2]int) func() [2]int {
		return func() [2]int {
			mu.Lock()
			defer mu.Unlock()
			return *of
		}
	}
	return read(&counts), read(&answers)
}
