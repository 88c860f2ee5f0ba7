package swan

import (
	"context"
	"flag"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
)

var rekeys = flag.Int("rekeys", 6, "how many times the Child SA and the IKE SA are rekeyed under load; the issue asks for 200")

// Both SAs are replaced again and again while numbered datagrams cross both ways,
// by either end in turn: none is lost.
func TestRootRekeysUnderLoadLoseNothing(t *testing.T) {
	r := newRig(t, "psk", time.Minute+time.Duration(*rekeys)*6*time.Second)
	r.configure(settings{})
	r.connect("initiator")
	r.carries()
	ctx, stop := context.WithCancel(r.ctx)
	defer stop()
	type way struct {
		name     string
		from, to *netlab.Node
		addr     netip.Addr
		result   netlab.BurstResult
		err      error
	}
	ways := []*way{{name: "A to B", from: r.A.Host, to: r.B.Host, addr: r.B.Host4}, {name: "B to A", from: r.B.Host, to: r.A.Host, addr: r.A.Host4}}
	var wg sync.WaitGroup
	for _, w := range ways {
		wg.Go(func() {
			for ctx.Err() == nil {
				got, err := netlab.UDPBurst(r.ctx, w.from, w.to, netlab.BurstOptions{
					To: netip.AddrPortFrom(w.addr, 0), Count: 500, Size: 200, Interval: time.Millisecond,
				})
				w.result.Sent += got.Sent
				w.result.Received += got.Received
				w.result.Duplicated += got.Duplicated
				if err != nil {
					w.err = err
					return
				}
			}
		})
	}
	began := time.Now()
	for i := range *rekeys {
		for _, what := range []string{"child", "ike"} {
			r.rekey(what, roles[i%2])
		}
		if *rekeys > 20 && (i+1)%10 == 0 {
			t.Logf("%d of %d rekeys of each after %s", i+1, *rekeys, time.Since(began).Round(time.Second))
		}
	}
	stop()
	wg.Wait()
	for _, w := range ways {
		switch lost := w.result.Sent - w.result.Received; {
		case w.err != nil:
			t.Errorf("%s: %v", w.name, w.err)
		case lost != 0 || w.result.Duplicated != 0:
			t.Errorf("%s: %d of %d lost, %d duplicated", w.name, lost, w.result.Sent, w.result.Duplicated)
		default:
			t.Logf("%s: %d datagrams, 0 lost, 0 duplicated, %d rekeys of each SA", w.name, w.result.Sent, *rekeys)
		}
	}
	r.down()
}
