//go:build race

package crypt

// sweep is the step of the tests that go over every alignment. The race
// detector slows plain Go down twenty times, and has nothing to find here.
const sweep = 13
