package natt

import (
	"net/netip"

	"github.com/adit-ipsec/adit/internal/packet"
)

// Message is one UDP datagram of a batch.
type Message = packet.Datagram

// Kind is what a UDP payload on port 4500 is.
type Kind uint8

// The kinds. The zero value is the one that nobody acts on.
const (
	Malformed Kind = iota
	ESP
	IKE
	Keepalive
)

// String is the kind in one lower-case word, for logs and counters.
func (k Kind) String() string {
	switch k {
	case ESP:
		return "esp"
	case IKE:
		return "ike"
	case Keepalive:
		return "keepalive"
	}
	return "malformed"
}

const (
	// NonESPMarkerLen is the length of the four zero bytes in front of an
	// IKE message on port 4500 (RFC 3948 2.2).
	NonESPMarkerLen = 4
	// IKEHeaderLen is the length of the IKE header (RFC 7296 3.1).
	IKEHeaderLen = 28
	espHeaderLen = 8 // SPI and sequence number

	// keepaliveByte is the whole payload of a keepalive (RFC 3948 2.3).
	keepaliveByte = 0xff
)

// Classify tells what the UDP payload b is (RFC 3948 section 2). It looks at
// the length and at the first four bytes only.
//
// RFC 3948 2.3: "The receiver SHOULD ignore a received NAT-keepalive packet.
// The Keepalive is a single octet with the value 0xFF."
// RFC 3948 2.1: "The SPI field in the ESP header MUST NOT be a zero value."
// RFC 3948 2.2: "The Non-ESP Marker is 4 zero-valued octets aligning with the
// SPI field of an ESP packet."
//
// Shorter than an ESP header (8 bytes), or a marker without a whole IKE header
// (28 bytes) behind it, is Malformed: nothing may be read from it.
func Classify(b []byte) Kind {
	if len(b) < espHeaderLen {
		if len(b) == 1 && b[0] == keepaliveByte {
			return Keepalive
		}
		return Malformed
	}
	if b[0]|b[1]|b[2]|b[3] != 0 {
		return ESP
	}
	if len(b) < NonESPMarkerLen+IKEHeaderLen {
		return Malformed
	}
	return IKE
}

// FillKeepalive makes m a keepalive from local to peer: one byte 0xFF, traffic
// class 0. m.Mem must hold a byte at packet.Headroom.
//
// RFC 3948 2.3: "the sender MUST use one octet-long payload with the value
// 0xFF".
func FillKeepalive(m *Message, local netip.Addr, peer netip.AddrPort) {
	m.Off, m.Len = packet.Headroom, 1
	m.Mem[packet.Headroom] = keepaliveByte
	m.Local, m.Addr = local, peer
	m.TOS, m.DF, m.SegmentSize = 0, false, 0
}
