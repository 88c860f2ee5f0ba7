package oracle

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/adit-ipsec/adit/ah"
	"github.com/adit-ipsec/adit/esp"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// cell is one way to protect packets: of AH and ESP one, or both.
type cell struct {
	mode  sad.Mode
	v6    bool // outside
	encap sad.Encapsulation
	esp   string // "": AH alone
	ah    string // "": ESP alone
	esn   bool

	spi  uint32    // outbound; inbound it is one more
	keys [2][3]key // by direction: encryption, integrity, AH
}

type key []byte

// outerAddrs are the ends of tunnel and transport, the gateway's first, and
// innerAddrs hosts behind them; by family.
var (
	outerAddrs = map[int][2]netip.Addr{
		4: {netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")},
		6: {netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:2::2")},
	}
	innerAddrs = map[int][2]netip.Addr{
		4: {netip.MustParseAddr("10.1.0.10"), netip.MustParseAddr("10.2.0.20")},
		6: {netip.MustParseAddr("2001:db8:a::10"), netip.MustParseAddr("2001:db8:b::20")},
	}
)

func (c *cell) family() int {
	if c.v6 {
		return 6
	}
	return 4
}

func (c *cell) udp() bool { return c.encap == sad.EncapUDP }

// bare: ESP alone, and in transport mode.
func (c *cell) bare() bool { return c.mode == sad.TransportMode && c.ah == "" }

func (c *cell) String() string {
	return fmt.Sprintf("%s %s outside IPv%d ESP %q AH %q ESN %t", c.mode, c.encap, c.family(), c.esp, c.ah, c.esn)
}

// espSuites and ahSuites are those of the cells. The n-th suite of ESP is in a
// bundle with the n-th of AH.
var (
	espSuites = []string{"aes128-sha256", "aes128gcm16", "null-sha256", "aes256-sha512", "chacha20poly1305"}
	ahSuites  = []string{"sha256", "sha384", "sha512", "sha1", "aes128gmac", "aes192gmac", "aes256gmac"}
)

// cells are all of them, each with keys and SPIs of its own.
func cells(esn bool) (all []*cell) {
	for _, mode := range []sad.Mode{sad.TunnelMode, sad.TransportMode} {
		for _, v6 := range []bool{false, true} {
			for i, suite := range espSuites {
				all = append(all,
					&cell{mode: mode, v6: v6, encap: sad.EncapNone, esp: suite},
					&cell{mode: mode, v6: v6, encap: sad.EncapUDP, esp: suite},
					&cell{mode: mode, v6: v6, encap: sad.EncapNone, esp: suite, ah: ahSuites[i]})
			}
			for _, suite := range ahSuites {
				all = append(all, &cell{mode: mode, v6: v6, encap: sad.EncapNone, ah: suite})
			}
		}
	}
	for i, c := range all {
		c.esn, c.spi = esn, uint32(0x10000+0x100*i)
		if esn {
			c.spi += 0x10000
		}
		for d := range c.keys {
			lengths := [3]int{}
			if c.esp != "" {
				lengths[0], lengths[1] = c.espSuite().KeyLen()
			}
			if c.ah != "" {
				lengths[2] = c.ahSuite().KeyLen()
			}
			for k, n := range lengths {
				c.keys[d][k] = make(key, n)
				for b := range n {
					c.keys[d][k][b] = byte(rand.Uint32())
				}
			}
		}
	}
	return all
}

func (c *cell) espSuite() esp.Suite {
	s, err := esp.ParseSuite(c.esp)
	if err != nil {
		panic(err)
	}
	return s
}

func (c *cell) ahSuite() ah.Suite {
	s, err := ah.ParseSuite(c.ah)
	if err != nil {
		panic(err)
	}
	return s
}

// selectors are the policy's, local and remote.
func (c *cell) selectors() [2][]string {
	if c.mode == sad.TransportMode {
		ends := outerAddrs[c.family()]
		return [2][]string{{ends[0].String()}, {ends[1].String()}}
	}
	return [2][]string{{"10.1.0.0/24", "2001:db8:a::/64"}, {"10.2.0.0/24", "2001:db8:b::/64"}}
}

// Where the numbers of outbound SAs with ESN go on: some packets in front of the
// next high half, and for the two halves of a bundle not at the same place.
const (
	espStart = 5<<32 | (1<<32 - 9)
	ahStart  = 7<<32 | (1<<32 - 6)
)

// outNumbers are the numbers, of ESP and of AH, of the n-th packet outbound.
func (c *cell) outNumbers(n int) [2]uint64 {
	if !c.esn {
		return [2]uint64{uint64(n + 1), uint64(n + 1)}
	}
	return [2]uint64{espStart + uint64(n+1), ahStart + uint64(n+1)}
}

// inNumbers are those of the n-th packet inbound. With ESN each is a large step,
// not too large for RFC 4303 A2, behind the one in front of it: they pass the high
// half several times.
func (c *cell) inNumbers(n int) [2]uint64 {
	if !c.esn {
		return [2]uint64{uint64(n + 1), uint64(2*n + 1)}
	}
	return [2]uint64{1 + uint64(n)*0x50000001, 1 + uint64(n)*0x70000003}
}

// params are the cell's SAs in both directions.
func (c *cell) params() (list []sad.Params) {
	ends := outerAddrs[c.family()]
	for i, d := range []sad.Direction{sad.Outbound, sad.Inbound} {
		base := sad.Params{
			Direction: d, Mode: c.mode, SPI: c.spi + uint32(i), Peer: "oracle", Bundle: c.esp != "" && c.ah != "",
			ESN: c.esn, ReplayWindow: 64, Encap: c.encap, FreshKeys: true,
			Local: netip.AddrPortFrom(ends[0], 4500), Remote: netip.AddrPortFrom(ends[1], 4500),
		}
		add := func(p sad.Params, start uint64) {
			if d == sad.Outbound && c.esn {
				p.Sequence, p.FreshKeys = &startAt{start}, false
			}
			list = append(list, p)
		}
		if c.esp != "" {
			p := base
			p.Suite, p.EncryptionKey, p.IntegrityKey = c.espSuite(), sad.Key(c.keys[i][0]), sad.Key(c.keys[i][1])
			add(p, espStart)
		}
		if c.ah != "" {
			p := base
			p.Protocol, p.AHSuite, p.IntegrityKey = sad.AH, c.ahSuite(), sad.Key(c.keys[i][2])
			add(p, ahStart)
		}
	}
	return list
}

// sample is a packet before it is protected.
type sample struct {
	name string
	b    []byte
}

// IPv4 options: all but router alert are mutable (RFC 4302 A1).
var options4 = []struct {
	name string
	b    []byte
}{
	{"no options", nil},
	{"record route", []byte{7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
	{"router alert", []byte{148, 4, 0, 0}},
	{"NOP and a full record route", []byte{1, 7, 7, 8, 192, 0, 2, 9}},
	{"router alert, record route, timestamp, end", []byte{148, 4, 0, 0, 7, 11, 8, 192, 0, 2, 9, 0, 0, 0, 0, 68, 12, 9, 0, 1, 2, 3, 4, 0, 0, 0, 0, 0}},
	{"NOPs and end", []byte{1, 1, 1, 0}},
}

// extension is an IPv6 extension header; its first byte is filled in later.
type extension struct {
	kind uint8
	b    []byte
}

// IPv6 extension headers; options with bit 0x20 are mutable.
var extensions6 = func() (list []struct {
	name  string
	chain []extension
}) {
	hop := extension{packet.ProtoHopByHop, []byte{0, 1, 5, 2, 0, 0, 0x3e, 6, 1, 2, 3, 4, 5, 6, 1, 0}}
	dst := extension{packet.ProtoDestination, []byte{0, 1, 0x1e, 4, 5, 6, 7, 8, 0x3e, 4, 1, 2, 3, 4, 0, 0}}
	route := extension{packet.ProtoRouting, append([]byte{0, 2, 0, 0, 0, 0, 0, 0}, innerAddrs[6][0].AsSlice()...)}
	add := func(name string, chain ...extension) {
		list = append(list, struct {
			name  string
			chain []extension
		}{name, chain})
	}
	add("no extension header")
	add("hop-by-hop", hop)
	add("destination options", dst)
	add("routing", route)
	add("hop-by-hop, routing", hop, route)
	add("hop-by-hop, destination options, routing, destination options", hop, dst, route, dst)
	return list
}()

// upperSizes are payload lengths, with all remainders of 16 that there are in
// ESP padding; they are taken in turn.
var upperSizes = []int{0, 1, 2, 3, 5, 8, 13, 100, 255, 640, 1200}

// upper is the n-th upper layer packet: UDP, TCP, ICMP in turn.
func upper(n int, src, dst netip.Addr) (protocol uint8, b []byte) {
	payload := make([]byte, upperSizes[n%len(upperSizes)])
	for i := range payload {
		payload[i] = byte(i*7 + n)
	}
	switch n % 3 {
	case 0:
		b = binary.BigEndian.AppendUint16([]byte{0xc3, 0x50, 0xc3, 0x51}, uint16(8+len(payload)))
		b = slices.Concat(b, []byte{0, 0}, payload)
		putChecksum(b[6:8], b, src, dst, packet.ProtoUDP)
		return packet.ProtoUDP, b
	case 1: // ACK, of an established connection
		b = slices.Concat([]byte{0xc3, 0x50, 0xc3, 0x51, 0, 0, 1, byte(n), 0, 0, 0, 1, 0x50, 0x10, 0x10, 0, 0, 0, 0, 0}, payload)
		putChecksum(b[16:18], b, src, dst, packet.ProtoTCP)
		return packet.ProtoTCP, b
	}
	b = slices.Concat([]byte{8, 0, 0, 0, 0x12, 0x34, 0, byte(n)}, payload)
	if src.Is4() {
		binary.BigEndian.PutUint16(b[2:], ^packet.Checksum(b, 0))
		return packet.ProtoICMP, b
	}
	b[0] = 128
	putChecksum(b[2:4], b, src, dst, packet.ProtoICMPv6)
	return packet.ProtoICMPv6, b
}

// build is the n-th packet from src to dst with the variant-th options or
// extension headers.
func build(n, variant int, src, dst netip.Addr) sample {
	protocol, b := upper(n, src, dst)
	tc := uint8(0x2e<<2 | n%2*packet.ECT0)
	if src.Is4() {
		o := options4[variant]
		h := make([]byte, 20, 20+len(o.b))
		h[0], h[1], h[6], h[8], h[9] = 0x45+byte(len(o.b)/4), tc, 0x40, 61, protocol
		if n%4 != 0 {
			h[4], h[5] = 0x12, byte(n)
		}
		copy(h[12:], src.AsSlice())
		copy(h[16:], dst.AsSlice())
		h = append(h, o.b...)
		packet.SetLength(h, len(h)+len(b))
		packet.SetChecksum(h)
		return sample{fmt.Sprintf("packet %d, %s, protocol %d", n, o.name, protocol), append(h, b...)}
	}
	e := extensions6[variant]
	h := make([]byte, 40)
	binary.BigEndian.PutUint32(h, 6<<28|uint32(tc)<<20|uint32(n))
	h[7] = 61
	copy(h[8:], src.AsSlice())
	copy(h[24:], dst.AsSlice())
	next := &h[6]
	for _, x := range e.chain {
		*next = x.kind
		h = append(h, x.b...)
		next = &h[len(h)-len(x.b)]
	}
	*next = protocol
	packet.SetLength(h, len(h)+len(b))
	return sample{fmt.Sprintf("packet %d, %s, protocol %d", n, e.name, protocol), append(h, b...)}
}

// perCell is how many packets go each way in a cell.
const perCell = 24

// samples are a cell's packets, from the gateway's side or to it. UDP leaves no
// room for options, which the kernel makes the header of.
func (c *cell) samples(outbound bool) (list []sample) {
	for n := range perCell {
		variant, family, ends := n%6, c.family(), outerAddrs
		if n >= 12 { // another upper layer with each variant
			variant = (n + 1) % 6
		}
		if c.mode == sad.TunnelMode {
			ends, family = innerAddrs, 4+n/6%2*2
		} else if c.udp() {
			variant = 0
		}
		src, dst := ends[family][0], ends[family][1]
		if !outbound {
			src, dst = dst, src
		}
		list = append(list, build(n, variant, src, dst))
	}
	return list
}
