package site

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

// whole is a configuration of two gateways whose packets are made with their IP
// header.
type whole struct {
	protocol, mode, encap string
	v6                    bool // outside
}

func (w whole) String() string {
	family := "IPv4"
	if w.v6 {
		family = "IPv6"
	}
	return fmt.Sprintf("%s %s %s over %s", w.protocol, w.mode, w.encap, family)
}

func (w whole) outside(s *netlab.Side) netip.Addr {
	if w.v6 {
		return s.Outside6
	}
	return s.Outside4
}

// keys are of one direction: ESP's two and AH's.
type keys struct{ enc, integ, ah string }

func newKeys() keys {
	text := func(n int) string {
		b := make([]byte, n)
		_, _ = rand.Read(b)
		return hex.EncodeToString(b)
	}
	return keys{text(16), text(32), text(32)}
}

func (w whole) config(name string, own, peer *netlab.Side, out, in keys, outSPI, inSPI int) string {
	local, remote := fmt.Sprintf("%s, %q", own.LAN4, own.LAN6), fmt.Sprintf("%s, %q", peer.LAN4, peer.LAN6)
	if w.mode == "transport" {
		local, remote = fmt.Sprintf("%q", w.outside(own)), fmt.Sprintf("%q", w.outside(peer))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\nname: %s\nstate_dir: $STATE\ncontrol: $CONTROL\nlisten: {address: %q, outside: [%s]}\n", name, w.outside(own), netlab.OutsideIface)
	fmt.Fprintf(&b, "profiles:\n  default: {protocol: %s, mode: %s, encap: %s}\n", w.protocol, w.mode, w.encap)
	fmt.Fprintf(&b, "peers:\n  - name: peer\n    address: %q\n    keying: manual\n    sas:\n", w.outside(peer))
	for _, d := range []struct {
		direction string
		spi       int
		keys      keys
	}{{"out", outSPI, out}, {"in", inSPI, in}} {
		if w.protocol != "ah" {
			fmt.Fprintf(&b, "      - {direction: %s, protocol: esp, spi: 0x%x, suite: aes128-sha256, encryption_key: %q, integrity_key: %q}\n", d.direction, d.spi, d.keys.enc, d.keys.integ)
		}
		if w.protocol != "esp" {
			fmt.Fprintf(&b, "      - {direction: %s, protocol: ah, spi: 0x%x, suite: sha256, integrity_key: %q}\n", d.direction, d.spi, d.keys.ah)
		}
	}
	fmt.Fprintf(&b, "policies:\n  - {name: all, local: [%s], remote: [%s], action: protect, peer: peer}\n", local, remote)
	return b.String()
}

// AH, bundles and transport mode between the real gateways, over a router: ping,
// TCP and UDP cross both ways, and the wire sees the protocol that it should.
func TestRootAHBundlesAndTransportModeCross(t *testing.T) {
	for _, w := range []whole{
		{"ah", "tunnel", "none", false},
		{"ah", "tunnel", "none", true},
		{"ah+esp", "tunnel", "none", false},
		{"esp", "transport", "none", false},
		{"esp", "transport", "udp", false},
		{"esp", "transport", "none", true},
		{"ah", "transport", "none", true},
		{"ah+esp", "transport", "none", false},
	} {
		t.Run(w.String(), func(t *testing.T) {
			ctx := root(t)
			p := gatewaytest.NewPair(t, gatewaytest.Options{})
			ab, ba := newKeys(), newKeys()
			p.GatewayA = gatewaytest.New(t, p.A.Gateway, w.config("a", &p.A, &p.B, ab, ba, 0x2001, 0x1001))
			p.GatewayB = gatewaytest.New(t, p.B.Gateway, w.config("b", &p.B, &p.A, ba, ab, 0x1001, 0x2001))
			p.Start()
			marker := []byte("adit-payload-marker-9b1c")
			wire := must[*netlab.Capture](t)(p.Router.Capture(netlab.CaptureOptions{Iface: p.A.RouterIface, Marker: marker}))
			t.Cleanup(func() { _ = wire.Close() })
			from, to, addresses := p.A.Host, p.B.Host, []netip.Addr{p.B.Host4, p.B.Host6}
			if w.mode == "transport" {
				from, to, addresses = p.A.Gateway, p.B.Gateway, []netip.Addr{w.outside(&p.B)}
			}
			for _, dst := range addresses {
				ping := must[netlab.PingStats](t)(netlab.Ping(ctx, from, netlab.PingOptions{Dst: dst, Count: 5, Marker: marker}))
				if ping.Lost() != 0 {
					t.Errorf("ping %s: %s", dst, ping)
				}
				tcp := must[netlab.TransferResult](t)(netlab.TCPTransfer(ctx, from, to, netlab.TransferOptions{To: netip.AddrPortFrom(dst, 0), Bytes: 2 << 20, Marker: marker}))
				if !tcp.Intact() {
					t.Errorf("TCP to %s: SHA-256 differs", dst)
				}
				udp := must[netlab.BurstResult](t)(netlab.UDPBurst(ctx, from, to, netlab.BurstOptions{To: netip.AddrPortFrom(dst, 0), Count: 200, Size: 900, Marker: marker}))
				if udp.Lost() != 0 || udp.Duplicated != 0 || udp.Mismatched != 0 {
					t.Errorf("UDP to %s: %s", dst, udp)
				}
			}
			s := wire.Summary()
			if s.Count(netlab.KindOther) != 0 || s.Total() < 500 {
				t.Errorf("the wire: %s", s)
			}
			if ah := s.Count(netlab.KindAH); (ah > 500) != (w.protocol != "esp") {
				t.Errorf("AH on the wire: %d packets; %s", ah, s)
			}
			if w.protocol != "ah" && s.Marked != 0 {
				t.Errorf("the payload in clear on the wire: %s", s)
			}
		})
	}
}
