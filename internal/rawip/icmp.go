package rawip

import (
	"fmt"
	"net/netip"

	"github.com/adit-ipsec/adit/internal/mmsg"
	"github.com/adit-ipsec/adit/internal/packet"
)

// icmpBuffer is the receive buffer of an ICMP socket, in bytes. What comes is
// not authenticated: a flood of it is to be lost here, not to take memory.
const icmpBuffer = 64 << 10

// ListenICMP opens a raw socket of the family, 4 or 6, that receives the ICMP
// errors about packets that this host has sent from address (invalid: any), and
// no other messages: ICMPv4 type 3 (destination unreachable, RFC 792; all codes,
// fragmentation needed among them), ICMPv6 types 1 (destination unreachable) and 2
// (packet too big; RFC 4443 3.1, 3.2). mark is the SO_MARK; 0: none. It needs
// CAP_NET_RAW.
//
// A datagram's Bytes are the ICMP message from its type on, Addr is who says so.
// Nothing of it is authenticated, and it may be an error about another program's
// packet. ICMPv6 checksums are verified: a message with a wrong one does not
// arrive. ICMPv4 checksums are not: a raw socket gets the message before the
// kernel looks at them, so the caller verifies. Of a flood, what does not fit a
// small buffer is lost. The Conn is for reading.
func ListenICMP(family int, address netip.Addr, mark uint32) (*Conn, error) {
	if err := checkFamily(family, address); err != nil {
		return nil, err
	}
	protocol := packet.ProtoICMP
	if family == 6 {
		protocol = packet.ProtoICMPv6
	}
	s, err := mmsg.ListenRaw(mmsg.Config{
		Address: address, IPv6: family == 6, Protocol: protocol, Mark: mark, ICMPErrors: true, ReceiveBuffer: icmpBuffer,
	})
	if err != nil {
		return nil, fmt.Errorf("raw IPv%d socket for ICMP errors: %w", family, err)
	}
	return &Conn{socket: s}, nil
}
