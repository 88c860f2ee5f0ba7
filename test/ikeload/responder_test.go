package ikeload

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

// message is one IKE datagram on the wire.
type message struct {
	from   netip.Addr
	header wire.Header
	length int // bytes of the IP packet
}

// messages are the IKE datagrams that a capture has seen, in their order.
func messages(c *netlab.Capture) (list []message) {
	for _, ip := range c.IPPackets() {
		var h packet.Header
		var f packet.Flow
		if packet.Parse(ip, &h, &f) != nil || f.Protocol != packet.ProtoUDP || h.Fragment {
			continue
		}
		b := ip[h.PayloadOffset:h.TotalLen]
		switch {
		case f.SrcPort == 500 || f.DstPort == 500:
		case (f.SrcPort == 4500 || f.DstPort == 4500) && len(b) > 4 && binary.BigEndian.Uint32(b) == 0:
			b = b[4:]
		default:
			continue
		}
		if header, err := wire.ParseHeader(b); err == nil {
			list = append(list, message{f.SrcAddr(), header, h.TotalLen})
		}
	}
	return list
}

// requests counts the requests of an end, by exchange.
func requests(list []message, from netip.Addr) map[wire.ExchangeType]int {
	all := map[wire.ExchangeType]int{}
	for _, m := range list {
		if m.from == from && !m.header.Response() {
			all[m.header.Exchange]++
		}
	}
	return all
}

func (p *pair) capture(t *testing.T) *netlab.Capture {
	t.Helper()
	c := must(p.Router.Capture(netlab.CaptureOptions{Iface: p.B.RouterIface, Marker: marker}))(t)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// clean fails if anything has left in clear.
func clean(t *testing.T, c *netlab.Capture) {
	t.Helper()
	if s := c.Summary(); !s.OnlyProtected() {
		t.Errorf("the wire: %s", s)
	}
}

// push sends n datagrams from a host to the other one, which nobody answers.
func push(t *testing.T, from, to *netlab.Side, n int) {
	t.Helper()
	conn := must(from.Host.ListenPacket(netip.AddrPortFrom(from.Host4, 0)))(t)
	defer func() { _ = conn.Close() }()
	for range n {
		if _, err := conn.WriteTo(append([]byte("push "), marker...), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.Host4, 9))); err != nil {
			t.Fatal(err)
		}
	}
}

// wait lets a time pass in which something must not happen.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// pushDropped sends 100 packets into B's tunnel, which has no SA, and fails unless each
// is dropped for that reason, and no IKE datagram of B's own is on the wire in a time.
func pushDropped(ctx context.Context, t *testing.T, p *pair, c *netlab.Capture, reason string, during time.Duration) {
	t.Helper()
	before, sent := p.b.counters(ctx), requests(messages(c), p.B.Outside4)
	push(t, &p.B, &p.A, 100)
	if !eventually(ctx, slack, func() bool { return p.b.counters(ctx)[reason] == before[reason]+100 }) {
		t.Errorf("%s: expected 100 more, saw %d", reason, p.b.counters(ctx)[reason]-before[reason])
	}
	wait(ctx, during)
	if now := p.b.counters(ctx); now[reason] != before[reason]+100 || now["OutHeld"] != before["OutHeld"] {
		t.Errorf("%s: %d more than before, held: %d", reason, now[reason]-before[reason], now["OutHeld"]-before["OutHeld"])
	}
	if now := requests(messages(c), p.B.Outside4); fmt.Sprint(now) != fmt.Sprint(sent) {
		t.Errorf("requests of the responder-only end: %v, before: %v", now, sent)
	}
	clean(t, c)
}

// K1 and K2: an end that is responder-only begins neither an IKE SA nor a Child SA. Its
// packets are dropped, counted under a reason of their own.
func TestRootK1K2ResponderOnlyBeginsNothing(t *testing.T) {
	for _, role := range []string{"never-initiate", "full", "passive"} {
		t.Run(role, func(t *testing.T) {
			ctx := root(t, 3*time.Minute, 10*time.Minute)
			quiet := scaled(3*time.Second, 30*time.Second)
			p := newPair(t, gatewaytest.IKEOptions{IKE: "dpd: off", ProfileB: "responder_only: " + role})
			c := p.capture(t)
			p.start()
			pushDropped(ctx, t, p, c, "OutResponderOnly", quiet)
			if n := len(messages(c)); n != 0 {
				t.Errorf("IKE datagrams without an SA: expected 0, saw %d", n)
			}
			// K2: the IKE SA is there, the Child SA is not.
			p.first(ctx, t)
			check(t, p.a.change(ctx, "terminate", "lan"))
			if !eventually(ctx, slack, func() bool {
				sas := p.b.sas(ctx)
				return len(sas) == 1 && len(sas[0].GetChildren()) == 0 && p.b.installed(ctx) == 0
			}) {
				t.Fatalf("the Child SA is still there:\n%s", p.describe(ctx))
			}
			wait(ctx, 1100*time.Millisecond) // so long one may still come
			pushDropped(ctx, t, p, c, "OutResponderOnly", quiet)
			if n := requests(messages(c), p.B.Outside4)[wire.CreateChildSA]; n != 0 {
				t.Errorf("CREATE_CHILD_SA of the responder-only end: expected 0, saw %d", n)
			}
		})
	}
}

