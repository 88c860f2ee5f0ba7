package dataplane

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/tun"
	"github.com/adit-ipsec/adit/sad"
)

var (
	gwA4 = netip.MustParseAddrPort("192.0.2.1:4500")
	gwA6 = netip.MustParseAddrPort("[2001:db8:1::1]:4500")
)

// said is an ICMP error about an outer packet, as a test describes it. The zero
// value is what an honest router says of the SA's packet seq.
type said struct {
	typ, code uint8 // 0, 0: packet too big
	mtu       int
	seq       uint32
	length    int // of the quoted packet; 0: 1500 bytes

	spi              uint32 // 0: the SA's
	src, dst         netip.AddrPort
	protocol         layers.IPProtocol // 0: the SA's
	quoted           int               // bytes that are quoted behind the IP header; 0: 64
	fragment         bool              // quote a later fragment
	local            netip.Addr        // where the message arrived
	badSum, noHeader bool
}

// message builds it for an SA from a to b.
func (s said) message(t *testing.T, sa *sad.SA, a, b netip.AddrPort) packet.Datagram {
	t.Helper()
	def := func(p *netip.AddrPort, to netip.AddrPort) {
		if !p.IsValid() {
			*p = to
		}
	}
	def(&s.src, a)
	def(&s.dst, b)
	if s.length == 0 {
		s.length = 1500
	}
	if s.spi == 0 {
		s.spi = sa.SPI
	}
	if s.quoted == 0 {
		s.quoted = 64
	}
	if s.protocol == 0 {
		s.protocol = layers.IPProtocol(outerProtocol(sa))
	}
	esp := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, s.spi), s.seq)
	if s.protocol == layers.IPProtocolAH {
		esp = append([]byte{4, 4, 0, 0}, esp...)
	}
	list := []gopacket.SerializableLayer{gopacket.Payload(append(esp, make([]byte, 64)...))}
	if s.protocol == layers.IPProtocolUDP {
		list = append([]gopacket.SerializableLayer{&layers.UDP{SrcPort: layers.UDPPort(s.src.Port()), DstPort: layers.UDPPort(s.dst.Port()), Length: uint16(s.length - 20)}}, list...)
	}
	header := 20
	var ip gopacket.SerializableLayer
	if b.Addr().Is4() {
		h := &layers.IPv4{Version: 4, IHL: 5, Length: uint16(s.length), Flags: layers.IPv4DontFragment, TTL: 9, Protocol: s.protocol, SrcIP: s.src.Addr().AsSlice(), DstIP: s.dst.Addr().AsSlice()}
		if s.fragment {
			h.FragOffset = 100
		}
		ip = h
	} else {
		header = 40
		ip = &layers.IPv6{Version: 6, Length: uint16(s.length - 40), HopLimit: 9, NextHeader: s.protocol, SrcIP: s.src.Addr().AsSlice(), DstIP: s.dst.Addr().AsSlice()}
	}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{}, append([]gopacket.SerializableLayer{ip}, list...)...); err != nil {
		t.Fatal(err)
	}
	quoted := buf.Bytes()
	quoted = quoted[:min(len(quoted), header+s.quoted)]
	if s.noHeader {
		quoted = quoted[:10]
	}
	m := make([]byte, 8, 8+len(quoted))
	if b.Addr().Is4() {
		m[0], m[1] = 3, 4
		binary.BigEndian.PutUint16(m[6:], uint16(s.mtu))
	} else {
		m[0] = 2
		binary.BigEndian.PutUint32(m[4:], uint32(s.mtu))
	}
	if s.typ != 0 {
		m[0], m[1] = s.typ, s.code
	}
	m = append(m, quoted...)
	if b.Addr().Is4() && !s.badSum {
		binary.BigEndian.PutUint16(m[2:], ^packet.Checksum(m, 0))
	}
	return packet.Datagram{Mem: m, Len: len(m), Addr: netip.AddrPortFrom(netip.MustParseAddr("203.0.113.9"), 0), Local: s.local}
}

