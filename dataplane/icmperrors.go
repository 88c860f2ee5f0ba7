package dataplane

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// ICMP errors about outer packets: RFC 4301 8.2 and 6.1.1. Nobody has signed them,
// so the only thing that one can do here is lower the path MTU of the SA whose
// packet it quotes, down to sad's floor and not below, for as long as the value
// holds:
//
//	hear              read, ICMPv4 checksum, a type that is known
//	readQuote         addresses, protocol, ports, SPI, sequence number of the quoted packet
//	sa                all of that is an outbound SA's, and the number was sent lately
//	believe           the MTU is less than the quoted packet was long
//	LowerPathMTU      never raised, never below 576 or 1280
//
// Whatever fails a check is InICMPRefused. Unreachables and the like are counted
// (InICMPNoEffect) and change nothing: RFC 4301 6.1.1 leaves it open whether to
// believe them, and a forged one must not end an SA.

// icmpRecent is how many packets back the quoted sequence number may lie behind the
// last one sent: a second of a million packets. RFC 4301 8.2.1 leaves the check to
// the implementation. Together with the SPI somebody off the path has to guess 44
// bits.
const icmpRecent = 1 << 20

// icmpCounters count what became of ICMP errors.
type icmpCounters struct {
	tooBig      atomic.Uint64 // believed
	unreachable atomic.Uint64 // about a packet of ours, and without effect
	refused     atomic.Uint64
}

// icmpListener owns the reads of one socket for ICMP errors.
type icmpListener struct {
	gateway *Gateway
	wire    Wire
	version int
	grams   []packet.Datagram
	now     time.Duration
	looks   limiter
}

// icmpBatch is the number of messages read at once.
const icmpBatch = 8

func newICMPListener(g *Gateway, wire Wire, version int) *icmpListener {
	return &icmpListener{gateway: g, wire: wire, version: version, grams: packet.NewDatagrams(icmpBatch)}
}

// run hears until the socket is closed. A socket that fails ends this and nothing
// else: a path MTU is found without it, only later.
func (l *icmpListener) run() {
	failures := 0
	for {
		n, err := l.wire.ReadBatch(l.grams)
		switch {
		case err == nil:
			failures = 0
			l.now = l.gateway.clock()
			for i := range n {
				l.hear(&l.grams[i])
			}
		case l.gateway.stopping() || errors.Is(err, net.ErrClosed):
			return
		default:
			if failures++; !l.gateway.readAgain(failures) {
				return
			}
		}
	}
}

// hear takes one message in and counts it once.
func (l *icmpListener) hear(d *packet.Datagram) {
	count := &l.gateway.path.icmp
	// The kernel has looked at the checksums of ICMPv6, and not of ICMPv4.
	if l.version == 4 && !packet.ICMPChecksumOK(d.Bytes(), &packet.Flow{Version: 4}) {
		count.refused.Add(1)
		return
	}
	e, ok := packet.ParseICMPError(d.Bytes(), l.version)
	if !ok {
		count.refused.Add(1)
		return
	}
	q, ok := readQuote(e.Quoted)
	if !ok || d.Local.IsValid() && d.Local.Unmap() != q.src {
		count.refused.Add(1)
		return
	}
	sa := l.sa(&q)
	if sa == nil {
		count.refused.Add(1)
		return
	}
	if !isTooBig(&e, l.version) {
		count.unreachable.Add(1)
		return
	}
	mtu, ok := l.believe(&e, &q)
	if !ok {
		count.refused.Add(1)
		return
	}
	count.tooBig.Add(1)
	sa.LowerPathMTU(mtu, sad.MTUICMP, int64(l.now))
}

func isTooBig(e *packet.ICMPError, version int) bool {
	if version == 6 {
		return e.Type == packet.ICMPv6TooBig
	}
	return e.Type == packet.ICMPUnreachable && e.Code == packet.ICMPCodeTooBig
}

// sa is the outbound SA that has sent the quoted packet, or nil: RFC 4301 8.2.1 has
// the message mapped to the SA by the SPI in it.
func (l *icmpListener) sa(q *quote) *sad.SA {
	if !l.gateway.path.ours(q) || !l.looks.allow(l.now, lookBurst) {
		return nil
	}
	for sa := range l.gateway.sas.Load().All() {
		if sa.Direction == sad.Outbound && sa.SPI == q.spi && q.isOf(sa) {
			return sa
		}
	}
	return nil
}

// believe is the path MTU in bytes that a message speaks of; false where that makes
// no sense.
func (l *icmpListener) believe(e *packet.ICMPError, q *quote) (mtu int, ok bool) {
	if l.gateway.path.ignoreICMP {
		return 0, false
	}
	if mtu = e.MTU; mtu == 0 {
		// RFC 1191 5: of a router that does not say how long is right, "the
		// host should ... search for an accurate Path-MTU value".
		mtu = plateauBelow(q.length)
	}
	return mtu, mtu < q.length // what fits is no reason for a message
}

