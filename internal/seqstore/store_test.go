package seqstore

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/adit-ipsec/adit/sad"
)

var (
	_ sad.SequenceStore = (*Store)(nil)

	key1 = sad.KeyID{1, 0xab}
	key2 = sad.KeyID{2}
)

func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func reserve(t *testing.T, s *Store, id sad.KeyID, until uint64) {
	t.Helper()
	if err := s.Reserve(id, until); err != nil {
		t.Fatalf("Reserve(%d): %v", until, err)
	}
}

func wantReserved(t *testing.T, s *Store, id sad.KeyID, want uint64) {
	t.Helper()
	if got, err := s.Reserved(id); err != nil || got != want {
		t.Fatalf("Reserved: expected %d, seen %d, %v", want, got, err)
	}
}

// wantError expects an error that holds each of these texts: what is wrong, and
// what to do.
func wantError(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("expected an error with %q, seen none", texts)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("expected %q in the error, seen %q", text, err)
		}
	}
}

func TestReservationsSurviveReopening(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b", "sequence")
	s := openStore(t, dir)
	wantReserved(t, s, key1, 0)
	reserve(t, s, key1, 1<<20)
	reserve(t, s, key1, 2<<20)
	reserve(t, s, key2, math.MaxUint64)
	wantReserved(t, s, key1, 2<<20)
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}

	s = openStore(t, dir)
	wantReserved(t, s, key1, 2<<20)
	wantReserved(t, s, key2, math.MaxUint64)
	wantReserved(t, s, sad.KeyID{3}, 0)
}

func TestRecordIsAsDocumentedAndPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sequence")
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	s := openStore(t, dir)
	reserve(t, s, key1, 1048576)

	name := filepath.Join(dir, key1.String()+".seq")
	record, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(record), "\n")
	if len(lines) != 5 || lines[0] != "adit sequence reservation 1" || lines[1] != "key "+key1.String() ||
		lines[2] != "until 1048576" || !strings.HasPrefix(lines[3], "sha256 ") || lines[4] != "" {
		t.Errorf("record: expected the documented lines, seen %q", record)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, name: 0o600, filepath.Join(dir, "lock"): 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s: mode expected %04o, seen %04o", filepath.Base(path), want, got)
		}
	}
}

func TestReservationsNeverDecrease(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sequence")
	s := openStore(t, dir)
	reserve(t, s, key1, 1000)
	for _, until := range []uint64{0, 1, 999, 1000} {
		if err := s.Reserve(key1, until); !errors.Is(err, ErrReserved) {
			t.Errorf("Reserve(%d) after 1000: expected ErrReserved, seen %v", until, err)
		}
	}
	if err := s.Reserve(key2, 0); !errors.Is(err, ErrReserved) {
		t.Errorf("Reserve(0): expected ErrReserved, seen %v", err)
	}
	wantReserved(t, s, key1, 1000)
	_ = s.Close()
	wantReserved(t, openStore(t, dir), key1, 1000)
}

// Of many that ask for the same block exactly one gets it.
func TestOneOfManyGetsABlock(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "sequence"))
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { errs[i] = s.Reserve(key1, 1<<20) })
	}
	wg.Wait()
	got := 0
	for _, err := range errs {
		if err == nil {
			got++
		} else if !errors.Is(err, ErrReserved) {
			t.Errorf("expected ErrReserved, seen %v", err)
		}
	}
	if got != 1 {
		t.Errorf("expected one to get the block, seen %d", got)
	}
}

// Killed in the middle of a write: what is left half written counts for nothing,
// and is cleared.
func TestLeftTemporaryFilesAreCleared(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sequence")
	s := openStore(t, dir)
	reserve(t, s, key1, 1000)
	_ = s.Close()
	whole := format(key1, 2000)
	for i, content := range [][]byte{nil, whole[:40], whole} {
		name := filepath.Join(dir, fmt.Sprintf("%s%s", tempPrefix, sad.KeyID{byte(i + 1)}))
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, tempPrefix+key1.String()), whole, 0o600); err != nil {
		t.Fatal(err)
	}

	s = openStore(t, dir)
	wantReserved(t, s, key1, 1000)
	if left, _ := filepath.Glob(filepath.Join(dir, tempPrefix+"*")); len(left) != 0 {
		t.Errorf("temporary files after Open: expected none, seen %d", len(left))
	}
	reserve(t, s, key1, 2000)
}

