package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/ah"
	"github.com/adit-ipsec/adit/config"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/ctl/controlv1"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// AH, bundles, transport mode and classes, as an operator sees them.

// loadedWhole is testdata/whole-a.yaml with these replacements made.
func loadedWhole(t *testing.T, oldnew ...string) *config.Config {
	t.Helper()
	file := filepath.Join(workplace(t), "whole-a.yaml")
	rewrite(t, file, oldnew...)
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestSAListAndStatusShowWhole holds what `adit sa list` and `adit status` print
// of SAs that were made of a file.
func TestSAListAndStatusShowWhole(t *testing.T) {
	cfg := loadedWhole(t)
	params := cfg.SAParams()
	selector, err := spd.ParseSelector("local=10.1.0.0/24 remote=10.2.0.0/24 protocol=udp remote_ports=53")
	if err != nil {
		t.Fatal(err)
	}
	params[5].Selectors = []spd.Selector{selector} // as if it had been negotiated
	list := &controlv1.ListSAsResponse{}
	for i := range params {
		sa, err := sad.New(params[i])
		if err != nil {
			t.Fatal(err)
		}
		stats := sa.Stats()
		list.Sas = append(list.Sas, viewSA(&stats, 0))
	}
	var b bytes.Buffer
	if err := printSAs(&b, list.GetSas()); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/sa-list-whole.golden", b.String())
	b.Reset()
	if err := printMessage(&b, list.GetSas()[5]); err != nil {
		t.Fatal(err)
	}
	if err := printMessage(&b, list.GetSas()[9]); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/sa-list-whole-json.golden", b.String())
	b.Reset()
	all := kindsOf(params)
	peers := viewPeers(cfg, all, all)
	if err := printPeers(&b, peers); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/status-whole.golden", b.String())
}

// TestPostureOfAHAndBundles: RFC 4302 1 has ESP "also" provide confidentiality, AH
// none. In a bundle ESP says what an observer can read, and without one of the two
// nothing passes.
func TestPostureOfAHAndBundles(t *testing.T) {
	kinds := kindsOf(loadedWhole(t).SAParams())
	of := func(peer string, without ...sad.ID) string {
		mine := map[sad.ID]saKind{}
		for id, kind := range kinds {
			if id.Peer == peer && !slices.Contains(without, id) {
				mine[id] = kind
			}
		}
		return peerPosture(mine)
	}
	for _, c := range []struct {
		peer    string
		without []sad.ID
		want    string
	}{
		{"plain", nil, postureAuthenticated},
		{"plain", []sad.ID{{Direction: sad.Inbound, SPI: 0x1001, Peer: "plain", Protocol: sad.AH}}, postureDown},
		{"bundle", nil, postureEncrypted},
		{"bundle", []sad.ID{{Direction: sad.Outbound, SPI: 0x2002, Peer: "bundle", Protocol: sad.AH}}, postureDown},
		{"bundle", []sad.ID{{Direction: sad.Inbound, SPI: 0x1002, Peer: "bundle", Protocol: sad.ESP}}, postureDown},
		{"host", nil, postureEncrypted},
		{"classes", []sad.ID{{Direction: sad.Outbound, SPI: 0x2005, Peer: "classes"}}, postureEncrypted},
	} {
		if got := of(c.peer, c.without...); got != c.want {
			t.Errorf("%s without %v: got %s, want %s", c.peer, c.without, got, c.want)
		}
	}
}

// TestReloadTouchesOneSAOfABundle: SAs of AH and ESP with one SPI are two.
func TestReloadTouchesOneSAOfABundle(t *testing.T) {
	for _, c := range []struct {
		name   string
		oldnew []string
		remove string
	}{
		{"AH's key", []string{"01005", "02005"}, `out AH SA 0x2002 of peer "bundle"`},
		{"ESP's key", []string{"01003", "02003"}, `out SA 0x2002 of peer "bundle"`},
		{"a class", []string{"[46, 34]", "[46]"}, `out SA 0x2005 of peer "classes"`},
		{"padding", []string{"tfc: 1400", "tfc: mtu"}, `out SA 0x2004 of peer "classes", out SA 0x2005 of peer "classes"`},
		{"where fragments are made", []string{"fragment: after", "fragment: before"}, `out SA 0x2002 of peer "bundle", out AH SA 0x2002 of peer "bundle"`},
		{"static", []string{"static: true", "static: false"}, `out SA 0x2003 of peer "host", in SA 0x1003 of peer "host"`},
	} {
		got := diffSAs(loadedWhole(t).SAParams(), loadedWhole(t, c.oldnew...).SAParams())
		var remove []string
		for _, id := range got.remove {
			remove = append(remove, id.String())
		}
		if strings.Join(remove, ", ") != c.remove || len(got.install) != len(got.remove) {
			t.Errorf("%s: removes %q and installs %d, want %q", c.name, remove, len(got.install), c.remove)
		}
	}
}

// TestReloadRefusesWhatTheEngineIsMadeWith: its sockets, and what it does with
// ICMP.
func TestReloadRefusesWhatTheEngineIsMadeWith(t *testing.T) {
	keys := fixedBy(loadedWhole(t), loadedWhole(t, "path_mtu: ignore", "path_mtu: accept"))
	if len(keys) != 1 || !strings.HasPrefix(keys[0], "icmp (") || !strings.Contains(keys[0], "whole-a.yaml:7:") {
		t.Errorf("icmp: got %q", keys)
	}
	whole := loadedWhole(t)
	before := *whole
	before.Peers = slices.DeleteFunc(slices.Clone(whole.Peers), func(p config.Peer) bool { return p.Name == "plain" || p.Name == "bundle" })
	if keys := fixedBy(&before, whole); len(keys) != 1 || !strings.HasPrefix(keys[0], "listen.raw (") {
		t.Errorf("the first peer with AH: got %q", keys)
	}
	if keys := fixedBy(whole, &before); len(keys) != 0 {
		t.Errorf("the last peer with AH goes: got %q", keys)
	}
}

// TestInnerMTUIsTheLargestThatFits holds innerMTU to the definition, by building
// up from the packet inside: AH alone, ESP alone and AH around ESP, in both
// modes, over both versions of IP.
func TestInnerMTUIsTheLargestThatFits(t *testing.T) {
	for remote, header := range map[string]int{"192.0.2.2": 20, "2001:db8::2": 40} {
		version := 4
		if header == 40 {
			version = 6
		}
		for _, mode := range []sad.Mode{sad.TunnelMode, sad.TransportMode} {
			for _, a := range append(ah.Suites(), 0) {
				for _, s := range append(esp.Suites(), 0) {
					var sas []*sad.Params
					if a != 0 {
						sas = append(sas, &sad.Params{Protocol: sad.AH, AHSuite: a})
					}
					if s != 0 {
						sas = append(sas, &sad.Params{Protocol: sad.ESP, Suite: s})
					}
					if len(sas) == 0 {
						continue
					}
					for _, p := range sas {
						p.Mode, p.Encap, p.Remote, p.Bundle = mode, sad.EncapNone, addrPort(remote), len(sas) == 2
					}
					outer := func(inner int) int {
						if mode == sad.TransportMode {
							inner -= header // its own header stands in front
						}
						if s != 0 {
							inner = s.SealedLen(inner)
						}
						if a != 0 {
							inner += a.HeaderLen(version)
						}
						return header + inner
					}
					what := fmt.Sprintf("%s mode, AH %s, ESP %s to %s", mode, a, s, remote)
					mtu := innerMTU(1500, sas...)
					if full, over := outer(mtu), outer(mtu+1); full > 1500 || over <= 1500 {
						t.Errorf("%s: %d makes outer packets of %d bytes, one more makes %d", what, mtu, full, over)
					}
					if got := innerMTU(header, sas...); got >= 0 {
						t.Errorf("%s: %d in an outer packet that is a header", what, got)
					}
				}
			}
		}
	}
}

// TestTunnelMTUTakesTheTightestPeer: in whole-a.yaml the bundle has the most
// around a packet: 20 of IP, 28 of AH, 8 of ESP, an IV and an ICV of 16 each.
func TestTunnelMTUTakesTheTightestPeer(t *testing.T) {
	path := func(*sad.Params) int { return 1500 }
	mtu, ok := tunnelMTU(loadedWhole(t).SAParams(), path)
	if want := (1500-20-28-8-16-16)/16*16 - 2; !ok || mtu != want {
		t.Errorf("got %d, want %d", mtu, want)
	}
}
