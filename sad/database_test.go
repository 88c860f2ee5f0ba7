package sad

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
)

// numbered are params with a key of their own, made from n.
func numbered(t testing.TB, dir Direction, n int) Params {
	p := params(t, dir, uint32(0x1000+n), "aes128gcm16", 0)
	p.Peer = fmt.Sprintf("site-%d", n)
	binary.BigEndian.PutUint64(p.EncryptionKey, uint64(n)<<1|uint64(dir)+1<<40)
	return p
}

func install(t testing.TB, d *Database, sas ...*SA) {
	t.Helper()
	if err := d.Install(sas...); err != nil {
		t.Fatalf("Install: %v", err)
	}
}

func TestLookup(t *testing.T) {
	d := NewDatabase()
	if s := d.Load(); s.Len() != 0 || s.Inbound(0x1001) != nil || s.Outbound("site-b", "lan") != nil {
		t.Error("an empty database finds something")
	}
	p := outbound(t)
	all := newSA(t, p)
	p = params(t, Outbound, 0x2002, "aes128gcm16", 2)
	p.Policy = "lan"
	lan := newSA(t, p)
	in := newSA(t, inbound(t))
	install(t, d, all, lan, in)
	s := d.Load()
	if s.Len() != 3 {
		t.Errorf("Len: expected 3, seen %d", s.Len())
	}
	for _, c := range []struct {
		peer, policy string
		want         *SA
	}{{"site-b", "lan", lan}, {"site-b", "voice", all}, {"site-b", "", all}, {"site-c", "lan", nil}, {"", "", nil}, {"site-b\x00lan", "", nil}} {
		if got := s.Outbound(c.peer, c.policy); got != c.want {
			t.Errorf("Outbound(%q, %q): expected %v, seen %v", c.peer, c.policy, c.want, got)
		}
	}
	for spi, want := range map[uint32]*SA{0x1001: in, 0x2001: nil, 0x2002: nil, 0: nil, 0x1002: nil} {
		if got := s.Inbound(spi); got != want {
			t.Errorf("Inbound(0x%x): expected %v, seen %v", spi, want, got)
		}
	}
	seen := map[*SA]int{}
	for sa := range s.All() {
		seen[sa]++
	}
	if len(seen) != 3 || seen[all] != 1 || seen[lan] != 1 || seen[in] != 1 {
		t.Errorf("All: expected each of 3 once, seen %v", seen)
	}
	for range s.All() {
		break // an early end is no panic
	}
}

// A new generation takes over when it is installed; the old one serves again if
// the new one goes.
func TestNewestOutboundSAServes(t *testing.T) {
	d := NewDatabase()
	var gen []*SA
	for i := range 3 {
		gen = append(gen, newSA(t, params(t, Outbound, uint32(0x2000+i), "aes128gcm16", byte(i+1))))
		install(t, d, gen[i])
		if got := d.Load().Outbound("site-b", "lan"); got != gen[i] {
			t.Fatalf("after installing generation %d: seen %v", i, got.ID())
		}
	}
	before := d.Load()
	d.Remove(gen[1].ID())
	if got := d.Load().Outbound("site-b", "lan"); got != gen[2] {
		t.Errorf("after removing the middle one: expected the newest, seen %v", got.ID())
	}
	d.Remove(gen[2].ID())
	if got := d.Load().Outbound("site-b", "lan"); got != gen[0] {
		t.Errorf("after removing the newest: expected the first, seen %v", got.ID())
	}
	d.Remove(gen[0].ID())
	if got := d.Load().Outbound("site-b", "lan"); got != nil {
		t.Errorf("after removing all: seen %v", got.ID())
	}
	if before.Outbound("site-b", "lan") != gen[2] || before.Len() != 3 {
		t.Error("an older snapshot changed")
	}
}

