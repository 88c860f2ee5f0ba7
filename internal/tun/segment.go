package tun

import (
	"encoding/binary"
	"errors"

	"github.com/adit-ipsec/adit/internal/crypt"
	"github.com/adit-ipsec/adit/internal/packet"
)

// One superpacket becomes segments, in place:
//
//	Init        parse, refuse what cannot be cut, sum what all segments share
//	Next        put back what the last segment's trailer overwrote, move the
//	            header to just before this payload, stamp it, save what this
//	            segment's trailer will overwrite
//	CopyNext    the same into other memory; the superpacket stays as it is
//
// Where the bytes lie while segment 1 of three is borrowed (T: the trailer that
// the caller may build, over the first bytes of payload 2):
//
//	| headroom | header | payload 0 | payload 1 | payload 2 | tailroom |
//	               spent^   | header| payload 1 | T |
//
// The header of segment i lies on the end of payload i-1, or on several
// payloads where they are shorter than the header. They have been sealed by
// then: so segments are taken in order, and each is used up (sealed into other
// memory, or copied) before the next is asked for.

// Why a superpacket is not cut. They are values, not built per packet; whoever
// counts drops may tell them apart.
var (
	ErrSegmentSize     = errors.New("tun: superpacket without a segment size")
	ErrSegmentProtocol = errors.New("tun: superpacket of a protocol that is neither TCP nor UDP")
	ErrSegmentHeader   = errors.New("tun: superpacket whose TCP or UDP header does not fit")
	ErrSegmentLength   = errors.New("tun: superpacket whose UDP length is not the packet's")
	ErrSegmentFragment = errors.New("tun: superpacket that is a fragment")
	ErrSegmentFlags    = errors.New("tun: superpacket of several segments with SYN or RST")
	ErrSegmentAddress  = errors.New("tun: superpacket whose pseudo header is not of the addresses in its IP header")
	ErrSegmentRoom     = errors.New("tun: superpacket without room for a trailer behind it")
)

// TCP header fields: offsets in bytes, and the flags of the byte at tcpFlags
// (RFC 9293 3.1; CWR: RFC 3168 6.1).
const (
	tcpSeq    = 4
	tcpAck    = 8
	tcpOffset = 12 // the header's length in four-byte words: the upper half of the byte
	tcpFlags  = 13
	tcpSum    = 16
	tcpUrgent = 18

	tcpHeaderLen = 20 // without options

	flagFIN = 0x01
	flagSYN = 0x02
	flagRST = 0x04
	flagPSH = 0x08
	flagACK = 0x10
	flagURG = 0x20
	flagECE = 0x40
	flagCWR = 0x80
)

// UDP header fields: offsets in bytes (RFC 768), and the header's length.
const (
	udpLen       = 4
	udpSum       = 6
	udpHeaderLen = 8
)

// IP headers without options or extensions, in bytes.
const (
	ipv4HeaderLen = 20
	ipv6HeaderLen = 40
)

// Segmenter cuts one superpacket into the packets that it stands for. It is a
// value: keep one per worker and Init it again for each superpacket. It
// allocates nothing. The zero value has no segments.
type Segmenter struct {
	mem   []byte // the superpacket's slot
	index int    // the segment that comes next
	count int

	head    int // where the header now lies in mem
	payload int // where the next payload starts in mem
	end     int // where the last one ends
	size    int // payload bytes of each segment but the last

	headerLen int // all that segments repeat: IP, options, TCP or UDP
	transport int // where TCP or UDP starts in it

	ipv4 bool
	udp  bool
	// Sums of the header with the fields that differ from segment to segment
	// taken as zero: the IPv4 header; pseudo header and TCP or UDP header.
	ipBase, base uint16

	id     uint16 // IPv4 identification of the first segment
	seq    uint32 // TCP sequence number of the next segment
	flags  uint8
	urgent uint16 // urgent pointer of the next segment; 0: none, or behind us

	trailer int // most bytes that the caller writes behind a segment
	saved   int // bytes of save that belong at payload
	save    [packet.Tailroom]byte
}

