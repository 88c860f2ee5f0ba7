package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
)

var update = flag.Bool("update", false, "write golden files and docs/counters.md anew")

// asAdit in the environment makes this test binary be the program. So every
// command test runs a process of its own, with the race detector where the
// tests have it, and `adit demo` starts gateways out of the same binary.
const asAdit = "ADIT_TEST_IS_ADIT"

func TestMain(m *testing.M) {
	if os.Getenv(asAdit) != "" {
		os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// program is a run of adit with these arguments, not started yet.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), asAdit+"=1")
	return cmd
}

// adit runs the program to its end.
func adit(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	return aditIn(t, "", args...)
}

// aditIn is adit in a working directory.
func aditIn(t *testing.T, dir string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := program(t, args...)
	cmd.Dir = dir
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	runErr := cmd.Run()
	var exit *exec.ExitError
	if runErr != nil && !errors.As(runErr, &exit) {
		t.Fatal(runErr)
	}
	return out.String(), err.String(), cmd.ProcessState.ExitCode()
}

// silentWire is a wire on which nothing happens.
type silentWire struct{ closed chan struct{} }

func (w silentWire) ReadBatch([]packet.Datagram) (int, error) {
	<-w.closed
	return 0, net.ErrClosed
}

func (w silentWire) WriteBatch(m []packet.Datagram) (int, error) { return len(m), nil }

func (w silentWire) Close() error {
	close(w.closed)
	return nil
}

// rewrite replaces text in a file; each text must be there.
func rewrite(t *testing.T, file string, oldnew ...string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for i := 0; i < len(oldnew); i += 2 {
		if !strings.Contains(text, oldnew[i]) {
			t.Fatalf("%s does not hold %q", file, oldnew[i])
		}
		text = strings.ReplaceAll(text, oldnew[i], oldnew[i+1])
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func addrPort(address string) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(address), 4500)
}
