package dataplane

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/tun"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// Sender sends datagrams. WriteBatch sends grams in order and returns how many
// were sent; with an error, that many went out and the error belongs to
// grams[sent]: the caller counts it and goes on behind it. Several goroutines
// may call it at once. The memory is only borrowed for the call.
type Sender interface {
	WriteBatch(grams []packet.Datagram) (sent int, err error)
}

// Wire carries the outer packets of one encapsulation: natt.Conn for UDP, an
// internal/rawip.Conn for protocol 50, or an embedder's own.
//
// ReadBatch blocks until there is at least one datagram and fills Off, Len,
// Addr, Local, TOS and SegmentSize of as many slots as it has; a slot may hold
// several datagrams of one sender, by SegmentSize.
// Only one goroutine calls it. After Close it returns net.ErrClosed; any other
// error is passing.
type Wire interface {
	Sender
	ReadBatch(grams []packet.Datagram) (int, error)
	Close() error
}

// Config is what a Gateway is made of. The gateway owns TUN and wires from New
// on and closes them.
type Config struct {
	TUN  tun.Device // any golang.zx2c4.com/wireguard/tun.Device
	Wire Wire       // UDP 4500; nil: no UDP encapsulation
	Raw4 Wire       // protocol 50 over IPv4; nil: none
	Raw6 Wire       // protocol 50 over IPv6; nil: none

	// Siblings are more sockets on Wire's port, each with an inbound worker
	// of its own; the kernel spreads the peers over them.
	Siblings []Wire

	// IKE takes the IKE messages that arrive on Wire and Siblings; nil: they
	// are dropped and counted as InNoIKE.
	IKE IKEInbox

	// AH4 and AH6 receive protocol 51, as whole IP packets; nil: no AH. Whole
	// sends whole IP packets as they are: AH, and transport mode without UDP.
	// What it sends must not come back through the TUN. nil: such packets are
	// dropped and counted as OutNoWire.
	AH4, AH6 Wire
	Whole    Sender

	// Clear sends whole IP packets unprotected, for bypass policies. Its
	// packets must not come back through the TUN. nil: they are dropped and
	// counted as OutNoBypass.
	Clear Sender

	// NoOffload reads and writes the TUN packet by packet. The wire's own
	// offload is the wire's matter: natt.Config.Offload.
	NoOffload bool

	// Workers is the number of outbound workers: as many as TUN has queues,
	// or 0.
	Workers int

	// LinkMTU is asked for the MTU, in bytes, of the link that leads to an
	// address; 0: unknown. It may take system calls: housekeeping asks, and a
	// worker whose packet the kernel refused. nil: nobody knows.
	LinkMTU func(remote netip.Addr) int

	// ICMP4 and ICMP6 receive ICMP errors about outer packets, as
	// internal/rawip.ListenICMP does: a datagram is a message from its type
	// on. They learn path MTUs. nil: none.
	ICMP4, ICMP6 Wire
	// IgnoreICMP believes no ICMP error; they are counted all the same.
	IgnoreICMP bool

	// NoProbe neither sends probes of the path MTU inside the SAs nor answers
	// those of peers.
	NoProbe bool

	// PathMTUAge is how long what was learned of a path holds; 0: 10 minutes.
	PathMTUAge time.Duration
	ICMP       ICMP // what is done about ICMP errors

	// Hold is how packets wait for their SA, where a key source answers Acquire.
	// nil: none does, as with manual keys, and they are dropped as OutNoSA.
	Hold *Hold

	// Clock is the time since some start, monotonic; nil: the system's. The
	// walks read it once per batch.
	Clock func() time.Duration

	// Jitter is asked once per SA for a number from 0 to 1: how much of a
	// tenth its soft limits come early (RFC 7296 2.8). nil: at random. Several
	// goroutines may call it at once.
	Jitter func() float64
}

