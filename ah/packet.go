package ah

import (
	"encoding/binary"
	"errors"

	"github.com/adit-ipsec/adit/internal/packet"
)

// fixedLen is the length in bytes of AH without the ICV field (RFC 4302 2).
const fixedLen = 12

// Where the fields of AH start.
const (
	atLength   = 1
	atReserved = 2
	atSPI      = 4
	atSeq      = 8
)

// What becomes of a packet that Sign or Verify does not finish. They are values,
// not built per packet; compare with ==.
var (
	// ErrMalformed: the IP header does not lead to an AH of this suite's
	// length, its options or extension headers are broken or unknown, or
	// its lengths are wrong. Found before any cryptography.
	ErrMalformed = errors.New("ah: packet malformed, or with an extension header that AH does not know")
	// ErrFragment: the packet is a fragment. RFC 4302 3.4.1: "If a packet
	// offered to AH for processing appears to be an IP fragment ... the
	// receiver MUST discard the packet". Fragmentation follows Sign (3.3.4).
	ErrFragment = errors.New("ah: packet is a fragment")
	// ErrAuth: the ICV is wrong, or the header's sequence number is not the
	// low half of Packet.Seq.
	ErrAuth = errors.New("ah: integrity check failed")
	// ErrSequence: Sign was given number 0, or one above 2^32-1 without
	// ESN. It is the caller's bug; nothing was signed.
	ErrSequence = errors.New("ah: sequence number outside the space of the security association")
	// ErrRoom: Sign was given too little room, or a payload that overlaps
	// Wire elsewhere than at its place. It is the caller's bug; nothing was
	// signed.
	ErrRoom = errors.New("ah: no room for the packet, or payload and wire overlap")
)

// Packet is one packet of a batch. All slices stay the caller's.
//
// Wire for Sign starts with the finished IP header: IPv4 with its options, or
// IPv6 with the extension headers that go in front of AH (RFC 4302 3.1.1:
// hop-by-hop, routing, destination options). Finished means that its lengths
// count AH and payload and that its last protocol field says 51; the IPv4
// checksum may still be filled in afterwards. AH stands right behind it in
// Suite.HeaderLen bytes, which Sign writes, and the payload behind AH.
//
// Overlap: Payload either starts exactly at its place in Wire (nothing is
// copied) or shares no byte with Wire (Sign copies it there).
type Packet struct {
	// Seq is the full 64-bit sequence number. Without ESN its upper half is
	// 0. Verify refuses a packet whose AH does not hold its lower half.
	Seq uint64
	// NextHeader is the protocol of the payload: Sign reads it, Verify sets
	// it.
	NextHeader uint8
	// Payload is what follows AH. Sign reads it; Verify sets it, as a part
	// of Wire.
	Payload []byte
	// Wire is the IP packet, from its first header to the end of the
	// payload. Sign cuts it to the packet's length; Verify ignores what
	// lies behind that, and writes nothing.
	Wire []byte
	// Header is where AH stands in Wire, in bytes; Verify sets it.
	Header int
	// Err is nil or an error value of this package. Verify skips a packet
	// whose Err is set on entry; Sign sets it for every packet.
	Err error
}

// ParseHeader reads the SPI and the low 32 bits of the sequence number out of
// an IP packet whose header leads to AH; ok is false if it does not.
func ParseHeader(wire []byte) (spi, low uint32, ok bool) {
	p, err := locate(wire)
	if err != nil || p.total < p.ah+fixedLen {
		return 0, 0, false
	}
	h := wire[p.ah:]
	return binary.BigEndian.Uint32(h[atSPI:]), binary.BigEndian.Uint32(h[atSeq:]), true
}

// place is where AH stands in an IP packet; all in bytes.
type place struct {
	version int
	ah      int // where AH starts
	total   int // the packet's length by its IP header
	atomic  int // where an IPv6 fragment header stands that fragments nothing; 0: none
}

const (
	ipv4Len = 20
	ipv6Len = 40
)

// locate walks the IP header up to AH. What it returns lies inside wire, but for
// a total that is longer than wire and therefore an error; it does not look
// into options.
func locate(wire []byte) (place, error) {
	if len(wire) >= ipv4Len && wire[0]>>4 == 4 {
		return locateIPv4(wire)
	}
	if len(wire) >= ipv6Len && wire[0]>>4 == 6 {
		return locateIPv6(wire)
	}
	return place{}, ErrMalformed
}

func locateIPv4(wire []byte) (place, error) {
	p := place{version: 4, ah: int(wire[0]&15) * 4, total: int(binary.BigEndian.Uint16(wire[2:]))}
	if p.total > len(wire) {
		return p, ErrMalformed
	}
	if p.ah < ipv4Len || p.total < p.ah || wire[9] != packet.ProtoAH {
		return place{}, ErrMalformed
	}
	if binary.BigEndian.Uint16(wire[6:])&0x3fff != 0 { // more fragments, offset
		return place{}, ErrFragment
	}
	return p, nil
}

func locateIPv6(wire []byte) (place, error) {
	p := place{version: 6, ah: ipv6Len, total: ipv6Len + int(binary.BigEndian.Uint16(wire[4:]))}
	if p.total > len(wire) {
		return p, ErrMalformed
	}
	wire = wire[:p.total]
	routed := false
	for next := wire[6]; next != packet.ProtoAH; {
		if p.ah+8 > len(wire) {
			return place{}, ErrMalformed
		}
		size := 8 + 8*int(wire[p.ah+1])
		switch next {
		case packet.ProtoHopByHop:
			// RFC 8200 4.1: "restricted to appear immediately after
			// an IPv6 header only".
			if p.ah != ipv6Len {
				return place{}, ErrMalformed
			}
		case packet.ProtoRouting:
			// RFC 8200 4.1: "Each extension header should occur at
			// most once, except for the Destination Options header".
			if routed {
				return place{}, ErrMalformed
			}
			routed = true
		case packet.ProtoDestination:
		case packet.ProtoFragment:
			if p.atomic != 0 {
				return place{}, ErrMalformed
			}
			if binary.BigEndian.Uint16(wire[p.ah+2:])&0xfff9 != 0 {
				return place{}, ErrFragment
			}
			p.atomic, size = p.ah, 8
		default:
			// RFC 4302 3.3.3.1.2.3: a packet with an extension header
			// that AH does not recognize is discarded.
			return place{}, ErrMalformed
		}
		if p.ah+size > len(wire) {
			return place{}, ErrMalformed
		}
		next = wire[p.ah]
		p.ah += size
	}
	return p, nil
}
