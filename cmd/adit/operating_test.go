package main

import (
	"bufio"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestOperatingGuideExampleIsValid: the file in docs/operating.md passes
// `adit check`, once its key files exist.
func TestOperatingGuideExampleIsValid(t *testing.T) {
	page := readFile(t, "../../docs/operating.md")
	_, rest, ok := strings.Cut(page, "```yaml\n")
	text, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatal("docs/operating.md has no yaml block")
	}
	dir := t.TempDir()
	for _, key := range []string{"ab.enc", "ab.int", "ba.enc", "ba.int"} {
		if err := os.WriteFile(filepath.Join(dir, key), []byte(randomHex(32)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "adit.yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "/etc/adit", dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := adit(t, "check", file)
	if code != exitDone || strings.Contains(stdout, "warning:") {
		t.Errorf("exit code %d:\n%s%s", code, stdout, stderr)
	}
}

// TestOperatingGuideNamesOnlyRealCommands: every `adit …` of the guide is
// understood, flags included.
func TestOperatingGuideNamesOnlyRealCommands(t *testing.T) {
	page := readFile(t, "../../docs/operating.md") + readFile(t, "../../docs/adit.service")
	found := 0
	for _, m := range regexp.MustCompile("(?m)(?:`|^|/sbin/)adit ((?:[a-z]+)(?: [^`#\n]*)?)").FindAllStringSubmatch(page, -1) {
		args := strings.Fields(m[1])
		command, rest, err := newRootCommand().Find(args)
		if err != nil || command.Parent() == nil {
			t.Errorf("adit %s: no such command (%v)", m[1], err)
			continue
		}
		if err := command.ParseFlags(rest); err != nil {
			t.Errorf("adit %s: %v", m[1], err)
		}
		found++
	}
	if found < 10 {
		t.Errorf("%d commands found, expected at least 10: does the expression still fit?", found)
	}
}

// TestUnitIsWellFormed: sections and assignments only, and what the gateway
// counts on.
func TestUnitIsWellFormed(t *testing.T) {
	have := map[string]string{}
	section := ""
	lines := bufio.NewScanner(strings.NewReader(readFile(t, "../../docs/adit.service")))
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		name, value, assigns := strings.Cut(line, "=")
		switch {
		case line == "", strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]"):
			section = strings.Trim(line, "[]")
		case !assigns || section == "" || strings.TrimSpace(name) != name || value == "":
			t.Errorf("line %d is neither a section nor NAME=VALUE: %q", n, line)
		default:
			have[section+"."+name] = value
		}
	}
	for name, want := range map[string]string{
		"Service.Type":                  "notify-reload", // run says READY, RELOADING and READY again
		"Service.WatchdogSec":           "10",
		"Service.RuntimeDirectory":      "adit",                                           // the default control socket's directory
		"Service.StateDirectory":        "adit",                                           // the default state_dir
		"Service.AmbientCapabilities":   "CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE", // UDP 500 is IKE's
		"Service.CapabilityBoundingSet": "CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE", // UDP 500 is IKE's
		"Service.DeviceAllow":           "/dev/net/tun rw",
		"Service.LimitCORE":             "0",
		// Exit code 2: bad usage or configuration, which no restart mends.
		"Service.RestartPreventExitStatus": "2",
	} {
		if have[name] != want {
			t.Errorf("%s is %q, want %q", name, have[name], want)
		}
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
