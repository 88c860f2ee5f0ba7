package ike

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/keys"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// state is where an IKE SA stands in its life. What it may receive in each is in
// table.go.
type state uint8

const (
	starting    state = iota // initiator: IKE_SA_INIT is out
	halfOpen                 // responder: IKE_SA_INIT is answered, nobody is authenticated
	proving                  // initiator: IKE_INTERMEDIATE or IKE_AUTH is out
	established              // both ends are authenticated
	replaced                 // rekeyed: another IKE SA has its Child SAs, a delete is on its way
	deleting                 // our delete is out
	closed                   // refused, or deleted by the peer: only says its last answer again
	dead                     // in no map any more
	states                   // how many there are
)

func (s state) String() string {
	return [...]string{"starting", "half-open", "proving", "established", "replaced", "deleting", "closed", "dead"}[s]
}

// path is where the messages of an IKE SA go.
type path struct {
	local, remote netip.AddrPort
	natt          bool // on the ports of NAT traversal
}

// ikeSA is one IKE SA, from its first message to its last.
type ikeSA struct {
	// ---- Immutable, once it is in Machine.sas.

	initiator bool     // this end is the original initiator: bit I of its messages, and SPIi is its own
	spi       wire.SPI // ours
	born      time.Duration
	rekeyOf   *ikeSA // the one that this one was made to replace; nil: it began with IKE_SA_INIT, or that one is gone
	opener    bool   // this end was the initiator of IKE_AUTH, which rekeys do not change

	// ---- Who: known step by step.

	state state
	// peer is the configured peer. The initiator knows it from the start, the
	// responder from IKE_AUTH on: nil before.
	peer   *peer
	proved auth.Peer // what IKE_AUTH has proved; the zero value until established
	spiR   wire.SPI  // theirs; 0 until the initiator has its first answer
	path   path
	// carried is where its Child SAs go: path, but for a new address of a peer
	// that has yet to answer there (RFC 4555 3.7).
	carried path

	behindNAT     bool // this end is
	peerBehindNAT bool // the peer is
	forcedUDP     bool // this end pretended a NAT to the peer, to have UDP
	fragmentation bool // both ends can (RFC 7383)
	mobike        bool // both ends can (RFC 4555)
	childless     bool // the peer can (RFC 6023)

	// ---- Keys.

	keys   *keys.SK // nil until IKE_SA_INIT is through
	choice proposal.Choice
	ni, nr []byte // the nonces of the exchange that made keys

	// ---- Windows.

	ours   ourWindow
	theirs theirWindow
	heard  time.Duration // when the last authenticated message came
	// first0 is the responder's answer to IKE_SA_INIT, as long as that is
	// remembered, by firstKey.
	first0   [][]byte
	firstKey [32]byte

	// ---- Children and timers.

	up     time.Duration // when it was established
	authAt time.Duration // when IKE_AUTH was: a rekeyed SA has its predecessor's
	authID uint32        // of the peer's last IKE_AUTH; 0: this end began, or it is a rekeyed SA
	origin []byte        // the lower nonce of IKE_SA_INIT, which rekeys do not change

	// heir is the IKE SA that the peer has made in the place of this one, or
	// that has its Child SAs now; see rekeyike.go.
	heir *ikeSA
	// untried: the peer has made it while our own rekey was on its way. Nothing is
	// asked on it before one of the two is known to stay.
	untried bool
	// retiring: another IKE SA that authenticated anew takes its place.
	retiring bool

	expected []*expected // follow-ups of the peer's exchanges
	// linksLost counts our follow-ups in a row that the peer knew nothing of.
	linksLost int
	work      *allowance // the peer's; nil: nobody is authenticated yet
	askedBy   path       // where the peer's last request came from, and to
	seenAs    string     // this end's address as the peer has seen it, hashed; "": not known

	children []*childSA // oldest first
	timers   saTimers
	// first is what IKE_SA_INIT and IKE_AUTH need of each other; nil once
	// the SA is established.
	first *handshake
}

