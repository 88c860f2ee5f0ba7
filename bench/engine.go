package bench

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	wgtun "golang.zx2c4.com/wireguard/tun"

	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// Engine is a load for one gateway without system calls: its TUN and its wire
// are memory that is always ready, so that what is measured is a walk and one
// copy of each packet into the gateway's buffers.
type Engine struct {
	Suite     string
	Size      int   // inner packet, bytes, at least 28
	Mix       []int // sizes that take turns, in place of Size
	Policies  int   // 1 and up; the packet's own is the last
	Direction packet.Direction
}

// Addresses of the load's packets; the policies in front of theirs protect
// networks that no packet goes to.
var (
	engineLocal  = netip.MustParseAddr("10.1.0.10")
	engineRemote = netip.MustParseAddr("10.2.0.20")
	enginePeer   = netip.MustParseAddrPort("192.0.2.2:4500")
)

const engineSPI = 0x1001

// Run carries that many packets and returns how long the gateway took, from the
// first read to the last packet out.
func (e Engine) Run(packets int) (time.Duration, error) {
	run, err := e.prepare(packets)
	if err != nil {
		return 0, err
	}
	return run.run()
}

// engineLoad is what several runs have in common: policies, keys and packets.
type engineLoad struct {
	table   *spd.Table
	params  sad.Params
	packets [][]byte // that the feed hands out
	count   int      // of packets in one run
}

// engineRun is an Engine made ready: everything that is not measured is done.
type engineRun struct {
	gateway *dataplane.Gateway
	tun     *memoryTUN
	wire    *memoryWire
	feed    *feed
	sink    *sink
}

func (e Engine) prepare(packets int) (*engineRun, error) {
	load, err := e.load(packets)
	if err != nil {
		return nil, err
	}
	return load.prepare(e.Direction)
}

func (e Engine) load(packets int) (*engineLoad, error) {
	suite, err := esp.ParseSuite(e.Suite)
	if err != nil {
		return nil, err
	}
	l := &engineLoad{params: e.params(suite), count: packets}
	if l.table, err = e.table(); err != nil {
		return nil, err
	}
	if e.Direction == packet.Outbound {
		for _, size := range e.sizes() {
			l.packets = append(l.packets, innerPacket(engineLocal, engineRemote, size))
		}
		return l, nil
	}
	l.packets, err = e.sealed(l.params, packets)
	return l, err
}

// prepare makes a gateway, which has seen none of the load's packets yet.
func (l *engineLoad) prepare(d packet.Direction) (run *engineRun, err error) {
	closed := make(chan struct{})
	run = &engineRun{
		feed: &feed{packets: l.packets, start: make(chan struct{}), closed: closed, left: l.count},
		sink: &sink{want: int64(l.count), done: make(chan struct{})},
	}
	idle := &feed{start: make(chan struct{}), closed: closed}
	run.tun = &memoryTUN{feed: idle, sink: run.sink, events: make(chan wgtun.Event)}
	run.wire = &memoryWire{feed: idle, sink: run.sink}
	if d == packet.Outbound {
		run.tun.feed = run.feed
	} else {
		run.wire.feed = run.feed
	}
	run.gateway, err = dataplane.New(dataplane.Config{TUN: run.tun, Wire: run.wire})
	if err != nil {
		return nil, err
	}
	run.gateway.ApplyPolicy(l.table)
	return run, run.gateway.Install(l.params)
}

// sizes is the mix, or the one size.
func (e Engine) sizes() []int {
	if len(e.Mix) > 0 {
		return e.Mix
	}
	return []int{e.Size}
}

// run is walk, and the gateway's end.
func (r *engineRun) run() (time.Duration, error) {
	defer func() { _ = r.gateway.Close() }()
	return r.walk()
}

// walk carries the packets.
func (r *engineRun) walk() (time.Duration, error) {
	start := time.Now()
	close(r.feed.start)
	select {
	case <-r.sink.done:
		return time.Since(start), nil
	case <-time.After(time.Minute):
		return 0, fmt.Errorf("bench: %d of %d packets came through in a minute: %+v", r.sink.got.Load(), r.sink.want, r.gateway.Stats())
	}
}

func (e Engine) params(suite esp.Suite) sad.Params {
	enc, integ := suite.KeyLen()
	p := sad.Params{
		Direction: e.Direction, SPI: engineSPI, Peer: "peer", Suite: suite,
		EncryptionKey: bytes.Repeat([]byte{7}, enc), IntegrityKey: bytes.Repeat([]byte{8}, integ),
		ESN: true, ReplayWindow: 4096, FreshKeys: true, Remote: enginePeer,
	}
	return p
}

func (e Engine) table() (*spd.Table, error) {
	policy := func(name, local, remote string) (spd.Policy, error) {
		l, err := spd.ParseAddrRange(local)
		if err != nil {
			return spd.Policy{}, err
		}
		r, err := spd.ParseAddrRange(remote)
		return spd.Policy{Name: name, Action: spd.Protect, Peer: "peer",
			Selector: spd.Selector{Local: []spd.AddrRange{l}, Remote: []spd.AddrRange{r}, Protocol: spd.ProtocolAny}}, err
	}
	policies := make([]spd.Policy, 0, e.Policies)
	for i := range e.Policies - 1 {
		net := netip.AddrFrom4([4]byte{172, byte(16 + i>>16), byte(i >> 8), byte(i)}).String()
		p, err := policy("other"+net, net+"/32", "10.2.0.0/24")
		if err != nil {
			return nil, err
		}
		policies = append(policies, p)
	}
	p, err := policy("lan", "10.1.0.0/24", "10.2.0.0/24")
	if err != nil {
		return nil, err
	}
	return spd.NewTable(append(policies, p))
}

