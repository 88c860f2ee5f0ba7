package ike

import (
	"io"
	"net/netip"
	"time"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// Config is what a Machine is made of.
type Config struct {
	Peers []Peer
	// Rand gives nonces, SPIs, key exchange secrets and cookies secrets; nil:
	// crypto/rand. Simulations give a seeded one.
	Rand io.Reader
	// Wall turns the machine's time into a date, for certificates; nil: now.
	Wall func(now time.Duration) time.Time
	// Source is the address that a message to remote would leave from, for peers
	// without Local: a NAT can only be told by it (RFC 7296 2.23). nil: not known;
	// such peers are spoken with as if this end were behind a NAT.
	Source func(remote netip.Addr) netip.Addr
	// Ports are those of this end: 500 and 4500 unless set.
	Port, NATTPort uint16
	Limits         Limits
	Timing         Timing
}

// Limits bound what strangers can make a machine keep or do. Zero values mean the
// defaults.
type Limits struct {
	CookieHalfOpen  int // half-open IKE SAs beyond which cookies are asked for: 30
	CookieAddress   int // the same per source address (IPv6: per /64): 3
	MaxHalfOpen     int // beyond which IKE_SA_INIT is dropped: 4096
	MaxSAs          int // IKE SAs in all: 20000
	MaxChildren     int // Child SAs per IKE SA: 256
	FragmentMessage int // bytes of one message put together from fragments: 64 KiB
}

// Timing is when things are said again. Zero values mean the defaults.
type Timing struct {
	Retransmit    time.Duration // first retransmission: 500ms, doubled each time up to MaxRetransmit
	MaxRetransmit time.Duration // 8s
	Tries         int           // transmissions in all: 8
	HalfOpen      time.Duration // how long a half-open IKE SA lives: 30s
	Grace         time.Duration // how long an old inbound Child SA takes what is on its way: 5s
	Retry         time.Duration // before a failed negotiation is tried again: 1s, doubled up to 1m
	CookieSecret  time.Duration // how long a cookie secret is the current one: 60s
}

// Role is a grade of responder-only.
type Role uint8

// The grades (mission: "never-initiate, never-rekey, passive").
const (
	Both          Role = iota
	NeverInitiate      // starts no IKE SA and no Child SA; rekeys what is there
	NeverRekey         // rekeys nothing: what reaches its hard lifetime is deleted
	ResponderOnly      // "full": both, the router's behaviour
	Passive            // sends no request of its own at all: no DPD, no delete
)

// Peer is one configured peer. Peers are compared by value where Configure asks
// what has changed; see Equal.
type Peer struct {
	Name string
	// Local is this end's address; invalid: the one that the kernel chooses, or
	// that the peer's message was sent to.
	Local netip.Addr
	// Remote is the peer's address; invalid: any, then it cannot be initiated to.
	Remote netip.Addr
	// Port is the peer's IKE port, 500 unless set. StartNATT starts on NATTPort
	// (RFC 7296 2.23: "An initiator can use port 4500 for both IKE and ESP, regardless
	// of whether or not there is a NAT, even at the beginning of IKE").
	Port, NATTPort uint16
	StartNATT      bool

	Auth      auth.Local  // who this end is, and how it proves it
	Remotely  auth.Remote // who the peer must be, and what it is believed by
	Proposals []proposal.Proposal
	Children  []Child

	Role  Role
	Start Start
	// Lifetimes of the IKE SA: Rekey soft, Reauth (0: off), and Hard, at which
	// it is deleted (0: Rekey and a tenth more). At most a tenth of
	// Rekey is taken off at random.
	Rekey, Reauth, Hard time.Duration
	DPD                 time.Duration // silence of the peer, its packets included, before it is asked; 0: off
	Mobike              bool
	Fragmentation       bool
	FragmentSize        int  // bytes of an IP packet of a fragment; 0: 1280 (IPv6), 576..1280 (IPv4: 1280)
	Childless           bool // RFC 6023: the IKE SA may come up without a Child SA
	ForceUDP            bool // encapsulate as if there were a NAT
	NoUDP               bool // profile encap: none
	PPK                 auth.PPK
}

// Start is when a peer is initiated to.
type Start uint8

// When.
const (
	OnTraffic Start = iota
	AtOnce          // and again whenever it is down
)

// Child is one policy: one pair of Child SAs with all its selectors.
type Child struct {
	Policy    string
	Selectors []spd.Selector // of the policy
	Mode      sad.Mode
	Proposals []proposal.Proposal // of ESP or of AH, not of both
	// Template is what the SAs have from the profile: ReplayWindow, Tunnel,
	// Fragment, TFC, DSCPs, Lifetime, Keepalive, Static. The machine fills the rest.
	Template sad.Params
}
