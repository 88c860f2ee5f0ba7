package swan

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
)

// logs fails unless the log of one end says all of words.
func says(t *testing.T, who, log string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(log, w) {
			t.Errorf("the log of %s does not say %q; it ends with:\n%s", who, w, tail(log))
		}
	}
}

// connect brings the tunnel up from one end.
func (r *rig) connect(role string) SA {
	r.t.Helper()
	if role == "responder" {
		if err := r.swan.Initiate("lan"); err != nil {
			r.t.Fatalf("%v\nadit:\n%s", err, tail(r.adit.Log()))
		}
	} else if out, err := r.adit.Command("ike", "initiate", "swan"); err != nil {
		r.t.Fatalf("adit ike initiate: %v: %s\n%s", err, out, tail(r.adit.Log()))
	}
	return r.up()
}

// down ends the tunnel from adit.
func (r *rig) down() {
	r.t.Helper()
	if out, err := r.adit.Command("ike", "terminate", "swan"); err != nil {
		r.t.Fatalf("adit ike terminate: %v: %s", err, out)
	}
	r.eventually("no SA at strongSwan", func() bool { return len(r.swan.SAs()) == 0 })
}

// inBothRoles runs f in a subtest per role of adit, after each other.
func (r *rig) inBothRoles(s settings, f func(role string)) {
	t := r.t
	for _, role := range roles {
		t.Run(role, func(t *testing.T) {
			r.t = t
			r.configure(s)
			r.connect(role)
			r.carries()
			f(role)
			r.down()
		})
	}
	r.t = t
}

// RFC 7383: certificates of RSA-3072 in fragments both ways.
func TestRootRFC7383_FragmentsBothWays(t *testing.T) {
	r := newRig(t, "rsa3072", 2*time.Minute)
	r.inBothRoles(settings{conn: "fragmentation = yes"}, func(string) {
		says(t, "strongSwan", r.swan.Log(), "splitting IKE message", "reassembled fragmented IKE message")
	})
}

// RFC 7296 1.3: a responder that wants another group says so, and is obeyed.
func TestRootRFC7296_1_3_InvalidKEIsTriedAgain(t *testing.T) {
	r := newRig(t, "psk", 2*time.Minute)
	s := settings{ike: "aes128gcm16-prfsha256-x25519-ecp256"}
	r.inBothRoles(s, func(string) {})
	t.Run("adit prefers another", func(t *testing.T) {
		r.t = t
		r.swan.Load(r.swanConf(settings{ike: "aes128gcm16-prfsha256-ecp256"}))
		r.adit.Configure(r.aditConf(settings{ike: "aes128gcm16-prfsha256-x25519-ecp256"}))
		r.reload()
		if sa := r.connect("initiator"); sa.DH != "ECP_256" {
			t.Errorf("expected ECP_256, saw %s", sa.DH)
		}
		r.carries()
		says(t, "strongSwan", r.swan.Log(), "unacceptable, requesting ECP_256")
	})
	t.Run("strongSwan prefers another", func(t *testing.T) {
		r.t = t
		r.down()
		r.swan.Load(r.swanConf(settings{ike: "aes128gcm16-prfsha256-x25519-ecp256"}))
		r.adit.Configure(r.aditConf(settings{ike: "aes128gcm16-prfsha256-ecp256"}))
		r.reload()
		if sa := r.connect("responder"); sa.DH != "ECP_256" {
			t.Errorf("expected ECP_256, saw %s", sa.DH)
		}
		r.carries()
		says(t, "strongSwan", r.swan.Log(), "it requested ECP_256")
	})
}

// RFC 7296 2.23: a NAT in front of adit, which initiates and rekeys through it.
func TestRootRFC7296_2_23_NATInFrontOfAdit(t *testing.T) {
	r := newRig(t, "psk", 2*time.Minute)
	if err := r.Router.Masquerade(r.B.RouterIface); err != nil {
		t.Fatal(err)
	}
	r.configure(settings{aditFrom: "%any"})
	r.connect("initiator")
	r.carries()
	says(t, "strongSwan", r.swan.Log(), "remote host is behind NAT")
	r.rekeys()
	r.down()
}

