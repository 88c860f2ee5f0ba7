package esp

import (
	"encoding/binary"
	"errors"
)

// HeaderLen is the length in bytes of SPI and sequence number.
const HeaderLen = 8

// trailerLen is pad length and next header.
const trailerLen = 2

// What becomes of a packet that Seal or Open does not finish. They are values,
// not built per packet; compare with ==.
var (
	// ErrMalformed: too short for its suite, or the encrypted text is not a
	// multiple of the alignment. Found before any cryptography.
	ErrMalformed = errors.New("esp: packet too short or not aligned")
	// ErrAuth: the ICV is wrong, or the header's sequence number is not the
	// low half of Packet.Seq.
	ErrAuth = errors.New("esp: integrity check failed")
	// ErrPadding: authentic, but the padding is longer than the text or not
	// 1, 2, 3 and so on (RFC 4303 2.4).
	ErrPadding = errors.New("esp: padding is not 1, 2, 3... or longer than the packet")
	// ErrSequence: Seal was given number 0, or one above 2^32-1 without
	// ESN. It is the caller's bug; nothing was sealed.
	ErrSequence = errors.New("esp: sequence number outside the space of the security association")
	// ErrRoom: Seal was given too little room, or a payload that overlaps
	// Wire elsewhere than at its place. It is the caller's bug; nothing was
	// sealed.
	ErrRoom = errors.New("esp: no room for the packet, or payload and wire overlap")
)

// Packet is one packet of a batch. All slices stay the caller's.
//
// Overlap: Payload either starts exactly at Wire[HeaderLen+IVLen] (in place) or
// shares no byte with Wire. Not in place, Seal builds the trailer behind
// Payload in Payload's own memory: cap(Payload)-len(Payload) must be at least
// TrailerLen(len(Payload)).
type Packet struct {
	// Seq is the full 64-bit sequence number. Without ESN its upper half is
	// 0. Open refuses a packet whose header does not hold its lower half.
	Seq uint64
	// NextHeader is the protocol of the payload: Seal reads it, Open sets
	// it.
	NextHeader uint8
	// Payload is the cleartext. Seal reads it; Open sets it, without
	// padding and trailer, as a part of Wire.
	Payload []byte
	// Wire is the ESP packet, from the SPI to the end of the ICV. Seal
	// wants at least SealedLen(len(Payload)) bytes and cuts Wire to the
	// packet; Open decrypts inside it, and after an error its bytes behind
	// the header are undefined.
	Wire []byte
	// Err is nil or an error value of this package. Open skips a packet
	// whose Err is set on entry; Seal sets it for every packet.
	Err error
}

// ParseHeader reads the SPI and the low 32 bits of the sequence number from
// the start of an ESP packet; ok is false if b is too short to hold them.
func ParseHeader(b []byte) (spi, low uint32, ok bool) {
	if len(b) < HeaderLen {
		return 0, 0, false
	}
	return binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), true
}

// padding holds the bytes of the longest padding. RFC 4303 2.4: "the first
// padding byte appended to the plaintext is numbered 1, with subsequent padding
// bytes making up a monotonically increasing sequence: 1, 2, 3, ..."
var padding = func() (p [255]byte) {
	for i := range p {
		p[i] = byte(i + 1)
	}
	return p
}()
