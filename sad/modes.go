package sad

import (
	"fmt"
	"time"
)

// Protocol is the IPsec protocol of an SA.
type Protocol uint8

// The protocols.
const (
	ESP Protocol = iota // RFC 4303
	AH                  // RFC 4302
)

// String returns the word of the configuration file.
func (p Protocol) String() string { return word(p, "esp", "ah") }

// Mode is what an SA protects (RFC 4301 3.2).
type Mode uint8

// The modes.
const (
	TunnelMode    Mode = iota // whole IP packets, behind an outer header
	TransportMode             // what stands behind the IP header of the two ends themselves
)

// String returns the word of the configuration file.
func (m Mode) String() string { return word(m, "tunnel", "transport") }

// Encapsulation is what carries the ESP packets of an SA.
type Encapsulation uint8

// The encapsulations.
const (
	EncapUDP  Encapsulation = iota // UDP, RFC 3948
	EncapNone                      // IP protocol 50
)

// String returns "udp" or "none", the words of the configuration file.
func (e Encapsulation) String() string {
	return word(e, "udp", "none")
}

// DFMode says what becomes of Don't Fragment on the outer IPv4 header (RFC 4301
// 8.1).
type DFMode uint8

// The modes.
const (
	DFCopy  DFMode = iota // from the inner IPv4 header; clear over IPv6 inside (RFC 4213 3.2.1)
	DFSet                 // always
	DFClear               // never
)

// String returns the word of the configuration file.
func (m DFMode) String() string { return word(m, "copy", "set", "clear") }

// ECNMode is the mode of RFC 6040 for making the outer header.
type ECNMode uint8

// The modes.
const (
	ECNNormal ECNMode = iota // copy the inner field, RFC 6040 4.1
	ECNCompat                // send Not-ECT, for peers that know no ECN
)

// String returns the word of the configuration file.
func (m ECNMode) String() string { return word(m, "normal", "compat") }

// DSCP says what the outer header's DSCP is: copied from the inner header (the
// zero value), 0 whatever the inner header says, or one fixed value.
type DSCP uint8

// The modes without a number; FixedDSCP makes the others.
const (
	DSCPCopy DSCP = 0
	DSCPOff  DSCP = 1

	dscpFixed DSCP = 0x80
)

// FixedDSCP puts v, 0 to 63, on every outer header; higher bits of v are cut.
func FixedDSCP(v uint8) DSCP { return dscpFixed | DSCP(v&63) }

// Outer is the DSCP of the outer header over a packet whose DSCP is inner; both
// are 0 to 63.
func (d DSCP) Outer(inner uint8) uint8 {
	switch {
	case d&dscpFixed != 0:
		return uint8(d & 63)
	case d == DSCPOff:
		return 0
	}
	return inner & 63
}

// String returns the word of the configuration file, or the number.
func (d DSCP) String() string {
	if d&dscpFixed != 0 {
		return fmt.Sprint(uint8(d & 63))
	}
	return word(d, "copy", "off")
}

// Tunnel is how the outer header follows from the inner one. The zero value
// copies DF and DSCP and is normal ECN.
type Tunnel struct {
	DF   DFMode
	ECN  ECNMode
	DSCP DSCP
}

// word is the text of an enumeration's value.
func word[T ~uint8](v T, words ...string) string {
	if int(v) < len(words) {
		return words[v]
	}
	return fmt.Sprintf("unknown(%d)", uint8(v))
}

// FragmentMode says where an IPv4 packet that is too long for the path, and may
// be fragmented, is cut (RFC 4301 7).
type FragmentMode uint8

// The modes.
const (
	FragmentBefore FragmentMode = iota // the inner packet: each fragment is protected by itself
	FragmentAfter                      // the outer packet
)

// String returns the word of the configuration file.
func (m FragmentMode) String() string { return word(m, "before", "after") }

// TFC is how far ESP packets in tunnel mode are padded against traffic analysis
// (RFC 4303 2.7): up to that many bytes of inner packet; TFCOff or TFCMTU.
type TFC int32

// The values that are no lengths.
const (
	TFCOff TFC = 0
	TFCMTU TFC = -1 // up to the longest that the path takes in one piece
)

// String returns the word of the configuration file, or the number.
func (t TFC) String() string {
	switch t {
	case TFCOff:
		return "off"
	case TFCMTU:
		return "mtu"
	}
	return fmt.Sprint(int32(t))
}

// Lifetime is when an SA is to be replaced (soft) and when it ends (hard),
// whichever limit comes first (RFC 4301 4.4.2.1). 0 is no limit. Bytes are
// those of packets before encryption and after decryption.
type Lifetime struct {
	Soft, Hard               time.Duration // since the SA was installed
	SoftBytes, HardBytes     uint64
	SoftPackets, HardPackets uint64
	Idle                     time.Duration // the SA ends when it has carried nothing for so long
}
