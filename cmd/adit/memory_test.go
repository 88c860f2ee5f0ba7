package main

import (
	"runtime/debug"
	"testing"
)

// The gateway grows little under a flood, unless the environment says otherwise.
func TestGarbageIsCollectedOften(t *testing.T) {
	for _, o := range []struct {
		environment string
		want        int
	}{{"", garbagePercent}, {"70", 70}} {
		t.Setenv("GOGC", o.environment)
		before := debug.SetGCPercent(70)
		collectOften()
		if saw := debug.SetGCPercent(before); saw != o.want {
			t.Errorf("GOGC=%q: expected %d percent, saw %d", o.environment, o.want, saw)
		}
	}
}
