package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxDepth is how deep lists and sections may lie in each other. The file's
// grammar needs six; the bound keeps the YAML parser's recursion small.
const maxDepth = 16

// maxKeys is how many keys one section of indented lines may have. The largest
// known section has as many as there are profiles; the YAML parser's work grows
// with the square. In braces it does not, and they are not counted.
const maxKeys = 256

// source is the text of one file and what is wrong with it so far.
type source struct {
	file   string
	lines  []string
	widths []int // of the lines, in characters
	errs   Errors
	hidden map[int]bool // lines that may hold a secret
}

func newSource(file string, data []byte) *source {
	text := strings.ReplaceAll(string(data), "\r\n", "\n")
	s := &source{file: file, lines: strings.Split(text, "\n"), hidden: map[int]bool{}}
	s.widths = make([]int, len(s.lines))
	for i, line := range s.lines {
		s.widths[i] = utf8.RuneCountInString(line)
	}
	return s
}

// fail notes a mistake. The excerpt is added last, once all secrets are known.
func (s *source) fail(at Position, key, problem, fix string) {
	if len(s.errs.List) >= 4*maxErrors {
		s.errs.More++
		return
	}
	s.errs.List = append(s.errs.List, Error{Position: at, Key: key, Problem: problem, Fix: fix})
}

// result is nil, or every mistake in the order of the file.
func (s *source) result(excerpts bool) error {
	if len(s.errs.List) == 0 {
		return nil
	}
	s.errs.sort()
	for i := range s.errs.List {
		if excerpts {
			s.errs.List[i].Excerpt = s.excerpt(s.errs.List[i].Position)
		}
	}
	return &s.errs
}

// excerpt is the line at p with a caret below; "" where the line may hold a
// secret or is too long to help.
func (s *source) excerpt(p Position) string {
	if p.Line > len(s.lines) || s.hidden[p.Line] {
		return ""
	}
	line := strings.TrimRight(strings.ReplaceAll(s.lines[p.Line-1], "\t", " "), " ")
	if line == "" || s.widths[p.Line-1] > 100 || secretive(line) {
		return ""
	}
	return "    " + line + "\n    " + strings.Repeat(" ", p.Column-1) + "^"
}

// hide keeps the lines of n, and of all below it, out of excerpts.
func (s *source) hide(n ast.Node) {
	if n == nil {
		return
	}
	s.hideToken(n.GetToken())
	switch n := n.(type) {
	case *ast.MappingNode:
		for _, v := range n.Values {
			s.hide(v)
		}
	case *ast.MappingValueNode:
		s.hideToken(n.Key.GetToken())
		s.hide(n.Value)
	case *ast.SequenceNode:
		for _, v := range n.Values {
			s.hide(v)
		}
	}
}

func (s *source) hideToken(t *token.Token) {
	if t == nil {
		return
	}
	for i := range 1 + strings.Count(t.Origin, "\n") {
		s.hidden[t.Position.Line+i] = true
	}
}

// at is t's place, kept inside the file whatever the parser believes.
func (s *source) at(t *token.Token) Position {
	p := Position{File: s.file, Line: 1, Column: 1}
	if t == nil || t.Position == nil {
		return p
	}
	p.Line = min(max(t.Position.Line, 1), len(s.lines))
	p.Column = min(max(t.Position.Column, 1), s.widths[p.Line-1]+1)
	return p
}

// tree reads the file's one YAML document. nil: refused, the reasons noted.
func (s *source) tree(data []byte) ast.Node {
	if !s.checkText(data) {
		return nil
	}
	tokens, ok := s.tokens(data)
	if !ok {
		return nil
	}
	file, err := parse(tokens)
	if err != nil {
		s.syntax(err)
		return nil
	}
	for _, doc := range file.Docs {
		if doc.Body != nil {
			return s.whole(doc.Body, tokens)
		}
	}
	s.fail(Position{s.file, 1, 1}, "", "the file is empty", "the smallest file says `version: 1`")
	return nil
}

