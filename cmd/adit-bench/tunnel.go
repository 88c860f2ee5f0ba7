package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/adit-ipsec/adit/bench"
)

// tunnelFlags are the flags of `adit-bench tunnel`.
type tunnelFlags struct {
	bench.TunnelOptions
	against      []string
	segmentation string
	seconds      float64
	charon       string
	out          outputs
}

func newTunnelCommand() *cobra.Command {
	var f tunnelFlags
	cmd := &cobra.Command{
		Use:   "tunnel",
		Short: "two gateways in namespaces, alone or by turns with rivals (root)",
		Long: strings.TrimSpace(`
Raises two gateways, two hosts and a router in network namespaces of this
machine, sends traffic from host to host, and takes everything down again. With
--against, each rival has a network of its own of the same kind, and all are
measured by turns in every test of every round; ratios are of the same round.

  tcp1 tcp4 tcp-both             TCP: one flow, four, one in each direction at once
  udp64 udp512 udp1372           UDP with so many bytes of payload, as fast as one sender can
  udp64-fixed udp512-fixed ...   the same at a rate that all should carry: 20000 datagrams
                                 a second, 10000 of 1372 bytes, or --rate
  ping                           echo requests 20 ms apart on an idle network

wireguard-go is built by go install ` + bench.WireGuardModule + `
at version ` + bench.WireGuardVersion + `, or named with --wireguard-go.
strongSwan is Debian's, with its userspace ESP (kernel-libipsec): what is missing
is installed by apt-get. No service is set up; each gateway has a charon-systemd
of its own, the system's or the package's, or the one named with --charon.
Rivals run with their best settings, which the report names. TCP is not hashed,
so that the two hosts cost little.`),
		Args: cobra.NoArgs,
		RunE: action(func(cmd *cobra.Command) error {
			if err := f.check(); err != nil {
				return err
			}
			f.Progress = func(line string) { fmt.Fprintln(cmd.ErrOrStderr(), line) }
			report, err := f.run(cmd.Context())
			if err != nil {
				return err
			}
			return f.out.write(cmd.OutOrStdout(), report, tunnelTable(report), tunnelChart(report))
		}),
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&f.against, "against", nil, "the `rivals`: wireguard-go, strongswan, or both with a comma between them")
	flags.StringSliceVar(&f.Tests, "tests", bench.TunnelTests(), "`tests`, with commas between them")
	flags.StringVar(&f.Suite, "suite", "aes128gcm16", "the cipher `suite` of adit and of strongSwan")
	flags.StringVar(&f.segmentation, "segmentation", "both", "tx-udp-segmentation of the outside links: on, off or both")
	flags.IntVar(&f.Rounds, "rounds", 5, "`number` of rounds")
	flags.Float64Var(&f.seconds, "seconds", 3, "`seconds` that one measurement takes, about")
	flags.StringVar(&f.Adit, "adit", "", "`path` of the adit program (default: beside this one, then from PATH)")
	flags.StringVar(&f.WireGuard, "wireguard-go", "", "`path` of wireguard-go, or its name on PATH (default: build it)")
	flags.StringVar(&f.charon, "charon", "", "`path` of strongSwan's charon-systemd (default: the system's, or download it)")
	flags.IntVar(&f.Rate, "rate", 0, "datagrams a `second` of the -fixed tests (default: each test's own)")
	f.out.flags(cmd)
	return cmd
}

// check says what is wrong before anything is started.
func (f *tunnelFlags) check() error {
	if err := checkRounds(f.Rounds, f.seconds); err != nil {
		return err
	}
	f.Duration = time.Duration(f.seconds * float64(time.Second))
	switch f.segmentation {
	case "on", "off":
		f.Segmentation = []string{f.segmentation}
	case "both":
		f.Segmentation = []string{"on", "off"}
	default:
		return usage("--segmentation %q: write on, off or both", f.segmentation)
	}
	for i, rival := range f.against {
		if rival != bench.SystemWireGuard && rival != bench.SystemStrongSwan {
			return usage("--against %q: write wireguard-go, strongswan, or both with a comma between them", rival)
		}
		if slices.Contains(f.against[:i], rival) {
			return usage("--against names %s twice", rival)
		}
	}
	if f.WireGuard != "" && !slices.Contains(f.against, bench.SystemWireGuard) {
		return usage("--wireguard-go is for --against wireguard-go: give both")
	}
	if f.charon != "" && !slices.Contains(f.against, bench.SystemStrongSwan) {
		return usage("--charon is for --against strongswan: give both")
	}
	if err := f.Check(); err != nil {
		return &failure{exitUsage, err}
	}
	return f.out.check()
}

// run finds the programs and measures.
func (f *tunnelFlags) run(ctx context.Context) (*bench.TunnelReport, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("tunnel makes network namespaces and TUN devices: run it as root (sudo); `adit-bench engine` needs no privileges")
	}
	var err error
	if f.Adit, err = findAdit(f.Adit); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "adit-bench-rivals-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for _, rival := range f.against {
		find := f.findWireGuard
		if rival == bench.SystemStrongSwan {
			find = f.findStrongSwan
		}
		if err := find(ctx, dir); err != nil {
			return nil, err
		}
	}
	return bench.RunTunnel(ctx, f.TunnelOptions)
}

// findWireGuard is the program that was named, or built into dir.
func (f *tunnelFlags) findWireGuard(ctx context.Context, dir string) (err error) {
	if f.WireGuard != "" {
		if f.WireGuard, err = lookPath(f.WireGuard); err != nil {
			return fmt.Errorf("--wireguard-go: %w; leave the flag out to have it built", err)
		}
		return nil
	}
	f.Progress("building wireguard-go " + bench.WireGuardVersion)
	f.WireGuard, err = bench.InstallWireGuard(ctx, dir)
	return err
}

// findStrongSwan is the system's or the package's, with the daemon that was
// named.
func (f *tunnelFlags) findStrongSwan(ctx context.Context, dir string) (err error) {
	if f.charon != "" {
		if f.charon, err = lookPath(f.charon); err != nil {
			return fmt.Errorf("--charon: %w; leave the flag out to have it found", err)
		}
	}
	s, err := bench.InstallStrongSwan(ctx, f.charon, dir, f.Progress)
	f.StrongSwan = &s
	return errors.Join(context.Cause(ctx), err)
}

// findAdit is the program that was named, or the one beside this one, or the
// one on PATH.
func findAdit(named string) (string, error) {
	if named != "" {
		path, err := lookPath(named)
		if err != nil {
			return "", fmt.Errorf("--adit: %w", err)
		}
		return path, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	beside := filepath.Join(filepath.Dir(self), "adit")
	if path, err := lookPath(beside); err == nil {
		return path, nil
	}
	path, err := lookPath("adit")
	if err != nil {
		return "", fmt.Errorf("the adit program is neither %s nor on PATH: build it with `make build`, or give --adit PATH", beside)
	}
	return path, nil
}

// lookPath is exec.LookPath, made absolute: gateways are started elsewhere.
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}
