package site

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

// outerKinds are what carries ESP: both encapsulations, both families.
func outerKinds(run func(raw, six bool)) {
	for _, raw := range []bool{false, true} {
		for _, six := range []bool{false, true} {
			run(raw, six)
		}
	}
}

// fragmentsIn counts the captured packets that are fragments.
func fragmentsIn(c *netlab.Capture) (n int) {
	for _, ip := range c.IPPackets() {
		if _, ok := packet.ReadFragment(ip); ok {
			n++
		}
	}
	return n
}

// RFC 4301 7 and RFC 4303 3.4.1, "If required, reassembly is performed prior to
// ESP processing": ESP that is longer than the path takes, with DF clear, leaves
// in fragments and is whole again before the gateway sees it. TCP and UDP cross
// unchanged, and no fragment is handed to ESP.
func TestRootRFC4303_3_4_1_OuterFragmentsArriveWhole(t *testing.T) {
	outerKinds(func(raw, six bool) {
		t.Run(fmt.Sprintf("raw=%v outer6=%v", raw, six), func(t *testing.T) {
			ctx := root(t)
			p := gatewaytest.NewPair(t, gatewaytest.Options{Raw: raw, OuterV6: six, Profile: "df: clear", Top: "tun: {mtu: 1500}"})
			p.Start()
			wire := must[*netlab.Capture](t)(p.Router.Capture(netlab.CaptureOptions{Iface: p.A.RouterIface}))
			t.Cleanup(func() { _ = wire.Close() })
			for _, dst := range []netip.Addr{p.B.Host4, p.B.Host6} {
				to := netip.AddrPortFrom(dst, 0)
				tcp := must[netlab.TransferResult](t)(netlab.TCPTransfer(ctx, p.A.Host, p.B.Host, netlab.TransferOptions{To: to, Bytes: 1 << 20}))
				if !tcp.Intact() {
					t.Errorf("TCP to %s: SHA-256 differs", dst)
				}
				udp := must[netlab.BurstResult](t)(netlab.UDPBurst(ctx, p.A.Host, p.B.Host, netlab.BurstOptions{To: to, Count: 100, Size: 1440, Interval: time.Millisecond}))
				if udp.Lost() != 0 || udp.Duplicated != 0 || udp.Mismatched != 0 {
					t.Errorf("UDP to %s: %s", dst, udp)
				}
			}
			if n := fragmentsIn(wire); n < 400 {
				t.Errorf("fragments on the wire: expected two of each of 200 datagrams and more, saw %d", n)
			}
			counters := p.GatewayB.Counters()
			for _, zero := range []string{"InSkipped", "InMalformed", "InAuth", "InReplay", "InInner", "InFragment"} {
				if counters[zero] != 0 {
					t.Errorf("%s: expected 0, saw %d", zero, counters[zero])
				}
			}
		})
	})
}

