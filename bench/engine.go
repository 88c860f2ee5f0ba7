package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"

	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
	"github.com/adit-ipsec/adit/spd"
)

// Engine is a load for one gateway without system calls: its TUN and its wire
// are memory that is always ready, so that what is measured is a walk and one
// copy of each packet into the gateway's buffers, as a read makes it.
type Engine struct {
	Suite     string
	Size      int   // inner packet, bytes, at least 28
	Mix       []int // sizes that take turns, in place of Size
	Policies  int   // the packets' own are the last, one for each SA pair; at least that many
	SAs       int   // pairs, each of a peer with a policy of its own, at most 2^20; 0 is 1
	Run       int   // packets of one SA that follow each other, before the next SA's turn; 0 is 1
	Flows     int   // different flows of each SA, at most 65536; 0 is 1
	Direction packet.Direction
}

// Addresses of the load's packets: each SA pair has a remote host of its own,
// counted from engineRemote.
var (
	engineLocal  = netip.MustParseAddr("10.1.0.10")
	engineRemote = netip.MustParseAddr("10.64.0.1")
	enginePeer   = netip.MustParseAddrPort("192.0.2.2:4500")
)

const engineSPI = 0x1001 // of the first SA; the others count on

// normal is the load with its zero values filled in.
func (e Engine) normal() Engine {
	e.SAs, e.Run, e.Flows = max(e.SAs, 1), max(e.Run, 1), max(e.Flows, 1)
	e.Policies = max(e.Policies, e.SAs)
	if len(e.Mix) == 0 {
		e.Mix = []int{e.Size}
	}
	return e
}

// at says of the k-th packet whose it is, which of its flows, and its size.
func (e *Engine) at(k int) (sa, flow, size int) {
	turn := k / e.Run
	return turn % e.SAs, turn / e.SAs % e.Flows, e.Mix[k%len(e.Mix)]
}

// period is after how many packets they begin again.
func (e *Engine) period() int {
	n := e.Run * e.SAs * e.Flows
	for p := n; ; p += n {
		if p%len(e.Mix) == 0 {
			return p
		}
	}
}

func remoteOf(sa int) netip.Addr {
	a := engineRemote.As4()
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])+uint32(sa))
	return netip.AddrFrom4(a)
}

func peerOf(sa int) string { return fmt.Sprintf("peer%d", sa) }

// params are the parameters of one SA of a pair. Its key is made of its number:
// no two SAs may have the same.
func (e *Engine) params(suite esp.Suite, sa int, d packet.Direction) sad.Params {
	enc, integ := suite.KeyLen()
	key := func(n int) sad.Key {
		k := make(sad.Key, n)
		for i := range k {
			k[i] = byte(7 + d)
		}
		if n >= 4 {
			binary.BigEndian.PutUint32(k, uint32(sa))
		}
		return k
	}
	return sad.Params{
		Direction: d, SPI: engineSPI + uint32(sa), Peer: peerOf(sa), Suite: suite,
		EncryptionKey: key(enc), IntegrityKey: key(integ),
		ESN: true, ReplayWindow: 4096, FreshKeys: true, Remote: enginePeer,
	}
}

// pairs are the parameters of all SAs.
func (e *Engine) pairs(suite esp.Suite) []sad.Params {
	all := make([]sad.Params, 0, 2*e.SAs)
	for i := range e.SAs {
		all = append(all, e.params(suite, i, packet.Outbound), e.params(suite, i, packet.Inbound))
	}
	return all
}

// table is the policies: in front those of networks that no packet goes to,
// then one for each SA pair.
func (e *Engine) table() (*spd.Table, error) {
	local := netip.MustParsePrefix("10.1.0.0/24")
	policies := make([]spd.Policy, 0, e.Policies)
	add := func(name, peer string, local, remote netip.Prefix) {
		policies = append(policies, spd.Policy{Name: name, Action: spd.Protect, Peer: peer, Selector: spd.Selector{
			Local: []spd.AddrRange{rangeOf(local)}, Remote: []spd.AddrRange{rangeOf(remote)}, Protocol: spd.ProtocolAny}})
	}
	for i := range e.Policies - e.SAs {
		other := netip.AddrFrom4([4]byte{172, byte(16 + i>>16), byte(i >> 8), byte(i)})
		add(fmt.Sprintf("other%d", i), "other", netip.PrefixFrom(other, 32), netip.MustParsePrefix("10.2.0.0/24"))
	}
	for i := range e.SAs {
		add(peerOf(i), peerOf(i), local, netip.PrefixFrom(remoteOf(i), 32))
	}
	return spd.NewTable(policies)
}

// rangeOf is the addresses of an IPv4 prefix.
func rangeOf(p netip.Prefix) spd.AddrRange {
	last := p.Masked().Addr().As4()
	binary.BigEndian.PutUint32(last[:], binary.BigEndian.Uint32(last[:])|uint32(1<<(32-p.Bits())-1))
	return spd.AddrRange{From: p.Masked().Addr(), To: netip.AddrFrom4(last)}
}

// inner is a UDP packet of an SA's flow, as it is in clear.
func (e *Engine) inner(sa, flow, size int) []byte {
	src, dst := engineLocal, remoteOf(sa)
	if e.Direction == packet.Inbound {
		src, dst = dst, src
	}
	b := innerPacket(src, dst, size)
	binary.BigEndian.PutUint16(b[20:], uint16(flow))
	return b
}

