package vectors

import (
	"bytes"
	"strings"
	"testing"
)

const good = `# a comment
source = somewhere

name = one
key = 0001
  0203
number = 0x10
expect = auth

name = two
source = elsewhere
key = ff
`

func TestReadKeepsValuesSourcesAndExpectations(t *testing.T) {
	stanzas, err := Read(strings.NewReader(good))
	if err != nil {
		t.Fatal(err)
	}
	if len(stanzas) != 2 {
		t.Fatalf("expected 2 stanzas, saw %d", len(stanzas))
	}
	one, two := stanzas[0], stanzas[1]
	if one.Name != "one" || one.Source != "somewhere" || one.Line != 4 {
		t.Errorf("first stanza: saw name %q, source %q, line %d", one.Name, one.Source, one.Line)
	}
	if got := one.Hex("key"); !bytes.Equal(got, []byte{0, 1, 2, 3}) {
		t.Errorf("continued value: expected 00010203, saw %x", got)
	}
	if got := one.Uint("number"); got != 16 {
		t.Errorf("number: expected 16, saw %d", got)
	}
	if got := one.Uint("absent"); got != 0 {
		t.Errorf("absent number: expected 0, saw %d", got)
	}
	if got := one.Expect(); got != "auth" {
		t.Errorf("expect: expected auth, saw %q", got)
	}
	if err := one.Done(); err != nil {
		t.Errorf("everything was asked for, Done says %v", err)
	}
	if two.Source != "elsewhere" || two.Expect() != "" {
		t.Errorf("second stanza: saw source %q, expect %q", two.Source, two.Expect())
	}
}

func TestDoneNamesWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name, want string
		ask        func(*Stanza)
	}{
		{"a key nobody asked for", "nobody asked for", func(s *Stanza) { s.Has("key") }},
		{"a missing key", `no "kye"`, func(s *Stanza) { s.Text("kye") }},
		{"not hexadecimal", `"number"`, func(s *Stanza) { s.Hex("number") }},
		{"not a number", `"expect"`, func(s *Stanza) { s.Uint("expect") }},
	} {
		stanzas, err := Read(strings.NewReader(good))
		if err != nil {
			t.Fatal(err)
		}
		c.ask(stanzas[0])
		if err := stanzas[0].Done(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: expected an error with %q, saw %v", c.name, c.want, err)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "no stanza"},
		{"source = x\n", "no stanza"},
		{"name = a\nkey = 1\n", "without a source"},
		{"source = x\nkey = 1\n", "without a name"},
		{"source = x\n\nname = a\n\nname = a\n", "twice"},
		{"source = x\nname = a\nkey = 1\nkey = 2\n", "twice"},
		{"source = x\nname = a\nkey\n", "line 3"},
		{"  01\n", "nothing to go on with"},
	} {
		_, err := Read(strings.NewReader(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: expected an error with %q, saw %v", c.text, c.want, err)
		}
	}
}
