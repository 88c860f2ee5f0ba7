package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// value is one node of the file with its key path. The readers below note a
// mistake and return false; the caller keeps the default and goes on, so that
// one run reports everything.
type value struct {
	s    *source
	key  string
	node ast.Node
	at   Position
}

// object is a section: its entries by name.
type object struct {
	value
	entries map[string]value
}

func (v value) fail(problem, fix string) { v.s.fail(v.at, v.key, problem, fix) }

// wrong reports a value of the wrong type and keeps it out of excerpts: it may
// be a secret in the wrong place.
func (v value) wrong(fix string) {
	v.s.hide(v.node)
	v.fail("found "+v.found(), fix)
}

// notHere refuses what a later version has.
func (v value) notHere(what, instead string) {
	v.fail(what+" is not in this version", instead)
}

// child is the entry called name below v.
func (v value) child(name string, n ast.Node, at *token.Token) value {
	key := name
	if v.key != "" {
		key = v.key + "." + name
	}
	c := value{s: v.s, key: key, node: n, at: v.s.at(start(n))}
	if isNull(n) {
		c.at = v.s.at(at)
	}
	return c
}

// object reads v as a section whose keys are known.
func (v value) object(known ...string) (*object, bool) {
	var pairs []*ast.MappingValueNode
	switch n := v.node.(type) {
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	default:
		v.wrong("this is a section: `key: value` lines")
		return nil, false
	}
	o := &object{value: v, entries: map[string]value{}}
	for _, pair := range pairs {
		o.add(pair, known)
	}
	return o, true
}

// add takes one entry into o; unknown and repeated keys are mistakes.
func (o *object) add(pair *ast.MappingValueNode, known []string) {
	keyToken := start(pair.Key)
	name := keyToken.Value
	if secretKeys[name] {
		o.s.hide(pair)
	}
	if !slices.Contains(known, name) {
		o.s.hide(pair)
		o.unknown(name, keyToken, known)
		return
	}
	v := o.child(name, pair.Value, keyToken)
	if first, twice := o.entries[name]; twice {
		o.s.fail(o.s.at(keyToken), v.key, fmt.Sprintf("the key stands here a second time, first on line %d", first.at.Line), "keep one of the two")
		return
	}
	o.entries[name] = v
}

func (o *object) unknown(name string, at *token.Token, known []string) {
	key, problem := o.key, "a key that is unknown, and is not printed because it may be a secret"
	if isName(name) && showable(name) {
		key, problem = o.child(name, nil, nil).key, "unknown key"
	}
	fix := "known here: " + strings.Join(known, ", ")
	if near := nearest(name, known); near != "" {
		fix = fmt.Sprintf("did you mean %s?", near)
	}
	o.s.fail(o.s.at(at), key, problem, fix)
}

func (o *object) get(name string) (value, bool) {
	v, ok := o.entries[name]
	return v, ok
}

// need is get for a key that has no default.
func (o *object) need(name, fix string) (value, bool) {
	v, ok := o.entries[name]
	if !ok {
		o.s.fail(o.at, o.child(name, nil, nil).key, "the key is missing", fix)
	}
	return v, ok
}

// list reads v as a list.
func (v value) list(what string) ([]value, bool) {
	n, ok := v.node.(*ast.SequenceNode)
	if !ok {
		v.wrong("this is a list of " + what)
		return nil, false
	}
	items := make([]value, len(n.Values))
	for i, item := range n.Values {
		items[i] = value{s: v.s, key: fmt.Sprintf("%s[%d]", v.key, i), node: item, at: v.s.at(start(item))}
		if isNull(item) {
			items[i].at = v.at
		}
	}
	return items, true
}

// kind is what a scalar is when read by this file's rules, which are narrower
// than YAML's: a number is decimal, or hexadecimal after 0x; a truth value is
// true or false; everything else is text, and so is whatever stands in quotes.
type kind int

const (
	notScalar kind = iota
	nothing
	number
	almostNumber // YAML would read a number, this file does not: 010, 1_000, 1.5, -1
	truth
	text
)