// Gateway is a running dataplane. Its methods may be called at any time from
// any goroutine.
type Gateway struct {
	clock     func() time.Duration
	jitter    func() float64
	policy    atomic.Pointer[spd.Table]
	sas       *sad.Database
	fragments [2]*datagrams // by direction
	queues    []tun.Queue
	icmp      ICMP
	noOffload error // why the queues have no superpackets; nil: they have
	tunMTU    int   // bytes, when the gateway was made
	udp       Wire  // nil: no UDP encapsulation
	wires     []Wire
	path      pathMTU
	inbox     IKEInbox // nil: nobody here speaks IKE

	out    []*outboundWorker
	in     []*inboundWorker
	events chan Event

	dummies      dummies
	roaming      roaming // of the peers
	replacements replacements
	holding      holding

	keepalives atomic.Uint64 // sent
	eventsLost atomic.Uint64 // by housekeeping; workers count their own

	workers sync.WaitGroup
	stop    chan struct{} // closed by Close
	done    chan struct{} // closed when every goroutine has ended
	closing sync.Once
	failure atomic.Pointer[error]
}

// New starts a gateway. Until ApplyPolicy it discards everything.
func New(cfg Config) (*Gateway, error) {
	g, err := build(cfg)
	if err != nil {
		return nil, err
	}
	g.start()
	return g, nil
}

// build makes the gateway and its workers without starting them.
func build(cfg Config) (*Gateway, error) {
	if cfg.TUN == nil {
		return nil, errors.New("dataplane: Config.TUN is nil: give a TUN device")
	}
	if cfg.Wire == nil && len(cfg.Siblings) > 0 {
		return nil, errors.New("dataplane: Config.Siblings without Config.Wire: the first of them is Wire")
	}
	if cfg.Wire == nil && cfg.Raw4 == nil && cfg.Raw6 == nil && cfg.AH4 == nil && cfg.AH6 == nil {
		return nil, errors.New("dataplane: no wire: give Config.Wire, Config.Raw4, Config.Raw6, Config.AH4 or Config.AH6")
	}
	if err := cfg.ICMP.check(); err != nil {
		return nil, err
	}
	if err := cfg.Hold.check(); err != nil {
		return nil, err
	}
	g := &Gateway{
		clock:  cfg.Clock,
		jitter: cfg.Jitter,
		icmp:   cfg.ICMP,
		sas:    sad.NewDatabase(),
		udp:    cfg.Wire,
		inbox:  cfg.IKE,
		events: make(chan Event, eventQueue),
		stop:   make(chan struct{}),
		done:   make(chan struct{}),
		tunMTU: tunMTU(cfg.TUN),
	}
	g.path.use(g, &cfg)
	g.holding.use(cfg.Hold)
	g.fragments = [2]*datagrams{newDatagrams(), newDatagrams()}
	if g.clock == nil {
		start := time.Now()
		g.clock = func() time.Duration { return time.Since(start) }
	}
	if g.jitter == nil {
		g.jitter = rand.Float64
	}
	g.queues, g.noOffload = tun.Queues(cfg.TUN, !cfg.NoOffload)
	if n := len(g.queues); n > sad.MaxWorkers || cfg.Workers != 0 && cfg.Workers != n {
		return nil, fmt.Errorf("dataplane: the TUN device has %d queues and Config.Workers is %d: give as many workers as queues, or 0; at most %d", n, cfg.Workers, sad.MaxWorkers)
	}
	g.makeWorkers(&cfg)
	return g, nil
}

// makeWorkers makes one outbound worker for each queue and one inbound worker
// for each wire; where there are several of both, they are paired.
func (g *Gateway) makeWorkers(cfg *Config) {
	udp := cfg.Siblings
	if cfg.Wire != nil {
		udp = append([]Wire{cfg.Wire}, udp...)
	}
	for i, q := range g.queues {
		wires := [wireKinds]Sender{wireWhole: cfg.Whole}
		if cfg.Raw4 != nil { // a nil Wire is no nil Sender
			wires[wireRaw4] = cfg.Raw4
		}
		if cfg.Raw6 != nil {
			wires[wireRaw6] = cfg.Raw6
		}
		if len(udp) > 0 {
			wires[wireUDP] = udp[i%len(udp)]
		}
		g.out = append(g.out, newOutboundWorker(g, q, i, wires, cfg.Clear))
	}
	for _, wire := range udp {
		g.addInbound(wire, true, false)
	}
	for i, wire := range []Wire{cfg.Raw4, cfg.Raw6, cfg.AH4, cfg.AH6} {
		if wire != nil {
			g.addInbound(wire, false, i >= 2)
		}
	}
}

