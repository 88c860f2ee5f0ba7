package config

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/adit-ipsec/adit/ah"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// What a key means when the file does not name it.
const (
	DefaultStateDir     = "/var/lib/adit"
	DefaultControl      = "/run/adit/adit.sock"
	DefaultTUN          = "adit0"
	DefaultIKEPort      = 500
	DefaultNATTPort     = 4500
	DefaultReplayWindow = 4096
	DefaultSoftLifetime = 50 * time.Minute
	DefaultHardLifetime = 60 * time.Minute
	// DefaultNATKeepalive is for a peer with behind_nat: the default of RFC
	// 3948 section 4.
	DefaultNATKeepalive = 20 * time.Second
	// DefaultPathMTUAge is twice the least that RFC 8201 section 4 allows, as
	// it recommends.
	DefaultPathMTUAge = 10 * time.Minute
)

// MaxQueues is the most queues that a file may give the TUN.
const MaxQueues = 16

// Config is a configuration file that passed every check. It is a value to
// read; two goroutines may read it at once.
type Config struct {
	Path            string // the file's name, as it was given
	Name            string // this gateway's name
	StateDir        string // absolute
	Control         string // absolute path of the control socket
	AllowLegacy     bool
	AllowManualAEAD bool
	TUN             TUN
	Listen          Listen
	RawAllowed      bool // listen.raw is not off: raw sockets may be opened, needed or not
	ICMP            ICMP
	Profiles        map[string]Profile // always holds "default"
	Peers           []Peer
	Policies        []spd.Policy
	Warnings        []Warning

	positions map[string]Position // by key path
}

// TUN is the device towards the protected network.
type TUN struct {
	Name      string
	MTU       int            // bytes; 0: auto
	Addresses []netip.Prefix // addresses with their prefix length, host bits kept
	Routes    bool           // a route per protect policy towards the device
	Queues    int            // 1 to MaxQueues; 0: auto
	Offload   bool           // superpackets at the device and at the UDP socket, where the kernel has them
}

// Listen is the side towards the peers.
type Listen struct {
	Address  netip.Addr // zero: any
	Outside  []string   // interfaces towards the peers
	IKEPort  uint16
	NATTPort uint16
	// Raw: raw sockets are needed: the file allows them and a peer uses one.
	// UsesRawESP and UsesAH tell which.
	Raw bool
	// ProbeMTU: the path MTU is also found by probes inside the SAs.
	ProbeMTU bool
}

// ICMP is what the gateway does with ICMP that nobody has authenticated, and
// whether it makes some of its own (RFC 4301 sections 6 and 8.2.1).
type ICMP struct {
	// IgnorePathMTU: "fragmentation needed" and "packet too big" from the
	// outside do not lower an SA's path MTU.
	IgnorePathMTU bool
	// PathMTUAge is how long what was learned of a path holds.
	PathMTUAge time.Duration
	// CheckQuoted: an ICMP error out of an SA must quote a packet that the
	// SA could have carried.
	CheckQuoted bool
	// Unreachable: packets that the policies discard are answered.
	Unreachable bool
}

// Profile is a named set of SA parameters.
type Profile struct {
	Name          string
	Protocol      Protocols
	Mode          sad.Mode
	Suites        []esp.Suite // with ESP; bind automatic keying only
	AHSuites      []ah.Suite  // with AH; bind automatic keying only
	Lifetime      Lifetime    // binds automatic keying only
	ESN           bool
	ReplayWindow  int // packets; 0: off
	AllowNoReplay bool
	Encap         sad.Encapsulation // auto is UDP with manual keys, and none with AH
	Tunnel        sad.Tunnel        // without effect in transport mode
	Fragment      sad.FragmentMode
	TFC           sad.TFC
	EncapAuto     bool          // encap is auto: with IKE, by NAT detection
	PFS           PFS           // binds IKE only
	Responder     ResponderOnly // binds IKE only
}

// Lifetime is when an SA is renewed (soft) and when it ends (hard); 0: never.
type Lifetime = sad.Lifetime

// Peer is the gateway at the other end.
type Peer struct {
	Name         string
	Address      netip.Addr // zero: any, with `keying: ike`
	Port         uint16     // UDP, manual keys; 0: listen.natt_port
	Profile      string
	IKE          *IKE          `json:",omitempty"` // with `keying: ike`; then there are no SAs here
	SAs          []SA          // with manual keys at least one outbound and one inbound, of each protocol of the profile
	NATKeepalive time.Duration // 0: off
	Static       bool          // not followed to another address
	BehindNAT    bool          // this end is behind a NAT; true where there are keepalives
	// OriginalLocal and OriginalRemote are the addresses that the two ends had
	// in front of the NATs, in transport mode; zero: there is no NAT.
	OriginalLocal, OriginalRemote netip.Addr
}

