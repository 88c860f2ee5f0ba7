package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Position is a place in a configuration file. Line and Column count from 1;
// a column is a character, not a byte.
type Position struct {
	File         string
	Line, Column int
}

// String is file:line:column, the form that editors jump to.
func (p Position) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column) }

// Error is one mistake in a configuration file. No field ever holds a secret.
type Error struct {
	Position
	Key     string // key path, such as peers[0].sas[1].spi; "" for the file as a whole
	Problem string // what was found
	Fix     string // what would be right
	Excerpt string // the source line with a caret below; "" where it may hold a secret
}

// Error is the mistake on one line: FILE:LINE:COL: key: problem; fix.
func (e Error) Error() string {
	text := e.Position.String() + ": "
	if e.Key != "" {
		text += e.Key + ": "
	}
	text += e.Problem
	if e.Fix != "" {
		text += "; " + e.Fix
	}
	return text
}

// Errors is everything that is wrong with a file, in the order of the file.
type Errors struct {
	List []Error
	// More counts the errors beyond maxErrors, which are not kept.
	More int
}

// maxErrors bounds what one file can make the program say.
const maxErrors = 50

// Error prints each mistake on a line of its own, followed by the source line
// where that is known to hold no secret.
func (e *Errors) Error() string {
	var b strings.Builder
	for i, one := range e.List {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(one.Error())
		if one.Excerpt != "" {
			b.WriteByte('\n')
			b.WriteString(one.Excerpt)
		}
	}
	if e.More > 0 {
		fmt.Fprintf(&b, "\n%d more errors", e.More)
	}
	return b.String()
}

// Unwrap gives errors.As the single mistakes.
func (e *Errors) Unwrap() []error {
	list := make([]error, len(e.List))
	for i := range e.List {
		list[i] = e.List[i]
	}
	return list
}

// sort orders by position and drops what says the same thing twice.
func (e *Errors) sort() {
	slices.SortStableFunc(e.List, func(a, b Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	e.List = slices.Compact(e.List)
	if len(e.List) > maxErrors {
		e.More += len(e.List) - maxErrors
		e.List = e.List[:maxErrors]
	}
}

// Warning is something that is allowed and probably not meant.
type Warning struct {
	Position
	Key  string
	Text string
}

// String is the warning on one line: FILE:LINE:COL: key: text.
func (w Warning) String() string {
	return fmt.Sprintf("%s: %s: %s", w.Position, w.Key, w.Text)
}
