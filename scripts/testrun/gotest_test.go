package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// stream is what `go test -json` writes, abridged: a test with subtests, a skip,
// a fuzz target with seeds, and a package without tests.
const stream = `
{"Action":"start","Package":"m/a"}
{"Action":"run","Package":"m/a","Test":"TestC01_Sub"}
{"Action":"run","Package":"m/a","Test":"TestC01_Sub/one"}
{"Action":"run","Package":"m/a","Test":"TestC01_Sub/two/deep"}
{"Action":"pass","Package":"m/a","Test":"TestC01_Sub/one"}
{"Action":"pass","Package":"m/a","Test":"TestC01_Sub/two/deep"}
{"Action":"pass","Package":"m/a","Test":"TestC01_Sub"}
{"Action":"run","Package":"m/a","Test":"TestSkips"}
{"Action":"output","Package":"m/a","Test":"TestSkips","Output":"=== RUN   TestSkips\n"}
{"Action":"output","Package":"m/a","Test":"TestSkips","Output":"    a_test.go:7: no tshark here\n"}
{"Action":"output","Package":"m/a","Test":"TestSkips","Output":"--- SKIP: TestSkips (0.00s)\n"}
{"Action":"skip","Package":"m/a","Test":"TestSkips"}
{"Action":"run","Package":"m/a","Test":"FuzzOpen"}
{"Action":"run","Package":"m/a","Test":"FuzzOpen/seed#0"}
{"Action":"pass","Package":"m/a","Test":"FuzzOpen/seed#0"}
{"Action":"run","Package":"m/a","Test":"FuzzOpen/seed#1"}
{"Action":"pass","Package":"m/a","Test":"FuzzOpen/seed#1"}
{"Action":"pass","Package":"m/a","Test":"FuzzOpen"}
{"Action":"pass","Package":"m/a"}
{"Action":"output","Package":"m/none","Output":"?   \tm/none\t[no test files]\n"}
{"Action":"skip","Package":"m/none"}
`

func collect(t *testing.T, text string) *collector {
	t.Helper()
	c := newCollector()
	if err := c.read(strings.NewReader(strings.TrimPrefix(text, "\n")), func(string) {}); err != nil {
		t.Fatal(err)
	}
	return c
}

func wantCounts(t *testing.T, r result, passed, failed, skipped int) {
	t.Helper()
	if got, want := summaryLine(r.passed, r.failed, r.skipped), summaryLine(passed, failed, skipped); got != want {
		t.Errorf("counted %s, want %s; problems: %q", got, want, r.problems)
	}
}

func TestCountsSubtestsOnceAndSeedsWithTheirTarget(t *testing.T) {
	c := collect(t, stream)
	r, skips := c.counts()
	wantCounts(t, r, 3, 0, 1)
	want := skipped{"m/a", "TestSkips", "a_test.go:7: no tshark here"}
	if len(skips) != 1 || skips[0] != want {
		t.Errorf("skips are %+v, want %+v", skips, want)
	}
	if got := strings.Join(c.breakdown(), "|"); !strings.Contains(got, "fuzz seeds           2") {
		t.Errorf("breakdown is %q, want 2 fuzz seeds in it", got)
	}
}

