package config

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/spd"
)

// edited is a file of testdata with some texts replaced, each exactly once.
func edited(t *testing.T, name string, pairs ...string) *Config {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for i := 0; i < len(pairs); i += 2 {
		if strings.Count(text, pairs[i]) != 1 {
			t.Fatalf("%q stands %d times in %s, expected once", pairs[i], strings.Count(text, pairs[i]), name)
		}
		text = strings.Replace(text, pairs[i], pairs[i+1], 1)
	}
	c, err := Parse(name, []byte(text))
	if err != nil {
		t.Fatalf("edited %s is refused:\n%v", name, err)
	}
	return c
}

func TestPairsOfTestdataMirrorEachOther(t *testing.T) {
	for _, pair := range [][2]string{{"site-a.yaml", "site-b.yaml"}, {"cbc-a.yaml", "cbc-b.yaml"}} {
		a, b := mustParse(t, "testdata/"+pair[0]), mustParse(t, "testdata/"+pair[1])
		usable(t, a)
		usable(t, b)
		if len(a.Warnings)+len(b.Warnings) != 0 {
			t.Errorf("%v: expected no warnings, seen %v %v", pair, a.Warnings, b.Warnings)
		}
		for _, d := range append(Mirror(a, b), Mirror(b, a)...) {
			t.Errorf("%v: expected no difference, seen %s", pair, d)
		}
	}
}

func TestMirrorNamesEveryFieldThatDiffers(t *testing.T) {
	for _, test := range []struct {
		name  string
		edits []string // of cbc-b.yaml
		want  []string
	}{
		{"address of the peer", []string{"address: 192.0.2.1\n", "address: 192.0.2.7\n"}, []string{
			`cbc-a.yaml:5:19: listen.address: this end listens on 192.0.2.1, and the other end's peer is 192.0.2.7 (other end: cbc-b.yaml:8:14)`}},
		{"address of the end", []string{"listen: {address: 192.0.2.2}", "listen: {address: 192.0.2.8}"}, []string{
			`cbc-a.yaml:8:14: peers[0].address: the peer is 192.0.2.2 here, and the other end listens on 192.0.2.8 (other end: cbc-b.yaml:5:19)`}},
		{"port", []string{"address: 192.0.2.2}", "address: 192.0.2.2, natt_port: 4600}", "keying: manual", "keying: manual\n    port: 4700"}, []string{
			`cbc-a.yaml:5:9: listen.natt_port: this end sends to port 4500, the other end listens on 4600 (other end: cbc-b.yaml:5:41)`,
			`cbc-a.yaml:5:9: listen.natt_port: this end listens on port 4500, the other end sends to 4700 (other end: cbc-b.yaml:10:11)`}},
		{"encapsulation", []string{"peers:", "profiles: {default: {encap: none}}\npeers:"}, []string{
			`cbc-a.yaml:1:1: profiles.default.encap: udp here, none at the other end (other end: cbc-b.yaml:6:29)`}},
		{"ESN and window", []string{"peers:", "profiles: {default: {esn: false, replay_window: 64}}\npeers:"}, []string{
			`cbc-a.yaml:1:1: profiles.default.esn: true here, false at the other end (other end: cbc-b.yaml:6:27)`,
			`cbc-a.yaml:1:1: profiles.default.replay_window: 4096 here, 64 at the other end (other end: cbc-b.yaml:6:49)`}},
		{"SPI", []string{"0x2001", "0x2009"}, []string{
			`cbc-a.yaml:11:31: peers[0].sas[0].spi: out is 0x2001 here, in is 0x2009 at the other end (other end: cbc-b.yaml:12:30)`}},
		{"both keys of one SA", []string{
			`encryption_key: "` + keyOf(t, "cbc-b.yaml", 0), `encryption_key: "` + strings.Repeat("5ca1ab1e", 4),
			`integrity_key: "` + keyOf(t, "cbc-b.yaml", 1), `integrity_key: "` + strings.Repeat("facade05", 8)}, []string{
			`cbc-a.yaml:12:76: peers[0].sas[1].encryption_key: the encryption key of in here is not that of out at the other end (other end: cbc-b.yaml:11:77)`,
			`cbc-a.yaml:12:127: peers[0].sas[1].integrity_key: the integrity key of in here is not that of out at the other end (other end: cbc-b.yaml:11:128)`}},
		{"suite", []string{"spi: 0x2001, suite: aes128-sha256, encryption_key: \"" + keyOf(t, "cbc-b.yaml", 2) + "\", ", "spi: 0x2001, suite: null-sha256, "}, []string{
			`cbc-a.yaml:11:46: peers[0].sas[0].suite: out is aes128-sha256 here, in is null-sha256 at the other end (other end: cbc-b.yaml:12:45)`}},
		{"selectors", []string{"local: [10.2.0.0/24], remote: [10.1.0.0/24]", "local: [10.2.0.0/25], remote: [10.1.0.0/16], protocol: tcp, local_ports: [80], remote_ports: [opaque, 99, 1-2]"}, []string{
			`cbc-a.yaml:14:24: policies[0].local: local is [10.1.0.0/24] here, remote is [10.1.0.0/16] at the other end (other end: cbc-b.yaml:14:47)`,
			`cbc-a.yaml:14:47: policies[0].remote: remote is [10.2.0.0/24] here, local is [10.2.0.0/25] at the other end (other end: cbc-b.yaml:14:24)`,
			`cbc-a.yaml:14:5: policies[0].protocol: protocol is any here, protocol is tcp at the other end (other end: cbc-b.yaml:14:72)`,
			`cbc-a.yaml:14:5: policies[0].local_ports: local_ports is [any] here, remote_ports is [1-2 99 opaque] at the other end (other end: cbc-b.yaml:14:110)`,
			`cbc-a.yaml:14:5: policies[0].remote_ports: remote_ports is [any] here, local_ports is [80] at the other end (other end: cbc-b.yaml:14:90)`}},
		{"policy more", []string{"policies:\n", "policies:\n  - {name: more, local: [10.9.0.0/24], remote: [10.8.0.0/24], action: protect, peer: site-a}\n"}, []string{
			`cbc-a.yaml:14:3: policies: the other end's policy "more" has no counterpart here (other end: cbc-b.yaml:14:5)`}},
		{"policy less", []string{"action: protect, peer: site-a", "action: bypass"}, []string{
			`cbc-a.yaml:14:5: policies[0]: policy "lan" has no counterpart at the other end (other end: cbc-b.yaml:14:3)`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, d := range Mirror(mustParse(t, "testdata/cbc-a.yaml"), edited(t, "cbc-b.yaml", test.edits...)) {
				got = append(got, d.String())
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("expected\n%s\nseen\n%s", strings.Join(test.want, "\n"), strings.Join(got, "\n"))
			}
		})
	}
}

