package sad

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/adit-ipsec/adit/ah"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/replay"
	"github.com/adit-ipsec/adit/spd"
)

// linePad keeps what one core writes off the cache line that another reads.
type linePad [64]byte

// SA is one live security association. All methods are safe for concurrent use.
// Fields may be read by anyone and written by nobody.
type SA struct {
	// ---- immutable after New ----

	Direction     Direction
	Protocol      Protocol
	Mode          Mode
	SPI           uint32
	Peer          string
	Policy        string // "": every policy of the peer
	Bundle        bool
	Suite         esp.Suite `json:",omitzero"` // of ESP
	ESN           bool
	ReplayWindow  int // packets; 0: none
	Encap         Encapsulation
	Local, Remote netip.AddrPort
	Tunnel        Tunnel
	Keepalive     time.Duration
	Selectors     []spd.Selector // nil: what the SPD says
	Transform     *esp.Transform // of ESP
	AHSuite       ah.Suite       `json:",omitzero"`
	AHTransform   *ah.Transform
	whole         bool

	// See Params.
	Static, BehindNAT             bool
	OriginalLocal, OriginalRemote netip.Addr
	Fragment                      FragmentMode
	TFC                           TFC
	DSCPs                         []uint8
	Lifetime                      Lifetime

	keyID    KeyID
	space    uint64        // the last number of the space: 2^32-1, or 2^64-1 with ESN
	sequence SequenceStore // nil: numbers need not survive a restart
	first    uint64        // the number in front of the SA's first
	end      uint64        // the last number that may be granted: space, or what HardPackets leaves of it
	limits   limits
	born     int64 // nanoseconds on the gateway's clock

	// ---- atomic: written when the peer or this end moves ----

	ends atomic.Pointer[Ends] // Local and Remote, at first; see Endpoint

	// ---- read on every packet, written when the path changes ----

	_    linePad
	path pathMTU
	long int // bytes of an inner packet: see SentLong

	// ---- atomics: numbers (outbound, every worker that seals) ----

	_        linePad
	last     atomic.Uint64             // highest number granted
	bound    atomic.Uint64             // highest number that may be granted: end, or what is durable
	expired  atomic.Uint32             // the hard Limit that was reached; both directions
	replaced atomic.Bool               // by another SA
	hands    [MaxWorkers]atomic.Uint64 // lowest number that each worker may have in hand; 0: none

	// ---- atomics: counters (once per run or batch) ----

	_           linePad
	packets     atomic.Uint64
	bytes       atomic.Uint64
	lastUsed    atomic.Int64
	lastLong    atomic.Int64
	replayDrops atomic.Uint64
	authDrops   atomic.Uint64
	otherDrops  atomic.Uint64

	// ---- guarded ----

	_        linePad
	windowMu sync.Mutex
	window   *replay.Window // nil: none; the pointer itself never changes

	extendMu sync.Mutex // held while a block is being reserved, never on the packet path
}

