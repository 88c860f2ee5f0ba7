package wire

import (
	"encoding/binary"

	"golang.org/x/crypto/cryptobyte"
)

// HeaderLen is the length of the IKE header in bytes (RFC 7296 3.1).
const HeaderLen = 28

// Version is the major version of this protocol, IKEv2.
const Version = 2

// Header is the IKE header of RFC 7296 3.1.
type Header struct {
	Initiator, Responder SPI
	Next                 PayloadType // the first payload's type; [Append] and [BeginProtected] set it
	Major, Minor         uint8       // Major 0 is sent as [Version]
	Exchange             ExchangeType
	Flags                Flags
	MessageID            uint32
	Length               uint32 // of the whole message in bytes; [Append] and [BeginProtected] set it
}

// ParseHeader reads the header of message b, whose length field must be len(b). It
// does not look at the version: whoever meets a higher Major than [Version] has to
// answer it (RFC 7296 2.5), and [Parse] refuses it. Its error is a *ParseError.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderLen {
		return Header{}, &ParseError{Offset: len(b), What: "header is cut short"}
	}
	var (
		h                            Header
		s                            = cryptobyte.String(b)
		next, version, exchange, flg uint8
	)
	if !s.ReadUint64((*uint64)(&h.Initiator)) || !s.ReadUint64((*uint64)(&h.Responder)) ||
		!s.ReadUint8(&next) || !s.ReadUint8(&version) || !s.ReadUint8(&exchange) || !s.ReadUint8(&flg) ||
		!s.ReadUint32(&h.MessageID) || !s.ReadUint32(&h.Length) {
		return Header{}, &ParseError{Offset: len(b), What: "header is cut short"}
	}
	h.Next, h.Exchange = PayloadType(next), ExchangeType(exchange)
	h.Major, h.Minor = version>>4, version&15
	// RFC 7296 3.1: the other bits "MUST be cleared when sending and MUST be
	// ignored on receipt".
	h.Flags = Flags(flg) & (FlagInitiator | FlagVersion | FlagResponse)
	if uint64(h.Length) != uint64(len(b)) {
		return Header{}, &ParseError{Offset: 24, What: "length field is not the length of the message"}
	}
	return h, nil
}

// append writes the header as it is, Length included.
func (h Header) append(dst []byte) []byte {
	if h.Major == 0 {
		h.Major = Version
	}
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.Initiator))
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.Responder))
	dst = append(dst, byte(h.Next), h.Major<<4|h.Minor&15, byte(h.Exchange), byte(h.Flags))
	dst = binary.BigEndian.AppendUint32(dst, h.MessageID)
	return binary.BigEndian.AppendUint32(dst, h.Length)
}

// Response says whether the message answers a request.
func (h Header) Response() bool { return h.Flags&FlagResponse != 0 }

// FromInitiator says whether the sender is the original initiator of the IKE SA.
func (h Header) FromInitiator() bool { return h.Flags&FlagInitiator != 0 }
