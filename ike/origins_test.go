package ike

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/wire"
)

// manyPeers are n peers of B's: at addresses of their own, or from anywhere.
func manyPeers(t testing.TB, n int, roaming bool) []Peer {
	var list []Peer
	for i := range n {
		p := peerAt(t, "B")
		p.Name = fmt.Sprintf("peer-%d", i)
		p.Remotely.ID = auth.Identity{Kind: wire.IDFQDN, Data: fmt.Appendf(nil, "p%d.example.net", i)}
		p.Remote = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		if roaming {
			p.Remote = netip.Addr{}
		}
		list = append(list, p)
	}
	return list
}

// TestOrigins_AFirstMessageCostsTheSame: whoever sends first messages has this end look
// at no more peers than those of its address, and keeps nothing of them in what is
// half-open.
func TestOrigins_AFirstMessageCostsTheSame(t *testing.T) {
	cost := func(n int, roaming bool) float64 {
		r := newRig(t)
		b := r.add("B", Config{Peers: manyPeers(t, n, roaming)}, addrB.String())
		b.m.limits = Limits{CookieHalfOpen: 1 << 20, CookieAddress: 1 << 20, MaxHalfOpen: 1 << 20, MaxSAs: 1 << 20}
		spi := wire.SPI(1)
		data := first(t, spi, nil)
		local, from := netip.AddrPortFrom(addrB, 500), netip.MustParseAddrPort("198.51.100.7:500")
		return testing.AllocsPerRun(20, func() {
			spi++
			copy(data, spi.Bytes())
			b.m.Step(0, Packet{Local: local, Remote: from, Data: data})
		})
	}
	for _, roaming := range []bool{false, true} {
		few, many := cost(3, roaming), cost(3000, roaming)
		if many > few+50 {
			t.Errorf("roaming %t: %.0f allocations with 3000 peers, %.0f with 3", roaming, many, few)
		}
	}
	b := newRig(t).add("B", Config{Peers: manyPeers(t, 3000, true)}, addrB.String())
	b.stranger("198.51.100.7", first(t, 1, nil))
	for _, sa := range b.m.sas {
		if len(sa.first.candidates) != 1 {
			t.Errorf("%d candidates are kept of 3000 peers with the same proposals", len(sa.first.candidates))
		}
	}
}

// TestOrigins_From: those of the address come before those of any, by proposals.
func TestOrigins_From(t *testing.T) {
	list := manyPeers(t, 6, false)
	list[1].Remote, list[4].Remote = netip.Addr{}, netip.Addr{}
	list[2].Remote = list[0].Remote
	list[3].Remote = netip.AddrFrom16(list[0].Remote.As16())
	list[3].Proposals = proposals(t, wire.ProtocolIKE, "aes256gcm16-prfsha384-ecp384")
	b := newRig(t).add("B", Config{Peers: list}, addrB.String())
	names := func(a netip.Addr) (text string) {
		for _, k := range b.m.origins.from(a) {
			for _, p := range k.peers {
				text += strings.TrimPrefix(p.Name, "peer-")
			}
			text += " "
		}
		return text
	}
	for a, want := range map[netip.Addr]string{list[0].Remote: "02 3 14 ", list[5].Remote: "5 14 ", addrA: "14 "} {
		if got := names(a); got != want {
			t.Errorf("from %s: %q, want %q", a, got, want)
		}
	}
	b.step(Configure{Peers: list[5:]})
	if got := names(list[0].Remote) + names(list[5].Remote); got != "5 " {
		t.Errorf("reconfigured: %q", got)
	}
}

// TestOrigins_ByIdentity: of thousands that come from anywhere the one is taken whose
// identity it is, and a name that nobody has is told of in one line.
func TestOrigins_ByIdentity(t *testing.T) {
	for name, want := range map[string]string{"P1234.Example.net": "peer-1234", "nobody.example.net": ""} {
		r := newRig(t)
		pa := peerAt(t, "A")
		pa.Auth.ID = identity(t, name)
		a := r.add("A", Config{Peers: []Peer{pa}}, addrA.String())
		b := r.add("B", Config{Peers: manyPeers(t, 2000, true)}, addrB.String())
		a.step(Initiate{Peer: "B"})
		r.run(time.Second)
		sas := b.establishedSAs()
		switch {
		case want == "":
			f := b.failures()
			if len(sas) != 0 || len(f) != 1 || f[0].Reason != "wrong_identity" || len(f[0].Ours) > 2*longList || !strings.Contains(f[0].Ours, "p0.example.net") {
				t.Errorf("%d established; %v", len(sas), f)
			}
		case len(sas) != 1 || sas[0].peer.Name != want:
			t.Errorf("%s: %d established; log:\n%s", name, len(sas), lines(b.log))
		}
	}
}

// TestOrigins_KnownAddressesAreNotLockedOut: strangers who fill all that may be half-open
// keep no peer out that is configured with its address.
func TestOrigins_KnownAddressesAreNotLockedOut(t *testing.T) {
	r := newRig(t)
	known, any := peerAt(t, "B"), peerAt(t, "B")
	any.Name, any.Remote = "any", netip.Addr{}
	a := r.add("A", Config{Peers: []Peer{peerAt(t, "A")}}, addrA.String())
	b := r.add("B", Config{Peers: []Peer{known, any}, Limits: Limits{MaxHalfOpen: 32, CookieHalfOpen: 1 << 20, CookieAddress: 3}}, addrB.String())
	for i := range 100 {
		b.stranger(fmt.Sprintf("203.0.%d.1", i), first(t, wire.SPI(i+1), nil))
	}
	if b.m.HalfOpen() != 32 {
		t.Fatalf("%d half-open", b.m.HalfOpen())
	}
	a.step(Initiate{Peer: "B"})
	r.run(time.Second)
	r.wantPairs(a, b, 1)
	// One address has no more than its share all the same.
	for i := range 100 {
		data := first(t, wire.SPI(i+1000), nil)
		if n := notifyIn(t, b.stranger(addrA.String(), data), wire.NotifyCookie); n != nil {
			b.stranger(addrA.String(), first(t, wire.SPI(i+1000), withCookie(n.Data)))
		}
	}
	if n := b.m.HalfOpen(); n > 32+4 {
		t.Errorf("%d half-open", n)
	}
}

// TestFloodOfOneIPv6Network: who has a /48 has 65536 of the prefixes that one host has,
// and cannot lock out all others either.
func TestFloodOfOneIPv6Network(t *testing.T) {
	_, b := anyB(t, Limits{MaxHalfOpen: 64, CookieHalfOpen: 1 << 20})
	for i := range 300 {
		b.stranger(fmt.Sprintf("2001:db8:1:%x::1", i), first(t, wire.SPI(i+1), nil))
	}
	if n := b.m.HalfOpen(); n != 4 {
		t.Errorf("one /48 has %d half-open of 64", n)
	}
}
