// Package ahwire sends signed AH packets (RFC 4302) from one real host through a
// router to another, and verifies there what the raw socket hands over: that
// rawip.Clear, the wire and rawip.Config.Whole keep every byte that the ICV covers.
package ahwire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/adit-ipsec/adit/ah"
	"github.com/adit-ipsec/adit/internal/netlab"
	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/internal/rawip"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what must not take long; a test that reaches it has failed.
const patience = 10 * time.Second

// path is gateway A, which sends, and gateway B, which receives, with the router
// between them.
type path struct {
	*netlab.Topology
	t       *testing.T
	out     *rawip.Clear
	in      map[int]*rawip.Conn // by family
	slots   []packet.Datagram
	scratch *ah.Scratch
}

func newPath(t *testing.T) *path {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	net, err := netlab.SiteToSite(netlab.Options{Name: t.Name()})
	check(t, err)
	p := &path{Topology: net, t: t, in: map[int]*rawip.Conn{}, slots: packet.NewDatagrams(1), scratch: ah.NewScratch()}
	t.Cleanup(func() { check(t, net.Close()) })
	// For packets with a source route.
	for _, n := range []*netlab.Node{p.Router, p.B.Gateway} {
		for _, key := range []string{"all", "a0", "b0", netlab.OutsideIface} {
			err := n.Sysctl("net.ipv4.conf."+key+".accept_source_route", "1")
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
	}
	check(t, p.A.Gateway.Do(func() (err error) {
		p.out, err = rawip.NewClear(0)
		return err
	}))
	t.Cleanup(func() { check(t, p.out.Close()) })
	for _, family := range []int{4, 6} {
		check(t, p.B.Gateway.Do(func() (err error) {
			p.in[family], err = rawip.Listen(rawip.Config{Family: family, Protocol: packet.ProtoAH, Whole: true})
			return err
		}))
		t.Cleanup(func() { check(t, p.in[family].Close()) })
	}
	return p
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (p *path) send(packets ...[]byte) {
	p.t.Helper()
	m := packet.NewDatagrams(len(packets))
	for i, b := range packets {
		m[i].Len = copy(m[i].Mem[m[i].Off:], b)
	}
	if n, err := p.out.WriteBatch(m); n != len(m) || err != nil {
		p.t.Fatalf("WriteBatch = %d, %v; want %d, nil", n, err, len(m))
	}
}

func (p *path) receive(family int) *packet.Datagram {
	p.t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := p.in[family].ReadBatch(p.slots)
		done <- err
	}()
	select {
	case err := <-done:
		check(p.t, err)
	case <-time.After(patience):
		p.in[family].Close()
		p.t.Fatal("nothing came")
	}
	return &p.slots[0]
}

// header is what stands in front of AH. cut says where a sender that fragments
// cuts, and where the next header field in front of it is (IPv6).
type header struct {
	name   string
	b      []byte
	family int
	cut    int
	next   int
}

// headers4 have every option of RFC 4302 appendix A1 that Linux lets through.
func (p *path) headers4() (list []header) {
	router, src, dst := p.A.Router4.AsSlice(), p.A.Outside4.AsSlice(), p.B.Outside4.AsSlice()
	for _, o := range []struct {
		name    string
		to      []byte
		options []byte
	}{
		{"plain", dst, nil},
		{"router alert and padding", dst, []byte{148, 4, 0, 0, 1, 1, 1, 0}},
		{"record route", dst, append([]byte{7, 15, 4}, make([]byte, 13)...)},
		{"timestamps", dst, append([]byte{68, 12, 5, 0}, make([]byte, 8)...)},
		{"unknown", dst, []byte{94, 6, 1, 2, 3, 4, 1, 0}},
		{"most options", dst, append(bytes.Repeat([]byte{1}, 36), 94, 3, 7, 0)},
		{"loose source route", router, slices.Concat([]byte{131, 7, 4}, dst, []byte{0})},
	} {
		b := slices.Concat(make([]byte, 12), src, o.to, o.options)
		b[0], b[1], b[8], b[9] = 0x40|byte(len(b)/4), 0xb9, 64, packet.ProtoAH
		binary.BigEndian.PutUint16(b[4:], 0x7777)
		list = append(list, header{name: o.name, b: b, family: 4, cut: len(b)})
	}
	return list
}

// option is an extension header of options: one immutable, one mutable (RFC 4302
// 3.3.3.1.2.2), both to be skipped over by who does not know them (RFC 8200 4.2).
func option(next uint8, eights int) []byte {
	h := bytes.Repeat([]byte{7}, 8*eights)
	h[0], h[1], h[2], h[3], h[6], h[7] = next, byte(eights-1), 0x1e, 2, 0x3e, byte(8*(eights-1))
	return h
}

func (p *path) headers6() (list []header) {
	routing := append([]byte{packet.ProtoDestination, 2, 0, 0, 0, 0, 0, 0}, p.A.Router6.AsSlice()...)
	for _, o := range []struct {
		name       string
		first      uint8
		extensions []byte
		cut, next  int
	}{
		{"plain", packet.ProtoAH, nil, 40, 6},
		{"hop-by-hop", packet.ProtoHopByHop, option(packet.ProtoAH, 2), 56, 40},
		{"destination options", packet.ProtoDestination, option(packet.ProtoAH, 4), 40, 6},
		{"destination options of 88 bytes", packet.ProtoDestination, option(packet.ProtoAH, 11), 40, 6},
		{
			"all", packet.ProtoHopByHop,
			slices.Concat(option(packet.ProtoDestination, 1), option(packet.ProtoRouting, 1), routing, option(packet.ProtoAH, 1)), 80, 56,
		},
	} {
		b := slices.Concat([]byte{0x6b, 0x9a, 0xbc, 0xde, 0, 0, o.first, 64}, p.A.Outside6.AsSlice(), p.B.Outside6.AsSlice(), o.extensions)
		list = append(list, header{name: o.name, b: b, family: 6, cut: o.cut, next: o.next})
	}
	return list
}

func setLength(b []byte) {
	if b[0]>>4 == 4 {
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	} else {
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	}
}

// fragments cuts a signed packet as its sender may (RFC 4302 3.3.4), the last
// piece first. IPv4 copies an option into all of them only if its type says so
// (RFC 791 3.1).
func (h *header) fragments(b []byte, size int) (list [][]byte) {
	body := b[h.cut:]
	for at := 0; at < len(body); at += size {
		end := min(at+size, len(body))
		front := bytes.Clone(b[:h.cut])
		more := end < len(body)
		if h.family == 4 {
			if at > 0 && len(front) > 20 && front[20]&0x80 == 0 {
				front = front[:20]
				front[0] = 0x45
			}
			field := uint16(at / 8)
			if more {
				field |= 0x2000
			}
			binary.BigEndian.PutUint16(front[6:], field)
		} else {
			fragment := []byte{front[h.next], 0, byte(at >> 8), byte(at), 0, 0, 0x77, 0x77}
			if more {
				fragment[3] |= 1
			}
			front[h.next] = packet.ProtoFragment
			front = append(front, fragment...)
		}
		piece := append(front, body[at:end]...)
		setLength(piece)
		list = append(list, piece)
	}
	slices.Reverse(list)
	return list
}

// sa is a security association between A and B.
type sa struct {
	*ah.Transform
	seq uint64
}

func associations(t *testing.T) (list []*sa) {
	t.Helper()
	for _, s := range ah.Suites() {
		for _, esn := range []bool{false, true} {
			tr, err := ah.New(s, bytes.Repeat([]byte{0x3c}, s.KeyLen()), esn)
			check(t, err)
			list = append(list, &sa{Transform: tr})
			if esn {
				list[len(list)-1].seq = 1 << 33
			}
		}
	}
	return list
}

// sign makes a packet of payload behind the header.
func (p *path) sign(s *sa, h *header, payload []byte) []byte {
	p.t.Helper()
	s.seq++
	start := len(h.b) + s.Suite().HeaderLen(h.family)
	b := slices.Concat(h.b, make([]byte, start-len(h.b)), payload)
	setLength(b)
	batch := []ah.Packet{{Seq: s.seq, NextHeader: packet.ProtoUDP, Payload: b[start:], Wire: b}}
	s.Sign(p.scratch, 0x1001, batch)
	check(p.t, batch[0].Err)
	return batch[0].Wire
}

// verify receives a packet, and holds that it is the one that was signed last and
// that its header is covered.
func (p *path) verify(what string, s *sa, h *header, payload []byte) {
	p.t.Helper()
	d := p.receive(h.family)
	verify := func() ah.Packet {
		batch := []ah.Packet{{Seq: s.seq, Wire: d.Bytes()}}
		s.Verify(p.scratch, batch)
		return batch[0]
	}
	if got := verify(); got.Err != nil || !bytes.Equal(got.Payload, payload) || got.NextHeader != packet.ProtoUDP {
		p.t.Errorf("%s: %v, %d bytes of payload, next header %d; packet %x", what, got.Err, len(got.Payload), got.NextHeader, d.Bytes())
	}
	if d.TTL != 63 {
		p.t.Errorf("%s: TTL %d, want 63: the packet did not pass the router", what, d.TTL)
	}
	d.Mem[d.Off+12]++ // of the source address
	if got := verify(); got.Err == nil {
		p.t.Errorf("%s: verifies from another source", what)
	}
}

// TestRootRFC4302_3_3_3_1_ICVSurvivesTheWire has every suite behind every header:
// in one piece, cut by its sender, and cut by the router (IPv4).
func TestRootRFC4302_3_3_3_1_ICVSurvivesTheWire(t *testing.T) {
	p := newPath(t)
	payload := make([]byte, 1000)
	for i := range payload {
		payload[i] = byte(i * 31 >> 3)
	}
	binary.BigEndian.PutUint16(payload[4:], uint16(len(payload))) // a UDP header's length
	all := associations(t)
	each := func(ways string, headers []header, f func(b []byte, h *header)) {
		for i := range headers {
			for _, s := range all {
				f(p.sign(s, &headers[i], payload), &headers[i])
				what := fmt.Sprintf("IPv%d, %s, %s, ESN %v, %s", headers[i].family, headers[i].name, s.Suite(), s.ESN(), ways)
				p.verify(what, s, &headers[i], payload)
			}
		}
	}
	headers := append(p.headers4(), p.headers6()...)
	each("in one piece", headers, func(b []byte, _ *header) { p.send(b) })
	each("in fragments", headers, func(b []byte, h *header) { p.send(h.fragments(b, 400)...) })
	each("in a fragment that is whole", p.headers6(), func(b []byte, h *header) { p.send(h.fragments(b, 4000)...) })
	check(t, p.Router.SetMTU(p.B.RouterIface, 600))
	each("fragmented by the router", p.headers4(), func(b []byte, _ *header) { p.send(b) })
	for family, c := range p.in {
		if n := c.Skipped(); n != 0 {
			t.Errorf("IPv%d: %d packets were skipped, want none", family, n)
		}
	}
}

// TestRootClearLeavesTheHeaderAlone holds what Clear's documentation says the
// kernel leaves as it is, with what leaves the sender's interface.
func TestRootClearLeavesTheHeaderAlone(t *testing.T) {
	p := newPath(t)
	c, err := p.A.Gateway.Capture(netlab.CaptureOptions{Iface: netlab.OutsideIface})
	check(t, err)
	defer c.Close()
	const payload = "AH and payload: 24 bytes"
	var want [][]byte
	for _, h := range append(p.headers4(), p.headers6()...) {
		for _, df := range []byte{0, 0x40} {
			b := append(bytes.Clone(h.b), payload...)
			setLength(b)
			if h.family == 4 {
				b[6] = df
			}
			want = append(want, b)
		}
	}
	p.send(want...)
	var got [][]byte
	for _, b := range want {
		p.receive(int(b[0] >> 4))
	}
	for _, b := range c.IPPackets() {
		if b[0]>>4 == 4 && b[9] == packet.ProtoAH {
			b = bytes.Clone(b)
			b[10], b[11] = 0, 0 // the checksum is the kernel's
			got = append(got, b)
		} else if b[0]>>4 == 6 && bytes.HasSuffix(b, []byte(payload)) {
			got = append(got, b)
		}
	}
	// The families wait for their neighbours' addresses apart.
	slices.SortStableFunc(got, func(a, b []byte) int { return int(a[0]>>4) - int(b[0]>>4) })
	if len(got) != len(want) {
		t.Fatalf("%d packets left, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Errorf("packet %d left as\n%x, want\n%x", i, got[i], want[i])
		}
	}
}
