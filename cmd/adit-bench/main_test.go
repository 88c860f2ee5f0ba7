package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/bench"
)

var update = flag.Bool("update", false, "write golden files anew")

// asAditBench in the environment makes this test binary be the program.
const asAditBench = "ADIT_TEST_IS_ADIT_BENCH"

func TestMain(m *testing.M) {
	if os.Getenv(asAditBench) != "" {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// aditBench runs the program to its end, in an empty folder.
func aditBench(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := program(t, args...)
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	runErr := cmd.Run()
	var exit *exec.ExitError
	if runErr != nil && !errors.As(runErr, &exit) {
		t.Fatal(runErr)
	}
	return out.String(), err.String(), cmd.ProcessState.ExitCode()
}

func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), asAditBench+"=1")
	cmd.Dir = t.TempDir()
	return cmd
}

// TestExitCodes: 0 done, 1 failed, 2 bad usage; and every error says what to do.
func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		says string // on stderr; "": nothing
	}{
		{"", exitDone, ""},
		{"--help", exitDone, ""},
		{"engine --help", exitDone, ""},
		{"tunnel --help", exitDone, ""},

		{"plan --help", exitDone, ""},

		{"nonsense", exitUsage, `unknown command "nonsense"`},
		{"engine extra", exitUsage, "unknown command"},
		{"engine --nonsense", exitUsage, "unknown flag: --nonsense"},
		{"engine --suites des", exitUsage, "des"},
		{"engine --suites=", exitUsage, "name at least one suite"},
		{"engine --sizes 27", exitUsage, `size "27": write bytes of the inner packet from 28 to 1500, or imix`},
		{"engine --sizes 1501", exitUsage, `size "1501"`},
		{"engine --sizes big", exitUsage, `size "big"`},
		{"engine --policies 0", exitUsage, "0 policies: write numbers from 1 to"},
		{"engine --sas 0", exitUsage, "0 SA pairs: write numbers from 1 to"},
		{"engine --sas 1000000", exitUsage, "1000000 SA pairs: write numbers from 1 to"},
		{"engine --policies few", exitUsage, "invalid argument"},
		{"engine --rounds 0", exitUsage, "--rounds 0: write a number from 1 to 1000"},
		{"engine --seconds 0", exitUsage, "--seconds 0: write a number from 0.01 to 3600"},
		{"engine --seconds NaN", exitUsage, "--seconds NaN"},
		{"engine --json no/such/folder.json", exitUsage, "--json no/such/folder.json: there is no folder no/such: make it first"},
		{"engine --svg .", exitUsage, "--svg . is a folder: name a file"},
		{"engine --svg a --json a", exitUsage, "name the same file"},

		{"ike --help", exitDone, ""},
		{"ike extra", exitUsage, "unknown command"},
		{"ike --groups modp1024", exitUsage, `group "modp1024": write x25519, x448,`},
		{"ike --groups=", exitUsage, "name at least one group"},
		{"ike --auths dsa", exitUsage, `authentication "dsa": write ecdsa-p256,`},
		{"ike --sas 0", exitUsage, "0 IKE SAs: write numbers from 1 to 20000"},
		{"ike --sas 30000", exitUsage, "30000 IKE SAs"},
		{"ike --rounds 0", exitUsage, "--rounds 0: write a number from 1 to 1000"},
		{"ike --seconds NaN", exitUsage, "--seconds NaN"},
		{"ike --json no/such/folder.json", exitUsage, "there is no folder no/such"},

		{"plan 7", exitUsage, "unknown command"},
		{"plan --peers 0", exitUsage, "0 peers: write a number from 1 to 2000"},
		{"plan --peers 100000", exitUsage, "100000 peers: write a number from 1 to 2000"},
		{"plan --calls -3", exitUsage, "-3 calls: write a number from 1 to 20000"},
		{"plan --calls many", exitUsage, "invalid argument"},
		{"plan --load 0", exitUsage, "a load of 0 percent: write a number from 1 to 100"},
		{"plan --rounds 0", exitUsage, "--rounds 0: write a number from 1 to 1000"},
		{"plan --seconds 0.5", exitUsage, "--seconds 0.5: write a number from 1 to 600"},
		{"plan --seconds NaN", exitUsage, "--seconds NaN"},
		{"plan --calls 20000 --seconds 600", exitUsage, "fewer calls, or fewer seconds"},
		{"plan --suite 3des", exitUsage, "3des"},
		{"plan --json no/such/folder.json", exitUsage, "there is no folder no/such"},

		{"tunnel --against openvpn", exitUsage, `--against "openvpn": write wireguard-go, strongswan, or both`},
		{"tunnel --against strongswan,strongswan", exitUsage, "--against names strongswan twice"},
		{"tunnel --wireguard-go wg", exitUsage, "--wireguard-go is for --against wireguard-go: give both"},
		{"tunnel --charon charon --against wireguard-go", exitUsage, "--charon is for --against strongswan: give both"},
		{"tunnel --rate -1", exitUsage, "rate -1: write datagrams a second from 1 to 10000000, or 0 for each test's own"},
		{"tunnel --tests tcp2", exitUsage, `test "tcp2": there are tcp1,tcp4,tcp-both,udp64,udp512,udp1372,udp64-fixed,udp512-fixed,udp1372-fixed,ping`},
		{"tunnel --tests ping,ping", exitUsage, `test "ping" is named twice`},
		{"tunnel --tests=", exitUsage, "no tests: name some of"},
		{"tunnel --segmentation maybe", exitUsage, `--segmentation "maybe": write on, off or both`},
		{"tunnel --suite null", exitUsage, "null"},
		{"tunnel --rounds 1001", exitUsage, "--rounds 1001"},
	} {
		t.Run(c.args, func(t *testing.T) {
			_, stderr, code := aditBench(t, strings.Fields(c.args)...)
			if code != c.code {
				t.Errorf("exit code %d, want %d; it said: %s", code, c.code, stderr)
			}
			if !strings.Contains(stderr, c.says) || c.says == "" && stderr != "" {
				t.Errorf("stderr is %q, want %q", stderr, c.says)
			}
		})
	}
}

