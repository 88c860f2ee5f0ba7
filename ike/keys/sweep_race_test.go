//go:build race

package keys

// sweep is the step of the longest tests. The race detector slows curves down
// twenty times, and has nothing to find there.
const sweep = 23
