package config

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the .err and .out files of testdata anew")

// testSecrets stands in for the file system of Load.
func testSecrets(path string) ([]byte, fs.FileMode, error) {
	switch path {
	case "/secrets/good-encryption":
		return []byte("5ca1ab1e5ca1ab1e0ddba11facade005\n"), 0o600, nil
	case "/secrets/good-integrity":
		return []byte("\t5CA1AB1E5CA1AB1E0DDBA11FACADE0055CA1AB1E5CA1AB1E0DDBA11FACADE006\r\n"), 0o400, nil
	case "/secrets/mode-0640":
		return []byte("5ca1ab1e5ca1ab1e0ddba11facade005"), 0o640, nil
	case "/secrets/short":
		return []byte("5ca1ab1e\n"), 0o600, nil
	}
	if file, ok := ikeFiles()[path]; ok {
		return file.data, file.mode, nil
	}
	return nil, 0, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
}

func readTestdata(t *testing.T, pattern string) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files match %s (%v)", pattern, err)
	}
	files := map[string][]byte{}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files[path] = data
	}
	return files
}

// golden compares got with the file at path, or writes it with -update.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; write it with: go test ./config -update", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-expected +seen):\n%s", path, diff)
	}
}

// TestBadFilesAreRefusedWithTheirPlace holds the whole text of every error of
// every file in testdata/bad: place, key, what was found, what would be right.
func TestBadFilesAreRefusedWithTheirPlace(t *testing.T) {
	files := readTestdata(t, "testdata/bad/*.yaml")
	if len(files) < 80 {
		t.Errorf("%d bad files, expected at least 80", len(files))
	}
	for path, data := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			c, err := Parse(filepath.Base(path), data, WithSecrets(testSecrets))
			if c != nil || err == nil {
				t.Fatalf("accepted: %v, %v", c, err)
			}
			checkErrors(t, data, err)
			golden(t, strings.TrimSuffix(path, ".yaml")+".err", err.Error()+"\n")
		})
	}
}

// checkErrors holds what is true of every error: a type, a place inside the
// file, the order of the file, something to do.
func checkErrors(t *testing.T, data []byte, err error) {
	t.Helper()
	var list *Errors
	if !errors.As(err, &list) || len(list.List) == 0 {
		t.Fatalf("%T is no *Errors with entries", err)
	}
	lines := strings.Split(string(data), "\n")
	last := Error{}
	for _, e := range list.List {
		if e.Line < 1 || e.Line > len(lines) || e.Column < 1 || e.Column > len(lines[e.Line-1])+1 {
			t.Errorf("%v lies outside the file", e)
		}
		if e.Problem == "" || e.Fix == "" {
			t.Errorf("%v does not say what was found and what to do", e)
		}
		if e.Line < last.Line || e.Line == last.Line && e.Column < last.Column {
			t.Errorf("%v stands behind %v", e, last)
		}
		if strings.Contains(e.Error(), "\n") {
			t.Errorf("%q is longer than a line", e.Error())
		}
		last = e
	}
}
