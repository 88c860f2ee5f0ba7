package bench

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestInstallToolsBringStrongSwan: `make test` installs what the rival needs.
func TestInstallToolsBringStrongSwan(t *testing.T) {
	script, err := os.ReadFile("../scripts/install-tools.sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range strongSwanFiles {
		if !strings.Contains(string(script), ":"+f.pkg+"\n") {
			t.Errorf("scripts/install-tools.sh does not install %s, which holds %s", f.pkg, f.file)
		}
	}
}

// charon is the daemon that scripts/install-tools.sh took out of its package;
// "": the system has one, or InstallStrongSwan brings it.
func charon() string {
	path, err := filepath.Abs("../build/tools/charon-systemd/usr/sbin/charon-systemd")
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		return ""
	}
	return path
}

func installedStrongSwan(ctx context.Context, t *testing.T) *StrongSwan {
	t.Helper()
	s, err := InstallStrongSwan(ctx, charon(), t.TempDir(), func(line string) { t.Log(line) })
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(s.Version, "strongSwan ") {
		t.Errorf("version %q", s.Version)
	}
	return &s
}

// TestRootStrongSwanSaysWhyItDoesNotComeUp: with what the daemon said last, and
// without the key. Nothing is left.
func TestRootStrongSwanSaysWhyItDoesNotComeUp(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root: run the unprivileged tier with -skip Root")
	}
	temp := t.TempDir()
	s := installedStrongSwan(t.Context(), t)
	t.Setenv("TMPDIR", temp)
	_, err := NewNamespaces(t.Context(), NamespaceOptions{StrongSwan: s, Suite: "rot13"})
	if err == nil || !strings.Contains(err.Error(), "strongSwan in gwA") || !strings.Contains(err.Error(), "algorithm 'rot13' not recognized") {
		t.Errorf("a suite that nobody has: %v", err)
	}
	if regexp.MustCompile("[0-9a-f]{64}").MatchString(err.Error()) {
		t.Errorf("it shows the key: %v", err)
	}
	broken := *s
	broken.Charon = "/bin/false"
	_, err = NewNamespaces(t.Context(), NamespaceOptions{StrongSwan: &broken, Suite: "aes128gcm16"})
	if err == nil || !strings.Contains(err.Error(), "strongSwan in gwA: it has ended: exit status 1") {
		t.Errorf("a daemon that ends: %v", err)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestRootStrongSwanKeepsItsKey: the pre-shared key is in one file for each end,
// which nobody else may read, and in no log.
func TestRootStrongSwanKeepsItsKey(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("needs root: run the unprivileged tier with -skip Root")
	}
	n := namespaces(t.Context(), t, NamespaceOptions{StrongSwan: installedStrongSwan(t.Context(), t), Suite: "aes128gcm16"})
	key := regexp.MustCompile("[0-9a-f]{64}")
	err := filepath.WalkDir(n.dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if holds := key.Match(text); holds != (entry.Name() == "swanctl.conf") || holds && info.Mode().Perm() != 0o600 {
			t.Errorf("%s, mode %o: holds a key: %v", path, info.Mode().Perm(), holds)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if files, err := filepath.Glob(filepath.Join(n.dir, "*", "swanctl.conf")); len(files) != 2 {
		t.Errorf("configurations: %v, %v", files, err)
	}
}