// K3: what a responder-only end has ends at its hard lifetime: it is not rekeyed, its
// packets are dropped and not sent in clear, and the log says so. Without the flag the
// same configuration rekeys at the soft one.
func TestRootK3ResponderOnlyLetsItsSAsExpire(t *testing.T) {
	soft, hard := scaled(2, 5), scaled(4, 10)
	for _, o := range []struct {
		name, profile string
		rekeys        bool
	}{
		{"full", "responder_only: full", false},
		{"never-rekey", "responder_only: never-rekey", false},
		{"off", "responder_only: off", true},
	} {
		t.Run(o.name, func(t *testing.T) {
			ctx := root(t, 3*time.Minute, 10*time.Minute)
			times := fmt.Sprintf(", lifetime: {soft: %ds, hard: %ds}", soft, hard)
			p := newPair(t, gatewaytest.IKEOptions{
				IKE: "dpd: off", Profile: "lifetime: {soft: 0, hard: 0}", ProfileB: o.profile + times,
			})
			c := p.capture(t)
			p.start()
			p.first(ctx, t)
			first, _ := p.settle(ctx, slack, nil)
			if o.rekeys {
				// Twice: the second is of an SA that B has made.
				for range 2 {
					now, ok := p.settle(ctx, slack, func(n tunnel) bool { return n.in != first.in && n.out != first.out })
					if !ok {
						t.Fatalf("not rekeyed:\n%s", p.describe(ctx))
					}
					first = now
				}
				if n := requests(messages(c), p.B.Outside4)[wire.CreateChildSA]; n == 0 {
					t.Error("the end without the flag has not rekeyed: nothing is proved")
				}
				return
			}
			if !eventually(ctx, slack, func() bool { return p.b.installed(ctx) == 0 }) {
				t.Fatalf("the SAs outlive their hard lifetime:\n%s", p.describe(ctx))
			}
			if n := requests(messages(c), p.B.Outside4)[wire.CreateChildSA]; n != 0 {
				t.Errorf("rekeys of the responder-only end: expected 0, saw %d", n)
			}
			if !eventually(ctx, slack, func() bool { return p.b.logged("reason=expired", "policy=lan") > 0 }) {
				t.Errorf("no event tells of the expiry:\n%s", tail(p.b.Log(), 20))
			}
			if o.name == "full" {
				pushDropped(ctx, t, p, c, "OutResponderOnly", time.Second)
			}
			clean(t, c)
		})
	}
}

// K4: a responder-only end answers every rekey of its peer, under load, and nothing is
// lost.
func TestRootK4ThePeerRekeysAResponderOnlyEnd(t *testing.T) {
	ctx := root(t, 3*time.Minute, 10*time.Minute)
	p := newPair(t, gatewaytest.IKEOptions{IKE: "dpd: off", ProfileB: "responder_only: full"})
	c := p.capture(t)
	p.start()
	p.first(ctx, t)
	load := p.bothWays(ctx, maxDatagrams, 1000)
	now, _ := p.settle(ctx, slack, nil)
	for i := range 20 {
		policy, before := []string{"*", ""}[i%2], now
		check(t, p.a.change(ctx, "renew", policy))
		var ok bool
		if now, ok = p.settle(ctx, slack, func(n tunnel) bool {
			return policy == "" && n.spiI != before.spiI || policy != "" && n.in != before.in
		}); !ok {
			t.Fatalf("rekey %d of %q:\n%s", i, policy, p.describe(ctx))
		}
	}
	p.intact(ctx, t, load)
	if n := requests(messages(c), p.B.Outside4)[wire.CreateChildSA]; n != 0 {
		t.Errorf("rekeys of the responder-only end: expected 0, saw %d", n)
	}
}

