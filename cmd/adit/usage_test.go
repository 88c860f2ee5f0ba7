package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestExitCodes: 0 done, 1 failed, 2 bad usage or configuration, 3 negative.
func TestExitCodes(t *testing.T) {
	nobody := filepath.Join(t.TempDir(), "adit.sock")
	for _, c := range []struct {
		args string
		code int
		says string // on stderr; "": nothing
	}{
		{"", exitDone, ""},
		{"--help", exitDone, ""},
		{"version", exitDone, ""},
		{"sa", exitDone, ""},
		{"policy", exitDone, ""},
		{"check site-a.yaml", exitDone, ""},

		{"status --control " + nobody, exitFailed, "no gateway answers on " + nobody + ": is `adit run` running? use --control PATH"},
		{"status --wait 10ms --control " + nobody, exitFailed, "waited 10ms: no gateway answers"},
		{"counters --control " + nobody, exitFailed, "no gateway answers"},
		{"sa list --control " + nobody, exitFailed, "no gateway answers"},
		{"policy list --control " + nobody, exitFailed, "no gateway answers"},

		{"nonsense", exitUsage, `unknown command "nonsense"`},
		{"status extra", exitUsage, `unknown command "extra" for "adit status"`},
		{"status --nonsense", exitUsage, "unknown flag: --nonsense"},
		{"status -c broken.yaml", exitUsage, "broken.yaml:3:1: tunn"},
		{"check", exitUsage, "accepts 1 arg(s), received 0"},
		{"check broken.yaml", exitUsage, "broken.yaml:6:14: peers[0].address"},
		{"run", exitUsage, "no configuration: give one with -c FILE"},
		{"run -c broken.yaml", exitUsage, "broken.yaml:6:14: peers[0].address"},
		{"run -c site-a.yaml --log-format xml", exitUsage, "write text or json"},
		{"run -c site-a.yaml --log-level loud", exitUsage, "write debug, info, warn or error"},
		{"demo --seconds 0", exitUsage, "--seconds 0: write a number from 1 to"},
		{"demo --seconds few", exitUsage, "invalid argument"},

		{"check site-a.yaml --peer site-b-wrong.yaml", exitNegative, "the two ends do not mirror each other: 2 differences"},
	} {
		t.Run(c.args, func(t *testing.T) {
			_, stderr, code := aditIn(t, workplace(t), strings.Fields(c.args)...)
			if code != c.code {
				t.Errorf("exit code %d, want %d; it said: %s", code, c.code, stderr)
			}
			if !strings.Contains(stderr, c.says) || c.says == "" && stderr != "" {
				t.Errorf("stderr is %q, want %q", stderr, c.says)
			}
		})
	}
}

// TestBrokenFileTouchesNothing: `adit run` refuses it before it makes the state
// directory or the socket.
func TestBrokenFileTouchesNothing(t *testing.T) {
	dir := workplace(t)
	before := listing(t, dir)
	if _, _, code := aditIn(t, dir, "run", "-c", "broken.yaml"); code != exitUsage {
		t.Errorf("exit code %d, want %d", code, exitUsage)
	}
	if after := listing(t, dir); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, "\n")
}

func TestVersionJSONDecodes(t *testing.T) {
	stdout, _, _ := adit(t, "version", "--json")
	var v struct{ Version, Go, Platform string }
	if err := json.Unmarshal([]byte(stdout), &v); err != nil || v.Version == "" || v.Go == "" || v.Platform == "" {
		t.Errorf("got %+v, %v", v, err)
	}
}

// TestDemoInMemoryHolds: the demonstration that needs no privileges, and that it
// leaves nothing.
func TestDemoInMemoryHolds(t *testing.T) {
	for name, c := range map[string]struct {
		flags []string
		says  []string
	}{
		"ike": {nil, []string{
			"site-a: the peer is site-b.example.net, by its certificate and a signature (ecdsa)", "site-b: the peer is site-a.example.net",
			demoProposal, "held, and answered after", "2 for the Child SA, 1 for the IKE SA", "wire   IKE ",
		}},
		"manual": {[]string{"--manual"}, []string{"Keys are made for this run"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			stdout, stderr, code := adit(t, append([]string{"demo", "--memory", "--seconds", "1"}, c.flags...)...)
			if code != exitDone || !strings.Contains(stdout, "Everything held: nothing crossed the wire in clear.") {
				t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
			}
			for _, r := range demoRounds {
				c.says = append(c.says, r.title)
			}
			for _, text := range c.says {
				if !strings.Contains(stdout, text) {
					t.Errorf("the report lacks %q:\n%s", text, stdout)
				}
			}
			if left := listing(t, os.TempDir()); left != "" {
				t.Errorf("left behind: %s", left)
			}
		})
	}
}

