package ike

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/internal/pki"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

var update = flag.Bool("update", false, "write the transcripts anew")

// transcripts are the runs whose verbose logs are golden files: what each end says,
// hears and does, in order, with nothing random in it.
var transcripts = []struct {
	name   string
	change func(a, b *Peer)
	play   func(r *rig, a, b *end)
}{
	{"handshake-psk", nil, func(r *rig, a, _ *end) { bringUp(r, a) }},
	{"handshake-certificates", func(a, b *Peer) {
		root, err := pki.New(pki.Options{Key: pki.RSA2048, Name: "test root", From: epoch.Add(-time.Hour)})
		if err != nil {
			panic(err)
		}
		for name, p := range map[string]*Peer{"a.example.net": a, "b.example.net": b} {
			e, err := root.Issue(pki.Options{Key: pki.RSA2048, Name: name, DNS: []string{name}, From: epoch.Add(-time.Hour)})
			if err != nil {
				panic(err)
			}
			p.Auth.Chain, p.Auth.Signer, p.Auth.PSK = e.Chain(), e.Key, nil
			p.Remotely.PSK, p.Remotely.Trust = nil, append(p.Remotely.Trust, root.Cert)
		}
	}, func(r *rig, a, _ *end) { bringUp(r, a) }},
	{"handshake-mlkem", func(a, b *Peer) {
		a.Proposals = must(wire.ProtocolIKE, "aes256gcm16-prfsha384-x25519-ke1_mlkem768")
		b.Proposals = a.Proposals
	}, func(r *rig, a, _ *end) { bringUp(r, a) }},
	{"handshake-cookie-and-group", func(a, b *Peer) {
		a.Proposals = must(wire.ProtocolIKE, "aes128gcm16-prfsha256-x25519-ecp256")
		b.Proposals = must(wire.ProtocolIKE, "aes128gcm16-prfsha256-ecp256")
	}, func(r *rig, a, b *end) {
		b.m.limits.CookieHalfOpen = -1
		bringUp(r, a)
	}},
	{"handshake-ppk", func(a, b *Peer) {
		a.PPK = auth.PPK{ID: []byte("ppk1"), Key: sad.Key("0123456789abcdef0123456789abcdef")}
		b.PPK = a.PPK
	}, func(r *rig, a, _ *end) { bringUp(r, a) }},
	{"handshake-nat", func(_, b *Peer) { b.Remote = netip.Addr{} }, func(r *rig, a, _ *end) {
		r.nat = (&napt{inside: addrA, outside: netip.MustParseAddr("198.51.100.99"), base: 20000}).translate
		bringUp(r, a)
	}},
	{"handshake-loss", nil, func(r *rig, a, _ *end) {
		r.fate = func(d *datagram) []time.Duration {
			if d.seq <= 4 {
				return nil
			}
			return []time.Duration{r.latency}
		}
		bringUp(r, a)
	}},
	{"wrong-psk", func(_, b *Peer) { b.Remotely.PSK = sad.Key("another secret of the same kind") }, func(r *rig, a, _ *end) { bringUp(r, a) }},
	{"wrong-identity", func(a, _ *Peer) { a.Auth.ID.Data = []byte("c.example.net") }, func(r *rig, a, _ *end) { bringUp(r, a) }},
	{"no-proposal", func(_, b *Peer) {
		b.Proposals = must(wire.ProtocolIKE, "aes256gcm16-prfsha384-ecp384")
	}, func(r *rig, a, _ *end) { bringUp(r, a) }},
	{"no-selectors", func(_, b *Peer) {
		b.Children[0].Selectors = []spd.Selector{network("10.9.0.0/24", "10.8.0.0/24")}
	}, func(r *rig, a, _ *end) { bringUp(r, a) }},
	{"rekey", nil, func(r *rig, a, b *end) {
		bringUp(r, a)
		a.step(Rekey{Peer: "B", Policy: "lan"})
		r.run(10 * time.Second)
		b.step(Rekey{Peer: "A"})
		r.run(10 * time.Second)
	}},
	{"delete", nil, func(r *rig, a, b *end) {
		bringUp(r, a)
		b.step(Terminate{Peer: "A", Policy: "lan"})
		r.run(time.Second)
		a.step(Terminate{Peer: "B"})
		r.run(time.Minute)
	}},
	{"liveness", func(a, _ *Peer) { a.DPD = 10 * time.Second }, func(r *rig, a, _ *end) {
		bringUp(r, a)
		r.run(15 * time.Second)
		r.fate = func(*datagram) []time.Duration { return nil }
		r.run(2 * time.Minute)
	}},
	{"responder-only", func(a, _ *Peer) { a.Role = ResponderOnly }, func(r *rig, a, b *end) {
		a.step(Acquire{Peer: "B", Policy: "lan"})
		a.step(Initiate{Peer: "B"})
		bringUp(r, b)
	}},
}

func bringUp(r *rig, e *end) {
	for _, name := range e.m.names {
		e.step(Initiate{Peer: name})
	}
	r.run(5 * time.Second)
}

func must(protocol wire.ProtocolID, keyword string) []proposal.Proposal {
	p, err := proposal.Parse(protocol, keyword, false)
	if err != nil {
		panic(err)
	}
	return []proposal.Proposal{p}
}

// TestTranscripts compares each run with its golden file.
func TestTranscripts(t *testing.T) {
	for _, c := range transcripts {
		t.Run(c.name, func(t *testing.T) {
			r, a, b := pair(t, c.change)
			var text strings.Builder
			for _, e := range []*end{a, b} {
				e.step(Verbose{On: true})
				e.heard = func(what string) {
					fmt.Fprintf(&text, "%8.3fs %s  %s\n", r.now.Seconds(), e.name, what)
				}
			}
			c.play(r, a, b)
			got := text.String()
			file := filepath.Join("testdata", c.name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("another course than %s (-update writes it anew):\n%s", file, got)
			}
			if strings.Contains(got, testPSK) {
				t.Error("a secret is in the transcript")
			}
		})
	}
}
