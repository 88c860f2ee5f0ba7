//go:build !race

package ikesim

// How many seeds are run where no flag says so, how many are run twice, and behind
// which actions an end stops: each.
const (
	someSeeds   = 300
	repeatSeeds = 20
	restartStep = 1
)
