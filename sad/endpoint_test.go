package sad

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/adit-ipsec/adit/esp"
)

var (
	home  = netip.MustParseAddrPort("192.0.2.2:4500") // params' Remote
	away  = netip.MustParseAddrPort("203.0.113.7:61000")
	away6 = netip.MustParseAddrPort("[2001:db8::7]:61000")
)

// at fails unless the SA's peer is there, and Stats says so too.
func at(t *testing.T, what string, sa *SA, want netip.AddrPort) {
	t.Helper()
	if got := sa.Endpoint(); got != want || sa.Stats().Remote != want {
		t.Errorf("%s: endpoint: expected %s, saw %s, in Stats %s", what, want, got, sa.Stats().Remote)
	}
}

func installed(t *testing.T, d *Database, list ...Params) (sas []*SA) {
	t.Helper()
	for _, p := range list {
		sas = append(sas, newSA(t, p))
	}
	if err := d.Install(sas...); err != nil {
		t.Fatal(err)
	}
	return sas
}

// RFC 7296 2.23: all of the peer's SAs over UDP move at once, and nobody
// else's.
func TestMoveTakesAllSAsOfThePeer(t *testing.T) {
	d := NewDatabase()
	second, third := params(t, Outbound, 0x2002, "aes128gcm16", 1), params(t, Outbound, 0x2003, "aes128gcm16", 2)
	second.Policy, third.Peer = "voice", "site-c"
	sas := installed(t, d, outbound(t), inbound(t), second, third)
	from, moved := d.Move("site-b", away)
	if from != home || moved != 2 {
		t.Errorf("Move: expected 2 outbound SAs from %s, saw %d from %s", home, moved, from)
	}
	for i, want := range []netip.AddrPort{away, away, away, home} {
		at(t, sas[i].ID().String(), sas[i], want)
	}
	if sas[0].Remote != home {
		t.Errorf("Remote: expected what the SA was made with, %s, saw %s", home, sas[0].Remote)
	}
	if from, moved := d.Move("site-b", netip.MustParseAddrPort("[::ffff:203.0.113.7]:61000")); moved != 0 || from.IsValid() {
		t.Errorf("Move to where it is: expected none, saw %d from %s", moved, from)
	}
	if _, moved := d.Move("nobody", away); moved != 0 {
		t.Errorf("Move of a peer without SAs: %d", moved)
	}
}

func TestMoveLeavesThoseThatDoNotFollow(t *testing.T) {
	for name, change := range map[string]func(*Params){
		"static":                   func(p *Params) { p.Static = true },
		"this end is behind a NAT": func(p *Params) { p.BehindNAT = true },
		"protocol 50":              func(p *Params) { p.Encap = EncapNone },
		"own address of the other family": func(p *Params) {
			p.Local = netip.MustParseAddrPort("[2001:db8::1]:4500")
			p.Remote = netip.MustParseAddrPort("[2001:db8::2]:4500")
		},
	} {
		d := NewDatabase()
		out, in := outbound(t), inbound(t)
		change(&out)
		change(&in)
		sas := installed(t, d, out, in)
		if _, moved := d.Move("site-b", away); moved != 0 {
			t.Errorf("%s: moved %d", name, moved)
		}
		at(t, name, sas[0], out.Remote)
		at(t, name, sas[1], in.Remote)
	}
	// An SA that has no address of its own goes along to the other family.
	d := NewDatabase()
	p := outbound(t)
	p.Local = netip.AddrPort{}
	sas := installed(t, d, p)
	if _, moved := d.Move("site-b", away6); moved != 1 {
		t.Errorf("any own address: expected a move, saw %d", moved)
	}
	at(t, "any own address", sas[0], away6)
}

// A new generation for the same endpoint starts where the old one is; one for
// another stays where it was made for, and the inbound SAs are compared with
// that.
func TestInstallPutsSAsWhereThePeerIs(t *testing.T) {
	d := NewDatabase()
	in := installed(t, d, outbound(t), inbound(t))[1]
	d.Move("site-b", away)
	next := func(dir Direction, spi uint32) Params {
		return params(t, dir, spi, "aes128gcm16", byte(spi)^byte(spi>>8)<<3)
	}
	for i, sa := range installed(t, d, next(Outbound, 0x2101), next(Inbound, 0x1101), next(Outbound, 0x2102), next(Inbound, 0x1102)) {
		if at(t, sa.ID().String(), sa, away); t.Failed() {
			t.Fatalf("SA %d of the new generation", i)
		}
	}
	elsewhere := next(Outbound, 0x2103)
	elsewhere.Remote = netip.MustParseAddrPort("198.51.100.9:4500")
	sas := installed(t, d, elsewhere, next(Inbound, 0x1103))
	at(t, "made for another endpoint", sas[0], elsewhere.Remote)
	at(t, "inbound beside it", sas[1], elsewhere.Remote)
	at(t, "inbound before it", in, elsewhere.Remote)
	static := next(Outbound, 0x2104)
	static.Static = true
	at(t, "static", installed(t, d, static)[0], home)

	// Only the outbound SA was replaced, by one without a word of the move.
	d = NewDatabase()
	sas = installed(t, d, inbound(t), outbound(t))
	d.Move("site-b", away)
	d.Remove(sas[1].ID())
	at(t, "outbound SA replaced", installed(t, d, next(Outbound, 0x2105))[0], away)
	d.Remove(sas[0].ID(), ID{Outbound, 0x2105, "site-b", ESP})
	at(t, "installed after all were removed", installed(t, d, next(Outbound, 0x2106))[0], home)
	if n := len(d.Load().ofPeer("site-b")); n != 1 {
		t.Errorf("SAs known of the peer: expected 1, saw %d", n)
	}
}

