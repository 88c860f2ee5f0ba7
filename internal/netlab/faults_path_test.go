package netlab

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The rates are those that were asked for, both ways and for both families, and
// what is late is overtaken and not lost.
func TestRootDisturbedPathLosesAndReordersAtItsRates(t *testing.T) {
	ctx := root(t)
	net := siteToSite(t, Options{Offloads: true})
	p := must(net.Disturb(PathFaults{LossPercent: 1, LatePercent: 10}))(t)
	defer func() { check(t, p.Close()) }()
	const count = 10_000
	for i, c := range []struct {
		from, to *Node
		dst      netip.Addr
	}{
		{net.A.Gateway, net.B.Gateway, net.B.Outside4},
		{net.B.Gateway, net.A.Gateway, net.A.Outside6},
	} {
		before := must(p.Counts())(t)
		r := must(UDPBurst(ctx, c.from, c.to, BurstOptions{
			To: netip.AddrPortFrom(c.dst, 4500), Count: count, Interval: 20 * time.Microsecond, Quiet: 200 * time.Millisecond}))(t)
		after := must(p.Counts())(t)
		lost, late := after.Lost-before.Lost, after.Late-before.Late
		// Six standard deviations: 10 and 30 packets.
		if lost < 40 || lost > 160 || late < 800 || late > 1170 || after.Packets-before.Packets != count {
			t.Errorf("%d: %d packets, %d lost, %d late: expected %d, 40 to 160, 800 to 1170", i, after.Packets-before.Packets, lost, late, count)
		}
		if after.Returned != after.Late || r.Lost() != int(lost) || r.Duplicated+r.Mismatched != 0 {
			t.Errorf("%d: %v, with %d dropped on purpose and %d of %d late ones sent on", i, r, lost, after.Returned, after.Late)
		}
		if r.Reordered < int(late)*8/10 || r.Reordered > int(late) {
			t.Errorf("%d: %d arrived behind a later one, expected nearly all of the %d late ones", i, r.Reordered, late)
		}
	}
}

// Without faults the path only counts, and what it counted is in order.
func TestRootUndisturbedPathOnlyCounts(t *testing.T) {
	ctx := root(t)
	net := siteToSite(t, Options{})
	p := must(net.Disturb(PathFaults{}))(t)
	r := must(UDPBurst(ctx, net.A.Gateway, net.B.Gateway, BurstOptions{To: netip.AddrPortFrom(net.B.Outside4, 4500)}))(t)
	if c := must(p.Counts())(t); r.Lost()+r.Reordered != 0 || c != (PathCounts{Packets: uint64(r.Sent)}) {
		t.Errorf("%v; the path counted %+v", r, c)
	}
	check(t, p.Close())
	if _, err := p.Counts(); err == nil {
		t.Error("there are counters after Close")
	}
}

// A superpacket crosses veths whole. With faults it is split before them: each
// falls on one wire packet.
func TestRootDisturbedPathSplitsSuperpackets(t *testing.T) {
	root(t)
	for _, c := range []struct {
		faults PathFaults
		want   PathCounts
	}{
		{PathFaults{}, PathCounts{Packets: 1, Long: 1, LongIn: 1}},
		{PathFaults{LatePercent: 100}, PathCounts{Packets: 20, Late: 20}},
	} {
		net := siteToSite(t, Options{Offloads: true})
		p := must(net.Disturb(c.faults))(t)
		tx := must(net.A.Gateway.ListenPacket(netip.AddrPort{}))(t)
		raw := must(tx.SyscallConn())(t)
		check(t, raw.Control(func(fd uintptr) {
			check(t, unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, 1000))
		}))
		must(tx.WriteToUDPAddrPort(make([]byte, 20_000), netip.AddrPortFrom(net.B.Outside4, 4500)))(t)
		got := must(p.Counts())(t)
		got.Returned = 0 // these may still be on their way
		if got != c.want {
			t.Errorf("%+v: 20 datagrams in one superpacket: the path counted %+v, expected %+v", c.faults, got, c.want)
		}
		check(t, tx.Close())
		check(t, p.Close())
	}
}
