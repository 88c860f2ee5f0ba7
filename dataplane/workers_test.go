package dataplane

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/tun"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// busyQueue is a TUN queue with packets for two SAs, plain and super by turns,
// until its reads are used up.
type busyQueue struct {
	captureQueue
	plain, super [2][]byte
	size         int
	reads        int
	rng          *rand.Rand
	closed       chan struct{}
	ended        *sync.WaitGroup
}

func (q *busyQueue) ReadBatch(bufs []packet.Buffer) (int, error) {
	if q.reads--; q.reads == -1 {
		q.ended.Done()
	}
	if q.reads < 0 {
		<-q.closed
		return 0, os.ErrClosed
	}
	n := 1 + q.rng.IntN(len(bufs))
	for i := range n {
		which := q.rng.IntN(2)
		if q.rng.IntN(8) == 0 {
			bufs[i].Set(q.super[which])
			bufs[i].SegmentSize = q.size
		} else {
			bufs[i].Set(q.plain[which])
		}
	}
	return n, nil
}

func (q *busyQueue) BatchSize() int { return 32 }
func (q *busyQueue) Close() error   { close(q.closed); return nil }

// orderWire keeps the numbers of each SA in the order in which they left.
type orderWire struct {
	mu   *sync.Mutex
	seqs map[uint32][]uint32
	rng  *rand.Rand
}

func (w *orderWire) WriteBatch(grams []packet.Datagram) (int, error) {
	for range w.rng.IntN(20) { // be overtaken
		runtime.Gosched()
	}
	if w.rng.IntN(20) == 0 {
		time.Sleep(time.Millisecond)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range grams {
		b := grams[i].Bytes()
		spi := binary.BigEndian.Uint32(b)
		w.seqs[spi] = append(w.seqs[spi], binary.BigEndian.Uint32(b[4:]))
	}
	return len(grams), nil
}

func (w *orderWire) ReadBatch([]packet.Datagram) (int, error) { select {} }
func (w *orderWire) Close() error                             { return nil }

// Four workers share two SAs: every number is used once, and none leaves more
// than MaxLag behind a higher one, however the workers are held up.
func TestWorkersShareSAsExactlyOnceAndWithinTheWindow(t *testing.T) {
	const workers, reads = 4, 150
	policies := protectAll()
	policies = append(policies, policies[0])
	policies[0].Name, policies[0].Selector.Protocol = "udp", packet.ProtoUDP
	policies[1].Name, policies[1].Selector.Protocol = "tcp", packet.ProtoTCP
	for i := range policies {
		policies[i].Peer = fmt.Sprint("b", i)
	}
	table, err := spd.NewTable(policies)
	if err != nil {
		t.Fatal(err)
	}
	s := fromASuper(3*1000+1, 1000)
	u := s
	u.udp = true
	dev, _ := tun.NewMemory("test0", 1500)
	defer dev.Close()
	order := orderWire{mu: new(sync.Mutex), seqs: make(map[uint32][]uint32)}
	wires := make([]*orderWire, workers)
	for i := range wires {
		w := order
		w.rng = rand.New(rand.NewPCG(uint64(i), 1))
		wires[i] = &w
	}
	cfg := Config{TUN: dev, Wire: wires[0], NoProbe: true} // a wire here is one worker's
	for _, w := range wires[1:] {
		cfg.Siblings = append(cfg.Siblings, w)
	}
	g, err := build(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g.ApplyPolicy(table)
	r := &rig{t: t, opts: options{suite: "null-sha256", remote: gwB4}}
	for i := range 2 {
		p := r.params(sad.Outbound)
		p.Peer, p.SPI = fmt.Sprint("b", i), uint32(outSPI+i)
		p.EncryptionKey, p.IntegrityKey = key(p.Peer, len(p.EncryptionKey)), key(p.Peer, len(p.IntegrityKey))
		if err := g.Install(p); err != nil {
			t.Fatal(err)
		}
	}
	var ended sync.WaitGroup
	g.queues, g.out, g.in, g.wires = nil, nil, nil, nil
	for i := range workers {
		ended.Add(1)
		g.queues = append(g.queues, &busyQueue{plain: [2][]byte{fromA("udp"), s.segments()[0]}, super: [2][]byte{u.bytes(), s.bytes()}, size: 1000,
			reads: reads, rng: rand.New(rand.NewPCG(uint64(i), 2)), closed: make(chan struct{}), ended: &ended})
	}
	g.makeWorkers(&cfg)
	g.in = nil // nothing comes
	g.start()
	ended.Wait()
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	total, worst := 0, uint32(0)
	for spi, seqs := range order.seqs {
		seen, highest := make(map[uint32]bool, len(seqs)), uint32(0)
		for _, seq := range seqs {
			if seen[seq] || seq == 0 || int(seq) > len(seqs) {
				t.Fatalf("SA %#x: number %d of %d was used twice or never granted", spi, seq, len(seqs))
			}
			seen[seq] = true
			if seq < highest {
				worst = max(worst, highest-seq)
			}
			highest = max(highest, seq)
		}
		total += len(seqs)
	}
	if got := g.Stats().Counter("OutPackets"); got != uint64(total) || len(order.seqs) != 2 {
		t.Errorf("OutPackets: expected %d of two SAs, saw %d of %d", total, got, len(order.seqs))
	}
	if worst == 0 || worst > sad.MaxLag {
		t.Errorf("a number left %d behind a higher one; expected some reordering, and at most %d", worst, sad.MaxLag)
	}
	t.Logf("%d packets, the latest %d numbers behind a higher one", total, worst)
}

// A worker that waits holds nothing of another SA, so two that hold what the
// other needs do not wait for each other.
func TestWorkersThatHoldWhatTheOtherNeedsGoOn(t *testing.T) {
	r := newRig(t, options{})
	g := r.gw
	a := r.outSA()
	p := r.params(sad.Outbound)
	p.Peer, p.SPI, p.EncryptionKey = "c", outSPI+1, key("c", len(p.EncryptionKey))
	if err := g.Install(p); err != nil {
		t.Fatal(err)
	}
	b := g.sas.Load().Outbound("c", "lan")
	if a == nil || b == nil || a == b {
		t.Fatal("two SAs wanted")
	}
	one := g.out[0]
	two := newOutboundWorker(g, r.tun, 1, [wireKinds]Sender{}, nil)
	g.out = append(g.out, two)
	one.reserve(a, 1)
	two.reserve(b, 1)
	a.Reserve(sad.MaxLag)
	b.Reserve(sad.MaxLag)
	done := make(chan *outboundWorker, 2)
	for w, sa := range map[*outboundWorker]*sad.SA{one: b, two: a} {
		go func() {
			w.reserve(sa, 1)
			w.handOut(nil)
			done <- w
		}()
	}
	for range 2 {
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatal("the workers wait for each other")
		}
	}
}
