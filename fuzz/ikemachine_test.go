package fuzz

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/ike"
	"github.com/adit-ipsec/adit/ike/auth"
	"github.com/adit-ipsec/adit/ike/proposal"
	"github.com/adit-ipsec/adit/ike/wire"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// gateway is a machine with its address and what it has sent.
type gateway struct {
	machine *ike.Machine
	at      netip.AddrPort
	sas     map[sad.ID]bool
	failing bool // its next Install fails
}

// conversation is two gateways, one of which the other knows, and the messages
// between them.
type conversation struct {
	now  time.Duration
	ends [2]*gateway
	wire []flight // all that were ever sent
	next int      // the first that is not delivered yet
}

type flight struct {
	to   int
	data []byte
}

func newConversation(t *testing.T) *conversation {
	c := &conversation{}
	names := [2]string{"a.example.net", "b.example.net"}
	lans := [2]netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("10.2.0.0/24")}
	for i := range c.ends {
		here, there := names[i], names[1-i]
		local, _ := auth.ParseIdentity(here)
		remote, _ := auth.ParseIdentity(there)
		lan := func(p netip.Prefix) []spd.AddrRange {
			last := p.Addr().As4()
			last[3] = 255
			return []spd.AddrRange{{From: p.Addr(), To: netip.AddrFrom4(last)}}
		}
		main, err1 := proposal.Parse(wire.ProtocolIKE, "aes128gcm16-prfsha256-x25519-ecp256", false)
		child, err2 := proposal.Parse(wire.ProtocolESP, "aes128gcm16-esn", false)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)}) }
		peer := ike.Peer{
			Name: there, Local: at(i), Remote: at(1 - i), Fragmentation: true, DPD: 20 * time.Second, Mobike: true,
			Auth:      auth.Local{ID: local, PSK: sad.Key("a pre-shared key of the fuzzers")},
			Remotely:  auth.Remote{ID: remote, PSK: sad.Key("a pre-shared key of the fuzzers")},
			Proposals: []proposal.Proposal{main},
			Children: []ike.Child{{
				Policy: "lan", Proposals: []proposal.Proposal{child}, Template: sad.Params{ReplayWindow: 64},
				Selectors: []spd.Selector{{Local: lan(lans[i]), Remote: lan(lans[1-i]), Protocol: spd.ProtocolAny}},
			}},
		}
		var seed [32]byte
		seed[0] = byte(i)
		m, err := ike.New(ike.Config{
			Peers: []ike.Peer{peer}, Rand: rand.NewChaCha8(seed), Limits: ike.Limits{CookieHalfOpen: 4, MaxHalfOpen: 16},
			Wall: func(now time.Duration) time.Time { return time.Unix(0, 0).Add(now) },
		})
		if err != nil {
			t.Fatal(err)
		}
		c.ends[i] = &gateway{machine: m, at: netip.AddrPortFrom(at(i), 500), sas: map[sad.ID]bool{}}
	}
	return c
}

// step does what the machine says, as a driver would.
func (c *conversation) step(i int, in ike.Input) {
	c.perform(i, c.ends[i].machine.Step(c.now, in))
}

func (c *conversation) perform(i int, actions []ike.Action) {
	g := c.ends[i]
	for _, a := range actions {
		switch a := a.(type) {
		case ike.Send:
			c.wire = append(c.wire, flight{to: 1 - i, data: slices.Clone(a.Data)})
		case ike.Install:
			var err error
			if g.failing {
				err = sad.ErrNoStore // any error will do
			} else {
				for k := range a.Params {
					g.sas[a.Params[k].ID()] = true
				}
			}
			g.failing = false
			c.perform(i, g.machine.Step(c.now, ike.Installed{Token: a.Token, Err: err}))
		case ike.Remove:
			for _, id := range a.IDs {
				delete(g.sas, id)
			}
		}
	}
}

// deliver gives a message to an end, as if from the other.
func (c *conversation) deliver(f flight) {
	natt := len(f.data)%2 == 0
	c.step(f.to, ike.Packet{Local: c.ends[f.to].at, Remote: c.ends[1-f.to].at, NATT: natt, Data: f.data})
}

