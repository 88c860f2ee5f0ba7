package adit_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/rfc.md anew")

const rfcPage = "docs/rfc.md"

// rfcRow is one row of docs/rfc.md.
type rfcRow struct {
	id    string
	what  string // in our own words
	rfc   string // number and sections, as "4303 2.1, 3.4.2; 4301 4.1"
	tests string // packages, each followed by its tests: "sad TestA TestB/case test/site TestC"; "." is this package
	but   string // what is not so, or is not built, and why; "" if nothing
}

// rfcSection is one table of the page.
type rfcSection struct {
	heading string
	rows    []rfcRow
}

// testPlace is where a test function stands.
type testPlace struct{ pkg, name, file string }

// TestRFCPageIsMadeOfTheRows: docs/rfc.md is printed from the rows in rfc_*_test.go;
// `go test . -run RFCPage -update` writes it.
func TestRFCPageIsMadeOfTheRows(t *testing.T) {
	want := rfcMarkdown(t, sourceTests(t))
	if *update {
		if err := os.WriteFile(rfcPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := readText(t, rfcPage)
	if got == want {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			t.Fatalf("%s is not what its rows say: go test . -run RFCPage -update\nline %d: %s\nexpected: %s", rfcPage, i+1, g[i], w[i])
		}
	}
	t.Fatalf("%s has %d lines, expected %d: go test . -run RFCPage -update", rfcPage, len(g), len(w))
}

// TestRFCPageHasNoEmptyRow: every number is there, once and in its place, and is
// held by a test or says what is not so.
func TestRFCPageHasNoEmptyRow(t *testing.T) {
	tests := sourceTests(t)
	var points, list []string
	for i := range 62 {
		points = append(points, strconv.Itoa(i+1))
	}
	for i := range 24 {
		list = append(list, fmt.Sprintf("T%d", i+1))
	}
	var ids []string
	for _, kind := range []struct {
		letter string
		n      int
	}{{"R", 26}, {"S", 10}, {"A", 3}, {"P", 6}, {"I", 2}, {"K", 10}} {
		for i := range kind.n {
			ids = append(ids, fmt.Sprintf("C-%s%02d", kind.letter, i+1))
		}
	}
	for _, c := range []struct {
		name string
		rows []rfcRow
		want []string
	}{{"the points", rowsOf(rfcPoints()), points}, {"the list of tests", rfcList, list}, {"the catalogue", rfcCatalogue, ids}} {
		var have []string
		for _, r := range c.rows {
			have = append(have, r.id)
			if r.what == "" || r.rfc == "" {
				t.Errorf("%s says neither what it is about nor in which RFC", r.id)
			}
			if len(held(t, tests, r)) == 0 && r.but == "" {
				t.Errorf("%s %s: no test holds it, and nothing says why", r.id, r.what)
			}
		}
		if !slices.Equal(have, c.want) {
			t.Errorf("%s: expected %v, saw %v", c.name, c.want, have)
		}
	}
}

// TestRFCPageFindsWhatIsMissing: a test that is not there does not pass for one
// that is, and nor does a case.
func TestRFCPageFindsWhatIsMissing(t *testing.T) {
	tests := sourceTests(t)
	for _, bad := range []string{"sad TestNoSuchTest", "esp TestLookup", "TestLookup", "config TestBadFilesAreRefusedWithTheirPlace/no-such-file", "nowhere TestX"} {
		if _, err := places(tests, bad); err == nil {
			t.Errorf("%q: expected an error", bad)
		}
	}
	found, err := places(tests, "sad TestLookup config TestBadFilesAreRefusedWithTheirPlace/ah-nat")
	if err != nil || len(found) != 2 || found[0].file != "sad/database_test.go" || found[1].name != "TestBadFilesAreRefusedWithTheirPlace/ah-nat" {
		t.Errorf("expected two tests, saw %v, %v", found, err)
	}
}

// sourceTests are the test and fuzz functions of the module, by package and name.
func sourceTests(t *testing.T) map[[2]string]testPlace {
	t.Helper()
	found := map[[2]string]testPlace{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			if name := d.Name(); path != "." && (strings.HasPrefix(name, ".") || name == "build" || name == "testdata" || name == "tools") {
				return fs.SkipDir
			}
			return nil
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(filepath.Dir(path))
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && isTestName(f.Name.Name) {
				found[[2]string{pkg, f.Name.Name}] = testPlace{pkg, f.Name.Name, filepath.ToSlash(path)}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 500 {
		t.Fatalf("found %d tests in the module, expected at least 500", len(found))
	}
	return found
}

func isTestName(s string) bool {
	return (strings.HasPrefix(s, "Test") || strings.HasPrefix(s, "Fuzz")) && s != "TestMain"
}

// places reads a row's tests. A case of a test is a file in the package's testdata
// or a text in the test's file.
func places(tests map[[2]string]testPlace, text string) (list []testPlace, err error) {
	pkg := ""
	for _, word := range strings.Fields(text) {
		if !isTestName(word) {
			pkg = word
			continue
		}
		name, subtest, isCase := strings.Cut(word, "/")
		p, ok := tests[[2]string{pkg, name}]
		if !ok {
			return nil, fmt.Errorf("package %q has no test %s", pkg, name)
		}
		if isCase {
			if p.file, ok = caseFile(p, subtest); !ok {
				return nil, fmt.Errorf("%s has no case %s", p.file, subtest)
			}
			p.name = word
		}
		list = append(list, p)
	}
	return list, nil
}

// caseFile is the file of a case of p.
func caseFile(p testPlace, name string) (string, bool) {
	for _, pattern := range []string{"testdata/%s.*", "testdata/*/%s.yaml"} {
		files, err := filepath.Glob(filepath.Join(p.pkg, fmt.Sprintf(pattern, name)))
		if err == nil && len(files) > 0 {
			return filepath.ToSlash(files[0]), true
		}
	}
	source, err := os.ReadFile(p.file)
	return p.file, err == nil && strings.Contains(string(source), strconv.Quote(name))
}

// held are the tests that hold a row: those that it names, and those that are
// called after its id, as TestCR07_… is after C-R07.
func held(t *testing.T, tests map[[2]string]testPlace, r rfcRow) []testPlace {
	t.Helper()
	list, err := places(tests, r.tests)
	if err != nil {
		t.Errorf("%s: %v", r.id, err)
	}
	if strings.HasPrefix(r.id, "C-") {
		var more []testPlace
		named := regexp.MustCompile(`^Test(Root)?C` + r.id[2:] + `(_|$)`)
		for _, p := range tests {
			if named.MatchString(p.name) && !slices.Contains(list, p) {
				more = append(more, p)
			}
		}
		slices.SortFunc(more, func(a, b testPlace) int { return strings.Compare(a.name, b.name) })
		list = append(list, more...)
	}
	slices.SortStableFunc(list, func(a, b testPlace) int { return strings.Compare(a.pkg, b.pkg) })
	return list
}

func rowsOf(sections []rfcSection) (rows []rfcRow) {
	for _, s := range sections {
		rows = append(rows, s.rows...)
	}
	return rows
}

// rfcMarkdown prints the page.
func rfcMarkdown(t *testing.T, tests map[[2]string]testPlace) string {
	t.Helper()
	whole, part := 0, 0
	var missing []string
	for _, r := range rowsOf(rfcPoints()) {
		switch {
		case r.but == "":
			whole++
		case len(held(t, tests, r)) > 0:
			part++
		default:
			missing = append(missing, r.id)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, `# RFCs, point by point

What the RFCs demand of a gateway's packets, above all what is easily missed, in our own words; which tests hold it; and
where adit does otherwise, or does not have it yet. Of the %d points below %d are held by tests as they stand, %d with a
deviation or a part that is not in this version, and %s.

*Held by* names test functions, and leads to their files. A case behind a slash is a file of the test's testdata. Tests called
TestRoot… need root and run in namespaces; the others run anywhere. *Otherwise* is empty where nothing is to be said.

The page is printed from the rows in rfc_*_test.go by `+"`go test . -run RFCPage -update`"+`. A test holds that no row is empty, that every
test exists, and that the page is what the rows say.
`, whole+part+len(missing), whole, part, missingText(missing))
	for _, s := range rfcPoints() {
		rfcTable(t, &b, tests, s)
	}
	b.WriteString("\n## The tests that must not be missing\n\nEach one a trap that gateways have fallen into.\n")
	rfcTable(t, &b, tests, rfcSection{rows: rfcList})
	b.WriteString("\n## Conformance catalogue\n\nPackets in, packets out: a case each, or many. R is ESP received, S is ESP sent, A is AH, P is policies, I is ICMP, K is IKE.\n")
	rfcTable(t, &b, tests, rfcSection{rows: rfcCatalogue})
	return b.String()
}

// missingText is how many points are not held at all, and which.
func missingText(ids []string) string {
	if len(ids) == 0 {
		return "none is missing"
	}
	return fmt.Sprintf("%d are not in this version at all: %s", len(ids), strings.Join(ids, ", "))
}

func rfcTable(t *testing.T, b *strings.Builder, tests map[[2]string]testPlace, s rfcSection) {
	t.Helper()
	if s.heading != "" {
		fmt.Fprintf(b, "\n## %s\n", s.heading)
	}
	b.WriteString("\n| # | what | RFC | held by | otherwise |\n|---|---|---|---|---|\n")
	for _, r := range s.rows {
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", r.id, r.what, r.rfc, rfcLinks(held(t, tests, r)), r.but)
	}
}

// rfcLinks prints tests, a line for each package.
func rfcLinks(list []testPlace) string {
	if len(list) == 0 {
		return "none"
	}
	var b strings.Builder
	for i, p := range list {
		switch {
		case i == 0 || list[i-1].pkg != p.pkg:
			if i > 0 {
				b.WriteString("<br>")
			}
			b.WriteString(strings.Replace(p.pkg, ".", "the root", 1) + ": ")
		default:
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "[%s](../%s)", p.name, p.file)
	}
	return b.String()
}
