// Package roam holds that peers behind NATs are followed, and by nobody else
// led: real gateways in namespaces, NATs that forget their bindings, and an
// attacker beside the path.
//
// The root tier rebinds a NAT ten times in ten seconds. `make roam` is the same
// test over a minute, with a rebinding every five seconds.
package roam

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

var (
	every = flag.Duration("every", time.Second, "between two rebindings of the NAT")
	times = flag.Int("times", 10, "how many rebindings")
	rate  = flag.Int("rate", 250, "datagrams a second, each way, while the NAT rebinds")
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(gatewaytest.Main(m))
}

func root(t *testing.T) context.Context {
	t.Helper()
	return gatewaytest.Root(t, time.Duration(*times)**every+60*time.Second)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// behindNAT is two gateways, A behind the router's NAT, which B takes for its
// peer.
func behindNAT(t *testing.T) *gatewaytest.Pair {
	t.Helper()
	p := gatewaytest.NewPair(t, gatewaytest.Options{})
	masquerade(t, p.Router, p.B.RouterIface, p.A.WAN4)
	p.GatewayA.Configure(strings.Replace(p.ConfigA, "keying: manual", "nat_keepalive: 20s\n    keying: manual", 1))
	p.GatewayB.Configure(strings.Replace(p.ConfigB, fmt.Sprintf("address: %q\n    keying", p.A.Outside4), fmt.Sprintf("address: %q\n    keying", p.B.Router4), 1))
	p.Start()
	return p
}

// masquerade gives what comes from the network and leaves through iface that
// interface's address and a random port.
func masquerade(t *testing.T, n *netlab.Node, iface string, from netip.Prefix) {
	t.Helper()
	check(t, n.NFT(fmt.Sprintf(`table ip roam_test {
 chain c {
  type nat hook postrouting priority 100; policy accept;
  oifname %q ip saddr %s masquerade random
 }
}
`, iface, from)))
}

// echo is a stream of numbered datagrams from host A that host B answers.
type echo struct {
	client, server net.PacketConn
	to             netip.AddrPort
	stop           chan struct{}
	sending, done  sync.WaitGroup

	mu             sync.Mutex
	sent, answered []time.Time // by number; zero: not answered
}

// echoSize is the length of a datagram in bytes, and echoBuffer that of a socket's
// buffer: a machine that stalls for a second loses nothing.
const (
	echoSize   = 600
	echoBuffer = 8 << 20
)

func newEcho(t *testing.T, p *gatewaytest.Pair) *echo {
	t.Helper()
	e := &echo{stop: make(chan struct{})}
	listen := func(n *netlab.Node, a netip.Addr) (conn net.PacketConn) {
		check(t, n.Do(func() (err error) {
			conn, err = net.ListenPacket("udp", netip.AddrPortFrom(a, 0).String())
			return err
		}))
		raw, err := conn.(*net.UDPConn).SyscallConn()
		check(t, err)
		check(t, raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, echoBuffer)
		}))
		check(t, err)
		return conn
	}
	e.client, e.server = listen(p.A.Host, p.A.Host4), listen(p.B.Host, p.B.Host4)
	e.to = e.server.LocalAddr().(*net.UDPAddr).AddrPort()
	e.done.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := e.server.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = e.server.WriteTo(buf[:n], from)
		}
	})
	e.done.Go(e.receive)
	e.sending.Go(e.send)
	t.Cleanup(e.close)
	return e
}

func (e *echo) send() {
	tick := time.NewTicker(time.Second / time.Duration(*rate))
	defer tick.Stop()
	b := make([]byte, echoSize)
	for {
		select {
		case <-e.stop:
			return
		case <-tick.C:
		}
		e.mu.Lock()
		binary.BigEndian.PutUint32(b, uint32(len(e.sent)))
		e.sent, e.answered = append(e.sent, time.Now()), append(e.answered, time.Time{})
		e.mu.Unlock()
		if _, err := e.client.WriteTo(b, net.UDPAddrFromAddrPort(e.to)); err != nil {
			return
		}
	}
}

func (e *echo) receive() {
	buf := make([]byte, 2048)
	for {
		n, _, err := e.client.ReadFrom(buf)
		if err != nil {
			return
		}
		now := time.Now()
		e.mu.Lock()
		if i := int(binary.BigEndian.Uint32(buf)); n == echoSize && i < len(e.answered) && e.answered[i].IsZero() {
			e.answered[i] = now
		}
		e.mu.Unlock()
	}
}

// until waits until f holds of what was sent and answered, and tells whether it
// did in time.
func (e *echo) until(limit time.Duration, f func(answered []time.Time) bool) bool {
	for deadline := time.Now().Add(limit); ; time.Sleep(time.Millisecond) {
		e.mu.Lock()
		ok := f(e.answered)
		e.mu.Unlock()
		if ok || time.Now().After(deadline) {
			return ok
		}
	}
}