// The same in front of strongSwan, which initiates.
func TestRootRFC7296_2_23_NATInFrontOfStrongSwan(t *testing.T) {
	r := newRig(t, "psk", 2*time.Minute)
	if err := r.Router.Masquerade(r.A.RouterIface); err != nil {
		t.Fatal(err)
	}
	r.configure(settings{address: "any"})
	r.connect("responder")
	r.carries()
	r.rekeys()
	r.down()
}

// rekeys has each end rekey the Child SA and the IKE SA once, with data behind
// each.
func (r *rig) rekeys() {
	r.t.Helper()
	for _, what := range []string{"child", "ike"} {
		for _, role := range roles {
			r.rekey(what, role)
			r.carries()
		}
	}
}

// rekey has one end rekey, and waits until the other SPI is there and the old one
// has gone.
func (r *rig) rekey(what, role string) {
	r.t.Helper()
	old := r.up()
	var err error
	var out string
	switch {
	case what == "child" && role == "responder":
		out, err = r.swan.Swanctl("--rekey", "--child", "lan")
	case what == "child":
		out, err = r.adit.Command("ike", "rekey", "swan", "lan")
	case role == "responder":
		out, err = r.swan.Swanctl("--rekey", "--ike", "tunnel")
	default:
		out, err = r.adit.Command("ike", "rekey", "swan")
	}
	if err != nil {
		r.t.Fatalf("rekey of the %s SA by %s: %v: %s", what, role, err, out)
	}
	r.eventually(fmt.Sprintf("the %s SA is replaced by %s", what, role), func() bool {
		sas := r.swan.SAs()
		if len(sas) != 1 || sas[0].State != "ESTABLISHED" || len(sas[0].Children) != 1 || sas[0].Children[0].State != "INSTALLED" {
			return false
		}
		if what == "child" {
			return sas[0].Children[0].SPIIn != old.Children[0].SPIIn
		}
		return sas[0].SPIi != old.SPIi
	})
}

// RFC 7296 2.8: either end rekeys either SA, with and without a key exchange.
func TestRootRFC7296_2_8_RekeyFromEitherSide(t *testing.T) {
	r := newRig(t, "psk", 3*time.Minute)
	for _, s := range []settings{{}, {profile: "pfs: [x25519]", swanESP: "aes128gcm16-x25519"}} {
		name := "without pfs"
		if s.profile != "" {
			name = "with pfs"
		}
		t.Run(name, func(t *testing.T) {
			r.t = t
			r.inBothRoles(s, func(string) { r.rekeys() })
		})
	}
}

// RFC 7296 1.4.1: either end deletes the Child SA, or the IKE SA, and nothing
// stays at the other.
func TestRootRFC7296_1_4_1_DeleteFromEitherSide(t *testing.T) {
	r := newRig(t, "psk", 2*time.Minute)
	r.configure(settings{})
	none := func() bool {
		out, err := r.adit.Command("sa", "list", "--json")
		return err == nil && !strings.Contains(out, `"spi"`)
	}
	for _, role := range roles {
		t.Run("strongSwan, "+role, func(t *testing.T) {
			r.t = t
			r.connect(role)
			if out, err := r.swan.Swanctl("--terminate", "--ike", "tunnel"); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			r.eventually("adit has no SA", none)
		})
		t.Run("adit, "+role, func(t *testing.T) {
			r.t = t
			r.connect(role)
			r.down()
			r.eventually("adit has no SA", none)
		})
		t.Run("strongSwan's child, "+role, func(t *testing.T) {
			r.t = t
			r.connect(role)
			if out, err := r.swan.Swanctl("--terminate", "--child", "lan"); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			r.eventually("adit has no SA", none)
			r.down()
		})
	}
}

// RFC 7296 2.9: the responder narrows, whoever it is.
func TestRootRFC7296_2_9_Narrowing(t *testing.T) {
	r := newRig(t, "psk", 2*time.Minute)
	t.Run("strongSwan narrows", func(t *testing.T) {
		r.t = t
		half := netip.PrefixFrom(r.B.LAN4.Addr(), r.B.LAN4.Bits()+1).String() // with the host, and an address of the gateway
		r.configure(settings{localTS: half})
		sa := r.connect("initiator")
		if got := sa.Children[0].LocalTS; got != half {
			t.Errorf("strongSwan has the local selector %q, expected %s", got, half)
		}
		r.carries()
		out, err := r.adit.Command("ike", "list", "--json")
		if err != nil || !strings.Contains(out, half) {
			t.Errorf("adit's list does not have the narrowed selector %s: %v\n%s", half, err, out)
		}
		r.down()
	})
	t.Run("adit narrows", func(t *testing.T) {
		r.t = t
		r.configure(settings{remoteTS: "10.0.0.0/8"})
		sa := r.connect("responder")
		if got := sa.Children[0].RemoteTS; got != r.A.LAN4.String() {
			t.Errorf("strongSwan has the remote selector %q, expected %s", got, r.A.LAN4)
		}
		r.carries()
		r.down()
	})
}

