package sad

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/adit-ipsec/adit/ah"
	"github.com/adit-ipsec/adit/internal/packet"
)

// MTUSource says where an SA's path MTU came from.
type MTUSource uint8

// The sources.
const (
	MTUUnknown MTUSource = iota // nothing is known: as long as IP allows
	MTULink                     // the outgoing link's
	MTUKernel                   // this host's kernel refused a longer packet, and nobody knows the link's
	MTUICMP                     // a router on the path said so (RFC 1191, RFC 8201), checked as RFC 4301 8.2 asks
	MTUProbe                    // probes inside the SA found it (RFC 8899)
)

// String is the word that operators see.
func (s MTUSource) String() string { return word(s, "unknown", "link", "kernel", "icmp", "probe") }

// Lengths in bytes: the least MTU of a path that is believed, and headers
// without options. Over IPv4 that is what every host must be able to receive,
// not the 68 of RFC 791: an attacker who gets a message believed cannot make
// packets smaller than that.
const (
	MinPathMTU4 = 576  // RFC 1122 3.3.2
	MinPathMTU6 = 1280 // RFC 8200 5

	ipv4HeaderLen = 20
	ipv6HeaderLen = 40
	udpHeaderLen  = 8
)

// PathMTU is what an outbound SA knows of its path.
type PathMTU struct {
	MTU    int           // bytes of the longest outer packet, IP header included; 0: unknown
	Source MTUSource     // what says so
	Since  time.Duration // on the gateway's clock: when it was learned
	Inner  int           // bytes of the longest inner packet that one such outer packet holds
	Link   int           // bytes of the longest outer packet that the outgoing link takes; 0: unknown
}

// pathMTU is the SA's memory of its path.
type pathMTU struct {
	inner atomic.Int64 // PathMTU.Inner, which is all that the walk reads
	outer atomic.Int64 // PathMTU.MTU, or what IP allows

	mu      sync.Mutex // guards what follows; never taken on the packet path
	link    int        // bytes; 0: unknown
	learned int        // bytes; 0: nothing beyond the link
	source  MTUSource  // of learned
	since   int64      // of learned, or of link; nanoseconds
}

// ipHeader is the length in bytes of an outer IP header without options.
func (sa *SA) ipHeader() int {
	if sa.Endpoint().Addr().Is4() {
		return ipv4HeaderLen
	}
	return ipv6HeaderLen
}

// longestAH is the longest AH, in bytes: what an SA of ESP leaves for the one
// around it in a bundle.
var longestAH = func() (longest int) {
	for _, s := range ah.Suites() {
		longest = max(longest, s.HeaderLen(6))
	}
	return longest
}()

// headers is how many bytes of headers lie in front of what the SA protects:
// outer IP header, UDP, AH; without the ESP header.
func (sa *SA) headers() int {
	n := sa.ipHeader()
	if sa.Encap == EncapUDP {
		n += udpHeaderLen
	}
	switch {
	case sa.Protocol == AH && sa.Endpoint().Addr().Is4():
		n += sa.AHSuite.HeaderLen(4)
	case sa.Protocol == AH:
		n += sa.AHSuite.HeaderLen(6)
	case sa.Bundle:
		n += longestAH
	}
	return n
}

// bare is what of an inner packet lies in front of the headers, and not behind
// them: in transport mode its own IP header, which serves as the outer one. One
// with options is longer, and so leaves less room than is said here.
func (sa *SA) bare() int {
	if sa.Mode == TransportMode {
		return sa.ipHeader()
	}
	return 0
}

// OuterLen is the length in bytes of the outer packet, IP header included, that
// carries an inner packet of that many bytes.
func (sa *SA) OuterLen(inner int) int {
	if inner -= sa.bare(); sa.Protocol == AH {
		return sa.headers() + inner
	}
	return sa.headers() + sa.Suite.SealedLen(inner)
}

// OuterOfESP is the length in bytes of the outer packet, IP header included, around
// an ESP packet of that many bytes.
func (sa *SA) OuterOfESP(sealed int) int { return sa.headers() + sealed }

// MaxInner is the length in bytes of the longest inner packet that an outer
// packet of that many bytes holds; negative where it holds none.
func (sa *SA) MaxInner(outer int) int {
	room := outer - sa.headers()
	if sa.Protocol == ESP {
		room = sa.Suite.MaxPayload(room)
	}
	return room + sa.bare()
}

// MaxText is the length in bytes of the longest text under ESP that an outer packet
// of that many bytes holds: MaxInner, in transport mode without the IP header.
func (sa *SA) MaxText(outer int) int { return sa.Suite.MaxPayload(outer - sa.headers()) }

// longestOuter is the longest outer packet that there can be: 65535 bytes, behind
// an IPv6 header (RFC 791, RFC 8200 3).
func (sa *SA) longestOuter() int {
	if sa.Endpoint().Addr().Is4() {
		return packet.MaxLen
	}
	return ipv6HeaderLen + packet.MaxLen
}