// quiet ends the sending and waits for the answers that are under way.
func (e *echo) quiet() {
	close(e.stop)
	e.sending.Wait()
	e.until(slack, func(answered []time.Time) bool {
		return len(answered) > 0 && !answered[len(answered)-1].IsZero()
	})
}

func (e *echo) close() {
	select {
	case <-e.stop:
	default:
		close(e.stop)
	}
	_, _ = e.client.Close(), e.server.Close()
	e.sending.Wait()
	e.done.Wait()
}

// rebinding is what one of them cost, as host A saw it.
type rebinding struct {
	flush time.Duration // how long it took
	lost  int           // datagrams without an answer
	after int           // of those, sent when the flush was over
	early time.Duration // how long before the flush the first of the others was sent
	trip  time.Duration // the longest round trip near it
	gap   time.Duration // between the last answer before the flush and the first behind it
}

func (e *echo) around(begin, end time.Time) rebinding {
	r := rebinding{flush: end.Sub(begin)}
	var last time.Time
	for i, sent := range e.sent {
		if d := sent.Sub(begin); d < -*every/2 || d > *every/2 {
			continue
		}
		at := e.answered[i]
		switch {
		case at.IsZero() && sent.After(end):
			r.lost, r.after = r.lost+1, r.after+1
		case at.IsZero():
			r.lost, r.early = r.lost+1, max(r.early, begin.Sub(sent))
		default:
			r.trip = max(r.trip, at.Sub(sent))
			if r.gap == 0 && at.After(end) && !last.IsZero() {
				r.gap = at.Sub(last)
			}
			last = at
		}
	}
	return r
}

// slack is what this machine may add when it is busy. What is not followed is
// away for longer: the flap limit, the next keepalive.
const slack = time.Second

// RFC 7296 2.23: A's NAT rebinds again and again under load, and B follows at A's
// next packet. What B answered in between is lost, the datagrams that were under
// way during the flush, and nothing that A sends after it: no outage is longer
// than one round trip.
func TestRootNATRebindingCostsAtMostOneRoundTrip(t *testing.T) {
	t.Parallel()
	root(t)
	p := behindNAT(t)
	e := newEcho(t, p)
	if !e.until(10*time.Second, func(a []time.Time) bool { return len(a) > 100 && !a[len(a)-50].IsZero() }) {
		t.Fatalf("nothing is answered\nA: %v\nB: %v\nB's log:\n%s", p.GatewayA.Counters(), p.GatewayB.Counters(), p.GatewayB.Log())
	}
	before := p.GatewayB.Counters()
	var flushes [][2]time.Time
	tick := time.NewTicker(*every)
	defer tick.Stop()
	for range *times {
		<-tick.C
		begin := time.Now()
		check(t, p.Router.FlushNAT())
		flushes = append(flushes, [2]time.Time{begin, time.Now()})
	}
	<-tick.C
	e.quiet()
	e.close()
	lost, worst := 0, time.Duration(0)
	for i, f := range flushes {
		r := e.around(f[0], f[1])
		lost, worst = lost+r.lost, max(worst, r.gap)
		t.Logf("rebinding %d: flush %v, %d lost, the first sent %v before it, gap %v, longest round trip %v", i+1, r.flush, r.lost, r.early, r.gap, r.trip)
		if r.after > 0 {
			t.Errorf("rebinding %d: %d datagrams that were sent after it were not answered", i+1, r.after)
		}
		if r.early > r.trip+slack || r.gap > r.flush+r.trip+slack {
			t.Errorf("rebinding %d: lost what was sent %v before it, gap %v: expected at most a round trip, %v", i+1, r.early, r.gap, r.trip)
		}
	}
	total, rtt := 0, time.Duration(0)
	for i, at := range e.answered {
		if at.IsZero() {
			total++
			t.Logf("not answered: number %d, sent %v behind the first", i, e.sent[i].Sub(e.sent[0]))
			continue
		}
		rtt += at.Sub(e.sent[i])
	}
	rtt /= time.Duration(max(1, len(e.sent)-total))
	t.Logf("%d datagrams, %d not answered, mean round trip %v, longest gap %v", len(e.sent), total, rtt, worst)
	if total > lost {
		t.Errorf("%d datagrams were lost, %d of them around a rebinding", total, lost)
	}
	after := p.GatewayB.Counters()
	// A flush takes a while, and may catch the binding that the flow got meanwhile.
	if n := int(after["InPeerMoves"] - before["InPeerMoves"]); n < *times || n > 2**times {
		t.Errorf("B followed %d times, expected %d\n%s", n, *times, p.GatewayB.Log())
	}
	for _, zero := range []string{"InAuth", "InReplay", "InNoSA", "InSelector", "InEndpoint", "OutSendError"} {
		if after[zero] != 0 {
			t.Errorf("B: %s: expected 0, saw %d", zero, after[zero])
		}
	}
	if c := p.GatewayA.Counters(); c["InPeerMoves"] != 0 {
		t.Errorf("A is behind the NAT and followed %d times", c["InPeerMoves"])
	}
}
