package sad

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/adit-ipsec/adit/ah"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/replay"
	"github.com/adit-ipsec/adit/spd"
)

// Direction is packet.Direction: Outbound from the TUN towards the wire, Inbound
// from the wire towards the TUN.
type Direction = packet.Direction

// The two directions.
const (
	Outbound = packet.Outbound
	Inbound  = packet.Inbound
)

// MinSPI is the lowest SPI of an SA. RFC 4303 2.1: "The set of SPI values in the
// range 1 through 255 are reserved by the Internet Assigned Numbers Authority
// (IANA) for future use", and 0 "is reserved for local, implementation-specific
// use and MUST NOT be sent on the wire."
const MinSPI = 256

// SequenceStore keeps, durably, how far the sequence numbers of a key may have
// been used, so that a restart never uses one again. It is safe for concurrent
// use.
type SequenceStore interface {
	// Reserved returns the highest number that may have been used with the
	// key; 0 for a key never seen. A record that cannot be read is an error,
	// never 0.
	Reserved(id KeyID) (uint64, error)
	// Reserve records that numbers up to and with until may be used. It
	// returns nil only once that is durable. It refuses until <= what is
	// already reserved: of two that ask for the same block one gets it.
	Reserve(id KeyID, until uint64) error
}

// Params is all that makes an SA, from whichever source keys it: manual keys,
// IKE or the settings server.
type Params struct {
	Direction Direction
	Protocol  Protocol
	Mode      Mode
	SPI       uint32
	Peer      string // name of the peer, never empty
	Policy    string // name of the policy; "": every policy of the peer
	// Bundle: the SA is one of two, AH around ESP (RFC 4301 4.1 calls it
	// nesting); a packet that lacks one of the two is dropped. The ESP SA says
	// the mode of both.
	Bundle bool

	Suite         esp.Suite `json:",omitzero"` // with protocol ESP
	AHSuite       ah.Suite  `json:",omitzero"` // with protocol AH
	EncryptionKey Key       // with the salt or nonce at its end, if the suite has one
	IntegrityKey  Key
	ESN           bool // 64-bit sequence numbers

	// ReplayWindow is the size of an inbound SA's window in packets, 32 to
	// 2^20; 0: no window. Outbound it means nothing.
	ReplayWindow int

	Encap Encapsulation
	// Local and Remote are the outer endpoints; ports count with EncapUDP
	// only. Inbound, a zero Remote is any; outbound, a zero Local is the
	// kernel's choice, and Remote is never zero.
	Local, Remote netip.AddrPort
	// Static: the peer stays at Remote, whatever address its packets come from
	// (RFC 7296 2.23 would follow them).
	Static bool
	// BehindNAT: this end is behind a NAT. Then the peer is not: it is not
	// followed, and Keepalive counts.
	BehindNAT bool
	// OriginalLocal and OriginalRemote are the addresses that both ends had in
	// front of the NATs, in transport mode over UDP (RFC 3948 3.1.2); invalid:
	// there is no NAT.
	OriginalLocal, OriginalRemote netip.Addr

	Tunnel   Tunnel
	Fragment FragmentMode
	TFC      TFC
	// DSCPs are the inner code points, 0 to 63, that this outbound SA carries
	// where several have the same selectors (RFC 4301 4.1); empty: those that
	// none of the others names. A receiver does not look at them.
	DSCPs []uint8
	// Lifetime is when the SA is to be replaced and when it ends.
	Lifetime Lifetime

	// Keepalive is how long an outbound UDP SA may be idle before a NAT
	// keepalive is due (RFC 3948 4); 0: none.
	Keepalive time.Duration
	// Selectors are what this SA may carry beyond what the policy says;
	// empty: what the SPD says.
	Selectors []spd.Selector

	// Sequence makes an outbound SA's numbers survive a restart. nil: they
	// start at 1.
	Sequence SequenceStore
	// FreshKeys: the keys were made for this process's lifetime (IKE,
	// settings server), and no other SA ever had them. An outbound SA in a
	// counter mode needs this or Sequence.
	FreshKeys bool
}

// Format prints p with its field names and its keys redacted, for every verb. Key
// redacts itself, but fmt forgets that inside a pointer it finds in a struct and
// prints with a verb that is none for pointers, as %s: it must meet Params first.
func (p Params) Format(s fmt.State, _ rune) {
	type plain Params
	_, _ = fmt.Fprintf(s, "%+v", plain(p))
}

// ID names an SA: for one direction and protocol, the SPI with the peer that it
// belongs to.
type ID struct {
	Direction Direction
	SPI       uint32
	Peer      string
	Protocol  Protocol
}

// String is the ID in words, for errors and logs.
func (id ID) String() string {
	what := "SA"
	if id.Protocol == AH {
		what = "AH SA"
	}
	return fmt.Sprintf("%s %s 0x%x of peer %q", id.Direction, what, id.SPI, id.Peer)
}

// ID is the ID of the SA that p makes.
func (p *Params) ID() ID { return ID{p.Direction, p.SPI, p.Peer, p.Protocol} }

