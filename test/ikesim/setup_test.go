package ikesim

import (
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/adit-ipsec/adit/ike"
	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/pki"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// epoch is the date at time 0.
var epoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// secret is the pre-shared key of all gateways, wrongSecret that of the attacker.
const (
	secret      = "f1c3a2ef95b1704e8d6a3cb2907f54e1d8c6b3a4"
	wrongSecret = "0e4b1d96c8a37f52b60cd91e7a83f4256bd07c1e"
)

// setup is a network before anything happens: all of it follows from the seed.
type setup struct {
	seed    uint64
	latency time.Duration
	timing  ike.Timing
	hosts   []hostSetup // the first one is the peer of all others
	about   []string
}

// hostSetup is one gateway.
type hostSetup struct {
	name    string
	addr    netip.Addr
	behind  netip.Addr // its NAT's public address; invalid: there is none
	forward bool       // the NAT hands ports 500 and 4500 in
	limits  ike.Limits
	peers   []ike.Peer
}

// outside is where others see it.
func (h *hostSetup) outside() netip.Addr {
	if h.behind.IsValid() {
		return h.behind
	}
	return h.addr
}

// pairing is what the two ends of one peering have and have not in common.
type pairing struct {
	roles      [2]ike.Role // of the hub, of the spoke
	start      [2]ike.Start
	ike        [2]string // proposals, several by commas
	esp        [2]string
	policies   int
	narrow     bool // the spoke's side of the selectors is half of what the hub says
	roaming    bool // the hub does not know where the spoke is
	rekey      time.Duration
	reauth     time.Duration
	dpd        time.Duration
	ppk        [2]bool
	certs      bool
	childless  bool
	forceUDP   bool
	startNATT  bool
	fragment   bool
	smallFrags bool
}

// pick chooses one of several.
func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// chance is true in percent of all cases.
func chance(r *rand.Rand, percent int) bool { return r.IntN(100) < percent }

// between is a time from a to b.
func between(r *rand.Rand, a, b time.Duration) time.Duration {
	return a + time.Duration(r.Int64N(int64(b-a)+1))
}

// makeSetup makes the network of a seed.
func makeSetup(seed uint64) setup {
	r := stream(seed, "setup")
	s := setup{seed: seed, latency: between(r, time.Millisecond, 50*time.Millisecond)}
	s.timing = ike.Timing{
		Retransmit: between(r, 200*time.Millisecond, 500*time.Millisecond), Tries: 5 + r.IntN(4),
		HalfOpen: between(r, 10*time.Second, 30*time.Second), Grace: between(r, 2*time.Second, 5*time.Second),
	}
	s.addHosts(2+r.IntN(8)/7, func(h *hostSetup) {
		if h.name != "A" && chance(r, 25) {
			h.behindNAT(chance(r, 20))
		}
		if chance(r, 10) {
			h.limits.CookieHalfOpen, h.limits.CookieAddress = 1, 1
		}
	})
	for i := range s.hosts[1:] {
		s.join(i+1, s.makePairing(r, &s.hosts[i+1]))
	}
	return s
}

func (s *setup) addHosts(n int, change func(*hostSetup)) {
	for i := range n {
		h := hostSetup{name: string(rune('A' + i)), addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})}
		if change != nil {
			change(&h)
		}
		s.hosts = append(s.hosts, h)
	}
}

// behindNAT puts a NAT in front of a host.
func (h *hostSetup) behindNAT(forward bool) {
	last := h.addr.As4()[3]
	h.addr, h.behind, h.forward = netip.AddrFrom4([4]byte{10, 9, 0, last}), netip.AddrFrom4([4]byte{203, 0, 113, last}), forward
}

// roleCombinations are those in which one end at least may initiate.
var roleCombinations = [][2]ike.Role{
	{ike.Both, ike.NeverInitiate}, {ike.Both, ike.NeverRekey}, {ike.Both, ike.ResponderOnly}, {ike.Both, ike.Passive},
	{ike.NeverRekey, ike.NeverRekey}, {ike.NeverRekey, ike.ResponderOnly}, {ike.NeverRekey, ike.NeverInitiate},
}

