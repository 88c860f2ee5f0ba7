package ah

import (
	"encoding/binary"

	"github.com/adit-ipsec/adit/internal/packet"
)

// What the ICV covers of the IP header (RFC 4302 3.3.3.1): mutable fields as
// zero, source routes as they are at the packet's final destination.

// cover turns h, a copy of the IP header that locate measured, into what the
// ICV covers, and returns its length, which is shorter where a fragment header
// goes.
func cover(h []byte, p *place) (int, error) {
	if p.version == 4 {
		return len(h), coverIPv4(h)
	}
	if err := coverIPv6(h); err != nil {
		return 0, err
	}
	if p.atomic != 0 {
		return withoutFragment(h, p.atomic), nil
	}
	return len(h), nil
}

// coverIPv4 zeroes what RFC 4302 3.3.3.1.1.1 calls mutable: DSCP and ECN,
// flags, fragment offset, time to live, header checksum.
func coverIPv4(h []byte) error {
	h[1] = 0
	h[6], h[7] = 0, 0
	h[8] = 0
	h[10], h[11] = 0, 0
	return coverOptionsIPv4(h)
}

// IPv4 options of RFC 4302 appendix A1, by type. All that are not listed as
// immutable are mutable, and an option is zeroed as a whole or not at all.
const (
	optEnd    = 0
	optNOP    = 1
	optLSRR   = 131
	optSSRR   = 137
	optRoute3 = 3 // where the addresses of a source route start in the option
)

func immutableIPv4(option uint8) bool {
	switch option {
	case 130, 133, 134, // security, extended security, commercial security
		148, // router alert
		149: // sender directed multi-destination delivery
		return true
	}
	return false
}

func coverOptionsIPv4(h []byte) error {
	routed := false
	for at := ipv4Len; at < len(h) && h[at] != optEnd; {
		kind := h[at]
		if kind == optNOP {
			at++
			continue
		}
		// RFC 791 3.1: the length counts type and length themselves.
		if at+2 > len(h) || h[at+1] < 2 || at+int(h[at+1]) > len(h) {
			return ErrMalformed
		}
		option := h[at : at+int(h[at+1])]
		if kind == optLSRR || kind == optSSRR {
			if routed || !sourceRoute(h, option) {
				return ErrMalformed // RFC 791 3.1: "Appears at most once in a datagram"
			}
			routed = true
		}
		at += len(option)
		if !immutableIPv4(kind) {
			clear(option)
		}
	}
	return nil
}

// sourceRoute gives the header the destination that it will have at the end
// of the route. RFC 4302 3.3.3.1.1.2: the destination address is "mutable
// but predictable" where there is a source route. While addresses are left,
// the last of them is the end; when none is, the packet has arrived, and what
// stands in the option is the route that it took.
func sourceRoute(h, option []byte) bool {
	if len(option) < optRoute3 || (len(option)-optRoute3)%4 != 0 {
		return false
	}
	pointer := int(option[2]) // RFC 791 3.1: counted from 1, the least is 4
	if pointer < optRoute3+1 || pointer%4 != 0 {
		return false
	}
	if pointer <= len(option) {
		copy(h[16:ipv4Len], option[len(option)-4:])
	}
	return true
}

// coverIPv6 zeroes traffic class, flow label and hop limit (RFC 4302
// 3.3.3.1.2.1), and does what the extension headers ask for.
func coverIPv6(h []byte) error {
	binary.BigEndian.PutUint32(h, 6<<28)
	h[7] = 0
	next, at := h[6], ipv6Len
	for at < len(h) {
		size := 8 + 8*int(h[at+1])
		ok := true
		switch next {
		case packet.ProtoHopByHop, packet.ProtoDestination:
			ok = coverOptionsIPv6(h[at+2 : at+size])
		case packet.ProtoRouting:
			ok = routingIPv6(h, h[at:at+size])
		case packet.ProtoFragment:
			size = 8
		}
		if !ok {
			return ErrMalformed
		}
		next = h[at]
		at += size
	}
	return nil
}

// optionMutable is the bit of an IPv6 option's type that says so. RFC 8200 4.2:
// "for any option whose data may change en route, its entire Option Data field
// must be treated as zero-valued octets".
const optionMutable = 0x20

func coverOptionsIPv6(options []byte) bool {
	for len(options) > 0 {
		if options[0] == 0 { // Pad1 has no length
			options = options[1:]
			continue
		}
		if len(options) < 2 || len(options) < 2+int(options[1]) {
			return false
		}
		end := 2 + int(options[1])
		if options[0]&optionMutable != 0 {
			clear(options[2:end])
		}
		options = options[end:]
	}
	return true
}

// routingIPv6 gives a routing header of type 0 and the destination the form
// that they have at the end of the route (RFC 4302 3.3.3.1.2.2): each hop
// swaps the destination with the next address (RFC 2460 4.4), so that those left
// move up by one, the present destination in front. Other types are not
// recognized: nobody says what is predictable in them.
func routingIPv6(h, routing []byte) bool {
	const start, size = 8, 16
	left := int(routing[3])
	addresses := routing[start:]
	if routing[2] != 0 || len(addresses)%size != 0 || left > len(addresses)/size {
		return false
	}
	if left == 0 {
		return true
	}
	rest := addresses[len(addresses)-left*size:]
	var end [size]byte
	copy(end[:], rest[len(rest)-size:])
	copy(rest[size:], rest)
	copy(rest, h[24:ipv6Len])
	copy(h[24:ipv6Len], end[:])
	routing[3] = 0
	return true
}

// withoutFragment takes away a fragment header that fragments nothing (RFC
// 6946) and returns the length that is left. RFC 4302 3.3.4: a packet is
// fragmented after AH, so its sender had no such header under the ICV; to
// reassemble it is to take the header away.
func withoutFragment(h []byte, atomic int) int {
	length := h[4:6]
	binary.BigEndian.PutUint16(length, binary.BigEndian.Uint16(length)-8)
	before := &h[6]
	for at := ipv6Len; at < atomic; at += 8 + 8*int(h[at+1]) {
		before = &h[at]
	}
	*before = h[atomic]
	return atomic + copy(h[atomic:], h[atomic+8:])
}