// sealed makes the packets that an inbound walk opens, numbered from 1.
func (e Engine) sealed(p sad.Params, packets int) ([][]byte, error) {
	transform, err := esp.New(p.Suite, p.EncryptionKey, p.IntegrityKey, p.ESN)
	if err != nil {
		return nil, err
	}
	var inners [][]byte
	longest, total := 0, 0
	for _, size := range e.sizes() {
		inners = append(inners, innerPacket(engineRemote, engineLocal, size))
		longest, total = max(longest, size), total+p.Suite.SealedLen(size)
	}
	memory := make([]byte, (packets/len(inners)+1)*total)
	scratch := esp.NewScratch()
	src := make([]byte, longest, longest+packet.Tailroom)
	all := make([][]byte, packets)
	for i := range all {
		inner := inners[i%len(inners)]
		length := p.Suite.SealedLen(len(inner))
		copy(src, inner)
		job := []esp.Packet{{Seq: uint64(i + 1), NextHeader: packet.ProtoIPv4, Payload: src[:len(inner)], Wire: memory[:length:length]}}
		transform.Seal(scratch, p.SPI, job)
		if job[0].Err != nil {
			return nil, job[0].Err
		}
		all[i], memory = job[0].Wire, memory[length:]
	}
	return all, nil
}

// innerPacket is a UDP packet of size bytes.
func innerPacket(src, dst netip.Addr, size int) []byte {
	b := make([]byte, size)
	b[0], b[8], b[9] = 0x45, 63, packet.ProtoUDP
	b[2], b[3] = byte(size>>8), byte(size)
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	sum := ^packet.Checksum(b[:20], 0)
	b[10], b[11] = byte(sum>>8), byte(sum)
	b[21], b[23] = 7, 9 // ports
	b[24], b[25] = byte((size-20)>>8), byte(size-20)
	return b
}

// feed hands out packets, over and over, until left is used up; then it blocks
// until it is closed.
type feed struct {
	packets [][]byte
	next    int
	left    int
	start   chan struct{}
	closed  chan struct{}
	once    sync.Once
}

// take copies up to n packets by calling put, and returns how many; 0 means
// closed.
func (f *feed) take(n int, put func(i int, p []byte)) int {
	select {
	case <-f.start:
	case <-f.closed:
		return 0
	}
	n = min(n, f.left)
	if n == 0 {
		<-f.closed
		return 0
	}
	for i := range n {
		put(i, f.packets[f.next])
		if f.next++; f.next == len(f.packets) {
			f.next = 0
		}
	}
	f.left -= n
	return n
}

// sink counts what comes out.
type sink struct {
	want int64
	got  atomic.Int64
	done chan struct{}
}

func (s *sink) add(n int) {
	if s.got.Add(int64(n)) == s.want {
		close(s.done)
	}
}

const engineBatch = 128

// memoryTUN is a tun.Device over a feed and a sink.
type memoryTUN struct {
	*feed
	sink   *sink
	events chan wgtun.Event
	bufs   [][]byte
	sizes  []int
	offset int
}

func (t *memoryTUN) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	t.bufs, t.sizes, t.offset = bufs, sizes, offset
	if n := t.take(min(len(bufs), engineBatch), t.put); n > 0 {
		return n, nil
	}
	return 0, os.ErrClosed
}

func (t *memoryTUN) put(i int, p []byte) { t.sizes[i] = copy(t.bufs[i][t.offset:], p) }

func (t *memoryTUN) Write(bufs [][]byte, _ int) (int, error) {
	t.sink.add(len(bufs))
	return len(bufs), nil
}

func (t *memoryTUN) File() *os.File             { return nil }
func (t *memoryTUN) MTU() (int, error)          { return 1500, nil }
func (t *memoryTUN) Name() (string, error)      { return "bench", nil }
func (t *memoryTUN) Events() <-chan wgtun.Event { return t.events }
func (t *memoryTUN) BatchSize() int             { return engineBatch }
func (t *memoryTUN) Close() error {
	t.once.Do(func() { close(t.events); closeOnce(t.closed) })
	return nil
}

// memoryWire is a dataplane.Wire over a feed and a sink.
type memoryWire struct {
	*feed
	sink  *sink
	grams []packet.Datagram
}

func (w *memoryWire) ReadBatch(grams []packet.Datagram) (int, error) {
	w.grams = grams
	if n := w.take(min(len(grams), engineBatch), w.put); n > 0 {
		return n, nil
	}
	return 0, net.ErrClosed
}

func (w *memoryWire) put(i int, p []byte) {
	d := &w.grams[i]
	d.Off, d.Addr, d.TOS = packet.Headroom, enginePeer, 0
	d.Len = copy(d.Mem[packet.Headroom:], p)
}

func (w *memoryWire) WriteBatch(grams []packet.Datagram) (int, error) {
	w.sink.add(len(grams))
	return len(grams), nil
}

func (w *memoryWire) Close() error {
	closeOnce(w.closed)
	return nil
}

var closing sync.Mutex

// closeOnce closes c unless that was done: TUN and wire of a run share it.
func closeOnce(c chan struct{}) {
	closing.Lock()
	defer closing.Unlock()
	select {
	case <-c:
	default:
		close(c)
	}
}