// makePairing makes one peering of the hub with a spoke.
func (s *setup) makePairing(r *rand.Rand, spoke *hostSetup) pairing {
	p := pairing{policies: 1, dpd: between(r, 8*time.Second, 15*time.Second), fragment: chance(r, 80)}
	if chance(r, 40) {
		p.roles = pick(r, roleCombinations...)
		if chance(r, 50) || spoke.behind.IsValid() && !spoke.forward {
			p.roles[0], p.roles[1] = p.roles[1], p.roles[0]
		}
	}
	for i := range 2 {
		if chance(r, 50) {
			p.start[i] = ike.AtOnce
		}
	}
	if chance(r, 30) {
		p.policies = 2 + r.IntN(2)
	}
	p.cryptography(r)
	if chance(r, 40) {
		p.rekey = between(r, 15*time.Second, 60*time.Second)
	}
	if chance(r, 8) {
		p.reauth = between(r, 15*time.Second, 40*time.Second)
	}
	p.narrow, p.startNATT = chance(r, 10), chance(r, 5)
	p.forceUDP = chance(r, 5)
	p.childless = chance(r, 10)
	p.smallFrags = p.fragment && chance(r, 10)
	if spoke.behind.IsValid() && !spoke.forward {
		p.roaming = chance(r, 70)
		if p.roaming {
			p.start[0] = ike.OnTraffic
		}
	} else if !initiates(p.roles[1]) {
		p.roaming = false
	}
	if p.roles[0] != ike.Both && p.roles[0] != ike.NeverRekey {
		p.roaming = p.roaming || chance(r, 30)
	}
	return p
}

// cryptography is cheap mostly: a run has a dozen handshakes, a campaign 100,000 runs.
func (p *pairing) cryptography(r *rand.Rand) {
	both := func(s string) [2]string { return [2]string{s, s} }
	p.ike = both("aes128gcm16-prfsha256-x25519")
	p.esp = both(pick(r, "aes128gcm16-esn", "aes128gcm16", "aes128gcm16-x25519", "aes128gcm16-x25519-esn", "aes128-sha256", "chacha20poly1305"))
	switch n := r.IntN(1000); {
	case n < 60:
		p.ike = both(pick(r, "chacha20poly1305-prfsha256-x25519", "aes128-sha256-ecp256", "aes128ctr-sha256-x25519"))
	case n < 110:
		p.ike = [2]string{"aes128gcm16-prfsha256-x25519-ecp256", "aes128gcm16-prfsha256-ecp256"}
		p.esp = [2]string{"aes128gcm16-x25519-ecp256", "aes128gcm16-ecp256"}
	case n < 130:
		p.ike = both("aes256gcm16-prfsha384-x25519-ke1_mlkem768")
	case n < 132:
		p.ike = both("aes128gcm16-prfsha256-modp2048")
	}
	switch n := r.IntN(100); {
	case n < 4:
		p.certs = true
	case n < 7:
		p.ppk = [2]bool{true, true}
	case n < 9:
		p.ppk = [2]bool{true, false}
	}
}

// join makes the hub and a spoke peers of each other.
func (s *setup) join(spoke int, p pairing) {
	hub, sp := &s.hosts[0], &s.hosts[spoke]
	s.about = append(s.about, fmt.Sprintf("%s-%s roles %s/%s policies %d %q %q rekey %s reauth %s dpd %s nat %v/%t roaming %t certs %t ppk %v start %v", hub.name, sp.name, p.roles[0], p.roles[1],
		p.policies, p.ike, p.esp, p.rekey, p.reauth, p.dpd, sp.behind.IsValid(), sp.forward, p.roaming, p.certs, p.ppk, p.start))
	for i, ends := range [][2]*hostSetup{{hub, sp}, {sp, hub}} {
		here, there := ends[0], ends[1]
		peer := ike.Peer{
			Name: there.name, Local: here.addr, Remote: there.outside(), Role: p.roles[i], Start: p.start[i],
			Proposals: proposals(wire.ProtocolIKE, p.ike[i]), Rekey: p.rekey, Reauth: p.reauth, DPD: p.dpd,
			Fragmentation: p.fragment, Childless: p.childless, ForceUDP: p.forceUDP, StartNATT: p.startNATT,
		}
		if p.smallFrags {
			peer.FragmentSize = 576
		}
		if p.roaming && i == 0 {
			peer.Remote = netip.Addr{}
		}
		if p.ppk[i] {
			peer.PPK = auth.PPK{ID: []byte("ppk"), Key: sad.Key("0123456789abcdef0123456789abcdef")}
		}
		if peer.Role == ike.Passive {
			peer.DPD = 0
		}
		identify(&peer, here.name, there.name, p.certs)
		for n := range p.policies {
			peer.Children = append(peer.Children, child(n, spoke, i, p))
		}
		here.peers = append(here.peers, peer)
	}
}

