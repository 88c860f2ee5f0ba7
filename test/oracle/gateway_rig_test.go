package oracle

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/adit-ipsec/adit/dataplane"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/tun"
	"github.com/adit-ipsec/adit/spd"
)

// A whole gateway in memory, whose outside is whole IP packets: what the sockets
// and the kernel do between the gateway and the wire is done here, by what
// package rawip and natt say of them.

// patience bounds what must not take long; a test that reaches it has failed.
const patience = 20 * time.Second

// The kinds of wire of a gateway.
const (
	wireUDP = iota
	wireRaw4
	wireRaw6
	wireAH4
	wireAH6
	wireKinds
)

// memoryWire is a wire of which the test holds the other end.
type memoryWire struct {
	in     chan packet.Datagram
	out    chan<- outgoing
	kind   int
	closed chan struct{}
	once   sync.Once
}

// outgoing is a datagram on its way from the gateway to the kernel.
type outgoing struct {
	packet.Datagram
	kind int
}

// wholeSender is what AH and transport mode leave by: kind is no wire's.
type wholeSender struct{ out chan<- outgoing }

const wholeKind = wireKinds

func send(out chan<- outgoing, kind int, grams []packet.Datagram) (int, error) {
	for _, d := range grams {
		d.Mem, d.Off = bytes.Clone(d.Bytes()), 0
		out <- outgoing{d, kind}
	}
	return len(grams), nil
}

func (s wholeSender) WriteBatch(grams []packet.Datagram) (int, error) {
	return send(s.out, wholeKind, grams)
}

func (w *memoryWire) WriteBatch(grams []packet.Datagram) (int, error) {
	return send(w.out, w.kind, grams)
}

func (w *memoryWire) ReadBatch(grams []packet.Datagram) (int, error) {
	select {
	case d := <-w.in:
		slot := &grams[0]
		n := copy(slot.Mem[packet.Headroom:], d.Mem)
		d.Mem, d.Off, d.Len = slot.Mem, packet.Headroom+d.Off, n-d.Off
		*slot = d
		return 1, nil
	case <-w.closed:
		return 0, net.ErrClosed
	}
}

func (w *memoryWire) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}

// gate is a gateway with all wires; the oracle is its peer.
type gate struct {
	t             *testing.T
	gw            *dataplane.Gateway
	host          *tun.Host
	wires         [wireKinds]*memoryWire
	out           chan outgoing
	local, remote netip.Addr
}

// newGate makes a gateway with the SAs of a cell.
func newGate(t *testing.T, c *cell) *gate {
	t.Helper()
	dev, host := tun.NewMemory("mem", 1500)
	g := &gate{t: t, host: host, out: make(chan outgoing, 16), local: outerAddrs[c.family()][0], remote: outerAddrs[c.family()][1]}
	for kind := range g.wires {
		g.wires[kind] = &memoryWire{in: make(chan packet.Datagram), out: g.out, kind: kind, closed: make(chan struct{})}
	}
	var err error
	g.gw, err = dataplane.New(dataplane.Config{TUN: dev, Wire: g.wires[wireUDP], Raw4: g.wires[wireRaw4], Raw6: g.wires[wireRaw6],
		AH4: g.wires[wireAH4], AH6: g.wires[wireAH6], Whole: wholeSender{g.out},
		NoProbe: true}) // nothing leaves but what the test sends
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.close)
	selector := spd.Selector{Protocol: spd.ProtocolAny}
	for i, to := range []*[]spd.AddrRange{&selector.Local, &selector.Remote} {
		for _, text := range c.selectors()[i] {
			r, err := spd.ParseAddrRange(text)
			if err != nil {
				t.Fatal(err)
			}
			*to = append(*to, r)
		}
	}
	table, err := spd.NewTable([]spd.Policy{{Name: "p", Action: spd.Protect, Peer: "oracle", Selector: selector}})
	if err != nil {
		t.Fatal(err)
	}
	g.gw.ApplyPolicy(table)
	if err := g.gw.Install(c.params()...); err != nil {
		t.Fatalf("%s: %v", c, err)
	}
	return g
}

func (g *gate) close() { _ = g.gw.Close() }

// outbound is the packet on the wire that the gateway makes of one from its TUN.
func (g *gate) outbound(p []byte) []byte {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := g.host.Send(ctx, p); err != nil {
		g.t.Fatal(err)
	}
	select {
	case d := <-g.out:
		return g.kernel(d)
	case <-ctx.Done():
		g.t.Fatalf("nothing came for %x; drops %v", p, g.drops())
		return nil
	}
}

// drops are the drop counters that moved.
func (g *gate) drops() (list []dataplane.Counter) {
	for _, c := range g.gw.Stats().Drops {
		if c.Value > 0 {
			list = append(list, c)
		}
	}
	return list
}

// kernel does to a datagram what the sender's socket does: of what is sent whole
// it fills in the IPv4 checksum, in front of all other it makes the headers. It
// would make an IPv4 length right as well, behind AH's back: so that must be.
func (g *gate) kernel(d outgoing) []byte {
	b := d.Mem
	switch d.kind {
	case wholeKind:
		h := bytes.Clone(header(b))
		packet.SetLength(h, len(b))
		if !bytes.Equal(h, header(b)) {
			g.t.Errorf("a packet of %d bytes whose header has another length: %x", len(b), b)
		}
		packet.SetChecksum(header(b))
		return b
	case wireUDP:
		if d.Addr.Port() != 4500 {
			g.t.Errorf("UDP port: expected 4500, saw %d", d.Addr.Port())
		}
		return kernelHeader(&d.Datagram, packet.ProtoUDP, inUDPHeader(d.Local, d.Addr.Addr(), b))
	}
	return kernelHeader(&d.Datagram, packet.ProtoESP, b)
}