// TestWithoutRootSaysWhatToDo runs the program as nobody.
func TestWithoutRootSaysWhatToDo(t *testing.T) {
	for _, command := range []string{"tunnel", "plan"} {
		t.Run(command, func(t *testing.T) { runAsNobody(t, program(t, command)) })
	}
}

func runAsNobody(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if os.Geteuid() == 0 {
		// nobody cannot enter the folders of go test: the program is
		// started from a copy that it can read.
		dir, err := os.MkdirTemp("", "adit-bench-test-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		text, err := os.ReadFile(cmd.Path)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path, cmd.Dir = filepath.Join(dir, "adit-bench"), dir
		if err := errors.Join(os.WriteFile(cmd.Path, text, 0o755), os.Chmod(dir, 0o755)); err != nil {
			t.Fatal(err)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(string(out), "run it as root (sudo)") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestEngineWritesWhatItMeasured runs the real thing for a moment.
func TestEngineWritesWhatItMeasured(t *testing.T) {
	dir := t.TempDir()
	jsonFile, svgFile := filepath.Join(dir, "e.json"), filepath.Join(dir, "e.svg")
	stdout, stderr, code := aditBench(t, "engine", "--suites", "aes128gcm16", "--sizes", "64,imix", "--policies", "1", "--sas", "1,3", "--rounds", "2", "--seconds", "0.01", "--json", jsonFile, "--svg", svgFile)
	if code != exitDone || !strings.Contains(stdout, "aes128gcm16  imix") || !strings.Contains(stderr, "round 2/2  4/18  in aes128gcm16 size imix:") {
		t.Fatalf("exit code %d:\n%s%s", code, stdout, stderr)
	}
	var report bench.EngineReport
	decode(t, jsonFile, &report)
	if report.Kind != "engine" || len(report.Rows) != 14 || len(report.Lookups) != 2 || len(report.Memory) != 2 || report.Machine.CPU == "" || report.Machine.Kernel == "" || report.Machine.Go == "" ||
		report.Machine.Cores < 1 || !strings.Contains(report.Version, "adit") || report.Settings.Rounds != 2 {
		t.Errorf("report: %+v", report)
	}
	wellFormed(t, svgFile)
}

// TestIKEWritesWhatItMeasured runs the real thing for a moment.
func TestIKEWritesWhatItMeasured(t *testing.T) {
	dir := t.TempDir()
	jsonFile, svgFile := filepath.Join(dir, "i.json"), filepath.Join(dir, "i.svg")
	stdout, stderr, code := aditBench(t, "ike", "--groups", "x25519,x25519+mlkem768", "--auths", "ed25519,psk", "--sas", "3", "--rounds", "2", "--seconds", "0.01", "--json", jsonFile, "--svg", svgFile)
	if code != exitDone || !strings.Contains(stdout, "Handshakes, by authentication; x25519\n") || !strings.Contains(stderr, "round 2/2  2/8  handshake x25519+mlkem768 ed25519:") {
		t.Fatalf("exit code %d:\n%s%s", code, stdout, stderr)
	}
	var report bench.IKEReport
	decode(t, jsonFile, &report)
	if report.Kind != "ike" || len(report.Rows) != 7 || len(report.Memory) != 1 || report.Machine.CPU == "" || !strings.Contains(report.Version, "adit") || report.Settings.Rounds != 2 {
		t.Errorf("report: %+v", report)
	}
	wellFormed(t, svgFile)
}

func decode(t *testing.T, file string, to any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// wellFormed reads a plot as XML.
func wellFormed(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(bytes.NewReader(text)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
}

// TestInterruptEndsTheRun: SIGINT ends it with exit code 1, and nothing is
// written.
func TestInterruptEndsTheRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "e.json")
	interruptedRun(t, program(t, "engine", "--seconds", "3600", "--json", file), "")
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s was written: %v", file, err)
	}
}

// interruptedRun starts the program, waits for a line that begins with after, and
// interrupts it.
func interruptedRun(t *testing.T, cmd *exec.Cmd, after string) {
	t.Helper()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	// It handles signals before it says anything.
	lines := bufio.NewReader(stderr)
	for line, first := "", true; first || !strings.HasPrefix(line, after); first = false {
		if line, err = lines.ReadString('\n'); err != nil {
			t.Fatalf("it ended before it said %q: %v: %s", after, err, line)
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(lines)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(string(said), "interrupted") {
		t.Errorf("%v, exit code %d, it said: %s", err, cmd.ProcessState.ExitCode(), said)
	}
}

func TestTickMakesRoundScales(t *testing.T) {
	for highest, want := range map[float64]float64{0: 1, 0.9: 0.2, 1: 0.2, 4: 0.5, 8: 1, 8.1: 2, 100: 20, 3600: 500} {
		if got := tick(highest); math.Abs(got-want) > want*1e-9 {
			t.Errorf("tick(%v) = %v, want %v", highest, got, want)
		}
	}
}

func TestVerdictNeedsAllRounds(t *testing.T) {
	for _, c := range []struct {
		better   string
		min, max float64
		want     string
	}{
		{"higher", 1.1, 2, "better"}, {"higher", 0.5, 0.9, "worse"}, {"higher", 0.9, 1.1, "undecided"},
		{"lower", 1.1, 2, "worse"}, {"lower", 0.5, 0.9, "better"}, {"lower", 0.9, 1.1, "undecided"},
	} {
		if got := verdict(c.better, bench.Summary{Min: c.min, Max: c.max}); got != c.want {
			t.Errorf("%+v: got %s", c, got)
		}
	}
}
