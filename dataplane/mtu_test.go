package dataplane

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// narrow gives the rig's outbound SA a path of that many bytes.
func (r *rig) narrow(mtu int) *sad.SA {
	sa := r.outSA()
	sa.SetPathMTU(mtu, sad.MTUICMP, int64(r.now))
	return sa
}

// udpOf is an inner packet of that many bytes.
func udpOf(six, df bool, length int) []byte {
	in, headers := inner{src: hostA, dst: hostB, df: df}, 28
	if six {
		in.src, in.dst, headers = host6, hostS, 48
	}
	in.payload = strings.Repeat("0123456789abcdef", length/16+1)[:length-headers]
	return in.udp()
}

// ptb fails unless p is the right answer to offending, by gopacket's reading, and
// returns its MTU.
func ptb(t *testing.T, p, offending []byte) int {
	t.Helper()
	first := layers.LayerTypeIPv4
	if offending[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	}
	got := gopacket.NewPacket(p, first, gopacket.Default)
	var quoted []byte
	var mtu int
	var src, dst netip.Addr
	if first == layers.LayerTypeIPv4 {
		ip, _ := got.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
		icmp, ok := got.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
		if !ok || icmp.TypeCode != layers.CreateICMPv4TypeCode(3, 4) {
			t.Fatalf("no ICMP 3/4: %s", got)
		}
		mtu, quoted = int(icmp.Seq), icmp.Payload
		src, dst = netip.AddrFrom4([4]byte(ip.SrcIP.To4())), netip.AddrFrom4([4]byte(ip.DstIP.To4()))
	} else {
		ip, _ := got.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
		icmp, ok := got.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
		if !ok || icmp.TypeCode != layers.CreateICMPv6TypeCode(2, 0) {
			t.Fatalf("no Packet Too Big: %s", got)
		}
		mtu, quoted = int(binary.BigEndian.Uint32(icmp.Payload)), icmp.Payload[4:]
		src, dst = netip.AddrFrom16([16]byte(ip.SrcIP)), netip.AddrFrom16([16]byte(ip.DstIP))
	}
	var h packet.Header
	var f packet.Flow
	if err := packet.Parse(offending, &h, &f); err != nil {
		t.Fatal(err)
	}
	if dst != f.SrcAddr() || src != f.DstAddr() {
		t.Errorf("from %s to %s: expected from %s to %s", src, dst, f.DstAddr(), f.SrcAddr())
	}
	if len(quoted) < 48 || !bytes.HasPrefix(offending, quoted) {
		t.Errorf("it quotes %d bytes, not the packet's first", len(quoted))
	}
	return mtu
}

// The matrix on top of mtu.go: every kind of inner packet, every DF mode, both
// ways to fragment, over both families of outer packet. The path takes 1300 bytes;
// with the widest outer packet not even 1280 bytes of IPv6 fit it.
func TestRFC4301_8_TooLongForThePath(t *testing.T) {
	const ptbs, cuts, whole = "ptb", "cut", "whole"
	for _, c := range []struct {
		kind             string
		six, df, after   bool
		length           int
		copy, set, clear string
	}{
		{"IPv4 with DF", false, true, false, 1400, ptbs, ptbs, whole},
		{"IPv4, before", false, false, false, 1400, cuts, cuts, cuts},
		{"IPv4, after", false, false, true, 1400, whole, cuts, whole},
		{"IPv6, 1281 bytes", true, false, false, 1281, ptbs, ptbs, whole},
		{"IPv6, 1280 bytes", true, false, false, 1280, whole, whole, whole},
	} {
		for _, remote := range []netip.AddrPort{gwB4, gwB6} {
			for mode, want := range map[sad.DFMode]string{sad.DFCopy: c.copy, sad.DFSet: c.set, sad.DFClear: c.clear} {
				t.Run(fmt.Sprintf("%s, %s, over %s", c.kind, mode, remote), func(t *testing.T) {
					r := newRig(t, options{remote: remote, tunnel: sad.Tunnel{DF: mode}, fragment: fragmentMode(c.after)})
					sa := r.narrow(1300)
					p := udpOf(c.six, c.df, c.length)
					var got []sent
					want4 := map[DropReason]uint64(nil)
					if want == ptbs {
						want4 = map[DropReason]uint64{OutTooBig: 1}
					}
					r.counts(want4, func() { got = r.send(p) })
					back := r.tun.take()
					if (want == ptbs) != (len(back) == 1) {
						t.Fatalf("%d packets came back: %x", len(back), back)
					}
					switch want {
					case ptbs:
						mtu := sa.InnerMTU()
						if c.six {
							mtu = max(mtu, 1280)
						}
						if said := ptb(t, back[0], p); said != mtu || len(got) != 0 {
							t.Errorf("MTU %d and %d datagrams; expected %d and none", said, len(got), mtu)
						}
					case cuts:
						r.reassembles(sa, got, p, mode == sad.DFSet)
					case whole:
						if len(got) != 1 || got[0].DF {
							t.Fatalf("%d datagrams, %+v; expected one without DF", len(got), got)
						}
						r.opens(got, 1, [][]byte{p})
					}
				})
			}
		}
	}
}

