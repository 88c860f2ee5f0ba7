package dataplane

import (
	"encoding/binary"
	"syscall"
	"testing"

	"github.com/adit-ipsec/adit/internal/packet"
	"github.com/adit-ipsec/adit/sad"
)

// Figure 4 of RFC 6040, all sixteen cells, through the walk: inner field at the
// TUN, header checksum right, or the one drop.
func TestRFC6040_4_2_DecapsulationCells(t *testing.T) {
	const drop = 0xff
	const notECT, ect1, ect0, ce = packet.NotECT, packet.ECT1, packet.ECT0, packet.CE
	cells := map[[2]uint8]uint8{ // inner, outer
		{notECT, notECT}: notECT, {notECT, ect0}: notECT, {notECT, ect1}: notECT, {notECT, ce}: drop,
		{ect0, notECT}: ect0, {ect0, ect0}: ect0, {ect0, ect1}: ect1, {ect0, ce}: ce,
		{ect1, notECT}: ect1, {ect1, ect0}: ect1, {ect1, ect1}: ect1, {ect1, ce}: ce,
		{ce, notECT}: ce, {ce, ect0}: ce, {ce, ect1}: ce, {ce, ce}: ce,
	}
	if len(cells) != 16 {
		t.Fatalf("expected 16 cells, saw %d", len(cells))
	}
	for cell, want := range cells {
		for _, six := range []bool{false, true} {
			in, next := inner{src: hostB, dst: hostA, tos: 46<<2 | cell[0], payload: "x"}, uint8(packet.ProtoIPv4)
			if six {
				in.src, in.dst, next = hostS, host6, packet.ProtoIPv6
			}
			r := newRig(t, options{})
			p := r.sealed(1, next, in.udp())
			d := packet.Datagram{Mem: p, Len: len(p), TOS: cell[1]}
			if want == drop {
				r.dropped(InECN, func() { r.delivers(0, r.receive(wireUDP, d)) })
				continue
			}
			var got [][]byte
			r.counts(nil, func() { got = r.receive(wireUDP, d) })
			if len(got) != 1 {
				t.Fatalf("inner %d outer %d: nothing came", cell[0], cell[1])
			}
			var h packet.Header
			var f packet.Flow
			if err := packet.Parse(got[0], &h, &f); err != nil {
				t.Fatal(err)
			}
			if h.TrafficClass != 46<<2|want {
				t.Errorf("inner %d outer %d: traffic class: expected %#x, saw %#x", cell[0], cell[1], 46<<2|want, h.TrafficClass)
			}
			if sum := packet.Checksum(got[0][:20], 0); !six && sum != 0xffff {
				t.Errorf("inner %d outer %d: header checksum is wrong", cell[0], cell[1])
			}
		}
	}
}

func TestOuterTrafficClassAndDF(t *testing.T) {
	for _, c := range []struct {
		name     string
		tunnel   sad.Tunnel
		tos      uint8
		df       bool
		wantTOS  uint8
		wantDF   bool
		sixInner bool
	}{
		{name: "copy", tos: 46<<2 | packet.ECT0, df: true, wantTOS: 46<<2 | packet.ECT0, wantDF: true},
		{name: "copy without DF", tos: 46<<2 | packet.CE, wantTOS: 46<<2 | packet.CE},
		{name: "DSCP off", tunnel: sad.Tunnel{DSCP: sad.DSCPOff}, tos: 46<<2 | packet.ECT1, wantTOS: packet.ECT1},
		{name: "DSCP fixed", tunnel: sad.Tunnel{DSCP: sad.FixedDSCP(10)}, tos: 46 << 2, wantTOS: 10 << 2},
		{name: "DSCP fixed 0", tunnel: sad.Tunnel{DSCP: sad.FixedDSCP(0)}, tos: 46 << 2, wantTOS: 0},
		{name: "ECN compat", tunnel: sad.Tunnel{ECN: sad.ECNCompat}, tos: 46<<2 | packet.ECT0, wantTOS: 46 << 2},
		{name: "DF set", tunnel: sad.Tunnel{DF: sad.DFSet}, wantDF: true},
		{name: "DF clear", tunnel: sad.Tunnel{DF: sad.DFClear}, df: true},
		{name: "IPv6 inside, copy", sixInner: true, tos: 12 << 2, wantTOS: 12 << 2},
		{name: "IPv6 inside, set", tunnel: sad.Tunnel{DF: sad.DFSet}, sixInner: true, wantDF: true},
	} {
		r := newRig(t, options{tunnel: c.tunnel})
		in := inner{src: hostA, dst: hostB, tos: c.tos, df: c.df, payload: "x"}
		if c.sixInner {
			in.src, in.dst = host6, hostS
		}
		got := r.send(in.udp())
		if len(got) != 1 || got[0].TOS != c.wantTOS || got[0].DF != c.wantDF {
			t.Errorf("%s: expected traffic class %#x and DF %v, saw %+v", c.name, c.wantTOS, c.wantDF, got)
		}
	}
}