// whole is root, if every word of the text is in the tree below it: nothing of
// a file may be dropped in silence, whatever the YAML parser forgives.
func (s *source) whole(root ast.Node, tokens token.Tokens) ast.Node {
	have := map[*token.Token]bool{}
	ast.Walk(visitor(func(n ast.Node) { have[n.GetToken()] = true }), root)
	for _, t := range tokens {
		switch t.Type {
		case token.StringType, token.SingleQuoteType, token.DoubleQuoteType, token.BoolType, token.NullType,
			token.IntegerType, token.BinaryIntegerType, token.OctetIntegerType, token.HexIntegerType,
			token.FloatType, token.InfinityType, token.NanType:
			if !have[t] {
				s.fail(s.at(t), "", "a word that belongs to nothing", "check indentation, commas and quotes around this place")
				return nil
			}
		}
	}
	return root
}

type visitor func(ast.Node)

func (v visitor) Visit(n ast.Node) ast.Visitor {
	v(n)
	return v
}

// parse guards against a panic of the YAML parser: a file from outside must
// never end the program.
func parse(tokens token.Tokens) (file *ast.File, err error) {
	defer func() {
		if recover() != nil {
			file, err = nil, errors.New("the YAML parser gave up")
		}
	}()
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
}

// checkText refuses what is not text before anything parses it.
func (s *source) checkText(data []byte) bool {
	first := Position{s.file, 1, 1}
	if len(data) > maxFile {
		s.fail(first, "", fmt.Sprintf("the file has %d bytes", len(data)), fmt.Sprintf("at most %d bytes (4 MiB) are read", maxFile))
		return false
	}
	if bytes.HasPrefix(data, []byte("\ufeff")) {
		s.fail(first, "", "the file starts with a byte order mark", "save it as UTF-8 without one")
		return false
	}
	for i, line := range s.lines {
		column := 0
		for _, r := range line {
			column++
			at := Position{s.file, i + 1, column}
			switch {
			case r == utf8.RuneError:
				s.fail(at, "", "a byte that is not UTF-8 text", "save the file as UTF-8")
				return false
			case r < ' ' && r != '\t', r == 0x7f, r >= 0x80 && r < 0xa0, r == '\u2028', r == '\u2029', r == '\ufeff':
				s.fail(at, "", fmt.Sprintf("the control character U+%04X", r), "remove it")
				return false
			}
		}
	}
	return true
}

// refused is the YAML that a configuration file has no use for. Anchors,
// aliases and merge keys let a short file grow without bound and let one line
// mean several places.
var refused = map[token.Type][2]string{
	token.AnchorType:     {"a YAML anchor (&)", "write the value out, or quote text that starts with &"},
	token.AliasType:      {"a YAML alias (*)", "write the value out, or quote text that starts with *"},
	token.MergeKeyType:   {"a YAML merge key (<<)", "write the keys out"},
	token.TagType:        {"a YAML tag (!)", "remove it, or quote text that starts with !"},
	token.DirectiveType:  {"a YAML directive (%)", "remove it"},
	token.MappingKeyType: {"a YAML complex key (?)", "write `key: value`"},
	token.LiteralType:    {"text over several lines (|)", "write it on one line"},
	token.FoldedType:     {"text over several lines (>)", "write it on one line"},
}

// tokens cuts the text into tokens and refuses what the grammar of this file
// never needs.
func (s *source) tokens(data []byte) (tokens token.Tokens, ok bool) {
	defer func() {
		if recover() != nil {
			s.syntax(errors.New("the YAML lexer gave up"))
			tokens, ok = nil, false
		}
	}()
	tokens = lexer.Tokenize(string(data))
	var shape shape
	content, ended := false, false
	for _, t := range tokens {
		if why, bad := refused[t.Type]; bad {
			s.fail(s.at(t), "", why[0]+" is not used in this file", why[1])
			if len(s.errs.List) >= maxErrors {
				return nil, false
			}
		}
		switch t.Type {
		case token.InvalidType:
			s.syntax(&yaml.SyntaxError{Message: t.Error, Token: t})
			return nil, false
		case token.CommentType:
			continue
		case token.DocumentHeaderType, token.DocumentEndType:
			ended = content
			continue
		}
		if ended {
			s.fail(s.at(t), "", "a second YAML document", "one file holds one configuration: remove the `---` and what follows")
			return nil, false
		}
		content = true
		if deep, wide := shape.add(t); deep {
			s.fail(s.at(t), "", fmt.Sprintf("lists and sections lie more than %d deep in each other", maxDepth), "no key of this file is that deep")
			return nil, false
		} else if wide {
			s.fail(s.at(t), "", fmt.Sprintf("a section has more than %d keys", maxKeys), "no section of this file has that many")
			return nil, false
		}
	}
	return tokens, len(s.errs.List) == 0
}