// LongestInner is the length in bytes of the longest inner packet that can leave
// at all, in as many fragments of the outer packet as the path needs.
func (sa *SA) LongestInner() int { return sa.MaxInner(sa.longestOuter()) }

// SentLong tells whether the SA has sent packets since then, nanoseconds on the
// gateway's clock, whose length makes the path's width matter: runs of packets that
// are on the average more than three quarters of what every path takes.
func (sa *SA) SentLong(since int64) bool {
	last := sa.lastLong.Load()
	return last != 0 && last >= since
}

// MinPathMTU is the least path MTU in bytes that SetPathMTU takes.
func (sa *SA) MinPathMTU() int {
	if sa.Endpoint().Addr().Is4() {
		return MinPathMTU4
	}
	return MinPathMTU6
}

// InnerMTU is the length in bytes of the longest inner packet that the path takes
// in one outer packet, as far as is known. It is one atomic load.
func (sa *SA) InnerMTU() int { return int(sa.path.inner.Load()) }

// OuterMTU is the length in bytes of the longest outer packet that the path takes
// in one piece, as far as is known. It is one atomic load.
func (sa *SA) OuterMTU() int { return int(sa.path.outer.Load()) }

// PathMTU is what is known of the path. An inbound SA knows nothing.
func (sa *SA) PathMTU() PathMTU {
	sa.path.mu.Lock()
	defer sa.path.mu.Unlock()
	m := PathMTU{MTU: sa.path.mtu(), Source: sa.path.source, Since: time.Duration(sa.path.since), Inner: sa.InnerMTU(), Link: sa.path.link}
	switch {
	case m.MTU == 0:
		m.Source = MTUUnknown
	case sa.path.learned == 0:
		m.Source = MTULink
	}
	return m
}

// SetPathMTU is told the longest outer packet in bytes that the path takes, who
// says so, and when: nanoseconds on the gateway's clock. MTULink sets the limit
// that the others stay below, 0 for none; of those the last one holds. What is
// below MinPathMTU counts as MinPathMTU. It takes a lock, and is not for the
// packet path.
func (sa *SA) SetPathMTU(mtu int, source MTUSource, now int64) {
	sa.path.mu.Lock()
	defer sa.path.mu.Unlock()
	sa.setPathMTU(mtu, source, now)
}

// LowerPathMTU is SetPathMTU for news that may only make the path narrower: a
// router's message, which anyone can forge, or the kernel's refusal. It tells
// whether anything changed.
func (sa *SA) LowerPathMTU(mtu int, source MTUSource, now int64) bool {
	sa.path.mu.Lock()
	defer sa.path.mu.Unlock()
	if is := sa.path.mtu(); is > 0 && is <= max(mtu, sa.MinPathMTU()) {
		return false
	}
	sa.setPathMTU(mtu, source, now)
	return true
}

// setPathMTU is SetPathMTU; path.mu is held.
func (sa *SA) setPathMTU(mtu int, source MTUSource, now int64) {
	p := &sa.path
	if mtu > 0 {
		mtu = min(max(mtu, sa.MinPathMTU()), sa.longestOuter())
	}
	if source != MTULink {
		p.learned, p.source, p.since = mtu, source, now
	} else if mtu != p.link {
		if p.link = mtu; p.learned == 0 || mtu > 0 && mtu < p.learned {
			p.learned, p.since = 0, now
		}
	}
	if p.link > 0 {
		p.learned = min(p.learned, p.link)
	}
	sa.derive()
}

// mtu is the path MTU in bytes, 0 while it is unknown.
func (p *pathMTU) mtu() int {
	if p.learned > 0 {
		return p.learned
	}
	return p.link
}

// AgePathMTU forgets what was learned that long ago or longer, and tells whether
// there was something. RFC 8201 4: "an implementation SHOULD "age" cached values":
// a stale one is too small for ever, for nobody tells a sender that the path has
// grown.
func (sa *SA) AgePathMTU(now int64, after time.Duration) bool {
	sa.path.mu.Lock()
	defer sa.path.mu.Unlock()
	if sa.path.learned == 0 || now-sa.path.since < int64(after) {
		return false
	}
	sa.path.learned, sa.path.since = 0, now
	sa.derive()
	return true
}

// initPath makes the path of a new SA: nothing is known.
func (sa *SA) initPath() {
	sa.long = sa.MaxInner(sa.MinPathMTU()) * 3 / 4
	sa.derive()
}

// derive brings inner up to date; path.mu is held, or nobody else has the SA.
func (sa *SA) derive() {
	outer := sa.path.mtu()
	if outer == 0 {
		outer = sa.longestOuter()
	}
	sa.path.inner.Store(int64(sa.MaxInner(outer)))
	sa.path.outer.Store(int64(outer))
}

// String is what operators see: "1420 (icmp)".
func (m PathMTU) String() string {
	if m.MTU == 0 {
		return m.Source.String()
	}
	return fmt.Sprintf("%d (%s)", m.MTU, m.Source)
}
