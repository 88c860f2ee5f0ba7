package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/internal/netlab"
)

// TestRootOffloadFollowsTheFile: with auto, everything that this kernel has is
// active, and superpackets are on the TUN and the wire; with off nothing is, status
// says why, and no packet is longer than its link takes. TCP passes both ways in both.
func TestRootOffloadFollowsTheFile(t *testing.T) {
	for _, word := range []string{"auto", "off"} {
		t.Run(word, func(t *testing.T) {
			s := newSitesOn(t, netlab.Options{Offloads: true}, "aes128gcm16", "udp")
			for _, site := range []*demoSite{&s.a, &s.b} {
				rewrite(t, site.File, "name: adit0", "name: adit0\n  offload: "+word)
			}
			a, b := s.start(t, s.A.Gateway, &s.a), s.start(t, s.B.Gateway, &s.b)
			links := map[string]*netlab.Capture{
				"the TUN":  mustCapture(t, s.A.Gateway, "adit0"),
				"the wire": mustCapture(t, s.Router, s.A.RouterIface),
			}
			s.mustPing(t, "offload "+word, a, b)
			s.mustTransfer(t, s.A.Host, s.B.Host, s.B.Host4)
			s.mustTransfer(t, s.B.Host, s.A.Host, s.A.Host6)
			for name, capture := range links {
				longest := 0
				for _, p := range capture.IPPackets() {
					longest = max(longest, len(p))
				}
				if super := longest > 1500; super != (word == "auto") {
					t.Errorf("the longest packet on %s had %d bytes; the MTU is at most 1500", name, longest)
				}
			}
			for _, site := range []*demoSite{&s.a, &s.b} {
				checkOffloads(t, site, word == "auto")
			}
		})
	}
}

func mustCapture(t *testing.T, node *netlab.Node, iface string) *netlab.Capture {
	t.Helper()
	capture, err := node.Capture(netlab.CaptureOptions{Iface: iface})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := capture.Close(); err != nil {
			t.Error(err)
		}
	})
	return capture
}

func (s *sites) mustTransfer(t *testing.T, from, to *netlab.Node, address netip.Addr) {
	t.Helper()
	result, err := netlab.TCPTransfer(t.Context(), from, to, netlab.TransferOptions{To: netip.AddrPortFrom(address, 0)})
	if err != nil || !result.Intact() {
		t.Errorf("TCP to %s: intact %t, %v", address, result.Intact(), err)
	}
}

// TestRootSeveralQueues: with four queues TCP passes both ways over flows that
// the kernel spreads, nothing is dropped as a replay, and the sockets are shared.
func TestRootSeveralQueues(t *testing.T) {
	s := newSitesOn(t, netlab.Options{Offloads: true}, "aes128gcm16", "udp")
	for _, site := range []*demoSite{&s.a, &s.b} {
		rewrite(t, site.File, "name: adit0", "name: adit0\n  queues: 4")
	}
	a, b := s.start(t, s.A.Gateway, &s.a), s.start(t, s.B.Gateway, &s.b)
	s.mustPing(t, "four queues", a, b)
	for range 4 { // each has another port, and so another hash
		s.mustTransfer(t, s.A.Host, s.B.Host, s.B.Host4)
		s.mustTransfer(t, s.B.Host, s.A.Host, s.A.Host6)
	}
	for _, site := range []*demoSite{&s.a, &s.b} {
		for _, drop := range statusOf(t, site).Drops {
			if drop.Value != "0" && drop.Name != "OutDiscard" { // the host's own multicast
				t.Errorf("%s: %s is %s, want 0", site.File, drop.Name, drop.Value)
			}
		}
	}
}

// TestRootRefusedSuperpacketsAreCounted: the link becomes too small for what the
// gateway sends. The kernel refuses superpackets then, their packets pass one by
// one, in fragments, and status and counters say so.
func TestRootRefusedSuperpacketsAreCounted(t *testing.T) {
	s := newSitesOn(t, netlab.Options{Offloads: true}, "aes128gcm16", "udp")
	rewrite(t, s.a.File, "encap: udp", "encap: udp\n    df: clear")
	s.start(t, s.A.Gateway, &s.a)
	s.start(t, s.B.Gateway, &s.b)
	if err := s.A.Gateway.SetMTU(netlab.OutsideIface, 1300); err != nil {
		t.Fatal(err)
	}
	s.mustTransfer(t, s.A.Host, s.B.Host, s.B.Host4)
	refused := statusOf(t, &s.a).Offloads[4]
	if refused.Name != "udp-send" || !refused.Active || *refused.Fallbacks == 0 {
		t.Errorf("status has %+v, want udp-send, active, and fallbacks", refused)
	}
	for command, want := range map[string]string{
		"status":   fmt.Sprintf(" UDP send: the kernel refused %s ", count(int(*refused.Fallbacks), "superpacket", "superpackets")),
		"counters": fmt.Sprintf(" OffloadFallbacks %d ", *refused.Fallbacks),
	} {
		if stdout, stderr, _ := adit(t, command, "-c", s.a.File); !strings.Contains(strings.Join(strings.Fields(stdout), " "), want) {
			t.Errorf("%s lacks %q:\n%s%s", command, want, stdout, stderr)
		}
	}
}

type offloadStatus struct {
	Offloads []struct {
		Name      string
		Active    bool
		Why       string
		Fallbacks *uint64
	}
	Drops []struct {
		Name  string
		Value json.Number
	}
}

func statusOf(t *testing.T, site *demoSite) (status offloadStatus) {
	t.Helper()
	stdout, stderr, code := adit(t, "status", "--json", "-c", site.File)
	if err := json.Unmarshal([]byte(stdout), &status); code != exitDone || err != nil || len(status.Offloads) != 6 {
		t.Fatalf("exit code %d, %v: %s%s", code, err, stdout, stderr)
	}
	return status
}

// checkOffloads holds what `adit status` says after traffic, in both forms.
func checkOffloads(t *testing.T, site *demoSite, active bool) {
	t.Helper()
	why, text := "", "Offload   TUN read tcp udp, write tcp udp; UDP send, receive\n"
	if !active {
		why = "tun.offload is off"
		text = "Offload   none\n          not TUN read tcp udp, write tcp udp; UDP send, receive: tun.offload is off\n"
	}
	var names []string
	for _, o := range statusOf(t, site).Offloads {
		names = append(names, o.Name)
		if o.Active != active || o.Why != why || o.Fallbacks == nil || *o.Fallbacks != 0 {
			t.Errorf("%s: %s: got active %t, %q, want %t, %q, no fallbacks", site.Name, o.Name, o.Active, o.Why, active, why)
		}
	}
	if got := strings.Join(names, " "); got != "tun-read-tcp tun-read-udp tun-write-tcp tun-write-udp udp-send udp-receive" {
		t.Errorf("%s has the offloads %s", site.Name, got)
	}
	if stdout, stderr, _ := adit(t, "status", "-c", site.File); !strings.Contains(stdout, text) {
		t.Errorf("status of %s lacks %q:\n%s%s", site.Name, text, stdout, stderr)
	}
}
