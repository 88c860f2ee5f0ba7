package gatewaytest

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/internal/netlab"
)

// IKEOptions of an IKEPair; the zero value is a pre-shared key, default proposals, and
// a start with the first packet at both ends, over IPv4.
type IKEOptions struct {
	OuterV6 bool
	Top     string // more lines for the top of both configurations
	Profile string // keys of both profiles, as in "encap: udp, esn: false"
	IKE     string // more keys of both `ike` sections, as in "dpd: 5s"
	// TopB, ProfileB and IKEB are B's own, where the ends differ; "": as A's.
	TopB, ProfileB, IKEB string
	// AddressA and AddressB are where the other end finds A and B, if that is not
	// their outside address, or "any".
	AddressA, AddressB string
	// SecretB is the pre-shared key of B, if it is to be another than A's.
	SecretB  string
	Topology netlab.Options
}

// IKEPair is two gateways that negotiate, not yet started: "site-a" knows the peer
// "site-b", and the other way round; the one policy of each is "lan".
type IKEPair struct {
	*netlab.Topology
	GatewayA, GatewayB *Gateway
	ConfigA, ConfigB   string
}

// NewIKEPair builds the network and both configurations. The network is gone when the
// test ends.
func NewIKEPair(t testing.TB, o IKEOptions) *IKEPair {
	t.Helper()
	topology, err := netlab.SiteToSite(o.Topology)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := topology.Close(); err != nil {
			t.Errorf("closing the network: %v", err)
		}
	})
	p := &IKEPair{Topology: topology}
	b := o
	for _, own := range []struct{ to, from *string }{{&b.Top, &o.TopB}, {&b.Profile, &o.ProfileB}, {&b.IKE, &o.IKEB}} {
		if *own.from != "" {
			*own.to = *own.from
		}
	}
	dir := t.TempDir()
	secretA, secretB := writeSecret(t, dir, "a", RandomSecret()), ""
	if o.SecretB != "" {
		secretB = writeSecret(t, dir, "b", o.SecretB)
	} else {
		secretB = secretA
	}
	p.ConfigA = ikeConfig(o, "site-a", "site-b", &p.A, &p.B, o.AddressB, secretA)
	p.ConfigB = ikeConfig(b, "site-b", "site-a", &p.B, &p.A, o.AddressA, secretB)
	p.GatewayA, p.GatewayB = New(t, p.A.Gateway, p.ConfigA), New(t, p.B.Gateway, p.ConfigB)
	return p
}

// RandomSecret is a pre-shared key of 256 bits, in hexadecimal.
func RandomSecret() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

func writeSecret(t testing.TB, dir, name, secret string) string {
	t.Helper()
	path := filepath.Join(dir, name+".psk")
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func ikeConfig(o IKEOptions, name, other string, own, peer *netlab.Side, at, secret string) string {
	here, there := outside(own, Options{OuterV6: o.OuterV6}), outside(peer, Options{OuterV6: o.OuterV6})
	if at == "" {
		at = there.String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\nname: %s\nstate_dir: $STATE\ncontrol: $CONTROL\n", name)
	if o.Top != "" {
		b.WriteString(o.Top + "\n")
	}
	fmt.Fprintf(&b, "listen: {address: %q, outside: [%s]}\n", here, netlab.OutsideIface)
	fmt.Fprintf(&b, "profiles:\n  default: {%s}\n", o.Profile)
	more := ""
	if o.IKE != "" {
		more = ", " + o.IKE
	}
	fmt.Fprintf(&b, "peers:\n  - name: %s\n    address: %q\n    keying: ike\n", other, at)
	fmt.Fprintf(&b, "    ike: {local_id: %s.example.net, remote_id: %s.example.net, auth: {psk_file: %q}%s}\n", name, other, secret, more)
	fmt.Fprintf(&b, "policies:\n  - name: lan\n    local: [%s]\n    remote: [%s]\n    action: protect\n    peer: %s\n", lans(own), lans(peer), other)
	return b.String()
}

func lans(s *netlab.Side) string {
	return fmt.Sprintf("%s, %q", s.LAN4, s.LAN6)
}

// Hosts are the hosts of a side, one address a family.
func Hosts(s *netlab.Side) []netip.Addr { return []netip.Addr{s.Host4, s.Host6} }
