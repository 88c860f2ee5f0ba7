// Package vectors reads files of test vectors: stanzas of "key = value" lines,
// expected failures included. It knows nothing of what the values mean. Only
// tests import it.
//
// A blank line ends a stanza, "#" starts a comment line, and a line that starts
// with white space goes on with the value above it. Three keys mean something
// here: "source" says where the vector comes from and holds for the stanzas
// below it too; "name" names the stanza; "expect" names the failure that the
// vector must end in, and is absent where it must succeed.
package vectors

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Stanza is one vector. The readers below remember the first value that is
// missing or not of its form, and which keys were asked for; Done tells.
type Stanza struct {
	Name   string
	Source string
	Line   int // of the stanza's first line, from 1

	values map[string]string
	asked  map[string]bool
	err    error
}

// ReadFile reads a file of at least one stanza.
func ReadFile(fsys fs.FS, name string) ([]*Stanza, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	stanzas, err := Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return stanzas, nil
}

// Read reads all stanzas, of which there must be one. Each needs a name that no
// other has, and a source.
func Read(r io.Reader) ([]*Stanza, error) {
	p := parser{seen: map[string]bool{}}
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		p.line++
		if err := p.take(scanner.Text()); err != nil {
			return nil, fmt.Errorf("line %d: %w", p.line, err)
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, err
	}
	if err := p.end(); err != nil {
		return nil, fmt.Errorf("line %d: %w", p.line, err)
	}
	if len(p.stanzas) == 0 {
		return nil, errors.New("no stanza")
	}
	return p.stanzas, nil
}

type parser struct {
	line    int
	source  string
	last    string // the key that a continued line belongs to
	stanza  *Stanza
	seen    map[string]bool
	stanzas []*Stanza
}

func (p *parser) take(line string) error {
	switch {
	case strings.HasPrefix(line, "#"):
		return nil
	case strings.TrimSpace(line) == "":
		return p.end()
	case line[0] == ' ' || line[0] == '\t':
		if p.stanza == nil || p.last == "" {
			return errors.New("nothing to go on with")
		}
		p.stanza.values[p.last] += strings.TrimSpace(line)
		return nil
	}
	key, value, ok := strings.Cut(line, "=")
	key, value = strings.TrimSpace(key), strings.TrimSpace(value)
	if !ok || key == "" {
		return fmt.Errorf("%q is not \"key = value\"", line)
	}
	if p.stanza == nil {
		p.stanza = &Stanza{Line: p.line, values: map[string]string{}, asked: map[string]bool{}}
	}
	if _, twice := p.stanza.values[key]; twice {
		return fmt.Errorf("%q twice in one stanza", key)
	}
	p.stanza.values[key] = value
	p.last = key
	return nil
}

// end closes the stanza, if one is open. One of a source alone is for those
// that follow.
func (p *parser) end() error {
	s := p.stanza
	p.stanza, p.last = nil, ""
	if s == nil {
		return nil
	}
	if source, ok := s.values["source"]; ok {
		p.source = source
		delete(s.values, "source")
		if len(s.values) == 0 {
			return nil
		}
	}
	s.Source, s.Name = p.source, s.values["name"]
	delete(s.values, "name")
	switch {
	case s.Source == "":
		return errors.New("stanza without a source above it")
	case s.Name == "":
		return errors.New("stanza without a name")
	case p.seen[s.Name]:
		return fmt.Errorf("name %q twice", s.Name)
	}
	p.seen[s.Name] = true
	p.stanzas = append(p.stanzas, s)
	return nil
}

// Has tells whether the stanza has the key, and counts as asking for it.
func (s *Stanza) Has(key string) bool {
	_, ok := s.values[key]
	s.asked[key] = true
	return ok
}

// Text is a value as written.
func (s *Stanza) Text(key string) string {
	if !s.Has(key) {
		s.fail(fmt.Errorf("no %q", key))
	}
	return s.values[key]
}

// Hex is a value of hexadecimal digits, as bytes; white space between digits is
// left out.
func (s *Stanza) Hex(key string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s.Text(key)), ""))
	if err != nil {
		s.fail(fmt.Errorf("%q: %w", key, err))
	}
	return b
}

// Uint is a value that is a number, decimal or with 0x in front; 0 if absent.
func (s *Stanza) Uint(key string) uint64 {
	if !s.Has(key) {
		return 0
	}
	n, err := strconv.ParseUint(s.values[key], 0, 64)
	if err != nil {
		s.fail(fmt.Errorf("%q: %w", key, err))
	}
	return n
}

// Expect is the failure that the vector must end in; "" for success.
func (s *Stanza) Expect() string {
	if !s.Has("expect") {
		return ""
	}
	return s.values["expect"]
}

func (s *Stanza) fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

// Done is nil if every value asked for was there and of its form, and no value
// is there that nobody asked for: a misspelt key must not pass for an absent
// one.
func (s *Stanza) Done() error {
	if s.err != nil {
		return fmt.Errorf("vector %q, line %d: %w", s.Name, s.Line, s.err)
	}
	for _, key := range slices.Sorted(maps.Keys(s.values)) {
		if !s.asked[key] {
			return fmt.Errorf("vector %q, line %d: nobody asked for %q", s.Name, s.Line, key)
		}
	}
	return nil
}