// Init takes b, which holds one TCP or UDP packet and in SegmentSize the payload
// bytes of each segment but the last, as virtio-net hands it over. trailer is
// the most bytes that the caller will write behind each segment of Next, 0 to
// packet.Tailroom; b must have as many behind the packet. b is borrowed until
// the last segment is used up, and its packet is spent then.
//
// A payload that fits one segment, or none, makes one segment. The lengths are
// taken from the IP and TCP headers and from b, never from what else the kernel
// says. The error is one of this package's ErrSegment values or packet.Parse's,
// and b's packet is then as it was.
func (s *Segmenter) Init(b *packet.Buffer, trailer int) error {
	s.count, s.index, s.saved = 0, 0, 0
	if err := b.Parse(); err != nil {
		return err
	}
	if err := cuttable(b); err != nil {
		return err
	}
	if trailer < 0 || trailer > packet.Tailroom || b.Off+b.Len+trailer > len(b.Mem) {
		return ErrSegmentRoom
	}
	h := &b.Header
	s.mem = b.Mem
	s.head, s.payload, s.end = b.Off, b.Off+h.PayloadOffset, b.Off+b.Len
	s.size, s.count, s.trailer = b.SegmentSize, b.Segments(), trailer
	s.headerLen, s.transport = h.PayloadOffset, h.TransportOffset
	s.ipv4, s.udp = h.Version == 4, b.Flow.Protocol == packet.ProtoUDP
	s.sumHeader(b.Bytes()[:s.headerLen], &b.Flow)
	return nil
}

// cuttable tells why a parsed buffer cannot be cut. It changes nothing.
func cuttable(b *packet.Buffer) error {
	h, t := &b.Header, b.Bytes()[b.Header.TransportOffset:]
	sum := 0
	switch {
	case b.SegmentSize <= 0:
		return ErrSegmentSize
	case h.Fragment:
		return ErrSegmentFragment
	case b.Flow.Protocol != packet.ProtoTCP && b.Flow.Protocol != packet.ProtoUDP:
		return ErrSegmentProtocol
	case h.PayloadOffset == h.TransportOffset: // Parse did not believe the header
		return ErrSegmentHeader
	case b.Flow.Protocol == packet.ProtoUDP:
		if int(binary.BigEndian.Uint16(t[udpLen:])) != len(t) {
			return ErrSegmentLength
		}
		sum = udpSum
	default:
		if t[tcpFlags]&(flagSYN|flagRST) != 0 && b.Segments() > 1 {
			return ErrSegmentFlags
		}
		sum = tcpSum
	}
	// With a routing header, a home address or an IPv4 source route the pseudo
	// header is not of the addresses that the IP header shows (RFC 8200 8.1:
	// "If the IPv6 packet contains a Routing header, the Destination Address
	// used in the pseudo-header is that of the final destination"). The
	// partial checksum tells: what it does not confirm is refused.
	if h.TransportOffset != plainHeaderLen(h) &&
		binary.BigEndian.Uint16(t[sum:]) != packet.PseudoChecksum(&b.Flow, b.Flow.Protocol, len(t)) {
		return ErrSegmentAddress
	}
	return nil
}

// plainHeaderLen is the IP header's length without options and extensions.
func plainHeaderLen(h *packet.Header) int {
	if h.Version == 4 {
		return ipv4HeaderLen
	}
	return ipv6HeaderLen
}

// sumHeader remembers the fields that differ from segment to segment, clears
// them and sums the rest: once per superpacket.
func (s *Segmenter) sumHeader(header []byte, f *packet.Flow) {
	if s.ipv4 {
		s.id = binary.BigEndian.Uint16(header[4:])
		clear(header[2:6])
		clear(header[10:12])
		s.ipBase = packet.Checksum(header[:s.transport], 0)
	}
	t := header[s.transport:]
	if s.udp {
		clear(t[udpLen:udpHeaderLen])
	} else {
		s.seq = binary.BigEndian.Uint32(t[tcpSeq:])
		s.flags, s.urgent = t[tcpFlags], binary.BigEndian.Uint16(t[tcpUrgent:])
		clear(t[tcpSeq : tcpSeq+4])
		t[tcpFlags] = 0
		clear(t[tcpSum : tcpUrgent+2])
	}
	s.base = packet.Checksum(t, packet.PseudoChecksum(f, f.Protocol, 0))
}

// Segments is how many segments there are still to come.
func (s *Segmenter) Segments() int { return s.count - s.index }

// Longest is the length in bytes of the longest segment to come.
func (s *Segmenter) Longest() int { return s.headerLen + min(s.size, s.end-s.payload) }

