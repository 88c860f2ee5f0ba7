package tun

import (
	"bytes"
	"encoding/binary"

	"github.com/adit-ipsec/adit/internal/crypt"
	"github.com/adit-ipsec/adit/internal/packet"
)

// Packets of one batch become superpackets:
//
//	Plan     each packet joins the group that its flow has open, or opens one
//	Group    one group as one write: virtio-net header, the first packet with
//	         its lengths and a partial checksum stamped, the other payloads
//	Undo     the first packet as it was, when the write was refused
//
// Payloads stay where they are: the pieces point into the packets' memory.

// virtio-net header, struct virtio_net_hdr of linux/virtio_net.h: in the
// machine's byte order, as TUN devices take it.
const (
	vnetLen = 10

	vnetFlags      = 0
	vnetType       = 1
	vnetHdrLen     = 2
	vnetSize       = 4
	vnetCsumStart  = 6
	vnetCsumOffset = 8

	vnetNeedsCsum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM

	gsoNone  = 0    // VIRTIO_NET_HDR_GSO_NONE
	gsoTCPv4 = 1    // VIRTIO_NET_HDR_GSO_TCPV4
	gsoTCPv6 = 4    // VIRTIO_NET_HDR_GSO_TCPV6
	gsoUDP   = 5    // VIRTIO_NET_HDR_GSO_UDP_L4
	gsoECN   = 0x80 // VIRTIO_NET_HDR_GSO_ECN: TCP with CWR
)

const _ = uint(WriteHeadroom - vnetLen)

const (
	// openGroups is how many flows of one batch may have a group open.
	openGroups = 8
	// maxUDPSegments is UDP_MAX_SEGMENTS of kernels before 6.9.
	maxUDPSegments = 64
	// maxPieces is the most pieces of one group: below IOV_MAX (1024).
	maxPieces = 1000
	// maxMergedHeader is the longest header that is merged: IPv6 without
	// extensions, TCP with all options.
	maxMergedHeader = ipv6HeaderLen + 60
)

const none = -1

// Coalescer plans the superpackets of one batch after the other. It is for one
// goroutine. Once it has seen its largest batch it allocates nothing.
type Coalescer struct {
	// NoTCP and NoUDP leave packets of the protocol alone: the kernel or the
	// device does not take them merged.
	NoTCP, NoUDP bool

	bufs   []*packet.Buffer
	next   []int // of each packet: the one behind it in its group, or none
	groups []group

	open   [openGroups]int // groups that may grow
	opened int             // how many of open are in use
	evict  int             // the one that goes next

	pieces [][]byte
	undo   [maxMergedHeader]byte // the header of the group that Group last stamped
	undone int                   // its length; 0: nothing was stamped
	head   []byte                // where it lies
}

// group is a run of packets that can be written as one.
type group struct {
	first, last int
	packets     int
	size        int // payload bytes of each packet but the last
	total       int // bytes of the superpacket so far
	flags       byte
	ended       bool // short payload, FIN or PSH: nothing can follow
	sound       bool // the first packet's checksums were verified
	sameID      bool // IPv4: every packet has the first one's identification
}

// NewCoalescer makes a Coalescer for batches of so many packets; a larger one
// is taken as well, and makes it grow.
func NewCoalescer(batch int) *Coalescer {
	c := &Coalescer{}
	c.grow(batch)
	return c
}

func (c *Coalescer) grow(batch int) {
	c.next = make([]int, batch)
	c.groups = make([]group, 0, batch)
	c.pieces = make([][]byte, 0, min(batch, maxPieces))
}

// Plan sorts the packets of bufs into groups and returns how many there are.
// Packets of one flow keep their order; groups stand in the order of their
// first packets. bufs and the packets are borrowed until the next Plan; each
// packet is parsed, which fills Header and Flow and cuts Len to the IP packet.
//
// Packets are merged only when cutting the superpacket gives them back to the
// bit: consecutive sequence numbers, everything else of the headers equal,
// checksums verified, no IP options, extensions or fragments. One thing may
// change: where all IPv4 packets have DF and one and the same identification,
// the kernel will count it up. RFC 6864 4.1: "All devices that examine IPv4
// headers MUST ignore the IPv4 ID field of atomic datagrams."
func (c *Coalescer) Plan(bufs []*packet.Buffer) int {
	if len(bufs) > cap(c.groups) {
		c.grow(len(bufs))
	}
	c.bufs, c.groups = bufs, c.groups[:0]
	c.opened, c.evict, c.undone = 0, 0, 0
	for i, b := range bufs {
		c.next[i] = none
		// What cannot be parsed is the kernel's to refuse.
		parsed := b.Parse() == nil
		at := none
		if parsed {
			at = c.find(&b.Flow)
		}
		if at != none && c.join(&c.groups[c.open[at]], i) {
			continue
		}
		c.groups = append(c.groups, c.alone(i, parsed))
		c.keepOpen(at)
	}
	return len(c.groups)
}

