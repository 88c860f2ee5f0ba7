package config

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ah"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/internal/pki"
	"github.com/adit-ipsec/adit/sad"
)

const (
	testPSK      = "ZcUe5ro0kT7wXhQyP1mSdJvA8bLn3FgR"
	otherPSK     = "u9KqWfB2xNcMz6VtHp4YjDsE0aOiLr7G"
	testPPKDigit = "9f1c4b7e02d3a85c6e4f7b1d0a2938c5e6174fd28b3ca095e1d7f6402c8b5a3e"
)

type testFile struct {
	data []byte
	mode fs.FileMode
}

// ikeFiles are the credentials that the files of testdata name.
var ikeFiles = sync.OnceValue(func() map[string]testFile {
	files, err := makeIKEFiles()
	if err != nil {
		panic(err)
	}
	return files
})

func makeIKEFiles() (map[string]testFile, error) {
	files := map[string]testFile{}
	public := func(name string, data []byte) { files["/pki/"+name] = testFile{data, 0o644} }
	secret := func(name string, data []byte) { files["/pki/"+name] = testFile{data, 0o600} }
	ca, err := pki.New(pki.Options{Name: "Example CA"})
	if err != nil {
		return nil, err
	}
	other, err := pki.New(pki.Options{Name: "Other CA"})
	if err != nil {
		return nil, err
	}
	public("ca.pem", ca.CertPEM())
	public("ca.der", ca.Cert.Raw)
	public("other-ca.pem", other.CertPEM())
	for name, o := range map[string]pki.Options{
		"a":   {Name: "a", DNS: []string{"a.example.net"}},
		"b":   {Name: "b", DNS: []string{"b.example.net"}, Key: pki.Ed25519},
		"rsa": {Name: "rsa", DNS: []string{"a.example.net"}, Key: pki.RSA2048},
	} {
		e, err := ca.Issue(o)
		if err != nil {
			return nil, err
		}
		key, err := e.KeyPEM()
		if err != nil {
			return nil, err
		}
		public(name+".pem", e.ChainPEM())
		public(name+".pub", e.PublicPEM())
		secret(name+".key", key)
		if name != "b" {
			continue
		}
		list, err := ca.CRL(time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
		if err != nil {
			return nil, err
		}
		public("ca.crl", pki.CRLPEM(list))
		public("ca.crl.der", list.Raw)
		response, err := ca.OCSP(e.Cert, ca.Cert, pki.Good, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
		if err != nil {
			return nil, err
		}
		public("b.ocsp", response)
	}
	files["/pki/open.key"] = testFile{files["/pki/a.key"].data, 0o644}
	secret("both.key", append(append([]byte{}, files["/pki/a.key"].data...), files["/pki/b.key"].data...))
	public("with-key.pem", append(append([]byte{}, files["/pki/a.pem"].data...), files["/pki/a.key"].data...))
	public("broken.pem", files["/pki/a.pem"].data[:200])
	public("garbage", []byte("no PEM at all\n"))
	public("bad-cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{0x30, 0}}))
	secret("encrypted.key", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("secret")}))
	secret("broken.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")}))
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		return nil, err
	}
	secret("weak.key", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(weak)}))
	secret("psk", []byte(testPSK+"\n"))
	secret("psk-other", []byte(otherPSK+"\n"))
	secret("psk-weak", []byte("swordfish\n"))
	secret("ppk", []byte("0x"+testPPKDigit+"\n"))
	secret("secret.pem", files["/pki/a.pem"].data)
	secret("large.key", make([]byte, maxPrivateKey+1))
	return files, nil
}

