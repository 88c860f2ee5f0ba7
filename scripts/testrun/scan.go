package main

import (
	"cmp"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// testFunc is one Test, Fuzz or Example function of the tree.
type testFunc struct {
	dir  string // relative to the root, with slashes; "." for the root
	name string
}

// scan reads every test file below root and returns its test functions, sorted.
// It follows no build constraint: the plan needs names, `go test` decides the
// rest. Folders that the go command ignores (testdata, vendor, and names that
// begin with "." or "_") and folders that are modules of their own are not entered.
func scan(root string) (found []testFunc, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return enter(root, path, d.Name())
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		names, err := testNames(path)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		for _, n := range names {
			found = append(found, testFunc{filepath.ToSlash(dir), n})
		}
		return nil
	})
	slices.SortFunc(found, func(a, b testFunc) int {
		return cmp.Or(cmp.Compare(a.dir, b.dir), cmp.Compare(a.name, b.name))
	})
	return found, err
}

func enter(root, path, name string) error {
	if path == root {
		return nil
	}
	ignored := name == "testdata" || name == "vendor" || name[0] == '.' || name[0] == '_'
	if ignored || fileExists(filepath.Join(path, "go.mod")) {
		return filepath.SkipDir
	}
	return nil
}

func testNames(path string) (names []string, err error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Recv != nil {
			continue
		}
		name := f.Name.Name
		isTest := strings.HasPrefix(name, "Test") && name != "TestMain"
		if isTest || strings.HasPrefix(name, "Fuzz") || strings.HasPrefix(name, "Example") {
			names = append(names, name)
		}
	}
	return names, nil
}

// dirs is the set of folders of the tests that keep says yes to, sorted, each
// as the go command wants it ("./natt").
func dirs(tests []testFunc, keep func(testFunc) bool) (list []string) {
	for _, t := range tests {
		if dir := "./" + t.dir; keep(t) && !slices.Contains(list, dir) {
			list = append(list, dir)
		}
	}
	return list
}

// names is the set of names of the tests that keep says yes to, sorted.
func names(tests []testFunc, keep func(testFunc) bool) (list []string) {
	for _, t := range tests {
		if keep(t) {
			list = append(list, t.name)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// exactly is a -run or -skip pattern for these names and no others; with no
// name it matches nothing.
func exactly(names []string) string { return "^(" + strings.Join(names, "|") + ")$" }
