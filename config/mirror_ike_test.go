package config

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// ikeEnds are two files that mirror each other.
const ikeEndA = `version: 1
listen: {address: 192.0.2.1}
profiles:
  default: {suites: [aes128gcm16, aes256gcm16]}
peers:
  - name: b
    address: 192.0.2.2
    keying: ike
    ike:
      local_id: a.example.net
      remote_id: b.example.net
      auth: {psk_file: /pki/psk}
      proposals: [aes256gcm16-prfsha384-x25519-ke1_mlkem768, aes128-sha256-modp2048]
      ppk: {id: one, key_file: /pki/ppk}
policies:
  - {name: lan, local: [10.1.0.0/24], remote: [10.2.0.0/24], action: protect, peer: b}
`

const ikeEndB = `version: 1
listen: {address: 192.0.2.2}
profiles:
  default: {suites: [aes256gcm16]}
peers:
  - name: a
    address: 192.0.2.1
    keying: ike
    ike:
      local_id: b.example.net
      remote_id: a.example.net
      auth: {psk_file: /pki/psk}
      proposals: [aes128-sha256-modp2048]
      ppk: {id: one, key_file: /pki/ppk}
policies:
  - {name: lan, local: [10.2.0.0/24], remote: [10.1.0.0/24], action: protect, peer: a}
`

const (
	pskAuth  = "auth: {psk_file: /pki/psk}"
	certAuth = "auth: {certificate: /pki/a.pem, private_key: /pki/a.key, trust: [/pki/ca.pem]}"
	certBack = "auth: {certificate: /pki/b.pem, private_key: /pki/b.key, trust: [/pki/ca.pem]}"
	rawAuth  = "auth: {private_key: /pki/a.key, public_key: /pki/b.pub}"
	rawBack  = "auth: {private_key: /pki/b.key, public_key: /pki/a.pub}"
	ppk      = "      ppk: {id: one, key_file: /pki/ppk}\n"
)

// ikeEnd is a text with pairs replaced; each must be there.
func ikeEnd(t *testing.T, text string, pairs []string) *Config {
	t.Helper()
	for i := 0; i+1 < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("%q does not stand in\n%s", pairs[i], text)
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return ikeConfig(t, text)
}

