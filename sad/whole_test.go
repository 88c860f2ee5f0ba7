package sad

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/ah"
	"github.com/adit-ipsec/adit/esp"
)

// paramsAH are params of AH with sha256.
func paramsAH(t testing.TB, dir Direction, spi uint32) Params {
	t.Helper()
	suite, err := ah.ParseSuite("sha256")
	if err != nil {
		t.Fatal(err)
	}
	p := Params{
		Direction: dir, Protocol: AH, SPI: spi, Peer: "site-b", AHSuite: suite, IntegrityKey: make(Key, suite.KeyLen()), Encap: EncapNone,
		Local: netip.MustParseAddrPort("192.0.2.1:0"), Remote: netip.MustParseAddrPort("198.51.100.2:0"),
	}
	p.IntegrityKey[0], p.IntegrityKey[1] = byte(spi), byte(dir)+1
	if dir == Inbound {
		p.ReplayWindow = 64
	}
	return p
}

func TestWhatAHTakes(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Params)
		want   string // "": it is taken
	}{
		"as it is":                 {func(*Params) {}, ""},
		"transport mode":           {func(p *Params) { p.Mode = TransportMode }, ""},
		"one of a bundle":          {func(p *Params) { p.Bundle = true }, ""},
		"RFC 3715 2.1: over UDP":   {func(p *Params) { p.Encap = EncapUDP }, "a NAT changes"},
		"an encryption key":        {func(p *Params) { p.EncryptionKey = make(Key, 16) }, "AH does not encrypt"},
		"a key too short":          {func(p *Params) { p.IntegrityKey = p.IntegrityKey[1:] }, "sha256 takes 32"},
		"a suite of ESP":           {func(p *Params) { p.Suite = esp.Suites()[0] }, "a suite of ESP"},
		"no suite":                 {func(p *Params) { p.AHSuite = 0 }, "no suite of AH"},
		"no local address":         {func(p *Params) { p.Local = netip.AddrPort{} }, "AH covers it"},
		"any local address":        {func(p *Params) { p.Local = netip.MustParseAddrPort("0.0.0.0:0") }, "AH covers it"},
		"an unknown protocol":      {func(p *Params) { p.Protocol = 2 }, "no suite"},
		"an unknown mode":          {func(p *Params) { p.Mode = 2 }, "mode 2"},
		"RFC 3948 3.1.2 on raw IP": {func(p *Params) { p.OriginalLocal, p.OriginalRemote = p.Local.Addr(), p.Remote.Addr() }, "nothing else needs them"},
		"RFC 8221 4: GMAC, no store": {func(p *Params) {
			p.AHSuite, _ = ah.ParseSuite("aes128gmac")
			p.IntegrityKey = make(Key, p.AHSuite.KeyLen())
		}, "never use a number twice"},
	} {
		p := paramsAH(t, Outbound, 0x2001)
		c.change(&p)
		_, err := New(p)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: expected an error with %q, saw %v", name, c.want, err)
		}
	}
}

func TestTransportModeNeedsItsOwnAddress(t *testing.T) {
	p := outbound(t)
	p.Mode, p.Local = TransportMode, netip.AddrPort{}
	if _, err := New(p); err == nil || !strings.Contains(err.Error(), "no local address") {
		t.Errorf("without a local address: expected an error that says so, saw %v", err)
	}
	p.Local = netip.MustParseAddrPort("192.0.2.1:4500")
	p.OriginalLocal = netip.MustParseAddr("10.0.0.1")
	if _, err := New(p); err == nil || !strings.Contains(err.Error(), "one original address of two") {
		t.Errorf("with one original address: expected an error that says so, saw %v", err)
	}
	p.OriginalRemote = netip.MustParseAddr("10.0.9.1")
	sa, err := New(p)
	if err != nil {
		t.Fatal(err)
	}
	if !sa.Whole() {
		t.Error("Whole: expected true in transport mode")
	}
}