// describeIKE is all that an IKE peer says, for golden files.
func describeIKE(p func(string, ...any), k *IKE) {
	if k == nil {
		return
	}
	p("ike local %s remote %s legacy %t revocation %s crls %d ocsp %d", k.Local, k.Remote, k.Local.Legacy,
		k.Remote.Revocation.Policy, len(k.Remote.Revocation.CRLs), len(k.Remote.Revocation.OCSP))
	p("ike port %d natt_port %d start %s start_natt %t rekey %s reauth %s dpd %s mobike %t fragmentation %t size %d childless %t force_udp %t no_udp %t responder %s ppk %q %s required %t",
		k.Port, k.NATTPort, k.Start, k.StartNATT, k.Rekey, k.Reauth, k.DPD, k.MOBIKE, k.Fragmentation, k.FragmentSize, k.Childless,
		k.ForceUDP, k.NoUDP, k.Responder, k.PPK.ID, k.PPK.Key, k.PPK.Required)
	for _, one := range k.Proposals {
		p("ike proposal %s", one)
	}
	for _, c := range k.Children {
		p("child %s %s selectors %d proposals %v template %s", c.Policy, c.Mode, len(c.Selectors), c.Proposals, c.Template)
	}
}

func ikeConfig(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("a.yaml", []byte(text), WithSecrets(testSecrets))
	if err != nil {
		t.Fatalf("%s\nis refused:\n%v", text, err)
	}
	return c
}

const smallestIKE = `version: 1
peers:
  - name: b
    address: 192.0.2.2
    keying: ike
    ike: {local_id: a.example.net, remote_id: b.example.net, auth: {psk_file: /pki/psk}}
policies:
  - {name: lan, local: [10.1.0.0/24], remote: [10.2.0.0/24], action: protect, peer: b}
`

// What a key means when the file does not name it.
func TestIKEDefaults(t *testing.T) {
	c := ikeConfig(t, smallestIKE)
	k := c.Peers[0].IKE
	if k == nil || !c.UsesIKE() || len(c.Peers[0].SAs) != 0 || len(c.SAParams()) != 0 {
		t.Fatalf("expected an IKE peer without SAs, seen %v", c.Peers[0])
	}
	if k.Port != 500 || k.NATTPort != 4500 || k.Start != StartTraffic || k.StartNATT || k.Rekey != 4*time.Hour || k.Reauth != 0 || k.DPD != 30*time.Second ||
		!k.MOBIKE || !k.Fragmentation || k.FragmentSize != 0 || k.Childless || k.ForceUDP || k.NoUDP || k.Responder != ResponderOff || len(k.PPK.Key) != 0 {
		t.Errorf("defaults: seen %+v", k)
	}
	if !reflect.DeepEqual(k.Proposals, proposal.Default(1)) {
		t.Errorf("proposals: seen %v", k.Proposals)
	}
	if string(k.Local.PSK) != testPSK || string(k.Remote.PSK) != testPSK {
		t.Error("the pre-shared key is not that of the file without its line end")
	}
	if !c.Listen.Raw || !c.UsesRawESP() {
		t.Error("NAT detection may leave ESP without UDP: raw sockets are needed")
	}
	if len(k.Children) != 1 || k.Children[0].Policy != "lan" || len(k.Children[0].Selectors) != 1 {
		t.Fatalf("children: seen %v", k.Children)
	}
	child := k.Children[0]
	if child.Template.Lifetime.Soft != DefaultSoftLifetime || child.Template.Lifetime.Hard != DefaultHardLifetime || child.Template.ReplayWindow != DefaultReplayWindow ||
		child.Template.Keepalive != DefaultNATKeepalive || child.Template.Peer != "b" || child.Template.Policy != "lan" {
		t.Errorf("template: seen %v", child.Template)
	}
	if len(child.Proposals) != len(defaultSuites) || child.Proposals[0].String() != "aes128gcm16-x25519-ecp256-modp2048-none-esn-noesn" {
		t.Errorf("child proposals: seen %v", child.Proposals)
	}
}

// With `raw: off` there is nothing but UDP, whatever NAT detection finds.
func TestIKEWithoutRawSocketsIsForcedIntoUDP(t *testing.T) {
	for text, want := range map[string][2]bool{
		"listen: {raw: off}":                                                {true, false},
		"listen: {raw: auto}":                                               {false, false},
		"profiles: {default: {encap: udp}}":                                 {true, false},
		"profiles: {default: {encap: none}}":                                {false, true},
		"listen: {address: 192.0.2.1}\nprofiles: {default: {protocol: ah}}": {false, true},
	} {
		c := ikeConfig(t, smallestIKE+text+"\n")
		if k := c.Peers[0].IKE; k.ForceUDP != want[0] || k.NoUDP != want[1] {
			t.Errorf("%s: expected force, none %v, seen %t %t", text, want, k.ForceUDP, k.NoUDP)
		}
	}
}

