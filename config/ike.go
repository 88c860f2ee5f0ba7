package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// What a key of the section `ike` means when the file does not name it.
const (
	DefaultIKERekey = 4 * time.Hour
	DefaultDPD      = 30 * time.Second
)

// IKE is how a peer with `keying: ike` is negotiated with: RFC 7296. It is a value
// to read; the ends' secrets in it print as what they are, not as their bytes.
type IKE struct {
	Local     auth.Local          // who this end is, and what it proves it by
	Remote    auth.Remote         // who the peer must be, and what it is believed by
	Proposals []proposal.Proposal // of the IKE SA, at least one
	PPK       auth.PPK            // no key: none (RFC 8784)

	Port, NATTPort uint16 // of the peer; 500 and 4500 unless the file says otherwise
	Start          Start
	StartNATT      bool          // start on NATTPort
	Rekey, Reauth  time.Duration // of the IKE SA; Reauth 0: never
	DPD            time.Duration // 0: off
	MOBIKE         bool          // RFC 4555
	Fragmentation  bool          // RFC 7383
	FragmentSize   int           // bytes of an IP packet with a fragment; 0: by address family
	Childless      bool          // RFC 6023
	// ForceUDP and NoUDP are the profile's encap where it is not auto; with
	// `listen.raw: off` auto is forced too, since nothing else is there.
	ForceUDP, NoUDP bool
	Responder       ResponderOnly // the profile's

	Children []Child // one for each policy that protects to the peer, in their order
}

// Child is a policy as one pair of Child SAs.
type Child struct {
	Policy    string
	Selectors []spd.Selector
	Mode      sad.Mode
	Proposals []proposal.Proposal // of ESP or of AH, with the key exchanges of profile.pfs
	// Template holds what the SAs have from the profile and the peer: Peer,
	// Policy, ReplayWindow, Tunnel, Fragment, TFC, Lifetime, Keepalive, Static.
	Template sad.Params
}

// Start is when this end begins to negotiate.
type Start uint8

// The values of ike.start.
const (
	StartTraffic Start = iota // when a packet wants protection
	StartNow                  // at once, and again whenever the peer is down
)

// String is the word of the file.
func (s Start) String() string {
	if s == StartNow {
		return "now"
	}
	return "traffic"
}

// ResponderOnly is what this end leaves to the peer.
type ResponderOnly uint8

// The values of profile.responder_only.
const (
	ResponderOff  ResponderOnly = iota // nothing
	NeverInitiate                      // starting IKE SAs and Child SAs
	NeverRekey                         // renewing them
	ResponderFull                      // both
	Passive                            // every request: this end answers, and says nothing of its own
)

var responderWords = []string{"off", "never-initiate", "never-rekey", "full", "passive"}

// String is the word of the file.
func (r ResponderOnly) String() string {
	if int(r) < len(responderWords) {
		return responderWords[r]
	}
	return "unknown"
}

// initiates tells whether this end starts negotiations.
func (r ResponderOnly) initiates() bool { return r == ResponderOff || r == NeverRekey }

// UsesIKE tells whether a peer has `keying: ike`.
func (c *Config) UsesIKE() bool {
	return slices.ContainsFunc(c.Peers, func(p Peer) bool { return p.IKE != nil })
}

// PFS is the key exchange that a Child SA has of its own when it is made or renewed
// in CREATE_CHILD_SA: perfect forward secrecy. The one that comes with IKE_AUTH has
// none (RFC 7296 1.2).
type PFS struct {
	// Auto: the methods of the IKE proposals, and none with a peer that has none.
	Auto      bool
	Exchanges []wire.Transform // without Auto: these; empty: none
}

// String is the value in the file.
func (p PFS) String() string {
	switch {
	case p.Auto:
		return "auto"
	case len(p.Exchanges) == 0:
		return "off"
	}
	return "[" + strings.ReplaceAll(proposal.Proposal{Protocol: wire.ProtocolESP, Transforms: p.Exchanges}.String(), "-", ", ") + "]"
}

// Format prints k with its field names, for every verb: what is secret in it
// redacts itself, but not behind a pointer that fmt meets in a struct.
func (k IKE) Format(s fmt.State, _ rune) {
	type plain IKE
	_, _ = fmt.Fprintf(s, "%+v", plain(k))
}
