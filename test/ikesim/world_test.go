package ikesim

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/adit-ipsec/adit/ike/wire"
)

// world is a network of gateways in virtual time. One goroutine runs all of it.
type world struct {
	s     setup
	now   time.Duration
	hosts []*host
	queue queue
	seq   uint64
	rng   *rand.Rand // of the network
	evil  *rand.Rand // of the attacker
	net   network
	log   transcript

	steps    int           // that machines were stepped
	lossy    time.Duration // until then loss, corruption or an outage excuses what is not there in time
	keys     map[string][]keyUse
	recorded []datagram // the last ones that were sent, for the attacker
	rogue    *host      // a gateway without the secrets, at an address that it has taken
	taken    netip.Addr // that address
	spoofed  map[netip.Addr]*tally
	followed map[netip.Addr]bool // addresses that a gateway was led to by what was authentic and new
	relayed  bool                // somebody has sent what was not theirs from elsewhere: NATs are seen where none are
	problems []string
	data     dataFigures
	stop     bool // of traffic
	probing  bool
	pace     time.Duration // of traffic
}

// network is what becomes of datagrams.
type network struct {
	loss, double, corrupt float64
	jitter                time.Duration
	down                  bool
}

// tally is what went to and came from an address that nobody can have verified.
type tally struct{ in, out int }

// datagram is one message on its way, of IKE, or of data where packet has a sender.
type datagram struct {
	from, to netip.AddrPort
	data     []byte
	packet   packet
	forged   bool // the attacker sent it
}

// newWorld raises the gateways of a setup. Nothing has happened yet.
func newWorld(s setup) *world {
	w := &world{
		s: s, rng: stream(s.seed, "network"), evil: stream(s.seed, "attacker"),
		keys: map[string][]keyUse{}, followed: map[netip.Addr]bool{}, spoofed: map[netip.Addr]*tally{},
	}
	w.log.init()
	for i := range s.hosts {
		h := &host{w: w, index: i, hostSetup: s.hosts[i]}
		if h.behind.IsValid() {
			h.nat = newNAT(h.behind, h.forward, stream(s.seed, "nat"+h.name))
		}
		w.hosts = append(w.hosts, h)
	}
	for _, h := range w.hosts {
		h.boot()
	}
	return w
}

// stream is a source of random numbers of its own.
func stream(seed uint64, name string) *rand.Rand {
	var key [32]byte
	copy(key[8:], name)
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	return rand.New(rand.NewChaCha8(key))
}

// at has something happen at a time.
func (w *world) at(t time.Duration, do func()) {
	w.seq++
	w.queue.push(due{at: max(t, w.now), seq: w.seq, do: do})
}

// arrives has a datagram arrive after a time.
func (w *world) arrives(d *datagram, after time.Duration) {
	w.seq++
	w.queue.push(due{at: w.now + after, seq: w.seq, flight: w.queue.keep(d)})
}

func (w *world) after(d time.Duration, do func()) { w.at(w.now+d, do) }

// fail notes a violation.
func (w *world) fail(format string, args ...any) {
	text := fmt.Sprintf("%s step %d: %s", w.log.clock(w.now), w.steps, fmt.Sprintf(format, args...))
	w.log.add(w.now, "VIOLATION "+text)
	if len(w.problems) < 5 {
		w.problems = append(w.problems, text)
	}
}

// stormSteps are more steps than can be of use within stormTime.
const (
	stormSteps = 4000
	stormTime  = 20 * time.Millisecond
)

// run lets time pass until a time, or until a violation.
func (w *world) run(until time.Duration) {
	last, storm := time.Duration(-1), 0
	for len(w.problems) == 0 {
		at, h := w.next()
		if at > until {
			break
		}
		w.now = max(w.now, at)
		if storm++; w.now-last > stormTime {
			last, storm = w.now, 0
		}
		if storm > stormSteps {
			w.fail("a storm: %d steps within %s", storm, stormTime)
			return
		}
		if h != nil {
			h.tick()
			continue
		}
		if next := w.queue.pop(); next.do != nil {
			next.do()
		} else {
			w.deliver(w.queue.take(next.flight))
		}
	}
	w.now = max(w.now, until)
}