func (g *Gateway) addInbound(wire Wire, udp, covered bool) {
	q := g.queues[len(g.in)%len(g.queues)]
	g.wires = append(g.wires, wire)
	g.in = append(g.in, newInboundWorker(g, wire, q, udp, covered))
}

func (g *Gateway) start() {
	for _, w := range g.out {
		g.workers.Go(func() { g.fail(w.runOutbound()) })
	}
	for _, w := range g.in {
		g.workers.Go(func() { g.fail(w.runInbound()) })
	}
	g.workers.Go(g.housekeep)
	if g.holding.on {
		g.workers.Go(g.holder)
	}
	g.discover()
	go func() {
		g.workers.Wait()
		g.audits(g.clock(), true)
		close(g.events)
		close(g.done)
	}()
}

// fail ends the gateway when a worker has to give up: half a gateway would
// carry one direction and look alive.
func (g *Gateway) fail(err error) {
	if err == nil {
		return
	}
	g.failure.CompareAndSwap(nil, &err)
	g.shutdown()
}

// Done is closed when the gateway has ended: by Close, or because its TUN or a
// wire failed for good (Err tells).
func (g *Gateway) Done() <-chan struct{} { return g.done }

// Err is why the gateway ended by itself; nil while it runs and after Close.
func (g *Gateway) Err() error {
	if err := g.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// Close stops the workers, closes TUN and wires and waits until all has ended.
func (g *Gateway) Close() error {
	g.shutdown()
	<-g.done
	return g.Err()
}

func (g *Gateway) shutdown() {
	g.closing.Do(func() {
		close(g.stop)
		for _, q := range g.queues {
			_ = q.Close()
		}
		for _, wire := range g.wires {
			_ = wire.Close()
		}
		g.path.close()
	})
}

// What does nothing but fail is read for a second at the least, for a shortage
// of memory passes, and not in a hot loop.
const (
	maxReadFailures = 1000
	readPause       = time.Millisecond // behind the second failure in a row and each later one
)

// readAgain is what a worker asks when reads have failed that many times in a
// row: it waits a little, and says whether to go on.
func (g *Gateway) readAgain(failures int) bool {
	if failures <= 1 {
		return true
	}
	if failures > maxReadFailures {
		return false
	}
	g.pause(readPause)
	return true
}

// pause waits that long, or until the gateway stops.
func (g *Gateway) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-g.stop:
	case <-timer.C:
	}
}

func (g *Gateway) stopping() bool {
	select {
	case <-g.stop:
		return true
	default:
		return false
	}
}

// ApplyPolicy swaps the whole policy table. Walks see it from their next batch
// on; SAs stay as they are.
func (g *Gateway) ApplyPolicy(table *spd.Table) {
	g.policy.Store(table)
	g.wakeHolder()
}

// Install makes SAs of params, all or none. It may block for the durable
// reservation of sequence numbers.
func (g *Gateway) Install(params ...sad.Params) error {
	sas := make([]*sad.SA, 0, len(params))
	for _, p := range params {
		sa, err := sad.New(p)
		if err != nil {
			return err
		}
		sa.Begin(int64(g.clock()), g.jitter())
		sas = append(sas, sa)
	}
	g.holding.comes(g.clock(), params)
	err := g.sas.Install(sas...)
	g.wakeHolder()
	return err
}

// Remove takes SAs away and returns how many there were. Packets of the batch
// in hand may still pass.
func (g *Gateway) Remove(ids ...sad.ID) int { return g.sas.Remove(ids...) }

// Policy is the table in force, nil before the first ApplyPolicy.
func (g *Gateway) Policy() *spd.Table { return g.policy.Load() }

func (g *Gateway) outCounters() []*counters {
	list := make([]*counters, 0, len(g.out))
	for _, w := range g.out {
		list = append(list, &w.counters)
	}
	return list
}

func (g *Gateway) inCounters() []*counters {
	list := make([]*counters, 0, len(g.in))
	for _, w := range g.in {
		list = append(list, &w.counters)
	}
	return list
}