func TestMirrorIKE(t *testing.T) {
	for _, c := range []struct {
		name string
		a, b []string // edits
		want []string // key: text, of Mirror(a, b)
	}{
		{"the same", nil, nil, nil},
		{"certificates", []string{pskAuth, certAuth}, []string{pskAuth, certBack}, nil},
		{"raw keys", []string{pskAuth, rawAuth}, []string{pskAuth, rawBack}, nil},
		{"the very certificate", []string{pskAuth, strings.Replace(certAuth, "ca.pem", "b.pem", 1)}, []string{pskAuth, strings.Replace(certBack, "ca.pem", "a.pem", 1)}, nil},
		{"any address, any identity", nil, []string{"address: 192.0.2.1\n", "address: any\n", "remote_id: a.example.net", "remote_id: any"}, nil},
		{"one end waits", nil, []string{"suites: [aes256gcm16]", "suites: [aes256gcm16], responder_only: full"}, nil},
		{"no post-quantum key at either end", []string{ppk, ""}, []string{ppk, ""}, nil},
		{"one that is not required", []string{"/pki/ppk}", "/pki/ppk, required: false}"}, []string{ppk, ""}, nil},
		{"what an end chooses alone", []string{"suites:", "esn: false, replay_window: 64, lifetime: {soft: 10m}, suites:"}, nil, nil},

		{"identities", []string{"local_id: a.example.net", "local_id: c.example.net", "remote_id: b.example.net", "remote_id: d.example.net"}, nil, []string{
			"peers[0].ike.local_id: local_id is c.example.net here, remote_id is a.example.net at the other end",
			"peers[0].ike.remote_id: remote_id is d.example.net here, local_id is b.example.net at the other end"}},
		{"pre-shared keys", nil, []string{"/pki/psk}", "/pki/psk-other}"}, []string{
			"peers[0].ike.auth.psk_file: the pre-shared key here is not that of the other end"}},
		{"a pre-shared key and a private one", []string{pskAuth, certAuth}, nil, []string{
			"peers[0].ike.auth: a private key here, a pre-shared key at the other end"}},
		{"an authority that is not trusted", []string{pskAuth, certAuth}, []string{pskAuth, strings.Replace(certBack, "ca.pem", "other-ca.pem", 1)}, []string{
			"peers[0].ike.auth.certificate: the other end does not believe the certificate of this end"}},
		{"here", []string{pskAuth, strings.Replace(certAuth, "ca.pem", "other-ca.pem", 1)}, []string{pskAuth, certBack}, []string{
			"peers[0].ike.auth.trust: this end does not believe the certificate of the other end"}},
		{"raw keys of somebody else", []string{pskAuth, strings.Replace(rawAuth, "b.pub", "rsa.pub", 1)}, []string{pskAuth, strings.Replace(rawBack, "a.pub", "rsa.pub", 1)}, []string{
			"peers[0].ike.auth.private_key: the other end does not believe the raw key of this end",
			"peers[0].ike.auth.public_key: this end does not believe the raw key of the other end"}},
		{"a raw key where a certificate is wanted", []string{pskAuth, strings.Replace(certAuth, "certificate: /pki/a.pem, ", "", 1)}, []string{pskAuth, certBack}, []string{
			"peers[0].ike.auth.private_key: the other end does not believe the raw key of this end"}},
		{"proposals", []string{"aes128-sha256-modp2048", "aes128-sha256-x25519"}, nil, []string{
			"peers[0].ike.proposals: no common proposal: aes256gcm16-prfsha384-x25519-ke1_mlkem768, aes128-sha256-x25519 here, aes128-sha256-modp2048 at the other end; nearest fix: add modp2048 to ours"}},
		{"suites", []string{", aes256gcm16]", "]"}, nil, []string{
			"profiles.default.suites: no common proposal: aes128gcm16-esn-noesn here, aes256gcm16-esn-noesn at the other end; nearest fix: add aes256gcm16 to ours"}},
		{"forward secrecy", []string{"suites:", "pfs: [x25519], suites:"}, []string{"suites:", "pfs: off, suites:"}, []string{
			"profiles.default.pfs: no common proposal: aes128gcm16-x25519-esn-noesn, aes256gcm16-x25519-esn-noesn here, aes256gcm16-esn-noesn at the other end; nearest fix: theirs has no ke: let the peer add x25519, or take it out of ours"}},
		{"mode", []string{"suites:", "mode: transport, suites:", "10.1.0.0/24", "192.0.2.1", "10.2.0.0/24", "192.0.2.2"}, []string{"10.1.0.0/24", "192.0.2.1", "10.2.0.0/24", "192.0.2.2"}, []string{
			"profiles.default.mode: transport here, tunnel at the other end"}},
		{"protocol", []string{"suites: [aes128gcm16, aes256gcm16]", "protocol: ah"}, nil, []string{
			"profiles.default.protocol: ah here, esp at the other end"}},
		{"encap", []string{"suites:", "encap: none, suites:"}, []string{"suites:", "encap: udp, suites:"}, []string{
			"profiles.default.encap: none here, udp at the other end"}},
		{"neither starts", []string{"suites:", "responder_only: full, suites:"}, []string{"suites:", "responder_only: passive, suites:"}, []string{
			"profiles.default.responder_only: responder_only: full here, responder_only: passive at the other end: neither end starts"}},
		{"neither starts: any", []string{"suites:", "responder_only: never-initiate, suites:"}, []string{"address: 192.0.2.1\n", "address: any\n"}, []string{
			"profiles.default.responder_only: responder_only: never-initiate here, `address: any` at the other end: neither end starts"}},
		{"addresses", []string{"address: 192.0.2.2\n", "address: 192.0.2.3\n"}, nil, []string{
			"peers[0].address: the peer is 192.0.2.3 here, and the other end listens on 192.0.2.2"}},
		{"ports", []string{"    ike:\n", "    ike:\n      port: 501\n      natt_port: 4501\n"}, []string{"listen: {", "listen: {ike_port: 502, "}, []string{
			"peers[0].ike.port: this end sends to port 501, the other end listens on 502",
			"peers[0].ike.natt_port: this end sends to port 4501, the other end listens on 4500"}},
		{"ports of this end", []string{"listen: {", "listen: {ike_port: 502, "}, nil, []string{
			"listen.ike_port: this end listens on port 502, the other end sends to 500"}},
		{"ports of an end behind a NAT", nil, []string{"listen: {", "listen: {ike_port: 502, natt_port: 4502, ", "    keying: ike", "    behind_nat: true\n    keying: ike"}, nil},
		{"ports of an end that nobody sends to first", nil, []string{"address: 192.0.2.1\n", "address: any\n", "    ike:\n", "    ike:\n      port: 507\n"}, nil},
		{"a post-quantum key that one end lacks", nil, []string{ppk, ""}, []string{
			"peers[0].ike.ppk: one end requires a post-quantum pre-shared key, the other end has none"}},
		{"names of post-quantum keys", nil, []string{"id: one", "id: two"}, []string{
			"peers[0].ike.ppk.id: \"one\" here, \"two\" at the other end"}},
		{"post-quantum keys", nil, []string{"/pki/ppk}", "/pki/psk-other}"}, []string{
			"peers[0].ike.ppk.key_file: the post-quantum pre-shared key here is not that of the other end"}},
		{"policies", []string{"10.1.0.0/24", "10.1.0.0/25"}, nil, []string{
			"policies[0].local: local is [10.1.0.0/25] here, remote is [10.1.0.0/24] at the other end"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := ikeEnd(t, ikeEndA, c.a), ikeEnd(t, ikeEndB, c.b)
			var got []string
			for _, d := range Mirror(a, b) {
				got = append(got, d.Key+": "+d.Text)
				for _, secret := range []string{testPSK, otherPSK, testPPKDigit} {
					if strings.Contains(d.String(), secret) {
						t.Errorf("a secret stands in %s", d)
					}
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("expected\n%s\nseen\n%s", strings.Join(c.want, "\n"), strings.Join(got, "\n"))
			}
			// What does not fit at one end does not fit at the other.
			if (len(Mirror(b, a)) == 0) != (len(c.want) == 0) {
				t.Errorf("from the other end: %v", Mirror(b, a))
			}
		})
	}
}

func TestMirrorIKEAndManualKeys(t *testing.T) {
	data, err := os.ReadFile("testdata/cbc-b.yaml")
	if err != nil {
		t.Fatal(err)
	}
	manual, err := Parse("b.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	got := Mirror(ikeConfig(t, ikeEndA), manual)
	if len(got) != 1 || got[0].Key != "peers[0].keying" || got[0].Text != "ike here, manual at the other end" {
		t.Errorf("seen %v", got)
	}
}

// Two gateways with `listen` any and peers with `address: any` are told apart by
// their identities, not taken for each other because both have no address.
func TestMirrorPairsIKEPeersByIdentity(t *testing.T) {
	two := func(local, first, second string) string {
		text := "version: 1\npeers:\n"
		for _, remote := range []string{first, second} {
			text += "  - {name: " + remote[:1] + ", address: any, keying: ike, ike: {local_id: " + local + ", remote_id: " + remote + ", auth: {psk_file: /pki/psk}}}\n"
		}
		return text + "policies:\n  - {name: lan, local: [any], remote: [any], action: bypass}\n"
	}
	a := ikeConfig(t, two("a.example.net", "b.example.net", "c.example.net"))
	c := ikeConfig(t, two("c.example.net", "b.example.net", "a.example.net"))
	m := &mirror{a: a, b: c}
	if got := m.pair(); len(got) != 1 || got[0] != [2]int{1, 1} || len(m.list) != 0 {
		t.Errorf("expected peer 1 and peer 1, seen %v, %v", got, m.list)
	}
}
