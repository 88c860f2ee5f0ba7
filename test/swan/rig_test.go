package swan

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/internal/pki"
	"github.com/adit-ipsec/adit/test/gatewaytest"
)

// Identities of the two ends.
const (
	aditID = "a.example.net"
	swanID = "b.example.net"
)

// The two ends' common secret, and a wrong one.
const (
	psk      = "4d59d5c1d5ed9d86b4cd1c7b1eb3ac6ddb1c7a8c"
	wrongPSK = "9e1f0a7c52be63d84417aa09c6d35512ee83bb70"
)

// rig is adit in gateway A and strongSwan in gateway B of one site-to-site
// network, each configured for one way of authentication.
type rig struct {
	*netlab.Topology
	t        *testing.T
	ctx      context.Context
	adit     *gatewaytest.Gateway
	swan     *Daemon
	auth     string
	dir      string // keys and certificates of adit
	anyLocal bool   // adit listens on all of its addresses
	// Certificates of both ends, nil with psk.
	ca, own, peer *pki.Entity
}

// settings are what a test changes of both ends' configuration; the zero value is
// cell{"", "psk", "aes128gcm16", "x25519"} as a site-to-site gateway has it.
type settings struct {
	esp, ike string // proposals, "" aes128gcm16 and aes128gcm16-prfsha256-x25519
	start    string // of adit: "now" or "traffic" (unless set)
	profile  string // more keys of adit's profile, as "pfs: [x25519]"
	peer     string // more lines of adit's ike section, each "key: value"
	listen   string // more keys of adit's listen section
	address  string // of strongSwan, in adit's file: an address, or "any"; its own unless set
	local    string // adit's selectors, unless LAN A
	remote   string
	// strongSwan's: more lines of the connection and of the child, its
	// selectors, what it takes adit's address for.
	swanESP           string // its ESP proposal, unless esp
	conn, child       string
	localTS, remoteTS string
	aditFrom          string
	secret            string // of strongSwan; "" is psk
	ppk               string // of strongSwan; "" is none
	policies          string // more policies of adit, whole lines
}

var kinds = map[string]pki.Kind{"rsa": pki.RSA2048, "rsa3072": pki.RSA3072, "ecdsa": pki.P256, "ed25519": pki.Ed25519}

func newRig(t *testing.T, auth string, limit time.Duration) *rig {
	t.Helper()
	r := &rig{t: t, ctx: gatewaytest.Root(t, limit), auth: auth, dir: t.TempDir()}
	topology, err := netlab.SiteToSite(netlab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := topology.Close(); err != nil {
			t.Errorf("closing the network: %v", err)
		}
	})
	r.Topology = topology
	if auth != "psk" {
		r.certificates(kinds[auth])
	} else {
		r.keep("psk", []byte(psk))
	}
	r.swan = Start(t, r.B.Gateway, "delete_rekeyed_delay = 1")
	r.adit = gatewaytest.New(t, r.A.Gateway, r.aditConf(settings{}))
	return r
}