// An inbound SA for any source is where the outbound one sends to.
func TestInboundForAnySourceTakesTheOutboundEndpoint(t *testing.T) {
	for _, outFirst := range []bool{true, false} {
		d := NewDatabase()
		in := inbound(t)
		in.Remote = netip.AddrPort{}
		list := []Params{in, outbound(t)}
		if outFirst {
			list[0], list[1] = list[1], list[0]
		}
		for _, sa := range installed(t, d, list...) {
			at(t, sa.ID().String(), sa, home)
		}
	}
}

func TestNewestIsTheWindowsEdge(t *testing.T) {
	sa := newSA(t, inbound(t))
	sa.Mark([]esp.Packet{{Seq: 5}, {Seq: 3}})
	for seq, want := range map[uint64]bool{0: false, 3: false, 4: false, 5: true, 6: false} {
		if got := sa.Newest(seq); got != want {
			t.Errorf("Newest(%d) = %v, expected %v", seq, got, want)
		}
	}
	p := inbound(t)
	p.ReplayWindow = 0
	if sa := newSA(t, p); sa.Newest(0) || sa.Newest(1) {
		t.Error("an SA without a window cannot tell what is newest")
	}
}

// Moves, installs and readers at once: for the race detector, and at the end all
// are in one place.
func TestMoveWhileSAsComeAndGo(t *testing.T) {
	d := NewDatabase()
	first := installed(t, d, outbound(t), inbound(t))
	var all sync.WaitGroup
	for i := range 2 {
		all.Go(func() {
			for n := range 200 {
				d.Move("site-b", netip.AddrPortFrom(away.Addr(), uint16(1+i*1000+n)))
				if !first[0].Endpoint().IsValid() {
					t.Error("no endpoint")
				}
			}
		})
	}
	all.Go(func() {
		for n := range uint32(50) {
			p := params(t, Outbound, 0x3000+n, "aes128gcm16", byte(n))
			p.EncryptionKey[1] = 7
			if err := d.Install(newSA(t, p)); err != nil {
				t.Error(err)
			}
			if n%2 == 0 {
				d.Remove(p.ID())
			}
		}
	})
	all.Wait()
	for sa := range d.Load().All() {
		at(t, sa.ID().String(), sa, first[0].Endpoint())
	}
}

// In transport mode the packets end at the peer's address: another port is
// followed, another address is not.
func TestMoveInTransportModeIsOfThePort(t *testing.T) {
	d := NewDatabase()
	p := outbound(t)
	p.Mode = TransportMode
	sas := installed(t, d, p)
	if _, moved := d.Move("site-b", away); moved != 0 {
		t.Errorf("another address: moved %d", moved)
	}
	port := netip.AddrPortFrom(home.Addr(), 61000)
	if _, moved := d.Move("site-b", port); moved != 1 {
		t.Errorf("another port: expected a move, saw %d", moved)
	}
	at(t, "transport mode", sas[0], port)
}

// Another address is behind another path; another port is not.
func TestMoveForgetsThePathMTU(t *testing.T) {
	d := NewDatabase()
	p := outbound(t)
	p.Local = netip.AddrPort{}
	sa := installed(t, d, p)[0]
	sa.SetPathMTU(1300, MTUICMP, 1)
	inner := sa.InnerMTU()
	d.Move("site-b", netip.AddrPortFrom(home.Addr(), 61000))
	if got := sa.OuterMTU(); got != 1300 || sa.InnerMTU() != inner {
		t.Errorf("after another port: expected 1300 and %d inside, saw %d and %d", inner, got, sa.InnerMTU())
	}
	d.Move("site-b", away)
	if m := sa.PathMTU(); m.Source != MTUUnknown || sa.OuterMTU() <= 1300 {
		t.Errorf("after another address: expected nothing known, saw %+v", m)
	}
	sa.SetPathMTU(1500, MTULink, 1)
	inner = sa.InnerMTU()
	d.Move("site-b", away6)
	if got := sa.InnerMTU(); sa.OuterMTU() != 1500 || got >= inner {
		t.Errorf("IPv6 outside: expected less than %d inside, saw %d", inner, got)
	}
}