// Passive: the end says nothing of its own, whatever happens: its SAs expire, its peer
// is killed, packets want to leave.
func TestRootPassiveSendsNothingUnsolicited(t *testing.T) {
	ctx := root(t, 3*time.Minute, 10*time.Minute)
	p := newPair(t, gatewaytest.IKEOptions{
		IKE: "dpd: off", IKEB: "dpd: 1s, lifetime: {rekey: 3s}",
		ProfileB: "responder_only: passive, lifetime: {soft: 1s, hard: 2s}",
	})
	c := p.capture(t)
	p.start()
	p.first(ctx, t)
	if !eventually(ctx, slack, func() bool { return len(p.b.sas(ctx)) == 0 && p.b.installed(ctx) == 0 }) {
		t.Fatalf("its SAs outlive their lifetimes:\n%s", p.describe(ctx))
	}
	p.a.Kill()
	pushDropped(ctx, t, p, c, "OutResponderOnly", scaled(2*time.Second, 10*time.Second))
	if all := requests(messages(c), p.B.Outside4); len(all) != 0 {
		t.Errorf("requests of the passive end: %v", all)
	}
}

// K6: both ends have packets at the same instant. One IKE SA and one pair of Child SAs
// come of it where one end is responder-only; where none is, duplicates are found,
// counted, and resolved to one.
func TestRootK6BothEndsAtOnce(t *testing.T) {
	for _, o := range []struct {
		name, profile string
		duplicates    bool
	}{
		{"responder-only", "responder_only: full", false},
		{"both initiate", "responder_only: off", true},
	} {
		t.Run(o.name, func(t *testing.T) {
			ctx := root(t, 3*time.Minute, 10*time.Minute)
			p := newPair(t, gatewaytest.IKEOptions{IKE: "dpd: off", ProfileB: o.profile})
			c := p.capture(t)
			p.start()
			// The first messages of both are lost; both say them again half a
			// second later, and they cross.
			check(t, p.Router.Drop("", "udp dport 500"))
			push(t, &p.A, &p.B, 1)
			push(t, &p.B, &p.A, 1)
			if !eventually(ctx, slack, func() bool {
				return len(p.a.sas(ctx)) == 1 && (!o.duplicates || len(p.b.sas(ctx)) == 1)
			}) {
				t.Fatalf("nobody has begun:\n%s", p.describe(ctx))
			}
			check(t, p.Router.Heal("drop"))
			if _, ok := p.settle(ctx, slack, nil); !ok {
				t.Fatalf("not one IKE SA and one pair:\n%s", p.describe(ctx))
			}
			// The duplicate goes a grace after it is found.
			if !eventually(ctx, slack, func() bool {
				_, ok := p.settled(ctx)
				return ok && p.a.installed(ctx) == 2 && p.b.installed(ctx) == 2
			}) {
				t.Errorf("not one pair:\n%s", p.describe(ctx))
			}
			found := p.a.counters(ctx)["IKESaDuplicate"] + p.b.counters(ctx)["IKESaDuplicate"]
			inits := requests(messages(c), p.B.Outside4)[wire.IKESAInit]
			if o.duplicates && found == 0 || !o.duplicates && found+uint64(inits) != 0 {
				t.Errorf("duplicates: %d, IKE_SA_INIT of B: %d", found, inits)
			}
			t.Logf("duplicates found: %d", found)
			p.first(ctx, t)
			clean(t, c)
		})
	}
}

// K8: what routing does to the links under a tunnel makes no second one.
func TestRootK8FlapsLeaveOnePair(t *testing.T) {
	ctx := root(t, 5*time.Minute, 15*time.Minute)
	p := newPair(t, gatewaytest.IKEOptions{IKE: "dpd: off", ProfileB: "responder_only: full"})
	c := p.capture(t)
	p.start()
	p.first(ctx, t)
	was, _ := p.settle(ctx, slack, nil)
	load := p.bothWays(ctx, maxDatagrams, 200)
	for i := range 50 {
		side := []*netlab.Side{&p.A, &p.B}[i%2]
		switch i / 2 % 2 {
		case 0: // the TUN
			check(t, side.Gateway.Down(tunName))
			check(t, side.Gateway.Up(tunName))
		case 1: // the way out
			check(t, side.Gateway.Down(netlab.OutsideIface))
			check(t, side.Gateway.Up(netlab.OutsideIface))
			check(t, side.Gateway.AddDefault(side.Router4))
		}
		wait(ctx, 50*time.Millisecond)
	}
	results := load.end(t)
	if now, ok := p.settle(ctx, slack, nil); !ok || now != was {
		t.Errorf("another tunnel: %+v, before: %+v\n%s", now, was, p.describe(ctx))
	}
	if a, b := p.a.installed(ctx), p.b.installed(ctx); a != 2 || b != 2 {
		t.Errorf("SAs: expected 2 and 2, saw %d and %d", a, b)
	}
	t.Logf("lost in the flaps: %d of %d, %d of %d", results[0].Lost(), results[0].Sent, results[1].Lost(), results[1].Sent)
	clean(t, c)
}