func TestDemoInMemoryJSONDecodes(t *testing.T) {
	for _, keying := range []string{madeByIKE, madeByHand} {
		stdout, stderr, code := adit(t, append([]string{"demo", "--memory", "--seconds", "1", "--json"}, demoFlags[keying]...)...)
		checkDemoJSON(t, "memory", keying, stdout, stderr, code)
	}
}

var demoFlags = map[string][]string{madeByHand: {"--manual"}}

func checkDemoJSON(t *testing.T, mode, keying, stdout, stderr string, code int) {
	t.Helper()
	var report demoReport
	decoder := json.NewDecoder(strings.NewReader(stdout))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&report); err != nil {
		t.Fatalf("%v in %s%s", err, stdout, stderr)
	}
	if code != exitDone || !report.OK || report.Mode != mode || report.Keying != keying || len(report.Rounds) != len(demoRounds) {
		t.Fatalf("exit code %d: %+v", code, report)
	}
	for _, r := range report.Rounds {
		if r.Wire.Other != 0 || r.Wire.Marked != 0 || r.LAN.Marked == 0 || len(r.TCP) != 2 || r.TCP[0].Bytes == 0 {
			t.Errorf("%s: %+v", r.Title, r)
		}
		if n := r.Gateways[0].OutPackets; n == 0 || n > r.Wire.ESP+r.Wire.UDPESP {
			t.Errorf("%s: gateway A says it sent %d packets, the wire saw %d", r.Title, n, r.Wire.ESP+r.Wire.UDPESP)
		}
		if (r.IKE != nil) != (keying == madeByIKE) || (r.Wire.IKE > 0) != (keying == madeByIKE) {
			t.Fatalf("%s: keyed by %s, %d IKE messages, and %+v", r.Title, keying, r.Wire.IKE, r.IKE)
		}
		if r.IKE == nil {
			continue
		}
		// IKE_SA_INIT, IKE_INTERMEDIATE, IKE_AUTH, three rekeys, each with a delete.
		if r.Wire.IKE < 18 || r.IKE.IKESuite != demoProposal || !strings.HasPrefix(r.IKE.ChildSuite, r.Suite) ||
			r.IKE.First.Received != 1 || r.IKE.First.RTTSeconds <= 0 || r.IKE.Rekey.ChildSAs != 2 || r.IKE.Rekey.IKESAs != 1 || r.IKE.Rekey.Load.Sent < demoUDP {
			t.Errorf("%s: %d IKE messages, %+v", r.Title, r.Wire.IKE, r.IKE)
		}
	}
}

// TestDemoJudgesWhatItSaw: every proof can fail.
func TestDemoJudgesWhatItSaw(t *testing.T) {
	good := func() demoRound {
		return demoRound{
			Title: "round", Over: "udp",
			Pings: []demoPing{{Path: "p", Sent: 3, Received: 3}},
			TCP:   []demoTransfer{{Path: "t", Bytes: 1, SHA256Sent: "aa", SHA256Got: "aa"}},
			UDP:   []demoBurst{{Path: "u", Sent: 100, Received: 99, Intact: true}},
			Wire:  demoWire{Packets: 10, UDPESP: 10}, LAN: demoLAN{Marked: 1},
		}
	}
	for name, spoil := range map[string]func(*demoRound){
		"answered":                func(r *demoRound) { r.Pings[0].Received = 2 },
		"SHA-256 differs":         func(r *demoRound) { r.TCP[0].SHA256Got = "ab" },
		"98 of 100":               func(r *demoRound) { r.UDP[0].Received = 98 },
		"all intact: false":       func(r *demoRound) { r.UDP[0].Intact = false },
		"in clear":                func(r *demoRound) { r.Wire.Other = 1 },
		"marker was seen":         func(r *demoRound) { r.Wire.Marked = 1 },
		"observer missed":         func(r *demoRound) { r.Wire.Missed = 1 },
		"of the other":            func(r *demoRound) { r.Wire.ESP = 1 },
		"right encapsulation":     func(r *demoRound) { r.Wire.UDPESP = 0 },
		"absence on the wire":     func(r *demoRound) { r.LAN.Marked = 0 },
		"0 packets of the right ": func(r *demoRound) { r.Over = "none" },
		"keys are manual":         func(r *demoRound) { r.Wire.IKE = 1 },
	} {
		r := good()
		if r.judge(); len(r.Failures) != 0 {
			t.Fatalf("a good round failed: %v", r.Failures)
		}
		spoil(&r)
		if r.judge(); len(r.Failures) != 1 || !strings.Contains(r.Failures[0], name) {
			t.Errorf("want one failure with %q, got %q", name, r.Failures)
		}
	}
}

