package packet

import "net/netip"

// Direction is a packet's way through the gateway: outbound is from the TUN
// towards the wire, inbound is from the wire towards the TUN, in every file,
// counter and log.
type Direction uint8

// The two directions.
const (
	Outbound Direction = iota
	Inbound
)

// String returns "out" or "in", the words of the configuration file.
func (d Direction) String() string {
	if d == Outbound {
		return "out"
	}
	return "in"
}

// Room that every Buffer and Datagram keeps around a packet, in bytes, so that
// all headers and trailers can be made in place.
const (
	// Headroom holds what goes in front of an inner packet: ESP header (8),
	// the longest IV (16), a virtio-net header (12), and for senders that
	// write the outer headers themselves IPv6 (40) and UDP (8).
	Headroom = 128
	// Tailroom holds what goes behind it: up to 255 bytes of padding, two
	// trailer bytes and the longest ICV (32).
	Tailroom = 320
	// MaxLen is the longest IP packet, and the longest superpacket.
	MaxLen = 65535
	// SlotLen is the size of a slot that holds any packet with its rooms.
	SlotLen = Headroom + MaxLen + Tailroom + 1
)

const _ = uint(Headroom - (8 + 16 + 12 + 40 + 8))
const _ = uint(Tailroom - (255 + 2 + 32))

// Buffer is a packet, or a superpacket, inside memory that a worker owns from
// start to close. Whoever is handed a *Buffer has borrowed it until the
// worker's next ReadBatch; longer life needs Clone.
type Buffer struct {
	Mem []byte // the whole slot: headroom, packet, tailroom
	Off int    // where the packet starts in Mem
	Len int    // its length in bytes

	// SegmentSize is the payload length, in bytes, of each segment but the
	// last of a superpacket (virtio-net's gso_size); 0: a plain packet.
	SegmentSize int

	Header Header // set by Parse
	Flow   Flow   // set by Parse
}

// NewBuffers returns n buffers with slots of SlotLen bytes each. The memory is
// touched, and so takes room, only as far as packets fill it.
func NewBuffers(n int) []Buffer {
	bufs := make([]Buffer, n)
	mem := make([]byte, n*SlotLen)
	for i := range bufs {
		bufs[i] = Buffer{Mem: mem[i*SlotLen : (i+1)*SlotLen : (i+1)*SlotLen], Off: Headroom}
	}
	return bufs
}

// Bytes is the packet, with the tailroom as spare capacity.
func (b *Buffer) Bytes() []byte { return b.Mem[b.Off : b.Off+b.Len] }

// Set copies p behind the headroom and forgets what the buffer held.
func (b *Buffer) Set(p []byte) {
	b.Off, b.Len, b.SegmentSize = Headroom, copy(b.Mem[Headroom:], p), 0
}

// Segments is the number of packets that this (super)packet becomes on the
// wire: the number of sequence numbers it needs.
func (b *Buffer) Segments() int {
	payload := b.Len - b.Header.PayloadOffset
	if b.SegmentSize <= 0 || payload <= b.SegmentSize {
		return 1
	}
	return (payload + b.SegmentSize - 1) / b.SegmentSize
}

// Clone returns a copy that the caller owns: the same packet in memory of its
// own, with head- and tailroom.
func (b *Buffer) Clone() Buffer {
	c := *b
	c.Mem = make([]byte, Headroom+b.Len+Tailroom)
	c.Off = Headroom
	copy(c.Mem[Headroom:], b.Bytes())
	return c
}

// Datagram is what one slot of a wire's batch carries: the payload of one
// outer packet (an ESP packet, or a UDP payload that holds one) with the outer
// header's fields that matter. Off and Len say where it lies in Mem.
type Datagram struct {
	Mem []byte
	Off int
	Len int

	// Addr is the peer: where a received datagram came from, where a sent
	// one goes. The port is 0 on raw IP.
	Addr netip.AddrPort
	// Local is this end's address: where a received datagram was sent to,
	// and what a sent one comes from (zero: the kernel's choice).
	Local netip.Addr

	TOS uint8 // outer traffic class: DSCP in the upper six bits, ECN in the lower two
	TTL uint8 // TTL or hop limit of a received raw packet; 0: not known
	DF  bool  // IPv4: set Don't Fragment on the outer header when sending

	// SegmentSize is set when the slot holds several datagrams of this many
	// bytes each, the last one possibly shorter (UDP GSO and GRO); 0: one.
	SegmentSize int
}

// NewDatagrams returns n datagrams with slots of SlotLen bytes each.
func NewDatagrams(n int) []Datagram {
	grams := make([]Datagram, n)
	mem := make([]byte, n*SlotLen)
	for i := range grams {
		grams[i] = Datagram{Mem: mem[i*SlotLen : (i+1)*SlotLen : (i+1)*SlotLen], Off: Headroom}
	}
	return grams
}

// Bytes is the datagram's payload.
func (d *Datagram) Bytes() []byte { return d.Mem[d.Off : d.Off+d.Len] }
