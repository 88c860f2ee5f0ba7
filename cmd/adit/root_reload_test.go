package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/config"
)

// hangup sends SIGHUP and waits until the log holds want once more than before.
func (r *running) hangup(t *testing.T, want string) {
	t.Helper()
	before := strings.Count(r.log.String(), want)
	if err := r.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for strings.Count(r.log.String(), want) == before {
		if time.Now().After(deadline) {
			t.Fatalf("no %q in the log:\n%s", want, r.log)
		}
		time.Sleep(5 * time.Millisecond) // the log is the only sign there is
	}
}

// TestRootReloadSwapsOnlyWhatChanged: a bad file and a forbidden change leave
// everything as it is; new keys and policies come into force.
func TestRootReloadSwapsOnlyWhatChanged(t *testing.T) {
	s := newSites(t, "aes128gcm16", "udp")
	before := hostState(t, s.A.Gateway)
	a, b := s.start(t, s.A.Gateway, &s.a), s.start(t, s.B.Gateway, &s.b)
	s.mustPing(t, "at the start", a, b)
	good, err := os.ReadFile(s.a.File)
	if err != nil {
		t.Fatal(err)
	}
	up := hostState(t, s.A.Gateway)

	const applied, refused = "the file is applied again", "the file was not applied, nothing has changed"
	for _, change := range [][2]string{
		{"version: 1", "version: one"},
		{"name: adit0", "name: adit1"},
		{"address: " + s.a.Address + "\nprofiles", "address: " + s.a.Address + "\n  natt_port: 4501\nprofiles"},
	} {
		rewrite(t, s.a.File, change[0], change[1])
		a.hangup(t, refused)
		if err := os.WriteFile(s.a.File, good, 0o600); err != nil {
			t.Fatal(err)
		}
		if now := hostState(t, s.A.Gateway); now != up {
			t.Errorf("%q changed the host from\n%s\nto\n%s", change, up, now)
		}
		s.mustPing(t, "after a refused reload", a, b)
	}

	// The same file: not one SA starts anew.
	numbers := s.sequences(t)
	a.hangup(t, applied)
	if now := s.sequences(t); now != numbers {
		t.Errorf("sequence numbers before %s, after a reload of the same file %s", numbers, now)
	}
	s.mustPing(t, "after a reload of the same file", a, b)

	// New keys from A to B, at both ends: that one direction is swapped.
	suite, err := config.Load(s.a.File)
	if err != nil {
		t.Fatal(err)
	}
	fresh := newDemoKeys(suite.SAParams()[0].Suite)
	for _, end := range []struct {
		site *demoSite
		run  *running
	}{{&s.a, a}, {&s.b, b}} {
		rewrite(t, end.site.File, s.a.OutKeys.Encryption, fresh.Encryption)
		end.run.hangup(t, applied)
		if !strings.Contains(end.run.log.String(), "sas_removed=1 sas_installed=1") {
			t.Errorf("not one SA was swapped:\n%s", end.run.log)
		}
	}
	s.mustPing(t, "with new keys", a, b)

	// A policy for another prefix, then a discard in front of all.
	rewrite(t, s.a.File, `remote: ["10.2.0.0/24"`, `remote: ["10.7.0.0/24", "10.2.0.0/24"`)
	a.hangup(t, applied)
	if now := hostState(t, s.A.Gateway); !strings.Contains(now, "10.7.0.0/24") {
		t.Errorf("no route for the new prefix:\n%s", now)
	}
	s.mustPing(t, "with a new policy", a, b)
	rewrite(t, s.a.File, "policies:\n", "policies:\n  - {name: stop, local: [any], remote: [any], action: discard}\n")
	a.hangup(t, applied)
	if stats := s.ping(t, s.B.Host4); stats.Received != 0 {
		t.Errorf("with a discard in front of all: %s", stats)
	}
	a.stop(t)
	b.stop(t)
	if after := hostState(t, s.A.Gateway); after != before {
		t.Errorf("the host before:\n%s\nand after:\n%s", before, after)
	}
}

// sequences is gateway A's SAs with their sequence numbers.
func (s *sites) sequences(t *testing.T) string {
	t.Helper()
	var sas struct {
		SAs []struct {
			Direction         string
			Sequence, Packets uint64
		} `json:"sas"`
	}
	stdout, _, _ := adit(t, "sa", "list", "--json", "-c", s.a.File)
	if err := json.Unmarshal([]byte(stdout), &sas); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(sas.SAs)
}
