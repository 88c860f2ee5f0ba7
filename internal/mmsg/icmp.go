package mmsg

import "golang.org/x/sys/unix"

// The ICMP errors that tell about packets of this host, and on which a gateway
// can act.
const (
	icmpUnreachable   = 3 // RFC 792; code 4 is "fragmentation needed and DF set"
	icmpv6Unreachable = 1 // RFC 4443 3.1
	icmpv6TooBig      = 2 // RFC 4443 3.2
)

// filterICMP has the kernel keep all other messages from the socket.
func (s *Socket) filterICMP(fd int) error {
	if s.ipv6 {
		var block unix.ICMPv6Filter
		for i := range block.Data {
			block.Data[i] = ^uint32(0)
		}
		block.Data[0] &^= 1<<icmpv6Unreachable | 1<<icmpv6TooBig
		if err := unix.SetsockoptICMPv6Filter(fd, unix.SOL_ICMPV6, unix.ICMPV6_FILTER, &block); err != nil {
			return explain("set ICMP6_FILTER", err)
		}
		return nil
	}
	block := int32(^(1 << icmpUnreachable))
	if err := unix.SetsockoptInt(fd, unix.SOL_RAW, unix.ICMP_FILTER, int(block)); err != nil {
		return explain("set ICMP_FILTER", err)
	}
	return nil
}

// tellsOfOurPackets is the filter once more: Linux filters ICMPv4 by types below
// 32 only, and a socket that is open and has no filter yet gets everything.
func tellsOfOurPackets(message []byte, ipv6 bool) bool {
	if len(message) < 8 {
		return false
	}
	if ipv6 {
		return message[0] == icmpv6Unreachable || message[0] == icmpv6TooBig
	}
	return message[0] == icmpUnreachable
}