// play does what the bytes say, one or two at a time.
func (c *conversation) play(script []byte) {
	take := func() int {
		if len(script) == 0 {
			return 0
		}
		b := script[0]
		script = script[1:]
		return int(b)
	}
	peer := [2]string{"b.example.net", "a.example.net"}
	for steps := 0; len(script) > 0 && steps < 300 && len(c.wire) < 1000; steps++ {
		op := take()
		i := op >> 7
		switch op & 15 {
		case 0, 1, 2, 3: // the next message arrives
			if c.next < len(c.wire) {
				c.next++
				c.deliver(c.wire[c.next-1])
			}
		case 4: // or is lost
			c.next = min(c.next+1, len(c.wire))
		case 5: // an old one arrives again, perhaps at who sent it
			if len(c.wire) > 0 {
				f := c.wire[take()%len(c.wire)]
				f.to ^= op >> 4 & 1
				c.deliver(f)
			}
		case 6, 7: // one is changed
			if len(c.wire) > 0 {
				f := c.wire[take()%len(c.wire)]
				f.data = slices.Clone(f.data)
				f.data[take()%len(f.data)] ^= byte(take())
				c.deliver(f)
			}
		case 8:
			c.now += time.Duration(take()) * 100 * time.Millisecond
			c.step(i, ike.Tick{})
		case 9:
			c.step(i, ike.Acquire{Peer: peer[i], Policy: "lan"})
		case 10:
			c.step(i, ike.Rekey{Peer: peer[i], Policy: []string{"", "*"}[op>>4&1]})
		case 11:
			c.step(i, ike.Terminate{Policy: []string{"", "lan"}[op>>4&1]})
		case 12:
			c.ends[i].failing = true
		case 13: // a message of the fuzzer's own
			n := min(take(), len(script))
			c.deliver(flight{to: i, data: slices.Clone(script[:n])})
			script = script[n:]
		case 14:
			c.expire(i, op>>4&1 == 0)
		case 15:
			c.step(i, ike.PathChanged{Addrs: []netip.Addr{c.ends[i].at.Addr()}})
		}
	}
}

// expire has an SA reach a limit; at a hard one the dataplane takes it out itself.
func (c *conversation) expire(i int, soft bool) {
	all := slices.SortedFunc(maps.Keys(c.ends[i].sas), func(a, b sad.ID) int { return cmp.Compare(a.String(), b.String()) })
	if len(all) == 0 {
		return
	}
	if !soft {
		delete(c.ends[i].sas, all[0])
	}
	c.step(i, ike.Expired{ID: all[0], Soft: soft})
}

// FuzzIKEMachine lets two gateways do anything in any order, over a network that
// does anything to their messages: nothing panics, nobody has more IKE SAs than
// messages were sent, and when all is terminated and time has passed nothing is
// left.
func FuzzIKEMachine(f *testing.F) {
	f.Add([]byte{9, 0, 0, 0, 0, 10, 0, 0, 0, 0, 26, 0, 0, 0, 0, 11, 0, 0})
	f.Add([]byte{9, 137, 0, 0, 0, 0, 0, 0, 0, 0, 8, 60, 136, 60, 0, 0})
	f.Add([]byte{9, 0, 0, 0, 6, 2, 40, 1, 5, 0, 21, 1, 0, 0, 12, 10, 0, 0, 14, 0, 142, 0, 0})
	f.Add([]byte{140, 9, 0, 0, 0, 0, 0, 0, 138, 154, 0, 0, 0, 0, 0, 0, 4, 8, 255, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		c := newConversation(t)
		c.play(script)
		for i, g := range c.ends {
			c.step(i, ike.Terminate{})
			c.step(i, ike.Configure{})
			for range 400 {
				at, set := g.machine.Deadline()
				if !set {
					break
				}
				c.now = max(c.now, at)
				c.step(i, ike.Tick{})
			}
			if n := g.machine.Stats()["panic_recovered"]; n != 0 {
				t.Fatalf("end %d panicked %d times", i, n)
			}
			if g.machine.HalfOpen() != 0 || len(g.sas) != 0 {
				t.Fatalf("end %d: %d half-open IKE SAs and %d SAs are left", i, g.machine.HalfOpen(), len(g.sas))
			}
			if at, set := g.machine.Deadline(); set {
				t.Fatalf("end %d still waits for %s at %s", i, at, c.now)
			}
		}
	})
}
