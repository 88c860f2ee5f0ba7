package ikesim

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike"
)

var update = flag.Bool("update", false, "write the transcripts in testdata anew")

// scenario is a course of events with a name, whose transcript is a golden file.
type scenario struct {
	name   string
	change func(s *setup, p *pairing)
	run    func(w *world)
}

const second, ms = time.Second, time.Millisecond

// up starts with the first host as the initiator, and lets a second pass.
func up(w *world) {
	w.hosts[0].step(ike.Initiate{Peer: "B"})
	w.run(w.now + second)
}

func none(*setup, *pairing) {}

var scenarios = []scenario{
	{"psk", none, func(w *world) {
		up(w)
		w.hosts[0].step(ike.Terminate{Peer: "B"})
		w.run(w.now + second)
	}},
	{"cookies", func(s *setup, _ *pairing) { s.hosts[1].limits.CookieHalfOpen = 1 }, func(w *world) {
		// A stranger has begun one before.
		w.hosts[0].step(ike.Initiate{Peer: "B"})
		w.flood(w.hosts[1], 1)
		up(w)
	}},
	{"invalid-ke", func(_ *setup, p *pairing) {
		p.ike = [2]string{"aes128gcm16-prfsha256-x25519-ecp256", "aes128gcm16-prfsha256-ecp256"}
	}, up},
	{"fragments", func(_ *setup, p *pairing) { p.fragment, p.smallFrags, p.certs = true, true, true }, up},
	{"nat-rebinding", func(s *setup, p *pairing) {
		s.hosts[1].behindNAT(false)
		p.roaming, p.dpd = true, 5*second
	}, func(w *world) {
		w.hosts[1].step(ike.Initiate{Peer: "A"})
		w.run(2 * second)
		w.hosts[1].nat.rebind()
		w.run(12 * second)
	}},
	{"child-rekey-both", none, func(w *world) {
		up(w)
		w.happen(event{kind: bothChild})
		w.run(w.now + 2*second)
	}},
	{"ike-rekey-both", none, func(w *world) {
		up(w)
		w.happen(event{kind: bothIKE})
		w.run(w.now + 2*second)
	}},
	{"delete-meets-rekey", none, func(w *world) {
		up(w)
		w.hosts[0].step(ike.Rekey{Peer: "B", Policy: "net0"})
		w.hosts[1].step(ike.Terminate{Peer: "A", Policy: "net0"})
		w.run(w.now + 2*second)
	}},
	{"responder-restarts-in-auth", none, func(w *world) {
		w.hosts[0].step(ike.Initiate{Peer: "B"})
		w.run(25 * ms)
		w.hosts[1].restart()
		w.run(time.Minute)
		up(w)
	}},
	{"responder-only", func(_ *setup, p *pairing) { p.roles[1] = ike.ResponderOnly }, func(w *world) {
		w.hosts[1].step(ike.Acquire{Peer: "A", Policy: "net0"})
		w.hosts[1].step(ike.Initiate{Peer: "A"})
		up(w)
		w.hosts[1].step(ike.Rekey{Peer: "A", Policy: "*"})
		w.hosts[1].step(ike.Terminate{Peer: "A"})
		w.run(w.now + 2*second)
	}},
	{"passive", func(_ *setup, p *pairing) { p.roles[1], p.dpd = ike.Passive, 2*second }, func(w *world) {
		up(w)
		w.hosts[1].step(ike.Rekey{Peer: "A"})
		w.hosts[1].step(ike.Terminate{Peer: "A"})
		w.run(5 * second)
	}},
	{"ppk", func(_ *setup, p *pairing) { p.ppk = [2]bool{true, true} }, up},
	{"intermediate-mlkem", func(_ *setup, p *pairing) {
		p.fragment = true
		p.ike[0] = "aes256gcm16-prfsha384-x25519-ke1_mlkem768"
		p.ike[1] = p.ike[0]
	}, up},
	{"childless", func(_ *setup, p *pairing) { p.childless, p.policies = true, 0 }, up},
	{"dead-peer", func(_ *setup, p *pairing) { p.dpd = 10 * second }, func(w *world) {
		up(w)
		w.hosts[1].restart()
		w.run(time.Minute)
	}},
}