// TestDemoJudgesTheNegotiation: every proof of it can fail.
func TestDemoJudgesTheNegotiation(t *testing.T) {
	for name, spoil := range map[string]func(*demoIKE, *demoRound){
		"the first packet was lost":        func(i *demoIKE, _ *demoRound) { i.First.Received = 0 },
		"the first packet was lost: 0":     func(i *demoIKE, _ *demoRound) { i.First = demoPing{} },
		"1 gateways know":                  func(i *demoIKE, _ *demoRound) { i.Ends = i.Ends[:1] },
		`gateway b: peer ""`:               func(i *demoIKE, _ *demoRound) { i.Ends[1].Peer = "" },
		`proved itself by "psk"`:           func(i *demoIKE, _ *demoRound) { i.Ends[0].Proof = "psk" },
		"0 Child SAs and 1 IKE SAs":        func(i *demoIKE, _ *demoRound) { i.Rekey.ChildSAs = 0 },
		"2 Child SAs and 0 IKE SAs":        func(i *demoIKE, _ *demoRound) { i.Rekey.IKESAs = 0 },
		"99 of 100 datagrams came":         func(i *demoIKE, _ *demoRound) { i.Rekey.Load.Received = 99 },
		"came, all intact: false":          func(i *demoIKE, _ *demoRound) { i.Rekey.Load.Intact = false },
		"the wire carried no IKE message":  func(_ *demoIKE, r *demoRound) { r.Wire.IKE = 0 },
		"packets crossed the wire in clea": func(_ *demoIKE, r *demoRound) { r.Wire.Other = 1 },
	} {
		r := demoRound{
			Title: "round", Over: "udp", Wire: demoWire{Packets: 30, UDPESP: 10, IKE: 20}, LAN: demoLAN{Marked: 1},
			IKE: &demoIKE{
				Ends:  []demoEnd{{"a", "b.example.net", "ecdsa"}, {"b", "a.example.net", "ecdsa"}},
				First: demoPing{Sent: 1, Received: 1}, Rekey: demoRekey{ChildSAs: 2, IKESAs: 1, Load: demoBurst{Sent: 100, Received: 100, Intact: true}},
			},
		}
		if r.judge(); len(r.Failures) != 0 {
			t.Fatalf("a good round failed: %v", r.Failures)
		}
		spoil(r.IKE, &r)
		if r.judge(); len(r.Failures) != 1 || !strings.Contains(r.Failures[0], name) {
			t.Errorf("want one failure with %q, got %q", name, r.Failures)
		}
	}
}

// TestDemoConfigurationsMirrorEachOther: `adit check` finds nothing in what the
// demonstration writes, and no two runs have the same secrets.
func TestDemoConfigurationsMirrorEachOther(t *testing.T) {
	secrets := map[string]bool{}
	for i, sites := range []func(dir, suite, encap string) (a, b demoSite, err error){demoSites, demoIKESites, demoIKESites} {
		for _, spec := range demoRounds {
			a, b, err := sites(t.TempDir(), spec.suite, spec.encap)
			if err != nil {
				t.Fatal(err)
			}
			for _, end := range []struct {
				site       *demoSite
				own, other *memorySide
			}{{&a, &memoryA, &memoryB}, {&b, &memoryB, &memoryA}} {
				s := end.site
				s.Address, s.PeerAddress = end.own.outside.String(), end.other.outside.String()
				s.Local, s.Remote = []string{end.own.lan4, end.own.lan6}, []string{end.other.lan4, end.other.lan6}
				if err := s.write(); err != nil {
					t.Fatal(err)
				}
				secret := s.OutKeys.Encryption
				if s.Identity != nil {
					secret = string(s.Identity.key)
				}
				if secret == "" || i > 0 && secrets[secret] {
					t.Errorf("secret %q is not new", secret)
				}
				secrets[secret] = true
			}
			stdout, stderr, code := adit(t, "check", a.File, "--peer", b.File)
			if code != exitDone {
				t.Errorf("%s: exit code %d: %s%s", spec.title, code, stdout, stderr)
			}
		}
	}
}

// TestLogLevelsAndFormats holds the two formats.
func TestLogLevelsAndFormats(t *testing.T) {
	var b bytes.Buffer
	log, err := newLogger(&b, "json", "warn")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("not this")
	log.Warn("this")
	var entry struct{ Level, Msg string }
	if err := json.Unmarshal(b.Bytes(), &entry); err != nil || entry.Level != "WARN" || entry.Msg != "this" {
		t.Errorf("got %q, %v", b.String(), err)
	}
}
