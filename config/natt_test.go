package config

import (
	"slices"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/sad"
)

// peerText is a valid file with more keys of its one peer and of listen.
func peerText(peer, listen string) string {
	return strings.NewReplacer("PEER", peer, "LISTEN", listen).Replace(`version: 1
listen: {LISTEN}
peers:
  - name: b
    address: 192.0.2.2
    keying: manual
    PEER
    sas:
      - {direction: out, spi: 0x2001, suite: null-sha256, integrity_key: "` + strings.Repeat("0102", 16) + `"}
      - {direction: in, spi: 0x1001, suite: null-sha256, integrity_key: "` + strings.Repeat("0304", 16) + `"}
`)
}

// Both SAs of a peer say whether it is followed (RFC 7296 2.23); keepalives are
// asked for by who is behind a NAT, and then the peer is not.
func TestPeerStaticAndBehindNAT(t *testing.T) {
	for text, want := range map[string][2]bool{
		"":                   {false, false},
		"static: false":      {false, false},
		"static: true":       {true, false},
		"nat_keepalive: off": {false, false},
		"nat_keepalive: 20s": {false, true},
	} {
		c, err := Parse("f.yaml", []byte(peerText(text, "")))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range c.SAParams() {
			if got := [2]bool{p.Static, p.BehindNAT}; got != want {
				t.Errorf("%q: %s: static, behind NAT: expected %v, seen %v", text, p.ID(), want, got)
			}
			if err := p.Validate(); err != nil && p.Direction == sad.Inbound {
				t.Errorf("%q: %v", text, err)
			}
		}
	}
	if _, err := Parse("f.yaml", []byte(peerText("static: maybe", ""))); err == nil || !strings.Contains(err.Error(), "peers[0].static") {
		t.Errorf("static: maybe: expected an error that names the key, seen %v", err)
	}
}

// A raw socket may be opened unless the file says off, whether or not a peer
// needs one: what it receives is accepted at any time (RFC 7296 2.23).
func TestListenRawAllowed(t *testing.T) {
	var got []bool
	for _, text := range []string{"", "raw: auto", "raw: off"} {
		c, err := Parse("f.yaml", []byte(peerText("", text)))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, c.RawAllowed, c.Listen.Raw)
	}
	if want := []bool{true, false, true, false, false, false}; !slices.Equal(got, want) {
		t.Errorf("allowed, needed: expected %v, seen %v", want, got)
	}
}