// quote is what an ICMP error tells of the outer packet that it is about.
type quote struct {
	src, dst         netip.Addr
	protocol         uint8
	srcPort, dstPort uint16 // UDP
	spi, seq         uint32
	length           int // of the whole packet by its own header, in bytes
}

// readQuote reads the beginning of an outer packet. ok is false unless it reaches to
// the sequence number: RFC 792's 64 bits do so in protocol 50 and, deviating from
// RFC 4301 8.2.1's hope, not in UDP, nor in AH. Such a message is not believed: a
// probe finds what it would have said.
func readQuote(b []byte) (q quote, ok bool) {
	t, ok := q.readIP(b)
	if !ok {
		return q, false
	}
	switch q.protocol {
	case packet.ProtoUDP:
		if len(t) < udpHeader {
			return q, false
		}
		q.srcPort, q.dstPort = binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])
		t = t[udpHeader:]
	case packet.ProtoAH: // RFC 4302 2: next header, length, reserved, SPI, sequence number
		t = t[min(4, len(t)):]
	case packet.ProtoESP:
	default:
		return q, false
	}
	if len(t) < 8 {
		return q, false
	}
	q.spi, q.seq = binary.BigEndian.Uint32(t), binary.BigEndian.Uint32(t[4:])
	return q, true
}

const (
	udpHeader      = 8
	ipv4Header     = 20
	ipv6Header     = 40
	fragmentHeader = 8
)

// readIP reads the IP header and returns what is quoted behind it. A later fragment
// shows no SPI.
func (q *quote) readIP(b []byte) (rest []byte, ok bool) {
	switch {
	case len(b) >= ipv4Header && b[0]>>4 == 4:
		n := int(b[0]&0x0f) * 4
		if n < ipv4Header || n > len(b) || binary.BigEndian.Uint16(b[6:])&0x1fff != 0 {
			return nil, false
		}
		q.src, q.dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		q.protocol, q.length = b[9], int(binary.BigEndian.Uint16(b[2:]))
		return b[n:], true
	case len(b) >= ipv6Header && b[0]>>4 == 6:
		q.src, q.dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		q.protocol, q.length = b[6], ipv6Header+int(binary.BigEndian.Uint16(b[4:]))
		b = b[ipv6Header:]
		if q.protocol != packet.ProtoFragment {
			return b, true
		}
		if len(b) < fragmentHeader || binary.BigEndian.Uint16(b[2:])&^7 != 0 {
			return nil, false
		}
		q.protocol = b[0]
		return b[fragmentHeader:], true
	}
	return nil, false
}

// isOf tells whether the SA has sent the quoted packet, and lately.
func (q *quote) isOf(sa *sad.SA) bool {
	ends := sa.Ends()
	local := ends.Local.Addr()
	switch {
	case q.dst != ends.Remote.Addr():
		return false
	case local.IsValid() && !local.IsUnspecified() && q.src != local:
		return false
	case q.protocol != outerProtocol(sa):
		return false
	case q.protocol == packet.ProtoUDP && q.dstPort != ends.Remote.Port():
		return false
	}
	// Of an extended number the packet shows the lower half. What was sent lies
	// behind the last one granted, and number 0 is never sent.
	last := sa.Stats().Seq
	back := uint64(uint32(last) - q.seq)
	return back < icmpRecent && back < last
}

// outerProtocol is the protocol of the SA's outer packets.
func outerProtocol(sa *sad.SA) uint8 {
	switch {
	case sa.Encap == sad.EncapUDP:
		return packet.ProtoUDP
	case sa.Protocol == sad.AH:
		return packet.ProtoAH
	}
	return packet.ProtoESP
}

// ours tells whether the quoted packet can be from one of the gateway's sockets: it
// is asked before the databases are.
func (m *pathMTU) ours(q *quote) bool {
	return q.protocol != packet.ProtoUDP || m.port == 0 || q.srcPort == m.port
}

// discover starts what finds path MTUs beside the walks.
func (g *Gateway) discover() {
	if g.path.prober != nil {
		g.workers.Go(g.probe)
	}
	for i, wire := range g.path.icmpWires {
		if wire != nil {
			l := newICMPListener(g, wire, 4+2*i)
			g.workers.Go(l.run)
		}
	}
}

// close ends what the gateway does about paths beside its workers.
func (m *pathMTU) close() {
	for _, wire := range m.icmpWires {
		if wire != nil {
			_ = wire.Close()
		}
	}
}