// kernelHeader is the packet that the kernel makes of what a socket sends.
func kernelHeader(d *packet.Datagram, protocol uint8, payload []byte) []byte {
	src, dst := d.Local.AsSlice(), d.Addr.Addr().AsSlice()
	var h []byte
	if d.Local.Is4() {
		h = make([]byte, 20)
		h[0], h[1], h[8], h[9] = 0x45, d.TOS, 64, protocol
		if d.DF {
			h[6] = 0x40
		}
		copy(h[12:], src)
		copy(h[16:], dst)
	} else {
		h = make([]byte, 40)
		h[0], h[1], h[6], h[7] = 0x60|d.TOS>>4, d.TOS<<4, protocol, 64
		copy(h[8:], src)
		copy(h[24:], dst)
	}
	packet.SetLength(h, len(h)+len(payload))
	packet.SetChecksum(h)
	return append(h, payload...)
}

// inUDPHeader is payload from port 4500 to port 4500, its sum as RFC 3948 2.1
// wants it over IPv4, "transmitted as a zero value", and counted over IPv6.
func inUDPHeader(src, dst netip.Addr, payload []byte) []byte {
	b := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(b, 4500)
	binary.BigEndian.PutUint16(b[2:], 4500)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(payload)))
	b = append(b, payload...)
	if src.Is6() {
		putChecksum(b[6:8], b, src, dst, packet.ProtoUDP)
	}
	return b
}

// putChecksum sets the checksum at field of an upper layer's packet b.
func putChecksum(field, b []byte, src, dst netip.Addr, protocol uint8) {
	f := packet.Flow{Src: src.As16(), Dst: dst.As16(), Version: 6}
	if src.Is4() {
		f.Version = 4
	}
	sum := ^packet.Checksum(b, packet.PseudoChecksum(&f, protocol, len(b)))
	if sum == 0 && protocol == packet.ProtoUDP {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(field, sum)
}

// header is the IP header of a packet, up to AH, ESP or what the packet carries.
func header(b []byte) []byte {
	if b[0]>>4 == 4 {
		return b[:int(b[0]&15)*4]
	}
	next, at := b[6], 40
	for next == packet.ProtoHopByHop || next == packet.ProtoRouting || next == packet.ProtoDestination {
		next, at = b[at], at+8+8*int(b[at+1])
	}
	return b[:at]
}

// protocol is the type of what stands behind header(b).
func protocol(b []byte) uint8 { return nextAt(b, len(header(b))) }

// inject hands a packet from the wire to the socket that the kernel would choose,
// with what that socket tells of it.
func (g *gate) inject(b []byte) error {
	d := packet.Datagram{Addr: netip.AddrPortFrom(g.remote, 0), Local: g.local}
	v6 := b[0]>>4 == 6
	h := header(b)
	d.TOS, d.TTL = trafficClass(b), b[8]
	if v6 {
		d.TTL = b[7]
	}
	kind := -1
	switch protocol(b) {
	case packet.ProtoAH:
		kind, d.Mem = wireAH4, b
		if v6 {
			kind = wireAH6
		}
	case packet.ProtoESP:
		kind, d.Mem, d.Off = wireRaw4, b, len(h)
		if v6 {
			kind, d.Mem, d.Off = wireRaw6, b[len(h):], 0
		}
	case packet.ProtoUDP:
		// natt does not tell the TTL.
		kind, d.Mem, d.TTL, d.Addr = wireUDP, b[len(h)+8:], 0, netip.AddrPortFrom(g.remote, 4500)
	}
	if kind < 0 {
		return fmt.Errorf("no socket is for protocol %d", protocol(b))
	}
	select {
	case g.wires[kind].in <- d:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("the gateway does not read wire %d", kind)
	}
}

// inbound is the packet that the gateway makes of one from the wire.
func (g *gate) inbound(b []byte) ([]byte, error) {
	if err := g.inject(b); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	got, err := g.host.Receive(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: drops %v", err, g.drops())
	}
	return got, nil
}

// travel does to a packet what routers do to its mutable fields (RFC 4302
// 3.3.3.1): another DSCP, one hop less, another flow label, and a router's address
// in a record route option that has room.
func travel(b []byte) {
	if b[0]>>4 == 6 {
		tc := trafficClass(b)&3 | 0x58
		binary.BigEndian.PutUint32(b, 6<<28|uint32(tc)<<20|0x54321)
		b[7]--
		return
	}
	b[1] = b[1]&3 | 0x58
	b[8]--
	h := header(b)
	for at := 20; at < len(h) && h[at] != 0; {
		if h[at] == 1 {
			at++
			continue
		}
		if length, pointer := int(h[at+1]), int(h[at+2]); h[at] == 7 && pointer+3 <= length {
			copy(h[at+pointer-1:], []byte{203, 0, 113, 1})
			h[at+2] += 4
		}
		at += int(h[at+1])
	}
	packet.SetChecksum(h)
}
