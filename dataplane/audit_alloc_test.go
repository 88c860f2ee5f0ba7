//go:build !race

package dataplane

import (
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
)

// A flood of bad packets, audited, allocates nothing: not for the first of a
// second, nor for those behind it.
func TestAuditAllocatesNothing(t *testing.T) {
	r := newRig(t, options{})
	r.arrive(r.good(1))
	stranger := r.sealed(2, packet.ProtoIPv6, inner{src: hostS, dst: gwB6.Addr(), payload: "x"}.udp())
	nobody := inner{src: hostA, dst: gwB4.Addr(), payload: "x"}.udp()
	bad := [][]byte{r.good(1), flip(r.good(1000), 300), stranger}
	w := r.in[wireUDP]
	flood := func() {
		r.now += eventInterval / 2
		for range 10 {
			for i, p := range bad {
				d := &w.grams[i]
				d.Off, d.Addr = packet.Headroom, gwB4
				d.Len = copy(d.Mem[packet.Headroom:], p)
			}
			w.walk(len(bad))
			r.gw.out[0].bufs[0].Set(nobody)
			r.gw.out[0].walk(1)
		}
		r.gw.audits(r.now, false)
		for len(r.gw.events) > 0 {
			<-r.gw.events
		}
	}
	r.now = time.Second
	if n := testing.AllocsPerRun(50, flood); n != 0 {
		t.Errorf("expected 0 allocations, saw %v", n)
	}
	if r.gw.Stats().Counter("InAuth") < 500 {
		t.Error("the packets were not dropped as they should be")
	}
}
