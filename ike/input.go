package ike

import (
	"net/netip"
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// Input is one thing that happened: the driver hands it to Machine.Step. The types
// are Packet, Tick, Acquire, Expired, Installed, Heard, Moved, Initiate, Rekey,
// Terminate, Configure, PathChanged and Verbose.
type Input interface{ input() }

// Packet is an IKE message from the wire. Data is borrowed until Step returns and
// has no non-ESP marker. Local is where it was sent to: what answers it leaves from
// there. NATT: it came on the port of NAT traversal (4500).
type Packet struct {
	Local, Remote netip.AddrPort
	NATT          bool
	Data          []byte
}

// Tick says only that time has passed: the one that Machine.Deadline asked for.
type Tick struct{}

// Acquire says that a packet wants protection and there is no SA for it.
type Acquire struct {
	Peer, Policy string
	Flow         packet.Flow // of the packet; the zero value: not known
}

// Expired says that an SA has reached a limit: Soft wants a replacement; without
// Soft the SA is gone already.
type Expired struct {
	ID   sad.ID
	Soft bool
}

// Installed answers an Install action, before any other input: Err nil, its SAs
// are in the SAD, all of them; else none is.
type Installed struct {
	Token uint64
	Err   error
}

// Heard answers an AskHeard: Ago is how long ago the newest packet came that was
// authentic and no replay. Never: none has.
type Heard struct {
	SPI   uint64 // of the AskHeard
	Ago   time.Duration
	Never bool
}

// Moved says that the dataplane follows a peer, whose authenticated ESP came from
// another address or port (RFC 7296 2.23).
type Moved struct {
	Peer     string
	Old, New netip.AddrPort
}

// Initiate asks for an IKE SA with a peer and for all its Child SAs, or for the
// one of Policy. It does nothing where they are there.
type Initiate struct{ Peer, Policy string }

// Rekey asks for new keys now: of the IKE SA, or of the Child SAs of Policy
// ("*": all).
type Rekey struct{ Peer, Policy string }

// Terminate asks for the end of everything with a peer (Peer "": with all), or of
// the Child SAs of Policy. Deletes are sent. Last: this end is going away, all that
// there is ends, and nothing is begun any more by either end.
type Terminate struct {
	Peer, Policy string
	Last         bool
}

// Configure sets the peers anew. A peer whose settings are the same keeps its SAs;
// one that is gone or has changed is terminated.
type Configure struct{ Peers []Peer }

// PathChanged says that addresses of this host have come or gone: with MOBIKE an
// IKE SA of ours moves (RFC 4555 3.5). Addrs are those that are there. Source is
// asked for the one of them that this host would speak to an address from; invalid:
// there is no way to it now. nil: any of its family.
type PathChanged struct {
	Addrs  []netip.Addr
	Source func(remote netip.Addr) netip.Addr
}

// Verbose switches the verbose negotiation log of a peer (Peer "": of all). It
// touches no SA.
type Verbose struct {
	Peer string
	On   bool
}

func (Packet) input()      {}
func (Tick) input()        {}
func (Acquire) input()     {}
func (Expired) input()     {}
func (Installed) input()   {}
func (Heard) input()       {}
func (Moved) input()       {}
func (Initiate) input()    {}
func (Rekey) input()       {}
func (Terminate) input()   {}
func (Configure) input()   {}
func (PathChanged) input() {}
func (Verbose) input()     {}
