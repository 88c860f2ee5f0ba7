package tun

import (
	"encoding/binary"

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

	head   outline               // of the packet that Plan is at
	open   [openGroups]openGroup // groups that may grow
	opened int                   // how many of open are in use
	evict  int                   // the one that goes next

	pieces [][]byte
	undo   [maxMergedHeader]byte // the header of the group that Group last stamped
	undone int                   // its length; 0: nothing was stamped
	where  []byte                // where it lies
}

type openGroup struct {
	flow  flowKey
	group int
}

// group is a run of packets that can be written as one.
type group struct {
	first, last int
	packets     int
	transport   int // where TCP or UDP starts in each packet
	payload     int // where the payload starts
	size        int // payload bytes of each packet but the last
	total       int // bytes of the superpacket so far
	protocol    uint8
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
// packet's Len is cut to the IP packet. Header and Flow are not looked at.
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
		at := none
		// What cannot be parsed is the kernel's to refuse.
		if c.head.read(b.Bytes()) {
			b.Len = c.head.total
			at = c.find()
		}
		if at != none && c.join(&c.groups[c.open[at].group], i) {
			continue
		}
		c.groups = append(c.groups, c.alone(i))
		c.keepOpen(at)
	}
	return len(c.groups)
}

// alone is a group of packet i, with c.head.
func (c *Coalescer) alone(i int) group {
	b, h := c.bufs[i], &c.head
	protocol := h.flow.protocol()
	if !h.mergeable || c.NoTCP && protocol == packet.ProtoTCP || c.NoUDP && protocol == packet.ProtoUDP {
		return group{first: i, last: i, packets: 1, total: b.Len, ended: true}
	}
	g := group{first: i, last: i, packets: 1, total: b.Len,
		protocol: protocol, transport: h.transport, payload: h.payload, size: b.Len - h.payload}
	if protocol == packet.ProtoTCP {
		g.flags = b.Bytes()[h.transport+tcpFlags]
		g.ended = g.flags&(flagFIN|flagPSH) != 0
	}
	return g
}

// find is the place in open of the group of c.head's flow, or none.
func (c *Coalescer) find() int {
	k := &c.head.flow
	for at := c.opened - 1; at >= 0; at-- {
		if o := &c.open[at].flow; o.tail == k.tail && o.addrs == k.addrs {
			return at
		}
	}
	return none
}

// keepOpen lets the newest group grow, unless it has ended. at is the place of
// its flow's former group, which must not grow behind its back.
func (c *Coalescer) keepOpen(at int) {
	ended := c.groups[len(c.groups)-1].ended
	newest := openGroup{flow: c.head.flow, group: len(c.groups) - 1}
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

// join adds packet i, of g's flow and with c.head, to g when it is its
// continuation.
func (c *Coalescer) join(g *group, i int) bool {
	h := &c.head
	payload := h.total - h.payload
	if !h.mergeable || g.ended || h.payload != g.payload ||
		payload > g.size || g.total+payload > packet.MaxLen || g.packets >= maxPieces {
		return false
	}
	p, q := c.bufs[g.first].Bytes(), c.bufs[i].Bytes()
	sameID, ok := follows(g, p, q)
	if !ok || !g.sound && !sound(g, p) || !sound(g, q) {
		return false
	}
	c.next[g.last] = i
	g.last = i
	g.packets++
	g.total += payload
	g.sound, g.sameID = true, sameID
	g.ended = payload < g.size
	if g.protocol == packet.ProtoTCP {
		flags := q[g.transport+tcpFlags]
		g.flags |= flags
		g.ended = g.ended || flags&(flagFIN|flagPSH) != 0
	}
	return true
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
		c.pieces = append(c.pieces, c.bufs[k].Bytes()[g.payload:])
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
		return g.protocol
	}
	return 0
}

// Undo gives the first packet of the group that Group last returned its own
// header back.
func (c *Coalescer) Undo() {
	copy(c.where, c.undo[:c.undone])
	c.undone = 0
}

// stamp makes the header of a superpacket from the first packet's.
func (c *Coalescer) stamp(g *group, first *packet.Buffer, vnet []byte) {
	header := first.Bytes()[:g.payload]
	c.where, c.undone = header, copy(c.undo[:], header)

	t, length := header[g.transport:], g.total-g.transport
	sum, gso := tcpSum, byte(gsoTCPv6)
	switch {
	case g.protocol == packet.ProtoUDP:
		sum, gso = udpSum, gsoUDP
		binary.BigEndian.PutUint16(t[udpLen:], uint16(length))
	case g.transport == ipv4HeaderLen:
		gso = gsoTCPv4
	}
	if g.transport == ipv4HeaderLen {
		binary.BigEndian.PutUint16(header[2:], uint16(g.total))
		clear(header[10:12])
		binary.BigEndian.PutUint16(header[10:], ^packet.Checksum(header[:ipv4HeaderLen], 0))
	} else {
		binary.BigEndian.PutUint16(header[4:], uint16(g.total-ipv6HeaderLen))
	}
	if g.protocol == packet.ProtoTCP {
		t[tcpFlags] = g.flags
	}
	// Partial: the pseudo header's sum, for the kernel to go on from.
	binary.BigEndian.PutUint16(t[sum:], packet.Checksum(header[g.addrs():g.transport], g.pseudo(length)))

	vnet[vnetFlags], vnet[vnetType] = vnetNeedsCsum, gso
	binary.NativeEndian.PutUint16(vnet[vnetHdrLen:], uint16(len(header)))
	binary.NativeEndian.PutUint16(vnet[vnetSize:], uint16(g.size))
	binary.NativeEndian.PutUint16(vnet[vnetCsumStart:], uint16(g.transport))
	binary.NativeEndian.PutUint16(vnet[vnetCsumOffset:], uint16(sum))
}
