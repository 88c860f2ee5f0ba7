package ike

import (
	"net/netip"
	"time"

	"github.com/adit-ipsec/adit/sad"
)

// Action is one thing that the driver is to do. It does the actions of a Step in
// their order. The types are Send, Install, Remove, Move, AskHeard, Refuse and Event.
type Action interface{ action() }

// Send is a message for the wire. NATT: it leaves the port of NAT traversal, with
// the non-ESP marker of RFC 3948 2.2 in front, which the driver adds. Data belongs
// to the driver, to read only: a retransmission is the same slice.
type Send struct {
	Local, Remote netip.AddrPort
	NATT          bool
	Data          []byte
}

// Install puts SAs into the SAD, all or none, in the place of Old, which stay for
// Grace: inbound ones to take what is on its way. The driver steps Installed with
// Token behind it, before any other input and before the actions that follow.
type Install struct {
	Token  uint64
	Params []sad.Params
	Old    []sad.ID
	Grace  time.Duration
}

// Remove takes SAs out of the SAD after Grace.
type Remove struct {
	IDs   []sad.ID
	Grace time.Duration
}

// Move sets the outer endpoints of a peer's SAs (RFC 4555).
type Move struct {
	Peer          string
	IDs           []sad.ID
	Local, Remote netip.AddrPort
}

// AskHeard asks how long ago a packet last came on one of these inbound SAs. The
// driver steps Heard with the same SPI behind it, before any other input. A driver
// that does not has peers asked more often than needed.
type AskHeard struct {
	SPI uint64 // this end's, of the IKE SA
	IDs []sad.ID
}

// Refuse says that there will be no SA for a policy now: packets that are held for
// it are to be dropped.
type Refuse struct{ Peer, Policy, Why string }

func (Send) action()     {}
func (Install) action()  {}
func (Remove) action()   {}
func (Move) action()     {}
func (AskHeard) action() {}
func (Refuse) action()   {}
func (Event) action()    {}