func TestDamagedRecordsAreRefused(t *testing.T) {
	good := format(key1, 123456)
	flip := func(at int) []byte {
		b := bytes.Clone(good)
		b[at] ^= 1
		return b
	}
	cases := map[string][]byte{
		"empty":                  {},
		"zeros":                  make([]byte, len(good)),
		"foreign":                []byte("until 5\n"),
		"later version":          bytes.Replace(good, []byte("reservation 1"), []byte("reservation 2"), 1),
		"of another key":         format(key2, 123456),
		"one byte more":          append(bytes.Clone(good), '\n'),
		"two records":            append(bytes.Clone(good), good...),
		"far too long":           append(bytes.Clone(good), make([]byte, 2*maxRecord)...),
		"number lowered":         bytes.Replace(good, []byte("123456"), []byte("000001"), 1),
		"leading zero":           bytes.Replace(good, []byte("until 1"), []byte("until 01"), 1),
		"number above 64 bits":   bytes.Replace(good, []byte("123456"), []byte("18446744073709551616"), 1),
		"no number":              bytes.Replace(good, []byte("123456"), nil, 1),
		"carriage returns":       bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n")),
		"checksum in upper case": bytes.ToUpper(good),
	}
	for at := range good {
		cases[fmt.Sprintf("bit flipped at %d", at)] = flip(at)
		cases[fmt.Sprintf("cut at %d", at)] = good[:at]
	}
	dir := filepath.Join(t.TempDir(), "sequence")
	s := openStore(t, dir)
	name := fileName(dir, key1)
	for what, content := range cases {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := s.Reserved(key1)
		if err == nil || got != 0 || !strings.Contains(err.Error(), "change the keys of this SA at both ends") {
			t.Errorf("%s: expected an error with advice, seen %d, %v", what, got, err)
		}
		if err := s.Reserve(key1, 1<<40); err == nil {
			t.Errorf("%s: Reserve wrote over a record that cannot be trusted", what)
		}
		if left, _ := os.ReadFile(name); !bytes.Equal(left, content) {
			t.Errorf("%s: the file was changed", what)
		}
	}
	if err := os.WriteFile(name, good, 0o600); err != nil {
		t.Fatal(err)
	}
	wantReserved(t, s, key1, 123456)
}

func TestOpenToOthersIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sequence")
	s := openStore(t, dir)
	reserve(t, s, key1, 1000)
	_ = s.Close()
	name := fileName(dir, key1)
	for _, mode := range []os.FileMode{0o620, 0o602, 0o640, 0o604, 0o666} {
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
		s := openStore(t, dir)
		_, err := s.Reserved(key1)
		wantError(t, err, fmt.Sprintf("mode %04o", mode), "chmod 0600")
		_ = s.Close()
	}
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o750, 0o707, 0o777} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		_, err := Open(dir)
		wantError(t, err, fmt.Sprintf("mode %04o", mode), "chmod 0700")
	}
}

func TestNotARecordFileIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sequence")
	s := openStore(t, dir)
	real := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.WriteFile(real, format(key1, 5), 0o600); err != nil {
		t.Fatal(err)
	}
	name := fileName(dir, key1)
	for what, make := range map[string]func() error{
		"symbolic link": func() error { return os.Symlink(real, name) },
		"directory":     func() error { return os.Mkdir(name, 0o700) },
		"fifo":          func() error { return syscall.Mkfifo(name, 0o600) },
	} {
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Reserved(key1); err == nil {
			t.Errorf("%s: expected an error, seen %d", what, got)
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDirectoryThatIsNone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(file)
	wantError(t, err, "give a directory")
	_, err = Open(filepath.Join(file, "below"))
	wantError(t, err, "give a directory")
}

func TestClosedStore(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "sequence"))
	reserve(t, s, key1, 10)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
	}
	if _, err := s.Reserved(key1); !errors.Is(err, ErrClosed) {
		t.Errorf("Reserved after Close: expected ErrClosed, seen %v", err)
	}
	if err := s.Reserve(key1, 20); !errors.Is(err, ErrClosed) {
		t.Errorf("Reserve after Close: expected ErrClosed, seen %v", err)
	}
}
