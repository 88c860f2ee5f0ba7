package ikeload

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/adit-ipsec/adit/internal/ctl"
	"github.com/adit-ipsec/adit/internal/ctl/controlv1"
	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

const (
	tunName = "adit0"
	// A queue that holds all that may wait while a busy machine looks elsewhere:
	// what is lost is then the gateways' fault.
	tunQueue = 100_000 // packets
	payload  = 512     // bytes of UDP
	// slack is how long anything may take that has no figure of its own, on a
	// machine that does other things too.
	slack = 60 * time.Second
)

var marker = []byte("adit-payload-marker-51c9")

// end is one gateway and what asks it.
type end struct {
	*gatewaytest.Gateway
	t    testing.TB
	peer string // the other one, by its name here
	side *netlab.Side
	api  *ctl.Client
}

// pair is two of them.
type pair struct {
	*gatewaytest.IKEPair
	a, b *end
}

func newPair(t *testing.T, o gatewaytest.IKEOptions) *pair {
	t.Helper()
	p := &pair{IKEPair: gatewaytest.NewIKEPair(t, o)}
	p.a = newEnd(t, p.GatewayA, &p.A, "site-b")
	p.b = newEnd(t, p.GatewayB, &p.B, "site-a")
	return p
}

func newEnd(t testing.TB, g *gatewaytest.Gateway, side *netlab.Side, peer string) *end {
	e := &end{Gateway: g, t: t, peer: peer, side: side, api: ctl.NewClient(g.Control)}
	t.Cleanup(e.api.Close)
	return e
}

func (p *pair) start() {
	p.a.start()
	p.b.start()
}

// start runs the gateway, with a long queue in its TUN.
func (e *end) start() {
	e.t.Helper()
	e.Start()
	err := e.side.Gateway.Netlink(func(h *netlink.Handle) error {
		link, err := h.LinkByName(tunName)
		if err != nil {
			return err
		}
		return h.LinkSetTxQLen(link, tunQueue)
	})
	if err != nil {
		e.t.Fatal(err)
	}
}

// change is one call of the control API.
func (e *end) change(ctx context.Context, action, policy string) error {
	return e.api.ChangeIKE(ctx, &controlv1.ChangeIKERequest{Action: action, Peer: e.peer, Policy: policy})
}

// sas are the IKE SAs with a peer; nil also while the gateway does not answer.
func (e *end) sas(ctx context.Context) []*controlv1.IKESA {
	list, err := e.api.IKE(ctx)
	if err != nil {
		return nil
	}
	for _, p := range list.GetPeers() {
		if p.GetName() == e.peer {
			return p.GetSas()
		}
	}
	return nil
}

// tunnel is one IKE SA with one pair of Child SAs, as one end sees it.
type tunnel struct {
	spiI, spiR string
	in, out    uint32
}

// tunnel is what there is with the peer if that is all there is; false: it is more,
// or less.
func (e *end) tunnel(ctx context.Context) (tunnel, bool) {
	sas := e.sas(ctx)
	if len(sas) != 1 || sas[0].GetState() != "established" || len(sas[0].GetChildren()) != 1 {
		return tunnel{}, false
	}
	c := sas[0].GetChildren()[0]
	return tunnel{sas[0].GetSpiI(), sas[0].GetSpiR(), c.GetSpiIn(), c.GetSpiOut()}, true
}

// settled is the one tunnel that both ends have, and agree on; false: it is not so.
func (p *pair) settled(ctx context.Context) (tunnel, bool) {
	a, ok := p.a.tunnel(ctx)
	if !ok {
		return a, false
	}
	b, ok := p.b.tunnel(ctx)
	return a, ok && a.spiI == b.spiI && a.spiR == b.spiR && a.in == b.out && a.out == b.in
}

// settle waits until the two ends have one tunnel and ok holds of it; nil: any.
func (p *pair) settle(ctx context.Context, limit time.Duration, ok func(tunnel) bool) (last tunnel, done bool) {
	done = eventually(ctx, limit, func() bool {
		t, settled := p.settled(ctx)
		last = t
		return settled && (ok == nil || ok(t))
	})
	return last, done
}

// describe is what both ends have, for a failure.
func (p *pair) describe(ctx context.Context) string {
	var b strings.Builder
	for name, e := range map[string]*end{"A": p.a, "B": p.b} {
		fmt.Fprintf(&b, "%s has", name)
		for _, sa := range e.sas(ctx) {
			fmt.Fprintf(&b, " %s_%s %s initiator=%v", sa.GetSpiI(), sa.GetSpiR(), sa.GetState(), sa.GetInitiator())
			for _, c := range sa.GetChildren() {
				fmt.Fprintf(&b, " [%s %08x %08x]", c.GetPolicy(), c.GetSpiIn(), c.GetSpiOut())
			}
		}
		fmt.Fprintf(&b, "; its log ends:\n%s\n", tail(e.Log(), 30))
	}
	return b.String()
}