// The inner header is not changed by the outbound walk: TTL included, which the
// kernel decremented when it forwarded the packet into the TUN.
func TestRFC4301_5_1_2_InnerHeaderUnchanged(t *testing.T) {
	r := newRig(t, options{})
	p := inner{src: hostA, dst: hostB, ttl: 1, tos: 0x2e, df: true, payload: "x"}.udp()
	binary.BigEndian.PutUint16(p[4:], 0xbeef)
	got := r.send(p)
	if len(got) != 1 {
		t.Fatalf("expected 1 datagram, saw %d", len(got))
	}
	open, err := r.opened(got[0], 1)
	if err != nil || string(open.Payload) != string(p) {
		t.Errorf("expected % x, saw % x, %v", p, open.Payload, err)
	}
}

// The TUN's MTU never falls below 1280. Where the outside has no room for that,
// an inner packet with DF must not vanish: nobody would tell its sender. With
// df: set, or beyond 1280 bytes, it is the operator's business.
func TestOuterDFYieldsWhereTheTUNPromisesMoreThanThePath(t *testing.T) {
	for _, c := range []struct {
		name  string
		mode  sad.DFMode
		bytes int
		fits  bool
	}{
		{"copied, 1280 bytes", sad.DFCopy, 1280, true},
		{"copied, 1281 bytes", sad.DFCopy, 1281, false},
		{"set", sad.DFSet, 1280, false},
	} {
		r := newRig(t, options{tunnel: sad.Tunnel{DF: c.mode}})
		r.wires[wireUDP].fail = func(d *packet.Datagram) error {
			if d.DF && d.Len > 1252 {
				return syscall.EMSGSIZE
			}
			return nil
		}
		small := inner{src: hostA, dst: hostB, payload: "small", df: true}.udp()
		large := inner{src: hostA, dst: hostB, payload: string(make([]byte, c.bytes-28)), df: true}.udp()
		var got []sent
		want := map[DropReason]uint64{OutSendError: 1}
		if c.fits {
			want = nil
		}
		r.counts(want, func() { got = r.send(small, large, small) })
		switch {
		case c.fits && (len(got) != 3 || !got[0].DF || got[1].DF || !got[2].DF):
			t.Errorf("%s: expected 3 datagrams, the middle one without DF, saw %d", c.name, len(got))
		case !c.fits && (len(got) != 2 || !got[0].DF || !got[1].DF):
			t.Errorf("%s: expected the 2 small datagrams with DF, saw %d", c.name, len(got))
		}
	}
}

// countedWire counts the calls of WriteBatch.
type countedWire struct {
	captureWire
	calls int
}

func (w *countedWire) WriteBatch(grams []packet.Datagram) (int, error) {
	w.calls++
	return w.captureWire.WriteBatch(grams)
}

// What is refused once is not asked again for each packet of the batch; a
// shorter one keeps its DF.
func TestOneRefusalTakesTheCopiedDFFromAllThatAreAsLong(t *testing.T) {
	r := newRig(t, options{})
	w := &countedWire{}
	w.fail = func(d *packet.Datagram) error {
		if d.DF && d.Len > 1252 {
			return syscall.EMSGSIZE
		}
		return nil
	}
	r.gw.out[0].wires[wireUDP].to = w
	s := fromASuper(50*1240+10, 1240)
	want := s.segments()
	r.counts(nil, func() { r.sendMixed(s) })
	got := w.take()
	if len(got) != len(want) || w.calls != 2 {
		t.Fatalf("%d datagrams in %d calls; expected %d in 2", len(got), w.calls, len(want))
	}
	for i, d := range got {
		if last := i == len(got)-1; d.DF != last {
			t.Errorf("datagram %d of %d: DF %v; expected %v", i+1, len(got), d.DF, last)
		}
	}
}
