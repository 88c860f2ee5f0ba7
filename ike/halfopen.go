package ike

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
)

// Strangers: what is kept of those who have not proved who they are, and the
// cookies that keep it small.
//
// RFC 7296 2.6: "When a responder detects a large number of half-open IKE SAs, it
// SHOULD reply to IKE_SA_INIT requests with a response containing the COOKIE
// notification." It is made from a secret and the message alone, so that nothing
// is kept and no Diffie-Hellman is done for an address that does not answer.
//
// Nothing is ever said twice to a stranger unless it asks twice, and no answer is
// longer than what it answers, unless a cookie has shown that the address is its
// own.

// cookieLength is the version of the secret, and the first 16 bytes of a MAC.
const cookieLength = 1 + 16

// prefixShare of MaxHalfOpen is what one prefix may have, cookies or not: a /24
// or a /48 that answers cookies cannot lock out all others. An address that a peer is
// configured with may have as much, however many others there are: all the prefixes
// of the world cannot lock that peer out.
const prefixShare = 16

// maxFirst bounds the first message of a stranger, in bytes: it is kept whole for
// AUTH. All algorithms there are, a key of MODP-8192 and a dozen notifications take
// less than half of it.
const maxFirst = 8 << 10

// maxUnproved bounds what is put together of a stranger's fragments, in bytes: a
// chain of certificates, and the post-quantum keys of RFC 9370, fit.
const maxUnproved = 24 << 10

// strangers are the half-open IKE SAs that this end answered to.
type strangers struct {
	byMessage  map[[sha256.Size]byte]*ikeSA // by the first message and where it came from
	open       int
	perAddress map[netip.Prefix]int // IPv4 address or IPv6 /64
	perPrefix  map[netip.Prefix]int // IPv4 /24 or IPv6 /48

	secrets [2][32]byte // now, and before that
	version byte        // of secrets[0]; the other's is one less
	renewed time.Duration
	made    bool

	work allowance // of all that come from addresses that no peer has

	logged   int
	logSince time.Duration
}

func (s *strangers) init() {
	s.byMessage = map[[sha256.Size]byte]*ikeSA{}
	s.perAddress = map[netip.Prefix]int{}
	s.perPrefix = map[netip.Prefix]int{}
}

// mayLog tells whether one more event may come from strangers.
func (s *strangers) mayLog(now time.Duration) bool {
	if now-s.logSince >= strangerPeriod {
		s.logged, s.logSince = 0, now
	}
	s.logged++
	return s.logged <= strangerEvents
}

// addressOf is what half-open SAs are counted by: who has one IPv6 address has
// its whole /64.
func addressOf(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	if a.Is4() {
		return netip.PrefixFrom(a, 32)
	}
	p, _ := a.WithZone("").Prefix(64)
	return p
}

// neighboursOf is the wider prefix. Who has an IPv6 network has a /48 as a rule, which is
// 65536 times what one host has.
func neighboursOf(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	bits := 48
	if a.Is4() {
		bits = 24
	}
	p, _ := a.WithZone("").Prefix(bits)
	return p
}

// messageKey is what duplicates of a first message are known by. RFC 7296 2.1:
// a responder has to look at "the whole packet, its hash, or the Ni payload" to
// tell a retransmission from another initiator's message.
func messageKey(from netip.AddrPort, raw []byte) [sha256.Size]byte {
	var buf [18]byte
	a := from.Addr().As16()
	copy(buf[:], a[:])
	binary.BigEndian.PutUint16(buf[16:], from.Port())
	h := sha256.New()
	h.Write(buf[:])
	h.Write(raw)
	return [sha256.Size]byte(h.Sum(nil))
}

// loaded tells whether a has to show a cookie before anything is computed for it.
func (m *Machine) loaded(a netip.Addr) bool {
	s := &m.strange
	return s.open >= m.limits.CookieHalfOpen || s.perAddress[addressOf(a)] >= m.limits.CookieAddress
}

// full tells, by the name of the drop, why there is no room for one more.
func (m *Machine) full(a netip.Addr) string {
	s := &m.strange
	share := max(m.limits.MaxHalfOpen/prefixShare, m.limits.CookieAddress+1)
	switch {
	case len(m.sas) >= m.limits.MaxSAs:
		return "too_many_sas"
	case m.origins.at[a.Unmap()] != nil:
		if s.perAddress[addressOf(a)] < share {
			return ""
		}
		return "too_many_half_open_prefix"
	case s.open >= m.limits.MaxHalfOpen:
		return "too_many_half_open"
	case s.perPrefix[neighboursOf(a)] >= share:
		return "too_many_half_open_prefix"
	}
	return ""
}

// opened counts a half-open SA in.
func (s *strangers) opened(a netip.Addr) {
	s.open++
	s.perAddress[addressOf(a)]++
	s.perPrefix[neighboursOf(a)]++
}

// closed counts it out: it is established, or it is gone.
func (s *strangers) closed(a netip.Addr) {
	s.open--
	less(s.perAddress, addressOf(a))
	less(s.perPrefix, neighboursOf(a))
}

func less(counts map[netip.Prefix]int, p netip.Prefix) {
	counts[p]--
	if counts[p] <= 0 {
		delete(counts, p)
	}
}

// renew makes a new secret when it is time; cookies of the one before are good
// until the next (RFC 7296 2.6: "The responder should change the value of <secret>
// frequently", and "MAY keep the old value of <secret> around for a short time").
func (m *Machine) renewSecret() {
	s := &m.strange
	if s.made && m.now-s.renewed < m.timing.CookieSecret {
		return
	}
	s.secrets[1] = s.secrets[0]
	s.secrets[0] = [32]byte(m.random(32))
	if !s.made || m.now-s.renewed >= 2*m.timing.CookieSecret {
		s.secrets[1] = [32]byte(m.random(32)) // nothing older is good
	}
	s.version++
	s.renewed, s.made = m.now, true
}

// cookie is "<VersionIDofSecret> | Hash(Ni | IPi | SPIi | <secret>)" (RFC 7296
// 2.6), with HMAC for the hash.
func (s *strangers) cookie(which int, nonce []byte, from netip.Addr, spi wire.SPI) []byte {
	mac := hmac.New(sha256.New, s.secrets[which][:])
	var fixed [24]byte
	a := from.As16()
	copy(fixed[:], a[:])
	binary.BigEndian.PutUint64(fixed[16:], uint64(spi))
	mac.Write(fixed[:])
	mac.Write(nonce)
	return mac.Sum([]byte{s.version - byte(which)})[:cookieLength]
}

// makeCookie is one for this first message.
func (m *Machine) makeCookie(nonce []byte, from netip.Addr, spi wire.SPI) []byte {
	m.renewSecret()
	return m.strange.cookie(0, nonce, from, spi)
}

// goodCookie tells whether this end made the cookie for that message, not long
// ago.
func (m *Machine) goodCookie(got, nonce []byte, from netip.Addr, spi wire.SPI) bool {
	m.renewSecret()
	s := &m.strange
	if len(got) != cookieLength {
		return false
	}
	which := int(s.version - got[0])
	if which > 1 {
		return false
	}
	return hmac.Equal(got, s.cookie(which, nonce, from, spi))
}
