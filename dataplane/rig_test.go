package dataplane

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/tun"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// rig is a gateway whose workers do not run by themselves: a test hands a batch
// to a walk and sees, at once and exactly, what came out and what was counted.
type rig struct {
	t     testing.TB
	gw    *Gateway
	now   time.Duration
	tun   *captureQueue
	wires [wireKinds]*captureWire
	clear *captureWire
	in    [wireKinds]*inboundWorker

	peer *esp.Transform // what the peer seals with: our inbound SA's keys
	dec  *esp.Transform // what the peer opens with: our outbound SA's keys
	opts options

	audited []Event // taken out of the way by events
}

// options of a rig; the zero value is aes128gcm16 with ESN, window 64, over UDP.
type options struct {
	suite    string
	noESN    bool
	window   int
	encap    sad.Encapsulation
	tunnel   sad.Tunnel
	fragment sad.FragmentMode
	policies []spd.Policy
	store    sad.SequenceStore
	local    netip.AddrPort
	remote   netip.AddrPort
	edge     uint64 // move the inbound window here first
	noSA     bool
	tfc      sad.TFC
}

const noWindow = -1

const (
	inSPI  = 0x1001
	outSPI = 0x2001
)

var (
	gwB4  = netip.MustParseAddrPort("198.51.100.2:4500")
	gwB6  = netip.MustParseAddrPort("[2001:db8:2::2]:4500")
	lanA  = mustRanges("10.1.0.0/24", "2001:db8:a::/64")
	lanB  = mustRanges("10.2.0.0/24", "2001:db8:b::/64")
	hostA = netip.MustParseAddr("10.1.0.10")
	hostB = netip.MustParseAddr("10.2.0.20")
	host6 = netip.MustParseAddr("2001:db8:a::10")
	hostS = netip.MustParseAddr("2001:db8:b::20")
)

func mustRanges(texts ...string) (ranges []spd.AddrRange) {
	for _, text := range texts {
		r, err := spd.ParseAddrRange(text)
		if err != nil {
			panic(err)
		}
		ranges = append(ranges, r)
	}
	return ranges
}

func protectAll() []spd.Policy {
	return []spd.Policy{{Name: "lan", Selector: spd.Selector{Local: lanA, Remote: lanB, Protocol: spd.ProtocolAny}, Action: spd.Protect, Peer: "b"}}
}

// key makes n bytes that differ by name and are the same in every run.
func key(name string, n int) sad.Key {
	var k []byte
	for i := 0; len(k) < n; i++ {
		h := sha256.Sum256(fmt.Appendf(nil, "%s %d", name, i))
		k = append(k, h[:]...)
	}
	return k[:n]
}

