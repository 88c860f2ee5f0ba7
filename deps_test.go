// Package adit_test holds the project's shape as a test: who may import whom.
//
// The text below is the lattice of ARCHITECTURE.md, to the letter. The tests
// read it, ask `go list` what every package really imports, and say which rule
// forbids what they find. Relaxing the text is a design change: it needs an ADR
// under docs/adr/.
package adit_test

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const modulePath = "github.com/adit-ipsec/adit"

// lattice is who may import whom.
//
//	A < B;               each of B may import each of A, and all that A may import
//	A import no X but Y; not one of A imports X or what lies beneath it, save Y
//	only A import X;     nobody but A imports X or what lies beneath it
//	tests of A also import B;
//
// Inside this module nothing is allowed that "<" does not allow. A package of
// another module is allowed where an "only" names it. Test files may import
// what their package may, and what an "only tests" names. "a/*" is every
// package beneath a; "everything" is every package named so far.
const lattice = `
std < internal/packet, internal/replay, internal/crypt, internal/vectors, internal/hostnet, internal/ctl/controlv1, internal/pki, scripts/*;
internal/packet, internal/crypt < esp, ah, spd, internal/mmsg, internal/tun, internal/pcap;
internal/packet, internal/pcap < internal/netlab;
internal/mmsg < natt, internal/rawip;
internal/tun, internal/rawip, natt < internal/netsim;
std < ike/wire;
esp, ah, spd, internal/replay < sad;
spd < internal/guard;
esp, ah, ike/wire < ike/proposal;
ike/wire, ike/proposal, sad < ike/keys;
ike/keys < ike/auth;
ike/wire, ike/proposal, ike/keys, ike/auth < ike;
sad, spd < ike, controller, config, internal/seqstore;
ike/proposal, ike/auth < config;
sad, spd, natt, internal/tun, internal/rawip, internal/guard < dataplane;
controller < controller/agent, controller/server, controller/store;
internal/ctl/controlv1 < internal/ctl;
everything < bench, fuzz, test/*;
bench < cmd/*, bench/figures;
tests of internal/crypt also import internal/packet;

# the core has no sockets, no files, no log and no clock of its own
esp, ah, sad, spd, internal/packet, internal/crypt, internal/replay import no net, log, os but net/netip;
dataplane import no ike, controller, config, encoding/json, net/http;
ike import no dataplane, natt, net but net/netip;
ike/wire, ike/proposal, ike/keys, ike/auth import no net, log, os but net/netip;

# for tests, and for the programs that raise test networks (ADR 0001)
only tests, test/*, fuzz import internal/vectors;
only tests, test/*, fuzz, bench, cmd/adit, cmd/adit-bench import internal/netlab, internal/netsim, internal/pki;

# other modules: each has its place
only tests, test/*, internal/pcap import github.com/google/gopacket;
only tests, test/*, fuzz import pgregory.net/rapid, github.com/google/go-cmp, go.uber.org/goleak, github.com/c2sp/wycheproof;
only tests, internal/crypt, internal/mmsg, internal/rawip, internal/tun, internal/hostnet, internal/netlab, test/*, bench, cmd/* import golang.org/x/sys;
only tests, fuzz import golang.org/x/net;
only tests, internal/tun, internal/netsim, dataplane, test/*, bench, cmd/* import golang.zx2c4.com/wireguard;
only tests, esp, ike/wire, ike/keys, ike/auth, internal/pki, fuzz, test/* import golang.org/x/crypto;
only tests, ike/keys import github.com/cloudflare/circl, filippo.io/bigmod;
only spd, internal/hostnet import go4.org/netipx;
only tests, internal/hostnet, internal/netlab import github.com/vishvananda/netlink, github.com/vishvananda/netns;
only config, cmd/* import github.com/goccy/go-yaml;
only cmd/* import github.com/spf13/cobra, github.com/coreos/go-systemd;
only internal/ctl, internal/ctl/controlv1, cmd/* import connectrpc.com/connect, google.golang.org/protobuf;
`

