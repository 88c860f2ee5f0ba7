package ikeload

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

// restarts is what TestRootKilledGatewayComesBack measures.
type restarts struct {
	Kills     int       `json:"kills"`
	Recovered []float64 `json:"recovered_ms"` // from the start of the process to the first answer
	Packets   int       `json:"esp_packets_seen"`
	SPIs      int       `json:"spis_seen"`
}

// A gateway that is killed comes back with another IKE SA, says INITIAL_CONTACT
// (RFC 7296 2.4), and uses no SPI and no sequence number again: no key has a nonce twice.
// Nothing leaves in clear meanwhile.
func TestRootKilledGatewayComesBack(t *testing.T) {
	ctx := root(t, 4*time.Minute, 20*time.Minute)
	p := newPair(t, gatewaytest.IKEOptions{})
	c := p.capture(t)
	p.start()
	p.first(ctx, t)
	r := restarts{Kills: scaled(3, 20)}
	used := map[uint32]bool{}
	for range r.Kills {
		for _, sa := range p.a.sas(ctx) {
			for _, child := range sa.GetChildren() {
				used[child.GetSpiIn()], used[child.GetSpiOut()] = true, true
			}
		}
		load := p.bothWays(ctx, maxDatagrams, 200)
		wait(ctx, 200*time.Millisecond)
		contacts := p.b.counters(ctx)["IKEInitialContact"]
		p.a.Kill()
		wait(ctx, 100*time.Millisecond)
		p.a.Launch()
		began := time.Now()
		var now tunnel
		if !eventually(ctx, slack, func() (ok bool) { now, ok = p.settled(ctx); return ok && !used[now.in] && !used[now.out] }) {
			t.Fatalf("no new tunnel:\n%s", p.describe(ctx))
		}
		r.Recovered = append(r.Recovered, milliseconds(time.Since(began)))
		p.first(ctx, t) // and it carries packets
		load.end(t)
		if n := p.b.counters(ctx)["IKEInitialContact"]; n == contacts {
			t.Errorf("no INITIAL_CONTACT:\n%s", p.describe(ctx))
		}
	}
	s := c.Summary()
	clean(t, c)
	if uint64(s.Kept) != s.Total() {
		t.Errorf("the capture has not kept all: %s", s)
	}
	seen, spis := map[[8]byte]bool{}, map[uint32]bool{}
	for _, ip := range c.IPPackets() {
		var h packet.Header
		var f packet.Flow
		if packet.Parse(ip, &h, &f) != nil || f.Protocol != packet.ProtoESP || len(ip) < h.PayloadOffset+8 {
			continue
		}
		id := [8]byte(ip[h.PayloadOffset:])
		r.Packets++
		if seen[id] {
			t.Fatalf("SPI and sequence number %x are on the wire twice", id)
		}
		seen[id] = true
		spis[binary.BigEndian.Uint32(id[:])] = true
	}
	if r.SPIs = len(spis); r.SPIs < 2*(r.Kills+1) {
		t.Errorf("SPIs on the wire: expected %d at least, saw %d", 2*(r.Kills+1), r.SPIs)
	}
	figures(t, r)
}