// Every kind of message, over both families and encapsulations, against an SA that
// has sent three million packets on a path of 1500 bytes.
func TestRFC4301_8_2_ICMPErrorsAreChecked(t *testing.T) {
	const last = 3_000_000
	const tooBig, unreachable, refused = "InICMPTooBig", "InICMPNoEffect", "InICMPRefused"
	other := netip.MustParseAddrPort("198.51.100.77:4500")
	other6 := netip.MustParseAddrPort("[2001:db8:77::1]:4500")
	for _, c := range []struct {
		name    string
		said    said
		want    int // path MTU; 0: unchanged
		counter string
		v4      bool // IPv4 alone
		udp     bool // UDP alone
		raw     bool // protocol 50 alone
	}{
		{name: "the last packet", said: said{mtu: 1400, seq: last}, want: 1400, counter: tooBig},
		{name: "a recent one", said: said{mtu: 1400, seq: last - icmpRecent + 1}, want: 1400, counter: tooBig},
		{name: "an old one", said: said{mtu: 1400, seq: last - icmpRecent}, counter: refused},
		{name: "a coming one", said: said{mtu: 1400, seq: last + 1}, counter: refused},
		{name: "number 0", said: said{mtu: 1400, seq: 0}, counter: refused},
		{name: "another SPI", said: said{mtu: 1400, seq: last, spi: outSPI + 1}, counter: refused},
		{name: "the inbound SPI", said: said{mtu: 1400, seq: last, spi: inSPI}, counter: refused},
		{name: "to another address", said: said{mtu: 1400, seq: last, dst: other}, counter: refused, v4: true},
		{name: "from another address", said: said{mtu: 1400, seq: last, src: other}, counter: refused, v4: true},
		{name: "to another address", said: said{mtu: 1400, seq: last, dst: other6}, counter: refused},
		{name: "from another address", said: said{mtu: 1400, seq: last, src: other6}, counter: refused},
		{name: "arrived elsewhere", said: said{mtu: 1400, seq: last, local: other.Addr()}, counter: refused},
		{name: "to another port", said: said{mtu: 1400, seq: last, dst: netip.AddrPortFrom(gwB4.Addr(), 4501)}, counter: refused, v4: true, udp: true},
		{name: "from another port", said: said{mtu: 1400, seq: last, src: netip.AddrPortFrom(gwA4.Addr(), 4501)}, counter: refused, v4: true, udp: true},
		{name: "AH", said: said{mtu: 1400, seq: last, protocol: layers.IPProtocolAH}, counter: refused},
		{name: "TCP", said: said{mtu: 1400, seq: last, protocol: layers.IPProtocolTCP}, counter: refused},
		{name: "no longer than allowed", said: said{mtu: 1500, seq: last}, counter: refused},
		{name: "MTU 0", said: said{seq: last, length: 1500}, want: 1492, counter: tooBig, v4: true},
		{name: "MTU 0 of a short one", said: said{seq: last, length: 1300}, want: 1280, counter: tooBig, v4: true},
		{name: "MTU 68", said: said{mtu: 68, seq: last}, want: 576, counter: tooBig, v4: true},
		{name: "MTU 1", said: said{mtu: 1, seq: last}, want: 1280, counter: tooBig},
		{name: "64 bits quoted of UDP", said: said{mtu: 1400, seq: last, quoted: 8}, counter: refused, udp: true},
		{name: "64 bits quoted of ESP", said: said{mtu: 1400, seq: last, quoted: 8}, want: 1400, counter: tooBig, raw: true},
		{name: "60 bits quoted", said: said{mtu: 1400, seq: last, quoted: 7}, counter: refused},
		{name: "half an IP header", said: said{mtu: 1400, seq: last, noHeader: true}, counter: refused},
		{name: "a later fragment", said: said{mtu: 1400, seq: last, fragment: true}, counter: refused, v4: true},
		{name: "wrong checksum", said: said{mtu: 1400, seq: last, badSum: true}, counter: refused, v4: true},
		{name: "host unreachable", said: said{typ: 3, code: 1, seq: last}, counter: unreachable, v4: true},
		{name: "port unreachable", said: said{typ: 3, code: 3, seq: last}, counter: unreachable, v4: true},
		{name: "prohibited", said: said{typ: 3, code: 13, seq: last}, counter: unreachable, v4: true},
		{name: "unreachable, another SPI", said: said{typ: 3, code: 1, seq: last, spi: 7777}, counter: refused, v4: true},
		{name: "no route", said: said{typ: 1, seq: last}, counter: unreachable},
		{name: "an echo request", said: said{typ: 8, seq: last}, counter: refused, v4: true},
	} {
		for _, six := range []bool{false, true} {
			for _, encap := range []sad.Encapsulation{sad.EncapUDP, sad.EncapNone} {
				a, b := gwA4, gwB4
				if six {
					a, b = gwA6, gwB6
				}
				v6Only := c.said.dst == other6 || c.said.src == other6 || c.said.typ == 1 || c.said.mtu == 1
				if c.v4 && six || v6Only && !six || c.udp && encap != sad.EncapUDP || c.raw && encap == sad.EncapUDP {
					continue
				}
				if c.said.spi == inSPI && six { // once is enough
					continue
				}
				r := newRig(t, options{encap: encap, local: a, remote: b})
				r.gw.path.port = 4500
				sa := r.outSA()
				sa.SetPathMTU(1500, sad.MTULink, 0)
				sa.Reserve(last)
				l := newICMPListener(r.gw, nil, map[bool]int{false: 4, true: 6}[six])
				before := r.gw.Stats()
				d := c.said.message(t, sa, a, b)
				l.hear(&d)
				after := r.gw.Stats()
				for _, counter := range []string{tooBig, unreachable, refused} {
					want := uint64(0)
					if counter == c.counter {
						want = 1
					}
					if n := after.Counter(counter) - before.Counter(counter); n != want {
						t.Errorf("%s, %s, %s: %s: +%d; expected +%d", c.name, b, encap, counter, n, want)
					}
				}
				want, source := c.want, sad.MTUICMP
				if want == 0 {
					want, source = 1500, sad.MTULink
				}
				if is := sa.PathMTU(); is.MTU != want || is.Source != source {
					t.Errorf("%s, %s, %s: %v; expected %d (%s)", c.name, b, encap, is, want, source)
				}
				if r.outSA() != sa || r.gw.Stats().SAs[0].Exhausted {
					t.Errorf("%s: the SA did not survive", c.name)
				}
			}
		}
	}
}

