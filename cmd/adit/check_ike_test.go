package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/config"
)

const checkedSecret = "nLzG0m8bq0dPp6Xcs1rM2uYvQk7wTf5e"

// ikeFile writes a file with a peer that has a secret, and one with certificates.
func ikeFile(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	site, _, err := demoIKESites(dir, "aes128gcm16", "auto")
	if err != nil {
		t.Fatal(err)
	}
	if err := site.Identity.write(); err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("DIR", dir, "CERT", site.Identity.Certificate, "KEY", site.Identity.Key, "CA", site.Identity.Trust).Replace(`version: 1
name: site-a
listen: {address: 192.0.2.1}
profiles:
  default: {}
  standby: {responder_only: full}
peers:
  - name: site-b
    address: 192.0.2.2
    keying: ike
    ike: {local_id: a.example.net, remote_id: b.example.net, auth: {psk_file: DIR/ab.psk}, start: now}
  - name: site-c
    address: any
    profile: standby
    keying: ike
    ike:
      local_id: site-a.example.net
      remote_id: c.example.net
      dpd: off
      proposals: [aes256gcm16-prfsha384-ecp384]
      auth: {certificate: CERT, private_key: KEY, trust: [CA]}
policies:
  - {name: lan, local: [10.1.0.0/24], remote: [10.2.0.0/24], action: protect, peer: site-b}
  - {name: c, local: [10.1.0.0/24], remote: [10.3.0.0/24], action: protect, peer: site-c}
`)
	file := filepath.Join(dir, "a.yaml")
	for name, content := range map[string]string{file: text, filepath.Join(dir, "ab.psk"): checkedSecret} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

// TestCheckSaysWhatIKEWillDo: who the ends are, by what they are believed, who begins,
// what is proposed, the ports, the MTU that is left, and what the wire will see; and no
// secret.
func TestCheckSaysWhatIKEWillDo(t *testing.T) {
	file := ikeFile(t)
	stdout, stderr, code := adit(t, "check", file)
	if code != exitDone {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	until := time.Now().Add(-time.Hour).AddDate(1, 0, 0).UTC().Format("2006-")
	for _, want := range []string{
		"Listen   UDP 500 and UDP 4500 on 192.0.2.1",
		"PEER    ADDRESS    BEGINS    OUR ID              PROVED BY",
		"site-b  192.0.2.2  at once   a.example.net       psk",
		"b.example.net  psk                         4h0m   30s  -\n",
		"site-c  any        the peer  site-a.example.net  certificate until " + until,
		"c.example.net  certificate of 1 authority  4h0m   off  responder_only full\n",
		"site-c  IKE SA      -       aes256gcm16-prfsha384-ecp384",
		"site-b  policy lan  tunnel  ",
		"lan         protect  site-b  10.1.0.0/24  10.2.0.0/24  any       encrypted\n",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("there is no %q in:\n%s", want, stdout)
		}
	}
	for _, not := range []string{checkedSecret, "SPI", "auto: 1500", "warning:"} {
		if strings.Contains(stdout, not) {
			t.Errorf("there is %q in:\n%s", not, stdout)
		}
	}
	stdout, _, _ = adit(t, "check", file, "--json")
	var report checkReport
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || strings.Contains(stdout, checkedSecret) {
		t.Fatalf("%v: %s", err, stdout)
	}
	if list := report.Meaning.IKE; len(list) != 2 || list[0].BelievedBy != "psk" || list[0].DPDSeconds != 30 || len(list[0].Children) != 1 ||
		list[0].Children[0].Policy != "lan" || len(list[0].Children[0].Proposals) == 0 || list[1].Address != "" || list[1].ResponderOnly != "full" {
		t.Errorf("%+v", list)
	}
}

// TestCertificatesNearTheirEndAreSpokenOf: by check and run, before a peer refuses them
// and only its log says why.
func TestCertificatesNearTheirEndAreSpokenOf(t *testing.T) {
	cfg, err := config.Load(ikeFile(t))
	if err != nil {
		t.Fatal(err)
	}
	end := cfg.Peers[1].IKE.Local.Chain[0].NotAfter
	for _, c := range []struct {
		now  time.Time
		says string // "": nothing
	}{
		{time.Now(), ""},
		{end.Add(-15 * 24 * time.Hour), ""},
		{end.Add(-3 * 24 * time.Hour), "ends in 3d0h, at " + end.UTC().Format(time.RFC3339)},
		{end.Add(time.Second), "has expired at " + end.UTC().Format(time.RFC3339)},
		{end.AddDate(-3, 0, 0), "this clock says " + end.AddDate(-3, 0, 0).UTC().Format(time.RFC3339)},
	} {
		notes := certificateNotes(cfg, c.now)
		if c.says == "" {
			if len(notes) != 0 {
				t.Errorf("%s: %v", c.now, notes)
			}
			continue
		}
		if len(notes) != 2 {
			t.Fatalf("%s: %d notes, want one for this end and one for the authority: %v", c.now, len(notes), notes)
		}
		text := notes[0].String()
		if !strings.Contains(text, c.says) || !strings.Contains(text, "site-a.example.net") || !strings.Contains(text, "a.yaml:21:") || !strings.Contains(text, "peers[1].ike.auth.certificate") {
			t.Errorf("%s: %s", c.now, text)
		}
	}
}
