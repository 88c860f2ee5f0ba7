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

// outerIP is the length in bytes of an IP header of the version, 4 or 6.
func outerIP(version int) int {
	if version == 4 {
		return ipv4Header
	}
	return ipv6Header
}

// innerMTU is the longest packet from the TUN, in bytes, that one SA, or the two
// of a bundle, carry in one packet of at most outer bytes; negative if there is
// none. It is the one place that adds up what protocols and modes put around a
// packet.
func innerMTU(outer int, sas ...*sad.Params) int {
	version := 6
	if sas[0].Remote.Addr().Unmap().Is4() {
		version = 4
	}
	// Behind the IP header in both modes: in tunnel mode it is a new one, in
	// transport mode the packet's own.
	room, own := outer-outerIP(version), 0
	if sas[0].Mode == sad.TransportMode {
		own = outerIP(version)
	}
	if sas[0].Encap == sad.EncapUDP {
		room -= udpHeader
	}
	for _, p := range sas {
		if p.Protocol == sad.AH {
			room -= p.AHSuite.HeaderLen(version)
		}
	}
	for _, p := range sas {
		if p.Protocol == sad.ESP {
			room = p.Suite.MaxPayload(room)
		}
	}
	if room < 0 {
		return room
	}
	return room + own
}

// tunnelMTU is the longest inner packet, in bytes, that every outbound SA
// carries in one outer packet of at most outer(sa) bytes; ok is false when there
// is no outbound SA.
func tunnelMTU(params []sad.Params, outer func(*sad.Params) int) (mtu int, ok bool) {
	for i := range params {
		p := &params[i]
		if p.Direction != packet.Outbound {
			continue
		}
		sas := []*sad.Params{p}
		if p.Bundle {
			sas = bundleOf(params, p)
		}
		if fits := innerMTU(outer(p), sas...); !ok || fits < mtu {
			mtu, ok = fits, true
		}
	}
	return mtu, ok
}

// bundleOf is the SAs that stand around a packet together with p.
func bundleOf(params []sad.Params, p *sad.Params) (list []*sad.Params) {
	for i := range params {
		if q := &params[i]; q.Bundle && q.Peer == p.Peer && q.Policy == p.Policy && q.Direction == p.Direction {
			list = append(list, q)
		}
	}
	return list
}