// The names of the suites that are proposed by default are suites, and none of them
// is kept for old peers only.
func TestIKEDefaultSuites(t *testing.T) {
	if got := parsed(defaultSuites, esp.ParseSuite); len(got) != len(defaultSuites) || anyLegacy(got) {
		t.Errorf("ESP: seen %v", got)
	}
	if got := parsed(defaultAHSuites, ah.ParseSuite); len(got) != len(defaultAHSuites) || anyLegacy(got) {
		t.Errorf("AH: seen %v", got)
	}
}

func anyLegacy[S interface{ Legacy() bool }](suites []S) bool {
	for _, s := range suites {
		if s.Legacy() {
			return true
		}
	}
	return false
}

// A profile's pfs becomes the key exchanges of its Child SAs.
func TestIKEForwardSecrecy(t *testing.T) {
	for pfs, want := range map[string]string{
		"auto":                       "aes128gcm16-modp2048-x25519-none-esn-noesn",
		"off":                        "aes128gcm16-esn-noesn",
		"[ecp384]":                   "aes128gcm16-ecp384-esn-noesn",
		"[x25519, none]":             "aes128gcm16-x25519-none-esn-noesn",
		"[x25519, ke1_mlkem768]":     "aes128gcm16-x25519-ke1_mlkem768-esn-noesn",
		"[curve25519, ke1_mlkem768]": "aes128gcm16-x25519-ke1_mlkem768-esn-noesn",
	} {
		text := strings.Replace(smallestIKE, "auth:", "proposals: [aes128-sha256-modp2048, aes128gcm16-x25519-modp2048], auth:", 1)
		c := ikeConfig(t, text+"profiles: {default: {suites: [aes128gcm16], pfs: "+pfs+"}}\n")
		if got := fmt.Sprint(c.Peers[0].IKE.Children[0].Proposals); got != "["+want+"]" {
			t.Errorf("pfs: %s: expected [%s], seen %s", pfs, want, got)
		}
		if pfs != "[curve25519, ke1_mlkem768]" && c.Profiles["default"].PFS.String() != pfs {
			t.Errorf("pfs: %s prints as %s", pfs, c.Profiles["default"].PFS)
		}
	}
}

// Secrets are written as in swanctl.conf.
func TestIKESecretsAreReadAsSwanctlDoes(t *testing.T) {
	for written, want := range map[string]string{
		testPSK:                              testPSK,
		"0x" + testPPKDigit:                  "\x9f\x1c\x4b\x7e",
		"0sWmNVZTVybzBrVDd3WGhReVAxbVNkSnZB": "ZcUe5ro0kT7wXhQyP1mSdJvA",
	} {
		c := ikeConfig(t, strings.Replace(smallestIKE, "psk_file: /pki/psk", "psk: \""+written+"\"", 1))
		if got := string(c.Peers[0].IKE.Local.PSK); !strings.HasPrefix(got, want) {
			t.Errorf("%s is read as other bytes", written)
		}
	}
}

// What an IKE peer is made of is accepted by those who get it.
func TestIKECredentialsAreUsable(t *testing.T) {
	for path := range readTestdata(t, "testdata/good/ike-*.yaml") {
		c := mustParse(t, path)
		for _, p := range c.Peers {
			if p.IKE == nil {
				continue
			}
			if err := p.IKE.Local.Check(); err != nil {
				t.Errorf("%s: %v", path, err)
			}
			if r := p.IKE.Remote; len(r.PSK) == 0 && len(r.Trust) == 0 && len(r.Keys) == 0 {
				t.Errorf("%s: nothing to believe the peer by", path)
			}
			for _, child := range p.IKE.Children {
				if len(child.Proposals) == 0 || len(child.Selectors) == 0 || child.Template.Mode != child.Mode {
					t.Errorf("%s: child %v", path, child)
				}
			}
		}
	}
}

