package netlab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/pcap"
)

var marker = []byte("ADIT-MARKER-0123")

func to(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, 0) }

func TestRootTCPTransferIsIntact(t *testing.T) {
	ctx := root(t)
	a, b := pair(t)
	for _, dst := range []netip.Addr{b4, b6} {
		r := must(TCPTransfer(ctx, a, b, TransferOptions{To: to(dst), Bytes: 3<<20 + 7}))(t)
		if !r.Intact() || r.Bytes != 3<<20+7 || r.Duration <= 0 {
			t.Errorf("%s: %+v, expected %d intact bytes", dst, r, 3<<20+7)
		}
	}
}

// A byte that was changed behind every checksum is found, with its place. With
// checksum offload a veth carries TCP without one, and the receiver asks for none.
func TestRootTCPTransferFindsAChangedByte(t *testing.T) {
	ctx := root(t)
	net := siteToSite(t, Options{Offloads: true})
	// Payload: the TCP header, with its timestamps, is bits 0 to 255.
	check(t, net.A.Gateway.Corrupt(InsideIface, "meta l4proto tcp meta length > 1000", 256, 5))
	r := must(TCPTransfer(ctx, net.A.Host, net.A.Gateway, TransferOptions{To: to(net.A.Inside4), Bytes: 3 << 20}))(t)
	if r.Intact() || r.SentSHA256 == r.ReceivedSHA256 || r.Bytes != 3<<20 ||
		r.Difference == nil || !bytes.HasPrefix(r.Difference.Got, []byte{0xff, 0xff}) {
		t.Errorf("expected all bytes and a difference of four ff, saw %d bytes and %v", r.Bytes, r.Difference)
	}
}

func TestRootTCPTransferEndsWithItsContext(t *testing.T) {
	root(t)
	a, b := pair(t)
	check(t, b.Down("eth0"))
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := TCPTransfer(ctx, a, b, TransferOptions{To: to(netip.MustParseAddr("127.0.0.1"))})
	if err == nil {
		t.Error("a transfer to another machine's loopback succeeded")
	}
	_, err = TCPTransfer(ctx, a, b, TransferOptions{To: to(b4)})
	if err == nil {
		t.Error("a transfer over a dead link succeeded")
	}
}

func TestRootUDPBurstAccountsForEveryDatagram(t *testing.T) {
	ctx := root(t)
	a, b := pair(t)
	for _, dst := range []netip.Addr{b4, b6} {
		r := must(UDPBurst(ctx, a, b, BurstOptions{To: to(dst), Count: 3000, Marker: marker}))(t)
		if r.Sent != 3000 || r.Received != 3000 || r.Lost()+r.Duplicated+r.Reordered+r.Mismatched+r.SendErrors != 0 {
			t.Errorf("%s: %v, expected 3000 in order", dst, r)
		}
		if r.MinDelay <= 0 || r.MinDelay > r.MeanDelay || r.MeanDelay > r.MaxDelay {
			t.Errorf("%s: delays %v %v %v", dst, r.MinDelay, r.MeanDelay, r.MaxDelay)
		}
	}
}

// A burst that is stopped has sent what it says, and no gap at its end.
func TestRootUDPBurstStops(t *testing.T) {
	ctx := root(t)
	a, b := pair(t)
	stop := make(chan struct{})
	time.AfterFunc(50*time.Millisecond, func() { close(stop) })
	r := must(UDPBurst(ctx, a, b, BurstOptions{To: to(b4), Count: 1 << 20, Interval: time.Millisecond, Stop: stop}))(t)
	if r.Sent == 0 || r.Sent >= 1<<20 || r.Lost() != 0 || r.MaxGap != 0 {
		t.Errorf("%v, longest gap %d: expected some, all of them there", r, r.MaxGap)
	}
}

func TestRootTCPTransferWithoutHashCountsBytes(t *testing.T) {
	ctx := root(t)
	a, b := pair(t)
	r := must(TCPTransfer(ctx, a, b, TransferOptions{To: to(b4), Bytes: 3<<20 + 7, NoHash: true}))(t)
	if r.Bytes != 3<<20+7 || r.Intact() {
		t.Errorf("%+v, expected %d bytes of which nobody knows whether they are intact", r, 3<<20+7)
	}
}

func TestPingPercentilesAreByNearestRank(t *testing.T) {
	p := pinger{}
	for i := 200; i > 0; i-- {
		p.time(time.Duration(i))
	}
	p.finish()
	if s := p.stats; s.Min != 1 || s.Mean != 100 || s.Median != 100 || s.P99 != 198 || s.Max != 200 {
		t.Errorf("1 to 200 ns: %+v, median %v, 99th %v", s, s.Median, s.P99)
	}
}

