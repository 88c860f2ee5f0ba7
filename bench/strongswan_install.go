package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// What the rival consists of, and the Debian packages that bring it. None of
// them brings a system service. The daemon itself is in charon-systemd, which
// does: of that package the program alone is unpacked.
var strongSwanFiles = []struct{ file, pkg string }{
	{"/usr/sbin/swanctl", "strongswan-swanctl"},
	{"/usr/lib/ipsec/plugins/libstrongswan-vici.so", "strongswan-swanctl"},
	{"/usr/lib/ipsec/plugins/libstrongswan-socket-default.so", "strongswan-libcharon"},
	{"/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so", "libcharon-extra-plugins"},
	{"/usr/lib/ipsec/plugins/libstrongswan-openssl.so", "libstrongswan-standard-plugins"},
}

const (
	charonPackage = "charon-systemd"
	charonFile    = "/usr/sbin/charon-systemd"
)

// InstallStrongSwan finds the rival, or installs what is missing of it from the
// distribution's packages, and copies its two programs into dir: AppArmor's
// profiles hold where packages put them, and would keep them from their files in
// a temporary folder. charon is the daemon's program, a charon-systemd; "": the
// one of the system, or the package's. Nothing that it installs starts by itself.
func InstallStrongSwan(ctx context.Context, charon, dir string, progress func(line string)) (s StrongSwan, err error) {
	if missing := missingPackages(); len(missing) > 0 {
		if err := installPackages(ctx, dir, missing, progress); err != nil {
			return s, err
		}
	}
	if charon == "" {
		charon = charonFile
		if _, err := os.Stat(charon); errors.Is(err, os.ErrNotExist) {
			if charon, err = unpackCharon(ctx, dir, progress); err != nil {
				return s, fmt.Errorf("the daemon of strongSwan: %w; name a %s with --charon PATH", err, charonPackage)
			}
		}
	}
	s = StrongSwan{Charon: filepath.Join(dir, "charon"), Swanctl: filepath.Join(dir, "swanctl")}
	if err := errors.Join(copyProgram(charon, s.Charon), copyProgram(strongSwanFiles[0].file, s.Swanctl)); err != nil {
		return s, err
	}
	s.Version, err = strongSwanVersion(ctx)
	return s, err
}

func installPackages(ctx context.Context, dir string, packages []string, progress func(string)) error {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("strongSwan is not installed, and there is no apt-get to do it: install what holds %s", strings.Join(missingFiles(), ", "))
	}
	progress("installing " + strings.Join(packages, " ") + " (apt-get, about a minute)")
	err := aptGet(ctx, dir, "update")
	if err == nil {
		err = aptGet(ctx, dir, append([]string{"install", "-y", "--no-install-recommends", "--no-upgrade"}, packages...)...)
	}
	if err != nil {
		return fmt.Errorf("strongSwan is not installed: %w; install the packages %s, and try again", err, strings.Join(packages, " "))
	}
	return nil
}

// unpackCharon downloads the package of the daemon, of the version that the
// libraries have, and takes the program out of it.
func unpackCharon(ctx context.Context, dir string, progress func(string)) (string, error) {
	version, err := said(ctx, "", "dpkg-query", "-W", "-f", "${Version}", "libstrongswan")
	if err != nil {
		return "", err
	}
	pkg := charonPackage + "=" + version
	progress("downloading " + pkg + " (its program is run; the package is not installed)")
	if err := aptGet(ctx, dir, "download", pkg); err != nil {
		// The lists may be older than the archive, or absent.
		if err = aptGet(ctx, dir, "update"); err == nil {
			err = aptGet(ctx, dir, "download", pkg)
		}
		if err != nil {
			return "", err
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, charonPackage+"_*.deb"))
	if err != nil || len(files) != 1 {
		return "", fmt.Errorf("apt-get download %s brought %d packages: %w", pkg, len(files), err)
	}
	unpacked := filepath.Join(dir, charonPackage)
	_, err = said(ctx, dir, "dpkg-deb", "-x", files[0], unpacked)
	return filepath.Join(unpacked, charonFile), err
}

func missingFiles() (files []string) {
	for _, f := range strongSwanFiles {
		if _, err := os.Stat(f.file); err != nil {
			files = append(files, f.file)
		}
	}
	return files
}

func missingPackages() (packages []string) {
	for _, f := range strongSwanFiles {
		if _, err := os.Stat(f.file); err != nil && (len(packages) == 0 || packages[len(packages)-1] != f.pkg) {
			packages = append(packages, f.pkg)
		}
	}
	return packages
}

// aptGet is apt-get that asks nothing.
func aptGet(ctx context.Context, dir string, args ...string) error {
	_, err := said(ctx, dir, "apt-get", append([]string{"-q", "-o", "APT::Sandbox::User=root"}, args...)...)
	return err
}

// said runs a program to its end and returns what it printed on standard
// output. The error has the last of what it printed at all. An interrupt lets it
// end in order.
func said(ctx context.Context, dir, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	var all, out bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &all
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(out.String() + all.String())
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), errors.Join(err, context.Cause(ctx)), text[max(0, len(text)-500):])
	}
	return out.String(), nil
}

func copyProgram(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o700)
}

// strongSwanVersion is what swanctl says, and the package's version where there
// is one.
func strongSwanVersion(ctx context.Context) (string, error) {
	// It says so on standard error between other things, and ends with 2.
	out, err := exec.CommandContext(ctx, strongSwanFiles[0].file, "--version").CombinedOutput()
	_, rest, found := strings.Cut(string(out), "strongSwan ")
	number, _, ok := strings.Cut(rest, " swanctl")
	if !found || !ok {
		return "", fmt.Errorf("%s does not say its version: %q: %w", strongSwanFiles[0].file, out, err)
	}
	version := "strongSwan " + number
	if pkg, err := said(ctx, "", "dpkg-query", "-W", "-f", "${Version}", "libstrongswan"); err == nil {
		version += " (Debian " + pkg + ")"
	}
	return version, nil
}
