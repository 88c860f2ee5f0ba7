package netlab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/packet"
)

// LateStep is the clock of a late line: what comes in one step is sent on at
// the end of the next.
const LateStep = time.Millisecond

const (
	lateIface    = "late0"
	lateQueueLen = 10000 // packets that may wait for the reader
	lateMTU      = 65535 // bytes: whatever is routed here fits
)

// everywhere is the default prefix of each family.
var everywhere = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// lateLine is a TUN in a router that packets with the mark latePath are routed
// into, and come out of again later. Nothing is dropped, however many are late,
// and packets of one step leave in the reverse order of their arrival. It costs
// this process two system calls for each late packet and none for the others.
type lateLine struct {
	tun      *os.File
	undo     func() error
	returned atomic.Uint64
	stop     chan struct{}
	done     sync.WaitGroup

	mu    sync.Mutex // guards what follows
	fresh [][]byte   // came in this step
}

func (n *Node) newLateLine() (*lateLine, error) {
	tun, err := n.openTUN(lateIface)
	if err != nil {
		return nil, err
	}
	l := &lateLine{tun: tun, stop: make(chan struct{}), undo: n.unroute}
	err = n.withLink(lateIface, "route late packets", func(link netlink.Link) error {
		if err := errors.Join(
			n.nl.LinkSetMTU(link, lateMTU), n.nl.LinkSetTxQLen(link, lateQueueLen), n.nl.LinkSetUp(link)); err != nil {
			return err
		}
		return n.route(link)
	})
	if err != nil {
		return nil, errors.Join(err, n.unroute(), tun.Close())
	}
	l.done.Add(2)
	go l.take()
	go l.give()
	return l, nil
}

// openTUN makes a TUN device without packet information. It goes with the file.
func (n *Node) openTUN(name string) (tun *os.File, err error) {
	err = n.Do(func() error {
		ifr, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		tun = os.NewFile(uintptr(fd), name)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("netlab: %s: tun %s: %w", n.name, name, err)
	}
	return tun, nil
}

// route sends packets with the mark into the line.
func (n *Node) route(link netlink.Link) error {
	var errs []error
	for _, dst := range everywhere {
		errs = append(errs,
			n.nl.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(dst), Table: latePath}),
			n.nl.RuleAdd(lateRule(dst.Addr().Is4())))
	}
	return errors.Join(errs...)
}

// unroute takes the rules away; the routes go with the device.
func (n *Node) unroute() error {
	var errs []error
	for _, dst := range everywhere {
		if err := n.nl.RuleDel(lateRule(dst.Addr().Is4())); !errors.Is(err, unix.ENOENT) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func lateRule(v4 bool) *netlink.Rule {
	rule := netlink.NewRule()
	rule.Family, rule.Mark, rule.Table, rule.Priority = unix.AF_INET6, latePath, latePath, 99
	if v4 {
		rule.Family = unix.AF_INET
	}
	return rule
}

// take reads packets until the device is closed.
func (l *lateLine) take() {
	defer l.done.Done()
	buf := make([]byte, lateMTU)
	for {
		n, err := l.tun.Read(buf)
		if err != nil {
			return
		}
		if !routedHere(buf[:n]) {
			continue
		}
		l.mu.Lock()
		l.fresh = append(l.fresh, slices.Clone(buf[:n]))
		l.mu.Unlock()
	}
}

// routedHere tells what came by the mark from what the kernel says of its own on
// an interface that is up: router solicitations, group membership.
func routedHere(ip []byte) bool {
	if len(ip) < 20 {
		return false
	}
	protocol := ip[9]
	if ip[0]>>4 == 6 {
		protocol = ip[6]
	}
	return protocol == packet.ProtoUDP || protocol == packet.ProtoESP
}

// give sends on, at the end of each step, what came in the step before it.
func (l *lateLine) give() {
	defer l.done.Done()
	tick := time.NewTicker(LateStep)
	defer tick.Stop()
	var due [][]byte
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
		}
		for _, p := range slices.Backward(due) {
			if _, err := l.tun.Write(p); err == nil {
				l.returned.Add(1)
			}
		}
		l.mu.Lock()
		due, l.fresh = l.fresh, due[:0]
		l.mu.Unlock()
	}
}

func (l *lateLine) close() error {
	close(l.stop)
	err := errors.Join(l.undo(), l.tun.Close())
	l.done.Wait()
	return err
}