func newRig(t testing.TB, o options) *rig {
	t.Helper()
	if o.suite == "" {
		o.suite = "aes128gcm16"
	}
	switch o.window {
	case 0:
		o.window = 64
	case noWindow:
		o.window = 0
	}
	if o.policies == nil {
		o.policies = protectAll()
	}
	if !o.remote.IsValid() {
		o.remote = gwB4
	}
	r := &rig{t: t, opts: o, tun: &captureQueue{}, clear: &captureWire{}}
	for i := range r.wires {
		r.wires[i] = &captureWire{}
	}
	dev, _ := tun.NewMemory("test0", 1500)
	gw, err := build(Config{
		TUN: dev, Wire: r.wires[wireUDP], Raw4: r.wires[wireRaw4], Raw6: r.wires[wireRaw6], Whole: r.wires[wireWhole], Clear: r.clear,
		Clock: func() time.Duration { return r.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dev.Close() })
	gw.useQueue(r.tun)
	r.gw = gw
	copy(r.in[:], gw.in)
	table, err := spd.NewTable(o.policies)
	if err != nil {
		t.Fatal(err)
	}
	gw.ApplyPolicy(table)
	r.keys()
	if !o.noSA {
		r.install()
	}
	return r
}

// useQueue puts a test's queue in the place of the device's.
func (g *Gateway) useQueue(q tun.Queue) {
	g.queues, g.out[0].queue = []tun.Queue{q}, q
	for _, w := range g.in {
		w.queue = q
	}
}

func (r *rig) suite() esp.Suite {
	s, err := esp.ParseSuite(r.opts.suite)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *rig) params(d sad.Direction) sad.Params {
	s := r.suite()
	enc, integ := s.KeyLen()
	p := sad.Params{
		Direction: d, Peer: "b", Suite: s, ESN: !r.opts.noESN, ReplayWindow: r.opts.window,
		EncryptionKey: key(d.String()+" enc", enc), IntegrityKey: key(d.String()+" int", integ),
		Encap: r.opts.encap, Local: r.opts.local, Remote: r.opts.remote, Tunnel: r.opts.tunnel, Fragment: r.opts.fragment,
		FreshKeys: r.opts.store == nil,
	}
	if d == sad.Outbound {
		p.SPI, p.Sequence, p.TFC = outSPI, r.opts.store, r.opts.tfc
	} else {
		p.SPI = inSPI
	}
	return p
}

func (r *rig) keys() {
	var err error
	in, out := r.params(sad.Inbound), r.params(sad.Outbound)
	if r.peer, err = esp.New(in.Suite, in.EncryptionKey, in.IntegrityKey, in.ESN); err != nil {
		r.t.Fatal(err)
	}
	if r.dec, err = esp.New(out.Suite, out.EncryptionKey, out.IntegrityKey, out.ESN); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) install() {
	r.t.Helper()
	if err := r.gw.Install(r.params(sad.Outbound), r.params(sad.Inbound)); err != nil {
		r.t.Fatal(err)
	}
	if r.opts.edge > 0 {
		batch := []esp.Packet{{Seq: r.opts.edge}}
		r.inSA().Mark(batch)
		if got := r.edge(); got != r.opts.edge {
			r.t.Fatalf("edge: expected %d, saw %d", r.opts.edge, got)
		}
	}
}

func (r *rig) inSA() *sad.SA  { return r.gw.sas.Load().Inbound(inSPI) }
func (r *rig) outSA() *sad.SA { return r.gw.sas.Load().Outbound("b", "lan") }
func (r *rig) edge() uint64   { return r.inSA().Stats().Seq }

// sent is one datagram that left, copied.
type sent struct {
	packet.Datagram
	wire wireKind // wireKinds: the clear socket
}

// send takes packets from the TUN through outbound batches.
func (r *rig) send(packets ...[]byte) []sent {
	for batch := range slices.Chunk(packets, len(r.gw.out[0].bufs)) {
		for i, p := range batch {
			r.gw.out[0].bufs[i].Set(p)
		}
		r.gw.out[0].walk(len(batch))
	}
	var all []sent
	for i, wire := range append(slices.Clone(r.wires[:]), r.clear) {
		for _, d := range wire.take() {
			all = append(all, sent{d, wireKind(i)})
		}
	}
	return all
}

// receive takes datagrams from a wire through one inbound batch and returns the
// packets that the TUN got.
func (r *rig) receive(kind wireKind, grams ...packet.Datagram) [][]byte {
	w := r.in[kind]
	for i, d := range grams {
		slot := &w.grams[i]
		slot.Off = packet.Headroom
		slot.Len = copy(slot.Mem[packet.Headroom:], d.Bytes())
		slot.Addr, slot.Local, slot.TOS, slot.SegmentSize = d.Addr, d.Local, d.TOS, d.SegmentSize
		if !slot.Addr.IsValid() {
			slot.Addr = r.opts.remote
		}
	}
	w.walk(len(grams))
	return r.tun.take()
}

// arrive is receive of payloads from the peer over UDP.
func (r *rig) arrive(payloads ...[]byte) [][]byte {
	grams := make([]packet.Datagram, len(payloads))
	for i, p := range payloads {
		grams[i] = packet.Datagram{Mem: p, Len: len(p)}
	}
	return r.receive(wireUDP, grams...)
}

// sealed is an ESP packet from the peer.
func (r *rig) sealed(seq uint64, next uint8, payload []byte) []byte {
	r.t.Helper()
	s := r.peer.Suite()
	src := make([]byte, len(payload), len(payload)+s.TrailerLen(len(payload)))
	copy(src, payload)
	batch := []esp.Packet{{Seq: seq, NextHeader: next, Payload: src, Wire: make([]byte, s.SealedLen(len(payload)))}}
	r.peer.Seal(esp.NewScratch(), inSPI, batch)
	if batch[0].Err != nil {
		r.t.Fatal(batch[0].Err)
	}
	return batch[0].Wire
}

// good is a valid ESP packet from the peer with that number.
func (r *rig) good(seq uint64) []byte { return r.sealed(seq, packet.ProtoIPv4, fromB("payload")) }

// opened is what the peer reads in a packet that we sent with that number.
func (r *rig) opened(s sent, seq uint64) (esp.Packet, error) {
	batch := []esp.Packet{{Seq: seq, Wire: bytes.Clone(s.Bytes())}}
	r.dec.Open(esp.NewScratch(), batch)
	return batch[0], batch[0].Err
}

// counts runs f and fails unless exactly these drop counters moved, by exactly
// that much.
func (r *rig) counts(want map[DropReason]uint64, f func()) {
	r.t.Helper()
	before := r.gw.Stats()
	f()
	after := r.gw.Stats()
	for _, reason := range DropReasons() {
		got := after.Counter(reason.String()) - before.Counter(reason.String())
		if got != want[reason] {
			r.t.Errorf("counter %s: expected +%d, saw +%d", reason, want[reason], got)
		}
	}
}

// dropped fails unless f counts exactly one packet, as reason.
func (r *rig) dropped(reason DropReason, f func()) {
	r.t.Helper()
	r.counts(map[DropReason]uint64{reason: 1}, f)
}

// window fails unless f leaves the inbound window's edge where it is.
func (r *rig) windowStays(f func()) {
	r.t.Helper()
	before := r.edge()
	f()
	if after := r.edge(); after != before {
		r.t.Errorf("window's edge: expected %d, saw %d", before, after)
	}
}

// delivers fails unless exactly n packets came.
func (r *rig) delivers(n int, packets [][]byte) {
	r.t.Helper()
	if len(packets) != n {
		r.t.Errorf("packets at the TUN: expected %d, saw %d", n, len(packets))
	}
}

// events are those for key sources; audits are the others.
func (r *rig) events() (list []Event) {
	for {
		select {
		case e := <-r.gw.events:
			if e.Kind == Audit {
				r.audited = append(r.audited, e)
			} else {
				list = append(list, e)
			}
		default:
			return list
		}
	}
}

// captureWire keeps what was sent; fail makes WriteBatch refuse chosen ones.
type captureWire struct {
	grams []packet.Datagram
	fail  func(d *packet.Datagram) error
}

func (w *captureWire) WriteBatch(grams []packet.Datagram) (int, error) {
	for i := range grams {
		if w.fail != nil {
			if err := w.fail(&grams[i]); err != nil {
				return i, err
			}
		}
		d := grams[i]
		d.Mem, d.Off = bytes.Clone(d.Bytes()), 0
		w.grams = append(w.grams, d)
	}
	return len(grams), nil
}

func (w *captureWire) take() []packet.Datagram {
	grams := w.grams
	w.grams = nil
	return grams
}

func (w *captureWire) ReadBatch([]packet.Datagram) (int, error) { return 0, net.ErrClosed }
func (w *captureWire) Close() error                             { return nil }

// discardWire sends nowhere.
type discardWire struct{ captureWire }

func (discardWire) WriteBatch(grams []packet.Datagram) (int, error) { return len(grams), nil }

// captureQueue keeps what was written to the TUN.
type captureQueue struct {
	packets  [][]byte
	fail     error
	discard  bool
	scribble bool // over all that a queue may overwrite
}

func (q *captureQueue) WriteBatch(bufs []*packet.Buffer) (int, error) {
	if q.fail != nil {
		return 0, q.fail
	}
	for _, b := range bufs {
		if !q.discard {
			q.packets = append(q.packets, bytes.Clone(b.Bytes()))
		}
		if q.scribble {
			front := b.Mem[b.Off-tun.WriteHeadroom:]
			for i := range front {
				front[i] = 0xa5
			}
		}
	}
	return len(bufs), nil
}

func (q *captureQueue) take() [][]byte {
	packets := q.packets
	q.packets = nil
	return packets
}

func (q *captureQueue) ReadBatch([]packet.Buffer) (int, error) { return 0, os.ErrClosed }
func (q *captureQueue) BatchSize() int                         { return inboundBatch }
func (q *captureQueue) Close() error                           { return nil }

// serialize builds a packet with right lengths and checksums.
func serialize(list ...gopacket.SerializableLayer) []byte {
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, list...); err != nil {
		panic(err)
	}
	return bytes.Clone(buf.Bytes())
}

