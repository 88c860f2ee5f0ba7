package replace

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/adit-ipsec/adit/internal/netlab"
)

// The link towards B carries linkRate; of it, EF takes 40 % and is served first.
// Best effort offers 110 %, so that 150 % want through and its queue is full all
// the time: what comes out of it is most of a second old.
const (
	linkRate   = 20_000_000 / 8 // bytes per second
	linkQueue  = 1000           // packets of best effort that wait
	classSize  = 1000           // bytes of UDP
	outerSize  = classSize + 28 + 14 + 8 + 8 + 20 + 2 + 16 + 20
	efShare    = 0.4
	bestShare  = 1.1
	floodTime  = 4 * time.Second
	efPort     = 6046
	bestPort   = 6000
	expedited  = 46
	dscpWindow = 64 // packets: the least that RFC 4303 3.4.3 wants as a default
)

// priority makes the router's interface towards B a slow link with a priority
// queue: htb with two classes, into which nftables puts packets by their DSCP.
func priority(t *testing.T, lab *netlab.Topology) {
	t.Helper()
	err := lab.Router.Netlink(func(h *netlink.Handle) error {
		link, err := h.LinkByName(lab.B.RouterIface)
		if err != nil {
			return err
		}
		if err := h.LinkSetTxQLen(link, linkQueue); err != nil { // what a class's own queue takes
			return err
		}
		index, handle := link.Attrs().Index, netlink.MakeHandle
		htb := netlink.NewHtb(netlink.QdiscAttrs{LinkIndex: index, Handle: handle(1, 0), Parent: netlink.HANDLE_ROOT})
		htb.Defcls = 0x20
		class := func(parent, minor uint16, share float64, prio uint32) error {
			return h.ClassAdd(netlink.NewHtbClass(
				netlink.ClassAttrs{LinkIndex: index, Parent: handle(1, parent), Handle: handle(1, minor)},
				netlink.HtbClassAttrs{Rate: uint64(share * linkRate * 8), Ceil: linkRate * 8, Prio: prio}))
		}
		return errors.Join(h.QdiscAdd(htb),
			class(0, 1, 1, 0), class(1, 0x10, 0.6, 0), class(1, 0x20, 0.4, 1))
	})
	if err != nil {
		t.Fatalf("a link with a priority queue: %v", err)
	}
	if err := lab.Router.NFT(fmt.Sprintf(`table ip classes { chain c {
 type filter hook postrouting priority 0;
 oifname %q ip dscp %d meta priority set 1:10
}
}
`, lab.B.RouterIface, expedited)); err != nil {
		t.Fatal(err)
	}
	if err := lab.A.Host.NFT(fmt.Sprintf(`table ip colour { chain c {
 type route hook output priority 0;
 udp dport %d ip dscp set %d
}
}
`, efPort, expedited)); err != nil {
		t.Fatal(err)
	}
}

// flood sends both classes at once and says what arrived.
func flood(ctx context.Context, t *testing.T, a, b *site) (ef, best netlab.BurstResult) {
	t.Helper()
	var all sync.WaitGroup
	class := func(r *netlab.BurstResult, port uint16, share float64) {
		all.Go(func() {
			rate := share * linkRate / outerSize
			var err error
			*r, err = netlab.UDPBurst(ctx, a.Host, b.Host, netlab.BurstOptions{
				To: netip.AddrPortFrom(b.Host4, port), Size: classSize, Quiet: 3 * time.Second,
				Count: int(rate * floodTime.Seconds()), Interval: time.Duration(float64(time.Second) / rate)})
			if err != nil {
				t.Error(err)
			}
		})
	}
	class(&ef, efPort, efShare)
	class(&best, bestPort, bestShare)
	all.Wait()
	return ef, best
}

// RFC 4301 4.1: EF and best effort at 150 % of a link with a priority queue, through
// one tunnel. On one SA the window takes what waited for a replay; with an SA for
// each class nothing is taken for one, and EF loses nothing at all.
func TestRootRFC4301_4_1_DSCPFloodHasNoReplayDropsWithAnSAPerClass(t *testing.T) {
	for _, classes := range []bool{false, true} {
		t.Run(fmt.Sprintf("an SA per class=%v", classes), func(t *testing.T) {
			ctx := root(t)
			lab, a, b := raise(t)
			priority(t, lab)
			out, in := association(t, a, b, 0x2001)
			efOut, efIn := association(t, a, b, 0x2002)
			in.ReplayWindow, efIn.ReplayWindow = dscpWindow, dscpWindow
			efOut.DSCPs = []uint8{expedited}
			err := errors.Join(a.gw.Install(out), b.gw.Install(in))
			if classes {
				err = errors.Join(err, a.gw.Install(efOut), b.gw.Install(efIn))
			}
			if err != nil {
				t.Fatal(err)
			}
			ef, best := flood(ctx, t, a, b)
			replays := b.gw.Stats().Counter("InReplay")
			t.Logf("EF: %s\nbest effort: %s\nreplay drops: %d", ef, best, replays)
			path := fmt.Sprintf("A:%s\nB:%s", a.counters(), b.counters())
			if ef.Lost() != 0 {
				t.Errorf("EF, which is served first: %d lost\n%s", ef.Lost(), path)
			}
			if best.Lost() == 0 || best.Received == 0 {
				t.Errorf("150 %% of the link: expected some of best effort to be lost and some not, saw %d of %d arrive", best.Received, best.Sent)
			}
			if classes {
				if replays != 0 || b.gw.Stats().Counter("InAuth") != 0 {
					t.Errorf("replay drops: expected 0, saw %d\n%s", replays, path)
				}
				if best.MeanDelay < 2*ef.MeanDelay || best.MeanDelay < 100*time.Millisecond {
					t.Errorf("the queue did not prefer EF: mean delay %v, and %v for best effort", ef.MeanDelay, best.MeanDelay)
				}
			} else if replays < 100 {
				t.Errorf("one SA: expected the queue to push packets out of the window, saw %d replay drops\n%s", replays, path)
			}
		})
	}
}
