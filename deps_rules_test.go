package adit_test

import (
	"fmt"
	"slices"
	"strings"
)

// listed is what one package imports. path is relative to the module, "." for
// its root; imports are as `go list` gives them.
type listed struct {
	path                 string
	imports, testImports []string
}

// ruleSet is the lattice, read.
type ruleSet struct {
	names []string        // in the order of their definition: a topological order
	below map[string]sets // below[b][a]: b may import a
	bans  []ban           // A import no X but Y
	onlys []only          // only A import X
	tests map[string]sets // tests of A also import B
}

type sets map[string]bool

type ban struct {
	who, what, but []string
	text           string
}

type only struct {
	who, what []string
	text      string
}

// parseRules reads the text of the lattice.
func parseRules(text string) (*ruleSet, error) {
	r := &ruleSet{below: map[string]sets{}, tests: map[string]sets{}}
	statements := strings.Split(withoutComments(text), ";")
	if last := strings.TrimSpace(statements[len(statements)-1]); last != "" {
		return nil, fmt.Errorf("lattice: no closing ; after %q", last)
	}
	usedLeft := sets{}
	for _, s := range statements[:len(statements)-1] {
		if err := r.statement(strings.Join(strings.Fields(s), " "), usedLeft); err != nil {
			return nil, fmt.Errorf("lattice: %q: %w", strings.TrimSpace(s), err)
		}
	}
	return r, r.checkNames()
}

func withoutComments(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		code, _, _ := strings.Cut(line, "#")
		b.WriteString(strings.TrimSuffix(code, "\n") + "\n")
	}
	return b.String()
}

func (r *ruleSet) statement(s string, usedLeft sets) error {
	if rest, ok := strings.CutPrefix(s, "only "); ok {
		who, what, ok := cutVerb(rest, "import ")
		o := only{who: list(who), what: list(what), text: s}
		r.onlys = append(r.onlys, o)
		return wellFormed(ok, o.who, o.what)
	}
	if rest, ok := strings.CutPrefix(s, "tests of "); ok {
		who, what, ok := cutVerb(rest, "also import ")
		for _, w := range list(who) {
			if r.tests[w] == nil {
				r.tests[w] = sets{}
			}
			for _, x := range list(what) {
				r.tests[w][x] = true
			}
		}
		return wellFormed(ok, list(who), list(what))
	}
	if who, what, ok := cutVerb(s, "import no "); ok {
		what, but, _ := strings.Cut(what, " but ")
		b := ban{who: list(who), what: list(what), but: list(but), text: s}
		r.bans = append(r.bans, b)
		return wellFormed(true, b.who, b.what)
	}
	if !strings.Contains(s, "<") {
		return fmt.Errorf("cannot read this statement")
	}
	parts := strings.Split(s, "<")
	for i := range parts[:len(parts)-1] {
		if err := r.order(list(parts[i]), list(parts[i+1]), usedLeft); err != nil {
			return err
		}
	}
	return nil
}

// order is one "lower < upper". What stands to the left must be defined and
// what stands to the right must not have been used on the left: so the text is
// in topological order, and has no circle.
func (r *ruleSet) order(lower, upper []string, usedLeft sets) error {
	if err := wellFormed(true, lower, upper); err != nil {
		return err
	}
	if slices.Equal(lower, []string{"everything"}) {
		lower = slices.Clone(r.names)
	}
	for _, a := range lower {
		if a != "std" && r.below[a] == nil {
			return fmt.Errorf("%s is used before it is defined", a)
		}
		usedLeft[a] = true
	}
	for _, b := range upper {
		if usedLeft[b] {
			return fmt.Errorf("%s was used to the left of < before: the order would have a circle", b)
		}
		if r.below[b] == nil {
			r.below[b] = sets{}
			r.names = append(r.names, b)
		}
		for _, a := range lower {
			r.below[b][a] = true
			for deeper := range r.below[a] {
				r.below[b][deeper] = true
			}
		}
	}
	return nil
}

// checkNames refuses rules about packages that the order does not have: a
// misspelled name would forbid nothing.
func (r *ruleSet) checkNames() error {
	var who []string
	for _, b := range r.bans {
		who = append(who, b.who...)
	}
	for _, o := range r.onlys {
		who = append(who, o.who...)
	}
	for w := range r.tests {
		who = append(who, w)
	}
	for _, w := range who {
		if w != "tests" && r.place(w) == "" {
			return fmt.Errorf("lattice: %s is not in the lattice", w)
		}
	}
	return nil
}