// innerPacket is a UDP packet of size bytes.
func innerPacket(src, dst netip.Addr, size int) []byte {
	b := make([]byte, size)
	b[0], b[8], b[9] = 0x45, 63, packet.ProtoUDP
	binary.BigEndian.PutUint16(b[2:], uint16(size))
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(b[10:], ^packet.Checksum(b[:20], 0))
	binary.BigEndian.PutUint16(b[20:], 7) // ports
	binary.BigEndian.PutUint16(b[22:], 9)
	binary.BigEndian.PutUint16(b[24:], uint16(size-20))
	return b
}

// source makes the packets of one turn after the other.
type source struct {
	e      Engine
	inners [][]byte // one period

	// Inbound, packets are sealed anew for every turn, for a number counts
	// once. The memory is used again: a turn has ended before the next.
	transforms []*esp.Transform
	numbers    []uint64
	memory     []byte
	sealed     [][]byte
	next       int // packet of the load
	scratch    *esp.Scratch
	text       []byte
}

func (e Engine) source(suite esp.Suite) (*source, error) {
	s := &source{e: e, inners: make([][]byte, e.period())}
	made := make([][]byte, e.SAs*e.Flows*len(e.Mix))
	for k := range s.inners {
		sa, flow, size := e.at(k)
		of := &made[(sa*e.Flows+flow)*len(e.Mix)+k%len(e.Mix)]
		if *of == nil {
			*of = e.inner(sa, flow, size)
		}
		s.inners[k] = *of
	}
	if e.Direction == packet.Outbound {
		return s, nil
	}
	s.numbers, s.scratch = make([]uint64, e.SAs), esp.NewScratch()
	for i := range e.SAs {
		p := e.params(suite, i, packet.Inbound)
		t, err := esp.New(p.Suite, p.EncryptionKey, p.IntegrityKey, p.ESN)
		if err != nil {
			return nil, err
		}
		s.transforms = append(s.transforms, t)
	}
	return s, nil
}

// turn is the next count packets.
func (s *source) turn(suite esp.Suite, count int) (*turn, error) {
	t := &turn{packets: s.inners, first: s.next % len(s.inners), count: count, done: make(chan struct{})}
	s.next += count
	if s.e.Direction == packet.Outbound {
		return t, nil
	}
	first := s.next - count
	need, longest := 0, 0
	for i := range count {
		n := len(s.inners[(first+i)%len(s.inners)])
		need, longest = need+suite.SealedLen(n), max(longest, n)
	}
	if len(s.memory) < need {
		s.memory = make([]byte, need)
	}
	if cap(s.text) < longest+packet.Tailroom {
		s.text = make([]byte, longest+packet.Tailroom)
	}
	memory, job := s.memory, make([]esp.Packet, 1)
	s.sealed = s.sealed[:0]
	for i := range count {
		sa, _, _ := s.e.at(first + i)
		n := copy(s.text, s.inners[(first+i)%len(s.inners)])
		length := suite.SealedLen(n)
		s.numbers[sa]++
		job[0] = esp.Packet{Seq: s.numbers[sa], NextHeader: packet.ProtoIPv4, Payload: s.text[:n], Wire: memory[:length:length]}
		s.transforms[sa].Seal(s.scratch, engineSPI+uint32(sa), job)
		if job[0].Err != nil {
			return nil, job[0].Err
		}
		s.sealed, memory = append(s.sealed, job[0].Wire), memory[length:]
	}
	t.packets, t.first = s.sealed, 0
	return t, nil
}

// engineRun is an Engine made ready: a gateway with its SAs and policies, and
// the same feed and sink without a gateway.
type engineRun struct {
	suite   esp.Suite
	source  *source
	gateway *dataplane.Gateway
	walk    *memory // the gateway's TUN and wire
	harness *memory // that a loop which only copies reads and writes
	relayed chan struct{}
}

func (e Engine) prepare(clock *threadClock) (run *engineRun, err error) {
	e = e.normal()
	run = &engineRun{}
	if run.suite, err = esp.ParseSuite(e.Suite); err != nil {
		return nil, err
	}
	if run.source, err = e.source(run.suite); err != nil {
		return nil, err
	}
	table, err := e.table()
	if err != nil {
		return nil, err
	}
	run.walk, run.harness = newMemory(e.Direction, clock), newMemory(e.Direction, clock)
	run.gateway, err = dataplane.New(dataplane.Config{TUN: run.walk.tun, Wire: run.walk.wire, NoProbe: true}) // what comes is counted
	if err != nil {
		return nil, err
	}
	run.relayed = make(chan struct{})
	go func() {
		defer close(run.relayed)
		run.harness.relay(e.Direction)
	}()
	run.gateway.ApplyPolicy(table)
	if err = run.gateway.Install(e.pairs(run.suite)...); err != nil {
		return nil, errors.Join(err, run.close())
	}
	runtime.GC() // of what was made here: not during a walk
	return run, nil
}

func (r *engineRun) close() error {
	r.harness.close()
	<-r.relayed
	return r.gateway.Close()
}

// carry is one turn through the gateway, and the same packets through the
// harness alone.
func (r *engineRun) carry(count int) (walk, harness engineMeasure, err error) {
	t, err := r.source.turn(r.suite, count)
	if err != nil {
		return walk, harness, err
	}
	again := *t
	again.done = make(chan struct{})
	if walk, err = r.walk.carry(t); err != nil {
		return walk, harness, fmt.Errorf("%w; the gateway dropped %v", err, r.gateway.Stats().Drops)
	}
	harness, err = r.harness.carry(&again)
	return walk, harness, err
}