func tail(log string, lines int) string {
	all := strings.Split(strings.TrimSpace(log), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// counters are those of the gateway, by name.
func (e *end) counters(ctx context.Context) map[string]uint64 {
	e.t.Helper()
	m, err := e.api.Counters(ctx)
	if err != nil {
		e.t.Fatal(err)
	}
	all := map[string]uint64{}
	for _, list := range [][]*controlv1.Counter{m.GetTraffic(), m.GetDrops(), m.GetIke()} {
		for _, c := range list {
			all[c.GetName()] = c.GetValue()
		}
	}
	return all
}

// installed is how many SAs the dataplane has.
func (e *end) installed(ctx context.Context) int {
	m, err := e.api.SAs(ctx)
	if err != nil {
		e.t.Fatal(err)
	}
	return len(m.GetSas())
}

// logged counts the lines of a gateway's log that hold all of these.
func (e *end) logged(parts ...string) (n int) {
	for line := range strings.Lines(e.Log()) {
		ok := true
		for _, part := range parts {
			ok = ok && strings.Contains(line, part)
		}
		if ok {
			n++
		}
	}
	return n
}

// memory is the resident set of the gateway, in bytes.
func (e *end) memory() int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", e.Process().Pid()))
	if err != nil {
		e.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			n, _ := strconv.Atoi(f[1])
			return n << 10
		}
	}
	e.t.Fatal("no VmRSS in /proc")
	return 0
}

// load is numbered UDP from host to host, both ways at once, until it is stopped.
type load struct {
	stop    chan struct{}
	all     sync.WaitGroup
	results [2]netlab.BurstResult // A to B, B to A
	errs    [2]error
}

// maxDatagrams bounds a load: a bit for each.
const maxDatagrams = 1 << 27

// bothWays starts perSecond datagrams a second each way; 0: as fast as it goes, and
// count of them.
func (p *pair) bothWays(ctx context.Context, count, perSecond int) *load {
	l := &load{stop: make(chan struct{})}
	var interval time.Duration
	if perSecond > 0 {
		interval = time.Second / time.Duration(perSecond)
	}
	for i, way := range [2][2]*netlab.Side{{&p.A, &p.B}, {&p.B, &p.A}} {
		l.all.Go(func() {
			l.results[i], l.errs[i] = netlab.UDPBurst(ctx, way[0].Host, way[1].Host, netlab.BurstOptions{
				To: netip.AddrPortFrom(way[1].Host4, 0), Count: count, Size: payload, Interval: interval,
				Quiet: 2 * time.Second, Marker: marker, Stop: l.stop})
		})
	}
	return l
}

// end stops the load and waits for what is on its way.
func (l *load) end(t *testing.T) [2]netlab.BurstResult {
	t.Helper()
	close(l.stop)
	l.all.Wait()
	for _, err := range l.errs {
		if err != nil {
			t.Error(err)
		}
	}
	return l.results
}

// intact fails unless every datagram of a load has arrived once.
func (p *pair) intact(ctx context.Context, t *testing.T, l *load) {
	t.Helper()
	for i, r := range l.end(t) {
		if r.Lost() != 0 || r.Duplicated != 0 || r.Mismatched != 0 || r.SendErrors != 0 || r.Sent == 0 {
			t.Errorf("direction %d: %s, refused %d (%v), longest gap %d\nA:%s\nB:%s", i, r, r.SendErrors, r.LastError, r.MaxGap, p.a.drops(ctx), p.b.drops(ctx))
		}
		t.Logf("direction %d: %s", i, r)
	}
}

// drops is what may have lost a packet on its way: the gateway's drops, and those of
// sockets and interfaces that are the machine's (proc(5)).
func (e *end) drops(ctx context.Context) string {
	var b strings.Builder
	for name, n := range e.counters(ctx) {
		if n != 0 && (strings.HasPrefix(name, "In") || strings.HasPrefix(name, "Out")) {
			fmt.Fprintf(&b, " %s=%d", name, n)
		}
	}
	for _, n := range []*netlab.Node{e.side.Gateway, e.side.Host} {
		_ = n.Do(func() error {
			fmt.Fprintf(&b, "; %s:", n.Name())
			for _, file := range []string{"udp", "raw", "dev"} {
				text, _ := os.ReadFile("/proc/thread-self/net/" + file)
				for line := range strings.Lines(string(text)) {
					f := strings.Fields(line)
					switch {
					case file == "dev" && len(f) == 17 && (f[4] != "0" || f[12] != "0"):
						fmt.Fprintf(&b, " %s in=%s out=%s", f[0], f[4], f[12])
					case file != "dev" && len(f) > 12 && f[12] != "0" && f[0] != "sl":
						fmt.Fprintf(&b, " %s socket=%s", file, f[12])
					}
				}
			}
			return nil
		})
	}
	return b.String()
}

// first sends a datagram until the first one has crossed from A to B: there is a
// tunnel then.
func (p *pair) first(ctx context.Context, t *testing.T) {
	t.Helper()
	ping := must(netlab.Ping(ctx, p.A.Host, netlab.PingOptions{Dst: p.B.Host4, Count: 1, Timeout: slack / 3}))(t)
	if ping.Lost() != 0 {
		t.Fatalf("no tunnel: %s\n%s", ping, p.describe(ctx))
	}
	if _, ok := p.settle(ctx, slack, nil); !ok {
		t.Fatalf("not one IKE SA and one pair:\n%s", p.describe(ctx))
	}
}