// SA is one manually keyed security association.
type SA struct {
	Direction     packet.Direction
	Protocol      sad.Protocol
	SPI           uint32
	Suite         esp.Suite `json:",omitzero"` // of ESP
	AHSuite       ah.Suite  `json:",omitzero"` // of AH
	EncryptionKey sad.Key   // key, then salt; nil with AH
	IntegrityKey  sad.Key   // nil with an AEAD suite; GMAC's in AH ends with its salt
	DSCPs         []uint8   // the code points of this outbound SA; nil: those that no other names
}

// counterMode tells whether a nonce used twice breaks the SA's suite.
func (sa *SA) counterMode() bool { return sa.Suite.CounterMode() || sa.AHSuite.CounterMode() }

// SAParams is every manual SA, ready for Install; the caller sets Sequence, at
// least on outbound ones in a counter mode (NeedsSequenceStore). Each call returns
// new parameters that share the key bytes with c.
func (c *Config) SAParams() []sad.Params {
	var list []sad.Params
	for i := range c.Peers {
		for j := range c.Peers[i].SAs {
			list = append(list, c.saParams(&c.Peers[i], &c.Peers[i].SAs[j]))
		}
	}
	return list
}

func (c *Config) saParams(peer *Peer, sa *SA) sad.Params {
	profile := c.Profiles[peer.Profile]
	p := sad.Params{
		Direction: sa.Direction, Protocol: sa.Protocol, Mode: profile.Mode, SPI: sa.SPI, Peer: peer.Name,
		Bundle: profile.Protocol == ProtocolAHESP,
		Suite:  sa.Suite, AHSuite: sa.AHSuite, EncryptionKey: sa.EncryptionKey, IntegrityKey: sa.IntegrityKey,
		ESN: profile.ESN, Encap: profile.Encap, Tunnel: profile.Tunnel,
		Static: peer.Static, BehindNAT: peer.BehindNAT,
		OriginalLocal: peer.OriginalLocal, OriginalRemote: peer.OriginalRemote,
	}
	if c.Listen.Address.IsValid() {
		p.Local = netip.AddrPortFrom(c.Listen.Address, c.localPort(profile))
	}
	// Inbound the SPI alone selects a unicast SA (RFC 4301 section 4.1), and the
	// peer's endpoint is what the dataplane holds an arrival against: another
	// source is refused on raw IP, and followed or reported behind UDP.
	p.Remote = netip.AddrPortFrom(peer.Address, c.remotePort(peer, profile))
	if sa.Direction == packet.Inbound {
		p.ReplayWindow = profile.ReplayWindow
		return p
	}
	p.Fragment, p.DSCPs = profile.Fragment, sa.DSCPs
	if sa.Protocol == sad.ESP {
		p.TFC = profile.TFC
	}
	if profile.Encap == sad.EncapUDP {
		p.Keepalive = peer.NATKeepalive
	}
	return p
}

// localPort is this end's port on the wire; 0 on raw IP.
func (c *Config) localPort(p Profile) uint16 {
	if p.Encap == sad.EncapNone {
		return 0
	}
	return c.Listen.NATTPort
}

// remotePort is the peer's port on the wire; 0 on raw IP.
func (c *Config) remotePort(peer *Peer, p Profile) uint16 {
	switch {
	case p.Encap == sad.EncapNone:
		return 0
	case peer.Port == 0:
		return c.Listen.NATTPort
	}
	return peer.Port
}

// Table compiles the policies.
func (c *Config) Table() (*spd.Table, error) { return spd.NewTable(c.Policies) }

// NeedsSequenceStore tells whether an SA must resume its sequence numbers
// after a restart: an outbound one with a manual key in a counter mode.
func (c *Config) NeedsSequenceStore() bool {
	for i := range c.Peers {
		for j := range c.Peers[i].SAs {
			sa := &c.Peers[i].SAs[j]
			if sa.Direction == packet.Outbound && sa.counterMode() {
				return true
			}
		}
	}
	return false
}

// UsesAH tells whether a peer has AH, which needs raw protocol 51 sockets.
func (c *Config) UsesAH() bool {
	return c.uses(func(p Profile) bool { return p.Protocol.Uses(sad.AH) })
}

// UsesRawESP tells whether a peer has ESP that no UDP carries, which needs raw
// protocol 50 sockets. With ah+esp the ESP of an honest peer is inside AH: what
// arrives without is to be seen, and dropped.
func (c *Config) UsesRawESP() bool {
	return c.uses(func(p Profile) bool { return p.Protocol.Uses(sad.ESP) && p.Encap == sad.EncapNone }) || c.RawAllowed && c.mayBeRaw()
}

func (c *Config) uses(has func(Profile) bool) bool {
	return slices.ContainsFunc(c.Peers, func(p Peer) bool { return has(c.Profiles[p.Profile]) })
}

// Position is where key stands in the file; for a key that the file leaves to
// its default, where the nearest key above it stands.
func (c *Config) Position(key string) Position {
	for {
		if p, ok := c.positions[key]; ok {
			return p
		}
		cut := strings.LastIndexAny(key, ".[")
		if cut < 0 {
			return Position{File: c.Path, Line: 1, Column: 1}
		}
		key = key[:cut]
	}
}