func TestCountsFailures(t *testing.T) {
	for _, c := range []struct {
		name, text string
		failed     int
		says       string
	}{
		{"a subtest; its parent fails with it", `
{"Action":"run","Package":"m/a","Test":"TestA"}
{"Action":"run","Package":"m/a","Test":"TestA/x"}
{"Action":"output","Package":"m/a","Test":"TestA/x","Output":"want 1, got 2\n"}
{"Action":"fail","Package":"m/a","Test":"TestA/x"}
{"Action":"fail","Package":"m/a","Test":"TestA"}
{"Action":"fail","Package":"m/a"}
`, 1, "want 1, got 2"},
		{"a parent whose subtests passed", `
{"Action":"run","Package":"m/a","Test":"TestA"}
{"Action":"run","Package":"m/a","Test":"TestA/x"}
{"Action":"pass","Package":"m/a","Test":"TestA/x"}
{"Action":"fail","Package":"m/a","Test":"TestA"}
{"Action":"fail","Package":"m/a"}
`, 1, "m/a TestA"},
		{"a test that never ended", `
{"Action":"run","Package":"m/a","Test":"TestA"}
{"Action":"output","Package":"m/a","Test":"TestA","Output":"panic: test timed out\n"}
{"Action":"fail","Package":"m/a"}
`, 1, "timed out"},
		{"a package that fails behind its tests", `
{"Action":"run","Package":"m/a","Test":"TestA"}
{"Action":"pass","Package":"m/a","Test":"TestA"}
{"Action":"output","Package":"m/a","Output":"goleak: a goroutine is left\n"}
{"Action":"fail","Package":"m/a"}
`, 1, "a goroutine is left"},
		{"a package that does not build", `
{"ImportPath":"m/a [m/a.test]","Action":"build-output","Output":"a.go:1: undefined: x\n"}
{"ImportPath":"m/a [m/a.test]","Action":"build-fail"}
{"Action":"start","Package":"m/a"}
{"Action":"fail","Package":"m/a","FailedBuild":"m/a [m/a.test]"}
`, 1, "undefined: x"},
		{"a fuzz seed", `
{"Action":"run","Package":"m/a","Test":"FuzzA"}
{"Action":"run","Package":"m/a","Test":"FuzzA/seed#0"}
{"Action":"fail","Package":"m/a","Test":"FuzzA/seed#0"}
{"Action":"fail","Package":"m/a","Test":"FuzzA"}
{"Action":"fail","Package":"m/a"}
`, 1, "FuzzA"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, _ := collect(t, c.text).counts()
			if r.failed != c.failed {
				t.Errorf("%d failed, want %d", r.failed, c.failed)
			}
			if text := strings.Join(r.problems, "\n"); !strings.Contains(text, c.says) {
				t.Errorf("the problems do not say %q: %q", c.says, text)
			}
		})
	}
}

func TestSkipsFailAPrivilegedRunUnlessTheFileNamesThem(t *testing.T) {
	file := filepath.Join(t.TempDir(), "allowed")
	skips := []skipped{{"m/esp", "TestX/sub", "why"}, {"m/natt", "TestY", "no tool"}}
	for _, c := range []struct {
		name, allowed, unprivileged string
		failed                      int
	}{
		{"none named", "# nothing\n", "", 2},
		{"one named", "esp.TestX/sub  the kernel lacks it\n", "", 1},
		{"all named", "esp.TestX/sub  a\nnatt.TestY b # c\n", "", 0},
		{"a line without reason", "esp.TestX/sub\n", "", 1},
		{"without root", "", "not root", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(file, []byte(c.allowed), 0o600); err != nil {
				t.Fatal(err)
			}
			var r result
			o := options{allowedSkips: file, unprivileged: c.unprivileged}
			o.judgeSkips(&r, skips)
			wantCounts(t, r, 0, c.failed, 0)
		})
	}
}

func TestScanFindsTestsAndTheirTiers(t *testing.T) {
	root := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		full := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("esp/a_test.go", "package esp\nfunc TestPlain(t *T) {}\nfunc TestRoot_Netns() {}\nfunc TestMain(){}\nfunc (x X) TestMethod(){}\nfunc FuzzOpen(){}\nfunc ExampleNew(){}\nfunc helper(){}\n")
	write("esp/a.go", "package esp\nfunc TestNot(){}\n")
	write("esp/testdata/x_test.go", "not Go")
	write("bench/b_test.go", "package bench\nfunc TestMeasureWalk(){}\n")
	write("test/interop/c_test.go", "package interop\nfunc TestTshark(){}\n")
	write("tools/go.mod", "module tools")
	write("tools/t_test.go", "package tools\nfunc TestElsewhere(){}\n")
	tests, err := scan(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		kind string
		keep func(testFunc) bool
		want string
	}{
		{"plain", plainTest, "ExampleNew FuzzOpen TestPlain"},
		{"root", needsRoot, "TestRoot_Netns TestTshark"},
		{"measure", measures, "TestMeasureWalk"},
		{"fuzz", fuzzes, "FuzzOpen"},
	} {
		if got := strings.Join(names(tests, c.keep), " "); got != c.want {
			t.Errorf("%s tests are %q, want %q", c.kind, got, c.want)
		}
	}
	if got, want := dirs(tests, plainTest), []string{"./esp"}; !slices.Equal(got, want) {
		t.Errorf("plain tests are in %q, want %q", got, want)
	}
}
