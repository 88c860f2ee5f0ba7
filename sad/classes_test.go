package sad

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/spd"
)

func classSA(t testing.TB, n int, peer, policy string, dscps ...uint8) *SA {
	t.Helper()
	p := params(t, Outbound, uint32(0x2000+n), "aes128-sha256", byte(n))
	p.Peer, p.Policy, p.DSCPs = peer, policy, dscps
	p.EncryptionKey[0], p.EncryptionKey[1] = byte(n>>8), byte(n)
	return newSA(t, p)
}

// pick is what a worker does: the SA for one packet.
func pick(s *Snapshot, peer, policy string, dscp uint8, f *packet.Flow) *SA {
	sa, classes := s.OutboundClasses(peer, policy)
	if classes != nil {
		return classes.SA(dscp<<2|3, f)
	}
	return sa
}

const ef, af41, be = 46, 34, 0

// RFC 4301 4.1: several SAs with the same selectors, traffic distributed by the
// sender: the newest that names the DSCP, else the newest that names none, else
// none at all.
func TestRFC4301_4_1_TheSAOfAPacketsClass(t *testing.T) {
	d, f := NewDatabase(), &packet.Flow{}
	want := func(when string, efSA, afSA, beSA *SA) {
		t.Helper()
		for dscp, sa := range map[uint8]*SA{ef: efSA, af41: afSA, be: beSA, 63: beSA} {
			if got := pick(d.Load(), "b", "lan", dscp, f); got != sa {
				t.Errorf("%s: DSCP %d: expected %v, seen %v", when, dscp, name(sa), name(got))
			}
		}
		if got := d.Load().Outbound("b", "lan"); got != beSA {
			t.Errorf("%s: Outbound: expected %v, seen %v", when, name(beSA), name(got))
		}
	}
	voice := classSA(t, 1, "b", "lan", ef, 44)
	install(t, d, voice)
	want("a class and nothing for the rest", voice, nil, nil)
	plain := classSA(t, 2, "b", "lan")
	install(t, d, plain)
	want("and the rest", voice, plain, plain)
	video := classSA(t, 3, "b", "lan", af41)
	install(t, d, video, classSA(t, 4, "c", "lan", ef, af41), classSA(t, 5, "b", "other", ef), classSA(t, 6, "b", "", ef, be))
	want("two classes; other peers and policies mean nothing", voice, video, plain)
	again := classSA(t, 7, "b", "lan", ef)
	install(t, d, again)
	want("one class replaced", again, video, plain)
	if got := pick(d.Load(), "b", "lan", 44, f); got != voice {
		t.Errorf("a code point that the replacement does not name: expected the old SA, seen %v", name(got))
	}
	d.Remove(voice.ID())
	want("the old one gone", again, video, plain)
	if got := pick(d.Load(), "b", "lan", 44, f); got != plain {
		t.Errorf("a code point that no SA names any more: expected the rest's, seen %v", name(got))
	}
	past := d.Load()
	d.Remove(again.ID(), video.ID())
	want("no classes left", plain, plain, plain)
	if _, classes := d.Load().OutboundClasses("b", "lan"); classes != nil {
		t.Error("no SA names a class, and there are classes")
	}
	d.Remove(plain.ID())
	if got := pick(d.Load(), "b", "lan", ef, f); got == nil || got.Policy != "" {
		t.Errorf("the policy's own are gone: expected the one of every policy, seen %v", name(got))
	}
	if got := pick(past, "b", "lan", ef, f); got != again {
		t.Errorf("an older snapshot changed: seen %v", name(got))
	}
}

func name(sa *SA) string {
	if sa == nil {
		return "none"
	}
	return fmt.Sprintf("%s %q %v", sa.ID(), sa.Policy, sa.DSCPs)
}

