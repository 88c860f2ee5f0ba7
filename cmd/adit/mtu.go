package main

import (
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// Sizes of the outer headers in bytes (RFC 791, RFC 8200, RFC 768).
const (
	ipv4Header = 20
	ipv6Header = 40
	udpHeader  = 8
)

// ethernetMTU is what a path is taken to hold as long as nothing else is known.
const ethernetMTU = 1500

// minIPv6MTU is the least that IPv6 needs of a link (RFC 8200 section 5).
const minIPv6MTU = 1280

// tunnelMTU is the longest inner packet, in bytes, that every outbound SA
// carries in one outer packet of at most outer(sa) bytes; ok is false when there
// is no outbound SA.
func tunnelMTU(params []sad.Params, outer func(*sad.Params) int) (mtu int, ok bool) {
	for i := range params {
		p := &params[i]
		if p.Direction != packet.Outbound {
			continue
		}
		room := outer(p) - ipv4Header
		if !p.Remote.Addr().Unmap().Is4() {
			room = outer(p) - ipv6Header
		}
		if p.Encap == sad.EncapUDP {
			room -= udpHeader
		}
		if fits := p.Suite.MaxPayload(room); !ok || fits < mtu {
			mtu, ok = fits, true
		}
	}
	return mtu, ok
}
