//go:build !race

package crypt

// sweep is the step of the tests that go over every alignment.
const sweep = 1
