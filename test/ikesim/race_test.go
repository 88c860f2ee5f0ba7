//go:build race

package ikesim

// The detector makes a seed ten times as dear, and has one goroutine to look at.
const (
	someSeeds   = 20
	repeatSeeds = 4
	restartStep = 5
)
