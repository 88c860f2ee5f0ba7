package keys

import (
	"fmt"
	"io"
)

// redacted makes what it is embedded in print nothing of itself.
type redacted struct{}

// Format prints "[redacted]" for every verb.
func (redacted) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "[redacted]") }

// veil is a value that printing does not find. Package fmt asks nobody how to print
// what lies in an unexported field, and follows pointers there if the verb is a wrong
// one; functions it does not follow.
func veil[T any](v T) func() T { return func() T { return v } }

// veiled is the Exchange that Begin gives: one whose private half is not printed.
type veiled struct {
	redacted
	x func() Exchange
}

func (v veiled) Public() []byte                     { return v.x().Public() }
func (v veiled) Finish(peer []byte) ([]byte, error) { return v.x().Finish(peer) }
func (v veiled) Discard()                           { v.x().Discard() }
