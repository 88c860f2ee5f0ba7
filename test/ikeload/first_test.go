package ikeload

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/test/gatewaytest"
)

const (
	flows     = 1000
	perFlow   = 3  // datagrams, one behind the other
	firstSize = 64 // bytes of UDP
	// hostBuffer is the receiver's socket buffer, in bytes.
	hostBuffer = 16 << 20
)

// firsts is what TestRootFirstPacketsOfAThousandFlows measures with one proposal.
type firsts struct {
	Proposal string  `json:"proposal"`
	Rounds   int     `json:"rounds"`
	Flows    int     `json:"flows"`
	Arrived  int     `json:"arrived"` // datagrams, once each
	P50      float64 `json:"p50_ms"`  // of the first datagram of a flow, from socket to socket
	P99      float64 `json:"p99_ms"`
	Max      float64 `json:"max_ms"`
	Held     uint64  `json:"held"`
}

// A thousand flows start at the same instant, and there is no SA: the first packets wait
// for it, and each arrives once, in the order of its flow. The bounds of the hold are the
// defaults.
func TestRootFirstPacketsOfAThousandFlows(t *testing.T) {
	for _, o := range []struct{ name, proposal string }{
		{"x25519", "aes256gcm16-prfsha384-x25519"},
		{"modp2048", "aes256gcm16-prfsha384-modp2048"},
		{"x25519 and mlkem768", "aes256gcm16-prfsha384-x25519-ke1_mlkem768"},
	} {
		t.Run(o.name, func(t *testing.T) {
			ctx := root(t, 3*time.Minute, 30*time.Minute)
			p := newPair(t, gatewaytest.IKEOptions{IKE: fmt.Sprintf("dpd: off, proposals: [%s]", o.proposal)})
			p.start()
			f := newFlows(t, p)
			r := firsts{Proposal: o.proposal, Rounds: scaled(2, 20), Flows: flows}
			var delays []time.Duration
			// The dataplane asks once a second for each policy.
			again := time.NewTicker(1100 * time.Millisecond)
			defer again.Stop()
			for range r.Rounds {
				<-again.C
				delays = append(delays, f.round(ctx, t)...)
				check(t, p.a.change(ctx, "terminate", ""))
				if !eventually(ctx, slack, func() bool {
					return len(p.a.sas(ctx))+len(p.b.sas(ctx)) == 0 && p.a.installed(ctx)+p.b.installed(ctx) == 0
				}) {
					t.Fatalf("still something there:\n%s", p.describe(ctx))
				}
				if t.Failed() {
					t.Fatalf("A:%s\nB:%s", p.a.drops(ctx), p.b.drops(ctx))
				}
			}
			slices.Sort(delays)
			c := p.a.counters(ctx)
			r.Arrived, r.Held = f.arrived, c["OutHeld"]
			r.P50, r.P99, r.Max = milliseconds(delays[len(delays)/2]), milliseconds(delays[len(delays)*99/100]), milliseconds(delays[len(delays)-1])
			if r.Held == 0 {
				t.Error("no packet was held: nothing is proved")
			}
			figures(t, r)
		})
	}
}

// flowSet is a socket for each flow, and the one that they all send to.
type flowSet struct {
	p       *pair
	from    []*net.UDPConn
	to      *net.UDPConn
	base    uint32
	arrived int
}

func newFlows(t *testing.T, p *pair) *flowSet {
	t.Helper()
	f := &flowSet{p: p}
	f.to = must(p.B.Host.ListenPacket(netip.AddrPortFrom(p.B.Host4, 0)))(t)
	t.Cleanup(func() { _ = f.to.Close() })
	_ = f.to.SetReadBuffer(hostBuffer)
	for range flows {
		conn := must(p.A.Host.ListenPacket(netip.AddrPortFrom(p.A.Host4, 0)))(t)
		t.Cleanup(func() { _ = conn.Close() })
		f.from = append(f.from, conn)
	}
	return f
}

// round starts all flows and takes what arrives. A datagram is its flow, its number and
// when it was sent. It returns the delays of the first of each flow.
func (f *flowSet) round(ctx context.Context, t *testing.T) []time.Duration {
	t.Helper()
	to := f.to.LocalAddr().(*net.UDPAddr).AddrPort()
	f.base += perFlow
	go func() {
		b := make([]byte, firstSize)
		for n := range uint32(perFlow) {
			for flow, conn := range f.from {
				binary.BigEndian.PutUint32(b, uint32(flow))
				binary.BigEndian.PutUint32(b[4:], f.base+n)
				binary.BigEndian.PutUint64(b[8:], uint64(time.Now().UnixNano()))
				_, _ = conn.WriteToUDPAddrPort(b, to)
			}
		}
	}()
	next := make([]uint32, flows)
	var delays []time.Duration
	b := make([]byte, firstSize+1)
	// Behind the last one, a moment for what comes twice.
	for deadline := time.Now().Add(30 * time.Second); ; {
		check(t, f.to.SetReadDeadline(deadline))
		n, _, err := f.to.ReadFromUDPAddrPort(b)
		if errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil {
			break
		}
		check(t, err)
		flow, number := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])-f.base
		if n != firstSize || flow >= flows || number != next[flow] {
			t.Errorf("flow %d: number %d arrives, and %d was next", flow, number, next[min(flow, flows-1)])
			return delays
		}
		if next[flow]++; number == 0 {
			delays = append(delays, time.Since(time.Unix(0, int64(binary.BigEndian.Uint64(b[8:])))))
		}
		if f.arrived++; f.arrived%(flows*perFlow) == 0 {
			deadline = time.Now().Add(200 * time.Millisecond)
		}
	}
	for flow, n := range next {
		if n != perFlow {
			t.Errorf("flow %d: %d of %d datagrams have come", flow, n, perFlow)
			break
		}
	}
	return delays
}