// Nobody raises the MTU by ICMP, and a second router may lower it further.
func TestRFC1191_3_ICMPOnlyLowers(t *testing.T) {
	r := newRig(t, options{local: gwA4})
	sa := r.outSA()
	sa.Reserve(100)
	l := newICMPListener(r.gw, nil, 4)
	for _, step := range [][2]int{{1400, 1400}, {1450, 1400}, {1300, 1300}, {1400, 1300}, {600, 600}, {100, 576}} {
		d := said{mtu: step[0], seq: 50}.message(t, sa, gwA4, gwB4)
		l.hear(&d)
		if is := sa.PathMTU(); is.MTU != step[1] {
			t.Errorf("after %d: %v; expected %d", step[0], is, step[1])
		}
	}
}

// What was never sent is not recent, however near its number is: on a new SA, and
// where the lower half of an extended number has just begun again.
func TestRFC4301_8_2_QuotedNumbersWereSent(t *testing.T) {
	const young, old = 100, 1<<32 + 5
	for _, c := range []struct {
		last uint64
		seq  uint32
		ok   bool
	}{
		{young, 0, false}, {young, 1, true}, {young, 100, true}, {young, 101, false}, {young, 1<<32 - 1, false},
		{old, 5, true}, {old, 0, true}, {old, 1<<32 - 1, true}, {old, 6, false},
	} {
		r := newRig(t, options{local: gwA4, store: &startAt{c.last - 1}})
		sa := r.outSA()
		if seq, _ := sa.Reserve(1); seq != c.last {
			t.Fatalf("number %d, expected %d", seq, c.last)
		}
		l := newICMPListener(r.gw, nil, 4)
		d := said{mtu: 1400, seq: c.seq}.message(t, sa, gwA4, gwB4)
		l.hear(&d)
		if believed := sa.PathMTU().MTU == 1400; believed != c.ok {
			t.Errorf("number %#x behind %#x: believed %v", c.seq, c.last, believed)
		}
	}
}

// RFC 4301 8.2: "unauthenticated ICMP … MUST be able to configure": not believed,
// and counted.
func TestRFC4301_6_1_1_ICMPCanBeIgnored(t *testing.T) {
	r := newRig(t, options{local: gwA4})
	r.gw.path.ignoreICMP = true
	sa := r.outSA()
	sa.Reserve(100)
	l := newICMPListener(r.gw, nil, 4)
	d := said{mtu: 1300, seq: 50}.message(t, sa, gwA4, gwB4)
	l.hear(&d)
	if is, n := sa.PathMTU(), r.gw.Stats().Counter("InICMPRefused"); is.MTU != 0 || n != 1 {
		t.Errorf("%v, InICMPRefused %d", is, n)
	}
}