// TestDepsLatticeHolds lists the module and fails for every import that the
// text does not allow, and for every package that it does not name.
func TestDepsLatticeHolds(t *testing.T) {
	rules := mustParse(t, lattice)
	for _, problem := range rules.check(listPackages(t)) {
		t.Error(problem)
	}
}

// TestDepsArchitectureQuotesTheLattice keeps ARCHITECTURE.md true: its lattice
// block is the text above, to the letter.
func TestDepsArchitectureQuotesTheLattice(t *testing.T) {
	got := fencedBlock(t, "ARCHITECTURE.md", "lattice")
	if want := strings.TrimPrefix(lattice, "\n"); got != want {
		t.Errorf("the lattice block of ARCHITECTURE.md is not the text of deps_test.go; first difference:\n%s", firstDifference(got, want))
	}
}

// TestDepsArchitectureQuotesTheWalks keeps the two walks of ARCHITECTURE.md
// true: they are the comments at the top of the files that walk them.
func TestDepsArchitectureQuotesTheWalks(t *testing.T) {
	for _, walk := range []string{"outbound", "inbound"} {
		file := filepath.Join("dataplane", walk+".go")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var drawn strings.Builder
		for line := range strings.Lines(string(text)) {
			if code, ok := strings.CutPrefix(line, "//\t"); ok {
				drawn.WriteString(code)
			} else if drawn.Len() > 0 {
				break
			}
		}
		if got, want := fencedBlock(t, "ARCHITECTURE.md", walk), drawn.String(); got != want {
			t.Errorf("the %s walk of ARCHITECTURE.md is not the one at the top of %s; first difference:\n%s", walk, file, firstDifference(got, want))
		}
	}
}

// TestDepsArchitectureNamesEveryPackage keeps the tree of ARCHITECTURE.md true:
// it names every package directory there is, and nothing that is not there.
func TestDepsArchitectureNamesEveryPackage(t *testing.T) {
	drawn := treePaths(fencedBlock(t, "ARCHITECTURE.md", "tree"))
	for _, path := range drawn {
		if _, err := os.Stat(filepath.FromSlash(path)); errors.Is(err, fs.ErrNotExist) {
			t.Errorf("ARCHITECTURE.md draws %s, which does not exist", path)
		}
	}
	for _, p := range listPackages(t) {
		if p.path != "." && !slices.Contains(drawn, p.path) {
			t.Errorf("ARCHITECTURE.md's tree lacks the package %s: add a line that says what it owns", p.path)
		}
	}
}