func TestRootSetOffloadKnowsItsNames(t *testing.T) {
	root(t)
	a, _ := pair(t)
	check(t, a.SetOffload("eth0", false, "tx-udp-segmentation"))
	check(t, a.SetOffload("eth0", true, "tx-udp-segmentation"))
	if err := a.SetOffload("eth0", false, "tx-udp-segmentation", "tx-nonsense"); err == nil {
		t.Error("an offload that no interface has was turned off")
	}
}

func TestBurstSortsArrivals(t *testing.T) {
	b := newBurst(BurstOptions{Count: 8, Size: 32}, 7)
	datagram := func(number, run uint64) []byte {
		p := make([]byte, 32)
		fillMarked(p[burstHeaderLen-8:], nil, 0)
		binary.BigEndian.PutUint64(p, number)
		binary.BigEndian.PutUint64(p[16:], run)
		return p
	}
	broken := datagram(6, 7)
	broken[31]++
	now := time.Now()
	b.first = now.Add(-time.Second)
	for _, p := range [][]byte{datagram(0, 7), datagram(3, 7), datagram(1, 7), datagram(3, 7),
		datagram(4, 9), broken, datagram(8, 7), {1, 2}, datagram(5, 7)} {
		b.arrived(p, now)
	}
	b.finish()
	want := BurstResult{Received: 4, Duplicated: 1, Reordered: 1, Mismatched: 4, MaxGap: 2, Span: time.Second}
	got := b.r
	got.MinDelay, got.MeanDelay, got.MaxDelay = 0, 0, 0
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestRootCaptureSeesBothDirectionsAndTheMarker(t *testing.T) {
	ctx := root(t)
	a, b := pair(t)
	file := filepath.Join(t.TempDir(), "lan.pcapng")
	c := must(a.Capture(CaptureOptions{Iface: "eth0", File: file, Marker: marker}))(t)
	r := must(UDPBurst(ctx, a, b, BurstOptions{To: to(b4), Count: 100, Marker: marker}))(t)
	s := must(Ping(ctx, a, PingOptions{Dst: b6, Count: 5, Marker: marker}))(t)
	tcp := must(TCPTransfer(ctx, a, b, TransferOptions{To: to(b6), Bytes: 100_000, Marker: marker}))(t)
	if r.Received != 100 || s.Received != 5 || !tcp.Intact() {
		t.Fatalf("traffic: %v; %v; %+v", r, s, tcp)
	}
	sum := c.Summary()
	check(t, c.Close())
	if again := c.Summary(); again.Total() != sum.Total() {
		t.Errorf("%d packets at Close, %d before: traffic had ended", again.Total(), sum.Total())
	}
	// 100 datagrams, 5 requests, 5 answers, and each segment of the transfer
	// that is full.
	if sum.Marked < 110+60 || sum.Dropped != 0 || sum.OnlyProtected() {
		t.Errorf("summary %v, expected at least 170 with the marker, none missed", sum)
	}
	if !c.Contains(marker) || c.Contains([]byte("ADIT-MARKER-9999")) {
		t.Error("Contains: expected the marker, and nothing that was not sent")
	}
	directions := make(map[pcap.Direction]int)
	for _, p := range c.Packets() {
		directions[p.Direction]++
		if age := time.Since(p.Time); age < 0 || age > time.Minute {
			t.Fatalf("time stamp %v", p.Time)
		}
	}
	if directions[pcap.Sent] < 105 || directions[pcap.Received] < 5 {
		t.Errorf("directions %v, expected at least 105 sent and 5 received", directions)
	}
	if info := must(os.Stat(file))(t); info.Mode().Perm() != 0o600 {
		t.Errorf("file mode %v, expected 0600", info.Mode())
	}
	f := must(pcap.Open(file))(t)
	defer f.Close()
	n := 0
	for range sum.Total() {
		must(f.Next())(t)
		n++
	}
	if _, err := f.Next(); err == nil {
		t.Errorf("the file holds more than the %d packets seen", n)
	}
}

// With offloads off at both ends every captured packet is one a wire would
// carry: within the MTU, with its checksums made.
func TestRootOffloadsOffMakesRealPackets(t *testing.T) {
	ctx := root(t)
	a, b := pair(t)
	c := must(b.Capture(CaptureOptions{Iface: "eth0"}))(t)
	defer c.Close()
	for _, dst := range []netip.Addr{b4, b6} {
		must(TCPTransfer(ctx, a, b, TransferOptions{To: to(dst)}))(t)
		must(UDPBurst(ctx, a, b, BurstOptions{To: to(dst), Count: 20}))(t)
	}
	checked := 0
	for _, ip := range c.IPPackets() {
		if len(ip) > 1500 {
			t.Fatalf("packet of %d bytes on a link of 1500", len(ip))
		}
		var h packet.Header
		var f packet.Flow
		check(t, packet.Parse(ip, &h, &f))
		if f.Protocol != packet.ProtoTCP && f.Protocol != packet.ProtoUDP {
			continue
		}
		body := ip[h.TransportOffset:h.TotalLen]
		if sum := packet.Checksum(body, packet.PseudoChecksum(&f, f.Protocol, len(body))); sum != 0xffff {
			t.Fatalf("%v: sum %#x, expected 0xffff", f, sum)
		}
		checked++
	}
	if checked < 1000 {
		t.Errorf("%d packets checked, expected over 1000", checked)
	}
}

func TestRootCaptureKeepsCountingBeyondItsBound(t *testing.T) {
	ctx := root(t)
	a, b := pair(t)
	c := must(a.Capture(CaptureOptions{Iface: "eth0", Keep: 10_000, Marker: marker}))(t)
	must(UDPBurst(ctx, a, b, BurstOptions{To: to(b4), Count: 200, Size: 1000, Marker: marker}))(t)
	// A neighbour's packet may come at any time, and be short enough to be kept.
	s, held := c.Summary(), 0
	packets := c.Packets()
	for _, p := range packets {
		held += len(p.Data)
	}
	if s.Marked != 200 || s.Kept > len(packets) || s.Kept < 9 || held > 10_000 || held < 8_900 {
		t.Errorf("%v, %d kept with %d bytes: expected 200 with the marker and just under 10000 bytes", s, s.Kept, held)
	}
	check(t, c.Close())
	check(t, c.Close())
}

func ipv4(protocol byte, fragment uint16, payload []byte) []byte {
	b := make([]byte, 20, 20+len(payload))
	b[0], b[8], b[9], b[2], b[3] = 0x45, 64, protocol, byte((20+len(payload))>>8), byte(20+len(payload))
	b[5] = 9 // identification
	b[6], b[7] = byte(fragment>>8), byte(fragment)
	copy(b[12:], []byte{192, 0, 2, 1, 192, 0, 2, 2})
	return append(b, payload...)
}

func udp(src, dst uint16, payload []byte) []byte {
	n := 8 + len(payload)
	return append([]byte{byte(src >> 8), byte(src), byte(dst >> 8), byte(dst), byte(n >> 8), byte(n), 0, 0}, payload...)
}

func TestSummaryTellsESPFromTheRest(t *testing.T) {
	esp := bytes.Repeat([]byte{7}, 40)
	ethernet := func(ethertype uint16, b []byte) []byte {
		return append(append(make([]byte, 12), byte(ethertype>>8), byte(ethertype)), b...)
	}
	ipv6 := func(next byte, payload []byte) []byte {
		b := make([]byte, 40)
		b[0], b[5], b[6] = 0x60, byte(len(payload)), next
		return append(b, payload...)
	}
	long := udp(4500, 4500, bytes.Repeat([]byte{9}, 56))
	for _, c := range []struct {
		name  string
		frame []byte
		kind  Kind
	}{
		{"ESP", ethernet(0x0800, ipv4(50, 0, esp)), KindESP},
		{"ESP, IPv6", ethernet(0x86dd, ipv6(50, esp)), KindESP},
		{"AH", ethernet(0x0800, ipv4(51, 0, esp)), KindAH},
		{"ESP in UDP", ethernet(0x0800, ipv4(17, 0, udp(4500, 4500, esp))), KindUDPESP},
		{"ESP in UDP from behind a NAT", ethernet(0x0800, ipv4(17, 0, udp(61000, 4500, esp))), KindUDPESP},
		{"ESP in UDP, IPv6", ethernet(0x86dd, ipv6(17, udp(4500, 4500, esp))), KindUDPESP},
		{"keepalive", ethernet(0x0800, ipv4(17, 0, udp(4500, 4500, []byte{0xff}))), KindKeepalive},
		{"one byte that is no keepalive", ethernet(0x0800, ipv4(17, 0, udp(4500, 4500, []byte{0xfe}))), KindOther},
		{"IKE on 4500", ethernet(0x0800, ipv4(17, 0, udp(4500, 4500, append(make([]byte, 4), esp...)))), KindIKE},
		{"IKE on 500", ethernet(0x0800, ipv4(17, 0, udp(500, 500, esp))), KindIKE},
		{"IKE on 500, behind a NAT", ethernet(0x0800, ipv4(17, 0, udp(61234, 500, esp))), KindIKE},
		{"DNS", ethernet(0x0800, ipv4(17, 0, udp(5353, 53, esp))), KindOther},
		{"ICMP echo", ethernet(0x0800, ipv4(1, 0, make([]byte, 16))), KindOther},
		{"ARP", ethernet(0x0806, make([]byte, 28)), KindNeighbour},
		{"neighbour solicitation", ethernet(0x86dd, ipv6(58, append([]byte{135}, make([]byte, 23)...))), KindNeighbour},
		{"ICMPv6 echo", ethernet(0x86dd, ipv6(58, append([]byte{128}, make([]byte, 23)...))), KindOther},
		{"ICMP about ESP", ethernet(0x0800, ipv4(1, 0, append([]byte{3, 4, 0, 0, 0, 0, 5, 20}, ipv4(50, 0, esp)...))), KindICMPError},
		{"ICMP about ESP in UDP", ethernet(0x0800, ipv4(1, 0, append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, ipv4(17, 0, udp(4500, 4500, esp))...))), KindICMPError},
		{"ICMP about DNS", ethernet(0x0800, ipv4(1, 0, append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, ipv4(17, 0, udp(5353, 53, esp))...))), KindOther},
		{"ICMPv6 about ESP", ethernet(0x86dd, ipv6(58, append([]byte{2, 0, 0, 0, 0, 0, 5, 0}, ipv6(50, esp)...))), KindICMPError},
		{"ICMPv6 about TCP", ethernet(0x86dd, ipv6(58, append([]byte{2, 0, 0, 0, 0, 0, 5, 0}, ipv6(6, esp)...))), KindOther},
		{"broken", ethernet(0x0800, []byte{0x45, 0}), KindOther},
		{"LLDP", ethernet(0x88cc, make([]byte, 20)), KindOther},
		{"runt", []byte{1}, KindOther},
	} {
		s := sorter{natt: 4500}
		s.add(c.frame, pcap.Ethernet)
		if sum := s.summary(); sum.Count(c.kind) != 1 || sum.Total() != 1 {
			t.Errorf("%s: %v, expected one %v", c.name, sum, c.kind)
		}
	}
	first, second := ethernet(0x0800, ipv4(17, 0x2000, long[:32])), ethernet(0x0800, ipv4(17, 4, long[32:]))
	for name, order := range map[string][2][]byte{"in order": {first, second}, "the last one first": {second, first}} {
		s := sorter{natt: 4500}
		s.add(order[0], pcap.Ethernet)
		s.add(order[1], pcap.Ethernet)
		if sum := s.summary(); sum.Count(KindUDPESP) != 2 || !sum.OnlyProtected() {
			t.Errorf("fragments, %s: %v, expected 2 UDP 4500 ESP", name, sum)
		}
	}
	s := sorter{natt: 4500}
	s.add(ipv4(50, 0, esp), pcap.RawIP)
	if sum := s.summary(); sum.Count(KindESP) != 1 {
		t.Errorf("raw IP: %v, expected one ESP", sum)
	}
}