func TestInstallRefusesDuplicates(t *testing.T) {
	d := NewDatabase()
	in, out := newSA(t, inbound(t)), newSA(t, outbound(t))
	install(t, d, in, out)
	fresh := func(dir Direction, spi uint32, change func(p *Params)) *SA {
		p := params(t, dir, spi, "aes128gcm16", 0x33)
		change(&p)
		return newSA(t, p)
	}
	keep := func(*Params) {}
	cases := []struct {
		name string
		sas  []*SA
		want error
		text string
	}{
		{"the same inbound SA", []*SA{in}, ErrDuplicate, "remove it first"},
		{"the same outbound SA", []*SA{out}, ErrDuplicate, "remove it first"},
		{"inbound SPI of another peer", []*SA{fresh(Inbound, 0x1001, func(p *Params) { p.Peer = "site-c" })}, ErrDuplicate, `for peer "site-b": use another SPI`},
		{"outbound ID, another key", []*SA{fresh(Outbound, 0x2001, keep)}, ErrDuplicate, `out SA 0x2001 of peer "site-b"`},
		{"key of another SA", []*SA{newSA(t, params(t, Outbound, 0x9001, "aes128gcm16", 0xa1))}, ErrKeyInUse, `(out SA 0x2001 of peer "site-b")`},
		{"key of the other direction", []*SA{newSA(t, params(t, Inbound, 0x9001, "aes128gcm16", 0xa1))}, ErrKeyInUse, "in each direction"},
		{"key with another ICV length", []*SA{newSA(t, params(t, Outbound, 0x9001, "aes128gcm8", 0xa1))}, ErrKeyInUse, "key of its own"},
		{"twice in one call", []*SA{fresh(Inbound, 0x9002, keep), fresh(Inbound, 0x9002, keep)}, ErrDuplicate, ""},
		{"one SPI for two peers in one call", []*SA{
			fresh(Inbound, 0x9002, keep),
			fresh(Inbound, 0x9002, func(p *Params) { p.Peer = "site-c"; p.EncryptionKey[0] = 1 }),
		}, ErrDuplicate, "use another SPI"},
		{"one key twice in one call", []*SA{fresh(Inbound, 0x9002, keep), fresh(Inbound, 0x9003, keep)}, ErrKeyInUse, ""},
		{"good, then bad", []*SA{fresh(Inbound, 0x9004, keep), in}, ErrDuplicate, ""},
		{"nil", []*SA{fresh(Inbound, 0x9004, keep), nil}, nil, "nil SA"},
	}
	before := d.Load()
	for _, c := range cases {
		err := d.Install(c.sas...)
		wantError(t, err, c.text)
		if c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: expected %v, seen %v", c.name, c.want, err)
		}
		if d.Load() != before {
			t.Fatalf("%s: the database changed", c.name)
		}
	}
	// Nothing of the refused calls stays in the books.
	install(t, d, fresh(Inbound, 0x9004, keep))
	// The outbound SPI is the peer's choice: two peers may choose the same.
	install(t, d, fresh(Outbound, 0x2001, func(p *Params) { p.Peer = "site-c"; p.EncryptionKey[0] = 9 }))
}

func TestRemove(t *testing.T) {
	d := NewDatabase()
	in, out := newSA(t, inbound(t)), newSA(t, outbound(t))
	install(t, d, in, out)
	old := d.Load()
	if n := d.Remove(ID{Inbound, 0x1001, "site-c", ESP}, ID{Outbound, 0x1001, "site-b", ESP}); n != 0 || d.Load() != old {
		t.Errorf("Remove of strangers: expected 0 and no change, seen %d", n)
	}
	if n := d.Remove(in.ID(), in.ID(), out.ID(), ID{}); n != 2 {
		t.Errorf("Remove: expected 2, seen %d", n)
	}
	if s := d.Load(); s.Len() != 0 || s.Inbound(0x1001) != nil || s.Outbound("site-b", "") != nil {
		t.Error("removed SAs are found")
	}
	// A running batch holds the old snapshot: all of it still works.
	if old.Len() != 2 || old.Inbound(0x1001) != in {
		t.Error("the old snapshot changed")
	}
	wantErrs(t, receive(old.Inbound(0x1001), 1, 1), nil, ErrReplay)
	wantReserve(t, old.Outbound("site-b", ""), 1, 1, 1)
	// An inbound key may come back: its numbers are the sender's matter.
	install(t, d, newSA(t, inbound(t)))
}