// The secrets of a file stand in nothing that is printed of it.
func TestIKENothingPrintsASecret(t *testing.T) {
	c := ikeConfig(t, strings.Replace(smallestIKE, "auth:", "ppk: {id: one, key_file: /pki/ppk}, auth:", 1))
	k := c.Peers[0].IKE
	if len(k.PPK.Key) != 32 {
		t.Fatal("the post-quantum pre-shared key was not read")
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%s", "%q", "%d"} {
		for _, what := range []any{c, *c, c.Peers, k, *k, k.Children} {
			text := strings.ToLower(fmt.Sprintf(verb, what))
			for _, secret := range []string{testPSK, fmt.Sprintf("%x", testPSK), strings.Trim(fmt.Sprint([]byte(testPSK)), "[]"), testPPKDigit, strings.Trim(fmt.Sprint([]byte(k.PPK.Key)), "[]")} {
				if strings.Contains(text, strings.ToLower(secret)) {
					t.Errorf("%s of %T prints a secret", verb, what)
				}
			}
		}
	}
}

// A file that holds a pre-shared key itself keeps others out, or says so.
func TestIKEInlineKeyInAFileForOthersIsAWarning(t *testing.T) {
	inline := strings.Replace(smallestIKE, "psk_file: /pki/psk", "psk: "+testPSK, 1)
	for mode, want := range map[fs.FileMode]int{0o600: 0, 0o644: 1} {
		for text, want := range map[string]int{inline: want, smallestIKE: 0} {
			c, err := Parse("a.yaml", []byte(text), WithSecrets(testSecrets), withMode(mode))
			if err != nil || len(c.Warnings) != want {
				t.Errorf("mode %04o: expected %d warnings, seen %v, %v", mode, want, c.Warnings, err)
			}
		}
	}
}

// Without a reader nothing is read, and that is said.
func TestIKEFilesNeedAReader(t *testing.T) {
	for _, auth := range []string{"psk_file: /pki/psk", "certificate: /pki/a.pem, private_key: /pki/a.key, trust: [/pki/ca.pem]"} {
		_, err := Parse("a.yaml", []byte(strings.Replace(smallestIKE, "psk_file: /pki/psk", auth, 1)))
		if err == nil || !strings.Contains(err.Error(), "are not read here; use config.Load") {
			t.Errorf("%s: seen %v", auth, err)
		}
	}
}

// Who starts nothing cannot be behind a NAT: nobody would open the way for the peer.
// never-rekey starts.
func TestIKEResponderBehindNAT(t *testing.T) {
	for _, word := range responderWords {
		text := strings.Replace(smallestIKE, "keying: ike", "behind_nat: true\n    keying: ike", 1) + "profiles: {default: {responder_only: " + word + "}}\n"
		_, err := Parse("a.yaml", []byte(text), WithSecrets(testSecrets))
		refused := word != "off" && word != "never-rekey"
		if (err != nil) != refused || refused && !strings.Contains(err.Error(), "peers[0].behind_nat: found true") {
			t.Errorf("%s: expected refused %t, seen %v", word, refused, err)
		}
	}
}

// The words of the file and of the values are the same.
func TestIKEWords(t *testing.T) {
	for i, word := range responderWords {
		c := ikeConfig(t, smallestIKE+"profiles: {default: {responder_only: "+word+"}}\n")
		if got := c.Peers[0].IKE.Responder; got != ResponderOnly(i) || got.String() != word {
			t.Errorf("%s is read as %s", word, got)
		}
	}
	if ResponderOnly(99).String() != "unknown" || StartNow.String() != "now" || StartTraffic.String() != "traffic" {
		t.Error("words")
	}
	if auth.RevocationStrict.String() != "strict" || sad.TunnelMode.String() != "tunnel" {
		t.Error("words of others")
	}
}
