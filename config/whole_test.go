package config

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/ah"
	"github.com/adit-ipsec/adit/sad"
)

// AH, transport mode, bundles and classes of traffic.

// otherEnd is the file that mirrors a file of testdata/good, with some texts
// replaced after that wherever they stand. A receiver names no classes.
func otherEnd(t *testing.T, name string, pairs ...string) *Config {
	t.Helper()
	data, err := os.ReadFile("testdata/good/" + name)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("direction: out", "direction: in", "direction: in", "direction: out", "192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.1",
		"2001:db8::1", "2001:db8::2", "2001:db8::2", "2001:db8::1", "remote_ports", "local_ports").Replace(string(data))
	if !strings.Contains(text, "mode: transport") { // else the selectors are the ends
		text = strings.NewReplacer("local: [", "remote: [", "remote: [", "local: [").Replace(text)
	}
	text = regexp.MustCompile(`, dscp: \[[^]]*\]`).ReplaceAllString(text, "")
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("%q does not stand in the other end of %s", pairs[i], name)
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	c, err := Parse("other.yaml", []byte(text))
	if err != nil {
		t.Fatalf("the other end of %s is refused:\n%v", name, err)
	}
	return c
}

func TestMirrorKnowsAHTransportAndClasses(t *testing.T) {
	same := func(name string, b *Config) {
		a := mustParse(t, "testdata/good/"+name)
		usable(t, b)
		for _, d := range append(Mirror(a, b), Mirror(b, a)...) {
			t.Errorf("%s: expected no difference, seen %s", name, d)
		}
	}
	for _, name := range []string{"ah.yaml", "ah-gmac.yaml", "ah-esp.yaml", "transport.yaml", "transport-ah.yaml", "dscp-no-rest.yaml"} {
		same(name, otherEnd(t, name))
	}
	same("transport-nat.yaml", mustParse(t, "testdata/good/transport-nat-peer.yaml"))
	// The other end receives three SAs, and sends two: how it shares its own
	// traffic out is its own matter.
	same("dscp-classes.yaml", otherEnd(t, "dscp-classes.yaml", "out, spi: 0x1002", "out, dscp: [46], spi: 0x1002"))
}

