package netlab

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// victimEnv makes the test binary build a lab with a process in it, and wait to
// be killed.
const victimEnv = "NETLAB_TEST_VICTIM"

func TestRootNothingIsLeftAfterKill(t *testing.T) {
	if os.Getenv(victimEnv) != "" {
		victim(t)
	}
	root(t)
	// Orphans come to this process, so that it can tell when they end.
	check(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	defer func() { check(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)) }()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestRootNothingIsLeftAfterKill$")
	cmd.Env = append(os.Environ(), victimEnv+"=1")
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	check(t, err)
	var child int
	var namespace string
	if _, err := fmt.Sscan(line, &child, &namespace); err != nil {
		t.Fatalf("%v in %q", err, line)
	}
	if !held(t, namespace) {
		t.Errorf("no process is in %s while the lab is open", namespace)
	}
	check(t, cmd.Process.Kill())
	_ = cmd.Wait() // killed
	// The orphan is this process's child now: wait for its end. Where the
	// victim's own wait got it in the victim's last moment there is none.
	var status syscall.WaitStatus
	switch _, err := syscall.Wait4(child, &status, 0, nil); {
	case errors.Is(err, syscall.ECHILD):
		if err := syscall.Kill(child, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("process %d: %v, expected %v", child, err, syscall.ESRCH)
		}
	case err != nil || status.Signal() != syscall.SIGKILL:
		t.Errorf("process %d: %v, signal %v; expected %v", child, err, status.Signal(), syscall.SIGKILL)
	}
	if held(t, namespace) {
		t.Errorf("a process is still in %s", namespace)
	}
}

func victim(t *testing.T) {
	net, err := SiteToSite(Options{})
	check(t, err)
	p, err := net.A.Gateway.Start(exec.Command("sleep", "600"))
	check(t, err)
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", p.Pid()))
	check(t, err)
	fmt.Println(p.Pid(), ns)
	select {}
}

// held tells whether a process of this machine is in the namespace.
func held(t *testing.T, namespace string) bool {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/ns/net")
	check(t, err)
	for _, p := range paths {
		if target, err := os.Readlink(p); err == nil && target == namespace {
			return true
		}
	}
	return false
}