// RFC 4301 7.3 and 7.4: datagrams that the host cuts, under a policy by port with a
// bypass of all else behind it, cross whole, and no fragment leaves in clear.
func TestRootRFC4301_7_InnerFragmentsFollowTheirPorts(t *testing.T) {
	ctx := root(t)
	p := gatewaytest.NewPair(t, gatewaytest.Options{})
	byPort := func(config, side string) string {
		return strings.Replace(config, "    action: protect\n", "    protocol: udp\n    "+side+"_ports: [7007]\n    action: protect\n", 1) +
			"  - {name: rest, local: [any], remote: [any], action: bypass}\n"
	}
	p.GatewayA.Configure(byPort(p.ConfigA, "remote"))
	p.GatewayB.Configure(byPort(p.ConfigB, "local"))
	p.Start()
	marker, early := []byte("adit-inner-fragments-77b0"), uint64(0)
	wire := must[*netlab.Capture](t)(p.Router.Capture(netlab.CaptureOptions{Iface: p.A.RouterIface, Marker: marker}))
	t.Cleanup(func() { _ = wire.Close() })
	for _, dst := range []netip.Addr{p.B.Host4, p.B.Host6} {
		burst := netlab.BurstOptions{To: netip.AddrPortFrom(dst, 7007), Count: 2, Size: 6000, Interval: time.Millisecond, Marker: marker}
		// Over IPv6 the first one teaches the host what the TUN takes, and
		// of its fragments only the last, which is short, comes so far.
		must[netlab.BurstResult](t)(netlab.UDPBurst(ctx, p.A.Host, p.B.Host, burst))
		early = p.GatewayA.Counters()["OutFragment"]
		burst.Count = 100
		udp := must[netlab.BurstResult](t)(netlab.UDPBurst(ctx, p.A.Host, p.B.Host, burst))
		if udp.Lost() != 0 || udp.Mismatched != 0 {
			t.Errorf("UDP to %s: %s", dst, udp)
		}
	}
	a, b := p.GatewayA.Counters(), p.GatewayB.Counters()
	if a["OutFragment"] != early || early > 2 || b["InFragment"] != 0 || b["InPackets"] < 1000 {
		t.Errorf("A: %v\nB: %v", a, b)
	}
	if s := wire.Summary(); s.Marked != 0 || s.Total() < 1000 {
		t.Errorf("the wire: expected no payload in clear, saw %s", s)
	}
}

// outer is one outer packet from A to B that never arrived, to be sent in pieces.
type outer struct {
	t  *testing.T
	p  *gatewaytest.Pair
	ip []byte // header and fragmentable part
	id uint32 // of the last datagram that was cut
}

// caught sends a datagram from host A and keeps its outer packet from B.
func caught(t *testing.T, p *gatewaytest.Pair, payload []byte) *outer {
	t.Helper()
	// The capture sees a packet in front of the firewall that drops it.
	wire := must[*netlab.Capture](t)(p.B.Gateway.Capture(netlab.CaptureOptions{Iface: netlab.OutsideIface}))
	defer func() { _ = wire.Close() }()
	if err := p.B.Gateway.DropLongerThan(netlab.OutsideIface, 400); err != nil {
		t.Fatal(err)
	}
	conn, err := p.A.Host.ListenPacket(netip.AddrPortFrom(p.A.Host4, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.WriteToUDPAddrPort(payload, netip.AddrPortFrom(p.B.Host4, 9)); err != nil {
		t.Fatal(err)
	}
	o := &outer{t: t, p: p, id: 0x4000}
	for deadline := time.Now().Add(10 * time.Second); o.ip == nil && time.Now().Before(deadline); {
		for _, ip := range wire.IPPackets() {
			if len(ip) > 400 {
				o.ip = bytes.Clone(ip)
			}
		}
	}
	if o.ip == nil {
		t.Fatal("the datagram never came to gateway B")
	}
	if err := p.B.Gateway.Heal("blackhole"); err != nil {
		t.Fatal(err)
	}
	return o
}

// header is the length of the IP header.
func (o *outer) header() int {
	if o.ip[0]>>4 == 6 {
		return 40
	}
	return 20
}

// length is the length of the fragmentable part.
func (o *outer) length() int { return len(o.ip) - o.header() }

// piece is the bytes from start to end as a fragment; more decides the flag.
func (o *outer) piece(start, end int, more bool) []byte {
	header := o.header()
	b, data := bytes.Clone(o.ip[:header]), o.ip[header+start:header+end]
	field := uint16(start)
	if header == 20 {
		field /= 8
		if more {
			field |= 0x2000
		}
		binary.BigEndian.PutUint16(b[4:], uint16(o.id))
		binary.BigEndian.PutUint16(b[6:], field)
		return append(b, data...) // the kernel fills length and checksum
	}
	if more {
		field |= 1
	}
	b = append(b, b[6], 0, 0, 0, 0, 0, 0, 0)
	b[6] = packet.ProtoFragment
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(data)))
	binary.BigEndian.PutUint16(b[42:], field)
	binary.BigEndian.PutUint32(b[44:], o.id)
	return append(b, data...)
}