func TestMirrorNamesWhatDiffersInAHTransportAndClasses(t *testing.T) {
	const more = `  - {direction: in, spi: 0x2004, suite: null-sha256, integrity_key: "0097e9c072098f1d29554ce11e6c77e1bd8ee27eaffb2eab9db7a8f3ab582ede"}` + "\npolicies:"
	for _, test := range []struct {
		name, file string
		edits      []string // of the other end
		want       []string // key: text
	}{
		{"protocol", "transport-ah.yaml", []string{"protocol: ah, mode: transport", "mode: transport", "suite: sha256", "suite: null-sha256"}, []string{
			"profiles.default.protocol: ah here, esp at the other end",
			"profiles.default.encap: none here, udp at the other end"}},
		{"mode", "transport-ah.yaml", []string{"protocol: ah, mode: transport", "protocol: ah"}, []string{
			"profiles.default.mode: transport here, tunnel at the other end"}},
		{"SPI of AH", "ah-esp.yaml", []string{"in, spi: 0x2001, suite: sha256", "in, spi: 0x2009, suite: sha256"}, []string{
			"peers[0].sas[1].spi: ah out is 0x2001 here, ah in is 0x2009 at the other end"}},
		{"suite of AH", "ah-gmac.yaml", []string{"suite: sha1", "suite: aes192gmac", keyAt(t, "good/ah-gmac.yaml", 1), strings.Repeat("5ca1ab1e", 7)}, []string{
			"peers[0].sas[1].suite: ah in is sha1 here, ah out is aes192gmac at the other end"}},
		{"key of AH", "ah.yaml", []string{keyAt(t, "good/ah.yaml", 1), strings.Repeat("5ca1ab1e", 8)}, []string{
			"peers[0].sas[1].integrity_key: the integrity key of ah in here is not that of ah out at the other end"}},
		{"a class less and one more", "dscp-classes.yaml", []string{
			"direction: in, spi: 0x2002", "direction: out, dscp: [9], spi: 0x2005", "out, spi: 0x1002", "out, dscp: [46], spi: 0x1002"}, []string{
			"peers[0].sas[1]: out 0x2002 has no counterpart at the other end",
			"peers[0].sas: the other end's out 0x2005 has no counterpart here"}},
		{"an inbound SA more", "dscp-no-rest.yaml", []string{"policies:", "    " + more}, []string{
			"peers[0].sas: the other end's in 0x2004 has no counterpart here"}},
		{"both behind a NAT", "behind-nat.yaml", nil, []string{
			"peers[0].behind_nat: true at both ends: neither can reach the other first",
			"peers[1].behind_nat: true at both ends: neither can reach the other first"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, d := range Mirror(mustParse(t, "testdata/good/"+test.file), otherEnd(t, test.file, test.edits...)) {
				got = append(got, d.Key+": "+d.Text)
				if runs := hexRuns(d.String(), 8); len(runs) != 0 {
					t.Errorf("%v stands in %s", runs, d)
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("expected\n%s\nseen\n%s", strings.Join(test.want, "\n"), strings.Join(got, "\n"))
			}
		})
	}
}

// keyAt is the nth key of a file of testdata, of any length.
func keyAt(t *testing.T, name string, n int) string {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return hexRuns(string(data), 24)[n]
}

// TestMirrorOfOriginalAddresses: in front of the NATs there is one pair of
// addresses, which the two ends name the other way round.
func TestMirrorOfOriginalAddresses(t *testing.T) {
	a := edited(t, "good/transport-nat.yaml", "original_local: 10.0.0.5", "original_local: 10.0.0.6")
	b := mustParse(t, "testdata/good/transport-nat-peer.yaml")
	got := Mirror(a, b)
	if len(got) != 1 || got[0].Key != "peers[0].original_local" || got[0].Text != "original_local is 10.0.0.6 here, original_remote is 10.0.0.5 at the other end" {
		t.Errorf("expected original_local, seen %v", got)
	}
	none := edited(t, "good/transport-nat-peer.yaml", "    original_local: 192.0.2.2\n    original_remote: 10.0.0.5\n", "",
		"remote: [198.51.100.1], protocol: udp", "remote: [198.51.100.1], protocol: tcp")
	got = Mirror(none, a)
	if len(got) != 3 || got[0].Text != "original_local is none here, original_remote is 192.0.2.2 at the other end" || got[2].Key != "policies[0].protocol" {
		t.Errorf("expected both addresses and the selector, seen %v", got)
	}
}

// TestRFC7296_2_23_1_TransportPoliciesNameWhatPacketsCarry: the address in front
// of the peer's NAT is in no packet here, so that a policy with it would carry
// nothing. The two ends mirror each other though each knows the other by another
// address; what one of them bypasses included.
func TestRFC7296_2_23_1_TransportPoliciesNameWhatPacketsCarry(t *testing.T) {
	data, err := os.ReadFile("testdata/good/transport-nat-peer.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(data), "remote: [198.51.100.1]", "remote: [10.0.0.5]", 1)
	if _, err := Parse("peer.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), "policies[0].remote") || !strings.Contains(err.Error(), "write [198.51.100.1]") {
		t.Errorf("expected the original address to be refused, seen %v", err)
	}
	const ssh = "policies:\n  - {name: ssh, local: [%s], remote: [%s], protocol: tcp, action: bypass}\n"
	a := edited(t, "good/transport-nat.yaml", "policies:\n", fmt.Sprintf(ssh, "10.0.0.5", "192.0.2.2"), "protocol: udp", "protocol: any")
	b := edited(t, "good/transport-nat-peer.yaml", "policies:\n", fmt.Sprintf(ssh, "192.0.2.2", "198.51.100.1"), "protocol: udp", "protocol: any")
	for _, d := range append(Mirror(a, b), Mirror(b, a)...) {
		t.Errorf("expected no difference, seen %s", d)
	}
}

// TestRFC4301_4_1_SPIAndProtocolSelectOneSA: "an implementation may choose to use
// the SPI in conjunction with the IPsec protocol type (AH or ESP) for SA
// identification"; and it "MUST permit establishment and maintenance of multiple
// SAs between a given sender and receiver, with the same selectors". What the file
// may say is what a database takes.
func TestRFC4301_4_1_SPIAndProtocolSelectOneSA(t *testing.T) {
	for _, name := range []string{"ah-esp", "dscp-classes"} {
		db := sad.NewDatabase()
		c := mustParse(t, "testdata/good/"+name+".yaml")
		for _, p := range c.SAParams() {
			sa, err := sad.New(p)
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Install(sa); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestEverySuiteOfAHIsTaken with a key of its length, inline and in the profile;
// the counter modes among them need allow_manual_aead and resume their numbers.
func TestEverySuiteOfAHIsTaken(t *testing.T) {
	for _, suite := range ah.Suites() {
		text := fmt.Sprintf(`version: 1
allow_legacy: true
listen: {address: 192.0.2.1}
profiles: {default: {protocol: ah, suites: [%s]}}
peers:
  - name: b
    address: 192.0.2.2
    keying: manual
    sas:
      - {direction: out, spi: 0x2001, suite: %s, integrity_key: "%s"}
      - {direction: in, spi: 0x1001, suite: %s, integrity_key: "%s"}
`, suite, suite, strings.Repeat("5ca1ab1e", 16)[:2*suite.KeyLen()], suite, strings.Repeat("facade05", 16)[:2*suite.KeyLen()])
		_, err := Parse("x", []byte(text))
		if suite.CounterMode() == (err == nil) || err != nil && !strings.Contains(err.Error(), "RFC 8221 section 3") {
			t.Errorf("%s without allow_manual_aead: %v", suite, err)
		}
		c, err := Parse("x", []byte(text+"allow_manual_aead: true\n"))
		if err != nil {
			t.Errorf("%s: %v", suite, err)
			continue
		}
		usable(t, c)
		if got := c.NeedsSequenceStore(); got != suite.CounterMode() {
			t.Errorf("%s: NeedsSequenceStore is %t", suite, got)
		}
		if got := c.Profiles["default"].AHSuites; !slices.Equal(got, []ah.Suite{suite}) {
			t.Errorf("%s: the profile has %v", suite, got)
		}
	}
}