func fragmentMode(after bool) sad.FragmentMode {
	if after {
		return sad.FragmentAfter
	}
	return sad.FragmentBefore
}

// reassembles fails unless got are fragments of p that fit the path, as many as
// are needed, numbered from 1.
func (r *rig) reassembles(sa *sad.SA, got []sent, p []byte, df bool) {
	r.t.Helper()
	var data []byte
	for i, d := range got {
		if outer := sa.OuterLen(0) - sa.Suite.SealedLen(0) + d.Len; outer > sa.PathMTU().MTU || d.DF != df {
			r.t.Errorf("fragment %d: an outer packet of %d bytes with DF %v on a path of %d", i, outer, d.DF, sa.PathMTU().MTU)
		}
		open, err := r.opened(d, uint64(i+1))
		if err != nil {
			r.t.Fatal(err)
		}
		var h packet.Header
		var f packet.Flow
		if err := packet.Parse(open.Payload, &h, &f); err != nil || h.TotalLen != len(open.Payload) {
			r.t.Fatalf("fragment %d: %v", i, err)
		}
		if h.FragmentOffset != len(data) || h.DF || packet.Checksum(open.Payload[:20], 0) != 0xffff {
			r.t.Errorf("fragment %d: offset %d; expected %d, no DF and a right checksum", i, h.FragmentOffset, len(data))
		}
		if more := open.Payload[6]&0x20 != 0; more != (i < len(got)-1) {
			r.t.Errorf("fragment %d of %d: more fragments: %v", i, len(got), more)
		}
		data = append(data, open.Payload[20:]...)
	}
	if !bytes.Equal(data, p[20:]) {
		r.t.Errorf("%d fragments hold %d bytes, not the packet's %d", len(got), len(data), len(p)-20)
	}
	if n := (len(p) - 20 + (sa.InnerMTU()-20)&^7 - 1) / ((sa.InnerMTU() - 20) &^ 7); len(got) != n {
		r.t.Errorf("%d fragments; expected %d", len(got), n)
	}
}

// What is as long as the inner MTU passes whole, one byte more does not: in every
// suite, over both families, with and without UDP, and the outer packet is never
// longer than the path. RFC 4301 8.2.1: the MTU inward is the path's less what
// the SA adds.
func TestRFC4301_8_2_InnerMTUIsExact(t *testing.T) {
	for _, c := range []options{
		{}, {remote: gwB6}, {encap: sad.EncapNone}, {encap: sad.EncapNone, remote: gwB6},
		{suite: "aes256-sha512"}, {suite: "chacha20poly1305"}, {suite: "null-sha256", remote: gwB6}, {suite: "aes128ctr-sha384"},
	} {
		for _, path := range []int{1280, 1299, 1300, 1301, 1400, 1492, 1500, 9000} {
			r := newRig(t, c)
			sa := r.narrow(path)
			n := sa.InnerMTU()
			var got []sent
			r.counts(nil, func() { got = r.send(udpOf(false, true, n)) })
			if len(got) != 1 || !got[0].DF {
				t.Fatalf("%+v: %d bytes on a path of %d: %d datagrams", c, n, path, len(got))
			}
			if outer := sa.OuterLen(n); outer > path || sa.OuterLen(n+1) <= path {
				t.Errorf("%+v: %d bytes make an outer packet of %d on a path of %d", c, n, outer, path)
			}
			long := udpOf(false, true, n+1)
			r.dropped(OutTooBig, func() { r.send(long) })
			if back := r.tun.take(); len(back) != 1 || ptb(t, back[0], long) != n {
				t.Errorf("%+v: %d answers; expected one with MTU %d", c, len(back), n)
			}
		}
	}
}