// inner describes an inner packet; zero fields have plain defaults.
type inner struct {
	src, dst     netip.Addr
	sport, dport uint16
	tos, ttl     uint8
	df           bool
	payload      string
}

// udp builds it as UDP.
func (p inner) udp() []byte {
	if p.ttl == 0 {
		p.ttl = 63
	}
	if p.sport == 0 {
		p.sport, p.dport = 4000, 5000
	}
	u := &layers.UDP{SrcPort: layers.UDPPort(p.sport), DstPort: layers.UDPPort(p.dport)}
	if p.src.Is4() {
		ip := &layers.IPv4{Version: 4, TTL: p.ttl, TOS: p.tos, Protocol: layers.IPProtocolUDP, Id: 1, SrcIP: p.src.AsSlice(), DstIP: p.dst.AsSlice()}
		if p.df {
			ip.Flags = layers.IPv4DontFragment
		}
		_ = u.SetNetworkLayerForChecksum(ip)
		return serialize(ip, u, gopacket.Payload(p.payload))
	}
	ip := &layers.IPv6{Version: 6, HopLimit: p.ttl, TrafficClass: p.tos, NextHeader: layers.IPProtocolUDP, SrcIP: p.src.AsSlice(), DstIP: p.dst.AsSlice()}
	_ = u.SetNetworkLayerForChecksum(ip)
	return serialize(ip, u, gopacket.Payload(p.payload))
}

// fromA is what host A sends to host B, fromB the other way.
func fromA(payload string) []byte { return inner{src: hostA, dst: hostB, payload: payload}.udp() }
func fromB(payload string) []byte { return inner{src: hostB, dst: hostA, payload: payload}.udp() }