// keyOf is the nth key of a file of testdata.
func keyOf(t *testing.T, name string, n int) string {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return hexRuns(string(data), 32)[n]
}

// TestMirrorTakesListsForWhatTheySay: another order, other ranges and another
// case of the hex digits are no difference, nor are other names.
func TestMirrorTakesListsForWhatTheySay(t *testing.T) {
	b := edited(t, "cbc-b.yaml",
		"local: [10.2.0.0/24], remote: [10.1.0.0/24]", `local: ["10.2.0.128-10.2.0.255", 10.2.0.0/25], remote: [10.1.0.0/24, 10.1.0.7]`,
		"name: site-a\n", "name: head-office\n", "peer: site-a", "peer: head-office", "name: lan", "name: to-head-office",
		keyOf(t, "cbc-b.yaml", 0), strings.ToUpper(keyOf(t, "cbc-b.yaml", 0)))
	for _, d := range Mirror(mustParse(t, "testdata/cbc-a.yaml"), b) {
		t.Errorf("expected no difference, seen %s", d)
	}
}

func TestMirrorOfStrangers(t *testing.T) {
	a := edited(t, "good/ipv6.yaml", "0x2001", "0x3001", "0x1001", "0x3002")
	b := mustParse(t, "testdata/site-b.yaml")
	got := Mirror(a, b)
	if len(got) != 1 || !strings.Contains(got[0].Text, "no peer of good/ipv6.yaml") {
		t.Errorf("expected one difference that no peers meet, seen %v", got)
	}
}