// alone is a group of one packet.
func (c *Coalescer) alone(i int, parsed bool) group {
	b := c.bufs[i]
	g := group{first: i, last: i, packets: 1, total: b.Len, ended: true}
	if !parsed || !c.mergeable(b) {
		return g
	}
	g.size = b.Len - b.Header.PayloadOffset
	g.ended = false
	if b.Flow.Protocol == packet.ProtoTCP {
		g.flags = b.Bytes()[b.Header.TransportOffset+tcpFlags]
		g.ended = g.flags&(flagFIN|flagPSH) != 0
	}
	return g
}

// find is the place in open of the flow's group, or none.
func (c *Coalescer) find(f *packet.Flow) int {
	for at := c.opened - 1; at >= 0; at-- {
		if c.bufs[c.groups[c.open[at]].first].Flow == *f {
			return at
		}
	}
	return none
}

// keepOpen lets the newest group grow, unless it has ended. at is the place of
// its flow's former group, which must not grow behind its back.
func (c *Coalescer) keepOpen(at int) {
	newest := len(c.groups) - 1
	ended := c.groups[newest].ended
	switch {
	case at != none && ended:
		c.opened--
		c.open[at] = c.open[c.opened]
	case at != none:
		c.open[at] = newest
	case ended:
	case c.opened < openGroups:
		c.open[c.opened] = newest
		c.opened++
	default:
		c.open[c.evict] = newest
		c.evict = (c.evict + 1) % openGroups
	}
}

// mergeable tells whether a parsed packet may be part of a superpacket at all,
// but for its checksums.
func (c *Coalescer) mergeable(b *packet.Buffer) bool {
	h, p := &b.Header, b.Bytes()
	if h.TransportOffset != plainHeaderLen(h) || h.Fragment || h.PayloadOffset == b.Len {
		return false
	}
	t := p[h.TransportOffset:]
	switch b.Flow.Protocol {
	case packet.ProtoTCP:
		const plain = flagACK | flagPSH | flagFIN | flagECE
		return !c.NoTCP && h.PayloadOffset > h.TransportOffset && t[tcpFlags]&flagACK != 0 && t[tcpFlags]&^plain == 0
	case packet.ProtoUDP:
		// A zero checksum says that there is none; the kernel would make one.
		return !c.NoUDP && h.PayloadOffset > h.TransportOffset &&
			int(binary.BigEndian.Uint16(t[udpLen:])) == len(t) && binary.BigEndian.Uint16(t[udpSum:]) != 0
	}
	return false
}

// join adds packet i to g, whose flow it has, when it is its continuation.
func (c *Coalescer) join(g *group, i int) bool {
	first, b := c.bufs[g.first], c.bufs[i]
	payload := b.Len - b.Header.PayloadOffset
	switch {
	case g.ended, payload > g.size, g.total+payload > packet.MaxLen, g.packets >= maxPieces:
		return false
	case !c.mergeable(b) || b.Header.PayloadOffset != first.Header.PayloadOffset:
		return false
	}
	p, q := first.Bytes(), b.Bytes()
	sameID, ok := follows(g, p, q, &first.Header)
	if !ok || !g.sound && !sound(first) || !sound(b) {
		return false
	}
	c.next[g.last] = i
	g.last = i
	g.packets++
	g.total += payload
	g.sound, g.sameID = true, sameID
	g.ended = payload < g.size
	if b.Flow.Protocol == packet.ProtoTCP {
		flags := q[b.Header.TransportOffset+tcpFlags]
		g.flags |= flags
		g.ended = g.ended || flags&(flagFIN|flagPSH) != 0
	}
	return true
}

// follows compares the headers of q with those of p, the first packet of g,
// where q comes next. sameID is what g.sameID becomes.
func follows(g *group, p, q []byte, h *packet.Header) (sameID, ok bool) {
	if h.Version == 4 {
		if sameID, ok = followsIPv4(g, p, q); !ok {
			return false, false
		}
	} else if !bytes.Equal(p[:4], q[:4]) || p[7] != q[7] { // traffic class, flow label; hop limit
		return false, false
	}
	p, q = p[h.TransportOffset:h.PayloadOffset], q[h.TransportOffset:h.PayloadOffset]
	if len(p) == udpHeaderLen {
		return sameID, g.packets < maxUDPSegments
	}
	const mayDiffer = flagFIN | flagPSH // on the last packet
	next := binary.BigEndian.Uint32(p[tcpSeq:]) + uint32(g.packets*g.size)
	ok = binary.BigEndian.Uint32(q[tcpSeq:]) == next &&
		bytes.Equal(p[tcpAck:tcpFlags], q[tcpAck:tcpFlags]) &&
		(p[tcpFlags]^q[tcpFlags])&^mayDiffer == 0 &&
		bytes.Equal(p[tcpFlags+1:tcpSum], q[tcpFlags+1:tcpSum]) && // window
		bytes.Equal(p[tcpUrgent:], q[tcpUrgent:]) // and options
	return sameID, ok
}