// inject sends packets with their own IP headers from the router to B, as parts
// of a datagram of its own.
func (o *outer) inject(packets func() [][]byte) {
	o.t.Helper()
	o.id++
	err := o.p.Router.Do(func() error {
		family, to := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: o.p.B.Outside4.As4()})
		if o.header() == 40 {
			family, to = unix.AF_INET6, &unix.SockaddrInet6{Addr: o.p.B.Outside6.As16()}
		}
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		for _, b := range packets() {
			if err := unix.Sendto(fd, b, 0, to); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		o.t.Fatal(err)
	}
}

// Overlapping and tiny outer fragments (teardrop, RFC 1858) deliver nothing and
// do no harm. The same packet in fragments as they ought to be, and as an atomic
// fragment (RFC 6946), is delivered: the test can see it.
func TestRootCR24_BadOuterFragmentsDeliverNothing(t *testing.T) {
	outerKinds(func(raw, six bool) {
		t.Run(fmt.Sprintf("raw=%v outer6=%v", raw, six), func(t *testing.T) {
			root(t)
			// A probe is as long as the packet that is waited for.
			p := gatewaytest.NewPair(t, gatewaytest.Options{Raw: raw, OuterV6: six, Listen: "probe_mtu: off"})
			p.Start()
			pings(t, p, p.B.Host4, 1)
			marker := []byte("adit-outer-fragments-51c2")
			o := caught(t, p, bytes.Repeat(marker, 40))
			lan := must[*netlab.Capture](t)(p.B.Gateway.Capture(netlab.CaptureOptions{Iface: netlab.InsideIface}))
			t.Cleanup(func() { _ = lan.Close() })
			n := o.length()
			for name, packets := range map[string]func() [][]byte{
				"overlap":          func() [][]byte { return [][]byte{o.piece(0, 512, true), o.piece(504, n, false)} },
				"teardrop":         func() [][]byte { return [][]byte{o.piece(0, 512, true), o.piece(24, 48, false)} },
				"overlap, first":   func() [][]byte { return [][]byte{o.piece(256, n, false), o.piece(0, 512, true)} },
				"tiny, then again": func() [][]byte { return [][]byte{o.piece(0, 8, true), o.piece(0, 16, true), o.piece(8, n, false)} },
				"tiny, no more":    func() [][]byte { return [][]byte{o.piece(0, 8, true)} },
				"no first":         func() [][]byte { return [][]byte{o.piece(8, n, false)} },
				"no last":          func() [][]byte { return [][]byte{o.piece(0, 512, true), o.piece(512, n/8*8, true)} },
			} {
				before := p.GatewayB.Counters()["InPackets"]
				o.inject(packets)
				pings(t, p, p.B.Host4, 1) // behind it on the same way
				if got := p.GatewayB.Counters()["InPackets"] - before; got != 1 || lan.Contains(marker) {
					t.Errorf("%s: expected the ping alone to arrive, saw %d packets (marker: %v)", name, got, lan.Contains(marker))
				}
			}
			good := func() [][]byte { return [][]byte{o.piece(512, n, false), o.piece(0, 512, true)} }
			if six {
				good = func() [][]byte { return [][]byte{o.piece(0, n, false)} }
			}
			o.inject(good)
			arrived := false
			for deadline := time.Now().Add(5 * time.Second); !arrived && time.Now().Before(deadline); {
				arrived = lan.Contains(marker)
			}
			counters := p.GatewayB.Counters()
			if !arrived {
				t.Errorf("the same packet in good fragments did not arrive: %v", counters)
			}
			if counters["InSkipped"] != 0 || counters["InAuth"] != 0 {
				t.Errorf("fragments or halves reached ESP: %v", counters)
			}
		})
	})
}
