package gatewaytest

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/sad"
)

// Options of a Pair; the zero value is aes128gcm16 with ESN over UDP 4500 over
// IPv4.
type Options struct {
	Suite    string
	NoESN    bool
	Raw      bool   // protocol 50 in place of UDP 4500
	OuterV6  bool   // the gateways meet over IPv6
	Top      string // more lines for the top of both configurations
	Listen   string // more keys of listen, as in "probe_mtu: off"
	Profile  string // more keys of the profile, as in "df: set, dscp: off"
	Local    string // A's side of the one policy; default: LAN A, both families
	Remote   string // B's side
	Topology netlab.Options
}

// SPIs of a Pair's two SAs.
const (
	SPIAtoB = 0x2001
	SPIBtoA = 0x1001
)

// Keys are one SA's, with the salt.
type Keys struct{ Encryption, Integrity sad.Key }

// Pair is two gateways in a site-to-site topology, not yet started.
type Pair struct {
	*netlab.Topology
	Suite      esp.Suite
	ESN        bool
	AtoB, BtoA Keys
	GatewayA   *Gateway
	GatewayB   *Gateway
	// Texts of the two configurations, for tests that change them.
	ConfigA, ConfigB string
}

// NewPair builds the network and both configurations. The network is gone when
// the test ends.
func NewPair(t testing.TB, o Options) *Pair {
	t.Helper()
	if o.Suite == "" {
		o.Suite = "aes128gcm16"
	}
	suite, err := esp.ParseSuite(o.Suite)
	if err != nil {
		t.Fatal(err)
	}
	topology, err := netlab.SiteToSite(o.Topology)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := topology.Close(); err != nil {
			t.Errorf("closing the network: %v", err)
		}
	})
	p := &Pair{Topology: topology, Suite: suite, ESN: !o.NoESN, AtoB: newKeys(suite), BtoA: newKeys(suite)}
	a, b := o.Local, o.Remote
	if a == "" {
		a = fmt.Sprintf("%s, %q", p.A.LAN4, p.A.LAN6)
	}
	if b == "" {
		b = fmt.Sprintf("%s, %q", p.B.LAN4, p.B.LAN6)
	}
	p.ConfigA = p.config(o, "site-a", outside(&p.A, o), outside(&p.B, o), p.AtoB, p.BtoA, SPIAtoB, SPIBtoA, a, b)
	p.ConfigB = p.config(o, "site-b", outside(&p.B, o), outside(&p.A, o), p.BtoA, p.AtoB, SPIBtoA, SPIAtoB, b, a)
	p.GatewayA = New(t, p.A.Gateway, p.ConfigA)
	p.GatewayB = New(t, p.B.Gateway, p.ConfigB)
	return p
}

// Start starts both gateways.
func (p *Pair) Start() {
	p.GatewayA.t.Helper()
	p.GatewayA.Start()
	p.GatewayB.Start()
}

func outside(s *netlab.Side, o Options) netip.Addr {
	if o.OuterV6 {
		return s.Outside6
	}
	return s.Outside4
}

func newKeys(suite esp.Suite) Keys {
	enc, integ := suite.KeyLen()
	k := Keys{make([]byte, enc), make([]byte, integ)}
	_, _ = rand.Read(k.Encryption)
	_, _ = rand.Read(k.Integrity)
	return k
}

func (p *Pair) config(o Options, name string, own, peer netip.Addr, out, in Keys, outSPI, inSPI uint32, local, remote string) string {
	encap := "udp"
	if o.Raw {
		encap = "none"
	}
	profile := fmt.Sprintf("encap: %s, esn: %v", encap, p.ESN)
	if o.Profile != "" {
		profile += ", " + o.Profile
	}
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\nname: %s\nstate_dir: $STATE\ncontrol: $CONTROL\nallow_manual_aead: true\nallow_legacy: %v\n", name, p.Suite.Legacy())
	if o.Top != "" {
		b.WriteString(o.Top + "\n")
	}
	listen := fmt.Sprintf("address: %q, outside: [%s]", own, netlab.OutsideIface)
	if o.Listen != "" {
		listen += ", " + o.Listen
	}
	fmt.Fprintf(&b, "listen: {%s}\n", listen)
	fmt.Fprintf(&b, "profiles:\n  default: {%s}\n", profile)
	fmt.Fprintf(&b, "peers:\n  - name: peer\n    address: %q\n    keying: manual\n    sas:\n", peer)
	sa := func(direction string, spi uint32, k Keys) {
		fmt.Fprintf(&b, "      - {direction: %s, spi: 0x%x, suite: %s", direction, spi, p.Suite)
		if len(k.Encryption) > 0 {
			fmt.Fprintf(&b, ", encryption_key: %q", hex.EncodeToString(k.Encryption))
		}
		if len(k.Integrity) > 0 {
			fmt.Fprintf(&b, ", integrity_key: %q", hex.EncodeToString(k.Integrity))
		}
		b.WriteString("}\n")
	}
	sa("out", outSPI, out)
	sa("in", inSPI, in)
	fmt.Fprintf(&b, "policies:\n  - name: lan\n    local: [%s]\n    remote: [%s]\n    action: protect\n    peer: peer\n", local, remote)
	return b.String()
}