// A removed outbound SA's numbers would start again at 1 under the same key.
func TestSpentKeysDoNotComeBack(t *testing.T) {
	d := NewDatabase()
	again := func(p Params) error {
		sa := newSA(t, p)
		install(t, d, sa)
		d.Remove(sa.ID())
		return d.Install(newSA(t, p))
	}
	p := outbound(t)
	if err := again(p); !errors.Is(err, ErrKeyInUse) {
		t.Errorf("counter mode without a store: expected ErrKeyInUse, seen %v", err)
	}
	p.SPI, p.Suite = 0x5555, suite(t, "aes128gmac")
	if err := d.Install(newSA(t, p)); !errors.Is(err, ErrKeyInUse) {
		t.Errorf("the same key in another mode: expected ErrKeyInUse, seen %v", err)
	}
	p = params(t, Outbound, 0x3001, "aes128gcm16", 1)
	p.Sequence = newMemoryStore()
	if err := again(p); err != nil {
		t.Errorf("counter mode with a store: %v", err)
	}
	if err := again(params(t, Outbound, 0x3002, "aes128-sha256", 2)); err != nil {
		t.Errorf("CBC: %v", err)
	}
	// The memory of keys is bounded.
	d = NewDatabase()
	sa := newSA(t, outbound(t))
	for n := range maxSpent + 10 {
		binary.BigEndian.PutUint64(sa.keyID[:], uint64(n)+1)
		d.spend(sa)
	}
	if len(d.spent) != maxSpent || len(d.order) != maxSpent {
		t.Errorf("spent keys: expected %d, seen %d and %d", maxSpent, len(d.spent), len(d.order))
	}
	if _, ok := d.spent[d.order[0]]; !ok {
		t.Error("the oldest key in order is not in the set")
	}
}

func TestGenerationsAreUnique(t *testing.T) {
	seen := map[uint64]bool{0: true}
	a, b := NewDatabase(), NewDatabase()
	look := func(d *Database) {
		t.Helper()
		if g := d.Load().Generation(); seen[g] {
			t.Errorf("generation %d was there before", g)
		} else {
			seen[g] = true
		}
	}
	look(a)
	look(b)
	for i := range 10 {
		sa, sb := newSA(t, numbered(t, Inbound, i)), newSA(t, numbered(t, Inbound, i))
		install(t, a, sa)
		look(a)
		install(t, b, sb)
		look(b)
		a.Remove(sa.ID())
		look(a)
	}
}

// A random walk of installs and removes against plain maps, snapshots of the past
// included.
func TestDatabaseAgainstMaps(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const population = 600
	sas := make([]*SA, population)
	for i := range sas {
		p := numbered(t, Direction(i%2), i)
		p.Peer, p.Policy = fmt.Sprintf("site-%d", i%7), fmt.Sprintf("p%d", i%11)
		p.Sequence = nil
		p.Suite, p.IntegrityKey = suite(t, "aes128-sha256"), make(Key, 32) // keys may come back
		p.EncryptionKey = p.EncryptionKey[:16]
		p.ReplayWindow = 32
		sas[i] = newSA(t, p)
	}
	d := NewDatabase()
	there := map[*SA]bool{}
	var past *Snapshot
	var pastThere map[*SA]bool
	verify := func(s *Snapshot, there map[*SA]bool) {
		t.Helper()
		n := 0
		for sa := range s.All() {
			n++
			if !there[sa] {
				t.Fatalf("%s is in the snapshot, expected gone", sa.ID())
			}
		}
		if n != len(there) || s.Len() != n {
			t.Fatalf("expected %d SAs, seen %d and Len %d", len(there), n, s.Len())
		}
		for _, sa := range sas {
			if sa.Direction == Inbound {
				if got := s.Inbound(sa.SPI) == sa; got != there[sa] {
					t.Fatalf("Inbound(0x%x): expected %v, seen %v", sa.SPI, there[sa], got)
				}
			} else if there[sa] && s.Outbound(sa.Peer, sa.Policy) == nil {
				t.Fatalf("Outbound(%s, %s): seen nothing", sa.Peer, sa.Policy)
			}
		}
	}
	for step := range 3000 {
		sa := sas[r.IntN(population)]
		if there[sa] {
			if n := d.Remove(sa.ID()); n != 1 {
				t.Fatalf("step %d: Remove: seen %d", step, n)
			}
			delete(there, sa)
		} else {
			install(t, d, sa)
			there[sa] = true
		}
		if step%100 == 0 {
			verify(d.Load(), there)
			if past != nil {
				verify(past, pastThere)
			}
			past, pastThere = d.Load(), map[*SA]bool{}
			for sa := range there {
				pastThere[sa] = true
			}
		}
	}
}

