// Package ikesim runs gateways that key each other by IKEv2, in virtual time: whole
// machines of package ike, each with a SAD that is a map, on a network with NATs
// that loses, doubles, delays, reorders and corrupts, with an attacker on it, and
// gateways that stop at any moment. All of a run follows from one seed.
//
//	setup   setup_test.go    the gateways, their peers and policies, their secrets
//	plan    plan_test.go     what happens, as a list of events
//	world   world_test.go    datagrams, NATs, time
//	host    host_test.go     one gateway: machine, SAD, clock
//	traffic traffic_test.go  numbered packets on the newest SAs
//	attack  attack_test.go   somebody with everything but the secrets
//	check   check_test.go    what must hold in every step, and in the end
//
// It owns no rule of the protocol: it knows package ike by what it exports.
//
//	go test ./test/ikesim -run Seeds -seeds 1000          some seeds
//	go test ./test/ikesim -run Seeds -first 42 -seeds 1 -transcript   one, with its transcript
package ikesim

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

var (
	seeds    = flag.Int("seeds", someSeeds, "how many seeds to run")
	first    = flag.Uint64("first", 1, "the first of them")
	show     = flag.Bool("transcript", false, "print the transcript of every run")
	whole    = flag.Bool("whole", false, "print the whole transcript of a seed that fails")
	verbose  = flag.Bool("verbose", false, "with the machines' verbose log in it")
	progress = flag.Duration("progress", 0, "write a line to standard error this often; 0: none")
	report   = flag.String("report", "", "write the figures to this file, as JSON")
	keep     = flag.Int("keep-going", 1, "stop after so many seeds with violations")
)

// figures are what a campaign has done.
type figures struct {
	First      uint64   `json:"first_seed"`
	Seeds      int      `json:"seeds"`
	Seconds    float64  `json:"seconds"`
	Virtual    float64  `json:"virtual_seconds"`
	Steps      int      `json:"steps"`
	Installs   int      `json:"installs"`
	Restarts   int      `json:"restarts"`
	Packets    uint64   `json:"packets_sent"`
	Taken      uint64   `json:"packets_taken"`
	Excused    uint64   `json:"packets_refused_after_faults"`
	Violations []uint64 `json:"violations"`
}

// explained is how many seeds that fail are run again for shorter plans.
const explained = 2

// TestSeeds runs seeds, and says of each that fails what was violated, at which
// step, with the shortest plan that still shows it and the end of its transcript.
func TestSeeds(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // runs are short, and leave all behind
	start, said := time.Now(), time.Now()
	f := figures{First: *first, Violations: []uint64{}}
	for i := range *seeds {
		seed := *first + uint64(i)
		r := runSeed(seed, *show)
		f.add(r)
		if *show {
			fmt.Println(strings.Join(r.log.lines, "\n"))
		}
		if len(r.problems) > 0 {
			f.Violations = append(f.Violations, seed)
			if *progress > 0 {
				fmt.Fprintf(os.Stderr, "ikesim: seed %d: %s\n", seed, r.problems[0])
			}
			if len(f.Violations) <= explained {
				t.Error(explain(seed, r))
			} else {
				t.Errorf("seed %d: %s", seed, r.problems[0])
			}
			if len(f.Violations) >= *keep {
				break
			}
		}
		if *progress > 0 && time.Since(said) >= *progress {
			said = time.Now()
			fmt.Fprintf(os.Stderr, "ikesim: %d of %d seeds in %.0f s, %d violations\n", i+1, *seeds, time.Since(start).Seconds(), len(f.Violations))
		}
	}
	f.Seconds = time.Since(start).Seconds()
	if *report != "" {
		text, err := json.MarshalIndent(f, "", "  ")
		if err == nil {
			err = os.WriteFile(*report, append(text, '\n'), 0o644)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

func (f *figures) add(w *world) {
	f.Seeds++
	f.Virtual += w.now.Seconds()
	f.Steps += w.steps
	f.Packets += w.data.sent
	f.Taken += w.data.taken
	f.Excused += w.data.excused
	for _, h := range w.hosts {
		f.Installs += h.installs
		f.Restarts += h.incarnation - 1
	}
}

// runSeed is one run: the setup and the plan of a seed.
func runSeed(seed uint64, transcript bool) *world {
	s := makeSetup(seed)
	return runPlan(s, makePlan(&s), transcript)
}

// calmFor is how long all must stay as it should be, once it is.
const calmFor = 20 * time.Second

// settleIn is how long the network may take to become what it should be, behind the
// last fault. An SA that one end has forgotten alone stays for minutes
// (RFC 7296 2.25).
const settleIn = 12 * time.Minute

// runPlan runs a plan: faults, peace, and the end.
func runPlan(s setup, plan []event, transcript bool) *world {
	w := newWorld(s)
	w.log.on, w.log.verbose = transcript, transcript && *verbose
	for _, line := range s.about {
		w.log.add(0, line)
	}
	w.schedule(plan)
	w.pace = 120 * time.Millisecond
	w.startTraffic()
	w.run(faultsEnd)
	if s.seed%7 == 0 {
		w.end() // in the middle of whatever is going on
		return w
	}
	w.pace = 300 * time.Millisecond
	w.settle("the last fault")
	w.run(w.now + calmFor)
	w.settle("calm")
	w.end()
	return w
}

// settle waits until all is as it should be.
func (w *world) settle(behind string) {
	w.log.note(w.now, "---- waiting for peace behind %s", behind)
	deadline := w.now + settleIn
	for len(w.problems) == 0 && w.perfect() != "" {
		if w.now >= deadline {
			w.fail("%s behind %s: %s", settleIn, behind, w.perfect())
			return
		}
		w.run(w.now + 250*time.Millisecond)
	}
}

// endIn is how long it may take until nothing is left of what both ends have
// terminated.
const endIn = 12 * time.Minute

// end terminates all and waits until nothing is left, timers included.
func (w *world) end() {
	if len(w.problems) > 0 {
		return
	}
	w.log.note(w.now, "---- the end")
	w.stop = true
	for _, h := range w.hosts {
		h.excuseAll(time.Hour)
		h.crashIn = 0
		h.step(terminateAll)
	}
	deadline := w.now + endIn
	for len(w.problems) == 0 && w.left() != "" {
		if w.now >= deadline {
			w.fail("%s behind Terminate: %s", endIn, w.left())
			return
		}
		w.run(w.now + time.Second)
	}
}