func TestRootFaults(t *testing.T) {
	ctx := root(t)
	a, b := pair(t)
	burst := func() BurstResult {
		t.Helper()
		return must(UDPBurst(ctx, a, b, BurstOptions{
			To: netip.AddrPortFrom(b4, 4500), Count: 2000, Quiet: 100 * time.Millisecond}))(t)
	}
	check(t, b.Loss("eth0", 5))
	if r := burst(); r.Lost() < 40 || r.Lost() > 200 {
		t.Errorf("5 %% loss: %v, expected 40 to 200 of 2000 lost", r)
	}
	check(t, b.Heal("loss"))
	check(t, b.DropEvery("eth0", "udp dport 4500", 10))
	if r := burst(); r.Lost() != 200 || r.MaxGap != 1 {
		t.Errorf("every tenth: %v, expected 200 of 2000 lost, one at a time", r)
	}
	check(t, b.Heal("every"))
	check(t, b.Corrupt("eth0", "udp dport 4500", 64+24*8, 10))
	if r := burst(); r.Mismatched != 200 || r.Received != 1800 {
		t.Errorf("corrupt: %v, expected 200 mismatched", r)
	}
	check(t, b.Heal("corrupt"))
	check(t, b.Drop("eth0", "ip protocol udp @th,64,64 5"))
	if r := burst(); r.Lost() != 1 {
		t.Errorf("one number: %v, expected 1 lost", r)
	}
	check(t, b.Heal("drop"))
	check(t, a.DropOutput("udp dport 4500"))
	if r := burst(); r.Sent != 0 || r.SendErrors != 2000 {
		t.Errorf("output: %v with %d errors, expected 2000 errors", r, r.SendErrors)
	}
	check(t, a.Heal("output"))
	check(t, b.DropLongerThan("eth0", 1000))
	small := must(Ping(ctx, a, PingOptions{Dst: b4, Size: 972}))(t)
	big := must(Ping(ctx, a, PingOptions{Dst: b4, Size: 973, Timeout: 100 * time.Millisecond}))(t)
	if small.Received != 1 || big.Received != 0 || big.LastError != nil {
		t.Errorf("black hole at 1000: %v and %v, expected one answer and silence", small, big)
	}
	check(t, b.Heal("blackhole"))
	if r := burst(); r.Received != 2000 {
		t.Errorf("healed: %v", r)
	}
}