// RFC 4301 4.1: the SA is found by the SPI or by the SPI plus the protocol; here
// AH and ESP have number spaces of their own.
func TestRFC4301_4_1_AHAndESPMayShareAnSPI(t *testing.T) {
	d := NewDatabase()
	of := func(p Protocol) *SA {
		params := inbound(t)
		if p == AH {
			params = paramsAH(t, Inbound, params.SPI)
		}
		return newSA(t, params)
	}
	inESP, inAH := of(ESP), of(AH)
	install(t, d, inESP, inAH)
	if got := d.Load().Inbound(inESP.SPI); got != inESP {
		t.Errorf("Inbound: expected %s, saw %v", inESP.ID(), got)
	}
	if got := d.Load().InboundAH(inESP.SPI); got != inAH {
		t.Errorf("InboundAH: expected %s, saw %v", inAH.ID(), got)
	}
	again := paramsAH(t, Inbound, inAH.SPI)
	again.Peer, again.IntegrityKey[5] = "site-c", 1
	if err := d.Install(newSA(t, again)); !errors.Is(err, ErrDuplicate) {
		t.Errorf("a second AH SA with the SPI: expected %v, saw %v", ErrDuplicate, err)
	}
	old := d.Load()
	if n := d.Remove(inAH.ID()); n != 1 {
		t.Fatalf("Remove: expected 1, saw %d", n)
	}
	if s := d.Load(); s.InboundAH(inAH.SPI) != nil || s.Inbound(inESP.SPI) != inESP || old.InboundAH(inAH.SPI) != inAH {
		t.Error("after Remove: expected AH gone, ESP there, and the old snapshot as it was")
	}
	count := 0
	for range old.All() {
		count++
	}
	if count != 2 {
		t.Errorf("All: expected 2 SAs, saw %d", count)
	}
}

func TestABundleIsFoundByItsTwoHalves(t *testing.T) {
	d := NewDatabase()
	p := outbound(t)
	p.Bundle, p.Encap, p.Local = true, EncapNone, netip.MustParseAddrPort("192.0.2.1:0")
	inner := newSA(t, p)
	q := paramsAH(t, Outbound, p.SPI)
	q.Bundle = true
	outer := newSA(t, q)
	install(t, d, inner, outer)
	if s := d.Load(); s.Outbound("site-b", "lan") != inner || s.OutboundAH(inner) != outer {
		t.Errorf("expected the ESP SA first and the AH SA around it, saw %v and %v", s.Outbound("site-b", "lan"), s.OutboundAH(inner))
	}
	alone := paramsAH(t, Outbound, p.SPI+1)
	install(t, d, newSA(t, alone))
	if s := d.Load(); s.Outbound("site-b", "lan").Protocol != AH || s.OutboundAH(inner) != outer {
		t.Error("an SA of AH that is no part of a bundle: expected it to be found like one of ESP")
	}
}

// The SA of AH for every policy is not the other half of a policy's own ESP: the
// peer pairs them by policy, and would refuse it.
func TestABundleIsOfOnePolicy(t *testing.T) {
	d := NewDatabase()
	p := outbound(t)
	p.Bundle, p.Encap, p.Local, p.Policy = true, EncapNone, netip.MustParseAddrPort("192.0.2.1:0"), "lan"
	inner := newSA(t, p)
	q := paramsAH(t, Outbound, p.SPI)
	q.Bundle = true
	install(t, d, inner, newSA(t, q))
	if got := d.Load().OutboundAH(inner); got != nil {
		t.Errorf("expected no AH for the policy's own SA, saw %s", got.ID())
	}
}

// GMAC in AH and in ESP draw their nonces from one space under one key.
func TestGMACKeyIDIsTheSameInAHAndESP(t *testing.T) {
	inAH := paramsAH(t, Outbound, 0x2001)
	inAH.AHSuite, _ = ah.ParseSuite("aes128gmac")
	inAH.IntegrityKey = Key("0123456789abcdefsalt")
	inESP := Params{EncryptionKey: inAH.IntegrityKey}
	if inAH.KeyID() != inESP.KeyID() {
		t.Error("expected one KeyID for the same AES key and salt, saw two")
	}
}