// A superpacket whose segments are too long: one message for the flow, and the
// segments are counted; without DF each is cut.
func TestSuperpacketTooLongForThePath(t *testing.T) {
	for _, six := range []bool{false, true} {
		r := newRig(t, options{})
		sa := r.narrow(1300)
		s := fromASuper(10*1400, 1400)
		if six {
			s.src, s.dst = host6, hostS
		}
		r.counts(map[DropReason]uint64{OutTooBig: 10}, func() {
			if got := r.sendMixed(s); len(got) != 0 {
				t.Errorf("%d datagrams", len(got))
			}
		})
		back := r.tun.take()
		if len(back) != 1 {
			t.Fatalf("%d answers; expected 1", len(back))
		}
		want := sa.InnerMTU()
		if six {
			want = 1280
		}
		if said := ptb(t, back[0], s.segments()[0]); said != want {
			t.Errorf("MTU %d; expected %d", said, want)
		}
	}
}

func TestSuperpacketWithoutDFIsCutSegmentBySegment(t *testing.T) {
	for _, after := range []bool{false, true} {
		r := newRig(t, options{fragment: fragmentMode(after)})
		sa := r.narrow(1300)
		s := super{src: hostA, dst: hostB, udp: true, payload: 3*1400 + 100, size: 1400, noDF: true}
		want := s.segments()
		var got []sent
		r.counts(nil, func() { got = r.sendMixed(fromA("before"), s, fromA("behind")) })
		if after {
			r.opens(got, 1, append(append([][]byte{fromA("before")}, want...), fromA("behind")))
			continue
		}
		if len(got) != 2+2*3+1 {
			t.Fatalf("%d datagrams; expected 2 of each of 3 segments, 1 of the last, and 2 others", len(got))
		}
		for i, d := range got {
			if d.DF || sa.OuterLen(0)-sa.Suite.SealedLen(0)+d.Len > 1300 {
				t.Errorf("datagram %d: %d bytes, DF %v", i, d.Len, d.DF)
			}
			open, err := r.opened(d, uint64(i+1))
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 && !bytes.Equal(open.Payload, fromA("before")) || i == len(got)-1 && !bytes.Equal(open.Payload, fromA("behind")) ||
				i == len(got)-2 && !bytes.Equal(open.Payload, want[3]) {
				t.Errorf("datagram %d is out of order", i)
			}
		}
	}
}

// The messages are rare, the counter is not.
func TestRFC4443_2_4_TooBigMessagesAreLimited(t *testing.T) {
	r := newRig(t, options{})
	r.narrow(1300)
	long := udpOf(false, true, 1400)
	flood := make([][]byte, 3*tooBigBurst)
	for i := range flood {
		flood[i] = long
	}
	r.counts(map[DropReason]uint64{OutTooBig: uint64(len(flood))}, func() { r.send(flood...) })
	if n := len(r.tun.take()); n != tooBigBurst {
		t.Errorf("%d messages; expected %d", n, tooBigBurst)
	}
	r.now += eventInterval
	r.send(long)
	if n := len(r.tun.take()); n != 1 {
		t.Errorf("a second later: %d messages; expected 1", n)
	}
	if n := r.gw.Stats().Counter("OutTooBigSent"); n != tooBigBurst+1 {
		t.Errorf("OutTooBigSent: %d", n)
	}
}

// The end of the number space in the middle of a packet's fragments.
func TestFragmentsStopWithTheNumbers(t *testing.T) {
	r := newRig(t, options{noESN: true, store: &startAt{1<<32 - 1 - 2}})
	r.narrow(576)
	r.counts(map[DropReason]uint64{OutSeqExhausted: 1}, func() {
		if got := r.send(udpOf(false, false, 1400)); len(got) != 2 {
			t.Errorf("%d datagrams; expected 2 of 3 fragments", len(got))
		}
	})
}

// A SYN's MSS, both ways and in both families, is what the path has room for;
// nothing else is touched, and its checksum stays right.
func TestMSSFollowsThePath(t *testing.T) {
	for _, six := range []bool{false, true} {
		for _, path := range []int{1300, 1500, 0} {
			for _, flags := range []string{"SYN", "SYN ACK", "ACK"} {
				r := newRig(t, options{})
				sa := r.narrow(path)
				headers, next := 40, uint8(packet.ProtoIPv4)
				a, b := hostA, hostB
				if six {
					headers, next, a, b = 60, packet.ProtoIPv6, host6, hostS
				}
				want := uint16(1460)
				if path > 0 && flags != "ACK" {
					want = uint16(min(1460, sa.InnerMTU()-headers))
				}
				got := r.send(tcpOf(a, b, flags, 1460))
				open, err := r.opened(got[0], 1)
				if err != nil {
					t.Fatal(err)
				}
				if mss, ok := mssOf(t, open.Payload); mss != want || !ok {
					t.Errorf("%s outbound, path %d: MSS %d, checksum %v; expected %d", flags, path, mss, ok, want)
				}
				in := r.arrive(r.sealed(1, next, tcpOf(b, a, flags, 1460)))
				if mss, ok := mssOf(t, in[0]); mss != want || !ok {
					t.Errorf("%s inbound, path %d: MSS %d, checksum %v; expected %d", flags, path, mss, ok, want)
				}
			}
		}
	}
}

