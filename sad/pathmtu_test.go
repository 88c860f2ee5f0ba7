package sad

import (
	"net/netip"
	"testing"
	"time"
)

// step is one thing that an SA is told of its path, and what it knows then.
type step struct {
	mtu    int
	source MTUSource
	lower  bool // by LowerPathMTU
	want   int
	from   MTUSource
}

func TestPathMTUFollowsWhatIsSaid(t *testing.T) {
	for name, steps := range map[string][]step{
		"nothing":                 {{0, MTULink, false, 0, MTUUnknown}},
		"the link":                {{1500, MTULink, false, 1500, MTULink}, {9000, MTULink, false, 9000, MTULink}, {0, MTULink, false, 0, MTUUnknown}},
		"a router":                {{1500, MTULink, false, 1500, MTULink}, {1400, MTUICMP, true, 1400, MTUICMP}, {1300, MTUICMP, true, 1300, MTUICMP}},
		"a router cannot raise":   {{1400, MTUICMP, true, 1400, MTUICMP}, {1401, MTUICMP, true, 1400, MTUICMP}, {1400, MTUICMP, true, 1400, MTUICMP}},
		"nor above the link":      {{1400, MTULink, false, 1400, MTULink}, {1500, MTUICMP, true, 1400, MTULink}, {1500, MTUProbe, false, 1400, MTUProbe}},
		"a probe may raise":       {{1500, MTULink, false, 1500, MTULink}, {1300, MTUICMP, true, 1300, MTUICMP}, {1420, MTUProbe, false, 1420, MTUProbe}},
		"the link becomes narrow": {{1500, MTULink, false, 1500, MTULink}, {1420, MTUProbe, false, 1420, MTUProbe}, {1400, MTULink, false, 1400, MTULink}},
		"C-I01, the floor":        {{68, MTUICMP, true, 576, MTUICMP}, {100, MTUICMP, true, 576, MTUICMP}},
		"the ceiling":             {{1 << 20, MTUProbe, false, 65535, MTUProbe}},
	} {
		sa := newSA(t, outbound(t))
		for i, s := range steps {
			if s.lower {
				before := sa.PathMTU()
				if changed := sa.LowerPathMTU(s.mtu, s.source, 0); changed != (sa.PathMTU() != before) {
					t.Errorf("%s, step %d: LowerPathMTU said %v", name, i, changed)
				}
			} else {
				sa.SetPathMTU(s.mtu, s.source, 0)
			}
			is := sa.PathMTU()
			if is.MTU != s.want || is.Source != s.from {
				t.Errorf("%s, step %d: %v; expected %d (%s)", name, i, is, s.want, s.from)
			}
			longest := sa.longestOuter()
			if is.MTU > 0 {
				longest = is.MTU
			}
			if is.Inner != sa.InnerMTU() || is.Inner != sa.MaxInner(longest) {
				t.Errorf("%s, step %d: inner %d; expected %d", name, i, is.Inner, sa.MaxInner(longest))
			}
		}
	}
}

func TestRFC8201_4_NothingBelow1280OverIPv6(t *testing.T) {
	p := outbound(t)
	p.Local, p.Remote = netip.AddrPort{}, netip.MustParseAddrPort("[2001:db8::2]:4500")
	sa := newSA(t, p)
	if !sa.LowerPathMTU(68, MTUICMP, 0) || sa.PathMTU().MTU != 1280 {
		t.Errorf("%v; expected 1280", sa.PathMTU())
	}
	if sa.LowerPathMTU(1279, MTUICMP, 0) {
		t.Error("it was lowered twice")
	}
}

func TestRFC1191_6_3_WhatWasLearnedAges(t *testing.T) {
	sa := newSA(t, outbound(t))
	sa.SetPathMTU(1500, MTULink, 1)
	if sa.AgePathMTU(int64(time.Hour), time.Minute) {
		t.Error("the link's MTU aged")
	}
	sa.SetPathMTU(1300, MTUICMP, int64(time.Hour))
	if sa.AgePathMTU(int64(time.Hour+time.Minute)-1, time.Minute) || sa.PathMTU().MTU != 1300 {
		t.Error("it aged too early")
	}
	if !sa.AgePathMTU(int64(time.Hour+time.Minute), time.Minute) || sa.PathMTU() != (PathMTU{1500, MTULink, time.Hour + time.Minute, sa.MaxInner(1500), 1500}) {
		t.Errorf("it did not age: %+v", sa.PathMTU())
	}
}

// For every suite and way out, MaxInner and OuterLen are each other's inverse.
func TestMaxInnerIsExact(t *testing.T) {
	for _, remote := range []string{"192.0.2.2:4500", "[2001:db8::2]:4500"} {
		for _, encap := range []Encapsulation{EncapUDP, EncapNone} {
			for _, name := range []string{"aes128gcm16", "aes128gcm8", "chacha20poly1305", "aes256-sha512", "aes128ctr-sha1", "null-sha256", "aes128gmac"} {
				p := params(t, Outbound, 0x2001, name, 1)
				p.Local, p.Remote, p.Encap = netip.AddrPort{}, netip.MustParseAddrPort(remote), encap
				sa := newSA(t, p)
				for outer := 576; outer < 1600; outer++ {
					n := sa.MaxInner(outer)
					if sa.OuterLen(n) > outer || sa.OuterLen(n+1) <= outer {
						t.Fatalf("%s over %s to %s: %d bytes in %d: they make %d, one more %d", name, encap, remote, n, outer, sa.OuterLen(n), sa.OuterLen(n+1))
					}
				}
			}
		}
	}
}

func TestPathMTUInWords(t *testing.T) {
	for m, want := range map[PathMTU]string{
		{}: "unknown", {MTU: 1500, Source: MTULink}: "1500 (link)", {MTU: 1280, Source: MTUKernel}: "1280 (kernel)",
		{MTU: 1400, Source: MTUICMP}: "1400 (icmp)", {MTU: 1420, Source: MTUProbe}: "1420 (probe)",
	} {
		if got := m.String(); got != want {
			t.Errorf("%q; expected %q", got, want)
		}
	}
}

func TestSentLong(t *testing.T) {
	sa := newSA(t, outbound(t))
	if sa.SentLong(0) {
		t.Error("before its first packet")
	}
	sa.Touch(5, 10, 10*300)
	if sa.SentLong(5) {
		t.Error("packets of 300 bytes are long")
	}
	sa.Touch(6, 10, 10*500)
	if !sa.SentLong(6) || sa.SentLong(7) {
		t.Error("packets of 500 bytes at 6, and none since, expected")
	}
}

// A peer that has moved to another address is at the end of another path; another
// port is the same path. Another family's headers count.
func TestAMoveForgetsThePath(t *testing.T) {
	p := outbound(t)
	p.Local = netip.AddrPort{}
	sa := newSA(t, p)
	sa.SetPathMTU(1500, MTULink, 0)
	sa.SetPathMTU(1300, MTUProbe, 0)
	sa.put(netip.MustParseAddrPort("192.0.2.2:61000"))
	if is := sa.PathMTU(); is.MTU != 1300 {
		t.Errorf("another port: %v", is)
	}
	before := sa.MaxInner(1500)
	sa.put(netip.MustParseAddrPort("[2001:db8::9]:61000"))
	if is := sa.PathMTU(); is.MTU != 1500 || is.Source != MTULink || is.Inner != before-20 || is.Inner != sa.InnerMTU() {
		t.Errorf("another address: %+v; expected 1500 (link) and %d inside", is, before-20)
	}
}