// A flood of messages that could be the gateway's own does not make it walk through
// its SAs without end.
func TestCI01_ICMPErrorsAreLimited(t *testing.T) {
	r := newRig(t, options{local: gwA4})
	sa := r.outSA()
	sa.Reserve(100)
	l := newICMPListener(r.gw, nil, 4)
	forged := said{mtu: 1300, seq: 50, spi: 9999}.message(t, sa, gwA4, gwB4)
	for range lookBurst {
		l.hear(&forged)
	}
	d := said{mtu: 1300, seq: 50}.message(t, sa, gwA4, gwB4)
	l.hear(&d)
	if is := sa.PathMTU(); is.MTU != 0 {
		t.Errorf("%v: expected the message not to be looked at", is)
	}
	l.now += eventInterval
	l.hear(&d)
	if is := sa.PathMTU(); is.MTU != 1300 {
		t.Errorf("%v: expected 1300 a second later", is)
	}
	if n := r.gw.Stats().Counter("InICMPRefused"); n != lookBurst+1 {
		t.Errorf("InICMPRefused: %d", n)
	}
}

// icmpWire hands out what a test puts in, until it is closed.
type icmpWire struct {
	captureWire
	in     chan packet.Datagram
	closed chan struct{}
	once   sync.Once
}

func (w *icmpWire) ReadBatch(grams []packet.Datagram) (int, error) {
	select {
	case d := <-w.in:
		grams[0].Off, grams[0].Len = packet.Headroom, copy(grams[0].Mem[packet.Headroom:], d.Bytes())
		grams[0].Addr, grams[0].Local = d.Addr, d.Local
		return 1, nil
	case <-w.closed:
		return 0, net.ErrClosed
	}
}

func (w *icmpWire) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}

// A running gateway hears, and Close ends the hearing.
func TestGatewayHearsICMPAndCloses(t *testing.T) {
	dev, _ := tun.NewMemory("test0", 1500)
	icmp := &icmpWire{in: make(chan packet.Datagram), closed: make(chan struct{})}
	wire := &icmpWire{closed: make(chan struct{})}
	g, err := New(Config{TUN: dev, Wire: wire, ICMP4: icmp})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, gw: g, opts: options{suite: "aes128gcm16", remote: gwB4, local: gwA4, window: 64}}
	r.install()
	sa := r.outSA()
	sa.Reserve(100)
	icmp.in <- said{mtu: 1300, seq: 50}.message(t, sa, gwA4, gwB4)
	for deadline := time.Now().Add(10 * time.Second); g.Stats().Counter("InICMPTooBig") == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the message was not heard")
		}
		time.Sleep(time.Millisecond)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	if is := sa.PathMTU(); is.MTU != 1300 {
		t.Errorf("%v; expected 1300", is)
	}
}

// Whatever arrives is counted once, and nothing but the SA's own MTU moves.
func TestICMPErrorsOfAnyBytes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, six := range []bool{false, true} {
		a, b, version := gwA4, gwB4, 4
		if six {
			a, b, version = gwA6, gwB6, 6
		}
		r := newRig(t, options{local: a, remote: b})
		r.gw.path.port = 4500
		sa := r.outSA()
		sa.Reserve(100)
		l := newICMPListener(r.gw, nil, version)
		good := said{mtu: 1400, seq: 50}.message(t, sa, a, b)
		const n = 20_000
		for range n {
			m := bytes.Clone(good.Bytes()[:rng.IntN(good.Len+1)])
			for range rng.IntN(4) {
				if len(m) > 0 {
					m[rng.IntN(len(m))] = byte(rng.Uint32())
				}
			}
			if !six && len(m) > 4 {
				m[2], m[3] = 0, 0
				binary.BigEndian.PutUint16(m[2:], ^packet.Checksum(m, 0))
			}
			l.now += time.Second
			d := packet.Datagram{Mem: m, Len: len(m)}
			l.hear(&d)
		}
		s := r.gw.Stats()
		if sum := s.Counter("InICMPTooBig") + s.Counter("InICMPNoEffect") + s.Counter("InICMPRefused"); sum != n || s.Counter("InICMPTooBig") == 0 {
			t.Errorf("version %d: %d of %d counted, %d believed", version, sum, n, s.Counter("InICMPTooBig"))
		}
		if is := sa.PathMTU(); is.MTU < sa.MinPathMTU() {
			t.Errorf("version %d: %v", version, is)
		}
	}
}