func tcpOf(src, dst netip.Addr, flags string, mss uint16) []byte {
	t := &layers.TCP{SrcPort: 4000, DstPort: 5000, Seq: 1, Window: 500,
		SYN: strings.Contains(flags, "SYN"), ACK: strings.Contains(flags, "ACK"),
		Options: []layers.TCPOption{
			{OptionType: layers.TCPOptionKindNop},
			{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: binary.BigEndian.AppendUint16(nil, mss)},
		}}
	if src.Is4() {
		ip := &layers.IPv4{Version: 4, TTL: 9, Protocol: layers.IPProtocolTCP, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
		_ = t.SetNetworkLayerForChecksum(ip)
		return serialize(ip, t)
	}
	ip := &layers.IPv6{Version: 6, HopLimit: 9, NextHeader: layers.IPProtocolTCP, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	_ = t.SetNetworkLayerForChecksum(ip)
	return serialize(ip, t)
}

// mssOf is the MSS option of p, and whether p's TCP checksum is right.
func mssOf(t *testing.T, p []byte) (uint16, bool) {
	t.Helper()
	var h packet.Header
	var f packet.Flow
	if err := packet.Parse(p, &h, &f); err != nil {
		t.Fatal(err)
	}
	segment := p[h.TransportOffset:h.TotalLen]
	ok := packet.Checksum(segment, packet.PseudoChecksum(&f, packet.ProtoTCP, len(segment))) == 0xffff
	return binary.BigEndian.Uint16(segment[23:]), ok
}

// What was learned is forgotten after ten minutes, or what the configuration says;
// the link's MTU is not.
func TestRFC8201_4_PathMTUAges(t *testing.T) {
	r := newRig(t, options{})
	r.gw.path.link = func(a netip.Addr) int {
		if a != gwB4.Addr() {
			t.Errorf("the link to %s", a)
		}
		return 1500
	}
	house := housekeeper{gateway: r.gw}
	r.now = time.Minute
	sa := r.narrow(1300)
	check := func(mtu int, source sad.MTUSource) {
		t.Helper()
		house.round()
		if is := sa.PathMTU(); is.MTU != mtu || is.Source != source {
			t.Errorf("after %s: %v; expected %d (%s)", r.now, is, mtu, source)
		}
	}
	check(1300, sad.MTUICMP)
	r.now += defaultPathAge - 1
	check(1300, sad.MTUICMP)
	r.now++
	check(1500, sad.MTULink)
	r.now += 10 * defaultPathAge
	check(1500, sad.MTULink)
	r.gw.path.age = time.Second
	r.narrow(1400)
	check(1400, sad.MTUICMP)
	r.now += time.Second
	check(1500, sad.MTULink)
}

// The kernel's EMSGSIZE tells of a narrower link: the next packet's sender hears
// of it. Where nobody knows the link's MTU, the next plateau is tried.
func TestRefusedPacketTeachesTheLink(t *testing.T) {
	for _, known := range []bool{false, true} {
		r := newRig(t, options{})
		want := 1280
		if known {
			want = 1400
			r.gw.path.link = func(netip.Addr) int { return 1400 }
		}
		r.wires[wireUDP].fail = func(d *packet.Datagram) error {
			if d.DF && d.Len > 1400-28 {
				return syscall.EMSGSIZE
			}
			return nil
		}
		long := udpOf(false, true, 1400)
		r.dropped(OutSendError, func() { r.send(long) })
		sa := r.outSA()
		if is := sa.PathMTU(); is.MTU != want {
			t.Errorf("known %v: %v; expected %d", known, is, want)
		}
		r.dropped(OutTooBig, func() { r.send(long) })
		if back := r.tun.take(); len(back) != 1 || ptb(t, back[0], long) != sa.InnerMTU() {
			t.Errorf("known %v: %d answers", known, len(back))
		}
	}
}

func TestRFC1191_7_1_Plateaus(t *testing.T) {
	for length, want := range map[int]int{65535: 32000, 9000: 8166, 1500: 1492, 1492: 1280, 1280: 1006, 1006: 576, 576: 508, 69: 68, 68: 68, 1: 68} {
		if got := plateauBelow(length); got != want {
			t.Errorf("below %d: %d; expected %d", length, got, want)
		}
	}
}