// TestDepsCheckerFindsEachBreach breaks every kind of rule once and expects
// the checker to name the importer, the import and the rule.
func TestDepsCheckerFindsEachBreach(t *testing.T) {
	rules := mustParse(t, `
std < low, side, lab, vec;
low < mid;   # a comment
mid < top;
everything < cmd/*, fuzz;
mid import no net but net/netip;
only tests, cmd/x import lab;
only tests import vec, example.com/helper;
only top import example.com/mod;
tests of low also import top;
`)
	cases := []struct {
		name string
		pkg  listed
		want string // "": allowed
	}{
		{"down the lattice", listed{path: "mid", imports: []string{modulePath + "/low", "net/netip", "fmt"}}, ""},
		{"down by two steps", listed{path: "top", imports: []string{modulePath + "/low"}}, ""},
		{"up the lattice", listed{path: "low", imports: []string{modulePath + "/mid"}}, "low imports mid: no rule \"mid < low\""},
		{"sideways", listed{path: "top", imports: []string{modulePath + "/side"}}, "top imports side: no rule \"side < top\""},
		{"a package nobody named", listed{path: "new"}, "new is not in the lattice"},
		{"an import nobody named", listed{path: "top", imports: []string{modulePath + "/new"}}, "top imports new: no rule"},
		{"forbidden std", listed{path: "mid", imports: []string{"net"}}, "mid imports net: \"mid import no net but net/netip\""},
		{"beneath forbidden std", listed{path: "mid", imports: []string{"net/http"}}, "mid imports net/http"},
		{"forbidden std in tests is fine", listed{path: "mid", testImports: []string{"net/http"}}, ""},
		{"only some", listed{path: "cmd/y", imports: []string{modulePath + "/lab"}}, "cmd/y imports lab: \"only tests, cmd/x import lab\""},
		{"the one allowed", listed{path: "cmd/x", imports: []string{modulePath + "/lab"}}, ""},
		{"only tests: a test of a package below", listed{path: "low", testImports: []string{modulePath + "/vec", "example.com/helper"}}, ""},
		{"only tests: code", listed{path: "fuzz", imports: []string{modulePath + "/vec"}}, "fuzz imports vec: \"only tests import vec"},
		{"only tests: code, another module", listed{path: "top", imports: []string{"example.com/helper/deep"}}, "top imports example.com/helper/deep: \"only tests import"},
		{"module in its place", listed{path: "top", imports: []string{"example.com/mod/v2"}}, ""},
		{"module out of place", listed{path: "mid", imports: []string{"example.com/mod"}}, "mid imports example.com/mod: \"only top import example.com/mod\""},
		{"module out of place, in a test", listed{path: "mid", testImports: []string{"example.com/mod"}}, "mid's tests import example.com/mod"},
		{"module nobody named", listed{path: "top", imports: []string{"example.com/other"}}, "top imports example.com/other: no \"only\" rule names this module"},
		{"test up the lattice, as allowed", listed{path: "low", testImports: []string{modulePath + "/top"}}, ""},
		{"test up the lattice, as not allowed", listed{path: "low", testImports: []string{modulePath + "/mid"}}, "low's tests import mid: no rule"},
		{"a test of the package itself", listed{path: "low", testImports: []string{modulePath + "/low"}}, ""},
		{"the root's tests", listed{path: "."}, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := strings.Join(rules.check([]listed{c.pkg}), "\n")
			if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
				t.Errorf("check said %q, want %q", got, c.want)
			}
		})
	}
}

// TestDepsParserRefuses gives texts that say nothing or contradict themselves.
func TestDepsParserRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"a < b;":                          "a is used before it is defined",
		"std < a; a < b; b < a;":          "a was used to the left of",
		"std < a":                         "no closing ;",
		"std a;":                          "cannot read",
		"std < a; only tests import , ;":  "empty list",
		"std < a; a < ;":                  "empty list",
		"std < a; b import no net;":       "b is not in the lattice",
		"std < a; only c import net;":     "c is not in the lattice",
		"std < a; tests of z also import": "no closing ;",
	} {
		if _, err := parseRules(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parse %q: got %v, want an error with %q", text, err, want)
		}
	}
}

func mustParse(t *testing.T, text string) *ruleSet {
	t.Helper()
	rules, err := parseRules(text)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// listPackages asks the go command for every package of the module.
func listPackages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath                         string
			Imports, TestImports, XTestImports []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("go list wrote what is not JSON: %v", err)
		}
		all = append(all, listed{path: shortPath(p.ImportPath), imports: p.Imports, testImports: append(p.TestImports, p.XTestImports...)})
	}
	if len(all) < 2 {
		t.Fatalf("go list found %d packages: is this the module's root?", len(all))
	}
	return all
}

// fencedBlock is the text between ```name and ``` in file.
func fencedBlock(t *testing.T, file, name string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "```"+name+"\n")
	block, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatalf("%s has no block ```%s", file, name)
	}
	return block
}

// treePaths is the first word of every line of a tree block that starts at the
// margin; indented lines go on with the line above. A slash at the end is for
// the reader.
func treePaths(block string) (paths []string) {
	for line := range strings.Lines(block) {
		if strings.TrimSpace(line) == "" || line[0] == ' ' {
			continue
		}
		paths = append(paths, strings.TrimSuffix(strings.Fields(line)[0], "/"))
	}
	return paths
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		var a, b string
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a != b {
			return "page: " + a + "\ntest: " + b
		}
	}
	return "none"
}