// RFC 7296 2.4: a peer that is gone is found out, its SAs go, nothing leaves in
// clear, and with start: now adit comes back by itself.
func TestRootRFC7296_2_4_DeadPeerIsFoundAndComesBack(t *testing.T) {
	r := newRig(t, "psk", 3*time.Minute)
	s := settings{start: "now", peer: "dpd: 1s"}
	r.configure(s)
	r.up()
	r.carries()
	wire, err := r.Router.Capture(netlab.CaptureOptions{Iface: r.A.RouterIface, Marker: []byte("adit-dead-peer-1f77")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = wire.Close() })
	r.swan.Kill()
	_, _ = netlab.Ping(r.ctx, r.A.Host, netlab.PingOptions{Dst: r.B.Host4, Count: 3, Timeout: 200 * time.Millisecond, Marker: []byte("adit-dead-peer-1f77")})
	for deadline := time.Now().Add(90 * time.Second); !strings.Contains(r.adit.Log(), "liveness"); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("adit does not notice in 90 s:\n%s", tail(r.adit.Log()))
		}
	}
	r.swan.Restart()
	r.swan.Load(r.swanConf(s))
	r.eventually("the tunnel is back", func() bool { sas := r.swan.SAs(); return len(sas) == 1 && len(sas[0].Children) == 1 })
	r.carries()
	if s := wire.Summary(); s.Marked != 0 {
		t.Errorf("%d packets of the payload on the wire in clear: %s", s.Marked, s)
	}
}

// Each way to fail gives one clear event that names the stage and what both ends
// have, and leaves no SA.
func TestRootFailuresAreNamed(t *testing.T) {
	for _, c := range []struct {
		name  string
		swan  settings
		adit  settings
		roles []string
		words map[string][]string // of adit's log, by role
	}{
		{"no common IKE proposal", settings{ike: "aes256-sha256-ecp256"}, settings{}, roles, map[string][]string{
			"initiator": {"no_proposal_chosen"}, "responder": {"no_proposal_chosen", "theirs", "ours"}}},
		{"no common ESP proposal", settings{esp: "aes256-sha256"}, settings{}, roles, map[string][]string{
			"initiator": {"no_proposal_chosen"}, "responder": {"no_proposal_chosen", "theirs", "ours"}}},
		{"wrong secret", settings{secret: wrongPSK}, settings{}, roles, map[string][]string{
			"initiator": {"auth"}, "responder": {"auth_failed"}}},
		{"no common selectors", settings{localTS: "172.31.0.0/24", remoteTS: "172.31.1.0/24"}, settings{}, roles, map[string][]string{
			"initiator": {"ts_unacceptable"}, "responder": {"ts_unacceptable"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, role := range c.roles {
				t.Run(role, func(t *testing.T) {
					r := newRig(t, "psk", time.Minute)
					r.adit.Configure(r.aditConf(c.adit))
					r.adit.Launch()
					r.eventually("adit is up", func() bool { _, err := r.adit.Command("status", "--wait", "10s"); return err == nil })
					r.swan.Load(r.swanConf(c.swan))
					if role == "responder" {
						_, _ = r.swan.Swanctl("--initiate", "--child", "lan", "--timeout", "3")
					} else {
						_, _ = r.adit.Command("ike", "initiate", "swan")
					}
					r.eventually("adit says why", func() bool { return strings.Contains(r.adit.Log(), c.words[role][0]) })
					says(t, "adit", r.adit.Log(), c.words[role]...)
					if out, err := r.adit.Command("sa", "list", "--json"); err != nil || strings.Contains(out, `"spi"`) {
						t.Errorf("an SA is left: %v: %s", err, out)
					}
				})
			}
		})
	}
}
