package bench

import (
	"crypto/sha256"
	"debug/buildinfo"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is what figures were measured on. It names no host.
type Machine struct {
	CPU        string   `json:"cpu"`        // the model, as the kernel names it
	Features   []string `json:"features"`   // of the CPU, those that matter to ciphers and checksums
	Cores      int      `json:"cores"`      // logical ones that this process may use
	GOMAXPROCS int      `json:"gomaxprocs"` // of this process; gateways have their own
	Kernel     string   `json:"kernel"`
	Go         string   `json:"go"`   // that built this program
	Load       string   `json:"load"` // the load averages of 1, 5 and 15 minutes before the first round
}

// ThisMachine describes the machine. What cannot be read stays empty.
func ThisMachine() Machine {
	m := Machine{Cores: runtime.NumCPU(), GOMAXPROCS: runtime.GOMAXPROCS(0), Go: runtime.Version()}
	cpuinfo, _ := os.ReadFile("/proc/cpuinfo")
	m.CPU, m.Features = describeCPU(string(cpuinfo))
	if m.CPU == "" {
		m.CPU = runtime.GOARCH
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:])
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		if fields := strings.Fields(string(load)); len(fields) >= 3 {
			m.Load = strings.Join(fields[:3], " ")
		}
	}
	return m
}

// cpuFeatures are the kernel's names of x86 and arm64 features.
var cpuFeatures = map[string]bool{
	"aes": true, "pclmulqdq": true, "avx2": true, "avx512bw": true, "vaes": true, "vpclmulqdq": true, "sha_ni": true,
	"pmull": true, "sha2": true,
}

// describeCPU reads /proc/cpuinfo: its first processor stands for all.
func describeCPU(cpuinfo string) (model string, features []string) {
	for line := range strings.Lines(cpuinfo) {
		key, value, _ := strings.Cut(line, ":")
		switch key = strings.TrimSpace(key); {
		case key == "model name" && model == "":
			model = strings.Join(strings.Fields(value), " ")
		case (key == "flags" || key == "Features") && features == nil:
			for f := range strings.FieldsSeq(value) {
				if cpuFeatures[f] {
					features = append(features, f)
				}
			}
		}
	}
	return model, features
}

// ProgramVersion says what a Go program was built from: module, version,
// compiler, and the start of the file's SHA-256, because a build without version
// control stamps knows no revision.
func ProgramVersion(path string) (string, error) {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return "", err
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %s, %s, sha256 %x", info.Main.Path, info.Main.Version, info.GoVersion, h.Sum(nil)[:8]), nil
}
