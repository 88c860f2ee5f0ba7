package seqstore

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/sad"
)

// failing opens a store whose n-th sync from now on fails, counted from 1; 0:
// none does.
type failing struct {
	*Store
	at   int
	seen []string // what was synced, by base name
}

func openFailing(t *testing.T, dir string) *failing {
	t.Helper()
	f := &failing{}
	s, err := open(dir, func(file *os.File) error {
		f.seen = append(f.seen, filepath.Base(file.Name()))
		if f.at > 0 {
			if f.at--; f.at == 0 {
				return syscall.EIO
			}
		}
		return file.Sync()
	})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	f.Store = s
	return f
}

// Both the record and its name are synced before Reserve returns.
func TestReserveSyncsFileThenDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "parent", "sequence")
	f := openFailing(t, dir)
	if got := fmt.Sprint(f.seen); got != fmt.Sprintf("[parent %s]", filepath.Base(filepath.Dir(filepath.Dir(dir)))) {
		t.Errorf("syncs of Open: expected those of the parents of new directories, seen %s", got)
	}
	f.seen = nil
	reserve(t, f.Store, key1, 5)
	if got, want := fmt.Sprint(f.seen), fmt.Sprintf("[%s%s sequence]", tempPrefix, key1); got != want {
		t.Errorf("syncs of Reserve: expected %s, seen %s", want, got)
	}
}

func TestFailedSyncOfTheRecordReservesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sequence")
	f := openFailing(t, dir)
	reserve(t, f.Store, key1, 1000)
	f.at = 1
	err := f.Reserve(key1, 2000)
	if !errors.Is(err, syscall.EIO) {
		t.Fatalf("Reserve: expected the I/O error, seen %v", err)
	}
	wantError(t, err, "not reserved", "check the disk")
	wantReserved(t, f.Store, key1, 1000)
	if left, _ := filepath.Glob(filepath.Join(dir, tempPrefix+"*")); len(left) != 0 {
		t.Errorf("temporary files: expected none, seen %d", len(left))
	}
	// A new attempt writes a new file.
	reserve(t, f.Store, key1, 2000)
	_ = f.Close()
	wantReserved(t, openStore(t, dir), key1, 2000)
}

// A disk that takes half of the record: the limit on a file's size stands in for
// a full one.
func TestShortWriteReservesNothing(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "sequence"))
	reserve(t, s, key1, 1000)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 10, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	err := s.Reserve(key1, 2000)
	if e := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); e != nil {
		t.Fatal(e)
	}
	if !errors.Is(err, syscall.EFBIG) {
		t.Errorf("Reserve: expected EFBIG, seen %v", err)
	}
	wantReserved(t, s, key1, 1000)
	reserve(t, s, key1, 2000)
}

// The name may or may not have become durable: the numbers are nobody's, and no
// later start is below them.
func TestFailedSyncOfTheDirectoryIsAnError(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sequence")
	f := openFailing(t, dir)
	reserve(t, f.Store, key1, 1000)
	f.at = 2
	if err := f.Reserve(key1, 2000); !errors.Is(err, syscall.EIO) {
		t.Fatalf("Reserve: expected the I/O error, seen %v", err)
	}
	wantReserved(t, f.Store, key1, 2000)
	if err := f.Reserve(key1, 2000); !errors.Is(err, ErrReserved) {
		t.Errorf("the same block again: expected ErrReserved, seen %v", err)
	}
	reserve(t, f.Store, key1, 3000)
}

// outbound are the parameters of a manually keyed SA.
func outbound(t *testing.T, store sad.SequenceStore) sad.Params {
	t.Helper()
	suite, err := esp.ParseSuite("aes128gcm16")
	if err != nil {
		t.Fatal(err)
	}
	return sad.Params{
		Direction: sad.Outbound, SPI: 0x2001, Peer: "site-b", Suite: suite,
		EncryptionKey: []byte("sixteen byte keysalt"),
		Remote:        netip.MustParseAddrPort("192.0.2.2:4500"),
		Sequence:      store,
	}
}

func TestSAGetsNothingAfterAFailedSync(t *testing.T) {
	f := openFailing(t, filepath.Join(t.TempDir(), "sequence"))
	f.at = 1
	if _, err := sad.New(outbound(t, f)); !errors.Is(err, syscall.EIO) {
		t.Fatalf("New: expected the I/O error, seen %v", err)
	}
	sa, err := sad.New(outbound(t, f))
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	if _, n := sa.Reserve(2 * sad.ReservationBlock); n != sad.ReservationBlock {
		t.Fatalf("Reserve: expected one block, seen %d", n)
	}
	f.at = 1
	if err := sa.ExtendReservation(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("ExtendReservation: expected the I/O error, seen %v", err)
	}
	if first, n := sa.Reserve(1); n != 0 {
		t.Fatalf("Reserve after a failed sync: expected nothing, seen %d", first)
	}
	// The disk works again. The record was replaced but its directory never
	// synced: those numbers are skipped.
	f.at = 2
	if err := sa.ExtendReservation(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("ExtendReservation: expected the I/O error, seen %v", err)
	}
	if err := sa.ExtendReservation(); err != nil {
		t.Fatalf("ExtendReservation: %v", err)
	}
	if first, n := sa.Reserve(1); n != 1 || first != 2*sad.ReservationBlock+1 {
		t.Fatalf("Reserve: expected %d, seen %d of %d", 2*sad.ReservationBlock+1, first, n)
	}
}

func TestSAResumesBehindItsBlockAfterARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sequence")
	for restart := range uint64(4) {
		s := openStore(t, dir)
		sa, err := sad.New(outbound(t, s))
		if err != nil {
			t.Fatalf("restart %d: New: %v", restart, err)
		}
		first, n := sa.Reserve(10)
		if want := restart*sad.ReservationBlock + 1; n != 10 || first != want {
			t.Fatalf("restart %d: expected 10 numbers from %d, seen %d from %d", restart, want, n, first)
		}
		_ = s.Close() // the same as a kill: nothing is written here
	}
}

func TestWithoutWriteRightsNothingIsReserved(t *testing.T) {
	if !testing.Short() && os.Geteuid() == 0 {
		// root writes everywhere: a directory in the record's place fails
		// for it too.
		dir := filepath.Join(t.TempDir(), "sequence")
		s := openStore(t, dir)
		wantReserved(t, s, key1, 0)
		if err := os.MkdirAll(filepath.Join(fileName(dir, key1), "full"), 0o700); err != nil {
			t.Fatal(err)
		}
		wantError(t, s.Reserve(key1, 5), "not reserved")
		wantReserved(t, s, key1, 0)
		return
	}
	dir := filepath.Join(t.TempDir(), "sequence")
	s := openStore(t, dir)
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	wantError(t, s.Reserve(key1, 5), "not reserved")
	_ = os.Chmod(dir, 0o700)
	wantReserved(t, s, key1, 0)
}

// helperEnv makes this test binary the second process of a test.
const helperEnv = "ADIT_SEQSTORE_HELPER"

// TestHelperProcess is no test: started by the tests below with helperEnv set it
// opens the directory and reserves until it is killed.
func TestHelperProcess(t *testing.T) {
	dir := os.Getenv(helperEnv)
	if dir == "" {
		return
	}
	s, err := Open(dir)
	if err != nil {
		fmt.Println("error", err)
		return
	}
	fmt.Println("open")
	until, err := s.Reserved(key1)
	for ; err == nil; err = s.Reserve(key1, until) {
		fmt.Println("reserved", until)
		until++
	}
	fmt.Println("error", err)
}

// startHelper starts the second process and returns its lines. kill sends SIGKILL,
// hands the lines that are left to rest, and waits until the process is gone, and
// its lock with it.
func startHelper(t *testing.T, dir string) (lines *bufio.Scanner, kill func(rest func(line string))) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestHelperProcess$")
	cmd.Env = append(os.Environ(), helperEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines = bufio.NewScanner(out)
	kill = func(rest func(string)) {
		_ = cmd.Process.Kill()
		for lines.Scan() {
			rest(lines.Text())
		}
		_ = cmd.Wait()
	}
	t.Cleanup(func() { kill(func(string) {}) })
	return lines, kill
}

func TestSecondProcessIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sequence")
	s := openStore(t, dir)
	if _, err := Open(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("Open in the same process: expected ErrLocked, seen %v", err)
	}
	lines, _ := startHelper(t, dir)
	if !lines.Scan() || !strings.Contains(lines.Text(), ErrLocked.Error()) {
		t.Fatalf("Open in a second process: expected %q, seen %q", ErrLocked, lines.Text())
	}
	_ = s.Close()
	lines, _ = startHelper(t, dir)
	if !lines.Scan() || lines.Text() != "open" {
		t.Fatalf("Open in a second process after Close: expected open, seen %q", lines.Text())
	}
	if _, err := Open(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("Open beside a second process: expected ErrLocked, seen %v", err)
	}
}

// kill -9 at any moment: what a process was told is reserved is reserved for the
// next one, and the next one can go on.
func TestKillInTheMiddleLosesNoReservation(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sequence")
	told := uint64(0)
	for round := range 10 {
		lines, kill := startHelper(t, dir)
		if !lines.Scan() || lines.Text() != "open" {
			t.Fatalf("round %d: expected open, seen %q", round, lines.Text())
		}
		for n := 0; n < 3+2*round && lines.Scan(); n++ {
			if _, err := fmt.Sscanf(lines.Text(), "reserved %d", &told); err != nil {
				t.Fatalf("round %d: seen %q", round, lines.Text())
			}
		}
		kill(func(line string) { _, _ = fmt.Sscanf(line, "reserved %d", &told) })
		s := openStore(t, dir)
		got, err := s.Reserved(key1)
		if err != nil || got < told {
			t.Fatalf("round %d: expected at least %d, seen %d, %v", round, told, got, err)
		}
		_ = s.Close()
	}
	if told == 0 {
		t.Error("no process reserved anything")
	}
}
