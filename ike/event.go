package ike

import (
	"net/netip"
	"time"
)

// Stage is where a negotiation stands, in the words of the log.
type Stage string

// The stages, one line of the log each.
const (
	StageInit         Stage = "IKE_SA_INIT"
	StageIntermediate Stage = "IKE_INTERMEDIATE"
	StageAuth         Stage = "IKE_AUTH"
	StageChild        Stage = "CHILD_SA"
	StageRekeyChild   Stage = "rekey CHILD_SA"
	StageRekeyIKE     Stage = "rekey IKE_SA"
	StageLiveness     Stage = "liveness"
	StageDelete       Stage = "delete"
	StageMobility     Stage = "MOBIKE"
	StageMessage      Stage = "message" // one that belongs to no exchange of ours
	StageConfigure    Stage = "configure"
)

// Outcome is how a stage went.
type Outcome uint8

// The outcomes.
const (
	Began Outcome = iota + 1
	Done
	Failed
	Detail // only with verbose logging
)

// Event is one line of the negotiation log. It never holds a key, a secret, or a
// byte of a message that was not authenticated beyond names of algorithms,
// identities as text and addresses.
type Event struct {
	Peer    string // configured name; "": not known (yet)
	Stage   Stage
	Outcome Outcome
	// Reason is a short word for counters and scripts, such as
	// "no_proposal_chosen"; Text is a sentence.
	Reason, Text string
	// On failure what the ends differ in, and what would most nearly fix it.
	Theirs, Ours, Fix string

	Initiator      bool // this end began the exchange
	Local, Remote  netip.AddrPort
	SPIi, SPIr     uint64 // of the IKE SA
	Policy         string // of a Child SA
	SPIIn, SPIOut  uint32 // of a Child SA
	Suite          string // what was agreed, as a proposal keyword
	LocalID        string
	RemoteID       string
	Authentication string // how the peer proved itself: "psk", "rsa", "ecdsa", ...
	Took           time.Duration
	Retransmits    int
	// Stack is where a fault of this program happened (panic_recovered): functions
	// with file and line, the innermost first, and not one value of theirs.
	Stack string
}