// An SA that was negotiated narrower than its policy does not carry the rest,
// whatever its class.
func TestClassesKeepToTheSelectorsOfTheirSAs(t *testing.T) {
	r := func(text string) []spd.AddrRange {
		a, err := spd.ParseAddrRange(text)
		if err != nil {
			t.Fatal(err)
		}
		return []spd.AddrRange{a}
	}
	p := outbound(t)
	p.DSCPs, p.Selectors = []uint8{ef}, []spd.Selector{{Local: r("10.1.0.1"), Remote: r("10.2.0.1"), Protocol: spd.ProtocolAny}}
	d := NewDatabase()
	sa := newSA(t, p)
	install(t, d, sa)
	f := packet.Flow{Version: 4, Src: netip.MustParseAddr("10.1.0.1").As16(), Dst: netip.MustParseAddr("10.2.0.1").As16()}
	if got := pick(d.Load(), "site-b", "lan", ef, &f); got != sa {
		t.Errorf("inside its selectors: seen %v", name(got))
	}
	f.Dst = netip.MustParseAddr("10.2.0.2").As16()
	if got := pick(d.Load(), "site-b", "lan", ef, &f); got != nil {
		t.Errorf("outside its selectors: seen %v", name(got))
	}
}

// Random installs and removals, also under one hash, against a plain search.
func TestClassesAgainstAPlainSearch(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	d, f := NewDatabase(), &packet.Flow{}
	var there []*SA // in order of installation
	for step := range 600 {
		if len(there) > 12 || len(there) > 0 && r.IntN(3) == 0 {
			i := r.IntN(len(there))
			d.Retire(there[i])
			there = slices.Delete(there, i, i+1)
		} else {
			var dscps []uint8
			for dscp := range uint8(8) {
				if r.IntN(4) == 0 {
					dscps = append(dscps, dscp)
				}
			}
			sa := classSA(t, step, fmt.Sprint("p", r.IntN(2)), []string{"", "lan"}[r.IntN(2)], dscps...)
			install(t, d, sa)
			there = append(there, sa)
		}
		for _, peer := range []string{"p0", "p1"} {
			for dscp := range uint8(9) {
				if got, want := pick(d.Load(), peer, "lan", dscp, f), plainPick(there, peer, dscp); got != want {
					t.Fatalf("step %d: %s, DSCP %d: expected %v, seen %v", step, peer, dscp, name(want), name(got))
				}
			}
		}
	}
}

func plainPick(sas []*SA, peer string, dscp uint8) (found *SA) {
	for _, policy := range []string{"lan", ""} {
		any, other := false, (*SA)(nil)
		for _, sa := range sas {
			if sa.Peer != peer || sa.Policy != policy {
				continue
			}
			any = true
			switch {
			case slices.Contains(sa.DSCPs, dscp):
				found = sa
			case len(sa.DSCPs) == 0:
				other = sa
			}
		}
		if found != nil {
			return found
		}
		if any {
			return other
		}
	}
	return nil
}

func TestDSCPsThatMakeNoSenseAreRefused(t *testing.T) {
	for want, dscps := range map[string][]uint8{"DSCP 64": {64}, "DSCP 46 stands there twice": {46, 0, 46}} {
		p := outbound(t)
		p.DSCPs = dscps
		wantError(t, p.Validate(), want)
	}
	p := inbound(t)
	p.DSCPs = []uint8{0}
	wantError(t, p.Validate(), "RFC 4301 4.1", "outbound")
	p = outbound(t)
	p.DSCPs, p.Bundle, p.Encap = []uint8{1}, true, EncapNone
	wantError(t, p.Validate(), "bundle")
	p = outbound(t)
	p.DSCPs = []uint8{0, 63}
	if err := p.Validate(); err != nil {
		t.Error(err)
	}
}

// Retire means one SA and not its name.
func TestRetireKnowsTheSAFromItsName(t *testing.T) {
	d := NewDatabase()
	old := classSA(t, 1, "b", "lan")
	install(t, d, old)
	if d.Find(old.ID()) != old || d.Retire(old) != 1 || d.Find(old.ID()) != nil || d.Retire(old) != 0 {
		t.Error("an installed SA: expected to be found, removed once, and gone")
	}
	p := params(t, Outbound, old.SPI, "aes128-sha256", 0x77)
	p.Peer = "b"
	next := newSA(t, p)
	install(t, d, next)
	if generation := d.Load().Generation(); d.Retire(old) != 0 || d.Find(old.ID()) != next || d.Load().Generation() != generation {
		t.Error("another SA under the name of the retired one: expected to stay")
	}
}