// TestMirrorLeavesThirdGatewaysAlone: of a hub's peers only the other end's
// counterpart is compared, and one that the other end does not know is named.
func TestMirrorLeavesThirdGatewaysAlone(t *testing.T) {
	more := func(address string) *Config {
		return edited(t, "cbc-a.yaml", "policies:", `  - name: site-c
    address: `+address+`
    keying: manual
    sas:
      - {direction: out, spi: 0x2003, suite: null-sha256, integrity_key: "`+strings.Repeat("5ca1ab1e", 8)+`"}
      - {direction: in, spi: 0x1003, suite: null-sha256, integrity_key: "`+strings.Repeat("facade05", 8)+`"}
policies:`)
	}
	b := mustParse(t, "testdata/cbc-b.yaml")
	if got := Mirror(more("192.0.2.3"), b); len(got) != 0 {
		t.Errorf("third gateway: expected no difference, seen %v", got)
	}
	got := Mirror(more("192.0.2.2"), b)
	if len(got) != 1 || got[0].Key != "peers[1]" {
		t.Errorf("a second peer at the other end's address: expected peers[1], seen %v", got)
	}
	if got := Mirror(b, more("192.0.2.2")); len(got) != 1 || got[0].Key != "peers" {
		t.Errorf("and from the other end: expected peers, seen %v", got)
	}
}

func TestMirrorPrintsNoKey(t *testing.T) {
	for _, d := range Mirror(mustParse(t, "testdata/cbc-a.yaml"), edited(t, "cbc-b.yaml", keyOf(t, "cbc-b.yaml", 0), strings.Repeat("5ca1ab1e", 4))) {
		if runs := hexRuns(d.String(), 8); len(runs) != 0 {
			t.Errorf("%v stands in %s", runs, d)
		}
	}
}

// TestMirrorComparesWhatBypassesProtection: a bypass before a protect policy
// sends in clear what the other end expects protected.
func TestMirrorComparesWhatBypassesProtection(t *testing.T) {
	with := func(file, bypass string) *Config {
		return edited(t, file, "policies:\n", "policies:\n  - {name: clear, "+bypass+"}\n")
	}
	const ssh = "local: [10.1.0.0/25], remote: [any], protocol: tcp, remote_ports: [22], action: bypass"
	plain := mustParse(t, "testdata/cbc-b.yaml")
	for bypass, differs := range map[string]bool{
		ssh: true,
		"local: [10.1.0.0/25], remote: [any], protocol: tcp, remote_ports: [22], action: discard": false,
		"local: [10.1.1.0/25], remote: [any], action: bypass":                                     false,
		"local: [any], remote: [10.0.0.0-10.2.0.0], protocol: icmp, action: bypass":               true,
		"local: [\"::/0\"], remote: [\"::/0\"], action: bypass":                                   false,
	} {
		a := with("cbc-a.yaml", bypass)
		if got := Mirror(a, plain); (len(got) == 1 && got[0].Key == "policies[0]") != differs || !differs && len(got) != 0 {
			t.Errorf("%s: expected a difference %v, seen %v", bypass, differs, got)
		}
		if got := Mirror(plain, a); (len(got) == 1 && got[0].Key == "policies") != differs || !differs && len(got) != 0 {
			t.Errorf("%s, from the other end: expected a difference %v, seen %v", bypass, differs, got)
		}
	}
	b := with("cbc-b.yaml", "local: [any], remote: [10.1.0.0/25], protocol: tcp, local_ports: [22], action: bypass")
	if got := Mirror(with("cbc-a.yaml", ssh), b); len(got) != 0 {
		t.Errorf("mirrored bypass: expected no difference, seen %v", got)
	}
	behind := edited(t, "cbc-a.yaml", "peer: site-b}", "peer: site-b}\n  - {name: clear, "+ssh+"}")
	if got := Mirror(behind, plain); len(got) != 0 {
		t.Errorf("bypass behind the protect policy: expected no difference, seen %v", got)
	}
}

func TestPortsMeet(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"any", "opaque", true}, {"opaque", "opaque", true}, {"80", "opaque", false}, {"1-5", "5-9", true}, {"1-5", "6-9", false},
		{"3", "1-5", true}, {"1,9", "2-8", false}, {"2-8", "5", true},
	} {
		ports := func(s string) spd.Ports {
			p, err := spd.ParsePorts(strings.Split(s, ",")...)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		a, b := ports(test.a), ports(test.b)
		if portsMeet(a, b) != test.want || portsMeet(b, a) != test.want {
			t.Errorf("%s and %s meet: expected %v", test.a, test.b, test.want)
		}
	}
}