// scalar is v's text and what it is. The text is the operator's own writing.
func (v value) scalar() (string, kind) {
	if v.node == nil || isNull(v.node) {
		return "", nothing
	}
	if _, ok := v.node.(ast.ScalarNode); !ok {
		return "", notScalar
	}
	t := v.node.GetToken()
	s := t.Value
	if t.Type == token.SingleQuoteType || t.Type == token.DoubleQuoteType {
		if s == "" {
			return "", nothing
		}
		return s, text
	}
	switch {
	case s == "true" || s == "false":
		return s, truth
	case isNumber(s):
		return s, number
	case looksNumeric(s),
		t.Type == token.BinaryIntegerType, t.Type == token.OctetIntegerType, t.Type == token.HexIntegerType, t.Type == token.InfinityType, t.Type == token.NanType:
		return s, almostNumber
	}
	return s, text
}

// oneLine refuses a scalar that YAML lets run over several lines.
func (v value) oneLine() bool {
	if strings.Contains(strings.TrimSpace(v.node.GetToken().Origin), "\n") {
		v.s.hide(v.node)
		v.fail("the text runs over several lines", "write it on one line")
		return false
	}
	return true
}

// looksNumeric tells whether people would take s for a number: digits with a
// sign, with underscores or with a decimal point.
func looksNumeric(s string) bool {
	s = strings.TrimLeft(s, "+-")
	return s != "" && s[0] >= '0' && s[0] <= '9' && strings.Trim(s, "0123456789_.") == "" && strings.Count(s, ".") < 2
}

func isNumber(s string) bool {
	if digits, ok := strings.CutPrefix(s, "0x"); ok {
		return digits != "" && strings.IndexFunc(digits, func(r rune) bool { return !isHex(r) }) < 0
	}
	return s == "0" || s != "" && s[0] != '0' && strings.Trim(s, "0123456789") == ""
}

// found says what v is, without a word of it where it may be a secret.
func (v value) found() string {
	s, kind := v.scalar()
	switch {
	case kind == nothing:
		return "nothing"
	case kind == notScalar:
		if _, ok := v.node.(*ast.SequenceNode); ok {
			return "a list"
		}
		return "a section"
	case v.secret() || !showable(s):
		return "text of " + plural(utf8.RuneCountInString(s), "character")
	case kind == number || kind == almostNumber:
		return "the number " + s
	case kind == truth:
		return s
	}
	return strconv.Quote(s)
}

// secret tells whether v is a secret, or the name of a file with one, where
// operators write the secret itself.
func (v value) secret() bool {
	name := v.key[strings.LastIndexByte(v.key, '.')+1:]
	return secretKeys[strings.TrimSuffix(name, "_file")] || name == "key_file" || name == "private_key" || name == "auth"
}

func isNull(n ast.Node) bool { return n == nil || n.Type() == ast.NullType }

// start is the first token of n; n's own token is the colon in a section.
func start(n ast.Node) *token.Token {
	switch n := n.(type) {
	case nil:
		return nil
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return start(n.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return start(n.Key)
	}
	return n.GetToken()
}

// nearest is the word of known that s is a slip of, or "".
func nearest(s string, known []string) string {
	best, bestDistance := "", 3
	plain := strings.NewReplacer("-", "_", " ", "_").Replace(strings.ToLower(s))
	if len(plain) > 40 {
		return ""
	}
	for _, k := range known {
		d := distance(plain, k)
		if d < bestDistance && d < len(k)-1 {
			best, bestDistance = k, d
		}
	}
	return best
}

// distance is the number of bytes to insert, delete or replace to get from a
// to b (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}

// pair is a profile: an entry of a section whose keys the operator chooses.
type pair struct {
	value
	name string
}

// profiles reads v as a section whose keys are the names of profiles.
func (v value) profiles() ([]pair, bool) {
	n, ok := v.node.(*ast.MappingNode)
	if !ok {
		v.wrong("this is a section of profiles by name, such as `default: {esn: true}`")
		return nil, false
	}
	var list []pair
	for _, p := range n.Values {
		at := start(p.Key)
		if !isName(at.Value) || secretive(at.Value) {
			v.s.hide(p)
			v.s.fail(v.s.at(at), v.key, "a name that cannot be one", "a name is a letter or digit, then up to 62 letters, digits, `.`, `_` or `-`")
			continue
		}
		c := v.child(at.Value, p.Value, at)
		c.key = profileKey(at.Value)
		list = append(list, pair{c, at.Value})
	}
	return list, true
}
