package oracle

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// wholeRequest is one line for a peer gateway (scapy_gateway_peer.py).
type wholeRequest struct {
	Op     string      `json:"op"`
	Mode   string      `json:"mode"`
	Outer  int         `json:"outer"`
	UDP    bool        `json:"udp"`
	SAs    []saRequest `json:"sas"`
	Packet string      `json:"packet"`
}

type saRequest struct {
	Protocol string  `json:"protocol"`
	Suite    string  `json:"suite"`
	Crypt    string  `json:"crypt"`
	Key      string  `json:"key"`
	ICV      *int    `json:"icv"`
	Auth     string  `json:"auth"`
	AuthKey  string  `json:"auth_key"`
	SPI      uint32  `json:"spi"`
	Seq      uint32  `json:"seq"`
	ESN      *uint32 `json:"esn"`
}

// request asks a peer about a packet of the cell, in one direction, with those
// numbers of ESP and AH.
func (c *cell) request(op string, d sad.Direction, numbers [2]uint64, packet []byte) wholeRequest {
	r := wholeRequest{Op: op, Mode: c.mode.String(), Outer: c.family(), UDP: c.udp(), Packet: hex.EncodeToString(packet)}
	i := 0
	if d == sad.Inbound {
		i = 1
	}
	keys, sa := c.keys[i], saRequest{SPI: c.spi + uint32(i)}
	set := func(number uint64) {
		sa.Seq = uint32(number)
		if c.esn {
			high := uint32(number >> 32)
			sa.ESN = &high
		}
		r.SAs = append(r.SAs, sa)
	}
	if c.esp != "" {
		sa.Protocol, sa.Suite, sa.Key, sa.AuthKey = "esp", c.esp, hex.EncodeToString(keys[0]), hex.EncodeToString(keys[1])
		sa.Crypt, sa.Auth, sa.ICV, _ = scapyNames(c.esp)
		set(numbers[0])
	}
	if c.ah != "" {
		sa.Protocol, sa.Suite, sa.AuthKey = "ah", c.ah, hex.EncodeToString(keys[2])
		sa.Auth = ahNames[c.ah]
		set(numbers[1])
	}
	return r
}

// asTold is what the other end of a cell is to find of packet p, which came there
// as over: p as it was, or in transport mode with the header that came.
func (c *cell) asTold(p, over []byte, inbound bool) []byte {
	if c.mode == sad.TunnelMode {
		return p
	}
	if c.bare() && (c.udp() || inbound && c.v6) {
		return c.remade(p, over, inbound)
	}
	want := bytes.Clone(p)
	if want[0]>>4 == 4 && want[4]|want[5] == 0 { // an identification that means nothing
		copy(want[4:6], over[4:6])
	}
	travel(want)
	return want
}

// remade is asTold where a socket stands between header and gateway: outbound it
// is told DSCP, ECN and DF, and inbound it tells no more than DSCP and ECN, and
// raw IPv6 sockets the hop limit. Extension headers it keeps.
func (c *cell) remade(p, over []byte, inbound bool) []byte {
	ends := outerAddrs[c.family()]
	if !inbound {
		d := packet.Datagram{Local: ends[0], Addr: netip.AddrPortFrom(ends[1], 0), TOS: trafficClass(p), DF: p[6]&0x40 != 0}
		want := kernelHeader(&d, protocol(p), p[len(header(p)):])
		travel(want)
		return want
	}
	front := len(header(over))
	d := packet.Datagram{Local: ends[1], Addr: netip.AddrPortFrom(ends[0], 0), TOS: trafficClass(over), DF: true}
	want := kernelHeader(&d, nextAt(p, front), p[front:])
	if !c.udp() {
		want[7] = over[7]
	}
	return want
}

func trafficClass(b []byte) uint8 {
	if b[0]>>4 == 6 {
		return b[0]<<4 | b[1]>>4
	}
	return b[1]
}

// nextAt is the type of what stands in packet p at offset at.
func nextAt(p []byte, at int) uint8 {
	if p[0]>>4 == 4 {
		return p[9]
	}
	next := p[6]
	for o := 40; o < at; o += 8 + 8*int(p[o+1]) {
		next = p[o]
	}
	return next
}

// compare takes the cell's packets both ways between a gateway and the peer, with
// a way between them on which mutable fields change. Of what was changed in other
// places neither takes anything.
func (p *peer) compare(c *cell) {
	g := newGate(p.t, c)
	defer g.close()
	for n, s := range c.samples(true) {
		wire := g.outbound(s.b)
		travel(wire)
		got, err := p.askWhole(c.request("open", sad.Outbound, c.outNumbers(n), wire))
		if want := c.asTold(s.b, wire, false); err != nil || !bytes.Equal(got, want) {
			p.t.Errorf("%s: %s: it opens ours: expected\n%x, saw\n%x, %v; wire\n%x", c, s.name, want, got, err, wire)
			return
		}
		if n%6 == 0 {
			wire[len(wire)-1] ^= 1
			if _, err := p.askWhole(c.request("open", sad.Outbound, c.outNumbers(n), wire)); err == nil {
				p.t.Errorf("%s: %s: it opens ours with a byte changed", c, s.name)
			}
		}
	}
	forged := 0
	for n, s := range c.samples(false) {
		wire, err := p.askWhole(c.request("protect", sad.Inbound, c.inNumbers(n), s.b))
		if err != nil {
			p.t.Errorf("%s: %s: it protects: %v", c, s.name, err)
			return
		}
		travel(wire)
		bad := bytes.Clone(wire)
		bad[len(bad)-1] ^= 1
		if err := g.inject(bad); err != nil {
			p.t.Fatal(err)
		}
		forged++
		got, err := g.inbound(wire)
		if want := c.asTold(s.b, wire, true); err != nil || !bytes.Equal(got, want) {
			p.t.Errorf("%s: %s: we open its: expected\n%x, saw\n%x, %v; wire\n%x", c, s.name, want, got, err, wire)
			return
		}
	}
	if drops := fmt.Sprint(g.drops()); drops != fmt.Sprintf("[{InAuth %d}]", forged) {
		p.t.Errorf("%s: with %d packets changed, drops %s", c, forged, drops)
	}
}

// AH, ESP and bundles, tunnel and transport mode, over both families, raw and over
// UDP, with IPv4 options and IPv6 extension headers: what scapy makes our gateway
// delivers as it was, and what our gateway puts on the wire scapy opens to what it
// was. Left out is GMAC for AH, which scapy does not know.
func TestScapyAgreesWithTheGateway(t *testing.T) {
	p, tried := newPeer(t, "scapy_gateway_peer.py"), 0
	for _, c := range cells(false) {
		if _, known := ahNames[c.ah]; c.ah == "" || known {
			p.compare(c)
			tried++
		}
		if t.Failed() {
			return
		}
	}
	counted(t, tried, 2*2*(3*5+4)-2*2)
}

// The same with the peer made of the RFCs and Python's cryptography: all suites,
// with ESN, whose high half changes on the way, and without.
func TestPlainPeerAgreesWithTheGateway(t *testing.T) {
	p, tried := newPeer(t, "plain_gateway_peer.py"), 0
	for _, esn := range []bool{false, true} {
		for _, c := range cells(esn) {
			p.compare(c)
			tried++
			if t.Failed() {
				return
			}
		}
	}
	counted(t, tried, 2*2*2*(3*5+7))
}

func counted(t *testing.T, tried, want int) {
	t.Helper()
	t.Logf("%d cells of %d packets each way", tried, perCell)
	if tried != want {
		t.Errorf("cells tried: expected %d, saw %d", want, tried)
	}
}