func TestRootDuplicate(t *testing.T) {
	ctx := root(t)
	net := siteToSite(t, Options{})
	check(t, net.Router.Duplicate(net.B.RouterIface, net.B.Outside4, 10))
	r := must(UDPBurst(ctx, net.A.Gateway, net.B.Gateway, BurstOptions{To: to(net.B.Outside4), Count: 2000}))(t)
	if r.Received != 2000 || r.Duplicated < 150 || r.Duplicated > 250 {
		t.Errorf("%v, expected all, and about 200 twice", r)
	}
}

func TestRootReorder(t *testing.T) {
	ctx := root(t)
	net := siteToSite(t, Options{})
	check(t, net.Reorder("meta l4proto udp", 10, 2_000_000))
	r := must(UDPBurst(ctx, net.A.Gateway, net.B.Gateway, BurstOptions{
		To: to(net.B.Outside4), Count: 2000, Size: 200, Interval: 20 * time.Microsecond, Quiet: 3 * time.Second}))(t)
	if r.Reordered < 20 || r.Lost() != 0 || r.Mismatched != 0 {
		t.Errorf("%v, expected at least 20 out of order and none lost", r)
	}
}

func TestRootMasqueradeChangesTheSource(t *testing.T) {
	ctx := root(t)
	net := siteToSite(t, Options{})
	source := func(port uint16) netip.AddrPort {
		t.Helper()
		rx := must(net.B.Gateway.ListenPacket(to(net.B.Outside4)))(t)
		defer rx.Close()
		tx := must(net.A.Gateway.ListenPacket(netip.AddrPortFrom(net.A.Outside4, port)))(t)
		defer tx.Close()
		must(tx.WriteToUDPAddrPort([]byte("x"), rx.LocalAddr().(interface{ AddrPort() netip.AddrPort }).AddrPort()))(t)
		deadline, _ := ctx.Deadline()
		check(t, rx.SetReadDeadline(deadline))
		_, from, err := rx.ReadFromUDPAddrPort(make([]byte, 10))
		check(t, err)
		return netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	}
	check(t, net.Router.Masquerade(net.B.RouterIface))
	if got := source(4500); got.Addr() != net.B.Router4 {
		t.Errorf("masqueraded source %v, expected address %v", got, net.B.Router4)
	}
	check(t, net.Router.SNAT(net.B.RouterIface, net.B.Router4, 20000, 20010))
	if got := source(4501); got.Addr() != net.B.Router4 || got.Port() < 20000 || got.Port() > 20010 {
		t.Errorf("translated source %v, expected %v with a port of 20000-20010", got, net.B.Router4)
	}
	check(t, net.Router.Heal("nat"))
	if got := source(4502); got != netip.AddrPortFrom(net.A.Outside4, 4502) {
		t.Errorf("source %v without NAT, expected %v", got, net.A.Outside4)
	}
}

func TestRootNFTSaysWhatIsWrong(t *testing.T) {
	root(t)
	a, _ := pair(t)
	if err := a.NFT("this is no ruleset\n"); err == nil || !strings.Contains(err.Error(), "syntax error") {
		t.Errorf("error %v, expected nft's own words", err)
	}
}

func TestRootDialAndListenStayInTheirNode(t *testing.T) {
	ctx := root(t)
	a, b := pair(t)
	l := must(b.Listen(netip.AddrPortFrom(b4, 0)))(t)
	defer l.Close()
	addr := l.Addr().(interface{ AddrPort() netip.AddrPort }).AddrPort()
	c := must(a.Dial(ctx, "tcp", addr))(t)
	check(t, c.Close())
	lo := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), addr.Port())
	if c, err := a.Dial(ctx, "tcp", lo); err == nil {
		c.Close()
		t.Error("the other machine's listener answers on this one's loopback")
	} else if errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("loopback: %v, expected a refusal: it is up", err)
	}
}
