package config

import "github.com/adit-ipsec/adit/sad"

// Protocols are the IPsec protocols that protect a packet of a profile.
type Protocols uint8

// What a profile may have.
const (
	ProtocolESP   Protocols = iota // ESP alone, RFC 4303
	ProtocolAH                     // AH alone, RFC 4302
	ProtocolAHESP                  // AH around ESP: two SAs, applied in order (RFC 4301 section 4.1)
)

// String returns the word of the configuration file.
func (p Protocols) String() string {
	switch p {
	case ProtocolESP:
		return "esp"
	case ProtocolAH:
		return "ah"
	case ProtocolAHESP:
		return "ah+esp"
	}
	return "unknown"
}

// Uses tells whether one of the SAs has this protocol.
func (p Protocols) Uses(one sad.Protocol) bool {
	return p == ProtocolAHESP || (p == ProtocolAH) == (one == sad.AH)
}

// all is the protocols of the SAs that a packet needs.
func (p Protocols) all() []sad.Protocol {
	switch p {
	case ProtocolAH:
		return []sad.Protocol{sad.AH}
	case ProtocolAHESP:
		return []sad.Protocol{sad.ESP, sad.AH}
	}
	return []sad.Protocol{sad.ESP}
}

// onRaw says in an error why a profile has neither ports nor a NAT to pass.
func (p Profile) onRaw() string {
	if p.Protocol.Uses(sad.AH) {
		return "has `protocol: " + p.Protocol.String() + "`: AH"
	}
	return "has `encap: none`: raw protocol 50"
}

// rawText names what a peer without UDP is reached by, and what else would do.
func (p Profile) rawText() (by, instead string) {
	if p.Protocol.Uses(sad.AH) {
		return "raw protocol 51 (protocol: " + p.Protocol.String() + ")", "`protocol: esp`"
	}
	return "raw protocol 50 (encap: none)", "`encap: udp`"
}

// udpInstead is what a profile needs for ports and NATs.
func (p Profile) udpInstead() string {
	if p.Protocol.Uses(sad.AH) {
		return "a profile with `protocol: esp`"
	}
	return "a profile with `encap: udp`"
}