// shape follows how deep the tokens lie, and how many keys a section has: open
// brackets, and the columns at which block lists and sections start.
type shape struct {
	flow  int
	block []level
	last  *token.Token
}

type level struct{ column, entries int }

// add takes the next token and tells whether it is one too deep, or one too
// many.
func (d *shape) add(t *token.Token) (deep, wide bool) {
	switch t.Type {
	case token.SequenceStartType, token.MappingStartType:
		d.flow++
	case token.SequenceEndType, token.MappingEndType:
		d.flow--
	}
	starts := d.last == nil || d.last.Type == token.SequenceEntryType || d.last.Position.Line != t.Position.Line
	d.last = t
	if starts && d.flow <= 0 {
		n := len(d.block)
		for n > 0 && d.block[n-1].column > t.Position.Column {
			n--
		}
		if d.block = d.block[:n]; n == 0 || d.block[n-1].column < t.Position.Column {
			d.block = append(d.block, level{column: t.Position.Column})
		}
		if t.Type != token.SequenceEntryType {
			d.block[len(d.block)-1].entries++
		}
		wide = d.block[len(d.block)-1].entries > maxKeys
	}
	return d.flow+len(d.block) > maxDepth, wide
}

// syntaxWords says in this package's words what the YAML parser means. Its own
// text is never printed: it may quote the file.
var syntaxWords = []struct{ contains, problem, fix string }{
	{"end token ']' not found", "the list that opens here is never closed", "add `]`"},
	{"end token '}'", "the section that opens here is never closed", "add `}`"},
	{"end character of", "the quoted text that starts here is never closed", "add the closing quote"},
	{"tab character", "a tab indents this line", "indent with spaces"},
	{"found character '\t'", "a tab indents this line", "indent with spaces"},
	{"reserved character", "text cannot start with this character", "put it in quotes"},
	{"escape character", "a backslash sequence that YAML does not know", "use single quotes, or write `\\\\` for a backslash"},
	{"'[' character corresponding", "`]` without `[`", "remove it, or open the list"},
	{"'{' character corresponding", "`}` without `{`", "remove it, or open the section"},
	{"',' or '}' must be", "two entries without a comma between them", "add `,` or `}`"},
	{"',' or ']' must be", "two entries without a comma between them", "add `,` or `]`"},
	{"found ','", "a comma without an entry before it", "remove it"},
	{"mapping value is not allowed", "a `key: value` pair cannot stand here", "check the indentation; text that holds a colon and a space goes in quotes"},
	{"map key-value is pre-defined", "text follows a value that has already ended", "check the quotes and the line break"},
	{"value is not allowed", "this value cannot stand here", "check the indentation"},
	{"non-map value", "a line that is not `key: value`", "check the indentation, and that a space follows the colon"},
	{"key name", "a line that is not `key: value`", "check the indentation, and that a space follows the colon"},
	{"invalid key", "a line that is not `key: value`", "a key is a plain word; check brackets and indentation"},
	{"sequence entries are not allowed", "a list entry cannot stand here", "start it on a line of its own"},
}

// syntax notes what the YAML parser found.
func (s *source) syntax(err error) {
	var at *token.Token
	message := ""
	var syntax *yaml.SyntaxError
	if errors.As(err, &syntax) { // its Error() would print the source
		at, message = syntax.Token, syntax.Message
	}
	for _, w := range syntaxWords {
		if strings.Contains(message, w.contains) {
			s.fail(s.at(at), "", w.problem, w.fix)
			return
		}
	}
	s.fail(s.at(at), "", "not valid YAML", "check indentation, brackets and quotes around this place")
}