// New makes an SA of p, or says why not; the error names the SA and what to do.
// With a SequenceStore an outbound SA's first block of numbers is durable when
// New returns, so New is not for the packet path. New keeps no reference to the
// slices of p: the caller may wipe the keys.
func New(p Params) (*SA, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	sa := &SA{
		Direction: p.Direction, Protocol: p.Protocol, Mode: p.Mode, SPI: p.SPI, Peer: p.Peer, Policy: p.Policy,
		Bundle: p.Bundle, Suite: p.Suite, ESN: p.ESN, Encap: p.Encap,
		Local: unmap(p.Local), Remote: unmap(p.Remote),
		Tunnel: p.Tunnel, Keepalive: p.Keepalive,
		Static: p.Static, BehindNAT: p.BehindNAT,
		OriginalLocal: p.OriginalLocal.Unmap(), OriginalRemote: p.OriginalRemote.Unmap(),
		Fragment: p.Fragment, TFC: p.TFC, DSCPs: slices.Clone(p.DSCPs), Lifetime: p.Lifetime,
		keyID: p.KeyID(),
		space: 1<<32 - 1,
		long:  packet.MaxLen,
	}
	sa.ends.Store(&Ends{Local: sa.Local, Remote: sa.Remote})
	for i := range p.Selectors {
		sa.Selectors = append(sa.Selectors, p.Selectors[i].Clone())
	}
	if p.ESN {
		sa.space = 1<<64 - 1
	}
	sa.whole = p.Protocol == AH || p.Bundle || p.Mode == TransportMode
	sa.initLifetime()
	var err error
	if p.Protocol == AH {
		sa.AHSuite = p.AHSuite
		sa.AHTransform, err = ah.New(p.AHSuite, p.IntegrityKey, p.ESN)
	} else {
		sa.Transform, err = esp.New(p.Suite, p.EncryptionKey, p.IntegrityKey, p.ESN)
	}
	if err != nil {
		return nil, fmt.Errorf("sad: %s: %w", sa.ID(), err)
	}
	if p.Direction == Inbound {
		err = sa.initWindow(p.ReplayWindow)
	} else {
		sa.initPath()
		err = sa.initSequence(p.Sequence)
	}
	if err != nil {
		return nil, fmt.Errorf("sad: %s: %w", sa.ID(), err)
	}
	return sa, nil
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// ID names the SA.
func (sa *SA) ID() ID { return ID{sa.Direction, sa.SPI, sa.Peer, sa.Protocol} }

// KeyID names the SA's key.
func (sa *SA) KeyID() KeyID { return sa.keyID }

// Matches tells whether the SA's own selectors allow the flow; true when it has
// none of its own.
func (sa *SA) Matches(dir Direction, f *packet.Flow) bool {
	if sa.Selectors == nil {
		return true
	}
	for i := range sa.Selectors {
		if sa.Selectors[i].Match(dir, f) {
			return true
		}
	}
	return false
}

// Touch counts a run of packets that the SA has carried, with their length in
// bytes before encryption or after decryption. now is nanoseconds on the
// gateway's monotonic clock.
func (sa *SA) Touch(now int64, packets, bytes int) {
	sa.lastUsed.Store(now)
	sa.spent(sa.packets.Add(uint64(packets)), sa.bytes.Add(uint64(bytes)))
	if bytes > packets*sa.long {
		sa.lastLong.Store(now)
	}
}

// CountDrop counts packets of this SA that were dropped for a reason that Check
// and Mark do not see, such as the selectors.
func (sa *SA) CountDrop(packets int) { sa.otherDrops.Add(uint64(packets)) }

// Stats is an SA's state at one moment. Counters only grow.
type Stats struct {
	ID
	Policy        string
	Mode          Mode
	Bundle        bool
	Suite         esp.Suite `json:",omitzero"` // of ESP
	AHSuite       ah.Suite  `json:",omitzero"` // of AH
	Fragment      FragmentMode
	TFC           TFC
	ESN           bool
	Encap         Encapsulation
	Local, Remote netip.AddrPort // Remote is Endpoint: where the peer is now
	ReplayWindow  int            // packets; 0: none, or outbound

	Packets, Bytes uint64 // carried, as Touch counts them
	LastUsed       int64  // the last Touch's now; 0: never
	ReplayDrops    uint64 // refused by Check or Mark
	AuthDrops      uint64 // failed the ICV, as Mark saw them
	OtherDrops     uint64 // CountDrop

	// Seq is the last number sent (outbound), or the highest number
	// authenticated (inbound: the window's edge, 0 without one).
	Seq uint64
	// Exhausted: outbound, and no number is left.
	Exhausted bool

	Life      Life
	DSCPs     []uint8        // see Params; not to be changed
	Selectors []spd.Selector `json:",omitempty"` // see Params; not to be changed
	PathMTU   PathMTU        // outbound
}

// Stats reads the counters one by one: they may differ by a batch.
func (sa *SA) Stats() Stats {
	s := Stats{
		ID: sa.ID(), Policy: sa.Policy, Mode: sa.Mode, Bundle: sa.Bundle, Suite: sa.Suite, AHSuite: sa.AHSuite, ESN: sa.ESN, Encap: sa.Encap,
		Fragment: sa.Fragment, TFC: sa.TFC,
		Local: sa.Ends().Local, Remote: sa.Endpoint(), ReplayWindow: sa.ReplayWindow,
		Packets: sa.packets.Load(), Bytes: sa.bytes.Load(), LastUsed: sa.lastUsed.Load(),
		ReplayDrops: sa.replayDrops.Load(), AuthDrops: sa.authDrops.Load(), OtherDrops: sa.otherDrops.Load(),
		Seq: sa.last.Load(), Exhausted: sa.Exhausted(),
		Life: sa.life(), DSCPs: sa.DSCPs, Selectors: sa.Selectors,
	}
	if sa.Direction == Inbound {
		s.Seq = sa.edge()
		return s
	}
	s.PathMTU = sa.PathMTU()
	return s
}