// child is one policy, seen from the hub (end 0) or from the spoke (end 1).
func child(n, spoke, end int, p pairing) ike.Child {
	bits := 24
	if p.narrow && end == 1 {
		bits = 25
	}
	hub := prefix(fmt.Sprintf("10.0.%d.0/24", n))
	sp := prefix(fmt.Sprintf("10.%d.%d.0/%d", spoke, n, bits))
	s := spd.Selector{Local: []spd.AddrRange{hub}, Remote: []spd.AddrRange{sp}, Protocol: spd.ProtocolAny}
	if end == 1 {
		s.Local, s.Remote = s.Remote, s.Local
	}
	return ike.Child{
		Policy: fmt.Sprintf("net%d", n), Selectors: []spd.Selector{s}, Proposals: proposals(wire.ProtocolESP, p.esp[end]),
		Template: sad.Params{ReplayWindow: 1024},
	}
}

func prefix(text string) spd.AddrRange {
	p := netip.MustParsePrefix(text)
	last := p.Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	return spd.AddrRange{From: p.Addr(), To: netip.AddrFrom4(last)}
}

var parsed sync.Map // of proposals, which are the same in most runs

func proposals(protocol wire.ProtocolID, keywords string) []proposal.Proposal {
	key := protocol.String() + keywords
	if v, ok := parsed.Load(key); ok {
		return v.([]proposal.Proposal)
	}
	var out []proposal.Proposal
	for k := range strings.SplitSeq(keywords, ",") {
		out = append(out, must(proposal.Parse(protocol, k, false)))
	}
	parsed.Store(key, out)
	return out
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func identityOf(host string) string { return strings.ToLower(host) + ".example.net" }

// identify gives a peer its credentials.
func identify(p *ike.Peer, here, there string, certs bool) {
	p.Auth = auth.Local{ID: must(auth.ParseIdentity(identityOf(here)))}
	p.Remotely = auth.Remote{ID: must(auth.ParseIdentity(identityOf(there)))}
	if !certs {
		p.Auth.PSK, p.Remotely.PSK = sad.Key(secret), sad.Key(secret)
		return
	}
	e := certificates().hosts[here]
	p.Auth.Chain, p.Auth.Signer = e.Chain(), e.Key
	p.Remotely.Trust = []*x509.Certificate{e.Root}
}

// authority issues the certificates of all runs; another one those of the attacker.
type authority struct{ hosts, rogue map[string]*pki.Entity }

var certificates = sync.OnceValue(func() authority {
	a := authority{hosts: map[string]*pki.Entity{}, rogue: map[string]*pki.Entity{}}
	for name, into := range map[string]map[string]*pki.Entity{"root": a.hosts, "another root": a.rogue} {
		root := must(pki.New(pki.Options{Key: pki.P256, Name: name, From: epoch.Add(-time.Hour)}))
		for _, host := range []string{"A", "B", "C"} {
			id := identityOf(host)
			into[host] = must(root.Issue(pki.Options{Key: pki.P256, Name: id, DNS: []string{id}, From: epoch.Add(-time.Hour)}))
		}
	}
	return a
})

// impostor is a host's configuration without its secrets.
func impostor(h hostSetup) hostSetup {
	h.peers = slices.Clone(h.peers)
	for i := range h.peers {
		p := &h.peers[i]
		if len(p.Auth.Chain) > 0 {
			e := certificates().rogue[h.name]
			p.Auth.Chain, p.Auth.Signer = e.Chain(), e.Key
			continue
		}
		p.Auth.PSK, p.Remotely.PSK = sad.Key(wrongSecret), sad.Key(wrongSecret)
	}
	return h
}

// initiates tells whether an end of this role begins IKE SAs.
func initiates(r ike.Role) bool { return r == ike.Both || r == ike.NeverRekey }