// place is the lattice's name for a package: its own, or the "a/*" above it.
func (r *ruleSet) place(path string) string {
	if r.below[path] != nil {
		return path
	}
	for _, name := range r.names {
		if dir, ok := strings.CutSuffix(name, "/*"); ok && strings.HasPrefix(path, dir+"/") {
			return name
		}
	}
	return ""
}

// check returns one line for every import that the rules do not allow.
func (r *ruleSet) check(packages []listed) (problems []string) {
	for _, p := range packages {
		if p.path != "." && r.place(p.path) == "" {
			problems = append(problems, p.path+" is not in the lattice: say in deps_test.go and ARCHITECTURE.md what it may import and who may import it")
			continue
		}
		for _, imp := range p.imports {
			if why := r.verdict(p.path, imp, false); why != "" {
				problems = append(problems, fmt.Sprintf("%s imports %s: %s", p.path, shortPath(imp), why))
			}
		}
		for _, imp := range p.testImports {
			if why := r.verdict(p.path, imp, true); why != "" {
				problems = append(problems, fmt.Sprintf("%s's tests import %s: %s", p.path, shortPath(imp), why))
			}
		}
	}
	return problems
}

// verdict is the rule that forbids the import, or "".
func (r *ruleSet) verdict(from, imp string, test bool) string {
	to := shortPath(imp)
	if to == from || from == "." && test {
		return "" // an external test imports its package; the house's own tests look at everything
	}
	if !test {
		for _, b := range r.bans {
			if r.member(b.who, from) && beneath(b.what, to) && !beneath(b.but, to) {
				return fmt.Sprintf("%q", b.text)
			}
		}
	}
	o := r.onlyFor(to)
	if o != nil && !r.member(o.who, from) && (!test || !slices.Contains(o.who, "tests")) {
		return fmt.Sprintf("%q", o.text)
	}
	switch {
	case strings.HasPrefix(imp, modulePath+"/"):
		return r.orderVerdict(from, to, test, o)
	case strings.Contains(strings.Split(imp, "/")[0], "."):
		if o == nil {
			return `no "only" rule names this module`
		}
	}
	return ""
}

// orderVerdict applies "<" inside the module.
func (r *ruleSet) orderVerdict(from, to string, test bool, o *only) string {
	a, b := r.place(to), r.place(from)
	switch {
	case a == "":
		return "no rule names " + to
	case r.below[b][a], a == b:
		return ""
	case test && (o != nil && slices.Contains(o.who, "tests") || r.tests[b][a]):
		return ""
	}
	return fmt.Sprintf("no rule \"%s < %s\"", a, b)
}

// onlyFor is the "only" rule that names the import, the most specific one.
func (r *ruleSet) onlyFor(to string) (best *only) {
	longest := 0
	for i, o := range r.onlys {
		for _, w := range o.what {
			if beneath([]string{w}, to) && len(w) > longest {
				best, longest = &r.onlys[i], len(w)
			}
		}
	}
	return best
}

// member: the package is named in the list, itself or by an "a/*".
func (r *ruleSet) member(names []string, path string) bool {
	return slices.ContainsFunc(names, func(n string) bool {
		dir, wild := strings.CutSuffix(n, "/*")
		return n == path || wild && strings.HasPrefix(path, dir+"/")
	})
}

// beneath: the import is one of the list or lies beneath one of it.
func beneath(names []string, imp string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return imp == n || strings.HasPrefix(imp, n+"/") })
}

// shortPath is the import path as the lattice writes it.
func shortPath(imp string) string {
	if imp == modulePath {
		return "."
	}
	return strings.TrimPrefix(imp, modulePath+"/")
}

// cutVerb cuts "A import X" at the verb, in singular or plural.
func cutVerb(s, verb string) (before, after string, ok bool) {
	if before, after, ok = strings.Cut(s, " "+verb); ok {
		return before, after, true
	}
	return strings.Cut(s, " "+strings.Replace(verb, "import", "imports", 1))
}

func list(s string) (names []string) {
	for name := range strings.SplitSeq(s, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

func wellFormed(ok bool, a, b []string) error {
	switch {
	case !ok:
		return fmt.Errorf("cannot read this statement")
	case len(a) == 0 || len(b) == 0:
		return fmt.Errorf("empty list")
	}
	return nil
}