// KeyID names the key of p. GMAC's key in AH draws its nonces from the same space
// as in ESP.
func (p *Params) KeyID() KeyID {
	if p.Protocol == AH && p.AHSuite.CounterMode() {
		return keyID(p.IntegrityKey, nil)
	}
	return keyID(p.EncryptionKey, p.IntegrityKey)
}

// Validate tells whether New could make an SA of p, apart from what the
// SequenceStore says. The error names the SA and what to do, never a key.
func (p *Params) Validate() error {
	for _, check := range []func() error{
		p.checkName, p.checkKeys, p.checkNumbers, p.checkWhole, p.checkOuter, p.checkTFC, p.checkSelectors, p.checkLifetime, p.checkDSCPs,
	} {
		if err := check(); err != nil {
			return fmt.Errorf("sad: %s: %w", p.ID(), err)
		}
	}
	return nil
}

func (p *Params) checkName() error {
	switch {
	case p.Direction != Outbound && p.Direction != Inbound:
		return fmt.Errorf("direction %d is neither out nor in", p.Direction)
	case p.Peer == "":
		return errors.New("no peer: give the name of the peer it belongs to")
	case p.SPI < MinSPI:
		return fmt.Errorf("SPI 0x%x is reserved (RFC 4303 2.1): use 0x%x or above", p.SPI, MinSPI)
	}
	return nil
}

func (p *Params) checkKeys() error {
	if p.Protocol == AH {
		return p.checkKeysAH()
	}
	if !p.Suite.Valid() {
		return errors.New("no suite: give one, such as aes128gcm16")
	}
	if p.AHSuite.Valid() {
		return fmt.Errorf("a suite of AH, %s, on an SA of ESP: make it an SA of AH, or leave it out", p.AHSuite)
	}
	encryption, integrity := p.Suite.KeyLen()
	if len(p.EncryptionKey) != encryption {
		return fmt.Errorf("encryption key of %d bytes: %s takes %d, salt included", len(p.EncryptionKey), p.Suite, encryption)
	}
	if len(p.IntegrityKey) != integrity {
		return fmt.Errorf("integrity key of %d bytes: %s takes %d", len(p.IntegrityKey), p.Suite, integrity)
	}
	return nil
}

func (p *Params) checkNumbers() error {
	if p.Direction == Outbound {
		// RFC 4303 3.3.3: "If a user chooses to employ anti-replay in
		// conjunction with SAs that are manually keyed, the sequence number
		// counter at the sender MUST be correctly maintained across local
		// reboots, etc., until the key is replaced." In a counter mode a
		// number used twice gives the plaintexts away, so that an SA with
		// neither a store nor fresh keys is refused: it fails closed.
		// Deviation: the other suites may go without. They start at 1 again
		// and the peer's window refuses them; nothing is given away.
		if p.counterMode() && p.Sequence == nil && !p.FreshKeys {
			return fmt.Errorf("%w: %s must never use a number twice: give a writable state directory, or keys made for this run (IKE, settings server)", ErrNoStore, p.suiteName())
		}
		return nil
	}
	if p.ReplayWindow == 0 {
		// RFC 4303 3.3.3: "Use of ESN creates a need for the receiver to
		// manage the anti-replay window (in order to determine the correct
		// value for the high-order bits of the ESN, which are employed in
		// the ICV computation)".
		if p.ESN {
			return errors.New("ESN without a replay window: set a window, or turn ESN off at both ends")
		}
		return nil
	}
	if p.ReplayWindow < replay.MinSize || p.ReplayWindow > replay.MaxSize {
		return fmt.Errorf("replay window of %d packets: use %d to %d, or 0 for none", p.ReplayWindow, replay.MinSize, replay.MaxSize)
	}
	return nil
}

func (p *Params) checkOuter() error {
	switch {
	case p.Encap > EncapNone:
		return fmt.Errorf("encapsulation %d is not known", p.Encap)
	case p.Tunnel.DF > DFClear:
		return fmt.Errorf("DF mode %d is not known", p.Tunnel.DF)
	case p.Tunnel.ECN > ECNCompat:
		return fmt.Errorf("ECN mode %d is not known", p.Tunnel.ECN)
	case p.Tunnel.DSCP > DSCPOff && p.Tunnel.DSCP&^63 != dscpFixed:
		return fmt.Errorf("DSCP mode %d is not known", p.Tunnel.DSCP)
	case p.Keepalive < 0:
		return fmt.Errorf("keepalive of %s: use 0 for none", p.Keepalive)
	}
	local, remote := p.Local.Addr().Unmap(), p.Remote.Addr().Unmap()
	if local.IsValid() && remote.IsValid() && local.Is4() != remote.Is4() {
		return fmt.Errorf("outer addresses %s and %s are of two families", local, remote)
	}
	if p.Direction == Inbound {
		return nil
	}
	if !remote.IsValid() || remote.IsUnspecified() {
		return errors.New("no remote address: give the peer's")
	}
	if p.Encap == EncapUDP && p.Remote.Port() == 0 {
		return fmt.Errorf("no UDP port at %s: give the peer's, usually 4500", remote)
	}
	return nil
}

func (p *Params) checkSelectors() error {
	for i := range p.Selectors {
		if err := p.Selectors[i].Validate(); err != nil {
			return fmt.Errorf("selector %d: %w", i+1, err)
		}
	}
	return nil
}
