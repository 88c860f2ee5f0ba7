//go:build !race

package keys

// sweep is the step of the longest tests: here they leave nothing out.
const sweep = 1