// TestGolden compares the transcript of each scenario with testdata; -update writes
// it anew.
func TestGolden(t *testing.T) {
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			w := sc.play()
			for _, p := range w.problems {
				t.Error(p)
			}
			got := []byte(strings.Join(w.log.lines, "\n") + "\n")
			path := filepath.Join("testdata", sc.name+".txt")
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("the transcript differs from %s (-update writes it anew):\n%s", path, firstDifference(string(got), string(want)))
			}
		})
	}
}

// play runs a scenario on a network of two with nothing random in its transcript.
func (sc *scenario) play() *world {
	s := setup{seed: 7, latency: 10 * ms}
	p := pairing{policies: 1, ike: [2]string{"aes128gcm16-prfsha256-x25519", "aes128gcm16-prfsha256-x25519"}, esp: [2]string{"aes128gcm16-esn", "aes128gcm16-esn"}}
	s.addHosts(2, nil)
	sc.change(&s, &p)
	s.join(1, p)
	w := newWorld(s)
	w.log.on, w.log.verbose = true, true
	for _, h := range w.hosts {
		h.step(ike.Verbose{On: true})
	}
	w.stop = true
	sc.run(w)
	return w
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			line := "nothing"
			if i < len(w) {
				line = w[i]
			}
			return "got  " + g[i] + "\nwant " + line
		}
	}
	return "it is shorter"
}

// TestRestartAtEveryStep stops either end behind each action that it does in a
// handshake, a rekey of each kind and a delete: in the end there is one IKE SA and
// one pair, and then nothing.
func TestRestartAtEveryStep(t *testing.T) {
	for _, who := range []int{0, 1} {
		for n := 1; ; n += restartStep {
			s := setup{seed: uint64(1 + 2*n + who), latency: 10 * ms}
			p := pairing{policies: 1, dpd: 10 * second, ike: [2]string{"aes128gcm16-prfsha256-x25519", "aes128gcm16-prfsha256-x25519"}, esp: [2]string{"aes128gcm16", "aes128gcm16"}}
			s.addHosts(2, nil)
			s.join(1, p)
			w := newWorld(s)
			w.log.on = true
			w.pace = 300 * ms
			w.startTraffic()
			w.hosts[who].crashIn = n
			w.schedule([]event{
				{kind: initiate}, {at: 5 * second, kind: bothChild, dur: 5 * ms}, {at: 10 * second, kind: bothIKE, dur: 5 * ms}, {at: 15 * second, kind: closeChild},
			})
			w.run(20 * second)
			over := w.hosts[who].crashIn > 0
			w.hosts[who].crashIn = 0
			w.settle("the restart")
			w.end()
			if len(w.problems) > 0 {
				t.Fatalf("%s stops behind its action %d: %s\n%s", w.hosts[who].name, n, w.problems[0], strings.Join(w.log.lines, "\n"))
			}
			if over {
				if n < 30 {
					t.Errorf("%s had only %d actions", w.hosts[who].name, n)
				}
				break
			}
		}
	}
}

// TestSeedsRepeat: a seed says the same twice.
func TestSeedsRepeat(t *testing.T) {
	for seed := uint64(1); seed < repeatSeeds; seed++ {
		a, b := runSeed(seed, true), runSeed(seed, true)
		if diff := firstDifference(strings.Join(a.log.lines, "\n"), strings.Join(b.log.lines, "\n")); len(a.log.lines) != len(b.log.lines) || !strings.HasPrefix(diff, "it is") {
			t.Errorf("seed %d: %s", seed, diff)
		}
	}
}