// saTimers are those of one IKE SA; nil where none is set. stopTimers stops all.
type saTimers struct {
	halfOpen, rekey, reauth, hard, liveness, closed, move *timer
}

// handshake is the state of the first exchanges, on both ends.
type handshake struct {
	began    time.Duration
	sent     []byte // our first message, whole, for AUTH
	received []byte // the peer's first message, whole, for AUTH
	hashes   []auth.HashAlgorithm
	usePPK   bool // both ends said USE_PPK
	exchange keys.Exchange
	method   proposal.KE // of exchange

	// additional key exchanges of RFC 9370 that are still to be done, and what
	// IKE_INTERMEDIATE has authenticated so far (RFC 9242 3.3.2).
	pending   []proposal.KE
	intAuth   intAuth
	intOctets []byte

	// The initiator's.
	instead *ikeSA // to be deleted once this one is up: reauthentication
	offered []wire.Proposal
	cookie  []byte
	natSent []wire.Payload
	refused bool   // an answer has refused; another may still come
	again   int    // how often IKE_SA_INIT has started over
	rubbish string // what the last answer was that made no sense

	// The responder's.
	candidates []*kind    // who it may be by address and proposal
	suspect    *peer      // who it most likely is, for the event of its failure
	natFound   bool       // the peer can traverse NATs
	counted    netip.Addr // in the half-open SAs of this address; invalid: not any more
}

// peer is a configured peer and what goes on with it.
type peer struct {
	*Peer
	sas      []*ikeSA               // all that are not dead, oldest first
	over     []*ikeSA               // those that are closed, oldest first; not more than maxSAsOfOne
	flows    map[string]packet.Flow // the packets that policies were wanted for, while they are
	wanted   map[string]bool        // policies that wait for a Child SA: they get it, or a Refuse
	retry    *timer                 // the next attempt, after a failed one
	failures int                    // attempts in a row that have failed
	notAgain time.Duration          // before that nothing is initiated
	again    map[string]*timer      // policies that are asked for again in a while
	halted   bool                   // terminated by the operator: not up again by itself
	verbose  bool
	rank     int       // among those that are tried, the first first
	work     allowance // of its identity, if it is to have one
	trouble  trouble
	surplus  *timer // looks whether there are too many IKE SAs; nil: one is enough
	// surplusPairs looks whether there are too many pairs; nil: there are not.
	surplusPairs *timer
}

// Format prints the name, for every verb: the peer's secrets lie where package fmt
// asks nobody how to print them.
func (p *peer) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, p.Name) }

// current is the peer's established IKE SA, the newest; nil: none is.
func (p *peer) current() *ikeSA {
	for _, sa := range slices.Backward(p.sas) {
		if sa.state == established && !sa.untried {
			return sa
		}
	}
	return nil
}

// child is the settings of one policy.
func (p *peer) child(policy string) *Child {
	for i := range p.Children {
		if p.Children[i].Policy == policy {
			return &p.Children[i]
		}
	}
	return nil
}

// spis are the SPIs as the header has them.
func (sa *ikeSA) spis() (initiator, responder wire.SPI) {
	if sa.initiator {
		return sa.spi, sa.spiR
	}
	return sa.spiR, sa.spi
}

// alive tells whether exchanges may still be started on the SA.
func (sa *ikeSA) alive() bool { return sa.state == established }

// encapsulation is what the SA's Child SAs are carried in.
func (sa *ikeSA) encapsulation() sad.Encapsulation {
	if sa.peer != nil && sa.peer.NoUDP {
		return sad.EncapNone
	}
	if sa.behindNAT || sa.peerBehindNAT || sa.forcedUDP || (sa.peer != nil && sa.peer.ForceUDP) {
		return sad.EncapUDP
	}
	return sad.EncapNone
}