// followsIPv4 compares TOS, flags, TTL and identification.
func followsIPv4(g *group, p, q []byte) (sameID, ok bool) {
	if p[1] != q[1] || p[6] != q[6] || p[8] != q[8] {
		return false, false
	}
	step := binary.BigEndian.Uint16(q[4:]) - binary.BigEndian.Uint16(p[4:])
	if step == 0 && p[6]&0x40 != 0 {
		return true, g.packets == 1 || g.sameID
	}
	return false, !g.sameID && step == uint16(g.packets)
}

// sound verifies the checksums of a mergeable packet. All ones in place of zero
// is right as a sum, but not what cutting would give back; for UDP it is the
// other way round, and mergeable has seen to that.
func sound(b *packet.Buffer) bool {
	h, p := &b.Header, b.Bytes()
	if h.Version == 4 && (packet.Checksum(p[:h.TransportOffset], 0) != 0xffff || binary.BigEndian.Uint16(p[10:]) == 0xffff) {
		return false
	}
	t := p[h.TransportOffset:]
	if b.Flow.Protocol == packet.ProtoTCP && binary.BigEndian.Uint16(t[tcpSum:]) == 0xffff {
		return false
	}
	return crypt.Checksum(t, packet.PseudoChecksum(&b.Flow, b.Flow.Protocol, len(t))) == 0xffff
}

// Group is what one write needs to carry group i of the plan: the pieces, of
// which the first begins with a virtio-net header in front of the first packet,
// and the number of packets in them. The header of a group of several is
// stamped into its first packet. Each packet needs WriteHeadroom bytes in front.
// The pieces are borrowed until the next call.
func (c *Coalescer) Group(i int) (pieces [][]byte, packets int) {
	g := &c.groups[i]
	first := c.bufs[g.first]
	c.undone = 0
	vnet := first.Mem[first.Off-vnetLen : first.Off]
	clear(vnet)
	if g.packets > 1 {
		c.stamp(g, first, vnet)
	}
	c.pieces = append(c.pieces[:0], first.Mem[first.Off-vnetLen:first.Off+first.Len])
	for k := c.next[g.first]; k != none; k = c.next[k] {
		b := c.bufs[k]
		c.pieces = append(c.pieces, b.Bytes()[b.Header.PayloadOffset:])
	}
	return c.pieces, g.packets
}

// Packets calls f for each packet of group i, in order, until it returns false.
func (c *Coalescer) Packets(i int, f func(b *packet.Buffer) bool) {
	for k := c.groups[i].first; k != none; k = c.next[k] {
		if !f(c.bufs[k]) {
			return
		}
	}
}

// Protocol is the protocol of group i where it has several packets, else 0.
func (c *Coalescer) Protocol(i int) uint8 {
	if g := &c.groups[i]; g.packets > 1 {
		return c.bufs[g.first].Flow.Protocol
	}
	return 0
}

// Undo gives the first packet of the group that Group last returned its own
// header back.
func (c *Coalescer) Undo() {
	copy(c.head, c.undo[:c.undone])
	c.undone = 0
}

// stamp makes the header of a superpacket from the first packet's.
func (c *Coalescer) stamp(g *group, first *packet.Buffer, vnet []byte) {
	h := &first.Header
	header := first.Bytes()[:h.PayloadOffset]
	c.head, c.undone = header, copy(c.undo[:], header)

	t, length := header[h.TransportOffset:], g.total-h.TransportOffset
	sum, gso := tcpSum, byte(gsoTCPv6)
	switch {
	case first.Flow.Protocol == packet.ProtoUDP:
		sum, gso = udpSum, gsoUDP
		binary.BigEndian.PutUint16(t[udpLen:], uint16(length))
	case h.Version == 4:
		gso = gsoTCPv4
	}
	if h.Version == 4 {
		binary.BigEndian.PutUint16(header[2:], uint16(g.total))
		clear(header[10:12])
		binary.BigEndian.PutUint16(header[10:], ^packet.Checksum(header[:h.TransportOffset], 0))
	} else {
		binary.BigEndian.PutUint16(header[4:], uint16(g.total-ipv6HeaderLen))
	}
	if first.Flow.Protocol == packet.ProtoTCP {
		t[tcpFlags] = g.flags
	}
	// Partial: the pseudo header's sum, for the kernel to go on from.
	binary.BigEndian.PutUint16(t[sum:], packet.PseudoChecksum(&first.Flow, first.Flow.Protocol, length))

	vnet[vnetFlags], vnet[vnetType] = vnetNeedsCsum, gso
	binary.NativeEndian.PutUint16(vnet[vnetHdrLen:], uint16(len(header)))
	binary.NativeEndian.PutUint16(vnet[vnetSize:], uint16(g.size))
	binary.NativeEndian.PutUint16(vnet[vnetCsumStart:], uint16(h.TransportOffset))
	binary.NativeEndian.PutUint16(vnet[vnetCsumOffset:], uint16(sum))
}
