package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/config"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/sad"
)

// loaded is testdata/site-a.yaml with these replacements made.
func loaded(t *testing.T, oldnew ...string) *config.Config {
	t.Helper()
	file := filepath.Join(workplace(t), "site-a.yaml")
	rewrite(t, file, oldnew...)
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestReloadTouchesOnlySAsThatChanged(t *testing.T) {
	for _, c := range []struct {
		name            string
		oldnew          []string
		remove, install string
	}{
		{"nothing", nil, "", ""},
		{"a comment", []string{"version: 1", "version: 1 # same"}, "", ""},
		{"a name and a policy", []string{"name: site-a", "name: other", "10.9.0.0/16", "10.8.0.0/15"}, "", ""},
		{"one encryption key", []string{"0001", "0011"}, "out 0x2001 site-b", "out 0x2001 site-b"},
		{"one integrity key", []string{"0006", "0016"}, "in 0x1002 phones", "in 0x1002 phones"},
		{"an SPI", []string{"0x2002", "0x2003"}, "out 0x2002 phones", "out 0x2003 phones"},
		{"a suite", []string{"spi: 0x1002, suite: null-sha256", "spi: 0x1002, suite: null-sha512", "0006", strings.Repeat("0", 64) + "0006"}, "in 0x1002 phones", "in 0x1002 phones"},
		{"a peer's address", []string{"203.0.113.9", "203.0.113.10"}, "out 0x2002 phones, in 0x1002 phones", "out 0x2002 phones, in 0x1002 phones"},
		{"a profile", []string{"replay_window: 1024", "replay_window: 2048"}, "in 0x1002 phones", "in 0x1002 phones"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := diffSAs(loaded(t).SAParams(), loaded(t, c.oldnew...).SAParams())
			var remove, install, back []string
			for _, id := range got.remove {
				remove = append(remove, fmt.Sprintf("%s 0x%x %s", id.Direction, id.SPI, id.Peer))
			}
			for _, p := range got.install {
				install = append(install, fmt.Sprintf("%s 0x%x %s", p.Direction, p.SPI, p.Peer))
			}
			for _, p := range got.back {
				back = append(back, fmt.Sprintf("%s 0x%x %s", p.Direction, p.SPI, p.Peer))
			}
			if strings.Join(remove, ", ") != c.remove || strings.Join(install, ", ") != c.install {
				t.Errorf("removes %q and installs %q, want %q and %q", remove, install, c.remove, c.install)
			}
			if strings.Join(back, ", ") != c.remove {
				t.Errorf("could put back %q, want %q", back, c.remove)
			}
		})
	}
}

func TestReloadRefusesWhatItCannotChange(t *testing.T) {
	for _, c := range []struct{ key, old, new string }{
		{"tun", "adit7", "adit8"},
		{"tun", "10.1.0.1/32", "10.1.0.2/32"},
		{"tun", "name: adit7", "name: adit7, offload: off"},
		{"tun", "name: adit7", "name: adit7, queues: 1"},
		{"listen", "listen: {address: 192.0.2.1}", "listen: {address: 192.0.2.1, natt_port: 4501}"},
		{"state_dir", "/var/lib/adit-a", "/var/lib/other"},
		{"control", "/run/adit-a/adit.sock", "/run/other.sock"},
	} {
		keys := fixedBy(loaded(t), loaded(t, c.old, c.new))
		if len(keys) != 1 || !strings.HasPrefix(keys[0], c.key+" (") || !strings.Contains(keys[0], "site-a.yaml:") {
			t.Errorf("%s -> %s: got %q, want %s with its place", c.old, c.new, keys, c.key)
		}
	}
	// The first peer without UDP, and the last one: nobody has touched listen.
	udp := []string{"default: {encap: none}", "default: {encap: udp}"}
	for _, keys := range [][]string{fixedBy(loaded(t, udp...), loaded(t)), fixedBy(loaded(t), loaded(t, udp...))} {
		if len(keys) != 1 || !strings.HasPrefix(keys[0], "listen.raw (") || !strings.Contains(keys[0], "`encap`") {
			t.Errorf("encap: got %q, want listen.raw and what it follows from", keys)
		}
	}
	if keys := fixedBy(loaded(t), loaded(t)); len(keys) != 0 {
		t.Errorf("the same file: got %q", keys)
	}
}

// TestTunnelMTUIsTheLargestThatFits holds the MTU to the definition, by trying.
func TestTunnelMTUIsTheLargestThatFits(t *testing.T) {
	for _, suite := range esp.Suites() {
		for _, encap := range []sad.Encapsulation{sad.EncapUDP, sad.EncapNone} {
			for address, header := range map[string]int{"192.0.2.2": 20, "2001:db8::2": 40} {
				cfg := loaded(t)
				p := cfg.SAParams()[:1]
				p[0].Suite, p[0].Encap = suite, encap
				p[0].Remote = addrPort(address)
				if encap == sad.EncapUDP {
					header += 8
				}
				mtu, ok := tunnelMTU(p, func(*sad.Params) int { return 1500 })
				if full, over := suite.SealedLen(mtu)+header, suite.SealedLen(mtu+1)+header; !ok || full > 1500 || over <= 1500 {
					t.Errorf("%s %s to %s: MTU %d makes outer packets of %d bytes, one more makes %d", suite, encap, address, mtu, full, over)
				}
			}
		}
	}
	if _, ok := tunnelMTU(nil, nil); ok {
		t.Error("an MTU without any SA")
	}
}