// Readers run on while SAs come and go: what they find is whole.
func TestReadersDuringChanges(t *testing.T) {
	d := NewDatabase()
	fixed := newSA(t, inbound(t))
	install(t, d, fixed)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				s := d.Load()
				n := 0
				for range s.All() {
					n++
				}
				if n != s.Len() || s.Inbound(0x1001) != fixed {
					t.Errorf("snapshot: %d SAs, Len %d", n, s.Len())
					return
				}
			}
		})
	}
	for i := range 300 {
		in, out := newSA(t, numbered(t, Inbound, 1000+i)), newSA(t, numbered(t, Outbound, 1000+i))
		install(t, d, in, out)
		if i%3 == 0 {
			d.Remove(in.ID(), out.ID())
		}
	}
	close(stop)
	wg.Wait()
}

// heap is the live heap in bytes: the second collection frees what the first only
// found.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// reliability.md G11: below 8 KB for a pair of SAs, window of 4096.
func TestMemoryPerPair(t *testing.T) {
	const pairs = 1000
	for _, name := range []string{"aes128gcm16", "aes256-sha256"} {
		d := NewDatabase()
		before := heap()
		for i := range pairs {
			for _, dir := range []Direction{Outbound, Inbound} {
				p := numbered(t, dir, i)
				p.ESN, p.Suite = true, suite(t, name)
				if _, integrity := p.Suite.KeyLen(); integrity > 0 {
					p.EncryptionKey, p.IntegrityKey = append(p.EncryptionKey, make(Key, 12)...), make(Key, integrity)
				}
				install(t, d, newSA(t, p))
			}
		}
		perPair := (heap() - before) / pairs
		t.Logf("%s: %d bytes per pair", name, perPair)
		if perPair > 8192 || perPair < 1024 {
			t.Errorf("%s: expected 1024 to 8192 bytes per pair, seen %d", name, perPair)
		}
		runtime.KeepAlive(d)
	}
}

// A reload that changes a parameter of an SA removes it and installs it again
// with the same key: what was received before must stay refused.
func TestReinstalledInboundSARefusesWhatWasReceived(t *testing.T) {
	for _, esn := range []bool{false, true} {
		d := NewDatabase()
		p := inbound(t)
		p.ESN = esn
		first := newSA(t, p)
		install(t, d, first)
		wantErrs(t, receive(first, 50, 60, 100), nil, nil, nil)
		d.Remove(p.ID())
		p.ReplayWindow = 64
		second := newSA(t, p)
		install(t, d, second)
		wantErrs(t, receive(second, 50, 51, 99, 100, 101, 101, 103, 102, 200, 140),
			ErrReplay, ErrReplay, ErrReplay, ErrReplay, nil, ErrReplay, nil, nil, nil, nil)
		d.Remove(p.ID())
		install(t, d, second) // the same SA once more: its window is its own
		wantErrs(t, receive(second, 200, 141, 201), ErrReplay, nil, nil)

		p.SPI++ // other packets are authentic for another SPI
		d.Remove(second.ID())
		other := newSA(t, p)
		install(t, d, other)
		wantErrs(t, receive(other, 1), nil)
	}
}

func TestReceivedEdgesAreBounded(t *testing.T) {
	d := NewDatabase()
	sa := newSA(t, inbound(t))
	for i := range maxSpent + 10 {
		sa.keyID[0], sa.keyID[1], sa.keyID[2] = byte(i), byte(i>>8), byte(i>>16)
		receive(sa, uint32(i+1))
		d.keepEdge(sa)
		d.keepEdge(sa)
	}
	if len(d.received) != maxSpent || len(d.receivedOrder) != maxSpent {
		t.Errorf("expected %d keys remembered, seen %d and %d", maxSpent, len(d.received), len(d.receivedOrder))
	}
	if got := d.received[receiver{sa.SPI, sa.keyID}]; got != maxSpent+10 {
		t.Errorf("expected the last edge, %d, to be remembered, seen %d", maxSpent+10, got)
	}
}
