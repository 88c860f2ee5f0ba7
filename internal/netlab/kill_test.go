package netlab

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// victimEnv makes the test binary build a lab with a process in it, and wait to
// be killed.
const victimEnv = "NETLAB_TEST_VICTIM"

func TestRootNothingIsLeftAfterKill(t *testing.T) {
	if os.Getenv(victimEnv) != "" {
		victim(t)
	}
	root(t)
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
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if errors.Is(syscall.Kill(child, 0), syscall.ESRCH) || zombie(child) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d outlived its lab", child)
		}
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

// zombie tells whether the process has ended and nobody has asked how: its new
// parent may take its time.
func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}
