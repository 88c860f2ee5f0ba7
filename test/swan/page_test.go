package swan

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of docs/interop.md")

const (
	interopPage = "../../docs/interop.md"
	begin       = "<!-- cells: go test ./test/swan -run InteropPage -update -->\n"
	end         = "<!-- end of cells -->\n"
)

// docs/interop.md has the cells that TestRootInteropMatrix runs, and names only
// tests that there are.
func TestInteropPage(t *testing.T) {
	text, err := os.ReadFile(interopPage)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(text), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s lacks %q or %q", interopPage, begin, end)
	}
	want := head + begin + "\n" + page() + "\n" + end + tail
	if *update {
		if err := os.WriteFile(interopPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want != string(text) {
		t.Errorf("%s is not what the cells say: go test ./test/swan -run InteropPage -update", interopPage)
	}
	var source strings.Builder
	for _, name := range []string{"matrix_test.go", "features_test.go", "rekey_test.go", "more_test.go"} {
		code, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(code)
	}
	for word := range strings.FieldsSeq(string(text)) {
		name := strings.Trim(word, "`|,.()")
		if strings.HasPrefix(name, "TestRoot") && !strings.Contains(source.String(), "func "+name+"(") {
			t.Errorf("%s names %s, and there is no such test", interopPage, name)
		}
	}
}