// Next is the next segment: a whole IP packet with right lengths and checksums,
// lying in the superpacket's own memory, with the trailer that Init was told of
// as spare capacity. It is borrowed until the next call; until then nothing in
// the slot but that spare capacity may be written. ok is false behind the last.
func (s *Segmenter) Next() (segment []byte, ok bool) {
	if s.index >= s.count {
		return nil, false
	}
	copy(s.mem[s.payload:], s.save[:s.saved])
	n := min(s.size, s.end-s.payload)
	at, stop := s.payload-s.headerLen, s.payload+n
	if at != s.head {
		// The two may overlap: copy is a memmove.
		copy(s.mem[at:s.payload], s.mem[s.head:s.head+s.headerLen])
		s.head = at
	}
	s.stamp(s.mem[at:s.payload], n, crypt.Checksum(s.mem[s.payload:stop], 0))
	s.saved = copy(s.save[:s.trailer], s.mem[stop:s.end])
	s.payload = stop
	return s.mem[at : stop : stop+s.trailer], true
}

// CopyNext writes the next segment to the start of dst, which shares no byte
// with the superpacket, and returns its length. It may take turns with Next. ok
// is false, and nothing is done, behind the last segment and when dst is
// shorter than the segment (see Longest).
func (s *Segmenter) CopyNext(dst []byte) (n int, ok bool) {
	size := min(s.size, s.end-s.payload)
	n = s.headerLen + size
	if s.index >= s.count || n > len(dst) {
		return 0, false
	}
	copy(s.mem[s.payload:], s.save[:s.saved])
	s.saved = 0
	copy(dst, s.mem[s.head:s.head+s.headerLen])
	sum := crypt.Copy(dst[s.headerLen:n], s.mem[s.payload:s.payload+size], 0)
	s.stamp(dst[:s.headerLen], size, sum)
	s.payload += size
	return n, true
}

// stamp fills in the fields that sumHeader has cleared, for the segment with a
// payload of that many bytes and that sum, and goes on to the next.
func (s *Segmenter) stamp(header []byte, payload int, sum uint16) {
	total := len(header) + payload
	if s.ipv4 {
		id := s.id + uint16(s.index) // RFC 6864: unique among fragmentable packets
		binary.BigEndian.PutUint16(header[2:], uint16(total))
		binary.BigEndian.PutUint16(header[4:], id)
		binary.BigEndian.PutUint16(header[10:], ^fold(uint32(s.ipBase)+uint32(total)+uint32(id)))
	} else {
		binary.BigEndian.PutUint16(header[4:], uint16(total-ipv6HeaderLen))
	}
	t, length := header[s.transport:], total-s.transport
	if s.udp {
		s.stampUDP(t, length, sum)
	} else {
		s.stampTCP(t, payload, length, sum)
	}
	s.index++
}

func (s *Segmenter) stampUDP(t []byte, length int, payloadSum uint16) {
	sum := ^fold(uint32(s.base) + 2*uint32(length) + uint32(payloadSum))
	if sum == 0 {
		// RFC 768: "If the computed checksum is zero, it is transmitted as
		// all ones".
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(t[udpLen:], uint16(length))
	binary.BigEndian.PutUint16(t[udpSum:], sum)
}

func (s *Segmenter) stampTCP(t []byte, payload, length int, payloadSum uint16) {
	flags, urgent := s.flags, s.urgent
	if s.index > 0 {
		// RFC 3168 6.1.2: CWR is for "the first new data packet sent after
		// the window reduction".
		flags &^= flagCWR
	}
	if s.index < s.count-1 {
		flags &^= flagFIN | flagPSH
	}
	if s.flags&flagURG != 0 && urgent == 0 && s.index > 0 {
		flags &^= flagURG // the urgent data ended in an earlier segment
	}
	sum := uint32(s.base) + uint32(length) + s.seq>>16 + s.seq&0xffff + uint32(flags) + uint32(urgent) + uint32(payloadSum)
	binary.BigEndian.PutUint32(t[tcpSeq:], s.seq)
	t[tcpFlags] = flags
	binary.BigEndian.PutUint16(t[tcpUrgent:], urgent)
	binary.BigEndian.PutUint16(t[tcpSum:], ^fold(sum))
	s.seq += uint32(payload)
	if s.flags&flagURG != 0 {
		// RFC 9293 3.1: the pointer is "a positive offset from the sequence
		// number in this segment".
		s.urgent -= uint16(min(payload, int(urgent)))
	}
}

// fold adds the carries of a one's complement sum back in.
func fold(sum uint32) uint16 {
	sum = sum&0xffff + sum>>16
	return uint16(sum + sum>>16)
}