// next is when something happens next, and whose deadline it is: nobody's where it
// is in the queue.
func (w *world) next() (at time.Duration, who *host) {
	at = 1 << 62
	if len(w.queue.heap) > 0 {
		at = w.queue.heap[0].at
	}
	for _, h := range w.hosts {
		at, who = h.sooner(at, who)
	}
	if w.rogue != nil {
		at, who = w.rogue.sooner(at, who)
	}
	return at, who
}

// sooner is the host's deadline, where that is before what is next so far.
func (h *host) sooner(at time.Duration, who *host) (time.Duration, *host) {
	if due, set := h.m.Deadline(); set && due-h.skew < at {
		return due - h.skew, h
	}
	return at, who
}

// send puts a datagram of a gateway on the wire.
func (w *world) send(h *host, d datagram) {
	if h.nat != nil {
		d.from = h.nat.out(d.from)
	}
	if !d.packet.set() {
		w.record(d)
		if t := w.spoofed[d.to.Addr()]; t != nil {
			t.out += len(d.data)
			if t.out > t.in {
				w.fail("%s has sent %d bytes to %s, which has sent %d and verified nothing", h.name, t.out, d.to.Addr(), t.in)
			}
		}
	}
	if h == w.rogue {
		d.forged = true
	}
	w.carry(d)
}

// carry decides what becomes of a datagram.
func (w *world) carry(d datagram) {
	copies := 1
	switch {
	case w.net.down, w.rng.Float64() < w.net.loss:
		copies = 0
	case w.rng.Float64() < w.net.double:
		copies = 2
	}
	if copies == 0 {
		w.log.lost(w, d)
	}
	for range copies {
		c := d
		if !c.packet.set() && w.rng.Float64() < w.net.corrupt {
			c.data = slices.Clone(c.data)
			c.data[w.rng.IntN(len(c.data))] ^= byte(1 << w.rng.IntN(8))
		}
		wait := w.s.latency
		if w.net.jitter > 0 {
			wait += time.Duration(w.rng.Int64N(int64(w.net.jitter)))
		}
		w.arrives(&c, wait)
	}
}

// deliver hands a datagram to whoever has its address.
func (w *world) deliver(d datagram) {
	if w.rogue != nil && d.to.Addr() == w.taken && !d.forged {
		if !d.packet.set() {
			w.rogue.receive(d)
		}
		return
	}
	for _, h := range w.hosts {
		to, ok := d.to, d.to.Addr() == h.addr
		if h.nat != nil {
			to, ok = h.nat.in(d.to)
			if ok {
				to = netip.AddrPortFrom(h.addr, to.Port())
			}
		}
		if ok {
			d.to = to
			h.receive(d)
			return
		}
	}
}

// record keeps what an attacker on the path has seen.
func (w *world) record(d datagram) {
	if len(w.recorded) >= 256 {
		w.recorded = slices.Delete(w.recorded, 0, 128)
	}
	w.recorded = append(w.recorded, d)
}

// natBox translates the addresses of one gateway, by ports that do not depend on
// where its datagrams go.
type natBox struct {
	public  netip.Addr
	forward bool // ports 500 and 4500 come in always
	rng     *rand.Rand
	ports   map[uint16]uint16 // inside to outside
}

func newNAT(public netip.Addr, forward bool, rng *rand.Rand) *natBox {
	return &natBox{public: public, forward: forward, rng: rng, ports: map[uint16]uint16{}}
}

func (n *natBox) out(from netip.AddrPort) netip.AddrPort {
	if n.forward {
		return netip.AddrPortFrom(n.public, from.Port())
	}
	port := n.ports[from.Port()]
	for port == 0 {
		port = uint16(10000 + n.rng.IntN(50000))
		for _, used := range n.ports {
			if used == port {
				port = 0
			}
		}
		n.ports[from.Port()] = port
	}
	return netip.AddrPortFrom(n.public, port)
}

func (n *natBox) in(to netip.AddrPort) (netip.AddrPort, bool) {
	if to.Addr() != n.public {
		return to, false
	}
	if n.forward {
		return to, true
	}
	for inside, outside := range n.ports {
		if outside == to.Port() {
			return netip.AddrPortFrom(n.public, inside), true
		}
	}
	return to, false
}

// rebind forgets every mapping.
func (n *natBox) rebind() { clear(n.ports) }

// header is the header of a datagram of IKE; the zero value: it has none.
func (d *datagram) header() wire.Header {
	h, _ := wire.ParseHeader(d.data)
	return h
}