func (r *rig) keep(name string, text []byte) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), text, 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) certificates(kind pki.Kind) {
	r.t.Helper()
	var err error
	if r.ca, err = pki.New(pki.Options{Key: kind, Name: "adit test authority"}); err != nil {
		r.t.Fatal(err)
	}
	if r.own, err = r.ca.Issue(pki.Options{Key: kind, Name: aditID, DNS: []string{aditID}}); err != nil {
		r.t.Fatal(err)
	}
	if r.peer, err = r.ca.Issue(pki.Options{Key: kind, Name: swanID, DNS: []string{swanID}}); err != nil {
		r.t.Fatal(err)
	}
	key, err := r.own.KeyPEM()
	if err != nil {
		r.t.Fatal(err)
	}
	r.keep("key.pem", key)
	r.keep("cert.pem", r.own.ChainPEM())
	r.keep("ca.pem", r.ca.CertPEM())
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// aditConf is adit's configuration file.
func (r *rig) aditConf(s settings) string {
	auth := fmt.Sprintf("{psk_file: %q}", filepath.Join(r.dir, "psk"))
	if r.auth != "psk" {
		auth = fmt.Sprintf("{certificate: %q, private_key: %q, trust: [%q]}",
			filepath.Join(r.dir, "cert.pem"), filepath.Join(r.dir, "key.pem"), filepath.Join(r.dir, "ca.pem"))
	}
	profile := "suites: [" + or(s.esp, "aes128gcm16") + "]"
	if s.profile != "" {
		profile += ", " + s.profile
	}
	listen := fmt.Sprintf("outside: [%s]", netlab.OutsideIface)
	if !r.anyLocal {
		listen += fmt.Sprintf(", address: %q", r.A.Outside4)
	}
	if s.listen != "" {
		listen += ", " + s.listen
	}
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\nname: site-a\nstate_dir: $STATE\ncontrol: $CONTROL\nlisten: {%s}\n", listen)
	fmt.Fprintf(&b, "profiles:\n  default: {%s}\n", profile)
	fmt.Fprintf(&b, "peers:\n  - name: swan\n    address: %s\n    keying: ike\n    ike:\n", or(s.address, r.B.Outside4.String()))
	fmt.Fprintf(&b, "      local_id: %s\n      remote_id: %s\n      auth: %s\n      proposals: [%s]\n      start: %s\n",
		aditID, swanID, auth, or(s.ike, "aes128gcm16-prfsha256-x25519"), or(s.start, "traffic"))
	for line := range strings.Lines(s.peer) {
		b.WriteString("      " + strings.TrimSpace(line) + "\n")
	}
	fmt.Fprintf(&b, "policies:\n  - {name: lan, local: [%s], remote: [%s], action: protect, peer: swan}\n",
		or(s.local, r.A.LAN4.String()), or(s.remote, r.B.LAN4.String()))
	b.WriteString(s.policies)
	return b.String()
}

// swanConf is strongSwan's. Its userspace ESP needs UDP: encap fakes a NAT.
func (r *rig) swanConf(s settings) (string, Files) {
	own, peer := "auth = psk", "auth = psk"
	files := Files{}
	if r.auth != "psk" {
		own, peer = "auth = pubkey\n      certs = b.pem", "auth = pubkey\n      cacerts = ca.pem"
		key, err := r.peer.KeyPEM()
		if err != nil {
			r.t.Fatal(err)
		}
		files = Files{"x509/b.pem": r.peer.CertPEM(), "x509ca/ca.pem": r.ca.CertPEM(), "private/b.pem": key}
	}
	ppk := ""
	if s.ppk != "" {
		ppk = "  ppk-quantum {\n    id = quantum\n    secret = " + s.ppk + "\n  }\n"
	}
	return fmt.Sprintf(`connections {
  tunnel {
    version = 2
    local_addrs = %s
    remote_addrs = %s
    proposals = %s
    encap = yes
    %s
    local {
      %s
      id = %s
    }
    remote {
      %s
      id = %s
    }
    children {
      lan {
        local_ts = %s
        remote_ts = %s
        esp_proposals = %s
        %s
      }
    }
  }
}
secrets {
  ike-tunnel {
    secret = %s
  }
%s}
`, r.B.Outside4, or(s.aditFrom, r.A.Outside4.String()), or(s.ike, "aes128gcm16-prfsha256-x25519"), s.conn, own, swanID, peer, aditID,
		or(s.localTS, r.B.LAN4.String()), or(s.remoteTS, r.A.LAN4.String()), or(s.swanESP, or(s.esp, "aes128gcm16")), s.child, or(s.secret, psk), ppk), files
}

// configure gives both ends their settings; adit reads its file again if it runs,
// and starts if it does not.
func (r *rig) configure(s settings) {
	r.t.Helper()
	r.swan.Load(r.swanConf(s))
	r.adit.Configure(r.aditConf(s))
	if r.adit.Process() == nil {
		r.adit.Launch()
		r.eventually("adit is up", func() bool { _, err := r.adit.Command("status", "--wait", "10s"); return err == nil })
		return
	}
	r.reload()
}

// eventually polls until ok, and fails with both logs.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(deadline) || r.ctx.Err() != nil {
			r.t.Fatalf("not in 20 s: %s\nadit:\n%s\nstrongSwan:\n%s", what, tail(r.adit.Log()), tail(r.swan.Log()))
		}
	}
}

// tail is the last lines of a log.
func tail(log string) string {
	lines := strings.Split(log, "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "\n")
}

// up waits until strongSwan lists one established IKE SA with one installed Child
// SA, and returns it.
func (r *rig) up() SA {
	r.t.Helper()
	var sas []SA
	r.eventually("one IKE SA with one Child SA at strongSwan", func() bool {
		sas = r.swan.SAs()
		return len(sas) == 1 && sas[0].State == "ESTABLISHED" && len(sas[0].Children) == 1 && sas[0].Children[0].State == "INSTALLED"
	})
	return sas[0]
}

// carries pings both ways through the tunnel.
func (r *rig) carries() {
	r.t.Helper()
	for _, way := range []struct {
		from *netlab.Node
		to   netip.Addr
	}{{r.A.Host, r.B.Host4}, {r.B.Host, r.A.Host4}} {
		ping, err := netlab.Ping(r.ctx, way.from, netlab.PingOptions{Dst: way.to, Count: 3})
		if err != nil || ping.Lost() != 0 {
			r.t.Fatalf("ping %s from %s: expected 3 answers, saw %s, %v\nadit:\n%s\nstrongSwan:\n%s", way.to, way.from.Name(), ping, err, tail(r.adit.Log()), tail(r.swan.Log()))
		}
	}
}
