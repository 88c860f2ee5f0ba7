package main

import (
	"os"
	"runtime/debug"
)

// garbagePercent is how much garbage there may be, in percent of what is in use. Most
// of that are packet buffers, some 40 MB that no packet makes garbage of: with Go's 100
// the gateway would double under a flood of IKE messages before anything is collected.
const garbagePercent = 20

// collectOften bounds by how much the gateway may grow, unless the environment does.
func collectOften() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
}
