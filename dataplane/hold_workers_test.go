package dataplane

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/tun"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// flowQueue is a TUN queue with packets of many flows: the first of each, then the
// second of each, and so on. Then it is silent.
type flowQueue struct {
	captureQueue
	list   [][]byte
	rng    *rand.Rand
	closed chan struct{}
}

func (q *flowQueue) ReadBatch(bufs []packet.Buffer) (int, error) {
	if len(q.list) == 0 {
		<-q.closed
		return 0, os.ErrClosed
	}
	for range q.rng.IntN(4) {
		runtime.Gosched()
	}
	n := min(1+q.rng.IntN(len(bufs)), len(q.list))
	for i := range n {
		bufs[i].Set(q.list[i])
	}
	q.list = q.list[n:]
	return n, nil
}

func (q *flowQueue) BatchSize() int { return 32 }
func (q *flowQueue) Close() error   { close(q.closed); return nil }

// flowWire reads the flows of what leaves in ESP without encryption.
type flowWire struct {
	mu    sync.Mutex
	next  map[uint32]uint32 // by flow: the number of the packet that is to come
	wrong int
	total atomic.Int64
}

func (w *flowWire) WriteBatch(grams []packet.Datagram) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range grams {
		inner := grams[i].Bytes()[8+20+8:] // ESP, IPv4, UDP
		flow, n := binary.BigEndian.Uint32(inner), binary.BigEndian.Uint32(inner[4:])
		if w.next[flow] != n {
			w.wrong++
		}
		w.next[flow] = n + 1
		w.total.Add(1)
	}
	return len(grams), nil
}

func (w *flowWire) ReadBatch([]packet.Datagram) (int, error) { select {} }
func (w *flowWire) Close() error                             { return nil }

// numberedFlow is packet n of a flow.
func numberedFlow(flow, n int) []byte {
	payload := binary.BigEndian.AppendUint32(nil, uint32(flow))
	payload = binary.BigEndian.AppendUint32(payload, uint32(n))
	return inner{src: hostA, dst: hostB, sport: uint16(1 + flow), dport: 5000, payload: string(payload)}.udp()
}

// heldFlows runs a gateway whose flows start at the same instant with no SA, each
// with so many packets, and installs the SA when that many packets are held. It
// fails unless each packet leaves exactly once, and in its flow's order.
func heldFlows(t *testing.T, queues, flows, packets, install int) {
	t.Helper()
	dev, _ := tun.NewMemory("test0", 1500)
	defer dev.Close()
	wire := &flowWire{next: map[uint32]uint32{}}
	cfg := Config{TUN: dev, Wire: wire, NoProbe: true, Hold: &Hold{}}
	g, err := build(cfg)
	if err != nil {
		t.Fatal(err)
	}
	table, err := spd.NewTable(protectAll())
	if err != nil {
		t.Fatal(err)
	}
	g.ApplyPolicy(table)
	g.queues, g.out, g.in, g.wires = nil, nil, nil, nil
	for i := range queues {
		q := &flowQueue{rng: rand.New(rand.NewPCG(uint64(i), uint64(install))), closed: make(chan struct{})}
		for n := range packets {
			for flow := i; flow < flows; flow += queues { // a flow has its queue
				q.list = append(q.list, numberedFlow(flow, n))
			}
		}
		g.queues = append(g.queues, q)
	}
	g.makeWorkers(&cfg)
	g.in = nil // nothing comes
	g.start()
	r := &rig{t: t, opts: options{suite: "null-sha256", remote: gwB4}}
	patience := time.Now().Add(20 * time.Second)
	for g.Stats().Counter("OutHeld") < uint64(install) && time.Now().Before(patience) {
		runtime.Gosched()
	}
	if err := g.Install(r.params(sad.Outbound)); err != nil {
		t.Fatal(err)
	}
	for wire.total.Load() < int64(flows*packets) && time.Now().Before(patience) {
		g.pause(time.Millisecond)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	s := g.Stats()
	if wire.wrong > 0 || wire.total.Load() != int64(flows*packets) || len(wire.next) != flows {
		t.Errorf("SA after %d: %d packets of %d flows: expected each once and in order, saw %d of %d flows, %d out of turn; drops %v", install, flows*packets, flows, wire.total.Load(), len(wire.next), wire.wrong, nonzero(g))
	}
	if held, released := s.Counter("OutHeld"), s.Counter("OutReleased"); held < uint64(install) || held != released || s.HeldPackets != 0 {
		t.Errorf("SA after %d: OutHeld %d, OutReleased %d, still held %d", install, held, released, s.HeldPackets)
	}
}

// 1,000 flows start at the same instant with no SA: every first packet leaves once,
// and in order per flow with what follows it, wherever in between the SA comes.
func TestAThousandFirstPacketsLeaveOnceAndInOrder(t *testing.T) {
	for _, queues := range []int{1, 2, 3} {
		heldFlows(t, queues, 1000, 1, 1000) // all first packets, and then silence
		heldFlows(t, queues, 1000, 4, 4000)
		for _, install := range []int{1, 37, 500, 999, 1001, 2500, 3990} {
			heldFlows(t, queues, 1000, 4, install)
		}
	}
}

// Whoever wants a worker's memory while somebody has it waits, and gets it.
func TestAWorkerIsOwnedByOneAtATime(t *testing.T) {
	r := holdingRig(t, options{}, Hold{})
	w := r.gw.out[0]
	none(t, r.send(fromA("x")))
	w.begin()
	r.gw.Refuse("b", "")
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.gw.tendHolds() // a refusal waits for the worker
	}()
	for range 200 {
		runtime.Gosched()
	}
	select {
	case <-done:
		t.Fatal("the holder touched a worker with a batch in hand")
	default:
	}
	w.end()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("the holder waits for a worker that is free")
	}
	r.holds(0)
}
